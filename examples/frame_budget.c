/* frame_budget.c: a program that draws frames gives the database two milliseconds in each, and no more.
 *
 *   cc -O2 -I. examples/frame_budget.c -o frame_budget -pthread -lm && ./frame_budget
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DIM 256
#define RECORDS 80000
#define SEARCHES 10
#define SLICE_US 2000

static void check(iqdb_result result, const char *what) {
    if (result == IQDB_OK) return;
    fprintf(stderr, "%s: %s\n", what, iqdb_strerror(result));
    exit(1);
}

/* The program's own clock, which the database reads too; without one it would take the system's. */
static uint64_t now_us(void *user) {
    struct timespec now;
    (void)user;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void make_vector(float vector[DIM], uint32_t *random) {
    for (int i = 0; i < DIM; i++) {
        *random = *random * 1664525u + 1013904223u;
        vector[i] = (float)(*random >> 8) / 16777216.0f - 0.5f;
    }
}

static void store(iqdb *db, uint64_t id, uint32_t *random) {
    float vector[DIM];
    make_vector(vector, random);
    iqdb_record record = iqdb_record_default();
    record.id = id;
    record.vector = vector;
    record.dim = DIM;
    check(iqdb_upsert(db, &record), "upsert");
}

int main(void) {
    iqdb *db = NULL;
    iqdb_options options = iqdb_options_default();
    options.clock_us.now_fn = now_us;
    options.index = IQDB_INDEX_FLAT; /* as a cursor looks at every record, the call it is compared with shall, too */
    check(iqdb_open_in_memory(&options, &db), "open");
    uint32_t random = 1;
    for (uint64_t id = 0; id < RECORDS; id++) store(db, id, &random); /* while the level loads */

    unsigned frames = 0, same = 0;
    uint64_t worst = 0;
    for (int search = 0; search < SEARCHES; search++) {
        float vector[DIM];
        make_vector(vector, &random);
        iqdb_query query = iqdb_query_default();
        query.vector = vector;
        query.dim = DIM;
        query.k = 10;

        iqdb_hit at_once[10], hits[10]; /* the answer of a call that takes as long as it takes, to compare */
        size_t at_once_count = 0, count = 0;
        check(iqdb_search(db, &query, at_once, &at_once_count), "search");

        iqdb_cursor *cursor = NULL;
        check(iqdb_cursor_open(db, &query, &cursor), "cursor");
        for (bool done = false; !done; frames++) {
            /* ... the frame draws, and its world changes, which the cursor does not see ... */
            for (uint64_t i = 0; i < 20; i++) store(db, (frames * 20 + i) % RECORDS, &random);

            const uint64_t begin = now_us(NULL);
            check(iqdb_cursor_step(cursor, SLICE_US, hits, 10, &count, &done), "step");
            const uint64_t slice = now_us(NULL) - begin;
            if (slice > worst) worst = slice;
        }
        iqdb_cursor_close(cursor);
        bool equal = count == at_once_count;
        for (size_t i = 0; i < count && equal; i++)
            equal = hits[i].id == at_once[i].id && memcmp(&hits[i].score, &at_once[i].score, sizeof(float)) == 0;
        if (equal) same++;

        /* What the cursor has kept of replaced records is given back in slices as well. */
        for (bool done = false; !done; frames++) {
            const uint64_t begin = now_us(NULL);
            check(iqdb_maintain(db, SLICE_US, &done), "maintain");
            const uint64_t slice = now_us(NULL) - begin;
            if (slice > worst) worst = slice;
        }
    }
    printf("%d searches among %d records in %u frames, %u of them with the answer of one call\n", SEARCHES, RECORDS,
           frames, same);
    printf("the worst slice took %u us of %u\n", (unsigned)worst, (unsigned)SLICE_US);
    check(iqdb_close(db), "close");
    return same == SEARCHES ? 0 : 1;
}
