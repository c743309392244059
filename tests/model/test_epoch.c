/* The epoch protocol, model-checked: src/store/epoch.c itself, with its atomics replaced by operations of a model of
 * memory, in every order of the threads' steps and with every value that each load may return.
 *
 * The model is the operational one of release-acquire with sequentially consistent fences (J. Kang et al., "A promising
 * semantics for relaxed-memory concurrency", POPL 2017, without promises). A location is a list of messages; a thread's
 * view says up to which message of each it must have seen; a load takes any message not older than that. A release store
 * hands over the view of its thread, an acquire load takes it in; fences exchange views with one global view. A swap or
 * an addition reads the newest message and continues its release. What it leaves out are loads that see stores which
 * come later in their own thread's order, and stores that are not the newest of their location.
 *
 * Plain memory may be touched only by who has seen the last write to it, and written only by who has seen all reads:
 * anything else is a race, and a row that is used again under a reader is one.
 *
 * A thread is run again from its beginning for each of its steps, with the values of the steps before from its log, so
 * that any state can be gone back to. States that have been seen are not explored again. */
#include "api.h"
#include "base/config.h"
#include "base/hash.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t model_load(const void *address);
static void model_store(void *address, uint64_t value);
static int model_swap_if(void *address, uint64_t old, uint64_t value);
static void model_add(void *address, uint64_t value);
static void model_fence(void *address);
#define IQ_ATOMIC_LOAD(pointer) ((__typeof__(*(pointer)))model_load(pointer))
#define IQ_ATOMIC_STORE(pointer, value) model_store((pointer), (uint64_t)(value))
#define IQ_ATOMIC_SWAP_IF(pointer, old, value) \
    model_swap_if((pointer), (uint64_t)(uintptr_t)(old), (uint64_t)(uintptr_t)(value))
#define IQ_ATOMIC_ADD(pointer, n) model_add((pointer), (n))
#define IQ_ATOMIC_FENCE(pointer) model_fence(pointer)
#define IQ_SLOT_COUNT 1u
#include "store/epoch.c"

#include "support.h"
#include "test.h"

enum {
    READERS_MAX = 2,
    THREADS = 1 + READERS_MAX, /* thread 0 writes */
    LOG_MAX = 64,
    MESSAGES_MAX = 8,
    NONE = 9
};

/* ---- What the threads share: each has a copy of its own, of which only the addresses matter to the model ---- */

typedef struct row {
    uint64_t previous, death, filled; /* atomic */
    uint64_t birth, value;            /* plain */
} row;

typedef struct world {
    iq_epoch epoch;
    iq_tally tally;
    uint64_t head; /* atomic: the newest row */
    row rows[2];
} world;

enum location {
    AT_MOMENT,
    AT_COUNT0,
    AT_COUNT1,
    AT_SLOT,
    AT_NEXT,
    AT_UNSLOTTED,
    AT_FENCE,
    AT_HEAD,
    AT_PREVIOUS0,
    AT_PREVIOUS1,
    AT_DEATH0,
    AT_DEATH1,
    AT_FILLED0,
    AT_FILLED1,
    PLAIN_BIRTH0, /* from here on plain */
    PLAIN_BIRTH1,
    PLAIN_VALUE0,
    PLAIN_VALUE1,
    READS, /* of the plain parts of a row, by thread */
    LOCATIONS = READS + 2 * THREADS
};

static enum location location_of(const world *w, const void *address) {
    const iq_epoch *e = &w->epoch;
    const row *a = &w->rows[0], *b = &w->rows[1];
    const void *const addresses[READS] = {&e->moment,     &w->tally.counts[0], &w->tally.counts[1], &e->first.slots[0].moment,
                                          &e->first.next, &e->unslotted, &e->fence,     &w->head,
                                          &a->previous,   &b->previous,  &a->death,     &b->death,
                                          &a->filled,     &b->filled,    &a->birth,     &b->birth,
                                          &a->value,      &b->value};
    for (int i = 0; i < READS; i++)
        if (addresses[i] == address) return (enum location)i;
    printf("\n    an address that the model does not know");
    exit(2);
}

