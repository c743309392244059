/* The canonical order in eight NEON registers of four lanes, on 64-bit ARM.
 *
 * 1. Register r holds lanes 4r .. 4r + 3. Products and lanes pass through IQ_STRICT_VECTOR: gcc fuses vmulq and vaddq
 *    as it does a * b + c, unless it is told not to contract, and the flags are the user's.
 * 2. Nothing outside a[0, dim) and b[0, dim) is read: a tail is copied between zeros first.
 * 3. The 64-bit unit keeps subnormals, as the canonical order wants; the 32-bit one flushes them and has no kernel.
 * 4. A sift has none of this: its sums only bound others. */
#include "kernel/kernel.h"
#include "kernel/strict.h"

#if IQ_NEON

#include <arm_neon.h>

#define IQ_NEON_AHEAD 512 /* bytes that a scan prefetches ahead, as in avx2.c */

typedef struct iq_neon_lanes {
    float32x4_t r0, r1, r2, r3, r4, r5, r6, r7;
} iq_neon_lanes;

IQ_INLINE float32x4_t iq_neon_plus(float32x4_t lanes, float32x4_t more) {
    lanes = vaddq_f32(lanes, more);
    IQ_STRICT_VECTOR(lanes);
    return lanes;
}

IQ_INLINE float32x4_t iq_neon_term(float32x4_t lanes, float32x4_t x, float32x4_t y, iq_sum_kind kind) {
    const float32x4_t difference = vsubq_f32(x, y);
#if IQ_FAST_FP
    if (kind == IQ_SUM_PRODUCTS) return vfmaq_f32(lanes, x, y);
    if (kind == IQ_SUM_SQUARES) return vfmaq_f32(lanes, difference, difference);
#endif
    float32x4_t term = kind == IQ_SUM_PRODUCTS  ? vmulq_f32(x, y)
                       : kind == IQ_SUM_SQUARES ? vmulq_f32(difference, difference)
                                                : vabsq_f32(difference);
    IQ_STRICT_VECTOR(term);
    return vaddq_f32(lanes, term);
}

IQ_INLINE void iq_neon_half_step(iq_neon_lanes *lanes, const float *a, const float *b, iq_sum_kind kind) {
    lanes->r0 = iq_neon_term(lanes->r0, vld1q_f32(a), vld1q_f32(b), kind);
    lanes->r1 = iq_neon_term(lanes->r1, vld1q_f32(a + 4), vld1q_f32(b + 4), kind);
    lanes->r2 = iq_neon_term(lanes->r2, vld1q_f32(a + 8), vld1q_f32(b + 8), kind);
    lanes->r3 = iq_neon_term(lanes->r3, vld1q_f32(a + 12), vld1q_f32(b + 12), kind);
    IQ_STRICT_VECTORS(lanes->r0, lanes->r1, lanes->r2, lanes->r3);
}

IQ_INLINE void iq_neon_step(iq_neon_lanes *lanes, const float *a, const float *b, iq_sum_kind kind) {
    iq_neon_half_step(lanes, a, b, kind);
    lanes->r4 = iq_neon_term(lanes->r4, vld1q_f32(a + 16), vld1q_f32(b + 16), kind);
    lanes->r5 = iq_neon_term(lanes->r5, vld1q_f32(a + 20), vld1q_f32(b + 20), kind);
    lanes->r6 = iq_neon_term(lanes->r6, vld1q_f32(a + 24), vld1q_f32(b + 24), kind);
    lanes->r7 = iq_neon_term(lanes->r7, vld1q_f32(a + 28), vld1q_f32(b + 28), kind);
    IQ_STRICT_VECTORS(lanes->r4, lanes->r5, lanes->r6, lanes->r7);
}

IQ_INLINE iq_neon_lanes iq_neon_zero(void) {
    iq_neon_lanes lanes;
    lanes.r0 = lanes.r1 = lanes.r2 = lanes.r3 = vdupq_n_f32(0.0f);
    lanes.r4 = lanes.r5 = lanes.r6 = lanes.r7 = vdupq_n_f32(0.0f);
    return lanes;
}

