/* What is left of the database under each IQDB_NO_* switch, run: in memory by an allocator of its own, in a block, over
 * files of its own, and refused with a clear code where the switch has taken away what a call needs. test_switches.py
 * compiles and runs it; argv[1] names the switches, and argv[2] a file: the blob is written to it, or, by a program that
 * is for reading only, read from it. Nothing here is measured, and the C library is only used to print and for that. */
#include "iqdb.h"

#include <stdio.h>
#include <string.h>

static int failed;
static void check(bool right, const char *what, int line) {
    if (right) return;
    printf("line %d: %s\n", line, what);
    failed = 1;
}
#define CHECK(condition) check((condition), #condition, __LINE__)

/* An allocator over static memory: a stack that is never taken down. */
static union {
    double alignment;
    uint8_t bytes[4 << 20];
} memory;
static size_t memory_used;
static void *memory_alloc(size_t size, size_t alignment, void *user) {
    (void)user;
    const size_t skip = (size_t)(-(uintptr_t)(memory.bytes + memory_used) & (alignment - 1));
    if (size + skip > sizeof memory.bytes - memory_used) return NULL;
    memory_used += skip + size;
    return memory.bytes + memory_used - size;
}
static void memory_free(void *bytes, size_t size, size_t alignment, void *user) {
    (void)bytes, (void)size, (void)alignment, (void)user;
}

static iqdb_options own_options(void) {
    iqdb_options options = iqdb_options_default();
    options.allocator.alloc_fn = memory_alloc;
    options.allocator.free_fn = memory_free;
    return options;
}
#if !defined(IQDB_NO_FILES)
/* A directory of a few files in static memory. */
typedef struct disk_file {
    char name[32];
    bool exists;
    size_t size;
    uint8_t bytes[1 << 17];
} disk_file;
static disk_file disk[8];

static disk_file *disk_find(const char *name) {
    for (size_t i = 0; i < 8; i++)
        if (disk[i].exists && strcmp(disk[i].name, name) == 0) return &disk[i];
    return NULL;
}
static iqdb_result disk_dir_open(const char *path, bool create, void **out_dir, int *os_code, void *user) {
    (void)path, (void)create, (void)os_code, (void)user;
    *out_dir = disk;
    return IQDB_OK;
}
static void disk_close(void *handle, void *user) { (void)handle, (void)user; }
static iqdb_result disk_sync(void *handle, int *os_code, void *user) {
    (void)handle, (void)os_code, (void)user;
    return IQDB_OK;
}
static iqdb_result disk_list(void *dir, void (*each_fn)(const char *, void *), void *each_user, int *os_code,
                             void *user) {
    (void)dir, (void)os_code, (void)user;
    for (size_t i = 0; i < 8; i++)
        if (disk[i].exists) each_fn(disk[i].name, each_user);
    return IQDB_OK;
}
static iqdb_result disk_remove(void *dir, const char *name, int *os_code, void *user) {
    disk_file *file = disk_find(name);
    (void)dir, (void)os_code, (void)user;
    if (file == NULL) return IQDB_ERR_NOT_FOUND;
    file->exists = false;
    return IQDB_OK;
}
static iqdb_result disk_open(void *dir, const char *name, iqdb_open_kind kind, void **out_file, int *os_code,
                             void *user) {
    disk_file *file = disk_find(name);
    (void)dir, (void)os_code, (void)user;
    if (kind != IQDB_OPEN_CREATE && file == NULL) return IQDB_ERR_NOT_FOUND;
    if (kind == IQDB_OPEN_CREATE && file != NULL) return IQDB_ERR_INVALID_CONFIG;
    for (size_t i = 0; i < 8 && file == NULL; i++)
        if (!disk[i].exists) file = &disk[i];
    if (file == NULL) return IQDB_ERR_NOSPACE;
    if (kind == IQDB_OPEN_CREATE) {
        file->exists = true;
        file->size = 0;
        memcpy(file->name, name, strlen(name) + 1);
    }
    *out_file = file;
    return IQDB_OK;
}
static iqdb_result disk_size(void *handle, uint64_t *out_size, int *os_code, void *user) {
    (void)os_code, (void)user;
    *out_size = ((const disk_file *)handle)->size;
    return IQDB_OK;
}
static iqdb_result disk_read(void *handle, uint64_t offset, void *bytes, size_t size, size_t *out_size, int *os_code,
                             void *user) {
    const disk_file *file = (const disk_file *)handle;
    (void)os_code, (void)user;
    *out_size = offset >= file->size ? 0 : file->size - (size_t)offset;
    if (*out_size > size) *out_size = size;
    if (*out_size > 0) memcpy(bytes, file->bytes + offset, *out_size);
    return IQDB_OK;
}
static iqdb_result disk_write(void *handle, uint64_t offset, const void *bytes, size_t size, int *os_code, void *user) {
    disk_file *file = (disk_file *)handle;
    (void)os_code, (void)user;
    if (offset + size > sizeof file->bytes) return IQDB_ERR_NOSPACE;
    if (offset > file->size) memset(file->bytes + file->size, 0, (size_t)offset - file->size);
    memcpy(file->bytes + offset, bytes, size);
    if (offset + size > file->size) file->size = (size_t)offset + size;
    return IQDB_OK;
}
static iqdb_result disk_lock(void *handle, bool exclusive, int *os_code, void *user) {
    (void)handle, (void)exclusive, (void)os_code, (void)user;
    return IQDB_OK;
}
static bool chance(void *bytes, size_t size, void *user) {
    (void)user;
    memset(bytes, 0x5A, size);
    return true;
}

