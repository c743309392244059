/* iqdb_stats against counts that the test keeps itself: of syncs by a file layer of its own, of files by a look at the
 * directory, of records by what it has written. */
#include <errno.h>
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

enum {
    DIM = 40
};

/* ---- A file layer that counts, and a clock that goes on only while it syncs ---- */

static iqdb_files under;
static uint64_t syncs, weak, now_us;

static iqdb_result sync_file(void *file, int *os_code, void *user) {
    syncs++;
    now_us += 1000;
    return under.sync_fn(file, os_code, user);
}

static iqdb_result sync_directory(void *dir, int *os_code, void *user) {
    syncs++;
    now_us += 1000;
    const iqdb_result result = under.dir_sync_fn(dir, os_code, user);
    /* As of a file system that syncs no directories, every second time. */
    if (result == IQDB_OK && syncs % 2 == 0) *os_code = EINVAL, weak++;
    return result;
}

static uint64_t clock_now(void *user) {
    (void)user;
    return now_us;
}

static iqdb_options counting(void) {
    iqdb_options options = iqdb_options_default();
    under = iqdb_files_default();
    options.files = under;
    options.files.sync_fn = sync_file;
    options.files.dir_sync_fn = sync_directory;
    options.clock_us.now_fn = clock_now;
    options.sync = IQDB_SYNC_EACH;
    syncs = weak = 0;
    now_us = 5;
    return options;
}

static iqdb_stats stats_of(const iqdb *db) {
    iqdb_stats stats;
    memset(&stats, 0xEE, sizeof stats);
    EXPECT(iqdb_stat(db, &stats) == IQDB_OK);
    return stats;
}

static iqdb_result put(iqdb *db, uint64_t id, size_t text_size) {
    static char text[4000];
    float vector[DIM];
    uint64_t random = id;
    const iqdb_field field = public_field("text", iqdb_text_n(text, text_size));
    for (int i = 0; i < DIM; i++) vector[i] = support_random_float(&random);
    memset(text, 'x', sizeof text);
    iqdb_record record = public_record(id, vector, DIM);
    record.fields = &field;
    record.field_count = text_size > 0 ? 1 : 0;
    if (text_size == 0) record.fields = NULL;
    return iqdb_upsert(db, &record);
}

static void count_snapshot(const char *name, void *user) {
    if (strncmp(name, "snap-", 5) == 0) ++*(uint64_t *)user;
}

