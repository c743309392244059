/* The directions in which the rows of a collection differ most, learned from a sample: what codes of the head need
 * (index/quant.h). The same bytes on every machine. */
#ifndef IQ_INDEX_PCA_H
#define IQ_INDEX_PCA_H

#include "base/alloc.h"
#include "index/quant.h"

typedef struct iq_pca {
    const iqdb_allocator *allocator;
    uint32_t dim, head; /* head 0: no head is worth it, and there is no matrix */
    float *matrix;      /* as in iq_quant */
    float *centre;
    float skew;
} iq_pca;

#define IQ_PCA_DIM_MIN 32u
#define IQ_PCA_DIM_MAX 4096u

/* sample: `count` rows of iq_row_stride(dim) floats, 64-byte aligned and padded with zeros, as the quantiser prepares
 * them but for the centre: divided by their norms for unit codes. energy: the share of the rows' variance that the
 * head shall hold. head: 0, or so many dimensions whatever they hold, less than dim. NOMEM changes nothing. */
IQ_FN iqdb_result iq_pca_train(iq_pca *pca, const iqdb_allocator *allocator, const iq_kernel *kernel, uint32_t dim,
                               const float *sample, size_t count, double energy, uint32_t head);
IQ_FN void iq_pca_free(iq_pca *pca);

#endif
