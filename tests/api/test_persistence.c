/* What a directory keeps: across closing and opening, across a crash (a copy of the files of an open database is what a
 * crash leaves where the system had written everything), and across damage, which is reported and never answered from.
 * File names and the tables of META are those of the format: META, wal-<n>, snap-<n>. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

#include <signal.h>
#if !defined(_WIN32)
#include <sys/wait.h>
#endif

typedef struct scene {
    char folder[SUPPORT_PATH_MAX];
    char path[SUPPORT_PATH_MAX];  /* the database */
    char crash[SUPPORT_PATH_MAX]; /* a copy of it */
    char spare[SUPPORT_PATH_MAX]; /* and another one */
    iqdb *db;
} scene;

static void scene_make(scene *s) {
    memset(s, 0, sizeof *s);
    support_directory(s->folder);
    support_join(s->path, s->folder, "db");
    support_join(s->crash, s->folder, "crash");
    support_join(s->spare, s->folder, "spare");
}

/* Without options it does not wait for the disk; some tests below do, with all that takes. */
static int scene_open(scene *s, const iqdb_options *options) {
    iqdb_options quick = iqdb_options_default();
    quick.files = public_quick_files();
    s->db = NULL;
    return EXPECT(iqdb_open(s->path, options != NULL ? options : &quick, &s->db) == IQDB_OK);
}

static int scene_close(scene *s) {
    const int ok = EXPECT(iqdb_close(s->db) == IQDB_OK);
    s->db = NULL;
    return ok;
}

/* Records first .. last - 1, each in its version `id`; each durable before the next where `each` says so. */
static int write_records(iqdb *db, uint64_t first, uint64_t last, int each) {
    int ok = 1;
    for (uint64_t id = first; ok && id < last; id++) {
        ok = EXPECT(public_store(db, id, id) == IQDB_OK);
        if (ok && each) ok = EXPECT(iqdb_flush(db) == IQDB_OK);
    }
    return ok;
}

static int holds_records(const iqdb *db, uint64_t count) {
    int ok = EXPECT(iqdb_len(db) == count);
    for (uint64_t id = 0; ok && id < count; id++) ok = EXPECT(public_holds(db, id, id));
    if (!ok) printf("\n      ... holds %zu records, expected %" PRIu64, iqdb_len(db), count);
    return ok;
}

/* The directory opens and holds exactly records 0 .. count - 1; `more` records are written, and survive a crash and a
 * close as well: nothing is appended where nobody will read it. */
static int opens_with(const char *path, uint64_t count, uint64_t more) {
    iqdb *db = NULL;
    char crash[SUPPORT_PATH_MAX + 8];
    snprintf(crash, sizeof crash, "%s-again", path);
    iqdb_error error;
    memset(&error, 0, sizeof error);
    iqdb_options options = iqdb_options_default();
    options.error = &error;
    options.files = public_quick_files();
    const iqdb_result result = iqdb_open(path, &options, &db);
    int ok = EXPECT(result == IQDB_OK);
    if (!ok) printf("\n      ... %s: %s", iqdb_strerror(result), error.text);
    ok = ok && holds_records(db, count);
    if (ok && more > 0) {
        ok = write_records(db, count, count + more, 1) && EXPECT(public_copy(path, crash));
        ok = ok && opens_with(crash, count + more, 0);
        support_remove(crash);
    }
    if (db != NULL) ok = EXPECT(iqdb_close(db) == IQDB_OK) && ok;
    return ok && (more == 0 || opens_with(path, count + more, 0));
}

/* The directory is refused with this code, twice, for reading and for writing, and stays as it is. */
static int is_refused(const char *path, iqdb_result expected, iqdb_error *out_error) {
    const uint64_t before = digest_directory(path);
    int ok = 1;
    for (int round = 0; ok && round < 4; round++) {
        iqdb *db = (iqdb *)(void *)&ok;
        iqdb_error error;
        iqdb_options options = iqdb_options_default();
        support_heap heap = support_heap_make();
        public_log log;
        memset(&error, 0, sizeof error);
        memset(&log, 0, sizeof log);
        options.error = &error;
        options.logger = public_logger(&log);
        options.allocator = support_allocator(&heap);
        options.read_only = round % 2 == 1;
        const iqdb_result result = iqdb_open(path, &options, &db);
        ok = EXPECT(result == expected) && EXPECT(db == NULL) && EXPECT(error.code == expected) &&
             EXPECT(error.text[0] != 0) && EXPECT(log.errors > 0) && EXPECT(log.last.code == expected) &&
             EXPECT(support_heap_problems(&heap) == 0) && EXPECT(digest_directory(path) == before);
        if (expected == IQDB_ERR_CORRUPT) ok = ok && EXPECT(error.file[0] != 0);
        if (!ok)
            printf("\n      ... round %d: %s, %s at %" PRIu64 ": %s", round, iqdb_strerror(result), error.file,
                   error.offset, error.text);
        if (result == IQDB_OK) {
            printf(" (%zu records)", iqdb_len(db));
            iqdb_close(db);
        }
        if (out_error != NULL) *out_error = error;
    }
    return ok;
}

/* ---- Closing and opening ---- */

static void a_fresh_directory_below_fresh_ones(void) {
    SUPPORT_NEEDS_POSIX;
    scene s;
    scene_make(&s);
    char deep[SUPPORT_PATH_MAX];
    support_join(deep, s.path, "a/b/c/database");
    const mode_t mask = umask(0);
    CHECK_EQ_INT(iqdb_open(deep, NULL, &s.db), IQDB_OK);
    CHECK(write_records(s.db, 0, 3, 0));
    CHECK(scene_close(&s));
    umask(mask);
    CHECK(opens_with(deep, 3, 2));
    struct stat info;
    CHECK(stat(deep, &info) == 0 && (info.st_mode & 077) == 0); /* nobody else's business, whatever the mask says */
    char file[SUPPORT_PATH_MAX];
    support_join(file, deep, "META");
    CHECK(stat(file, &info) == 0 && (info.st_mode & 0777) == 0600);
    support_remove(s.folder);
}

static void a_plain_relative_name(void) {
    SUPPORT_NEEDS_POSIX;
    scene s;
    scene_make(&s);
    const int here = open(".", O_RDONLY);
    CHECK(here >= 0 && chdir(s.folder) == 0);
    iqdb *db = NULL;
    EXPECT(iqdb_open("plain-name", NULL, &db) == IQDB_OK);
    EXPECT(db != NULL && write_records(db, 0, 2, 1));
    EXPECT(iqdb_close(db) == IQDB_OK);
    EXPECT(opens_with("plain-name", 2, 0));
    EXPECT(opens_with("./plain-name/", 2, 0));
    EXPECT(opens_with("fresh/./plain", 0, 2));
    CHECK(fchdir(here) == 0);
    close(here);
    support_remove(s.folder);
}

static void records_survive_closing(void) {
    for (int variant = 0; variant < 6; variant++) { /* compact_on_close or not, with a checkpoint, a flush or neither */
        scene s;
        scene_make(&s);
        iqdb_options options = iqdb_options_default();
        options.compact_on_close = variant % 2 == 1;
        CHECK(scene_open(&s, &options));
        CHECK(write_records(s.db, 0, 20, 0));
        if (variant / 2 == 1) CHECK_EQ_INT(iqdb_flush(s.db), IQDB_OK);
        if (variant / 2 == 2) CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
        CHECK(write_records(s.db, 20, 30, 0));
        for (uint64_t id = 100; id < 110; id++) CHECK_EQ_INT(public_store(s.db, id, id), IQDB_OK);
        for (uint64_t id = 100; id < 110; id++) CHECK_EQ_INT(iqdb_delete(s.db, id, NULL), IQDB_OK);
        const uint64_t digest = digest_database(s.db);
        iqdb_stats before, after;
        CHECK_EQ_INT(iqdb_stat(s.db, &before), IQDB_OK);
        CHECK(scene_close(&s));
        CHECK(scene_open(&s, &options));
        CHECK_EQ_INT(iqdb_stat(s.db, &after), IQDB_OK);
        CHECK(!after.recovered && !after.poisoned && !after.in_memory);
        CHECK_MEM(after.uuid, before.uuid, 16);
        CHECK_EQ_U64(after.dim, PUBLIC_DIM);
        CHECK_EQ_U64(digest_database(s.db), digest);
        CHECK(scene_close(&s));
        CHECK(opens_with(s.path, 30, 3));
        support_remove(s.folder);
    }
}

/* Three sessions: write; search and delete; confirm. */
static void three_sessions(void) {
    scene s;
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 10, 0));
    CHECK(scene_close(&s));
    CHECK(scene_open(&s, NULL));
    CHECK(holds_records(s.db, 10));
    float probe[PUBLIC_DIM];
    public_vector(4, 4, probe);
    iqdb_hit hit;
    size_t count = 0;
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_query query = public_query(probe, PUBLIC_DIM, 1, IQDB_L2);
    query.flags = IQDB_WITH_PAYLOAD;
    query.buffer = &buffer;
    CHECK_EQ_INT(iqdb_search(s.db, &query, &hit, &count), IQDB_OK);
    CHECK(count == 1 && hit.id == 4 && hit.score == 0);
    CHECK_EQ_INT(iqdb_payload_int(hit.payload, "version", -1), 4);
    iqdb_buffer_free(&buffer);
    bool removed = false;
    CHECK_EQ_INT(iqdb_delete(s.db, 9, &removed), IQDB_OK);
    CHECK(removed);
    CHECK(scene_close(&s));
    CHECK(opens_with(s.path, 9, 0));
    support_remove(s.folder);
}

