/* Entering and leaving a call.
 *
 * 1. `owner` is this thread's identity only while this thread holds the lock, and `syncing` only while it syncs, so
 *    comparing without the lock is safe: another thread's value never equals ours.
 * 2. A reader's entry is that comparison and a pin: it waits for nobody.
 * 3. Of a handle that fork has carried into a child, the lock may be taken by a thread that is not there. So a child has
 *    another one; and `owner` tells whether the state that it guards is whole: it is set before that is touched. */
#include "db/db.h"

#define IQ_LOCK_TRIES 1000u /* to let others have the lock: about a millisecond */

IQ_FN iqdb *iq_db_of(const iqdb *db) { return (iqdb *)(uintptr_t)db; }

/* Whether this process is not the one that opened it. A handle in memory asks for no identity: that takes as long as a
 * write, and nothing is outside of the copy that the child has. */
static bool iq_db_is_elsewhere(const iqdb *db) {
    return iq_db_directory(db) != NULL && db->home->process != iq_process_identity();
}

IQ_FN bool iq_db_is_forked(const iqdb *db) { return IQ_HAS_FILES && IQ_ATOMIC_LOAD(&db->home->forked) != 0; }

/* The lock of this process. */
static iq_mutex *iq_db_mutex(iqdb *db) { return iq_db_is_forked(db) ? &db->home->child_mutex : &db->home->mutex; }

static bool iq_db_has_inside(const iqdb *db, uintptr_t self) {
    return IQ_ATOMIC_LOAD(&db->home->owner) == self || IQ_ATOMIC_LOAD(&db->home->syncing) == self ||
           IQ_ATOMIC_LOAD(&db->home->settling) == self;
}

IQ_FN bool iq_db_is_inside(const iqdb *db) { return iq_db_has_inside(db, iq_thread_identity()); }

IQ_FN void iq_db_leave_read(const iqdb *db, iq_pin pin) { iq_epoch_unpin(&db->home->common.epoch, pin.slot); }

IQ_FN iqdb_result iq_db_enter_read(const iqdb *db, iq_pin *out_pin) {
    const uintptr_t self = iq_thread_identity();
    if (iq_db_has_inside(db, self)) return IQDB_ERR_BUSY;
    *out_pin = iq_epoch_pin(&db->home->common.epoch, &db->records.tally, self);
    if (IQ_SMALL || IQ_LIKELY(out_pin->moment < IQ_ATOMIC_LOAD(&db->died))) return IQDB_OK;
    iq_db_leave_read(db, *out_pin);
    return IQDB_ERR_NOT_FOUND;
}

/* The first lock in a child. Whoever owned the other one is not there any more. */
static void iq_db_own_copy(iqdb *db) {
    iq_mutex_lock(&db->home->child_mutex);
    if (!iq_db_is_forked(db)) db->home->is_torn = IQ_ATOMIC_LOAD(&db->home->owner) != 0;
    IQ_ATOMIC_STORE(&db->home->forked, (uint64_t)1);
}

IQ_SPREAD void iq_db_own(iqdb *db, uintptr_t self) {
    const bool is_counted = IQ_ATOMIC_LOAD(&db->home->slicing) != 0;
    if (is_counted) IQ_ATOMIC_ADD(&db->home->waiting, 1);
    if (!iq_db_is_forked(db) && iq_db_is_elsewhere(db)) {
        iq_db_own_copy(db);
    } else {
        iq_mutex_lock(iq_db_mutex(db));
    }
    if (is_counted) IQ_ATOMIC_ADD(&db->home->waiting, UINT64_MAX);
    IQ_ATOMIC_STORE(&db->home->owner, self);
    db->home->told = false;
}

IQ_FN bool iq_db_lock(iqdb *db) {
    const uintptr_t self = iq_thread_identity();
    if (IQ_ATOMIC_LOAD(&db->home->owner) == self) return false;
    iq_db_own(db, self);
    return true;
}

IQ_FN void iq_db_let_go(iqdb *db) {
    iq_db_leave(db);
    /* A lock that is free for a moment is taken again by who has just had it, unless that one waits. */
    for (unsigned tries = 0; tries < IQ_LOCK_TRIES && IQ_ATOMIC_LOAD(&db->home->waiting) > 0; tries++)
        iq_thread_yield();
    (void)iq_db_lock(db);
}

IQ_HOT iqdb_result iq_db_enter_upkeep(iqdb *db, const char *complaint) {
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    const uintptr_t self = iq_thread_identity();
    const bool entered = !iq_db_has_inside(db, self);
    if (entered) iq_db_own(db, self);
    iqdb_result result = complaint != NULL ? IQDB_ERR_INVALID_ARGUMENT : entered ? IQDB_OK : IQDB_ERR_BUSY;
    if (!IQ_SMALL && result == IQDB_OK && db->died != IQ_MOMENT_NEVER) {
        result = IQDB_ERR_NOT_FOUND;
        complaint = "the collection was dropped";
    }
    if (IQ_HAS_FILES && result == IQDB_OK && db->home->is_torn) {
        result = IQDB_ERR_LOCKED;
        complaint = "another thread was in a call when the process was forked: the copy can only be read and closed";
    }
    if (result == IQDB_OK || !entered) return result;
    return iq_db_leave_with(db, iq_db_tell(db, result, complaint));
}

