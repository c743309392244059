/* The sums of kernel/links.h in plain C, with AVX2, NEON, and the instructions that add four products of bytes. They are
 * integers, exact in any order; the few steps in f32 behind them are rounded one by one. */
#include "kernel/links.h"
#include "kernel/strict.h"
#include "sys/sys.h"

static uint32_t iq_links_scalar_scan(const iq_link_probe *probe, const uint8_t *codes, const float *adds,
                                     const uint16_t *factors, float distance, float limit, float *out_keys) {
    int32_t sums[IQ_LINKS];
    uint32_t below = 0;
    memset(sums, 0, sizeof sums);
    for (uint32_t b = 0; b < IQ_LINKS; b += 16) {
        for (uint32_t g = 0; g < probe->dims; g += 16, codes += 64) {
            for (uint32_t r = 0; r < 64; r++) {
                const int8_t *w = probe->words + g + r % 4;
                const int32_t c = codes[r];
                sums[b + r / 4] += (c & 3) * w[0] + (c >> 2 & 3) * w[4] + (c >> 4 & 3) * w[8] + (c >> 6) * w[12];
            }
        }
    }
    for (uint32_t i = 0; i < IQ_LINKS; i++) {
        const float term = iq_strict_f32(probe->scale * (float)(2 * sums[i] - probe->centre));
        const float product = iq_strict_f32(iq_f32_from_bits((uint32_t)factors[i] << 16) * term);
        out_keys[i] = distance + iq_strict_f32(adds[i] - product);
        below |= (uint32_t)(out_keys[i] < limit) << i;
    }
    return below;
}

static int32_t iq_links_scalar_dot(const int16_t *wide, const uint8_t *codes, uint32_t dims) {
    int32_t sum = 0;
    for (uint32_t i = 0; i < dims; i++) sum += wide[i] * codes[i];
    return sum;
}

static const iq_links iq_links_scalar = {"scalar", iq_links_scalar_scan, iq_links_scalar_dot};

/* ---- vectors: gcc before 9 cannot convert them ---- */

#if (IQ_X86 || IQ_NEON) && (defined(__clang__) || __GNUC__ >= 9)

#if defined(__OPTIMIZE_SIZE__)
#define IQ_LINKS_UNROLL
#else
#define IQ_LINKS_UNROLL _Pragma("GCC unroll 8")
#endif

/* From `vector`; set_add(sums, bytes, words), which adds the products of neighbours with sixteen words; and signs(v), the
 * sign bits of the lanes. */
