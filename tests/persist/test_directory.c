/* The directory as a whole: what a caller sees of create, write, flush, checkpoint, close and the next open, and the
 * nine ways in which its predecessors lost data (the tests named after letters). */
#include "api.h"
#include "fault_cut.h"
#include "persist/diary.h"
#include "support.h"
#include "test.h"

#define CHANGES (FAULT_WRITE | FAULT_SYNC | FAULT_DIR_SYNC | FAULT_REMOVE)

static fault_files *disk;
static diary book;
static iq_wal *wal;

static void start(void) {
    disk = fault_new(NULL);
    book = diary_make(fault_table(disk), "db");
}

static void finish(void) {
    diary_free(&book);
    CHECK_EQ_U64(disk->open_files + disk->open_dirs, 0);
    fault_free(disk);
}

/* A database with `count` synced writes, one a batch. */
static void start_with(size_t count) {
    start();
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    for (size_t i = 0; i < count; i++) CHECK_EQ_INT(diary_write(&book, i, 1, true), IQDB_OK);
}

static void flip(const char *name, size_t offset, uint8_t mask) {
    size_t size;
    uint8_t *bytes = fault_load(disk, "db", name, &size);
    CHECK(bytes != NULL && offset < size);
    bytes[offset] = (uint8_t)(bytes[offset] ^ mask);
    CHECK(fault_store(disk, "db", name, bytes, size));
    free(bytes);
}

static void copy_file(fault_files *from, const char *name, fault_files *to, const char *as) {
    size_t size;
    uint8_t *bytes = fault_load(from, "db", name, &size);
    CHECK(bytes != NULL);
    CHECK(fault_store(to, "db", as, bytes, size));
    free(bytes);
}

static bool exists(const char *name) {
    size_t size;
    uint8_t *bytes = fault_load(disk, "db", name, &size);
    free(bytes);
    return bytes != NULL;
}

/* Opening fails in both modes, names the file and changes nothing. */
static void expect_refusal(iqdb_result code, const char *file) {
    const size_t changes = fault_calls(disk, CHANGES);
    for (int read_only = 0; read_only < 2; read_only++) {
        CHECK_EQ_INT(diary_open_as(&book, read_only != 0), code);
        CHECK(book.directory == NULL);
        CHECK_EQ_INT(book.error.code, code);
        CHECK_EQ_STR(book.error.file, file);
        CHECK(book.error.text[0] != 0);
    }
    CHECK_EQ_U64(fault_calls(disk, CHANGES), changes);
}

static void expect_records(size_t count) {
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    CHECK(diary_counts(&book, 0, count));
}

static void writes_come_back(void) {
    for (int sync = 0; sync < 2; sync++) {
        start();
        book.large_every = 10;
        CHECK_EQ_INT(diary_open(&book), IQDB_OK);
        CHECK(!book.schema_seen && book.count == 0);
        for (uint64_t i = 0; i < 30; i++) CHECK_EQ_INT(diary_write(&book, i * 3, 3, sync != 0), IQDB_OK);
        CHECK_EQ_INT(diary_close(&book), IQDB_OK);
        expect_records(90);
        CHECK(book.schema_seen && !book.snapshot_seen && !diary_facts(&book).recovered);
        CHECK_EQ_INT(diary_write(&book, 90, 10, sync != 0), IQDB_OK);
        CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
        CHECK_EQ_INT(diary_write(&book, 100, 10, sync != 0), IQDB_OK);
        CHECK_EQ_INT(iq_directory_verify(book.directory, IQDB_DEPTH_BLOCKS, NULL, NULL), IQDB_OK);
        CHECK_EQ_INT(iq_directory_flush(book.directory, true), IQDB_OK);
        diary_crash(&book);
        expect_records(110);
        CHECK(book.snapshot_seen && diary_facts(&book).recovered);
        CHECK_EQ_INT(iq_directory_verify(book.directory, IQDB_DEPTH_BLOCKS, NULL, NULL), IQDB_OK);
        CHECK_EQ_INT(diary_close(&book), IQDB_OK);
        CHECK_EQ_INT(diary_open_as(&book, true), IQDB_OK);
        CHECK(diary_counts(&book, 0, 110));
        CHECK_EQ_INT(iq_directory_verify(book.directory, IQDB_DEPTH_BLOCKS, NULL, NULL), IQDB_OK);
        finish();
    }
}

