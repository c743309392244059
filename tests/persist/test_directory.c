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
    for (int deaf = 0; deaf < 2; deaf++) { /* a reader passes the warning on, where somebody listens */
        book.is_deaf = deaf != 0;
        CHECK_EQ_INT(diary_open_as(&book, true), IQDB_OK);
        CHECK(diary_counts(&book, 0, 3) && book.warnings == (deaf ? 0u : 1u));
        diary_crash(&book);
    }
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

/* ---- What META says besides ---- */

static void what_meta_says_besides(void) {
    uint8_t keys[IQ_META_KEYS_SIZE];
    start_with(1);
    memset(keys, 5, sizeof keys);
    for (int twice = 0; twice < 2; twice++) {
        const size_t changes = fault_calls(disk, CHANGES);
        CHECK_EQ_INT(iq_directory_set_model(book.directory, "words-2"), IQDB_OK);
        CHECK_EQ_INT(iq_directory_set_keys(book.directory, keys), IQDB_OK);
        CHECK_EQ_INT(iq_directory_require(book.directory, IQ_META_KNOWN), IQDB_OK);
        CHECK((fault_calls(disk, CHANGES) == changes) == (twice == 1)); /* what it says already is not written */
    }
    diary_crash(&book);
    CHECK_EQ_INT(diary_open_as(&book, true), IQDB_OK);
    CHECK_EQ_STR(diary_facts(&book).model, "words-2");
    CHECK(memcmp(iq_directory_keys(book.directory), keys, sizeof keys) == 0);
    const size_t changes = fault_calls(disk, CHANGES);
    keys[0] = 6;
    CHECK_EQ_INT(iq_directory_set_model(book.directory, "words-3"), IQDB_OK); /* in memory, as the caller wants it */
    CHECK_EQ_INT(iq_directory_set_keys(book.directory, keys), IQDB_OK);
    CHECK_EQ_INT(iq_directory_require(book.directory, IQ_META_KNOWN), IQDB_ERR_READONLY);
    CHECK_EQ_U64(fault_calls(disk, CHANGES), changes);
    finish();
}

static void a_child_lets_go(void) {
    start_with(1);
    diary other = diary_make(fault_table(disk), "db");
    CHECK_EQ_INT(diary_open(&other), IQDB_ERR_LOCKED);
    iq_directory_let_go(NULL);
    iq_directory_let_go(book.directory);
    CHECK_EQ_INT(diary_open(&other), IQDB_OK);
    CHECK(diary_counts(&other, 0, 1));
    diary_free(&other);
    finish();
}

/* A checkpoint that ends after a failed sync of somebody else leaves nothing, and META as it was. */
static void a_checkpoint_beside_a_failed_sync(void) {
    iq_tier tier;
    int os_code;
    start_with(3);
    CHECK_EQ_INT(iq_directory_checkpoint_begin(book.directory, true, &tier), IQDB_OK);
    CHECK_EQ_INT(iq_directory_checkpoint_finish(book.directory, diary_image(tier.writer, &book)), IQDB_OK);
    const iqdb_result synced = iq_directory_checkpoint_sync(book.directory, &os_code);
    CHECK_EQ_INT(synced, IQDB_OK);
    fault_fail_nth(disk, FAULT_SYNC, 1, IQDB_ERR_IO, false);
    CHECK_EQ_INT(diary_write(&book, 3, 1, true), IQDB_ERR_IO);
    CHECK_EQ_INT(iq_directory_checkpoint_end(book.directory, synced, os_code), IQDB_ERR_POISONED);
    CHECK(!exists("snap-1"));
    diary_crash(&book);
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    CHECK(!book.snapshot_seen && (diary_counts(&book, 0, 3) || diary_counts(&book, 0, 4)));
    finish();
}

/* ---- A reader beside a writer ---- */

static iq_loader loader_of(diary *reader) {
    const iq_loader loader = {diary_on_schema, diary_on_snapshot, diary_on_record, reader, NULL};
    return loader;
}

static iqdb_result applies(void *user) {
    (void)user;
    return IQDB_OK;
}

static iqdb_result does_not_apply(void *user) {
    (void)user;
    return IQDB_ERR_NOMEM;
}

static void put_all(fault_files *to, const char *const *names, uint8_t **files, const size_t *sizes, size_t count) {
    for (size_t i = 0; i < count; i++) CHECK(fault_store(to, "db", names[i], files[i], sizes[i]));
}

