/* Scores: the rules of the contract written a second time, hostile numbers, bounds that never discard too much, and a
 * hash of score bits that is the same on every machine. */
#include "base/topk.h"
#include "kernel/distance.h"

#include "test.h"

#include "kernels.h"

#include <math.h>

static const iqdb_metric metrics[4] = {IQDB_L2, IQDB_COSINE, IQDB_DOT, IQDB_L1};

/* What is summed up for a metric. */
static iq_sum_kind kind_of(iqdb_metric metric) {
    return metric == IQDB_L2 ? IQ_SUM_SQUARES : metric == IQDB_L1 ? IQ_SUM_ABSOLUTES : IQ_SUM_PRODUCTS;
}
static const float infinite = INFINITY;

static bool finite_bits(float v) { return (iq_f32_bits(v) & 0x7F800000u) != 0x7F800000u; }

static double model_sum_f64(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    volatile double lane[32], term;
    for (int j = 0; j < 32; j++) lane[j] = 0.0;
    for (size_t i = 0; i < dim; i++) {
        const double x = (double)a[i], y = (double)b[i];
        term = kind == IQ_SUM_PRODUCTS ? x * y : x - y;
        if (kind == IQ_SUM_SQUARES) term = term * term;
        if (kind == IQ_SUM_ABSOLUTES) term = fabs(term);
        lane[i % 32] = lane[i % 32] + term;
    }
    for (int half = 16; half > 0; half /= 2)
        for (int j = 0; j < half; j++) lane[j] = lane[j] + lane[j + half];
    return lane[0];
}

static float model_norm(const float *v, size_t dim) {
    volatile float sum = model_sum(v, v, dim, IQ_SUM_PRODUCTS), root;
    if (finite_bits(sum)) {
        root = sqrtf(sum);
        return root;
    }
    volatile double wide = sqrt(model_sum_f64(v, v, dim, IQ_SUM_PRODUCTS));
    root = (float)wide;
    return root;
}

static double model_score_f64(iqdb_metric metric, const float *a, const float *b, size_t dim) {
    volatile double score = model_sum_f64(a, b, dim, kind_of(metric));
    if (metric == IQDB_L1) return score;
    if (metric == IQDB_L2) return sqrt(score);
    if (metric == IQDB_DOT) return score == 0.0 ? 0.0 : -score;
    score = score / sqrt(model_sum_f64(a, a, dim, IQ_SUM_PRODUCTS));
    score = score / sqrt(model_sum_f64(b, b, dim, IQ_SUM_PRODUCTS));
    score = 1.0 - score;
    return score < 0.0 ? 0.0 : score > 2.0 ? 2.0 : score;
}

static float model_score(iqdb_metric metric, const float *a, const float *b, size_t dim) {
    volatile float score = model_sum(a, b, dim, kind_of(metric));
    const float norm_a = model_norm(a, dim), norm_b = model_norm(b, dim);
    const bool cosine = metric == IQDB_COSINE;
    if (cosine && (norm_a == 0.0f || norm_b == 0.0f)) return 1.0f;
    if (!finite_bits(score) || (cosine && (!finite_bits(norm_a) || !finite_bits(norm_b)))) {
        volatile double wide = model_score_f64(metric, a, b, dim);
        score = (float)wide;
    } else if (metric == IQDB_L2) {
        score = sqrtf(score);
    } else if (metric == IQDB_DOT) {
        score = score == 0.0f ? 0.0f : -score;
    } else if (metric == IQDB_COSINE) {
        score = score / norm_a;
        score = score / norm_b;
        score = 1.0f - score;
        if (score < 0.0f) score = 0.0f;
        if (score > 2.0f) score = 2.0f;
    }
    return score;
}

/* Through a kernel's pair function, as a program with a handle would get it. */
static float kernel_score(const iq_kernel *kernel, iqdb_metric metric, const float *a, const float *b, size_t dim) {
    const float norm_a = iq_vector_norm_of(kernel, a, dim), norm_b = iq_vector_norm_of(kernel, b, dim);
    return iq_score_finish(metric, kernel->pair(a, b, dim, iq_score_sum_kind(metric)), norm_a, norm_b, IQDB_ELEMENT_F32,
                           a, b, dim);
}

