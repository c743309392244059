/* CRC-32 against the definition: one bit at a time. */
#include "kernel/crc32.h"

#include "test.h"

#include "support.h"

static uint32_t model_byte(uint32_t crc, uint8_t byte) {
    crc = ~crc ^ byte;
    for (int bit = 0; bit < 8; bit++) crc = (crc & 1) != 0 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
    return ~crc;
}

static void check_value(void) {
    CHECK_EQ_U64(iq_crc32(0, "123456789", 9), 0xCBF43926u);
    CHECK_EQ_U64(iq_crc32(0, "", 0), 0);
    CHECK_EQ_U64(iq_crc32(0, NULL, 0), 0);
    CHECK_EQ_U64(iq_crc32(0x12345678u, "", 0), 0x12345678u);
}

static void every_length_and_alignment(void) {
    const size_t most = support_amount(600, 4096, 4096);
    uint8_t *bytes = (uint8_t *)malloc(4096 + 64);
    uint64_t random = 1;
    for (size_t i = 0; i < 4096 + 64; i++) bytes[i] = (uint8_t)support_random(&random);
    for (size_t shift = 0; shift < 64; shift++) {
        uint32_t expected = 0;
        for (size_t size = 0; size <= most; size++) {
            CHECK_EQ_U64(iq_crc32(0, bytes + shift, size), expected);
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

static void pieces_make_the_whole(void) {
    uint8_t bytes[1000];
    uint64_t random = 2;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)support_random(&random);
    const uint32_t whole = iq_crc32(0, bytes, sizeof bytes);
    for (size_t cut = 0; cut <= sizeof bytes; cut++)
        CHECK_EQ_U64(iq_crc32(iq_crc32(0, bytes, cut), bytes + cut, sizeof bytes - cut), whole);
    for (int round = 0; round < 200; round++) {
        uint32_t crc = 0;
        for (size_t at = 0; at < sizeof bytes;) {
            size_t size = (size_t)support_random_below(&random, 40);
            if (size > sizeof bytes - at) size = sizeof bytes - at;
            crc = iq_crc32(crc, bytes + at, size);
            at += size;
        }
        CHECK_EQ_U64(crc, whole);
    }
}

TEST_MAIN("kernel/crc32", TEST(check_value), TEST(every_length_and_alignment), TEST(every_byte_at_every_place),
          TEST(pieces_make_the_whole))
