/* Writes: one commit path for upsert, delete, batches of either, and mixed ones.
 *
 * 1. Check everything, stage rows, reserve memory, make frames for the log. A failure undoes it and leaves no trace.
 * 2. Write the log; or, where other threads write too, queue the frames, which one of them writes for all. For this
 *    there has to be space already; else it waits, and then asks for it on its own account.
 * 3. Apply, which cannot fail and which readers do not see. That comes in the order of the frames, so each write meets
 *    what is before it in the log; and before the sync, because the disk works meanwhile.
 * 4. Sync, once for a group, where each write is to be durable. A failure gives IO to whoever waits; what they applied
 *    is never published, and the directory is poisoned.
 * 5. Publish: for a group all at once, and nothing of the group behind it, which is of another moment. */
#include "codec/payload.h"
#include "db/db.h"

#if IQ_HAS_WRITES

#define IQ_BATCH_AHEAD 8u /* operations, until what one wants is there */

/* How often the leader of a group lets others run first. Where nobody else can, that takes microseconds. */
#define IQ_GROUP_TRIES 32u

/* A batch in the form that the caller has it: one of the three arrays is set. */
typedef struct iq_batch {
    const iqdb_record *records;
    const uint64_t *deletes;
    const iqdb_op *ops;
    size_t count;
} iq_batch;

/* The record of operation i, or NULL for a delete; and the id. */
IQ_INLINE const iqdb_record *iq_batch_at(const iq_batch *batch, size_t i, uint64_t *out_id) {
    const iqdb_op *op = batch->ops != NULL ? &batch->ops[i] : NULL;
    const iqdb_record *record = batch->records != NULL ? &batch->records[i] : NULL;
    if (op != NULL && op->kind == IQDB_OP_UPSERT) record = op->record;
    *out_id = record != NULL ? record->id : op != NULL ? op->id : batch->deletes[i];
    return record;
}

/* The collection of operation i. */
IQ_INLINE iqdb *iq_batch_target(iqdb *db, const iq_batch *batch, size_t i) {
    return batch->ops != NULL && batch->ops[i].collection != NULL ? batch->ops[i].collection : db;
}

/* Asks for what operation i, if there is one, will want. */
IQ_INLINE void iq_batch_prefetch(iqdb *db, const iq_batch *batch, size_t i) {
    uint64_t id;
    if (i >= batch->count) return;
    (void)iq_batch_at(batch, i, &id);
    iq_ids_prefetch(&iq_batch_target(db, batch, i)->records.ids, id);
}

/* NULL, or what can be said against it without a look at the database. */
IQ_SPREAD const char *iq_batch_complaint(const iqdb *db, const iq_batch *batch) {
    if (batch->count > 0 && batch->records == NULL && batch->deletes == NULL && batch->ops == NULL)
        return "the list is NULL";
    for (size_t i = 0; i < batch->count; i++) {
        uint64_t id;
        if (batch->ops != NULL) {
            const iqdb_op *op = &batch->ops[i];
            if (op->collection != NULL && db != NULL && op->collection->home != db->home)
                return "an operation is for a collection of another database";
            if (op->kind != IQDB_OP_UPSERT && op->kind != IQDB_OP_DELETE) return "an operation is unknown";
            if (op->kind == IQDB_OP_UPSERT && op->record == NULL) return "an operation has no record";
        }
        const iqdb_record *record = iq_batch_at(batch, i, &id);
        if (record == NULL) continue;
        const iqdb *target = batch->ops != NULL && batch->ops[i].collection != NULL ? batch->ops[i].collection : db;
        if (target != NULL && iq_db_vector_of(target, record->vector, record->raw) == NULL)
            return "the vector of a record is NULL";
        if (record->payload.bytes == NULL && record->fields == NULL && record->field_count > 0)
            return "a list of fields is NULL";
    }
    return NULL;
}

static iqdb_result iq_batch_refuse_vector(const iqdb *db) {
    return iq_db_tell(db, IQDB_ERR_INVALID_VECTOR, "a vector has a NaN or an infinity, or bits behind its last one");
}

/* Whether a delete changes something; or nobody can tell, which is said when the id is claimed. A row that has died may
 * still be found, and is none: what is logged without a change would have no moment to wait for. */
