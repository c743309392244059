/* The canonical order in eight registers of four lanes: SSE2, NEON on 64-bit ARM, and WebAssembly.
 *
 * 1. Register r holds lanes 4r .. 4r + 3. Products and lanes pass through IQ_STRICT_VECTOR, so that no flag makes a
 *    compiler fuse or reorder them: gcc fuses vectors as it does a * b + c, unless it is told not to contract.
 * 2. Nothing outside a[0, dim) and b[0, dim) is read: a tail is copied between zeros first.
 * 3. The 64-bit unit of ARM keeps subnormals, as the canonical order wants; the 32-bit one flushes them and has no
 *    kernel. */
#include "kernel/kernel.h"
#include "kernel/strict.h"

#if IQ_QUADS

/* ---- what they do not share ---- */

#if IQ_X86

#include <immintrin.h>

typedef __m128 iq_quad;
#define IQ_QUAD_PASSES 2 /* there are 16 registers */

IQ_INLINE iq_quad iq_quad_load(const float *p) { return _mm_loadu_ps(p); }

IQ_INLINE iq_quad iq_quad_absolute(iq_quad v) { return _mm_and_ps(v, _mm_castsi128_ps(_mm_set1_epi32(0x7FFFFFFF))); }

/* Lanes 2 and 3 in the place of 0 and 1; lane 1 in the place of 0. */
IQ_INLINE iq_quad iq_quad_upper(iq_quad v) { return _mm_movehl_ps(v, v); }
IQ_INLINE iq_quad iq_quad_second(iq_quad v) { return _mm_shuffle_ps(v, v, 1); }

#elif IQ_WASM

#include <wasm_simd128.h>

typedef float iq_quad __attribute__((vector_size(16)));
#define IQ_QUAD_PASSES 2 /* engines give it the 16 registers of x86, or more */

IQ_INLINE iq_quad iq_quad_load(const float *p) { return (iq_quad)wasm_v128_load(p); }

IQ_INLINE iq_quad iq_quad_absolute(iq_quad v) { return (iq_quad)wasm_f32x4_abs((v128_t)v); }

IQ_INLINE iq_quad iq_quad_upper(iq_quad v) { return __builtin_shufflevector(v, v, 2, 3, 2, 3); }
IQ_INLINE iq_quad iq_quad_second(iq_quad v) { return __builtin_shufflevector(v, v, 1, 1, 1, 1); }

#else

#include <arm_neon.h>

typedef float32x4_t iq_quad;
#define IQ_QUAD_PASSES 1

IQ_INLINE iq_quad iq_quad_load(const float *p) { return vld1q_f32(p); }

IQ_INLINE iq_quad iq_quad_absolute(iq_quad v) { return vabsq_f32(v); }

IQ_INLINE iq_quad iq_quad_upper(iq_quad v) { return vextq_f32(v, v, 2); }
IQ_INLINE iq_quad iq_quad_second(iq_quad v) { return vextq_f32(v, v, 1); }

#endif

/* a * b + c, fused where there is an instruction */
IQ_INLINE iq_quad iq_quad_fma(iq_quad a, iq_quad b, iq_quad c) {
#if IQ_NEON
    return vfmaq_f32(c, a, b);
#else
    return a * b + c;
#endif
}

/* ---- sums ---- */

typedef struct iq_quad_half {
    iq_quad r0, r1, r2, r3;
} iq_quad_half;

typedef float iq_quad_item;
IQ_DEFINE_TERMS(iq_quad, , iq_quad, iq_quad_load, iq_quad_absolute, iq_quad_fma)

IQ_INLINE iq_quad_half iq_quad_half_zero(void) {
    const iq_quad zero = {0.0f, 0.0f, 0.0f, 0.0f};
    iq_quad_half half;
    half.r0 = half.r1 = half.r2 = half.r3 = zero;
    return half;
}

/* The fixed tree: 16, 8, 4, then 2 and 1 inside the register. */
IQ_INLINE float iq_quad_sum(const iq_quad_half *lower, const iq_quad_half *upper) {
    const iq_quad s0 = iq_quad_plus(lower->r0, upper->r0), s1 = iq_quad_plus(lower->r1, upper->r1);
    const iq_quad s2 = iq_quad_plus(lower->r2, upper->r2), s3 = iq_quad_plus(lower->r3, upper->r3);
    iq_quad s = iq_quad_plus(iq_quad_plus(s0, s2), iq_quad_plus(s1, s3));
    s = iq_quad_plus(s, iq_quad_upper(s));
    s = iq_quad_plus(s, iq_quad_second(s));
    return s[0];
}

IQ_INLINE void iq_quad_half_step(iq_quad_half *half, const float *a, const float *b, iq_sum_kind kind) {
    half->r0 = iq_quad_term(half->r0, iq_quad_load(a), iq_quad_load(b), kind);
    half->r1 = iq_quad_term(half->r1, iq_quad_load(a + 4), iq_quad_load(b + 4), kind);
    half->r2 = iq_quad_term(half->r2, iq_quad_load(a + 8), iq_quad_load(b + 8), kind);
    half->r3 = iq_quad_term(half->r3, iq_quad_load(a + 12), iq_quad_load(b + 12), kind);
    IQ_STRICT_VECTORS(half->r0, half->r1, half->r2, half->r3);
}

IQ_INLINE void iq_quad_half_tail(iq_quad_half *half, const float *a, const float *b, size_t count, iq_sum_kind kind) {
    float tail_a[16], tail_b[16];
    memset(tail_a, 0, sizeof tail_a);
    memset(tail_b, 0, sizeof tail_b);
    memcpy(tail_a, a, count * sizeof(float));
    memcpy(tail_b, b, count * sizeof(float));
    iq_quad_half_step(half, tail_a, tail_b, kind);
}

IQ_INLINE void iq_quad_half_terms(iq_quad_half *a, iq_quad_half *b, iq_quad_half *c, const float *query,
                                  const float *rows, size_t apart, iq_sum_kind kind) {
    iq_quad_terms(&a->r0, &b->r0, &c->r0, query, rows, apart, kind);
    iq_quad_terms(&a->r1, &b->r1, &c->r1, query + 4, rows + 4, apart, kind);
    iq_quad_terms(&a->r2, &b->r2, &c->r2, query + 8, rows + 8, apart, kind);
    iq_quad_terms(&a->r3, &b->r3, &c->r3, query + 12, rows + 12, apart, kind);
}

IQ_DEFINE_LANES(iq_quad, , IQ_QUAD_PASSES)
IQ_DEFINE_STREAM(iq_quad, )
IQ_DEFINE_SCAN(iq_quad, )

IQ_DEFINE_KERNEL(iq_quad, , iq_kernel_quads,
                 IQ_X86    ? "sse2"
                 : IQ_NEON ? "neon"
                           : "wasm",
                 IQ_X86    ? IQDB_SIMD_SSE2
                 : IQ_NEON ? IQDB_SIMD_NEON
                           : IQDB_SIMD_WASM,
                 iq_elements_scalar)

#endif
