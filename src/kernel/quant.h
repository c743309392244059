/* Rows in 4 bits a dimension, and what such a code proves about its row.
 *
 * A row is coded in blocks of 16 (kernel/codes.h says how they lie). A probe is made of a query; for a threshold it
 * tells the scan which rows are surely beyond it. Surely means: the score that the canonical f32 kernels give, in all
 * its rounding, is greater than the threshold. quant.c derives it. What is coded are all dimensions, or, narrowly, those
 * that a basis has chosen, and the length of what is left. */
#ifndef IQ_KERNEL_QUANT_H
#define IQ_KERNEL_QUANT_H

#include "kernel/basis.h"
#include "kernel/codes.h"
#include "kernel/distance.h"

/* How the rows of a collection are coded. */
typedef struct iq_quant {
    uint32_t dim;          /* 0: they are not */
    bool unit;             /* rows have been divided by their norms: for COSINE, and for nothing else */
    const iq_basis *basis; /* NULL: all dimensions, as they are */
} iq_quant;

/* That are coded. */
IQ_INLINE uint32_t iq_quant_dims(const iq_quant *quant) {
    return quant->basis != NULL ? quant->basis->dims : quant->dim;
}
IQ_INLINE size_t iq_quant_block_bytes(const iq_quant *quant) {
    return quant->dim == 0 ? 0 : iq_codes_block_bytes(iq_codes_groups(iq_quant_dims(quant)));
}
/* Whether codes of this kind can serve searches by the metric. */
IQ_INLINE bool iq_quant_serves(const iq_quant *quant, iqdb_metric metric) {
    return quant->dim != 0 && (quant->unit ? metric == IQDB_COSINE : metric == IQDB_L2 || metric == IQDB_DOT);
}

/* Codes a row, iq_row_stride(dim) floats, 64-byte aligned and padded with zeros, as row `index` of a block, where it
 * touches nothing of the others. norm: the stored one, read only for unit codes. scratch: iq_quant_encode_bytes, 64-byte
 * aligned. The same bytes on every machine. */
IQ_FN size_t iq_quant_encode_bytes(const iq_quant *quant);
IQ_FN void iq_quant_encode(const iq_quant *quant, const iq_kernel *kernel, const float *row, float norm, uint8_t *block,
                           uint32_t index, void *scratch);
/* A row's code from some blocks into others; rows are counted from the first of these. */
IQ_FN void iq_quant_copy(const iq_quant *quant, const uint8_t *from, uint32_t from_row, uint8_t *to, uint32_t to_row);

/* A query against codes. Keys are squared distances, for COSINE of what is coded, or for DOT -2 times the product. What a
 * scan computes is less by `offset`. */
typedef struct iq_quant_probe {
    iqdb_metric metric;
    bool usable;          /* else nothing can be proved for this query */
    float norm;           /* of the query, as given */
    double length;        /* of what stands for it, at least; Q below */
    double head_length;   /* of what is coded of that, in a basis less */
    double offset;        /* length^2 for L2 and COSINE */
    double slack, tail;   /* of the basis; else 0 */
    double dot_slack;     /* for DOT, of the products with its centre */
    double sum_error;     /* gamma: of a canonical sum, relative to the sum of the sizes of its terms */
    double word_error;    /* of the words, as a length */
    double spread;        /* what part of the provable error is expected at most: for estimates */
    iq_codes_probe codes; /* words, centre and the scales that do not depend on the threshold are set */
} iq_quant_probe;

/* query: iq_row_stride(dim) floats, 64-byte aligned, zeros from dim on. words: dim rounded up to 8, at a multiple of 4,
 * kept by the caller as long as the probe. scratch: iq_quant_probe_bytes, 64-byte aligned. */
IQ_FN size_t iq_quant_probe_bytes(const iq_quant *quant);
IQ_FN void iq_quant_probe_make(iq_quant_probe *probe, const iq_quant *quant, iqdb_metric metric, const float *query,
                               float norm, int8_t *words, void *scratch);

/* A key such that only rows whose score is surely greater than `score` have a greater one; infinite where nothing is
 * sure. */
IQ_FN double iq_quant_key_beyond(const iq_quant_probe *probe, float score);

/* Sets the numbers of probe->codes so that a scan discards only rows whose key is surely greater than `key`. `size`
 * is a length of rows for which the test shall be sharpest; it is right for all. */
IQ_FN void iq_quant_aim(iq_quant_probe *probe, double key, double size);

/* What a listed row's code says of it. */
typedef struct iq_quant_row {
    float size;  /* n; negative for a loose row, of which nothing is known */
    float cross; /* twice the product with the code, divided by n; in a basis with */
    float error;
    float side; /* what the product of the rests is at most, likewise; else 0 */
} iq_quant_row;

IQ_FN iq_quant_row iq_quant_look(const iq_quant_probe *probe, const uint8_t *block, uint32_t row, int32_t sum);
/* Whether the row is surely beyond the key that was aimed at last. */
IQ_FN bool iq_quant_is_beyond(const iq_quant_probe *probe, const iq_quant_row *row);
/* About its key, and a key that it hardly exceeds; not for loose rows. Nothing is proved by them. */
IQ_FN double iq_quant_estimate(const iq_quant_probe *probe, const iq_quant_row *row, double *out_high);
#endif
