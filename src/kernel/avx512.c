/* The canonical order in two AVX-512 registers of sixteen lanes.
 *
 * 1. Register r holds lanes 16r .. 16r + 15. Products and lanes pass through IQ_STRICT_VECTOR, so that neither -mfma
 *    nor -ffast-math can fuse or reorder them.
 * 2. Nothing outside a[0, dim) and b[0, dim) is read: tails are masked loads.
 * 3. The foundation, AVX-512F, is all that is used. Halves are taken with maskz intrinsics, whose mask costs nothing:
 *    the plain ones, and _mm512_reduce_add_ps, make g++ 12 warn about variables inside its own header.
 * 4. A sift has none of this: its sums only bound others. */
#include "kernel/kernel.h"
#include "kernel/strict.h"

#if IQ_X86

/* A test brings both, to emulate the instructions where the machine has none. */
#if !defined(IQ_AVX512)
#include <immintrin.h>
/* clang 18 to 21 want 512-bit registers named apart where the program is built without them; clang 22 forgot the
 * name again. */
#if defined(__clang__) && __clang_major__ >= 18 && __clang_major__ <= 21
#define IQ_AVX512 IQ_TARGET("avx512f,evex512")
#else
#define IQ_AVX512 IQ_TARGET("avx512f")
#endif
#endif

#define IQ_AVX512_AHEAD 512 /* bytes that a scan prefetches ahead, as in avx2.c */

typedef struct iq_avx512_lanes {
    __m512 r0, r1;
} iq_avx512_lanes;

IQ_INLINE IQ_AVX512 __m512 iq_avx512_plus(__m512 lanes, __m512 more) {
    lanes = _mm512_add_ps(lanes, more);
    IQ_STRICT_VECTOR(lanes);
    return lanes;
}

IQ_INLINE IQ_AVX512 __m256 iq_avx512_plus_half(__m256 lanes, __m256 more) {
    lanes = _mm256_add_ps(lanes, more);
    IQ_STRICT_VECTOR(lanes);
    return lanes;
}

IQ_INLINE IQ_AVX512 __m128 iq_avx512_plus_quarter(__m128 lanes, __m128 more) {
    lanes = _mm_add_ps(lanes, more);
    IQ_STRICT_VECTOR(lanes);
    return lanes;
}

IQ_INLINE IQ_AVX512 __m512 iq_avx512_term(__m512 lanes, __m512 x, __m512 y, iq_sum_kind kind) {
    const __m512 difference = _mm512_sub_ps(x, y);
#if IQ_FAST_FP
    if (kind == IQ_SUM_PRODUCTS) return _mm512_fmadd_ps(x, y, lanes);
    if (kind == IQ_SUM_SQUARES) return _mm512_fmadd_ps(difference, difference, lanes);
#endif
    __m512 term = kind == IQ_SUM_PRODUCTS  ? _mm512_mul_ps(x, y)
                  : kind == IQ_SUM_SQUARES ? _mm512_mul_ps(difference, difference)
                                           : _mm512_abs_ps(difference);
    IQ_STRICT_VECTOR(term);
    return iq_avx512_plus(lanes, term);
}

IQ_INLINE IQ_AVX512 iq_avx512_lanes iq_avx512_zero(void) {
    iq_avx512_lanes lanes;
    lanes.r0 = lanes.r1 = _mm512_setzero_ps();
    return lanes;
}

/* lanes[j] + lanes[j + 8]. */
IQ_INLINE IQ_AVX512 __m256 iq_avx512_fold(__m512 lanes) {
    const __m256d lower = _mm512_maskz_extractf64x4_pd(0xFF, _mm512_castps_pd(lanes), 0);
    const __m256d upper = _mm512_maskz_extractf64x4_pd(0xFF, _mm512_castps_pd(lanes), 1);
    return iq_avx512_plus_half(_mm256_castpd_ps(lower), _mm256_castpd_ps(upper));
}

/* The fixed tree: 16, then 8, 4, 2 and 1 inside the register. */
IQ_INLINE IQ_AVX512 float iq_avx512_sum(const iq_avx512_lanes *lanes) {
    const __m256 s8 = iq_avx512_fold(iq_avx512_plus(lanes->r0, lanes->r1));
    __m128 s = iq_avx512_plus_quarter(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    s = iq_avx512_plus_quarter(s, _mm_movehl_ps(s, s));
    s = iq_avx512_plus_quarter(s, _mm_shuffle_ps(s, s, 1));
    return _mm_cvtss_f32(s);
}

IQ_INLINE IQ_AVX512 void iq_avx512_step(iq_avx512_lanes *lanes, const float *a, const float *b, iq_sum_kind kind) {
    lanes->r0 = iq_avx512_term(lanes->r0, _mm512_loadu_ps(a), _mm512_loadu_ps(b), kind);
    lanes->r1 = iq_avx512_term(lanes->r1, _mm512_loadu_ps(a + 16), _mm512_loadu_ps(b + 16), kind);
}

/* The first `count` < 16 floats at p, then zeros. */
IQ_INLINE IQ_AVX512 __m512 iq_avx512_load(const float *p, size_t count) {
    return _mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1u), p);
}

