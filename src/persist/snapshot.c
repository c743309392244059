/* Snapshots: written once from front to back, never changed afterwards.
 *
 * 1. Every byte before the table lies in a block whose CRC stands in the table, every byte of the table under a CRC of
 *    the roots, those under one of the footer, and that under one of META: a block that was lost, or written elsewhere,
 *    cannot pass for the right one, because no block carries its own checksum.
 * 2. The writer holds one buffer, and the CRCs; it never goes back.
 * 3. The reader hands out no byte that it has not checked in this very read: what the disk says twice may differ. Of a
 *    map each block is checked before the first look at it, and the system is believed from then on.
 * 4. Nothing is allocated for a number that was read before the file is known to be as large as it says. */
#include "persist/snapshot.h"
#include "base/bytes.h"
#include "kernel/crc32.h"
#include "persist/pack.h"
#include "persist/sections.h"
#include "sys/atomic.h"

#define IQ_SNAPSHOT_BUFFER (8u * IQ_SNAPSHOT_BLOCK)
#define IQ_SNAPSHOT_CRCS_PER_BLOCK (IQ_SNAPSHOT_BLOCK / 4u)

/* Sections that a reader of a damaged list may assume. */
#define IQ_SNAPSHOT_ASSUMED_MAX 8u

static uint64_t iq_snapshot_round_up(uint64_t offset, uint64_t alignment) {
    return (offset + alignment - 1) & ~(alignment - 1);
}

/* Where a section of this size goes that must not begin before `end`. */
static uint64_t iq_snapshot_place(uint64_t end, uint64_t size) {
    return iq_snapshot_round_up(end, size >= IQ_SNAPSHOT_LARGE ? IQ_SNAPSHOT_LARGE : IQ_SNAPSHOT_ALIGN);
}

/* Where everything behind the blocks lies; it follows from their number. */
typedef struct iq_snapshot_shape {
    iq_place blocks, table_blocks;
    iq_place table_at, roots_at, footer_at, size;
} iq_snapshot_shape;

static iq_snapshot_shape iq_snapshot_shape_of(iq_place blocks) {
    iq_snapshot_shape shape;
    shape.blocks = blocks;
    shape.table_blocks = (blocks + IQ_SNAPSHOT_CRCS_PER_BLOCK - 1) / IQ_SNAPSHOT_CRCS_PER_BLOCK;
    shape.table_at = blocks * IQ_SNAPSHOT_BLOCK;
    shape.roots_at = shape.table_at + shape.table_blocks * IQ_SNAPSHOT_BLOCK;
    shape.footer_at =
        shape.roots_at + (shape.table_blocks * 4 + IQ_SNAPSHOT_ALIGN - 1) / IQ_SNAPSHOT_ALIGN * IQ_SNAPSHOT_ALIGN;
    shape.size = shape.footer_at + IQ_FOOTER_SIZE;
    return shape;
}

/* ---- Writing ---- */

struct iq_snapshot_writer {
    iq_sink sink;
    const iqdb_allocator *allocator;
    uint8_t uuid[IQ_UUID_SIZE];
    iq_crc32_fn crc32;
    iqdb_result result;
    uint64_t offset;         /* of the next byte */
    uint64_t saved;          /* bytes of sections that packing has spared, or that are not packed yet */
    uint64_t remaining;      /* of the section */
    const iqdb_codec *codec; /* NULL: nothing is packed */
    iq_packer *packer;       /* of the section; NULL: it is not */
    bool is_summing;         /* in front of the table */
    size_t used;             /* of the buffer */
    iq_blob sections;        /* entries of the list */
    iq_blob crcs;
    uint8_t buffer[IQ_SNAPSHOT_BUFFER];
};

static void iq_snapshot_flush(iq_snapshot_writer *writer) {
    for (size_t at = 0; at < writer->used && writer->is_summing && writer->result == IQDB_OK; at += IQ_SNAPSHOT_BLOCK) {
        uint8_t crc[4];
        IQ_ASSERT(writer->used % IQ_SNAPSHOT_BLOCK == 0);
        iq_put_u32(crc, writer->crc32(0, writer->buffer + at, IQ_SNAPSHOT_BLOCK));
        writer->result = iq_blob_append(&writer->crcs, crc, sizeof crc);
    }
    if (writer->result == IQDB_OK && writer->used > 0)
        writer->result = writer->sink.write_fn(writer->buffer, writer->used, writer->sink.user);
    writer->used = 0;
}

/* bytes NULL: zeros. */
static void iq_snapshot_put(iq_snapshot_writer *writer, const uint8_t *bytes, uint64_t size) {
    writer->offset += size;
    while (size > 0 && writer->result == IQDB_OK) {
        const size_t room = IQ_SNAPSHOT_BUFFER - writer->used;
        const size_t part = size < room ? (size_t)size : room;
        if (bytes == NULL) {
            memset(writer->buffer + writer->used, 0, part);
        } else {
            memcpy(writer->buffer + writer->used, bytes, part);
            bytes += part;
        }
        writer->used += part;
        size -= part;
        if (writer->used == IQ_SNAPSHOT_BUFFER) iq_snapshot_flush(writer);
    }
}

static void iq_snapshot_pad(iq_snapshot_writer *writer, uint64_t offset) {
    iq_snapshot_put(writer, NULL, offset - writer->offset);
}

IQ_FN iqdb_result iq_snapshot_section(iq_snapshot_writer *writer, uint32_t collection, uint32_t kind, uint64_t size) {
    uint8_t entry[IQ_SECTION_ENTRY_SIZE] = {0};
    if (writer->result != IQDB_OK) return writer->result;
    iq_put_u32(entry + IQ_SECTION_COLLECTION_AT, collection);
    iq_put_u32(entry + IQ_SECTION_KIND_AT, kind);
    /* All of these are mistakes of the caller. */
    if (writer->remaining > 0) writer->result = IQDB_ERR_INVALID_ARGUMENT;
    for (size_t at = writer->sections.size; at > 0; at -= IQ_SECTION_ENTRY_SIZE) {
        const uint8_t *other = writer->sections.bytes + at - IQ_SECTION_ENTRY_SIZE;
        const uint32_t number = iq_get_u32(other + IQ_SECTION_COLLECTION_AT);
        if (number > collection || memcmp(other, entry, IQ_SECTION_KIND_AT + 4) == 0)
            writer->result = IQDB_ERR_INVALID_ARGUMENT;
        if (number != collection) break;
    }
    if (size > IQ_NUMBER_MAX - writer->offset) writer->result = IQDB_ERR_LIMIT;
    /* The list of so many sections would take 128 GiB; each is of a collection, which takes far more. */
    if (IQ_NEVER(writer->sections.size / IQ_SECTION_ENTRY_SIZE >= UINT32_MAX)) writer->result = IQDB_ERR_LIMIT;
    if (writer->result != IQDB_OK) return writer->result;
    iq_snapshot_pad(writer, iq_snapshot_place(writer->offset, size));
    iq_put_u64(entry + IQ_SECTION_OFFSET_AT, writer->offset);
    iq_put_u64(entry + IQ_SECTION_BYTES_AT, size);
    if (writer->result == IQDB_OK) writer->result = iq_blob_append(&writer->sections, entry, sizeof entry);
    writer->remaining = size;
    return writer->result;
}

/* Of the list: the section that was begun last. */
static uint8_t *iq_snapshot_last_entry(iq_snapshot_writer *writer) {
    return writer->sections.bytes + writer->sections.size - IQ_SECTION_ENTRY_SIZE;
}