static void facts_tell_what_is_durable(void) {
    start();
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    iqdb_stats facts = diary_facts(&book);
    CHECK_EQ_U64(facts.last_lsn, 0);
    CHECK(!iq_directory_is_compact(book.directory) && !facts.read_only && !facts.poisoned && !facts.recovered);
    CHECK_EQ_U64(facts.log_bytes, 4096 + 65536);
    CHECK_EQ_INT(diary_write(&book, 0, 3, false), IQDB_OK);
    facts = diary_facts(&book);
    CHECK_EQ_U64(facts.last_lsn, 3);
    CHECK_EQ_U64(facts.durable_lsn, 0);
    CHECK_EQ_U64(facts.log_bytes, 4096 + 65536);
    CHECK_EQ_INT(iq_directory_flush(book.directory, true), IQDB_OK);
    facts = diary_facts(&book);
    CHECK_EQ_U64(facts.last_lsn, 3);
    CHECK_EQ_U64(facts.durable_lsn, 3);
    CHECK_EQ_INT(diary_write(&book, 3, 1, true), IQDB_OK);
    facts = diary_facts(&book);
    CHECK_EQ_U64(facts.durable_lsn, facts.last_lsn);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
    facts = diary_facts(&book);
    CHECK(iq_directory_is_compact(book.directory));
    CHECK_EQ_U64(facts.applied_lsn, facts.last_lsn);
    CHECK_EQ_U64(facts.durable_lsn, facts.last_lsn);
    CHECK(facts.snapshot_bytes > 8192);
    CHECK_EQ_U64(facts.log_bytes, 4096 + 65536);
    const uint64_t before = facts.last_lsn;
    CHECK_EQ_INT(diary_write(&book, 4, 1, false), IQDB_OK);
    CHECK(!iq_directory_is_compact(book.directory) && diary_facts(&book).last_lsn > before);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    /* LSNs never go back, whatever happens in between. */
    uint64_t last = 0;
    for (int i = 0; i < 4; i++) {
        expect_records(5 + (size_t)i);
        CHECK(diary_facts(&book).last_lsn >= last);
        last = diary_facts(&book).last_lsn;
        CHECK_EQ_INT(diary_write(&book, 5 + (uint64_t)i, 1, true), IQDB_OK);
        CHECK(diary_facts(&book).last_lsn > last);
        last = diary_facts(&book).last_lsn;
        if (i % 2 == 0)
            diary_crash(&book);
        else
            CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    }
    finish();
}

static void a_handle_that_never_wrote_leaves_the_disk_alone(void) {
    start_with(3);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    const size_t changes = fault_calls(disk, CHANGES);
    expect_records(3);
    CHECK_EQ_INT(iq_directory_flush(book.directory, true), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    CHECK_EQ_INT(diary_open_as(&book, true), IQDB_OK);
    CHECK_EQ_INT(iq_directory_flush(book.directory, true), IQDB_OK);
    CHECK_EQ_INT(iq_directory_batch_begin(book.directory, &wal), IQDB_ERR_READONLY);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_ERR_READONLY);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    CHECK_EQ_U64(fault_calls(disk, CHANGES), changes);
    /* Read-only after a crash: it sees everything and mends nothing. */
    expect_records(3);
    CHECK_EQ_INT(diary_write(&book, 3, 1, true), IQDB_OK);
    diary_crash(&book);
    const size_t later = fault_calls(disk, CHANGES);
    CHECK_EQ_INT(diary_open_as(&book, true), IQDB_OK);
    CHECK(diary_counts(&book, 0, 4) && !diary_facts(&book).recovered && diary_facts(&book).read_only);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    CHECK_EQ_U64(fault_calls(disk, CHANGES), later);
    finish();
}

