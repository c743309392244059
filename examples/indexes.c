/* indexes.c: the same records and questions without an index, through lists and through a graph, which iqdb_reindex changes
 * while the database is used; and filters, which each of them answers in its own way: iqdb_search_info says how.
 *
 *   cc -I. examples/indexes.c -o indexes -pthread -lm && ./indexes
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    DIM = 32,
    RECORDS = 20000,
    GROUPS = 400,
    QUESTIONS = 100,
    K = 10
};

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
        out[i] = (float)(group >> 8) / 8388608.0f - 1.0f + ((float)(own >> 8) / 8388608.0f - 1.0f) * 0.6f;
    }
}

/* Asks every question, and whether what is found is what exact searches find: nearly, at least. */
static void ask(const iqdb *db, const char *what, const iqdb_filter *filter) {
    size_t same = 0, all = 0;
    uint64_t compared = 0;
    iqdb_search_info info, exact;
    for (uint32_t q = 0; q < QUESTIONS; q++) {
        float vector[DIM];
        iqdb_hit hits[K], best[K];
        size_t count = 0, best_count = 0;
        iqdb_query query = iqdb_query_default();
        vector_of(RECORDS + q * 7, vector);
        query.vector = vector;
        query.k = K;
        query.filter = filter;
        query.info = &info;
        check(iqdb_search(db, &query, hits, &count) == IQDB_OK, "search");
        query.flags = IQDB_EXACT;
        query.info = &exact;
        check(iqdb_search(db, &query, best, &best_count) == IQDB_OK && best_count == count, "as many hits");
        compared += info.rows_compared;
        all += count;
        for (size_t i = 0; i < count; i++)
            for (size_t j = 0; j < count; j++) same += hits[i].id == best[j].id;
    }
    check((double)same >= 0.9 * (double)all && (!info.exact || same == all), "hits are the best, or nearly all of them");
    printf("  %-12s by %s, %s%lu vectors compared\n", what, iqdb_plan_name(info.plan), info.exact ? "exact, " : "",
           (unsigned long)(compared / QUESTIONS));
}

static void use(iqdb *db, iqdb_index index) {
    bool done = false;
    iqdb_stats stats;
    iqdb_options options = iqdb_options_default();
    options.index = index;
    check(iqdb_reindex(db, &options) == IQDB_OK, "reindex"); /* returns at once, */
    while (!done) check(iqdb_maintain(db, 5000, &done) == IQDB_OK, "maintain"); /* and slices of 5 ms do the work */
    check(iqdb_stat(db, &stats) == IQDB_OK && stats.index == index, "the index is there");
    printf("%s, %lu KiB of its own\n", iqdb_index_name(index), (unsigned long)(stats.index_bytes / 1024));
    const iqdb_filter few = iqdb_eq("shelf", iqdb_int(7)), some = iqdb_lt("shelf", iqdb_int(100));
    const iqdb_filter old = iqdb_lt("year", iqdb_int(1990));
    ask(db, "all records", NULL);
    ask(db, "shelf = 7", &few);      /* 40 of the records, which the index of the key lists */
    ask(db, "shelf < 100", &some);   /* a fifth of them, likewise */
    ask(db, "year < 1990", &old);    /* no index: each record that is a candidate is asked */
}

int main(void) {
    static const iqdb_index_key keys[1] = {{"shelf", IQDB_KEY_ORDERED}};
    iqdb *db = NULL;
    iqdb_options options = iqdb_options_default();
    options.metric = IQDB_L2;
    options.index_keys = keys;
    options.index_key_count = 1;
    check(iqdb_open_in_memory(&options, &db) == IQDB_OK, "open");
    for (uint32_t id = 0; id < RECORDS; id++) {
        float vector[DIM];
        iqdb_field fields[2];
        iqdb_record record = iqdb_record_default();
        vector_of(id, vector);
        fields[0].key = "shelf";
        fields[0].value = iqdb_int((int64_t)(id * 7919u % 500u));
        fields[1].key = "year";
        fields[1].value = iqdb_int(1950 + (int64_t)(id % 75));
        record.id = id;
        record.vector = vector;
        record.dim = DIM;
        record.fields = fields;
        record.field_count = 2;
        check(iqdb_upsert(db, &record) == IQDB_OK, "upsert");
    }
    use(db, IQDB_INDEX_FLAT);
    use(db, IQDB_INDEX_IVF);
    use(db, IQDB_INDEX_HNSW);
    check(iqdb_close(db) == IQDB_OK, "close");
    return 0;
}
