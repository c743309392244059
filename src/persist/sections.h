#ifndef IQ_PERSIST_SECTIONS_H
#define IQ_PERSIST_SECTIONS_H
/* Kinds of sections of a collection. */
#define IQ_SECTION_CATALOG 1u      /* IQ_CATALOG_SIZE bytes, below */
#define IQ_SECTION_IDS 2u          /* u64 a row */
#define IQ_SECTION_VECTORS 3u      /* f32 x stride a row; stride: dim rounded up to 16, zeros behind dim */
#define IQ_SECTION_NORMS 4u        /* f32 a row */
#define IQ_SECTION_PAYLOAD_REFS 5u /* u64 a row: offset of its block in PAYLOADS, 0 for none */
#define IQ_SECTION_PAYLOADS 6u     /* 8 zeros, then blocks in row order: u32 size, payload, zeros to the block size */

/* The catalog of a collection. */
#define IQ_CATALOG_DIM 0      /* u32, 0 while there never was a record */
#define IQ_CATALOG_METRIC 4   /* u32, iqdb_metric */
#define IQ_CATALOG_ELEMENT 8  /* u32, 0 = f32 */
#define IQ_CATALOG_ZERO 12    /* u32 0 */
#define IQ_CATALOG_ROWS 16    /* u64 */
#define IQ_CATALOG_SPARE 24   /* u64 0 */
#define IQ_CATALOG_SIZE 32
#endif