IQ_INLINE bool iq_batch_deletes(const iqdb *db, uint64_t id) {
    const iq_spot spot = iq_records_find(&db->records, id, IQ_MOMENT_LAST, false);
    return spot.slab != NULL || spot.row == IQ_ROW_LOST;
}

/* The dimension of every vector against the wanted one of its collection, which the first one sets where it is 0; and
 * whether the batch changes anything: a delete of ids that are not there is not logged. Where there is no log that shows
 * by itself. */
IQ_SPREAD iqdb_result iq_batch_check(iqdb *root, const iq_batch *batch, bool *out_has_effect) {
    *out_has_effect = false;
    for (size_t i = 0; i < (batch->ops != NULL ? batch->count : 1); i++) {
        iqdb *db = iq_batch_target(root, batch, i);
        if (db->died != IQ_MOMENT_NEVER) return iq_db_tell(db, IQDB_ERR_NOT_FOUND, "a collection was dropped");
        db->wanted = db->records.rows.dim;
        db->touched = 0;
    }
    for (size_t i = 0; i < batch->count; i++) {
        uint64_t id;
        iqdb *db = iq_batch_target(root, batch, i);
        uint32_t *dim = &db->wanted;
        const iqdb_record *record = iq_batch_at(batch, i, &id);
        db->touched++;
        *out_has_effect = *out_has_effect || record != NULL || iq_db_directory(db) == NULL || iq_batch_deletes(db, id);
        if (record == NULL) continue;
        const uint32_t found = record->dim != 0 ? record->dim : *dim;
        if (found == 0 || found > IQDB_DIM_MAX)
            return iq_db_tell(db, IQDB_ERR_INVALID_VECTOR, "a vector has no elements, or more than IQDB_DIM_MAX");
        if (*dim == 0) *dim = found;
        if (found != *dim) {
            if (!iq_vector_is_sound(db->records.kernel, db->element, iq_db_vector_of(db, record->vector, record->raw),
                                    found))
                return iq_batch_refuse_vector(db);
            iqdb_error error = iq_error_make(IQDB_ERR_DIMENSION_MISMATCH, NULL, 0,
                                             "a vector has another dimension than the collection");
            error.dim_expected = *dim;
            error.dim_found = found;
            return iq_report_error(&db->home->reporter, &error);
        }
    }
    return IQDB_OK;
}

/* The encoded payload of a record: the caller's own bytes, or made in db->home->encoded. */
IQ_SPREAD iqdb_result iq_batch_payload(iqdb *db, const iqdb_record *record, iqdb_payload *out_payload) {
    *out_payload = record->payload;
    if (record->payload.bytes != NULL) return iq_payload_validate(record->payload.bytes, record->payload.size);
    out_payload->size = 0;
    if (record->fields == NULL) return IQDB_OK;
    db->home->encoded.size = 0;
    const iqdb_result result = iq_payload_encode(record->fields, record->field_count, &db->home->encoded);
    out_payload->bytes = db->home->encoded.bytes;
    out_payload->size = db->home->encoded.size;
    return result;
}

/* Forgets what was staged for the first `count` operations, and the dimensions that first records were to bring: there is
 * no reader. */
static void iq_batch_unstage(iqdb *db, const iq_batch *batch, size_t count) {
    while (count-- > 0)
        if (db->home->staged[count] != IQ_ROW_NONE)
            iq_records_unstage(&iq_batch_target(db, batch, count)->records, db->home->staged[count]);
    for (size_t i = 0; i < (batch->ops != NULL ? batch->count : 1); i++) {
        iq_records *records = &iq_batch_target(db, batch, i)->records;
        if (records->written_dim != records->rows.dim) iq_rows_free(&records->rows);
    }
}

/* Room in each collection for what comes; its dimension, where it had none. */
IQ_SPREAD iqdb_result iq_batch_reserve(iqdb *root, const iq_batch *batch) {
    iqdb_result result = IQDB_OK;
    for (size_t i = 0; i < (batch->ops != NULL ? batch->count : 1) && result == IQDB_OK; i++) {
        iqdb *db = iq_batch_target(root, batch, i);
        const size_t count = db->touched;
        if (count == 0) continue; /* it has had its turn */
        if (db->wanted != db->records.rows.dim) iq_rows_set_dim(&db->records.rows, db->wanted);
        result = iq_records_reserve(&db->records, count);
        if (result == IQDB_ERR_BUSY && iq_checkpoint_abandon(db)) result = iq_records_reserve(&db->records, count);
        db->touched = 0;
    }
    return result;
}

