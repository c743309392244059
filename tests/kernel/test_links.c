/* Every way to compute the keys of 32 neighbours, and products with codes of 8 bits, against their description in links.h
 * written down naively: the same bits, for all numbers of dimensions, with the largest sums there can be. */
#include "kernel/links.h"

#include "base/bytes.h"
#include "kernel/strict.h"
#include "support.h"
#include "sys/sys.h"
#include "test.h"

/* The way of AVX-512 with its instructions emulated. */
#include "emulated.h"
#if defined(HAVE_EMULATED_AVX512)
#define IQ_LINKS_AVX512
#define iq_links_ways emulated_ways
#define iq_links_select emulated_select
#include "kernel/links.c"
#undef iq_links_ways
#undef iq_links_select
#endif

#define WAYS_MAX (IQ_LINKS_WAYS + 1)
static size_t ways_of(const iq_links *out[WAYS_MAX]) {
    size_t count = 0;
#if defined(HAVE_EMULATED_AVX512)
    out[count++] = &iq_links_avx512;
#endif
    return count + iq_links_ways(iq_cpu_features(), IQDB_SIMD_BEST, out + count);
}

static uint8_t codes[IQ_LINK_DIMS_MAX * 8 + 64] __attribute__((aligned(64)));
static int8_t words[IQ_LINK_DIMS_MAX] __attribute__((aligned(64)));
static int16_t wide[IQ_LINK_DIMS_MAX] __attribute__((aligned(64)));
static float adds[IQ_LINKS];
static uint16_t factors[IQ_LINKS];

static int code_of(uint32_t dims, uint32_t neighbour, uint32_t d) {
    const uint8_t *block = codes + neighbour / 16 * dims * 4 + d / 16 * 64;
    return block[neighbour % 16 * 4 + d % 4] >> (d % 16 / 4 * 2) & 3;
}

static void fill(uint64_t *random, uint32_t dims, int extreme) {
    for (uint32_t i = 0; i < dims * 8; i++) codes[i] = extreme ? 0xFF : (uint8_t)support_random(random);
    for (uint32_t i = 0; i < dims; i++) {
        words[i] = (int8_t)(extreme ? 127 * extreme : (int)support_random_below(random, 255) - 127);
        wide[i] = (int16_t)(extreme ? 2047 * extreme : (int)support_random_below(random, 4095) - 2047);
    }
    for (uint32_t i = 0; i < IQ_LINKS; i++) {
        adds[i] = 100.0f * support_random_float(random);
        factors[i] = (uint16_t)(iq_f32_bits(1.0f + support_random_float(random)) >> 16);
    }
    if (!extreme) adds[5] = 3e38f;
}

static void keys_are_as_described(void) {
    const iq_links *ways[WAYS_MAX];
    const size_t count = ways_of(ways);
    uint64_t random = 1;
    for (uint32_t dims = IQ_LINK_DIMS; dims <= IQ_LINK_DIMS_MAX; dims += dims < 1024 ? 64 : 1024) {
        for (int extreme = -1; extreme <= 1; extreme++) {
            iq_link_probe probe;
            float keys[IQ_LINKS], seen[IQ_LINKS];
            const float distance = 7.5f + support_random_float(&random);
            int32_t dot = 0, sum = 0;
            fill(&random, dims, extreme);
            for (uint32_t d = 0; d < dims; d++) sum += words[d];
            probe.words = words;
            probe.wide = wide;
            probe.dims = dims;
            probe.centre = 3 * sum;
            probe.scale = 0.37f / (float)dims;
            for (uint32_t i = 0; i < IQ_LINKS; i++) {
                volatile float term, product, rest;
                sum = 0;
                for (uint32_t d = 0; d < dims; d++) sum += code_of(dims, i, d) * words[d];
                term = probe.scale * (float)(2 * sum - probe.centre);
                product = iq_f32_from_bits((uint32_t)factors[i] << 16) * term;
                rest = adds[i] - product;
                keys[i] = distance + rest;
            }
            for (uint32_t d = 0; d < dims; d++) dot += wide[d] * codes[d];
            for (size_t w = 0; w < count; w++) {
                const float limit = keys[support_random_below(&random, IQ_LINKS)];
                uint32_t below = 0;
                for (uint32_t i = 0; i < IQ_LINKS; i++) below |= (uint32_t)(keys[i] < limit) << i;
                CHECK_EQ_U64(ways[w]->scan(&probe, codes, adds, factors, distance, limit, seen), below);
                CHECK_MEM(seen, keys, sizeof keys);
                CHECK_EQ_INT(ways[w]->dot(wide, codes, dims), dot);
            }
        }
    }
}

static void the_best_way_is_chosen(void) {
    if (!IQ_NEON) CHECK_EQ_STR(iq_links_select(0, IQDB_SIMD_BEST)->name, "scalar");
    CHECK_EQ_STR(iq_links_select(0xFFFFFFFFu, IQDB_SIMD_SCALAR)->name, "scalar");
    if (IQ_X86) CHECK_EQ_STR(iq_links_select(IQ_CPU_SSE2 | IQ_CPU_AVX2, IQDB_SIMD_AVX2)->name, "avx2");
    if (IQ_X86) CHECK_EQ_STR(iq_links_select(0xFFFFFFFFu, IQDB_SIMD_BEST)->name, "avx512-vnni");
    if (IQ_NEON) CHECK_EQ_STR(iq_links_select(0, IQDB_SIMD_BEST)->name, "neon");
}

TEST_MAIN("kernel/links", TEST(keys_are_as_described), TEST(the_best_way_is_chosen))
