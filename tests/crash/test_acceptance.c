/* The ways in which the original (0.4) and its successor (1.0) lose data or fall over, one row each: what both were
 * measured to do (-: not measured), and what is promised here. Rows of 16 elements, every counted write synced. A row fails when the
 * promise is not kept; where the promise is an error, it has to name the file, and nothing may have been modified. */
#include "api.h"
#include "fault.h"
#include "support.h"
#include "test.h"

#include <math.h>

#define DIM 16u
#define SECTOR 4096u

typedef struct stage {
    fault_files *disk;
    iqdb *db;
    iqdb_options options;
} stage;

static iqdb_error told; /* by the last open */

static iqdb_result open_stage(stage *s, const char *path) {
    s->options = iqdb_options_default();
    s->options.sync = IQDB_SYNC_EACH;
    s->options.files = fault_table(s->disk);
    s->options.error = &told;
    s->options.metric = IQDB_L2;
    memset(&told, 0, sizeof told);
    return iqdb_open(path, &s->options, &s->db);
}

static stage stage_make(void) {
    stage s;
    memset(&s, 0, sizeof s);
    s.disk = fault_new(NULL);
    return s;
}

/* The process dies: nothing more reaches the disk. */
static void die(stage *s) {
    fault_fail_nth(s->disk, FAULT_ANY, 1, IQDB_ERR_IO, true);
    (void)iqdb_close(s->db);
    s->db = NULL;
    fault_fail_nth(s->disk, 0, 0, IQDB_OK, false);
}

/* And the power goes: what was not synced is lost. */
static void lose_power(stage *s) {
    if (s->db != NULL) die(s);
    fault_files *left = fault_crash(s->disk, fault_lose, NULL);
    fault_free(s->disk);
    s->disk = left;
}

static void stage_free(stage *s) {
    if (s->db != NULL) die(s);
    fault_free(s->disk);
}

static void vector_of(uint64_t id, float vector[DIM]) {
    uint64_t state = id;
    for (unsigned i = 0; i < DIM; i++) vector[i] = support_random_float(&state);
}

static iqdb_result put(iqdb *db, uint64_t id) {
    float vector[DIM];
    iqdb_record record = iqdb_record_default();
    vector_of(id, vector);
    record.id = id;
    record.vector = vector;
    record.dim = DIM;
    return iqdb_upsert(db, &record);
}

/* `count` acknowledged records from `first` on. */
static bool add(stage *s, uint64_t first, uint64_t count) {
    for (uint64_t id = first; id < first + count; id++)
        if (!EXPECT(put(s->db, id) == IQDB_OK)) return false;
    return true;
}

/* Exactly the records 0 .. count - 1, bit for bit. */
static bool holds(iqdb *db, uint64_t count) {
    iqdb_buffer buffer = iqdb_buffer_default();
    bool ok = EXPECT(iqdb_len(db) == count);
    for (uint64_t id = 0; id < count && ok; id++) {
        iqdb_record record;
        float vector[DIM];
        vector_of(id, vector);
        ok = EXPECT(iqdb_get(db, id, &buffer, &record) == IQDB_OK) && EXPECT(record.dim == DIM) &&
             EXPECT(memcmp(record.vector, vector, sizeof vector) == 0);
    }
    iqdb_buffer_free(&buffer);
    return ok;
}

static bool opens_with(stage *s, uint64_t count) {
    if (!EXPECT(open_stage(s, "db") == IQDB_OK)) {
        printf("\n      code %d, %s at %llu: %s", (int)told.code, told.file, (unsigned long long)told.offset,
               told.text);
        return false;
    }
    return holds(s->db, count);
}

/* The promise where something was damaged or exchanged: CORRUPT, twice, by name, and nothing modified. */
static bool refuses(stage *s, const char *file) {
    for (int i = 0; i < 3; i++) {
        const uint64_t before = fault_digest(s->disk);
        const size_t changes = fault_calls(s->disk, FAULT_WRITE | FAULT_REMOVE);
        s->options.read_only = i == 2;
        const iqdb_result result = open_stage(s, "db");
        if (!EXPECT(result == IQDB_ERR_CORRUPT) || !EXPECT(strcmp(told.file, file) == 0) ||
            !EXPECT(told.code == IQDB_ERR_CORRUPT && told.text[0] != 0) || !EXPECT(s->db == NULL) ||
            !EXPECT(fault_calls(s->disk, FAULT_WRITE | FAULT_REMOVE) == changes && fault_digest(s->disk) == before)) {
            printf("\n      code %d, file \"%s\", %s", (int)result, told.file, told.text);
            return false;
        }
    }
    return true;
}

