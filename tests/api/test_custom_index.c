/* An index of the caller's, by iqdb_index_ops: whatever it offers, answers are min(k, all that match) records with the
 * scores of the definition, in order; what it saves is there again; and what it does wrong is a code or changes nothing. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

#include <pthread.h>

enum {
    DIM = 6,
    IDS = 600,
    ROWS_MAX = 4096
};

/* What the index is to do. */
typedef enum mood {
    ALL,     /* offers all rows that it has */
    HALF,    /* every other one */
    NOTHING, /* none */
    WILD,    /* numbers of any size among them */
    TWICE,   /* all, and again in another order */
    FAILS,   /* some, and then it fails */
    STALE    /* never forgets one */
} mood;

typedef struct toy_plan {
    mood how;
    unsigned refuses_every; /* so many rows one is refused; 0: none */
    bool open_fails;
    uint64_t random;
    size_t search_bytes;
    int save_lies;     /* 1: fails in the first round, 2: in the second; 3: writes less there, 4: more; 5: too much */
    int load_lies;     /* 1 to 5: see toy_load */
    iqdb_result loads; /* what load_fn returns */
    unsigned opened, closed, inserted, removed, searched, rounds, loaded, misused;
    iqdb *db; /* NULL, or calls itself in each function */
    uint32_t dim;
    iqdb_metric metric;
    iqdb_element element;
    pthread_mutex_t mutex;
} toy_plan;

typedef struct toy {
    iqdb_index_host *host;
    uint32_t *rows;
    uint32_t count, room;
} toy;

/* Under the lock of the handle it is BUSY, whatever it is. */
static void misuse(toy_plan *plan) {
    float vector[DIM] = {0};
    if (plan->db == NULL) return;
    EXPECT(public_put(plan->db, 1, vector, DIM) == IQDB_ERR_BUSY);
    EXPECT(iqdb_close(plan->db) == IQDB_ERR_BUSY);
    EXPECT(!iqdb_contains(plan->db, 1));
    plan->misused++;
}

static iqdb_result toy_open(iqdb_index_host *host, void **out_index, void *user) {
    toy_plan *plan = (toy_plan *)user;
    misuse(plan);
    if (plan->open_fails) return IQDB_ERR_IO;
    toy *index = (toy *)iqdb_index_alloc(host, sizeof *index);
    if (index == NULL) return IQDB_ERR_NOMEM;
    index->host = host;
    plan->dim = host->dim;
    plan->metric = host->metric;
    plan->element = host->element;
    plan->opened++;
    *out_index = index;
    return IQDB_OK;
}

static void toy_close(void *user_index, void *user) {
    toy *index = (toy *)user_index;
    ((toy_plan *)user)->closed++;
    iqdb_index_free(index->host, NULL);
    iqdb_index_free(index->host, index->rows);
    iqdb_index_free(index->host, index);
}

static iqdb_result toy_add(toy *index, uint32_t row) {
    if (index->count == index->room) {
        const uint32_t room = index->room == 0 ? 8 : index->room * 2;
        uint32_t *rows = (uint32_t *)iqdb_index_alloc(index->host, room * sizeof *rows);
        if (rows == NULL) return IQDB_ERR_NOMEM;
        if (index->count > 0) memcpy(rows, index->rows, index->count * sizeof *rows);
        iqdb_index_retire(index->host, index->rows);
        index->rows = rows;
        index->room = room;
    }
    index->rows[index->count++] = row;
    return IQDB_OK;
}

static iqdb_result toy_insert(void *user_index, uint32_t row, const void *vector, void *user) {
    toy_plan *plan = (toy_plan *)user;
    toy *index = (toy *)user_index;
    misuse(plan);
    EXPECT(vector == iqdb_index_vector(index->host, row) && (uintptr_t)vector % 8 == 0);
    EXPECT(iqdb_index_vector(index->host, UINT32_MAX) == NULL);
    if (plan->refuses_every != 0 && support_random_below(&plan->random, plan->refuses_every) == 0)
        return IQDB_ERR_LIMIT;
    pthread_mutex_lock(&plan->mutex);
    const iqdb_result result = toy_add(index, row);
    plan->inserted += result == IQDB_OK;
    pthread_mutex_unlock(&plan->mutex);
    return result;
}

static void toy_remove(void *user_index, uint32_t row, void *user) {
    toy_plan *plan = (toy_plan *)user;
    toy *index = (toy *)user_index;
    uint32_t at = 0;
    misuse(plan);
    plan->removed++;
    if (plan->how == STALE) return;
    pthread_mutex_lock(&plan->mutex);
    while (at < index->count && index->rows[at] != row) at++;
    if (EXPECT(at < index->count)) index->rows[at] = index->rows[--index->count];
    pthread_mutex_unlock(&plan->mutex);
}

