/* Lists, and the graph, against the same records without an index: every hit a record that is there with the score of a scan, as many hits
 * as match, every record found by its own vector; after any mix of writes, whatever the vectors are. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"
#include "vectors.h"

#include <pthread.h>

enum {
    DIM_MAX = 96,
    K_MAX = 400,
    IDS = 3000
};

static iqdb *listed, *plain;
static iqdb_index index_of = IQDB_INDEX_IVF;
static uint32_t dim;
static int kind;
static uint64_t seed, retired_max;
static bool with_keys;

static void open_both(iqdb_metric metric, uint32_t nlist) {
    iqdb_options options = iqdb_options_default();
    options.metric = metric;
    options.index = IQDB_INDEX_FLAT;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &plain), IQDB_OK);
    options.index = index_of;
    options.nlist = nlist;
    options.m = nlist == 0 ? 0 : 3 + nlist % 16;
    options.retired_max = retired_max;
    const iqdb_index_key few = {"few", IQDB_KEY_HASH};
    options.index_keys = &few;
    options.index_key_count = with_keys;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &listed), IQDB_OK);
}

static void close_both(void) {
    CHECK_EQ_INT(iqdb_close(listed), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(plain), IQDB_OK);
}

static void put_both(uint64_t id, uint64_t version) {
    static float vector[DIM_MAX];
    const iqdb_field fields[2] = {public_field("few", iqdb_int((int64_t)(id % 50))),
                                  public_field("g", iqdb_int((int64_t)(id % 7)))};
    vectors_row(vector, dim, kind, seed, id + version * 1000000);
    iqdb_record record = public_record(id, vector, dim);
    record.fields = fields;
    record.field_count = 2;
    CHECK_EQ_INT(iqdb_upsert(listed, &record), IQDB_OK);
    CHECK_EQ_INT(iqdb_upsert(plain, &record), IQDB_OK);
}

static void settle(void) {
    bool done = false;
    for (int i = 0; i < 10000 && !done; i++) CHECK_EQ_INT(iqdb_maintain(listed, 10000, &done), IQDB_OK);
    CHECK(done);
}

static void verify(void) { CHECK_EQ_INT(iqdb_verify(listed, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK); }

/* The hits of both, of which those of the lists may be worse, but no other records, and with no other scores; `good`
 * counts those that are as good. */
static size_t good;
static void compare(const iqdb_query *asked, bool exact) {
    static iqdb_hit hits[K_MAX], expected[K_MAX];
    size_t count, expected_count;
    iqdb_search_info info;
    iqdb_query query = *asked;
    query.info = &info;
    CHECK_EQ_INT(iqdb_search(plain, &query, expected, &expected_count), IQDB_OK);
    if (exact) query.flags |= IQDB_EXACT;
    CHECK_EQ_INT(iqdb_search(listed, &query, hits, &count), IQDB_OK);
    CHECK_EQ_U64(count, expected_count);
    CHECK(info.complete);
    CHECK(info.exact == (info.plan != IQDB_PLAN_LISTS && info.plan != IQDB_PLAN_GRAPH));
    if (exact) CHECK(info.exact);
    for (size_t i = 0; i < count; i++) {
        iqdb_hit alone[1];
        size_t alone_count;
        iqdb_query one = *asked;
        if (exact) CHECK_EQ_U64(hits[i].id, expected[i].id);
        CHECK(i == 0 || hits[i].score > hits[i - 1].score ||
              (hits[i].score == hits[i - 1].score && hits[i].id > hits[i - 1].id));
        one.ids = &hits[i].id;
        one.id_count = 1;
        one.k = 1;
        CHECK_EQ_INT(iqdb_search(plain, &one, alone, &alone_count), IQDB_OK);
        CHECK_EQ_U64(alone_count, 1);
        CHECK_EQ_F32(alone[0].score, hits[i].score);
        good += hits[i].score <= expected[expected_count - 1].score;
    }
}

static void ask(uint64_t *random, uint64_t ids) {
    static float vector[DIM_MAX];
    const iqdb_value three = iqdb_int(3);
    const iqdb_filter filter = iqdb_eq("g", three);
    static const size_t ks[] = {1, 10, 100, K_MAX};
    vectors_row(vector, dim, kind, seed, support_random_below(random, ids) + 1000000 * support_random_below(random, 3));
    iqdb_query query = public_query(vector, dim, ks[support_random_below(random, 4)], IQDB_METRIC_DEFAULT);
    const int what = (int)support_random_below(random, 6);
    if (what == 1) query.filter = &filter;
    if (what == 2) query.nprobe = query.ef = 1;
    if (what == 3) query.nprobe = query.ef = 1000000;
    compare(&query, what == 4);
    if (what != 5) return;
    iqdb_hit hit;
    size_t count;
    query.k = 1;
    CHECK_EQ_INT(iqdb_search(plain, &query, &hit, &count), IQDB_OK);
    if (count == 0) return;
    query.flags = IQDB_AFTER;
    query.after = hit;
    query.k = 10;
    compare(&query, false);
    query.flags = IQDB_MAX_DISTANCE;
    query.max_distance = hit.score;
    compare(&query, false);
}

