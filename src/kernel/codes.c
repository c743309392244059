/* Scanning blocks of codes: in plain C, with SSE2, NEON and WebAssembly, AVX2, and the instructions that add four
 * products of bytes.
 *
 * 1. A set brings its way to add up products, which is exact in any order. All else is one text for the vector sets, in
 *    registers of their own width: wider ones gcc compares lane by lane.
 * 2. Terms that are added are hidden from the compiler, so that none is fused and every set lists the same rows.
 * 3. In plain C numbers are put together from bytes, so that any byte order gives the same. */
#include "kernel/codes.h"
#include "kernel/strict.h"
#include "sys/sys.h"

#define IQ_CODES_AHEAD 8192u /* bytes that a probe alone prefetches ahead */

/* Of the rows from first_row on, those whose bits are set. */
IQ_INLINE size_t iq_codes_list(iq_codes_hit *hits, size_t count, uint32_t listed, uint32_t first_row,
                               const int32_t *sums) {
    for (; listed != 0; listed &= listed - 1) {
        const uint32_t r = iq_lowest_bit(listed);
        hits[count].row = first_row + r;
        hits[count++].sum = sums[r];
    }
    return count;
}

/* A scan from set_rows, which looks at `parts` parts of a block, the first of them `part`, for `count` probes, 1 or
 * IQ_CODES_TILE. A block has set_parts parts, registers of the set; one probe takes them all together, and a tile one
 * after the other, so that the sums of either are few enough to stay in registers. With keys (NULL: none) it writes these
 * and lists nothing. */
