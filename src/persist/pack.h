/* Sections packed by a codec of the caller's: what the snapshot writer puts in their place, and how the reader has them
 * back. The byte table is in persist/format.h. */
#ifndef IQ_PERSIST_PACK_H
#define IQ_PERSIST_PACK_H

#include "persist/format.h"
#include "persist/volume.h"

/* NULL, or what is wrong with options.codecs. */
IQ_FN const char *iq_codecs_complaint(const iqdb_codec *codecs, size_t count);

/* A section in the making: `plain` is filled, and at IQ_PACK_BLOCK bytes, and at the end, it is given to a block. */
typedef struct iq_packer {
    const iqdb_codec *codec;
    iq_blob sizes; /* the table of the section */
    size_t used;
    uint8_t plain[IQ_PACK_BLOCK], packed[IQ_PACK_BLOCK];
} iq_packer;

/* NULL without memory. `head` becomes that of a section which holds `plain_size` bytes. */
IQ_FN iq_packer *iq_packer_new(const iqdb_allocator *allocator, const iqdb_codec *codec, uint64_t plain_size,
                               uint8_t head[IQ_PACK_HEAD_SIZE]);
IQ_FN void iq_packer_free(iq_packer *packer); /* NULL is fine */
/* Packs what is in `plain`, which is empty then; *out_bytes are those of the block. NOMEM. */
IQ_FN iqdb_result iq_packer_block(iq_packer *packer, const uint8_t **out_bytes, size_t *out_size);

/* Any bytes of the section, checked against the checksums of the file. */
typedef iqdb_result (*iq_pack_fetch_fn)(void *user, uint64_t offset, uint8_t *bytes, size_t size);

typedef struct iq_unpacker {
    uint64_t plain_size;
    const iqdb_codec *codec;
    iqdb_allocator allocator;
    iq_pack_fetch_fn fetch_fn;
    void *user;
    uint64_t cached;    /* the number of the block in `plain`, or IQ_NUMBER_MAX */
    uint64_t *places;   /* one a block, and the end: where it begins in the section */
    uint32_t *sizes;    /* one a block: packed */
    size_t table_bytes; /* of both */
    uint8_t plain[IQ_PACK_BLOCK], packed[IQ_PACK_BLOCK];
} iq_unpacker;

/* Reads head and table of a section of `size` bytes. INVALID_CONFIG where the volume has no codec of
 * its name, CORRUPT, NOMEM, or what fetch_fn returned, which has been reported: *out_why is empty then, else says why. */
IQ_FN iqdb_result iq_unpacker_open(const iq_volume *volume, iq_pack_fetch_fn fetch_fn, void *user, uint64_t size,
                                   char out_why[160], iq_unpacker **out_unpacker);
IQ_FN void iq_unpacker_close(iq_unpacker *unpacker); /* NULL is fine */
/* Bytes of what was packed, within plain_size. CORRUPT, with *out_bad the place of the block in the section, where one does
 * not unpack to what it should; IQ_NUMBER_MAX: fetch_fn has reported. */
IQ_FN iqdb_result iq_unpacker_read(iq_unpacker *unpacker, uint64_t offset, uint8_t *bytes, size_t size,
                                   uint64_t *out_bad);

#endif
