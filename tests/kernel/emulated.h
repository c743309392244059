/* src/kernel/avx512.c with its instructions emulated by SIMDe (Debian: libsimde-dev), so that its arithmetic is tested
 * on every x86 machine. A machine that has the instructions runs the real kernel as well.
 *
 * Every intrinsic is emulated, the narrow ones too, and so a vector is an object in memory: IQ_STRICT_VECTOR becomes
 * IQ_STRICT_MEMORY in this program. Include it before kernels.h. */
#ifndef TEST_KERNEL_EMULATED_H
#define TEST_KERNEL_EMULATED_H

#include "kernel/kernel.h"
#include "kernel/strict.h"

#if IQ_X86 && defined(__has_include)
#if __has_include(<simde/x86/avx512.h>)
#define SIMDE_NO_NATIVE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

/* Debian 12's SIMDe lacks these. */
#undef __mmask16
#undef _mm512_maskz_loadu_ps
#define __mmask16 simde__mmask16
#define _mm512_maskz_loadu_ps(mask, p) emulated_maskz_loadu(mask, p)
static simde__m512 emulated_maskz_loadu(simde__mmask16 mask, const float *p) {
    float lanes[16];
    for (size_t j = 0; j < 16; j++) lanes[j] = (mask >> j & 1) != 0 ? p[j] : 0.0f;
    return simde_mm512_loadu_ps(lanes);
}

static inline simde__m512i emulated_dpbusd(simde__m512i sums, simde__m512i bytes, simde__m512i words) {
    int32_t sum[16];
    uint8_t a[64];
    int8_t b[64];
    memcpy(sum, &sums, 64);
    memcpy(a, &bytes, 64);
    memcpy(b, &words, 64);
    for (size_t i = 0; i < 64; i++) sum[i / 4] += a[i] * b[i];
    memcpy(&sums, sum, 64);
    return sums;
}
#undef _mm512_dpbusd_epi32
#undef _mm512_maskz_srli_epi32
#define _mm512_dpbusd_epi32(sums, bytes, words) emulated_dpbusd(sums, bytes, words)
#define _mm512_maskz_srli_epi32(mask, a, count) simde_mm512_srli_epi32(a, count) /* all lanes */

#undef IQ_STRICT_VECTOR
#define IQ_STRICT_VECTOR(v) IQ_STRICT_MEMORY(v)
#undef IQ_STRICT_VECTORS
#define IQ_STRICT_VECTORS(v0, v1, v2, v3) \
    do { \
        IQ_STRICT_VECTOR(v0); \
        IQ_STRICT_VECTOR(v1); \
        IQ_STRICT_VECTOR(v2); \
        IQ_STRICT_VECTOR(v3); \
    } while (0)
#define IQ_AVX512
#define iq_kernel_avx512 emulated_avx512
#include "kernel/avx512.c"
#undef iq_kernel_avx512
#define HAVE_EMULATED_AVX512 1
#endif
#endif

#endif
