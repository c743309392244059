/* The directory: open, commit, flush, checkpoint, close.
 *
 * 1. META's clean mark means: nothing lies behind the end of the last log. The first write withdraws it, in both slots,
 *    before it touches the log; only close sets it again. A handle that never wrote leaves the disk as it was.
 * 2. A log or snapshot is durable, its name too, before META or a switch frame names it, and is removed only after
 *    META, in both slots, has stopped naming it.
 * 3. `manifest` is what META says, except that logs that switch frames lead to stand in it already, and that the end of
 *    the last log is known to `wal` only.
 * 4. NOSPACE leaves everything usable. What else goes wrong while META is changed, or in a sync, poisons: reads of
 *    facts go on, nothing is written any more, and the next open recovers.
 * 5. Read-only opens write nothing at all. An open that has no space to recover becomes one, and says so. */
#include "persist/directory.h"

#define IQ_LOCK_NAME "LOCK"

struct iq_directory {
    iq_volume volume;
    iqdb_entropy entropy;
    iq_file lock;
    iq_meta meta;
    iq_manifest manifest;
    iq_wal wal;
    uint64_t data_lsn;      /* of a read-only handle; else wal has it */
    uint64_t old_log_bytes; /* of logs in front of the last one; of all, of a read-only handle */
    bool read_only, poisoned, recovered;
};

/* Invariant 4. */
static iqdb_result iq_directory_poison(iq_directory *directory, iqdb_result result) {
    if (result == IQDB_OK || result == IQDB_ERR_NOSPACE) return result;
    directory->poisoned = true;
    return IQDB_ERR_IO;
}

static bool iq_directory_is_poisoned(const iq_directory *directory) {
    return directory->poisoned || directory->wal.poisoned;
}

IQ_FN iqdb_result iq_directory_check(const iq_directory *directory) {
    if (directory->read_only) return IQDB_ERR_READONLY;
    return iq_directory_is_poisoned(directory) ? IQDB_ERR_POISONED : IQDB_OK;
}

static iqdb_result iq_directory_random(const iq_directory *directory, void *bytes, size_t size) {
    if (directory->entropy.fill_fn(bytes, size, directory->entropy.user)) return IQDB_OK;
    return iq_report(directory->volume.reporter, IQDB_ERR_IO, NULL, 0, "no random numbers can be had; options.entropy may bring some");
}

/* Writes META; `next` is what holds afterwards, in memory too. */
static iqdb_result iq_directory_save(iq_directory *directory, const iq_manifest *next) {
    const iqdb_result result = iq_meta_save(&directory->meta, next);
    if (result == IQDB_OK) directory->manifest = *next;
    return iq_directory_poison(directory, result);
}

/* META has to know how long the log is, or nobody would notice that it was cut short. */
static iqdb_result iq_directory_note_growth(iq_directory *directory) {
    iq_manifest next = directory->manifest;
    iq_log_entry *last = &next.logs[next.log_count - 1];
    if (last->size_bytes >= directory->wal.durable_size) return IQDB_OK;
    *last = iq_wal_entry(&directory->wal);
    const iqdb_result result = iq_directory_save(directory, &next);
    return result == IQDB_ERR_NOSPACE ? IQDB_OK : result; /* another time */
}

/* Invariant 1. */
static iqdb_result iq_directory_touch(iq_directory *directory) {
    if (!directory->manifest.clean) return IQDB_OK;
    iq_manifest next = directory->manifest;
    next.clean = false;
    return iq_directory_save(directory, &next);
}

/* ---- Snapshot files ---- */

typedef struct iq_directory_sink {
    iq_file file;
    uint64_t offset;
} iq_directory_sink;

static iqdb_result iq_directory_sink_write(const void *bytes, size_t size, void *user) {
    iq_directory_sink *sink = (iq_directory_sink *)user;
    const iqdb_result result = iq_file_write(&sink->file, sink->offset, bytes, size);
    sink->offset += size;
    return result;
}

