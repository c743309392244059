/* Power cuts at every moment of the life of a directory.
 *
 * A tape of writes, flushes, checkpoints, closes and reopens runs on a disk in memory. After each call that changed or
 * synced something, the disks that a power cut could leave behind are made, and each is opened. What must hold:
 *   - it opens, and the records are those of whole batches 0 .. r with durable <= r <= issued, reading only or not;
 *   - opening it again, before anything was written, finds the same; so does an open after a cut within recovery;
 *   - what is written and synced after recovery is there after the next power cut.
 *
 * Then rot: each byte of each file of small directories, and each length that a file could be cut to. What must hold: an
 * error that names the file, or the records of before; only where nothing attests the last commit may that one go. */
#include "api.h"
#include "fault_cut.h"
#include "persist/diary.h"
#include "support.h"
#include "test.h"

#define BOUNDS_MAX 512

typedef struct cut {
    diary book;
    size_t bounds[BOUNDS_MAX]; /* number of records behind each batch issued so far; bounds[0] is 0 */
    size_t bound_count;
    size_t durable;  /* records acknowledged */
    size_t expected; /* by check_same: how many there must be */
    bool unborn;     /* before the first open has returned, a cut may leave no database */
    size_t samples, states, inner_states, longest;
    unsigned damage, every, depth;
    uint64_t seed;
} cut;

static bool complain(const char *what, const char *why, const diary *book) {
    printf("\n    after a power cut (%s): %s; %zu records, code %d, %s at %llu: %s", what, why, book->count,
           (int)book->error.code, book->error.file, (unsigned long long)book->error.offset, book->error.text);
    return false;
}

static bool is_bound(const cut *run, size_t count) {
    for (size_t i = 0; i < run->bound_count; i++)
        if (run->bounds[i] == count) return true;
    return false;
}

/* A state in the middle of a recovery: the same records must come back. */
static bool check_same(fault_files *state, const char *what, void *user) {
    cut *run = (cut *)user;
    diary book = diary_make(fault_table(state), "db");
    book.large_every = run->book.large_every;
    bool ok = EXPECT(diary_open(&book) == IQDB_OK) && EXPECT(diary_counts(&book, 0, run->expected));
    if (!ok) complain(what, "within recovery", &book);
    diary_free(&book);
    run->inner_states++;
    return ok;
}

static void cut_recovery(fault_files *disk, void *user) {
    cut *run = (cut *)user;
    fault_crashes(disk, run->damage, 3, run->seed++, check_same, run);
}

static bool check_state(fault_files *state, const char *what, void *user) {
    cut *run = (cut *)user;
    diary book = diary_make(fault_table(state), "db");
    book.large_every = run->book.large_every;
    book.entropy = run->states++ + 77;
    iqdb_result result = diary_open_as(&book, true);
    bool ok = result == IQDB_OK || (run->unborn && result == IQDB_ERR_NOT_FOUND);
    if (!EXPECT(ok)) return complain(what, "it does not open read-only", &book);
    const size_t count = book.count;
    ok = diary_counts(&book, 0, count) && is_bound(run, count) && count >= run->durable;
    if (!EXPECT(ok)) return complain(what, "these are not the records", &book);
    diary_crash(&book);
    if (run->depth > 0 && run->states % run->every == 0) { /* cuts within the recovery that now comes */
        run->expected = count;
        state->after_fn = cut_recovery;
        state->after_user = run;
    }
    result = diary_open(&book);
    state->after_fn = NULL;
    if (!EXPECT(result == IQDB_OK && diary_counts(&book, 0, count)))
        return complain(what, "it does not open for writing as it did for reading", &book);
    diary_crash(&book);
    fault_files *copy = fault_copy(state);
    book.files = fault_table(copy);
    result = diary_open(&book);
    if (!EXPECT(result == IQDB_OK && diary_counts(&book, 0, count)))
        return complain(what, "a second recovery finds something else", &book);
    if (!EXPECT(diary_write(&book, count, 2, true) == IQDB_OK)) return complain(what, "it cannot be written", &book);
    diary_crash(&book);
    fault_files *lost = fault_crash(copy, fault_lose, NULL);
    book.files = fault_table(lost);
    result = diary_open(&book);
    if (!EXPECT(result == IQDB_OK && diary_counts(&book, 0, count + 2)))
        return complain(what, "what was written after recovery is lost", &book);
    ok = EXPECT(diary_close(&book) == IQDB_OK) && EXPECT(diary_open(&book) == IQDB_OK) &&
         EXPECT(diary_counts(&book, 0, count + 2) && !diary_facts(&book).recovered) &&
         EXPECT(iq_directory_verify(book.directory, IQDB_DEPTH_BLOCKS, NULL, NULL) == IQDB_OK);
    diary_free(&book);
    fault_free(lost);
    fault_free(copy);
    return ok;
}

