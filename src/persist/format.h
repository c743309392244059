/* THE byte tables of the files of a database: META, wal-<n>, snap-<n>. (LOCK is empty, ballast is any bytes. What a record's body
 * means is in codec/record.h, what a section's bytes mean in persist/sections.h.)
 *
 * All numbers little-endian. Every CRC is the CRC-32 of zlib. Bytes that no table names are zero and under the CRC.
 * A writer that needs them sets a feature bit first: a reader that does not know a bit of `required` refuses the file
 * with VERSION, and one that does not know a bit of `ignorable` reads on, and clears the bit when it writes META. */
#ifndef IQ_PERSIST_FORMAT_H
#define IQ_PERSIST_FORMAT_H

#include "base/config.h"

#define IQ_NUMBER_MAX (UINT64_C(1) << 62) /* of files and offsets, so that no sum of a few of them can wrap */
#define IQ_LSN_MAX (IQ_NUMBER_MAX / 2)    /* of LSNs and changes of META: a higher one is not read, nor ever written */
#define IQ_META_MAGIC "iqdbMETA"
#define IQ_LOG_MAGIC "iqdbWLOG"
#define IQ_SNAPSHOT_MAGIC "iqdbSNAP"
#define IQ_FOOTER_MAGIC "iqdbSEND"

enum {
    IQ_UUID_SIZE = 16,

    /* ==== The head of a page: of a slot of META, the first sector of a log, header and footer of a snapshot ==========
     * What follows in the tables of these begins behind it. */
    IQ_PAGE_MAGIC_AT = 0,    /* u8[8]  what it is */
    IQ_PAGE_CRC_AT = 8,      /* u32   of the page without this field */
    IQ_PAGE_VERSION_AT = 12, /* u32   IQDB_FORMAT_VERSION of the writer */
    IQ_PAGE_UUID_AT = 16,    /* u8[16] of the database; all its files have it */
    IQ_PAGE_HEAD_SIZE = 32,

    /* ==== META: two slots, each one whole ============================================================
     * The valid slot with the higher sequence counts. Both say the same except in the middle of a change. */
    IQ_META_SLOT_SIZE = 4096,
    IQ_META_SEQUENCE_AT = 32,  /* u64   counts the changes of META */
    IQ_META_REQUIRED_AT = 40,  /* u32   feature bits */
    IQ_META_IGNORABLE_AT = 44, /* u32   feature bits */
    IQ_META_STATE_AT = 48,     /* u32   IQ_META_CLEAN or 0 */
    IQ_META_SNAPSHOTS_AT = 52, /* u32   snapshots named, 0 to IQ_META_SNAPSHOT_MAX */
    IQ_META_LOGS_AT = 56,      /* u32   logs named, 1 to IQ_META_LOG_MAX */
    IQ_META_APPLIED_AT = 64,   /* u64   last LSN that the snapshots hold, 0 without any */
    IQ_META_DIM_AT = 80,       /* u32   collection 0: dimension, 0 while unknown */
    IQ_META_METRIC_AT = 84,    /* u32   collection 0: iqdb_metric */
    IQ_META_ELEMENT_AT = 88,   /* u32   collection 0: iqdb_element */
    IQ_META_MODEL_AT = 96,     /* u8[IQ_META_MODEL_SIZE] tag of the model that made the vectors: UTF-8, and zeros, one
                                  at least; zeros only: none is known */
    IQ_META_MODEL_SIZE = 64,   /* 160 to 255 are zeros */
    IQ_META_SNAPSHOT_AT = 256, /* IQ_META_SNAPSHOT_MAX entries of IQ_META_SNAPSHOT_SIZE: a base, and deltas, each
                                  since the LSN of the one before it */
    IQ_META_LOG_AT = 1536,     /* IQ_META_LOG_MAX entries of IQ_META_LOG_SIZE, oldest first */
    IQ_META_KEYS_AT = 2048,    /* u8[IQ_META_KEYS_SIZE] collection 0: the indexed payload keys, each as u8 1 + its
                                  iqdb_key_kind, key, u8 0; and zeros */
    IQ_META_KEYS_SIZE = 2048,

    IQ_META_COLLECTIONS = 1, /* required: there was another collection than 0 */
    IQ_META_CHOICES = 2,     /* required: logs may have records that choose an index */
    IQ_META_ELEMENTS = 4,    /* required: there was a collection of another element than f32 */
    IQ_META_KEY_SETS = 8, /* required: logs may have records that name the indexed keys of other collections than 0 */
    IQ_META_KNOWN = IQ_META_COLLECTIONS | IQ_META_CHOICES | IQ_META_ELEMENTS | IQ_META_KEY_SETS,

    IQ_META_CLEAN = 1, /* nothing was written behind the end of the last log */
    IQ_META_SNAPSHOT_MAX = 32,
    IQ_META_LOG_MAX = 8,

