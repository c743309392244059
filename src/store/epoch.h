/* How readers keep what they read without a lock: pins on moments, and tables that grow under their eyes.
 *
 * A moment is a state of the store. The writer publishes one after the other; a reader pins the newest, and sees what
 * was born at its moment or before and is not dead at it. Moments number the publications of a handle, without gap;
 * LSNs are the log's. */
#ifndef IQ_STORE_EPOCH_H
#define IQ_STORE_EPOCH_H

#include "base/alloc.h"
#include "sys/atomic.h"
#include "sys/sys.h"

#define IQ_MOMENT_NEVER UINT64_MAX
#define IQ_MOMENT_LAST (IQ_MOMENT_NEVER - 1) /* sees what is not published yet, too: the writer's */
#if !defined(IQ_SLOT_COUNT)
#define IQ_SLOT_COUNT 16u /* of a chunk */
#endif

/* Memory that a call may use while it has it; what it is for comes behind this header, at IQ_CACHE_LINE. */
typedef struct iq_scratch {
    size_t size_bytes; /* with the header */
} iq_scratch;

/* A place for one pin, and beside it one for scratch, which is anybody's. Pins belong to calls and iterators, not to
 * threads: whoever swaps a slot from 0 has it. */
typedef struct iq_slot {
    uint64_t moment;     /* 0: free; else its holder sees this one or a newer one */
    iq_scratch *scratch; /* left by a call for another one, or NULL */
    uint8_t distance[IQ_ATOMIC_DISTANCE - 8 - sizeof(void *)];
} iq_slot;

typedef struct iq_slots {
    iq_slot slots[IQ_SLOT_COUNT];
    struct iq_slots *next;
    uint8_t distance[IQ_ATOMIC_DISTANCE - sizeof(void *)];
} iq_slots;

typedef struct iq_epoch {
    iq_slots first;
    uint64_t moment; /* the newest one; never 0 */
    uint8_t distance[IQ_ATOMIC_DISTANCE - 8];
    uint64_t unslotted; /* pins that found no slot: while there are any, nothing is given back */
    uint64_t fence;
    bool crowded; /* the writer's: there were such pins */
} iq_epoch;

typedef struct iq_pin {
    iq_slot *slot; /* NULL: counted in `unslotted` */
    uint64_t moment;
    uint64_t count; /* at the moment */
} iq_pin;

/* A number of each moment, of as many kinds as there are: the present one, and the one before or behind it, by parity. */
typedef struct iq_tally {
    uint64_t counts[2];
} iq_tally;

IQ_FN void iq_epoch_init(iq_epoch *epoch);
IQ_FN void iq_epoch_free(iq_epoch *epoch, const iqdb_allocator *allocator);

/* ---- For readers: no lock, no wait, no failure ---- */

/* `self` is any number; threads that pass different ones tend not to meet in a slot. */
IQ_FN iq_pin iq_epoch_pin(iq_epoch *epoch, const iq_tally *tally, uintptr_t self);
/* `slot` is the pin's. */
IQ_FN void iq_epoch_unpin(iq_epoch *epoch, iq_slot *slot);
/* Scratch that a call has left, best near the own slot (NULL: anywhere), and of that size where there is such; NULL
 * where all is in use. */
IQ_FN iq_scratch *iq_epoch_take_scratch(iq_epoch *epoch, iq_slot *own, size_t size_bytes);
/* Leaves it to another call; false where there is no place for it. */
IQ_FN bool iq_epoch_leave_scratch(iq_epoch *epoch, iq_slot *own, iq_scratch *scratch);
/* Bytes of what is left so, for who keeps them from being freed. */
IQ_FN uint64_t iq_epoch_scratch_bytes(const iq_epoch *epoch);
/* NULL without memory. */
IQ_FN iq_scratch *iq_scratch_make(const iqdb_allocator *allocator, size_t size_bytes);
IQ_FN void iq_scratch_free(const iqdb_allocator *allocator, iq_scratch *scratch); /* NULL is fine */
/* The number of the present moment. */
IQ_FN uint64_t iq_epoch_count(const iq_epoch *epoch, const iq_tally *tally);

/* ---- For the writer ---- */

/* The number of the next moment, epoch->moment + 1, from before that is published until the one behind it is. */
IQ_FN void iq_epoch_tell(const iq_epoch *epoch, iq_tally *tally, uint64_t count);
/* What was written so far belongs to the next moment, which is now the newest. */
IQ_FN void iq_epoch_publish(iq_epoch *epoch);
/* No pin is on an older moment: NEVER where there is none. What cannot be reached from `moment` on, and was
 * unreachable before that was published, may be given back once this is above the moment before it. */
IQ_FN uint64_t iq_epoch_oldest(iq_epoch *epoch);
/* More slots where they were short; without memory it stays as it is. */
IQ_FN void iq_epoch_make_room(iq_epoch *epoch, const iqdb_allocator *allocator);

/* ---- Arrays that readers may be reading while the writer replaces them by larger ones ---- */

/* Stands IQ_CACHE_LINE bytes before the items. */
typedef struct iq_table {
    struct iq_table *older; /* replaced by this one, perhaps still read */
    size_t size_bytes;      /* of the items */
    uint64_t replaced;      /* the last moment from which it can be reached; 0: not known yet */
} iq_table;

IQ_INLINE iq_table *iq_table_of(void *items) { return (iq_table *)(void *)((uint8_t *)items - IQ_CACHE_LINE); }
IQ_INLINE size_t iq_table_size(void *items) { return items == NULL ? 0 : iq_table_of(items)->size_bytes; }
/* Whether there are older items behind these. */
IQ_INLINE bool iq_table_is_replacement(void *items) { return items != NULL && iq_table_of(items)->older != NULL; }

#define IQ_TABLE_ITEMS_MIN 4u

/* New items, of any contents, with the old ones (NULL or a table's) behind them; NULL without memory. To be filled and
 * then published with a release store. */
IQ_FN void *iq_table_renew(const iqdb_allocator *allocator, void *items, size_t size_bytes);
/* Room for `more` items, zeros, behind the `used` ones: `items` itself or a renewed copy; NULL without memory. It grows at
 * the same count whatever the size of an item, which is a matter of the platform, while what goes on from there is not. */
IQ_FN void *iq_table_reserve(const iqdb_allocator *allocator, void *items, size_t item_bytes, size_t used, size_t more);
/* Frees older items that no pin reaches. `oldest` is that of the epoch, asked before `now` is published over. */
IQ_FN void iq_table_trim(const iqdb_allocator *allocator, void *items, uint64_t oldest, uint64_t now);
/* Frees the items and all older ones. */
IQ_FN void iq_table_free(const iqdb_allocator *allocator, void *items);

#endif
