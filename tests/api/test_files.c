/* When the system refuses. A file layer and an allocator of our own, handed in through the options, fail at the Nth call,
 * for every N of a scenario that opens, writes, flushes, checkpoints and closes, once and for good. Whatever fails: the
 * code is one of those the manual names, nothing leaks, and a later opening with files that work finds every record that
 * was acknowledged, none that was refused, and no half of a batch. And calls from inside such callbacks are BUSY. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

#include <pthread.h>

/* ---- Files that fail ---- */

enum {
    OS_CODE = 4242
};

typedef struct faulty {
    iqdb_files real;
    long calls;
    long fail_at; /* 0: never */
    int sticky;
    int writes_only; /* only write_fn counts */
    int half;        /* a write that fails has written half */
    iqdb_result code;
    long failed;
    long handles; /* files and directories open */
    void (*hook)(void *);
    void *hook_user;
} faulty;

static int refuses(faulty *f, int is_write) {
    if (f->hook != NULL) f->hook(f->hook_user);
    if (f->writes_only && !is_write) return 0;
    f->calls++;
    if (f->fail_at == 0 || f->calls < f->fail_at || (f->calls > f->fail_at && !f->sticky)) return 0;
    f->failed++;
    return 1;
}

#define FAULT(is_write) \
    faulty *f = (faulty *)user; \
    *os_code = 0; \
    if (refuses(f, is_write)) { \
        *os_code = OS_CODE; \
        return f->code; \
    }

static iqdb_result faulty_dir_open(const char *path, bool create, void **out_dir, int *os_code, void *user) {
    FAULT(0)
    const iqdb_result result = f->real.dir_open_fn(path, create, out_dir, os_code, f->real.user);
    if (result == IQDB_OK) f->handles++;
    return result;
}
static void faulty_dir_close(void *dir, void *user) {
    faulty *f = (faulty *)user;
    if (f->hook != NULL) f->hook(f->hook_user);
    f->handles--;
    f->real.dir_close_fn(dir, f->real.user);
}
static iqdb_result faulty_dir_sync(void *dir, int *os_code, void *user) {
    FAULT(0)
    (void)dir; /* no power is cut here, so nothing needs to reach the disk */
    return IQDB_OK;
}
static iqdb_result faulty_dir_list(void *dir, void (*each_fn)(const char *name, void *each_user), void *each_user,
                                   int *os_code, void *user) {
    FAULT(0)
    return f->real.dir_list_fn(dir, each_fn, each_user, os_code, f->real.user);
}
static iqdb_result faulty_remove(void *dir, const char *name, int *os_code, void *user) {
    FAULT(0)
    EXPECT(name != NULL && strlen(name) < 32 && strchr(name, '/') == NULL);
    return f->real.remove_fn(dir, name, os_code, f->real.user);
}
static iqdb_result faulty_open(void *dir, const char *name, iqdb_open_kind kind, void **out_file, int *os_code,
                               void *user) {
    FAULT(0)
    EXPECT(name != NULL && strlen(name) < 32 && strchr(name, '/') == NULL);
    const iqdb_result result = f->real.open_fn(dir, name, kind, out_file, os_code, f->real.user);
    if (result == IQDB_OK) f->handles++;
    return result;
}
static void faulty_close(void *file, void *user) {
    faulty *f = (faulty *)user;
    if (f->hook != NULL) f->hook(f->hook_user);
    f->handles--;
    f->real.close_fn(file, f->real.user);
}
static iqdb_result faulty_size(void *file, uint64_t *out_size, int *os_code, void *user) {
    FAULT(0)
    return f->real.size_fn(file, out_size, os_code, f->real.user);
}
static iqdb_result faulty_read(void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size, int *os_code,
                               void *user) {
    FAULT(0)
    return f->real.read_fn(file, offset, bytes, size, out_size, os_code, f->real.user);
}
static iqdb_result faulty_write(void *file, uint64_t offset, const void *bytes, size_t size, int *os_code, void *user) {
    faulty *f = (faulty *)user;
    *os_code = 0;
    if (refuses(f, 1)) {
        int ignored;
        if (f->half && size > 1) f->real.write_fn(file, offset, bytes, size / 2, &ignored, f->real.user);
        *os_code = OS_CODE;
        return f->code;
    }
    return f->real.write_fn(file, offset, bytes, size, os_code, f->real.user);
}
static iqdb_result faulty_sync(void *file, int *os_code, void *user) {
    FAULT(0)
    (void)file;
    return IQDB_OK;
}
static iqdb_result faulty_lock(void *file, bool exclusive, int *os_code, void *user) {
    FAULT(0)
    return f->real.lock_fn(file, exclusive, os_code, f->real.user);
}

static void faulty_make(faulty *f) {
    memset(f, 0, sizeof *f);
    f->real = public_quick_files(); /* what a sync leaves undone shows only after a power cut */
    f->code = IQDB_ERR_IO;
}

static iqdb_files faulty_files(faulty *f) {
    iqdb_files files = iqdb_files_default();
    files.dir_open_fn = faulty_dir_open;
    files.dir_close_fn = faulty_dir_close;
    files.dir_sync_fn = faulty_dir_sync;
    files.dir_list_fn = faulty_dir_list;
    files.remove_fn = faulty_remove;
    files.open_fn = faulty_open;
    files.close_fn = faulty_close;
    files.size_fn = faulty_size;
    files.read_fn = faulty_read;
    files.write_fn = faulty_write;
    files.sync_fn = faulty_sync;
    files.lock_fn = faulty_lock;
    files.user = f;
    return files;
}

/* ---- What may be found afterwards ---- */

enum {
    IDS = 12,
    MOST_WRITES = 64
};

typedef struct content {
    int version[IDS]; /* -1: not there */
} content;

typedef struct change {
    uint64_t id;
    int version; /* -1: delete */
} change;

typedef struct attempt {
    change changes[4];
    size_t count;
    int certain; /* 1: returned OK; 0: IO, may have happened or not */
} attempt;

typedef struct history {
    content base; /* what was there when the list began */
    attempt list[MOST_WRITES];
    size_t count;
    size_t durable; /* the first so many were acknowledged */
} history;

static void content_apply(content *c, const attempt *a) {
    for (size_t i = 0; i < a->count; i++) c->version[a->changes[i].id] = a->changes[i].version;
}

