/* Checkpoints in slices, and deltas: against a model of the records, beside writers and readers, and how much they
 * write. */
#include "db/db.h"
#include "fault.h"
#include "support.h"
#include "test.h"

#include <math.h>
#include <pthread.h>

#define IDS 65536u
#define DIM 16u

/* A disk on which the bytes of snapshots are counted, and the version of each record; 0: there is none. */
typedef struct shelf {
    fault_files *disk;
    iqdb_options options;
    iqdb_error error;
    iqdb *db;
    uint32_t versions[IDS];
    uint32_t serial;
} shelf;

static uint64_t snapshot_bytes, most_at_once;
static shelf s;

static iqdb_result counted_write(void *file, uint64_t offset, const void *bytes, size_t size, int *os_code,
                                 void *user) {
    if (strncmp(((const fault_file_handle *)file)->name, "snap", 4) == 0) snapshot_bytes += size;
    return fault_write(file, offset, bytes, size, os_code, user);
}

static uint64_t no_time(void *user) { return *(uint64_t *)user; }

static void start(uint64_t checkpoint_bytes) {
    static uint64_t now;
    memset(&s, 0, sizeof s);
    s.disk = fault_new(NULL);
    s.options = iqdb_options_default();
    s.options.files = fault_table(s.disk);
    s.options.files.write_fn = counted_write;
    s.options.files.reserve_fn = NULL;
    s.options.checkpoint_bytes = checkpoint_bytes;
    s.options.clock_us.now_fn = no_time; /* which stands: each slice is as small as can be */
    s.options.clock_us.user = &now;
    s.options.error = &s.error;
    snapshot_bytes = 0;
    CHECK_EQ_INT(iqdb_open("db", &s.options, &s.db), IQDB_OK);
}

static void finish(void) {
    if (s.db != NULL) EXPECT(iqdb_close(s.db) == IQDB_OK);
    EXPECT(s.disk->open_files + s.disk->open_dirs == 0);
    fault_free(s.disk);
}

/* The payload's size follows from the version, too. */
static iqdb_result put(uint64_t id) {
    static char text[3000];
    float vector[DIM] = {0};
    iqdb_record record = iqdb_record_default();
    iqdb_field field;
    const uint32_t version = ++s.serial;
    vector[0] = (float)id;
    vector[1] = (float)version;
    field.key = "t";
    field.value = iqdb_text_n(text, version % 7 * 40);
    record.id = id;
    record.vector = vector;
    record.dim = DIM;
    record.fields = version % 7 != 0 ? &field : NULL;
    record.field_count = version % 7 != 0;
    const iqdb_result result = iqdb_upsert(s.db, &record);
    if (result == IQDB_OK) s.versions[id] = version;
    return result;
}

static iqdb_result take(uint64_t id) {
    const iqdb_result result = iqdb_delete(s.db, id, NULL);
    if (result == IQDB_OK) s.versions[id] = 0;
    return result;
}

static bool holds_all(void) {
    size_t count = 0, seen = 0;
    bool ok = true;
    for (size_t i = 0; i < IDS; i++) count += s.versions[i] != 0;
    iqdb_iter iter = iqdb_iter_begin(s.db, NULL);
    for (; iqdb_iter_next(&iter); seen++) {
        const iqdb_record *record = &iter.record;
        const uint32_t version = s.versions[record->id];
        size_t size = 0;
        (void)iqdb_payload_text(record->payload, "t", &size);
        ok = ok && record->vector[0] == (float)record->id && record->vector[1] == (float)version;
        ok = ok && size == version % 7 * 40 && (record->payload.bytes != NULL) == (version % 7 != 0);
    }
    iqdb_iter_end(&iter);
    return ok && seen == count && iqdb_len(s.db) == count;
}

static bool agrees(void) { return holds_all() && iqdb_verify(s.db, IQDB_DEPTH_RECORDS, NULL, NULL) == IQDB_OK; }

