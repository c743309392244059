/* Copies of a database, through the public header: a blob or a backup holds what the original held, record by record
 * and bit by bit; damage to any byte of a blob is an error; and a copy is independent of what it was taken from. */
#include "public.h"

typedef struct bytes {
    unsigned char *at;
    size_t size, capacity;
    size_t refuse_at; /* 0: never; else the call that is refused */
    iqdb *reenter;
    int busy;
} bytes;

static bool take(const void *more, size_t size, void *user) {
    bytes *blob = (bytes *)user;
    if (blob->reenter != NULL && iqdb_flush(blob->reenter) == IQDB_ERR_BUSY) blob->busy++;
    if (blob->refuse_at > 0 && --blob->refuse_at == 0) return false;
    if (size > blob->capacity - blob->size) {
        blob->capacity = (blob->size + size) * 2;
        blob->at = (unsigned char *)realloc(blob->at, blob->capacity);
    }
    memcpy(blob->at + blob->size, more, size);
    blob->size += size;
    return true;
}

static bytes export_of(iqdb *db) {
    bytes blob;
    memset(&blob, 0, sizeof blob);
    EXPECT(iqdb_export_blob(db, take, &blob) == IQDB_OK);
    return blob;
}

/* Records that came, went and were replaced, some without payload; `count` live ones. */
static iqdb *sample(const iqdb_options *options, uint64_t count) {
    iqdb *db = NULL;
    if (!EXPECT(iqdb_open_in_memory(options, &db) == IQDB_OK)) return NULL;
    for (uint64_t id = 0; id < count + 5; id++) EXPECT(public_store(db, id * 7, id) == IQDB_OK);
    for (uint64_t id = 0; id < count; id += 3) EXPECT(public_store(db, id * 7, id + 1) == IQDB_OK);
    for (uint64_t id = count; id < count + 5; id++) EXPECT(iqdb_delete(db, id * 7, NULL) == IQDB_OK);
    return db;
}

/* The same answers, score bits included, for a few queries. */
static uint64_t digest_answers(const iqdb *db) {
    uint64_t digest = PUBLIC_DIGEST;
    iqdb_buffer buffer = iqdb_buffer_default();
    for (uint64_t i = 0; i < 5; i++) {
        float vector[PUBLIC_DIM];
        iqdb_hit hits[10];
        size_t count = 0;
        public_vector(1000 + i, 3, vector);
        for (int metric = IQDB_L2; metric <= IQDB_DOT; metric++) {
            iqdb_query query = public_query(vector, PUBLIC_DIM, 10, (iqdb_metric)metric);
            query.flags = IQDB_WITH_PAYLOAD;
            query.buffer = &buffer;
            if (!EXPECT(iqdb_search(db, &query, hits, &count) == IQDB_OK)) return 0;
            for (size_t k = 0; k < count; k++) {
                digest = digest_score(digest_u64(digest, hits[k].id), hits[k].score);
                digest = digest_bytes(digest, hits[k].payload.bytes,
                                      hits[k].payload.bytes == NULL ? 0 : hits[k].payload.size);
            }
        }
    }
    iqdb_buffer_free(&buffer);
    return digest;
}

static int same(const iqdb *a, const iqdb *b) {
    return EXPECT(digest_database(a) == digest_database(b)) && EXPECT(digest_answers(a) == digest_answers(b));
}

static void refuses_writes(iqdb *db) {
    const float vector[PUBLIC_DIM] = {1, 2, 3};
    const uint64_t id = 7;
    EXPECT(public_put(db, 7, vector, PUBLIC_DIM) == IQDB_ERR_READONLY);
    EXPECT(iqdb_delete(db, 7, NULL) == IQDB_ERR_READONLY);
    EXPECT(iqdb_delete_batch(db, &id, 1, NULL) == IQDB_ERR_READONLY);
    EXPECT(iqdb_checkpoint(db) == IQDB_ERR_READONLY);
    EXPECT(iqdb_flush(db) == IQDB_OK);
}

