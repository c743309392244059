/* Iteration: a pin, and a walk over the rows.
 *
 * 1. A pinned moment keeps every row that it sees where it is, with its payload, so a record needs no copy.
 * 2. No row that it sees lies beyond those of its beginning, so a loop that writes comes to an end. */
#include "db/db.h"

IQDB_API iqdb_iter iqdb_iter_begin(const iqdb *db, const iqdb_filter *filter) {
    iqdb_iter iter;
    iq_pin pin;
    iq_program *program = NULL;
    memset(&iter, 0, sizeof iter);
    iter.record = iqdb_record_default();
    iter.db = db;
    iter.result = db == NULL ? IQDB_ERR_INVALID_ARGUMENT : iq_db_enter_read(db, &pin);
    if (iter.result != IQDB_OK) return iter;
    if (filter != NULL) iter.result = iq_program_make(db, filter, &program);
    if (iter.result != IQDB_OK) {
        iq_db_leave_read(db, pin);
        return iter;
    }
    iter.program = program;
    iter.pinned = true;
    iter.pin = pin.slot;
    iter.moment = pin.moment;
    /* Where no record is seen the rows may be taken apart again: the first write may fail and leave no dimension. */
    if (pin.count > 0) iter.end = IQ_ATOMIC_LOAD(&db->records.rows.count);
    return iter;
}

IQDB_API bool iqdb_iter_next(iqdb_iter *iter) {
    if (iter == NULL || !iter->pinned || iter->result != IQDB_OK) return false;
    const iq_records *records = &iter->db->records;
    if (IQ_ATOMIC_LOAD(&iter->db->owner) == iq_thread_identity()) {
        iter->result = IQDB_ERR_BUSY;
        return false;
    }
    const iq_program *program = (const iq_program *)iter->program;
    while (iter->position < iter->end) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&records->rows, (uint32_t)iter->position++, &index);
        if (iq_slab_seek(slab, index, index + 1, true) != index || !iq_row_visible(slab, index, iter->moment)) continue;
        const iqdb_record record = iq_db_record_at(iter->db, slab, index);
        if (program != NULL && !iq_filter_accepts(&program->filter, record.payload)) continue;
        iter->record = record;
        return true;
    }
    return false;
}

IQDB_API void iqdb_iter_end(iqdb_iter *iter) {
    if (iter == NULL || !iter->pinned) return;
    iq_epoch_unpin(&iq_db_of(iter->db)->records.epoch, (iq_slot *)iter->pin);
    iq_program_free(iter->db, (iq_program *)iter->program);
    iter->program = NULL;
    iter->pinned = false;
}