/* Writes the snapshot file, durable with its name; nothing is left of it after a failure. */
static iqdb_result iq_directory_write_snapshot(iq_directory *directory, iq_snapshot_entry *entry,
                                               iq_snapshot_fn write_fn, void *user) {
    const iq_volume *volume = &directory->volume;
    iq_directory_sink target;
    const iq_sink sink = {iq_directory_sink_write, &target};
    target.offset = 0;
    iqdb_result result = iq_volume_create(&target.file, volume, IQ_SNAPSHOT_PREFIX, &entry->number);
    if (result != IQDB_OK) return result;
    result =
        iq_snapshot_produce(&sink, &volume->allocator, volume->crc32, directory->manifest.uuid, entry, write_fn, user);
    if (result == IQDB_OK) {
        result = iq_directory_poison(directory, iq_file_sync(&target.file));
        if (result == IQDB_OK) result = iq_directory_poison(directory, iq_volume_sync(volume));
    }
    iq_file_close(&target.file);
    if (result != IQDB_OK) iq_volume_remove(volume, target.file.name);
    return result;
}

/* ---- Opening ---- */

/* The file systems's word for a regular file of this name. */
static bool iq_directory_has(const iq_volume *volume, const char *name) {
    const iq_volume silent = iq_volume_silent(volume);
    iq_file file;
    const bool found = iq_file_open(&file, &silent, name, IQDB_OPEN_READ) == IQDB_OK;
    iq_file_close(&file);
    return found;
}

/* Takes the lock, and what writing needs. */
static iqdb_result iq_directory_lock(iq_directory *directory) {
    const iq_volume *volume = &directory->volume;
    iqdb_result result =
        iq_file_open(&directory->lock, volume, IQ_LOCK_NAME, directory->read_only ? IQDB_OPEN_READ : IQDB_OPEN_WRITE);
    if (result == IQDB_ERR_NOT_FOUND && directory->read_only) return IQDB_OK; /* a copy on a read-only medium */
    if (result == IQDB_ERR_NOT_FOUND) result = iq_file_open(&directory->lock, volume, IQ_LOCK_NAME, IQDB_OPEN_CREATE);
    if (result == IQDB_ERR_INVALID_CONFIG) /* somebody was faster */
        result = iq_file_open(&directory->lock, volume, IQ_LOCK_NAME, IQDB_OPEN_WRITE);
    if (result == IQDB_OK) result = iq_file_lock(&directory->lock, !directory->read_only);
    if (result == IQDB_OK && !directory->read_only && iq_wal_init(&directory->wal, &volume->allocator) != IQDB_OK)
        result = iq_report(volume->reporter, IQDB_ERR_NOMEM, NULL, 0, "no memory to write a log");
    return result;
}

static bool iq_directory_remove_all(const iq_volume *volume, const char *prefix) {
    char name[IQ_FILE_NAME_SIZE];
    iq_numbers numbers;
    bool done = iq_volume_list(volume, prefix, &numbers) == IQDB_OK;
    for (size_t i = 0; i < iq_numbers_count(&numbers); i++) {
        iq_volume_name(name, prefix, iq_numbers_at(&numbers, i));
        if (!iq_volume_remove(volume, name)) done = false;
    }
    iq_blob_free(&numbers.blob);
    return done;
}

/* META goes first, then the logs: at each moment an interrupted create is one again. Snapshots are there only where a
 * copy could not be finished. */
static iqdb_result iq_directory_clear(const iq_volume *volume) {
    bool done = iq_volume_remove(volume, "META");
    const iqdb_result result = iq_volume_sync(volume);
    if (result != IQDB_OK) return result;
    if (!iq_directory_remove_all(volume, IQ_LOG_PREFIX)) done = false;
    if (!iq_directory_remove_all(volume, IQ_SNAPSHOT_PREFIX)) done = false;
    if (done) return IQDB_OK;
    return iq_report(volume->reporter, IQDB_ERR_IO, NULL, 0, "what an unfinished create has left cannot be removed");
}

