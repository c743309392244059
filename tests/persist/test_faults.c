/* Each file call and each allocation of a whole life fails, once or for ever. Whatever the codes said must be true of
 * what is found afterwards: acknowledged batches are there, refused ones are not, one with an unknown outcome is there
 * as a whole or not at all; nothing leaks; a handle that failed half-way writes nothing more. */
#include "api.h"
#include "fault_cut.h"
#include "persist/diary.h"
#include "support.h"
#include "test.h"

#define CHANGES (FAULT_WRITE | FAULT_SYNC | FAULT_DIR_SYNC | FAULT_REMOVE)

typedef struct life {
    diary book;
    fault_files *disk;
    size_t acknowledged; /* durable */
    size_t issued;       /* a refused batch is not counted, one of unknown outcome is */
    size_t bounds[64], bound_count;
    bool unborn, poisoned;
    bool syncs_only; /* nothing but syncs fails */
    size_t noted;    /* steps that failed */
} life;

static bool is_documented(iqdb_result result) {
    return result == IQDB_OK || result == IQDB_ERR_IO || result == IQDB_ERR_NOSPACE || result == IQDB_ERR_NOMEM ||
           result == IQDB_ERR_POISONED || result == IQDB_ERR_READONLY;
}

/* After a step: its code must be one of those, and must agree with the facts. */
static bool note(life *run, const char *step, iqdb_result result, bool acknowledges) {
    if (result != IQDB_OK) run->noted++;
    if (!EXPECT(is_documented(result))) printf("\n      ... of %s: %d", step, (int)result);
    if (run->book.directory == NULL) return result == IQDB_OK;
    const bool poisoned = diary_facts(&run->book).poisoned;
    EXPECT(poisoned || !run->poisoned); /* there is no way back */
    if (run->poisoned && !diary_facts(&run->book).read_only) EXPECT(result == IQDB_ERR_POISONED);
    if (poisoned && !run->poisoned) EXPECT(result == IQDB_ERR_IO);
    if (run->syncs_only && result == IQDB_ERR_IO) EXPECT(poisoned);
    run->poisoned = poisoned;
    if (result == IQDB_OK && acknowledges) run->acknowledged = run->book.count;
    return result == IQDB_OK;
}

static void write_step(life *run, size_t count, bool sync) {
    const size_t first = run->book.count;
    if (run->issued > first) return; /* after an unknown outcome nothing can be written */
    const iqdb_result result = diary_write(&run->book, first, count, sync);
    note(run, "write", result, sync);
    if (result == IQDB_OK || result == IQDB_ERR_IO) {
        run->issued = first + count;
        run->bounds[run->bound_count++] = run->issued;
    }
}

static bool open_step(life *run) {
    const iqdb_result result = diary_open(&run->book);
    run->poisoned = false;
    if (!note(run, "open", result, false)) {
        EXPECT(run->book.directory == NULL);
        EXPECT(run->book.error.code == result);
        return false;
    }
    EXPECT(diary_counts(&run->book, 0, run->book.count) && run->book.count >= run->acknowledged);
    EXPECT(run->book.count <= run->issued);
    run->issued = run->book.count;
    if (!diary_facts(&run->book).read_only) run->acknowledged = run->book.count;
    run->unborn = false;
    return true;
}

static void close_step(life *run) {
    const bool read_only = diary_facts(&run->book).read_only, poisoned = run->poisoned;
    const size_t changes = fault_calls(run->disk, CHANGES);
    const iqdb_result result = diary_close(&run->book);
    EXPECT(is_documented(result) && (!poisoned || result == IQDB_ERR_POISONED));
    EXPECT((!poisoned && !read_only) || changes == fault_calls(run->disk, CHANGES));
    if (result == IQDB_OK && !read_only) run->acknowledged = run->book.count;
    if (result != IQDB_OK) run->noted++;
}

