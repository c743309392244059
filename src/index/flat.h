/* Exact search: every row is looked at. */
#ifndef IQ_INDEX_FLAT_H
#define IQ_INDEX_FLAT_H

#include "base/topk.h"
#include "kernel/distance.h"
#include "store/rows.h"

typedef struct iq_flat_query {
    const iq_rows *rows;
    const iq_kernel *kernel;
    iqdb_metric metric;  /* not DEFAULT */
    const float *vector; /* 64-byte aligned, zeros from dim to the stride of the rows */
    float norm;          /* of the vector, for COSINE */
    uint64_t lsn;        /* rows visible here take part */
    /* NULL, or decides about a row that would be admitted. */
    bool (*accept_fn)(const iq_slab *slab, uint32_t index, void *user);
    void *user;
} iq_flat_query;

/* Offers every visible row to `topk`; the tag of a hit is its row. */
IQ_FN void iq_flat_search(const iq_flat_query *query, iq_topk *topk);

#endif
