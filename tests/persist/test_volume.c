/* Files by name: what a layer may leave out, what passes of what it says, and what becomes of names and space. */
#include "api.h"
#include "fault.h"
#include "persist/format.h"
#include "persist/volume.h"
#include "support.h"
#include "test.h"

static fault_files *disk;
static iq_volume volume;
static iqdb_error error;
static iq_reporter reporter;

static void start(void) {
    disk = fault_new(NULL);
    memset(&volume, 0, sizeof volume);
    memset(&reporter, 0, sizeof reporter);
    memset(&error, 0, sizeof error);
    reporter.error = &error;
    volume.allocator = iq_alloc_default();
    volume.files = fault_table(disk);
    volume.reporter = &reporter;
    CHECK_EQ_INT(iq_volume_open(&volume, "db", true), IQDB_OK);
}

static void finish(void) {
    iq_volume_close(&volume);
    CHECK_EQ_U64(disk->open_files + disk->open_dirs, 0);
    fault_free(disk);
}

/* What callers act on passes; all else is IO. */
static void codes_that_pass(void) {
    static const iqdb_result pass[] = {IQDB_ERR_NOSPACE,  IQDB_ERR_NOT_FOUND, IQDB_ERR_LOCKED,
                                       IQDB_ERR_READONLY, IQDB_ERR_NOMEM,     IQDB_ERR_INVALID_CONFIG};
    iq_file file;
    start();
    CHECK_EQ_INT(iq_file_open(&file, &volume, "wal-1", IQDB_OPEN_CREATE), IQDB_OK);
    for (int code = -40; code <= 40; code++) {
        uint64_t size;
        bool passes = code == IQDB_OK;
        for (size_t i = 0; i < 6; i++) passes = passes || code == (int)pass[i];
        if (code != IQDB_OK) fault_fail_nth(disk, FAULT_SIZE, 1, (iqdb_result)code, false);
        CHECK_EQ_INT(iq_file_size(&file, &size), passes ? code : (int)IQDB_ERR_IO);
    }
    iq_file_close(&file);
    finish();
}

static void what_a_layer_leaves_out(void) {
    const uint8_t *bytes;
    iq_file file;
    start();
    iq_volume other = volume;
    other.files.dir_open_fn = NULL;
    CHECK_EQ_INT(iq_volume_open(&other, "db", true), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(error.code, IQDB_ERR_INVALID_CONFIG);
    other = volume;
    CHECK_EQ_INT(iq_file_open(&file, &other, "snap-1", IQDB_OPEN_CREATE), IQDB_OK);
    other.files.unmap_fn = NULL; /* what could not be given back is not taken */
    CHECK_EQ_INT(iq_file_map(&file, 0, &bytes), IQDB_ERR_NOT_IMPLEMENTED);
    other = volume;
    other.files.map_fn = NULL;
    CHECK_EQ_INT(iq_file_map(&file, 0, &bytes), IQDB_ERR_NOT_IMPLEMENTED);
    iq_file_close(&file);
    finish();
}

static iqdb_result no_map(void *file, uint64_t size, const void **out_bytes, int *os_code, void *user) {
    (void)file;
    (void)size;
    (void)out_bytes;
    (void)user;
    *os_code = 12;
    return IQDB_ERR_NOMEM;
}

static iqdb_result weak_sync(void *file, int *os_code, void *user) {
    (void)file;
    (void)user;
    *os_code = 25; /* done, but not as it should be */
    return IQDB_OK;
}

static uint64_t now(void *user) { return *(uint64_t *)user += 5; }

static void maps_and_syncs_by_halves(void) {
    const uint8_t *bytes;
    iq_file file;
    iq_sync_tally tally;
    uint64_t clock = 0;
    int os_code;
    start();
    memset(&tally, 0, sizeof tally);
    volume.syncs = &tally;
    CHECK_EQ_INT(iq_file_open(&file, &volume, "snap-1", IQDB_OPEN_CREATE), IQDB_OK);
    volume.files.map_fn = no_map;
    CHECK_EQ_INT(iq_file_map(&file, 0, &bytes), IQDB_ERR_NOT_IMPLEMENTED);
    CHECK_EQ_INT(iq_file_try_sync(&file, &os_code), IQDB_OK);
    CHECK(tally.count == 1 && tally.weak == 0 && tally.us == 0);
    volume.files.sync_fn = weak_sync;
    tally.clock.now_fn = now;
    tally.clock.user = &clock;
    CHECK_EQ_INT(iq_file_try_sync(&file, &os_code), IQDB_OK);
    CHECK(tally.count == 2 && tally.weak == 1 && tally.us == 5);
    volume.syncs = NULL;
    CHECK_EQ_INT(iq_file_try_sync(&file, &os_code), IQDB_OK);
    CHECK(tally.count == 2);
    volume.files = fault_table(disk);
    iq_file_close(&file);
    finish();
}

static void numbers_come_to_an_end(void) {
    uint64_t number = IQ_NUMBER_MAX;
    iq_file file;
    start();
    CHECK_EQ_INT(iq_volume_create(&file, &volume, IQ_LOG_PREFIX, &number), IQDB_OK);
    iq_file_close(&file);
    CHECK_EQ_INT(iq_volume_create(&file, &volume, IQ_LOG_PREFIX, &number), IQDB_ERR_LIMIT);
    finish();
}

/* A ballast is whole or is not there. */
static void a_ballast_without_memory_or_space(void) {
    for (int i = 0; i < 3; i++) {
        support_heap heap = support_heap_make();
        size_t size = 0;
        start();
        volume.allocator = support_allocator(&heap);
        disk->ballast = true;
        heap.fail_at = i == 0 ? 1 : 0;
        disk->space = i == 1 ? 500000 : 0;
        iq_volume_make_ballast(&volume);
        uint8_t *bytes = fault_load(disk, "db", IQ_BALLAST_NAME, &size);
        CHECK((bytes != NULL) == (i == 2) && size == (i == 2 ? 1u << 20 : 0u));
        free(bytes);
        CHECK_EQ_INT(support_heap_problems(&heap), 0);
        volume.allocator = iq_alloc_default();
        finish();
    }
}

TEST_MAIN("persist/volume", TEST(codes_that_pass), TEST(what_a_layer_leaves_out), TEST(maps_and_syncs_by_halves),
          TEST(numbers_come_to_an_end), TEST(a_ballast_without_memory_or_space))
