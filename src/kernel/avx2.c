/* The canonical order in four AVX2 registers of eight lanes.
 *
 * 1. Register r holds lanes 8r .. 8r + 7. Products and lanes pass through IQ_STRICT_VECTOR, so that neither -mfma nor
 *    -ffast-math can fuse or reorder them.
 * 2. Nothing outside a[0, dim) and b[0, dim) is read: tails are masked loads.
 * 3. A sift has none of this: its sums only bound others. */
#include "kernel/kernel.h"
#include "kernel/strict.h"

#if IQ_X86

#include <immintrin.h>

#define IQ_AVX2_FMA IQ_TARGET("avx2,fma")
#if IQ_FAST_FP
#define IQ_AVX2 IQ_AVX2_FMA
#else
#define IQ_AVX2 IQ_TARGET("avx2")
#endif
typedef struct iq_avx2_lanes {
    __m256 r0, r1, r2, r3;
} iq_avx2_lanes;

IQ_INLINE IQ_AVX2 __m256 iq_avx2_plus(__m256 lanes, __m256 more) {
    lanes = _mm256_add_ps(lanes, more);
    IQ_STRICT_VECTOR(lanes);
    return lanes;
}

IQ_INLINE IQ_AVX2 __m128 iq_avx2_plus_half(__m128 lanes, __m128 more) {
    lanes = _mm_add_ps(lanes, more);
    IQ_STRICT_VECTOR(lanes);
    return lanes;
}

IQ_INLINE IQ_AVX2 __m256 iq_avx2_absolute(__m256 v) {
    return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF)));
}

IQ_INLINE IQ_AVX2 __m256 iq_avx2_term(__m256 lanes, __m256 x, __m256 y, iq_sum_kind kind) {
    const __m256 difference = _mm256_sub_ps(x, y);
#if IQ_FAST_FP
    if (kind == IQ_SUM_PRODUCTS) return _mm256_fmadd_ps(x, y, lanes);
    if (kind == IQ_SUM_SQUARES) return _mm256_fmadd_ps(difference, difference, lanes);
#endif
    __m256 term = kind == IQ_SUM_PRODUCTS  ? _mm256_mul_ps(x, y)
                  : kind == IQ_SUM_SQUARES ? _mm256_mul_ps(difference, difference)
                                           : iq_avx2_absolute(difference);
    IQ_STRICT_VECTOR(term);
    return _mm256_add_ps(lanes, term);
}

IQ_INLINE IQ_AVX2 iq_avx2_lanes iq_avx2_zero(void) {
    iq_avx2_lanes lanes;
    lanes.r0 = lanes.r1 = lanes.r2 = lanes.r3 = _mm256_setzero_ps();
    return lanes;
}