IQ_FN iqdb_result iq_snapshot_pack(iq_snapshot_writer *writer) {
    uint8_t head[IQ_PACK_HEAD_SIZE];
    if (IQ_SMALL || writer->result != IQDB_OK || writer->codec == NULL || writer->codec->compress_fn == NULL)
        return writer->result;
    writer->packer = iq_packer_new(writer->allocator, writer->codec, writer->remaining, head);
    if (writer->packer == NULL) return writer->result = IQDB_ERR_NOMEM;
    iq_put_u32(iq_snapshot_last_entry(writer) + IQ_SECTION_REQUIRED_AT, IQ_SECTION_PACKED);
    iq_snapshot_put(writer, head, sizeof head);
    return writer->result;
}

/* A block of the packed section; behind the last one its table, and what the list says of its size. */
static void iq_snapshot_put_packed(iq_snapshot_writer *writer, const uint8_t *bytes, size_t size) {
    iq_packer *packer = writer->packer;
    while (size > 0 && writer->result == IQDB_OK) {
        const uint8_t *block;
        const size_t room = IQ_PACK_BLOCK - packer->used;
        size_t block_size, part = size < room ? size : room;
        if (bytes == NULL) memset(packer->plain + packer->used, 0, part);
        if (bytes != NULL) memcpy(packer->plain + packer->used, bytes, part);
        if (bytes != NULL) bytes += part;
        packer->used += part;
        writer->saved += part;
        size -= part;
        if (packer->used < IQ_PACK_BLOCK && writer->remaining > 0) continue;
        writer->result = iq_packer_block(packer, &block, &block_size);
        if (writer->result != IQDB_OK) return;
        writer->saved -= block_size; /* at most what it holds */
        iq_snapshot_put(writer, block, block_size);
    }
    if (writer->remaining > 0) return;
    uint8_t *entry = iq_snapshot_last_entry(writer); /* of which nothing is kept where the last block has failed */
    iq_snapshot_put(writer, packer->sizes.bytes, packer->sizes.size);
    iq_put_u64(entry + IQ_SECTION_BYTES_AT, writer->offset - iq_get_u64(entry + IQ_SECTION_OFFSET_AT));
    iq_packer_free(packer);
    writer->packer = NULL;
}

IQ_FN iqdb_result iq_snapshot_derive(iq_snapshot_writer *writer, uint32_t collection, uint32_t kind, uint64_t size) {
    const iqdb_result result = iq_snapshot_section(writer, collection, kind, size);
    if (result != IQDB_OK) return result;
    iq_put_u32(iq_snapshot_last_entry(writer) + IQ_SECTION_IGNORABLE_AT, IQ_SECTION_DERIVED);
    return result;
}

IQ_FN iqdb_result iq_snapshot_write(iq_snapshot_writer *writer, const void *bytes, size_t size) {
    if (writer->result == IQDB_OK && size > writer->remaining) writer->result = IQDB_ERR_INVALID_ARGUMENT;
    if (writer->result != IQDB_OK) return writer->result;
    writer->remaining -= size;
    if (!IQ_SMALL && writer->packer != NULL) {
        iq_snapshot_put_packed(writer, (const uint8_t *)bytes, size);
    } else {
        iq_snapshot_put(writer, (const uint8_t *)bytes, size);
    }
    return writer->result;
}

IQ_FN uint64_t iq_snapshot_offset(const iq_snapshot_writer *writer) { return writer->offset + writer->saved; }

/* List, table, roots and footer. */
static void iq_snapshot_finish(iq_snapshot_writer *writer, iq_snapshot_entry *entry) {
    uint8_t footer[IQ_FOOTER_SIZE] = {0};
    iq_blob *crcs = &writer->crcs;
    iq_snapshot_pad(writer, iq_snapshot_place(writer->offset, 0));
    iq_put_u64(footer + IQ_FOOTER_LIST_AT, writer->offset);
    iq_snapshot_put(writer, writer->sections.bytes, writer->sections.size);
    iq_snapshot_pad(writer, iq_snapshot_round_up(writer->offset, IQ_SNAPSHOT_BLOCK));
    iq_snapshot_flush(writer);
    writer->is_summing = false;
    const iq_snapshot_shape shape = iq_snapshot_shape_of((iq_place)(writer->offset / IQ_SNAPSHOT_BLOCK));
    const size_t table_size = (size_t)(shape.roots_at - shape.table_at);
    const size_t size = (size_t)(shape.footer_at - shape.table_at);
    if (writer->result == IQDB_OK) writer->result = iq_blob_reserve(crcs, size - crcs->size);
    if (writer->result != IQDB_OK) return;
    memset(crcs->bytes + crcs->size, 0, size - crcs->size);
    crcs->size = size;
    for (size_t i = 0; i < shape.table_blocks; i++)
        iq_put_u32(crcs->bytes + table_size + i * 4,
                   writer->crc32(0, crcs->bytes + i * IQ_SNAPSHOT_BLOCK, IQ_SNAPSHOT_BLOCK));
    iq_snapshot_put(writer, crcs->bytes, size);
    iq_put_u64(footer + IQ_FOOTER_BLOCKS_AT, shape.blocks);
    iq_put_u32(footer + IQ_FOOTER_SECTIONS_AT, (uint32_t)(writer->sections.size / IQ_SECTION_ENTRY_SIZE));
    iq_put_u32(footer + IQ_FOOTER_ROOTS_CRC_AT, writer->crc32(0, crcs->bytes + table_size, size - table_size));
    iq_put_u64(footer + IQ_FOOTER_NUMBER_AT, entry->number);
    entry->root = iq_page_seal(footer, sizeof footer, IQ_FOOTER_MAGIC, writer->uuid);
    entry->size_bytes = shape.size;
    iq_snapshot_put(writer, footer, sizeof footer);
    iq_snapshot_flush(writer);
    IQ_ASSERT(writer->offset == shape.size);
}

IQ_FN iqdb_result iq_snapshot_begin(const iq_sink *sink, const iq_volume *volume, const uint8_t *uuid,
                                    const iq_snapshot_entry *entry, iq_snapshot_writer **out_writer) {
    const iqdb_allocator *allocator = &volume->allocator;
    uint8_t header[IQ_SNAPSHOT_HEADER_SIZE] = {0};
    iq_snapshot_writer *writer = (iq_snapshot_writer *)iq_alloc(allocator, sizeof *writer, 16);
    *out_writer = writer;
    if (writer == NULL) return IQDB_ERR_NOMEM;
    memset(writer, 0, offsetof(iq_snapshot_writer, buffer));
    writer->sink = *sink;
    writer->allocator = writer->sections.allocator = writer->crcs.allocator = allocator;
    memcpy(writer->uuid, uuid, IQ_UUID_SIZE);
    writer->crc32 = volume->crc32;
    if (volume->codec_count > 0) writer->codec = &volume->codecs[0];
    writer->is_summing = true;
    iq_put_u64(header + IQ_SNAPSHOT_LSN_AT, entry->lsn);
    iq_put_u64(header + IQ_SNAPSHOT_SINCE_AT, entry->since);
    iq_put_u64(header + IQ_SNAPSHOT_NUMBER_AT, entry->number);
    (void)iq_page_seal(header, sizeof header, IQ_SNAPSHOT_MAGIC, uuid);
    iq_snapshot_put(writer, header, sizeof header);
    return IQDB_OK;
}

