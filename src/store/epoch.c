/* Epoch-based reclamation (K. Fraser, "Practical lock-freedom", 2004, section 5.2.3), with the moment of publication
 * as the epoch.
 *
 * Reader: e = moment; slot = e; FENCE; v = moment; reads; slot = 0.
 * Writer: makes things unreachable; moment = m + 1; FENCE; looks at the slots; gives back what no slot <= m can reach.
 *
 * 1. The fences stand between a reader's slot and what it reads, and between what the writer has published and the
 *    slots it looks at. So either the writer finds the slot, or the reader finds all that was published.
 * 2. A reader sees the state of v, taken behind its fence; e, taken before, may be older than what the writer has
 *    already cleared away. The slot tells e <= v, so it keeps too much rather than too little.
 * 3. The moment is stored with release and loaded with acquire: a reader whose slot says e reaches nothing that was
 *    made unreachable before e was published. With a relaxed store it could announce the new moment and still follow
 *    the old pointer.
 * 4. A slot is left with release and looked at with acquire: what its holder read was read before it is written over.
 *    The next holder's swap continues the release, so the look needs to find only the last one.
 *
 * tests/model/test_epoch.c runs this file under every order of its steps and every value that a load may return. */
#include "store/epoch.h"

IQ_STATIC_ASSERT(sizeof(iq_table) <= IQ_CACHE_LINE, a_table_has_room_for_its_head);

/* ---- Pins ---- */

static iq_slots *iq_slots_next(const iq_slots *chunk) { return IQ_ONLY_BLOBS ? NULL : IQ_ATOMIC_LOAD(&chunk->next); }

IQ_FN void iq_epoch_init(iq_epoch *epoch) {
    if (!IQ_ONLY_BLOBS) memset(epoch, 0, sizeof *epoch);
    epoch->moment = 1; /* 0 would make a slot look free */
}

IQ_FN void iq_epoch_free(iq_epoch *epoch, const iqdb_allocator *allocator) {
    iq_slots *chunk = &epoch->first;
    while (chunk != NULL) {
        iq_slots *next = iq_slots_next(chunk);
        for (size_t i = 0; i < IQ_SLOT_COUNT; i++) iq_scratch_free(allocator, chunk->slots[i].scratch);
        if (chunk != &epoch->first) iq_free(allocator, chunk, sizeof *chunk, IQ_CACHE_LINE);
        chunk = next;
    }
    if (!IQ_ONLY_BLOBS) iq_epoch_init(epoch);
}

/* A free slot, now holding `moment`, or NULL. */
static iq_slot *iq_epoch_claim(iq_epoch *epoch, uint64_t moment, uintptr_t self) {
    if (IQ_ONLY_BLOBS) return NULL; /* nothing is ever given back: that there are pins is all there is to know */
    const size_t start = (size_t)((uint64_t)self * UINT64_C(0x9E3779B97F4A7C15) >> 32); /* identities are far apart */
    for (iq_slots *chunk = &epoch->first; chunk != NULL; chunk = iq_slots_next(chunk)) {
        for (size_t i = 0; i < IQ_SLOT_COUNT; i++) {
            iq_slot *slot = &chunk->slots[(start + i) % IQ_SLOT_COUNT];
            if (IQ_ATOMIC_LOAD(&slot->moment) == 0 && IQ_ATOMIC_SWAP_IF(&slot->moment, 0, moment)) return slot;
        }
    }
    return NULL;
}

/* The newest moment and its count. The writer fills the other cell before it publishes: while the moment stands, so
 * does its count. Each further round is made by a write that came between. */
static uint64_t iq_epoch_now(const iq_epoch *epoch, const iq_tally *tally, uint64_t *out_count) {
    for (;;) {
        const uint64_t moment = IQ_ATOMIC_LOAD(&epoch->moment);
        *out_count = IQ_ATOMIC_LOAD(&tally->counts[moment % 2]);
        if (IQ_ATOMIC_LOAD(&epoch->moment) == moment) return moment;
    }
}

