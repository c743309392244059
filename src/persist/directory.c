/* The directory: open, commit, flush, checkpoint, close.
 *
 * 1. META's clean mark means: nothing lies behind the end of the last log. The first write withdraws it, in both slots,
 *    before it touches the log; only close sets it again. A handle that never wrote leaves the disk as it was.
 * 2. A log or snapshot is durable, its name too, before META or a switch frame names it, and is removed only after
 *    META, in both slots, has stopped naming it.
 * 3. `manifest` is what META says, except that logs that switch frames lead to stand in it already, and that the end of
 *    the last log is known to `wal` only.
 * 4. NOSPACE leaves everything usable; recovery, deletes and META meet it only once the ballast is spent. What else goes wrong while META is changed, or in a sync, poisons: reads of
 *    facts go on, nothing is written any more, and the next open recovers.
 * 5. Read-only opens write nothing at all, and take no lock: a writer may be at work on what they read, so damage counts
 *    only where all is read again and META says and shows the same. An open for writing that has no space to recover
 *    becomes one, and says so. */
#include "persist/directory.h"

#define IQ_LOCK_NAME "LOCK"

/* A snapshot in the making. */
typedef struct iq_directory_snapshot {
    iq_file file;
    uint64_t offset;
    iq_snapshot_writer *writer; /* NULL: there is none, or its last bytes are written */
    iq_snapshot_entry entry;
    uint32_t kept; /* snapshots before it that stay */
} iq_directory_snapshot;

struct iq_directory {
    iq_volume volume;
    iqdb_entropy entropy;
    iq_file lock;
    iq_meta meta;
    iq_manifest manifest;
    iq_wal wal;             /* of a read-only handle only data_lsn and synced.lsn */
    uint64_t old_log_bytes; /* of logs in front of the last one; of all, of a read-only handle */
    bool read_only, poisoned, recovered;
    iq_directory_snapshot making;
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
    return iq_report(directory->volume.reporter, IQDB_ERR_IO, NULL, 0,
                     "no random numbers can be had; options.entropy may bring some");
}