static bool scores_match(const float *a, const float *b, size_t dim) {
    const iq_kernel *kernels[MODEL_KERNELS_MAX];
    const int count = model_kernels(kernels);
    bool good = true;
    for (int m = 0; m < 4; m++) {
        const float expected = model_score(metrics[m], a, b, dim);
        float score = -1.0f;
        good = EXPECT((iq_f32_bits(expected) & 0x7FFFFFFFu) <= 0x7F800000u) && good; /* a number */
        good = EXPECT(iq_f32_bits(expected) != 0x80000000u) && good;
        good = EXPECT(iqdb_distance(metrics[m], a, b, dim, &score) == IQDB_OK) && good;
        good = EXPECT(iq_f32_bits(score) == iq_f32_bits(expected)) && good;
        for (int k = 0; k < count; k++) {
            score = kernel_score(kernels[k], metrics[m], a, b, dim);
            good = EXPECT(iq_f32_bits(score) == iq_f32_bits(expected)) && good;
        }
        if (!good) printf(" (metric %d, dim %zu)", (int)metrics[m], dim);
    }
    good = EXPECT(iq_f32_bits(iqdb_vector_norm(a, dim)) == iq_f32_bits(model_norm(a, dim))) && good;
    return good;
}

static void scores_follow_the_rules(void) {
    float a[300], b[300];
    uint64_t random = 1;
    for (size_t dim = 1; dim <= 300; dim++) {
        for (int round = 0; round < 2 * MODEL_KINDS; round++) {
            model_fill(a, dim, &random, round % MODEL_KINDS);
            model_fill(b, dim, &random, (round * 5 + 1) % MODEL_KINDS);
            CHECK(scores_match(a, b, dim));
            memcpy(b, a, sizeof b);
            CHECK(scores_match(a, b, dim));
            for (size_t i = 0; i < dim; i++) b[i] = -a[i];
            CHECK(scores_match(a, b, dim));
        }
    }
}

static float distance(iqdb_metric metric, const float *a, const float *b, size_t dim) {
    float score = -77.0f;
    EXPECT(iqdb_distance(metric, a, b, dim, &score) == IQDB_OK);
    return score;
}

static void values_known_by_hand(void) {
    const float x[2] = {3.0f, 0.0f}, y[2] = {0.0f, 4.0f}, minus[2] = {-3.0f, 0.0f}, zero[2] = {0.0f, -0.0f};
    CHECK_EQ_F32(distance(IQDB_L2, x, y, 2), 5.0f);
    CHECK_EQ_F32(distance(IQDB_L2, x, x, 2), 0.0f);
    CHECK_EQ_F32(distance(IQDB_DOT, x, y, 2), 0.0f);
    CHECK_EQ_F32(distance(IQDB_DOT, x, x, 2), -9.0f);
    CHECK_EQ_F32(distance(IQDB_DOT, x, minus, 2), 9.0f);
    CHECK_EQ_F32(distance(IQDB_DOT, zero, minus, 2), 0.0f);
    CHECK_EQ_F32(distance(IQDB_COSINE, x, y, 2), 1.0f);
    CHECK_EQ_F32(distance(IQDB_COSINE, x, x, 2), 0.0f);
    CHECK_EQ_F32(distance(IQDB_COSINE, x, minus, 2), 2.0f);
    CHECK_EQ_F32(distance(IQDB_COSINE, x, zero, 2), 1.0f);
    CHECK_EQ_F32(distance(IQDB_COSINE, zero, x, 2), 1.0f);
    CHECK_EQ_F32(distance(IQDB_COSINE, zero, zero, 2), 1.0f);
    CHECK_EQ_F32(distance(IQDB_METRIC_DEFAULT, x, minus, 2), 2.0f);
    /* A norm that lost a fifth to subnormal rounding: only clamping keeps these scores in their range. */
    const float small[1] = {4.58e-23f}, one[1] = {1.0f}, minus_one[1] = {-1.0f};
    CHECK_EQ_F32(distance(IQDB_COSINE, small, one, 1), 0.0f);
    CHECK_EQ_F32(distance(IQDB_COSINE, small, minus_one, 1), 2.0f);
    CHECK_EQ_F32(iqdb_vector_norm(x, 2), 3.0f);
    CHECK_EQ_F32(iqdb_vector_norm(zero, 2), 0.0f);
}

