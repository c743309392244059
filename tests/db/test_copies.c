/* Export, load and backup while files or memory fail: the Nth call or allocation, once or for ever. The source is as it
 * was, nothing leaks, and what stands in the target is a whole copy where the code says OK, and no database otherwise. */
#include "api.h"
#include "fault.h"
#include "persist/format.h"
#include "support.h"
#include "test.h"

#define COUNT 90u
#define DIM 40u

static void vector_of(uint64_t id, float *vector) {
    uint64_t state = id + 1;
    for (size_t i = 0; i < DIM; i++) vector[i] = support_random_float(&state);
}

static iqdb_result store(iqdb *db, uint64_t id) {
    float vector[DIM];
    iqdb_field field;
    vector_of(id, vector);
    field.key = "n";
    field.value = iqdb_int((int64_t)id);
    iqdb_record record = iqdb_record_default();
    record.id = id;
    record.vector = vector;
    record.dim = DIM;
    record.fields = id % 3 != 0 ? &field : NULL;
    record.field_count = id % 3 != 0;
    return iqdb_upsert(db, &record);
}

static bool holds_all(const iqdb *db) {
    iqdb_buffer buffer = iqdb_buffer_default();
    bool all = iqdb_len(db) == COUNT;
    for (uint64_t id = 0; id < COUNT && all; id++) {
        float vector[DIM];
        iqdb_record record;
        vector_of(id, vector);
        all = iqdb_get(db, id, &buffer, &record) == IQDB_OK && memcmp(record.vector, vector, sizeof vector) == 0 &&
              iqdb_payload_int(record.payload, "n", -1) == (id % 3 != 0 ? (int64_t)id : -1);
    }
    iqdb_buffer_free(&buffer);
    return all;
}

static iqdb *fill(const iqdb_options *options) {
    iqdb *db = NULL;
    EXPECT(iqdb_open("db", options, &db) == IQDB_OK);
    for (uint64_t id = 0; id < COUNT / 2; id++) EXPECT(store(db, id) == IQDB_OK);
    EXPECT(iqdb_checkpoint(db) == IQDB_OK);
    for (uint64_t id = COUNT / 2; id < COUNT; id++) EXPECT(store(db, id) == IQDB_OK);
    return db;
}

static bool has(fault_files *disk, const char *path, const char *name) {
    size_t size;
    uint8_t *bytes = fault_load(disk, path, name, &size);
    free(bytes);
    return bytes != NULL;
}

/* `kinds` of calls fail at n; false when none did any more. */
static bool backup_with(unsigned kinds, size_t n, iqdb_result code, bool sticky, size_t heap_at) {
    fault_files *disk = fault_new(NULL);
    support_heap heap = support_heap_make();
    iqdb_options options = iqdb_options_default();
    iqdb *copy = NULL;
    options.files = fault_table(disk);
    options.allocator = support_allocator(&heap);
    iqdb *db = fill(&options);
    if (kinds != 0) fault_fail_nth(disk, kinds, n, code, sticky);
    heap.fail_at = heap_at;
    heap.sticky = sticky;
    const size_t calls = heap.calls;
    const iqdb_result result = iqdb_backup(db, "copy");
    const bool failed = disk->failed > 0 || heap.failed > 0;
    fault_fail_nth(disk, 0, 0, IQDB_OK, false);
    heap.fail_at = 0;
    heap.sticky = 0;
    EXPECT(heap.calls > calls);
    EXPECT(holds_all(db) && store(db, 3) == IQDB_OK);
    if (!failed) EXPECT(result == IQDB_OK);
    if (result == IQDB_OK) {
        EXPECT(iqdb_open("copy", &options, &copy) == IQDB_OK && holds_all(copy) && store(copy, 4) == IQDB_OK);
        EXPECT(iqdb_verify(copy, IQDB_DEPTH_DEFAULT, NULL, NULL) == IQDB_OK);
        EXPECT(iqdb_close(copy) == IQDB_OK);
    } else {
        EXPECT(result == IQDB_ERR_IO || result == IQDB_ERR_NOMEM || result == code);
        if (!sticky || (kinds & (FAULT_REMOVE | FAULT_DIR_SYNC | FAULT_DIR_LIST)) == 0) {
            EXPECT(!has(disk, "copy", "META") &&
                   (heap_at > 0 || (!has(disk, "copy", "snap-1") && !has(disk, "copy", "wal-1"))));
        }
        /* Never an empty database in its place, unless nothing had been begun. */
        if (has(disk, "copy", "snap-1")) EXPECT(iqdb_open("copy", &options, &copy) != IQDB_OK);
        if (!has(disk, "copy", "snap-1") && !has(disk, "copy", "wal-1"))
            EXPECT(iqdb_backup(db, "copy") == IQDB_OK); /* and another try finds room */
    }
    EXPECT(iqdb_close(db) == IQDB_OK);
    EXPECT(disk->open_files == 0 && disk->open_dirs == 0 && support_heap_problems(&heap) == 0);
    fault_free(disk);
    return failed;
}

static void every_file_call_of_a_backup_fails(void) {
    const iqdb_result codes[] = {IQDB_ERR_IO, IQDB_ERR_NOSPACE};
    size_t count = 0;
    for (int kind = 0; kind < FAULT_KINDS; kind++)
        for (int code = 0; code < 2; code++)
            for (int sticky = 0; sticky < 2; sticky++)
                for (size_t n = 1; backup_with(1u << kind, n, codes[code], sticky != 0, 0) && n < 500; n++) count++;
    printf(" %zu faults", count);
    CHECK(count > 60);
}

