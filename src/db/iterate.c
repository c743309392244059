/* Iteration: a pin on an LSN, and a walk over the rows.
 *
 * 1. A pinned LSN keeps every row that it sees where it is, with its payload, so a record needs no copy.
 * 2. The lock is held only during a step; the loop's body may do anything. */
#include "db/db.h"

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
        iter.result = iq_records_pin(&iq_db_of(db)->records, &iter.lsn);
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
    while (!found && iter->position < db->records.rows.count) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&db->records.rows, (uint32_t)iter->position++, &index);
        if (!iq_row_visible(slab, index, iter->lsn)) continue;
        iter->record.id = slab->ids[index];
        iter->record.vector = slab->vectors + index * db->records.rows.stride;
        iter->record.dim = db->records.rows.dim;
        iter->record.payload = iq_heap_payload(&db->records.heap, slab->payloads[index]);
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
    iq_records_unpin(&db->records, iter->lsn);
    iter->pinned = false;
    iq_db_leave(db);
}