/* Everything that is there finds itself, or something as near. */
static void find_all(uint64_t ids) {
    static float vector[DIM_MAX];
    for (uint64_t id = 0; id < ids; id++) {
        uint64_t bytes[DIM_MAX * 2];
        iqdb_buffer buffer = iqdb_buffer_fixed(bytes, sizeof bytes);
        iqdb_record record;
        iqdb_hit hit, best;
        size_t count;
        if (!iqdb_contains(listed, id)) continue;
        CHECK_EQ_INT(iqdb_get(listed, id, &buffer, &record), IQDB_OK);
        memcpy(vector, record.vector, dim * sizeof(float));
        iqdb_query query = public_query(vector, dim, 1, IQDB_METRIC_DEFAULT);
        query.nprobe = query.ef = 1000;
        CHECK_EQ_INT(iqdb_search(listed, &query, &hit, &count), IQDB_OK);
        CHECK_EQ_U64(count, 1);
        CHECK_EQ_INT(iqdb_search(plain, &query, &best, &count), IQDB_OK);
        CHECK_EQ_F32(hit.score, best.score);
    }
}

static void random_writes(iqdb_metric metric, int which_kind, uint32_t nlist, size_t rounds) {
    uint64_t random = 5 + (uint64_t)which_kind + (uint64_t)metric * 100;
    kind = which_kind;
    seed = random;
    dim = which_kind % 2 == 0 ? 24 : 61;
    open_both(metric, nlist);
    for (size_t round = 0; round < rounds; round++) {
        const size_t count = support_random_below(&random, round < 3 ? 1500 : 200);
        for (size_t i = 0; i < count; i++) {
            const uint64_t id = support_random_below(&random, IDS);
            if (support_random_below(&random, 4) == 0) {
                CHECK_EQ_INT(iqdb_delete(listed, id, NULL), IQDB_OK);
                CHECK_EQ_INT(iqdb_delete(plain, id, NULL), IQDB_OK);
            } else {
                put_both(id, support_random_below(&random, 5));
            }
        }
        if (support_random_below(&random, 3) == 0) {
            bool done;
            CHECK_EQ_INT(iqdb_maintain(listed, (uint32_t)support_random_below(&random, 3000), &done), IQDB_OK);
        }
        if (round % 5 == 4) verify();
        for (int i = 0; i < 6; i++) ask(&random, IDS);
    }
    settle();
    verify();
    for (int i = 0; i < 20; i++) ask(&random, IDS);
    if (which_kind == 0 && metric != IQDB_DOT) find_all(IDS);
    for (uint64_t id = 0; id < IDS; id++) {
        CHECK_EQ_INT(iqdb_delete(listed, id, NULL), IQDB_OK);
        CHECK_EQ_INT(iqdb_delete(plain, id, NULL), IQDB_OK);
    }
    ask(&random, IDS);
    for (uint64_t id = 0; id < 200; id++) put_both(id, 1);
    settle();
    verify();
    for (int i = 0; i < 5; i++) ask(&random, IDS);
    close_both();
}

static void any_writes(void) {
    const size_t rounds = support_amount(6, 20, 60);
    const int step = (int)support_amount(3, 1, 1);
    for (int metric = IQDB_L2; metric <= IQDB_L1; metric += step) random_writes((iqdb_metric)metric, 0, 40, rounds);
    for (int i = 1; i < VECTORS_KINDS; i += step) random_writes(IQDB_L2, i, 25, support_amount(3, 8, 20));
    for (int i = 1; i < VECTORS_KINDS; i += 3 * step) random_writes(IQDB_COSINE, i, 25, support_amount(3, 8, 20));
}

/* All equal, all zero, one record, fewer records than lists, more hits than records. */
static void little_to_go_by(void) {
    static const size_t sizes[] = {1, 2, 17, 700};
    for (int metric = IQDB_L2; metric <= IQDB_L1; metric++) {
        for (int zero = 0; zero < 2; zero++) {
            for (size_t s = 0; s < 4; s++) {
                float vector[20] = {0};
                dim = 20;
                open_both((iqdb_metric)metric, 64);
                for (uint32_t j = 0; j < dim && zero == 0; j++) vector[j] = (float)j - 7.0f;
                for (size_t id = 0; id < sizes[s]; id++) {
                    CHECK_EQ_INT(public_put(listed, id, vector, dim), IQDB_OK);
                    CHECK_EQ_INT(public_put(plain, id, vector, dim), IQDB_OK);
                }
                settle();
                verify();
                iqdb_query query = public_query(vector, dim, 3, IQDB_METRIC_DEFAULT);
                compare(&query, false);
                query.k = K_MAX;
                compare(&query, false);
                memset(vector, 0, sizeof vector);
                compare(&query, false);
                for (size_t id = 0; id < sizes[s]; id += 2) {
                    CHECK_EQ_INT(iqdb_delete(listed, id, NULL), IQDB_OK);
                    CHECK_EQ_INT(iqdb_delete(plain, id, NULL), IQDB_OK);
                }
                settle();
                verify();
                compare(&query, false);
                close_both();
            }
        }
    }
}

