/* The durable directory as the database sees it: LOCK, META, logs and snapshots behind one object. It knows bytes and
 * LSNs, not vectors. One thread at a time. */
#ifndef IQ_PERSIST_DIRECTORY_H
#define IQ_PERSIST_DIRECTORY_H

#include "persist/repair.h"

typedef struct iq_directory iq_directory;

typedef struct iq_directory_config {
    iq_volume volume; /* not open; its reporter outlives the directory */
    iqdb_entropy entropy;
    bool read_only;
    iq_schema schema;  /* of a new database */
    uint32_t required; /* and its feature bits */
    const char *model; /* and its model; NULL: none */
} iq_directory_config;

/* Creates, or loads and recovers (DESIGN: see the rules in persist/recover.c). A new database is durable at return. */
IQ_FN iqdb_result iq_directory_open(const char *path, const iq_directory_config *config, const iq_loader *loader,
                                    iq_directory **out_directory);

/* Of a directory that is read only: hands out what has been written since, or, where logs do not tell it any more, all of
 * it, beginning with the schema; and ends with apply_fn, which gets the loader's user. A failure, of that too, leaves the
 * directory where it was. */
IQ_FN iqdb_result iq_directory_refresh(iq_directory *directory, const iq_loader *loader,
                                       iqdb_result (*apply_fn)(void *user));

/* What a new directory begins with: a snapshot of everything up to `lsn`. */
typedef struct iq_directory_content {
    const uint8_t *uuid; /* NULL: one of its own */
    uint64_t lsn;
    const uint8_t *keys; /* IQ_META_KEYS_SIZE bytes for META */
    iq_snapshot_fn write_fn;
    void *user;
} iq_directory_content;

/* Makes a directory with this snapshot and an empty log, durable and closed at return. INVALID_CONFIG where there are
 * files of a database already. A failure leaves none, as far as they can be removed. */
IQ_FN iqdb_result iq_directory_make(const char *path, const iq_directory_config *config,
                                    const iq_directory_content *content);

/* In a child that cannot know what is whole: gives up the lock of the directory, and touches nothing else. */
IQ_FN void iq_directory_let_go(iq_directory *directory);
/* Frees in every case. A clean close has synced the log and marked META clean; the code says whether. */
IQ_FN iqdb_result iq_directory_close(iq_directory *directory);

/* ---- Writing a batch: begin, add every record, commit or queue; or abort ---- */
/* READONLY, POISONED, or OK and the log: iq_wal_add, iq_wal_queue and iq_wal_abort touch its memory only. */
IQ_FN iqdb_result iq_directory_batch_begin(iq_directory *directory, iq_wal **out_wal);
/* Writes the batch, and those that are queued, to the log; a sync may follow where `before_sync`, and the ballast may be
 * spent where `spends`. NOSPACE: the batch is aborted, nothing else happened. IO: the outcome is unknown and the directory is poisoned. */
IQ_FN iqdb_result iq_directory_batch_commit(iq_directory *directory, bool before_sync, bool spends,
                                            uint64_t *out_commit_lsn);
/* Makes durable what was written, in two steps. Beside the first one another thread may begin, add to, queue and abort
 * batches, and ask for facts; the second one is told what the first one returned. */
IQ_FN iqdb_result iq_directory_sync(const iq_directory *directory, int *os_code);
IQ_FN iqdb_result iq_directory_synced(iq_directory *directory, iqdb_result result, int os_code);

/* Frees a directory that another process owns: descriptors are closed, nothing is written, no lock is released. */
IQ_FN void iq_directory_abandon(iq_directory *directory);

/* What META will say at its next change. */
IQ_FN void iq_directory_set_schema(iq_directory *directory, iq_schema schema);
/* META requires these features: before the first record is logged that a reader has to know them for. */
IQ_FN iqdb_result iq_directory_require(iq_directory *directory, uint32_t features);

/* What META says of indexed keys, in IQ_META_KEYS_SIZE bytes; and has it say something else, durably, unless the
 * directory is read only. */
IQ_FN const uint8_t *iq_directory_keys(const iq_directory *directory);
IQ_FN iqdb_result iq_directory_set_keys(iq_directory *directory, const uint8_t *keys);

/* The same of the model. */
IQ_FN iqdb_result iq_directory_set_model(iq_directory *directory, const char *model);

/* Makes everything durable, where it syncs; then the frame that tells what is. */
IQ_FN iqdb_result iq_directory_flush(iq_directory *directory, bool syncs);

/* ---- A checkpoint: begin, write the sections of an image of last_lsn, finish, sync, end ---- */
typedef struct iq_tier {
    uint32_t kept;  /* snapshots that stay: the image is of what has changed since the last one of these, or of all */
    uint64_t bytes; /* it will not be much larger */
    iq_snapshot_writer *writer;
} iq_tier;
/* The log ends, and another one goes on: what is written from here on is not in the image. `whole`: of all. */
IQ_FN iqdb_result iq_directory_checkpoint_begin(iq_directory *directory, bool whole, iq_tier *out_tier);
/* The sections are written, unless `result` says that they are not. From OK on it has to be synced and ended; else
 * nothing is left of it. */
IQ_FN iqdb_result iq_directory_checkpoint_finish(iq_directory *directory, iqdb_result result);
/* Beside this another thread may do anything but finish, end or close. */
IQ_FN iqdb_result iq_directory_checkpoint_sync(const iq_directory *directory, int *os_code);
/* META names the snapshot; what it takes the place of goes. */
IQ_FN iqdb_result iq_directory_checkpoint_end(iq_directory *directory, iqdb_result synced, int os_code);

/* Reads everything again to `depth` (FRAMES or BLOCKS) and reports each finding; the code of the first. */
IQ_FN iqdb_result iq_directory_verify(iq_directory *directory, iqdb_depth depth, iqdb_report_fn report, void *user);

/* Reads what may be damaged: see persist/repair.h. Nobody may have it open for writing. out_keys: what iq_directory_keys
 * would say, zeros where META is lost. */
IQ_FN iqdb_result iq_directory_repair(const char *path, const iq_directory_config *config, const iq_loader *loader,
                                      iq_findings *findings, uint8_t *out_keys, uint64_t *out_lsn);

/* As iq_directory_describe, but what META says of a directory, without a lock, without reading logs or data, and writes nothing: recovered is
 * whether the next open will have to recover. loader: schema_fn and snapshot_fn are called. */
IQ_FN iqdb_result iq_directory_inspect(const char *path, const iq_directory_config *config, const iq_loader *loader,
                                       iqdb_stats *stats);

/* Sets what a directory knows of the facts: the UUID, what it may do, LSNs, the sizes of files. */
IQ_FN void iq_directory_describe(const iq_directory *directory, iqdb_stats *stats);
/* Whether it may be written: OK, READONLY or POISONED. */
IQ_FN iqdb_result iq_directory_check(const iq_directory *directory);
/* Bytes of logs that no snapshot holds. */
IQ_FN uint64_t iq_directory_log_bytes(const iq_directory *directory);
/* Whether everything that was written is durable. */
IQ_FN bool iq_directory_is_durable(const iq_directory *directory);
/* Whether snapshots hold all up to this LSN. */
IQ_FN bool iq_directory_holds(const iq_directory *directory, uint64_t lsn);
/* Whether one snapshot holds everything and the log is empty. */
IQ_FN bool iq_directory_is_compact(const iq_directory *directory);

#endif