#define IQ_DEFINE_LINKS_SCAN(set, target, vector, signs) \
    typedef int32_t set##_ints __attribute__((vector_size(sizeof(vector)))); \
    typedef float set##_floats __attribute__((vector_size(sizeof(vector)))); \
    typedef uint16_t set##_halves __attribute__((vector_size(sizeof(vector) / 2))); \
    static target uint32_t set##_scan(const iq_link_probe *probe, const uint8_t *codes, const float *adds, \
                                      const uint16_t *factors, float distance, float limit, float *out_keys) { \
        enum { \
            lanes = sizeof(vector) / 4, \
            parts = IQ_LINKS / lanes \
        }; \
        const size_t block = (size_t)probe->dims * 4; \
        const set##_ints zero = {0}; \
        set##_ints sums[parts]; \
        uint32_t below = 0; \
        IQ_LINKS_UNROLL for (uint32_t i = 0; i < parts; i++) sums[i] = zero; \
        for (uint32_t g = 0; g < probe->dims; g += 16, codes += 64) { \
            int32_t words[4]; \
            memcpy(words, probe->words + g, sizeof words); \
            IQ_LINKS_UNROLL for (uint32_t i = 0; i < parts; i++) { \
                vector bytes, sum = (vector)sums[i]; \
                memcpy(&bytes, codes + (i * lanes < 16 ? 0 : block) + i * lanes % 16 * 4, sizeof bytes); \
                set##_add(&sum, bytes, words); \
                sums[i] = (set##_ints)sum; \
            } \
        } \
        IQ_LINKS_UNROLL for (uint32_t i = 0; i < parts; i++) { \
            set##_halves half; \
            set##_floats add, key; \
            memcpy(&half, factors + i * lanes, sizeof half); \
            memcpy(&add, adds + i * lanes, sizeof add); \
            key = __builtin_convertvector(sums[i] + sums[i] - probe->centre, set##_floats) * probe->scale; \
            IQ_STRICT_VECTOR(key); \
            key = (set##_floats)(__builtin_convertvector(half, set##_ints) << 16) * key; \
            IQ_STRICT_VECTOR(key); \
            key = add - key; \
            IQ_STRICT_VECTOR(key); \
            key = key + distance; \
            memcpy(out_keys + i * lanes, &key, sizeof key); \
            below |= signs((set##_ints)(key < limit)) << i * lanes; \
        } \
        return below; \
    }
#endif

#if IQ_X86

#if !defined(IQ_LINKS_AVX512) /* a test has brought its own */
#include <immintrin.h>
#endif

#define IQ_LINKS_AVX2 IQ_TARGET("avx2")

IQ_INLINE IQ_LINKS_AVX2 __m256i iq_links_avx2_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* Eight neighbours' products with sixteen words. VPMADDUBSW adds two of at most 3 * 127. */
IQ_INLINE IQ_LINKS_AVX2 __m256i iq_links_avx2_add(__m256i sums, __m256i x, const __m256i *words) {
    const __m256i mask = _mm256_set1_epi8(3);
    const __m256i a = _mm256_maddubs_epi16(_mm256_and_si256(x, mask), words[0]);
    const __m256i b = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(x, 2), mask), words[1]);
    const __m256i c = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(x, 4), mask), words[2]);
    const __m256i d = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(x, 6), mask), words[3]);
    return _mm256_add_epi16(sums, _mm256_add_epi16(_mm256_add_epi16(a, b), _mm256_add_epi16(c, d)));
}

IQ_INLINE IQ_LINKS_AVX2 uint32_t iq_links_avx2_keys(const iq_link_probe *probe, __m256i sums, const float *adds,
                                                    const uint16_t *factors, float distance, float limit,
                                                    float *out_keys) {
    const __m256i twice = _mm256_sub_epi32(_mm256_add_epi32(sums, sums), _mm256_set1_epi32(probe->centre));
    const __m256 term = _mm256_mul_ps(_mm256_set1_ps(probe->scale), _mm256_cvtepi32_ps(twice));
    const __m128i half = _mm_loadu_si128((const __m128i *)(const void *)factors);
    const __m256 factor = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
    const __m256 rest = _mm256_sub_ps(_mm256_loadu_ps(adds), _mm256_mul_ps(factor, term));
    const __m256 keys = _mm256_add_ps(_mm256_set1_ps(distance), rest);
    _mm256_storeu_ps(out_keys, keys);
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(keys, _mm256_set1_ps(limit), _CMP_LT_OQ));
}

