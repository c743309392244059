/* What runs beside the sync of a group, which has no lock: nobody sees what it is to make durable, or what is queued
 * behind it, before it has returned; nor ever, where it fails. Every call that does something about the log, or about
 * what is not there any more, waits for it. A thread that is held in its sync stands for a slow disk. */
#include "api.h"
#include "db/db.h"
#include "support.h"
#include "test.h"
#include "api/public.h"

#include <pthread.h>
#include <sys/wait.h>

/* ---- A sync that stops its thread ---- */

static struct gate {
    int armed, held, released, fails; /* atomic */
    void (*inside_fn)(void);          /* called there, once it is released */
} gate;

static iqdb_result gated_sync(void *file, int *os_code, void *user) {
    (void)file;
    (void)user;
    *os_code = 0;
    if (!__atomic_exchange_n(&gate.armed, 0, __ATOMIC_ACQ_REL)) return IQDB_OK;
    __atomic_store_n(&gate.held, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&gate.released, __ATOMIC_ACQUIRE)) usleep(20);
    if (gate.inside_fn != NULL) gate.inside_fn();
    return __atomic_load_n(&gate.fails, __ATOMIC_ACQUIRE) ? IQDB_ERR_IO : IQDB_OK;
}

static void gate_open(int fails) {
    __atomic_store_n(&gate.fails, fails, __ATOMIC_RELEASE);
    __atomic_store_n(&gate.released, 1, __ATOMIC_RELEASE);
}

/* ---- Calls in threads of their own ---- */

enum {
    HERD = 20,  /* records from 0 on: of version 1, then 3, which has no payload */
    LONG = 4000 /* records from 1000 on, more than a log has space for at once */
};

typedef struct errand {
    iqdb *db;
    const char *what;
    pthread_t thread;
    iqdb_result result;
    int done; /* atomic */
} errand;

static iqdb_result store_many(iqdb *db, uint64_t first, uint64_t count) {
    static float vectors[LONG][PUBLIC_DIM];
    static iqdb_record records[LONG];
    for (uint64_t i = 0; i < count; i++) {
        public_vector(first + i, 3, vectors[i]);
        records[i] = public_record(first + i, vectors[i], PUBLIC_DIM);
    }
    return iqdb_upsert_batch(db, records, count);
}

