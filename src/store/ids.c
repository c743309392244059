/* The id table.
 *
 * 1. used <= 3/4 of capacity, so every probe meets an empty slot and ends.
 * 2. A slot's place follows from its tag alone, so the table grows without a look at the rows.
 * 3. A removed slot keeps its place while the next one is not empty, so a probe never skips an id behind it.
 * 4. A slot changes by one release store, behind all of the row that it names; a rebuilt table is published whole. */
#include "store/ids.h"

#include "base/bytes.h"

#define IQ_IDS_REMOVED (UINT64_C(1) << 32)

static uint32_t iq_ids_tag(uint64_t id) {
    const uint32_t tag = (uint32_t)(iq_hash_u64(id) >> 32); /* stored: every build has the same */
    return tag == 0 ? 1 : tag;                              /* a tag of 0 would make a removed slot look empty */
}

/* Maps the tag to [0, capacity) keeping its order, whatever the capacity: tags stay 32 bits in tables beyond 2^32. */
static size_t iq_ids_home(uint32_t tag, size_t capacity) {
    return (size_t)(((uint64_t)tag * (uint64_t)capacity) >> 32);
}

static size_t iq_ids_next(size_t place, size_t capacity) { return place + 1 == capacity ? 0 : place + 1; }

IQ_FN void iq_ids_init(iq_ids *ids, const iqdb_allocator *allocator) {
    memset(ids, 0, sizeof *ids);
    ids->allocator = allocator;
}

/* A call that has not entered yet may look here, to prefetch: it never follows what it finds. */
IQ_FN void iq_ids_free(iq_ids *ids) {
    uint64_t *slots = ids->slots;
    IQ_ATOMIC_STORE(&ids->slots, (uint64_t *)NULL);
    IQ_ATOMIC_STORE(&ids->capacity, (size_t)0);
    iq_table_free(ids->allocator, slots);
    ids->live = ids->used = 0;
}

static iqdb_result iq_ids_rebuild(iq_ids *ids, size_t more) {
    if (more > (size_t)-1 / 32 - (IQ_ONLY_BLOBS ? 0 : ids->live)) return IQDB_ERR_NOMEM;
    /* At most 5/8 full after a rebuild, so that a table of steady size is rebuilt only after capacity / 8 removals. */
    size_t capacity = iq_ids_capacity((IQ_ONLY_BLOBS ? 0 : ids->live) + more);
    if (!IQ_ONLY_BLOBS && capacity > ids->capacity / 4 && capacity <= ids->capacity) capacity = ids->capacity;
    if (!IQ_ONLY_BLOBS && capacity > ids->capacity && capacity < ids->capacity * 2) capacity = ids->capacity * 2;
    uint64_t *slots =
        (uint64_t *)iq_table_renew(ids->allocator, IQ_ONLY_BLOBS ? NULL : ids->slots, capacity * sizeof(uint64_t));
    if (slots == NULL) return IQDB_ERR_NOMEM;
    memset(slots, 0, capacity * sizeof(uint64_t));
    for (size_t i = 0; i < ids->capacity && !IQ_ONLY_BLOBS; i++) {
        if ((uint32_t)ids->slots[i] == 0) continue;
        size_t place = iq_ids_home((uint32_t)(ids->slots[i] >> 32), capacity);
        while (slots[place] != 0) place = iq_ids_next(place, capacity);
        slots[place] = ids->slots[i];
    }
    IQ_ATOMIC_STORE(&ids->slots, slots);
    IQ_ATOMIC_STORE(&ids->capacity, capacity);
    ids->used = ids->live;
    return IQDB_OK;
}

IQ_HOT iqdb_result iq_ids_reserve(iq_ids *ids, size_t more) {
    if (IQ_ONLY_BLOBS) return iq_ids_rebuild(ids, more); /* once, for all */
    const size_t limit = ids->capacity - ids->capacity / 4;
    return IQ_LIKELY(ids->used <= limit && more <= limit - ids->used) ? IQDB_OK : iq_ids_rebuild(ids, more);
}

IQ_FN void iq_ids_put_lent(uint8_t *places, size_t capacity, uint64_t id, uint32_t row) {
    const uint32_t tag = iq_ids_tag(id);
    size_t place = iq_ids_home(tag, capacity);
    while (iq_get_u64(places + place * 8) != 0) place = iq_ids_next(place, capacity);
    iq_put_u64(places + place * 8, (uint64_t)tag << 32 | (row + 1));
}

/* The row of this id among those that are lent with a table, which may say anything. */
static iq_spot iq_ids_find_lent(const iq_rows *rows, uint64_t id) {
    const iq_lent *lent = &rows->lent;
    const uint32_t tag = iq_ids_tag(id);
    const iq_spot none = {NULL, 0, IQ_ROW_NONE}, lost = {NULL, 0, IQ_ROW_LOST};
    size_t place = iq_ids_home(tag, lent->place_count);
    for (size_t tries = 0; tries < lent->place_count; tries++, place = iq_ids_next(place, lent->place_count)) {
        if (!iq_lent_touch(lent, IQ_LENT_PLACES, (uint32_t)(place / IQ_LENT_PLACES_UNIT))) return lost;
        const uint64_t slot = iq_lent_u64(lent->places, place);
        if (slot == 0) break;
        if ((uint32_t)(slot >> 32) != tag || (uint32_t)slot - 1 >= lent->count) continue;
        const iq_spot spot = iq_rows_spot(rows, (uint32_t)slot - 1);
        if (!iq_rows_touch(rows, spot.row)) return lost;
        if (iq_row_id(spot.slab, spot.index) == id) return spot;
    }
    return none;
}

