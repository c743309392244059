/* The flat scan below the handle: blocks, slabs, visibility at an LSN, and acceptance before admission. */
#include "api.h"
#include "base/alloc.h"
#include "index/flat.h"
#include "support.h"
#include "sys/sys.h"
#include "test.h"

enum {
    DIM = 19,
    ROWS = 2600
};

static iqdb_allocator memory;
static iq_rows rows;

/* Row i is born at i % 50 and dies at some later LSN, or never; few distinct vectors, so that scores tie. */
static void make_rows(void) {
    uint64_t random = 3;
    memory = iq_alloc_default();
    iq_rows_init(&rows, &memory);
    iq_rows_set_dim(&rows, DIM);
    for (uint32_t i = 0; i < ROWS; i++) {
        uint32_t row, index;
        CHECK_EQ_INT(iq_rows_take(&rows, &row), IQDB_OK);
        const iq_slab *slab = iq_rows_slab(&rows, row, &index);
        uint64_t seed = support_random_below(&random, 200);
        float *vector = slab->vectors + index * rows.stride;
        /* Some so small that their norm is 0 or a guess, some so large that sums have to be done again. */
        const float scale = i % 11 == 1 ? 1e-22f : i % 11 == 2 ? 1e-30f : i % 11 == 3 ? 1e25f : 1.0f;
        for (int j = 0; j < DIM; j++) vector[j] = scale * support_random_float(&seed);
        slab->norms[index] = iq_vector_norm_of(iq_kernel_scalar(), vector, DIM);
        slab->ids[index] = support_random(&random);
        slab->births[index] = i % 7 == 0 ? IQ_LSN_NEVER : i % 50;
        slab->deaths[index] = i % 3 == 0 ? i % 50 + support_random_below(&random, 60) : IQ_LSN_NEVER;
    }
}

static bool accept_even(const iq_slab *slab, uint32_t index, void *user) {
    (void)user;
    return slab->ids[index] % 2 == 0;
}

/* Every row scored alone by the pair function, then sorted. */
static size_t naive(const iq_flat_query *query, const float *vector_of_query, size_t k, iqdb_hit *out) {
    size_t count = 0;
    for (uint32_t row = 0; row < rows.count; row++) {
        uint32_t index;
        iqdb_hit hit;
        const iq_slab *slab = iq_rows_slab(&rows, row, &index);
        const float *vector = slab->vectors + index * rows.stride;
        if (slab->births[index] > query->lsn || slab->deaths[index] <= query->lsn) continue;
        if (query->accept_fn != NULL && slab->ids[index] % 2 != 0) continue;
        memset(&hit, 0, sizeof hit);
        (void)iqdb_distance(query->metric, vector_of_query, vector, DIM, &hit.score);
        hit.id = slab->ids[index];
        size_t at = count < k ? count++ : k;
        if (at == k && !(hit.score < out[k - 1].score || (hit.score == out[k - 1].score && hit.id < out[k - 1].id)))
            continue;
        if (at == k) at--;
        for (; at > 0 && (hit.score < out[at - 1].score || (hit.score == out[at - 1].score && hit.id < out[at - 1].id));
             at--)
            out[at] = out[at - 1];
        out[at] = hit;
    }
    return count;
}

/* Some are rows, some are zero. */
static void fill_query(float *vector, size_t i) {
    uint64_t seed = i % 9;
    memset(vector, 0, rows.stride * sizeof(float));
    for (int j = 0; j < DIM; j++) vector[j] = i % 13 == 0 ? 0.0f : support_random_float(&seed);
}

static iq_flat_query query_for(int metric, int simd, size_t i) {
    iq_flat_query query;
    memset(&query, 0, sizeof query);
    query.rows = &rows;
    query.kernel = iq_kernel_select(iq_cpu_features(), (iqdb_simd)simd);
    query.metric = (iqdb_metric)metric;
    query.lsn = i * 2;
    query.accept_fn = i % 4 == 0 ? accept_even : NULL;
    return query;
}

