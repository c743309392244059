/* The committed databases are read, and what writes them today makes the same bytes. */
#include "api.h"
#include "codec/payload.h"
#include "golden.h"
#include "support.h"
#include "sys/memory.h"
#include "sys/sys.h"
#include "test.h"

static const char *const golden_path[2] = {"tests/format/golden/v1-log", "tests/format/golden/v1-snapshot"};

/* Every record as golden.h says, and no other. */
static void check_contents(iqdb *db) {
    const iqdb_allocator memory = iq_alloc_default();
    iqdb_buffer buffer = iqdb_buffer_default();
    size_t live = 0;
    for (int i = 0; i < GOLDEN_RECORDS; i++) {
        golden_record expected;
        iqdb_record seen;
        golden_fill(&expected, i, golden_fate(i) == 2);
        const iqdb_result result = iqdb_get(db, expected.record.id, &buffer, &seen);
        CHECK_EQ_INT(result, golden_fate(i) == 0 ? IQDB_ERR_NOT_FOUND : IQDB_OK);
        if (result != IQDB_OK) continue;
        live++;
        CHECK_EQ_U64(seen.dim, GOLDEN_DIM);
        CHECK_MEM(seen.vector, expected.vector, sizeof expected.vector);
        CHECK_EQ_INT(seen.payload.bytes != NULL, expected.record.fields != NULL);
        if (expected.record.fields == NULL) continue;
        iq_blob encoded = {&memory, NULL, 0, 0};
        CHECK_EQ_INT(iq_payload_encode(expected.record.fields, expected.record.field_count, &encoded), IQDB_OK);
        CHECK_EQ_U64(seen.payload.size, encoded.size);
        CHECK_MEM(seen.payload.bytes, encoded.bytes, encoded.size);
        iq_blob_free(&encoded);
    }
    CHECK_EQ_U64(iqdb_len(db), live);
    iqdb_buffer_free(&buffer);
}

static void are_read(void) {
    for (int which = 0; which < 2; which++) {
        iqdb_options options = iqdb_options_default();
        iqdb_stats stats;
        iqdb *db;
        options.read_only = true;
        options.verify = IQDB_DEPTH_RECORDS;
        CHECK_EQ_INT(iqdb_open(golden_path[which], &options, &db), IQDB_OK);
        check_contents(db);
        CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
        CHECK_EQ_INT(stats.metric, which == 0 ? IQDB_COSINE : IQDB_L2);
        CHECK(!stats.recovered && (stats.snapshot_bytes > 0) == (which == 1));
        CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
}

typedef struct comparison {
    const iqdb_files *files[2];
    void *dirs[2];
    size_t compared;
} comparison;

static uint8_t *load(const iqdb_files *files, void *dir, const char *name, size_t *out_size) {
    void *file;
    uint64_t size = 0;
    int os_code;
    *out_size = 0;
    if (files->open_fn(dir, name, IQDB_OPEN_READ, &file, &os_code, files->user) != IQDB_OK) return NULL;
    (void)files->size_fn(file, &size, &os_code, files->user);
    uint8_t *bytes = (uint8_t *)malloc((size_t)size + 1);
    (void)files->read_fn(file, 0, bytes, (size_t)size, out_size, &os_code, files->user);
    files->close_fn(file, files->user);
    return bytes;
}

static void compare_file(const char *name, void *user) {
    comparison *both = (comparison *)user;
    if (strcmp(name, "ballast") == 0) return; /* room on the disk, of no contents */
    size_t size[2];
    uint8_t *bytes[2];
    for (int k = 0; k < 2; k++) {
        bytes[k] = load(both->files[k], both->dirs[k], name, &size[k]);
        CHECK(bytes[k] != NULL);
    }
    CHECK_EQ_U64(size[1], size[0]);
    CHECK_MEM(bytes[1], bytes[0], size[0]);
    free(bytes[0]);
    free(bytes[1]);
    both->compared++;
}

static void are_written_the_same(void) {
    const iqdb_files system = iqdb_files_default();
    for (int which = 0; which < 2; which++) {
        iqdb_allocator memory = iq_alloc_default();
        iq_memory_files *set = iq_memory_files_new(&memory);
        const iqdb_files files = iq_memory_files_table(set);
        comparison both;
        int os_code;
        CHECK_EQ_INT(golden_write("db", &files, which == 1), IQDB_OK);
        both.files[0] = &system;
        both.files[1] = &files;
        both.compared = 0;
        CHECK_EQ_INT(system.dir_open_fn(golden_path[which], false, &both.dirs[0], &os_code, NULL), IQDB_OK);
        CHECK_EQ_INT(files.dir_open_fn("db", false, &both.dirs[1], &os_code, files.user), IQDB_OK);
        CHECK_EQ_INT(system.dir_list_fn(both.dirs[0], compare_file, &both, &os_code, NULL), IQDB_OK);
        CHECK_EQ_U64(both.compared, which == 1 ? 4 : 3);
        both.compared = 0;
        CHECK_EQ_INT(files.dir_list_fn(both.dirs[1], compare_file, &both, &os_code, files.user), IQDB_OK);
        CHECK_EQ_U64(both.compared, which == 1 ? 4 : 3);
        system.dir_close_fn(both.dirs[0], NULL);
        files.dir_close_fn(both.dirs[1], files.user);
        iq_memory_files_free(set);
    }
}

TEST_MAIN("format/golden", TEST(are_read), TEST(are_written_the_same))
