/* Scanning blocks of codes on 64-bit ARM: four rows a register, four registers a block; with SDOT where the processor
 * has it, else by products of 16 bits.
 *
 * 1. A product is at most 15 * 127 in size; sixteen are added in 16 bits before they are widened, 30,480 at most. */
#include "kernel/codes.h"
#include "kernel/strict.h"

#if IQ_NEON

#include <arm_neon.h>

#define IQ_CODES_NEON_AHEAD 4096 /* bytes that a scan prefetches ahead */

IQ_INLINE int8x16_t iq_codes_neon_words(const int32_t *words) {
    return vreinterpretq_s8_s32(vdupq_n_s32(*words));
}

static void iq_codes_neon_sums(const iq_codes_probe *probe, const uint8_t *codes, uint32_t groups, int32x4_t *sums) {
    const uint8x16_t mask = vdupq_n_u8(15);
    int32x4_t halves[8];
    for (int i = 0; i < 8; i++) halves[i] = vdupq_n_s32(0);
    for (uint32_t g = 0; g < groups;) {
        const uint32_t end = groups - g < 8 ? groups : g + 8;
        int16x8_t acc[8];
        for (int i = 0; i < 8; i++) acc[i] = vdupq_n_s16(0);
        for (; g < end; g++) {
            const int8x8_t w0 = vget_low_s8(iq_codes_neon_words(probe->words + (size_t)g * 2));
            const int8x8_t w1 = vget_low_s8(iq_codes_neon_words(probe->words + (size_t)g * 2 + 1));
            iq_kernel_prefetch(codes + (size_t)g * 64, IQ_CODES_NEON_AHEAD);
            for (int i = 0; i < 4; i++) {
                const uint8x16_t x = vld1q_u8(codes + (size_t)g * 64 + 16 * i);
                const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(x, mask));
                const int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(x, 4));
                acc[2 * i] = vmlal_s8(acc[2 * i], vget_low_s8(low), w0);
                acc[2 * i] = vmlal_s8(acc[2 * i], vget_low_s8(high), w1);
                acc[2 * i + 1] = vmlal_s8(acc[2 * i + 1], vget_high_s8(low), w0);
                acc[2 * i + 1] = vmlal_s8(acc[2 * i + 1], vget_high_s8(high), w1);
            }
        }
        for (int i = 0; i < 8; i++) halves[i] = vpadalq_s16(halves[i], acc[i]);
    }
    for (int i = 0; i < 4; i++) sums[i] = vpaddq_s32(halves[2 * i], halves[2 * i + 1]);
}

/* A bit for each of four rows to be listed; *sum becomes the sum of codes.h. */
IQ_INLINE uint32_t iq_codes_neon_test(const iq_codes_probe *probe, const uint8_t *factors, int32x4_t *sum) {
    static const uint32_t bits[4] = {1, 2, 4, 8};
    const uint32x4_t a = vreinterpretq_u32_u8(vld1q_u8(factors)), b = vreinterpretq_u32_u8(vld1q_u8(factors + 64));
    const float32x4_t n = vreinterpretq_f32_u32(vandq_u32(a, vdupq_n_u32(IQ_CODES_SIZE_MASK)));
    const float32x4_t error = vcvtq_f32_u32(vandq_u32(a, vdupq_n_u32(IQ_CODES_ERROR_MASK)));
    const float32x4_t step = vcvtq_f32_u32(vandq_u32(b, vdupq_n_u32(0xFFFFu)));
    const float32x4_t side = vcvtq_f32_s32(vshrq_n_s32(vreinterpretq_s32_u32(b), 16));
    *sum = vsubq_s32(vaddq_s32(*sum, *sum), vdupq_n_s32(probe->centre));
    float32x4_t cross = vmulq_f32(step, vcvtq_f32_s32(*sum));
    cross = vmulq_f32(cross, vdupq_n_f32(probe->cross_scale));
    float32x4_t t = vmulq_f32(side, vdupq_n_f32(probe->side_scale));
    IQ_STRICT_VECTOR(cross);
    IQ_STRICT_VECTOR(t);
    cross = vaddq_f32(cross, t);
    t = vmulq_f32(vmulq_f32(n, n), vdupq_n_f32(probe->error_square));
    IQ_STRICT_VECTOR(t);
    t = vmulq_f32(error, vaddq_f32(t, vdupq_n_f32(probe->error_scale)));
    IQ_STRICT_VECTOR(t);
    cross = vaddq_f32(vaddq_f32(cross, t), vdupq_n_f32(probe->linear));
    t = vmulq_f32(n, vdupq_n_f32(probe->square));
    IQ_STRICT_VECTOR(t);
    t = vmulq_f32(n, vsubq_f32(t, cross));
    const uint32x4_t loose = vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_u32(a), 31));
    const uint32x4_t listed = vorrq_u32(vmvnq_u32(vcgtq_f32(t, vdupq_n_f32(probe->limit))), loose);
    return vaddvq_u32(vandq_u32(listed, vld1q_u32(bits)));
}

