/* Records: what upsert, batches, delete and apply do, and that what comes back is what went in, bit for bit. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

#include <pthread.h>

/* Every test of the list runs in memory and in a directory. */
typedef struct home {
    iqdb *db;
    support_heap heap;
    char folder[SUPPORT_PATH_MAX];
} home;

static void home_open(home *h, int on_disk) {
    memset(h, 0, sizeof *h);
    h->heap = support_heap_make();
    iqdb_options options = iqdb_options_default();
    options.allocator = support_allocator(&h->heap);
    if (on_disk) {
        support_directory(h->folder);
        EXPECT(iqdb_open(h->folder, &options, &h->db) == IQDB_OK); /* a directory that is there, and empty */
    } else {
        EXPECT(iqdb_open_in_memory(&options, &h->db) == IQDB_OK);
    }
}

/* What is stored has to be there afterwards; in memory nothing happens. */
static void home_reopen(home *h) {
    iqdb_options options = iqdb_options_default();
    options.allocator = support_allocator(&h->heap);
    if (h->folder[0] == 0) return;
    EXPECT(iqdb_close(h->db) == IQDB_OK);
    EXPECT(iqdb_open(h->folder, &options, &h->db) == IQDB_OK);
}

static void home_close(home *h) {
    EXPECT(iqdb_close(h->db) == IQDB_OK);
    EXPECT(support_heap_problems(&h->heap) == 0);
    if (h->folder[0] != 0) support_remove(h->folder);
}

#define BOTH(name) \
    static void name##_on(home *h); \
    static void name(void) { \
        for (int disk = 0; disk < 2; disk++) { \
            home h; \
            home_open(&h, disk); \
            if (h.db != NULL) name##_on(&h); \
            home_close(&h); \
        } \
    } \
    static void name##_on(home *h)

BOTH(a_fresh_handle_is_empty) {
    CHECK_EQ_U64(iqdb_len(h->db), 0);
    CHECK(iqdb_is_empty(h->db));
    CHECK(!iqdb_contains(h->db, 0));
    CHECK_EQ_INT(iqdb_flush(h->db), IQDB_OK);
    CHECK_EQ_INT(iqdb_checkpoint(h->db), IQDB_OK);
    CHECK_EQ_INT(iqdb_flush(h->db), IQDB_OK);
    iqdb_stats stats;
    CHECK_EQ_INT(iqdb_stat(h->db, &stats), IQDB_OK);
    CHECK_EQ_U64(stats.records, 0);
    CHECK_EQ_U64(stats.dim, 0);
    CHECK_EQ_INT(stats.metric, IQDB_COSINE);
    CHECK_EQ_U64(stats.format_version, IQDB_FORMAT_VERSION);
    CHECK(!stats.read_only && !stats.poisoned && !stats.recovered);
    CHECK_EQ_INT(stats.in_memory, h->folder[0] == 0);
    const uint8_t zero[16] = {0};
    CHECK_EQ_INT(memcmp(stats.uuid, zero, 16) == 0, stats.in_memory);
}

BOTH(an_upsert_is_read_back) {
    CHECK_EQ_INT(public_store(h->db, 42, 1), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(h->db), 1);
    CHECK(!iqdb_is_empty(h->db));
    CHECK(iqdb_contains(h->db, 42));
    CHECK(public_holds(h->db, 42, 1));
    CHECK(!iqdb_contains(h->db, 43));
}

BOTH(an_upsert_replaces) {
    CHECK_EQ_INT(public_store(h->db, 1, 1), IQDB_OK);
    CHECK_EQ_INT(public_store(h->db, 1, 2), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(h->db), 1);
    CHECK(public_holds(h->db, 1, 2));
    CHECK_EQ_INT(public_store(h->db, 1, 3), IQDB_OK); /* without a payload: the old one goes */
    CHECK(public_holds(h->db, 1, 3));
    CHECK_EQ_INT(public_store(h->db, 1, 2), IQDB_OK); /* and comes again */
    CHECK(public_holds(h->db, 1, 2));
    for (uint64_t i = 0; i < 300; i++) CHECK_EQ_INT(public_store(h->db, 1, i), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(h->db), 1);
    CHECK(public_holds(h->db, 1, 299));
}

BOTH(an_upsert_is_idempotent) {
    CHECK_EQ_INT(public_store(h->db, 1, 1), IQDB_OK);
    const uint64_t digest = digest_database(h->db);
    CHECK_EQ_INT(public_store(h->db, 1, 1), IQDB_OK);
    CHECK_EQ_U64(digest_database(h->db), digest);
}

