/* Exact search: the hits, score bits included, are those of a look at every row. Where rows have codes, these say which
 * rows need not be looked at; how many that are changes the time a search takes, and nothing else. */
#ifndef IQ_INDEX_FLAT_H
#define IQ_INDEX_FLAT_H

#include "base/topk.h"
#include "kernel/distance.h"
#include "store/rows.h"
#include "sys/limit.h"

/* A row that its code has left open. */
typedef struct iq_flat_item {
    uint32_t row;
    bool accepted; /* the search's accept_fn has been asked */
    bool narrow;   /* of which kind its code is */
    iq_quant_row code;
} iq_flat_item;

/* What a vector needs beside that in a search through codes. */
typedef struct iq_flat_coded {
    iq_quant_probe probes[2]; /* the second for narrow codes */
    bool guessing;            /* the topk holds keys of estimates, not hits */
    bool stale[2];            /* the topk has changed since the probe was aimed */
    bool proved;              /* its hits are the best: it takes no part in the second scan */
    double cap;               /* no key beyond it is wanted, whatever the topk says */
    double guess;             /* the smallest key that was guessed */
    double after_key;         /* about the key of query->after */
    double sizes[2];          /* of rows that were admitted lately, by either kind of code */
    iq_flat_item *items;
    uint32_t item_count, item_capacity;
    uint64_t seen, listed; /* rows */
} iq_flat_coded;

/* What belongs to one vector of a search. */
typedef struct iq_flat_probe {
    float norm;        /* of the vector, for COSINE */
    float bound;       /* the search's own */
    iq_topk topk;      /* started by the caller; the tag of a hit is its row */
    uint32_t visited;  /* by its task; in the first of one */
    uint64_t compared; /* rows whose vectors were looked at, likewise; and */
    bool lost;         /* whether some could not be, because they are damaged: what was found is no answer */
    iq_flat_coded *coded;
} iq_flat_probe;

typedef struct iq_flat_query {
    const iq_rows *rows;
    uint32_t row_count;      /* of them, all that are visible among these */
    uint32_t visited;        /* so many of these have been looked at: 0 at first */
    iq_limit *limit;         /* NULL, or where to stop */
    const iq_kernel *kernel; /* of the rows' element */
    const iq_codes *codes;   /* NULL: all in f32. Once it stops, a search may find that to be faster */
    bool narrow;             /* likewise through narrow ones, where rows have these */
    iq_codes_hit *listed;    /* room, by iq_flat_start_codes */
    const uint32_t *allow;   /* NULL, or a bit a row, and a word behind them: those that take part */
    const uint32_t *few;     /* NULL, or the same rows, some perhaps twice: for an index that asks rows. */
    uint32_t few_count;
    uint32_t *few_bits;    /* room for what is to be `allow`, where that is NULL, once it is wanted of few */
    bool fresh;            /* of these, only those that no index has taken in */
    iqdb_metric metric;    /* not DEFAULT */
    uint64_t moment;       /* rows visible here take part; it is pinned */
    float max_score;       /* and have at most this score */
    const iqdb_hit *after; /* NULL, or they rank behind it */
    const float *vectors;  /* of the rows' element, 64-byte aligned, each at their stride, zeros behind */
    iq_flat_probe *probes; /* `count` of each task; those of the first are started */
    size_t count;          /* of vectors, 1 to IQ_FLAT_COUNT_MAX */
    /* More than one task go to parallel->run_fn, each with a share of the rows. */
    size_t task_count;
    const iqdb_parallel_for *parallel;
    iqdb_hit *spare_hits; /* k for each vector of each task but the first, whose hits are the caller's */
    /* NULL, or decides about a row that would be admitted; only with one task. */
    bool (*accept_fn)(const iq_slab *slab, uint32_t index, void *user);
    /* NULL, or takes in what is admitted in the place of iq_topk_push; without codes. */
    void (*push_fn)(iq_topk *topk, float score, uint64_t id, uint32_t row, void *user);
    void *user;
} iq_flat_query;

/* Memory is read once for so many vectors; by then it is far from being what takes the time. */
#define IQ_FLAT_COUNT_MAX (IQ_ONLY_BLOBS ? 1 : IQ_SMALL ? 8 : 64)

/* Whether codes can help to search so many rows; in pieces where it is limited. */
IQ_FN bool iq_flat_can_use_codes(const iq_rows *rows, uint32_t row_count, iqdb_metric metric, bool limited);
/* Memory for a search through codes with so many vectors and tasks, a multiple of 64. */
IQ_FN size_t iq_flat_codes_bytes(const iq_rows *rows, size_t count, size_t task_count, bool limited);
/* Readies a query, whose probes are, for such a search; memory: 64-byte aligned. */
IQ_FN void iq_flat_start_codes(iq_flat_query *query, void *memory);

/* Offers every visible row to the topk of every probe of the first task, until all are visited or the limit is reached.
 * A single task goes on where it stopped when it is called again. */
IQ_FN void iq_flat_search(iq_flat_query *query);
/* Where it is not called again: what was found becomes hits. */
IQ_FN void iq_flat_stop(iq_flat_query *query);

/* The few rows that take part become bits as well. */
IQ_FN void iq_flat_allow_few(iq_flat_query *query);

/* For rows that an index has found, where no scan is under way: whether the row takes part in the search and its
 * conditions accept it; and a look at one, which offers it to the topk of a probe. `accepted`: it was asked about before. */
IQ_FN bool iq_flat_accepts(const iq_flat_query *query, iq_spot spot);
IQ_FN void iq_flat_offer_row(const iq_flat_query *query, size_t which, iq_spot spot, bool accepted);
/* The same in two steps, where many are looked at and few of them offered: what the row's score is, and the sum that it is
 * offered by; false where nobody can tell. */
IQ_FN bool iq_flat_measure(const iq_flat_query *query, size_t which, iq_spot spot, float *out_sum, float *out_score);
IQ_FN void iq_flat_offer_sum(const iq_flat_query *query, size_t which, iq_spot spot, float sum);

#endif
