/* link: -llz4 */
/* codec_lz4.c: payloads in snapshots and blobs, packed by LZ4.
 *
 *   cc -I. examples/codec_lz4.c -o codec_lz4 -llz4 -pthread -lm
 *   ./codec_lz4             in memory
 *   ./codec_lz4 notes-db    and in a directory that stays
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include "codec.h"

#include <lz4.h>

static size_t pack(const void *data, size_t size, void *out, size_t capacity, void *user) {
    (void)user; /* sizes are those of a block, 64 KiB at most; what does not fit gives 0 */
    return (size_t)LZ4_compress_default((const char *)data, (char *)out, (int)size, (int)capacity);
}

static bool unpack(const void *packed, size_t packed_size, void *out, size_t size, void *user) {
    (void)user;
    return LZ4_decompress_safe((const char *)packed, (char *)out, (int)packed_size, (int)size) == (int)size;
}

int main(int argc, char **argv) {
    const iqdb_codec codec = {"lz4", pack, unpack, NULL};
    return codec_demo(&codec, argc > 1 ? argv[1] : NULL);
}