static void cycles_of_opening_and_closing(void) {
    for (int variant = 0; variant < 4; variant++) {
        scene s;
        scene_make(&s);
        iqdb_options options = iqdb_options_default();
        options.compact_on_close = variant % 2 == 1;
        options.sync = variant / 2 == 1 ? IQDB_SYNC_EACH : IQDB_SYNC_FLUSH;
        uint8_t uuid[16];
        memset(uuid, 0, 16);
        for (uint64_t cycle = 0; cycle < 12; cycle++) {
            iqdb_stats stats;
            CHECK(scene_open(&s, &options));
            CHECK(holds_records(s.db, cycle * 5));
            CHECK_EQ_INT(iqdb_stat(s.db, &stats), IQDB_OK);
            if (cycle > 0) CHECK_MEM(stats.uuid, uuid, 16);
            memcpy(uuid, stats.uuid, 16);
            if (cycle % 3 == 2) { /* a cycle that writes nothing */
                CHECK(scene_close(&s));
                CHECK(scene_open(&s, &options));
            }
            CHECK(write_records(s.db, cycle * 5, cycle * 5 + 5, 0));
            CHECK_EQ_INT(public_store(s.db, 1000 + cycle, 1), IQDB_OK);
            CHECK_EQ_INT(iqdb_delete(s.db, 1000 + cycle, NULL), IQDB_OK);
            CHECK(scene_close(&s));
        }
        CHECK(opens_with(s.path, 60, 0));
        support_remove(s.folder);
    }
}

/* A payload of every type and a vector of every kind of float, through log, checkpoint and compaction. */
static void all_of_a_record_survives(void) {
    scene s;
    scene_make(&s);
    const float vector[6] = {-0.0f, 1e-45f, -1e-39f, 3.4028235e38f, 0.1f, -7};
    iqdb_value items[4];
    iqdb_field inner[2], fields[8];
    items[0] = iqdb_int(INT64_MIN);
    items[1] = iqdb_text("\xe2\x82\xac");
    items[2] = iqdb_array(NULL, 0);
    inner[0] = public_field("deep", iqdb_array(items, 3));
    inner[1] = public_field("", iqdb_bool(true));
    fields[0] = public_field("null", iqdb_null());
    fields[1] = public_field("bool", iqdb_bool(false));
    fields[2] = public_field("int", iqdb_int(INT64_MAX));
    fields[3] = public_field("float", iqdb_float(-0.0));
    fields[4] = public_field("text", iqdb_text_n("a\0b", 3));
    fields[5] = public_field("bytes", iqdb_bytes("\0\377", 2));
    fields[6] = public_field("array", iqdb_array(items, 3));
    fields[7] = public_field("object", iqdb_object(inner, 2));
    iqdb_record record = public_record(UINT64_MAX, vector, 6);
    record.fields = fields;
    record.field_count = 8;
    CHECK(scene_open(&s, NULL));
    CHECK_EQ_INT(iqdb_upsert(s.db, &record), IQDB_OK);
    iqdb_buffer buffer = iqdb_buffer_default();
    const uint64_t digest = digest_database(s.db);
    for (int step = 0; step < 5; step++) {
        iqdb_record seen;
        CHECK_EQ_INT(iqdb_get(s.db, UINT64_MAX, &buffer, &seen), IQDB_OK);
        CHECK_MEM(seen.vector, vector, sizeof vector);
        CHECK_EQ_U64(iqdb_payload_count(seen.payload), 8);
        CHECK_EQ_INT(iqdb_payload_int(seen.payload, "int", 0), INT64_MAX);
        CHECK_EQ_U64(iqdb_value_count(iqdb_payload_get(seen.payload, "object.deep")), 3);
        CHECK_EQ_U64(digest_database(s.db), digest);
        iqdb_options options = iqdb_options_default();
        options.compact_on_close = step == 3;
        if (step == 1) CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
        CHECK(scene_close(&s));
        CHECK(scene_open(&s, &options));
    }
    iqdb_buffer_free(&buffer);
    CHECK(scene_close(&s));
    support_remove(s.folder);
}

/* As long as a vector may be: its record is written in many pieces. */
static void the_longest_vector_survives(void) {
    scene s;
    iqdb_buffer buffer = iqdb_buffer_default();
    float *vectors = (float *)malloc(3 * IQDB_DIM_MAX * sizeof *vectors);
    uint64_t state = 21;
    scene_make(&s);
    CHECK(vectors != NULL && scene_open(&s, NULL));
    for (size_t i = 0; i < 3 * IQDB_DIM_MAX; i++) vectors[i] = support_random_float(&state);
    for (uint64_t id = 0; id < 3; id++)
        CHECK_EQ_INT(public_put(s.db, id, vectors + id * IQDB_DIM_MAX, IQDB_DIM_MAX), IQDB_OK);
    CHECK_EQ_INT(iqdb_flush(s.db), IQDB_OK);
    CHECK(public_copy(s.path, s.crash));
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK(scene_close(&s));
    for (int which = 0; which < 2; which++) { /* from the log, from the snapshot */
        iqdb *db = NULL;
        CHECK_EQ_INT(iqdb_open(which == 0 ? s.crash : s.path, NULL, &db), IQDB_OK);
        CHECK_EQ_U64(iqdb_len(db), 3);
        for (uint64_t id = 0; id < 3; id++) {
            iqdb_record record;
            CHECK_EQ_INT(iqdb_get(db, id, &buffer, &record), IQDB_OK);
            CHECK_MEM(record.vector, vectors + id * IQDB_DIM_MAX, IQDB_DIM_MAX * sizeof(float));
        }
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
    iqdb_buffer_free(&buffer);
    free(vectors);
    support_remove(s.folder);
}

/* Enough for large sections, many slabs and a log of several chunks; with gaps, replacements and payloads. */
static void many_records_survive(void) {
    const uint64_t count = support_amount(600, 20000, 200000);
    scene s;
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    uint64_t digest = 0;
    for (int round = 0; round < 3; round++) {
        for (uint64_t id = (uint64_t)round * 7; id < count; id += 1 + (uint64_t)round)
            CHECK_EQ_INT(public_store(s.db, id * 11, id + (uint64_t)round), IQDB_OK);
        for (uint64_t id = (uint64_t)round; id < count; id += 5)
            CHECK_EQ_INT(iqdb_delete(s.db, id * 11, NULL), IQDB_OK);
        if (round == 1) CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
        digest = digest_database(s.db);
        CHECK(public_copy(s.path, s.crash));
        CHECK(scene_close(&s));
        for (int which = 0; which < 2; which++) {
            iqdb *db = NULL;
            iqdb_options options = iqdb_options_default();
            options.verify = IQDB_DEPTH_RECORDS;
            options.compact_on_close = which == 1 && round == 2;
            CHECK_EQ_INT(iqdb_open(which == 0 ? s.crash : s.path, &options, &db), IQDB_OK);
            CHECK_EQ_U64(digest_database(db), digest);
            CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
            CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        }
        CHECK(scene_open(&s, NULL));
        CHECK_EQ_U64(digest_database(s.db), digest);
    }
    CHECK(scene_close(&s));
    support_remove(s.folder);
}

static void an_empty_database_stays_one(void) {
    scene s;
    scene_make(&s);
    for (int round = 0; round < 4; round++) {
        iqdb_options options = iqdb_options_default();
        options.compact_on_close = round % 2 == 1;
        CHECK(scene_open(&s, &options));
        CHECK(iqdb_is_empty(s.db));
        if (round == 2) CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
        CHECK(public_copy(s.path, s.crash));
        CHECK(opens_with(s.crash, 0, 0));
        CHECK(scene_close(&s));
    }
    CHECK(scene_open(&s, NULL)); /* emptied again by deletes, after which the dimension stays */
    CHECK(write_records(s.db, 0, 10, 0));
    for (uint64_t id = 0; id < 10; id++) CHECK_EQ_INT(iqdb_delete(s.db, id, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK(scene_close(&s));
    CHECK(scene_open(&s, NULL));
    iqdb_stats stats;
    CHECK_EQ_INT(iqdb_stat(s.db, &stats), IQDB_OK);
    CHECK(stats.records == 0 && stats.dim == PUBLIC_DIM);
    CHECK(scene_close(&s));
    CHECK(opens_with(s.path, 0, 4));
    support_remove(s.folder);
}

static void dimension_and_metric_are_kept(void) {
    for (int metric = IQDB_L2; metric <= IQDB_L1; metric++) {
        scene s;
        scene_make(&s);
        iqdb_options options = iqdb_options_default();
        options.metric = (iqdb_metric)metric;
        options.dim = 7; /* declared, no record */
        CHECK(scene_open(&s, &options));
        CHECK(scene_close(&s));
        for (int round = 0; round < 2; round++) {
            iqdb_stats stats;
            CHECK(scene_open(&s, NULL));
            CHECK_EQ_INT(iqdb_stat(s.db, &stats), IQDB_OK);
            CHECK_EQ_U64(stats.dim, 7);
            CHECK_EQ_INT(stats.metric, options.metric);
            const float vector[7] = {1, 2, 3, 4, 5, 6, 7};
            CHECK_EQ_INT(public_put(s.db, 1, vector, 6), IQDB_ERR_DIMENSION_MISMATCH);
            CHECK_EQ_INT(public_put(s.db, 1, vector, 0), IQDB_OK);
            iqdb_hit hit;
            size_t count = 0;
            const iqdb_query query = public_query(vector, 0, 1, IQDB_METRIC_DEFAULT);
            CHECK_EQ_INT(iqdb_search(s.db, &query, &hit, &count), IQDB_OK);
            CHECK_EQ_F32(hit.score, model_score(options.metric, vector, vector, 7));
            CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
            CHECK(scene_close(&s));
        }
        support_remove(s.folder);
    }
}

static void two_databases_are_told_apart(void) {
    scene a, b;
    scene_make(&a);
    scene_make(&b);
    CHECK(scene_open(&a, NULL) && scene_open(&b, NULL));
    iqdb_stats of_a, of_b;
    CHECK_EQ_INT(iqdb_stat(a.db, &of_a), IQDB_OK);
    CHECK_EQ_INT(iqdb_stat(b.db, &of_b), IQDB_OK);
    CHECK(memcmp(of_a.uuid, of_b.uuid, 16) != 0);
    CHECK(scene_close(&a) && scene_close(&b));
    support_remove(a.folder);
    support_remove(b.folder);
}

/* ---- Checkpoints ---- */

static void a_checkpoint_leaves_one_snapshot_and_one_log(void) {
    scene s;
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    for (uint64_t round = 0; round < 5; round++) {
        char name[64];
        iqdb_stats stats;
        CHECK(write_records(s.db, round * 10, round * 10 + 10, 0));
        CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
        CHECK_EQ_U64(public_find(s.path, "snap-", name), 1);
        CHECK(public_find_vector(s.path, name, round * 10 + 9, round * 10 + 9) != (size_t)-1);
        CHECK_EQ_U64(public_find(s.path, "wal-", name), 1);
        CHECK(public_find_vector(s.path, name, round * 10 + 9, round * 10 + 9) == (size_t)-1);
        CHECK_EQ_INT(iqdb_stat(s.db, &stats), IQDB_OK);
        CHECK_EQ_U64(stats.applied_lsn, stats.last_lsn);
        CHECK(stats.snapshot_bytes > 0);
        CHECK(holds_records(s.db, round * 10 + 10));
        CHECK(public_copy(s.path, s.crash)); /* and a crash right behind it loses nothing */
        CHECK(opens_with(s.crash, round * 10 + 10, 2));
    }
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK); /* with nothing new */
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK_EQ_U64(public_find(s.path, "snap-", NULL), 1);
    CHECK(scene_close(&s));
    CHECK(opens_with(s.path, 50, 3));
    support_remove(s.folder);
}

static void compact_on_close_leaves_a_snapshot_and_an_empty_log(void) {
    scene s;
    scene_make(&s);
    iqdb_options options = iqdb_options_default();
    options.compact_on_close = true;
    for (uint64_t round = 0; round < 3; round++) {
        char wal[64], snap[64];
        iqdb_stats stats;
        CHECK(scene_open(&s, &options));
        CHECK(write_records(s.db, round * 50, round * 50 + 50, 0));
        CHECK(scene_close(&s));
        CHECK_EQ_U64(public_find(s.path, "snap-", snap), 1);
        CHECK_EQ_U64(public_find(s.path, "wal-", wal), 1);
        for (uint64_t id = 0; id < round * 50 + 50; id++) {
            CHECK(public_find_vector(s.path, snap, id, id) != (size_t)-1);
            CHECK(public_find_vector(s.path, wal, id, id) == (size_t)-1);
        }
        options.read_only = true;
        CHECK(scene_open(&s, &options));
        CHECK_EQ_INT(iqdb_stat(s.db, &stats), IQDB_OK);
        CHECK_EQ_U64(stats.applied_lsn, stats.last_lsn);
        CHECK(scene_close(&s));
        options.read_only = false;
    }
    support_remove(s.folder);
}

/* Checkpoints while an iterator lives: the iterator keeps its state, the snapshot gets the new one. */
static void a_checkpoint_beside_an_iterator(void) {
    scene s;
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 20, 0));
    iqdb_iter iter = iqdb_iter_begin(s.db, NULL);
    for (uint64_t id = 10; id < 20; id++) CHECK_EQ_INT(iqdb_delete(s.db, id, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    uint64_t seen = 0;
    while (iqdb_iter_next(&iter)) {
        float vector[PUBLIC_DIM];
        public_vector(iter.record.id, iter.record.id, vector);
        CHECK_MEM(iter.record.vector, vector, sizeof vector);
        seen++;
    }
    CHECK_EQ_U64(seen, 20);
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_ERR_BUSY);
    CHECK(holds_records(s.db, 10));
    iqdb_iter_end(&iter);
    CHECK(public_copy(s.path, s.crash));
    CHECK(opens_with(s.crash, 10, 0));
    CHECK(scene_close(&s));
    CHECK(opens_with(s.path, 10, 5));
    support_remove(s.folder);
}

/* ---- Crashes ---- */

static void what_was_flushed_survives_a_crash(void) {
    scene s;
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    for (uint64_t count = 0; count <= 40; count += 8) {
        CHECK(write_records(s.db, count == 0 ? 0 : count - 8, count, 0));
        CHECK_EQ_INT(iqdb_flush(s.db), IQDB_OK);
        iqdb_stats stats;
        CHECK_EQ_INT(iqdb_stat(s.db, &stats), IQDB_OK);
        CHECK_EQ_U64(stats.durable_lsn, stats.last_lsn);
        CHECK(public_copy(s.path, s.crash));
        CHECK(opens_with(s.crash, count, 3));
        CHECK(opens_with(s.crash, count + 3, 0)); /* three more that opens_with wrote */
    }
    CHECK(scene_close(&s));
    support_remove(s.folder);
}

/* Without a flush nothing is promised but order: some first records, none without those before it. */
static void what_was_not_flushed_leaves_a_prefix(void) {
    scene s;
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 7, 0));
    CHECK_EQ_INT(iqdb_flush(s.db), IQDB_OK);
    CHECK(write_records(s.db, 7, 50, 0));
    CHECK(public_copy(s.path, s.crash));
    iqdb *db = NULL;
    CHECK_EQ_INT(iqdb_open(s.crash, NULL, &db), IQDB_OK);
    CHECK(iqdb_len(db) >= 7 && iqdb_len(db) <= 50);
    CHECK(holds_records(db, iqdb_len(db)));
    iqdb_stats stats;
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    CHECK(stats.recovered);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK(scene_close(&s));
    support_remove(s.folder);
}

