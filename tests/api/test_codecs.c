/* options.codecs: payloads come back as they were, from every kind of file and copy; a codec that is not there is named;
 * one may take the place of another; what does not unpack is damage. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

enum {
    RECORDS = 300,
    TEXT_MAX = 200000
};

/* Runs of equal bytes as (count, byte). Every byte of what it makes differs from `mask`, so that two of them do not read
 * each other's. */
typedef struct runs {
    unsigned char mask;
    size_t packed, unpacked, refused;
    bool fails;
} runs;

static size_t runs_pack(const void *bytes, size_t size, void *out, size_t capacity, void *user) {
    runs *codec = (runs *)user;
    const unsigned char *from = (const unsigned char *)bytes;
    unsigned char *to = (unsigned char *)out;
    size_t used = 0;
    for (size_t at = 0; at < size;) {
        size_t run = 1;
        while (run < 255 && at + run < size && from[at + run] == from[at]) run++;
        if (capacity - used < 2) {
            codec->refused++;
            return 0;
        }
        to[used++] = (unsigned char)(run ^ codec->mask);
        to[used++] = from[at];
        at += run;
    }
    codec->packed++;
    return used;
}

static bool runs_unpack(const void *packed, size_t packed_size, void *out, size_t size, void *user) {
    runs *codec = (runs *)user;
    const unsigned char *from = (const unsigned char *)packed;
    size_t used = 0;
    codec->unpacked++;
    if (codec->fails || packed_size % 2 != 0) return false;
    for (size_t at = 0; at < packed_size; at += 2) {
        const size_t run = (size_t)(from[at] ^ codec->mask);
        if (run > size - used) return false;
        memset((unsigned char *)out + used, from[at + 1], run);
        used += run;
    }
    return used == size;
}

static iqdb_codec codec_of(runs *state, const char *name) {
    iqdb_codec codec;
    codec.name = name;
    codec.compress_fn = runs_pack;
    codec.decompress_fn = runs_unpack;
    codec.user = state;
    return codec;
}

/* ---- Records that pack well, badly, not at all, and are of all sizes ---- */

static char text[TEXT_MAX];

static size_t text_of(uint64_t id, uint64_t version) {
    uint64_t random = id * 31 + version;
    size_t size = support_random_below(&random, 400);
    if (id % 50 == 7) size = support_random_below(&random, TEXT_MAX);
    if (id % 11 == 3) size = 0;
    if (id == 60) size = TEXT_MAX; /* two blocks of it at least do not pack */
    const uint64_t run = id % 3 == 0 ? 1 : 50;
    for (size_t at = 0; at < size;) {
        const char letter = (char)('a' + support_random_below(&random, 26));
        for (uint64_t i = 1 + support_random_below(&random, run); i > 0 && at < size; i--) text[at++] = letter;
    }
    return size;
}

static void put(iqdb *db, uint64_t id, uint64_t version) {
    float vector[PUBLIC_DIM];
    iqdb_field field;
    public_vector(id, version, vector);
    field = public_field("text", iqdb_text_n(text, text_of(id, version)));
    iqdb_record record = public_record(id, vector, PUBLIC_DIM);
    if (id % 13 != 5) {
        record.fields = &field;
        record.field_count = 1;
    }
    CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
}

static void check(const iqdb *db, uint64_t changed) {
    iqdb_buffer buffer = iqdb_buffer_default();
    CHECK_EQ_U64(iqdb_len(db), RECORDS);
    for (uint64_t id = 0; id < RECORDS; id++) {
        iqdb_record record;
        size_t size = 0;
        CHECK_EQ_INT(iqdb_get(db, id, &buffer, &record), IQDB_OK);
        const char *found = iqdb_payload_text(record.payload, "text", &size);
        CHECK((found == NULL) == (id % 13 == 5));
        if (found == NULL) continue;
        CHECK_EQ_U64(size, text_of(id, id < changed ? 2 : 1));
        CHECK(memcmp(found, text, size) == 0);
    }
    iqdb_buffer_free(&buffer);
}

static char folder[SUPPORT_PATH_MAX];

static const char *path_of(const char *name) {
    static char paths[2][SUPPORT_PATH_MAX];
    static unsigned turn;
    char *path = paths[++turn % 2];
    support_join(path, folder, name);
    return path;
}

