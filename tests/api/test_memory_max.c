/* options.memory_max: how many records it has room for is counted here by the manual's words; a write beyond it is
 * NOMEM and leaves everything as it was and in use, in memory, on disk, and when it is opened again. */
#include "public.h"

enum {
    ROOM = 40 /* records */
};

/* What a record counts without a code, and with one. */
static uint64_t bare_weight(uint32_t dim, uint64_t payload_size) {
    return ((uint64_t)dim + 15) / 16 * 16 * 4 + 88 + 2 * payload_size;
}
static uint64_t weight(uint32_t dim, uint64_t payload_size) {
    return bare_weight(dim, payload_size) + ((uint64_t)dim + 7) / 8 * 4 + 9;
}

/* An upsert with a payload of so many bytes, 0: none; the vector says which version it is. */
static iqdb_result put(iqdb *db, uint64_t id, uint32_t dim, float version, size_t payload_size) {
    static const uint8_t zeros[16384] = {0};
    float vector[64];
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload absent;
    iqdb_record record = public_record(id, vector, dim);
    for (uint32_t i = 0; i < dim; i++) vector[i] = version + (float)i;
    absent.bytes = NULL;
    absent.size = 0;
    if (payload_size > 0) { /* an object of one field: 11 bytes around what is in it */
        const iqdb_field field = public_field("b", iqdb_bytes(zeros, payload_size - 11));
        EXPECT(iqdb_payload_with(absent, &field, 1, &buffer, &record.payload) == IQDB_OK);
        EXPECT(record.payload.size == payload_size);
    }
    const iqdb_result result = iqdb_upsert(db, &record);
    iqdb_buffer_free(&buffer);
    return result;
}

static int version_of(iqdb *db, uint64_t id) {
    iqdb_record record;
    iqdb_buffer buffer = iqdb_buffer_default();
    const iqdb_result result = iqdb_get(db, id, &buffer, &record);
    const int version = result == IQDB_OK ? (int)record.vector[0] : -1;
    iqdb_buffer_free(&buffer);
    return version;
}

/* A full handle: what is refused, and that nothing comes of it. */
static void beyond(iqdb *db, uint32_t dim, size_t payload_size) {
    float vectors[2][64] = {{0}};
    iqdb_record records[2];
    CHECK_EQ_INT(put(db, ROOM, dim, 1, payload_size), IQDB_ERR_NOMEM);
    CHECK_EQ_INT(put(db, 3, dim, 9, payload_size + 20 + (size_t)weight(dim, payload_size) / 2),
                 IQDB_ERR_NOMEM); /* in the place of a smaller one */
    CHECK_EQ_INT(iqdb_delete(db, 5, NULL), IQDB_OK);
    records[0] = public_record(5, vectors[0], dim);
    records[1] = public_record(1000, vectors[1], dim);
    if (payload_size == 0) CHECK_EQ_INT(iqdb_upsert_batch(db, records, 2), IQDB_ERR_NOMEM); /* one of them fits */
    CHECK(!iqdb_contains(db, 5) && !iqdb_contains(db, 1000));
    CHECK_EQ_INT(put(db, 5, dim, 5, payload_size), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(db), ROOM);
    for (uint64_t id = 0; id < ROOM; id++) CHECK_EQ_INT(version_of(db, id), id);
    for (int round = 0; round < 3; round++)
        for (uint64_t id = 0; id < ROOM; id++) CHECK_EQ_INT(put(db, id, dim, (float)id, payload_size), IQDB_OK);
    CHECK_EQ_INT(iqdb_reserve(db, ROOM), IQDB_OK);
    if (payload_size == 0) CHECK_EQ_INT(iqdb_reserve(db, ROOM + 1), IQDB_ERR_NOMEM);
    CHECK_EQ_INT(put(db, ROOM, dim, 1, payload_size), IQDB_ERR_NOMEM);
}

static const uint32_t dims[] = {3, 16, 17, 64};
static const size_t payloads[] = {0, 20, 700, 4000};

