/* CRC-32, by every way this machine has, against the definition: one bit at a time. */
#include "kernel/crc32.h"

#include "test.h"

#include "checksums.h"

#include <sys/mman.h>

static uint32_t model_byte(uint32_t crc, uint8_t byte) {
    crc = ~crc ^ byte;
    for (int bit = 0; bit < 8; bit++) crc = (crc & 1) != 0 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
    return ~crc;
}

/* Every set of features and every limit gives what they name, and this machine the last of its list. */
static void select_gives_the_named_way(void) {
    const uint32_t all = UINT32_MAX;
    iq_crc32_fn best = iq_crc32, at_avx2 = iq_crc32, at_sse2 = iq_crc32;
#if IQ_X86
    best = at_avx2 = iq_crc32_pclmul;
    CHECK(iq_crc32_select(IQ_CPU_SSE2 | IQ_CPU_AVX2 | IQ_CPU_PCLMUL, IQDB_SIMD_BEST) == iq_crc32_pclmul);
    CHECK(iq_crc32_select(IQ_CPU_SSE2 | IQ_CPU_PCLMUL, IQDB_SIMD_AVX2) == iq_crc32_pclmul);
    CHECK(iq_crc32_select(IQ_CPU_SSE2 | IQ_CPU_AVX2, IQDB_SIMD_BEST) == iq_crc32);
#if IQ_CRC32_VPCLMUL
    best = at_avx2 = iq_crc32_vpclmul;
#endif
#elif IQ_ARM64
    best = at_avx2 = at_sse2 = iq_crc32_arm;
#endif
    CHECK(iq_crc32_select(all, IQDB_SIMD_BEST) == best);
    CHECK(iq_crc32_select(all, IQDB_SIMD_AVX2) == at_avx2);
    CHECK(iq_crc32_select(all, IQDB_SIMD_SSE2) == at_sse2);
    CHECK(iq_crc32_select(all, IQDB_SIMD_SCALAR) == iq_crc32);
    CHECK(iq_crc32_select(0, IQDB_SIMD_BEST) == iq_crc32);
    model_checksum list[4];
    const int count = model_checksums(list);
    printf(" tested here:");
    for (int k = 0; k < count; k++) {
        printf(" %s", list[k].name);
        for (int other = 0; other < k; other++) CHECK(list[k].function != list[other].function);
    }
    CHECK(list[count - 1].function == iq_crc32_select(iq_cpu_features(), IQDB_SIMD_BEST));
}

static void check_value(void) {
    model_checksum list[4];
    const int count = model_checksums(list);
    for (int k = 0; k < count; k++) {
        const iq_crc32_fn crc32 = list[k].function;
        CHECK_EQ_U64(crc32(0, "123456789", 9), 0xCBF43926u);
        CHECK_EQ_U64(crc32(0, "", 0), 0);
        CHECK_EQ_U64(crc32(0, NULL, 0), 0);
        CHECK_EQ_U64(crc32(0x12345678u, "", 0), 0x12345678u);
    }
}

static void every_length_and_alignment(void) {
    const size_t most = support_amount(600, 4096, 4096);
    uint8_t *bytes = model_bytes(4096 + 64, 1);
    model_checksum list[4];
    const int count = model_checksums(list);
    for (size_t shift = 0; shift < 64; shift++) {
        uint32_t expected = 0;
        for (size_t size = 0; size <= most; size++) {
            for (int k = 0; k < count; k++) CHECK_EQ_U64(list[k].function(0, bytes + shift, size), expected);
            if (size < most) expected = model_byte(expected, bytes[shift + size]);
        }
    }
    free(bytes);
}

/* Every entry of every table is needed by one of these. */
static void every_byte_at_every_place(void) {
    for (unsigned place = 0; place < 16; place++) {
        for (unsigned value = 0; value < 256; value++) {
            uint8_t bytes[16];
            uint32_t expected = 0;
            memset(bytes, 0, sizeof bytes);
            bytes[place] = (uint8_t)value;
            for (size_t i = 0; i < 16; i++) expected = model_byte(expected, bytes[i]);
            CHECK_EQ_U64(iq_crc32(0, bytes, 16), expected);
        }
    }
}

/* The sum of single bits is all that a linear function can do wrong. */
static void every_bit_at_every_place(void) {
    uint8_t bytes[800];
    model_checksum list[4];
    const int count = model_checksums(list);
    memset(bytes, 0, sizeof bytes);
    for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
        bytes[bit / 8] = (uint8_t)(1u << bit % 8);
        const uint32_t expected = iq_crc32(0, bytes, sizeof bytes);
        for (int k = 1; k < count; k++) CHECK_EQ_U64(list[k].function(0, bytes, sizeof bytes), expected);
        bytes[bit / 8] = 0;
    }
    for (unsigned bit = 0; bit < 32; bit++) {
        const uint32_t expected = iq_crc32(1u << bit, bytes, sizeof bytes);
        for (int k = 1; k < count; k++) CHECK_EQ_U64(list[k].function(1u << bit, bytes, sizeof bytes), expected);
    }
    CHECK(count > 0);
}

