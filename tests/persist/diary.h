/* The smallest database over a directory: a list of numbers. Each is a record whose length and bytes follow from it, so
 * that whatever comes back can be checked; a snapshot holds the list. Tests of persist/ compare lists. */
#ifndef DIARY_H
#define DIARY_H

#include "persist/checkpoint.h"
#include "base/bytes.h"
#include "sys/sys.h"

#include <stdio.h>
#include <stdlib.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#define DIARY_HEAD 16

typedef struct diary {
    iq_directory *directory;
    iqdb_files files;
    iqdb_allocator allocator;
    iq_crc32_fn crc32;
    const char *path;
    uint64_t *values;
    size_t count, capacity;
    uint64_t batch_first, last_lsn; /* of replay: LSNs must not go back */
    size_t large_every;             /* one record in so many is larger than a frame; 0: none */
    bool is_deaf;                   /* there is no logger */
    bool schema_seen, snapshot_seen;
    iqdb_error error; /* the last one reported */
    size_t warnings;
    iq_reporter reporter;
    uint64_t entropy;
    const char *trouble; /* what replay found wrong */
} diary;

/* Images of disks come and go by the thousand: their pages are kept, or the system spends more time than the test. */
static inline void diary_keep_memory(void) {
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 1 << 26);
    mallopt(M_TRIM_THRESHOLD, 1 << 28);
#endif
}

static inline size_t diary_record_size(const diary *book, uint64_t value) {
    if (book->large_every > 0 && value % book->large_every == 1)
        return DIARY_HEAD + 7000 + (size_t)(value * 7919 % 40000);
    return DIARY_HEAD + (size_t)(value * 37 % 150);
}

static inline void diary_fill(const diary *book, uint64_t value, uint8_t *bytes) {
    const size_t size = diary_record_size(book, value);
    memset(bytes, 0, DIARY_HEAD);
    bytes[0] = 1;
    iq_put_u64(bytes + 8, value);
    for (size_t i = DIARY_HEAD; i < size; i++) bytes[i] = (uint8_t)(value + i * 31 + (i >> 8));
}

static inline void diary_append(diary *book, uint64_t value) {
    if (book->count == book->capacity) {
        book->capacity = book->capacity * 2 + 64;
        book->values = (uint64_t *)realloc(book->values, book->capacity * sizeof(uint64_t));
    }
    book->values[book->count++] = value;
}

static inline iqdb_result diary_on_schema(const iq_manifest *manifest, void *user) {
    diary *book = (diary *)user;
    const iq_schema *schema = &manifest->schema;
    book->count = 0; /* what is read only may be read twice */
    book->last_lsn = 0;
    book->schema_seen = true;
    if (schema->dim != 7 || schema->metric != 2 || schema->element != 0) book->trouble = "another schema";
    return IQDB_OK;
}

static inline iqdb_result diary_on_snapshot(iq_snapshot_reader *reader, void *user) {
    diary *book = (diary *)user;
    uint64_t size;
    book->snapshot_seen = true;
    if (!iq_snapshot_find(reader, 0, 2, &size) || size % 8 != 0) return iq_snapshot_reject(reader, 0, 2, 0, "no list");
    for (uint64_t at = 0; at < size; at += 8) {
        uint8_t bytes[8];
        const iqdb_result result = iq_snapshot_read(reader, 0, 2, at, bytes, 8);
        if (result != IQDB_OK) return result;
        diary_append(book, iq_get_u64(bytes));
    }
    return IQDB_OK;
}

static inline iqdb_result diary_on_record(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user) {
    diary *book = (diary *)user;
    if (size < DIARY_HEAD || bytes[0] != 1) return IQDB_ERR_CORRUPT;
    const uint64_t value = iq_get_u64(bytes + 8);
    const size_t want = diary_record_size(book, value);
    if (size < want || commit_lsn < book->last_lsn) return IQDB_ERR_CORRUPT;
    uint8_t *expected = (uint8_t *)calloc(1, size);
    diary_fill(book, value, expected);
    const bool same = memcmp(expected, bytes, size) == 0;
    free(expected);
    if (!same) book->trouble = "a record has other bytes";
    book->last_lsn = commit_lsn;
    diary_append(book, value);
    return same ? IQDB_OK : IQDB_ERR_CORRUPT;
}

static inline void diary_on_log(iqdb_level level, const iqdb_error *message, void *user) {
    diary *book = (diary *)user;
    (void)message;
    if (level == IQDB_LEVEL_WARNING) book->warnings++;
}

/* The same numbers in every run, but different salts. */
static inline bool diary_entropy(void *bytes, size_t size, void *user) {
    uint64_t *state = (uint64_t *)user;
    for (size_t i = 0; i < size; i++) {
        *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        ((uint8_t *)bytes)[i] = (uint8_t)(*state >> 56);
    }
    return true;
}

static inline diary diary_make(iqdb_files files, const char *path) {
    diary book;
    memset(&book, 0, sizeof book);
    book.files = files;
    book.path = path;
    book.allocator = iq_alloc_default();
    book.crc32 = iq_crc32_select(iq_cpu_features(), IQDB_SIMD_BEST);
    book.entropy = 1;
    return book;
}