static uint64_t told_time(void *user) { return *(const uint64_t *)user; }

/* Whether so many of the writes, which took one LSN each, are durable, and all are seen. */
static int durable_of(iqdb *db, uint64_t durable, uint64_t written) {
    iqdb_stats stats;
    return EXPECT(iqdb_stat(db, &stats) == IQDB_OK) && EXPECT(stats.durable_lsn >= durable) &&
           EXPECT((stats.durable_lsn == stats.last_lsn) == (durable == written)) && holds_records(db, written);
}

static void sync_periodic_makes_old_writes_durable(void) {
    static const uint32_t intervals[] = {0, 1, 250, UINT32_MAX}; /* 0: 1,000 */
    for (int way = 0; way < 12; way++) {
        scene s;
        uint64_t now = way % 5 == 0 ? UINT64_MAX - 100 : 7; /* a clock may turn over */
        bool done = false;
        scene_make(&s);
        iqdb_options options = iqdb_options_default();
        options.sync = IQDB_SYNC_PERIODIC;
        options.sync_interval_ms = intervals[way % 4];
        options.clock_us.now_fn = told_time;
        options.clock_us.user = &now;
        const uint64_t interval = (way % 4 == 0 ? 1000 : (uint64_t)intervals[way % 4]) * 1000;
        CHECK(scene_open(&s, &options));
        CHECK(write_records(s.db, 0, 1, 0) && durable_of(s.db, 0, 1));
        now += interval - 1;
        CHECK(write_records(s.db, 1, 2, 0)); /* not yet */
        CHECK_EQ_INT(iqdb_maintain(s.db, 0, &done), IQDB_OK);
        CHECK(durable_of(s.db, 0, 2));
        now += 1;
        if (way / 4 == 0) CHECK(write_records(s.db, 2, 3, 0) && durable_of(s.db, 2, 3));
        if (way / 4 == 1) CHECK(iqdb_maintain(s.db, 0, &done) == IQDB_OK && durable_of(s.db, 2, 2));
        if (way / 4 == 2) CHECK(iqdb_delete(s.db, 999, NULL) == IQDB_OK && durable_of(s.db, 2, 2));
        const uint64_t count = iqdb_len(s.db);
        CHECK(write_records(s.db, count, count + 1, 0)); /* a new interval begins with the first write in it */
        now += interval - 1;
        CHECK_EQ_INT(iqdb_delete(s.db, 999, NULL), IQDB_OK);
        CHECK(durable_of(s.db, 2, count + 1));
        CHECK_EQ_INT(iqdb_flush(s.db), IQDB_OK);
        CHECK(durable_of(s.db, count + 1, count + 1));
        CHECK(public_copy(s.path, s.crash) && opens_with(s.crash, count + 1, 0));
        CHECK(scene_close(&s));
        support_remove(s.folder);
    }
}

static void sync_each_makes_every_write_durable(void) {
    scene s;
    scene_make(&s);
    iqdb_options options = iqdb_options_default();
    options.sync = IQDB_SYNC_EACH;
    CHECK(scene_open(&s, &options));
    for (uint64_t step = 0; step < 30; step++) {
        const uint64_t id = step;
        iqdb_stats stats;
        if (step % 5 == 3) { /* a batch */
            float vectors[2][PUBLIC_DIM];
            iqdb_record records[2];
            public_vector(id, 3, vectors[0]);
            public_vector(id + 100, 3, vectors[1]);
            records[0] = public_record(id, vectors[0], PUBLIC_DIM);
            records[1] = public_record(id + 100, vectors[1], PUBLIC_DIM);
            CHECK_EQ_INT(iqdb_upsert_batch(s.db, records, 2), IQDB_OK);
        } else if (step % 5 == 4) {
            CHECK_EQ_INT(iqdb_delete(s.db, id - 1, NULL), IQDB_OK);
        } else {
            CHECK_EQ_INT(public_store(s.db, id, id), IQDB_OK);
        }
        CHECK_EQ_INT(iqdb_stat(s.db, &stats), IQDB_OK);
        CHECK_EQ_U64(stats.durable_lsn, stats.last_lsn);
        CHECK(public_copy(s.path, s.crash));
        iqdb *db = NULL;
        CHECK_EQ_INT(iqdb_open(s.crash, NULL, &db), IQDB_OK);
        CHECK_EQ_U64(digest_database(db), digest_database(s.db));
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        if (step == 15) CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    }
    CHECK(scene_close(&s));
    support_remove(s.folder);
}

/* Crash, recover, crash right after the recovery, recover, and so on: always the same records. */
static void recovering_again_and_again(void) {
    scene s;
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 12, 1));
    CHECK(public_copy(s.path, s.crash));
    CHECK(scene_close(&s));
    for (int round = 0; round < 12; round++) {
        iqdb *db = NULL;
        iqdb_stats stats;
        CHECK_EQ_INT(iqdb_open(s.crash, NULL, &db), IQDB_OK);
        CHECK(holds_records(db, 12));
        CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
        CHECK(stats.recovered);
        CHECK(public_copy(s.crash, s.spare));
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK(public_copy(s.spare, s.crash));
    }
    CHECK(opens_with(s.crash, 12, 4));
    support_remove(s.folder);
}