static int content_read(const iqdb *db, content *c) {
    size_t live = 0;
    for (uint64_t id = 0; id < IDS; id++) {
        c->version[id] = -1;
        if (!iqdb_contains(db, id)) continue;
        live++;
        for (int version = 0; version < 200 && c->version[id] < 0; version++)
            if (public_holds(db, id, (uint64_t)version)) c->version[id] = version;
        if (c->version[id] < 0) return 0; /* none that was ever written */
    }
    return live == iqdb_len(db);
}

/* Whether `seen` follows from the certain writes, any choice of the uncertain ones, and an end at `first` writes or later. */
static int history_allows(const history *h, const content *seen, size_t first, size_t last) {
    size_t uncertain = 0;
    for (size_t i = 0; i < h->count; i++) uncertain += !h->list[i].certain;
    if (!EXPECT(uncertain <= 10)) return 0;
    for (size_t choice = 0; choice < (size_t)1 << uncertain; choice++) {
        content c = h->base;
        size_t bit = 0;
        for (size_t i = 0; i <= last; i++) {
            if (i >= first && memcmp(&c, seen, sizeof c) == 0) return 1;
            if (i == last) break;
            if (h->list[i].certain || (choice >> bit++ & 1)) content_apply(&c, &h->list[i]);
        }
    }
    return 0;
}

/* ---- The scenario ---- */

typedef struct theatre {
    char folder[SUPPORT_PATH_MAX];
    char path[SUPPORT_PATH_MAX];
    faulty files;
    support_heap heap;
    iqdb_error error;
    iqdb_options options;
    iqdb *db;
    history h;
    iqdb_result injected; /* the code that a fault has */
    int retry;            /* NOMEM, once: the same call again has to succeed */
    int stopped;
} theatre;

static void theatre_make(theatre *t) {
    memset(t, 0, sizeof *t);
    support_directory(t->folder);
    support_join(t->path, t->folder, "db");
    faulty_make(&t->files);
    t->heap = support_heap_make();
    t->options = iqdb_options_default();
    t->options.files = faulty_files(&t->files);
    t->options.allocator = support_allocator(&t->heap);
    t->options.error = &t->error;
    memset(t->h.base.version, -1, sizeof t->h.base.version);
}

static char untold[2048]; /* failures without details that were reported already */

/* The code is OK, the one that was injected, or POISONED after an IO; on a full disk a database that needs recovery may
 * open for reading only. The details say the same. */
static int code_is_documented(theatre *t, iqdb_result result, const char *call) {
    const int io_fault = t->injected == IQDB_ERR_IO || t->injected == IQDB_ERR_NOSPACE;
    int ok = result == IQDB_OK || result == t->injected ||
             (io_fault && (result == IQDB_ERR_IO || result == IQDB_ERR_POISONED));
    if (result == IQDB_ERR_READONLY && t->injected == IQDB_ERR_NOSPACE) {
        iqdb_stats stats;
        ok = t->files.failed > 0 && iqdb_stat(t->db, &stats) == IQDB_OK && stats.read_only;
    }
    int good = EXPECT(ok);
    if (result != IQDB_OK && result != IQDB_ERR_POISONED) { /* the details of that have a test of their own */
        const int tells =
            t->error.code == result && t->error.text[0] != 0 && (result != IQDB_ERR_IO || t->error.os_code == OS_CODE);
        char what[64];
        snprintf(what, sizeof what, "<%s %d %s>", call, (int)result, tells ? "" : t->error.file);
        if (!tells && strstr(untold, what) == NULL) { /* one of a kind is enough to read */
            if (strlen(untold) + strlen(what) < sizeof untold) strcat(untold, what);
            good = EXPECT(t->error.code == result && t->error.text[0] != 0) && good;
            if (result == IQDB_ERR_IO) good = EXPECT(t->error.os_code == OS_CODE) && good;
        }
    }
    if (!good)
        printf("\n      ... %s gave %s; details: code %d, system's %d, %s: %s", call, iqdb_strerror(result),
               (int)t->error.code, t->error.os_code, t->error.file, t->error.text);
    return good;
}

static void theatre_open(theatre *t) {
    if (t->stopped) return;
    for (int tries = 0; tries < 2; tries++) {
        t->db = (iqdb *)(void *)t;
        memset(&t->error, 0, sizeof t->error);
        const iqdb_result result = iqdb_open(t->path, &t->options, &t->db);
        if (!code_is_documented(t, result, "open")) t->stopped = 1;
        if (result == IQDB_OK) {
            content seen;
            if (!EXPECT(content_read(t->db, &seen)) || !EXPECT(history_allows(&t->h, &seen, t->h.durable, t->h.count)))
                t->stopped = 1;
            t->h.base = seen; /* from now on this is what is there */
            t->h.count = t->h.durable = 0;
            return;
        }
        EXPECT(t->db == NULL);
        EXPECT(result != IQDB_ERR_POISONED);
        EXPECT(t->files.handles == 0);
        EXPECT(t->heap.live_blocks == 0);
        t->db = NULL;
        if (t->files.sticky || t->heap.sticky) break;
        EXPECT(tries == 0); /* the fault is over, so the second try succeeds */
    }
    t->stopped = 1;
}