/* For COSINE a zero vector scores 1, and its code lies nearer to any query than most others do: it takes no place of a
 * hit, however many there are; and where hits score 1 and more, it is one. */
static void zero_vectors(void) {
    enum {
        COUNT = 2000,
        ZEROS = 40,
        ASKED = 100
    };
    kind = 1;
    seed = 12;
    dim = 64;
    open_both(IQDB_COSINE, 40);
    for (uint64_t id = 0; id < COUNT; id++) put_both(id, 0);
    for (uint64_t id = COUNT; id < COUNT + ZEROS; id++) {
        const float zero[64] = {0};
        CHECK_EQ_INT(public_put(listed, id, zero, dim), IQDB_OK);
        CHECK_EQ_INT(public_put(plain, id, zero, dim), IQDB_OK);
    }
    settle();
    verify();
    good = 0;
    for (uint64_t i = 0; i < ASKED; i++) {
        float vector[64];
        vectors_row(vector, dim, kind, seed, COUNT + 1000 + i);
        if (i == 0) memset(vector, 0, sizeof vector);
        iqdb_query query = public_query(vector, dim, 10, IQDB_METRIC_DEFAULT);
        query.nprobe = query.ef = 1000;
        compare(&query, false);
        compare(&query, true);
    }
    printf("\n    %zu of %d hits", good - 10 * ASKED, 10 * ASKED);
    CHECK(good >= 20 * ASKED - 5);
    /* All but forty at an angle of more than a right one: these, and then the zeros. */
    for (uint64_t id = 0; id < COUNT; id++) {
        float vector[64];
        vectors_row(vector, dim, kind, seed, id);
        vector[0] = id < 40 ? 20.0f : -20.0f;
        CHECK_EQ_INT(public_put(listed, id, vector, dim), IQDB_OK);
        CHECK_EQ_INT(public_put(plain, id, vector, dim), IQDB_OK);
    }
    settle();
    float vector[64] = {1.0f};
    iqdb_query query = public_query(vector, dim, 60, IQDB_METRIC_DEFAULT);
    query.nprobe = query.ef = 1000;
    good = 0;
    compare(&query, false);
    CHECK_EQ_U64(good, 60);
    close_both();
}

/* Products that no f32 holds: the lists that are nearest of all are read, not passed over. */
static void infinite_products(void) {
    float vector[16];
    iqdb_hit hits[10];
    size_t count;
    dim = 16;
    open_both(IQDB_DOT, 8);
    for (uint64_t id = 0; id < 800; id++) {
        for (uint32_t j = 0; j < dim; j++) vector[j] = j == id % 8 ? 1.0f + (float)(id % 5) : 0.25f;
        for (uint32_t j = 0; j < dim && id % 8 == 3; j++) vector[j] *= 1e28f;
        CHECK_EQ_INT(public_put(listed, id, vector, dim), IQDB_OK);
        CHECK_EQ_INT(public_put(plain, id, vector, dim), IQDB_OK);
    }
    settle();
    verify();
    for (uint32_t j = 0; j < dim; j++) vector[j] = 1e18f; /* too long for codes */
    iqdb_query query = public_query(vector, dim, 10, IQDB_METRIC_DEFAULT);
    query.nprobe = 8;
    CHECK_EQ_INT(iqdb_search(plain, &query, hits, &count), IQDB_OK);
    CHECK_EQ_U64(count, 10);
    const float best = hits[9].score;
    CHECK(best < -1e38f);
    CHECK_EQ_INT(iqdb_search(listed, &query, hits, &count), IQDB_OK);
    CHECK_EQ_U64(count, 10);
    for (size_t i = 0; i < count; i++) CHECK_EQ_F32(hits[i].score, best);
    close_both();
}

static iqdb_stats facts(void) {
    iqdb_stats stats;
    memset(&stats, 0, sizeof stats);
    EXPECT(iqdb_stat(listed, &stats) == IQDB_OK);
    return stats;
}

/* What is replaced in the index while somebody reads is bounded like what is replaced of records: what came behind that
 * is found by a scan, and taken in when the reader has gone. */
