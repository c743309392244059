/* Sums of products over f32 vectors, one file per instruction set, every one with the same bits.
 *
 * The canonical order: 32 virtual lanes; element i is added to lane i mod 32 in ascending order of i, each term
 * rounded to f32 before it is added (no fused multiply-add), lanes starting at +0; then
 * lane[j] += lane[j + 16] for j < 16, lane[j] += lane[j + 8] for j < 8, and so on with 4, 2, 1; the sum is lane[0].
 * A lane is never -0, so leaving out terms that are 0 * 0 (padding) does not change a bit. */
#ifndef IQ_KERNEL_KERNEL_H
#define IQ_KERNEL_KERNEL_H

#include "base/element.h"

#define IQ_KERNEL_LANES 32
#define IQ_ROW_FLOATS 16 /* stored rows of f32 are padded with zeros to a multiple of this: 64 bytes */

/* The stride of stored rows of f32, in floats. dim <= IQDB_DIM_MAX. */
IQ_INLINE size_t iq_row_stride(uint32_t dim) { return iq_element_stride(IQDB_ELEMENT_F32, dim); }

/* The row that `dim` elements make as one of f32. */
IQ_INLINE void iq_row_to_f32(iqdb_element element, const void *row, uint32_t dim, float *out) {
    iq_element_to_f32(element, row, dim, out);
    memset(out + dim, 0, (iq_row_stride(dim) - dim) * sizeof(float));
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

/* Of `row_count` rows of bits those that differ from the query in `bound` of them at most: *out_rows has room for all;
 * their number. A row is so little that to write its sum down for later takes longer than to have it. */
typedef size_t (*iq_near_fn)(const float *query, const float *rows, size_t stride, size_t row_count, float bound,
                             uint32_t *out_rows);

#define IQ_TILE_ROWS 3
#define IQ_QUADS (IQ_X86 || IQ_NEON || IQ_WASM)

/* While a query passes a tile of `size` bytes, its share of the next tile is asked for: as many bytes for each of `parts`
 * passes. */
IQ_INLINE size_t iq_kernel_tile_share(size_t size, size_t parts) { return (size / 64 + parts - 1) / parts * 64; }
IQ_INLINE void iq_kernel_prefetch_share(const void *rows, size_t size, size_t part, size_t share) {
    for (size_t at = part * share; at < (part + 1) * share && at < size; at += 64) iq_kernel_prefetch(rows, size + at);
}

/* Where elements are other than f32, vectors of both functions are those of rows, which base/element.h describes, and dim
 * and stride are words of 32 bits. Halves are summed up as the f32 that they are, in the canonical order. Sums of integers
 * are exact, and rounded once; of bits, ABSOLUTES are those that differ, and PRODUCTS those that both have. */
typedef struct iq_kernel {
    const char *name;
    iqdb_simd simd;
    iq_pair_fn pair;
    iq_scan_fn scan;
    iq_near_fn within;                                         /* of bits; NULL for all else */
    const struct iq_kernel *(*other_fn)(iqdb_element element); /* of the same set, for another element than f32 */
} iq_kernel;

/* Small builds without vectors of the processor have no scans: a pair is as fast, and there is a kernel for each element. */
#define IQ_SCANS (!IQ_SMALL || IQ_QUADS)

/* kernel->scan, or what comes to the same. */
IQ_INLINE void iq_kernel_scan(const iq_kernel *kernel, const float *queries, size_t query_count, const float *rows,
                              size_t stride, size_t row_count, float *out_sums, iq_sum_kind kind) {
    if (IQ_SCANS) {
        kernel->scan(queries, query_count, rows, stride, row_count, out_sums, kind);
        return;
    }
    for (size_t q = 0; q < query_count; q++, queries += stride)
        for (size_t row = 0; row < row_count; row++)
            *out_sums++ = kernel->pair(queries, rows + row * stride, stride, kind);
}

IQ_INLINE const iq_kernel *iq_kernel_of(const iq_kernel *kernel, iqdb_element element) {
    return element == IQDB_ELEMENT_F32 ? kernel : kernel->other_fn(element);
}
IQ_FN const iq_kernel *iq_elements_scalar(iqdb_element element);
#if IQ_X86
IQ_FN const iq_kernel *iq_elements_avx2(iqdb_element element);
#endif
/* A sum modulo 2^32 in two's complement. All of bytes are there: 65,536 squares of 255 are less than 2^32, and as many
 * products of -128, which may be negative, less than half of it. */
IQ_INLINE float iq_kernel_whole(uint32_t sum, bool is_signed) {
    const float size = is_signed && sum > INT32_MAX ? (float)(0u - sum) : (float)sum;
    return is_signed && sum > INT32_MAX ? -size : size;
}

IQ_FN const iq_kernel *iq_kernel_scalar(void);
#if IQ_X86
IQ_FN const iq_kernel *iq_kernel_avx2(void);
IQ_FN const iq_kernel *iq_kernel_avx512(void);
#endif
#if IQ_QUADS
IQ_FN const iq_kernel *iq_kernel_quads(void);
#endif

/* ---- What sets of vectors are alike in. Targets and the types of registers are no business of functions in C. ---- */

/* The functions of a kernel, from a pair and a scan that take the kind as a constant where they are inlined. */
#define IQ_DEFINE_SUMS(set, target) \
    static target float set##_pair_of(const float *a, const float *b, size_t dim, iq_sum_kind kind) { \
        if (!IQ_SCANS) return set##_pair(a, b, dim, kind); \
        if (kind == IQ_SUM_PRODUCTS) return set##_pair(a, b, dim, IQ_SUM_PRODUCTS); \
        if (kind == IQ_SUM_SQUARES) return set##_pair(a, b, dim, IQ_SUM_SQUARES); \
        return set##_pair(a, b, dim, IQ_SUM_ABSOLUTES); \
    } \
    static target void set##_scan_of(const float *queries, size_t query_count, const float *rows, size_t stride, \
                                     size_t row_count, float *out_sums, iq_sum_kind kind) { \
        if (kind == IQ_SUM_PRODUCTS) \
            set##_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_PRODUCTS); \
        if (kind == IQ_SUM_SQUARES) \
            set##_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_SQUARES); \
        if (kind == IQ_SUM_ABSOLUTES) \
            set##_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_ABSOLUTES); \
    }

