/* Writes: one commit path for upsert, delete, batches of either, and mixed ones.
 *
 * 1. check everything, 2. stage rows and reserve memory, 3. write the log, 4. apply and publish. A failure in 1 to 3
 * undoes the staging and leaves no trace; 4 cannot fail. */
#include "codec/payload.h"
#include "codec/record.h"
#include "db/db.h"

#define IQ_BATCH_AHEAD 8u /* operations, until what one wants is there */

/* A batch in the form that the caller has it: one of the three arrays is set. */
typedef struct iq_batch {
    const iqdb_record *records;
    const uint64_t *deletes;
    const iqdb_op *ops;
    size_t count;
} iq_batch;

/* The record of operation i, or NULL for a delete, whose id is then set. */
static const iqdb_record *iq_batch_at(const iq_batch *batch, size_t i, uint64_t *out_id) {
    if (batch->records != NULL) return &batch->records[i];
    if (batch->deletes != NULL) {
        *out_id = batch->deletes[i];
        return NULL;
    }
    *out_id = batch->ops[i].id;
    return batch->ops[i].kind == IQDB_OP_UPSERT ? batch->ops[i].record : NULL;
}

/* Asks for what operation i, if there is one, will want. */
static void iq_batch_prefetch(const iqdb *db, const iq_batch *batch, size_t i) {
    uint64_t id;
    if (i >= batch->count) return;
    const iqdb_record *record = iq_batch_at(batch, i, &id);
    iq_ids_prefetch(&db->records.ids, record != NULL ? record->id : id);
}

/* What can be said without a look at the database. */
static iqdb_result iq_batch_check_arguments(const iqdb *db, const iq_batch *batch) {
    if (batch->count > 0 && batch->records == NULL && batch->deletes == NULL && batch->ops == NULL)
        return IQDB_ERR_INVALID_ARGUMENT;
    for (size_t i = 0; i < batch->count; i++) {
        uint64_t id;
        if (batch->ops != NULL) {
            const iqdb_op *op = &batch->ops[i];
            if (op->collection != NULL && op->collection != db) return IQDB_ERR_INVALID_ARGUMENT;
            if (op->kind != IQDB_OP_UPSERT && op->kind != IQDB_OP_DELETE) return IQDB_ERR_INVALID_ARGUMENT;
            if (op->kind == IQDB_OP_UPSERT && op->record == NULL) return IQDB_ERR_INVALID_ARGUMENT;
        }
        const iqdb_record *record = iq_batch_at(batch, i, &id);
        if (record == NULL) continue;
        if (record->vector == NULL) return IQDB_ERR_INVALID_ARGUMENT;
        if (record->payload.bytes == NULL && record->fields == NULL && record->field_count > 0)
            return IQDB_ERR_INVALID_ARGUMENT;
    }
    return IQDB_OK;
}

static iqdb_result iq_batch_refuse_vector(const iqdb *db) {
    return iq_report(&db->reporter, IQDB_ERR_INVALID_VECTOR, NULL, 0, "a vector has a NaN or an infinity");
}

/* The dimension of every vector against `*dim`, which the first one sets where it is 0. */
static iqdb_result iq_batch_check_vectors(const iqdb *db, const iq_batch *batch, uint32_t *dim) {
    for (size_t i = 0; i < batch->count; i++) {
        uint64_t id;
        const iqdb_record *record = iq_batch_at(batch, i, &id);
        if (record == NULL) continue;
        const uint32_t found = record->dim != 0 ? record->dim : *dim;
        if (found == 0 || found > IQDB_DIM_MAX)
            return iq_report(&db->reporter, IQDB_ERR_INVALID_VECTOR, NULL, 0,
                             "a vector has no elements, or more than IQDB_DIM_MAX");
        if (*dim == 0) *dim = found;
        if (found != *dim) {
            if (!iq_vector_is_finite(db->records.kernel, record->vector, found)) return iq_batch_refuse_vector(db);
            iqdb_error error = iq_error_make(IQDB_ERR_DIMENSION_MISMATCH, NULL, 0,
                                             "a vector has another dimension than the collection");
            error.dim_expected = *dim;
            error.dim_found = found;
            return iq_report_error(&db->reporter, &error);
        }
    }
    return IQDB_OK;
}

