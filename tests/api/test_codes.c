/* Searches through codes against the same searches of a handle that keeps none: the same ids, in the same order, with the
 * same bits in the scores, whatever is in the vectors, whatever is asked for, and whatever is written in between. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"
#include "vectors.h"

#include <pthread.h>

enum {
    ROWS_MAX = 4096,
    DIM_MAX = 2048,
    BATCH_MAX = 70
};

static iqdb *coded, *plain;
static uint32_t dim;
static int kind;
static uint64_t seed;
static uint64_t searches, through_codes, with_profit;

static void run_here(void (*task_fn)(size_t index, void *task), void *task, size_t count, void *user) {
    (void)user;
    for (size_t i = 0; i < count; i++) task_fn(count - 1 - i, task);
}

static void open_both(iqdb_metric metric, int tasks) {
    iqdb_options options = iqdb_options_default();
    options.metric = metric;
    if (tasks > 1) {
        options.parallel_for.run_fn = run_here;
        options.parallel_for.worker_count = (size_t)tasks;
    }
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &coded), IQDB_OK);
    options = iqdb_options_default();
    options.metric = metric;
    options.no_codes = true;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &plain), IQDB_OK);
}

static void close_both(void) {
    CHECK_EQ_INT(iqdb_close(coded), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(plain), IQDB_OK);
}

static void put_both(uint64_t id, uint64_t version) {
    static float vector[DIM_MAX];
    const iqdb_field field = public_field("g", iqdb_int((int64_t)(id % 7)));
    vectors_row(vector, dim, kind, seed, id + version * 1000000);
    iqdb_record record = public_record(id, vector, dim);
    record.fields = &field;
    record.field_count = 1;
    CHECK_EQ_INT(iqdb_upsert(coded, &record), IQDB_OK);
    CHECK_EQ_INT(iqdb_upsert(plain, &record), IQDB_OK);
}

static void change_both(uint64_t *random, uint64_t ids) {
    bool done;
    const size_t count = support_random_below(random, support_random_below(random, 10) == 0 ? 300 : 20);
    const int what = (int)support_random_below(random, 4);
    for (size_t i = 0; i < count; i++) {
        const uint64_t id = support_random_below(random, ids + ids / 8);
        if (what == 0 || support_random_below(random, 3) == 0) {
            CHECK_EQ_INT(iqdb_delete(coded, id, NULL), IQDB_OK);
            CHECK_EQ_INT(iqdb_delete(plain, id, NULL), IQDB_OK);
        } else {
            put_both(id, 1 + support_random_below(random, 5));
        }
    }
    if (what == 3) CHECK_EQ_INT(iqdb_maintain(coded, (uint32_t)support_random_below(random, 200), &done), IQDB_OK);
}

static bool id_is_even(const iqdb_record *record, void *user) {
    (void)user;
    return record->id % 2 == 0;
}

/* Where one does the same as the other in slices. */
static iqdb_result in_slices(const iqdb *db, const iqdb_query *query, iqdb_hit *hits, size_t *out_count) {
    iqdb_cursor *cursor;
    bool done = false;
    iqdb_result result = iqdb_cursor_open(db, query, &cursor);
    *out_count = 0;
    while (result == IQDB_OK && !done) {
        size_t count;
        result = iqdb_cursor_step(cursor, 20, hits + *out_count, 7, &count, &done);
        *out_count += count;
    }
    iqdb_cursor_close(cursor);
    return result;
}

static bool same_answer(const iqdb_query *query, const float *vectors, size_t count, bool slices) {
    static iqdb_hit ours[ROWS_MAX * 8], theirs[ROWS_MAX * 8];
    size_t found[BATCH_MAX], expected[BATCH_MAX];
    iqdb_search_info info;
    iqdb_query asked = *query;
    memset(&info, 0, sizeof info);
    asked.vector = vectors;
    bool good = EXPECT(iqdb_search_batch(plain, &asked, vectors, count, theirs, expected) == IQDB_OK);
    asked.info = &info;
    if (slices) good = good && EXPECT(in_slices(coded, &asked, ours, found) == IQDB_OK);
    if (!slices) good = good && EXPECT(iqdb_search_batch(coded, &asked, vectors, count, ours, found) == IQDB_OK);
    searches += count;
    if (info.plan == IQDB_PLAN_CODES) {
        through_codes += count;
        if (info.rows_compared * 4 < info.rows_visited * (count < 64 ? count : 32)) with_profit += count;
    }
    good = good && EXPECT(info.complete && info.exact);
    for (size_t q = 0; q < count && good; q++) {
        good = EXPECT(found[q] == expected[q]);
        for (size_t i = 0; i < found[q] && good; i++) {
            const iqdb_hit *a = &ours[q * query->k + i], *b = &theirs[q * query->k + i];
            good = EXPECT(a->id == b->id) && EXPECT(memcmp(&a->score, &b->score, sizeof a->score) == 0);
        }
    }
    return good;
}