/* The fixed tree: 16, 8, 4, then 2 and 1 inside the register. */
IQ_INLINE float iq_neon_sum(const iq_neon_lanes *lanes) {
    const float32x4_t s0 = iq_neon_plus(lanes->r0, lanes->r4), s1 = iq_neon_plus(lanes->r1, lanes->r5);
    const float32x4_t s2 = iq_neon_plus(lanes->r2, lanes->r6), s3 = iq_neon_plus(lanes->r3, lanes->r7);
    float32x4_t s = iq_neon_plus(iq_neon_plus(s0, s2), iq_neon_plus(s1, s3));
    s = iq_neon_plus(s, vextq_f32(s, s, 2));
    s = iq_neon_plus(s, vextq_f32(s, s, 1));
    return vgetq_lane_f32(s, 0);
}

IQ_INLINE float iq_neon_pair(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    iq_neon_lanes lanes = iq_neon_zero();
    size_t i = 0;
    for (; i + IQ_KERNEL_LANES <= dim; i += IQ_KERNEL_LANES) iq_neon_step(&lanes, a + i, b + i, kind);
    if (dim - i == IQ_ROW_FLOATS) {
        iq_neon_half_step(&lanes, a + i, b + i, kind);
    } else if (i < dim) {
        float tail_a[IQ_KERNEL_LANES], tail_b[IQ_KERNEL_LANES];
        memset(tail_a, 0, sizeof tail_a);
        memset(tail_b, 0, sizeof tail_b);
        memcpy(tail_a, a + i, (dim - i) * sizeof(float));
        memcpy(tail_b, b + i, (dim - i) * sizeof(float));
        iq_neon_step(&lanes, tail_a, tail_b, kind);
    }
    return iq_neon_sum(&lanes);
}

IQ_INLINE void iq_neon_stream(const float *query, const float *rows, size_t stride, size_t count, float *out_sums,
                              iq_sum_kind kind) {
    for (size_t row = 0; row < count; row++, rows += stride) {
        iq_neon_lanes lanes = iq_neon_zero();
        size_t i = 0;
        for (; i + IQ_KERNEL_LANES <= stride; i += IQ_KERNEL_LANES) {
            iq_kernel_prefetch(rows + i, IQ_NEON_AHEAD);
            iq_kernel_prefetch(rows + i, IQ_NEON_AHEAD + 64);
            iq_neon_step(&lanes, query + i, rows + i, kind);
        }
        if (i < stride) iq_neon_half_step(&lanes, query + i, rows + i, kind);
        out_sums[row] = iq_neon_sum(&lanes);
    }
}

/* One register of a query with three rows. */
IQ_INLINE void iq_neon_terms(float32x4_t *lanes_0, float32x4_t *lanes_1, float32x4_t *lanes_2, const float *query,
                             const float *rows, size_t stride, iq_sum_kind kind) {
    const float32x4_t x = vld1q_f32(query);
    *lanes_0 = iq_neon_term(*lanes_0, x, vld1q_f32(rows), kind);
    *lanes_1 = iq_neon_term(*lanes_1, x, vld1q_f32(rows + stride), kind);
    *lanes_2 = iq_neon_term(*lanes_2, x, vld1q_f32(rows + 2 * stride), kind);
    IQ_STRICT_VECTOR(*lanes_0);
    IQ_STRICT_VECTOR(*lanes_1);
    IQ_STRICT_VECTOR(*lanes_2);
}

/* One query against IQ_TILE_ROWS rows: 24 of the 32 registers hold lanes. */
IQ_INLINE void iq_neon_tile(const float *query, const float *rows, size_t stride, float *out_sums, iq_sum_kind kind) {
    iq_neon_lanes a = iq_neon_zero(), b = iq_neon_zero(), c = iq_neon_zero();
    for (size_t i = 0; i < stride; i += IQ_KERNEL_LANES, query += IQ_KERNEL_LANES, rows += IQ_KERNEL_LANES) {
        iq_neon_terms(&a.r0, &b.r0, &c.r0, query, rows, stride, kind);
        iq_neon_terms(&a.r1, &b.r1, &c.r1, query + 4, rows + 4, stride, kind);
        iq_neon_terms(&a.r2, &b.r2, &c.r2, query + 8, rows + 8, stride, kind);
        iq_neon_terms(&a.r3, &b.r3, &c.r3, query + 12, rows + 12, stride, kind);
        if (stride - i == IQ_ROW_FLOATS) break;
        iq_neon_terms(&a.r4, &b.r4, &c.r4, query + 16, rows + 16, stride, kind);
        iq_neon_terms(&a.r5, &b.r5, &c.r5, query + 20, rows + 20, stride, kind);
        iq_neon_terms(&a.r6, &b.r6, &c.r6, query + 24, rows + 24, stride, kind);
        iq_neon_terms(&a.r7, &b.r7, &c.r7, query + 28, rows + 28, stride, kind);
    }
    out_sums[0] = iq_neon_sum(&a);
    out_sums[1] = iq_neon_sum(&b);
    out_sums[2] = iq_neon_sum(&c);
}

