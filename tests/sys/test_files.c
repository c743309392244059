/* The contract of iqdb_files, run over every layer that claims to keep it: the system's files, files in memory, and
 * the faulty disk of the tests while it is told to do nothing. */
#include "fault.h"
#include "support.h"
#include "test.h"

typedef struct layer {
    const char *name;
    iqdb_files files;
    char root[SUPPORT_PATH_MAX];
    void *dir; /* root, open */
} layer;

static int os; /* for os_code where it does not matter */

static void run_on(layer *at, void (*body)(layer *at)) {
    const long before = test_now.failures;
    if (EXPECT(at->files.dir_open_fn(at->root, true, &at->dir, &os, at->files.user) == IQDB_OK)) {
        body(at);
        at->files.dir_close_fn(at->dir, at->files.user);
    }
    if (test_now.failures > before) printf("\n      layer: %s", at->name);
}

static void on_each_layer(void (*body)(layer *at)) {
    layer at;
    memset(&at, 0, sizeof at);
    at.name = "posix";
    at.files = iqdb_files_default();
    support_directory(at.root);
    run_on(&at, body);
    support_remove(at.root);

    support_heap heap = support_heap_make();
    const iqdb_allocator allocator = support_allocator(&heap);
    iq_memory_files *set = iq_memory_files_new(&allocator);
    CHECK(set != NULL);
    at.name = "memory";
    at.files = iq_memory_files_table(set);
    strcpy(at.root, "/somewhere/in/memory");
    run_on(&at, body);
    iq_memory_files_free(set);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);

    fault_files *disk = fault_new(&allocator);
    CHECK(disk != NULL);
    at.name = "fault";
    at.files = fault_table(disk);
    run_on(&at, body);
    CHECK_EQ_U64(disk->open_files, 0);
    CHECK_EQ_U64(disk->open_dirs, 0);
    fault_free(disk);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
}
#define LAYERED(body) \
    static void body(void) { on_each_layer(body##_on); }

/* ---- Shorter calls ---- */

static iqdb_result open_file(layer *at, const char *name, iqdb_open_kind kind, void **out_file) {
    os = 0;
    return at->files.open_fn(at->dir, name, kind, out_file, &os, at->files.user);
}
static void close_file(layer *at, void *file) { at->files.close_fn(file, at->files.user); }
static iqdb_result put(layer *at, void *file, uint64_t offset, const void *bytes, size_t size) {
    return at->files.write_fn(file, offset, bytes, size, &os, at->files.user);
}
static iqdb_result get(layer *at, void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size) {
    *out_size = 99999;
    return at->files.read_fn(file, offset, bytes, size, out_size, &os, at->files.user);
}
static uint64_t size_of(layer *at, void *file) {
    uint64_t size = 99999;
    return at->files.size_fn(file, &size, &os, at->files.user) == IQDB_OK ? size : 88888;
}
static iqdb_result drop(layer *at, const char *name) { return at->files.remove_fn(at->dir, name, &os, at->files.user); }
static iqdb_result lock(layer *at, void *file, bool exclusive) {
    return at->files.lock_fn(file, exclusive, &os, at->files.user);
}

/* Makes a file with these contents. */
static bool make_file(layer *at, const char *name, const char *text) {
    void *file;
    if (!EXPECT(open_file(at, name, IQDB_OPEN_CREATE, &file) == IQDB_OK)) return false;
    const bool ok = EXPECT(put(at, file, 0, text, strlen(text)) == IQDB_OK);
    close_file(at, file);
    return ok;
}

static bool holds(layer *at, void *file, const char *text) {
    char bytes[64];
    size_t size;
    return get(at, file, 0, bytes, sizeof bytes, &size) == IQDB_OK && size == strlen(text) &&
           memcmp(bytes, text, size) == 0 && size_of(at, file) == size;
}

/* Opens a directory below the root, or says why not. */
static iqdb_result try_dir(layer *at, const char *below, bool create) {
    char path[SUPPORT_PATH_MAX];
    void *dir;
    support_join(path, at->root, below);
    os = 0;
    const iqdb_result result = at->files.dir_open_fn(path, create, &dir, &os, at->files.user);
    if (result == IQDB_OK) at->files.dir_close_fn(dir, at->files.user);
    return result;
}

/* ---- Contents ---- */

static void writes_and_reads_on(layer *at) {
    void *file;
    char bytes[16];
    size_t size;
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_CREATE, &file), IQDB_OK);
    CHECK_EQ_U64(size_of(at, file), 0);
    CHECK_EQ_INT(get(at, file, 0, bytes, 16, &size), IQDB_OK);
    CHECK_EQ_U64(size, 0);
    CHECK_EQ_INT(put(at, file, 0, "hello world", 11), IQDB_OK);
    CHECK_EQ_U64(size_of(at, file), 11);
    CHECK_EQ_INT(get(at, file, 0, bytes, 5, &size), IQDB_OK);
    CHECK_EQ_U64(size, 5);
    CHECK_MEM(bytes, "hello", 5);
    memset(bytes, '#', 16);
    CHECK_EQ_INT(get(at, file, 6, bytes, 16, &size), IQDB_OK);
    CHECK_EQ_U64(size, 5);
    CHECK_MEM(bytes, "world###########", 16);
    CHECK_EQ_INT(get(at, file, 11, bytes, 16, &size), IQDB_OK);
    CHECK_EQ_U64(size, 0);
    CHECK_EQ_INT(get(at, file, 12, bytes, 16, &size), IQDB_OK);
    CHECK_EQ_U64(size, 0);
    CHECK_EQ_INT(get(at, file, 0, bytes, 0, &size), IQDB_OK);
    CHECK_EQ_U64(size, 0);
    CHECK_EQ_INT(put(at, file, 6, "there", 5), IQDB_OK);
    CHECK(holds(at, file, "hello there"));
    CHECK_EQ_INT(put(at, file, 9, "mselves", 7), IQDB_OK); /* over the end */
    CHECK(holds(at, file, "hello themselves"));
    CHECK_EQ_INT(put(at, file, 100, "", 0), IQDB_OK); /* nothing written, nothing grows */
    CHECK_EQ_U64(size_of(at, file), 16);
    CHECK_EQ_INT(at->files.sync_fn(file, &os, at->files.user), IQDB_OK);
    close_file(at, file);
    CHECK_EQ_INT(at->files.dir_sync_fn(at->dir, &os, at->files.user), IQDB_OK);
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_READ, &file), IQDB_OK);
    CHECK(holds(at, file, "hello themselves"));
    close_file(at, file);
}
LAYERED(writes_and_reads)

