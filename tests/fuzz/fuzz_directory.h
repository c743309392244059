/* What fuzz_meta, fuzz_wal and fuzz_snapshot share: a small database in memory whose files can be replaced, and what has
 * to hold whatever is in them: a documented code that names a file, memory in proportion to the files, nothing leaked;
 * what opens for reading opens for writing with the same records, and again, and takes writes. */
#ifndef FUZZ_DIRECTORY_H
#define FUZZ_DIRECTORY_H

#include "api.h"
#include "kernel/crc32.h"
#include "persist/checkpoint.h"
#include "support.h"
#include "sys/memory.h"
#include "sys/sys.h"
#include "base/bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct fuzz_file {
    char name[32];
    uint8_t *bytes;
    size_t size;
} fuzz_file;

typedef struct fuzz_seen {
    uint64_t count, digest;
} fuzz_seen;

static fuzz_file fuzz_files[8];
static size_t fuzz_file_count;

static inline void fuzz_require(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "fuzz: %s\n", what);
    abort();
}

static inline void fuzz_add(fuzz_seen *seen, const uint8_t *bytes, size_t size) {
    while (size > 0 && bytes[size - 1] == 0) size--; /* the log pads */
    seen->digest = seen->digest * 31 + iq_crc32((uint32_t)size, bytes, size);
    seen->count++;
}

static inline iqdb_result fuzz_on_schema(const iq_manifest *manifest, void *user) {
    (void)manifest;
    memset(user, 0, sizeof(fuzz_seen)); /* what is read only may be read twice */
    return IQDB_OK;
}

static inline iqdb_result fuzz_on_snapshot(iq_snapshot_reader *reader, void *user) {
    uint64_t size;
    uint8_t bytes[5000];
    if (!iq_snapshot_find(reader, 0, 1, &size)) return iq_snapshot_reject(reader, 0, 1, 0, "no section");
    iqdb_result result = IQDB_OK;
    for (uint64_t at = 0; at < size && result == IQDB_OK; at += sizeof bytes) {
        const size_t part = size - at < sizeof bytes ? (size_t)(size - at) : sizeof bytes;
        result = iq_snapshot_read(reader, 0, 1, at, bytes, part);
        if (result == IQDB_OK) fuzz_add((fuzz_seen *)user, bytes, part);
    }
    return result;
}

static inline iqdb_result fuzz_on_record(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user) {
    (void)commit_lsn;
    if (bytes[0] == 0xEE) return IQDB_ERR_CORRUPT;
    fuzz_add((fuzz_seen *)user, bytes, size);
    return IQDB_OK;
}

static inline iqdb_result fuzz_image(iq_snapshot_writer *writer, void *user) {
    uint8_t bytes[9000];
    (void)user;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7);
    iqdb_result result = iq_snapshot_section(writer, 0, 1, sizeof bytes);
    if (result == IQDB_OK) result = iq_snapshot_write(writer, bytes, sizeof bytes);
    if (result == IQDB_OK) result = iq_snapshot_section(writer, 0, 2, 64);
    return result == IQDB_OK ? iq_snapshot_write(writer, bytes, 64) : result;
}

static inline iqdb_result fuzz_no_image(iq_snapshot_writer *writer, void *user) {
    (void)writer;
    (void)user;
    return IQDB_ERR_NOSPACE;
}

static inline bool fuzz_entropy(void *bytes, size_t size, void *user) {
    uint8_t *next = (uint8_t *)user;
    for (size_t i = 0; i < size; i++) ((uint8_t *)bytes)[i] = ++*next;
    return true;
}

static inline iqdb_result fuzz_open(const iqdb_files *files, const iqdb_allocator *allocator, bool read_only,
                                    fuzz_seen *seen, iqdb_error *error, iq_directory **out) {
    static uint8_t chance;
    iq_directory_config config;
    iq_loader loader;
    iq_reporter reporter;
    memset(&config, 0, sizeof config);
    memset(&reporter, 0, sizeof reporter);
    memset(seen, 0, sizeof *seen);
    memset(error, 0, sizeof *error);
    reporter.error = error;
    config.volume.allocator = *allocator;
    config.volume.files = *files;
    config.entropy.fill_fn = fuzz_entropy;
    config.entropy.user = &chance;
    config.volume.reporter = &reporter;
    config.read_only = read_only;
    loader.schema_fn = fuzz_on_schema;
    loader.snapshot_fn = fuzz_on_snapshot;
    loader.record_fn = fuzz_on_record;
    loader.user = seen;
    loader.mapped = NULL;
    return iq_directory_open("db", &config, &loader, out);
}

