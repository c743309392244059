/* Open: what counts of the logs, and how a crash is mended.
 *
 * 1. Torn or rotten: at the first frame that does not count, with LSN L, everything depends on whether L had been
 *    acknowledged. It had where META says that the log goes on to L or further, where a snapshot holds L, or where any
 *    valid frame further on in this log, or in one whose header says that it continues this one, carries durable_lsn
 *    >= L. Then it is CORRUPT and nothing is changed. Otherwise the crash took it, and what follows, away. But a crash
 *    does not make a file shorter than META knows it was: in such a log only zeros after the last frame prove that
 *    none is missing.
 * 2. Whole batches only. A log that META gives an end counts to there exactly; only the last one may go on behind it,
 *    and only while META is not clean. A switch frame names the log that must be there next.
 * 3. Recovery never appends behind bytes that nobody has vouched for, and never trusts pages that were read back but
 *    may not be on the disk: what counts above the attested LSN is written again to a fresh log, with the LSNs it had,
 *    and only then does META name that log, and the old one with the attested LSN as its end. Done twice, or
 *    interrupted and done again, it finds the same records.
 * 4. Where META could not name another log, everything above the snapshot is copied to the fresh log, which is then
 *    the only one. (A checkpoint would do as well, but the records are the business of a higher layer.)
 * 5. What a frame attests is the LSN right before it, for a sync covers all that was written. A frame that attests
 *    something older is no contradiction: more is copied than had to be. */
#include "persist/recover.h"

/* ---- Before there is a META ---- */

/* Whether log `number` has no frame; *out_whole: but a header. */
static iqdb_result iq_recover_is_blank(const iq_volume *volume, uint64_t number, bool *out_blank, bool *out_whole) {
    iq_scan scan;
    bool attests = false;
    iqdb_result result = iq_scan_open(&scan, volume, NULL, number);
    *out_whole = scan.state == IQ_LOG_IS_GOOD;
    if (result == IQDB_OK && *out_whole) result = iq_scan_attests(&scan, scan.header.sector_size, 0, &attests);
    /* Without its header nothing tells what is behind it, if there is anything. */
    *out_blank = !attests && (*out_whole || scan.size_bytes <= IQ_LOG_SECTOR_MAX);
    iq_scan_close(&scan);
    return result;
}

IQ_FN iqdb_result iq_recover_is_unborn(const iq_volume *volume, iq_meta_state state, bool *out_blank) {
    iq_numbers snapshots, logs;
    bool has_first = false;
    memset(&logs, 0, sizeof logs);
    iqdb_result result = iq_volume_list(volume, IQ_SNAPSHOT_PREFIX, &snapshots);
    if (result == IQDB_OK) result = iq_volume_list(volume, IQ_LOG_PREFIX, &logs);
    bool is_unborn = snapshots.count == 0;
    for (size_t i = 0; i < logs.count && result == IQDB_OK && is_unborn; i++) {
        bool is_whole;
        result = iq_recover_is_blank(volume, logs.items[i], &is_unborn, &is_whole);
        if (logs.items[i] == 1 && is_whole) has_first = true;
    }
    if (state == IQ_META_IS_DAMAGED && !has_first) is_unborn = false;
    if (result == IQDB_OK && !is_unborn)
        result = iq_report(volume->reporter, IQDB_ERR_CORRUPT, "META", 0,
                           state == IQ_META_IS_MISSING ? "the file is missing, but there are logs or snapshots"
                                                       : "neither of the two slots is valid");
    *out_blank = state == IQ_META_IS_MISSING && logs.count == 0;
    iq_blob_free(&snapshots.blob);
    iq_blob_free(&logs.blob);
    return result;
}

/* ---- Torn or rotten ---- */

/* Whether a log that continues this one attests LSN `lsn`. Logs that META names come later anyway. */
static iqdb_result iq_recover_successors_attest(const iq_recovery *recovery, const iq_scan *scan, uint64_t lsn,
                                                bool *out_attests) {
    const iq_volume silent = iq_volume_silent(recovery->volume);
    iq_numbers logs;
    *out_attests = false;
    iqdb_result result = iq_volume_list(recovery->volume, IQ_LOG_PREFIX, &logs);
    for (size_t i = 0; i < logs.count && result == IQDB_OK && !*out_attests; i++) {
        const uint64_t number = logs.items[i];
        iq_scan other;
        if (number <= scan->header.number) continue;
        result = iq_scan_open(&other, &silent, recovery->manifest->uuid, number);
        if (result == IQDB_ERR_VERSION) result = IQDB_OK;
        if (other.state != IQ_LOG_IS_GOOD) continue;
        if (other.header.before == scan->header.number && other.header.before_salt == scan->header.salt)
            result = iq_scan_attests(&other, other.header.sector_size, lsn, out_attests);
        iq_scan_close(&other);
    }
    iq_blob_free(&logs.blob);
    return result;
}