/* Sums beyond f32: what is returned is the true value, rounded. */
static void overflow_is_done_again_in_f64(void) {
    const float largest = 3.402823466e+38f;
    const float a[3] = {2e38f, 2e38f, 1e38f}, b[3] = {-2e38f, 1e38f, 0.0f}, tiny[3] = {1e-30f, 0.0f, 0.0f};
    float corner[64], other[64];
    CHECK_EQ_F32(distance(IQDB_L2, a, b, 3), infinite); /* 4.2e38 is no f32 */
    const float c[2] = {3e30f, 0.0f}, d[2] = {0.0f, -4e30f};
    CHECK_EQ_F32(distance(IQDB_L2, c, d, 2), 5e30f);
    CHECK_EQ_F32(distance(IQDB_DOT, c, c, 2), -infinite);
    CHECK_EQ_F32(distance(IQDB_DOT, c, d, 2), 0.0f);
    CHECK_EQ_F32(iqdb_vector_norm(c, 2), 3e30f);
    CHECK_EQ_F32(distance(IQDB_COSINE, c, d, 2), 1.0f);
    CHECK_EQ_F32(distance(IQDB_COSINE, c, c, 2), 0.0f);
    CHECK_EQ_F32(distance(IQDB_COSINE, a, tiny, 3), 1.0f); /* the norm of tiny is 0 as it is stored */
    /* +inf and -inf meet in one sum: NaN in f32, and exactly this in f64. */
    memset(corner, 0, sizeof corner);
    memset(other, 0, sizeof other);
    corner[0] = corner[16] = other[0] = largest; /* lanes 0 and 16 meet first */
    other[16] = -largest;
    corner[1] = 3.0f;
    other[1] = 5.0f;
    CHECK_EQ_F32(distance(IQDB_DOT, corner, other, 64), -15.0f);
    /* Two lanes overflow, the whole does not. */
    memset(corner, 0, sizeof corner);
    memset(other, 0, sizeof other);
    corner[0] = corner[32] = corner[16] = corner[48] = 1.5e19f;
    other[0] = other[32] = -1.5e19f;
    other[16] = other[48] = 1.5e19f;
    corner[1] = other[1] = 2.0f;
    CHECK_EQ_F32(distance(IQDB_DOT, corner, other, 64), -4.0f);
    corner[1] = 0.0f;
    CHECK_EQ_F32(distance(IQDB_DOT, corner, other, 64), 0.0f); /* not -0 */
    /* A norm that is infinite even when it is rounded last. */
    const float g[2] = {largest, largest}, h[2] = {largest, -largest};
    CHECK_EQ_F32(iqdb_vector_norm(g, 2), infinite);
    CHECK_EQ_F32(distance(IQDB_COSINE, g, h, 2), 1.0f);
    CHECK_EQ_F32(distance(IQDB_COSINE, g, g, 2), 0.0f);
}

static void close_to_double_precision(void) {
    float a[300], b[300];
    uint64_t random = 2;
    for (size_t dim = 1; dim <= 300; dim++) {
        for (int round = 0; round < 10; round++) {
            model_fill(a, dim, &random, 0);
            model_fill(b, dim, &random, 0);
            /* A term is rounded 3 times, then by up to 10 additions in its lane and 5 in the tree; the rest is rounded
             * less than 4 times, and a cosine has three sums. */
            const double unit = 22.0 / 16777216.0, size = model_score_f64(IQDB_L2, a, b, dim);
            double lengths =
                sqrt(model_sum_f64(a, a, dim, IQ_SUM_PRODUCTS)) * sqrt(model_sum_f64(b, b, dim, IQ_SUM_PRODUCTS));
            CHECK(fabs((double)distance(IQDB_L2, a, b, dim) - size) <= unit * size);
            CHECK(fabs((double)distance(IQDB_DOT, a, b, dim) - model_score_f64(IQDB_DOT, a, b, dim)) <=
                  unit * lengths + 1e-44);
            if (lengths > 1e-20)
                CHECK(fabs((double)distance(IQDB_COSINE, a, b, dim) - model_score_f64(IQDB_COSINE, a, b, dim)) <=
                      3.0 * unit);
        }
    }
}