IQ_FN iqdb_result iq_snapshot_end(iq_snapshot_writer *writer, iqdb_result result, iq_snapshot_entry *entry) {
    if (writer == NULL) return result;
    if (writer->result == IQDB_OK) writer->result = result;
    if (writer->result == IQDB_OK && writer->remaining > 0) writer->result = IQDB_ERR_INVALID_ARGUMENT;
    if (writer->result == IQDB_OK) iq_snapshot_finish(writer, entry);
    result = writer->result;
    if (!IQ_SMALL) iq_packer_free(writer->packer);
    iq_blob_free(&writer->sections);
    iq_blob_free(&writer->crcs);
    iq_free(writer->allocator, writer, sizeof *writer, 16);
    return result;
}

/* ---- Reading ---- */

struct iq_snapshot_reader {
    iq_volume volume;
    iq_file file;         /* not open where there are `bytes` */
    const uint8_t *bytes; /* the whole of it, or NULL */
    bool is_mapped;       /* by us; tables are in the map, and not all is checked */
    uint64_t size;
    iq_place list_at;
    uint8_t uuid[IQ_UUID_SIZE];
    iq_snapshot_shape shape;
    uint32_t roots_crc, section_count, section_capacity;
    bool is_damaged; /* found so by salvage */
    uint64_t cached; /* number of the block in `block`, or IQ_NUMBER_MAX */
    uint8_t *memory; /* in which all of these are */
    size_t memory_size;
    uint8_t *block, *fresh;       /* IQ_SNAPSHOT_BLOCK bytes each */
    const uint8_t *table, *roots; /* the CRCs, and the roots right behind them */
    uint8_t *own_table;           /* the same, where they are not in a map */
    const uint8_t *list;
    uint8_t *own_list;         /* the same, but where there are only blobs */
    uint32_t *seen;            /* atomic, a bit a block, and then a bit a block of the table: checked once */
    iq_unpacker *unpacker;     /* NULL, or of the packed section that was read last, */
    uint64_t unpacking;        /* where that lies, or 0 */
    iqdb_result unpack_result; /* and what came of it */
};

IQ_FN void iq_snapshot_close(iq_snapshot_reader *reader) {
    if (reader == NULL) return;
    const iqdb_allocator allocator = reader->volume.allocator;
    if (!IQ_SMALL) iq_unpacker_close(reader->unpacker);
    if (!IQ_SMALL && reader->is_mapped)
        reader->volume.files.unmap_fn(reader->bytes, reader->size, reader->volume.files.user);
    iq_file_close(&reader->file);
    if (!IQ_ONLY_BLOBS) iq_free(&allocator, reader->memory, reader->memory_size, 16);
    iq_free(&allocator, reader, sizeof *reader, 16);
}

/* Closes a reader that could not be opened. */
static iqdb_result iq_snapshot_opened(iq_snapshot_reader **reader, iqdb_result result) {
    if (result == IQDB_OK) return result;
    iq_snapshot_close(*reader);
    *reader = NULL;
    return result;
}

static iqdb_result iq_snapshot_corrupt(const iq_snapshot_reader *reader, uint64_t offset, const char *text) {
    return iq_file_report(&reader->file, IQDB_ERR_CORRUPT, offset, 0, text);
}

/* All of [offset, offset + size) of the file, unchecked; size > 0. */
static iqdb_result iq_snapshot_fetch(const iq_snapshot_reader *reader, iq_place offset, uint8_t *bytes, size_t size) {
    size_t got = size;
    iqdb_result result = IQDB_OK;
    if (IQ_HAS_FILES && reader->bytes == NULL) {
        result = iq_file_read(&reader->file, offset, bytes, size, &got);
    } else {
        memcpy(bytes, reader->bytes + (size_t)offset, size);
    }
    if (result == IQDB_OK && got < size) return iq_snapshot_corrupt(reader, offset + got, "the file ends too early");
    return result;
}

static bool iq_snapshot_has_seen(const iq_snapshot_reader *reader, iq_place block) {
    return !IQ_SMALL && (IQ_ATOMIC_LOAD(&reader->seen[block / 32]) >> (block % 32) & 1u) != 0;
}

static void iq_snapshot_see(const iq_snapshot_reader *reader, iq_place block) {
    if (IQ_SMALL) return; /* which checks again what was checked when it was read */
    IQ_ATOMIC_OR(&reader->seen[block / 32], UINT32_C(1) << (block % 32));
}

/* Whether a block of the table is what the roots say; whether that of the blocks says so of this one. */
static bool iq_snapshot_table_is_sound(const iq_snapshot_reader *reader, iq_place table_block) {
    const uint8_t *bytes = reader->table + (size_t)table_block * IQ_SNAPSHOT_BLOCK;
    if (iq_snapshot_has_seen(reader, reader->shape.blocks + table_block)) return true;
    if (reader->volume.crc32(0, bytes, IQ_SNAPSHOT_BLOCK) != iq_get_u32(reader->roots + (size_t)table_block * 4))
        return false;
    iq_snapshot_see(reader, reader->shape.blocks + table_block);
    return true;
}

static bool iq_snapshot_block_is_sound(const iq_snapshot_reader *reader, iq_place block, const uint8_t *bytes) {
    return (IQ_SMALL || iq_snapshot_table_is_sound(reader, block / IQ_SNAPSHOT_CRCS_PER_BLOCK)) &&
           reader->volume.crc32(0, bytes, IQ_SNAPSHOT_BLOCK) == iq_get_u32(reader->table + (size_t)block * 4);
}

static iqdb_result iq_snapshot_judge_bytes(const iq_snapshot_reader *reader, iq_place block, const uint8_t *bytes) {
    if (iq_snapshot_block_is_sound(reader, block, bytes)) return IQDB_OK;
    return iq_snapshot_corrupt(reader, block * IQ_SNAPSHOT_BLOCK, "a block does not match its checksum");
}

/* Whole blocks, checked. */
static iqdb_result iq_snapshot_fetch_blocks(iq_snapshot_reader *reader, iq_place first, uint8_t *bytes, size_t count) {
    iqdb_result result = iq_snapshot_fetch(reader, first * IQ_SNAPSHOT_BLOCK, bytes, count * IQ_SNAPSHOT_BLOCK);
    for (size_t i = 0; i < count && result == IQDB_OK; i++) {
        const iq_place block = first + i;
        result = iq_snapshot_judge_bytes(reader, block, bytes + i * IQ_SNAPSHOT_BLOCK);
        iq_snapshot_see(reader, block);
    }
    return result;
}

/* Any bytes in front of the table: whole blocks go straight to the caller, pieces of blocks through the cached one. */
static iqdb_result iq_snapshot_fetch_checked(iq_snapshot_reader *reader, iq_place offset, uint8_t *bytes, size_t size) {
    iqdb_result result = IQDB_OK;
    if (IQ_ONLY_BLOBS) return iq_snapshot_fetch(reader, offset, bytes, size); /* checked before the list was read */
    while (size > 0 && result == IQDB_OK) {
        const iq_place block = offset / IQ_SNAPSHOT_BLOCK;
        const size_t within = (size_t)(offset % IQ_SNAPSHOT_BLOCK);
        size_t part = IQ_SNAPSHOT_BLOCK - within;
        if (within == 0 && size >= IQ_SNAPSHOT_BLOCK) {
            size_t count = size / IQ_SNAPSHOT_BLOCK;
            if (count > 128) count = 128; /* 1 MiB: checked while it is still in the cache */
            part = count * IQ_SNAPSHOT_BLOCK;
            result = iq_snapshot_fetch_blocks(reader, block, bytes, count);
        } else {
            if (part > size) part = size;
            if (reader->cached != block) {
                reader->cached = IQ_NUMBER_MAX;
                result = iq_snapshot_fetch_blocks(reader, block, reader->block, 1);
                if (result == IQDB_OK) reader->cached = block;
            }
            if (result == IQDB_OK) memcpy(bytes, reader->block + within, part);
        }
        offset += part;
        bytes += part;
        size -= part;
    }
    return result;
}