#define IQ_DEFINE_CODES_SCAN(set, target, text) \
    static target void set##_scan(const iq_codes_probe *probes, size_t probe_count, const uint8_t *blocks, \
                                  size_t block_count, const uint8_t *next, uint32_t groups, const uint16_t *allow, \
                                  iq_codes_hit *hits, size_t *counts) { \
        const bool tile = probe_count == IQ_CODES_TILE; \
        const size_t block_bytes = iq_codes_block_bytes(groups), all = block_count * block_bytes; \
        const size_t gap = (size_t)((uintptr_t)next - (uintptr_t)blocks - all); \
        for (size_t p = 0; p < probe_count; p++) counts[p] = 0; \
        for (size_t p = 0; p < probe_count; p += tile ? IQ_CODES_TILE : 1) { \
            const uint8_t *block = blocks; \
            for (uint32_t b = 0; b < block_count; b++, block += block_bytes) { \
                if (allow[b] == 0) continue; \
                const bool is_near = b * block_bytes + IQ_CODES_AHEAD < all; \
                const size_t ahead = IQ_CODES_AHEAD + (is_near ? 0 : gap); \
                if (!tile) \
                    set##_rows(probes + p, 1, block, groups, 0, set##_parts, ahead, allow[b], b * IQ_CODES_ROWS, \
                               hits + p * IQ_CODES_HITS, counts + p, NULL); \
                for (uint32_t part = 0; tile && part < set##_parts; part++) \
                    set##_rows(probes, IQ_CODES_TILE, block, groups, part, 1, ahead, allow[b], b *IQ_CODES_ROWS, \
                               hits, counts, NULL); \
            } \
        } \
    } \
    static target void set##_keys(const iq_codes_probe *probe, const uint8_t *blocks, size_t block_count, \
                                  uint32_t groups, float *out_keys) { \
        for (; block_count > 0; block_count--, blocks += iq_codes_block_bytes(groups), out_keys += IQ_CODES_ROWS) \
            set##_rows(probe, 1, blocks, groups, 0, set##_parts, IQ_CODES_AHEAD, 0, 0, NULL, NULL, out_keys); \
    } \
    static const iq_codes set = {text, set##_scan, set##_keys};

/* ---- plain C ---- */

enum {
    iq_codes_scalar_parts = 1
};

static void iq_codes_scalar_sums(const iq_codes_probe *probe, const uint8_t *codes, uint32_t groups, int32_t *sums) {
    memset(sums, 0, IQ_CODES_ROWS * sizeof *sums);
    for (uint32_t g = 0; g < groups; g++) {
        const int8_t *w = (const int8_t *)(const void *)(probe->words + (size_t)g * 2);
        for (uint32_t r = 0; r < IQ_CODES_ROWS; r++) {
            const uint8_t *c = codes + (size_t)g * 64 + 4 * r;
            for (uint32_t j = 0; j < 4; j++) sums[r] += (c[j] & 15) * w[j] + (c[j] >> 4) * w[j + 4];
        }
    }
}

static uint32_t iq_codes_scalar_listed(const iq_codes_probe *probe, const uint8_t *block, int32_t *sums,
                                       float *out_keys) {
    uint32_t listed = 0;
    for (uint32_t r = 0; r < IQ_CODES_ROWS; r++) {
        const uint32_t a = iq_get_u32(block + 4 * r), b = iq_get_u32(block + 64 + 4 * r);
        const float n = iq_f32_from_bits(a & IQ_CODES_SIZE_MASK), step = (float)(int32_t)(b & 0xFFFFu);
        const float side = iq_strict_f32((float)((int32_t)(b >> 16 ^ 0x8000u) - 0x8000) * probe->side_scale);
        sums[r] = 2 * sums[r] - probe->centre;
        const float margin = probe->error_scale + iq_strict_f32(iq_strict_f32(n * n) * probe->error_square);
        float cross = iq_strict_f32(iq_strict_f32(step * (float)sums[r]) * probe->cross_scale) + side;
        cross += iq_strict_f32((float)(int32_t)(a & IQ_CODES_ERROR_MASK) * iq_strict_f32(margin));
        cross = iq_strict_f32(cross) + probe->linear;
        const float key = iq_strict_f32(n * iq_strict_f32(iq_strict_f32(n * probe->square) - iq_strict_f32(cross)));
        if (out_keys != NULL) out_keys[r] = key;
        listed |= (uint32_t)(a >> 31 != 0 || !(key > probe->limit)) << r;
    }
    return listed;
}

static void iq_codes_scalar_rows(const iq_codes_probe *probes, size_t count, const uint8_t *block, uint32_t groups,
                                 uint32_t part, uint32_t parts, size_t ahead, uint32_t allow, uint32_t row,
                                 iq_codes_hit *hits, size_t *counts, float *out_keys) {
    int32_t sums[IQ_CODES_ROWS];
    (void)part;
    (void)parts;
    (void)ahead;
    for (size_t p = 0; p < count; p++) {
        iq_codes_scalar_sums(&probes[p], block + IQ_CODES_FACTORS, groups, sums);
        const uint32_t listed = iq_codes_scalar_listed(&probes[p], block, sums, out_keys) & allow;
        if (out_keys == NULL) counts[p] = iq_codes_list(hits + p * IQ_CODES_HITS, counts[p], listed, row, sums);
    }
}

IQ_DEFINE_CODES_SCAN(iq_codes_scalar, , "scalar")

/* ---- vectors: gcc before 9 cannot convert them ---- */

#if (IQ_X86 || IQ_NEON || IQ_WASM) && (defined(__clang__) || __GNUC__ >= 9)

#define IQ_CODES_SHORT 4u /* groups: so many sums of a register's products fit in 16 bits */
/* Else gcc leaves short loops over registers in memory. Where it is to make little of code it does so all the same, and
 * warns of what it would have unrolled too far. */
#if defined(__OPTIMIZE_SIZE__)
#define IQ_CODES_UNROLL
#else
#define IQ_CODES_UNROLL _Pragma("GCC unroll 4")
#endif

#define IQ_CODES_PLUS(sums, some) ((sums) + (some))

/* From `vector`; set_add(some, bytes, words), which adds to short sums the products of rows with eight words;
 * widen(sums, some), which adds these to sums of 32 bits; and signs(v), the sign bits of the lanes. */
#define IQ_DEFINE_CODES(set, target, vector, widen, signs, text) \
    typedef int32_t set##_ints __attribute__((vector_size(sizeof(vector)))); \
    typedef float set##_floats __attribute__((vector_size(sizeof(vector)))); \
    enum { \
        set##_parts = 64 / sizeof(vector) \
    }; \
    IQ_INLINE target set##_floats set##_float(set##_ints v) { return __builtin_convertvector(v, set##_floats); } \
    IQ_INLINE target void set##_sums(const iq_codes_probe *probes, size_t count, const uint8_t *codes, \
                                     uint32_t groups, uint32_t parts, size_t ahead, set##_ints *sums) { \
        const set##_ints zero = {0}; \
        for (uint32_t g = 0; g < groups;) { \
            const uint32_t end = groups - g < IQ_CODES_SHORT ? groups : g + IQ_CODES_SHORT; \
            vector some[IQ_CODES_TILE], bytes; \
            IQ_CODES_UNROLL for (size_t i = 0; i < count * parts; i++) some[i] = (vector)zero; \
            for (; g < end; g++, codes += 64) { \
                if (count == 1) iq_kernel_prefetch(codes, ahead); \
                IQ_CODES_UNROLL for (uint32_t i = 0; i < parts; i++) { \
                    memcpy(&bytes, codes + i * sizeof bytes, sizeof bytes); \
                    IQ_CODES_UNROLL for (size_t p = 0; p < count; p++) \
                        set##_add(&some[p * parts + i], bytes, probes[p].words + (size_t)g * 2); \
                } \
            } \
            IQ_CODES_UNROLL for (size_t i = 0; i < count * parts; i++) sums[i] = widen(sums[i], (set##_ints)some[i]); \
        } \
    } \
    IQ_INLINE target void set##_rows(const iq_codes_probe *probes, size_t count, const uint8_t *block, \
                                     uint32_t groups, uint32_t part, uint32_t parts, size_t ahead, uint32_t allow, \
                                     uint32_t row, iq_codes_hit *hits, size_t *counts, float *out_keys) { \
        IQ_STRICT_BODY \
        const uint32_t lanes = sizeof(vector) / 4; \
        const set##_ints zero = {0}; \
        set##_ints sums[IQ_CODES_TILE], a, b; \
        int32_t own[16]; \
        IQ_CODES_UNROLL for (size_t i = 0; i < count * parts; i++) sums[i] = zero; \
        set##_sums(probes, count, block + IQ_CODES_FACTORS + part * sizeof(vector), groups, parts, ahead, sums); \
        IQ_CODES_UNROLL for (uint32_t i = 0; i < parts; i++) { \
            const uint32_t first = (part + i) * lanes; \
            memcpy(&a, block + first * 4, sizeof a); \
            memcpy(&b, block + first * 4 + 64, sizeof b); \
            const set##_ints size = a & (int32_t)IQ_CODES_SIZE_MASK; \
            const set##_floats n = (set##_floats)size, square = n * n; \
            const set##_floats step = set##_float(b & 0xFFFF), side = set##_float(b >> 16); \
            const set##_floats error = set##_float(a & (int32_t)IQ_CODES_ERROR_MASK); \
            IQ_CODES_UNROLL for (size_t p = 0; p < count; p++) { \
                const iq_codes_probe *probe = &probes[p]; \
                const set##_ints sum = sums[p * parts + i] + sums[p * parts + i] - probe->centre; \
                set##_floats cross = step * set##_float(sum) * probe->cross_scale, term = side * probe->side_scale; \
                IQ_STRICT_VECTOR(cross); \
                IQ_STRICT_VECTOR(term); \
                cross = cross + term; \
                term = square * probe->error_square; \
                IQ_STRICT_VECTOR(term); \
                term = error * (term + probe->error_scale); \
                IQ_STRICT_VECTOR(term); \
                cross = cross + term; \
                IQ_STRICT_VECTOR(cross); \
                cross = cross + probe->linear; \
                term = n * probe->square; \
                IQ_STRICT_VECTOR(term); \
                term = n * (term - cross); \
                if (out_keys != NULL) memcpy(out_keys + first, &term, sizeof term); \
                if (out_keys != NULL) continue; \
                const uint32_t listed = signs(~(set##_ints)(term > probe->limit) | a) & allow >> first; \
                if (IQ_LIKELY(listed == 0)) continue; \
                memcpy(own, &sum, sizeof sum); \
                counts[p] = iq_codes_list(hits + p * IQ_CODES_HITS, counts[p], listed, row + first, own); \
            } \
        } \
    } \
    IQ_DEFINE_CODES_SCAN(set, target, text)

#if IQ_X86

#if !defined(IQ_CODES_AVX512) /* a test has brought its own */
#include <immintrin.h>
#endif

#define IQ_CODES_QUAD IQ_TARGET("sse2")
#define IQ_CODES_QUAD_DOT(a, b) _mm_madd_epi16((__m128i)(a), (__m128i)(b))
#define IQ_CODES_QUAD_SIGNS(v) (uint32_t) _mm_movemask_ps((__m128)(v))

#define IQ_CODES_AVX2 IQ_TARGET("avx2")

/* VPMADDUBSW adds two products of at most 15 * 127; eight such sums fit in 16 bits. */
IQ_INLINE IQ_CODES_AVX2 void iq_codes_avx2_add(__m256i *some, __m256i x, const int32_t *words) {
    const __m256i mask = _mm256_set1_epi8(15);
    const __m256i low = _mm256_maddubs_epi16(_mm256_and_si256(x, mask), _mm256_set1_epi32(words[0]));
    const __m256i high =
        _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(x, 4), mask), _mm256_set1_epi32(words[1]));
    *some = _mm256_add_epi16(*some, _mm256_add_epi16(low, high));
}
#define IQ_CODES_AVX2_WIDEN(sums, some) \
    ((sums) + (iq_codes_avx2_ints)_mm256_madd_epi16((__m256i)(some), _mm256_set1_epi16(1)))
#define IQ_CODES_AVX2_SIGNS(v) (uint32_t) _mm256_movemask_ps((__m256)(v))
IQ_DEFINE_CODES(iq_codes_avx2, IQ_CODES_AVX2, __m256i, IQ_CODES_AVX2_WIDEN, IQ_CODES_AVX2_SIGNS, "avx2")

#if defined(IQ_CODES_AVX512)
#elif defined(__clang__) && __clang_major__ >= 18 && __clang_major__ <= 21
#define IQ_CODES_AVX512 IQ_TARGET("avx512f,avx512vnni,evex512")
#else
#define IQ_CODES_AVX512 IQ_TARGET("avx512f,avx512vnni")
#endif

/* Sixteen rows are one register, and VPDPBUSD adds four products in 32 bits. The mask spares g++ a warning. */
IQ_INLINE IQ_CODES_AVX512 void iq_codes_avx512_add(__m512i *sums, __m512i x, const int32_t *words) {
    const __m512i mask = _mm512_set1_epi32(0x0F0F0F0F);
    const __m512i zero = _mm512_setzero_si512(); /* a sum at a time, else each waits for the one before */
    const __m512i low = _mm512_dpbusd_epi32(zero, _mm512_and_si512(x, mask), _mm512_set1_epi32(words[0]));
    const __m512i both = _mm512_dpbusd_epi32(low, _mm512_and_si512(_mm512_maskz_srli_epi32(0xFFFF, x, 4), mask),
                                             _mm512_set1_epi32(words[1]));
    *sums = _mm512_add_epi32(*sums, both);
}
#define IQ_CODES_AVX512_SIGNS(v) (uint32_t) _mm512_cmpgt_epi32_mask(_mm512_setzero_si512(), (__m512i)(v))
IQ_DEFINE_CODES(iq_codes_avx512, IQ_CODES_AVX512, __m512i, IQ_CODES_PLUS, IQ_CODES_AVX512_SIGNS, "avx512-vnni")

#elif IQ_WASM

#include <wasm_simd128.h>

#define IQ_CODES_QUAD
#define IQ_CODES_QUAD_DOT(a, b) wasm_i32x4_dot_i16x8((v128_t)(a), (v128_t)(b))
#define IQ_CODES_QUAD_SIGNS(v) wasm_i32x4_bitmask((v128_t)(v))

#else

#include <arm_neon.h>

IQ_INLINE uint32_t iq_codes_neon_signs(int32x4_t v) {
    static const int32_t places[4] = {0, 1, 2, 3};
    return vaddvq_u32(vshlq_u32(vshrq_n_u32(vreinterpretq_u32_s32(v), 31), vld1q_s32(places)));
}

/* Sums of two products, 3,810 at most, are added in 16 bits. */
IQ_INLINE int32x4_t iq_codes_neon_dot(int32x4_t sums, uint8x16_t x, int32_t word) {
    const int8x8_t w = vreinterpret_s8_s32(vdup_n_s32(word));
    const int8x16_t c = vreinterpretq_s8_u8(x);
    return vpadalq_s16(sums, vpaddq_s16(vmull_s8(vget_low_s8(c), w), vmull_s8(vget_high_s8(c), w)));
}
IQ_INLINE void iq_codes_neon_add(int32x4_t *sums, int32x4_t x, const int32_t *words) {
    const uint8x16_t bytes = vreinterpretq_u8_s32(x);
    *sums = iq_codes_neon_dot(*sums, vandq_u8(bytes, vdupq_n_u8(15)), words[0]);
    *sums = iq_codes_neon_dot(*sums, vshrq_n_u8(bytes, 4), words[1]);
}
IQ_DEFINE_CODES(iq_codes_neon, , int32x4_t, IQ_CODES_PLUS, iq_codes_neon_signs, "neon")

#if defined(__clang__)
#define IQ_CODES_SDOT IQ_TARGET("dotprod")
#else
#define IQ_CODES_SDOT IQ_TARGET("arch=armv8.2-a+dotprod")
#endif

IQ_INLINE IQ_CODES_SDOT void iq_codes_dotprod_add(int32x4_t *sums, int32x4_t x, const int32_t *words) {
    const uint8x16_t bytes = vreinterpretq_u8_s32(x);
    const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15)));
    *sums = vdotq_s32(*sums, low, vreinterpretq_s8_s32(vdupq_n_s32(words[0])));
    *sums = vdotq_s32(*sums, vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4)), vreinterpretq_s8_s32(vdupq_n_s32(words[1])));
}
IQ_DEFINE_CODES(iq_codes_dotprod, IQ_CODES_SDOT, int32x4_t, IQ_CODES_PLUS, iq_codes_neon_signs, "neon-dotprod")

