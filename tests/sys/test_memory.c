/* What is special about files in memory: whose memory they take, how they fail without it, and that one set may be
 * used from several threads. The contract itself is in test_files.c. */
#include "api.h"
#include "support.h"
#include "test.h"

#include "sys/memory.h"
#include "sys/sys.h"

#include <pthread.h>

static int os;

static void count_name(const char *name, void *user) {
    (void)name;
    ++*(int *)user;
}

static iqdb_result write_file(const iqdb_files *files, void *dir) {
    static uint8_t bytes[3000];
    void *file;
    iqdb_result result = files->open_fn(dir, "f", IQDB_OPEN_CREATE, &file, &os, files->user);
    if (result != IQDB_OK) return result;
    for (uint64_t i = 0; i < 4 && result == IQDB_OK; i++) {
        uint64_t before = 0, after = 0;
        files->size_fn(file, &before, &os, files->user);
        result = files->write_fn(file, i * 5000, bytes, sizeof bytes, &os, files->user);
        files->size_fn(file, &after, &os, files->user);
        if (!EXPECT(after == (result == IQDB_OK ? i * 5000 + sizeof bytes : before))) break;
        if (!EXPECT(result == IQDB_OK || result == IQDB_ERR_NOSPACE)) break; /* the disk is full */
    }
    files->close_fn(file, files->user);
    return result;
}

static iqdb_result use_set(iq_memory_files *set) {
    const iqdb_files files = iq_memory_files_table(set);
    void *dir, *file;
    int names = 0;
    iqdb_result result = files.dir_open_fn("a/b/c", true, &dir, &os, set);
    if (result != IQDB_OK) return result;
    result = write_file(&files, dir);
    if (result == IQDB_OK) result = files.open_fn(dir, "f", IQDB_OPEN_READ, &file, &os, set);
    if (result == IQDB_OK) {
        result = files.remove_fn(dir, "f", &os, set);
        files.close_fn(file, set);
    }
    if (result == IQDB_OK) result = write_file(&files, dir);
    if (result == IQDB_OK) result = files.dir_list_fn(dir, count_name, &names, &os, set);
    if (result == IQDB_OK)
        EXPECT(names == 1);
    else
        EXPECT(names == 0);
    files.dir_close_fn(dir, set);
    return result;
}

static void every_allocation_may_fail(void) {
    size_t failures = 0, no_space = 0;
    for (int sticky = 0; sticky < 2; sticky++) {
        iqdb_result result = IQDB_ERR_IO;
        for (size_t n = 1; result != IQDB_OK; n++) {
            support_heap heap = support_heap_make();
            const iqdb_allocator allocator = support_allocator(&heap);
            heap.fail_at = n;
            heap.sticky = sticky;
            iq_memory_files *set = iq_memory_files_new(&allocator);
            result = set == NULL ? IQDB_ERR_NOMEM : use_set(set);
            CHECK(n < 100);
            CHECK_EQ_U64(heap.failed > 0, result != IQDB_OK);
            CHECK(result == IQDB_OK || result == IQDB_ERR_NOMEM || result == IQDB_ERR_NOSPACE);
            failures += result != IQDB_OK;
            no_space += result == IQDB_ERR_NOSPACE;
            if (set != NULL && result != IQDB_OK) { /* and all is well when memory is back */
                heap.fail_at = 0;
                const iqdb_files files = iq_memory_files_table(set);
                void *dir;
                CHECK_EQ_INT(files.dir_open_fn("a/b/c", true, &dir, &os, set), IQDB_OK);
                const iqdb_result removed = files.remove_fn(dir, "f", &os, set);
                CHECK(removed == IQDB_OK || removed == IQDB_ERR_NOT_FOUND);
                files.dir_close_fn(dir, set);
                CHECK_EQ_INT(use_set(set), IQDB_OK);
            }
            iq_memory_files_free(set);
            CHECK_EQ_U64(support_heap_problems(&heap), 0);
        }
    }
    CHECK(failures > 20);
    CHECK(no_space >= 4);
}

static void frees_what_was_left_open(void) {
    support_heap heap = support_heap_make();
    const iqdb_allocator allocator = support_allocator(&heap);
    iq_memory_files *set = iq_memory_files_new(&allocator);
    CHECK(set != NULL);
    const iqdb_files files = iq_memory_files_table(set);
    void *dir, *again, *file, *gone;
    CHECK_EQ_INT(files.dir_open_fn("x/y", true, &dir, &os, set), IQDB_OK);
    CHECK_EQ_INT(files.dir_open_fn("x", true, &again, &os, set), IQDB_OK);
    CHECK_EQ_INT(files.open_fn(dir, "a", IQDB_OPEN_CREATE, &file, &os, set), IQDB_OK);
    CHECK_EQ_INT(files.write_fn(file, 0, "text", 4, &os, set), IQDB_OK);
    CHECK_EQ_INT(files.lock_fn(file, true, &os, set), IQDB_OK);
    CHECK_EQ_INT(files.open_fn(dir, "b", IQDB_OPEN_CREATE, &gone, &os, set), IQDB_OK);
    CHECK_EQ_INT(files.write_fn(gone, 0, "text", 4, &os, set), IQDB_OK);
    CHECK_EQ_INT(files.remove_fn(dir, "b", &os, set), IQDB_OK);
    files.dir_close_fn(again, set);
    iq_memory_files_free(set);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
    iq_memory_files_free(NULL);
}

