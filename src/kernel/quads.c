/* The canonical order in eight registers of four lanes: SSE2, and NEON on 64-bit ARM.
 *
 * 1. Register r holds lanes 4r .. 4r + 3. Products and lanes pass through IQ_STRICT_VECTOR, so that no flag makes a
 *    compiler fuse or reorder them: gcc fuses vectors as it does a * b + c, unless it is told not to contract.
 * 2. Nothing outside a[0, dim) and b[0, dim) is read: a tail is copied between zeros first.
 * 3. The 64-bit unit of ARM keeps subnormals, as the canonical order wants; the 32-bit one flushes them and has no
 *    kernel.
 * 4. A sift has none of this: its sums only bound others. */
#include "kernel/kernel.h"
#include "kernel/strict.h"

#if IQ_X86 || IQ_NEON

/* ---- what the two do not share ---- */

#if IQ_X86

#include <immintrin.h>

typedef __m128 iq_quad;
#define IQ_QUAD_REGISTERS 16

IQ_INLINE iq_quad iq_quad_load(const float *p) {
    return _mm_loadu_ps(p);
}

IQ_INLINE iq_quad iq_quad_absolute(iq_quad v) {
    return _mm_and_ps(v, _mm_castsi128_ps(_mm_set1_epi32(0x7FFFFFFF)));
}

/* Lanes 2 and 3 in the place of 0 and 1; lane 1 in the place of 0. */
IQ_INLINE iq_quad iq_quad_upper(iq_quad v) {
    return _mm_movehl_ps(v, v);
}
IQ_INLINE iq_quad iq_quad_second(iq_quad v) {
    return _mm_shuffle_ps(v, v, 1);
}

#else

#include <arm_neon.h>

typedef float32x4_t iq_quad;
#define IQ_QUAD_REGISTERS 32

IQ_INLINE iq_quad iq_quad_load(const float *p) {
    return vld1q_f32(p);
}

IQ_INLINE iq_quad iq_quad_absolute(iq_quad v) {
    return vabsq_f32(v);
}

IQ_INLINE iq_quad iq_quad_upper(iq_quad v) {
    return vextq_f32(v, v, 2);
}
IQ_INLINE iq_quad iq_quad_second(iq_quad v) {
    return vextq_f32(v, v, 1);
}

#endif

/* ---- sums ---- */

#define IQ_QUAD_AHEAD 512 /* bytes that a scan prefetches ahead */

typedef struct iq_quad_lanes {
    iq_quad r0, r1, r2, r3, r4, r5, r6, r7;
} iq_quad_lanes;

IQ_INLINE iq_quad iq_quad_plus(iq_quad lanes, iq_quad more) {
    lanes = lanes + more;
    IQ_STRICT_VECTOR(lanes);
    return lanes;
}

IQ_INLINE iq_quad iq_quad_term(iq_quad lanes, iq_quad x, iq_quad y, iq_sum_kind kind) {
    const iq_quad difference = x - y;
#if IQ_FAST_FP && IQ_NEON
    if (kind == IQ_SUM_PRODUCTS) return vfmaq_f32(lanes, x, y);
    if (kind == IQ_SUM_SQUARES) return vfmaq_f32(lanes, difference, difference);
#endif
    iq_quad term = iq_quad_absolute(difference);
    if (kind == IQ_SUM_PRODUCTS) term = x * y;
    if (kind == IQ_SUM_SQUARES) term = difference * difference;
    IQ_STRICT_VECTOR(term);
    return lanes + term;
}

IQ_INLINE void iq_quad_half_step(iq_quad_lanes *lanes, const float *a, const float *b, iq_sum_kind kind) {
    lanes->r0 = iq_quad_term(lanes->r0, iq_quad_load(a), iq_quad_load(b), kind);
    lanes->r1 = iq_quad_term(lanes->r1, iq_quad_load(a + 4), iq_quad_load(b + 4), kind);
    lanes->r2 = iq_quad_term(lanes->r2, iq_quad_load(a + 8), iq_quad_load(b + 8), kind);
    lanes->r3 = iq_quad_term(lanes->r3, iq_quad_load(a + 12), iq_quad_load(b + 12), kind);
    IQ_STRICT_VECTORS(lanes->r0, lanes->r1, lanes->r2, lanes->r3);
}

