/* options.model: the tag that a database is given first stays, whatever becomes of its files and copies, and who names
 * another one is refused, and told both. */
#include "public.h"

enum {
    TAG_MAX = IQDB_MODEL_SIZE_MAX
};

static iqdb_options named(const char *model, iqdb_error *error) {
    iqdb_options options = iqdb_options_default();
    options.files = public_quick_files();
    options.model = model;
    options.error = error;
    return options;
}

static bool has_model(const iqdb *db, const char *model) {
    iqdb_stats stats;
    return EXPECT(iqdb_stat(db, &stats) == IQDB_OK) && EXPECT(strcmp(stats.model, model) == 0);
}

static bool says(const char *path, const char *model) {
    iqdb_stats stats;
    return EXPECT(iqdb_inspect(path, &stats) == IQDB_OK) && EXPECT(strcmp(stats.model, model) == 0);
}

/* The directory has the tag, for readers and writers that name it or none, and others are refused. */
static bool keeps(const char *path, const char *model) {
    const char *const asked[] = {NULL, "", model};
    bool ok = says(path, model);
    for (size_t i = 0; i < 6 && ok; i++) {
        iqdb_error error;
        iqdb_options options = named(asked[i / 2], &error), other = named("another one", &error);
        iqdb *db = NULL;
        options.read_only = other.read_only = i % 2 == 0;
        ok = EXPECT(iqdb_open(path, &other, &db) == IQDB_ERR_INVALID_CONFIG) && strstr(error.text, model) != NULL &&
             EXPECT(strstr(error.text, "'another one'") != NULL) &&
             EXPECT(iqdb_open(path, &options, &db) == IQDB_OK) && has_model(db, model);
        ok = EXPECT(iqdb_close(db) == IQDB_OK) && ok;
    }
    return ok && says(path, model);
}

static void a_directory_keeps_it(void) {
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX], copy[SUPPORT_PATH_MAX], fixed[SUPPORT_PATH_MAX];
    char again[SUPPORT_PATH_MAX];
    iqdb_options options = named("minilm", NULL);
    iqdb *db = NULL;
    support_directory(folder);
    support_join(path, folder, "db");
    support_join(copy, folder, "copy");
    support_join(fixed, folder, "fixed");
    support_join(again, folder, "again");
    CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
    CHECK(has_model(db, "minilm"));
    CHECK_EQ_INT(public_store(db, 1, 1), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK(keeps(path, "minilm"));
    for (uint64_t round = 0; round < 3; round++) { /* a base, and deltas */
        CHECK_EQ_INT(iqdb_open(path, NULL, &db), IQDB_OK);
        for (uint64_t id = 0; id < (round == 0 ? 300u : 5u); id++)
            CHECK_EQ_INT(public_store(db, id + round * 100, 2), IQDB_OK);
        CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        if (round == 1) CHECK_EQ_INT(iqdb_backup(db, copy), IQDB_OK);
        CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK(keeps(path, "minilm"));
    }
    CHECK(keeps(copy, "minilm"));
    options = named("what repair is told counts only where nothing is stored", NULL);
    CHECK_EQ_INT(iqdb_repair(path, fixed, &options, NULL, NULL), IQDB_OK);
    CHECK(keeps(fixed, "minilm"));
    char meta[SUPPORT_PATH_MAX]; /* without META, snapshots tell */
    support_join(meta, path, "META");
    CHECK(remove(meta) == 0);
    CHECK_EQ_INT(iqdb_repair(path, again, &options, NULL, NULL), IQDB_OK);
    CHECK(keeps(again, "minilm"));
    support_remove(folder);
}

/* Where none is stored the first open that names one stores it; a reader, or an open that fails, does not. */
static void the_first_one_counts(void) {
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    iqdb_options options = named("first", NULL);
    iqdb *db = NULL, *reader = NULL;
    support_directory(folder);
    support_join(path, folder, "db");
    CHECK_EQ_INT(iqdb_open(path, NULL, &db), IQDB_OK);
    CHECK_EQ_INT(public_store(db, 1, 1), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK(says(path, ""));
    options.read_only = true;
    CHECK_EQ_INT(iqdb_open(path, &options, &reader), IQDB_OK);
    CHECK(has_model(reader, ""));
    CHECK_EQ_INT(iqdb_close(reader), IQDB_OK);
    options.read_only = false;
    options.dim = PUBLIC_DIM + 1;
    CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_ERR_INVALID_CONFIG);
    CHECK(says(path, ""));
    options.dim = 0;
    CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
    CHECK(has_model(db, "first"));
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK(keeps(path, "first"));
    support_remove(folder);
}

