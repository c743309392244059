/* Torn or rotten: what recovery makes of damaged logs, and what META and logs may not say about one another. */
#include "api.h"
#include "fault_cut.h"
#include "kernel/crc32.h"
#include "persist/diary.h"
#include "support.h"
#include "test.h"

#define CHANGES (FAULT_WRITE | FAULT_SYNC | FAULT_DIR_SYNC | FAULT_REMOVE)
#define SECTOR 4096

static fault_files *disk;
static diary book;

static void start(size_t count) {
    disk = fault_new(NULL);
    book = diary_make(fault_table(disk), "db");
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    for (size_t i = 0; i < count; i++) CHECK_EQ_INT(diary_write(&book, i, 1, true), IQDB_OK);
}

static void finish(void) {
    diary_free(&book);
    CHECK_EQ_U64(disk->open_files + disk->open_dirs, 0);
    fault_free(disk);
}

/* Changes a file by a function of its bytes. */
static void change(const char *name, void (*with)(uint8_t *bytes, size_t size, uint64_t a, uint64_t b), uint64_t a,
                   uint64_t b) {
    size_t size = 0;
    uint8_t *bytes = fault_load(disk, "db", name, &size);
    CHECK(bytes != NULL);
    with(bytes, size, a, b);
    CHECK(fault_store(disk, "db", name, bytes, size));
    free(bytes);
}

static void flip(uint8_t *bytes, size_t size, uint64_t at, uint64_t mask) {
    if (EXPECT(at < size)) bytes[at] = (uint8_t)(bytes[at] ^ mask);
}

/* A u64 in both slots of META, with the checksum made right. */
static void set_meta(uint8_t *bytes, size_t size, uint64_t at, uint64_t value) {
    for (uint8_t *slot = bytes; slot < bytes + size; slot += IQ_META_SLOT_SIZE) {
        iq_put_u64(slot + at, value);
        iq_put_u32(slot + 8, iq_crc32(iq_crc32(0, slot, 8), slot + 12, IQ_META_SLOT_SIZE - 12));
    }
}

static bool exists(const char *name) {
    size_t size;
    uint8_t *bytes = fault_load(disk, "db", name, &size);
    free(bytes);
    return bytes != NULL;
}

static void expect(iqdb_result code, const char *file, uint64_t offset, uint64_t lsn) {
    const size_t changes = fault_calls(disk, CHANGES);
    for (int read_only = 0; read_only < 2; read_only++) {
        CHECK_EQ_INT(diary_open_as(&book, read_only != 0), code);
        CHECK_EQ_STR(book.error.file, file);
        CHECK_EQ_U64(book.error.offset, offset);
        CHECK_EQ_U64(book.error.lsn, lsn);
    }
    CHECK_EQ_U64(fault_calls(disk, CHANGES), changes);
}

/* Opens, writes one more, synced, and finds all of it again. */
static void expect_records(size_t count) {
    CHECK_EQ_INT(diary_open_as(&book, true), IQDB_OK);
    CHECK(diary_counts(&book, 0, count));
    diary_crash(&book);
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    CHECK(diary_counts(&book, 0, count));
    CHECK_EQ_INT(iq_directory_verify(book.directory, IQDB_DEPTH_BLOCKS, NULL, NULL), IQDB_OK);
    CHECK_EQ_INT(diary_write(&book, count, 1, true), IQDB_OK);
    diary_crash(&book);
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    CHECK(diary_counts(&book, 0, count + 1));
}

static iqdb_result no_image(iq_snapshot_writer *writer, void *user) {
    (void)writer;
    (void)user;
    return IQDB_ERR_NOSPACE;
}

/* ---- One log ---- */

static void the_last_commit_has_no_witness(void) {
    start(5);
    diary_crash(&book);
    change("wal-1", flip, SECTOR * 5 + 44, 1); /* as a torn write would leave it */
    expect_records(4);
    finish();
}