/* Opened, so many records written, and the power cut. */
static stage written(uint64_t count) {
    stage s = stage_make();
    EXPECT(open_stage(&s, "db") == IQDB_OK);
    add(&s, 0, count);
    return s;
}

/* Where the frames of a log end: behind the last byte that is no zero, up to a sector. */
static size_t log_end(fault_files *disk, const char *name) {
    size_t size = 0;
    uint8_t *bytes = fault_load(disk, "db", name, &size);
    while (size > 0 && bytes[size - 1] == 0) size--;
    free(bytes);
    return (size + SECTOR - 1) / SECTOR * SECTOR;
}

/* ---- A to I ---- */

static void a_zeros_behind_the_log(void) {
    for (int way = 0; way < 2; way++) {
        stage s = written(10);
        lose_power(&s);
        size_t size = 0;
        uint8_t *bytes = fault_load(s.disk, "db", "wal-1", &size);
        const size_t longer = way == 0 ? size + 4096 : log_end(s.disk, "wal-1") + 4096;
        bytes = (uint8_t *)realloc(bytes, size + 4096);
        memset(bytes + size, 0, 4096);
        CHECK(fault_store(s.disk, "db", "wal-1", bytes, longer > size ? longer : size));
        free(bytes);
        CHECK(opens_with(&s, 10));
        CHECK(add(&s, 10, 1));
        lose_power(&s);
        CHECK(opens_with(&s, 11));
        stage_free(&s);
    }
}

static void b_torn_tail_and_five_more(void) {
    for (size_t cut = 1; cut < 120; cut += 5) {
        stage s = written(10);
        const size_t end = log_end(s.disk, "wal-1");
        fault_fail_nth(s.disk, FAULT_SYNC, 1, IQDB_ERR_IO, true); /* the eleventh is not acknowledged */
        CHECK_EQ_INT(put(s.db, 10), IQDB_ERR_IO);
        die(&s);
        size_t size = 0;
        uint8_t *bytes = fault_load(s.disk, "db", "wal-1", &size);
        memset(bytes + end + cut, cut % 2 == 0 ? 0 : 0x5A, SECTOR - cut);
        CHECK(fault_store(s.disk, "db", "wal-1", bytes, size));
        free(bytes);
        CHECK(opens_with(&s, 10) && add(&s, 10, 5));
        lose_power(&s);
        CHECK(opens_with(&s, 15));
        stage_free(&s);
    }
}

static void c_old_log_beside_new_snapshot(void) {
    size_t moments = 0;
    for (size_t n = 1; moments == n - 1; n++) { /* the power goes at each call of the checkpoint */
        stage s = written(10);
        fault_fail_nth(s.disk, FAULT_ANY & ~FAULT_READ, n, IQDB_ERR_IO, true);
        (void)iqdb_checkpoint(s.db);
        moments += s.disk->failed > 0;
        die(&s);
        fault_files *kept = fault_copy(s.disk);
        fault_free(s.disk);
        s.disk = kept;
        CHECK(opens_with(&s, 10));
        stage_free(&s);
    }
    CHECK(moments > 10);
    /* And the log of before, put back by somebody. */
    stage s = written(10);
    size_t size = 0;
    uint8_t *old = fault_load(s.disk, "db", "wal-1", &size);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    lose_power(&s);
    CHECK(fault_store(s.disk, "db", "wal-1", old, size));
    free(old);
    CHECK(opens_with(&s, 10));
    stage_free(&s);
}

static void d_one_bit_in_frame_two(void) {
    for (size_t at = 0; at < 180; at += 3) { /* the frame: header, record, and the zeros that stretch it */
        stage s = written(10);
        lose_power(&s);
        size_t size = 0;
        uint8_t *bytes = fault_load(s.disk, "db", "wal-1", &size);
        const size_t place = 2 * SECTOR + at;
        const uint8_t flipped = bytes[place] ^ (uint8_t)(1u << at % 8);
        CHECK(fault_poke(s.disk, "db", "wal-1", place, &flipped, 1));
        CHECK(refuses(&s, "wal-1"));
        CHECK_EQ_U64(told.offset, 2 * SECTOR);
        CHECK(fault_poke(s.disk, "db", "wal-1", place, &bytes[place], 1)); /* nothing else was destroyed */
        CHECK(opens_with(&s, 10));
        free(bytes);
        stage_free(&s);
    }
}