static void one_reader_stays(void) {
    enum {
        FIRST = 500,
        COUNT = 3000
    };
    bool done;
    kind = 1;
    seed = 4;
    dim = 24;
    retired_max = 1 << 20;
    open_both(IQDB_L2, 12);
    retired_max = 0;
    for (uint64_t id = 0; id < FIRST; id++) put_both(id, 0);
    settle();
    const uint64_t before = facts().index_bytes;
    iqdb_iter iter = iqdb_iter_begin(listed, NULL);
    CHECK(iqdb_iter_next(&iter));
    for (uint64_t id = FIRST; id < COUNT; id++) {
        put_both(id, 0);
        if (id % 50 == 0) CHECK_EQ_INT(iqdb_maintain(listed, 1000, &done), IQDB_OK);
    }
    settle();
    verify();
    const iqdb_stats held = facts();
    printf("\n    %.1f MB, then %.1f with %.0f rows taken in", (double)before / 1e6, (double)held.index_bytes / 1e6,
           (double)held.index_rows);
    CHECK(held.index_bytes < before + 5000000);
    CHECK(held.index_rows < COUNT);
    for (uint64_t i = 0; i < 20; i++) {
        float vector[DIM_MAX];
        vectors_row(vector, dim, kind, seed, COUNT + i);
        iqdb_query query = public_query(vector, dim, 10, IQDB_METRIC_DEFAULT);
        compare(&query, false);
    }
    iqdb_iter_end(&iter);
    for (uint64_t id = 0; id < COUNT; id += 3) put_both(id, 1);
    settle();
    CHECK_EQ_U64(facts().index_rows, COUNT);
    verify();
    close_both();
}

/* The share of the ten nearest that searches find, and what these look at. */
static double recall_of(iqdb *db, int asked_kind, uint32_t effort, uint64_t *out_visited) {
    const uint64_t asked = support_amount(200, 1000, 1000);
    size_t found = 0, visited = 0;
    for (uint64_t i = 0; i < asked; i++) {
        float vector[DIM_MAX];
        iqdb_hit hits[10], best[10];
        size_t count, best_count;
        iqdb_search_info info;
        vectors_row(vector, dim, asked_kind, seed, 999000000 + i);
        iqdb_query query = public_query(vector, dim, 10, IQDB_METRIC_DEFAULT);
        query.nprobe = query.ef = effort;
        if (iqdb_search(plain, &query, best, &best_count) != IQDB_OK || best_count != 10) return 0.0;
        query.info = &info;
        if (iqdb_search(db, &query, hits, &count) != IQDB_OK || count != 10) return 0.0;
        visited += info.rows_visited;
        for (size_t j = 0; j < count; j++) found += hits[j].score <= best[9].score;
    }
    *out_visited = visited;
    return (double)found / (double)(10 * asked);
}

/* When most have gone, lists are trained of those that are left, not of the places that are empty: in the mean of some
 * seeds they are as even and as good as new ones. */
static void most_have_gone(void) {
    enum {
        COUNT = 12000,
        EACH = 16,
        SEEDS = 6
    };
    uint64_t visited, visited_fresh, longest = 0, longest_fresh = 0;
    double recall = 0.0, fresh = 0.0, wider = 0.0;
    iqdb_options options = iqdb_options_default();
    kind = 1;
    dim = 16;
    for (seed = 21; seed < 21 + SEEDS; seed++) {
        open_both(IQDB_L2, 30);
        for (uint64_t id = 0; id < COUNT; id++) put_both(id, 0);
        settle();
        for (uint64_t id = 0; id < COUNT; id++) {
            if (id % EACH == 0) continue;
            CHECK_EQ_INT(iqdb_delete(listed, id, NULL), IQDB_OK);
            CHECK_EQ_INT(iqdb_delete(plain, id, NULL), IQDB_OK);
        }
        options.index = index_of;
        options.nlist = 31;
        CHECK_EQ_INT(iqdb_reindex(listed, &options), IQDB_OK); /* made anew */
        settle();
        verify();
        longest += facts().longest_list;
        recall += recall_of(listed, kind, 6, &visited) / SEEDS;
        close_both();
        open_both(IQDB_L2, 31);
        for (uint64_t id = 0; id < COUNT; id += EACH) put_both(id, 0);
        settle();
        fresh += recall_of(listed, kind, 6, &visited_fresh) / SEEDS;
        longest_fresh += facts().longest_list;
        wider += (double)visited / (double)visited_fresh / SEEDS;
        close_both();
    }
    printf("\n    recall %.4f, longest list %.1f, of fresh ones %.4f, %.1f; rows visited %.3f x", recall,
           (double)longest / SEEDS, fresh, (double)longest_fresh / SEEDS, wider);
    CHECK(recall > fresh - 0.02);
    CHECK(longest <= longest_fresh * 5 / 4);
    CHECK(wider < 1.05);
}