/* All that a directory can do; each step is tried whatever became of those before. */
static void live(life *run) {
    if (open_step(run)) {
        write_step(run, 2, true);
        write_step(run, 3, false);
        note(run, "flush", iq_directory_flush(run->book.directory, true), true);
        write_step(run, 1, false);
        note(run, "checkpoint", diary_checkpoint(&run->book), true);
        write_step(run, 2, true);
        const iqdb_result found = iq_directory_verify(run->book.directory, IQDB_DEPTH_BLOCKS, NULL, NULL);
        EXPECT(is_documented(found) || run->noted > 0); /* a save of META that failed may have torn a slot */
        if (found == IQDB_ERR_IO) run->noted++;
        close_step(run);
    }
    if (open_step(run)) {
        write_step(run, 1, false);
        write_step(run, 4, true);
        diary_crash(&run->book);
    }
    if (open_step(run)) {
        write_step(run, 1, true);
        note(run, "checkpoint", diary_checkpoint(&run->book), true);
        close_step(run);
    }
}

static bool check_after(fault_files *state, const char *what, void *user) {
    life *run = (life *)user;
    diary book = diary_make(fault_table(state), "db");
    book.large_every = run->book.large_every;
    const iqdb_result result = diary_open(&book);
    bool ok = result == IQDB_OK && diary_counts(&book, 0, book.count) && book.count >= run->acknowledged &&
              book.count <= run->issued;
    bool bound = false;
    for (size_t i = 0; i < run->bound_count; i++) bound = bound || run->bounds[i] == book.count;
    ok = ok && bound && diary_write(&book, book.count, 1, true) == IQDB_OK && diary_close(&book) == IQDB_OK;
    if (!EXPECT(ok))
        printf("\n      ... %s: code %d, %zu records of %zu to %zu, %s: %s", what, (int)result, book.count,
               run->acknowledged, run->issued, book.error.file, book.error.text);
    diary_free(&book);
    return ok;
}

static life life_make(fault_files *disk) {
    life run;
    memset(&run, 0, sizeof run);
    run.disk = disk;
    run.book = diary_make(fault_table(disk), "db");
    run.book.large_every = 5;
    run.bound_count = 1;
    run.unborn = true;
    return run;
}

/* Closed, opened again, and cut off from power in some ways: everything that was said must hold. */
static void judge(life *run) {
    diary_free(&run->book);
    EXPECT(run->disk->open_files + run->disk->open_dirs == 0);
    fault_fail_nth(run->disk, 0, 0, IQDB_OK, false);
    fault_files *states[2];
    states[0] = fault_copy(run->disk);
    states[1] = fault_crash(run->disk, fault_lose, NULL);
    check_after(states[0], "all kept", run);
    check_after(states[1], "all lost", run);
    fault_free(states[0]);
    fault_free(states[1]);
    if (support_amount(0, 1, 1) > 0) fault_crashes(run->disk, 0, 3, 7, check_after, run);
}

static size_t fail_each(unsigned kinds, iqdb_result code, bool sticky, size_t partial, bool drop) {
    size_t n = 1;
    for (bool struck = true; struck && test_now.failures == 0; n++) {
        fault_files *disk = fault_new(NULL);
        life run = life_make(disk);
        disk->partial = partial;
        disk->drop_on_sync_failure = drop;
        run.syncs_only = (kinds & ~(FAULT_SYNC | FAULT_DIR_SYNC)) == 0;
        fault_fail_nth(disk, kinds, n, code, sticky);
        live(&run);
        struck = disk->failed > 0;
        if (struck && sticky) EXPECT(run.noted > 0);
        judge(&run);
        if (test_now.failures > 0)
            printf("\n      ... call %zu of kinds 0x%x fails with %d%s, partial %zu", n, kinds, (int)code,
                   sticky ? " and all later ones" : "", partial);
        fault_free(disk);
    }
    return n;
}

static void each_call_fails(void) {
    size_t runs = 0;
    diary_keep_memory();
    for (int sticky = 0; sticky < 2; sticky++) {
        runs += fail_each(FAULT_ANY, IQDB_ERR_IO, sticky != 0, 0, false);
        runs += fail_each(FAULT_WRITE | FAULT_OPEN, IQDB_ERR_NOSPACE, sticky != 0, 0, false);
    }
    printf(" [%zu runs]", runs);
    CHECK(runs > 400);
}

static void each_write_fails_half_way(void) {
    static const size_t partial[] = {1, 100, 5000, (size_t)-1};
    size_t runs = 0;
    for (size_t i = 0; i < 4; i++) {
        runs += fail_each(FAULT_WRITE, IQDB_ERR_IO, false, partial[i], false);
        runs += fail_each(FAULT_WRITE, IQDB_ERR_NOSPACE, i % 2 != 0, partial[i], false);
        runs += fail_each(FAULT_WRITE, IQDB_ERR_READONLY, false, partial[i], false);
    }
    printf(" [%zu runs]", runs);
    CHECK(runs > 200);
}

