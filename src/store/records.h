/* Records in memory: rows, the table of their ids, the payload heap, and which moment sees which row. One thread at a
 * time writes; any number read under pins, without a lock. */
#ifndef IQ_STORE_RECORDS_H
#define IQ_STORE_RECORDS_H

#include "store/heap.h"
#include "store/ids.h"

/* Rows buried but perhaps still seen at a pinned moment, oldest death first. */
typedef struct iq_retired {
    uint32_t *rows; /* a ring; its capacity is a power of two */
    size_t capacity, first, count;
    size_t unlinked; /* the first so many of them are reached by no pin newer than `unlinked_at` */
    uint64_t unlinked_at;
    uint64_t bytes; /* of rows and payloads */
} iq_retired;

/* So many, of so many bytes, wait for more of them before they are given back. */
#define IQ_RETIRED_FEW 32u
#define IQ_RETIRED_FEW_BYTES (64u * 1024u)

typedef struct iq_records {
    iq_epoch epoch;
    const iqdb_allocator *allocator;
    const iq_kernel *kernel; /* for norms */
    iq_rows rows;
    iq_ids ids;
    iq_heap heap;
    iq_retired retired;
    uint64_t retired_max; /* bytes */
    uint64_t lsn;         /* of the last write */
    size_t live_count;    /* records after it; readers have that of their moment */
    uint32_t dim;         /* atomic: what readers know: rows.dim once a record has one */
} iq_records;

IQ_FN void iq_records_init(iq_records *records, const iqdb_allocator *allocator, const iq_kernel *kernel);
IQ_FN void iq_records_free(iq_records *records);

/* ---- Writing: reserve and stage may fail, what follows cannot ---- */

/* Room for `count` operations. BUSY while pins keep more than retired_max. */
IQ_FN iqdb_result iq_records_reserve(iq_records *records, size_t count);
/* A row with this vector and payload that nobody sees yet. The vector is copied; norm is computed. INVALID_VECTOR where
 * an element is not finite. */
IQ_FN iqdb_result iq_records_stage(iq_records *records, uint64_t id, const float *vector, iqdb_payload payload,
                                   uint32_t *out_row);
IQ_FN void iq_records_unstage(iq_records *records, uint32_t row);
/* The staged row is the record of its id from the next moment on. */
IQ_FN void iq_records_upsert(iq_records *records, uint32_t row);
/* Ends the record of the id with the next moment; whether there was one. */
IQ_FN bool iq_records_delete(iq_records *records, uint64_t id);
/* All that was upserted and deleted since the last time is seen from here on, at once; rows that nobody sees any more
 * are given back. */
IQ_FN void iq_records_publish(iq_records *records, uint64_t lsn);
/* Gives back what no pin keeps any more. */
IQ_FN void iq_records_reclaim(iq_records *records);

/* ---- Reading, under a pin of records->epoch, or by the writer at its newest moment ---- */

/* The row of this id that is seen at `moment`, or IQ_ROW_NONE. */
IQ_FN uint32_t iq_records_find(const iq_records *records, uint64_t id, uint64_t moment);

#endif