static bool opens_again(void) {
    iqdb *db = s.db;
    s.db = NULL;
    if (!EXPECT(iqdb_close(db) == IQDB_OK)) return false;
    const iqdb_result result = iqdb_open("db", &s.options, &s.db);
    if (result != IQDB_OK) printf("\n    %s at %d: %s", s.error.file, (int)s.error.offset, s.error.text);
    return EXPECT(result == IQDB_OK) && EXPECT(agrees());
}

static uint32_t snapshots(void) { return s.db->home->checkpoint.count; }

/* ---- Deltas ---- */

static void a_delta_holds_what_has_changed(void) {
    start(0);
    for (uint64_t id = 0; id < 1000; id++) CHECK_EQ_INT(put(id), IQDB_OK);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    const uint64_t base = snapshot_bytes;
    CHECK(base > 1000 * DIM * 4);
    CHECK(put(5) == IQDB_OK && put(1500) == IQDB_OK && take(7) == IQDB_OK && take(8) == IQDB_OK && put(8) == IQDB_OK);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK_EQ_U64(snapshots(), 2);
    CHECK(snapshot_bytes - base < 20000);
    CHECK(opens_again());
    CHECK_EQ_U64(snapshots(), 2);
    CHECK(put(7) == IQDB_OK && take(1500) == IQDB_OK && take(0) == IQDB_OK);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK); /* takes the first one in */
    CHECK_EQ_U64(snapshots(), 2);
    CHECK(opens_again());
    /* With nothing new there is nothing to write. */
    const uint64_t before = snapshot_bytes;
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK_EQ_U64(snapshot_bytes, before);
    /* Inspected, backed up and exported it is one database like any other. */
    iqdb_stats stats, copied;
    iqdb *copy;
    CHECK_EQ_INT(iqdb_stat(s.db, &stats), IQDB_OK);
    CHECK_EQ_INT(iqdb_backup(s.db, "copy"), IQDB_OK);
    CHECK_EQ_INT(iqdb_open("copy", &s.options, &copy), IQDB_OK);
    CHECK_EQ_INT(iqdb_stat(copy, &copied), IQDB_OK);
    CHECK_EQ_U64(copied.records, stats.records);
    CHECK_EQ_INT(iqdb_close(copy), IQDB_OK);
    s.options.compact_on_close = true;
    CHECK(opens_again()); /* this one was opened without */
    CHECK(opens_again());
    CHECK_EQ_U64(snapshots(), 1);
    finish();
}

/* A delta's record takes the place of the one before it, in what options.memory_max counts too. */
static void a_delta_takes_no_room_for_what_it_replaces(void) {
    start(0);
    for (uint64_t id = 0; id < 700; id++) CHECK_EQ_INT(put(id), IQDB_OK);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    for (uint64_t id = 0; id < 70; id++) CHECK(put(id) == IQDB_OK && (id % 7 > 2 || take(id) == IQDB_OK));
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK_EQ_U64(snapshots(), 2);
    const uint64_t base = (uint64_t)s.db->records.charge;
    for (uint64_t id = 0; id < 70; id++) CHECK(put(id) == IQDB_OK);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK_EQ_U64(snapshots(), 2);
    const uint64_t charge = (uint64_t)s.db->records.charge;
    CHECK(charge > base);
    s.options.memory_max = charge;
    CHECK(opens_again() && opens_again());
    CHECK_EQ_U64((uint64_t)s.db->records.charge, charge);
    CHECK_EQ_INT(put(700), IQDB_ERR_NOMEM);
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.options.memory_max--;
    CHECK_EQ_INT(iqdb_open("db", &s.options, &s.db), IQDB_ERR_NOMEM);
    finish();
}

