/* From sums to scores: the rules of distance.h.
 *
 * 1. Every operation is rounded to its type once: results pass through iq_strict_f32 and iq_strict_f64, so that a
 *    score has the same bits under any flags.
 * 2. The f64 sums have the lanes and the tree of the kernels; products of two f32 are exact in f64, and no sum of
 *    65,536 of them overflows, so the second try is always finite before it is rounded to f32.
 * 3. Whether a number is finite is asked of its bits: comparisons may be folded away under -ffast-math. */
#include "kernel/distance.h"

#include "kernel/strict.h"

/* Public functions have no handle that remembers what the machine can do; they take what the compiler may assume. */
#if IQ_QUADS
#define IQ_DISTANCE_KERNEL iq_kernel_quads()
#else
#define IQ_DISTANCE_KERNEL iq_kernel_scalar()
#endif

IQ_INLINE bool iq_distance_finite(float v) { return (iq_f32_bits(v) & 0x7F800000u) != 0x7F800000u; }

/* ---- in f64 ---- */

/* The canonical sum, a lane at a time: it is needed so rarely that a small frame is worth more than time. */
static double iq_distance_sum_f64(iqdb_element element, const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    const size_t size = iq_element_bits(element) / 8;
    double lanes[IQ_KERNEL_LANES];
    for (size_t j = 0; j < IQ_KERNEL_LANES; j++) {
        double lane = 0.0;
        for (size_t i = j; i < dim; i += IQ_KERNEL_LANES) {
            float p, q;
            iq_element_to_f32(element, (const uint8_t *)(const void *)a + i * size, 1, &p);
            iq_element_to_f32(element, (const uint8_t *)(const void *)b + i * size, 1, &q);
            const double x = (double)p, y = (double)q;
            double term = iq_strict_f64(kind == IQ_SUM_PRODUCTS ? x * y : x - y);
            if (kind == IQ_SUM_ABSOLUTES) term = iq_f64_from_bits(iq_f64_bits(term) & (UINT64_MAX >> 1));
            if (kind == IQ_SUM_SQUARES) term = iq_strict_f64(term * term);
            lane = iq_strict_f64(lane + term);
        }
        lanes[j] = lane;
    }
    for (size_t half = IQ_KERNEL_LANES / 2; half > 0; half /= 2)
        for (size_t j = 0; j < half; j++) lanes[j] = iq_strict_f64(lanes[j] + lanes[j + half]);
    return lanes[0];
}

static double iq_distance_norm_f64(iqdb_element element, const float *v, size_t dim) {
    return iq_sqrt_f64(iq_distance_sum_f64(element, v, v, dim, IQ_SUM_PRODUCTS));
}

/* That of a cosine is clamped once it is f32. It comes to the same: 0 and 2 are f32, and what is less than 0 is at least
 * 2^-53 away from it, so that no -0 is made of it. */
static double iq_distance_score_f64(iqdb_metric metric, iqdb_element element, const float *a, const float *b,
                                    size_t dim) {
    const double sum = iq_distance_sum_f64(element, a, b, dim, iq_score_sum_kind(metric));
    if (metric == IQDB_L1) return sum;
    if (metric == IQDB_L2) return iq_sqrt_f64(sum);
    if (metric == IQDB_DOT) return iq_strict_f64(0.0) - sum;
    const double ratio = iq_strict_f64(sum / iq_distance_norm_f64(element, a, dim));
    return 1.0 - iq_strict_f64(ratio / iq_distance_norm_f64(element, b, dim));
}

/* ---- in f32 ---- */

IQ_FN float iq_row_norm_of(const iq_kernel *kernel, iqdb_element element, const float *row, size_t stride) {
    const float sum = kernel->pair(row, row, stride, IQ_SUM_PRODUCTS);
    if (IQ_LIKELY(iq_distance_finite(sum))) return iq_sqrt_f32(sum);
    const uint16_t unit = iq_strict_f64_begin();
    const float norm = iq_strict_f32((float)iq_distance_norm_f64(element, row, stride * 32 / iq_element_bits(element)));
    iq_strict_f64_end(unit);
    return norm;
}

