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
    uint32_t row_count; /* of them, all that are visible among these */
    const iq_kernel *kernel;
    iqdb_metric metric;    /* not DEFAULT */
    uint64_t moment;       /* rows visible here take part; it is pinned */
    float max_score;       /* and have at most this score */
    const iqdb_hit *after; /* NULL, or they rank behind it */
    const float *vectors;  /* 64-byte aligned, each at the stride of the rows, zeros from dim on */
    iq_flat_probe *probes; /* `count` of each task; those of the first are started */
    size_t count;          /* of vectors, 1 to IQ_FLAT_COUNT_MAX */
    /* More than one task go to parallel->run_fn, each with a share of the rows. */
    size_t task_count;
    const iqdb_parallel_for *parallel;
    iqdb_hit *spare_hits; /* k for each vector of each task but the first, whose hits are the caller's */
    /* NULL, or decides about a row that would be admitted; only with one task. */
    bool (*accept_fn)(const iq_slab *slab, uint32_t index, void *user);
    void *user;
} iq_flat_query;

/* Memory is read once for so many vectors; by then it is far from being what takes the time. */
#define IQ_FLAT_COUNT_MAX 64

/* Offers every visible row to the topk of every probe of the first task. */
IQ_FN void iq_flat_search(const iq_flat_query *query);

#endif