/* A random life: whatever is deleted, comes back, is replaced, in any tier, it is what the model says. */
static void lives_with_deltas(void) {
    const size_t lives = support_amount(4, 40, 400);
    uint32_t most = 0;
    size_t opened = 0, made = 0;
    for (uint64_t seed = 1; seed <= lives; seed++) {
        uint64_t state = seed;
        start(seed % 2 != 0 ? 60000 : UINT64_MAX);
        s.options.sync = seed % 4 < 2 ? IQDB_SYNC_FLUSH : IQDB_SYNC_EACH;
        const uint64_t ids = 20 + support_random_below(&state, IDS - 20);
        for (size_t step = 0; step < 1500; step++) {
            const uint64_t what = support_random_below(&state, 1000), id = support_random_below(&state, ids);
            bool done;
            if (what < 600)
                CHECK_EQ_INT(put(id), IQDB_OK);
            else if (what < 900)
                CHECK_EQ_INT(take(id), IQDB_OK);
            else if (what < 920)
                CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
            else if (what < 990)
                CHECK_EQ_INT(iqdb_maintain(s.db, 0, &done), IQDB_OK);
            else if (what < 995)
                CHECK(opens_again() && ++opened > 0);
            if (snapshots() > most) most = snapshots();
        }
        made += snapshot_bytes > 0;
        CHECK(agrees() && opens_again());
        finish();
    }
    printf("\n    %zu lives, %zu opened again, at most %u snapshots\n   ", lives, opened, (unsigned)most);
    CHECK(most >= 3 && made == lives);
}

/* What is written to snapshots is logarithmic. Let d be what the logs have at a checkpoint, and what any file has; S the
 * size of a file; T 1.4 times the most bytes that there ever are with d, so that x (1 + log2(T / x)) grows with x. A file
 * that is taken in is at most as large as all that is taken in behind it, d included, so it becomes part of one that is
 * at least twice as large, or would be if nothing in it were replaced. So the sum over all files of S (1 + log2(T / S))
 * grows by at most d (1 + log2(T / d)), less all that is taken in; what is written is at most that and d. It never falls
 * below 0, and hence all that is ever written is at most the sum of d (2 + log2(T / d)). */
static void what_is_written_is_logarithmic(void) {
    const size_t rounds = support_amount(64, 256, 1024), each = 1024;
    double *ds = (double *)malloc(rounds * sizeof *ds), bound = 0, naive = 0, most = 0;
    start(UINT64_MAX);
    for (size_t round = 0; round < rounds; round++) {
        iqdb_stats stats;
        for (size_t i = 0; i < each; i++) CHECK_EQ_INT(put((round * each + i) % IDS), IQDB_OK);
        /* A row takes up to a quarter more in a snapshot than in a log, and each large section up to 64 KiB. */
        ds[round] = 1.25 * (double)iq_directory_log_bytes(s.db->home->directory) + 2 * 8192 + 5 * 65536;
        const uint64_t before = snapshot_bytes;
        CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
        CHECK_EQ_INT(iqdb_stat(s.db, &stats), IQDB_OK);
        if (round == 0) CHECK((double)(snapshot_bytes - before) <= ds[0]);
        naive += (double)stats.snapshot_bytes;
        if ((double)stats.snapshot_bytes + ds[round] > most) most = (double)stats.snapshot_bytes + ds[round];
        CHECK(snapshots() < 16);
    }
    for (size_t round = 0; round < rounds; round++) bound += ds[round] * (2 + log2(1.4 * most / ds[round]));
    free(ds);
    printf("\n    %zu checkpoints: %.0f bytes written, bound %.0f; all of it each time %.0f\n   ", rounds,
           (double)snapshot_bytes, bound, naive);
    CHECK((double)snapshot_bytes <= bound && bound < naive);
    CHECK(opens_again());
    finish();
}

/* ---- Damage ---- */

static size_t reported;

static void on_report(const iqdb_error *finding, void *user) {
    (void)finding;
    (void)user;
    reported++;
}

/* What repair makes of a directory: only records that were written once, and all of the last ones unless it says that
 * something is lost. */
static bool is_repaired(fault_files *disk, const uint64_t *owners, bool *out_whole) {
    iqdb_options options = iqdb_options_default();
    size_t seen = 0, count = 0;
    bool honest = true, same = true;
    iqdb *db;
    options.files = fault_table(disk);
    reported = 0;
    if (!EXPECT(iqdb_repair("db", "new", &options, on_report, NULL) == IQDB_OK)) return false;
    if (!EXPECT(iqdb_open("new", &options, &db) == IQDB_OK)) return false;
    for (size_t i = 0; i < IDS; i++) count += s.versions[i] != 0;
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    for (; iqdb_iter_next(&iter); seen++) {
        const uint64_t id = iter.record.id;
        const uint32_t version = (uint32_t)iter.record.vector[1];
        honest = honest && version > 0 && version <= s.serial && owners[version] == id;
        same = same && s.versions[id] == version;
    }
    iqdb_iter_end(&iter);
    *out_whole = same && seen == count;
    return EXPECT(iqdb_close(db) == IQDB_OK) && EXPECT(honest) && EXPECT(*out_whole || reported > 0);
}

