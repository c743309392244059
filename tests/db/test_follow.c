/* A read-only handle beside a writer: it stays as it is until it is refreshed, and then holds what the writer's does.
 * One follows the lives of crash/scenarios.h, through checkpoints, deaths and recoveries; others meet what a writer may
 * do while they read. That two processes do so is shown in api/test_refresh.c. */
#include "crash/scenarios.h"

static iqdb *follower;
static iqdb_error follower_error;
static size_t refreshes, over_deltas, steps_behind;

static iqdb_options follower_options(world *w) {
    iqdb_options options = world_options(w);
    options.read_only = true;
    options.error = &follower_error;
    memset(&options.allocator, 0, sizeof options.allocator);
    return options;
}

static void follower_close(void) {
    if (follower != NULL) EXPECT(iqdb_close(follower) == IQDB_OK);
    follower = NULL;
}

static bool follower_complain(world *w, const char *why) {
    printf("\n    \"%s\" at step %zu: the follower %s; error %d, %s at %llu: %s", w->script, w->step, why,
           (int)follower_error.code, follower_error.file, (unsigned long long)follower_error.offset,
           follower_error.text);
    return EXPECT(!"it follows");
}

/* Before a step it remembers what it sees; behind it that is still so, and after a refresh it sees what is there. */
static bool follow(world *w, char letter, bool after) {
    static uint64_t before;
    uint64_t print;
    if (!after) {
        if (letter == 'p' || letter == 'q') follower_close(); /* it dies with the machine */
        return follower == NULL || world_look(follower, &before, NULL) || follower_complain(w, "cannot read");
    }
    memset(&follower_error, 0, sizeof follower_error);
    if (follower == NULL) {
        iqdb_options options = follower_options(w);
        const iqdb_result result = iqdb_open("db", &options, &follower);
        if (result == IQDB_ERR_NOT_FOUND && w->unborn) return true;
        if (result != IQDB_OK) return follower_complain(w, "does not open");
    } else {
        if (!world_look(follower, &print, NULL) || print != before)
            return follower_complain(w, "has changed by itself");
        if (iqdb_verify(follower, IQDB_DEPTH_BLOCKS, NULL, NULL) != IQDB_OK)
            return follower_complain(w, "is told of damage where somebody has only written");
        steps_behind++;
        if (w->seed % 3 == 1 && steps_behind % 4 != 0) return true; /* the longer behind, the more is new to it */
        if (iqdb_refresh(follower) != IQDB_OK) return follower_complain(w, "cannot be refreshed");
        refreshes++;
        over_deltas += w->db != NULL && w->db->home->checkpoint.count > 1;
    }
    if (!world_look(follower, &print, NULL)) return follower_complain(w, "has records that nobody wrote");
    size_t at = w->durable;
    while (at < w->history_count && w->prints[at] != print) at++;
    if (at == w->history_count) return follower_complain(w, "has records of no moment that counts");
    if (w->failed == 0 && print != world_print_of(&w->model)) return follower_complain(w, "has other records");
    return true;
}

static void it_follows_every_life(void) {
    static world w;
    for (uint64_t seed = 0; seed < 2; seed++) {
        for (size_t i = 0; i < SCENARIO_COUNT && test_now.failures == 0; i++) {
            world_make(&w, scenarios[i].flags, 4096, seed);
            w.watch_fn = follow;
            EXPECT(world_play(&w, scenarios[i].script));
            follower_close();
            world_free(&w);
        }
    }
    printf(" %zu refreshes, %zu over deltas", refreshes, over_deltas);
    CHECK(refreshes > 500 && over_deltas > 50);
}

/* ---- What a refresh reads ---- */

static size_t opens_of(const fault_files *disk, const char *prefix) {
    size_t count = 0;
    for (size_t i = 0; i < disk->trace_count; i++)
        count += disk->trace[i].kind == FAULT_OPEN && strncmp(disk->trace[i].name, prefix, strlen(prefix)) == 0;
    return count;
}

