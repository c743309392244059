/* The durable directory as the database sees it: LOCK, META, logs and snapshots behind one object. It knows bytes and
 * LSNs, not vectors. One thread at a time. */
#ifndef IQ_PERSIST_DIRECTORY_H
#define IQ_PERSIST_DIRECTORY_H

#include "persist/repair.h"

typedef struct iq_directory iq_directory;

typedef struct iq_directory_config {
    iqdb_allocator allocator;
    iqdb_files files;
    iqdb_entropy entropy;
    const iq_reporter *reporter; /* outlives the directory */
    iq_crc32_fn crc32;           /* of iq_crc32_select; NULL: iq_crc32 */
    bool read_only;
    iq_schema schema; /* of a new database */
} iq_directory_config;

/* Creates, or loads and recovers (DESIGN: see the rules in persist/recover.c). A new database is durable at return. */
IQ_FN iqdb_result iq_directory_open(const char *path, const iq_directory_config *config, const iq_loader *loader,
                                    iq_directory **out_directory);

/* What a new directory begins with: a snapshot of everything up to `lsn`. */
typedef struct iq_directory_content {
    const uint8_t *uuid; /* NULL: one of its own */
    uint64_t lsn;
    iqdb_result (*write_fn)(iq_snapshot_writer *writer, void *user);
    void *user;
} iq_directory_content;

/* Makes a directory with this snapshot and an empty log, durable and closed at return. INVALID_CONFIG where there are
 * files of a database already. A failure leaves none, as far as they can be removed. */
IQ_FN iqdb_result iq_directory_make(const char *path, const iq_directory_config *config,
                                    const iq_directory_content *content);

/* Frees in every case. A clean close has synced the log and marked META clean; the code says whether. */
IQ_FN iqdb_result iq_directory_close(iq_directory *directory);

/* ---- Writing a batch: begin, add every record, commit; what was added without a commit is forgotten ---- */
/* READONLY, POISONED, or OK. */
IQ_FN iqdb_result iq_directory_batch_begin(iq_directory *directory);
/* One record, given in pieces. NOMEM or LIMIT: the batch cannot be committed. */
IQ_FN iqdb_result iq_directory_batch_add(iq_directory *directory, const iq_slice *pieces, size_t count);
/* Writes the batch to the log; with `sync` it is durable at return. NOSPACE: nothing happened. IO: the outcome is
 * unknown and the directory is poisoned. The batch is over in any case. */
IQ_FN iqdb_result iq_directory_batch_commit(iq_directory *directory, bool sync, uint64_t *out_commit_lsn);

/* Frees a directory that another process owns: descriptors are closed, nothing is written, no lock is released. */
IQ_FN void iq_directory_abandon(iq_directory *directory);

/* What META will say at its next change. */
IQ_FN void iq_directory_set_schema(iq_directory *directory, const iq_schema *schema);

IQ_FN iqdb_result iq_directory_flush(iq_directory *directory);

/* The image is that of last_lsn: write_fn writes its sections. */
IQ_FN iqdb_result iq_directory_checkpoint(iq_directory *directory,
                                          iqdb_result (*write_fn)(iq_snapshot_writer *writer, void *user), void *user);

/* Reads everything again to `depth` (FRAMES or BLOCKS) and reports each finding; the code of the first. */
IQ_FN iqdb_result iq_directory_verify(iq_directory *directory, iqdb_depth depth, iqdb_report_fn report, void *user);

/* Reads what may be damaged: see persist/repair.h. Nobody may have it open for writing. */
IQ_FN iqdb_result iq_directory_repair(const char *path, const iq_directory_config *config, const iq_loader *loader,
                                      iq_findings *findings, uint64_t *out_lsn);

/* As iq_directory_describe, but what META says of a directory, without a lock, without reading logs or data, and writes nothing: recovered is
 * whether the next open will have to recover. loader: schema_fn and snapshot_fn are called. */
IQ_FN iqdb_result iq_directory_inspect(const char *path, const iq_directory_config *config, const iq_loader *loader,
                                       iqdb_stats *stats);

/* Sets what a directory knows of the facts: the UUID, what it may do, LSNs, the sizes of files. */
IQ_FN void iq_directory_describe(const iq_directory *directory, iqdb_stats *stats);
/* Whether it may be written: OK, READONLY or POISONED. */
IQ_FN iqdb_result iq_directory_check(const iq_directory *directory);
/* Whether one snapshot holds everything and the log is empty. */
IQ_FN bool iq_directory_is_compact(const iq_directory *directory);

#endif