IQ_HOT iq_pin iq_epoch_pin(iq_epoch *epoch, const iq_tally *tally, uintptr_t self) {
    iq_pin pin;
    pin.slot = iq_epoch_claim(epoch, IQ_ATOMIC_LOAD(&epoch->moment), self);
    if (IQ_LIKELY(pin.slot != NULL)) {
        IQ_ATOMIC_FENCE_BEHIND_SWAP(&epoch->fence);
    } else {
        IQ_ATOMIC_ADD(&epoch->unslotted, 1);
        IQ_ATOMIC_FENCE(&epoch->fence);
    }
    pin.moment = iq_epoch_now(epoch, tally, &pin.count);
    return pin;
}

IQ_FN void iq_epoch_unpin(iq_epoch *epoch, iq_slot *slot) {
    if (slot != NULL) {
        IQ_ATOMIC_STORE(&slot->moment, 0);
    } else {
        IQ_ATOMIC_ADD(&epoch->unslotted, UINT64_MAX);
    }
}

/* Whoever swaps the pointer out has the memory: nobody looks at what is behind it before. Too small a one goes back,
 * unless another one has come in its place. */
static iq_scratch *iq_slot_take_scratch(iq_slot *slot, size_t size_bytes) {
    iq_scratch *scratch = IQ_ATOMIC_LOAD(&slot->scratch);
    if (scratch == NULL || !IQ_ATOMIC_SWAP_IF(&slot->scratch, scratch, NULL)) return NULL;
    return scratch->size_bytes < size_bytes && IQ_ATOMIC_SWAP_IF(&slot->scratch, NULL, scratch) ? NULL : scratch;
}

IQ_FN iq_scratch *iq_epoch_take_scratch(iq_epoch *epoch, iq_slot *own, size_t size_bytes) {
    for (;; size_bytes = 0) { /* of any size, where there is none of this one */
        iq_scratch *scratch = own != NULL ? iq_slot_take_scratch(own, size_bytes) : NULL;
        for (iq_slots *chunk = &epoch->first; chunk != NULL && scratch == NULL; chunk = iq_slots_next(chunk))
            for (size_t i = 0; i < IQ_SLOT_COUNT && scratch == NULL; i++)
                scratch = iq_slot_take_scratch(&chunk->slots[i], size_bytes);
        if (scratch != NULL || size_bytes == 0) return scratch;
    }
}

IQ_FN bool iq_epoch_leave_scratch(iq_epoch *epoch, iq_slot *own, iq_scratch *scratch) {
    if (own != NULL && IQ_ATOMIC_SWAP_IF(&own->scratch, NULL, scratch)) return true;
    for (iq_slots *chunk = &epoch->first; chunk != NULL; chunk = iq_slots_next(chunk))
        for (size_t i = 0; i < IQ_SLOT_COUNT; i++)
            if (IQ_ATOMIC_SWAP_IF(&chunk->slots[i].scratch, NULL, scratch)) return true;
    return false;
}

IQ_FN uint64_t iq_epoch_scratch_bytes(const iq_epoch *epoch) {
    uint64_t bytes = 0;
    for (const iq_slots *chunk = &epoch->first; chunk != NULL; chunk = iq_slots_next(chunk)) {
        for (size_t i = 0; i < IQ_SLOT_COUNT; i++) {
            const iq_scratch *scratch = IQ_ATOMIC_LOAD(&chunk->slots[i].scratch);
            if (scratch != NULL) bytes += scratch->size_bytes;
        }
    }
    return bytes;
}

IQ_FN iq_scratch *iq_scratch_make(const iqdb_allocator *allocator, size_t size_bytes) {
    iq_scratch *scratch = (iq_scratch *)iq_alloc(allocator, size_bytes, IQ_CACHE_LINE);
    if (scratch != NULL) scratch->size_bytes = size_bytes;
    return scratch;
}

IQ_FN void iq_scratch_free(const iqdb_allocator *allocator, iq_scratch *scratch) {
    if (scratch != NULL) iq_free(allocator, scratch, scratch->size_bytes, IQ_CACHE_LINE);
}

IQ_FN uint64_t iq_epoch_count(const iq_epoch *epoch, const iq_tally *tally) {
    uint64_t count;
    (void)iq_epoch_now(epoch, tally, &count);
    return count;
}