/* Clustered vectors, as calibrated: at least .93 of what a scan finds, from lists. */
static void calibrated_recall(void) {
    static float vector[DIM_MAX];
    const uint64_t count = 6000;
    iqdb_search_info info;
    kind = 1;
    seed = 77;
    dim = 16;
    good = 0;
    open_both(IQDB_L2, 0);
    for (uint64_t id = 0; id < count; id++) put_both(id, 0);
    settle();
    for (uint64_t i = 0; i < 200; i++) {
        vectors_row(vector, dim, kind, seed, count + i);
        iqdb_query query = public_query(vector, dim, 10, IQDB_METRIC_DEFAULT);
        compare(&query, false);
        iqdb_hit hits[10];
        size_t found;
        query.info = &info;
        CHECK_EQ_INT(iqdb_search(listed, &query, hits, &found), IQDB_OK);
        CHECK_EQ_INT(info.plan, index_of == IQDB_INDEX_IVF ? IQDB_PLAN_LISTS : IQDB_PLAN_GRAPH);
        CHECK(info.rows_visited < count / 2);
        const size_t before = good;
        query.nprobe = query.ef = 1000;
        compare(&query, false);
        CHECK_EQ_U64(good - before, 10);
        good = before;
    }
    printf("\n    recall %.4f", (double)good / 2000);
    CHECK(good >= 1860);
    close_both();
}

/* Queries between clusters, where rows are not: what they take is remembered when there are more rows. */
static void shown_queries_count_later_too(void) {
    enum {
        SHOWN = 60
    };
    static float shown[SHOWN * 16];
    uint64_t by_rows, by_shown, later, later_by_rows;
    dim = 16;
    kind = 0;
    seed = 3;
    open_both(IQDB_L2, 60);
    for (uint64_t id = 0; id < 1500; id++) put_both(id, 0);
    settle();
    for (uint64_t i = 0; i < SHOWN; i++) vectors_row(shown + i * dim, dim, 1, seed, 777000 + i);
    CHECK_EQ_INT(iqdb_tune(listed, 0.95f, NULL, 0), IQDB_OK);
    (void)recall_of(listed, 1, 0, &by_rows);
    CHECK_EQ_INT(iqdb_tune(listed, 0.95f, shown, SHOWN), IQDB_OK);
    CHECK(recall_of(listed, 1, 0, &by_shown) > 0.9);
    CHECK(by_shown > by_rows + by_rows / 8);
    for (uint64_t id = 1500; id < 6000; id++) put_both(id, 0);
    settle();
    CHECK(recall_of(listed, 1, 0, &later) > 0.9);
    CHECK_EQ_INT(iqdb_tune(listed, 0.95f, NULL, 0), IQDB_OK);
    (void)recall_of(listed, 1, 0, &later_by_rows);
    printf("\n    rows visited: %.0f by rows, %.0f by queries; of more %.0f, %.0f", (double)by_rows, (double)by_shown,
           (double)later_by_rows, (double)later);
    CHECK(later > later_by_rows + later_by_rows / 16);
    close_both();
}

/* After ten times as many replacements as there are records, in any order, by one cluster after the other, or the oldest
 * first, the index is about as good as one that is made of these records, and looks at hardly more. Fresh lists of the
 * same records, from other seeds, differ by a point from one another. */
static void turnover(void) {
    enum {
        LIVE_MAX = 8400,
        CLUSTERS = 7
    };
    static uint64_t versions[LIVE_MAX];
    iqdb *aged;
    uint64_t random = 8, visited, visited_fresh;
    double lost = 0;
    const uint64_t live = support_amount(2100, LIVE_MAX, LIVE_MAX);
    const size_t turns = support_amount(2, 10, 10), orders = support_amount(1, 3, 3);
    const uint32_t nlist = live < LIVE_MAX ? 45 : 60;
    dim = 24;
    kind = 0;
    for (size_t order = 0; order < orders; order++) {
        seed = 5 + order;
        open_both(IQDB_L2, nlist);
        for (uint64_t id = 0; id < live; id++) put_both(id, versions[id] = 0);
        settle();
        for (uint64_t step = 0; step < turns * live; step++) {
            const uint64_t at = step % live, each = live / CLUSTERS;
            const uint64_t id = order == 0   ? support_random_below(&random, live)
                                : order == 1 ? at % each * CLUSTERS + at / each
                                             : at;
            put_both(id, versions[id] = 1 + step);
        }
        settle();
        verify();
        const uint32_t effort = index_of == IQDB_INDEX_HNSW ? 30 : 6;
        const double recall = recall_of(listed, kind, effort, &visited);
        aged = listed;
        CHECK_EQ_INT(iqdb_close(plain), IQDB_OK);
        open_both(IQDB_L2, nlist);
        for (uint64_t id = 0; id < live; id++) put_both(id, versions[id]);
        settle();
        const double fresh = recall_of(listed, kind, effort, &visited_fresh);
        printf("\n    order %zu: recall %.4f, of a fresh one %.4f, rows visited %.3f x", order, recall, fresh,
               (double)visited / (double)visited_fresh);
        CHECK(fresh > 0.85 && recall > fresh - (live < LIVE_MAX ? 0.01 : 0.005));
        lost += fresh - recall;
        /* Lists that were replaced by clusters read 1.12 times as much, and find more; a tenth is what they ought to. */
        CHECK(visited * 100 < visited_fresh * (order == 1 ? 113 : 110));
        CHECK_EQ_INT(iqdb_close(aged), IQDB_OK);
        close_both();
    }
    if (orders >= 3) CHECK(lost < (double)orders * 0.005);
}

