/* Logs: what the writer puts where, in sectors of 512 and of 4,096 bytes, and what the reader makes of it. */
#include "api.h"
#include "base/bytes.h"
#include "fault.h"
#include "kernel/crc32.h"
#include "persist/diary.h"
#include "persist/wal.h"
#include "support.h"
#include "test.h"

static const uint8_t uuid[IQ_UUID_SIZE] = {9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6};

static fault_files *disk;
static iq_volume volume;
static iqdb_error error;
static iq_reporter reporter;
static iqdb_allocator allocator;
static iq_wal wal;

static void start_on(uint64_t space, uint32_t sector_size) {
    allocator = iq_alloc_default();
    disk = fault_new(NULL);
    disk->space = space;
    memset(&volume, 0, sizeof volume);
    memset(&reporter, 0, sizeof reporter);
    reporter.error = &error;
    volume.allocator = allocator;
    volume.files = fault_table(disk);
    volume.reporter = &reporter;
    CHECK_EQ_INT(iq_volume_open(&volume, "db", true), IQDB_OK);
    iq_log_header header;
    memset(&header, 0, sizeof header);
    header.number = 3;
    header.salt = UINT64_C(0xFEDCBA9876543210);
    header.first_lsn = 101;
    header.before = 2;
    header.before_salt = 55;
    header.sector_size = sector_size;
    CHECK_EQ_INT(iq_wal_init(&wal, &volume.allocator), IQDB_OK);
    CHECK_EQ_INT(iq_wal_create(&wal, &volume, uuid, &header), IQDB_OK);
}

static void start(uint32_t sector_size) { start_on(0, sector_size); }

static void finish(void) {
    iq_wal_free(&wal);
    iq_volume_close(&volume);
    CHECK_EQ_U64(disk->open_files + disk->open_dirs, 0);
    fault_free(disk);
}

static iqdb_result add(uint64_t seed, size_t size) {
    uint8_t *bytes = (uint8_t *)malloc(size + 1);
    iq_slice pieces[2];
    for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)(seed * 7 + i);
    pieces[0].bytes = bytes;
    pieces[0].size = size / 3;
    pieces[1].bytes = bytes + size / 3;
    pieces[1].size = size - size / 3;
    const iqdb_result result = iq_wal_add(&wal, pieces, 2);
    free(bytes);
    return result;
}

static iqdb_result commit(bool sync) {
    int os_code;
    const iqdb_result result = iq_wal_commit(&wal, sync);
    if (result != IQDB_OK || !sync) return result;
    const iqdb_result synced = iq_file_try_sync(&wal.file, &os_code);
    return iq_wal_synced(&wal, synced, os_code);
}

static iqdb_result write_one(uint64_t seed, size_t size, bool sync) {
    iq_wal_begin(&wal);
    const iqdb_result result = add(seed, size);
    return result == IQDB_OK ? commit(sync) : result;
}

/* Records as they should come: seeds and sizes, in order. */
typedef struct expected {
    uint64_t seeds[4096];
    size_t sizes[4096], count, next;
    uint64_t last_lsn;
    bool good;
} expected;

static iqdb_result on_record(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user) {
    expected *want = (expected *)user;
    bool good = want->next < want->count && commit_lsn >= want->last_lsn;
    if (!good) return IQDB_ERR_INVALID_ARGUMENT;
    const size_t whole = want->sizes[want->next];
    const uint64_t seed = want->seeds[want->next++];
    want->last_lsn = commit_lsn;
    good = size >= whole && size - whole < 4096 + 48;
    for (size_t i = 0; i < size && good; i++) good = bytes[i] == (i < whole ? (uint8_t)(seed * 7 + i) : 0);
    want->good = want->good && good;
    return IQDB_OK;
}

/* Reads the whole log; the position behind the last whole batch. */
static iq_log_position read_log(expected *want, size_t *out_batches) {
    iq_scan scan;
    iq_log_position position;
    memset(&position, 0, sizeof position);
    want->next = 0;
    want->last_lsn = 0;
    want->good = true;
    *out_batches = 0;
    if (!EXPECT(iq_scan_open(&scan, &volume, uuid, 3) == IQDB_OK && scan.state == IQ_LOG_IS_GOOD)) return position;
    position = iq_scan_start(&scan);
    for (;;) {
        iq_span span;
        if (!EXPECT(iq_scan_batch(&scan, &position, &span) == IQDB_OK) || !span.is_whole) break;
        if (span.type == IQ_FRAME_RECORD) EXPECT(iq_scan_records(&scan, &span, on_record, want) == IQDB_OK);
        position = span.end;
        ++*out_batches;
    }
    iq_scan_close(&scan);
    EXPECT(want->good && want->next == want->count);
    return position;
}

/* ---- Bytes ---- */

