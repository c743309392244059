/* One local handle, and vectors in clusters, as a library for servers.py. */
#define IQDB_STATIC
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <stdlib.h>
#include <time.h>

/* NULL on failure. */
iqdb *local_open(int metric);
iqdb *local_open(int metric) {
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL;
    options.metric = (iqdb_metric)metric;
    options.index = IQDB_INDEX_FLAT; /* as the module has it: what it is compared with has to be exact */
    return iqdb_open_in_memory(&options, &db) == IQDB_OK ? db : NULL;
}

int local_close(iqdb *db);
int local_close(iqdb *db) { return iqdb_close(db); }

int local_add(iqdb *db, const uint64_t *ids, const float *vectors, size_t count, uint32_t dim);
int local_add(iqdb *db, const uint64_t *ids, const float *vectors, size_t count, uint32_t dim) {
    iqdb_result result = IQDB_OK;
    for (size_t i = 0; i < count && result == IQDB_OK; i++) {
        iqdb_record record = iqdb_record_default();
        record.id = ids[i];
        record.vector = vectors + i * dim;
        record.dim = dim;
        result = iqdb_upsert(db, &record);
    }
    return result;
}

int local_delete(iqdb *db, uint64_t id);
int local_delete(iqdb *db, uint64_t id) { return iqdb_delete(db, id, NULL); }

/* Hits, or a negative code. */
long local_search(iqdb *db, const float *vector, size_t k, uint64_t *ids, float *scores);
long local_search(iqdb *db, const float *vector, size_t k, uint64_t *ids, float *scores) {
    iqdb_hit *hits = (iqdb_hit *)calloc(k + 1, sizeof *hits);
    iqdb_query query = iqdb_query_default();
    size_t count = 0;
    query.vector = vector;
    query.k = k;
    iqdb_result result = hits != NULL ? iqdb_search(db, &query, hits, &count) : IQDB_ERR_NOMEM;
    for (size_t i = 0; i < count; i++) {
        ids[i] = hits[i].id;
        scores[i] = hits[i].score;
    }
    free(hits);
    return result == IQDB_OK ? (long)count : (long)result;
}

/* Seconds for a search of each of `count` vectors. */
double local_seconds(iqdb *db, const float *vectors, size_t count, uint32_t dim, size_t k);
double local_seconds(iqdb *db, const float *vectors, size_t count, uint32_t dim, size_t k) {
    uint64_t ids[64];
    float scores[64];
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (size_t i = 0; i < count; i++)
        if (local_search(db, vectors + i * dim, k, ids, scores) < 0) return -1;
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
}

typedef struct blob {
    unsigned char *bytes;
    size_t used, room;
} blob;

static bool blob_add(const void *bytes, size_t size, void *user) {
    blob *to = (blob *)user;
    if (size > to->room - to->used) return false;
    memcpy(to->bytes + to->used, bytes, size);
    to->used += size;
    return true;
}

/* The blob of `records` records of an element, 0 for f32, beside `collections` others. Its size, or 0 on failure. */
size_t local_blob(int element, size_t records, int collections, unsigned char *bytes, size_t room);
size_t local_blob(int element, size_t records, int collections, unsigned char *bytes, size_t room) {
    static const uint64_t raw[8] = {1, 2, 3, 4};
    static const float vector[8] = {1, 2, 3, 4};
    iqdb_options options = iqdb_options_default();
    blob made = {bytes, 0, room};
    iqdb *db = NULL, *other = NULL;
    options.element = (iqdb_element)element;
    options.dim = 8;
    iqdb_result result = iqdb_open_in_memory(&options, &db);
    for (int i = 0; i < collections && result == IQDB_OK; i++) {
        const char name[2] = {(char)('a' + i), 0};
        result = iqdb_collection(db, name, NULL, &other);
        if (result == IQDB_OK) result = iqdb_close(other);
    }
    for (size_t i = 0; i < records && result == IQDB_OK; i++) {
        iqdb_record record = iqdb_record_default();
        record.id = i;
        record.dim = 8;
        if (element == IQDB_ELEMENT_F32)
            record.vector = vector;
        else
            record.raw = raw;
        result = iqdb_upsert(db, &record);
    }
    if (result == IQDB_OK) result = iqdb_export_blob(db, blob_add, &made);
    iqdb_close(db);
    return result == IQDB_OK ? made.used : 0;
}

static uint64_t mix(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* About normal, of variance 1: the sum of four uniform numbers. */
static float normal(uint64_t *state) {
    float sum = -2;
    for (int i = 0; i < 4; i++) sum += (float)(mix(state) >> 40) / 16777216.0f;
    return sum * 1.7320508f;
}

/* Vectors around `centers` points, which the seed decides; `first` is the number of the first one. */
void local_clusters(float *vectors, size_t first, size_t count, uint32_t dim, uint64_t seed, uint32_t centers);
void local_clusters(float *vectors, size_t first, size_t count, uint32_t dim, uint64_t seed, uint32_t centers) {
    for (size_t i = 0; i < count; i++) {
        uint64_t state = seed ^ (first + i) * 0xd1342543de82ef95u, center = seed + mix(&state) % centers;
        for (uint32_t j = 0; j < dim; j++) *vectors++ = normal(&center) + 0.3f * normal(&state);
    }
}