static size_t toy_search_bytes(const void *index, size_t k, void *user) {
    (void)index;
    return EXPECT(k > 0) ? ((const toy_plan *)user)->search_bytes : 0;
}

static iqdb_result toy_search(const void *user_index, iqdb_index_query *query, void *user) {
    toy_plan *plan = (toy_plan *)user;
    const toy *index = (const toy *)user_index;
    iqdb_result result = IQDB_OK;
    pthread_mutex_lock(&plan->mutex); /* this index is none for the impatient */
    plan->searched++;
    EXPECT((uintptr_t)query->memory % 64 == 0 && (uintptr_t)query->vector % 8 == 0 && query->k > 0);
    if (plan->search_bytes > 0) memset(query->memory, 0xEE, plan->search_bytes);
    if (plan->db != NULL) EXPECT(iqdb_len(plan->db) > 0); /* as a predicate may */
    for (uint32_t i = 0; i < index->count && plan->how != NOTHING; i++) {
        const uint32_t wild = (uint32_t)support_random(&plan->random);
        const uint32_t some[3] = {wild >> wild % 32, UINT32_MAX, wild};
        if (plan->how == HALF && i % 2 == 0) continue;
        if (plan->how == WILD) (void)iqdb_index_offer(query, some, 3);
        if (!iqdb_index_offer(query, &index->rows[i], 1)) break;
        if (plan->how == FAILS && i == 20) result = IQDB_ERR_IO;
        if (result != IQDB_OK) break;
    }
    if (plan->how == TWICE) (void)iqdb_index_offer(query, index->rows, index->count);
    if (plan->how == TWICE)
        for (uint32_t i = index->count; i-- > 0;) (void)iqdb_index_offer(query, &index->rows[i], 1);
    pthread_mutex_unlock(&plan->mutex);
    return result;
}

/* A count and places, some at a time. */
static iqdb_result toy_save(const void *user_index, iqdb_index_io *io, bool *out_done, void *user) {
    toy_plan *plan = (toy_plan *)user;
    const toy *index = (const toy *)user_index;
    iqdb_result result = IQDB_OK;
    misuse(plan);
    if (io->at == 0) plan->rounds++;
    const bool second = plan->rounds % 2 == 0;
    if (plan->save_lies == (second ? 2 : 1) && io->at >= index->count / 2) return IQDB_ERR_NOMEM;
    if (plan->save_lies == 5 && !second) {
        static const char far[1] = {0};
        for (int i = 0; i < 40 && result == IQDB_OK; i++) result = iqdb_index_write(io, far, (size_t)-1 / 64);
        EXPECT(sizeof(size_t) < 8 || result != IQDB_OK);
        return result;
    }
    for (uint64_t end = io->at + 50; io->at < end && io->at < index->count; io->at++) {
        const uint32_t place = iqdb_index_place(io, index->rows[io->at]);
        if (place == UINT32_MAX) continue;
        if (plan->save_lies == 3 && second && io->at % 100 == 7) continue;
        result = iqdb_index_write(io, &place, sizeof place);
        if (plan->save_lies == 4 && second) result = iqdb_index_write(io, &place, sizeof place);
        if (result != IQDB_OK) return plan->save_lies == 4 ? IQDB_OK : result;
    }
    EXPECT(iqdb_index_place(io, UINT32_MAX) == UINT32_MAX && !iqdb_index_restore(io, 0));
    *out_done = io->at >= index->count;
    return IQDB_OK;
}

static iqdb_result toy_load(void *user_index, iqdb_index_io *io, void *user) {
    toy_plan *plan = (toy_plan *)user;
    toy *index = (toy *)user_index;
    iqdb_result result = IQDB_OK;
    uint32_t row;
    misuse(plan);
    plan->loaded++;
    EXPECT(iqdb_index_write(io, &row, sizeof row) != IQDB_OK && iqdb_index_place(io, 0) == UINT32_MAX);
    for (uint64_t at = 0; at + 4 <= io->size && result == IQDB_OK; at += 4) {
        result = iqdb_index_read(io, &row, sizeof row);
        if (result != IQDB_OK) break;
        EXPECT(iqdb_index_restore(io, row) && !iqdb_index_restore(io, row));
        result = toy_add(index, row);
    }
    if (result != IQDB_OK) return result;
    EXPECT(iqdb_index_read(io, &row, 0) == IQDB_OK);
    if (plan->load_lies == 1) (void)iqdb_index_read(io, &row, 1);
    EXPECT(iqdb_index_read(io, &row, 1) == IQDB_ERR_CORRUPT && !iqdb_index_restore(io, io->row_count));
    if (plan->load_lies == 2) io->size = UINT64_MAX; /* says nothing to the library */
    if (plan->load_lies == 2) io->row_count = UINT32_MAX;
    EXPECT(iqdb_index_read(io, &row, 4) == IQDB_ERR_CORRUPT && !iqdb_index_restore(io, UINT32_MAX - 1));
    return plan->loads;
}

