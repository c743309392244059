/* k-means against Lloyd's algorithm in double precision from the same first centres, and ranks against distances. */
#include "index/kmeans.h"
#include "support.h"
#include "test.h"
#include "vectors.h"

#include <math.h>

enum {
    DIM = 24,
    STRIDE = 32,
    ROWS = 3000,
    CENTRES = 40
};

static float rows[ROWS * STRIDE] __attribute__((aligned(64)));

static const float *row_of(void *user, uint32_t i, float *room) {
    (void)user;
    (void)room;
    return i % 97 == 5 ? NULL : rows + i * STRIDE; /* some are gone */
}

static double square_of(const float *a, const double *b) {
    double sum = 0;
    for (int j = 0; j < DIM; j++) sum += ((double)a[j] - b[j]) * ((double)a[j] - b[j]);
    return sum;
}

static void make_rows(int kind) {
    memset(rows, 0, sizeof rows);
    for (uint64_t i = 0; i < ROWS; i++) vectors_row(rows + i * STRIDE, DIM, kind, 3, i);
}

/* The inertia behind so many rounds from these centres; a centre without vectors stays where it is. */
static double naive_inertia(double *centres, uint32_t rounds) {
    static double sums[CENTRES][DIM];
    double inertia = 0;
    for (uint32_t round = 0; round <= rounds; round++) {
        uint32_t counts[CENTRES] = {0};
        memset(sums, 0, sizeof sums);
        inertia = 0;
        for (uint32_t i = 0; i < ROWS; i++) {
            if (row_of(NULL, i, NULL) == NULL) continue;
            int best = 0;
            double least = INFINITY;
            for (int c = 0; c < CENTRES; c++) {
                const double square = square_of(rows + i * STRIDE, centres + c * DIM);
                if (square < least) best = c;
                if (square < least) least = square;
            }
            inertia += least;
            counts[best]++;
            for (int j = 0; j < DIM; j++) sums[best][j] += (double)rows[i * STRIDE + (uint32_t)j];
        }
        for (int c = 0; c < CENTRES && round < rounds; c++)
            for (int j = 0; j < DIM && counts[c] > 0; j++) centres[c * DIM + j] = sums[c][j] / counts[c];
    }
    return inertia;
}

static uint64_t train(bool coded, const iq_codes *codes, double *out_inertia, double *first) {
    iq_centres centres;
    iq_kmeans kmeans;
    double after[CENTRES * DIM];
    memset(&centres, 0, sizeof centres);
    memset(&kmeans, 0, sizeof kmeans);
    void *memory = support_aligned_alloc(iq_centres_bytes(CENTRES, DIM, coded), 64);
    memset(memory, 0, iq_centres_bytes(CENTRES, DIM, coded));
    iq_centres_start(&centres, CENTRES, DIM, coded, memory);
    void *work = support_aligned_alloc(iq_kmeans_bytes(&centres, ROWS), 64);
    memset(work, 0, iq_kmeans_bytes(&centres, ROWS));
    kmeans.centres = &centres;
    kmeans.kernel = iq_kernel_select(iq_cpu_features(), IQDB_SIMD_BEST);
    kmeans.codes = codes;
    kmeans.vector_fn = row_of;
    kmeans.seed = 12;
    kmeans.sample_count = ROWS;
    iq_kmeans_start(&kmeans, work);
    for (int c = 0; c < CENTRES; c++)
        for (int j = 0; j < DIM; j++) first[c * DIM + j] = (double)centres.vectors[c * STRIDE + j];
    while (!iq_kmeans_step(&kmeans)) {
    }
    for (int c = 0; c < CENTRES; c++)
        for (int j = 0; j < DIM; j++) after[c * DIM + j] = (double)centres.vectors[c * STRIDE + j];
    *out_inertia = naive_inertia(after, 0);
    uint64_t digest = 14695981039346656037u;
    for (size_t i = 0; i < CENTRES * STRIDE; i++) {
        uint32_t bits;
        memcpy(&bits, centres.vectors + i, sizeof bits);
        digest = (digest ^ bits) * 1099511628211u;
    }
    support_aligned_free(work);
    support_aligned_free(memory);
    return digest;
}

/* Within a hundredth of what double precision comes to, and the same bits from every instruction set. */
static void as_good_as_in_double_precision(void) {
    static const int kinds[] = {0, 1, 2, 6, 11};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        double first[CENTRES * DIM], inertia;
        const iq_codes *ways[IQ_CODES_WAYS];
        const size_t way_count = iq_codes_ways(iq_cpu_features(), IQDB_SIMD_BEST, ways);
        make_rows(kinds[i]);
        (void)train(false, NULL, &inertia, first);
        const double expected = naive_inertia(first, IQ_KMEANS_ROUNDS);
        printf("\n    %s: inertia %.6g, in double precision %.6g", vectors_kinds[kinds[i]], inertia, expected);
        CHECK(inertia <= expected * 1.01);
        uint64_t digest = 0;
        for (size_t w = 0; w < way_count; w++) {
            double coded;
            const uint64_t own = train(true, ways[w], &coded, first);
            CHECK(w == 0 || own == digest);
            digest = own;
            /* Where all that differs is far below the step of a code, codes can tell little. */
            CHECK(coded <= expected * (kinds[i] == 11 ? 1.5 : 1.02));
        }
    }
}

/* Fewer different vectors than centres, huge ones, tiny ones: it ends, and with numbers. */
static void whatever_the_vectors(void) {
    const iq_codes *codes = iq_codes_select(iq_cpu_features(), IQDB_SIMD_BEST);
    for (int kind = 0; kind < VECTORS_KINDS; kind++) {
        double first[CENTRES * DIM], inertia;
        make_rows(kind);
        (void)train(true, codes, &inertia, first);
        CHECK(!isnan(inertia));
    }
    memset(rows, 0, sizeof rows);
    double first[CENTRES * DIM], inertia;
    (void)train(true, codes, &inertia, first);
    CHECK(inertia == 0.0);
}

static void selects_as_many_as_wanted(void) {
    uint64_t random = 8;
    for (int round = 0; round < 2000; round++) {
        float keys[3000]; /* a sample of more than 512 says about where to look */
        const uint32_t count = 1 + (uint32_t)support_random_below(&random, round % 2 == 0 ? 500 : 3000);
        const uint32_t want = 1 + (uint32_t)support_random_below(&random, count + 20);
        for (uint32_t i = 0; i < count; i++)
            keys[i] = round % 4 == 0 ? (float)support_random_below(&random, 5) : support_random_float(&random) * 1e20f;
        const float key = iq_keys_select(keys, count, want);
        uint32_t below = 0, less = 0;
        for (uint32_t i = 0; i < count; i++) below += keys[i] <= key;
        CHECK(below >= (want < count ? want : count));
        float next = -INFINITY; /* the largest of those */
        for (uint32_t i = 0; i < count; i++)
            if (keys[i] <= key && keys[i] > next) next = keys[i];
        for (uint32_t i = 0; i < count; i++) less += keys[i] < next;
        CHECK(less <= want + want / 16);
    }
}

TEST_MAIN("index/kmeans", TEST(as_good_as_in_double_precision), TEST(whatever_the_vectors),
          TEST(selects_as_many_as_wanted))
