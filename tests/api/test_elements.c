/* Vectors of other elements than f32, through the public header: what is stored is what comes back, bit for bit, by every
 * way in which a database is kept or copied; and every form of search gives what a look at all records gives, by scores
 * that are written down here a second time. */
#include "public.h"

enum {
    IDS = 400,
    DIM_MAX = 300,
    RAW_MAX = DIM_MAX * 2,
    GROUPS = 7
};

static const iqdb_element elements[5] = {IQDB_ELEMENT_F16, IQDB_ELEMENT_BF16, IQDB_ELEMENT_I8, IQDB_ELEMENT_U8,
                                         IQDB_ELEMENT_BIT};

typedef struct model {
    iqdb_element element;
    uint32_t dim;
    int kind;      /* 0: numbers near each other, 1: any, 2: of few vectors, so that scores are equal */
    bool is_small; /* the database lies in a block, where cursors are short */
    bool present[IDS];
    uint8_t raw[IDS][RAW_MAX];
} model;

static size_t raw_size(iqdb_element element, uint32_t dim) {
    if (element == IQDB_ELEMENT_BIT) return (dim + 7) / 8;
    return element == IQDB_ELEMENT_F16 || element == IQDB_ELEMENT_BF16 ? 2 * (size_t)dim : dim;
}

static float number(iqdb_element element, const uint8_t *raw, size_t i) {
    uint16_t half;
    if (element == IQDB_ELEMENT_U8) return (float)raw[i];
    if (element == IQDB_ELEMENT_I8) return (float)(raw[i] < 128 ? raw[i] : raw[i] - 256);
    if (element == IQDB_ELEMENT_BIT) return (float)(raw[i / 8] >> i % 8 & 1);
    memcpy(&half, raw + 2 * i, 2);
    if (element == IQDB_ELEMENT_BF16) {
        const uint32_t bits = (uint32_t)half << 16;
        float value;
        memcpy(&value, &bits, 4);
        return value;
    }
    const int exponent = half >> 10 & 31, digits = half & 1023;
    const float size = exponent == 0 ? ldexpf((float)digits, -24) : ldexpf((float)(1024 + digits), exponent - 25);
    return half >> 15 != 0 ? -size : size;
}

static float score_of(iqdb_element element, iqdb_metric metric, const uint8_t *a, const uint8_t *b, uint32_t dim) {
    static float x[DIM_MAX], y[DIM_MAX];
    int64_t products = 0, squares = 0, absolutes = 0, a_square = 0, b_square = 0;
    for (uint32_t i = 0; i < dim; i++) {
        x[i] = number(element, a, i);
        y[i] = number(element, b, i);
    }
    if (element == IQDB_ELEMENT_F16 || element == IQDB_ELEMENT_BF16) return model_score(metric, x, y, dim);
    for (uint32_t i = 0; i < dim; i++) {
        const int64_t p = (int64_t)x[i], q = (int64_t)y[i];
        products += p * q;
        squares += (p - q) * (p - q);
        absolutes += p < q ? q - p : p - q;
        a_square += p * p;
        b_square += q * q;
    }
    if (metric == IQDB_HAMMING || metric == IQDB_L1) return (float)absolutes;
    if (metric == IQDB_L2) return (float)sqrt((double)(float)squares);
    if (metric == IQDB_DOT) return products == 0 ? 0.0f : (float)-products;
    if (a_square == 0 || b_square == 0) return 1.0f;
    const volatile float by_a = (float)products / (float)sqrt((double)(float)a_square);
    const volatile float by_both = by_a / (float)sqrt((double)(float)b_square);
    const volatile float score = 1.0f - by_both;
    return score > 2.0f ? 2.0f : score > 0.0f ? score : 0.0f;
}

/* A vector of a kind; nothing that is no number. */
static void fill(const model *m, uint8_t *raw, uint64_t *random) {
    uint64_t few = support_random_below(random, 5), *source = m->kind == 2 ? &few : random;
    for (uint32_t i = 0; i < m->dim; i++) {
        const uint64_t dice = support_random(source);
        uint16_t half = (uint16_t)dice;
        if (m->element == IQDB_ELEMENT_F16 && (m->kind == 0 || (half & 0x7C00u) == 0x7C00u))
            half = (uint16_t)((half & 0x83FFu) | (12u + dice % 5) << 10);
        if (m->element == IQDB_ELEMENT_BF16 && (m->kind == 0 || (half & 0x7F80u) == 0x7F80u))
            half = (uint16_t)((half & 0x807Fu) | (125u + dice % 5) << 7);
        if (m->element == IQDB_ELEMENT_BIT) {
            raw[i / 8] = (uint8_t)((i % 8 == 0 ? 0 : raw[i / 8]) | (dice >> 20 & 1) << i % 8);
        } else if (raw_size(m->element, 1) == 2) {
            memcpy(raw + 2 * (size_t)i, &half, 2);
        } else {
            raw[i] = (uint8_t)(m->kind == 0 ? dice % 11 : dice);
        }
    }
}