/* What is read again costs what is new; an iterator goes on to see what it saw; nothing is written. */
static void it_reads_on_in_the_log(void) {
    static world w;
    world_make(&w, WORLD_EACH, 4096, 5);
    CHECK(world_play(&w, "oBkBk"));
    iqdb_options options = follower_options(&w);
    CHECK_EQ_INT(iqdb_open("db", &options, &follower), IQDB_OK);
    const uint64_t seen = iqdb_len(follower);
    iqdb_iter iter = iqdb_iter_begin(follower, NULL);
    CHECK(iqdb_iter_next(&iter));
    CHECK(world_play(&w, "ubDa"));
    const size_t writes = fault_calls(w.disk, FAULT_WRITE | FAULT_SYNC | FAULT_REMOVE | FAULT_LOCK);
    w.disk->recording = true;
    CHECK_EQ_INT(iqdb_refresh(follower), IQDB_OK);
    w.disk->recording = false;
    CHECK_EQ_U64(opens_of(w.disk, "snap"), 0);
    CHECK_EQ_U64(opens_of(w.disk, "wal"), 1);
    CHECK_EQ_U64(fault_calls(w.disk, FAULT_WRITE | FAULT_SYNC | FAULT_REMOVE | FAULT_LOCK), writes);
    uint64_t print, count = 1;
    CHECK(world_look(follower, &print, NULL) && print == world_print_of(&w.model));
    while (iqdb_iter_next(&iter)) count++;
    CHECK_EQ_U64(count, seen);
    iqdb_iter_end(&iter);
    CHECK(world_play(&w, "uk")); /* the log is gone */
    w.disk->trace_count = 0;
    w.disk->recording = true;
    CHECK_EQ_INT(iqdb_refresh(follower), IQDB_OK);
    CHECK(opens_of(w.disk, "snap") > 0);
    CHECK(world_look(follower, &print, NULL) && print == world_print_of(&w.model));
    follower_close();
    world_free(&w);
}

/* ---- A writer at work while files are read ---- */

static struct meddler {
    world *w;
    size_t in, times; /* the read after which it writes, and how often */
    const char *script;
    bool inside;
} meddler;

static iqdb_result meddling_read(void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size, int *os_code,
                                 void *user) {
    const iqdb_files files = fault_table((fault_files *)user);
    const iqdb_result result = files.read_fn(file, offset, bytes, size, out_size, os_code, user);
    if (meddler.inside || meddler.in == 0 || --meddler.in > 0) return result;
    meddler.inside = true;
    for (size_t i = 0; i < meddler.times; i++) EXPECT(world_play(meddler.w, meddler.script));
    meddler.inside = false;
    return result;
}

/* A life of the writer: what it does before the follower opens and between that and the refresh, then as that reads. */
typedef struct encounter {
    const char *before, *between, *meanwhile;
    unsigned flags;
} encounter;

/* After its nth read the writer does what it does: what is found is a moment from the one before to the one behind, and
 * never damage. *out_was, *out_is: the writer's snapshots before and behind. False where there are not so many reads. */
static bool encounter_at(const encounter *e, bool opening, size_t n, uint32_t *out_was, uint32_t *out_is) {
    static world w;
    uint64_t print = 0;
    world_make(&w, WORLD_EACH | e->flags, 4096, n);
    bool ok = EXPECT(world_play(&w, e->before));
    iqdb_options options = follower_options(&w);
    options.files.read_fn = meddling_read;
    memset(&meddler, 0, sizeof meddler);
    ok = ok && (opening || EXPECT(iqdb_open("db", &options, &follower) == IQDB_OK)) &&
         EXPECT(world_play(&w, e->between));
    size_t at = w.history_count - 1;
    *out_was = w.db->home->checkpoint.count;
    meddler.w = &w;
    meddler.in = n;
    meddler.times = 1;
    meddler.script = e->meanwhile;
    if (ok && (opening ? iqdb_open("db", &options, &follower) : iqdb_refresh(follower)) != IQDB_OK)
        ok = follower_complain(&w, "fails beside a writer");
    *out_is = w.db->home->checkpoint.count;
    const bool was_struck = meddler.in == 0;
    meddler.in = 0;
    ok = ok && EXPECT(world_look(follower, &print, NULL));
    while (at < w.history_count && w.prints[at] != print) at++;
    ok = ok && EXPECT(at < w.history_count) && EXPECT(iqdb_refresh(follower) == IQDB_OK);
    ok = ok && EXPECT(world_look(follower, &print, NULL) && print == world_print_of(&w.model));
    ok = ok && EXPECT(iqdb_verify(follower, IQDB_DEPTH_RECORDS, NULL, NULL) == IQDB_OK);
    follower_close();
    world_free(&w);
    return ok && was_struck;
}