IQ_INLINE IQ_AVX512 float iq_avx512_pair(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    iq_avx512_lanes lanes = iq_avx512_zero();
    size_t rest = dim;
    for (; rest >= IQ_KERNEL_LANES; rest -= IQ_KERNEL_LANES, a += IQ_KERNEL_LANES, b += IQ_KERNEL_LANES)
        iq_avx512_step(&lanes, a, b, kind);
    if (rest >= 16) {
        lanes.r0 = iq_avx512_term(lanes.r0, _mm512_loadu_ps(a), _mm512_loadu_ps(b), kind);
        lanes.r1 = iq_avx512_term(lanes.r1, iq_avx512_load(a + 16, rest - 16), iq_avx512_load(b + 16, rest - 16), kind);
    } else {
        lanes.r0 = iq_avx512_term(lanes.r0, iq_avx512_load(a, rest), iq_avx512_load(b, rest), kind);
    }
    return iq_avx512_sum(&lanes);
}

IQ_INLINE IQ_AVX512 void iq_avx512_stream(const float *query, const float *rows, size_t stride, size_t count,
                                          float *out_sums, iq_sum_kind kind) {
    for (size_t row = 0; row < count; row++, rows += stride) {
        iq_avx512_lanes lanes = iq_avx512_zero();
        size_t i = 0;
        for (; i + IQ_KERNEL_LANES <= stride; i += IQ_KERNEL_LANES) {
            iq_kernel_prefetch(rows + i, IQ_AVX512_AHEAD);
            iq_kernel_prefetch(rows + i, IQ_AVX512_AHEAD + 64);
            iq_avx512_step(&lanes, query + i, rows + i, kind);
        }
        if (i < stride)
            lanes.r0 = iq_avx512_term(lanes.r0, _mm512_loadu_ps(query + i), _mm512_loadu_ps(rows + i), kind);
        out_sums[row] = iq_avx512_sum(&lanes);
    }
}

/* One register of a query with three rows. */
IQ_INLINE IQ_AVX512 void iq_avx512_terms(__m512 *lanes_0, __m512 *lanes_1, __m512 *lanes_2, const float *query,
                                         const float *rows, size_t stride, iq_sum_kind kind) {
    const __m512 x = _mm512_loadu_ps(query);
    *lanes_0 = iq_avx512_term(*lanes_0, x, _mm512_loadu_ps(rows), kind);
    *lanes_1 = iq_avx512_term(*lanes_1, x, _mm512_loadu_ps(rows + stride), kind);
    *lanes_2 = iq_avx512_term(*lanes_2, x, _mm512_loadu_ps(rows + 2 * stride), kind);
}

/* One query against IQ_TILE_ROWS rows: six registers of lanes are as many sums as the units can have under way. */
IQ_INLINE IQ_AVX512 void iq_avx512_tile(const float *query, const float *rows, size_t stride, float *out_sums,
                                        iq_sum_kind kind) {
    iq_avx512_lanes a = iq_avx512_zero(), b = iq_avx512_zero(), c = iq_avx512_zero();
    for (size_t i = 0; i < stride; i += IQ_KERNEL_LANES, query += IQ_KERNEL_LANES, rows += IQ_KERNEL_LANES) {
        iq_avx512_terms(&a.r0, &b.r0, &c.r0, query, rows, stride, kind);
        if (stride - i == IQ_ROW_FLOATS) break;
        iq_avx512_terms(&a.r1, &b.r1, &c.r1, query + 16, rows + 16, stride, kind);
    }
    out_sums[0] = iq_avx512_sum(&a);
    out_sums[1] = iq_avx512_sum(&b);
    out_sums[2] = iq_avx512_sum(&c);
}

IQ_INLINE IQ_AVX512 void iq_avx512_scan(const float *queries, size_t query_count, const float *rows, size_t stride,
                                        size_t row_count, float *out_sums, iq_sum_kind kind) {
    const size_t size = IQ_TILE_ROWS * stride * sizeof(float), share = iq_kernel_tile_share(size, query_count);
    size_t row = 0;
    for (; query_count > 1 && row + IQ_TILE_ROWS <= row_count; row += IQ_TILE_ROWS, rows += IQ_TILE_ROWS * stride) {
        for (size_t q = 0; q < query_count; q++) {
            iq_kernel_prefetch_share(rows, size, q, share);
            iq_avx512_tile(queries + q * stride, rows, stride, out_sums + q * row_count + row, kind);
        }
    }
    for (size_t q = 0; q < query_count && row < row_count; q++)
        iq_avx512_stream(queries + q * stride, rows, stride, row_count - row, out_sums + q * row_count + row, kind);
}