/* A scan that takes a row at a time, where one is read from memory in less time than it is summed up. */
#define IQ_DEFINE_ROWS(set, target) \
    IQ_INLINE target void set##_scan(const float *queries, size_t query_count, const float *rows, size_t stride, \
                                     size_t row_count, float *out_sums, iq_sum_kind kind) { \
        for (size_t row = 0; row < row_count; row++) \
            for (size_t q = 0; q < query_count; q++) \
                out_sums[q * row_count + row] = set##_pair(queries + q * stride, rows + row * stride, stride, kind); \
    }

/* Rows of bits that are near, from a count that is at least 0: eight by eight, of which most have none. Written out,
 * because -O2 leaves a loop of eight steps as it is. */
#define IQ_DEFINE_NEAR_ROWS(set, target) \
    IQ_INLINE target int32_t set##_two(const float *query, const float *rows, size_t stride, int32_t limit) { \
        return (set##_count(query, rows, stride) - limit) | (set##_count(query, rows + stride, stride) - limit); \
    } \
    IQ_INLINE target size_t set##_near_of(const float *query, const float *rows, size_t stride, size_t row_count, \
                                          int32_t limit, uint32_t *out_rows) { \
        size_t row = 0, count = 0; \
        while (row < row_count) { \
            const float *first = rows + row * stride; \
            if (row + 8 <= row_count && \
                (set##_two(query, first, stride, limit) | set##_two(query, first + 2 * stride, stride, limit) | \
                 set##_two(query, first + 4 * stride, stride, limit) | \
                 set##_two(query, first + 6 * stride, stride, limit)) >= 0) { \
                row += 8; \
                continue; \
            } \
            const size_t end = row + 8 < row_count ? row + 8 : row_count; \
            for (; row < end; row++) \
                if (set##_count(query, rows + row * stride, stride) < limit) out_rows[count++] = (uint32_t)row; \
        } \
        return count; \
    }

/* And as a kernel has it, with words for rows of 64 bits. */
#define IQ_DEFINE_NEAR(set, target) \
    static target size_t set##_near(const float *query, const float *rows, size_t stride, size_t row_count, \
                                    float bound, uint32_t *out_rows) { \
        const int32_t limit = bound < 0.0f ? 0 : bound < 65536.0f ? (int32_t)bound + 1 : 65537; \
        if (stride == 2) return set##_near_words(query, rows, row_count, limit, out_rows); \
        return set##_near_of(query, rows, stride, row_count, limit, out_rows); \
    }

#define IQ_KERNEL_ENTRY(text, level, set, within) \
    { text, level, set##_pair_of, IQ_SCANS ? set##_scan_of : NULL, within, NULL }

#define IQ_DEFINE_KERNEL(set, target, getter, text, level, other_fn) \
    IQ_DEFINE_SUMS(set, target) \
    IQ_FN const iq_kernel *getter(void) { \
        static const iq_kernel kernel = {text, level, set##_pair_of, IQ_SCANS ? set##_scan_of : NULL, NULL, other_fn}; \
        return &kernel; \
    }

/* The sum of two registers, or of parts of them. */
#define IQ_DEFINE_PLUS(name, target, vector) \
    IQ_INLINE target vector name(vector lanes, vector more) { \
        IQ_STRICT_BODY \
        lanes = lanes + more; \
        IQ_STRICT_VECTOR(lanes); \
        return lanes; \
    }

/* lanes + x * y: fma(x, y, lanes) where it may be fused, else with the product rounded. */
#if IQ_FAST_FP
#define IQ_DEFINE_ADD(set, target, vector, fma) \
    IQ_INLINE target vector set##_add(vector lanes, vector x, vector y) { return fma(x, y, lanes); }
#else
#define IQ_DEFINE_ADD(set, target, vector, fma) \
    IQ_INLINE target vector set##_add(vector lanes, vector x, vector y) { \
        IQ_STRICT_BODY \
        vector term = x * y; \
        IQ_STRICT_VECTOR(term); \
        return lanes + term; \
    }
#endif

/* What a set adds to one register of lanes, and to those of three rows that are `apart` items apart. Its vectors are made
 * of set_item. */
#define IQ_DEFINE_TERMS(set, target, vector, load, absolute, fma) \
    IQ_DEFINE_PLUS(set##_plus, target, vector) \
    IQ_DEFINE_ADD(set, target, vector, fma) \
    IQ_INLINE target vector set##_term(vector lanes, vector x, vector y, iq_sum_kind kind) { \
        IQ_STRICT_BODY \
        const vector difference = x - y; \
        if (kind == IQ_SUM_PRODUCTS) return set##_add(lanes, x, y); \
        if (kind == IQ_SUM_SQUARES) return set##_add(lanes, difference, difference); \
        vector term = absolute(difference); \
        IQ_STRICT_VECTOR(term); \
        return lanes + term; \
    } \
    IQ_INLINE target void set##_terms(vector *lanes_0, vector *lanes_1, vector *lanes_2, const set##_item *query, \
                                      const set##_item *rows, size_t apart, iq_sum_kind kind) { \
        const vector x = load(query); \
        *lanes_0 = set##_term(*lanes_0, x, load(rows), kind); \
        *lanes_1 = set##_term(*lanes_1, x, load(rows + apart), kind); \
        *lanes_2 = set##_term(*lanes_2, x, load(rows + 2 * apart), kind); \
        IQ_STRICT_VECTOR(*lanes_0); \
        IQ_STRICT_VECTOR(*lanes_1); \
        IQ_STRICT_VECTOR(*lanes_2); \
    }

/* All lanes from registers for one half of them, set_half, and what the set does with that: set_half_zero;
 * set_half_step, 16 elements; set_half_tail, fewer; set_half_terms, 16 of a query and three rows; set_sum, of two.
 * A pair; and a tile, one query against IQ_TILE_ROWS rows that lie `step` rows apart. Where not all registers of its
 * lanes fit there are two passes, each over its own cache lines. */
#define IQ_DEFINE_LANES(set, target, passes) \
    typedef struct set##_lanes { \
        set##_half lower, upper; \
    } set##_lanes; \
    IQ_INLINE target set##_lanes set##_zero(void) { \
        set##_lanes lanes; \
        lanes.lower = lanes.upper = set##_half_zero(); \
        return lanes; \
    } \
    IQ_INLINE target void set##_step(set##_lanes *lanes, const set##_item *a, const set##_item *b, iq_sum_kind kind) { \
        set##_half_step(&lanes->lower, a, b, kind); \
        set##_half_step(&lanes->upper, a + 16, b + 16, kind); \
    } \
    IQ_INLINE target float set##_pair(const set##_item *a, const set##_item *b, size_t dim, iq_sum_kind kind) { \
        set##_lanes lanes = set##_zero(); \
        size_t rest = dim; \
        for (; rest >= IQ_KERNEL_LANES; rest -= IQ_KERNEL_LANES, a += IQ_KERNEL_LANES, b += IQ_KERNEL_LANES) \
            set##_step(&lanes, a, b, kind); \
        if (rest >= 16) { \
            set##_half_step(&lanes.lower, a, b, kind); \
            if (rest > 16) set##_half_tail(&lanes.upper, a + 16, b + 16, rest - 16, kind); \
        } else if (rest > 0) { \
            set##_half_tail(&lanes.lower, a, b, rest, kind); \
        } \
        return set##_sum(&lanes.lower, &lanes.upper); \
    } \
    IQ_INLINE target void set##_tile(const set##_item *query, const set##_item *rows, size_t step, size_t stride, \
                                     float *out_sums, iq_sum_kind kind) { \
        set##_lanes a = set##_zero(), b = set##_zero(), c = set##_zero(); \
        const size_t apart = step * stride; \
        const set##_item *x = query, *y = rows; \
        for (size_t i = 0; i < stride; i += IQ_KERNEL_LANES, x += IQ_KERNEL_LANES, y += IQ_KERNEL_LANES) { \
            set##_half_terms(&a.lower, &b.lower, &c.lower, x, y, apart, kind); \
            if (passes == 2) continue; \
            if (stride - i == 16) break; \
            set##_half_terms(&a.upper, &b.upper, &c.upper, x + 16, y + 16, apart, kind); \
        } \
        for (size_t i = 16; passes == 2 && i < stride; i += IQ_KERNEL_LANES) \
            set##_half_terms(&a.upper, &b.upper, &c.upper, query + i, rows + i, apart, kind); \
        out_sums[0] = set##_sum(&a.lower, &a.upper); \
        out_sums[step] = set##_sum(&b.lower, &b.upper); \
        out_sums[2 * step] = set##_sum(&c.lower, &c.upper); \
    }

