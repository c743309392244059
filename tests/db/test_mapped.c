/* A base that is used where it lies: the same answers as from memory, over writes, deltas, logs and checkpoints; damage
 * that is found by whoever needs what is damaged, and by nobody else; and what the system may refuse. The model is a
 * plain database in memory, without codes or index. */
#include "db/db.h"
#include "fuzz/forge.h"
#include "persist/sections.h"
#include "vectors.h"

#include <pthread.h>

enum {
    DIM = 20,
    K = 10,
    IDS = 2600,
    ASKED = 12
};

typedef struct stage {
    fault_files *disk;
    iqdb_options options;
    iqdb_error error;
    iqdb *db, *plain;
    uint64_t random, entropy;
    size_t told, warned; /* errors with a file that the logger heard of, and warnings; atomic */
} stage;

static stage s;

static void hear(iqdb_level level, const iqdb_error *message, void *user) {
    (void)user;
    if (level == IQDB_LEVEL_WARNING) support_add(&s.warned, 1);
    if (level == IQDB_LEVEL_ERROR && message->code == IQDB_ERR_CORRUPT && strncmp(message->file, "snap-", 5) == 0)
        support_add(&s.told, 1);
}

static void start(iqdb_metric metric, iqdb_element element) {
    iqdb_options plain = iqdb_options_default();
    memset(&s, 0, sizeof s);
    s.disk = fault_new(NULL);
    s.random = s.entropy = 11;
    s.options = iqdb_options_default();
    s.options.files = fault_table(s.disk);
    s.options.entropy.fill_fn = world_entropy;
    s.options.entropy.user = &s.entropy;
    s.options.error = &s.error;
    s.options.logger.log_fn = hear;
    s.options.metric = plain.metric = metric;
    s.options.element = plain.element = element;
    plain.index = IQDB_INDEX_FLAT;
    plain.no_codes = true;
    CHECK_EQ_INT(iqdb_open("db", &s.options, &s.db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open_in_memory(&plain, &s.plain), IQDB_OK);
}

static void finish(void) {
    if (s.db != NULL) EXPECT(iqdb_close(s.db) == IQDB_OK);
    EXPECT(iqdb_close(s.plain) == IQDB_OK);
    EXPECT(s.disk->open_files + s.disk->open_dirs + s.disk->open_maps == 0);
    fault_free(s.disk);
}

/* A record of this id and version, in the element of the stage; every third has no payload. */
static iqdb_record record_of(uint64_t id, uint64_t version, float *room, iqdb_field fields[2]) {
    iqdb_record record = iqdb_record_default();
    vectors_row(room, DIM, 0, 3, id + version * 1000000);
    record.id = id;
    record.dim = DIM;
    record.vector = room;
    if (s.options.element == IQDB_ELEMENT_U8) {
        uint8_t *bytes = (uint8_t *)(void *)room;
        for (size_t i = 0; i < DIM; i++) bytes[i] = (uint8_t)(id * 31 + version * 7 + i * i);
        record.raw = bytes;
        record.vector = NULL;
    }
    fields[0].key = "n";
    fields[0].value = iqdb_int((int64_t)(id % 10));
    fields[1].key = "t";
    fields[1].value = iqdb_text("some text that makes it longer than a number");
    if (version % 3 == 0) return record;
    record.fields = fields;
    record.field_count = version % 3;
    return record;
}

static void put(uint64_t id, uint64_t version) {
    float room[DIM];
    iqdb_field fields[2];
    const iqdb_record record = record_of(id, version, room, fields);
    CHECK_EQ_INT(iqdb_upsert(s.db, &record), IQDB_OK);
    CHECK_EQ_INT(iqdb_upsert(s.plain, &record), IQDB_OK);
}

static void take(uint64_t id) {
    bool removed, expected;
    CHECK_EQ_INT(iqdb_delete(s.db, id, &removed), IQDB_OK);
    CHECK_EQ_INT(iqdb_delete(s.plain, id, &expected), IQDB_OK);
    CHECK_EQ_INT(removed, expected);
}

static void change(size_t count, uint64_t ids) {
    for (size_t i = 0; i < count; i++) {
        const uint64_t id = support_random_below(&s.random, ids);
        if (support_random_below(&s.random, 3) == 0) {
            take(id);
        } else {
            put(id, support_random_below(&s.random, 7));
        }
    }
}

static void reopen(iqdb_open_mode mode) {
    if (s.db != NULL) CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.options.open_mode = mode;
    const iqdb_result result = iqdb_open("db", &s.options, &s.db);
    if (result != IQDB_OK)
        printf("\n    %s at %llu: %s", s.error.file, (unsigned long long)s.error.offset, s.error.text);
    CHECK_EQ_INT(result, IQDB_OK);
}

static iqdb_stats stats_now(void) {
    iqdb_stats stats;
    memset(&stats, 0, sizeof stats);
    EXPECT(iqdb_stat(s.db, &stats) == IQDB_OK);
    return stats;
}
static uint64_t mapped_bytes(void) { return stats_now().mapped_bytes; }

static bool same_record(const iqdb_record *a, const iqdb_record *b) {
    return a->id == b->id && a->dim == b->dim && a->payload.size == b->payload.size &&
           (a->payload.bytes == NULL) == (b->payload.bytes == NULL) &&
           memcmp(a->raw, b->raw, iq_element_bytes(s.options.element, DIM)) == 0 &&
           (a->payload.bytes == NULL || memcmp(a->payload.bytes, b->payload.bytes, a->payload.size) == 0);
}

/* What went wrong, or was refused, in comparing the two. */
typedef struct verdict {
    size_t wrong, refused, good;
} verdict;

static void judge(verdict *v, iqdb_result result, bool is_same) {
    v->refused += result == IQDB_ERR_CORRUPT;
    v->good += result == IQDB_OK && is_same;
    v->wrong += (result == IQDB_OK && !is_same) || (result != IQDB_OK && result != IQDB_ERR_CORRUPT);
}

static void ask_one(verdict *v, const iqdb_query *query) {
    iqdb_hit hits[K], expected[K];
    iqdb_buffer buffer = iqdb_buffer_default(), other = iqdb_buffer_default();
    iqdb_query q = *query;
    size_t count = 0, wanted = 0;
    q.buffer = &other;
    if (!EXPECT(iqdb_search(s.plain, &q, expected, &wanted) == IQDB_OK)) return;
    q.buffer = &buffer;
    const iqdb_result result = iqdb_search(s.db, &q, hits, &count);
    bool is_same = count == wanted;
    for (size_t i = 0; i < wanted && is_same; i++)
        is_same = hits[i].id == expected[i].id && hits[i].payload.size == expected[i].payload.size &&
                  memcmp(&hits[i].score, &expected[i].score, sizeof(float)) == 0;
    judge(v, result, is_same);
    iqdb_buffer_free(&buffer);
    iqdb_buffer_free(&other);
}

/* Searches of all kinds. */
static void ask(verdict *v) {
    const iqdb_filter filter = iqdb_eq("n", iqdb_int(3));
    for (size_t i = 0; i < ASKED; i++) {
        float room[DIM];
        iqdb_field fields[2];
        uint64_t ids[40];
        const iqdb_record record = record_of(500000 + i, 0, room, fields);
        iqdb_query query = iqdb_query_default();
        query.vector = record.vector;
        query.raw = record.raw;
        query.k = K;
        query.flags = IQDB_EXACT;
        if (i % 3 == 1) query.flags |= IQDB_WITH_PAYLOAD;
        if (i % 4 == 1) query.filter = &filter;
        if (i % 4 == 2) query.ids = ids;
        if (i % 4 == 2) query.id_count = 40;
        for (size_t j = 0; j < 40; j++) ids[j] = support_random_below(&s.random, IDS);
        ask_one(v, &query);
    }
}

/* Every id, by get and by walk, and counts. */
static void compare(verdict *v, uint64_t ids) {
    iqdb_buffer buffer = iqdb_buffer_default(), other = iqdb_buffer_default();
    iqdb_record mine = iqdb_record_default(), theirs = iqdb_record_default();
    const iqdb_filter filter = iqdb_eq("n", iqdb_int(7));
    size_t count = 0, wanted = 0, walked = 0;
    for (uint64_t id = 0; id < ids; id++) {
        const iqdb_result expected = iqdb_get(s.plain, id, &other, &theirs);
        const iqdb_result result = iqdb_get(s.db, id, &buffer, &mine);
        if (result == IQDB_ERR_CORRUPT || expected == IQDB_OK) {
            judge(v, result, result == IQDB_OK && same_record(&mine, &theirs));
        } else {
            judge(v, result == expected ? IQDB_OK : IQDB_ERR_IO, true);
        }
        EXPECT(iqdb_contains(s.db, id) == (result == IQDB_OK));
    }
    iqdb_iter iter = iqdb_iter_begin(s.db, NULL);
    bool is_same = true;
    for (; iqdb_iter_next(&iter); walked++)
        is_same = iqdb_get(s.plain, iter.record.id, &other, &theirs) == IQDB_OK && same_record(&iter.record, &theirs) &&
                  is_same;
    judge(v, iter.result, is_same && walked == iqdb_len(s.plain));
    v->wrong += !is_same;
    iqdb_iter_end(&iter);
    EXPECT(iqdb_count(s.plain, &filter, &wanted) == IQDB_OK);
    const iqdb_result result = iqdb_count(s.db, &filter, &count);
    judge(v, result, count == wanted);
    EXPECT(iqdb_len(s.db) == iqdb_len(s.plain));
    iqdb_buffer_free(&buffer);
    iqdb_buffer_free(&other);
}

static void agree(uint64_t ids) {
    verdict v = {0, 0, 0};
    ask(&v);
    compare(&v, ids);
    CHECK_EQ_U64(v.wrong, 0);
    CHECK_EQ_U64(v.refused, 0);
}

/* ---- Histories ---- */

static void a_history(iqdb_metric metric, iqdb_element element, bool codes, size_t rounds) {
    start(metric, element);
    s.options.no_codes = !codes;
    reopen(IQDB_OPEN_MMAP);
    CHECK_EQ_U64(mapped_bytes(), 0);
    for (uint64_t id = 0; id < IDS; id++) put(id, id % 7);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    for (size_t round = 0; round < rounds; round++) {
        reopen(IQDB_OPEN_MMAP);
        CHECK(mapped_bytes() > 0);
        if (round % 3 == 0) agree(IDS + 300);
        iqdb_iter old = iqdb_iter_begin(s.db, NULL); /* which goes on to see what it saw */
        const size_t before = iqdb_len(s.db);
        change(support_random_below(&s.random, 400), IDS + 300);
        agree(IDS + 300);
        size_t seen = 0;
        while (iqdb_iter_next(&old)) seen++;
        CHECK_EQ_INT(old.result, IQDB_OK);
        CHECK_EQ_U64(seen, before);
        iqdb_iter_end(&old);
        CHECK_EQ_INT(iqdb_verify(s.db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
        const uint64_t what = support_random_below(&s.random, 5);
        if (what < 2) CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK); /* a delta, mostly */
        if (what == 2) {
            s.db->home->compact_on_close = true;
        } else if (what == 3) {
            reopen(IQDB_OPEN_HEAP);
            agree(IDS + 300);
            change(50, IDS + 300);
        }
        if (what < 2) change(100, IDS + 300);
    }
    agree(IDS + 300);
    finish();
}

static void the_same_as_from_memory(void) {
    a_history(IQDB_L2, IQDB_ELEMENT_F32, true, support_amount(6, 20, 100));
    a_history(IQDB_COSINE, IQDB_ELEMENT_F32, false, support_amount(4, 12, 60));
    a_history(IQDB_L2, IQDB_ELEMENT_U8, true, support_amount(4, 12, 60));
}

/* ---- Damage ---- */

/* A base of all records, in the only snapshot there is. */
static void start_whole(void) {
    start(IQDB_L2, IQDB_ELEMENT_F32);
    for (uint64_t id = 0; id < IDS; id++) put(id, id % 7);
    s.db->home->compact_on_close = true;
    reopen(IQDB_OPEN_MMAP);
    CHECK_EQ_U64(s.db->home->checkpoint.count, 1);
    CHECK(s.db->records.rows.lent.place_count > 0);
    CHECK(s.db->records.rows.lent.codes != NULL);
}

static size_t snapshot_size(char name[32]) {
    size_t size = 0;
    for (unsigned i = 40; i > 0; i--) {
        snprintf(name, 32, "snap-%u", i);
        uint8_t *bytes = fault_load(s.disk, "db", name, &size);
        free(bytes);
        if (bytes != NULL) break;
    }
    return size;
}

/* Writes go on where nothing damaged is in their way, and are kept whatever becomes of the others. */
static size_t write_beside_damage(verdict *v) {
    size_t refused = 0;
    for (size_t i = 0; i < 60; i++) {
        const uint64_t id = support_random_below(&s.random, IDS + 20);
        float room[DIM];
        iqdb_field fields[2];
        const iqdb_record record = record_of(id, i % 7, room, fields);
        memset(&s.error, 0, sizeof s.error);
        const iqdb_result result = i % 3 == 0 ? iqdb_delete(s.db, id, NULL) : iqdb_upsert(s.db, &record);
        if (result == IQDB_OK)
            EXPECT((i % 3 == 0 ? iqdb_delete(s.plain, id, NULL) : iqdb_upsert(s.plain, &record)) == IQDB_OK);
        v->wrong += result != IQDB_OK && result != IQDB_ERR_CORRUPT;
        if (result != IQDB_ERR_CORRUPT) continue;
        refused++;
        v->wrong += s.error.code != IQDB_ERR_CORRUPT || strncmp(s.error.file, "snap-", 5) != 0;
    }
    const iqdb_result result = iqdb_checkpoint(s.db);
    v->wrong += result != IQDB_OK && result != IQDB_ERR_CORRUPT;
    return refused;
}

/* A byte anywhere: open says so, or whoever needs it, and never is there another answer. */
static void damage_is_found_by_who_needs_it(void) {
    char name[32];
    size_t refused = 0, found = 0, harmless = 0, writes_refused = 0;
    start_whole();
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.db = NULL;
    fault_files *sound = s.disk;
    iqdb *whole = s.plain;
    const size_t size = snapshot_size(name), tries = support_amount(80, 400, 4000);
    for (size_t i = 0; i < tries; i++) {
        const uint64_t at = size / tries * i + support_random_below(&s.random, size / tries);
        size_t held;
        uint8_t *bytes = fault_load(sound, "db", name, &held);
        const uint8_t byte = bytes[at] ^ (uint8_t)(1 + support_random_below(&s.random, 255));
        free(bytes);
        verdict v = {0, 0, 0};
        iqdb_options plain = iqdb_options_default();
        plain.metric = IQDB_L2;
        plain.no_codes = true;
        s.disk = fault_copy(sound);
        s.options.files = fault_table(s.disk);
        s.told = 0;
        CHECK(fault_poke(s.disk, "db", name, at, &byte, 1));
        const iqdb_result result = iqdb_open("db", &s.options, &s.db);
        CHECK(result == IQDB_OK || (result == IQDB_ERR_CORRUPT && strcmp(s.error.file, name) == 0));
        refused += result != IQDB_OK;
        if (result == IQDB_OK) {
            s.plain = NULL;
            CHECK_EQ_INT(iqdb_open_in_memory(&plain, &s.plain), IQDB_OK); /* a model of its own, for it is written to */
            iqdb_iter iter = iqdb_iter_begin(whole, NULL);
            while (iqdb_iter_next(&iter)) CHECK_EQ_INT(iqdb_upsert(s.plain, &iter.record), IQDB_OK);
            iqdb_iter_end(&iter);
            if (i % 2 == 0) ask(&v);
            compare(&v, IDS + 20);
            const bool bad = v.refused > 0;
            found += bad;
            harmless += !bad;
            CHECK((s.told > 0) == bad);
            const iqdb_result verified = iqdb_verify(s.db, IQDB_DEPTH_RECORDS, NULL, NULL);
            CHECK(verified == IQDB_ERR_CORRUPT || !bad);
            writes_refused += write_beside_damage(&v);
            if (i % 2 == 1) ask(&v);
            compare(&v, IDS + 20);
            if (v.wrong > 0) printf("\n    %s at %llu: %zu wrong", name, (unsigned long long)at, v.wrong);
            CHECK_EQ_U64(v.wrong, 0);
            CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
            CHECK_EQ_INT(iqdb_close(s.plain), IQDB_OK);
        }
        s.plain = whole;
        s.db = NULL;
        CHECK_EQ_U64(s.disk->open_files + s.disk->open_dirs + s.disk->open_maps, 0);
        fault_free(s.disk);
        s.disk = sound;
    }
    printf(" %zu bytes: %zu by open, %zu by readers, %zu in nothing that they need; %zu writes refused", tries, refused,
           found, harmless, writes_refused);
    CHECK(found > tries / 2 && writes_refused > 0);
    finish();
}

/* ---- What else there may be ---- */

static void without_maps_it_is_read(void) {
    start_whole();
    s.options.files.map_fn = NULL;
    reopen(IQDB_OPEN_MMAP);
    CHECK_EQ_U64(mapped_bytes(), 0);
    CHECK_EQ_U64(s.warned, 1);
    agree(IDS);
    s.options.open_mode = (iqdb_open_mode)7;
    iqdb *none;
    CHECK_EQ_INT(iqdb_open("db", &s.options, &none), IQDB_ERR_INVALID_CONFIG);
    finish();
}

/* As an earlier version has written it, or one without memory: a table of ids is made. */
static void without_a_table_of_ids(void) {
    start(IQDB_L2, IQDB_ELEMENT_F32);
    for (uint64_t id = 0; id < 900; id++) put(id, id % 7);
    s.db->home->compact_on_close = true;
    for (int round = 0; round < 4; round++) {
        reopen(IQDB_OPEN_MMAP);
        CHECK(mapped_bytes() > 0);
        CHECK_EQ_U64(s.db->records.rows.lent.place_count, 0);
        agree(950);
        change(30, 950);
        agree(950);
        CHECK_EQ_INT(iqdb_verify(s.db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
    }
    finish();
}

/* The index of the base comes with the first maintain, over what has been written and deleted meanwhile. */
static void an_index_comes_later(iqdb_index index) {
    start(IQDB_L2, IQDB_ELEMENT_F32);
    s.options.index = index;
    s.options.nlist = index == IQDB_INDEX_IVF ? 30 : 0;
    s.options.m = index == IQDB_INDEX_HNSW ? 8 : 0;
    reopen(IQDB_OPEN_HEAP);
    for (uint64_t id = 0; id < IDS; id++) put(id, id % 7);
    for (int round = 0; round < 3; round++) {
        bool done = false;
        iqdb_stats stats;
        for (int i = 0; i < 100000 && !done; i++) CHECK_EQ_INT(iqdb_maintain(s.db, 1000, &done), IQDB_OK);
        CHECK_EQ_INT(iqdb_stat(s.db, &stats), IQDB_OK);
        CHECK_EQ_INT(stats.index, index);
        CHECK_EQ_U64(stats.index_rows, stats.records);
        CHECK_EQ_INT(iqdb_verify(s.db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
        agree(IDS);
        s.db->home->compact_on_close = round != 1; /* then there is a log over the base */
        reopen(IQDB_OPEN_MMAP);
        CHECK_EQ_INT(iqdb_stat(s.db, &stats), IQDB_OK);
        CHECK_EQ_U64(stats.index_rows, 0);
        CHECK_EQ_INT(stats.index_wanted, index);
        agree(IDS);
        for (uint64_t id = 0; id < 100; id++) /* too few for an index to come with them */
            if (id % 10 < 3) put(id + (uint64_t)round * 100, 5);
        CHECK_EQ_INT(iqdb_flush(s.db), IQDB_OK);
        if (round == 1) {
            for (uint64_t id = 0; id < 500; id++) take(id * 3);
            agree(IDS);
        }
        CHECK_EQ_INT(iqdb_verify(s.db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
    }
    /* A base that is written before that has the index all the same. */
    reopen(IQDB_OPEN_MMAP);
    s.db->home->compact_on_close = true;
    put(7, 1);
    reopen(IQDB_OPEN_HEAP);
    iqdb_stats stats;
    CHECK_EQ_INT(iqdb_stat(s.db, &stats), IQDB_OK);
    CHECK(stats.index_rows > stats.records / 2);
    finish();
}

static void lists_and_graphs_come_later(void) {
    an_index_comes_later(IQDB_INDEX_IVF);
    an_index_comes_later(IQDB_INDEX_HNSW);
}

/* Damage in the index of a base is told to whoever opened the handle to read only, whatever looks at it first, and by
 * its place: the reader that open has left is not to report to open. */
static void damage_behind_a_reader(void) {
    char name[32];
    uint64_t offset = 0;
    start(IQDB_L2, IQDB_ELEMENT_F32);
    s.options.index = IQDB_INDEX_IVF;
    s.options.nlist = 30;
    reopen(IQDB_OPEN_HEAP);
    for (uint64_t id = 0; id < IDS; id++) put(id, id % 7);
    for (bool done = false; !done;) CHECK_EQ_INT(iqdb_maintain(s.db, 1000, &done), IQDB_OK);
    s.db->home->compact_on_close = true;
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    const size_t size = snapshot_size(name);
    size_t held;
    uint8_t *bytes = fault_load(s.disk, "db", name, &held);
    const uint8_t *footer = bytes + size - IQ_FOOTER_SIZE, *entry = bytes + iq_get_u64(footer + IQ_FOOTER_LIST_AT);
    while (iq_get_u32(entry + IQ_SECTION_KIND_AT) != IQ_SECTION_INDEX) entry += IQ_SECTION_ENTRY_SIZE;
    offset = iq_get_u64(entry + IQ_SECTION_OFFSET_AT) + iq_get_u64(entry + IQ_SECTION_BYTES_AT) / 2;
    const uint8_t byte = bytes[offset] ^ 1;
    free(bytes);
    CHECK(fault_poke(s.disk, "db", name, offset, &byte, 1));
    s.options.read_only = true;
    s.options.open_mode = IQDB_OPEN_MMAP;
    for (int way = 0; way < 4; way++) {
        s.told = 0;
        s.options.verify = way == 3 ? IQDB_DEPTH_BLOCKS : IQDB_DEPTH_DEFAULT;
        const iqdb_result result = iqdb_open("db", &s.options, &s.db);
        CHECK_EQ_INT(result, way == 3 ? IQDB_ERR_CORRUPT : IQDB_OK);
        CHECK(way == 3 || mapped_bytes() > 0);
        for (bool done = way != 0; !done;) CHECK_EQ_INT(iqdb_maintain(s.db, 1000, &done), IQDB_OK);
        if (way == 1) CHECK_EQ_INT(iqdb_tune(s.db, .9f, NULL, 0), IQDB_ERR_CORRUPT);
        if (way == 2) CHECK_EQ_INT(iqdb_backup(s.db, "copy"), IQDB_OK); /* the index is left out */
        CHECK_EQ_INT(s.error.code, IQDB_ERR_CORRUPT);
        CHECK_EQ_STR(s.error.file, name);
        CHECK_EQ_U64(s.error.offset, offset / IQ_SNAPSHOT_BLOCK * IQ_SNAPSHOT_BLOCK);
        CHECK(s.told > 0);
        if (s.db != NULL) CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    }
    s.db = NULL;
    finish();
}

/* Copies of what is mapped hold the same; and so does a handle that follows from a map, whatever becomes of the file. */
static bool append(const void *bytes, size_t size, void *user) {
    iq_blob *blob = (iq_blob *)user;
    return iq_blob_append(blob, bytes, size) == IQDB_OK;
}

static void copies_and_followers(void) {
    const iqdb_allocator allocator = iq_alloc_default();
    iq_blob blob = {&allocator, NULL, 0, 0};
    iqdb *writer, *other;
    start_whole();
    change(100, IDS);
    CHECK_EQ_INT(iqdb_export_blob(s.db, append, &blob), IQDB_OK);
    writer = s.db;
    void *aligned = aligned_alloc(64, (blob.size + 63) / 64 * 64);
    memcpy(aligned, blob.bytes, blob.size);
    for (int at = 0; at < 2; at++) { /* where codes can be used, and where they cannot */
        uint8_t *bytes = at == 0 ? (uint8_t *)aligned : blob.bytes + 8;
        if (at == 1) CHECK_EQ_INT(iq_blob_reserve(&blob, 64), IQDB_OK);
        if (at == 1) bytes = blob.bytes + 8;
        if (at == 1) memmove(bytes, blob.bytes, blob.size);
        const iqdb_result result = iqdb_open_blob(bytes, blob.size, NULL, &other);
        CHECK_EQ_INT(result, IQDB_OK);
        CHECK((other->records.rows.lent.codes != NULL) == (at == 0));
        CHECK_EQ_U64(other->records.ids.capacity, 0);
        s.db = other;
        agree(IDS);
        CHECK_EQ_INT(iqdb_verify(other, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(other), IQDB_OK);
    }
    free(aligned);
    iq_blob_free(&blob);
    s.options.read_only = true;
    CHECK_EQ_INT(iqdb_flush(writer), IQDB_OK);
    CHECK_EQ_INT(iqdb_open("db", &s.options, &other), IQDB_OK);
    for (int round = 0; round < 4; round++) {
        s.db = other;
        agree(IDS);
        s.db = writer;
        change(round == 0 ? 30 : 900, IDS);
        if (round > 1) writer->home->checkpoint.store = true; /* it is whole, and the file goes */
        if (round > 0) CHECK_EQ_INT(iqdb_checkpoint(writer), IQDB_OK);
        if (round > 1) CHECK_EQ_U64(writer->home->checkpoint.count, 1);
        CHECK_EQ_INT(iqdb_flush(writer), IQDB_OK);
        CHECK_EQ_INT(iqdb_refresh(other), IQDB_OK);
    }
    s.options.read_only = false;
    CHECK_EQ_INT(iqdb_close(other), IQDB_OK);
    finish();
}

/* Each collection is lent its own rows. */
static void collections_are_mapped(void) {
    iqdb *root, *named;
    start_whole();
    for (int round = 0; round < 3; round++) {
        root = s.db;
        CHECK_EQ_INT(iqdb_collection(root, "other", NULL, &named), IQDB_OK);
        CHECK_EQ_U64(iqdb_len(named), round == 0 ? 0 : 1500 + (unsigned)round - 1);
        for (uint64_t id = 0; id < 1500 + (unsigned)round; id++) {
            float room[DIM];
            iqdb_field fields[2];
            const iqdb_record record = record_of(id, 1, room, fields);
            iqdb_buffer buffer = iqdb_buffer_default();
            iqdb_record seen = iqdb_record_default();
            if (id % 10 == 9 || round == 0 || id >= 1500 + (unsigned)round - 1)
                CHECK_EQ_INT(iqdb_upsert(named, &record), IQDB_OK);
            CHECK_EQ_INT(iqdb_get(named, id, &buffer, &seen), IQDB_OK);
            CHECK(memcmp(seen.raw, room, sizeof room) == 0);
            iqdb_buffer_free(&buffer);
        }
        CHECK_EQ_INT(iqdb_close(named), IQDB_OK);
        agree(IDS);
        s.db->home->compact_on_close = true;
        reopen(IQDB_OPEN_MMAP);
    }
    CHECK_EQ_INT(iqdb_collection_drop(s.db, "other"), IQDB_OK);
    agree(IDS);
    reopen(IQDB_OPEN_MMAP);
    agree(IDS);
    finish();
}

/* What is counted, walked, and deleted by a filter that a list of rows answers. */
static void agree_by_keys(bool deletes) {
    size_t count = 0, wanted = 0, walked = 0;
    for (int64_t n = 0; n < 10; n++) {
        const iqdb_filter filter = iqdb_eq("n", iqdb_int(n));
        CHECK_EQ_INT(iqdb_count(s.plain, &filter, &wanted), IQDB_OK);
        CHECK_EQ_INT(iqdb_count(s.db, &filter, &count), IQDB_OK);
        CHECK_EQ_U64(count, wanted);
        CHECK(wanted > 20 || n == 4);
        walked = 0;
        iqdb_iter iter = iqdb_iter_begin(s.db, &filter);
        for (; iqdb_iter_next(&iter); walked++)
            CHECK(iter.record.id % 10 == (uint64_t)n && iqdb_contains(s.plain, iter.record.id));
        CHECK_EQ_INT(iter.result, IQDB_OK);
        iqdb_iter_end(&iter);
        CHECK_EQ_U64(walked, wanted);
    }
    agree(IDS);
    if (!deletes) return;
    const iqdb_filter four = iqdb_eq("n", iqdb_int(4));
    CHECK_EQ_INT(iqdb_delete_where(s.plain, &four, &wanted), IQDB_OK);
    CHECK_EQ_INT(iqdb_delete_where(s.db, &four, &count), IQDB_OK);
    CHECK_EQ_U64(count, wanted);
}

/* Of lent rows with indexes of keys: none has a head of its own, or some have, because one of their slab has died. */
static void lists_of_lent_rows(void) {
    static const iqdb_index_key keys[] = {{"n", IQDB_KEY_HASH}};
    const iqdb_allocator allocator = iq_alloc_default();
    iqdb_options options = iqdb_options_default();
    iq_blob blob;
    memset(&blob, 0, sizeof blob);
    blob.allocator = &allocator;
    start_whole();
    s.options.index_keys = options.index_keys = keys;
    s.options.index_key_count = options.index_key_count = 1;
    for (int round = 0; round < 3; round++) {
        reopen(IQDB_OPEN_MMAP);
        CHECK(mapped_bytes() > 0);
        agree_by_keys(true);
        agree_by_keys(false);
        change(30, IDS);
        agree_by_keys(false);
    }
    CHECK_EQ_INT(iqdb_export_blob(s.db, append, &blob), IQDB_OK);
    iqdb *directory = s.db;
    CHECK_EQ_INT(iqdb_open_blob(blob.bytes, blob.size, &options, &s.db), IQDB_OK);
    CHECK_EQ_INT(iqdb_delete(s.db, 1, NULL), IQDB_ERR_READONLY);
    agree_by_keys(false);
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.db = directory;
    iq_blob_free(&blob);
    finish();
}

/* What nobody has asked for is not read, and what all have asked for is told once. */
static void touched_bytes_are_told(void) {
    static iqdb_hit hits[IDS];
    float vector[DIM];
    iqdb_query query = iqdb_query_default();
    size_t count = 0;
    start_whole();
    reopen(IQDB_OPEN_MMAP);
    const iqdb_stats opened = stats_now();
    vectors_row(vector, DIM, 0, 3, 0);
    query.vector = vector;
    query.dim = DIM;
    query.k = IDS;
    query.flags = IQDB_EXACT;
    for (uint64_t again = 0, first = 0; again < 2; again++) {
        CHECK_EQ_INT(iqdb_search(s.db, &query, hits, &count), IQDB_OK);
        CHECK_EQ_U64(count, IDS);
        const iqdb_stats searched = stats_now();
        CHECK(searched.touched_bytes >= opened.touched_bytes + IDS * DIM * sizeof(float));
        CHECK(searched.touched_bytes <= searched.mapped_bytes);
        if (again > 0) CHECK_EQ_U64(searched.touched_bytes, first);
        first = searched.touched_bytes;
    }
    finish();
}

/* The n-th allocation fails, once: an error, or all is there. */
static void memory_may_run_out(void) {
    support_heap heap = support_heap_make();
    size_t failed = 0;
    bool done = false;
    start_whole();
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.db = NULL;
    for (size_t n = 0; !done; n++) {
        fault_files *sound = s.disk;
        iqdb *db = NULL;
        bool removed = false;
        s.disk = fault_copy(sound);
        s.options.files = fault_table(s.disk);
        s.options.allocator = support_allocator(&heap);
        heap.fail_at = n + 1;
        iqdb_result result = iqdb_open("db", &s.options, &db);
        if (result == IQDB_OK) result = iqdb_delete(db, 5, &removed);
        if (result == IQDB_OK) CHECK(removed);
        if (result == IQDB_OK) result = iqdb_checkpoint(db);
        CHECK(result == IQDB_OK || result == IQDB_ERR_NOMEM);
        failed += result != IQDB_OK;
        done = heap.fail_at > 0;
        heap.fail_at = 0;
        if (db != NULL) CHECK_EQ_U64(iqdb_len(db), IDS - removed);
        if (db != NULL) CHECK(iqdb_contains(db, 5) != removed && iqdb_contains(db, 6));
        if (db != NULL) CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_U64(support_heap_problems(&heap), 0);
        CHECK_EQ_U64(s.disk->open_files + s.disk->open_dirs + s.disk->open_maps, 0);
        fault_free(s.disk);
        s.disk = sound;
    }
    CHECK(failed > 5);
    memset(&s.options.allocator, 0, sizeof s.options.allocator);
    s.options.files = fault_table(s.disk);
    finish();
}

/* ---- Threads ---- */

typedef struct reader {
    pthread_t thread;
    uint64_t random;
    size_t wrong;
} reader;

static int stop; /* atomic */

/* All that is there from the beginning to the end is found, by whoever is the first to touch it. */
static void *read_on(void *user) {
    reader *r = (reader *)user;
    iqdb_buffer buffer = iqdb_buffer_default();
    for (size_t i = 0; i < 4000 || !__atomic_load_n(&stop, __ATOMIC_ACQUIRE); i++) {
        iqdb_record record = iqdb_record_default();
        const uint64_t id = support_random_below(&r->random, IDS);
        float expected[DIM];
        vectors_row(expected, DIM, 0, 3, id + id % 7 * 1000000);
        if (id % 2 == 0) /* the others come and go */
            r->wrong += iqdb_get(s.db, id, &buffer, &record) != IQDB_OK ||
                        memcmp(record.vector, expected, sizeof expected) != 0;
        if (i % 50 != 0) continue;
        iqdb_hit hit;
        size_t count;
        iqdb_query query = iqdb_query_default();
        vectors_row(expected, DIM, 0, 3, id / 2 * 2 + id / 2 * 2 % 7 * 1000000);
        query.vector = expected;
        query.k = 1;
        r->wrong += iqdb_search(s.db, &query, &hit, &count) != IQDB_OK || count != 1 || hit.id != id / 2 * 2;
    }
    iqdb_buffer_free(&buffer);
    return NULL;
}

static void readers_touch_beside_a_writer(void) {
    static reader readers[3];
    start_whole();
    for (size_t round = 0; round < support_amount(2, 4, 20); round++) {
        stop = 0;
        for (size_t i = 0; i < 3; i++) {
            readers[i].random = 17 + i + round * 10;
            readers[i].wrong = 0;
            CHECK(pthread_create(&readers[i].thread, NULL, read_on, &readers[i]) == 0);
        }
        for (uint64_t i = 0; i < 600; i++) {
            const uint64_t id = support_random_below(&s.random, IDS / 2) * 2 + 1;
            if (i % 3 == 0)
                take(id);
            else
                put(id, i % 7);
        }
        __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
        for (size_t i = 0; i < 3; i++) {
            pthread_join(readers[i].thread, NULL);
            CHECK_EQ_U64(readers[i].wrong, 0);
        }
        if (round % 2 == 1) CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
        agree(IDS);
        reopen(IQDB_OPEN_MMAP);
    }
    finish();
}

TEST_MAIN("db/mapped", TEST(the_same_as_from_memory), TEST(damage_is_found_by_who_needs_it),
          TEST(without_maps_it_is_read), TEST(without_a_table_of_ids), TEST(lists_and_graphs_come_later),
          TEST(damage_behind_a_reader), TEST(copies_and_followers), TEST(collections_are_mapped),
          TEST(lists_of_lent_rows), TEST(touched_bytes_are_told), TEST(memory_may_run_out),
          TEST(readers_touch_beside_a_writer))
