/* Training: the head it finds holds what a model in double precision says the best one holds, nearly; rows of it are
 * orthonormal; all kernels give the same bytes; and where there is no head worth having, or no memory, there is none. */
#include "api.h"
#include "index/pca.h"
#include "support.h"
#include "test.h"
#include "vectors.h"

enum {
    COUNT = 600,
    DIM_MAX = 160
};

static float sample[COUNT * DIM_MAX] IQ_ALIGNED(64);
static iqdb_allocator memory;

/* Rows with the given variances along `dim` random orthonormal directions, and a mean. */
static void make_sample(uint32_t dim, uint32_t strong, float weak, uint64_t seed) {
    const size_t stride = iq_row_stride(dim);
    float *directions = (float *)malloc(sizeof(float) * stride * dim);
    uint64_t random = seed;
    vectors_matrix(directions, dim, dim, seed);
    memset(sample, 0, sizeof sample);
    for (size_t i = 0; i < COUNT; i++) {
        for (uint32_t j = 0; j < dim; j++) {
            const float along = vectors_normal(&random) * (j < strong ? 1.0f : weak);
            for (uint32_t d = 0; d < dim; d++) sample[i * stride + d] += along * directions[j * stride + d];
        }
        for (uint32_t d = 0; d < dim; d++) sample[i * stride + d] += 0.1f * (float)(d % 5);
    }
    free(directions);
}

/* The share of the sample's variance, in double precision, that the rows of the matrix hold. */
static double held(const iq_pca *pca) {
    const size_t stride = iq_row_stride(pca->dim);
    double mean[DIM_MAX] = {0}, total = 0, inside = 0;
    for (size_t i = 0; i < COUNT; i++)
        for (uint32_t d = 0; d < pca->dim; d++) mean[d] += (double)sample[i * stride + d] / COUNT;
    for (size_t i = 0; i < COUNT; i++) {
        for (uint32_t d = 0; d < pca->dim; d++) {
            const double v = (double)sample[i * stride + d] - mean[d];
            total += v * v;
        }
        for (uint32_t j = 0; j < pca->head; j++) {
            double dot = 0;
            for (uint32_t d = 0; d < pca->dim; d++)
                dot += ((double)sample[i * stride + d] - mean[d]) * (double)pca->matrix[j * stride + d];
            inside += dot * dot;
        }
    }
    for (uint32_t d = 0; d < pca->dim; d++) (void)EXPECT(fabs(mean[d] - (double)pca->centre[d]) < 1e-5);
    return inside / total;
}

static double skew_of(const iq_pca *pca) {
    const size_t stride = iq_row_stride(pca->dim);
    double missing = 0;
    for (uint32_t i = 0; i < pca->head; i++) {
        for (uint32_t j = 0; j < pca->head; j++) {
            double dot = i == j ? -1 : 0;
            for (uint32_t d = 0; d < pca->dim; d++)
                dot += (double)pca->matrix[i * stride + d] * (double)pca->matrix[j * stride + d];
            missing += dot * dot;
        }
    }
    return sqrt(missing);
}

static const iq_kernel *best(void) {
    return iq_kernel_select(iq_cpu_features(), IQDB_SIMD_BEST);
}

static void finds_the_strong_directions(void) {
    static const uint32_t dims[] = {32, 48, 77, 100, 160};
    memory = iq_alloc_default();
    for (size_t i = 0; i < IQ_COUNT_OF(dims); i++) {
        iq_pca pca;
        const uint32_t strong = dims[i] / 3;
        make_sample(dims[i], strong, 0.05f, i + 1);
        CHECK_EQ_INT(iq_pca_train(&pca, &memory, best(), dims[i], sample, COUNT, 0.95, 0), IQDB_OK);
        /* The strong ones alone hold more than 99 %; the head is rounded up. */
        CHECK(pca.head % 16 == 0 && pca.head <= (strong + 15) / 16 * 16 && pca.head > 0);
        CHECK(held(&pca) >= (pca.head >= strong ? 0.985 : 0.95));
        CHECK(skew_of(&pca) <= (double)pca.skew && pca.skew < 1e-5f);
        iq_pca_free(&pca);
        CHECK_EQ_INT(iq_pca_train(&pca, &memory, best(), dims[i], sample, COUNT, 0.95, strong + 1), IQDB_OK);
        CHECK(pca.head == strong + 1 && held(&pca) > 0.985);
        CHECK(skew_of(&pca) <= (double)pca.skew);
        iq_pca_free(&pca);
    }
}

