/* Search against a store that knows nothing but brute force: the same ids, in the same order, with the same bits in the
 * scores, and scores within the rounding that f32 costs of what double precision says. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

#include <float.h>
#include <pthread.h>

static const iqdb_metric metrics[4] = {IQDB_L2, IQDB_COSINE, IQDB_DOT, IQDB_L1};

/* ---- The model ---- */

typedef struct model_row {
    uint64_t id;
    const float *vector;
    float score;
} model_row;

typedef struct model {
    model_row *rows;
    size_t count;
    uint32_t dim;
} model;

static int by_score_and_id(const void *left, const void *right) {
    const model_row *a = (const model_row *)left, *b = (const model_row *)right;
    if (a->score != b->score) return a->score < b->score ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

static void model_rank(model *m, const float *query, iqdb_metric metric) {
    for (size_t i = 0; i < m->count; i++) m->rows[i].score = model_score(metric, query, m->rows[i].vector, m->dim);
    qsort(m->rows, m->count, sizeof *m->rows, by_score_and_id);
}

/* What the score would be without rounding, and by how much rounding may change it. */
static double exact_score(iqdb_metric metric, const float *a, const float *b, size_t dim, double *out_bound) {
    double dot = 0, aa = 0, bb = 0, squares = 0, absolutes = 0, magnitude = 0;
    for (size_t i = 0; i < dim; i++) {
        const double x = (double)a[i], y = (double)b[i];
        dot += x * y;
        aa += x * x;
        bb += y * y;
        squares += (x - y) * (x - y);
        absolutes += fabs(x - y);
        magnitude += fabs(x * y);
    }
    /* One rounding per product, dim / 32 + 5 per sum, a few for norms and divisions; each at most half an ulp. */
    const double unit = (double)FLT_EPSILON, terms = (double)(dim / 32 + 16);
    const double tiny = 1e-37 * (double)dim; /* what underflow may take away */
    if (metric == IQDB_L1) {
        *out_bound = absolutes * unit * terms;
        return absolutes;
    }
    if (metric == IQDB_L2) {
        *out_bound = sqrt(squares) * unit * terms + sqrt(tiny);
        return sqrt(squares);
    }
    if (metric == IQDB_DOT) {
        *out_bound = magnitude * unit * terms + tiny;
        return -dot;
    }
    const double norms = sqrt(aa) * sqrt(bb);
    if (norms == 0) {
        *out_bound = 0;
        return 1;
    }
    /* Where a norm nears the end of the range, underflow may take all of it. */
    *out_bound = aa < 1e-30 || bb < 1e-30 ? 2 : unit * terms * (1 + magnitude / norms) + tiny / norms;
    return 1 - dot / norms;
}

static int same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0; }

/* One search, every field of the answer compared. */
static int check_search(const iqdb *db, model *m, const float *query, size_t k, iqdb_metric metric) {
    iqdb_hit *hits = (iqdb_hit *)malloc((k + 1) * sizeof *hits);
    size_t count = 12345;
    int ok = EXPECT(hits != NULL);
    if (!ok) return 0;
    memset(hits, 0xEE, (k + 1) * sizeof *hits);
    const iqdb_hit untouched = hits[k];
    const iqdb_query q = public_query(query, m->dim, k, metric);
    model_rank(m, query, metric);
    ok = EXPECT(iqdb_search(db, &q, hits, &count) == IQDB_OK) && EXPECT(count == (k < m->count ? k : m->count));
    for (size_t i = 0; ok && i < count; i++) {
        double bound;
        ok = EXPECT(hits[i].id == m->rows[i].id) && EXPECT(same_bits(hits[i].score, m->rows[i].score)) &&
             EXPECT(hits[i].payload.bytes == NULL);
        const double exact = exact_score(metric, query, m->rows[i].vector, m->dim, &bound);
        if (ok && fabs(exact) < 3e38) ok = EXPECT(fabs(exact - (double)hits[i].score) <= bound);
        ok = ok && EXPECT(!(hits[i].score == 0 && signbit(hits[i].score))) && EXPECT(hits[i].score == hits[i].score);
        if (metric == IQDB_L2) ok = ok && EXPECT(hits[i].score >= 0);
        if (metric == IQDB_COSINE) ok = ok && EXPECT(hits[i].score >= 0 && hits[i].score <= 2);
        if (i > 0) ok = ok && EXPECT(hits[i - 1].score <= hits[i].score);
        float distance;
        ok = ok && EXPECT(iqdb_distance(metric, query, m->rows[i].vector, m->dim, &distance) == IQDB_OK) &&
             EXPECT(same_bits(distance, hits[i].score)); /* the bits a search returns */
        if (!ok)
            printf("\n      metric %d, dim %u, k %zu, hit %zu: id %" PRIu64 " score %.9g, expected id %" PRIu64
                   " score %.9g (exact %.17g, bound %g)",
                   (int)metric, (unsigned)m->dim, k, i, hits[i].id, (double)hits[i].score, m->rows[i].id,
                   (double)m->rows[i].score, exact, bound);
    }
    ok = ok && EXPECT(memcmp(&hits[k], &untouched, sizeof untouched) == 0); /* nothing behind the room for k */
    free(hits);
    return ok;
}

static iqdb *open_memory(void) {
    iqdb *db = NULL;
    EXPECT(iqdb_open_in_memory(NULL, &db) == IQDB_OK);
    return db;
}

/* Fills database and model alike; `vectors` keeps the rows. */
static int fill(iqdb *db, model *m, const float *vectors, size_t count, uint32_t dim, uint64_t first_id,
                uint64_t step) {
    m->rows = (model_row *)calloc(count + 1, sizeof *m->rows);
    m->count = count;
    m->dim = dim;
    for (size_t i = 0; i < count; i++) {
        m->rows[i].id = first_id + i * step;
        m->rows[i].vector = vectors + i * dim;
        if (!EXPECT(public_put(db, m->rows[i].id, m->rows[i].vector, dim) == IQDB_OK)) return 0;
    }
    return 1;
}

static float *random_vectors(size_t count, uint32_t dim, uint64_t *state) {
    float *vectors = (float *)malloc((count * dim + 1) * sizeof *vectors);
    for (size_t i = 0; vectors != NULL && i < count * dim; i++) vectors[i] = support_random_float(state);
    return vectors;
}

/* ---- Against the model ---- */

