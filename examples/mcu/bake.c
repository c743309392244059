/* bake.c: runs on the developer's machine and prints the faces that the firmware knows, as a blob in C.
 *
 *   cc -I../.. bake.c -o bake -pthread && ./bake >faces.h
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <stdio.h>

#include "embed.h"

static bool print_bytes(const void *bytes, size_t size, void *user) {
    size_t *count = (size_t *)user;
    for (size_t i = 0; i < size; i++)
        printf("%u,%s", ((const unsigned char *)bytes)[i], ++*count % 32 == 0 ? "\n" : "");
    return true;
}

int main(void) {
    iqdb *db = NULL;
    size_t count = 0;
    iqdb_options options = iqdb_options_default();
    options.dim = DIM;
    if (iqdb_open_in_memory(&options, &db) != IQDB_OK) return 1;
    for (unsigned person = 0; person < PEOPLE; person++) {
        float vector[DIM];
        char name[16];
        iqdb_field field;
        embed(person, 0, vector);
        snprintf(name, sizeof name, "person %u", person);
        field.key = "name";
        field.value = iqdb_text(name);
        iqdb_record record = iqdb_record_default();
        record.id = person;
        record.vector = vector;
        record.fields = &field;
        record.field_count = 1;
        if (iqdb_upsert(db, &record) != IQDB_OK) return 1;
    }
    puts("static const unsigned char faces[] __attribute__((aligned(64))) = {");
    if (iqdb_export_blob(db, print_bytes, &count) != IQDB_OK) return 1;
    puts("};");
    return iqdb_close(db) == IQDB_OK ? 0 : 1;
}