static void gaps_are_zeros_on(layer *at) {
    void *file;
    static uint8_t bytes[20000];
    size_t size, zeros = 0;
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_CREATE, &file), IQDB_OK);
    CHECK_EQ_INT(put(at, file, 0, "ab", 2), IQDB_OK);
    CHECK_EQ_INT(put(at, file, 10000, "cd", 2), IQDB_OK);
    CHECK_EQ_INT(put(at, file, 19990, "ef", 2), IQDB_OK);
    CHECK_EQ_U64(size_of(at, file), 19992);
    memset(bytes, '#', sizeof bytes);
    CHECK_EQ_INT(get(at, file, 0, bytes, sizeof bytes, &size), IQDB_OK);
    CHECK_EQ_U64(size, 19992);
    for (size_t i = 0; i < size; i++) zeros += bytes[i] == 0;
    CHECK_EQ_U64(zeros, 19992 - 6);
    CHECK_MEM(bytes, "ab", 2);
    CHECK_MEM(bytes + 10000, "cd", 2);
    CHECK_MEM(bytes + 19990, "ef", 2);
    CHECK_EQ_INT(bytes[19992], '#');
    close_file(at, file);
}
LAYERED(gaps_are_zeros)

static void large_contents_on(layer *at) {
    const size_t count = 3 << 20;
    uint8_t *written = (uint8_t *)malloc(count), *seen = (uint8_t *)malloc(count);
    void *file;
    size_t size;
    uint64_t random = 7;
    for (size_t i = 0; i < count; i += 8) {
        const uint64_t word = support_random(&random);
        memcpy(written + i, &word, 8);
    }
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_CREATE, &file), IQDB_OK);
    for (size_t done = 0, part = 1; done < count; done += part, part = part * 3 % 100003) {
        if (part > count - done) part = count - done;
        CHECK_EQ_INT(put(at, file, done, written + done, part), IQDB_OK);
    }
    CHECK_EQ_INT(get(at, file, 0, seen, count, &size), IQDB_OK);
    CHECK_EQ_U64(size, count);
    CHECK_MEM(seen, written, count);
    close_file(at, file);
    free(written);
    free(seen);
}
LAYERED(large_contents)