/* Through two logs, over what was a part of one; what fails leaves the reader where it was. */
static void a_reader_goes_on(void) {
    iq_tier tier;
    start_with(3);
    diary reader = diary_make(fault_table(disk), "db");
    CHECK_EQ_INT(diary_open_as(&reader, true), IQDB_OK);
    const iq_loader loader = loader_of(&reader);
    CHECK_EQ_INT(diary_write(&book, 3, 2, true), IQDB_OK);
    CHECK_EQ_INT(iq_directory_checkpoint_begin(book.directory, true, &tier), IQDB_OK);
    CHECK_EQ_INT(diary_write(&book, 5, 3000, true), IQDB_OK); /* so much that META names both logs */
    const iqdb_stats before = diary_facts(&reader);
    CHECK_EQ_INT(iq_directory_refresh(reader.directory, &loader, does_not_apply), IQDB_ERR_NOMEM);
    reader.count = 3;
    iqdb_stats now = diary_facts(&reader);
    CHECK(now.last_lsn == before.last_lsn && now.log_bytes == before.log_bytes &&
          now.durable_lsn == before.durable_lsn);
    CHECK_EQ_INT(iq_directory_refresh(reader.directory, &loader, applies), IQDB_OK);
    CHECK(diary_counts(&reader, 0, 3005));
    now = diary_facts(&reader);
    CHECK_EQ_U64(now.last_lsn, diary_facts(&book).last_lsn);
    CHECK_EQ_INT(diary_write(&book, 3005, 1, true), IQDB_OK); /* now in the second log only */
    CHECK_EQ_INT(iq_directory_refresh(reader.directory, &loader, applies), IQDB_OK);
    CHECK(diary_counts(&reader, 0, 3006));
    CHECK(diary_facts(&reader).log_bytes >= now.log_bytes);
    /* A warning that nobody wants to hear. */
    flip("META", 99, 1);
    reader.reporter.logger.log_fn = NULL;
    CHECK_EQ_INT(iq_directory_refresh(reader.directory, &loader, applies), IQDB_OK);
    CHECK(diary_counts(&reader, 0, 3006));
    diary_free(&reader);
    finish();
}

/* Where another database stands in its place, the reader keeps what it has; and checks what stands there. */
static void another_database_in_its_place(void) {
    static const char *const names[] = {"META", "wal-1"};
    uint8_t *files[2];
    size_t sizes[2];
    start_with(3);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    diary reader = diary_make(fault_table(disk), "db"), writer;
    CHECK_EQ_INT(diary_open_as(&reader, true), IQDB_OK);
    fault_files *other = fault_new(NULL);
    writer = diary_make(fault_table(other), "db");
    writer.entropy = 77;
    CHECK_EQ_INT(diary_open(&writer), IQDB_OK);
    CHECK_EQ_INT(diary_write(&writer, 0, 9, true), IQDB_OK);
    CHECK_EQ_INT(diary_close(&writer), IQDB_OK);
    for (size_t i = 0; i < 2; i++) files[i] = fault_load(other, "db", names[i], &sizes[i]);
    put_all(disk, names, files, sizes, 2);
    const iq_loader loader = loader_of(&reader);
    const iqdb_stats before = diary_facts(&reader);
    CHECK_EQ_INT(iq_directory_refresh(reader.directory, &loader, applies), IQDB_ERR_CORRUPT);
    CHECK_EQ_STR(reader.error.file, "META");
    CHECK(diary_facts(&reader).last_lsn == before.last_lsn && diary_counts(&reader, 0, 3));
    CHECK_EQ_INT(iq_directory_verify(reader.directory, IQDB_DEPTH_BLOCKS, NULL, NULL), IQDB_ERR_CORRUPT);
    memset(files[0], 7, sizes[0]); /* META is nothing at all: what was read from it is what counts */
    CHECK(fault_store(disk, "db", "META", files[0], sizes[0]));
    CHECK_EQ_INT(iq_directory_verify(reader.directory, IQDB_DEPTH_BLOCKS, NULL, NULL), IQDB_ERR_CORRUPT);
    for (size_t i = 0; i < 2; i++) free(files[i]);
    diary_free(&reader);
    diary_free(&writer);
    fault_free(other);
    finish();
}

static iqdb_files quiet_table;
static size_t looks;

/* Somebody changes META each time the reader has looked at it. */
static iqdb_result restless_read(void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size, int *os_code,
                                 void *user) {
    const iqdb_result result = quiet_table.read_fn(file, offset, bytes, size, out_size, os_code, user);
    if (size == IQ_META_SLOT_SIZE && offset == IQ_META_SLOT_SIZE)
        EXPECT(iq_directory_set_model(book.directory, looks++ % 2 ? "a" : "b") == IQDB_OK);
    return result;
}