/* A bit of a file flips: open says so or has everything, and repair saves what it can. */
static bool damage_one(const char *name, uint64_t *state, const uint64_t *owners, bool *out_refused, bool *out_whole) {
    fault_files *copy = fault_copy(s.disk);
    size_t size = 0;
    uint8_t *bytes = fault_load(copy, "db", name, &size);
    const size_t at = (size_t)support_random_below(state, name[0] == 'w' ? 8192 : size);
    const uint8_t wrong = (uint8_t)(bytes[at] ^ (1u << support_random_below(state, 8)));
    iqdb_options options = s.options;
    free(bytes);
    bool ok = EXPECT(fault_poke(copy, "db", name, at, &wrong, 1));
    options.files = fault_table(copy);
    const iqdb_result result = iqdb_open("db", &options, &s.db);
    *out_refused = result != IQDB_OK;
    ok = ok && EXPECT(result == IQDB_OK ? holds_all() && iqdb_close(s.db) == IQDB_OK : result == IQDB_ERR_CORRUPT);
    s.db = NULL;
    ok = ok && is_repaired(copy, owners, out_whole);
    fault_free(copy);
    return ok;
}

/* Damage anywhere in a base, its deltas and the log is found at open, or costs nothing; and repair saves what it can. */
static void damage_among_deltas(void) {
    static uint64_t owners[4096];
    static const char *const names[] = {"META", "snap-1", "snap-2", "snap-3", "wal-4"};
    const size_t places = support_amount(12, 120, 1200);
    size_t refused = 0, whole = 0, tried = 0;
    uint64_t state = 3;
    bool is_whole;
    start(0);
    for (size_t i = 0; i < 1170; i++) {
        const uint64_t id = i < 1000 ? i : i * 7 % 1100;
        CHECK_EQ_INT(put(id), IQDB_OK);
        owners[s.serial] = id;
        if (i % 50 == 49) CHECK_EQ_INT(take(i * 3 % 1000), IQDB_OK);
        if (i == 999 || i == 1150 || i == 1160) CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    }
    CHECK_EQ_U64(snapshots(), 3);
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.db = NULL;
    fault_files *copy = fault_copy(s.disk);
    CHECK(is_repaired(copy, owners, &is_whole) && is_whole && reported == 0);
    fault_free(copy);
    /* Without META the files tell which adds to which. */
    copy = fault_copy(s.disk);
    CHECK(fault_store(copy, "db", "META", NULL, 0));
    CHECK(is_repaired(copy, owners, &is_whole) && is_whole);
    fault_free(copy);
    /* And one of them may be gone. */
    for (size_t i = 1; i < 8; i++) {
        copy = fault_copy(s.disk);
        CHECK(fault_store(copy, "db", names[i % 4 == 0 ? 1 : i % 4], NULL, 0));
        if (i > 3) CHECK(fault_store(copy, "db", "META", NULL, 0));
        iqdb_options options = s.options;
        iqdb *db;
        options.files = fault_table(copy);
        CHECK(iqdb_open("db", &options, &db) == IQDB_ERR_CORRUPT && db == NULL);
        CHECK(is_repaired(copy, owners, &is_whole) || i > 3);
        fault_free(copy);
    }
    for (size_t i = 0; i < 5 * places; i++, tried++) {
        bool is_refused = false;
        CHECK(damage_one(names[i % 5], &state, owners, &is_refused, &is_whole));
        refused += is_refused;
        whole += is_whole;
    }
    printf("\n    %zu places: %zu refused, %zu repaired whole\n   ", tried, refused, whole);
    CHECK(refused > tried / 3 && whole > tried / 3 && whole < tried);
    finish();
}

