/* The handle and its lock.
 *
 * In this version one lock covers everything: each call takes it for its whole length, an iterator for each step. What
 * a call may do depends on what already runs in the same thread (`phase`): inside a predicate, reads may nest; inside
 * any other callback nothing may. */
#ifndef IQ_DB_DB_H
#define IQ_DB_DB_H

#include "index/flat.h"
#include "persist/directory.h"
#include "store/records.h"
#include "sys/atomic.h"
#include "sys/thread.h"

typedef enum iq_phase {
    IQ_PHASE_IDLE = 0,
    IQ_PHASE_CALL = 1,     /* callbacks from here may not call the handle */
    IQ_PHASE_PREDICATE = 2 /* those from here may read */
} iq_phase;

/* Memory of one running search, behind this header. */
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
    iqdb_parallel_for parallel_for;
    iq_directory *directory; /* NULL in memory */
    uint32_t cpu_features;   /* asked once, for in a virtual machine the question is dear */
    uint64_t process;        /* that opened it: another one is a forked child */

    iq_mutex mutex;
    uintptr_t owner;   /* thread in a call, 0 for none; read without the lock to detect re-entry */
    iq_phase phase;    /* from here on: under the lock */
    unsigned depth;    /* calls nested in predicates */
    bool told;         /* the running call has reported details of its failure */

    iq_records records;

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
/* Leaves with this result and returns it; a failure that nobody has given details of is reported first. */
IQ_FN iqdb_result iq_db_leave_with(iqdb *db, iqdb_result result);
/* Returns INVALID_ARGUMENT, with the details where they go, which takes the lock; from inside a callback without. */
IQ_FN iqdb_result iq_db_refuse(iqdb *db, const char *why);

/* ---- Snapshots (image.c) and checks (verify.c) ---- */
IQ_FN iqdb_result iq_image_write(iq_snapshot_writer *writer, void *db);
IQ_FN iqdb_result iq_image_load(iq_snapshot_reader *reader, void *db);
IQ_FN iqdb_result iq_verify_records(iqdb *db, iqdb_report_fn report, void *user);

/* The handle behind a const one: readers take the lock too. */
IQ_FN iqdb *iq_db_of(const iqdb *db);

/* Whether the handle was carried into a child by fork. */
IQ_FN bool iq_db_is_forked(const iqdb *db);

#endif
