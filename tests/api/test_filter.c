/* Filters at work: search, batch, count, delete and iteration against a look at every record, and changed payloads. */
#include "public.h"

#define RECORDS 700u

/* Record i: n = i (a float for odd i), group "g0" to "g6", list [i % 5, "x"], none of them in every tenth. */
static void fill(iqdb *db) {
    static const char *groups[7] = {"g0", "g1", "g2", "g3", "g4", "g5", "g6"};
    for (uint64_t i = 0; i < RECORDS; i++) {
        float vector[PUBLIC_DIM];
        iqdb_field fields[3];
        iqdb_value items[2];
        public_vector(i, 0, vector);
        items[0] = iqdb_int((int64_t)(i % 5));
        items[1] = iqdb_text("x");
        fields[0] = public_field("n", i % 2 == 0 ? iqdb_int((int64_t)i) : iqdb_float((double)i));
        fields[1] = public_field("group", iqdb_text(groups[i % 7]));
        fields[2] = public_field("list", iqdb_array(items, 2));
        iqdb_record record = public_record(i, vector, PUBLIC_DIM);
        if (i % 10 != 9) {
            record.fields = fields;
            record.field_count = 3;
        }
        if (!EXPECT(iqdb_upsert(db, &record) == IQDB_OK)) return;
    }
}

static iqdb *open_filled(const iqdb_options *options) {
    iqdb *db = NULL;
    if (!EXPECT(iqdb_open_in_memory(options, &db) == IQDB_OK)) exit(2);
    fill(db);
    return db;
}

/* n in [0, below), and no group g0 where `grouped`. */
typedef struct ask {
    iqdb_filter filter;
    iqdb_filter parts[3];
    uint64_t below;
    int grouped;
} ask;

static void ask_make(ask *a, uint64_t below, int grouped) {
    memset(a, 0, sizeof *a);
    a->below = below;
    a->grouped = grouped;
    a->parts[0] = iqdb_between("n", iqdb_int(0), iqdb_float((double)below - 0.5));
    a->parts[2] = iqdb_eq("group", iqdb_text("g0"));
    a->parts[1] = iqdb_not(&a->parts[2]);
    a->filter = iqdb_and(a->parts, grouped ? 2 : 1);
}

static int ask_holds(const ask *a, uint64_t id) {
    return id % 10 != 9 && id < a->below && !(a->grouped && id % 7 == 0);
}

static bool even(const iqdb_record *record, void *user) {
    ++*(size_t *)user;
    EXPECT(record->payload.bytes != NULL); /* the filter has been asked first, and wants fields */
    return record->id % 2 == 0;
}

