/* Indexes of payload keys, from outside: with any set of them counts, deletes, iterations and searches find what a model
 * of the records says, in memory, on disk and after reopening; while records come, change and go; for readers of an
 * older state too. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

enum {
    IDS = 400,
    DIM = 8
};

/* ---- The model: what a record holds follows from two numbers, and what a question accepts is asked of these ---- */

typedef struct entry {
    int lives;
    int has_payload;
    uint32_t a, b; /* below 100 and 1,000 */
    float vector[DIM];
} entry;

static entry model[IDS];

static const iqdb_index_key sets[][3] = {
    {{NULL, IQDB_KEY_HASH}, {NULL, IQDB_KEY_HASH}, {NULL, IQDB_KEY_HASH}},
    {{"a", IQDB_KEY_HASH}, {"name", IQDB_KEY_ORDERED}, {"tags", IQDB_KEY_HASH}},
    {{"o.b", IQDB_KEY_ORDERED}, {"a", IQDB_KEY_ORDERED}, {"name", IQDB_KEY_HASH}},
};
enum {
    SETS = sizeof sets / sizeof sets[0]
};

static iqdb_options options_of(size_t set) {
    iqdb_options options = iqdb_options_default();
    options.files = public_quick_files();
    options.metric = IQDB_L2;
    options.index_keys = set == 0 ? NULL : sets[set];
    options.index_key_count = set == 0 ? 0 : 3;
    return options;
}

static iqdb_result store(iqdb *db, uint64_t id) {
    const entry *e = &model[id];
    char name[16];
    iqdb_field b = public_field("b", iqdb_int((int64_t)e->b)), fields[4];
    const iqdb_value tags[2] = {iqdb_int((int64_t)e->a), iqdb_int((int64_t)(e->b + 1000))};
    snprintf(name, sizeof name, "item-%03u", (unsigned)e->b);
    fields[0] = public_field("a", e->a % 2 == 0 ? iqdb_int((int64_t)e->a) : iqdb_float((double)e->a));
    fields[1] = public_field("o", iqdb_object(&b, 1));
    fields[2] = public_field("name", iqdb_text(name));
    fields[3] = public_field("tags", iqdb_array(tags, 2));
    iqdb_record record = public_record(id, e->vector, DIM);
    record.fields = e->has_payload ? fields : NULL;
    record.field_count = e->has_payload ? 4 : 0;
    return iqdb_upsert(db, &record);
}

/* The questions, each as a filter and as what it means. */
enum {
    QUESTIONS = 9
};

typedef struct question {
    iqdb_value values[3];
    iqdb_filter parts[2], filter;
    char text[16];
    uint32_t x, y;
    int kind;
} question;

static void ask(question *q, int kind, uint64_t *random) {
    q->kind = kind;
    q->x = (uint32_t)support_random_below(random, 100);
    q->y = (uint32_t)support_random_below(random, 1000);
    snprintf(q->text, sizeof q->text, "item-%03u", (unsigned)q->y);
    for (uint32_t i = 0; i < 3; i++) q->values[i] = iqdb_int((int64_t)(q->x + i));
    q->parts[0] = iqdb_eq("a", q->values[0]);
    q->parts[1] = iqdb_lt("o.b", iqdb_int((int64_t)q->y));
    switch (kind) {
    case 0:
        q->filter = q->parts[0];
        break;
    case 1:
        q->filter = iqdb_in("a", q->values, 3);
        break;
    case 2:
        q->filter = iqdb_between("o.b", iqdb_int((int64_t)q->y), iqdb_float((double)(q->y + 5)));
        break;
    case 3:
        q->filter = iqdb_eq("name", iqdb_text(q->text));
        break;
    case 4:
        q->text[7] = 0;
        q->filter = iqdb_prefix("name", q->text);
        break;
    case 5:
        q->filter = iqdb_contains_value("tags", iqdb_int((int64_t)(q->y + 1000)));
        break;
    case 6:
        q->filter = iqdb_and(q->parts, 2);
        break;
    case 7:
        q->parts[1] = iqdb_gt("o.b", iqdb_int((int64_t)(990 + q->y % 10)));
        q->filter = iqdb_or(q->parts, 2);
        break;
    default:
        q->filter = iqdb_not(&q->parts[1]);
    }
}

