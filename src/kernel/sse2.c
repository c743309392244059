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

IQ_INLINE __m128 iq_sse2_term(__m128 lanes, const float *a, const float *b, bool squares) {
    const __m128 x = _mm_loadu_ps(a), y = _mm_loadu_ps(b), difference = _mm_sub_ps(x, y);
    __m128 term = squares ? _mm_mul_ps(difference, difference) : _mm_mul_ps(x, y);
    IQ_STRICT_VECTOR(term);
    return _mm_add_ps(lanes, term);
}

IQ_INLINE void iq_sse2_half_step(iq_sse2_lanes *lanes, const float *a, const float *b, bool squares) {
    lanes->r0 = iq_sse2_term(lanes->r0, a, b, squares);
    lanes->r1 = iq_sse2_term(lanes->r1, a + 4, b + 4, squares);
    lanes->r2 = iq_sse2_term(lanes->r2, a + 8, b + 8, squares);
    lanes->r3 = iq_sse2_term(lanes->r3, a + 12, b + 12, squares);
    IQ_STRICT_VECTORS(lanes->r0, lanes->r1, lanes->r2, lanes->r3);
}

IQ_INLINE void iq_sse2_step(iq_sse2_lanes *lanes, const float *a, const float *b, bool squares) {
    iq_sse2_half_step(lanes, a, b, squares);
    lanes->r4 = iq_sse2_term(lanes->r4, a + 16, b + 16, squares);
    lanes->r5 = iq_sse2_term(lanes->r5, a + 20, b + 20, squares);
    lanes->r6 = iq_sse2_term(lanes->r6, a + 24, b + 24, squares);
    lanes->r7 = iq_sse2_term(lanes->r7, a + 28, b + 28, squares);
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

IQ_INLINE float iq_sse2_pair(const float *a, const float *b, size_t dim, bool squares) {
    iq_sse2_lanes lanes = iq_sse2_zero();
    size_t i = 0;
    for (; i + IQ_KERNEL_LANES <= dim; i += IQ_KERNEL_LANES) iq_sse2_step(&lanes, a + i, b + i, squares);
    if (dim - i == IQ_ROW_FLOATS) {
        iq_sse2_half_step(&lanes, a + i, b + i, squares);
    } else if (i < dim) {
        float tail_a[IQ_KERNEL_LANES], tail_b[IQ_KERNEL_LANES];
        memset(tail_a, 0, sizeof tail_a);
        memset(tail_b, 0, sizeof tail_b);
        memcpy(tail_a, a + i, (dim - i) * sizeof(float));
        memcpy(tail_b, b + i, (dim - i) * sizeof(float));
        iq_sse2_step(&lanes, tail_a, tail_b, squares);
    }
    return iq_sse2_sum(&lanes);
}

IQ_INLINE void iq_sse2_scan(const float *query, const float *rows, size_t stride, size_t count, float *out_sums,
                            bool squares) {
    for (size_t row = 0; row < count; row++, rows += stride) {
        iq_sse2_lanes lanes = iq_sse2_zero();
        size_t i = 0;
        for (; i + IQ_KERNEL_LANES <= stride; i += IQ_KERNEL_LANES) {
            iq_kernel_prefetch(rows + i, IQ_SSE2_AHEAD);
            iq_kernel_prefetch(rows + i, IQ_SSE2_AHEAD + 64);
            iq_sse2_step(&lanes, query + i, rows + i, squares);
        }
        if (i < stride) iq_sse2_half_step(&lanes, query + i, rows + i, squares);
        out_sums[row] = iq_sse2_sum(&lanes);
    }
}

static float iq_sse2_dot(const float *a, const float *b, size_t dim) {
    return iq_sse2_pair(a, b, dim, false);
}

static float iq_sse2_l2_squared(const float *a, const float *b, size_t dim) {
    return iq_sse2_pair(a, b, dim, true);
}

static void iq_sse2_scan_dot(const float *query, const float *rows, size_t stride, size_t count, float *out_sums) {
    iq_sse2_scan(query, rows, stride, count, out_sums, false);
}

static void iq_sse2_scan_l2_squared(const float *query, const float *rows, size_t stride, size_t count,
                                    float *out_sums) {
    iq_sse2_scan(query, rows, stride, count, out_sums, true);
}

IQ_FN const iq_kernel *iq_kernel_sse2(void) {
    static const iq_kernel kernel = {"sse2", iq_sse2_dot, iq_sse2_l2_squared, iq_sse2_scan_dot,
                                     iq_sse2_scan_l2_squared};
    return &kernel;
}

#endif