/* The encoded payload of a record: the caller's own bytes, or made in db->encoded. */
static iqdb_result iq_batch_payload(iqdb *db, const iqdb_record *record, iqdb_payload *out_payload) {
    *out_payload = record->payload;
    if (record->payload.bytes != NULL) return iq_payload_validate(record->payload.bytes, record->payload.size);
    out_payload->size = 0;
    if (record->fields == NULL) return IQDB_OK;
    db->encoded.size = 0;
    const iqdb_result result = iq_payload_encode(record->fields, record->field_count, &db->encoded);
    out_payload->bytes = db->encoded.bytes;
    out_payload->size = db->encoded.size;
    return result;
}

static void iq_batch_unstage(iqdb *db, size_t count) {
    while (count-- > 0)
        if (db->staged[count] != IQ_ROW_NONE) iq_records_unstage(&db->records, db->staged[count]);
}

/* Rows for all upserts in db->staged (IQ_ROW_NONE for deletes) and room to apply them. */
static iqdb_result iq_batch_stage(iqdb *db, const iq_batch *batch) {
    if (batch->count > (size_t)-1 / 16) return IQDB_ERR_NOMEM;
    if (db->staged_capacity < batch->count) {
        const size_t capacity = batch->count < 64 ? 64 : batch->count;
        uint32_t *staged = (uint32_t *)iq_alloc(&db->allocator, capacity * sizeof(uint32_t), 16);
        if (staged == NULL) return IQDB_ERR_NOMEM;
        iq_free(&db->allocator, db->staged, db->staged_capacity * sizeof(uint32_t), 16);
        db->staged = staged;
        db->staged_capacity = capacity;
    }
    iqdb_result result = iq_records_reserve(&db->records, batch->count);
    for (size_t i = 0; i < batch->count && result == IQDB_OK; i++) {
        uint64_t id;
        iqdb_payload payload;
        const iqdb_record *record = iq_batch_at(batch, i, &id);
        db->staged[i] = IQ_ROW_NONE;
        if (record == NULL) continue;
        result = iq_batch_payload(db, record, &payload);
        if (result == IQDB_OK)
            result = iq_records_stage(&db->records, record->id, record->vector, payload, &db->staged[i]);
        if (result == IQDB_ERR_INVALID_VECTOR) result = iq_batch_refuse_vector(db);
        if (result != IQDB_OK) iq_batch_unstage(db, i);
    }
    return result;
}

/* One staged upsert as the log keeps it. Vectors are little-endian there. */
static iqdb_result iq_batch_log_upsert(iqdb *db, uint32_t row) {
    uint32_t index;
    uint8_t head[IQ_RECORD_HEAD_SIZE];
    const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
    const iqdb_payload payload = iq_heap_payload(&db->records.heap, slab->heads[index].payload);
    iq_logged_record record;
    memset(&record, 0, sizeof record);
    record.type = IQ_RECORD_UPSERT;
    record.id = slab->heads[index].id;
    record.dim = db->records.rows.dim;
    record.has_payload = payload.bytes != NULL;
    record.payload_size = (uint32_t)payload.size;
    iq_record_encode_head(&record, head);
    iq_slice pieces[3];
    pieces[0].bytes = head;
    pieces[0].size = sizeof head;
    pieces[1].bytes = slab->vectors + index * db->records.rows.stride;
    pieces[1].size = db->records.rows.dim * sizeof(float);
    pieces[2].bytes = payload.bytes;
    pieces[2].size = payload.size;
    if (IQ_BIG_ENDIAN) {
        db->encoded.size = 0;
        const iqdb_result result = iq_blob_reserve(&db->encoded, pieces[1].size);
        if (result != IQDB_OK) return result;
        iq_copy_words_le(db->encoded.bytes, pieces[1].bytes, db->records.rows.dim);
        pieces[1].bytes = db->encoded.bytes;
    }
    return iq_directory_batch_add(db->directory, pieces, payload.size > 0 ? 3 : 2);
}

