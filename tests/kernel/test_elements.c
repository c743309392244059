/* Kernels of elements other than f32 against sums of whole numbers, and against the canonical order over numbers that are
 * made of halves one by one; bit by bit, at every dimension, for every set that runs here. Conversions against arithmetic
 * in double. */
#include "kernel/distance.h"

#include "test.h"

#include "emulated.h"

#include "kernels.h"

#include <math.h>

enum {
    DIM_MAX = 65536,
    ROWS_MAX = 9
};

static const iqdb_element elements[5] = {IQDB_ELEMENT_F16, IQDB_ELEMENT_BF16, IQDB_ELEMENT_I8, IQDB_ELEMENT_U8,
                                         IQDB_ELEMENT_BIT};

/* What a half stands for: sign, exponent, digits. */
static float half_number(iqdb_element element, uint16_t half) {
    const int digits = element == IQDB_ELEMENT_F16 ? 10 : 7, bias = element == IQDB_ELEMENT_F16 ? 15 : 127;
    const int exponent = (half & 0x7FFF) >> digits, fraction = half & ((1 << digits) - 1);
    const double size =
        exponent == 0 ? ldexp(fraction, 1 - bias - digits) : ldexp(fraction + (1 << digits), exponent - bias - digits);
    return (float)(half >> 15 != 0 ? -size : size);
}

static bool half_is_finite(iqdb_element element, uint16_t half) {
    const uint16_t exponent = element == IQDB_ELEMENT_F16 ? 0x7C00 : 0x7F80;
    return (half & exponent) != exponent;
}

static void halves_become_what_they_are(void) {
    for (size_t e = 0; e < 2; e++) {
        for (uint32_t i = 0; i < 65536; i++) {
            const uint16_t half = (uint16_t)i;
            float out[3] = {7.0f, 7.0f, 7.0f};
            iq_element_to_f32(elements[e], &half, 1, out + 1);
            CHECK(out[0] == 7.0f && out[2] == 7.0f);
            if (half_is_finite(elements[e], half)) {
                CHECK_EQ_U64(iq_f32_bits(out[1]), iq_f32_bits(half_number(elements[e], half)));
            } else {
                CHECK_EQ_U64(iq_f32_bits(out[1]) >> 23 & 255, 255);
            }
            const bool found = iq_element_is_vector(elements[e], &half, 1, IQ_BIG_ENDIAN);
            CHECK_EQ_INT(found, half_is_finite(elements[e], half));
        }
    }
}

static void strides_and_sizes(void) {
    for (uint32_t dim = 1; dim <= 2000; dim++) {
        const size_t bits[6] = {32, 16, 16, 8, 8, 1};
        for (int element = IQDB_ELEMENT_F32; element <= IQDB_ELEMENT_BIT; element++) {
            const size_t bytes = iq_element_bytes((iqdb_element)element, dim),
                         row = 4 * iq_element_stride((iqdb_element)element, dim),
                         unit = element == IQDB_ELEMENT_BIT ? 8 : 64;
            CHECK_EQ_U64(bytes, (dim * bits[element] + 7) / 8);
            CHECK(row >= bytes && row % unit == 0 && row - bytes < unit);
        }
    }
    for (uint32_t element = 0; element < 300; element++) {
        CHECK_EQ_INT(iq_element_bits(element) != 0, element <= IQDB_ELEMENT_BIT);
        for (uint64_t metric = 0; metric < 300; metric++) {
            const bool is_bits = element == IQDB_ELEMENT_BIT;
            CHECK_EQ_INT(iq_element_answers(element, metric),
                         element <= IQDB_ELEMENT_BIT && (is_bits ? metric == 5 : metric >= 1 && metric <= 4));
        }
    }
}

static void bits_behind_the_last_one_are_seen(void) {
    uint8_t bytes[4] = {255, 255, 255, 255};
    for (size_t dim = 1; dim <= 24; dim++) {
        memset(bytes, 255, sizeof bytes);
        CHECK_EQ_INT(iq_element_is_vector(IQDB_ELEMENT_BIT, bytes, dim, false), dim % 8 == 0);
        for (size_t bit = dim; bit < (dim + 7) / 8 * 8; bit++) {
            memset(bytes, 0, sizeof bytes);
            bytes[bit / 8] = (uint8_t)(1 << bit % 8);
            CHECK(!iq_element_is_vector(IQDB_ELEMENT_BIT, bytes, dim, false));
        }
        memset(bytes, 0, sizeof bytes);
        bytes[(dim - 1) / 8] = (uint8_t)(1 << (dim - 1) % 8);
        CHECK(iq_element_is_vector(IQDB_ELEMENT_BIT, bytes, dim, false));
    }
}

