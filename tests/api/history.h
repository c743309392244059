/* A checker of histories: every answer under write load has to be the exact one at a state between call and return.
 *
 * One thread writes pairs: each write replaces or deletes both records of a pair in one batch, and is logged before it
 * begins. Readers replay that log. An answer is right where it equals, bit for bit, what brute force over the replayed
 * records gives after some number n of writes, with: the writes finished before the call <= n <= those begun before the
 * return, and n never falling from one answer of a reader to its next. Elements are small integers, so the expected
 * scores are the roots of exact sums. */
#ifndef TESTS_API_HISTORY_H
#define TESTS_API_HISTORY_H
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

#include <pthread.h>
#include <sched.h>

/* What else the threads do, where a test wants something. */
#ifndef HISTORY_READER_BEGINS
#define HISTORY_READER_BEGINS()
#define HISTORY_WRITER_BEGINS()
#define HISTORY_WRITE_ENDS()
#define HISTORY_READERS 6
#endif

enum {
    PAIRS = 24,
    IDS = 2 * PAIRS,
    DIM = 4,
    MOST_HITS = IDS + 2,
    READERS = HISTORY_READERS,
    LOG_MAX = 1 << 24
};

/* write_log[n] is write n, from 1 on: the pair, or PAIRS + the pair for a delete. */
static uint8_t write_log[LOG_MAX];

/* The state after `writes` writes: the write that made each pair, 0 for none. */
typedef struct state {
    uint32_t writes;
    uint32_t made[PAIRS];
    uint32_t live;
} state;

typedef struct history {
    iqdb *db;
    uint32_t begun, finished; /* writes; atomic */
    uint32_t writes_wanted;
    size_t answers_wanted, answers; /* the latter atomic, as all below */
    size_t contended;               /* answers with writes beside them */
    size_t problems;
    int running;
    size_t checkpoints;
} history;

typedef struct reader {
    history *all;
    state at; /* no later than the next answer */
    uint64_t random;
    iqdb_buffer buffer;
} reader;

static uint64_t id_of(uint32_t which) { return (uint64_t)which * UINT64_C(0x9E3779B97F4A7C15); }

static uint32_t which_of(uint64_t id) {
    return (uint32_t)(id * UINT64_C(0xF1DE83E19937733D)); /* the inverse, modulo 2^64 */
}

static void vector_of(uint32_t which, uint32_t write, float out[DIM]) {
    uint64_t random = (uint64_t)write * 64 + which;
    const uint64_t bits = support_random(&random);
    for (int i = 0; i < DIM; i++) out[i] = (float)(bits >> (8 * i) & 31);
}

static void step(state *s) {
    const uint8_t entry = write_log[++s->writes];
    const uint32_t pair = entry % PAIRS;
    s->live -= s->made[pair] != 0;
    s->made[pair] = entry < PAIRS ? s->writes : 0;
    s->live += s->made[pair] != 0;
}

/* ---- What is expected ---- */

/* The hits of brute force, in order. */
static size_t search_naively(const state *s, const float *query, size_t k, uint32_t *out_which, float *out_score) {
    size_t count = 0;
    for (uint32_t which = 0; which < IDS; which++) {
        if (s->made[which / 2] == 0) continue;
        float vector[DIM], sum = 0;
        vector_of(which, s->made[which / 2], vector);
        for (int i = 0; i < DIM; i++) sum += (vector[i] - query[i]) * (vector[i] - query[i]);
        const float score = sqrtf(sum);
        size_t place = count;
        while (place > 0 && (score < out_score[place - 1] ||
                             (score == out_score[place - 1] && id_of(which) < id_of(out_which[place - 1]))))
            place--;
        if (place >= k) continue;
        count += count < k;
        for (size_t i = count - 1; i > place; i--) {
            out_which[i] = out_which[i - 1];
            out_score[i] = out_score[i - 1];
        }
        out_which[place] = which;
        out_score[place] = score;
    }
    return count;
}

