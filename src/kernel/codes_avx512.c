/* Scanning blocks of codes with AVX-512 VNNI: a block's sixteen rows are one register, and VPDPBUSD adds four products
 * of each at once, in 32 bits that cannot saturate. The foundation and VNNI are all that is used. */
#include "kernel/codes.h"
#include "kernel/strict.h"

#if IQ_X86

/* A test brings both, to emulate the instructions where the machine has none. */
#if !defined(IQ_CODES_AVX512)
#include <immintrin.h>
#if defined(__clang__) && __clang_major__ >= 18 && __clang_major__ <= 21
#define IQ_CODES_AVX512 IQ_TARGET("avx512f,avx512vnni,evex512")
#else
#define IQ_CODES_AVX512 IQ_TARGET("avx512f,avx512vnni")
#endif
#endif

#define IQ_CODES_AVX512_AHEAD 8192 /* bytes that a scan prefetches ahead */

IQ_INLINE IQ_CODES_AVX512 void iq_codes_avx512_step(const iq_codes_probe *probes, size_t count, const uint8_t *codes,
                                                    uint32_t g, __m512i *low_sums, __m512i *high_sums) {
    const __m512i mask = _mm512_set1_epi32(0x0F0F0F0F);
    const __m512i x = _mm512_loadu_si512((const void *)(codes + (size_t)g * 64));
    const __m512i low = _mm512_and_si512(x, mask);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi32(x, 4), mask);
    for (size_t p = 0; p < count; p++) {
        const int32_t *words = probes[p].words + (size_t)g * 2;
        low_sums[p] = _mm512_dpbusd_epi32(low_sums[p], low, _mm512_set1_epi32(words[0]));
        high_sums[p] = _mm512_dpbusd_epi32(high_sums[p], high, _mm512_set1_epi32(words[1]));
    }
}

/* A bit for each row to be listed; *sum becomes the sum of codes.h. */
IQ_INLINE IQ_CODES_AVX512 uint32_t iq_codes_avx512_test(const iq_codes_probe *probe, const uint8_t *factors,
                                                        __m512i *sum) {
    const __m512i a = _mm512_loadu_si512((const void *)factors);
    const __m512i b = _mm512_loadu_si512((const void *)(factors + 64));
    const __m512 n = _mm512_castsi512_ps(_mm512_and_si512(a, _mm512_set1_epi32((int32_t)IQ_CODES_SIZE_MASK)));
    const __m512 error = _mm512_cvtepi32_ps(_mm512_and_si512(a, _mm512_set1_epi32((int32_t)IQ_CODES_ERROR_MASK)));
    const __m512 step = _mm512_cvtepi32_ps(_mm512_and_si512(b, _mm512_set1_epi32(0xFFFF)));
    const __m512 side = _mm512_cvtepi32_ps(_mm512_srai_epi32(b, 16));
    *sum = _mm512_sub_epi32(_mm512_add_epi32(*sum, *sum), _mm512_set1_epi32(probe->centre));
    __m512 cross = _mm512_mul_ps(step, _mm512_cvtepi32_ps(*sum));
    cross = _mm512_mul_ps(cross, _mm512_set1_ps(probe->cross_scale));
    __m512 t = _mm512_mul_ps(side, _mm512_set1_ps(probe->side_scale));
    IQ_STRICT_VECTOR(cross);
    IQ_STRICT_VECTOR(t);
    cross = _mm512_add_ps(cross, t);
    t = _mm512_mul_ps(_mm512_mul_ps(n, n), _mm512_set1_ps(probe->error_square));
    IQ_STRICT_VECTOR(t);
    t = _mm512_mul_ps(error, _mm512_add_ps(t, _mm512_set1_ps(probe->error_scale)));
    IQ_STRICT_VECTOR(t);
    cross = _mm512_add_ps(_mm512_add_ps(cross, t), _mm512_set1_ps(probe->linear));
    t = _mm512_mul_ps(n, _mm512_set1_ps(probe->square));
    IQ_STRICT_VECTOR(t);
    t = _mm512_mul_ps(n, _mm512_sub_ps(t, cross));
    const uint32_t beyond = (uint32_t)_mm512_cmp_ps_mask(t, _mm512_set1_ps(probe->limit), _CMP_GT_OQ);
    return (~beyond | (uint32_t)_mm512_cmpgt_epi32_mask(_mm512_setzero_si512(), a)) & 0xFFFFu;
}

IQ_INLINE IQ_CODES_AVX512 void iq_codes_avx512_blocks(const iq_codes_probe *probes, size_t probe_count,
                                                      const uint8_t *blocks, size_t block_count, uint32_t groups,
                                                      const uint16_t *allow, iq_codes_hit *hits, size_t *counts) {
    for (size_t p = 0; p < probe_count; p++) counts[p] = 0;
    for (size_t b = 0; b < block_count; b++, blocks += iq_codes_block_bytes(groups)) {
        __m512i low[IQ_CODES_TILE], high[IQ_CODES_TILE];
        const uint32_t allowed = allow == NULL ? 0xFFFFu : allow[b];
        if (allowed == 0) continue;
        for (size_t p = 0; p < probe_count; p++) low[p] = high[p] = _mm512_setzero_si512();
        for (uint32_t g = 0; g < groups; g++) {
            if (probe_count == 1) iq_kernel_prefetch(blocks + (size_t)g * 64, IQ_CODES_AVX512_AHEAD);
            iq_codes_avx512_step(probes, probe_count, blocks + IQ_CODES_FACTORS, g, low, high);
        }
        for (size_t p = 0; p < probe_count; p++) {
            int32_t own[IQ_CODES_ROWS];
            __m512i sum = _mm512_add_epi32(low[p], high[p]);
            const uint32_t listed = iq_codes_avx512_test(&probes[p], blocks, &sum) & allowed;
            if (IQ_LIKELY(listed == 0)) continue;
            _mm512_storeu_si512((void *)own, sum);
            counts[p] = iq_codes_list(hits + p * IQ_CODES_HITS, counts[p], listed, (uint32_t)b * IQ_CODES_ROWS, own);
        }
    }
}

static IQ_CODES_AVX512 void iq_codes_avx512_scan(const iq_codes_probe *probes, size_t probe_count,
                                                 const uint8_t *blocks, size_t block_count, uint32_t groups,
                                                 const uint16_t *allow, iq_codes_hit *hits, size_t *counts) {
    if (probe_count == IQ_CODES_TILE) {
        iq_codes_avx512_blocks(probes, IQ_CODES_TILE, blocks, block_count, groups, allow, hits, counts);
        return;
    }
    for (size_t p = 0; p < probe_count; p++)
        iq_codes_avx512_blocks(probes + p, 1, blocks, block_count, groups, allow, hits + p * IQ_CODES_HITS, counts + p);
}

IQ_FN const iq_codes *iq_codes_avx512(void) {
    static const iq_codes codes = {"avx512-vnni", iq_codes_avx512_scan};
    return &codes;
}

#endif