/* Every crash is followed by one write before the next crash: logs must not pile up without end. */
static void many_crashes_with_a_write_between(void) {
    scene s;
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(public_copy(s.path, s.crash));
    CHECK(scene_close(&s));
    for (uint64_t round = 0; round < 30; round++) {
        iqdb *db = NULL;
        CHECK_EQ_INT(iqdb_open(s.crash, NULL, &db), IQDB_OK);
        CHECK(holds_records(db, round));
        CHECK(write_records(db, round, round + 1, 1));
        CHECK(public_copy(s.crash, s.spare));
        CHECK(public_find(s.spare, "wal-", NULL) <= 9);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK(public_copy(s.spare, s.crash));
    }
    CHECK(opens_with(s.crash, 30, 2));
    support_remove(s.folder);
}

/* The original's A: zeros behind the log; and rubbish behind it. Nothing acknowledged is lost, and the next write works. */
static void zeros_and_rubbish_behind_the_log(void) {
    for (int variant = 0; variant < 6; variant++) {
        for (int clean = 0; clean < 2; clean++) {
            scene s;
            char wal[64], file[SUPPORT_PATH_MAX];
            scene_make(&s);
            CHECK(scene_open(&s, NULL));
            CHECK(write_records(s.db, 0, 10, 1));
            if (clean) CHECK(scene_close(&s));
            CHECK(public_copy(s.path, s.crash));
            if (!clean) CHECK(scene_close(&s));
            CHECK(public_find(s.crash, "wal-", wal) > 0);
            support_join(file, s.crash, wal);
            size_t size, tail;
            unsigned char *bytes = public_read_file(file, &size);
            unsigned char *longer = (unsigned char *)malloc(size + 65536);
            CHECK(bytes != NULL && longer != NULL);
            memset(longer, variant % 3 == 0 ? 0 : 0xFF, size + 65536);
            memcpy(longer, bytes, size);
            size_t end = size;
            for (tail = size; tail > 0 && bytes[tail - 1] == 0; tail--) {
            }
            /* Variants 3 to 5 write over what was allocated ahead: from the first sector behind the last byte. */
            if (variant >= 3) end = (tail + 4095) / 4096 * 4096;
            if (end > size) end = size;
            for (size_t i = end; variant % 3 == 2 && i < size + 65536; i++)
                longer[i] = (unsigned char)(i * 31 + i / 256);
            if (variant >= 3) {
                if (variant % 3 == 0)
                    memset(longer + end, 0, size - end);
                else if (variant % 3 == 1)
                    memset(longer + end, 0xFF, size - end);
            }
            const size_t lengths[3] = {4096, 64, 65536};
            const size_t total = variant >= 3 && end < size ? size : end + lengths[variant % 3];
            CHECK(public_write_file(file, longer, total));
            free(bytes);
            free(longer);
            CHECK(opens_with(s.crash, 10, 5));
            support_remove(s.folder);
        }
    }
}

/* The original's B: the last write, never acknowledged, is torn; what came before stays, and so does what comes after. */
static void a_torn_tail_is_cut(void) {
    scene s;
    char wal[64], file[SUPPORT_PATH_MAX];
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 10, 1));
    CHECK(write_records(s.db, 10, 11, 0)); /* no flush */
    CHECK(public_copy(s.path, s.spare));
    CHECK(scene_close(&s));
    CHECK(public_find(s.spare, "wal-", wal) > 0);
    support_join(file, s.spare, wal);
    size_t size;
    unsigned char *bytes = public_read_file(file, &size);
    const size_t at = public_find_vector(s.spare, wal, 10, 10);
    CHECK(bytes != NULL && at != (size_t)-1); /* the write has reached the file, if not the disk */
    int torn = 0;
    for (int shape = 0; shape < 3; shape++) { /* cut off; the rest zeros; the rest rubbish */
        for (size_t cut = at - 16; cut < at + 48; cut += 5) {
            iqdb *db = NULL;
            support_join(file, s.crash, wal);
            CHECK(public_copy(s.spare, s.crash));
            unsigned char *damaged = (unsigned char *)malloc(size);
            CHECK(damaged != NULL);
            memcpy(damaged, bytes, size);
            if (shape > 0) memset(damaged + cut, shape == 1 ? 0 : 0x5A, size - cut < 512 ? size - cut : 512);
            CHECK(public_write_file(file, damaged, shape == 0 ? cut : size));
            free(damaged);
            const iqdb_result result = iqdb_open(s.crash, NULL, &db);
            /* No crash makes a log shorter than META knows it was: what is missing may have been acknowledged. */
            if (shape == 0 && result == IQDB_ERR_CORRUPT) continue;
            CHECK_EQ_INT(result, IQDB_OK);
            const uint64_t count = iqdb_len(db);
            CHECK(count == 10 || (count == 11 && cut > at + 12));
            torn += count == 10;
            CHECK(holds_records(db, count));
            CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
            CHECK(public_copy(s.spare, s.crash)); /* once more, with writes behind the recovery */
            unsigned char *again = (unsigned char *)malloc(size);
            CHECK(again != NULL);
            memcpy(again, bytes, size);
            if (shape > 0) memset(again + cut, shape == 1 ? 0 : 0x5A, size - cut < 512 ? size - cut : 512);
            CHECK(public_write_file(file, again, shape == 0 ? cut : size));
            free(again);
            CHECK(opens_with(s.crash, count, 5));
        }
    }
    CHECK(torn > 20);
    free(bytes);
    support_remove(s.folder);
}

/* A batch of many frames that was never acknowledged, torn anywhere: all of it or nothing. */
static void a_torn_batch_is_all_or_nothing(void) {
    enum {
        BATCH = 12,
        TEXT = 3000
    };
    scene s;
    char wal[64], file[SUPPORT_PATH_MAX], text[TEXT];
    float vectors[BATCH][PUBLIC_DIM];
    iqdb_record records[BATCH];
    memset(text, 't', TEXT);
    const iqdb_field field = public_field("text", iqdb_text_n(text, TEXT));
    for (uint64_t i = 0; i < BATCH; i++) {
        public_vector(100 + i, 1, vectors[i]);
        records[i] = public_record(100 + i, vectors[i], PUBLIC_DIM);
        records[i].fields = &field;
        records[i].field_count = 1;
    }
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 5, 1));
    CHECK_EQ_INT(iqdb_upsert_batch(s.db, records, BATCH), IQDB_OK); /* no flush */
    CHECK(public_copy(s.path, s.spare));
    CHECK(scene_close(&s));
    CHECK(public_find(s.spare, "wal-", wal) > 0);
    support_join(file, s.spare, wal);
    size_t size, seen[2] = {0, 0};
    unsigned char *bytes = public_read_file(file, &size);
    const size_t begin = public_find_vector(s.spare, wal, 100, 1),
                 end = public_find_vector(s.spare, wal, 100 + BATCH - 1, 1);
    CHECK(bytes != NULL && begin != (size_t)-1 && end != (size_t)-1);
    support_join(file, s.crash, wal);
    for (size_t cut = begin; cut < end + 2 * TEXT && cut < size; cut += support_amount(4001, 997, 101)) {
        for (int shape = 0; shape < 3; shape++) { /* cut off; a hole of zeros; a flipped bit */
            iqdb *db = NULL;
            CHECK(public_copy(s.spare, s.crash));
            unsigned char *damaged = (unsigned char *)malloc(size);
            CHECK(damaged != NULL);
            memcpy(damaged, bytes, size);
            if (shape == 1) memset(damaged + cut, 0, size - cut < 512 ? size - cut : 512);
            if (shape == 2) damaged[cut] ^= 4;
            CHECK(public_write_file(file, damaged, shape == 0 ? cut : size));
            free(damaged);
            const iqdb_result result = iqdb_open(s.crash, NULL, &db);
            /* No crash makes a log shorter than META knows it was: what is missing may have been acknowledged. */
            if (shape == 0 && result == IQDB_ERR_CORRUPT) continue;
            CHECK_EQ_INT(result, IQDB_OK);
            CHECK(iqdb_len(db) == 5 || iqdb_len(db) == 5 + BATCH);
            seen[iqdb_len(db) > 5]++;
            for (uint64_t id = 0; id < 5; id++) CHECK(public_holds(db, id, id));
            CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
            CHECK_EQ_INT(public_store(db, 5, 5), IQDB_OK);
            CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        }
    }
    CHECK(seen[0] > 5);
    free(bytes);
    support_remove(s.folder);
}

/* ---- Damage: the original's D, E, G and H ---- */

/* A bit in an acknowledged frame: every frame of ten, the last one included. Nothing is cut, nothing is modified. */
static void a_flipped_bit_in_an_acknowledged_frame_is_reported(void) {
    for (int clean = 0; clean < 2; clean++) {
        scene s;
        char wal[64];
        scene_make(&s);
        CHECK(scene_open(&s, NULL));
        CHECK(write_records(s.db, 0, 10, 1));
        if (clean) CHECK(scene_close(&s));
        CHECK(public_copy(s.path, s.crash));
        if (!clean) CHECK(scene_close(&s));
        CHECK(public_find(s.crash, "wal-", wal) > 0);
        for (uint64_t id = 0; id < 10; id++) {
            iqdb_error error;
            const size_t at = public_find_vector(s.crash, wal, id, id);
            CHECK(at != (size_t)-1);
            CHECK(public_flip(s.crash, wal, at + 5, 0x10));
            CHECK(is_refused(s.crash, IQDB_ERR_CORRUPT, &error));
            CHECK_EQ_STR(error.file, wal);
            CHECK(error.offset <= at + 5 && error.offset + 8192 > at + 5); /* the frame, or the place itself */
            CHECK(public_flip(s.crash, wal, at + 5, 0x10));
        }
        CHECK(opens_with(s.crash, 10, 2)); /* and mended it is as good as before */
        support_remove(s.folder);
    }
}