static void bytes_as_the_tables_say(void) {
    diary_keep_memory();
    start(512);
    CHECK_EQ_INT(write_one(5, 20, true), IQDB_OK);
    size_t size;
    uint8_t *bytes = fault_load(disk, "db", "wal-3", &size);
    CHECK_EQ_U64(size, 512 + 65536);
    CHECK_MEM(bytes, "iqdbWLOG", 8);
    CHECK_EQ_U64(iq_get_u32(bytes + 8), iq_crc32(iq_crc32(0, bytes, 8), bytes + 12, 500));
    CHECK_EQ_U64(iq_get_u32(bytes + 12), 1);
    CHECK_MEM(bytes + 16, uuid, 16);
    CHECK_EQ_U64(iq_get_u64(bytes + 32), 3);
    CHECK_EQ_U64(iq_get_u64(bytes + 40), UINT64_C(0xFEDCBA9876543210));
    CHECK_EQ_U64(iq_get_u64(bytes + 48), 101);
    CHECK_EQ_U64(iq_get_u64(bytes + 56), 2);
    CHECK_EQ_U64(iq_get_u64(bytes + 64), 55);
    CHECK_EQ_U64(iq_get_u32(bytes + 72), 512);
    const uint8_t *frame = bytes + 512;
    CHECK_EQ_U64(iq_get_u32(frame), 512 - 40);
    CHECK_EQ_U64(iq_get_u64(frame + 8), 101);
    CHECK_EQ_U64(iq_get_u64(frame + 16), 100);
    CHECK_EQ_U64(iq_get_u64(frame + 24), 101);
    CHECK_EQ_U64(iq_get_u32(frame + 32), iq_get_u32(bytes + 8)); /* the first one remembers the header */
    CHECK_EQ_INT(frame[36], IQ_FRAME_RECORD);
    CHECK_EQ_INT(frame[37], IQ_FRAME_WHOLE);
    const uint32_t salted = iq_crc32(0, bytes + 40, 8);
    CHECK_EQ_U64(iq_get_u32(frame + 4), iq_crc32(iq_crc32(salted, frame, 4), frame + 8, 504));
    CHECK_EQ_INT(frame[40 + 1], (uint8_t)(5 * 7 + 1));
    free(bytes);
    finish();
}

static void pieces_of_all_sizes(void) {
    static const size_t sizes[] = {0,    1,    7,    8,    9,    40,    463,   464,   472,  473,
                                   4008, 7167, 7168, 7169, 8192, 14335, 14336, 14337, 70000};
    static expected want;
    for (uint32_t sector = 512; sector <= 4096; sector *= 8) {
        for (int sync = 0; sync < 2; sync++) {
            start(sector);
            want.count = 0;
            for (uint64_t i = 0; i < 19 * 19; i++) { /* batches of two records, all pairs */
                const size_t a = sizes[i % 19], b = sizes[i / 19];
                iq_wal_begin(&wal);
                CHECK_EQ_INT(add(i, a), IQDB_OK);
                CHECK_EQ_INT(add(i + 1, b), IQDB_OK);
                CHECK_EQ_INT(commit(sync != 0), IQDB_OK);
                want.seeds[want.count] = i;
                want.sizes[want.count++] = a;
                want.seeds[want.count] = i + 1;
                want.sizes[want.count++] = b;
                if (sync) CHECK_EQ_U64(wal.written.offset % sector, 0);
                CHECK_EQ_U64(wal.written.offset % 8, 0);
            }
            CHECK_EQ_INT(iq_wal_flush(&wal), IQDB_OK);
            size_t batches;
            const iq_log_position end = read_log(&want, &batches);
            CHECK_EQ_U64(end.lsn, wal.written.lsn);
            CHECK_EQ_U64(end.offset, wal.written.offset);
            CHECK_EQ_U64(end.crc, wal.written.crc);
            CHECK_EQ_U64(wal.data_lsn <= end.lsn, 1);
            finish();
        }
    }
}

static void the_largest_record(void) {
    const size_t size = IQDB_DIM_MAX * 4 + IQDB_PAYLOAD_SIZE_MAX + 24;
    static expected want;
    start(4096);
    CHECK_EQ_INT(write_one(1, size, true), IQDB_OK);
    CHECK_EQ_INT(write_one(2, 100, true), IQDB_OK);
    want.count = 2;
    want.seeds[0] = 1;
    want.sizes[0] = size;
    want.seeds[1] = 2;
    want.sizes[1] = 100;
    size_t batches;
    CHECK_EQ_U64(read_log(&want, &batches).offset, wal.written.offset);
    CHECK_EQ_U64(batches, 2);
    /* More than can be addressed. */
    static const uint8_t byte = 0;
    const iq_slice huge[3] = {{&byte, (size_t)-1 / 4}, {&byte, (size_t)-1 / 4}, {&byte, 1}};
    iq_wal_begin(&wal);
    CHECK_EQ_INT(iq_wal_add(&wal, huge, 3), IQDB_ERR_LIMIT);
    CHECK_EQ_INT(iq_wal_add(&wal, huge, 1), IQDB_ERR_NOMEM);
    CHECK_EQ_INT(add(3, 50), IQDB_OK); /* the batch is as it was */
    CHECK_EQ_INT(iq_wal_commit(&wal, false), IQDB_OK);
    CHECK_EQ_U64(wal.data_lsn, wal.written.lsn);
    finish();
}

/* ---- Where writes go ---- */

static uint64_t synced_end, sector_now;

static void watch(fault_files *changed, void *user) {
    (void)user;
    const fault_event *event = &changed->trace[changed->trace_count - 1];
    if (strcmp(event->name, "wal-3") == 0 && event->kind == FAULT_WRITE && event->offset < synced_end)
        EXPECT(!"a sector with acknowledged bytes is written again");
    changed->trace_count = 0;
}

