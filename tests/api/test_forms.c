/* Forms of a search: the best of each group, vectors beside hits, lists of ids, pages behind a hit or from a cursor,
 * batches, each with the others, with and without indexes of keys, in memory and on disk: against a model that sorts all
 * records. And filters of every selectivity, by whatever plan. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

enum {
    RECORDS = 2500,
    DIM = 16,
    GROUPS = 11,
    QUERIES = 3
};

/* ---- Records: what groups them, and how it is written ---- */

typedef struct thing {
    int group; /* -1: none */
    int64_t n;
    float vector[DIM];
} thing;

static thing things[RECORDS];

static void make(size_t id, uint64_t *random) {
    thing *t = &things[id];
    t->group = (int)support_random_below(random, GROUPS + 3) - 3;
    t->n = (int64_t)support_random_below(random, 1000);
    for (size_t i = 0; i < DIM; i++) t->vector[i] = (float)support_random_below(random, 5); /* many equal scores */
}

static iqdb_result put(iqdb *db, size_t id) {
    static const iqdb_value none[1] = {{IQDB_TYPE_NULL, {false}}};
    const thing *t = &things[id];
    char text[40];
    iqdb_field fields[2];
    size_t count = 1;
    fields[0] = public_field("n", iqdb_int(t->n));
    snprintf(text, sizeof text, "the name of a group: %d", t->group);
    fields[1] = public_field("group", t->group < 4    ? iqdb_text(text)
                                      : t->group == 4 ? iqdb_null()
                                      : t->group == 5 ? iqdb_bool(true)
                                      : id % 2 == 0   ? iqdb_int(t->group)
                                                      : iqdb_float((double)t->group)); /* equal to the integer */
    if (t->group >= 0) count = 2;
    if (t->group == -2) fields[1] = public_field("group", iqdb_array(none, 1));
    if (t->group == -3) fields[1] = public_field("group", iqdb_float(strtod("nan", NULL)));
    if (t->group < -1) count = 2;
    iqdb_record record = public_record(id, t->vector, DIM);
    record.fields = fields;
    record.field_count = count;
    return iqdb_upsert(db, &record);
}

/* ---- The model ---- */

typedef struct form {
    iqdb_query query;
    iqdb_filter filter;
    uint64_t ids[200];
    uint8_t listed[RECORDS];
    int64_t limit;
} form;

static bool even_ids(const iqdb_record *record, void *user) {
    (void)user;
    return record->id % 2 == 0;
}

