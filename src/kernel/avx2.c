/* The canonical order in four AVX2 registers of eight lanes.
 *
 * 1. Register r holds lanes 8r .. 8r + 7. Products and lanes pass through IQ_STRICT_VECTOR, so that neither -mfma nor
 *    -ffast-math can fuse or reorder them.
 * 2. Nothing outside a[0, dim) and b[0, dim) is read: tails are masked loads. */
#include "kernel/kernel.h"
#include "kernel/strict.h"

#if IQ_X86

#include <immintrin.h>

#if IQ_FAST_FP
#define IQ_AVX2 IQ_TARGET("avx2,f16c,popcnt,fma")
#else
#define IQ_AVX2 IQ_TARGET("avx2,f16c,popcnt")
#endif
typedef struct iq_avx2_registers {
    __m256 r0, r1;
} iq_avx2_registers;

IQ_INLINE IQ_AVX2 __m256 iq_avx2_absolute(__m256 v) {
    return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF)));
}

IQ_DEFINE_PLUS(iq_avx2_more, IQ_AVX2, __m256)
IQ_DEFINE_PLUS(iq_avx2_more_half, IQ_AVX2, __m128)

IQ_INLINE IQ_AVX2 iq_avx2_registers iq_avx2_none(void) {
    iq_avx2_registers half;
    half.r0 = half.r1 = _mm256_setzero_ps();
    return half;
}

/* The fixed tree: 16, 8, then 4, 2 and 1 inside the register. */
IQ_INLINE IQ_AVX2 float iq_avx2_total(const iq_avx2_registers *lower, const iq_avx2_registers *upper) {
    const __m256 s8 = iq_avx2_more(iq_avx2_more(lower->r0, upper->r0), iq_avx2_more(lower->r1, upper->r1));
    __m128 s = iq_avx2_more_half(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    s = iq_avx2_more_half(s, _mm_movehl_ps(s, s));
    s = iq_avx2_more_half(s, _mm_shuffle_ps(s, s, 1));
    return _mm_cvtss_f32(s);
}

/* The first `count` floats at p, then zeros. Of halves there are only whole lanes. */
IQ_INLINE IQ_AVX2 __m256 iq_avx2_some(const float *p, size_t count) {
    static const int32_t mask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    if (count >= 8) return _mm256_loadu_ps(p);
    return _mm256_maskload_ps(p, _mm256_loadu_si256((const __m256i *)(const void *)(mask + 8 - count)));
}
IQ_INLINE IQ_AVX2 __m256 iq_avx2_some_f16(const uint16_t *p, size_t count) {
    (void)count;
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
IQ_INLINE IQ_AVX2 __m256 iq_avx2_some_bf16(const uint16_t *p, size_t count) {
    (void)count;
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
#define IQ_AVX2_LOAD(p) iq_avx2_some(p, 8)
#define IQ_AVX2_LOAD_F16(p) iq_avx2_some_f16(p, 8)
#define IQ_AVX2_LOAD_BF16(p) iq_avx2_some_bf16(p, 8)

/* A set of f32, or of what becomes f32 when it is loaded.
 *
 * A tile has twelve registers of lanes, one of the query, one or two for terms. Two queries against four rows, eight
 * lanes at a time, take half as many loads in four passes over both, and were no faster.
 *
 * A stream goes through three thirds of the rows side by side. Memory delivers three streams faster than one: on Zen 3
 * 15 % faster than a plain read of all bytes in their order, which a scan in that order stays 10 % behind; two streams get
 * half of that, software prefetch adds nothing, and three neighbouring rows lose 35 %. */
#define IQ_DEFINE_AVX2(set, item, load, some) \
    typedef item set##_item; \
    typedef iq_avx2_registers set##_half; \
    IQ_INLINE IQ_AVX2 set##_half set##_half_zero(void) { return iq_avx2_none(); } \
    IQ_INLINE IQ_AVX2 float set##_sum(const set##_half *lower, const set##_half *upper) { \
        return iq_avx2_total(lower, upper); \
    } \
    IQ_DEFINE_TERMS(set, IQ_AVX2, __m256, load, iq_avx2_absolute, _mm256_fmadd_ps) \
    IQ_INLINE IQ_AVX2 void set##_half_step(set##_half *half, const item *a, const item *b, iq_sum_kind kind) { \
        half->r0 = set##_term(half->r0, load(a), load(b), kind); \
        half->r1 = set##_term(half->r1, load(a + 8), load(b + 8), kind); \
        IQ_STRICT_VECTOR(half->r0); \
        IQ_STRICT_VECTOR(half->r1); \
    } \
    IQ_INLINE IQ_AVX2 void set##_half_tail(set##_half *half, const item *a, const item *b, size_t count, \
                                           iq_sum_kind kind) { \
        half->r0 = set##_term(half->r0, some(a, count), some(b, count), kind); \
        if (count > 8) half->r1 = set##_term(half->r1, some(a + 8, count - 8), some(b + 8, count - 8), kind); \
    } \
    IQ_INLINE IQ_AVX2 void set##_half_terms(set##_half *a, set##_half *b, set##_half *c, const item *query, \
                                            const item *rows, size_t apart, iq_sum_kind kind) { \
        set##_terms(&a->r0, &b->r0, &c->r0, query, rows, apart, kind); \
        set##_terms(&a->r1, &b->r1, &c->r1, query + 8, rows + 8, apart, kind); \
    } \
    IQ_DEFINE_LANES(set, IQ_AVX2, 1) \
    IQ_INLINE IQ_AVX2 void set##_stream(const item *query, const item *rows, size_t stride, size_t count, \
                                        float *out_sums, iq_sum_kind kind) { \
        const size_t third = count / IQ_TILE_ROWS; \
        for (size_t row = 0; row < third; row++) \
            set##_tile(query, rows + row * stride, third, stride, out_sums + row, kind); \
        for (size_t row = third * IQ_TILE_ROWS; row < count; row++) \
            out_sums[row] = set##_pair(query, rows + row * stride, stride, kind); \
    } \
    IQ_DEFINE_SCAN(set, IQ_AVX2)

