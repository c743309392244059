/* Threads: each cell of the manual's table, readers that wait for nobody and allocate nothing, and what snapshots may
 * keep. The table is read from src/api.h, so a call that it names is tested beside and inside every other. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

#ifndef IQDB_NO_THREADS
#include <pthread.h>
#if !defined(_WIN32)
#include <sys/wait.h>
#endif

/* ---- A handle whose callbacks can hold the thread that is in them, or call the handle ---- */

typedef struct stage {
    iqdb *db;
    support_heap heap;
    iqdb_files system;
    char folder[SUPPORT_PATH_MAX];
    int armed;                          /* the next callback under the lock holds its thread; atomic, as all below */
    int held;                           /* it does */
    int released;                       /* it may go on */
    void (*inside_fn)(struct stage *s); /* or this is called */
    int inside;                         /* it is being called */
    int visits;
} stage;

static void visit(stage *s) {
    if (__atomic_load_n(&s->armed, __ATOMIC_ACQUIRE) && __atomic_exchange_n(&s->armed, 0, __ATOMIC_ACQ_REL)) {
        __atomic_store_n(&s->held, 1, __ATOMIC_RELEASE);
        while (!__atomic_load_n(&s->released, __ATOMIC_ACQUIRE)) usleep(50);
    }
    if (s->inside_fn != NULL && !s->inside) {
        s->inside = 1;
        s->visits++;
        s->inside_fn(s);
        s->inside = 0;
    }
}

static iqdb_result stage_write(void *file, uint64_t offset, const void *bytes, size_t size, int *os_code, void *user) {
    stage *s = (stage *)user;
    visit(s);
    return s->system.write_fn(file, offset, bytes, size, os_code, s->system.user);
}

static iqdb_result stage_read(void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size, int *os_code,
                              void *user) {
    stage *s = (stage *)user;
    visit(s);
    return s->system.read_fn(file, offset, bytes, size, out_size, os_code, s->system.user);
}

static void *stage_alloc(size_t size, size_t alignment, void *user) {
    stage *s = (stage *)user;
    visit(s);
    return support_alloc(size, alignment, &s->heap);
}

static void stage_free(void *memory, size_t size, size_t alignment, void *user) {
    support_free(memory, size, alignment, &((stage *)user)->heap);
}

static void stage_log(iqdb_level level, const iqdb_error *message, void *user) {
    (void)level;
    (void)message;
    visit((stage *)user);
}

enum {
    RECORDS = 40,
    OWN = 1000 /* ids from here on are the calls' own */
};

static int stage_open(stage *s, uint64_t retired_max) {
    iqdb_options options = iqdb_options_default();
    memset(s, 0, sizeof *s);
    s->heap = support_heap_make();
    s->system = iqdb_files_default(); /* its table takes no user, so ours can */
    options.files = public_quick_files();
    options.files.write_fn = stage_write;
    options.files.read_fn = stage_read;
    options.files.user = s;
    options.allocator.alloc_fn = stage_alloc;
    options.allocator.free_fn = stage_free;
    options.allocator.user = s;
    options.logger.log_fn = stage_log;
    options.logger.user = s;
    options.retired_max = retired_max;
    support_directory(s->folder);
    if (!EXPECT(iqdb_open(s->folder, &options, &s->db) == IQDB_OK)) return 0;
    for (uint64_t id = 0; id < RECORDS; id++)
        if (!EXPECT(public_store(s->db, id, id) == IQDB_OK)) return 0;
    return 1;
}

static int stage_close(stage *s) {
    const int ok = EXPECT(iqdb_close(s->db) == IQDB_OK) && EXPECT(support_heap_problems(&s->heap) == 0);
    support_remove(s->folder);
    return ok;
}

/* ---- The calls by their names in the table ---- */

static bool swallow(const void *bytes, size_t size, void *user) {
    (void)bytes;
    (void)size;
    (void)user;
    return true;
}