/* Both byte orders of all elements, wherever the first thing that is no number stands. */
static void what_is_not_finite_is_seen(void) {
    uint8_t bytes[64];
    const uint8_t bad[3][2] = {{0x7F, 0x80}, {0x7C, 0x00}, {0x7F, 0x80}}; /* the upper bytes of infinities */
    for (int element = IQDB_ELEMENT_F32; element <= IQDB_ELEMENT_BF16; element++) {
        const size_t size = element == IQDB_ELEMENT_F32 ? 4 : 2;
        for (size_t dim = 1; dim <= 16; dim++) {
            for (int big = 0; big < 2; big++) {
                memset(bytes, 0x11, sizeof bytes);
                CHECK(iq_element_is_vector((iqdb_element)element, bytes, dim, big != 0));
                for (size_t at = 0; at < dim; at++) {
                    memset(bytes, 0x11, sizeof bytes);
                    bytes[at * size + (big != 0 ? 0 : size - 1)] = bad[element][0];
                    bytes[at * size + (big != 0 ? 1 : size - 2)] = bad[element][1];
                    CHECK(!iq_element_is_vector((iqdb_element)element, bytes, dim, big != 0));
                    bytes[at * size + (big != 0 ? 0 : size - 1)] ^= 0x80;
                    CHECK(!iq_element_is_vector((iqdb_element)element, bytes, dim, big != 0));
                    bytes[at * size + (big != 0 ? 0 : size - 1)] ^= 0x40;
                    CHECK(iq_element_is_vector((iqdb_element)element, bytes, dim, big != 0));
                }
            }
        }
    }
}

/* ---- sums ---- */

static float numbers_a[DIM_MAX], numbers_b[DIM_MAX];

static float number(iqdb_element element, const uint8_t *row, size_t i) {
    uint16_t half;
    if (element == IQDB_ELEMENT_BIT) return (float)(row[i / 8] >> i % 8 & 1);
    if (element == IQDB_ELEMENT_U8) return (float)row[i];
    if (element == IQDB_ELEMENT_I8) return (float)(row[i] < 128 ? row[i] : row[i] - 256);
    memcpy(&half, row + 2 * i, 2);
    return half_number(element, half);
}

static float element_sum(iqdb_element element, const uint8_t *a, const uint8_t *b, size_t dim, iq_sum_kind kind) {
    int64_t sum = 0;
    for (size_t i = 0; i < dim; i++) {
        numbers_a[i] = number(element, a, i);
        numbers_b[i] = number(element, b, i);
    }
    if (element <= IQDB_ELEMENT_BF16) return model_sum(numbers_a, numbers_b, dim, kind);
    for (size_t i = 0; i < dim; i++) {
        const int64_t p = (int64_t)numbers_a[i], q = (int64_t)numbers_b[i];
        sum += kind == IQ_SUM_PRODUCTS ? p * q : kind == IQ_SUM_SQUARES ? (p - q) * (p - q) : p < q ? q - p : p - q;
    }
    return (float)sum;
}

/* Kinds: 0 any, 1 halves near 1, 2 the greatest, 3 of both ends. */
static void fill_row(iqdb_element element, uint8_t *row, uint32_t dim, uint64_t *random, int kind) {
    memset(row, 0, 4 * iq_element_stride(element, dim));
    for (uint32_t i = 0; i < dim; i++) {
        const uint64_t dice = support_random(random);
        const bool end = kind == 2 || (kind == 3 && (dice >> 40 & 1) != 0);
        uint16_t half = (uint16_t)dice;
        if (kind == 1) half = (uint16_t)((half & 0x83FF) | (element == IQDB_ELEMENT_F16 ? 0x3C00 : 0x3F00));
        if (end) half = element == IQDB_ELEMENT_F16 ? 0x7BFF : 0x7F7F;
        if (element <= IQDB_ELEMENT_BF16 && !half_is_finite(element, half)) half &= 0x83FF;
        if (element == IQDB_ELEMENT_BF16 && !half_is_finite(element, half)) half &= 0x807F;
        if (element <= IQDB_ELEMENT_BF16) {
            memcpy(row + 2 * (size_t)i, &half, 2);
        } else if (element == IQDB_ELEMENT_BIT) {
            row[i / 8] = (uint8_t)(row[i / 8] | ((end ? 1 : dice >> 20 & 1) << i % 8));
        } else {
            row[i] = (uint8_t)(kind < 2 ? dice : element == IQDB_ELEMENT_I8 ? (end ? 0x80 : 0x7F) : end ? 0xFF : 0);
        }
    }
}

