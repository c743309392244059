/* Keys of a node's neighbours from their codes of 2 bits a dimension, and products of codes of 8 bits: what a walk over
 * a graph computes with, alike on every instruction set. index/graph_code.c says what the numbers mean.
 *
 * Dimensions are a multiple of IQ_LINK_DIMS. The codes of the neighbours lie in two blocks of 16, one behind the other;
 * a block is registers of 64 bytes, one for 16 dimensions: neighbour r has bytes 4r to 4r + 3, byte j of them dimensions
 * j, 4 + j, 8 + j and 12 + j of the sixteen, from the lowest bits up. With the words w of a probe, in i32 and exact, and
 * then rounded to f32 as written, none fused:
 *     sum = 2 * sum of c[i] * w[i] - centre
 *     key = distance + (add - factor * (scale * sum)) */
#ifndef IQ_KERNEL_LINKS_H
#define IQ_KERNEL_LINKS_H

#include "kernel/kernel.h"

#define IQ_LINKS 32u
#define IQ_LINK_DIMS 64u
#define IQ_LINK_DIMS_MAX 4096u /* so that no sum leaves 31 bits */
#define IQ_LINK_WORD_MAX 127   /* of 8 bits */
#define IQ_LINK_WIDE_MAX 2047

typedef struct iq_link_probe {
    const int8_t *words; /* 64-byte aligned, as the wide ones */
    const int16_t *wide; /* within +-IQ_LINK_WIDE_MAX */
    uint32_t dims;
    int32_t centre; /* 3 * the sum of words */
    float scale;
} iq_link_probe;

/* The keys of all 32 into out_keys; a bit for each that is below `limit`. `factors` are the high halves of f32. */
typedef uint32_t (*iq_links_scan_fn)(const iq_link_probe *probe, const uint8_t *codes, const float *adds,
                                     const uint16_t *factors, float distance, float limit, float *out_keys);
typedef int32_t (*iq_links_dot_fn)(const int16_t *wide, const uint8_t *codes, uint32_t dims);

typedef struct iq_links {
    const char *name;
    iq_links_scan_fn scan;
    iq_links_dot_fn dot;
} iq_links;

#define IQ_LINKS_WAYS 3
/* All that `cpu_features` allow and `simd_max` does not exceed, the best one last: their number. */
IQ_FN size_t iq_links_ways(uint32_t cpu_features, iqdb_simd simd_max, const iq_links **out_ways);
IQ_FN const iq_links *iq_links_select(uint32_t cpu_features, iqdb_simd simd_max);

#endif