static void no_acknowledged_sector_is_written_again(void) {
    static expected want;
    for (uint32_t sector = 512; sector <= 4096; sector *= 8) {
        uint64_t state = sector, attests = 0, syncs = 0;
        start(sector);
        want.count = 0;
        synced_end = sector_now = sector;
        disk->recording = true;
        disk->after_fn = watch;
        for (int i = 0; i < 2000; i++) {
            const uint64_t what = support_random_below(&state, 10);
            if (what < 7) {
                const size_t size = (size_t)support_random_below(&state, what == 0 ? 9000 : 600);
                want.seeds[want.count] = (uint64_t)i;
                want.sizes[want.count++] = size;
                const bool sync = what >= 5;
                CHECK_EQ_INT(write_one((uint64_t)i, size, sync), IQDB_OK);
                syncs += sync;
            } else {
                const uint64_t before = wal.written.lsn, durable = wal.synced.lsn;
                CHECK_EQ_INT(iq_wal_flush(&wal), IQDB_OK);
                CHECK(wal.synced.lsn >= wal.data_lsn);
                CHECK(wal.written.lsn - before <= 1); /* one frame to end the sector */
                CHECK(durable < wal.data_lsn || wal.written.lsn == before);
                if (what == 9) {
                    const uint64_t flushed = wal.written.lsn;
                    CHECK_EQ_INT(iq_wal_attest(&wal), IQDB_OK);
                    CHECK(wal.written.lsn - flushed <= 1);
                    CHECK_EQ_INT(iq_wal_attest(&wal), IQDB_OK); /* once is enough */
                    CHECK(wal.written.lsn - flushed <= 1);
                    CHECK(wal.attested_lsn >= wal.data_lsn);
                    attests += wal.written.lsn - flushed;
                }
            }
            CHECK_EQ_U64(wal.synced.offset % sector, 0);
            /* There is always room to end the sector. */
            const uint64_t over = wal.written.offset % sector;
            CHECK(over == 0 || sector - over >= IQ_FRAME_SIZE_MIN);
            synced_end = wal.synced.offset;
        }
        disk->after_fn = NULL;
        CHECK(attests > 50 && syncs > 300 && test_now.failures == 0);
        size_t batches;
        CHECK_EQ_U64(read_log(&want, &batches).offset, wal.written.offset);
        finish();
    }
}

static void space_comes_in_doubling_chunks(void) {
    start(4096);
    uint64_t allocated = wal.allocated, chunk = 131072;
    CHECK_EQ_U64(allocated, 4096 + 65536); /* the first one at once, durable */
    CHECK_EQ_U64(iq_wal_entry(&wal).size_bytes, allocated);
    CHECK_EQ_U64(fault_calls(disk, FAULT_SYNC), 2);
    for (int i = 0; i < 40000; i++) {
        CHECK_EQ_INT(write_one(1, 3000, i % 50 == 0), IQDB_OK);
        if (wal.allocated == allocated) continue;
        CHECK_EQ_U64(wal.allocated - allocated, chunk);
        allocated = wal.allocated;
        if (chunk < 16u << 20) chunk *= 2;
    }
    CHECK_EQ_U64(chunk, 16u << 20);
    CHECK_EQ_INT(write_one(1, 40u << 20, true), IQDB_OK); /* more than a chunk: what it needs */
    CHECK(wal.allocated - wal.written.offset < 16u << 20);
    size_t size;
    uint8_t *bytes = fault_load(disk, "db", "wal-3", &size);
    CHECK_EQ_U64(size, wal.allocated);
    free(bytes);
    finish();
}