/* The fixed tree: 16, 8, then 4, 2 and 1 inside the register. */
IQ_INLINE IQ_AVX2 float iq_avx2_sum(const iq_avx2_lanes *lanes) {
    const __m256 s8 = iq_avx2_plus(iq_avx2_plus(lanes->r0, lanes->r2), iq_avx2_plus(lanes->r1, lanes->r3));
    __m128 s = iq_avx2_plus_half(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    s = iq_avx2_plus_half(s, _mm_movehl_ps(s, s));
    s = iq_avx2_plus_half(s, _mm_shuffle_ps(s, s, 1));
    return _mm_cvtss_f32(s);
}

IQ_INLINE IQ_AVX2 void iq_avx2_half_step(iq_avx2_lanes *lanes, const float *a, const float *b, iq_sum_kind kind) {
    lanes->r0 = iq_avx2_term(lanes->r0, _mm256_loadu_ps(a), _mm256_loadu_ps(b), kind);
    lanes->r1 = iq_avx2_term(lanes->r1, _mm256_loadu_ps(a + 8), _mm256_loadu_ps(b + 8), kind);
}

IQ_INLINE IQ_AVX2 void iq_avx2_step(iq_avx2_lanes *lanes, const float *a, const float *b, iq_sum_kind kind) {
    iq_avx2_half_step(lanes, a, b, kind);
    lanes->r2 = iq_avx2_term(lanes->r2, _mm256_loadu_ps(a + 16), _mm256_loadu_ps(b + 16), kind);
    lanes->r3 = iq_avx2_term(lanes->r3, _mm256_loadu_ps(a + 24), _mm256_loadu_ps(b + 24), kind);
    IQ_STRICT_VECTORS(lanes->r0, lanes->r1, lanes->r2, lanes->r3);
}

/* The first `count` floats at p, then zeros. */
IQ_INLINE IQ_AVX2 __m256 iq_avx2_load(const float *p, size_t count) {
    static const int32_t mask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    if (count >= 8) return _mm256_loadu_ps(p);
    return _mm256_maskload_ps(p, _mm256_loadu_si256((const __m256i *)(const void *)(mask + 8 - count)));
}

IQ_INLINE IQ_AVX2 float iq_avx2_pair(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    iq_avx2_lanes lanes = iq_avx2_zero();
    size_t rest = dim;
    for (; rest >= IQ_KERNEL_LANES; rest -= IQ_KERNEL_LANES, a += IQ_KERNEL_LANES, b += IQ_KERNEL_LANES)
        iq_avx2_step(&lanes, a, b, kind);
    if (rest > 0) lanes.r0 = iq_avx2_term(lanes.r0, iq_avx2_load(a, rest), iq_avx2_load(b, rest), kind);
    if (rest > 8) lanes.r1 = iq_avx2_term(lanes.r1, iq_avx2_load(a + 8, rest - 8), iq_avx2_load(b + 8, rest - 8), kind);
    if (rest > 16)
        lanes.r2 = iq_avx2_term(lanes.r2, iq_avx2_load(a + 16, rest - 16), iq_avx2_load(b + 16, rest - 16), kind);
    if (rest > 24)
        lanes.r3 = iq_avx2_term(lanes.r3, iq_avx2_load(a + 24, rest - 24), iq_avx2_load(b + 24, rest - 24), kind);
    return iq_avx2_sum(&lanes);
}

/* One register of a query with three rows, `apart` floats from one to the next. */
IQ_INLINE IQ_AVX2 void iq_avx2_terms(__m256 *lanes_0, __m256 *lanes_1, __m256 *lanes_2, const float *query,
                                     const float *rows, size_t apart, iq_sum_kind kind) {
    const __m256 x = _mm256_loadu_ps(query);
    *lanes_0 = iq_avx2_term(*lanes_0, x, _mm256_loadu_ps(rows), kind);
    *lanes_1 = iq_avx2_term(*lanes_1, x, _mm256_loadu_ps(rows + apart), kind);
    *lanes_2 = iq_avx2_term(*lanes_2, x, _mm256_loadu_ps(rows + 2 * apart), kind);
    IQ_STRICT_VECTOR(*lanes_0);
    IQ_STRICT_VECTOR(*lanes_1);
    IQ_STRICT_VECTOR(*lanes_2);
}

/* One query against IQ_TILE_ROWS rows that lie `step` rows apart: twelve registers of lanes, one of the query, one or
 * two for terms. Two queries against four rows, eight lanes at a time, take half as many loads in four passes over
 * both, and were no faster. */
IQ_INLINE IQ_AVX2 void iq_avx2_tile(const float *query, const float *rows, size_t step, size_t stride, float *out_sums,
                                    iq_sum_kind kind) {
    const size_t apart = step * stride;
    iq_avx2_lanes a = iq_avx2_zero(), b = iq_avx2_zero(), c = iq_avx2_zero();
    for (size_t i = 0; i < stride; i += IQ_KERNEL_LANES, query += IQ_KERNEL_LANES, rows += IQ_KERNEL_LANES) {
        iq_avx2_terms(&a.r0, &b.r0, &c.r0, query, rows, apart, kind);
        iq_avx2_terms(&a.r1, &b.r1, &c.r1, query + 8, rows + 8, apart, kind);
        if (stride - i == IQ_ROW_FLOATS) break;
        iq_avx2_terms(&a.r2, &b.r2, &c.r2, query + 16, rows + 16, apart, kind);
        iq_avx2_terms(&a.r3, &b.r3, &c.r3, query + 24, rows + 24, apart, kind);
    }
    out_sums[0] = iq_avx2_sum(&a);
    out_sums[step] = iq_avx2_sum(&b);
    out_sums[2 * step] = iq_avx2_sum(&c);
}

/* Three thirds of the rows side by side. Memory delivers three streams faster than one: on Zen 3 15 % faster than a
 * plain read of all bytes in their order, which a scan in that order stays 10 % behind; two streams get half of that,
 * software prefetch adds nothing, and three neighbouring rows lose 35 %. */
IQ_INLINE IQ_AVX2 void iq_avx2_stream(const float *query, const float *rows, size_t stride, size_t count,
                                      float *out_sums, iq_sum_kind kind) {
    const size_t third = count / IQ_TILE_ROWS;
    for (size_t row = 0; row < third; row++)
        iq_avx2_tile(query, rows + row * stride, third, stride, out_sums + row, kind);
    for (size_t row = third * IQ_TILE_ROWS; row < count; row++)
        out_sums[row] = iq_avx2_pair(query, rows + row * stride, stride, kind);
}

IQ_INLINE IQ_AVX2 void iq_avx2_scan(const float *queries, size_t query_count, const float *rows, size_t stride,
                                    size_t row_count, float *out_sums, iq_sum_kind kind) {
    const size_t size = IQ_TILE_ROWS * stride * sizeof(float), share = iq_kernel_tile_share(size, query_count);
    size_t row = 0;
    for (; query_count > 1 && row + IQ_TILE_ROWS <= row_count; row += IQ_TILE_ROWS, rows += IQ_TILE_ROWS * stride) {
        for (size_t q = 0; q < query_count; q++) {
            iq_kernel_prefetch_share(rows, size, q, share);
            iq_avx2_tile(queries + q * stride, rows, 1, stride, out_sums + q * row_count + row, kind);
        }
    }
    for (size_t q = 0; q < query_count && row < row_count; q++)
        iq_avx2_stream(queries + q * stride, rows, stride, row_count - row, out_sums + q * row_count + row, kind);
}

/* ---- sifting ---- */

/* One row with four queries. */
typedef struct iq_avx2_quad {
    __m256 a, b, c, d;
} iq_avx2_quad;

/* Which of the four products are not below their bounds: four bits. */
IQ_INLINE IQ_AVX2_FMA uint32_t iq_avx2_keep(const iq_avx2_quad *row, const iq_sift_bounds *bounds, size_t r) {
    const __m256 halves = _mm256_hadd_ps(_mm256_hadd_ps(row->a, row->b), _mm256_hadd_ps(row->c, row->d));
    const __m128 sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
    const __m128 fixed = _mm_add_ps(_mm_loadu_ps(bounds->offsets), _mm_set1_ps(bounds->terms[r]));
    const __m128 slope = _mm_mul_ps(_mm_loadu_ps(bounds->slopes), _mm_set1_ps(bounds->norms[r]));
    return (uint32_t)_mm_movemask_ps(_mm_cmpnlt_ps(sums, _mm_add_ps(fixed, slope)));
}

/* One register of a query with those of three rows. */
IQ_INLINE IQ_AVX2_FMA void iq_avx2_fuse(__m256 *x, __m256 *y, __m256 *z, const float *query, __m256 row_x, __m256 row_y,
                                        __m256 row_z) {
    const __m256 v = _mm256_loadu_ps(query);
    *x = _mm256_fmadd_ps(v, row_x, *x);
    *y = _mm256_fmadd_ps(v, row_y, *y);
    *z = _mm256_fmadd_ps(v, row_z, *z);
}

static IQ_AVX2_FMA void iq_avx2_sift(const float *queries, const float *rows, size_t stride, size_t row_count,
                                     const iq_sift_bounds *bounds, uint32_t *out_masks) {
    for (size_t next = 0; next < row_count; next += IQ_TILE_ROWS) {
        /* The rest is a tile that overlaps another. */
        const size_t r = next + IQ_TILE_ROWS <= row_count ? next : row_count - IQ_TILE_ROWS;
        const float *query = queries, *row = rows + r * stride;
        iq_avx2_quad x, y, z;
        x.a = x.b = x.c = x.d = y.a = y.b = y.c = y.d = z.a = z.b = z.c = z.d = _mm256_setzero_ps();
        for (size_t i = 0; i < stride; i += 8, query += 8, row += 8) {
            const __m256 row_x = _mm256_loadu_ps(row), row_y = _mm256_loadu_ps(row + stride);
            const __m256 row_z = _mm256_loadu_ps(row + 2 * stride);
            iq_avx2_fuse(&x.a, &y.a, &z.a, query, row_x, row_y, row_z);
            iq_avx2_fuse(&x.b, &y.b, &z.b, query + stride, row_x, row_y, row_z);
            iq_avx2_fuse(&x.c, &y.c, &z.c, query + 2 * stride, row_x, row_y, row_z);
            iq_avx2_fuse(&x.d, &y.d, &z.d, query + 3 * stride, row_x, row_y, row_z);
        }
        out_masks[r] = iq_avx2_keep(&x, bounds, r);
        out_masks[r + 1] = iq_avx2_keep(&y, bounds, r + 1);
        out_masks[r + 2] = iq_avx2_keep(&z, bounds, r + 2);
    }
}

static IQ_AVX2 float iq_avx2_pair_of(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS) return iq_avx2_pair(a, b, dim, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) return iq_avx2_pair(a, b, dim, IQ_SUM_SQUARES);
    return iq_avx2_pair(a, b, dim, IQ_SUM_ABSOLUTES);
}

static IQ_AVX2 void iq_avx2_scan_of(const float *queries, size_t query_count, const float *rows, size_t stride,
                                    size_t row_count, float *out_sums, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS) iq_avx2_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) iq_avx2_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_SQUARES);
    if (kind == IQ_SUM_ABSOLUTES)
        iq_avx2_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_ABSOLUTES);
}

IQ_FN const iq_kernel *iq_kernel_avx2(void) {
    static const iq_kernel kernel = {"avx2", iq_avx2_pair_of, iq_avx2_scan_of, iq_avx2_sift};
    return &kernel;
}

#endif