/* ---- Slices ---- */

static bool is_made(void) { return s.db->home->checkpoint.is_pinned; }

static void fill(size_t count, uint64_t checkpoint_bytes) {
    start(checkpoint_bytes);
    for (uint64_t id = 0; id < count; id++) CHECK_EQ_INT(put(id), IQDB_OK);
}

/* Writes come between the slices, and are not in the image; those before it are in no log. */
static void writes_between_slices(void) {
    bool done = false;
    size_t slices = 0;
    fill(1500, 250000);
    while (!is_made()) CHECK_EQ_INT(put(s.serial % 1500), IQDB_OK);
    for (; is_made(); slices++) {
        CHECK(put(slices % 1500) == IQDB_OK && take((slices * 7 + 3) % 1500) == IQDB_OK &&
              put(1600 + slices) == IQDB_OK);
        if (slices % 4 == 2) CHECK_EQ_INT(iqdb_maintain(s.db, 0, &done), IQDB_OK);
        CHECK(slices % 8 != 0 || agrees());
    }
    CHECK(slices > 2);
    CHECK(iq_directory_log_bytes(s.db->home->directory) > 4096); /* of those writes */
    CHECK(opens_again());
    finish();
}

/* While the logs grow from one to two times the limit, each write does its share; beyond twice, all that is left. */
static void writes_keep_pace(void) {
    const uint64_t limit = 400000;
    size_t begun = 0, slices = 0;
    fill(2000, limit);
    const size_t writes = support_amount(6000, 20000, 20000);
    for (size_t i = 0; i < writes; i++) {
        const uint64_t before = snapshot_bytes, log_bytes = iq_directory_log_bytes(s.db->home->directory);
        const bool was_made = is_made();
        CHECK_EQ_INT(put(i * 31 % 2000), IQDB_OK);
        CHECK(iq_directory_log_bytes(s.db->home->directory) < 2 * limit + 8192);
        CHECK(is_made() || was_made || log_bytes <= limit);
        if (!was_made && is_made()) begun++;
        if (was_made) slices++;
        if (snapshot_bytes - before > most_at_once) most_at_once = snapshot_bytes - before;
    }
    CHECK(begun > writes / 2000 && slices > 5 * begun);
    CHECK(most_at_once <= 4 * IQ_IMAGE_UNIT); /* the whole is ten times as much */
    CHECK(opens_again());
    finish();
    /* One batch beyond twice the limit: all at once. */
    fill(100, 20000);
    static float vectors[600][DIM];
    static iqdb_record records[600];
    for (size_t i = 0; i < 600; i++) {
        records[i] = iqdb_record_default();
        records[i].id = 200 + i;
        records[i].vector = vectors[i];
        records[i].dim = DIM;
        vectors[i][0] = (float)(200 + i);
        vectors[i][1] = 7000;
        s.versions[200 + i] = 7000;
    }
    CHECK_EQ_INT(iqdb_upsert_batch(s.db, records, 600), IQDB_OK);
    CHECK(!is_made() && iq_directory_log_bytes(s.db->home->directory) <= 4096);
    CHECK(opens_again());
    finish();
}

static void maintain_comes_to_an_end(void) {
    bool done = false;
    size_t calls = 0;
    fill(1500, 100000);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    while (!is_made()) CHECK_EQ_INT(put(s.serial % 1500), IQDB_OK);
    for (; !done; calls++) CHECK_EQ_INT(iqdb_maintain(s.db, 0, &done), IQDB_OK);
    CHECK(calls > 3 && !is_made() && s.db->records.retired.count == 0);
    CHECK_EQ_INT(iqdb_maintain(s.db, 0, &done), IQDB_OK);
    CHECK(done);
    finish();
    fill(100, UINT64_MAX);
    CHECK_EQ_INT(iqdb_maintain(s.db, 1000, &done), IQDB_OK);
    CHECK(done && snapshot_bytes == 0);
    finish();
}

