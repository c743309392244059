/* The handle, its lock and its pins.
 *
 * Whoever writes, checks or maintains holds the lock for the length of the call; whoever reads pins a moment and takes no
 * lock. A call from a callback that runs under the lock is BUSY; one from anywhere else, a predicate or the body of an
 * iterator's loop too, is a call like any other. */
#ifndef IQ_DB_DB_H
#define IQ_DB_DB_H

#include "index/flat.h"
#include "persist/directory.h"
#include "store/filter.h"
#include "store/records.h"
#include "sys/atomic.h"
#include "sys/thread.h"

struct iqdb {
    iqdb_allocator allocator;
    iq_reporter reporter;
    iqdb_sync sync;
    bool compact_on_close;
    bool read_only; /* over memory of somebody else; a directory has a mark of its own */
    iqdb_metric metric;
    iqdb_parallel_for parallel_for;
    iqdb_files files;
    iqdb_entropy entropy;
    iq_crc32_fn crc32;
    iq_directory *directory; /* NULL in memory */
    uint32_t cpu_features;   /* asked once, for in a virtual machine the question is dear */
    uint64_t process;        /* that opened it: another one is a forked child */

    iq_mutex mutex;
    uintptr_t owner; /* thread under the lock, 0 for none; read without it to detect re-entry */
    bool told;       /* the call under the lock has reported details of its failure */

    uint8_t distance[IQ_ATOMIC_DISTANCE]; /* from what writers write at each entry to the slots of readers */

    iq_records records; /* changed under the lock, read under pins */

    uint32_t *staged; /* rows of the batch in the making, one an operation */
    size_t staged_capacity;
    iq_blob encoded; /* a payload in the making */
};

/* Pins the present state; BUSY inside a callback that runs under the lock. Every OK needs an unpin of the epoch. */
IQ_FN iqdb_result iq_db_enter_read(const iqdb *db, iq_pin *out_pin);
IQ_FN void iq_db_leave_read(const iqdb *db, iq_pin pin);

/* A view of a row's record, good while the row is pinned. */
IQ_FN iqdb_record iq_db_record_at(const iqdb *db, const iq_slab *slab, uint32_t index);

/* Takes the lock; BUSY where this thread has it already. Every OK needs a leave. */
IQ_FN iqdb_result iq_db_enter_upkeep(iqdb *db);
IQ_FN iqdb_result iq_db_enter_write(iqdb *db); /* and POISONED, READONLY, LOCKED where nothing may be written */
IQ_FN void iq_db_leave(iqdb *db);
/* Leaves with this result and returns it; a failure that nobody has given details of is reported first. */
IQ_FN iqdb_result iq_db_leave_with(iqdb *db, iqdb_result result);
/* Returns INVALID_ARGUMENT, with the details where they go, which takes the lock; from inside a callback without. */
IQ_FN iqdb_result iq_db_refuse(iqdb *db, const char *why);

/* Deletes these ids in one batch, under the writer's lock (write.c). */
IQ_FN iqdb_result iq_batch_delete(iqdb *db, const uint64_t *ids, size_t count, size_t *out_removed);

/* A filter compiled into memory of the handle's allocator: INVALID_FILTER or NOMEM. Given back by iq_program_free. */
typedef struct iq_program {
    iq_filter filter;
    size_t size_bytes;
} iq_program;

IQ_FN iqdb_result iq_program_make(const iqdb *db, const iqdb_filter *filter, iq_program **out_program);
IQ_FN void iq_program_free(const iqdb *db, iq_program *program); /* NULL is fine */

/* ---- The handle itself (open.c) ---- */
/* Opens a handle, options NULL being the defaults, and has it filled under its lock. INVALID_ARGUMENT where out_db or
 * source is NULL. After a failure there is no handle, and its directory is closed. */
typedef iqdb_result (*iq_fill_fn)(iqdb *db, const iqdb_options *options, const void *source);
IQ_FN iqdb_result iq_db_open(const iqdb_options *options, iq_fill_fn fill_fn, const void *source, iqdb **out_db);
IQ_FN void iq_db_free(iqdb *db);
/* What is stored fixes metric and dimension; `file` says so. Options that contradict it are INVALID_CONFIG. */
IQ_FN iqdb_result iq_db_adopt_schema(iqdb *db, const iqdb_options *options, const iq_schema *schema, const char *file);
/* The same for the dimension, which may be known only when all is loaded, and what options.verify asks for. */
IQ_FN iqdb_result iq_db_finish(iqdb *db, const iqdb_options *options, const char *file);
/* A logged record of a batch that ended at commit_lsn takes effect. CORRUPT where it cannot. */
IQ_FN iqdb_result iq_db_replay(iqdb *db, const uint8_t *bytes, size_t size, uint64_t commit_lsn);
IQ_FN iq_schema iq_db_schema(const iqdb *db);
IQ_FN iq_directory_config iq_db_config(const iqdb *db);

/* ---- Snapshots (image.c) and checks (verify.c) ---- */

/* The records that a reader at `moment` sees; they have to stay while it is written. */
typedef struct iq_image {
    iqdb *db;
    uint64_t lsn, moment;
    uint32_t row_end;
    uint64_t count;
} iq_image;

IQ_FN iq_image iq_image_take(iqdb *db);
IQ_FN iqdb_result iq_image_write(iq_snapshot_writer *writer, void *image);
/* Makes a directory of all records, as of `lsn`; uuid NULL: with one of its own. */
IQ_FN iqdb_result iq_image_to_directory(iqdb *db, const char *path, const uint8_t *uuid, uint64_t lsn);
/* Into a handle without records; in_place: the snapshot is in memory, has been checked, and outlives the handle. */
IQ_FN iqdb_result iq_image_load(iq_snapshot_reader *reader, iqdb *db, bool in_place);
/* What the snapshot says of itself, where it can be read. */
IQ_FN iqdb_result iq_image_schema(iq_snapshot_reader *reader, iq_schema *out_schema, uint64_t *out_rows);
IQ_FN void iq_verify_records(const iqdb *db, iq_findings *findings);

/* The handle behind a const one: readers pin it, or take the lock for its statistics. */
IQ_FN iqdb *iq_db_of(const iqdb *db);

/* Whether the handle was carried into a child by fork. */
IQ_FN bool iq_db_is_forked(const iqdb *db);

#endif