static void a_full_disk_changes_nothing(void) {
    static expected want;
    start_on(4096 + 4096, 4096); /* room for the header and a sector */
    CHECK_EQ_U64(wal.allocated, 8192);
    want.count = 1;
    want.seeds[0] = 1;
    want.sizes[0] = 100;
    CHECK_EQ_INT(write_one(1, 100, false), IQDB_OK);
    CHECK_EQ_U64(wal.allocated, 8192);
    const iq_log_position before = wal.written;
    CHECK_EQ_INT(write_one(2, 5000, false), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(error.code, IQDB_ERR_NOSPACE);
    CHECK_EQ_STR(error.file, "wal-3");
    CHECK(wal.written.lsn == before.lsn && wal.written.offset == before.offset && !wal.poisoned);
    CHECK_EQ_INT(iq_wal_commit(&wal, false), IQDB_ERR_NOSPACE); /* the batch is as it was */
    iq_wal_abort(&wal);
    CHECK_EQ_INT(iq_wal_flush(&wal), IQDB_OK);  /* needs none */
    CHECK_EQ_INT(iq_wal_attest(&wal), IQDB_OK); /* there is none, and it is not needed */
    CHECK_EQ_U64(wal.attested_lsn, 100);
    iq_log_entry end;
    CHECK_EQ_INT(iq_wal_switch(&wal, uuid, 7, &end), IQDB_ERR_NOSPACE);
    CHECK_EQ_U64(wal.header.number, 3);
    disk->space += 4096; /* the header of the next log fits, the switch frame does not */
    CHECK_EQ_INT(iq_wal_switch(&wal, uuid, 7, &end), IQDB_ERR_NOSPACE);
    CHECK_EQ_U64(wal.header.number, 3);
    CHECK(fault_load(disk, "db", "wal-4", &(size_t){0}) == NULL);
    CHECK(!wal.poisoned);
    disk->space = 0;
    CHECK_EQ_INT(write_one(3, 5000, true), IQDB_OK);
    want.seeds[want.count] = 3;
    want.sizes[want.count++] = 5000;
    size_t batches;
    CHECK_EQ_U64(read_log(&want, &batches).offset, wal.written.offset);
    finish();
}

static iqdb_result reserve_nothing(void *file, uint64_t offset, uint64_t size, int *os_code, void *user) {
    (void)file;
    (void)offset;
    (void)size;
    (void)user;
    *os_code = 0;
    return IQDB_ERR_NOT_IMPLEMENTED;
}

/* Space for long batches is reserved where it can be; the log is the same then. */
static void long_batches_find_space(void) {
    static expected want;
    for (int way = 0; way < 3; way++) {
        start(4096);
        if (way == 1) volume.files.reserve_fn = NULL;
        if (way == 2) volume.files.reserve_fn = reserve_nothing;
        const size_t before = fault_calls(disk, FAULT_WRITE);
        want.count = 0;
        for (uint64_t i = 0; i < 3; i++) {
            want.seeds[want.count] = i;
            want.sizes[want.count] = i == 1 ? 100 : 400000;
            CHECK_EQ_INT(write_one(i, want.sizes[want.count++], true), IQDB_OK);
        }
        size_t batches;
        CHECK_EQ_U64(read_log(&want, &batches).offset, wal.written.offset);
        CHECK_EQ_U64(wal.allocated % 4096, 0);
        /* Each of the three batches, zeros for the short one, and for the long ones a reserve or zeros. */
        const size_t writes = fault_calls(disk, FAULT_WRITE) - before;
        CHECK(way == 0 ? writes < 12 : writes > 15);
        finish();
    }
    start_on(4096 + 65536 + 300000, 4096); /* too little, and nothing has happened */
    CHECK_EQ_INT(write_one(1, 400000, true), IQDB_ERR_NOSPACE);
    CHECK(!wal.poisoned && wal.written.lsn == 100);
    iq_wal_abort(&wal);
    CHECK_EQ_INT(write_one(1, 270000, true), IQDB_OK); /* fits, though not with a whole chunk */
    finish();
}

/* Batches that are queued go with the next commit; one that is aborted leaves them as they are. */
static void queued_batches_go_together(void) {
    static expected want;
    start(512);
    want.count = 0;
    for (uint64_t i = 0; i < 3; i++) {
        iq_wal_begin(&wal);
        want.seeds[want.count] = i;
        want.sizes[want.count++] = 100 + (size_t)i;
        CHECK_EQ_INT(add(i, 100 + (size_t)i), IQDB_OK);
        CHECK(iq_wal_queue(&wal));
        iq_wal_begin(&wal);
        CHECK_EQ_INT(add(7, 9000), IQDB_OK);
        iq_wal_abort(&wal);
    }
    iq_wal_begin(&wal); /* more than there is space for: by a commit of its own only */
    CHECK_EQ_INT(add(8, 100000), IQDB_OK);
    CHECK(!iq_wal_queue(&wal));
    iq_wal_abort(&wal);
    const size_t before = fault_calls(disk, FAULT_WRITE);
    CHECK_EQ_INT(commit(true), IQDB_OK);
    CHECK_EQ_U64(fault_calls(disk, FAULT_WRITE) - before, 1);
    CHECK(wal.synced.offset == wal.written.offset && wal.written.offset % 512 == 0);
    size_t batches;
    CHECK_EQ_U64(read_log(&want, &batches).offset, wal.written.offset);
    CHECK_EQ_U64(batches, 3);
    finish();
}

static void a_failed_write_or_sync_poisons(void) {
    static const unsigned kinds[] = {FAULT_WRITE, FAULT_SYNC};
    for (int k = 0; k < 2; k++) {
        for (int sync = 0; sync < 2; sync++) {
            start(4096);
            CHECK_EQ_INT(write_one(1, 100, false), IQDB_OK);
            fault_fail_nth(disk, kinds[k], 1, IQDB_ERR_NOSPACE, false);
            const iqdb_result result = write_one(2, 100, sync != 0);
            const bool struck = k == 0 || sync != 0;
            CHECK_EQ_INT(result, struck ? IQDB_ERR_IO : IQDB_OK);
            CHECK_EQ_INT(wal.poisoned, struck);
            if (struck) CHECK_EQ_INT(error.code, IQDB_ERR_IO);
            finish();
        }
    }
    start(4096); /* growing fails for another reason than space */
    fault_fail_nth(disk, FAULT_WRITE, 1, IQDB_ERR_IO, false);
    CHECK_EQ_INT(write_one(1, 100000, true), IQDB_ERR_IO);
    CHECK(wal.poisoned);
    finish();
}

static void switching(void) {
    start(4096);
    iq_log_entry ended;
    CHECK_EQ_INT(write_one(1, 100, false), IQDB_OK);
    CHECK(fault_store(disk, "db", "wal-4", "in the way", 10));
    CHECK_EQ_INT(iq_wal_switch(&wal, uuid, 4242, &ended), IQDB_OK);
    CHECK_EQ_U64(ended.number, 3);
    CHECK_EQ_U64(ended.end.lsn, 102);
    CHECK_EQ_U64(ended.end.offset, 8192);
    CHECK_EQ_U64(ended.size_bytes, 4096 + 65536);
    CHECK_EQ_U64(wal.header.number, 5);
    CHECK_EQ_U64(wal.header.first_lsn, 103);
    CHECK_EQ_U64(wal.header.before, 3);
    CHECK_EQ_U64(wal.header.before_salt, UINT64_C(0xFEDCBA9876543210));
    CHECK_EQ_U64(wal.synced.lsn, 102);
    CHECK_EQ_U64(wal.data_lsn, 101);
    CHECK_EQ_INT(write_one(1, 100, true), IQDB_OK);
    iq_scan scan;
    iq_span span;
    CHECK_EQ_INT(iq_scan_open(&scan, &volume, uuid, 3), IQDB_OK);
    iq_log_position position = iq_scan_start(&scan);
    CHECK_EQ_INT(iq_scan_batch(&scan, &position, &span), IQDB_OK);
    position = span.end;
    CHECK_EQ_INT(iq_scan_batch(&scan, &position, &span), IQDB_OK);
    CHECK(span.is_whole && span.type == IQ_FRAME_SWITCH);
    iq_log_entry entry = span.next;
    CHECK_EQ_U64(entry.number, 5);
    CHECK_EQ_U64(entry.salt, 4242);
    CHECK_EQ_U64(entry.first_lsn, 103);
    CHECK_EQ_U64(entry.size_bytes, 4096 + 65536);
    CHECK(!entry.has_end);
    CHECK_EQ_U64(span.end.crc, ended.end.crc);
    iq_scan_close(&scan);
    CHECK_EQ_INT(iq_scan_require(&scan, &volume, uuid, &entry), IQDB_OK);
    CHECK_EQ_U64(scan.header.before, 3);
    iq_scan_close(&scan);
    finish();
}

/* ---- The reader alone, on logs made by hand ---- */

typedef struct made {
    uint8_t *bytes;
    size_t size, capacity;
    iq_log_position end;
    uint32_t seed;
} made;

static void made_start(made *log) {
    iq_log_header header;
    memset(&header, 0, sizeof header);
    header.number = 3;
    header.salt = 77;
    header.first_lsn = 1;
    header.sector_size = 512;
    log->capacity = 1 << 21;
    log->bytes = (uint8_t *)calloc(1, log->capacity);
    iq_log_encode_header(&header, uuid, log->bytes);
    log->size = 512;
    log->end.lsn = 0;
    log->end.offset = 512;
    log->end.crc = header.crc;
    log->seed = iq_log_seed(77);
}

/* A frame with a body of `length` bytes; fields that are not given follow from the one before. */
static uint8_t *made_add(made *log, uint32_t length, uint8_t type, uint8_t flags, uint64_t batch, uint64_t durable) {
    uint8_t *frame = log->bytes + log->size;
    log->end.lsn++;
    iq_put_u32(frame, length);
    iq_put_u64(frame + 8, log->end.lsn);
    iq_put_u64(frame + 16, durable);
    iq_put_u64(frame + 24, batch);
    iq_put_u32(frame + 32, log->end.crc);
    frame[36] = type;
    frame[37] = flags;
    for (uint32_t i = 0; i < length; i++) frame[40 + i] = (uint8_t)(i + 1);
    if (type == IQ_FRAME_ATTEST) frame[40] = IQ_BODY_ATTEST;
    if (type == IQ_FRAME_SWITCH) frame[40] = IQ_BODY_SWITCH;
    log->size += 40 + length;
    return frame;
}

static void made_seal(made *log, uint8_t *frame) {
    log->end.crc = iq_frame_crc(iq_crc32, log->seed, frame, iq_get_u32(frame));
    iq_put_u32(frame + 4, log->end.crc);
    log->end.offset = log->size;
}

static void made_whole(made *log, uint64_t durable) {
    made_seal(log, made_add(log, 64, IQ_FRAME_RECORD, IQ_FRAME_WHOLE, log->end.lsn + 1, durable));
}

static iqdb_result count_record(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user) {
    (void)bytes;
    (void)commit_lsn;
    *(size_t *)user += size;
    return IQDB_OK;
}

/* Reads what was made: the code, and the LSN of the last whole batch. */
static iqdb_result made_read(const made *log, uint64_t *out_lsn) {
    iq_scan scan;
    size_t total = 0;
    EXPECT(fault_store(disk, "db", "wal-3", log->bytes, log->size));
    iqdb_result result = iq_scan_open(&scan, &volume, uuid, 3);
    if (!EXPECT(result == IQDB_OK && scan.state == IQ_LOG_IS_GOOD)) return result;
    iq_log_position position = iq_scan_start(&scan);
    bool whole = true;
    while (result == IQDB_OK && whole) {
        iq_span span;
        result = iq_scan_batch(&scan, &position, &span);
        whole = span.is_whole;
        if (result == IQDB_OK && whole && span.type == IQ_FRAME_RECORD)
            result = iq_scan_records(&scan, &span, count_record, &total);
        if (result == IQDB_OK && whole) position = span.end;
    }
    *out_lsn = position.lsn;
    iq_scan_close(&scan);
    return result;
}

static void frames_that_lie(void) {
    const uint8_t whole = IQ_FRAME_WHOLE, first = IQ_FRAME_FIRST, last = IQ_FRAME_LAST, commit = IQ_FRAME_COMMIT;
    const struct {
        const char *what;
        uint32_t length;
        uint8_t type, flags;
        uint64_t batch, durable;
        uint16_t zero;
        iqdb_result code; /* OK: the log just ends before it */
    } lies[] = {
        {"nothing", 64, IQ_FRAME_RECORD, whole, 2, 0, 0, IQDB_OK},
        {"type 0", 64, 0, whole, 2, 0, 0, IQDB_ERR_CORRUPT},
        {"type 4", 64, 4, whole, 2, 0, 0, IQDB_ERR_CORRUPT},
        {"flag 8", 64, IQ_FRAME_RECORD, whole | 8, 2, 0, 0, IQDB_ERR_CORRUPT},
        {"not zero", 64, IQ_FRAME_RECORD, whole, 2, 0, 1, IQDB_ERR_CORRUPT},
        {"commit within a record", 64, IQ_FRAME_RECORD, (uint8_t)(first | commit), 2, 0, 0, IQDB_ERR_CORRUPT},
        {"no first piece", 64, IQ_FRAME_RECORD, (uint8_t)(last | commit), 2, 0, 0, IQDB_ERR_CORRUPT},
        {"a batch of before", 64, IQ_FRAME_RECORD, whole, 1, 0, 0, IQDB_ERR_CORRUPT},
        {"a batch to come", 64, IQ_FRAME_RECORD, whole, 3, 0, 0, IQDB_ERR_CORRUPT},
        {"durable before it is written", 64, IQ_FRAME_RECORD, whole, 2, 2, 0, IQDB_ERR_CORRUPT},
        {"an attest frame in pieces", 64, IQ_FRAME_ATTEST, first, 2, 0, 0, IQDB_ERR_CORRUPT},
        {"an attest frame without commit", 64, IQ_FRAME_ATTEST, (uint8_t)(first | last), 2, 0, 0, IQDB_ERR_CORRUPT},
        {"a short switch", 16, IQ_FRAME_SWITCH, whole, 2, 0, 0, IQDB_ERR_CORRUPT},
        {"no length", 0, IQ_FRAME_RECORD, whole, 2, 0, 0, IQDB_ERR_NOT_FOUND},
        {"an odd length", 63, IQ_FRAME_RECORD, whole, 2, 0, 0, IQDB_ERR_NOT_FOUND},
        {"too long", 11272, IQ_FRAME_RECORD, whole, 2, 0, 0, IQDB_ERR_NOT_FOUND},
        {"as long as can be", 11264, IQ_FRAME_RECORD, whole, 2, 0, 0, IQDB_OK},
    };
    start(512);
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        made log;
        uint64_t lsn;
        made_start(&log);
        made_whole(&log, 0);
        uint8_t *frame = made_add(&log, lies[i].length, lies[i].type, lies[i].flags, lies[i].batch, lies[i].durable);
        frame[38] = (uint8_t)lies[i].zero;
        frame[39] = (uint8_t)(lies[i].zero >> 8);
        made_seal(&log, frame);
        const iqdb_result code = made_read(&log, &lsn);
        const bool ends = lies[i].code == IQDB_ERR_NOT_FOUND;
        if (!EXPECT(code == (ends ? IQDB_OK : lies[i].code)) || !EXPECT(lsn == (lies[i].code == IQDB_OK ? 2u : 1u)))
            printf("\n      ... %s: %d, LSN %d", lies[i].what, (int)code, (int)lsn);
        free(log.bytes);
    }
    /* Within a batch: another batch, type or durable LSN; a piece that is missing; a body of the wrong kind. */
    for (int i = 0; i < 6; i++) {
        made log;
        uint64_t lsn;
        made_start(&log);
        made_seal(&log, made_add(&log, 64, IQ_FRAME_RECORD, i == 3 ? first : (uint8_t)(first | last), 1, 0));
        uint8_t *frame = made_add(&log, 64, i == 1 ? IQ_FRAME_ATTEST : IQ_FRAME_RECORD, whole, i == 0 ? 2 : 1, 0);
        if (i == 2) iq_put_u64(frame + 16, 1);
        if (i == 4) frame[37] = last | commit; /* the record had ended */
        made_seal(&log, frame);
        CHECK_EQ_INT(made_read(&log, &lsn), i == 5 ? IQDB_OK : IQDB_ERR_CORRUPT);
        CHECK_EQ_U64(lsn, i == 5 ? 2 : 0);
        if (i != 5) CHECK_EQ_STR(error.file, "wal-3");
        free(log.bytes);
    }
    for (int i = 0; i < 2; i++) {
        made log;
        uint64_t lsn;
        made_start(&log);
        uint8_t *frame = made_add(&log, 64, i ? IQ_FRAME_ATTEST : IQ_FRAME_SWITCH, whole, 1, 0);
        frame[40] = 1;
        made_seal(&log, frame);
        CHECK_EQ_INT(made_read(&log, &lsn), IQDB_ERR_CORRUPT);
        free(log.bytes);
    }
    finish();
}

