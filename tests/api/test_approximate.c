/* Searches by a graph, by lists and of all records, each with and without indexes of keys: filters that leave .01 to
 * 100 % of the records, by lot or in a few clusters, predicates, and all forms of a search; in memory, and on disk
 * behind a map. All against a ranking of all records that is made without the library. What says that it is exact is
 * just that, filtered afterwards; all else has as many hits as match, none of them wrong, and finds about as many of
 * the best with a filter as without. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"
#include "vectors.h"

enum {
    ROWS_MAX = 20000,
    DIM = 24,
    ASKED = 50,
    K = 10,
    K_MAX = 60,
    PAGE = 37,
    BATCH = 3,
    LEVELS = 6,
    FEW = 7, /* clusters */
    MANY = 98,
    GROUPS = 300,
    NO_FILTER = 0,
    BY_LOT = 1,
    TOGETHER = 2
};

/* How much less than without a filter may be found with one. Of what a filter leaves that holds for whole clusters, which
 * may be others than the vector's, lists miss more. */
#define LESS 0.02
#define LESS_TOGETHER 0.08

static const double parts[LEVELS] = {.0001, .001, .01, .1, .5, 1};
static const char *const keys[3] = {"", "lot", "together"};
static const char *const plans[] = {"none", "scan", "codes", "lists", "graph", "keys", "custom"};

/* ---- Records, and their rankings ---- */

typedef struct thing {
    float vector[DIM];
    int level[3]; /* by each key: it is among the parts of this level and those above */
    int group;    /* -1: none */
} thing;

static thing things[ROWS_MAX];
static size_t row_count, clusters;
static iqdb_metric metric = IQDB_L2;
static float vectors[ASKED][DIM];
static float scores[ASKED][ROWS_MAX];
static uint32_t ranking[ASKED][ROWS_MAX];
static const float *sorted_by;

static uint64_t id_of(size_t row) { return (uint64_t)row * 3 + 1; }

static size_t matches_of(int level) {
    const size_t count = (size_t)(parts[level] * (double)row_count);
    return count > 0 ? count : 1;
}

static int level_of(size_t place) {
    int level = 0;
    while (place >= matches_of(level)) level++;
    return level;
}

