/* custom_index.c: an index of one's own, by iqdb_index_ops. Records go into buckets by the sides on which they lie of some
 * planes drawn by lot (M. Charikar, "Similarity estimation techniques from rounding algorithms", 2002); a search opens
 * those of its own side first, and then those beyond the planes that are nearest to it. The library does the rest: scores,
 * filters, records that are not in a bucket yet, and files.
 *
 * Searches run beside writes here as with the indexes of the library: a bucket grows behind its count, which is atomic, and
 * what else changes is a copy that takes the place of the old one.
 *
 *   cc -I. examples/custom_index.c -o custom_index -pthread -lm && ./custom_index
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PLANES = 10,
    BUCKETS = 1 << PLANES,
    PROBES = 32, /* buckets that a search opens which says nothing */
    SLICE = 64   /* buckets that are written at a time */
};

typedef struct bucket {
    uint32_t count, room; /* rows follow */
} bucket;

typedef struct projection {
    iqdb_index_host *host;
    float *planes; /* of host->dim elements each */
    bucket *buckets[BUCKETS];
} projection;

static uint32_t *rows_of(const bucket *b) { return (uint32_t *)(void *)((char *)(uintptr_t)b + sizeof *b); }

/* On which sides the vector lies, a bit a plane, and how far from each. */
static uint32_t sides_of(const projection *p, const float *vector, float *distances) {
    uint32_t sides = 0;
    for (int i = 0; i < PLANES; i++) {
        float sum = 0;
        for (uint32_t d = 0; d < p->host->dim; d++) sum += vector[d] * p->planes[(uint32_t)i * p->host->dim + d];
        if (sum > 0) sides |= 1u << i;
        distances[i] = sum > 0 ? sum : -sum;
    }
    return sides;
}

/* A copy of a bucket (NULL: an empty one) without one of its rows, and with room for more, takes its place. */
static iqdb_result renew(projection *p, uint32_t which, uint32_t without, uint32_t room) {
    bucket *old = p->buckets[which], *b = (bucket *)iqdb_index_alloc(p->host, sizeof *b + room * sizeof(uint32_t));
    if (b == NULL) return IQDB_ERR_NOMEM;
    b->room = room;
    for (uint32_t i = 0; old != NULL && i < old->count; i++)
        if (rows_of(old)[i] != without) rows_of(b)[b->count++] = rows_of(old)[i];
    __atomic_store_n(&p->buckets[which], b, __ATOMIC_RELEASE);
    iqdb_index_retire(p->host, old);
    return IQDB_OK;
}

static iqdb_result put(projection *p, uint32_t which, uint32_t row) {
    bucket *b = p->buckets[which];
    if (b == NULL || b->count == b->room) {
        const iqdb_result result = renew(p, which, UINT32_MAX, b == NULL ? 6 : 2 * b->room);
        if (result != IQDB_OK) return result;
        b = p->buckets[which];
    }
    rows_of(b)[b->count] = row;
    __atomic_store_n(&b->count, b->count + 1, __ATOMIC_RELEASE);
    return IQDB_OK;
}

/* ---- the functions of the table ---- */

static iqdb_result projection_open(iqdb_index_host *host, void **out_index, void *user) {
    uint64_t state = host->seed + 1;
    (void)user;
    if (host->element != IQDB_ELEMENT_F32) return IQDB_ERR_INVALID_CONFIG;
    projection *p = (projection *)iqdb_index_alloc(host, sizeof *p + PLANES * host->dim * sizeof(float));
    if (p == NULL) return IQDB_ERR_NOMEM;
    p->host = host;
    p->planes = (float *)(void *)(p + 1);
    for (uint32_t i = 0; i < PLANES * host->dim; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        p->planes[i] = (float)(int32_t)(state >> 33) / 1073741824.0f - 1.0f;
    }
    *out_index = p;
    return IQDB_OK;
}

static void projection_close(void *index, void *user) {
    projection *p = (projection *)index;
    (void)user;
    for (int i = 0; i < BUCKETS; i++) iqdb_index_free(p->host, p->buckets[i]);
    iqdb_index_free(p->host, p);
}