IQ_INLINE void iq_quad_step(iq_quad_lanes *lanes, const float *a, const float *b, iq_sum_kind kind) {
    iq_quad_half_step(lanes, a, b, kind);
    lanes->r4 = iq_quad_term(lanes->r4, iq_quad_load(a + 16), iq_quad_load(b + 16), kind);
    lanes->r5 = iq_quad_term(lanes->r5, iq_quad_load(a + 20), iq_quad_load(b + 20), kind);
    lanes->r6 = iq_quad_term(lanes->r6, iq_quad_load(a + 24), iq_quad_load(b + 24), kind);
    lanes->r7 = iq_quad_term(lanes->r7, iq_quad_load(a + 28), iq_quad_load(b + 28), kind);
    IQ_STRICT_VECTORS(lanes->r4, lanes->r5, lanes->r6, lanes->r7);
}

IQ_INLINE iq_quad_lanes iq_quad_zero(void) {
    const iq_quad zero = {0.0f, 0.0f, 0.0f, 0.0f};
    iq_quad_lanes lanes;
    lanes.r0 = lanes.r1 = lanes.r2 = lanes.r3 = lanes.r4 = lanes.r5 = lanes.r6 = lanes.r7 = zero;
    return lanes;
}

/* The fixed tree: 16, 8, 4, then 2 and 1 inside the register. */
IQ_INLINE float iq_quad_sum(const iq_quad_lanes *lanes) {
    const iq_quad s0 = iq_quad_plus(lanes->r0, lanes->r4), s1 = iq_quad_plus(lanes->r1, lanes->r5);
    const iq_quad s2 = iq_quad_plus(lanes->r2, lanes->r6), s3 = iq_quad_plus(lanes->r3, lanes->r7);
    iq_quad s = iq_quad_plus(iq_quad_plus(s0, s2), iq_quad_plus(s1, s3));
    s = iq_quad_plus(s, iq_quad_upper(s));
    s = iq_quad_plus(s, iq_quad_second(s));
    return s[0];
}

IQ_INLINE float iq_quad_pair(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    iq_quad_lanes lanes = iq_quad_zero();
    size_t i = 0;
    for (; i + IQ_KERNEL_LANES <= dim; i += IQ_KERNEL_LANES) iq_quad_step(&lanes, a + i, b + i, kind);
    if (dim - i == IQ_ROW_FLOATS) {
        iq_quad_half_step(&lanes, a + i, b + i, kind);
    } else if (i < dim) {
        float tail_a[IQ_KERNEL_LANES], tail_b[IQ_KERNEL_LANES];
        memset(tail_a, 0, sizeof tail_a);
        memset(tail_b, 0, sizeof tail_b);
        memcpy(tail_a, a + i, (dim - i) * sizeof(float));
        memcpy(tail_b, b + i, (dim - i) * sizeof(float));
        iq_quad_step(&lanes, tail_a, tail_b, kind);
    }
    return iq_quad_sum(&lanes);
}

IQ_INLINE void iq_quad_stream(const float *query, const float *rows, size_t stride, size_t count, float *out_sums,
                              iq_sum_kind kind) {
    for (size_t row = 0; row < count; row++, rows += stride) {
        iq_quad_lanes lanes = iq_quad_zero();
        size_t i = 0;
        for (; i + IQ_KERNEL_LANES <= stride; i += IQ_KERNEL_LANES) {
            iq_kernel_prefetch(rows + i, IQ_QUAD_AHEAD);
            iq_kernel_prefetch(rows + i, IQ_QUAD_AHEAD + 64);
            iq_quad_step(&lanes, query + i, rows + i, kind);
        }
        if (i < stride) iq_quad_half_step(&lanes, query + i, rows + i, kind);
        out_sums[row] = iq_quad_sum(&lanes);
    }
}

