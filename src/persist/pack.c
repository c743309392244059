/* Packed sections: blocks of 64 KiB, each packed on its own, so that any of them can be read, and damage to one costs no
 * other.
 *
 * 1. Nothing that a section says of itself is believed before it has been held against its size: what is allocated is at
 *    most IQ_PACK_RATIO times as large as the bytes that the file really has. For this a block that packs better fills the
 *    rest with zeros.
 * 2. A codec gets exactly the bytes that one gave, and the size that has to come out; but bytes may have been made by
 *    somebody else, and codecs are told so. */
#include "persist/pack.h"
#include "base/bytes.h"

IQ_FN const char *iq_codecs_complaint(const iqdb_codec *codecs, size_t count) {
    if (count > IQDB_CODECS_MAX) return "options.codecs are more than IQDB_CODECS_MAX";
    if (codecs == NULL && count > 0) return "options.codecs is NULL";
    for (size_t i = 0; i < count; i++) {
        if (codecs[i].name == NULL || codecs[i].name[0] == 0 || memchr(codecs[i].name, 0, IQ_PACK_NAME_SIZE) == NULL)
            return "the name of a codec is NULL, empty, or too long";
        if (codecs[i].decompress_fn == NULL) return "a codec has no decompress_fn";
        for (size_t j = 0; j < i; j++)
            if (strcmp(codecs[i].name, codecs[j].name) == 0) return "two codecs have the same name";
    }
    return NULL;
}

/* What a block of `plain_size` bytes fills that was packed into so many. */
static size_t iq_pack_room(size_t packed_size, size_t plain_size) {
    const size_t least = (plain_size + IQ_PACK_RATIO - 1) / IQ_PACK_RATIO;
    return packed_size > least ? packed_size : least;
}

/* ---- Packing ---- */

IQ_FN iq_packer *iq_packer_new(const iqdb_allocator *allocator, const iqdb_codec *codec, uint64_t plain_size,
                               uint8_t head[IQ_PACK_HEAD_SIZE]) {
    iq_packer *packer = (iq_packer *)iq_alloc(allocator, sizeof *packer, 16);
    if (packer == NULL) return NULL;
    memset(packer, 0, offsetof(iq_packer, plain));
    packer->codec = codec;
    packer->sizes.allocator = allocator;
    memset(head, 0, IQ_PACK_HEAD_SIZE);
    memcpy(head + IQ_PACK_NAME_AT, codec->name, strlen(codec->name));
    iq_put_u64(head + IQ_PACK_BYTES_AT, plain_size);
    iq_put_u32(head + IQ_PACK_BLOCK_AT, IQ_PACK_BLOCK);
    return packer;
}

IQ_FN void iq_packer_free(iq_packer *packer) {
    if (packer == NULL) return;
    const iqdb_allocator *allocator = packer->sizes.allocator;
    iq_blob_free(&packer->sizes);
    iq_free(allocator, packer, sizeof *packer, 16);
}

IQ_FN iqdb_result iq_packer_block(iq_packer *packer, const uint8_t **out_bytes, size_t *out_size) {
    const iqdb_codec *codec = packer->codec;
    const size_t plain_size = packer->used;
    uint8_t number[4];
    size_t size = 0;
    if (plain_size > 1)
        size = codec->compress_fn(packer->plain, plain_size, packer->packed, plain_size - 1, codec->user);
    const bool is_packed = size > 0 && size < plain_size;
    if (!is_packed) size = plain_size;
    *out_bytes = is_packed ? packer->packed : packer->plain;
    *out_size = iq_pack_room(size, plain_size);
    memset(packer->packed + (is_packed ? size : 0), 0, is_packed ? *out_size - size : 0);
    packer->used = 0;
    iq_put_u32(number, (uint32_t)size);
    return iq_blob_append(&packer->sizes, number, sizeof number);
}

/* ---- Unpacking ---- */

static size_t iq_unpacker_block_size(const iq_unpacker *unpacker, uint64_t block) {
    const uint64_t rest = unpacker->plain_size - block * IQ_PACK_BLOCK;
    return rest < IQ_PACK_BLOCK ? (size_t)rest : (size_t)IQ_PACK_BLOCK;
}

static void iq_pack_say(char out_why[160], const char *before, const char *name, const char *behind) {
    const size_t first = strlen(before), middle = strlen(name);
    memcpy(out_why, before, first);
    memcpy(out_why + first, name, middle);
    memcpy(out_why + first + middle, behind, strlen(behind) + 1);
}

/* The table, and whether it accounts for every byte of the section. */
static iqdb_result iq_unpacker_read_table(iq_unpacker *unpacker, uint64_t size, uint64_t count) {
    uint64_t place = IQ_PACK_HEAD_SIZE;
    bool is_sound = true;
    unpacker->table_bytes = ((size_t)count + 1) * (sizeof(uint64_t) + sizeof(uint32_t));
    unpacker->places = (uint64_t *)iq_alloc(&unpacker->allocator, unpacker->table_bytes, 16);
    if (unpacker->places == NULL) return IQDB_ERR_NOMEM;
    unpacker->sizes = (uint32_t *)(void *)(unpacker->places + count + 1);
    uint8_t *raw = (uint8_t *)(void *)unpacker->sizes; /* each number is read where it will stand */
    const iqdb_result result = unpacker->fetch_fn(unpacker->user, size - count * 4, raw, (size_t)count * 4);
    if (result != IQDB_OK) return result;
    for (uint64_t i = 0; i < count; i++) {
        const uint32_t packed = iq_get_u32(raw + i * 4);
        const size_t plain = iq_unpacker_block_size(unpacker, i);
        is_sound = is_sound && packed > 0 && packed <= plain;
        unpacker->sizes[i] = packed;
        unpacker->places[i] = place;
        place += iq_pack_room(packed, plain);
    }
    unpacker->places[count] = place;
    return is_sound && place == size - count * 4 ? IQDB_OK : IQDB_ERR_CORRUPT;
}