IQ_INLINE void iq_neon_scan(const float *queries, size_t query_count, const float *rows, size_t stride,
                            size_t row_count, float *out_sums, iq_sum_kind kind) {
    const size_t size = IQ_TILE_ROWS * stride * sizeof(float), share = iq_kernel_tile_share(size, query_count);
    size_t row = 0;
    for (; query_count > 1 && row + IQ_TILE_ROWS <= row_count; row += IQ_TILE_ROWS, rows += IQ_TILE_ROWS * stride) {
        for (size_t q = 0; q < query_count; q++) {
            iq_kernel_prefetch_share(rows, size, q, share);
            iq_neon_tile(queries + q * stride, rows, stride, out_sums + q * row_count + row, kind);
        }
    }
    for (size_t q = 0; q < query_count && row < row_count; q++)
        iq_neon_stream(queries + q * stride, rows, stride, row_count - row, out_sums + q * row_count + row, kind);
}

/* ---- sifting ---- */

/* One row with four queries. */
typedef struct iq_neon_quad {
    float32x4_t a, b, c, d;
} iq_neon_quad;

/* Which of the four products are not below their bounds: four bits. */
IQ_INLINE uint32_t iq_neon_keep(const iq_neon_quad *row, const iq_sift_bounds *bounds, size_t r) {
    static const uint32_t bits[4] = {1, 2, 4, 8};
    const float32x4_t sums = vpaddq_f32(vpaddq_f32(row->a, row->b), vpaddq_f32(row->c, row->d));
    const float32x4_t fixed = vaddq_f32(vld1q_f32(bounds->offsets), vdupq_n_f32(bounds->terms[r]));
    const float32x4_t slope = vmulq_f32(vld1q_f32(bounds->slopes), vdupq_n_f32(bounds->norms[r]));
    return vaddvq_u32(vbicq_u32(vld1q_u32(bits), vcltq_f32(sums, vaddq_f32(fixed, slope))));
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
            const float32x4_t row_x = vld1q_f32(row), row_y = vld1q_f32(row + stride);
            const float32x4_t row_z = vld1q_f32(row + 2 * stride);
            float32x4_t v = vld1q_f32(query);
            x.a = vfmaq_f32(x.a, v, row_x);
            y.a = vfmaq_f32(y.a, v, row_y);
            z.a = vfmaq_f32(z.a, v, row_z);
            v = vld1q_f32(query + stride);
            x.b = vfmaq_f32(x.b, v, row_x);
            y.b = vfmaq_f32(y.b, v, row_y);
            z.b = vfmaq_f32(z.b, v, row_z);
            v = vld1q_f32(query + 2 * stride);
            x.c = vfmaq_f32(x.c, v, row_x);
            y.c = vfmaq_f32(y.c, v, row_y);
            z.c = vfmaq_f32(z.c, v, row_z);
            v = vld1q_f32(query + 3 * stride);
            x.d = vfmaq_f32(x.d, v, row_x);
            y.d = vfmaq_f32(y.d, v, row_y);
            z.d = vfmaq_f32(z.d, v, row_z);
        }
        out_masks[r] = iq_neon_keep(&x, bounds, r);
        out_masks[r + 1] = iq_neon_keep(&y, bounds, r + 1);
        out_masks[r + 2] = iq_neon_keep(&z, bounds, r + 2);
    }
}

static float iq_neon_pair_of(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS) return iq_neon_pair(a, b, dim, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) return iq_neon_pair(a, b, dim, IQ_SUM_SQUARES);
    return iq_neon_pair(a, b, dim, IQ_SUM_ABSOLUTES);
}

static void iq_neon_scan_of(const float *queries, size_t query_count, const float *rows, size_t stride,
                            size_t row_count, float *out_sums, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS) iq_neon_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) iq_neon_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_SQUARES);
    if (kind == IQ_SUM_ABSOLUTES)
        iq_neon_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_ABSOLUTES);
}

IQ_FN const iq_kernel *iq_kernel_neon(void) {
    static const iq_kernel kernel = {"neon", iq_neon_pair_of, iq_neon_scan_of, iq_neon_sift};
    return &kernel;
}

#endif