static void a_log_cut_short(void) {
    scene s;
    char wal[64], file[SUPPORT_PATH_MAX];
    size_t size;
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 8, 1));
    CHECK(public_copy(s.path, s.spare));
    CHECK(scene_close(&s));
    CHECK(public_find(s.path, "wal-", wal) > 0);
    for (int clean = 0; clean < 2; clean++) { /* acknowledged records are missing: an error, whatever the length */
        const size_t lengths[] = {0, 5, 79, 80, 4095, 4096, 4100, 5000};
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            CHECK(public_copy(clean ? s.path : s.spare, s.crash));
            support_join(file, s.crash, wal);
            unsigned char *bytes = public_read_file(file, &size);
            CHECK(bytes != NULL && size > lengths[i]);
            CHECK(public_write_file(file, bytes, lengths[i]));
            free(bytes);
            if (!clean && lengths[i] >= 4096) continue; /* an unclean end says nothing about a log without its tail */
            CHECK(is_refused(s.crash, IQDB_ERR_CORRUPT, NULL));
        }
    }
    /* Where the log is empty and a snapshot holds everything: refused as it is, or nothing is lost. */
    iqdb_options options = iqdb_options_default();
    options.compact_on_close = true;
    CHECK(scene_open(&s, &options));
    CHECK(scene_close(&s));
    CHECK(public_find(s.path, "wal-", wal) == 1);
    for (size_t length = 0; length <= 5; length += 5) {
        iqdb *db = NULL;
        CHECK(public_copy(s.path, s.crash));
        support_join(file, s.crash, wal);
        CHECK(truncate(file, (off_t)length) == 0);
        const uint64_t before = digest_directory(s.crash);
        const iqdb_result result = iqdb_open(s.crash, NULL, &db);
        if (result == IQDB_OK) {
            CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
            CHECK(opens_with(s.crash, 8, 5));
        } else {
            CHECK_EQ_INT(result, IQDB_ERR_CORRUPT);
            CHECK_EQ_U64(digest_directory(s.crash), before);
        }
    }
    support_remove(s.folder);
}

static int copy_file(const char *from, const char *to, const char *name) {
    public_transfer transfer;
    transfer.from = from;
    transfer.to = to;
    transfer.ok = 1;
    public_copy_one(name, &transfer);
    return transfer.ok;
}

/* A log or a snapshot of another database, of the same name. */
static void a_foreign_file_is_refused(void) {
    for (int clean = 0; clean < 2; clean++) {
        scene a, b;
        char name[64];
        scene_make(&a);
        scene_make(&b);
        for (int which = 0; which < 2; which++) {
            scene *s = which == 0 ? &a : &b;
            CHECK(scene_open(s, NULL));
            CHECK(write_records(s->db, 0, 5, 1));
            CHECK_EQ_INT(iqdb_checkpoint(s->db), IQDB_OK);
            CHECK(write_records(s->db, 5, 10, 1));
            if (clean) CHECK(scene_close(s));
            CHECK(public_copy(s->path, s->spare));
            if (!clean) CHECK(scene_close(s));
        }
        const char *const prefixes[2] = {"wal-", "snap-"};
        for (int which = 0; which < 2; which++) {
            CHECK_EQ_U64(public_find(b.spare, prefixes[which], name), 1);
            char same[64];
            CHECK(public_find(a.spare, prefixes[which], same) == 1 && strcmp(same, name) == 0);
            CHECK(public_copy(a.spare, a.crash));
            CHECK(copy_file(b.spare, a.crash, name));
            iqdb_error error;
            CHECK(is_refused(a.crash, IQDB_ERR_CORRUPT, &error));
            CHECK_EQ_STR(error.file, name);
        }
        support_remove(a.folder);
        support_remove(b.folder);
    }
}

/* A log, a snapshot or META of the same database, but of an earlier day. */
static void a_stale_file_is_refused_or_harmless(void) {
    scene s;
    char name[64];
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 5, 1));
    CHECK(public_copy(s.path, s.spare)); /* the earlier day */
    CHECK(write_records(s.db, 5, 10, 1));
    CHECK(scene_close(&s));
    CHECK(public_find(s.path, "wal-", name) == 1);
    CHECK(public_copy(s.path, s.crash));
    CHECK(copy_file(s.spare, s.crash, name));
    CHECK(is_refused(s.crash, IQDB_ERR_CORRUPT, NULL)); /* META knows that the log reached farther */
    /* Without its clean mark: recovered, with all ten records of the log. */
    CHECK(public_copy(s.path, s.crash));
    CHECK(copy_file(s.spare, s.crash, "META"));
    CHECK(opens_with(s.crash, 10, 3));
    support_remove(s.folder);
}

/* The original's C: a crash between the new snapshot and the removal of the old log leaves both. */
static void an_old_log_beside_a_new_snapshot(void) {
    for (int clean = 0; clean < 2; clean++) {
        scene s;
        char name[64];
        scene_make(&s);
        CHECK(scene_open(&s, NULL));
        CHECK(write_records(s.db, 0, 10, 1));
        CHECK(public_copy(s.path, s.spare));
        CHECK(public_find(s.spare, "wal-", name) == 1);
        CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
        if (clean) CHECK(scene_close(&s));
        CHECK(public_copy(s.path, s.crash));
        if (!clean) CHECK(scene_close(&s));
        CHECK(copy_file(s.spare, s.crash, name));
        CHECK(opens_with(s.crash, 10, 5));
        support_remove(s.folder);
    }
}

static void a_missing_file_is_an_error(void) {
    for (int clean = 0; clean < 2; clean++) {
        scene s;
        char name[64], file[SUPPORT_PATH_MAX];
        scene_make(&s);
        CHECK(scene_open(&s, NULL));
        CHECK(write_records(s.db, 0, 5, 1));
        CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
        CHECK(write_records(s.db, 5, 8, 1));
        if (clean) CHECK(scene_close(&s));
        CHECK(public_copy(s.path, s.spare));
        if (!clean) CHECK(scene_close(&s));
        const char *const prefixes[3] = {"wal-", "snap-", "META"};
        for (int which = 0; which < 3; which++) {
            CHECK(public_copy(s.spare, s.crash));
            CHECK_EQ_U64(public_find(s.crash, prefixes[which], name), 1);
            support_join(file, s.crash, name);
            CHECK(unlink(file) == 0);
            iqdb_error error;
            CHECK(is_refused(s.crash, IQDB_ERR_CORRUPT, &error));
            CHECK_EQ_STR(error.file, name);
        }
        CHECK(public_copy(s.spare, s.crash)); /* but LOCK holds nothing */
        support_join(file, s.crash, "LOCK");
        unlink(file);
        CHECK(opens_with(s.crash, 8, 2));
        support_remove(s.folder);
    }
}

/* Before there was any log: three records in memory of nothing but a log that is gone. */
static void a_missing_log_is_an_error_without_a_snapshot(void) {
    scene s;
    char name[64], file[SUPPORT_PATH_MAX];
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 3, 1));
    CHECK(scene_close(&s));
    CHECK(public_find(s.path, "wal-", name) == 1);
    support_join(file, s.path, name);
    CHECK(unlink(file) == 0);
    CHECK(is_refused(s.path, IQDB_ERR_CORRUPT, NULL));
    support_remove(s.folder);
}

static void a_wrong_magic_is_damage(void) {
    scene s;
    char name[64];
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 5, 1));
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK(write_records(s.db, 5, 8, 1));
    CHECK(scene_close(&s));
    const char *const prefixes[2] = {"wal-", "snap-"};
    for (int which = 0; which < 2; which++) {
        iqdb_error error;
        CHECK(public_copy(s.path, s.crash));
        CHECK(public_find(s.crash, prefixes[which], name) == 1);
        CHECK(public_flip(s.crash, name, 0, 0xFF));
        CHECK(is_refused(s.crash, IQDB_ERR_CORRUPT, &error));
        CHECK_EQ_STR(error.file, name);
    }
    iqdb_error error;
    CHECK(public_copy(s.path, s.crash));
    CHECK(public_flip(s.crash, "META", 0, 0xFF));
    CHECK(public_flip(s.crash, "META", 4096, 0xFF));
    CHECK(is_refused(s.crash, IQDB_ERR_CORRUPT, &error));
    CHECK_EQ_STR(error.file, "META");
    support_remove(s.folder);
}

/* META has two slots, and one is enough. */
static void a_damaged_slot_of_meta_costs_nothing(void) {
    for (int clean = 0; clean < 2; clean++) {
        scene s;
        char file[SUPPORT_PATH_MAX];
        uint64_t state = 77;
        scene_make(&s);
        CHECK(scene_open(&s, NULL));
        CHECK(write_records(s.db, 0, 5, 1));
        CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
        CHECK(write_records(s.db, 5, 8, 1));
        if (clean) CHECK(scene_close(&s));
        CHECK(public_copy(s.path, s.spare));
        if (!clean) CHECK(scene_close(&s));
        for (size_t round = 0; round < 24; round++) {
            const size_t slot = round % 2 * 4096;
            CHECK(public_copy(s.spare, s.crash));
            if (round < 2) { /* the whole slot */
                unsigned char bytes[8192];
                size_t size;
                support_join(file, s.crash, "META");
                unsigned char *meta = public_read_file(file, &size);
                CHECK(meta != NULL && size == sizeof bytes);
                memcpy(bytes, meta, size);
                free(meta);
                memset(bytes + slot, 0xA5, 4096);
                CHECK(public_write_file(file, bytes, sizeof bytes));
            } else {
                CHECK(public_flip(s.crash, "META", slot + (size_t)support_random_below(&state, 4096), 0x20));
            }
            CHECK(opens_with(s.crash, 8, 2));
            /* By now the slot is mended, so that the other one may go. */
            CHECK(public_flip(s.crash, "META", 4096 - slot + 100, 0x20));
            CHECK(opens_with(s.crash, 10, 1));
        }
        CHECK(public_copy(s.spare, s.crash));
        support_join(file, s.crash, "META");
        CHECK(truncate(file, 4096) == 0); /* the second slot is gone */
        CHECK(opens_with(s.crash, 8, 2));
        CHECK(public_copy(s.spare, s.crash));
        CHECK(truncate(file, 0) == 0);
        CHECK(is_refused(s.crash, IQDB_ERR_CORRUPT, NULL));
        support_remove(s.folder);
    }
}

