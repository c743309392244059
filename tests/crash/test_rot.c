/* Rot: every byte of every file of small, cleanly closed databases is damaged, and every file is cut at every length.
 * Opening must give an error that names a file, or exactly the records and answers of before. */
#include "api.h"
#include "support.h"
#include "sys/sys.h"
#include "test.h"

enum {
    DIM = 5,
    RECORDS = 12,
    FILES = 8
};

typedef struct image_file {
    char name[32];
    uint8_t *bytes;
    size_t size;
} image_file;

typedef struct image {
    image_file files[FILES];
    size_t count;
} image;

static iqdb_allocator memory;

static void collect(const char *name, void *user) {
    image *all = (image *)user;
    if (all->count < FILES) snprintf(all->files[all->count++].name, 32, "%s", name);
}

static void read_image(iq_memory_files *set, image *out) {
    const iqdb_files files = iq_memory_files_table(set);
    void *dir, *file;
    int os_code;
    memset(out, 0, sizeof *out);
    CHECK_EQ_INT(files.dir_open_fn("db", false, &dir, &os_code, files.user), IQDB_OK);
    CHECK_EQ_INT(files.dir_list_fn(dir, collect, out, &os_code, files.user), IQDB_OK);
    for (size_t i = 0; i < out->count; i++) {
        uint64_t size;
        size_t got;
        CHECK_EQ_INT(files.open_fn(dir, out->files[i].name, IQDB_OPEN_READ, &file, &os_code, files.user), IQDB_OK);
        CHECK_EQ_INT(files.size_fn(file, &size, &os_code, files.user), IQDB_OK);
        out->files[i].size = (size_t)size;
        out->files[i].bytes = (uint8_t *)malloc(out->files[i].size + 1);
        CHECK_EQ_INT(files.read_fn(file, 0, out->files[i].bytes, out->files[i].size, &got, &os_code, files.user),
                     IQDB_OK);
        CHECK_EQ_U64(got, size);
        files.close_fn(file, files.user);
    }
    files.dir_close_fn(dir, files.user);
}

static iq_memory_files *write_image(const image *from) {
    iq_memory_files *set = iq_memory_files_new(&memory);
    const iqdb_files files = iq_memory_files_table(set);
    void *dir, *file;
    int os_code;
    if (files.dir_open_fn("db", true, &dir, &os_code, files.user) != IQDB_OK) return NULL;
    for (size_t i = 0; i < from->count; i++) {
        if (files.open_fn(dir, from->files[i].name, IQDB_OPEN_CREATE, &file, &os_code, files.user) != IQDB_OK)
            return NULL;
        if (from->files[i].size > 0)
            (void)files.write_fn(file, 0, from->files[i].bytes, from->files[i].size, &os_code, files.user);
        files.close_fn(file, files.user);
    }
    files.dir_close_fn(dir, files.user);
    return set;
}

static void fill_vector(uint64_t id, float *vector) {
    uint64_t state = id;
    for (int i = 0; i < DIM; i++) vector[i] = support_random_float(&state);
}

static bool put(iqdb *db, uint64_t id, int64_t version) {
    float vector[DIM];
    iqdb_field field;
    iqdb_record record = iqdb_record_default();
    fill_vector(id * 1000 + (uint64_t)version, vector);
    field.key = "version";
    field.value = iqdb_int(version);
    record.id = id;
    record.vector = vector;
    record.dim = DIM;
    record.fields = &field;
    record.field_count = id % 3 == 0 ? 0 : 1;
    return iqdb_upsert(db, &record) == IQDB_OK;
}