/* ---- The state of the model ---- */

typedef struct view {
    uint8_t seen[LOCATIONS]; /* number of the newest message that must be seen */
} view;

typedef struct message {
    uint64_t value;
    view released;
} message;

typedef struct thread {
    view now, at_fence, not_yet; /* not_yet: from relaxed loads, taken in by the next fence */
    uint64_t log[LOG_MAX];
    uint32_t log_size, done;
} thread;

typedef struct machine {
    message messages[LOCATIONS][MESSAGES_MAX];
    uint8_t counts[LOCATIONS];
    view fences;
    thread threads[THREADS];
    uint8_t reused, versions[READERS_MAX];
} machine;

/* What is taken away from the protocol, to see that the model misses it. */
typedef enum mutation {
    AS_IT_IS,
    NO_READER_FENCE,
    NO_WRITER_FENCE,
    RELAXED_PUBLISH,
    RELAXED_UNPIN,
    RELAXED_LOOK,
    RELAXED_MOMENT_LOAD,
    RELAXED_LINK,
    MOMENT_BEFORE_FENCE,
    FREE_ONE_TOO_EARLY,
    NO_SECOND_STEP,
    NO_PIN,
    NO_CHAIN,
    NO_BIRTH_CHECK,
    MUTATIONS
} mutation;

static const char *const mutation_names[MUTATIONS] = {"as it is",
                                                      "no fence of the reader",
                                                      "no fence of the writer",
                                                      "relaxed publish",
                                                      "relaxed unpin",
                                                      "relaxed look at the slots",
                                                      "relaxed load of the moment",
                                                      "relaxed link",
                                                      "moment from before the fence",
                                                      "freed one moment too early",
                                                      "freed in one step",
                                                      "no pin",
                                                      "no chain",
                                                      "no birth check"};

static struct {
    machine *m;
    world w;
    int self;
    uint32_t position; /* in the log */
    int choice;        /* for the new step; -1 once it is made */
    jmp_buf out;
    mutation wrong;
    int scans;     /* bit i: reader i scans */
    bool exchange; /* fences are exchanges, as under the thread sanitizer */
    const char *problem;
    size_t choices_end; /* the choice was beyond the last */
} run;

static void view_join(view *a, const view *b) {
    for (int i = 0; i < LOCATIONS; i++)
        if (a->seen[i] < b->seen[i]) a->seen[i] = b->seen[i];
}

enum {
    OUT_PAUSED = 1, /* before a step that is not yet to be made */
    OUT_NO_SUCH_CHOICE,
    OUT_PROBLEM
};

static void fail(const char *text) {
    run.problem = text;
    longjmp(run.out, OUT_PROBLEM);
}

static void log_value(uint64_t value) {
    thread *t = &run.m->threads[run.self];
    if (t->log_size == LOG_MAX) fail("the log is too short for this thread");
    t->log[t->log_size++] = value;
    run.position++;
}

/* True where the step is in the log. Else it is made now, once; the one behind it pauses the thread. */
static bool replay(uint64_t *out_value) {
    thread *t = &run.m->threads[run.self];
    if (run.position < t->log_size) {
        *out_value = t->log[run.position++];
        return true;
    }
    if (run.choice < 0) longjmp(run.out, OUT_PAUSED);
    return false;
}

static void append(enum location at, uint64_t value, const view *released) {
    machine *m = run.m;
    if (m->counts[at] == MESSAGES_MAX) fail("too many messages for the model");
    message *new_one = &m->messages[at][m->counts[at]];
    thread *t = &m->threads[run.self];
    t->now.seen[at] = m->counts[at]++;
    new_one->value = value;
    new_one->released = *released;
    new_one->released.seen[at] = t->now.seen[at];
}