/* Every dimension up to 300, and longer ones round the places where loops are unrolled. */
static void every_dimension(void) {
    static const uint32_t longer[] = {383, 384, 385, 511, 512, 513, 767, 768, 769, 1023, 1024, 1025, 1536, 4096, 4099};
    const uint32_t short_ones = (uint32_t)support_amount(70, 300, 300);
    const size_t long_ones = support_amount(3, 15, 15);
    uint64_t state = 1;
    for (uint32_t n = 0; n < short_ones + long_ones; n++) {
        const uint32_t dim = n < short_ones ? n + 1 : longer[n - short_ones];
        const size_t count = 23;
        model m;
        iqdb *db = open_memory();
        float *vectors = random_vectors(count + 2, dim, &state);
        CHECK(db != NULL && vectors != NULL);
        memset(vectors + 3 * dim, 0, dim * sizeof(float));                               /* a zero vector, */
        memcpy(vectors + 7 * dim, vectors + 5 * dim, dim * sizeof(float));               /* equal ones, */
        for (uint32_t i = 0; i < dim; i++) vectors[8 * dim + i] = -vectors[5 * dim + i]; /* and an opposite one */
        CHECK(fill(db, &m, vectors, count, dim, 1000, 3));
        for (int metric = 0; metric < 4; metric++) {
            CHECK(check_search(db, &m, vectors + count * dim, 5, metrics[metric]));
            CHECK(check_search(db, &m, vectors + 5 * dim, count, metrics[metric]));
            CHECK(check_search(db, &m, vectors + 3 * dim, 30, metrics[metric]));
        }
        free(m.rows);
        free(vectors);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
}

/* Small integers: most scores tie, and every tie at every cut has to fall to the smaller id. */
static void ties_fall_to_the_smaller_id(void) {
    uint64_t state = 2;
    for (size_t round = 0; round < support_amount(3, 12, 40); round++) {
        const uint32_t dim = 1 + (uint32_t)support_random_below(&state, 4);
        const size_t count = 60;
        float *vectors = random_vectors(count + 1, dim, &state);
        CHECK(vectors != NULL);
        for (size_t i = 0; i < (count + 1) * dim; i++) vectors[i] = (float)(int)(vectors[i] * 2.5f);
        iqdb *db = open_memory();
        model m;
        CHECK(db != NULL && fill(db, &m, vectors, count, dim, UINT64_C(0xfffffffffffff000), 17));
        for (int metric = 0; metric < 4; metric++)
            for (size_t k = 1; k <= count + 1; k++)
                CHECK(check_search(db, &m, vectors + count * dim, k, metrics[metric]));
        free(m.rows);
        free(vectors);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
}

/* Seven records at the same distance, inserted in each of their 5,040 orders. */
static void the_set_at_the_cut_does_not_depend_on_the_order_of_insertion(void) {
    static const uint64_t ids[7] = {10, 5, 20, UINT64_C(1) << 40, 0, 7, 6};
    static const uint64_t sorted[7] = {0, 5, 6, 7, 10, 20, UINT64_C(1) << 40};
    const float vector[2] = {3, 4}, probe[2] = {0, 0};
    int order[7] = {0, 1, 2, 3, 4, 5, 6};
    long permutations = 0;
    for (;;) {
        iqdb *db = open_memory();
        CHECK(db != NULL);
        for (int i = 0; i < 7; i++) CHECK_EQ_INT(public_put(db, ids[order[i]], vector, 2), IQDB_OK);
        const size_t k = (size_t)(permutations % 7) + 1;
        iqdb_hit hits[7];
        size_t count = 0;
        const iqdb_query query = public_query(probe, 2, k, metrics[permutations % 4]);
        CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
        CHECK_EQ_U64(count, k);
        for (size_t i = 0; i < count; i++) CHECK_EQ_U64(hits[i].id, sorted[i]);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        permutations++;
        int at = 5; /* the next permutation */
        while (at >= 0 && order[at] > order[at + 1]) at--;
        if (at < 0) break;
        int with = 6;
        while (order[with] < order[at]) with--;
        int swap = order[at];
        order[at] = order[with];
        order[with] = swap;
        for (int low = at + 1, high = 6; low < high; low++, high--) {
            swap = order[low];
            order[low] = order[high];
            order[high] = swap;
        }
        if (support_amount(0, 1, 1) == 0 && permutations > 200) break;
    }
    CHECK(permutations >= (long)support_amount(200, 5040, 5040));
}

/* A hundred equal rows, k = 5: the same five from any handle, after any history. */
static void equal_rows(void) {
    const float vector[3] = {1, 2, 2}, other[3] = {9, 9, 9};
    for (int history = 0; history < 3; history++) {
        iqdb *db = open_memory();
        CHECK(db != NULL);
        for (uint64_t i = 0; i < 100; i++) {
            const uint64_t id = history == 0 ? i : history == 1 ? 99 - i : i * 37 % 100;
            CHECK_EQ_INT(public_put(db, id, history == 2 && id % 3 == 0 ? other : vector, 3), IQDB_OK);
        }
        for (uint64_t id = 0; history == 2 && id < 100; id++) {
            if (id % 5 == 0) CHECK_EQ_INT(iqdb_delete(db, id, NULL), IQDB_OK);
            if (id % 3 == 0 || id % 5 == 0) CHECK_EQ_INT(public_put(db, id, vector, 3), IQDB_OK);
        }
        for (int metric = 0; metric < 4; metric++) {
            iqdb_hit hits[100];
            size_t count = 0;
            iqdb_query query = public_query(vector, 3, 5, metrics[metric]);
            CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
            CHECK_EQ_U64(count, 5);
            for (size_t i = 0; i < 5; i++) CHECK_EQ_U64(hits[i].id, i);
            CHECK_EQ_F32(hits[0].score, metrics[metric] == IQDB_DOT ? -9.0f : 0.0f);
        }
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
}

/* From subnormal to the end of the range, where sums overflow f32 and have to be redone. */
static void extreme_values(void) {
    static const float scales[] = {1e-45f, 1e-42f, 1e-38f, 1e-30f,  1e-22f, 1e-19f,
                                   1.0f,   1e15f,  1e18f,  1.9e19f, 1e25f,  1e38f};
    const size_t scale_count = sizeof scales / sizeof scales[0];
    uint64_t state = 3;
    for (size_t which = 0; which < scale_count + support_amount(5, 30, 300); which++) {
        const uint32_t dims[3] = {1, 5, 8}; /* few enough that a norm stays finite even at the end */
        for (int d = 0; d < 3; d++) {
            const uint32_t dim = dims[d];
            const size_t count = 30;
            float *vectors = random_vectors(count + 1, dim, &state);
            CHECK(vectors != NULL);
            for (size_t row = 0; row <= count; row++) { /* one scale for all; at last, any scale for each */
                const float scale = scales[which < scale_count ? which : support_random_below(&state, scale_count)];
                for (uint32_t i = 0; i < dim; i++) vectors[row * dim + i] *= scale;
            }
            for (uint32_t i = 0; i < dim; i++) vectors[2 * dim + i] = 0.25f;       /* one row of another size */
            memcpy(vectors + 4 * dim, vectors + count * dim, dim * sizeof(float)); /* and the query itself */
            iqdb *db = open_memory();
            model m;
            CHECK(db != NULL && fill(db, &m, vectors, count, dim, 0, 1));
            for (int metric = 0; metric < 4; metric++)
                for (size_t k = 1; k <= count; k += 7)
                    CHECK(check_search(db, &m, vectors + count * dim, k, metrics[metric]));
            free(m.rows);
            free(vectors);
            CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        }
    }
}

/* Even where norms and distances themselves are beyond f32: no NaN, in order, ties by id, the same every time. */
static void beyond_the_range(void) {
    enum {
        DIM = 64,
        COUNT = 40
    };
    static float vectors[COUNT][DIM];
    uint64_t state = 4;
    iqdb *db = open_memory();
    CHECK(db != NULL);
    for (uint64_t id = 0; id < COUNT; id++) {
        for (size_t i = 0; i < DIM; i++)
            vectors[id][i] = (support_random(&state) & 1 ? 1.0f : -1.0f) * (id % 4 == 0 ? 1.0f : FLT_MAX);
        CHECK_EQ_INT(public_put(db, id, vectors[id], DIM), IQDB_OK);
    }
    for (int metric = 0; metric < 4; metric++) {
        for (size_t q = 0; q < COUNT; q++) {
            iqdb_hit hits[COUNT], again[COUNT];
            size_t count = 0;
            const iqdb_query query = public_query(vectors[q], DIM, COUNT, metrics[metric]);
            memset(hits, 0, sizeof hits);
            memset(again, 0, sizeof again);
            CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
            CHECK_EQ_U64(count, COUNT);
            for (size_t i = 0; i < count; i++) {
                CHECK(hits[i].score == hits[i].score);
                if (i > 0)
                    CHECK(hits[i - 1].score < hits[i].score ||
                          (hits[i - 1].score == hits[i].score && hits[i - 1].id < hits[i].id));
                if (metrics[metric] == IQDB_COSINE) CHECK(hits[i].score >= 0 && hits[i].score <= 2);
                CHECK_EQ_F32(hits[i].score, model_score(metrics[metric], vectors[q], vectors[hits[i].id], DIM));
            }
            for (size_t k = 1; k < COUNT; k += 5) { /* fewer hits are a prefix of more */
                const iqdb_query fewer = public_query(vectors[q], DIM, k, metrics[metric]);
                CHECK_EQ_INT(iqdb_search(db, &fewer, again, &count), IQDB_OK);
                CHECK_EQ_U64(count, k);
                for (size_t i = 0; i < k; i++) CHECK_EQ_U64(again[i].id, hits[i].id);
            }
        }
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* Distinct squares whose roots round to one score: the order is that of scores and ids, not of squares. */
static void squares_that_share_a_root(void) {
    enum {
        COUNT = 4000
    };
    float *vectors = (float *)malloc(2 * COUNT * sizeof *vectors);
    CHECK(vectors != NULL);
    for (size_t i = 0; i < COUNT; i++) { /* squares 2^24 + i, by and large: about eight to a root */
        vectors[2 * i] = 4096.0f;
        vectors[2 * i + 1] = sqrtf((float)(COUNT - 1 - i));
    }
    iqdb *db = open_memory();
    model m;
    const float origin[2] = {0, 0};
    CHECK(db != NULL && fill(db, &m, vectors, COUNT, 2, 0, 1));
    size_t ties = 0;
    for (size_t k = 1; k < 200; k++) CHECK(check_search(db, &m, origin, k, IQDB_L2));
    CHECK(check_search(db, &m, origin, COUNT, IQDB_L2));
    for (size_t i = 1; i < COUNT; i++) ties += m.rows[i].score == m.rows[i - 1].score;
    CHECK(ties > COUNT / 2); /* or the test tests nothing */
    free(m.rows);
    free(vectors);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* ---- The manual's small print ---- */

static void zero_vectors(void) {
    const float zero[3] = {0, 0, 0}, minus_zero[3] = {-0.0f, -0.0f, -0.0f}, one[3] = {1, 0, 0};
    float distance = 9;
    CHECK_EQ_INT(iqdb_distance(IQDB_COSINE, zero, one, 3, &distance), IQDB_OK);
    CHECK_EQ_F32(distance, 1.0f);
    CHECK_EQ_INT(iqdb_distance(IQDB_COSINE, one, minus_zero, 3, &distance), IQDB_OK);
    CHECK_EQ_F32(distance, 1.0f);
    CHECK_EQ_INT(iqdb_distance(IQDB_COSINE, zero, zero, 3, &distance), IQDB_OK);
    CHECK_EQ_F32(distance, 1.0f);
    CHECK_EQ_INT(iqdb_distance(IQDB_DOT, zero, one, 3, &distance), IQDB_OK);
    CHECK_EQ_F32(distance, 0.0f); /* not -0 */
    CHECK_EQ_INT(iqdb_distance(IQDB_DOT, minus_zero, one, 3, &distance), IQDB_OK);
    CHECK_EQ_F32(distance, 0.0f);
    CHECK_EQ_INT(iqdb_distance(IQDB_L2, minus_zero, zero, 3, &distance), IQDB_OK);
    CHECK_EQ_F32(distance, 0.0f);
    CHECK_EQ_INT(iqdb_distance(IQDB_METRIC_DEFAULT, one, one, 3, &distance), IQDB_OK); /* cosine */
    CHECK_EQ_F32(distance, 0.0f);
    CHECK_EQ_INT(iqdb_distance(IQDB_L2, zero, one, 3, &distance), IQDB_OK);
    CHECK_EQ_F32(distance, 1.0f);
    CHECK_EQ_F32(iqdb_vector_norm(zero, 3), 0.0f);
    const float five[2] = {3, -4};
    CHECK_EQ_F32(iqdb_vector_norm(five, 2), 5.0f);
}

static void laws_of_distances(void) {
    uint64_t state = 6;
    for (int round = 0; round < 3000; round++) {
        const uint32_t dim = 1 + (uint32_t)support_random_below(&state, 100);
        float *v = random_vectors(2, dim, &state);
        float ab, ba, aa;
        CHECK(v != NULL);
        for (int metric = 0; metric < 4; metric++) {
            CHECK_EQ_INT(iqdb_distance(metrics[metric], v, v + dim, dim, &ab), IQDB_OK);
            CHECK_EQ_INT(iqdb_distance(metrics[metric], v + dim, v, dim, &ba), IQDB_OK);
            CHECK_EQ_INT(iqdb_distance(metrics[metric], v, v, dim, &aa), IQDB_OK);
            CHECK_EQ_F32(ab, model_score(metrics[metric], v, v + dim, dim));
            if (metrics[metric] == IQDB_COSINE) {
                CHECK(fabsf(ab - ba) <= 4 * FLT_EPSILON);
                CHECK(aa >= 0 && aa <= (float)(dim + 32) * FLT_EPSILON);
                CHECK(ab >= 0 && ab <= 2);
            } else {
                CHECK_EQ_F32(ab, ba);
            }
            if (metrics[metric] == IQDB_L2 || metrics[metric] == IQDB_L1) CHECK_EQ_F32(aa, 0.0f);
        }
        CHECK_EQ_F32(iqdb_vector_norm(v, dim), model_norm(v, dim));
        free(v);
    }
}

static void the_examples_of_the_original(void) {
    const float a[3] = {1, 0, 0}, b[3] = {0.99f, 0.10f, 0};
    iqdb *db = open_memory();
    iqdb_hit hits[5];
    size_t count = 0;
    CHECK(db != NULL);
    CHECK_EQ_INT(public_put(db, 1, a, 3), IQDB_OK);
    CHECK_EQ_INT(public_put(db, 2, b, 3), IQDB_OK);
    const iqdb_query query = public_query(a, 3, 5, IQDB_COSINE);
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
    CHECK_EQ_U64(count, 2);
    CHECK_EQ_U64(hits[0].id, 1);
    CHECK_EQ_F32(hits[0].score, 0.0f);
    CHECK_EQ_U64(hits[1].id, 2);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static void the_stored_metric_is_the_default(void) {
    const float rows[3][2] = {{1, 0}, {0, 5}, {-2, 1}}, probe[2] = {0.5f, 1.5f};
    for (int stored = 0; stored < 5; stored++) {
        iqdb_options options = iqdb_options_default();
        options.metric = stored == 0 ? IQDB_METRIC_DEFAULT : metrics[stored - 1];
        const iqdb_metric expected = stored == 0 ? IQDB_COSINE : metrics[stored - 1];
        iqdb *db = NULL;
        CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
        for (uint64_t i = 0; i < 3; i++) CHECK_EQ_INT(public_put(db, i, rows[i], 2), IQDB_OK);
        for (int asked = 0; asked < 5; asked++) { /* another one is answered exactly */
            const iqdb_metric metric = asked == 0 ? IQDB_METRIC_DEFAULT : metrics[asked - 1];
            const iqdb_query query = public_query(probe, 0, 3, metric);
            iqdb_hit hits[3];
            size_t count = 0;
            CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
            CHECK_EQ_U64(count, 3);
            for (size_t i = 0; i < 3; i++)
                CHECK_EQ_F32(hits[i].score, model_score(asked == 0 ? expected : metric, probe, rows[hits[i].id], 2));
        }
        iqdb_stats stats;
        CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
        CHECK_EQ_INT(stats.metric, expected);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
}

/* ---- Predicates ---- */

typedef struct judge {
    iqdb *db;
    uint64_t modulus; /* accepts ids that it divides; 0: none */
    long calls;
    int problems;
} judge;

static bool accept_divisible(const iqdb_record *record, void *user) {
    judge *j = (judge *)user;
    j->calls++;
    if (record->vector == NULL || record->dim != PUBLIC_DIM) j->problems++;
    const int64_t version = iqdb_payload_int(record->payload, "version", -1);
    float vector[PUBLIC_DIM];
    if (record->id % 3 == 0 ? record->payload.bytes != NULL : version != (int64_t)record->id) j->problems++;
    public_vector(record->id, record->id, vector);
    if (record->dim == PUBLIC_DIM && memcmp(vector, record->vector, sizeof vector) != 0) j->problems++;
    return j->modulus != 0 && record->id % j->modulus == 0;
}

static void a_predicate_excludes_before_admission(void) {
    enum {
        COUNT = 200
    };
    static float vectors[COUNT][PUBLIC_DIM];
    model_row rows[COUNT];
    iqdb *db = open_memory();
    uint64_t state = 8;
    CHECK(db != NULL);
    for (uint64_t id = 0; id < COUNT; id++) {
        CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
        public_vector(id, id, vectors[id]);
    }
    for (uint64_t modulus = 0; modulus <= 101; modulus += modulus < 10 ? 1 : 13) {
        for (size_t k = 1; k <= 220; k = k * 3) {
            float probe[PUBLIC_DIM];
            model m;
            judge j;
            iqdb_hit hits[243];
            size_t count = 99;
            memset(&j, 0, sizeof j);
            j.modulus = modulus;
            m.rows = rows;
            m.count = 0;
            m.dim = PUBLIC_DIM;
            for (uint64_t id = 0; id < COUNT && modulus != 0; id += modulus) {
                rows[m.count].id = id;
                rows[m.count++].vector = vectors[id];
            }
            for (size_t i = 0; i < PUBLIC_DIM; i++) probe[i] = support_random_float(&state);
            const iqdb_metric metric = metrics[modulus % 4];
            iqdb_query query = public_query(probe, PUBLIC_DIM, k, metric);
            query.predicate = accept_divisible;
            query.user = &j;
            CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
            model_rank(&m, probe, metric);
            CHECK_EQ_U64(count, k < m.count ? k : m.count);
            for (size_t i = 0; i < count; i++) {
                CHECK_EQ_U64(hits[i].id, rows[i].id);
                CHECK_EQ_F32(hits[i].score, rows[i].score);
            }
            CHECK_EQ_INT(j.problems, 0);
            CHECK(j.calls >= (long)count && j.calls <= COUNT);
        }
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* A predicate that asks the same handle everything that it may. */
static bool ask_inside(const iqdb_record *record, void *user) {
    judge *j = (judge *)user;
    iqdb_hit hits[3];
    size_t count = 0;
    iqdb_record again;
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_stats stats;
    const iqdb_query query = public_query(record->vector, 0, 3, IQDB_L2);
    j->calls++;
    if (iqdb_search(j->db, &query, hits, &count) != IQDB_OK || count == 0 || hits[0].id != record->id) j->problems++;
    if (iqdb_search_batch(j->db, &query, record->vector, 1, hits, &count) != IQDB_OK || count == 0) j->problems++;
    if (iqdb_get(j->db, record->id, &buffer, &again) != IQDB_OK || again.id != record->id) j->problems++;
    if (!iqdb_contains(j->db, record->id) || iqdb_len(j->db) != 20 || iqdb_is_empty(j->db)) j->problems++;
    if (iqdb_stat(j->db, &stats) != IQDB_OK || stats.records != 20 || iqdb_simd_name(j->db) == NULL) j->problems++;
    size_t seen = 0;
    iqdb_iter iter = iqdb_iter_begin(j->db, NULL);
    while (iqdb_iter_next(&iter)) seen++;
    if (iter.result != IQDB_OK || seen != 20) j->problems++;
    iqdb_iter_end(&iter);
    iqdb_buffer_free(&buffer);
    return true;
}

/* And one that writes: records where the query looks, which the running search must not see, and the one that it is
 * shown, which stays readable all the same. In the end everything is as it was. */
static bool write_inside(const iqdb_record *record, void *user) {
    judge *j = (judge *)user;
    bool removed = false;
    size_t number = 0;
    const uint64_t id = record->id, other = 1000;
    const float near[PUBLIC_DIM] = {0, 0, 0};
    iqdb_op op = iqdb_op_default();
    op.kind = IQDB_OP_DELETE;
    op.id = other;
    const iqdb_record fresh = public_record(other, near, PUBLIC_DIM);
    iqdb_record same = public_record(id, record->vector, record->dim);
    same.payload = record->payload;
    j->calls++;
    if (id >= 20) j->problems++;
    if (iqdb_upsert(j->db, &fresh) != IQDB_OK || iqdb_len(j->db) != 21) j->problems++;
    if (iqdb_apply(j->db, &op, 1) != IQDB_OK || iqdb_contains(j->db, other)) j->problems++;
    if (iqdb_upsert_batch(j->db, &fresh, 1) != IQDB_OK) j->problems++;
    if (iqdb_delete_batch(j->db, &other, 1, &number) != IQDB_OK || number != 1) j->problems++;
    if (iqdb_delete(j->db, id, &removed) != IQDB_OK || !removed || iqdb_contains(j->db, id)) j->problems++;
    if (iqdb_upsert(j->db, &fresh) != IQDB_OK) j->problems++; /* takes a row, but not that of the record */
    if (iqdb_delete(j->db, other, NULL) != IQDB_OK) j->problems++;
    if (iqdb_upsert(j->db, &same) != IQDB_OK || !public_holds(j->db, id, id)) j->problems++;
    if (iqdb_flush(j->db) != IQDB_OK || iqdb_checkpoint(j->db) != IQDB_OK) j->problems++;
    if (iqdb_verify(j->db, IQDB_DEPTH_DEFAULT, NULL, NULL) != IQDB_OK) j->problems++;
    if (iqdb_close(j->db) != IQDB_ERR_BUSY) j->problems++; /* the search is still there */
    return true;
}

/* A predicate inside a search inside a predicate, three deep. */
static bool search_deeper(const iqdb_record *record, void *user) {
    judge *j = (judge *)user;
    j->calls++;
    if (j->modulus == 0) return write_inside(record, user);
    iqdb_hit hits[2];
    size_t count = 0;
    iqdb_query query = public_query(record->vector, 0, 2, IQDB_L2);
    query.predicate = search_deeper;
    query.user = user;
    j->modulus--;
    if (iqdb_search(j->db, &query, hits, &count) != IQDB_OK || count != 2) j->problems++;
    j->modulus++;
    return true;
}

static void a_predicate_may_read_and_write(void) {
    bool (*const predicates[3])(const iqdb_record *, void *) = {ask_inside, write_inside, search_deeper};
    iqdb_options options = iqdb_options_default();
    options.files = public_quick_files(); /* thousands of writes, none of which has to last */
    for (int disk = 0; disk < 2; disk++) {
        char folder[SUPPORT_PATH_MAX];
        judge j;
        memset(&j, 0, sizeof j);
        support_directory(folder);
        CHECK_EQ_INT(disk ? iqdb_open(folder, &options, &j.db) : iqdb_open_in_memory(NULL, &j.db), IQDB_OK);
        for (uint64_t id = 0; id < 20; id++) CHECK_EQ_INT(public_store(j.db, id, id), IQDB_OK);
        const uint64_t digest = digest_database(j.db);
        for (int which = 0; which < 3; which++) {
            const float probe[PUBLIC_DIM] = {0, 0, 0};
            iqdb_hit hits[6];
            size_t counts[2];
            iqdb_query query = public_query(probe, PUBLIC_DIM, 3, IQDB_L2);
            query.predicate = predicates[which];
            query.user = &j;
            j.calls = 0;
            j.modulus = which == 2 ? 2 : 0;
            CHECK_EQ_INT(iqdb_search(j.db, &query, hits, counts), IQDB_OK);
            CHECK_EQ_U64(counts[0], 3);
            CHECK(hits[0].id < 20 && hits[1].id < 20 && hits[2].id < 20);
            const float two[2 * PUBLIC_DIM] = {0, 0, 0, 1, 1, 1};
            CHECK_EQ_INT(iqdb_search_batch(j.db, &query, two, 2, hits, counts), IQDB_OK);
            CHECK(counts[0] == 3 && counts[1] == 3);
            CHECK(j.calls > 0);
            CHECK_EQ_INT(j.problems, 0);
        }
        CHECK_EQ_U64(digest_database(j.db), digest);
        CHECK_EQ_INT(public_store(j.db, 500, 500), IQDB_OK); /* afterwards all is as before */
        CHECK_EQ_INT(iqdb_close(j.db), IQDB_OK);
        support_remove(folder);
    }
}

/* Another handle may be written, too. */
static bool copy_to_another(const iqdb_record *record, void *user) {
    judge *j = (judge *)user;
    j->calls++;
    if (iqdb_upsert(j->db, record) != IQDB_OK) j->problems++;
    return true;
}

static void a_predicate_may_write_another_handle(void) {
    iqdb *db = open_memory();
    judge j;
    memset(&j, 0, sizeof j);
    j.db = open_memory();
    CHECK(db != NULL && j.db != NULL);
    for (uint64_t id = 0; id < 30; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
    const float probe[PUBLIC_DIM] = {0, 0, 0};
    iqdb_hit hits[30];
    size_t count = 0;
    iqdb_query query = public_query(probe, PUBLIC_DIM, 30, IQDB_L2);
    query.predicate = copy_to_another;
    query.user = &j;
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
    CHECK_EQ_INT(j.problems, 0);
    CHECK_EQ_U64(digest_database(j.db), digest_database(db));
    CHECK_EQ_INT(iqdb_close(j.db), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

#ifndef IQDB_NO_THREADS
typedef struct rival {
    iqdb *db;
    int stop;
    int problems;
} rival;

static void *write_meanwhile(void *argument) {
    rival *r = (rival *)argument;
    for (uint64_t i = 0; !__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE); i++) {
        if (public_store(r->db, 1000 + i % 10, i) != IQDB_OK) r->problems++;
        if (iqdb_delete(r->db, 1000 + (i + 5) % 10, NULL) != IQDB_OK) r->problems++;
    }
    return NULL;
}

static bool read_inside(const iqdb_record *record, void *user) {
    judge *j = (judge *)user;
    iqdb_record again;
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_hit hit;
    size_t count = 0;
    const iqdb_query query = public_query(record->vector, 0, 1, IQDB_L2);
    j->calls++;
    if (record->id < 1000 && iqdb_get(j->db, record->id, &buffer, &again) != IQDB_OK) j->problems++;
    if (iqdb_search(j->db, &query, &hit, &count) != IQDB_OK || count != 1) j->problems++;
    iqdb_buffer_free(&buffer);
    return record->id < 1000;
}

/* Writers that wait for the handle must not come between a search and what its predicate asks: no deadlock. */
static void predicates_that_read_beside_writers(void) {
    rival r;
    judge j;
    pthread_t threads[2];
    memset(&r, 0, sizeof r);
    memset(&j, 0, sizeof j);
    alarm(120);
    j.db = r.db = open_memory();
    CHECK(r.db != NULL);
    for (uint64_t id = 0; id < 20; id++) CHECK_EQ_INT(public_store(r.db, id, id), IQDB_OK);
    for (int i = 0; i < 2; i++) CHECK_EQ_INT(pthread_create(&threads[i], NULL, write_meanwhile, &r), 0);
    for (size_t round = 0; round < support_amount(50, 1000, 10000); round++) {
        const float probe[PUBLIC_DIM] = {0, 0, 0};
        iqdb_hit hits[30];
        size_t count = 0;
        iqdb_query query = public_query(probe, PUBLIC_DIM, 30, IQDB_L2);
        query.predicate = read_inside;
        query.user = &j;
        if (!EXPECT(iqdb_search(r.db, &query, hits, &count) == IQDB_OK) || !EXPECT(count == 20)) break;
    }
    __atomic_store_n(&r.stop, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    CHECK_EQ_INT(r.problems, 0);
    CHECK_EQ_INT(j.problems, 0);
    CHECK_EQ_INT(iqdb_close(r.db), IQDB_OK);
    alarm(0);
}
#else
static void predicates_that_read_beside_writers(void) { TEST_SKIP("built without threads"); }
#endif

/* ---- Batches ---- */

static void a_batch_answers_in_order(void) {
    const uint32_t dim = 19;
    const size_t count = 120, queries = 33;
    uint64_t state = 10;
    float *vectors = random_vectors(count + queries, dim, &state);
    iqdb *db = open_memory();
    model m;
    CHECK(vectors != NULL && db != NULL && fill(db, &m, vectors, count, dim, 5, 2));
    const float *asked = vectors + count * dim;
    for (size_t k = 1; k <= 200; k = k * 2 + 1) {
        for (size_t n = 1; n <= queries; n += 8) {
            iqdb_hit *hits = (iqdb_hit *)malloc((n * k + 1) * sizeof *hits);
            size_t *counts = (size_t *)malloc((n + 1) * sizeof *counts);
            CHECK(hits != NULL && counts != NULL);
            counts[n] = 4711;
            for (int metric = 0; metric < 4; metric++) {
                const iqdb_query query = public_query(NULL, dim, k, metrics[metric]); /* its vector is not read */
                CHECK_EQ_INT(iqdb_search_batch(db, &query, asked, n, hits, counts), IQDB_OK);
                for (size_t q = 0; q < n; q++) {
                    model_rank(&m, asked + q * dim, metrics[metric]);
                    CHECK_EQ_U64(counts[q], k < count ? k : count);
                    for (size_t i = 0; i < counts[q]; i++) {
                        CHECK_EQ_U64(hits[q * k + i].id, m.rows[i].id);
                        CHECK_EQ_F32(hits[q * k + i].score, m.rows[i].score);
                    }
                }
            }
            CHECK_EQ_U64(counts[n], 4711);
            free(hits);
            free(counts);
        }
    }
    free(m.rows);
    free(vectors);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static bool accept_most(const iqdb_record *record, void *user) {
    (void)user;
    return record->id % 3 != 1;
}

/* The hits of a batch and those of its vectors one by one: ids, bits of scores, payloads. */
static bool batch_is_singles(const iqdb *db, iqdb_query query, const float *vectors, size_t n, size_t *out_found) {
    const size_t k = query.k;
    iqdb_hit *hits = (iqdb_hit *)malloc(n * k * sizeof *hits), *alone = (iqdb_hit *)malloc(k * sizeof *alone);
    size_t *counts = (size_t *)malloc(n * sizeof *counts), count = 0;
    iqdb_buffer buffer = iqdb_buffer_default(), buffer_alone = iqdb_buffer_default();
    query.flags = IQDB_WITH_PAYLOAD;
    query.buffer = &buffer;
    bool same = EXPECT(hits != NULL && alone != NULL && counts != NULL) &&
                EXPECT(iqdb_search_batch(db, &query, vectors, n, hits, counts) == IQDB_OK);
    query.buffer = &buffer_alone;
    for (size_t q = 0; q < n && same; q++) {
        query.vector = vectors + q * query.dim;
        same = EXPECT(iqdb_search(db, &query, alone, &count) == IQDB_OK) && EXPECT(count == counts[q]);
        for (size_t i = 0; i < count && same; i++) {
            const iqdb_hit *a = &hits[q * k + i], *b = &alone[i];
            same = EXPECT(a->id == b->id && memcmp(&a->score, &b->score, sizeof a->score) == 0 &&
                          a->payload.size == b->payload.size) &&
                   EXPECT(a->payload.size == 0 || memcmp(a->payload.bytes, b->payload.bytes, a->payload.size) == 0);
        }
        *out_found += count;
        if (!same) printf(" (vector %zu of %zu, dim %u, k %zu)", q, n, (unsigned)query.dim, k);
    }
    iqdb_buffer_free(&buffer);
    iqdb_buffer_free(&buffer_alone);
    free(hits);
    free(alone);
    free(counts);
    return same;
}

/* Of every size around those that share a pass over the rows, with ties, replaced and deleted records, and a predicate.
 * Of the largest vectors, few fit together. */
static void a_batch_is_its_single_searches(void) {
    static const uint32_t dims[] = {1, 19, 64, 700, 3000};
    static const size_t ks[] = {1, 7, 40, 2000};
    enum {
        ROWS = 1100,
        KINDS = 250,
        MOST = 130
    };
    for (size_t d = 0; d < support_amount(4, 5, 5); d++) {
        const uint32_t dim = dims[d];
        const size_t rows = dim < 100 ? ROWS : 300;
        uint64_t state = 20 + d;
        size_t found = 0;
        float *vectors = random_vectors(KINDS + MOST, dim, &state); /* fewer than rows, so that scores tie */
        iqdb *db = open_memory();
        CHECK(vectors != NULL && db != NULL);
        for (size_t i = 0; i < rows; i++) {
            const iqdb_field field = public_field("row", iqdb_int((int64_t)i));
            iqdb_record record = public_record(support_random_below(&state, rows), NULL, dim);
            record.vector = vectors + support_random_below(&state, KINDS) * dim;
            record.fields = &field;
            record.field_count = i % 4 != 0;
            CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
            if (i % 5 == 0) CHECK_EQ_INT(iqdb_delete(db, support_random_below(&state, rows), NULL), IQDB_OK);
        }
        const size_t step = support_amount(43, dim < 100 ? 7 : 43, 1);
        for (size_t n = 1; n <= MOST; n++) {
            if (n % step != 0 && n > 5 && (n < 63 || n > 66) && n < MOST - 2) continue;
            iqdb_query query = public_query(NULL, dim, ks[n % 4], metrics[n % 4]);
            if (n % 5 == 0) query.predicate = accept_most;
            CHECK(batch_is_singles(db, query, vectors + (KINDS - 20) * dim, n, &found)); /* some are rows */
        }
        CHECK(found > 0);
        free(vectors);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
}

/* A batch inside the predicate of a smaller batch, and the smaller one again. */
static bool batch_inside(const iqdb_record *record, void *user) {
    judge *j = (judge *)user;
    size_t found = 0;
    float vectors[40 * PUBLIC_DIM];
    for (uint64_t i = 0; i < 40; i++) public_vector(i + record->id, i, vectors + i * PUBLIC_DIM);
    j->calls++;
    if (!batch_is_singles(j->db, public_query(NULL, PUBLIC_DIM, 3, IQDB_COSINE), vectors, 40, &found)) j->problems++;
    return record->id % 2 == 0;
}

static void a_batch_may_stand_inside_another(void) {
    judge j;
    memset(&j, 0, sizeof j);
    j.db = open_memory();
    CHECK(j.db != NULL);
    for (uint64_t id = 0; id < 30; id++) CHECK_EQ_INT(public_store(j.db, id, id), IQDB_OK);
    float vectors[5 * PUBLIC_DIM];
    size_t found = 0;
    for (uint64_t i = 0; i < 5; i++) public_vector(i, 77, vectors + i * PUBLIC_DIM);
    iqdb_query query = public_query(NULL, PUBLIC_DIM, 4, IQDB_L2);
    query.predicate = batch_inside;
    query.user = &j;
    CHECK(batch_is_singles(j.db, query, vectors, 5, &found));
    CHECK_EQ_U64(found, 20);
    CHECK(j.calls > 0 && j.problems == 0);
    CHECK_EQ_INT(iqdb_close(j.db), IQDB_OK);
}

/* Where there is no memory for many vectors at once there may be for fewer; where there is none, nothing is written. */
static void a_batch_without_memory(void) {
    enum {
        QUERIES = 70,
        K = 2
    };
    for (int sticky = 0; sticky < 2; sticky++) {
        for (int warm = 0; warm < 2; warm++) {
            support_heap heap = support_heap_make();
            iqdb_options options = iqdb_options_default();
            iqdb *db = NULL;
            float vectors[QUERIES * PUBLIC_DIM];
            iqdb_hit hits[QUERIES * K];
            size_t counts[QUERIES], found = 0;
            options.allocator = support_allocator(&heap);
            CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
            for (uint64_t id = 0; id < 50; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
            for (uint64_t i = 0; i < QUERIES; i++) public_vector(i, 3, vectors + i * PUBLIC_DIM);
            iqdb_query query = public_query(vectors, PUBLIC_DIM, K, IQDB_COSINE);
            if (warm) CHECK_EQ_INT(iqdb_search(db, &query, hits, counts), IQDB_OK);
            memset(counts, 0x5A, sizeof counts);
            heap.fail_at = 1;
            heap.sticky = sticky;
            const iqdb_result result = iqdb_search_batch(db, &query, vectors, QUERIES, hits, counts);
            CHECK_EQ_U64(heap.failed, !sticky ? 1
                                      : warm  ? 6
                                              : 7); /* for 64, then always half; one of warm needs none */
            heap.fail_at = 0;
            if (sticky && !warm) {
                CHECK_EQ_INT(result, IQDB_ERR_NOMEM);
                for (size_t i = 0; i < sizeof counts; i++) CHECK(((const unsigned char *)counts)[i] == 0x5A);
            } else {
                CHECK_EQ_INT(result, IQDB_OK);
                for (size_t q = 0; q < QUERIES; q++) {
                    iqdb_hit alone[K];
                    size_t count = 0;
                    query.vector = vectors + q * PUBLIC_DIM;
                    CHECK_EQ_INT(iqdb_search(db, &query, alone, &count), IQDB_OK);
                    CHECK(count == K && counts[q] == K);
                    for (size_t i = 0; i < K; i++) {
                        CHECK_EQ_U64(hits[q * K + i].id, alone[i].id);
                        CHECK_EQ_F32(hits[q * K + i].score, alone[i].score);
                    }
                }
            }
            CHECK(batch_is_singles(db, query, vectors, QUERIES, &found));
            const size_t calls = heap.calls; /* from here on there is room for every batch */
            for (size_t n = 1; n <= QUERIES; n++)
                CHECK_EQ_INT(iqdb_search_batch(db, &query, vectors, n, hits, counts), IQDB_OK);
            CHECK_EQ_U64(heap.calls, calls);
            CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
            CHECK_EQ_U64(support_heap_problems(&heap), 0);
        }
    }
}

static bool accept_all(const iqdb_record *record, void *user) {
    (void)record;
    (void)user;
    return true;
}

static void a_bad_vector_fails_a_batch_before_any_output(void) {
    enum {
        QUERIES = 9,
        K = 4
    };
    iqdb *db = open_memory();
    iqdb_buffer buffer = iqdb_buffer_default();
    CHECK(db != NULL);
    for (uint64_t id = 0; id < 10; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
    for (size_t bad = 0; bad < QUERIES; bad++) {
        for (int variant = 0; variant < 3; variant++) {
            float vectors[QUERIES * PUBLIC_DIM];
            iqdb_hit hits[QUERIES * K], before[QUERIES * K];
            size_t counts[QUERIES];
            for (size_t i = 0; i < QUERIES * PUBLIC_DIM; i++) vectors[i] = (float)i;
            const uint32_t bits = 0x7f800000u;
            memcpy(&vectors[bad * PUBLIC_DIM + 1], &bits, 4);
            memset(hits, 0xEE, sizeof hits);
            memset(before, 0xEE, sizeof before);
            for (size_t i = 0; i < QUERIES; i++) counts[i] = 4711;
            iqdb_query query = public_query(NULL, PUBLIC_DIM, K, IQDB_L2);
            if (variant == 1) query.predicate = accept_all;
            if (variant == 2) {
                query.flags = IQDB_WITH_PAYLOAD;
                query.buffer = &buffer;
            }
            CHECK_EQ_INT(iqdb_search_batch(db, &query, vectors, QUERIES, hits, counts), IQDB_ERR_INVALID_VECTOR);
            CHECK_MEM(hits, before, sizeof hits);
            for (size_t i = 0; i < QUERIES; i++) CHECK_EQ_U64(counts[i], 4711);
        }
    }
    iqdb_buffer_free(&buffer);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static void payloads_come_with_the_hits(void) {
    enum {
        COUNT = 60,
        QUERIES = 5
    };
    iqdb *db = open_memory();
    iqdb_buffer buffer = iqdb_buffer_default();
    float vectors[QUERIES * PUBLIC_DIM];
    uint64_t state = 12;
    CHECK(db != NULL);
    for (uint64_t id = 0; id < COUNT; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
    for (size_t i = 0; i < QUERIES * PUBLIC_DIM; i++) vectors[i] = support_random_float(&state);
    for (size_t k = 1; k <= COUNT; k += 11) {
        iqdb_hit hits[QUERIES * COUNT];
        size_t counts[QUERIES];
        iqdb_query query = public_query(NULL, PUBLIC_DIM, k, IQDB_L2);
        query.flags = IQDB_WITH_PAYLOAD;
        query.buffer = &buffer;
        CHECK_EQ_INT(iqdb_search_batch(db, &query, vectors, QUERIES, hits, counts), IQDB_OK);
        for (size_t q = 0; q < QUERIES; q++) {
            for (size_t i = 0; i < counts[q]; i++) {
                const iqdb_hit *hit = &hits[q * k + i];
                if (hit->id % 3 == 0) {
                    CHECK(hit->payload.bytes == NULL);
                    continue;
                }
                CHECK_EQ_INT(iqdb_payload_int(hit->payload, "version", -1), (int64_t)hit->id);
                const unsigned char *at = (const unsigned char *)hit->payload.bytes;
                const unsigned char *begin = (const unsigned char *)buffer.bytes;
                CHECK(at >= begin && at + hit->payload.size <= begin + buffer.capacity);
            }
        }
        query.flags = 0; /* without the flag there is none, whatever the buffer */
        CHECK_EQ_INT(iqdb_search_batch(db, &query, vectors, QUERIES, hits, counts), IQDB_OK);
        for (size_t i = 0; i < k; i++) CHECK(hits[i].payload.bytes == NULL && hits[i].payload.size == 0);
    }
    iqdb_buffer_free(&buffer);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* ---- The same answer everywhere ---- */

/* All instruction sets, memory and disk, before and after a checkpoint and a reopening: one digest. */
static void the_same_bits_from_every_instruction_set_and_store(void) {
    static const uint32_t dims[] = {1, 3, 4, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 96, 100, 127, 128, 200, 257};
    const iqdb_simd levels[6] = {IQDB_SIMD_SCALAR, IQDB_SIMD_SSE2, IQDB_SIMD_AVX2,
                                 IQDB_SIMD_AVX512, IQDB_SIMD_NEON, IQDB_SIMD_BEST};
    for (size_t which = 0; which < sizeof dims / sizeof dims[0]; which++) {
        const uint32_t dim = dims[which];
        const size_t count = 70;
        uint64_t state = 100 + which, expected = 0;
        float *vectors = random_vectors(count + 4, dim, &state);
        CHECK(vectors != NULL);
        for (uint32_t i = 0; i < dim; i++) { /* every range of exponents */
            vectors[10 * dim + i] *= 1e-40f;
            vectors[11 * dim + i] *= 1e30f;
            vectors[12 * dim + i] *= 2e38f;
            vectors[13 * dim + i] *= 1e-25f;
        }
        for (int level = 0; level < 6; level++) {
            for (int disk = 0; disk < 2; disk++) {
                char folder[SUPPORT_PATH_MAX];
                iqdb_options options = iqdb_options_default();
                iqdb *db = NULL;
                options.simd_max = levels[level];
                options.files = public_quick_files();
                support_directory(folder);
                CHECK_EQ_INT(disk ? iqdb_open(folder, &options, &db) : iqdb_open_in_memory(&options, &db), IQDB_OK);
                CHECK(iqdb_simd_name(db) != NULL);
                if (levels[level] == IQDB_SIMD_SCALAR) CHECK_EQ_STR(iqdb_simd_name(db), "scalar");
                for (size_t i = 0; i < count; i++) CHECK_EQ_INT(public_put(db, i, vectors + i * dim, dim), IQDB_OK);
                for (int state_of_files = 0; state_of_files < (disk ? 3 : 1); state_of_files++) {
                    if (state_of_files == 1) CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
                    if (state_of_files == 2) {
                        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
                        CHECK_EQ_INT(iqdb_open(folder, &options, &db), IQDB_OK);
                    }
                    uint64_t digest = PUBLIC_DIGEST;
                    for (int metric = 0; metric < 4; metric++) {
                        for (size_t q = 0; q < 14; q++) {
                            iqdb_hit hits[25];
                            size_t found = 0;
                            const float *probe = vectors + (q < 4 ? count + q : q) * dim;
                            const iqdb_query query = public_query(probe, dim, 25, metrics[metric]);
                            CHECK_EQ_INT(iqdb_search(db, &query, hits, &found), IQDB_OK);
                            for (size_t i = 0; i < found; i++)
                                digest = digest_score(digest_u64(digest, hits[i].id), hits[i].score);
                        }
                    }
                    if (expected == 0) expected = digest;
                    CHECK_EQ_U64(digest, expected);
                }
                CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
                support_remove(folder);
            }
        }
        free(vectors);
    }
}

/* After a random history the answers are those of a fresh database with the same records. */
static void history_leaves_no_trace(void) {
    enum {
        IDS = 90
    };
    uint64_t state = 14;
    for (size_t round = 0; round < support_amount(5, 40, 200); round++) {
        uint64_t version[IDS];
        int live[IDS];
        iqdb *old = open_memory(), *fresh = open_memory();
        memset(live, 0, sizeof live);
        CHECK(old != NULL && fresh != NULL);
        for (size_t step = 0; step < 400; step++) {
            const uint64_t id = support_random_below(&state, IDS);
            if (support_random_below(&state, 3) == 0) {
                CHECK_EQ_INT(iqdb_delete(old, id, NULL), IQDB_OK);
                live[id] = 0;
            } else {
                version[id] = support_random_below(&state, 5);
                CHECK_EQ_INT(public_store(old, id, version[id]), IQDB_OK);
                live[id] = 1;
            }
        }
        for (uint64_t id = 0; id < IDS; id++)
            if (live[id]) CHECK_EQ_INT(public_store(fresh, id, version[id]), IQDB_OK);
        CHECK_EQ_U64(digest_database(old), digest_database(fresh));
        for (int metric = 0; metric < 4; metric++) {
            float probe[PUBLIC_DIM];
            iqdb_hit a[IDS], b[IDS];
            size_t count_a = 0, count_b = 0;
            for (size_t i = 0; i < PUBLIC_DIM; i++) probe[i] = support_random_float(&state);
            const iqdb_query query = public_query(probe, PUBLIC_DIM, IDS, metrics[metric]);
            CHECK_EQ_INT(iqdb_search(old, &query, a, &count_a), IQDB_OK);
            CHECK_EQ_INT(iqdb_search(fresh, &query, b, &count_b), IQDB_OK);
            CHECK_EQ_U64(count_a, count_b);
            for (size_t i = 0; i < count_a; i++) CHECK(a[i].id == b[i].id && same_bits(a[i].score, b[i].score));
        }
        CHECK_EQ_INT(iqdb_close(old), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(fresh), IQDB_OK);
    }
}

/* ---- Limits and pages ---- */

/* Pages of every size put together are the one long answer, ties included; a limit cuts it where it says. */
static void pages_and_limits_cut_one_answer(void) {
    enum {
        COUNT = 150
    };
    static float vectors[COUNT][PUBLIC_DIM];
    iqdb *db = open_memory();
    uint64_t state = 21;
    CHECK(db != NULL);
    for (uint64_t id = 0; id < COUNT; id++) { /* few places, so that most scores tie */
        for (size_t i = 0; i < PUBLIC_DIM; i++) vectors[id][i] = (float)support_random_below(&state, 3) - 1.0f;
        CHECK_EQ_INT(public_put(db, id * 7, vectors[id], PUBLIC_DIM), IQDB_OK);
    }
    for (int metric = 0; metric < 4; metric++) {
        const float probe[PUBLIC_DIM] = {1, 0, 0.5f};
        iqdb_hit all[COUNT], page[COUNT];
        size_t all_count = 0, count = 0;
        iqdb_query query = public_query(probe, PUBLIC_DIM, COUNT, metrics[metric]);
        CHECK_EQ_INT(iqdb_search(db, &query, all, &all_count), IQDB_OK);
        CHECK_EQ_U64(all_count, COUNT);
        for (size_t size = 1; size <= COUNT; size = size * 2 + 1) {
            size_t seen = 0;
            query.k = size;
            query.flags = 0;
            do {
                CHECK_EQ_INT(iqdb_search(db, &query, page, &count), IQDB_OK);
                for (size_t i = 0; i < count; i++, seen++)
                    CHECK(seen < COUNT && page[i].id == all[seen].id && same_bits(page[i].score, all[seen].score));
                if (count > 0) query.after = page[count - 1];
                query.flags = IQDB_AFTER;
            } while (count == size);
            CHECK_EQ_U64(seen, COUNT);
        }
        for (size_t last = 0; last < COUNT; last += 11) {
            size_t expected = 0;
            query.k = COUNT;
            query.flags = IQDB_MAX_DISTANCE;
            query.max_distance = all[last].score;
            while (expected < COUNT && all[expected].score <= query.max_distance) expected++;
            CHECK_EQ_INT(iqdb_search_batch(db, &query, probe, 1, page, &count), IQDB_OK);
            CHECK_EQ_U64(count, expected);
            for (size_t i = 0; i < count; i++) CHECK_EQ_U64(page[i].id, all[i].id);
            query.max_distance = nextafterf(query.max_distance, -INFINITY);
            CHECK_EQ_INT(iqdb_search(db, &query, page, &count), IQDB_OK);
            CHECK(count < expected && (count == 0 || page[count - 1].score < all[last].score));
        }
        query.max_distance = -INFINITY;
        CHECK_EQ_INT(iqdb_search(db, &query, page, &count), IQDB_OK);
        CHECK_EQ_U64(count, 0);
        query.max_distance = INFINITY;
        CHECK_EQ_INT(iqdb_search(db, &query, page, &count), IQDB_OK);
        CHECK_EQ_U64(count, COUNT);
        query.flags |= IQDB_AFTER; /* both at once, from a place between two scores */
        query.after.score = all[COUNT / 2].score;
        query.after.id = UINT64_MAX;
        query.max_distance = all[COUNT - 1].score;
        CHECK_EQ_INT(iqdb_search(db, &query, page, &count), IQDB_OK);
        for (size_t i = 0; i < count; i++) CHECK(page[i].score > query.after.score);
        size_t behind = 0;
        for (size_t i = 0; i < COUNT; i++) behind += all[i].score > query.after.score;
        CHECK_EQ_U64(count, behind);
    }
    const float nowhere[PUBLIC_DIM] = {0, 0, 0};
    iqdb_hit hits[COUNT];
    size_t count = 0;
    iqdb_query query = public_query(nowhere, PUBLIC_DIM, COUNT, IQDB_DOT); /* every score is 0 */
    query.flags = IQDB_AFTER;
    query.after.score = -0.0f; /* which is 0: ids decide */
    query.after.id = 70;
    CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
    CHECK_EQ_U64(count, COUNT - 11);
    CHECK_EQ_U64(hits[0].id, 77);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* ---- The caller's threads ---- */

#ifndef IQDB_NO_THREADS
typedef struct crew_member {
    void (*task_fn)(size_t, void *);
    void *task;
    size_t index;
} crew_member;

static void *crew_work(void *argument) {
    const crew_member *member = (const crew_member *)argument;
    member->task_fn(member->index, member->task);
    return NULL;
}

/* A thread for each task; `user` counts tasks. */
static void crew_run(void (*task_fn)(size_t, void *), void *task, size_t count, void *user) {
    pthread_t threads[64];
    crew_member members[64];
    *(size_t *)user += count;
    for (size_t i = 0; i < count; i++) {
        members[i].task_fn = task_fn;
        members[i].task = task;
        members[i].index = i;
        if (pthread_create(&threads[i], NULL, crew_work, &members[i]) != 0) abort();
    }
    for (size_t i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

static void any_number_of_workers_gives_the_same_bytes(void) {
    enum {
        DIM = 96,
        COUNT = 6000,
        QUERIES = 9,
        K = 40
    };
    uint64_t state = 77;
    float *vectors = random_vectors(COUNT + QUERIES, DIM, &state);
    static iqdb_hit alone[QUERIES * K], together[QUERIES * K];
    CHECK(vectors != NULL);
    memcpy(vectors + (size_t)DIM * 4000, vectors, DIM * 1000 * sizeof(float)); /* ties across the shares */
    for (size_t workers = 0; workers <= 70; workers = workers < 4 ? workers + 1 : workers * 3) {
        support_heap heap = support_heap_make();
        size_t tasks = 0, count = 0, counts[QUERIES], counts_alone[QUERIES];
        iqdb *db = NULL;
        iqdb_options options = iqdb_options_default();
        options.allocator = support_allocator(&heap);
        options.parallel_for.run_fn = crew_run;
        options.parallel_for.worker_count = workers;
        options.parallel_for.user = &tasks;
        CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
        for (size_t i = 0; i < COUNT; i++) {
            const iqdb_field fields[2] = {public_field("n", iqdb_int((int64_t)i)), public_field("a", iqdb_null())};
            iqdb_record record = public_record(i, vectors + i * DIM, DIM);
            record.fields = fields;
            record.field_count = i % 3 == 0 ? 2 : 1; /* "n" is not always in the same place */
            CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
        }
        const iqdb_filter filter = iqdb_ge("n", iqdb_int(0)); /* which holds for all: the tasks share its program */
        for (int metric = 0; metric < 4; metric++) {
            iqdb_query query = public_query(vectors + (size_t)COUNT * DIM, DIM, K, metrics[metric]);
            query.filter = metric % 2 == 0 ? &filter : NULL;
            for (int calls = 0; calls < 2; calls++) { /* the second asks for no memory */
                const size_t before = heap.calls;
                memset(together, 0, sizeof together);
                CHECK_EQ_INT(iqdb_search(db, &query, together, &count), IQDB_OK);
                CHECK_EQ_INT(iqdb_search_batch(db, &query, vectors + (size_t)COUNT * DIM, QUERIES, together, counts),
                             IQDB_OK);
                CHECK(calls == 0 || heap.calls == before);
            }
            if (workers == 0 && metric == 0) CHECK_EQ_U64(tasks, 0);
            /* Every vector alone, in one task: a predicate is never shared. */
            query.predicate = accept_all;
            const size_t tasks_before = tasks;
            for (size_t q = 0; q < QUERIES; q++) {
                query.vector = vectors + (COUNT + q) * DIM;
                memset(alone + q * K, 0, K * sizeof *alone);
                CHECK_EQ_INT(iqdb_search(db, &query, alone + q * K, &counts_alone[q]), IQDB_OK);
                CHECK_EQ_U64(counts[q], counts_alone[q]);
            }
            CHECK_EQ_U64(tasks, tasks_before);
            for (size_t i = 0; i < QUERIES * K; i++)
                CHECK(together[i].id == alone[i].id && same_bits(together[i].score, alone[i].score) &&
                      together[i].payload.bytes == NULL);
        }
        CHECK(workers < 2 ? tasks == 0 : tasks >= 16 * (workers < 3 ? workers : 3));
        heap.fail_at = 1; /* without memory for the shares a search does without them */
        iqdb_query query = public_query(vectors, DIM, K + 300, IQDB_L2);
        static iqdb_hit more[K + 300];
        const iqdb_result result = iqdb_search(db, &query, more, &count);
        CHECK(result == IQDB_OK && count == K + 300);
        heap.fail_at = 0;
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_U64(support_heap_problems(&heap), 0);
    }
    free(vectors);
}
#else
static void any_number_of_workers_gives_the_same_bytes(void) { TEST_SKIP("built without threads"); }
#endif

/* A search that has run once at this k asks the allocator for nothing when it runs again. */
static void a_warm_search_allocates_nothing(void) {
    support_heap heap = support_heap_make();
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL;
    iqdb_buffer buffer = iqdb_buffer_default();
    options.allocator = support_allocator(&heap);
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    for (uint64_t id = 0; id < 500; id++) CHECK_EQ_INT(public_store(db, id, id), IQDB_OK);
    iqdb_hit hits[50];
    size_t count = 0, calls = 0;
    const float probe[PUBLIC_DIM] = {0.5f, 0, 0};
    for (int round = 0; round < 10; round++) {
        for (int metric = 0; metric < 4; metric++) {
            iqdb_query query = public_query(probe, PUBLIC_DIM, 50, metrics[metric]);
            query.flags = IQDB_WITH_PAYLOAD;
            query.buffer = &buffer;
            CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
        }
        if (round == 0) calls = heap.calls;
        CHECK_EQ_U64(heap.calls, calls);
    }
    iqdb_buffer_free(&buffer);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
}

TEST_MAIN("api/search", TEST(every_dimension), TEST(ties_fall_to_the_smaller_id),
          TEST(the_set_at_the_cut_does_not_depend_on_the_order_of_insertion), TEST(equal_rows), TEST(extreme_values),
          TEST(beyond_the_range), TEST(squares_that_share_a_root), TEST(zero_vectors), TEST(laws_of_distances),
          TEST(the_examples_of_the_original), TEST(the_stored_metric_is_the_default),
          TEST(a_predicate_excludes_before_admission), TEST(a_predicate_may_read_and_write),
          TEST(a_predicate_may_write_another_handle), TEST(predicates_that_read_beside_writers),
          TEST(a_batch_answers_in_order), TEST(a_batch_is_its_single_searches), TEST(a_batch_may_stand_inside_another),
          TEST(a_batch_without_memory), TEST(a_bad_vector_fails_a_batch_before_any_output),
          TEST(payloads_come_with_the_hits), TEST(the_same_bits_from_every_instruction_set_and_store),
          TEST(history_leaves_no_trace), TEST(pages_and_limits_cut_one_answer),
          TEST(any_number_of_workers_gives_the_same_bytes), TEST(a_warm_search_allocates_nothing))