/* A new database, empty or with `content`. The snapshot comes first: what is left of a copy is never taken for an
 * interrupted create, which would be made anew, and empty. */
static iqdb_result iq_directory_create(iq_directory *directory, const iq_schema *schema,
                                       const iq_directory_content *content) {
    const iq_volume *volume = &directory->volume;
    iq_manifest *manifest = &directory->manifest;
    iq_log_header header = {1, 0, 1, 0, 0, IQ_LOG_SECTOR_DEFAULT, 0};
    memset(manifest, 0, sizeof *manifest);
    iqdb_result result = iq_directory_random(directory, manifest->uuid, sizeof manifest->uuid);
    if (result == IQDB_OK) result = iq_directory_random(directory, &header.salt, sizeof header.salt);
    if (result == IQDB_OK && content != NULL) {
        iq_snapshot_entry *entry = &manifest->snapshots[0];
        if (content->uuid != NULL) memcpy(manifest->uuid, content->uuid, sizeof manifest->uuid);
        manifest->snapshot_count = 1;
        entry->number = 1;
        manifest->applied_lsn = entry->lsn = content->lsn;
        manifest->clean = true;
        header.first_lsn = content->lsn + 1;
        result = iq_directory_write_snapshot(directory, entry, content->write_fn, content->user);
    }
    if (result == IQDB_OK) result = iq_wal_create(&directory->wal, volume, manifest->uuid, &header);
    if (result == IQDB_OK) result = iq_meta_create(&directory->meta, volume);
    if (result != IQDB_OK) return result;
    manifest->schema = *schema;
    manifest->log_count = 1;
    manifest->logs[0] = iq_wal_entry(&directory->wal);
    result = iq_meta_save(&directory->meta, manifest);
    return result == IQDB_OK ? iq_volume_sync(volume) : result;
}

/* Everything is loaded, and not clean: invariant 3 of recover.c. */
static iqdb_result iq_directory_recover(iq_directory *directory, const iq_recovery *recovery) {
    iq_manifest next;
    uint64_t salt;
    iqdb_result result = iq_directory_random(directory, &salt, sizeof salt);
    if (result == IQDB_OK) result = iq_recover_rewrite(recovery, salt, &directory->wal, &next);
    if (result == IQDB_OK) result = iq_directory_save(directory, &next);
    if (result == IQDB_ERR_NOSPACE) {
        iq_log(directory->volume.reporter, IQDB_LEVEL_WARNING, NULL, 0,
               "there is no space to recover: the database is open for reading only");
        directory->read_only = true;
        return IQDB_OK;
    }
    if (result != IQDB_OK) return result;
    directory->recovered = true;
    directory->old_log_bytes = 0;
    for (uint32_t i = 0; i + 1 < next.log_count; i++) directory->old_log_bytes += next.logs[i].end.offset;
    return IQDB_OK;
}

static iqdb_result iq_directory_load(iq_directory *directory, const iq_loader *loader) {
    iq_manifest *manifest = &directory->manifest;
    iq_recovery recovery;
    memset(&recovery, 0, sizeof recovery);
    recovery.volume = &directory->volume;
    recovery.loader = loader;
    recovery.manifest = manifest;
    iqdb_result result = loader->schema_fn(&manifest->schema, loader->user);
    if (result == IQDB_OK) result = iq_recover_load(&recovery);
    if (result != IQDB_OK) return result;
    directory->data_lsn = recovery.data_lsn;
    directory->old_log_bytes = recovery.log_bytes;
    if (directory->read_only) return IQDB_OK;
    if (manifest->clean) {
        result = iq_wal_resume(&directory->wal, &directory->volume, &recovery.last,
                               &manifest->logs[manifest->log_count - 1]);
        directory->wal.data_lsn = recovery.data_lsn;
        directory->old_log_bytes -= recovery.last_bytes;
    } else {
        result = iq_directory_recover(directory, &recovery);
    }
    /* In a slot that still says something else, files may be named that would be orphans here. */
    if (result == IQDB_OK && !directory->read_only && directory->meta.settled)
        iq_recover_sweep(&directory->volume, &directory->manifest);
    return result;
}

