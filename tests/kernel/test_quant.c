/* Codes of rows: what they prove holds for every row, threshold and metric, for numbers of all sizes; what they say is
 * near the truth for ordinary numbers; and their bytes do not depend on the machine. */
#include "api.h"
#include "base/topk.h"
#include "kernel/quant.h"
#include "support.h"
#include "sys/sys.h"
#include "test.h"
#include "vectors.h"

enum {
    ROWS = 64,
    DIM_MAX = 2048
};

static float rows[ROWS * DIM_MAX] __attribute__((aligned(64)));
static float query[DIM_MAX] __attribute__((aligned(64))), norms[ROWS],
    scratch[40 * DIM_MAX] __attribute__((aligned(64)));
static uint8_t blocks[ROWS / 16 * (128 + 8 * DIM_MAX)] __attribute__((aligned(64)));
static int8_t words[DIM_MAX] __attribute__((aligned(64)));
static iq_quant quant;
static const iq_kernel *best;

static uint64_t seen_bases;

static void encode(const iq_kernel *kernel, uint8_t *out) {
    for (uint32_t i = 0; i < ROWS; i++)
        iq_quant_encode(&quant, kernel, rows + i * iq_row_stride(quant.dim), norms[i],
                        out + i / 16 * iq_quant_block_bytes(&quant), i % 16, scratch);
}

static void make_rows(uint32_t dim, int kind, bool unit, uint64_t seed) {
    const size_t stride = iq_row_stride(dim);
    if (best == NULL) best = iq_kernel_select(iq_cpu_features(), IQDB_SIMD_BEST);
    memset(rows, 0, sizeof rows);
    memset(blocks, 0, sizeof blocks);
    quant.dim = dim;
    quant.unit = unit;
    quant.basis = NULL;
    for (uint32_t i = 0; i < ROWS; i++) {
        vectors_row(rows + i * stride, dim, kind, seed, i);
        norms[i] = iq_vector_norm_of(best, rows + i * stride, dim);
    }
    encode(best, blocks);
}

/* `dims` vectors, orthonormal but for their rounding: some of the rows, and behind them any others. So heads hold most of
 * some rows and little of others. The centre is one of the rows, their mean, or nothing. */
static void make_basis(uint32_t dims, uint64_t *random) {
    static double vectors[320][320];
    static float memory[321 * 320] __attribute__((aligned(64)));
    static iq_basis basis;
    const uint32_t dim = quant.dim;
    const size_t stride = iq_row_stride(dim);
    const uint64_t from_rows = support_random_below(random, dims + 1), centre = support_random_below(random, ROWS + 2);
    quant.basis = NULL;
    memset(memory, 0, sizeof memory);
    for (uint32_t d = 0; d < dim && centre < ROWS + 1; d++) {
        double sum = 0;
        for (uint32_t i = 0; i < ROWS; i++)
            if (centre == ROWS || centre == i)
                sum += (double)rows[i * stride + d] /
                       (quant.unit && norms[i] > 1e-30f ? (double)norms[i] : 1.0) / (centre == ROWS ? ROWS : 1);
        memory[d] = sum < 1e12 && sum > -1e12 ? (float)sum : 0.0f;
    }
    for (uint32_t i = 0; i < dims; i++) {
        double length = 0;
        const float *row = rows + support_random_below(random, ROWS) * stride;
        for (uint32_t d = 0; d < dim; d++) {
            vectors[i][d] = (double)support_random_float(random) - 0.5;
            if (i < from_rows && row[d] < 1e18f && row[d] > -1e18f) vectors[i][d] = (double)row[d] - (double)memory[d];
        }
        for (int time = 0; time < 4; time++) {
            for (uint32_t j = 0; j < i; j++) {
                double product = 0;
                for (uint32_t d = 0; d < dim; d++) product += vectors[i][d] * vectors[j][d];
                for (uint32_t d = 0; d < dim; d++) vectors[i][d] -= product * vectors[j][d];
            }
            length = 0;
            for (uint32_t d = 0; d < dim; d++) length += vectors[i][d] * vectors[i][d];
            length = sqrt(length);
            for (uint32_t d = 0; d < dim; d++)
                vectors[i][d] = length > 1e-30 ? vectors[i][d] / length : (double)support_random_float(random) - 0.5;
        }
        for (uint32_t d = 0; d < dim; d++) memory[(i + 1) * stride + d] = (float)vectors[i][d];
    }
    if (iq_basis_set(&basis, best, dim, dims, memory)) quant.basis = &basis;
    seen_bases += quant.basis != NULL;
    encode(best, blocks);
}