/* ---- sifting ---- */

/* One row with four queries. */
typedef struct iq_avx512_quad {
    __m512 a, b, c, d;
} iq_avx512_quad;

/* Which of the four products are not below their bounds: four bits. */
IQ_INLINE IQ_AVX512 uint32_t iq_avx512_keep(const iq_avx512_quad *row, const iq_sift_bounds *bounds, size_t r) {
    const __m256 ab = _mm256_hadd_ps(iq_avx512_fold(row->a), iq_avx512_fold(row->b));
    const __m256 halves = _mm256_hadd_ps(ab, _mm256_hadd_ps(iq_avx512_fold(row->c), iq_avx512_fold(row->d)));
    const __m128 sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
    const __m128 fixed = _mm_add_ps(_mm_loadu_ps(bounds->offsets), _mm_set1_ps(bounds->terms[r]));
    const __m128 slope = _mm_mul_ps(_mm_loadu_ps(bounds->slopes), _mm_set1_ps(bounds->norms[r]));
    return (uint32_t)_mm_movemask_ps(_mm_cmpnlt_ps(sums, _mm_add_ps(fixed, slope)));
}

/* One register of a query with those of three rows. */
IQ_INLINE IQ_AVX512 void iq_avx512_fuse(__m512 *x, __m512 *y, __m512 *z, const float *query, __m512 row_x, __m512 row_y,
                                        __m512 row_z) {
    const __m512 v = _mm512_loadu_ps(query);
    *x = _mm512_fmadd_ps(v, row_x, *x);
    *y = _mm512_fmadd_ps(v, row_y, *y);
    *z = _mm512_fmadd_ps(v, row_z, *z);
}

static IQ_AVX512 void iq_avx512_sift(const float *queries, const float *rows, size_t stride, size_t row_count,
                                     const iq_sift_bounds *bounds, uint32_t *out_masks) {
    for (size_t next = 0; next < row_count; next += IQ_TILE_ROWS) {
        /* The rest is a tile that overlaps another. */
        const size_t r = next + IQ_TILE_ROWS <= row_count ? next : row_count - IQ_TILE_ROWS;
        const float *query = queries, *row = rows + r * stride;
        iq_avx512_quad x, y, z;
        x.a = x.b = x.c = x.d = y.a = y.b = y.c = y.d = z.a = z.b = z.c = z.d = _mm512_setzero_ps();
        for (size_t i = 0; i < stride; i += 16, query += 16, row += 16) {
            const __m512 row_x = _mm512_loadu_ps(row), row_y = _mm512_loadu_ps(row + stride);
            const __m512 row_z = _mm512_loadu_ps(row + 2 * stride);
            iq_avx512_fuse(&x.a, &y.a, &z.a, query, row_x, row_y, row_z);
            iq_avx512_fuse(&x.b, &y.b, &z.b, query + stride, row_x, row_y, row_z);
            iq_avx512_fuse(&x.c, &y.c, &z.c, query + 2 * stride, row_x, row_y, row_z);
            iq_avx512_fuse(&x.d, &y.d, &z.d, query + 3 * stride, row_x, row_y, row_z);
        }
        out_masks[r] = iq_avx512_keep(&x, bounds, r);
        out_masks[r + 1] = iq_avx512_keep(&y, bounds, r + 1);
        out_masks[r + 2] = iq_avx512_keep(&z, bounds, r + 2);
    }
}

static IQ_AVX512 float iq_avx512_pair_of(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS) return iq_avx512_pair(a, b, dim, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) return iq_avx512_pair(a, b, dim, IQ_SUM_SQUARES);
    return iq_avx512_pair(a, b, dim, IQ_SUM_ABSOLUTES);
}

static IQ_AVX512 void iq_avx512_scan_of(const float *queries, size_t query_count, const float *rows, size_t stride,
                                        size_t row_count, float *out_sums, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS)
        iq_avx512_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) iq_avx512_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_SQUARES);
    if (kind == IQ_SUM_ABSOLUTES)
        iq_avx512_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_ABSOLUTES);
}

IQ_FN const iq_kernel *iq_kernel_avx512(void) {
    static const iq_kernel kernel = {"avx512", iq_avx512_pair_of, iq_avx512_scan_of, iq_avx512_sift};
    return &kernel;
}

#endif