static void the_chain_and_the_salt(void) {
    start(512);
    for (int i = 0; i < 5; i++) {
        made log;
        uint64_t lsn;
        made_start(&log);
        made_whole(&log, 0);
        uint8_t *frame = made_add(&log, 64, IQ_FRAME_RECORD, IQ_FRAME_WHOLE, 2, 0);
        if (i == 0) iq_put_u32(frame + 32, iq_get_u32(frame + 32) ^ 1); /* another one before it */
        if (i == 1) iq_put_u64(frame + 8, 3);                           /* another LSN */
        if (i == 2) log.seed = iq_log_seed(78);                         /* of another log */
        made_seal(&log, frame);
        if (i == 3) frame[100] ^= 1;
        if (i == 4) log.size -= 8; /* the file ends within it */
        CHECK_EQ_INT(made_read(&log, &lsn), IQDB_OK);
        CHECK_EQ_U64(lsn, 1);
        free(log.bytes);
    }
    finish();
}

static bool attests(const made *log, uint64_t from, uint64_t lsn) {
    iq_scan scan;
    bool found = false;
    EXPECT(fault_store(disk, "db", "wal-3", log->bytes, log->size));
    if (EXPECT(iq_scan_open(&scan, &volume, uuid, 3) == IQDB_OK && scan.state == IQ_LOG_IS_GOOD))
        EXPECT(iq_scan_attests(&scan, from, lsn, &found) == IQDB_OK);
    iq_scan_close(&scan);
    return found;
}

