/* iqdb_reindex: answers before, while and after, held against every record one by one; what was chosen is there again after
 * whatever brings a database back; and what it refuses. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"
#include "vectors.h"

#include <pthread.h>

enum {
    DIM = 20,
    K = 10,
    RECORDS = 3200
};

static void row_of(uint64_t id, float *vector) { vectors_row(vector, DIM, 1, 3, id); }

static iqdb_result put(iqdb *db, uint64_t id) {
    float vector[DIM];
    row_of(id, vector);
    return public_put(db, id, vector, DIM);
}

static iqdb_options choice(iqdb_index index, uint32_t nlist) {
    iqdb_options options = iqdb_options_default();
    options.metric = IQDB_L2;
    options.index = index;
    options.nlist = nlist;
    options.m = 8;
    return options;
}

static void settle(iqdb *db) {
    bool done = false;
    for (int i = 0; i < 100000 && !done; i++) CHECK_EQ_INT(iqdb_maintain(db, 10000, &done), IQDB_OK);
    CHECK(done);
}

static iqdb_stats stats_of(const iqdb *db) {
    iqdb_stats stats;
    EXPECT(iqdb_stat(db, &stats) == IQDB_OK);
    return stats;
}

/* A search whose answer is that of the definition, where it says so, and else as many hits, all of them true. */
static void ask(const iqdb *db, uint64_t id, uint64_t records, bool *out_exact) {
    static float vectors[RECORDS][DIM];
    static uint64_t known;
    float vector[DIM];
    iqdb_hit hits[K];
    iqdb_search_info info;
    size_t count;
    for (; known < records; known++) row_of(known, vectors[known]);
    row_of(id, vector);
    iqdb_query query = public_query(vector, DIM, K, IQDB_L2);
    query.info = &info;
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
    CHECK_EQ_U64(count, K);
    CHECK(info.complete);
    CHECK(hits[0].id == id && hits[0].score == 0.0f);
    for (size_t i = 1; i < count; i++) CHECK(hits[i].score >= hits[i - 1].score && hits[i].id != hits[i - 1].id);
    for (size_t i = 0; i < count; i++) {
        double sum = 0;
        CHECK(hits[i].id < records);
        for (int d = 0; d < DIM; d++) {
            const double difference = (double)vector[d] - (double)vectors[hits[i].id][d];
            sum += difference * difference;
        }
        CHECK(fabs(sqrt(sum) - (double)hits[i].score) <= 1e-5 * (1.0 + sqrt(sum)));
        for (uint64_t other = 0; info.exact && i == count - 1 && other < records; other++) {
            double closer = 0;
            bool is_hit = false;
            for (size_t j = 0; j < count; j++) is_hit = is_hit || hits[j].id == other;
            for (int d = 0; d < DIM; d++) {
                const double difference = (double)vector[d] - (double)vectors[other][d];
                closer += difference * difference;
            }
            CHECK(is_hit || sqrt(closer) >= (double)hits[i].score - 1e-5);
        }
    }
    *out_exact = info.exact;
}