static void what_was_not_committed_is_forgotten(void) {
    start_with(1);
    static const uint8_t bytes[64] = {1};
    const iq_slice piece = {bytes, sizeof bytes};
    CHECK_EQ_INT(iq_directory_batch_begin(book.directory, &wal), IQDB_OK);
    CHECK_EQ_INT(iq_wal_add(wal, &piece, 1), IQDB_OK);
    iq_wal_abort(wal);
    CHECK_EQ_INT(diary_write(&book, 1, 1, true), IQDB_OK);
    diary_crash(&book);
    expect_records(2);
    finish();
}

static void schema_comes_with_the_next_change_of_meta(void) {
    start_with(1);
    iq_schema schema = {99, 1, 0, 0};
    iq_directory_set_schema(book.directory, schema);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    CHECK(book.trouble != NULL); /* the diary expects the one it was made with */
    finish();
}

/* ---- What else is in the directory ---- */

static void read_only_needs_a_database(void) {
    start();
    CHECK_EQ_INT(diary_open_as(&book, true), IQDB_ERR_NOT_FOUND);
    CHECK(fault_store(disk, "db", "notes.txt", "hello", 5));
    CHECK_EQ_INT(diary_open_as(&book, true), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(diary_open(&book), IQDB_OK); /* other people's files are no obstacle */
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    CHECK(exists("notes.txt"));
    CHECK_EQ_INT(diary_open_as(&book, true), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    CHECK(fault_store(disk, "db", "LOCK", NULL, 0)); /* a copy on a medium that cannot be written */
    CHECK_EQ_INT(diary_open_as(&book, true), IQDB_OK);
    finish();
}

static void the_original_is_left_alone(void) {
    for (int i = 0; i < 2; i++) {
        start();
        CHECK(fault_store(disk, "db", i == 0 ? "snap" : "wal", "IQDB", 4));
        expect_refusal(IQDB_ERR_INVALID_CONFIG, "");
        CHECK(strstr(book.error.text, "import") != NULL);
        CHECK(!exists("LOCK"));
        finish();
    }
    start_with(1); /* beside a META such names mean nothing */
    CHECK(fault_store(disk, "db", "snap", "IQDB", 4));
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    expect_records(1);
    CHECK(exists("snap"));
    finish();
}

static void a_missing_meta_is_noticed(void) {
    start_with(1);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    CHECK(fault_store(disk, "db", "META", NULL, 0));
    expect_refusal(IQDB_ERR_CORRUPT, "META");
    CHECK(fault_store(disk, "db", "META", "", 0));
    expect_refusal(IQDB_ERR_CORRUPT, "META");
    CHECK(fault_store(disk, "db", "wal-1", "torn", 4)); /* beside a blank META this is an interrupted create */
    CHECK_EQ_INT(diary_open_as(&book, true), IQDB_ERR_NOT_FOUND);
    CHECK(fault_store(disk, "db", "META", "x", 1)); /* beside a damaged one nobody can tell */
    expect_refusal(IQDB_ERR_CORRUPT, "META");
    CHECK(fault_store(disk, "db", "META", NULL, 0));
    CHECK(fault_store(disk, "db", "snap-1", "torn", 4));
    expect_refusal(IQDB_ERR_CORRUPT, "META");
    CHECK(fault_store(disk, "db", "snap-1", NULL, 0));
    static uint8_t long_enough[4097];
    CHECK(fault_store(disk, "db", "wal-2", long_enough, sizeof long_enough)); /* a frame may have been there */
    expect_refusal(IQDB_ERR_CORRUPT, "META");
    CHECK(fault_store(disk, "db", "wal-2", long_enough, 4096));
    expect_records(0); /* interrupted create: made anew */
    CHECK_EQ_INT(diary_write(&book, 0, 1, true), IQDB_OK);
    diary_crash(&book);
    expect_records(1);
    finish();
}

static void an_interrupted_create_is_made_anew(void) {
    /* wal-1 is durable, META is missing, blank, or garbage; then the log torn, where that is told from a damaged one. */
    static uint8_t garbage[8192], blank[8192];
    memset(garbage, 0x5A, sizeof garbage);
    for (int i = 0; i < 6; i++) {
        start_with(0);
        CHECK_EQ_INT(diary_close(&book), IQDB_OK);
        const uint8_t *meta = i == 1 || i == 3 || i == 5 ? blank : i == 2 ? garbage : NULL;
        CHECK(fault_store(disk, "db", "META", meta, i == 3 ? 100 : sizeof blank));
        if (i == 4) CHECK(fault_store(disk, "db", "wal-1", garbage, 4096));
        if (i == 5) CHECK(fault_store(disk, "db", "wal-1", NULL, 0));
        CHECK_EQ_INT(diary_open_as(&book, true), IQDB_ERR_NOT_FOUND);
        expect_records(0);
        CHECK_EQ_INT(diary_write(&book, 0, 2, true), IQDB_OK);
        diary_crash(&book);
        expect_records(2);
        finish();
    }
}

static void orphans_go_and_strangers_stay(void) {
    start();
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    fault_files *other = fault_copy(disk);
    CHECK_EQ_INT(diary_write(&book, 0, 5, true), IQDB_OK);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK); /* wal-2, snap-1 */
    copy_file(disk, "wal-2", disk, "wal-7");        /* says another number inside: nobody's */
    CHECK(fault_store(disk, "db", "wal-9", "torn", 4));
    CHECK(fault_store(disk, "db", "wal-1", "torn", 4)); /* older than what META names: nobody can tell */
    CHECK(fault_store(disk, "db", "wal-007", "x", 1));
    CHECK(fault_store(disk, "db", "wal-99999999999999999999", "x", 1));
    CHECK(fault_store(disk, "db", "snap-5", "torn", 4));
    CHECK(fault_store(disk, "db", "snap-x", "torn", 4));
    CHECK_EQ_INT(diary_write(&book, 5, 1, true), IQDB_OK);
    diary_crash(&book);
    expect_records(6);
    CHECK(!exists("wal-9") && !exists("snap-5"));
    CHECK(exists("wal-7") && exists("wal-1") && exists("wal-007") && exists("wal-99999999999999999999"));
    CHECK(exists("snap-x") && exists("snap-1") && !exists("wal-2")); /* all that wal-2 held was copied */
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    /* A log of ours that was to go and did not: also a clean open takes it away. */
    copy_file(other, "wal-1", disk, "wal-1");
    expect_records(6);
    CHECK(!exists("wal-1"));
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    fault_free(other);
    finish();
}

/* As long as one slot names a file, it stays, even if the other slot is the one that counts. */
static void what_one_slot_names_is_no_orphan(void) {
    start_with(3);
    fault_files *before = fault_copy(disk);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    size_t size;
    uint8_t *old = fault_load(before, "db", "META", &size), *young = fault_load(disk, "db", "META", &size);
    memcpy(young, old, 4096);
    CHECK(fault_store(disk, "db", "META", young, size));
    copy_file(before, "wal-1", disk, "wal-1");
    free(old);
    free(young);
    expect_records(3);
    CHECK(book.snapshot_seen && exists("wal-1"));
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    CHECK(exists("wal-1"));
    expect_records(3);
    CHECK_EQ_INT(diary_write(&book, 3, 1, true), IQDB_OK); /* both slots say the same again */
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    expect_records(4);
    CHECK(!exists("wal-1"));
    fault_free(before);
    finish();
}

static void a_slot_of_meta_may_rot(void) {
    for (int slot = 0; slot < 2; slot++) {
        for (int clean = 0; clean < 2; clean++) {
            start_with(3);
            if (clean) CHECK_EQ_INT(diary_close(&book), IQDB_OK);
            diary_crash(&book);
            flip("META", (size_t)slot * 4096 + 17, 1);
            expect_records(3);
            CHECK_EQ_U64(book.warnings, 1);
            CHECK_EQ_INT(diary_write(&book, 3, 1, true), IQDB_OK); /* mends it */
            CHECK_EQ_INT(iq_directory_verify(book.directory, IQDB_DEPTH_FRAMES, NULL, NULL), IQDB_OK);
            CHECK_EQ_INT(diary_close(&book), IQDB_OK);
            flip("META", (size_t)(slot ^ 1) * 4096 + 4095, 0x80);
            expect_records(4);
            finish();
        }
    }
    start_with(3);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    flip("META", 100, 1);
    flip("META", 5000, 1);
    expect_refusal(IQDB_ERR_CORRUPT, "META");
    finish();
}

/* ---- Many logs ---- */

static void nine_crashes_in_a_row(void) {
    start();
    size_t count = 0;
    for (int i = 0; i < 20; i++) {
        expect_records(count);
        CHECK_EQ_INT(diary_write(&book, count, 2, true), IQDB_OK);
        CHECK_EQ_INT(diary_write(&book, count + 2, 1, false), IQDB_OK);
        count += 3;
        diary_crash(&book);
    }
    size_t logs = 0;
    for (unsigned i = 1; i < 64; i++) {
        char name[16];
        snprintf(name, sizeof name, "wal-%u", i);
        logs += exists(name);
    }
    CHECK(logs >= 2 && logs <= 8);
    expect_records(count);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    expect_records(count);
    finish();
}

static iqdb_result no_image(iq_snapshot_writer *writer, void *user) {
    (void)writer;
    (void)user;
    return IQDB_ERR_NOSPACE;
}

static void checkpoints_that_fail_leave_logs(void) {
    start();
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    for (uint64_t i = 0; i < 12; i++) { /* more than META can name */
        CHECK_EQ_INT(diary_write(&book, i, 1, i % 2 == 0), IQDB_OK);
        CHECK_EQ_INT(checkpoint_by(book.directory, no_image, NULL), IQDB_ERR_NOSPACE);
        CHECK(!exists("snap-1") && !diary_facts(&book).poisoned);
        CHECK_EQ_U64(diary_facts(&book).durable_lsn, diary_facts(&book).last_lsn);
    }
    CHECK_EQ_INT(iq_directory_verify(book.directory, IQDB_DEPTH_BLOCKS, NULL, NULL), IQDB_OK);
    fault_files *lost = fault_crash(disk, fault_lose, NULL);
    diary other = diary_make(fault_table(lost), "db");
    CHECK_EQ_INT(diary_open(&other), IQDB_OK);
    CHECK(diary_counts(&other, 0, 12));
    diary_free(&other);
    fault_free(lost);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    expect_records(12);
    CHECK_EQ_INT(diary_write(&book, 12, 1, false), IQDB_OK);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK); /* ends within the eighth log */
    CHECK(iq_directory_is_compact(book.directory));
    CHECK(exists("wal-8") && !exists("wal-7"));
    diary_crash(&book);
    expect_records(13);
    CHECK(!exists("wal-8")); /* nothing in it that the snapshot does not hold */
    CHECK_EQ_INT(diary_write(&book, 13, 1, true), IQDB_OK);
    diary_crash(&book);
    expect_records(14);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK); /* of nothing new */
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    expect_records(14);
    CHECK(iq_directory_is_compact(book.directory));
    finish();
}

