/* Scanning blocks of codes with AVX2: eight rows a register, two registers a block.
 *
 * 1. VPMADDUBSW adds two products of at most 15 * 127; eight such results of 16 bits are added before they are widened,
 *    30,480 at most.
 * 2. Alone, a probe waits for memory; in a tile, the unpacked nibbles of a register serve all probes. */
#include "kernel/codes.h"
#include "kernel/strict.h"

#if IQ_X86

#include <immintrin.h>

#define IQ_CODES_AVX2 IQ_TARGET("avx2")
#define IQ_CODES_AVX2_AHEAD 4096 /* bytes that a scan prefetches ahead */

/* The nibbles of 8 dimensions, for rows 0 to 7 and 8 to 15. */
typedef struct iq_codes_avx2_nibbles {
    __m256i low0, low1, high0, high1;
} iq_codes_avx2_nibbles;

/* acc[0], acc[1]: rows 0 to 7 and 8 to 15 of one probe. */
IQ_INLINE IQ_CODES_AVX2 void iq_codes_avx2_products(const int32_t *words, uint32_t g,
                                                    const iq_codes_avx2_nibbles *nibbles, __m256i *acc) {
    const __m256i low = _mm256_set1_epi32(words[(size_t)g * 2]), high = _mm256_set1_epi32(words[(size_t)g * 2 + 1]);
    acc[0] = _mm256_add_epi16(acc[0], _mm256_maddubs_epi16(nibbles->low0, low));
    acc[1] = _mm256_add_epi16(acc[1], _mm256_maddubs_epi16(nibbles->low1, low));
    acc[0] = _mm256_add_epi16(acc[0], _mm256_maddubs_epi16(nibbles->high0, high));
    acc[1] = _mm256_add_epi16(acc[1], _mm256_maddubs_epi16(nibbles->high1, high));
    /* Else gcc sorts the sums of four registers anew, and runs out of registers. */
    IQ_STRICT_VECTOR(acc[0]);
    IQ_STRICT_VECTOR(acc[1]);
}

/* Written out for a probe alone and for a tile, because gcc leaves short loops over registers in memory. */
IQ_INLINE IQ_CODES_AVX2 void iq_codes_avx2_step(const int32_t *const *words, bool tile, const uint8_t *codes,
                                                uint32_t g, __m256i *acc) {
    const __m256i mask = _mm256_set1_epi8(15);
    const __m256i x0 = _mm256_loadu_si256((const __m256i *)(const void *)(codes + (size_t)g * 64));
    const __m256i x1 = _mm256_loadu_si256((const __m256i *)(const void *)(codes + (size_t)g * 64 + 32));
    iq_codes_avx2_nibbles nibbles;
    nibbles.low0 = _mm256_and_si256(x0, mask);
    nibbles.low1 = _mm256_and_si256(x1, mask);
    nibbles.high0 = _mm256_and_si256(_mm256_srli_epi16(x0, 4), mask);
    nibbles.high1 = _mm256_and_si256(_mm256_srli_epi16(x1, 4), mask);
    iq_codes_avx2_products(words[0], g, &nibbles, acc);
    if (!tile) return;
    iq_codes_avx2_products(words[1], g, &nibbles, acc + 2);
    iq_codes_avx2_products(words[2], g, &nibbles, acc + 4);
    iq_codes_avx2_products(words[3], g, &nibbles, acc + 6);
}

IQ_INLINE IQ_CODES_AVX2 __m256i iq_codes_avx2_widen(__m256i sum, __m256i acc) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(acc, _mm256_set1_epi16(1)));
}

/* Up to four registers: sums[2 p], sums[2 p + 1] for rows 0 to 7 and 8 to 15 of probe p. */
IQ_INLINE IQ_CODES_AVX2 void iq_codes_avx2_four(const int32_t *const *words, bool tile, const uint8_t *codes,
                                                uint32_t g, uint32_t count, __m256i *sums) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i acc[2 * IQ_CODES_TILE] = {zero, zero, zero, zero, zero, zero, zero, zero};
    iq_codes_avx2_step(words, tile, codes, g, acc);
    if (count > 1) iq_codes_avx2_step(words, tile, codes, g + 1, acc);
    if (count > 2) iq_codes_avx2_step(words, tile, codes, g + 2, acc);
    if (count > 3) iq_codes_avx2_step(words, tile, codes, g + 3, acc);
    sums[0] = iq_codes_avx2_widen(sums[0], acc[0]);
    sums[1] = iq_codes_avx2_widen(sums[1], acc[1]);
    if (!tile) return;
    sums[2] = iq_codes_avx2_widen(sums[2], acc[2]);
    sums[3] = iq_codes_avx2_widen(sums[3], acc[3]);
    sums[4] = iq_codes_avx2_widen(sums[4], acc[4]);
    sums[5] = iq_codes_avx2_widen(sums[5], acc[5]);
    sums[6] = iq_codes_avx2_widen(sums[6], acc[6]);
    sums[7] = iq_codes_avx2_widen(sums[7], acc[7]);
}

IQ_INLINE IQ_CODES_AVX2 void iq_codes_avx2_sums(const int32_t *const *words, bool tile, const uint8_t *codes,
                                                uint32_t groups, __m256i *sums) {
    uint32_t g = 0;
    for (; g + 4 <= groups; g += 4) {
        if (!tile) {
            iq_kernel_prefetch(codes + (size_t)g * 64, IQ_CODES_AVX2_AHEAD);
            iq_kernel_prefetch(codes + (size_t)g * 64, IQ_CODES_AVX2_AHEAD + 64);
            iq_kernel_prefetch(codes + (size_t)g * 64, IQ_CODES_AVX2_AHEAD + 128);
            iq_kernel_prefetch(codes + (size_t)g * 64, IQ_CODES_AVX2_AHEAD + 192);
        }
        iq_codes_avx2_four(words, tile, codes, g, 4, sums);
    }
    if (g < groups) iq_codes_avx2_four(words, tile, codes, g, groups - g, sums);
}

