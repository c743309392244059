/* Search through codes against every row scored alone and sorted: the same ids, the same score bits, the same rows; for
 * every kind of data, metric, dimension, k, mask, predicate and limit, and with every way to scan codes. */
#include "api.h"
#include "base/alloc.h"
#include "index/coded.h"
#include "index/pca.h"
#include "support.h"
#include "test.h"
#include "vectors.h"

#define SPANS_MAX 5
#define TOGETHER_MAX 9

/* A set of rows in spans, coded. */
typedef struct set {
    uint32_t dim, rows, span_count;
    int kind;
    uint64_t seed;
    size_t stride;
    float *vectors, *norms, *matrix, *centre;
    uint64_t *ids;
    uint16_t *allow;
    uint8_t *blocks[2], *memory; /* raw, unit */
    iq_quant quant[2];
    iq_coded_span spans[SPANS_MAX];
} set;

static iqdb_allocator memory;
static const iq_kernel *best; /* asking the processor takes longer than a search */

static void begin(void) {
    memory = iq_alloc_default();
    best = iq_kernel_select(iq_cpu_features(), IQDB_SIMD_BEST);
}

static void *aligned(size_t size) {
    void *p = iq_alloc_zeroed(&memory, size + 64, 64);
    if (!EXPECT(p != NULL)) exit(2);
    return p;
}

static void set_make(set *s, uint32_t dim, uint32_t rows, uint32_t head, int kind, uint64_t seed) {
    uint64_t random = seed;
    const uint32_t coded = rows / 16 * 16;
    memset(s, 0, sizeof *s);
    s->dim = dim;
    s->rows = rows;
    s->kind = kind;
    s->seed = seed;
    s->stride = iq_row_stride(dim);
    s->vectors = (float *)aligned(rows * s->stride * 4);
    s->norms = (float *)aligned(rows * 4);
    s->ids = (uint64_t *)aligned(rows * 8);
    s->allow = (uint16_t *)aligned((rows / 16 + 1) * 2);
    for (uint32_t i = 0; i < rows; i++) {
        vectors_row(s->vectors + i * s->stride, dim, kind, seed, i);
        s->norms[i] = iq_vector_norm_of(iq_kernel_scalar(), s->vectors + i * s->stride, dim);
        s->ids[i] = support_random(&random);
    }
    for (int unit = 0; unit < 2; unit++) {
        iq_quant *quant = &s->quant[unit];
        quant->dim = dim;
        quant->head = head;
        quant->unit = unit == 1;
    }
    if (head < dim) {
        s->matrix = (float *)aligned(head * s->stride * 4);
        s->centre = (float *)aligned(s->stride * 4);
        s->quant[0].skew = s->quant[1].skew = vectors_matrix(s->matrix, dim, head, seed);
        if (kind != 12 && kind != 14 && kind != 4)
            for (uint32_t d = 0; d < dim; d++) s->centre[d] = 0.2f * vectors_normal(&random);
        for (int unit = 0; unit < 2; unit++) {
            s->quant[unit].matrix = s->matrix;
            s->quant[unit].centre = s->centre;
        }
    }
    s->memory = (uint8_t *)aligned(iq_quant_encode_bytes(&s->quant[0]));
    for (int unit = 0; unit < 2; unit++) {
        const size_t bytes = iq_quant_block_bytes(&s->quant[unit]);
        s->blocks[unit] = (uint8_t *)aligned(coded / 16 * bytes);
        for (uint32_t b = 0; b < coded / 16; b++)
            iq_quant_encode(&s->quant[unit], best, s->vectors + b * 16 * s->stride, s->norms + b * 16,
                            s->blocks[unit] + b * bytes, s->memory);
    }
    /* Cut into spans at multiples of 16; what is left over is a span without codes. */
    uint32_t from = 0;
    while (from < rows) {
        iq_coded_span *span = &s->spans[s->span_count++];
        uint32_t to = s->span_count >= SPANS_MAX - 1
                          ? coded
                          : from + (uint32_t)support_random_below(&random, rows) / 16 * 16 + 16;
        if (to > coded) to = coded;
        if (from >= coded) to = rows;
        span->vectors = s->vectors + from * s->stride;
        span->norms = s->norms + from;
        span->ids = s->ids + from;
        span->row_count = to - from;
        span->first_row = from;
        from = to;
    }
}