static void as_many_as_there_is_room_for(void) {
    for (int way = 0; way < 16; way++) {
        const uint32_t dim = dims[way % 4];
        const size_t payload_size = payloads[way / 4];
        iqdb *db = NULL;
        iqdb_options options = iqdb_options_default();
        options.no_codes = way % 5 == 0;
        const uint64_t one = options.no_codes ? bare_weight(dim, payload_size) : weight(dim, payload_size);
        options.memory_max = ROOM * one + (way % 3 == 0 ? one - 1 : 0);
        CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
        for (uint64_t id = 0; id < ROOM; id++) CHECK_EQ_INT(put(db, id, dim, (float)id, payload_size), IQDB_OK);
        beyond(db, dim, payload_size);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
}

static void when_it_is_opened_again(void) {
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    for (int way = 0; way < 8; way++) { /* from the log, or from a snapshot */
        const uint32_t dim = dims[way % 4];
        const size_t payload_size = payloads[way / 2];
        iqdb *db = NULL;
        iqdb_options options = iqdb_options_default();
        support_directory(folder);
        support_join(path, folder, "db");
        options.files = public_quick_files();
        options.memory_max = ROOM * weight(dim, payload_size);
        CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
        for (uint64_t id = 0; id < ROOM; id++) CHECK_EQ_INT(put(db, id, dim, (float)id, payload_size), IQDB_OK);
        if (way % 2 == 0) CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        options.memory_max--;
        CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_ERR_NOMEM);
        options.read_only = true;
        CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_ERR_NOMEM);
        options.read_only = false;
        options.memory_max++;
        CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
        beyond(db, dim, payload_size);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        support_remove(folder);
    }
}

static uint8_t blob[1 << 20];
static size_t blob_size;

static bool take_blob(const void *bytes, size_t size, void *user) {
    (void)user;
    if (size > sizeof blob - blob_size) return false;
    memcpy(blob + blob_size, bytes, size);
    blob_size += size;
    return true;
}

static void from_a_blob(void) {
    iqdb *db = NULL;
    iqdb_options options = iqdb_options_default();
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (uint64_t id = 0; id < ROOM; id++) CHECK_EQ_INT(put(db, id, 16, (float)id, 20), IQDB_OK);
    blob_size = 0;
    CHECK_EQ_INT(iqdb_export_blob(db, take_blob, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    options.memory_max = ROOM * weight(16, 20) - 1;
    CHECK_EQ_INT(iqdb_load_blob(blob, blob_size, &options, &db), IQDB_ERR_NOMEM);
    options.memory_max++;
    CHECK_EQ_INT(iqdb_load_blob(blob, blob_size, &options, &db), IQDB_OK);
    beyond(db, 16, 20);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* In a block the smaller of both counts. */
static void in_a_block(void) {
    static uint8_t block[1 << 18];
    iqdb *db = NULL;
    iqdb_options options = iqdb_options_default();
    options.dim = 16;
    options.memory_max = 7 * bare_weight(16, 0);
    CHECK_EQ_INT(iqdb_open_in(block, sizeof block, &options, &db), IQDB_OK);
    for (uint64_t id = 0; id < 7; id++) CHECK_EQ_INT(put(db, id, 16, (float)id, 0), IQDB_OK);
    CHECK_EQ_INT(put(db, 7, 16, 7, 0), IQDB_ERR_NOMEM);
    CHECK_EQ_INT(put(db, 6, 16, 6, 0), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* It bounds the memory, too, once that is more than the smallest pieces. */
static void memory_stays_within_it(void) {
    support_heap heap = support_heap_make();
    iqdb *db = NULL;
    uint64_t id = 0;
    iqdb_options options = iqdb_options_default();
    options.memory_max = 16 << 20;
    options.allocator = support_allocator(&heap);
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    while (put(db, id, 64, 1, id % 3 * 300 + 20) == IQDB_OK) id++;
    iqdb_stats stats;
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    CHECK(stats.records == id && id > 10000);
    CHECK(stats.vector_bytes + stats.payload_bytes + stats.lookup_bytes <= options.memory_max);
    CHECK(heap.live_bytes <= options.memory_max + (1 << 20));
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

TEST_MAIN("api/memory_max", TEST(as_many_as_there_is_room_for), TEST(when_it_is_opened_again), TEST(from_a_blob),
          TEST(in_a_block), TEST(memory_stays_within_it))
