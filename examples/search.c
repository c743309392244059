/* search.c: the nearest k, only those a predicate accepts, and several queries in one call.
 *
 *   cc -I. examples/search.c -o search -pthread -lm && ./search
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(iqdb_result result, const char *what) {
    if (result == IQDB_OK) return;
    fprintf(stderr, "%s: %s\n", what, iqdb_strerror(result));
    exit(1);
}

#define RECORDS 6
static const struct {
    float vector[3];
    const char *kind;
    int year;
} things[RECORDS] = {
    {{1.00f, 0.00f, 0.00f}, "doc", 2019},   {{0.99f, 0.10f, 0.00f}, "image", 2021},
    {{0.90f, 0.30f, 0.10f}, "doc", 2022},   {{0.00f, 1.00f, 0.00f}, "doc", 2023},
    {{0.10f, 0.90f, 0.20f}, "image", 2018}, {{0.00f, 0.10f, 1.00f}, "sound", 2024},
};

/* A predicate sees the whole record. What it needs to know comes through `user`. */
typedef struct wish {
    const char *kind;
    int64_t since;
} wish;

static bool fits(const iqdb_record *record, void *user) {
    const wish *wanted = (const wish *)user;
    const char *kind = iqdb_payload_text(record->payload, "kind", NULL); /* NULL: has none */
    return kind != NULL && strcmp(kind, wanted->kind) == 0 &&
           iqdb_payload_int(record->payload, "year", 0) >= wanted->since;
}

static void print_hits(const iqdb_hit *hits, size_t count) {
    for (size_t i = 0; i < count; i++)
        printf("  %u  %.4f  %s, %d\n", (unsigned)hits[i].id, (double)hits[i].score,
               iqdb_payload_text(hits[i].payload, "kind", NULL),
               (int)iqdb_payload_int(hits[i].payload, "year", 0));
}

int main(void) {
    iqdb *db = NULL;
    check(iqdb_open_in_memory(NULL, &db), "open");
    for (size_t i = 0; i < RECORDS; i++) {
        iqdb_field fields[2];
        fields[0].key = "kind";
        fields[0].value = iqdb_text(things[i].kind);
        fields[1].key = "year";
        fields[1].value = iqdb_int(things[i].year);
        iqdb_record record = iqdb_record_default();
        record.id = i + 1;
        record.vector = things[i].vector;
        record.dim = 3;
        record.fields = fields;
        record.field_count = 2;
        check(iqdb_upsert(db, &record), "upsert");
    }

    /* The nearest three. The buffer holds their payloads until the next call that uses it. */
    const float probe[3] = {1.0f, 0.0f, 0.0f};
    iqdb_hit hits[6];
    size_t count = 0;
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_query query = iqdb_query_default();
    query.vector = probe;
    query.k = 3;
    query.metric = IQDB_COSINE;
    query.flags = IQDB_WITH_PAYLOAD;
    query.buffer = &buffer;
    check(iqdb_search(db, &query, hits, &count), "search");
    printf("nearest 3 by cosine\n");
    print_hits(hits, count);

    /* A predicate decides before a record is admitted, so k hits come whenever k records fit. */
    wish documents;
    documents.kind = "doc";
    documents.since = 2020;
    query.predicate = fits;
    query.user = &documents;
    check(iqdb_search(db, &query, hits, &count), "search");
    printf("documents since 2020: %u\n", (unsigned)count);
    print_hits(hits, count);

    /* Three probes in one call, all against the same state. The hits of probe i start at i * k. */
    const float probes[3][3] = {{1.0f, 0.0f, 0.0f}, {0.0f, 1.0f, 0.0f}, {0.0f, 0.0f, 1.0f}};
    size_t counts[3];
    query.k = 2;
    query.predicate = NULL;
    check(iqdb_search_batch(db, &query, probes, 3, hits, counts), "search_batch");
    for (size_t i = 0; i < 3; i++) {
        printf("probe %u\n", (unsigned)i + 1);
        print_hits(&hits[i * query.k], counts[i]);
    }

    iqdb_buffer_free(&buffer);
    check(iqdb_close(db), "close");
    return 0;
}
