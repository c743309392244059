/* The canonical order in plain C: the kernel of every machine without one of its own, and the model for the others.
 *
 * 1. Lanes and terms live in arrays that IQ_STRICT_MEMORY guards after each operation: nothing is fused, reordered or
 *    kept wider, and each loop over an array may still become vector instructions.
 * 2. Nothing outside a[0, dim) and b[0, dim) is read. */
#include "kernel/kernel.h"
#include "kernel/strict.h"

/* lanes[j] += the term of element j, for j < count <= IQ_KERNEL_LANES. */
IQ_INLINE void iq_scalar_step(float *lanes, const float *a, const float *b, size_t count, iq_sum_kind kind) {
    float terms[IQ_KERNEL_LANES];
    for (size_t j = 0; j < count; j++) terms[j] = kind == IQ_SUM_PRODUCTS ? a[j] * b[j] : a[j] - b[j];
    IQ_STRICT_MEMORY(terms);
    if (kind == IQ_SUM_ABSOLUTES)
        for (size_t j = 0; j < count; j++) terms[j] = iq_f32_from_bits(iq_f32_bits(terms[j]) & 0x7FFFFFFFu);
    if (kind == IQ_SUM_SQUARES) {
        for (size_t j = 0; j < count; j++) terms[j] *= terms[j];
        IQ_STRICT_MEMORY(terms);
    }
    for (size_t j = 0; j < count; j++) lanes[j] += terms[j];
}

IQ_INLINE void iq_scalar_fold(float *lanes, size_t half) {
    for (size_t j = 0; j < half; j++) lanes[j] += lanes[j + half];
}

/* The sum of all lanes by the fixed tree. */
IQ_INLINE float iq_scalar_total(float (*all)[IQ_KERNEL_LANES]) {
    iq_scalar_fold(*all, 16); /* constants, because they become straight code */
    IQ_STRICT_MEMORY(*all);
    iq_scalar_fold(*all, 8);
    IQ_STRICT_MEMORY(*all);
    iq_scalar_fold(*all, 4);
    IQ_STRICT_MEMORY(*all);
    iq_scalar_fold(*all, 2);
    IQ_STRICT_MEMORY(*all);
    return iq_strict_f32((*all)[0] + (*all)[1]);
}

IQ_INLINE float iq_scalar_pair(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    float lanes[IQ_KERNEL_LANES];
    size_t i = 0;
    memset(lanes, 0, sizeof lanes);
    for (; i + IQ_KERNEL_LANES <= dim; i += IQ_KERNEL_LANES) {
        iq_scalar_step(lanes, a + i, b + i, IQ_KERNEL_LANES, kind);
        IQ_STRICT_MEMORY(lanes);
    }
    if (dim - i == IQ_ROW_FLOATS)
        iq_scalar_step(lanes, a + i, b + i, IQ_ROW_FLOATS, kind);
    else
        iq_scalar_step(lanes, a + i, b + i, dim - i, kind);
    IQ_STRICT_MEMORY(lanes);
    return iq_scalar_total(&lanes);
}

/* A scan by calls of the sum of a pair: without a copy of that for each kind it is less code, and no slower. */
static float iq_scalar_pair_of(const float *a, const float *b, size_t dim, iq_sum_kind kind);
IQ_INLINE void iq_scalar_scan(const float *queries, size_t query_count, const float *rows, size_t stride,
                              size_t row_count, float *out_sums, iq_sum_kind kind) {
    for (size_t row = 0; row < row_count; row++)
        for (size_t q = 0; q < query_count; q++)
            out_sums[q * row_count + row] = iq_scalar_pair_of(queries + q * stride, rows + row * stride, stride, kind);
}
IQ_DEFINE_KERNEL(iq_scalar, , iq_kernel_scalar, "scalar", IQDB_SIMD_SCALAR, iq_elements_scalar)

/* ---- Other elements than f32 ---- */

IQ_INLINE float iq_scalar_halves(iqdb_element element, const float *a, const float *b, size_t words, iq_sum_kind kind) {
    float lanes[IQ_KERNEL_LANES], x[IQ_KERNEL_LANES], y[IQ_KERNEL_LANES];
    memset(lanes, 0, sizeof lanes);
    for (size_t i = 0; i < words; i += IQ_KERNEL_LANES / 2) {
        iq_element_to_f32(element, a + i, IQ_KERNEL_LANES, x);
        iq_element_to_f32(element, b + i, IQ_KERNEL_LANES, y);
        iq_scalar_step(lanes, x, y, IQ_KERNEL_LANES, kind);
        IQ_STRICT_MEMORY(lanes);
    }
    return iq_scalar_total(&lanes);
}

