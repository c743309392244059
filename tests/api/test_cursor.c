/* Work in slices: cursors, deadlines, cancels, and maintenance. The clock is the tests' own and goes on by one each time
 * it is asked, which is behind each unit of work; so a budget says how many units a slice has, on every machine. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

#ifndef IQDB_NO_THREADS
#include <pthread.h>
#endif

static uint64_t tick(void *user) { return __atomic_fetch_add((uint64_t *)user, 1, __ATOMIC_RELAXED); }

static iqdb_options ticking_options(uint64_t *ticks, support_heap *heap) {
    iqdb_options options = iqdb_options_default();
    options.clock_us.now_fn = tick;
    options.clock_us.user = ticks;
    *heap = support_heap_make();
    options.allocator = support_allocator(heap);
    return options;
}

static bool same_hits(const iqdb_hit *a, const iqdb_hit *b, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (a[i].id != b[i].id || memcmp(&a[i].score, &b[i].score, sizeof(float)) != 0) return false;
    return true;
}

static bool same_payload(iqdb_payload a, iqdb_payload b) {
    if (a.bytes == NULL || b.bytes == NULL) return a.bytes == b.bytes;
    return a.size == b.size && memcmp(a.bytes, b.bytes, a.size) == 0;
}

static bool accept_most(const iqdb_record *record, void *user) {
    (void)user;
    return record->id % 8 != 3;
}

/* ---- Any slicing ---- */

typedef struct slicing {
    uint64_t random;
    uint32_t budget; /* at most; 0: always 0 */
    size_t steps;
    iqdb *writes_to; /* between the steps, or NULL */
    uint32_t dim;
    uint64_t ids;
} slicing;

static void write_something(slicing *s) {
    float vector[64];
    const uint64_t id = support_random_below(&s->random, s->ids);
    for (uint32_t i = 0; i < s->dim; i++) vector[i] = support_random_float(&s->random);
    if (id % 4 == 0) EXPECT(iqdb_delete(s->writes_to, id, NULL) == IQDB_OK);
    if (id % 4 != 0) EXPECT(public_put(s->writes_to, id, vector, s->dim) == IQDB_OK);
}

/* Everything a cursor gives, put together; the payloads of each page are compared with those of `expected`. */
static size_t drain(iqdb_cursor *cursor, slicing *s, const iqdb_query *query, const iqdb_hit *expected, size_t count,
                    iqdb_hit *out) {
    size_t total = 0, page_count = 0;
    uint64_t visited = 0;
    bool done = false;
    while (!done) {
        const uint32_t budget = s->budget == 0 ? 0 : (uint32_t)support_random_below(&s->random, s->budget);
        const size_t capacity = (size_t)support_random_below(&s->random, 40);
        iqdb_hit page[40];
        if (!EXPECT(iqdb_cursor_step(cursor, budget, page, capacity, &page_count, &done) == IQDB_OK)) return 0;
        if (!EXPECT(page_count <= capacity && total + page_count <= count)) return 0;
        EXPECT(query->info->rows_visited >= visited && query->info->exact == query->info->complete);
        EXPECT(page_count == 0 || query->info->complete);
        visited = query->info->rows_visited;
        for (size_t i = 0; i < page_count; i++) {
            if ((query->flags & IQDB_WITH_PAYLOAD) != 0)
                EXPECT(same_payload(page[i].payload, expected[total + i].payload));
            else
                EXPECT(page[i].payload.bytes == NULL && page[i].payload.size == 0);
            out[total + i] = page[i];
        }
        total += page_count;
        s->steps++;
        if (s->writes_to != NULL) write_something(s);
    }
    for (int again = 0; again < 2; again++) { /* there is no more, as often as one asks */
        iqdb_hit page[1];
        EXPECT(iqdb_cursor_step(cursor, 5, page, 1, &page_count, &done) == IQDB_OK && page_count == 0 && done);
    }
    return total;
}

