/* Salvage: what open refuses, read as far as it goes.
 *
 * 1. Nothing is written, and nothing is believed that has no valid checksum of its own. Damage in tables, footers,
 *    headers and META costs no row, for what they say is said twice, or follows from the rest.
 * 2. Logs are read twice: first for what had been acknowledged, that is the highest LSN that any valid frame, or META,
 *    attests; then for the batches. A hole that begins at an acknowledged LSN is a loss: it is reported, and reading
 *    goes on behind it. At a hole that begins above, the log ends, as it does for open: a crash took the rest.
 * 3. Where two logs have the same LSNs, the later one counts from its first LSN on: recovery has copied what counted,
 *    and writes have gone on from there.
 * 4. A batch is handed out as a whole, and only when each of its records can be read.
 * 5. Logs may still hold what a snapshot has taken over. Where that is damaged, or what it adds to is missing, they are
 *    replayed first, below it. */
#include "persist/repair.h"
#include "codec/record.h"

typedef enum iq_repair_pass {
    IQ_REPAIR_ATTEST, /* find out what had been acknowledged, and which logs there are; silent about all else */
    IQ_REPAIR_BELOW,  /* hand out what a snapshot should have; silent */
    IQ_REPAIR_ABOVE   /* hand out what comes after them, and report */
} iq_repair_pass;

typedef struct iq_repair {
    const iq_volume *volume;
    iq_volume silent;
    const iq_loader *loader; /* NULL: only check */
    iq_manifest manifest;
    uint64_t attested; /* everything up to here had been acknowledged */
    uint64_t next_lsn; /* of the batch that comes next */
    bool ended;        /* what follows was never acknowledged, and does not count */
    iq_repair_pass pass;
    uint64_t below_since, below; /* BELOW: what LSNs the snapshot should have */
} iq_repair;