static void e_log_header_torn_by_a_crash(void) {
    /* A new log is begun by a checkpoint; whatever of its header reaches the disk, nobody depends on it yet. */
    for (size_t left = 0; left <= 8; left++) {
        stage s = written(8);
        s.disk->plan.name = "wal-2";
        s.disk->partial = left == 8 ? SECTOR : left;
        fault_fail_nth(s.disk, FAULT_WRITE, 1, IQDB_ERR_IO, true);
        CHECK(iqdb_checkpoint(s.db) != IQDB_OK);
        s.disk->plan.name = NULL;
        die(&s);
        fault_files *kept = fault_copy(s.disk);
        fault_free(s.disk);
        s.disk = kept;
        CHECK(opens_with(&s, 8) && add(&s, 8, 5));
        lose_power(&s);
        CHECK(opens_with(&s, 13));
        stage_free(&s);
    }
    /* The very first one. */
    stage s = stage_make();
    CHECK(fault_store(s.disk, "db", "wal-1", "iqdbW", 5));
    CHECK(opens_with(&s, 0) && add(&s, 0, 5));
    lose_power(&s);
    CHECK(opens_with(&s, 5));
    stage_free(&s);
}

static void e_log_cut_to_five_bytes(void) {
    for (size_t left = 0; left <= 5; left += 5) {
        stage s = written(3);
        s.options.compact_on_close = true;
        CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK); /* all in the snapshot; the log is empty, but must be there */
        CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
        s.db = NULL;
        size_t size = 0;
        uint8_t *bytes = fault_load(s.disk, "db", "wal-2", &size);
        CHECK(bytes != NULL && fault_store(s.disk, "db", "wal-2", bytes, left));
        CHECK(refuses(&s, "wal-2"));
        CHECK(fault_store(s.disk, "db", "wal-2", bytes, size));
        CHECK(opens_with(&s, 3) && add(&s, 3, 5) && holds(s.db, 8));
        free(bytes);
        stage_free(&s);
    }
}

static void f_two_handles(void) {
    stage s = written(0);
    iqdb *second = NULL;
    for (uint64_t id = 0; id < 10; id++) {
        CHECK_EQ_INT(put(s.db, id), IQDB_OK);
        CHECK_EQ_INT(iqdb_open("db", &s.options, &second), IQDB_ERR_LOCKED);
        CHECK(second == NULL);
    }
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.db = NULL;
    CHECK(opens_with(&s, 10));
    stage_free(&s);
}

static void g_log_of_another_database(void) {
    stage s = written(7), other = written(3);
    size_t size = 0;
    uint8_t *foreign = fault_load(other.disk, "db", "wal-1", &size);
    for (int closed = 0; closed < 2; closed++) {
        if (closed) {
            CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
            s.db = NULL;
        } else {
            lose_power(&s);
        }
        size_t own_size = 0;
        uint8_t *own = fault_load(s.disk, "db", "wal-1", &own_size);
        CHECK(fault_store(s.disk, "db", "wal-1", foreign, size));
        CHECK(refuses(&s, "wal-1"));
        CHECK(fault_store(s.disk, "db", "wal-1", own, own_size));
        free(own);
        CHECK(opens_with(&s, 7));
    }
    free(foreign);
    stage_free(&other);
    stage_free(&s);
}

static void h_a_file_is_missing(void) {
    static const char *const names[] = {"wal-1", "snap-1", "wal-2"};
    for (int i = 0; i < 3; i++) {
        stage s = written(3);
        if (i > 0) CHECK(iqdb_checkpoint(s.db) == IQDB_OK && add(&s, 3, 5));
        lose_power(&s);
        size_t size = 0;
        uint8_t *bytes = fault_load(s.disk, "db", names[i], &size);
        CHECK(bytes != NULL && fault_store(s.disk, "db", names[i], NULL, 0));
        CHECK(refuses(&s, names[i]));
        CHECK(fault_store(s.disk, "db", names[i], bytes, size));
        free(bytes);
        CHECK(opens_with(&s, i == 0 ? 3 : 8));
        stage_free(&s);
    }
}