static void a_blob_holds_what_was_exported(void) {
    const uint64_t counts[] = {0, 1, 15, 16, 17, 40, 1030, 2500};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        iqdb *db = sample(NULL, counts[i]), *opened = NULL, *loaded = NULL;
        iqdb_stats stats;
        bytes blob = export_of(db);
        unsigned char *before = (unsigned char *)malloc(blob.size);
        memcpy(before, blob.at, blob.size);
        CHECK_EQ_INT(iqdb_open_blob(blob.at, blob.size, NULL, &opened), IQDB_OK);
        CHECK_EQ_INT(iqdb_load_blob(blob.at, blob.size, NULL, &loaded), IQDB_OK);
        CHECK(same(db, opened) && same(db, loaded));
        CHECK_EQ_INT(iqdb_len(opened), counts[i]);
        CHECK_EQ_INT(iqdb_verify(opened, IQDB_DEPTH_DEFAULT, NULL, NULL), IQDB_OK);
        CHECK_EQ_INT(iqdb_verify(loaded, IQDB_DEPTH_DEFAULT, NULL, NULL), IQDB_OK);
        CHECK_EQ_INT(iqdb_stat(opened, &stats), IQDB_OK);
        CHECK(stats.in_memory && stats.read_only && stats.metric == IQDB_COSINE && stats.records == counts[i]);
        CHECK_EQ_INT(iqdb_stat(loaded, &stats), IQDB_OK);
        CHECK(stats.in_memory && !stats.read_only);
        refuses_writes(opened);
        CHECK_MEM(blob.at, before, blob.size);
        /* A copy of a copy is the same, byte by byte, from either kind. */
        bytes again = export_of(opened), more = export_of(loaded);
        CHECK_EQ_U64(again.size, blob.size);
        CHECK_EQ_U64(more.size, blob.size);
        CHECK_MEM(again.at, blob.at, blob.size);
        CHECK_MEM(more.at, blob.at, blob.size);
        /* The loaded one goes its own way. */
        CHECK_EQ_INT(public_store(loaded, 7, 100), IQDB_OK);
        CHECK_EQ_INT(public_store(loaded, 123456, 101), IQDB_OK);
        CHECK_EQ_INT(iqdb_delete(loaded, 0, NULL), IQDB_OK);
        CHECK(public_holds(loaded, 7, 100) && public_holds(loaded, 123456, 101) && !iqdb_contains(loaded, 0));
        CHECK(!iqdb_contains(opened, 123456) && iqdb_contains(opened, 0) == (counts[i] > 0));
        CHECK_EQ_INT(iqdb_verify(loaded, IQDB_DEPTH_DEFAULT, NULL, NULL), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(opened), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(loaded), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        free(before);
        free(blob.at);
        free(again.at);
        free(more.at);
    }
}