static iqdb_options own_files(void) {
    iqdb_options options = own_options();
    options.entropy.fill_fn = chance;
    options.files.dir_open_fn = disk_dir_open;
    options.files.dir_close_fn = disk_close;
    options.files.dir_sync_fn = disk_sync;
    options.files.dir_list_fn = disk_list;
    options.files.remove_fn = disk_remove;
    options.files.open_fn = disk_open;
    options.files.close_fn = disk_close;
    options.files.size_fn = disk_size;
    options.files.read_fn = disk_read;
    options.files.write_fn = disk_write;
    options.files.sync_fn = disk_sync;
    options.files.lock_fn = disk_lock;
    return options;
}
#endif

#if !defined(IQDB_READONLY)
static void put(iqdb *db, uint64_t id, float x, float y, int64_t year) {
    const float vector[2] = {x, y};
    iqdb_field fields[2];
    fields[0].key = "year";
    fields[0].value = iqdb_int(year);
    fields[1].key = "kind";
    fields[1].value = iqdb_text(year > 2000 ? "new" : "old");
    iqdb_record record = iqdb_record_default();
    record.id = id;
    record.vector = vector;
    record.dim = 2;
    record.fields = fields;
    record.field_count = 2;
    CHECK(iqdb_upsert(db, &record) == IQDB_OK);
}

#endif

static bool is_of_2001(const iqdb_record *record, void *user) {
    (void)user;
    return iqdb_payload_int(record->payload, "year", 0) == 2001;
}

/* Records 3 and 2; or, in a build without filters, a refusal and not an answer as if there were none. */
static void look_filtered(iqdb *db, const iqdb_query *query) {
    iqdb_hit hits[4];
    size_t count = 7;
    iqdb_query filtered = *query;
#if defined(IQDB_NO_FILTERS)
    iqdb_filter filter;
    memset(&filter, 0, sizeof filter);
    filtered.filter = &filter;
    CHECK(iqdb_search(db, &filtered, hits, &count) == IQDB_ERR_INVALID_FILTER);
    CHECK(iqdb_count(db, &filter, &count) == IQDB_ERR_INVALID_FILTER && count == 7);
    iqdb_iter iter = iqdb_iter_begin(db, &filter);
    CHECK(iter.result == IQDB_ERR_INVALID_FILTER && !iqdb_iter_next(&iter));
    iqdb_iter_end(&iter);
#else
    const iqdb_filter filter = iqdb_eq("kind", iqdb_text("new"));
    filtered.filter = &filter;
    CHECK(iqdb_search(db, &filtered, hits, &count) == IQDB_OK && count == 2 && hits[0].id == 3 && hits[1].id == 2);
    CHECK(iqdb_count(db, &filter, &count) == IQDB_OK && count == 2);
#endif
}