/* A checkpoint with which nobody goes on keeps no row from a write that needs its room. */
static void a_stalled_one_gives_way(void) {
    static uint64_t ids[500];
    bool done;
    fill(1500, 200000);
    s.options.retired_max = 20000;
    CHECK(opens_again());
    while (!is_made()) {
        CHECK_EQ_INT(put(s.serial % 1500), IQDB_OK);
        CHECK_EQ_INT(iqdb_maintain(s.db, 0, &done), IQDB_OK);
    }
    const size_t files = s.disk->open_files;
    for (size_t i = 0; i < 500; i++) s.versions[ids[i] = i] = 0;
    CHECK_EQ_INT(iqdb_delete_batch(s.db, ids, 500, NULL), IQDB_OK); /* more than retired_max */
    CHECK(is_made());
    CHECK_EQ_INT(put(0), IQDB_OK);
    CHECK(!is_made());
    CHECK_EQ_U64(s.disk->open_files, files - 1);
    /* The next one is made in one go, when the logs are long enough for that; writes never find it in their way. */
    const uint64_t before = snapshot_bytes;
    for (size_t i = 0; i < 3000; i++) {
        CHECK_EQ_INT(put(i % 1500), IQDB_OK);
        if (snapshot_bytes != before) break;
        CHECK(!is_made());
    }
    CHECK(snapshot_bytes > before);
    for (size_t i = 0; i < 3000; i++) CHECK_EQ_INT(put(i % 1500), IQDB_OK);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK(opens_again());
    finish();
}

static size_t files_named(const char *prefix) {
    size_t count = 0;
    const fault_directory *directory = s.disk->directories;
    for (size_t i = 0; i < directory->live.count; i++)
        count += strncmp(directory->live.at[i].name, prefix, strlen(prefix)) == 0;
    return count;
}

/* close does not wait for it: it is O(pending). */
static void close_gives_it_up(void) {
    fill(1500, 100000);
    while (!is_made()) CHECK_EQ_INT(put(s.serial % 1500), IQDB_OK);
    const size_t before = files_named("snap-");
    CHECK(opens_again());
    CHECK_EQ_U64(files_named("snap-"), before - 1);
    while (!is_made()) CHECK_EQ_INT(put(s.serial % 1500), IQDB_OK);
    iqdb_iter iter = iqdb_iter_begin(s.db, NULL);
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_ERR_BUSY);
    CHECK(is_made()); /* but where it does not close, it goes on */
    iqdb_iter_end(&iter);
    while (is_made()) CHECK_EQ_INT(put(s.serial % 1500), IQDB_OK);
    while (!is_made()) CHECK_EQ_INT(put(s.serial % 1500), IQDB_OK);
    CHECK(opens_again());
    finish();
}

/* Where there is no space for it, writes go on, and do not try at each of them. */
static void a_checkpoint_that_does_not_fit(void) {
    fill(250, 100000);
    s.disk->plan.name = "snap";
    fault_fail_nth(s.disk, FAULT_WRITE, 1, IQDB_ERR_NOSPACE, true);
    const size_t tries = s.disk->failed;
    for (size_t i = 0; i < 2000; i++) CHECK_EQ_INT(put(i % 250), IQDB_OK);
    const size_t tried = s.disk->failed - tries;
    CHECK(tried > 1 && tried < 20);
    CHECK_EQ_U64(files_named("snap-"), is_made());
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_ERR_NOSPACE);
    CHECK_EQ_U64(files_named("snap-"), 0);
    s.disk->plan.name = NULL;
    fault_fail_nth(s.disk, 0, 0, IQDB_OK, false);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK(opens_again());
    finish();
}

/* ---- Threads ---- */

typedef struct crowd {
    iqdb *db;
    uint64_t first;
    int stop, problems;
} crowd;

static iqdb_result crowd_put(iqdb *db, uint64_t id, float version) {
    float vector[DIM] = {(float)id, version};
    iqdb_record record = iqdb_record_default();
    record.id = id;
    record.vector = vector;
    record.dim = DIM;
    return iqdb_upsert(db, &record);
}