static iqdb_result projection_insert(void *index, uint32_t row, const void *vector, void *user) {
    projection *p = (projection *)index;
    float distances[PLANES];
    (void)user;
    return put(p, sides_of(p, (const float *)vector, distances), row);
}

/* Without memory for a copy the row stays where it is: the library knows that it is none any more. */
static void projection_remove(void *index, uint32_t row, void *user) {
    projection *p = (projection *)index;
    float distances[PLANES];
    (void)user;
    const uint32_t which = sides_of(p, (const float *)iqdb_index_vector(p->host, row), distances);
    if (p->buckets[which] != NULL) (void)renew(p, which, row, p->buckets[which]->room);
}

static size_t projection_search_bytes(const void *index, size_t k, void *user) {
    (void)index;
    (void)k;
    (void)user;
    return BUCKETS * (sizeof(float) + sizeof(uint32_t));
}

/* How far a bucket is: the sum of the distances to the planes in between. Of all, the nearest ones come first. */
static iqdb_result projection_search(const void *index, iqdb_index_query *query, void *user) {
    const projection *p = (const projection *)index;
    float distances[PLANES], *far = (float *)query->memory;
    uint32_t *order = (uint32_t *)(void *)(far + BUCKETS), bits = 0;
    uint32_t wanted = query->effort != 0 ? query->effort : (uint32_t)PROBES;
    (void)user;
    const uint32_t sides = sides_of(p, (const float *)query->vector, distances);
    if (wanted > BUCKETS) wanted = BUCKETS;
    far[0] = 0;
    for (uint32_t i = 0, count = 0; i < BUCKETS; i++) { /* i: the planes in between */
        if (i > 0 && i >> (bits + 1) != 0) bits++;
        if (i > 0) far[i] = far[i ^ (1u << bits)] + distances[bits];
        if (count == wanted && far[i] >= far[order[count - 1]]) continue;
        uint32_t at = count < wanted ? count++ : count - 1;
        for (; at > 0 && far[order[at - 1]] > far[i]; at--) order[at] = order[at - 1];
        order[at] = i;
    }
    for (uint32_t i = 0; i < wanted; i++) {
        const bucket *b = __atomic_load_n(&p->buckets[sides ^ order[i]], __ATOMIC_ACQUIRE);
        const uint32_t count = b == NULL ? 0 : __atomic_load_n(&b->count, __ATOMIC_ACQUIRE);
        if (count > 0 && !iqdb_index_offer(query, rows_of(b), count)) break;
    }
    return IQDB_OK;
}

/* A file means the same everywhere: numbers are written byte by byte. */
static iqdb_result write_number(iqdb_index_io *io, uint32_t number) {
    unsigned char bytes[4];
    for (int i = 0; i < 4; i++) bytes[i] = (unsigned char)(number >> 8 * i);
    return iqdb_index_write(io, bytes, 4);
}

static iqdb_result read_number(iqdb_index_io *io, uint32_t *out_number) {
    unsigned char bytes[4] = {0, 0, 0, 0};
    const iqdb_result result = iqdb_index_read(io, bytes, 4);
    *out_number = 0;
    for (int i = 0; i < 4; i++) *out_number |= (uint32_t)bytes[i] << 8 * i;
    return result;
}

/* The seed; then, bucket by bucket, the places of its rows, and UINT32_MAX. */
static iqdb_result projection_save(const void *index, iqdb_index_io *io, bool *out_done, void *user) {
    const projection *p = (const projection *)index;
    iqdb_result result = IQDB_OK;
    (void)user;
    if (io->at == 0) (void)write_number(io, (uint32_t)p->host->seed);
    for (const uint64_t end = io->at + SLICE; io->at < end && result == IQDB_OK; io->at++) {
        const bucket *b = p->buckets[io->at];
        for (uint32_t i = 0; b != NULL && i < b->count; i++) {
            const uint32_t place = iqdb_index_place(io, rows_of(b)[i]);
            if (place != UINT32_MAX) (void)write_number(io, place);
        }
        result = write_number(io, UINT32_MAX);
    }
    *out_done = io->at == BUCKETS;
    return result;
}