/* Reads META. Where there is none, *out_blank: no log of an interrupted create is there either. */
static iqdb_result iq_directory_look(iq_directory *directory, bool *out_found, bool *out_blank) {
    const iq_volume *volume = &directory->volume;
    iq_meta_state state;
    *out_found = *out_blank = false;
    iqdb_result result = iq_meta_load(&directory->meta, volume, !directory->read_only, &state, &directory->manifest);
    if (result != IQDB_OK) return result;
    *out_found = state == IQ_META_IS_GOOD;
    if (*out_found) return IQDB_OK;
    result = iq_recover_is_unborn(volume, state, out_blank);
    if (result != IQDB_OK) return result;
    iq_file_close(&directory->meta.file);
    if (!directory->read_only) return IQDB_OK;
    return iq_report(volume->reporter, IQDB_ERR_NOT_FOUND, NULL, 0, "the directory holds no database");
}

static iqdb_result iq_directory_start(iq_directory *directory, const iq_directory_config *config,
                                      const iq_loader *loader) {
    const iq_volume *volume = &directory->volume;
    bool is_found, is_blank;
    if (!iq_directory_has(volume, "META") && (iq_directory_has(volume, "snap") || iq_directory_has(volume, "wal")))
        return iq_report(volume->reporter, IQDB_ERR_INVALID_CONFIG, NULL, 0,
                         "the directory holds a database of the original iqdb: bring it over with the import tool");
    iqdb_result result = iq_directory_lock(directory);
    if (result == IQDB_OK) result = iq_directory_look(directory, &is_found, &is_blank);
    if (result != IQDB_OK) return result;
    if (is_found) return iq_directory_load(directory, loader);
    if (!is_blank) result = iq_directory_clear(volume);
    return result == IQDB_OK ? iq_directory_create(directory, &config->schema, NULL) : result;
}

/* A directory object over the path, with nothing read yet. */
static iqdb_result iq_directory_new(const char *path, const iq_directory_config *config, bool read_only,
                                    iq_directory **out_directory) {
    iq_directory *directory = (iq_directory *)iq_alloc_zeroed(&config->allocator, sizeof *directory, 16);
    *out_directory = directory;
    if (directory == NULL) return iq_report(config->reporter, IQDB_ERR_NOMEM, NULL, 0, "no memory for a directory");
    directory->volume.allocator = config->allocator;
    directory->volume.files = config->files;
    directory->volume.reporter = config->reporter;
    directory->volume.crc32 = config->crc32;
    directory->entropy = config->entropy;
    directory->read_only = read_only;
    return iq_volume_open(&directory->volume, path, !read_only);
}

IQ_FN iqdb_result iq_directory_open(const char *path, const iq_directory_config *config, const iq_loader *loader,
                                    iq_directory **out_directory) {
    iqdb_result result = iq_directory_new(path, config, config->read_only, out_directory);
    if (result == IQDB_OK) result = iq_directory_start(*out_directory, config, loader);
    if (result == IQDB_OK) return result;
    iq_directory_abandon(*out_directory);
    *out_directory = NULL;
    return result;
}

/* Nothing of a database may be there, not even what is left of one. */
static iqdb_result iq_directory_require_empty(const iq_volume *volume) {
    const char *const prefixes[] = {IQ_LOG_PREFIX, IQ_SNAPSHOT_PREFIX};
    bool is_empty = !iq_directory_has(volume, "META");
    iqdb_result result = IQDB_OK;
    for (size_t i = 0; i < IQ_COUNT_OF(prefixes) && result == IQDB_OK; i++) {
        iq_numbers numbers;
        result = iq_volume_list(volume, prefixes[i], &numbers);
        if (iq_numbers_count(&numbers) > 0) is_empty = false;
        iq_blob_free(&numbers.blob);
    }
    if (result != IQDB_OK || is_empty) return result;
    return iq_report(volume->reporter, IQDB_ERR_INVALID_CONFIG, NULL, 0,
                     "the directory holds a database already, or what is left of one: name another directory");
}