static uint64_t model_load(const void *address) {
    uint64_t value = 0;
    if (replay(&value)) return value;
    const enum location at = location_of(&run.w, address);
    thread *t = &run.m->threads[run.self];
    const size_t index = t->now.seen[at] + (size_t)run.choice;
    if (index >= run.m->counts[at]) longjmp(run.out, OUT_NO_SUCH_CHOICE);
    run.choice = -1;
    const message *seen = &run.m->messages[at][index];
    const bool relaxed = (run.wrong == RELAXED_LOOK && at == AT_SLOT && run.self == 0) ||
                         (run.wrong == RELAXED_MOMENT_LOAD && at == AT_MOMENT);
    t->now.seen[at] = (uint8_t)index;
    view_join(relaxed ? &t->not_yet : &t->now, &seen->released);
    log_value(seen->value);
    return seen->value;
}

static void only_choice(void) {
    if (run.choice > 0) longjmp(run.out, OUT_NO_SUCH_CHOICE);
    run.choice = -1;
}

static void model_store(void *address, uint64_t value) {
    uint64_t ignored;
    const enum location at = location_of(&run.w, address);
    memcpy(address, &value, sizeof value); /* the thread's own copy, which it may read plainly */
    if (replay(&ignored)) return;
    only_choice();
    thread *t = &run.m->threads[run.self];
    const bool relaxed = (run.wrong == RELAXED_PUBLISH && at == AT_MOMENT) ||
                         (run.wrong == RELAXED_UNPIN && at == AT_SLOT) || (run.wrong == RELAXED_LINK && at == AT_HEAD);
    append(at, value, relaxed ? &t->at_fence : &t->now);
    log_value(0);
}

/* Reads the newest message, acquires, and releases on top of what that released. Both are weaker than a full barrier. */
static uint64_t read_modify_write(enum location at, bool conditional, uint64_t old, uint64_t value, bool adds) {
    thread *t = &run.m->threads[run.self];
    const message *newest = &run.m->messages[at][run.m->counts[at] - 1];
    const uint64_t before = newest->value;
    t->now.seen[at] = (uint8_t)(run.m->counts[at] - 1);
    view_join(&t->now, &newest->released);
    if (!conditional || before == old) append(at, adds ? before + value : value, &t->now);
    log_value(before);
    return before;
}

static int model_swap_if(void *address, uint64_t old, uint64_t value) {
    uint64_t before;
    if (!replay(&before)) {
        only_choice();
        before = read_modify_write(location_of(&run.w, address), true, old, value, false);
    }
    if (before == old) memcpy(address, &value, sizeof value);
    return before == old;
}

static void model_add(void *address, uint64_t value) {
    uint64_t before;
    if (replay(&before)) return;
    only_choice();
    (void)read_modify_write(location_of(&run.w, address), false, 0, value, true);
}

static void model_fence(void *address) {
    uint64_t ignored;
    if (run.wrong == (run.self == 0 ? NO_WRITER_FENCE : NO_READER_FENCE)) return;
    if (replay(&ignored)) return;
    only_choice();
    if (run.exchange) {
        (void)read_modify_write(location_of(&run.w, address), false, 0, 0, false);
        return;
    }
    thread *t = &run.m->threads[run.self];
    view_join(&t->now, &t->not_yet);
    view_join(&run.m->fences, &t->now);
    t->now = t->at_fence = run.m->fences;
    log_value(0);
}

static int row_of(enum location plain) { return plain == PLAIN_BIRTH1 || plain == PLAIN_VALUE1; }

/* Plain accesses belong to the step before them: whether they race does not depend on when they come. */
static uint64_t plain_read(const uint64_t *address) {
    thread *t = &run.m->threads[run.self];
    if (run.position < t->log_size) return t->log[run.position++];
    const enum location at = location_of(&run.w, address);
    if (t->now.seen[at] + 1 != run.m->counts[at]) fail("a race: plain memory is read while another thread writes it");
    const int reads = READS + 2 * run.self + row_of(at);
    t->now.seen[reads] = run.m->counts[reads]++;
    log_value(run.m->messages[at][t->now.seen[at]].value);
    return run.m->messages[at][t->now.seen[at]].value;
}