/* A create that was cut short left no record behind, so it is made anew. */
static void an_interrupted_create_is_made_anew(void) {
    static const unsigned char zeros[8192] = {0};
    scene s;
    char file[SUPPORT_PATH_MAX];
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(public_copy(s.path, s.spare));
    CHECK(scene_close(&s));
    for (int variant = 0; variant < 5; variant++) {
        CHECK(public_copy(s.spare, s.crash));
        support_join(file, s.crash, "META");
        if (variant == 0) CHECK(unlink(file) == 0);
        if (variant == 1) CHECK(public_write_file(file, zeros, sizeof zeros));
        if (variant == 2) CHECK(public_write_file(file, zeros, 0));
        if (variant == 3) CHECK(public_write_file(file, "rubbish", 7));
        if (variant == 4) { /* only LOCK is there */
            char wal[64];
            CHECK(unlink(file) == 0 && public_find(s.crash, "wal-", wal) == 1);
            support_join(file, s.crash, wal);
            CHECK(unlink(file) == 0);
        }
        CHECK(opens_with(s.crash, 0, 3));
    }
    support_remove(s.folder);
}

/* Bytes all over every file, one at a time, in three ways: an error, or the answers of before. Never anything else. */
static void rot_is_an_error_or_costs_nothing(void) {
    scene s;
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 12, 1));
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK(write_records(s.db, 12, 20, 1));
    CHECK_EQ_INT(iqdb_delete(s.db, 3, NULL), IQDB_OK);
    const uint64_t digest = digest_database(s.db);
    CHECK(scene_close(&s));
    const char *const prefixes[3] = {"META", "wal-", "snap-"};
    long refused[3] = {0, 0, 0}, harmless[3] = {0, 0, 0};
    const size_t stride = support_amount(401, 23, 3);
    iqdb_options options = iqdb_options_default();
    iqdb_error error;
    options.read_only = true; /* writes nothing, so that putting the byte back mends everything */
    options.error = &error;
    for (int which = 0; which < 3; which++) {
        char name[64], file[SUPPORT_PATH_MAX];
        size_t size;
        CHECK(public_find(s.path, prefixes[which], name) == 1);
        support_join(file, s.path, name);
        unsigned char *bytes = public_read_file(file, &size);
        CHECK(bytes != NULL);
        FILE *open_file = fopen(file, "r+b");
        CHECK(open_file != NULL);
        for (size_t at = 0; at < size; at += stride) {
            const unsigned char good = bytes[at];
            unsigned char bad = (unsigned char)(at % 3 == 0 ? good ^ (1u << at % 8) : at % 3 == 1 ? 0 : 0xFF);
            if (bad == good) bad = (unsigned char)(good ^ 0x40);
            iqdb *db = NULL;
            CHECK(fseek(open_file, (long)at, SEEK_SET) == 0 && fputc(bad, open_file) == bad && fflush(open_file) == 0);
            memset(&error, 0, sizeof error);
            const iqdb_result result = iqdb_open(s.path, &options, &db);
            if (result == IQDB_OK) {
                harmless[which]++;
                if (!EXPECT(digest_database(db) == digest))
                    printf("\n      ... %s, byte %zu of %zu: silently other records", name, at, size);
                CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
            } else {
                refused[which]++;
                if (!EXPECT(result == IQDB_ERR_CORRUPT) || !EXPECT(strcmp(error.file, name) == 0))
                    printf("\n      ... %s, byte %zu of %zu: %s in %s", name, at, size, iqdb_strerror(result),
                           error.file);
            }
            CHECK(fseek(open_file, (long)at, SEEK_SET) == 0 && fputc(good, open_file) == good &&
                  fflush(open_file) == 0);
        }
        fclose(open_file);
        free(bytes);
    }
    CHECK_EQ_INT(refused[0], 0); /* one slot of META is enough */
    CHECK(refused[1] > 0 && refused[2] > 0);
    CHECK_EQ_INT(harmless[2], 0); /* every byte of a snapshot counts */
    CHECK(scene_open(&s, NULL));  /* all is as it was */
    CHECK_EQ_U64(digest_database(s.db), digest);
    CHECK(scene_close(&s));
    support_remove(s.folder);
}

/* ---- Read-only ---- */

static void read_only_writes_nothing(void) {
    for (int clean = 0; clean < 2; clean++) {
        scene s;
        scene_make(&s);
        CHECK(scene_open(&s, NULL));
        CHECK(write_records(s.db, 0, 5, 1));
        CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
        CHECK(write_records(s.db, 5, 8, 1));
        if (clean) CHECK(scene_close(&s));
        CHECK(public_copy(s.path, s.crash));
        if (!clean) CHECK(scene_close(&s));
        const uint64_t before = digest_directory(s.crash);
        iqdb_options options = iqdb_options_default();
        options.read_only = true;
        options.compact_on_close = true; /* even so */
        for (int round = 0; round < 2; round++) {
            iqdb *db = NULL;
            iqdb_stats stats;
            CHECK_EQ_INT(iqdb_open(s.crash, &options, &db), IQDB_OK);
            CHECK(holds_records(db, 8));
            CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
            CHECK(stats.read_only);
            CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
            CHECK_EQ_INT(public_store(db, 8, 8), IQDB_ERR_READONLY);
            CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
            CHECK_EQ_U64(digest_directory(s.crash), before);
        }
        CHECK(opens_with(s.crash, 8, 2));
        support_remove(s.folder);
    }
}

/* ---- Verify ---- */

typedef struct findings {
    int count;
    iqdb_error first;
    int bad;
} findings;

static void collect(const iqdb_error *finding, void *user) {
    findings *f = (findings *)user;
    if (f->count++ == 0) f->first = *finding;
    if (finding->code == IQDB_OK || finding->text[0] == 0) f->bad++;
}

static void verify_names_the_damage(void) {
    scene s;
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 40, 0));
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK(write_records(s.db, 40, 60, 1));
    CHECK_EQ_INT(public_store(s.db, 60, 60), IQDB_OK); /* not flushed */
    const iqdb_depth depths[4] = {IQDB_DEPTH_DEFAULT, IQDB_DEPTH_FRAMES, IQDB_DEPTH_BLOCKS, IQDB_DEPTH_RECORDS};
    findings f;
    for (int d = 0; d < 4; d++) {
        memset(&f, 0, sizeof f);
        CHECK_EQ_INT(iqdb_verify(s.db, depths[d], collect, &f), IQDB_OK);
        CHECK_EQ_INT(f.count, 0);
    }
    char name[64];
    struct place {
        const char *prefix;
        size_t at;
        int from_depth; /* 1: FRAMES finds it, 2: BLOCKS */
    } places[4];
    places[0].prefix = "META";
    places[0].at = 20;
    places[0].from_depth = 1;
    places[1].prefix = "wal-";
    CHECK(public_find(s.path, "wal-", name) == 1);
    places[1].at = public_find_vector(s.path, name, 45, 45);
    places[1].from_depth = 1;
    places[2].prefix = "snap-";
    CHECK(public_find(s.path, "snap-", name) == 1);
    places[2].at = public_find_vector(s.path, name, 17, 17);
    places[2].from_depth = 2;
    places[3].prefix = "snap-";
    places[3].at = 3; /* its header */
    places[3].from_depth = 1;
    for (int p = 0; p < 4; p++) {
        CHECK(public_find(s.path, places[p].prefix, name) == 1);
        CHECK(places[p].at != (size_t)-1);
        CHECK(public_flip(s.path, name, places[p].at, 0x08));
        const uint64_t before = digest_directory(s.path);
        for (int d = 0; d < 4; d++) {
            const int depth = depths[d] == IQDB_DEPTH_DEFAULT ? 3 : (int)depths[d];
            memset(&f, 0, sizeof f);
            const iqdb_result result = iqdb_verify(s.db, depths[d], collect, &f);
            CHECK_EQ_INT(iqdb_verify(s.db, depths[d], NULL, NULL), result);
            if (depth < places[p].from_depth) continue; /* may find it, need not */
            CHECK_EQ_INT(result, IQDB_ERR_CORRUPT);
            CHECK(f.count >= 1);
            CHECK_EQ_INT(f.bad, 0);
            CHECK_EQ_INT(f.first.code, IQDB_ERR_CORRUPT);
            CHECK_EQ_STR(f.first.file, name);
            CHECK(f.first.offset <= places[p].at && f.first.offset + 16384 > places[p].at);
        }
        CHECK_EQ_U64(digest_directory(s.path), before); /* changes nothing */
        CHECK(holds_records(s.db, 61));                 /* and the handle lives on, from memory */
        CHECK(public_flip(s.path, name, places[p].at, 0x08));
        CHECK_EQ_INT(iqdb_verify(s.db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
    }
    /* A file that is gone. */
    char file[SUPPORT_PATH_MAX], aside[SUPPORT_PATH_MAX];
    CHECK(public_find(s.path, "snap-", name) == 1);
    support_join(file, s.path, name);
    support_join(aside, s.folder, "aside");
    CHECK(rename(file, aside) == 0);
    memset(&f, 0, sizeof f);
    CHECK_EQ_INT(iqdb_verify(s.db, IQDB_DEPTH_BLOCKS, collect, &f), IQDB_ERR_CORRUPT);
    CHECK_EQ_STR(f.first.file, name);
    CHECK(rename(aside, file) == 0);
    CHECK_EQ_INT(iqdb_verify(s.db, IQDB_DEPTH_BLOCKS, collect, &f), IQDB_OK);
    CHECK(scene_close(&s));
    CHECK(opens_with(s.path, 61, 2));
    support_remove(s.folder);
}

static void verify_at_open(void) {
    scene s;
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 20, 0));
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK(write_records(s.db, 20, 30, 0));
    CHECK(scene_close(&s));
    const iqdb_depth depths[4] = {IQDB_DEPTH_DEFAULT, IQDB_DEPTH_FRAMES, IQDB_DEPTH_BLOCKS, IQDB_DEPTH_RECORDS};
    for (int d = 0; d < 4; d++) {
        iqdb_options options = iqdb_options_default();
        options.verify = depths[d];
        CHECK(scene_open(&s, &options));
        CHECK(holds_records(s.db, 30));
        CHECK(scene_close(&s));
    }
    iqdb *memory = NULL;
    CHECK_EQ_INT(iqdb_open_in_memory(NULL, &memory), IQDB_OK);
    CHECK(write_records(memory, 0, 20, 0));
    for (int d = 0; d < 4; d++) CHECK_EQ_INT(iqdb_verify(memory, depths[d], NULL, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(memory), IQDB_OK);
    support_remove(s.folder);
}

/* ---- Newer formats ---- */

