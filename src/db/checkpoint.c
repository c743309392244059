/* Checkpoints, in slices.
 *
 * 1. What a checkpoint writes are the rows that its pin keeps, which do not change; so it needs the lock for a slice only,
 *    and between two of them others write.
 * 2. What is in the image is in the logs that end where it begins: both are made under the lock, with no write on its way.
 * 3. There is one at a time, and whoever has the lock goes on with it; only its sync, which needs no lock, is one
 *    thread's.
 * 4. Rows tell by the moment of their birth whether a snapshot holds them, and deleted ids by their place in a list that
 *    begins with the base. So a delta since any snapshot is made from memory, and none is ever read to be merged.
 * 5. A write begins one when the logs have options.checkpoint_bytes, and has worked off as large a part of it as the logs
 *    have grown by of so many more: it is done when they are twice as long. */
#include "db/db.h"

#define IQ_CHECKPOINT_UNITS 8u /* of an image, for which the lock is kept */

IQ_FN void iq_checkpoint_note_loaded(iqdb *db) {
    db->home->checkpoint.held[db->home->checkpoint.count++] = db->home->common.epoch.moment;
}

static iqdb_result iq_checkpoint_begin(iqdb *db, bool whole) {
    iq_checkpoint *checkpoint = &db->home->checkpoint;
    uint64_t rows = 0;
    for (size_t i = 0; i < iq_home_count(db->home); i++) {
        const iq_records *records = &iq_home_at(db->home, i)->records;
        if (records->deleted.size / sizeof(iq_deleted) > UINT32_MAX) whole = true; /* more than a catalog can count */
        rows += records->rows.count;
    }
    if (checkpoint->store || iq_home_wants_store(db->home, true)) whole = true;
    const iqdb_result result = iq_directory_checkpoint_begin(db->home->directory, whole, &checkpoint->tier);
    if (result != IQDB_OK) return result;
    const uint32_t kept = checkpoint->tier.kept;
    checkpoint->image = iq_image_take(db->home, kept > 0 ? checkpoint->held[kept - 1] : 0);
    checkpoint->pin = iq_epoch_pin(&db->home->common.epoch, &db->records.tally, iq_thread_identity());
    checkpoint->is_pinned = true;
    checkpoint->begun_at = iq_directory_log_bytes(db->home->directory);
    checkpoint->units = 0;
    checkpoint->unit_count = checkpoint->tier.bytes / IQ_IMAGE_UNIT + rows / IQ_IMAGE_UNIT_ROWS * 6;
    return IQDB_OK;
}

/* The rows are written, or are not to be. */
static iqdb_result iq_checkpoint_finish(iqdb *db, iqdb_result result) {
    db->home->checkpoint.is_pinned = false;
    iq_image_end(&db->home->checkpoint.image);
    iq_epoch_unpin(&db->home->common.epoch, db->home->checkpoint.pin.slot);
    return iq_directory_checkpoint_finish(db->home->directory, result);
}

/* There is one snapshot more, and those that it has taken in are none any more. */
static void iq_checkpoint_note_made(iqdb *db) {
    iq_checkpoint *checkpoint = &db->home->checkpoint;
    const uint64_t held = checkpoint->image.moment;
    /* A base has nothing of what was deleted before, and has the indexes, as far as they were stored. */
    for (size_t i = 0; checkpoint->tier.kept == 0 && i < iq_home_count(db->home); i++) {
        iq_blob *deleted = &iq_home_at(db->home, i)->records.deleted;
        iq_index *index = IQ_SMALL ? NULL : iq_home_at(db->home, i)->index;
        size_t gone = 0;
        if (index != NULL) index->unstored -= index->storing < index->unstored ? index->storing : index->unstored;
        if (index != NULL) index->storing = 0;
        while (gone < deleted->size && ((const iq_deleted *)(const void *)(deleted->bytes + gone))->moment <= held)
            gone += sizeof(iq_deleted);
        deleted->size -= gone;
        if (deleted->size > 0) memmove(deleted->bytes, deleted->bytes + gone, deleted->size);
    }
    if (checkpoint->tier.kept == 0) checkpoint->store = false;
    checkpoint->held[checkpoint->tier.kept] = held;
    checkpoint->count = checkpoint->tier.kept + 1;
    checkpoint->due_at = db->home->checkpoint_bytes;
    db->home->made++;
    if (db->home->clock.now_fn != NULL) db->home->made_at = db->home->clock.now_fn(db->home->clock.user);
}

static iqdb_result iq_checkpoint_end(iqdb *db) {
    int os_code;
    iqdb_result result = iq_checkpoint_finish(db, IQDB_OK);
    if (result != IQDB_OK) return result;
    IQ_ATOMIC_STORE(&db->home->settling, db->home->owner);
    iq_db_leave(db);
    result = iq_directory_checkpoint_sync(db->home->directory, &os_code);
    (void)iq_db_lock(db);
    (void)iq_db_quiesce(db);
    result = iq_directory_checkpoint_end(db->home->directory, result, os_code);
    if (result == IQDB_OK) iq_checkpoint_note_made(db);
    IQ_ATOMIC_STORE(&db->home->settling, (uintptr_t)0);
    iq_db_wake(db);
    return result;
}

