/* The faulty disk itself: that it fails what it is told to fail, and that a power cut takes what it may take, all of
 * it, and nothing else. The crash tests of the layers above are worth what this is worth. */
#include "fault.h"
#include "support.h"
#include "test.h"

static int os;

/* One disk with one directory, which most tests need. */
typedef struct rig {
    fault_files *disk;
    iqdb_files files;
    void *dir;
} rig;

static bool rig_up(rig *r) {
    r->disk = fault_new(NULL);
    if (r->disk == NULL) return false;
    r->disk->sector_size = 512;
    r->files = fault_table(r->disk);
    return r->files.dir_open_fn("db", true, &r->dir, &os, r->disk) == IQDB_OK;
}

static void rig_down(rig *r) {
    r->files.dir_close_fn(r->dir, r->disk);
    fault_free(r->disk);
}

static iqdb_result open_file(rig *r, const char *name, iqdb_open_kind kind, void **out_file) {
    return r->files.open_fn(r->dir, name, kind, out_file, &os, r->disk);
}
static iqdb_result put(rig *r, void *file, uint64_t offset, const void *bytes, size_t size) {
    return r->files.write_fn(file, offset, bytes, size, &os, r->disk);
}
static iqdb_result sync_file(rig *r, void *file) { return r->files.sync_fn(file, &os, r->disk); }
static iqdb_result sync_dir(rig *r) { return r->files.dir_sync_fn(r->dir, &os, r->disk); }
static iqdb_result drop(rig *r, const char *name) { return r->files.remove_fn(r->dir, name, &os, r->disk); }
static void close_file(rig *r, void *file) { r->files.close_fn(file, r->disk); }

/* A file of `count` sectors, each full of its letter, durable with its name. */
static void *make_durable(rig *r, const char *name, size_t count, char letter) {
    void *file;
    uint8_t bytes[512];
    memset(bytes, letter, sizeof bytes);
    if (open_file(r, name, IQDB_OPEN_CREATE, &file) != IQDB_OK) return NULL;
    for (size_t i = 0; i < count; i++) put(r, file, i * 512, bytes, 512);
    sync_file(r, file);
    sync_dir(r);
    return file;
}

/* The whole contents as text: each run of a byte as the byte and its length, "-" where there is no such file. */
static const char *told(fault_files *disk, const char *name) {
    static char texts[4][200];
    static int turn;
    size_t size = 0, used = 0;
    char *text = texts[turn = (turn + 1) % 4];
    uint8_t *bytes = fault_load(disk, "db", name, &size);
    if (bytes == NULL) return "-";
    text[0] = 0;
    for (size_t i = 0, run; i < size && used < 180; i += run) {
        for (run = 1; i + run < size && bytes[i + run] == bytes[i]; run++) {
        }
        used +=
            (size_t)snprintf(text + used, 200 - used, "%s%c%zu", i > 0 ? " " : "", bytes[i] == 0 ? '0' : bytes[i], run);
    }
    free(bytes);
    return text;
}

/* ---- Failing ---- */