IQ_INLINE size_t iq_codes_neon_block(const iq_codes_probe *probe, const uint8_t *block, int32x4_t *sums,
                                     uint32_t allowed, uint32_t first_row, iq_codes_hit *hits, size_t count) {
    uint32_t listed = 0;
    int32_t own[IQ_CODES_ROWS];
    for (uint32_t i = 0; i < 4; i++) listed |= iq_codes_neon_test(probe, block + 16 * i, &sums[i]) << 4 * i;
    listed &= allowed;
    if (IQ_LIKELY(listed == 0)) return count;
    for (int i = 0; i < 4; i++) vst1q_s32(own + 4 * i, sums[i]);
    return iq_codes_list(hits, count, listed, first_row, own);
}

static void iq_codes_neon_scan(const iq_codes_probe *probes, size_t probe_count, const uint8_t *blocks,
                               size_t block_count, uint32_t groups, const uint16_t *allow, iq_codes_hit *hits,
                               size_t *counts) {
    for (size_t p = 0; p < probe_count; p++) {
        const uint8_t *block = blocks;
        counts[p] = 0;
        for (size_t b = 0; b < block_count; b++, block += iq_codes_block_bytes(groups)) {
            int32x4_t sums[4];
            const uint32_t allowed = allow == NULL ? 0xFFFFu : allow[b];
            if (allowed == 0) continue;
            iq_codes_neon_sums(&probes[p], block + IQ_CODES_FACTORS, groups, sums);
            counts[p] = iq_codes_neon_block(&probes[p], block, sums, allowed, (uint32_t)b * IQ_CODES_ROWS,
                                            hits + p * IQ_CODES_HITS, counts[p]);
        }
    }
}

IQ_FN const iq_codes *iq_codes_neon(void) {
    static const iq_codes codes = {"neon", iq_codes_neon_scan};
    return &codes;
}

#if IQ_CODES_DOTPROD
#if defined(__clang__)
#define IQ_CODES_SDOT IQ_TARGET("dotprod")
#else
#define IQ_CODES_SDOT IQ_TARGET("arch=armv8.2-a+dotprod")
#endif

/* sums[4 p] to sums[4 p + 3]. */
IQ_INLINE IQ_CODES_SDOT void iq_codes_dotprod_sums(const iq_codes_probe *probes, size_t count, const uint8_t *codes,
                                                   uint32_t groups, int32x4_t *sums) {
    const uint8x16_t mask = vdupq_n_u8(15);
    for (size_t i = 0; i < 4 * count; i++) sums[i] = vdupq_n_s32(0);
    for (uint32_t g = 0; g < groups; g++) {
        int8x16_t low[4], high[4];
        if (count == 1) iq_kernel_prefetch(codes + (size_t)g * 64, IQ_CODES_NEON_AHEAD);
        for (int i = 0; i < 4; i++) {
            const uint8x16_t x = vld1q_u8(codes + (size_t)g * 64 + 16 * i);
            low[i] = vreinterpretq_s8_u8(vandq_u8(x, mask));
            high[i] = vreinterpretq_s8_u8(vshrq_n_u8(x, 4));
        }
        for (size_t p = 0; p < count; p++) {
            const int8x16_t w0 = iq_codes_neon_words(probes[p].words + (size_t)g * 2);
            const int8x16_t w1 = iq_codes_neon_words(probes[p].words + (size_t)g * 2 + 1);
            for (size_t i = 0; i < 4; i++) {
                sums[4 * p + i] = vdotq_s32(sums[4 * p + i], low[i], w0);
                sums[4 * p + i] = vdotq_s32(sums[4 * p + i], high[i], w1);
            }
        }
    }
}

IQ_INLINE IQ_CODES_SDOT void iq_codes_dotprod_blocks(const iq_codes_probe *probes, size_t probe_count,
                                                     const uint8_t *blocks, size_t block_count, uint32_t groups,
                                                     const uint16_t *allow, iq_codes_hit *hits, size_t *counts) {
    for (size_t p = 0; p < probe_count; p++) counts[p] = 0;
    for (size_t b = 0; b < block_count; b++, blocks += iq_codes_block_bytes(groups)) {
        int32x4_t sums[4 * IQ_CODES_TILE];
        const uint32_t allowed = allow == NULL ? 0xFFFFu : allow[b];
        if (allowed == 0) continue;
        iq_codes_dotprod_sums(probes, probe_count, blocks + IQ_CODES_FACTORS, groups, sums);
        for (size_t p = 0; p < probe_count; p++)
            counts[p] = iq_codes_neon_block(&probes[p], blocks, sums + 4 * p, allowed, (uint32_t)b * IQ_CODES_ROWS,
                                            hits + p * IQ_CODES_HITS, counts[p]);
    }
}

static IQ_CODES_SDOT void iq_codes_dotprod_scan(const iq_codes_probe *probes, size_t probe_count, const uint8_t *blocks,
                                                size_t block_count, uint32_t groups, const uint16_t *allow,
                                                iq_codes_hit *hits, size_t *counts) {
    if (probe_count == IQ_CODES_TILE) {
        iq_codes_dotprod_blocks(probes, IQ_CODES_TILE, blocks, block_count, groups, allow, hits, counts);
        return;
    }
    for (size_t p = 0; p < probe_count; p++)
        iq_codes_dotprod_blocks(probes + p, 1, blocks, block_count, groups, allow, hits + p * IQ_CODES_HITS,
                                counts + p);
}

IQ_FN const iq_codes *iq_codes_dotprod(void) {
    static const iq_codes codes = {"neon-dotprod", iq_codes_dotprod_scan};
    return &codes;
}
#endif

#endif
