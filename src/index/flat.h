/* Exact search: every row is looked at. */
#ifndef IQ_INDEX_FLAT_H
#define IQ_INDEX_FLAT_H

#include "base/topk.h"
#include "kernel/distance.h"
#include "store/rows.h"

/* What belongs to one vector of a search. */
typedef struct iq_flat_probe {
    float norm;   /* of the vector, for COSINE */
    float bound;  /* the search's own */
    iq_topk topk; /* started by the caller; the tag of a hit is its row */
} iq_flat_probe;

typedef struct iq_flat_query {
    const iq_rows *rows;
    const iq_kernel *kernel;
    iqdb_metric metric;   /* not DEFAULT */
    uint64_t lsn;         /* rows visible here take part */
    const float *vectors; /* 64-byte aligned, each at the stride of the rows, zeros from dim on */
    iq_flat_probe *probes;
    size_t count; /* of vectors and probes, 1 to IQ_FLAT_COUNT_MAX */
    /* NULL, or decides about a row that would be admitted. */
    bool (*accept_fn)(const iq_slab *slab, uint32_t index, void *user);
    void *user;
} iq_flat_query;

/* Memory is read once for so many vectors; by then it is far from being what takes the time. */
#define IQ_FLAT_COUNT_MAX 64

/* Offers every visible row to the topk of every probe. */
IQ_FN void iq_flat_search(const iq_flat_query *query);

#endif
