/* Iteration: the records as they stood at begin, whatever the loop or anybody else does meanwhile. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

#include <pthread.h>

enum {
    MOST = 2000
};

/* What an iterator must see: seen[id] counts, versions[id] is what it was at begin (-1: not there). */
typedef struct expectation {
    int64_t versions[MOST];
    int seen[MOST];
    size_t count;
} expectation;

static void expect_nothing(expectation *e) {
    memset(e, 0, sizeof *e);
    for (size_t i = 0; i < MOST; i++) e->versions[i] = -1;
}

static int put(iqdb *db, expectation *e, uint64_t id, uint64_t version) {
    if (!EXPECT(public_store(db, id, version) == IQDB_OK)) return 0;
    if (e != NULL) {
        if (e->versions[id] < 0) e->count++;
        e->versions[id] = (int64_t)version;
    }
    return 1;
}

static int drop(iqdb *db, expectation *e, uint64_t id) {
    bool removed = false;
    if (!EXPECT(iqdb_delete(db, id, &removed) == IQDB_OK)) return 0;
    if (e != NULL) {
        if (!EXPECT(removed == (e->versions[id] >= 0))) return 0;
        if (removed) e->count--;
        e->versions[id] = -1;
    }
    return 1;
}

/* The current record of the iterator is one that is expected, and for the first time. */
static int expected_one(expectation *e, const iqdb_iter *iter) {
    const iqdb_record *record = &iter->record;
    float vector[PUBLIC_DIM];
    if (!EXPECT(record->id < MOST) || !EXPECT(e->versions[record->id] >= 0) || !EXPECT(e->seen[record->id]++ == 0)) {
        printf("\n      ... id %" PRIu64, record->id);
        return 0;
    }
    const uint64_t version = (uint64_t)e->versions[record->id];
    public_vector(record->id, version, vector);
    return EXPECT(record->dim == PUBLIC_DIM) && EXPECT(memcmp(record->vector, vector, sizeof vector) == 0) &&
           EXPECT(iqdb_payload_int(record->payload, "version", -1) == (version % 3 == 0 ? -1 : (int64_t)version)) &&
           EXPECT((record->payload.bytes == NULL) == (version % 3 == 0));
}

static int runs_to_the_end(iqdb_iter *iter, expectation *e, size_t already) {
    size_t count = already;
    while (iqdb_iter_next(iter)) {
        if (!expected_one(e, iter)) return 0;
        count++;
    }
    return EXPECT(iter->result == IQDB_OK) && EXPECT(count == e->count) && EXPECT(!iqdb_iter_next(iter));
}

static iqdb *open_memory(support_heap *heap) {
    iqdb *db = NULL;
    iqdb_options options = iqdb_options_default();
    if (heap != NULL) options.allocator = support_allocator(heap);
    EXPECT(iqdb_open_in_memory(&options, &db) == IQDB_OK);
    return db;
}

static expectation e, other;

