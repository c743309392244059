/* Reading a log: its header, its frames one by one, whole batches, and what its frames attest. */
#ifndef IQ_PERSIST_SCAN_H
#define IQ_PERSIST_SCAN_H

#include "persist/meta.h"

typedef struct iq_log_header {
    uint64_t number, salt, first_lsn;
    uint64_t before, before_salt; /* the log that this one continues */
    uint32_t sector_size;
    uint32_t crc;
} iq_log_header;

/* Fills the sector_size bytes of the first sector, and header->crc. */
IQ_FN void iq_log_encode_header(iq_log_header *header, const uint8_t *uuid, uint8_t *sector);
/* What the CRC of every frame of a log starts from. */
IQ_FN uint32_t iq_log_seed(uint64_t salt);
IQ_FN uint32_t iq_frame_crc(iq_crc32_fn crc32, uint32_t seed, const uint8_t *frame, uint32_t length);

typedef struct iq_frame {
    uint64_t offset, lsn, durable_lsn, batch_lsn;
    uint32_t length, crc, before_crc;
    uint8_t type, flags;
    const uint8_t *body; /* in the window: until the next frame is read. NULL: there is no frame */
} iq_frame;

typedef enum iq_log_state {
    IQ_LOG_IS_GOOD,
    IQ_LOG_IS_MISSING,
    IQ_LOG_IS_TORN,   /* no whole header */
    IQ_LOG_IS_FOREIGN /* of another database, or of another number */
} iq_log_state;

/* A log that is being read. Zeroed, it is closed. */
typedef struct iq_scan {
    iq_file file;
    iq_log_state state;
    uint64_t size_bytes; /* when it was opened */
    iq_log_header header;
    uint8_t uuid[IQ_UUID_SIZE];
    uint32_t seed;
    uint8_t *window;
    size_t window_capacity, window_size;
    uint64_t window_at, window_turns; /* turns: how often it was filled */
    uint64_t patience;                /* bytes that may still be summed in searches for frames */
    uint64_t anchor;                  /* what the next filling should keep: the start of the batch */
    iq_blob record;                   /* one put together from pieces */
} iq_scan;

/* Opens wal-<number> and reads its header. uuid NULL: of any database. Only a scan in state GOOD is open. */
IQ_FN iqdb_result iq_scan_open(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid, uint64_t number);
/* The same for a log that must be there and be the one that META or a switch frame describes, else CORRUPT. */
IQ_FN iqdb_result iq_scan_require(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid,
                                  const iq_log_entry *entry);
/* The same for a log whose header may be damaged, missing or another's; then the entry stands for it. Every such
 * damage is reported. In state GOOD there is a file of this database, and a salt to check its frames with. NOMEM. */
IQ_FN iqdb_result iq_scan_salvage(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid,
                                  const iq_log_entry *entry);
IQ_FN void iq_scan_close(iq_scan *scan);
IQ_FN iq_log_position iq_scan_start(const iq_scan *scan);
/* Reports damage and returns CORRUPT. */
IQ_FN iqdb_result iq_scan_corrupt(const iq_scan *scan, uint64_t offset, uint64_t lsn, const char *text);

/* The frame behind `from`: its CRC holds, and it continues `from`; else its body is NULL. CORRUPT: it does, but means
 * nothing. */
IQ_FN iqdb_result iq_scan_frame(iq_scan *scan, const iq_log_position *from, iq_frame *out_frame);
/* The same where it has been read before: CORRUPT where it is not there any more. */
IQ_FN iqdb_result iq_scan_frame_again(iq_scan *scan, const iq_log_position *from, iq_frame *out_frame);
/* Whether zeros stand there, where a frame would: the log was never written so far. */
IQ_FN iqdb_result iq_scan_is_blank(iq_scan *scan, uint64_t offset, bool *out_blank);
IQ_FN iq_log_position iq_scan_behind(const iq_frame *frame);

/* A batch: of records, or a single attest or switch frame. */
typedef struct iq_span {
    iq_log_position start, end;
    uint64_t durable_lsn;
    size_t record_max; /* bytes of the longest record that has more than one piece */
    uint8_t type;
    bool is_whole;     /* else it does not end, and `end` is behind its last valid frame */
    iq_log_entry next; /* of a switch: the log it leads to */
    uint64_t turns;    /* of the window, when the first frame had been checked */
} iq_span;

/* The batch behind `from`. */
IQ_FN iqdb_result iq_scan_batch(iq_scan *scan, const iq_log_position *from, iq_span *out_span);

/* Hands out each record of a whole batch. CORRUPT from record_fn is reported with the record's place. */
typedef iqdb_result (*iq_record_fn)(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user);
IQ_FN iqdb_result iq_scan_records(iq_scan *scan, const iq_span *span, iq_record_fn record_fn, void *user);

/* The first frame at or behind `offset` that is valid by itself, has LSN `lsn` or a later one and says that
 * `durable_lsn` was durable when it was written; its body is NULL where there is none. A scan's searches end where its
 * patience does. */
IQ_FN iqdb_result iq_scan_find(iq_scan *scan, uint64_t offset, uint64_t lsn, uint64_t durable_lsn, iq_frame *out_frame);
/* Whether any valid frame at or behind `offset` says that LSN `lsn` was durable when it was written. */
IQ_FN iqdb_result iq_scan_attests(iq_scan *scan, uint64_t offset, uint64_t lsn, bool *out_attests);

#endif