IQ_FN iqdb_result iq_directory_make(const char *path, const iq_directory_config *config,
                                    const iq_directory_content *content) {
    iq_directory *directory;
    iqdb_result result = iq_directory_new(path, config, false, &directory);
    if (result == IQDB_OK) result = iq_directory_lock(directory);
    if (result == IQDB_OK) result = iq_directory_require_empty(&directory->volume);
    if (result == IQDB_OK) {
        result = iq_directory_create(directory, &config->schema, content);
        if (result != IQDB_OK) (void)iq_directory_clear(&directory->volume);
    }
    iq_directory_abandon(directory);
    return result;
}

IQ_FN iqdb_result iq_directory_inspect(const char *path, const iq_directory_config *config, const iq_loader *loader,
                                       iqdb_stats *stats) {
    iq_directory *directory;
    bool is_found, is_blank;
    iqdb_result result = iq_directory_new(path, config, true, &directory);
    if (result == IQDB_OK) result = iq_directory_look(directory, &is_found, &is_blank);
    if (result == IQDB_OK) result = loader->schema_fn(&directory->manifest.schema, loader->user);
    for (uint32_t i = 0; result == IQDB_OK && i < directory->manifest.snapshot_count; i++) {
        iq_snapshot_reader *reader;
        const iq_manifest *manifest = &directory->manifest;
        result = iq_snapshot_open(&directory->volume, manifest->uuid, &manifest->snapshots[i], &reader);
        if (result == IQDB_OK) result = loader->snapshot_fn(reader, loader->user);
        iq_snapshot_close(reader);
    }
    for (uint32_t i = 0; result == IQDB_OK && i < directory->manifest.log_count; i++) {
        const iq_log_entry *log = &directory->manifest.logs[i];
        directory->old_log_bytes += log->size_bytes;
        if (log->has_end) directory->data_lsn = log->end.lsn;
    }
    if (result == IQDB_OK) {
        iq_directory_describe(directory, stats);
        stats->recovered = !directory->manifest.clean;
    }
    iq_directory_abandon(directory);
    return result;
}

/* ---- Closing ---- */

IQ_FN void iq_directory_abandon(iq_directory *directory) {
    if (directory == NULL) return;
    const iqdb_allocator allocator = directory->volume.allocator;
    iq_wal_free(&directory->wal);
    iq_file_close(&directory->meta.file);
    iq_file_close(&directory->lock);
    iq_volume_close(&directory->volume);
    iq_free(&allocator, directory, sizeof *directory, 16);
}

IQ_FN iqdb_result iq_directory_close(iq_directory *directory) {
    iqdb_result result = IQDB_OK;
    if (iq_directory_is_poisoned(directory)) {
        result = IQDB_ERR_POISONED;
    } else if (!directory->read_only && !directory->manifest.clean) {
        iq_wal_begin(&directory->wal);
        result = iq_wal_flush(&directory->wal);
        iq_manifest next = directory->manifest;
        next.clean = true;
        next.logs[next.log_count - 1] = iq_wal_entry(&directory->wal);
        if (result == IQDB_OK) {
            result = iq_directory_save(directory, &next);
            /* META could not say what is durable; a frame may. */
            if (result != IQDB_OK) (void)iq_wal_attest(&directory->wal);
        }
    }
    iq_directory_abandon(directory);
    return result;
}

/* ---- Writing ---- */

IQ_FN iqdb_result iq_directory_batch_begin(iq_directory *directory) {
    const iqdb_result result = iq_directory_check(directory);
    if (result == IQDB_OK) iq_wal_begin(&directory->wal);
    return result;
}

IQ_FN iqdb_result iq_directory_batch_add(iq_directory *directory, const iq_slice *pieces, size_t count) {
    return iq_wal_add(&directory->wal, pieces, count);
}

