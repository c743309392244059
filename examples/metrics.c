/* metrics.c: the same five points and the same question under each metric. Scores are always such that smaller is closer.
 *
 *   cc -I. examples/metrics.c -o metrics -pthread -lm && ./metrics
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    COUNT = 5
};

static void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

int main(void) {
    static const float points[COUNT][2] = {{1.0f, 0.0f}, {3.0f, 0.5f}, {0.9f, 0.9f}, {-1.0f, 0.0f}, {0.0f, 0.0f}};
    static const float asked[2] = {1.0f, 0.125f};
    static const struct {
        iqdb_metric metric;
        const char *name, *says;
    } metrics[] = {{IQDB_L2, "l2", "how far"},
                   {IQDB_L1, "l1", "how many blocks away"},
                   {IQDB_COSINE, "cosine", "which direction, however long; 1 for what has none"},
                   {IQDB_DOT, "dot", "which direction, and the longer the closer"}};
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL;
    options.metric = IQDB_L2; /* of queries that name none */
    check(iqdb_open_in_memory(&options, &db) == IQDB_OK, "open");
    for (uint64_t i = 0; i < COUNT; i++) {
        iqdb_record record = iqdb_record_default();
        record.id = i + 1;
        record.vector = points[i];
        record.dim = 2;
        check(iqdb_upsert(db, &record) == IQDB_OK, "upsert");
    }
    for (size_t m = 0; m < sizeof metrics / sizeof metrics[0]; m++) {
        iqdb_hit hits[COUNT];
        size_t count = 0;
        iqdb_query query = iqdb_query_default();
        query.vector = asked;
        query.k = COUNT;
        query.metric = metrics[m].metric;
        check(iqdb_search(db, &query, hits, &count) == IQDB_OK && count == COUNT, "search");
        printf("%s: %s\n", metrics[m].name, metrics[m].says);
        for (size_t i = 0; i < count; i++) {
            float distance;
            const float *point = points[hits[i].id - 1];
            check(iqdb_distance(metrics[m].metric, asked, point, 2, &distance) == IQDB_OK, "distance");
            check(memcmp(&distance, &hits[i].score, sizeof distance) == 0, "without a database the same bits");
            printf("  %lu [%4.1f %4.1f] %7.4f\n", (unsigned long)hits[i].id, (double)point[0], (double)point[1],
                   (double)hits[i].score);
        }
    }
    return iqdb_close(db) == IQDB_OK ? 0 : 1;
}