static iqdb_result iq_unpacker_start(iq_unpacker *unpacker, const iq_volume *volume, uint64_t size, char out_why[160]) {
    uint8_t head[IQ_PACK_HEAD_SIZE];
    if (size < IQ_PACK_HEAD_SIZE) {
        iq_pack_say(out_why, "a packed section is too short", "", "");
        return IQDB_ERR_CORRUPT;
    }
    iqdb_result result = unpacker->fetch_fn(unpacker->user, 0, head, sizeof head);
    if (result != IQDB_OK) return result;
    const char *name = (const char *)head + IQ_PACK_NAME_AT;
    const uint64_t plain_size = unpacker->plain_size = iq_get_u64(head + IQ_PACK_BYTES_AT);
    const uint64_t count = plain_size / IQ_PACK_BLOCK + (plain_size % IQ_PACK_BLOCK != 0);
    if (memchr(name, 0, IQ_PACK_NAME_SIZE) == NULL || iq_get_u32(head + IQ_PACK_BLOCK_AT) != IQ_PACK_BLOCK ||
        plain_size / IQ_PACK_RATIO > size || count * 4 > size - IQ_PACK_HEAD_SIZE) {
        iq_pack_say(out_why, "the head of a packed section makes no sense", "", "");
        return IQDB_ERR_CORRUPT;
    }
    for (size_t i = 0; i < volume->codec_count; i++)
        if (strcmp(name, volume->codecs[i].name) == 0) unpacker->codec = &volume->codecs[i];
    if (unpacker->codec == NULL) {
        iq_pack_say(out_why, "payloads are packed by the codec '", name, "', which options.codecs does not have");
        return IQDB_ERR_INVALID_CONFIG;
    }
    result = iq_unpacker_read_table(unpacker, size, count);
    if (result == IQDB_ERR_CORRUPT) iq_pack_say(out_why, "the table of a packed section makes no sense", "", "");
    return result;
}

IQ_FN iqdb_result iq_unpacker_open(const iq_volume *volume, iq_pack_fetch_fn fetch_fn, void *user, uint64_t size,
                                   char out_why[160], iq_unpacker **out_unpacker) {
    iq_unpacker *unpacker = (iq_unpacker *)iq_alloc(&volume->allocator, sizeof *unpacker, 16);
    out_why[0] = 0;
    *out_unpacker = NULL;
    if (unpacker == NULL) return IQDB_ERR_NOMEM;
    memset(unpacker, 0, offsetof(iq_unpacker, plain));
    unpacker->allocator = volume->allocator;
    unpacker->fetch_fn = fetch_fn;
    unpacker->user = user;
    unpacker->cached = IQ_NUMBER_MAX;
    const iqdb_result result = iq_unpacker_start(unpacker, volume, size, out_why);
    if (result == IQDB_OK) *out_unpacker = unpacker;
    if (result != IQDB_OK) iq_unpacker_close(unpacker);
    return result;
}

IQ_FN void iq_unpacker_close(iq_unpacker *unpacker) {
    if (unpacker == NULL) return;
    const iqdb_allocator allocator = unpacker->allocator;
    iq_free(&allocator, unpacker->places, unpacker->table_bytes, 16);
    iq_free(&allocator, unpacker, sizeof *unpacker, 16);
}

static iqdb_result iq_unpacker_block(iq_unpacker *unpacker, uint64_t block, uint8_t *out, uint64_t *out_bad) {
    const size_t size = unpacker->sizes[block], plain = iq_unpacker_block_size(unpacker, block);
    const uint64_t place = unpacker->places[block];
    const iqdb_codec *codec = unpacker->codec;
    uint8_t *packed = size == plain ? out : unpacker->packed;
    const iqdb_result result = unpacker->fetch_fn(unpacker->user, place, packed, size);
    if (result != IQDB_OK || size == plain) return result;
    if (codec->decompress_fn(packed, size, out, plain, codec->user)) return IQDB_OK;
    *out_bad = place;
    return IQDB_ERR_CORRUPT;
}

IQ_FN iqdb_result iq_unpacker_read(iq_unpacker *unpacker, uint64_t offset, uint8_t *bytes, size_t size,
                                   uint64_t *out_bad) {
    iqdb_result result = IQDB_OK;
    *out_bad = IQ_NUMBER_MAX;
    while (size > 0 && result == IQDB_OK) {
        const uint64_t block = offset / IQ_PACK_BLOCK;
        const size_t within = (size_t)(offset % IQ_PACK_BLOCK), held = iq_unpacker_block_size(unpacker, block);
        const size_t part = size < held - within ? size : held - within;
        if (part == held) {
            result = iq_unpacker_block(unpacker, block, bytes, out_bad);
        } else {
            if (unpacker->cached != block) {
                unpacker->cached = IQ_NUMBER_MAX;
                result = iq_unpacker_block(unpacker, block, unpacker->plain, out_bad);
                if (result == IQDB_OK) unpacker->cached = block;
            }
            if (result == IQDB_OK) memcpy(bytes, unpacker->plain + within, part);
        }
        offset += part;
        bytes += part;
        size -= part;
    }
    return result;
}