static void each_sync_fails_and_drops_the_pages(void) {
    size_t runs = 0;
    for (int sticky = 0; sticky < 2; sticky++)
        runs += fail_each(FAULT_SYNC | FAULT_DIR_SYNC, sticky ? IQDB_ERR_NOSPACE : IQDB_ERR_IO, sticky != 0, 0, true);
    printf(" [%zu runs]", runs);
    CHECK(runs > 50);
}

static void a_layer_that_returns_nonsense(void) {
    size_t runs = fail_each(FAULT_ANY & ~FAULT_LOCK, (iqdb_result)12345, false, 0, false);
    runs += fail_each(FAULT_OPEN | FAULT_READ | FAULT_SIZE | FAULT_WRITE, IQDB_ERR_CORRUPT, false, 0, false);
    CHECK(runs > 100);
}

static void each_allocation_fails(void) {
    size_t n = 0, runs = 0;
    for (int sticky = 0; sticky < 2; sticky++) {
        size_t failed = 1;
        for (n = 1; failed > 0 && test_now.failures == 0; n++, runs++) {
            support_heap heap = support_heap_make();
            fault_files *disk = fault_new(NULL);
            life run = life_make(disk);
            run.book.allocator = support_allocator(&heap);
            heap.fail_at = n;
            heap.sticky = sticky;
            live(&run);
            failed = heap.failed;
            heap.fail_at = 0;
            judge(&run);
            EXPECT(support_heap_problems(&heap) == 0);
            if (test_now.failures > 0) printf("\n      ... allocation %zu fails%s", n, sticky ? ", and all later" : "");
            fault_free(disk);
        }
    }
    printf(" [%zu runs]", runs);
    CHECK(runs > 50);
}

static void no_allocation_between_write_and_return(void) {
    support_heap heap = support_heap_make();
    fault_files *disk = fault_new(NULL);
    life run = life_make(disk);
    run.book.allocator = support_allocator(&heap);
    CHECK_EQ_INT(diary_open(&run.book), IQDB_OK);
    CHECK_EQ_INT(diary_write(&run.book, 0, 1, true), IQDB_OK);
    static const uint8_t bytes[3000] = {1};
    const iq_slice piece = {bytes, sizeof bytes};
    uint64_t lsn;
    iq_wal *wal;
    for (int i = 0; i < 40; i++) {
        CHECK_EQ_INT(iq_directory_batch_begin(run.book.directory, &wal), IQDB_OK);
        CHECK_EQ_INT(iq_wal_add(wal, &piece, 1), IQDB_OK);
        const size_t calls = heap.calls;
        CHECK_EQ_INT(diary_commit(run.book.directory, i % 3 == 0, &lsn), IQDB_OK);
        CHECK_EQ_INT(iq_directory_flush(run.book.directory, true), IQDB_OK);
        CHECK_EQ_U64(heap.calls, calls);
    }
    diary_free(&run.book);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
    fault_free(disk);
}

/* ---- Whatever fails while a disk is read ---- */

static iqdb_result no_image(iq_snapshot_writer *writer, void *user) {
    (void)writer;
    (void)user;
    return IQDB_ERR_NOSPACE;
}

#define LARGE 8
#define LEFT 10

static void poke(fault_files *disk, const char *name, uint64_t at, uint8_t value) {
    EXPECT(fault_poke(disk, "db", name, at, &value, 1));
}

static void copy_as(fault_files *disk, const char *name, const char *as) {
    size_t size;
    uint8_t *bytes = fault_load(disk, "db", name, &size);
    EXPECT(bytes != NULL && fault_store(disk, "db", as, bytes, size));
    free(bytes);
}

static void plant(fault_files *disk, const char *name, uint64_t at, uint8_t value) {
    size_t size;
    uint8_t *bytes = fault_load(disk, "db", name, &size);
    if (EXPECT(bytes != NULL && at < size)) bytes[at] = value;
    EXPECT(fault_store(disk, "db", name, bytes, size));
    free(bytes);
}

