/* From an id to its newest row: open addressing over one array of 8-byte slots. The ids themselves are in the rows. One
 * thread writes; any number find. Ids of lent rows may be in a table that is lent, too: what is here comes first. */
#ifndef IQ_STORE_IDS_H
#define IQ_STORE_IDS_H

#include "base/hash.h"
#include "store/rows.h"

typedef struct iq_ids {
    const iqdb_allocator *allocator;
    uint64_t
        *slots; /* atomic: a table; high half: tag, low half: row + 1; 0 is empty, low half 0 with a tag is removed */
    size_t capacity; /* atomic, of the newest table: slots */
    size_t live;     /* the writer's: slots with a row */
    size_t used;     /* and removed ones */
} iq_ids;

IQ_FN void iq_ids_init(iq_ids *ids, const iqdb_allocator *allocator);
IQ_FN void iq_ids_free(iq_ids *ids);
/* Slots of a table that is rebuilt for so many ids: 5/8 of them at most are used. */
IQ_INLINE size_t iq_ids_capacity(size_t count) { return count <= 20 ? 32 : (count + 4) / 5 * 8; }
/* After OK, `more` ids have a place. */
IQ_FN iqdb_result iq_ids_reserve(iq_ids *ids, size_t more);
/* Asks for what a look for the id will want, at any time: nothing is read. */
IQ_FN void iq_ids_prefetch(const iq_ids *ids, uint64_t id);
/* The same for the head of its row, where the first look would find that. */
IQ_FN void iq_ids_prefetch_head(const iq_ids *ids, const iq_rows *rows, uint64_t id);
/* The newest row of the id, dead or alive, if there is one; IQ_ROW_LOST where a damaged table or row is in the way. Where
 * its vector is wanted next, that is asked for. */
IQ_FN iq_spot iq_ids_find(const iq_ids *ids, const iq_rows *rows, uint64_t id, bool wants_vector);
/* The place of the id, for iq_ids_put; NULL before the first reserve. *out_spot: its newest row, if there is one. */
IQ_FN uint64_t *iq_ids_place(const iq_ids *ids, const iq_rows *rows, uint64_t id, iq_spot *out_spot);
/* Puts an id into a table to be lent, of so many places, that are zeros at first. */
IQ_FN void iq_ids_put_lent(uint8_t *places, size_t capacity, uint64_t id, uint32_t row);
/* Names `row`, whose head is written, the newest of its id. */
IQ_FN void iq_ids_put(iq_ids *ids, uint64_t *place, uint64_t id, uint32_t row);
/* Of an id whose newest row it is. */
IQ_FN void iq_ids_remove(iq_ids *ids, uint64_t id, uint32_t row);

#endif