static int accepts(const question *q, const entry *e) {
    if (!e->lives) return 0;
    if (q->kind == 8) return !e->has_payload || e->b >= q->y;
    if (!e->has_payload) return 0;
    switch (q->kind) {
    case 0:
        return e->a == q->x;
    case 1:
        return e->a >= q->x && e->a < q->x + 3;
    case 2:
        return e->b >= q->y && e->b <= q->y + 5;
    case 3:
        return e->b == q->y;
    case 4:
        return e->b / 10 == q->y / 10;
    case 5:
        return e->b == q->y;
    case 6:
        return e->a == q->x && e->b < q->y;
    default:
        return e->a == q->x || e->b > 990 + q->y % 10;
    }
}

static float distance_to(const entry *e, const float *vector) {
    float distance = 0;
    (void)iqdb_distance(IQDB_L2, e->vector, vector, DIM, &distance);
    return distance;
}

/* Count, iteration and search against the model. */
static void check_question(iqdb *db, const question *q, uint64_t *random) {
    size_t count, wanted = 0, seen = 0;
    float vector[DIM];
    iqdb_hit hits[IDS];
    for (size_t i = 0; i < DIM; i++) vector[i] = support_random_float(random);
    for (size_t id = 0; id < IDS; id++) wanted += (size_t)accepts(q, &model[id]);
    CHECK_EQ_INT(iqdb_count(db, &q->filter, &count), IQDB_OK);
    CHECK_EQ_INT(count, wanted);
    iqdb_iter iter = iqdb_iter_begin(db, &q->filter);
    for (; iqdb_iter_next(&iter); seen++) {
        if (!EXPECT(accepts(q, &model[iter.record.id]))) break;
    }
    const iqdb_result ended = iter.result;
    iqdb_iter_end(&iter);
    CHECK_EQ_INT(ended, IQDB_OK);
    CHECK_EQ_INT(seen, wanted);
    const size_t k = support_random_below(random, 4) == 0 ? IDS : 1 + (size_t)support_random_below(random, 10);
    iqdb_query query = public_query(vector, DIM, k, IQDB_L2);
    query.filter = &q->filter;
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
    CHECK_EQ_INT(count, wanted < k ? wanted : k);
    for (size_t i = 0; i < count; i++) {
        CHECK(accepts(q, &model[hits[i].id]));
        CHECK_EQ_F32(hits[i].score, distance_to(&model[hits[i].id], vector));
        CHECK(i == 0 || hits[i - 1].score < hits[i].score ||
              (hits[i - 1].score == hits[i].score && hits[i - 1].id < hits[i].id));
    }
    size_t nearer = 0; /* than the last one */
    for (size_t id = 0; id < IDS && count > 0; id++)
        nearer += accepts(q, &model[id]) && distance_to(&model[id], vector) < hits[count - 1].score;
    CHECK(count == 0 || nearer < count);
}

static void change(entry *e, uint64_t *random) {
    e->lives = 1;
    e->has_payload = support_random_below(random, 10) != 0;
    e->a = (uint32_t)support_random_below(random, 100);
    e->b = (uint32_t)support_random_below(random, 1000);
    for (size_t i = 0; i < DIM; i++) e->vector[i] = support_random_float(random);
}

static void check_all(iqdb *db, uint64_t *random) {
    question q;
    for (int kind = 0; kind < QUESTIONS; kind++) {
        ask(&q, kind, random);
        check_question(db, &q, random);
    }
}

