/* Writing a log: batches, control frames, preallocation, syncs. */
#ifndef IQ_PERSIST_WAL_H
#define IQ_PERSIST_WAL_H

#include "persist/scan.h"

typedef struct iq_slice {
    const void *bytes;
    size_t size;
} iq_slice;

/* The log that is written. Zeroed, it is closed. */
typedef struct iq_wal {
    iq_file file;
    iq_log_header header;
    uint32_t seed;
    uint64_t allocated;         /* the file has zeros or frames up to here */
    uint64_t durable_size;      /* what was allocated at the last sync */
    uint64_t chunk_size;        /* of the next preallocation */
    iq_log_position written;    /* behind the last frame */
    iq_log_position synced;     /* behind the last frame that is durable; at the end of a sector */
    uint64_t data_lsn;          /* last one of a batch of records, whichever log it is in */
    uint64_t attested_lsn;      /* highest durable_lsn written */
    uint64_t batch_lsn;         /* of the batch that the next frame continues, 0: it starts one */
    iq_blob batch;              /* frames to be written: whole batches, and one in the making */
    size_t last_at;             /* offset of the last one there */
    size_t begun_at, before_at; /* size and last_at when the batch in the making began */
    uint8_t *zeros;
    bool poisoned; /* a sync, or a write behind preallocation, has failed: nothing may be written any more */
} iq_wal;

/* What no commit may have to ask for any more. NOMEM. */
IQ_FN iqdb_result iq_wal_init(iq_wal *wal, const iqdb_allocator *allocator);
IQ_FN void iq_wal_free(iq_wal *wal); /* closes it, too */

/* Creates a log under the first free number from header->number on (which it sets), durable, its name too. header:
 * number, salt, first_lsn, before, before_salt, sector_size. Nothing is left after a failure. */
IQ_FN iqdb_result iq_wal_create(iq_wal *wal, const iq_volume *volume, const uint8_t *uuid, iq_log_header *header);
/* Goes on in an existing log behind its end, where everything is durable. */
IQ_FN iqdb_result iq_wal_resume(iq_wal *wal, const iq_volume *volume, const iq_log_header *header,
                                const iq_log_entry *entry);

/* What META has to say of the log. */
IQ_FN iq_log_entry iq_wal_entry(const iq_wal *wal);

IQ_FN void iq_wal_begin(iq_wal *wal);
IQ_FN void iq_wal_abort(iq_wal *wal); /* forgets the batch that was begun last */
/* NOMEM or LIMIT: the batch is as it was. */
IQ_FN iqdb_result iq_wal_add(iq_wal *wal, const iq_slice *pieces, size_t count);
/* Ends the batch, which the next commit writes with its own: only memory is touched. False: space has to be made. */
IQ_FN bool iq_wal_queue(iq_wal *wal);
/* Writes what there is, so that a sync may follow where `before_sync`. NOSPACE: all is as it was. IO: poisoned. */
IQ_FN iqdb_result iq_wal_commit(iq_wal *wal, bool before_sync);
/* What a sync of the file made of all that was written; nothing has been written since. IO: poisoned. */
IQ_FN iqdb_result iq_wal_synced(iq_wal *wal, iqdb_result result, int os_code);
/* Makes all batches durable. Never needs space. */
IQ_FN iqdb_result iq_wal_flush(iq_wal *wal);
/* Writes, unsynced, a frame that says what is durable, where none says so yet and there is space. */
IQ_FN iqdb_result iq_wal_attest(iq_wal *wal);
/* Ends this log, which is then *out_ended, and goes on in a new one. NOSPACE: nothing happened. */
IQ_FN iqdb_result iq_wal_switch(iq_wal *wal, const uint8_t *uuid, uint64_t salt, iq_log_entry *out_ended);

/* Recovery: appends a frame of another log, renumbered behind the last one. A switch becomes an attest frame. */
IQ_FN iqdb_result iq_wal_copy(iq_wal *wal, const iq_frame *frame);
/* Recovery: writes what is left of copied frames, ends the sector, syncs. */
IQ_FN iqdb_result iq_wal_copy_end(iq_wal *wal);

#endif