IQ_INLINE uint64_t *iq_ids_probe(const iq_ids *ids, const iq_rows *rows, uint64_t id, bool wants_vector,
                                 iq_spot *out_spot) {
    uint64_t *slots = IQ_ATOMIC_LOAD(&ids->slots);
    const size_t capacity = iq_table_size(slots) / sizeof(uint64_t);
    out_spot->slab = NULL;
    out_spot->row = IQ_ROW_NONE;
    if (capacity == 0) return NULL;
    const uint32_t tag = iq_ids_tag(id);
    for (size_t place = iq_ids_home(tag, capacity);; place = iq_ids_next(place, capacity)) {
        const uint64_t slot = IQ_ATOMIC_LOAD(&slots[place]);
        if (slot == 0) return &slots[place];
        if ((uint32_t)(slot >> 32) != tag || (uint32_t)slot == 0) continue;
        const iq_spot spot = iq_rows_spot(rows, (uint32_t)slot - 1);
        if (wants_vector) iq_rows_prefetch(rows, spot); /* while the head is on its way */
        if (IQ_UNLIKELY(!iq_rows_touch(rows, spot.row))) {
            out_spot->row = IQ_ROW_LOST;
            return NULL;
        }
        if (iq_row_id(spot.slab, spot.index) != id) continue;
        *out_spot = spot;
        return &slots[place];
    }
}

IQ_HOT uint64_t *iq_ids_place(const iq_ids *ids, const iq_rows *rows, uint64_t id, iq_spot *out_spot) {
    uint64_t *place = iq_ids_probe(ids, rows, id, false, out_spot);
    if (!IQ_SMALL && rows->lent.place_count != 0 && out_spot->slab == NULL && out_spot->row == IQ_ROW_NONE)
        *out_spot = iq_ids_find_lent(rows, id);
    return place;
}

IQ_HOT void iq_ids_prefetch(const iq_ids *ids, uint64_t id) {
    const uint64_t *slots = IQ_ATOMIC_LOAD(&ids->slots);
    iq_kernel_prefetch(slots, iq_ids_home(iq_ids_tag(id), IQ_ATOMIC_LOAD(&ids->capacity)) * sizeof(uint64_t));
}

IQ_HOT void iq_ids_prefetch_head(const iq_ids *ids, const iq_rows *rows, uint64_t id) {
    uint64_t *slots = IQ_ATOMIC_LOAD(&ids->slots);
    const size_t capacity = iq_table_size(slots) / sizeof(uint64_t);
    const uint64_t slot = capacity == 0 ? 0 : IQ_ATOMIC_LOAD(&slots[iq_ids_home(iq_ids_tag(id), capacity)]);
    if ((uint32_t)slot == 0) return;
    const iq_spot spot = iq_rows_spot(rows, (uint32_t)slot - 1);
    if (spot.slab->ids == NULL) iq_kernel_prefetch(iq_spot_head(spot), 0);
}

IQ_HOT iq_spot iq_ids_find(const iq_ids *ids, const iq_rows *rows, uint64_t id, bool wants_vector) {
    iq_spot spot;
    (void)iq_ids_probe(ids, rows, id, wants_vector, &spot);
    if (!IQ_SMALL && rows->lent.place_count != 0 && spot.slab == NULL && spot.row == IQ_ROW_NONE)
        return iq_ids_find_lent(rows, id);
    return spot;
}

IQ_HOT void iq_ids_put(iq_ids *ids, uint64_t *place, uint64_t id, uint32_t row) {
    if (!IQ_ONLY_BLOBS && *place == 0) {
        IQ_ASSERT(ids->used < ids->capacity);
        ids->live++;
        ids->used++;
    }
    IQ_ATOMIC_STORE(place, (uint64_t)iq_ids_tag(id) << 32 | (row + 1));
}

IQ_FN void iq_ids_remove(iq_ids *ids, uint64_t id, uint32_t row) {
    const uint64_t tag = iq_ids_tag(id), wanted = tag << 32 | (row + 1);
    uint64_t *slots = ids->slots;
    size_t at = iq_ids_home((uint32_t)tag, ids->capacity);
    IQ_ASSERT(ids->capacity > 0);
    while (slots[at] != wanted) at = iq_ids_next(at, ids->capacity);
    IQ_ATOMIC_STORE(&slots[at], IQ_IDS_REMOVED);
    ids->live--;
    if (slots[iq_ids_next(at, ids->capacity)] != 0) return;
    for (; slots[at] == IQ_IDS_REMOVED; ids->used--) {
        IQ_ATOMIC_STORE(&slots[at], (uint64_t)0);
        at = (at == 0 ? ids->capacity : at) - 1;
    }
}