/* Rows for all upserts in db->home->staged (IQ_ROW_NONE for deletes), and room to apply them. */
IQ_SPREAD iqdb_result iq_batch_stage(iqdb *db, const iq_batch *batch) {
    /* Only what is published is given back for want of room. */
    iq_home *home = db->home;
    if (home->common.retired_bytes > home->common.retired_max) {
        if (iq_db_quiesce(db) != IQDB_OK) return IQDB_ERR_POISONED;
        for (size_t i = 0; i < iq_home_count(home); i++) (void)iq_records_maintain(&iq_home_at(home, i)->records, NULL);
    }
    if (batch->count > (size_t)-1 / 16) return IQDB_ERR_NOMEM;
    iqdb_result result = iq_blob_reserve(&db->home->staging, batch->count * sizeof(uint32_t));
    if (result != IQDB_OK) return result;
    db->home->staged = (uint32_t *)(void *)db->home->staging.bytes;
    result = iq_batch_reserve(db, batch);
    if (result != IQDB_OK) iq_batch_unstage(db, batch, 0);
    for (size_t i = 0; i < batch->count && result == IQDB_OK; i++) {
        uint64_t id;
        iqdb_payload payload;
        iqdb *target = iq_batch_target(db, batch, i);
        const iqdb_record *record = iq_batch_at(batch, i, &id);
        db->home->staged[i] = IQ_ROW_NONE;
        if (record == NULL) {
            result = iq_records_claim(&target->records, id);
        } else {
            result = iq_batch_payload(db, record, &payload);
        }
        if (record != NULL && result == IQDB_OK)
            result = iq_records_stage(&target->records, record->id,
                                      iq_db_vector_of(target, record->vector, record->raw), payload, &home->staged[i]);
        if (result == IQDB_ERR_INVALID_VECTOR) result = iq_batch_refuse_vector(db);
        if (result != IQDB_OK) iq_batch_unstage(db, batch, i);
    }
    return result;
}

/* One operation as the log keeps it, where vectors are little-endian: that of a staged row, or, without one, a delete. */
static iqdb_result iq_batch_log_one(iqdb *db, iq_wal *wal, uint64_t id, uint32_t row) {
    uint32_t index;
    uint8_t head[IQ_RECORD_HEAD_SIZE];
    iq_logged_record logged;
    iqdb_record record = iqdb_record_default();
    if (row != IQ_ROW_NONE) {
        const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
        record = iq_db_record_at(db, slab, index);
    }
    iq_slice pieces[3] = {{head, sizeof head},
                          {record.raw, iq_db_vector_bytes(db, record.dim)},
                          {record.payload.bytes, record.payload.size}};
    memset(&logged, 0, sizeof logged);
    logged.type = row != IQ_ROW_NONE ? IQ_RECORD_UPSERT : IQ_RECORD_DELETE;
    logged.element = db->element;
    logged.collection = db->number;
    logged.id = id;
    logged.dim = record.dim;
    logged.has_payload = record.payload.bytes != NULL;
    logged.payload_size = (uint32_t)record.payload.size;
    iq_record_encode_head(&logged, head);
    if (IQ_BIG_ENDIAN && row != IQ_ROW_NONE) {
        db->home->encoded.size = 0;
        const iqdb_result result = iq_blob_reserve(&db->home->encoded, pieces[1].size);
        if (result != IQDB_OK) return result;
        iq_element_copy_le(db->element, db->home->encoded.bytes, record.raw, pieces[1].size);
        pieces[1].bytes = db->home->encoded.bytes;
    }
    return iq_wal_add(wal, pieces, 3);
}