static void search_is_brute_force_over_what_matches(void) {
    iqdb *db = open_filled(NULL);
    static const uint64_t belows[] = {0, 1, 7, 70, 350, RECORDS};
    for (size_t round = 0; round < 24; round++) {
        ask a;
        float vector[PUBLIC_DIM];
        iqdb_hit hits[RECORDS], model[RECORDS];
        size_t count = 0, model_count = 0, asked = 0;
        const bool both = round >= 12;
        ask_make(&a, belows[round % 6], round / 6 % 2 == 1);
        public_vector(1000 + round, 5, vector);
        iqdb_query query = public_query(vector, PUBLIC_DIM, round % 3 == 0 ? RECORDS : 10, IQDB_L2);
        query.filter = &a.filter;
        if (both) {
            query.predicate = even;
            query.user = &asked;
        }
        for (uint64_t id = 0; id < RECORDS; id++) {
            float stored[PUBLIC_DIM];
            if (!ask_holds(&a, id) || (both && id % 2 != 0)) continue;
            public_vector(id, 0, stored);
            const float score = model_score(IQDB_L2, vector, stored, PUBLIC_DIM);
            size_t at = model_count++;
            for (; at > 0 && (model[at - 1].score > score); at--) model[at] = model[at - 1];
            model[at].score = score;
            model[at].id = id;
        }
        if (model_count > query.k) model_count = query.k;
        CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
        CHECK_EQ_U64(count, model_count);
        for (size_t i = 0; i < count; i++) {
            CHECK_EQ_U64(hits[i].id, model[i].id);
            CHECK_EQ_F32(hits[i].score, model[i].score);
        }
        CHECK(!both || count == 0 || asked > 0);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static void a_batch_shares_its_filter(void) {
    iqdb *db = open_filled(NULL);
    float vectors[9 * PUBLIC_DIM];
    iqdb_hit hits[9 * 4], one[4];
    size_t counts[9], count;
    ask a;
    iqdb_buffer buffer = iqdb_buffer_default();
    ask_make(&a, 50, 1);
    for (size_t i = 0; i < 9; i++) public_vector(2000 + i, 1, vectors + i * PUBLIC_DIM);
    iqdb_query query = public_query(NULL, PUBLIC_DIM, 4, IQDB_COSINE);
    query.filter = &a.filter;
    query.flags = IQDB_WITH_PAYLOAD;
    query.buffer = &buffer;
    CHECK_EQ_INT(iqdb_search_batch(db, &query, vectors, 9, hits, counts), IQDB_OK);
    for (size_t i = 0; i < 9; i++)
        for (size_t k = 0; k < counts[i]; k++)
            CHECK(iqdb_payload_float(hits[i * 4 + k].payload, "n", -1) == (double)hits[i * 4 + k].id);
    for (size_t i = 0; i < 9; i++) {
        query.vector = vectors + i * PUBLIC_DIM;
        CHECK_EQ_INT(iqdb_search(db, &query, one, &count), IQDB_OK);
        CHECK_EQ_U64(count, counts[i]);
        for (size_t k = 0; k < count; k++) CHECK(one[k].id == hits[i * 4 + k].id && ask_holds(&a, one[k].id));
    }
    iqdb_buffer_free(&buffer);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static void counts_and_iterates(void) {
    iqdb *db = open_filled(NULL);
    for (uint64_t below = 0; below <= RECORDS; below += 70) {
        ask a;
        size_t count = 0, expected = 0, seen = 0;
        ask_make(&a, below, below % 140 == 0);
        for (uint64_t id = 0; id < RECORDS; id++) expected += (size_t)ask_holds(&a, id);
        CHECK_EQ_INT(iqdb_count(db, &a.filter, &count), IQDB_OK);
        CHECK_EQ_U64(count, expected);
        iqdb_iter iter = iqdb_iter_begin(db, &a.filter);
        memset(&a.parts, 0xDD, sizeof a.parts); /* needed no longer */
        while (iqdb_iter_next(&iter)) seen += (size_t)(EXPECT(ask_holds(&a, iter.record.id)) != 0);
        CHECK_EQ_INT(iter.result, IQDB_OK);
        iqdb_iter_end(&iter);
        CHECK_EQ_U64(seen, expected);
    }
    size_t count = 0;
    CHECK_EQ_INT(iqdb_count(db, NULL, &count), IQDB_OK);
    CHECK_EQ_U64(count, RECORDS);
    const iqdb_filter tags = iqdb_contains_value("list", iqdb_float(3));
    CHECK_EQ_INT(iqdb_count(db, &tags, &count), IQDB_OK);
    CHECK_EQ_U64(count, RECORDS / 5);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static void deletes_what_matches(void) {
    char folder[SUPPORT_PATH_MAX];
    iqdb *db = NULL;
    ask a;
    iqdb_options options = iqdb_options_default();
    size_t removed = 77, expected = 0;
    options.files = public_quick_files();
    support_directory(folder);
    CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
    fill(db);
    ask_make(&a, 300, 1);
    for (uint64_t id = 0; id < RECORDS; id++) expected += (size_t)ask_holds(&a, id);
    CHECK_EQ_INT(iqdb_delete_where(db, &a.filter, &removed), IQDB_OK);
    CHECK_EQ_U64(removed, expected);
    CHECK_EQ_INT(iqdb_delete_where(db, &a.filter, &removed), IQDB_OK);
    CHECK_EQ_U64(removed, 0);
    for (int again = 0; again < 2; again++) {
        for (uint64_t id = 0; id < RECORDS; id++) CHECK(iqdb_contains(db, id) == !ask_holds(&a, id));
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
    }
    const iqdb_filter all = iqdb_filter_default();
    CHECK_EQ_INT(iqdb_delete_where(db, &all, NULL), IQDB_OK);
    CHECK(iqdb_is_empty(db));
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
}

static void payloads_change_and_vectors_stay(void) {
    char folder[SUPPORT_PATH_MAX];
    iqdb *db = NULL;
    iqdb_field changes[3];
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_record record = iqdb_record_default();
    iqdb_options options = iqdb_options_default();
    float vector[PUBLIC_DIM];
    options.files = public_quick_files();
    support_directory(folder);
    CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
    fill(db);
    changes[0] = public_field("group", iqdb_text("new"));
    changes[1] = public_field("list", iqdb_null());
    changes[1].value.type = IQDB_TYPE_ABSENT;
    changes[2] = public_field("added", iqdb_bool(true));
    CHECK_EQ_INT(iqdb_update_payload(db, 8, changes, 3), IQDB_OK);
    CHECK_EQ_INT(iqdb_update_payload(db, 9, changes, 3), IQDB_OK); /* it had none */
    CHECK_EQ_INT(iqdb_update_payload(db, RECORDS, changes, 3), IQDB_ERR_NOT_FOUND);
    changes[1] = public_field("group", iqdb_int(1)); /* twice */
    CHECK_EQ_INT(iqdb_update_payload(db, 10, changes, 2), IQDB_ERR_INVALID_PAYLOAD);
    for (int again = 0; again < 2; again++) {
        CHECK_EQ_U64(iqdb_len(db), RECORDS);
        for (uint64_t id = 8; id < 11; id++) {
            CHECK_EQ_INT(iqdb_get(db, id, &buffer, &record), IQDB_OK);
            public_vector(id, 0, vector);
            CHECK_MEM(record.vector, vector, sizeof vector);
            CHECK_EQ_U64(iqdb_payload_count(record.payload), id == 9 ? 2 : 3);
            CHECK_EQ_STR(iqdb_payload_text(record.payload, "group", NULL), id < 10 ? "new" : "g3");
            CHECK(iqdb_payload_bool(record.payload, "added", false) == (id < 10));
            CHECK(iqdb_payload_float(record.payload, "n", -1) == (id == 9 ? -1.0 : (double)id));
        }
        const iqdb_filter filter = iqdb_exists("added");
        size_t count = 0;
        CHECK_EQ_INT(iqdb_count(db, &filter, &count), IQDB_OK);
        CHECK_EQ_U64(count, 2);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    iqdb_buffer_free(&buffer);
    support_remove(folder);
}

/* A warm search with a filter allocates nothing; and when an allocation fails, nothing changes and nothing is lost. */
static void memory(void) {
    support_heap heap = support_heap_make();
    iqdb_options options = iqdb_options_default();
    options.allocator = support_allocator(&heap);
    iqdb *db = open_filled(&options);
    float vector[PUBLIC_DIM];
    iqdb_hit hits[8];
    size_t count, before = 0;
    ask a;
    ask_make(&a, 60, 1);
    public_vector(1, 1, vector);
    iqdb_query query = public_query(vector, PUBLIC_DIM, 8, IQDB_L2);
    query.filter = &a.filter;
    for (int round = 0; round < 3; round++) {
        before = heap.calls;
        CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
    }
    CHECK_EQ_U64(heap.calls, before);
    const iqdb_field field = public_field("n", iqdb_int(-5));
    int done = 0;
    for (size_t nth = 1; done != 15 && nth < 100; nth++) {
        size_t removed = 0;
        heap.fail_at = (done & 1) == 0 ? nth : 0;
        if ((done & 1) == 0) {
            const iqdb_result result = iqdb_count(db, &a.filter, &count);
            CHECK(result == IQDB_OK || result == IQDB_ERR_NOMEM);
            done |= result == IQDB_OK ? 1 : 0;
        }
        heap.fail_at = (done & 2) == 0 ? nth : 0;
        if ((done & 2) == 0) {
            iqdb_iter iter = iqdb_iter_begin(db, &a.filter);
            CHECK(iter.result == IQDB_OK || iter.result == IQDB_ERR_NOMEM);
            done |= iter.result == IQDB_OK ? 2 : 0;
            iqdb_iter_end(&iter);
        }
        heap.fail_at = (done & 4) == 0 ? nth : 0;
        if ((done & 4) == 0) {
            const iqdb_result result = iqdb_update_payload(db, 1, &field, 1);
            CHECK(result == IQDB_OK || result == IQDB_ERR_NOMEM);
            done |= result == IQDB_OK ? 4 : 0;
        }
        heap.fail_at = (done & 8) == 0 ? nth : 0;
        if ((done & 8) == 0) {
            const iqdb_result result = iqdb_delete_where(db, &a.filter, &removed);
            CHECK(result == IQDB_OK || result == IQDB_ERR_NOMEM);
            if (result == IQDB_ERR_NOMEM) CHECK_EQ_U64(iqdb_len(db), RECORDS);
            done |= result == IQDB_OK ? 8 : 0;
        }
    }
    heap.fail_at = 0;
    CHECK_EQ_INT(done, 15);
    CHECK(iqdb_len(db) < RECORDS);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

TEST_MAIN("api/filter", TEST(search_is_brute_force_over_what_matches), TEST(a_batch_shares_its_filter),
          TEST(counts_and_iterates), TEST(deletes_what_matches), TEST(payloads_change_and_vectors_stay), TEST(memory))