/* What the file says of itself. */
static iqdb_result iq_snapshot_read_footer(iq_snapshot_reader *reader, iq_snapshot_entry *out_entry) {
    uint8_t footer[IQ_FOOTER_SIZE];
    const iq_place size = (iq_place)reader->size;
    if (size < IQ_FOOTER_SIZE) return iq_snapshot_corrupt(reader, size, "this is too short for a snapshot");
    const iq_place at = size - IQ_FOOTER_SIZE;
    const iqdb_result result = iq_snapshot_fetch(reader, at, footer, sizeof footer);
    if (result != IQDB_OK) return result;
    if (!iq_page_is_sound(footer, sizeof footer, IQ_FOOTER_MAGIC))
        return iq_snapshot_corrupt(reader, at, "the footer is damaged");
    if (iq_get_u32(footer + IQ_PAGE_VERSION_AT) != IQDB_FORMAT_VERSION)
        return iq_file_report(&reader->file, IQDB_ERR_VERSION, at, 0, "the snapshot is of a newer version");
    out_entry->number = iq_get_u64(footer + IQ_FOOTER_NUMBER_AT);
    out_entry->size_bytes = size;
    out_entry->root = iq_get_u32(footer + IQ_PAGE_CRC_AT);
    memcpy(reader->uuid, footer + IQ_PAGE_UUID_AT, IQ_UUID_SIZE);
    const uint64_t blocks = iq_get_u64(footer + IQ_FOOTER_BLOCKS_AT), list_at = iq_get_u64(footer + IQ_FOOTER_LIST_AT);
    const uint32_t sections = iq_get_u32(footer + IQ_FOOTER_SECTIONS_AT);
    reader->list_at = (iq_place)list_at;
    reader->roots_crc = iq_get_u32(footer + IQ_FOOTER_ROOTS_CRC_AT);
    reader->shape = iq_snapshot_shape_of((iq_place)blocks);
    if (blocks > size / IQ_SNAPSHOT_BLOCK || reader->shape.size != size || blocks == 0 ||
        list_at > reader->shape.table_at || list_at < IQ_SNAPSHOT_HEADER_SIZE || list_at % IQ_SNAPSHOT_ALIGN != 0 ||
        sections > (reader->shape.table_at - reader->list_at) / IQ_SECTION_ENTRY_SIZE)
        return iq_snapshot_corrupt(reader, at, "the footer makes no sense");
    reader->section_count = sections;
    return IQDB_OK;
}

/* NULL, or in what it is not the snapshot that META, in the database `uuid`, wants. NULL: whatever it is. */
static const char *iq_snapshot_complaint(const iq_snapshot_reader *reader, const iq_snapshot_entry *found,
                                         const uint8_t *uuid, const iq_snapshot_entry *wanted) {
    if (uuid != NULL && memcmp(reader->uuid, uuid, IQ_UUID_SIZE) != 0) return "the file belongs to another database";
    if (wanted == NULL || (found->root == wanted->root && found->number == wanted->number)) return NULL;
    return "this is not the snapshot that META names";
}

/* The table with its roots behind it: the roots against the footer, then, but for those of a map, each block of the table
 * against its root. */
static iqdb_result iq_snapshot_read_table(iq_snapshot_reader *reader) {
    const iq_snapshot_shape *shape = &reader->shape;
    const size_t size = (size_t)(shape->footer_at - shape->table_at);
    const iqdb_result result = IQ_ONLY_BLOBS || reader->is_mapped
                                   ? IQDB_OK
                                   : iq_snapshot_fetch(reader, shape->table_at, reader->own_table, size);
    if (result != IQDB_OK) return result;
    if (reader->volume.crc32(0, reader->roots, (size_t)(shape->footer_at - shape->roots_at)) != reader->roots_crc)
        return iq_snapshot_corrupt(reader, shape->roots_at, "the roots of the checksums are damaged");
    for (size_t i = 0; i < shape->table_blocks && !reader->is_mapped; i++)
        if (!iq_snapshot_table_is_sound(reader, i))
            return iq_snapshot_corrupt(reader, shape->table_at + i * IQ_SNAPSHOT_BLOCK,
                                       "a block of checksums does not match its own");
    return IQDB_OK;
}

/* Where a section lies; zeros where there is none. */
typedef struct iq_snapshot_extent {
    iq_place offset, size;
    bool is_packed;
    uint32_t ignorable; /* feature bits */
} iq_snapshot_extent;

static iq_snapshot_extent iq_snapshot_extent_at(const iq_snapshot_reader *reader, uint32_t i) {
    const uint8_t *entry = reader->list + (size_t)i * IQ_SECTION_ENTRY_SIZE;
    const iq_snapshot_extent extent = {(iq_place)iq_get_u64(entry + IQ_SECTION_OFFSET_AT),
                                       (iq_place)iq_get_u64(entry + IQ_SECTION_BYTES_AT),
                                       !IQ_SMALL && iq_get_u32(entry + IQ_SECTION_REQUIRED_AT) == IQ_SECTION_PACKED,
                                       IQ_ONLY_BLOBS ? 0 : iq_get_u32(entry + IQ_SECTION_IGNORABLE_AT)};
    return extent;
}

static uint32_t iq_snapshot_collection_at(const iq_snapshot_reader *reader, uint32_t i) {
    return iq_get_u32(reader->list + (size_t)i * IQ_SECTION_ENTRY_SIZE + IQ_SECTION_COLLECTION_AT);
}