/* The writer commits, checkpoints, closes and opens. */
static void whatever_comes_between_its_reads(void) {
    static const char *const scripts[] = {"u", "D", "uk", "kuk", "c", "uc", "bubu", "x", "uxk", "4{uk}"};
    size_t struck = 0;
    for (size_t s = 0; s < sizeof scripts / sizeof scripts[0]; s++) {
        const encounter e = {"obkub", "ukua", scripts[s], 0};
        uint32_t was, is;
        for (int opening = 0; opening < 2; opening++)
            for (size_t n = 1; n < 60 && encounter_at(&e, opening, n, &was, &is); n++) struck++;
    }
    printf(" %zu times", struck);
    CHECK(struck > 100);
}

/* It makes deltas, merges them in tiers, and makes one base of all, at once or in slices. */
static void deltas_come_between_its_reads(void) {
    static const encounter encounters[] = {
        {"ogggk", "Llkr", "k", 0},
        {"ogggkLlkd", "u", "k", 0},
        {"ogggkuk", "LLkukua", "urdk", 0},
        {"ogggkLkuk", "ua", "LLkuk", 0},
        {"ogggkLkuk", "urkua", "wkgLgkuk", 0},
        {"ogggkLLkuk", "Dkua", "c", WORLD_COMPACT},
        {"ogggkuk", "LLkrkDk", "gkggggku", 0},
        {"ogggkLLkuk", "dkxrk", "uxukx", 0},
        {"oggg3{mu}9m", "rdM", "uM", WORLD_PACED},
        {"oggg9muk", "3{mu}rd", "MrM", WORLD_PACED},
    };
    size_t struck = 0, more = 0, same = 0, fewer = 0, whole = 0;
    for (size_t i = 0; i < sizeof encounters / sizeof encounters[0]; i++) {
        uint32_t was, is;
        for (int opening = 0; opening < 2; opening++) {
            for (size_t n = 1; n < 60 && encounter_at(&encounters[i], opening, n, &was, &is); n++) {
                struck++;
                CHECK(was > 1);
                more += is > was;
                same += is == was;
                fewer += is > 1 && is < was;
                whole += is == 1;
            }
        }
    }
    printf(" %zu times: %zu deltas more, %zu as many, %zu merged, %zu made one", struck, more, same, fewer, whole);
    CHECK(more > 20 && same > 20 && fewer > 20 && whole > 20);
}

/* A part of a commit that is not there yet when it is read, and frames behind it that are, look like damage; read again
 * they are not. */
static struct veil {
    size_t times;
    uint64_t offset;
} veil;

static iqdb_result veiled_read(void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size, int *os_code,
                               void *user) {
    const iqdb_files files = fault_table((fault_files *)user);
    const iqdb_result result = files.read_fn(file, offset, bytes, size, out_size, os_code, user);
    if (veil.times > 0 && *out_size > 8192 + veil.offset && offset <= 4096) {
        veil.times--;
        memset((uint8_t *)bytes + veil.offset - offset, 0, 4096);
    }
    return result;
}

static void a_commit_that_is_half_there(void) {
    static world w;
    for (size_t times = 1; times <= 3; times++) {
        for (int opening = 0; opening < 2; opening++) {
            world_make(&w, WORLD_EACH, 4096, 1);
            CHECK(world_play(&w, "o"));
            iqdb_options options = follower_options(&w);
            options.files.read_fn = veiled_read;
            if (!opening) CHECK_EQ_INT(iqdb_open("db", &options, &follower), IQDB_OK);
            CHECK(world_play(&w, "6u"));
            veil.offset = 3 * 4096;
            veil.times = times;
            const iqdb_result result = opening ? iqdb_open("db", &options, &follower) : iqdb_refresh(follower);
            CHECK_EQ_INT(result, times == 1 ? IQDB_OK : IQDB_ERR_CORRUPT); /* twice the same is damage */
            if (result != IQDB_OK) CHECK_EQ_U64(follower_error.offset, 3 * 4096);
            veil.times = 0;
            follower_close();
            world_free(&w);
        }
    }
}

/* A check of the files finds nothing wrong with what has been written since, or is written as it reads, nor with files
 * that are not needed any more; and finds what is damaged. */