static iqdb_result iq_batch_log_delete(iqdb *db, uint64_t id) {
    uint8_t head[IQ_RECORD_HEAD_SIZE];
    iq_logged_record record;
    memset(&record, 0, sizeof record);
    record.type = IQ_RECORD_DELETE;
    record.id = id;
    iq_record_encode_head(&record, head);
    iq_slice piece;
    piece.bytes = head;
    piece.size = sizeof head;
    return iq_directory_batch_add(db->directory, &piece, 1);
}

/* Makes the batch durable as db->sync asks for, and names its LSN. */
static iqdb_result iq_batch_log(iqdb *db, const iq_batch *batch, uint64_t *out_lsn) {
    if (db->directory == NULL) {
        *out_lsn = db->records.lsn + 1;
        return IQDB_OK;
    }
    iqdb_result result = iq_directory_batch_begin(db->directory);
    if (result != IQDB_OK) return result;
    for (size_t i = 0; i < batch->count && result == IQDB_OK; i++) {
        uint64_t id;
        if (iq_batch_at(batch, i, &id) != NULL) {
            result = iq_batch_log_upsert(db, db->staged[i]);
        } else {
            result = iq_batch_log_delete(db, id);
        }
    }
    if (result != IQDB_OK) return result;
    return iq_directory_batch_commit(db->directory, db->sync == IQDB_SYNC_EACH, out_lsn);
}

/* Whether the batch changes anything: a delete of ids that are not there is not logged. */
static bool iq_batch_has_effect(const iqdb *db, const iq_batch *batch) {
    for (size_t i = 0; i < batch->count; i++) {
        uint64_t id;
        if (iq_batch_at(batch, i, &id) != NULL ||
            iq_records_find(&db->records, id, db->records.epoch.moment) != IQ_ROW_NONE)
            return true;
    }
    return false;
}

/* Under the lock, arguments checked. */
static iqdb_result iq_batch_commit(iqdb *db, const iq_batch *batch, size_t *out_removed) {
    const uint32_t dim_before = db->records.rows.dim;
    uint32_t dim = dim_before;
    iqdb_result result = iq_batch_check_vectors(db, batch, &dim);
    if (result != IQDB_OK || !iq_batch_has_effect(db, batch)) return result;
    if (dim != dim_before) iq_rows_set_dim(&db->records.rows, dim);
    result = iq_batch_stage(db, batch);
    if (result == IQDB_OK) {
        uint64_t lsn;
        result = iq_batch_log(db, batch, &lsn);
        if (result == IQDB_OK) {
            for (size_t i = 0; i < batch->count; i++) {
                uint64_t id;
                iq_batch_prefetch(db, batch, i + IQ_BATCH_AHEAD);
                if (iq_batch_at(batch, i, &id) != NULL) {
                    iq_records_upsert(&db->records, db->staged[i]);
                } else if (iq_records_delete(&db->records, id)) {
                    ++*out_removed;
                }
            }
            iq_records_publish(&db->records, lsn);
        } else {
            iq_batch_unstage(db, batch->count);
        }
    }
    if (dim != dim_before) {
        if (result == IQDB_OK && db->directory != NULL) {
            iq_schema schema;
            schema.dim = dim;
            schema.metric = (uint32_t)db->metric;
            schema.element = 0;
            iq_directory_set_schema(db->directory, &schema);
        } else if (result != IQDB_OK) {
            iq_rows_free(&db->records.rows); /* the first record was refused: no dimension yet, and no reader */
        }
    }
    return result;
}

static iqdb_result iq_batch_run(iqdb *db, const iq_batch *batch, size_t *out_removed) {
    size_t removed = 0;
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    iqdb_result result = iq_batch_check_arguments(db, batch);
    if (result == IQDB_OK) iq_batch_prefetch(db, batch, 0);
    if (result != IQDB_OK) return iq_db_refuse(db, "a record, its vector, or a list is NULL, or an operation unknown");
    result = iq_db_enter_write(db);
    if (result != IQDB_OK) return result;
    if (batch->count > 0) result = iq_batch_commit(db, batch, &removed);
    result = iq_db_leave_with(db, result);
    if (result == IQDB_OK && out_removed != NULL) *out_removed = removed;
    return result;
}

static iq_batch iq_batch_empty(void) {
    iq_batch batch;
    memset(&batch, 0, sizeof batch);
    return batch;
}

