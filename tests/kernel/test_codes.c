/* Every way to scan blocks of codes against the description in codes.h written down naively: which rows are listed, in
 * which order, with which sums, bit by bit; and nothing is read outside of a block, nor of one that takes no part. */
#include "kernel/codes.h"

#include "base/bytes.h"
#include "kernel/strict.h"
#include "sys/sys.h"

#include "test.h"

/* The way of AVX-512 with its instructions emulated. */
#include "emulated.h"
#if defined(HAVE_EMULATED_AVX512)
#define IQ_CODES_AVX512
#define iq_codes_ways emulated_ways
#define iq_codes_select emulated_select
#include "kernel/codes.c"
#undef iq_codes_ways
#undef iq_codes_select
#endif

#include "kernels.h"

#include <sys/mman.h>

enum {
    BLOCKS = 64,
    GROUPS_MAX = 130
};

#define WAYS_MAX (IQ_CODES_WAYS + 1)
static int ways(const iq_codes *out[WAYS_MAX]) {
    int count = 0;
#if defined(HAVE_EMULATED_AVX512)
    out[count++] = &iq_codes_avx512;
#endif
    return count + (int)iq_codes_ways(iq_cpu_features(), IQDB_SIMD_BEST, out + count);
}

static uint8_t blocks[BLOCKS * (128 + 64 * GROUPS_MAX)] __attribute__((aligned(64)));
static int8_t words[IQ_CODES_TILE][GROUPS_MAX * 8] __attribute__((aligned(4)));
static iq_codes_probe probes[IQ_CODES_TILE];

/* The nibble of dimension d of row r. */
static int nibble(const uint8_t *block, uint32_t r, uint32_t d) {
    const uint8_t byte = block[128 + d / 8 * 64 + 4 * r + d % 4];
    return d % 8 < 4 ? byte & 15 : byte >> 4;
}

static float naive_key; /* of the row that was not loose last */

static bool naive(const iq_codes_probe *probe, const uint8_t *block, uint32_t groups, uint32_t r, int32_t *out_sum) {
    long sum = 0;
    for (uint32_t d = 0; d < groups * 8; d++)
        sum += nibble(block, r, d) * ((const int8_t *)(const void *)probe->words)[d];
    *out_sum = (int32_t)(2 * sum - probe->centre);
    const uint32_t a = iq_get_u32(block + 4 * r), b = iq_get_u32(block + 64 + 4 * r);
    if (a >= 0x80000000u) return true;
    volatile float n = iq_f32_from_bits(a >> 12 << 12), cross, t, u;
    const int32_t side = (int32_t)(b >> 16) >= 32768 ? (int32_t)(b >> 16) - 65536 : (int32_t)(b >> 16);
    t = (float)*out_sum;
    cross = (float)(b % 65536u) * t;
    cross = cross * probe->cross_scale;
    t = (float)side * probe->side_scale;
    cross = cross + t;
    t = n * n;
    t = t * probe->error_square;
    t = t + probe->error_scale;
    t = (float)(a % 4096u) * t;
    cross = cross + t;
    cross = cross + probe->linear;
    t = probe->square * n;
    u = t - cross;
    t = n * u;
    naive_key = t;
    return !(t > probe->limit);
}

static bool scans_match(size_t probe_count, size_t block_count, uint32_t groups, const uint16_t *allow,
                        size_t *listed) {
    static iq_codes_hit hits[IQ_CODES_TILE * IQ_CODES_HITS];
    const iq_codes *all[WAYS_MAX];
    const int count = ways(all);
    bool good = true;
    for (int w = 0; w < count && good; w++) {
        size_t counts[IQ_CODES_TILE];
        memset(hits, 0xEE, sizeof hits);
        all[w]->scan(probes, probe_count, blocks, block_count, NULL, groups, allow, hits, counts);
        for (size_t p = 0; p < probe_count && good; p++) {
            size_t at = 0;
            for (uint32_t row = 0; row < block_count * 16 && good; row++) {
                int32_t sum;
                if ((allow[row / 16] >> row % 16 & 1) == 0) continue;
                if (!naive(&probes[p], blocks + row / 16 * iq_codes_block_bytes(groups), groups, row % 16, &sum))
                    continue;
                good = EXPECT(at < counts[p]);
                const iq_codes_hit *hit = &hits[p * IQ_CODES_HITS + at++];
                good = good && EXPECT(hit->row == row) && EXPECT(hit->sum == sum);
            }
            good = good && EXPECT(at == counts[p]);
            *listed += at;
        }
        static float keys[BLOCKS * 16];
        all[w]->keys(&probes[0], blocks, block_count, groups, keys);
        for (uint32_t row = 0; row < block_count * 16 && good; row++) {
            int32_t sum;
            const uint8_t *block = blocks + row / 16 * iq_codes_block_bytes(groups);
            if ((block[row % 16 * 4 + 3] & 0x80) != 0) continue; /* loose: any number */
            (void)naive(&probes[0], block, groups, row % 16, &sum);
            good = EXPECT(iq_f32_bits(keys[row]) == iq_f32_bits(naive_key));
        }
        if (!good) printf(" (%s, %zu probes, %u groups)", all[w]->name, probe_count, (unsigned)groups);
    }
    return good;
}

