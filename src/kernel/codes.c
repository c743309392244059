/* Scanning blocks of codes in plain C, and which way a machine gets.
 *
 * 1. Loops over arrays that IQ_STRICT_MEMORY guards: each may become vector instructions, none is fused.
 * 2. Numbers are put together from bytes, so that any byte order gives the same. */
#include "kernel/codes.h"
#include "kernel/strict.h"
#include "sys/sys.h"

/* Sums of one block, as in codes.h. */
static void iq_codes_scalar_sums(const iq_codes_probe *probe, const uint8_t *codes, uint32_t groups, int32_t *sums) {
    for (uint32_t r = 0; r < IQ_CODES_ROWS; r++) sums[r] = 0;
    for (uint32_t g = 0; g < groups; g++, codes += 64) {
        const int8_t *w = (const int8_t *)(const void *)(probe->words + (size_t)g * 2);
        for (uint32_t r = 0; r < IQ_CODES_ROWS; r++) {
            const uint8_t *c = codes + 4 * r;
            const int low = (c[0] & 15) * w[0] + (c[1] & 15) * w[1] + (c[2] & 15) * w[2] + (c[3] & 15) * w[3];
            const int high = (c[0] >> 4) * w[4] + (c[1] >> 4) * w[5] + (c[2] >> 4) * w[6] + (c[3] >> 4) * w[7];
            sums[r] += low + high;
        }
    }
    for (uint32_t r = 0; r < IQ_CODES_ROWS; r++) sums[r] = 2 * sums[r] - probe->centre;
}

#define IQ_CODES_EACH for (uint32_t r = 0; r < IQ_CODES_ROWS; r++)

/* A bit for each row to be listed. */
static uint32_t iq_codes_scalar_test(const iq_codes_probe *probe, const uint8_t *block, const int32_t *sums) {
    float n[IQ_CODES_ROWS], error[IQ_CODES_ROWS], cross[IQ_CODES_ROWS], side[IQ_CODES_ROWS], t[IQ_CODES_ROWS];
    uint32_t loose = 0, beyond = 0;
    IQ_CODES_EACH {
        const uint32_t a = iq_get_u32(block + 4 * r), b = iq_get_u32(block + 64 + 4 * r);
        const int32_t signed_side = (int32_t)(b >> 16 ^ 0x8000u) - 0x8000;
        n[r] = iq_f32_from_bits(a & IQ_CODES_SIZE_MASK);
        error[r] = (float)(int32_t)(a & IQ_CODES_ERROR_MASK);
        cross[r] = (float)(int32_t)(b & 0xFFFFu);
        side[r] = (float)signed_side;
        t[r] = (float)sums[r];
        loose |= a >> 31 << r;
    }
    IQ_STRICT_MEMORY(cross);
    IQ_CODES_EACH cross[r] *= t[r];
    IQ_STRICT_MEMORY(cross);
    IQ_CODES_EACH cross[r] *= probe->cross_scale;
    IQ_CODES_EACH side[r] *= probe->side_scale;
    IQ_CODES_EACH t[r] = n[r] * n[r];
    IQ_STRICT_MEMORY(cross);
    IQ_STRICT_MEMORY(side);
    IQ_STRICT_MEMORY(t);
    IQ_CODES_EACH cross[r] += side[r];
    IQ_CODES_EACH t[r] *= probe->error_square;
    IQ_STRICT_MEMORY(cross);
    IQ_STRICT_MEMORY(t);
    IQ_CODES_EACH t[r] += probe->error_scale;
    IQ_STRICT_MEMORY(t);
    IQ_CODES_EACH error[r] *= t[r];
    IQ_STRICT_MEMORY(error);
    IQ_CODES_EACH cross[r] += error[r];
    IQ_STRICT_MEMORY(cross);
    IQ_CODES_EACH cross[r] += probe->linear;
    IQ_CODES_EACH t[r] = probe->square * n[r];
    IQ_STRICT_MEMORY(cross);
    IQ_STRICT_MEMORY(t);
    IQ_CODES_EACH t[r] -= cross[r];
    IQ_STRICT_MEMORY(t);
    IQ_CODES_EACH t[r] *= n[r];
    IQ_STRICT_MEMORY(t);
    IQ_CODES_EACH beyond |= (uint32_t)(t[r] > probe->limit) << r;
    return (~beyond | loose) & 0xFFFFu;
}

static void iq_codes_scalar_scan(const iq_codes_probe *probes, size_t probe_count, const uint8_t *blocks,
                                 size_t block_count, uint32_t groups, const uint16_t *allow, iq_codes_hit *hits,
                                 size_t *counts) {
    for (size_t p = 0; p < probe_count; p++) {
        iq_codes_hit *own = hits + p * IQ_CODES_HITS;
        const uint8_t *block = blocks;
        size_t count = 0;
        for (size_t b = 0; b < block_count; b++, block += iq_codes_block_bytes(groups)) {
            int32_t sums[IQ_CODES_ROWS];
            const uint32_t allowed = allow == NULL ? 0xFFFFu : allow[b];
            if (allowed == 0) continue;
            iq_codes_scalar_sums(&probes[p], block + IQ_CODES_FACTORS, groups, sums);
            const uint32_t listed = iq_codes_scalar_test(&probes[p], block, sums) & allowed;
            count = iq_codes_list(own, count, listed, (uint32_t)b * IQ_CODES_ROWS, sums);
        }
        counts[p] = count;
    }
}

IQ_FN const iq_codes *iq_codes_scalar(void) {
    static const iq_codes codes = {"scalar", iq_codes_scalar_scan};
    return &codes;
}

IQ_FN const iq_codes *iq_codes_select(uint32_t cpu_features, iqdb_simd simd_max) {
    const int limit = simd_max == IQDB_SIMD_BEST ? INT32_MAX : (int)simd_max;
#if IQ_X86
    const uint32_t wide = IQ_CPU_AVX512F | IQ_CPU_AVX512VNNI;
    if ((cpu_features & wide) == wide && limit >= (int)IQDB_SIMD_AVX512) return iq_codes_avx512();
    if ((cpu_features & IQ_CPU_AVX2) != 0 && limit >= (int)IQDB_SIMD_AVX2) return iq_codes_avx2();
    if ((cpu_features & IQ_CPU_SSSE3) != 0 && limit >= (int)IQDB_SIMD_AVX2) return iq_codes_ssse3();
#endif
#if IQ_NEON
#if IQ_CODES_DOTPROD
    if ((cpu_features & IQ_CPU_ARM_DOTPROD) != 0 && limit >= (int)IQDB_SIMD_NEON) return iq_codes_dotprod();
#endif
    if (limit >= (int)IQDB_SIMD_NEON) return iq_codes_neon();
#endif
    (void)cpu_features;
    (void)limit;
    return iq_codes_scalar();
}