static inline iqdb_result diary_open_as(diary *book, bool read_only) {
    iq_directory_config config;
    iq_loader loader;
    memset(&config, 0, sizeof config);
    memset(&loader, 0, sizeof loader);
    memset(&book->error, 0, sizeof book->error);
    book->count = 0;
    book->last_lsn = 0;
    book->schema_seen = book->snapshot_seen = false;
    book->warnings = 0;
    book->trouble = NULL;
    book->reporter.error = &book->error;
    book->reporter.logger.log_fn = book->is_deaf ? NULL : diary_on_log;
    book->reporter.logger.user = book;
    config.volume.allocator = book->allocator;
    config.volume.files = book->files;
    config.entropy.fill_fn = diary_entropy;
    config.entropy.user = &book->entropy;
    config.volume.reporter = &book->reporter;
    config.volume.crc32 = book->crc32;
    config.read_only = read_only;
    config.schema.dim = 7;
    config.schema.metric = 2;
    loader.schema_fn = diary_on_schema;
    loader.snapshot_fn = diary_on_snapshot;
    loader.record_fn = diary_on_record;
    loader.user = book;
    loader.mapped = NULL;
    return iq_directory_open(book->path, &config, &loader, &book->directory);
}

static inline iqdb_result diary_open(diary *book) { return diary_open_as(book, false); }

/* Writes the batch, and syncs where it is to be durable. */
static inline iqdb_result diary_commit(iq_directory *directory, bool sync, uint64_t *out_lsn) {
    int os_code;
    const iqdb_result result = iq_directory_batch_commit(directory, sync, false, out_lsn);
    if (result != IQDB_OK || !sync) return result;
    const iqdb_result synced = iq_directory_sync(directory, &os_code);
    return iq_directory_synced(directory, synced, os_code);
}

/* One batch of `count` numbers from `first` on; they join the list when the commit says OK. */
static inline iqdb_result diary_write(diary *book, uint64_t first, size_t count, bool sync) {
    iq_wal *wal;
    iqdb_result result = iq_directory_batch_begin(book->directory, &wal);
    if (result != IQDB_OK) return result;
    for (size_t i = 0; i < count && result == IQDB_OK; i++) {
        const size_t size = diary_record_size(book, first + i);
        uint8_t *bytes = (uint8_t *)malloc(size);
        diary_fill(book, first + i, bytes);
        /* In three pieces, as the database gives them. */
        iq_slice pieces[3];
        pieces[0].bytes = bytes;
        pieces[0].size = 5;
        pieces[1].bytes = bytes + 5;
        pieces[1].size = size / 2;
        pieces[2].bytes = bytes + 5 + size / 2;
        pieces[2].size = size - 5 - size / 2;
        result = iq_wal_add(wal, pieces, 3);
        free(bytes);
    }
    if (result != IQDB_OK) {
        iq_wal_abort(wal);
        return result;
    }
    uint64_t lsn;
    result = diary_commit(book->directory, sync, &lsn);
    for (size_t i = 0; i < count && result == IQDB_OK; i++) diary_append(book, first + i);
    return result;
}

static inline iqdb_result diary_image(iq_snapshot_writer *writer, void *user) {
    diary *book = (diary *)user;
    iqdb_result result = iq_snapshot_section(writer, 0, 1, 5);
    if (result == IQDB_OK) result = iq_snapshot_write(writer, "hello", 5);
    if (result == IQDB_OK) result = iq_snapshot_section(writer, 0, 2, book->count * 8);
    for (size_t i = 0; i < book->count && result == IQDB_OK; i++) {
        uint8_t bytes[8];
        iq_put_u64(bytes, book->values[i]);
        result = iq_snapshot_write(writer, bytes, 8);
    }
    return result;
}

static inline iqdb_result diary_checkpoint(diary *book) {
    return checkpoint_by(book->directory, diary_image, book);
}

static inline iqdb_result diary_close(diary *book) {
    const iqdb_result result = book->directory == NULL ? IQDB_OK : iq_directory_close(book->directory);
    book->directory = NULL;
    return result;
}

/* As a crash of the process would: nothing more is written. */
static inline void diary_crash(diary *book) {
    if (book->directory != NULL) iq_directory_abandon(book->directory);
    book->directory = NULL;
}

static inline void diary_free(diary *book) {
    diary_crash(book);
    free(book->values);
    book->values = NULL;
    book->count = book->capacity = 0;
}

/* Whether the list is first, first + 1, ... count numbers. */
static inline bool diary_counts(const diary *book, uint64_t first, size_t count) {
    if (book->trouble != NULL) printf("\n    diary: %s", book->trouble);
    if (book->count != count || book->trouble != NULL) return false;
    for (size_t i = 0; i < count; i++)
        if (book->values[i] != first + i) return false;
    return true;
}

static inline iqdb_stats diary_facts(const diary *book) {
    iqdb_stats facts;
    iq_directory_describe(book->directory, &facts);
    return facts;
}

#endif