static void a_check_beside_a_writer(void) {
    static const char *const scripts[] = {"uu", "k", "uu", "uk", "kuk", "c", "bubu", "x", "uxk", "ggk", "4{uk}"};
    static world w;
    size_t struck = 0;
    for (size_t s = 0; s < sizeof scripts / sizeof scripts[0]; s++) {
        bool hit = true;
        for (size_t n = 0; n < 60 && hit; n++) { /* 0: before it reads */
            world_make(&w, WORLD_EACH, 4096, n);
            CHECK(world_play(&w, "obkub"));
            iqdb_options options = follower_options(&w);
            options.files.read_fn = meddling_read;
            memset(&meddler, 0, sizeof meddler);
            CHECK_EQ_INT(iqdb_open("db", &options, &follower), IQDB_OK);
            meddler.w = &w;
            meddler.in = n;
            meddler.times = 1;
            meddler.script = scripts[s];
            if (n == 0) CHECK(world_play(&w, scripts[s]));
            const iqdb_result result = iqdb_verify(follower, IQDB_DEPTH_BLOCKS, NULL, NULL);
            hit = meddler.in == 0;
            meddler.in = 0;
            struck += hit;
            if (result != IQDB_OK) printf("\n    \"%s\" within read %zu", scripts[s], n);
            CHECK_EQ_INT(result, IQDB_OK);
            CHECK(world_play(&w, "z"));
            size_t size;
            uint8_t *bytes = fault_load(w.disk, "db", "META", &size);
            const uint8_t byte = bytes[IQ_META_APPLIED_AT] ^ 1;
            free(bytes);
            CHECK(fault_poke(w.disk, "db", "META", IQ_META_APPLIED_AT, &byte, 1));
            CHECK_EQ_INT(iqdb_verify(follower, IQDB_DEPTH_FRAMES, NULL, NULL), IQDB_ERR_CORRUPT);
            follower_close();
            world_free(&w);
        }
    }
    printf(" %zu times", struck);
    CHECK(struck > 100);
}

/* Somebody brings back files of earlier, and the writer goes on with those: the log has a number that is known, and is
 * another one. */
static void another_log_of_a_known_number(void) {
    static const char *const names[] = {"META", "wal-1"};
    static world w, past;
    uint8_t *files[2];
    size_t sizes[2];
    uint64_t print;
    world_make(&w, WORLD_EACH, 4096, 1);
    CHECK(world_play(&w, "obz"));
    for (size_t i = 0; i < 2; i++) files[i] = fault_load(w.disk, "db", names[i], &sizes[i]);
    past = w;
    CHECK(world_play(&w, "oukbbuu"));
    iqdb_options options = follower_options(&w);
    CHECK_EQ_INT(iqdb_open("db", &options, &follower), IQDB_OK);
    CHECK(world_play(&w, "z"));
    fault_files *disk = w.disk;
    w = past; /* and with it the model */
    w.disk = disk;
    w.entropy += 99;
    for (size_t i = 0; i < 2; i++) CHECK(fault_store(disk, "db", names[i], files[i], sizes[i]));
    free(files[0]);
    free(files[1]);
    const iqdb_files table = fault_table(disk);
    void *dir;
    int os_code;
    CHECK_EQ_INT(table.dir_open_fn("db", false, &dir, &os_code, table.user), IQDB_OK);
    CHECK_EQ_INT(table.remove_fn(dir, "wal-2", &os_code, table.user), IQDB_OK);
    table.dir_close_fn(dir, table.user);
    CHECK(world_play(&w, "oku"));
    CHECK_EQ_INT(iqdb_refresh(follower), IQDB_OK);
    CHECK(world_look(follower, &print, NULL) && print == world_print_of(&w.model));
    follower_close();
    world_free(&w);
}

/* ---- What fails ---- */

