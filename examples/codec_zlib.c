/* link: -lz */
/* codec_zlib.c: payloads in snapshots and blobs, packed by zlib.
 *
 *   cc -I. examples/codec_zlib.c -o codec_zlib -lz -pthread -lm
 *   ./codec_zlib             in memory
 *   ./codec_zlib notes-db    and in a directory that stays
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include "codec.h"

#include <zlib.h>

static size_t pack(const void *data, size_t size, void *out, size_t capacity, void *user) {
    uLongf packed_size = (uLongf)capacity;
    (void)user;
    return compress2((Bytef *)out, &packed_size, (const Bytef *)data, (uLong)size, 6) == Z_OK ? packed_size : 0;
}

static bool unpack(const void *packed, size_t packed_size, void *out, size_t size, void *user) {
    uLongf unpacked_size = (uLongf)size;
    (void)user;
    return uncompress((Bytef *)out, &unpacked_size, (const Bytef *)packed, (uLong)packed_size) == Z_OK &&
           unpacked_size == size;
}

int main(int argc, char **argv) {
    const iqdb_codec codec = {"zlib", pack, unpack, NULL};
    return codec_demo(&codec, argc > 1 ? argv[1] : NULL);
}