/* The last two kinds have a log, left open or closed, of which and of the space behind it one read gets a part only. */
static diary book_of(int which, fault_files *disk) {
    diary book = diary_make(fault_table(disk), "db");
    book.large_every = which < LARGE ? 0 : 2;
    return book;
}

/* Disks of all kinds that open has to judge; the records on each go to *out_count. */
static fault_files *left_behind(int which, size_t *out_count) {
    static const uint8_t blank[5000] = {0};
    fault_files *disk = fault_new(NULL);
    diary book = book_of(which, disk);
    EXPECT(diary_open(&book) == IQDB_OK);
    *out_count = which < 2 ? 0 : 4;
    if (which >= LARGE) {
        *out_count = 18;
        for (size_t i = 0; i < *out_count; i++) EXPECT(diary_write(&book, i, 1, true) == IQDB_OK);
        EXPECT(diary_facts(&book).log_bytes > 450000);
        if (which == LARGE) diary_crash(&book);
        EXPECT(diary_close(&book) == IQDB_OK);
        diary_free(&book);
        return disk;
    }
    if (which >= 2) EXPECT(diary_write(&book, 0, 2, true) == IQDB_OK);
    if (which >= 4) EXPECT(diary_checkpoint(&book) == IQDB_OK);
    if (which >= 2) EXPECT(diary_write(&book, 2, 2, true) == IQDB_OK);
    if (which >= 2 && which < 6) EXPECT(checkpoint_by(book.directory, no_image, NULL) == IQDB_ERR_NOSPACE);
    if (which < 6) diary_crash(&book);
    if (which >= 6) EXPECT(diary_close(&book) == IQDB_OK);
    if (which == 0) EXPECT(fault_store(disk, "db", "META", NULL, 0)); /* an interrupted create */
    if (which == 1) { /* of which META is damaged, and logs were begun */
        plant(disk, "META", 100, 9);
        plant(disk, "META", 5000, 9);
        EXPECT(fault_store(disk, "db", "wal-2", blank, 100));
    }
    if (which == 3) plant(disk, "wal-2", 4096 + 44, 0xEE);     /* torn, with a successor that says nothing */
    if (which == 5) plant(disk, "wal-2", 3 * 4096 + 50, 0xEE); /* a torn switch frame */
    if (which == 3) plant(disk, "wal-1", 3 * 4096 + 50, 0xEE);
    if (which == 7) { /* orphans of ours, of a later version and of nobody */
        copy_as(disk, "wal-2", "wal-9");
        copy_as(disk, "snap-1", "snap-9");
        EXPECT(fault_store(disk, "db", "wal-12", blank, 5000));
        EXPECT(fault_store(disk, "db", "snap-12", blank, 5000));
    }
    diary_free(&book);
    return disk;
}

/* An open, in either way, that meets a fault says so or does without; the next one finds the same records. */
static void each_fault_of_an_open(void) {
    static const iqdb_result codes[] = {IQDB_ERR_IO, IQDB_ERR_NOMEM, IQDB_OK};
    size_t runs = 0, refused = 0;
    for (int which = 0; which < LEFT; which++) {
        size_t count;
        fault_files *origin = left_behind(which, &count);
        for (int way = 0; way < 12; way++) { /* the code, or memory; for reading or writing; once or for ever */
            const iqdb_result code = codes[way / 4];
            bool hit = true;
            for (size_t n = 1; hit && test_now.failures == 0; n++, runs++) {
                fault_files *disk = fault_copy(origin);
                support_heap heap = support_heap_make();
                diary book = book_of(which, disk);
                book.allocator = support_allocator(&heap);
                if (code != IQDB_OK) fault_fail_nth(disk, FAULT_ANY, n, code, way % 2 != 0);
                heap.fail_at = code == IQDB_OK ? n : 0;
                heap.sticky = way % 2;
                const iqdb_result result = diary_open_as(&book, way % 4 >= 2);
                hit = disk->failed + heap.failed > 0;
                refused += result != IQDB_OK;
                CHECK(result == IQDB_OK || result == IQDB_ERR_IO || result == IQDB_ERR_NOMEM ||
                      (which < 2 && way % 4 >= 2 && result == IQDB_ERR_NOT_FOUND));
                CHECK(result != IQDB_OK || diary_counts(&book, 0, count));
                diary_crash(&book);
                fault_fail_nth(disk, 0, 0, IQDB_OK, false);
                heap.fail_at = 0;
                EXPECT(diary_open(&book) == IQDB_OK);
                EXPECT(diary_counts(&book, 0, count));
                diary_free(&book);
                CHECK_EQ_U64(disk->open_files + disk->open_dirs, 0);
                CHECK_EQ_INT(support_heap_problems(&heap), 0);
                if (test_now.failures > 0)
                    printf("\n      ... disk %d, way %d, the %zuth: %s at %llu: %s", which, way, n, book.error.file,
                           (unsigned long long)book.error.offset, book.error.text);
                fault_free(disk);
            }
        }
        fault_free(origin);
    }
    printf(" [%zu runs, %zu refused]", runs, refused);
    CHECK(refused > 200);
}