static void far_offsets_on(layer *at) {
    static const uint64_t far[] = {UINT64_C(0x7FFFFFFFFFFFFFFE), UINT64_C(0x7FFFFFFFFFFFFFFF),
                                   UINT64_C(0x8000000000000000), UINT64_MAX - 1, UINT64_MAX};
    void *file;
    char bytes[4];
    size_t size;
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_CREATE, &file), IQDB_OK);
    CHECK_EQ_INT(put(at, file, 0, "ab", 2), IQDB_OK);
    for (size_t i = 0; i < sizeof far / sizeof far[0]; i++) {
        CHECK_EQ_INT(get(at, file, far[i], bytes, 4, &size), IQDB_OK);
        CHECK_EQ_U64(size, 0);
        CHECK_EQ_INT(put(at, file, far[i], "cd", 2), IQDB_ERR_NOSPACE);
    }
    CHECK(holds(at, file, "ab"));
    close_file(at, file);
}
LAYERED(far_offsets)

static void handles_share_the_file_on(layer *at) {
    void *a, *b, *c;
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_CREATE, &a), IQDB_OK);
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_WRITE, &b), IQDB_OK);
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_READ, &c), IQDB_OK);
    CHECK_EQ_INT(put(at, a, 0, "one", 3), IQDB_OK);
    CHECK(holds(at, c, "one"));
    CHECK_EQ_INT(put(at, b, 3, " two", 4), IQDB_OK);
    CHECK(holds(at, a, "one two"));
    CHECK_EQ_INT(put(at, c, 0, "bad", 3), IQDB_ERR_IO); /* opened for reading */
    CHECK(holds(at, b, "one two"));
    close_file(at, a);
    CHECK(holds(at, c, "one two"));
    close_file(at, b);
    close_file(at, c);
}
LAYERED(handles_share_the_file)

/* ---- Names ---- */

static void creates_exclusively_on(layer *at) {
    void *file;
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_READ, &file), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_WRITE, &file), IQDB_ERR_NOT_FOUND);
    CHECK(make_file(at, "f", "text"));
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_CREATE, &file), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_WRITE, &file), IQDB_OK);
    CHECK(holds(at, file, "text"));
    close_file(at, file);
    CHECK_EQ_INT(open_file(at, "F", IQDB_OPEN_READ, &file), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(open_file(at, "ff", IQDB_OPEN_READ, &file), IQDB_ERR_NOT_FOUND);
    CHECK(make_file(at, "0123456789012345678901234567890", "the longest name"));
    CHECK_EQ_INT(open_file(at, "0123456789012345678901234567890", IQDB_OPEN_READ, &file), IQDB_OK);
    CHECK(holds(at, file, "the longest name"));
    close_file(at, file);
}
LAYERED(creates_exclusively)

