/* The graph, where it differs from lists (test_index.c has what both keep): every record found by its own vector while the
 * first ones go, equal vectors by the thousand, filters that leave many, few or none, pages, batches, slices, groups,
 * collections, and a directory that is opened again. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"
#include "vectors.h"

enum {
    DIM = 32,
    K = 10,
    RECORDS = 3000
};

static iqdb_options graph_options(void) {
    iqdb_options options = iqdb_options_default();
    options.metric = IQDB_L2;
    options.index = IQDB_INDEX_HNSW;
    options.m = 16;
    return options;
}

static void put(iqdb *db, uint64_t id) {
    float vector[DIM];
    iqdb_field fields[2];
    vectors_row(vector, DIM, 0, 3, id);
    fields[0] = public_field("n", iqdb_int((int64_t)(id * 7919 % 1000)));
    fields[1] = public_field("part", iqdb_int((int64_t)(id % 40)));
    iqdb_record record = public_record(id, vector, DIM);
    record.fields = fields;
    record.field_count = 2;
    CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
}

static void settle(iqdb *db) {
    bool done = false;
    while (!done) CHECK_EQ_INT(iqdb_maintain(db, 100000, &done), IQDB_OK);
    CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
}

static iqdb_stats stats_of(const iqdb *db) {
    iqdb_stats stats;
    (void)EXPECT(iqdb_stat(db, &stats) == IQDB_OK);
    return stats;
}

static iqdb *filled(uint64_t count) {
    iqdb *db = NULL;
    const iqdb_options options = graph_options();
    (void)EXPECT(iqdb_open_in_memory(&options, &db) == IQDB_OK);
    for (uint64_t id = 0; id < count; id++) put(db, id);
    settle(db);
    const iqdb_stats stats = stats_of(db);
    (void)EXPECT(stats.index == IQDB_INDEX_HNSW);
    (void)EXPECT(stats.index_rows == count);
    (void)EXPECT(stats.index_lists == 0 && stats.index_bytes > count * DIM * 9);
    return db;
}

static void ask_for(const iqdb *db, const float *vector, uint64_t id) {
    iqdb_hit hit;
    size_t count;
    iqdb_search_info info;
    iqdb_query query = public_query(vector, DIM, 1, IQDB_METRIC_DEFAULT);
    query.info = &info;
    CHECK_EQ_INT(iqdb_search(db, &query, &hit, &count), IQDB_OK);
    CHECK_EQ_INT(info.plan, IQDB_PLAN_GRAPH);
    CHECK_EQ_U64(count, 1);
    CHECK_EQ_U64(hit.id, id);
}

static void find(const iqdb *db, uint64_t id) {
    float vector[DIM];
    vectors_row(vector, DIM, 0, 3, id);
    ask_for(db, vector, id);
}

/* The first records are those that walks begin with. */
static void the_first_may_go(void) {
    const uint64_t count = 600;
    iqdb *db = filled(count);
    for (uint64_t gone = 0; gone < count - 1; gone++) {
        CHECK_EQ_INT(iqdb_delete(db, gone, NULL), IQDB_OK);
        for (uint64_t id = gone + 1; id < count; id += 1 + (id * 31 + gone) % 60) find(db, id);
        if (gone % 100 == 0) settle(db);
    }
    CHECK_EQ_INT(iqdb_delete(db, count - 1, NULL), IQDB_OK);
    settle(db);
    CHECK_EQ_U64(stats_of(db).index_rows, 0);
    for (uint64_t id = 0; id < count; id++) put(db, id);
    settle(db);
    CHECK_EQ_U64(stats_of(db).index_rows, count);
    for (uint64_t id = 0; id < count; id++) find(db, id);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* Thousands of equal vectors, and others that are to be found behind them. */
static void equal_vectors_hide_nothing(void) {
    iqdb *db = filled(1000);
    float same[DIM];
    static iqdb_hit hits[2000];
    size_t count;
    for (int zero = 0; zero < 2; zero++) {
        for (int i = 0; i < DIM; i++) same[i] = zero ? 0.0f : 0.25f * (float)(i % 5);
        for (uint64_t id = 0; id < 2000; id++)
            CHECK_EQ_INT(public_put(db, 10000 + 5000 * (uint64_t)zero + id, same, DIM), IQDB_OK);
        settle(db);
        for (uint64_t id = 0; id < 1000; id += 7) find(db, id);
        iqdb_query query = public_query(same, DIM, 1500, IQDB_METRIC_DEFAULT);
        CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
        CHECK_EQ_U64(count, 1500);
        for (size_t i = 0; i < count; i++) CHECK(hits[i].score == 0.0f && hits[i].id >= 10000);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static bool has_odd_id(const iqdb_record *record, void *user) {
    (void)user;
    return record->id % 2 == 1;
}

/* The k best of an exact search, of which `out_found` are among those of the graph; as many hits, all as good as said. */
static size_t compare(const iqdb *db, const iqdb_query *asked) {
    static iqdb_hit hits[RECORDS], best[RECORDS];
    size_t count, best_count, found = 0;
    iqdb_query query = *asked;
    (void)EXPECT(iqdb_search(db, &query, hits, &count) == IQDB_OK);
    query.flags |= IQDB_EXACT;
    (void)EXPECT(iqdb_search(db, &query, best, &best_count) == IQDB_OK);
    (void)EXPECT(count == best_count);
    for (size_t i = 0, j = 0; i < count; i++) {
        while (j < best_count && best[j].id != hits[i].id && best[j].score <= hits[i].score) j++;
        if (j < best_count && best[j].id == hits[i].id) (void)EXPECT(best[j].score == hits[i].score);
        found += hits[i].score <= best[best_count - 1].score;
        if (asked->predicate != NULL) (void)EXPECT(hits[i].id % 2 == 1);
        if (asked->flags & IQDB_AFTER) (void)EXPECT(hits[i].score >= asked->after.score);
    }
    return found;
}

static void filters_leave_as_many_as_match(void) {
    static const int64_t below[] = {1000, 500, 100, 20, 3, 1, 0};
    iqdb *db = filled(RECORDS);
    for (size_t i = 0; i < sizeof below / sizeof below[0]; i++) {
        const iqdb_filter filter = iqdb_lt("n", iqdb_int(below[i]));
        size_t found = 0, all = 0, matches;
        CHECK_EQ_INT(iqdb_count(db, &filter, &matches), IQDB_OK);
        for (uint64_t q = 0; q < 40; q++) {
            float vector[DIM];
            vectors_row(vector, DIM, 0, 3, 100000 + q);
            iqdb_query query = public_query(vector, DIM, q % 8 == 0 ? 100 : K, IQDB_METRIC_DEFAULT);
            query.filter = &filter;
            if (q % 3 == 1) query.predicate = has_odd_id;
            if (q % 5 == 2) query.ef = 1;
            const size_t good = compare(db, &query);
            if (q % 5 != 2) all += query.k < matches ? query.k : matches;
            if (q % 5 != 2)
                found += query.predicate != NULL && good < query.k && matches < 2 * query.k + 20
                             ? (query.k < matches ? query.k : matches)
                             : good;
        }
        CHECK((double)found >= 0.9 * (double)all);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* Page after page, each once; within a distance; of some ids; and by another metric. */
static void the_other_conditions(void) {
    iqdb *db = filled(RECORDS);
    static uint64_t ids[RECORDS];
    float vector[DIM];
    static bool seen[RECORDS];
    iqdb_hit hits[40];
    size_t count;
    iqdb_search_info info;
    vectors_row(vector, DIM, 0, 3, 7777777);
    iqdb_query query = public_query(vector, DIM, 40, IQDB_METRIC_DEFAULT);
    query.info = &info;
    for (size_t page = 0; page < 20; page++) {
        CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
        CHECK_EQ_U64(count, 40);
        for (size_t i = 0; i < count; i++) {
            CHECK(!seen[hits[i].id] && (page == 0 || hits[i].score >= query.after.score));
            seen[hits[i].id] = true;
        }
        query.flags = IQDB_AFTER;
        query.after = hits[count - 1];
        CHECK(compare(db, &query) >= 30);
    }
    query.ef = 200;
    query.flags = IQDB_MAX_DISTANCE;
    query.max_distance = hits[5].score;
    CHECK(compare(db, &query) >= 36);
    query.max_distance = 0.01f;
    CHECK_EQ_U64(compare(db, &query), 0);
    query.flags = 0;
    for (uint64_t i = 0; i < RECORDS; i++) ids[i] = i;
    query.ids = ids;
    query.id_count = RECORDS / 2;
    CHECK(compare(db, &query) >= 32);
    query.id_count = 20;
    CHECK_EQ_U64(compare(db, &query), 20);
    query.ids = NULL;
    query.id_count = 0;
    query.metric = IQDB_COSINE;
    CHECK_EQ_U64(compare(db, &query), 40);
    query.metric = IQDB_METRIC_DEFAULT;
    query.group_by = "part";
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
    CHECK(count == 40 && info.exact);
    for (size_t i = 0; i < 40; i++)
        for (size_t j = 0; j < i; j++) CHECK(hits[i].id % 40 != hits[j].id % 40);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* A batch finds what its queries find alone, and a cursor what an exact search does; so do both with fresh rows. */
static void batches_and_slices(void) {
    iqdb *db = filled(RECORDS);
    enum {
        COUNT = 150
    };
    static float vectors[COUNT][DIM];
    static iqdb_hit hits[(size_t)COUNT * (size_t)K];
    static size_t counts[COUNT];
    for (uint64_t id = RECORDS; id < RECORDS + 20; id++) put(db, id);
    for (uint64_t i = 0; i < COUNT; i++) vectors_row(vectors[i], DIM, 0, 3, i < 20 ? RECORDS + i : 50000 + i);
    iqdb_query query = public_query(NULL, DIM, K, IQDB_METRIC_DEFAULT);
    CHECK_EQ_INT(iqdb_search_batch(db, &query, vectors, COUNT, hits, counts), IQDB_OK);
    for (size_t i = 0; i < COUNT; i++) {
        iqdb_hit alone[K];
        size_t count;
        query.vector = vectors[i];
        CHECK_EQ_INT(iqdb_search(db, &query, alone, &count), IQDB_OK);
        CHECK(count == K && counts[i] == K);
        for (size_t j = 0; j < K; j++) CHECK(alone[j].id == hits[i * K + j].id);
        if (i < 20) CHECK_EQ_U64(alone[0].id, RECORDS + i);
        iqdb_cursor *cursor = NULL;
        bool done = false;
        CHECK_EQ_INT(iqdb_cursor_open(db, &query, &cursor), IQDB_OK);
        for (count = 0; count == 0 && !done;)
            CHECK_EQ_INT(iqdb_cursor_step(cursor, 50, alone, K, &count, &done), IQDB_OK);
        iqdb_cursor_close(cursor);
        CHECK(count == K && alone[K - 1].score <= hits[i * K + K - 1].score);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static void collections_have_their_own(void) {
    iqdb *db = filled(700), *other = NULL;
    const iqdb_options options = graph_options();
    CHECK_EQ_INT(iqdb_collection(db, "other", &options, &other), IQDB_OK);
    for (uint64_t id = 1000; id < 1500; id++) put(other, id);
    settle(other);
    CHECK_EQ_U64(stats_of(other).index_rows, 500);
    CHECK_EQ_U64(stats_of(db).index_rows, 700);
    for (uint64_t id = 0; id < 500; id++) {
        find(db, id);
        find(other, 1000 + id);
    }
    CHECK_EQ_INT(iqdb_close(other), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static void a_directory_is_opened_again(void) {
    char path[SUPPORT_PATH_MAX];
    iqdb *db = NULL;
    const iqdb_options options = graph_options();
    support_directory(path);
    for (uint64_t round = 0; round < 4; round++) {
        CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
        settle(db);
        for (uint64_t id = 0; id < 200 * round; id++) find(db, id + (id < 100 * round ? 1000 : 0));
        for (uint64_t id = 0; id < 200; id++) put(db, 200 * round + id);
        for (uint64_t id = 0; id < 100; id++) CHECK_EQ_INT(iqdb_delete(db, 100 * round + id, NULL), IQDB_OK);
        for (uint64_t id = 0; id < 100; id++) put(db, 1000 + 100 * round + id);
        if (round == 1) CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        settle(db);
        CHECK_EQ_U64(stats_of(db).index_rows, 200 * (round + 1));
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
    support_remove(path);
}

/* Knobs that are out of range are the nearest ones that are in it. */
static void knobs_of_any_size(void) {
    static const uint32_t ms[] = {1, 2, 3, 16, 1000, 0xFFFFFFFFu}, beams[] = {1, 5, 0, 3000, 0xFFFFFFFFu, 0};
    for (size_t i = 0; i < sizeof ms / sizeof ms[0]; i++) {
        iqdb_options options = graph_options();
        iqdb *db = NULL;
        options.m = ms[i];
        options.ef_construction = beams[i];
        options.ef_search = beams[i];
        options.seed = i * 0x123456789u;
        CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
        for (uint64_t id = 0; id < 400; id++) put(db, id);
        settle(db);
        for (uint64_t id = 0; id < 400; id += 2) CHECK_EQ_INT(iqdb_delete(db, id, NULL), IQDB_OK);
        settle(db);
        CHECK_EQ_U64(stats_of(db).index_rows, 200);
        for (uint64_t id = 1; id < 400 && ms[i] >= 16; id += 2) find(db, id);
        float vector[DIM];
        vectors_row(vector, DIM, 0, 3, 9);
        iqdb_query query = public_query(vector, DIM, RECORDS, IQDB_METRIC_DEFAULT);
        CHECK_EQ_U64(compare(db, &query), 200);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
}

TEST_MAIN("api/graph", TEST(the_first_may_go), TEST(equal_vectors_hide_nothing), TEST(filters_leave_as_many_as_match),
          TEST(the_other_conditions), TEST(batches_and_slices), TEST(collections_have_their_own),
          TEST(a_directory_is_opened_again), TEST(knobs_of_any_size))