#define IQ_KERNEL_AHEAD 512 /* bytes that a stream prefetches ahead */

/* One query against rows that lie one behind another. */
#define IQ_DEFINE_STREAM(set, target) \
    IQ_INLINE target void set##_stream(const set##_item *query, const set##_item *rows, size_t stride, size_t count, \
                                       float *out_sums, iq_sum_kind kind) { \
        for (size_t row = 0; row < count; row++, rows += stride) { \
            set##_lanes lanes = set##_zero(); \
            size_t i = 0; \
            for (; i + IQ_KERNEL_LANES <= stride; i += IQ_KERNEL_LANES) { \
                iq_kernel_prefetch(rows + i, IQ_KERNEL_AHEAD); \
                iq_kernel_prefetch(rows + i, IQ_KERNEL_AHEAD + 64); \
                set##_step(&lanes, query + i, rows + i, kind); \
            } \
            if (i < stride) set##_half_step(&lanes.lower, query + i, rows + i, kind); \
            out_sums[row] = set##_sum(&lanes.lower, &lanes.upper); \
        } \
    }

/* A scan from a tile, one query against IQ_TILE_ROWS rows that lie a step apart, and a stream, one against many. */
#define IQ_DEFINE_SCAN(set, target) \
    IQ_INLINE target void set##_scan(const set##_item *queries, size_t query_count, const set##_item *rows, \
                                     size_t stride, size_t row_count, float *out_sums, iq_sum_kind kind) { \
        const size_t size = IQ_TILE_ROWS * stride * sizeof(set##_item), \
                     share = iq_kernel_tile_share(size, query_count); \
        size_t row = 0; \
        for (; query_count > 1 && row + IQ_TILE_ROWS <= row_count; row += IQ_TILE_ROWS, rows += IQ_TILE_ROWS * stride) \
            for (size_t q = 0; q < query_count; q++) { \
                iq_kernel_prefetch_share(rows, size, q, share); \
                set##_tile(queries + q * stride, rows, 1, stride, out_sums + q * row_count + row, kind); \
            } \
        for (size_t q = 0; q < query_count && row < row_count; q++) \
            set##_stream(queries + q * stride, rows, stride, row_count - row, out_sums + q * row_count + row, kind); \
    }

/* The best set that `cpu_features` (of iq_cpu_features) allows and `simd_max` does not exceed. */
IQ_FN const iq_kernel *iq_kernel_select(uint32_t cpu_features, iqdb_simd simd_max);

#endif