static void what_frames_attest(void) {
    made log;
    start(512);
    made_start(&log);
    for (uint64_t i = 0; i < 10; i++) made_whole(&log, i < 9 ? i / 4 : 4); /* LSN 10 says 4 */
    CHECK(attests(&log, 512, 4) && attests(&log, 512, 0));
    CHECK(!attests(&log, 512, 5));
    CHECK(attests(&log, 512 + 9 * 104, 4) && attests(&log, 512 + 9 * 104 - 100, 4));
    CHECK(!attests(&log, 512 + 9 * 104 + 8, 4));
    /* Whatever is in front of it, of any content at steps of 8. */
    memset(log.bytes + 512, 0xFF, 8 * 104);
    CHECK(attests(&log, 512, 4));
    log.bytes[512 + 9 * 104 + 90] ^= 4; /* but it has to be valid */
    CHECK(!attests(&log, 512, 4));
    log.bytes[512 + 9 * 104 + 90] ^= 4;
    log.size -= 8;
    CHECK(!attests(&log, 512, 4));
    free(log.bytes);
    finish();
}

static void a_search_in_a_hostile_log_ends(void) {
    /* At every 16 bytes something that looks like the longest frame: more is not possible, for LSN, durable LSN and
     * batch are ordered, and lie in words that overlap those of the next header. */
    made log;
    start(512);
    made_start(&log);
    const uint64_t even = (UINT64_C(0x0701) << 32) + 11264;
    uint64_t odd = 40000;
    for (size_t at = 512; at + 16 <= log.capacity; at += 16) {
        iq_put_u64(log.bytes + at, even);
        iq_put_u64(log.bytes + at + 8, even + odd);
        odd = odd == 1 ? 40000 : odd - 1;
    }
    log.size = log.capacity;
    iq_log_header header;
    memset(&header, 0, sizeof header);
    header.number = 3;
    header.salt = 77;
    header.first_lsn = even;
    header.sector_size = 512;
    iq_log_encode_header(&header, uuid, log.bytes);
    CHECK(attests(&log, 512, 1)); /* patience ends, and then the answer is the careful one */
    free(log.bytes);
    finish();
}