IQ_FN iqdb_result iq_checkpoint_run(iqdb *db, bool whole, iq_limit *limit) {
    iq_checkpoint *checkpoint = &db->home->checkpoint;
    bool done;
    iqdb_result result = IQDB_OK;
    if (!checkpoint->is_pinned) {
        (void)iq_db_quiesce(db); /* meanwhile somebody else may have begun one */
        if (!checkpoint->is_pinned && db->home->settling == 0) result = iq_checkpoint_begin(db, whole);
        if (!checkpoint->is_pinned) return result;
    }
    const uint64_t before = limit->units;
    result = iq_image_step(&checkpoint->image, checkpoint->tier.writer, limit, &done);
    checkpoint->units += limit->units - before;
    if (result != IQDB_OK) return iq_checkpoint_finish(db, result);
    return done ? iq_checkpoint_end(db) : result;
}

IQ_FN bool iq_checkpoint_abandon(iqdb *db) {
    if (!IQ_HAS_FILES || !IQ_HAS_WRITES || !db->home->checkpoint.is_pinned || iq_db_is_forked(db)) return false;
    db->home->checkpoint.due_at =
        2 * db->home->checkpoint_bytes; /* and then without a pause: no write can come between */
    (void)iq_checkpoint_finish(db, IQDB_ERR_CANCELLED);
    return true;
}

/* ---- What calls do of it on their way ---- */

static bool iq_checkpoint_is_due(const iqdb *db) {
    return db->home->checkpoint.is_pinned || db->home->checkpoint.store ||
           iq_directory_log_bytes(db->home->directory) > db->home->checkpoint.due_at;
}

/* After a failure, for which no write answers, the logs grow on for a while. */
static iqdb_result iq_checkpoint_try(iqdb *db, iq_limit *limit) {
    const iqdb_result result = iq_checkpoint_run(db, false, limit);
    if (result == IQDB_OK) return result;
    db->home->checkpoint.due_at = iq_directory_log_bytes(db->home->directory) + db->home->checkpoint_bytes;
    (void)iq_home_wants_store(db->home, db->home->checkpoint.store = false);
    return result;
}

#if IQ_HAS_WRITES
IQ_FN void iq_checkpoint_keep_pace(iqdb *db) {
    const iq_checkpoint *checkpoint = &db->home->checkpoint;
    if (iq_db_directory(db) == NULL || db->home->settling != 0 || !iq_checkpoint_is_due(db)) return;
    const uint64_t log_bytes = iq_directory_log_bytes(db->home->directory), goal = 2 * db->home->checkpoint_bytes;
    const iqdb_clock none = {NULL, NULL};
    iq_limit limit = iq_limit_make(none, NULL);
    limit.ends = log_bytes < goal;
    if (limit.ends && checkpoint->is_pinned) {
        const uint64_t grown = log_bytes - checkpoint->begun_at, room = goal - checkpoint->begun_at;
        const uint64_t due = checkpoint->unit_count * grown / room;
        if (due > checkpoint->units) limit.end = due - checkpoint->units;
    }
    (void)iq_checkpoint_try(db, &limit);
}
#endif

IQ_FN iqdb_result iq_checkpoint_maintain(iqdb *db, iq_limit *limit, bool *out_done) {
    iqdb_result result = IQDB_OK;
    if (iq_directory_check(db->home->directory) != IQDB_OK || !iq_checkpoint_is_due(db)) return IQDB_OK;
    if (db->home->settling == 0 && !iq_db_is_writing(db)) result = iq_checkpoint_try(db, limit);
    if (iq_checkpoint_is_due(db)) *out_done = false;
    return result;
}

/* ---- The call ---- */

IQDB_API iqdb_result iqdb_checkpoint(iqdb *db) {
    const iqdb_clock none = {NULL, NULL};
    bool was_pinned = false;
    iqdb_result result = iq_db_enter_write(db, NULL);
    if (result != IQDB_OK) return result;
    if (!IQ_HAS_WRITES || iq_db_directory(db) == NULL) return iq_db_leave_with(db, result);
    IQ_ATOMIC_ADD(&db->home->slicing, 1);
    (void)iq_db_quiesce(db);
    const uint64_t lsn = db->home->common.lsn;
    const bool store = iq_home_wants_store(db->home, true);
    while (result == IQDB_OK &&
           (!iq_directory_holds(db->home->directory, lsn) || (store && iq_home_wants_store(db->home, true)))) {
        iq_limit limit = iq_limit_make(none, NULL);
        if (db->home->settling != 0) {
            iq_db_wait(db);
            continue;
        }
        /* Where a write has found no memory beside it, it does not let them in again. */
        if (!was_pinned || db->home->checkpoint.is_pinned) iq_limit_end_in(&limit, IQ_CHECKPOINT_UNITS);
        result = iq_checkpoint_run(db, false, &limit);
        was_pinned = db->home->checkpoint.is_pinned;
        if (was_pinned) iq_db_let_go(db);
    }
    /* The old log has ended, and no commit may follow for long. */
    if (result != IQDB_OK && !iq_db_is_writing(db) && iq_directory_check(db->home->directory) == IQDB_OK &&
        iq_directory_flush(db->home->directory, false) != IQDB_OK)
        result = IQDB_ERR_IO;
    IQ_ATOMIC_ADD(&db->home->slicing, UINT64_MAX);
    return iq_db_leave_with(db, result);
}