/* One change, of the model and of the database. */
static void step(iqdb *db, uint64_t *random) {
    const uint64_t id = support_random_below(random, IDS), what = support_random_below(random, 20);
    entry *e = &model[id];
    bool removed;
    if (what < 13) {
        change(e, random);
        CHECK_EQ_INT(store(db, id), IQDB_OK);
    } else if (what < 17) {
        CHECK_EQ_INT(iqdb_delete(db, id, &removed), IQDB_OK);
        CHECK_EQ_INT(removed, e->lives);
        e->lives = 0;
    } else if (what < 19 && e->lives && e->has_payload) {
        e->a = (uint32_t)support_random_below(random, 100);
        const iqdb_value tags[2] = {iqdb_int((int64_t)e->a), iqdb_int((int64_t)(e->b + 1000))};
        iqdb_field fields[2];
        fields[0] = public_field("a", iqdb_int((int64_t)e->a));
        fields[1] = public_field("tags", iqdb_array(tags, 2));
        CHECK_EQ_INT(iqdb_update_payload(db, id, fields, 2), IQDB_OK);
    } else if (what == 19) {
        question q;
        size_t count, wanted = 0;
        ask(&q, (int)support_random_below(random, 6), random);
        for (size_t i = 0; i < IDS; i++) {
            if (!accepts(&q, &model[i])) continue;
            wanted++;
            model[i].lives = 0;
        }
        CHECK_EQ_INT(iqdb_delete_where(db, &q.filter, &count), IQDB_OK);
        CHECK_EQ_INT(count, wanted);
    }
}

/* The same changes with each set of keys, in memory or in a directory that is opened with all of them in turn. */
static void run(bool on_disk) {
    const size_t steps = support_amount(300, 1500, 10000);
    for (size_t set = 0; set < SETS; set++) {
        char path[SUPPORT_PATH_MAX];
        uint64_t random = 7 + set;
        iqdb *db;
        iqdb_options options = options_of(set);
        memset(model, 0, sizeof model);
        if (on_disk) support_directory(path);
        CHECK_EQ_INT(on_disk ? iqdb_open(path, &options, &db) : iqdb_open_in_memory(&options, &db), IQDB_OK);
        for (size_t i = 0; i < steps && test_now.failures == 0; i++) {
            step(db, &random);
            if (i % 50 == 0) check_all(db, &random);
            if (!on_disk || i % 250 != 249) continue;
            if (i % 500 == 499) CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
            CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
            options = options_of((set + i / 250) % SETS);
            CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
            check_all(db, &random);
        }
        iqdb_stats stats;
        CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
        CHECK(on_disk || (stats.key_bytes > 0) == (options.index_key_count > 0));
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        if (on_disk) support_remove(path);
    }
}

static void records_in_memory_are_found(void) { run(false); }

static void records_on_disk_are_found(void) { run(true); }

