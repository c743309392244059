/* in_memory_store.c: three records with payloads, distances under three metrics, one delete.
 *
 *   cc -I. examples/in_memory_store.c -o in_memory_store -pthread -lm && ./in_memory_store
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <stdio.h>
#include <stdlib.h>

static void check(iqdb_result result, const char *what) {
    if (result == IQDB_OK) return;
    fprintf(stderr, "%s: %s\n", what, iqdb_strerror(result));
    exit(1);
}

typedef struct fruit {
    uint64_t id;
    const char *name;
    double price;
    bool ripe;
    float vector[2];
} fruit;

static const fruit fruits[3] = {
    {1, "apple", 0.45, true, {1.0f, 0.0f}},
    {2, "pear", 0.60, false, {4.0f, 0.5f}}, /* the direction of the apple, four times as far out */
    {3, "lemon", 0.35, true, {0.0f, 1.0f}},
};

static void fill(iqdb *db) {
    iqdb_field fields[3][3];
    iqdb_record records[3];
    for (int i = 0; i < 3; i++) {
        fields[i][0].key = "name";
        fields[i][0].value = iqdb_text(fruits[i].name);
        fields[i][1].key = "price";
        fields[i][1].value = iqdb_float(fruits[i].price);
        fields[i][2].key = "ripe";
        fields[i][2].value = iqdb_bool(fruits[i].ripe);
        records[i] = iqdb_record_default();
        records[i].id = fruits[i].id;
        records[i].vector = fruits[i].vector;
        records[i].dim = 2;
        records[i].fields = fields[i];
        records[i].field_count = 3;
    }
    check(iqdb_upsert_batch(db, records, 3), "upsert_batch"); /* all three, or none */
}

/* All records by their distance to `vector`: smaller is closer, for every metric. */
static void list(const iqdb *db, const char *title, iqdb_metric metric, const float vector[2]) {
    iqdb_hit hits[3];
    size_t count = 0;
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_query query = iqdb_query_default();
    query.vector = vector;
    query.k = 3;
    query.metric = metric; /* IQDB_METRIC_DEFAULT would be the one the database was opened with */
    query.flags = IQDB_WITH_PAYLOAD;
    query.buffer = &buffer;
    check(iqdb_search(db, &query, hits, &count), "search");

    printf("%s\n", title);
    for (size_t i = 0; i < count; i++)
        printf("  %-6s %8.4f  price %.2f%s\n", iqdb_payload_text(hits[i].payload, "name", NULL),
               (double)hits[i].score, iqdb_payload_float(hits[i].payload, "price", 0.0),
               iqdb_payload_bool(hits[i].payload, "ripe", false) ? ", ripe" : "");
    iqdb_buffer_free(&buffer);
}

int main(void) {
    iqdb_options options = iqdb_options_default();
    options.dim = 2; /* else taken from the first record */
    iqdb *db = NULL;
    check(iqdb_open_in_memory(&options, &db), "open");
    fill(db);

    const float probe[2] = {1.0f, 0.1f};
    list(db, "L2: how far apart", IQDB_L2, probe);
    list(db, "cosine: how different in direction", IQDB_COSINE, probe);
    list(db, "dot: the negative inner product", IQDB_DOT, probe);

    /* The same numbers without a database. */
    float distance = 0.0f;
    check(iqdb_distance(IQDB_L2, probe, fruits[0].vector, 2, &distance), "distance");
    printf("probe to apple, L2: %.4f\n", (double)distance);

    bool removed = false;
    check(iqdb_delete(db, 2, &removed), "delete");
    list(db, "L2, without the pear", IQDB_L2, probe);

    check(iqdb_close(db), "close");
    return 0;
}
