/* Search through codes beside a streaming read of the rows, a plain f32 scan, and itself in a batch: a program of its
 * own, because what it measures has no public face yet.
 *
 *   make bench-coded                     all sets there are; IQDB_DATA names the directory of the real ones
 *   build/bench/coded docs 5 256         one set (docs, photos, 768, 1536), rounds, and the size of the head: 0 for
 *                                        all dimensions, 1 for as many as hold 95 % of the variance
 *
 * Rounds are interleaved; a figure is the median over rounds of the mean over the queries of a round. Hot is back to
 * back; cold reads 160 MB of other memory before each query and does not count that. Answers are compared first. */
#define _GNU_SOURCE
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include "bench.h"

#include <stdio.h>

void *bare_alloc(size_t size);
typedef struct bare_range {
    const unsigned char *bytes;
    size_t size;
} bare_range;
const char *bare_read_name(size_t which);
double bare_read(size_t which, const bare_range *ranges, size_t count, uint64_t *out_sum);
void data_from_u8(float *out, const uint8_t *in, size_t count);
void data_from_f16(float *out, const uint16_t *in, size_t count);
int data_clusters(float *out, size_t count, uint32_t dim, uint64_t stream);

#define QUERIES 60
#define BATCH 64
#define ROUNDS_MAX 15
#define K 10
#define OTHER ((size_t)160 << 20)
#define SPAN 1024u

typedef struct bench_set {
    uint32_t dim, rows, span_count;
    size_t stride;
    float *vectors, *norms, *queries;
    uint64_t *ids;
    uint8_t *blocks;
    iq_coded_span *spans;
    iq_quant quant;
    const iq_kernel *kernel;
    const iq_codes *codes;
    iqdb_metric metric;
    void *scratch;
    iq_coded_info info;
} bench_set;

static unsigned char *other;
static size_t best_read;

static void stop(const char *why) {
    fprintf(stderr, "coded: %s\n", why);
    exit(1);
}

/* Elements of `size` bytes become floats, at most `most` rows of them. */
static float *load(const char *name, size_t size, uint32_t most, uint32_t *out_rows, uint32_t *out_dim) {
    char path[1024];
    uint32_t head[2];
    const char *folder = getenv("IQDB_DATA");
    if (folder == NULL) stop("IQDB_DATA names no directory");
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL || fread(head, 4, 2, file) != 2) stop(path);
    const uint32_t rows = head[0] < most ? head[0] : most, dim = head[1];
    const size_t count = (size_t)rows * dim, stride = iq_row_stride(dim);
    void *raw = malloc(count * size);
    float *flat = (float *)malloc(count * 4), *out = (float *)bare_alloc(rows * stride * 4);
    if (raw == NULL || flat == NULL || out == NULL || fread(raw, size, count, file) != count) stop(path);
    fclose(file);
    if (size == 1) data_from_u8(flat, (const uint8_t *)raw, count);
    if (size == 2) data_from_f16(flat, (const uint16_t *)raw, count);
    if (size == 4) memcpy(flat, raw, count * 4);
    for (size_t i = 0; i < rows; i++) memcpy(out + i * stride, flat + i * dim, dim * 4);
    free(raw);
    free(flat);
    *out_rows = rows;
    *out_dim = dim;
    return out;
}

static void set_load(bench_set *s, const char *name) {
    uint32_t queries, dim;
    memset(s, 0, sizeof *s);
    s->metric = IQDB_L2;
    if (strcmp(name, "docs") == 0) {
        s->metric = IQDB_COSINE;
        s->vectors = load("docs-all-minilm-384.hbin", 2, UINT32_MAX, &s->rows, &s->dim);
        s->queries = load("docs-minilm-384.query.fbin", 4, 500, &queries, &dim);
    } else if (strcmp(name, "photos") == 0) {
        s->vectors = load("photos-sift-128.u8bin", 1, UINT32_MAX, &s->rows, &s->dim);
        s->queries = load("photos-sift-128.query.u8bin", 1, 500, &queries, &dim);
    } else {
        s->dim = (uint32_t)atoi(name);
        s->rows = s->dim > 1000 ? 30000 : 60000;
        s->metric = IQDB_COSINE;
        s->vectors = (float *)bare_alloc((size_t)s->rows * s->dim * 4);
        s->queries = (float *)bare_alloc((size_t)500 * s->dim * 4);
        if (s->dim % 16 != 0 || s->dim < 16) stop("no such set");
        if (data_clusters(s->vectors, s->rows, s->dim, 1) != 0 || data_clusters(s->queries, 500, s->dim, 2) != 0) stop("memory");
    }
    s->stride = iq_row_stride(s->dim);
    s->kernel = iq_kernel_select(iq_cpu_features(), IQDB_SIMD_BEST);
    s->codes = iq_codes_select(iq_cpu_features(), IQDB_SIMD_BEST);
    s->norms = (float *)bare_alloc(s->rows * 4);
    s->ids = (uint64_t *)bare_alloc(s->rows * 8);
    for (uint32_t i = 0; i < s->rows; i++) {
        s->norms[i] = iq_vector_norm_of(s->kernel, s->vectors + i * s->stride, s->dim);
        s->ids[i] = i;
    }
}