    IQ_META_SNAPSHOT_SIZE = 40,
    IQ_META_SNAPSHOT_NUMBER_AT = 0, /* u64   <n> of snap-<n> */
    IQ_META_SNAPSHOT_BYTES_AT = 8,  /* u64   size of the file */
    IQ_META_SNAPSHOT_LSN_AT = 16,   /* u64   last LSN it holds */
    IQ_META_SNAPSHOT_ROOT_AT = 24,  /* u32   CRC of its footer, the root of all its checksums */

    IQ_META_LOG_SIZE = 64,
    IQ_META_LOG_NUMBER_AT = 0,   /* u64   <n> of wal-<n>; ascending */
    IQ_META_LOG_SALT_AT = 8,     /* u64   that of its header */
    IQ_META_LOG_FIRST_AT = 16,   /* u64   LSN of its first frame */
    IQ_META_LOG_END_LSN_AT = 24, /* u64   the last LSN of a batch, or FIRST - 1: acknowledged up to here. */
    IQ_META_LOG_END_AT = 32,     /* u64   offset behind that frame */
    IQ_META_LOG_END_CRC_AT = 40, /* u32   CRC of that frame (of the log's header where there is none) */
    IQ_META_LOG_STATE_AT = 44,   /* u32   IQ_META_LOG_ENDS where the three above are known */
    IQ_META_LOG_BYTES_AT = 48,   /* u64   the file has at least this size: whoever cut it shorter is noticed */
    IQ_META_LOG_ENDS = 1,        /* in the last log of a META that is not clean, more frames may follow the end */

    /* ==== wal-<n>: a header that fills the first sector, then frames, then zeros ======================
     * Frames lie at multiples of 8 without gaps. A sync ends at a multiple of the sector size: the frame before it is
     * stretched by zeros, which count in its length. */
    IQ_LOG_NUMBER_AT = 32,      /* u64   <n> */
    IQ_LOG_SALT_AT = 40,        /* u64   random */
    IQ_LOG_FIRST_AT = 48,       /* u64   LSN of the first frame */
    IQ_LOG_BEFORE_AT = 56,      /* u64   number of the log that this one continues, 0 for none */
    IQ_LOG_BEFORE_SALT_AT = 64, /* u64   and its salt */
    IQ_LOG_SECTOR_AT = 72,      /* u32   sector size: a power of two, IQ_LOG_SECTOR_MIN to _MAX */
    IQ_LOG_REQUIRED_AT = 76,    /* u32   feature bits */
    IQ_LOG_HEADER_SIZE = 80,    /* and zeros to the end of the sector */
    IQ_LOG_SECTOR_MIN = 512,
    IQ_LOG_SECTOR_MAX = 4096,
    IQ_LOG_SECTOR_DEFAULT = 4096,

    IQ_FRAME_LENGTH_AT = 0,   /* u32   bytes of the body, zeros at its end included; a multiple of 8, > 0 */
    IQ_FRAME_CRC_AT = 4,      /* u32   of: salt (u64), header without this field, body */
    IQ_FRAME_LSN_AT = 8,      /* u64   one more than the frame before, across logs */
    IQ_FRAME_DURABLE_AT = 16, /* u64   every frame up to this LSN was durable before this one was written */
    IQ_FRAME_BATCH_AT = 24,   /* u64   LSN of the first frame of the batch */
    IQ_FRAME_BEFORE_AT = 32,  /* u32   CRC of the frame before; of the header, for the first frame */
    IQ_FRAME_TYPE_AT = 36,    /* u8    IQ_FRAME_RECORD, _ATTEST or _SWITCH */
    IQ_FRAME_FLAGS_AT = 37,   /* u8    IQ_FRAME_FIRST, _LAST, _COMMIT */
    IQ_FRAME_ZERO_AT = 38,    /* u16   0 */
    IQ_FRAME_HEADER_SIZE = 40,

    IQ_FRAME_RECORD = 1, /* body: a record or a piece of one */
    IQ_FRAME_ATTEST = 2, /* body: head, zeros. A batch of its own that only carries durable_lsn */
    IQ_FRAME_SWITCH = 3, /* body: as below; the log ends, and another goes on */
    IQ_FRAME_FIRST = 1,  /* the first piece of its record */
    IQ_FRAME_LAST = 2,   /* the last piece of its record */
    IQ_FRAME_COMMIT = 4, /* the last frame of its batch */
    IQ_FRAME_WHOLE = 7,

    /* The head of every body, records included: type u8, three bytes, collection u32 (0 where it is no record). */
    IQ_BODY_HEAD_SIZE = 8,
    IQ_BODY_ATTEST = 128,
    IQ_BODY_SWITCH = 129,
    IQ_BODY_SWITCH_NUMBER_AT = 8, /* u64s of the log that goes on */
    IQ_BODY_SWITCH_SALT_AT = 16,
    IQ_BODY_SWITCH_BYTES_AT = 24, /* as IQ_META_LOG_BYTES_AT */
    IQ_BODY_SWITCH_SIZE = 32,

