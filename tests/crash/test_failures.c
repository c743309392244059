/* The Nth file call and the Nth allocation of a life fail, once or from then on for ever, for every N. What the codes
 * said must be true of what is found afterwards: acknowledged batches are there, refused ones are not, one with an
 * unknown outcome is there whole or not at all; the handle reads on, writes nothing when it is poisoned, leaks nothing,
 * and what it leaves opens again, whatever a power cut then takes. */
#include "crash/scenarios.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

static size_t runs, struck, samples_left;
static uint64_t sample_seed;

/* One disk that may be left: it opens, with the records of a moment that counts, and takes a write. */
static bool judge_state(fault_files *state, const char *what, void *user) {
    static world after;
    world *w = (world *)user;
    after = *w;
    after.disk = state;
    after.db = NULL;
    after.lax = after.full = after.armed = after.stuck = false;
    after.script = what;
    memset(&after.allocator, 0, sizeof after.allocator);
    after.heap = NULL;
    const bool ok = world_open(&after, false) && world_write(&after, 'u') && world_close(&after) &&
                    world_open(&after, false) && world_agrees(&after);
    if (after.db != NULL) world_kill(state, &after.db);
    return EXPECT(ok);
}

static bool judge(world *w) {
    memset(&w->disk->plan, 0, sizeof w->disk->plan);
    w->disk->space = 0;
    if (w->db != NULL) world_kill(w->disk, &w->db);
    if (!EXPECT(w->disk->open_files + w->disk->open_dirs == 0)) return false;
    fault_files *states[2];
    states[0] = fault_copy(w->disk);
    states[1] = fault_crash(w->disk, fault_lose, NULL);
    const bool ok = judge_state(states[0], "all kept", w) && judge_state(states[1], "all lost", w);
    fault_free(states[0]);
    fault_free(states[1]);
    if (ok) fault_crashes_some(w->disk, FAULT_TEAR | FAULT_GARBAGE, 2, 2, runs, judge_state, w);
    return ok && test_now.failures == 0;
}

typedef struct how {
    const char *name;
    unsigned kinds; /* 0: allocations */
    iqdb_result code;
    size_t partial;
    bool sticky, drops;
} how;

/* One life in which call n fails; *out_struck: there was such a call. */
static bool live(const scenario *s, const how *h, size_t n, bool *out_struck) {
    static world w;
    support_heap heap = support_heap_make();
    world_make(&w, s->flags, 4096, n);
    w.allocator = support_allocator(&heap);
    w.heap = &heap;
    w.lax = true;
    if (h->kinds == 0) {
        heap.fail_at = n;
        heap.sticky = h->sticky;
    } else {
        w.disk->partial = h->partial;
        w.disk->drop_on_sync_failure = h->drops;
        fault_fail_nth(w.disk, h->kinds, n, h->code, h->sticky);
    }
    bool ok = EXPECT(world_play(&w, s->script));
    *out_struck = heap.failed > 0 || w.disk->failed > 0;
    heap.fail_at = 0;
    runs++;
    struck += *out_struck;
    if (samples_left > 0 && support_random_below(&sample_seed, 3000) == 0) {
        samples_left--;
        printf("\n    sample: \"%s\", %s, the %zuth%s: %zu steps failed", s->name, h->name, n,
               h->sticky ? " and all later ones" : "", w.failed);
    }
    ok = ok && judge(&w);
    world_free(&w);
    ok = ok && EXPECT(support_heap_problems(&heap) == 0);
    if (!ok) printf("\n    \"%s\": %s, the %zuth%s", s->name, h->name, n, h->sticky ? " and all later ones" : "");
    return ok;
}

static const how calls[] = {
    {"a file call is an I/O error", FAULT_ANY, IQDB_ERR_IO, 0, false, false},
    {"a file call is an I/O error", FAULT_ANY, IQDB_ERR_IO, 0, true, false},
    {"a write or create has no space", FAULT_WRITE | FAULT_OPEN, IQDB_ERR_NOSPACE, 0, false, false},
    {"a write or create has no space", FAULT_WRITE | FAULT_OPEN, IQDB_ERR_NOSPACE, 0, true, false},
    {"a write is cut short by one byte", FAULT_WRITE, IQDB_ERR_IO, 1, false, false},
    {"a write runs out of space half-way", FAULT_WRITE, IQDB_ERR_NOSPACE, 100, false, false},
    {"a write fails behind its last byte", FAULT_WRITE, IQDB_ERR_IO, SIZE_MAX, false, false},
    {"a sync fails and drops its pages", FAULT_SYNC | FAULT_DIR_SYNC, IQDB_ERR_IO, 0, false, true},
};
static const how allocations[] = {
    {"an allocation fails", 0, IQDB_OK, 0, false, false},
    {"an allocation fails", 0, IQDB_OK, 0, true, false},
};

static void fail_all(const how *ways, size_t way_count, size_t least) {
    const size_t wanted = support_amount(3, 22, SCENARIO_COUNT), step = SCENARIO_COUNT / wanted;
    size_t lives = 0;
    runs = struck = 0;
    samples_left = 3;
    sample_seed = 99;
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 1 << 26);
    mallopt(M_TRIM_THRESHOLD, 1 << 28);
#endif
    for (size_t i = 0; i < SCENARIO_COUNT && lives < wanted; i += step) {
        size_t k =
            i; /* those that plan a failure of their own make way, and threads: what is the Nth call is by chance */
        while (k < SCENARIO_COUNT && strpbrk(scenarios[k].script, "IWy") != NULL) k++;
        if (k == SCENARIO_COUNT) continue;
        for (size_t j = 0; j < way_count; j++) {
            bool hit = true;
            for (size_t n = 1; hit; n++)
                if (!live(&scenarios[k], &ways[j], n, &hit)) return;
        }
        lives++;
        if (getenv("IQDB_TEST_VERBOSE")) printf("\n    %s: %zu runs", scenarios[k].name, runs);
    }
    printf("\n    %zu scenarios, %zu runs, %zu of them struck, seed 99\n   ", lives, runs, struck);
    CHECK(lives >= support_amount(3, 20, 50));
    CHECK(struck >= least * lives);
}

static void every_file_call_fails(void) { fail_all(calls, sizeof calls / sizeof calls[0], 200); }

static void every_allocation_fails(void) { fail_all(allocations, sizeof allocations / sizeof allocations[0], 20); }

TEST_MAIN("crash/failures", TEST(every_file_call_fails), TEST(every_allocation_fails))
