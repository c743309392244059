/* The flat scan below the handle: blocks, slabs, visibility at an LSN, and acceptance before admission. */
#include "api.h"
#include "base/alloc.h"
#include "index/flat.h"
#include "support.h"
#include "sys/sys.h"
#include "test.h"

#include <math.h>

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
        slab->heads[index].id = support_random(&random);
        slab->heads[index].birth = i % 7 == 0 ? IQ_MOMENT_NEVER : i % 50;
        slab->heads[index].death = i % 3 == 0 ? i % 50 + support_random_below(&random, 60) : IQ_MOMENT_NEVER;
        if (i % 7 != 0 || i % 14 == 0) iq_rows_fill(&rows, slab, index); /* what is not is not read */
    }
}

static bool accept_even(const iq_slab *slab, uint32_t index, void *user) {
    (void)user;
    return slab->heads[index].id % 2 == 0;
}

static bool comes_before(const iqdb_hit *a, const iqdb_hit *b) {
    return a->score < b->score || (a->score == b->score && a->id < b->id);
}

static int compare_hits(const void *a, const void *b) {
    return comes_before((const iqdb_hit *)b, (const iqdb_hit *)a) -
           comes_before((const iqdb_hit *)a, (const iqdb_hit *)b);
}

/* Every row scored alone by the pair function, then sorted: by insertion where few are wanted, else all at once. */
static size_t naive(const iq_flat_query *query, const float *vector_of_query, size_t k, iqdb_hit *out) {
    static iqdb_hit all[ROWS];
    const bool few = k <= 64;
    iqdb_hit *kept = few ? out : all;
    const size_t most = few ? k : ROWS;
    size_t count = 0;
    for (uint32_t row = 0; row < query->row_count; row++) {
        uint32_t index;
        iqdb_hit hit;
        const iq_slab *slab = iq_rows_slab(&rows, row, &index);
        const float *vector = slab->vectors + index * rows.stride;
        if (slab->heads[index].birth > query->moment || slab->heads[index].death <= query->moment) continue;
        if (query->accept_fn != NULL && slab->heads[index].id % 2 != 0) continue;
        memset(&hit, 0, sizeof hit);
        (void)iqdb_distance(query->metric, vector_of_query, vector, DIM, &hit.score);
        hit.id = slab->heads[index].id;
        if (hit.score > query->max_score || (query->after != NULL && !comes_before(query->after, &hit))) continue;
        size_t at = count < most ? count++ : most;
        if (at == most && !comes_before(&hit, &kept[most - 1])) continue;
        if (at == most) at--;
        for (; few && at > 0 && comes_before(&hit, &kept[at - 1]); at--) kept[at] = kept[at - 1];
        kept[at] = hit;
    }
    if (few) return count;
    qsort(all, count, sizeof *all, compare_hits);
    if (count > k) count = k;
    memcpy(out, all, count * sizeof *all);
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
    query.row_count = rows.count;
    query.kernel = iq_kernel_select(iq_cpu_features(), (iqdb_simd)simd);
    query.metric = (iqdb_metric)metric;
    query.moment = i * 2;
    query.accept_fn = i % 4 == 0 ? accept_even : NULL;
    query.max_score = INFINITY;
    query.task_count = 1;
    return query;
}

