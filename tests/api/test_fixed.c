/* A database in one block of the caller's: iqdb_memory_required and iqdb_open_in.
 *
 * The model is an array of what each id was last given. For many dimensions, numbers of records and shares of payload, a
 * block of the figure holds all of it and has it replaced over and over; one byte less does not. */
#include "public.h"

enum {
    IDS_MAX = 1300,
    PAYLOAD_MAX = 9000
};

typedef struct model {
    uint32_t dim;
    size_t live[IDS_MAX]; /* payload size of each id, or 0: not there. An empty payload has 4 bytes */
    unsigned version[IDS_MAX];
    size_t count, payload_bytes;
} model;

static void vector_of(const model *m, size_t id, float *vector) {
    uint64_t state = (uint64_t)id * 977 + m->version[id] + 1;
    for (uint32_t i = 0; i < m->dim; i++) vector[i] = support_random_float(&state);
}

/* A payload of exactly `size` encoded bytes (4, or at least 20) whose contents tell id and version. */
static iqdb_payload payload_of(size_t id, unsigned version, size_t size, iqdb_buffer *buffer) {
    static uint8_t bytes[PAYLOAD_MAX];
    iqdb_payload payload;
    payload.bytes = NULL;
    payload.size = 0;
    memset(bytes, (int)(id * 7 + version), sizeof bytes);
    const iqdb_field field = public_field("b", iqdb_bytes(bytes, size < 20 ? 0 : size - 11)); /* 4 + 4, key 2, type 1 */
    EXPECT(iqdb_payload_with(payload, &field, size < 20 ? 0 : 1, buffer, &payload) == IQDB_OK);
    EXPECT(payload.size == size);
    return payload;
}

static iqdb_result put(iqdb *db, model *m, size_t id, size_t size) {
    float vector[800];
    iqdb_buffer buffer = iqdb_buffer_default();
    m->version[id]++;
    vector_of(m, id, vector);
    iqdb_record record = public_record(id, vector, m->dim);
    record.payload = payload_of(id, m->version[id], size, &buffer);
    const iqdb_result result = iqdb_upsert(db, &record);
    iqdb_buffer_free(&buffer);
    if (result != IQDB_OK) {
        m->version[id]--;
        return result;
    }
    m->count += m->live[id] == 0;
    m->payload_bytes += size - m->live[id];
    m->live[id] = size;
    return result;
}

static int take(iqdb *db, model *m, size_t id) {
    bool removed = false;
    if (iqdb_delete(db, id, &removed) != IQDB_OK || removed != (m->live[id] != 0)) return 0;
    m->count -= removed;
    m->payload_bytes -= m->live[id];
    m->live[id] = 0;
    return 1;
}

/* Everything is as the model has it, by gets, a search for all, and a count by a filter. */
static int agrees(iqdb *db, const model *m) {
    static iqdb_hit hits[IDS_MAX];
    static float room[PAYLOAD_MAX];
    float vector[800];
    size_t found = 0, count = 0;
    iqdb_buffer payload_buffer = iqdb_buffer_default(), buffer = iqdb_buffer_fixed(room, sizeof room);
    int right = iqdb_len(db) == m->count;
    for (size_t id = 0; id < IDS_MAX && right; id++) {
        iqdb_record record;
        const iqdb_result result = iqdb_get(db, id, &buffer, &record);
        right = result == (m->live[id] != 0 ? IQDB_OK : IQDB_ERR_NOT_FOUND);
        if (result != IQDB_OK) continue;
        const iqdb_payload payload = payload_of(id, m->version[id], m->live[id], &payload_buffer);
        vector_of(m, id, vector);
        right = right && record.payload.size == payload.size &&
                memcmp(record.payload.bytes, payload.bytes, payload.size) == 0 &&
                memcmp(record.vector, vector, m->dim * sizeof(float)) == 0;
    }
    memset(vector, 0, sizeof vector);
    iqdb_query query = public_query(vector, m->dim, IDS_MAX, IQDB_L2);
    right = right && iqdb_search(db, &query, hits, &found) == IQDB_OK && found == m->count;
    for (size_t i = 0; i < found && right; i++)
        right = m->live[hits[i].id] != 0 && (i == 0 || hits[i].score >= hits[i - 1].score);
    const iqdb_filter filter = iqdb_exists("b");
    size_t wanted = 0;
    for (size_t id = 0; id < IDS_MAX; id++) wanted += m->live[id] >= 20;
    right = right && iqdb_count(db, &filter, &count) == IQDB_OK && count == wanted;
    iqdb_buffer_free(&payload_buffer);
    return right;
}