static iqdb_result iq_batch_log(iqdb *db, const iq_batch *batch, iq_wal **out_wal) {
    iqdb_result result = iq_directory_batch_begin(db->home->directory, out_wal);
    if (result != IQDB_OK) return result;
    for (size_t i = 0; i < batch->count && result == IQDB_OK; i++) {
        uint64_t id;
        (void)iq_batch_at(batch, i, &id);
        result = iq_batch_log_one(iq_batch_target(db, batch, i), *out_wal, id, db->home->staged[i]);
    }
    if (result != IQDB_OK) iq_wal_abort(*out_wal);
    return result;
}

/* Step 2: *out_lsn, or *out_queued. The batch is a copy: what is pointed to cannot be known in step 3. */
static iqdb_result iq_batch_write(iqdb *db, iq_batch batch, uint64_t *out_lsn, bool *out_queued) {
    iq_wal *wal;
    iqdb_result result = iq_batch_log(db, &batch, &wal);
    if (result == IQDB_OK && (db->home->syncing != 0 || db->home->queued > 0 || db->home->served > 0)) {
        *out_queued = iq_wal_queue(wal);
        if (*out_queued) return IQDB_OK;
        iq_wal_abort(wal);
        (void)iq_db_quiesce(db);
        result = iq_batch_log(db, &batch, &wal);
    }
    bool deletes = true;
    for (size_t i = 0; i < batch.count; i++) deletes = deletes && db->home->staged[i] == IQ_ROW_NONE;
    if (result != IQDB_OK) return result;
    return iq_directory_batch_commit(db->home->directory, db->home->sync == IQDB_SYNC_EACH, deletes, out_lsn);
}

IQ_SPREAD void iq_batch_apply(iqdb *db, const iq_batch *batch, size_t *out_removed) {
    for (size_t i = 0; i < batch->count; i++) {
        uint64_t id;
        iq_records *records = &iq_batch_target(db, batch, i)->records;
        iq_batch_prefetch(db, batch, i + IQ_BATCH_AHEAD);
        if (iq_batch_at(batch, i, &id) != NULL) {
            iq_records_upsert(records, db->home->staged[i]);
        } else if (iq_records_delete(records, id)) {
            ++*out_removed;
        }
    }
}

/* Syncs what was written up to `lsn`, and publishes it, for all whose frames are in it; the lock is given up meanwhile.
 * Where that fails, or `result`, which is that of the write, is none of OK, so do all who are queued behind them. */
static iqdb_result iq_group_sync(iqdb *db, iqdb_result result, uint64_t lsn) {
    int os_code;
    if (result == IQDB_OK) {
        iq_common_seal(&db->home->common);
        db->home->served = db->home->queued > 0 ? db->home->queued - 1 : 0;
        db->home->queued = 0;
        IQ_ATOMIC_STORE(&db->home->syncing, db->home->owner);
        iq_db_leave(db);
        result = iq_directory_sync(db->home->directory, &os_code);
        (void)iq_db_lock(db);
        result = iq_directory_synced(db->home->directory, result, os_code);
    }
    if (result == IQDB_OK) {
        iq_common_publish(&db->home->common, lsn);
    } else {
        db->home->group_failed = true;
        db->home->queued = 0;
    }
    IQ_ATOMIC_STORE(&db->home->syncing, (uintptr_t)0);
    iq_db_wake(db);
    return result;
}

IQ_FN iqdb_result iq_write_settle(iqdb *db, uint64_t lsn) {
    iq_common *common = &db->home->common;
    if (iq_db_directory(db) != NULL && db->home->sync == IQDB_SYNC_EACH) return iq_group_sync(db, IQDB_OK, lsn);
    if (common->changed > common->epoch.moment) iq_common_publish(common, lsn);
    return IQDB_OK;
}

