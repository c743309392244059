/* A basis: it is orthonormal, holds as much of the sample as the best there is, has the same bits from every kernel, and
 * there is none where it would not serve. The model is in double precision. */
#include "kernel/basis.h"

#include <math.h>

#include "kernels.h"
#include "test.h"

enum {
    DIM_MAX = 160
};

static void *memory_of(size_t size) {
    void *memory = aligned_alloc(64, (size + 63) / 64 * 64);
    if (memory != NULL) memset(memory, 0, size);
    return memory;
}

static float decay = 0.9f;

/* Rows around a centre: `rank` directions, each a little shorter than the one before, and noise. */
static void row_of(float *row, uint32_t dim, uint32_t rank, float noise, uint64_t i) {
    uint64_t random = 1000 + i;
    for (uint32_t d = 0; d < dim; d++) row[d] = 0.5f + noise * (support_random_float(&random) - 0.5f);
    for (uint32_t j = 0; j < rank; j++) {
        uint64_t direction = 77 + j;
        const float much = (support_random_float(&random) - 0.5f) * powf(decay, (float)j);
        for (uint32_t d = 0; d < dim; d++) row[d] += much * (support_random_float(&direction) - 0.5f);
    }
}

static iq_basis_maker make(const iq_kernel *kernel, uint32_t dim, uint32_t rank, float noise, uint64_t count,
                           void *memory) {
    float row[DIM_MAX];
    iq_basis_maker maker;
    memset(memory, 0, iq_basis_maker_bytes(dim));
    iq_basis_maker_start(&maker, kernel, dim, memory);
    for (uint64_t i = 0; i < count; i++) {
        row_of(row, dim, rank, noise, i);
        iq_basis_maker_add(&maker, row, 1.0f);
    }
    while (!iq_basis_maker_step(&maker)) {
    }
    return maker;
}

static void it_holds_what_it_should(void) {
    const iq_kernel *kernel = iq_kernel_select(iq_cpu_features(), IQDB_SIMD_BEST);
    for (uint32_t dim = 64; dim <= DIM_MAX; dim += 37) {
        void *memory = memory_of(iq_basis_maker_bytes(dim));
        const iq_basis_maker maker = make(kernel, dim, 60, 0.02f, 4096, memory);
        iq_basis basis;
        float row[DIM_MAX + 16] __attribute__((aligned(64))), head[DIM_MAX] __attribute__((aligned(64)));
        double all = 0, held = 0;
        size_t below = 0;
        CHECK(maker.dims >= 16 && maker.dims <= 64 && maker.dims % 16 == 0);
        CHECK(iq_basis_set(&basis, kernel, dim, maker.dims, maker.centre));
        for (uint32_t i = 0; i < basis.dims; i++)
            for (uint32_t j = 0; j <= i; j++) {
                double product = 0;
                for (uint32_t d = 0; d < dim; d++)
                    product +=
                        (double)basis.vectors[i * basis.stride + d] * (double)basis.vectors[j * basis.stride + d];
                CHECK(fabs(product - (i == j ? 1.0 : 0.0)) < 1e-5);
            }
        for (uint64_t i = 0; i < 4096;
             i++) { /* what heads hold, and lengths, differ from the model by the slack at most */
            double whole = 0, own = 0;
            memset(row, 0, sizeof row);
            row_of(row, dim, 60, 0.02f, i);
            below += row[3] < basis.centre[3];
            iq_basis_move(&basis, row);
            iq_basis_project(&basis, row, head);
            for (uint32_t d = 0; d < dim; d++) whole += (double)row[d] * (double)row[d];
            for (uint32_t j = 0; j < basis.dims; j++) {
                double product = 0;
                for (uint32_t d = 0; d < dim; d++)
                    product += (double)basis.vectors[j * basis.stride + d] * (double)row[d];
                CHECK(fabs(product - (double)head[j]) <= basis.slack * sqrt(whole));
                own += product * product;
            }
            CHECK(own <= whole * (1 + basis.slack));
            all += whole;
            held += own;
        }
        CHECK_EQ_U64(below, 2048);
        CHECK(held >= 0.954 * all);
        free(memory);
    }
}