static void headers(void) {
    made log;
    iq_scan scan;
    iq_log_entry entry;
    start(512);
    memset(&entry, 0, sizeof entry);
    entry.number = 3;
    entry.salt = 77;
    entry.first_lsn = 1;
    for (int i = 0; i < 14; i++) {
        iq_log_state want = IQ_LOG_IS_TORN;
        made_start(&log);
        for (int k = 0; k < 8; k++) made_whole(&log, 0);
        uint8_t *h = log.bytes;
        size_t size = log.size;
        if (i == 0) size = 0;
        if (i == 1) size = 511;
        if (i == 2) h[0] ^= 1;
        if (i == 3) h[511] ^= 1;
        if (i == 4) iq_put_u32(h + 72, 256);
        if (i == 5) iq_put_u32(h + 72, 1000);
        if (i == 6) iq_put_u32(h + 72, 8192);
        if (i == 7) iq_put_u64(h + 48, 0);
        if (i == 8) iq_put_u64(h + 48, UINT64_MAX);
        if (i == 9) iq_put_u64(h + 32, 4);
        if (i == 10) h[16] ^= 1;
        if (i == 9 || i == 10) want = IQ_LOG_IS_FOREIGN;
        if (i > 10) want = IQ_LOG_IS_GOOD;
        if (i == 11) iq_put_u64(h + 40, 78);
        if (i == 12) iq_put_u64(h + 48, 2);
        if (i >= 4) iq_put_u32(h + 8, iq_crc32(iq_crc32(0, h, 8), h + 12, 500));
        CHECK(fault_store(disk, "db", "wal-3", h, size));
        CHECK_EQ_INT(iq_scan_open(&scan, &volume, uuid, 3), IQDB_OK);
        CHECK_EQ_INT(scan.state, want);
        iq_scan_close(&scan);
        CHECK_EQ_INT(iq_scan_require(&scan, &volume, uuid, &entry), i == 13 ? IQDB_OK : IQDB_ERR_CORRUPT);
        iq_scan_close(&scan);
        /* A newer version says so, whatever else it says. */
        if (i >= 4) {
            iq_put_u32(h + (i % 2 == 0 ? 12 : 76), 2);
            iq_put_u32(h + 8, iq_crc32(iq_crc32(0, h, 8), h + 12, 500));
            CHECK(fault_store(disk, "db", "wal-3", h, size));
            const iqdb_result newer = iq_scan_open(&scan, &volume, uuid, 3);
            CHECK_EQ_INT(newer, i < 7 && i > 3 ? IQDB_OK : IQDB_ERR_VERSION); /* the size of a sector counts first */
            CHECK(scan.state == IQ_LOG_IS_TORN);
        }
        free(log.bytes);
    }
    CHECK_EQ_INT(iq_scan_open(&scan, &volume, uuid, 12345), IQDB_OK);
    CHECK_EQ_INT(scan.state, IQ_LOG_IS_MISSING);
    finish();
}

/* ---- Where numbers and files end ---- */

static void logs_that_cannot_go_on(void) {
    start(512);
    CHECK_EQ_INT(write_one(1, 100, true), IQDB_OK);
    const iq_log_header header = wal.header;
    iq_log_entry entry = iq_wal_entry(&wal);
    iq_file_close(&wal.file);
    const struct {
        uint64_t number, offset;
        const char *text;
    } ends[] = {{4, entry.end.offset, "gone"}, {3, entry.end.offset + 8, "cannot end"}, {3, 1u << 30, "cannot end"}};
    for (size_t i = 0; i < 3; i++) {
        iq_log_header other = header;
        iq_log_entry wrong = entry;
        other.number = ends[i].number;
        wrong.end.offset = ends[i].offset;
        CHECK_EQ_INT(iq_wal_resume(&wal, &volume, &other, &wrong), IQDB_ERR_CORRUPT);
        CHECK(strstr(error.text, ends[i].text) != NULL);
        iq_file_close(&wal.file);
    }
    CHECK_EQ_INT(iq_wal_resume(&wal, &volume, &header, &entry), IQDB_OK);
    CHECK_EQ_INT(write_one(2, 100, true), IQDB_OK);
    finish();
}

/* The last LSN and the last offset are never passed, and trying changes nothing. */
static void numbers_come_to_an_end(void) {
    start(512);
    const iq_log_position good = wal.written;
    wal.written.lsn = IQ_LSN_MAX;
    wal.synced.lsn = IQ_LSN_MAX;
    wal.attested_lsn = 5;
    CHECK_EQ_INT(iq_wal_attest(&wal), IQDB_ERR_LIMIT);
    CHECK_EQ_INT(add(1, 100), IQDB_ERR_LIMIT);
    wal.written.lsn = IQ_LSN_MAX - 10;
    CHECK_EQ_INT(add(1, 100), IQDB_ERR_LIMIT);
    wal.written = wal.synced = good;
    wal.written.offset = IQ_NUMBER_MAX - 100;
    CHECK_EQ_INT(add(1, 100), IQDB_ERR_LIMIT);
    wal.written = good;
    CHECK(wal.batch.size == 0 && !wal.poisoned);
    CHECK_EQ_INT(write_one(1, 100, true), IQDB_OK);
    finish();
}

/* A frame of an LSN that is never written counts for nothing, whatever its checksum. */
static void a_frame_behind_the_last_lsn(void) {
    for (int beyond = 0; beyond < 2; beyond++) {
        made log;
        uint64_t lsn = 0;
        start(512);
        made_start(&log);
        iq_put_u64(log.bytes + 48, IQ_LSN_MAX + (uint64_t)beyond);
        iq_put_u32(log.bytes + 8, iq_crc32(iq_crc32(0, log.bytes, 8), log.bytes + 12, 500));
        log.end.lsn = IQ_LSN_MAX - 1 + (uint64_t)beyond;
        log.end.crc = iq_get_u32(log.bytes + 8);
        made_whole(&log, log.end.lsn);
        CHECK_EQ_INT(made_read(&log, &lsn), beyond ? IQDB_ERR_CORRUPT : IQDB_OK);
        CHECK_EQ_U64(lsn, IQ_LSN_MAX);
        free(log.bytes);
        finish();
    }
}