/* The frame behind `end` does not count. OK: it is torn. */
static iqdb_result iq_recover_judge(const iq_recovery *recovery, iq_scan *scan, const iq_log_entry *entry,
                                    bool is_exact, const iq_log_position *end) {
    const uint64_t lsn = end->lsn + 1;
    bool attests = is_exact || (entry->has_end && entry->end.lsn >= lsn) || recovery->manifest->applied_lsn >= lsn;
    bool is_blank = true;
    iqdb_result result = IQDB_OK;
    if (!attests) result = iq_scan_attests(scan, end->offset, lsn, &attests);
    if (result == IQDB_OK && !attests) result = iq_recover_successors_attest(recovery, scan, lsn, &attests);
    if (result == IQDB_OK && !attests && scan->size_bytes < entry->size_bytes)
        result = iq_scan_is_blank(scan, end->offset, &is_blank);
    if (result == IQDB_OK && !is_blank)
        return iq_scan_corrupt(scan, scan->size_bytes, lsn, "the log has been cut short");
    if (result != IQDB_OK || !attests) return result;
    return iq_scan_corrupt(scan, end->offset, lsn, "a frame that had been acknowledged is damaged");
}

/* ---- Loading ---- */

/* Behind the end of a clean log there may be an attest frame; but no other frame follows it, for META says that it is
 * clean no longer before one is written, and none further on attests more than that end: else META is older than the
 * log, a copy taken while somebody wrote, half a backup. (A poisoned handle that is verified may have written frames
 * behind what it knows to be synced: is_open is false there.) */
static iqdb_result iq_recover_is_behind(iq_scan *scan, const iq_log_position *end, bool is_open) {
    iq_log_position next = *end;
    iq_frame frame;
    bool attests = false, goes_on = is_open;
    iqdb_result result = IQDB_OK;
    while (result == IQDB_OK && goes_on && !attests) {
        result = iq_scan_frame(scan, &next, &frame);
        goes_on = frame.body != NULL;
        attests = goes_on && frame.type != IQ_FRAME_ATTEST;
        next = iq_scan_behind(&frame);
    }
    if (result == IQDB_OK && !attests) result = iq_scan_attests(scan, end->offset, end->lsn + 1, &attests);
    if (result != IQDB_OK || !attests) return result;
    return iq_scan_corrupt(scan, end->offset, end->lsn + 1, "the log goes on where META ends it");
}

/* Reads batches from the start of the log to its end, which goes to *end. *out_next: the span of a switch frame. */
static iqdb_result iq_recover_batches(iq_recovery *recovery, iq_scan *scan, uint32_t i, bool is_exact,
                                      iq_log_position *end, iq_span *out_next) {
    const iq_loader *loader = recovery->loader;
    const iq_log_entry *entry = &recovery->manifest->logs[i];
    const uint64_t limit = is_exact ? entry->end.lsn : UINT64_MAX;
    *end = recovery->from != NULL && i == recovery->first ? *recovery->from : iq_scan_start(scan);
    for (;;) {
        iq_span span;
        if (entry->has_end && end->lsn == entry->end.lsn) {
            if (end->offset != entry->end.offset || end->crc != entry->end.crc)
                return iq_scan_corrupt(scan, end->offset, end->lsn, "the log does not have the end that META gives it");
            recovery->attested = *end;
            recovery->attested_log = i;
        }
        if (end->lsn == limit || out_next->type != 0) return IQDB_OK;
        iqdb_result result = iq_scan_batch(scan, end, &span);
        if (result != IQDB_OK) return result;
        if (!span.is_whole) return iq_recover_judge(recovery, scan, entry, is_exact, &span.end);
        if (span.end.lsn > limit)
            return iq_scan_corrupt(scan, span.start.offset, limit, "the end that META gives the log is within a batch");
        if (span.durable_lsn == end->lsn) {
            recovery->attested = *end;
            recovery->attested_log = i;
        }
        if (span.type == IQ_FRAME_RECORD) {
            recovery->data_lsn = span.end.lsn;
            if (span.end.lsn > recovery->manifest->applied_lsn)
                result = iq_scan_records(scan, &span, loader->record_fn, loader->user);
        }
        if (result != IQDB_OK) return result;
        if (span.type == IQ_FRAME_SWITCH && !is_exact) *out_next = span;
        *end = span.end;
    }
}