/* Fills the database; `checkpointed` puts the first half into a snapshot. */
static void make_database(bool checkpointed, image *out) {
    iq_memory_files *set = iq_memory_files_new(&memory);
    iqdb_options options = iqdb_options_default();
    iqdb *db;
    options.files = iq_memory_files_table(set);
    CHECK_EQ_INT(iqdb_open("db", &options, &db), IQDB_OK);
    for (uint64_t id = 0; id < RECORDS; id++) {
        CHECK(put(db, id, 0));
        if (checkpointed && id == RECORDS / 2) CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
    }
    CHECK(put(db, 1, 1));
    CHECK_EQ_INT(iqdb_delete(db, 2, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    read_image(set, out);
    iq_memory_files_free(set);
}

static void free_image(image *all) {
    for (size_t i = 0; i < all->count; i++) free(all->files[i].bytes);
}

/* Everything a reader can see, as one number. */
static uint64_t fingerprint(iqdb *db) {
    uint64_t hash = iqdb_len(db);
    iqdb_buffer buffer = iqdb_buffer_default();
    for (uint64_t id = 0; id < RECORDS + 1; id++) {
        iqdb_record record;
        const iqdb_result result = iqdb_get(db, id, &buffer, &record);
        hash = hash * 31 + (uint64_t)(-(int64_t)result);
        if (result != IQDB_OK) continue;
        for (uint32_t i = 0; i < record.dim; i++) {
            uint32_t bits;
            memcpy(&bits, &record.vector[i], 4);
            hash = (hash ^ bits) * UINT64_C(0x100000001b3);
        }
        hash = (hash ^ (uint64_t)record.payload.size) * 31 + (record.payload.bytes != NULL);
        hash = (hash ^ (uint64_t)iqdb_payload_int(record.payload, "version", 99)) * UINT64_C(0x100000001b3);
    }
    iqdb_hit hits[RECORDS];
    float vector[DIM];
    size_t count = 0;
    iqdb_query query = iqdb_query_default();
    fill_vector(77, vector);
    query.vector = vector;
    query.k = RECORDS;
    hash = hash * 31 + (uint64_t)(-(int64_t)iqdb_search(db, &query, hits, &count));
    for (size_t i = 0; i < count; i++) hash = (hash ^ hits[i].id) * UINT64_C(0x100000001b3);
    iqdb_buffer_free(&buffer);
    return hash;
}

typedef struct tally {
    size_t tried, refused, same;
} tally;

/* Opens what `damaged` describes; false says why on the output. */
static bool survives(const image *damaged, uint64_t expected, bool read_only, tally *counts) {
    iq_memory_files *set = write_image(damaged);
    iqdb_options options = iqdb_options_default();
    iqdb_error error;
    iqdb *db = NULL;
    options.files = iq_memory_files_table(set);
    options.error = &error;
    options.read_only = read_only;
    const iqdb_result result = iqdb_open("db", &options, &db);
    bool sound;
    counts->tried++;
    if (result == IQDB_OK) {
        const uint64_t seen = fingerprint(db);
        sound = seen == expected && iqdb_close(db) == IQDB_OK;
        if (!sound) printf("\n      opened with other records");
        counts->same++;
    } else {
        sound = (result == IQDB_ERR_CORRUPT || result == IQDB_ERR_VERSION) && error.code == result &&
                error.file[0] != 0 && error.text[0] != 0;
        if (!sound) printf("\n      refused with %d, file \"%s\", \"%s\"", (int)result, error.file, error.text);
        counts->refused++;
    }
    iq_memory_files_free(set);
    return sound;
}

static void damage_everything(bool checkpointed) {
    image all;
    tally flips, cuts, gone;
    make_database(checkpointed, &all);
    memset(&flips, 0, sizeof flips);
    memset(&cuts, 0, sizeof cuts);
    memset(&gone, 0, sizeof gone);
    iq_memory_files *set = write_image(&all);
    iqdb_options options = iqdb_options_default();
    iqdb *db;
    options.files = iq_memory_files_table(set);
    CHECK_EQ_INT(iqdb_open("db", &options, &db), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(db), RECORDS - 1);
    const uint64_t expected = fingerprint(db);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    iq_memory_files_free(set);
    const size_t step = support_amount(97, 1, 1);
    for (size_t f = 0; f < all.count; f++) {
        image_file *file = &all.files[f];
        for (size_t at = 0; at < file->size; at += step) {
            const uint8_t masks[3] = {(uint8_t)(1u << (at % 8)), 0xFF, 0x80};
            for (size_t m = 0; m < support_amount(1, 1, 3); m++) {
                file->bytes[at] ^= masks[m];
                const bool sound = survives(&all, expected, (at + m) % 2 == 0, &flips);
                file->bytes[at] ^= masks[m];
                if (!sound) printf("\n      %s, byte %zu ^ 0x%02x", file->name, at, masks[m]);
                CHECK(sound);
            }
        }
        const size_t size = file->size;
        for (size_t cut = 0; cut < size; cut += step) {
            file->size = cut;
            const bool sound = survives(&all, expected, cut % 2 == 0, &cuts);
            file->size = size;
            if (!sound) printf("\n      %s cut to %zu of %zu bytes", file->name, cut, size);
            CHECK(sound);
        }
    }
    for (size_t f = 0; f < all.count; f++) { /* each file missing */
        const image_file file = all.files[f];
        if (strcmp(file.name, "LOCK") == 0) continue; /* holds nothing: made anew */
        all.files[f] = all.files[--all.count];
        const bool sound = survives(&all, expected, false, &gone);
        all.files[all.count++] = all.files[f];
        all.files[f] = file;
        if (!sound) printf("\n      %s missing", file.name);
        CHECK(sound);
    }
    CHECK_EQ_U64(gone.refused, gone.tried);
    printf("\n    %zu flips (%zu refused, %zu without effect), %zu cuts (%zu refused), %zu removals ", flips.tried,
           flips.refused, flips.same, cuts.tried, cuts.refused, gone.tried);
    /* Most bytes of META stand twice and most of the log is preallocated zeros; the rest must have been noticed. */
    CHECK(flips.refused > 1000 / step);
    free_image(&all);
}

static void a_log_that_was_closed(void) {
    memory = iq_alloc_default();
    damage_everything(false);
}

static void a_snapshot_and_a_log(void) {
    memory = iq_alloc_default();
    damage_everything(true);
}

TEST_MAIN("crash/rot", TEST(a_log_that_was_closed), TEST(a_snapshot_and_a_log))
