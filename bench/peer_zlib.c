/* zlib's CRC-32, the one of the system. */
#include "bench.h"

#include <zlib.h>

double peer_zlib_crc32(const void *bytes, size_t size, size_t count, uint32_t *out_crc) {
    const double start = bench_now();
    for (size_t i = 0; i < count; i++) {
        *out_crc = (uint32_t)crc32(0, (const Bytef *)bytes, (uInt)size);
        bench_touch(out_crc);
    }
    return bench_now() - start;
}
const char *peer_zlib_version(void) {
    return zlibVersion();
}