static size_t told;

static void tell(const iqdb_error *finding, void *user) {
    (void)user;
    EXPECT(finding->code != IQDB_OK);
    told++;
}

/* A check beside a writer, of a sound directory and of a damaged one: a fault is told, and no damage is hidden by it. */
static void each_fault_of_a_check(void) {
    for (int damaged = 0; damaged < 2; damaged++) {
        size_t count;
        fault_files *origin = left_behind(6, &count);
        for (int way = 0; way < 6; way++) {
            const iqdb_result code = way < 2 ? IQDB_ERR_IO : way < 4 ? IQDB_ERR_NOMEM : IQDB_OK;
            bool hit = true;
            for (size_t n = 1; hit && test_now.failures == 0; n++) {
                fault_files *disk = fault_copy(origin);
                support_heap heap = support_heap_make();
                diary book = diary_make(fault_table(disk), "db");
                book.allocator = support_allocator(&heap);
                CHECK_EQ_INT(diary_open_as(&book, true), IQDB_OK);
                if (damaged) poke(disk, "snap-1", 100, 0xEE);
                if (damaged) poke(disk, "META", 99, 0xEE);
                if (code != IQDB_OK) fault_fail_nth(disk, FAULT_ANY, n, code, way % 2 != 0);
                heap.fail_at = code == IQDB_OK ? n : 0;
                heap.sticky = way % 2;
                told = 0;
                const iqdb_result result =
                    iq_directory_verify(book.directory, IQDB_DEPTH_BLOCKS, way % 2 ? tell : NULL, NULL);
                hit = disk->failed + heap.failed > 0;
                if (damaged) CHECK(result != IQDB_OK);
                if (!hit) CHECK_EQ_INT(result, damaged ? IQDB_ERR_CORRUPT : IQDB_OK);
                if (!hit && way % 2) CHECK_EQ_U64(told, damaged ? 2 : 0);
                if (hit && way % 2 && !damaged) CHECK(result != IQDB_OK);
                fault_fail_nth(disk, 0, 0, IQDB_OK, false);
                heap.fail_at = 0;
                CHECK_EQ_INT(iq_directory_verify(book.directory, IQDB_DEPTH_BLOCKS, NULL, NULL),
                             damaged ? IQDB_ERR_CORRUPT : IQDB_OK);
                diary_free(&book);
                CHECK_EQ_INT(support_heap_problems(&heap), 0);
                if (test_now.failures > 0) printf("\n      ... damaged %d, way %d, the %zuth", damaged, way, n);
                fault_free(disk);
            }
        }
        fault_free(origin);
    }
}

/* ---- Layers that do what no disk does ---- */

typedef struct odd_file {
    void *inner;
    bool watched;
} odd_file;

typedef struct odd {
    iqdb_files inner;
    const char *name;
    size_t reads, change_at; /* reads of `name`; from this one on a byte is another */
    int exists;              /* creating anything says that it exists, or, 2, that there is no directory */
    int late;                /* LOCK appears when it is created */
} odd;

static iqdb_result odd_open(void *dir, const char *name, iqdb_open_kind kind, void **out, int *os_code, void *user) {
    odd *layer = (odd *)user;
    if (kind == IQDB_OPEN_CREATE && layer->exists > 0 && strcmp(name, "LOCK") != 0)
        return layer->exists == 1 ? IQDB_ERR_INVALID_CONFIG : IQDB_ERR_NOT_FOUND;
    if (layer->late > 0 && strcmp(name, "LOCK") == 0 && --layer->late == 1) return IQDB_ERR_NOT_FOUND;
    const iqdb_result result = layer->inner.open_fn(dir, name, kind, out, os_code, layer->inner.user);
    if (result != IQDB_OK) return result;
    odd_file *file = (odd_file *)malloc(sizeof *file);
    file->inner = *out;
    file->watched = layer->name != NULL && strcmp(name, layer->name) == 0;
    *out = file;
    return IQDB_OK;
}