static uint32_t zip_crc(uint32_t crc, const unsigned char *bytes, size_t size) {
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

/* META, as its table says: slots of 4,096 bytes, the CRC at 8 of all the rest, version at 12, required features at 40. */
static int change_meta(const char *path, size_t field, uint32_t value) {
    char file[SUPPORT_PATH_MAX];
    size_t size;
    support_join(file, path, "META");
    unsigned char *bytes = public_read_file(file, &size);
    if (!EXPECT(bytes != NULL && size == 8192)) return 0;
    for (size_t slot = 0; slot < 2; slot++) {
        unsigned char *at = bytes + slot * 4096;
        uint32_t crc = zip_crc(zip_crc(0, at, 8), at + 12, 4084);
        if (!EXPECT(at[8] == (crc & 255) && at[9] == (crc >> 8 & 255) && at[10] == (crc >> 16 & 255) &&
                    at[11] == crc >> 24))
            return 0; /* the table is out of date */
        for (int i = 0; i < 4; i++) at[field + (size_t)i] = (unsigned char)(value >> 8 * i);
        crc = zip_crc(zip_crc(0, at, 8), at + 12, 4084);
        for (int i = 0; i < 4; i++) at[8 + i] = (unsigned char)(crc >> 8 * i);
    }
    const int ok = public_write_file(file, bytes, size);
    free(bytes);
    return ok;
}

static void a_newer_format_is_refused(void) {
    scene s;
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 3, 1));
    CHECK(scene_close(&s));
    CHECK(public_copy(s.path, s.crash));
    CHECK(change_meta(s.crash, 12, IQDB_FORMAT_VERSION + 1));
    CHECK(is_refused(s.crash, IQDB_ERR_VERSION, NULL));
    CHECK(public_copy(s.path, s.crash));
    CHECK(change_meta(s.crash, 12, 0xffffffffu));
    CHECK(is_refused(s.crash, IQDB_ERR_VERSION, NULL));
    CHECK(public_copy(s.path, s.crash));
    CHECK(change_meta(s.crash, 40, 0x80000000u)); /* a feature that a reader must know */
    CHECK(is_refused(s.crash, IQDB_ERR_VERSION, NULL));
    CHECK(public_copy(s.path, s.crash));
    CHECK(change_meta(s.crash, 44, 0x80000000u)); /* one that it may ignore */
    CHECK(opens_with(s.crash, 3, 2));
    support_remove(s.folder);
}

/* ---- Lies whose checksums are right ---- */

static void put_number(unsigned char *at, uint32_t value) {
    for (int i = 0; i < 4; i++) at[i] = (unsigned char)(value >> 8 * i);
}

static uint32_t get_number(const unsigned char *at) {
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Computes every checksum of a snapshot anew, up to the one in META: blocks of 8 KiB, a table of their CRCs, the CRCs of
 * the table's blocks, a footer of 64 bytes whose CRC at 8 stands in META's entry of 40 bytes at 256, 24 bytes in. */
static int forge_snapshot(const char *path, const char *name, unsigned char *bytes, size_t size) {
    char file[SUPPORT_PATH_MAX];
    unsigned char *footer = bytes + size - 64;
    const size_t blocks = get_number(footer + 40), tables = (blocks * 4 + 8191) / 8192;
    unsigned char *table = bytes + blocks * 8192, *roots = table + tables * 8192;
    if (!EXPECT((size_t)(footer - roots) == (tables * 4 + 63) / 64 * 64)) return 0; /* the tables are out of date */
    for (size_t i = 0; i < blocks; i++) put_number(table + i * 4, zip_crc(0, bytes + i * 8192, 8192));
    for (size_t i = 0; i < tables; i++) put_number(roots + i * 4, zip_crc(0, table + i * 8192, 8192));
    put_number(footer + 60, zip_crc(0, roots, (size_t)(footer - roots)));
    const uint32_t crc = zip_crc(zip_crc(0, footer, 8), footer + 12, 52);
    put_number(footer + 8, crc);
    support_join(file, path, name);
    return EXPECT(public_write_file(file, bytes, size)) && change_meta(path, 256 + 24, crc);
}

/* Nobody but a forger makes such files, and verify at depth RECORDS sees even that: a vector with NaN, a text that is not
 * UTF-8. An open that goes less deep may see it or not; it never crashes. */
static void forged_records_are_found(void) {
    scene s;
    char name[64], file[SUPPORT_PATH_MAX];
    float vector[PUBLIC_DIM];
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 30, 0));
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK(scene_close(&s));
    CHECK(public_find(s.path, "snap-", name) == 1);
    support_join(file, s.path, name);
    size_t size;
    unsigned char *good = public_read_file(file, &size);
    CHECK(good != NULL);
    for (int lie = 0; lie < 3; lie++) {
        unsigned char *bytes = (unsigned char *)malloc(size);
        CHECK(bytes != NULL);
        memcpy(bytes, good, size);
        public_vector(13, 13, vector);
        size_t at = lie == 2 ? public_find_bytes(bytes, size, 0, "odd", 4)
                             : public_find_bytes(bytes, size, 0, vector, sizeof vector);
        CHECK(at != (size_t)-1);
        if (lie == 1) put_number(bytes + at + 4, 0x7fc00000u); /* NaN */
        if (lie == 2) bytes[at] = 0xff;
        CHECK(public_copy(s.path, s.crash));
        CHECK(forge_snapshot(s.crash, name, bytes, size));
        free(bytes);
        if (lie == 0) { /* nothing but the checksums is new, and they are as they were */
            CHECK_EQ_U64(digest_directory(s.crash), digest_directory(s.path));
            continue;
        }
        for (int deep = 0; deep < 2; deep++) {
            iqdb *db = NULL;
            iqdb_error error;
            iqdb_options options = iqdb_options_default();
            memset(&error, 0, sizeof error);
            options.verify = deep ? IQDB_DEPTH_RECORDS : IQDB_DEPTH_DEFAULT;
            options.read_only = true;
            options.error = &error;
            const iqdb_result result = iqdb_open(s.crash, &options, &db);
            CHECK(result == IQDB_ERR_CORRUPT || (result == IQDB_OK && !deep));
            if (result == IQDB_ERR_CORRUPT) CHECK(error.code == IQDB_ERR_CORRUPT && error.text[0] != 0);
            if (result == IQDB_OK) {
                findings f;
                memset(&f, 0, sizeof f);
                CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_BLOCKS, collect, &f), IQDB_OK);
                CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, collect, &f), IQDB_ERR_CORRUPT);
                CHECK(f.count >= 1 && f.bad == 0 && f.first.code == IQDB_ERR_CORRUPT);
                CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
            }
        }
    }
    free(good);
    support_remove(s.folder);
}

/* ---- Facts about files ---- */

typedef struct sizes {
    const char *folder;
    uint64_t logs, snapshots;
} sizes;

static void add_size(const char *name, void *user) {
    sizes *z = (sizes *)user;
    char path[SUPPORT_PATH_MAX];
    struct stat info;
    support_join(path, z->folder, name);
    if (stat(path, &info) != 0) return;
    if (strncmp(name, "wal-", 4) == 0) z->logs += (uint64_t)info.st_size;
    if (strncmp(name, "snap-", 5) == 0) z->snapshots += (uint64_t)info.st_size;
}

static void statistics_tell_the_sizes_of_files(void) {
    scene s;
    scene_make(&s);
    for (uint64_t round = 0; round < 6; round++) {
        iqdb_stats stats;
        sizes z;
        CHECK(scene_open(&s, NULL));
        CHECK(write_records(s.db, round * 300, round * 300 + 300, 0));
        if (round % 2 == 1) CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
        memset(&z, 0, sizeof z);
        z.folder = s.path;
        CHECK(public_list(s.path, add_size, &z));
        CHECK_EQ_INT(iqdb_stat(s.db, &stats), IQDB_OK);
        CHECK_EQ_U64(stats.log_bytes, z.logs);
        CHECK_EQ_U64(stats.snapshot_bytes, z.snapshots);
        CHECK_EQ_U64(stats.records, round * 300 + 300);
        CHECK(stats.vector_bytes >= stats.records * PUBLIC_DIM * sizeof(float));
        CHECK(stats.payload_bytes > 0 && stats.lookup_bytes >= stats.records * 4);
        CHECK(stats.applied_lsn <= stats.durable_lsn && stats.durable_lsn <= stats.last_lsn);
        CHECK_EQ_INT(iqdb_flush(s.db), IQDB_OK);
        CHECK_EQ_INT(iqdb_stat(s.db, &stats), IQDB_OK);
        CHECK_EQ_U64(stats.durable_lsn, stats.last_lsn);
        CHECK(scene_close(&s));
    }
    support_remove(s.folder);
}

/* The same operations and the same entropy make the same files, whatever stood in memory before: nothing of the heap
 * gets into a file. */
static void the_same_entropy_makes_the_same_files(void) {
    scene s;
    uint64_t digests[2][3];
    scene_make(&s);
    for (int round = 0; round < 2; round++) {
        uint64_t entropy_state = 7;
        support_heap heap = support_heap_make();
        iqdb_options options = iqdb_options_default();
        options.entropy = public_entropy(&entropy_state);
        options.files = public_quick_files();
        if (round == 1) options.allocator = support_allocator(&heap);
        support_remove(s.path);
        CHECK(scene_open(&s, &options));
        CHECK(write_records(s.db, 0, 50, 0));
        CHECK(write_records(s.db, 50, 60, 1));
        CHECK_EQ_INT(iqdb_delete(s.db, 7, NULL), IQDB_OK);
        CHECK_EQ_INT(iqdb_flush(s.db), IQDB_OK);
        digests[round][0] = digest_directory(s.path);
        CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
        digests[round][1] = digest_directory(s.path);
        CHECK_EQ_INT(public_store(s.db, 7, 8), IQDB_OK);
        CHECK(scene_close(&s));
        digests[round][2] = digest_directory(s.path);
        CHECK_EQ_U64(support_heap_problems(&heap), 0);
    }
    for (int i = 0; i < 3; i++) CHECK_EQ_U64(digests[1][i], digests[0][i]);
    support_remove(s.folder);
}

static bool no_entropy(void *bytes, size_t size, void *user) {
    (void)bytes;
    (void)size;
    (void)user;
    return false;
}

