/* link: -lzstd */
/* codec_zstd.c: payloads in snapshots and blobs, packed by Zstandard.
 *
 *   cc -I. examples/codec_zstd.c -o codec_zstd -lzstd -pthread -lm
 *   ./codec_zstd             in memory
 *   ./codec_zstd notes-db    and in a directory that stays
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include "codec.h"

#include <zstd.h>

/* Contexts are made once: to make one takes longer than to pack a block. Calls come one at a time for a handle; what has
 * several handles gives each a codec of its own. */
typedef struct contexts {
    ZSTD_CCtx *packing;
    ZSTD_DCtx *unpacking;
} contexts;

static size_t pack(const void *data, size_t size, void *out, size_t capacity, void *user) {
    const size_t packed_size = ZSTD_compressCCtx(((contexts *)user)->packing, out, capacity, data, size, 3);
    return ZSTD_isError(packed_size) ? 0 : packed_size;
}

static bool unpack(const void *packed, size_t packed_size, void *out, size_t size, void *user) {
    return ZSTD_decompressDCtx(((contexts *)user)->unpacking, out, size, packed, packed_size) == size;
}

int main(int argc, char **argv) {
    contexts both = {ZSTD_createCCtx(), ZSTD_createDCtx()};
    const iqdb_codec codec = {"zstd", pack, unpack, &both};
    if (both.packing == NULL || both.unpacking == NULL) return 1;
    const int status = codec_demo(&codec, argc > 1 ? argv[1] : NULL);
    ZSTD_freeCCtx(both.packing);
    ZSTD_freeDCtx(both.unpacking);
    return status;
}