/* So few that writes overtake the training that they make time for: what was trained of rows that have gone is made
 * again. In the mean of eight seeds the index is as good as a fresh one. */
static void turnover_of_few(void) {
    enum {
        LIVE = 2100,
        SEEDS = 8
    };
    double aged = 0.0, fresh = 0.0;
    uint64_t visited;
    dim = 24;
    kind = 0;
    for (uint64_t i = 0; i < SEEDS; i++) {
        static uint64_t versions[LIVE];
        uint64_t random = 8 + i;
        seed = 5 + i;
        open_both(IQDB_L2, 45);
        for (uint64_t id = 0; id < LIVE; id++) put_both(id, versions[id] = 0);
        settle();
        for (uint64_t step = 0; step < 10 * LIVE; step++) {
            const uint64_t id = support_random_below(&random, LIVE);
            put_both(id, versions[id] = 1 + step);
        }
        settle();
        aged += recall_of(listed, kind, 6, &visited) / (double)SEEDS;
        close_both();
        open_both(IQDB_L2, 45);
        for (uint64_t id = 0; id < LIVE; id++) put_both(id, versions[id]);
        settle();
        fresh += recall_of(listed, kind, 6, &visited) / (double)SEEDS;
        close_both();
    }
    printf("\n    recall %.4f, of fresh ones %.4f", aged, fresh);
    CHECK(aged > fresh - 0.003);
}

static void bad_arguments(void) {
    static const float bad[] = {0.0f, 1.0f, -0.5f, 2.0f, NAN};
    float vectors[12] = {0};
    iqdb *db;
    CHECK_EQ_INT(iqdb_tune(NULL, 0.9f, NULL, 0), IQDB_ERR_INVALID_ARGUMENT);
    dim = 4;
    kind = 1;
    open_both(IQDB_L2, 5);
    db = listed;
    CHECK_EQ_INT(iqdb_tune(db, 0.9f, NULL, 0), IQDB_OK); /* nothing to tune yet */
    for (uint64_t id = 0; id < 50; id++) put_both(id, 0);
    settle();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_EQ_INT(iqdb_tune(db, bad[i], NULL, 0), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_tune(db, 0.9f, vectors, 10001), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_tune(db, 0.9f, vectors, 3), IQDB_OK);
    CHECK_EQ_INT(iqdb_tune(db, 0.9f, NULL, 0), IQDB_OK);
    vectors[7] = INFINITY;
    CHECK_EQ_INT(iqdb_tune(db, 0.9f, vectors, 3), IQDB_ERR_INVALID_VECTOR);
    close_both();
}

static void bad_options(void) {
    iqdb *db;
    iqdb_options options = iqdb_options_default();
    for (int index = -1; index < 6; index++) {
        options.index = (iqdb_index)index;
        const bool known = index >= IQDB_INDEX_AUTO && index <= IQDB_INDEX_IVF;
        CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), known ? IQDB_OK : IQDB_ERR_INVALID_CONFIG);
        if (known) CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
}

/* Each allocation fails once: what is written is there all the same, or was refused. */
static void without_memory(void) {
    for (size_t fail = 1; fail < support_amount(60, 300, 600); fail++) {
        support_heap heap = support_heap_make();
        iqdb_options options = iqdb_options_default();
        float vector[8];
        bool done;
        options.index = index_of;
        options.nlist = options.m = 7;
        options.metric = IQDB_L2;
        options.allocator = support_allocator(&heap);
        iqdb *db;
        CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
        heap.fail_at = fail;
        uint64_t random = fail;
        size_t stored = 0;
        for (uint64_t id = 0; id < 200; id++) {
            for (int j = 0; j < 8; j++) vector[j] = support_random_float(&random);
            const iqdb_result result = public_put(db, id, vector, 8);
            CHECK(result == IQDB_OK || result == IQDB_ERR_NOMEM);
            stored += result == IQDB_OK;
            if (id % 50 == 49) CHECK_EQ_INT(iqdb_maintain(db, 1000000, &done), IQDB_OK);
        }
        heap.fail_at = 0;
        for (done = false; !done;) CHECK_EQ_INT(iqdb_maintain(db, 1000000, &done), IQDB_OK);
        CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
        static iqdb_hit hits[K_MAX];
        size_t count;
        const iqdb_query query = public_query(vector, 8, K_MAX, IQDB_METRIC_DEFAULT);
        CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
        CHECK_EQ_U64(count, stored);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(support_heap_problems(&heap), 0);
    }
}

