#ifndef IQ_PERSIST_SECTIONS_H
#define IQ_PERSIST_SECTIONS_H
/* Byte tables of what is in sections. Collections and kinds are in the list that persist/format.h describes. */
enum {
    /* Kinds of sections of a collection. */
    IQ_SECTION_CATALOG = 1, /* IQ_CATALOG_SIZE bytes, below */
    IQ_SECTION_IDS = 2,     /* u64 a row */
    IQ_SECTION_VECTORS = 3, /* a row: its elements, little-endian, and zeros to a multiple of 64 bytes, of bits 8 */
    IQ_SECTION_NORMS = 4,   /* f32 a row */
    IQ_SECTION_PAYLOAD_REFS = 5, /* u64 a row: offset of its block in PAYLOADS, 0 for none */
    IQ_SECTION_PAYLOADS = 6,     /* 8 zeros, then blocks in row order: u32 size, payload, zeros to the block size */
    IQ_SECTION_DELETED = 7,      /* u64 an id whose record went before that of a row, if any, came; only in a delta */
    /* What is made from these, and only in a base: marked as IQ_SECTION_DERIVED. */
    IQ_SECTION_CODES = 8,     /* IQ_CODES_HEAD bytes, below; then blocks of 16 rows, as kernel/codes.h has them, zeros
                             behind the last row */
    IQ_SECTION_INDEX = 9,     /* u32 IQ_INDEX_TAG_..; and what that says */
    IQ_SECTION_ID_TABLE = 11, /* u64 a place: 0, or, in the high half, the tag of an id: the high half of its hash in
                               * base/hash.h, or 1 where that is 0; and one more than the ordinal of its row. An id is at
                               * place tag x places / 2^32, or behind it, going around, before a place that is 0 */
    IQ_SECTION_CHOICE = 10,   /* IQ_CHOICE_SIZE bytes of codec/record.h, once iqdb_reindex was called;
                               * right behind the catalog */
    IQ_SECTION_KEYS = 13,     /* of another collection than 0, behind all others that it has: its set of keys, as
                               * codec/record.h has it, where it indexes any. Likewise left aside */
    IQ_SECTION_MODEL = 12,    /* of collection 0, behind all others that it has, where a model is known: its tag, as
                               * META has it, without zeros. Who does not know the kind leaves it aside */

    /* The catalog of a collection. Its name follows; that of 0 is followed by a u32, once there was another one: the
     * number of the next that will be made. A snapshot, a delta too, has the catalog of each collection that there is. */
    IQ_CATALOG_DIM = 0,      /* u32, 0 while there never was a record */
    IQ_CATALOG_METRIC = 4,   /* u32, iqdb_metric */
    IQ_CATALOG_ELEMENT = 8,  /* u32, iqdb_element */
    IQ_CATALOG_DELETED = 12, /* u32 ids in DELETED; they may repeat */
    IQ_CATALOG_ROWS = 16,    /* u64 */
    IQ_CATALOG_RECORDS = 24, /* u64 of a delta: records there are, with those of the snapshots before it; of a base 0 */
    IQ_CATALOG_SIZE = 32,

    /* Codes. Behind the head of narrow ones lies their basis: the centre and the vectors, dim f32 each, at the stride of
     * rows of f32, with zeros behind; then the blocks. */
    IQ_CODES_TAG_AT = 0,   /* u32 IQ_CODES_TAG_NIBBLES or _NARROW */
    IQ_CODES_DIM_AT = 4,   /* u32 of the collection */
    IQ_CODES_UNIT_AT = 8,  /* u32 1: rows were divided by their norms */
    IQ_CODES_ROWS_AT = 12, /* u32 */
    IQ_CODES_DIMS_AT = 16, /* u32 of the basis; else 0 */
    IQ_CODES_HEAD = 64,
    IQ_CODES_TAG_NIBBLES = 1,
    IQ_CODES_TAG_NARROW = 2,

    IQ_INDEX_TAG_LISTS = 1,
    IQ_INDEX_TAG_GRAPH = 2,
    IQ_INDEX_TAG_CUSTOM = 3,

    /* Lists. A row goes by its place among the rows of the snapshot. Behind the head lie the centres, their number rounded
     * up to 16: f32 x stride each, and, where they are coded, their codes in blocks of 16; then u32 a list, how many rows
     * it has, and zeros to a multiple of 16 lists; then, list by list, these rows in parts: as many as are more than a
     * multiple of 256, and 256s. A part: u32 a row, and its place; u32 a row, and the list of its other copy, or 2^32 - 1,
     * the highest bit set in the second copy; both with zeros to a multiple of 16 rows; then codes in blocks of 16. */
    IQ_LISTS_COUNT_AT = 4,    /* u32 lists */
    IQ_LISTS_DIM_AT = 8,      /* u32 */
    IQ_LISTS_CODED_AT = 12,   /* u32 1: there are codes */
    IQ_LISTS_WANTED_AT = 16,  /* u32 lists that were wanted, 0: by the number of rows */
    IQ_LISTS_TRAINED_AT = 20, /* u32 rows there were when centres were made */
    IQ_LISTS_LENGTH_AT = 24,  /* f32 of a row, about */
    IQ_LISTS_SPILL_AT = 28,   /* f32 loss up to which a row gets a second copy */
    IQ_LISTS_PROBES_AT = 32,  /* 4 x u32 lists to read for recalls of .90, .95, .99 and the next; 0: not known */
    IQ_LISTS_WISH_AT = 48,    /* f32 recall that is wished for, 0: none */
    IQ_LISTS_STRETCH_AT = 52, /* f32 what the queries shown take, times what rows do, 0: none were shown */
    IQ_LISTS_CAME_AT = 56,    /* u32 rows taken in since centres were made */
    IQ_LISTS_HEAD = 64,

    /* A graph. Behind the head 3 x f32 a dimension of its codes: the centre, and two runs of signs; zeros to a multiple of
     * 64; the node that walks start from, of row 2^32 - 1; and a node for each row that is in it. A node is what iq_node of
     * index/graph.h says, links being places, 2^32 - 1 where there is none, then its codes, a multiple of 64 bytes. */
    IQ_GRAPH_DIMS_AT = 4, /* u32 of codes: dim rounded up to 64 */
    IQ_GRAPH_M_AT = 8,    /* u32, as is the next, a knob */
    IQ_GRAPH_EF_AT = 12,
    IQ_GRAPH_SEED_AT = 16,       /* u64 */
    IQ_GRAPH_BORN_AT = 24,       /* u64 nodes there ever were */
    IQ_GRAPH_SCALE_AT = 32,      /* f32 that elements are multiplied by */
    IQ_GRAPH_CALIBRATED_AT = 36, /* u32 nodes at the last calibration */
    IQ_GRAPH_BEAMS_AT = 40,      /* 4 x u32 for recalls of .90, .95, .99 and the next; 0: not known */
    IQ_GRAPH_WISH_AT = 56,       /* f32 recall that is wished for, 0: none */
    IQ_GRAPH_STRETCH_AT = 60,    /* f32 as of lists */
    IQ_GRAPH_HEAD = 64,

    /* An index of the caller's: behind the head what it has written; and u32 1, or 0 where that is not whole. */
    IQ_CUSTOM_NAME_AT = 4, /* its name, and zeros: 32 bytes */
    IQ_CUSTOM_HEAD = 64
};

#endif