IQ_FN iqdb_result iq_write_collection(iqdb *db, uint8_t type, iq_slice body, uint64_t *out_lsn) {
    uint8_t head[IQ_RECORD_HEAD_SIZE], keys_head[IQ_RECORD_HEAD_SIZE];
    iq_logged_record record;
    iq_wal *wal;
    const bool is_create = type == IQ_RECORD_CREATE, has_keys = is_create && db->key_set.size > 0;
    const iq_slice pieces[2] = {{head, sizeof head}, body};
    const iq_slice keys_pieces[2] = {{keys_head, sizeof keys_head}, {db->key_set.bytes, db->key_set.size}};
    uint32_t features = type == IQ_RECORD_CHOOSE ? IQ_META_CHOICES : IQ_META_COLLECTIONS;
    iq_directory *directory = iq_db_directory(db);
    *out_lsn = db->home->common.lsn + 1;
    if (directory == NULL) return IQDB_OK;
    memset(&record, 0, sizeof record);
    record.type = type;
    record.element = db->element;
    record.collection = db->number;
    if (is_create) record.id = (uint64_t)db->metric;
    record.dim = db->records.rows.dim;
    record.payload_size = (uint32_t)body.size;
    iq_record_encode_head(&record, head);
    record.type = IQ_RECORD_KEYS;
    record.id = 0;
    record.payload_size = (uint32_t)db->key_set.size;
    iq_record_encode_head(&record, keys_head);
    if (type != IQ_RECORD_CHOOSE && db->element != IQDB_ELEMENT_F32) features |= IQ_META_ELEMENTS;
    if (type == IQ_RECORD_KEYS || has_keys) features |= IQ_META_KEY_SETS;
    iqdb_result result = iq_directory_require(directory, features);
    if (result == IQDB_OK) result = iq_directory_batch_begin(directory, &wal);
    if (result != IQDB_OK) return result;
    result = iq_wal_add(wal, pieces, 2);
    if (result == IQDB_OK && has_keys) result = iq_wal_add(wal, keys_pieces, 2);
    if (result != IQDB_OK) {
        iq_wal_abort(wal);
        return result;
    }
    return iq_directory_batch_commit(directory, db->home->sync == IQDB_SYNC_EACH, type == IQ_RECORD_DROP, out_lsn);
}

/* A queued write, applied for `moment`, waits for its group to be published, or leads it. */
static iqdb_result iq_group_join(iqdb *db, uint64_t moment) {
    uint64_t lsn;
    db->home->queued++;
    while (db->home->common.epoch.moment < moment && !db->home->group_failed && db->home->syncing != 0) iq_db_wait(db);
    if (db->home->common.epoch.moment >= moment) return IQDB_OK;
    db->home->told = db->home->group_failed; /* by the thread that met the failure */
    if (db->home->group_failed) return IQDB_ERR_IO;
    IQ_ATOMIC_STORE(&db->home->syncing, db->home->owner);
    /* Those whom the sync before has served are about to come again: with them the group is twice as large. */
    const size_t expected = db->home->queued + db->home->served;
    for (unsigned tries = 0; tries < IQ_GROUP_TRIES && db->home->queued < expected; tries++) {
        iq_db_leave(db);
        iq_thread_yield();
        (void)iq_db_lock(db);
    }
    const iqdb_result result = iq_directory_batch_commit(db->home->directory, true, false, &lsn);
    return iq_group_sync(db, result, lsn);
}

/* Under the lock, arguments checked. */
IQ_SPREAD iqdb_result iq_batch_make(iqdb *db, const iq_batch *batch, size_t *out_removed) {
    iq_home *home = db->home;
    const uint32_t dim_before = home->root.records.rows.dim;
    uint64_t lsn = home->common.lsn + 1;
    bool has_effect, is_queued = false;
    iqdb_result result = iq_batch_check(db, batch, &has_effect);
    if (result != IQDB_OK) return result;
    if (!has_effect) return iq_db_quiesce(db); /* another one's delete may be on its way */
    result = iq_batch_stage(db, batch);
    if (result != IQDB_OK) return result;
    if (iq_db_directory(db) != NULL) result = iq_batch_write(db, *batch, &lsn, &is_queued);
    if (result != IQDB_OK) {
        iq_batch_unstage(db, batch, batch->count);
        return result;
    }
    if (home->root.records.rows.dim != dim_before && iq_db_directory(db) != NULL)
        iq_directory_set_schema(home->directory, iq_db_schema(&home->root));
    iq_batch_apply(db, batch, out_removed);
    if (is_queued) {
        result = iq_group_join(db, home->common.changed);
    } else {
        result = iq_write_settle(db, lsn);
    }
    for (size_t i = 0; i < (batch->ops != NULL ? batch->count : 1); i++) {
        iqdb *target = iq_batch_target(db, batch, i);
        iq_records_tidy(&target->records);
        if (result == IQDB_OK) iq_db_index_keep_pace(target, batch->ops != NULL ? 1 : batch->count);
    }
    return result;
}