static void set_free(set *s) {
    const size_t words = s->rows / 16;
    iq_free(&memory, s->vectors, s->rows * s->stride * 4 + 64, 64);
    iq_free(&memory, s->norms, s->rows * 4 + 64, 64);
    iq_free(&memory, s->ids, s->rows * 8 + 64, 64);
    iq_free(&memory, s->allow, (words + 1) * 2 + 64, 64);
    iq_free(&memory, s->matrix, s->quant[0].head * s->stride * 4 + 64, 64);
    iq_free(&memory, s->centre, s->stride * 4 + 64, 64);
    iq_free(&memory, s->memory, iq_quant_encode_bytes(&s->quant[0]) + 64, 64);
    for (int unit = 0; unit < 2; unit++)
        iq_free(&memory, s->blocks[unit], words * iq_quant_block_bytes(&s->quant[unit]) + 64, 64);
}

/* What a search is told. */
typedef struct plan {
    iqdb_metric metric;
    size_t k, count;
    bool masked, choosy, limited, paged, coded;
    float max_distance;
    iqdb_hit after;
} plan;

static bool accept_some(const iq_coded_span *span, uint32_t index, void *user) {
    (void)user;
    return span->ids[index] % 3 != 0;
}

static int ranked(const void *a, const void *b) {
    const iqdb_hit *x = (const iqdb_hit *)a, *y = (const iqdb_hit *)b;
    return iq_ranks_before(x->score, x->id, y->score, y->id) ? -1 : iq_ranks_before(y->score, y->id, x->score, x->id);
}

static float score_of(const set *s, iqdb_metric metric, const float *query, float norm, uint32_t row) {
    const float *vector = s->vectors + row * s->stride;
    return iq_score_finish(metric, best->pair[iq_score_sum_kind(metric)](query, vector, s->dim), norm, s->norms[row],
                           query, vector, s->dim);
}

/* All hits in order, cut at k. */
static size_t naive(const set *s, const plan *p, const float *query, float norm, iqdb_hit *out) {
    size_t count = 0;
    for (uint32_t row = 0; row < s->rows; row++) {
        iqdb_hit hit;
        memset(&hit, 0, sizeof hit);
        if (p->masked && (s->allow[row / 16] >> row % 16 & 1) == 0) continue;
        if (p->choosy && s->ids[row] % 3 == 0) continue;
        hit.id = s->ids[row];
        hit.score = score_of(s, p->metric, query, norm, row);
        hit.payload.size = row;
        if (p->limited && !(hit.score <= p->max_distance)) continue;
        if (p->paged && ranked(&p->after, &hit) >= 0) continue;
        out[count++] = hit;
    }
    qsort(out, count, sizeof *out, ranked);
    return count < p->k ? count : p->k;
}

static struct {
    uint64_t searches, listed, evaluated, plain, rows, rescans, gave_up, pruned;
    uint64_t of_kind[VECTORS_KINDS];
} seen;

static void query_make(const set *s, float *query, uint64_t *random) {
    const uint64_t dice = support_random_below(random, 10), i = support_random_below(random, s->rows);
    memset(query, 0, s->stride * 4);
    if (dice < 2) {
        memcpy(query, s->vectors + i * s->stride, s->dim * 4);
        return;
    }
    if (dice == 2) return; /* zero */
    if (dice == 3) {       /* of another kind */
        vectors_row(query, s->dim, (int)support_random_below(random, VECTORS_KINDS), s->seed, i);
        return;
    }
    vectors_row(query, s->dim, s->kind, s->seed, s->rows + i);
    if (dice < 7)
        for (uint32_t d = 0; d < s->dim; d++) {
            const float moved = s->vectors[i * s->stride + d] * (1.0f + 0.1f * support_random_float(random));
            query[d] = moved < 3e38f && moved > -3e38f ? moved : 0.0f;
        }
}