static void theatre_write(theatre *t, const change *changes, size_t count, int through) {
    if (t->stopped) return;
    iqdb_record records[4];
    float vectors[4][PUBLIC_DIM];
    iqdb_field fields[4][2];
    iqdb_op ops[4];
    uint64_t ids[4];
    attempt *a = &t->h.list[t->h.count];
    for (size_t i = 0; i < count; i++) {
        const uint64_t id = changes[i].id, version = (uint64_t)changes[i].version;
        a->changes[i] = changes[i];
        ids[i] = id;
        ops[i] = iqdb_op_default();
        ops[i].kind = changes[i].version < 0 ? IQDB_OP_DELETE : IQDB_OP_UPSERT;
        ops[i].id = id;
        ops[i].record = &records[i];
        public_vector(id, version, vectors[i]);
        records[i] = public_record(id, vectors[i], PUBLIC_DIM);
        fields[i][0] = public_field("version", iqdb_int(changes[i].version));
        fields[i][1] = public_field("name", iqdb_text(version % 2 == 0 ? "even" : "odd"));
        if (changes[i].version % 3 != 0) {
            records[i].fields = fields[i];
            records[i].field_count = 2;
        }
    }
    a->count = count;
    for (int tries = 0; tries < 2; tries++) {
        content before, after;
        iqdb_result result;
        EXPECT(content_read(t->db, &before));
        memset(&t->error, 0, sizeof t->error);
        if (through == 0)
            result = iqdb_upsert(t->db, &records[0]);
        else if (through == 1)
            result = iqdb_upsert_batch(t->db, records, count);
        else if (through == 2)
            result = iqdb_delete(t->db, ids[0], NULL);
        else if (through == 3)
            result = iqdb_delete_batch(t->db, ids, count, NULL);
        else
            result = iqdb_apply(t->db, ops, count);
        if (!code_is_documented(t, result, "a write")) t->stopped = 1;
        EXPECT(content_read(t->db, &after));
        if (result == IQDB_OK || result == IQDB_ERR_IO) {
            a->certain = result == IQDB_OK;
            t->h.count++;
            if (result == IQDB_OK) {
                content expected = before;
                content_apply(&expected, a);
                EXPECT(memcmp(&expected, &after, sizeof after) == 0);
                if (t->options.sync == IQDB_SYNC_EACH) t->h.durable = t->h.count;
            }
            return;
        }
        EXPECT(memcmp(&before, &after, sizeof after) == 0); /* a call that fails has changed nothing */
        iqdb_stats stats;
        EXPECT(iqdb_stat(t->db, &stats) == IQDB_OK);
        EXPECT(stats.poisoned == (result == IQDB_ERR_POISONED));
        if (!t->retry) return;
        EXPECT(tries == 0);
    }
}

static void put_one(theatre *t, uint64_t id, int version) {
    change c;
    c.id = id;
    c.version = version;
    theatre_write(t, &c, 1, version < 0 ? 2 : 0);
}

static void theatre_barrier(theatre *t, int checkpoint) {
    for (int tries = 0; tries < 2 && !t->stopped; tries++) {
        content before, after;
        EXPECT(content_read(t->db, &before));
        memset(&t->error, 0, sizeof t->error);
        const iqdb_result result = checkpoint ? iqdb_checkpoint(t->db) : iqdb_flush(t->db);
        if (!code_is_documented(t, result, checkpoint ? "checkpoint" : "flush")) t->stopped = 1;
        EXPECT(content_read(t->db, &after) && memcmp(&before, &after, sizeof after) == 0);
        if (result == IQDB_OK) t->h.durable = t->h.count;
        if (result == IQDB_OK || !t->retry) return;
        EXPECT(tries == 0);
    }
}

static void theatre_read(theatre *t) {
    if (t->stopped) return;
    float probe[PUBLIC_DIM] = {0, 0, 0};
    iqdb_hit hits[IDS];
    size_t count = 0;
    const iqdb_query query = public_query(probe, PUBLIC_DIM, IDS, IQDB_L2);
    iqdb_result result = iqdb_search(t->db, &query, hits, &count);
    EXPECT(result == IQDB_OK || (result == IQDB_ERR_NOMEM && t->injected == IQDB_ERR_NOMEM));
    if (result == IQDB_OK) EXPECT(count == iqdb_len(t->db));
    result = iqdb_search_batch(t->db, &query, probe, 1, hits, &count);
    EXPECT(result == IQDB_OK || (result == IQDB_ERR_NOMEM && t->injected == IQDB_ERR_NOMEM));
    size_t seen = 0;
    iqdb_iter iter = iqdb_iter_begin(t->db, NULL);
    while (iqdb_iter_next(&iter)) seen++;
    EXPECT(iter.result == IQDB_OK || (iter.result == IQDB_ERR_NOMEM && t->injected == IQDB_ERR_NOMEM));
    if (iter.result == IQDB_OK) EXPECT(seen == iqdb_len(t->db));
    iqdb_iter_end(&iter);
    result = iqdb_verify(t->db, IQDB_DEPTH_RECORDS, NULL, NULL);
    EXPECT(result == IQDB_OK || result == t->injected || (t->injected == IQDB_ERR_NOSPACE && result == IQDB_ERR_IO) ||
           result == IQDB_ERR_POISONED);
}

static void theatre_close(theatre *t) {
    if (t->db == NULL) return;
    memset(&t->error, 0, sizeof t->error);
    const iqdb_result result = iqdb_close(t->db);
    t->db = NULL;
    code_is_documented(t, result, "close");
    if (result == IQDB_OK) t->h.durable = t->h.count;
    EXPECT(t->files.handles == 0);
    EXPECT(t->heap.live_blocks == 0);
    EXPECT(t->heap.errors == 0);
}

static void scenario(theatre *t) {
    change changes[4];
    theatre_open(t);
    put_one(t, 1, 1);
    put_one(t, 2, 2);
    theatre_barrier(t, 0);
    for (int i = 0; i < 3; i++) {
        changes[i].id = (uint64_t)i + 3;
        changes[i].version = i + 4;
    }
    theatre_write(t, changes, 3, 1);
    put_one(t, 1, -1);
    theatre_barrier(t, 0);
    theatre_read(t);
    theatre_barrier(t, 1);
    changes[0].id = 1; /* comes back, 2 goes, 3 changes: one batch */
    changes[0].version = 10;
    changes[1].id = 2;
    changes[1].version = -1;
    changes[2].id = 3;
    changes[2].version = 11;
    theatre_write(t, changes, 3, 4);
    theatre_barrier(t, 0);
    put_one(t, 3, 12);
    theatre_close(t);
    theatre_open(t);
    put_one(t, 6, 13);
    changes[0].id = 4;
    changes[1].id = 5;
    changes[0].version = changes[1].version = -1;
    theatre_write(t, changes, 2, 3);
    theatre_barrier(t, 1);
    theatre_read(t);
    put_one(t, 7, 14);
    t->options.compact_on_close = true;
    theatre_close(t);
    theatre_open(t);
    put_one(t, 8, 15);
    theatre_close(t);
}