static iqdb_result backup_somewhere(iqdb *db) {
    char root[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    support_directory(root);
    support_join(path, root, "backup");
    const iqdb_result result = iqdb_backup(db, path);
    support_remove(root);
    return result;
}

static bool any_name(const char *name, void *user) { return name != NULL && user == NULL; }

static iqdb_result call_by_name(iqdb *db, const char *name, uint64_t own, bool *out_known) {
    const float vector[PUBLIC_DIM] = {1, 2, 3};
    const iqdb_record record = public_record(own, vector, PUBLIC_DIM);
    const iqdb_query query = public_query(vector, PUBLIC_DIM, 3, IQDB_L2);
    uint64_t memory[64];
    iqdb_buffer buffer = iqdb_buffer_fixed(memory, sizeof memory);
    iqdb_record seen;
    iqdb_hit hits[3];
    size_t count = 0;
    iqdb_stats stats;
    iqdb_op op = iqdb_op_default();
    const iqdb_filter filter = iqdb_exists("nowhere");
    const iqdb_field field = public_field("extra", iqdb_int(1));
    op.record = &record;
    *out_known = true;
#define CALL(text) if (strcmp(name, text) == 0)
    CALL("get") return iqdb_get(db, 7, &buffer, &seen);
    CALL("contains") return iqdb_contains(db, 7) ? IQDB_OK : IQDB_ERR_BUSY;
    CALL("len") return iqdb_len(db) >= RECORDS ? IQDB_OK : IQDB_ERR_BUSY;
    CALL("is_empty") return iqdb_is_empty(db) ? IQDB_ERR_BUSY : IQDB_OK;
    CALL("search") return iqdb_search(db, &query, hits, &count);
    CALL("search_batch") return iqdb_search_batch(db, &query, vector, 1, hits, &count);
    CALL("measure_recall") {
        double recall = 0;
        const iqdb_result result = iqdb_measure_recall(db, &query, NULL, 2, &recall);
        return result == IQDB_OK && recall != 1 ? IQDB_ERR_IO : result;
    }
    CALL("iter") {
        iqdb_iter iter = iqdb_iter_begin(db, NULL);
        while (iqdb_iter_next(&iter)) count++;
        iqdb_iter_end(&iter);
        return iter.result != IQDB_OK || count >= RECORDS ? iter.result : IQDB_ERR_IO;
    }
    CALL("cursor") {
        iqdb_cursor *cursor;
        bool done = false;
        iqdb_result result = iqdb_cursor_open(db, &query, &cursor);
        while (result == IQDB_OK && !done) result = iqdb_cursor_step(cursor, 0, hits, 2, &count, &done);
        iqdb_cursor_close(cursor);
        return result != IQDB_OK || count == 1 ? result : IQDB_ERR_IO;
    }
    CALL("maintain") {
        bool done;
        return iqdb_maintain(db, 1000, &done);
    }
    CALL("count") return iqdb_count(db, &filter, &count);
    CALL("delete_where") return iqdb_delete_where(db, &filter, &count);
    CALL("update_payload") return iqdb_update_payload(db, 7, &field, 1);
    CALL("upsert") return iqdb_upsert(db, &record);
    CALL("upsert_batch") return iqdb_upsert_batch(db, &record, 1);
    CALL("apply") return iqdb_apply(db, &op, 1);
    CALL("delete") return iqdb_delete(db, own + 1, NULL);
    CALL("delete_batch") {
        own++;
        return iqdb_delete_batch(db, &own, 1, NULL);
    }
    CALL("reserve") return iqdb_reserve(db, 50);
    CALL("flush") return iqdb_flush(db);
    CALL("checkpoint") return iqdb_checkpoint(db);
    CALL("refresh") return iqdb_refresh(db);
    CALL("tune") return iqdb_tune(db, 0.9f, NULL, 0);
    CALL("reindex") return iqdb_reindex(db, NULL);
    CALL("verify") return iqdb_verify(db, IQDB_DEPTH_DEFAULT, NULL, NULL);
    CALL("stat") return iqdb_stat(db, &stats);
    CALL("export_blob") return iqdb_export_blob(db, swallow, NULL);
    CALL("backup") return backup_somewhere(db);
    CALL("collection") {
        iqdb *collection = NULL;
        const iqdb_result result = iqdb_collection(db, own < OWN + 10 ? "left" : "right", NULL, &collection);
        return result == IQDB_OK ? iqdb_close(collection) : result;
    }
    CALL("collection_drop") {
        iqdb *collection = NULL;
        const char *own_name = own < OWN + 10 ? "one" : "another";
        const iqdb_result result = iqdb_collection(db, own_name, NULL, &collection);
        if (result != IQDB_OK) return result;
        (void)iqdb_close(collection);
        return iqdb_collection_drop(db, own_name);
    }
    CALL("collection_names") return iqdb_collection_names(db, any_name, NULL);
    CALL("close") return iqdb_close(db);
#undef CALL
    *out_known = false;
    return IQDB_OK;
}

/* ---- The table ---- */

enum {
    KINDS = 3, /* read, write, close */
    NAMES = 24
};

typedef struct table {
    char names[KINDS][NAMES][20];
    size_t counts[KINDS];
    char beside[KINDS][KINDS][8];
    char inside[2][KINDS][8]; /* from where nothing is locked, and from under the lock */
} table;

/* Cuts a line at its bars and trims the pieces; how many there are. */
static int table_cut(char *line, char *cells[4]) {
    int count = 0;
    for (char *cell = strtok(line, "|\n"); cell != NULL && count < 4; cell = strtok(NULL, "|\n")) {
        while (*cell == ' ' || *cell == '*') cell++;
        for (size_t size = strlen(cell); size > 0 && cell[size - 1] == ' '; size--) cell[size - 1] = 0;
        cells[count++] = cell;
    }
    return count;
}

/* The two tables of the chapter. A row goes over several lines; its cells stand in the first of them. */
static int table_read(table *t) {
    char line[256];
    int part = 0, row = -1, found = 0;
    bool chapter = false;
    memset(t, 0, sizeof *t);
    FILE *file = fopen("src/api.h", "r");
    if (file == NULL) return 0;
    while (fgets(line, sizeof line, file) != NULL) {
        char *cells[4];
        if (strstr(line, "==== Threads") != NULL) chapter = true;
        if (!chapter || strchr(line, '|') == NULL || table_cut(line, cells) < 3) continue;
        if (strcmp(cells[1], "beside read") == 0 || strcmp(cells[1], "read") == 0) {
            part++;
            row = -1;
            continue;
        }
        if (cells[1][0] != 0) row++;
        if (part == 0 || row < 0 || row >= (part == 1 ? KINDS : 2)) continue;
        for (int i = 0; i < KINDS && cells[1][0] != 0; i++, found++) {
            char *cell = part == 1 ? t->beside[row][i] : t->inside[row][i];
            strncpy(cell, cells[1 + i], 7);
        }
        if (part != 1) continue;
        char *names = strchr(cells[0], ':') != NULL ? strchr(cells[0], ':') + 1 : cells[0];
        for (char *name = strtok(names, " "); name != NULL && t->counts[row] < NAMES; name = strtok(NULL, " "))
            strncpy(t->names[row][t->counts[row]++], name, 19);
    }
    fclose(file);
    return found == 3 * KINDS + 2 * KINDS;
}

/* ---- Cells beside one another ---- */

typedef struct caller {
    stage *s;
    const char *name;
    uint64_t own;
    iqdb_result result;
    int done, found_released; /* atomic */
} caller;

static void *call_once(void *argument) {
    caller *c = (caller *)argument;
    bool known;
    c->result = call_by_name(c->s->db, c->name, c->own, &known);
    c->found_released = __atomic_load_n(&c->s->released, __ATOMIC_ACQUIRE);
    __atomic_store_n(&c->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* `held` is stopped in its first callback; the other then runs to its end before that goes on, or waits for it. False
 * where the call has no callback to be stopped in. */
static bool beside(stage *s, const char *held_name, const char *name, const char *expected) {
    caller held, other;
    pthread_t threads[2];
    memset(&held, 0, sizeof held);
    held.s = s;
    held.name = held_name;
    held.own = OWN;
    other = held;
    other.name = name;
    other.own = OWN + 10;
    EXPECT(public_store(s->db, OWN + 1, 1) == IQDB_OK && public_store(s->db, OWN + 11, 1) == IQDB_OK);
    __atomic_store_n(&s->held, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&s->released, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&s->armed, 1, __ATOMIC_RELEASE);
    EXPECT(pthread_create(&threads[0], NULL, call_once, &held) == 0);
    while (!__atomic_load_n(&s->held, __ATOMIC_ACQUIRE) && !__atomic_load_n(&held.done, __ATOMIC_ACQUIRE)) usleep(20);
    const bool stopped = __atomic_load_n(&s->held, __ATOMIC_ACQUIRE);
    __atomic_store_n(&s->armed, 0, __ATOMIC_RELEASE);
    EXPECT(pthread_create(&threads[1], NULL, call_once, &other) == 0);
    if (strcmp(expected, "runs") == 0) {
        pthread_join(threads[1], NULL); /* or the alarm rings */
        EXPECT(!stopped || !other.found_released);
    } else {
        usleep(300);
    }
    __atomic_store_n(&s->released, 1, __ATOMIC_RELEASE);
    if (strcmp(expected, "runs") != 0) {
        pthread_join(threads[1], NULL);
        EXPECT(!stopped || other.found_released);
    }
    pthread_join(threads[0], NULL);
    if (!EXPECT(held.result == IQDB_OK) || !EXPECT(other.result == IQDB_OK))
        printf("\n      ... %s beside %s: %s, %s", name, held_name, iqdb_strerror(other.result),
               iqdb_strerror(held.result));
    return stopped;
}

static bool hold_in_predicate(const iqdb_record *record, void *user) {
    (void)record;
    visit((stage *)user);
    return true;
}

static void *search_held(void *argument) {
    stage *s = (stage *)argument;
    const float vector[PUBLIC_DIM] = {1, 2, 3};
    iqdb_hit hits[3];
    size_t count = 0;
    iqdb_query query = public_query(vector, PUBLIC_DIM, 3, IQDB_L2);
    query.predicate = hold_in_predicate;
    query.user = s;
    EXPECT(iqdb_search(s->db, &query, hits, &count) == IQDB_OK && count == 3);
    return NULL;
}

static void search_inside(stage *s) {
    bool known;
    (void)call_by_name(s->db, "search", OWN, &known); /* BUSY when the outer one gets its scratch */
}

/* A search is stopped in its predicate; the other call, of any kind, runs to its end meanwhile. */
static void beside_a_held_search(stage *s, const char *name) {
    pthread_t thread;
    bool known;
    __atomic_store_n(&s->held, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&s->released, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&s->armed, 1, __ATOMIC_RELEASE);
    EXPECT(pthread_create(&thread, NULL, search_held, s) == 0);
    while (!__atomic_load_n(&s->held, __ATOMIC_ACQUIRE)) usleep(20);
    const iqdb_result result = call_by_name(s->db, name, OWN, &known);
    if (!EXPECT(result == IQDB_OK)) printf("\n      ... %s: %s", name, iqdb_strerror(result));
    __atomic_store_n(&s->released, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
}

static void every_pair_of_the_table(void) {
    table t;
    stage s;
    bool known;
    size_t cells = 0, held = 0;
    if (!table_read(&t)) TEST_SKIP("no src/api.h with both tables in this directory");
    alarm(300);
    CHECK(t.counts[0] >= 7 && t.counts[1] >= 10 && t.counts[2] == 1);
    CHECK(stage_open(&s, 0));
    s.inside_fn = search_inside;
    (void)search_held(&s); /* leaves scratch for two */
    s.inside_fn = NULL;
    for (int a = 0; a < 2; a++) {
        for (size_t i = 0; i < t.counts[a]; i++) {
            if (strcmp(t.names[a][i], "simd_name") == 0) continue; /* reads constants */
            (void)call_by_name(s.db, t.names[a][i], OWN, &known);
            if (!EXPECT(known)) printf("\n      ... the table names %s", t.names[a][i]);
            CHECK_EQ_STR(t.beside[0][a], "runs");
            beside_a_held_search(&s, t.names[a][i]);
            for (size_t j = 0; j < t.counts[1]; j++) {
                held += beside(&s, t.names[1][j], t.names[a][i], t.beside[1][a]);
                cells++;
            }
        }
    }
    for (int a = 0; a < KINDS; a++) CHECK(strcmp(t.beside[a][2], "never") == 0 && strcmp(t.beside[2][a], "never") == 0);
    printf(" %zu pairs, in %zu of them the first was held in a callback ...", cells, held);
    CHECK(held > cells / 2);
    CHECK(stage_close(&s));
    alarm(0);
}

/* ---- Cells inside one another ---- */

static table inside_table;
static int inside_row;

static void call_everything(stage *s) {
    for (int kind = 0; kind < KINDS; kind++) {
        for (size_t i = 0; i < inside_table.counts[kind]; i++) {
            bool known;
            const char *name = inside_table.names[kind][i];
            if (strcmp(name, "simd_name") == 0) continue;
            const iqdb_result result = call_by_name(s->db, name, OWN, &known);
            const bool busy = strcmp(inside_table.inside[inside_row][kind], "BUSY") == 0;
            if (!EXPECT(known && result == (busy ? IQDB_ERR_BUSY : IQDB_OK)))
                printf("\n      ... %s from inside: %s", name, iqdb_strerror(result));
        }
    }
}

static void report_inside(const iqdb_error *finding, void *user) {
    (void)finding;
    visit((stage *)user);
}

static void *buffer_alloc(size_t size, size_t alignment, void *user) {
    visit((stage *)user);
    return support_aligned_alloc(size, alignment);
}

static void buffer_free(void *memory, size_t size, size_t alignment, void *user) {
    (void)size;
    (void)alignment;
    (void)user;
    support_aligned_free(memory);
}

static void everything_from_inside(void) {
    stage s;
    char name[64];
    if (!table_read(&inside_table)) TEST_SKIP("no src/api.h with both tables in this directory");
    alarm(120);
    CHECK(stage_open(&s, 0));
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);

    inside_row = 0; /* predicate, loop, allocator of a buffer */
    iqdb_iter iter = iqdb_iter_begin(s.db, NULL);
    size_t seen = 0;
    while (iqdb_iter_next(&iter) && ++seen < 5) call_everything(&s);
    iqdb_iter_end(&iter);
    CHECK_EQ_U64(seen, 5);
    iqdb_allocator allocator;
    allocator.alloc_fn = buffer_alloc;
    allocator.free_fn = buffer_free;
    allocator.user = &s;
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_record record;
    buffer.allocator = &allocator;
    s.inside = 1;
    (void)search_held(&s); /* scratch for one; from inside others follow */
    s.inside = 0;
    s.inside_fn = NULL;
    for (int source = 0; source < 2; source++) { /* the handle's callbacks are not to call meanwhile: they are locked */
        s.visits = 0;
        s.released = 1;
        s.armed = 0;
        s.inside_fn = call_everything;
        if (source == 0) CHECK_EQ_INT(iqdb_get(s.db, 3, &buffer, &record), IQDB_OK);
        if (source == 1) (void)search_held(&s);
        s.inside_fn = NULL;
        CHECK(s.visits > 0);
    }
    iqdb_buffer_free(&buffer);

    inside_row = 1; /* under the lock: files and allocator, logger, report */
    for (int source = 0; source < 3; source++) {
        s.visits = 0;
        s.inside_fn = call_everything;
        const float vector[2] = {1, 2};
        if (source == 0)
            for (uint64_t id = 0; id < 2000; id++) CHECK_EQ_INT(public_store(s.db, 2000 + id, id), IQDB_OK);
        if (source == 1) CHECK_EQ_INT(public_put(s.db, 1, vector, 2), IQDB_ERR_DIMENSION_MISMATCH);
        if (source == 2) {
            CHECK_EQ_U64(public_find(s.folder, "snap-", name), 1);
            CHECK(public_flip(s.folder, name, 5000, 0x10));
            CHECK_EQ_INT(iqdb_verify(s.db, IQDB_DEPTH_BLOCKS, report_inside, &s), IQDB_ERR_CORRUPT);
            CHECK(public_flip(s.folder, name, 5000, 0x10));
        }
        s.inside_fn = NULL;
        CHECK(s.visits > 0);
    }
    CHECK(stage_close(&s));
    alarm(0);
}
#else
static void every_pair_of_the_table(void) { TEST_SKIP("built without threads"); }
static void everything_from_inside(void) { TEST_SKIP("built without threads"); }
#endif

/* ---- Memory ---- */

/* Reads, and writes that replace records by others of their size, ask the allocator for nothing. */
static void warm_calls_allocate_nothing(void) {
    enum {
        COUNT = 500,
        VECTORS = 7
    };
    for (int disk = 0; disk < 2; disk++) {
        char folder[SUPPORT_PATH_MAX];
        support_heap heap = support_heap_make();
        iqdb_options options = iqdb_options_default();
        iqdb *db = NULL;
        float vectors[VECTORS * PUBLIC_DIM];
        iqdb_hit hits[VECTORS * 10];
        size_t counts[VECTORS];
        uint64_t memory[1024];
        iqdb_record record;
        iqdb_buffer buffer = iqdb_buffer_fixed(memory, sizeof memory);
        support_directory(folder);
        options.allocator = support_allocator(&heap);
        options.files = public_quick_files();
        CHECK_EQ_INT(disk ? iqdb_open(folder, &options, &db) : iqdb_open_in_memory(&options, &db), IQDB_OK);
        for (int i = 0; i < VECTORS * (int)PUBLIC_DIM; i++) vectors[i] = (float)(i % 5);
        for (uint64_t id = 0; id < COUNT; id++) CHECK_EQ_INT(public_store(db, id, 1), IQDB_OK);
        size_t warm = 0;
        for (uint64_t round = 0; round < 40; round++) {
            for (uint64_t id = 0; id < COUNT; id++) {
                CHECK_EQ_INT(public_store(db, id, 1 + 6 * round), IQDB_OK);
                CHECK_EQ_INT(iqdb_get(db, id, &buffer, &record), IQDB_OK);
                CHECK(iqdb_contains(db, id));
            }
            iqdb_query query = public_query(vectors, PUBLIC_DIM, 10, IQDB_L2);
            query.flags = IQDB_WITH_PAYLOAD;
            query.buffer = &buffer;
            CHECK_EQ_INT(iqdb_search(db, &query, hits, counts), IQDB_OK);
            CHECK_EQ_INT(iqdb_search_batch(db, &query, vectors, VECTORS, hits, counts), IQDB_OK);
            iqdb_iter iter = iqdb_iter_begin(db, NULL);
            size_t seen = 0;
            while (iqdb_iter_next(&iter)) seen++;
            iqdb_iter_end(&iter);
            CHECK(seen == COUNT && iqdb_len(db) == COUNT);
            if (round == 1) warm = heap.calls;
        }
        CHECK_EQ_U64(heap.calls, warm);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(support_heap_problems(&heap), 0);
        support_remove(folder);
    }
}

/* Endless replacing and deleting, new ids for old ones, beside short snapshots: memory stays as it is. */
static void memory_is_flat(void) {
    support_heap heap = support_heap_make();
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL;
    uint64_t random = 4;
    size_t warm = 0;
    const uint64_t rounds = support_amount(20, 100, 5000);
    options.allocator = support_allocator(&heap);
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (uint64_t round = 0; round < rounds; round++) {
        iqdb_iter iter = iqdb_iter_begin(db, NULL);
        for (uint64_t i = 0; i < 1000; i++) {
            const uint64_t id = round * 200 + support_random_below(&random, 1000); /* the window moves */
            CHECK_EQ_INT(public_store(db, id, i), IQDB_OK);
            if (i % 3 == 0) (void)iqdb_iter_next(&iter);
            if (i % 5 == 0 && round > 0) CHECK_EQ_INT(iqdb_delete(db, round * 200 - 200 + i / 5, NULL), IQDB_OK);
        }
        iqdb_iter_end(&iter);
        if (round == rounds / 2) warm = heap.peak_bytes;
    }
    CHECK(heap.peak_bytes <= warm + warm / 8);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* An iterator that nobody ends costs no more than retired_max, and a write that fails for it leaves no trace. */
static void abandoned_snapshots_are_bounded(void) {
    enum {
        MOST = 200 * 1000
    };
    support_heap heap = support_heap_make();
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL;
    iqdb_stats stats;
    bool removed = true;
    options.allocator = support_allocator(&heap);
    options.retired_max = MOST;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (uint64_t id = 0; id < 100; id++) CHECK_EQ_INT(public_store(db, id, 1), IQDB_OK);
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    uint64_t writes = 0;
    while (public_store(db, writes % 100, 2 + writes) == IQDB_OK && writes < 1000000) writes++;
    CHECK_EQ_INT(public_store(db, 5, 77777), IQDB_ERR_BUSY);
    CHECK_EQ_INT(iqdb_delete(db, 5, &removed), IQDB_ERR_BUSY);
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    CHECK(stats.retired_bytes > MOST && stats.retired_bytes < MOST + 1000);
    CHECK_EQ_U64(stats.retired_rows, writes);
    CHECK(stats.oldest_pin_age >= writes);
    CHECK(heap.live_bytes < 3 * MOST);
    for (uint64_t id = 0; id < 100; id++)
        CHECK(public_holds(db, id, 2 + (writes - 1 - id) / 100 * 100 + id)); /* the last that was written */
    size_t seen = 0;
    while (iqdb_iter_next(&iter)) {
        seen++;
        CHECK(iqdb_payload_int(iter.record.payload, "version", -1) == 1);
    }
    CHECK_EQ_U64(seen, 100);
    iqdb_iter_end(&iter);
    CHECK_EQ_INT(public_store(db, 5, 5), IQDB_OK);
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    CHECK(stats.retired_rows == 0 && stats.retired_bytes == 0 && stats.oldest_pin_age == 0);

    /* Short snapshots that overlap without end, each younger than the last write: they hold up nobody. */
    iqdb_iter first = iqdb_iter_begin(db, NULL);
    int busy = 0;
    for (uint64_t i = 0; i < 20000; i++) {
        iqdb_iter second = iqdb_iter_begin(db, NULL);
        iqdb_iter_end(&first);
        const iqdb_result result = public_store(db, i % 100, i);
        CHECK(result == IQDB_OK || (result == IQDB_ERR_BUSY && ++busy < 10));
        first = iqdb_iter_begin(db, NULL);
        iqdb_iter_end(&second);
    }
    iqdb_iter_end(&first);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* More iterators than there are slots at first: those without one are counted, later ones get slots that a write made. */
static void many_iterators(void) {
    enum {
        MANY = 100
    };
    static iqdb_iter iters[MANY];
    support_heap heap = support_heap_make();
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL;
    options.allocator = support_allocator(&heap);
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < MANY; i++) {
            CHECK_EQ_INT(public_store(db, i % 10, 1 + 3 * i), IQDB_OK);
            iters[i] = iqdb_iter_begin(db, NULL);
        }
        for (uint64_t i = 0; i < MANY; i++) {
            int64_t newest = 0;
            while (iqdb_iter_next(&iters[i])) {
                const int64_t version = iqdb_payload_int(iters[i].record.payload, "version", -1);
                if (iters[i].record.id == i % 10) newest = version;
            }
            CHECK(newest == 1 + 3 * (int64_t)i);
            const float probe[PUBLIC_DIM] = {0, 0, 0};
            iqdb_hit hits[20];
            size_t count = 0;
            const iqdb_query query = public_query(probe, PUBLIC_DIM, 20, IQDB_L2);
            CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK); /* with a slot and without */
            CHECK_EQ_U64(count, 10);
        }
        CHECK_EQ_INT(iqdb_close(db), IQDB_ERR_BUSY);
        for (int i = 0; i < MANY; i++) iqdb_iter_end(&iters[i]);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* ---- While it is closed ---- */

typedef struct closing {
    iqdb *db; /* NULL: it is not being closed */
    size_t asked, wrong;
} closing;

static void *closing_alloc(size_t size, size_t alignment, void *user) {
    (void)user;
    return support_aligned_alloc(size, alignment);
}

static void closing_free(void *memory, size_t size, size_t alignment, void *user) {
    closing *c = (closing *)user;
    (void)size;
    (void)alignment;
    if (c->db != NULL) {
        iqdb_stats stats;
        c->asked++;
        c->wrong += iqdb_stat(c->db, &stats) != IQDB_ERR_BUSY || iqdb_close(c->db) != IQDB_ERR_BUSY;
        c->wrong += iqdb_contains(c->db, 1) || iqdb_len(c->db) != 0;
    }
    support_aligned_free(memory);
}

/* The allocator is asked for a last time behind everything else, and still finds the handle taken. */
static void calls_while_it_is_closed_are_busy(void) {
    char folder[SUPPORT_PATH_MAX];
    support_directory(folder);
    for (int on_disk = 0; on_disk < 2; on_disk++) {
        iqdb_options options = iqdb_options_default();
        iqdb *db = NULL, *named = NULL;
        closing c;
        memset(&c, 0, sizeof c);
        options.allocator.alloc_fn = closing_alloc;
        options.allocator.free_fn = closing_free;
        options.allocator.user = &c;
        options.files = public_quick_files();
        CHECK_EQ_INT(on_disk ? iqdb_open(folder, &options, &db) : iqdb_open_in_memory(&options, &db), IQDB_OK);
        CHECK_EQ_INT(iqdb_collection(db, "a", NULL, &named), IQDB_OK);
        for (uint64_t id = 0; id < 50; id++) CHECK_EQ_INT(public_store(id % 2 ? db : named, id, 1), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(named), IQDB_OK);
        c.db = db;
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK(c.asked > 5);
        CHECK_EQ_U64(c.wrong, 0);
    }
    support_remove(folder);
}

/* ---- A child beside a writer ---- */

typedef struct forked {
    iqdb *db;
    int ends, holds, held; /* atomic: the writer stops; the next allocation stays there until it ends, as it says */
    uint64_t written;
    size_t wrong;
} forked;

static void *forked_alloc(size_t size, size_t alignment, void *user) {
    forked *f = (forked *)user;
    if (__atomic_exchange_n(&f->holds, 0, __ATOMIC_ACQ_REL)) {
        __atomic_store_n(&f->held, 1, __ATOMIC_RELEASE);
        while (!__atomic_load_n(&f->ends, __ATOMIC_ACQUIRE)) usleep(100);
    }
    return support_aligned_alloc(size, alignment);
}

static void forked_free(void *memory, size_t size, size_t alignment, void *user) {
    (void)size;
    (void)alignment;
    (void)user;
    support_aligned_free(memory);
}

static void *forked_write(void *user) {
    forked *f = (forked *)user;
    for (; !__atomic_load_n(&f->ends, __ATOMIC_ACQUIRE); f->written++) {
        f->wrong += public_store(f->db, f->written % 1000, 1) != IQDB_OK;
        if (__atomic_load_n(&f->holds, __ATOMIC_ACQUIRE)) f->wrong += iqdb_reserve(f->db, 50000) != IQDB_OK;
    }
    return NULL;
}

/* 0, or what is wrong; 100 where the writer was in a call. */
static int forked_child(iqdb *db, iqdb *named) {
    const float probe[PUBLIC_DIM] = {1, 2, 3};
    const iqdb_query query = public_query(probe, PUBLIC_DIM, 5, IQDB_L2);
    const iqdb_filter odd = iqdb_eq("name", iqdb_text("odd"));
    iqdb_hit hits[5];
    size_t count = 0, matching = 0;
    iqdb_stats stats;
    bool done = false;
    alarm(30);
    if (!public_holds(db, 0, 1) || !public_holds(named, 1, 1)) return 1;
    if (iqdb_search(db, &query, hits, &count) != IQDB_OK || count != 5) return 2;
    if (iqdb_count(db, &odd, &matching) != IQDB_OK || matching < 5) return 3;
    const iqdb_result result = iqdb_stat(db, &stats);
    if (result != IQDB_OK && result != IQDB_ERR_LOCKED) return 4;
    if (public_store(db, 0, 2) != IQDB_ERR_LOCKED || iqdb_flush(db) != IQDB_ERR_LOCKED) return 5;
    if (iqdb_maintain(db, 1000, &done) != result) return 6;
    if (!public_holds(db, 0, 1)) return 7;
    if (iqdb_close(named) != IQDB_OK || iqdb_close(db) != IQDB_OK) return 8;
    return result == IQDB_OK ? 0 : 100;
}

/* As another program, because what a child leaves of its memory is no leak. */
static void forked_end(int status) {
    char text[16];
    snprintf(text, sizeof text, "exit %d", status);
    (void)execl("/bin/sh", "sh", "-c", text, (char *)NULL);
    _exit(status);
}

/* Whatever a writer was at when the process was forked, its lock is nobody's in the child, which reads and closes. */
static void a_child_waits_for_no_writer(void) {
    SUPPORT_NEEDS_POSIX;
    char folder[SUPPORT_PATH_MAX];
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL, *named = NULL;
    pthread_t thread;
    size_t torn = 0;
    forked f;
    memset(&f, 0, sizeof f);
    support_directory(folder);
    options.allocator.alloc_fn = forked_alloc;
    options.allocator.free_fn = forked_free;
    options.allocator.user = &f;
    options.files = public_quick_files();
    options.checkpoint_bytes = 200000;
    CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_collection(db, "a", NULL, &named), IQDB_OK);
    CHECK_EQ_INT(public_store(named, 1, 1), IQDB_OK);
    for (f.written = 0; f.written < 20; f.written++) CHECK_EQ_INT(public_store(db, f.written, 1), IQDB_OK);
    f.db = db;
    CHECK(pthread_create(&thread, NULL, forked_write, &f) == 0);
    const size_t rounds = support_amount(20, 100, 1000);
    for (size_t round = 0; round <= rounds; round++) {
        int status = 0;
        if (round == rounds) { /* the last one while the writer is held in a call */
            __atomic_store_n(&f.holds, 1, __ATOMIC_RELEASE);
            while (!__atomic_load_n(&f.held, __ATOMIC_ACQUIRE)) usleep(100);
        }
        fflush(stdout);
        const pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) forked_end(forked_child(db, named));
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 100));
        torn += WEXITSTATUS(status) == 100;
        CHECK(round < rounds || WEXITSTATUS(status) == 100);
    }
    __atomic_store_n(&f.ends, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    printf("\n    %zu of %zu children had a writer in a call, of %llu", torn, rounds + 1,
           (unsigned long long)f.written);
    const uint64_t records = f.written < 1000 ? f.written : 1000;
    CHECK_EQ_U64(f.wrong, 0);
    CHECK_EQ_U64(iqdb_len(db), records);
    CHECK_EQ_INT(iqdb_close(named), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(folder, NULL, &db), IQDB_OK); /* no child has kept the lock */
    CHECK_EQ_U64(iqdb_len(db), records);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
}

/* ---- Before the first record ---- */

typedef struct first_reader {
    iqdb *db;
    int ends; /* atomic */
    size_t wrong, found;
} first_reader;

static void *first_read(void *user) {
    first_reader *r = (first_reader *)user;
    const float probe[PUBLIC_DIM] = {1, 2, 3};
    const iqdb_filter named = iqdb_eq("name", iqdb_text("even"));
    iqdb_buffer buffer = iqdb_buffer_default();
    while (!__atomic_load_n(&r->ends, __ATOMIC_ACQUIRE)) {
        iqdb_hit hits[3];
        size_t count = 0, matching = 0;
        iqdb_record record;
        iqdb_query query = public_query(probe, 0, 3, IQDB_L2);
        query.flags = IQDB_WITH_VECTOR | IQDB_WITH_PAYLOAD;
        query.buffer = &buffer;
        const iqdb_result got = iqdb_get(r->db, 1, &buffer, &record);
        r->wrong += got != IQDB_OK && got != IQDB_ERR_NOT_FOUND;
        r->found += got == IQDB_OK;
        r->wrong += got == IQDB_OK && !iqdb_contains(r->db, 1);
        r->wrong += iqdb_contains(r->db, 2);
        r->wrong += iqdb_search(r->db, &query, hits, &count) != IQDB_OK || count > 1;
        r->wrong += iqdb_count(r->db, &named, &matching) != IQDB_OK || matching > 1;
        iqdb_iter iter = iqdb_iter_begin(r->db, &named);
        while (iqdb_iter_next(&iter)) matching++;
        iqdb_iter_end(&iter);
    }
    iqdb_buffer_free(&buffer);
    return NULL;
}

/* Writes that fail bring a dimension and rows, and take them away again: readers find nothing, and look at none of it. */
static void the_first_write_fails_beside_readers(void) {
    const uint32_t nan_bits = 0x7FC00000u;
    const float good[PUBLIC_DIM] = {1, 2, 3};
    float bad[PUBLIC_DIM] = {1, 2, 3};
    memcpy(&bad[2], &nan_bits, sizeof nan_bits);
    const iqdb_record records[2] = {public_record(1, good, PUBLIC_DIM), public_record(2, bad, PUBLIC_DIM)};
    iqdb_options options = iqdb_options_default();
    first_reader readers[2];
    pthread_t threads[2];
    iqdb *db = NULL;
    options.metric = IQDB_L2;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (size_t i = 0; i < 2; i++) {
        memset(&readers[i], 0, sizeof readers[i]);
        readers[i].db = db;
        CHECK(pthread_create(&threads[i], NULL, first_read, &readers[i]) == 0);
    }
    for (size_t i = 0; i < support_amount(1000, 3000, 30000); i++)
        CHECK_EQ_INT(iqdb_upsert_batch(db, records, 2), IQDB_ERR_INVALID_VECTOR);
    CHECK_EQ_INT(public_store(db, 1, 2), IQDB_OK);
    usleep(1000);
    for (size_t i = 0; i < 2; i++) {
        __atomic_store_n(&readers[i].ends, 1, __ATOMIC_RELEASE);
        pthread_join(threads[i], NULL);
        CHECK_EQ_U64(readers[i].wrong, 0);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* ---- Writers that share a sync ---- */

enum {
    WRITERS = 4,
    ROUNDS = 150 /* each of a batch of new ids, a replacement and a delete */
};

static int syncs_left, syncs_wrong; /* before they fail; where the handle let its caller in again; atomic */
static iqdb *synced_db;             /* while several threads have it */

static iqdb_result counted_sync(void *file, int *os_code, void *user) {
    (void)file;
    (void)user;
    *os_code = 0;
    usleep(100);
    if (synced_db != NULL && (iqdb_flush(synced_db) != IQDB_ERR_BUSY || iqdb_len(synced_db) != 0))
        __atomic_fetch_add(&syncs_wrong, 1, __ATOMIC_ACQ_REL);
    return __atomic_fetch_sub(&syncs_left, 1, __ATOMIC_ACQ_REL) > 0 ? IQDB_OK : IQDB_ERR_IO;
}

typedef struct group_writer {
    iqdb *db;
    uint64_t number, written; /* rounds that were acknowledged */
    iqdb_result result;
    int wrong;
} group_writer;

static void *group_write(void *user) {
    group_writer *w = (group_writer *)user;
    const uint64_t shared = 1000000; /* all replace it */
    for (w->written = 0; w->written < ROUNDS; w->written++) {
        const uint64_t id = w->number * 1000 + w->written;
        bool removed = false;
        w->result = public_store(w->db, id, id);
        if (w->result != IQDB_OK) break;
        if (!public_holds(w->db, id, id)) w->wrong++; /* what has returned is seen */
        if (public_store(w->db, shared, w->number) != IQDB_OK) continue;
        if (id % 3 == 0 && iqdb_delete(w->db, id, &removed) == IQDB_OK && (!removed || iqdb_contains(w->db, id)))
            w->wrong++;
        if (id % 16 == 5 && iqdb_flush(w->db) == IQDB_OK &&
            iqdb_verify(w->db, IQDB_DEPTH_RECORDS, NULL, NULL) != IQDB_OK)
            w->wrong++;
        if (id % 32 == 7) (void)iqdb_checkpoint(w->db);
    }
    return NULL;
}

/* Runs the writers on a fresh database whose syncs fail from the nth on, then looks at it, and at what open finds. */
static void write_in_groups(int syncs, uint64_t *out_written) {
    static group_writer writers[WRITERS];
    pthread_t threads[WRITERS];
    char folder[SUPPORT_PATH_MAX];
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL;
    iqdb_stats stats;
    options.sync = IQDB_SYNC_EACH;
    options.files = public_quick_files();
    options.files.sync_fn = counted_sync;
    support_directory(folder);
    __atomic_store_n(&syncs_left, 1000000, __ATOMIC_RELEASE);
    CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
    CHECK_EQ_INT(public_store(db, 1000000, 0), IQDB_OK);
    __atomic_store_n(&syncs_left, syncs, __ATOMIC_RELEASE);
    synced_db = db;
    for (uint64_t i = 0; i < WRITERS; i++) {
        memset(&writers[i], 0, sizeof writers[i]);
        writers[i].db = db;
        writers[i].number = i;
        CHECK_EQ_INT(pthread_create(&threads[i], NULL, group_write, &writers[i]), 0);
    }
    *out_written = 0;
    for (int i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
    synced_db = NULL;
    CHECK_EQ_INT(__atomic_load_n(&syncs_wrong, __ATOMIC_ACQUIRE), 0);
    __atomic_store_n(&syncs_left, 1000000, __ATOMIC_RELEASE);
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    CHECK_EQ_U64(stats.records, iqdb_len(db));
    const bool failed = stats.poisoned;
    for (int pass = 0; pass < 2; pass++) { /* as it is, and as it is found again */
        for (uint64_t i = 0; i < WRITERS; i++) {
            const group_writer *w = &writers[i];
            CHECK_EQ_INT(w->wrong, 0);
            CHECK(failed ? w->result == IQDB_ERR_IO || w->result == IQDB_ERR_POISONED : w->result == IQDB_OK);
            for (uint64_t k = 0; k < w->written; k++) {
                const uint64_t id = i * 1000 + k;
                if (id % 3 != 0) CHECK(public_holds(db, id, id));
                if (id % 3 == 0 && !failed) CHECK(!iqdb_contains(db, id));
            }
            /* Of a write that failed nobody saw anything before; it may be found. */
            if (pass == 0 && failed) CHECK(!iqdb_contains(db, i * 1000 + w->written));
            if (pass == 0) *out_written += w->written;
        }
        CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
        if (pass == 0 && failed) CHECK_EQ_INT(public_store(db, 5, 5), IQDB_ERR_POISONED);
        CHECK_EQ_INT(iqdb_close(db), failed && pass == 0 ? IQDB_ERR_POISONED : IQDB_OK);
        if (pass == 0) CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
    }
    support_remove(folder);
}

static void writers_share_syncs(void) {
    uint64_t written;
    write_in_groups(1000000, &written);
    CHECK_EQ_U64(written, WRITERS * ROUNDS);
}

static void a_sync_that_fails_fails_all_who_wait(void) {
    uint64_t written;
    for (int syncs = 0; syncs < 60; syncs += 7) {
        write_in_groups(syncs, &written);
        CHECK(written < WRITERS * ROUNDS);
    }
}

TEST_MAIN("api/threads", TEST(every_pair_of_the_table), TEST(everything_from_inside), TEST(warm_calls_allocate_nothing),
          TEST(memory_is_flat), TEST(abandoned_snapshots_are_bounded), TEST(many_iterators),
          TEST(calls_while_it_is_closed_are_busy), TEST(a_child_waits_for_no_writer),
          TEST(the_first_write_fails_beside_readers), TEST(writers_share_syncs),
          TEST(a_sync_that_fails_fails_all_who_wait))