static void nothing_to_see(void) {
    iqdb *db = open_memory(NULL);
    CHECK(db != NULL);
    expect_nothing(&e);
    for (int round = 0; round < 2; round++) {
        iqdb_iter iter = iqdb_iter_begin(db, NULL);
        CHECK_EQ_INT(iter.result, IQDB_OK);
        CHECK(runs_to_the_end(&iter, &e, 0));
        iqdb_iter_end(&iter);
        CHECK(put(db, NULL, 1, 1) && drop(db, NULL, 1));
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static void every_record_once(void) {
    support_heap heap = support_heap_make();
    iqdb *db = open_memory(&heap);
    CHECK(db != NULL);
    expect_nothing(&e);
    for (uint64_t id = 0; id < 1500; id++) {
        CHECK(put(db, &e, id, id));
        if (id % 100 == 99) {
            memset(e.seen, 0, sizeof e.seen);
            iqdb_iter iter = iqdb_iter_begin(db, NULL);
            CHECK(runs_to_the_end(&iter, &e, 0));
            iqdb_iter_end(&iter);
        }
    }
    for (uint64_t id = 0; id < 1500; id++) {
        if (id % 3 == 0) CHECK(drop(db, &e, id));
        if (id % 7 == 0) CHECK(put(db, &e, id, id + 1));
    }
    memset(e.seen, 0, sizeof e.seen);
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    CHECK(runs_to_the_end(&iter, &e, 0));
    iqdb_iter_end(&iter);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
}

/* Writes between begin and the end are not seen, wherever in the loop they are made. */
static void writes_meanwhile_are_not_seen(void) {
    for (int when = 0; when < 60; when += 7) {
        support_heap heap = support_heap_make();
        iqdb *db = open_memory(&heap);
        CHECK(db != NULL);
        expect_nothing(&e);
        for (uint64_t id = 0; id < 50; id++) CHECK(put(db, &e, id, id));
        other = e;
        iqdb_iter iter = iqdb_iter_begin(db, NULL);
        size_t count = 0;
        do {
            if ((int)count != when && !(when > 50 && count == 50)) continue;
            for (uint64_t id = 0; id < 50; id += 2) CHECK(drop(db, &other, id));
            for (uint64_t id = 1; id < 50; id += 4) CHECK(put(db, &other, id, id + 1000));
            for (uint64_t id = 0; id < 50; id += 6)
                CHECK(put(db, &other, id, id + 2000)); /* deleted, and again there */
            for (uint64_t id = 50; id < 90; id++) CHECK(put(db, &other, id, id));
            CHECK_EQ_U64(iqdb_len(db), other.count);
        } while (iqdb_iter_next(&iter) && expected_one(&e, &iter) && ++count > 0);
        CHECK_EQ_U64(count, 50);
        CHECK_EQ_INT(iter.result, IQDB_OK);
        iqdb_iter_end(&iter);
        iqdb_iter fresh = iqdb_iter_begin(db, NULL);
        CHECK(runs_to_the_end(&fresh, &other, 0));
        iqdb_iter_end(&fresh);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_U64(support_heap_problems(&heap), 0);
    }
}

/* The loop deletes, replaces and reads what it stands on; its record stays valid until the next step. */
static void a_loop_that_writes(void) {
    iqdb *db = open_memory(NULL);
    CHECK(db != NULL);
    expect_nothing(&e);
    for (uint64_t id = 0; id < 300; id++) CHECK(put(db, &e, id, id));
    size_t count = 0;
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    while (iqdb_iter_next(&iter)) {
        const uint64_t id = iter.record.id;
        const uint64_t digest = digest_record(&iter.record);
        CHECK(public_holds(db, id, id)); /* nobody has touched this one yet */
        if (id % 3 == 0) CHECK(drop(db, NULL, id));
        if (id % 3 == 1) CHECK(put(db, NULL, id, id + 1));
        if (id % 3 == 2) CHECK(put(db, NULL, id + 1000, id)); /* grows for as long as it runs, and still ends */
        iqdb_hit hit;
        size_t found = 0;
        const iqdb_query query = public_query(iter.record.vector, 0, 1, IQDB_L2);
        CHECK_EQ_INT(iqdb_search(db, &query, &hit, &found), IQDB_OK);
        CHECK_EQ_U64(digest_record(&iter.record), digest);
        CHECK(expected_one(&e, &iter));
        count++;
    }
    CHECK_EQ_U64(count, 300);
    CHECK_EQ_INT(iter.result, IQDB_OK);
    iqdb_iter_end(&iter);
    CHECK_EQ_U64(iqdb_len(db), 300);
    for (uint64_t id = 0; id < 300; id++) {
        if (id % 3 == 0) CHECK(!iqdb_contains(db, id));
        if (id % 3 == 1) CHECK(public_holds(db, id, id + 1));
        if (id % 3 == 2) CHECK(public_holds(db, id, id) && public_holds(db, id + 1000, id));
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static void deleting_everything_in_a_loop(void) {
    support_heap heap = support_heap_make();
    iqdb *db = open_memory(&heap);
    CHECK(db != NULL);
    for (int round = 0; round < 5; round++) {
        for (uint64_t id = 0; id < 400; id++) CHECK(put(db, NULL, id, id + (uint64_t)round));
        iqdb_iter iter = iqdb_iter_begin(db, NULL);
        while (iqdb_iter_next(&iter)) CHECK_EQ_INT(iqdb_delete(db, iter.record.id, NULL), IQDB_OK);
        CHECK_EQ_INT(iter.result, IQDB_OK);
        iqdb_iter_end(&iter);
        CHECK(iqdb_is_empty(db));
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
}

static void ending_early(void) {
    support_heap heap = support_heap_make();
    iqdb *db = open_memory(&heap);
    CHECK(db != NULL);
    for (uint64_t id = 0; id < 100; id++) CHECK(put(db, NULL, id, id));
    for (int steps = 0; steps <= 101; steps += 5) {
        int made = 0;
        iqdb_iter iter = iqdb_iter_begin(db, NULL);
        while (made < steps && iqdb_iter_next(&iter)) made++;
        CHECK_EQ_INT(iter.result, IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_ERR_BUSY); /* until it is ended */
        iqdb_iter_end(&iter);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
}

/* Iterators begun at different times, stepped in turns, ended in another order. */
static void several_at_once(void) {
    enum {
        ITERATORS = 20
    };
    static expectation snapshots[ITERATORS];
    iqdb_iter iters[ITERATORS];
    size_t counts[ITERATORS];
    uint64_t state = 33;
    support_heap heap = support_heap_make();
    iqdb *db = open_memory(&heap);
    CHECK(db != NULL);
    expect_nothing(&e);
    for (int i = 0; i < ITERATORS; i++) {
        for (int write = 0; write < 30; write++) {
            const uint64_t id = support_random_below(&state, 120);
            if (support_random_below(&state, 3) == 0)
                CHECK(drop(db, &e, id));
            else
                CHECK(put(db, &e, id, support_random_below(&state, 1000)));
        }
        snapshots[i] = e;
        counts[i] = 0;
        iters[i] = iqdb_iter_begin(db, NULL); /* assigned once, never copied */
        for (int before = 0; before <= i; before++) {
            if (iqdb_iter_next(&iters[before])) {
                CHECK(expected_one(&snapshots[before], &iters[before]));
                counts[before]++;
            }
        }
    }
    for (int i = 0; i < ITERATORS; i++) {
        const int which = i * 7 % ITERATORS; /* every one, in another order */
        CHECK(runs_to_the_end(&iters[which], &snapshots[which], counts[which]));
        CHECK_EQ_INT(iqdb_close(db), IQDB_ERR_BUSY);
        iqdb_iter_end(&iters[which]);
    }
    iqdb_stats stats;
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    CHECK_EQ_U64(stats.records, e.count);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
}

/* Rows that only an iterator still sees are told by the statistics, and given back once it has ended. */
static void retired_rows_are_told_and_given_back(void) {
    iqdb *db = open_memory(NULL);
    iqdb_stats stats;
    CHECK(db != NULL);
    for (uint64_t id = 0; id < 100; id++) CHECK(put(db, NULL, id, id));
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    for (uint64_t id = 0; id < 100; id++) CHECK(put(db, NULL, id, id + 1));
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    CHECK_EQ_U64(stats.retired_rows, 100);
    CHECK_EQ_U64(stats.records, 100);
    iqdb_iter_end(&iter);
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    const uint64_t vector_bytes = stats.vector_bytes, payload_bytes = stats.payload_bytes;
    for (uint64_t round = 0; round < 200; round++) /* and room is used again: no growth without end */
        for (uint64_t id = 0; id < 100; id++) CHECK(put(db, NULL, id, id + round));
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    CHECK(stats.vector_bytes <= vector_bytes * 8);
    CHECK(stats.payload_bytes <= payload_bytes * 8);
    CHECK_EQ_U64(stats.retired_rows, 0); /* nobody looks at them */
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static void a_filter_that_cannot_be_answered_is_refused(void) {
    iqdb *db = open_memory(NULL);
    CHECK(db != NULL);
    CHECK(put(db, NULL, 1, 1));
    const iqdb_filter nothing = iqdb_exists(NULL);
    iqdb_iter iter = iqdb_iter_begin(db, &nothing);
    CHECK_EQ_INT(iter.result, IQDB_ERR_INVALID_FILTER);
    CHECK(!iqdb_iter_next(&iter));
    CHECK_EQ_INT(iter.result, IQDB_ERR_INVALID_FILTER);
    iqdb_iter_end(&iter);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK); /* it held nothing */
}

static void on_disk_through_checkpoints(void) {
    char folder[SUPPORT_PATH_MAX];
    iqdb *db = NULL;
    support_directory(folder);
    CHECK_EQ_INT(iqdb_open(folder, NULL, &db), IQDB_OK);
    expect_nothing(&e);
    for (uint64_t id = 0; id < 200; id++) CHECK(put(db, &e, id, id));
    other = e;
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    size_t count = 0;
    while (iqdb_iter_next(&iter)) {
        CHECK(expected_one(&e, &iter));
        if (count % 40 == 0) CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        CHECK(put(db, &other, count, count + 5));
        if (count % 2 == 0) CHECK(drop(db, &other, count));
        count++;
    }
    CHECK_EQ_U64(count, 200);
    iqdb_iter_end(&iter);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(folder, NULL, &db), IQDB_OK);
    iqdb_iter fresh = iqdb_iter_begin(db, NULL);
    CHECK(runs_to_the_end(&fresh, &other, 0));
    iqdb_iter_end(&fresh);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
}

#ifndef IQDB_NO_THREADS
typedef struct worker {
    iqdb *db;
    int stop;
    int problems;
    long loops;
} worker;

/* The writer keeps sums: it only ever moves one unit from a record to another, in one batch. */
static void *move_units(void *argument) {
    worker *w = (worker *)argument;
    int64_t units[10];
    uint64_t state = 5;
    for (int i = 0; i < 10; i++) units[i] = 10;
    while (!__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE)) {
        const size_t from = (size_t)support_random_below(&state, 10), to = (size_t)support_random_below(&state, 10);
        const float vector[1] = {1};
        iqdb_record records[2];
        iqdb_field fields[2];
        units[from]--;
        units[to]++;
        fields[0] = public_field("units", iqdb_int(units[from]));
        fields[1] = public_field("units", iqdb_int(units[to]));
        records[0] = public_record(from, vector, 1);
        records[1] = public_record(to, vector, 1);
        for (int i = 0; i < 2; i++) {
            records[i].fields = &fields[i];
            records[i].field_count = 1;
        }
        if (iqdb_upsert_batch(w->db, records, 2) != IQDB_OK) w->problems++;
        w->loops++;
    }
    return NULL;
}

static void no_half_of_a_batch_is_ever_seen(void) {
    worker w;
    pthread_t thread;
    memset(&w, 0, sizeof w);
    w.db = open_memory(NULL);
    CHECK(w.db != NULL);
    for (uint64_t id = 0; id < 10; id++) {
        const float vector[1] = {1};
        const iqdb_field field = public_field("units", iqdb_int(10));
        iqdb_record record = public_record(id, vector, 1);
        record.fields = &field;
        record.field_count = 1;
        CHECK_EQ_INT(iqdb_upsert(w.db, &record), IQDB_OK);
    }
    CHECK_EQ_INT(pthread_create(&thread, NULL, move_units, &w), 0);
    iqdb_buffer buffer = iqdb_buffer_default();
    for (size_t round = 0; round < support_amount(200, 3000, 20000); round++) {
        int64_t sum = 0;
        size_t count = 0;
        if (round % 2 == 0) {
            iqdb_iter iter = iqdb_iter_begin(w.db, NULL);
            while (iqdb_iter_next(&iter)) {
                sum += iqdb_payload_int(iter.record.payload, "units", 1000);
                count++;
            }
            EXPECT(iter.result == IQDB_OK);
            iqdb_iter_end(&iter);
        } else {
            const float probe[1] = {1};
            iqdb_hit hits[20];
            iqdb_query query = public_query(probe, 1, 20, IQDB_L2);
            query.flags = IQDB_WITH_PAYLOAD;
            query.buffer = &buffer;
            EXPECT(iqdb_search(w.db, &query, hits, &count) == IQDB_OK);
            for (size_t i = 0; i < count; i++) sum += iqdb_payload_int(hits[i].payload, "units", 1000);
        }
        if (!EXPECT(count == 10) || !EXPECT(sum == 100)) break;
    }
    __atomic_store_n(&w.stop, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    iqdb_buffer_free(&buffer);
    CHECK_EQ_INT(w.problems, 0);
    CHECK_EQ_INT(iqdb_close(w.db), IQDB_OK);
}
#else
static void no_half_of_a_batch_is_ever_seen(void) { TEST_SKIP("built without threads"); }
#endif

TEST_MAIN("api/iter", TEST(nothing_to_see), TEST(every_record_once), TEST(writes_meanwhile_are_not_seen),
          TEST(a_loop_that_writes), TEST(deleting_everything_in_a_loop), TEST(ending_early), TEST(several_at_once),
          TEST(retired_rows_are_told_and_given_back), TEST(a_filter_that_cannot_be_answered_is_refused),
          TEST(on_disk_through_checkpoints), TEST(no_half_of_a_batch_is_ever_seen))