static iqdb_result iq_recover_log(iq_recovery *recovery, uint32_t i) {
    iq_manifest *manifest = recovery->manifest;
    iq_log_entry *entry = &manifest->logs[i];
    const bool is_exact = entry->has_end && (manifest->clean || i + 1 < manifest->log_count);
    iq_scan scan;
    iq_log_position end;
    iq_span next;
    memset(&next, 0, sizeof next);
    iqdb_result result = iq_scan_require(&scan, recovery->volume, manifest->uuid, entry);
    if (result != IQDB_OK) return result;
    if (i == 0 && recovery->from == NULL) {
        recovery->attested = iq_scan_start(&scan);
        recovery->attested_log = 0;
    }
    result = iq_recover_batches(recovery, &scan, i, is_exact, &end, &next);
    if (result == IQDB_OK && is_exact && i + 1 == manifest->log_count)
        result = iq_recover_is_behind(&scan, &end, recovery->loader != NULL);
    if (result == IQDB_OK && next.type != 0) {
        if (manifest->log_count == IQ_META_LOG_MAX || next.next.number <= entry->number ||
            next.next.number > IQ_NUMBER_MAX)
            result = iq_scan_corrupt(&scan, next.start.offset, next.end.lsn,
                                     "a switch frame makes no sense, though its checksum holds");
        else
            manifest->logs[manifest->log_count++] = next.next;
    }
    recovery->log_bytes += scan.size_bytes;
    recovery->last_bytes = scan.size_bytes;
    recovery->last = scan.header;
    iq_scan_close(&scan);
    entry->end = end;
    entry->has_end = true;
    return result;
}

static iqdb_result iq_recover_snapshot(iq_recovery *recovery, uint32_t i) {
    const iq_manifest *manifest = recovery->manifest;
    const iq_loader *loader = recovery->loader;
    iq_snapshot_reader *reader;
    iqdb_result result;
    if (i == 0 && loader->mapped != NULL) {
        result = iq_snapshot_open_mapped(recovery->volume, manifest->uuid, &manifest->snapshots[i], loader->mapped);
        if (result == IQDB_OK) return loader->snapshot_fn(*loader->mapped, loader->user);
        if (result != IQDB_ERR_NOT_IMPLEMENTED) return result;
        iq_log(recovery->volume->reporter, IQDB_LEVEL_WARNING, NULL, 0, "the snapshot cannot be mapped, and is read");
    }
    result = iq_snapshot_open(recovery->volume, manifest->uuid, &manifest->snapshots[i], &reader);
    if (result == IQDB_OK) result = loader->snapshot_fn(reader, loader->user);
    if (result == IQDB_OK) result = iq_snapshot_check(reader);
    iq_snapshot_close(reader);
    return result;
}

IQ_FN iqdb_result iq_recover_load(iq_recovery *recovery) {
    iqdb_result result = IQDB_OK;
    for (uint32_t i = 0; i < recovery->manifest->snapshot_count && result == IQDB_OK && recovery->from == NULL; i++)
        result = iq_recover_snapshot(recovery, i);
    /* Switch frames make the list longer on the way. */
    for (uint32_t i = recovery->first; i < recovery->manifest->log_count && result == IQDB_OK; i++)
        result = iq_recover_log(recovery, i);
    return result;
}

/* ---- Recovering ---- */

/* Copies the frames of log i behind `from` and above `lsn`. */
static iqdb_result iq_recover_copy(const iq_recovery *recovery, uint32_t i, const iq_log_position *from, uint64_t lsn,
                                   iq_wal *wal) {
    const iq_log_entry *entry = &recovery->manifest->logs[i];
    iq_scan scan;
    iqdb_result result = iq_scan_require(&scan, recovery->volume, recovery->manifest->uuid, entry);
    if (result != IQDB_OK) return result;
    iq_log_position position = from != NULL ? *from : iq_scan_start(&scan);
    while (position.lsn < entry->end.lsn && result == IQDB_OK) {
        iq_frame frame;
        result = iq_scan_frame_again(&scan, &position, &frame);
        if (result != IQDB_OK) break;
        if (frame.lsn == lsn + 1 && frame.batch_lsn != frame.lsn)
            result =
                iq_scan_corrupt(&scan, position.offset, lsn, "the snapshot that META describes ends within a batch");
        if (frame.lsn > lsn && result == IQDB_OK) result = iq_wal_copy(wal, &frame);
        position = iq_scan_behind(&frame);
    }
    iq_scan_close(&scan);
    return result;
}

