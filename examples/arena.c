/* arena.c: a database in one array. The figure is known beforehand, nothing is ever allocated, a full block says so.
 *
 *   cc -I. examples/arena.c -o arena -pthread -lm && ./arena
 */
#include <stdio.h>
#include <stdlib.h>

/* What the library asks malloc for is counted, to show that it is nothing. IQDB_NO_MALLOC would leave malloc out. */
static int allocations;
static void *counted_malloc(size_t size) {
    allocations++;
    return malloc(size);
}
static void counted_free(void *memory) {
    free(memory);
}
#define IQDB_MALLOC(size) counted_malloc(size)
#define IQDB_FREE(memory) counted_free(memory)
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

enum {
    DIM = 32,
    RECORDS = 1000,
    PAYLOAD_BYTES = RECORDS * 64, /* of all payloads together */
    WRITES = 100000
};

static unsigned char block[1 << 20];

static void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

static void vector_of(uint64_t id, float vector[DIM]) {
    uint32_t state = (uint32_t)id * 2654435761u + 1;
    for (int i = 0; i < DIM; i++)
        vector[i] = (float)((state = state * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1.0f;
}

static iqdb_result put(iqdb *db, uint64_t id, int64_t round) {
    float vector[DIM];
    iqdb_field fields[2];
    vector_of(id, vector);
    fields[0].key = "round";
    fields[0].value = iqdb_int(round);
    fields[1].key = "kind";
    fields[1].value = iqdb_text(id % 2 == 0 ? "even" : "odd");
    iqdb_record record = iqdb_record_default();
    record.id = id;
    record.vector = vector;
    record.dim = DIM;
    record.fields = fields;
    record.field_count = 2;
    return iqdb_upsert(db, &record);
}

int main(void) {
    iqdb_options options = iqdb_options_default();
    options.dim = DIM; /* has to be known here */
    const size_t size = iqdb_memory_required(&options, RECORDS, PAYLOAD_BYTES);
    printf("%d records of %d elements, %d bytes of payload: %lu bytes\n", RECORDS, DIM, PAYLOAD_BYTES,
           (unsigned long)size);
    check(size > 0 && size <= sizeof block, "the block is large enough");

    iqdb *db = NULL;
    check(iqdb_open_in(block, size, &options, &db) == IQDB_OK, "open_in");
    for (uint64_t id = 0; id < RECORDS; id++) check(put(db, id, 0) == IQDB_OK, "every record that was stated fits");

    /* For ever: replaced records give their place to others. */
    for (int i = 0; i < WRITES; i++) {
        const uint64_t id = (uint64_t)i * 7919 % RECORDS;
        bool removed = false;
        if (i % 5 == 0) check(iqdb_delete(db, id, &removed) == IQDB_OK && removed, "delete");
        check(put(db, id, i) == IQDB_OK, "replace");
    }

    /* Hits are the caller's, and so is the memory of their payloads. */
    iqdb_hit hits[10];
    size_t count = 0;
    static double room[512];
    iqdb_buffer buffer = iqdb_buffer_fixed(room, sizeof room);
    float vector[DIM];
    const iqdb_filter even = iqdb_eq("kind", iqdb_text("even"));
    vector_of(42, vector);
    iqdb_query query = iqdb_query_default();
    query.vector = vector;
    query.k = 10;
    query.flags = IQDB_WITH_PAYLOAD;
    query.filter = &even;
    query.buffer = &buffer;
    check(iqdb_search(db, &query, hits, &count) == IQDB_OK && count == 10 && hits[0].id == 42, "search");
    printf("nearest to 42: %lu, then %lu\n", (unsigned long)hits[0].id, (unsigned long)hits[1].id);

    uint64_t id = RECORDS;
    while (put(db, id, 0) == IQDB_OK) id++; /* these payloads are smaller than stated */
    check(put(db, id, 0) == IQDB_ERR_NOMEM && iqdb_len(db) == id, "full");
    check(put(db, 3, 1) == IQDB_OK, "a full block goes on");
    printf("%lu fit; the next is refused: %s\n", (unsigned long)id, iqdb_strerror(IQDB_ERR_NOMEM));
    check(iqdb_close(db) == IQDB_OK, "close");

    check(iqdb_open_in(block, iqdb_memory_required(&options, 0, 0) - 1, &options, &db) == IQDB_ERR_NOMEM, "too small");
    printf("%d writes, %d allocations\n", WRITES, allocations);
    return allocations == 0 ? 0 : 1;
}