BOTH(every_id_is_valid) {
    const uint64_t ids[] = {0,
                            1,
                            2,
                            255,
                            256,
                            65535,
                            65536,
                            UINT64_C(0x7fffffff),
                            UINT64_C(0x80000000),
                            UINT64_C(0xffffffff),
                            UINT64_C(0x100000000),
                            UINT64_C(0x7fffffffffffffff),
                            UINT64_C(0x8000000000000000),
                            UINT64_MAX - 1,
                            UINT64_MAX};
    const size_t count = sizeof ids / sizeof ids[0];
    for (size_t i = 0; i < count; i++) CHECK_EQ_INT(public_store(h->db, ids[i], i), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(h->db), count);
    for (size_t i = 0; i < count; i++) CHECK(public_holds(h->db, ids[i], i));
    const float zero[PUBLIC_DIM] = {0, 0, 0};
    iqdb_hit hits[32];
    size_t found = 0;
    const iqdb_query query =
        public_query(zero, PUBLIC_DIM, 32, IQDB_COSINE); /* all score 1: the order is that of ids */
    CHECK_EQ_INT(iqdb_search(h->db, &query, hits, &found), IQDB_OK);
    CHECK_EQ_U64(found, count);
    for (size_t i = 0; i < count; i++) CHECK_EQ_U64(hits[i].id, ids[i]);
    for (size_t i = 0; i < count; i++) {
        bool removed = false;
        CHECK_EQ_INT(iqdb_delete(h->db, ids[i], &removed), IQDB_OK);
        CHECK(removed);
    }
    CHECK(iqdb_is_empty(h->db));
}

BOTH(a_delete_tells_and_is_idempotent) {
    bool removed = true;
    CHECK_EQ_INT(iqdb_delete(h->db, 1, &removed), IQDB_OK);
    CHECK(!removed);
    CHECK_EQ_INT(public_store(h->db, 1, 1), IQDB_OK);
    CHECK_EQ_INT(public_store(h->db, 2, 2), IQDB_OK);
    CHECK_EQ_INT(iqdb_delete(h->db, 1, &removed), IQDB_OK);
    CHECK(removed);
    CHECK_EQ_INT(iqdb_delete(h->db, 1, &removed), IQDB_OK);
    CHECK(!removed);
    CHECK_EQ_U64(iqdb_len(h->db), 1);
    CHECK(!iqdb_contains(h->db, 1));
    CHECK(public_holds(h->db, 2, 2));
    CHECK_EQ_INT(public_store(h->db, 1, 4), IQDB_OK); /* and it can come back */
    CHECK(public_holds(h->db, 1, 4));
    CHECK_EQ_INT(iqdb_delete(h->db, 1, NULL), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(h->db), 1);
}

BOTH(a_delete_batch_counts_what_was_there) {
    for (uint64_t id = 0; id < 10; id++) CHECK_EQ_INT(public_store(h->db, id, id), IQDB_OK);
    const uint64_t ids[] = {3, 100, 5, 3, 7, 101, 5};
    size_t removed = 99;
    CHECK_EQ_INT(iqdb_delete_batch(h->db, ids, sizeof ids / sizeof ids[0], &removed), IQDB_OK);
    CHECK_EQ_U64(removed, 3); /* an id named twice is there once */
    CHECK_EQ_U64(iqdb_len(h->db), 7);
    for (uint64_t id = 0; id < 10; id++) CHECK_EQ_INT(iqdb_contains(h->db, id), id != 3 && id != 5 && id != 7);
    CHECK_EQ_INT(iqdb_delete_batch(h->db, ids, sizeof ids / sizeof ids[0], &removed), IQDB_OK);
    CHECK_EQ_U64(removed, 0);
}

BOTH(statistics_count_writes) {
    iqdb_stats stats;
    uint64_t last = 0;
    for (uint64_t step = 0; step < 12; step++) {
        const float vector[PUBLIC_DIM] = {1, 2, 3};
        if (step % 3 == 2)
            CHECK_EQ_INT(iqdb_delete(h->db, step - 1, NULL), IQDB_OK);
        else
            CHECK_EQ_INT(public_store(h->db, step, step), IQDB_OK);
        CHECK_EQ_INT(iqdb_stat(h->db, &stats), IQDB_OK);
        CHECK(stats.last_lsn > last); /* each write has a number of its own, ascending */
        last = stats.last_lsn;
        CHECK(stats.durable_lsn <= stats.last_lsn);
        CHECK_EQ_INT(public_put(h->db, 1, vector, 2), IQDB_ERR_DIMENSION_MISMATCH);
        CHECK_EQ_INT(iqdb_upsert_batch(h->db, NULL, 0), IQDB_OK);
        CHECK_EQ_INT(iqdb_stat(h->db, &stats), IQDB_OK);
        CHECK_EQ_U64(stats.last_lsn, last); /* and what writes nothing has none */
    }
}