/* A vector that is asked for: a stored one, one near that, or an `odd` one: of another kind, or nothing but zeros. */
static void make_vector(uint64_t *random, uint64_t ids, bool odd, float *vector) {
    const uint64_t near = support_random_below(random, ids), how = support_random_below(random, 12);
    vectors_row(vector, dim, how == 0 && odd ? (int)support_random_below(random, VECTORS_KINDS) : kind, seed,
                how < 4 ? near + 77777777 : near);
    for (uint32_t d = 0; d < dim && how > 6; d++) {
        const float moved = vector[d] * (1.0f + ldexpf(support_random_float(random), -(int)how));
        vector[d] = moved < 3e38f && moved > -3e38f ? moved : 1.0f;
    }
    if (how == 6 && odd) memset(vector, 0, dim * sizeof *vector);
}

static bool search_once(uint64_t *random, uint64_t ids) {
    static float vectors[BATCH_MAX * DIM_MAX];
    static uint64_t some[ROWS_MAX * 2];
    static iqdb_hit last;
    static const size_t sizes[] = {1, 1, 1, 1, 2, 5, 9, BATCH_MAX};
    const iqdb_filter filter = iqdb_le("g", iqdb_int((int64_t)support_random_below(random, 7)));
    size_t count = sizes[support_random_below(random, 8)];
    const uint64_t wish = support_random_below(random, 10);
    size_t k = wish < 4   ? 10
               : wish < 8 ? 1 + support_random_below(random, 50)
                          : 1 + support_random_below(random, ids + 5);
    const uint64_t lucky = support_random_below(random, 2 * count);
    if (dim > 300 && count > 9) count = 9;
    if (count * k > ROWS_MAX * 8) k = 10;
    for (size_t q = 0; q < count; q++) make_vector(random, ids, q == lucky, vectors + q * dim);
    iqdb_query query = public_query(NULL, dim, k, IQDB_METRIC_DEFAULT);
    if (support_random_below(random, 12) == 0) query.metric = (iqdb_metric)(1 + support_random_below(random, 4));
    if (support_random_below(random, 4) == 0) query.filter = &filter;
    if (support_random_below(random, 6) == 0) query.predicate = id_is_even;
    if (support_random_below(random, 8) == 0) query.deadline_us = 1000000000u;
    if (support_random_below(random, 4) == 0) {
        query.ids = some;
        query.id_count = support_random_below(random, support_random_below(random, 2) == 0 ? ids : ids / 8);
        for (size_t i = 0; i < query.id_count; i++) some[i] = support_random_below(random, ids + 50);
    }
    if (support_random_below(random, 5) == 0) {
        query.flags |= IQDB_MAX_DISTANCE;
        query.max_distance = last.score;
    }
    if (support_random_below(random, 5) == 0) {
        query.flags |= IQDB_AFTER;
        query.after = last;
    }
    const bool good = same_answer(&query, vectors, count, count == 1 && support_random_below(random, 6) == 0);
    if (!good)
        printf("\n      (%s, dim %u, seed %llu, k %zu, %zu vectors, metric %d, flags %u, %zu ids, %s%s)",
               vectors_kinds[kind], dim, (unsigned long long)seed, k, count, (int)query.metric, query.flags,
               query.id_count, query.filter != NULL ? "filter " : "", query.predicate != NULL ? "predicate" : "");
    /* The next ones begin where this one could have ended. */
    query.flags = 0;
    query.k = 1 + support_random_below(random, 40);
    static iqdb_hit hits[64];
    size_t found;
    query.vector = vectors;
    if (!EXPECT(iqdb_search(plain, &query, hits, &found) == IQDB_OK)) return false;
    if (found > 0) last = hits[support_random_below(random, found)];
    return good;
}

static void the_same_as_without(void) {
    static const iqdb_metric metrics[] = {IQDB_L2, IQDB_COSINE, IQDB_DOT, IQDB_COSINE, IQDB_L2, IQDB_L1};
    const size_t rounds = support_amount(4, 40, 600);
    uint64_t random = 20, lucky = 0;
    for (size_t round = 0; round < rounds; round++) {
        const uint64_t sort = support_random_below(&random, 10);
        dim = 1 + (uint32_t)support_random_below(&random, sort < 6 ? 40 : sort < 9 ? 200 : DIM_MAX);
        kind = round % 3 == 0 ? 0 : (int)support_random_below(&random, VECTORS_KINDS);
        seed = 1000 + round;
        const size_t ids = 2048 + support_random_below(&random, dim > 300 ? 200 : 1500);
        const uint64_t before = with_profit;
        open_both(metrics[support_random_below(&random, 6)], round % 4 == 1 ? 3 : 1);
        for (uint64_t id = 0; id < ids; id++) put_both(id, 0);
        for (int i = 0; i < (dim > 300 ? 20 : 100); i++) {
            CHECK(search_once(&random, ids));
            if (support_random_below(&random, 4) == 0) change_both(&random, ids);
        }
        close_both();
        lucky += with_profit > before;
    }
    printf(" %llu searches, %llu through codes, %llu of these compared less than a quarter\n   ",
           (unsigned long long)searches, (unsigned long long)through_codes, (unsigned long long)with_profit);
    CHECK(through_codes * 2 > searches && lucky * 3 > rounds);
}