static void refusals_come_in_their_order(void) {
    static float big[65537];
    const float v[2] = {1.0f, 2.0f}, inf[2] = {1.0f, infinite}, nan[2] = {iq_f32_from_bits(0x7FC00000u), 0.0f};
    float out = 42.0f;
    CHECK_EQ_INT(iqdb_distance(IQDB_L2, NULL, v, 2, &out), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_distance(IQDB_L2, v, NULL, 0, &out), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_distance(IQDB_L2, v, nan, 2, NULL), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_distance((iqdb_metric)6, nan, v, 0, &out), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_distance((iqdb_metric)-1, v, v, 2, &out), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_distance(IQDB_L2, v, v, 0, &out), IQDB_ERR_INVALID_VECTOR);
    CHECK_EQ_INT(iqdb_distance(IQDB_L2, big, big, 65537, &out), IQDB_ERR_INVALID_VECTOR);
    CHECK_EQ_INT(iqdb_distance(IQDB_L2, v, inf, 2, &out), IQDB_ERR_INVALID_VECTOR);
    CHECK_EQ_INT(iqdb_distance(IQDB_L2, nan, v, 2, &out), IQDB_ERR_INVALID_VECTOR);
    CHECK_EQ_F32(out, 42.0f);
    CHECK_EQ_INT(iqdb_distance(IQDB_L2, big, big, 65536, &out), IQDB_OK);
    CHECK_EQ_F32(out, 0.0f);
    CHECK_EQ_INT(iqdb_vector_check(NULL, 2), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_vector_check(v, 0), IQDB_ERR_INVALID_VECTOR);
    CHECK_EQ_INT(iqdb_vector_check(big, 65537), IQDB_ERR_INVALID_VECTOR);
    CHECK_EQ_INT(iqdb_vector_check(big, 65536), IQDB_OK);
    CHECK_EQ_F32(iqdb_vector_norm(NULL, 2), 0.0f);
    CHECK_EQ_F32(iqdb_vector_norm(v, 0), 0.0f);
    CHECK_EQ_F32(iqdb_vector_norm(inf, 2), 0.0f);
    CHECK_EQ_F32(iqdb_vector_norm(nan, 2), 0.0f);
    for (size_t i = 0; i < 300; i++) { /* each place, both signs, every kind of not finite */
        static const uint32_t bad[] = {0x7F800000u, 0xFF800000u, 0x7F800001u, 0xFFFFFFFFu};
        big[i] = iq_f32_from_bits(bad[i % 4]);
        CHECK_EQ_INT(iqdb_vector_check(big, i + 1), IQDB_ERR_INVALID_VECTOR);
        CHECK_EQ_INT(iqdb_vector_check(big, i == 0 ? 1 : i), i == 0 ? IQDB_ERR_INVALID_VECTOR : IQDB_OK);
        big[i] = iq_f32_from_bits(i % 2 == 0 ? 0x7F7FFFFFu : 0x80000001u);
    }
}

/* ---- bounds ---- */

static float up(float v) { return nextafterf(v, infinite); }
static float down(float v) { return nextafterf(v, -infinite); }

static float any_size(uint64_t *random) { /* a positive number, or zero */
    const uint64_t r = support_random(random);
    return iq_f32_from_bits((uint32_t)(r % 255u) << 23 | (uint32_t)(r >> 40 & 0x7FFFFFu));
}

/* What is discarded must rank behind every hit with the threshold's score. Vectors are not needed: sums are finite,
 * norms finite where they count, so nothing is done again. */
static bool discards_rightly(iqdb_metric metric, float sum, float norm_a, float norm_b, float threshold) {
    const float bound = iq_score_sum_bound(metric, threshold, norm_a);
    if (!iq_score_is_beyond(metric, sum, norm_b, bound)) return true;
    const float score = iq_score_finish(metric, sum, norm_a, norm_b, IQDB_ELEMENT_F32, NULL, NULL, 0);
    if (EXPECT(iq_score_key(score) > iq_score_key(threshold))) return true;
    printf(" (metric %d, sum %a, norms %a %a, score %a, threshold %a)", (int)metric, (double)sum, (double)norm_a,
           (double)norm_b, (double)score, (double)threshold);
    return false;
}

static const float odd_thresholds[] = {0.0f,    -0.0f,   1e-45f, 1.17549435e-38f,  3.7e-23f,          1.0f,  2.0f,
                                       1.8e19f, 1.9e19f, 1e-38f, 3.402823466e+38f, -3.402823466e+38f, -1.0f, -1e-45f};