/* One call, compared for each of its queries. */
static bool searches_match(set *s, plan *p, const iq_codes *codes, uint64_t *random) {
    const int unit = p->metric == IQDB_COSINE;
    iq_coded_probe probes[TOGETHER_MAX];
    iq_coded_query query;
    float *vectors = (float *)aligned(p->count * s->stride * 4);
    iqdb_hit *hits = (iqdb_hit *)malloc(p->count * p->k * sizeof *hits + 1);
    iqdb_hit *expected = (iqdb_hit *)malloc(s->rows * sizeof *expected);
    const size_t scratch_bytes = iq_coded_scratch_bytes(&s->quant[unit], p->count);
    void *scratch = aligned(scratch_bytes);
    bool good = true;
    memset(&query, 0, sizeof query);
    query.quant = &s->quant[unit];
    query.kernel = best;
    query.codes = codes;
    query.metric = p->metric;
    query.dim = s->dim;
    query.spans = s->spans;
    query.span_count = s->span_count;
    query.accept_fn = p->choosy ? accept_some : NULL;
    query.limited = p->limited;
    query.max_distance = p->max_distance;
    query.after = p->paged ? &p->after : NULL;
    for (size_t i = 0, from = 0; i < s->span_count; i++) {
        iq_coded_span *span = &s->spans[i];
        const bool coded = span->row_count % 16 == 0 && p->coded;
        span->blocks = coded ? s->blocks[unit] + from / 16 * iq_quant_block_bytes(&s->quant[unit]) : NULL;
        span->allow = p->masked ? s->allow + from / 16 : NULL;
        from += span->row_count;
    }
    for (size_t i = 0; i < p->count; i++) {
        float *vector = vectors + i * s->stride;
        query_make(s, vector, random);
        probes[i].vector = vector;
        probes[i].norm = iq_vector_norm_of(query.kernel, vector, s->dim);
        iq_topk_start(&probes[i].topk, hits + i * p->k, p->k);
    }
    iq_coded_search(&query, probes, p->count, scratch);
    for (size_t i = 0; i < p->count && good; i++) {
        const size_t count = naive(s, p, probes[i].vector, probes[i].norm, expected);
        const iqdb_hit *own = hits + i * p->k;
        iq_topk_sort(&probes[i].topk);
        good = EXPECT(probes[i].topk.count == count);
        for (size_t h = 0; h < count && good; h++)
            good = EXPECT(own[h].id == expected[h].id) &&
                   EXPECT(iq_f32_bits(own[h].score) == iq_f32_bits(expected[h].score)) &&
                   EXPECT(own[h].payload.size == expected[h].payload.size);
        seen.searches++;
        seen.of_kind[s->kind]++;
        seen.listed += probes[i].info.listed;
        seen.evaluated += probes[i].info.evaluated;
        seen.plain += probes[i].info.plain;
        seen.rescans += probes[i].info.rescans;
        seen.gave_up += probes[i].info.gave_up;
        seen.pruned += probes[i].info.evaluated + probes[i].info.plain < s->rows / 2;
        seen.rows += s->rows;
    }
    if (!good)
        printf(
            "\n      (%s of %s, metric %d, dim %u, head %u, rows %u, k %zu, count %zu, masked %d choosy %d limited %d paged %d, "
            "seed %llu)",
            codes->name, vectors_kinds[s->kind], (int)p->metric, s->dim, s->quant[0].head, s->rows, p->k, p->count,
            p->masked, p->choosy, p->limited, p->paged, (unsigned long long)s->seed);
    iq_free(&memory, vectors, p->count * s->stride * 4 + 64, 64);
    iq_free(&memory, scratch, scratch_bytes + 64, 64);
    free(hits);
    free(expected);
    return good;
}

static void plan_make(const set *s, plan *p, uint64_t *random) {
    memset(p, 0, sizeof *p);
    const uint64_t dice = support_random_below(random, 16);
    p->metric = (iqdb_metric)(1 + support_random_below(random, 3));
    p->k = dice < 6     ? 1
           : dice < 9   ? 3
           : dice < 12  ? 10
           : dice < 14  ? 1 + support_random_below(random, s->rows / 16 + 1)
           : dice == 14 ? s->rows
                        : 1 + support_random_below(random, s->rows + 5);
    p->count = support_random_below(random, 3) == 0 ? 1 + support_random_below(random, TOGETHER_MAX) : 1;
    p->coded = support_random_below(random, 50) != 0;
    p->masked = support_random_below(random, 4) == 0;
    p->choosy = support_random_below(random, 4) == 0;
    p->limited = support_random_below(random, 4) == 0;
    p->paged = support_random_below(random, 5) == 0;
    const uint32_t near = (uint32_t)support_random_below(random, s->rows),
                   by = (uint32_t)support_random_below(random, s->rows);
    const float *query = s->vectors + near * s->stride;
    if (p->limited) {
        p->max_distance =
            score_of(s, p->metric, query, s->norms[near], by) * (1.0f + 0.2f * support_random_float(random));
        if (support_random_below(random, 9) == 0) p->max_distance = INFINITY;
        if (support_random_below(random, 9) == 0) p->max_distance = 0.0f;
    }
    if (p->paged) {
        p->after.score = score_of(s, p->metric, query, s->norms[near], (near + 1) % s->rows);
        p->after.id = s->ids[by];
    }
    if (p->masked) {
        const uint64_t density = support_random_below(random, 5);
        for (uint32_t b = 0; b <= (s->rows - 1) / 16; b++) {
            const uint32_t r = (uint32_t)support_random(random);
            s->allow[b] = (uint16_t)(density == 0   ? (r % 9 == 0 ? 1u << r / 9 % 16 : 0)
                                     : density == 1 ? (r % 3 == 0 ? 0xFFFFu : 0)
                                     : density == 2 ? r & r >> 16
                                     : density == 3 ? r
                                                    : 0xFFFFu);
        }
        if (s->rows % 16 != 0) s->allow[s->rows / 16] &= (uint16_t)((1u << s->rows % 16) - 1);
    }
}

