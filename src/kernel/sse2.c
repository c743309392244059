/* The canonical order in eight SSE2 registers of four lanes.
 *
 * 1. Register r holds lanes 4r .. 4r + 3. Products and lanes pass through IQ_STRICT_VECTOR, so that neither -mfma nor
 *    -ffast-math can fuse or reorder them.
 * 2. Nothing outside a[0, dim) and b[0, dim) is read: a tail is copied between zeros first. */
#include "kernel/kernel.h"
#include "kernel/strict.h"

#if IQ_X86

#include <immintrin.h>

#define IQ_SSE2_AHEAD 512 /* bytes that a scan prefetches ahead, as in avx2.c */

typedef struct iq_sse2_lanes {
    __m128 r0, r1, r2, r3, r4, r5, r6, r7;
} iq_sse2_lanes;

IQ_INLINE __m128 iq_sse2_plus(__m128 lanes, __m128 more) {
    lanes = _mm_add_ps(lanes, more);
    IQ_STRICT_VECTOR(lanes);
    return lanes;
}

IQ_INLINE __m128 iq_sse2_absolute(__m128 v) {
    return _mm_and_ps(v, _mm_castsi128_ps(_mm_set1_epi32(0x7FFFFFFF)));
}

IQ_INLINE __m128 iq_sse2_term(__m128 lanes, const float *a, const float *b, iq_sum_kind kind) {
    const __m128 x = _mm_loadu_ps(a), y = _mm_loadu_ps(b), difference = _mm_sub_ps(x, y);
    __m128 term = kind == IQ_SUM_PRODUCTS  ? _mm_mul_ps(x, y)
                  : kind == IQ_SUM_SQUARES ? _mm_mul_ps(difference, difference)
                                           : iq_sse2_absolute(difference);
    IQ_STRICT_VECTOR(term);
    return _mm_add_ps(lanes, term);
}

IQ_INLINE void iq_sse2_half_step(iq_sse2_lanes *lanes, const float *a, const float *b, iq_sum_kind kind) {
    lanes->r0 = iq_sse2_term(lanes->r0, a, b, kind);
    lanes->r1 = iq_sse2_term(lanes->r1, a + 4, b + 4, kind);
    lanes->r2 = iq_sse2_term(lanes->r2, a + 8, b + 8, kind);
    lanes->r3 = iq_sse2_term(lanes->r3, a + 12, b + 12, kind);
    IQ_STRICT_VECTORS(lanes->r0, lanes->r1, lanes->r2, lanes->r3);
}

IQ_INLINE void iq_sse2_step(iq_sse2_lanes *lanes, const float *a, const float *b, iq_sum_kind kind) {
    iq_sse2_half_step(lanes, a, b, kind);
    lanes->r4 = iq_sse2_term(lanes->r4, a + 16, b + 16, kind);
    lanes->r5 = iq_sse2_term(lanes->r5, a + 20, b + 20, kind);
    lanes->r6 = iq_sse2_term(lanes->r6, a + 24, b + 24, kind);
    lanes->r7 = iq_sse2_term(lanes->r7, a + 28, b + 28, kind);
    IQ_STRICT_VECTORS(lanes->r4, lanes->r5, lanes->r6, lanes->r7);
}

IQ_INLINE iq_sse2_lanes iq_sse2_zero(void) {
    iq_sse2_lanes lanes;
    lanes.r0 = lanes.r1 = lanes.r2 = lanes.r3 = _mm_setzero_ps();
    lanes.r4 = lanes.r5 = lanes.r6 = lanes.r7 = _mm_setzero_ps();
    return lanes;
}

/* The fixed tree: 16, 8, 4, then 2 and 1 inside the register. */
IQ_INLINE float iq_sse2_sum(const iq_sse2_lanes *lanes) {
    const __m128 s0 = iq_sse2_plus(lanes->r0, lanes->r4), s1 = iq_sse2_plus(lanes->r1, lanes->r5);
    const __m128 s2 = iq_sse2_plus(lanes->r2, lanes->r6), s3 = iq_sse2_plus(lanes->r3, lanes->r7);
    __m128 s = iq_sse2_plus(iq_sse2_plus(s0, s2), iq_sse2_plus(s1, s3));
    s = iq_sse2_plus(s, _mm_movehl_ps(s, s));
    s = iq_sse2_plus(s, _mm_shuffle_ps(s, s, 1));
    return _mm_cvtss_f32(s);
}

IQ_INLINE float iq_sse2_pair(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    iq_sse2_lanes lanes = iq_sse2_zero();
    size_t i = 0;
    for (; i + IQ_KERNEL_LANES <= dim; i += IQ_KERNEL_LANES) iq_sse2_step(&lanes, a + i, b + i, kind);
    if (dim - i == IQ_ROW_FLOATS) {
        iq_sse2_half_step(&lanes, a + i, b + i, kind);
    } else if (i < dim) {
        float tail_a[IQ_KERNEL_LANES], tail_b[IQ_KERNEL_LANES];
        memset(tail_a, 0, sizeof tail_a);
        memset(tail_b, 0, sizeof tail_b);
        memcpy(tail_a, a + i, (dim - i) * sizeof(float));
        memcpy(tail_b, b + i, (dim - i) * sizeof(float));
        iq_sse2_step(&lanes, tail_a, tail_b, kind);
    }
    return iq_sse2_sum(&lanes);
}

