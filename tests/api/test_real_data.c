/* Real vectors, where IQDB_DATA names a directory of them: the answers of an exact search against ground truth that
 * others computed, and against brute force. Files: docs-minilm-384.fbin, .query.fbin and .gt.ibin (u32 n, u32 dim, then
 * rows; u32 n, u32 k, then ids and squared distances), photos-sift-128.u8bin and .query.u8bin. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

typedef struct table {
    unsigned char *bytes;
    size_t rows;
    size_t columns;
    const unsigned char *data; /* behind the two numbers */
} table;

static uint32_t number_at(const unsigned char *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* `size` bytes an element; a file shorter than it says is a failure. At most `most` rows are read. */
static int table_read(table *t, const char *folder, const char *name, size_t size, size_t most) {
    char path[SUPPORT_PATH_MAX];
    unsigned char head[8];
    memset(t, 0, sizeof *t);
    support_join(path, folder, name);
    FILE *file = fopen(path, "rb");
    if (!EXPECT(file != NULL)) {
        printf("\n      ... cannot read %s", path);
        return 0;
    }
    int ok = EXPECT(fread(head, 1, 8, file) == 8);
    if (ok) {
        t->rows = number_at(head);
        t->columns = number_at(head + 4);
        if (t->rows > most) t->rows = most;
        const size_t bytes = t->rows * t->columns * size;
        t->bytes = (unsigned char *)malloc(bytes + 1);
        ok = EXPECT(t->bytes != NULL) && EXPECT(fread(t->bytes, 1, bytes, file) == bytes);
        t->data = t->bytes;
    }
    fclose(file);
    return ok;
}

static float *as_floats(const table *t, size_t size) {
    float *floats = (float *)malloc(t->rows * t->columns * sizeof *floats);
    for (size_t i = 0; floats != NULL && i < t->rows * t->columns; i++) {
        const uint32_t bits = size == 4 ? number_at(t->data + 4 * i) : 0;
        if (size == 4)
            memcpy(&floats[i], &bits, 4);
        else
            floats[i] = (float)t->data[i];
    }
    return floats;
}

static int store_all(iqdb *db, const float *rows, size_t count, size_t dim) {
    static iqdb_record records[1000];
    const size_t most = sizeof records / sizeof records[0];
    for (size_t begin = 0; begin < count; begin += most) {
        const size_t n = count - begin < most ? count - begin : most;
        for (size_t i = 0; i < n; i++) records[i] = public_record(begin + i, rows + (begin + i) * dim, (uint32_t)dim);
        if (!EXPECT(iqdb_upsert_batch(db, records, n) == IQDB_OK)) return 0;
    }
    return EXPECT(iqdb_len(db) == count);
}

static double squared_distance(const float *a, const float *b, size_t dim) {
    double sum = 0;
    for (size_t i = 0; i < dim; i++) sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sum;
}

/* All three metrics: the vectors have unit length, so the order is the same. An answer is right when its distance is at
 * most the tenth distance, but for one millionth. */
static void recall_on_documents(void) {
    const char *folder = getenv("IQDB_DATA");
    if (folder == NULL) TEST_SKIP("IQDB_DATA names no directory of real vectors");
    const size_t k = 10, most_queries = support_amount(12, 500, 500);
    table base, queries, truth;
    char folder_of_db[SUPPORT_PATH_MAX];
    CHECK(table_read(&base, folder, "docs-minilm-384.fbin", 4, (size_t)-1));
    CHECK(table_read(&queries, folder, "docs-minilm-384.query.fbin", 4, (size_t)-1));
    CHECK(table_read(&truth, folder, "docs-minilm-384.gt.ibin", 8, (size_t)-1)); /* an id and a distance each */
    float *rows = as_floats(&base, 4), *asked = as_floats(&queries, 4);
    CHECK(rows != NULL && asked != NULL);
    const size_t dim = base.columns, n = queries.rows < most_queries ? queries.rows : most_queries;
    CHECK(dim == 384 && queries.columns == dim && truth.rows == queries.rows && truth.columns >= k);
    support_directory(folder_of_db);
    iqdb *db = NULL;
    CHECK_EQ_INT(iqdb_open(folder_of_db, NULL, &db), IQDB_OK);
    CHECK(store_all(db, rows, base.rows, dim));
    const iqdb_metric metrics[3] = {IQDB_COSINE, IQDB_L2, IQDB_DOT};
    for (int round = 0; round < 2; round++) { /* as written, and from files */
        for (int metric = 0; metric < 3; metric++) {
            iqdb_hit *hits = (iqdb_hit *)malloc(n * k * sizeof *hits);
            size_t *counts = (size_t *)malloc(n * sizeof *counts), right = 0;
            CHECK(hits != NULL && counts != NULL);
            const iqdb_query query = public_query(NULL, (uint32_t)dim, k, metrics[metric]);
            CHECK_EQ_INT(iqdb_search_batch(db, &query, asked, n, hits, counts), IQDB_OK);
            for (size_t q = 0; q < n; q++) {
                CHECK_EQ_U64(counts[q], k);
                /* ids stand first, then the distances, as f32 */
                const uint32_t tenth_bits =
                    number_at(truth.data + 4 * (truth.rows * truth.columns + q * truth.columns + k - 1));
                float tenth;
                memcpy(&tenth, &tenth_bits, 4);
                for (size_t i = 0; i < k; i++) {
                    CHECK(hits[q * k + i].id < base.rows);
                    for (size_t j = 0; j < i; j++) CHECK(hits[q * k + i].id != hits[q * k + j].id);
                    const double d = squared_distance(asked + q * dim, rows + hits[q * k + i].id * dim, dim);
                    right += d <= (double)tenth * (1 + 1e-6);
                }
            }
            printf("\n    recall@10 of %zu queries, metric %d: %.4f", n, (int)metrics[metric],
                   (double)right / (double)(n * k));
            CHECK_EQ_U64(right, n * k);
            free(hits);
            free(counts);
        }
        if (support_amount(0, 1, 1) == 0 || round == 1) break;
        CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_open(folder_of_db, NULL, &db), IQDB_OK);
        CHECK_EQ_U64(iqdb_len(db), base.rows);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder_of_db);
    free(rows);
    free(asked);
    free(base.bytes);
    free(queries.bytes);
    free(truth.bytes);
}