static void removes_on(layer *at) {
    void *old, *fresh, *gone;
    CHECK_EQ_INT(drop(at, "f"), IQDB_ERR_NOT_FOUND);
    CHECK(make_file(at, "f", "old"));
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_WRITE, &old), IQDB_OK);
    CHECK_EQ_INT(drop(at, "f"), IQDB_OK);
    CHECK_EQ_INT(drop(at, "f"), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_READ, &gone), IQDB_ERR_NOT_FOUND);
    CHECK(holds(at, old, "old"));
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_CREATE, &fresh), IQDB_OK);
    CHECK_EQ_U64(size_of(at, fresh), 0);
    CHECK_EQ_INT(put(at, fresh, 0, "new", 3), IQDB_OK);
    CHECK_EQ_INT(put(at, old, 3, "er", 2), IQDB_OK);
    CHECK(holds(at, old, "older"));
    CHECK(holds(at, fresh, "new"));
    CHECK_EQ_INT(lock(at, old, true), IQDB_OK);
    CHECK_EQ_INT(lock(at, fresh, true), IQDB_OK); /* another file */
    close_file(at, old);
    CHECK(holds(at, fresh, "new"));
    close_file(at, fresh);
    CHECK(make_file(at, "a", "1") && make_file(at, "b", "2") && make_file(at, "c", "3"));
    CHECK_EQ_INT(drop(at, "b"), IQDB_OK);
    CHECK_EQ_INT(drop(at, "a"), IQDB_OK);
    CHECK_EQ_INT(open_file(at, "c", IQDB_OPEN_READ, &old), IQDB_OK);
    CHECK(holds(at, old, "3"));
    close_file(at, old);
}
LAYERED(removes)

typedef struct name_set {
    char names[200][32];
    size_t count;
} name_set;

static void collect(const char *name, void *user) {
    name_set *set = (name_set *)user;
    if (set->count < 200) snprintf(set->names[set->count], 32, "%s", name);
    set->count++;
}

static size_t times_listed(const name_set *set, const char *name) {
    size_t times = 0;
    for (size_t i = 0; i < set->count; i++) times += strcmp(set->names[i], name) == 0;
    return times;
}

static void lists_on(layer *at) {
    static name_set set;
    char name[32];
    for (int round = 0; round < 2; round++) { /* a list starts anew each time */
        set.count = 0;
        CHECK_EQ_INT(at->files.dir_list_fn(at->dir, collect, &set, &os, at->files.user), IQDB_OK);
        CHECK_EQ_U64(set.count, 0);
    }
    for (int i = 0; i < 150; i++) {
        snprintf(name, sizeof name, "wal-%d", i);
        CHECK(make_file(at, name, ""));
    }
    CHECK_EQ_INT(try_dir(at, "folder", true), IQDB_OK);
    CHECK(make_file(at, "0123456789012345678901234567890", "")); /* the longest name */
    CHECK_EQ_INT(drop(at, "wal-77"), IQDB_OK);
    for (int round = 0; round < 2; round++) {
        set.count = 0;
        CHECK_EQ_INT(at->files.dir_list_fn(at->dir, collect, &set, &os, at->files.user), IQDB_OK);
        CHECK_EQ_U64(set.count, 151);
        for (int i = 0; i < 150; i++) {
            snprintf(name, sizeof name, "wal-%d", i);
            CHECK_EQ_U64(times_listed(&set, name), i != 77);
        }
        CHECK_EQ_U64(times_listed(&set, "folder"), 1);
        CHECK_EQ_U64(times_listed(&set, "0123456789012345678901234567890"), 1);
    }
}
LAYERED(lists)

static void open_and_close(const char *name, void *user) {
    layer *at = (layer *)user;
    void *file;
    if (EXPECT(open_file(at, name, IQDB_OPEN_READ, &file) == IQDB_OK)) close_file(at, file);
}