static void put(iqdb *db, model *m, uint64_t id, uint64_t *random) {
    const iqdb_field field = public_field("g", iqdb_int((int64_t)(id % GROUPS)));
    iqdb_record record = iqdb_record_default();
    fill(m, m->raw[id], random);
    m->present[id] = true;
    record.id = id;
    record.raw = m->raw[id];
    record.dim = m->dim;
    record.fields = &field;
    record.field_count = 1;
    CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
}

static void change(iqdb *db, model *m, uint64_t *random) {
    const uint64_t id = support_random_below(random, IDS);
    bool removed = false;
    if (support_random_below(random, 4) != 0) {
        put(db, m, id, random);
        return;
    }
    CHECK_EQ_INT(iqdb_delete(db, id, &removed), IQDB_OK);
    CHECK_EQ_INT(removed, m->present[id]);
    m->present[id] = false;
}

/* Every record is there as it was stored, by id and by iteration, and the checks find nothing. */
static void holds(iqdb *db, const model *m) {
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_stats stats;
    const size_t size = raw_size(m->element, m->dim);
    size_t count = 0;
    for (uint64_t id = 0; id < IDS; id++) {
        iqdb_record record = iqdb_record_default();
        CHECK_EQ_INT(iqdb_get(db, id, &buffer, &record), m->present[id] ? IQDB_OK : IQDB_ERR_NOT_FOUND);
        if (!m->present[id]) continue;
        count++;
        CHECK(record.vector == NULL && record.dim == m->dim && memcmp(record.raw, m->raw[id], size) == 0);
        CHECK_EQ_INT(iqdb_payload_int(record.payload, "g", -1), (int64_t)(id % GROUPS));
    }
    CHECK_EQ_U64(iqdb_len(db), count);
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    for (; iqdb_iter_next(&iter); count--) {
        CHECK(iter.record.vector == NULL && iter.record.dim == m->dim && iter.record.id < IDS);
        CHECK(memcmp(iter.record.raw, m->raw[iter.record.id], size) == 0);
    }
    iqdb_iter_end(&iter);
    CHECK_EQ_U64(count, 0);
    CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    CHECK_EQ_INT(stats.element, m->element);
    iqdb_buffer_free(&buffer);
}

static bool ranks_before(iqdb_hit a, iqdb_hit b) { return a.score < b.score || (a.score == b.score && a.id < b.id); }

static int by_rank(const void *a, const void *b) {
    const iqdb_hit x = *(const iqdb_hit *)a, y = *(const iqdb_hit *)b;
    return ranks_before(x, y) ? -1 : ranks_before(y, x);
}

/* What a query asks for, over all records. */
static size_t expected_hits(const model *m, const iqdb_query *query, iqdb_metric metric, int64_t group,
                            iqdb_hit *hits) {
    size_t count = 0;
    bool taken[GROUPS] = {false};
    for (uint64_t id = 0; id < IDS; id++) {
        iqdb_hit hit;
        bool listed = query->ids == NULL;
        memset(&hit, 0, sizeof hit);
        for (size_t i = 0; i < query->id_count; i++) listed = listed || query->ids[i] == id;
        if (!m->present[id] || !listed || (group >= 0 && (int64_t)(id % GROUPS) != group)) continue;
        hit.id = id;
        hit.score = score_of(m->element, metric, (const uint8_t *)query->raw, m->raw[id], m->dim);
        if ((query->flags & IQDB_MAX_DISTANCE) != 0 && hit.score > query->max_distance) continue;
        if ((query->flags & IQDB_AFTER) != 0 && !ranks_before(query->after, hit)) continue;
        hits[count++] = hit;
    }
    qsort(hits, count, sizeof *hits, by_rank);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t own = (size_t)(hits[i].id % GROUPS);
        if (query->group_by != NULL && taken[own]) continue;
        taken[own] = true;
        hits[kept++] = hits[i];
    }
    return kept < query->k ? kept : query->k;
}

static void same_hits(const model *m, const iqdb_query *query, const iqdb_hit *hits, size_t count,
                      const iqdb_hit *expected, size_t expected_count) {
    CHECK_EQ_U64(count, expected_count);
    for (size_t i = 0; i < count; i++) {
        CHECK_EQ_U64(hits[i].id, expected[i].id);
        CHECK_EQ_F32(hits[i].score, expected[i].score);
        CHECK((query->flags & IQDB_WITH_VECTOR) == 0 ||
              (hits[i].vector == NULL && memcmp(hits[i].raw, m->raw[hits[i].id], raw_size(m->element, m->dim)) == 0));
        CHECK((query->flags & IQDB_WITH_PAYLOAD) == 0 ||
              iqdb_payload_int(hits[i].payload, "g", -1) == (int64_t)(hits[i].id % GROUPS));
    }
}