/* With files and memory that work: opens, holds what it may hold, is sound, and can be written. */
static int epilogue(theatre *t) {
    theatre_close(t); /* where a fault had stopped the play; the fault is still on */
    iqdb *db = NULL;
    iqdb_error error;
    iqdb_options options = iqdb_options_default();
    memset(&error, 0, sizeof error);
    options.error = &error;
    options.files = public_quick_files();
    t->files.fail_at = 0;
    t->heap.fail_at = 0;
    const iqdb_result result = iqdb_open(t->path, &options, &db);
    int ok = EXPECT(result == IQDB_OK);
    if (!ok) printf("\n      ... opening afterwards: %s (%s, %s)", iqdb_strerror(result), error.file, error.text);
    content seen;
    ok = ok && EXPECT(content_read(db, &seen)) && EXPECT(history_allows(&t->h, &seen, t->h.durable, t->h.count)) &&
         EXPECT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL) == IQDB_OK) &&
         EXPECT(public_store(db, 0, 100) == IQDB_OK);
    if (db != NULL) ok = EXPECT(iqdb_close(db) == IQDB_OK) && ok;
    ok = ok && EXPECT(iqdb_open(t->path, &options, &db) == IQDB_OK) && EXPECT(public_holds(db, 0, 100)) &&
         EXPECT(iqdb_close(db) == IQDB_OK);
    ok = EXPECT(t->heap.live_blocks == 0) && EXPECT(t->heap.errors == 0) && EXPECT(t->files.handles == 0) && ok;
    support_remove(t->folder);
    return ok;
}

/* Variants of the same: when writes are durable, and how a fault looks. */
typedef struct variant {
    const char *name;
    iqdb_sync sync;
    iqdb_result code;
    int writes_only;
    int half;
    int memory; /* an allocation fails, not a file */
} variant;

static void fails_at_every_call(const variant *v) {
    untold[0] = 0;
    for (int sticky = 0; sticky < 2; sticky++) {
        long scenarios = 0, total = 0;
        const long step = (long)support_amount(7, 1, 1);
        for (long n = 1;; n += step) {
            theatre *t = (theatre *)malloc(sizeof *t);
            CHECK(t != NULL);
            theatre_make(t);
            const long failures = test_now.failures;
            t->options.sync = v->sync;
            t->injected = v->code;
            if (v->memory) {
                t->heap.fail_at = (size_t)n;
                t->heap.sticky = sticky;
                t->retry = !sticky;
            } else {
                t->files.fail_at = n;
                t->files.sticky = sticky;
                t->files.code = v->code;
                t->files.writes_only = v->writes_only;
                t->files.half = v->half;
            }
            scenario(t);
            const long failed = v->memory ? (long)t->heap.failed : t->files.failed;
            total = v->memory ? (long)t->heap.calls : t->files.calls;
            epilogue(t);
            free(t);
            if (test_now.failures != failures) {
                printf("\n      ... %s, call %ld, %s", v->name, n, sticky ? "sticky" : "once");
                if (test_now.failures > 40) return; /* enough to see what it is */
            }
            if (failed == 0) break; /* n is beyond the last call: done */
            scenarios++;
        }
        CHECK(scenarios >= 5); /* or the scenario has no call to fail */
        if (sticky == 0) CHECK(scenarios >= total / step - 2);
    }
}

static void a_file_call_fails(void) {
    const variant v = {"IO", IQDB_SYNC_FLUSH, IQDB_ERR_IO, 0, 0, 0};
    fails_at_every_call(&v);
}
static void a_file_call_fails_with_sync_each(void) {
    const variant v = {"IO, sync each", IQDB_SYNC_EACH, IQDB_ERR_IO, 0, 0, 0};
    fails_at_every_call(&v);
}
static void half_a_write_fails(void) {
    const variant v = {"half a write", IQDB_SYNC_FLUSH, IQDB_ERR_IO, 1, 1, 0};
    fails_at_every_call(&v);
}
static void the_disk_is_full(void) {
    const variant v = {"disk full", IQDB_SYNC_FLUSH, IQDB_ERR_NOSPACE, 1, 0, 0};
    fails_at_every_call(&v);
}
static void the_disk_is_full_half_way(void) {
    const variant v = {"disk full half-way, sync each", IQDB_SYNC_EACH, IQDB_ERR_NOSPACE, 1, 1, 0};
    fails_at_every_call(&v);
}
static void an_allocation_fails(void) {
    const variant v = {"NOMEM", IQDB_SYNC_FLUSH, IQDB_ERR_NOMEM, 0, 0, 1};
    fails_at_every_call(&v);
}
static void an_allocation_fails_with_sync_each(void) {
    const variant v = {"NOMEM, sync each", IQDB_SYNC_EACH, IQDB_ERR_NOMEM, 0, 0, 1};
    fails_at_every_call(&v);
}

/* In memory, with growth: thousands of records, so that every table has to grow while allocations fail. */
static void allocations_fail_while_everything_grows(void) {
    uint64_t state = 9;
    iqdb *db = NULL;
    support_heap heap = support_heap_make();
    iqdb_options options = iqdb_options_default();
    options.allocator = support_allocator(&heap);
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    uint64_t next = 0, refused = 0;
    const uint64_t goal = support_amount(1500, 20000, 100000);
    while (next < goal) {
        if (support_random_below(&state, 3) == 0) heap.fail_at = 1 + (size_t)support_random_below(&state, 4);
        const iqdb_result result = public_store(db, next, next);
        if (result == IQDB_OK)
            next++;
        else if (!EXPECT(result == IQDB_ERR_NOMEM))
            break;
        else
            refused++;
        if (!EXPECT(iqdb_len(db) == next)) break;
    }
    heap.fail_at = 0;
    CHECK(refused > 0);
    for (uint64_t id = 0; id < next; id++) CHECK(public_holds(db, id, id));
    CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
}

