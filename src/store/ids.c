/* The id table.
 *
 * 1. used <= 3/4 of capacity, so every probe meets an empty slot and ends.
 * 2. A slot's place follows from its tag alone, so the table grows without a look at the rows.
 * 3. A removed slot keeps its place while the next one is not empty, so a probe never skips an id behind it.
 * 4. A slot changes by one release store, behind all of the row that it names; a rebuilt table is published whole. */
#include "store/ids.h"

#define IQ_IDS_REMOVED (UINT64_C(1) << 32)

static uint32_t iq_ids_tag(uint64_t id) {
    const uint32_t tag = (uint32_t)(iq_hash_u64(id) >> 32);
    return tag == 0 ? 1 : tag; /* a tag of 0 would make a removed slot look empty */
}

/* Maps the tag to [0, capacity) keeping its order, whatever the capacity: tags stay 32 bits in tables beyond 2^32. */
static size_t iq_ids_home(uint32_t tag, size_t capacity) {
    return (size_t)(((uint64_t)tag * (uint64_t)capacity) >> 32);
}

static size_t iq_ids_next(size_t place, size_t capacity) {
    return place + 1 == capacity ? 0 : place + 1;
}

IQ_FN void iq_ids_init(iq_ids *ids, const iqdb_allocator *allocator) {
    memset(ids, 0, sizeof *ids);
    ids->allocator = allocator;
}

IQ_FN void iq_ids_free(iq_ids *ids) {
    iq_table_free(ids->allocator, ids->slots);
    iq_ids_init(ids, ids->allocator);
}

IQ_FN iqdb_result iq_ids_reserve(iq_ids *ids, size_t more) {
    const size_t limit = ids->capacity - ids->capacity / 4;
    if (ids->used <= limit && more <= limit - ids->used) return IQDB_OK;
    if (more > (size_t)-1 / 32 - ids->live) return IQDB_ERR_NOMEM;
    /* At most 5/8 full after a rebuild, so that a table of steady size is rebuilt only after capacity / 8 removals. */
    size_t capacity = (ids->live + more + 4) / 5 * 8;
    if (capacity > ids->capacity / 4 && capacity <= ids->capacity) capacity = ids->capacity;
    if (capacity > ids->capacity && capacity < ids->capacity * 2) capacity = ids->capacity * 2;
    if (capacity < 32) capacity = 32;
    uint64_t *slots = (uint64_t *)iq_table_renew(ids->allocator, ids->slots, capacity * sizeof(uint64_t));
    if (slots == NULL) return IQDB_ERR_NOMEM;
    for (size_t i = 0; i < ids->capacity; i++) {
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

/* The slot of the id with what it holds; the empty one where it belongs, with 0; NULL, with 0, where there is no table. */
static uint64_t *iq_ids_probe(const iq_ids *ids, const iq_rows *rows, uint64_t id, uint64_t *out_slot) {
    uint64_t *slots = IQ_ATOMIC_LOAD(&ids->slots);
    const size_t capacity = iq_table_size(slots) / sizeof(uint64_t);
    *out_slot = 0;
    if (capacity == 0) return NULL;
    const uint32_t tag = iq_ids_tag(id);
    size_t place = iq_ids_home(tag, capacity);
    for (;; place = iq_ids_next(place, capacity)) {
        const uint64_t slot = *out_slot = IQ_ATOMIC_LOAD(&slots[place]);
        if (slot == 0) return &slots[place];
        if ((uint32_t)(slot >> 32) != tag || (uint32_t)slot == 0) continue;
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(rows, (uint32_t)slot - 1, &index);
        if (slab->heads[index].id == id) return &slots[place];
    }
}

IQ_FN void iq_ids_prefetch(const iq_ids *ids, uint64_t id) {
    const uint64_t *slots = IQ_ATOMIC_LOAD(&ids->slots);
    iq_kernel_prefetch(slots, iq_ids_home(iq_ids_tag(id), IQ_ATOMIC_LOAD(&ids->capacity)) * sizeof(uint64_t));
}

IQ_FN uint32_t iq_ids_find(const iq_ids *ids, const iq_rows *rows, uint64_t id) {
    uint64_t slot;
    (void)iq_ids_probe(ids, rows, id, &slot);
    return (uint32_t)slot - 1; /* of 0 that is IQ_ROW_NONE */
}

IQ_FN uint64_t *iq_ids_place(const iq_ids *ids, const iq_rows *rows, uint64_t id, uint32_t *out_row) {
    uint64_t slot, *place = iq_ids_probe(ids, rows, id, &slot);
    *out_row = (uint32_t)slot - 1;
    return place;
}

IQ_FN void iq_ids_put(iq_ids *ids, uint64_t *place, uint64_t id, uint32_t row) {
    if (*place == 0) {
        IQ_ASSERT(ids->used < ids->capacity);
        ids->live++;
        ids->used++;
    }
    IQ_ATOMIC_STORE(place, (uint64_t)iq_ids_tag(id) << 32 | (row + 1));
}

IQ_FN void iq_ids_remove(iq_ids *ids, const iq_rows *rows, uint64_t id) {
    uint64_t slot, *place = iq_ids_probe(ids, rows, id, &slot);
    if (slot == 0) return;
    IQ_ATOMIC_STORE(place, IQ_IDS_REMOVED);
    ids->live--;
    uint64_t *slots = ids->slots;
    size_t at = (size_t)(place - slots);
    if (slots[iq_ids_next(at, ids->capacity)] != 0) return;
    for (; slots[at] == IQ_IDS_REMOVED; ids->used--) {
        IQ_ATOMIC_STORE(&slots[at], (uint64_t)0);
        at = (at == 0 ? ids->capacity : at) - 1;
    }
}