static iqdb_result projection_load(void *index, iqdb_index_io *io, void *user) {
    projection *p = (projection *)index;
    uint32_t number;
    (void)user;
    iqdb_result result = read_number(io, &number);
    if (result == IQDB_OK && number != (uint32_t)p->host->seed) return IQDB_ERR_NOT_FOUND; /* other planes */
    for (uint32_t which = 0; which < BUCKETS && result == IQDB_OK;) {
        result = read_number(io, &number);
        if (result == IQDB_OK && number == UINT32_MAX) {
            which++;
        } else if (result == IQDB_OK) {
            if (!iqdb_index_restore(io, number)) return IQDB_ERR_CORRUPT;
            result = put(p, which, number);
        }
    }
    return result;
}

static const iqdb_index_ops projection_ops = {
    "random projections",    projection_open,   projection_close, projection_insert, projection_remove,
    projection_search_bytes, projection_search, projection_save,  projection_load,   NULL};

/* ---- a program that uses it ---- */

enum {
    DIM = 32,
    RECORDS = 20000,
    GROUPS = 400
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
        out[i] = (float)(group >> 8) / 8388608.0f - 1.0f + ((float)(own >> 8) / 8388608.0f - 1.0f) * 0.5f;
    }
}

static void settle(iqdb *db) {
    bool done = false;
    while (!done) check(iqdb_maintain(db, 10000, &done) == IQDB_OK, "maintain");
}

static iqdb_stats stats_of(const iqdb *db) {
    iqdb_stats stats;
    check(iqdb_stat(db, &stats) == IQDB_OK, "stat");
    return stats;
}

/* What searches find that open so many buckets. */
static void measure(const iqdb *db, uint32_t buckets) {
    float vector[DIM];
    iqdb_hit hits[10];
    size_t count;
    double recall;
    iqdb_search_info info;
    iqdb_query query = iqdb_query_default();
    vector_of(123456, vector);
    query.vector = vector;
    query.k = 10;
    query.nprobe = buckets;
    query.info = &info;
    check(iqdb_search(db, &query, hits, &count) == IQDB_OK && count == 10, "search");
    check(info.plan == IQDB_PLAN_CUSTOM, "the search has gone another way");
    check(iqdb_measure_recall(db, &query, NULL, 200, &recall) == IQDB_OK, "measure");
    printf("%4u of %d buckets: %5llu of %d records compared, recall %.2f\n", (unsigned)buckets, (int)BUCKETS,
           (unsigned long long)info.rows_compared, (int)RECORDS, recall);
}

/* A copy in memory. */
static unsigned char blob[8u << 20];
static size_t blob_size;

static bool append(const void *bytes, size_t size, void *user) {
    (void)user;
    if (size > sizeof blob - blob_size) return false;
    memcpy(blob + blob_size, bytes, size);
    blob_size += size;
    return true;
}

int main(void) {
    iqdb *db = NULL;
    iqdb_error error;
    iqdb_options options = iqdb_options_default();
    options.index = IQDB_INDEX_CUSTOM;
    options.index_ops = &projection_ops;
    options.error = &error;
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
    settle(db);
    measure(db, 8);
    measure(db, 32);
    measure(db, 256);

    for (uint64_t id = 0; id < RECORDS; id += 2) check(iqdb_delete(db, id, NULL) == IQDB_OK, "delete");
    check(iqdb_export_blob(db, append, NULL) == IQDB_OK, "export");
    check(iqdb_close(db) == IQDB_OK, "close");
    check(iqdb_load_blob(blob, blob_size, &options, &db) == IQDB_OK, "load");
    printf("saved with half of the records, and loaded: %llu are in the index\n",
           (unsigned long long)stats_of(db).index_rows);
    check(iqdb_close(db) == IQDB_OK, "close");

    options.index = IQDB_INDEX_AUTO;
    options.index_ops = NULL;
    check(iqdb_load_blob(blob, blob_size, &options, &db) == IQDB_ERR_INVALID_CONFIG, "load without the index");
    printf("without it: %s\n", error.text);
    options.index = IQDB_INDEX_FLAT;
    check(iqdb_load_blob(blob, blob_size, &options, &db) == IQDB_OK, "load for exact searches");
    printf("as a flat one: %llu records\n", (unsigned long long)stats_of(db).records);
    check(iqdb_close(db) == IQDB_OK, "close");
    return 0;
}
