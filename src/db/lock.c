/* Entering and leaving a call.
 *
 * 1. `owner` is this thread's identity only while this thread holds the lock, so comparing without it is safe: another
 *    thread's value never equals ours.
 * 2. A reader's entry is that comparison and a pin: it waits for nobody. */
#include "db/db.h"

IQ_FN iqdb *iq_db_of(const iqdb *db) {
    union {
        const iqdb *shared;
        iqdb *mine;
    } handle;
    handle.shared = db;
    return handle.mine;
}

IQ_FN bool iq_db_is_forked(const iqdb *db) {
    return db->directory != NULL && db->process != iq_process_identity();
}

IQ_FN iqdb_result iq_db_enter_read(const iqdb *db, iq_pin *out_pin) {
    const uintptr_t self = iq_thread_identity();
    if (IQ_ATOMIC_LOAD(&db->owner) == self) return IQDB_ERR_BUSY;
    *out_pin = iq_epoch_pin(&iq_db_of(db)->records.epoch, self);
    return IQDB_OK;
}

IQ_FN void iq_db_leave_read(const iqdb *db, iq_pin pin) {
    iq_epoch_unpin(&iq_db_of(db)->records.epoch, pin.slot);
}

IQ_FN iqdb_result iq_db_enter_upkeep(iqdb *db) {
    const uintptr_t self = iq_thread_identity();
    if (IQ_ATOMIC_LOAD(&db->owner) == self) return IQDB_ERR_BUSY;
    iq_mutex_lock(&db->mutex);
    IQ_ATOMIC_STORE(&db->owner, self);
    db->told = false;
    return IQDB_OK;
}

IQ_FN iqdb_result iq_db_enter_write(iqdb *db) {
    iqdb_result result = iq_db_enter_upkeep(db);
    if (result == IQDB_OK && db->read_only)
        return iq_db_leave_with(db, iq_report(&db->reporter, IQDB_ERR_READONLY, NULL, 0,
                                              "the handle is over a blob: iqdb_load_blob makes one to be written"));
    if (result != IQDB_OK || db->directory == NULL) return result;
    const iqdb_result allowed = iq_directory_check(db->directory);
    if (allowed == IQDB_ERR_READONLY) {
        result = iq_report(&db->reporter, IQDB_ERR_READONLY, NULL, 0, "the handle was opened for reading only");
    } else if (allowed == IQDB_ERR_POISONED) {
        result = iq_report(&db->reporter, IQDB_ERR_POISONED, NULL, 0,
                           "an earlier write failed half-way; close and open again to recover");
    } else if (iq_db_is_forked(db)) {
        result = iq_report(&db->reporter, IQDB_ERR_LOCKED, "LOCK", 0,
                           "the handle belongs to the parent process; open the directory anew");
    }
    return result == IQDB_OK ? result : iq_db_leave_with(db, result);
}

IQ_FN void iq_db_leave(iqdb *db) {
    IQ_ATOMIC_STORE(&db->owner, (uintptr_t)0);
    iq_mutex_unlock(&db->mutex);
}

IQ_FN iqdb_result iq_db_leave_with(iqdb *db, iqdb_result result) {
    const iqdb_error *error = db->reporter.error;
    /* A clean-up may have failed after what this call fails with, and have had the last word. */
    const bool told = db->told && (error == NULL || error->code == result);
    if (result != IQDB_OK && !told) (void)iq_report(&db->reporter, result, NULL, 0, iqdb_strerror(result));
    iq_db_leave(db);
    return result;
}

IQ_FN iqdb_result iq_db_refuse(iqdb *db, const char *why) {
    if (iq_db_enter_upkeep(db) == IQDB_OK) {
        (void)iq_report(&db->reporter, IQDB_ERR_INVALID_ARGUMENT, NULL, 0, why);
        iq_db_leave(db);
    }
    return IQDB_ERR_INVALID_ARGUMENT;
}

IQ_FN iqdb_record iq_db_record_at(const iqdb *db, const iq_slab *slab, uint32_t index) {
    iqdb_record record = iqdb_record_default();
    record.id = slab->heads[index].id;
    record.vector = slab->vectors + index * db->records.rows.stride;
    record.dim = db->records.rows.dim;
    record.payload = iq_heap_payload(&db->records.heap, slab->heads[index].payload);
    return record;
}
