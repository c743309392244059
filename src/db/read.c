/* Reading by id, under a pin; and iteration, which is a pin and a walk over the rows.
 *
 * 1. A pinned moment keeps every row that it sees where it is, with its payload, so an iterator's record needs no copy.
 * 2. No row that it sees lies beyond those of its beginning, so a loop that writes comes to an end.
 * 3. Where no record is seen the rows are not looked at: they may be taken apart again, when the first write fails and
 *    leaves no dimension. */
#include "db/db.h"

IQ_DEFINE_DEFAULT(iqdb_record)

/* The row of the id that is seen from there; none, or IQ_ROW_LOST. */
static iq_spot iq_read_find(const iqdb *db, uint64_t id, iq_pin pin, bool wants_vector) {
    const iq_spot none = {NULL, 0, IQ_ROW_NONE};
    return pin.count > 0 ? iq_records_find(&db->records, id, pin.moment, wants_vector) : none;
}

IQDB_API iqdb_result iqdb_get(const iqdb *db, uint64_t id, iqdb_buffer *buffer, iqdb_record *out_record) {
    if (db == NULL || buffer == NULL || out_record == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    iq_pin pin;
    iq_ids_prefetch(&db->records.ids, id); /* while there is no pin to wait for */
    iqdb_result result = iq_db_enter_read(db, &pin);
    if (result != IQDB_OK) return result;
    const iq_spot spot = iq_read_find(db, id, pin, true);
    if (spot.slab == NULL) {
        result = !IQ_SMALL && spot.row == IQ_ROW_LOST ? IQDB_ERR_CORRUPT : IQDB_ERR_NOT_FOUND;
    } else {
        uint8_t *bytes;
        const iqdb_payload payload = iq_heap_payload(&db->records.heap, iq_row_payload(spot.slab, spot.index));
        const size_t vector_size = iq_db_vector_bytes(db, db->records.rows.dim);
        result = iq_buffer_start(buffer, vector_size + payload.size, &bytes);
        if (result == IQDB_OK) {
            *out_record = iq_db_record_at(db, spot.slab, spot.index);
            out_record->raw = memcpy(bytes, out_record->raw, vector_size);
            if (out_record->vector != NULL) out_record->vector = (const float *)out_record->raw;
            if (payload.bytes != NULL)
                out_record->payload.bytes = memcpy(bytes + vector_size, payload.bytes, payload.size);
        }
    }
    iq_db_leave_read(db, pin);
    return result;
}

IQDB_API bool iqdb_contains(const iqdb *db, uint64_t id) {
    iq_pin pin;
    if (db == NULL || iq_db_enter_read(db, &pin) != IQDB_OK) return false;
    const bool found = iq_read_find(db, id, pin, false).slab != NULL;
    iq_db_leave_read(db, pin);
    return found;
}

IQDB_API size_t iqdb_len(const iqdb *db) {
    if (db == NULL || iq_db_is_inside(db)) return 0;
    return (size_t)iq_epoch_count(&db->home->common.epoch, &db->records.tally);
}

IQDB_API bool iqdb_is_empty(const iqdb *db) { return iqdb_len(db) == 0; }

/* In scratch: a filter, with its program behind it at a multiple of 16, and the bits of rows. */
typedef struct iq_iter_program {
    iq_scratch scratch;
    iq_filter filter;
    iq_choice choice;
} iq_iter_program;

/* For an iteration over rows up to `end`. */
static iqdb_result iq_iter_compile(const iqdb *db, const iqdb_filter *filter, uint32_t end,
                                   iq_iter_program **out_program) {
    iq_filter_layout layout;
    iq_scratch *scratch = NULL;
    const size_t head = iq_round_up(sizeof(iq_iter_program), 16);
    const size_t bits_size = iq_records_have_keys(&db->records) ? iq_choice_bytes(end) : 0;
    if (iq_filter_measure(filter, &layout) != NULL) return IQDB_ERR_INVALID_FILTER;
    const size_t program_end = head + iq_round_up(layout.size_bytes, 16);
    const iqdb_result result = iq_scratch_take(db, NULL, program_end + bits_size, &scratch);
    if (result != IQDB_OK) {
        iq_scratch_leave(db, NULL, scratch);
        return result;
    }
    iq_iter_program *program = *out_program = (iq_iter_program *)(void *)scratch;
    uint32_t *bits = (uint32_t *)(void *)((uint8_t *)scratch + program_end);
    iq_filter_compile(filter, &layout, (uint8_t *)scratch + head, &program->filter);
    program->choice.filter = &program->filter;
    program->choice.bits = NULL;
    program->choice.heads_to = program->choice.payloads_to = 0;
    if (bits_size > 0 && iq_records_choose(&db->records, &program->filter, end, bits) < end)
        program->choice.bits = bits;
    return IQDB_OK;
}

IQDB_API iqdb_iter iqdb_iter_begin(const iqdb *db, const iqdb_filter *filter) {
    iqdb_iter iter;
    iq_pin pin;
    iq_iter_program *program = NULL;
    memset(&iter, 0, sizeof iter);
    iter.record = iqdb_record_default();
    iter.db = db;
    iter.result = db == NULL ? IQDB_ERR_INVALID_ARGUMENT : iq_db_enter_read(db, &pin);
    if (iter.result != IQDB_OK) return iter;
    if (pin.count > 0) iter.end = IQ_ATOMIC_LOAD(&db->records.rows.count);
    if (filter != NULL) iter.result = iq_iter_compile(db, filter, (uint32_t)iter.end, &program);
    if (iter.result != IQDB_OK) {
        iq_db_leave_read(db, pin);
        return iter;
    }
    iter.program = program;
    iter.pinned = true;
    iter.pin = pin.slot;
    iter.moment = pin.moment;
    return iter;
}

IQDB_API bool iqdb_iter_next(iqdb_iter *iter) {
    if (iter == NULL || !iter->pinned || iter->result != IQDB_OK) return false;
    const iq_records *records = &iter->db->records;
    if (iq_db_is_inside(iter->db)) {
        iter->result = IQDB_ERR_BUSY;
        return false;
    }
    iq_iter_program *program = (iq_iter_program *)iter->program;
    iq_choice *choice = program != NULL ? &program->choice : NULL;
    uint32_t row = (uint32_t)iter->position, index;
    const iq_slab *slab = iq_records_next(records, &row, (uint32_t)iter->end, iter->moment, choice, &index);
    iter->position = row + (slab != NULL);
    if (!IQ_SMALL && slab == NULL && row < (uint32_t)iter->end) iter->result = IQDB_ERR_CORRUPT;
    if (slab != NULL) iter->record = iq_db_record_at(iter->db, slab, index);
    return slab != NULL;
}

IQDB_API void iqdb_iter_end(iqdb_iter *iter) {
    if (iter == NULL || !iter->pinned) return;
    iq_scratch_leave(iter->db, NULL, (iq_scratch *)iter->program);
    iq_epoch_unpin(&iter->db->home->common.epoch, (iq_slot *)iter->pin); /* the last look at the collection */
    iter->program = NULL;
    iter->pinned = false;
}
