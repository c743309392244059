/* basic.c: open a database in memory, store a record, read it back, replace it, delete it, close.
 *
 *   cc -I. examples/basic.c -o basic -pthread -lm && ./basic
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h" /* before every other header: it asks the C library for what it needs */

#include <stdio.h>
#include <stdlib.h>

/* Every call that can fail returns an iqdb_result. The examples stop at the first failure. */
static void check(iqdb_result result, const char *what) {
    if (result == IQDB_OK) return;
    fprintf(stderr, "%s: %s\n", what, iqdb_strerror(result));
    exit(1);
}

static void store(iqdb *db, uint64_t id, const float vector[3], const char *kind) {
    iqdb_field field; /* a payload is a list of keys with typed values */
    field.key = "kind";
    field.value = iqdb_text(kind);

    iqdb_record record = iqdb_record_default();
    record.id = id;
    record.vector = vector;
    record.dim = 3;
    record.fields = &field;
    record.field_count = 1;
    check(iqdb_upsert(db, &record), "upsert"); /* inserts, or replaces the record of this id */
}

static void show(const iqdb *db, uint64_t id, iqdb_buffer *buffer) {
    iqdb_record record;
    check(iqdb_get(db, id, buffer, &record), "get"); /* a copy, in the buffer until its next use */
    printf("  %u: [%.2f, %.2f, %.2f] kind %s\n", (unsigned)record.id, (double)record.vector[0],
           (double)record.vector[1], (double)record.vector[2],
           iqdb_payload_text(record.payload, "kind", NULL));
}

int main(void) {
    iqdb *db = NULL;
    check(iqdb_open_in_memory(NULL, &db), "open"); /* NULL: all options at their defaults */

    const float first[3] = {1.0f, 0.0f, 0.0f}, second[3] = {0.99f, 0.10f, 0.0f};
    store(db, 1, first, "doc");
    store(db, 2, second, "image");

    iqdb_buffer buffer = iqdb_buffer_default(); /* memory for results; it grows and is used again */
    printf("stored %u records\n", (unsigned)iqdb_len(db));
    show(db, 1, &buffer);
    show(db, 2, &buffer);

    const float moved[3] = {0.0f, 1.0f, 0.0f};
    store(db, 1, moved, "note");
    printf("replaced one, still %u records\n", (unsigned)iqdb_len(db));
    show(db, 1, &buffer);

    iqdb_record absent;
    const iqdb_result result = iqdb_get(db, 99, &buffer, &absent);
    printf("record 99: %s\n", result == IQDB_ERR_NOT_FOUND ? "not found" : iqdb_strerror(result));

    bool removed = false;
    check(iqdb_delete(db, 2, &removed), "delete");
    printf("deleting 2: %s\n", removed ? "removed" : "was not there");
    check(iqdb_delete(db, 2, &removed), "delete");
    printf("deleting 2 again: %s\n", removed ? "removed" : "was not there");
    printf("left: %u record\n", (unsigned)iqdb_len(db));

    iqdb_buffer_free(&buffer);
    check(iqdb_close(db), "close");
    return 0;
}
