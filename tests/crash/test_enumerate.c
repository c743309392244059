/* Power cuts at every moment of sixty lives.
 *
 * Each scenario runs on a disk in memory, once with sectors of 512 bytes and once of 4,096. After each file call that
 * changed or synced something, the disks that a power cut could leave behind are made: unsynced sectors kept, lost, torn
 * or garbage in any subset, names that were not synced likewise. Each disk that was not seen before (by a hash of all
 * its names, sizes and bytes) is opened. What must hold:
 *   - it opens, with the records of one moment between the last acknowledged and the last issued batch; opened for
 *     reading only it writes nothing and shows the same;
 *   - when the power goes again, right after, the same records are found: recover(recover(x)) = recover(x);
 *   - what is then written is there after yet another power cut;
 *   - within a sample of recoveries and of those writes, every call is cut in turn, up to three deep.
 * Small sets of unsynced things are gone through whole, larger ones by samples of the seed; rounds with other seeds
 * follow until the number of distinct disks that the tier promises has been reached. */
#include "crash/scenarios.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#define DEPTH_MAX 3

/* What a state may hold. */
typedef struct oracle {
    const uint64_t *prints; /* of the moments that count */
    size_t count;
    bool unborn; /* there may be no database yet */
    unsigned depth;
    world *w;
} oracle;

typedef struct sample {
    char text[200];
} sample;

static struct tour {
    uint64_t *seen;
    size_t seen_count, capacity;
    size_t target;
    size_t made, opens, nested[DEPTH_MAX + 1], read_only, written;
    size_t limit;   /* states at a moment */
    unsigned every; /* one state in so many is cut within */
    uint64_t seed, entropy;
    const char *name;
    size_t states_of_scenario;
    sample samples[3];
} tour;

/* ---- Which disks were seen ---- */

static bool note_in(uint64_t *table, size_t capacity, uint64_t digest) {
    size_t at = (size_t)digest & (capacity - 1);
    while (table[at] != 0 && table[at] != digest) at = (at + 1) & (capacity - 1);
    const bool is_new = table[at] == 0;
    table[at] = digest;
    return is_new;
}

/* Whether this digest is new. */
static bool note_digest(uint64_t digest) {
    if (digest == 0) digest = 1;
    if ((tour.seen_count + 1) * 2 > tour.capacity) {
        const size_t capacity = tour.capacity == 0 ? 1 << 16 : tour.capacity * 2;
        uint64_t *table = (uint64_t *)calloc(capacity, sizeof *table);
        if (table == NULL) fault_no_memory();
        for (size_t i = 0; i < tour.capacity; i++)
            if (tour.seen[i] != 0) note_in(table, capacity, tour.seen[i]);
        free(tour.seen);
        tour.seen = table;
        tour.capacity = capacity;
    }
    const bool is_new = note_in(tour.seen, tour.capacity, digest);
    tour.seen_count += is_new;
    return is_new;
}

/* ---- One disk ---- */

static iqdb_error trouble;

static bool complain(const oracle *o, const char *what, const char *why) {
    char where[64];
    snprintf(where, sizeof where, "step %zu (%c) of", o->w->step, o->w->script[o->w->step]);
    printf("\n    %s \"%s\", %zu byte sectors, depth %u, %s: %s; error %d, %s at %llu: %s", where, o->w->script,
           o->w->disk->sector_size, o->depth, what, why, (int)trouble.code, trouble.file,
           (unsigned long long)trouble.offset, trouble.text);
    return EXPECT(!"a power cut is survived");
}

static iqdb_options options_for(fault_files *disk) {
    iqdb_options options = iqdb_options_default();
    options.sync = IQDB_SYNC_EACH;
    options.metric = IQDB_L2;
    options.index_ops = &world_index_ops;
    options.files = fault_table(disk);
    options.entropy.fill_fn = world_entropy;
    options.entropy.user = &tour.entropy; /* outlives every handle */
    options.error = &trouble;
    return options;
}

/* Opens and looks; *out_print is what it holds. */
static iqdb_result open_and_look(fault_files *disk, bool read_only, iqdb **out_db, uint64_t *out_print) {
    iqdb_options options = options_for(disk);
    tour.entropy = tour.seed + tour.opens++;
    options.read_only = read_only;
    memset(&trouble, 0, sizeof trouble);
    const iqdb_result result = iqdb_open("db", &options, out_db);
    *out_print = 0;
    if (result != IQDB_OK) return result;
    return world_look(*out_db, out_print, NULL) ? IQDB_OK : IQDB_ERR_CORRUPT;
}

static bool allows(const oracle *o, uint64_t print) {
    for (size_t i = 0; i < o->count; i++)
        if (o->prints[i] == print) return true;
    return false;
}

static bool check_state(fault_files *state, const char *what, void *user);