static void followers_hear_of_it(void) {
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    iqdb_error error;
    iqdb_options writing = named("theirs", NULL), reading = named(NULL, NULL), stranger = named("mine", &error);
    iqdb *db = NULL, *reader = NULL, *other = NULL;
    reading.read_only = stranger.read_only = true;
    support_directory(folder);
    support_join(path, folder, "db");
    CHECK_EQ_INT(iqdb_open(path, NULL, &db), IQDB_OK);
    CHECK_EQ_INT(public_store(db, 1, 1), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(path, &reading, &reader), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(path, &stranger, &other), IQDB_OK);
    for (uint64_t round = 0; round < 2; round++) { /* by the log, and behind a checkpoint */
        CHECK_EQ_INT(iqdb_open(path, &writing, &db), IQDB_OK);
        CHECK_EQ_INT(public_store(db, 2 + round, 1), IQDB_OK);
        if (round == 1) CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_refresh(other), IQDB_ERR_INVALID_CONFIG);
        CHECK(strstr(error.text, "'mine'") != NULL && strstr(error.text, "'theirs'") != NULL);
        CHECK(iqdb_len(other) == 1);
        CHECK_EQ_INT(iqdb_refresh(reader), IQDB_OK);
        CHECK(iqdb_len(reader) == 2 + round && has_model(reader, "theirs"));
    }
    CHECK_EQ_INT(iqdb_close(other), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(reader), IQDB_OK);
    support_remove(folder);
}

typedef struct blob {
    unsigned char *bytes;
    size_t size;
} blob;

static bool blob_write(const void *bytes, size_t size, void *user) {
    blob *target = (blob *)user;
    unsigned char *more = (unsigned char *)support_aligned_alloc(target->size + size, 64);
    if (target->size > 0) memcpy(more, target->bytes, target->size);
    memcpy(more + target->size, bytes, size);
    support_aligned_free(target->bytes);
    target->bytes = more;
    target->size += size;
    return true;
}

static void memory_and_blobs_keep_it(void) {
    iqdb_error error;
    iqdb_options options = named("caf\xC3\xA9", &error), other = named("tea", &error), none = named(NULL, &error);
    iqdb *db = NULL, *copy = NULL, *collection = NULL;
    blob whole = {NULL, 0}, again = {NULL, 0};
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    CHECK(has_model(db, "caf\xC3\xA9"));
    CHECK_EQ_INT(public_store(db, 1, 1), IQDB_OK);
    CHECK_EQ_INT(iqdb_collection(db, "more", NULL, &collection), IQDB_OK);
    CHECK_EQ_INT(public_store(collection, 2, 1), IQDB_OK);
    CHECK(has_model(collection, "caf\xC3\xA9"));
    CHECK_EQ_INT(iqdb_close(collection), IQDB_OK);
    CHECK_EQ_INT(iqdb_export_blob(db, blob_write, &whole), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open_blob(whole.bytes, whole.size, &other, &copy), IQDB_ERR_INVALID_CONFIG);
    CHECK(strstr(error.text, "'tea'") != NULL && strstr(error.text, "'caf\xC3\xA9'") != NULL);
    CHECK_EQ_INT(iqdb_load_blob(whole.bytes, whole.size, &other, &copy), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(iqdb_open_blob(whole.bytes, whole.size, &none, &copy), IQDB_OK);
    CHECK(has_model(copy, "caf\xC3\xA9") && iqdb_len(copy) == 1);
    CHECK_EQ_INT(iqdb_close(copy), IQDB_OK);
    CHECK_EQ_INT(iqdb_load_blob(whole.bytes, whole.size, &options, &copy), IQDB_OK);
    CHECK(has_model(copy, "caf\xC3\xA9"));
    CHECK_EQ_INT(iqdb_export_blob(copy, blob_write, &again), IQDB_OK);
    CHECK(again.size == whole.size && memcmp(again.bytes, whole.bytes, whole.size) == 0);
    CHECK_EQ_INT(iqdb_close(copy), IQDB_OK);
    support_aligned_free(whole.bytes);
    support_aligned_free(again.bytes);
}

static void tags_that_are_none_are_refused(void) {
    char longest[TAG_MAX + 2] = "", text[256];
    iqdb_error error;
    iqdb_options options = named(longest, &error);
    iqdb *db = NULL;
    memset(longest, 'x', sizeof longest);
    longest[TAG_MAX + 1] = 0;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_ERR_INVALID_CONFIG);
    longest[TAG_MAX] = 0;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    CHECK(has_model(db, longest));
    blob whole = {NULL, 0};
    CHECK_EQ_INT(iqdb_export_blob(db, blob_write, &whole), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    snprintf(text, sizeof text, "options.model is 'y%s', stored is '%s'", longest + 1, longest);
    longest[0] = 'y'; /* both are told to their ends */
    CHECK_EQ_INT(iqdb_load_blob(whole.bytes, whole.size, &options, &db), IQDB_ERR_INVALID_CONFIG);
    CHECK(strcmp(error.text, text) == 0);
    support_aligned_free(whole.bytes);
    const char *const wrong[] = {"\xFF", "caf\xC3", "\xED\xA0\x80"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        options.model = wrong[i];
        CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_ERR_INVALID_CONFIG);
    }
}

TEST_MAIN("api/model", TEST(a_directory_keeps_it), TEST(the_first_one_counts), TEST(followers_hear_of_it),
          TEST(memory_and_blobs_keep_it), TEST(tags_that_are_none_are_refused))
