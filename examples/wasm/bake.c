/* bake.c: the notes of examples/data, as one blob on the standard output.
 *
 *   cc -O1 -I. examples/wasm/bake.c -o bake -pthread -lm && ./bake examples/data >notes.blob
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

static FILE *open_in(const char *folder, const char *name) {
    char path[1024];
    check((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) < sizeof path, "a path");
    FILE *file = fopen(path, "rb");
    check(file != NULL, name);
    return file;
}

static uint32_t word(FILE *file) {
    unsigned char b[4];
    check(fread(b, 1, 4, file) == 4, "a number");
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static bool print_bytes(const void *bytes, size_t size, void *user) { return fwrite(bytes, 1, size, (FILE *)user) == size; }

int main(int argc, char **argv) {
    static char line[1 << 16];
    iqdb *db = NULL;
    check(argc == 2, "one argument, the folder of the data");
    FILE *vectors = open_in(argv[1], "notes.fbin"), *notes = open_in(argv[1], "notes.jsonl");
    const uint32_t rows = word(vectors), dim = word(vectors);
    float *vector = (float *)malloc(dim * sizeof(float));
    iqdb_buffer buffer = iqdb_buffer_default();
    check(vector != NULL && iqdb_open_in_memory(NULL, &db) == IQDB_OK, "open");
    for (uint32_t row = 0; row < rows; row++) {
        for (uint32_t i = 0; i < dim; i++) {
            const uint32_t bits = word(vectors);
            memcpy(&vector[i], &bits, sizeof bits);
        }
        check(fgets(line, sizeof line, notes) != NULL, "a line");
        iqdb_record record = iqdb_record_default();
        check(iqdb_payload_from_json(line, strlen(line), &buffer, &record.payload) == IQDB_OK, "JSON");
        record.id = (uint64_t)iqdb_payload_int(record.payload, "id", 0);
        record.vector = vector;
        record.dim = dim;
        check(iqdb_upsert(db, &record) == IQDB_OK, "upsert");
    }
    check(iqdb_export_blob(db, print_bytes, stdout) == IQDB_OK && fflush(stdout) == 0, "export");
    iqdb_buffer_free(&buffer);
    free(vector);
    fclose(vectors);
    fclose(notes);
    return iqdb_close(db) == IQDB_OK ? 0 : 1;
}