/* Writes that are refused for want of space leave no memory behind, however many. */
static void refused_writes_cost_no_memory(void) {
    enum {
        TEXT = 70000
    }; /* beyond the room that a log has ahead */
    theatre t;
    iqdb *db = NULL;
    iqdb_stats before, after;
    char *text = (char *)malloc(TEXT);
    float vectors[3][PUBLIC_DIM];
    iqdb_record records[3];
    theatre_make(&t);
    CHECK(text != NULL);
    memset(text, 'x', TEXT);
    const iqdb_field field = public_field("text", iqdb_text_n(text, TEXT));
    for (uint64_t i = 0; i < 3; i++) {
        public_vector(i, 1, vectors[i]);
        records[i] = public_record(i + 10, vectors[i], PUBLIC_DIM);
        records[i].fields = &field;
        records[i].field_count = 1;
    }
    CHECK_EQ_INT(iqdb_open(t.path, &t.options, &db), IQDB_OK);
    CHECK(public_store(db, 1, 1) == IQDB_OK && iqdb_flush(db) == IQDB_OK);
    t.files.code = IQDB_ERR_NOSPACE;
    t.files.writes_only = t.files.sticky = 1;
    t.files.calls = 0;
    t.files.fail_at = 1;
    for (int round = 0; round < 300; round++) {
        CHECK_EQ_INT(iqdb_upsert_batch(db, records, 3), IQDB_ERR_NOSPACE);
        CHECK_EQ_INT(t.error.code, IQDB_ERR_NOSPACE);
        if (round == 20) CHECK_EQ_INT(iqdb_stat(db, &before), IQDB_OK);
    }
    CHECK_EQ_INT(iqdb_stat(db, &after), IQDB_OK);
    CHECK(!after.poisoned && after.records == 1);
    CHECK_EQ_U64(after.vector_bytes, before.vector_bytes);
    CHECK_EQ_U64(after.payload_bytes, before.payload_bytes);
    CHECK_EQ_U64(after.lookup_bytes, before.lookup_bytes);
    t.files.fail_at = 0; /* space again: everything goes on */
    CHECK_EQ_INT(iqdb_upsert_batch(db, records, 3), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(t.path, &t.options, &db), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(db), 4);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_U64(support_heap_problems(&t.heap), 0);
    support_remove(t.folder);
    free(text);
}

/* A disk that stores something else than it was given, in META of all places: whatever needs META says IO, and what was
 * acknowledged before is still there. */
typedef struct liar {
    iqdb_files real;
    void *meta;
    int lies;
    long told;
} liar;

static iqdb_result liar_open(void *dir, const char *name, iqdb_open_kind kind, void **out_file, int *os_code,
                             void *user) {
    liar *l = (liar *)user;
    const iqdb_result result = l->real.open_fn(dir, name, kind, out_file, os_code, l->real.user);
    if (result == IQDB_OK && strcmp(name, "META") == 0) l->meta = *out_file;
    return result;
}

static iqdb_result liar_write(void *file, uint64_t offset, const void *bytes, size_t size, int *os_code, void *user) {
    liar *l = (liar *)user;
    if (!l->lies || file != l->meta || size < 100)
        return l->real.write_fn(file, offset, bytes, size, os_code, l->real.user);
    unsigned char *changed = (unsigned char *)malloc(size);
    if (changed == NULL) return IQDB_ERR_NOMEM;
    memcpy(changed, bytes, size);
    changed[size - 50] ^= 1;
    l->told++;
    const iqdb_result result = l->real.write_fn(file, offset, changed, size, os_code, l->real.user);
    free(changed);
    return result;
}

static void a_disk_that_lies_about_meta(void) {
    char folder[SUPPORT_PATH_MAX];
    liar l;
    iqdb *db = NULL;
    memset(&l, 0, sizeof l);
    l.real = iqdb_files_default();
    iqdb_options options = iqdb_options_default();
    options.files = iqdb_files_default(); /* of which these two know what `user` is, and the others ignore it */
    options.files.open_fn = liar_open;
    options.files.write_fn = liar_write;
    options.files.user = &l;
    support_directory(folder);
    l.lies = 1;
    CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_ERR_IO); /* create */
    l.lies = 0;
    CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
    for (uint64_t id = 0; id < 5; id++) CHECK(public_store(db, id, id) == IQDB_OK && iqdb_flush(db) == IQDB_OK);
    l.lies = 1;
    l.told = 0;
    CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_ERR_IO);
    CHECK(l.told > 0);
    (void)iqdb_close(db);
    l.lies = 0;
    CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(db), 5);
    for (uint64_t id = 0; id < 5; id++) CHECK(public_holds(db, id, id));
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
}

/* The original's I: one write refused half-way, then fifty more, all of them acknowledged or refused honestly. */
static void one_write_refused_half_way_and_fifty_more(void) {
    for (int code = 0; code < 2; code++) {
        for (long n = 1; n <= 6; n++) {
            theatre t;
            iqdb *db = NULL;
            theatre_make(&t);
            CHECK_EQ_INT(iqdb_open(t.path, &t.options, &db), IQDB_OK);
            uint64_t count = 0;
            int poisoned = 0, perhaps = 0; /* record `count` was refused, and may be there all the same */
            for (; count < 10; count++) CHECK(public_store(db, count, count) == IQDB_OK && iqdb_flush(db) == IQDB_OK);
            t.files.writes_only = t.files.half = 1;
            t.files.calls = 0;
            t.files.fail_at = n;
            t.files.code = code == 0 ? IQDB_ERR_IO : IQDB_ERR_NOSPACE;
            for (int i = 0; i < 50; i++) {
                const iqdb_result wrote = public_store(db, count, count);
                const iqdb_result flushed = wrote == IQDB_OK ? iqdb_flush(db) : IQDB_OK;
                if (wrote == IQDB_ERR_IO || flushed == IQDB_ERR_IO) poisoned = 1;
                if (wrote == IQDB_OK && flushed == IQDB_OK) {
                    CHECK(!poisoned);
                    perhaps = 0;
                    count++;
                } else if (wrote == IQDB_ERR_IO || wrote == IQDB_OK) {
                    perhaps = 1;
                }
            }
            (void)iqdb_close(db);
            CHECK_EQ_INT(iqdb_open(t.path, NULL, &db), IQDB_OK);
            const uint64_t found = iqdb_len(db);
            CHECK(found == count || (perhaps && found == count + 1));
            for (uint64_t id = 0; id < found; id++) CHECK(public_holds(db, id, id));
            CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
            CHECK_EQ_U64(support_heap_problems(&t.heap), 0);
            support_remove(t.folder);
        }
    }
}