/* A directory lasts between its users: this is what lets a test close a database and open it again. */
static void lasts_while_closed(void) {
    const iqdb_allocator allocator = iq_alloc_default();
    iq_memory_files *set = iq_memory_files_new(&allocator);
    CHECK(set != NULL);
    const iqdb_files files = iq_memory_files_table(set);
    void *dir, *file;
    char bytes[8];
    size_t size;
    CHECK_EQ_INT(files.dir_open_fn("db", true, &dir, &os, set), IQDB_OK);
    CHECK_EQ_INT(files.open_fn(dir, "f", IQDB_OPEN_CREATE, &file, &os, set), IQDB_OK);
    CHECK_EQ_INT(files.write_fn(file, 0, "text", 4, &os, set), IQDB_OK);
    files.close_fn(file, set);
    files.dir_close_fn(dir, set);
    CHECK_EQ_INT(files.dir_open_fn("/./db/", false, &dir, &os, set), IQDB_OK);
    CHECK_EQ_INT(files.open_fn(dir, "f", IQDB_OPEN_READ, &file, &os, set), IQDB_OK);
    CHECK_EQ_INT(files.read_fn(file, 0, bytes, 8, &size, &os, set), IQDB_OK);
    CHECK_EQ_U64(size, 4);
    CHECK_MEM(bytes, "text", 4);
    iq_memory_files_free(set);
}

static void says_no_os_code(void) {
    const iqdb_allocator allocator = iq_alloc_default();
    iq_memory_files *set = iq_memory_files_new(&allocator);
    CHECK(set != NULL);
    const iqdb_files files = iq_memory_files_table(set);
    void *dir, *a, *b;
    CHECK_EQ_INT(files.dir_open_fn("db", true, &dir, &os, set), IQDB_OK);
    CHECK_EQ_INT(files.open_fn(dir, "f", IQDB_OPEN_CREATE, &a, &os, set), IQDB_OK);
    CHECK_EQ_INT(files.open_fn(dir, "f", IQDB_OPEN_READ, &b, &os, set), IQDB_OK);
    CHECK_EQ_INT(files.lock_fn(a, true, &os, set), IQDB_OK);
    os = 55;
    CHECK_EQ_INT(files.lock_fn(b, false, &os, set), IQDB_ERR_LOCKED);
    CHECK_EQ_INT(os, 0);
    os = 55;
    CHECK_EQ_INT(files.write_fn(b, 0, "x", 1, &os, set), IQDB_ERR_IO);
    CHECK_EQ_INT(os, 0);
    os = 55;
    CHECK_EQ_INT(files.remove_fn(dir, "g", &os, set), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(os, 0);
    os = 55;
    CHECK_EQ_INT(files.open_fn(dir, "g", IQDB_OPEN_READ, &b, &os, set), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(os, 0);
    os = 55;
    CHECK_EQ_INT(files.dir_open_fn("g", false, &b, &os, set), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(os, 0);
    iq_memory_files_free(set);
}

#define THREADS 4
static iq_memory_files *shared;

static void *work(void *argument) {
    const iqdb_files files = iq_memory_files_table(shared);
    const size_t rounds = support_amount(20, 200, 2000);
    char path[16];
    snprintf(path, sizeof path, "db/%d", *(int *)argument);
    for (size_t i = 0; i < rounds; i++) {
        void *dir, *file;
        uint64_t seen = 0;
        size_t size;
        int error;
        bool ok = files.dir_open_fn(path, true, &dir, &error, shared) == IQDB_OK;
        if (!EXPECT(ok)) return NULL;
        ok = files.open_fn(dir, "f", IQDB_OPEN_CREATE, &file, &error, shared) == IQDB_OK;
        if (!EXPECT(ok)) return NULL;
        for (uint64_t j = 0; j < 50; j++) ok = ok && files.write_fn(file, j * 8, &j, 8, &error, shared) == IQDB_OK;
        for (uint64_t j = 0; j < 50; j++) {
            ok = ok && files.read_fn(file, j * 8, &seen, 8, &size, &error, shared) == IQDB_OK;
            ok = ok && seen == j;
        }
        files.close_fn(file, shared);
        ok = ok && files.remove_fn(dir, "f", &error, shared) == IQDB_OK;
        files.dir_close_fn(dir, shared);
        EXPECT(ok);
    }
    return NULL;
}

static void threads_share_a_set(void) {
    const iqdb_allocator allocator = iq_alloc_default();
    pthread_t threads[THREADS];
    int numbers[THREADS];
    shared = iq_memory_files_new(&allocator);
    CHECK(shared != NULL);
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK_EQ_INT(pthread_create(&threads[i], NULL, work, &numbers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) CHECK_EQ_INT(pthread_join(threads[i], NULL), 0);
    iq_memory_files_free(shared);
}

TEST_MAIN("sys/memory", TEST(every_allocation_may_fail), TEST(frees_what_was_left_open), TEST(lasts_while_closed),
          TEST(says_no_os_code), TEST(threads_share_a_set))
