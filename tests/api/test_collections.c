/* Collections: each has ids, dimension and metric of its own, one batch may span several, and what is made, written and
 * dropped comes back from logs, snapshots, deltas, copies and refreshes. What a database must hold is told by a table of
 * names and versions. */
#include "public.h"

#include <pthread.h>

enum {
    NAMES = 5,
    IDS = 12,
    DIM_MAX = 4
};

static const char *const names[NAMES] = {"a", "b", "caf\xC3\xA9", "a longer name with spaces/and .. more", "e"};

/* A name's collection: 0 where there is none, else how often it was made; the dimension follows from that. */
typedef struct naive_collection {
    uint32_t made;
    uint32_t versions[IDS];
} naive_collection;

typedef struct naive_database {
    naive_collection list[NAMES + 1]; /* the last one is the default collection */
    uint32_t serial;
} naive_database;

static uint32_t dim_of(uint32_t made) { return 1 + made % DIM_MAX; }

static void vector_of(uint32_t version, uint64_t id, float vector[DIM_MAX]) {
    uint64_t state = version * 7919u + id;
    for (size_t i = 0; i < DIM_MAX; i++) vector[i] = support_random_float(&state);
}

static iqdb_options quick_options(void) {
    iqdb_options options = iqdb_options_default();
    options.files = public_quick_files();
    return options;
}

static iqdb *opened(iqdb *db, const char *name) {
    iqdb *collection = NULL;
    return EXPECT(iqdb_collection(db, name, NULL, &collection) == IQDB_OK) ? collection : NULL;
}

static iqdb_result put(iqdb *collection, uint64_t id, uint32_t version, uint32_t dim) {
    float vector[DIM_MAX];
    vector_of(version, id, vector);
    const iqdb_field field = public_field("v", iqdb_int(version));
    iqdb_record record = public_record(id, vector, dim);
    if (version % 3 != 0) record.fields = &field;
    record.field_count = record.fields != NULL;
    return iqdb_upsert(collection, &record);
}

static bool holds(const iqdb *collection, const naive_collection *model) {
    size_t count = 0;
    bool same = true;
    iqdb_buffer buffer = iqdb_buffer_default();
    for (uint64_t id = 0; id < IDS && same; id++) {
        float vector[DIM_MAX];
        iqdb_record record;
        const uint32_t version = model->versions[id], dim = dim_of(model->made);
        const iqdb_result result = iqdb_get(collection, id, &buffer, &record);
        vector_of(version, id, vector);
        count += version != 0;
        same = result == (version != 0 ? IQDB_OK : IQDB_ERR_NOT_FOUND);
        if (!same || version == 0) continue;
        same = record.dim == dim && memcmp(record.vector, vector, dim * sizeof(float)) == 0 &&
               iqdb_payload_int(record.payload, "v", 0) == (version % 3 != 0 ? (int64_t)version : 0);
    }
    iqdb_buffer_free(&buffer);
    return EXPECT(same) && EXPECT(iqdb_len(collection) == count);
}

static bool has_name(const char *name, void *user) {
    unsigned *seen = (unsigned *)user;
    for (unsigned i = 0; i < NAMES; i++)
        if (strcmp(name, names[i]) == 0) *seen += 1u << (4 * i);
    return true;
}

/* Everything, seen through fresh handles. */
static bool agrees(iqdb *db, const naive_database *model) {
    unsigned seen = 0, expected = 0;
    bool same = holds(db, &model->list[NAMES]) && EXPECT(iqdb_collection_names(db, has_name, &seen) == IQDB_OK);
    for (unsigned i = 0; i < NAMES && same; i++) {
        if (model->list[i].made == 0) continue;
        expected += 1u << (4 * i);
        iqdb *collection = opened(db, names[i]);
        same = collection != NULL && holds(collection, &model->list[i]);
        EXPECT(iqdb_close(collection) == IQDB_OK);
    }
    iqdb_stats stats;
    size_t count = 0;
    for (unsigned i = 0; i < NAMES; i++) count += model->list[i].made != 0;
    EXPECT(iqdb_stat(db, &stats) == IQDB_OK && stats.collections == count);
    return same && EXPECT(seen == expected) && EXPECT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL) == IQDB_OK);
}

/* ---- A random life ---- */