static inline void fuzz_write(iq_directory *directory, uint8_t with, size_t size, bool sync) {
    uint8_t bytes[9000];
    iq_slice piece;
    uint64_t lsn;
    iq_wal *wal;
    int os_code = 0;
    memset(bytes, with, sizeof bytes);
    piece.bytes = bytes;
    piece.size = size;
    fuzz_require(iq_directory_batch_begin(directory, &wal) == IQDB_OK, "no batch can begin");
    fuzz_require(iq_wal_add(wal, &piece, 1) == IQDB_OK, "no record can be added");
    fuzz_require(iq_directory_batch_commit(directory, sync, false, &lsn) == IQDB_OK, "a batch cannot be written");
    const iqdb_result synced = sync ? iq_directory_sync(directory, &os_code) : IQDB_OK;
    fuzz_require(!sync || iq_directory_synced(directory, synced, os_code) == IQDB_OK, "a batch cannot be synced");
}

static inline void fuzz_collect(const char *name, void *user) {
    (void)user;
    snprintf(fuzz_files[fuzz_file_count++].name, 32, "%s", name);
}

/* Logs without the zeros behind them, and a META that knows no better: more runs a second. */
static inline void fuzz_shorten(void) {
    for (size_t i = 0; i < fuzz_file_count; i++) {
        fuzz_file *file = &fuzz_files[i];
        for (int slot = 0; slot < 2 && strcmp(file->name, "META") == 0; slot++) {
            uint8_t *bytes = file->bytes + slot * IQ_META_SLOT_SIZE;
            for (int log = 0; log < 2; log++)
                iq_put_u64(bytes + IQ_META_LOG_AT + log * IQ_META_LOG_SIZE + IQ_META_LOG_BYTES_AT, 0);
            iq_put_u32(bytes + IQ_PAGE_CRC_AT, iq_crc32(iq_crc32(0, bytes, 8), bytes + 12, IQ_META_SLOT_SIZE - 12));
        }
        while (file->name[0] == 'w' && file->size >= 8192 && file->bytes[file->size - 4096] == 0) file->size -= 4096;
    }
}

/* The sample: a snapshot, and two logs that a switch frame joins; closed or not. Its files go to fuzz_files. */
static inline void fuzz_sample(bool closed) {
    const iqdb_allocator allocator = iq_alloc_default();
    iq_memory_files *set = iq_memory_files_new(&allocator);
    const iqdb_files files = iq_memory_files_table(set);
    iq_directory *directory;
    fuzz_seen seen;
    iqdb_error error;
    void *dir, *file;
    int os_code;
    fuzz_require(fuzz_open(&files, &allocator, false, &seen, &error, &directory) == IQDB_OK, "no sample");
    fuzz_write(directory, 1, 100, true);
    fuzz_require(checkpoint_by(directory, fuzz_image, NULL) == IQDB_OK, "no snapshot");
    fuzz_write(directory, 2, 8000, true);
    fuzz_require(checkpoint_by(directory, fuzz_no_image, NULL) == IQDB_ERR_NOSPACE, "no switch");
    fuzz_write(directory, 3, 50, false);
    fuzz_write(directory, 4, 50, true);
    fuzz_write(directory, 5, 50, true);
    if (closed)
        fuzz_require(iq_directory_close(directory) == IQDB_OK, "not closed");
    else
        iq_directory_abandon(directory);
    fuzz_require(files.dir_open_fn("db", false, &dir, &os_code, files.user) == IQDB_OK, "no directory");
    files.dir_list_fn(dir, fuzz_collect, NULL, &os_code, files.user);
    for (size_t i = 0; i < fuzz_file_count; i++) {
        uint64_t size;
        fuzz_require(files.open_fn(dir, fuzz_files[i].name, IQDB_OPEN_READ, &file, &os_code, files.user) == IQDB_OK,
                     "");
        files.size_fn(file, &size, &os_code, files.user);
        fuzz_files[i].bytes = (uint8_t *)malloc((size_t)size + 1);
        files.read_fn(file, 0, fuzz_files[i].bytes, (size_t)size, &fuzz_files[i].size, &os_code, files.user);
        files.close_fn(file, files.user);
    }
    files.dir_close_fn(dir, files.user);
    iq_memory_files_free(set);
    if (closed) fuzz_shorten(); /* else the switch frame knows */
}

static inline fuzz_file *fuzz_file_of(const char *name) {
    for (size_t i = 0; i < fuzz_file_count; i++)
        if (strcmp(fuzz_files[i].name, name) == 0) return &fuzz_files[i];
    fuzz_require(false, name);
    return NULL;
}