static void long_vectors_and_payloads_too(void) {
    iqdb *db = NULL, *opened = NULL;
    float vector[1000];
    char *text = (char *)malloc(300000);
    uint64_t state = 5;
    iqdb_options options = iqdb_options_default();
    options.metric = IQDB_L2;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    memset(text, 'x', 300000);
    for (uint64_t id = 0; id < 60; id++) {
        iqdb_field field = public_field("text", iqdb_text_n(text, (size_t)(id * id * 83)));
        for (size_t i = 0; i < 1000; i++) vector[i] = support_random_float(&state);
        iqdb_record record = public_record(id, vector, 1000);
        record.fields = &field;
        record.field_count = id % 5 != 0;
        CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
    }
    bytes blob = export_of(db);
    CHECK_EQ_INT(iqdb_open_blob(blob.at, blob.size, NULL, &opened), IQDB_OK);
    CHECK_EQ_U64(digest_database(opened), digest_database(db));
    CHECK_EQ_INT(iqdb_close(opened), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    free(blob.at);
    free(text);
}

static void a_blob_lies_anywhere(void) {
    iqdb *db = sample(NULL, 300);
    bytes blob = export_of(db);
    unsigned char *room = (unsigned char *)malloc(blob.size + 64);
    iqdb_error error;
    iqdb_options options = iqdb_options_default();
    options.error = &error;
    for (size_t shift = 0; shift < 64; shift++) {
        const int aligned = ((uintptr_t)(room + shift)) % 8 == 0;
        iqdb *opened = NULL, *loaded = NULL;
        memcpy(room + shift, blob.at, blob.size);
        CHECK_EQ_INT(iqdb_load_blob(room + shift, blob.size, NULL, &loaded), IQDB_OK);
        CHECK_EQ_U64(digest_database(loaded), digest_database(db));
        CHECK_EQ_INT(iqdb_close(loaded), IQDB_OK);
        CHECK_EQ_INT(iqdb_open_blob(room + shift, blob.size, &options, &opened),
                     aligned ? IQDB_OK : IQDB_ERR_INVALID_ARGUMENT);
        CHECK((opened != NULL) == aligned);
        if (!aligned) CHECK(error.code == IQDB_ERR_INVALID_ARGUMENT && strstr(error.text, "iqdb_load_blob") != NULL);
        if (aligned) CHECK_EQ_U64(digest_database(opened), digest_database(db));
        CHECK_EQ_INT(iqdb_close(opened), IQDB_OK);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    free(room);
    free(blob.at);
}

/* What a reader in place needs besides: no copy of vectors or payloads. */
static void in_place_nothing_is_copied(void) {
    iqdb *db = NULL, *opened = NULL, *loaded = NULL;
    float vector[512] = {0};
    support_heap heap = support_heap_make();
    iqdb_options options = iqdb_options_default();
    options.allocator = support_allocator(&heap);
    CHECK_EQ_INT(iqdb_open_in_memory(NULL, &db), IQDB_OK);
    for (uint64_t id = 0; id < 2000; id++) {
        vector[id % 512] += 1.0f;
        CHECK_EQ_INT(public_put(db, id, vector, 512), IQDB_OK);
    }
    bytes blob = export_of(db);
    CHECK_EQ_INT(iqdb_open_blob(blob.at, blob.size, &options, &opened), IQDB_OK);
    CHECK(blob.size > 2000 * 512 * 4 && heap.live_bytes < 2048 * (20 + 16) + 65536);
    CHECK_EQ_INT(iqdb_load_blob(blob.at, blob.size, &options, &loaded), IQDB_OK);
    CHECK(heap.live_bytes > 2000 * 512 * 4);
    CHECK_EQ_INT(iqdb_close(opened), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(loaded), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    free(blob.at);
}

/* Every byte of a blob stands under a checksum, and every length but the right one is noticed. */
static void damage_to_any_byte_is_an_error(void) {
    iqdb *db = sample(NULL, 25);
    bytes blob = export_of(db);
    iqdb_error error;
    iqdb_options options = iqdb_options_default();
    options.error = &error;
    size_t found = 0;
    for (size_t at = 0; at < blob.size; at++) {
        iqdb *copy = NULL;
        const unsigned char mask = (unsigned char)(1u << (at % 8));
        blob.at[at] ^= mask;
        const iqdb_result result = at % 2 ? iqdb_open_blob(blob.at, blob.size, &options, &copy)
                                          : iqdb_load_blob(blob.at, blob.size, &options, &copy);
        blob.at[at] ^= mask;
        found +=
            result == IQDB_ERR_CORRUPT && copy == NULL && strcmp(error.file, "blob") == 0 && error.offset <= blob.size;
        EXPECT(iqdb_close(copy) == IQDB_OK);
    }
    CHECK_EQ_U64(found, blob.size);
    for (size_t size = 0; size < blob.size; size += size < 100 || size + 200 > blob.size ? 1 : 97) {
        iqdb *copy = NULL;
        CHECK_EQ_INT(iqdb_load_blob(blob.at, size, &options, &copy), IQDB_ERR_CORRUPT);
        CHECK(copy == NULL);
    }
    blob.at = (unsigned char *)realloc(blob.at, blob.size + 8);
    memset(blob.at + blob.size, 0, 8);
    iqdb *copy = NULL;
    CHECK_EQ_INT(iqdb_load_blob(blob.at, blob.size + 8, &options, &copy), IQDB_ERR_CORRUPT);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    free(blob.at);
}

static void arguments_of_blobs(void) {
    iqdb *db = sample(NULL, 5), *copy = db;
    bytes blob = export_of(db);
    iqdb_options options = iqdb_options_default();
    CHECK_EQ_INT(iqdb_export_blob(NULL, take, &blob), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_export_blob(db, NULL, &blob), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_open_blob(NULL, 0, NULL, &copy), IQDB_ERR_INVALID_ARGUMENT);
    CHECK(copy == NULL);
    CHECK_EQ_INT(iqdb_open_blob(blob.at, blob.size, NULL, NULL), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_load_blob(NULL, 9, NULL, &copy), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_load_blob(blob.at, blob.size, NULL, NULL), IQDB_ERR_INVALID_ARGUMENT);
    options.metric = IQDB_DOT;
    CHECK_EQ_INT(iqdb_load_blob(blob.at, blob.size, &options, &copy), IQDB_ERR_INVALID_CONFIG);
    options.metric = IQDB_COSINE;
    options.dim = PUBLIC_DIM + 1;
    CHECK_EQ_INT(iqdb_open_blob(blob.at, blob.size, &options, &copy), IQDB_ERR_INVALID_CONFIG);
    options.dim = PUBLIC_DIM;
    options.verify = IQDB_DEPTH_RECORDS;
    CHECK_EQ_INT(iqdb_open_blob(blob.at, blob.size, &options, &copy), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(copy), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    free(blob.at);
}

static void the_callers_function_may_refuse(void) {
    iqdb *db = sample(NULL, 3000);
    bytes whole = export_of(db), blob;
    int failed = 0;
    for (size_t n = 1;; n++) {
        memset(&blob, 0, sizeof blob);
        blob.refuse_at = n;
        blob.reenter = db;
        const iqdb_result result = iqdb_export_blob(db, take, &blob);
        CHECK(blob.busy > 0);
        CHECK_MEM(blob.at, whole.at, blob.size);
        free(blob.at);
        if (result == IQDB_OK) break;
        CHECK_EQ_INT(result, IQDB_ERR_IO);
        failed++;
    }
    CHECK(failed > 0);
    CHECK_EQ_U64(blob.size, whole.size);
    CHECK_EQ_INT(iqdb_len(db), 3000);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    free(whole.at);
}

/* ---- Backups ---- */

static void a_backup_is_an_ordinary_database(void) {
    char root[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX], copy[SUPPORT_PATH_MAX];
    iqdb *db = NULL, *backup = NULL;
    iqdb_stats of_original, of_backup;
    support_directory(root);
    support_join(path, root, "original");
    support_join(copy, root, "new/parents/backup");
    CHECK_EQ_INT(iqdb_open(path, NULL, &db), IQDB_OK);
    for (uint64_t id = 0; id < 200; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
    CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
    for (uint64_t id = 100; id < 300; id++) CHECK_EQ_INT(public_store(db, id, id + 5), IQDB_OK);
    const uint64_t held = digest_database(db);
    CHECK_EQ_INT(iqdb_backup(db, copy), IQDB_OK);
    CHECK_EQ_INT(iqdb_backup(db, copy), IQDB_ERR_INVALID_CONFIG);
    CHECK(iqdb_backup(db, path) == IQDB_ERR_LOCKED);
    /* The original goes on, the copy does not. */
    CHECK_EQ_INT(public_store(db, 5, 77), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(copy, NULL, &backup), IQDB_OK);
    CHECK_EQ_U64(digest_database(backup), held);
    CHECK_EQ_INT(iqdb_verify(backup, IQDB_DEPTH_DEFAULT, NULL, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_stat(db, &of_original), IQDB_OK);
    CHECK_EQ_INT(iqdb_stat(backup, &of_backup), IQDB_OK);
    CHECK_MEM(of_backup.uuid, of_original.uuid, 16);
    CHECK(!of_backup.recovered && of_backup.records == 300 && of_backup.last_lsn == of_original.last_lsn - 1);
    CHECK(of_backup.durable_lsn == of_backup.last_lsn);
    /* It can be written, and LSNs go on. */
    CHECK_EQ_INT(iqdb_backup(db, copy), IQDB_ERR_LOCKED);
    CHECK_EQ_INT(public_store(backup, 1000, 1), IQDB_OK);
    CHECK_EQ_INT(iqdb_stat(backup, &of_backup), IQDB_OK);
    CHECK(of_backup.last_lsn > of_original.last_lsn - 1);
    CHECK_EQ_INT(iqdb_close(backup), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(copy, NULL, &backup), IQDB_OK);
    CHECK(public_holds(backup, 1000, 1) && !public_holds(backup, 5, 77) && iqdb_len(backup) == 301);
    CHECK_EQ_INT(iqdb_close(backup), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(root);
}

static void every_kind_of_handle_can_be_backed_up(void) {
    char root[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX], copy[SUPPORT_PATH_MAX];
    iqdb *db = sample(NULL, 50), *backup = NULL, *handle = NULL;
    iqdb_stats stats;
    static const uint8_t zeros[16] = {0};
    iqdb_options options = iqdb_options_default();
    support_directory(root);
    support_join(path, root, "from-memory");
    support_join(copy, root, "from-reader");
    CHECK_EQ_INT(iqdb_backup(db, path), IQDB_OK);
    options.read_only = true;
    const uint64_t before = digest_directory(path);
    CHECK_EQ_INT(iqdb_open(path, &options, &handle), IQDB_OK);
    CHECK(same(db, handle));
    CHECK_EQ_INT(iqdb_stat(handle, &stats), IQDB_OK);
    CHECK(memcmp(stats.uuid, zeros, 16) != 0);
    CHECK_EQ_INT(iqdb_backup(handle, copy), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(handle), IQDB_OK);
    CHECK_EQ_U64(digest_directory(path), before);
    CHECK_EQ_INT(iqdb_open(copy, NULL, &backup), IQDB_OK);
    CHECK(same(db, backup));
    CHECK_EQ_INT(iqdb_close(backup), IQDB_OK);
    /* From a blob in place, and of nothing at all. */
    bytes blob = export_of(db);
    support_remove(copy);
    CHECK_EQ_INT(iqdb_open_blob(blob.at, blob.size, NULL, &handle), IQDB_OK);
    CHECK_EQ_INT(iqdb_backup(handle, copy), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(handle), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(copy, NULL, &backup), IQDB_OK);
    CHECK(same(db, backup));
    CHECK_EQ_INT(iqdb_close(backup), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(copy);
    CHECK_EQ_INT(iqdb_open_in_memory(NULL, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_backup(db, copy), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(copy, NULL, &db), IQDB_OK);
    CHECK(iqdb_is_empty(db));
    CHECK_EQ_INT(public_store(db, 1, 1), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(copy, NULL, &db), IQDB_OK);
    CHECK(public_holds(db, 1, 1));
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    free(blob.at);
    support_remove(root);
}

static void an_iterator_does_not_disturb_a_copy(void) {
    iqdb *db = sample(NULL, 40), *loaded = NULL;
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    CHECK(iqdb_iter_next(&iter));
    for (uint64_t id = 0; id < 40; id++) CHECK_EQ_INT(public_store(db, id * 7, id + 50), IQDB_OK);
    bytes blob = export_of(db); /* replaced rows still live, for the iterator */
    while (iqdb_iter_next(&iter)) CHECK(!public_holds(db, iter.record.id, iter.record.id / 7));
    iqdb_iter_end(&iter);
    CHECK_EQ_INT(iqdb_load_blob(blob.at, blob.size, NULL, &loaded), IQDB_OK);
    for (uint64_t id = 0; id < 40; id++) CHECK(public_holds(loaded, id * 7, id + 50));
    CHECK_EQ_INT(iqdb_len(loaded), 40);
    CHECK_EQ_INT(iqdb_close(loaded), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    free(blob.at);
}

static void arguments_of_backup_and_inspect(void) {
    char root[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    iqdb *db = sample(NULL, 2);
    iqdb_stats stats;
    support_directory(root);
    support_join(path, root, "file");
    CHECK(public_write_file(path, "x", 1));
    CHECK_EQ_INT(iqdb_backup(NULL, root), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_backup(db, NULL), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_backup(db, ""), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(iqdb_backup(db, path), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(iqdb_inspect(NULL, &stats), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_inspect(root, NULL), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_inspect(root, &stats), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(iqdb_inspect(path, &stats), IQDB_ERR_INVALID_CONFIG);
    support_join(path, root, "nothing");
    CHECK_EQ_INT(iqdb_inspect(path, &stats), IQDB_ERR_NOT_FOUND);
    /* What an unfinished copy has left is no place for another one, and never opens as an empty database. */
    support_join(path, root, "snap-1");
    CHECK(public_write_file(path, "x", 1));
    CHECK_EQ_INT(iqdb_backup(db, root), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(iqdb_inspect(root, &stats), IQDB_ERR_CORRUPT);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(root, NULL, &db), IQDB_ERR_CORRUPT);
    support_remove(root);
}

static void inspect_tells_what_is_there(void) {
    char root[SUPPORT_PATH_MAX], crashed[SUPPORT_PATH_MAX];
    iqdb *db = NULL;
    iqdb_stats stats, seen;
    iqdb_options options = iqdb_options_default();
    support_directory(root);
    support_directory(crashed);
    options.metric = IQDB_L2;
    options.files = public_quick_files();
    CHECK_EQ_INT(iqdb_open(root, &options, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_inspect(root, &seen), IQDB_OK);
    CHECK(seen.records == 0 && seen.dim == 0 && seen.metric == IQDB_L2 && seen.format_version == IQDB_FORMAT_VERSION);
    for (uint64_t id = 0; id < 70; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
    CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
    CHECK_EQ_INT(public_store(db, 500, 1), IQDB_OK);
    CHECK_EQ_INT(iqdb_flush(db), IQDB_OK);
    CHECK(public_copy(root, crashed));
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    const uint64_t before = digest_directory(root);
    CHECK_EQ_INT(iqdb_inspect(root, &seen), IQDB_OK);
    CHECK_EQ_U64(digest_directory(root), before);
    CHECK_MEM(seen.uuid, stats.uuid, 16);
    CHECK(seen.records == 70 && seen.dim == PUBLIC_DIM && !seen.recovered && !seen.in_memory && !seen.poisoned);
    CHECK_EQ_U64(seen.applied_lsn, stats.applied_lsn);
    CHECK_EQ_U64(seen.snapshot_bytes, stats.snapshot_bytes);
    CHECK_EQ_U64(seen.log_bytes, stats.log_bytes);
    CHECK(seen.last_lsn >= stats.last_lsn);
    CHECK_EQ_INT(iqdb_inspect(crashed, &seen), IQDB_OK);
    CHECK(seen.recovered && seen.records == 70);
    /* One bad slot of META is no matter, two are. */
    CHECK(public_flip(crashed, "META", 100, 1));
    CHECK_EQ_INT(iqdb_inspect(crashed, &seen), IQDB_OK);
    CHECK(public_flip(crashed, "META", 5000, 1));
    CHECK_EQ_INT(iqdb_inspect(crashed, &seen), IQDB_ERR_CORRUPT);
    support_remove(root);
    support_remove(crashed);
}

TEST_MAIN("api/copies", TEST(a_blob_holds_what_was_exported), TEST(long_vectors_and_payloads_too),
          TEST(a_blob_lies_anywhere), TEST(in_place_nothing_is_copied), TEST(damage_to_any_byte_is_an_error),
          TEST(arguments_of_blobs), TEST(the_callers_function_may_refuse), TEST(a_backup_is_an_ordinary_database),
          TEST(every_kind_of_handle_can_be_backed_up), TEST(an_iterator_does_not_disturb_a_copy),
          TEST(arguments_of_backup_and_inspect), TEST(inspect_tells_what_is_there))
