/* A reader and a writer in two processes. The writer puts pairs of one version in one batch, deletes, checkpoints, closes
 * and opens, or is killed; whatever it does, the reader finds whole batches, in order, and nothing changes under it. */
#include "public.h"

#include <signal.h>
#if !defined(_WIN32)
#include <sys/wait.h>
#endif

enum {
    PAIRS = 20 /* ids i and i + 100 */
};

static iqdb_options options_of(bool read_only, iqdb_sync sync) {
    iqdb_options options = iqdb_options_default();
    options.read_only = read_only;
    options.sync = sync;
    options.files = public_quick_files();
    return options;
}

static iqdb_result put_pair(iqdb *db, uint64_t pair, uint64_t version) {
    float vectors[2][PUBLIC_DIM];
    iqdb_record records[2];
    for (uint64_t i = 0; i < 2; i++) {
        for (uint32_t j = 0; j < PUBLIC_DIM; j++) vectors[i][j] = (float)version;
        records[i] = public_record(pair + i * 100, vectors[i], PUBLIC_DIM);
    }
    return iqdb_upsert_batch(db, records, 2);
}

/* The newest version there is, where every pair is whole, of the version that it must have by then; else -1. The writes
 * put version v at pair v % PAIRS, so all are known once the newest one is. */
static long newest_of(const iqdb *db) {
    long versions[PAIRS], newest = 0;
    iqdb_buffer buffer = iqdb_buffer_default();
    bool whole = iqdb_len(db) % 2 == 0;
    for (uint64_t pair = 0; pair < PAIRS && whole; pair++) {
        iqdb_record record;
        versions[pair] = 0;
        const iqdb_result first = iqdb_get(db, pair, &buffer, &record);
        if (first == IQDB_OK) versions[pair] = (long)record.vector[0];
        const iqdb_result second = iqdb_get(db, pair + 100, &buffer, &record);
        whole = first == second && (first == IQDB_OK || first == IQDB_ERR_NOT_FOUND) &&
                (first != IQDB_OK || (long)record.vector[0] == versions[pair]);
        if (versions[pair] > newest) newest = versions[pair];
    }
    for (long pair = 0; pair < PAIRS && whole; pair++) {
        const long age = (newest - pair % PAIRS + PAIRS) % PAIRS;
        whole = versions[pair] == (newest - age > 0 ? newest - age : 0);
    }
    iqdb_buffer_free(&buffer);
    return whole ? newest : -1;
}

#if !defined(_WIN32)
/* A pair that stays, so large that what is checkpointed beside it are deltas. */
static bool put_large(iqdb *db) {
    static char text[100000];
    float vector[PUBLIC_DIM] = {0};
    iqdb_record records[2];
    iqdb_field field;
    memset(text, 'x', sizeof text);
    field.key = "text";
    field.value = iqdb_text_n(text, sizeof text);
    for (uint64_t i = 0; i < 2; i++) {
        records[i] = public_record(1000 + i, vector, PUBLIC_DIM);
        records[i].fields = &field;
        records[i].field_count = 1;
    }
    return iqdb_upsert_batch(db, records, 2) == IQDB_OK;
}

/* The other process: 0 where all went well. Ends after so many writes, 0: never. */
static int write_on(const char *path, iqdb_sync sync, long count) {
    const iqdb_options options = options_of(false, sync);
    iqdb *db = NULL;
    if (iqdb_open(path, &options, &db) != IQDB_OK) return 1;
    if (iqdb_is_empty(db) && !put_large(db)) return 6;
    for (long version = newest_of(db) + 1; count == 0 || version <= count; version++) {
        if (put_pair(db, (uint64_t)version % PAIRS, (uint64_t)version) != IQDB_OK) return 2;
        if (version % 37 == 0 && iqdb_checkpoint(db) != IQDB_OK) return 3;
        if (version % 101 == 0 && (iqdb_close(db) != IQDB_OK || iqdb_open(path, &options, &db) != IQDB_OK)) return 4;
    }
    return iqdb_close(db) == IQDB_OK ? 0 : 5;
}

/* A child closes what it inherits, which leaves the parent's own untouched. */
static pid_t start_writer(const char *path, iqdb_sync sync, long count, iqdb *inherited) {
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) _exit(iqdb_close(inherited) == IQDB_OK ? write_on(path, sync, count) : 6);
    return child;
}

/* It sees whole batches only, ever newer ones, and none by itself. */
static void check_reader(iqdb *db, long *newest) {
    const uint64_t before = digest_database(db);
    const long seen = newest_of(db);
    CHECK(seen >= *newest);
    CHECK_EQ_U64(digest_database(db), before);
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    const bool has_one = iqdb_iter_next(&iter);
    const size_t count = iqdb_len(db);
    CHECK_EQ_INT(iqdb_refresh(db), IQDB_OK);
    size_t walked = has_one;
    while (iqdb_iter_next(&iter)) walked++;
    iqdb_iter_end(&iter);
    CHECK_EQ_U64(walked, count); /* those of before the refresh */
    *newest = seen;
}
#endif

