/* From sums to the scores that are returned. The rules of the contract stand here and nowhere else:
 *   L2     = sqrt(sum (a-b)^2)
 *   COSINE = clamp(1 - (a.b / |a|) / |b|, 0, 2), 1 where either norm is 0; a is the query or first argument
 *   DOT    = 0 - a.b
 * Where a sum (or, for the cosine, a norm) is not finite, everything is done again in f64 in the same order and rounded
 * once. Scores are never -0 and never NaN for finite vectors. */
#ifndef IQ_KERNEL_DISTANCE_H
#define IQ_KERNEL_DISTANCE_H

#include "kernel/kernel.h"

/* |v| as it is stored: f32 root of the canonical sum of squares; from f64 where that is not finite. */
IQ_FN float iq_vector_norm_of(const iq_kernel *kernel, const float *v, size_t dim);

/* The scan function whose sums iq_score_finish turns into scores of this metric (not DEFAULT). */
IQ_FN iq_scan_fn iq_score_scan(const iq_kernel *kernel, iqdb_metric metric);
IQ_FN iq_pair_fn iq_score_pair(const iq_kernel *kernel, iqdb_metric metric);

/* The score from the canonical sum. a and b are read only where the sum or a norm is not finite; norms only for
 * COSINE. */
IQ_FN float iq_score_finish(iqdb_metric metric, float sum, float norm_a, float norm_b, const float *a, const float *b,
                            size_t dim);

/* A bound on sums: a row whose sum is beyond it (above for L2, below for DOT and COSINE) cannot have a score <= that of
 * `threshold`; conservative, so that rounding of root and division never discards a row whose score equals it.
 * For COSINE the sum is compared with bound * norm_b. Returns the value that discards nothing where unsure. */
IQ_FN float iq_score_sum_bound(iqdb_metric metric, float threshold, float norm_a);

/* All elements finite, by their bits, so that no floating-point flag can fold the test away. */
IQ_FN bool iq_vector_is_finite(const float *v, size_t dim);

#endif