typedef struct workload {
    uint32_t dim;
    size_t records;
    size_t sizes[IDS_MAX]; /* of payloads */
    size_t payload_bytes;
} workload;

/* kind 0: as small as can be; 1: all alike; 2: of all sizes; 3: one has nearly all. */
static void plan(workload *w, uint32_t dim, size_t records, int kind, uint64_t *state) {
    memset(w, 0, sizeof *w);
    w->dim = dim;
    w->records = records;
    for (size_t i = 0; i < records; i++) {
        w->sizes[i] = kind == 1 ? 53 : kind == 2 ? 20 + support_random(state) % 200 : 4;
        if (kind == 3 && i == 0) w->sizes[i] = 8000;
        w->payload_bytes += w->sizes[i];
    }
}

static iqdb_options options_of(uint32_t dim) {
    iqdb_options options = iqdb_options_default();
    options.dim = dim;
    options.metric = dim % 2 == 0 ? IQDB_L2 : IQDB_DOT;
    options.simd_max = dim % 3 == 0 ? IQDB_SIMD_SCALAR : IQDB_SIMD_BEST;
    return options;
}

/* A block at an odd address with a margin at both ends that nobody may touch. */
typedef struct block {
    uint8_t *whole, *memory;
    size_t size;
} block;

static block block_make(size_t size, uint64_t *state) {
    block made;
    made.whole = (uint8_t *)malloc(size + 192);
    made.memory = made.whole + 64 + support_random(state) % 64;
    made.size = size;
    memset(made.whole, 0xA5, size + 192);
    return made;
}

static int block_end(block *b) {
    int right = 1;
    for (const uint8_t *at = b->whole; at < b->whole + b->size + 192; at++)
        if ((at < b->memory || at >= b->memory + b->size) && *at != 0xA5) right = 0;
    free(b->whole);
    return right;
}

/* Replaces, deletes and inserts at random, never with more at once than was stated. */
static int churn(iqdb *db, model *m, const workload *w, size_t rounds, uint64_t *state) {
    for (size_t i = 0; i < rounds; i++) {
        const size_t id = support_random(state) % IDS_MAX, size = w->sizes[support_random(state) % w->records];
        if (m->live[id] != 0 && support_random(state) % 4 == 0) {
            if (!EXPECT(take(db, m, id))) return 0;
        } else if (m->count + (m->live[id] == 0) <= w->records &&
                   m->payload_bytes - m->live[id] + size <= w->payload_bytes) {
            if (!EXPECT(put(db, m, id, size) == IQDB_OK)) return 0;
        } else {
            const size_t other = support_random(state) % w->records;
            if (m->live[other] != 0 && !EXPECT(put(db, m, other, m->live[other]) == IQDB_OK)) return 0;
        }
    }
    return 1;
}

static int holds_all_of_it(const workload *w, uint64_t *state) {
    static model m;
    iqdb *db = NULL;
    const iqdb_options options = options_of(w->dim);
    const size_t size = iqdb_memory_required(&options, w->records, w->payload_bytes);
    if (!EXPECT(size > 0)) return 0;
    block b = block_make(size, state);
    memset(&m, 0, sizeof m);
    m.dim = w->dim;
    int right = EXPECT(iqdb_open_in(b.memory, b.size, &options, &db) == IQDB_OK);
    for (size_t id = 0; id < w->records && right; id++) right = EXPECT(put(db, &m, id, w->sizes[id]) == IQDB_OK);
    right = right && EXPECT(agrees(db, &m));
    /* It is full: there is no place for as much more as makes a difference, and nothing has happened. */
    right = right && EXPECT(put(db, &m, IDS_MAX - 1, 4 + 28) == IQDB_ERR_NOMEM);
    for (int round = 0; round < 3 && right; round++)
        for (size_t id = 0; id < w->records && right; id++) right = EXPECT(put(db, &m, id, w->sizes[id]) == IQDB_OK);
    right = right && EXPECT(agrees(db, &m));
    /* Where one payload is nearly all, small ones that move may leave no room for it in one piece. */
    if (right && w->records > 0 && w->sizes[0] < 8000)
        right = churn(db, &m, w, 6 * w->records + 200, state) && EXPECT(agrees(db, &m));
    right = EXPECT(iqdb_close(db) == IQDB_OK) && right;
    return EXPECT(block_end(&b)) && right;
}