IQ_FN float iq_vector_norm_of(const iq_kernel *kernel, const float *v, size_t dim) {
    return iq_row_norm_of(kernel, IQDB_ELEMENT_F32, v, dim);
}

static float iq_distance_clamp(float score) { return score < 0.0f ? 0.0f : score > 2.0f ? 2.0f : score; }

IQ_FN float iq_score_finish(iqdb_metric metric, float sum, float norm_a, float norm_b, iqdb_element element,
                            const float *a, const float *b, size_t dim) {
    const bool cosine = metric == IQDB_COSINE;
    if (cosine && (norm_a == 0.0f || norm_b == 0.0f)) return 1.0f;
    if (IQ_UNLIKELY(!iq_distance_finite(sum) ||
                    (cosine && !(iq_distance_finite(norm_a) && iq_distance_finite(norm_b))))) {
        const uint16_t unit = iq_strict_f64_begin();
        const float score = iq_strict_f32((float)iq_distance_score_f64(metric, element, a, b, dim));
        iq_strict_f64_end(unit);
        return cosine ? iq_distance_clamp(score) : score;
    }
    if (metric == IQDB_L1 || metric == IQDB_HAMMING) return sum;
    if (metric == IQDB_L2) return iq_sqrt_f32(sum);
    /* The compiler may not see that this is a zero: -ffast-math would make it -sum, which can be -0. */
    if (metric == IQDB_DOT) return iq_strict_f32(iq_strict_f32(0.0f) - sum);
    const float ratio = iq_strict_f32(sum / norm_a);
    return iq_distance_clamp(iq_strict_f32(1.0f - iq_strict_f32(ratio / norm_b)));
}

/* ---- bounds ---- */

/* The next larger f32; v is neither NaN nor infinite. */
IQ_INLINE float iq_distance_up(float v) {
    const uint32_t bits = iq_f32_bits(v);
    if ((bits & 0x7FFFFFFFu) == 0) return iq_f32_from_bits(1);
    return iq_f32_from_bits(bits & 0x80000000u ? bits - 1 : bits + 1);
}

/* A finite sum above it has a root above `threshold`. Let m be the middle between the threshold and the next f32, u. A
 * root greater than m is rounded to u or more, so m^2 is the bound: 25 bits squared are exact in f64. Rounding it to
 * f32 puts no sum, being one, on the other side. */
static float iq_distance_bound_l2(float threshold) {
    if (IQ_SMALL)
        return threshold * threshold * 1.000001f + 1e-35f; /* more than m^2, whatever was rounded or is tiny */
    const double middle = ((double)threshold + (double)iq_distance_up(threshold)) * 0.5;
    return iq_strict_f32((float)iq_strict_f64(middle * middle));
}

/* A row with sum < bound * norm_b has a score above `threshold`, where both norms are in [2^-50, FLT_MAX].
 * Below a threshold of 0 every row has. Else let u be the next f32 above the threshold t < 2; it is at most t + 2^-23.
 * With q the twice rounded quotient, 1 - q >= u in real numbers suffices: u is an f32, so rounding cannot get below it,
 * and clamping to 2 cannot either. That is q <= c with c = 1 - u. Each of four roundings (bound, bound * norm_b, two
 * quotients) moves a number by 2^-24 of its size at most, or by 2^-150 where it is subnormal, which norms of at least
 * 2^-50 turn into less than 2^-49. With |c| <= 1 (a more negative q only helps) that is less than 2^-21 together, and
 * 2^-23 + 2^-21 < 2^-20, so a bound made of 1 - t - 2^-20 keeps q <= c. A product bound * norm_b that overflows lies on
 * the same side of every finite sum as its exact value does. */
