/* persistence.c: one directory, three sessions. What was written is there when it is opened again.
 *
 *   cc -I. examples/persistence.c -o persistence -pthread -lm
 *   ./persistence              in a fresh temporary directory, removed at the end
 *   ./persistence notes-db     in a directory that stays
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static iqdb_error detail; /* what open and the writing calls can tell beyond their result */

static void check(iqdb_result result, const char *what) {
    if (result == IQDB_OK) return;
    fprintf(stderr, "%s: %s", what, iqdb_strerror(result));
    if (detail.text[0] != 0) fprintf(stderr, ": %s", detail.text);
    if (detail.file[0] != 0)
        fprintf(stderr, " (%s, byte %lu)", detail.file, (unsigned long)detail.offset);
    fprintf(stderr, "\n");
    exit(1);
}

static iqdb *open_notes(const char *path) {
    iqdb_options options = iqdb_options_default();
    options.error = &detail;
    iqdb *db = NULL;
    check(iqdb_open(path, &options, &db), "open"); /* makes the directory where there is none */
    return db;
}

static const char *const texts[3] = {"water the tomatoes", "call the plumber", "buy tomato seeds"};
static const float vectors[3][4] = {
    {0.9f, 0.1f, 0.0f, 0.2f}, {0.0f, 0.8f, 0.6f, 0.0f}, {0.8f, 0.0f, 0.1f, 0.5f}};

static void print_nearest(const iqdb *db, const float vector[4]) {
    iqdb_hit hits[3];
    size_t count = 0;
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_query query = iqdb_query_default();
    query.vector = vector;
    query.k = 3;
    query.flags = IQDB_WITH_PAYLOAD;
    query.buffer = &buffer;
    check(iqdb_search(db, &query, hits, &count), "search");
    for (size_t i = 0; i < count; i++)
        printf("  %u  %.4f  %s\n", (unsigned)hits[i].id, (double)hits[i].score,
               iqdb_payload_text(hits[i].payload, "text", NULL));
    iqdb_buffer_free(&buffer);
}

/* Session 1: three notes in one batch, which is found whole or not at all. */
static void write_notes(const char *path) {
    iqdb *db = open_notes(path);
    iqdb_field fields[3];
    iqdb_record records[3];
    for (int i = 0; i < 3; i++) {
        fields[i].key = "text";
        fields[i].value = iqdb_text(texts[i]);
        records[i] = iqdb_record_default();
        records[i].id = (uint64_t)i + 1;
        records[i].vector = vectors[i];
        records[i].dim = 4;
        records[i].fields = &fields[i];
        records[i].field_count = 1;
    }
    check(iqdb_upsert_batch(db, records, 3), "upsert_batch");
    check(iqdb_flush(db), "flush"); /* from here on the batch survives a power cut */
    printf("session 1: wrote %u notes\n", (unsigned)iqdb_len(db));
    check(iqdb_close(db), "close");
}

/* Session 2: they are there, and are found; then one goes. */
static void read_notes(const char *path) {
    iqdb *db = open_notes(path);
    printf("session 2: found %u notes\n", (unsigned)iqdb_len(db));
    print_nearest(db, vectors[0]);
    bool removed = false;
    check(iqdb_delete(db, 2, &removed), "delete");
    printf("session 2: note 2 %s\n", removed ? "deleted" : "was not there");
    check(iqdb_close(db), "close"); /* close makes everything durable, too */
}

/* Session 3: the deleted note stays away, and every byte of the files is what it should be. */
static void check_notes(const char *path) {
    iqdb *db = open_notes(path);
    printf("session 3: found %u notes, note 2 %s\n", (unsigned)iqdb_len(db),
           iqdb_contains(db, 2) ? "is there" : "is gone");
    print_nearest(db, vectors[0]);
    check(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), "verify");
    printf("session 3: verified\n");
    check(iqdb_close(db), "close");
}

static void remove_directory(const char *path) {
    DIR *directory = opendir(path);
    if (directory == NULL) return;
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        char file[2048];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        const int size = snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        if (size > 0 && (size_t)size < sizeof file) unlink(file);
    }
    closedir(directory);
    rmdir(path);
}

int main(int argc, char **argv) {
    char fresh[1024];
    const char *path = argc > 1 ? argv[1] : fresh;
    if (argc <= 1) {
        const char *parent = getenv("TMPDIR");
        const int size = snprintf(fresh, sizeof fresh, "%s/iqdb-example-XXXXXX",
                                  parent != NULL && parent[0] != 0 ? parent : "/tmp");
        if (size < 0 || (size_t)size >= sizeof fresh || mkdtemp(fresh) == NULL) {
            perror("a temporary directory");
            return 1;
        }
    }
    write_notes(path);
    read_notes(path);
    check_notes(path);
    if (argc <= 1) remove_directory(path);
    return 0;
}
