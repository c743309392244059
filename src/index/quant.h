/* Rows in 4 bits a dimension, and what such a code proves about its row.
 *
 * A row is coded in blocks of 16 (kernel/codes.h says how they lie). A probe is made of a query; for a threshold it
 * tells the scan which rows are surely beyond it. Surely means: the score that the canonical f32 kernels give, in all
 * its rounding, is greater than the threshold. quant.c derives it. */
#ifndef IQ_INDEX_QUANT_H
#define IQ_INDEX_QUANT_H

#include "kernel/codes.h"
#include "kernel/distance.h"

/* How the rows of a collection are coded. Without a matrix all dimensions are, as they stand. With one, a row less the
 * centre is turned by it first: `head` coordinates are coded, and of the rest only its length is kept. */
typedef struct iq_quant {
    uint32_t dim;
    uint32_t head;       /* coded dimensions; dim without a matrix */
    bool unit;           /* rows have been divided by their norms: for COSINE, and for nothing else */
    const float *matrix; /* NULL, or `head` nearly orthonormal rows, each iq_row_stride(dim) floats, 64-byte aligned */
    const float *centre; /* beside a matrix: iq_row_stride(dim) floats, zeros from dim on */
    float skew;          /* beside a matrix: at least the spectral norm of I - M M^T; at most IQ_QUANT_SKEW_MAX */
} iq_quant;

#define IQ_QUANT_SKEW_MAX 4.8828125e-4f /* 2^-11 */

IQ_INLINE size_t iq_quant_block_bytes(const iq_quant *quant) {
    return iq_codes_block_bytes(iq_codes_groups(quant->head));
}
/* Whether codes of this kind can serve searches by the metric. */
IQ_INLINE bool iq_quant_serves(const iq_quant *quant, iqdb_metric metric) {
    return quant->unit ? metric == IQDB_COSINE : metric == IQDB_L2 || metric == IQDB_DOT;
}

/* Codes IQ_CODES_ROWS rows, iq_row_stride(dim) floats each, 64-byte aligned and padded with zeros. norms: their stored
 * norms, read only for unit codes. scratch: iq_quant_encode_bytes, 64-byte aligned. The same bytes on every machine. */
IQ_FN size_t iq_quant_encode_bytes(const iq_quant *quant);
IQ_FN void iq_quant_encode(const iq_quant *quant, const iq_kernel *kernel, const float *rows, const float *norms,
                           uint8_t *block, void *scratch);

/* A query against codes. Keys are squared distances of what is coded, less `square`, or for DOT -2 times the product
 * with what is coded. */
typedef struct iq_quant_probe {
    iqdb_metric metric;
    bool usable;      /* else nothing can be proved for this query */
    bool tail;        /* a row's side is the length of its tail, not a shift of its codes */
    float norm;       /* of the query, as given */
    double length;    /* of what is coded of it, at least; Q below */
    double square;    /* its square for L2 and COSINE, else 0 */
    double offset;    /* DOT: the product with the centre */
    double centre;    /* the length of the centre */
    double sum_error; /* gamma: of a canonical sum, relative to the sum of the sizes of its terms */
    double map_error; /* epsilon: of the head coordinates, relative to a vector's length */
    double skew;
    double word_error; /* of the words, as a length */
    double tail_length;
    double spread;        /* what part of the provable error is expected at most: for estimates */
    iq_codes_probe codes; /* words, centre and the scales that do not depend on the threshold are set */
} iq_quant_probe;

/* query: iq_row_stride(dim) floats, 64-byte aligned, zeros from dim on. words: head rounded up to 8, at a multiple of 4,
 * kept by the caller as long as the probe. scratch: iq_quant_probe_bytes, 64-byte aligned. */
IQ_FN size_t iq_quant_probe_bytes(const iq_quant *quant);
IQ_FN void iq_quant_probe_make(iq_quant_probe *probe, const iq_quant *quant, const iq_kernel *kernel,
                               iqdb_metric metric, const float *query, float norm, int8_t *words, void *scratch);

/* A key such that only rows whose score is surely greater than `score` have a greater one; infinite where nothing is
 * sure. */
IQ_FN double iq_quant_key_beyond(const iq_quant_probe *probe, float score);

/* Sets the numbers of probe->codes so that a scan discards only rows whose key is surely greater than `key`. `size`
 * is a length of rows for which the test shall be sharpest; it is right for all. */
IQ_FN void iq_quant_aim(iq_quant_probe *probe, double key, double size);

/* What a listed row's code says of it. */
typedef struct iq_quant_row {
    float size;  /* n; negative for a loose row, of which nothing is known */
    float cross; /* twice the product with the code, divided by n */
    float error;
    float side;
} iq_quant_row;

IQ_FN iq_quant_row iq_quant_look(const iq_quant_probe *probe, const uint8_t *block, uint32_t row, int32_t sum);
/* Whether the row is surely beyond the key that was aimed at last. */
IQ_FN bool iq_quant_is_beyond(const iq_quant_probe *probe, const iq_quant_row *row);
/* About its key, and a key that it hardly exceeds; not for loose rows. Nothing is proved by them. */
IQ_FN double iq_quant_estimate(const iq_quant_probe *probe, const iq_quant_row *row, double *out_high);
/* About the key of rows with this score. */
IQ_FN double iq_quant_key_of(const iq_quant_probe *probe, float score);

#endif