/* ---- A database of records in three dimensions and a few more, and what it must answer. ---- */

typedef struct book {
    iqdb *db;
    toy_plan plan;
    iqdb_index_ops ops;
    iqdb_options options;
    iqdb_error error;
    bool there[IDS];
    float vectors[IDS][DIM];
    uint64_t random;
} book;

static book b;

static void begin(iqdb_metric metric) {
    static const book empty = {0};
    b = empty;
    b.random = b.plan.random = 17 + (uint64_t)metric;
    pthread_mutex_init(&b.plan.mutex, NULL);
    b.ops.name = "toy";
    b.ops.open_fn = toy_open;
    b.ops.close_fn = toy_close;
    b.ops.insert_fn = toy_insert;
    b.ops.remove_fn = toy_remove;
    b.ops.search_bytes_fn = toy_search_bytes;
    b.ops.search_fn = toy_search;
    b.ops.save_fn = toy_save;
    b.ops.load_fn = toy_load;
    b.ops.user = &b.plan;
    b.options = iqdb_options_default();
    b.options.metric = metric;
    b.options.index = IQDB_INDEX_CUSTOM;
    b.options.index_ops = &b.ops;
    b.options.error = &b.error;
}

static void start(iqdb_metric metric, mood how) {
    begin(metric);
    b.plan.how = how;
    CHECK_EQ_INT(iqdb_open_in_memory(&b.options, &b.db), IQDB_OK);
}

static void finish(void) {
    CHECK_EQ_INT(iqdb_close(b.db), IQDB_OK);
    CHECK_EQ_U64(b.plan.opened, b.plan.closed);
    pthread_mutex_destroy(&b.plan.mutex);
}

static void put(uint64_t id) {
    iqdb_field field = public_field("part", iqdb_int((int64_t)(id % 10)));
    iqdb_record record = public_record(id, b.vectors[id], DIM);
    for (int i = 0; i < DIM; i++) b.vectors[id][i] = support_random_float(&b.random);
    record.fields = &field;
    record.field_count = 1;
    CHECK_EQ_INT(iqdb_upsert(b.db, &record), IQDB_OK);
    b.there[id] = true;
}

static void change(size_t count) {
    for (size_t i = 0; i < count; i++) {
        const uint64_t id = support_random_below(&b.random, IDS);
        if (support_random_below(&b.random, 3) > 0) {
            put(id);
        } else {
            CHECK_EQ_INT(iqdb_delete(b.db, id, NULL), IQDB_OK);
            b.there[id] = false;
        }
    }
}

static void settle(void) {
    bool done = false;
    for (int i = 0; i < 100000 && !done; i++) CHECK_EQ_INT(iqdb_maintain(b.db, 1000, &done), IQDB_OK);
    CHECK(done);
}

static iqdb_stats facts(void) {
    iqdb_stats stats;
    memset(&stats, 0, sizeof stats);
    EXPECT(iqdb_stat(b.db, &stats) == IQDB_OK);
    return stats;
}

static bool is_even(const iqdb_record *record, void *user) {
    (void)user;
    return record->id % 2 == 0;
}

/* A question with one of some conditions: as many answers as the model has, each true; `exact`: the same ones. */
static void ask(size_t k, int condition, bool exact) {
    static const uint64_t ids[] = {3, 5, 90, 91, 92, 400, 5};
    float vector[DIM];
    iqdb_hit hits[IDS];
    iqdb_search_info info;
    size_t count = 0, matches = 0, near = 0;
    const iqdb_metric metric = b.options.metric;
    const iqdb_filter filter = iqdb_lt("part", iqdb_int(condition == 2 ? 1 : 6));
    iqdb_query query = iqdb_query_default();
    for (int i = 0; i < DIM; i++) vector[i] = support_random_float(&b.random);
    query.vector = vector;
    query.k = k;
    query.info = &info;
    query.nprobe = 3;
    if (condition == 1 || condition == 2) query.filter = &filter;
    if (condition == 3) query.predicate = is_even;
    if (condition == 4) query.ids = ids;
    if (condition == 4) query.id_count = sizeof ids / sizeof ids[0];
    if (condition == 5) query.flags = IQDB_MAX_DISTANCE;
    query.max_distance = metric == IQDB_DOT ? 0.0f : 0.9f;
    CHECK_EQ_INT(iqdb_search(b.db, &query, hits, &count), IQDB_OK);
    for (uint64_t id = 0; id < IDS; id++) {
        const float score = model_score(metric, vector, b.vectors[id], DIM);
        bool fits = b.there[id];
        if (condition == 1) fits = fits && id % 10 < 6;
        if (condition == 2) fits = fits && id % 10 < 1;
        if (condition == 3) fits = fits && id % 2 == 0;
        if (condition == 4) fits = fits && (id == 3 || id == 5 || (id >= 90 && id <= 92) || id == 400);
        if (condition == 5) fits = fits && score <= query.max_distance;
        matches += fits;
        for (size_t i = 0; i < count; i++) {
            if (hits[i].id != id) continue;
            CHECK(fits);
            CHECK_EQ_F32(hits[i].score, score);
        }
        near += fits && count > 0 &&
                (score < hits[count - 1].score || (score == hits[count - 1].score && id <= hits[count - 1].id));
    }
    CHECK_EQ_U64(count, matches < k ? matches : k);
    CHECK(info.complete);
    for (size_t i = 1; i < count; i++) {
        CHECK(hits[i].score > hits[i - 1].score || (hits[i].score == hits[i - 1].score && hits[i].id > hits[i - 1].id));
    }
    if (exact || info.exact) CHECK_EQ_U64(near, count);
}