static iqdb_options options_of(const iqdb_codec *codecs, size_t count) {
    iqdb_options options = iqdb_options_default();
    options.codecs = codecs;
    options.codec_count = count;
    return options;
}

static void make(const iqdb_options *options, const char *name) {
    iqdb *db = NULL;
    CHECK_EQ_INT(iqdb_open(path_of(name), options, &db), IQDB_OK);
    for (uint64_t id = 0; id < RECORDS; id++) put(db, id, 1);
    CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* Opens, finds all of it, and says how large its snapshots are. */
static uint64_t reopen(const iqdb_options *options, const char *name, uint64_t changed) {
    iqdb_stats stats;
    iqdb *db = NULL;
    if (!EXPECT(iqdb_open(path_of(name), options, &db) == IQDB_OK)) return 0;
    check(db, changed);
    EXPECT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL) == IQDB_OK);
    EXPECT(iqdb_stat(db, &stats) == IQDB_OK);
    EXPECT(iqdb_close(db) == IQDB_OK);
    return stats.snapshot_bytes;
}

static void comes_back(void) {
    runs state = {0x5A, 0, 0, 0, false};
    const iqdb_codec codec = codec_of(&state, "runs");
    iqdb_options options = options_of(&codec, 1), plain = iqdb_options_default();
    iqdb *db = NULL;
    support_directory(folder);
    make(&options, "packed");
    make(&plain, "plain");
    CHECK(state.packed > 0 && state.refused > 0);
    const uint64_t packed_bytes = reopen(&options, "packed", 0), plain_bytes = reopen(&plain, "plain", 0);
    CHECK(packed_bytes > 0 && packed_bytes < plain_bytes * 3 / 4);
    CHECK(state.unpacked > 0);
    /* Deltas too, and then all in one. */
    CHECK_EQ_INT(iqdb_open(path_of("packed"), &options, &db), IQDB_OK);
    for (uint64_t id = 0; id < 40; id++) put(db, id, 2);
    CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
    check(db, 40);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    (void)reopen(&options, "packed", 40);
    options.compact_on_close = true;
    (void)reopen(&options, "packed", 40);
    options.compact_on_close = false;
    CHECK(reopen(&options, "packed", 40) < plain_bytes * 3 / 4);
    support_remove(folder);
}

static void one_that_is_missing(void) {
    runs state = {1, 0, 0, 0, false}, other = {7, 0, 0, 0, false};
    const iqdb_codec codec = codec_of(&state, "a codec of one's own"), another = codec_of(&other, "another");
    iqdb_options options = options_of(&codec, 1), without = options_of(&another, 1);
    iqdb_error error;
    iqdb *db = NULL;
    support_directory(folder);
    make(&options, "db");
    without.error = &error;
    for (int i = 0; i < 3; i++) {
        if (i == 1) without.codec_count = 0;
        if (i == 2) without.read_only = true;
        memset(&error, 0, sizeof error);
        CHECK_EQ_INT(iqdb_open(path_of("db"), &without, &db), IQDB_ERR_INVALID_CONFIG);
        CHECK_EQ_INT(error.code, IQDB_ERR_INVALID_CONFIG);
        CHECK(strstr(error.text, "'a codec of one's own'") != NULL);
        CHECK(strncmp(error.file, "snap-", 5) == 0);
    }
    iqdb_stats stats; /* which wants no payload */
    CHECK_EQ_INT(iqdb_inspect(path_of("db"), &stats), IQDB_OK);
    CHECK_EQ_U64(stats.records, RECORDS);
    for (int i = 0; i < 2; i++) { /* nothing is lost, and so nothing is made that lacks it */
        memset(&error, 0, sizeof error);
        CHECK_EQ_INT(iqdb_repair(path_of("db"), i == 0 ? path_of("saved") : NULL, &without, NULL, NULL),
                     IQDB_ERR_INVALID_CONFIG);
        CHECK(error.code == IQDB_ERR_INVALID_CONFIG && strstr(error.text, "codec") != NULL);
        CHECK_EQ_INT(iqdb_inspect(path_of("saved"), &stats), IQDB_ERR_NOT_FOUND);
    }
    CHECK_EQ_INT(iqdb_repair(path_of("db"), path_of("saved"), &options, NULL, NULL), IQDB_OK);
    (void)reopen(&options, "saved", 0);
    (void)reopen(&options, "db", 0);
    support_remove(folder);
}