static bool sums_match(iqdb_element element, uint32_t dim, size_t query_count, size_t row_count, size_t shift,
                       uint64_t *random, int kind) {
    const iq_kernel *kernels[MODEL_KERNELS_MAX];
    const int kernel_count = model_kernels(kernels);
    const size_t stride = iq_element_stride(element, dim), count = query_count * row_count;
    /* What lies at a multiple of 8 only, as in a blob; and a sanitizer sees what is read behind it. */
    uint8_t *queries = (uint8_t *)malloc(query_count * stride * 4 + shift),
            *rows = (uint8_t *)malloc(row_count * stride * 4 + shift);
    float *sums = (float *)malloc((count + 2) * sizeof(float));
    bool good = true;
    for (size_t i = 0; i < query_count; i++) fill_row(element, queries + shift + i * stride * 4, dim, random, kind);
    for (size_t i = 0; i < row_count; i++) fill_row(element, rows + shift + i * stride * 4, dim, random, kind);
    for (int sum = 0; sum < IQ_SUM_KINDS && good; sum++) {
        if (element == IQDB_ELEMENT_BIT && sum == IQ_SUM_SQUARES) continue;
        for (int k = 0; k < kernel_count && good; k++) {
            const iq_kernel *kernel = iq_kernel_of(kernels[k], element);
            const float *first = (const float *)(const void *)(queries + shift),
                        *second = (const float *)(const void *)(rows + shift);
            sums[0] = sums[count + 1] = -12345.0f;
            kernel->scan(first, query_count, second, stride, row_count, sums + 1, (iq_sum_kind)sum);
            good = EXPECT(sums[0] == -12345.0f && sums[count + 1] == -12345.0f);
            for (size_t i = 0; i < count && good; i++) {
                const size_t q = i / row_count, r = i % row_count;
                const float expected = element_sum(element, queries + shift + q * stride * 4,
                                                   rows + shift + r * stride * 4, dim, (iq_sum_kind)sum);
                good = EXPECT(model_same(sums[1 + i], expected)) && good;
                good =
                    EXPECT(model_same(kernel->pair(first + q * stride, second + r * stride, stride, (iq_sum_kind)sum),
                                      expected)) &&
                    good;
            }
            if (!good) printf(" (%s, element %d, dim %u, sum %d)", kernel->name, (int)element, dim, sum);
        }
    }
    free(queries);
    free(rows);
    free(sums);
    return good;
}

static void sums_at_every_dim(void) {
    uint64_t random = 1;
    for (uint32_t dim = 1; dim <= 300; dim += dim < 70 ? 1 : (uint32_t)support_amount(13, 1, 1))
        for (size_t e = 0; e < 5; e++)
            for (int kind = 0; kind < 4; kind++)
                CHECK(sums_match(elements[e], dim, 1 + (dim + (size_t)kind) % 3, 1 + dim % ROWS_MAX, 8 * (dim % 8),
                                 &random, kind));
}

static void sums_of_the_longest(void) {
    static const uint32_t dims[] = {768, 1000, 4095, 65535, 65536};
    uint64_t random = 2;
    for (size_t e = 0; e < 5; e++)
        for (size_t d = 0; d < IQ_COUNT_OF(dims); d++)
            for (int kind = 0; kind < 4; kind++) CHECK(sums_match(elements[e], dims[d], 1, 2, 0, &random, kind));
}

