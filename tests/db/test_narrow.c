/* Narrow codes: answers are those of a scan without codes, bit by bit, before they are made, while they are, and after,
 * over writes, deletes, rows that their basis was not made for, snapshots, and damage. The model is a plain database in
 * memory, without codes. */
#include "db/db.h"
#include "fuzz/forge.h"
#include "persist/sections.h"
#include "support.h"

enum {
    DIM_MAX = 200,
    K_MAX = 1500,
    RANK = 20
};

typedef struct stage {
    fault_files *disk;
    iqdb_options options;
    iqdb_error error;
    iqdb *db, *plain;
    uint64_t random, entropy;
    uint32_t dim;
    uint64_t drift; /* rows of another kind are put where it is not 0 */
} stage;

static stage s;

static void start(iqdb_metric metric, iqdb_element element, uint32_t dim) {
    iqdb_options plain = iqdb_options_default();
    memset(&s, 0, sizeof s);
    s.disk = fault_new(NULL);
    s.random = s.entropy = 5 + dim;
    s.dim = dim;
    s.options = iqdb_options_default();
    s.options.files = fault_table(s.disk);
    s.options.entropy.fill_fn = world_entropy;
    s.options.entropy.user = &s.entropy;
    s.options.error = &s.error;
    s.options.metric = plain.metric = metric;
    s.options.element = plain.element = element;
    s.options.index = plain.index = IQDB_INDEX_FLAT;
    plain.no_codes = true;
    CHECK_EQ_INT(iqdb_open("db", &s.options, &s.db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open_in_memory(&plain, &s.plain), IQDB_OK);
}

static void finish(void) {
    if (s.db != NULL) EXPECT(iqdb_close(s.db) == IQDB_OK);
    EXPECT(iqdb_close(s.plain) == IQDB_OK);
    EXPECT(s.disk->open_files + s.disk->open_dirs + s.disk->open_maps == 0);
    fault_free(s.disk);
}

/* RANK directions around a centre, each shorter than the one before, and a little of all. */
static void row_of(float *row, uint64_t id, uint64_t kind) {
    uint64_t random = id * 31 + 7 + kind;
    for (uint32_t d = 0; d < s.dim; d++) row[d] = 3.0f + 0.05f * support_random_float(&random);
    for (uint32_t j = 0; j < RANK; j++) {
        uint64_t direction = 99 + j + 1000 * kind;
        const float much = (support_random_float(&random) - 0.5f) * (float)(RANK + 4 - j) / RANK;
        for (uint32_t d = 0; d < s.dim; d++) row[d] += much * (support_random_float(&direction) - 0.5f);
    }
    if (id % 1000 == 77) memset(row, 0, s.dim * sizeof *row);
    if (id % 1000 == 78) row[id % s.dim] = 1e6f;
}

/* As a half, cut off: what is too small is 0, what is too large 32,000. */
static uint16_t half_of(float value) {
    uint32_t bits;
    if (value > 32000.0f) value = 32000.0f;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t exponent = bits >> 23 & 0xFF;
    if (exponent < 113) return 0;
    return (uint16_t)(bits >> 31 << 15 | (exponent - 112) << 10 | (bits >> 13 & 0x3FF));
}

/* The vector as the rows of the collections have it; NULL: as it is. */
static const void *raw_of(const float *vector, uint16_t *room) {
    uint8_t *bytes = (uint8_t *)room;
    if (s.options.element == IQDB_ELEMENT_F32) return NULL;
    for (uint32_t d = 0; d < s.dim && s.options.element == IQDB_ELEMENT_F16; d++) room[d] = half_of(vector[d]);
    for (uint32_t d = 0; d < s.dim && s.options.element == IQDB_ELEMENT_U8; d++)
        bytes[d] = (uint8_t)(vector[d] * 40.0f < 255.0f ? vector[d] * 40.0f : 255.0f);
    return room;
}

static void put(uint64_t id, uint64_t kind) {
    float row[DIM_MAX];
    uint16_t room[DIM_MAX];
    iqdb_record record = iqdb_record_default();
    row_of(row, id, kind);
    record.id = id;
    record.dim = s.dim;
    record.raw = raw_of(row, room);
    if (record.raw == NULL) record.vector = row;
    CHECK_EQ_INT(iqdb_upsert(s.db, &record), IQDB_OK);
    CHECK_EQ_INT(iqdb_upsert(s.plain, &record), IQDB_OK);
}

static void change(size_t count, uint64_t ids, uint64_t kind) {
    for (size_t i = 0; i < count; i++) {
        const uint64_t id = support_random_below(&s.random, ids);
        if (support_random_below(&s.random, 3) > 0) {
            put(id, kind);
            continue;
        }
        CHECK_EQ_INT(iqdb_delete(s.db, id, NULL), IQDB_OK);
        CHECK_EQ_INT(iqdb_delete(s.plain, id, NULL), IQDB_OK);
    }
}

static bool is_third(const iqdb_record *record, void *user) {
    (void)user;
    return record->id % 3 == 0;
}

static uint64_t compared; /* vectors in full, of the last searches */

/* Every kind of search. */
static void ask(size_t count) {
    static iqdb_hit hits[K_MAX], expected[K_MAX];
    static uint64_t ids[4000];
    compared = 0;
    for (size_t i = 0; i < count; i++) {
        float vector[DIM_MAX] = {0};
        uint16_t room[DIM_MAX];
        size_t found, wanted;
        iqdb_search_info info;
        iqdb_query query = iqdb_query_default();
        row_of(vector, support_random_below(&s.random, 100000), i % 7 == 6 ? 4 : 0);
        if (i == 8) memset(vector, 0, sizeof vector);
        query.dim = s.dim;
        query.raw = raw_of(vector, room);
        if (query.raw == NULL) query.vector = vector;
        query.k = i % 5 == 0 ? 1 : i % 11 == 3 ? K_MAX : 10;
        if (i % 6 == 1) query.predicate = is_third;
        if (i % 6 == 2) {
            for (size_t j = 0; j < IQ_COUNT_OF(ids); j++) ids[j] = support_random_below(&s.random, 30000);
            query.ids = ids;
            query.id_count = IQ_COUNT_OF(ids);
        }
        CHECK_EQ_INT(iqdb_search(s.plain, &query, expected, &wanted), IQDB_OK);
        if (i % 6 == 3 && wanted > 4) {
            query.after = expected[wanted / 2];
            query.max_distance = expected[wanted - 1].score;
            query.flags = IQDB_AFTER | IQDB_MAX_DISTANCE;
            CHECK_EQ_INT(iqdb_search(s.plain, &query, expected, &wanted), IQDB_OK);
        }
        query.info = &info;
        CHECK_EQ_INT(iqdb_search(s.db, &query, hits, &found), IQDB_OK);
        CHECK_EQ_U64(found, wanted);
        for (size_t j = 0; j < found; j++) {
            CHECK_EQ_U64(hits[j].id, expected[j].id);
            CHECK_EQ_F32(hits[j].score, expected[j].score);
        }
        compared += info.rows_compared;
    }
}

static void ask_many(void) {
    enum {
        MANY = 9,
        K = 10
    };
    static float vectors[MANY * DIM_MAX];
    static iqdb_hit hits[MANY * K], expected[MANY * K];
    size_t counts[MANY], wanted[MANY];
    iqdb_query query = iqdb_query_default();
    if (s.options.element != IQDB_ELEMENT_F32) return;
    for (uint64_t i = 0; i < MANY; i++) row_of(vectors + i * s.dim, 777000 + i, i % 4 == 3 ? 4 : 0);
    query.dim = s.dim;
    query.k = K;
    CHECK_EQ_INT(iqdb_search_batch(s.db, &query, vectors, MANY, hits, counts), IQDB_OK);
    CHECK_EQ_INT(iqdb_search_batch(s.plain, &query, vectors, MANY, expected, wanted), IQDB_OK);
    for (size_t i = 0; i < MANY * K; i++) {
        CHECK_EQ_U64(hits[i].id, expected[i].id);
        CHECK_EQ_F32(hits[i].score, expected[i].score);
    }
}

static uint32_t narrow_slabs(void) {
    const iq_rows *rows = &s.db->records.rows;
    uint32_t count = 0;
    for (size_t i = 0; i < rows->slab_count; i++) count += *rows->slabs[i].narrow;
    return count;
}

static void settle(bool asks) {
    bool done = false;
    for (int i = 0; i < 100000 && !done; i++) {
        CHECK_EQ_INT(iqdb_maintain(s.db, asks ? 300 : 5000, &done), IQDB_OK);
        if (asks && i % 16 == 0) ask(3);
        if (asks && i % 64 == 5) change(2, 20000, 0);
    }
    CHECK(done);
}

static void reopen(iqdb_open_mode mode) {
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.options.open_mode = mode;
    const iqdb_result result = iqdb_open("db", &s.options, &s.db);
    if (result != IQDB_OK)
        printf("\n    %s at %llu: %s", s.error.file, (unsigned long long)s.error.offset, s.error.text);
    CHECK_EQ_INT(result, IQDB_OK);
}

static void verify(void) { CHECK_EQ_INT(iqdb_verify(s.db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK); }

static void fill(void) {
    for (uint64_t id = 0; id < 17500; id++) put(id, 0);
}

static void one_life(iqdb_metric metric, iqdb_element element, uint32_t dim) {
    const size_t asked = support_amount(25, 80, 400);
    start(metric, element, dim);
    fill();
    ask(asked);
    CHECK(narrow_slabs() == 0);
    settle(true);
    const uint64_t slabs = narrow_slabs();
    if (slabs <= 4)
        printf("\n    metric %d, dim %u: %llu slabs of %zu, basis %u", (int)metric, dim, (unsigned long long)slabs,
               s.db->records.rows.slab_count, s.db->records.rows.basis.dims);
    CHECK(slabs > 4 && s.db->records.rows.basis.dims < dim); /* the last one still grows */
    verify();
    ask(asked);
    ask_many();
    change(3000, 20000, 0);
    ask(asked);
    settle(true);
    verify();
    ask_many();
    change(1500, 20000, 3); /* what the basis was not made for */
    ask(asked);
    settle(false);
    verify();
    ask(asked);
    CHECK(narrow_slabs() >= slabs);
    finish();
}

static void answers_are_those_of_a_scan(void) {
    one_life(IQDB_L2, IQDB_ELEMENT_F32, 64);
    one_life(IQDB_COSINE, IQDB_ELEMENT_F32, 96);
    one_life(IQDB_DOT, IQDB_ELEMENT_F32, 65);
    one_life(IQDB_L2, IQDB_ELEMENT_U8, 128);
    if (support_amount(0, 1, 1) == 0) return;
    one_life(IQDB_COSINE, IQDB_ELEMENT_F32, 200);
    one_life(IQDB_DOT, IQDB_ELEMENT_F32, 200);
    one_life(IQDB_L2, IQDB_ELEMENT_F16, 77);
}

/* Few rows are left to be looked at: with the codes of a wrong kind all would be. */
static void they_leave_little_open(void) {
    start(IQDB_L2, IQDB_ELEMENT_F32, 96);
    fill();
    ask(60);
    const uint64_t before = compared;
    settle(false);
    ask(60);
    const uint64_t after = compared;
    printf(" %.0f rows compared, %.0f before ...", (double)after / 60, (double)before / 60);
    CHECK(after < 6 * before);
    finish();
}

/* A stored basis and its codes are there again, in memory and where they lie, with what came behind them. */
static void they_are_stored(void) {
    iqdb_stats stats;
    start(IQDB_L2, IQDB_ELEMENT_F32, 96);
    fill();
    settle(false);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    const uint32_t dims = s.db->records.rows.basis.dims;
    const double slack = s.db->records.rows.basis.slack;
    for (int mode = 0; mode < 2; mode++) {
        reopen((iqdb_open_mode)mode);
        CHECK_EQ_INT(iqdb_stat(s.db, &stats), IQDB_OK);
        CHECK((stats.mapped_bytes > 0) == (mode == 1));
        CHECK_EQ_U64(s.db->records.rows.basis.dims, dims);
        CHECK(s.db->records.rows.basis.slack == slack);
        CHECK(narrow_slabs() > 4);
        ask(40);
        verify();
        change(500, 20000, (uint64_t)mode);
        ask(40);
        settle(false);
        verify();
        ask(40);
    }
    reopen((iqdb_open_mode)0);
    ask(40);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    reopen((iqdb_open_mode)0);
    ask(40);
    verify();
    finish();
}

/* The newest snapshot's section of codes. */
static uint64_t find(char name[32], uint64_t *out_size) {
    for (unsigned i = 60; i > 0; i--) {
        size_t size;
        snprintf(name, 32, "snap-%u", i);
        uint8_t *bytes = fault_load(s.disk, "db", name, &size);
        uint64_t found = 0;
        if (bytes == NULL) continue;
        const uint8_t *footer = bytes + size - IQ_FOOTER_SIZE;
        const uint8_t *list = bytes + iq_get_u64(footer + IQ_FOOTER_LIST_AT);
        for (uint32_t j = 0; j < iq_get_u32(footer + IQ_FOOTER_SECTIONS_AT); j++, list += IQ_SECTION_ENTRY_SIZE) {
            if (iq_get_u32(list + IQ_SECTION_KIND_AT) != IQ_SECTION_CODES) continue;
            found = iq_get_u64(list + IQ_SECTION_OFFSET_AT);
            *out_size = iq_get_u64(list + IQ_SECTION_BYTES_AT);
        }
        free(bytes);
        return found;
    }
    return 0;
}

static void damage_is_found_or_mended(void) {
    char name[32];
    uint64_t size = 0;
    size_t refused = 0;
    start(IQDB_COSINE, IQDB_ELEMENT_F32, 64);
    fill();
    settle(false);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    const uint64_t offset = find(name, &size);
    CHECK(size > 100000);
    for (uint64_t at = 3; at < size; at += at < 9000 ? 1500 : size / support_amount(3, 20, 100)) {
        fault_files *sound = s.disk;
        const uint8_t other = (uint8_t)at ^ 0x5A;
        s.disk = fault_copy(sound);
        s.options.files = fault_table(s.disk);
        CHECK(fault_poke(s.disk, "db", name, offset + at, &other, 1));
        s.options.rebuild_damaged_index = false;
        iqdb_result result = iqdb_open("db", &s.options, &s.db);
        refused += result == IQDB_ERR_CORRUPT;
        CHECK(result == IQDB_OK || result == IQDB_ERR_CORRUPT);
        if (result == IQDB_OK) CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
        s.options.rebuild_damaged_index = true;
        CHECK_EQ_INT(iqdb_open("db", &s.options, &s.db), IQDB_OK);
        ask(10);
        settle(false);
        ask(10);
        verify();
        CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
        fault_free(s.disk);
        s.disk = sound;
        s.options.files = fault_table(s.disk);
    }
    CHECK(refused >= 4);
    CHECK_EQ_INT(iqdb_open("db", &s.options, &s.db), IQDB_OK);
    finish();
}

/* A pin from before keeps a slab as it is; the answer is right all the same, and the slab follows once it is gone. */
static void readers_are_waited_for(void) {
    bool done = false;
    start(IQDB_L2, IQDB_ELEMENT_F32, 64);
    fill();
    iqdb_iter iter = iqdb_iter_begin(s.db, NULL);
    CHECK(iqdb_iter_next(&iter));
    for (int i = 0; i < 50; i++) CHECK_EQ_INT(iqdb_maintain(s.db, 5000, &done), IQDB_OK);
    CHECK_EQ_U64(narrow_slabs(), 0);
    ask(30);
    iqdb_iter_end(&iter);
    settle(false);
    CHECK(narrow_slabs() > 5);
    ask(30);
    finish();
}

/* An allocation that fails costs speed only. */
static void no_memory_is_no_error(void) {
    support_heap heap = support_heap_make();
    start(IQDB_L2, IQDB_ELEMENT_F32, 64);
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.options.allocator = support_allocator(&heap);
    CHECK_EQ_INT(iqdb_open("db", &s.options, &s.db), IQDB_OK);
    fill();
    for (size_t fail = 1; fail < 4; fail++) {
        bool done = false;
        heap.fail_at = fail;
        heap.sticky = true;
        for (int i = 0; i < 200 && !done; i++) (void)iqdb_maintain(s.db, 5000, &done);
        heap.fail_at = 0;
        ask(10);
    }
    finish();
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

TEST_MAIN("db/narrow", TEST(answers_are_those_of_a_scan), TEST(they_leave_little_open), TEST(they_are_stored),
          TEST(damage_is_found_or_mended), TEST(readers_are_waited_for), TEST(no_memory_is_no_error))
