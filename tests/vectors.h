/* What the tests of codes share: vectors of many kinds. */
#ifndef TEST_VECTORS_H
#define TEST_VECTORS_H

#include "support.h"

#include <math.h>

static inline float vectors_normal(uint64_t *random) {
    return support_random_float(random) + support_random_float(random) + support_random_float(random);
}

/* 2^e, -149 <= e <= 127. */
static inline float vectors_power(int e) { return ldexpf(1.0f, e); }

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
            const uint32_t bits = (uint32_t)dice;
            memcpy(&v, &bits, sizeof v);
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

#endif