/* ---- What helps ---- */

static uint64_t compared(const iqdb *db, uint64_t id) {
    static float vector[DIM_MAX];
    iqdb_hit hit;
    size_t count;
    iqdb_search_info info;
    vectors_row(vector, dim, kind, seed, id);
    iqdb_query query = public_query(vector, dim, 1, IQDB_METRIC_DEFAULT);
    query.info = &info;
    EXPECT(iqdb_search(db, &query, &hit, &count) == IQDB_OK);
    EXPECT(count == 1 && hit.id == id && info.complete && info.exact);
    EXPECT(info.plan == (db == coded ? IQDB_PLAN_CODES : IQDB_PLAN_SCAN));
    return info.rows_compared;
}

/* After anything that was written, codes are in place again: at once, but for some blocks, and by upkeep for all. */
static void codes_follow_what_is_written(void) {
    const uint64_t ids = 4000;
    bool done = false;
    uint64_t most = 0;
    dim = 48;
    kind = 0;
    seed = 5;
    open_both(IQDB_L2, 1);
    for (uint64_t id = 0; id < ids; id++) put_both(id, 0);
    const uint64_t fresh = compared(coded, 17);
    CHECK(fresh < ids / 20 && compared(plain, 17) == ids);
    for (uint64_t id = 0; id < ids; id += 3) put_both(id, 1);
    CHECK(compared(coded, 17) < fresh + ids / 4);
    for (uint64_t id = 1; id < ids; id += 9) {
        CHECK_EQ_INT(iqdb_delete(coded, id, NULL), IQDB_OK);
        CHECK_EQ_INT(iqdb_delete(plain, id, NULL), IQDB_OK);
    }
    CHECK_EQ_INT(iqdb_maintain(coded, 1000000, &done), IQDB_OK);
    CHECK(done);
    CHECK(compared(coded, 17) < fresh + ids / 20);
    /* Those that take their place are encoded too, although nothing else is deleted. */
    for (uint64_t id = 1; id < ids; id += 9) put_both(id, 2);
    CHECK_EQ_INT(iqdb_maintain(coded, 1000000, &done), IQDB_OK);
    CHECK(done);
    for (uint64_t id = 2; id < ids; id += 501) {
        const uint64_t now = compared(coded, id - id % 3 + 2);
        most = now > most ? now : most;
    }
    CHECK(most < fresh + ids / 10);
    close_both();
}