/* ---- Files that change under the reader ---- */

static iqdb_files plain_table;
static size_t short_after, reads_seen;

static iqdb_result short_read(void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size, int *os_code,
                              void *user) {
    const iqdb_result result = plain_table.read_fn(file, offset, bytes, size, out_size, os_code, user);
    if (short_after > 0 && ++reads_seen >= short_after && *out_size > 20) *out_size = 20;
    return result;
}

/* A log that is shorter than it was when it was opened ends there. */
static void a_log_that_shrinks(void) {
    made log;
    start(512);
    made_start(&log);
    for (int i = 0; i < 3000; i++) made_whole(&log, log.end.lsn);
    CHECK(log.size > 2 * 128 * 1024);
    plain_table = volume.files;
    volume.files.read_fn = short_read;
    for (short_after = 2; short_after < 6; short_after++) { /* the first read is that of the header */
        uint64_t lsn;
        reads_seen = 0;
        CHECK_EQ_INT(made_read(&log, &lsn), IQDB_OK);
        CHECK(reads_seen < short_after ? lsn == 3000 : lsn < 3000);
    }
    volume.files = plain_table;
    free(log.bytes);
    finish();
}

/* Wherever a read fails, it is told, and no record is invented. */
static void each_read_fails(void) {
    made log;
    size_t struck = 0;
    start(512);
    made_start(&log);
    for (int i = 0; i < 60; i++) { /* batches of several frames, a few of them larger than the window */
        const int frames = i % 20 == 7 ? 20 : 3;
        const uint64_t batch = log.end.lsn + 1;
        for (int k = 0; k < frames; k++)
            made_seal(&log, made_add(&log, 7168, IQ_FRAME_RECORD,
                                     (uint8_t)(k + 1 < frames ? (k == 0 ? IQ_FRAME_FIRST : 0)
                                                              : IQ_FRAME_LAST | IQ_FRAME_COMMIT),
                                     batch, batch - 1));
    }
    uint64_t all, lsn;
    CHECK_EQ_INT(made_read(&log, &all), IQDB_OK);
    CHECK_EQ_U64(all, log.end.lsn);
    for (bool hit = true; hit; struck += hit) {
        disk->failed = 0;
        fault_fail_nth(disk, FAULT_READ, struck + 2, IQDB_ERR_IO, false); /* the first one is that of the header */
        const iqdb_result result = made_read(&log, &lsn);
        hit = disk->failed > 0;
        CHECK_EQ_INT(result, hit ? IQDB_ERR_IO : IQDB_OK);
        CHECK(hit ? lsn < all : lsn == all);
    }
    for (size_t n = 1; n < 40; n++) { /* the same of a search */
        iq_scan scan;
        bool found = false;
        fault_fail_nth(disk, 0, 0, IQDB_OK, false);
        CHECK_EQ_INT(iq_scan_open(&scan, &volume, uuid, 3), IQDB_OK);
        disk->failed = 0;
        fault_fail_nth(disk, FAULT_READ, n, IQDB_ERR_IO, false);
        const iqdb_result result = iq_scan_attests(&scan, 512, UINT64_MAX / 4, &found);
        CHECK_EQ_INT(result, disk->failed > 0 ? IQDB_ERR_IO : IQDB_OK);
        CHECK(!found);
        iq_scan_close(&scan);
    }
    fault_fail_nth(disk, 0, 0, IQDB_OK, false);
    CHECK(struck > 5);
    free(log.bytes);
    finish();
}

static void names_and_numbers(void) {
    char name[IQ_FILE_NAME_SIZE];
    uint64_t number;
    iq_volume_name(name, "wal-", 1);
    CHECK_EQ_STR(name, "wal-1");
    iq_volume_name(name, "snap-", UINT64_MAX);
    CHECK_EQ_STR(name, "snap-18446744073709551615");
    CHECK(iq_volume_number("wal-907", "wal-", &number) && number == 907);
    CHECK(iq_volume_number("wal-4611686018427387904", "wal-", &number) && number == IQ_NUMBER_MAX);
    static const char *const wrong[] = {"wal-",
                                        "wal",
                                        "wal-0",
                                        "wal-01",
                                        "wal-1x",
                                        "wal--1",
                                        "Wal-1",
                                        "snap-1",
                                        "wal-1 ",
                                        "wal-+1",
                                        "xwal-1",
                                        "",
                                        "wal-4611686018427387905",
                                        "wal-18446744073709551617",
                                        "wal-99999999999999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) CHECK(!iq_volume_number(wrong[i], "wal-", &number));
}

TEST_MAIN("persist/wal", TEST(bytes_as_the_tables_say), TEST(pieces_of_all_sizes), TEST(the_largest_record),
          TEST(no_acknowledged_sector_is_written_again), TEST(space_comes_in_doubling_chunks),
          TEST(a_full_disk_changes_nothing), TEST(long_batches_find_space), TEST(queued_batches_go_together),
          TEST(a_failed_write_or_sync_poisons), TEST(switching), TEST(frames_that_lie), TEST(the_chain_and_the_salt),
          TEST(what_frames_attest), TEST(a_search_in_a_hostile_log_ends), TEST(headers), TEST(names_and_numbers),
          TEST(logs_that_cannot_go_on), TEST(numbers_come_to_an_end), TEST(a_frame_behind_the_last_lsn),
          TEST(a_log_that_shrinks), TEST(each_read_fails))