static void any_slicing_gives_the_answer_of_one_call(void) {
    enum {
        MOST = 1500
    };
    static const iqdb_metric metrics[4] = {IQDB_L2, IQDB_COSINE, IQDB_DOT, IQDB_L1};
    static iqdb_hit expected[MOST + 5], all[MOST + 5], found[MOST + 5];
    const size_t rounds = support_amount(8, 120, 2000);
    uint64_t random = 12;
    size_t one_unit_steps = 0, answers = 0;
    for (size_t round = 0; round < rounds; round++) {
        support_heap heap;
        uint64_t ticks = round % 3 == 0 ? UINT64_MAX - 100 : 0; /* a clock may turn over */
        iqdb_options options = ticking_options(&ticks, &heap);
        iqdb *db = NULL;
        slicing s;
        float vector[64], probe[64];
        memset(&s, 0, sizeof s);
        s.random = round;
        s.dim = 1 + (uint32_t)support_random_below(&random, 40);
        s.ids = 1 + support_random_below(&random, MOST);
        CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
        for (uint64_t n = 0; n < s.ids; n++) {
            const iqdb_field field = public_field("n", iqdb_int((int64_t)n));
            for (uint32_t i = 0; i < s.dim; i++) /* many ties in every other round */
                vector[i] =
                    round % 2 == 0 ? support_random_float(&random) : (float)support_random_below(&random, 2) - 0.5f;
            iqdb_record record = public_record(n, vector, s.dim);
            record.fields = &field;
            record.field_count = n % 5 != 0 ? 1 : 0;
            CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
            if (n % 6 == 0) CHECK_EQ_INT(iqdb_delete(db, support_random_below(&random, n + 1), NULL), IQDB_OK);
        }
        for (uint32_t i = 0; i < s.dim; i++) probe[i] = support_random_float(&random);
        const iqdb_filter filter = iqdb_ge("n", iqdb_int((int64_t)(s.ids / 3)));
        for (int way = 0; way < 16; way++) {
            const size_t ks[4] = {1, 10, MOST + 5, 1 + (size_t)support_random_below(&random, MOST)};
            iqdb_search_info info, info_of_cursor;
            iqdb_buffer buffer = iqdb_buffer_default(), other = iqdb_buffer_default();
            iqdb_cursor *cursor = NULL;
            size_t count = 0, found_count;
            iqdb_query query = public_query(probe, s.dim, ks[way % 4], metrics[(way / 2 + round) % 4]);
            query.info = &info;
            query.flags = IQDB_WITH_PAYLOAD;
            query.buffer = &buffer;
            if (way % 3 == 1) query.filter = &filter;
            if (way % 5 == 2) query.predicate = accept_most;
            if (way % 4 == 3 || way == 9) { /* limits that hits have */
                query.k = MOST + 5;
                CHECK_EQ_INT(iqdb_search(db, &query, all, &count), IQDB_OK);
                query.k = ks[way % 4];
                if (count > 0 && way != 7) {
                    query.flags |= IQDB_MAX_DISTANCE;
                    query.max_distance = all[count / 2].score;
                }
                if (count > 0 && way != 11) {
                    query.flags |= IQDB_AFTER;
                    query.after = all[count / 5];
                }
            }
            CHECK_EQ_INT(iqdb_search(db, &query, expected, &count), IQDB_OK);
            CHECK(info.complete && info.exact);
            query.buffer = &other;
            query.info = &info_of_cursor;
            if (way % 2 == 0) query.flags &= ~IQDB_WITH_PAYLOAD;
            CHECK_EQ_INT(iqdb_cursor_open(db, &query, &cursor), IQDB_OK);
            s.budget = way % 3 == 0 ? 0 : way % 3 == 1 ? 9 : 100000;
            s.writes_to = way % 2 == 1 ? db : NULL;
            s.steps = 0;
            memset(probe, 0, way == 5 ? sizeof probe : 0); /* it has a copy */
            found_count = drain(cursor, &s, &query, expected, count, found);
            CHECK_EQ_U64(found_count, count);
            CHECK(same_hits(found, expected, count));
            CHECK(info_of_cursor.complete && info_of_cursor.rows_visited == info.rows_visited);
            CHECK_EQ_INT(iqdb_close(db), IQDB_ERR_BUSY);
            iqdb_cursor_close(cursor);
            if (s.budget == 0 && s.ids > 500) one_unit_steps += s.steps;
            answers++;
            iqdb_buffer_free(&buffer);
            iqdb_buffer_free(&other);
        }
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(support_heap_problems(&heap), 0);
    }
    printf(" %zu answers ...", answers);
    CHECK(one_unit_steps > rounds);
}

