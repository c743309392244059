/* What the tests of coded search share: vectors of many kinds, matrices, and all ways to scan codes. */
#ifndef TEST_INDEX_VECTORS_H
#define TEST_INDEX_VECTORS_H

#include "base/bytes.h"
#include "index/quant.h"
#include "support.h"
#include "sys/sys.h"

#include <math.h>

#define VECTORS_WAYS_MAX 6
static inline int vectors_ways(const iq_codes *out[VECTORS_WAYS_MAX]) {
    const uint32_t features = iq_cpu_features();
    int count = 0;
    out[count++] = iq_codes_scalar();
    (void)features;
#if IQ_X86
    if ((features & IQ_CPU_SSSE3) != 0) out[count++] = iq_codes_ssse3();
    if ((features & IQ_CPU_AVX2) != 0) out[count++] = iq_codes_avx2();
    if ((features & IQ_CPU_AVX512F) != 0 && (features & IQ_CPU_AVX512VNNI) != 0) out[count++] = iq_codes_avx512();
#endif
#if IQ_NEON
    out[count++] = iq_codes_neon();
#if IQ_CODES_DOTPROD
    if ((features & IQ_CPU_ARM_DOTPROD) != 0) out[count++] = iq_codes_dotprod();
#endif
#endif
    return count;
}

static inline float vectors_normal(uint64_t *random) {
    return support_random_float(random) + support_random_float(random) + support_random_float(random);
}

/* 2^e, -149 <= e <= 127. */
static inline float vectors_power(int e) {
    return ldexpf(1.0f, e);
}

static const char *const vectors_kinds[] = {
    "clusters",  "cube",       "small integers", "other sizes", "huge", "tiny",    "outliers", "one-hot",
    "few equal", "some zeros", "unit length",    "offset",      "any",  "octaves", "edges"};
#define VECTORS_KINDS 15

/* Row `i` of a set of this kind; `seed` tells sets apart. */
static inline void vectors_row(float *out, uint32_t dim, int kind, uint64_t seed, uint64_t i) {
    uint64_t random = seed * 1000003 + i, centre = seed * 7919 + i % 7, shared = seed;
    if (kind == 8) random = seed * 1000003 + i % 5;
    const float size = kind == 3    ? vectors_power((int)support_random_below(&random, 20) - 10)
                       : kind == 4  ? vectors_power(55 + (int)support_random_below(&random, 10))
                       : kind == 5  ? vectors_power(-(int)support_random_below(&random, 90) - 40)
                       : kind == 13 ? vectors_power((int)support_random_below(&random, 120) - 60)
                                    : 1.0f;
    for (uint32_t d = 0; d < dim; d++) {
        const uint64_t dice = support_random(&random);
        float v = vectors_normal(&random);
        if (kind == 0 || kind == 10) v = vectors_normal(&centre) + 0.4f * v;
        if (kind == 1) v = support_random_float(&random);
        if (kind == 2) v = (float)(dice % 4);
        if (kind == 6) v *= dice % 37 == 0 ? 300.0f : 1.0f;
        if (kind == 7) v = d == i % dim ? 1.0f + (float)(i % 3) : 0.0f;
        if (kind == 9 && i % 4 == 0) v = 0.0f;
        if (kind == 11) v = 100.0f * vectors_normal(&shared) + 0.01f * v;
        if (kind == 12) {
            v = iq_f32_from_bits((uint32_t)dice);
            if (!(v < 3e38f && v > -3e38f)) v = 1.0f;
        }
        if (kind == 14) v = dice % 3 == 0 ? 3.4028234e38f : dice % 3 == 1 ? -1e-45f : 1.5e19f;
        out[d] = v * size;
    }
    if (kind == 10) {
        double sum = 0;
        for (uint32_t d = 0; d < dim; d++) sum += (double)out[d] * (double)out[d];
        for (uint32_t d = 0; d < dim; d++) out[d] = (float)((double)out[d] / sqrt(sum > 0 ? sum : 1.0));
    }
}

/* `head` orthonormal rows by Gram and Schmidt in double precision, and what is missing to orthonormality once they are
 * floats. The rows mix the first dimensions more than the last, as a basis for data would. */
static inline float vectors_matrix(float *out, uint32_t dim, uint32_t head, uint64_t seed) {
    const size_t stride = iq_row_stride(dim);
    double *rows = (double *)malloc(sizeof(double) * head * dim), missing = 0;
    memset(out, 0, sizeof(float) * stride * head);
    for (uint32_t i = 0; i < head; i++) {
        double *row = rows + (size_t)i * dim, sum = 0;
        for (uint32_t d = 0; d < dim; d++) row[d] = (double)vectors_normal(&seed) / (1.0 + 3.0 * d / dim);
        for (int twice = 0; twice < 2; twice++) {
            for (uint32_t j = 0; j < i; j++) {
                double dot = 0;
                for (uint32_t d = 0; d < dim; d++) dot += row[d] * rows[(size_t)j * dim + d];
                for (uint32_t d = 0; d < dim; d++) row[d] -= dot * rows[(size_t)j * dim + d];
            }
        }
        for (uint32_t d = 0; d < dim; d++) sum += row[d] * row[d];
        for (uint32_t d = 0; d < dim; d++) {
            out[i * stride + d] = (float)(row[d] / sqrt(sum));
            row[d] = row[d] / sqrt(sum);
        }
    }
    for (uint32_t i = 0; i < head; i++) {
        for (uint32_t j = 0; j < head; j++) {
            double dot = i == j ? -1.0 : 0.0;
            for (uint32_t d = 0; d < dim; d++) dot += (double)out[i * stride + d] * (double)out[j * stride + d];
            missing += dot * dot;
        }
    }
    free(rows);
    return (float)(sqrt(missing) * 1.001);
}

#endif