static void answers_hold_throughout(void) {
    static const uint32_t nlists[] = {20, 0, 7, 0, 50, 0, 0};
    static const iqdb_index kinds[] = {IQDB_INDEX_IVF, IQDB_INDEX_FLAT, IQDB_INDEX_IVF, IQDB_INDEX_HNSW,
                                       IQDB_INDEX_IVF, IQDB_INDEX_HNSW, IQDB_INDEX_AUTO};
    iqdb_options options = choice(IQDB_INDEX_AUTO, 0);
    iqdb *db = NULL;
    uint64_t records = 0;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (; records < 1000; records++) CHECK_EQ_INT(put(db, records), IQDB_OK);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        bool exact, done = false;
        options = choice(kinds[i], nlists[i]);
        CHECK_EQ_INT(iqdb_reindex(db, &options), IQDB_OK);
        CHECK_EQ_INT(stats_of(db).index_wanted, kinds[i]);
        CHECK_EQ_U64(stats_of(db).index_rows, 0);
        ask(db, 17, records, &exact);
        CHECK(exact); /* nothing is made yet */
        for (uint64_t step = 0; step < 300; step++) {
            CHECK_EQ_INT(put(db, records++), IQDB_OK);
            if (step % 10 == 0) CHECK_EQ_INT(iqdb_maintain(db, 1, &done), IQDB_OK);
            if (step % 20 == 0) ask(db, step * 3, records, &exact);
        }
        settle(db);
        CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
        const iqdb_stats stats = stats_of(db);
        const bool is_index = kinds[i] == IQDB_INDEX_IVF || kinds[i] == IQDB_INDEX_HNSW;
        CHECK_EQ_INT(stats.index, is_index ? kinds[i] : IQDB_INDEX_FLAT);
        CHECK_EQ_U64(stats.index_rows, is_index ? records : 0);
        if (nlists[i] != 0) CHECK(stats.index_lists <= nlists[i] && stats.index_lists > nlists[i] / 3);
        if (!is_index) CHECK_EQ_U64(stats.index_bytes, 0);
        for (uint64_t id = 0; id < records; id += 97) ask(db, id, records, &exact);
        CHECK(exact == !is_index);
    }
    /* A knob of searches alone leaves the index as it is. */
    options = choice(IQDB_INDEX_IVF, 30);
    CHECK_EQ_INT(iqdb_reindex(db, &options), IQDB_OK);
    settle(db);
    options.nprobe = 1;
    CHECK_EQ_INT(iqdb_reindex(db, &options), IQDB_OK);
    CHECK_EQ_U64(stats_of(db).index_rows, records);
    iqdb_search_info few, all;
    float vector[DIM];
    iqdb_hit hits[1];
    size_t count;
    row_of(5, vector);
    iqdb_query query = public_query(vector, DIM, 1, IQDB_L2);
    query.info = &few;
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
    query.info = &all;
    query.nprobe = 30;
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
    CHECK(few.rows_visited < all.rows_visited / 4);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* While an iterator of before is there, no index takes the place of the one it may be using, and a second is refused. */