static bool set_matches(uint32_t dim, uint32_t rows, uint32_t head, int kind, uint64_t seed, size_t searches) {
    static const iq_codes *ways[VECTORS_WAYS_MAX];
    static int count;
    if (count == 0) count = vectors_ways(ways);
    uint64_t random = seed * 31;
    bool good = true;
    set s;
    set_make(&s, dim, rows, head, kind, seed);
    for (size_t i = 0; i < searches && good; i++) {
        plan p;
        plan_make(&s, &p, &random);
        good = searches_match(&s, &p, ways[i % (size_t)count], &random);
    }
    set_free(&s);
    return good;
}

static void report(uint64_t seed) {
    printf(
        "\n    %llu searches from seed %llu: of %llu rows %.2f %% listed, %.2f %% of those looked at, %.1f %% plain; %llu skipped "
        "most rows, %llu scanned again, %llu gave up\n   ",
        (unsigned long long)seen.searches, (unsigned long long)seed, (unsigned long long)seen.rows,
        100.0 * (double)seen.listed / (double)seen.rows, 100.0 * (double)seen.evaluated / (double)(seen.listed + 1),
        100.0 * (double)seen.plain / (double)seen.rows, (unsigned long long)seen.pruned,
        (unsigned long long)seen.rescans, (unsigned long long)seen.gave_up);
}

static void small_sets_of_every_kind(void) {
    const uint64_t seed = 20261121;
    uint64_t random = seed;
    const size_t target = support_amount(2000, 100000, 400000);
    memset(&seen, 0, sizeof seen);
    begin();
    for (uint64_t i = 0; seen.searches < target; i++) {
        const uint64_t dice = support_random_below(&random, 8);
        const uint32_t dim = 1 + (uint32_t)support_random_below(&random, dice < 3 ? 20 : dice < 7 ? 130 : 400);
        const uint32_t rows = 17 + (uint32_t)support_random_below(&random, 700);
        const uint32_t head = i % 3 == 0 && dim > 2 ? 1 + (uint32_t)support_random_below(&random, dim - 1) : dim;
        CHECK(set_matches(dim, rows, head, (int)(i % VECTORS_KINDS), seed + i, 60));
    }
    report(seed);
    for (int kind = 0; kind < VECTORS_KINDS; kind++) CHECK(seen.of_kind[kind] > target / VECTORS_KINDS / 3);
    CHECK(seen.searches >= target && seen.pruned > target / 5);
}

static void larger_sets(void) {
    const uint64_t seed = 4711;
    uint64_t random = seed;
    const size_t target = support_amount(60, 3000, 20000);
    memset(&seen, 0, sizeof seen);
    begin();
    for (uint64_t i = 0; seen.searches < target; i++) {
        const uint32_t dim = 1 + (uint32_t)support_random_below(&random, 60);
        const uint32_t rows = 3000 + (uint32_t)support_random_below(&random, 9000);
        const uint32_t head = i % 2 == 0 && dim > 8 ? dim / 2 : dim;
        CHECK(set_matches(dim, rows, head, (int)(i % VECTORS_KINDS), seed + i, support_amount(4, 60, 60)));
    }
    report(seed);
    CHECK(seen.searches >= target && seen.gave_up > 0 && seen.pruned > target / 8);
}

static void many_dimensions(void) {
    static const uint32_t dims[] = {255, 256, 257, 384, 511, 768, 1024, 1536, 2047, 2048};
    const uint64_t seed = 815;
    const size_t rounds = support_amount(1, 2, 15);
    memset(&seen, 0, sizeof seen);
    begin();
    for (uint64_t i = 0; i < IQ_COUNT_OF(dims) * rounds; i++) {
        const uint32_t dim = dims[i % IQ_COUNT_OF(dims)];
        const uint32_t head = dim <= 512 && i % 2 == 0 ? dim * 5 / 8 : dim;
        CHECK(set_matches(dim, 640 + (uint32_t)i, head, (int)(i * 7 % VECTORS_KINDS), seed + i,
                          support_amount(4, 40, 40)));
    }
    report(seed);
}

