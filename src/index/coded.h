/* Exact search through codes: the hits, score bits included, are those of a scan over all rows in f32. Codes say which
 * rows need not be looked at; how many that are changes the time a search takes, and nothing else. */
#ifndef IQ_INDEX_CODED_H
#define IQ_INDEX_CODED_H

#include "base/topk.h"
#include "index/quant.h"

/* Rows that lie one behind the other, iq_row_stride(dim) floats each, 64-byte aligned and padded with zeros. */
typedef struct iq_coded_span {
    const float *vectors;
    const float *norms;
    const uint64_t *ids;
    const uint8_t *blocks; /* NULL: not coded. Else row_count is a multiple of IQ_CODES_ROWS */
    const uint16_t *allow; /* NULL: all rows take part. Else bit r of allow[b] is for row IQ_CODES_ROWS * b + r */
    uint32_t row_count;    /* bits of allow behind it are 0 */
    uint32_t first_row;    /* the tag of a hit is its row: this and its index */
} iq_coded_span;

typedef struct iq_coded_query {
    const iq_quant *quant; /* NULL: no span is coded */
    const iq_kernel *kernel;
    const iq_codes *codes;
    iqdb_metric metric; /* not DEFAULT */
    uint32_t dim;
    const iq_coded_span *spans;
    size_t span_count;
    /* NULL, or decides about a row that is about to be admitted; asked again about the same row it says the same. */
    bool (*accept_fn)(const iq_coded_span *span, uint32_t index, void *user);
    void *user;
    bool limited; /* only hits with a score of max_distance at most */
    float max_distance;
    const iqdb_hit *after; /* NULL, or only hits that rank behind it */
} iq_coded_query;

/* What a search did. */
typedef struct iq_coded_info {
    uint64_t listed;    /* rows whose codes left it open whether they are hits */
    uint64_t evaluated; /* of those, rows looked at in f32 */
    uint64_t plain;     /* rows looked at in f32 without asking their codes */
    uint32_t rescans;
    bool gave_up; /* the codes said too little: the rest was scanned in f32 */
} iq_coded_info;

typedef struct iq_coded_probe {
    const float *vector; /* iq_row_stride(dim) floats, 64-byte aligned, zeros from dim on */
    float norm;          /* for COSINE */
    iq_topk topk;        /* started by the caller */
    iq_coded_info info;  /* out */
} iq_coded_probe;

#define IQ_CODED_COUNT_MAX 64u

/* Offers all rows to the topk of each of `count` probes, 1 to IQ_CODED_COUNT_MAX. scratch: iq_coded_scratch_bytes for
 * this quant and count, 64-byte aligned. */
IQ_FN size_t iq_coded_scratch_bytes(const iq_quant *quant, size_t count);
IQ_FN void iq_coded_search(const iq_coded_query *query, iq_coded_probe *probes, size_t count, void *scratch);

#endif