static void no_head_where_none_is_worth_it(void) {
    iq_pca pca;
    memory = iq_alloc_default();
    make_sample(64, 64, 1.0f, 3); /* flat */
    CHECK_EQ_INT(iq_pca_train(&pca, &memory, best(), 64, sample, COUNT, 0.95, 0), IQDB_OK);
    CHECK(pca.head == 0 && pca.matrix == NULL && pca.centre == NULL);
    memset(sample, 0, sizeof sample); /* nothing to learn from */
    CHECK_EQ_INT(iq_pca_train(&pca, &memory, best(), 64, sample, COUNT, 0.95, 0), IQDB_OK);
    CHECK(pca.head == 0 && pca.matrix == NULL);
    for (size_t i = 0; i < COUNT * 64; i++) sample[i] = i % 2 == 0 ? 3e38f : -3e38f; /* too large */
    CHECK_EQ_INT(iq_pca_train(&pca, &memory, best(), 64, sample, COUNT, 0.95, 0), IQDB_OK);
    CHECK(pca.head == 0);
    CHECK_EQ_INT(iq_pca_train(&pca, &memory, best(), 31, sample, COUNT, 0.95, 0), IQDB_OK);
    CHECK(pca.head == 0);
    CHECK_EQ_INT(iq_pca_train(&pca, &memory, best(), 64, sample, 1, 0.95, 0), IQDB_OK);
    CHECK(pca.head == 0);
    /* All rows on one line: the other directions are chance, and still orthonormal. */
    for (size_t i = 0; i < COUNT * 64; i++) sample[i] = (float)(i / 64) * (float)(i % 64 + 1);
    CHECK_EQ_INT(iq_pca_train(&pca, &memory, best(), 64, sample, COUNT, 0.95, 0), IQDB_OK);
    CHECK(pca.head == 16 && skew_of(&pca) <= (double)pca.skew && held(&pca) > 0.9999);
    iq_pca_free(&pca);
}

static void the_same_bytes_from_every_kernel(void) {
    iq_pca first, other;
    memory = iq_alloc_default();
    make_sample(100, 30, 0.2f, 9);
    CHECK_EQ_INT(iq_pca_train(&first, &memory, iq_kernel_scalar(), 100, sample, COUNT, 0.9, 0), IQDB_OK);
    CHECK(first.head > 0);
    for (int simd = IQDB_SIMD_SCALAR; simd <= IQDB_SIMD_NEON; simd++) {
        const iq_kernel *kernel = iq_kernel_select(iq_cpu_features(), (iqdb_simd)simd);
        CHECK_EQ_INT(iq_pca_train(&other, &memory, kernel, 100, sample, COUNT, 0.9, 0), IQDB_OK);
        CHECK_EQ_U64(other.head, first.head);
        CHECK_MEM(other.matrix, first.matrix, first.head * iq_row_stride(100) * sizeof(float));
        CHECK_MEM(other.centre, first.centre, iq_row_stride(100) * sizeof(float));
        CHECK_EQ_F32(other.skew, first.skew);
        iq_pca_free(&other);
    }
    iq_pca_free(&first);
}

static void every_allocation_may_fail(void) {
    support_heap heap = support_heap_make();
    iqdb_allocator allocator = support_allocator(&heap);
    iq_pca pca;
    size_t failed = 0;
    make_sample(48, 16, 0.05f, 4);
    for (size_t fail = 1;; fail++) {
        heap.fail_at = fail;
        const iqdb_result result = iq_pca_train(&pca, &allocator, best(), 48, sample, 100, 0.95, 0);
        if (result == IQDB_OK) break;
        CHECK_EQ_INT(result, IQDB_ERR_NOMEM);
        CHECK(pca.matrix == NULL);
        CHECK_EQ_U64(support_heap_problems(&heap), 0);
        failed++;
    }
    heap.fail_at = 0;
    CHECK(failed >= 8 && pca.head == 16);
    iq_pca_free(&pca);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
}

TEST_MAIN("index/pca", TEST(finds_the_strong_directions), TEST(no_head_where_none_is_worth_it),
          TEST(the_same_bytes_from_every_kernel), TEST(every_allocation_may_fail))