static void a_flush_is_witness(void) {
    start(5);
    CHECK_EQ_INT(iq_directory_flush(book.directory, true), IQDB_OK);
    CHECK_EQ_INT(iq_directory_flush(book.directory, true), IQDB_OK);
    diary_crash(&book);
    fault_files *good = fault_copy(disk);
    change("wal-1", flip, SECTOR * 5 + 44, 1);
    expect(IQDB_ERR_CORRUPT, "wal-1", SECTOR * 5, 5);
    fault_free(disk);
    disk = good;
    book.files = fault_table(disk);
    change("wal-1", flip, SECTOR * 6 + 44, 1); /* the witness itself: nothing is lost with it */
    expect_records(5);
    finish();
}

static void a_failed_checkpoint_is_witness(void) {
    for (int damage = 0; damage < 3; damage++) {
        start(3);
        CHECK_EQ_INT(checkpoint_by(book.directory, no_image, NULL), IQDB_ERR_NOSPACE);
        diary_crash(&book);
        if (damage == 0) { /* the switch frame; wal-2 has an attest frame */
            change("wal-1", flip, SECTOR * 4 + 50, 1);
            expect(IQDB_ERR_CORRUPT, "wal-1", SECTOR * 4, 4);
        } else if (damage == 1) { /* that attest frame: then nobody knows, but records are not in question */
            change("wal-2", flip, SECTOR + 44, 1);
            expect_records(3);
        } else { /* both: the switch looks torn, and wal-2 like what an interrupted switch leaves */
            change("wal-1", flip, SECTOR * 4 + 50, 1);
            change("wal-2", flip, SECTOR + 44, 1);
            expect_records(3);
        }
        finish();
    }
}

static void unsynced_frames_may_go_out_of_order(void) {
    start(2);
    CHECK_EQ_INT(diary_write(&book, 2, 3, false), IQDB_OK);
    CHECK_EQ_INT(diary_write(&book, 5, 3, false), IQDB_OK);
    diary_crash(&book);
    change("wal-1", flip, SECTOR * 3 + 44, 1); /* the first frame of the first of the two */
    expect_records(2);
    finish();
}

static void a_batch_without_its_end(void) {
    start(2);
    CHECK_EQ_INT(diary_write(&book, 2, 40, false), IQDB_OK);
    diary_crash(&book);
    change("wal-1", flip, SECTOR * 3 + 3000, 1);
    expect_records(2);
    finish();
}

/* ---- Several logs ---- */

static void frames_of_the_next_log_are_witnesses(void) {
    for (int damage = 0; damage < 3; damage++) {
        start(3);
        CHECK_EQ_INT(checkpoint_by(book.directory, no_image, NULL), IQDB_ERR_NOSPACE);
        CHECK_EQ_INT(diary_write(&book, 3, 1, true), IQDB_OK);
        CHECK_EQ_INT(diary_write(&book, 4, 1, true), IQDB_OK);
        diary_crash(&book);
        if (damage == 0) change("wal-1", flip, SECTOR * 3 + 44, 1);
        if (damage == 1) change("wal-1", flip, SECTOR * 4 + 50, 1);
        if (damage == 2) change("wal-2", flip, SECTOR + 44, 1); /* an attest frame, followed by others */
        expect(IQDB_ERR_CORRUPT, damage == 2 ? "wal-2" : "wal-1",
               damage == 2 ? SECTOR : (uint64_t)SECTOR * (3 + (size_t)damage), damage == 2 ? 5 : (uint64_t)damage + 3);
        finish();
    }
    /* Only one that says it continues this one, and is of this database. */
    for (int i = 0; i < 3; i++) {
        start(3);
        CHECK_EQ_INT(checkpoint_by(book.directory, no_image, NULL), IQDB_ERR_NOSPACE);
        CHECK_EQ_INT(diary_write(&book, 3, 1, true), IQDB_OK);
        CHECK_EQ_INT(diary_write(&book, 4, 1, true), IQDB_OK);
        diary_crash(&book);
        change("wal-1", flip, SECTOR * 3 + 44, 1);
        change("wal-1", flip, SECTOR * 4 + 44, 1); /* the switch frame would be a witness itself */
        size_t size;
        uint8_t *bytes = fault_load(disk, "db", "wal-2", &size);
        if (i == 0) bytes[IQ_LOG_BEFORE_AT] = 9;
        if (i == 1) bytes[IQ_LOG_BEFORE_SALT_AT] ^= 1;
        if (i == 2) bytes[IQ_PAGE_UUID_AT] ^= 1;
        iq_put_u32(bytes + 8, iq_crc32(iq_crc32(0, bytes, 8), bytes + 12, SECTOR - 12));
        CHECK(fault_store(disk, "db", "wal-2", bytes, size));
        free(bytes);
        expect_records(2);
        finish();
    }
}