/* Records 3, 2 and 1 as they were put, the nearest to (1, 0) first. */
static void look(iqdb *db) {
    iqdb_hit hits[4];
    size_t count = 0;
    static union {
        double alignment;
        uint8_t bytes[512];
    } room;
    iqdb_buffer buffer = iqdb_buffer_fixed(room.bytes, sizeof room.bytes);
    const float vector[2] = {1.0f, 0.0f};
    iqdb_query query = iqdb_query_default();
    query.vector = vector;
    query.k = 4;
    query.metric = IQDB_L2;
    query.flags = IQDB_WITH_PAYLOAD;
    query.buffer = &buffer;
    CHECK(iqdb_search(db, &query, hits, &count) == IQDB_OK && count == 3);
    CHECK(hits[0].id == 3 && hits[0].score == 0.0f && hits[1].id == 2 && hits[1].score == 5.0f && hits[2].id == 1);
    CHECK(iqdb_payload_int(hits[1].payload, "year", 0) == 2001);
    look_filtered(db, &query);
    const uint64_t ids[3] = {1, 2, 9};
    query.ids = ids;
    query.id_count = 3;
    query.predicate = is_of_2001;
    CHECK(iqdb_search(db, &query, hits, &count) == IQDB_OK && count == 1 && hits[0].id == 2);
    iqdb_record record;
    CHECK(iqdb_get(db, 1, &buffer, &record) == IQDB_OK && record.dim == 2 && record.vector[1] == 12.0f);
    CHECK(strcmp(iqdb_payload_text(record.payload, "kind", NULL), "old") == 0);
    CHECK(iqdb_get(db, 7, &buffer, &record) == IQDB_ERR_NOT_FOUND);
}

#if !defined(IQDB_READONLY)
static void fill(iqdb *db) {
    bool removed = false;
    put(db, 1, 6.0f, 12.0f, 1999);
    put(db, 2, 9.0f, 9.0f, 1999);
    put(db, 3, 1.0f, 0.0f, 2024);
    put(db, 2, 4.0f, 4.0f, 2001);
    put(db, 7, 1.0f, 1.0f, 2024);
    CHECK(iqdb_delete(db, 7, &removed) == IQDB_OK && removed);
    look(db);
}

#endif

static union {
    uint64_t alignment;
    uint8_t bytes[1 << 16];
} blob;
static size_t blob_size;

static void in_place(void) {
    iqdb *db = NULL;
    const iqdb_options options = own_options();
    CHECK(iqdb_open_blob(blob.bytes, blob_size, &options, &db) == IQDB_OK);
    if (db != NULL) look(db);
    CHECK(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL) == IQDB_OK);
    CHECK(iqdb_close(db) == IQDB_OK);
    CHECK(iqdb_open_blob(blob.bytes, blob_size - 1, &options, &db) == IQDB_ERR_CORRUPT && db == NULL);
}

#if defined(IQDB_READONLY)
/* The directory is one that nobody has made. */
static void read_only(void) {
#if !defined(IQDB_NO_FILES)
    iqdb *db = NULL;
    const iqdb_options options = own_files();
    CHECK(iqdb_open("anywhere", &options, &db) == IQDB_ERR_NOT_FOUND && db == NULL);
#endif
}
#else
static bool blob_write(const void *bytes, size_t size, void *user) {
    (void)user;
    if (size > sizeof blob.bytes - blob_size) return false;
    memcpy(blob.bytes + blob_size, bytes, size);
    blob_size += size;
    return true;
}

static void in_memory(void) {
    iqdb *db = NULL;
    const iqdb_options options = own_options();
    CHECK(iqdb_open_in_memory(&options, &db) == IQDB_OK);
    if (db == NULL) return;
    fill(db);
    CHECK(iqdb_export_blob(db, blob_write, NULL) == IQDB_OK);
    CHECK(iqdb_close(db) == IQDB_OK);
}

static void in_a_block(void) {
    static uint8_t block[36 * 1024];
    iqdb *db = NULL;
    iqdb_options options = iqdb_options_default();
    options.dim = 2;
    const size_t size = iqdb_memory_required(&options, 4, 400);
    CHECK(size > 0 && size <= sizeof block);
    CHECK(iqdb_open_in(block, size, &options, &db) == IQDB_OK);
    if (db != NULL) fill(db);
    CHECK(iqdb_close(db) == IQDB_OK);
}