static void odd_close(void *file, void *user) {
    odd *layer = (odd *)user;
    layer->inner.close_fn(((odd_file *)file)->inner, layer->inner.user);
    free(file);
}

static iqdb_result odd_size(void *file, uint64_t *out_size, int *os_code, void *user) {
    odd *layer = (odd *)user;
    return layer->inner.size_fn(((odd_file *)file)->inner, out_size, os_code, layer->inner.user);
}

static iqdb_result odd_read(void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size, int *os_code,
                            void *user) {
    odd *layer = (odd *)user;
    const iqdb_result result =
        layer->inner.read_fn(((odd_file *)file)->inner, offset, bytes, size, out_size, os_code, layer->inner.user);
    if (((odd_file *)file)->watched && ++layer->reads >= layer->change_at && layer->change_at > 0 && *out_size > 100)
        ((uint8_t *)bytes)[*out_size / 2] ^= 1;
    return result;
}

static iqdb_result odd_write(void *file, uint64_t offset, const void *bytes, size_t size, int *os_code, void *user) {
    odd *layer = (odd *)user;
    return layer->inner.write_fn(((odd_file *)file)->inner, offset, bytes, size, os_code, layer->inner.user);
}

static iqdb_result odd_sync(void *file, int *os_code, void *user) {
    odd *layer = (odd *)user;
    return layer->inner.sync_fn(((odd_file *)file)->inner, os_code, layer->inner.user);
}

static iqdb_result odd_lock(void *file, bool exclusive, int *os_code, void *user) {
    odd *layer = (odd *)user;
    return layer->inner.lock_fn(((odd_file *)file)->inner, exclusive, os_code, layer->inner.user);
}

static iqdb_result odd_dir_open(const char *path, bool create, void **out_dir, int *os_code, void *user) {
    odd *layer = (odd *)user;
    return layer->inner.dir_open_fn(path, create, out_dir, os_code, layer->inner.user);
}

static void odd_dir_close(void *dir, void *user) {
    odd *layer = (odd *)user;
    layer->inner.dir_close_fn(dir, layer->inner.user);
}

static iqdb_result odd_dir_sync(void *dir, int *os_code, void *user) {
    odd *layer = (odd *)user;
    return layer->inner.dir_sync_fn(dir, os_code, layer->inner.user);
}

static iqdb_result odd_dir_list(void *dir, void (*each_fn)(const char *name, void *each_user), void *each_user,
                                int *os_code, void *user) {
    odd *layer = (odd *)user;
    return layer->inner.dir_list_fn(dir, each_fn, each_user, os_code, layer->inner.user);
}

static iqdb_result odd_remove(void *dir, const char *name, int *os_code, void *user) {
    odd *layer = (odd *)user;
    return layer->inner.remove_fn(dir, name, os_code, layer->inner.user);
}

static iqdb_files odd_table(odd *layer, fault_files *disk) {
    const iqdb_files files = {odd_dir_open, odd_dir_close, odd_dir_sync, odd_dir_list, odd_remove, odd_open,
                              odd_close,    odd_size,      odd_read,     odd_write,    odd_sync,   odd_lock,
                              layer,        NULL,          NULL,         NULL,         NULL};
    memset(layer, 0, sizeof *layer);
    layer->inner = fault_table(disk);
    return files;
}