static void equals_scoring_every_row(void) {
    static const size_t ks[] = {1, 2, 10, 300, ROWS};
    static iqdb_hit hits[ROWS], expected[ROWS];
    static float vector[32] __attribute__((aligned(64)));
    make_rows();
    for (int metric = IQDB_L2; metric <= IQDB_L1; metric++) {
        for (int simd = IQDB_SIMD_SCALAR; simd <= IQDB_SIMD_NEON; simd++) {
            for (size_t i = 0; i < support_amount(20, 40, 40); i++) {
                iq_flat_query query = query_for(metric, simd, i);
                iq_flat_probe probe;
                fill_query(vector, i);
                query.vectors = vector;
                query.probes = &probe;
                query.count = 1;
                probe.norm = iq_vector_norm_of(query.kernel, vector, DIM);
                const size_t k = ks[i % 5];
                probe.coded = NULL;
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
    query->visited = 0;
    for (size_t i = 0; i < count; i++) {
        fill_query(vectors + i * rows.stride, first + i);
        probes[i].norm = iq_vector_norm_of(query->kernel, vectors + i * rows.stride, DIM);
        probes[i].coded = NULL;
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
    static float vectors[IQ_FLAT_COUNT_MAX * 32] __attribute__((aligned(64)));
    static iqdb_hit together[IQ_FLAT_COUNT_MAX * K], alone[K];
    static const uint32_t row_counts[] = {1,  2,  3,  4,  5,  11,  12,  13,  15,  16,   17,   24,   25,   31,
                                          36, 37, 48, 63, 64, 255, 256, 257, 767, 1023, 1024, 1025, 2047, ROWS};
    make_rows();
    for (size_t count = 1; count <= IQ_FLAT_COUNT_MAX; count += count < 20 ? 1 : 11) {
        for (size_t n = 0; n < IQ_COUNT_OF(row_counts); n++) {
            size_t counts[IQ_FLAT_COUNT_MAX], count_alone;
            rows.count = row_counts[n];
            for (int metric = IQDB_L2; metric <= IQDB_L1; metric++) {
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

/* Limits at scores that rows have, beside them, and where no row is. */
static void limits_leave_out_what_they_say(void) {
    static iqdb_hit all[ROWS], hits[ROWS], expected[ROWS];
    static float vector[32] __attribute__((aligned(64)));
    make_rows();
    for (int metric = IQDB_L2; metric <= IQDB_L1; metric++) {
        for (size_t i = 0; i < 60; i++) {
            size_t count;
            iq_flat_query query = query_for(metric, IQDB_SIMD_BEST, i);
            search_together(&query, vector, i, 1, ROWS, all, &count);
            if (count == 0) continue;
            const size_t last = i * 37 % count, first = i % 5 * last / 4;
            iqdb_hit after = all[first];
            if (i % 3 == 1) after.id--;
            if (i % 3 == 2) after.id++;
            if (i % 2 == 0) query.after = &after;
            if (i % 4 < 3) query.max_score = i % 8 < 6 ? all[last].score : nextafterf(all[last].score, -INFINITY);
            if (i == 59) query.max_score = -INFINITY;
            const size_t k = i % 7 == 0 ? ROWS : 1 + i % 20;
            search_together(&query, vector, i, 1, k, hits, &count);
            CHECK_EQ_U64(count, naive(&query, vector, k, expected));
            for (size_t h = 0; h < count; h++) {
                CHECK_EQ_U64(hits[h].id, expected[h].id);
                CHECK_EQ_F32(hits[h].score, expected[h].score);
            }
        }
    }
    iq_rows_free(&rows);
}

/* Last task first. */
static void run_backwards(void (*task_fn)(size_t, void *), void *task, size_t count, void *user) {
    *(size_t *)user += count;
    while (count-- > 0) task_fn(count, task);
}

static void shared_is_as_alone(void) {
    enum {
        K = 30,
        TASKS = 13
    };
    static float vectors[5 * 32] __attribute__((aligned(64)));
    static iqdb_hit shared[5 * K], alone[5 * K], spare[(TASKS - 1) * 5 * K];
    static const uint32_t row_counts[] = {1, 2, 15, 16, 17, 100, 1023, 1024, 1025, ROWS};
    size_t tasks_run = 0;
    const iqdb_parallel_for parallel = {run_backwards, TASKS, &tasks_run};
    make_rows();
    for (size_t n = 0; n < IQ_COUNT_OF(row_counts); n++) {
        for (size_t i = 0; i < 60; i++) {
            size_t counts[5], counts_alone[5];
            iq_flat_probe probes[5 * TASKS];
            rows.count = row_counts[n];
            const size_t count = 1 + i % 5, k = 1 + i % K;
            iq_flat_query query = query_for(IQDB_L2 + (int)(i % 4), IQDB_SIMD_BEST, i);
            if (i % 6 == 0) query.max_score = 1.5f;
            search_together(&query, vectors, i, count, k, alone, counts_alone);
            query.parallel = &parallel;
            query.task_count = 2 + i % (TASKS - 1);
            query.spare_hits = spare;
            query.probes = probes;
            for (size_t q = 0; q < count; q++) {
                probes[q].norm = iq_vector_norm_of(query.kernel, vectors + q * rows.stride, DIM);
                probes[q].coded = NULL;
                probes[q].lost = false;
                iq_topk_start(&probes[q].topk, shared + q * k, k);
            }
            tasks_run = 0;
            iq_flat_search(&query);
            CHECK_EQ_U64(tasks_run, query.task_count);
            for (size_t q = 0; q < count; q++) {
                iq_topk_sort(&probes[q].topk);
                counts[q] = probes[q].topk.count;
                CHECK_EQ_U64(counts[q], counts_alone[q]);
                for (size_t h = 0; h < counts[q]; h++) {
                    CHECK_EQ_U64(shared[q * k + h].id, alone[q * k + h].id);
                    CHECK_EQ_F32(shared[q * k + h].score, alone[q * k + h].score);
                    CHECK_EQ_U64(shared[q * k + h].payload.size, alone[q * k + h].payload.size); /* its row */
                }
            }
        }
    }
    rows.count = ROWS;
    iq_rows_free(&rows);
}

/* Stopped behind any block and called again it gives what it gives at once. There is no clock: units are counted. */
static void sliced_is_as_whole(void) {
    enum {
        K = 30
    };
    static float vectors[IQ_FLAT_COUNT_MAX * 32] __attribute__((aligned(64)));
    static iqdb_hit whole[IQ_FLAT_COUNT_MAX * K], sliced[IQ_FLAT_COUNT_MAX * K];
    size_t slices = 0;
    make_rows();
    for (size_t i = 0; i < 150; i++) {
        size_t counts[IQ_FLAT_COUNT_MAX];
        iq_flat_probe probes[IQ_FLAT_COUNT_MAX];
        const size_t count = i % 3 == 0 ? 1 : 1 + i * 7 % IQ_FLAT_COUNT_MAX, k = 1 + i % K;
        iq_flat_query query = query_for(IQDB_L2 + (int)(i % 4), IQDB_SIMD_BEST, i);
        iqdb_clock none;
        memset(&none, 0, sizeof none);
        iq_limit limit = iq_limit_make(none, NULL);
        query.row_count = i % 5 == 0 ? ROWS - 3 : ROWS;
        search_together(&query, vectors, i, count, k, whole, counts);
        CHECK_EQ_U64(query.visited, query.row_count);
        query.limit = &limit;
        query.visited = 0;
        query.probes = probes;
        for (size_t q = 0; q < count; q++) {
            probes[q].norm = iq_vector_norm_of(query.kernel, vectors + q * rows.stride, DIM);
            probes[q].coded = NULL;
            probes[q].lost = false;
            iq_topk_start(&probes[q].topk, sliced + q * k, k);
        }
        while (query.visited < query.row_count) {
            const uint32_t budget = (uint32_t)(i % 4), before = query.visited;
            const uint64_t units = limit.units;
            iq_limit_end_in(&limit, budget);
            iq_flat_search(&query);
            CHECK(query.visited > before && limit.units - units <= (budget == 0 ? 1 : budget));
            slices++;
        }
        for (size_t q = 0; q < count; q++) {
            iq_topk_sort(&probes[q].topk);
            CHECK_EQ_U64(probes[q].topk.count, counts[q]);
            for (size_t h = 0; h < counts[q]; h++) {
                CHECK_EQ_U64(sliced[q * k + h].id, whole[q * k + h].id);
                CHECK_EQ_F32(sliced[q * k + h].score, whole[q * k + h].score);
                CHECK_EQ_U64(sliced[q * k + h].payload.size, whole[q * k + h].payload.size);
            }
        }
    }
    printf(" %zu slices ...", slices);
    CHECK(slices > 150 * 10);
    iq_rows_free(&rows);
}

/* ---- groups of every kind of number ---- */

enum {
    NUMBER_ROWS = 700
};

/* Kinds: 0 ordinary, 1 all very near to one vector, 2 of every size there is, 3 equal, 4 a few of each. */
static void fill_numbers(float *vector, uint64_t number, int kind) {
    static const int exponents[] = {0, 58, 59, 60, 61, 63, 100, -38, -39, -40, -41, -50, -63, -75, -120, -145};
    uint64_t seed = number, same = 99;
    if (kind == 4) kind = (int)(number % 3);
    const float noise = ldexpf(1.0f, -(int)(number % 25));
    memset(vector, 0, rows.stride * sizeof(float));
    for (int j = 0; j < DIM; j++) {
        const float base = support_random_float(&same), own = support_random_float(&seed);
        vector[j] = kind == 0   ? own
                    : kind == 1 ? base + noise * own
                    : kind == 2 ? ldexpf(own, exponents[number % IQ_COUNT_OF(exponents)])
                                : base;
    }
}

static void make_number_rows(int kind) {
    uint64_t random = 7;
    memory = iq_alloc_default();
    iq_rows_init(&rows, &memory);
    iq_rows_set_dim(&rows, DIM);
    for (uint32_t i = 0; i < NUMBER_ROWS; i++) {
        uint32_t row, index;
        CHECK_EQ_INT(iq_rows_take(&rows, &row), IQDB_OK);
        const iq_slab *slab = iq_rows_slab(&rows, row, &index);
        fill_numbers(slab->vectors + index * rows.stride, support_random_below(&random, 500), kind);
        slab->norms[index] = iq_vector_norm_of(iq_kernel_scalar(), slab->vectors + index * rows.stride, DIM);
        slab->heads[index].id = support_random(&random);
        slab->heads[index].birth = i % 9 == 5 ? IQ_MOMENT_NEVER : 0;
        slab->heads[index].death = IQ_MOMENT_NEVER;
        if (i % 90 != 5) iq_rows_fill(&rows, slab, index);
    }
}

static void groups_equal_scoring_every_row(void) {
    enum {
        K = 12
    };
    static const size_t counts[] = {7, 8, 9, 11, 12, 13, 30, 63, 64};
    static float vectors[IQ_FLAT_COUNT_MAX * 32] __attribute__((aligned(64)));
    static iqdb_hit hits[IQ_FLAT_COUNT_MAX * K], expected[K];
    /* Every seventh round has each kind and each metric still, if not all of their pairs. */
    const int step = (int)support_amount(7, 1, 1);
    for (int round = 0; round < 5 * 5 * 4; round += step) {
        const int rows_kind = round % 5, kind = round / 5 % 5, metric = IQDB_L2 + round / 25;
        make_number_rows(rows_kind);
        for (size_t c = 0; c < IQ_COUNT_OF(counts); c++) {
            const int simd = (round + (int)c) % 3 == 0 ? IQDB_SIMD_AVX2 : IQDB_SIMD_BEST;
            const size_t count = counts[c], k = 1 + (c * 5 + (size_t)round) % K;
            iq_flat_probe probes[IQ_FLAT_COUNT_MAX];
            iq_flat_query query = query_for(metric, simd, 1);
            query.row_count =
                c % 4 == 3 ? NUMBER_ROWS : 3 + (uint32_t)(c * 97 + (size_t)round * 13) % (NUMBER_ROWS - 3);
            query.vectors = vectors;
            query.probes = probes;
            query.count = count;
            if (c % 5 == 4) query.max_score = metric == IQDB_COSINE ? 0.5f : 3.0f;
            for (size_t i = 0; i < count; i++) {
                fill_numbers(vectors + i * rows.stride, i * 7 + c, kind);
                probes[i].norm = iq_vector_norm_of(query.kernel, vectors + i * rows.stride, DIM);
                probes[i].coded = NULL;
                iq_topk_start(&probes[i].topk, hits + i * k, k);
            }
            iq_flat_search(&query);
            for (size_t i = 0; i < count; i++) {
                iq_topk_sort(&probes[i].topk);
                CHECK_EQ_U64(probes[i].topk.count, naive(&query, vectors + i * rows.stride, k, expected));
                for (size_t h = 0; h < probes[i].topk.count; h++) {
                    CHECK_EQ_U64(hits[i * k + h].id, expected[h].id);
                    CHECK_EQ_F32(hits[i * k + h].score, expected[h].score);
                }
            }
        }
        iq_rows_free(&rows);
    }
}

TEST_MAIN("index/flat", TEST(equals_scoring_every_row), TEST(together_is_as_alone),
          TEST(limits_leave_out_what_they_say), TEST(shared_is_as_alone), TEST(sliced_is_as_whole),
          TEST(groups_equal_scoring_every_row))