/* One answer of any kind; `vectors` is what get or the iterator showed, by `which`. */
enum {
    GET,
    CONTAINS,
    LEN,
    SEARCH,
    ITERATE
};

typedef struct answer {
    int kind;
    uint32_t which;
    bool found;
    size_t count;       /* LEN, ITERATE; searches: vectors */
    uint32_t made[IDS]; /* GET, ITERATE: the write in the payload, by `which` */
    size_t k;
    float queries[2][DIM];
    iqdb_hit hits[2 * MOST_HITS];
    size_t counts[2];
    bool payloads;
    bool nonsense; /* right at no state */
} answer;

static bool agrees(const answer *a, const state *s) {
    const uint32_t now = s->made[a->which / 2];
    if (a->kind == GET) return a->found ? a->made[a->which] == now : now == 0;
    if (a->kind == CONTAINS) return a->found == (now != 0);
    if (a->kind == LEN) return a->count == 2 * (size_t)s->live;
    if (a->kind == ITERATE) {
        if (a->count != 2 * (size_t)s->live) return false;
        for (uint32_t which = 0; which < IDS; which++)
            if (a->made[which] != s->made[which / 2]) return false;
        return true;
    }
    for (size_t q = 0; q < a->count; q++) {
        uint32_t which[MOST_HITS];
        float score[MOST_HITS];
        const size_t count = search_naively(s, a->queries[q], a->k, which, score);
        if (a->counts[q] != count) return false;
        for (size_t i = 0; i < count; i++) {
            const iqdb_hit *hit = &a->hits[q * a->k + i];
            if (hit->id != id_of(which[i]) || memcmp(&hit->score, &score[i], sizeof(float)) != 0) return false;
            if (a->payloads && iqdb_payload_int(hit->payload, "write", 0) != (int64_t)s->made[which[i] / 2])
                return false;
        }
    }
    return true;
}

/* ---- Reading ---- */

/* The write that a record says it is of; 0 where its parts do not belong together. */
static uint32_t made_by(const iqdb_record *record, uint32_t which) {
    float vector[DIM];
    const uint32_t write = (uint32_t)iqdb_payload_int(record->payload, "write", 0);
    vector_of(which, write, vector);
    return record->dim == DIM && memcmp(record->vector, vector, sizeof vector) == 0 ? write : 0;
}

static void iterate(reader *r, answer *a) {
    memset(a->made, 0, sizeof a->made);
    iqdb_iter iter = iqdb_iter_begin(r->all->db, NULL);
    while (iqdb_iter_next(&iter)) {
        const uint32_t which = which_of(iter.record.id);
        if (which >= IDS || a->made[which] != 0 || made_by(&iter.record, which) == 0) {
            a->nonsense = true;
            break;
        }
        a->made[which] = made_by(&iter.record, which);
        a->count++;
        if (support_random_below(&r->random, 64) == 0) sched_yield(); /* long snapshots, too */
    }
    if (iter.result != IQDB_OK) a->nonsense = true;
    iqdb_iter_end(&iter);
}

static iqdb_result search_in_slices(reader *r, const iqdb_query *query, answer *a) {
    iqdb_cursor *cursor;
    bool done = false;
    iqdb_result result = iqdb_cursor_open(r->all->db, query, &cursor);
    while (result == IQDB_OK && !done) {
        result =
            iqdb_cursor_step(cursor, (uint32_t)support_random_below(&r->random, 3), a->hits, a->k, a->counts, &done);
        if (support_random_below(&r->random, 4) == 0) sched_yield();
    }
    iqdb_cursor_close(cursor);
    return result;
}