/* The logs of META that go on to be named, each with the end it has or had at the attested LSN. */
static void iq_recover_keep(const iq_recovery *recovery, iq_manifest *next) {
    const iq_manifest *found = recovery->manifest;
    next->log_count = 0;
    for (uint32_t i = 0; i <= recovery->attested_log; i++) {
        iq_log_entry entry = found->logs[i];
        if (i == recovery->attested_log) entry.end = recovery->attested;
        /* Nothing is in it, or nothing that the snapshot does not hold. */
        if (entry.end.lsn < entry.first_lsn || entry.end.lsn <= found->applied_lsn) continue;
        next->logs[next->log_count++] = entry;
    }
}

IQ_FN iqdb_result iq_recover_rewrite(const iq_recovery *recovery, uint64_t salt, iq_wal *wal, iq_manifest *out_next) {
    const iq_manifest *found = recovery->manifest;
    const iq_log_entry *last = &found->logs[found->log_count - 1];
    uint64_t from_lsn = recovery->attested.lsn;
    uint32_t first = recovery->attested_log;
    const iq_log_position *from = &recovery->attested;
    *out_next = *found;
    out_next->clean = false;
    iq_recover_keep(recovery, out_next);
    if (out_next->log_count == IQ_META_LOG_MAX) {
        out_next->log_count = 0;
        from_lsn = found->applied_lsn;
        first = 0;
        from = NULL;
    }
    iq_log_header header = {last->number + 1, salt, from_lsn + 1, last->number, last->salt, IQ_LOG_SECTOR_DEFAULT, 0};
    iqdb_result result = iq_wal_create(wal, recovery->volume, found->uuid, &header);
    if (result != IQDB_OK) return result;
    wal->data_lsn = recovery->data_lsn;
    for (uint32_t i = first; i < found->log_count && result == IQDB_OK; i++)
        result = iq_recover_copy(recovery, i, i == first ? from : NULL, from_lsn, wal);
    if (result == IQDB_OK) result = iq_wal_copy_end(wal);
    IQ_ASSERT(result != IQDB_OK || wal->written.lsn >= last->end.lsn);
    if (result != IQDB_OK) {
        iq_file_close(&wal->file);
        iq_volume_remove(recovery->volume, wal->file.name);
        return result;
    }
    wal->attested_lsn = wal->synced.lsn; /* META will say so */
    out_next->logs[out_next->log_count++] = iq_wal_entry(wal);
    return IQDB_OK;
}

/* Whether log `number` is of this database; *out_torn: it has no whole header, so nobody can tell. */
static bool iq_recover_is_ours(const iq_volume *volume, const uint8_t *uuid, uint64_t number, bool *out_torn) {
    iq_scan scan;
    const iqdb_result result = iq_scan_open(&scan, volume, uuid, number);
    iq_scan_close(&scan);
    *out_torn = result == IQDB_OK && scan.state == IQ_LOG_IS_TORN;
    return result == IQDB_OK && scan.state == IQ_LOG_IS_GOOD;
}

/* A file that META does not name may go where it is ours, or where nobody can tell and it is newer than all named. */
static void iq_recover_sweep_kind(const iq_volume *volume, const iq_manifest *manifest, bool is_log) {
    const iq_volume silent = iq_volume_silent(volume);
    const char *prefix = is_log ? IQ_LOG_PREFIX : IQ_SNAPSHOT_PREFIX;
    const uint32_t count = is_log ? manifest->log_count : manifest->snapshot_count;
    iq_numbers numbers;
    (void)iq_volume_list(&silent, prefix, &numbers);
    for (size_t i = 0; i < numbers.count; i++) {
        const uint64_t number = numbers.items[i];
        uint64_t named = 0;
        bool is_torn = false;
        for (uint32_t k = 0; k < count && named != number; k++)
            named = is_log ? manifest->logs[k].number : manifest->snapshots[k].number;
        if (named == number) continue; /* else it is the highest one */
        const bool is_ours = is_log ? iq_recover_is_ours(&silent, manifest->uuid, number, &is_torn)
                                    : iq_snapshot_is_ours(&silent, manifest->uuid, number, &is_torn);
        if (is_ours || (is_torn && number > named)) {
            char name[IQ_FILE_NAME_SIZE];
            iq_volume_name(name, prefix, number);
            iq_volume_remove(volume, name);
        }
    }
    iq_blob_free(&numbers.blob);
}

IQ_FN void iq_recover_sweep(const iq_volume *volume, const iq_manifest *manifest) {
    iq_recover_sweep_kind(volume, manifest, true);
    iq_recover_sweep_kind(volume, manifest, false);
}