static void fails_the_nth(void) {
    rig r;
    void *file;
    uint64_t size;
    CHECK(rig_up(&r));
    CHECK_EQ_INT(open_file(&r, "f", IQDB_OPEN_CREATE, &file), IQDB_OK);
    fault_fail_nth(r.disk, FAULT_WRITE | FAULT_SYNC, 3, IQDB_ERR_IO, false);
    CHECK_EQ_INT(put(&r, file, 0, "a", 1), IQDB_OK);
    CHECK_EQ_INT(r.files.size_fn(file, &size, &os, r.disk), IQDB_OK); /* another kind */
    CHECK_EQ_INT(sync_file(&r, file), IQDB_OK);
    os = 0;
    CHECK_EQ_INT(put(&r, file, 0, "b", 1), IQDB_ERR_IO);
    CHECK_EQ_INT(os, EIO);
    CHECK_EQ_STR(told(r.disk, "f"), "a1");
    CHECK_EQ_INT(put(&r, file, 0, "c", 1), IQDB_OK);
    CHECK_EQ_U64(r.disk->failed, 1);
    fault_fail_nth(r.disk, FAULT_ANY, 1, IQDB_ERR_NOSPACE, true);
    void *other, *dir;
    char byte;
    size_t got;
    CHECK_EQ_INT(put(&r, file, 0, "d", 1), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(os, ENOSPC);
    CHECK_EQ_INT(sync_file(&r, file), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(sync_dir(&r), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(drop(&r, "f"), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(open_file(&r, "g", IQDB_OPEN_CREATE, &other), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(r.files.dir_open_fn("new", true, &dir, &os, r.disk), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(r.files.dir_list_fn(r.dir, NULL, NULL, &os, r.disk), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(r.files.read_fn(file, 0, &byte, 1, &got, &os, r.disk), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(r.files.lock_fn(file, true, &os, r.disk), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(r.files.size_fn(file, &size, &os, r.disk), IQDB_ERR_NOSPACE);
    CHECK_EQ_U64(r.disk->failed, 11);
    fault_fail_nth(r.disk, FAULT_ANY, 0, IQDB_ERR_IO, true);
    CHECK_EQ_STR(told(r.disk, "f"), "c1");
    CHECK_EQ_INT(open_file(&r, "g", IQDB_OPEN_READ, &other), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_U64(fault_calls(r.disk, FAULT_WRITE), 4);
    CHECK_EQ_U64(fault_calls(r.disk, FAULT_SYNC | FAULT_DIR_SYNC), 3);
    CHECK_EQ_U64(fault_calls(r.disk, FAULT_OPEN), 3);
    CHECK_EQ_U64(fault_calls(r.disk, FAULT_ANY), 4 + 3 + 3 + 2 + 2 + 1 + 1 + 1 + 1);
    CHECK_EQ_U64(r.disk->open_files, 1);
    CHECK_EQ_U64(r.disk->open_dirs, 1);
    close_file(&r, file);
    CHECK_EQ_U64(r.disk->open_files, 0);
    rig_down(&r);
}

static void writes_a_part_first(void) {
    rig r;
    void *file;
    CHECK(rig_up(&r));
    CHECK_EQ_INT(open_file(&r, "f", IQDB_OPEN_CREATE, &file), IQDB_OK);
    r.disk->partial = 3;
    fault_fail_nth(r.disk, FAULT_WRITE, 1, IQDB_ERR_NOSPACE, false);
    CHECK_EQ_INT(put(&r, file, 0, "aaaaa", 5), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(os, ENOSPC);
    CHECK_EQ_STR(told(r.disk, "f"), "a3");
    CHECK_EQ_U64(fault_pending(r.disk), 3); /* name, size, sector */
    r.disk->partial = SIZE_MAX;
    fault_fail_nth(r.disk, FAULT_WRITE, 1, IQDB_ERR_IO, false);
    CHECK_EQ_INT(put(&r, file, 0, "bbbbb", 5), IQDB_ERR_IO);
    CHECK_EQ_STR(told(r.disk, "f"), "b5");
    close_file(&r, file);
    rig_down(&r);
}

static void fills_up(void) {
    rig r;
    void *a, *b;
    uint8_t bytes[600];
    memset(bytes, 'x', sizeof bytes);
    CHECK(rig_up(&r));
    r.disk->space = 1000;
    CHECK_EQ_INT(open_file(&r, "a", IQDB_OPEN_CREATE, &a), IQDB_OK);
    CHECK_EQ_INT(open_file(&r, "b", IQDB_OPEN_CREATE, &b), IQDB_OK);
    CHECK_EQ_INT(put(&r, a, 0, bytes, 600), IQDB_OK);
    CHECK_EQ_INT(put(&r, b, 0, bytes, 600), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(os, ENOSPC);
    CHECK_EQ_STR(told(r.disk, "b"), "x400");
    CHECK_EQ_INT(put(&r, b, 400, bytes, 1), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(put(&r, a, 0, bytes, 600), IQDB_OK); /* what is there may be written again */
    CHECK_EQ_INT(drop(&r, "a"), IQDB_OK);
    CHECK_EQ_INT(put(&r, b, 400, bytes, 1), IQDB_ERR_NOSPACE); /* still open */
    close_file(&r, a);
    CHECK_EQ_INT(put(&r, b, 400, bytes, 600), IQDB_OK);
    CHECK_EQ_INT(put(&r, b, 1000, bytes, 1), IQDB_ERR_NOSPACE);
    close_file(&r, b);
    rig_down(&r);
}

static void count_change(fault_files *disk, void *user) {
    ++*(size_t *)user;
    (void)disk;
}

static void records_calls(void) {
    rig r;
    void *file;
    size_t changes = 0;
    CHECK(rig_up(&r));
    r.disk->recording = true;
    r.disk->after_fn = count_change;
    r.disk->after_user = &changes;
    CHECK_EQ_INT(open_file(&r, "no", IQDB_OPEN_READ, &file), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(open_file(&r, "f", IQDB_OPEN_CREATE, &file), IQDB_OK);
    CHECK_EQ_INT(put(&r, file, 5, "abc", 3), IQDB_OK);
    fault_fail_nth(r.disk, FAULT_SYNC, 1, IQDB_ERR_IO, false);
    CHECK_EQ_INT(sync_file(&r, file), IQDB_ERR_IO);
    CHECK_EQ_INT(sync_dir(&r), IQDB_OK);
    CHECK_EQ_INT(drop(&r, "f"), IQDB_OK);
    CHECK_EQ_U64(changes, 4);
    CHECK_EQ_U64(r.disk->trace_count, 6);
    const fault_event *trace = r.disk->trace;
    CHECK_EQ_INT(trace[0].kind, FAULT_OPEN);
    CHECK_EQ_INT(trace[0].result, IQDB_ERR_NOT_FOUND);
    CHECK_EQ_U64(trace[1].size, IQDB_OPEN_CREATE);
    CHECK_EQ_INT(trace[2].kind, FAULT_WRITE);
    CHECK_EQ_STR(trace[2].name, "f");
    CHECK_EQ_U64(trace[2].offset, 5);
    CHECK_EQ_U64(trace[2].size, 3);
    CHECK_EQ_INT(trace[3].result, IQDB_ERR_IO);
    CHECK_EQ_INT(trace[4].kind, FAULT_DIR_SYNC);
    CHECK_EQ_INT(trace[5].kind, FAULT_REMOVE);
    close_file(&r, file);
    rig_down(&r);
}

static void wraps_any_layer(void) {
    char root[SUPPORT_PATH_MAX];
    void *dir, *file;
    support_directory(root);
    fault_files *disk = fault_over(iqdb_files_default());
    const iqdb_files files = fault_table(disk);
    CHECK_EQ_INT(files.dir_open_fn(root, true, &dir, &os, disk), IQDB_OK);
    CHECK_EQ_INT(files.open_fn(dir, "f", IQDB_OPEN_CREATE, &file, &os, disk), IQDB_OK);
    fault_fail_nth(disk, FAULT_WRITE, 2, IQDB_ERR_IO, false);
    CHECK_EQ_INT(files.write_fn(file, 0, "aa", 2, &os, disk), IQDB_OK);
    CHECK_EQ_INT(files.write_fn(file, 0, "bb", 2, &os, disk), IQDB_ERR_IO);
    files.close_fn(file, disk);
    files.dir_close_fn(dir, disk);
    size_t size = 0;
    uint8_t *bytes = fault_load(disk, root, "f", &size);
    CHECK(bytes != NULL);
    CHECK_EQ_U64(size, 2);
    CHECK_MEM(bytes, "aa", 2);
    free(bytes);
    CHECK(fault_store(disk, root, "f", "cc", 2));
    CHECK(fault_store(disk, root, "g", NULL, 0));
    CHECK_EQ_U64(fault_pending(disk), 0);
    fault_free(disk);
    support_remove(root);
}

/* ---- Power cuts ---- */

/* The state after a cut that keeps the items in `set`, freed by the next call. */
static fault_fate by_set(const fault_item *item, void *user) {
    return *(uint32_t *)user >> item->index & 1 ? fault_keep(item, NULL) : fault_lose(item, NULL);
}

static const char *told_after(rig *r, uint32_t set, const char *name) {
    fault_files *state = fault_crash(r->disk, by_set, &set);
    const char *text = told(state, name);
    fault_free(state);
    return text;
}

static void takes_what_is_not_synced(void) {
    rig r;
    CHECK(rig_up(&r));
    void *file = make_durable(&r, "f", 2, 'a');
    CHECK(file != NULL);
    CHECK_EQ_U64(fault_pending(r.disk), 0);
    CHECK_EQ_STR(told_after(&r, 0, "f"), "a1024");
    uint8_t bytes[1200];
    memset(bytes, 'b', sizeof bytes);
    CHECK_EQ_INT(put(&r, file, 500, bytes, 100), IQDB_OK); /* over the edge of two sectors */
    CHECK_EQ_U64(fault_pending(r.disk), 2);
    CHECK_EQ_STR(told_after(&r, 0, "f"), "a1024");
    CHECK_EQ_STR(told_after(&r, 1, "f"), "a500 b12 a512");
    CHECK_EQ_STR(told_after(&r, 2, "f"), "a512 b88 a424");
    CHECK_EQ_STR(told_after(&r, 3, "f"), "a500 b100 a424");
    CHECK_EQ_STR(told(r.disk, "f"), "a500 b100 a424"); /* nothing happened to the disk itself */
    CHECK_EQ_INT(sync_file(&r, file), IQDB_OK);
    CHECK_EQ_U64(fault_pending(r.disk), 0);
    CHECK_EQ_STR(told_after(&r, 0, "f"), "a500 b100 a424");
    /* Growing: the size is an item of its own, before the sectors. */
    memset(bytes, 'c', sizeof bytes);
    CHECK_EQ_INT(put(&r, file, 1000, bytes, 100), IQDB_OK);
    CHECK_EQ_U64(fault_pending(r.disk), 3);
    CHECK_EQ_STR(told_after(&r, 0, "f"), "a500 b100 a424");
    CHECK_EQ_STR(told_after(&r, 1, "f"), "a500 b100 a424 076"); /* longer, but zeros */
    CHECK_EQ_STR(told_after(&r, 2, "f"), "a500 b100 a400 c24");
    CHECK_EQ_STR(told_after(&r, 4, "f"), "a500 b100 a424"); /* written, but out of reach */
    CHECK_EQ_STR(told_after(&r, 5, "f"), "a500 b100 a424 c76");
    CHECK_EQ_STR(told_after(&r, 7, "f"), "a500 b100 a400 c100");
    close_file(&r, file);
    rig_down(&r);
}

static void takes_names_not_synced(void) {
    rig r;
    void *file;
    CHECK(rig_up(&r));
    CHECK_EQ_INT(open_file(&r, "f", IQDB_OPEN_CREATE, &file), IQDB_OK);
    CHECK_EQ_INT(put(&r, file, 0, "aaaa", 4), IQDB_OK);
    CHECK_EQ_INT(sync_file(&r, file), IQDB_OK);
    CHECK_EQ_U64(fault_pending(r.disk), 1); /* synced, but nobody finds it */
    CHECK_EQ_STR(told_after(&r, 0, "f"), "-");
    CHECK_EQ_STR(told_after(&r, 1, "f"), "a4");
    CHECK_EQ_INT(sync_dir(&r), IQDB_OK);
    CHECK_EQ_STR(told_after(&r, 0, "f"), "a4");
    CHECK_EQ_INT(drop(&r, "f"), IQDB_OK);
    CHECK_EQ_STR(told_after(&r, 0, "f"), "a4");
    CHECK_EQ_STR(told_after(&r, 1, "f"), "-");
    /* Another file of the same name: old, none, or new, and new either empty or full. */
    close_file(&r, file);
    CHECK_EQ_INT(open_file(&r, "f", IQDB_OPEN_CREATE, &file), IQDB_OK);
    CHECK_EQ_INT(put(&r, file, 0, "bb", 2), IQDB_OK);
    CHECK_EQ_U64(fault_pending(r.disk), 4);
    CHECK_EQ_STR(told_after(&r, 0, "f"), "a4");
    CHECK_EQ_STR(told_after(&r, 1, "f"), "-");
    CHECK_EQ_STR(told_after(&r, 2, "f"), "");
    CHECK_EQ_STR(told_after(&r, 2 + 4, "f"), "02");
    CHECK_EQ_STR(told_after(&r, 2 + 8, "f"), "");
    CHECK_EQ_STR(told_after(&r, 15, "f"), "b2");
    CHECK_EQ_INT(sync_dir(&r), IQDB_OK);
    CHECK_EQ_U64(fault_pending(r.disk), 2); /* the old one is gone for good */
    CHECK_EQ_STR(told_after(&r, 0, "f"), "");
    CHECK_EQ_INT(drop(&r, "f"), IQDB_OK);
    CHECK_EQ_INT(sync_dir(&r), IQDB_OK);
    CHECK_EQ_U64(fault_pending(r.disk), 0); /* removed with all that was open about it */
    CHECK_EQ_INT(put(&r, file, 2, "bb", 2), IQDB_OK);
    CHECK_EQ_U64(fault_pending(r.disk), 0);
    close_file(&r, file);
    rig_down(&r);
}

static fault_fate by_fate(const fault_item *item, void *user) {
    return item->kind == FAULT_ITEM_SECTOR ? *(fault_fate *)user : fault_keep(item, NULL);
}

static void damages_sectors(void) {
    rig r;
    CHECK(rig_up(&r));
    void *file = make_durable(&r, "f", 3, 'a');
    CHECK(file != NULL);
    uint8_t bytes[600];
    memset(bytes, 'b', 512);
    CHECK_EQ_INT(put(&r, file, 512, bytes, 512), IQDB_OK);
    memset(bytes, 'c', 512);
    CHECK_EQ_INT(put(&r, file, 512, bytes, 512), IQDB_OK); /* the same sector again: three versions, 0 to 2 */
    CHECK_EQ_U64(fault_pending(r.disk), 1);
    fault_fate fate = {FAULT_FATE_VERSION, 1, 0, 0, 0};
    fault_files *state = fault_crash(r.disk, by_fate, &fate);
    CHECK_EQ_STR(told(state, "f"), "a512 b512 a512");
    CHECK_EQ_U64(fault_pending(state), 0);
    CHECK_EQ_INT(state->sector_size, 512);
    fault_free(state);
    fate.kind = FAULT_FATE_TORN;
    fate.version = 2;
    fate.at = 100;
    state = fault_crash(r.disk, by_fate, &fate);
    CHECK_EQ_STR(told(state, "f"), "a512 c100 a924");
    fault_free(state);
    fate.behind = 1;
    state = fault_crash(r.disk, by_fate, &fate);
    CHECK_EQ_STR(told(state, "f"), "a512 c100 b412 a512");
    fault_free(state);
    fate.kind = FAULT_FATE_ZEROS;
    state = fault_crash(r.disk, by_fate, &fate);
    CHECK_EQ_STR(told(state, "f"), "a512 0512 a512");
    fault_free(state);
    fate.kind = FAULT_FATE_GARBAGE;
    fate.seed = 5;
    for (int round = 0; round < 2; round++) {
        size_t size, strange = 0;
        state = fault_crash(r.disk, by_fate, &fate);
        uint8_t *seen = fault_load(state, "db", "f", &size);
        CHECK_EQ_U64(size, 1536);
        for (size_t i = 0; i < 512; i++)
            strange += seen[512 + i] != 'a' && seen[512 + i] != 'b' && seen[512 + i] != 'c';
        CHECK(strange > 480);
        CHECK_EQ_INT(seen[511], 'a');
        CHECK_EQ_INT(seen[1024], 'a');
        if (round > 0) CHECK_MEM(seen + 512, bytes, 512); /* the same seed, the same garbage */
        memcpy(bytes, seen + 512, 512);
        free(seen);
        fault_free(state);
    }
    close_file(&r, file);
    rig_down(&r);
}

/* After a failed sync the pages are clean and may not be on the disk: no later sync brings them there. */
static void drops_after_failed_sync(void) {
    rig r;
    CHECK(rig_up(&r));
    void *file = make_durable(&r, "f", 2, 'a');
    CHECK(file != NULL);
    for (int drops = 0; drops < 2; drops++) {
        const char *bytes = drops ? "cc" : "bb";
        r.disk->drop_on_sync_failure = drops;
        CHECK_EQ_INT(put(&r, file, 0, bytes, 2), IQDB_OK);
        fault_fail_nth(r.disk, FAULT_SYNC, 1, IQDB_ERR_IO, false);
        CHECK_EQ_INT(sync_file(&r, file), IQDB_ERR_IO);
        CHECK_EQ_U64(fault_pending(r.disk), 1);
        CHECK_EQ_INT(put(&r, file, 600, bytes, 2), IQDB_OK);
        CHECK_EQ_INT(sync_file(&r, file), IQDB_OK);
        CHECK_EQ_U64(fault_pending(r.disk), drops);
    }
    CHECK_EQ_STR(told(r.disk, "f"), "c2 a598 c2 a422");
    CHECK_EQ_STR(told_after(&r, 0, "f"), "b2 a598 c2 a422");
    CHECK_EQ_STR(told_after(&r, 1, "f"), "c2 a598 c2 a422");
    CHECK_EQ_INT(put(&r, file, 5, "d", 1), IQDB_OK); /* dirty again, so a sync takes it along */
    CHECK_EQ_INT(sync_file(&r, file), IQDB_OK);
    CHECK_EQ_U64(fault_pending(r.disk), 0);
    CHECK_EQ_STR(told_after(&r, 0, "f"), "c2 a3 d1 a594 c2 a422");
    close_file(&r, file);
    rig_down(&r);
}

static void stores_and_loads(void) {
    rig r;
    void *file;
    size_t size = 77;
    CHECK(rig_up(&r));
    CHECK(fault_load(r.disk, "db", "f", &size) == NULL);
    CHECK(fault_load(r.disk, "nowhere", "f", &size) == NULL);
    CHECK(fault_store(r.disk, "db", "f", "aaa", 3));
    CHECK_EQ_U64(fault_pending(r.disk), 0);
    CHECK_EQ_STR(told_after(&r, 0, "f"), "a3");
    CHECK_EQ_INT(open_file(&r, "f", IQDB_OPEN_WRITE, &file), IQDB_OK);
    CHECK_EQ_INT(put(&r, file, 3, "bb", 2), IQDB_OK);
    close_file(&r, file);
    CHECK_EQ_U64(fault_pending(r.disk), 2);
    CHECK(fault_store(r.disk, "db", "f", "", 0)); /* what was in doubt is gone */
    CHECK_EQ_U64(fault_pending(r.disk), 0);
    CHECK_EQ_STR(told_after(&r, 0, "f"), "");
    CHECK(fault_store(r.disk, "db", "f", NULL, 0));
    CHECK_EQ_STR(told(r.disk, "f"), "-");
    CHECK_EQ_STR(told_after(&r, 0, "f"), "-");
    CHECK_EQ_U64(fault_calls(r.disk, FAULT_ANY), 3); /* two opens and a write */
    rig_down(&r);
}

/* ---- Touring all states ---- */

typedef struct seen_states {
    char texts[5000][40];
    size_t count, calls, stop_at;
    bool unexplained;
} seen_states;

static bool note_state(fault_files *state, const char *what, void *user) {
    seen_states *seen = user;
    char text[200];
    snprintf(text, sizeof text, "%s|%s", told(state, "f"), told(state, "g"));
    seen->calls++;
    seen->unexplained = seen->unexplained || what == NULL || what[0] == 0;
    size_t i = 0;
    while (i < seen->count && strncmp(seen->texts[i], text, 39) != 0) i++;
    if (i == seen->count && seen->count < 5000) snprintf(seen->texts[seen->count++], 40, "%.39s", text);
    return seen->calls != seen->stop_at;
}

static void tours_every_subset(void) {
    rig r;
    static seen_states seen;
    void *file;
    uint8_t bytes[512];
    CHECK(rig_up(&r));
    void *durable = make_durable(&r, "f", 6, 'a');
    CHECK(durable != NULL);
    CHECK_EQ_U64(fault_crashes(r.disk, 7, 100, 1, note_state, &seen), 1); /* nothing in doubt: one state */
    memset(&seen, 0, sizeof seen);
    for (size_t i = 0; i < 6; i++) {
        memset(bytes, (int)('b' + i), 512);
        CHECK_EQ_INT(put(&r, durable, i * 512, bytes, 512), IQDB_OK);
    }
    CHECK_EQ_INT(open_file(&r, "g", IQDB_OPEN_CREATE, &file), IQDB_OK);
    CHECK_EQ_INT(put(&r, file, 0, bytes, 512), IQDB_OK);
    CHECK_EQ_U64(fault_pending(r.disk), 9); /* 6 sectors; name, size and sector of g */
    CHECK_EQ_U64(fault_crashes(r.disk, 0, 100, 1, note_state, &seen), 512);
    CHECK_EQ_U64(seen.calls, 512);
    CHECK_EQ_U64(seen.count, 64 * 4); /* g: none, empty, zeros, full */
    CHECK(!seen.unexplained);
    /* With damage: each of the 7 sectors in 8 + 1 + 1 ways, others kept or lost. */
    CHECK_EQ_U64(fault_crashes(r.disk, FAULT_TEAR, 100, 1, note_state, &seen), 512 + 7 * 2 * 8);
    CHECK_EQ_U64(fault_crashes(r.disk, FAULT_ZEROS | FAULT_GARBAGE, 100, 1, note_state, &seen), 512 + 7 * 2 * 2);
    memset(&seen, 0, sizeof seen);
    seen.stop_at = 100;
    CHECK_EQ_U64(fault_crashes(r.disk, 7, 100, 1, note_state, &seen), 100);
    seen.stop_at = 700;
    CHECK_EQ_U64(fault_crashes(r.disk, 7, 100, 1, note_state, &seen), 600);
    close_file(&r, file);
    close_file(&r, durable);
    rig_down(&r);
}

static void tours_samples_of_many(void) {
    rig r;
    static seen_states seen;
    uint8_t bytes[512];
    CHECK(rig_up(&r));
    void *file = make_durable(&r, "f", 20, 'a');
    CHECK(file != NULL);
    for (size_t i = 0; i < 20; i++) {
        memset(bytes, (int)('b' + i), 512);
        CHECK_EQ_INT(put(&r, file, i * 512, bytes, 512), IQDB_OK);
    }
    CHECK_EQ_U64(fault_pending(r.disk), 20);
    memset(&seen, 0, sizeof seen);
    const size_t count = fault_crashes(r.disk, 0, 300, 1, note_state, &seen);
    CHECK_EQ_U64(count, 3 * 20 + 1 + 300);
    CHECK(seen.count > 150);
    /* Other seeds give other samples, the same seed the same. */
    const size_t distinct = seen.count;
    fault_crashes(r.disk, 0, 300, 1, note_state, &seen);
    CHECK_EQ_U64(seen.count, distinct);
    fault_crashes(r.disk, 0, 300, 1000, note_state, &seen);
    CHECK(seen.count > distinct + 50);
    /* Few items but several versions: the ones between are sampled. */
    CHECK_EQ_INT(sync_file(&r, file), IQDB_OK);
    CHECK_EQ_INT(put(&r, file, 0, "12", 2), IQDB_OK);
    CHECK_EQ_INT(put(&r, file, 0, "34", 2), IQDB_OK);
    CHECK_EQ_INT(put(&r, file, 0, "56", 2), IQDB_OK);
    memset(&seen, 0, sizeof seen);
    CHECK_EQ_U64(fault_crashes(r.disk, 0, 50, 1, note_state, &seen), 2 + 50);
    CHECK_EQ_U64(seen.count, 4);
    close_file(&r, file);
    rig_down(&r);
}

/* ---- Does it find bugs? A careful and a careless writer of "data before header". ---- */

typedef struct promise {
    bool header_only_with_data;
    size_t broken;
} promise;

static bool header_means_data(fault_files *state, const char *what, void *user) {
    promise *p = user;
    (void)what;
    const bool header = strncmp(told(state, "header"), "h", 1) == 0;
    const bool data = strcmp(told(state, "data"), "d2000") == 0;
    p->broken += header && !data;
    return true;
}

enum {
    FORGETS_NOTHING,
    FORGETS_SYNC,
    FORGETS_DIR_SYNC,
    FORGETS_ORDER
};

static size_t broken_promises(int forgets) {
    rig r;
    void *header, *data;
    promise p = {true, 0};
    uint8_t bytes[2000];
    memset(bytes, 'd', sizeof bytes);
    if (!rig_up(&r)) return 99999;
    header = make_durable(&r, "header", 0, ' ');
    if (open_file(&r, "data", IQDB_OPEN_CREATE, &data) != IQDB_OK) return 99999;
    if (forgets == FORGETS_ORDER) put(&r, header, 0, "h", 1);
    put(&r, data, 0, bytes, sizeof bytes);
    if (forgets != FORGETS_SYNC) sync_file(&r, data);
    if (forgets == FORGETS_ORDER) fault_crashes(r.disk, 0, 100, 1, header_means_data, &p);
    if (forgets != FORGETS_DIR_SYNC) sync_dir(&r);
    if (forgets != FORGETS_ORDER) put(&r, header, 0, "h", 1);
    fault_crashes(r.disk, 0, 100, 1, header_means_data, &p);
    close_file(&r, data);
    close_file(&r, header);
    rig_down(&r);
    return p.broken;
}

static void finds_planted_bugs(void) {
    CHECK_EQ_U64(broken_promises(FORGETS_NOTHING), 0);
    CHECK(broken_promises(FORGETS_SYNC) > 0);
    CHECK(broken_promises(FORGETS_DIR_SYNC) > 0);
    CHECK(broken_promises(FORGETS_ORDER) > 0);
}

/* ---- The model against the files below it ---- */

static bool same_files(fault_files *a, fault_files *b) {
    static const char *const names[] = {"0", "1", "2", "3"};
    for (size_t i = 0; i < 4; i++) {
        size_t size_a = 0, size_b = 0;
        uint8_t *bytes_a = fault_load(a, "db", names[i], &size_a), *bytes_b = fault_load(b, "db", names[i], &size_b);
        const bool same = (bytes_a == NULL) == (bytes_b == NULL) && size_a == size_b &&
                          (bytes_a == NULL || memcmp(bytes_a, bytes_b, size_a) == 0);
        free(bytes_a);
        free(bytes_b);
        if (!same) return false;
    }
    return true;
}

/* All kept is what the files say; and when everything was synced, so is all lost. */
static void agrees_with_its_files(void) {
    uint64_t random = 11;
    const size_t steps = support_amount(300, 3000, 30000);
    rig r;
    void *open[4] = {NULL, NULL, NULL, NULL};
    uint8_t bytes[2000];
    size_t syncs = 0;
    CHECK(rig_up(&r));
    for (size_t step = 0; step < steps; step++) {
        const size_t i = (size_t)support_random_below(&random, 4);
        const char name[2] = {(char)('0' + i), 0};
        const uint64_t choice = support_random_below(&random, 20);
        if (open[i] == NULL) {
            if (open_file(&r, name, IQDB_OPEN_WRITE, &open[i]) != IQDB_OK)
                CHECK_EQ_INT(open_file(&r, name, IQDB_OPEN_CREATE, &open[i]), IQDB_OK);
        } else if (choice < 12) {
            const size_t size = (size_t)support_random_below(&random, sizeof bytes + 1);
            memset(bytes, (int)(1 + step % 255), size);
            CHECK_EQ_INT(put(&r, open[i], support_random_below(&random, 4000), bytes, size), IQDB_OK);
        } else if (choice < 14) {
            CHECK_EQ_INT(sync_file(&r, open[i]), IQDB_OK);
        } else if (choice == 14) {
            CHECK_EQ_INT(sync_dir(&r), IQDB_OK);
        } else if (choice == 15) {
            const iqdb_result removed = drop(&r, name);
            CHECK(removed == IQDB_OK || removed == IQDB_ERR_NOT_FOUND); /* removed while open, and not made again */
        } else if (choice == 16) {
            close_file(&r, open[i]);
            open[i] = NULL;
        } else if (choice == 17) {
            for (size_t j = 0; j < 4; j++)
                if (open[j] != NULL) CHECK_EQ_INT(sync_file(&r, open[j]), IQDB_OK);
            CHECK_EQ_INT(sync_dir(&r), IQDB_OK);
            if (fault_pending(r.disk) == 0) { /* else a closed file was not synced */
                fault_files *lost = fault_crash(r.disk, fault_lose, NULL);
                CHECK(same_files(r.disk, lost));
                fault_free(lost);
                syncs++;
            }
        } else {
            fault_files *copy = fault_copy(r.disk);
            CHECK(same_files(r.disk, copy));
            fault_free(copy);
        }
    }
    CHECK(syncs > steps / 100);
    for (size_t i = 0; i < 4; i++)
        if (open[i] != NULL) close_file(&r, open[i]);
    rig_down(&r);
}

TEST_MAIN("sys/fault", TEST(fails_the_nth), TEST(writes_a_part_first), TEST(fills_up), TEST(records_calls),
          TEST(wraps_any_layer), TEST(takes_what_is_not_synced), TEST(takes_names_not_synced), TEST(damages_sectors),
          TEST(drops_after_failed_sync), TEST(stores_and_loads), TEST(tours_every_subset), TEST(tours_samples_of_many),
          TEST(finds_planted_bugs), TEST(agrees_with_its_files))
