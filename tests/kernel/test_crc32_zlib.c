/* CRC-32, by every way this machine has, against zlib, which is what our files promise: any zlib can check them. */
/* link: -lz */
#include "kernel/crc32.h"

#include "test.h"

#include "checksums.h"

#if defined(__has_include)
#if __has_include(<zlib.h>)
#define HAVE_ZLIB 1
#include <zlib.h>
#endif
#endif

static void same_as_zlib(void) {
#ifdef HAVE_ZLIB
    const size_t most = support_amount(300, 4096, 4096);
    uint8_t *bytes = model_bytes(4096 + 64, 1);
    uint64_t random = 1;
    model_checksum list[4];
    const int count = model_checksums(list);
    for (size_t shift = 0; shift < 64; shift++) {
        for (size_t size = 0; size <= most; size++) {
            const uint32_t start = (uint32_t)(size % 3 == 0 ? 0 : support_random(&random));
            const uint64_t expected = crc32(start, bytes + shift, (uInt)size);
            for (int k = 0; k < count; k++) CHECK_EQ_U64(list[k].function(start, bytes + shift, size), expected);
        }
    }
    free(bytes);
#else
    TEST_SKIP("zlib.h is missing");
#endif
}

static void large_ones_same_as_zlib(void) {
#ifdef HAVE_ZLIB
    const size_t most = 2u << 20, rounds = support_amount(5, 100, 1000);
    uint8_t *bytes = model_bytes(most, 2);
    uint64_t random = 3;
    model_checksum list[4];
    const int count = model_checksums(list);
    for (size_t round = 0; round < rounds; round++) {
        const size_t at = (size_t)support_random_below(&random, 4096);
        const size_t size = (size_t)support_random_below(&random, most - at);
        const uint64_t expected = crc32(0, bytes + at, (uInt)size);
        for (int k = 0; k < count; k++) CHECK_EQ_U64(list[k].function(0, bytes + at, size), expected);
    }
    free(bytes);
#else
    TEST_SKIP("zlib.h is missing");
#endif
}

TEST_MAIN("kernel/crc32_zlib", TEST(same_as_zlib), TEST(large_ones_same_as_zlib))