/* Sums in 16 bits hold 128 dimensions: 8 times 4 of at most 762. */
static IQ_LINKS_AVX2 uint32_t iq_links_avx2_scan(const iq_link_probe *probe, const uint8_t *codes, const float *adds,
                                                 const uint16_t *factors, float distance, float limit,
                                                 float *out_keys) {
    const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi16(1);
    const size_t block = (size_t)probe->dims * 4;
    __m256i a = zero, b = zero, c = zero, d = zero;
    for (uint32_t from = 0; from < probe->dims; from += 128) {
        const uint32_t end = probe->dims - from < 128 ? probe->dims : from + 128;
        __m256i e = zero, f = zero, g = zero, h = zero;
        for (uint32_t i = from; i < end; i += 16, codes += 64) {
            __m256i words[4];
            for (int j = 0; j < 4; j++) {
                int32_t four;
                memcpy(&four, probe->words + i + 4 * j, sizeof four);
                words[j] = _mm256_set1_epi32(four);
            }
            e = iq_links_avx2_add(e, iq_links_avx2_load(codes), words);
            f = iq_links_avx2_add(f, iq_links_avx2_load(codes + 32), words);
            g = iq_links_avx2_add(g, iq_links_avx2_load(codes + block), words);
            h = iq_links_avx2_add(h, iq_links_avx2_load(codes + block + 32), words);
        }
        a = _mm256_add_epi32(a, _mm256_madd_epi16(e, ones));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(f, ones));
        c = _mm256_add_epi32(c, _mm256_madd_epi16(g, ones));
        d = _mm256_add_epi32(d, _mm256_madd_epi16(h, ones));
    }
    uint32_t below = iq_links_avx2_keys(probe, a, adds, factors, distance, limit, out_keys);
    below |= iq_links_avx2_keys(probe, b, adds + 8, factors + 8, distance, limit, out_keys + 8) << 8;
    below |= iq_links_avx2_keys(probe, c, adds + 16, factors + 16, distance, limit, out_keys + 16) << 16;
    return below | iq_links_avx2_keys(probe, d, adds + 24, factors + 24, distance, limit, out_keys + 24) << 24;
}

static IQ_LINKS_AVX2 int32_t iq_links_avx2_dot(const int16_t *wide, const uint8_t *codes, uint32_t dims) {
    __m256i a = _mm256_setzero_si256(), b = a;
    for (uint32_t i = 0; i < dims; i += 32, wide += 32, codes += 32) {
        const __m256i x = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)codes));
        const __m256i y = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(codes + 16)));
        a = _mm256_add_epi32(a, _mm256_madd_epi16(x, iq_links_avx2_load(wide)));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(y, iq_links_avx2_load(wide + 16)));
    }
    a = _mm256_add_epi32(a, b);
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1)));
}

static const iq_links iq_links_avx2 = {"avx2", iq_links_avx2_scan, iq_links_avx2_dot};

#if defined(IQ_DEFINE_LINKS_SCAN)

#if defined(IQ_LINKS_AVX512)
#elif defined(__clang__) && __clang_major__ >= 18 && __clang_major__ <= 21
#define IQ_LINKS_AVX512 IQ_TARGET("avx512f,avx512vnni,evex512")
#else
#define IQ_LINKS_AVX512 IQ_TARGET("avx512f,avx512vnni")
#endif

/* Sixteen neighbours are one register, and VPDPBUSD adds four products in 32 bits. The masks spare g++ a warning. */
IQ_INLINE IQ_LINKS_AVX512 void iq_links_avx512_add(__m512i *sums, __m512i x, const int32_t *words) {
    const __m512i mask = _mm512_set1_epi32(0x03030303), zero = _mm512_setzero_si512();
    const __m512i two = _mm512_and_si512(_mm512_maskz_srli_epi32(0xFFFF, x, 2), mask);
    const __m512i four = _mm512_and_si512(_mm512_maskz_srli_epi32(0xFFFF, x, 4), mask);
    const __m512i six = _mm512_and_si512(_mm512_maskz_srli_epi32(0xFFFF, x, 6), mask);
    const __m512i a = _mm512_dpbusd_epi32(zero, _mm512_and_si512(x, mask), _mm512_set1_epi32(words[0]));
    const __m512i b = _mm512_dpbusd_epi32(zero, two, _mm512_set1_epi32(words[1]));
    const __m512i c = _mm512_dpbusd_epi32(a, four, _mm512_set1_epi32(words[2]));
    const __m512i d = _mm512_dpbusd_epi32(b, six, _mm512_set1_epi32(words[3]));
    *sums = _mm512_add_epi32(*sums, _mm512_add_epi32(c, d));
}
#define IQ_LINKS_AVX512_SIGNS(v) (uint32_t) _mm512_cmpgt_epi32_mask(_mm512_setzero_si512(), (__m512i)(v))
IQ_DEFINE_LINKS_SCAN(iq_links_avx512, IQ_LINKS_AVX512, __m512i, IQ_LINKS_AVX512_SIGNS)
static const iq_links iq_links_avx512 = {"avx512-vnni", iq_links_avx512_scan, iq_links_avx2_dot};