static void ask(reader *r, answer *a) {
    iqdb *db = r->all->db;
    const uint64_t choice = support_random_below(&r->random, 100);
    iqdb_result result = IQDB_OK;
    a->which = (uint32_t)support_random_below(&r->random, IDS);
    a->count = 0;
    a->nonsense = false;
    if (choice < 55) {
        iqdb_record record;
        a->kind = GET;
        result = iqdb_get(db, id_of(a->which), &r->buffer, &record);
        a->found = result == IQDB_OK;
        a->made[a->which] = a->found ? made_by(&record, a->which) : 0;
        if (a->found && a->made[a->which] == 0) a->nonsense = true;
        if (result == IQDB_ERR_NOT_FOUND) result = IQDB_OK;
    } else if (choice < 65) {
        a->kind = CONTAINS;
        a->found = iqdb_contains(db, id_of(a->which));
    } else if (choice < 72) {
        a->kind = LEN;
        a->count = iqdb_len(db);
    } else if (choice < 96) {
        a->kind = SEARCH;
        a->count = choice < 90 ? 1 : 2;
        a->k = choice % 4 == 0 ? (size_t)MOST_HITS : 3;
        a->payloads = choice % 3 == 0;
        for (int i = 0; i < 2 * DIM; i++) a->queries[i / DIM][i % DIM] = (float)support_random_below(&r->random, 32);
        iqdb_query query = public_query(a->queries[0], DIM, a->k, IQDB_L2);
        if (a->payloads) query.flags = IQDB_WITH_PAYLOAD;
        query.buffer = &r->buffer;
        result = choice % 5 < 2 && a->count == 1
                     ? search_in_slices(r, &query, a)
                     : iqdb_search_batch(db, &query, a->queries, a->count, a->hits, a->counts);
    } else {
        a->kind = ITERATE;
        iterate(r, a);
    }
    if (result != IQDB_OK) a->nonsense = true;
}

static const char *const kind_names[] = {"get", "contains", "len", "search", "iterate"};

static void *read_and_check(void *argument) {
    reader *r = (reader *)argument;
    history *all = r->all;
    answer *a = (answer *)malloc(sizeof *a);
    HISTORY_READER_BEGINS();
    while (a != NULL && __atomic_load_n(&all->problems, __ATOMIC_RELAXED) < 5 &&
           (__atomic_load_n(&all->answers, __ATOMIC_RELAXED) < all->answers_wanted ||
            __atomic_load_n(&all->finished, __ATOMIC_RELAXED) < all->writes_wanted)) {
        const uint32_t low = __atomic_load_n(&all->finished, __ATOMIC_ACQUIRE);
        ask(r, a);
        const uint32_t high = __atomic_load_n(&all->begun, __ATOMIC_ACQUIRE);
        while (r->at.writes < low) step(&r->at);
        while (!a->nonsense && !agrees(a, &r->at) && r->at.writes < high) step(&r->at);
        if (a->nonsense || !agrees(a, &r->at)) {
            if (__atomic_fetch_add(&all->problems, 1, __ATOMIC_RELAXED) < 5)
                printf("\n      ... %s of %u: right at no state from %u to %u%s", kind_names[a->kind], a->which, low,
                       high, a->nonsense ? " nor at any" : "");
        }
        if (high > low) __atomic_fetch_add(&all->contended, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&all->answers, 1, __ATOMIC_RELAXED);
    }
    free(a);
    return NULL;
}

/* ---- Writing ---- */

static iqdb_result write_pair(iqdb *db, uint32_t pair, uint32_t write, bool remove) {
    const uint64_t ids[2] = {id_of(2 * pair), id_of(2 * pair + 1)};
    float vectors[2][DIM];
    iqdb_record records[2];
    const iqdb_field field = public_field("write", iqdb_int((int64_t)write));
    if (remove) return iqdb_delete_batch(db, ids, 2, NULL);
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t half = i ^ (write & 1); /* either half first */
        vector_of(2 * pair + half, write, vectors[i]);
        records[i] = public_record(ids[half], vectors[i], DIM);
        records[i].fields = &field;
        records[i].field_count = 1;
    }
    return iqdb_upsert_batch(db, records, 2);
}