/* A file of IQDB_DATA: u32 rows, u32 dim, then elements of 1, 2 (f16) or 4 bytes. Rows at their stride; NULL where it
 * cannot be read. */
static float *real_rows(const char *name, size_t size, size_t most, uint32_t *out_rows, uint32_t *out_dim) {
    char path[SUPPORT_PATH_MAX];
    uint8_t head[8];
    support_join(path, getenv("IQDB_DATA"), name);
    FILE *file = fopen(path, "rb");
    if (!EXPECT(file != NULL) || !EXPECT(fread(head, 1, 8, file) == 8)) return NULL;
    *out_rows = iq_get_u32(head) < most ? iq_get_u32(head) : (uint32_t)most;
    *out_dim = iq_get_u32(head + 4);
    const size_t stride = iq_row_stride(*out_dim);
    float *rows = (float *)aligned(*out_rows * stride * 4);
    uint8_t *raw = (uint8_t *)malloc(*out_dim * size);
    bool good = true;
    for (uint32_t i = 0; i < *out_rows && good; i++) {
        good = EXPECT(fread(raw, size, *out_dim, file) == *out_dim);
        for (uint32_t d = 0; d < *out_dim; d++) {
            const uint32_t bits = size == 2 ? iq_get_u16(raw + 2 * d) : size == 4 ? iq_get_u32(raw + 4 * d) : 0;
            const int exponent = (int)(bits >> 10 & 31), digits = (int)(bits & 1023);
            float v = size == 4 ? iq_f32_from_bits(bits) : (float)raw[d];
            if (size == 2)
                v = exponent == 0 ? ldexpf((float)digits, -24) : ldexpf((float)(digits + 1024), exponent - 25);
            if (size == 2 && (bits & 0x8000u) != 0) v = -v;
            rows[i * stride + d] = v;
        }
    }
    free(raw);
    fclose(file);
    return rows;
}