#endif

#if defined(IQ_CODES_QUAD)
typedef int16_t iq_codes_shorts __attribute__((vector_size(16)));
typedef uint16_t iq_codes_halves __attribute__((vector_size(16)));
typedef int32_t iq_codes_quad __attribute__((vector_size(16)));

/* Dimensions 0 and 2 of four in even bytes, 1 and 3 in odd ones, each widened to 16 bits. */
IQ_INLINE IQ_CODES_QUAD iq_codes_quad iq_codes_quad_four(iq_codes_halves even, iq_codes_halves odd, int32_t words) {
    const iq_codes_quad none = {0};
    const iq_codes_halves word = (iq_codes_halves)(none + words);
    return (iq_codes_quad)IQ_CODES_QUAD_DOT(even, (iq_codes_shorts)(word << 8) >> 8) +
           (iq_codes_quad)IQ_CODES_QUAD_DOT(odd, (iq_codes_shorts)word >> 8);
}
IQ_INLINE IQ_CODES_QUAD void iq_codes_quads_add(iq_codes_quad *sums, iq_codes_quad bytes, const int32_t *words) {
    const iq_codes_halves x = (iq_codes_halves)bytes;
    *sums += iq_codes_quad_four(x & 15, x >> 8 & 15, words[0]) + iq_codes_quad_four(x >> 4 & 15, x >> 12, words[1]);
}
IQ_DEFINE_CODES(iq_codes_quads, IQ_CODES_QUAD, iq_codes_quad, IQ_CODES_PLUS, IQ_CODES_QUAD_SIGNS,
                IQ_X86 ? "sse2" : "wasm")