/* The first section of this collection, or of a later one. */
static uint32_t iq_snapshot_seek(const iq_snapshot_reader *reader, uint32_t collection) {
    uint32_t low = 0, high = reader->section_count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (iq_snapshot_collection_at(reader, middle) < collection) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

IQ_FN bool iq_snapshot_next(const iq_snapshot_reader *reader, uint32_t *collection) {
    const uint32_t i = IQ_ONLY_BLOBS ? reader->section_count - 1 : iq_snapshot_seek(reader, *collection);
    if (IQ_ONLY_BLOBS) return i < reader->section_count && iq_snapshot_collection_at(reader, i) != 0;
    if (i < reader->section_count) *collection = iq_snapshot_collection_at(reader, i);
    return i < reader->section_count;
}

static bool iq_snapshot_locate(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind,
                               iq_snapshot_extent *out_extent) {
    memset(out_extent, 0, sizeof *out_extent);
    for (uint32_t i = IQ_ONLY_BLOBS ? 0 : iq_snapshot_seek(reader, collection);
         i < reader->section_count && iq_snapshot_collection_at(reader, i) == (IQ_ONLY_BLOBS ? 0 : collection); i++) {
        const uint8_t *entry = reader->list + (size_t)i * IQ_SECTION_ENTRY_SIZE;
        if (iq_get_u32(entry + IQ_SECTION_KIND_AT) != kind) continue;
        *out_extent = iq_snapshot_extent_at(reader, i);
        return true;
    }
    return false;
}

static iqdb_result iq_snapshot_read_list(iq_snapshot_reader *reader) {
    iq_place end = IQ_SNAPSHOT_HEADER_SIZE, at = reader->list_at;
    iqdb_result result = IQDB_OK;
    if (!IQ_ONLY_BLOBS)
        result = iq_snapshot_fetch_checked(reader, at, reader->own_list,
                                           (size_t)reader->section_count * IQ_SECTION_ENTRY_SIZE);
    for (uint32_t i = 0; i < reader->section_count && result == IQDB_OK; i++, at += IQ_SECTION_ENTRY_SIZE) {
        const iq_snapshot_extent extent = iq_snapshot_extent_at(reader, i);
        const uint8_t *entry = reader->list + (size_t)i * IQ_SECTION_ENTRY_SIZE;
        const bool may_be_packed = !IQ_SMALL && iq_get_u32(entry + IQ_SECTION_KIND_AT) == IQ_SECTION_PAYLOADS;
        const uint32_t known = may_be_packed ? (uint32_t)IQ_SECTION_PACKED : 0;
        if ((iq_get_u32(entry + IQ_SECTION_REQUIRED_AT) & ~known) != 0)
            return iq_file_report(&reader->file, IQDB_ERR_VERSION, at, 0, "a section needs a newer version");
        if (extent.offset != iq_get_u64(entry + IQ_SECTION_OFFSET_AT) ||
            extent.size != iq_get_u64(entry + IQ_SECTION_BYTES_AT) || extent.offset % IQ_SNAPSHOT_ALIGN != 0 ||
            extent.offset < end || extent.offset > reader->list_at || extent.size > reader->list_at - extent.offset ||
            iq_snapshot_collection_at(reader, i) == UINT32_MAX ||
            (i > 0 && iq_snapshot_collection_at(reader, i) < iq_snapshot_collection_at(reader, i - 1)))
            return iq_snapshot_corrupt(reader, at, "a section does not lie where one may");
        end = extent.offset + extent.size;
    }
    return result;
}

/* What a reader of this shape needs, with room in the list for `more` sections. */
static iqdb_result iq_snapshot_allocate(iq_snapshot_reader *reader, uint32_t more) {
    const iq_snapshot_shape *shape = &reader->shape;
    if (IQ_ONLY_BLOBS) {
        reader->table = reader->bytes + (size_t)shape->table_at;
        reader->roots = reader->bytes + (size_t)shape->roots_at;
        reader->list = reader->bytes + (size_t)reader->list_at;
        return IQDB_OK;
    }
    const size_t table_size = reader->is_mapped ? 0 : (size_t)(shape->footer_at - shape->table_at);
    const size_t seen_size = ((size_t)(shape->blocks + shape->table_blocks) / 32 + 1) * sizeof(uint32_t);
    reader->section_capacity = reader->section_count + more;
    const size_t list_size = (size_t)reader->section_capacity * IQ_SECTION_ENTRY_SIZE;
    reader->memory_size = 2 * IQ_SNAPSHOT_BLOCK + seen_size + table_size + list_size;
    if (sizeof(size_t) > 4 || shape->blocks <= (size_t)-1 / IQ_SNAPSHOT_BLOCK)
        reader->memory = (uint8_t *)iq_alloc_zeroed(&reader->volume.allocator, reader->memory_size, 16);
    if (reader->memory == NULL)
        return iq_file_report(&reader->file, IQDB_ERR_NOMEM, 0, 0, "no memory for the checksums of the snapshot");
    reader->block = reader->memory;
    reader->fresh = reader->block + IQ_SNAPSHOT_BLOCK;
    reader->seen = (uint32_t *)(void *)(reader->fresh + IQ_SNAPSHOT_BLOCK);
    reader->own_table = reader->fresh + IQ_SNAPSHOT_BLOCK + seen_size;
    reader->table = reader->is_mapped ? reader->bytes + (size_t)shape->table_at : reader->own_table;
    reader->roots = reader->table + (size_t)(shape->roots_at - shape->table_at);
    reader->list = reader->own_list = reader->own_table + table_size;
    return IQDB_OK;
}

static iqdb_result iq_snapshot_new(const iq_volume *volume, iq_snapshot_reader **out_reader) {
    iq_snapshot_reader *reader = (iq_snapshot_reader *)iq_alloc_zeroed(&volume->allocator, sizeof *reader, 16);
    *out_reader = reader;
    if (reader == NULL) return iq_report(volume->reporter, IQDB_ERR_NOMEM, NULL, 0, "no memory to read a snapshot");
    reader->volume = *volume;
    reader->file.volume = &reader->volume;
    reader->cached = IQ_NUMBER_MAX;
    return IQDB_OK;
}

static iqdb_result iq_snapshot_open_file(const iq_volume *volume, uint64_t number, iq_snapshot_reader **out_reader) {
    char name[IQ_FILE_NAME_SIZE];
    iq_volume_name(name, IQ_SNAPSHOT_PREFIX, number);
    iqdb_result result = iq_snapshot_new(volume, out_reader);
    if (result != IQDB_OK) return result;
    iq_snapshot_reader *reader = *out_reader;
    result = iq_file_open(&reader->file, &reader->volume, name, IQDB_OPEN_READ);
    if (result == IQDB_ERR_NOT_FOUND)
        result = iq_snapshot_corrupt(reader, 0, "the file must be there, but it is missing");
    return result == IQDB_OK ? iq_file_size(&reader->file, &reader->size) : result;
}

/* The LSNs stand in the header only, which has a checksum of its own. */
static iqdb_result iq_snapshot_read_header(iq_snapshot_reader *reader, iq_snapshot_entry *entry) {
    uint8_t header[IQ_SNAPSHOT_HEADER_SIZE];
    const iqdb_result result = iq_snapshot_fetch(reader, 0, header, sizeof header);
    if (result != IQDB_OK) return result;
    entry->lsn = iq_get_u64(header + IQ_SNAPSHOT_LSN_AT);
    entry->since = iq_get_u64(header + IQ_SNAPSHOT_SINCE_AT);
    if (!iq_page_is_sound(header, sizeof header, IQ_SNAPSHOT_MAGIC) || entry->lsn > IQ_LSN_MAX ||
        entry->since > entry->lsn || iq_get_u64(header + IQ_SNAPSHOT_NUMBER_AT) != entry->number)
        return iq_snapshot_corrupt(reader, 0, "the header is damaged, or makes no sense");
    return IQDB_OK;
}

/* Everything behind the first look at the file. */
static iqdb_result iq_snapshot_start(iq_snapshot_reader *reader, const uint8_t *uuid, const iq_snapshot_entry *wanted,
                                     iq_snapshot_entry *out_entry) {
    if (wanted != NULL && reader->size != wanted->size_bytes)
        return iq_snapshot_corrupt(reader, reader->size, "the file has another size than META says");
    iqdb_result result = iq_snapshot_read_footer(reader, out_entry);
    if (result != IQDB_OK) return result;
    const char *text = iq_snapshot_complaint(reader, out_entry, uuid, wanted);
    if (text != NULL) return iq_snapshot_corrupt(reader, reader->shape.footer_at, text);
    result = iq_snapshot_allocate(reader, 0);
    if (result == IQDB_OK) result = iq_snapshot_read_table(reader);
    if (IQ_ONLY_BLOBS && result == IQDB_OK) result = iq_snapshot_check(reader);
    if (result == IQDB_OK) result = iq_snapshot_read_list(reader);
    return result == IQDB_OK ? iq_snapshot_read_header(reader, out_entry) : result;
}

IQ_FN iqdb_result iq_snapshot_open(const iq_volume *volume, const uint8_t *uuid, const iq_snapshot_entry *entry,
                                   iq_snapshot_reader **out_reader) {
    iq_snapshot_entry found;
    iqdb_result result = iq_snapshot_open_file(volume, entry->number, out_reader);
    if (result == IQDB_OK) result = iq_snapshot_start(*out_reader, uuid, entry, &found);
    if (result == IQDB_OK && found.since != entry->since)
        result = iq_snapshot_corrupt(*out_reader, 0, "this does not add to the snapshot that META names before it");
    return iq_snapshot_opened(out_reader, result);
}

IQ_FN iqdb_result iq_snapshot_open_mapped(const iq_volume *volume, const uint8_t *uuid, const iq_snapshot_entry *entry,
                                          iq_snapshot_reader **out_reader) {
    iq_snapshot_entry found;
    iqdb_result result = iq_snapshot_open_file(volume, entry->number, out_reader);
    iq_snapshot_reader *reader = *out_reader;
    if (result == IQDB_OK && reader->size != entry->size_bytes)
        result = iq_snapshot_corrupt(reader, reader->size, "the file has another size than META says");
    if (result == IQDB_OK) result = iq_file_map(&reader->file, reader->size, &reader->bytes);
    if (result == IQDB_OK) reader->is_mapped = true;
    if (reader != NULL) iq_file_close(&reader->file);
    if (result == IQDB_OK) result = iq_snapshot_start(reader, uuid, entry, &found);
    if (result == IQDB_OK && found.since != entry->since)
        result = iq_snapshot_corrupt(reader, 0, "this does not add to the snapshot that META names before it");
    return iq_snapshot_opened(out_reader, result);
}

IQ_FN uint64_t iq_snapshot_offset_of(const iq_snapshot_reader *reader, const void *bytes) {
    const uintptr_t begin = (uintptr_t)(const void *)reader->bytes, at = (uintptr_t)bytes;
    return at < begin || at - begin >= reader->size ? IQ_NUMBER_MAX : (uint64_t)(at - begin);
}

IQ_FN iqdb_result iq_snapshot_touch(const iq_snapshot_reader *reader, const void *bytes, uint64_t size,
                                    uint64_t *out_bad) {
    const uint64_t offset = iq_snapshot_offset_of(reader, bytes);
    if (offset == IQ_NUMBER_MAX || size == 0) return IQDB_OK;
    for (iq_place block = (iq_place)offset / IQ_SNAPSHOT_BLOCK; block * IQ_SNAPSHOT_BLOCK < offset + size; block++) {
        if (block < reader->shape.blocks && iq_snapshot_has_seen(reader, block)) continue;
        *out_bad = block * IQ_SNAPSHOT_BLOCK;
        if (block >= reader->shape.blocks ||
            !iq_snapshot_block_is_sound(reader, block, reader->bytes + (size_t)block * IQ_SNAPSHOT_BLOCK))
            return IQDB_ERR_CORRUPT;
        iq_snapshot_see(reader, block);
    }
    return IQDB_OK;
}

IQ_FN bool iq_snapshot_is_mapped(const iq_snapshot_reader *reader) { return reader->is_mapped; }
IQ_FN uint64_t iq_snapshot_size(const iq_snapshot_reader *reader) { return reader->size; }

IQ_FN uint64_t iq_snapshot_seen_bytes(const iq_snapshot_reader *reader) {
    uint64_t blocks = 0;
    for (iq_place block = 0; block < reader->shape.blocks; block++) blocks += iq_snapshot_has_seen(reader, block);
    return blocks * IQ_SNAPSHOT_BLOCK;
}

IQ_FN void iq_snapshot_report_to(iq_snapshot_reader *reader, const iq_reporter *reporter) {
    reader->volume.reporter = reporter;
}

IQ_FN iqdb_error iq_snapshot_damage(const iq_snapshot_reader *reader, uint64_t offset, const char *text) {
    return iq_error_make(IQDB_ERR_CORRUPT, reader->file.name, offset, text);
}

IQ_FN iqdb_result iq_snapshot_open_bytes(const iq_volume *volume, const void *bytes, size_t size,
                                         iq_snapshot_entry *out_entry, iq_snapshot_reader **out_reader) {
    iqdb_result result = iq_snapshot_new(volume, out_reader);
    if (result != IQDB_OK) return result;
    iq_snapshot_reader *reader = *out_reader;
    if (!IQ_ONLY_BLOBS) memcpy(reader->file.name, "blob", sizeof "blob");
    reader->bytes = (const uint8_t *)bytes;
    reader->size = size;
    result = iq_snapshot_start(reader, NULL, NULL, out_entry);
    if (result == IQDB_OK && out_entry->since != 0)
        result = iq_snapshot_corrupt(reader, 0, "this is a delta, and not the whole database");
    return iq_snapshot_opened(out_reader, result);
}

/* Bytes of a packed section, as they are in the file. */
static iqdb_result iq_snapshot_fetch_packed(void *user, uint64_t offset, uint8_t *bytes, size_t size) {
    iq_snapshot_reader *reader = (iq_snapshot_reader *)user;
    return iq_snapshot_fetch_checked(reader, (iq_place)(reader->unpacking + offset), bytes, size);
}

/* Has the unpacker of a packed section; where that fails it is told once. */
static iqdb_result iq_snapshot_unpacker(iq_snapshot_reader *reader, const iq_snapshot_extent *extent) {
    char why[160];
    if (reader->unpacking == extent->offset) return reader->unpack_result;
    iq_unpacker_close(reader->unpacker);
    reader->unpacking = extent->offset;
    reader->unpack_result =
        iq_unpacker_open(&reader->volume, iq_snapshot_fetch_packed, reader, extent->size, why, &reader->unpacker);
    if (reader->unpack_result != IQDB_OK && why[0] != 0)
        (void)iq_file_report(&reader->file, reader->unpack_result, extent->offset, 0, why);
    return reader->unpack_result;
}

IQ_FN bool iq_snapshot_find(iq_snapshot_reader *reader, uint32_t collection, uint32_t kind, uint64_t *out_size) {
    iq_snapshot_extent extent;
    const bool is_found = iq_snapshot_locate(reader, collection, kind, &extent);
    *out_size = extent.size;
    if (!IQ_SMALL && extent.is_packed)
        *out_size = iq_snapshot_unpacker(reader, &extent) == IQDB_OK ? reader->unpacker->plain_size : 0;
    return is_found;
}

IQ_FN void iq_snapshot_forgive(iq_snapshot_reader *reader, uint32_t collection, uint32_t kind) {
    iq_snapshot_extent extent;
    if (!iq_snapshot_locate(reader, collection, kind, &extent) || reader->is_mapped) return;
    const iq_place end = extent.offset + extent.size;
    for (iq_place block = extent.offset / IQ_SNAPSHOT_BLOCK; block * IQ_SNAPSHOT_BLOCK < end; block++)
        iq_snapshot_see(reader, block);
}

IQ_FN const uint8_t *iq_snapshot_view(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind) {
    iq_snapshot_extent extent;
    if (!iq_snapshot_locate(reader, collection, kind, &extent) || extent.is_packed) return NULL;
    return reader->bytes + (size_t)extent.offset;
}

IQ_FN iqdb_result iq_snapshot_read(iq_snapshot_reader *reader, uint32_t collection, uint32_t kind, uint64_t offset,
                                   void *bytes, size_t size) {
    iq_snapshot_extent extent;
    uint64_t bad;
    (void)iq_snapshot_locate(reader, collection, kind, &extent);
    iqdb_result result = IQDB_OK;
    if (!IQ_SMALL && extent.is_packed) result = iq_snapshot_unpacker(reader, &extent);
    if (result != IQDB_OK) return result;
    const uint64_t held = !IQ_SMALL && extent.is_packed ? reader->unpacker->plain_size : extent.size;
    if (offset > held || size > held - offset)
        return iq_snapshot_reject(reader, collection, kind, 0, "a section is missing or too short");
    if (!IQ_SMALL && extent.is_packed) {
        result = iq_unpacker_read(reader->unpacker, offset, (uint8_t *)bytes, size, &bad);
        if (result != IQDB_OK && bad != IQ_NUMBER_MAX)
            result = iq_snapshot_corrupt(reader, extent.offset + bad, "a packed block does not unpack to what it was");
        return result;
    }
    return iq_snapshot_fetch_checked(reader, extent.offset + (iq_place)offset, (uint8_t *)bytes, size);
}

IQ_FN iqdb_error iq_snapshot_finding(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind,
                                     uint64_t offset, const char *text) {
    iq_snapshot_extent extent;
    if (!iq_snapshot_locate(reader, collection, kind, &extent)) offset = 0;
    return iq_error_make(IQDB_ERR_CORRUPT, reader->file.name, extent.offset + offset, text);
}

IQ_FN iqdb_result iq_snapshot_reject_text(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind,
                                          uint64_t offset, const char *why) {
    const iqdb_error error = iq_snapshot_finding(reader, collection, kind, offset, why);
    return iq_report_error(reader->volume.reporter, &error);
}

IQ_FN iqdb_result iq_snapshot_pass_over(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind) {
    iq_snapshot_extent extent;
    iqdb_error error = iq_snapshot_finding(reader, collection, kind, 0, "a section needs a newer version");
    (void)iq_snapshot_locate(reader, collection, kind, &extent);
    if ((extent.ignorable & IQ_SECTION_DERIVED) != 0) return IQDB_OK;
    error.code = IQDB_ERR_VERSION;
    return iq_report_error(reader->volume.reporter, &error);
}

IQ_FN iqdb_result iq_snapshot_check(iq_snapshot_reader *reader) {
    iqdb_result first = IQDB_OK;
    reader->cached = IQ_NUMBER_MAX;
    for (iq_place block = 0; block < reader->shape.blocks; block++) {
        if (iq_snapshot_has_seen(reader, block)) continue;
        const iqdb_result result =
            IQ_ONLY_BLOBS ? iq_snapshot_judge_bytes(reader, block, reader->bytes + (size_t)block * IQ_SNAPSHOT_BLOCK)
                          : iq_snapshot_fetch_blocks(reader, block, reader->block, 1);
        if (first == IQDB_OK) first = result;
    }
    return first;
}

/* ---- Reading what is damaged ---- */

/* Damage that salvage goes on behind. */
static void iq_snapshot_note(iq_snapshot_reader *reader, uint64_t offset, const char *text) {
    reader->is_damaged = true;
    (void)iq_snapshot_corrupt(reader, offset, text);
}

/* Which blocks of the file are what was written? Those whose checksum stands in the table. And where the checksums of
 * all the blocks that one block of the table is about give just its root, all of them are, whatever the table says now.
 * The table is left so that reads find it right for them, and wrong for all others. */
static iqdb_result iq_snapshot_judge(iq_snapshot_reader *reader, iq_place table_block) {
    const iq_crc32_fn crc32 = reader->volume.crc32;
    uint8_t *table = reader->own_table + (size_t)table_block * IQ_SNAPSHOT_BLOCK, *fresh = reader->fresh;
    const uint32_t root = iq_get_u32(reader->roots + (size_t)table_block * 4);
    const iq_place first = table_block * IQ_SNAPSHOT_CRCS_PER_BLOCK;
    size_t count = IQ_SNAPSHOT_CRCS_PER_BLOCK;
    if (count > reader->shape.blocks - first) count = (size_t)(reader->shape.blocks - first);
    memset(fresh, 0, IQ_SNAPSHOT_BLOCK);
    iq_snapshot_see(reader, reader->shape.blocks + table_block); /* from here on it is believed as it is left */
    for (size_t i = 0; i < count; i++) {
        size_t got = 0;
        const iqdb_result result =
            iq_file_read(&reader->file, (first + i) * IQ_SNAPSHOT_BLOCK, reader->block, IQ_SNAPSHOT_BLOCK, &got);
        if (result == IQDB_ERR_NOMEM) return result;
        const bool is_there = result == IQDB_OK && got == IQ_SNAPSHOT_BLOCK;
        iq_put_u32(fresh + i * 4, is_there ? crc32(0, reader->block, IQ_SNAPSHOT_BLOCK) : ~iq_get_u32(table + i * 4));
    }
    if (crc32(0, table, IQ_SNAPSHOT_BLOCK) != root)
        iq_snapshot_note(reader, reader->shape.table_at + table_block * IQ_SNAPSHOT_BLOCK,
                         "a block of checksums does not match its own");
    if (crc32(0, fresh, IQ_SNAPSHOT_BLOCK) == root) {
        memcpy(table, fresh, IQ_SNAPSHOT_BLOCK);
        return IQDB_OK;
    }
    reader->is_damaged = true;
    for (size_t i = 0; i < count; i++)
        if (iq_get_u32(table + i * 4) != iq_get_u32(fresh + i * 4))
            iq_snapshot_note(reader, (first + i) * IQ_SNAPSHOT_BLOCK, "a block does not match its checksum");
    return IQDB_OK;
}

/* Footer and shape, or what must have been there: the shape of a file of this size, or the nearest below. */
static iqdb_result iq_snapshot_salvage_footer(iq_snapshot_reader *reader, const uint8_t *uuid,
                                              const iq_snapshot_entry *wanted, iq_snapshot_entry *out_entry) {
    if (wanted != NULL && reader->size != wanted->size_bytes) {
        iq_snapshot_note(reader, reader->size, "the file has another size than META says");
        /* Blocks take half of a file at least: where the rest is gone, nothing is left to check them with. */
        if (wanted->size_bytes / 2 > reader->size + IQ_SNAPSHOT_BLOCK) return IQDB_ERR_CORRUPT;
        reader->size = wanted->size_bytes;
    }
    const iqdb_result result = iq_snapshot_read_footer(reader, out_entry);
    if (result == IQDB_ERR_VERSION) return result;
    if (result == IQDB_OK) {
        const char *text = iq_snapshot_complaint(reader, out_entry, uuid, wanted);
        if (text != NULL) iq_snapshot_note(reader, 0, text);
        return iq_snapshot_complaint(reader, out_entry, uuid, NULL) == NULL ? IQDB_OK : IQDB_ERR_CORRUPT;
    }
    iq_place blocks = (iq_place)(reader->size / IQ_SNAPSHOT_BLOCK);
    while (blocks > 0 && iq_snapshot_shape_of(blocks).size > reader->size) blocks--;
    reader->is_damaged = true;
    reader->shape = iq_snapshot_shape_of(blocks);
    reader->list_at = reader->shape.table_at;
    return blocks == 0 ? IQDB_ERR_CORRUPT : IQDB_OK;
}

static iqdb_result iq_snapshot_salvage_blocks(iq_snapshot_reader *reader) {
    const iq_snapshot_shape *shape = &reader->shape;
    size_t got;
    iqdb_result result = iq_file_read(&reader->file, shape->table_at, reader->own_table,
                                      (size_t)(shape->footer_at - shape->table_at), &got);
    if (result != IQDB_ERR_NOMEM) result = IQDB_OK;
    const uint32_t crc = reader->volume.crc32(0, reader->roots, (size_t)(shape->footer_at - shape->roots_at));
    if (reader->section_count > 0 &&
        crc != reader->roots_crc) /* without a footer there is nothing to hold it against */
        iq_snapshot_note(reader, shape->roots_at, "the roots of the checksums are damaged");
    for (iq_place i = 0; i < shape->table_blocks && result == IQDB_OK; i++) result = iq_snapshot_judge(reader, i);
    return result;
}

IQ_FN iqdb_result iq_snapshot_salvage(const iq_volume *volume, const uint8_t *uuid, uint64_t number,
                                      const iq_snapshot_entry *wanted, iq_snapshot_entry *out_entry,
                                      iq_snapshot_reader **out_reader) {
    memset(out_entry, 0, sizeof *out_entry);
    iqdb_result result = iq_snapshot_open_file(volume, number, out_reader);
    iq_snapshot_reader *reader = *out_reader;
    if (result == IQDB_OK) result = iq_snapshot_salvage_footer(reader, uuid, wanted, out_entry);
    if (result == IQDB_OK) result = iq_snapshot_allocate(reader, IQ_SNAPSHOT_ASSUMED_MAX);
    if (result == IQDB_OK) result = iq_snapshot_salvage_blocks(reader);
    if (result != IQDB_OK) return iq_snapshot_opened(out_reader, result);
    reader->volume.reporter = NULL; /* what is in damaged blocks has been told */
    if (iq_snapshot_read_list(reader) != IQDB_OK) {
        reader->is_damaged = true;
        reader->section_count = 0;
    }
    out_entry->number = number;
    out_entry->size_bytes = reader->size;
    if (iq_snapshot_read_header(reader, out_entry) != IQDB_OK) out_entry->lsn = IQ_NUMBER_MAX;
    return IQDB_OK;
}

IQ_FN bool iq_snapshot_is_whole(const iq_snapshot_reader *reader) { return !reader->is_damaged; }

/* Where the last section of the list ends. Rounded up to IQ_SNAPSHOT_ALIGN it is not behind list_at, which the footer
 * gives at such a place. */
static uint64_t iq_snapshot_sections_end(const iq_snapshot_reader *reader) {
    if (reader->section_count == 0) return IQ_SNAPSHOT_HEADER_SIZE;
    const iq_snapshot_extent last = iq_snapshot_extent_at(reader, reader->section_count - 1);
    return last.offset + last.size;
}

IQ_FN bool iq_snapshot_peek(iq_snapshot_reader *reader, uint8_t *bytes, size_t size) {
    const uint64_t at = iq_snapshot_place(iq_snapshot_sections_end(reader), 0);
    return size <= reader->list_at - at && iq_snapshot_fetch_checked(reader, (iq_place)at, bytes, size) == IQDB_OK;
}

IQ_FN uint64_t iq_snapshot_rest(iq_snapshot_reader *reader, uint32_t zeros) {
    uint8_t first[4] = {0};
    const uint64_t end = iq_snapshot_sections_end(reader);
    const uint64_t packed = iq_snapshot_place(end, 0), large = iq_snapshot_place(end, IQ_SNAPSHOT_LARGE);
    /* What is behind it may be large, too. */
    if (reader->list_at - packed >= zeros + sizeof first)
        (void)iq_snapshot_fetch_checked(reader, (iq_place)packed + zeros, first, sizeof first);
    if (iq_get_u32(first) != 0 && reader->list_at - packed >= IQ_SNAPSHOT_LARGE) return IQ_SNAPSHOT_LARGE - 1;
    if (large < reader->list_at && reader->list_at - large >= IQ_SNAPSHOT_LARGE) return reader->list_at - large;
    return reader->list_at - packed;
}

IQ_FN void iq_snapshot_assume(iq_snapshot_reader *reader, uint32_t collection, uint32_t kind, uint64_t size) {
    const uint64_t at = iq_snapshot_place(iq_snapshot_sections_end(reader), size);
    if (reader->section_count == reader->section_capacity || at > reader->list_at || size > reader->list_at - at)
        return;
    uint8_t *entry = reader->own_list + (size_t)reader->section_count * IQ_SECTION_ENTRY_SIZE;
    memset(entry, 0, IQ_SECTION_ENTRY_SIZE);
    iq_put_u32(entry + IQ_SECTION_COLLECTION_AT, collection);
    iq_put_u32(entry + IQ_SECTION_KIND_AT, kind);
    iq_put_u64(entry + IQ_SECTION_OFFSET_AT, at);
    iq_put_u64(entry + IQ_SECTION_BYTES_AT, size);
    reader->section_count++;
}

IQ_FN iqdb_result iq_snapshot_identify(const iq_volume *volume, uint64_t number, uint8_t *uuid, bool *has_uuid,
                                       iq_snapshot_entry *out_entry, bool *out_ours) {
    iq_snapshot_reader *reader;
    memset(out_entry, 0, sizeof *out_entry);
    iqdb_result result = iq_snapshot_open_file(volume, number, &reader);
    if (result == IQDB_OK) result = iq_snapshot_read_footer(reader, out_entry);
    *out_ours = result == IQDB_OK && iq_snapshot_complaint(reader, out_entry, *has_uuid ? uuid : NULL, NULL) == NULL;
    out_entry->number = number;
    if (*out_ours) result = iq_snapshot_read_header(reader, out_entry);
    if (!*out_ours || result != IQDB_OK) out_entry->lsn = out_entry->since = IQ_NUMBER_MAX;
    if (*out_ours) memcpy(uuid, reader->uuid, IQ_UUID_SIZE);
    if (*out_ours) *has_uuid = true;
    iq_snapshot_close(reader);
    return result == IQDB_ERR_NOMEM ? result : IQDB_OK;
}

IQ_FN bool iq_snapshot_is_ours(const iq_volume *volume, const uint8_t *uuid, uint64_t number, bool *out_torn) {
    uint8_t header[IQ_SNAPSHOT_HEADER_SIZE] = {0};
    iq_snapshot_reader *reader;
    iqdb_result result = iq_snapshot_open_file(volume, number, &reader);
    if (result == IQDB_OK && reader->size >= sizeof header)
        result = iq_snapshot_fetch(reader, 0, header, sizeof header);
    iq_snapshot_close(reader);
    *out_torn = result == IQDB_OK && !iq_page_is_sound(header, sizeof header, IQ_SNAPSHOT_MAGIC);
    return result == IQDB_OK && !*out_torn && memcmp(header + IQ_PAGE_UUID_AT, uuid, IQ_UUID_SIZE) == 0 &&
           iq_get_u64(header + IQ_SNAPSHOT_NUMBER_AT) == number;
}