static int compare_hits(const void *a, const void *b) {
    const iqdb_hit *x = (const iqdb_hit *)a, *y = (const iqdb_hit *)b;
    if (x->score != y->score) return x->score < y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static size_t expect(const form *f, const float *vector, iqdb_hit *out) {
    size_t count = 0, kept = 0;
    for (size_t id = 0; id < RECORDS; id++) {
        iqdb_hit hit;
        memset(&hit, 0, sizeof hit);
        hit.id = id;
        (void)iqdb_distance(IQDB_L2, vector, things[id].vector, DIM, &hit.score);
        if (f->query.filter != NULL && things[id].n >= f->limit) continue;
        if (f->query.ids != NULL && !f->listed[id]) continue;
        if (f->query.predicate != NULL && id % 2 != 0) continue;
        if ((f->query.flags & IQDB_MAX_DISTANCE) != 0 && hit.score > f->query.max_distance) continue;
        if ((f->query.flags & IQDB_AFTER) != 0 && compare_hits(&hit, &f->query.after) <= 0) continue;
        if (f->query.group_by != NULL && things[id].group < 0) continue;
        out[count++] = hit;
    }
    qsort(out, count, sizeof *out, compare_hits);
    for (size_t i = 0; i < count && kept < f->query.k; i++) {
        size_t j = 0;
        while (f->query.group_by != NULL && j < kept && things[out[j].id].group != things[out[i].id].group) j++;
        if (f->query.group_by == NULL || j == kept) out[kept++] = out[i];
    }
    return kept;
}

static void random_form(form *f, uint64_t *random, iqdb_buffer *buffer) {
    memset(f->listed, 0, sizeof f->listed);
    f->query = public_query(NULL, DIM, 1 + (size_t)support_random_below(random, 30), IQDB_L2);
    f->query.buffer = buffer;
    f->limit = (int64_t)(support_random_below(random, 2) ? support_random_below(random, 40)
                                                         : support_random_below(random, 1001));
    f->filter = iqdb_lt("n", iqdb_int(f->limit));
    if (support_random_below(random, 2)) f->query.filter = &f->filter;
    if (support_random_below(random, 2)) f->query.group_by = "group";
    if (support_random_below(random, 4) == 0) f->query.predicate = even_ids;
    if (support_random_below(random, 3) == 0) f->query.flags |= IQDB_WITH_PAYLOAD;
    if (support_random_below(random, 2) == 0) f->query.flags |= IQDB_WITH_VECTOR;
    if (support_random_below(random, 4) == 0) f->query.flags |= IQDB_MAX_DISTANCE;
    f->query.max_distance = 4.0f + (float)support_random_below(random, 5);
    if (support_random_below(random, 3) == 0) f->query.flags |= IQDB_AFTER;
    f->query.after.score = 3.0f + (float)support_random_below(random, 4);
    f->query.after.id = support_random_below(random, RECORDS);
    if (support_random_below(random, 4) != 0) return;
    f->query.ids = f->ids;
    f->query.id_count = (size_t)support_random_below(random, 201);
    for (size_t i = 0; i < f->query.id_count; i++) {
        f->ids[i] = support_random_below(random, RECORDS + 100);
        if (f->ids[i] < RECORDS) f->listed[f->ids[i]] = 1;
    }
}

static void check_hits(const form *f, const float *vector, const iqdb_hit *hits, size_t count) {
    static iqdb_hit wanted[RECORDS];
    const size_t wanted_count = expect(f, vector, wanted);
    CHECK_EQ_INT(count, wanted_count);
    for (size_t i = 0; i < count; i++) {
        CHECK_EQ_U64(hits[i].id, wanted[i].id);
        CHECK_EQ_F32(hits[i].score, wanted[i].score);
        CHECK((hits[i].vector != NULL) == ((f->query.flags & IQDB_WITH_VECTOR) != 0));
        CHECK((hits[i].payload.bytes != NULL) == ((f->query.flags & IQDB_WITH_PAYLOAD) != 0));
        if (hits[i].vector != NULL) CHECK_MEM(hits[i].vector, things[hits[i].id].vector, DIM * sizeof(float));
        if (hits[i].payload.bytes != NULL)
            CHECK_EQ_INT(iqdb_payload_int(hits[i].payload, "n", -1), things[hits[i].id].n);
    }
}

/* A cursor gives the same in pages, though all is replaced meanwhile. */
static void check_cursor(iqdb *db, form *f, const float *vector, bool replaces) {
    static iqdb_hit hits[64];
    iqdb_cursor *cursor;
    bool done = false;
    size_t total = 0, count;
    char key[8] = "group";
    form copy = *f;
    copy.query.vector = vector;
    if (copy.query.group_by != NULL) copy.query.group_by = key; /* needed no longer then */
    const uint32_t flags = copy.query.flags;
    copy.query.flags &= ~(IQDB_WITH_VECTOR | IQDB_WITH_PAYLOAD); /* a page takes the place of the one before */
    CHECK_EQ_INT(iqdb_cursor_open(db, &copy.query, &cursor), IQDB_OK);
    memset(key, 'x', 5);
    for (size_t id = 0; id < RECORDS && replaces; id += 5) CHECK_EQ_INT(put(db, id), IQDB_OK);
    while (!done) {
        CHECK_EQ_INT(iqdb_cursor_step(cursor, 50, hits + total, 4, &count, &done), IQDB_OK);
        total += count;
    }
    iqdb_cursor_close(cursor);
    check_hits(&copy, vector, hits, total);
    f->query.flags = flags;
}

static void run_all(size_t tasks_at, size_t count, void (*task)(size_t index, void *state), void *state) {
    for (size_t i = 0; i < count; i++) task((i + tasks_at) % count, state);
}
static void one_by_one(void (*task)(size_t index, void *state), void *state, size_t count, void *user) {
    (void)user;
    run_all(count / 2, count, task, state);
}

static void run(bool on_disk, bool indexed, bool in_tasks) {
    static const iqdb_index_key keys[2] = {{"n", IQDB_KEY_ORDERED}, {"group", IQDB_KEY_HASH}};
    static form f;
    static iqdb_hit hits[QUERIES * 64];
    char path[SUPPORT_PATH_MAX];
    size_t counts[QUERIES], count;
    float vectors[QUERIES][DIM];
    uint64_t random = 42;
    iqdb *db;
    iqdb_options options = iqdb_options_default();
    iqdb_buffer buffer = iqdb_buffer_default();
    options.files = public_quick_files();
    options.metric = IQDB_L2;
    options.index_keys = indexed ? keys : NULL;
    options.index_key_count = indexed ? 2 : 0;
    if (in_tasks) options.parallel_for.run_fn = one_by_one;
    options.parallel_for.worker_count = in_tasks ? 3 : 0;
    if (on_disk) support_directory(path);
    CHECK_EQ_INT(on_disk ? iqdb_open(path, &options, &db) : iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (int round = 0; round < 2; round++) {
        for (size_t id = 0; id < RECORDS; id++) {
            make(id, &random);
            CHECK_EQ_INT(put(db, id), IQDB_OK);
        }
    }
    if (on_disk) {
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
    }
    for (size_t i = 0; i < support_amount(60, 300, 3000) && test_now.failures == 0; i++) {
        random_form(&f, &random, &buffer);
        for (size_t q = 0; q < QUERIES; q++)
            for (size_t d = 0; d < DIM; d++) vectors[q][d] = (float)support_random_below(&random, 5);
        f.query.vector = vectors[0];
        CHECK_EQ_INT(iqdb_search(db, &f.query, hits, &count), IQDB_OK);
        check_hits(&f, vectors[0], hits, count);
        CHECK_EQ_INT(iqdb_search_batch(db, &f.query, vectors, QUERIES, hits, counts), IQDB_OK);
        for (size_t q = 0; q < QUERIES; q++) check_hits(&f, vectors[q], hits + q * f.query.k, counts[q]);
        if (i % 4 == 0) check_cursor(db, &f, vectors[1], i % 16 == 0);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    iqdb_buffer_free(&buffer);
    if (on_disk) support_remove(path);
}

static void in_memory(void) { run(false, false, false); }
static void in_memory_with_indexes(void) { run(false, true, false); }
static void on_disk_with_indexes(void) { run(true, true, false); }
static void in_tasks(void) { run(false, true, true); }

/* ---- Selectivity ---- */

enum {
    MANY = 20000,
    SMALL = 4
};

static void every_selectivity_finds_the_same(void) {
    static const double parts[] = {0, 0.0001, 0.001, 0.01, 0.1, 0.5, 1};
    static const iqdb_index_key keys[1] = {{"n", IQDB_KEY_ORDERED}};
    static float vectors[MANY][SMALL];
    iqdb_options options = iqdb_options_default();
    iqdb *with, *without;
    uint64_t random = 5;
    options.metric = IQDB_L2;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &without), IQDB_OK);
    options.index_keys = keys;
    options.index_key_count = 1;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &with), IQDB_OK);
    for (size_t id = 0; id < MANY; id++) {
        const iqdb_field field = public_field("n", iqdb_int((int64_t)(id * 7919 % MANY)));
        for (size_t d = 0; d < SMALL; d++) vectors[id][d] = support_random_float(&random);
        iqdb_record record = public_record(id, vectors[id], SMALL);
        record.fields = &field;
        record.field_count = 1;
        CHECK_EQ_INT(iqdb_upsert(with, &record), IQDB_OK);
        CHECK_EQ_INT(iqdb_upsert(without, &record), IQDB_OK);
    }
    for (size_t part = 0; part < sizeof parts / sizeof parts[0]; part++) {
        const size_t wanted = (size_t)(parts[part] * (double)MANY);
        const iqdb_filter filter = iqdb_lt("n", iqdb_int((int64_t)wanted));
        for (int turn = 0; turn < 5; turn++) {
            iqdb_hit a[10], b[10];
            size_t count_a, count_b, nearer = 0;
            float vector[SMALL];
            iqdb_search_info info;
            for (size_t d = 0; d < SMALL; d++) vector[d] = support_random_float(&random);
            iqdb_query query = public_query(vector, SMALL, 10, IQDB_L2);
            query.filter = &filter;
            query.info = &info;
            CHECK_EQ_INT(iqdb_search(without, &query, b, &count_b), IQDB_OK);
            CHECK(info.plan != IQDB_PLAN_KEYS);
            CHECK_EQ_INT(iqdb_search(with, &query, a, &count_a), IQDB_OK);
            /* A tenth is looked for by codes. */
            CHECK(info.complete && info.exact && (info.plan == IQDB_PLAN_KEYS) == (parts[part] < 0.1));
            CHECK(parts[part] >= 0.1 || info.rows_compared <= wanted + 2); /* the row of the end is listed as well */
            CHECK_EQ_INT(count_a, wanted < 10 ? wanted : 10);
            CHECK_EQ_INT(count_b, count_a);
            for (size_t i = 0; i < count_a; i++) {
                CHECK_EQ_U64(a[i].id, b[i].id);
                CHECK_EQ_F32(a[i].score, b[i].score);
                CHECK(a[i].id * 7919 % MANY < wanted);
            }
            for (size_t id = 0; id < MANY && count_a > 0; id++) {
                float score;
                CHECK_EQ_INT(iqdb_distance(IQDB_L2, vector, vectors[id], SMALL, &score), IQDB_OK);
                nearer += id * 7919 % MANY < wanted && score < a[count_a - 1].score;
            }
            CHECK(count_a == 0 || nearer < count_a);
        }
    }
    CHECK_EQ_INT(iqdb_close(with), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(without), IQDB_OK);
}