static void cut_within(fault_files *disk, void *user) {
    const oracle *o = (const oracle *)user;
    if (test_now.failures > 0) return;
    fault_crashes_some(disk, FAULT_TEAR | FAULT_ZEROS | FAULT_GARBAGE, 8, tour.limit / 4, tour.seed += 7919,
                       check_state, (void *)(uintptr_t)o);
}

static void watch(fault_files *disk, oracle *inner) {
    disk->after_fn = inner != NULL ? cut_within : NULL;
    disk->after_user = inner;
}

/* It opens for reading only, shows what it may, and is left as it was. */
static bool check_reading(const oracle *o, fault_files *state, const char *what, uint64_t digest, uint64_t *out_print) {
    iqdb *db = NULL;
    const iqdb_result result = open_and_look(state, true, &db, out_print);
    tour.read_only++;
    if (result == IQDB_ERR_NOT_FOUND && o->unborn) return true;
    if (result != IQDB_OK) return complain(o, what, "it does not open for reading only");
    if (iqdb_close(db) != IQDB_OK) return complain(o, what, "a read-only handle does not close");
    if (!allows(o, *out_print)) return complain(o, what, "reading only, other records");
    if (fault_pending(state) > 0 || fault_digest(state) != digest) return complain(o, what, "reading only writes");
    return true;
}

/* Goes on writing on a recovered disk, which a power cut took everything unsynced of, and cuts again. */
static bool check_writing(const oracle *o, fault_files *disk, const char *what, iqdb *db, uint64_t print, bool nests) {
    uint64_t prints[3];
    oracle inner = {prints, 2, false, o->depth + 1, o->w};
    float vector[WORLD_DIM];
    char text[320]; /* the world's own may be those of the call that is cut */
    iqdb_field fields[2];
    iqdb_record record;
    world_model model;
    prints[0] = print;
    if (!world_look(db, &print, &model)) return complain(o, what, "it looks different now");
    const uint32_t version = 999999u * 8 + 2;
    world_record(8, version, vector, text, fields, &record); /* of the default collection, which always is */
    model.versions[8] = version;
    prints[1] = world_print_of(&model);
    tour.written++;
    watch(disk, nests ? &inner : NULL);
    iqdb_result result = iqdb_upsert(db, &record);
    watch(disk, NULL);
    if (result != IQDB_OK) {
        world_kill(disk, &db);
        return complain(o, what, "it cannot be written");
    }
    world_kill(disk, &db);
    fault_files *lost = fault_crash(disk, fault_lose, NULL);
    result = open_and_look(lost, false, &db, &print);
    bool ok = (result == IQDB_OK && print == prints[1]) || complain(o, what, "what was written after recovery is lost");
    if (ok && nests) {
        ok = (iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL) == IQDB_OK && iqdb_checkpoint(db) == IQDB_OK) ||
             complain(o, what, "verify or checkpoint fails after recovery");
        ok = ok &&
             ((iqdb_close(db) == IQDB_OK && open_and_look(lost, false, &db, &print) == IQDB_OK && print == prints[1]) ||
              complain(o, what, "it does not close and open after recovery"));
    }
    if (db != NULL) world_kill(lost, &db);
    fault_free(lost);
    return ok;
}

static bool check_recovery(const oracle *o, fault_files *state, const char *what, uint64_t digest) {
    uint64_t print, first, again;
    iqdb *db = NULL;
    const bool reads = digest % 4 == 0, writes = digest / 4 % 4 == 0;
    const bool nests = o->depth < DEPTH_MAX && digest / 16 % (o->depth == 0 ? tour.every : tour.every * 8) == 0;
    if (reads && !check_reading(o, state, what, digest, &first)) return false;
    /* All moments of this recovery must lead to the same records; which they are is known when it is done once. */
    if (nests) {
        fault_files *copy = fault_copy(state);
        if (open_and_look(copy, false, &db, &print) != IQDB_OK) return complain(o, what, "it does not open");
        world_kill(copy, &db);
        fault_free(copy);
        oracle inner = {&print, 1, o->unborn, o->depth + 1, o->w};
        watch(state, &inner);
        const iqdb_result result = open_and_look(state, false, &db, &again);
        watch(state, NULL);
        if (test_now.failures > 0) return false;
        if (result != IQDB_OK || again != print) return complain(o, what, "it opens differently the second time");
    } else if (open_and_look(state, false, &db, &print) != IQDB_OK) {
        return complain(o, what, "it does not open");
    }
    if (!allows(o, print)) return complain(o, what, "the records are those of no moment that counts");
    if (reads && first != print && !(o->unborn && first == 0)) return complain(o, what, "reading only, other records");
    world_kill(state, &db);
    /* The power goes again, with all that recovery did not sync. */
    fault_files *lost = fault_crash(state, digest / 2 % 2 != 0 ? fault_lose : fault_keep, NULL);
    const iqdb_result result = open_and_look(lost, false, &db, &again);
    bool ok = (result == IQDB_OK && again == print) || complain(o, what, "a second recovery finds something else");
    if (ok && writes)
        ok = check_writing(o, lost, what, db, print, nests);
    else if (db != NULL)
        world_kill(lost, &db);
    fault_free(lost);
    return ok;
}

