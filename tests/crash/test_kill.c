/* Processes that are killed, on a real file system. A child writes batches that follow from their numbers, says over a
 * pipe which one it begins and which one was acknowledged, and dies: at a random moment, or at each file call of a life
 * in turn. The next opening must show the batches up to one between the two, whole. Where strace can be used, its
 * system calls also fail beneath the child: EIO and ENOSPC for the Nth write or sync. */
#include "api.h"
#include "fault.h"
#include "support.h"
#include "test.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#define IDS 40u
#define MARK 1000u /* the record that holds the number of the last batch */
#define DIM 3u

typedef struct word {
    uint64_t begun, acknowledged;
} word;

static const char *own_path;

/* ---- Batches ---- */

/* Which batch wrote an id last: 0 for never, or deleted. Batch n replaces three ids and deletes one. */
static void model_of(uint64_t batch, uint64_t versions[IDS]) {
    memset(versions, 0, IDS * sizeof versions[0]);
    for (uint64_t n = 1; n <= batch; n++) {
        for (uint64_t i = 0; i < 3; i++) versions[(n * 7 + i * 11) % IDS] = n;
        versions[(n * 13 + 5) % IDS] = 0;
    }
}

static void fill(uint64_t id, uint64_t version, float vector[DIM], iqdb_field *field, char text[400],
                 iqdb_record *record) {
    vector[0] = (float)id;
    vector[1] = (float)version;
    vector[2] = 0.5f;
    memset(text, (int)('a' + version % 26), 400);
    field->key = "text";
    field->value = iqdb_text_n(text, (size_t)(version * 37 % 400));
    *record = iqdb_record_default();
    record->id = id;
    record->vector = vector;
    record->dim = DIM;
    record->fields = field;
    record->field_count = 1;
}

static iqdb_result write_batch(iqdb *db, uint64_t n) {
    iqdb_record records[4];
    iqdb_field fields[4];
    iqdb_op ops[5];
    float vectors[4][DIM];
    char texts[4][400];
    for (size_t i = 0; i < 5; i++) ops[i] = iqdb_op_default();
    for (size_t i = 0; i < 4; i++) {
        const uint64_t id = i == 3 ? MARK : (n * 7 + i * 11) % IDS;
        fill(id, n, vectors[i], &fields[i], texts[i], &records[i]);
        ops[i].kind = IQDB_OP_UPSERT;
        ops[i].record = &records[i];
    }
    ops[4].kind = IQDB_OP_DELETE;
    ops[4].id = (n * 13 + 5) % IDS;
    return iqdb_apply(db, ops, 5);
}

static uint64_t last_batch(iqdb *db) {
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_record record;
    const uint64_t n = iqdb_get(db, MARK, &buffer, &record) == IQDB_OK ? (uint64_t)record.vector[1] : 0;
    iqdb_buffer_free(&buffer);
    return n;
}

static bool holds_batches(iqdb *db, uint64_t n) {
    uint64_t versions[IDS], live = n > 0;
    iqdb_buffer buffer = iqdb_buffer_default();
    bool ok = true;
    model_of(n, versions);
    for (uint64_t id = 0; id < IDS && ok; id++) {
        iqdb_record record;
        const iqdb_result result = iqdb_get(db, id, &buffer, &record);
        live += versions[id] != 0;
        if (versions[id] == 0) {
            ok = EXPECT(result == IQDB_ERR_NOT_FOUND);
            continue;
        }
        size_t size = 0;
        ok = EXPECT(result == IQDB_OK) && EXPECT(record.vector[1] == (float)versions[id]) &&
             EXPECT(iqdb_payload_text(record.payload, "text", &size) != NULL) &&
             EXPECT(size == versions[id] * 37 % 400);
    }
    iqdb_buffer_free(&buffer);
    return ok && EXPECT(iqdb_len(db) == live);
}

/* ---- The child ---- */

static void say(int to, const word *w) {
    if (write(to, w, sizeof *w) != (ssize_t)sizeof *w) _exit(0); /* nobody listens any more */
}