/* head 1: as many dimensions as hold 95 % of the variance. */
static void set_train(bench_set *s, iq_pca *pca, uint32_t head) {
    static iqdb_allocator allocator;
    const size_t count = s->rows < 2048 ? s->rows : 2048;
    float *sample = (float *)bare_alloc(count * s->stride * 4);
    allocator = iq_alloc_default();
    for (size_t i = 0; i < count; i++)
        for (size_t d = 0; d < s->stride; d++) {
            const size_t row = i * (s->rows / count);
            sample[i * s->stride + d] = s->vectors[row * s->stride + d] / (s->quant.unit ? s->norms[row] : 1.0f);
        }
    const double start = bench_now();
    if (iq_pca_train(pca, &allocator, s->kernel, s->dim, sample, count, 0.95, head == 1 ? 0 : head) != IQDB_OK) stop("memory");
    printf("  trained in %.2f s: head %u, skew %g\n", bench_now() - start, pca->head, (double)pca->skew);
}

static void set_encode(bench_set *s) {
    void *room = aligned_alloc(64, (iq_quant_encode_bytes(&s->quant) + 63) / 64 * 64);
    const size_t bytes = iq_quant_block_bytes(&s->quant);
    s->blocks = (uint8_t *)bare_alloc(s->rows / 16 * bytes);
    s->spans = (iq_coded_span *)calloc(s->rows / SPAN + 2, sizeof *s->spans);
    const double start = bench_now();
    for (uint32_t b = 0; b < s->rows / 16; b++)
        iq_quant_encode(&s->quant, s->kernel, s->vectors + b * 16 * s->stride, s->norms + b * 16, s->blocks + b * bytes, room);
    const double seconds = bench_now() - start;
    uint32_t loose = 0;
    for (uint32_t i = 0; i < s->rows / 16 * 16; i++) loose += s->blocks[i / 16 * bytes + i % 16 * 4 + 3] >> 7;
    printf("  head %u: %.0f B a row, coded at %.2f us a row, %u loose\n", s->quant.head, (double)bytes / 16,
           1e6 * seconds / s->rows, loose);
    for (uint32_t from = 0; from < s->rows;) {
        iq_coded_span *span = &s->spans[s->span_count++];
        uint32_t size = s->rows - from < SPAN ? s->rows - from : SPAN;
        if (size >= 16) size -= size % 16;
        span->vectors = s->vectors + from * s->stride;
        span->norms = s->norms + from;
        span->ids = s->ids + from;
        span->blocks = size % 16 == 0 ? s->blocks + from / 16 * bytes : NULL;
        span->row_count = size;
        span->first_row = from;
        from += size;
    }
    free(room);
    s->scratch = bare_alloc(iq_coded_scratch_bytes(&s->quant, BATCH) + iq_coded_scratch_bytes(&s->quant, 1));
}

/* Seconds for `count` queries from number `first` on, together or one by one. */
static double search(bench_set *s, size_t first, size_t count, bool coded, iqdb_hit *hits) {
    iq_coded_probe probes[BATCH];
    iq_coded_query query;
    memset(&query, 0, sizeof query);
    query.quant = coded ? &s->quant : NULL;
    query.kernel = s->kernel;
    query.codes = s->codes;
    query.metric = s->metric;
    query.dim = s->dim;
    query.spans = s->spans;
    query.span_count = s->span_count;
    for (size_t i = 0; i < count; i++) {
        probes[i].vector = s->queries + (first + i) % 500 * s->stride;
        probes[i].norm = iq_vector_norm_of(s->kernel, probes[i].vector, s->dim);
        iq_topk_start(&probes[i].topk, hits + i * K, K);
    }
    const double start = bench_now();
    iq_coded_search(&query, probes, count, s->scratch);
    for (size_t i = 0; i < count; i++) iq_topk_sort(&probes[i].topk);
    const double seconds = bench_now() - start;
    for (size_t i = 0; i < count; i++) {
        s->info.listed += probes[i].info.listed;
        s->info.evaluated += probes[i].info.evaluated;
        s->info.plain += probes[i].info.plain;
        s->info.rescans += probes[i].info.rescans;
    }
    return seconds;
}

static double plain_search(bench_set *s, size_t first, iqdb_hit *hits) {
    uint8_t *const blocks = s->blocks;
    double seconds;
    for (uint32_t i = 0; i < s->span_count; i++) s->spans[i].blocks = NULL;
    seconds = search(s, first, 1, false, hits);
    for (uint32_t i = 0; i < s->span_count; i++)
        if (s->spans[i].row_count % 16 == 0)
            s->spans[i].blocks = blocks + s->spans[i].first_row / 16 * iq_quant_block_bytes(&s->quant);
    return seconds;
}

static double read_other(void) {
    uint64_t sum;
    const bare_range range = {other, OTHER};
    return bare_read(best_read, &range, 1, &sum);
}
static double read_rows(const bench_set *s, size_t which) {
    uint64_t sum;
    const bare_range range = {(const unsigned char *)s->vectors, s->rows * s->stride * 4};
    return bare_read(which, &range, 1, &sum);
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}
static double median(double *v, size_t count) {
    qsort(v, count, sizeof *v, by_size);
    return v[count / 2];
}