static int holds_less_in_a_byte_less(const workload *w, uint64_t *state) {
    static model m;
    iqdb *db = NULL;
    const iqdb_options options = options_of(w->dim);
    block b = block_make(iqdb_memory_required(&options, w->records, w->payload_bytes) - 1, state);
    memset(&m, 0, sizeof m);
    m.dim = w->dim;
    iqdb_result result = iqdb_open_in(b.memory, b.size, &options, &db);
    int right = EXPECT(w->records > 0 ? result == IQDB_OK : result == IQDB_ERR_NOMEM && db == NULL);
    for (size_t id = 0; id < w->records && right && result == IQDB_OK; id++) result = put(db, &m, id, w->sizes[id]);
    right = right && EXPECT(result == IQDB_ERR_NOMEM) && (db == NULL || EXPECT(agrees(db, &m)));
    if (right && m.count > 0) { /* it goes on */
        right = EXPECT(take(db, &m, 0)) && EXPECT(put(db, &m, IDS_MAX - 1, 4) == IQDB_OK) && EXPECT(agrees(db, &m));
    }
    right = EXPECT(iqdb_close(db) == IQDB_OK) && right;
    return EXPECT(block_end(&b)) && right;
}

static void the_figure_is_exact(void) {
    static workload w;
    static const uint32_t dims[] = {1, 3, 16, 17, 128, 700};
    static const size_t numbers[] = {0, 1, 2, 3, 7, 16, 33, 100, 1000};
    uint64_t state = 11;
    for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++) {
        for (size_t n = 0; n < sizeof numbers / sizeof numbers[0]; n++) {
            for (int kind = 0; kind < 4; kind++) {
                if (numbers[n] == 1000 && dims[d] > 17) continue;
                plan(&w, dims[d], numbers[n], kind, &state);
                if (holds_all_of_it(&w, &state) && holds_less_in_a_byte_less(&w, &state)) continue;
                printf("\n      with dim %u, %zu records, payloads of kind %d", (unsigned)dims[d], numbers[n], kind);
                return;
            }
        }
    }
}

static void more_is_never_less(void) {
    static workload w;
    static model m;
    uint64_t state = 5;
    plan(&w, 5, 40, 2, &state);
    const iqdb_options options = options_of(w.dim);
    const size_t size = iqdb_memory_required(&options, w.records, w.payload_bytes);
    size_t before = 0;
    for (size_t more = 0; more < 6000; more += 1 + support_random(&state) % 50) {
        iqdb *db = NULL;
        block b = block_make(size + more, &state);
        memset(&m, 0, sizeof m);
        m.dim = w.dim;
        CHECK_EQ_INT(iqdb_open_in(b.memory, b.size, &options, &db), IQDB_OK);
        size_t id = 0;
        while (id < IDS_MAX && put(db, &m, id, 4) == IQDB_OK) id++;
        CHECK(id >= before && id > 40);
        before = id;
        CHECK(iqdb_close(db) == IQDB_OK && block_end(&b));
    }
    CHECK(before > 50);
}

/* Rows that an iterator sees are not given to others; once it is gone they are. */
static void a_snapshot_keeps_its_rows(void) {
    static workload w;
    static model m;
    uint64_t state = 6;
    iqdb *db = NULL;
    plan(&w, 8, 20, 1, &state);
    const iqdb_options options = options_of(w.dim);
    block b = block_make(iqdb_memory_required(&options, w.records, w.payload_bytes), &state);
    memset(&m, 0, sizeof m);
    m.dim = w.dim;
    CHECK_EQ_INT(iqdb_open_in(b.memory, b.size, &options, &db), IQDB_OK);
    for (size_t id = 0; id < w.records; id++) CHECK_EQ_INT(put(db, &m, id, w.sizes[id]), IQDB_OK);
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    iqdb_result result = IQDB_OK;
    size_t written = 0;
    for (; written < 1000 && result == IQDB_OK; written++) result = put(db, &m, written % 20, 53);
    CHECK_EQ_INT(result, IQDB_ERR_BUSY);
    CHECK(written > 1 && agrees(db, &m));
    iqdb_iter_end(&iter);
    for (size_t i = 0; i < 1000; i++) CHECK_EQ_INT(put(db, &m, i % 20, 53), IQDB_OK);
    CHECK(agrees(db, &m));
    CHECK(iqdb_close(db) == IQDB_OK && block_end(&b));
}

