/* Every kernel against the canonical order written naively, bit by bit, and against double precision within a bound. */
#include "kernel/distance.h"

#include "test.h"

#include "emulated.h"

#include "kernels.h"

#include <math.h>
#include <sys/mman.h>

static const size_t big_dims[] = {384, 511, 768, 1536, 4096, 65535, 65536};

static bool sums_match(const float *a, const float *b, size_t dim) {
    const iq_kernel *kernels[MODEL_KERNELS_MAX];
    const int count = model_kernels(kernels);
    bool good = true;
    for (int kind = 0; kind < IQ_SUM_KINDS; kind++) {
        const float expected = model_sum(a, b, dim, (iq_sum_kind)kind);
        for (int k = 0; k < count; k++) {
            good = EXPECT(model_same(kernels[k]->pair(a, b, dim, (iq_sum_kind)kind), expected)) && good;
            if (!good) printf(" (%s, dim %zu, kind %d)", kernels[k]->name, dim, kind);
        }
    }
    return good;
}

static void pairs_at_every_dim_and_alignment(void) {
    float *a = (float *)malloc(400 * sizeof(float)), *b = (float *)malloc(400 * sizeof(float));
    uint64_t random = 1;
    for (size_t dim = 0; dim <= 300; dim++) {
        for (size_t shift = 0; shift < 16; shift++) {
            const size_t shift_b = (shift * 5 + dim) % 16;
            model_fill(a, 400, &random, (int)(dim + shift) % MODEL_KINDS); /* what lies around counts if it is read */
            model_fill(b, 400, &random, (int)(dim + shift) % MODEL_KINDS);
            CHECK(sums_match(a + shift, b + shift_b, dim));
        }
    }
    free(a);
    free(b);
}

/* Vectors that end, and others that begin, at a page that may not be touched. */
static void pairs_read_nothing_outside(void) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *memory = (char *)mmap(NULL, 6 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t random = 2;
    CHECK(memory != (char *)MAP_FAILED);
    CHECK(mprotect(memory, page, PROT_NONE) == 0 && mprotect(memory + 2 * page, 2 * page, PROT_NONE) == 0 &&
          mprotect(memory + 5 * page, page, PROT_NONE) == 0);
    float *first = (float *)(void *)(memory + page), *second = (float *)(void *)(memory + 4 * page);
    const size_t floats = page / sizeof(float);
    model_fill(first, floats, &random, 0);
    model_fill(second, floats, &random, 0);
    for (size_t dim = 1; dim <= 300; dim++) {
        CHECK(sums_match(first, second, dim));
        CHECK(sums_match(first + floats - dim, second + floats - dim, dim));
        CHECK(sums_match(first, second + floats - dim, dim));
    }
    munmap(memory, 6 * page);
}

/* Memory for `count` vectors, a block of its own, so that a sanitizer sees reads behind it. */
static float *padded_vectors(size_t dim, size_t count, uint64_t *random, int kind) {
    const size_t stride = iq_row_stride((uint32_t)dim);
    void *memory = NULL;
    if (!EXPECT(posix_memalign(&memory, 64, (count > 0 ? count : 1) * stride * sizeof(float)) == 0)) exit(2);
    float *vectors = (float *)memory;
    memset(vectors, 0, count * stride * sizeof(float));
    for (size_t i = 0; i < count; i++) model_fill(vectors + i * stride, dim, random, kind);
    return vectors;
}

/* Every query against every row, by every kernel, and nothing written beside the sums. */
static bool scans_match(size_t dim, size_t queries, size_t rows, uint64_t *random, int kind) {
    const iq_kernel *kernels[MODEL_KERNELS_MAX];
    const int kernel_count = model_kernels(kernels);
    const size_t stride = iq_row_stride((uint32_t)dim), count = queries * rows;
    float *a = padded_vectors(dim, queries, random, kind), *b = padded_vectors(dim, rows, random, kind);
    float *sums = (float *)malloc((count + 2) * sizeof(float)),
          *expected = (float *)malloc((count + 1) * sizeof(float));
    bool good = true;
    for (int kind = 0; kind < IQ_SUM_KINDS; kind++) {
        for (size_t i = 0; i < count; i++)
            expected[i] = model_sum(a + i / rows * stride, b + i % rows * stride, dim, (iq_sum_kind)kind);
        for (int k = 0; k < kernel_count; k++) {
            const iq_scan_fn scan = kernels[k]->scan;
            for (size_t i = 0; i < count + 2; i++) sums[i] = -12345.0f;
            scan(a, queries, b, stride, rows, sums + 1, (iq_sum_kind)kind);
            good = EXPECT(sums[0] == -12345.0f && sums[count + 1] == -12345.0f) && good;
            for (size_t i = 0; i < count && good; i++) good = EXPECT(model_same(sums[i + 1], expected[i]));
            if (!good) printf(" (%s, dim %zu, %zu x %zu, kind %d)", kernels[k]->name, dim, queries, rows, kind);
        }
    }
    free(a);
    free(b);
    free(sums);
    free(expected);
    return good;
}

