/* Iteration: a pin on an LSN, and a walk over the rows.
 *
 * 1. A pinned LSN keeps every row that it sees where it is, with its payload, so a record needs no copy.
 * 2. The lock is held only during a step; the loop's body may do anything. */
#include "db/db.h"

static iqdb_result iq_pins_add(iqdb *db, uint64_t lsn) {
    if (db->pin_count == db->pin_capacity) {
        const size_t capacity = db->pin_capacity == 0 ? 8 : db->pin_capacity * 2;
        uint64_t *pins = (uint64_t *)iq_alloc(&db->allocator, capacity * sizeof(uint64_t), 16);
        if (pins == NULL) return IQDB_ERR_NOMEM;
        if (db->pin_count > 0) memcpy(pins, db->pins, db->pin_count * sizeof(uint64_t));
        iq_free(&db->allocator, db->pins, db->pin_capacity * sizeof(uint64_t), 16);
        db->pins = pins;
        db->pin_capacity = capacity;
    }
    db->pins[db->pin_count++] = lsn;
    return IQDB_OK;
}

static void iq_pins_remove(iqdb *db, uint64_t lsn) {
    for (size_t i = 0; i < db->pin_count; i++) {
        if (db->pins[i] != lsn) continue;
        db->pins[i] = db->pins[--db->pin_count];
        return;
    }
}

IQDB_API iqdb_iter iqdb_iter_begin(const iqdb *db, const iqdb_filter *filter) {
    iqdb_iter iter;
    memset(&iter, 0, sizeof iter);
    iter.record = iqdb_record_default();
    iter.db = db;
    if (db == NULL) {
        iter.result = IQDB_ERR_INVALID_ARGUMENT;
    } else if (filter != NULL) {
        iter.result = IQDB_ERR_INVALID_FILTER;
    } else {
        iter.result = iq_db_enter_read(iq_db_of(db));
        if (iter.result != IQDB_OK) return iter;
        iter.lsn = db->lsn;
        iter.result = iq_pins_add(iq_db_of(db), iter.lsn);
        iter.pinned = iter.result == IQDB_OK;
        iq_db_leave(iq_db_of(db));
    }
    return iter;
}

IQDB_API bool iqdb_iter_next(iqdb_iter *iter) {
    if (iter == NULL || !iter->pinned || iter->result != IQDB_OK) return false;
    const iqdb *db = iter->db;
    iter->result = iq_db_enter_read(iq_db_of(db));
    if (iter->result != IQDB_OK) return false;
    bool found = false;
    while (!found && iter->position < db->rows.count) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&db->rows, (uint32_t)iter->position++, &index);
        if (!iq_row_visible(slab, index, iter->lsn)) continue;
        iter->record.id = slab->ids[index];
        iter->record.vector = slab->vectors + index * db->rows.stride;
        iter->record.dim = db->rows.dim;
        iter->record.payload = iq_heap_payload(&db->heap, slab->payloads[index]);
        found = true;
    }
    iq_db_leave(iq_db_of(db));
    return found;
}

IQDB_API void iqdb_iter_end(iqdb_iter *iter) {
    if (iter == NULL || !iter->pinned) return;
    iqdb *db = iq_db_of(iter->db);
    /* From inside a callback the pin cannot be given back: it stays, and close says BUSY. */
    if (iq_db_enter_read(db) != IQDB_OK) return;
    iq_pins_remove(db, iter->lsn);
    iq_apply_reclaim(db);
    iter->pinned = false;
    iq_db_leave(db);
}