/* Numbers of a size at which some rows are listed and some are not. */
static void fill(uint64_t *random, uint32_t groups, int kind) {
    for (size_t i = 0; i < sizeof blocks; i++) blocks[i] = kind == 1 ? 0xFF : (uint8_t)support_random(random);
    for (size_t b = 0; b < BLOCKS; b++) {
        uint8_t *block = blocks + b * iq_codes_block_bytes(groups);
        for (uint32_t r = 0; r < 16; r++) {
            const uint32_t n = iq_f32_bits(0.5f + (float)(support_random(random) % 1000) / 500.0f);
            const uint32_t loose = support_random(random) % 50 == 0 ? 0x80000000u : 0;
            iq_put_u32(block + 4 * r, (n & 0x7FFFF000u) | (uint32_t)support_random(random) % 4096u | loose);
        }
    }
    for (size_t p = 0; p < IQ_CODES_TILE; p++) {
        int32_t sum = 0;
        for (uint32_t d = 0; d < groups * 8; d++) {
            words[p][d] = (int8_t)((int)(support_random(random) % 255) - 127);
            if (kind == 1) words[p][d] = p % 2 == 0 ? 127 : -127;
            if (kind == 1 && p >= 2) words[p][d] = d % 2 == 0 ? 127 : -127;
            sum += words[p][d];
        }
        probes[p].words = (const int32_t *)(const void *)words[p];
        probes[p].centre = 15 * sum;
        probes[p].cross_scale = 1e-9f / (float)groups;
        probes[p].side_scale = support_random_float(random) * 1e-5f;
        probes[p].error_scale = 1e-4f;
        probes[p].error_square = support_random_float(random) * 1e-5f;
        probes[p].linear = 1e-3f;
        probes[p].square = p == 3 ? 0.0f : 0.9999f;
        probes[p].limit = support_random_float(random) * 2.0f;
    }
}

static void every_number_of_groups(void) {
    uint64_t random = 1;
    uint16_t allow[BLOCKS], all[BLOCKS];
    size_t listed = 0, rows = 0;
    memset(all, 0xFF, sizeof all);
    for (uint32_t groups = 1; groups <= GROUPS_MAX; groups += groups < 20 ? 1 : 7) {
        for (int kind = 0; kind < 2; kind++) {
            for (size_t probe_count = 1; probe_count <= IQ_CODES_TILE; probe_count++) {
                const size_t block_count = support_random_below(&random, 9);
                fill(&random, groups, kind);
                for (size_t b = 0; b < BLOCKS; b++)
                    allow[b] = b % 3 == 0 ? 0 : b % 3 == 1 ? 0xFFFF : (uint16_t)support_random(&random);
                CHECK(scans_match(probe_count, block_count, groups, all, &listed));
                CHECK(scans_match(probe_count, block_count, groups, allow, &listed));
                rows += 2 * probe_count * block_count * 16;
            }
        }
    }
    CHECK(scans_match(4, BLOCKS, 3, all, &listed));
    CHECK(listed > rows / 10); /* and not all: the kinds of codes were seen on both sides */
}