/* Damage counts when META shows the same twice; and it counts after so many tries, whatever META shows. */
static void damage_beside_a_restless_writer(void) {
    start_with(2);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
    CHECK_EQ_INT(iq_directory_set_model(book.directory, "a"), IQDB_OK);
    quiet_table = fault_table(disk);
    diary reader = diary_make(quiet_table, "db");
    reader.files.read_fn = restless_read;
    CHECK_EQ_INT(diary_open_as(&reader, true), IQDB_OK);
    const iq_loader loader = loader_of(&reader);
    flip("snap-1", 100, 1);
    looks = 0;
    CHECK_EQ_INT(iq_directory_verify(reader.directory, IQDB_DEPTH_BLOCKS, NULL, NULL), IQDB_ERR_CORRUPT);
    CHECK(looks >= 100);
    looks = 0;
    /* The log it knows is not named any more: it has to read the snapshot. */
    CHECK_EQ_INT(diary_write(&book, 2, 1, true), IQDB_OK);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
    flip("snap-2", 100, 1);
    CHECK_EQ_INT(iq_directory_refresh(reader.directory, &loader, applies), IQDB_ERR_CORRUPT);
    CHECK_EQ_STR(reader.error.file, "snap-2");
    CHECK(looks >= 100);
    diary_free(&reader);
    finish();
}

/* ---- Without opening ---- */

static iqdb_result inspect(iqdb_stats *stats) {
    iq_directory_config config;
    memset(&config, 0, sizeof config);
    memset(&book.error, 0, sizeof book.error);
    config.volume.allocator = book.allocator;
    config.volume.files = book.files;
    config.volume.reporter = &book.reporter;
    const iq_loader loader = loader_of(&book);
    memset(stats, 0, sizeof *stats);
    return iq_directory_inspect("db", &config, &loader, stats);
}

static void facts_of_a_closed_one(void) {
    iqdb_stats stats;
    start_with(2);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
    CHECK_EQ_INT(diary_write(&book, 2, 2, true), IQDB_OK);
    const iqdb_stats open = diary_facts(&book);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    CHECK_EQ_INT(inspect(&stats), IQDB_OK);
    CHECK(stats.last_lsn == open.last_lsn && stats.snapshot_bytes == open.snapshot_bytes && !stats.recovered);
    /* META need not say where the log ends. */
    size_t size;
    uint8_t *bytes = fault_load(disk, "db", "META", &size);
    for (uint8_t *slot = bytes; slot < bytes + size; slot += IQ_META_SLOT_SIZE) {
        iq_put_u32(slot + IQ_META_STATE_AT, 0);
        iq_put_u32(slot + IQ_META_LOG_AT + IQ_META_LOG_STATE_AT, 0);
        iq_put_u32(slot + 8, iq_crc32(iq_crc32(0, slot, 8), slot + 12, IQ_META_SLOT_SIZE - 12));
    }
    CHECK(fault_store(disk, "db", "META", bytes, size));
    free(bytes);
    CHECK_EQ_INT(inspect(&stats), IQDB_OK);
    CHECK(stats.last_lsn == stats.applied_lsn && stats.recovered);
    flip("snap-1", 0, 1);
    CHECK_EQ_INT(inspect(&stats), IQDB_ERR_CORRUPT);
    flip("snap-1", 0, 1);
    expect_records(4);
    finish();
}

/* ---- Copies ---- */

static iqdb_result copy_to(const char *path, uint64_t lsn) {
    static const uint8_t keys[IQ_META_KEYS_SIZE] = {0};
    iq_directory_config config;
    memset(&config, 0, sizeof config);
    config.volume.allocator = book.allocator;
    config.volume.files = book.files;
    config.volume.reporter = &book.reporter;
    config.entropy.fill_fn = diary_entropy;
    config.entropy.user = &book.entropy;
    config.schema.dim = 7;
    config.schema.metric = 2;
    const iq_directory_content content = {NULL, lsn, keys, diary_image, &book};
    return iq_directory_make(path, &config, &content);
}