IQ_DEFINE_AVX2(iq_avx2, float, IQ_AVX2_LOAD, iq_avx2_some)
IQ_DEFINE_KERNEL(iq_avx2, IQ_AVX2, iq_kernel_avx2, "avx2", IQDB_SIMD_AVX2, iq_elements_avx2)

/* ---- Other elements than f32 ---- */

#define IQ_DEFINE_AVX2_HALVES(set, load, some) \
    IQ_DEFINE_AVX2(set##_items, uint16_t, load, some) \
    IQ_INLINE IQ_AVX2 float set##_pair(const float *a, const float *b, size_t words, iq_sum_kind kind) { \
        return set##_items_pair((const uint16_t *)(const void *)a, (const uint16_t *)(const void *)b, 2 * words, \
                                kind); \
    } \
    IQ_INLINE IQ_AVX2 void set##_scan(const float *queries, size_t query_count, const float *rows, size_t stride, \
                                      size_t row_count, float *out_sums, iq_sum_kind kind) { \
        set##_items_scan((const uint16_t *)(const void *)queries, query_count, (const uint16_t *)(const void *)rows, \
                         2 * stride, row_count, out_sums, kind); \
    } \
    IQ_DEFINE_SUMS(set, IQ_AVX2)

IQ_DEFINE_AVX2_HALVES(iq_avx2_f16, IQ_AVX2_LOAD_F16, iq_avx2_some_f16)
IQ_DEFINE_AVX2_HALVES(iq_avx2_bf16, IQ_AVX2_LOAD_BF16, iq_avx2_some_bf16)

/* Sixteen bytes become words of 16 bits, whose products are added by pairs into 32. */
IQ_INLINE IQ_AVX2 __m256i iq_avx2_wide(bool is_signed, const float *p, size_t i) {
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
    return is_signed ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes);
}
IQ_INLINE IQ_AVX2 __m256i iq_avx2_bytes_term(bool is_signed, const float *a, const float *b, size_t i,
                                             iq_sum_kind kind) {
    const __m256i x = iq_avx2_wide(is_signed, a, i), y = iq_avx2_wide(is_signed, b, i), d = _mm256_sub_epi16(x, y);
    if (kind == IQ_SUM_PRODUCTS) return _mm256_madd_epi16(x, y);
    if (kind == IQ_SUM_SQUARES) return _mm256_madd_epi16(d, d);
    return _mm256_madd_epi16(_mm256_abs_epi16(d), _mm256_set1_epi16(1));
}
IQ_INLINE IQ_AVX2 float iq_avx2_bytes(bool is_signed, const float *a, const float *b, size_t words, iq_sum_kind kind) {
    __m256i even = _mm256_setzero_si256(), odd = even;
    for (size_t i = 0; i < words; i += 8) {
        even = _mm256_add_epi32(even, iq_avx2_bytes_term(is_signed, a, b, i, kind));
        odd = _mm256_add_epi32(odd, iq_avx2_bytes_term(is_signed, a, b, i + 4, kind));
    }
    even = _mm256_add_epi32(even, odd);
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(even), _mm256_extracti128_si256(even, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
    return iq_kernel_whole((uint32_t)_mm_cvtsi128_si32(sum), is_signed && kind == IQ_SUM_PRODUCTS);
}
IQ_INLINE IQ_AVX2 float iq_avx2_i8_pair(const float *a, const float *b, size_t words, iq_sum_kind kind) {
    return iq_avx2_bytes(true, a, b, words, kind);
}
IQ_INLINE IQ_AVX2 float iq_avx2_u8_pair(const float *a, const float *b, size_t words, iq_sum_kind kind) {
    return iq_avx2_bytes(false, a, b, words, kind);
}
IQ_DEFINE_ROWS(iq_avx2_i8, IQ_AVX2)
IQ_DEFINE_SUMS(iq_avx2_i8, IQ_AVX2)
IQ_DEFINE_ROWS(iq_avx2_u8, IQ_AVX2)
IQ_DEFINE_SUMS(iq_avx2_u8, IQ_AVX2)

/* Of words of 64 bits in all: those that both have, or that differ. */
IQ_INLINE IQ_AVX2 int32_t iq_avx2_bits(const float *a, const float *b, size_t words, bool both) {
    int32_t sum = 0;
    for (size_t i = 0; i < words; i += 2) {
        uint64_t x, y;
        memcpy(&x, a + i, sizeof x);
        memcpy(&y, b + i, sizeof y);
        sum += __builtin_popcountll(both ? x & y : x ^ y);
    }
    return sum;
}
IQ_INLINE IQ_AVX2 int32_t iq_avx2_bit_count(const float *a, const float *b, size_t words) {
    return iq_avx2_bits(a, b, words, false);
}
IQ_INLINE IQ_AVX2 float iq_avx2_bit_pair(const float *a, const float *b, size_t words, iq_sum_kind kind) {
    return (float)iq_avx2_bits(a, b, words, kind == IQ_SUM_PRODUCTS);
}
IQ_DEFINE_NEAR_ROWS(iq_avx2_bit, IQ_AVX2)

/* Which of four words differ from the query's in fewer bits than the limit says. Bits are looked up by fours and summed
 * up by bytes (Mula, Kurz, Lemire, "Faster population counts using AVX2 instructions", Computer Journal 61(1), 2018). */
IQ_INLINE IQ_AVX2 __m256i iq_avx2_words_near(const float *rows, __m256i query, __m256i limit) {
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i bits = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m256i differs = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)rows), query);
    const __m256i a = _mm256_shuffle_epi8(bits, _mm256_and_si256(differs, low));
    const __m256i b = _mm256_shuffle_epi8(bits, _mm256_and_si256(_mm256_srli_epi16(differs, 4), low));
    return _mm256_cmpgt_epi64(limit, _mm256_sad_epu8(_mm256_add_epi8(a, b), _mm256_setzero_si256()));
}