/* A step with no budget does one unit, as small as is said; it goes on to the end, and sorts in units too. */
static void a_unit_is_small(void) {
    enum {
        DIM = 300,
        COUNT = 3000
    };
    static float vector[DIM];
    static iqdb_hit expected[COUNT], hits[COUNT];
    support_heap heap;
    uint64_t ticks = 0, random = 3, before = 0;
    size_t count, found = 0, steps = 0, searching = 0;
    bool done = false;
    iqdb_options options = ticking_options(&ticks, &heap);
    iqdb *db = NULL;
    iqdb_cursor *cursor = NULL;
    iqdb_search_info info;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (uint64_t id = 0; id < COUNT; id++) {
        for (int i = 0; i < DIM; i++) vector[i] = support_random_float(&random);
        CHECK_EQ_INT(public_put(db, id, vector, DIM), IQDB_OK);
    }
    iqdb_query query = public_query(vector, DIM, COUNT, IQDB_L2);
    query.info = &info;
    CHECK_EQ_INT(iqdb_search(db, &query, expected, &count), IQDB_OK);
    CHECK(count == COUNT && info.rows_visited == COUNT && ticks == 0); /* no deadline: the clock is not asked */
    CHECK_EQ_INT(iqdb_cursor_open(db, &query, &cursor), IQDB_OK);
    while (!done) {
        CHECK_EQ_INT(iqdb_cursor_step(cursor, steps % 2, hits, COUNT, &count, &done), IQDB_OK);
        CHECK(info.rows_visited - before <= 65536 / (DIM * sizeof(float)) && count == (done ? (size_t)COUNT : 0));
        searching += info.rows_visited > before;
        before = info.rows_visited;
        found += count;
        steps++;
    }
    CHECK_EQ_U64(found, COUNT);
    CHECK(same_hits(hits, expected, COUNT));
    CHECK(searching >= COUNT * DIM * sizeof(float) / 65536);
    CHECK(steps - searching >= COUNT / 65 - 2);
    iqdb_cursor_close(cursor);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* With the system's clock, and all the time in the world, one step is the whole answer. */
static void the_clock_of_the_system(void) {
    iqdb *db = NULL;
    iqdb_cursor *cursor = NULL;
    iqdb_hit hits[5], expected[5];
    size_t count = 0;
    bool done = false;
    const float probe[PUBLIC_DIM] = {0.1f, 0.2f, 0.3f};
    CHECK_EQ_INT(iqdb_open_in_memory(NULL, &db), IQDB_OK);
    for (uint64_t id = 0; id < 2000; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
    iqdb_query query = public_query(probe, PUBLIC_DIM, 5, IQDB_L2);
    CHECK_EQ_INT(iqdb_search(db, &query, expected, &count), IQDB_OK);
    CHECK_EQ_INT(iqdb_cursor_open(db, &query, &cursor), IQDB_OK);
    CHECK_EQ_INT(iqdb_cursor_step(cursor, UINT32_MAX, hits, 5, &count, &done), IQDB_OK);
    CHECK(count == 5 && done && same_hits(hits, expected, 5));
    iqdb_cursor_close(cursor);
    CHECK_EQ_INT(iqdb_cursor_open(db, &query, &cursor), IQDB_OK);
    for (done = false; !done;) CHECK_EQ_INT(iqdb_cursor_step(cursor, 1, hits, 5, &count, &done), IQDB_OK);
    CHECK(count == 5 && same_hits(hits, expected, 5));
    iqdb_cursor_close(cursor);
    query.deadline_us = UINT32_MAX;
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
    CHECK(count == 5 && same_hits(hits, expected, 5));
    CHECK_EQ_INT(iqdb_maintain(db, 1000, &done), IQDB_OK);
    CHECK(done);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* ---- Bad input, and little memory ---- */

static void bad_input(void) {
    support_heap heap;
    uint64_t ticks = 0, memory[64];
    iqdb_options options = ticking_options(&ticks, &heap);
    iqdb *db = NULL, *empty = NULL;
    iqdb_cursor *const wrong = (iqdb_cursor *)(void *)memory;
    iqdb_cursor *cursor = wrong;
    const float probe[PUBLIC_DIM] = {0, 1, 2}, bad[PUBLIC_DIM] = {0, (float)(INFINITY - INFINITY), 2};
    iqdb_buffer buffer = iqdb_buffer_fixed(memory, sizeof memory);
    iqdb_hit hits[4];
    size_t count = 77;
    bool done = true;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &empty), IQDB_OK);
    for (uint64_t id = 0; id < 20; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
    const iqdb_query good = public_query(probe, PUBLIC_DIM, 4, IQDB_L2);
    const iqdb_filter unknown = iqdb_prefix("key", NULL);
    CHECK_EQ_INT(iqdb_cursor_open(db, &good, NULL), IQDB_ERR_INVALID_ARGUMENT);
    for (int which = 0; which < 12; which++) {
        iqdb_query query = good;
        iqdb_result expected = IQDB_ERR_INVALID_ARGUMENT;
        if (which == 2) query.vector = NULL;
        if (which == 3) query.flags = 0x8000;
        if (which == 4) query.flags = IQDB_WITH_PAYLOAD;
        if (which == 5) query.flags = IQDB_MAX_DISTANCE, query.max_distance = bad[1];
        if (which == 6) query.flags = IQDB_AFTER, query.after.score = bad[1];
        if (which == 7) query.vector = (const float *)(void *)memory, query.buffer = &buffer;
        if (which == 8) query.filter = &unknown, expected = IQDB_ERR_INVALID_FILTER;
        if (which == 9) query.vector = bad, expected = IQDB_ERR_INVALID_VECTOR;
        if (which == 10) query.dim = PUBLIC_DIM - 1, expected = IQDB_ERR_DIMENSION_MISMATCH;
        if (which == 11) query.dim = IQDB_DIM_MAX + 1, expected = IQDB_ERR_INVALID_VECTOR;
        memset(memory, 0, sizeof memory);
        cursor = wrong;
        CHECK_EQ_INT(iqdb_cursor_open(which == 0 ? NULL : db, which == 1 ? NULL : &query, &cursor), expected);
        CHECK(cursor == NULL);
        /* The same as a search says. */
        if (which > 1) CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), expected);
    }
    CHECK_EQ_INT(iqdb_cursor_open(db, &good, &cursor), IQDB_OK);
    CHECK_EQ_INT(iqdb_cursor_step(NULL, 1, hits, 4, &count, &done), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_cursor_step(cursor, 1, NULL, 4, &count, &done), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_cursor_step(cursor, 1, hits, 4, NULL, &done), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_cursor_step(cursor, 1, hits, 4, &count, NULL), IQDB_ERR_INVALID_ARGUMENT);
    for (int step = 0; step < 5; step++) { /* no room: it works, and keeps what it has found */
        CHECK_EQ_INT(iqdb_cursor_step(cursor, UINT32_MAX, NULL, 0, &count, &done), IQDB_OK);
        CHECK(count == 0 && !done);
    }
    CHECK_EQ_INT(iqdb_cursor_step(cursor, UINT32_MAX, hits, 4, &count, &done), IQDB_OK);
    CHECK(count == 4 && done);
    CHECK_EQ_INT(iqdb_cursor_step(cursor, UINT32_MAX, NULL, 0, &count, &done), IQDB_OK);
    CHECK(count == 0 && done);
    CHECK_EQ_INT(iqdb_close(db), IQDB_ERR_BUSY);
    iqdb_cursor_close(cursor);
    iqdb_cursor_close(NULL);
    iqdb_cancel_request(NULL);
    CHECK_EQ_INT(iqdb_maintain(NULL, 1, &done), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_maintain(db, 1, NULL), IQDB_ERR_INVALID_ARGUMENT);

    /* Nothing to find: no vector, no record, no match. */
    const iqdb_filter nobody = iqdb_exists("nowhere");
    for (int which = 0; which < 3; which++) {
        iqdb_search_info info;
        iqdb_query query = good;
        query.info = &info;
        if (which == 0) query.k = 0;
        if (which == 2) query.filter = &nobody;
        query.flags = IQDB_WITH_PAYLOAD;
        query.buffer = &buffer;
        buffer.used = 99;
        CHECK_EQ_INT(iqdb_cursor_open(which == 1 ? empty : db, &query, &cursor), IQDB_OK);
        if (which == 1) CHECK_EQ_INT(public_put(empty, 1, probe, PUBLIC_DIM), IQDB_OK); /* later */
        CHECK_EQ_INT(iqdb_cursor_step(cursor, 100, hits, 4, &count, &done), IQDB_OK);
        CHECK(count == 0 && done && info.complete && buffer.used == 0);
        iqdb_cursor_close(cursor);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(empty), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

static void without_memory(void) {
    support_heap heap;
    uint64_t ticks = 0, memory[8];
    iqdb_options options = ticking_options(&ticks, &heap);
    iqdb *db = NULL;
    iqdb_cursor *cursor = NULL;
    const float probe[PUBLIC_DIM] = {0, 1, 2};
    iqdb_hit hits[64], expected[64];
    size_t count = 0, given = 0, refused = 0;
    bool done = false;
    iqdb_buffer buffer = iqdb_buffer_default(), tight = iqdb_buffer_fixed(memory, sizeof memory);
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (uint64_t id = 0; id < 300; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
    const iqdb_filter filter = iqdb_ge("version", iqdb_int(0));
    iqdb_query query = public_query(probe, PUBLIC_DIM, 60, IQDB_L2);
    query.filter = &filter;
    query.flags = IQDB_WITH_PAYLOAD;
    query.buffer = &buffer;
    CHECK_EQ_INT(iqdb_search(db, &query, expected, &count), IQDB_OK); /* leaves scratch, too little for a cursor */
    CHECK_EQ_U64(count, 60);
    for (heap.sticky = 0; heap.sticky < 2; heap.sticky++) {
        heap.fail_at = 1;
        query.k = 60 + 100 * (size_t)heap.sticky;
        CHECK_EQ_INT(iqdb_cursor_open(db, &query, &cursor), IQDB_ERR_NOMEM);
        CHECK(cursor == NULL);
        heap.fail_at = 0;
        CHECK_EQ_INT(iqdb_cursor_open(db, &query, &cursor), IQDB_OK);
        iqdb_cursor_close(cursor);
    }
    query.k = 60;
    query.buffer = &tight;
    heap.sticky = 0;
    heap.fail_at = 1; /* from here on there is scratch */
    CHECK_EQ_INT(iqdb_cursor_open(db, &query, &cursor), IQDB_OK);
    for (size_t capacity = 60; !done;) { /* a page that does not fit is refused, and comes again in halves */
        const iqdb_result result = iqdb_cursor_step(cursor, 9, hits + given, capacity, &count, &done);
        if (result == IQDB_ERR_LIMIT) {
            CHECK(count == 0 && !done && tight.needed > sizeof memory);
            for (size_t i = 0; i < capacity && given + i < 60; i++) CHECK(hits[given + i].payload.bytes == NULL);
            capacity /= 2;
            refused++;
            continue;
        }
        CHECK_EQ_INT(result, IQDB_OK);
        for (size_t i = 0; i < count; i++) CHECK(same_payload(hits[given + i].payload, expected[given + i].payload));
        given += count;
    }
    CHECK(given == 60 && refused > 2);
    CHECK(same_hits(hits, expected, 60));
    iqdb_cursor_close(cursor);
    CHECK_EQ_U64(heap.fail_at, 1);
    iqdb_buffer_free(&buffer);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

typedef struct inside {
    iqdb *db;
    iqdb_cursor *cursors[40];
    int calls;
} inside;

/* From under the lock a step is BUSY, and a close works, without a place for the memory too. */
static void close_from_inside(iqdb_level level, const iqdb_error *message, void *user) {
    inside *i = (inside *)user;
    iqdb_cursor *cursor;
    iqdb_hit hits[1];
    size_t count;
    bool done;
    const float probe[PUBLIC_DIM] = {0, 1, 2};
    const iqdb_query query = public_query(probe, PUBLIC_DIM, 1, IQDB_L2);
    (void)level;
    (void)message;
    i->calls++;
    EXPECT(iqdb_cursor_open(i->db, &query, &cursor) == IQDB_ERR_BUSY && cursor == NULL);
    EXPECT(iqdb_maintain(i->db, 1, &done) == IQDB_ERR_BUSY);
    for (int n = 0; n < 40; n++) {
        EXPECT(iqdb_cursor_step(i->cursors[n], 1, hits, 1, &count, &done) == IQDB_ERR_BUSY);
        iqdb_cursor_close(i->cursors[n]);
    }
}

static void from_inside_a_callback(void) {
    support_heap heap;
    uint64_t ticks = 0;
    inside i;
    const float probe[PUBLIC_DIM] = {0, 1, 2};
    const iqdb_query query = public_query(probe, PUBLIC_DIM, 1, IQDB_L2);
    iqdb_options options = ticking_options(&ticks, &heap);
    memset(&i, 0, sizeof i);
    options.logger.log_fn = close_from_inside;
    options.logger.user = &i;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &i.db), IQDB_OK);
    CHECK_EQ_INT(public_put(i.db, 1, probe, PUBLIC_DIM), IQDB_OK);
    for (int n = 0; n < 40; n++) CHECK_EQ_INT(iqdb_cursor_open(i.db, &query, &i.cursors[n]), IQDB_OK);
    CHECK_EQ_INT(public_put(i.db, 1, probe, PUBLIC_DIM - 1), IQDB_ERR_DIMENSION_MISMATCH);
    CHECK_EQ_INT(i.calls, 1);
    CHECK_EQ_INT(iqdb_close(i.db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* Cursors that are opened, used and closed one after the other, in a crowd or beside searches, need memory once. */
static void warm_cursors_allocate_nothing(void) {
    enum {
        CROWD = 40
    };
    support_heap heap;
    uint64_t ticks = 0;
    iqdb_options options = ticking_options(&ticks, &heap);
    iqdb *db = NULL;
    iqdb_cursor *cursors[CROWD];
    const float probe[PUBLIC_DIM] = {0, 1, 2};
    iqdb_hit hits[200];
    size_t count = 0, warm = 0;
    bool done = false;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (uint64_t id = 0; id < 300; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
    for (int round = 0; round < 6; round++) {
        const int crowd = round < 4 ? 5 : CROWD; /* which is more than there are slots */
        for (int i = 0; i < crowd; i++) {
            const iqdb_query query = public_query(probe, PUBLIC_DIM, i % 2 == 0 ? 200 : 3, IQDB_L2);
            CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
            CHECK_EQ_INT(iqdb_cursor_open(db, &query, &cursors[i]), IQDB_OK);
            if (i % 3 == 0) CHECK_EQ_INT(iqdb_cursor_step(cursors[i], 1, hits, 100, &count, &done), IQDB_OK);
        }
        for (int i = 0; i < crowd; i++) iqdb_cursor_close(cursors[i]);
        if (round == 1) warm = heap.calls;
        if (round > 1 && round < 4) CHECK_EQ_U64(heap.calls, warm);
    }
    CHECK_EQ_INT(public_store(db, 1, 1), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* A cursor that nobody closes costs no more than retired_max. */
static void abandoned_cursors_are_bounded(void) {
    enum {
        MOST = 100 * 1000
    };
    support_heap heap;
    uint64_t ticks = 0, writes = 0;
    iqdb_options options = ticking_options(&ticks, &heap);
    iqdb *db = NULL;
    iqdb_cursor *cursor = NULL;
    iqdb_stats stats;
    const float probe[PUBLIC_DIM] = {0, 1, 2};
    iqdb_hit hits[100], expected[100];
    size_t count = 0;
    bool done = false;
    options.retired_max = MOST;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (uint64_t id = 0; id < 100; id++) CHECK_EQ_INT(public_store(db, id, 1), IQDB_OK);
    const iqdb_query query = public_query(probe, PUBLIC_DIM, 100, IQDB_L2);
    CHECK_EQ_INT(iqdb_search(db, &query, expected, &count), IQDB_OK);
    CHECK_EQ_INT(iqdb_cursor_open(db, &query, &cursor), IQDB_OK);
    while (public_store(db, writes % 100, 2 + writes) == IQDB_OK && writes < 1000000) writes++;
    CHECK_EQ_INT(public_store(db, 5, 77777), IQDB_ERR_BUSY);
    CHECK_EQ_INT(iqdb_maintain(db, 1000000, &done), IQDB_OK); /* nor can this help */
    CHECK(done);
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    CHECK(stats.retired_bytes > MOST && stats.retired_bytes < MOST + 1000 && stats.retired_rows == writes);
    CHECK_EQ_INT(iqdb_cursor_step(cursor, 1000, hits, 100, &count, &done), IQDB_OK);
    CHECK(count == 100 && done && same_hits(hits, expected, 100));
    iqdb_cursor_close(cursor);
    CHECK_EQ_INT(public_store(db, 5, 5), IQDB_OK);
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    CHECK(stats.retired_rows == 0 && stats.oldest_pin_age == 0);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* ---- Deadlines ---- */

/* One task after the other. */
static void run_in_turn(void (*task_fn)(size_t, void *), void *task, size_t count, void *user) {
    *(size_t *)user += count;
    for (size_t i = 0; i < count; i++) task_fn(i, task);
}

/* Where a search stops it has the best of the rows before: the answer of a database that has only these. */
static void a_deadline_leaves_the_best_so_far(void) {
    enum {
        COUNT = 2000,
        K = 12
    };
    support_heap heap, heap_of_part;
    uint64_t ticks = 0, ticks_of_part = 0;
    iqdb_options options = ticking_options(&ticks, &heap),
                 part_options = ticking_options(&ticks_of_part, &heap_of_part);
    iqdb *db = NULL, *part = NULL;
    const float probe[PUBLIC_DIM] = {0.3f, -0.1f, 0.2f};
    iqdb_hit hits[K], expected[K];
    size_t count = 0, expected_count = 0, partial = 0;
    uint64_t inserted = 0;
    iqdb_search_info info;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open_in_memory(&part_options, &part), IQDB_OK);
    for (uint64_t id = 0; id < COUNT; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
    iqdb_query query = public_query(probe, PUBLIC_DIM, K, IQDB_L2);
    for (uint32_t deadline = 1; deadline < 40; deadline++) {
        query.deadline_us = deadline;
        query.info = &info;
        CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
        CHECK(info.complete == (info.rows_visited == COUNT) && info.exact == info.complete);
        CHECK(info.rows_visited > 0 && info.rows_visited <= (uint64_t)deadline * 768);
        partial += !info.complete;
        for (; inserted < info.rows_visited; inserted++) CHECK_EQ_INT(public_store(part, inserted, inserted), IQDB_OK);
        query.deadline_us = 0;
        query.info = NULL;
        CHECK_EQ_INT(iqdb_search(part, &query, expected, &expected_count), IQDB_OK);
        CHECK_EQ_U64(count, expected_count);
        CHECK(same_hits(hits, expected, count));

        /* A cursor whose deadline passes is final then, whatever its slices. */
        iqdb_cursor *cursor = NULL;
        size_t given = 0;
        bool done = false;
        query.deadline_us = deadline;
        query.info = &info;
        CHECK_EQ_INT(iqdb_cursor_open(db, &query, &cursor), IQDB_OK);
        while (!done) {
            CHECK_EQ_INT(iqdb_cursor_step(cursor, deadline % 3, hits + given, 5, &count, &done), IQDB_OK);
            given += count;
            CHECK(given <= K);
        }
        CHECK(info.rows_visited <= (uint64_t)deadline * 768);
        iqdb_cursor_close(cursor);
        for (size_t i = 0; i < given && info.rows_visited <= inserted; i++) CHECK(hits[i].id < info.rows_visited);
    }
    CHECK(partial > 5 && inserted == COUNT);
    CHECK_EQ_U64(ticks_of_part, 0);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(part), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap) + support_heap_problems(&heap_of_part), 0);
}

/* Batches, in one pass or in many, alone or by tasks: each vector gets hits of what was visited, or none. */
static void a_deadline_of_a_batch(void) {
    enum {
        DIM = 100,
        COUNT = 3000,
        VECTORS = 150,
        K = 4
    };
    static float vectors[VECTORS * DIM], vector[DIM];
    static iqdb_hit hits[VECTORS * K], expected[VECTORS * K];
    size_t counts[VECTORS], tasks = 0;
    for (size_t workers = 0; workers <= 4; workers += 4) {
        support_heap heap;
        uint64_t ticks = 0, random = 5;
        size_t partial = 0, unsearched = 0;
        iqdb_options options = ticking_options(&ticks, &heap);
        iqdb *db = NULL;
        iqdb_search_info info;
        options.parallel_for.run_fn = run_in_turn;
        options.parallel_for.worker_count = workers;
        options.parallel_for.user = &tasks;
        CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
        for (uint64_t id = 0; id < COUNT; id++) {
            for (int i = 0; i < DIM; i++) vector[i] = support_random_float(&random);
            CHECK_EQ_INT(public_put(db, id, vector, DIM), IQDB_OK);
        }
        for (int i = 0; i < VECTORS * DIM; i++) vectors[i] = support_random_float(&random);
        iqdb_query query = public_query(vectors, DIM, K, IQDB_L2);
        query.info = &info;
        CHECK_EQ_INT(iqdb_search_batch(db, &query, vectors, VECTORS, expected, counts), IQDB_OK);
        CHECK(info.complete && info.rows_visited % COUNT == 0 && info.rows_visited >= 3 * COUNT);
        const uint64_t all = info.rows_visited;
        for (uint32_t deadline = 1; deadline < 100000; deadline *= 3) {
            query.deadline_us = deadline;
            CHECK_EQ_INT(iqdb_search_batch(db, &query, vectors, VECTORS, hits, counts), IQDB_OK);
            CHECK(info.rows_visited > 0 && info.complete == (info.rows_visited == all));
            partial += !info.complete;
            for (size_t q = 0; q < VECTORS; q++) {
                CHECK(counts[q] <= K && (!info.complete || same_hits(hits + q * K, expected + q * K, K)));
                unsearched += counts[q] == 0;
                for (size_t i = 1; i < counts[q]; i++) CHECK(hits[q * K + i - 1].score <= hits[q * K + i].score);
            }
        }
        CHECK(info.complete && partial > 2 && unsearched > 0);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(support_heap_problems(&heap), 0);
    }
    CHECK(tasks > 0);
}

/* ---- Cancels ---- */

static bool cancel_at_once(const iqdb_record *record, void *user) {
    (void)record;
    iqdb_cancel_request((iqdb_cancel *)user);
    return true;
}

static void a_cancel_ends_what_it_was_given_to(void) {
    support_heap heap;
    uint64_t ticks = 0;
    iqdb_options options = ticking_options(&ticks, &heap);
    iqdb *db = NULL;
    iqdb_cursor *cursor = NULL;
    iqdb_cancel cancel;
    iqdb_search_info info;
    const float probes[2 * PUBLIC_DIM] = {0.3f, -0.1f, 0.2f, 0.5f, 0, 0};
    iqdb_hit hits[20], expected[10];
    size_t count = 0, counts[2] = {9, 9};
    bool done = false;
    memset(&cancel, 0, sizeof cancel);
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    iqdb_query query = public_query(probes, PUBLIC_DIM, 10, IQDB_L2);
    query.info = &info;
    query.cancel = &cancel;
    iqdb_cancel_request(&cancel);
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK); /* among no records there is nothing to end */
    CHECK_EQ_U64(count, 0);
    for (uint64_t id = 0; id < 3000; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);

    /* Requested before: all the calls, again and again, until it is zeroed. */
    for (int round = 0; round < 2; round++) {
        count = 9;
        CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_ERR_CANCELLED);
        CHECK(count == 0 && !info.complete && !info.exact);
        counts[0] = counts[1] = 9;
        CHECK_EQ_INT(iqdb_search_batch(db, &query, probes, 2, hits, counts), IQDB_ERR_CANCELLED);
        CHECK(counts[0] == 0 && counts[1] == 0);
    }
    memset(&cancel, 0, sizeof cancel);
    CHECK_EQ_INT(iqdb_search(db, &query, expected, &count), IQDB_OK);
    CHECK(count == 10 && info.complete && info.exact);
    CHECK_EQ_U64(ticks, 0); /* a cancel asks no clock */

    /* From inside a predicate: the block that is being looked at is the last. */
    query.predicate = cancel_at_once;
    query.user = &cancel;
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_ERR_CANCELLED);
    CHECK(count == 0 && info.rows_visited <= 768);
    query.flags = IQDB_MAX_DISTANCE; /* a predicate that is asked nothing, or only about the last block */
    query.max_distance = 0;
    memset(&cancel, 0, sizeof cancel);
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
    query.flags = 0;
    CHECK_EQ_INT(iqdb_delete(db, 0, NULL), IQDB_OK);
    query.predicate = NULL;

    /* A cursor: between and in steps; it goes on where the cancel is taken back. */
    for (int when = 0; when < 3; when++) {
        memset(&cancel, 0, sizeof cancel);
        CHECK_EQ_INT(iqdb_search(db, &query, expected, &count), IQDB_OK);
        if (when == 0) iqdb_cancel_request(&cancel);
        CHECK_EQ_INT(iqdb_cursor_open(db, &query, &cursor), IQDB_OK);
        if (when > 0) CHECK_EQ_INT(iqdb_cursor_step(cursor, when == 1 ? 3 : 99999, hits, 4, &count, &done), IQDB_OK);
        CHECK_EQ_U64(count, when == 2 ? 4 : when == 1 ? 0 : 10);
        iqdb_cancel_request(&cancel);
        for (int i = 0; i < 3; i++) {
            count = 9;
            done = true;
            CHECK_EQ_INT(iqdb_cursor_step(cursor, 99999, hits + 4, 6, &count, &done), IQDB_ERR_CANCELLED);
            CHECK(count == 0 && !done && (when == 2) == info.complete);
        }
        memset(&cancel, 0, sizeof cancel);
        CHECK_EQ_INT(iqdb_cursor_step(cursor, 99999, when == 2 ? hits + 4 : hits, 10, &count, &done), IQDB_OK);
        CHECK(count == (when == 2 ? 6u : 10u) && done && same_hits(hits, expected, 10));
        iqdb_cursor_close(cursor);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

#ifndef IQDB_NO_THREADS
static int sleeping;

static bool sleep_in_predicate(const iqdb_record *record, void *user) {
    (void)record;
    (void)user;
    __atomic_store_n(&sleeping, 1, __ATOMIC_RELEASE);
    usleep(100);
    return true;
}

static void *cancel_from_another_thread(void *argument) {
    while (!__atomic_load_n(&sleeping, __ATOMIC_ACQUIRE)) usleep(50);
    iqdb_cancel_request((iqdb_cancel *)argument);
    return NULL;
}

/* The search would last for a minute. */
static void a_cancel_from_another_thread(void) {
    enum {
        COUNT = 600000
    };
    static iqdb_record records[1000];
    static float vectors[1000][2];
    static iqdb_hit hits[COUNT];
    iqdb *db = NULL;
    pthread_t thread;
    iqdb_cancel cancel;
    iqdb_search_info info;
    size_t count = 9;
    memset(&cancel, 0, sizeof cancel);
    CHECK_EQ_INT(iqdb_open_in_memory(NULL, &db), IQDB_OK);
    for (uint64_t id = 0; id < COUNT; id++) {
        vectors[id % 1000][0] = (float)id;
        records[id % 1000] = public_record(id, vectors[id % 1000], 2);
        if (id % 1000 == 999) CHECK_EQ_INT(iqdb_upsert_batch(db, records, 1000), IQDB_OK);
    }
    iqdb_query query = public_query(vectors[0], 2, COUNT, IQDB_L2);
    query.predicate = sleep_in_predicate;
    query.cancel = &cancel;
    query.info = &info;
    CHECK_EQ_INT(pthread_create(&thread, NULL, cancel_from_another_thread, &cancel), 0);
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_ERR_CANCELLED);
    CHECK(count == 0 && !info.complete && info.rows_visited < COUNT);
    pthread_join(thread, NULL);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* Cursors of several threads beside a writer: each gives the state of its beginning. Records of one write carry its
 * number, and all of them are written at once. */
typedef struct crowd {
    iqdb *db;
    int running; /* atomic, as all below */
    size_t problems, answers, contended;
} crowd;

enum {
    SET = 300,
    SET_DIM = 8
};

static iqdb_result write_set(iqdb *db, uint64_t number) {
    iqdb_record records[SET];
    static float vectors[SET][SET_DIM];
    for (uint64_t id = 0; id < SET; id++) {
        for (uint64_t i = 0; i < SET_DIM; i++) vectors[id][i] = (float)((id * 7 + i * 3) % 31);
        vectors[id][0] = (float)(number % 1000);
        records[id] = public_record(id, vectors[id], SET_DIM);
    }
    return iqdb_upsert_batch(db, records, SET);
}

static void *write_sets(void *argument) {
    crowd *c = (crowd *)argument;
    for (uint64_t n = 1; __atomic_load_n(&c->running, __ATOMIC_ACQUIRE); n++)
        if (write_set(c->db, n) != IQDB_OK) __atomic_fetch_add(&c->problems, 1, __ATOMIC_RELAXED);
    return NULL;
}

static void *read_sets(void *argument) {
    crowd *c = (crowd *)argument;
    uint64_t random = (uint64_t)(uintptr_t)&random;
    for (size_t round = 0; round < support_amount(40, 400, 5000); round++) {
        float probe[SET_DIM];
        iqdb_hit hits[SET];
        iqdb_record record;
        uint64_t memory[32];
        iqdb_buffer buffer = iqdb_buffer_fixed(memory, sizeof memory);
        iqdb_cursor *cursor = NULL;
        size_t count = 0, given = 0;
        bool done = false;
        for (int i = 0; i < SET_DIM; i++) probe[i] = i == 0 ? 0.0f : (float)support_random_below(&random, 31);
        const iqdb_query query = public_query(probe, SET_DIM, SET, IQDB_L2);
        bool ok = iqdb_get(c->db, 5, &buffer, &record) == IQDB_OK;
        const float before = record.vector[0];
        ok = ok && iqdb_cursor_open(c->db, &query, &cursor) == IQDB_OK;
        while (ok && !done) {
            ok = iqdb_cursor_step(cursor, (uint32_t)support_random_below(&random, 3), hits + given, SET - given + 1,
                                  &count, &done) == IQDB_OK;
            given += count;
        }
        ok = ok && given == SET;
        /* Its number follows from any hit, and then every score does. */
        float number = -1;
        for (size_t i = 0; i < given && ok; i++) {
            float sum = 0;
            for (int j = 1; j < SET_DIM; j++) {
                const float difference = (float)((hits[i].id * 7 + (uint64_t)j * 3) % 31) - probe[j];
                sum += difference * difference;
            }
            if (i == 0) number = floorf(sqrtf(fmaxf(hits[0].score * hits[0].score - sum, 0.0f)) + 0.5f);
            ok = hits[i].score == sqrtf(sum + number * number);
            if (i > 0) ok = ok && hits[i - 1].score <= hits[i].score;
        }
        iqdb_cursor_close(cursor);
        if (iqdb_get(c->db, 5, &buffer, &record) == IQDB_OK && record.vector[0] > before)
            ok = ok && number >= before && number <= record.vector[0];
        if (ok && record.vector[0] != before) __atomic_fetch_add(&c->contended, 1, __ATOMIC_RELAXED);
        if (!ok) __atomic_fetch_add(&c->problems, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&c->answers, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void *maintain_often(void *argument) {
    crowd *c = (crowd *)argument;
    bool done;
    while (__atomic_load_n(&c->running, __ATOMIC_ACQUIRE)) {
        if (iqdb_maintain(c->db, 20, &done) != IQDB_OK) __atomic_fetch_add(&c->problems, 1, __ATOMIC_RELAXED);
        usleep(200);
    }
    return NULL;
}

static void cursors_beside_a_writer(void) {
    enum {
        READERS = 3
    };
    support_heap heap;
    uint64_t ticks = 0;
    pthread_t writer, upkeep, readers[READERS];
    iqdb_options options = ticking_options(&ticks, &heap);
    crowd c;
    memset(&c, 0, sizeof c);
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &c.db), IQDB_OK);
    CHECK_EQ_INT(write_set(c.db, 0), IQDB_OK);
    c.running = 1;
    CHECK_EQ_INT(pthread_create(&writer, NULL, write_sets, &c), 0);
    CHECK_EQ_INT(pthread_create(&upkeep, NULL, maintain_often, &c), 0);
    for (int i = 0; i < READERS; i++) CHECK_EQ_INT(pthread_create(&readers[i], NULL, read_sets, &c), 0);
    for (int i = 0; i < READERS; i++) pthread_join(readers[i], NULL);
    __atomic_store_n(&c.running, 0, __ATOMIC_RELEASE);
    pthread_join(writer, NULL);
    pthread_join(upkeep, NULL);
    printf(" %zu answers, %zu beside writes ...", c.answers, c.contended);
    CHECK_EQ_U64(c.problems, 0);
    CHECK_EQ_INT(iqdb_close(c.db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}
#else
static void a_cancel_from_another_thread(void) { TEST_SKIP("built without threads"); }
static void cursors_beside_a_writer(void) { TEST_SKIP("built without threads"); }
#endif

/* ---- Maintenance ---- */

static void maintenance_gives_back_in_slices(void) {
    enum {
        COUNT = 5000
    };
    support_heap heap;
    uint64_t ticks = 0;
    iqdb_options options = ticking_options(&ticks, &heap);
    iqdb *db = NULL;
    iqdb_stats stats;
    bool done = false;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_maintain(db, 0, &done), IQDB_OK);
    CHECK(done);
    for (uint64_t id = 0; id < COUNT; id++) CHECK_EQ_INT(public_store(db, id, 1), IQDB_OK);
    for (uint32_t budget = 0; budget < 12; budget++) {
        size_t steps = 0;
        iqdb_iter iter = iqdb_iter_begin(db, NULL);
        for (uint64_t id = 0; id < COUNT; id++) CHECK_EQ_INT(public_store(db, id, 1 + 3 * budget), IQDB_OK);
        CHECK_EQ_INT(iqdb_maintain(db, 1000, &done), IQDB_OK); /* what is seen is kept */
        CHECK(done);
        CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
        CHECK_EQ_U64(stats.retired_rows, COUNT);
        while (steps < 100 && iqdb_iter_next(&iter)) steps++;
        CHECK(steps == 100);
        iqdb_iter_end(&iter);
        for (steps = 0, done = false; !done; steps++) {
            CHECK_EQ_INT(iqdb_maintain(db, budget, &done), IQDB_OK);     /* iqdb_stat would do it all */
            if (steps == 3) CHECK(public_holds(db, 77, 1 + 3 * budget)); /* calls between the slices */
        }
        CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
        CHECK(stats.retired_rows == 0 && stats.retired_bytes == 0);
        CHECK(steps >= COUNT / 64 / (size_t)(budget + 1) && steps <= COUNT / 32 + 3 + COUNT / 512); /* codes */
        for (uint64_t id = 0; id < COUNT; id += 71) CHECK(public_holds(db, id, 1 + 3 * budget));
    }
    CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_DEFAULT, NULL, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* On disk it leaves one note of what is durable, and no checkpoint; what may not be written is left alone. */
static void maintenance_on_disk(void) {
    char folder[SUPPORT_PATH_MAX];
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL;
    bool done = false;
    support_directory(folder);
    options.sync = IQDB_SYNC_EACH;
    options.files = public_quick_files();
    CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
    for (uint64_t id = 0; id < 50; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
    const uint64_t written = digest_directory(folder);
    CHECK_EQ_INT(iqdb_maintain(db, 1000000, &done), IQDB_OK);
    const uint64_t noted = digest_directory(folder);
    CHECK(done && noted != written);
    CHECK_EQ_INT(iqdb_maintain(db, 1000000, &done), IQDB_OK);
    CHECK(done && digest_directory(folder) == noted);
    CHECK_EQ_U64(public_find(folder, "snap-", NULL), 0);
    CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_DEFAULT, NULL, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    options.read_only = true;
    CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
    const uint64_t closed = digest_directory(folder);
    CHECK_EQ_INT(iqdb_maintain(db, 0, &done), IQDB_OK);
    CHECK(done && digest_directory(folder) == closed);
    for (uint64_t id = 0; id < 50; id++) CHECK(public_holds(db, id, id));
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
}

TEST_MAIN("api/cursor", TEST(any_slicing_gives_the_answer_of_one_call), TEST(a_unit_is_small),
          TEST(the_clock_of_the_system), TEST(bad_input), TEST(without_memory), TEST(from_inside_a_callback),
          TEST(warm_cursors_allocate_nothing), TEST(abandoned_cursors_are_bounded),
          TEST(a_deadline_leaves_the_best_so_far), TEST(a_deadline_of_a_batch),
          TEST(a_cancel_ends_what_it_was_given_to), TEST(a_cancel_from_another_thread), TEST(cursors_beside_a_writer),
          TEST(maintenance_gives_back_in_slices), TEST(maintenance_on_disk))