/* A copy goes where nothing is; each call of making it may fail, and then nothing is there, or it is whole. */
static void copies_go_where_nothing_is(void) {
    start_with(5);
    CHECK_EQ_INT(copy_to("db", 5), IQDB_ERR_LOCKED);
    diary_crash(&book);
    book.count = 5;
    CHECK_EQ_INT(copy_to("db", 5), IQDB_ERR_INVALID_CONFIG);
    CHECK(fault_store(disk, "logs", "wal-3", "x", 1));
    CHECK_EQ_INT(copy_to("logs", 5), IQDB_ERR_INVALID_CONFIG);
    size_t struck = 0;
    for (bool hit = true; hit; struck += hit) {
        diary copy = diary_make(fault_table(disk), "copy");
        disk->failed = 0;
        fault_fail_nth(disk, FAULT_ANY, struck + 1, IQDB_ERR_IO, false);
        const iqdb_result result = copy_to("copy", 5);
        hit = disk->failed > 0;
        fault_fail_nth(disk, 0, 0, IQDB_OK, false);
        if (!hit) CHECK_EQ_INT(result, IQDB_OK);
        if (result != IQDB_OK) CHECK_EQ_INT(result, IQDB_ERR_IO);
        if (result != IQDB_OK && diary_open_as(&copy, true) == IQDB_OK) CHECK(diary_counts(&copy, 0, 5));
        diary_crash(&copy);
        if (result == IQDB_OK) CHECK_EQ_INT(diary_open(&copy), IQDB_OK);
        if (result == IQDB_OK) CHECK(diary_counts(&copy, 0, 5));
        diary_free(&copy);
        static const char *const names[] = {"META", "wal-1", "wal-2", "snap-1"};
        void *dir;
        int os_code;
        const iqdb_files table = fault_table(disk);
        if (table.dir_open_fn("copy", false, &dir, &os_code, table.user) != IQDB_OK) continue;
        for (size_t i = 0; i < 4; i++) (void)table.remove_fn(dir, names[i], &os_code, table.user);
        table.dir_close_fn(dir, table.user);
    }
    CHECK(struck > 15);
    finish();
}

static iqdb_result append_to(const void *bytes, size_t size, void *user) {
    return iq_blob_append((iq_blob *)user, bytes, size);
}

static iqdb_result padded_image(iq_snapshot_writer *writer, void *user) {
    diary none;
    memset(&none, 0, sizeof none);
    iqdb_result result = diary_image(writer, *(const uint64_t *)user == 1 ? &book : &none);
    if (result == IQDB_OK) result = iq_snapshot_section(writer, 0, 3, 100000);
    return result == IQDB_OK ? iq_snapshot_write(writer, NULL, 100000) : result;
}

/* META has room for 32 snapshots: where they are as many, and none is small, the next one takes some in all the same. */
static void a_full_list_of_snapshots(void) {
    static iq_meta meta;
    static iq_manifest manifest;
    iq_meta_state state;
    iq_tier tier;
    int os_code;
    start_with(2);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    iq_volume volume;
    memset(&volume, 0, sizeof volume);
    volume.allocator = book.allocator;
    volume.files = book.files;
    CHECK_EQ_INT(iq_volume_open(&volume, "db", false), IQDB_OK);
    CHECK_EQ_INT(iq_meta_load(&meta, &volume, true, &state, &manifest), IQDB_OK);
    for (uint64_t number = 1; number <= IQ_META_SNAPSHOT_MAX; number++) {
        char name[IQ_FILE_NAME_SIZE];
        iq_blob bytes = {&book.allocator, NULL, 0, 0};
        const iq_sink sink = {append_to, &bytes};
        iq_snapshot_entry *entry = &manifest.snapshots[number - 1];
        *entry = manifest.snapshots[0];
        entry->number = number;
        entry->since = number == 1 ? 0 : entry->lsn;
        CHECK_EQ_INT(snapshot_by(&sink, &book.allocator, manifest.uuid, entry, padded_image, &number), IQDB_OK);
        iq_volume_name(name, IQ_SNAPSHOT_PREFIX, number);
        CHECK(fault_store(disk, "db", name, bytes.bytes, bytes.size));
        iq_blob_free(&bytes);
    }
    manifest.snapshot_count = IQ_META_SNAPSHOT_MAX;
    CHECK_EQ_INT(iq_meta_save(&meta, &manifest), IQDB_OK);
    iq_file_close(&meta.file);
    iq_volume_close(&volume);
    expect_records(2);
    CHECK_EQ_INT(diary_write(&book, 2, 1, true), IQDB_OK);
    CHECK_EQ_INT(iq_directory_checkpoint_begin(book.directory, false, &tier), IQDB_OK);
    CHECK(tier.kept < IQ_META_SNAPSHOT_MAX);
    CHECK_EQ_INT(iq_directory_checkpoint_finish(book.directory, diary_image(tier.writer, &book)), IQDB_OK);
    const iqdb_result synced = iq_directory_checkpoint_sync(book.directory, &os_code);
    CHECK_EQ_INT(iq_directory_checkpoint_end(book.directory, synced, os_code), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    expect_records(3);
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
          TEST(a_full_disk_at_recovery), TEST(what_meta_says_besides), TEST(a_child_lets_go),
          TEST(a_checkpoint_beside_a_failed_sync), TEST(a_reader_goes_on), TEST(another_database_in_its_place),
          TEST(damage_beside_a_restless_writer), TEST(facts_of_a_closed_one), TEST(copies_go_where_nothing_is),
          TEST(a_full_list_of_snapshots))
