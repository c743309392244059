/* From an id to its newest row: open addressing over one array of 8-byte slots. The ids themselves are in the rows. One
 * thread writes; any number find. */
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
/* After OK, `more` ids have a place. */
IQ_FN iqdb_result iq_ids_reserve(iq_ids *ids, size_t more);
/* Asks for what a look for the id will want, at any time: nothing is read. */
IQ_FN void iq_ids_prefetch(const iq_ids *ids, uint64_t id);
/* The newest row of the id, dead or alive, or IQ_ROW_NONE. */
IQ_FN uint32_t iq_ids_find(const iq_ids *ids, const iq_rows *rows, uint64_t id);
/* The place of the id, for iq_ids_put; behind a reserve. *out_row: its newest row, or IQ_ROW_NONE. */
IQ_FN uint64_t *iq_ids_place(const iq_ids *ids, const iq_rows *rows, uint64_t id, uint32_t *out_row);
/* Names `row`, whose head is written, the newest of its id. */
IQ_FN void iq_ids_put(iq_ids *ids, uint64_t *place, uint64_t id, uint32_t row);
IQ_FN void iq_ids_remove(iq_ids *ids, const iq_rows *rows, uint64_t id);

#endif