static uint64_t iq_repair_max(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* ---- Logs ---- */

/* Writes [next_lsn, last] are gone; `offset` is where they should have been. */
static void iq_repair_lost(iq_repair *repair, const iq_scan *scan, uint64_t offset, uint64_t last) {
    iqdb_error error = iq_error_make(IQDB_ERR_CORRUPT, scan->file.name, offset,
                                     last <= repair->manifest.applied_lsn
                                         ? "frames are damaged whose writes the snapshot holds"
                                         : "frames that had been acknowledged are damaged: their writes are lost");
    error.lsn = repair->next_lsn;
    error.lsn_last = last;
    if (repair->pass == IQ_REPAIR_ABOVE) (void)iq_report_error(repair->volume->reporter, &error);
}

static iqdb_result iq_repair_try_record(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user) {
    const iq_repair *repair = (const iq_repair *)user;
    iq_logged_record record;
    (void)commit_lsn;
    const iqdb_result result = iq_record_decode(bytes, size, &record);
    if (result != IQDB_OK) return result;
    const uint32_t dim = repair->manifest.schema.dim;
    const bool fits = record.type != IQ_RECORD_UPSERT || dim == 0 || record.dim == dim;
    return record.collection != 0 || fits ? IQDB_OK : IQDB_ERR_CORRUPT;
}

/* A whole batch, of which nothing was handed out yet. */
static iqdb_result iq_repair_batch(iq_repair *repair, iq_scan *scan, const iq_span *span) {
    const uint64_t applied = repair->manifest.applied_lsn, lsn = span->end.lsn;
    const bool is_below = repair->pass == IQ_REPAIR_BELOW && lsn > repair->below_since && lsn <= repair->below;
    const bool wanted = is_below || (repair->pass == IQ_REPAIR_ABOVE && lsn > applied);
    if (span->type != IQ_FRAME_RECORD || !wanted || repair->loader == NULL) return IQDB_OK;
    iqdb_result result = iq_scan_records(scan, span, iq_repair_try_record, repair);
    if (result == IQDB_OK) result = iq_scan_records(scan, span, repair->loader->record_fn, repair->loader->user);
    return result == IQDB_ERR_CORRUPT || result == IQDB_ERR_IO ? IQDB_OK : result; /* reported */
}

/* The log that a switch frame of log i leads to, where the list ends with i and META is not clean: else each log has an
 * end. Where the list goes on, recovery may have replaced that log by the next one. */
static void iq_repair_follow(iq_repair *repair, const iq_scan *scan, uint32_t i, const iq_span *span) {
    iq_manifest *manifest = &repair->manifest;
    const iq_log_entry *next = &span->next;
    if (i + 1 < manifest->log_count || manifest->clean) return;
    if (manifest->log_count == IQ_META_LOG_MAX || next->number <= manifest->logs[i].number ||
        next->number > IQ_NUMBER_MAX) {
        (void)iq_report(repair->volume->reporter, IQDB_ERR_CORRUPT, scan->file.name, span->start.offset,
                        "a switch frame leads to no log that there could be");
        return;
    }
    manifest->logs[i + 1] = *next;
    manifest->log_count++;
}

/* The whole batch `span` of log i. False: the log ends here. */
static bool iq_repair_take(iq_repair *repair, iq_scan *scan, uint32_t i, const iq_span *span, uint64_t hole_at,
                           iqdb_result *result) {
    const iq_log_entry *entry = &repair->manifest.logs[i];
    const bool is_last = i + 1 == repair->manifest.log_count;
    const uint64_t first = span->start.lsn + 1, last = span->end.lsn;
    if (!is_last && last >= repair->manifest.logs[i + 1].first_lsn) return false; /* invariant 3 */
    if (repair->pass == IQ_REPAIR_ATTEST) {
        if (span->type == IQ_FRAME_SWITCH) iq_repair_follow(repair, scan, i, span);
        return true;
    }
    if (last < repair->next_lsn) return true;
    if (first > repair->next_lsn) {
        if (repair->next_lsn <= repair->attested)
            iq_repair_lost(repair, scan, hole_at, first - 1 < repair->attested ? first - 1 : repair->attested);
        if (first > repair->attested + 1) repair->ended = true;
    }
    /* META is clean, and still there is more than a frame that attests: it was copied while somebody wrote. */
    if (repair->manifest.clean && is_last && first > entry->end.lsn) {
        if (first > repair->attested) return false;
        if (span->type == IQ_FRAME_RECORD && repair->pass == IQ_REPAIR_ABOVE) {
            (void)iq_scan_corrupt(scan, span->start.offset, first, "the log goes on where META ends it");
            repair->manifest.clean = false;
        }
    }
    if (repair->ended) return false;
    *result = iq_repair_batch(repair, scan, span);
    repair->next_lsn = last + 1;
    return *result == IQDB_OK;
}

/* Moves *position to the next frame, at `offset` or behind it, that begins a batch. */
static iqdb_result iq_repair_resume(iq_repair *repair, iq_scan *scan, uint64_t offset, iq_log_position *position,
                                    bool *out_found) {
    const uint64_t step = IQ_LOG_SECTOR_MAX;
    *out_found = false;
    for (;;) {
        iq_frame frame;
        const iqdb_result result = iq_scan_find(scan, offset, position->lsn + 1, 0, &frame);
        if (result == IQDB_ERR_IO) { /* of what lies in the file: so this comes to its end */
            offset = (offset & ~(step - 1)) + step;
            continue;
        }
        if (result != IQDB_OK || frame.body == NULL) return result;
        if (repair->pass == IQ_REPAIR_ATTEST) repair->attested = iq_repair_max(repair->attested, frame.durable_lsn);
        offset = iq_scan_behind(&frame).offset;
        if (frame.batch_lsn != frame.lsn) continue;
        const iq_log_position found = {frame.lsn - 1, frame.offset, frame.before_crc};
        *position = found;
        *out_found = true;
        return IQDB_OK;
    }
}

/* What is missing behind the last batch, which ends at `end`. */
static void iq_repair_end(iq_repair *repair, iq_scan *scan, uint32_t i, uint64_t end) {
    const iq_log_entry *entry = &repair->manifest.logs[i];
    const bool is_last = i + 1 == repair->manifest.log_count;
    uint64_t last = entry->has_end ? entry->end.lsn : 0;
    bool is_blank = true;
    if (is_last) last = iq_repair_max(last, repair->attested);
    if (repair->next_lsn <= last) {
        iq_repair_lost(repair, scan, end, last);
        repair->next_lsn = last + 1;
    }
    if (!is_last || scan->size_bytes >= entry->size_bytes || scan->state != IQ_LOG_IS_GOOD) return;
    (void)iq_scan_is_blank(scan, end, &is_blank);
    if (!is_blank) (void)iq_scan_corrupt(scan, scan->size_bytes, repair->next_lsn, "the log has been cut short");
}

static iqdb_result iq_repair_batches(iq_repair *repair, iq_scan *scan, uint32_t i, uint64_t *out_end) {
    const iq_log_entry *entry = &repair->manifest.logs[i];
    const iq_volume *volume = scan->file.volume;
    iq_log_position position = iq_scan_start(scan);
    iqdb_result result = IQDB_OK;
    bool goes_on = true;
    *out_end = position.offset;
    while (goes_on) { /* which it does not after an error that ends all */
        iq_span span;
        if (entry->has_end && position.lsn == entry->end.lsn && scan->header.crc != 0 &&
            (position.offset != entry->end.offset || position.crc != entry->end.crc))
            (void)iq_scan_corrupt(scan, position.offset, position.lsn,
                                  "the log does not have the end that META gives it");
        scan->file.volume = &repair->silent; /* damage is told as what is lost by it */
        result = iq_scan_batch(scan, &position, &span);
        scan->file.volume = volume;
        if (result == IQDB_ERR_NOMEM) return result;
        if (repair->pass == IQ_REPAIR_ATTEST && span.end.lsn > span.start.lsn)
            repair->attested = iq_repair_max(repair->attested, span.durable_lsn);
        if (result == IQDB_OK && span.is_whole) {
            goes_on = iq_repair_take(repair, scan, i, &span, *out_end, &result);
            position = span.end;
            if (goes_on) *out_end = position.offset;
            continue;
        }
        /* A valid frame that makes no sense is passed over. */
        const uint64_t behind = span.end.offset + (result == IQDB_ERR_CORRUPT ? 8 : 0);
        result = iq_repair_resume(repair, scan, behind, &position, &goes_on);
    }
    return result;
}

/* Reads log i, as far as there is one. */
static iqdb_result iq_repair_log(iq_repair *repair, uint32_t i) {
    const iq_manifest *manifest = &repair->manifest;
    const iq_volume *volume = repair->pass == IQ_REPAIR_ABOVE ? repair->volume : &repair->silent;
    iq_scan scan;
    uint64_t end = 0;
    iqdb_result result = iq_scan_salvage(&scan, volume, manifest->uuid, &manifest->logs[i]);
    if (result == IQDB_OK && scan.state == IQ_LOG_IS_GOOD) result = iq_repair_batches(repair, &scan, i, &end);
    if (result == IQDB_OK && repair->pass == IQ_REPAIR_ABOVE) iq_repair_end(repair, &scan, i, end);
    iq_scan_close(&scan);
    return result;
}

static iqdb_result iq_repair_logs(iq_repair *repair, iq_repair_pass pass) {
    const iq_manifest *manifest = &repair->manifest;
    iqdb_result result = IQDB_OK;
    repair->pass = pass;
    repair->ended = false;
    repair->next_lsn = manifest->applied_lsn + 1;
    if (manifest->log_count > 0 && manifest->logs[0].first_lsn < repair->next_lsn)
        repair->next_lsn = manifest->logs[0].first_lsn;
    for (uint32_t i = 0; i < manifest->log_count && result == IQDB_OK && !repair->ended; i++)
        result = iq_repair_log(repair, i);
    return result;
}

/* ---- Snapshots ---- */

/* Hands out snapshot i, behind what logs have of it where it is damaged. */
static iqdb_result iq_repair_snapshot(iq_repair *repair, uint32_t i, bool is_named) {
    iq_manifest *manifest = &repair->manifest;
    const iq_loader *loader = repair->loader;
    const iq_snapshot_entry *named = &manifest->snapshots[i];
    const bool is_last = i + 1 == manifest->snapshot_count;
    iq_snapshot_reader *reader;
    iq_snapshot_entry found;
    iqdb_result result =
        iq_snapshot_salvage(repair->volume, manifest->uuid, named->number, is_named ? named : NULL, &found, &reader);
    if (result == IQDB_ERR_NOMEM || result == IQDB_ERR_VERSION) return result;
    if (reader != NULL && is_last && found.lsn != IQ_NUMBER_MAX) manifest->applied_lsn = found.lsn;
    repair->below_since = i == 0 ? 0 : named[-1].lsn;
    repair->below = is_last ? manifest->applied_lsn : named->lsn;
    result = IQDB_OK;
    const bool is_base = i > 0 || named->since == 0; /* or adds to the one before; else that is missing */
    if (reader == NULL || !iq_snapshot_is_whole(reader) || !is_base) result = iq_repair_logs(repair, IQ_REPAIR_BELOW);
    if (result == IQDB_OK && reader != NULL) result = loader->snapshot_fn(reader, loader->user);
    iq_snapshot_close(reader);
    return result;
}

/* ---- Without META ---- */

/* The highest number below *number, which it becomes; false where there is none. */
static bool iq_repair_next_number(const iq_numbers *numbers, uint64_t *number) {
    uint64_t highest = 0;
    for (size_t i = 0; i < numbers->count; i++) {
        const uint64_t one = numbers->items[i];
        if (one < *number) highest = iq_repair_max(highest, one);
    }
    *number = highest;
    return highest > 0;
}

/* Makes a manifest of what the files say: the identity is that of the last file which tells one. NOMEM: a file that could
 * not be looked at is not passed over. */
static iqdb_result iq_repair_guess_logs(iq_repair *repair, const iq_numbers *logs, bool *has_uuid) {
    iq_manifest *manifest = &repair->manifest;
    uint64_t number = UINT64_MAX;
    while (manifest->log_count < IQ_META_LOG_MAX && iq_repair_next_number(logs, &number)) {
        iq_scan scan;
        const iqdb_result result = iq_scan_open(&scan, repair->volume, NULL, number);
        iq_scan_close(&scan);
        if (result == IQDB_ERR_NOMEM) return result;
        if (scan.state != IQ_LOG_IS_GOOD) continue;
        if (!*has_uuid) memcpy(manifest->uuid, scan.uuid, IQ_UUID_SIZE);
        *has_uuid = true;
        if (memcmp(manifest->uuid, scan.uuid, IQ_UUID_SIZE) != 0) continue;
        /* A later log begins before this one does: it has taken over all of it. */
        if (manifest->log_count > 0 && manifest->logs[0].first_lsn <= scan.header.first_lsn) continue;
        const iq_log_header *header = &scan.header;
        const iq_log_entry entry = {header->number, header->salt, header->first_lsn, 0, false, {0, 0, 0}};
        memmove(manifest->logs + 1, manifest->logs, manifest->log_count++ * sizeof entry);
        manifest->logs[0] = entry;
    }
    return IQDB_OK;
}

/* The last snapshot that is complete, else the last one; and those that it adds to. */
static iqdb_result iq_repair_guess_snapshots(iq_repair *repair, const iq_numbers *snapshots, bool *has_uuid) {
    iq_manifest *manifest = &repair->manifest;
    iq_snapshot_entry *first = manifest->snapshots, found;
    uint64_t number = UINT64_MAX;
    bool is_chosen = false;
    while (manifest->snapshot_count < IQ_META_SNAPSHOT_MAX && iq_repair_next_number(snapshots, &number)) {
        bool is_whole;
        const iqdb_result result =
            iq_snapshot_identify(&repair->silent, number, manifest->uuid, has_uuid, &found, &is_whole);
        if (result != IQDB_OK) return result;
        const bool is_next = !is_chosen || first->since == IQ_NUMBER_MAX || first->since == found.lsn;
        if (!(is_whole ? is_next : manifest->snapshot_count == 0)) continue;
        if (!is_chosen) manifest->snapshot_count = 0;
        memmove(first + 1, first, manifest->snapshot_count++ * sizeof found);
        *first = found;
        is_chosen = is_whole;
        if (is_whole && found.since == 0) return IQDB_OK;
    }
    if (is_chosen && first->since != IQ_NUMBER_MAX)
        (void)iq_report(repair->volume->reporter, IQDB_ERR_CORRUPT, "META", 0,
                        "a snapshot is missing that others add to: its records are lost, but for what logs have of it");
    return IQDB_OK;
}

static iqdb_result iq_repair_guess(iq_repair *repair) {
    iq_manifest *manifest = &repair->manifest;
    iq_numbers logs, snapshots;
    bool has_uuid = false;
    memset(manifest, 0, sizeof *manifest);
    memset(&snapshots, 0, sizeof snapshots);
    iqdb_result result = iq_volume_list(repair->volume, IQ_LOG_PREFIX, &logs);
    if (result == IQDB_OK) result = iq_volume_list(repair->volume, IQ_SNAPSHOT_PREFIX, &snapshots);
    if (result == IQDB_OK) result = iq_repair_guess_logs(repair, &logs, &has_uuid);
    if (result == IQDB_OK) result = iq_repair_guess_snapshots(repair, &snapshots, &has_uuid);
    if (manifest->snapshot_count > 0) manifest->applied_lsn = manifest->snapshots[manifest->snapshot_count - 1].lsn;
    /* Where only logs can tell how far it goes, they begin behind it. */
    if (manifest->applied_lsn == IQ_NUMBER_MAX)
        manifest->applied_lsn = manifest->log_count > 0 ? manifest->logs[0].first_lsn - 1 : 0;
    if (result == IQDB_OK && logs.count + snapshots.count == 0)
        result = iq_report(repair->volume->reporter, IQDB_ERR_NOT_FOUND, NULL, 0, "the directory holds no database");
    iq_blob_free(&logs.blob);
    iq_blob_free(&snapshots.blob);
    return result;
}

/* ---- All of it ---- */

static iqdb_result iq_repair_run(iq_repair *repair, bool is_named) {
    const iq_manifest *manifest = &repair->manifest;
    const uint32_t count = repair->loader != NULL ? manifest->snapshot_count : 0;
    repair->attested = manifest->applied_lsn;
    for (uint32_t i = 0; i < manifest->log_count; i++)
        if (manifest->logs[i].has_end) repair->attested = iq_repair_max(repair->attested, manifest->logs[i].end.lsn);
    iqdb_result result = iq_repair_logs(repair, IQ_REPAIR_ATTEST);
    for (uint32_t i = 0; i < count && result == IQDB_OK; i++) result = iq_repair_snapshot(repair, i, is_named);
    return result == IQDB_OK ? iq_repair_logs(repair, IQ_REPAIR_ABOVE) : result;
}

static void iq_repair_init(iq_repair *repair, const iq_volume *volume, const iq_loader *loader) {
    memset(repair, 0, sizeof *repair);
    repair->volume = volume;
    repair->silent = iq_volume_silent(volume);
    repair->loader = loader;
}

IQ_FN iqdb_result iq_repair_check(const iq_volume *volume, const iq_manifest *manifest, const iq_log_position *end,
                                  bool blocks) {
    iqdb_result result = IQDB_OK;
    iq_repair repair;
    iq_repair_init(&repair, volume, NULL);
    repair.manifest = *manifest;
    iq_log_entry *last = &repair.manifest.logs[manifest->log_count - 1];
    if (end != NULL) {
        last->end = *end;
        repair.manifest.clean = last->has_end = true; /* every log ends where we know that it ends */
    }
    for (uint32_t i = 0; i < manifest->snapshot_count && result != IQDB_ERR_NOMEM; i++) {
        const iq_snapshot_entry *entry = &manifest->snapshots[i];
        iq_snapshot_entry seen;
        iq_snapshot_reader *reader;
        result = blocks ? iq_snapshot_salvage(volume, manifest->uuid, entry->number, entry, &seen, &reader)
                        : iq_snapshot_open(volume, manifest->uuid, entry, &reader);
        iq_snapshot_close(reader);
    }
    return result == IQDB_ERR_NOMEM ? result : iq_repair_run(&repair, true);
}

IQ_FN iqdb_result iq_repair_read(const iq_volume *volume, iq_meta *meta, const iq_loader *loader, uint64_t *out_lsn) {
    iq_meta_state state;
    iq_repair repair;
    iq_repair_init(&repair, volume, loader);
    iqdb_result result = iq_meta_load(meta, volume, false, &state, &repair.manifest);
    const bool is_named = result == IQDB_OK && state == IQ_META_IS_GOOD;
    if (result == IQDB_ERR_VERSION || result == IQDB_ERR_NOMEM) return result;
    result = is_named ? loader->schema_fn(&repair.manifest, loader->user) : iq_repair_guess(&repair);
    if (result == IQDB_OK) (void)iq_meta_verify(volume, meta->check);
    if (result == IQDB_OK) result = iq_repair_run(&repair, is_named);
    *out_lsn = iq_repair_max(repair.next_lsn - 1, iq_repair_max(repair.attested, repair.manifest.applied_lsn));
    return result;
}