/* One register of a query with three rows. */
IQ_INLINE void iq_quad_terms(iq_quad *lanes_0, iq_quad *lanes_1, iq_quad *lanes_2, const float *query,
                             const float *rows, size_t stride, iq_sum_kind kind) {
    const iq_quad x = iq_quad_load(query);
    *lanes_0 = iq_quad_term(*lanes_0, x, iq_quad_load(rows), kind);
    *lanes_1 = iq_quad_term(*lanes_1, x, iq_quad_load(rows + stride), kind);
    *lanes_2 = iq_quad_term(*lanes_2, x, iq_quad_load(rows + 2 * stride), kind);
    IQ_STRICT_VECTOR(*lanes_0);
    IQ_STRICT_VECTOR(*lanes_1);
    IQ_STRICT_VECTOR(*lanes_2);
}

/* Half of the lanes of a query with three rows. */
IQ_INLINE void iq_quad_lower_terms(iq_quad_lanes *a, iq_quad_lanes *b, iq_quad_lanes *c, const float *query,
                                   const float *rows, size_t stride, iq_sum_kind kind) {
    iq_quad_terms(&a->r0, &b->r0, &c->r0, query, rows, stride, kind);
    iq_quad_terms(&a->r1, &b->r1, &c->r1, query + 4, rows + 4, stride, kind);
    iq_quad_terms(&a->r2, &b->r2, &c->r2, query + 8, rows + 8, stride, kind);
    iq_quad_terms(&a->r3, &b->r3, &c->r3, query + 12, rows + 12, stride, kind);
}
IQ_INLINE void iq_quad_upper_terms(iq_quad_lanes *a, iq_quad_lanes *b, iq_quad_lanes *c, const float *query,
                                   const float *rows, size_t stride, iq_sum_kind kind) {
    iq_quad_terms(&a->r4, &b->r4, &c->r4, query, rows, stride, kind);
    iq_quad_terms(&a->r5, &b->r5, &c->r5, query + 4, rows + 4, stride, kind);
    iq_quad_terms(&a->r6, &b->r6, &c->r6, query + 8, rows + 8, stride, kind);
    iq_quad_terms(&a->r7, &b->r7, &c->r7, query + 12, rows + 12, stride, kind);
}

/* One query against IQ_TILE_ROWS rows. Without room for all lanes there are two passes, each over its own cache lines. */
IQ_INLINE void iq_quad_tile(const float *query, const float *rows, size_t stride, float *out_sums, iq_sum_kind kind) {
    iq_quad_lanes a = iq_quad_zero(), b = iq_quad_zero(), c = iq_quad_zero();
    for (size_t i = 0; i < stride; i += IQ_KERNEL_LANES) {
        iq_quad_lower_terms(&a, &b, &c, query + i, rows + i, stride, kind);
        if (IQ_QUAD_REGISTERS == 32 && stride - i > IQ_ROW_FLOATS)
            iq_quad_upper_terms(&a, &b, &c, query + i + 16, rows + i + 16, stride, kind);
    }
    for (size_t i = 16; IQ_QUAD_REGISTERS == 16 && i < stride; i += IQ_KERNEL_LANES)
        iq_quad_upper_terms(&a, &b, &c, query + i, rows + i, stride, kind);
    out_sums[0] = iq_quad_sum(&a);
    out_sums[1] = iq_quad_sum(&b);
    out_sums[2] = iq_quad_sum(&c);
}

IQ_INLINE void iq_quad_scan(const float *queries, size_t query_count, const float *rows, size_t stride,
                            size_t row_count, float *out_sums, iq_sum_kind kind) {
    const size_t size = IQ_TILE_ROWS * stride * sizeof(float), share = iq_kernel_tile_share(size, query_count);
    size_t row = 0;
    for (; query_count > 1 && row + IQ_TILE_ROWS <= row_count; row += IQ_TILE_ROWS, rows += IQ_TILE_ROWS * stride) {
        for (size_t q = 0; q < query_count; q++) {
            iq_kernel_prefetch_share(rows, size, q, share);
            iq_quad_tile(queries + q * stride, rows, stride, out_sums + q * row_count + row, kind);
        }
    }
    for (size_t q = 0; q < query_count && row < row_count; q++)
        iq_quad_stream(queries + q * stride, rows, stride, row_count - row, out_sums + q * row_count + row, kind);
}