static void on_change(fault_files *disk, void *user) {
    cut *run = (cut *)user;
    if (test_now.failures > 0) return;
    run->seed += 1000;
    const size_t made = fault_crashes(disk, run->damage, run->samples, run->seed, check_state, run);
    if (made > run->longest) run->longest = made;
}

static bool issue(cut *run, size_t count, bool sync) {
    const size_t first = run->bounds[run->bound_count - 1];
    run->bounds[run->bound_count++] = first + count;
    if (!EXPECT(diary_write(&run->book, first, count, sync) == IQDB_OK)) return false;
    if (sync) run->durable = first + count;
    return true;
}

static bool settle(cut *run, iqdb_result result) {
    run->durable = run->bounds[run->bound_count - 1];
    return EXPECT(result == IQDB_OK);
}

/* Letters: s, b: a synced batch of 1, of 4; u, U: an unsynced one of 1, of 5; f flush; k checkpoint; c close and
 * open; x crash of the process and open. */
static bool play(cut *run, const char *tape) {
    for (; *tape != 0 && test_now.failures == 0; tape++) {
        diary *book = &run->book;
        bool ok = true;
        switch (*tape) {
        case 's':
            ok = issue(run, 1, true);
            break;
        case 'b':
            ok = issue(run, 4, true);
            break;
        case 'u':
            ok = issue(run, 1, false);
            break;
        case 'U':
            ok = issue(run, 5, false);
            break;
        case 'f':
            ok = settle(run, iq_directory_flush(book->directory));
            break;
        case 'k':
            ok = settle(run, diary_checkpoint(book));
            break;
        case 'c':
            ok = settle(run, diary_close(book)) && EXPECT(diary_open(book) == IQDB_OK);
            break;
        case 'x':
            diary_crash(book); /* the page cache survives it, so that recovery makes durable what was issued */
            ok = settle(run, diary_open(book));
            break;
        default:
            ok = EXPECT(!"a letter of the tape");
        }
        if (!ok || !EXPECT(diary_counts(book, 0, run->bounds[run->bound_count - 1]))) return false;
    }
    return test_now.failures == 0;
}

static void enumerate(const char *tape, size_t large_every, unsigned damage, size_t samples) {
    fault_files *disk = fault_new(NULL);
    cut run;
    memset(&run, 0, sizeof run);
    run.book = diary_make(fault_table(disk), "db");
    run.book.large_every = large_every;
    run.bound_count = 1;
    run.samples = samples;
    run.damage = damage;
    run.every = 100;
    run.depth = 1;
    run.seed = 42;
    run.unborn = true;
    disk->after_fn = on_change;
    disk->after_user = &run;
    diary_keep_memory();
    const bool opened = EXPECT(diary_open(&run.book) == IQDB_OK);
    run.unborn = false;
    const bool ok = opened && play(&run, tape) && settle(&run, diary_close(&run.book));
    if (!ok) printf("\n    tape %s", tape);
    printf(" [%s: %zu states, %zu within recovery, up to %zu at once, seed 42]", tape, run.states, run.inner_states,
           run.longest);
    diary_free(&run.book);
    fault_free(disk);
    CHECK(ok);
    CHECK(run.states > 500);
}

static void every_write_synced(void) {
    enumerate("ssbscsx", 0, FAULT_TEAR | FAULT_ZEROS | FAULT_GARBAGE, support_amount(2, 60, 400));
}

static void writes_flushed(void) {
    enumerate("uUfufUcuf", 0, FAULT_TEAR | FAULT_ZEROS | FAULT_GARBAGE, support_amount(2, 60, 400));
}

static void checkpoints(void) {
    enumerate("sukskukck", 0, FAULT_TEAR | FAULT_GARBAGE, support_amount(2, 60, 400));
}

static void recoveries_in_a_row(void) {
    enumerate("sxxsxuxfxsxbxxsxsxsk", 0, FAULT_ZEROS | FAULT_GARBAGE, support_amount(2, 30, 200));
}

static void large_records(void) {
    enumerate("sbUfk", 3, FAULT_GARBAGE, support_amount(2, 60, 400));
}

/* ---- Rot ---- */

typedef struct rot {
    fault_files *disk;
    size_t count, least; /* records that there are, and that may not go */
    size_t tried, refused, shorter;
    bool writes; /* try an open for writing, too: where it is clean, that changes nothing */
} rot;

static void probe(rot *run, const char *name, const char *what, uint64_t at) {
    for (int mode = 0; mode <= (int)run->writes; mode++) {
        diary book = diary_make(fault_table(run->disk), "db");
        const size_t changes = fault_calls(run->disk, FAULT_WRITE | FAULT_REMOVE);
        const iqdb_result result = diary_open_as(&book, mode == 0);
        bool ok = changes == fault_calls(run->disk, FAULT_WRITE | FAULT_REMOVE);
        run->tried++;
        if (result == IQDB_OK) {
            run->shorter += book.count < run->count;
            ok = ok && diary_counts(&book, 0, book.count) && book.count >= run->least && book.count <= run->count;
        } else {
            run->refused++;
            ok = ok && (result == IQDB_ERR_CORRUPT || result == IQDB_ERR_VERSION) && strcmp(book.error.file, name) == 0;
        }
        if (!EXPECT(ok))
            printf("\n    %s %s at %llu: code %d, %zu of %zu records, %s: %s", name, what, (unsigned long long)at,
                   (int)result, book.count, run->count, book.error.file, book.error.text);
        diary_free(&book);
    }
}