static float score_of(iqdb_metric metric, uint32_t row, float norm) {
    const float *vector = rows + row * iq_row_stride(quant.dim);
    return iq_score_finish(metric, best->pair(query, vector, quant.dim, iq_score_sum_kind(metric)), norm, norms[row],
                           IQDB_ELEMENT_F32, query, vector, quant.dim);
}

static struct { uint64_t tests, listed, wanted, loose; } seen;

/* Each row's own score for a threshold: what scores no more may not be left out. */
static bool bounds_hold(iqdb_metric metric, uint64_t *random) {
    static iq_codes_hit hits[IQ_CODES_TILE * IQ_CODES_HITS];
    static const iq_codes *ways[IQ_CODES_WAYS];
    static size_t way_count;
    const uint16_t allow[ROWS / 16] = {0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF};
    iq_quant_probe probe;
    size_t counts[IQ_CODES_TILE];
    float scores[ROWS];
    const float norm = iq_vector_norm_of(best, query, quant.dim);
    const size_t bytes = iq_quant_block_bytes(&quant);
    bool good = true;
    if (way_count == 0) way_count = iq_codes_ways(iq_cpu_features(), IQDB_SIMD_BEST, ways);
    iq_quant_probe_make(&probe, &quant, metric, query, norm, words, scratch);
    if (!probe.usable) return true;
    for (uint32_t i = 0; i < ROWS; i++) scores[i] = score_of(metric, i, norm);
    for (uint32_t i = 0; i < ROWS && good; i += 1 + (uint32_t)support_random_below(random, 9)) {
        bool listed[ROWS];
        const float threshold = scores[i];
        const double size =
            support_random_below(random, 3) == 0 ? 0.0 : pow(2.0, (double)support_random_below(random, 9) - 5.0);
        const double key = iq_quant_key_beyond(&probe, threshold);
        iq_quant_aim(&probe, key, size * (double)norms[support_random_below(random, ROWS)]);
        const iq_codes *way = ways[support_random_below(random, (uint64_t)way_count)];
        memset(listed, 0, sizeof listed);
        way->scan(&probe.codes, 1, blocks, ROWS / 16, NULL, iq_codes_groups(iq_quant_dims(&quant)), allow, hits, counts);
        for (size_t h = 0; h < counts[0]; h++) {
            const iq_quant_row row =
                iq_quant_look(&probe, blocks + hits[h].row / 16 * bytes, hits[h].row % 16, hits[h].sum);
            listed[hits[h].row] = !iq_quant_is_beyond(&probe, &row);
            seen.loose += row.size < 0.0f;
        }
        for (uint32_t j = 0; j < ROWS && good; j++) {
            const bool wanted = iq_score_key(scores[j]) <= iq_score_key(threshold);
            seen.tests++;
            seen.listed += listed[j];
            seen.wanted += wanted;
            good = EXPECT(listed[j] || !wanted);
            if (!good)
                printf("\n      row %u scores %a, threshold %a, key %a, limit %a, length %a, offset %a, norm %a", j,
                       (double)scores[j], (double)threshold, key, (double)probe.codes.limit, probe.length, probe.offset,
                       (double)norms[j]);
        }
    }
    return good;
}

static void nothing_wanted_is_left_out(void) {
    const uint64_t seed = 1789;
    const size_t rounds = support_amount(60, 3000, 30000);
    uint64_t random = seed;
    memset(&seen, 0, sizeof seen);
    for (size_t i = 0; i < rounds; i++) {
        const int kind = (int)(i % VECTORS_KINDS);
        const uint32_t dim = 1 + (uint32_t)support_random_below(&random, i % 20 == 0 ? 2048 : i % 3 == 0 ? 320 : 40);
        const bool unit = i % 5 == 0;
        make_rows(dim, kind, unit, seed + i);
        if (i % 2 == 1 && dim >= IQ_BASIS_DIM_MIN && dim <= 320)
            make_basis(16 * (1 + (uint32_t)support_random_below(&random, dim / 16)), &random);
        for (int q = 0; q < 6; q++) {
            const uint64_t near = support_random_below(&random, ROWS);
            memset(query, 0, sizeof query);
            if (q < 2)
                vectors_row(query, dim, q == 0 ? kind : (int)support_random_below(&random, VECTORS_KINDS), seed + i,
                            1000 + near);
            else
                memcpy(query, rows + near * iq_row_stride(dim), dim * sizeof(float));
            if (q > 2)
                for (uint32_t d = 0; d < dim; d++) {
                    const float moved = query[d] * (1.0f + ldexpf(support_random_float(&random), -4 * q + 10));
                    query[d] = moved < 3e38f && moved > -3e38f ? moved : 1.0f;
                }
            const iqdb_metric metric = unit ? IQDB_COSINE : q % 2 == 0 ? IQDB_L2 : IQDB_DOT;
            const bool good = bounds_hold(metric, &random);
            if (!good)
                printf("\n      (%s, metric %d, dim %u, query %d, seed %llu)", vectors_kinds[kind], (int)metric, dim, q,
                       (unsigned long long)(seed + i));
            CHECK(good);
        }
    }
    printf(" %llu rows tested from seed %llu: %.1f %% wanted, %.1f %% listed, %.1f %% loose\n   ",
           (unsigned long long)seen.tests, (unsigned long long)seed, 100.0 * (double)seen.wanted / (double)seen.tests,
           100.0 * (double)seen.listed / (double)seen.tests, 100.0 * (double)seen.loose / (double)seen.tests);
    CHECK(seen.tests > rounds * 300);
    CHECK(seen_bases >= rounds / 10);
}