static void ask_all(bool exact) {
    static const size_t counts[] = {1, 7, 60, IDS};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        for (int condition = 0; condition < 6; condition++) ask(counts[i], condition, exact);
}

/* ---- */

static void answers_are_right_whatever_it_offers(void) {
    static const mood moods[] = {ALL, HALF, NOTHING, WILD, TWICE, FAILS, STALE};
    static const iqdb_metric metrics[] = {IQDB_L2, IQDB_COSINE, IQDB_DOT, IQDB_L1};
    for (size_t i = 0; i < sizeof moods / sizeof moods[0]; i++) {
        start(metrics[i % 4], moods[i]);
        b.plan.search_bytes = i * 100;
        for (int round = 0; round < 12; round++) {
            change(round == 0 ? 500 : 100);
            if (round % 3 == 2) settle();
            const iqdb_stats stats = facts();
            CHECK(round == 0 || stats.index_rows > 0);
            CHECK_EQ_INT(stats.index, stats.index_rows > 0 ? IQDB_INDEX_CUSTOM : IQDB_INDEX_FLAT);
            CHECK_EQ_U64(stats.index_rows, b.plan.inserted - b.plan.removed);
            if (round % 3 == 2) CHECK_EQ_U64(stats.tail_rows, 0);
            ask_all(moods[i] != HALF && moods[i] != NOTHING);
            CHECK_EQ_INT(iqdb_verify(b.db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
        }
        CHECK(b.plan.searched > 100 && b.plan.removed > 100);
        CHECK_EQ_U64(b.plan.dim, DIM);
        CHECK_EQ_INT(b.plan.metric, metrics[i % 4]);
        finish();
    }
}

/* What a search went by, and what it compared. */
static void searches_say_so(void) {
    iqdb_search_info info;
    iqdb_hit hits[3];
    size_t count;
    float vector[DIM] = {1, 0, 0, 0, 0, 0};
    start(IQDB_L2, HALF);
    for (uint64_t id = 0; id < 400; id++) put(id);
    settle();
    iqdb_query query = public_query(vector, DIM, 3, IQDB_METRIC_DEFAULT);
    query.info = &info;
    CHECK_EQ_INT(iqdb_search(b.db, &query, hits, &count), IQDB_OK);
    CHECK_EQ_INT(info.plan, IQDB_PLAN_CUSTOM);
    CHECK_EQ_U64(info.rows_compared, 200);
    CHECK(!info.exact && info.complete);
    query.flags = IQDB_EXACT;
    CHECK_EQ_INT(iqdb_search(b.db, &query, hits, &count), IQDB_OK);
    CHECK(info.exact && info.plan != IQDB_PLAN_CUSTOM);
    query.flags = 0;
    query.metric = IQDB_L1;
    CHECK_EQ_INT(iqdb_search(b.db, &query, hits, &count), IQDB_OK);
    CHECK(info.exact && info.plan != IQDB_PLAN_CUSTOM);
    query.metric = IQDB_L2;
    b.plan.search_bytes = (size_t)-1; /* more than there is: without it */
    CHECK_EQ_INT(iqdb_search(b.db, &query, hits, &count), IQDB_OK);
    CHECK(count == 3 && info.exact);
    b.plan.search_bytes = (size_t)1 << 62;
    CHECK_EQ_INT(iqdb_search(b.db, &query, hits, &count), IQDB_OK);
    CHECK(count == 3 && info.exact);
    CHECK_EQ_INT(iqdb_tune(b.db, 0.9f, NULL, 0), IQDB_OK);
    finish();
}

static void refused_rows_are_found_all_the_same(void) {
    start(IQDB_L2, ALL);
    b.plan.refuses_every = 3;
    change(900);
    settle();
    CHECK(facts().tail_rows > 0 && facts().index_rows > 0);
    ask_all(true);
    b.plan.open_fails = true;
    CHECK_EQ_INT(iqdb_reindex(b.db, NULL), IQDB_OK); /* AUTO */
    CHECK_EQ_INT(iqdb_reindex(b.db, &b.options), IQDB_OK);
    change(200);
    CHECK_EQ_U64(facts().index_rows, 0);
    ask_all(true);
    b.plan.open_fails = false;
    b.plan.refuses_every = 0;
    settle();
    CHECK_EQ_U64(facts().tail_rows, 0);
    finish();
}

static void every_element_has_one(void) {
    static const iqdb_element elements[] = {IQDB_ELEMENT_F16, IQDB_ELEMENT_I8, IQDB_ELEMENT_U8, IQDB_ELEMENT_BIT};
    for (size_t e = 0; e < 4; e++) {
        uint8_t raw[16], asked[16] = {0};
        iqdb_hit hits[5];
        size_t count;
        begin(IQDB_METRIC_DEFAULT);
        b.options.element = elements[e];
        CHECK_EQ_INT(iqdb_open_in_memory(&b.options, &b.db), IQDB_OK);
        for (uint64_t id = 0; id < 100; id++) {
            iqdb_record record = public_record(id, NULL,
                                               elements[e] == IQDB_ELEMENT_F16   ? 8
                                               : elements[e] == IQDB_ELEMENT_BIT ? 128
                                                                                 : 16);
            for (int i = 0; i < 16; i++) raw[i] = (uint8_t)(support_random(&b.random) & 0x3B);
            if (id == 77) memcpy(asked, raw, sizeof raw);
            record.raw = raw;
            CHECK_EQ_INT(iqdb_upsert(b.db, &record), IQDB_OK);
        }
        settle();
        iqdb_query query = public_query(NULL, 0, 5, IQDB_METRIC_DEFAULT);
        query.raw = asked;
        b.plan.searched = 0;
        CHECK_EQ_INT(iqdb_search(b.db, &query, hits, &count), IQDB_OK);
        CHECK(count == 5 && hits[0].id == 77 && b.plan.searched == 1);
        CHECK_EQ_INT(b.plan.element, elements[e]);
        CHECK_EQ_U64(facts().index_rows, 100);
        finish();
    }
}

/* ---- storing ---- */

typedef struct blob {
    uint8_t *bytes;
    size_t size, room;
} blob;

static bool append(const void *bytes, size_t size, void *user) {
    blob *out = (blob *)user;
    if (out->size + size > out->room) {
        out->room = 2 * (out->size + size);
        out->bytes = (uint8_t *)realloc(out->bytes, out->room);
    }
    memcpy(out->bytes + out->size, bytes, size);
    out->size += size;
    return true;
}

/* The blob in the place of the database; `result`: what that gives. */
static void load(const blob *from, iqdb_result result) {
    CHECK_EQ_INT(iqdb_close(b.db), IQDB_OK);
    b.db = NULL;
    b.plan.inserted = b.plan.removed = 0;
    CHECK_EQ_INT(iqdb_load_blob(from->bytes, from->size, &b.options, &b.db), result);
    const iqdb_error error = b.error;
    if (b.db == NULL) CHECK_EQ_INT(iqdb_open_in_memory(&b.options, &b.db), IQDB_OK);
    b.error = error;
}

static void it_is_there_again(void) {
    blob out = {NULL, 0, 0};
    start(IQDB_COSINE, ALL);
    change(900);
    settle();
    const uint64_t rows = facts().index_rows;
    CHECK_EQ_INT(iqdb_export_blob(b.db, append, &out), IQDB_OK);
    CHECK_EQ_U64(b.plan.rounds, 2);
    load(&out, IQDB_OK);
    CHECK_EQ_U64(facts().index_rows, facts().records);
    CHECK(facts().index_rows <= rows && b.plan.inserted == 0 && b.plan.loaded == 1);
    ask_all(true);
    b.plan.removed = 0;
    change(300);
    settle();
    ask_all(true);
    /* In place there is none; nor is it an error. */
    iqdb *view = NULL;
    CHECK_EQ_INT(iqdb_open_blob(out.bytes, out.size, NULL, &view), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(view), IQDB_OK);
    /* What load_fn says is told, and leaves no mark behind. */
    b.plan.load_lies = 2;
    load(&out, IQDB_OK);
    b.plan.load_lies = 0;
    b.plan.loads = IQDB_ERR_NOT_FOUND;
    load(&out, IQDB_OK);
    CHECK_EQ_U64(facts().index_rows, 0);
    CHECK_EQ_U64(facts().tail_rows, facts().records);
    b.plan.loads = IQDB_ERR_NOMEM;
    load(&out, IQDB_ERR_NOMEM);
    b.plan.loads = IQDB_ERR_IO;
    load(&out, IQDB_ERR_CORRUPT);
    CHECK(strstr(b.error.text, "load_fn") != NULL);
    b.options.rebuild_damaged_index = true;
    load(&out, IQDB_OK);
    CHECK_EQ_U64(facts().index_rows, 0);
    b.options.rebuild_damaged_index = false;
    b.plan.loads = IQDB_OK;
    b.plan.open_fails = true; /* it is made when it can be */
    load(&out, IQDB_OK);
    CHECK_EQ_U64(facts().index_rows, 0);
    b.plan.open_fails = false;
    settle();
    CHECK_EQ_U64(facts().index_rows, facts().records);
    finish();
    free(out.bytes);
}

/* Whatever save_fn does, the copy is whole; but there may be no index in it. */
static void saving_goes_wrong(void) {
    for (int lies = 0; lies <= 5; lies++) {
        blob out = {NULL, 0, 0};
        start(IQDB_L2, ALL);
        change(900);
        settle();
        b.plan.save_lies = lies;
        CHECK_EQ_INT(iqdb_export_blob(b.db, append, &out), IQDB_OK);
        b.plan.rounds = 0;
        load(&out, IQDB_OK);
        CHECK_EQ_U64(facts().index_rows, lies == 0 ? facts().records : 0);
        ask_all(true);
        finish();
        free(out.bytes);
    }
    /* Without save_fn it is made anew. */
    blob out = {NULL, 0, 0};
    begin(IQDB_L2);
    b.ops.save_fn = NULL;
    b.ops.load_fn = NULL;
    CHECK_EQ_INT(iqdb_open_in_memory(&b.options, &b.db), IQDB_OK);
    change(900);
    settle();
    CHECK_EQ_INT(iqdb_export_blob(b.db, append, &out), IQDB_OK);
    load(&out, IQDB_OK);
    CHECK_EQ_U64(facts().index_rows, 0);
    settle();
    CHECK_EQ_U64(facts().index_rows, facts().records);
    finish();
    free(out.bytes);
}

static void reopen(const char *path, iqdb_result result) {
    if (b.db != NULL) CHECK_EQ_INT(iqdb_close(b.db), IQDB_OK);
    b.db = NULL;
    memset(&b.error, 0, sizeof b.error);
    const iqdb_result opened = iqdb_open(path, &b.options, &b.db);
    if (opened != result) printf("\n      ... %s: %s", b.error.file, b.error.text);
    CHECK_EQ_INT(opened, result);
}

static void directories_know_its_name(void) {
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    static const iqdb_index others[] = {IQDB_INDEX_FLAT, IQDB_INDEX_IVF, IQDB_INDEX_HNSW};
    support_directory(folder);
    support_join(path, folder, "db");
    begin(IQDB_L2);
    reopen(path, IQDB_OK);
    change(700);
    settle();
    CHECK_EQ_INT(iqdb_checkpoint(b.db), IQDB_OK);
    change(50); /* in the log */
    const unsigned inserted = b.plan.inserted;
    reopen(path, IQDB_OK);
    CHECK_EQ_U64(b.plan.loaded, 1);
    settle();
    CHECK(b.plan.inserted - inserted <= 100);
    ask_all(true);
    b.options.index = IQDB_INDEX_AUTO; /* what is there stays */
    reopen(path, IQDB_OK);
    CHECK(facts().index == IQDB_INDEX_CUSTOM);
    b.options.read_only = true;
    reopen(path, IQDB_OK);
    CHECK(facts().index == IQDB_INDEX_CUSTOM && b.plan.loaded == 3);
    ask_all(true);
    b.options.read_only = false;
    b.ops.name = "another";
    reopen(path, IQDB_ERR_INVALID_CONFIG);
    CHECK(strstr(b.error.text, "'toy'") != NULL);
    b.options.index_ops = NULL;
    reopen(path, IQDB_ERR_INVALID_CONFIG);
    CHECK(strstr(b.error.text, "'toy'") != NULL);
    for (size_t i = 0; i < 3; i++) {
        b.options.index = others[i];
        reopen(path, IQDB_OK);
        CHECK(facts().index != IQDB_INDEX_CUSTOM);
        ask_all(others[i] == IQDB_INDEX_FLAT);
        CHECK_EQ_INT(iqdb_close(b.db), IQDB_OK);
        b.db = NULL;
    }
    CHECK_EQ_U64(b.plan.opened, b.plan.closed);
    support_remove(folder);
}

static void it_can_be_chosen(void) {
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX], copy[SUPPORT_PATH_MAX];
    support_directory(folder);
    support_join(path, folder, "db");
    begin(IQDB_L2);
    const iqdb_options wanted = b.options;
    b.options.index = IQDB_INDEX_AUTO;
    b.options.index_ops = NULL;
    reopen(path, IQDB_OK);
    change(300);
    CHECK_EQ_INT(iqdb_reindex(b.db, &wanted), IQDB_ERR_INVALID_CONFIG);
    CHECK(strstr(b.error.text, "index_ops") != NULL);
    b.options.index_ops = &b.ops;
    reopen(path, IQDB_OK);
    CHECK_EQ_INT(iqdb_reindex(b.db, &wanted), IQDB_OK);
    settle();
    CHECK(facts().index == IQDB_INDEX_CUSTOM && facts().tail_rows == 0);
    reopen(path, IQDB_OK); /* from the log */
    CHECK(facts().index_wanted == IQDB_INDEX_CUSTOM);
    CHECK_EQ_INT(iqdb_close(b.db), IQDB_OK);
    b.db = NULL;
    for (int i = 0; i < 2; i++) { /* repair needs no index, whatever options say of one */
        iqdb_options other = iqdb_options_default();
        other.index = IQDB_INDEX_IVF;
        other.memory_max = 1000;
        support_join(copy, folder, i == 0 ? "one" : "other");
        CHECK_EQ_INT(iqdb_repair(path, copy, i == 0 ? NULL : &other, NULL, NULL), IQDB_OK);
        reopen(copy, IQDB_OK);
        CHECK(facts().index_wanted == IQDB_INDEX_CUSTOM);
        settle();
        ask_all(true);
        b.options.index_ops = NULL;
        reopen(copy, IQDB_ERR_INVALID_CONFIG);
        b.options.index_ops = &b.ops;
    }
    reopen(path, IQDB_OK);
    b.options.index_ops = NULL;
    reopen(path, IQDB_ERR_INVALID_CONFIG);
    CHECK(strstr(b.error.text, "index_ops") != NULL);
    b.options.index = IQDB_INDEX_FLAT; /* the code is lost: the records are not */
    reopen(path, IQDB_OK);
    ask_all(true);
    b.options.index = IQDB_INDEX_AUTO;
    CHECK_EQ_INT(iqdb_reindex(b.db, &b.options), IQDB_OK);
    reopen(path, IQDB_OK);
    CHECK_EQ_INT(iqdb_close(b.db), IQDB_OK);
    CHECK_EQ_U64(b.plan.opened, b.plan.closed);
    support_remove(folder);
}

/* Each collection has one of its own. */
static void collections_have_one_each(void) {
    iqdb *side = NULL;
    float vector[4] = {1, 2, 3, 4};
    iqdb_hit hits[2];
    size_t count;
    start(IQDB_L2, ALL);
    CHECK_EQ_INT(iqdb_collection(b.db, "side", &b.options, &side), IQDB_OK);
    change(100);
    for (uint64_t id = 0; id < 50; id++, vector[0] += 1) CHECK_EQ_INT(public_put(side, id, vector, 4), IQDB_OK);
    settle();
    CHECK_EQ_U64(b.plan.opened, 2);
    b.plan.searched = 0;
    const iqdb_query query = public_query(vector, 4, 2, IQDB_METRIC_DEFAULT);
    CHECK_EQ_INT(iqdb_search(side, &query, hits, &count), IQDB_OK);
    CHECK(count == 2 && hits[0].id == 49 && b.plan.searched == 1);
    ask_all(true);
    CHECK_EQ_INT(iqdb_close(side), IQDB_OK);
    CHECK_EQ_INT(iqdb_collection_drop(b.db, "side"), IQDB_OK);
    settle();
    finish();
}

static void bad_tables_are_refused(void) {
    begin(IQDB_L2);
    const iqdb_index_ops good = b.ops;
    for (int i = 0; i < 11; i++) {
        b.ops = good;
        if (i == 0) b.ops.name = NULL;
        if (i == 1) b.ops.name = "";
        if (i == 2) b.ops.name = "a name that has more than thirty-one bytes";
        if (i == 3) b.ops.open_fn = NULL;
        if (i == 4) b.ops.close_fn = NULL;
        if (i == 5) b.ops.insert_fn = NULL;
        if (i == 6) b.ops.remove_fn = NULL;
        if (i == 7) b.ops.search_fn = NULL;
        if (i == 8) b.ops.save_fn = NULL;
        if (i == 9) b.ops.load_fn = NULL;
        if (i == 10) b.options.index_ops = NULL;
        CHECK_EQ_INT(iqdb_open_in_memory(&b.options, &b.db), IQDB_ERR_INVALID_CONFIG);
        CHECK(strstr(b.error.text, "index_ops") != NULL);
    }
    b.options.index_ops = &b.ops;
    b.ops = good;
    b.ops.name = "a name of thirty-one bytes: yes";
    b.ops.search_bytes_fn = NULL;
    CHECK_EQ_INT(iqdb_open_in_memory(&b.options, &b.db), IQDB_OK);
    change(50);
    settle();
    ask_all(true);
    finish();
}

static void it_may_not_call_the_handle(void) {
    blob out = {NULL, 0, 0};
    start(IQDB_L2, ALL);
    b.plan.db = b.db;
    change(200);
    settle();
    ask(5, 0, true);
    CHECK_EQ_INT(iqdb_export_blob(b.db, append, &out), IQDB_OK);
    CHECK(b.plan.misused > 100);
    finish();
    free(out.bytes);
}

/* Each allocation of a life fails: then there are fewer rows in it, and answers are right. */
static void memory_fails(void) {
    for (size_t at = 1;; at++) {
        support_heap heap = support_heap_make();
        blob out = {NULL, 0, 0};
        begin(IQDB_L2);
        b.options.allocator = support_allocator(&heap);
        heap.fail_at = at;
        iqdb_result result = iqdb_open_in_memory(&b.options, &b.db);
        for (uint64_t id = 0; id < 70 && result == IQDB_OK; id++) {
            float vector[DIM] = {(float)id, 1, 0, 0, 0, 0};
            result = public_put(b.db, id, vector, DIM);
            memcpy(b.vectors[id], vector, sizeof vector);
            b.there[id] = result == IQDB_OK;
            if (result == IQDB_ERR_NOMEM) result = IQDB_OK;
        }
        if (b.db != NULL) {
            bool done;
            for (int i = 0; i < 3; i++) EXPECT(iqdb_maintain(b.db, 100000, &done) == IQDB_OK);
            result = iqdb_export_blob(b.db, append, &out);
            CHECK(result == IQDB_OK || result == IQDB_ERR_NOMEM);
            if (heap.fail_at == 0) ask(10, 0, true);
            if (result == IQDB_OK && heap.fail_at == 0) load(&out, IQDB_OK);
            if (heap.fail_at == 0) ask(10, 0, true);
            CHECK_EQ_INT(iqdb_close(b.db), IQDB_OK);
        }
        free(out.bytes);
        CHECK_EQ_U64(b.plan.opened, b.plan.closed);
        CHECK_EQ_U64(support_heap_problems(&heap), 0);
        if (heap.failed == 0) break;
    }
}

/* Others search while one writes, through a lock of the index's own. */
static void *search_on(void *user) {
    float vector[DIM] = {0.5f, 0, 0, 0, 0, 0};
    iqdb_hit hits[10];
    size_t count, *rounds = (size_t *)user;
    const iqdb_query query = public_query(vector, DIM, 10, IQDB_METRIC_DEFAULT);
    for (size_t i = 0; i < *rounds; i++) {
        EXPECT(iqdb_search(b.db, &query, hits, &count) == IQDB_OK && count == 10);
        for (size_t j = 1; j < count; j++) EXPECT(hits[j].score >= hits[j - 1].score && hits[j].id != hits[j - 1].id);
    }
    return NULL;
}

static void threads_search_beside_writes(void) {
    pthread_t threads[2];
    size_t rounds = support_amount(50, 300, 1000);
    start(IQDB_L2, WILD);
    for (uint64_t id = 0; id < IDS; id++) put(id);
    for (int i = 0; i < 2; i++) CHECK_EQ_INT(pthread_create(&threads[i], NULL, search_on, &rounds), 0);
    for (uint64_t i = 0; i < 4 * rounds; i++) put(support_random_below(&b.random, IDS));
    for (int i = 0; i < 2; i++) CHECK_EQ_INT(pthread_join(threads[i], NULL), 0);
    settle();
    ask_all(true);
    finish();
}

TEST_MAIN("api/custom_index", TEST(answers_are_right_whatever_it_offers), TEST(searches_say_so),
          TEST(refused_rows_are_found_all_the_same), TEST(every_element_has_one), TEST(it_is_there_again),
          TEST(saving_goes_wrong), TEST(directories_know_its_name), TEST(it_can_be_chosen),
          TEST(collections_have_one_each), TEST(bad_tables_are_refused), TEST(it_may_not_call_the_handle),
          TEST(memory_fails), TEST(threads_search_beside_writes))