/* The other ways to write and read, in a full block. */
static void every_call_works(void) {
    enum {
        COUNT = 64
    };
    uint64_t state = 7;
    iqdb *db = NULL;
    static iqdb_record records[COUNT];
    static float vectors[COUNT][PUBLIC_DIM];
    static uint64_t ids[COUNT];
    iqdb_field field = public_field("year", iqdb_int(2000));
    const iqdb_filter filter = iqdb_eq("year", iqdb_int(2000)), none = iqdb_eq("year", iqdb_int(1));
    const iqdb_options options = options_of(PUBLIC_DIM);
    block b = block_make(iqdb_memory_required(&options, COUNT, COUNT * 32), &state);
    CHECK_EQ_INT(iqdb_open_in(b.memory, b.size, &options, &db), IQDB_OK);
    for (uint64_t i = 0; i < COUNT; i++) {
        public_vector(i, 1, vectors[i]);
        records[i] = public_record(i, vectors[i], PUBLIC_DIM);
        records[i].fields = &field;
        records[i].field_count = 1;
        ids[i] = i;
    }
    size_t removed = 0, count = 0;
    for (int round = 0; round < 50; round++) {
        static iqdb_hit hits[COUNT * 4];
        size_t counts[COUNT];
        CHECK_EQ_INT(iqdb_upsert_batch(db, records, COUNT), IQDB_OK);
        field.value = iqdb_int(2001);
        CHECK_EQ_INT(iqdb_update_payload(db, 9, &field, 1), IQDB_OK);
        field.value = iqdb_int(2000);
        CHECK(iqdb_count(db, &filter, &count) == IQDB_OK && count == COUNT - 1);
        iqdb_query query = public_query(NULL, PUBLIC_DIM, 4, IQDB_L2);
        CHECK_EQ_INT(iqdb_search_batch(db, &query, vectors, COUNT, hits, counts), IQDB_OK);
        for (uint64_t i = 0; i < COUNT; i++) CHECK(counts[i] == 4 && hits[i * 4].id == i && hits[i * 4].score == 0.0f);
        query.filter = &filter;
        CHECK_EQ_INT(iqdb_search_batch(db, &query, vectors, COUNT, hits, counts), IQDB_OK);
        CHECK(hits[9 * 4].id != 9 && hits[8 * 4].id == 8);
        iqdb_iter iters[3]; /* and a search make four at once */
        for (int i = 0; i < 3; i++) iters[i] = iqdb_iter_begin(db, &filter);
        query.vector = vectors[0];
        CHECK(iqdb_search(db, &query, hits, &count) == IQDB_OK && count == 4);
        iqdb_cursor *cursor = NULL, *fifth = NULL; /* or a cursor */
        query.k = COUNT;
        CHECK_EQ_INT(iqdb_cursor_open(db, &query, &cursor), IQDB_OK);
        CHECK_EQ_INT(iqdb_cursor_open(db, &query, &fifth), IQDB_ERR_NOMEM);
        size_t given = 0;
        for (bool done = false; !done; given += count)
            CHECK_EQ_INT(iqdb_cursor_step(cursor, 0, hits + given, 7, &count, &done), IQDB_OK);
        CHECK(given == COUNT - 1 && hits[0].id == 0 && hits[0].score == 0.0f && fifth == NULL);
        for (size_t i = 1; i < given; i++) CHECK(hits[i].score >= hits[i - 1].score && hits[i].id != 9);
        iqdb_cursor_close(cursor);
        for (int i = 0; i < 3; i++) {
            for (count = 0; iqdb_iter_next(&iters[i]);) count++;
            CHECK(iters[i].result == IQDB_OK && count == COUNT - 1);
            iqdb_iter_end(&iters[i]);
        }
        CHECK_EQ_INT(iqdb_delete_where(db, &none, &removed), IQDB_OK);
        CHECK_EQ_INT(iqdb_reserve(db, COUNT), IQDB_OK);
        CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
        CHECK(iqdb_delete_batch(db, ids, COUNT, &removed) == IQDB_OK && removed == COUNT);
        CHECK(iqdb_is_empty(db));
    }
    CHECK_EQ_INT(iqdb_upsert_batch(db, records, COUNT), IQDB_OK);
    CHECK_EQ_INT(iqdb_reserve(db, (size_t)COUNT * 1000), IQDB_ERR_NOMEM);
    CHECK(iqdb_len(db) == COUNT && iqdb_close(db) == IQDB_OK && block_end(&b));
}