static void poke(rot *run, const char *name, uint64_t at, uint8_t byte) {
    CHECK(fault_poke(run->disk, "db", name, at, &byte, 1));
}

static void rot_file(rot *run, const char *name) {
    static const uint8_t masks[] = {0x01, 0x80, 0xFF};
    const size_t step = support_amount(97, 3, 1), zeros_step = support_amount(4093, 509, 1);
    size_t size;
    uint8_t *bytes = fault_load(run->disk, "db", name, &size);
    CHECK(bytes != NULL);
    size_t end = size; /* of what is not zeros */
    while (end > 0 && bytes[end - 1] == 0) end--;
    for (size_t at = 0; at < size && test_now.failures == 0; at += at < end + 64 ? step : zeros_step) {
        for (int i = 0; i < 3; i++) {
            poke(run, name, at, (uint8_t)(bytes[at] ^ masks[i]));
            probe(run, name, "flipped", at);
        }
        poke(run, name, at, bytes[at]);
    }
    for (size_t at = 0; at < size && test_now.failures == 0; at += at < end + 64 ? step * 3 : zeros_step) {
        CHECK(fault_store(run->disk, "db", name, bytes, at));
        probe(run, name, "cut", at);
    }
    CHECK(fault_store(run->disk, "db", name, NULL, 0));
    probe(run, name, "removed", 0);
    CHECK(fault_store(run->disk, "db", name, bytes, size));
    free(bytes);
}

static rot rot_make(diary *book) {
    rot run;
    memset(&run, 0, sizeof run);
    run.disk = fault_new(NULL);
    *book = diary_make(fault_table(run.disk), "db");
    EXPECT(diary_open(book) == IQDB_OK);
    return run;
}

static void rot_all(rot *run, diary *book, const char *const *names) {
    run->count = book->count;
    diary_free(book);
    for (; *names != NULL; names++) rot_file(run, *names);
    printf(" [%zu opened, %zu refused, %zu without the last commit]", run->tried, run->refused, run->shorter);
    fault_free(run->disk);
    CHECK(run->refused > 50);
}

static iqdb_result no_image(iq_snapshot_writer *writer, void *user) {
    (void)writer;
    (void)user;
    return IQDB_ERR_NOSPACE;
}

static void rot_of_a_closed_directory(void) {
    static const char *const names[] = {"META", "wal-2", "wal-3", "snap-1", "LOCK", NULL};
    diary book;
    rot run = rot_make(&book);
    for (size_t i = 0; i < 6; i++) CHECK_EQ_INT(diary_write(&book, i * 3, 3, i % 2 == 0), IQDB_OK);
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
    for (size_t i = 6; i < 10; i++) CHECK_EQ_INT(diary_write(&book, i * 3, 3, i % 2 == 0), IQDB_OK);
    CHECK_EQ_INT(iq_directory_checkpoint(book.directory, no_image, NULL), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(diary_write(&book, 30, 2, false), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    run.least = book.count;
    run.writes = true;
    rot_all(&run, &book, names);
}

static void rot_after_synced_writes(void) {
    static const char *const names[] = {"META", "wal-1", NULL};
    diary book;
    rot run = rot_make(&book);
    for (size_t i = 0; i < 5; i++) CHECK_EQ_INT(diary_write(&book, i * 3, 3, true), IQDB_OK);
    run.least = 12; /* nothing attests the fifth yet */
    rot_all(&run, &book, names);
    CHECK(run.shorter > 0);
}

static void rot_after_a_flush(void) {
    static const char *const names[] = {"META", "wal-1", "wal-2", NULL};
    diary book;
    rot run = rot_make(&book);
    for (size_t i = 0; i < 5; i++) CHECK_EQ_INT(diary_write(&book, i * 3, 3, false), IQDB_OK);
    CHECK_EQ_INT(iq_directory_checkpoint(book.directory, no_image, NULL), IQDB_ERR_NOSPACE);
    for (size_t i = 5; i < 8; i++) CHECK_EQ_INT(diary_write(&book, i * 3, 3, false), IQDB_OK);
    CHECK_EQ_INT(iq_directory_flush(book.directory), IQDB_OK);
    run.least = 24;
    rot_all(&run, &book, names);
}

TEST_MAIN("crash/directory", TEST(every_write_synced), TEST(writes_flushed), TEST(checkpoints),
          TEST(recoveries_in_a_row), TEST(large_records), TEST(rot_of_a_closed_directory),
          TEST(rot_after_synced_writes), TEST(rot_after_a_flush))