/* 16 of 96 directions hold nearly all, wherever they lie. */
static void it_is_no_longer_than_needed(void) {
    const iq_kernel *kernel = iq_kernel_select(iq_cpu_features(), IQDB_SIMD_BEST);
    void *memory = memory_of(iq_basis_maker_bytes(96));
    CHECK_EQ_U64(make(kernel, 96, 14, 0.01f, 4096, memory).dims, 16);
    CHECK_EQ_U64(make(kernel, 96, 0, 1.0f, 4096, memory).dims, 0); /* noise only */
    CHECK_EQ_U64(make(kernel, 96, 0, 0.0f, 4096, memory).dims, 0); /* all rows alike */
    free(memory);
}

/* Half of all directions hold enough of rows that are all as far from each other: what is left would keep too many open. */
static void it_is_not_for_rows_without_neighbours(void) {
    const iq_kernel *kernel = iq_kernel_select(iq_cpu_features(), IQDB_SIMD_BEST);
    void *memory = memory_of(iq_basis_maker_bytes(128));
    decay = 1.0f;
    const iq_basis_maker even = make(kernel, 128, 70, 0.0f, 2000, memory);
    decay = 0.95f;
    const iq_basis_maker uneven = make(kernel, 128, 70, 0.0f, 2000, memory);
    decay = 0.9f;
    CHECK_EQ_U64(even.dims, 0);
    CHECK(uneven.dims >= 16 && uneven.dims <= 64);
    free(memory);
}

static void the_same_bits_from_every_kernel(void) {
    const iq_kernel *kernels[MODEL_KERNELS_MAX];
    const int count = model_kernels(kernels);
    const uint32_t dim = 67;
    void *memory = memory_of(iq_basis_maker_bytes(dim)), *other = memory_of(iq_basis_maker_bytes(dim));
    const iq_basis_maker first = make(kernels[0], dim, 40, 0.02f, 4096, memory);
    iq_basis basis, same;
    CHECK(first.dims > 0 && iq_basis_set(&basis, kernels[0], dim, first.dims, first.centre));
    for (int i = 1; i < count; i++) {
        const iq_basis_maker maker = make(kernels[i], dim, 40, 0.02f, 4096, other);
        CHECK_EQ_U64(maker.dims, first.dims);
        CHECK_MEM(maker.centre, first.centre, iq_basis_bytes(dim, first.dims));
        CHECK(iq_basis_set(&same, kernels[i], dim, maker.dims, maker.centre));
        CHECK(same.slack == basis.slack && same.length == basis.length);
    }
    free(memory);
    free(other);
}

static void what_is_no_basis_is_refused(void) {
    const iq_kernel *kernel = iq_kernel_select(iq_cpu_features(), IQDB_SIMD_BEST);
    void *memory = memory_of(iq_basis_maker_bytes(67));
    const iq_basis_maker maker = make(kernel, 67, 40, 0.02f, 4096, memory);
    iq_basis basis;
    float *values = maker.centre;
    const size_t stride = iq_row_stride(67), last = ((size_t)maker.dims + 1) * stride - 1;
    CHECK(iq_basis_set(&basis, kernel, 67, maker.dims, values));
    CHECK(!iq_basis_set(&basis, kernel, 67, 0, values) && !iq_basis_set(&basis, kernel, 67, 80, values));
    CHECK(!iq_basis_set(&basis, kernel, 67, maker.dims - 1, values) && !iq_basis_set(&basis, kernel, 63, 16, values));
    const float wrong[] = {iq_f32_from_bits(0x7FC00000u), iq_f32_from_bits(0x7F800000u), 3e38f, -1e16f};
    for (size_t i = 0; i < 4; i++)
        for (size_t at = 5; at <= last; at += 3 * stride) {
            const float before = values[at];
            values[at] = wrong[i];
            CHECK(!iq_basis_set(&basis, kernel, 67, maker.dims, values));
            values[at] = before;
        }
    values[last] = 1e-20f; /* behind dim */
    CHECK(!iq_basis_set(&basis, kernel, 67, maker.dims, values));
    values[last] = 0.0f;
    values[stride + 1] += 0.01f; /* not of length 1 any more */
    CHECK(!iq_basis_set(&basis, kernel, 67, maker.dims, values));
    free(memory);
}

TEST_MAIN("kernel/basis", TEST(it_holds_what_it_should), TEST(it_is_no_longer_than_needed),
          TEST(it_is_not_for_rows_without_neighbours), TEST(the_same_bits_from_every_kernel),
          TEST(what_is_no_basis_is_refused))