IQ_SPREAD iqdb_result iq_batch_commit(iqdb *db, const iq_batch *batch, size_t *out_removed) {
    const iqdb_result result = iq_batch_make(db, batch, out_removed);
    if (result == IQDB_OK) iq_checkpoint_keep_pace(db);
    return result;
}

static iqdb_result iq_batch_leave(iqdb *db, iqdb_result result, size_t removed, size_t *out_removed) {
    if (db->records.heap.arena != NULL) iq_blob_free(&db->home->encoded); /* it takes the place of records */
    result = iq_db_leave_with(db, result);
    if (result == IQDB_OK && out_removed != NULL) *out_removed = removed;
    return result;
}

IQ_SPREAD iqdb_result iq_batch_enter(iqdb *db, const iq_batch *batch) {
    const char *complaint = iq_batch_complaint(db, batch);
    if (complaint == NULL && db != NULL) iq_batch_prefetch(db, batch, 0);
    return iq_db_enter_write(db, complaint);
}

/* A batch of one, as most are: what follows from that is known here. */
IQ_SPREAD iqdb_result iq_batch_run_one(iqdb *db, const iqdb_record *record, const uint64_t *deleted,
                                       size_t *out_removed) {
    const iq_batch batch = {record, deleted, NULL, 1};
    size_t removed = 0;
    iqdb_result result = iq_batch_enter(db, &batch);
    if (result != IQDB_OK) return result;
    result = iq_batch_commit(db, &batch, &removed);
    return iq_batch_leave(db, result, removed, out_removed);
}

/* Any batch. */
static iqdb_result iq_batch_commit_any(iqdb *db, const iq_batch *batch, size_t *out_removed) {
    return iq_batch_commit(db, batch, out_removed);
}

/* One of the three lists is given. */
static iqdb_result iq_batch_run(iqdb *db, const iqdb_record *records, const uint64_t *deletes, const iqdb_op *ops,
                                size_t count, size_t *out_removed) {
    const iq_batch batch = {records, deletes, ops, count};
    size_t removed = 0;
    iqdb_result result = iq_batch_enter(db, &batch);
    if (result != IQDB_OK) return result;
    if (count > 0) result = iq_batch_commit_any(db, &batch, &removed);
    return iq_batch_leave(db, result, removed, out_removed);
}

/* Under the lock: the record again, with its payload merged in `buffer`. */
static iqdb_result iq_batch_update(iqdb *db, uint64_t id, const iqdb_field *fields, size_t count, iqdb_buffer *buffer) {
    size_t removed = 0;
    iqdb_record record = iqdb_record_default();
    const iq_spot spot = iq_records_find(&db->records, id, IQ_MOMENT_LAST, false);
    if (!IQ_SMALL && spot.slab == NULL && spot.row == IQ_ROW_LOST) return IQDB_ERR_CORRUPT;
    if (spot.slab == NULL) return iq_db_quiesce(db) != IQDB_OK ? IQDB_ERR_IO : IQDB_ERR_NOT_FOUND;
    const iqdb_payload payload = iq_heap_payload(&db->records.heap, iq_row_payload(spot.slab, spot.index));
    const iqdb_result result = iqdb_payload_with(payload, fields, count, buffer, &record.payload);
    if (result != IQDB_OK) return result;
    const iqdb_payload changed = record.payload;
    record = iq_db_record_at(db, spot.slab, spot.index); /* rows do not move while one is added */
    record.payload = changed;
    const iq_batch batch = {&record, NULL, NULL, 1};
    return iq_batch_commit_any(db, &batch, &removed);
}

IQDB_API iqdb_result iqdb_update_payload(iqdb *db, uint64_t id, const iqdb_field *fields, size_t field_count) {
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_result result = iq_db_enter_write(db, fields == NULL && field_count > 0 ? "a list of fields is NULL" : NULL);
    if (result != IQDB_OK) return result;
    buffer.allocator = db->home->encoded.allocator;
    result = iq_batch_update(db, id, fields, field_count, &buffer);
    iqdb_buffer_free(&buffer);
    return iq_db_leave_with(db, result);
}