/* Reads go on after a failed sync, writes are refused until the database is opened anew. */
static void a_poisoned_handle_reads_on(void) {
    theatre t;
    iqdb_stats stats;
    iqdb *db = NULL;
    theatre_make(&t);
    t.options.sync = IQDB_SYNC_EACH;
    CHECK_EQ_INT(iqdb_open(t.path, &t.options, &db), IQDB_OK);
    for (uint64_t id = 0; id < 5; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
    t.files.calls = 0;
    t.files.fail_at = 1;
    t.files.sticky = 1;
    CHECK_EQ_INT(public_store(db, 5, 5), IQDB_ERR_IO);
    CHECK_EQ_INT(t.error.code, IQDB_ERR_IO);
    CHECK_EQ_INT(t.error.os_code, OS_CODE);
    t.files.fail_at = 0; /* the files work again, but the handle must not trust them */
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    CHECK(stats.poisoned);
    CHECK_EQ_INT(public_store(db, 6, 6), IQDB_ERR_POISONED);
    CHECK_EQ_INT(iqdb_delete(db, 1, NULL), IQDB_ERR_POISONED);
    CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_ERR_POISONED);
    for (uint64_t id = 0; id < 5; id++) CHECK(public_holds(db, id, id));
    const float probe[PUBLIC_DIM] = {0, 0, 0};
    iqdb_hit hits[8];
    size_t count = 0;
    const iqdb_query query = public_query(probe, PUBLIC_DIM, 8, IQDB_L2);
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
    CHECK(count >= 5);
    CHECK_EQ_INT(iqdb_close(db), IQDB_ERR_POISONED); /* frees it all the same */
    CHECK_EQ_U64(support_heap_problems(&t.heap), 0);
    CHECK_EQ_INT(t.files.handles, 0);
    CHECK_EQ_INT(iqdb_open(t.path, &t.options, &db), IQDB_OK);
    for (uint64_t id = 0; id < 5; id++) CHECK(public_holds(db, id, id));
    CHECK_EQ_INT(public_store(db, 6, 6), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(t.folder);
}

/* Every call that answers POISONED says so in options.error and to the logger. */
static void a_poisoned_handle_says_so(void) {
    for (int call = 0; call < 8; call++) {
        theatre t;
        public_log log;
        iqdb *db = NULL;
        iqdb_result result = IQDB_OK;
        const uint64_t id = 1;
        memset(&log, 0, sizeof log);
        theatre_make(&t);
        t.options.logger = public_logger(&log);
        CHECK_EQ_INT(iqdb_open(t.path, &t.options, &db), IQDB_OK);
        CHECK_EQ_INT(public_store(db, 1, 1), IQDB_OK);
        t.files.calls = 0;
        t.files.fail_at = 1;
        t.files.sticky = 1;
        CHECK_EQ_INT(iqdb_flush(db), IQDB_ERR_IO);
        t.files.fail_at = 0;
        memset(&t.error, 0, sizeof t.error);
        memset(&log, 0, sizeof log);
        iqdb_op op = iqdb_op_default();
        op.kind = IQDB_OP_DELETE;
        float vector[PUBLIC_DIM] = {1, 2, 3};
        const iqdb_record record = public_record(1, vector, PUBLIC_DIM);
        if (call == 0) result = iqdb_upsert(db, &record);
        if (call == 1) result = iqdb_upsert_batch(db, &record, 1);
        if (call == 2) result = iqdb_delete(db, 1, NULL);
        if (call == 3) result = iqdb_delete_batch(db, &id, 1, NULL);
        if (call == 4) result = iqdb_apply(db, &op, 1);
        if (call == 5) result = iqdb_flush(db);
        if (call == 6) result = iqdb_checkpoint(db);
        if (call == 7) {
            result = iqdb_close(db);
            db = NULL;
        }
        EXPECT(result == IQDB_ERR_POISONED);
        if (!EXPECT(t.error.code == IQDB_ERR_POISONED) || !EXPECT(t.error.text[0] != 0) ||
            !EXPECT(log.last.code == IQDB_ERR_POISONED))
            printf("\n      ... call %d", call);
        EXPECT(db == NULL || iqdb_close(db) == IQDB_ERR_POISONED);
        EXPECT(t.files.handles == 0 && support_heap_problems(&t.heap) == 0);
        support_remove(t.folder);
    }
}

/* ---- Calls from inside callbacks ---- */

typedef struct intruder {
    iqdb *db;
    int inside;        /* guards against its own calls */
    int may_pass;      /* all but close may also succeed: a buffer's allocator does not run under the lock */
    iqdb_iter *living; /* begun outside; NULL: none */
    long visits;
    long wrong;
} intruder;

static void intrude(void *user) {
    intruder *in = (intruder *)user;
    if (in->db == NULL || in->inside) return;
    in->inside = 1;
    in->visits++;
    const float vector[PUBLIC_DIM] = {1, 2, 3};
    const iqdb_record record = public_record(1, vector, PUBLIC_DIM);
    const iqdb_query query = public_query(vector, PUBLIC_DIM, 2, IQDB_L2);
    const uint64_t id = 1;
    iqdb_record seen;
    iqdb_hit hits[2];
    size_t count = 0;
    bool removed = false;
    iqdb_stats stats;
    uint64_t memory[64];
    iqdb_buffer buffer = iqdb_buffer_fixed(memory, sizeof memory);
    iqdb_op op = iqdb_op_default();
    op.kind = IQDB_OP_DELETE;
    op.id = 1;
    iqdb_result results[14];
    size_t n = 0;
    results[n++] = iqdb_get(in->db, 1, &buffer, &seen);
    results[n++] = iqdb_search(in->db, &query, hits, &count);
    results[n++] = iqdb_search_batch(in->db, &query, vector, 1, hits, &count);
    results[n++] = iqdb_stat(in->db, &stats);
    iqdb_iter iter = iqdb_iter_begin(in->db, NULL);
    results[n++] = iter.result;
    if (iter.result != IQDB_OK && iqdb_iter_next(&iter)) in->wrong++;
    iqdb_iter_end(&iter);
    if (in->living != NULL) {
        if (iqdb_iter_next(in->living) || in->living->result != IQDB_ERR_BUSY) in->wrong++;
        in->living = NULL;
    }
    results[n++] = iqdb_delete(in->db, 1, &removed);
    results[n++] = iqdb_delete_batch(in->db, &id, 1, &count);
    results[n++] = iqdb_apply(in->db, &op, 1);
    results[n++] = iqdb_upsert(in->db, &record);
    results[n++] = iqdb_upsert_batch(in->db, &record, 1);
    results[n++] = iqdb_flush(in->db);
    results[n++] = iqdb_checkpoint(in->db);
    results[n++] = iqdb_verify(in->db, IQDB_DEPTH_FRAMES, NULL, NULL);
    results[n++] = iqdb_close(in->db);
    for (size_t i = 0; i < n; i++) {
        if (results[i] == IQDB_ERR_BUSY || (in->may_pass && i + 1 < n && results[i] == IQDB_OK)) continue;
        if (in->wrong++ < 3) printf("\n      ... call %zu from inside gave %s", i, iqdb_strerror(results[i]));
    }
    if (!in->may_pass && (iqdb_len(in->db) != 0 || iqdb_contains(in->db, 1))) in->wrong++;
    in->inside = 0;
}

static void *intruding_alloc(size_t size, size_t alignment, void *user) {
    intrude(user);
    return support_aligned_alloc(size, alignment);
}

static void intruding_free(void *memory, size_t size, size_t alignment, void *user) {
    (void)size;
    (void)alignment;
    intrude(user);
    support_aligned_free(memory);
}

static void intruding_log(iqdb_level level, const iqdb_error *message, void *user) {
    (void)level;
    (void)message;
    intrude(user);
}

static void intruding_report(const iqdb_error *finding, void *user) {
    (void)finding;
    intrude(user);
}

static void calls_from_inside_callbacks_are_busy(void) {
    alarm(120);                                  /* a deadlock must not look like patience */
    for (int source = 0; source < 4; source++) { /* files, allocator, logger, report */
        char folder[SUPPORT_PATH_MAX], name[64];
        faulty files;
        intruder in;
        iqdb *db = NULL;
        memset(&in, 0, sizeof in);
        faulty_make(&files);
        support_directory(folder);
        iqdb_options options = iqdb_options_default();
        if (source == 0) {
            files.hook = intrude;
            files.hook_user = &in;
            options.files = faulty_files(&files);
        }
        if (source == 1) {
            options.allocator.alloc_fn = intruding_alloc;
            options.allocator.free_fn = intruding_free;
            options.allocator.user = &in;
        }
        if (source == 2) {
            options.logger.log_fn = intruding_log;
            options.logger.user = &in;
        }
        CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
        CHECK_EQ_INT(public_store(db, 1, 1), IQDB_OK);
        iqdb_iter living = iqdb_iter_begin(db, NULL);
        in.living = &living;
        in.db = db;
        for (uint64_t id = 0; id < 3000; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
        for (uint64_t id = 0; id < 3000; id += 2) CHECK_EQ_INT(iqdb_delete(db, id, NULL), IQDB_OK);
        CHECK_EQ_INT(iqdb_flush(db), IQDB_OK);
        const float probe[PUBLIC_DIM] = {0, 0, 0};
        iqdb_hit *hits = (iqdb_hit *)malloc(1000 * sizeof *hits);
        size_t count = 0;
        const iqdb_query query = public_query(probe, PUBLIC_DIM, 1000, IQDB_L2);
        CHECK(hits != NULL);
        CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
        CHECK_EQ_U64(count, 1000);
        free(hits);
        CHECK_EQ_INT(public_put(db, 1, probe, 2), IQDB_ERR_DIMENSION_MISMATCH); /* the logger's */
        CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        CHECK_EQ_U64(public_find(folder, "snap-", name), 1);
        CHECK(public_flip(folder, name, 5000, 0x10));
        CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_BLOCKS, source == 3 ? intruding_report : NULL, &in), IQDB_ERR_CORRUPT);
        CHECK(public_flip(folder, name, 5000, 0x10));
        CHECK_EQ_U64(iqdb_len(db), 1500); /* nothing got in */
        if (in.visits == 0 || in.wrong != 0) printf("\n      ... callback %d: %ld visits", source, in.visits);
        CHECK(in.visits > 0);
        CHECK_EQ_INT(in.wrong, 0);
        CHECK(in.living == NULL); /* it was stepped from inside, in vain */
        in.inside = 1;
        iqdb_iter_end(&living);
        in.inside = 0;
        if (source != 0) in.db = NULL; /* an allocator also frees the handle itself */
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(in.wrong, 0);
        support_remove(folder);
    }
    alarm(0);
}