static void every_allocation_of_a_backup_fails(void) {
    size_t count = 0;
    for (int sticky = 0; sticky < 2; sticky++)
        for (size_t n = 1; backup_with(0, 0, IQDB_ERR_NOMEM, sticky != 0, n) && n < 500; n++) count++;
    printf(" %zu faults", count);
    CHECK(count >= 6);
}

/* ---- Blobs ---- */

typedef struct blob {
    uint8_t bytes[262144];
    size_t size;
} blob;

static bool take(const void *bytes, size_t size, void *user) {
    blob *target = (blob *)user;
    if (size > sizeof target->bytes - target->size) return false;
    memcpy(target->bytes + target->size, bytes, size);
    target->size += size;
    return true;
}

static void every_allocation_of_export_and_load_fails(void) {
    static blob whole, part;
    size_t count = 0;
    fault_files *disk = fault_new(NULL);
    support_heap heap = support_heap_make();
    iqdb_options options = iqdb_options_default();
    options.files = fault_table(disk);
    options.allocator = support_allocator(&heap);
    iqdb *db = fill(&options);
    whole.size = 0;
    CHECK_EQ_INT(iqdb_export_blob(db, take, &whole), IQDB_OK);
    for (int way = 0; way < 3; way++)
        for (int sticky = 0; sticky < 2; sticky++)
            for (size_t n = 1; n < 500; n++) {
                iqdb *copy = NULL;
                heap.failed = 0;
                heap.fail_at = n;
                heap.sticky = sticky;
                part.size = 0;
                const iqdb_result result = way == 0   ? iqdb_export_blob(db, take, &part)
                                           : way == 1 ? iqdb_open_blob(whole.bytes, whole.size, &options, &copy)
                                                      : iqdb_load_blob(whole.bytes, whole.size, &options, &copy);
                const bool failed = heap.failed > 0;
                heap.fail_at = 0;
                heap.sticky = 0;
                CHECK_EQ_INT(result, failed ? IQDB_ERR_NOMEM : IQDB_OK);
                CHECK(failed ? copy == NULL : way == 0 || holds_all(copy));
                CHECK_EQ_INT(iqdb_close(copy), IQDB_OK);
                if (!failed) break;
                count++;
            }
    CHECK(holds_all(db));
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
    fault_free(disk);
    printf(" %zu faults", count);
    CHECK(count > 30);
}

/* ---- The power fails ---- */

typedef struct watch {
    iqdb_options options;
    size_t cuts, whole, torn, empty;
    bool returned;
} watch;

/* The source opens with everything; the copy is whole, is refused, or was never begun. */
static bool check_cut(fault_files *state, const char *what, void *user) {
    watch *seen = (watch *)user;
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL;
    options.files = fault_table(state);
    seen->cuts++;
    bool ok = EXPECT(iqdb_open("db", &options, &db) == IQDB_OK) && EXPECT(holds_all(db));
    ok = EXPECT(iqdb_close(db) == IQDB_OK) && ok;
    const bool begun = has(state, "copy", "snap-1");
    const iqdb_result result = iqdb_open("copy", &options, &db);
    if (result == IQDB_OK && (begun || seen->returned)) {
        seen->whole++;
        ok = EXPECT(holds_all(db)) && ok;
    } else if (result == IQDB_OK) {
        seen->empty++;
    } else {
        seen->torn++;
        ok = EXPECT(result == IQDB_ERR_CORRUPT && !seen->returned) && ok;
    }
    ok = EXPECT(iqdb_close(db) == IQDB_OK) && ok;
    if (!ok) printf(" after %s", what);
    return ok;
}

static void cut_here(fault_files *disk, void *user) {
    disk->after_fn = NULL;
    fault_crashes(disk, 0, support_amount(4, 12, 60), 7 + fault_calls(disk, FAULT_ANY), check_cut, user);
    disk->after_fn = cut_here;
}

static void a_cut_during_a_backup_leaves_all_or_nothing(void) {
    fault_files *disk = fault_new(NULL);
    watch seen;
    memset(&seen, 0, sizeof seen);
    seen.options = iqdb_options_default();
    seen.options.files = fault_table(disk);
    iqdb *db = fill(&seen.options);
    CHECK_EQ_INT(iqdb_flush(db), IQDB_OK);
    disk->after_user = &seen;
    disk->after_fn = cut_here;
    CHECK_EQ_INT(iqdb_backup(db, "copy"), IQDB_OK);
    disk->after_fn = NULL;
    seen.returned = true;
    fault_crashes(disk, FAULT_TEAR | FAULT_GARBAGE, 200, 3, check_cut, &seen);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    fault_free(disk);
    printf(" %zu cuts: %zu whole, %zu torn, %zu not begun", seen.cuts, seen.whole, seen.torn, seen.empty);
    CHECK(seen.whole > 0 && seen.torn > 0 && seen.empty > 0);
}

TEST_MAIN("db/copies", TEST(every_file_call_of_a_backup_fails), TEST(every_allocation_of_a_backup_fails),
          TEST(every_allocation_of_export_and_load_fails), TEST(a_cut_during_a_backup_leaves_all_or_nothing))