static void lists_may_call_back_on(layer *at) {
    CHECK(make_file(at, "a", "") && make_file(at, "b", ""));
    CHECK_EQ_INT(at->files.dir_list_fn(at->dir, open_and_close, at, &os, at->files.user), IQDB_OK);
}
LAYERED(lists_may_call_back)

/* ---- Locks ---- */

static void locks_on(layer *at) {
    void *a, *b, *c;
    CHECK(make_file(at, "LOCK", "") && make_file(at, "OTHER", ""));
    CHECK_EQ_INT(open_file(at, "LOCK", IQDB_OPEN_WRITE, &a), IQDB_OK);
    CHECK_EQ_INT(open_file(at, "LOCK", IQDB_OPEN_WRITE, &b), IQDB_OK);
    CHECK_EQ_INT(open_file(at, "OTHER", IQDB_OPEN_WRITE, &c), IQDB_OK);
    CHECK_EQ_INT(lock(at, a, true), IQDB_OK);
    CHECK_EQ_INT(lock(at, b, true), IQDB_ERR_LOCKED); /* the same process, another open file */
    CHECK_EQ_INT(lock(at, b, false), IQDB_ERR_LOCKED);
    CHECK_EQ_INT(lock(at, c, true), IQDB_OK);
    close_file(at, c);
    CHECK_EQ_INT(lock(at, a, true), IQDB_OK); /* has it already */
    close_file(at, a);
    CHECK_EQ_INT(lock(at, b, true), IQDB_OK);
    close_file(at, b);

    CHECK_EQ_INT(open_file(at, "LOCK", IQDB_OPEN_READ, &a), IQDB_OK);
    CHECK_EQ_INT(open_file(at, "LOCK", IQDB_OPEN_READ, &b), IQDB_OK);
    CHECK_EQ_INT(open_file(at, "LOCK", IQDB_OPEN_WRITE, &c), IQDB_OK);
    CHECK_EQ_INT(lock(at, a, false), IQDB_OK);
    CHECK_EQ_INT(lock(at, b, false), IQDB_OK);
    CHECK_EQ_INT(lock(at, c, true), IQDB_ERR_LOCKED);
    close_file(at, a);
    CHECK_EQ_INT(lock(at, c, true), IQDB_ERR_LOCKED); /* b still has it */
    CHECK_EQ_INT(lock(at, c, false), IQDB_OK);
    close_file(at, b);
    CHECK_EQ_INT(lock(at, c, true), IQDB_OK); /* from shared to exclusive */
    CHECK_EQ_INT(open_file(at, "LOCK", IQDB_OPEN_READ, &a), IQDB_OK);
    CHECK_EQ_INT(lock(at, a, false), IQDB_ERR_LOCKED);
    CHECK_EQ_INT(lock(at, c, false), IQDB_OK); /* and back */
    CHECK_EQ_INT(lock(at, a, false), IQDB_OK);
    close_file(at, c);
    close_file(at, a);
    CHECK_EQ_INT(open_file(at, "LOCK", IQDB_OPEN_WRITE, &a), IQDB_OK);
    CHECK_EQ_INT(lock(at, a, true), IQDB_OK);
    close_file(at, a);
}
LAYERED(locks)

/* ---- Directories ---- */

