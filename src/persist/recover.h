/* What open does with what it finds: load, decide what is torn and what is rotten, and recover. */
#ifndef IQ_PERSIST_RECOVER_H
#define IQ_PERSIST_RECOVER_H

#include "persist/wal.h"

/* Called by open with what it finds, in this order. Any other result than OK ends the open with it. */
typedef struct iq_loader {
    /* Not for a new directory. A directory that is read only may have to be read anew: then it comes again, and what came
     * before it is void. */
    iqdb_result (*schema_fn)(const iq_manifest *manifest, void *user);    /* its schema, and its model */
    iqdb_result (*snapshot_fn)(iq_snapshot_reader *snapshot, void *user); /* the base, then each delta */
    /* Each logged record above the snapshot, in order, of whole batches only; commit_lsn is its batch's last LSN.
     * CORRUPT from here is reported by the directory with file and offset of the record. */
    iqdb_result (*record_fn)(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user);
    void *user;
    /* NULL, or where a base that can be mapped is left before snapshot_fn has it: to be closed, in every case, by whoever
     * has the loader. Of it only what is read is checked. */
    iq_snapshot_reader **mapped;
} iq_loader;

typedef struct iq_recovery {
    const iq_volume *volume;
    const iq_loader *loader;
    /* As META has it. Loading adds the logs that switch frames lead to, and to each log the end of what counts. */
    iq_manifest *manifest;
    const iq_log_position *from; /* NULL, or all up to here, a place in log `first`, has been loaded before */
    uint32_t first;
    uint64_t data_lsn;        /* last one of a batch of records */
    uint64_t log_bytes;       /* of all log files */
    uint64_t last_bytes;      /* of the last one */
    iq_log_header last;       /* header of the last log */
    iq_log_position attested; /* all up to here was acknowledged, or may have been: it is never written again */
    uint32_t attested_log;    /* index of the log it lies in */
} iq_recovery;

/* META is `state`: OK where that and the other files are no more than an interrupted create, or nothing at all, which
 * *out_blank says. Else CORRUPT. */
IQ_FN iqdb_result iq_recover_is_unborn(const iq_volume *volume, iq_meta_state state, bool *out_blank);

/* Loads the snapshot, then the logs. */
IQ_FN iqdb_result iq_recover_load(iq_recovery *recovery);
/* Makes a fresh log of what is above `attested` and leaves `wal` behind it; *out_next is what META has to say. A
 * failure has removed the log again. */
IQ_FN iqdb_result iq_recover_rewrite(const iq_recovery *recovery, uint64_t salt, iq_wal *wal, iq_manifest *out_next);
/* Removes files of this database that META, in both slots, does not name. */
IQ_FN void iq_recover_sweep(const iq_volume *volume, const iq_manifest *manifest);

#endif