static void what_makes_no_sense_is_refused(void) {
    iqdb *db;
    iqdb_hit hit;
    size_t count;
    char memory[256];
    const float vector[2] = {1, 2};
    CHECK_EQ_INT(iqdb_open_in_memory(NULL, &db), IQDB_OK);
    CHECK_EQ_INT(public_put(db, 1, vector, 2), IQDB_OK);
    iqdb_query query = public_query(vector, 2, 1, IQDB_L2);
    query.flags = IQDB_WITH_VECTOR;
    CHECK_EQ_INT(iqdb_search(db, &query, &hit, &count), IQDB_ERR_INVALID_ARGUMENT);
    iqdb_buffer buffer = iqdb_buffer_fixed(memory, 4);
    query.buffer = &buffer;
    CHECK_EQ_INT(iqdb_search(db, &query, &hit, &count), IQDB_ERR_LIMIT);
    CHECK(buffer.needed >= 8 && count == 0);
    buffer = iqdb_buffer_fixed(memory, buffer.needed);
    CHECK_EQ_INT(iqdb_search(db, &query, &hit, &count), IQDB_OK);
    CHECK(count == 1 && hit.vector[0] == 1 && hit.vector[1] == 2 && hit.payload.bytes == NULL);
    buffer = iqdb_buffer_fixed(memory, sizeof memory);
    query.group_by = memory;
    memset(memory, 0, sizeof memory);
    CHECK_EQ_INT(iqdb_search(db, &query, &hit, &count), IQDB_ERR_INVALID_ARGUMENT);
    query.group_by = "nothing.there";
    CHECK_EQ_INT(iqdb_search(db, &query, &hit, &count), IQDB_OK);
    CHECK_EQ_INT(count, 0);
    query.flags = 0x20u;
    CHECK_EQ_INT(iqdb_search(db, &query, &hit, &count), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* ---- Recall ---- */

/* Every look at it is a microsecond later, so that a deadline passes after so many looks, wherever that is. */
static uint64_t ticking(void *user) { return ++*(uint64_t *)user; }

/* Against what is counted here; records are their own nearest; and what is not searched to its end is told. */
static void recall_is_what_is_counted(void) {
    enum {
        ROWS = 20000,
        WIDE = 64,
        ASKED = 12
    };
    static float vectors[ROWS][WIDE];
    uint64_t random = 9, time = 0;
    double recall = -1;
    iqdb *db;
    iqdb_options options = iqdb_options_default();
    options.metric = IQDB_L2;
    options.clock_us.now_fn = ticking;
    options.clock_us.user = &time;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    iqdb_query query = public_query(NULL, 0, 10, IQDB_L2);
    CHECK_EQ_INT(iqdb_measure_recall(db, &query, NULL, 100, &recall), IQDB_OK); /* of nothing */
    CHECK(recall == 1);
    for (size_t id = 0; id < ROWS; id++) {
        for (size_t d = 0; d < WIDE; d++) vectors[id][d] = support_random_float(&random);
        CHECK_EQ_INT(public_put(db, id, vectors[id], WIDE), IQDB_OK);
    }
    CHECK_EQ_INT(iqdb_measure_recall(db, &query, vectors, ASKED, &recall), IQDB_OK);
    CHECK(recall == 1);
    CHECK_EQ_INT(iqdb_measure_recall(db, &query, NULL, 7, &recall), IQDB_OK);
    CHECK(recall == 1);
    query.deadline_us = 20;
    const iqdb_filter filter = iqdb_filter_default();
    for (int kind = 0; kind < 2; kind++) {
        /* Records of the first half are found, and the others not, or only in part. */
        size_t found = 0;
        if (kind == 1) query.filter = &filter;
        for (size_t i = 0; i < ASKED; i++) {
            iqdb_hit exact[10], seen[10];
            size_t count;
            iqdb_query one = query;
            one.vector = vectors[i];
            one.deadline_us = 0;
            one.flags = IQDB_EXACT;
            CHECK_EQ_INT(iqdb_search(db, &one, exact, &count), IQDB_OK);
            CHECK_EQ_INT(count, 10);
            one.deadline_us = 20;
            one.flags = 0;
            CHECK_EQ_INT(iqdb_search(db, &one, seen, &count), IQDB_OK);
            for (size_t a = 0; a < count; a++)
                for (size_t b = 0; b < 10; b++) found += seen[a].id == exact[b].id;
        }
        CHECK(found > 0 && found < ASKED * 10);
        CHECK_EQ_INT(iqdb_measure_recall(db, &query, vectors, ASKED, &recall), IQDB_OK);
        CHECK(recall == (double)found / (ASKED * 10));
    }
    query.k = 0;
    CHECK_EQ_INT(iqdb_measure_recall(db, &query, vectors, ASKED, &recall), IQDB_OK);
    CHECK(recall == 1);
    query.k = 1;
    CHECK_EQ_INT(iqdb_measure_recall(db, &query, vectors, 1, NULL), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_measure_recall(NULL, &query, vectors, 1, &recall), IQDB_ERR_INVALID_ARGUMENT);
    query.dim = 3;
    CHECK_EQ_INT(iqdb_measure_recall(db, &query, vectors, 1, &recall), IQDB_ERR_DIMENSION_MISMATCH);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

TEST_MAIN("api/forms", TEST(in_memory), TEST(in_memory_with_indexes), TEST(on_disk_with_indexes), TEST(in_tasks),
          TEST(every_selectivity_finds_the_same), TEST(what_makes_no_sense_is_refused), TEST(recall_is_what_is_counted))