static bool count_bytes(const void *bytes, size_t size, void *user) {
    (void)bytes;
    *(size_t *)user += size;
    return true;
}

/* What is no record takes of their room, where there is some, and gives it back. */
static void copies_need_room(void) {
    static workload w;
    static model m;
    uint64_t state = 8;
    plan(&w, 8, 50, 1, &state);
    const iqdb_options options = options_of(w.dim);
    for (size_t more = 0; more <= (size_t)1 << 18; more += (size_t)1 << 18) {
        iqdb *db = NULL;
        size_t size = 0, removed = 0;
        const iqdb_filter filter = iqdb_filter_default();
        block b = block_make(iqdb_memory_required(&options, w.records, w.payload_bytes) + more, &state);
        memset(&m, 0, sizeof m);
        m.dim = w.dim;
        CHECK_EQ_INT(iqdb_open_in(b.memory, b.size, &options, &db), IQDB_OK);
        for (size_t id = 0; id < w.records; id++) CHECK_EQ_INT(put(db, &m, id, w.sizes[id]), IQDB_OK);
        CHECK_EQ_INT(iqdb_export_blob(db, count_bytes, &size), more == 0 ? IQDB_ERR_NOMEM : IQDB_OK);
        CHECK((size > w.payload_bytes) == (more > 0));
        CHECK_EQ_INT(iqdb_reserve(db, w.records), IQDB_OK);
        CHECK(agrees(db, &m) && churn(db, &m, &w, 500, &state) && agrees(db, &m));
        if (more > 0) {
            CHECK_EQ_INT(iqdb_delete_where(db, &filter, &removed), IQDB_OK);
            CHECK(removed == m.count && iqdb_is_empty(db));
        }
        CHECK(iqdb_close(db) == IQDB_OK && block_end(&b));
    }
}

static void bad_arguments(void) {
    iqdb *db = NULL;
    iqdb_error error;
    uint8_t byte[256];
    iqdb_options options = options_of(4);
    const size_t size = iqdb_memory_required(&options, 10, 100);
    CHECK(size > 0 && size == iqdb_memory_required(&options, 10, 100) &&
          size < iqdb_memory_required(&options, 11, 100));
    CHECK_EQ_U64(iqdb_memory_required(NULL, 10, 100), 0);
    CHECK_EQ_U64(iqdb_memory_required(&options, (size_t)-1, 0), 0);
    CHECK_EQ_U64(iqdb_memory_required(&options, 1, (size_t)-1), 0);
    CHECK_EQ_INT(iqdb_open_in(NULL, size, &options, &db), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_open_in(byte, sizeof byte, &options, NULL), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_open_in(byte, 0, &options, &db), IQDB_ERR_NOMEM);
    options.error = &error;
    CHECK_EQ_INT(iqdb_open_in(byte, sizeof byte, &options, &db), IQDB_ERR_NOMEM);
    CHECK(error.code == IQDB_ERR_NOMEM && error.text[0] != 0);
    CHECK_EQ_INT(iqdb_open_in(byte, sizeof byte, NULL, &db), IQDB_ERR_INVALID_CONFIG);
    options.dim = 0;
    CHECK_EQ_U64(iqdb_memory_required(&options, 10, 100), 0);
    CHECK_EQ_INT(iqdb_open_in(byte, sizeof byte, &options, &db), IQDB_ERR_INVALID_CONFIG);
    options.dim = IQDB_DIM_MAX + 1;
    CHECK_EQ_INT(iqdb_open_in(byte, sizeof byte, &options, &db), IQDB_ERR_INVALID_CONFIG);
    CHECK(db == NULL && error.code == IQDB_ERR_INVALID_CONFIG);
}

TEST_MAIN("api/fixed", TEST(the_figure_is_exact), TEST(more_is_never_less), TEST(a_snapshot_keeps_its_rows),
          TEST(every_call_works), TEST(copies_need_room), TEST(bad_arguments))