static float iq_distance_bound_cosine(float threshold, float norm_a) {
    if (!(threshold < 2.0f) || !(norm_a >= IQ_NORM_SURE) || !iq_distance_finite(norm_a))
        return iq_f32_from_bits(0xFF800000u);
    if (IQ_SMALL) return (1.0f - threshold - 1.0f / 1048576.0f) * norm_a; /* two more roundings take 2^-23 at most */
    return iq_strict_f32((float)((1.0 - (double)threshold - 1.0 / 1048576.0) * (double)norm_a));
}

IQ_FN float iq_score_sum_bound(iqdb_metric metric, float threshold, float norm_a) {
    if (!iq_distance_finite(threshold))
        return iq_f32_from_bits(iq_score_sum_kind(metric) != IQ_SUM_PRODUCTS ? 0x7F800000u : 0xFF800000u);
    if (metric == IQDB_L2) return iq_distance_bound_l2(threshold);
    if (metric == IQDB_COSINE) return iq_distance_bound_cosine(threshold, norm_a);
    if (metric == IQDB_L1 || metric == IQDB_HAMMING) return threshold; /* the score is the sum */
    return -threshold;                                                 /* the score of a finite sum is -sum, exactly */
}

/* ---- vectors without a database ---- */

static bool iq_distance_all_finite(const float *v, size_t dim) {
    uint32_t bad = 0;
    for (size_t i = 0; i < dim; i++) bad |= (uint32_t)((iq_f32_bits(v[i]) & 0x7FFFFFFFu) >= 0x7F800000u);
    return bad == 0;
}

/* No square is negative: a finite sum of them tells that all are finite, and so does its root. */
IQ_FN bool iq_vector_is_finite(const iq_kernel *kernel, const float *v, size_t dim) {
    return IQ_LIKELY(iq_distance_finite(kernel->pair(v, v, dim, IQ_SUM_PRODUCTS))) || iq_distance_all_finite(v, dim);
}

IQ_FN bool iq_vector_measure(const iq_kernel *kernel, const float *v, size_t dim, float *out_norm) {
    *out_norm = iq_vector_norm_of(kernel, v, dim);
    return IQ_LIKELY(iq_distance_finite(*out_norm)) || iq_distance_all_finite(v, dim);
}

IQDB_API iqdb_result iqdb_vector_check(const float *vector, size_t dim) {
    if (vector == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (dim == 0 || dim > IQDB_DIM_MAX || !iq_vector_is_finite(IQ_DISTANCE_KERNEL, vector, dim))
        return IQDB_ERR_INVALID_VECTOR;
    return IQDB_OK;
}

IQDB_API float iqdb_vector_norm(const float *vector, size_t dim) {
    if (iqdb_vector_check(vector, dim) != IQDB_OK) return 0.0f;
    return iq_vector_norm_of(IQ_DISTANCE_KERNEL, vector, dim);
}

IQDB_API iqdb_result iqdb_distance(iqdb_metric metric, const float *a, const float *b, size_t dim,
                                   float *out_distance) {
    const iq_kernel *kernel = IQ_DISTANCE_KERNEL;
    float norm_a = 0.0f, norm_b = 0.0f;
    if (a == NULL || b == NULL || out_distance == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (metric == IQDB_METRIC_DEFAULT) metric = IQDB_COSINE;
    if (metric < IQDB_L2 || metric > IQDB_L1) return IQDB_ERR_INVALID_ARGUMENT;
    if (iqdb_vector_check(a, dim) != IQDB_OK || iqdb_vector_check(b, dim) != IQDB_OK) return IQDB_ERR_INVALID_VECTOR;
    if (metric == IQDB_COSINE) {
        norm_a = iq_vector_norm_of(kernel, a, dim);
        norm_b = iq_vector_norm_of(kernel, b, dim);
    }
    *out_distance = iq_score_finish(metric, kernel->pair(a, b, dim, iq_score_sum_kind(metric)), norm_a, norm_b,
                                    IQDB_ELEMENT_F32, a, b, dim);
    return IQDB_OK;
}
