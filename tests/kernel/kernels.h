/* What the tests of this folder share: the kernels this machine can run, numbers that hurt, and the canonical order
 * written down a second time, naively. Volatile keeps the compiler from being clever under any flags. */
#ifndef TEST_KERNEL_KERNELS_H
#define TEST_KERNEL_KERNELS_H

#include "base/bytes.h"
#include "kernel/kernel.h"
#include "support.h"
#include "sys/sys.h"

static inline float model_sum(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    volatile float lane[32], term;
    for (int j = 0; j < 32; j++) lane[j] = 0.0f;
    for (size_t i = 0; i < dim; i++) {
        term = a[i] - b[i];
        if (kind == IQ_SUM_SQUARES) term = term * term;
        if (kind == IQ_SUM_ABSOLUTES && term < 0.0f) term = -term;
        if (kind == IQ_SUM_PRODUCTS) term = a[i] * b[i];
        lane[i % 32] = lane[i % 32] + term;
    }
    for (int j = 0; j < 16; j++) lane[j] = lane[j] + lane[j + 16];
    for (int j = 0; j < 8; j++) lane[j] = lane[j] + lane[j + 8];
    for (int j = 0; j < 4; j++) lane[j] = lane[j] + lane[j + 4];
    for (int j = 0; j < 2; j++) lane[j] = lane[j] + lane[j + 2];
    term = lane[0] + lane[1];
    return term;
}

/* All kernels that run here, the scalar one first and the best one last; returns how many. */
#define MODEL_KERNELS_MAX 6
static inline int model_kernels(const iq_kernel *kernels[MODEL_KERNELS_MAX]) {
    int count = 0;
    kernels[count++] = iq_kernel_scalar();
#if defined(HAVE_EMULATED_AVX512)
    kernels[count++] = emulated_avx512();
#endif
#if IQ_X86
    if ((iq_cpu_features() & IQ_CPU_SSE2) != 0) kernels[count++] = iq_kernel_quads();
    if ((iq_cpu_features() & IQ_CPU_AVX2) != 0) kernels[count++] = iq_kernel_avx2();
    if ((iq_cpu_features() & IQ_CPU_AVX512F) != 0) kernels[count++] = iq_kernel_avx512();
#endif
#if IQ_NEON
    kernels[count++] = iq_kernel_quads();
#endif
    return count;
}

/* Kinds of vectors: 0 ordinary, 1 of very different sizes, 2 anything finite, 3 huge, 4 tiny, 5 cancelling pairs. */
#define MODEL_KINDS 6
static inline float model_float(uint64_t *random, int kind, size_t i) {
    static const uint32_t special[] = {0x00000000u, 0x80000000u, 0x00000001u, 0x80000001u, 0x007FFFFFu, 0x00800000u,
                                       0x7F7FFFFFu, 0xFF7FFFFFu, 0x7E967699u, 0xFE967699u, 0x006CE3EEu, 0x3F800000u,
                                       0xBF800000u, 0x3F7FFFFFu, 0x34000000u, 0x5F7FFFFFu, 0x5F800000u, 0x1A3504F3u};
    const uint64_t r = support_random(random);
    const uint32_t sign = (uint32_t)(r >> 32) & 0x80000000u, digits = (uint32_t)r & 0x007FFFFFu;
    const uint32_t dice = (uint32_t)(r >> 23) & 0xFFu;
    if (kind == 1) return iq_f32_from_bits(sign | (97u + dice % 60u) << 23 | digits);
    if (kind == 2)
        return iq_f32_from_bits(dice < 64 ? special[dice % IQ_COUNT_OF(special)] : sign | (dice % 255u) << 23 | digits);
    if (kind == 3) return iq_f32_from_bits(sign | (185u + dice % 70u) << 23 | digits);
    if (kind == 4) return iq_f32_from_bits(sign | (dice % 70u) << 23 | digits);
    if (kind == 5) return (i / 32) % 2 == 0 ? 16777216.0f : -16777215.0f + (float)(dice % 3u);
    return support_random_float(random);
}
static inline void model_fill(float *v, size_t count, uint64_t *random, int kind) {
    for (size_t i = 0; i < count; i++) v[i] = model_float(random, kind, i);
}

/* The same bits, or both not a number. */
static inline bool model_same(float a, float b) {
    const uint32_t x = iq_f32_bits(a), y = iq_f32_bits(b);
    return x == y || ((x & 0x7FFFFFFFu) > 0x7F800000u && (y & 0x7FFFFFFFu) > 0x7F800000u);
}

#endif