static void directories_on(layer *at) {
    void *dir, *file;
    CHECK_EQ_INT(try_dir(at, "a", false), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(try_dir(at, "a/b", false), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(try_dir(at, "a/b/c/d", true), IQDB_OK);
    CHECK_EQ_INT(try_dir(at, "a/b/c/d", true), IQDB_OK);
    CHECK_EQ_INT(try_dir(at, "a/b/c/d", false), IQDB_OK);
    CHECK_EQ_INT(try_dir(at, "a", false), IQDB_OK);
    CHECK_EQ_INT(try_dir(at, "a/b/c/d/", false), IQDB_OK);
    CHECK_EQ_INT(try_dir(at, "a//b/./c/../c/d///", false), IQDB_OK);
    CHECK_EQ_INT(try_dir(at, "a/e/f//", true), IQDB_OK);
    CHECK_EQ_INT(try_dir(at, "a/e/f", false), IQDB_OK);
    CHECK_EQ_INT(try_dir(at, "a/e/d", false), IQDB_ERR_NOT_FOUND);
    static const char *const dotted[] = {".x", "x.", "...", "..x", ".x/.."};
    for (size_t i = 0; i < 4; i++) { /* names like any other */
        CHECK_EQ_INT(try_dir(at, dotted[i], false), IQDB_ERR_NOT_FOUND);
        CHECK_EQ_INT(try_dir(at, dotted[i], true), IQDB_OK);
        CHECK_EQ_INT(try_dir(at, dotted[i], false), IQDB_OK);
    }
    CHECK_EQ_INT(try_dir(at, dotted[4], false), IQDB_OK);
    CHECK_EQ_INT(try_dir(at, "nothing/..", false), IQDB_ERR_NOT_FOUND);
    os = 1;
    CHECK_EQ_INT(at->files.dir_open_fn("", true, &dir, &os, at->files.user), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(os, 0);
    CHECK_EQ_INT(at->files.dir_open_fn("/", false, &dir, &os, at->files.user), IQDB_OK);
    at->files.dir_close_fn(dir, at->files.user);

    CHECK(make_file(at, "file", "text"));
    CHECK_EQ_INT(try_dir(at, "file", false), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(try_dir(at, "file", true), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(try_dir(at, "file/", true), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(try_dir(at, "file/below", true), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(open_file(at, "a", IQDB_OPEN_READ, &file), IQDB_ERR_IO);
    CHECK_EQ_INT(open_file(at, "a", IQDB_OPEN_WRITE, &file), IQDB_ERR_IO);
    CHECK_EQ_INT(open_file(at, "a", IQDB_OPEN_CREATE, &file), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(drop(at, "a"), IQDB_ERR_IO);
    CHECK_EQ_INT(try_dir(at, "a/b", false), IQDB_OK);
}
LAYERED(directories)

static void long_components_on(layer *at) {
    char below[600];
    memset(below, 'x', sizeof below);
    below[255] = '/';
    below[511] = 0;
    CHECK_EQ_INT(try_dir(at, below, false), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(try_dir(at, below, true), IQDB_OK);
    CHECK_EQ_INT(try_dir(at, below, false), IQDB_OK);
    below[511] = 'x';
    below[512] = 0;
    CHECK_EQ_INT(try_dir(at, below, true), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(try_dir(at, below + 256, true), IQDB_ERR_INVALID_CONFIG);
    below[255] = 0;
    CHECK_EQ_INT(try_dir(at, below, false), IQDB_OK);
}
LAYERED(long_components)

static void directories_are_apart_on(layer *at) {
    void *root = at->dir, *one, *two, *file;
    char path[SUPPORT_PATH_MAX];
    support_join(path, at->root, "one");
    CHECK_EQ_INT(at->files.dir_open_fn(path, true, &one, &os, at->files.user), IQDB_OK);
    support_join(path, at->root, "two");
    CHECK_EQ_INT(at->files.dir_open_fn(path, true, &two, &os, at->files.user), IQDB_OK);
    at->dir = one;
    CHECK(make_file(at, "f", "1"));
    at->dir = two;
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_READ, &file), IQDB_ERR_NOT_FOUND);
    CHECK(make_file(at, "f", "2"));
    at->files.dir_close_fn(one, at->files.user);
    at->files.dir_close_fn(two, at->files.user);
    support_join(path, at->root, "one/");
    CHECK_EQ_INT(at->files.dir_open_fn(path, false, &one, &os, at->files.user), IQDB_OK);
    at->dir = one;
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_READ, &file), IQDB_OK);
    CHECK(holds(at, file, "1"));
    at->files.dir_close_fn(one, at->files.user); /* the file outlives it */
    CHECK(holds(at, file, "1"));
    close_file(at, file);
    at->dir = root;
}
LAYERED(directories_are_apart)

/* Whether a layer, or what is below it, can do it is its own affair; what was written before is not touched. */
static void reserves_on(layer *at) {
    enum {
        MORE = 300000
    };
    static char bytes[MORE + 16];
    void *file;
    size_t size;
    CHECK_EQ_INT(open_file(at, "f", IQDB_OPEN_CREATE, &file), IQDB_OK);
    CHECK_EQ_INT(put(at, file, 0, "hello", 5), IQDB_OK);
    if (at->files.reserve_fn != NULL) {
        const iqdb_result result = at->files.reserve_fn(file, 5, MORE, &os, at->files.user);
        CHECK(result == IQDB_OK || result == IQDB_ERR_NOT_IMPLEMENTED);
        CHECK_EQ_U64(size_of(at, file), result == IQDB_OK ? MORE + 5 : 5);
        CHECK_EQ_INT(get(at, file, 0, bytes, sizeof bytes, &size), IQDB_OK);
        CHECK(memcmp(bytes, "hello", 5) == 0);
        for (size_t i = 5; i < size; i++) CHECK(bytes[i] == 0);
        if (result == IQDB_OK) {
            CHECK_EQ_INT(at->files.reserve_fn(file, MORE + 5, UINT64_C(1) << 60, &os, at->files.user),
                         IQDB_ERR_NOSPACE);
            CHECK(os != 0);
        }
    }
    if (at->files.start_fn != NULL) at->files.start_fn(file, 0, 5, at->files.user);
    CHECK_EQ_INT(get(at, file, 0, bytes, 5, &size), IQDB_OK);
    CHECK(memcmp(bytes, "hello", 5) == 0);
    close_file(at, file);
}
LAYERED(reserves)

/* As it is, for as long as it is mapped: also when the file is closed, and has lost its name. */
static void maps_on(layer *at) {
    const void *bytes = NULL;
    static uint8_t written[200000];
    void *file;
    if (at->files.map_fn == NULL) return;
    for (size_t i = 0; i < sizeof written; i++) written[i] = (uint8_t)(i * 7 + i / 256);
    CHECK_EQ_INT(open_file(at, "m", IQDB_OPEN_CREATE, &file), IQDB_OK);
    CHECK_EQ_INT(put(at, file, 0, written, sizeof written), IQDB_OK);
    CHECK_EQ_INT(at->files.map_fn(file, 0, &bytes, &os, at->files.user), IQDB_ERR_NOT_IMPLEMENTED);
    CHECK_EQ_INT(at->files.map_fn(file, UINT64_C(1) << 63, &bytes, &os, at->files.user), IQDB_ERR_NOT_IMPLEMENTED);
    CHECK_EQ_INT(at->files.map_fn(file, sizeof written, &bytes, &os, at->files.user), IQDB_OK);
    close_file(at, file);
    CHECK((uintptr_t)bytes % 64 == 0);
    CHECK(memcmp(bytes, written, sizeof written) == 0);
    const iqdb_result removed = drop(at, "m");
    CHECK(removed == IQDB_OK || removed == IQDB_ERR_IO); /* Windows may keep the name */
    CHECK(memcmp(bytes, written, sizeof written) == 0);
    at->files.unmap_fn(bytes, sizeof written, at->files.user);
}
LAYERED(maps)

TEST_MAIN("sys/files", TEST(writes_and_reads), TEST(gaps_are_zeros), TEST(large_contents), TEST(far_offsets),
          TEST(handles_share_the_file), TEST(creates_exclusively), TEST(removes), TEST(lists),
          TEST(lists_may_call_back), TEST(locks), TEST(directories), TEST(long_components), TEST(directories_are_apart),
          TEST(reserves), TEST(maps))