/* Rows that differ in `bound` bits at most, for bounds of every kind; the list has room for all, and no more is written. */
static void near_rows_are_those_within_the_bound(void) {
    const iq_kernel *kernels[MODEL_KERNELS_MAX];
    const int kernel_count = model_kernels(kernels);
    uint64_t random = 4;
    static uint8_t query[512], rows[100 * 512];
    uint32_t near[101];
    for (int round = 0; round < (int)support_amount(300, 3000, 3000); round++) {
        const uint32_t dim = round % 3 == 0 ? 64 : 1 + (uint32_t)support_random_below(&random, 300);
        const size_t stride = iq_element_stride(IQDB_ELEMENT_BIT, dim), count = support_random_below(&random, 100);
        fill_row(IQDB_ELEMENT_BIT, query, dim, &random, 0);
        for (size_t i = 0; i < count; i++) {
            fill_row(IQDB_ELEMENT_BIT, rows + i * stride * 4, dim, &random, 0);
            for (size_t j = 0; j < 4 * stride && i % 3 == 0; j++) /* with half of the query's bits for sure */
                rows[i * stride * 4 + j] = (uint8_t)((rows[i * stride * 4 + j] & 0x0F) | (query[j] & 0xF0));
        }
        float bound = (float)support_random_below(&random, dim + 2);
        if (round % 7 == 0) bound -= 0.5f;
        if (round % 11 == 0) bound = -1.0f;
        if (round % 13 == 0) bound = iq_f32_from_bits(0x7F800000u);
        for (int k = 0; k < kernel_count; k++) {
            size_t expected = 0;
            near[count] = 77;
            const size_t found = iq_kernel_of(kernels[k], IQDB_ELEMENT_BIT)
                                     ->within((const float *)(const void *)query, (const float *)(const void *)rows,
                                              stride, count, bound, near);
            CHECK(found <= count && near[count] == 77);
            for (size_t i = 0; i < count; i++) {
                if (element_sum(IQDB_ELEMENT_BIT, query, rows + i * stride * 4, dim, IQ_SUM_ABSOLUTES) > bound)
                    continue;
                CHECK(expected < found && near[expected] == i);
                expected++;
            }
            CHECK_EQ_U64(found, expected);
        }
    }
}

/* Where a sum is beyond f32, score and norm are those of the numbers in double. */
static void what_is_too_large_is_done_again(void) {
    const iq_kernel *kernels[MODEL_KERNELS_MAX];
    const int kernel_count = model_kernels(kernels);
    uint64_t random = 3;
    static uint8_t a[256], b[256];
    for (int round = 0; round < 200; round++) {
        const uint32_t dim = 1 + (uint32_t)support_random_below(&random, 100);
        const size_t stride = iq_element_stride(IQDB_ELEMENT_BF16, dim);
        double square = 0;
        float x[100], y[100];
        fill_row(IQDB_ELEMENT_BF16, a, dim, &random, 3);
        fill_row(IQDB_ELEMENT_BF16, b, dim, &random, 3);
        for (uint32_t i = 0; i < dim; i++) {
            x[i] = number(IQDB_ELEMENT_BF16, a, i);
            y[i] = number(IQDB_ELEMENT_BF16, b, i);
            square += (double)x[i] * (double)x[i];
        }
        for (int k = 0; k < kernel_count; k++) {
            const iq_kernel *kernel = iq_kernel_of(kernels[k], IQDB_ELEMENT_BF16);
            const float *p = (const float *)(const void *)a, *q = (const float *)(const void *)b;
            const float norm_a = iq_row_norm_of(kernel, IQDB_ELEMENT_BF16, p, stride);
            const float norm_b = iq_row_norm_of(kernel, IQDB_ELEMENT_BF16, q, stride);
            CHECK_EQ_F32(norm_a, iq_vector_norm_of(kernels[k], x, dim));
            if (square < 1e76) CHECK(fabs((double)norm_a - sqrt(square)) <= sqrt(square) * 1e-6);
            for (int metric = IQDB_L2; metric <= IQDB_L1; metric++) {
                const iq_sum_kind kind = iq_score_sum_kind((iqdb_metric)metric);
                CHECK_EQ_F32(iq_score_finish((iqdb_metric)metric, kernel->pair(p, q, stride, kind), norm_a, norm_b,
                                             IQDB_ELEMENT_BF16, p, q, dim),
                             iq_score_finish((iqdb_metric)metric, kernels[k]->pair(x, y, dim, kind), norm_a, norm_b,
                                             IQDB_ELEMENT_F32, x, y, dim));
            }
        }
    }
}

TEST_MAIN("kernel/elements", TEST(halves_become_what_they_are), TEST(strides_and_sizes),
          TEST(bits_behind_the_last_one_are_seen), TEST(what_is_not_finite_is_seen), TEST(sums_at_every_dim),
          TEST(sums_of_the_longest), TEST(near_rows_are_those_within_the_bound), TEST(what_is_too_large_is_done_again))