static void syncs_and_checkpoints(void) {
    char folder[SUPPORT_PATH_MAX];
    const iqdb_options options = counting();
    iqdb *db = NULL;
    support_directory(folder);
    CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
    CHECK(syncs > 0);
    for (uint64_t round = 1; round <= 4; round++) {
        for (uint64_t id = 0; id < 30; id++) CHECK_EQ_INT(put(db, round * 100 + id, 10), IQDB_OK);
        const uint64_t before = syncs;
        CHECK_EQ_INT(put(db, 1, 10), IQDB_OK);
        CHECK_EQ_U64(syncs, before + 1);
        CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        now_us += 77;
        uint64_t files = 0;
        const iqdb_stats stats = stats_of(db);
        CHECK(public_list(folder, count_snapshot, &files));
        CHECK_EQ_U64(stats.sync_count, syncs);
        CHECK_EQ_U64(stats.weak_sync_count, weak);
        CHECK_EQ_U64(stats.sync_us, syncs * 1000);
        CHECK_EQ_INT(stats.sync, IQDB_SYNC_EACH);
        CHECK_EQ_U64(stats.checkpoints, round);
        CHECK(weak > 0 && weak < syncs);
        CHECK_EQ_U64(stats.checkpoint_age_us, 77);
        CHECK_EQ_U64(stats.snapshots, files);
        CHECK_EQ_U64(stats.records, 30 * round + 1);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
    const iqdb_stats stats = stats_of(db);
    CHECK(stats.checkpoints == 0 && stats.checkpoint_age_us == 0 && stats.snapshots > 0);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
}

static void collections(void) {
    iqdb *db = NULL, *sides[3];
    CHECK_EQ_INT(iqdb_open_in_memory(NULL, &db), IQDB_OK);
    for (uint64_t id = 0; id < 5; id++) CHECK_EQ_INT(put(db, id, 0), IQDB_OK);
    for (size_t i = 0; i < 3; i++) {
        static const char *const names[] = {"a", "b", "c"};
        CHECK_EQ_INT(iqdb_collection(db, names[i], NULL, &sides[i]), IQDB_OK);
        for (uint64_t id = 0; id < 10 + i; id++) CHECK_EQ_INT(put(sides[i], id, 0), IQDB_OK);
    }
    CHECK_EQ_U64(stats_of(db).all_records, 5 + 10 + 11 + 12);
    CHECK_EQ_U64(stats_of(sides[1]).all_records, 5 + 10 + 11 + 12);
    CHECK_EQ_U64(stats_of(sides[1]).records, 11);
    CHECK_EQ_INT(iqdb_collection_drop(db, "b"), IQDB_OK);
    CHECK_EQ_U64(stats_of(db).all_records, 5 + 10 + 12);
    CHECK_EQ_U64(stats_of(db).collections, 2);
    for (size_t i = 0; i < 3; i++) CHECK_EQ_INT(iqdb_close(sides[i]), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* What a search leaves is all that it has asked the allocator for; the next one like it asks for nothing. */
static void searches_leave_their_memory(void) {
    support_heap heap = support_heap_make();
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL;
    iqdb_hit hits[5];
    size_t count;
    const float vector[DIM] = {1.0f};
    const iqdb_query query = public_query(vector, DIM, 5, IQDB_L2);
    options.allocator = support_allocator(&heap);
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (uint64_t id = 0; id < 3000; id++) CHECK_EQ_INT(put(db, id, 0), IQDB_OK);
    CHECK_EQ_U64(stats_of(db).scratch_bytes, 0);
    const size_t before = heap.live_bytes;
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
    CHECK(heap.live_bytes > before);
    CHECK_EQ_U64(stats_of(db).scratch_bytes, heap.live_bytes - before);
    const size_t calls = heap.calls;
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
    CHECK_EQ_U64(heap.calls, calls);
    CHECK_EQ_U64(stats_of(db).scratch_bytes, heap.live_bytes - before);
    CHECK_EQ_STR(stats_of(db).simd, iqdb_simd_name(db));
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
}

static void settle(iqdb *db) {
    bool done = false;
    for (int i = 0; i < 10000 && !done; i++) CHECK_EQ_INT(iqdb_maintain(db, 10000, &done), IQDB_OK);
    CHECK(done);
}

/* What has been given back is free, and is used again before there is more. */
static void memory(void) {
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL, *bare = NULL;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    options.no_codes = true;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &bare), IQDB_OK);
    for (uint64_t id = 0; id < 5000; id++) {
        CHECK_EQ_INT(put(db, id, 100), IQDB_OK);
        CHECK_EQ_INT(put(bare, id, 100), IQDB_OK);
    }
    settle(db);
    const iqdb_stats full = stats_of(db), plain = stats_of(bare);
    CHECK_EQ_U64(plain.code_bytes, 0);
    const uint64_t more = full.vector_bytes - plain.vector_bytes;
    CHECK(full.code_bytes > more - more / 10 && full.code_bytes < more + more / 10);
    CHECK(full.free_rows < 5000 && full.free_bytes < (full.vector_bytes + full.payload_bytes) / 2);
    CHECK_EQ_U64(full.tail_rows, 5000);
    for (uint64_t id = 0; id < 2000; id++) CHECK_EQ_INT(iqdb_delete(db, id, NULL), IQDB_OK);
    settle(db);
    const iqdb_stats less = stats_of(db);
    CHECK_EQ_U64(less.free_rows, full.free_rows + 2000);
    CHECK_EQ_U64(less.vector_bytes, full.vector_bytes);
    CHECK(less.free_bytes >= full.free_bytes + 2000 * (100 + DIM * sizeof(float)));
    for (uint64_t id = 0; id < 2000; id++) CHECK_EQ_INT(put(db, id, 100), IQDB_OK);
    CHECK_EQ_U64(stats_of(db).free_rows, full.free_rows);
    CHECK_EQ_U64(stats_of(db).free_bytes, full.free_bytes);
    for (uint64_t id = 0; id < 5000; id++) CHECK_EQ_INT(iqdb_delete(db, id, NULL), IQDB_OK);
    settle(db);
    const iqdb_stats none = stats_of(db);
    const uint64_t held = none.vector_bytes + none.payload_bytes;
    CHECK(none.free_bytes <= held && none.free_bytes > held - held / 20);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(bare), IQDB_OK);
}

/* What was stored, and comes back in one piece, is used, and free when it is deleted. */
static void memory_of_a_directory(void) {
    char folder[SUPPORT_PATH_MAX];
    iqdb *db = NULL;
    support_directory(folder);
    CHECK_EQ_INT(iqdb_open(folder, NULL, &db), IQDB_OK);
    for (uint64_t id = 0; id < 500; id++) CHECK_EQ_INT(put(db, id, 3000), IQDB_OK);
    CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(folder, NULL, &db), IQDB_OK);
    const iqdb_stats before = stats_of(db);
    for (uint64_t id = 0; id < 500; id++) CHECK_EQ_INT(iqdb_delete(db, id, NULL), IQDB_OK);
    settle(db);
    const iqdb_stats after = stats_of(db);
    CHECK(before.free_bytes < before.payload_bytes / 4);
    CHECK(after.free_bytes >= before.free_bytes + 500 * 3000);
    CHECK(after.free_bytes <= after.payload_bytes + after.vector_bytes);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
}

static void the_index(void) {
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL;
    options.index = IQDB_INDEX_IVF;
    options.nlist = 9;
    options.nprobe = 4;
    options.seed = 11;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (uint64_t id = 0; id < 700; id++) CHECK_EQ_INT(put(db, id, 0), IQDB_OK);
    settle(db);
    for (uint64_t id = 700; id < 710; id++) CHECK_EQ_INT(put(db, id, 0), IQDB_OK);
    const iqdb_stats stats = stats_of(db);
    CHECK(stats.nlist == 9 && stats.nprobe == 4 && stats.seed == 11 && stats.index_wanted == IQDB_INDEX_IVF);
    CHECK_EQ_U64(stats.index_rows + stats.tail_rows, 710);
    CHECK_EQ_U64(stats.tail_rows, 10);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

TEST_MAIN("api/stats", TEST(syncs_and_checkpoints), TEST(collections), TEST(searches_leave_their_memory), TEST(memory),
          TEST(memory_of_a_directory), TEST(the_index))