/* An iterator and a cursor see the records of their beginning, whatever becomes of them and of what lists them. */
static void an_older_state_is_found(void) {
    uint64_t random = 3;
    iqdb *db;
    const iqdb_options options = options_of(2);
    const iqdb_filter filter = iqdb_between("o.b", iqdb_int(100), iqdb_int(199));
    float vector[DIM] = {0};
    iqdb_hit hits[IDS];
    iqdb_cursor *cursor;
    size_t wanted = 0, seen = 0, count;
    bool done;
    memset(model, 0, sizeof model);
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (uint64_t id = 0; id < IDS; id++) {
        change(&model[id], &random);
        CHECK_EQ_INT(store(db, id), IQDB_OK);
        wanted += model[id].has_payload && model[id].b >= 100 && model[id].b < 200;
    }
    iqdb_query query = public_query(vector, DIM, IDS, IQDB_L2);
    query.filter = &filter;
    iqdb_iter iter = iqdb_iter_begin(db, &filter);
    CHECK_EQ_INT(iqdb_cursor_open(db, &query, &cursor), IQDB_OK);
    for (int round = 0; round < 20; round++) { /* more than a log holds */
        for (uint64_t id = 0; id < IDS; id++) {
            change(&model[id], &random);
            model[id].b %= 100;
            CHECK_EQ_INT(store(db, id), IQDB_OK);
        }
    }
    while (iqdb_iter_next(&iter)) {
        const int64_t b = iqdb_payload_int(iter.record.payload, "o.b", 0);
        CHECK(b >= 100 && b < 200);
        seen++;
    }
    CHECK_EQ_INT(iter.result, IQDB_OK);
    CHECK_EQ_INT(seen, wanted);
    iqdb_iter_end(&iter);
    for (done = false, seen = 0; !done; seen += count)
        CHECK_EQ_INT(iqdb_cursor_step(cursor, 100, hits, IDS, &count, &done), IQDB_OK);
    CHECK_EQ_INT(seen, wanted);
    iqdb_cursor_close(cursor);
    CHECK_EQ_INT(iqdb_count(db, &filter, &count), IQDB_OK);
    CHECK_EQ_INT(count, 0);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* Every allocation of a series of writes fails once: the write is refused, and what indexes list is whole. */
static void a_failed_allocation_loses_nothing(void) {
    bool failed = true;
    for (size_t nth = 1; failed; nth += support_amount(7, 1, 1)) {
        support_heap heap = support_heap_make();
        iqdb *db;
        uint64_t random = 11;
        question q;
        iqdb_options options = options_of(1);
        options.allocator = support_allocator(&heap);
        memset(model, 0, sizeof model);
        heap.fail_at = nth;
        iqdb_result result = iqdb_open_in_memory(&options, &db);
        for (uint64_t id = 0; id < IDS && result == IQDB_OK; id++) {
            change(&model[id], &random);
            result = store(db, id);
            if (result != IQDB_OK) model[id].lives = 0;
            if (result == IQDB_ERR_NOMEM) result = IQDB_OK;
        }
        CHECK(result == IQDB_OK || result == IQDB_ERR_NOMEM);
        failed = heap.failed > 0;
        heap.fail_at = 0;
        for (int kind = 0; kind < QUESTIONS && result == IQDB_OK; kind++) {
            ask(&q, kind, &random);
            check_question(db, &q, &random);
        }
        if (result == IQDB_OK) CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(support_heap_problems(&heap), 0);
    }
}

static void sets_that_make_no_sense_are_refused(void) {
    iqdb *db;
    iqdb_options options = iqdb_options_default();
    iqdb_index_key set[2] = {{"a", IQDB_KEY_HASH}, {"a", IQDB_KEY_HASH}};
    options.index_key_count = 1;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_ERR_INVALID_CONFIG);
    options.index_keys = set;
    options.index_key_count = 2;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_ERR_INVALID_CONFIG);
    options.index_key_count = IQDB_INDEX_KEYS_MAX + 1;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_ERR_INVALID_CONFIG);
    options.index_key_count = 1;
    options.dim = 4;
    static uint64_t block[8192];
    CHECK_EQ_INT(iqdb_open_in(block, sizeof block, &options, &db), IQDB_ERR_INVALID_CONFIG);
    set[0].kind = (iqdb_key_kind)7;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_ERR_INVALID_CONFIG);
}

static uint64_t key_bytes(const iqdb *db) {
    iqdb_stats stats;
    EXPECT(iqdb_stat(db, &stats) == IQDB_OK);
    return stats.key_bytes;
}

