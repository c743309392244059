/* Records in memory: rows, the table of their ids, the payload heap, and which LSN sees which row. */
#ifndef IQ_STORE_RECORDS_H
#define IQ_STORE_RECORDS_H

#include "store/heap.h"
#include "store/ids.h"

/* Rows buried but perhaps still seen at a pinned LSN, oldest death first. */
typedef struct iq_retired {
    uint32_t *rows; /* a ring */
    size_t capacity, first, count;
} iq_retired;

typedef struct iq_records {
    const iqdb_allocator *allocator;
    const iq_kernel *kernel; /* for norms */
    iq_rows rows;
    iq_ids ids;
    iq_heap heap;
    iq_retired retired;
    uint64_t lsn;      /* of the last write: what a new reader sees */
    size_t live_count; /* records at that LSN */
    uint64_t *pins;    /* LSNs whose rows have to stay */
    size_t pin_count, pin_capacity;
} iq_records;

IQ_FN void iq_records_init(iq_records *records, const iqdb_allocator *allocator, const iq_kernel *kernel);
IQ_FN void iq_records_free(iq_records *records);

/* ---- Writing: reserve and stage may fail, what follows cannot ---- */

/* Room for `count` operations. */
IQ_FN iqdb_result iq_records_reserve(iq_records *records, size_t count);
/* A row with this vector and payload that nobody sees yet. The vector is copied; norm is computed. */
IQ_FN iqdb_result iq_records_stage(iq_records *records, uint64_t id, const float *vector, iqdb_payload payload,
                                   uint32_t *out_row);
IQ_FN void iq_records_unstage(iq_records *records, uint32_t row);
/* The staged row is the record of its id from `lsn` on. */
IQ_FN void iq_records_upsert(iq_records *records, uint32_t row, uint64_t lsn);
/* Whether there was a record to bury. */
IQ_FN bool iq_records_delete(iq_records *records, uint64_t id, uint64_t lsn);
/* New readers see `lsn`; rows that nobody sees any more are given back. */
IQ_FN void iq_records_publish(iq_records *records, uint64_t lsn);

/* ---- Reading ---- */

/* The row of this id that a reader at `lsn` sees, or IQ_ROW_NONE. */
IQ_FN uint32_t iq_records_find(const iq_records *records, uint64_t id, uint64_t lsn);
/* Keeps every row that the present LSN, *out_lsn, sees, until it is unpinned. */
IQ_FN iqdb_result iq_records_pin(iq_records *records, uint64_t *out_lsn);
IQ_FN void iq_records_unpin(iq_records *records, uint64_t lsn);

#endif