IQ_DEFINE_DEFAULT(iqdb_op)

IQDB_API iqdb_result iqdb_upsert_batch(iqdb *db, const iqdb_record *records, size_t count) {
    return iq_batch_run(db, records, NULL, NULL, count, NULL);
}

IQDB_API iqdb_result iqdb_upsert(iqdb *db, const iqdb_record *record) {
    return iq_batch_run_one(db, record, NULL, NULL);
}

IQDB_API iqdb_result iqdb_delete_batch(iqdb *db, const uint64_t *ids, size_t count, size_t *out_removed) {
    return iq_batch_run(db, NULL, ids, NULL, count, out_removed);
}

IQDB_API iqdb_result iqdb_delete(iqdb *db, uint64_t id, bool *out_removed) {
    size_t removed = 0;
    const iqdb_result result = iq_batch_run_one(db, NULL, &id, &removed);
    if (result == IQDB_OK && out_removed != NULL) *out_removed = removed > 0;
    return result;
}

/* Under the lock: one batch of all that the filter accepts now. Of none, too: it waits for deletes that are on their
 * way. */
static iqdb_result iq_batch_delete_where(iqdb *db, const iqdb_filter *filter, iq_blob *ids, size_t *out_removed) {
    iq_filter_layout layout;
    iq_filter compiled;
    iq_choice choice = {&compiled, NULL, 0, 0};
    uint32_t index;
    const iq_records *records = &db->records;
    const uint32_t end = records->rows.count;
    const iq_slab *slab;
    const char *why = iq_filter_measure(filter, &layout);
    if (why != NULL) return iq_db_tell(db, IQDB_ERR_INVALID_FILTER, why);
    db->home->encoded.size = 0;
    const size_t bits_size = iq_records_have_keys(records) ? iq_round_up(iq_choice_bytes(end), 16) : 0;
    iqdb_result result = iq_blob_reserve(&db->home->encoded, bits_size + layout.size_bytes);
    if (result != IQDB_OK) return result;
    uint32_t *bits = (uint32_t *)(void *)db->home->encoded.bytes;
    iq_filter_compile(filter, &layout, db->home->encoded.bytes + bits_size, &compiled);
    if (bits_size > 0 && iq_records_choose(records, &compiled, end, bits) < end) choice.bits = bits;
    for (uint32_t row = 0; result == IQDB_OK; row++) {
        slab = iq_records_next(records, &row, end, IQ_MOMENT_LAST, &choice, &index);
        if (!IQ_SMALL && slab == NULL && row < end) return IQDB_ERR_CORRUPT;
        if (slab == NULL) break;
        const uint64_t id = iq_row_id(slab, index);
        result = iq_blob_append(ids, &id, sizeof id);
    }
    if (result != IQDB_OK) return result;
    const iq_batch batch = {NULL, (const uint64_t *)(const void *)ids->bytes, NULL, ids->size / sizeof(uint64_t)};
    return iq_batch_commit_any(db, &batch, out_removed);
}

IQDB_API iqdb_result iqdb_delete_where(iqdb *db, const iqdb_filter *filter, size_t *out_removed) {
    iq_blob ids = {NULL, NULL, 0, 0};
    size_t removed = 0;
    iqdb_result result =
        iq_db_enter_write(db, filter == NULL ? "the filter is NULL; iqdb_filter_default() is every record" : NULL);
    if (result != IQDB_OK) return result;
    ids.allocator = db->home->encoded.allocator;
    result = iq_batch_delete_where(db, filter, &ids, &removed);
    iq_blob_free(&ids);
    return iq_batch_leave(db, result, removed, out_removed);
}

IQDB_API iqdb_result iqdb_apply(iqdb *db, const iqdb_op *ops, size_t count) {
    return iq_batch_run(db, NULL, NULL, ops, count, NULL);
}

IQDB_API iqdb_result iqdb_reserve(iqdb *db, size_t records) {
    iqdb_result result = iq_db_enter_write(db, NULL);
    if (result != IQDB_OK) return result;
    const size_t live = db->records.live_count;
    return iq_db_leave_with(db, iq_records_expect(&db->records, records, records > live ? records - live : 0));
}

#endif