static void snapshots_keep_the_old_one(void) {
    iqdb_options options = choice(IQDB_INDEX_IVF, 10);
    iqdb *db = NULL;
    bool done, exact;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (uint64_t id = 0; id < 500; id++) CHECK_EQ_INT(put(db, id), IQDB_OK);
    settle(db);
    const uint64_t bytes = stats_of(db).index_bytes;
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    CHECK(iqdb_iter_next(&iter));
    options.nlist = 20;
    CHECK_EQ_INT(iqdb_reindex(db, &options), IQDB_OK);
    for (int i = 0; i < 20; i++) CHECK_EQ_INT(iqdb_maintain(db, 100000, &done), IQDB_OK);
    CHECK_EQ_U64(stats_of(db).index_rows, 0);
    CHECK_EQ_U64(stats_of(db).index_bytes, bytes);
    CHECK_EQ_INT(iqdb_reindex(db, &options), IQDB_ERR_BUSY);
    ask(db, 3, 500, &exact);
    CHECK(exact);
    iqdb_iter_end(&iter);
    settle(db);
    CHECK_EQ_U64(stats_of(db).index_rows, 500);
    CHECK_EQ_U64(stats_of(db).index_lists, 20);
    options = choice(IQDB_INDEX_FLAT, 0);
    CHECK_EQ_INT(iqdb_reindex(db, &options), IQDB_OK);
    CHECK_EQ_U64(stats_of(db).index_bytes, 0);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* ---- What is stored ---- */

static char folder[SUPPORT_PATH_MAX];

static const char *path_of(const char *name) {
    static char paths[2][SUPPORT_PATH_MAX];
    static unsigned turn;
    char *path = paths[++turn % 2]; /* some calls take two */
    support_join(path, folder, name);
    return path;
}

static void check_chosen(const char *name, const iqdb_options *options, iqdb_index index, uint64_t lists) {
    iqdb *db = NULL;
    CHECK_EQ_INT(iqdb_open(path_of(name), options, &db), IQDB_OK);
    settle(db);
    const iqdb_stats stats = stats_of(db);
    CHECK_EQ_INT(stats.index_wanted, index);
    CHECK_EQ_U64(stats.index_lists, lists);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static unsigned char blob[1 << 20];

static bool keep(const void *bytes, size_t size, void *user) {
    size_t *used = (size_t *)user;
    if (size > sizeof blob - *used) return false;
    memcpy(blob + *used, bytes, size);
    *used += size;
    return true;
}

static void the_choice_is_stored(void) {
    iqdb_options options = choice(IQDB_INDEX_IVF, 12), none = iqdb_options_default();
    iqdb *db = NULL, *side = NULL, *loaded = NULL;
    size_t blob_size = 0;
    support_directory(folder);
    CHECK_EQ_INT(iqdb_open(path_of("db"), NULL, &db), IQDB_OK);
    for (uint64_t id = 0; id < 200; id++) CHECK_EQ_INT(put(db, id), IQDB_OK);
    CHECK_EQ_INT(iqdb_collection(db, "side", NULL, &side), IQDB_OK);
    for (uint64_t id = 0; id < 200; id++) CHECK_EQ_INT(put(side, id), IQDB_OK);
    options.nprobe = 3;
    options.seed = 99;
    CHECK_EQ_INT(iqdb_reindex(db, &options), IQDB_OK);
    CHECK_EQ_INT(stats_of(side).index_wanted, IQDB_INDEX_AUTO);
    const iqdb_options flat = choice(IQDB_INDEX_FLAT, 0);
    CHECK_EQ_INT(iqdb_reindex(side, &flat), IQDB_OK);
    CHECK_EQ_INT(stats_of(db).index_wanted, IQDB_INDEX_IVF);
    CHECK_EQ_INT(iqdb_close(side), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    check_chosen("db", NULL, IQDB_INDEX_IVF, 12); /* of the log */
    none.nlist = 5;
    check_chosen("db", &none, IQDB_INDEX_IVF, 5); /* a knob of one's own */
    check_chosen("db", NULL, IQDB_INDEX_IVF, 12); /* which is not stored */
    none.nlist = 0;
    none.index = IQDB_INDEX_FLAT;
    CHECK_EQ_INT(iqdb_open(path_of("db"), &none, &db), IQDB_ERR_INVALID_CONFIG);
    none.index = IQDB_INDEX_IVF;
    none.compact_on_close = true;
    check_chosen("db", &none, IQDB_INDEX_IVF, 12);
    check_chosen("db", NULL, IQDB_INDEX_IVF, 12); /* of a snapshot */
    CHECK_EQ_INT(iqdb_open(path_of("db"), NULL, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_collection(db, "side", &none, &side), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(iqdb_collection(db, "side", &flat, &side), IQDB_ERR_INVALID_CONFIG); /* the metric is another one */
    CHECK_EQ_INT(iqdb_collection(db, "side", NULL, &side), IQDB_OK);
    CHECK_EQ_INT(stats_of(side).index_wanted, IQDB_INDEX_FLAT);
    CHECK_EQ_INT(iqdb_backup(db, path_of("copy")), IQDB_OK);
    CHECK_EQ_INT(iqdb_export_blob(side, keep, &blob_size), IQDB_OK);
    /* And another one in a delta. */
    options.nlist = 4;
    CHECK_EQ_INT(iqdb_reindex(db, &options), IQDB_OK);
    CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(side), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    check_chosen("db", NULL, IQDB_INDEX_IVF, 4);
    check_chosen("copy", NULL, IQDB_INDEX_IVF, 12);
    CHECK_EQ_INT(iqdb_repair(path_of("db"), path_of("repaired"), NULL, NULL, NULL), IQDB_OK);
    check_chosen("repaired", NULL, IQDB_INDEX_IVF, 4);
    CHECK_EQ_INT(iqdb_load_blob(blob, blob_size, NULL, &loaded), IQDB_OK);
    CHECK_EQ_INT(stats_of(loaded).index_wanted, IQDB_INDEX_IVF);
    CHECK_EQ_INT(iqdb_reindex(loaded, NULL), IQDB_OK);
    CHECK_EQ_INT(stats_of(loaded).index_wanted, IQDB_INDEX_AUTO);
    CHECK_EQ_INT(iqdb_close(loaded), IQDB_OK);
    support_remove(folder);
}

/* A handle that follows has the choice for the copies it makes. */
static void a_follower_copies_it(void) {
    iqdb_options options = choice(IQDB_INDEX_IVF, 9), reading = iqdb_options_default();
    iqdb *db = NULL, *follower = NULL;
    support_directory(folder);
    reading.read_only = true;
    CHECK_EQ_INT(iqdb_open(path_of("db"), NULL, &db), IQDB_OK);
    for (uint64_t id = 0; id < 50; id++) CHECK_EQ_INT(put(db, id), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(path_of("db"), &reading, &follower), IQDB_OK);
    for (int i = 0; i < 2; i++) {
        options.nlist = i == 0 ? 9 : 6;
        CHECK_EQ_INT(iqdb_reindex(db, &options), IQDB_OK);
        if (i == 1) CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK); /* read anew, and not from the log */
        CHECK_EQ_INT(iqdb_refresh(follower), IQDB_OK);
        CHECK_EQ_INT(iqdb_backup(follower, path_of(i == 0 ? "first" : "second")), IQDB_OK);
        check_chosen(i == 0 ? "first" : "second", NULL, IQDB_INDEX_IVF, options.nlist);
    }
    CHECK_EQ_INT(iqdb_reindex(follower, &options), IQDB_ERR_READONLY);
    CHECK_EQ_INT(iqdb_close(follower), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
}

/* ---- What is refused ---- */

static void refusals(void) {
    iqdb_options options = iqdb_options_default();
    iqdb_error error;
    iqdb *db = NULL, *side = NULL;
    options.error = &error;
    CHECK_EQ_INT(iqdb_reindex(NULL, &options), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    options.index = (iqdb_index)77;
    CHECK_EQ_INT(iqdb_reindex(db, &options), IQDB_ERR_INVALID_CONFIG);
    CHECK(error.code == IQDB_ERR_INVALID_CONFIG && strstr(error.text, "index") != NULL);
    CHECK_EQ_INT(iqdb_collection(db, "side", NULL, &side), IQDB_OK);
    CHECK_EQ_INT(iqdb_collection_drop(db, "side"), IQDB_OK);
    CHECK_EQ_INT(iqdb_reindex(side, NULL), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(iqdb_close(side), IQDB_OK);
    CHECK_EQ_INT(stats_of(db).index_wanted, IQDB_INDEX_AUTO);
    CHECK_EQ_INT(iqdb_reindex(db, NULL), IQDB_OK); /* of nothing */
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* ---- Readers beside it ---- */

typedef struct beside {
    const iqdb *db;
    size_t bad;
    uint64_t random;
} beside;

static volatile int stopped;

static void *read_beside(void *user) {
    beside *me = (beside *)user;
    while (!__atomic_load_n(&stopped, __ATOMIC_ACQUIRE)) {
        float vector[DIM];
        iqdb_hit hits[K];
        size_t count = 0, seen = 0;
        const uint64_t id = support_random_below(&me->random, 600);
        row_of(id, vector);
        const iqdb_query query = public_query(vector, DIM, K, IQDB_L2);
        if (iqdb_search(me->db, &query, hits, &count) != IQDB_OK || count != K) me->bad++;
        for (size_t i = 0; i < count; i++) seen += hits[i].id == id;
        if (seen != 1) me->bad++;
    }
    return NULL;
}

static void readers_beside_it(void) {
    iqdb_options options = choice(IQDB_INDEX_IVF, 16);
    iqdb *db = NULL;
    beside readers[2];
    pthread_t threads[2];
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (uint64_t id = 0; id < 800; id++) CHECK_EQ_INT(put(db, id), IQDB_OK);
    settle(db);
    stopped = 0;
    for (size_t i = 0; i < 2; i++) {
        readers[i].db = db;
        readers[i].bad = 0;
        readers[i].random = i + 1;
        CHECK_EQ_INT(pthread_create(&threads[i], NULL, read_beside, &readers[i]), 0);
    }
    size_t done_count = 0;
    for (uint64_t round = 0; round < support_amount(60, 300, 2000); round++) {
        bool done;
        options = choice(round % 3 == 2 ? IQDB_INDEX_FLAT : IQDB_INDEX_IVF, 8 + (uint32_t)(round % 5));
        const iqdb_result result = iqdb_reindex(db, &options);
        CHECK(result == IQDB_OK || result == IQDB_ERR_BUSY);
        done_count += result == IQDB_OK;
        for (uint64_t i = 0; i < 40; i++) {
            CHECK_EQ_INT(put(db, 600 + (round * 7 + i) % 500), IQDB_OK);
            if (i % 10 == 0) CHECK_EQ_INT(iqdb_delete(db, 600 + (round * 11 + i) % 500, NULL), IQDB_OK);
        }
        CHECK_EQ_INT(iqdb_maintain(db, (uint32_t)(round % 4) * 500, &done), IQDB_OK);
    }
    __atomic_store_n(&stopped, 1, __ATOMIC_RELEASE);
    for (size_t i = 0; i < 2; i++) CHECK_EQ_INT(pthread_join(threads[i], NULL), 0);
    CHECK_EQ_U64(readers[0].bad + readers[1].bad, 0);
    CHECK(done_count > 0);
    settle(db);
    CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

TEST_MAIN("api/reindex", TEST(answers_hold_throughout), TEST(snapshots_keep_the_old_one), TEST(the_choice_is_stored),
          TEST(a_follower_copies_it), TEST(refusals), TEST(readers_beside_it))