IQ_INLINE float iq_scalar_bytes(bool is_signed, const float *a, const float *b, size_t words, iq_sum_kind kind) {
    const uint8_t *x = (const uint8_t *)(const void *)a, *y = (const uint8_t *)(const void *)b;
    const int32_t sign = is_signed ? 128 : 0;
    uint32_t sum = 0;
    for (size_t i = 0; i < 4 * words; i++) {
        const int32_t p = (x[i] ^ sign) - sign, q = (y[i] ^ sign) - sign, difference = p - q;
        const int32_t term = kind == IQ_SUM_PRODUCTS  ? p * q
                             : kind == IQ_SUM_SQUARES ? difference * difference
                             : difference < 0         ? -difference
                                                      : difference;
        sum += (uint32_t)term;
    }
    return iq_strict_f32(iq_kernel_whole(sum, is_signed && kind == IQ_SUM_PRODUCTS));
}

IQ_INLINE int32_t iq_scalar_bits(const float *a, const float *b, size_t words, bool both) {
    uint32_t sum = 0;
    for (size_t i = 0; i < words; i++) {
        uint32_t x, y;
        memcpy(&x, a + i, sizeof x);
        memcpy(&y, b + i, sizeof y);
        x = both ? x & y : x ^ y;
        x -= x >> 1 & 0x55555555u; /* the numbers of bits of pairs, of fours, of bytes */
        x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
        x = (x + (x >> 4)) & 0x0F0F0F0Fu;
        sum += x * 0x01010101u >> 24;
    }
    return (int32_t)sum;
}

IQ_INLINE float iq_scalar_sum(iqdb_element element, const float *a, const float *b, size_t words, iq_sum_kind kind) {
    if (element <= IQDB_ELEMENT_BF16) return iq_scalar_halves(element, a, b, words, kind);
    if (element == IQDB_ELEMENT_BIT) return (float)iq_scalar_bits(a, b, words, kind == IQ_SUM_PRODUCTS);
    return iq_scalar_bytes(element == IQDB_ELEMENT_I8, a, b, words, kind);
}

#define IQ_DEFINE_SCALAR(set, element) \
    IQ_INLINE float set##_pair(const float *a, const float *b, size_t words, iq_sum_kind kind) { \
        return iq_scalar_sum(element, a, b, words, kind); \
    } \
    IQ_DEFINE_ROWS(set, ) \
    IQ_DEFINE_SUMS(set, )

IQ_DEFINE_SCALAR(iq_scalar_f16, IQDB_ELEMENT_F16)
IQ_DEFINE_SCALAR(iq_scalar_bf16, IQDB_ELEMENT_BF16)
IQ_DEFINE_SCALAR(iq_scalar_i8, IQDB_ELEMENT_I8)
IQ_DEFINE_SCALAR(iq_scalar_u8, IQDB_ELEMENT_U8)
IQ_DEFINE_SCALAR(iq_scalar_bit, IQDB_ELEMENT_BIT)
IQ_INLINE int32_t iq_scalar_bit_count(const float *a, const float *b, size_t words) {
    return iq_scalar_bits(a, b, words, false);
}
IQ_DEFINE_NEAR_ROWS(iq_scalar_bit, )
IQ_INLINE size_t iq_scalar_bit_near_words(const float *query, const float *rows, size_t row_count, int32_t limit,
                                          uint32_t *out_rows) {
    return iq_scalar_bit_near_of(query, rows, 2, row_count, limit, out_rows);
}
IQ_DEFINE_NEAR(iq_scalar_bit, )

IQ_FN const iq_kernel *iq_elements_scalar(iqdb_element element) {
    static const iq_kernel kernels[] = {
        IQ_KERNEL_ENTRY("scalar", IQDB_SIMD_SCALAR, iq_scalar_f16, NULL),
        IQ_KERNEL_ENTRY("scalar", IQDB_SIMD_SCALAR, iq_scalar_bf16, NULL),
        IQ_KERNEL_ENTRY("scalar", IQDB_SIMD_SCALAR, iq_scalar_i8, NULL),
        IQ_KERNEL_ENTRY("scalar", IQDB_SIMD_SCALAR, iq_scalar_u8, NULL),
        IQ_KERNEL_ENTRY("scalar", IQDB_SIMD_SCALAR, iq_scalar_bit, IQ_SCANS ? iq_scalar_bit_near : NULL)};
    return &kernels[element - 1];
}