/* Whatever is read twice may come back in two ways: then it is damage, never other records. */
static void files_that_read_differently(void) {
    static const char *const names[] = {"wal-1", "wal-2", "snap-1", "META"};
    size_t refused = 0;
    for (int n = 0; n < 4; n++) {
        for (size_t at = 1; at < 40 && test_now.failures == 0; at++) {
            fault_files *disk = fault_new(NULL);
            odd layer;
            diary book = diary_make(odd_table(&layer, disk), "db");
            book.large_every = 2;
            CHECK_EQ_INT(diary_open(&book), IQDB_OK);
            if (n > 0) CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
            CHECK_EQ_INT(diary_write(&book, 0, 3, true), IQDB_OK);
            CHECK_EQ_INT(diary_write(&book, 3, 12, false), IQDB_OK);
            diary_crash(&book);
            layer.name = names[n];
            layer.change_at = at;
            layer.reads = 0;
            const iqdb_result result = diary_open(&book);
            refused += result != IQDB_OK;
            CHECK(result == IQDB_OK || result == IQDB_ERR_CORRUPT || result == IQDB_ERR_IO);
            if (result == IQDB_OK && layer.reads >= at) CHECK(book.count == 15 || book.count == 3);
            if (result == IQDB_OK) CHECK(diary_counts(&book, 0, book.count));
            diary_free(&book);
            CHECK_EQ_U64(disk->open_files + disk->open_dirs, 0);
            fault_free(disk);
        }
    }
    CHECK(refused > 3);
}

static bool chance_ends(void *bytes, size_t size, void *user) {
    int *left = (int *)user;
    memset(bytes, *left, size);
    return (*left)-- > 0;
}

static iqdb_result open_with_chance(diary *book, int *left) {
    iq_directory_config config;
    iq_loader loader = {diary_on_schema, diary_on_snapshot, diary_on_record, book, NULL};
    memset(&config, 0, sizeof config);
    book->count = 0;
    book->last_lsn = 0;
    config.volume.allocator = book->allocator;
    config.volume.files = book->files;
    config.volume.reporter = &book->reporter;
    config.entropy.fill_fn = chance_ends;
    config.entropy.user = left;
    config.schema.dim = 7;
    config.schema.metric = 2;
    return iq_directory_open(book->path, &config, &loader, &book->directory);
}

static void no_random_numbers(void) {
    fault_files *disk = fault_new(NULL);
    diary book = diary_make(fault_table(disk), "db");
    for (int given = 0; given < 5; given++) {
        int left = given < 3 ? given : 2;
        iqdb_result result = open_with_chance(&book, &left); /* a UUID and a salt */
        CHECK_EQ_INT(result, given < 2 ? IQDB_ERR_IO : IQDB_OK);
        if (result != IQDB_OK) continue;
        if (given > 2) {
            left = 0;
            CHECK_EQ_INT(diary_write(&book, book.count, 1, true), IQDB_OK);
            CHECK_EQ_INT(diary_checkpoint(&book), IQDB_ERR_IO); /* a salt */
            CHECK(!diary_facts(&book).poisoned);
            CHECK_EQ_INT(diary_write(&book, book.count, 1, true), IQDB_OK);
        }
        diary_crash(&book);
        left = 0;
        CHECK_EQ_INT(open_with_chance(&book, &left), IQDB_ERR_IO); /* to recover takes a salt */
    }
    diary_free(&book);
    fault_free(disk);
}

static void names_that_cannot_be_had(void) {
    fault_files *disk = fault_new(NULL);
    odd layer;
    diary book = diary_make(odd_table(&layer, disk), "db");
    layer.exists = 1;
    CHECK_EQ_INT(diary_open(&book), IQDB_ERR_LIMIT); /* whatever number is tried */
    layer.exists = 2;
    CHECK_EQ_INT(diary_open(&book), IQDB_ERR_IO);
    layer.exists = 0;
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    layer.late = 2; /* LOCK is not there, and then is: somebody else was faster */
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    CHECK(fault_store(disk, "db", "META", NULL, 0)); /* an interrupted create that cannot be cleared */
    fault_fail_nth(disk, FAULT_REMOVE, 2, IQDB_ERR_IO, false);
    CHECK_EQ_INT(diary_open(&book), IQDB_ERR_IO);
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    diary_free(&book);
    CHECK_EQ_U64(disk->open_files + disk->open_dirs, 0);
    fault_free(disk);
}

TEST_MAIN("persist/faults", TEST(each_call_fails), TEST(each_write_fails_half_way),
          TEST(each_sync_fails_and_drops_the_pages), TEST(a_layer_that_returns_nonsense), TEST(each_allocation_fails),
          TEST(no_allocation_between_write_and_return), TEST(files_that_read_differently), TEST(no_random_numbers),
          TEST(each_fault_of_an_open), TEST(each_fault_of_a_check), TEST(names_that_cannot_be_had))