static void *errand_run(void *user) {
    errand *e = (errand *)user;
    const iqdb_filter odd = iqdb_eq("name", iqdb_text("odd")); /* as version 1 is */
    const iqdb_field extra = public_field("extra", iqdb_int(1));
#define CALL(text, call) \
    if (strcmp(e->what, text) == 0) e->result = call
    CALL("replace all", store_many(e->db, 0, HERD));
    CALL("a long batch", store_many(e->db, 1000, LONG));
    CALL("store 5", public_store(e->db, 5, 4));
    CALL("delete 1", iqdb_delete(e->db, 1, NULL));
    CALL("delete 7", iqdb_delete(e->db, 7, NULL));
    CALL("update 7", iqdb_update_payload(e->db, 7, &extra, 1));
    CALL("update 5", iqdb_update_payload(e->db, 5, &extra, 1));
    CALL("delete odd", iqdb_delete_where(e->db, &odd, NULL));
    CALL("reserve", iqdb_reserve(e->db, 5000));
    CALL("flush", iqdb_flush(e->db));
    CALL("checkpoint", iqdb_checkpoint(e->db));
    CALL("verify", iqdb_verify(e->db, IQDB_DEPTH_RECORDS, NULL, NULL));
#undef CALL
    __atomic_store_n(&e->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static size_t count_of(iqdb *db, const size_t *count) {
    iq_mutex_lock(&db->home->mutex);
    const size_t now = *count;
    iq_mutex_unlock(&db->home->mutex);
    return now;
}

/* Until somebody is held in a sync, or it is queued, or waits for all who are, or is done. */
static void errand_start(errand *e, iqdb *db, const char *what) {
    const size_t queued = count_of(db, &db->home->queued), draining = count_of(db, &db->home->draining);
    const int held = __atomic_load_n(&gate.held, __ATOMIC_ACQUIRE);
    memset(e, 0, sizeof *e);
    e->db = db;
    e->what = what;
    e->result = IQDB_ERR_NOT_IMPLEMENTED;
    EXPECT(pthread_create(&e->thread, NULL, errand_run, e) == 0);
    while (!__atomic_load_n(&e->done, __ATOMIC_ACQUIRE) && count_of(db, &db->home->queued) == queued &&
           count_of(db, &db->home->draining) == draining && __atomic_load_n(&gate.held, __ATOMIC_ACQUIRE) == held)
        usleep(20);
}

static bool errand_waits(const errand *e) { return !__atomic_load_n(&e->done, __ATOMIC_ACQUIRE); }

static iqdb_result errand_end(const errand *e) {
    pthread_join(e->thread, NULL);
    return e->result;
}

/* ---- The herd ---- */

/* Whether every reader finds what there was at first, and nothing else. */
static bool herd_is_untouched(const iqdb *db) {
    const float vector[PUBLIC_DIM] = {1, 2, 3};
    const iqdb_query query = public_query(vector, PUBLIC_DIM, 2 * HERD, IQDB_L2);
    const iqdb_filter odd = iqdb_eq("name", iqdb_text("odd"));
    iqdb_hit hits[2 * HERD];
    size_t count = 0, seen = 0, stepped = 0, matching = 0;
    bool done = false;
    iqdb_cursor *cursor;
    bool ok = iqdb_len(db) == HERD;
    for (uint64_t id = 0; id < HERD; id++) ok = ok && public_holds(db, id, 1);
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    for (; iqdb_iter_next(&iter); seen++) ok = ok && iqdb_payload_int(iter.record.payload, "version", -1) == 1;
    iqdb_iter_end(&iter);
    ok = ok && iqdb_search(db, &query, hits, &count) == IQDB_OK;
    ok = ok && iqdb_count(db, &odd, &matching) == IQDB_OK;
    if (!ok || iqdb_cursor_open(db, &query, &cursor) != IQDB_OK) return false;
    while (ok && !done) ok = iqdb_cursor_step(cursor, 1000, hits, 2 * HERD, &stepped, &done) == IQDB_OK;
    iqdb_cursor_close(cursor);
    return ok && seen == HERD && count == HERD && stepped == HERD && matching == HERD;
}

static bool group_open(iqdb **db, char *folder, uint64_t retired_max, const iqdb_allocator *allocator) {
    iqdb_options options = iqdb_options_default();
    memset(&gate, 0, sizeof gate);
    options.sync = IQDB_SYNC_EACH;
    options.retired_max = retired_max;
    options.files = public_quick_files();
    options.files.sync_fn = gated_sync;
    if (allocator != NULL) options.allocator = *allocator;
    support_directory(folder);
    return EXPECT(iqdb_open(folder, &options, db) == IQDB_OK);
}

/* Opens it, and has a write that replaces all of it held in its sync. */
static bool herd_open(iqdb **db, char *folder, uint64_t retired_max, const iqdb_allocator *allocator, errand *first) {
    if (!group_open(db, folder, retired_max, allocator)) return false;
    for (uint64_t id = 0; id < HERD; id++)
        if (!EXPECT(public_store(*db, id, 1) == IQDB_OK)) return false;
    if (first == NULL) return true;
    __atomic_store_n(&gate.armed, 1, __ATOMIC_RELEASE);
    errand_start(first, *db, "replace all");
    return EXPECT(errand_waits(first));
}

/* Closes it and looks at what is found again: all of what was acknowledged; of the write that failed, all or nothing. */
static bool herd_close(iqdb *db, const char *folder, bool failed, size_t records) {
    if (!EXPECT(iqdb_close(db) == (failed ? IQDB_ERR_POISONED : IQDB_OK))) return false;
    if (!EXPECT(iqdb_open(folder, NULL, &db) == IQDB_OK)) return false;
    bool ok = EXPECT(failed ? herd_is_untouched(db) || iqdb_len(db) == HERD : iqdb_len(db) == records);
    for (uint64_t id = 0; ok && id < HERD; id++)
        if (failed) ok = EXPECT(public_holds(db, id, 3) == public_holds(db, 0, 3));
    ok = EXPECT(iqdb_close(db) == IQDB_OK) && ok;
    support_remove(folder);
    return ok;
}

/* ---- Tests ---- */

/* A write that has to make room first, by a new moment, makes none of what is not durable; nor does upkeep, even when
 * the sync has failed. */
static void room_is_made_of_what_is_durable(void) {
    alarm(120);
    for (int round = 0; round < 4; round++) {
        const bool fails = (round & 1) != 0, is_kept = (round & 2) != 0;
        char folder[SUPPORT_PATH_MAX];
        errand first, second;
        iqdb *db = NULL;
        iqdb_stats stats;
        bool done;
        CHECK(herd_open(&db, folder, 500, NULL, &first));
        iqdb_iter iter = iqdb_iter_begin(db, NULL);
        if (!is_kept) iqdb_iter_end(&iter);
        errand_start(&second, db, "store 5");
        CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
        CHECK(stats.retired_bytes > 500 && stats.records == HERD);
        CHECK_EQ_INT(iqdb_maintain(db, 1000, &done), IQDB_OK);
        CHECK(herd_is_untouched(db) && errand_waits(&first) && errand_waits(&second));
        gate_open(fails);
        CHECK_EQ_INT(errand_end(&first), fails ? IQDB_ERR_IO : IQDB_OK);
        CHECK_EQ_INT(errand_end(&second), fails ? IQDB_ERR_POISONED : is_kept ? IQDB_ERR_BUSY : IQDB_OK);
        if (fails) {
            CHECK(herd_is_untouched(db));
            CHECK_EQ_INT(iqdb_maintain(db, 1000, &done), IQDB_ERR_POISONED);
            CHECK_EQ_INT(public_store(db, 5, 4), IQDB_ERR_POISONED);
            CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
            CHECK(herd_is_untouched(db));
        } else {
            CHECK(public_holds(db, 4, 3) && public_holds(db, 5, is_kept ? 3 : 4));
        }
        if (is_kept) iqdb_iter_end(&iter);
        CHECK(herd_close(db, folder, fails, HERD));
    }
    alarm(0);
}

static bool append(const void *bytes, size_t size, void *user) {
    return iq_blob_append((iq_blob *)user, bytes, size) == IQDB_OK;
}

/* Copies have what readers see, too, and wait for nobody's sync. */
static void copy_the_herd(iqdb *db) {
    const iqdb_allocator allocator = iq_alloc_default();
    char root[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    iq_blob blob;
    iqdb *copy = NULL;
    memset(&blob, 0, sizeof blob);
    blob.allocator = &allocator;
    CHECK_EQ_INT(iqdb_export_blob(db, append, &blob), IQDB_OK);
    CHECK_EQ_INT(iqdb_load_blob(blob.bytes, blob.size, NULL, &copy), IQDB_OK);
    CHECK(herd_is_untouched(copy));
    CHECK_EQ_INT(iqdb_close(copy), IQDB_OK);
    iq_blob_free(&blob);
    support_directory(root);
    support_join(path, root, "copy");
    CHECK_EQ_INT(iqdb_backup(db, path), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(path, NULL, &copy), IQDB_OK);
    CHECK(herd_is_untouched(copy));
    CHECK_EQ_INT(iqdb_close(copy), IQDB_OK);
    support_remove(root);
}

typedef struct beside {
    const char *what;
    iqdb_result result, failed; /* of the call, as the sync returns or fails */
    bool waits;
} beside;

/* A write is synced, two are queued behind it, and then comes one more call. */
static void every_call_beside_a_sync(void) {
    static const beside calls[] = {
        {"delete 7", IQDB_OK, IQDB_ERR_IO, true}, /* whose delete is queued: not there, but who says so has to wait */
        {"update 7", IQDB_ERR_NOT_FOUND, IQDB_ERR_IO, true},
        {"update 5", IQDB_OK, IQDB_ERR_IO, true},
        {"delete odd", IQDB_OK, IQDB_ERR_IO, true}, /* there is none any more */
        {"flush", IQDB_OK, IQDB_ERR_POISONED, true},
        {"checkpoint", IQDB_OK, IQDB_ERR_POISONED, true},
        {"verify", IQDB_OK, IQDB_OK, true},
        {"a long batch", IQDB_OK, IQDB_ERR_POISONED, true},
        {"reserve", IQDB_OK, IQDB_OK, false},
    };
    alarm(120);
    for (size_t round = 0; round < 2 * sizeof calls / sizeof calls[0]; round++) {
        const beside *call = &calls[round / 2];
        const bool fails = (round & 1) != 0;
        char folder[SUPPORT_PATH_MAX];
        errand first, queued[2], last;
        iqdb *db = NULL;
        iqdb_stats stats;
        bool done = false;
        CHECK(herd_open(&db, folder, 0, NULL, &first));
        errand_start(&queued[0], db, "store 5");
        errand_start(&queued[1], db, "delete 7");
        CHECK_EQ_U64(count_of(db, &db->home->queued), 2);
        CHECK(herd_is_untouched(db));
        CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
        CHECK(stats.records == HERD && stats.dim == PUBLIC_DIM && stats.durable_lsn < stats.last_lsn);
        CHECK_EQ_INT(iqdb_maintain(db, 1000, &done), IQDB_OK);
        CHECK(done);
        if (round < 2) copy_the_herd(db);
        errand_start(&last, db, call->what);
        CHECK(errand_waits(&last) == call->waits);
        CHECK(herd_is_untouched(db) && errand_waits(&first) && errand_waits(&queued[0]) && errand_waits(&queued[1]));
        gate_open(fails);
        CHECK_EQ_INT(errand_end(&first), fails ? IQDB_ERR_IO : IQDB_OK);
        for (int i = 0; i < 2; i++) CHECK_EQ_INT(errand_end(&queued[i]), fails ? IQDB_ERR_IO : IQDB_OK);
        if (!EXPECT(errand_end(&last) == (fails ? call->failed : call->result)))
            printf("\n      ... %s: %s", call->what, iqdb_strerror(last.result));
        CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
        if (fails) CHECK(herd_is_untouched(db));
        for (uint64_t id = 0; !fails && id < HERD; id++) {
            if (id == 5 && strcmp(call->what, "update 5") == 0) continue;
            CHECK(id == 7 ? !iqdb_contains(db, 7) : public_holds(db, id, id == 5 ? 4 : 3));
        }
        CHECK(herd_close(db, folder, fails, HERD - 1 + (strcmp(call->what, "a long batch") == 0 ? LONG : 0)));
    }
    alarm(0);
}

/* The first write brings a dimension, too, which is there when it is. */
static void the_first_write(void) {
    alarm(60);
    for (int fails = 0; fails < 2; fails++) {
        const float vector[PUBLIC_DIM] = {1, 2, 3};
        const iqdb_query query = public_query(vector, PUBLIC_DIM, 5, IQDB_L2);
        char folder[SUPPORT_PATH_MAX];
        iqdb_hit hits[5];
        size_t count = 5;
        errand first;
        iqdb *db = NULL;
        iqdb_stats stats;
        CHECK(group_open(&db, folder, 0, NULL));
        __atomic_store_n(&gate.armed, 1, __ATOMIC_RELEASE);
        errand_start(&first, db, "replace all");
        for (int pass = 0; pass < 2; pass++) {
            CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
            CHECK(stats.dim == (pass == 1 && !fails ? PUBLIC_DIM : 0));
            CHECK_EQ_U64(stats.records, pass == 1 && !fails ? HERD : 0);
            CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
            CHECK_EQ_U64(count, pass == 1 && !fails ? 5 : 0);
            if (pass == 1) break;
            CHECK_EQ_INT(public_put(db, 1, vector, 2), IQDB_ERR_DIMENSION_MISMATCH);
            gate_open(fails);
            CHECK_EQ_INT(errand_end(&first), fails ? IQDB_ERR_IO : IQDB_OK);
        }
        CHECK_EQ_INT(iqdb_close(db), fails ? IQDB_ERR_POISONED : IQDB_OK);
        support_remove(folder);
    }
    alarm(0);
}

/* A delete of what was deleted before, and still has its row, is none: it neither makes a moment of its own, which upkeep
 * would publish before it is durable, and with it what comes behind; nor waits for that of others. */
static void deletes_of_the_dead(void) {
    alarm(60);
    for (int is_first = 0; is_first < 2; is_first++) {
        char folder[SUPPORT_PATH_MAX];
        errand deletes, stores;
        iqdb *db = NULL;
        bool done, removed = true;
        CHECK(herd_open(&db, folder, 0, NULL, NULL));
        CHECK(iqdb_delete(db, 1, &removed) == IQDB_OK && removed);
        const uint64_t lsn = db->home->common.lsn;
        CHECK(iqdb_delete(db, 1, &removed) == IQDB_OK && !removed);
        CHECK_EQ_U64(db->home->common.lsn, lsn);
        CHECK_EQ_U64(db->records.retired.count, 1);
        __atomic_store_n(&gate.armed, 1, __ATOMIC_RELEASE);
        if (is_first) errand_start(&deletes, db, "delete 1");
        if (is_first) CHECK_EQ_INT(iqdb_maintain(db, 1000, &done), IQDB_OK);
        errand_start(&stores, db, "store 5");
        if (!is_first) errand_start(&deletes, db, "delete 1");
        gate_open(0);
        CHECK_EQ_INT(errand_end(&stores), IQDB_OK);
        CHECK_EQ_INT(errand_end(&deletes), IQDB_OK);
        CHECK_EQ_U64(db->home->queued, 0);
        CHECK_EQ_INT(iqdb_flush(db), IQDB_OK);
        CHECK(public_holds(db, 5, 4));
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_open(folder, NULL, &db), IQDB_OK);
        CHECK(public_holds(db, 5, 4) && !iqdb_contains(db, 1) && iqdb_len(db) == HERD - 1);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        support_remove(folder);
    }
    alarm(0);
}

/* A child of that moment has what readers saw; what waited in the parent keeps up neither its upkeep nor its close. */
static void a_child_of_a_sync(void) {
    SUPPORT_NEEDS_POSIX;
    char folder[SUPPORT_PATH_MAX];
    errand first, queued;
    iqdb *db = NULL;
    int status = 0;
    CHECK(herd_open(&db, folder, 0, NULL, &first));
    errand_start(&queued, db, "store 5");
    fflush(stdout);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int problems = 0;
        bool done = false;
        alarm(60);
        if (!herd_is_untouched(db)) problems |= 1;
        if (public_store(db, 100, 1) != IQDB_ERR_LOCKED || iqdb_flush(db) != IQDB_ERR_LOCKED) problems |= 2;
        if (iqdb_maintain(db, 1000, &done) != IQDB_OK || !done || !herd_is_untouched(db)) problems |= 4;
        if (iqdb_close(db) != IQDB_OK) problems |= 8;
        _exit(problems);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    gate_open(0);
    CHECK_EQ_INT(errand_end(&first), IQDB_OK);
    CHECK_EQ_INT(errand_end(&queued), IQDB_OK);
    CHECK(public_holds(db, 5, 4));
    CHECK(herd_close(db, folder, false, HERD));
}

/* ---- From inside a sync ---- */

static struct inside {
    iqdb *db;
    iqdb_iter iter;
    iqdb_cursor *cursor;
    int in_allocator, allocates, met; /* atomic: somebody is in it; is to stay there for a while; two were */
    int fails_in;                     /* atomic: so many allocations until one fails; 0: none will */
    errand other;
} inside;

static void allocator_enter(void) {
    if (__atomic_fetch_add(&inside.in_allocator, 1, __ATOMIC_ACQ_REL) != 0)
        __atomic_store_n(&inside.met, 1, __ATOMIC_RELEASE);
}

static void *slow_alloc(size_t size, size_t alignment, void *user) {
    (void)user;
    allocator_enter();
    if (__atomic_exchange_n(&inside.allocates, 0, __ATOMIC_ACQ_REL)) usleep(20000);
    const int left = __atomic_load_n(&inside.fails_in, __ATOMIC_ACQUIRE);
    if (left > 0) __atomic_store_n(&inside.fails_in, left - 1, __ATOMIC_RELEASE);
    void *memory = left == 1 ? NULL : support_aligned_alloc(size, alignment);
    __atomic_fetch_sub(&inside.in_allocator, 1, __ATOMIC_ACQ_REL);
    return memory;
}

static void slow_free(void *memory, size_t size, size_t alignment, void *user) {
    (void)size;
    (void)alignment;
    (void)user;
    allocator_enter();
    support_aligned_free(memory);
    __atomic_fetch_sub(&inside.in_allocator, 1, __ATOMIC_ACQ_REL);
}

static void close_inside(void) {
    iqdb_hit hits[3];
    size_t count;
    bool done;
    EXPECT(!iqdb_iter_next(&inside.iter) && inside.iter.result == IQDB_ERR_BUSY);
    EXPECT(iqdb_cursor_step(inside.cursor, 1000, hits, 3, &count, &done) == IQDB_ERR_BUSY);
    EXPECT(iqdb_maintain(inside.db, 1000, &done) == IQDB_ERR_BUSY && iqdb_close(inside.db) == IQDB_ERR_BUSY);
    /* Another thread has the lock, and is within the allocator: memory is given back when it is out of there. */
    __atomic_store_n(&inside.allocates, 1, __ATOMIC_RELEASE);
    inside.other.db = inside.db;
    inside.other.what = "reserve";
    EXPECT(pthread_create(&inside.other.thread, NULL, errand_run, &inside.other) == 0);
    while (__atomic_load_n(&inside.allocates, __ATOMIC_ACQUIRE)) usleep(20);
    iqdb_iter_end(&inside.iter);
    iqdb_cursor_close(inside.cursor);
}

static void what_is_closed_within_a_sync(void) {
    const float vector[PUBLIC_DIM] = {1, 2, 3};
    const iqdb_query query = public_query(vector, PUBLIC_DIM, 5, IQDB_L2);
    const iqdb_filter odd = iqdb_eq("name", iqdb_text("odd"));
    iqdb_allocator allocator;
    char folder[SUPPORT_PATH_MAX];
    allocator.alloc_fn = slow_alloc;
    allocator.free_fn = slow_free;
    allocator.user = NULL;
    memset(&inside, 0, sizeof inside);
    alarm(60);
    CHECK(herd_open(&inside.db, folder, 0, &allocator, NULL));
    inside.iter = iqdb_iter_begin(inside.db, &odd);
    CHECK(inside.iter.result == IQDB_OK && iqdb_iter_next(&inside.iter));
    CHECK_EQ_INT(iqdb_cursor_open(inside.db, &query, &inside.cursor), IQDB_OK);
    gate.inside_fn = close_inside;
    gate_open(0);
    __atomic_store_n(&gate.armed, 1, __ATOMIC_RELEASE);
    CHECK_EQ_INT(public_store(inside.db, 5, 4), IQDB_OK);
    CHECK_EQ_INT(errand_end(&inside.other), IQDB_OK);
    CHECK(!inside.met);
    CHECK(public_holds(inside.db, 5, 4));
    CHECK(herd_close(inside.db, folder, false, HERD));
    alarm(0);
}

/* Any allocation of a write may fail that comes beside a sync: it leaves no trace, and the queue as it was. */
static void memory_ends_beside_a_sync(void) {
    iqdb_allocator allocator;
    char folder[SUPPORT_PATH_MAX];
    errand first, queued, last;
    iqdb *db = NULL;
    iqdb_stats before, after;
    int failed = 0;
    allocator.alloc_fn = slow_alloc;
    allocator.free_fn = slow_free;
    allocator.user = NULL;
    memset(&inside, 0, sizeof inside);
    alarm(60);
    CHECK(herd_open(&db, folder, 0, &allocator, &first));
    CHECK_EQ_INT(iqdb_stat(db, &before), IQDB_OK);
    errand_start(&queued, db, "store 5");
    for (; failed < 1000; failed++) { /* what was made before one fails is kept, so it gets on */
        __atomic_store_n(&inside.fails_in, 1 + failed % 3, __ATOMIC_RELEASE);
        errand_start(&last, db, "a long batch");
        if (errand_waits(&last)) break;
        CHECK_EQ_INT(errand_end(&last), IQDB_ERR_NOMEM);
        CHECK_EQ_U64(count_of(db, &db->home->queued), 1);
        CHECK(herd_is_untouched(db));
    }
    CHECK(failed >= 3 && failed < 1000);
    __atomic_store_n(&inside.fails_in, 0, __ATOMIC_RELEASE);
    gate_open(0);
    CHECK_EQ_INT(errand_end(&first), IQDB_OK);
    CHECK_EQ_INT(errand_end(&queued), IQDB_OK);
    CHECK_EQ_INT(errand_end(&last), IQDB_OK);
    CHECK(public_holds(db, 5, 4) && public_holds(db, 6, 3) && public_holds(db, 1000 + LONG - 1, 3));
    CHECK_EQ_INT(iqdb_stat(db, &after), IQDB_OK);
    CHECK_EQ_U64(after.last_lsn, before.last_lsn + 1 + LONG); /* of each record once */
    uint32_t kept = db->records.rows.count, index;
    for (uint32_t row = db->records.rows.free_head; row != IQ_ROW_NONE; kept--)
        row = iq_rows_slab(&db->records.rows, row, &index)->links[index].previous;
    CHECK_EQ_U64(kept, HERD + LONG + db->records.retired.count);
    CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
    CHECK(herd_close(db, folder, false, HERD + LONG));
    alarm(0);
}

TEST_MAIN("db/groups", TEST(room_is_made_of_what_is_durable), TEST(every_call_beside_a_sync), TEST(the_first_write),
          TEST(deletes_of_the_dead), TEST(a_child_of_a_sync), TEST(what_is_closed_within_a_sync),
          TEST(memory_ends_beside_a_sync))