/* ---- Few that an index of a key lists, of which a condition or a page leaves fewer ---- */

static bool every_seventh(const iqdb_record *record, void *user) {
    (void)user;
    return record->id % 7 == 3;
}

enum {
    FEW_PAGE = 10,
    FEW_PAGES = 5,
    FEW_PARTS = 50
};

/* Hits among one part of the records, by a filter and a condition, by pages, or by their ids, some told twice: those that
 * plain has found are added to `wanted`, of these the ones that lists have to `found`, and to by_rows whether each of the
 * few was asked for its lists, and no other record looked at. */
static void few_are_found(uint64_t turn, uint64_t many, size_t *found, size_t *wanted, uint64_t *by_rows) {
    enum {
        BY_CONDITION,
        BY_PAGES,
        BY_IDS,
        WAYS
    };
    iqdb_hit hits[FEW_PAGE], expected[FEW_PAGE * FEW_PAGES];
    iqdb_search_info info;
    float vector[DIM_MAX];
    size_t count = 0, all = 0;
    bool asked = false;
    const uint64_t way = turn % WAYS, part = turn % FEW_PARTS, few = many / FEW_PARTS;
    const iqdb_filter filter = iqdb_eq("few", iqdb_int((int64_t)part));
    uint64_t *ids = (uint64_t *)malloc((size_t)few * 2 * sizeof *ids);
    if (ids == NULL) exit(2);
    for (uint64_t i = 0; i < 2 * few; i++) ids[i] = i % few * FEW_PARTS + part;
    vectors_row(vector, dim, kind, seed, 1000000 + turn);
    iqdb_query query =
        public_query(vector, dim, way == BY_PAGES ? FEW_PAGE * FEW_PAGES : FEW_PAGE, IQDB_METRIC_DEFAULT);
    if (way == BY_CONDITION) query.predicate = every_seventh;
    if (way == BY_IDS) query.ids = ids;
    if (way == BY_IDS) query.id_count = (size_t)few; /* of the plain one, which finds the same */
    if (way != BY_IDS) query.filter = &filter;
    CHECK_EQ_INT(iqdb_search(plain, &query, expected, &all), IQDB_OK);
    CHECK_EQ_U64(all, query.k);
    query.k = FEW_PAGE;
    query.info = &info;
    if (way == BY_IDS) query.id_count += (size_t)few / 2;
    for (size_t page = 0; page < (way == BY_PAGES ? FEW_PAGES : 1); page++) {
        CHECK_EQ_INT(iqdb_search(listed, &query, hits, &count), IQDB_OK);
        CHECK_EQ_U64(count, FEW_PAGE);
        asked = asked || (info.plan == IQDB_PLAN_LISTS && info.rows_visited == (way == BY_IDS ? query.id_count : few));
        for (size_t i = 0; i < count; i++) {
            for (size_t j = 0; j < all; j++) *found += hits[i].id == expected[j].id;
            for (size_t j = 0; j < i; j++) EXPECT(hits[i].id != hits[j].id);
        }
        query.flags = IQDB_AFTER;
        query.after = hits[count - 1];
    }
    *wanted += all;
    *by_rows += asked;
    free(ids);
}

static void few_of_few(void) {
    const uint64_t many = support_amount(6000, 60000, 60000);
    size_t found = 0, wanted = 0;
    uint64_t by_rows = 0;
    kind = 1;
    seed = 12;
    dim = 16;
    with_keys = true;
    open_both(IQDB_L2, (uint32_t)(many / 100));
    with_keys = false;
    for (uint64_t id = 0; id < many; id++) put_both(id, 0);
    settle();
    for (uint64_t turn = 0; turn < 90; turn++) few_are_found(turn, many, &found, &wanted, &by_rows);
    CHECK(by_rows >= 60 || many < 60000);
    /* Some are new, in no list yet, and listed by the index of their key where they are now and where they were. */
    for (uint64_t i = 0; i < 40; i++) put_both(i * 7 % 60 * (many / 60), 1);
    for (uint64_t turn = 0; turn < 60; turn++) few_are_found(turn, many, &found, &wanted, &by_rows);
    if (!EXPECT(found * 10 >= wanted * 9)) printf("\n      %zu of %zu", found, wanted);
    close_both();
}