static void i_disk_full_in_the_middle(void) {
    /* Full: refused with nothing changed, as often as it is tried; with space again all goes on. */
    stage s = written(10);
    uint64_t count = 10, refused = 0;
    for (int round = 0; round < 50; round++) {
        s.disk->space = round % 7 == 3 ? 30000 + 4096 * (uint64_t)round : 0;
        const iqdb_result result = put(s.db, count);
        CHECK(result == IQDB_OK || result == IQDB_ERR_NOSPACE);
        count += result == IQDB_OK;
        refused += result != IQDB_OK;
    }
    s.disk->space = 0;
    CHECK(refused > 0);
    CHECK(add(&s, count, 60 - count));
    lose_power(&s);
    CHECK(opens_with(&s, 60));
    stage_free(&s);
    /* A write that fails half-way all the same: nothing after it is acknowledged, until it is opened again. */
    for (size_t part = 0; part < 5000; part += 613) {
        s = written(10);
        s.disk->partial = part;
        fault_fail_nth(s.disk, FAULT_WRITE, 1, IQDB_ERR_NOSPACE, false);
        const iqdb_result first = put(s.db, 10);
        count = 10 + (first == IQDB_OK);
        for (int i = 0; i < 50; i++) {
            const iqdb_result result = put(s.db, count);
            CHECK(result == IQDB_OK || (first == IQDB_ERR_IO && result == IQDB_ERR_POISONED));
            count += result == IQDB_OK;
        }
        lose_power(&s);
        CHECK(opens_with(&s, count) && add(&s, count, 50));
        lose_power(&s);
        CHECK(opens_with(&s, count + 50));
        stage_free(&s);
    }
}

/* ---- Others ---- */

static iqdb_result search(iqdb *db, const float *vector, size_t k, iqdb_hit *hits, size_t *count) {
    iqdb_query query = iqdb_query_default();
    query.vector = vector;
    query.dim = DIM;
    query.k = k;
    return iqdb_search(db, &query, hits, count);
}

static void dimensions_do_not_mix(void) {
    stage s = written(5);
    float vector[DIM + 1] = {0};
    iqdb_hit hits[5];
    size_t count = 0;
    iqdb_record record = iqdb_record_default();
    record.id = 99;
    record.vector = vector;
    for (uint32_t dim = 1; dim <= DIM + 1; dim++) {
        record.dim = dim;
        if (dim != DIM) CHECK_EQ_INT(iqdb_upsert(s.db, &record), IQDB_ERR_DIMENSION_MISMATCH);
    }
    CHECK_EQ_INT(search(s.db, vector, 5, hits, &count), IQDB_OK);
    CHECK_EQ_U64(count, 5);
    CHECK(holds(s.db, 5));
    stage_free(&s);
}

static void huge_k(void) {
    stage s = written(5);
    float vector[DIM] = {0};
    iqdb_hit hits[8];
    const size_t sizes[] = {6, (size_t)1 << 31, (size_t)-1 / 2, (size_t)-1};
    for (size_t i = 0; i < 4; i++) {
        size_t count = 0;
        CHECK_EQ_INT(search(s.db, vector, sizes[i], hits, &count), IQDB_OK);
        CHECK_EQ_U64(count, 5);
    }
    stage_free(&s);
}

static void equal_scores(void) {
    stage s = stage_make();
    const float vector[DIM] = {1, 2, 3};
    for (int handle = 0; handle < 3; handle++) {
        CHECK_EQ_INT(open_stage(&s, "db"), IQDB_OK);
        for (uint64_t i = 0; i < 100 && handle == 0; i++) {
            iqdb_record record = iqdb_record_default();
            record.id = i * 37 % 100; /* in another order than that of ids */
            record.vector = vector;
            record.dim = DIM;
            CHECK_EQ_INT(iqdb_upsert(s.db, &record), IQDB_OK);
        }
        iqdb_hit hits[5];
        size_t count = 0;
        CHECK_EQ_INT(search(s.db, vector, 5, hits, &count), IQDB_OK);
        CHECK_EQ_U64(count, 5);
        for (uint64_t i = 0; i < 5; i++) CHECK_EQ_U64(hits[i].id, i);
        if (handle == 1) CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
        s.db = NULL;
    }
    stage_free(&s);
}

static void a_plain_name(void) {
    char folder[SUPPORT_PATH_MAX], home[SUPPORT_PATH_MAX];
    support_directory(folder);
    CHECK(getcwd(home, sizeof home) != NULL && chdir(folder) == 0);
    iqdb *db = NULL;
    const iqdb_result first = iqdb_open("plain-name", NULL, &db);
    const iqdb_result wrote = first == IQDB_OK ? put(db, 0) : first;
    const iqdb_result closed = iqdb_close(db);
    const iqdb_result second = iqdb_open("plain-name", NULL, &db);
    const bool found = second == IQDB_OK && holds(db, 1);
    (void)iqdb_close(db);
    CHECK_EQ_INT(chdir(home), 0);
    support_remove(folder);
    CHECK_EQ_INT(first, IQDB_OK);
    CHECK_EQ_INT(wrote, IQDB_OK);
    CHECK_EQ_INT(closed, IQDB_OK);
    CHECK(found);
}