static void *write_pairs(void *argument) {
    history *all = (history *)argument;
    uint64_t random = 99;
    HISTORY_WRITER_BEGINS();
    for (uint32_t n = 1; n < LOG_MAX && __atomic_load_n(&all->running, __ATOMIC_ACQUIRE); n++) {
        const uint32_t pair = (uint32_t)support_random_below(&random, PAIRS);
        const bool remove = support_random_below(&random, 5) == 0;
        write_log[n] = (uint8_t)(remove ? PAIRS + pair : pair);
        __atomic_store_n(&all->begun, n, __ATOMIC_RELEASE);
        const iqdb_result result = write_pair(all->db, pair, n, remove);
        HISTORY_WRITE_ENDS();
        if (result != IQDB_OK && __atomic_fetch_add(&all->problems, 1, __ATOMIC_RELAXED) < 5)
            printf("\n      ... write %u: %s", n, iqdb_strerror(result));
        __atomic_store_n(&all->finished, n, __ATOMIC_RELEASE);
        /* Ahead of the readers, but not so far that they do nothing but replay. */
        while (n > 2 * __atomic_load_n(&all->answers, __ATOMIC_RELAXED) + 100 &&
               __atomic_load_n(&all->running, __ATOMIC_ACQUIRE))
            sched_yield();
    }
    return NULL;
}

static void *checkpoint_often(void *argument) {
    history *all = (history *)argument;
    while (__atomic_load_n(&all->running, __ATOMIC_ACQUIRE)) {
        const iqdb_result result = all->checkpoints % 2 == 0 ? iqdb_checkpoint(all->db) : iqdb_flush(all->db);
        if (result != IQDB_OK) __atomic_fetch_add(&all->problems, 1, __ATOMIC_RELAXED);
        all->checkpoints++;
        usleep(500);
    }
    return NULL;
}

/* ---- The runs ---- */

static void run_history(const char *path, size_t answers, uint32_t writes, uint64_t seed) {
    static reader readers[READERS];
    history all;
    pthread_t threads[READERS], writer, upkeep;
    support_heap heap = support_heap_make();
    iqdb_options options = iqdb_options_default();
    iqdb_stats stats;
    memset(&all, 0, sizeof all);
    options.allocator = support_allocator(&heap); /* what is freed is overwritten */
    options.files = public_quick_files();
    CHECK_EQ_INT(path == NULL ? iqdb_open_in_memory(&options, &all.db) : iqdb_open(path, &options, &all.db), IQDB_OK);
    all.answers_wanted = answers;
    all.writes_wanted = writes;
    all.running = 1;
    CHECK_EQ_INT(pthread_create(&writer, NULL, write_pairs, &all), 0);
    if (path != NULL) CHECK_EQ_INT(pthread_create(&upkeep, NULL, checkpoint_often, &all), 0);
    for (size_t i = 0; i < READERS; i++) {
        memset(&readers[i], 0, sizeof readers[i]);
        readers[i].all = &all;
        readers[i].random = seed + i;
        readers[i].buffer = iqdb_buffer_default();
        CHECK_EQ_INT(pthread_create(&threads[i], NULL, read_and_check, &readers[i]), 0);
    }
    for (size_t i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
        iqdb_buffer_free(&readers[i].buffer);
    }
    __atomic_store_n(&all.running, 0, __ATOMIC_RELEASE);
    pthread_join(writer, NULL);
    if (path != NULL) pthread_join(upkeep, NULL);
    printf(" %zu answers, %zu of them beside writes, %u writes, %zu checkpoints, seed %" PRIu64 " ...", all.answers,
           all.contended, all.finished, all.checkpoints, seed);
    CHECK_EQ_INT(all.problems, 0);
    CHECK(all.answers >= answers && all.finished >= writes);
    CHECK_EQ_INT(write_pair(all.db, 0, 1, false), IQDB_OK);
    CHECK_EQ_INT(iqdb_stat(all.db, &stats), IQDB_OK);
    CHECK_EQ_U64(stats.oldest_pin_age, 0);
    CHECK_EQ_U64(stats.retired_rows, 0); /* nobody reads: the write has cleared up */
    CHECK_EQ_U64(stats.retired_bytes, 0);
    CHECK_EQ_INT(iqdb_verify(all.db, IQDB_DEPTH_DEFAULT, NULL, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(all.db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

#endif