static void bounds_never_discard_too_much(void) {
    uint64_t random = 3;
    for (size_t round = 0; round < support_amount(20000, 400000, 10000000); round++) {
        const iqdb_metric metric = metrics[round % 4];
        const float norm_a = any_size(&random);
        float norm_b = any_size(&random), sum = any_size(&random), threshold = 0.0f;
        if (metric == IQDB_COSINE && round % 2 == 0) { /* a sum that norms like these can have, where they can */
            norm_b = norm_a > 0.0f && norm_a < 1e25f ? any_size(&random) / 1e10f : norm_b;
            sum = norm_a * norm_b * support_random_float(&random);
        } else if (metric != IQDB_L2 && (support_random(&random) & 1) != 0) {
            sum = -sum;
        }
        if (!finite_bits(sum)) continue;
        /* The threshold is the score of a sum close by, or anything. */
        float near_sum = sum;
        for (uint64_t steps = support_random_below(&random, 6); steps > 0; steps--)
            near_sum = round % 4 < 2 ? up(near_sum) : metric == IQDB_L2 ? near_sum : down(near_sum);
        if (!finite_bits(near_sum)) continue;
        const uint64_t dice = support_random_below(&random, 16);
        if (dice == 0)
            threshold = odd_thresholds[support_random_below(&random, IQ_COUNT_OF(odd_thresholds))];
        else if (dice == 1)
            threshold = any_size(&random);
        else
            threshold = iq_score_finish(metric, near_sum, norm_a, norm_b, IQDB_ELEMENT_F32, NULL, NULL, 0);
        CHECK(discards_rightly(metric, sum, norm_a, norm_b, threshold));
        if (!finite_bits(threshold)) continue;
        CHECK(discards_rightly(metric, sum, norm_a, norm_b, up(threshold)));
        CHECK(discards_rightly(metric, sum, norm_a, norm_b, down(threshold)));
        /* And sums right beside the bound. */
        float edge = iq_score_sum_bound(metric, threshold, norm_a);
        if (metric == IQDB_COSINE) edge *= norm_b;
        if (!finite_bits(edge) || (metric == IQDB_L2 && edge <= 0.0f)) continue;
        CHECK(discards_rightly(metric, up(edge), norm_a, norm_b, threshold));
        CHECK(discards_rightly(metric, edge, norm_a, norm_b, threshold));
        CHECK(discards_rightly(metric, down(edge), norm_a, norm_b, threshold));
    }
}

static void bounds_say_nothing_where_unsure(void) {
    const float nan = iq_f32_from_bits(0x7FC00000u);
    const float thresholds[3] = {infinite, nan, iq_f32_from_bits(0xFFC00000u)};
    for (int m = 0; m < 4; m++) {
        for (int t = 0; t < 3; t++) {
            const float bound = iq_score_sum_bound(metrics[m], thresholds[t], 1.0f);
            CHECK(!iq_score_is_beyond(metrics[m], 3e38f, 1.0f, bound));
            CHECK(!iq_score_is_beyond(metrics[m], -3e38f, 1.0f, bound));
        }
        /* Sums that will be done again. */
        const float bound = iq_score_sum_bound(metrics[m], 0.5f, 1.0f);
        CHECK(!iq_score_is_beyond(metrics[m], infinite, 1.0f, bound));
        CHECK(!iq_score_is_beyond(metrics[m], -infinite, 1.0f, bound));
        CHECK(!iq_score_is_beyond(metrics[m], nan, 1.0f, bound));
    }
    /* Norms that will be done again, or are zero; scores of 2 are all admitted. */
    const float bound = iq_score_sum_bound(IQDB_COSINE, 0.5f, 1.0f);
    CHECK(iq_score_is_beyond(IQDB_COSINE, -5.0f, 1.0f, bound));
    CHECK(!iq_score_is_beyond(IQDB_COSINE, -5.0f, infinite, bound));
    CHECK(!iq_score_is_beyond(IQDB_COSINE, -5.0f, 0.0f, bound));
    CHECK(!iq_score_is_beyond(IQDB_COSINE, -5.0f, 1e-20f, bound));
    CHECK(!iq_score_is_beyond(IQDB_COSINE, -5.0f, 1.0f, iq_score_sum_bound(IQDB_COSINE, 0.5f, infinite)));
    CHECK(!iq_score_is_beyond(IQDB_COSINE, -5.0f, 1.0f, iq_score_sum_bound(IQDB_COSINE, 0.5f, 0.0f)));
    CHECK(!iq_score_is_beyond(IQDB_COSINE, -5.0f, 1.0f, iq_score_sum_bound(IQDB_COSINE, 2.0f, 1.0f)));
}

