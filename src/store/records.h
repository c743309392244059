/* Records in memory: rows, the table of their ids, the payload heap, and which moment sees which row. One thread at a
 * time writes; any number read under pins, without a lock. */
#ifndef IQ_STORE_RECORDS_H
#define IQ_STORE_RECORDS_H

#include "store/filter.h"
#include "store/heap.h"
#include "store/ids.h"
#include "store/keys.h"
#include "sys/limit.h"

/* Rows buried but perhaps still seen at a pinned moment, oldest death first. */
typedef struct iq_retired {
    uint32_t *rows; /* a ring; its capacity is a power of two */
    size_t capacity, first, count;
    size_t unlinked; /* the first so many of them are reached by no pin newer than `unlinked_at` */
    uint64_t unlinked_at;
    uint64_t bytes; /* of rows and payloads */
    size_t kept;    /* so many, of so many bytes, were left by the last look at the pins */
    uint64_t kept_bytes;
} iq_retired;

#define IQ_RETIRED_ROWS_MIN 64u /* places of the ring, once it has any */

/* So many, or so many bytes, come to those that were kept before there is another look at the pins. */
#define IQ_RETIRED_FEW 32u
#define IQ_RETIRED_FEW_BYTES (64u * 1024u)

/* Who else knows rows by their numbers: told before one is given back, when nobody sees it any more, and of the oldest
 * pin; it returns whether it keeps something for pins. */
typedef struct iq_watch {
    void (*remove_fn)(void *user, uint32_t row); /* NULL: nobody */
    bool (*collect_fn)(void *user, uint64_t oldest);
    void *user;
    bool waits;
} iq_watch;

/* What the records of all collections of a database have in common: they change, and are seen, at the same moments. */
typedef struct iq_common {
    iq_epoch epoch;
    uint64_t lsn;             /* of the last write */
    uint64_t changed;         /* the moment of the last change: beyond the present one until that is published */
    bool sealed;              /* some of that is to be published by itself: what comes now is of a later moment */
    struct iq_records *stale; /* a list of those whose tally has to be told at the next publication */
    uint64_t retired_bytes, retired_max;
    int64_t charge;     /* by iq_record_bytes, payloads twice: what was staged and is not buried yet */
    int64_t charge_max; /* INT64_MAX, or what live records may count: in fixed memory, or by options.memory_max */
} iq_common;

/* An id whose record was deleted, and the moment of that. */
typedef struct iq_deleted {
    uint64_t id, moment;
} iq_deleted;

typedef struct iq_records {
    iq_common *common;
    const iqdb_allocator *allocator;
    const iq_kernel *kernel; /* of f32 */
    bool keeps_deleted;
    uint32_t dim;   /* atomic: what readers know: that of the records that are published */
    iq_tally tally; /* of live_count: readers have that of their moment */
    iq_ids ids;     /* those who have not entered yet prefetch what is in it */
    iq_rows rows;   /* from here on cleared by free; what is above may be looked at beside that */
    iq_heap heap;
    iq_keys keys;
    iq_retired retired;
    iq_watch watch;
    int64_t charge;       /* their share */
    size_t live_count;    /* records after all that was upserted and deleted */
    uint64_t changed;     /* the moment of their last change */
    uint32_t written_dim; /* of what has been upserted: rows.dim, but for that of a first record in the making */
    struct iq_records *next_stale;
    uint32_t stale;  /* publications until both cells of the tally say the same; not 0: in the list */
    iq_blob deleted; /* where it keeps them: an iq_deleted each, in order; for deltas */
} iq_records;

IQ_FN void iq_common_init(iq_common *common);
IQ_FN void iq_common_free(iq_common *common, const iqdb_allocator *allocator);
IQ_FN void iq_records_init(iq_records *records, iq_common *common, const iqdb_allocator *allocator,
                           const iq_kernel *kernel);
IQ_FN void iq_records_free(iq_records *records); /* what comes next is a publication */

/* What a record takes without its code: its vector, its payload, at most 64 bytes more of its row, and 24 around the payload. Fixed memory
 * counts payloads twice, so that each can be replaced by one of its size. */
IQ_INLINE uint64_t iq_record_bytes(size_t stride, uint64_t payload_bytes) {
    return (uint64_t)stride * sizeof(float) + 64 + 24 + payload_bytes;
}

/* ---- Writing: reserve and stage may fail, what follows cannot ---- */

