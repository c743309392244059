/* Scanning blocks of codes with SSSE3: four rows a register, four registers a block; see codes_avx2.c. */
#include "kernel/codes.h"
#include "kernel/strict.h"

#if IQ_X86

#include <immintrin.h>

#define IQ_CODES_SSSE3 IQ_TARGET("ssse3")
#define IQ_CODES_SSSE3_AHEAD 4096 /* bytes that a scan prefetches ahead */

IQ_INLINE IQ_CODES_SSSE3 void iq_codes_ssse3_sums(const iq_codes_probe *probe, const uint8_t *codes, uint32_t groups,
                                                  __m128i *sums) {
    const __m128i low = _mm_set1_epi8(15), ones = _mm_set1_epi16(1);
    for (int i = 0; i < 4; i++) sums[i] = _mm_setzero_si128();
    for (uint32_t g = 0; g < groups;) {
        const uint32_t end = groups - g < 4 ? groups : g + 4;
        __m128i acc[4];
        for (int i = 0; i < 4; i++) acc[i] = _mm_setzero_si128();
        for (; g < end; g++) {
            const uint8_t *at = codes + (size_t)g * 64;
            const int32_t *words = probe->words + (size_t)g * 2;
            const __m128i w0 = _mm_set1_epi32(words[0]), w1 = _mm_set1_epi32(words[1]);
            iq_kernel_prefetch(at, IQ_CODES_SSSE3_AHEAD);
            for (int i = 0; i < 4; i++) {
                const __m128i x = _mm_loadu_si128((const __m128i *)(const void *)(at + 16 * i));
                const __m128i high = _mm_and_si128(_mm_srli_epi16(x, 4), low);
                acc[i] = _mm_add_epi16(acc[i], _mm_maddubs_epi16(_mm_and_si128(x, low), w0));
                acc[i] = _mm_add_epi16(acc[i], _mm_maddubs_epi16(high, w1));
            }
        }
        for (int i = 0; i < 4; i++) sums[i] = _mm_add_epi32(sums[i], _mm_madd_epi16(acc[i], ones));
    }
}

/* A bit for each of four rows that is surely beyond; *sum becomes the sum of codes.h. */
IQ_INLINE IQ_CODES_SSSE3 uint32_t iq_codes_ssse3_far(const iq_codes_probe *probe, const uint8_t *factors,
                                                     __m128i *sum) {
    const __m128i a = _mm_loadu_si128((const __m128i *)(const void *)factors);
    const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(factors + 64));
    const __m128 n = _mm_castsi128_ps(_mm_and_si128(a, _mm_set1_epi32((int32_t)IQ_CODES_SIZE_MASK)));
    const __m128 error = _mm_cvtepi32_ps(_mm_and_si128(a, _mm_set1_epi32((int32_t)IQ_CODES_ERROR_MASK)));
    const __m128 step = _mm_cvtepi32_ps(_mm_and_si128(b, _mm_set1_epi32(0xFFFF)));
    const __m128 side = _mm_cvtepi32_ps(_mm_srai_epi32(b, 16));
    *sum = _mm_sub_epi32(_mm_add_epi32(*sum, *sum), _mm_set1_epi32(probe->centre));
    __m128 cross = _mm_mul_ps(step, _mm_cvtepi32_ps(*sum));
    cross = _mm_mul_ps(cross, _mm_set1_ps(probe->cross_scale));
    __m128 t = _mm_mul_ps(side, _mm_set1_ps(probe->side_scale));
    IQ_STRICT_VECTOR(cross);
    IQ_STRICT_VECTOR(t);
    cross = _mm_add_ps(cross, t);
    t = _mm_mul_ps(_mm_mul_ps(n, n), _mm_set1_ps(probe->error_square));
    IQ_STRICT_VECTOR(t);
    t = _mm_mul_ps(error, _mm_add_ps(t, _mm_set1_ps(probe->error_scale)));
    IQ_STRICT_VECTOR(t);
    cross = _mm_add_ps(_mm_add_ps(cross, t), _mm_set1_ps(probe->linear));
    t = _mm_mul_ps(n, _mm_set1_ps(probe->square));
    IQ_STRICT_VECTOR(t);
    t = _mm_mul_ps(n, _mm_sub_ps(t, cross));
    const __m128 beyond = _mm_cmpgt_ps(t, _mm_set1_ps(probe->limit));
    return (uint32_t)_mm_movemask_ps(_mm_andnot_ps(_mm_castsi128_ps(a), beyond));
}

static IQ_CODES_SSSE3 void iq_codes_ssse3_scan(const iq_codes_probe *probes, size_t probe_count, const uint8_t *blocks,
                                               size_t block_count, uint32_t groups, const uint16_t *allow,
                                               iq_codes_hit *hits, size_t *counts) {
    for (size_t p = 0; p < probe_count; p++) {
        const uint8_t *block = blocks;
        counts[p] = 0;
        for (size_t b = 0; b < block_count; b++, block += iq_codes_block_bytes(groups)) {
            __m128i sums[4];
            int32_t own[IQ_CODES_ROWS];
            uint32_t beyond = 0;
            const uint32_t allowed = allow == NULL ? 0xFFFFu : allow[b];
            if (allowed == 0) continue;
            iq_codes_ssse3_sums(&probes[p], block + IQ_CODES_FACTORS, groups, sums);
            for (int i = 0; i < 4; i++) beyond |= iq_codes_ssse3_far(&probes[p], block + 16 * i, &sums[i]) << 4 * i;
            if (IQ_LIKELY((~beyond & allowed) == 0)) continue;
            memcpy(own, sums, sizeof own);
            counts[p] =
                iq_codes_list(hits + p * IQ_CODES_HITS, counts[p], ~beyond & allowed, (uint32_t)b * IQ_CODES_ROWS, own);
        }
    }
}

IQ_FN const iq_codes *iq_codes_ssse3(void) {
    static const iq_codes codes = {"ssse3", iq_codes_ssse3_scan};
    return &codes;
}

#endif