/* Bounds that discarded nothing would pass the tests above. */
static void bounds_are_tight(void) {
    uint64_t random = 4;
    for (int round = 0; round < 100000; round++) {
        const float score = iq_f32_from_bits(0x21800000u + (uint32_t)support_random_below(&random, 0x3D000000u));
        const float bound = iq_score_sum_bound(IQDB_L2, score, 0.0f); /* scores of 2^-60 to 2^62 */
        CHECK(iq_score_is_beyond(IQDB_L2, up(bound), 0.0f, bound));
        CHECK(iq_score_key(iq_score_finish(IQDB_L2, down(bound), 0.0f, 0.0f, IQDB_ELEMENT_F32, NULL, NULL, 0)) <=
              iq_score_key(score));
        CHECK(iq_score_is_beyond(IQDB_DOT, down(-score), 0.0f, iq_score_sum_bound(IQDB_DOT, score, 0.0f)));
        const float norm_a = 1.0f + support_random_float(&random) / 2.0f;
        const float norm_b = 1.0f + support_random_float(&random) / 2.0f;
        const float cosine = support_random_float(&random) * 0.999f;
        CHECK(iq_score_is_beyond(IQDB_COSINE, (cosine - 2e-6f) * norm_a * norm_b, norm_b,
                                 iq_score_sum_bound(IQDB_COSINE, 1.0f - cosine, norm_a)));
    }
}

/* Whole vectors whose sums overflow or almost do, against thresholds near their scores. */
static void bounds_hold_for_huge_vectors(void) {
    const iq_kernel *kernel = iq_kernel_select(iq_cpu_features(), IQDB_SIMD_BEST);
    float a[96], b[96];
    uint64_t random = 5;
    for (size_t round = 0; round < support_amount(3000, 60000, 1000000); round++) {
        const size_t dim = 1 + (size_t)support_random_below(&random, 96);
        const float scale = powf(2.0f, 55.0f + 10.0f * support_random_float(&random));
        model_fill(a, dim, &random, (int)(round % MODEL_KINDS));
        model_fill(b, dim, &random, (int)(round / 7 % MODEL_KINDS));
        for (size_t i = 0; i < dim && round % 2 == 0; i++) {
            a[i] = support_random_float(&random) * scale;
            b[i] = support_random_float(&random) * scale;
        }
        for (int m = 0; m < 4; m++) {
            const float norm_a = iq_vector_norm_of(kernel, a, dim), norm_b = iq_vector_norm_of(kernel, b, dim);
            const float sum = kernel->pair(a, b, dim, iq_score_sum_kind(metrics[m]));
            const float score = iq_score_finish(metrics[m], sum, norm_a, norm_b, IQDB_ELEMENT_F32, a, b, dim);
            for (int step = 0; step < 4; step++) {
                float threshold = score;
                if (step == 1 && score < infinite) threshold = up(score);
                if (step == 2) threshold = score + fabsf(score) * 1e-3f;
                if (step == 3) threshold = infinite;
                const float bound = iq_score_sum_bound(metrics[m], threshold, norm_a);
                CHECK(!iq_score_is_beyond(metrics[m], sum, norm_b, bound));
            }
        }
    }
}

/* ---- the same on every machine ---- */

static void scores_have_the_bits_they_have_everywhere(void) {
    const iq_kernel *kernels[MODEL_KERNELS_MAX];
    const int count = model_kernels(kernels);
    float a[800], b[800];
    for (int k = -1; k < count; k++) { /* the model first */
        uint64_t random = 6, hash = UINT64_C(0xcbf29ce484222325);
        for (size_t round = 0; round < 3000; round++) {
            const size_t dim = round % 10 == 0 ? 768 : 1 + (size_t)support_random_below(&random, 300);
            model_fill(a, dim, &random, (int)(round % MODEL_KINDS));
            model_fill(b, dim, &random, (int)(round % MODEL_KINDS));
            for (int m = 0; m < 4; m++) {
                const float score =
                    k < 0 ? model_score(metrics[m], a, b, dim) : kernel_score(kernels[k], metrics[m], a, b, dim);
                const uint32_t bits = iq_f32_bits(score);
                for (int shift = 0; shift < 32; shift += 8)
                    hash = (hash ^ (bits >> shift & 0xFF)) * UINT64_C(0x100000001b3);
            }
        }
        CHECK_EQ_U64(hash, UINT64_C(0xf0eaa5634c1fe412));
    }
}

TEST_MAIN("kernel/distance", TEST(values_known_by_hand), TEST(scores_follow_the_rules),
          TEST(overflow_is_done_again_in_f64), TEST(close_to_double_precision), TEST(refusals_come_in_their_order),
          TEST(bounds_never_discard_too_much), TEST(bounds_say_nothing_where_unsure), TEST(bounds_are_tight),
          TEST(bounds_hold_for_huge_vectors), TEST(scores_have_the_bits_they_have_everywhere))
