/* What the tests of the public face share: short ways to make arguments, the scores a database must give, digests of
 * what it holds, and the files of a directory as plain bytes. Nothing here knows how anything is done inside.
 * Written in what C99 and C++11 have in common. */
#ifndef API_PUBLIC_H
#define API_PUBLIC_H

#include <iqdb.h>

#include "scores.h"
#include "test.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>

/* ---- Arguments ---- */

static inline iqdb_field public_field(const char *key, iqdb_value value) {
    iqdb_field field;
    field.key = key;
    field.value = value;
    return field;
}

static inline iqdb_record public_record(uint64_t id, const float *vector, uint32_t dim) {
    iqdb_record record = iqdb_record_default();
    record.id = id;
    record.vector = vector;
    record.dim = dim;
    return record;
}

static inline iqdb_query public_query(const float *vector, uint32_t dim, size_t k, iqdb_metric metric) {
    iqdb_query query = iqdb_query_default();
    query.vector = vector;
    query.dim = dim;
    query.k = k;
    query.metric = metric;
    return query;
}

static inline iqdb_result public_put(iqdb *db, uint64_t id, const float *vector, uint32_t dim) {
    const iqdb_record record = public_record(id, vector, dim);
    return iqdb_upsert(db, &record);
}

/* A record whose three elements and payload follow from the id and a version, so that a test can tell what it sees. */
#define PUBLIC_DIM 3u

static inline void public_vector(uint64_t id, uint64_t version, float vector[PUBLIC_DIM]) {
    uint64_t state = id * 1000003u + version;
    vector[0] = support_random_float(&state);
    vector[1] = support_random_float(&state);
    vector[2] = support_random_float(&state);
}

static inline iqdb_result public_store(iqdb *db, uint64_t id, uint64_t version) {
    float vector[PUBLIC_DIM];
    iqdb_field fields[2];
    public_vector(id, version, vector);
    fields[0] = public_field("version", iqdb_int((int64_t)version));
    fields[1] = public_field("name", iqdb_text(version % 2 == 0 ? "even" : "odd"));
    iqdb_record record = public_record(id, vector, PUBLIC_DIM);
    if (version % 3 != 0) { /* every third has no payload */
        record.fields = fields;
        record.field_count = 2;
    }
    return iqdb_upsert(db, &record);
}

/* Whether the record of `id` is the one that public_store wrote. */
static inline int public_holds(const iqdb *db, uint64_t id, uint64_t version) {
    float vector[PUBLIC_DIM];
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_record record = iqdb_record_default();
    public_vector(id, version, vector);
    int holds = iqdb_get(db, id, &buffer, &record) == IQDB_OK && record.id == id && record.dim == PUBLIC_DIM &&
                memcmp(record.vector, vector, sizeof vector) == 0;
    if (holds && version % 3 == 0) holds = record.payload.bytes == NULL;
    if (holds && version % 3 != 0) {
        const char *name = iqdb_payload_text(record.payload, "name", NULL);
        holds = iqdb_payload_int(record.payload, "version", -1) == (int64_t)version && name != NULL &&
                strcmp(name, version % 2 == 0 ? "even" : "odd") == 0 && iqdb_payload_count(record.payload) == 2;
    }
    iqdb_buffer_free(&buffer);
    return holds;
}

/* ---- Digests ---- */

static inline uint64_t digest_record(const iqdb_record *record) {
    uint64_t digest = digest_u64(PUBLIC_DIGEST, record->id);
    digest = digest_u64(digest, record->dim);
    for (uint32_t i = 0; i < record->dim; i++) digest = digest_score(digest, record->vector[i]);
    digest = digest_u64(digest, record->payload.bytes == NULL ? 0 : record->payload.size + 1);
    if (record->payload.bytes != NULL) digest = digest_bytes(digest, record->payload.bytes, record->payload.size);
    return digest;
}

