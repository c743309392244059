/* CRC-32 against zlib, which is what our files promise: any zlib can check them. */
/* link: -lz */
#include "kernel/crc32.h"

#include "test.h"

#include "support.h"

#if defined(__has_include)
#if __has_include(<zlib.h>)
#define HAVE_ZLIB 1
#include <zlib.h>
#endif
#endif

static void same_as_zlib(void) {
#ifdef HAVE_ZLIB
    const size_t most = support_amount(300, 4096, 4096);
    uint8_t *bytes = (uint8_t *)malloc(4096 + 64);
    uint64_t random = 1;
    for (size_t i = 0; i < 4096 + 64; i++) bytes[i] = (uint8_t)support_random(&random);
    for (size_t shift = 0; shift < 64; shift++) {
        for (size_t size = 0; size <= most; size++) {
            const uint32_t start = (uint32_t)(size % 3 == 0 ? 0 : support_random(&random));
            CHECK_EQ_U64(iq_crc32(start, bytes + shift, size), crc32(start, bytes + shift, (uInt)size));
        }
    }
    free(bytes);
#else
    TEST_SKIP("zlib.h is missing");
#endif
}

TEST_MAIN("kernel/crc32_zlib", TEST(same_as_zlib))