static bool write_some(iqdb *db, naive_database *model, uint64_t *random) {
    const size_t which = (size_t)support_random_below(random, NAMES + 1);
    naive_collection *one = &model->list[which];
    const uint64_t id = support_random_below(random, IDS);
    iqdb *collection = which < NAMES ? opened(db, names[which]) : db;
    bool removed, ok = collection != NULL;
    if (one->made == 0 && which < NAMES) one->made = ++model->serial;
    if (support_random_below(random, 3) == 0) {
        ok = ok && EXPECT(iqdb_delete(collection, id, &removed) == IQDB_OK) &&
             EXPECT(removed == (one->versions[id] != 0));
        one->versions[id] = 0;
    } else {
        one->versions[id] = ++model->serial;
        ok = ok && EXPECT(put(collection, id, one->versions[id], dim_of(one->made)) == IQDB_OK);
    }
    if (which < NAMES) EXPECT(iqdb_close(collection) == IQDB_OK);
    return ok;
}

/* One batch over all that there is; now and then with a vector that is none, and then nothing has changed. */
static bool write_all(iqdb *db, naive_database *model, uint64_t *random) {
    iqdb_op ops[2 * (NAMES + 1)];
    iqdb_record records[2 * (NAMES + 1)];
    float vectors[2 * (NAMES + 1)][DIM_MAX];
    iqdb *collections[NAMES] = {NULL, NULL, NULL, NULL, NULL};
    size_t count = 0;
    naive_database after = *model;
    const bool spoilt = support_random_below(random, 4) == 0;
    for (size_t i = 0; i < 2 * (NAMES + 1); i++) {
        naive_collection *one = &after.list[i % (NAMES + 1)];
        const uint64_t id = support_random_below(random, IDS);
        if (i % (NAMES + 1) < NAMES && one->made == 0) continue;
        if (i < NAMES) collections[i] = opened(db, names[i]);
        ops[count] = iqdb_op_default();
        ops[count].collection = i % (NAMES + 1) < NAMES ? collections[i % (NAMES + 1)] : NULL;
        ops[count].id = id;
        ops[count].kind = support_random_below(random, 3) == 0 ? IQDB_OP_DELETE : IQDB_OP_UPSERT;
        one->versions[id] = ops[count].kind == IQDB_OP_DELETE ? 0 : 3 * ++after.serial; /* no payload */
        vector_of(one->versions[id], id, vectors[count]);
        records[count] = public_record(id, vectors[count], dim_of(one->made));
        ops[count].record = &records[count];
        count++;
    }
    if (spoilt) {
        ops[count - 1].kind = IQDB_OP_UPSERT;
        vectors[count - 1][0] = (float)(1e30 * 1e30);
    }
    const iqdb_result result = iqdb_apply(db, ops, count);
    for (size_t i = 0; i < NAMES; i++) EXPECT(iqdb_close(collections[i]) == IQDB_OK);
    if (!spoilt) *model = after;
    return EXPECT(result == (spoilt ? IQDB_ERR_INVALID_VECTOR : IQDB_OK));
}

static void a_random_life(uint64_t seed, bool on_disk) {
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX], copy[SUPPORT_PATH_MAX];
    naive_database model;
    iqdb *db = NULL;
    iqdb_options options = quick_options();
    support_heap heap = support_heap_make();
    options.allocator = support_allocator(&heap);
    memset(&model, 0, sizeof model);
    support_directory(folder);
    support_join(path, folder, "db");
    support_join(copy, folder, "copy");
    CHECK_EQ_INT(on_disk ? iqdb_open(path, &options, &db) : iqdb_open_in_memory(&options, &db), IQDB_OK);
    const size_t steps = support_amount(60, 250, 2000);
    for (size_t step = 0; step < steps; step++) {
        const uint64_t what = support_random_below(&seed, 24);
        const size_t which = (size_t)support_random_below(&seed, NAMES);
        naive_collection *one = &model.list[which];
        if (what < 12) {
            CHECK(write_some(db, &model, &seed));
        } else if (what < 16) {
            CHECK(write_all(db, &model, &seed));
        } else if (what == 16) {
            const bool was = one->made != 0;
            CHECK_EQ_INT(iqdb_collection_drop(db, names[which]), was ? IQDB_OK : IQDB_ERR_NOT_FOUND);
            memset(one, 0, sizeof *one);
        } else if (what == 17) {
            bool done;
            CHECK_EQ_INT(iqdb_maintain(db, 100000, &done), IQDB_OK);
        } else if (what == 18) {
            CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        } else if (what == 19 && on_disk) {
            options.compact_on_close = support_random_below(&seed, 4) == 0;
            CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
            CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
        } else if (what == 20 && on_disk) { /* what a machine leaves that stops behind a flush */
            CHECK_EQ_INT(iqdb_flush(db), IQDB_OK);
            CHECK(public_copy(path, copy));
            CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
            CHECK(public_copy(copy, path));
            CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
        } else if (what == 21 && on_disk) {
            iqdb *other = NULL;
            support_remove(copy);
            CHECK_EQ_INT(step % 2 == 0 ? iqdb_backup(db, copy) : iqdb_flush(db), IQDB_OK);
            if (step % 2 != 0) CHECK(public_copy(path, copy));
            CHECK_EQ_INT(iqdb_open(copy, &options, &other), IQDB_OK);
            CHECK(agrees(other, &model));
            CHECK_EQ_INT(iqdb_close(other), IQDB_OK);
        }
        if (what >= 16) CHECK(agrees(db, &model));
    }
    CHECK(agrees(db, &model));
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
    support_remove(folder);
}