static void plain_write(uint64_t *address, uint64_t value) {
    thread *t = &run.m->threads[run.self];
    if (run.position < t->log_size) {
        run.position++;
        return;
    }
    const enum location at = location_of(&run.w, address);
    if (t->now.seen[at] + 1 != run.m->counts[at]) fail("a race: two threads write plain memory");
    for (int i = 0; i < THREADS; i++)
        if (t->now.seen[READS + 2 * i + row_of(at)] + 1 != run.m->counts[READS + 2 * i + row_of(at)])
            fail("a race: plain memory is written while another thread may be reading it");
    append(at, value, &t->now);
    log_value(0);
}

/* ---- The threads: rows as records.c keeps them, around the pins of epoch.c ---- */

/* Row `index` becomes the record of the next moment; the one before it dies with that. */
static void write_version(world *w, uint64_t index, uint64_t previous) {
    const uint64_t moment = w->epoch.moment + 1;
    plain_write(&w->rows[index].value, moment);
    plain_write(&w->rows[index].birth, moment);
    IQ_ATOMIC_STORE(&w->rows[index].death, NONE);
    IQ_ATOMIC_STORE(&w->rows[index].previous, previous);
    IQ_ATOMIC_STORE(&w->rows[index].filled, 1);
    IQ_ATOMIC_STORE(&w->head, index);
    IQ_ATOMIC_STORE(&w->rows[previous].death, moment);
    iq_epoch_tell(&w->epoch, &w->tally, 10 + moment);
    iq_epoch_publish(&w->epoch);
}

static void writer(world *w) {
    bool unlinked = false;
    uint64_t unlinked_at = 0;
    write_version(w, 1, 0);
    for (int attempt = 0; attempt < 3; attempt++) {
        const uint64_t oldest = iq_epoch_oldest(&w->epoch);
        const bool free_now = unlinked && (oldest > unlinked_at || run.wrong == NO_SECOND_STEP || run.wrong == NO_PIN ||
                                           (run.wrong == FREE_ONE_TOO_EARLY && oldest == unlinked_at));
        if (free_now) {
            run.m->reused = 1;
            write_version(w, 0, 1);
            return;
        }
        if (unlinked && attempt == 1) { /* nothing changes but the moment */
            iq_epoch_tell(&w->epoch, &w->tally, 10 + 2);
            iq_epoch_publish(&w->epoch);
        }
        if (!unlinked && (oldest >= 2 || run.wrong == NO_PIN)) {
            IQ_ATOMIC_STORE(&w->rows[0].filled, 0);
            IQ_ATOMIC_STORE(&w->rows[1].previous, NONE);
            unlinked = true;
            unlinked_at = w->epoch.moment;
        }
    }
}

/* From the newest row along the chain: what a get does. */
static uint64_t find(world *w, uint64_t moment) {
    uint64_t index = IQ_ATOMIC_LOAD(&w->head);
    while (index != NONE) {
        if (plain_read(&w->rows[index].birth) <= moment || run.wrong == NO_BIRTH_CHECK)
            return moment < IQ_ATOMIC_LOAD(&w->rows[index].death) ? plain_read(&w->rows[index].value) : NONE;
        index = run.wrong == NO_CHAIN ? NONE : IQ_ATOMIC_LOAD(&w->rows[index].previous);
    }
    return NONE;
}

/* All filled rows, each read before it is known whether it is seen: what a search does. */
static uint64_t scan(world *w, uint64_t moment) {
    uint64_t found = NONE;
    for (int i = 0; i < 2; i++) {
        if (!IQ_ATOMIC_LOAD(&w->rows[i].filled)) continue;
        const uint64_t value = plain_read(&w->rows[i].value);
        if (plain_read(&w->rows[i].birth) > moment && run.wrong != NO_BIRTH_CHECK) continue;
        if (moment >= IQ_ATOMIC_LOAD(&w->rows[i].death)) continue;
        if (found != NONE) fail("a reader found two records of one id");
        found = value;
    }
    return found;
}