static void scans_at_every_dim(void) {
    uint64_t random = 3;
    for (size_t dim = 1; dim <= 300; dim++) {
        for (int kind = 0; kind < MODEL_KINDS; kind++) {
            CHECK(scans_match(dim, 1, (dim + (size_t)kind) % 10, &random, kind));
            CHECK(scans_match(dim, 2 + dim % 3, (dim + (size_t)kind) % 7, &random, kind));
        }
    }
}

/* Tiles with every number of queries and every rest of rows. */
static void tiles_at_every_edge(void) {
    uint64_t random = 6;
    const size_t most = support_amount(20, 130, 130);
    for (size_t queries = 1; queries <= most; queries++)
        for (size_t rows = 0; rows <= 2 * IQ_TILE_ROWS + 1; rows++)
            CHECK(
                scans_match(1 + (queries * 7 + rows * 11) % 70, queries, rows, &random, (int)(queries % MODEL_KINDS)));
    for (size_t rows = 10; rows <= support_amount(30, 300, 300); rows++)
        CHECK(scans_match(1 + rows % 33, 1 + rows % 5, rows, &random, (int)(rows % MODEL_KINDS)));
}

static void big_vectors(void) {
    uint64_t random = 4;
    for (size_t d = 0; d < IQ_COUNT_OF(big_dims); d++) {
        const size_t dim = big_dims[d];
        float *a = (float *)malloc(dim * sizeof(float)), *b = (float *)malloc(dim * sizeof(float));
        for (int kind = 0; kind < MODEL_KINDS; kind++) {
            model_fill(a, dim, &random, kind);
            model_fill(b, dim, &random, kind);
            CHECK(sums_match(a, b, dim));
            CHECK(scans_match(dim, 1 + (size_t)kind % 3, 4, &random, kind));
        }
        free(a);
        free(b);
    }
}

/* A sum of k rounded operations per term is within k * 2^-24 / (1 - k * 2^-24) of the sum of the sizes of its terms. A
 * term goes through its own operations, one addition per step of its lane, and five levels of the tree. */
static bool within_bound(const float *a, const float *b, size_t dim) {
    const iq_kernel *kernels[MODEL_KERNELS_MAX];
    const int count = model_kernels(kernels);
    double dot = 0.0, dot_size = 0.0, l2 = 0.0, l1 = 0.0;
    for (size_t i = 0; i < dim; i++) {
        const double product = (double)a[i] * (double)b[i], difference = (double)a[i] - (double)b[i];
        dot += product;
        dot_size += fabs(product);
        l2 += difference * difference;
        l1 += fabs(difference);
    }
    const double steps = (double)((dim + 31) / 32 + 5), unit = 1.0 / 16777216.0;
    const double tiny = (double)dim * 1e-45 + 1e-14 * dot_size; /* products below f32, and our own sum in f64 */
    const double dot_bound = dot_size * (steps + 1) * unit / (1.0 - (steps + 1) * unit) + tiny;
    const double l2_bound = l2 * (steps + 3) * unit / (1.0 - (steps + 3) * unit) + (double)dim * 1e-45 + 1e-14 * l2;
    const double l1_bound = l1 * (steps + 1) * unit / (1.0 - (steps + 1) * unit) + 1e-14 * l1;
    bool good = true;
    for (int k = 0; k < count; k++) {
        const iq_pair_fn pair = kernels[k]->pair;
        good = EXPECT(fabs((double)pair(a, b, dim, IQ_SUM_PRODUCTS) - dot) <= dot_bound) && good;
        good = EXPECT(fabs((double)pair(a, b, dim, IQ_SUM_SQUARES) - l2) <= l2_bound) && good;
        good = EXPECT(fabs((double)pair(a, b, dim, IQ_SUM_ABSOLUTES) - l1) <= l1_bound) && good;
    }
    if (!good) printf(" (dim %zu)", dim);
    return good;
}

static void close_to_double_precision(void) {
    float *a = (float *)malloc(65536 * sizeof(float)), *b = (float *)malloc(65536 * sizeof(float));
    uint64_t random = 5;
    for (size_t dim = 1; dim <= 300; dim++) {
        for (int round = 0; round < 20; round++) {
            model_fill(a, dim, &random, round % 2);
            model_fill(b, dim, &random, round % 2);
            CHECK(within_bound(a, b, dim));
        }
    }
    for (size_t d = 0; d < IQ_COUNT_OF(big_dims); d++) {
        model_fill(a, big_dims[d], &random, 0);
        model_fill(b, big_dims[d], &random, 0);
        CHECK(within_bound(a, b, big_dims[d]));
    }
    free(a);
    free(b);
}