static void beside_a_writer(void) {
    SUPPORT_NEEDS_POSIX;
#if !defined(_WIN32)
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    size_t refreshes = 0, opens = 0, deltas = 0;
    for (int sync = IQDB_SYNC_FLUSH; sync <= IQDB_SYNC_PERIODIC; sync++) {
        const long count = (long)support_amount(400, 3000, 20000);
        const iqdb_options options = options_of(true, IQDB_SYNC_FLUSH);
        iqdb *db = NULL;
        long newest = 0;
        int status = 0;
        support_directory(folder);
        support_join(path, folder, "db");
        CHECK_EQ_INT(write_on(path, IQDB_SYNC_EACH, 1), 0);
        CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
        const pid_t child = start_writer(path, (iqdb_sync)sync, count, db);
        CHECK(child > 0);
        while (waitpid(child, &status, WNOHANG) == 0 && test_now.failures == 0) {
            check_reader(db, &newest);
            refreshes++;
            deltas += public_find(path, "snap-", NULL) > 1;
            iqdb *other = NULL; /* and one that has just come */
            CHECK_EQ_INT(iqdb_open(path, &options, &other), IQDB_OK);
            CHECK(newest_of(other) >= newest);
            CHECK_EQ_INT(iqdb_close(other), IQDB_OK);
            opens++;
        }
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        CHECK(sync != IQDB_SYNC_FLUSH || public_find(path, "snap-", NULL) > 1);
        const uint64_t files = digest_directory(path);
        CHECK_EQ_INT(iqdb_refresh(db), IQDB_OK);
        CHECK_EQ_INT(newest_of(db), count);
        CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_U64(digest_directory(path), files);
        support_remove(folder);
    }
    printf(" %zu refreshes, %zu opens, %zu over deltas", refreshes, opens, deltas);
#endif
}

static void beside_one_that_is_killed(void) {
    SUPPORT_NEEDS_POSIX;
#if !defined(_WIN32)
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    const iqdb_options options = options_of(true, IQDB_SYNC_FLUSH), writing = options_of(false, IQDB_SYNC_FLUSH);
    iqdb *db = NULL, *writer = NULL;
    long newest = 0;
    support_directory(folder);
    support_join(path, folder, "db");
    CHECK_EQ_INT(write_on(path, IQDB_SYNC_EACH, 1), 0);
    CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
    for (size_t round = 0; round < support_amount(5, 30, 200) && test_now.failures == 0; round++) {
        int status = 0;
        const pid_t child = start_writer(path, round % 2 == 0 ? IQDB_SYNC_EACH : IQDB_SYNC_FLUSH, 0, db);
        CHECK(child > 0);
        for (size_t i = 0; i < 1 + round % 7; i++) {
            check_reader(db, &newest);
            usleep(500);
        }
        CHECK_EQ_INT(kill(child, SIGKILL), 0);
        CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
        check_reader(db, &newest);
        check_reader(db, &newest);
        CHECK_EQ_INT(iqdb_open(path, &writing, &writer), IQDB_OK); /* recovers, while somebody reads */
        check_reader(db, &newest);
        check_reader(db, &newest);
        CHECK_EQ_INT(newest_of(writer), newest); /* the system had all that was written */
        CHECK_EQ_INT(iqdb_close(writer), IQDB_OK);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
    printf(" %ld writes", newest);
#endif
}

/* Handles that have nothing to follow; and a child's copy of one that has. */
static void other_handles(void) {
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    const iqdb_options options = options_of(true, IQDB_SYNC_FLUSH), writing = options_of(false, IQDB_SYNC_FLUSH);
    iqdb *db = NULL, *reader = NULL;
    CHECK_EQ_INT(iqdb_refresh(NULL), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_open_in_memory(NULL, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_refresh(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_directory(folder);
    support_join(path, folder, "db");
    CHECK_EQ_INT(iqdb_open(path, &options, &reader), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(iqdb_open(path, &writing, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(path, &options, &reader), IQDB_OK); /* of no dimension yet */
    CHECK_EQ_INT(put_pair(db, 1, 1), IQDB_OK);
    CHECK_EQ_INT(iqdb_refresh(db), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(reader), 0);
    CHECK_EQ_INT(iqdb_refresh(reader), IQDB_OK);
    CHECK(iqdb_len(reader) == 2 && newest_of(reader) == 1);
#if !defined(_WIN32)
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        const bool reads = iqdb_refresh(reader) == IQDB_ERR_LOCKED && iqdb_len(reader) == 2;
        const bool closes = iqdb_close(reader) == IQDB_OK && iqdb_close(db) == IQDB_OK;
        _exit(reads && closes ? 0 : 1);
    }
    int status = 1;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
#endif
    CHECK_EQ_INT(iqdb_close(reader), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
}

TEST_MAIN("api/refresh", TEST(beside_a_writer), TEST(beside_one_that_is_killed), TEST(other_handles))