static bool of_third(const iqdb_record *record, void *user) {
    (void)user;
    return record->raw != NULL && record->id % GROUPS == 3;
}

/* One query in some form, alone, in a batch, and by a cursor. */
static void search(const iqdb *db, const model *m, iqdb_metric metric, uint64_t *random) {
    static iqdb_hit hits[3 * IDS], expected[IDS];
    static uint8_t raw[3 * RAW_MAX];
    uint64_t ids[40];
    size_t count = 0, counts[3], size = raw_size(m->element, m->dim);
    bool done = false;
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_query query = iqdb_query_default();
    iqdb_cursor *cursor = NULL;
    int64_t group = -1;
    const iqdb_filter filter = iqdb_eq("g", iqdb_int(2));
    for (size_t i = 0; i < 3; i++) fill(m, raw + i * size, random);
    if (support_random_below(random, 3) == 0) memcpy(raw, m->raw[support_random_below(random, IDS)], size);
    query.raw = raw;
    query.k = 1 + support_random_below(random, !m->is_small && support_random_below(random, 5) == 0 ? IDS : 20);
    query.metric = support_random_below(random, 2) == 0 ? metric : IQDB_METRIC_DEFAULT;
    if (support_random_below(random, 2) == 0) query.dim = m->dim;
    const uint64_t form = support_random_below(random, 8);
    if (form == 1) query.filter = &filter;
    if (form == 1) group = 2;
    if (form == 2) query.predicate = of_third;
    if (form == 2) group = 3;
    for (size_t i = 0; i < 40; i++) ids[i] = support_random_below(random, IDS + 5);
    if (form == 3) query.ids = ids;
    if (form == 3) query.id_count = 40;
    if (form >= 4) {
        const uint64_t some = support_random_below(random, IDS);
        query.after.id = some;
        query.after.score = query.max_distance = score_of(m->element, metric, raw, m->raw[some], m->dim);
    }
    if (form == 4) query.flags = IQDB_MAX_DISTANCE;
    if (form == 5) query.flags = IQDB_AFTER;
    if (form == 6) query.group_by = "g";
    if (support_random_below(random, 2) == 0) query.flags |= IQDB_WITH_VECTOR | IQDB_WITH_PAYLOAD;
    query.buffer = &buffer;
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
    same_hits(m, &query, hits, count, expected, expected_hits(m, &query, metric, group, expected));
    CHECK_EQ_INT(iqdb_search_batch(db, &query, raw, 3, hits, counts), IQDB_OK);
    for (size_t i = 0; i < 3; i++) {
        iqdb_query one = query;
        one.raw = raw + i * size;
        same_hits(m, &query, hits + i * query.k, counts[i], expected, expected_hits(m, &one, metric, group, expected));
    }
    CHECK_EQ_INT(iqdb_cursor_open(db, &query, &cursor), IQDB_OK);
    const size_t wanted = expected_hits(m, &query, metric, group, expected);
    for (size_t given = 0; !done; given += count) {
        CHECK_EQ_INT(iqdb_cursor_step(cursor, 1, hits, 3, &count, &done), IQDB_OK);
        CHECK(given + count <= wanted && (!done || given + count == wanted));
        same_hits(m, &query, hits, count, expected + given, count);
    }
    iqdb_cursor_close(cursor);
    iqdb_buffer_free(&buffer);
}

static iqdb_options options_of(const model *m, iqdb_metric metric) {
    iqdb_options options = iqdb_options_default();
    options.element = m->element;
    options.metric = metric;
    return options;
}

static void start(model *m, iqdb_element element, uint32_t dim, int kind) {
    memset(m, 0, sizeof *m);
    m->element = element;
    m->dim = dim;
    m->kind = kind;
}

