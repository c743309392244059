/* The scores a database must give, as the manual defines them and written without any thought for speed, and digests to
 * compare answers by. Needs nothing but the C library, so that it goes wherever iqdb.h goes. */
#ifndef TESTS_SCORES_H
#define TESTS_SCORES_H

#include <iqdb.h>

#include <math.h>
#include <string.h>

/* One canonical order: element i goes to lane i mod 32, multiply, then add, then the tree of 16, 8, 4, 2, 1. Where a sum
 * or a norm is not finite, all of it is done in double and rounded once. The volatile intermediates keep a compiler from
 * fusing or widening. */

typedef struct model_sums {
    float narrow;
    double wide; /* the same in double */
} model_sums;

typedef enum model_kind {
    MODEL_PRODUCTS,
    MODEL_SQUARES,
    MODEL_ABSOLUTES
} model_kind;

static inline model_sums model_sum(const float *a, const float *b, size_t dim, model_kind kind) {
    float lanes[32];
    double wide_lanes[32];
    memset(lanes, 0, sizeof lanes);
    memset(wide_lanes, 0, sizeof wide_lanes);
    for (size_t i = 0; i < dim; i++) {
        const volatile float difference = a[i] - b[i];
        const volatile float product = kind == MODEL_SQUARES     ? difference * difference
                                       : kind == MODEL_ABSOLUTES ? fabsf(difference)
                                                                 : a[i] * b[i];
        const volatile double wide_difference = (double)a[i] - (double)b[i];
        const volatile double wide_product = kind == MODEL_SQUARES     ? wide_difference * wide_difference
                                             : kind == MODEL_ABSOLUTES ? fabs(wide_difference)
                                                                       : (double)a[i] * (double)b[i];
        const volatile float sum = lanes[i % 32] + product;
        lanes[i % 32] = sum;
        wide_lanes[i % 32] += wide_product;
    }
    for (size_t width = 16; width >= 1; width /= 2) {
        for (size_t i = 0; i < width; i++) {
            const volatile float sum = lanes[i] + lanes[i + width];
            lanes[i] = sum;
            wide_lanes[i] += wide_lanes[i + width];
        }
    }
    model_sums sums;
    sums.narrow = lanes[0];
    sums.wide = wide_lanes[0];
    return sums;
}

static inline int model_is_finite(float x) { return x - x == 0.0f; }

static inline float model_root(model_sums sums) {
    const volatile float root = (float)sqrt(model_is_finite(sums.narrow) ? (double)sums.narrow : sums.wide);
    return root;
}

static inline float model_norm(const float *vector, size_t dim) {
    return model_root(model_sum(vector, vector, dim, MODEL_PRODUCTS));
}

/* a is the query or the first argument, b the row or the second. */
static inline float model_score(iqdb_metric metric, const float *a, const float *b, size_t dim) {
    const model_sums sums = model_sum(a, b, dim,
                                      metric == IQDB_L2   ? MODEL_SQUARES
                                      : metric == IQDB_L1 ? MODEL_ABSOLUTES
                                                          : MODEL_PRODUCTS);
    if (metric == IQDB_L1) return model_is_finite(sums.narrow) ? sums.narrow : (float)sums.wide;
    if (metric == IQDB_L2) return model_root(sums);
    if (metric == IQDB_DOT) {
        const volatile float score = model_is_finite(sums.narrow) ? 0.0f - sums.narrow : (float)(0.0 - sums.wide);
        return score;
    }
    const float norm_a = model_norm(a, dim), norm_b = model_norm(b, dim);
    if (norm_a == 0.0f || norm_b == 0.0f) return 1.0f;
    volatile float score;
    if (model_is_finite(sums.narrow) && model_is_finite(norm_a) && model_is_finite(norm_b)) {
        const volatile float by_a = sums.narrow / norm_a;
        const volatile float by_both = by_a / norm_b;
        score = 1.0f - by_both;
    } else {
        const volatile double by_a = sums.wide / sqrt(model_sum(a, a, dim, MODEL_PRODUCTS).wide);
        const volatile double by_both = by_a / sqrt(model_sum(b, b, dim, MODEL_PRODUCTS).wide);
        score = (float)(1.0 - by_both);
    }
    return score > 2.0f ? 2.0f : score > 0.0f ? score : 0.0f;
}

/* ---- Digests: FNV-1a, 64 bit ---- */

#define PUBLIC_DIGEST UINT64_C(0xcbf29ce484222325)

static inline uint64_t digest_bytes(uint64_t digest, const void *bytes, size_t size) {
    const unsigned char *byte = (const unsigned char *)bytes;
    for (size_t i = 0; i < size; i++) digest = (digest ^ byte[i]) * UINT64_C(0x100000001b3);
    return digest;
}

static inline uint64_t digest_u64(uint64_t digest, uint64_t value) {
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(value >> (8 * i));
    return digest_bytes(digest, bytes, 8);
}

static inline uint64_t digest_score(uint64_t digest, float score) {
    uint32_t bits;
    memcpy(&bits, &score, 4);
    return digest_u64(digest, bits);
}

#endif