IQ_FN iqdb_result iq_batch_delete(iqdb *db, const uint64_t *ids, size_t count, size_t *out_removed) {
    iq_batch batch = iq_batch_empty();
    batch.deletes = ids;
    batch.count = count;
    return iq_batch_commit(db, &batch, out_removed);
}

/* Under the lock: the record again, with its payload merged in `buffer`. */
static iqdb_result iq_batch_update(iqdb *db, uint64_t id, const iqdb_field *fields, size_t count, iqdb_buffer *buffer) {
    uint32_t index;
    size_t removed = 0;
    iqdb_record record = iqdb_record_default();
    iq_batch batch = iq_batch_empty();
    const uint32_t row = iq_records_find(&db->records, id, db->records.epoch.moment);
    if (row == IQ_ROW_NONE) return IQDB_ERR_NOT_FOUND;
    const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
    const iqdb_payload payload = iq_heap_payload(&db->records.heap, slab->heads[index].payload);
    const iqdb_result result = iqdb_payload_with(payload, fields, count, buffer, &record.payload);
    if (result != IQDB_OK) return result;
    record.id = id;
    record.vector = slab->vectors + index * db->records.rows.stride; /* rows do not move while one is added */
    record.dim = db->records.rows.dim;
    batch.records = &record;
    batch.count = 1;
    return iq_batch_commit(db, &batch, &removed);
}

IQDB_API iqdb_result iqdb_update_payload(iqdb *db, uint64_t id, const iqdb_field *fields, size_t field_count) {
    iqdb_buffer buffer = iqdb_buffer_default();
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (fields == NULL && field_count > 0) return iq_db_refuse(db, "a list of fields is NULL");
    iqdb_result result = iq_db_enter_write(db);
    if (result != IQDB_OK) return result;
    buffer.allocator = &db->allocator;
    result = iq_batch_update(db, id, fields, field_count, &buffer);
    iqdb_buffer_free(&buffer);
    return iq_db_leave_with(db, result);
}

IQDB_API iqdb_record iqdb_record_default(void) {
    iqdb_record record;
    memset(&record, 0, sizeof record);
    return record;
}

IQDB_API iqdb_op iqdb_op_default(void) {
    iqdb_op op;
    memset(&op, 0, sizeof op);
    return op;
}

IQDB_API iqdb_result iqdb_upsert_batch(iqdb *db, const iqdb_record *records, size_t count) {
    iq_batch batch = iq_batch_empty();
    batch.records = records;
    batch.count = count;
    return iq_batch_run(db, &batch, NULL);
}

IQDB_API iqdb_result iqdb_upsert(iqdb *db, const iqdb_record *record) {
    return iqdb_upsert_batch(db, record, 1);
}

IQDB_API iqdb_result iqdb_delete_batch(iqdb *db, const uint64_t *ids, size_t count, size_t *out_removed) {
    iq_batch batch = iq_batch_empty();
    batch.deletes = ids;
    batch.count = count;
    return iq_batch_run(db, &batch, out_removed);
}

IQDB_API iqdb_result iqdb_delete(iqdb *db, uint64_t id, bool *out_removed) {
    size_t removed = 0;
    const iqdb_result result = iqdb_delete_batch(db, &id, 1, &removed);
    if (result == IQDB_OK && out_removed != NULL) *out_removed = removed > 0;
    return result;
}

IQDB_API iqdb_result iqdb_apply(iqdb *db, const iqdb_op *ops, size_t count) {
    iq_batch batch = iq_batch_empty();
    batch.ops = ops;
    batch.count = count;
    return iq_batch_run(db, &batch, NULL);
}

IQDB_API iqdb_result iqdb_reserve(iqdb *db, size_t records) {
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    iqdb_result result = iq_db_enter_write(db);
    if (result != IQDB_OK) return result;
    iq_records *all = &db->records;
    if (records > IQ_ROW_COUNT_MAX) result = IQDB_ERR_LIMIT;
    if (result == IQDB_OK && records > all->live_count) result = iq_ids_reserve(&all->ids, records - all->live_count);
    if (result == IQDB_OK && all->rows.dim != 0) result = iq_rows_reserve(&all->rows, (uint32_t)records);
    return iq_db_leave_with(db, result);
}
