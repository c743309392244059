/* From sums to the scores that are returned. The rules of the contract stand here and nowhere else:
 *   L2     = sqrt(sum (a-b)^2)
 *   COSINE = clamp(1 - (a.b / |a|) / |b|, 0, 2), 1 where either norm is 0; a is the query or first argument
 *   DOT    = 0 - a.b
 *   L1     = sum |a-b|, and HAMMING the same of bits
 * Sums of integers are rounded once, and from there on what f32 has. Where a sum (or, for the cosine, a norm) is not finite, everything is done again in f64 in the same order and rounded
 * once; a norm that is 0 as stored stays 0. Scores are never -0 and never NaN for finite vectors. */
#ifndef IQ_KERNEL_DISTANCE_H
#define IQ_KERNEL_DISTANCE_H

#include "kernel/kernel.h"

/* |v| as it is stored: f32 root of the canonical sum of squares; from f64 where that is not finite. */
IQ_FN float iq_vector_norm_of(const iq_kernel *kernel, const float *v, size_t dim);
/* The same of a row of any element; `kernel` is its own. */
IQ_FN float iq_row_norm_of(const iq_kernel *kernel, iqdb_element element, const float *row, size_t stride);

/* The sums that iq_score_finish turns into scores of this metric (not DEFAULT). */
IQ_INLINE iq_sum_kind iq_score_sum_kind(iqdb_metric metric) {
    return metric == IQDB_L2                             ? IQ_SUM_SQUARES
           : metric == IQDB_L1 || metric == IQDB_HAMMING ? IQ_SUM_ABSOLUTES
                                                         : IQ_SUM_PRODUCTS;
}

/* The score from the canonical sum. a and b, of dim elements, are read only where the sum or a norm is not finite; norms
 * only for COSINE. */
IQ_FN float iq_score_finish(iqdb_metric metric, float sum, float norm_a, float norm_b, iqdb_element element,
                            const float *a, const float *b, size_t dim);

/* What iq_score_is_beyond compares sums with: a value that only rows surely behind `threshold` are beyond, and one that
 * no row is beyond where nothing is sure. norm_a only for COSINE. */
IQ_FN float iq_score_sum_bound(iqdb_metric metric, float threshold, float norm_a);

/* Below it (and where it is not finite) a norm says too little: products of two may vanish. */
#define IQ_NORM_SURE 8.8817841970012523e-16f /* 2^-50 */

/* Whether the finished score of this sum would surely be greater than the bound's threshold. Never says so of a row
 * whose score equals the threshold, whatever was rounded on the way; norm_b only for COSINE. A sum that is not finite
 * says nothing, because it is done again. */
IQ_INLINE bool iq_score_is_beyond(iqdb_metric metric, float sum, float norm_b, float bound) {
    if ((iq_f32_bits(sum) & 0x7F800000u) == 0x7F800000u) return false;
    if (metric == IQDB_L2 || metric == IQDB_L1 || metric == IQDB_HAMMING) return sum > bound;
    if (metric == IQDB_DOT) return sum < bound;
    return sum < bound * norm_b && norm_b >= IQ_NORM_SURE && norm_b <= 3.402823466e+38f;
}

/* All elements finite, which the sum of their squares tells, or else their bits: no floating-point flag can fold the
 * test away. */
IQ_FN bool iq_vector_is_finite(const iq_kernel *kernel, const float *v, size_t dim);
/* Whether so many packed elements of any kind are a vector; `kernel` is that of f32. */
IQ_INLINE bool iq_vector_is_sound(const iq_kernel *kernel, iqdb_element element, const void *v, size_t dim) {
    if (IQ_SMALL || element != IQDB_ELEMENT_F32) return iq_element_is_vector(element, v, dim, IQ_BIG_ENDIAN);
    return iq_vector_is_finite(kernel, (const float *)v, dim);
}
/* Of f32 whether all are finite, and the norm, in one pass. */
IQ_FN bool iq_vector_measure(const iq_kernel *kernel, const float *v, size_t dim, float *out_norm);

#endif