static void bad_lists_of_ids(void) {
    const float vector[2] = {1, 2};
    const uint64_t ids[3] = {5, 5, 9};
    iqdb_hit hits[3];
    size_t count = 7;
    dim = 2;
    kind = 0;
    open_both(IQDB_L2, 1);
    for (uint64_t id = 0; id < 9; id++) put_both(id, 0);
    iqdb_query query = public_query(vector, 2, 3, IQDB_METRIC_DEFAULT);
    query.id_count = 1;
    CHECK_EQ_INT(iqdb_search(coded, &query, hits, &count), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(count, 7);
    query.ids = ids;
    query.id_count = 3; /* one of them twice, one of nobody */
    CHECK_EQ_INT(iqdb_search(coded, &query, hits, &count), IQDB_OK);
    CHECK(count == 1 && hits[0].id == 5);
    query.id_count = 0;
    CHECK_EQ_INT(iqdb_search(coded, &query, hits, &count), IQDB_OK);
    CHECK_EQ_INT(count, 0);
    close_both();
}

/* What is loaded has codes as well: of a blob and of what was stored, in a snapshot and behind it. */
static void loaded_records_have_codes(void) {
    static const iqdb_metric metrics[] = {IQDB_L2, IQDB_COSINE, IQDB_DOT};
    const uint64_t ids = 2600;
    char folder[SUPPORT_PATH_MAX];
    support_directory(folder);
    dim = 30;
    kind = 0;
    for (size_t m = 0; m < 3; m++) {
        uint64_t random = m;
        seed = 60 + m;
        open_both(metrics[m], 1);
        for (uint64_t id = 0; id < ids; id++) put_both(id, 0);
        char path[SUPPORT_PATH_MAX], name[2] = {(char)('a' + m), 0};
        support_join(path, folder, name);
        CHECK_EQ_INT(iqdb_backup(coded, path), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(coded), IQDB_OK);
        for (int again = 0; again < 2; again++) {
            CHECK_EQ_INT(iqdb_open(path, NULL, &coded), IQDB_OK);
            CHECK_EQ_INT(iqdb_verify(coded, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
            const uint64_t before = with_profit;
            for (int i = 0; i < 40; i++) CHECK(search_once(&random, ids));
            CHECK(with_profit > before + 10);
            for (uint64_t id = 0; again == 0 && id < 400; id++) put_both(ids / 2 + id, 1);
            CHECK_EQ_INT(iqdb_close(coded), IQDB_OK);
        }
        CHECK_EQ_INT(iqdb_close(plain), IQDB_OK);
    }
    support_remove(folder);
}

/* ---- Readers beside a writer ---- */

enum {
    CHURN = 2600
};

static struct churn {
    iqdb *db;
    int stop;
    uint64_t seen, wrong;
} churn;

/* Most are far from the origin; `near` ones are not. */
static void churn_vector(uint64_t id, uint64_t version, bool near, float vector[32]) {
    uint64_t state = id * 77 + version;
    for (int d = 0; d < 32; d++)
        vector[d] = (near ? 0.01f : 1.0f) * support_random_float(&state) + (near ? 0.0f : 9.0f);
}

static void *churn_read(void *user) {
    const float origin[32] = {0};
    iqdb_query query = public_query(origin, 32, 5, IQDB_METRIC_DEFAULT);
    uint64_t wrong = 0;
    (void)user;
    while (__atomic_load_n(&churn.stop, __ATOMIC_ACQUIRE) == 0) {
        iqdb_hit hits[5];
        size_t count, near = 0;
        if (iqdb_search(churn.db, &query, hits, &count) != IQDB_OK) count = 0;
        while (near < count && hits[near].score < 1.0f) near++;
        __atomic_fetch_add(&churn.seen, 1, __ATOMIC_SEQ_CST);
        if (count != 5 || near != 1) wrong++;
    }
    __atomic_fetch_add(&churn.wrong, wrong, __ATOMIC_SEQ_CST);
    return NULL;
}

/* In every state that a reader may see exactly one record is near: each batch makes another one that. */
static void every_state_is_seen_whole(void) {
    pthread_t readers[2];
    const size_t batches = support_amount(300, 3000, 30000);
    float vectors[12][32];
    iqdb_record records[12];
    uint64_t near = 0, random = 3;
    bool done;
    memset(&churn, 0, sizeof churn);
    iqdb_options options = iqdb_options_default();
    options.metric = IQDB_L2;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &churn.db), IQDB_OK);
    for (uint64_t id = 0; id < CHURN; id++) {
        churn_vector(id, 0, id == 0, vectors[0]);
        CHECK_EQ_INT(public_put(churn.db, id, vectors[0], 32), IQDB_OK);
    }
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&readers[i], NULL, churn_read, NULL) == 0);
    /* On a busy machine the readers may come late. */
    for (size_t batch = 1; batch <= batches || __atomic_load_n(&churn.seen, __ATOMIC_SEQ_CST) == 0; batch++) {
        const uint64_t next = (near + 1 + support_random_below(&random, CHURN - 1)) % CHURN;
        for (uint64_t i = 0; i < 12; i++) {
            uint64_t id = i == 0 ? near : i == 1 ? next : support_random_below(&random, CHURN);
            if (i > 1 && (id == next || id == near)) id = CHURN + i;
            churn_vector(id, batch, i == 1, vectors[i]);
            records[i] = public_record(id, vectors[i], 32);
        }
        CHECK_EQ_INT(iqdb_upsert_batch(churn.db, records, 12), IQDB_OK);
        near = next;
        if (batch % 7 == 0) CHECK_EQ_INT(iqdb_maintain(churn.db, 100, &done), IQDB_OK);
        for (uint64_t i = 0; batch % 5 == 0 && i < 20; i++) {
            const uint64_t id = support_random_below(&random, CHURN);
            if (id != near) CHECK_EQ_INT(iqdb_delete(churn.db, id, NULL), IQDB_OK);
        }
    }
    __atomic_store_n(&churn.stop, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < 2; i++) pthread_join(readers[i], NULL);
    printf(" %llu searches\n   ", (unsigned long long)churn.seen);
    CHECK_EQ_U64(churn.wrong, 0);
    CHECK(churn.seen > 0);
    CHECK_EQ_INT(iqdb_close(churn.db), IQDB_OK);
}

TEST_MAIN("api/codes", TEST(bad_lists_of_ids), TEST(codes_follow_what_is_written), TEST(the_same_as_without),
          TEST(loaded_records_have_codes), TEST(every_state_is_seen_whole))
