/* The handle and its lock.
 *
 * In this version one lock covers everything: each call takes it for its whole length, an iterator for each step. What
 * a call may do depends on what already runs in the same thread (`phase`): inside a predicate, reads may nest; inside
 * any other callback nothing may. */
#ifndef IQ_DB_DB_H
#define IQ_DB_DB_H

#include "index/flat.h"
#include "persist/directory.h"
#include "store/heap.h"
#include "store/ids.h"
#include "sys/atomic.h"
#include "sys/thread.h"

typedef enum iq_phase {
    IQ_PHASE_IDLE = 0,
    IQ_PHASE_CALL = 1,     /* callbacks from here may not call the handle */
    IQ_PHASE_PREDICATE = 2 /* those from here may read */
} iq_phase;

/* Rows buried but perhaps still seen by an iterator, oldest death first. */
typedef struct iq_retired {
    uint32_t *rows; /* a ring */
    size_t capacity, first, count;
} iq_retired;

/* Memory of one running search: the query vector, padded, 64-byte aligned, behind this header. */
typedef struct iq_scratch {
    struct iq_scratch *next;
    size_t size_bytes; /* of the whole block */
} iq_scratch;

struct iqdb {
    iqdb_allocator allocator;
    iq_reporter reporter;
    iqdb_sync sync;
    bool compact_on_close;
    iqdb_metric metric;
    const iq_kernel *kernel;
    iq_directory *directory; /* NULL in memory */
    uint64_t process;        /* that opened it: another one is a forked child */

    iq_mutex mutex;
    uintptr_t owner;   /* thread in a call, 0 for none; read without the lock to detect re-entry */
    iq_phase phase;    /* from here on: under the lock */
    unsigned depth;    /* calls nested in predicates */

    iq_rows rows;
    iq_ids ids;
    iq_heap heap;
    iq_retired retired;
    uint64_t lsn;      /* of the last write: what a new reader sees */
    size_t live_count;

    uint64_t *pins;    /* LSNs that iterators hold */
    size_t pin_count, pin_capacity;

    uint32_t *staged;  /* rows of the batch in the making, one an operation */
    size_t staged_capacity;
    iq_blob encoded;   /* a payload in the making */
    iq_scratch *scratch; /* free ones; a search takes one, so that searches nest */
};

/* Takes the lock; BUSY where this thread is inside a callback that may not make the call. Every OK needs a leave. */
IQ_FN iqdb_result iq_db_enter_read(iqdb *db);
IQ_FN iqdb_result iq_db_enter_write(iqdb *db); /* and POISONED, READONLY, LOCKED where nothing may be written */
IQ_FN iqdb_result iq_db_enter_upkeep(iqdb *db); /* flush, checkpoint, verify: no such check */
IQ_FN void iq_db_leave(iqdb *db);
/* Returns INVALID_ARGUMENT, with the details where they go, which takes the lock; from inside a callback without. */
IQ_FN iqdb_result iq_db_refuse(iqdb *db, const char *why);

/* ---- Operations on memory, shared by writes and replay (apply.c) ---- */

/* Room for `count` operations, so that applying them cannot fail. */
IQ_FN iqdb_result iq_apply_reserve(iqdb *db, size_t count);
/* A row with this vector and payload that nobody sees yet. The vector is copied; norm is computed. */
IQ_FN iqdb_result iq_apply_stage(iqdb *db, uint64_t id, const float *vector, iqdb_payload payload, uint32_t *out_row);
IQ_FN void iq_apply_unstage(iqdb *db, uint32_t row);
/* The staged row is the record of its id from `lsn` on. */
IQ_FN void iq_apply_upsert(iqdb *db, uint32_t row, uint64_t lsn);
/* Whether there was a record to bury. */
IQ_FN bool iq_apply_delete(iqdb *db, uint64_t id, uint64_t lsn);
/* New readers see `lsn`; rows that nobody sees any more are given back. */
IQ_FN void iq_apply_publish(iqdb *db, uint64_t lsn);
IQ_FN void iq_apply_reclaim(iqdb *db);
/* The row of this id that a reader at `lsn` sees, or IQ_ROW_NONE. */
IQ_FN uint32_t iq_db_find(const iqdb *db, uint64_t id, uint64_t lsn);

/* ---- Snapshots (image.c) and checks (verify.c) ---- */
IQ_FN iqdb_result iq_image_write(iq_snapshot_writer *writer, void *db);
IQ_FN iqdb_result iq_image_load(iq_snapshot_reader *reader, void *db);
IQ_FN iqdb_result iq_verify_records(iqdb *db, iqdb_report_fn report, void *user);

/* The handle behind a const one: readers take the lock too. */
IQ_FN iqdb *iq_db_of(const iqdb *db);

/* Whether the handle was carried into a child by fork. */
IQ_FN bool iq_db_is_forked(const iqdb *db);

#endif