static void searches_are_those_of_a_look_at_every_record(void) {
    static model m;
    uint64_t random = 1;
    const uint32_t dims[] = {1, 7, 8, 63, 64, 65, 128, 100, 257, DIM_MAX};
    const size_t rounds = support_amount(3, 12, 60);
    for (size_t e = 0; e < 5; e++) {
        for (int metric = IQDB_L2; metric <= IQDB_HAMMING; metric++) {
            if ((metric == IQDB_HAMMING) != (elements[e] == IQDB_ELEMENT_BIT)) continue;
            for (size_t d = 0; d < sizeof dims / sizeof *dims; d += support_amount(3, 1, 1)) {
                iqdb *db = NULL;
                start(&m, elements[e], dims[d], (int)((d + (size_t)metric) % 3));
                const iqdb_options options = options_of(&m, (iqdb_metric)metric);
                CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
                for (uint64_t id = 0; id < IDS; id += 1 + id % 3) put(db, &m, id, &random);
                for (size_t round = 0; round < rounds; round++) {
                    for (int i = 0; i < 20; i++) change(db, &m, &random);
                    for (int i = 0; i < 4; i++) search(db, &m, (iqdb_metric)metric, &random);
                    if (elements[e] != IQDB_ELEMENT_BIT) /* a query by another metric */
                        search(db, &m, (iqdb_metric)metric, &random);
                }
                holds(db, &m);
                CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
            }
        }
    }
}

typedef struct blob {
    uint8_t *bytes;
    size_t size, capacity;
} blob;

static bool take(const void *bytes, size_t size, void *user) {
    blob *to = (blob *)user;
    if (to->size + size > to->capacity) {
        to->capacity = 2 * (to->size + size);
        to->bytes = (uint8_t *)realloc(to->bytes, to->capacity);
    }
    memcpy(to->bytes + to->size, bytes, size);
    to->size += size;
    return true;
}

/* Log, snapshot, deltas, blobs in place and copied, backup, repair, a follower, and a collection beside. */
static void every_way_of_keeping_keeps_every_bit(void) {
    static model m, other;
    uint64_t random = 2;
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX], copy[SUPPORT_PATH_MAX];
    support_directory(folder);
    support_join(path, folder, "db");
    support_join(copy, folder, "copy");
    for (size_t e = 0; e < 5; e++) {
        iqdb *db = NULL, *beside = NULL, *follower = NULL, *again = NULL;
        const iqdb_metric metric = elements[e] == IQDB_ELEMENT_BIT ? IQDB_HAMMING : IQDB_L2;
        blob bytes = {NULL, 0, 0};
        start(&m, elements[e], 9 + 37 * (uint32_t)e, 1);
        start(&other, elements[(e + 1) % 5], 64, 1);
        iqdb_options options = options_of(&m, metric), plain = iqdb_options_default(), reader = plain;
        options.files = plain.files = reader.files = public_quick_files();
        reader.read_only = true;
        CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
        const iqdb_options beside_options = options_of(&other, IQDB_METRIC_DEFAULT);
        CHECK_EQ_INT(iqdb_collection(db, "beside", &beside_options, &beside), IQDB_OK);
        for (int i = 0; i < 300; i++) change(db, &m, &random);
        for (int i = 0; i < 100; i++) change(beside, &other, &random);
        CHECK_EQ_INT(iqdb_open(path, &reader, &follower), IQDB_OK); /* from the log alone */
        holds(follower, &m);
        for (int part = 0; part < 3; part++) {
            CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK); /* a base, deltas */
            for (int i = 0; i < 40; i++) change(db, &m, &random);
            for (int i = 0; i < 40; i++) change(beside, &other, &random);
            CHECK_EQ_INT(iqdb_refresh(follower), IQDB_OK);
            holds(follower, &m);
            search(follower, &m, metric, &random);
        }
        CHECK_EQ_INT(iqdb_close(follower), IQDB_OK);
        CHECK_EQ_INT(iqdb_update_payload(db, IDS + 1, NULL, 0), IQDB_ERR_NOT_FOUND);
        for (uint64_t id = 0; id < IDS; id++) /* the vector stays */
            if (m.present[id]) CHECK_EQ_INT(iqdb_update_payload(db, id, NULL, 0), IQDB_OK);
        CHECK_EQ_INT(iqdb_backup(db, copy), IQDB_OK);
        CHECK_EQ_INT(iqdb_export_blob(db, take, &bytes), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(beside), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        for (int way = 0; way < 5;
             way++) { /* what is stored fixes element and metric: options that say nothing will do */
            void *aligned = NULL;
            if (way == 0) CHECK_EQ_INT(iqdb_open(path, &plain, &again), IQDB_OK);
            if (way == 1) CHECK_EQ_INT(iqdb_open(copy, &plain, &again), IQDB_OK);
            if (way == 2) CHECK_EQ_INT(iqdb_load_blob(bytes.bytes, bytes.size, NULL, &again), IQDB_OK);
            if (way == 3) {
                aligned = support_aligned_alloc(bytes.size + 8, 64);
                CHECK(aligned != NULL);
                uint8_t *at = (uint8_t *)aligned + 8 * (e % 2);
                memcpy(at, bytes.bytes, bytes.size);
                CHECK_EQ_INT(iqdb_open_blob(at, bytes.size, NULL, &again), IQDB_OK);
            }
            if (way == 4) {
                support_remove(copy);
                CHECK_EQ_INT(iqdb_repair(path, copy, &plain, NULL, NULL), IQDB_OK);
                CHECK_EQ_INT(iqdb_open(copy, &plain, &again), IQDB_OK);
            }
            holds(again, &m);
            search(again, &m, metric, &random);
            CHECK_EQ_INT(iqdb_collection(again, "beside", NULL, &beside), IQDB_OK);
            holds(beside, &other);
            CHECK_EQ_INT(iqdb_close(beside), IQDB_OK);
            CHECK_EQ_INT(iqdb_close(again), IQDB_OK);
            support_aligned_free(aligned);
        }
        iqdb_stats stats;
        CHECK_EQ_INT(iqdb_inspect(path, &stats), IQDB_OK);
        CHECK(stats.element == elements[e] && stats.metric == metric);
        free(bytes.bytes);
        support_remove(path);
        support_remove(copy);
    }
    support_remove(folder);
}