BOTH(the_first_upsert_gives_the_dimension) {
    const float vector[5] = {1, 2, 3, 4, 5};
    iqdb_stats stats;
    CHECK_EQ_INT(public_put(h->db, 1, vector, 5), IQDB_OK);
    CHECK_EQ_INT(iqdb_stat(h->db, &stats), IQDB_OK);
    CHECK_EQ_U64(stats.dim, 5);
    CHECK_EQ_INT(public_put(h->db, 2, vector, 4), IQDB_ERR_DIMENSION_MISMATCH);
    CHECK_EQ_INT(public_put(h->db, 3, vector, 0), IQDB_OK); /* 0: the collection's */
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_record record;
    CHECK_EQ_INT(iqdb_get(h->db, 3, &buffer, &record), IQDB_OK);
    CHECK_EQ_U64(record.dim, 5);
    CHECK_MEM(record.vector, vector, sizeof vector);
    iqdb_buffer_free(&buffer);
    CHECK_EQ_INT(iqdb_delete(h->db, 1, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_delete(h->db, 3, NULL), IQDB_OK);
    CHECK_EQ_INT(public_put(h->db, 2, vector, 4), IQDB_ERR_DIMENSION_MISMATCH); /* fixed once and for all */
}

BOTH(vectors_come_back_bit_for_bit) {
    static const uint32_t patterns[] = {
        0x00000000u, 0x80000000u,                                        /* both zeros */
        0x00000001u, 0x80000001u, 0x007fffffu, 0x807fffffu, 0x00400000u, /* subnormals */
        0x00800000u, 0x80800000u,                                        /* the smallest normal ones */
        0x7f7fffffu, 0xff7fffffu,                                        /* the greatest */
        0x3f800000u, 0xbf800000u, 0x3f7fffffu, 0x3f800001u, 0x40490fdbu, 0x34000000u, 0x33ffffffu,
    };
    enum {
        COUNT = sizeof patterns / sizeof patterns[0],
        MOST = 300
    };
    const uint32_t dim = 257;
    float vector[MOST];
    uint64_t state = 99;
    CHECK_EQ_INT(iqdb_is_empty(h->db), true);
    for (uint64_t id = 0; id < 60; id++) {
        for (size_t i = 0; i < dim; i++) {
            const uint32_t bits = patterns[support_random_below(&state, COUNT)];
            memcpy(&vector[i], &bits, 4);
        }
        CHECK_EQ_INT(public_put(h->db, id, vector, dim), IQDB_OK);
    }
    iqdb_buffer buffer = iqdb_buffer_default();
    for (int round = 0; round < 2; round++) {
        state = 99;
        for (uint64_t id = 0; id < 60; id++) {
            iqdb_record record;
            for (size_t i = 0; i < dim; i++) {
                const uint32_t bits = patterns[support_random_below(&state, COUNT)];
                memcpy(&vector[i], &bits, 4);
            }
            CHECK_EQ_INT(iqdb_get(h->db, id, &buffer, &record), IQDB_OK);
            CHECK_EQ_U64(record.id, id);
            CHECK_EQ_U64(record.dim, dim);
            CHECK_MEM(record.vector, vector, dim * sizeof(float));
            CHECK(record.payload.bytes == NULL);
        }
        CHECK_EQ_INT(iqdb_checkpoint(h->db), IQDB_OK); /* no difference afterwards */
    }
    iqdb_buffer_free(&buffer);
}

BOTH(every_small_dimension) {
    /* One database has one dimension: this one only holds the shortest. */
    const float one = -0.0f;
    CHECK_EQ_INT(public_put(h->db, 1, &one, 1), IQDB_OK);
    for (uint32_t dim = 1; dim <= 130; dim++) {
        float vector[130];
        uint64_t state = dim;
        iqdb *db = NULL;
        iqdb_buffer buffer = iqdb_buffer_default();
        iqdb_record record;
        CHECK_EQ_INT(iqdb_open_in_memory(NULL, &db), IQDB_OK);
        for (uint64_t id = 0; id < 5; id++) {
            for (uint32_t i = 0; i < dim; i++) vector[i] = support_random_float(&state);
            CHECK_EQ_INT(public_put(db, id, vector, dim), IQDB_OK);
            CHECK_EQ_INT(iqdb_get(db, id, &buffer, &record), IQDB_OK);
            CHECK_MEM(record.vector, vector, dim * sizeof(float));
        }
        iqdb_buffer_free(&buffer);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
}

BOTH(what_was_passed_is_not_kept) {
    float vector[PUBLIC_DIM] = {1, 2, 3};
    char key[4] = "abc", text[4] = "xyz";
    iqdb_field field = public_field(key, iqdb_text(text));
    iqdb_record record = public_record(5, vector, PUBLIC_DIM);
    record.fields = &field;
    record.field_count = 1;
    CHECK_EQ_INT(iqdb_upsert(h->db, &record), IQDB_OK);
    memset(vector, 0x55, sizeof vector);
    memset(key, 'k', 3);
    memset(text, 't', 3);
    memset(&field, 0x55, sizeof field);
    memset(&record, 0x55, sizeof record);
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_record seen;
    CHECK_EQ_INT(iqdb_get(h->db, 5, &buffer, &seen), IQDB_OK);
    CHECK(seen.vector[0] == 1 && seen.vector[1] == 2 && seen.vector[2] == 3);
    CHECK_EQ_STR(iqdb_payload_text(seen.payload, "abc", NULL), "xyz");
    iqdb_buffer_free(&buffer);
}

BOTH(vectors_at_every_offset) {
    /* "Needs no alignment beyond that of float": every offset of 4 bytes. */
    float room[80];
    for (size_t i = 0; i < 80; i++) room[i] = (float)i;
    for (size_t shift = 0; shift < 16; shift++) CHECK_EQ_INT(public_put(h->db, shift, room + shift, 33), IQDB_OK);
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_record record;
    for (size_t shift = 0; shift < 16; shift++) {
        CHECK_EQ_INT(iqdb_get(h->db, shift, &buffer, &record), IQDB_OK);
        CHECK_MEM(record.vector, room + shift, 33 * sizeof(float));
        iqdb_hit hit;
        size_t count = 0;
        const iqdb_query query = public_query(room + shift, 33, 1, IQDB_L2);
        CHECK_EQ_INT(iqdb_search(h->db, &query, &hit, &count), IQDB_OK);
        CHECK_EQ_U64(hit.id, shift);
        CHECK_EQ_F32(hit.score, 0.0f);
    }
    iqdb_buffer_free(&buffer);
}

/* ---- Payloads of records ---- */

BOTH(an_absent_payload_is_not_an_empty_one) {
    const float vector[1] = {1};
    const iqdb_field field = public_field("x", iqdb_int(1));
    iqdb_record record = public_record(1, vector, 1);
    CHECK_EQ_INT(iqdb_upsert(h->db, &record), IQDB_OK);
    record.id = 2;
    record.fields = &field;
    record.field_count = 0; /* present and empty */
    CHECK_EQ_INT(iqdb_upsert(h->db, &record), IQDB_OK);
    record.id = 3;
    record.field_count = 1;
    CHECK_EQ_INT(iqdb_upsert(h->db, &record), IQDB_OK);
    iqdb_buffer buffer = iqdb_buffer_default();
    for (int round = 0; round < 2; round++) {
        iqdb_record seen;
        CHECK_EQ_INT(iqdb_get(h->db, 1, &buffer, &seen), IQDB_OK);
        CHECK(seen.payload.bytes == NULL && seen.payload.size == 0);
        CHECK_EQ_INT(iqdb_get(h->db, 2, &buffer, &seen), IQDB_OK);
        CHECK(seen.payload.bytes != NULL);
        CHECK_EQ_U64(iqdb_payload_count(seen.payload), 0);
        CHECK_EQ_INT(iqdb_get(h->db, 3, &buffer, &seen), IQDB_OK);
        CHECK_EQ_U64(iqdb_payload_count(seen.payload), 1);
        CHECK(seen.fields == NULL && seen.field_count == 0); /* reading: payload only */
        iqdb_hit hits[3];
        size_t count = 0;
        iqdb_query query = public_query(vector, 1, 3, IQDB_L2);
        query.flags = IQDB_WITH_PAYLOAD;
        query.buffer = &buffer;
        CHECK_EQ_INT(iqdb_search(h->db, &query, hits, &count), IQDB_OK);
        CHECK_EQ_U64(count, 3);
        CHECK(hits[0].id == 1 && hits[0].payload.bytes == NULL);
        CHECK(hits[1].id == 2 && hits[1].payload.bytes != NULL && iqdb_payload_count(hits[1].payload) == 0);
        CHECK(hits[2].id == 3 && iqdb_payload_int(hits[2].payload, "x", 0) == 1);
        CHECK_EQ_INT(iqdb_checkpoint(h->db), IQDB_OK);
    }
    iqdb_buffer_free(&buffer);
}

BOTH(encoded_bytes_win_over_fields) {
    const float vector[1] = {1};
    const iqdb_payload none = {NULL, 0};
    const iqdb_field encoded = public_field("from", iqdb_text("bytes"));
    const iqdb_field built = public_field("from", iqdb_text("fields"));
    iqdb_buffer mine = iqdb_buffer_default(), buffer = iqdb_buffer_default();
    iqdb_record record = public_record(1, vector, 1), seen;
    CHECK_EQ_INT(iqdb_payload_with(none, &encoded, 1, &mine, &record.payload), IQDB_OK);
    record.fields = &built;
    record.field_count = 1;
    CHECK_EQ_INT(iqdb_upsert(h->db, &record), IQDB_OK);
    CHECK_EQ_INT(iqdb_get(h->db, 1, &buffer, &seen), IQDB_OK);
    CHECK_EQ_U64(seen.payload.size, record.payload.size);
    CHECK_MEM(seen.payload.bytes, record.payload.bytes, seen.payload.size);
    CHECK_EQ_STR(iqdb_payload_text(seen.payload, "from", NULL), "bytes");
    /* What was read can be written again, under another id and from the buffer it was read into. */
    seen.id = 2;
    CHECK_EQ_INT(iqdb_upsert(h->db, &seen), IQDB_OK);
    iqdb_record again;
    iqdb_buffer third = iqdb_buffer_default();
    CHECK_EQ_INT(iqdb_get(h->db, 2, &third, &again), IQDB_OK);
    CHECK_EQ_U64(again.payload.size, record.payload.size);
    CHECK_MEM(again.payload.bytes, record.payload.bytes, record.payload.size);
    iqdb_buffer_free(&third);
    iqdb_buffer_free(&mine);
    iqdb_buffer_free(&buffer);
}

BOTH(the_payload_of_the_original_example) {
    const float vector[2] = {1, 0};
    iqdb_field fields[2];
    fields[0] = public_field("kind", iqdb_text("doc"));
    fields[1] = public_field("score", iqdb_float(0.97));
    iqdb_record record = public_record(1, vector, 2), seen;
    record.fields = fields;
    record.field_count = 2;
    CHECK_EQ_INT(iqdb_upsert(h->db, &record), IQDB_OK);
    iqdb_buffer buffer = iqdb_buffer_default();
    CHECK_EQ_INT(iqdb_get(h->db, 1, &buffer, &seen), IQDB_OK);
    CHECK_EQ_STR(iqdb_payload_text(seen.payload, "kind", NULL), "doc");
    CHECK(iqdb_payload_float(seen.payload, "score", 0) == 0.97);
    iqdb_buffer_free(&buffer);
}

BOTH(large_payloads) {
    const float vector[PUBLIC_DIM] = {1, 2, 3};
    char *text = (char *)malloc(1u << 20);
    iqdb_buffer buffer = iqdb_buffer_default();
    CHECK(text != NULL);
    for (size_t i = 0; i < 1u << 20; i++) text[i] = (char)('a' + (i * 7 + i / 251) % 26);
    /* Around every size at which something might be cut in pieces: blocks, pages, fragments. */
    static const size_t sizes[] = {0,    1,     4000,  4095,  4096,  4097,  8100,   8191,    8192,
                                   8193, 12288, 16384, 65535, 65536, 65537, 200000, 1u << 20};
    const size_t count = sizeof sizes / sizeof sizes[0];
    for (size_t i = 0; i < count; i++) {
        iqdb_field field = public_field("text", iqdb_text_n(text, sizes[i]));
        iqdb_record record = public_record(i, vector, PUBLIC_DIM);
        record.fields = &field;
        record.field_count = 1;
        CHECK_EQ_INT(iqdb_upsert(h->db, &record), IQDB_OK);
    }
    for (int round = 0; round < 4; round++) {
        if (round % 2 == 1) home_reopen(h);
        for (size_t i = 0; i < count; i++) {
            iqdb_record seen;
            size_t size = 1;
            CHECK_EQ_INT(iqdb_get(h->db, i, &buffer, &seen), IQDB_OK);
            const char *got = iqdb_payload_text(seen.payload, "text", &size);
            CHECK(got != NULL);
            CHECK_EQ_U64(size, sizes[i]);
            CHECK_MEM(got, text, size);
            CHECK_EQ_INT(got[size], 0);
        }
        if (round == 1) CHECK_EQ_INT(iqdb_checkpoint(h->db), IQDB_OK);
    }
    iqdb_buffer_free(&buffer);
    free(text);
}

/* ---- Batches ---- */

BOTH(a_batch_is_all_or_nothing) {
    enum {
        COUNT = 50
    };
    iqdb_record records[COUNT];
    float vectors[COUNT][PUBLIC_DIM];
    for (size_t i = 0; i < COUNT; i++) {
        public_vector(i, 3, vectors[i]);
        records[i] = public_record(i, vectors[i], PUBLIC_DIM);
    }
    CHECK_EQ_INT(iqdb_upsert_batch(h->db, records, COUNT), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(h->db), COUNT);
    for (size_t i = 0; i < COUNT; i++) CHECK(public_holds(h->db, i, 3));
    const uint64_t digest = digest_database(h->db);
    for (size_t bad = 0; bad < COUNT; bad += 7) { /* one wrong record anywhere, and none is written */
        for (size_t i = 0; i < COUNT; i++) {
            public_vector(i, 6, vectors[i]);
            records[i].id = i + 25;
            records[i].dim = i == bad ? PUBLIC_DIM - 1 : PUBLIC_DIM;
        }
        CHECK_EQ_INT(iqdb_upsert_batch(h->db, records, COUNT), IQDB_ERR_DIMENSION_MISMATCH);
        CHECK_EQ_U64(digest_database(h->db), digest);
    }
}

BOTH(the_later_of_two_in_a_batch_stays) {
    float a[PUBLIC_DIM], b[PUBLIC_DIM], c[PUBLIC_DIM];
    public_vector(7, 3, a);
    public_vector(7, 6, b);
    public_vector(8, 3, c);
    iqdb_record records[4];
    records[0] = public_record(7, a, PUBLIC_DIM);
    records[1] = public_record(8, c, PUBLIC_DIM);
    records[2] = public_record(7, c, PUBLIC_DIM);
    records[3] = public_record(7, b, PUBLIC_DIM);
    CHECK_EQ_INT(iqdb_upsert_batch(h->db, records, 4), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(h->db), 2);
    CHECK(public_holds(h->db, 7, 6));
    CHECK(public_holds(h->db, 8, 3));
    iqdb_hit hits[4];
    size_t count = 0;
    const iqdb_query query = public_query(a, PUBLIC_DIM, 4, IQDB_L2);
    CHECK_EQ_INT(iqdb_search(h->db, &query, hits, &count), IQDB_OK);
    CHECK_EQ_U64(count, 2); /* the earlier rows of id 7 are no hits */
}

BOTH(operations_take_effect_in_their_order) {
    float vectors[4][PUBLIC_DIM];
    iqdb_record records[4];
    iqdb_op ops[8];
    for (uint64_t i = 0; i < 4; i++) public_vector(i, 3, vectors[i]);
    for (size_t i = 0; i < 4; i++) records[i] = public_record(i, vectors[i], PUBLIC_DIM);
    for (size_t i = 0; i < 8; i++) ops[i] = iqdb_op_default();
    CHECK_EQ_INT(public_store(h->db, 2, 1), IQDB_OK);
    ops[0].record = &records[0]; /* comes and goes */
    ops[1].kind = IQDB_OP_DELETE;
    ops[1].id = 0;
    ops[2].kind = IQDB_OP_DELETE; /* goes before it comes */
    ops[2].id = 1;
    ops[3].record = &records[1];
    ops[4].kind = IQDB_OP_DELETE; /* was there: replaced by way of a delete */
    ops[4].id = 2;
    ops[5].record = &records[2];
    ops[5].collection = h->db; /* the handle itself */
    ops[6].record = &records[3];
    ops[7].kind = IQDB_OP_DELETE; /* never was there */
    ops[7].id = 99;
    CHECK_EQ_INT(iqdb_apply(h->db, ops, 8), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(h->db), 3);
    CHECK(!iqdb_contains(h->db, 0));
    CHECK(public_holds(h->db, 1, 3));
    CHECK(public_holds(h->db, 2, 3));
    CHECK(public_holds(h->db, 3, 3));
    for (int again = 0; again < 2; again++) {
        ops[0].kind = IQDB_OP_DELETE; /* delete, upsert, delete of one id */
        ops[0].id = 3;
        ops[1].kind = IQDB_OP_UPSERT;
        ops[1].record = &records[3];
        ops[2].kind = IQDB_OP_DELETE;
        ops[2].id = 3;
        CHECK_EQ_INT(iqdb_apply(h->db, ops, 3), IQDB_OK);
        CHECK(!iqdb_contains(h->db, 3));
        CHECK_EQ_U64(iqdb_len(h->db), 2);
    }
    for (size_t i = 0; i < 2; i++) { /* a batch that deletes everything */
        ops[i].kind = IQDB_OP_DELETE;
        ops[i].id = i + 1;
    }
    CHECK_EQ_INT(iqdb_apply(h->db, ops, 2), IQDB_OK);
    CHECK(iqdb_is_empty(h->db));
}

BOTH(a_large_batch) {
    const size_t count = support_amount(300, 3000, 3000);
    iqdb_record *records = (iqdb_record *)malloc(count * sizeof *records);
    float *vectors = (float *)malloc(count * PUBLIC_DIM * sizeof *vectors);
    uint64_t *ids = (uint64_t *)malloc(count * sizeof *ids);
    CHECK(records != NULL && vectors != NULL && ids != NULL);
    for (size_t i = 0; i < count; i++) {
        public_vector(i, 3, vectors + i * PUBLIC_DIM);
        records[i] = public_record(i, vectors + i * PUBLIC_DIM, PUBLIC_DIM);
        ids[i] = i * 2;
    }
    CHECK_EQ_INT(iqdb_upsert_batch(h->db, records, count), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(h->db), count);
    for (size_t i = 0; i < count; i++) CHECK(public_holds(h->db, i, 3));
    size_t removed = 0;
    CHECK_EQ_INT(iqdb_delete_batch(h->db, ids, count, &removed), IQDB_OK);
    CHECK_EQ_U64(removed, (count + 1) / 2);
    CHECK_EQ_U64(iqdb_len(h->db), count / 2);
    for (size_t i = 0; i < count; i++) CHECK_EQ_INT(iqdb_contains(h->db, i), i % 2 == 1);
    free(records);
    free(vectors);
    free(ids);
}

BOTH(many_records_come_and_go) {
    const uint64_t count = support_amount(400, 5000, 20000);
    for (uint64_t id = 0; id < count; id++) CHECK_EQ_INT(public_store(h->db, id * 977, id), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(h->db), count);
    for (uint64_t id = 0; id < count; id += 3) CHECK_EQ_INT(iqdb_delete(h->db, id * 977, NULL), IQDB_OK);
    for (uint64_t id = 0; id < count; id += 2) CHECK_EQ_INT(public_store(h->db, id * 977, id + 1), IQDB_OK);
    size_t live = 0;
    for (uint64_t id = 0; id < count; id++) {
        const int here = id % 2 == 0 || id % 3 != 0;
        live += (size_t)here;
        CHECK_EQ_INT(iqdb_contains(h->db, id * 977), here);
        if (here) CHECK(public_holds(h->db, id * 977, id % 2 == 0 ? id + 1 : id));
        CHECK(!iqdb_contains(h->db, id * 977 + 1));
    }
    CHECK_EQ_U64(iqdb_len(h->db), live);
}

/* ---- Buffers ---- */

BOTH(a_buffer_grows_and_is_reused) {
    support_heap heap = support_heap_make();
    const iqdb_allocator allocator = support_allocator(&heap);
    iqdb_buffer buffer = iqdb_buffer_default();
    buffer.allocator = &allocator;
    for (uint64_t id = 0; id < 20; id++) CHECK_EQ_INT(public_store(h->db, id, 1), IQDB_OK);
    iqdb_record record;
    for (uint64_t id = 0; id < 20; id++) CHECK_EQ_INT(iqdb_get(h->db, id, &buffer, &record), IQDB_OK);
    CHECK_EQ_U64(heap.calls, 1); /* same size, same memory */
    CHECK_EQ_U64(heap.live_blocks, 1);
    CHECK(buffer.used > 0 && buffer.used <= buffer.capacity && buffer.bytes != NULL);
    const unsigned char *begin = (const unsigned char *)buffer.bytes;
    CHECK((const unsigned char *)record.vector >= begin &&
          (const unsigned char *)(record.vector + PUBLIC_DIM) <= begin + buffer.capacity);
    CHECK((const unsigned char *)record.payload.bytes >= begin &&
          (const unsigned char *)record.payload.bytes + record.payload.size <= begin + buffer.capacity);
    iqdb_hit hits[20];
    size_t count = 0;
    const float probe[PUBLIC_DIM] = {0, 0, 0};
    iqdb_query query = public_query(probe, PUBLIC_DIM, 20, IQDB_L2);
    query.flags = IQDB_WITH_PAYLOAD;
    query.buffer = &buffer;
    CHECK_EQ_INT(iqdb_search(h->db, &query, hits, &count), IQDB_OK);
    CHECK_EQ_U64(count, 20);
    for (size_t i = 0; i < count; i++) CHECK_EQ_INT(iqdb_payload_int(hits[i].payload, "version", -1), 1);
    CHECK_EQ_U64(heap.live_blocks, 1);
    iqdb_buffer_free(&buffer);
    CHECK(buffer.bytes == NULL && buffer.capacity == 0);
    iqdb_buffer_free(&buffer); /* nothing left to free */
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
    CHECK_EQ_INT(iqdb_get(h->db, 1, &buffer, &record), IQDB_OK); /* and it can be used again */
    iqdb_buffer_free(&buffer);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
}

BOTH(a_buffer_that_cannot_grow) {
    support_heap heap = support_heap_make();
    const iqdb_allocator allocator = support_allocator(&heap);
    iqdb_buffer buffer = iqdb_buffer_default();
    buffer.allocator = &allocator;
    CHECK_EQ_INT(public_store(h->db, 1, 1), IQDB_OK);
    iqdb_record record;
    heap.fail_at = 1;
    CHECK_EQ_INT(iqdb_get(h->db, 1, &buffer, &record), IQDB_ERR_NOMEM);
    CHECK_EQ_INT(iqdb_get(h->db, 1, &buffer, &record), IQDB_OK);
    CHECK_EQ_INT(iqdb_payload_int(record.payload, "version", -1), 1);
    iqdb_buffer_free(&buffer);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
}

/* ---- Threads ---- */

#ifndef IQDB_NO_THREADS
enum {
    WRITERS = 16,
    READERS = 4
};

typedef struct worker {
    iqdb *db;
    uint64_t first;
    uint64_t count;
    int *running; /* writers that have not finished */
    int problems;
    uint64_t seen;
} worker;

static void *write_many(void *argument) {
    worker *w = (worker *)argument;
    for (uint64_t i = 0; i < w->count; i++) {
        const uint64_t id = w->first + i;
        if (public_store(w->db, id, id) != IQDB_OK) w->problems++;
        if (i % 10 == 9 && iqdb_delete(w->db, id - 1, NULL) != IQDB_OK) w->problems++;
        if (i % 50 == 49 && iqdb_flush(w->db) != IQDB_OK) w->problems++;
        if (public_holds(w->db, id, id) == 0) w->problems++;
    }
    __atomic_fetch_sub(w->running, 1, __ATOMIC_ACQ_REL);
    return NULL;
}

/* Whatever a reader sees is a record as some writer wrote it. */
static void *read_many(void *argument) {
    worker *w = (worker *)argument;
    uint64_t state = w->first;
    iqdb_buffer buffer = iqdb_buffer_default();
    do {
        float probe[PUBLIC_DIM];
        iqdb_hit hits[10];
        size_t count = 0;
        for (size_t i = 0; i < PUBLIC_DIM; i++) probe[i] = support_random_float(&state);
        iqdb_query query = public_query(probe, PUBLIC_DIM, 10, IQDB_L2);
        query.flags = IQDB_WITH_PAYLOAD;
        query.buffer = &buffer;
        const iqdb_result result = iqdb_search(w->db, &query, hits, &count);
        if (result != IQDB_OK) w->problems++;
        for (size_t i = 0; i < count; i++) {
            float vector[PUBLIC_DIM];
            public_vector(hits[i].id, hits[i].id, vector);
            if (hits[i].score != model_score(IQDB_L2, probe, vector, PUBLIC_DIM)) w->problems++;
            if (i > 0 && (hits[i].score < hits[i - 1].score ||
                          (hits[i].score == hits[i - 1].score && hits[i].id <= hits[i - 1].id)))
                w->problems++;
            const int64_t expected = hits[i].id % 3 == 0 ? -1 : (int64_t)hits[i].id;
            if (iqdb_payload_int(hits[i].payload, "version", -1) != expected) w->problems++;
            w->seen++;
        }
        iqdb_record record;
        const uint64_t id = support_random_below(&state, WRITERS * w->count);
        const iqdb_result got = iqdb_get(w->db, id, &buffer, &record);
        if (got != IQDB_OK && got != IQDB_ERR_NOT_FOUND) w->problems++;
        if (got == IQDB_OK && record.id != id) w->problems++;
        iqdb_iter iter = iqdb_iter_begin(w->db, NULL);
        for (int steps = 0; steps < 20 && iqdb_iter_next(&iter); steps++) {
            float vector[PUBLIC_DIM];
            public_vector(iter.record.id, iter.record.id, vector);
            if (memcmp(vector, iter.record.vector, sizeof vector) != 0) w->problems++;
        }
        if (iter.result != IQDB_OK) w->problems++;
        iqdb_iter_end(&iter);
        iqdb_stats stats;
        if (iqdb_stat(w->db, &stats) != IQDB_OK || stats.records > WRITERS * w->count) w->problems++;
    } while (__atomic_load_n(w->running, __ATOMIC_ACQUIRE) > 0);
    iqdb_buffer_free(&buffer);
    return NULL;
}

BOTH(sixteen_writers_beside_readers) {
    pthread_t threads[WRITERS + READERS];
    worker workers[WRITERS + READERS];
    int running = WRITERS;
    const uint64_t each = support_amount(30, 200, 1000);
    memset(workers, 0, sizeof workers);
    for (int i = 0; i < WRITERS + READERS; i++) {
        workers[i].db = h->db;
        workers[i].count = each;
        workers[i].first = (uint64_t)i * each;
        workers[i].running = &running;
        CHECK_EQ_INT(pthread_create(&threads[i], NULL, i < WRITERS ? write_many : read_many, &workers[i]), 0);
    }
    for (int i = 0; i < WRITERS + READERS; i++) {
        pthread_join(threads[i], NULL);
        EXPECT(workers[i].problems == 0);
    }
    size_t live = 0;
    for (uint64_t i = 0; i < WRITERS * each; i++) {
        const int deleted = i % each % 10 == 8;
        live += (size_t)!deleted;
        if (deleted)
            EXPECT(!iqdb_contains(h->db, i));
        else
            EXPECT(public_holds(h->db, i, i));
    }
    EXPECT(iqdb_len(h->db) == live);
}
#else
static void sixteen_writers_beside_readers(void) { TEST_SKIP("built without threads"); }
#endif

/* Records for which room was reserved are stored without a word to the allocator, but for payloads. */
static void reserved_records_need_no_memory(void) {
    support_heap heap = support_heap_make();
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL;
    const float vector[PUBLIC_DIM] = {1, 2, 3};
    options.allocator = support_allocator(&heap);
    options.dim = PUBLIC_DIM;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_reserve(db, 0), IQDB_OK);
    CHECK_EQ_INT(public_put(db, 5, vector, 0), IQDB_OK);
    CHECK_EQ_INT(iqdb_reserve(db, 5000), IQDB_OK);
    const size_t calls = heap.calls;
    for (uint64_t id = 0; id < 5000; id++)
        CHECK_EQ_INT(public_put(db, id * UINT64_C(0x9E3779B97F4A7C15), vector, 0), IQDB_OK);
    CHECK_EQ_U64(heap.calls, calls);
    CHECK_EQ_INT(iqdb_reserve(db, 100), IQDB_OK); /* has it */
    CHECK_EQ_U64(heap.calls, calls);
    CHECK_EQ_INT(iqdb_reserve(db, (size_t)0xFFFFFFFFu), IQDB_ERR_LIMIT);
    heap.fail_at = 1;
    CHECK_EQ_INT(iqdb_reserve(db, 100000), IQDB_ERR_NOMEM);
    heap.fail_at = 3;
    CHECK_EQ_INT(iqdb_reserve(db, 100000), IQDB_ERR_NOMEM);
    heap.fail_at = 0;
    CHECK_EQ_U64(iqdb_len(db), 5001);
    CHECK_EQ_INT(public_put(db, 77, vector, 0), IQDB_OK);
    CHECK_EQ_INT(iqdb_reserve(db, 100000), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(db), 5002);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    options.dim = 0; /* what can be prepared without a dimension */
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_reserve(db, 1000), IQDB_OK);
    CHECK_EQ_INT(public_put(db, 77, vector, PUBLIC_DIM), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
}

TEST_MAIN("api/records", TEST(a_fresh_handle_is_empty), TEST(an_upsert_is_read_back), TEST(an_upsert_replaces),
          TEST(an_upsert_is_idempotent), TEST(every_id_is_valid), TEST(a_delete_tells_and_is_idempotent),
          TEST(a_delete_batch_counts_what_was_there), TEST(statistics_count_writes),
          TEST(the_first_upsert_gives_the_dimension), TEST(vectors_come_back_bit_for_bit), TEST(every_small_dimension),
          TEST(what_was_passed_is_not_kept), TEST(vectors_at_every_offset), TEST(an_absent_payload_is_not_an_empty_one),
          TEST(encoded_bytes_win_over_fields), TEST(the_payload_of_the_original_example), TEST(large_payloads),
          TEST(a_batch_is_all_or_nothing), TEST(the_later_of_two_in_a_batch_stays),
          TEST(operations_take_effect_in_their_order), TEST(a_large_batch), TEST(many_records_come_and_go),
          TEST(a_buffer_grows_and_is_reused), TEST(a_buffer_that_cannot_grow), TEST(reserved_records_need_no_memory),
          TEST(sixteen_writers_beside_readers))
