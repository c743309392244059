/* One hash over the ids and the score bits of a fixed tape: the same for every instruction set, on every machine, in
 * memory and from a directory. It is printed, for machines to compare, and it is known beforehand: the number below was
 * computed with the plain loops of public.h, and the first test computes it again. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

#define EXPECTED_HASH UINT64_C(0x8d5f771a3a54aedd)

enum {
    ROWS = 48,
    QUERIES = 6,
    K = 20
};

static const iqdb_metric metrics[4] = {IQDB_L2, IQDB_COSINE, IQDB_DOT, IQDB_L1};

static uint32_t dims_of(size_t i) {
    static const uint32_t longer[] = {96,  100, 127, 128, 129, 200, 255,  256,  257,
                                      300, 384, 511, 512, 513, 768, 1000, 1024, 1536};
    if (i < 67) return (uint32_t)i + 1;
    return i - 67 < sizeof longer / sizeof longer[0] ? longer[i - 67] : 0;
}

/* 2^exponent, with no help of any library. */
static float power_of_two(int exponent) {
    float x = 1;
    for (; exponent > 0; exponent--) x *= 2;
    for (; exponent < 0; exponent++) x /= 2;
    return x;
}

/* Rows and queries of one dimension: mostly plain, some equal, zero, opposite, huge, tiny, and of mixed exponents. */
static void make_vectors(uint32_t dim, float *vectors) {
    uint64_t state = dim;
    for (size_t row = 0; row < ROWS + QUERIES; row++) {
        float *v = vectors + row * dim;
        for (uint32_t i = 0; i < dim; i++) {
            v[i] = support_random_float(&state);
            if (row % 12 == 3) v[i] *= power_of_two(100);  /* squares beyond f32 */
            if (row % 12 == 4) v[i] *= power_of_two(-130); /* subnormal */
            if (row % 12 == 5) v[i] *= power_of_two((int)support_random_below(&state, 40) - 20);
            if (row % 12 == 6) v[i] = 0;
            if (row % 12 == 7) v[i] = v[i] < 0 ? -1.0f : 1.0f; /* many ties */
            if (row % 12 == 8) v[i] *= power_of_two(-70);      /* squares subnormal */
            if (row % 12 == 9 && row > 12) v[i] = vectors[dim + i];
            if (row % 12 == 10 && row > 12) v[i] = -vectors[dim + i];
        }
    }
}

static uint64_t id_of(size_t row) { return (uint64_t)(row * 29 % ROWS) << (row % 2 * 40); }

/* What the manual says, and nothing else. */
static uint64_t model_hash(void) {
    uint64_t hash = PUBLIC_DIGEST;
    uint32_t dim;
    for (size_t d = 0; (dim = dims_of(d)) != 0; d++) {
        float *vectors = (float *)malloc((ROWS + QUERIES) * dim * sizeof *vectors);
        if (!EXPECT(vectors != NULL)) return 0;
        make_vectors(dim, vectors);
        for (int metric = 0; metric < 4; metric++) {
            for (size_t q = 0; q < QUERIES; q++) {
                float scores[ROWS];
                size_t order[ROWS];
                for (size_t row = 0; row < ROWS; row++) {
                    scores[row] = model_score(metrics[metric], vectors + (ROWS + q) * dim, vectors + row * dim, dim);
                    size_t at = row;
                    for (; at > 0; at--) {
                        const size_t before = order[at - 1];
                        if (scores[before] < scores[row] ||
                            (scores[before] == scores[row] && id_of(before) < id_of(row)))
                            break;
                        order[at] = before;
                    }
                    order[at] = row;
                }
                for (size_t i = 0; i < K; i++) hash = digest_score(digest_u64(hash, id_of(order[i])), scores[order[i]]);
            }
        }
        free(vectors);
    }
    return hash;
}

/* The same from a database. */
static uint64_t database_hash(iqdb_simd simd, int on_disk) {
    uint64_t hash = PUBLIC_DIGEST, entropy_state = 1;
    uint32_t dim;
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX], name[32];
    support_directory(folder);
    for (size_t d = 0; (dim = dims_of(d)) != 0; d++) {
        float *vectors = (float *)malloc((ROWS + QUERIES) * dim * sizeof *vectors);
        iqdb *db = NULL;
        iqdb_options options = iqdb_options_default();
        if (!EXPECT(vectors != NULL)) return 0;
        make_vectors(dim, vectors);
        options.simd_max = simd;
        options.files = public_quick_files();
        options.entropy = public_entropy(&entropy_state);
        snprintf(name, sizeof name, "%u", (unsigned)dim);
        support_join(path, folder, name);
        if (!EXPECT((on_disk ? iqdb_open(path, &options, &db) : iqdb_open_in_memory(&options, &db)) == IQDB_OK))
            return 0;
        for (size_t row = 0; row < ROWS; row++) EXPECT(public_put(db, id_of(row), vectors + row * dim, dim) == IQDB_OK);
        if (on_disk) {
            EXPECT(iqdb_close(db) == IQDB_OK);
            if (!EXPECT(iqdb_open(path, &options, &db) == IQDB_OK)) return 0;
        }
        for (int metric = 0; metric < 4; metric++) {
            iqdb_hit hits[QUERIES * K];
            size_t counts[QUERIES];
            const iqdb_query query = public_query(NULL, dim, K, metrics[metric]);
            EXPECT(iqdb_search_batch(db, &query, vectors + ROWS * dim, QUERIES, hits, counts) == IQDB_OK);
            for (size_t q = 0; q < QUERIES; q++)
                for (size_t i = 0; i < counts[q]; i++)
                    hash = digest_score(digest_u64(hash, hits[q * K + i].id), hits[q * K + i].score);
        }
        EXPECT(iqdb_close(db) == IQDB_OK);
        free(vectors);
    }
    support_remove(folder);
    return hash;
}

static void the_model_gives_the_known_hash(void) { CHECK_EQ_U64(model_hash(), EXPECTED_HASH); }

static void every_instruction_set_gives_the_same_hash(void) {
    const iqdb_simd levels[6] = {IQDB_SIMD_SCALAR, IQDB_SIMD_SSE2, IQDB_SIMD_AVX2,
                                 IQDB_SIMD_AVX512, IQDB_SIMD_NEON, IQDB_SIMD_BEST};
    uint64_t first = 0;
    for (int level = 0; level < 6; level++) {
        const uint64_t hash = database_hash(levels[level], 0);
        if (level == 0) {
            first = hash;
            printf("\nhash %016" PRIx64 "\n ", hash);
        }
        CHECK_EQ_U64(hash, first);
    }
    CHECK_EQ_U64(first, EXPECTED_HASH);
}

static void a_directory_gives_the_same_hash(void) { CHECK_EQ_U64(database_hash(IQDB_SIMD_BEST, 1), EXPECTED_HASH); }

TEST_MAIN("api/hash", TEST(the_model_gives_the_known_hash), TEST(every_instruction_set_gives_the_same_hash),
          TEST(a_directory_gives_the_same_hash))