static void random_lives(void) {
    for (uint64_t seed = 1; seed <= support_amount(2, 6, 40); seed++) {
        a_random_life(seed, true);
        a_random_life(seed, false);
    }
}

/* ---- What is one's own, and what is shared ---- */

static void each_has_its_own(void) {
    iqdb *db = NULL, *a = NULL, *b = NULL, *again = NULL;
    iqdb_options options = iqdb_options_default();
    iqdb_hit hits[3];
    size_t count;
    const float x[4] = {1, 0, 0, 0}, y[4] = {3, 4, 0, 0};
    CHECK_EQ_INT(iqdb_open_in_memory(NULL, &db), IQDB_OK);
    options.dim = 2;
    options.metric = IQDB_L2;
    CHECK_EQ_INT(iqdb_collection(db, "a", &options, &a), IQDB_OK);
    options.dim = 0;
    options.metric = IQDB_DOT;
    CHECK_EQ_INT(iqdb_collection(a, "b", &options, &b), IQDB_OK);
    CHECK_EQ_INT(public_put(db, 7, x, 4), IQDB_OK);
    CHECK_EQ_INT(public_put(a, 7, x, 2), IQDB_OK);
    CHECK_EQ_INT(public_put(a, 8, y, 2), IQDB_OK);
    CHECK_EQ_INT(public_put(b, 7, y, 3), IQDB_OK);
    CHECK_EQ_INT(public_put(a, 9, x, 3), IQDB_ERR_DIMENSION_MISMATCH);
    CHECK_EQ_U64(iqdb_len(db), 1);
    CHECK_EQ_U64(iqdb_len(a), 2);
    CHECK_EQ_U64(iqdb_len(b), 1);
    iqdb_query query = public_query(x, 0, 3, IQDB_METRIC_DEFAULT);
    CHECK_EQ_INT(iqdb_search(a, &query, hits, &count), IQDB_OK);
    CHECK_EQ_U64(count, 2);
    CHECK_EQ_U64(hits[0].id, 7);
    CHECK_EQ_F32(hits[1].score, 4.4721360f); /* sqrt(4 + 16) */
    CHECK_EQ_INT(iqdb_search(b, &query, hits, &count), IQDB_OK);
    CHECK_EQ_U64(count, 1);
    CHECK_EQ_F32(hits[0].score, -3.0f);
    bool removed = false;
    CHECK_EQ_INT(iqdb_delete(b, 7, &removed), IQDB_OK);
    CHECK(removed && iqdb_is_empty(b) && iqdb_contains(a, 7) && iqdb_contains(db, 7));
    /* The second handle is of the same collection; options have to agree, or say nothing. */
    options.metric = IQDB_L2;
    CHECK_EQ_INT(iqdb_collection(db, "a", &options, &again), IQDB_OK);
    CHECK(iqdb_contains(again, 8));
    CHECK_EQ_INT(iqdb_close(again), IQDB_OK);
    options.dim = 3;
    CHECK_EQ_INT(iqdb_collection(db, "a", &options, &again), IQDB_ERR_INVALID_CONFIG);
    CHECK(again == NULL);
    options.dim = 2;
    options.metric = IQDB_COSINE;
    CHECK_EQ_INT(iqdb_collection(db, "a", &options, &again), IQDB_ERR_INVALID_CONFIG);
    iqdb_stats stats;
    CHECK_EQ_INT(iqdb_stat(b, &stats), IQDB_OK);
    CHECK(stats.dim == 3 && stats.metric == IQDB_DOT && stats.records == 0 && stats.collections == 2);
    CHECK_EQ_INT(iqdb_close(db), IQDB_ERR_BUSY);
    CHECK_EQ_INT(iqdb_close(a), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(a), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_close(db), IQDB_ERR_BUSY);
    CHECK_EQ_INT(iqdb_close(b), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static void bad_input_is_an_error(void) {
    iqdb *db = NULL, *other = NULL, *a = NULL, *out = NULL;
    iqdb_options options = iqdb_options_default();
    char name[IQDB_NAME_SIZE_MAX + 2];
    const float x[1] = {1};
    CHECK_EQ_INT(iqdb_open_in_memory(NULL, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open_in_memory(NULL, &other), IQDB_OK);
    memset(name, 'n', sizeof name);
    name[IQDB_NAME_SIZE_MAX + 1] = 0;
    CHECK_EQ_INT(iqdb_collection(NULL, "a", NULL, &out), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_collection(db, NULL, NULL, &out), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_collection(db, "a", NULL, NULL), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_collection(db, "", NULL, &out), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_collection(db, "\xFF", NULL, &out), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_collection(db, name, NULL, &out), IQDB_ERR_INVALID_ARGUMENT);
    CHECK(out == NULL);
    name[IQDB_NAME_SIZE_MAX] = 0;
    CHECK_EQ_INT(iqdb_collection(db, name, NULL, &a), IQDB_OK);
    options.dim = IQDB_DIM_MAX + 1;
    CHECK_EQ_INT(iqdb_collection(db, "c", &options, &out), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(iqdb_collection_drop(db, NULL), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_collection_drop(db, "c"), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(iqdb_collection_names(db, NULL, NULL), IQDB_ERR_INVALID_ARGUMENT);
    const iqdb_record record = public_record(1, x, 1);
    iqdb_op op = iqdb_op_default();
    op.collection = a;
    op.record = &record;
    CHECK_EQ_INT(iqdb_apply(other, &op, 1), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_apply(db, &op, 1), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(a), 1);
    CHECK_EQ_U64(iqdb_len(db), 0);
    CHECK_EQ_INT(iqdb_close(a), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(other), IQDB_OK);
    static unsigned char block[1 << 16];
    options.dim = 1;
    CHECK_EQ_INT(iqdb_open_in(block, sizeof block, &options, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_collection(db, "a", NULL, &a), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* ---- Drop ---- */

static void every_call_says_so(iqdb *gone) {
    float vector[DIM_MAX] = {0};
    iqdb_hit hits[1];
    size_t count;
    bool done;
    iqdb_stats stats;
    iqdb *out;
    iqdb_record record;
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_cursor *cursor;
    const iqdb_query query = public_query(vector, 2, 1, IQDB_L2);
    const iqdb_filter all = iqdb_filter_default();
    unsigned seen = 0;
#define GONE(call) CHECK_EQ_INT(call, IQDB_ERR_NOT_FOUND)
    GONE(put(gone, 1, 1, 2));
    GONE(iqdb_upsert_batch(gone, &record, 0));
    GONE(iqdb_delete(gone, 1, NULL));
    GONE(iqdb_delete_where(gone, &all, NULL));
    GONE(iqdb_update_payload(gone, 1, NULL, 0));
    GONE(iqdb_reserve(gone, 10));
    GONE(iqdb_get(gone, 1, &buffer, &record));
    GONE(iqdb_search(gone, &query, hits, &count));
    GONE(iqdb_count(gone, &all, &count));
    GONE(iqdb_cursor_open(gone, &query, &cursor));
    GONE(iqdb_stat(gone, &stats));
    GONE(iqdb_flush(gone));
    GONE(iqdb_checkpoint(gone));
    GONE(iqdb_maintain(gone, 1, &done));
    GONE(iqdb_verify(gone, IQDB_DEPTH_RECORDS, NULL, NULL));
    GONE(iqdb_collection(gone, "b", NULL, &out));
    GONE(iqdb_collection_drop(gone, "b"));
    GONE(iqdb_collection_names(gone, has_name, &seen));
#undef GONE
    iqdb_iter iter = iqdb_iter_begin(gone, NULL);
    CHECK(!iqdb_iter_next(&iter));
    CHECK_EQ_INT(iter.result, IQDB_ERR_NOT_FOUND);
    iqdb_iter_end(&iter);
    CHECK(!iqdb_contains(gone, 1) && iqdb_len(gone) == 0 && iqdb_is_empty(gone));
}

static void dropped_under_its_readers(void) {
    enum {
        MANY = 300
    };
    iqdb *db = NULL;
    support_heap heap = support_heap_make();
    iqdb_options options = iqdb_options_default();
    float vector[DIM_MAX] = {0.5f, 0.5f};
    iqdb_hit hits[MANY];
    size_t count = 0, given = 0;
    bool done = false;
    iqdb_cursor *cursor = NULL;
    options.allocator = support_allocator(&heap);
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    const size_t before = heap.live_bytes;
    iqdb *a = opened(db, "a"), *more = opened(db, "a");
    for (uint64_t id = 0; id < MANY; id++) CHECK_EQ_INT(put(a, id, (uint32_t)id + 1, 2), IQDB_OK);
    iqdb_iter iter = iqdb_iter_begin(a, NULL);
    CHECK(iqdb_iter_next(&iter));
    const iqdb_query query = public_query(vector, 2, MANY, IQDB_L2);
    CHECK_EQ_INT(iqdb_cursor_open(a, &query, &cursor), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(more), IQDB_OK);
    const size_t held = heap.live_bytes - before;
    CHECK_EQ_INT(iqdb_collection_drop(a, "a"), IQDB_OK); /* its own end */
    every_call_says_so(a);
    CHECK_EQ_INT(iqdb_collection_drop(db, "a"), IQDB_ERR_NOT_FOUND);
    iqdb *another = opened(db, "a");
    CHECK_EQ_INT(put(another, 5, 1, 3), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(another), 1);
    CHECK_EQ_INT(iqdb_close(a), IQDB_OK);
    CHECK_EQ_INT(put(db, 1, 1, 4), IQDB_OK);
    for (count = 1; iqdb_iter_next(&iter); count++) CHECK(iter.record.dim == 2);
    CHECK_EQ_INT(iter.result, IQDB_OK);
    CHECK_EQ_U64(count, MANY);
    while (!done) {
        CHECK_EQ_INT(iqdb_cursor_step(cursor, 1, hits + given, MANY - given, &count, &done), IQDB_OK);
        given += count;
    }
    CHECK_EQ_U64(given, MANY);
    for (size_t i = 1; i < MANY; i++) CHECK(hits[i - 1].score <= hits[i].score);
    CHECK_EQ_INT(iqdb_close(db), IQDB_ERR_BUSY);
    iqdb_iter_end(&iter);
    iqdb_cursor_close(cursor);
    CHECK_EQ_INT(iqdb_collection_drop(db, "a"), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(another), IQDB_OK);
    CHECK_EQ_INT(iqdb_delete(db, 1, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_maintain(db, 1000000, &done), IQDB_OK);
    CHECK(heap.live_bytes - before < held / 2); /* one row of the default collection, and scratch */
    printf("\n    %zu bytes, and %zu behind the drop", held, heap.live_bytes - before);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* Who keeps a handle finds nothing at any moment, odd or even. */
static void dropped_and_counted(void) {
    for (uint64_t round = 0; round < 4; round++) {
        iqdb *db = NULL;
        CHECK_EQ_INT(iqdb_open_in_memory(NULL, &db), IQDB_OK);
        iqdb *a = opened(db, "a");
        for (uint64_t id = 0; id < 10 + round % 2; id++) CHECK_EQ_INT(put(a, id, 1, 2), IQDB_OK);
        if (round >= 2) CHECK_EQ_INT(put(db, 100, 1, 4), IQDB_OK);
        CHECK_EQ_INT(iqdb_collection_drop(db, "a"), IQDB_OK);
        for (uint64_t id = 0; id < 5; id++) {
            CHECK_EQ_U64(iqdb_len(a), 0);
            CHECK(iqdb_is_empty(a));
            CHECK_EQ_INT(put(db, id, 1, 4), IQDB_OK);
        }
        CHECK_EQ_INT(iqdb_close(a), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
}

/* ---- Many small ones ---- */

static bool count_name(const char *name, void *user) {
    (void)name;
    return ++*(size_t *)user > 0;
}

static void thousands_are_cheap(void) {
    const size_t many = support_amount(400, 2000, 5000);
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX], name[32];
    support_heap heap = support_heap_make();
    iqdb_options options = quick_options();
    iqdb *db = NULL;
    iqdb_stats stats;
    options.allocator = support_allocator(&heap);
    options.compact_on_close = true;
    support_directory(folder);
    support_join(path, folder, "db");
    CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
    for (int round = 0; round < 2; round++) {
        const size_t before = heap.live_bytes;
        size_t rows = 0, count = 0;
        for (size_t i = 0; i < many; i++) {
            snprintf(name, sizeof name, "collection %zu", i);
            iqdb *one = opened(db, name);
            CHECK(one != NULL);
            if (round == 0) CHECK_EQ_INT(put(one, i, 2, 4), IQDB_OK);
            CHECK(iqdb_contains(one, i));
            CHECK_EQ_INT(iqdb_stat(one, &stats), IQDB_OK);
            rows += (size_t)(stats.vector_bytes + stats.payload_bytes);
            CHECK_EQ_INT(iqdb_close(one), IQDB_OK);
        }
        CHECK_EQ_INT(iqdb_collection_names(db, count_name, &count), IQDB_OK);
        CHECK_EQ_U64(count, many);
        if (round == 0) {
            const size_t each = (heap.live_bytes - before - rows) / many;
            printf("\n    %zu bytes of memory each beside %zu of rows and payloads", each, rows / many);
            CHECK(each <= 4096);
            CHECK(rows / many <= 4096); /* room for the first 16, of two dimensions */
        }
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
        CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
        CHECK_EQ_U64(stats.collections, many);
        printf("\n    %zu bytes of disk each", (size_t)stats.snapshot_bytes / many);
        CHECK(stats.snapshot_bytes / many <= 4096);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
    support_remove(folder);
}

/* ---- Copies, followers, and what is damaged ---- */

typedef struct blob {
    unsigned char *bytes;
    size_t size;
} blob;

static bool blob_write(const void *bytes, size_t size, void *user) {
    blob *target = (blob *)user;
    unsigned char *more = (unsigned char *)support_aligned_alloc(target->size + size, 64);
    if (more == NULL) return false;
    if (target->size > 0) memcpy(more, target->bytes, target->size);
    memcpy(more + target->size, bytes, size);
    support_aligned_free(target->bytes);
    target->bytes = more;
    target->size += size;
    return true;
}

static void some_life(iqdb *db, naive_database *model, uint64_t seed, size_t steps) {
    for (size_t i = 0; i < steps; i++) {
        CHECK(write_some(db, model, &seed));
        if (i % 5 == 4) CHECK(write_all(db, model, &seed));
    }
}

static void blobs_hold_all(void) {
    iqdb *db = NULL, *other = NULL, *out = NULL;
    naive_database model;
    blob first = {NULL, 0}, second = {NULL, 0};
    memset(&model, 0, sizeof model);
    CHECK_EQ_INT(iqdb_open_in_memory(NULL, &db), IQDB_OK);
    some_life(db, &model, 9, 40);
    CHECK_EQ_INT(iqdb_collection_drop(db, names[1]), model.list[1].made != 0 ? IQDB_OK : IQDB_ERR_NOT_FOUND);
    memset(&model.list[1], 0, sizeof model.list[1]);
    CHECK_EQ_INT(iqdb_export_blob(db, blob_write, &first), IQDB_OK);
    CHECK_EQ_INT(iqdb_open_blob(first.bytes, first.size, NULL, &other), IQDB_OK);
    CHECK(agrees(other, &model));
    CHECK_EQ_INT(iqdb_collection(other, "none", NULL, &out), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(iqdb_collection_drop(other, names[0]), IQDB_ERR_READONLY);
    CHECK_EQ_INT(iqdb_close(other), IQDB_OK);
    CHECK_EQ_INT(iqdb_load_blob(first.bytes, first.size, NULL, &other), IQDB_OK);
    CHECK(agrees(other, &model));
    CHECK_EQ_INT(iqdb_export_blob(other, blob_write, &second), IQDB_OK);
    CHECK_EQ_U64(first.size, second.size);
    some_life(other, &model, 10, 20);
    CHECK(agrees(other, &model));
    CHECK_EQ_INT(iqdb_close(other), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_aligned_free(first.bytes);
    support_aligned_free(second.bytes);
}

static void followers_see_them_come_and_go(void) {
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    naive_database model;
    iqdb_options options = quick_options(), reading = quick_options();
    iqdb *db = NULL, *reader = NULL, *out = NULL;
    uint64_t seed = 77;
    reading.read_only = true;
    memset(&model, 0, sizeof model);
    support_directory(folder);
    support_join(path, folder, "db");
    CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(path, &reading, &reader), IQDB_OK);
    CHECK_EQ_INT(iqdb_collection(reader, "none", NULL, &out), IQDB_ERR_NOT_FOUND);
    for (size_t step = 0; step < support_amount(30, 120, 600); step++) {
        const naive_database before = model;
        const size_t which = (size_t)support_random_below(&seed, NAMES);
        iqdb *held = before.list[which].made != 0 ? opened(reader, names[which]) : NULL;
        some_life(db, &model, seed, 1 + step % 3);
        const uint64_t what = support_random_below(&seed, 6);
        if (what == 0 && model.list[which].made != 0) {
            CHECK_EQ_INT(iqdb_collection_drop(db, names[which]), IQDB_OK);
            memset(&model.list[which], 0, sizeof model.list[which]);
            if (step % 2 == 0) some_life(db, &model, seed + 1, 3); /* and perhaps another one of the name */
        }
        if (what == 1) CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        if (what == 2) {
            options.compact_on_close = step % 2 == 0;
            CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
            CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
        }
        CHECK_EQ_INT(iqdb_flush(db), IQDB_OK);
        CHECK(agrees(reader, &before));
        CHECK_EQ_INT(iqdb_refresh(reader), IQDB_OK);
        CHECK(agrees(reader, &model));
        if (held != NULL && model.list[which].made == before.list[which].made) CHECK(holds(held, &model.list[which]));
        if (held != NULL && model.list[which].made != before.list[which].made) every_call_says_so(held);
        CHECK_EQ_INT(iqdb_close(held), IQDB_OK);
    }
    CHECK_EQ_INT(iqdb_close(reader), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
}

static void count_findings(const iqdb_error *finding, void *user) {
    (void)finding;
    ++*(size_t *)user;
}

static void repair_finds_them(void) {
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX], copy[SUPPORT_PATH_MAX], to[SUPPORT_PATH_MAX];
    naive_database model;
    iqdb_options options = quick_options();
    iqdb *db = NULL;
    size_t findings = 0;
    memset(&model, 0, sizeof model);
    support_directory(folder);
    support_join(path, folder, "db");
    support_join(copy, folder, "copy");
    support_join(to, folder, "to");
    CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
    some_life(db, &model, 3, 30);
    CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
    some_life(db, &model, 4, 10);
    CHECK_EQ_INT(iqdb_collection_drop(db, names[2]), model.list[2].made != 0 ? IQDB_OK : IQDB_ERR_NOT_FOUND);
    memset(&model.list[2], 0, sizeof model.list[2]);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_repair(path, to, &options, count_findings, &findings), IQDB_OK);
    CHECK_EQ_U64(findings, 0);
    CHECK_EQ_INT(iqdb_open(to, &options, &db), IQDB_OK);
    CHECK(agrees(db, &model));
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    /* The first sector of frames is gone, with what made some collections: their records are under another name. */
    support_remove(to);
    support_remove(path);
    memset(&model, 0, sizeof model);
    CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
    iqdb *one = opened(db, "one");
    CHECK_EQ_INT(put(one, 1, 1, 2), IQDB_OK);
    CHECK_EQ_INT(iqdb_flush(db), IQDB_OK);
    CHECK_EQ_INT(put(one, 2, 2, 2), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(one), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK(public_flip(path, "wal-1", 4096 + 41, 1));
    CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_ERR_CORRUPT);
    CHECK_EQ_INT(iqdb_repair(path, to, &options, count_findings, &findings), IQDB_OK);
    CHECK(findings >= 2);
    CHECK_EQ_INT(iqdb_open(to, &options, &db), IQDB_OK);
    one = opened(db, "lost-1");
    CHECK(one != NULL && iqdb_contains(one, 2));
    CHECK_EQ_INT(iqdb_close(one), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
}

/* ---- Beside one another ---- */

typedef struct crowd {
    iqdb *db, *left, *right;
    int stop; /* atomic */
    long rounds, torn;
} crowd;

/* Left and right are written in one batch: a reader that looks right after left finds right no older. */
static void *crowd_read(void *user) {
    crowd *c = (crowd *)user;
    iqdb_buffer buffer = iqdb_buffer_default();
    while (!__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) {
        iqdb_record record;
        if (iqdb_get(c->left, 1, &buffer, &record) != IQDB_OK) continue;
        const float left = record.vector[0];
        if (iqdb_get(c->right, 1, &buffer, &record) != IQDB_OK || record.vector[0] < left) c->torn++;
        c->rounds++;
    }
    iqdb_buffer_free(&buffer);
    return NULL;
}

static void *crowd_come_and_go(void *user) {
    crowd *c = (crowd *)user;
    while (!__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) {
        iqdb *one = NULL;
        if (iqdb_collection(c->db, "comes and goes", NULL, &one) != IQDB_OK) continue;
        (void)put(one, 1, 1, 2);
        (void)iqdb_contains(one, 1);
        (void)iqdb_close(one);
    }
    return NULL;
}

static void *crowd_drop(void *user) {
    crowd *c = (crowd *)user;
    while (!__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) (void)iqdb_collection_drop(c->db, "comes and goes");
    return NULL;
}

static void batches_are_seen_at_once(void) {
    crowd c;
    pthread_t threads[4];
    char folder[SUPPORT_PATH_MAX];
    iqdb_options options = quick_options();
    options.sync = IQDB_SYNC_EACH;
    memset(&c, 0, sizeof c);
    support_directory(folder);
    CHECK_EQ_INT(iqdb_open(folder, &options, &c.db), IQDB_OK);
    c.left = opened(c.db, "left");
    c.right = opened(c.db, "right");
    CHECK(pthread_create(&threads[0], NULL, crowd_read, &c) == 0);
    CHECK(pthread_create(&threads[1], NULL, crowd_come_and_go, &c) == 0);
    CHECK(pthread_create(&threads[2], NULL, crowd_come_and_go, &c) == 0);
    CHECK(pthread_create(&threads[3], NULL, crowd_drop, &c) == 0);
    for (size_t round = 1; round <= support_amount(200, 1500, 20000); round++) {
        const float vector[1] = {(float)round};
        const iqdb_record record = public_record(1, vector, 1);
        iqdb_op ops[2];
        ops[0] = ops[1] = iqdb_op_default();
        ops[0].record = ops[1].record = &record;
        ops[0].collection = c.right;
        ops[1].collection = c.left;
        EXPECT(iqdb_apply(c.db, ops, 2) == IQDB_OK);
        if (round % 500 == 0) EXPECT(iqdb_checkpoint(c.db) == IQDB_OK);
    }
    __atomic_store_n(&c.stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    CHECK_EQ_INT(c.torn, 0);
    CHECK_EQ_INT(iqdb_verify(c.db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(c.left), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(c.right), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(c.db), IQDB_OK);
    support_remove(folder);
}

/* ---- Without memory ---- */

static void every_failure_leaves_all_as_it_was(void) {
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    support_heap heap = support_heap_make();
    iqdb_options options = quick_options();
    options.allocator = support_allocator(&heap);
    const iqdb_index_key key = {"v", IQDB_KEY_ORDERED};
    iqdb_options keyed = quick_options();
    keyed.index_keys = &key;
    keyed.index_key_count = 1;
    bool done = false;
    for (size_t nth = 1; !done && nth < 400; nth++) {
        naive_database model;
        uint64_t seed = 5;
        iqdb *db = NULL, *one = NULL;
        memset(&model, 0, sizeof model);
        support_directory(folder);
        support_join(path, folder, "db");
        CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
        for (int i = 0; i < 8; i++) CHECK(write_some(db, &model, &seed));
        heap.fail_at = nth;
        const iqdb_result made = iqdb_collection(db, "new", &keyed, &one);
        const iqdb_result written = made == IQDB_OK ? put(one, 1, 1, 3) : made;
        const iqdb_result dropped = iqdb_collection_drop(db, "new");
        done = heap.fail_at != 0;
        heap.fail_at = 0;
        CHECK(made == IQDB_OK || made == IQDB_ERR_NOMEM);
        CHECK(written == IQDB_OK || written == IQDB_ERR_NOMEM);
        CHECK(dropped == IQDB_OK || dropped == (made == IQDB_OK ? IQDB_ERR_NOMEM : IQDB_ERR_NOT_FOUND));
        if (made == IQDB_OK && dropped != IQDB_OK) CHECK_EQ_U64(iqdb_len(one), written == IQDB_OK);
        CHECK_EQ_INT(iqdb_close(one), IQDB_OK);
        if (made == IQDB_OK && dropped != IQDB_OK) CHECK_EQ_INT(iqdb_collection_drop(db, "new"), IQDB_OK);
        CHECK(agrees(db, &model));
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
        CHECK(agrees(db, &model));
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        support_remove(folder);
    }
    CHECK(done);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

TEST_MAIN("api/collections", TEST(each_has_its_own), TEST(bad_input_is_an_error), TEST(dropped_under_its_readers),
          TEST(dropped_and_counted), TEST(random_lives), TEST(blobs_hold_all), TEST(followers_see_them_come_and_go),
          TEST(repair_finds_them), TEST(thousands_are_cheap), TEST(batches_are_seen_at_once),
          TEST(every_failure_leaves_all_as_it_was))
