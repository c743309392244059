/* The canonical order in two AVX-512 registers of sixteen lanes.
 *
 * 1. Register r holds lanes 16r .. 16r + 15. Products and lanes pass through IQ_STRICT_VECTOR, so that neither -mfma
 *    nor -ffast-math can fuse or reorder them.
 * 2. Nothing outside a[0, dim) and b[0, dim) is read: tails are masked loads.
 * 3. The foundation, AVX-512F, is all that is used. Halves are taken with maskz intrinsics, whose mask costs nothing:
 *    the plain ones, and _mm512_reduce_add_ps, make g++ 12 warn about variables inside its own header. */
#include "kernel/kernel.h"
#include "kernel/strict.h"

#if IQ_X86

/* A test brings both, to emulate the instructions where the machine has none. */
#if !defined(IQ_AVX512)
#include <immintrin.h>
/* clang 18 to 21 want 512-bit registers named apart where the program is built without them; clang 22 forgot the
 * name again. */
#if defined(__clang__) && __clang_major__ >= 18 && __clang_major__ <= 21
#define IQ_AVX512 IQ_TARGET("avx512f,evex512")
#else
#define IQ_AVX512 IQ_TARGET("avx512f")
#endif
#endif

typedef struct iq_avx512_half {
    __m512 r0;
} iq_avx512_half;

typedef float iq_avx512_item;
IQ_DEFINE_TERMS(iq_avx512, IQ_AVX512, __m512, _mm512_loadu_ps, _mm512_abs_ps, _mm512_fmadd_ps)
IQ_DEFINE_PLUS(iq_avx512_plus_half, IQ_AVX512, __m256)
IQ_DEFINE_PLUS(iq_avx512_plus_quarter, IQ_AVX512, __m128)

IQ_INLINE IQ_AVX512 iq_avx512_half iq_avx512_half_zero(void) {
    iq_avx512_half half;
    half.r0 = _mm512_setzero_ps();
    return half;
}

/* lanes[j] + lanes[j + 8]. */
IQ_INLINE IQ_AVX512 __m256 iq_avx512_fold(__m512 lanes) {
    const __m256d lower = _mm512_maskz_extractf64x4_pd(0xFF, _mm512_castps_pd(lanes), 0);
    const __m256d upper = _mm512_maskz_extractf64x4_pd(0xFF, _mm512_castps_pd(lanes), 1);
    return iq_avx512_plus_half(_mm256_castpd_ps(lower), _mm256_castpd_ps(upper));
}

/* The fixed tree: 16, then 8, 4, 2 and 1 inside the register. */
IQ_INLINE IQ_AVX512 float iq_avx512_sum(const iq_avx512_half *lower, const iq_avx512_half *upper) {
    const __m256 s8 = iq_avx512_fold(iq_avx512_plus(lower->r0, upper->r0));
    __m128 s = iq_avx512_plus_quarter(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    s = iq_avx512_plus_quarter(s, _mm_movehl_ps(s, s));
    s = iq_avx512_plus_quarter(s, _mm_shuffle_ps(s, s, 1));
    return _mm_cvtss_f32(s);
}

IQ_INLINE IQ_AVX512 void iq_avx512_half_step(iq_avx512_half *half, const float *a, const float *b, iq_sum_kind kind) {
    half->r0 = iq_avx512_term(half->r0, _mm512_loadu_ps(a), _mm512_loadu_ps(b), kind);
    IQ_STRICT_VECTOR(half->r0);
}

IQ_INLINE IQ_AVX512 void iq_avx512_half_tail(iq_avx512_half *half, const float *a, const float *b, size_t count,
                                             iq_sum_kind kind) {
    const __mmask16 mask = (__mmask16)((1u << count) - 1u);
    half->r0 = iq_avx512_term(half->r0, _mm512_maskz_loadu_ps(mask, a), _mm512_maskz_loadu_ps(mask, b), kind);
}

IQ_INLINE IQ_AVX512 void iq_avx512_half_terms(iq_avx512_half *a, iq_avx512_half *b, iq_avx512_half *c,
                                              const float *query, const float *rows, size_t apart, iq_sum_kind kind) {
    iq_avx512_terms(&a->r0, &b->r0, &c->r0, query, rows, apart, kind);
}

/* The six registers of a tile's lanes are as many sums as the units can have under way. */
IQ_DEFINE_LANES(iq_avx512, IQ_AVX512, 1)
IQ_DEFINE_STREAM(iq_avx512, IQ_AVX512)
IQ_DEFINE_SCAN(iq_avx512, IQ_AVX512)

IQ_DEFINE_KERNEL(iq_avx512, IQ_AVX512, iq_kernel_avx512, "avx512", IQDB_SIMD_AVX512, iq_elements_avx2)

#endif