IQ_INLINE void iq_sse2_stream(const float *query, const float *rows, size_t stride, size_t count, float *out_sums,
                              iq_sum_kind kind) {
    for (size_t row = 0; row < count; row++, rows += stride) {
        iq_sse2_lanes lanes = iq_sse2_zero();
        size_t i = 0;
        for (; i + IQ_KERNEL_LANES <= stride; i += IQ_KERNEL_LANES) {
            iq_kernel_prefetch(rows + i, IQ_SSE2_AHEAD);
            iq_kernel_prefetch(rows + i, IQ_SSE2_AHEAD + 64);
            iq_sse2_step(&lanes, query + i, rows + i, kind);
        }
        if (i < stride) iq_sse2_half_step(&lanes, query + i, rows + i, kind);
        out_sums[row] = iq_sse2_sum(&lanes);
    }
}

/* One register of a query with three rows. */
IQ_INLINE void iq_sse2_terms(__m128 *lanes_0, __m128 *lanes_1, __m128 *lanes_2, const float *query, const float *rows,
                             size_t stride, iq_sum_kind kind) {
    *lanes_0 = iq_sse2_term(*lanes_0, query, rows, kind);
    *lanes_1 = iq_sse2_term(*lanes_1, query, rows + stride, kind);
    *lanes_2 = iq_sse2_term(*lanes_2, query, rows + 2 * stride, kind);
    IQ_STRICT_VECTOR(*lanes_0);
    IQ_STRICT_VECTOR(*lanes_1);
    IQ_STRICT_VECTOR(*lanes_2);
}

/* One query against IQ_TILE_ROWS rows. Half of the lanes are twelve registers, as many as there is room for: two
 * passes, each over its own cache lines. */
IQ_INLINE void iq_sse2_tile(const float *query, const float *rows, size_t stride, float *out_sums, iq_sum_kind kind) {
    iq_sse2_lanes a = iq_sse2_zero(), b = iq_sse2_zero(), c = iq_sse2_zero();
    for (size_t i = 0; i < stride; i += IQ_KERNEL_LANES) {
        iq_sse2_terms(&a.r0, &b.r0, &c.r0, query + i, rows + i, stride, kind);
        iq_sse2_terms(&a.r1, &b.r1, &c.r1, query + i + 4, rows + i + 4, stride, kind);
        iq_sse2_terms(&a.r2, &b.r2, &c.r2, query + i + 8, rows + i + 8, stride, kind);
        iq_sse2_terms(&a.r3, &b.r3, &c.r3, query + i + 12, rows + i + 12, stride, kind);
    }
    for (size_t i = 16; i < stride; i += IQ_KERNEL_LANES) {
        iq_sse2_terms(&a.r4, &b.r4, &c.r4, query + i, rows + i, stride, kind);
        iq_sse2_terms(&a.r5, &b.r5, &c.r5, query + i + 4, rows + i + 4, stride, kind);
        iq_sse2_terms(&a.r6, &b.r6, &c.r6, query + i + 8, rows + i + 8, stride, kind);
        iq_sse2_terms(&a.r7, &b.r7, &c.r7, query + i + 12, rows + i + 12, stride, kind);
    }
    out_sums[0] = iq_sse2_sum(&a);
    out_sums[1] = iq_sse2_sum(&b);
    out_sums[2] = iq_sse2_sum(&c);
}

IQ_INLINE void iq_sse2_scan(const float *queries, size_t query_count, const float *rows, size_t stride,
                            size_t row_count, float *out_sums, iq_sum_kind kind) {
    const size_t size = IQ_TILE_ROWS * stride * sizeof(float), share = iq_kernel_tile_share(size, query_count);
    size_t row = 0;
    for (; query_count > 1 && row + IQ_TILE_ROWS <= row_count; row += IQ_TILE_ROWS, rows += IQ_TILE_ROWS * stride) {
        for (size_t q = 0; q < query_count; q++) {
            iq_kernel_prefetch_share(rows, size, q, share);
            iq_sse2_tile(queries + q * stride, rows, stride, out_sums + q * row_count + row, kind);
        }
    }
    for (size_t q = 0; q < query_count && row < row_count; q++)
        iq_sse2_stream(queries + q * stride, rows, stride, row_count - row, out_sums + q * row_count + row, kind);
}

static float iq_sse2_pair_of(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS) return iq_sse2_pair(a, b, dim, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) return iq_sse2_pair(a, b, dim, IQ_SUM_SQUARES);
    return iq_sse2_pair(a, b, dim, IQ_SUM_ABSOLUTES);
}

static void iq_sse2_scan_of(const float *queries, size_t query_count, const float *rows, size_t stride,
                            size_t row_count, float *out_sums, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS) iq_sse2_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) iq_sse2_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_SQUARES);
    if (kind == IQ_SUM_ABSOLUTES)
        iq_sse2_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_ABSOLUTES);
}

IQ_FN const iq_kernel *iq_kernel_sse2(void) {
    static const iq_kernel kernel = {"sse2", iq_sse2_pair_of, iq_sse2_scan_of, NULL};
    return &kernel;
}

#endif