IQ_FN iqdb_result iq_directory_batch_commit(iq_directory *directory, bool sync, uint64_t *out_commit_lsn) {
    iqdb_result result = iq_directory_check(directory);
    if (result == IQDB_OK) result = iq_directory_touch(directory);
    if (result == IQDB_OK) result = iq_wal_commit(&directory->wal, sync);
    if (result == IQDB_OK && sync) result = iq_directory_note_growth(directory);
    iq_wal_begin(&directory->wal); /* a batch that was refused is forgotten */
    *out_commit_lsn = directory->wal.data_lsn;
    return result;
}

IQ_FN void iq_directory_set_schema(iq_directory *directory, const iq_schema *schema) {
    directory->manifest.schema = *schema;
}

IQ_FN iqdb_result iq_directory_flush(iq_directory *directory) {
    if (directory->read_only) return IQDB_OK;
    iqdb_result result = iq_directory_check(directory);
    iq_wal_begin(&directory->wal);
    if (result == IQDB_OK) result = iq_wal_flush(&directory->wal);
    if (result == IQDB_OK) result = iq_directory_note_growth(directory);
    return result == IQDB_OK ? iq_wal_attest(&directory->wal) : result;
}

/* ---- Checkpoint ---- */

/* Ends the current log, so that a snapshot of all that is in it lets it go. Where there is nothing in it, or no room in
 * META for one log more, it stays, and the snapshot ends within it. */
static iqdb_result iq_directory_next_log(iq_directory *directory) {
    iq_manifest *manifest = &directory->manifest;
    iq_wal *wal = &directory->wal;
    iq_log_entry ended;
    uint64_t salt;
    if (wal->data_lsn < wal->header.first_lsn || manifest->log_count == IQ_META_LOG_MAX) return iq_wal_flush(wal);
    const uint64_t log_bytes = wal->allocated;
    iqdb_result result = iq_directory_random(directory, &salt, sizeof salt);
    if (result == IQDB_OK) result = iq_wal_switch(wal, manifest->uuid, salt, &ended);
    if (result != IQDB_OK) return result;
    directory->old_log_bytes += log_bytes;
    manifest->logs[manifest->log_count - 1] = ended;
    manifest->logs[manifest->log_count++] = iq_wal_entry(wal);
    return IQDB_OK;
}

/* META names one snapshot and one log; what it named before goes. */
static iqdb_result iq_directory_adopt(iq_directory *directory, const iq_snapshot_entry *entry) {
    const iq_manifest before = directory->manifest;
    iq_manifest next = before;
    char name[IQ_FILE_NAME_SIZE];
    next.snapshots[0] = *entry;
    next.snapshot_count = 1;
    next.applied_lsn = entry->lsn;
    next.logs[0] = iq_wal_entry(&directory->wal);
    next.log_count = 1;
    const iqdb_result result = iq_directory_save(directory, &next);
    if (result != IQDB_OK) return result;
    directory->old_log_bytes = 0;
    if (directory->wal.attested_lsn < entry->lsn) directory->wal.attested_lsn = entry->lsn;
    for (uint32_t i = 0; i + 1 < before.log_count; i++) {
        iq_volume_name(name, IQ_LOG_PREFIX, before.logs[i].number);
        iq_volume_remove(&directory->volume, name);
    }
    for (uint32_t i = 0; i < before.snapshot_count; i++) {
        iq_volume_name(name, IQ_SNAPSHOT_PREFIX, before.snapshots[i].number);
        iq_volume_remove(&directory->volume, name);
    }
    return IQDB_OK;
}