static void equals_scoring_every_row(void) {
    static const size_t ks[] = {1, 2, 10, 300, ROWS};
    static iqdb_hit hits[ROWS], expected[ROWS];
    static float vector[32] IQ_ALIGNED(64);
    make_rows();
    for (int metric = IQDB_L2; metric <= IQDB_DOT; metric++) {
        for (int simd = IQDB_SIMD_SCALAR; simd <= IQDB_SIMD_NEON; simd++) {
            for (size_t i = 0; i < 40; i++) {
                iq_flat_query query = query_for(metric, simd, i);
                iq_flat_probe probe;
                fill_query(vector, i);
                query.vectors = vector;
                query.probes = &probe;
                query.count = 1;
                probe.norm = iq_vector_norm_of(query.kernel, vector, DIM);
                const size_t k = ks[i % 5];
                iq_topk_start(&probe.topk, hits, k);
                iq_flat_search(&query);
                iq_topk_sort(&probe.topk);
                CHECK_EQ_U64(probe.topk.count, naive(&query, vector, k, expected));
                for (size_t h = 0; h < probe.topk.count; h++) {
                    CHECK_EQ_U64(hits[h].id, expected[h].id);
                    CHECK_EQ_F32(hits[h].score, expected[h].score);
                }
            }
        }
    }
    iq_rows_free(&rows);
}

/* Searches `count` vectors at once, starting with number `first`; hits of the i-th go to hits + i * k. */
static void search_together(iq_flat_query *query, float *vectors, size_t first, size_t count, size_t k, iqdb_hit *hits,
                            size_t *counts) {
    iq_flat_probe probes[IQ_FLAT_COUNT_MAX];
    query->vectors = vectors;
    query->probes = probes;
    query->count = count;
    for (size_t i = 0; i < count; i++) {
        fill_query(vectors + i * rows.stride, first + i);
        probes[i].norm = iq_vector_norm_of(query->kernel, vectors + i * rows.stride, DIM);
        iq_topk_start(&probes[i].topk, hits + i * k, k);
    }
    iq_flat_search(query);
    for (size_t i = 0; i < count; i++) {
        iq_topk_sort(&probes[i].topk);
        counts[i] = probes[i].topk.count;
    }
}

static void together_is_as_alone(void) {
    enum {
        K = 30
    };
    static float vectors[IQ_FLAT_COUNT_MAX * 32] IQ_ALIGNED(64);
    static iqdb_hit together[IQ_FLAT_COUNT_MAX * K], alone[K];
    static const uint32_t row_counts[] = {1,  2,  3,  4,  5,  11,  12,  13,  15,  16,   17,   24,   25,   31,
                                          36, 37, 48, 63, 64, 255, 256, 257, 767, 1023, 1024, 1025, 2047, ROWS};
    make_rows();
    for (size_t count = 1; count <= IQ_FLAT_COUNT_MAX; count += count < 20 ? 1 : 11) {
        for (size_t n = 0; n < IQ_COUNT_OF(row_counts); n++) {
            size_t counts[IQ_FLAT_COUNT_MAX], count_alone;
            rows.count = row_counts[n];
            for (int metric = IQDB_L2; metric <= IQDB_DOT; metric++) {
                iq_flat_query query = query_for(metric, IQDB_SIMD_BEST, count + n);
                search_together(&query, vectors, n, count, K, together, counts);
                for (size_t i = 0; i < count; i += 1 + n % 5) {
                    search_together(&query, vectors, n + i, 1, K, alone, &count_alone);
                    CHECK_EQ_U64(counts[i], count_alone);
                    for (size_t h = 0; h < count_alone; h++) {
                        CHECK_EQ_U64(together[i * K + h].id, alone[h].id);
                        CHECK_EQ_F32(together[i * K + h].score, alone[h].score);
                        CHECK_EQ_U64(together[i * K + h].payload.size, alone[h].payload.size); /* its row */
                    }
                }
            }
        }
    }
    rows.count = ROWS;
    iq_rows_free(&rows);
}

TEST_MAIN("index/flat", TEST(equals_scoring_every_row), TEST(together_is_as_alone))