/* Searches of a real set, with all dimensions coded and with a trained head, alone and together. */
static void real_set(const char *name, size_t size, const char *asked, size_t asked_size, const iqdb_metric *metrics,
                     int metric_count, size_t queries) {
    set s;
    uint32_t query_count, dim;
    memset(&s, 0, sizeof s);
    s.vectors = real_rows(name, size, (size_t)-1, &s.rows, &s.dim);
    float *vectors = real_rows(asked, asked_size, queries, &query_count, &dim);
    CHECK(s.vectors != NULL && vectors != NULL && dim == s.dim);
    s.stride = iq_row_stride(dim);
    s.norms = (float *)malloc(s.rows * sizeof(float));
    s.ids = (uint64_t *)malloc(s.rows * sizeof(uint64_t));
    for (uint32_t i = 0; i < s.rows; i++) {
        s.ids[i] = i;
        s.norms[i] = iq_vector_norm_of(best, s.vectors + i * s.stride, dim);
    }
    iq_pca pca;
    CHECK_EQ_INT(iq_pca_train(&pca, &memory, best, dim, s.vectors, 1500, 0.95, 0), IQDB_OK);
    CHECK(pca.head > 0);
    for (int m = 0; m < 2 * metric_count; m++) {
        plan p;
        iq_quant quant;
        iq_coded_query query;
        static iqdb_hit hits[16 * 10];
        uint64_t evaluated = 0, wrong = 0;
        memset(&p, 0, sizeof p);
        memset(&quant, 0, sizeof quant);
        memset(&query, 0, sizeof query);
        p.metric = metrics[m / 2];
        p.k = 10;
        quant.dim = dim;
        quant.head = m % 2 == 0 ? dim : pca.head;
        quant.unit = p.metric == IQDB_COSINE;
        quant.matrix = m % 2 == 0 ? NULL : pca.matrix;
        quant.centre = m % 2 == 0 ? NULL : pca.centre;
        quant.skew = m % 2 == 0 ? 0.0f : pca.skew;
        const size_t bytes = iq_quant_block_bytes(&quant), encode_bytes = iq_quant_encode_bytes(&quant);
        const size_t scratch_bytes = iq_coded_scratch_bytes(&quant, 1) + iq_coded_scratch_bytes(&quant, 16);
        uint8_t *coded = (uint8_t *)aligned(s.rows / 16 * bytes);
        void *room = aligned(encode_bytes), *scratch = aligned(scratch_bytes);
        for (uint32_t b = 0; b < s.rows / 16; b++)
            iq_quant_encode(&quant, best, s.vectors + b * 16 * s.stride, s.norms + b * 16, coded + b * bytes, room);
        iq_coded_span spans[2];
        memset(spans, 0, sizeof spans);
        spans[0].vectors = s.vectors;
        spans[0].norms = s.norms;
        spans[0].ids = s.ids;
        spans[1] = spans[0];
        spans[0].blocks = coded;
        spans[0].row_count = spans[1].first_row = s.rows / 16 * 16;
        spans[1].vectors += spans[1].first_row * s.stride;
        spans[1].norms += spans[1].first_row;
        spans[1].ids += spans[1].first_row;
        spans[1].row_count = s.rows - spans[1].first_row;
        query.quant = &quant;
        query.kernel = best;
        query.codes = iq_codes_select(iq_cpu_features(), IQDB_SIMD_BEST);
        query.metric = p.metric;
        query.dim = dim;
        query.spans = spans;
        query.span_count = 2;
        for (uint32_t q = 0; q < query_count;) {
            iq_coded_probe probes[16];
            const size_t count = q % 3 == 0 ? 1 : query_count - q < 16 ? query_count - q : 16;
            for (size_t i = 0; i < count; i++) {
                probes[i].vector = vectors + (q + i) * s.stride;
                probes[i].norm = iq_vector_norm_of(best, probes[i].vector, dim);
                iq_topk_start(&probes[i].topk, hits + i * 10, 10);
            }
            iq_coded_search(&query, probes, count, scratch);
            for (size_t i = 0; i < count; i++) {
                iqdb_hit expected[10];
                iq_topk truth;
                iq_topk_sort(&probes[i].topk);
                iq_topk_start(&truth, expected, 10);
                for (uint32_t row = 0; row < s.rows; row++) {
                    const float score = score_of(&s, p.metric, probes[i].vector, probes[i].norm, row);
                    if (iq_topk_admits(&truth, score, row)) iq_topk_push(&truth, score, row, row);
                }
                iq_topk_sort(&truth);
                for (size_t h = 0; h < 10; h++)
                    wrong += hits[i * 10 + h].id != expected[h].id ||
                             iq_f32_bits(hits[i * 10 + h].score) != iq_f32_bits(expected[h].score);
                evaluated += probes[i].info.evaluated + probes[i].info.plain;
            }
            q += (uint32_t)count;
        }
        printf("\n    %s, metric %d, %u of %u dimensions: %llu wrong of %u queries, %.0f rows looked at for each", name,
               (int)p.metric, quant.head, dim, (unsigned long long)wrong, query_count, (double)evaluated / query_count);
        CHECK_EQ_U64(wrong, 0);
        CHECK(evaluated < (uint64_t)query_count * s.rows / 10);
        iq_free(&memory, coded, s.rows / 16 * bytes + 64, 64);
        iq_free(&memory, room, encode_bytes + 64, 64);
        iq_free(&memory, scratch, scratch_bytes + 64, 64);
    }
    iq_pca_free(&pca);
    iq_free(&memory, s.vectors, s.rows * s.stride * 4 + 64, 64);
    iq_free(&memory, vectors, query_count * s.stride * 4 + 64, 64);
    free(s.norms);
    free(s.ids);
}

static void real_sets(void) {
    static const iqdb_metric text[3] = {IQDB_COSINE, IQDB_L2, IQDB_DOT}, photos[1] = {IQDB_L2};
    const size_t queries = support_amount(4, 60, 500);
    if (getenv("IQDB_DATA") == NULL) TEST_SKIP("IQDB_DATA names no directory of real vectors");
    begin();
    real_set("docs-all-minilm-384.hbin", 2, "docs-minilm-384.query.fbin", 4, text, 3, queries);
    real_set("docs-all-minilm-384.hbin", 2, "docs-minilm-384.titles.query.fbin", 4, text, 1, queries);
    real_set("photos-sift-128.u8bin", 1, "photos-sift-128.query.u8bin", 1, photos, 1, queries / 4 + 1);
    printf("\n   ");
}

TEST_MAIN("index/coded", TEST(small_sets_of_every_kind), TEST(larger_sets), TEST(many_dimensions), TEST(real_sets))