#endif
#endif

/* ---- which way a machine gets ---- */

IQ_FN size_t iq_codes_ways(uint32_t cpu_features, iqdb_simd simd_max, const iq_codes **out_ways) {
    const int limit = simd_max == IQDB_SIMD_BEST ? INT32_MAX : (int)simd_max;
    size_t count = 0;
    out_ways[count++] = &iq_codes_scalar;
#if defined(IQ_CODES_QUAD) && IQ_WASM
    if (limit >= (int)IQDB_SIMD_WASM) out_ways[count++] = &iq_codes_quads;
#elif defined(IQ_CODES_QUAD)
    const uint32_t wide = IQ_CPU_AVX512F | IQ_CPU_AVX512VNNI;
    if ((cpu_features & IQ_CPU_SSE2) != 0 && limit >= (int)IQDB_SIMD_SSE2) out_ways[count++] = &iq_codes_quads;
    if ((cpu_features & IQ_CPU_AVX2) != 0 && limit >= (int)IQDB_SIMD_AVX2) out_ways[count++] = &iq_codes_avx2;
    if ((cpu_features & wide) == wide && limit >= (int)IQDB_SIMD_AVX512) out_ways[count++] = &iq_codes_avx512;
#elif defined(IQ_CODES_SDOT)
    if (limit >= (int)IQDB_SIMD_NEON) out_ways[count++] = &iq_codes_neon;
    if (limit >= (int)IQDB_SIMD_NEON && (cpu_features & IQ_CPU_ARM_DOTPROD) != 0) out_ways[count++] = &iq_codes_dotprod;
#endif
    (void)cpu_features;
    (void)limit;
    return count;
}

IQ_FN const iq_codes *iq_codes_select(uint32_t cpu_features, iqdb_simd simd_max) {
    const iq_codes *ways[IQ_CODES_WAYS];
    return ways[iq_codes_ways(cpu_features, simd_max, ways) - 1];
}