/* Without META, and with the snapshot's list damaged, too, rows of bits and bytes are found. */
static void repair_needs_no_meta(void) {
    static model m;
    uint64_t random = 3;
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX], copy[SUPPORT_PATH_MAX];
    support_directory(folder);
    support_join(path, folder, "db");
    support_join(copy, folder, "copy");
    for (size_t e = 0; e < 5; e++) {
        iqdb *db = NULL;
        start(&m, elements[e], 77, 1);
        iqdb_options options = options_of(&m, IQDB_METRIC_DEFAULT);
        options.files = public_quick_files();
        CHECK_EQ_INT(iqdb_open(path, &options, &db), IQDB_OK);
        for (int i = 0; i < 100; i++) change(db, &m, &random);
        CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        for (size_t at = 0; at < 8192; at += 512) CHECK(public_flip(path, "META", at, 0xFF));
        options.element = IQDB_ELEMENT_F32; /* the snapshot tells */
        CHECK_EQ_INT(iqdb_repair(path, copy, &options, NULL, NULL), IQDB_OK);
        CHECK_EQ_INT(iqdb_open(copy, &options, &db), IQDB_OK);
        holds(db, &m);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        support_remove(path);
        support_remove(copy);
    }
    support_remove(folder);
}

/* Searches through lists have the scores of a look at every record, and as many hits; of all lists nearly the same. */
static void search_lists(iqdb *db, const model *m, iqdb_metric metric, size_t k, uint64_t *random, size_t *all,
                         size_t *found) {
    uint8_t raw[RAW_MAX];
    iqdb_hit hits[IDS], expected[IDS];
    iqdb_search_info info;
    size_t count = 0;
    const iqdb_filter filter = iqdb_eq("g", iqdb_int(3));
    for (int turn = 0; turn < 3; turn++) { /* all lists, as many as are calibrated, and with a filter */
        iqdb_query query = iqdb_query_default();
        fill(m, raw, random);
        query.raw = raw;
        query.k = k;
        query.info = &info;
        query.nprobe = turn == 0 ? 100 : 0;
        if (turn == 2) query.filter = &filter;
        size_t matches = expected_hits(m, &query, metric, turn == 2 ? 3 : -1, expected);
        if (matches > k) matches = k;
        CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
        CHECK_EQ_U64(count, matches);
        CHECK(turn > 0 || info.plan == IQDB_PLAN_LISTS || info.plan == IQDB_PLAN_SCAN);
        for (size_t i = 0; i < count; i++) {
            CHECK(hits[i].id < IDS && m->present[hits[i].id] && (turn < 2 || hits[i].id % GROUPS == 3));
            CHECK_EQ_F32(hits[i].score, score_of(m->element, metric, raw, m->raw[hits[i].id], m->dim));
            CHECK(i == 0 || ranks_before(hits[i - 1], hits[i]));
            *found += turn == 0 && hits[i].score <= expected[count - 1].score;
            *all += turn == 0;
        }
    }
}