/* Room for `count` operations. BUSY while pins keep more than retired_max. */
IQ_FN iqdb_result iq_records_reserve(iq_records *records, size_t count);
/* Slabs for so many rows in all, and places for so many more ids. */
IQ_FN iqdb_result iq_records_expect(iq_records *records, size_t rows, size_t ids);
/* Has indexes of these keys and no others, of what is there; while there are no readers. */
IQ_FN iqdb_result iq_records_index(iq_records *records, const iqdb_index_key *set, size_t count);
/* Counts a record that came from elsewhere than a stage, and is going to take the place of the present one of its id:
 * NOMEM where there is no room for it. */
IQ_FN iqdb_result iq_records_count_in(iq_records *records, uint64_t id, uint64_t payload_size);
/* A row with this vector, of the element of the rows, and payload that nobody sees yet. The vector is copied; norm is
 * computed. INVALID_VECTOR where it is none. */
IQ_FN iqdb_result iq_records_stage(iq_records *records, uint64_t id, const void *vector, iqdb_payload payload,
                                   uint32_t *out_row);
IQ_FN void iq_records_unstage(iq_records *records, uint32_t row);
/* What the record of this id needs, if it is lent, so that another one may take its place, as a stage sees to; or that it
 * may be deleted. NOMEM; CORRUPT where nobody can tell whether there is one. */
IQ_FN iqdb_result iq_records_claim(iq_records *records, uint64_t id);
/* The staged row is the record of its id from the next moment on. */
IQ_FN void iq_records_upsert(iq_records *records, uint32_t row);
/* Ends the record of the id with the next moment; whether there was one. */
IQ_FN bool iq_records_delete(iq_records *records, uint64_t id);
/* The moment that a change made now will be seen at. */
IQ_FN uint64_t iq_records_change(iq_records *records);
/* What was upserted and deleted so far is what the next publication publishes, and nothing that follows; once before
 * each of them at most. */
IQ_FN void iq_common_seal(iq_common *common);
/* All that was upserted and deleted since the last time, or before the seal, is seen from here on, at once. */
IQ_FN void iq_common_publish(iq_common *common, uint64_t lsn);
/* Behind that: rows that nobody sees any more are given back, where there are more than a few. */
IQ_FN void iq_records_tidy(iq_records *records);
IQ_FN void iq_records_publish(iq_records *records, uint64_t lsn); /* both */
/* Gives back what no pin keeps any more, until the limit (NULL: none) is reached: whether there is nothing left of it. */
IQ_FN bool iq_records_reclaim(iq_records *records, iq_limit *limit);
/* The same behind a new moment, which keeps nothing that is on the present one; unless something waits for its
 * publication, which makes one, or, where that has failed, for ever. */
IQ_FN bool iq_records_maintain(iq_records *records, iq_limit *limit);

/* ---- Reading, under a pin of the epoch, or by the writer at its newest moment ---- */

/* The row of this id that is seen at `moment`, if there is one, or IQ_ROW_LOST. Where its vector is wanted next, that is asked for. */
IQ_FN iq_spot iq_records_find(const iq_records *records, uint64_t id, uint64_t moment, bool wants_vector);
/* Which rows a walk is for; NULL: all. */
typedef struct iq_choice {
    const iq_filter *filter;
    const uint32_t *bits;           /* a bit a row: those that the filter may accept */
    uint32_t heads_to, payloads_to; /* the walk's: rows before these were asked for, their heads, and their payloads */
} iq_choice;

/* Bytes of such bits: whole words, and one behind them. */
IQ_INLINE size_t iq_choice_bytes(uint32_t row_count) { return (row_count / 32 + (size_t)2) * sizeof(uint32_t); }
IQ_INLINE bool iq_records_have_keys(const iq_records *records) { return !IQ_SMALL && records->keys.count > 0; }
/* Where indexes of keys tell enough to look only at what they list of the first `end` rows, lists that in `bits`, and
 * returns about how many there are at most; else `end`. */
IQ_FN uint32_t iq_records_choose(const iq_records *records, const iq_filter *filter, uint32_t end, uint32_t *bits);
/* Moves *row to the first one from there on, before `end`, that is seen at `moment` and chosen (NULL: all are): its
 * slab, and its place there; NULL at the end, and where *row, short of the end, is damaged. */
IQ_FN const iq_slab *iq_records_next(const iq_records *records, uint32_t *row, uint32_t end, uint64_t moment,
                                     iq_choice *choice, uint32_t *out_index);

#endif