static void die_after(fault_files *disk, void *user) {
    size_t *left = (size_t *)user;
    (void)disk;
    if (*left > 0 && --*left == 0) raise(SIGKILL);
}

/* Writes `most` batches, says so, and leaves. Policies: 0 EACH, 1 FLUSH with a flush now and then, 2 EACH with compaction.
 * die_at: the call that changes something after which it dies; 0: none. */
static int child(const char *path, int policy, uint64_t most, size_t die_at, int to) {
    iqdb_options options = iqdb_options_default();
    fault_files *files = fault_over(iqdb_files_default());
    iqdb *db;
    word w;
    files->after_fn = die_after;
    files->after_user = &die_at;
    options.files = fault_table(files);
    options.sync = policy == 1 ? IQDB_SYNC_FLUSH : IQDB_SYNC_EACH;
    options.compact_on_close = policy == 2;
    iqdb_result result = iqdb_open(path, &options, &db);
    if (result != IQDB_OK) return 10 - (int)result;
    w.begun = w.acknowledged = last_batch(db);
    say(to, &w);
    while (result == IQDB_OK && w.begun < most) {
        w.begun++;
        say(to, &w);
        result = write_batch(db, w.begun);
        if (result == IQDB_OK && policy == 1 && w.begun % 3 == 0) result = iqdb_flush(db);
        if (result == IQDB_OK && (policy != 1 || w.begun % 3 == 0)) w.acknowledged = w.begun;
        if (result == IQDB_OK && w.begun % 17 == 0) result = iqdb_checkpoint(db);
        say(to, &w);
    }
    const iqdb_result closed = iqdb_close(db);
    if (result == IQDB_OK && closed == IQDB_OK) {
        w.acknowledged = w.begun;
        say(to, &w);
    }
    return result == IQDB_OK && closed == IQDB_OK ? 0 : 100;
}

/* ---- The parent ---- */

/* What was said last. Ends where the other side is closed, or where `enough` words were said. */
static word listen_to(int from, size_t enough) {
    word last = {0, 0}, w;
    for (size_t i = 0; i < enough && read(from, &w, sizeof w) == (ssize_t)sizeof w; i++) last = w;
    return last;
}

static bool survives(const char *path, const word *said, const char *what, uint64_t which) {
    iqdb_error error;
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL;
    memset(&error, 0, sizeof error);
    options.error = &error;
    const iqdb_result result = iqdb_open(path, &options, &db);
    const uint64_t found = result == IQDB_OK ? last_batch(db) : 0;
    const bool ok = EXPECT(result == IQDB_OK) && EXPECT(found >= said->acknowledged) && EXPECT(found <= said->begun) &&
                    holds_batches(db, found);
    if (!ok)
        printf("\n      ... %s %llu: code %d, %s at %llu: %s; %llu batches found, %llu acknowledged, %llu begun", what,
               (unsigned long long)which, (int)result, error.file, (unsigned long long)error.offset, error.text,
               (unsigned long long)found, (unsigned long long)said->acknowledged, (unsigned long long)said->begun);
    return (result != IQDB_OK || EXPECT(iqdb_close(db) == IQDB_OK)) && ok;
}

static pid_t start(const char *path, int policy, uint64_t most, size_t die_at, int *out_from) {
    int ends[2];
    if (pipe(ends) != 0) return -1;
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        _exit(child(path, policy, most, die_at, ends[1]));
    }
    close(ends[1]);
    *out_from = ends[0];
    return pid;
}

static void killed_at_random_moments(void) {
    const size_t kills = support_amount(3, 16, 2000);
    uint64_t seed = 77, total = 0;
    for (int policy = 0; policy < 3; policy++) {
        char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
        support_directory(folder);
        support_join(path, folder, "db");
        for (size_t i = 0; i < kills; i++) {
            int from, status = 0;
            const pid_t pid = start(path, policy, UINT64_MAX, 0, &from);
            CHECK(pid > 0);
            struct timespec pause = {0, (long)support_random_below(&seed, 20000000)};
            if (i % 4 == 0) pause.tv_nsec /= 20; /* while it opens */
            nanosleep(&pause, NULL);
            CHECK_EQ_INT(kill(pid, SIGKILL), 0);
            word said = listen_to(from, SIZE_MAX);
            close(from);
            CHECK_EQ_INT(waitpid(pid, &status, 0), pid);
            CHECK(WIFSIGNALED(status));
            if (said.begun == 0) said.begun = UINT64_MAX; /* it had not come so far as to say anything */
            CHECK(survives(path, &said, "kill", i));
            total += said.acknowledged > 0;
        }
        support_remove(folder);
    }
    printf(" [%zu kills, %llu while it wrote, seed 77]", 3 * kills, (unsigned long long)total);
    CHECK(total > 0);
}