static void flush_is_durable(void) {
    stage s = stage_make();
    CHECK_EQ_INT(open_stage(&s, "db"), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.options.sync = IQDB_SYNC_FLUSH;
    CHECK_EQ_INT(iqdb_open("db", &s.options, &s.db), IQDB_OK);
    for (int round = 0; round < 3; round++) {
        CHECK(add(&s, (uint64_t)round * 10, 10));
        CHECK_EQ_INT(round == 1 ? iqdb_checkpoint(s.db) : iqdb_flush(s.db), IQDB_OK);
    }
    lose_power(&s);
    CHECK(opens_with(&s, 30));
    stage_free(&s);
}

static void zero_vectors_have_a_cosine(void) {
    stage s = written(3);
    const float zero[DIM] = {0};
    iqdb_hit hits[3];
    size_t count = 0;
    iqdb_query query = iqdb_query_default();
    query.vector = zero;
    query.dim = DIM;
    query.k = 3;
    query.metric = IQDB_COSINE;
    CHECK_EQ_INT(iqdb_search(s.db, &query, hits, &count), IQDB_OK);
    CHECK_EQ_U64(count, 3);
    for (size_t i = 0; i < 3; i++) {
        CHECK_EQ_F32(hits[i].score, 1.0f);
        CHECK_EQ_U64(hits[i].id, i);
    }
    stage_free(&s);
}

/* ---- The table ---- */

static const struct row {
    const char *scenario, *in_0_4, *in_1_0, *promise;
    void (*test)(void);
} table[] = {
    /* scenario, 0.4, 1.0, here */
    {"A  4 KiB of zeros behind 10 writes", "10, tail cut", "open fails for good", "10 of 10", a_zeros_behind_the_log},
    {"B  torn tail, opened, 5 more", "15 of 15", "10 of 15, silently", "15 of 15", b_torn_tail_and_five_more},
    {"C  old log beside new snapshot", "10 of 10", "10 of 10; raw persist fails", "10 of 10",
     c_old_log_beside_new_snapshot},
    {"D  one bit in frame 2 of 10", "1 of 10, 8 good ones cut", "1 of 10, silently", "CORRUPT, wal-1 at 8192; intact",
     d_one_bit_in_frame_two},
    {"E  log header torn by a crash, 5 more", "8 of 8", "open fails for good", "13 of 13; 5 of 5",
     e_log_header_torn_by_a_crash},
    {"E  log cut to 5 bytes, to none", "8 of 8", "open fails for good", "CORRUPT, wal-2; put back: all",
     e_log_cut_to_five_bytes},
    {"F  two handles, 10 writes", "5 of 10 after closing", "5 of 10, silently", "LOCKED; 10 of 10", f_two_handles},
    {"G  log of another database", "7 foreign rows taken in", "7 foreign rows taken in", "CORRUPT, wal-1; intact",
     g_log_of_another_database},
    {"H  log or snapshot missing", "0 of 3, 5 of 8, silently", "0 of 3, 0 of 8; log wiped", "CORRUPT, its name; intact",
     h_a_file_is_missing},
    {"I  a write refused in its middle, 50 more", "10 of 60, silently", "10 of 60, silently",
     "60 of 60, or POISONED until opened", i_disk_full_in_the_middle},
    {"flush, then a power cut", "-", "may lose all", "kept", flush_is_durable},
    {"3 elements, then 4", "every search fails", "-", "DIMENSION_MISMATCH", dimensions_do_not_mix},
    {"k = 2^60 and more", "panics", "HNSW panics", "all records", huge_k},
    {"100 equal rows, k = 5, three handles", "three sets of ids", "-", "by id", equal_scores},
    {"cosine of a zero vector", "NaN", "1", "1", zero_vectors_have_a_cosine},
    {"open(\"plain-name\")", "-", "fails: NotFound", "opens", a_plain_name},
};

static void the_whole_table(void) {
    printf("\n    %-42s %-26s %-28s %s", "scenario", "0.4", "1.0", "here");
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const long failures = test_now.failures, checks = test_now.checks;
        table[i].test();
        const bool kept = test_now.failures == failures && test_now.checks > checks;
        printf("\n    %-42s %-26s %-28s %s%s", table[i].scenario, table[i].in_0_4, table[i].in_1_0, table[i].promise,
               kept ? "" : "   <-- NOT KEPT");
        EXPECT(kept);
    }
    printf("\n   ");
}

TEST_MAIN("crash/acceptance", TEST(the_whole_table))