/* Writes META; `next` is what holds afterwards, in memory too. */
static iqdb_result iq_directory_save(iq_directory *directory, const iq_manifest *next) {
    const bool spends = directory->volume.spends;
    directory->volume.spends = true;
    const iqdb_result result = iq_meta_save(&directory->meta, next);
    directory->volume.spends = spends;
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

/* Invariant 1, before something is written. */
static iqdb_result iq_directory_touch(iq_directory *directory) {
    const iqdb_result result = iq_directory_check(directory);
    if (result != IQDB_OK || !directory->manifest.clean) return result;
    iq_manifest next = directory->manifest;
    next.clean = false;
    return iq_directory_save(directory, &next);
}

/* ---- Snapshot files ---- */

static iqdb_result iq_directory_sink(const void *bytes, size_t size, void *user) {
    iq_directory_snapshot *making = (iq_directory_snapshot *)user;
    const iqdb_result result = iq_file_write(&making->file, making->offset, bytes, size);
    making->offset += size;
    return result;
}

/* Nothing is left of the snapshot in the making. */
static iqdb_result iq_directory_drop_snapshot(iq_directory *directory, iqdb_result result) {
    iq_directory_snapshot *making = &directory->making;
    (void)iq_snapshot_end(making->writer, IQDB_ERR_CANCELLED, &making->entry);
    iq_file_close(&making->file);
    iq_volume_remove(&directory->volume, making->file.name);
    memset(making, 0, sizeof *making);
    return result;
}

/* Begins the file of the snapshot whose number, which may become a higher one, and LSN *entry says. */
static iqdb_result iq_directory_begin_snapshot(iq_directory *directory, const iq_snapshot_entry *entry) {
    const iq_volume *volume = &directory->volume;
    iq_directory_snapshot *making = &directory->making;
    const iq_sink sink = {iq_directory_sink, making};
    making->entry = *entry;
    making->offset = 0;
    iqdb_result result = iq_volume_create(&making->file, volume, IQ_SNAPSHOT_PREFIX, &making->entry.number);
    if (result != IQDB_OK) return result;
    result = iq_snapshot_begin(&sink, volume, directory->manifest.uuid, &making->entry, &making->writer);
    return result == IQDB_OK ? result : iq_directory_drop_snapshot(directory, result);
}

/* Its last bytes, unless `result`, that of the sections, is none of OK. */
static iqdb_result iq_directory_finish_snapshot(iq_directory *directory, iqdb_result result) {
    iq_directory_snapshot *making = &directory->making;
    result = iq_snapshot_end(making->writer, result, &making->entry);
    making->writer = NULL;
    return result == IQDB_OK ? result : iq_directory_drop_snapshot(directory, result);
}

/* After its sync: it is durable, its name too. */
static iqdb_result iq_directory_settle_snapshot(iq_directory *directory, iqdb_result result, int os_code) {
    iq_directory_snapshot *making = &directory->making;
    result = iq_directory_poison(directory, iq_file_synced(&making->file, result, os_code));
    if (result == IQDB_OK) result = iq_directory_poison(directory, iq_volume_sync(&directory->volume));
    if (result != IQDB_OK) return iq_directory_drop_snapshot(directory, result);
    iq_file_close(&making->file);
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

static const char *const iq_directory_prefixes[] = {IQ_LOG_PREFIX, IQ_SNAPSHOT_PREFIX};

/* META goes first, then the logs: at each moment an interrupted create is one again. Where META stays, so do they: beside a
 * damaged one only wal-1 tells what it is of. Snapshots are there only where a copy could not be finished. */
static iqdb_result iq_directory_clear(const iq_volume *volume) {
    const bool is_gone = iq_volume_remove(volume, "META");
    bool done = is_gone;
    const iqdb_result result = iq_volume_sync(volume);
    if (result != IQDB_OK) return result;
    for (size_t kind = 0; is_gone && kind < IQ_COUNT_OF(iq_directory_prefixes); kind++) {
        char name[IQ_FILE_NAME_SIZE];
        iq_numbers numbers;
        if (iq_volume_list(volume, iq_directory_prefixes[kind], &numbers) != IQDB_OK) done = false;
        for (size_t i = 0; i < numbers.count; i++) {
            iq_volume_name(name, iq_directory_prefixes[kind], numbers.items[i]);
            if (!iq_volume_remove(volume, name)) done = false;
        }
        iq_blob_free(&numbers.blob);
    }
    if (done) return IQDB_OK;
    return iq_report(volume->reporter, IQDB_ERR_IO, NULL, 0, "what an unfinished create has left cannot be removed");
}

static iqdb_result iq_directory_write_snapshot(iq_directory *directory, iq_snapshot_entry *entry,
                                               const iq_directory_content *content) {
    int os_code;
    iqdb_result result = iq_directory_begin_snapshot(directory, entry);
    if (result != IQDB_OK) return result;
    result = iq_directory_finish_snapshot(directory, content->write_fn(directory->making.writer, content->user));
    if (result != IQDB_OK) return result;
    result = iq_file_try_sync(&directory->making.file, &os_code);
    result = iq_directory_settle_snapshot(directory, result, os_code);
    *entry = directory->making.entry;
    return result;
}

/* A new database, empty or with `content`. The snapshot comes first: what is left of a copy is never taken for an
 * interrupted create, which would be made anew, and empty. */
static iqdb_result iq_directory_create(iq_directory *directory, const iq_directory_config *config,
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
        memcpy(directory->meta.keys, content->keys, IQ_META_KEYS_SIZE);
        header.first_lsn = content->lsn + 1;
        result = iq_directory_write_snapshot(directory, entry, content);
    }
    if (result == IQDB_OK) result = iq_wal_create(&directory->wal, volume, manifest->uuid, &header);
    if (result == IQDB_OK) result = iq_meta_create(&directory->meta, volume);
    if (result != IQDB_OK) return result;
    manifest->schema = config->schema;
    iq_model_copy(manifest->model, config->model);
    manifest->required = config->required;
    manifest->log_count = 1;
    manifest->logs[0] = iq_wal_entry(&directory->wal);
    result = iq_meta_save(&directory->meta, manifest);
    if (result == IQDB_OK) iq_volume_make_ballast(volume);
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
        directory->wal.synced.lsn = recovery->attested.lsn;
        return IQDB_OK;
    }
    if (result != IQDB_OK) return result;
    directory->recovered = true;
    directory->old_log_bytes = 0;
    for (uint32_t i = 0; i + 1 < next.log_count; i++) directory->old_log_bytes += next.logs[i].end.offset;
    return IQDB_OK;
}