/* Distances of u8 vectors are exact integers, so brute force in integers knows the answer to the bit. */
static void photographs_against_brute_force(void) {
    const char *folder = getenv("IQDB_DATA");
    if (folder == NULL) TEST_SKIP("IQDB_DATA names no directory of real vectors");
    enum {
        K = 100
    };
    const size_t sampled = support_amount(3, 25, 200);
    table base, queries;
    CHECK(table_read(&base, folder, "photos-sift-128.u8bin", 1, support_amount(10000, 100000, 100000)));
    CHECK(table_read(&queries, folder, "photos-sift-128.query.u8bin", 1, (size_t)-1));
    const size_t dim = base.columns;
    CHECK(dim == 128 && queries.columns == dim);
    float *rows = as_floats(&base, 1), *asked = as_floats(&queries, 1);
    CHECK(rows != NULL && asked != NULL);
    iqdb *db = NULL;
    CHECK_EQ_INT(iqdb_open_in_memory(NULL, &db), IQDB_OK);
    CHECK(store_all(db, rows, base.rows, dim));
    for (size_t sample = 0; sample < sampled; sample++) {
        const size_t q = sample * (queries.rows / sampled);
        iqdb_hit hits[K];
        size_t count = 0, best_count = 0;
        struct found {
            float score;
            uint64_t id;
        } best[K];
        const unsigned char *a = queries.data + q * dim;
        for (size_t row = 0; row < base.rows; row++) {
            const unsigned char *b = base.data + row * dim;
            uint32_t sum = 0; /* at most 128 * 255 * 255: exact in a float */
            for (size_t i = 0; i < dim; i++) {
                const int difference = (int)a[i] - (int)b[i];
                sum += (uint32_t)(difference * difference);
            }
            const float score = (float)sqrt((double)sum);
            if (best_count == K && score >= best[K - 1].score) continue; /* a later id loses a tie */
            size_t at = best_count < K ? best_count++ : K - 1;
            for (; at > 0 && score < best[at - 1].score; at--) best[at] = best[at - 1];
            best[at].score = score;
            best[at].id = row;
        }
        const iqdb_query query = public_query(asked + q * dim, (uint32_t)dim, K, IQDB_L2);
        CHECK_EQ_INT(iqdb_search(db, &query, hits, &count), IQDB_OK);
        CHECK_EQ_U64(count, K);
        for (size_t i = 0; i < K; i++) {
            CHECK_EQ_U64(hits[i].id, best[i].id);
            CHECK_EQ_F32(hits[i].score, best[i].score);
        }
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    free(rows);
    free(asked);
    free(base.bytes);
    free(queries.bytes);
}

/* `recall` becomes the part of the ten best of an exact search that the index finds; distances that are equal count. */
static double recall;
static void recall_of_index(const iqdb *db, const float *asked, size_t count, size_t dim, iqdb_plan plan) {
    size_t right = 0;
    for (size_t q = 0; q < count; q++) {
        iqdb_hit hits[10], best[10];
        size_t found, best_found;
        iqdb_search_info info;
        iqdb_query query = public_query(asked + q * dim, (uint32_t)dim, 10, IQDB_METRIC_DEFAULT);
        query.info = &info;
        CHECK_EQ_INT(iqdb_search(db, &query, hits, &found), IQDB_OK);
        CHECK_EQ_INT(info.plan, plan);
        query.flags = IQDB_EXACT;
        CHECK_EQ_INT(iqdb_search(db, &query, best, &best_found), IQDB_OK);
        CHECK(info.exact && found == 10 && best_found == 10);
        for (size_t i = 0; i < found; i++) right += hits[i].score <= best[9].score;
    }
    recall = (double)right / (double)(count * 10);
}

/* Calibrated for a recall, by records or by vectors like those that are asked, an index reaches it but for a hundredth. */
static void an_index_reaches_what_it_is_tuned_for(iqdb_index index, const char *base_file, const char *query_file,
                                                  size_t size, size_t most, iqdb_metric metric, bool shown) {
    const char *folder = getenv("IQDB_DATA");
    if (folder == NULL) TEST_SKIP("IQDB_DATA names no directory of real vectors");
    static const float recalls[] = {0.90f, 0.95f, 0.99f};
    table base, queries;
    CHECK(table_read(&base, folder, base_file, size, most));
    CHECK(table_read(&queries, folder, query_file, size, (size_t)-1));
    const size_t dim = base.columns, half = queries.rows / 2;
    float *rows = as_floats(&base, size), *asked = as_floats(&queries, size);
    CHECK(rows != NULL && asked != NULL && queries.columns == dim);
    bool done = false;
    iqdb *db = NULL;
    iqdb_options options = iqdb_options_default();
    options.index = index;
    options.metric = metric;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    CHECK(store_all(db, rows, base.rows, dim));
    while (!done) CHECK_EQ_INT(iqdb_maintain(db, 1000000, &done), IQDB_OK);
    for (size_t i = 0; i < 3; i++) {
        CHECK_EQ_INT(iqdb_tune(db, recalls[i], shown ? asked : NULL, shown ? half : 0), IQDB_OK);
        recall = 0;
        recall_of_index(db, asked + half * dim, half, dim, index == IQDB_INDEX_IVF ? IQDB_PLAN_LISTS : IQDB_PLAN_GRAPH);
        printf("\n    tuned for %.2f: %.4f", (double)recalls[i], recall);
        CHECK(recall >= (double)recalls[i] - 0.01);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    free(rows);
    free(asked);
    free(base.bytes);
    free(queries.bytes);
}

static void of_documents(iqdb_index index) {
    an_index_reaches_what_it_is_tuned_for(index, "docs-minilm-384.fbin", "docs-minilm-384.query.fbin", 4, (size_t)-1,
                                          IQDB_COSINE, false);
}
static void of_documents_by_titles(iqdb_index index) {
    an_index_reaches_what_it_is_tuned_for(index, "docs-minilm-384.fbin", "docs-minilm-384.titles.query.fbin", 4,
                                          (size_t)-1, IQDB_COSINE, true);
}
static void of_photographs(iqdb_index index) {
    an_index_reaches_what_it_is_tuned_for(index, "photos-sift-128.u8bin", "photos-sift-128.query.u8bin", 1,
                                          support_amount(20000, 100000, 500000), IQDB_L2, false);
}
static void lists_of_documents(void) { of_documents(IQDB_INDEX_IVF); }
static void lists_of_documents_by_titles(void) { of_documents_by_titles(IQDB_INDEX_IVF); }
static void lists_of_photographs(void) { of_photographs(IQDB_INDEX_IVF); }
static void graph_of_documents(void) { of_documents(IQDB_INDEX_HNSW); }
static void graph_of_documents_by_titles(void) { of_documents_by_titles(IQDB_INDEX_HNSW); }
static void graph_of_photographs(void) { of_photographs(IQDB_INDEX_HNSW); }

TEST_MAIN("api/real_data", TEST(lists_of_documents), TEST(lists_of_documents_by_titles), TEST(lists_of_photographs),
          TEST(graph_of_documents), TEST(graph_of_documents_by_titles), TEST(graph_of_photographs),
          TEST(recall_on_documents), TEST(photographs_against_brute_force))