/* Every allocation and every file call of a refresh fails in turn: nothing has changed, and the next one goes on. */
static void a_refresh_that_fails_changes_nothing(void) {
    static const char *const lives[][2] = {{"o", "uBDal"}, {"oBkb", "uDkBal"}, {"ogggkLlku", "kBDal"}};
    static world w;
    for (int way = 0; way < 6; way++) { /* memory or files; in the log, behind a checkpoint, or over deltas */
        size_t struck = 0;
        bool hit = true;
        for (size_t n = 1; hit; n++) {
            support_heap heap = support_heap_make();
            world_make(&w, WORLD_EACH, 4096, n);
            CHECK(world_play(&w, lives[way % 3][0]));
            iqdb_options options = follower_options(&w);
            options.allocator = support_allocator(&heap);
            CHECK_EQ_INT(iqdb_open("db", &options, &follower), IQDB_OK);
            CHECK(world_play(&w, lives[way % 3][1]));
            CHECK(way % 3 < 2 || w.db->home->checkpoint.count == 3);
            uint64_t before, print;
            iqdb_stats then, now;
            CHECK(world_look(follower, &before, NULL) && iqdb_stat(follower, &then) == IQDB_OK);
            heap.fail_at = way / 3 == 0 ? n : 0;
            if (way / 3 == 1) fault_fail_nth(w.disk, FAULT_ANY, n, IQDB_ERR_IO, n % 2 == 0);
            const iqdb_result result = iqdb_refresh(follower);
            hit = heap.failed > 0 || w.disk->failed > 0;
            heap.fail_at = 0;
            fault_fail_nth(w.disk, 0, 0, IQDB_OK, false);
            struck += hit && result != IQDB_OK;
            CHECK(result == IQDB_OK || result == (way / 3 == 0 ? IQDB_ERR_NOMEM : IQDB_ERR_IO));
            CHECK(result == IQDB_OK || follower_error.code == result);
            CHECK(world_look(follower, &print, NULL) && iqdb_stat(follower, &now) == IQDB_OK);
            CHECK(result == IQDB_OK || (print == before && now.last_lsn == then.last_lsn));
            CHECK_EQ_INT(iqdb_refresh(follower), IQDB_OK);
            CHECK(world_look(follower, &print, NULL) && print == world_print_of(&w.model));
            CHECK_EQ_INT(iqdb_verify(follower, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
            follower_close();
            CHECK_EQ_INT(support_heap_problems(&heap), 0);
            world_free(&w);
        }
        CHECK(struck > 2);
    }
}

static iqdb_error found;

static void note(const iqdb_error *finding, void *user) {
    (void)user;
    EXPECT(found.code == IQDB_OK); /* there is one only */
    found = *finding;
}

/* Damage to what is new is told, with its place, and what was there stays. */
static void damage_is_told(void) {
    static world w;
    uint64_t before, print;
    world_make(&w, WORLD_EACH, 4096, 1);
    CHECK(world_play(&w, "obb"));
    iqdb_options options = follower_options(&w);
    CHECK_EQ_INT(iqdb_open("db", &options, &follower), IQDB_OK);
    CHECK(world_look(follower, &before, NULL));
    iqdb_stats stats;
    CHECK(world_play(&w, "4u"));
    CHECK_EQ_INT(iqdb_stat(follower, &stats), IQDB_OK);
    size_t size = 0;
    uint8_t *bytes = fault_load(w.disk, "db", "wal-1", &size);
    const uint8_t good = bytes[4 * 4096 + 60], bad = good ^ 4;
    free(bytes);
    CHECK(fault_poke(w.disk, "db", "wal-1", 4 * 4096 + 60, &bad, 1));
    CHECK_EQ_INT(iqdb_refresh(follower), IQDB_ERR_CORRUPT);
    CHECK_EQ_STR(follower_error.file, "wal-1");
    CHECK_EQ_U64(follower_error.offset, 4 * 4096);
    memset(&found, 0, sizeof found);
    CHECK_EQ_INT(iqdb_verify(follower, IQDB_DEPTH_FRAMES, note, NULL), IQDB_ERR_CORRUPT);
    CHECK_EQ_STR(found.file, "wal-1");
    CHECK_EQ_U64(found.offset, 4 * 4096);
    CHECK(world_look(follower, &print, NULL) && print == before);
    CHECK(fault_poke(w.disk, "db", "wal-1", 4 * 4096 + 60, &good, 1));
    CHECK_EQ_INT(iqdb_refresh(follower), IQDB_OK);
    CHECK(world_look(follower, &print, NULL) && print == world_print_of(&w.model));
    follower_close();
    world_free(&w);
}

TEST_MAIN("db/follow", TEST(it_follows_every_life), TEST(it_reads_on_in_the_log),
          TEST(whatever_comes_between_its_reads), TEST(deltas_come_between_its_reads),
          TEST(a_commit_that_is_half_there), TEST(a_check_beside_a_writer), TEST(another_log_of_a_known_number),
          TEST(a_refresh_that_fails_changes_nothing), TEST(damage_is_told))