static void lists_are_of_every_element(void) {
    static model m;
    uint64_t random = 9;
    for (size_t e = 0; e < 5; e++) {
        const bool bits = elements[e] == IQDB_ELEMENT_BIT;
        for (int metric = bits ? IQDB_HAMMING : IQDB_L2; metric <= (bits ? IQDB_HAMMING : IQDB_L1); metric++) {
            const uint32_t dims[] = {7, 64, 100};
            for (int kind = 0; kind < 3; kind++) {
                iqdb *db = NULL;
                iqdb_stats stats;
                size_t all = 0, found = 0;
                bool done = false;
                start(&m, elements[e], dims[kind], kind);
                iqdb_options options = options_of(&m, (iqdb_metric)metric);
                blob bytes = {NULL, 0, 0};
                options.index = IQDB_INDEX_IVF;
                options.nlist = 8;
                CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
                for (uint64_t id = 0; id < IDS; id++) put(db, &m, id, &random);
                for (int round = 0; round < 3; round++) {
                    for (int i = 0; i < 60; i++) change(db, &m, &random);
                    for (done = false; !done;) CHECK_EQ_INT(iqdb_maintain(db, 1000, &done), IQDB_OK);
                    holds(db, &m);
                    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
                    CHECK(stats.index == IQDB_INDEX_IVF && stats.tail_rows == 0 && stats.index_lists > 1);
                    if (round == 1) CHECK_EQ_INT(iqdb_tune(db, 0.99f, NULL, 0), IQDB_OK);
                    for (size_t i = 0; i < 5; i++)
                        search_lists(db, &m, (iqdb_metric)metric, 1 + i * 9, &random, &all, &found);
                    if (round != 1) continue;
                    CHECK_EQ_INT(iqdb_export_blob(db, take, &bytes), IQDB_OK);
                    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
                    CHECK_EQ_INT(iqdb_load_blob(bytes.bytes, bytes.size, &options, &db), IQDB_OK);
                    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
                    CHECK_EQ_U64(stats.index_rows, stats.records);
                    search_lists(db, &m, (iqdb_metric)metric, 10, &random, &all, &found);
                }
                if (!EXPECT(found * 100 >= all * 97))
                    printf("\n      ... %zu of %zu, element %d, metric %d, kind %d", found, all, (int)elements[e],
                           metric, kind);
                CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
                free(bytes.bytes);
            }
        }
    }
}

/* As many records as were asked for, and not one less, in exactly the memory that was said. */
static void blocks_hold_what_they_promise(void) {
    static model m;
    uint64_t random = 4;
    for (size_t e = 0; e < 5; e++) {
        iqdb *db = NULL;
        start(&m, elements[e], 100, 1);
        m.is_small = true;
        iqdb_options options = options_of(&m, IQDB_METRIC_DEFAULT);
        CHECK_EQ_U64(iqdb_memory_required(&options, 10, 0), 0); /* no dimension */
        options.dim = m.dim;
        const size_t size = iqdb_memory_required(&options, IDS, IDS * 64);
        CHECK(size > IDS * raw_size(elements[e], m.dim) &&
              size < IDS * (raw_size(elements[e], m.dim) + 64 + 512) + 40000);
        uint8_t *memory = (uint8_t *)malloc(size + 1);
        CHECK_EQ_INT(iqdb_open_in(memory + 1, size, &options, &db), IQDB_OK);
        for (uint64_t id = 0; id < IDS; id++) put(db, &m, id, &random);
        for (int i = 0; i < 100; i++) change(db, &m, &random);
        for (int i = 0; i < 10; i++)
            search(db, &m, elements[e] == IQDB_ELEMENT_BIT ? IQDB_HAMMING : IQDB_COSINE, &random);
        holds(db, &m);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        free(memory);
    }
}

static iqdb_result put_raw(iqdb *db, const void *raw, uint32_t dim) {
    iqdb_record record = iqdb_record_default();
    record.raw = raw;
    record.dim = dim;
    return iqdb_upsert(db, &record);
}

static iqdb_result search_raw(iqdb *db, const void *raw, uint32_t dim, iqdb_metric metric) {
    iqdb_hit hits[2];
    size_t count;
    iqdb_query query = iqdb_query_default();
    query.raw = raw;
    query.dim = dim;
    query.k = 2;
    query.metric = metric;
    return iqdb_search(db, &query, hits, &count);
}