/* What a reader knows of the logs. */
static void iq_directory_note(iq_directory *directory, const iq_recovery *recovery) {
    const iq_manifest *manifest = recovery->manifest;
    directory->wal.data_lsn = recovery->data_lsn;
    directory->wal.synced.lsn = recovery->attested.lsn;
    directory->old_log_bytes = recovery->log_bytes;
    for (uint32_t i = 0; i < recovery->first; i++) directory->old_log_bytes += manifest->logs[i].size_bytes;
}

static iqdb_result iq_directory_load(iq_directory *directory, const iq_loader *loader) {
    iq_manifest *manifest = &directory->manifest;
    iq_recovery recovery;
    memset(&recovery, 0, sizeof recovery);
    recovery.volume = &directory->volume;
    recovery.loader = loader;
    recovery.manifest = manifest;
    iqdb_result result = loader->schema_fn(manifest, loader->user);
    if (result == IQDB_OK) result = iq_recover_load(&recovery);
    if (result != IQDB_OK) return result;
    iq_directory_note(directory, &recovery);
    if (directory->read_only) return IQDB_OK;
    if (manifest->clean) {
        result = iq_wal_resume(&directory->wal, &directory->volume, &recovery.last,
                               &manifest->logs[manifest->log_count - 1]);
        directory->old_log_bytes -= recovery.last_bytes;
    } else {
        directory->volume.spends = true;
        result = iq_directory_recover(directory, &recovery);
        directory->volume.spends = false;
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
    iq_file_close(&directory->meta.file);
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

/* Reads what the logs have behind `last`, the end of what is known; *out_lost: that is not in them any more. What recovery
 * has cut off the end of a log, it has written anew, or nobody had acknowledged it: who goes on there finds damage. */
static iqdb_result iq_directory_follow(iq_directory *directory, const iq_loader *loader, const iq_log_entry *last,
                                       bool *out_lost) {
    iq_manifest *manifest = &directory->manifest;
    const iq_log_entry *log = manifest->logs;
    iq_recovery recovery;
    memset(&recovery, 0, sizeof recovery);
    recovery.volume = &directory->volume;
    recovery.loader = loader;
    recovery.manifest = manifest;
    recovery.from = &last->end;
    recovery.data_lsn = directory->wal.data_lsn;
    recovery.attested.lsn = directory->wal.synced.lsn;
    while (recovery.first < manifest->log_count && (log->number != last->number || log->salt != last->salt))
        log = &manifest->logs[++recovery.first];
    *out_lost = recovery.first == manifest->log_count;
    const iqdb_result result = *out_lost ? IQDB_OK : iq_recover_load(&recovery);
    if (result == IQDB_OK && !*out_lost) iq_directory_note(directory, &recovery);
    return result;
}

static void iq_directory_overhear(iqdb_level level, const iqdb_error *message, void *user) {
    const iqdb_logger *logger = &((const iq_reporter *)user)->logger;
    if (level != IQDB_LEVEL_ERROR && logger->log_fn != NULL) logger->log_fn(level, message, logger->user);
}

#define IQ_READ_TRIES 100u /* who finds other damage each time so often has found damage */

/* Reads everything; or, where `known` (NULL: nothing) is what was read before, what has come since. Invariant 5. */
static iqdb_result iq_directory_read(iq_directory *directory, const iq_loader *loader, const iq_manifest *known) {
    const iq_reporter *reporter = directory->volume.reporter;
    iqdb_error error = iq_error_make(IQDB_OK, NULL, 0, NULL), before;
    iq_reporter quiet = {&error, {iq_directory_overhear, NULL}, NULL};
    uint64_t sequence;
    iqdb_result result;
    quiet.logger.user = (void *)(uintptr_t)reporter;
    directory->volume.reporter = &quiet;
    for (unsigned tries = 0;; tries++) {
        bool is_found, is_blank, is_lost = known == NULL || tries > 0;
        before = error;
        sequence = directory->meta.sequence;
        error = iq_error_make(IQDB_OK, NULL, 0, NULL);
        result = iq_directory_look(directory, &is_found, &is_blank);
        if (result == IQDB_OK && known != NULL && memcmp(known->uuid, directory->manifest.uuid, IQ_UUID_SIZE) != 0)
            result = iq_report(&quiet, IQDB_ERR_CORRUPT, "META", 0, "the directory holds another database now");
        if (result == IQDB_OK && !is_lost)
            result = iq_directory_follow(directory, loader, &known->logs[known->log_count - 1], &is_lost);
        if (result == IQDB_OK && is_lost) result = iq_directory_load(directory, loader);
        const bool is_same = sequence == directory->meta.sequence && error.offset == before.offset &&
                             strcmp(error.file, before.file) == 0;
        if (result != IQDB_ERR_CORRUPT || is_same || tries == IQ_READ_TRIES) break;
    }
    directory->volume.reporter = reporter;
    if (loader->mapped != NULL && *loader->mapped != NULL) iq_snapshot_report_to(*loader->mapped, reporter);
    if (result != IQDB_OK && error.code == result) (void)iq_report_error(reporter, &error);
    return result;
}

IQ_FN iqdb_result iq_directory_refresh(iq_directory *directory, const iq_loader *loader,
                                       iqdb_result (*apply_fn)(void *user)) {
    const iq_manifest known = directory->manifest;
    const iq_wal wal = directory->wal;
    const uint64_t old_log_bytes = directory->old_log_bytes;
    iqdb_result result = iq_directory_read(directory, loader, &known);
    if (result == IQDB_OK) result = apply_fn(loader->user);
    if (result == IQDB_OK) return result;
    directory->manifest = known;
    directory->wal = wal;
    directory->old_log_bytes = old_log_bytes;
    return result;
}

static iqdb_result iq_directory_start(iq_directory *directory, const iq_directory_config *config,
                                      const iq_loader *loader) {
    const iq_volume *volume = &directory->volume;
    bool is_found, is_blank;
    if (!iq_directory_has(volume, "META") && (iq_directory_has(volume, "snap") || iq_directory_has(volume, "wal")))
        return iq_report(
            volume->reporter, IQDB_ERR_INVALID_CONFIG, NULL, 0,
            "the directory holds a database of the original iqdb: `iqdb-import OLD NEW` (make iqdb-import) "
            "brings it over into another");
    if (directory->read_only) return iq_directory_read(directory, loader, NULL);
    iqdb_result result = iq_directory_lock(directory);
    if (result == IQDB_OK) result = iq_directory_look(directory, &is_found, &is_blank);
    if (result != IQDB_OK) return result;
    if (is_found) return iq_directory_load(directory, loader);
    if (!is_blank) result = iq_directory_clear(volume);
    return result == IQDB_OK ? iq_directory_create(directory, config, NULL) : result;
}

/* A directory object over the path, with nothing read yet. */
static iqdb_result iq_directory_new(const char *path, const iq_directory_config *config, bool read_only,
                                    iq_directory **out_directory) {
    const iq_volume *volume = &config->volume;
    iq_directory *directory = (iq_directory *)iq_alloc_zeroed(&volume->allocator, sizeof *directory, 16);
    *out_directory = directory;
    if (directory == NULL) return iq_report(volume->reporter, IQDB_ERR_NOMEM, NULL, 0, "no memory for a directory");
    directory->volume = *volume;
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
    bool is_empty = !iq_directory_has(volume, "META");
    iqdb_result result = IQDB_OK;
    for (size_t i = 0; i < IQ_COUNT_OF(iq_directory_prefixes) && result == IQDB_OK; i++) {
        iq_numbers numbers;
        result = iq_volume_list(volume, iq_directory_prefixes[i], &numbers);
        if (numbers.count > 0) is_empty = false;
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
        result = iq_directory_create(directory, config, content);
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
    if (result == IQDB_OK) result = loader->schema_fn(&directory->manifest, loader->user);
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
        if (log->has_end) directory->wal.data_lsn = log->end.lsn;
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
    (void)iq_snapshot_end(directory->making.writer, IQDB_ERR_CANCELLED, &directory->making.entry);
    iq_file_close(&directory->making.file);
    iq_wal_free(&directory->wal);
    iq_file_close(&directory->meta.file);
    iq_file_close(&directory->lock);
    iq_volume_close(&directory->volume);
    iq_free(&allocator, directory, sizeof *directory, 16);
}

IQ_FN void iq_directory_let_go(iq_directory *directory) {
    if (directory != NULL) iq_file_close(&directory->lock);
}

IQ_FN iqdb_result iq_directory_close(iq_directory *directory) {
    iqdb_result result = IQDB_OK;
    if (iq_directory_is_poisoned(directory)) {
        result = IQDB_ERR_POISONED;
    } else if (!directory->read_only && !directory->manifest.clean) {
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

IQ_FN iqdb_result iq_directory_batch_begin(iq_directory *directory, iq_wal **out_wal) {
    const iqdb_result result = iq_directory_check(directory);
    *out_wal = &directory->wal;
    if (result == IQDB_OK) iq_wal_begin(&directory->wal);
    return result;
}

IQ_FN iqdb_result iq_directory_batch_commit(iq_directory *directory, bool before_sync, bool spends,
                                            uint64_t *out_commit_lsn) {
    iqdb_result result = iq_directory_touch(directory);
    directory->volume.spends = spends;
    if (result == IQDB_OK) result = iq_wal_commit(&directory->wal, before_sync);
    directory->volume.spends = false;
    if (result != IQDB_OK) iq_wal_abort(&directory->wal);
    *out_commit_lsn = directory->wal.data_lsn;
    return result;
}

IQ_FN iqdb_result iq_directory_sync(const iq_directory *directory, int *os_code) {
    return iq_file_try_sync(&directory->wal.file, os_code);
}

IQ_FN iqdb_result iq_directory_synced(iq_directory *directory, iqdb_result result, int os_code) {
    result = iq_wal_synced(&directory->wal, result, os_code);
    return result == IQDB_OK ? iq_directory_note_growth(directory) : result;
}

IQ_FN const uint8_t *iq_directory_keys(const iq_directory *directory) { return directory->meta.keys; }

IQ_FN iqdb_result iq_directory_set_keys(iq_directory *directory, const uint8_t *keys) {
    if (directory->read_only || memcmp(directory->meta.keys, keys, IQ_META_KEYS_SIZE) == 0) return IQDB_OK;
    const iq_manifest same = directory->manifest;
    memcpy(directory->meta.keys, keys, IQ_META_KEYS_SIZE);
    return iq_directory_save(directory, &same);
}

IQ_FN iqdb_result iq_directory_set_model(iq_directory *directory, const char *model) {
    if (directory->read_only || strcmp(directory->manifest.model, model) == 0) return IQDB_OK;
    iq_manifest next = directory->manifest;
    iq_model_copy(next.model, model);
    return iq_directory_save(directory, &next);
}

IQ_FN void iq_directory_set_schema(iq_directory *directory, iq_schema schema) { directory->manifest.schema = schema; }

IQ_FN iqdb_result iq_directory_require(iq_directory *directory, uint32_t features) {
    const iqdb_result result = iq_directory_touch(directory);
    if (result != IQDB_OK || (directory->manifest.required & features) == features) return result;
    iq_manifest next = directory->manifest;
    next.required |= features;
    return iq_directory_save(directory, &next);
}

IQ_FN iqdb_result iq_directory_flush(iq_directory *directory, bool syncs) {
    if (directory->read_only) return IQDB_OK;
    iqdb_result result = iq_directory_check(directory);
    if (result == IQDB_OK && syncs) result = iq_wal_flush(&directory->wal);
    if (result == IQDB_OK && syncs) result = iq_directory_note_growth(directory);
    return result == IQDB_OK ? iq_wal_attest(&directory->wal) : result;
}

/* ---- Checkpoint ---- */

IQ_FN uint64_t iq_directory_log_bytes(const iq_directory *directory) {
    uint64_t bytes = directory->wal.written.offset;
    for (uint32_t i = 0; i + 1 < directory->manifest.log_count; i++) bytes += directory->manifest.logs[i].end.offset;
    return bytes;
}

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

/* META names the snapshot behind those that stay, and one log; what it named instead of these goes. */
static iqdb_result iq_directory_adopt(iq_directory *directory) {
    const iq_directory_snapshot *making = &directory->making;
    const iq_manifest *manifest = &directory->manifest;
    iq_manifest next = *manifest;
    char name[IQ_FILE_NAME_SIZE];
    uint64_t gone[IQ_META_LOG_MAX + IQ_META_SNAPSHOT_MAX];
    uint32_t logs = 0, count;
    for (; logs + 1 < manifest->log_count; logs++) gone[logs] = manifest->logs[logs].number;
    count = logs;
    for (uint32_t i = making->kept; i < manifest->snapshot_count; i++) gone[count++] = manifest->snapshots[i].number;
    next.snapshots[making->kept] = making->entry;
    next.snapshot_count = making->kept + 1;
    next.applied_lsn = making->entry.lsn;
    next.logs[0] = iq_wal_entry(&directory->wal);
    next.log_count = 1;
    const iqdb_result result = iq_directory_save(directory, &next);
    if (result != IQDB_OK) return result;
    directory->old_log_bytes = 0;
    if (directory->wal.attested_lsn < next.applied_lsn) directory->wal.attested_lsn = next.applied_lsn;
    for (uint32_t i = 0; i < count; i++) {
        iq_volume_name(name, i < logs ? IQ_LOG_PREFIX : IQ_SNAPSHOT_PREFIX, gone[i]);
        iq_volume_remove(&directory->volume, name);
    }
    iq_volume_make_ballast(&directory->volume);
    return IQDB_OK;
}

/* How many of the snapshots stay. The new one takes in those before it as long as they are no larger than all that it
 * takes in already, so that each write is written again only in files that are twice as large each time. *out_bytes: a
 * snapshot of what is in the logs is no larger: a row takes at most a quarter more, and large sections have a place. */
static uint32_t iq_directory_choose_tier(const iq_directory *directory, uint64_t *out_bytes) {
    const iq_manifest *manifest = &directory->manifest;
    const uint64_t log_bytes = iq_directory_log_bytes(directory), bytes = log_bytes + log_bytes / 4;
    uint32_t kept = manifest->snapshot_count;
    *out_bytes = bytes + 2 * IQ_SNAPSHOT_BLOCK + (bytes < IQ_SNAPSHOT_LARGE ? 0 : 5 * IQ_SNAPSHOT_LARGE);
    while (kept > 0 && (kept == IQ_META_SNAPSHOT_MAX || manifest->snapshots[kept - 1].size_bytes <= *out_bytes))
        *out_bytes += manifest->snapshots[--kept].size_bytes;
    return kept;
}

IQ_FN iqdb_result iq_directory_checkpoint_begin(iq_directory *directory, bool whole, iq_tier *out_tier) {
    const iq_manifest *manifest = &directory->manifest;
    const uint32_t count = manifest->snapshot_count;
    iqdb_result result = iq_directory_touch(directory);
    out_tier->kept = directory->making.kept = iq_directory_choose_tier(directory, &out_tier->bytes);
    if (whole) out_tier->kept = directory->making.kept = 0;
    if (result == IQDB_OK) result = iq_directory_next_log(directory);
    if (result != IQDB_OK) return result;
    iq_snapshot_entry entry = {1, 0, directory->wal.synced.lsn, 0, 0};
    if (count > 0) entry.number = manifest->snapshots[count - 1].number + 1;
    if (out_tier->kept > 0) entry.since = manifest->snapshots[out_tier->kept - 1].lsn;
    result = iq_directory_begin_snapshot(directory, &entry);
    out_tier->writer = directory->making.writer;
    return result;
}

IQ_FN iqdb_result iq_directory_checkpoint_finish(iq_directory *directory, iqdb_result result) {
    return iq_directory_finish_snapshot(directory, result);
}

IQ_FN iqdb_result iq_directory_checkpoint_sync(const iq_directory *directory, int *os_code) {
    return iq_file_try_sync(&directory->making.file, os_code);
}

IQ_FN iqdb_result iq_directory_checkpoint_end(iq_directory *directory, iqdb_result result, int os_code) {
    if (iq_directory_is_poisoned(directory)) return iq_directory_drop_snapshot(directory, IQDB_ERR_POISONED);
    result = iq_directory_settle_snapshot(directory, result, os_code);
    return result == IQDB_OK ? iq_directory_adopt(directory) : result;
}

/* ---- Facts and checks ---- */

/* What a check has found, and nobody has heard of yet. */
typedef struct iq_directory_found {
    iq_blob blob; /* of an iqdb_error each */
    iqdb_result result;
} iq_directory_found;

static void iq_directory_gather(const iqdb_error *finding, void *user) {
    iq_directory_found *found = (iq_directory_found *)user;
    if (found->result == IQDB_OK) found->result = iq_blob_append(&found->blob, finding, sizeof *finding);
}

/* What META names now, which may be another one than was read. */
static iqdb_result iq_directory_look_over(iq_directory *directory, bool blocks) {
    iq_manifest now;
    iq_meta_state state;
    iq_file_close(&directory->meta.file);
    const iqdb_result result = iq_meta_load(&directory->meta, &directory->volume, false, &state, &now);
    const bool is_known =
        result == IQDB_OK && state == IQ_META_IS_GOOD && memcmp(now.uuid, directory->manifest.uuid, IQ_UUID_SIZE) == 0;
    (void)iq_meta_verify(&directory->volume, directory->meta.check);
    return iq_repair_check(&directory->volume, is_known ? &now : &directory->manifest, NULL, blocks);
}

/* Of a reader: invariant 5. */
static iqdb_result iq_directory_verify_beside(iq_directory *directory, bool blocks, iqdb_report_fn report, void *user) {
    const iq_reporter *theirs = directory->volume.reporter;
    iq_directory_found found = {{&directory->volume.allocator, NULL, 0, 0}, IQDB_OK};
    iq_findings findings = iq_findings_make(iq_directory_gather, &found);
    const iq_reporter reporter = iq_findings_reporter(&findings);
    bool is_same = false;
    iqdb_result result = IQDB_OK;
    directory->volume.reporter = &reporter;
    for (unsigned tries = 0; result == IQDB_OK && !is_same && tries < IQ_READ_TRIES; tries++) {
        const uint64_t sequence = directory->meta.sequence;
        const size_t before = found.blob.size;
        found.blob.size = 0;
        result = iq_directory_look_over(directory, blocks);
        if (result == IQDB_OK) result = found.result;
        const size_t size = found.blob.size;
        is_same = size == 0 || (size == before && sequence == directory->meta.sequence);
    }
    directory->volume.reporter = theirs;
    const iqdb_error *first = (const iqdb_error *)(const void *)found.blob.bytes;
    const size_t count = found.blob.size / sizeof *first;
    for (size_t i = 0; i < count && report != NULL; i++) report(first + i, user);
    if (count > 0) result = first->code;
    iq_blob_free(&found.blob);
    return result;
}

IQ_FN iqdb_result iq_directory_verify(iq_directory *directory, iqdb_depth depth, iqdb_report_fn report, void *user) {
    const bool blocks = depth != IQDB_DEPTH_FRAMES;
    if (directory->read_only) return iq_directory_verify_beside(directory, blocks, report, user);
    iq_volume volume = directory->volume;
    iq_findings findings = iq_findings_make(report, user);
    const iq_reporter reporter = iq_findings_reporter(&findings);
    const iq_wal *wal = &directory->wal;
    const iq_log_position *end = iq_directory_is_poisoned(directory) ? &wal->synced : &wal->written;
    volume.reporter = &reporter;
    (void)iq_meta_verify(&volume, directory->meta.check);
    const iqdb_result result = iq_repair_check(&volume, &directory->manifest, end, blocks);
    return findings.first != IQDB_OK ? findings.first : result;
}

IQ_FN iqdb_result iq_directory_repair(const char *path, const iq_directory_config *config, const iq_loader *loader,
                                      iq_findings *findings, uint8_t *out_keys, uint64_t *out_lsn) {
    iq_directory *directory;
    const iq_reporter reporter = iq_findings_reporter(findings);
    iqdb_result result = iq_directory_new(path, config, true, &directory);
    if (result == IQDB_OK) result = iq_directory_lock(directory);
    if (result == IQDB_OK) {
        directory->volume.reporter = &reporter;
        result = iq_repair_read(&directory->volume, &directory->meta, loader, out_lsn);
        memcpy(out_keys, directory->meta.keys, IQ_META_KEYS_SIZE);
    }
    iq_directory_abandon(directory);
    return result;
}

IQ_FN void iq_directory_describe(const iq_directory *directory, iqdb_stats *stats) {
    const iq_manifest *manifest = &directory->manifest;
    const iq_wal *wal = &directory->wal;
    memcpy(stats->uuid, manifest->uuid, sizeof stats->uuid);
    iq_model_copy(stats->model, manifest->model);
    stats->read_only = directory->read_only;
    stats->recovered = directory->recovered;
    stats->poisoned = iq_directory_is_poisoned(directory);
    stats->applied_lsn = manifest->applied_lsn;
    stats->last_lsn = wal->data_lsn;
    if (stats->last_lsn < stats->applied_lsn) stats->last_lsn = stats->applied_lsn;
    /* Frames that are no writes count only inside. */
    stats->durable_lsn = wal->synced.lsn > stats->last_lsn ? stats->last_lsn : wal->synced.lsn;
    if (stats->durable_lsn < stats->applied_lsn) stats->durable_lsn = stats->applied_lsn;
    stats->log_bytes = directory->old_log_bytes + (directory->read_only ? 0 : wal->allocated);
    stats->snapshot_bytes = 0;
    for (uint32_t i = 0; i < manifest->snapshot_count; i++) stats->snapshot_bytes += manifest->snapshots[i].size_bytes;
}

IQ_FN bool iq_directory_is_durable(const iq_directory *directory) {
    return directory->wal.data_lsn <= directory->wal.synced.lsn;
}

IQ_FN bool iq_directory_holds(const iq_directory *directory, uint64_t lsn) {
    return directory->manifest.applied_lsn >= lsn;
}

IQ_FN bool iq_directory_is_compact(const iq_directory *directory) {
    const iq_manifest *manifest = &directory->manifest;
    return manifest->snapshot_count == 1 && directory->wal.data_lsn <= manifest->applied_lsn;
}