/* A code is what a block says: decoded again, it must be as near to the row as the block says, and orthogonal to what is
 * left, in double precision. */
static void codes_are_what_they_say(void) {
    uint64_t random = 3;
    size_t checked = 0;
    for (int kind = 0; kind < VECTORS_KINDS; kind++) {
        for (uint32_t dim = 1; dim < 200; dim += 1 + dim / 3) {
            make_rows(dim, kind, false, support_random(&random));
            for (uint32_t i = 0; i < ROWS; i++) {
                const uint8_t *block = blocks + i / 16 * iq_quant_block_bytes(&quant);
                const uint32_t a = iq_get_u32(block + i % 16 * 4), b = iq_get_u32(block + 64 + i % 16 * 4);
                const float *row = rows + i * iq_row_stride(dim);
                const double n = (double)iq_f32_from_bits(a & 0x7FFFF000u),
                             most = 8 / sqrt(dim) < 1.3 ? 8 / sqrt(dim) : 1.3;
                double length = 0, rest = 0, slant = 0;
                if (a >= 0x80000000u || n == 0) continue;
                for (uint32_t d = 0; d < dim; d++) {
                    const uint8_t byte = block[128 + d / 8 * 64 + i % 16 * 4 + d % 4];
                    const int code = d % 8 < 4 ? byte & 15 : byte >> 4;
                    const double v = n * ((double)(int16_t)(b >> 16) * most / 32767 +
                                          (double)(b & 65535) / 524288 * (2 * code - 15));
                    const double x = (double)row[d];
                    length += x * x;
                    rest += (x - v) * (x - v);
                    slant += (x - v) * x;
                }
                CHECK(n <= sqrt(length) && n * (1 + 1.0 / 512) >= sqrt(length));
                CHECK(sqrt(rest) <= (double)(a & 4095) / 8192 * n);
                CHECK(fabs(slant) <= sqrt(length) * n / 2048);
                if (kind == 0 && dim > 30) CHECK(sqrt(rest) < 0.15 * sqrt(length)); /* four bits are worth something */
                checked++;
            }
        }
    }
    CHECK(checked > 5000);
}

static void the_same_bytes_from_every_kernel(void) {
    static uint8_t other[sizeof blocks] __attribute__((aligned(64)));
    uint64_t random = 12;
    for (int i = 0; i < 2 * VECTORS_KINDS; i++) {
        const uint32_t dim = 70 + (uint32_t)i;
        make_rows(dim, i % VECTORS_KINDS, i % 2 == 0, 77 + (uint64_t)i);
        if (i % 3 == 0) make_basis(48, &random);
        const size_t bytes = iq_quant_block_bytes(&quant);
        for (int simd = IQDB_SIMD_SCALAR; simd <= IQDB_SIMD_NEON; simd++) {
            memset(other, 0xEE, sizeof other);
            encode(iq_kernel_select(iq_cpu_features(), (iqdb_simd)simd), other);
            CHECK_MEM(other, blocks, ROWS / 16 * bytes);
        }
    }
}

/* Encoding a row leaves the others of its block as they are. */
static void a_row_is_written_alone(void) {
    static uint8_t other[sizeof blocks] __attribute__((aligned(64)));
    make_rows(77, 0, false, 5);
    const size_t bytes = iq_quant_block_bytes(&quant);
    memset(other, 0xEE, sizeof other);
    iq_quant_encode(&quant, best, rows + 19 * iq_row_stride(77), norms[19], other, 3, scratch);
    for (size_t i = 0; i < bytes; i++) CHECK_EQ_INT(other[i], i / 4 % 16 == 3 ? blocks[bytes + i] : 0xEE);
}

TEST_MAIN("kernel/quant", TEST(codes_are_what_they_say), TEST(the_same_bytes_from_every_kernel),
          TEST(a_row_is_written_alone), TEST(nothing_wanted_is_left_out))
