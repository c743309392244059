/* recall.c: how much of what there is an index finds, and what that costs: recall and times for some numbers of lists, the
 * number that is calibrated, one that is tuned to questions, and what iqdb_stat says of memory.
 *
 *   cc -I. examples/recall.c -o recall -pthread -lm && ./recall
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    DIM = 48,
    RECORDS = 20000,
    QUESTIONS = 200,
    GROUPS = 250,
    K = 10
};

static float questions[QUESTIONS][DIM];

static void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

/* Around one of some points, as most things that one searches for. */
static void vector_of(uint32_t id, float *out) {
    uint32_t group = id % GROUPS * 747796405u + 1u, own = id * 2891336453u + 1u;
    for (int i = 0; i < DIM; i++) {
        group = group * 1664525u + 1013904223u;
        own = own * 1664525u + 1013904223u;
        out[i] = (float)(group >> 8) / 8388608.0f - 1.0f + ((float)(own >> 8) / 8388608.0f - 1.0f) * 0.8f;
    }
}

static int by_size(const void *a, const void *b) {
    const clock_t x = *(const clock_t *)a, y = *(const clock_t *)b;
    return (x > y) - (x < y);
}

/* Searches that read so many lists; 0: as many as iqdb has found to be enough. */
static void measure(const iqdb *db, const char *what, uint32_t lists) {
    clock_t times[QUESTIONS];
    iqdb_hit hits[K];
    iqdb_search_info info;
    double recall;
    uint64_t compared = 0;
    size_t count;
    iqdb_query query = iqdb_query_default();
    query.k = K;
    query.nprobe = lists;
    check(iqdb_measure_recall(db, &query, questions, QUESTIONS, &recall) == IQDB_OK, "measure");
    query.info = &info;
    for (int i = 0; i < QUESTIONS; i++) {
        const clock_t start = clock();
        query.vector = questions[i];
        check(iqdb_search(db, &query, hits, &count) == IQDB_OK && count == K, "search");
        times[i] = clock() - start;
        compared += info.rows_compared;
    }
    qsort(times, QUESTIONS, sizeof times[0], by_size);
    printf("%-16s recall %.3f, %6.1f records compared, %.0f us for half of the questions, %.0f us for nearly all\n",
           what, recall, (double)compared / (double)QUESTIONS, 1e6 * (double)times[QUESTIONS / 2] / CLOCKS_PER_SEC,
           1e6 * (double)times[QUESTIONS * 99 / 100] / CLOCKS_PER_SEC);
}

int main(void) {
    iqdb *db = NULL;
    iqdb_stats stats;
    bool done = false;
    iqdb_options options = iqdb_options_default();
    options.metric = IQDB_L2;
    options.index = IQDB_INDEX_IVF;
    check(iqdb_open_in_memory(&options, &db) == IQDB_OK, "open");
    for (uint32_t id = 0; id < RECORDS; id++) {
        float vector[DIM];
        iqdb_record record = iqdb_record_default();
        vector_of(id, vector);
        record.id = id;
        record.vector = vector;
        record.dim = DIM;
        check(iqdb_upsert(db, &record) == IQDB_OK, "upsert");
    }
    while (!done) check(iqdb_maintain(db, 10000, &done) == IQDB_OK, "maintain");
    for (uint32_t i = 0; i < QUESTIONS; i++) vector_of(RECORDS + i * 7, questions[i]);
    measure(db, "one list", 1);
    measure(db, "five lists", 5);
    measure(db, "twenty lists", 20);
    measure(db, "as calibrated", 0);
    check(iqdb_tune(db, 0.99f, questions[0], QUESTIONS) == IQDB_OK, "tune");
    measure(db, "tuned to .99", 0);
    check(iqdb_stat(db, &stats) == IQDB_OK, "stat");
    printf("%llu records in %llu lists; bytes of vectors %llu, of them codes %llu, of lists %llu\n",
           (unsigned long long)stats.index_rows, (unsigned long long)stats.index_lists,
           (unsigned long long)stats.vector_bytes, (unsigned long long)stats.code_bytes,
           (unsigned long long)stats.index_bytes);
    check(iqdb_close(db) == IQDB_OK, "close");
    return 0;
}
