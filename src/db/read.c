/* Reading by id, under a pin. */
#include "db/db.h"

IQDB_API iqdb_result iqdb_get(const iqdb *db, uint64_t id, iqdb_buffer *buffer, iqdb_record *out_record) {
    if (db == NULL || buffer == NULL || out_record == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    iq_pin pin;
    iq_ids_prefetch(&db->records.ids, id); /* while there is no pin to wait for */
    iqdb_result result = iq_db_enter_read(db, &pin);
    if (result != IQDB_OK) return result;
    const uint32_t row = iq_records_find(&db->records, id, pin.moment);
    if (row == IQ_ROW_NONE) {
        result = IQDB_ERR_NOT_FOUND;
    } else {
        uint32_t index;
        uint8_t *bytes;
        const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
        const iqdb_payload payload = iq_heap_payload(&db->records.heap, slab->heads[index].payload);
        const size_t vector_size = db->records.rows.dim * sizeof(float);
        result = iq_buffer_start(buffer, vector_size + payload.size, &bytes);
        if (result == IQDB_OK) {
            memcpy(bytes, slab->vectors + index * db->records.rows.stride, vector_size);
            *out_record = iqdb_record_default();
            out_record->id = id;
            out_record->vector = (const float *)(const void *)bytes;
            out_record->dim = db->records.rows.dim;
            if (payload.bytes != NULL) {
                memcpy(bytes + vector_size, payload.bytes, payload.size);
                out_record->payload.bytes = bytes + vector_size;
                out_record->payload.size = payload.size;
            }
        }
    }
    iq_db_leave_read(db, pin);
    return result;
}

IQDB_API bool iqdb_contains(const iqdb *db, uint64_t id) {
    iq_pin pin;
    if (db == NULL || iq_db_enter_read(db, &pin) != IQDB_OK) return false;
    const bool found = iq_records_find(&db->records, id, pin.moment) != IQ_ROW_NONE;
    iq_db_leave_read(db, pin);
    return found;
}

IQDB_API size_t iqdb_len(const iqdb *db) {
    if (db == NULL || IQ_ATOMIC_LOAD(&db->owner) == iq_thread_identity()) return 0;
    return (size_t)iq_epoch_count(&db->records.epoch);
}

IQDB_API bool iqdb_is_empty(const iqdb *db) {
    return iqdb_len(db) == 0;
}
