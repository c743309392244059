#ifndef IQ_PERSIST_SECTIONS_H
#define IQ_PERSIST_SECTIONS_H
enum {
    /* Kinds of sections of a collection. */
    IQ_SECTION_CATALOG = 1,      /* IQ_CATALOG_SIZE bytes, below */
    IQ_SECTION_IDS = 2,          /* u64 a row */
    IQ_SECTION_VECTORS = 3,      /* f32 x stride a row; stride: dim rounded up to 16, zeros behind dim */
    IQ_SECTION_NORMS = 4,        /* f32 a row */
    IQ_SECTION_PAYLOAD_REFS = 5, /* u64 a row: offset of its block in PAYLOADS, 0 for none */
    IQ_SECTION_PAYLOADS = 6,     /* 8 zeros, then blocks in row order: u32 size, payload, zeros to the block size */

    /* The catalog of a collection. */
    IQ_CATALOG_DIM = 0,     /* u32, 0 while there never was a record */
    IQ_CATALOG_METRIC = 4,  /* u32, iqdb_metric */
    IQ_CATALOG_ELEMENT = 8, /* u32, 0 = f32 */
    IQ_CATALOG_ZERO = 12,   /* u32 0 */
    IQ_CATALOG_ROWS = 16,   /* u64 */
    IQ_CATALOG_SPARE = 24,  /* u64 0 */
    IQ_CATALOG_SIZE = 32
};

#endif
