/* A refresh beside readers of the handle in other threads. */
#include "db/db.h"
#include "support.h"
#include "test.h"

#include <pthread.h>

static struct beside {
    iqdb *named;
    size_t asked, missed;
    bool armed;
} beside;

static void *find_it(void *user) {
    beside.missed += !iqdb_contains((const iqdb *)user, 1);
    return NULL;
}

/* Whenever the refresh wants memory another thread reads. */
static void *asking_alloc(size_t size, size_t alignment, void *user) {
    pthread_t thread;
    (void)user;
    if (beside.armed && EXPECT(pthread_create(&thread, NULL, find_it, beside.named) == 0)) {
        pthread_join(thread, NULL);
        beside.asked++;
    }
    return support_aligned_alloc(size, alignment);
}

static void asking_free(void *memory, size_t size, size_t alignment, void *user) {
    (void)size;
    (void)alignment;
    (void)user;
    support_aligned_free(memory);
}

static void store_some(iqdb *db, uint64_t first, uint64_t count) {
    for (uint64_t id = first; id < first + count; id++) {
        const float vector[3] = {1, 2, (float)id};
        iqdb_record record = iqdb_record_default();
        record.id = id;
        record.vector = vector;
        record.dim = 3;
        CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
    }
}

/* What is dropped is there until all is; also where room is made in between, for which a moment is published. */
static void nothing_is_dropped_before_the_end(void) {
    char folder[SUPPORT_PATH_MAX];
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL, *reader = NULL, *named = NULL;
    memset(&beside, 0, sizeof beside);
    support_directory(folder);
    CHECK_EQ_INT(iqdb_open(folder, NULL, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_collection(db, "a", NULL, &named), IQDB_OK);
    store_some(named, 0, 5);
    store_some(db, 0, 20);
    options.read_only = true;
    options.retired_max = 500;
    options.allocator.alloc_fn = asking_alloc;
    options.allocator.free_fn = asking_free;
    CHECK_EQ_INT(iqdb_open(folder, &options, &reader), IQDB_OK);
    CHECK_EQ_INT(iqdb_collection(reader, "a", NULL, &beside.named), IQDB_OK);
    for (int i = 0; i < 2; i++) { /* where tables are replaced, rows are given back, too */
        store_some(db, 0, 20);
        CHECK_EQ_INT(iqdb_refresh(reader), IQDB_OK);
    }
    CHECK(reader->home->common.retired_bytes > options.retired_max);
    CHECK_EQ_INT(iqdb_collection_drop(db, "a"), IQDB_OK);
    store_some(db, 0, 500);
    const uint64_t moment = reader->home->common.epoch.moment;
    beside.armed = true;
    CHECK_EQ_INT(iqdb_refresh(reader), IQDB_OK);
    beside.armed = false;
    CHECK(reader->home->common.epoch.moment > moment + 1);
    CHECK(beside.asked > 3);
    CHECK_EQ_U64(beside.missed, 0);
    CHECK(!iqdb_contains(beside.named, 1) && iqdb_len(reader) == 500);
    CHECK_EQ_INT(iqdb_close(beside.named), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(named), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(reader), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
}

TEST_MAIN("db/refresh", TEST(nothing_is_dropped_before_the_end))