#if !defined(IQDB_NO_FILES)
static void in_own_files(void) {
    const iqdb_options options = own_files();
    for (int round = 0; round < 2; round++) {
        iqdb *db = NULL;
        CHECK(iqdb_open("anywhere", &options, &db) == IQDB_OK);
        if (db == NULL) return;
        if (round == 0) fill(db);
        look(db);
        if (round == 0) CHECK(iqdb_checkpoint(db) == IQDB_OK);
        CHECK(iqdb_close(db) == IQDB_OK);
    }
}

#endif

/* What a switch has taken away is missed with a code that says so. */
static void without(const char *switches) {
    iqdb *db = NULL;
    iqdb_error error;
    const bool no_libc = strstr(switches, "IQDB_NO_LIBC") != NULL;
    const bool no_malloc = no_libc || strstr(switches, "IQDB_NO_MALLOC") != NULL;
    const bool no_os = no_malloc || strstr(switches, "IQDB_NO_FILES") != NULL || strstr(switches, "IQDB_NO_OS") != NULL;
    iqdb_options options = iqdb_options_default();
    options.error = &error;
    CHECK(iqdb_open_in_memory(&options, &db) == (no_malloc ? IQDB_ERR_INVALID_CONFIG : IQDB_OK));
    if (no_malloc) CHECK(strstr(error.text, "IQDB_NO_MALLOC") != NULL && db == NULL);
    CHECK(iqdb_close(db) == IQDB_OK);
    options = own_options();
    options.error = &error;
    CHECK((iqdb_files_default().dir_open_fn == NULL) == no_os);
    for (int index = IQDB_INDEX_HNSW; index <= IQDB_INDEX_IVF; index++) {
        options.index = (iqdb_index)index;
        const bool left_out = strstr(switches, index == IQDB_INDEX_HNSW ? "IQDB_NO_HNSW" : "IQDB_NO_IVF") != NULL;
        CHECK(iqdb_open_in_memory(&options, &db) == (left_out ? IQDB_ERR_INVALID_CONFIG : IQDB_OK));
        CHECK(iqdb_close(db) == IQDB_OK);
    }
    options.index = IQDB_INDEX_AUTO;
#if !defined(IQDB_NO_FILES)
    if (no_os) {
        CHECK(iqdb_open("smoke-db", &options, &db) == IQDB_ERR_INVALID_CONFIG && db == NULL);
        CHECK(strstr(error.text, "IQDB_NO_OS") != NULL);
        options = own_files();
        options.error = &error;
        options.entropy.fill_fn = NULL; /* nor is there chance */
        memset(disk, 0, sizeof disk);
        CHECK(iqdb_open("smoke-db", &options, &db) == IQDB_ERR_IO && db == NULL);
        CHECK(strstr(error.text, "options.entropy") != NULL);
    } else {
        CHECK(iqdb_open("smoke-db", &options, &db) == IQDB_OK);
        fill(db);
        CHECK(iqdb_close(db) == IQDB_OK);
    }
#endif
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload payload;
    payload.bytes = NULL;
    payload.size = 0;
    CHECK(iqdb_payload_with(payload, NULL, 0, &buffer, &payload) == (no_malloc ? IQDB_ERR_NOMEM : IQDB_OK));
    iqdb_buffer_free(&buffer);
}

#endif

int main(int argc, char **argv) {
    FILE *file = NULL;
    if (argc != 3) return 2;
#if defined(IQDB_READONLY)
    file = fopen(argv[2], "rb");
    if (file == NULL) return 2;
    blob_size = fread(blob.bytes, 1, sizeof blob.bytes, file);
    read_only();
#else
    in_memory();
    in_a_block();
#if !defined(IQDB_NO_FILES)
    in_own_files();
#endif
    without(argv[1]);
    file = fopen(argv[2], "wb");
    if (file == NULL) return 2;
    CHECK(fwrite(blob.bytes, 1, blob_size, file) == blob_size);
#endif
    CHECK(fclose(file) == 0);
    in_place();
    return failed;
}
