/* Blocks of 16 rows in 4 bits a dimension: what a scan reads in place of the rows, with a few words a row that say how
 * far a code may be from its row. kernel/quant.c says what the numbers mean and why a discarded row is surely discarded;
 * here is how they lie in memory and how a scan computes with them, alike on every instruction set.
 *
 * A block, little-endian, 64-byte aligned:
 *     0   16 words A, one a row:  bit 31 the row is loose: nothing is known of it, it is always listed
 *                                 bits 30..12 the f32 bits of n, rounded down; bits 11..0 the number error
 *    64   16 words B, one a row:  bits 15..0 the number step; bits 31..16 the signed number side
 *   128   registers of 64 bytes, one for 8 dimensions: row r has bytes 4r to 4r + 3, dimensions 0 to 3 of the eight in
 *         the low nibbles, 4 to 7 in the high ones: what VPDPBUSD and SDOT want to sum up
 *
 * For a row with the codes c and a probe with the words w, all rounded to f32 as written, none fused:
 *     sum   = 2 * sum of c[i] * w[i] - centre                                             in i32, exact
 *     cross = ((step * sum) * cross_scale + side * side_scale) + error * (error_scale + (n * n) * error_square) + linear
 *     key   = n * (n * square - cross)
 * A row is listed unless key > limit. Words are within +-127 and there are at most 65,536: no sum of a register is
 * beyond 16 bits before it is widened, and none of all beyond 32. */
#ifndef IQ_KERNEL_CODES_H
#define IQ_KERNEL_CODES_H

#include "kernel/kernel.h"

#define IQ_CODES_ROWS 16u
#define IQ_CODES_FACTORS 128u /* bytes in front of the codes */
#define IQ_CODES_LOOSE 0x80000000u
#define IQ_CODES_SIZE_MASK 0x7FFFF000u
#define IQ_CODES_ERROR_MASK 0x00000FFFu
#define IQ_CODES_RUN 64u /* blocks that one call looks at, at most */
#define IQ_CODES_TILE 4u /* probes that pass a block together, at most */
#define IQ_CODES_HITS (IQ_CODES_RUN * IQ_CODES_ROWS)

typedef struct iq_codes_probe {
    const int32_t *words; /* groups * 8 words of 8 bits, four in each of these as they follow in memory */
    int32_t centre;       /* 15 * the sum of words */
    float cross_scale, side_scale, error_scale, error_square, linear, square, limit;
} iq_codes_probe;

typedef struct iq_codes_hit {
    uint32_t row; /* counted from the first row of the call */
    int32_t sum;
} iq_codes_hit;

/* The listed rows of `block_count` <= IQ_CODES_RUN blocks of `groups` registers each, for `probe_count` <= IQ_CODES_TILE
 * probes: those of probe p go to hits + p * IQ_CODES_HITS in ascending order, their number to counts[p]. Bit r of
 * allow[b] says whether row r of block b takes part; a block without any is not read. What will be read behind them
 * begins at `next`, which is fetched, but not read: any address is fine. */
typedef void (*iq_codes_scan_fn)(const iq_codes_probe *probes, size_t probe_count, const uint8_t *blocks,
                                 size_t block_count, const uint8_t *next, uint32_t groups, const uint16_t *allow,
                                 iq_codes_hit *hits, size_t *counts);

/* The keys themselves of all rows of so many blocks, sixteen a block; loose rows have some number. */
typedef void (*iq_codes_keys_fn)(const iq_codes_probe *probe, const uint8_t *blocks, size_t block_count,
                                 uint32_t groups, float *out_keys);

typedef struct iq_codes {
    const char *name;
    iq_codes_scan_fn scan;
    iq_codes_keys_fn keys;
} iq_codes;

IQ_INLINE uint32_t iq_codes_groups(uint32_t dims) { return (dims + 7) / 8; }
IQ_INLINE size_t iq_codes_block_bytes(uint32_t groups) { return IQ_CODES_FACTORS + (size_t)groups * 64; }

/* The best way that `cpu_features` allows and `simd_max` does not exceed; or all of these, the best one last, at most
 * IQ_CODES_WAYS: their number. */
#define IQ_CODES_WAYS 4
IQ_FN size_t iq_codes_ways(uint32_t cpu_features, iqdb_simd simd_max, const iq_codes **out_ways);
IQ_FN const iq_codes *iq_codes_select(uint32_t cpu_features, iqdb_simd simd_max);

#endif