/* Everything a database holds, in any order, read by iteration and again by id. */
static inline uint64_t digest_database(const iqdb *db) {
    uint64_t digest = 0, records = 0;
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    while (iqdb_iter_next(&iter)) {
        iqdb_record record = iqdb_record_default();
        const uint64_t one = digest_record(&iter.record);
        digest += one;
        records++;
        EXPECT(iqdb_contains(db, iter.record.id));
        if (!EXPECT(iqdb_get(db, iter.record.id, &buffer, &record) == IQDB_OK)) break;
        EXPECT(digest_record(&record) == one);
    }
    EXPECT(iter.result == IQDB_OK);
    iqdb_iter_end(&iter);
    iqdb_buffer_free(&buffer);
    EXPECT(iqdb_len(db) == records);
    EXPECT(iqdb_is_empty(db) == (records == 0));
    return digest ^ records;
}

/* ---- Files as bytes ---- */

/* malloc'ed; NULL where it cannot be read. */
static inline unsigned char *public_read_file(const char *path, size_t *out_size) {
    FILE *file = fopen(path, "rb");
    size_t size = 0, capacity = 4096, got;
    *out_size = 0;
    if (file == NULL) return NULL;
    unsigned char *bytes = (unsigned char *)malloc(capacity);
    while (bytes != NULL && (got = fread(bytes + size, 1, capacity - size, file)) > 0) {
        size += got;
        if (size == capacity) {
            unsigned char *more = (unsigned char *)realloc(bytes, capacity *= 2);
            if (more == NULL) free(bytes);
            bytes = more;
        }
    }
    fclose(file);
    *out_size = size;
    return bytes;
}

static inline int public_write_file(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    if (file == NULL) return 0;
    const int written = fwrite(bytes, 1, size, file) == size;
    return fclose(file) == 0 && written;
}

/* Calls each with the name of every entry but "." and ".."; in no order. */
static inline int public_list(const char *path, void (*each)(const char *name, void *user), void *user) {
    DIR *directory = opendir(path);
    if (directory == NULL) return 0;
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) each(entry->d_name, user);
    closedir(directory);
    return 1;
}

typedef struct public_transfer {
    const char *from;
    const char *to;
    int ok;
} public_transfer;

static inline void public_copy_one(const char *name, void *user) {
    public_transfer *transfer = (public_transfer *)user;
    char from[SUPPORT_PATH_MAX], to[SUPPORT_PATH_MAX];
    size_t size;
    support_join(from, transfer->from, name);
    support_join(to, transfer->to, name);
    unsigned char *bytes = public_read_file(from, &size);
    if (bytes == NULL || !public_write_file(to, bytes, size)) transfer->ok = 0;
    free(bytes);
}

/* What a power cut leaves where the system had written everything: the files as they are, in a fresh directory. */
static inline int public_copy(const char *from, const char *to) {
    public_transfer transfer;
    transfer.from = from;
    transfer.to = to;
    transfer.ok = 1;
    support_remove(to);
    if (mkdir(to, 0700) != 0) return 0;
    return public_list(from, public_copy_one, &transfer) && transfer.ok;
}

typedef struct public_search {
    const char *folder;
    const char *prefix;
    char name[64]; /* the greatest, by length and then by bytes, so that wal-10 comes after wal-9 */
    size_t count;
    uint64_t digest;
} public_search;

static inline void public_find_one(const char *name, void *user) {
    public_search *search = (public_search *)user;
    if (strncmp(name, search->prefix, strlen(search->prefix)) != 0) return;
    search->count++;
    const size_t length = strlen(name), best = strlen(search->name);
    if (length >= sizeof search->name) return;
    if (length > best || (length == best && strcmp(name, search->name) > 0)) strcpy(search->name, name);
}

/* The files of a directory whose names begin with `prefix`; name, when not NULL, gets the greatest. */
static inline size_t public_find(const char *folder, const char *prefix, char name[64]) {
    public_search search;
    memset(&search, 0, sizeof search);
    search.folder = folder;
    search.prefix = prefix;
    if (!public_list(folder, public_find_one, &search)) return 0;
    if (name != NULL) strcpy(name, search.name);
    return search.count;
}