static bool check_state(fault_files *state, const char *what, void *user) {
    const oracle *o = (const oracle *)user;
    const uint64_t digest = fault_digest(state);
    tour.made++;
    if (!note_digest(digest)) return true;
    tour.nested[o->depth]++;
    for (size_t i = 0; i < 3; i++)
        if (tour.seen_count == 1000 + i * (tour.target / 3))
            snprintf(tour.samples[i].text, sizeof tour.samples[i].text,
                     "\"%s\" at step %zu of %s, sectors of %zu, depth %u: %s", tour.name, o->w->step, o->w->script,
                     o->w->disk->sector_size, o->depth, what);
    return check_recovery(o, state, what, digest);
}

/* ---- Lives ---- */

static void cut_life(fault_files *disk, void *user) {
    world *w = (world *)user;
    oracle o = {w->prints + w->durable, w->history_count - w->durable, w->unborn, 0, w};
    if (test_now.failures > 0) return;
    w->disk->after_fn = NULL; /* states are made from it */
    fault_crashes_some(disk, FAULT_TEAR | FAULT_ZEROS | FAULT_GARBAGE, tour.limit, tour.limit, tour.seed += 104729,
                       check_state, &o);
    w->disk->after_fn = cut_life;
}

static bool live(const char *name, const char *script, unsigned flags, size_t sector_size, uint64_t seed) {
    static world w;
    world_make(&w, flags, sector_size, seed);
    w.disk->after_fn = cut_life;
    w.disk->after_user = &w;
    tour.name = name;
    const size_t before = tour.seen_count;
    const bool ok = world_play(&w, script) && test_now.failures == 0;
    tour.states_of_scenario = tour.seen_count - before;
    world_free(&w);
    if (!EXPECT(ok)) printf("\n    scenario \"%s\", sectors of %zu", name, sector_size);
    return ok;
}

static void every_moment_of_every_life(void) {
    char script[64];
    size_t lives = 0, least = SIZE_MAX;
    memset(&tour, 0, sizeof tour);
    tour.target = support_amount(4000, 300000, 10000000);
    tour.seed = 20260101;
    tour.limit = support_amount(8, 60, 5000);
    tour.every = 64;
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 1 << 26);
    mallopt(M_TRIM_THRESHOLD, 1 << 28);
#endif
    for (size_t round = 0; round < 1000 && (round == 0 || tour.seen_count < tour.target); round++) {
        for (size_t i = 0; i < SCENARIO_COUNT && test_now.failures == 0; i++) {
            /* In the quick tier a scenario is lived through once, with one or the other. */
            const bool once = support_amount(1, 0, 0) != 0;
            for (size_t sector = once && i % 2 != 0 ? 4096 : 512; sector <= 4096 && test_now.failures == 0;
                 sector *= once ? 64 : 8) {
                if (round > 0 && tour.seen_count >= tour.target) break;
                if (!live(scenarios[i].name, scenarios[i].script, scenarios[i].flags, sector, round * 1000 + i)) return;
                if (getenv("IQDB_TEST_VERBOSE"))
                    printf("\n    %-40s %4zu: %zu", scenarios[i].name, sector, tour.states_of_scenario);
                if (round == 0 && tour.states_of_scenario < least) least = tour.states_of_scenario;
                lives++;
            }
        }
        for (size_t i = 0; i < 20 && round > 0 && tour.seen_count < tour.target && test_now.failures == 0;
             i++, lives++) {
            uint64_t seed = tour.seed++;
            scenario_random(&seed, script, 16);
            const unsigned flags = (unsigned)(seed % 4 < 3 ? seed % 4 : WORLD_PERIODIC) |
                                   (seed % 8 < 4 ? 0 : WORLD_PACED) | (seed % 3 == 0 ? WORLD_SIDE : 0);
            if (!live("a random life", script, flags, seed % 2 != 0 ? 512 : 4096, seed)) return;
        }
    }
    free(tour.seen);
    printf(
        "\n    %zu scenarios, %zu lives, seed 20260101: %zu distinct disks of %zu made (%zu, %zu, %zu, %zu by depth),"
        " %zu opens, %zu read-only, %zu written on; at least %zu in a life; 0 acknowledged batches lost, 0 false"
        " alarms",
        SCENARIO_COUNT, lives, tour.seen_count, tour.made, tour.nested[0], tour.nested[1], tour.nested[2],
        tour.nested[3], tour.opens, tour.read_only, tour.written, least);
    for (size_t i = 0; i < 3; i++) printf("\n    sample: %s", tour.samples[i].text);
    printf("\n   ");
    CHECK(SCENARIO_COUNT >= 60);
    CHECK(tour.seen_count >= tour.target);
    CHECK(tour.nested[1] > 0 && tour.nested[2] > 0);
}

TEST_MAIN("crash/enumerate", TEST(every_moment_of_every_life))
