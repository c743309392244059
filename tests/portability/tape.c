/* One tape of operations, answered by the library and by a naive model, with a hash of every answer: ids, bits of the
 * scores, payload bytes, and the bytes of the exported blob. Each system, compiler and set of switches prints the same
 * number. Everything is in this one file, implementation included, so that a new system needs one compiler and stdio. */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include "scores.h"

#include <stdio.h>
#include <stdlib.h>

#ifndef TAPE_FILES /* 1: the tape is played in a directory too, which is made below the current one */
#define TAPE_FILES 0
#endif

enum {
    DIM = 27,
    IDS = 64,
    STEPS = 600,
    EVERY = 30, /* steps between looks */
    K = 12
};

static unsigned checks, failures;

static void check(int holds, const char *what) {
    checks++;
    if (holds) return;
    failures++;
    printf("FAIL %s\n", what);
}

/* splitmix64 */
static uint64_t chance(uint64_t *state) {
    uint64_t x = (*state += UINT64_C(0x9E3779B97F4A7C15));
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

static uint32_t below(uint64_t *state, uint32_t count) { return (uint32_t)((chance(state) >> 32) * count >> 32); }

/* ---- The model: what is stored, by number ---- */

typedef struct model_row {
    float vector[DIM];
    int64_t year;
    int alive;
} model_row;

static model_row model[IDS];

static uint64_t id_of(uint32_t number) { return (uint64_t)number << (number % 3 * 20); }

static void draw(uint64_t *state, float *vector) {
    const int odd = below(state, 8) == 0;
    for (int i = 0; i < DIM; i++) {
        vector[i] = (float)((double)(int32_t)(chance(state) >> 32) / 2147483648.0);
        if (odd) vector[i] = vector[i] < 0 ? -1.0f : 1.0f; /* ties */
    }
}

/* The k best by the manual's rule; returns how many. */
static size_t model_search(iqdb_metric metric, const float *query, int64_t year, float *scores, uint64_t *ids) {
    size_t count = 0;
    for (uint32_t n = 0; n < IDS; n++) {
        if (!model[n].alive || model[n].year < year) continue;
        const float score = model_score(metric, query, model[n].vector, DIM);
        size_t at = count < K ? count++ : (size_t)K;
        for (; at > 0; at--) {
            if (scores[at - 1] < score || (scores[at - 1] == score && ids[at - 1] < id_of(n))) break;
            scores[at] = scores[at - 1]; /* one more than k fits */
            ids[at] = ids[at - 1];
        }
        scores[at] = score;
        ids[at] = id_of(n);
    }
    return count;
}

/* ---- The library ---- */

static bool fill(void *bytes, size_t size, void *user) {
    for (size_t i = 0; i < size; i++) ((unsigned char *)bytes)[i] = (unsigned char)chance((uint64_t *)user);
    return true;
}

static void upsert(iqdb *db, uint32_t number) {
    iqdb_field fields[3];
    const iqdb_value tags[2] = {iqdb_text("a\xc3\xa9"), iqdb_float((double)number / 8.0)};
    fields[0].key = "year";
    fields[0].value = iqdb_int(model[number].year);
    fields[1].key = "tags";
    fields[1].value = iqdb_array(tags, 2);
    fields[2].key = "odd";
    fields[2].value = iqdb_bool(number % 2 != 0);
    iqdb_record record = iqdb_record_default();
    record.id = id_of(number);
    record.vector = model[number].vector;
    record.dim = DIM;
    record.fields = fields;
    record.field_count = 3;
    check(iqdb_upsert(db, &record) == IQDB_OK, "upsert");
}

static void step(iqdb *db, uint64_t *state) {
    const uint32_t number = below(state, IDS), what = below(state, 10);
    model_row *row = &model[number];
    if (what < 6) {
        draw(state, row->vector);
        row->year = 2000 + (int64_t)below(state, 30);
        row->alive = 1;
        upsert(db, number);
    } else if (what < 8) {
        bool removed = !row->alive;
        check(iqdb_delete(db, id_of(number), &removed) == IQDB_OK && removed == (row->alive != 0), "delete");
        row->alive = 0;
    } else if (what < 9) {
        iqdb_field year;
        year.key = "year";
        year.value = iqdb_int(1990 + (int64_t)below(state, 40));
        const iqdb_result wanted = row->alive ? IQDB_OK : IQDB_ERR_NOT_FOUND;
        check(iqdb_update_payload(db, id_of(number), &year, 1) == wanted, "update_payload");
        row->year = year.value.as.integer;
    } else {
        const int64_t limit = 1990 + (int64_t)below(state, 6);
        const iqdb_filter old = iqdb_lt("year", iqdb_int(limit));
        size_t removed = 0, gone = 0;
        for (uint32_t n = 0; n < IDS; n++) {
            if (!model[n].alive || model[n].year >= limit) continue;
            model[n].alive = 0;
            gone++;
        }
        check(iqdb_delete_where(db, &old, &removed) == IQDB_OK && removed == gone, "delete_where");
    }
}

/* Searches under every metric, with and without a filter, compared with the model. */
static uint64_t look(const iqdb *db, uint64_t seed, uint64_t hash) {
    static const iqdb_metric metrics[4] = {IQDB_L2, IQDB_COSINE, IQDB_DOT, IQDB_L1};
    static unsigned char memory[16384];
    uint64_t state = seed;
    for (int i = 0; i < 8; i++) {
        float query_vector[DIM], scores[K + 1];
        uint64_t ids[K + 1];
        iqdb_hit hits[K];
        size_t count = 0;
        const int64_t year = i < 4 ? 0 : 2010;
        const iqdb_filter recent = iqdb_ge("year", iqdb_int(year));
        iqdb_buffer buffer = iqdb_buffer_fixed(memory, sizeof memory);
        iqdb_query query = iqdb_query_default();
        draw(&state, query_vector);
        query.vector = query_vector;
        query.k = K;
        query.metric = metrics[i % 4];
        query.filter = i < 4 ? NULL : &recent;
        query.flags = IQDB_WITH_PAYLOAD;
        query.buffer = &buffer;
        const size_t wanted = model_search(query.metric, query_vector, year, scores, ids);
        check(iqdb_search(db, &query, hits, &count) == IQDB_OK && count == wanted, "search");
        for (size_t h = 0; h < count && h < wanted; h++) {
            check(hits[h].id == ids[h] && memcmp(&hits[h].score, &scores[h], 4) == 0, "hit");
            hash = digest_score(digest_u64(hash, hits[h].id), hits[h].score);
            hash = digest_bytes(hash, hits[h].payload.bytes, hits[h].payload.size);
        }
    }
    return hash;
}

static uint64_t play(iqdb *db, uint64_t hash) {
    uint64_t state = 1;
    memset(model, 0, sizeof model);
    for (unsigned i = 0; i < STEPS; i++) {
        step(db, &state);
        if (i % EVERY == EVERY - 1) hash = look(db, i, hash);
    }
    return hash;
}

/* ---- Blobs ---- */

typedef struct blob {
    unsigned char *bytes;
    size_t size, capacity;
} blob;

static bool append(const void *bytes, size_t size, void *user) {
    blob *to = (blob *)user;
    if (size > to->capacity - to->size) return false;
    memcpy(to->bytes + to->size, bytes, size);
    to->size += size;
    return true;
}

/* What is copied out opens again, where it lies and as a copy, with the same answers. */
static uint64_t copy(iqdb *db, uint64_t hash) {
    static uint64_t words[12288];
    blob image = {(unsigned char *)words, 0, sizeof words};
    iqdb *opened = NULL, *loaded = NULL;
    check(iqdb_export_blob(db, append, &image) == IQDB_OK, "export_blob");
    check(iqdb_open_blob(image.bytes, image.size, NULL, &opened) == IQDB_OK, "open_blob");
    check(iqdb_load_blob(image.bytes, image.size, NULL, &loaded) == IQDB_OK, "load_blob");
    const uint64_t own = look(db, 77, hash);
    check(look(opened, 77, hash) == own && look(loaded, 77, hash) == own, "answers of blobs");
    check(iqdb_close(opened) == IQDB_OK && iqdb_close(loaded) == IQDB_OK, "close of blobs");
    return digest_bytes(own, image.bytes, image.size);
}

/* ---- Kernels: each dimension up to WIDEST, pairs and batches, which go by other ways through a kernel ---- */

enum {
    WIDEST = 300,
    ROWS = 7,
    QUERIES = 5
};

static void widths(void) {
    static const iqdb_metric metrics[4] = {IQDB_L2, IQDB_COSINE, IQDB_DOT, IQDB_L1};
    static float rows[ROWS * WIDEST], queries[QUERIES * WIDEST];
    uint64_t state = 5;
    for (int i = 0; i < ROWS * WIDEST; i++) rows[i] = (float)((double)(int32_t)(chance(&state) >> 32) / 2147483648.0);
    for (int i = 0; i < QUERIES * WIDEST; i++) queries[i] = rows[(i * 7 + 3) % (ROWS * WIDEST)] * 0.75f;
    for (uint32_t dim = 1; dim <= WIDEST; dim += dim < 70 ? 1 : 13) {
        iqdb *db = NULL;
        check(iqdb_open_in_memory(NULL, &db) == IQDB_OK, "open for a width");
        for (uint32_t row = 0; row < ROWS; row++) {
            iqdb_record record = iqdb_record_default();
            record.id = row;
            record.vector = rows + row * dim;
            record.dim = dim;
            check(iqdb_upsert(db, &record) == IQDB_OK, "upsert of a width");
        }
        for (int m = 0; m < 4; m++) {
            iqdb_hit hits[QUERIES * ROWS];
            size_t counts[QUERIES];
            float pair;
            iqdb_query query = iqdb_query_default();
            query.k = ROWS;
            query.metric = metrics[m];
            check(iqdb_search_batch(db, &query, queries, QUERIES, hits, counts) == IQDB_OK, "batch");
            for (uint32_t i = 0; i < QUERIES * ROWS; i++) {
                const float *q = queries + i / ROWS * dim, *row = rows + (uint32_t)hits[i].id * dim;
                const float score = model_score(metrics[m], q, row, dim);
                check(iqdb_distance(metrics[m], q, row, dim, &pair) == IQDB_OK && memcmp(&pair, &score, 4) == 0,
                      "pair");
                check(memcmp(&hits[i].score, &score, 4) == 0, "score of a batch");
            }
        }
        check(iqdb_close(db) == IQDB_OK, "close of a width");
    }
}

int main(void) {
    uint64_t entropy_state = 7;
    iqdb_options options = iqdb_options_default();
    options.dim = DIM;
    options.entropy.fill_fn = fill;
    options.entropy.user = &entropy_state;
    iqdb *db = NULL;
    check(iqdb_open_in_memory(&options, &db) == IQDB_OK, "open_in_memory");
    const uint64_t played = play(db, PUBLIC_DIGEST), hash = copy(db, played);
    check(iqdb_close(db) == IQDB_OK, "close");
    widths();
#if TAPE_FILES
    check(iqdb_open("tape-db", &options, &db) == IQDB_OK, "open");
    check(play(db, PUBLIC_DIGEST) == played, "the same answers from a directory");
    const uint64_t looked = look(db, 99, PUBLIC_DIGEST);
    check(iqdb_close(db) == IQDB_OK, "close of the directory");
    check(iqdb_open("tape-db", &options, &db) == IQDB_OK, "open again");
    check(look(db, 99, PUBLIC_DIGEST) == looked, "the same answers after opening again");
    check(iqdb_close(db) == IQDB_OK, "close again");
#endif
    printf("simd %s\nhash %08lx%08lx\n%u passed, %u failed\n", iqdb_simd_name(NULL), (unsigned long)(hash >> 32),
           (unsigned long)(hash & 0xffffffffu), checks - failures, failures);
    return failures != 0;
}