/* A bit for each of eight rows that is surely beyond; *sum becomes the sum of codes.h. */
IQ_INLINE IQ_CODES_AVX2 uint32_t iq_codes_avx2_far(const iq_codes_probe *probe, const uint8_t *factors, __m256i *sum) {
    const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)factors);
    const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(factors + 64));
    const __m256 n = _mm256_castsi256_ps(_mm256_and_si256(a, _mm256_set1_epi32((int32_t)IQ_CODES_SIZE_MASK)));
    const __m256 error = _mm256_cvtepi32_ps(_mm256_and_si256(a, _mm256_set1_epi32((int32_t)IQ_CODES_ERROR_MASK)));
    const __m256 step = _mm256_cvtepi32_ps(_mm256_and_si256(b, _mm256_set1_epi32(0xFFFF)));
    const __m256 side = _mm256_cvtepi32_ps(_mm256_srai_epi32(b, 16));
    *sum = _mm256_sub_epi32(_mm256_add_epi32(*sum, *sum), _mm256_set1_epi32(probe->centre));
    __m256 cross = _mm256_mul_ps(step, _mm256_cvtepi32_ps(*sum));
    cross = _mm256_mul_ps(cross, _mm256_set1_ps(probe->cross_scale));
    __m256 t = _mm256_mul_ps(side, _mm256_set1_ps(probe->side_scale));
    IQ_STRICT_VECTOR(cross);
    IQ_STRICT_VECTOR(t);
    cross = _mm256_add_ps(cross, t);
    t = _mm256_mul_ps(_mm256_mul_ps(n, n), _mm256_set1_ps(probe->error_square));
    IQ_STRICT_VECTOR(t);
    t = _mm256_mul_ps(error, _mm256_add_ps(t, _mm256_set1_ps(probe->error_scale)));
    IQ_STRICT_VECTOR(t);
    cross = _mm256_add_ps(_mm256_add_ps(cross, t), _mm256_set1_ps(probe->linear));
    t = _mm256_mul_ps(n, _mm256_set1_ps(probe->square));
    IQ_STRICT_VECTOR(t);
    t = _mm256_mul_ps(n, _mm256_sub_ps(t, cross));
    const __m256 beyond = _mm256_cmp_ps(t, _mm256_set1_ps(probe->limit), _CMP_GT_OQ);
    return (uint32_t)_mm256_movemask_ps(_mm256_andnot_ps(_mm256_castsi256_ps(a), beyond));
}

IQ_INLINE IQ_CODES_AVX2 void iq_codes_avx2_blocks(const iq_codes_probe *probes, size_t probe_count,
                                                  const uint8_t *blocks, size_t block_count, uint32_t groups,
                                                  const uint16_t *allow, iq_codes_hit *hits, size_t *counts) {
    const int32_t *words[IQ_CODES_TILE];
    for (size_t p = 0; p < probe_count; p++) {
        words[p] = probes[p].words;
        counts[p] = 0;
    }
    for (size_t b = 0; b < block_count; b++, blocks += iq_codes_block_bytes(groups)) {
        __m256i sums[2 * IQ_CODES_TILE];
        const uint32_t allowed = allow == NULL ? 0xFFFFu : allow[b];
        if (allowed == 0) continue;
        sums[0] = sums[1] = sums[2] = sums[3] = _mm256_setzero_si256();
        sums[4] = sums[5] = sums[6] = sums[7] = _mm256_setzero_si256();
        iq_codes_avx2_sums(words, probe_count == IQ_CODES_TILE, blocks + IQ_CODES_FACTORS, groups, sums);
        for (size_t p = 0; p < probe_count; p++) {
            uint32_t beyond = iq_codes_avx2_far(&probes[p], blocks, &sums[2 * p]);
            beyond |= iq_codes_avx2_far(&probes[p], blocks + 32, &sums[2 * p + 1]) << 8;
            if (IQ_LIKELY((~beyond & allowed) == 0)) continue;
            int32_t own[IQ_CODES_ROWS];
            memcpy(own, &sums[2 * p], sizeof own);
            counts[p] =
                iq_codes_list(hits + p * IQ_CODES_HITS, counts[p], ~beyond & allowed, (uint32_t)b * IQ_CODES_ROWS, own);
        }
    }
}

static IQ_CODES_AVX2 void iq_codes_avx2_scan(const iq_codes_probe *probes, size_t probe_count, const uint8_t *blocks,
                                             size_t block_count, uint32_t groups, const uint16_t *allow,
                                             iq_codes_hit *hits, size_t *counts) {
    if (probe_count == IQ_CODES_TILE) {
        iq_codes_avx2_blocks(probes, IQ_CODES_TILE, blocks, block_count, groups, allow, hits, counts);
        return;
    }
    for (size_t p = 0; p < probe_count; p++)
        iq_codes_avx2_blocks(probes + p, 1, blocks, block_count, groups, allow, hits + p * IQ_CODES_HITS, counts + p);
}

IQ_FN const iq_codes *iq_codes_avx2(void) {
    static const iq_codes codes = {"avx2", iq_codes_avx2_scan};
    return &codes;
}

#endif