static void reader(world *w) {
    const iq_pin pin = iq_epoch_pin(&w->epoch, &w->tally, 0);
    uint64_t moment = pin.moment;
    if (run.wrong == MOMENT_BEFORE_FENCE && pin.slot != NULL) moment = pin.slot->moment;
    const uint64_t value = run.scans >> run.self & 1 ? scan(w, moment) : find(w, moment);
    /* Version 1 is seen at moment 1 and so on; a moment without a change shows the version before it. */
    const uint64_t expected = pin.count == 12 ? 2 : pin.count == 10 + moment ? moment : NONE;
    if (run.wrong != MOMENT_BEFORE_FENCE && expected == NONE) fail("the count is not that of the moment");
    if (value == NONE) fail("a reader found no record");
    if (run.wrong != MOMENT_BEFORE_FENCE && value != expected) fail("a reader found the record of another moment");
    run.m->versions[run.self - 1] = (uint8_t)value;
    iq_epoch_unpin(&w->epoch, pin.slot);
}

/* ---- Exploration ---- */

static void machine_init(machine *m, world *w) {
    memset(m, 0, sizeof *m);
    memset(w, 0, sizeof *w);
    iq_epoch_init(&w->epoch);
    w->tally.counts[1] = 11;
    for (int i = 0; i < LOCATIONS; i++) m->counts[i] = 1;
    m->messages[AT_MOMENT][0].value = 1;
    m->messages[AT_COUNT1][0].value = 11;
    m->messages[AT_PREVIOUS0][0].value = m->messages[AT_PREVIOUS1][0].value = NONE;
    m->messages[AT_DEATH0][0].value = m->messages[AT_DEATH1][0].value = NONE;
    m->messages[AT_FILLED0][0].value = 1;
    m->messages[PLAIN_BIRTH0][0].value = m->messages[PLAIN_VALUE0][0].value = 1;
}

static world world_at_start;

/* One step of a thread of m; 0 when the thread has come to its end. */
static int make_step(machine *m, int self, int choice) {
    run.m = m;
    run.self = self;
    run.choice = choice;
    run.position = 0;
    run.w = world_at_start;
    const int why = setjmp(run.out);
    if (why != 0) return why;
    if (run.self == 0) {
        writer(&run.w);
    } else {
        reader(&run.w);
    }
    if (run.choice > 0) return OUT_NO_SUCH_CHOICE;
    run.m->threads[run.self].done = 1;
    return 0;
}

#define SEEN_CAPACITY ((size_t)1 << 23)

typedef struct exploration {
    uint64_t *seen; /* hashes of states */
    size_t states, ends, reuses, versions[8];
    int readers;
    const char *problem;
    bool full;
} exploration;

static uint64_t hash_bytes(uint64_t hash, const void *memory, size_t size) {
    const uint8_t *bytes = (const uint8_t *)memory;
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = 0;
        memcpy(&word, bytes + i, size - i < 8 ? size - i : 8);
        hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        hash ^= hash >> 29;
    }
    return hash;
}

/* Whether the state is new. */
static bool remember(exploration *e, const machine *m) {
    uint64_t hash = hash_bytes(m->reused, m->counts, sizeof m->counts);
    hash = hash_bytes(hash, &m->fences, sizeof m->fences);
    for (int i = 0; i < LOCATIONS; i++)
        if (i < READS) hash = hash_bytes(hash, m->messages[i], m->counts[i] * sizeof(message));
    for (int i = 0; i <= e->readers; i++) {
        const thread *t = &m->threads[i];
        hash = hash_bytes(hash, &t->now, 3 * sizeof(view));
        hash = hash_bytes(hash, t->log, t->log_size * sizeof(uint64_t));
        hash = hash_bytes(hash, &t->log_size, 2 * sizeof(uint32_t));
    }
    hash = iq_hash_u64(hash) | 1;
    size_t place = (size_t)(hash >> 20) % SEEN_CAPACITY;
    for (; e->seen[place] != 0; place = (place + 1) % SEEN_CAPACITY)
        if (e->seen[place] == hash) return false;
    if (++e->states > SEEN_CAPACITY / 8 * 7) e->full = true;
    e->seen[place] = hash;
    return true;
}