/* ---- Readers beside a writer ---- */

static volatile int stopped;

/* The first hundred records stay as they are: each must be found, and once, whatever is done to the others; every other
 * time among those few that an index of a key lists, where that knows them. */
static void *read_beside(void *failures) {
    size_t *bad = (size_t *)failures, turn = 0;
    uint64_t random = (uint64_t)(uintptr_t)failures;
    while (!__atomic_load_n(&stopped, __ATOMIC_ACQUIRE)) {
        static const uint32_t dim_of = 24;
        float vector[24];
        iqdb_hit hits[20];
        size_t count, seen = 0;
        const uint64_t id = support_random_below(&random, 100);
        const bool filtered = ++turn % 2 == 0;
        const iqdb_filter filter = iqdb_eq("few", iqdb_int((int64_t)(id % 50)));
        vectors_row(vector, dim_of, 1, 9, id);
        iqdb_query query = public_query(vector, dim_of, filtered ? 2 : 20, IQDB_METRIC_DEFAULT);
        if (filtered) query.filter = &filter;
        if (iqdb_search(listed, &query, hits, &count) != IQDB_OK || count != query.k) ++*bad;
        for (size_t i = 0; i < count; i++) *bad += filtered && hits[i].id % 50 != id % 50;
        for (size_t i = 0; i < count; i++) seen += hits[i].id == id;
        for (size_t i = 1; i < count; i++)
            for (size_t j = 0; j < i; j++) *bad += hits[i].id == hits[j].id;
        if (seen != 1) ++*bad;
    }
    return NULL;
}

static void readers_beside_a_writer(void) {
    pthread_t threads[2];
    size_t failures[2] = {0, 0};
    uint64_t random = 4;
    kind = 1;
    seed = 9;
    dim = 24;
    stopped = 0;
    with_keys = true;
    open_both(IQDB_L2, 30);
    with_keys = false;
    for (uint64_t id = 0; id < 600; id++) put_both(id, 0);
    for (int i = 0; i < 2; i++) CHECK_EQ_INT(pthread_create(&threads[i], NULL, read_beside, &failures[i]), 0);
    for (size_t i = 0; i < support_amount(2000, 20000, 100000); i++) {
        const uint64_t id = 100 + support_random_below(&random, 2000);
        bool done;
        if (i % 3 == 0) {
            CHECK_EQ_INT(iqdb_delete(listed, id, NULL), IQDB_OK);
            CHECK_EQ_INT(iqdb_delete(plain, id, NULL), IQDB_OK);
        } else {
            put_both(id, 1 + i % 7);
        }
        if (i % 100 == 0) CHECK_EQ_INT(iqdb_maintain(listed, 200, &done), IQDB_OK);
    }
    __atomic_store_n(&stopped, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < 2; i++) CHECK_EQ_INT(pthread_join(threads[i], NULL), 0);
    CHECK_EQ_U64(failures[0] + failures[1], 0);
    settle();
    verify();
    close_both();
}

/* All of it for the graph. */
static void with_graph(void (*test_fn)(void)) {
    index_of = IQDB_INDEX_HNSW;
    test_fn();
    index_of = IQDB_INDEX_IVF;
}
static void graph_of_little(void) { with_graph(little_to_go_by); }
static void graph_beside_one_reader(void) { with_graph(one_reader_stays); }
static void graph_of_zero_vectors(void) { with_graph(zero_vectors); }
static void graph_recall(void) { with_graph(calibrated_recall); }
static void graph_shown_queries(void) { with_graph(shown_queries_count_later_too); }
static void graph_turnover(void) { with_graph(turnover); }
static void graph_arguments(void) { with_graph(bad_arguments); }
static void graph_after_any_writes(void) { with_graph(any_writes); }
static void graph_without_memory(void) { with_graph(without_memory); }
static void graph_readers_beside_a_writer(void) { with_graph(readers_beside_a_writer); }

TEST_MAIN("api/index", TEST(bad_options), TEST(bad_arguments), TEST(little_to_go_by), TEST(calibrated_recall),
          TEST(shown_queries_count_later_too), TEST(turnover), TEST(turnover_of_few), TEST(graph_shown_queries),
          TEST(graph_turnover), TEST(any_writes), TEST(without_memory), TEST(readers_beside_a_writer),
          TEST(graph_of_little), TEST(most_have_gone), TEST(few_of_few), TEST(one_reader_stays),
          TEST(graph_beside_one_reader), TEST(infinite_products), TEST(zero_vectors), TEST(graph_of_zero_vectors),
          TEST(graph_recall), TEST(graph_arguments), TEST(graph_after_any_writes), TEST(graph_without_memory),
          TEST(graph_readers_beside_a_writer))