/* The first one packs, and all unpack; one that only unpacks leaves what is written plain. */
static void one_for_another(void) {
    runs first = {1, 0, 0, 0, false}, second = {2, 0, 0, 0, false};
    const iqdb_codec codecs[2] = {codec_of(&second, "second"), codec_of(&first, "first")};
    iqdb_options options = options_of(codecs + 1, 1), none = iqdb_options_default();
    support_directory(folder);
    make(&options, "db");
    options = options_of(codecs, 2);
    options.compact_on_close = true;
    iqdb *db = NULL;
    CHECK_EQ_INT(iqdb_open(path_of("db"), &options, &db), IQDB_OK);
    put(db, 0, 2);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK(first.unpacked > 0 && second.packed > 0 && second.unpacked == 0);
    options = options_of(codecs, 1);
    (void)reopen(&options, "db", 1);
    CHECK(second.unpacked > 0);
    iqdb_codec reading = codecs[0];
    reading.compress_fn = NULL;
    options = options_of(&reading, 1);
    options.compact_on_close = true;
    CHECK_EQ_INT(iqdb_open(path_of("db"), &options, &db), IQDB_OK);
    put(db, 1, 2);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    (void)reopen(&none, "db", 2);
    support_remove(folder);
}

/* ---- Copies ---- */

static unsigned char *blob;
static size_t blob_size;
#define BLOB_MAX (8u << 20)

static bool keep(const void *bytes, size_t size, void *user) {
    (void)user;
    if (size > BLOB_MAX - blob_size) return false;
    memcpy(blob + blob_size, bytes, size);
    blob_size += size;
    return true;
}