/* Products that an FMA would not round: 2^-24 of the first decides whether the sum is 0. */
static void nothing_is_fused(void) {
    const iq_kernel *kernels[MODEL_KERNELS_MAX];
    const int count = model_kernels(kernels);
    float a[64], b[64];
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    for (size_t j = 0; j < 32; j++) {
        memset(a, 0, sizeof a);
        memset(b, 0, sizeof b);
        a[j] = 1.0f; /* lane j becomes -1 - 2^-11, and then exactly 0 */
        b[j] = -1.00048828125f;
        a[j + 32] = 1.000244140625f;
        b[j + 32] = 1.000244140625f;
        for (int k = 0; k < count; k++) CHECK_EQ_F32(kernels[k]->pair(a, b, 64, IQ_SUM_PRODUCTS), 0.0f);
    }
}

/* Terms that show which lane each element goes to, and in which order lanes meet. */
static void order_is_canonical(void) {
    const iq_kernel *kernels[MODEL_KERNELS_MAX];
    const int count = model_kernels(kernels);
    float a[128], ones[128];
    for (size_t i = 0; i < 128; i++) ones[i] = 1.0f;
    for (size_t i = 0; i < 128; i++) {
        for (size_t j = 0; j < 128; j++) {
            if (i == j) continue;
            memset(a, 0, sizeof a);
            a[i] = 16777216.0f; /* 2^24 swallows a 1 unless a -2^24 has come first */
            a[j] = -16777216.0f;
            for (size_t one = 0; one < 128; one += 7)
                if (one != i && one != j) a[one] = 1.0f;
            const float expected = model_sum(a, ones, 128, IQ_SUM_PRODUCTS);
            for (int k = 0; k < count; k++) CHECK_EQ_F32(kernels[k]->pair(a, ones, 128, IQ_SUM_PRODUCTS), expected);
        }
    }
}

static const char *selected(uint32_t features, iqdb_simd most) { return iq_kernel_select(features, most)->name; }

static void select_gives_the_named_set(void) {
    const uint32_t all = IQ_CPU_SSE2 | IQ_CPU_AVX2 | IQ_CPU_AVX512F;
    const char *names[6] = {"scalar", "scalar", "scalar", "scalar", "scalar", "scalar"}; /* in the order of iqdb_simd */
#if IQ_X86
    names[IQDB_SIMD_SSE2] = "sse2";
    names[IQDB_SIMD_AVX2] = "avx2";
    names[IQDB_SIMD_AVX512] = names[IQDB_SIMD_NEON] = names[IQDB_SIMD_BEST] = "avx512";
#endif
#if IQ_NEON
    names[IQDB_SIMD_NEON] = names[IQDB_SIMD_BEST] = "neon";
#endif
    for (int most = 0; most < 6; most++) CHECK_EQ_STR(selected(all, (iqdb_simd)most), names[most]);
#if IQ_X86
    CHECK_EQ_STR(selected(IQ_CPU_SSE2 | IQ_CPU_AVX2, IQDB_SIMD_BEST), "avx2");
    CHECK_EQ_STR(selected(IQ_CPU_SSE2 | IQ_CPU_AVX2, IQDB_SIMD_AVX512), "avx2");
    CHECK_EQ_STR(selected(IQ_CPU_SSE2, IQDB_SIMD_BEST), "sse2");
    CHECK_EQ_STR(selected(IQ_CPU_SSE2, IQDB_SIMD_AVX2), "sse2");
    CHECK_EQ_STR(selected(0, IQDB_SIMD_BEST), "scalar");
    CHECK_EQ_STR(selected(0, IQDB_SIMD_AVX2), "scalar");
#endif
    const iq_kernel *kernels[MODEL_KERNELS_MAX];
    const int count = model_kernels(kernels);
    printf(" kernels tested here:");
    for (int k = 0; k < count; k++) {
        printf(" %s", kernels[k]->name);
        for (int other = 0; other < k; other++) /* a table that borrowed from another would test nothing */
            CHECK(kernels[k]->pair != kernels[other]->pair && kernels[k]->scan != kernels[other]->scan);
    }
    CHECK(kernels[count - 1] == iq_kernel_select(iq_cpu_features(), IQDB_SIMD_BEST));
}

/* The other tests take the kernels there are; this one says when the widest was not among them. */
static void avx512_is_tested_for_real_or_emulated(void) {
    const iq_kernel *kernels[MODEL_KERNELS_MAX];
    const int count = model_kernels(kernels);
    bool found = false;
    if (!IQ_X86) TEST_SKIP("no x86");
    for (int k = 0; k < count; k++) found = found || strcmp(kernels[k]->name, "avx512") == 0;
    if (!found) TEST_SKIP("this processor has none, and SIMDe (libsimde-dev) is missing");
    CHECK(found);
}

TEST_MAIN("kernel/kernels", TEST(select_gives_the_named_set), TEST(avx512_is_tested_for_real_or_emulated),
          TEST(pairs_at_every_dim_and_alignment), TEST(pairs_read_nothing_outside), TEST(scans_at_every_dim),
          TEST(tiles_at_every_edge), TEST(big_vectors), TEST(close_to_double_precision), TEST(nothing_is_fused),
          TEST(order_is_canonical))