/* A directory remembers its keys, and so does a copy of it, until others are asked for, or none. */
static void a_directory_remembers_its_keys(void) {
    char path[SUPPORT_PATH_MAX], copy[SUPPORT_PATH_MAX], folder[SUPPORT_PATH_MAX];
    uint64_t random = 3;
    iqdb *db;
    iqdb_options options = options_of(1), defaults = options_of(0);
    support_directory(folder);
    support_join(path, folder, "db");
    support_join(copy, folder, "copy");
    memset(model, 0, sizeof model);
    CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
    for (uint64_t id = 0; id < IDS; id++) {
        change(&model[id], &random);
        CHECK_EQ_INT(store(db, id), IQDB_OK);
    }
    CHECK_EQ_INT(iqdb_backup(db, copy), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    for (int round = 0; round < 3; round++) {
        CHECK_EQ_INT(iqdb_open(round == 2 ? copy : path, &defaults, &db), IQDB_OK);
        CHECK(key_bytes(db) > IDS * 16 * 3);
        check_all(db, &random);
        if (round == 1) CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
    defaults.read_only = true; /* and others are not remembered from there */
    defaults.index_keys = sets[2];
    defaults.index_key_count = 1;
    CHECK_EQ_INT(iqdb_open(path, &defaults, &db), IQDB_OK);
    CHECK(key_bytes(db) > 0 && key_bytes(db) < IDS * 16 * 3);
    check_all(db, &random);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    for (int round = 0; round < 3; round++) { /* as before; none; as before */
        options = options_of(round == 1 ? 1 : 0);
        options.index_key_count = 0;
        CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
        CHECK((key_bytes(db) > 0) == (round == 0));
        check_all(db, &random);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
    support_remove(folder);
}

/* ---- Named collections ---- */

/* Whether a fresh handle of the collection has indexes, as it should, and answers all, by keys where it has. */
static bool collection_has(iqdb *db, size_t set, bool indexed, uint64_t *random) {
    iqdb *collection = NULL;
    const iqdb_options options = options_of(set);
    iqdb_search_info info;
    iqdb_hit hits[IDS];
    size_t count = 0;
    const iqdb_filter filter = iqdb_eq("a", iqdb_int(7));
    if (!EXPECT(iqdb_collection(db, "notes", &options, &collection) == IQDB_OK)) return false;
    const bool has_bytes = EXPECT((key_bytes(collection) > 0) == indexed);
    check_all(collection, random);
    memset(&info, 0, sizeof info);
    iqdb_query query = public_query(model[0].vector, DIM, IDS, IQDB_METRIC_DEFAULT);
    query.filter = &filter;
    query.info = &info;
    const bool ok = EXPECT(iqdb_search(collection, &query, hits, &count) == IQDB_OK) &&
                    EXPECT((info.plan == IQDB_PLAN_KEYS) == indexed);
    return EXPECT(iqdb_close(collection) == IQDB_OK) && has_bytes && ok;
}

static bool reopened_has(const char *path, bool read_only, size_t set, bool indexed, uint64_t *random) {
    iqdb *db = NULL;
    iqdb_options options = options_of(0);
    options.read_only = read_only;
    if (!EXPECT(iqdb_open(path, &options, &db) == IQDB_OK)) return false;
    const bool ok = collection_has(db, set, indexed, random);
    return EXPECT(iqdb_close(db) == IQDB_OK) && ok;
}

/* They remember their keys as a directory does those of the default one: in log, base and delta, and in copies. */
static void collections_remember_their_keys(void) {
    char path[SUPPORT_PATH_MAX], copy[SUPPORT_PATH_MAX], fixed[SUPPORT_PATH_MAX], folder[SUPPORT_PATH_MAX];
    uint64_t random = 3;
    iqdb *db = NULL, *collection = NULL, *follower = NULL;
    iqdb_options options = options_of(1), defaults = options_of(0), reading = options_of(0), none = options_of(1);
    support_directory(folder);
    support_join(path, folder, "db");
    support_join(copy, folder, "copy");
    support_join(fixed, folder, "fixed");
    memset(model, 0, sizeof model);
    reading.read_only = true;
    none.index_key_count = 0;
    CHECK_EQ_INT(iqdb_open(path, &defaults, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(path, &reading, &follower), IQDB_OK);
    CHECK_EQ_INT(iqdb_collection(db, "notes", &options, &collection), IQDB_OK);
    for (uint64_t id = 0; id < IDS; id++) {
        change(&model[id], &random);
        model[id].lives = 1;
        CHECK_EQ_INT(store(collection, id), IQDB_OK);
    }
    CHECK_EQ_INT(iqdb_close(collection), IQDB_OK);
    CHECK_EQ_INT(iqdb_flush(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_refresh(follower), IQDB_OK);
    CHECK(collection_has(follower, 0, true, &random));
    CHECK_EQ_INT(iqdb_close(follower), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    for (int round = 0; round < 4; round++) { /* by the log, behind a base, and behind a delta */
        CHECK(reopened_has(path, true, 0, true, &random));
        CHECK(reopened_has(path, false, 0, true, &random));
        CHECK_EQ_INT(iqdb_open(path, &defaults, &db), IQDB_OK);
        if (round == 2) CHECK_EQ_INT(iqdb_backup(db, copy), IQDB_OK);
        CHECK_EQ_INT(public_put(db, (uint64_t)round, model[0].vector, DIM), IQDB_OK);
        CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
    CHECK(reopened_has(copy, false, 0, true, &random));
    CHECK_EQ_INT(iqdb_repair(path, fixed, &defaults, NULL, NULL), IQDB_OK);
    CHECK(reopened_has(fixed, false, 0, true, &random));
    /* A reader may name others, and none are kept; who writes changes them, and a follower hears of it both ways. */
    CHECK(reopened_has(path, true, 2, true, &random));
    for (int round = 0; round < 4; round++) {
        CHECK_EQ_INT(iqdb_open(path, &reading, &follower), IQDB_OK);
        CHECK_EQ_INT(iqdb_open(path, &defaults, &db), IQDB_OK);
        const iqdb_options *wish = round % 2 == 0 ? &none : &options;
        CHECK_EQ_INT(iqdb_collection(db, "notes", wish, &collection), IQDB_OK);
        CHECK((key_bytes(collection) > 0) == (round % 2 == 1));
        CHECK_EQ_INT(iqdb_close(collection), IQDB_OK);
        if (round >= 2) CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_refresh(follower), IQDB_OK);
        CHECK(collection_has(follower, 0, round % 2 == 1, &random));
        CHECK_EQ_INT(iqdb_close(follower), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK(reopened_has(path, false, 0, round % 2 == 1, &random));
    }
    CHECK(reopened_has(fixed, false, 2, true, &random)); /* other keys, which stay */
    CHECK(reopened_has(fixed, false, 0, true, &random));
    support_remove(folder);
}

/* Each allocation fails once where other keys are kept: they are, or those from before. */
static void a_failed_change_of_keys_changes_nothing(void) {
    char path[SUPPORT_PATH_MAX], folder[SUPPORT_PATH_MAX];
    support_heap heap = support_heap_make();
    bool done = false;
    for (size_t nth = 1; !done && nth < 400; nth++) {
        uint64_t random = 5;
        iqdb *db = NULL, *collection = NULL;
        iqdb_options defaults = options_of(0), wish = options_of(1), plain = options_of(0);
        defaults.allocator = support_allocator(&heap);
        if (nth % 2 == 0) defaults.sync = IQDB_SYNC_EACH;
        support_directory(folder);
        support_join(path, folder, "db");
        CHECK_EQ_INT(iqdb_open(path, &defaults, &db), IQDB_OK);
        CHECK_EQ_INT(iqdb_collection(db, "notes", &plain, &collection), IQDB_OK);
        memset(model, 0, sizeof model);
        for (uint64_t id = 0; id < 40; id++) {
            change(&model[id], &random);
            model[id].lives = 1;
            CHECK_EQ_INT(store(collection, id), IQDB_OK);
        }
        CHECK_EQ_INT(iqdb_close(collection), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_open(path, &defaults, &db), IQDB_OK);
        heap.fail_at = nth;
        const iqdb_result result = iqdb_collection(db, "notes", &wish, &collection);
        done = heap.fail_at != 0;
        heap.fail_at = 0;
        CHECK(result == IQDB_OK || result == IQDB_ERR_NOMEM);
        CHECK_EQ_INT(iqdb_close(collection), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_open(path, &defaults, &db), IQDB_OK);
        CHECK_EQ_INT(iqdb_collection(db, "notes", &plain, &collection), IQDB_OK);
        CHECK((key_bytes(collection) > 0) == (result == IQDB_OK));
        check_all(collection, &random);
        CHECK_EQ_INT(iqdb_close(collection), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        support_remove(folder);
    }
    CHECK(done);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* ---- Readers beside a writer ---- */

#ifndef IQDB_NO_THREADS
#include <pthread.h>

enum {
    TURNING = 64
};

typedef struct race {
    iqdb *db;
    int over;  /* atomic */
    int wrong; /* atomic */
    size_t looks;
} race;

/* Of each batch all records have the same turn, so at any moment all or none of them have this one. */
static void *look_on(void *user) {
    race *r = (race *)user;
    for (int64_t turn = 0; !__atomic_load_n(&r->over, __ATOMIC_ACQUIRE); turn = (turn + 1) % 7) {
        size_t sum = 0, count = 0;
        const iqdb_filter one = iqdb_eq("turn", iqdb_int(turn)), all = iqdb_ge("turn", iqdb_int(0));
        iqdb_iter iter = iqdb_iter_begin(r->db, &one);
        while (iqdb_iter_next(&iter)) count++;
        iqdb_iter_end(&iter);
        const bool whole =
            (count == 0 || count == TURNING) && iqdb_count(r->db, &all, &sum) == IQDB_OK && sum == TURNING;
        if (!whole) __atomic_store_n(&r->wrong, 1, __ATOMIC_RELEASE);
        r->looks++;
    }
    return NULL;
}

static void readers_find_all_of_a_batch(void) {
    const iqdb_index_key set[] = {{"turn", IQDB_KEY_ORDERED}, {"turn", IQDB_KEY_HASH}};
    iqdb_options options = iqdb_options_default();
    race r;
    pthread_t thread;
    iqdb_record records[TURNING];
    iqdb_field field;
    const float vector[2] = {1, 2};
    memset(&r, 0, sizeof r);
    options.index_keys = set;
    options.index_key_count = 2;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &r.db), IQDB_OK);
    for (size_t turn = 0; turn < support_amount(300, 3000, 30000); turn++) {
        field = public_field("turn", iqdb_int((int64_t)(turn % 7)));
        for (size_t i = 0; i < TURNING; i++) {
            records[i] = public_record(i, vector, 2);
            records[i].fields = &field;
            records[i].field_count = 1;
        }
        CHECK_EQ_INT(iqdb_upsert_batch(r.db, records, TURNING), IQDB_OK);
        if (turn == 0) CHECK_EQ_INT(pthread_create(&thread, NULL, look_on, &r), 0);
    }
    __atomic_store_n(&r.over, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    CHECK_EQ_INT(r.wrong, 0);
    CHECK_EQ_INT(iqdb_close(r.db), IQDB_OK);
}
#else
static void readers_find_all_of_a_batch(void) { TEST_SKIP("there are no threads"); }
#endif

TEST_MAIN("api/keys", TEST(records_in_memory_are_found), TEST(records_on_disk_are_found), TEST(an_older_state_is_found),
          TEST(a_failed_allocation_loses_nothing), TEST(sets_that_make_no_sense_are_refused),
          TEST(a_directory_remembers_its_keys), TEST(collections_remember_their_keys),
          TEST(a_failed_change_of_keys_changes_nothing),
          TEST(readers_find_all_of_a_batch))