IQ_FN void iq_epoch_tell(const iq_epoch *epoch, iq_tally *tally, uint64_t count) {
    IQ_ATOMIC_STORE(&tally->counts[(epoch->moment + 1) % 2], count); /* nobody else writes either */
}

IQ_FN void iq_epoch_publish(iq_epoch *epoch) { IQ_ATOMIC_STORE(&epoch->moment, epoch->moment + 1); }

IQ_FN uint64_t iq_epoch_oldest(iq_epoch *epoch) {
    uint64_t oldest = IQ_MOMENT_NEVER;
    IQ_ATOMIC_FENCE(&epoch->fence);
    for (const iq_slots *chunk = &epoch->first; chunk != NULL && !IQ_ONLY_BLOBS; chunk = chunk->next) {
        for (size_t i = 0; i < IQ_SLOT_COUNT; i++) {
            const uint64_t moment = IQ_ATOMIC_LOAD(&chunk->slots[i].moment);
            if (moment != 0 && moment < oldest) oldest = moment;
        }
    }
    if (IQ_ATOMIC_LOAD(&epoch->unslotted) == 0) return oldest;
    epoch->crowded = true;
    return 0;
}

IQ_FN void iq_epoch_make_room(iq_epoch *epoch, const iqdb_allocator *allocator) {
    if (!epoch->crowded) return;
    iq_slots *last = &epoch->first;
    iq_slots *chunk = (iq_slots *)iq_alloc_zeroed(allocator, sizeof *chunk, IQ_CACHE_LINE);
    if (chunk == NULL) return;
    while (last->next != NULL) last = last->next;
    IQ_ATOMIC_STORE(&last->next, chunk);
    epoch->crowded = false;
}

/* ---- Tables ---- */

IQ_FN void *iq_table_renew(const iqdb_allocator *allocator, void *items, size_t size_bytes) {
    if (size_bytes > (size_t)-1 - IQ_CACHE_LINE) return NULL;
    iq_table *table = (iq_table *)iq_pages_alloc(allocator, IQ_CACHE_LINE + size_bytes);
    if (table == NULL) return NULL;
    memset(table, 0, sizeof *table);
    table->older = items == NULL ? NULL : iq_table_of(items);
    table->size_bytes = size_bytes;
    return (uint8_t *)(void *)table + IQ_CACHE_LINE;
}

IQ_FN void *iq_table_reserve(const iqdb_allocator *allocator, void *items, size_t item_bytes, size_t used,
                             size_t more) {
    const size_t room = iq_table_size(items) / item_bytes;
    if (more <= room - used) return items;
    if (more > (size_t)-1 / 4 / item_bytes - used) return NULL;
    size_t grown = room * 2 > used + more ? room * 2 : used + more;
    if (grown < IQ_TABLE_ITEMS_MIN) grown = IQ_TABLE_ITEMS_MIN;
    uint8_t *copy = (uint8_t *)iq_table_renew(allocator, items, grown * item_bytes);
    if (copy == NULL) return NULL;
    if (used > 0) memcpy(copy, items, used * item_bytes);
    memset(copy + used * item_bytes, 0, (grown - used) * item_bytes);
    return copy;
}

static void iq_table_free_from(const iqdb_allocator *allocator, iq_table *table) {
    while (table != NULL) {
        iq_table *older = table->older;
        iq_pages_free(allocator, table, IQ_CACHE_LINE + table->size_bytes);
        table = older;
    }
}

IQ_FN void iq_table_trim(const iqdb_allocator *allocator, void *items, uint64_t oldest, uint64_t now) {
    if (items == NULL) return;
    iq_table *table = iq_table_of(items);
    for (; table->older != NULL; table = table->older) {
        if (table->older->replaced == 0) table->older->replaced = now;
        if (table->older->replaced >= oldest) continue;
        iq_table_free_from(allocator, table->older); /* what is behind was replaced before */
        table->older = NULL;
        return;
    }
}

IQ_FN void iq_table_free(const iqdb_allocator *allocator, void *items) {
    if (items != NULL) iq_table_free_from(allocator, iq_table_of(items));
}