IQ_FN void iq_db_wait(iqdb *db) {
    const uintptr_t self = db->home->owner;
    IQ_ATOMIC_STORE(&db->home->owner, (uintptr_t)0);
    iq_mutex_wait(iq_db_mutex(db));
    IQ_ATOMIC_STORE(&db->home->owner, self);
    db->home->told = false;
}

IQ_FN void iq_db_wake(iqdb *db) { iq_mutex_wake(iq_db_mutex(db)); }

IQ_FN bool iq_db_is_torn(iqdb *db) {
    if (!iq_db_is_elsewhere(db) || !iq_db_lock(db)) return false;
    const bool is_torn = db->home->is_torn;
    iq_db_leave(db);
    return is_torn;
}

IQ_FN bool iq_db_is_writing(const iqdb *db) {
    /* A child has nobody else's threads. */
    return IQ_HAS_FILES && (db->home->syncing != 0 || db->home->queued > 0) && !iq_db_is_forked(db);
}

IQ_FN iqdb_result iq_db_quiesce(iqdb *db) {
    if (!iq_db_is_writing(db)) return IQDB_OK;
    db->home->draining++;
    while (iq_db_is_writing(db)) iq_db_wait(db);
    db->home->draining--;
    iq_db_wake(db);
    return db->home->group_failed ? IQDB_ERR_IO : IQDB_OK;
}

/* The clock is asked before anything is written, and behind the beginning of the call: what was written an interval
 * before that is found late here. No other thread is in a sync, which only EACH does without the lock. */
IQ_FN iqdb_result iq_db_sync_late(iqdb *db) {
    iqdb_result result = IQDB_OK;
    if (db->home->sync != IQDB_SYNC_PERIODIC || iq_db_directory(db) == NULL || iq_db_is_forked(db) ||
        iq_directory_check(db->home->directory) != IQDB_OK)
        return result;
    const uint64_t now = db->home->clock.now_fn(db->home->clock.user);
    const bool is_late = iq_limit_is_past(now, db->home->durable_at + db->home->sync_interval_us);
    if (is_late && !iq_directory_is_durable(db->home->directory))
        result = iq_directory_flush(db->home->directory, true);
    if (iq_directory_is_durable(db->home->directory)) db->home->durable_at = now;
    return result;
}

IQ_FN iqdb_result iq_db_enter_write(iqdb *db, const char *complaint) {
    iqdb_result result = iq_db_enter_upkeep(db, complaint);
    if (result != IQDB_OK) return result;
    result = iq_db_prepare_write(db);
    return result == IQDB_OK ? result : iq_db_leave_with(db, result);
}

IQ_FN iqdb_result iq_db_prepare_write(iqdb *db) {
    iqdb_result result = IQDB_OK;
    while (db->home->draining > 0 && !iq_db_is_forked(db)) iq_db_wait(db);
    if (db->died != IQ_MOMENT_NEVER) {
        result = IQDB_ERR_NOT_FOUND;
    } else if (db->home->read_only) {
        result = iq_db_tell(db, IQDB_ERR_READONLY, "the handle is over a blob: iqdb_load_blob makes one to be written");
    } else if (iq_db_directory(db) != NULL && iq_directory_check(db->home->directory) != IQDB_OK) {
        result = iq_directory_check(db->home->directory);
        (void)iq_db_tell(db, result,
                         result == IQDB_ERR_READONLY
                             ? "the handle was opened for reading only"
                             : "an earlier write failed half-way; close and open again to recover");
    } else if (iq_db_is_forked(db)) {
        result = iq_report(&db->home->reporter, IQDB_ERR_LOCKED, "LOCK", 0,
                           "the handle belongs to the parent process; open the directory anew");
    } else {
        result = iq_db_sync_late(db);
    }
    return result;
}

IQ_FN void iq_db_leave(iqdb *db) {
    IQ_ATOMIC_STORE(&db->home->owner, (uintptr_t)0);
    iq_mutex_unlock(iq_db_mutex(db));
}

IQ_FN iqdb_result iq_db_leave_with(iqdb *db, iqdb_result result) {
    const iqdb_error *error = db->home->reporter.error;
    /* A clean-up may have failed after what this call fails with, and have had the last word. */
    const bool told = db->home->told && (error == NULL || error->code == result);
    if (!IQ_SMALL && result == IQDB_ERR_CORRUPT && !told && db->home->lender != NULL) {
        (void)iq_lend_tell(db->home);
    } else if (result != IQDB_OK && !told) {
        (void)iq_db_tell(db, result, iqdb_strerror(result));
    }
    iq_db_leave(db);
    return result;
}