static void copies(void) {
    runs state = {3, 0, 0, 0, false};
    const iqdb_codec codec = codec_of(&state, "runs");
    const iqdb_options options = options_of(&codec, 1);
    iqdb *db = NULL, *copy = NULL;
    uint64_t first = 0;
    support_directory(folder);
    blob = (unsigned char *)malloc(BLOB_MAX);
    CHECK(blob != NULL);
    make(&options, "db");
    CHECK_EQ_INT(iqdb_open(path_of("db"), &options, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_backup(db, path_of("backup")), IQDB_OK);
    for (int i = 0; i < 2; i++) {
        blob_size = 0;
        CHECK_EQ_INT(iqdb_export_blob(db, keep, NULL), IQDB_OK);
        const uint64_t digest = digest_bytes(PUBLIC_DIGEST, blob, blob_size);
        if (i == 1) CHECK_EQ_U64(digest, first); /* the same bytes again */
        first = digest;
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    (void)reopen(&options, "backup", 0);
    CHECK_EQ_INT(iqdb_open_blob(blob, blob_size, NULL, &copy), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(iqdb_load_blob(blob, blob_size, NULL, &copy), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(iqdb_open_blob(blob, blob_size, &options, &copy), IQDB_OK);
    check(copy, 0);
    CHECK_EQ_INT(iqdb_close(copy), IQDB_OK);
    CHECK_EQ_INT(iqdb_load_blob(blob, blob_size, &options, &copy), IQDB_OK);
    check(copy, 0);
    put(copy, 0, 2);
    check(copy, 1);
    CHECK_EQ_INT(iqdb_close(copy), IQDB_OK);
    free(blob);
    support_remove(folder);
}

/* ---- Trouble ---- */

static void what_does_not_unpack(void) {
    runs state = {9, 0, 0, 0, false};
    const iqdb_codec codec = codec_of(&state, "runs");
    iqdb_options options = options_of(&codec, 1);
    iqdb_error error;
    iqdb *db = NULL;
    support_directory(folder);
    make(&options, "db");
    state.fails = true;
    options.error = &error;
    CHECK_EQ_INT(iqdb_open(path_of("db"), &options, &db), IQDB_ERR_CORRUPT);
    CHECK(error.code == IQDB_ERR_CORRUPT && strncmp(error.file, "snap-", 5) == 0 && error.offset > 0);
    state.fails = false;
    (void)reopen(&options, "db", 0);
    support_remove(folder);
}

/* Of a damaged file everything is saved but what lay in the damaged block. */
static void repair_saves_the_rest(void) {
    runs state = {9, 0, 0, 0, false};
    const iqdb_codec codec = codec_of(&state, "runs");
    const iqdb_options options = options_of(&codec, 1);
    char name[64];
    size_t size;
    iqdb *db = NULL;
    support_directory(folder);
    make(&options, "db");
    CHECK_EQ_U64(public_find(path_of("db"), "snap-", name), 1);
    char file[SUPPORT_PATH_MAX];
    support_join(file, path_of("db"), name);
    unsigned char *bytes = public_read_file(file, &size);
    CHECK(bytes != NULL);
    const size_t head = public_find_bytes(bytes, size, 0, "runs", 5);
    CHECK(head < size);
    free(bytes);
    CHECK(public_flip(path_of("db"), name, head + 100000, 1)); /* somewhere in the packed blocks */
    CHECK_EQ_INT(iqdb_open(path_of("db"), &options, &db), IQDB_ERR_CORRUPT);
    CHECK_EQ_INT(iqdb_repair(path_of("db"), path_of("saved"), &options, NULL, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(path_of("saved"), &options, &db), IQDB_OK);
    CHECK(iqdb_len(db) > RECORDS / 2 && iqdb_len(db) < RECORDS);
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    while (iqdb_iter_next(&iter)) {
        const char *found = iqdb_payload_text(iter.record.payload, "text", &size);
        CHECK((found == NULL) == (iter.record.id % 13 == 5));
        if (found != NULL) CHECK(size == text_of(iter.record.id, 1) && memcmp(found, text, size) == 0);
    }
    iqdb_iter_end(&iter);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
}

/* Wherever memory ends, an export says so, and a load too, and nothing is left. */
static void without_memory(void) {
    runs state = {9, 0, 0, 0, false};
    const iqdb_codec codec = codec_of(&state, "runs");
    iqdb_options options = options_of(&codec, 1);
    blob = (unsigned char *)malloc(BLOB_MAX);
    CHECK(blob != NULL);
    blob_size = 0;
    for (size_t fail = 0; fail < 40; fail++) {
        support_heap heap = support_heap_make();
        options.allocator = support_allocator(&heap);
        iqdb *db = NULL;
        CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
        for (uint64_t id = 0; id < 60; id++) put(db, id, 1);
        heap.fail_at = fail; /* 0: never */
        blob_size = 0;
        iqdb_result result = iqdb_export_blob(db, keep, NULL);
        heap.fail_at = 0;
        CHECK(result == IQDB_OK || result == IQDB_ERR_NOMEM);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(support_heap_problems(&heap), 0);
        if (result != IQDB_OK) continue;
        heap.fail_at = fail;
        result = iqdb_load_blob(blob, blob_size, &options, &db);
        heap.fail_at = 0;
        CHECK(result == IQDB_OK || result == IQDB_ERR_NOMEM);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(support_heap_problems(&heap), 0);
    }
    free(blob);
}

static void bad_options(void) {
    runs state = {1, 0, 0, 0, false};
    static const char long_name[] = "12345678901234567890123456789012";
    iqdb_codec codecs[IQDB_CODECS_MAX + 1];
    iqdb *db = NULL;
    for (size_t i = 0; i <= IQDB_CODECS_MAX; i++) codecs[i] = codec_of(&state, &long_name[sizeof long_name - 2 - i]);
    iqdb_options options = options_of(codecs, IQDB_CODECS_MAX);
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    options.codec_count++;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_ERR_INVALID_CONFIG);
    options = options_of(NULL, 1);
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_ERR_INVALID_CONFIG);
    options = options_of(codecs, 2);
    for (int i = 0; i < 5; i++) {
        codecs[1] = codec_of(&state, i == 0 ? "" : i == 1 ? NULL : i == 2 ? long_name : i == 3 ? codecs[0].name : "x");
        if (i == 4) codecs[1].decompress_fn = NULL;
        CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_ERR_INVALID_CONFIG);
    }
    codecs[1] = codec_of(&state, long_name + 1);
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

TEST_MAIN("api/codecs", TEST(comes_back), TEST(one_that_is_missing), TEST(one_for_another), TEST(copies),
          TEST(what_does_not_unpack), TEST(repair_saves_the_rest), TEST(without_memory), TEST(bad_options))