static void *crowd_write(void *user) {
    crowd *c = (crowd *)user;
    for (uint64_t i = 0; __atomic_load_n(&c->stop, __ATOMIC_ACQUIRE) == 0; i++) {
        const uint64_t id = c->first + i % 200;
        bool done;
        if (i % 7 == 3 ? iqdb_delete(c->db, id, NULL) != IQDB_OK : crowd_put(c->db, id, (float)i) != IQDB_OK)
            c->problems |= 1;
        if (i % 50 == 0 && iqdb_maintain(c->db, 100, &done) != IQDB_OK) c->problems |= 2;
        if (i % 400 == 0 && iqdb_checkpoint(c->db) != IQDB_OK) c->problems |= 4;
    }
    return NULL;
}

static void *crowd_read(void *user) {
    crowd *c = (crowd *)user;
    char memory[1024];
    iqdb_buffer buffer = iqdb_buffer_fixed(memory, sizeof memory);
    for (uint64_t i = 0; __atomic_load_n(&c->stop, __ATOMIC_ACQUIRE) == 0; i++) {
        iqdb_record record;
        iqdb_hit hits[4];
        size_t count;
        const uint64_t id = i % 400;
        const float vector[DIM] = {(float)id};
        iqdb_query query = iqdb_query_default();
        const iqdb_result result = iqdb_get(c->db, id, &buffer, &record);
        if (result == IQDB_OK ? record.vector[0] != (float)id : result != IQDB_ERR_NOT_FOUND) c->problems |= 8;
        query.vector = vector;
        query.dim = DIM;
        query.k = 4;
        if (i % 16 == 0 && iqdb_search(c->db, &query, hits, &count) != IQDB_OK) c->problems |= 16;
    }
    return NULL;
}

/* Writers that push checkpoints on, readers, and one thread that makes them one by one. */
static void checkpoints_beside_writers_and_readers(void) {
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    crowd crowds[4];
    pthread_t threads[4];
    iqdb_options options = iqdb_options_default();
    iqdb *db;
    support_directory(folder);
    support_join(path, folder, "db");
    options.checkpoint_bytes = 50000;
    options.metric = IQDB_L2;
    const size_t rounds = support_amount(20, 60, 600);
    for (size_t sync = 0; sync < 2; sync++) {
        options.sync = sync == 0 ? IQDB_SYNC_FLUSH : IQDB_SYNC_EACH;
        CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
        for (uint64_t id = 1000; id < 4000; id++) CHECK_EQ_INT(crowd_put(db, id, 0), IQDB_OK);
        for (size_t i = 0; i < 4; i++) {
            const crowd one = {db, i * 200, 0, 0};
            crowds[i] = one;
            CHECK_EQ_INT(pthread_create(&threads[i], NULL, i < 2 ? crowd_write : crowd_read, &crowds[i]), 0);
        }
        int problems = 0;
        for (size_t i = 0; i < rounds; i++)
            if (iqdb_checkpoint(db) != IQDB_OK) problems |= 32;
        for (size_t i = 0; i < 4; i++) {
            __atomic_store_n(&crowds[i].stop, 1, __ATOMIC_RELEASE);
            pthread_join(threads[i], NULL);
            problems |= crowds[i].problems;
        }
        CHECK_EQ_INT(problems, 0);
        uint64_t print[2] = {0, 0};
        for (int round = 0; round < 2; round++) {
            iqdb_iter iter = iqdb_iter_begin(db, NULL);
            while (iqdb_iter_next(&iter))
                print[round] += iq_hash_u64(iter.record.id + iq_hash_u64((uint64_t)iter.record.vector[1]));
            iqdb_iter_end(&iter);
            CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
            CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
        }
        CHECK_EQ_U64(print[1], print[0]);
        CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
    support_remove(folder);
}

TEST_MAIN("db/checkpoints", TEST(a_delta_holds_what_has_changed), TEST(a_delta_takes_no_room_for_what_it_replaces),
          TEST(lives_with_deltas), TEST(what_is_written_is_logarithmic), TEST(damage_among_deltas),
          TEST(writes_between_slices), TEST(writes_keep_pace), TEST(maintain_comes_to_an_end),
          TEST(a_stalled_one_gives_way), TEST(close_gives_it_up), TEST(a_checkpoint_that_does_not_fit),
          TEST(checkpoints_beside_writers_and_readers))
