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

IQ_INLINE float iq_scalar_sum(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
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
    iq_scalar_fold(lanes, 16); /* constants, because they become straight code */
    IQ_STRICT_MEMORY(lanes);
    iq_scalar_fold(lanes, 8);
    IQ_STRICT_MEMORY(lanes);
    iq_scalar_fold(lanes, 4);
    IQ_STRICT_MEMORY(lanes);
    iq_scalar_fold(lanes, 2);
    IQ_STRICT_MEMORY(lanes);
    return iq_strict_f32(lanes[0] + lanes[1]);
}

static float iq_scalar_pair_of(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS) return iq_scalar_sum(a, b, dim, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) return iq_scalar_sum(a, b, dim, IQ_SUM_SQUARES);
    return iq_scalar_sum(a, b, dim, IQ_SUM_ABSOLUTES);
}

/* A row at a time, because one is read from memory in less time than it is summed up. */
IQ_INLINE void iq_scalar_scan(const float *queries, size_t query_count, const float *rows, size_t stride,
                              size_t row_count, float *out_sums, iq_sum_kind kind) {
    for (size_t row = 0; row < row_count; row++)
        for (size_t q = 0; q < query_count; q++)
            out_sums[q * row_count + row] = iq_scalar_sum(queries + q * stride, rows + row * stride, stride, kind);
}

static void iq_scalar_scan_of(const float *queries, size_t query_count, const float *rows, size_t stride,
                              size_t row_count, float *out_sums, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS)
        iq_scalar_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) iq_scalar_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_SQUARES);
    if (kind == IQ_SUM_ABSOLUTES)
        iq_scalar_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_ABSOLUTES);
}

IQ_FN const iq_kernel *iq_kernel_scalar(void) {
    static const iq_kernel kernel = {"scalar", iq_scalar_pair_of, iq_scalar_scan_of, NULL};
    return &kernel;
}