/* ---- The nine ---- */

static void a_zeros_behind_the_log(void) {
    start_with(10);
    diary_crash(&book);
    size_t size;
    uint8_t *bytes = fault_load(disk, "db", "wal-1", &size);
    bytes = (uint8_t *)realloc(bytes, size + 4096);
    memset(bytes + size, 0, 4096);
    CHECK(fault_store(disk, "db", "wal-1", bytes, size + 4096));
    free(bytes);
    expect_records(10);
    finish();
}

static void b_writes_behind_a_torn_tail(void) {
    start_with(9);
    CHECK_EQ_INT(diary_write(&book, 9, 1, false), IQDB_OK);
    diary_crash(&book);
    flip("wal-1", 4096 * 10 + 60, 1); /* the tenth, not synced: torn */
    expect_records(9);
    for (uint64_t i = 9; i < 14; i++) CHECK_EQ_INT(diary_write(&book, i, 1, true), IQDB_OK);
    diary_crash(&book);
    expect_records(14);
    finish();
}

static void c_old_log_beside_a_new_snapshot(void) {
    start_with(10);
    fault_files *before = fault_copy(disk);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
    diary_crash(&book);
    copy_file(before, "wal-1", disk, "wal-1");
    expect_records(10);
    diary_crash(&book);
    /* The other way round: the snapshot is there, META does not know it yet. */
    copy_file(disk, "snap-1", before, "snap-1");
    diary other = diary_make(fault_table(before), "db");
    CHECK_EQ_INT(diary_open(&other), IQDB_OK);
    CHECK(diary_counts(&other, 0, 10) && !other.snapshot_seen);
    diary_free(&other);
    fault_free(before);
    finish();
}