static void explore(exploration *e, const machine *m) {
    bool ended = true;
    for (int self = 0; self <= e->readers && e->problem == NULL && !e->full; self++) {
        if (m->threads[self].done) continue;
        ended = false;
        for (int choice = 0; e->problem == NULL; choice++) {
            machine next = *m;
            const int why = make_step(&next, self, choice);
            if (why == OUT_NO_SUCH_CHOICE) break;
            if (why == OUT_PROBLEM) {
                e->problem = run.problem;
                return;
            }
            if (remember(e, &next)) explore(e, &next);
        }
    }
    if (!ended) return;
    e->ends++;
    e->reuses += m->reused;
    for (int i = 0; i < e->readers; i++) e->versions[m->versions[i] % 8]++;
}

static exploration explore_all(int readers, int scans, mutation wrong, bool exchange) {
    exploration e;
    machine m;
    memset(&e, 0, sizeof e);
    memset(&run, 0, sizeof run);
    run.wrong = wrong;
    run.exchange = exchange;
    run.scans = scans;
    e.readers = readers;
    e.seen = (uint64_t *)calloc(SEEN_CAPACITY, sizeof(uint64_t));
    machine_init(&m, &world_at_start);
    if (e.seen == NULL) e.problem = "no memory";
    if (e.seen != NULL) explore(&e, &m);
    free(e.seen);
    return e;
}

static void the_protocol_holds(int readers, int scans, int exchange) {
    const exploration e = explore_all(readers, scans, AS_IT_IS, exchange);
    printf(
        "\n    %s, %d readers of which %d scan: %zu states, %zu ends, %zu with the row used again; versions seen: first "
        "%zu, second %zu, later %zu",
        exchange ? "exchange" : "fence", readers, scans != 0, e.states, e.ends, e.reuses, e.versions[1], e.versions[2],
        e.versions[3] + e.versions[4]);
    if (e.problem != NULL) printf("\n      ... %s", e.problem);
    CHECK(e.problem == NULL && !e.full);
    CHECK(e.ends > 0 && e.reuses > 0 && e.versions[1] > 0 && e.versions[2] > 0 && e.versions[3] + e.versions[4] > 0);
}

static void one_reader(void) {
    for (int i = 0; i < 4; i++) the_protocol_holds(1, i / 2 * 2, i % 2);
}

/* With one slot: the second one takes it over, or is counted. */
static void two_readers(void) {
    const size_t kinds = support_amount(0, 1, 2);
    if (kinds == 0) TEST_SKIP("some millions of states: not in the quick tier");
    for (size_t i = 0; i < kinds; i++) the_protocol_holds(2, 4, (int)i);
}

static void wrong_variants_are_caught(void) {
    for (int i = 0; i < 2 * MUTATIONS; i++) {
        const int exchange = i % 2;
        const mutation wrong = (mutation)(i / 2);
        if (wrong == AS_IT_IS) continue;
        const exploration get = explore_all(1, 0, wrong, exchange), search = explore_all(1, 2, wrong, exchange);
        printf("\n    %s, %s: %s", exchange ? "exchange" : "fence", mutation_names[wrong],
               get.problem != NULL      ? get.problem
               : search.problem != NULL ? search.problem
                                        : "NOT CAUGHT");
        EXPECT(get.problem != NULL || search.problem != NULL);
    }
}

TEST_MAIN("model/epoch", TEST(one_reader), TEST(two_readers), TEST(wrong_variants_are_caught))