static void what_is_no_vector_is_refused(void) {
    const uint16_t f16[3][2] = {{0x7C00, 0}, {0, 0xFC00}, {0x7E00, 0}}, f16_good[2] = {0x7BFF, 0xFBFF};
    const uint16_t bf16[3][2] = {{0x7F80, 0}, {0, 0xFF80}, {0x7FC0, 0}}, bf16_good[2] = {0x7F7F, 0xFF7F};
    const uint8_t bits[2] = {0xFF, 0x04}, bits_good[2] = {0xFF, 0x03};
    const float floats[2] = {1.0f, 2.0f};
    for (size_t e = 0; e < 5; e++) {
        iqdb *db = NULL;
        const iqdb_metric other = elements[e] == IQDB_ELEMENT_BIT ? IQDB_COSINE : IQDB_HAMMING;
        const void *good = e == 0 ? (const void *)f16_good : e == 1 ? (const void *)bf16_good : (const void *)bits_good;
        const uint32_t dim = e == 4 ? 10 : 2;
        iqdb_options options = iqdb_options_default();
        options.element = elements[e];
        CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
        CHECK_EQ_INT(put_raw(db, NULL, dim), IQDB_ERR_INVALID_ARGUMENT);
        CHECK_EQ_INT(public_put(db, 1, floats, 2), IQDB_ERR_INVALID_ARGUMENT); /* no raw */
        for (size_t i = 0; i < 3 && e < 2; i++)
            CHECK_EQ_INT(put_raw(db, e == 0 ? f16[i] : bf16[i], dim), IQDB_ERR_INVALID_VECTOR);
        if (e == 4) CHECK_EQ_INT(put_raw(db, bits, dim), IQDB_ERR_INVALID_VECTOR);
        CHECK_EQ_INT(put_raw(db, good, 0), IQDB_ERR_INVALID_VECTOR);
        CHECK_EQ_INT(put_raw(db, good, dim), IQDB_OK);
        CHECK_EQ_INT(put_raw(db, good, dim - 1), e == 4 ? IQDB_ERR_INVALID_VECTOR : IQDB_ERR_DIMENSION_MISMATCH);
        CHECK_EQ_INT(search_raw(db, NULL, dim, IQDB_METRIC_DEFAULT), IQDB_ERR_INVALID_ARGUMENT);
        for (size_t i = 0; i < 3 && e < 2; i++)
            CHECK_EQ_INT(search_raw(db, e == 0 ? f16[i] : bf16[i], 0, IQDB_METRIC_DEFAULT), IQDB_ERR_INVALID_VECTOR);
        if (e == 4) CHECK_EQ_INT(search_raw(db, bits, 0, IQDB_HAMMING), IQDB_ERR_INVALID_VECTOR);
        CHECK_EQ_INT(search_raw(db, good, 0, other), IQDB_ERR_INVALID_ARGUMENT);
        CHECK_EQ_INT(search_raw(db, good, 1, IQDB_METRIC_DEFAULT),
                     e == 4 ? IQDB_ERR_INVALID_VECTOR : IQDB_ERR_DIMENSION_MISMATCH);
        CHECK_EQ_INT(search_raw(db, good, 0, IQDB_METRIC_DEFAULT), IQDB_OK);
        CHECK_EQ_U64(iqdb_len(db), 1);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        options.metric = other;
        CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_ERR_INVALID_CONFIG);
        CHECK(db == NULL);
        options.metric = IQDB_METRIC_DEFAULT;
        options.index = IQDB_INDEX_HNSW;
        CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_ERR_INVALID_CONFIG);
        options.index = IQDB_INDEX_AUTO;
        CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
        options.index = IQDB_INDEX_HNSW;
        CHECK_EQ_INT(iqdb_reindex(db, &options), IQDB_ERR_INVALID_CONFIG);
        CHECK_EQ_INT(iqdb_tune(db, 0.9f, floats, 1), IQDB_ERR_INVALID_ARGUMENT);
        CHECK_EQ_INT(iqdb_tune(db, 0.9f, NULL, 0), IQDB_OK);
        options.index = IQDB_INDEX_FLAT;
        CHECK_EQ_INT(iqdb_reindex(db, &options), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
}

static void options_agree_with_what_is_stored(void) {
    char folder[SUPPORT_PATH_MAX];
    iqdb *db = NULL, *beside = NULL;
    iqdb_stats stats;
    support_directory(folder);
    iqdb_options options = iqdb_options_default(), wrong = options;
    options.files = wrong.files = public_quick_files();
    options.metric = IQDB_HAMMING; /* which implies bits */
    CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    CHECK(stats.element == IQDB_ELEMENT_BIT && stats.metric == IQDB_HAMMING);
    wrong.element = IQDB_ELEMENT_U8;
    CHECK_EQ_INT(iqdb_collection(db, "a", &wrong, &beside), IQDB_OK);
    CHECK_EQ_INT(iqdb_stat(beside, &stats), IQDB_OK);
    CHECK(stats.element == IQDB_ELEMENT_U8 && stats.metric == IQDB_COSINE);
    CHECK_EQ_INT(iqdb_close(beside), IQDB_OK);
    CHECK_EQ_INT(iqdb_collection(db, "a", &options, &beside), IQDB_ERR_INVALID_CONFIG);
    wrong.element = (iqdb_element)6;
    CHECK_EQ_INT(iqdb_collection(db, "a", &wrong, &beside), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(folder, &wrong, &db), IQDB_ERR_INVALID_CONFIG);
    for (int element = IQDB_ELEMENT_F16; element < IQDB_ELEMENT_BIT; element++) {
        wrong.element = (iqdb_element)element;
        CHECK_EQ_INT(iqdb_open(folder, &wrong, &db), IQDB_ERR_INVALID_CONFIG);
    }
    options.metric = IQDB_METRIC_DEFAULT;
    options.element = IQDB_ELEMENT_BIT;
    CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
}