static int compare_rows(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    if (sorted_by[x] != sorted_by[y]) return sorted_by[x] < sorted_by[y] ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* Rows from 0 on, and then those that nobody has put yet. */
static void make_vector(float *out, size_t i) { vectors_row(out, DIM, 0, 500 + i % clusters / 7, i); }

static void make(size_t count, size_t cluster_count, iqdb_metric by) {
    static uint32_t lot[ROWS_MAX];
    uint64_t random = 1;
    size_t place = 0;
    if (row_count == count && clusters == cluster_count && metric == by) return;
    row_count = count;
    clusters = cluster_count;
    metric = by;
    for (size_t row = 0; row < count; row++) {
        const size_t other = (size_t)support_random_below(&random, row + 1);
        lot[row] = lot[other];
        lot[other] = (uint32_t)row;
        things[row].group = (int)support_random_below(&random, GROUPS + 20) - 20;
        make_vector(things[row].vector, row);
    }
    for (size_t row = 0; row < count; row++) things[lot[row]].level[BY_LOT] = level_of(row);
    for (size_t cluster = 0; cluster < clusters; cluster++)
        for (size_t row = cluster; row < count; row += clusters) things[row].level[TOGETHER] = level_of(place++);
    for (size_t q = 0; q < ASKED; q++) {
        make_vector(vectors[q], 2 * ROWS_MAX + 37 * q + (size_t)support_random_below(&random, 37));
        for (size_t row = 0; row < count; row++) {
            scores[q][row] = model_score(metric, vectors[q], things[row].vector, DIM);
            ranking[q][row] = (uint32_t)row;
        }
        sorted_by = scores[q];
        qsort(ranking[q], count, sizeof ranking[q][0], compare_rows);
    }
}

/* As it is, or as it was before: another vector, and in the way of other filters. */
static void put(iqdb *db, size_t row, bool before) {
    const thing *t = &things[row < row_count ? row : row - row_count];
    float other[DIM];
    iqdb_field fields[4];
    char text[40];
    size_t count = 3;
    make_vector(other, 3 * ROWS_MAX + row * 7);
    fields[0] = public_field("lot", iqdb_int(before ? 0 : t->level[BY_LOT]));
    fields[1] = public_field("together", iqdb_int(before ? 0 : t->level[TOGETHER]));
    fields[2] = public_field("row", iqdb_int((int64_t)row));
    snprintf(text, sizeof text, "the group of name %d", t->group);
    if (t->group >= 0)
        fields[count++] = public_field("group", t->group % 2 == 0 ? iqdb_text(text) : iqdb_int(t->group));
    iqdb_record record = public_record(id_of(row), before ? other : t->vector, DIM);
    record.fields = fields;
    record.field_count = count;
    CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
}

static void settle(iqdb *db) {
    bool done = false;
    while (!done) CHECK_EQ_INT(iqdb_maintain(db, 100000, &done), IQDB_OK);
}

/* Some records have been others, some are there no more, and the last ones come when the index is made. */
static void fill(iqdb *db) {
    const size_t late = 40;
    for (size_t row = 0; row < row_count - late; row += 10) put(db, row, true);
    for (size_t row = row_count; row < row_count + row_count / 20; row++) put(db, row, true);
    for (size_t row = 0; row < row_count - late && test_now.failures == 0; row++) put(db, row, false);
    for (size_t row = row_count; row < row_count + row_count / 20; row++)
        CHECK_EQ_INT(iqdb_delete(db, id_of(row), NULL), IQDB_OK);
    settle(db);
    for (size_t row = row_count - late; row < row_count; row++) put(db, row, false);
    CHECK_EQ_U64(iqdb_len(db), row_count);
}

/* ---- One search ---- */

typedef struct form {
    iqdb_query query;
    int key;   /* of the filter */
    int level; /* both the filter's and the predicate's */
    const uint8_t *listed;
    iqdb_filter filter;
    iqdb_value values[LEVELS];
} form;

static bool is_of_level(const iqdb_record *record, void *user) {
    return iqdb_payload_int(record->payload, "lot", LEVELS) <= *(const int *)user;
}

static void set_filter(form *f, int key, int level) {
    f->key = key;
    f->level = level;
    for (int i = 0; i <= level; i++) f->values[i] = iqdb_int(i);
    f->filter = level == 0 ? iqdb_eq(keys[key], f->values[0]) : iqdb_in(keys[key], f->values, (size_t)level + 1);
    f->query.filter = key == NO_FILTER ? NULL : &f->filter;
}

static void set_predicate(form *f, int level) {
    f->level = level;
    f->query.predicate = is_of_level;
    f->query.user = &f->level;
}

static bool is_wanted(const form *f, size_t q, size_t row) {
    const float score = scores[q][row];
    const iqdb_query *query = &f->query;
    if (f->key != NO_FILTER && things[row].level[f->key] > f->level) return false;
    if (query->predicate != NULL && things[row].level[BY_LOT] > f->level) return false;
    if (query->ids != NULL && !f->listed[row]) return false;
    if ((query->flags & IQDB_MAX_DISTANCE) != 0 && score > query->max_distance) return false;
    if (query->group_by != NULL && things[row].group < 0) return false;
    return (query->flags & IQDB_AFTER) == 0 || score > query->after.score ||
           (score == query->after.score && id_of(row) > query->after.id);
}

/* The best rows, at most k. */
static size_t expect(const form *f, size_t q, uint32_t *out) {
    static uint8_t taken[GROUPS];
    size_t count = 0;
    memset(taken, 0, sizeof taken);
    for (size_t i = 0; i < row_count && count < f->query.k; i++) {
        const uint32_t row = ranking[q][i];
        if (!is_wanted(f, q, row)) continue;
        if (f->query.group_by != NULL && taken[things[row].group]) continue;
        if (f->query.group_by != NULL) taken[things[row].group] = 1;
        out[count++] = row;
    }
    return count;
}

static void check_contents(const form *f, const iqdb_hit *hit, size_t row) {
    CHECK((hit->vector != NULL) == ((f->query.flags & IQDB_WITH_VECTOR) != 0));
    CHECK((hit->payload.bytes != NULL) == ((f->query.flags & IQDB_WITH_PAYLOAD) != 0));
    if (hit->vector != NULL) CHECK_MEM(hit->vector, things[row].vector, DIM * sizeof(float));
    if (hit->payload.bytes == NULL) return;
    CHECK_EQ_INT(iqdb_payload_int(hit->payload, "row", -1), row);
    CHECK_EQ_INT(iqdb_payload_int(hit->payload, "lot", -1), things[row].level[BY_LOT]);
    CHECK_EQ_INT(iqdb_payload_count(hit->payload), things[row].group >= 0 ? 4 : 3);
}

typedef struct tally {
    size_t found;
    size_t wanted;
    unsigned plans; /* a bit each */
} tally;

static double recall_of(tally t) { return t.wanted == 0 ? 1 : (double)t.found / (double)t.wanted; }

/* The hits themselves, whatever found them: none wrong, none twice, none too few, in order; exact ones the best. */
static void check_hits(const form *f, size_t q, const iqdb_hit *hits, size_t count, bool exact, tally *t) {
    static uint32_t wanted[ROWS_MAX];
    const size_t wanted_count = expect(f, q, wanted);
    CHECK_EQ_U64(count, wanted_count);
    for (size_t i = 0; i < count; i++) {
        const size_t row = (size_t)((hits[i].id - 1) / 3);
        CHECK(row < row_count && id_of(row) == hits[i].id && is_wanted(f, q, row));
        CHECK_EQ_F32(hits[i].score, scores[q][row]);
        CHECK(i == 0 || hits[i].score > hits[i - 1].score ||
              (hits[i].score == hits[i - 1].score && hits[i].id > hits[i - 1].id));
        check_contents(f, &hits[i], row);
        if (exact) CHECK_EQ_U64(hits[i].id, id_of(wanted[i]));
        t->found += hits[i].score <= scores[q][wanted[count - 1]];
    }
    t->wanted += count;
}

static void ask(const iqdb *db, form *f, size_t q, tally *t) {
    iqdb_hit hits[K_MAX];
    iqdb_search_info info;
    size_t count;
    f->query.vector = vectors[q];
    f->query.info = &info;
    CHECK_EQ_INT(iqdb_search(db, &f->query, hits, &count), IQDB_OK);
    CHECK(info.complete && info.exact == (info.plan != IQDB_PLAN_LISTS && info.plan != IQDB_PLAN_GRAPH));
    CHECK(info.exact || f->query.group_by == NULL);
    t->plans |= 1u << info.plan;
    check_hits(f, q, hits, count, info.exact, t);
    f->query.info = NULL;
}

static form form_of(size_t k, iqdb_buffer *buffer) {
    form f;
    memset(&f, 0, sizeof f);
    f.query = public_query(NULL, DIM, k, IQDB_METRIC_DEFAULT);
    f.query.buffer = buffer;
    return f;
}

/* ---- A database of each kind ---- */

static iqdb_options options_of(iqdb_index index, bool keyed) {
    static const iqdb_index_key indexed[2] = {{"lot", IQDB_KEY_HASH}, {"together", IQDB_KEY_HASH}};
    iqdb_options options = iqdb_options_default();
    options.files = public_quick_files();
    options.metric = metric;
    options.index = index;
    options.index_keys = keyed ? indexed : NULL;
    options.index_key_count = keyed ? 2 : 0;
    return options;
}

static unsigned plan_of(iqdb_index index) {
    return 1u << (index == IQDB_INDEX_HNSW ? IQDB_PLAN_GRAPH : IQDB_PLAN_LISTS);
}

static iqdb *filled(iqdb_index index, bool keyed) {
    const iqdb_options options = options_of(index, keyed);
    iqdb *db = NULL;
    if (!EXPECT(iqdb_open_in_memory(&options, &db) == IQDB_OK)) return NULL;
    fill(db);
    return db;
}

/* The same, closed and mapped. What is stored of the index is there when it was maintained; until then all is exact. */
static iqdb *filled_and_mapped(const char *path, iqdb_index index, bool keyed) {
    iqdb_options options = options_of(index, keyed);
    iqdb *db = NULL;
    iqdb_stats stats;
    form f = form_of(K, NULL);
    tally none = {0, 0, 0};
    if (!EXPECT(iqdb_open(path, &options, &db) == IQDB_OK)) return NULL;
    fill(db);
    (void)EXPECT(iqdb_checkpoint(db) == IQDB_OK);
    (void)EXPECT(iqdb_close(db) == IQDB_OK);
    options.open_mode = IQDB_OPEN_MMAP;
    if (!EXPECT(iqdb_open(path, &options, &db) == IQDB_OK)) return NULL;
    ask(db, &f, 0, &none);
    (void)EXPECT(iqdb_stat(db, &stats) == IQDB_OK);
    (void)EXPECT(stats.mapped_bytes > 0 || iqdb_files_default().map_fn == NULL);
    (void)EXPECT(stats.mapped_bytes == 0 || (none.plans & plan_of(index)) == 0);
    settle(db);
    return db;
}

static void check_unfiltered(const iqdb *db, iqdb_index index, tally *out) {
    form f = form_of(K, NULL);
    memset(out, 0, sizeof *out);
    for (size_t q = 0; q < ASKED; q++) ask(db, &f, q, out);
    if (index == IQDB_INDEX_FLAT) CHECK((out->plans & (plan_of(IQDB_INDEX_HNSW) | plan_of(IQDB_INDEX_IVF))) == 0);
    if (index != IQDB_INDEX_FLAT) CHECK_EQ_U64(out->plans, plan_of(index));
    CHECK(recall_of(*out) > 0.9);
}

static void print_cell(tally t) {
    const char *between = " ";
    printf("  %.3f", recall_of(t));
    for (unsigned plan = 0; plan < sizeof plans / sizeof plans[0]; plan++) {
        if ((t.plans >> plan & 1) == 0) continue;
        printf("%s%s", between, plans[plan]);
        between = "/";
    }
}

/* ---- Selectivity ---- */

/* At most `less` below what is found without a filter; of records that a filter has left together, `together`. */
static void at_every_selectivity(const iqdb *db, iqdb_index index, double less, double together) {
    static const char *const names[] = {"by lot", "together", "predicate", "both"};
    tally all;
    if (support_amount(1, 0, 0) && index == IQDB_INDEX_HNSW) less = together = 2 * LESS;
    if (support_amount(1, 0, 0) && index == IQDB_INDEX_IVF) less = 2 * LESS, together = 2 * LESS_TOGETHER;
    check_unfiltered(db, index, &all);
    printf("\n    %-10s", index == IQDB_INDEX_FLAT ? "flat" : index == IQDB_INDEX_HNSW ? "graph" : "lists");
    print_cell(all);
    for (int way = 0; way < 4 && test_now.failures == 0; way++) {
        printf("\n    %-10s", names[way]);
        for (int level = 0; level < LEVELS && test_now.failures == 0; level++) {
            tally t = {0, 0, 0};
            form f = form_of(K, NULL);
            if (way != 2) set_filter(&f, way == 0 ? BY_LOT : TOGETHER, level);
            if (way >= 2) set_predicate(&f, level);
            for (size_t q = 0; q < ASKED && test_now.failures == 0; q++) ask(db, &f, q, &t);
            print_cell(t);
            (void)EXPECT(recall_of(t) >= recall_of(all) - (way % 2 == 0 ? less : together));
        }
    }
}

static size_t selectivity_rows(void) { return support_amount(2200, ROWS_MAX, ROWS_MAX); }

static void selectivity_in_memory(iqdb_index index, bool keyed, size_t cluster_count, double less, double together) {
    make(selectivity_rows(), cluster_count, IQDB_L2);
    iqdb *db = filled(index, keyed);
    CHECK(db != NULL);
    at_every_selectivity(db, index, less, together);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static void flat(void) { selectivity_in_memory(IQDB_INDEX_FLAT, false, FEW, 0, 0); }
static void flat_with_keys(void) { selectivity_in_memory(IQDB_INDEX_FLAT, true, FEW, 0, 0); }
static void graph(void) { selectivity_in_memory(IQDB_INDEX_HNSW, false, FEW, LESS, LESS); }
static void graph_with_keys(void) { selectivity_in_memory(IQDB_INDEX_HNSW, true, FEW, LESS, LESS); }
static void lists(void) { selectivity_in_memory(IQDB_INDEX_IVF, false, FEW, LESS, LESS_TOGETHER); }
static void lists_with_keys(void) { selectivity_in_memory(IQDB_INDEX_IVF, true, FEW, LESS, LESS_TOGETHER); }
static void graph_of_small_clusters(void) {
    selectivity_in_memory(IQDB_INDEX_HNSW, true, MANY, LESS, LESS);
}
static void lists_of_small_clusters(void) {
    selectivity_in_memory(IQDB_INDEX_IVF, true, MANY, LESS, LESS_TOGETHER);
}

/* ---- Forms ---- */

static void random_form(form *f, uint64_t *random, iqdb_buffer *buffer, uint64_t *ids, uint8_t *listed) {
    const size_t q = (size_t)support_random_below(random, ASKED);
    const size_t near_by = ranking[q][support_random_below(random, support_random_below(random, 2) ? 100 : row_count)];
    *f = form_of(1 + (size_t)support_random_below(random, K_MAX), buffer);
    if (support_random_below(random, 2)) set_predicate(f, 3 + (int)support_random_below(random, LEVELS - 3));
    if (support_random_below(random, 2) == 0) f->query.predicate = NULL;
    set_filter(f, (int)support_random_below(random, 3),
               f->query.predicate != NULL ? f->level : 1 + (int)support_random_below(random, LEVELS - 1));
    if (support_random_below(random, 3) == 0) f->query.group_by = "group";
    if (support_random_below(random, 2)) f->query.flags |= IQDB_WITH_VECTOR;
    if (support_random_below(random, 2)) f->query.flags |= IQDB_WITH_PAYLOAD;
    if (support_random_below(random, 4) == 0) f->query.flags |= IQDB_MAX_DISTANCE;
    f->query.max_distance = scores[q][near_by];
    if (support_random_below(random, 4) == 0) f->query.flags |= IQDB_AFTER;
    f->query.after.score = scores[q][ranking[q][support_random_below(random, row_count / 2)]];
    f->query.after.id = support_random_below(random, row_count * 3);
    if (support_random_below(random, 5) != 0) return;
    f->query.ids = ids;
    f->query.id_count = (size_t)support_random_below(random, support_random_below(random, 2) ? 200 : row_count);
    f->listed = listed;
    memset(listed, 0, ROWS_MAX);
    for (size_t i = 0; i < f->query.id_count; i++) {
        ids[i] = support_random_below(random, row_count * 3 + 50); /* two of three are nobody's */
        if (ids[i] % 3 == 1 && ids[i] / 3 < row_count) listed[ids[i] / 3] = 1;
    }
}

static void ask_for_some(const iqdb *db, form *f, size_t q, tally *t) {
    static iqdb_hit hits[BATCH * K_MAX];
    size_t counts[BATCH];
    iqdb_search_info info;
    f->query.info = &info;
    CHECK_EQ_INT(iqdb_search_batch(db, &f->query, vectors[q], BATCH, hits, counts), IQDB_OK);
    for (size_t i = 0; i < BATCH; i++) check_hits(f, q + i, hits + i * f->query.k, counts[i], info.exact, t);
    f->query.info = NULL;
}

/* Page behind page to the end, each record at most once; by an index, some may be missing. */
static void page_behind_page(const iqdb *db, form f, size_t q, bool to_the_end, tally *t) {
    static bool seen[ROWS_MAX];
    static uint32_t wanted[ROWS_MAX];
    form whole = f;
    iqdb_hit hits[PAGE];
    size_t count = PAGE, total = 0;
    memset(seen, 0, sizeof seen);
    f.query.k = PAGE;
    f.query.vector = vectors[q];
    for (size_t page = 0; count == PAGE && (page < 8 || to_the_end); page++) {
        tally one = {0, 0, 0};
        iqdb_search_info info;
        f.query.info = &info;
        CHECK_EQ_INT(iqdb_search(db, &f.query, hits, &count), IQDB_OK);
        check_hits(&f, q, hits, count, info.exact, &one);
        t->plans |= 1u << info.plan;
        for (size_t i = 0; i < count; i++) {
            const size_t row = (size_t)(hits[i].id / 3);
            CHECK(!seen[row]);
            seen[row] = true;
        }
        if (count > 0) f.query.after = hits[count - 1];
        f.query.flags |= IQDB_AFTER;
        total += count;
    }
    whole.query.k = total;
    (void)expect(&whole, q, wanted);
    for (size_t i = 0; i < total; i++) t->found += seen[wanted[i]];
    t->wanted += total;
    if (!to_the_end) return;
    /* What is missing is what pages have passed by. */
    whole.query.k = row_count;
    t->wanted += expect(&whole, q, wanted) - total;
}

/* A cursor gives all of the exact ranking, as it was, though some records are others before its first page. */
static void cursor_to_the_end(iqdb *db, form f, size_t q) {
    static iqdb_hit hits[ROWS_MAX];
    static uint32_t wanted[ROWS_MAX];
    iqdb_cursor *cursor = NULL;
    iqdb_search_info info;
    size_t total = 0, count;
    bool done = false;
    f.query.k = row_count;
    f.query.vector = vectors[q];
    f.query.info = &info;
    const size_t wanted_count = expect(&f, q, wanted);
    CHECK_EQ_INT(iqdb_cursor_open(db, &f.query, &cursor), IQDB_OK);
    for (size_t row = q; row < row_count; row += 97) put(db, row, true);
    while (!done && test_now.failures == 0) {
        CHECK_EQ_INT(iqdb_cursor_step(cursor, 500, hits, PAGE, &count, &done), IQDB_OK);
        CHECK(total + count <= wanted_count);
        for (size_t i = 0; i < count; i++) {
            const uint32_t row = wanted[total + i];
            CHECK_EQ_U64(hits[i].id, id_of(row));
            CHECK_EQ_F32(hits[i].score, scores[q][row]);
            check_contents(&f, &hits[i], row);
        }
        total += count;
    }
    CHECK(info.exact && info.complete);
    CHECK_EQ_U64(total, wanted_count);
    iqdb_cursor_close(cursor);
    for (size_t row = q; row < row_count; row += 97) put(db, row, false);
}

static void all_forms(iqdb *db, iqdb_index index) {
    static uint64_t ids[ROWS_MAX];
    static uint8_t listed[ROWS_MAX];
    static form f;
    iqdb_buffer buffer = iqdb_buffer_default();
    uint64_t random = 7;
    tally all, single = {0, 0, 0}, batch = {0, 0, 0}, grouped = {0, 0, 0}, behind = {0, 0, 0}, pages = {0, 0, 0};
    check_unfiltered(db, index, &all);
    for (size_t i = 0; i < support_amount(150, 1000, 5000) && test_now.failures == 0; i++) {
        const size_t q = (size_t)support_random_below(&random, ASKED - BATCH);
        random_form(&f, &random, &buffer, ids, listed);
        const bool after = (f.query.flags & IQDB_AFTER) != 0;
        ask(db, &f, q, f.query.group_by != NULL ? &grouped : after ? &behind : &single);
        if (i % 4 == 0) ask_for_some(db, &f, q, after ? &behind : &batch);
    }
    CHECK(grouped.found == grouped.wanted);
    for (size_t i = 0; i < 12 && test_now.failures == 0; i++) {
        f = form_of(K, &buffer);
        f.query.flags = IQDB_WITH_VECTOR | (i % 2 == 0 ? IQDB_WITH_PAYLOAD : 0);
        if (i % 3 != 0) set_filter(&f, i % 3 == 1 ? BY_LOT : TOGETHER, i % 2 == 0 ? 3 : 4);
        if (i % 4 == 3) set_predicate(&f, f.level);
        if (i % 4 == 2) f.query.flags |= IQDB_MAX_DISTANCE;
        f.query.max_distance = scores[i][ranking[i][row_count / 4]];
        page_behind_page(db, f, i, i % 2 == 0, &pages);
        if (i % 5 == 4) f.query.group_by = "group";
        cursor_to_the_end(db, f, i);
        settle(db);
    }
    printf("\n    %-8s", index == IQDB_INDEX_FLAT ? "flat" : index == IQDB_INDEX_HNSW ? "graph" : "lists");
    print_cell(all);
    printf("  forms");
    print_cell(single);
    printf("  batches %.3f  groups", recall_of(batch));
    print_cell(grouped);
    printf("  after");
    print_cell(behind);
    printf("  pages");
    print_cell(pages);
    if (index != IQDB_INDEX_FLAT) CHECK((single.plans & plan_of(index)) != 0 && (pages.plans & plan_of(index)) != 0);
    CHECK(recall_of(single) >= recall_of(all) - LESS && recall_of(batch) >= recall_of(all) - LESS);
    iqdb_buffer_free(&buffer);
}

static size_t forms_rows(void) { return support_amount(2200, 6000, ROWS_MAX); }

static void forms_in_memory(iqdb_index index) {
    make(forms_rows(), FEW, IQDB_L2);
    for (int keyed = 0; keyed < 2 && test_now.failures == 0; keyed++) {
        iqdb *db = filled(index, keyed == 1);
        CHECK(db != NULL);
        all_forms(db, index);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
}

static void forms_flat(void) { forms_in_memory(IQDB_INDEX_FLAT); }
static void forms_graph(void) { forms_in_memory(IQDB_INDEX_HNSW); }
static void forms_lists(void) { forms_in_memory(IQDB_INDEX_IVF); }

/* ---- On disk ---- */

static void mapped(iqdb_index index, double together) {
    char path[SUPPORT_PATH_MAX];
    support_directory(path);
    make(forms_rows(), FEW, IQDB_COSINE);
    iqdb *db = filled_and_mapped(path, index, true);
    CHECK(db != NULL);
    at_every_selectivity(db, index, LESS, together);
    all_forms(db, index);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(path);
}

static void mapped_graph(void) { mapped(IQDB_INDEX_HNSW, LESS); }
static void mapped_lists(void) { mapped(IQDB_INDEX_IVF, LESS_TOGETHER); }

TEST_MAIN("api/approximate", TEST(flat), TEST(flat_with_keys), TEST(graph), TEST(graph_with_keys), TEST(lists),
          TEST(lists_with_keys), TEST(graph_of_small_clusters), TEST(lists_of_small_clusters), TEST(forms_flat),
          TEST(forms_graph), TEST(forms_lists), TEST(mapped_graph), TEST(mapped_lists))