static float iq_quad_pair_of(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS) return iq_quad_pair(a, b, dim, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) return iq_quad_pair(a, b, dim, IQ_SUM_SQUARES);
    return iq_quad_pair(a, b, dim, IQ_SUM_ABSOLUTES);
}

static void iq_quad_scan_of(const float *queries, size_t query_count, const float *rows, size_t stride,
                            size_t row_count, float *out_sums, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS) iq_quad_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) iq_quad_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_SQUARES);
    if (kind == IQ_SUM_ABSOLUTES)
        iq_quad_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_ABSOLUTES);
}

#if IQ_X86

IQ_FN const iq_kernel *iq_kernel_sse2(void) {
    static const iq_kernel kernel = {"sse2", iq_quad_pair_of, iq_quad_scan_of, NULL};
    return &kernel;
}

#else

/* ---- sifting ---- */

/* One row with four queries. */
typedef struct iq_neon_quad {
    iq_quad a, b, c, d;
} iq_neon_quad;

/* Which of the four products are not below their bounds: four bits. */
IQ_INLINE uint32_t iq_neon_keep(const iq_neon_quad *row, const iq_sift_bounds *bounds, size_t r) {
    static const uint32_t bits[4] = {1, 2, 4, 8};
    const iq_quad sums = vpaddq_f32(vpaddq_f32(row->a, row->b), vpaddq_f32(row->c, row->d));
    const iq_quad fixed = vaddq_f32(vld1q_f32(bounds->offsets), vdupq_n_f32(bounds->terms[r]));
    const iq_quad slope = vmulq_f32(vld1q_f32(bounds->slopes), vdupq_n_f32(bounds->norms[r]));
    return vaddvq_u32(vbicq_u32(vld1q_u32(bits), vcltq_f32(sums, vaddq_f32(fixed, slope))));
}

/* One register of a query with those of three rows. */
IQ_INLINE void iq_neon_fuse(iq_quad *x, iq_quad *y, iq_quad *z, const float *query, iq_quad row_x, iq_quad row_y,
                            iq_quad row_z) {
    const iq_quad v = vld1q_f32(query);
    *x = vfmaq_f32(*x, v, row_x);
    *y = vfmaq_f32(*y, v, row_y);
    *z = vfmaq_f32(*z, v, row_z);
}

static void iq_neon_sift(const float *queries, const float *rows, size_t stride, size_t row_count,
                         const iq_sift_bounds *bounds, uint32_t *out_masks) {
    for (size_t next = 0; next < row_count; next += IQ_TILE_ROWS) {
        /* The rest is a tile that overlaps another. */
        const size_t r = next + IQ_TILE_ROWS <= row_count ? next : row_count - IQ_TILE_ROWS;
        const float *query = queries, *row = rows + r * stride;
        iq_neon_quad x, y, z;
        x.a = x.b = x.c = x.d = y.a = y.b = y.c = y.d = z.a = z.b = z.c = z.d = vdupq_n_f32(0.0f);
        for (size_t i = 0; i < stride; i += 4, query += 4, row += 4) {
            const iq_quad row_x = vld1q_f32(row), row_y = vld1q_f32(row + stride);
            const iq_quad row_z = vld1q_f32(row + 2 * stride);
            iq_neon_fuse(&x.a, &y.a, &z.a, query, row_x, row_y, row_z);
            iq_neon_fuse(&x.b, &y.b, &z.b, query + stride, row_x, row_y, row_z);
            iq_neon_fuse(&x.c, &y.c, &z.c, query + 2 * stride, row_x, row_y, row_z);
            iq_neon_fuse(&x.d, &y.d, &z.d, query + 3 * stride, row_x, row_y, row_z);
        }
        out_masks[r] = iq_neon_keep(&x, bounds, r);
        out_masks[r + 1] = iq_neon_keep(&y, bounds, r + 1);
        out_masks[r + 2] = iq_neon_keep(&z, bounds, r + 2);
    }
}

IQ_FN const iq_kernel *iq_kernel_neon(void) {
    static const iq_kernel kernel = {"neon", iq_quad_pair_of, iq_quad_scan_of, iq_neon_sift};
    return &kernel;
}

#endif
#endif