/* ---- codes ---- */

enum {
    MANY = 5000 /* rows, which codes are used for */
};

static void put_many(iqdb *db, const model *m, uint64_t id, const uint8_t *raw) {
    const iqdb_field field = public_field("g", iqdb_int((int64_t)(id % GROUPS)));
    iqdb_record record = iqdb_record_default();
    record.id = id;
    record.raw = raw;
    record.dim = m->dim;
    record.fields = &field;
    record.field_count = 1;
    CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
}

/* Searches through codes give the hits, and the bits of their scores, that they give without; and most of them compare few
 * vectors where these are near each other. */
static void codes_change_no_answer(void) {
    static model m;
    static uint8_t centres[20][RAW_MAX], raw[5 * RAW_MAX];
    static iqdb_hit hits[2][5 * 300];
    uint64_t random = 5, through = 0, with_profit = 0, all = 0;
    const size_t searches = support_amount(4, 60, 400);
    for (size_t e = 0; e < 4; e += support_amount(3, 1, 1)) {
        for (int metric = IQDB_L2; metric <= IQDB_DOT; metric++) {
            iqdb *db[2] = {NULL, NULL};
            size_t counts[2][5];
            start(&m, elements[e], metric == IQDB_L2 ? 64 : 100, (int)((e + (size_t)metric) % 2));
            const size_t size = raw_size(m.element, m.dim);
            for (int i = 0; i < 2; i++) {
                iqdb_options options = options_of(&m, (iqdb_metric)metric);
                options.no_codes = i == 1;
                CHECK_EQ_INT(iqdb_open_in_memory(&options, &db[i]), IQDB_OK);
            }
            for (size_t i = 0; i < 20; i++) fill(&m, centres[i], &random);
            for (uint64_t id = 0; id < MANY + 500; id++) { /* near a centre: of its bytes, a few differ */
                memcpy(raw, centres[id % 20], size);
                fill(&m, raw + size, &random);
                for (size_t i = 0; i < size / 2; i++)
                    if (support_random_below(&random, 6) == 0) memcpy(raw + 2 * i, raw + size + 2 * i, 2);
                for (int i = 0; i < 2; i++) put_many(db[i], &m, id % MANY, raw);
            }
            for (size_t round = 0; round < searches; round++) {
                iqdb_search_info info[2];
                iqdb_query query = iqdb_query_default();
                const iqdb_filter filter = iqdb_eq("g", iqdb_int(3));
                for (size_t i = 0; i < 5; i++) fill(&m, raw + i * size, &random);
                for (size_t i = 0; i < 4; i++) memcpy(raw + i * size, centres[support_random_below(&random, 20)], size);
                query.raw = raw;
                query.k = 1 + support_random_below(&random, round % 5 == 0 ? 300 : 15);
                if (round % 4 == 1) query.filter = &filter;
                if (round % 7 == 2) query.deadline_us = 4000000000u;
                for (int i = 0; i < 2; i++) {
                    query.info = &info[i];
                    CHECK_EQ_INT(iqdb_search_batch(db[i], &query, raw, 1 + round % 5, hits[i], counts[i]), IQDB_OK);
                }
                all++;
                through += info[0].plan == IQDB_PLAN_CODES;
                with_profit += info[0].rows_compared < info[1].rows_compared / 4;
                CHECK(info[1].plan == IQDB_PLAN_SCAN);
                for (size_t q = 0; q < 1 + round % 5; q++) {
                    CHECK_EQ_U64(counts[0][q], counts[1][q]);
                    for (size_t i = q * query.k; i < q * query.k + counts[0][q]; i++) {
                        CHECK_EQ_U64(hits[0][i].id, hits[1][i].id);
                        CHECK_EQ_F32(hits[0][i].score, hits[1][i].score);
                    }
                }
            }
            CHECK_EQ_INT(iqdb_verify(db[0], IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
            for (int i = 0; i < 2; i++) CHECK_EQ_INT(iqdb_close(db[i]), IQDB_OK);
        }
    }
    printf(" %d searches, %d through codes, %d of these compared less than a quarter\n    ", (int)all, (int)through,
           (int)with_profit);
    CHECK(through > all * 3 / 4 && with_profit > all / 4);
}

TEST_MAIN("api/elements", TEST(searches_are_those_of_a_look_at_every_record),
          TEST(every_way_of_keeping_keeps_every_bit), TEST(repair_needs_no_meta), TEST(codes_change_no_answer),
          TEST(lists_are_of_every_element), TEST(blocks_hold_what_they_promise),
          TEST(what_is_no_vector_is_refused), TEST(options_agree_with_what_is_stored))