static void d_a_bit_of_an_acknowledged_frame(void) {
    for (int clean = 0; clean < 2; clean++) {
        start_with(10);
        if (clean) CHECK_EQ_INT(diary_close(&book), IQDB_OK);
        diary_crash(&book);
        flip("wal-1", 4096 * 2 + 50, 1); /* the second frame */
        expect_refusal(IQDB_ERR_CORRUPT, "wal-1");
        CHECK_EQ_U64(book.error.offset, 4096 * 2);
        CHECK_EQ_U64(book.error.lsn, 2);
        finish();
    }
}

static void e_a_torn_header(void) {
    for (size_t size = 0; size <= 5; size += 5) {
        start_with(5);
        diary_crash(&book);
        CHECK(fault_store(disk, "db", "wal-1", "iqdbW", size));
        expect_refusal(IQDB_ERR_CORRUPT, "wal-1");
        finish();
    }
}

static void f_two_openers(void) {
    start_with(1);
    diary second = diary_make(fault_table(disk), "db");
    CHECK_EQ_INT(diary_open(&second), IQDB_ERR_LOCKED);
    CHECK_EQ_STR(second.error.file, "LOCK");
    CHECK_EQ_INT(diary_open_as(&second, true), IQDB_OK); /* who reads needs no lock */
    CHECK_EQ_INT(diary_write(&book, 1, 1, true), IQDB_OK);
    CHECK_EQ_INT(diary_close(&second), IQDB_OK);
    CHECK_EQ_INT(diary_open(&second), IQDB_ERR_LOCKED);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    CHECK_EQ_INT(diary_open_as(&book, true), IQDB_OK); /* nor keeps others from having it */
    CHECK_EQ_INT(diary_open(&second), IQDB_OK);
    CHECK_EQ_INT(diary_close(&second), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    diary_free(&second);
    finish();
}

static void g_files_of_another_database(void) {
    static const char *const names[] = {"wal-2", "snap-1", "META"};
    for (int i = 0; i < 3; i++) {
        fault_files *foreign = fault_new(NULL);
        diary other = diary_make(fault_table(foreign), "db");
        other.entropy = 999;
        CHECK_EQ_INT(diary_open(&other), IQDB_OK);
        CHECK_EQ_INT(diary_write(&other, 100, 7, true), IQDB_OK);
        CHECK_EQ_INT(diary_checkpoint(&other), IQDB_OK);
        CHECK_EQ_INT(diary_close(&other), IQDB_OK);
        start_with(7);
        CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
        CHECK_EQ_INT(diary_close(&book), IQDB_OK);
        copy_file(foreign, names[i], disk, names[i]);
        expect_refusal(IQDB_ERR_CORRUPT, i == 2 ? "snap-1" : names[i]); /* META first meets our snapshot */
        diary_free(&other);
        fault_free(foreign);
        finish();
    }
}

static void h_a_missing_file(void) {
    static const char *const names[] = {"wal-1", "snap-1", "wal-2"};
    for (int i = 0; i < 3; i++) {
        start_with(3);
        if (i > 0) CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
        CHECK_EQ_INT(diary_close(&book), IQDB_OK);
        CHECK(fault_store(disk, "db", names[i], NULL, 0));
        expect_refusal(IQDB_ERR_CORRUPT, names[i]);
        finish();
    }
    /* The log that a switch frame leads to is required as well. */
    start_with(3);
    CHECK_EQ_INT(checkpoint_by(book.directory, no_image, NULL), IQDB_ERR_NOSPACE);
    diary_crash(&book);
    CHECK(fault_store(disk, "db", "wal-2", NULL, 0));
    expect_refusal(IQDB_ERR_CORRUPT, "wal-2");
    finish();
}

static void i_a_full_disk_within_a_write(void) {
    for (int sync = 0; sync < 2; sync++) {
        start();
        book.large_every = 4;
        CHECK_EQ_INT(diary_open(&book), IQDB_OK);
        size_t refused = 0;
        disk->space = 200000;
        for (int i = 0; i < 300; i++) {
            const iqdb_result result = diary_write(&book, book.count, 1, sync != 0);
            CHECK(result == IQDB_OK || result == IQDB_ERR_NOSPACE);
            refused += result == IQDB_ERR_NOSPACE;
            if (i % 50 == 49) disk->space += 90000;
            CHECK(!diary_facts(&book).poisoned);
        }
        CHECK(refused > 50 && book.count > 20);
        disk->space = 0;
        const size_t count = book.count;
        CHECK_EQ_INT(iq_directory_flush(book.directory, true), IQDB_OK);
        diary_crash(&book);
        expect_records(count);
        finish();
    }
}

static void a_full_disk_at_recovery(void) {
    start_with(20);
    CHECK_EQ_INT(diary_write(&book, 20, 1, false), IQDB_OK);
    diary_crash(&book);
    disk->space = 1; /* not one byte more */
    expect_records(21);
    CHECK(diary_facts(&book).read_only && !diary_facts(&book).recovered && book.warnings == 1);
    CHECK_EQ_INT(iq_directory_batch_begin(book.directory, &wal), IQDB_ERR_READONLY);
    CHECK_EQ_INT(iq_directory_verify(book.directory, IQDB_DEPTH_BLOCKS, NULL, NULL), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    CHECK(!exists("wal-2"));
    disk->space = 0;
    expect_records(21);
    CHECK(diary_facts(&book).recovered && !diary_facts(&book).read_only);
    finish();
}

TEST_MAIN("persist/directory", TEST(writes_come_back), TEST(facts_tell_what_is_durable),
          TEST(a_handle_that_never_wrote_leaves_the_disk_alone), TEST(what_was_not_committed_is_forgotten),
          TEST(schema_comes_with_the_next_change_of_meta), TEST(read_only_needs_a_database),
          TEST(the_original_is_left_alone), TEST(a_missing_meta_is_noticed), TEST(an_interrupted_create_is_made_anew),
          TEST(orphans_go_and_strangers_stay), TEST(what_one_slot_names_is_no_orphan), TEST(a_slot_of_meta_may_rot),
          TEST(nine_crashes_in_a_row), TEST(checkpoints_that_fail_leave_logs), TEST(a_zeros_behind_the_log),
          TEST(b_writes_behind_a_torn_tail), TEST(c_old_log_beside_a_new_snapshot),
          TEST(d_a_bit_of_an_acknowledged_frame), TEST(e_a_torn_header), TEST(f_two_openers),
          TEST(g_files_of_another_database), TEST(h_a_missing_file), TEST(i_a_full_disk_within_a_write),
          TEST(a_full_disk_at_recovery))