static void an_interrupted_recovery_attests_nothing(void) {
    start(3);
    CHECK_EQ_INT(diary_write(&book, 3, 5, false), IQDB_OK);
    diary_crash(&book);
    fault_files *before = fault_copy(disk);
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    diary_crash(&book);
    size_t size;
    uint8_t *bytes = fault_load(disk, "db", "wal-2", &size);
    fault_free(disk);
    disk = before;
    book.files = fault_table(disk);
    CHECK(fault_store(disk, "db", "wal-2", bytes, size));
    free(bytes);
    change("wal-1", flip, SECTOR * 4 + 44, 1); /* gone after all: it was never acknowledged */
    expect_records(3);
    CHECK(!exists("wal-2") && exists("wal-3"));
    finish();
}

static void an_old_log_counts_to_its_end_only(void) {
    start(3);
    CHECK_EQ_INT(diary_write(&book, 3, 2, false), IQDB_OK);
    diary_crash(&book);
    CHECK_EQ_INT(diary_open(&book), IQDB_OK); /* the last two are copied to wal-2 */
    CHECK_EQ_INT(diary_write(&book, 5, 2, true), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    change("wal-1", flip, SECTOR * 4 + 44, 1);
    expect_records(7);
    finish();
    start(3);
    CHECK_EQ_INT(diary_write(&book, 3, 2, false), IQDB_OK);
    diary_crash(&book);
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    diary_crash(&book);
    change("wal-1", flip, SECTOR * 2 + 44, 1);
    expect(IQDB_ERR_CORRUPT, "wal-1", SECTOR * 2, 2);
    finish();
}

static void a_log_that_was_cut_short(void) {
    start(0);
    book.large_every = 2;
    for (size_t i = 0; i < 40; i++) CHECK_EQ_INT(diary_write(&book, i, 1, true), IQDB_OK);
    const uint64_t log_bytes = diary_facts(&book).log_bytes;
    CHECK(log_bytes > 500000); /* it has grown three times */
    diary_crash(&book);
    size_t size;
    uint8_t *bytes = fault_load(disk, "db", "wal-1", &size);
    CHECK_EQ_U64(size, log_bytes);
    size_t end = size; /* of the frames */
    while (bytes[end - 1] == 0) end--;
    end = iq_round_up(end, SECTOR);
    CHECK(fault_store(disk, "db", "wal-1", bytes, end + IQ_FRAME_SIZE_MIN)); /* nothing is missing */
    CHECK_EQ_INT(diary_open_as(&book, true), IQDB_OK);
    CHECK(diary_counts(&book, 0, 40));
    diary_crash(&book);
    for (size_t cut = end + IQ_FRAME_SIZE_MIN - 1; cut > 4096; cut -= cut < 40000 ? cut : 35111) {
        CHECK(fault_store(disk, "db", "wal-1", bytes, cut));
        for (int read_only = 0; read_only < 2; read_only++) {
            CHECK_EQ_INT(diary_open_as(&book, read_only != 0), IQDB_ERR_CORRUPT);
            CHECK_EQ_STR(book.error.file, "wal-1");
            CHECK(book.error.offset > 0 && book.error.offset <= cut);
        }
    }
    CHECK(fault_store(disk, "db", "wal-1", bytes, size));
    free(bytes);
    expect_records(40);
    finish();
}

static void a_meta_that_is_older_than_the_log(void) {
    start(3);
    CHECK_EQ_INT(iq_directory_flush(book.directory, true), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK); /* an attest frame stands behind the end */
    size_t size;
    uint8_t *meta = fault_load(disk, "db", "META", &size);
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    CHECK_EQ_INT(diary_write(&book, 3, 1, true), IQDB_OK);
    CHECK_EQ_INT(diary_write(&book, 4, 1, true), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    CHECK(fault_store(disk, "db", "META", meta, size));
    free(meta);
    expect(IQDB_ERR_CORRUPT, "wal-1", SECTOR * 4, 4);
    finish();
}

/* One commit later nothing attests it yet, but it follows the end: nobody writes there before META knows. */
static void a_meta_that_is_one_commit_older(void) {
    for (int attest = 0; attest < 2; attest++) {
        start(3);
        if (attest) CHECK_EQ_INT(iq_directory_flush(book.directory, true), IQDB_OK); /* a frame that may stand there */
        CHECK_EQ_INT(diary_close(&book), IQDB_OK);
        size_t size;
        uint8_t *meta = fault_load(disk, "db", "META", &size);
        CHECK_EQ_INT(diary_open(&book), IQDB_OK); /* as it is, it opens */
        CHECK_EQ_INT(diary_write(&book, 3, 1, true), IQDB_OK);
        CHECK_EQ_INT(diary_close(&book), IQDB_OK);
        CHECK(fault_store(disk, "db", "META", meta, size));
        free(meta);
        expect(IQDB_ERR_CORRUPT, "wal-1", SECTOR * 4, 4);
        finish();
    }
}

/* Nor may a frame stand there that continues the log and is none of ours. */
static void behind_the_end_a_frame_that_makes_no_sense(void) {
    start(3);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    size_t size;
    uint8_t *bytes = fault_load(disk, "db", "wal-1", &size);
    const uint8_t *last = bytes + SECTOR * 3;
    uint8_t *frame = bytes + SECTOR * 4;
    const uint32_t length = IQ_FRAME_SIZE_MIN - IQ_FRAME_HEADER_SIZE;
    CHECK_EQ_U64(iq_get_u32(frame), 0);
    iq_put_u32(frame + IQ_FRAME_LENGTH_AT, length);
    iq_put_u64(frame + IQ_FRAME_LSN_AT, 4);
    iq_put_u64(frame + IQ_FRAME_DURABLE_AT, 3);
    iq_put_u64(frame + IQ_FRAME_BATCH_AT, 4);
    iq_put_u32(frame + IQ_FRAME_BEFORE_AT, iq_get_u32(last + IQ_FRAME_CRC_AT));
    frame[IQ_FRAME_TYPE_AT] = IQ_FRAME_SWITCH + 1;
    iq_put_u32(frame + IQ_FRAME_CRC_AT,
               iq_frame_crc(iq_crc32, iq_log_seed(iq_get_u64(bytes + IQ_LOG_SALT_AT)), frame, length));
    CHECK(fault_store(disk, "db", "wal-1", bytes, size));
    free(bytes);
    expect(IQDB_ERR_CORRUPT, "wal-1", SECTOR * 4, 4);
    finish();
}

static void lsns_survive_recovery(void) {
    start(2);
    CHECK_EQ_INT(diary_write(&book, 2, 3, false), IQDB_OK);
    CHECK_EQ_INT(iq_directory_flush(book.directory, true), IQDB_OK);
    CHECK_EQ_INT(diary_write(&book, 5, 1, false), IQDB_OK);
    uint64_t last = diary_facts(&book).last_lsn;
    diary_crash(&book);
    for (size_t i = 0; i < 12; i++) { /* the last of these have too many logs, and copy everything */
        CHECK_EQ_INT(diary_open(&book), IQDB_OK);
        CHECK(diary_counts(&book, 0, 6 + i));
        CHECK_EQ_U64(diary_facts(&book).last_lsn, last);
        CHECK_EQ_U64(book.last_lsn, last);
        CHECK_EQ_INT(diary_write(&book, book.count, 1, i % 2 == 0), IQDB_OK);
        CHECK(diary_facts(&book).last_lsn > last);
        last = diary_facts(&book).last_lsn;
        diary_crash(&book);
    }
    finish();
}

/* ---- Lies with valid checksums ---- */

static void what_meta_may_not_say(void) {
    const uint64_t log = IQ_META_LOG_AT;
    const struct {
        const char *what;
        uint64_t at, value;
        iqdb_result code;
        const char *file;
    } lies[] = {
        {"another salt", log + IQ_META_LOG_SALT_AT, 5, IQDB_ERR_CORRUPT, "wal-1"},
        {"another number", log + IQ_META_LOG_NUMBER_AT, 2, IQDB_ERR_CORRUPT, "wal-2"},
        {"an end further on", log + IQ_META_LOG_END_LSN_AT, 4, IQDB_ERR_CORRUPT, "wal-1"},
        {"an end further back", log + IQ_META_LOG_END_LSN_AT, 2, IQDB_ERR_CORRUPT, "wal-1"},
        {"an end elsewhere", log + IQ_META_LOG_END_AT, SECTOR * 5, IQDB_ERR_CORRUPT, "wal-1"},
        {"an end of another frame", log + IQ_META_LOG_END_CRC_AT, UINT64_C(0x100000000), IQDB_ERR_CORRUPT, "wal-1"},
        {"a snapshot", IQ_META_STATE_AT, UINT64_C(0x100000001), IQDB_ERR_CORRUPT, "META"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        start(3);
        CHECK_EQ_INT(diary_close(&book), IQDB_OK);
        change("META", set_meta, lies[i].at, lies[i].value);
        const iqdb_result code = diary_open(&book);
        if (!EXPECT(code == lies[i].code) || !EXPECT(strcmp(book.error.file, lies[i].file) == 0))
            printf("\n      ... %s: %d, %s: %s", lies[i].what, (int)code, book.error.file, book.error.text);
        finish();
    }
    /* An end within a batch. */
    start(0);
    CHECK_EQ_INT(diary_write(&book, 0, 3, true), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    change("META", set_meta, log + IQ_META_LOG_END_LSN_AT, 2);
    CHECK_EQ_INT(diary_open(&book), IQDB_ERR_CORRUPT);
    CHECK(strstr(book.error.text, "within a batch") != NULL);
    finish();
    /* An end within a sector. */
    start(0);
    CHECK_EQ_INT(diary_write(&book, 0, 1, false), IQDB_OK);
    CHECK_EQ_INT(diary_write(&book, 1, 1, false), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    size_t size;
    uint8_t *bytes = fault_load(disk, "db", "wal-1", &size);
    const uint32_t length = iq_get_u32(bytes + SECTOR), crc = iq_get_u32(bytes + SECTOR + 4);
    free(bytes);
    change("META", set_meta, log + IQ_META_LOG_END_LSN_AT, 1);
    change("META", set_meta, log + IQ_META_LOG_END_AT, SECTOR + 40 + length);
    change("META", set_meta, log + IQ_META_LOG_END_CRC_AT, UINT64_C(0x100000000) + crc);
    CHECK_EQ_INT(diary_open(&book), IQDB_ERR_CORRUPT);
    CHECK(strstr(book.error.text, "goes on") != NULL);
    change("wal-1", flip, SECTOR + 40 + length + 8, 1); /* nor if the second frame is none */
    CHECK_EQ_INT(diary_open(&book), IQDB_ERR_CORRUPT);
    CHECK(strstr(book.error.text, "cannot end here") != NULL);
    finish();
    /* A delta that is not there. */
    start(3);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    const uint64_t lsn = 4, second = IQ_META_SNAPSHOT_AT + IQ_META_SNAPSHOT_SIZE;
    change("META", set_meta, second + IQ_META_SNAPSHOT_NUMBER_AT, 2);
    change("META", set_meta, second + IQ_META_SNAPSHOT_LSN_AT, lsn);
    change("META", set_meta, IQ_META_SNAPSHOTS_AT, UINT64_C(0x100000002));
    CHECK_EQ_INT(diary_open(&book), IQDB_ERR_CORRUPT);
    CHECK_EQ_STR(book.error.file, "snap-2");
    change("META", set_meta, IQ_PAGE_VERSION_AT - 4, UINT64_C(0x200000000));
    CHECK_EQ_INT(diary_open(&book), IQDB_ERR_VERSION);
    finish();
}

/* A META that does not tell where the log ends: what the snapshot holds is acknowledged all the same. */
static void a_snapshot_is_witness(void) {
    start(3);
    for (uint64_t i = 3; i < 10; i++) {
        CHECK_EQ_INT(checkpoint_by(book.directory, no_image, NULL), IQDB_ERR_NOSPACE);
        CHECK_EQ_INT(diary_write(&book, i, 1, true), IQDB_OK);
    }
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK); /* with eight logs it ends within the last one */
    const uint64_t applied = diary_facts(&book).applied_lsn;
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    change("META", set_meta, IQ_META_LOG_AT + IQ_META_LOG_END_CRC_AT, 0); /* and the state behind it */
    change("META", set_meta, IQ_META_STATE_AT, UINT64_C(0x100000000));
    CHECK_EQ_INT(diary_open_as(&book, true), IQDB_OK);
    CHECK(diary_counts(&book, 0, 10));
    diary_crash(&book);
    size_t size;
    uint8_t *bytes = fault_load(disk, "db", "wal-8", &size);
    size_t at = SECTOR;
    while (iq_get_u64(bytes + at + IQ_FRAME_LSN_AT) < applied) at += IQ_FRAME_HEADER_SIZE + iq_get_u32(bytes + at);
    free(bytes);
    change("wal-8", flip, at + 44, 1);
    expect(IQDB_ERR_CORRUPT, "wal-8", at, applied);
    finish();
}

static void a_snapshot_that_ends_within_a_batch(void) {
    /* META says that a snapshot holds LSN 2 of a batch of 3, and eight logs must be folded. */
    start(0);
    CHECK_EQ_INT(diary_write(&book, 0, 1, true), IQDB_OK);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK); /* up to LSN 2 */
    CHECK_EQ_INT(diary_write(&book, 1, 3, true), IQDB_OK);
    for (uint64_t i = 4; i < 11; i++) {
        CHECK_EQ_INT(checkpoint_by(book.directory, no_image, NULL), IQDB_ERR_NOSPACE);
        CHECK_EQ_INT(diary_write(&book, i, 1, true), IQDB_OK);
    }
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    change("META", set_meta, IQ_META_APPLIED_AT, 3);
    change("META", set_meta, IQ_META_SNAPSHOT_AT + IQ_META_SNAPSHOT_LSN_AT, 3);
    change("META", set_meta, IQ_META_STATE_AT, UINT64_C(0x100000000)); /* not clean: so it recovers */
    CHECK_EQ_INT(diary_open(&book), IQDB_ERR_CORRUPT);
    CHECK_EQ_STR(book.error.file, "wal-2");
    finish();
}

static size_t findings;
static char found[8][32];
static void on_finding(const iqdb_error *finding, void *user) {
    (void)user;
    if (findings < 8) memcpy(found[findings], finding->file, 32);
    findings++;
}

/* What open refuses is found by who has opened it before, too. */
static void expect_finding(const diary *reader, const char *file) {
    findings = 0;
    CHECK_EQ_INT(iq_directory_verify(reader->directory, IQDB_DEPTH_BLOCKS, on_finding, NULL), IQDB_ERR_CORRUPT);
    CHECK_EQ_U64(findings, 1);
    CHECK_EQ_STR(found[0], file);
}

static void switches_that_lead_nowhere(void) {
    for (int i = 0; i < 4; i++) {
        start(2);
        CHECK_EQ_INT(checkpoint_by(book.directory, no_image, NULL), IQDB_ERR_NOSPACE);
        diary_crash(&book);
        diary reader = diary_make(fault_table(disk), "db");
        CHECK_EQ_INT(diary_open_as(&reader, true), IQDB_OK);
        size_t size;
        uint8_t *bytes = fault_load(disk, "db", "wal-1", &size);
        uint8_t *frame = bytes + SECTOR * 3;
        const uint64_t numbers[] = {1, 0, UINT64_MAX, 2};
        iq_put_u64(frame + 40 + IQ_BODY_SWITCH_NUMBER_AT, numbers[i]);
        if (i == 3) iq_put_u64(frame + 40 + IQ_BODY_SWITCH_SALT_AT, 5);
        iq_put_u32(frame + 4,
                   iq_frame_crc(iq_crc32, iq_log_seed(iq_get_u64(bytes + IQ_LOG_SALT_AT)), frame, iq_get_u32(frame)));
        CHECK(fault_store(disk, "db", "wal-1", bytes, size));
        free(bytes);
        CHECK_EQ_INT(diary_open(&book), IQDB_ERR_CORRUPT);
        CHECK_EQ_STR(book.error.file, i == 3 ? "wal-2" : "wal-1");
        expect_finding(&reader, book.error.file);
        diary_free(&reader);
        finish();
    }
}

/* A log of a later version is no witness: whoever wrote it knew that this one ends where it ends. */
static void a_later_version_is_no_witness(void) {
    start(3);
    CHECK_EQ_INT(checkpoint_by(book.directory, no_image, NULL), IQDB_ERR_NOSPACE);
    diary_crash(&book);
    change("wal-1", flip, SECTOR * 4 + 50, 1); /* the switch frame */
    size_t size;
    uint8_t *bytes = fault_load(disk, "db", "wal-2", &size);
    iq_put_u32(bytes + IQ_PAGE_VERSION_AT, 2);
    iq_put_u32(bytes + 8, iq_crc32(iq_crc32(0, bytes, 8), bytes + 12, SECTOR - 12));
    CHECK(fault_store(disk, "db", "wal-2", bytes, size));
    free(bytes);
    expect_records(3);
    CHECK(exists("wal-2")); /* nor is it ours to remove */
    finish();
}

/* META names as many logs as it can, and the last one leads to yet another: nobody wrote that. */
static void one_log_too_many(void) {
    uint32_t logs = 0;
    iq_wal *wal;
    iq_log_entry ended;
    start(1);
    for (size_t count = 1; logs < IQ_META_LOG_MAX && count < 40; count++) {
        size_t size;
        diary_crash(&book);
        CHECK_EQ_INT(diary_open(&book), IQDB_OK);
        CHECK(diary_counts(&book, 0, count));
        CHECK_EQ_INT(diary_write(&book, count, 1, true), IQDB_OK);
        CHECK_EQ_INT(iq_directory_flush(book.directory, true), IQDB_OK);
        uint8_t *meta = fault_load(disk, "db", "META", &size);
        logs = iq_get_u32(meta + IQ_META_LOGS_AT);
        free(meta);
    }
    CHECK_EQ_U64(logs, IQ_META_LOG_MAX);
    const iqdb_stats facts = diary_facts(&book);
    diary reader = diary_make(fault_table(disk), "db");
    CHECK_EQ_INT(diary_open_as(&reader, true), IQDB_OK);
    CHECK_EQ_INT(iq_directory_verify(reader.directory, IQDB_DEPTH_BLOCKS, NULL, NULL), IQDB_OK);
    CHECK_EQ_INT(iq_directory_batch_begin(book.directory, &wal), IQDB_OK);
    iq_wal_abort(wal);
    CHECK_EQ_INT(iq_wal_switch(wal, facts.uuid, 5, &ended), IQDB_OK);
    diary_crash(&book);
    CHECK_EQ_INT(diary_open(&book), IQDB_ERR_CORRUPT);
    CHECK(strstr(book.error.text, "switch frame") != NULL);
    expect_finding(&reader, book.error.file);
    diary_free(&reader);
    finish();
}

/* Records that the layer above refuses are reported with their place. */
static void a_record_that_makes_no_sense(void) {
    start(2);
    static const uint8_t bytes[40] = {1, 0, 0, 0, 0, 0, 0, 0, 99}; /* too short for what it says */
    const iq_slice piece = {bytes, sizeof bytes};
    uint64_t lsn;
    iq_wal *wal;
    CHECK_EQ_INT(iq_directory_batch_begin(book.directory, &wal), IQDB_OK);
    CHECK_EQ_INT(iq_wal_add(wal, &piece, 1), IQDB_OK);
    CHECK_EQ_INT(diary_commit(book.directory, true, &lsn), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    expect(IQDB_ERR_CORRUPT, "wal-1", SECTOR * 3, 3);
    finish();
}

/* verify names each finding, goes on behind it, and changes nothing. */
static void verify_finds_everything(void) {
    start(0);
    CHECK_EQ_INT(diary_write(&book, 0, 5000, true), IQDB_OK);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
    CHECK_EQ_INT(checkpoint_by(book.directory, no_image, NULL), IQDB_ERR_NOSPACE); /* of an empty log */
    CHECK_EQ_INT(diary_write(&book, 5000, 1, true), IQDB_OK);
    CHECK_EQ_INT(checkpoint_by(book.directory, no_image, NULL), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(diary_write(&book, 5001, 1, false), IQDB_OK);
    findings = 0;
    CHECK_EQ_INT(iq_directory_verify(book.directory, IQDB_DEPTH_BLOCKS, on_finding, NULL), IQDB_OK);
    CHECK_EQ_U64(findings, 0);
    /* Bytes rot in place, under the handle. */
    static const char *const names[] = {"META", "snap-1", "wal-2", "wal-3"};
    static const uint64_t places[] = {5000, 100, SECTOR + 60, SECTOR * 2};
    static const uint8_t wrong = 0xEE;
    for (int i = 0; i < 3; i++) CHECK(fault_poke(disk, "db", names[i], places[i], &wrong, 1));
    CHECK(fault_store(disk, "db", names[3], NULL, 0));
    const size_t changes = fault_calls(disk, CHANGES);
    CHECK_EQ_INT(iq_directory_verify(book.directory, IQDB_DEPTH_BLOCKS, on_finding, NULL), IQDB_ERR_CORRUPT);
    CHECK_EQ_U64(findings, 5); /* what is missing, and what is lost by it */
    for (int i = 0; i < 4; i++) CHECK_EQ_STR(found[i], names[i]);
    CHECK_EQ_STR(found[4], names[3]);
    findings = 0; /* FRAMES does not read the blocks of a snapshot */
    CHECK_EQ_INT(iq_directory_verify(book.directory, IQDB_DEPTH_FRAMES, on_finding, NULL), IQDB_ERR_CORRUPT);
    CHECK_EQ_U64(findings, 4);
    CHECK_EQ_INT(iq_directory_verify(book.directory, IQDB_DEPTH_DEFAULT, NULL, NULL), IQDB_ERR_CORRUPT);
    CHECK_EQ_U64(fault_calls(disk, CHANGES), changes);
    finish();
}

TEST_MAIN("persist/recover", TEST(the_last_commit_has_no_witness), TEST(a_flush_is_witness),
          TEST(a_failed_checkpoint_is_witness), TEST(unsynced_frames_may_go_out_of_order),
          TEST(a_batch_without_its_end), TEST(frames_of_the_next_log_are_witnesses),
          TEST(an_interrupted_recovery_attests_nothing), TEST(an_old_log_counts_to_its_end_only),
          TEST(a_log_that_was_cut_short), TEST(a_meta_that_is_older_than_the_log),
          TEST(a_meta_that_is_one_commit_older), TEST(behind_the_end_a_frame_that_makes_no_sense),
          TEST(lsns_survive_recovery), TEST(what_meta_may_not_say), TEST(a_snapshot_is_witness),
          TEST(a_snapshot_that_ends_within_a_batch), TEST(switches_that_lead_nowhere),
          TEST(a_record_that_makes_no_sense), TEST(a_later_version_is_no_witness), TEST(one_log_too_many),
          TEST(verify_finds_everything))