static void pieces_make_the_whole(void) {
    enum {
        SIZE = 3000
    };
    uint8_t *bytes = model_bytes(SIZE, 2);
    uint64_t random = 3;
    model_checksum list[4];
    const int count = model_checksums(list);
    const uint32_t whole = iq_crc32(0, bytes, SIZE);
    for (int k = 0; k < count; k++) {
        const iq_crc32_fn crc32 = list[k].function;
        for (size_t cut = 0; cut <= SIZE; cut++)
            CHECK_EQ_U64(crc32(crc32(0, bytes, cut), bytes + cut, SIZE - cut), whole);
        for (int round = 0; round < 200; round++) {
            const uint64_t most = round % 2 == 0 ? 40 : 800;
            uint32_t crc = 0;
            for (size_t at = 0; at < SIZE;) {
                size_t size = (size_t)support_random_below(&random, most);
                if (size > SIZE - at) size = SIZE - at;
                crc = list[round % 3 == 0 ? (int)support_random_below(&random, (uint64_t)count) : k].function(
                    crc, bytes + at, size);
                at += size;
            }
            CHECK_EQ_U64(crc, whole);
        }
    }
    free(bytes);
}

static void large_ones(void) {
    const size_t most = 2u << 20, rounds = support_amount(5, 100, 1000);
    uint8_t *bytes = model_bytes(most, 4);
    uint64_t random = 5;
    model_checksum list[4];
    const int count = model_checksums(list);
    for (size_t round = 0; round < rounds; round++) {
        const size_t at = (size_t)support_random_below(&random, 4096);
        const size_t size = (size_t)support_random_below(&random, most - at);
        const uint32_t start = (uint32_t)support_random(&random);
        const uint32_t expected = iq_crc32(start, bytes + at, size);
        for (int k = 1; k < count; k++) CHECK_EQ_U64(list[k].function(start, bytes + at, size), expected);
    }
    CHECK(count > 0);
    free(bytes);
}

/* Bytes that end, and others that begin, at a page that may not be touched. */
static void nothing_outside_is_read(void) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *memory = (uint8_t *)mmap(NULL, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    model_checksum list[4];
    const int count = model_checksums(list);
    CHECK(memory != (uint8_t *)MAP_FAILED);
    uint8_t *inside = memory + page;
    for (size_t i = 0; i < page; i++) inside[i] = (uint8_t)(i * 7 + i / 251);
    CHECK_EQ_INT(mprotect(memory, page, PROT_NONE), 0);
    CHECK_EQ_INT(mprotect(inside + page, page, PROT_NONE), 0);
    for (size_t size = 0; size <= 1100; size++) {
        const uint8_t *last = inside + page - size;
        const uint32_t first_crc = iq_crc32(0, inside, size), last_crc = iq_crc32(0, last, size);
        for (int k = 0; k < count; k++) {
            CHECK_EQ_U64(list[k].function(0, inside, size), first_crc);
            CHECK_EQ_U64(list[k].function(0, last, size), last_crc);
        }
    }
    munmap(memory, 3 * page);
}

#if IQ_X86
/* x^power mod P by the definition: multiply by x, subtract P; then bit 0 becomes the highest power. */
static uint64_t model_power(unsigned power) {
    uint64_t remainder = 1, reflected = 0;
    for (unsigned i = 0; i < power; i++) {
        remainder <<= 1;
        if (remainder >> 32 != 0) remainder ^= UINT64_C(0x104C11DB7);
    }
    for (int bit = 0; bit < 32; bit++) reflected |= (remainder >> bit & 1) << (31 - bit);
    return reflected;
}
#endif

static void constants_are_powers(void) {
#if IQ_X86
    static const uint64_t constants[][2] = {
        {IQ_CRC32_FOLD_128}, {IQ_CRC32_FOLD_256}, {IQ_CRC32_FOLD_512}, {IQ_CRC32_FOLD_1024}};
    CHECK_EQ_U64(model_power(32), 0xEDB88320u); /* P itself, without its highest power */
    for (unsigned i = 0; i < 4; i++) {
        const unsigned distance = 128u << i;
        CHECK_EQ_U64(constants[i][0], model_power(distance + 31));
        CHECK_EQ_U64(constants[i][1], model_power(distance - 33));
    }
#else
    TEST_SKIP("nothing is folded on this machine");
#endif
}

TEST_MAIN("kernel/crc32", TEST(select_gives_the_named_way), TEST(check_value), TEST(every_length_and_alignment),
          TEST(every_byte_at_every_place), TEST(every_bit_at_every_place), TEST(pieces_make_the_whole),
          TEST(large_ones), TEST(nothing_outside_is_read), TEST(constants_are_powers))