/* The allocator of a result's buffer: no deadlock; only close must wait. */
static void calls_from_a_buffers_allocator(void) {
    alarm(120);
    intruder in;
    iqdb *db = NULL;
    iqdb_allocator allocator;
    memset(&in, 0, sizeof in);
    in.may_pass = 1;
    allocator.alloc_fn = intruding_alloc;
    allocator.free_fn = intruding_free;
    allocator.user = &in;
    CHECK_EQ_INT(iqdb_open_in_memory(NULL, &db), IQDB_OK);
    for (uint64_t id = 0; id < 20; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
    iqdb_iter living = iqdb_iter_begin(db, NULL); /* so that a close from inside cannot free the handle */
    in.db = db;
    for (int call = 0; call < 3; call++) {
        iqdb_buffer buffer = iqdb_buffer_default();
        const float probe[2 * PUBLIC_DIM] = {0, 0, 0, 1, 1, 1};
        iqdb_record record;
        iqdb_hit hits[40];
        size_t counts[2];
        buffer.allocator = &allocator;
        iqdb_query query = public_query(probe, PUBLIC_DIM, 20, IQDB_L2);
        query.flags = IQDB_WITH_PAYLOAD;
        query.buffer = &buffer;
        if (call == 0) CHECK_EQ_INT(iqdb_get(db, 1, &buffer, &record), IQDB_OK);
        if (call == 1) CHECK_EQ_INT(iqdb_search(db, &query, hits, counts), IQDB_OK);
        if (call == 2) CHECK_EQ_INT(iqdb_search_batch(db, &query, probe, 2, hits, counts), IQDB_OK);
        in.db = NULL;
        iqdb_buffer_free(&buffer);
        in.db = db;
    }
    in.db = NULL;
    CHECK(in.visits >= 3);
    CHECK_EQ_INT(in.wrong, 0);
    iqdb_iter_end(&living);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    alarm(0);
}

/* ---- Other threads take turns ---- */

#ifndef IQDB_NO_THREADS
typedef struct turn {
    iqdb *db;
    int entered; /* a callback is inside a call on the handle */
    int done;
    int problems;
} turn;

static void wait_inside(void *user) {
    turn *t = (turn *)user;
    if (__atomic_load_n(&t->db, __ATOMIC_ACQUIRE) == NULL || __atomic_exchange_n(&t->entered, 1, __ATOMIC_ACQ_REL))
        return;
    usleep(50000); /* the other thread calls meanwhile */
}

static void *call_meanwhile(void *argument) {
    turn *t = (turn *)argument;
    while (!__atomic_load_n(&t->entered, __ATOMIC_ACQUIRE)) usleep(100);
    if (!public_holds(t->db, 1, 1)) t->problems++;
    if (iqdb_len(t->db) < 1 || !iqdb_contains(t->db, 1)) t->problems++;
    if (public_store(t->db, 50, 50) != IQDB_OK) t->problems++;
    if (iqdb_flush(t->db) != IQDB_OK) t->problems++;
    __atomic_store_n(&t->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* While one thread is inside a file call, another one's calls wait; BUSY is only for the thread that is inside. */
static void another_thread_waits_for_its_turn(void) {
    char folder[SUPPORT_PATH_MAX];
    pthread_t thread;
    faulty files;
    turn t;
    iqdb *db = NULL;
    alarm(120);
    support_directory(folder);
    memset(&t, 0, sizeof t);
    faulty_make(&files);
    files.hook = wait_inside;
    files.hook_user = &t;
    iqdb_options options = iqdb_options_default();
    options.files = faulty_files(&files);
    CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
    CHECK_EQ_INT(public_store(db, 1, 1), IQDB_OK);
    CHECK_EQ_INT(pthread_create(&thread, NULL, call_meanwhile, &t), 0);
    __atomic_store_n(&t.db, db, __ATOMIC_RELEASE);
    EXPECT(public_store(db, 2, 2) == IQDB_OK);
    EXPECT(iqdb_flush(db) == IQDB_OK);
    EXPECT(iqdb_checkpoint(db) == IQDB_OK);
    pthread_join(thread, NULL);
    CHECK(t.done);
    CHECK_EQ_INT(t.problems, 0);
    CHECK(public_holds(db, 50, 50) && public_holds(db, 2, 2));
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    alarm(0);
    support_remove(folder);
}
#else
static void another_thread_waits_for_its_turn(void) { TEST_SKIP("built without threads"); }
#endif

/* ---- The default files keep their own contract ---- */

static void list_one(const char *name, void *user) {
    if (strcmp(name, "file") == 0) ++*(int *)user;
}

static void the_default_files_do_what_the_manual_says(void) {
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    const iqdb_files f = iqdb_files_default();
    void *dir = NULL, *file = NULL, *second = NULL;
    int os = -1, listed = 0;
    uint64_t size = 99;
    size_t got = 99;
    char bytes[16];
    support_directory(folder);
    support_join(path, folder, "a/b");
    CHECK_EQ_INT(f.dir_open_fn(path, false, &dir, &os, f.user), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(f.dir_open_fn(path, true, &dir, &os, f.user), IQDB_OK);
    CHECK_EQ_INT(f.open_fn(dir, "file", IQDB_OPEN_READ, &file, &os, f.user), IQDB_ERR_NOT_FOUND);
    CHECK(os != 0);
    CHECK_EQ_INT(f.open_fn(dir, "file", IQDB_OPEN_WRITE, &file, &os, f.user), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(f.open_fn(dir, "file", IQDB_OPEN_CREATE, &file, &os, f.user), IQDB_OK);
    CHECK_EQ_INT(f.open_fn(dir, "file", IQDB_OPEN_CREATE, &second, &os, f.user), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(f.write_fn(file, 5, "hello", 5, &os, f.user), IQDB_OK);
    CHECK_EQ_INT(f.size_fn(file, &size, &os, f.user), IQDB_OK);
    CHECK_EQ_U64(size, 10);
    memset(bytes, 'x', sizeof bytes);
    CHECK_EQ_INT(f.read_fn(file, 0, bytes, sizeof bytes, &got, &os, f.user), IQDB_OK);
    CHECK_EQ_U64(got, 10);
    CHECK_MEM(bytes, "\0\0\0\0\0helloxxxxxx", 16);
    CHECK_EQ_INT(f.read_fn(file, 10, bytes, 4, &got, &os, f.user), IQDB_OK);
    CHECK_EQ_U64(got, 0);
    CHECK_EQ_INT(f.read_fn(file, 1000000, bytes, 4, &got, &os, f.user), IQDB_OK);
    CHECK_EQ_U64(got, 0);
    CHECK_EQ_INT(f.sync_fn(file, &os, f.user), IQDB_OK);
    CHECK_EQ_INT(f.dir_sync_fn(dir, &os, f.user), IQDB_OK);
    CHECK_EQ_INT(f.lock_fn(file, true, &os, f.user), IQDB_OK);
    CHECK_EQ_INT(f.open_fn(dir, "file", IQDB_OPEN_WRITE, &second, &os, f.user), IQDB_OK);
    CHECK_EQ_INT(f.lock_fn(second, true, &os, f.user), IQDB_ERR_LOCKED); /* of the open file, not of the process */
    CHECK_EQ_INT(f.lock_fn(second, false, &os, f.user), IQDB_ERR_LOCKED);
    f.close_fn(file, f.user);
    CHECK_EQ_INT(f.lock_fn(second, true, &os, f.user), IQDB_OK);
    f.close_fn(second, f.user);
    CHECK_EQ_INT(f.dir_list_fn(dir, list_one, &listed, &os, f.user), IQDB_OK);
    CHECK_EQ_INT(listed, 1);
    CHECK_EQ_INT(f.remove_fn(dir, "file", &os, f.user), IQDB_OK);
    CHECK_EQ_INT(f.remove_fn(dir, "file", &os, f.user), IQDB_ERR_NOT_FOUND);
    f.dir_close_fn(dir, f.user);
    support_join(path, folder, "plain");
    CHECK(public_write_file(path, "x", 1));
    CHECK_EQ_INT(f.dir_open_fn(path, true, &dir, &os, f.user), IQDB_ERR_INVALID_CONFIG);
    support_remove(folder);
}

TEST_MAIN("api/files", TEST(a_file_call_fails), TEST(a_file_call_fails_with_sync_each), TEST(half_a_write_fails),
          TEST(the_disk_is_full), TEST(the_disk_is_full_half_way), TEST(an_allocation_fails),
          TEST(an_allocation_fails_with_sync_each), TEST(allocations_fail_while_everything_grows),
          TEST(refused_writes_cost_no_memory), TEST(a_disk_that_lies_about_meta),
          TEST(one_write_refused_half_way_and_fifty_more), TEST(a_poisoned_handle_reads_on),
          TEST(a_poisoned_handle_says_so), TEST(calls_from_inside_callbacks_are_busy),
          TEST(calls_from_a_buffers_allocator), TEST(another_thread_waits_for_its_turn),
          TEST(the_default_files_do_what_the_manual_says))
