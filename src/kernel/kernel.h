/* Sums of products over f32 vectors, one file per instruction set, every one with the same bits.
 *
 * The canonical order: 32 virtual lanes; element i is added to lane i mod 32 in ascending order of i, each term
 * rounded to f32 before it is added (no fused multiply-add), lanes starting at +0; then
 * lane[j] += lane[j + 16] for j < 16, lane[j] += lane[j + 8] for j < 8, and so on with 4, 2, 1; the sum is lane[0].
 * A lane is never -0, so leaving out terms that are 0 * 0 (padding) does not change a bit. */
#ifndef IQ_KERNEL_KERNEL_H
#define IQ_KERNEL_KERNEL_H

#include "base/config.h"

#define IQ_KERNEL_LANES 32
#define IQ_ROW_FLOATS 16 /* stored rows are padded with zeros to a multiple of this: 64 bytes */

/* The stride of stored rows, in floats. dim <= IQDB_DIM_MAX. */
IQ_INLINE size_t iq_row_stride(uint32_t dim) {
    return iq_round_up(dim, IQ_ROW_FLOATS);
}

/* Asks for the cache line `ahead` bytes behind p. The address may lie outside of the rows: nothing is read there, and
 * the sum is made of integers because a pointer may not go there. */
IQ_INLINE void iq_kernel_prefetch(const void *p, size_t ahead) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch((const void *)((uintptr_t)p + ahead));
#else
    (void)p;
    (void)ahead;
#endif
}

/* What is summed up over i. */
typedef enum iq_sum_kind {
    IQ_SUM_PRODUCTS = 0,  /* a[i] * b[i] */
    IQ_SUM_SQUARES = 1,   /* (a[i] - b[i])^2 */
    IQ_SUM_ABSOLUTES = 2, /* |a[i] - b[i]| */
    IQ_SUM_KINDS = 3
} iq_sum_kind;

/* The sum of one pair. Any dim (0 gives 0), any alignment that float allows. */
typedef float (*iq_pair_fn)(const float *a, const float *b, size_t dim, iq_sum_kind kind);

/* The same sums of `query_count` queries against `row_count` rows: out_sums[q * row_count + r] for queries + q * stride
 * and rows + r * stride. Both are 64-byte aligned and padded with zeros to the stride, a multiple of IQ_ROW_FLOATS.
 * One query streams through the rows. More of them go by tiles: IQ_TILE_ROWS rows stay near while query after query
 * passes, so that memory is read once, and a query's registers are loaded once for all rows of the tile. */
typedef void (*iq_scan_fn)(const float *queries, size_t query_count, const float *rows, size_t stride, size_t row_count,
                           float *out_sums, iq_sum_kind kind);

#define IQ_TILE_ROWS 3

/* While a query, or a few, pass a tile of `size` bytes, their share of the next tile is asked for: as many bytes for each
 * of `parts` passes. */
IQ_INLINE size_t iq_kernel_tile_share(size_t size, size_t parts) {
    return (size / 64 + parts - 1) / parts * 64;
}
IQ_INLINE void iq_kernel_prefetch_share(const float *rows, size_t size, size_t part, size_t share) {
    for (size_t at = part * share; at < (part + 1) * share && at < size; at += 64) iq_kernel_prefetch(rows, size + at);
}

/* What a sift compares the products of query q and row r with: offsets[q] + slopes[q] * norms[r] + terms[r]. */
typedef struct iq_sift_bounds {
    const float *offsets, *slopes; /* of IQ_SIFT_QUERIES queries */
    const float *norms, *terms;    /* of the rows */
} iq_sift_bounds;

/* Products of IQ_SIFT_QUERIES queries with at least IQ_TILE_ROWS rows, laid out as for a scan, but in four or more lanes
 * that are folded last, with fused additions, so that an element is rounded stride / 4 + 6 times at most. Bit q of
 * out_masks[r] is set unless the product is less than its bound, both rounded as they come; the others are cleared. The
 * tile is four queries by three rows: twelve sums, which is what the units can have under way, for seven loads. */
typedef void (*iq_sift_fn)(const float *queries, const float *rows, size_t stride, size_t row_count,
                           const iq_sift_bounds *bounds, uint32_t *out_masks);

#define IQ_SIFT_QUERIES 4

typedef struct iq_kernel {
    const char *name;
    iq_pair_fn pair;
    iq_scan_fn scan;
    iq_sift_fn sift; /* NULL where it would not pay */
} iq_kernel;

IQ_FN const iq_kernel *iq_kernel_scalar(void);
#if IQ_X86
IQ_FN const iq_kernel *iq_kernel_sse2(void);
IQ_FN const iq_kernel *iq_kernel_avx2(void);
IQ_FN const iq_kernel *iq_kernel_avx512(void);
#endif
#if IQ_NEON
IQ_FN const iq_kernel *iq_kernel_neon(void);
#endif

/* The best set that `cpu_features` (of iq_cpu_features) allows and `simd_max` does not exceed. */
IQ_FN const iq_kernel *iq_kernel_select(uint32_t cpu_features, iqdb_simd simd_max);

#endif