/* Without entropy there is no new database, and nothing left that would stand in the way of one. */
static void without_entropy(void) {
    scene s;
    iqdb_error error;
    support_heap heap = support_heap_make();
    iqdb_options options = iqdb_options_default();
    memset(&error, 0, sizeof error);
    scene_make(&s);
    options.entropy.fill_fn = no_entropy;
    options.error = &error;
    options.allocator = support_allocator(&heap);
    s.db = (iqdb *)(void *)&s;
    const iqdb_result result = iqdb_open(s.path, &options, &s.db);
    CHECK(result != IQDB_OK);
    CHECK(s.db == NULL);
    CHECK_EQ_INT(error.code, result);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
    CHECK(opens_with(s.path, 0, 3));
    support_remove(s.folder);
}

/* ---- The system around it ---- */

static void files_of_others_stay(void) {
    scene s;
    char file[SUPPORT_PATH_MAX];
    size_t size;
    scene_make(&s);
    CHECK(mkdir(s.path, 0700) == 0);
    support_join(file, s.path, "notes.txt");
    CHECK(public_write_file(file, "mine", 4));
    iqdb_options options = iqdb_options_default();
    options.compact_on_close = true;
    CHECK(scene_open(&s, &options));
    CHECK(write_records(s.db, 0, 5, 1));
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK(scene_close(&s));
    CHECK(opens_with(s.path, 5, 2));
    unsigned char *bytes = public_read_file(file, &size);
    CHECK(size == 4 && memcmp(bytes, "mine", 4) == 0);
    free(bytes);
    support_remove(s.folder);
}

/* A link or a pipe under one of our names is not followed and not waited for. */
static void links_and_pipes_are_refused(void) {
    SUPPORT_NEEDS_POSIX;
    scene s;
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 3, 1));
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK(scene_close(&s));
    const char *const prefixes[4] = {"META", "wal-", "snap-", "LOCK"};
    for (int which = 0; which < 4; which++) {
        for (int pipe = 0; pipe < 2; pipe++) {
            char name[64], file[SUPPORT_PATH_MAX], aside[SUPPORT_PATH_MAX];
            CHECK(public_copy(s.path, s.crash));
            CHECK(public_find(s.crash, prefixes[which], name) == 1);
            support_join(file, s.crash, name);
            support_join(aside, s.folder, "aside");
            CHECK(rename(file, aside) == 0);
            CHECK(pipe ? mkfifo(file, 0600) == 0 : symlink(aside, file) == 0);
            for (int read_only = 0; read_only < 2; read_only++) {
                iqdb *db = NULL;
                iqdb_options options = iqdb_options_default();
                options.read_only = read_only != 0;
                const iqdb_result result = iqdb_open(s.crash, &options, &db);
                const bool needs_it = which < 3 || read_only == 0; /* who only reads takes no lock */
                if (!EXPECT(result == (needs_it ? IQDB_ERR_IO : IQDB_OK)) || !EXPECT((db == NULL) == needs_it))
                    printf("\n      ... %s as a %s: %s", name, pipe ? "pipe" : "link", iqdb_strerror(result));
                CHECK(db == NULL || iqdb_close(db) == IQDB_OK);
            }
            CHECK(unlink(file) == 0);
            CHECK(unlink(aside) == 0);
        }
    }
    support_remove(s.folder);
}

static void count_one(const char *name, void *user) {
    (void)name;
    ++*(int *)user;
}

static int open_descriptors(void) {
    int count = 0;
    return public_list("/proc/self/fd", count_one, &count) ? count : -1;
}

static void no_descriptor_is_left_open(void) {
    scene s;
    char wal[64];
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 5, 1));
    CHECK(public_copy(s.path, s.crash));
    CHECK(public_copy(s.path, s.spare));
    CHECK(scene_close(&s));
    CHECK(public_find(s.crash, "wal-", wal) == 1);
    CHECK(public_flip(s.crash, wal, public_find_vector(s.crash, wal, 1, 1), 1));
    const int before = open_descriptors();
    if (before < 0) TEST_SKIP("this system does not list a process's descriptors");
    for (int round = 0; round < 20; round++) {
        iqdb *db = NULL, *second = NULL;
        iqdb_options options = iqdb_options_default();
        options.read_only = round % 4 == 3;
        options.compact_on_close = round % 4 == 1;
        CHECK_EQ_INT(iqdb_open(s.crash, &options, &db), IQDB_ERR_CORRUPT);
        CHECK_EQ_INT(iqdb_open(s.spare, &options, &db), IQDB_OK);
        if (!options.read_only) CHECK_EQ_INT(iqdb_open(s.spare, &options, &second), IQDB_ERR_LOCKED);
        if (round % 4 == 0) CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
    CHECK_EQ_INT(open_descriptors(), before);
    support_remove(s.folder);
}

/* A child inherits the handle, but not the right to write through it; its end disturbs nothing. */
static void a_forked_child_reads_and_does_not_write(void) {
    SUPPORT_NEEDS_POSIX;
    scene s;
    scene_make(&s);
    CHECK(scene_open(&s, NULL));
    CHECK(write_records(s.db, 0, 5, 1));
    fflush(stdout);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int problems = 0;
        if (!public_holds(s.db, 3, 3) || iqdb_len(s.db) != 5) problems |= 1;
        if (public_store(s.db, 100, 1) != IQDB_ERR_LOCKED) problems |= 2;
        if (iqdb_checkpoint(s.db) != IQDB_ERR_LOCKED) problems |= 4;
        if (iqdb_delete(s.db, 1, NULL) != IQDB_ERR_LOCKED) problems |= 8;
        (void)iqdb_close(s.db);
        _exit(problems);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK_EQ_INT(WEXITSTATUS(status), 0);
    iqdb *second = NULL;
    CHECK_EQ_INT(iqdb_open(s.path, NULL, &second), IQDB_ERR_LOCKED); /* the lock is still the parent's */
    CHECK(write_records(s.db, 5, 10, 1));
    CHECK(public_copy(s.path, s.crash));
    CHECK(opens_with(s.crash, 10, 0));
    CHECK(scene_close(&s));
    CHECK(opens_with(s.path, 10, 1));
    support_remove(s.folder);
}

/* Killed while it writes: whatever the child said was durable is there. */
static void a_killed_writer_loses_nothing_durable(void) {
    SUPPORT_NEEDS_POSIX;
    scene s;
    scene_make(&s);
    for (int round = 0; round < (int)support_amount(2, 4, 60); round++) {
        int said[2];
        CHECK(pipe(said) == 0);
        fflush(stdout);
        const pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            iqdb *db = NULL;
            iqdb_options options = iqdb_options_default();
            options.sync = round % 2 == 0 ? IQDB_SYNC_EACH : IQDB_SYNC_FLUSH;
            if (iqdb_open(s.path, &options, &db) != IQDB_OK) _exit(1);
            for (uint64_t id = iqdb_len(db);; id++) {
                if (public_store(db, id, id) != IQDB_OK) _exit(2);
                if (round % 2 == 1 && iqdb_flush(db) != IQDB_OK) _exit(3);
                if (write(said[1], &id, sizeof id) != (ssize_t)sizeof id) _exit(4);
                if (id % 50 == 49 && iqdb_checkpoint(db) != IQDB_OK) _exit(5);
            }
        }
        close(said[1]);
        uint64_t last = 0, id = 0;
        for (int i = 0; i < 60 + round * 7 && read(said[0], &id, sizeof id) == (ssize_t)sizeof id; i++) last = id;
        CHECK(kill(child, SIGKILL) == 0);
        while (read(said[0], &id, sizeof id) == (ssize_t)sizeof id) last = id;
        close(said[0]);
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFSIGNALED(status));
        CHECK(scene_open(&s, NULL));
        CHECK(iqdb_len(s.db) >= last + 1);
        CHECK(holds_records(s.db, iqdb_len(s.db)));
        CHECK(scene_close(&s));
    }
    support_remove(s.folder);
}

TEST_MAIN("api/persistence", TEST(a_fresh_directory_below_fresh_ones), TEST(a_plain_relative_name),
          TEST(records_survive_closing), TEST(three_sessions), TEST(cycles_of_opening_and_closing),
          TEST(all_of_a_record_survives), TEST(the_longest_vector_survives), TEST(many_records_survive),
          TEST(an_empty_database_stays_one), TEST(dimension_and_metric_are_kept), TEST(two_databases_are_told_apart),
          TEST(a_checkpoint_leaves_one_snapshot_and_one_log), TEST(compact_on_close_leaves_a_snapshot_and_an_empty_log),
          TEST(a_checkpoint_beside_an_iterator), TEST(what_was_flushed_survives_a_crash),
          TEST(what_was_not_flushed_leaves_a_prefix), TEST(sync_each_makes_every_write_durable),
          TEST(sync_periodic_makes_old_writes_durable), TEST(recovering_again_and_again),
          TEST(many_crashes_with_a_write_between), TEST(zeros_and_rubbish_behind_the_log), TEST(a_torn_tail_is_cut),
          TEST(a_torn_batch_is_all_or_nothing), TEST(a_flipped_bit_in_an_acknowledged_frame_is_reported),
          TEST(a_log_cut_short), TEST(a_foreign_file_is_refused), TEST(a_stale_file_is_refused_or_harmless),
          TEST(an_old_log_beside_a_new_snapshot), TEST(a_missing_file_is_an_error),
          TEST(a_missing_log_is_an_error_without_a_snapshot), TEST(a_wrong_magic_is_damage),
          TEST(a_damaged_slot_of_meta_costs_nothing), TEST(an_interrupted_create_is_made_anew),
          TEST(rot_is_an_error_or_costs_nothing), TEST(read_only_writes_nothing), TEST(verify_names_the_damage),
          TEST(verify_at_open), TEST(a_newer_format_is_refused), TEST(forged_records_are_found),
          TEST(statistics_tell_the_sizes_of_files), TEST(the_same_entropy_makes_the_same_files), TEST(without_entropy),
          TEST(files_of_others_stay), TEST(links_and_pipes_are_refused), TEST(no_descriptor_is_left_open),
          TEST(a_forked_child_reads_and_does_not_write), TEST(a_killed_writer_loses_nothing_durable))