#endif

#elif defined(IQ_DEFINE_LINKS_SCAN)

#include <arm_neon.h>

IQ_INLINE uint32_t iq_links_neon_signs(int32x4_t v) {
    static const int32_t places[4] = {0, 1, 2, 3};
    return vaddvq_u32(vshlq_u32(vshrq_n_u32(vreinterpretq_u32_s32(v), 31), vld1q_s32(places)));
}

/* Sums of four products, 1,524 at most, are made in 16 bits. */
IQ_INLINE void iq_links_neon_add(int32x4_t *sums, int32x4_t x, const int32_t *words) {
    const uint8x16_t bytes = vreinterpretq_u8_s32(x), mask = vdupq_n_u8(3);
    const int8x16_t c[4] = {
        vreinterpretq_s8_u8(vandq_u8(bytes, mask)), vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(bytes, 2), mask)),
        vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(bytes, 4), mask)), vreinterpretq_s8_u8(vshrq_n_u8(bytes, 6))};
    int16x8_t low = vdupq_n_s16(0), high = low;
    IQ_LINKS_UNROLL for (int i = 0; i < 4; i++) {
        const int8x8_t w = vreinterpret_s8_s32(vdup_n_s32(words[i]));
        low = vmlal_s8(low, vget_low_s8(c[i]), w);
        high = vmlal_s8(high, vget_high_s8(c[i]), w);
    }
    *sums = vpadalq_s16(*sums, vpaddq_s16(low, high));
}
IQ_DEFINE_LINKS_SCAN(iq_links_neon, , int32x4_t, iq_links_neon_signs)

static int32_t iq_links_neon_dot(const int16_t *wide, const uint8_t *codes, uint32_t dims) {
    int32x4_t a = vdupq_n_s32(0), b = a;
    for (uint32_t i = 0; i < dims; i += 8) {
        const int16x8_t x = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(codes + i))), y = vld1q_s16(wide + i);
        a = vmlal_s16(a, vget_low_s16(x), vget_low_s16(y));
        b = vmlal_s16(b, vget_high_s16(x), vget_high_s16(y));
    }
    return vaddvq_s32(vaddq_s32(a, b));
}
static const iq_links iq_links_neon = {"neon", iq_links_neon_scan, iq_links_neon_dot};

#endif

IQ_FN size_t iq_links_ways(uint32_t cpu_features, iqdb_simd simd_max, const iq_links **out_ways) {
    const int limit = simd_max == IQDB_SIMD_BEST ? INT32_MAX : (int)simd_max;
    size_t count = 0;
    out_ways[count++] = &iq_links_scalar;
#if IQ_X86
    if ((cpu_features & IQ_CPU_AVX2) != 0 && limit >= (int)IQDB_SIMD_AVX2) out_ways[count++] = &iq_links_avx2;
#endif
#if defined(IQ_LINKS_AVX512)
    const uint32_t wide = IQ_CPU_AVX2 | IQ_CPU_AVX512F | IQ_CPU_AVX512VNNI;
    if ((cpu_features & wide) == wide && limit >= (int)IQDB_SIMD_AVX512) out_ways[count++] = &iq_links_avx512;
#elif IQ_NEON && defined(IQ_DEFINE_LINKS_SCAN)
    if (limit >= (int)IQDB_SIMD_NEON) out_ways[count++] = &iq_links_neon;
#endif
    (void)cpu_features;
    (void)limit;
    return count;
}

IQ_FN const iq_links *iq_links_select(uint32_t cpu_features, iqdb_simd simd_max) {
    const iq_links *ways[IQ_LINKS_WAYS];
    return ways[iq_links_ways(cpu_features, simd_max, ways) - 1];
}