static void compare(bench_set *s) {
    static iqdb_hit plain[K], coded[K], together[BATCH * K];
    size_t wrong = 0;
    memset(&s->info, 0, sizeof s->info);
    search(s, 0, BATCH, true, together);
    memset(&s->info, 0, sizeof s->info);
    for (size_t i = 0; i < 100; i++) {
        search(s, i, 1, true, coded);
        const iq_coded_info info = s->info;
        plain_search(s, i, plain);
        s->info = info;
        for (size_t h = 0; h < K; h++) {
            wrong += plain[h].id != coded[h].id || iq_f32_bits(plain[h].score) != iq_f32_bits(coded[h].score);
            if (i < BATCH) wrong += plain[h].id != together[i * K + h].id;
        }
    }
    printf("  %zu wrong of 100 queries; a query lists %.0f rows, looks at %.0f in f32, scans again %.3f times; %.1f %% plain\n", wrong,
           (double)s->info.listed / 100, (double)s->info.evaluated / 100, s->info.rescans / 100.0,
           (double)s->info.plain / s->rows);
    if (wrong != 0) stop("answers differ");
}

static void measure(bench_set *s, int rounds) {
    enum { READ, PLAIN, HOT, COLD_READ, COLD, TOGETHER, FIGURES };
    static double figures[FIGURES][ROUNDS_MAX];
    static iqdb_hit hits[BATCH * K];
    for (int r = 0; r < rounds; r++) {
        double sums[FIGURES] = {0};
        for (size_t i = 0; i < 3; i++) sums[READ] += read_rows(s, best_read) / 3;
        sums[PLAIN] = plain_search(s, (size_t)r, hits);
        for (size_t i = 0; i < QUERIES; i++) sums[HOT] += search(s, r * 31 + i, 1, true, hits) / QUERIES;
        sums[TOGETHER] = search(s, (size_t)r * 31, BATCH, true, hits) / BATCH;
        for (size_t i = 0; i < 12; i++) {
            read_other();
            sums[COLD] += search(s, r * 31 + i, 1, true, hits) / 12;
        }
        read_other();
        sums[COLD_READ] = read_rows(s, best_read);
        for (int f = 0; f < FIGURES; f++) figures[f][r] = sums[f];
    }
    double m[FIGURES];
    for (int f = 0; f < FIGURES; f++) m[f] = median(figures[f], (size_t)rounds);
    printf("  read %.0f us (%.1f GB/s), plain scan %.0f us\n", 1e6 * m[READ], 1e-9 * (double)s->rows * (double)s->stride * 4 / m[READ], 1e6 * m[PLAIN]);
    printf("  hot  %7.1f us: %5.2f x the read, %5.2f x the plain scan\n", 1e6 * m[HOT], m[READ] / m[HOT], m[PLAIN] / m[HOT]);
    printf("  cold %7.1f us: %5.2f x the read, %5.2f x the plain scan\n", 1e6 * m[COLD], m[COLD_READ] / m[COLD], m[PLAIN] / m[COLD]);
    printf("  batch of %d %7.1f us a query: %5.2f x hot, %5.2f x cold\n", BATCH, 1e6 * m[TOGETHER], m[HOT] / m[TOGETHER], m[COLD] / m[TOGETHER]);
}

int main(int argc, char **argv) {
    bench_set s;
    const int rounds = argc > 2 && atoi(argv[2]) < ROUNDS_MAX ? atoi(argv[2]) : 5;
    const uint32_t head = argc > 3 ? (uint32_t)atoi(argv[3]) : 0;
    if (argc < 2) stop("which set?");
    set_load(&s, argv[1]);
    printf("%s: %u x %u, %s and %s\n", argv[1], s.rows, s.dim, s.kernel->name, s.codes->name);
    other = (unsigned char *)bare_alloc(OTHER);
    memset(other, 1, OTHER);
    double fastest = 1e9;
    for (size_t which = 0; bare_read_name(which) != NULL; which++) {
        if (bare_read_name(which)[0] == 0) continue;
        double seconds = 1e9;
        for (int i = 0; i < 3; i++) {
            const double once = read_rows(&s, which);
            seconds = once < seconds ? once : seconds;
        }
        if (seconds < fastest) best_read = which;
        fastest = seconds < fastest ? seconds : fastest;
    }
    printf("  fastest read: %s\n", bare_read_name(best_read));
    s.quant.dim = s.quant.head = s.dim;
    s.quant.unit = s.metric == IQDB_COSINE;
    if (head != 0) {
        iq_pca pca;
        set_train(&s, &pca, head);
        s.quant.head = pca.head != 0 ? pca.head : s.dim;
        s.quant.matrix = pca.matrix;
        s.quant.centre = pca.centre;
        s.quant.skew = pca.skew;
    }
    set_encode(&s);
    compare(&s);
    if (rounds > 0) measure(&s, rounds);
    return 0;
}