    /* A piece is at most 7 KiB, so that its frame, stretched to the end of a sector, stays within the 11,450 bytes up
     * to which CRC-32 finds every error of three bits. */
    IQ_FRAME_PIECE_MAX = 7168,
    IQ_FRAME_LENGTH_MAX = IQ_FRAME_PIECE_MAX + IQ_LOG_SECTOR_MAX,
    IQ_FRAME_SIZE_MIN = IQ_FRAME_HEADER_SIZE + IQ_BODY_HEAD_SIZE,

    /* ==== snap-<n>: blocks of 8 KiB, their CRCs, the CRCs of those, and a footer ======================
     *   blocks   header, sections at multiples of 64 (of 64 KiB where they are as large) by collection, list of them, zeros
     *   table    u32 a block: its CRC; zeros to a multiple of 8 KiB
     *   roots    u32 a table block: its CRC; zeros to a multiple of 64
     *   footer   whose CRC stands in META */
    IQ_SNAPSHOT_BLOCK = 8192,
    IQ_SNAPSHOT_ALIGN = 64,
    IQ_SNAPSHOT_LARGE = 65536,

    IQ_SNAPSHOT_NUMBER_AT = 32, /* u64   <n> */
    IQ_SNAPSHOT_LSN_AT = 40,    /* u64   last LSN it holds */
    IQ_SNAPSHOT_SINCE_AT = 48,  /* u64   0: a base, which holds all; else a delta: what has changed since this LSN */
    IQ_SNAPSHOT_HEADER_SIZE = 64,

    IQ_SECTION_COLLECTION_AT = 0, /* u32, less than 2^32 - 1 */
    IQ_SECTION_KIND_AT = 4,       /* u32 */
    IQ_SECTION_REQUIRED_AT = 8,   /* u32   feature bits */
    IQ_SECTION_IGNORABLE_AT = 12, /* u32   feature bits */
    IQ_SECTION_OFFSET_AT = 16,    /* u64 */
    IQ_SECTION_BYTES_AT = 24,     /* u64   size */
    IQ_SECTION_ENTRY_SIZE = 32,
    IQ_SECTION_DERIVED = 1, /* ignorable: it is made from other sections, and who does not know it leaves it aside */

    IQ_SECTION_PACKED = 1, /* required, of IQ_SECTION_PAYLOADS only: a head, packed blocks, a table */
    IQ_PACK_NAME_AT = 0,   /* u8[IQ_PACK_NAME_SIZE] of the codec, and zeros, one at least */
    IQ_PACK_NAME_SIZE = 32,
    IQ_PACK_BYTES_AT = 32, /* u64   size of what is packed */
    IQ_PACK_BLOCK_AT = 40, /* u32   IQ_PACK_BLOCK: so much of it is in each block but the last */
    IQ_PACK_HEAD_SIZE = 64,
    IQ_PACK_BLOCK = 65536,
    IQ_PACK_RATIO = 64, /* a block fills at least 1 / IQ_PACK_RATIO of what it holds, with zeros behind it */
    /* Behind the blocks: u32 a block: bytes it is packed into; as many as it holds: it is not packed. */

    IQ_FOOTER_NUMBER_AT = 32,    /* u64   <n> */
    IQ_FOOTER_BLOCKS_AT = 40,    /* u64   blocks before the table */
    IQ_FOOTER_LIST_AT = 48,      /* u64   offset of the list of sections, a multiple of IQ_SNAPSHOT_ALIGN */
    IQ_FOOTER_SECTIONS_AT = 56,  /* u32   sections */
    IQ_FOOTER_ROOTS_CRC_AT = 60, /* u32   of the roots, zeros included */
    IQ_FOOTER_SIZE = 64
};

IQ_STATIC_ASSERT(IQ_META_MODEL_SIZE == IQDB_MODEL_SIZE_MAX + 1, meta_model);
IQ_STATIC_ASSERT(IQ_META_SNAPSHOT_AT + IQ_META_SNAPSHOT_MAX * IQ_META_SNAPSHOT_SIZE <= IQ_META_LOG_AT, meta_snapshots);
IQ_STATIC_ASSERT(IQ_META_LOG_AT + IQ_META_LOG_MAX * IQ_META_LOG_SIZE <= IQ_META_KEYS_AT, meta_logs);
IQ_STATIC_ASSERT(IQ_META_KEYS_AT + IQ_META_KEYS_SIZE <= IQ_META_SLOT_SIZE, meta_keys);
IQ_STATIC_ASSERT(IQ_FRAME_PIECE_MAX % 8 == 0 && IQ_FRAME_SIZE_MIN % 8 == 0, frame_multiple);
IQ_STATIC_ASSERT(IQ_FRAME_HEADER_SIZE + IQ_FRAME_LENGTH_MAX <= 11450, frame_distance);

#endif