/* Sixteen by sixteen, of which most have none. */
IQ_INLINE IQ_AVX2 size_t iq_avx2_bit_near_words(const float *query, const float *rows, size_t row_count, int32_t limit,
                                                uint32_t *out_rows) {
    uint64_t word;
    memcpy(&word, query, sizeof word);
    const __m256i wanted = _mm256_set1_epi64x((long long)word), most = _mm256_set1_epi64x(limit);
    size_t row = 0, count = 0;
    for (; row + 16 <= row_count; row += 16) {
        __m256i closer[4];
        _mm_prefetch((const char *)(rows + row * 2 + 1024), _MM_HINT_T0);
        _mm_prefetch((const char *)(rows + row * 2 + 1040), _MM_HINT_T0);
        for (unsigned i = 0; i < 4; i++) closer[i] = iq_avx2_words_near(rows + (row + 4 * i) * 2, wanted, most);
        const __m256i any = _mm256_or_si256(_mm256_or_si256(closer[0], closer[1]), _mm256_or_si256(closer[2], closer[3]));
        if (IQ_LIKELY(_mm256_testz_si256(any, any))) continue;
        for (unsigned i = 0; i < 4; i++) {
            unsigned mask = (unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(closer[i]));
            for (; mask != 0; mask &= mask - 1) out_rows[count++] = (uint32_t)row + 4 * i + iq_lowest_bit(mask);
        }
    }
    const size_t some = iq_avx2_bit_near_of(query, rows + row * 2, 2, row_count - row, limit, out_rows + count);
    for (size_t i = 0; i < some; i++) out_rows[count + i] += (uint32_t)row;
    return count + some;
}
IQ_DEFINE_NEAR(iq_avx2_bit, IQ_AVX2)
IQ_DEFINE_ROWS(iq_avx2_bit, IQ_AVX2)
IQ_DEFINE_SUMS(iq_avx2_bit, IQ_AVX2)

IQ_FN const iq_kernel *iq_elements_avx2(iqdb_element element) {
    static const iq_kernel kernels[] = {IQ_KERNEL_ENTRY("avx2", IQDB_SIMD_AVX2, iq_avx2_f16, NULL),
                                        IQ_KERNEL_ENTRY("avx2", IQDB_SIMD_AVX2, iq_avx2_bf16, NULL),
                                        IQ_KERNEL_ENTRY("avx2", IQDB_SIMD_AVX2, iq_avx2_i8, NULL),
                                        IQ_KERNEL_ENTRY("avx2", IQDB_SIMD_AVX2, iq_avx2_u8, NULL),
                                        IQ_KERNEL_ENTRY("avx2", IQDB_SIMD_AVX2, iq_avx2_bit, iq_avx2_bit_near)};
    return &kernels[element - 1];
}

#endif