/* Every call that changes a file, from the first of a create to the last of a close. */
static void killed_at_every_call(void) {
    size_t kills = 0;
    for (int policy = 0; policy < 3; policy++) {
        bool died = true;
        for (size_t n = 1; died; n += support_amount(29, 3, 1)) {
            char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
            int from, status = 0;
            support_directory(folder);
            support_join(path, folder, "db");
            const pid_t pid = start(path, policy, 20, n, &from);
            CHECK(pid > 0);
            const word said = listen_to(from, SIZE_MAX);
            close(from);
            CHECK_EQ_INT(waitpid(pid, &status, 0), pid);
            died = WIFSIGNALED(status);
            kills += died;
            CHECK(died || WEXITSTATUS(status) == 0);
            CHECK(survives(path, &said, "call", n));
            support_remove(folder);
        }
    }
    printf(" [%zu kills]", kills);
    CHECK(kills > support_amount(3, 50, 200));
}

/* ---- strace ---- */

/* Runs the child under strace; its exit status, or -1. */
static int trace(const char *path, const char *inject, int policy, word *out_said) {
    int ends[2], status = 0;
    char number[16], expression[128];
    if (pipe(ends) != 0) return -1;
    snprintf(number, sizeof number, "%d", policy);
    snprintf(expression, sizeof expression, "inject=%s", inject);
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        dup2(ends[1], 1);
        if (freopen("/dev/null", "w", stderr) == NULL) _exit(127); /* the loader's calls fail as well */
        execlp("strace", "strace", "-f", "-qq", "-o", "/dev/null", "-e", expression, own_path, "--child", path, number,
               (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    *out_said = listen_to(ends[0], SIZE_MAX);
    close(ends[0]);
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
}

static void system_calls_fail(void) {
    static const char *const failures[] = {"fdatasync:error=EIO",   "fsync:error=EIO",   "pwrite64:error=EIO",
                                           "pwrite64:error=ENOSPC", "pread64:error=EIO", "fdatasync:error=ENOSPC"};
    const size_t most = support_amount(2, 10, 200), step = support_amount(17, 7, 1);
    size_t runs = 0, struck = 0;
    word said;
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    support_directory(folder);
    support_join(path, folder, "db");
    const int first = trace(path, "fsync:error=EIO:when=30000", 0, &said);
    support_remove(folder);
    if (first != 0 || said.acknowledged != 20) TEST_SKIP("strace is not installed, or may not trace here");
    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++) {
        for (size_t n = 1; n <= most * step; n += step) {
            char inject[64];
            snprintf(inject, sizeof inject, "%s:when=%zu%s", failures[i], n, n % 2 == 0 ? "+" : "");
            support_directory(folder);
            support_join(path, folder, "db");
            const int status = trace(path, inject, (int)(n % 3), &said);
            CHECK(status >= 0);
            runs++;
            struck += status != 0;
            if (!EXPECT(survives(path, &said, inject, n))) return;
            support_remove(folder);
        }
    }
    printf(" [%zu runs, %zu failed in the child]", runs, struck);
    CHECK(struck > 0);
}

int main(int argc, char **argv) {
    static const test_case tests[] = {TEST(killed_at_random_moments), TEST(killed_at_every_call),
                                      TEST(system_calls_fail)};
    own_path = argv[0];
    if (argc == 4 && strcmp(argv[1], "--child") == 0) return child(argv[2], atoi(argv[3]), 20, 0, 1);
    return test_run("crash/kill", tests, sizeof tests / sizeof tests[0], argc, argv);
}