IQ_FN iqdb_result iq_directory_checkpoint(iq_directory *directory, iq_snapshot_fn write_fn, void *user) {
    const iq_manifest *manifest = &directory->manifest;
    iq_snapshot_entry entry;
    iqdb_result result = iq_directory_check(directory);
    if (result == IQDB_OK) result = iq_directory_touch(directory);
    if (result != IQDB_OK) return result;
    iq_wal_begin(&directory->wal);
    result = iq_directory_next_log(directory);
    if (result != IQDB_OK) return result;
    memset(&entry, 0, sizeof entry);
    entry.number = manifest->snapshot_count == 0 ? 1 : manifest->snapshots[manifest->snapshot_count - 1].number + 1;
    entry.lsn = directory->wal.synced.lsn;
    result = iq_directory_write_snapshot(directory, &entry, write_fn, user);
    if (result == IQDB_OK) result = iq_directory_adopt(directory, &entry);
    /* The old log has ended, and no commit may follow for long. */
    if (result == IQDB_OK || iq_directory_is_poisoned(directory)) return result;
    return iq_wal_attest(&directory->wal) == IQDB_OK ? result : IQDB_ERR_IO;
}

/* ---- Facts and checks ---- */

IQ_FN iqdb_result iq_directory_verify(iq_directory *directory, iqdb_depth depth, iqdb_report_fn report, void *user) {
    iq_volume volume = directory->volume;
    iq_manifest manifest = directory->manifest;
    iq_findings findings = iq_findings_make(report, user);
    const iq_reporter reporter = iq_findings_reporter(&findings);
    volume.reporter = &reporter;
    manifest.clean = true; /* every log ends where we know that it ends */
    if (!directory->read_only) {
        iq_log_entry *last = &manifest.logs[manifest.log_count - 1];
        last->has_end = true;
        last->end = iq_directory_is_poisoned(directory) ? directory->wal.synced : directory->wal.written;
    }
    (void)iq_meta_verify(&volume, directory->meta.check);
    const iqdb_result result = iq_repair_check(&volume, &manifest, depth != IQDB_DEPTH_FRAMES);
    return findings.first != IQDB_OK ? findings.first : result;
}

IQ_FN iqdb_result iq_directory_repair(const char *path, const iq_directory_config *config, const iq_loader *loader,
                                      iq_findings *findings, uint64_t *out_lsn) {
    iq_directory *directory;
    const iq_reporter reporter = iq_findings_reporter(findings);
    iqdb_result result = iq_directory_new(path, config, true, &directory);
    if (result == IQDB_OK) result = iq_directory_lock(directory);
    if (result == IQDB_OK) {
        directory->volume.reporter = &reporter;
        result = iq_repair_read(&directory->volume, &directory->meta, loader, out_lsn);
    }
    iq_directory_abandon(directory);
    return result;
}

IQ_FN void iq_directory_describe(const iq_directory *directory, iqdb_stats *stats) {
    const iq_manifest *manifest = &directory->manifest;
    const iq_wal *wal = &directory->wal;
    memcpy(stats->uuid, manifest->uuid, sizeof stats->uuid);
    stats->read_only = directory->read_only;
    stats->recovered = directory->recovered;
    stats->poisoned = iq_directory_is_poisoned(directory);
    stats->applied_lsn = manifest->applied_lsn;
    stats->last_lsn = directory->read_only ? directory->data_lsn : wal->data_lsn;
    if (stats->last_lsn < stats->applied_lsn) stats->last_lsn = stats->applied_lsn;
    /* Frames that are no writes count only inside. */
    stats->durable_lsn = directory->read_only || wal->synced.lsn > stats->last_lsn ? stats->last_lsn : wal->synced.lsn;
    stats->log_bytes = directory->old_log_bytes + (directory->read_only ? 0 : wal->allocated);
    stats->snapshot_bytes = 0;
    for (uint32_t i = 0; i < manifest->snapshot_count; i++) stats->snapshot_bytes += manifest->snapshots[i].size_bytes;
}

IQ_FN bool iq_directory_is_compact(const iq_directory *directory) {
    const iq_manifest *manifest = &directory->manifest;
    const uint64_t last_lsn = directory->read_only ? directory->data_lsn : directory->wal.data_lsn;
    return manifest->snapshot_count == 1 && last_lsn <= manifest->applied_lsn;
}