static void counts_both_sides(void) {
    const iq_codes *all[WAYS_MAX];
    const int count = ways(all);
    static iq_codes_hit hits[IQ_CODES_HITS];
    uint64_t random = 5;
    size_t listed;
    uint16_t allow[BLOCKS];
    memset(allow, 0xFF, sizeof allow);
    fill(&random, 4, 0);
    probes[0].limit = 1.0f;
    printf(" ways tested here:");
    for (int w = 0; w < count; w++) {
        printf(" %s", all[w]->name);
        all[w]->scan(probes, 1, blocks, BLOCKS, NULL, 4, allow, hits, &listed);
        CHECK(listed > 20 && listed < 1000);
        for (int other = 0; other < w; other++) CHECK(all[w]->scan != all[other]->scan);
    }
    CHECK(all[count - 1] == iq_codes_select(iq_cpu_features(), IQDB_SIMD_BEST));
    CHECK_EQ_STR(iq_codes_select(iq_cpu_features(), IQDB_SIMD_SCALAR)->name, "scalar");
#if IQ_X86 && (defined(__clang__) || __GNUC__ >= 9)
    CHECK_EQ_STR(iq_codes_select(IQ_CPU_SSE2 | IQ_CPU_AVX2, IQDB_SIMD_SSE2)->name, "sse2");
    CHECK_EQ_STR(iq_codes_select(IQ_CPU_SSE2 | IQ_CPU_AVX2 | IQ_CPU_AVX512F, IQDB_SIMD_BEST)->name, "avx2");
    CHECK_EQ_STR(iq_codes_select(0xFFFFu, IQDB_SIMD_AVX2)->name, "avx2");
    CHECK_EQ_STR(iq_codes_select(0xFFFFu, IQDB_SIMD_BEST)->name, "avx512-vnni");
#endif
}

/* The largest sums there can be: 65,536 dimensions, all codes 15, all words 127 or all -127. */
static void largest_sums_fit(void) {
    const uint32_t groups = 8192;
    const size_t bytes = iq_codes_block_bytes(groups);
    const iq_codes *all[WAYS_MAX];
    const int count = ways(all);
    const uint16_t middle[1] = {0xFFFF};
    uint8_t *block = (uint8_t *)malloc(bytes + 64);
    int8_t *longest = (int8_t *)malloc(65536);
    static iq_codes_hit hits[IQ_CODES_TILE * IQ_CODES_HITS];
    CHECK(block != NULL && longest != NULL);
    for (int sign = -1; sign <= 1; sign += 2) {
        size_t counts[IQ_CODES_TILE];
        memset(block, 0xFF, bytes);
        memset(longest, sign * 127, 65536);
        for (size_t p = 0; p < IQ_CODES_TILE; p++) {
            memset(&probes[p], 0, sizeof probes[p]);
            probes[p].words = (const int32_t *)(const void *)longest;
            probes[p].centre = 15 * 127 * 65536 * sign;
        }
        for (int w = 0; w < count; w++) {
            all[w]->scan(probes, IQ_CODES_TILE, block, 1, NULL, groups, middle, hits, counts);
            for (size_t p = 0; p < IQ_CODES_TILE; p++) {
                CHECK_EQ_U64(counts[p], 16);
                for (size_t r = 0; r < 16; r++) CHECK_EQ_INT(hits[p * IQ_CODES_HITS + r].sum, 15 * 127 * 65536 * sign);
            }
        }
    }
    free(block);
    free(longest);
}

/* Blocks that end at a page that may not be touched. */
static void nothing_is_read_behind_the_last_block(void) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const iq_codes *all[WAYS_MAX];
    const int count = ways(all);
    static iq_codes_hit hits[IQ_CODES_TILE * IQ_CODES_HITS];
    size_t counts[IQ_CODES_TILE];
    uint64_t random = 9;
    uint8_t *memory = (uint8_t *)mmap(NULL, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != (uint8_t *)MAP_FAILED);
    CHECK(mprotect(memory, page, PROT_NONE) == 0 && mprotect(memory + 2 * page, page, PROT_NONE) == 0);
    for (uint32_t groups = 1; groups <= 15; groups++) {
        const size_t bytes = iq_codes_block_bytes(groups);
        const uint16_t middle[3] = {0, 0xFFFF, 0};
        fill(&random, groups, 0);
        for (int w = 0; w < count; w++) {
            all[w]->scan(probes, 4, memory + 2 * page - bytes, 1, NULL, groups, middle + 1, hits, counts);
            all[w]->scan(probes, 1, memory + page, 1, NULL, groups, middle + 1, hits, counts);
            all[w]->scan(probes, 4, memory + page - bytes, 3, NULL, groups, middle, hits, counts);
            CHECK(counts[0] <= 16);
        }
    }
    munmap(memory, 3 * page);
}

TEST_MAIN("kernel/codes", TEST(counts_both_sides), TEST(every_number_of_groups), TEST(largest_sums_fit),
          TEST(nothing_is_read_behind_the_last_block))