static inline void public_digest_one(const char *name, void *user) {
    public_search *search = (public_search *)user;
    char path[SUPPORT_PATH_MAX];
    size_t size;
    if (strcmp(name, "LOCK") == 0) return; /* holds no data */
    support_join(path, search->folder, name);
    unsigned char *bytes = public_read_file(path, &size);
    const uint64_t digest = digest_bytes(PUBLIC_DIGEST, name, strlen(name) + 1);
    search->digest += digest_bytes(digest_u64(digest, size), bytes, bytes != NULL ? size : 0);
    free(bytes);
}

/* Names and bytes of all files of a directory: has an open that failed modified anything? */
static inline uint64_t digest_directory(const char *path) {
    public_search search;
    memset(&search, 0, sizeof search);
    search.folder = path;
    EXPECT(public_list(path, public_digest_one, &search));
    return search.digest;
}

/* Where `needle` stands in the bytes, from `start` on; (size_t)-1 when it does not. */
static inline size_t public_find_bytes(const unsigned char *bytes, size_t size, size_t start, const void *needle,
                                       size_t needle_size) {
    for (size_t i = start; i + needle_size <= size; i++)
        if (memcmp(bytes + i, needle, needle_size) == 0) return i;
    return (size_t)-1;
}

/* The offset in folder/name at which the vector of public_store(id, version) stands; (size_t)-1 when nowhere. */
static inline size_t public_find_vector(const char *folder, const char *name, uint64_t id, uint64_t version) {
    char path[SUPPORT_PATH_MAX];
    float vector[PUBLIC_DIM];
    size_t size;
    support_join(path, folder, name);
    public_vector(id, version, vector);
    unsigned char *bytes = public_read_file(path, &size);
    const size_t at = bytes == NULL ? (size_t)-1 : public_find_bytes(bytes, size, 0, vector, sizeof vector);
    free(bytes);
    return at;
}

/* Changes one byte of folder/name. */
static inline int public_flip(const char *folder, const char *name, size_t offset, unsigned char mask) {
    char path[SUPPORT_PATH_MAX];
    size_t size;
    support_join(path, folder, name);
    unsigned char *bytes = public_read_file(path, &size);
    int ok = bytes != NULL && offset < size;
    if (ok) bytes[offset] ^= mask;
    ok = ok && public_write_file(path, bytes, size);
    free(bytes);
    return ok;
}

/* The system's files without waiting for the disk, for tests that cut no power: ten times as fast. */
static inline iqdb_result public_no_sync(void *file_or_dir, int *os_code, void *user) {
    (void)file_or_dir;
    (void)user;
    *os_code = 0;
    return IQDB_OK;
}

static inline iqdb_files public_quick_files(void) {
    iqdb_files files = iqdb_files_default();
    files.sync_fn = public_no_sync;
    files.dir_sync_fn = public_no_sync;
    return files;
}

/* ---- A logger that remembers ---- */

typedef struct public_log {
    int messages;
    int errors;
    iqdb_error last; /* of level ERROR, else of any */
} public_log;

static inline void public_log_message(iqdb_level level, const iqdb_error *message, void *user) {
    public_log *log = (public_log *)user;
    log->messages++;
    if (level == IQDB_LEVEL_ERROR) log->errors++;
    if (level == IQDB_LEVEL_ERROR || log->errors == 0) log->last = *message;
}

static inline iqdb_logger public_logger(public_log *log) {
    iqdb_logger logger;
    logger.log_fn = public_log_message;
    logger.user = log;
    return logger;
}

/* ---- Entropy that is the same in every run ---- */

static inline bool public_fill(void *bytes, size_t size, void *user) {
    uint64_t *state = (uint64_t *)user;
    unsigned char *out = (unsigned char *)bytes;
    for (size_t i = 0; i < size; i++) out[i] = (unsigned char)support_random(state);
    return true;
}

static inline iqdb_entropy public_entropy(uint64_t *state) {
    iqdb_entropy entropy;
    entropy.fill_fn = public_fill;
    entropy.user = state;
    return entropy;
}

#endif