static inline bool fuzz_is_documented(iqdb_result result) {
    return result == IQDB_OK || result == IQDB_ERR_CORRUPT || result == IQDB_ERR_VERSION || result == IQDB_ERR_LIMIT ||
           result == IQDB_ERR_NOT_FOUND;
}

/* Opens the files of fuzz_files for reading; `deep`: then in all other ways. */
static inline void fuzz_run(bool deep) {
    const iqdb_allocator plain = iq_alloc_default();
    support_heap heap = support_heap_make();
    const iqdb_allocator allocator = support_allocator(&heap);
    iq_memory_files *set = iq_memory_files_new(&plain);
    const iqdb_files files = iq_memory_files_table(set);
    fuzz_seen first, again;
    iqdb_error error;
    iq_directory *directory;
    void *dir, *file;
    int os_code;
    size_t total = 0;
    fuzz_require(files.dir_open_fn("db", true, &dir, &os_code, files.user) == IQDB_OK, "no directory");
    for (size_t i = 0; i < fuzz_file_count; i++) {
        fuzz_require(files.open_fn(dir, fuzz_files[i].name, IQDB_OPEN_CREATE, &file, &os_code, files.user) == IQDB_OK,
                     "");
        if (fuzz_files[i].size > 0)
            files.write_fn(file, 0, fuzz_files[i].bytes, fuzz_files[i].size, &os_code, files.user);
        files.close_fn(file, files.user);
        total += fuzz_files[i].size;
    }
    files.dir_close_fn(dir, files.user);
    /* Whatever is there, repair makes of it a database, or says that there is nothing to make one of. */
    iqdb_options options = iqdb_options_default();
    options.allocator = allocator;
    options.files = files;
    iqdb_result result = iqdb_repair("db", deep ? "new" : NULL, &options, NULL, NULL);
    fuzz_require(fuzz_is_documented(result) || result == IQDB_ERR_INVALID_CONFIG, "an undocumented code of repair");
    fuzz_require(heap.peak_bytes <= 2 * total + 524288, "too much memory for repair");
    if (deep && result == IQDB_OK) {
        iqdb *db = NULL;
        fuzz_require(iqdb_open("new", &options, &db) == IQDB_OK, "repair made no database");
        fuzz_require(iqdb_verify(db, IQDB_DEPTH_DEFAULT, NULL, NULL) == IQDB_OK, "repair made a damaged database");
        iqdb_close(db);
    }
    heap.peak_bytes = 0;
    result = fuzz_open(&files, &allocator, true, &first, &error, &directory);
    fuzz_require(fuzz_is_documented(result), "an undocumented code");
    fuzz_require(result == IQDB_OK || error.code == result, "a failure without a report");
    fuzz_require(result == IQDB_OK || result == IQDB_ERR_NOT_FOUND || error.file[0] != 0, "a failure without a file");
    fuzz_require(heap.peak_bytes <= 2 * total + 262144, "too much memory");
    if (result == IQDB_OK) {
        (void)iq_directory_verify(directory, IQDB_DEPTH_BLOCKS, NULL, NULL);
        iq_directory_abandon(directory);
        if (deep) result = fuzz_open(&files, &allocator, false, &again, &error, &directory);
        /* To go on writing it looks closer: a lie may come to light then. */
        fuzz_require(result == IQDB_OK || result == IQDB_ERR_CORRUPT || result == IQDB_ERR_LIMIT, "not for writing");
    }
    if (deep && result == IQDB_OK) {
        fuzz_require(again.count == first.count && again.digest == first.digest, "other records for writing");
        fuzz_write(directory, 9, 9000, true);
        iq_directory_abandon(directory);
        fuzz_require(fuzz_open(&files, &allocator, false, &again, &error, &directory) == IQDB_OK, "not after a write");
        fuzz_require(again.count == first.count + 1, "other records after a write");
        fuzz_require(iq_directory_close(directory) == IQDB_OK, "not closed");
        fuzz_require(fuzz_open(&files, &allocator, true, &again, &error, &directory) == IQDB_OK, "not after a close");
        fuzz_require(again.count == first.count + 1, "other records after a close");
        iq_directory_abandon(directory);
    }
    fuzz_require(support_heap_problems(&heap) == 0, "memory leaked");
    iq_memory_files_free(set);
}

/* Applies the input as patches of three bytes: a place, and what is added there. */
static inline void fuzz_patch(uint8_t *bytes, size_t limit, const uint8_t *data, size_t size) {
    for (size_t i = 0; i + 3 <= size; i += 3) {
        const size_t at = iq_get_u16(data + i) % limit;
        bytes[at] = (uint8_t)(bytes[at] + data[i + 2]);
    }
}

#endif
