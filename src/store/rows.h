/* Records in memory: rows in slabs that never move, each row in parallel arrays. A vector never changes in place: a
 * replacement is a new row, and the old one is buried by its death. */
#ifndef IQ_STORE_ROWS_H
#define IQ_STORE_ROWS_H

#include "base/alloc.h"
#include "kernel/kernel.h"

#define IQ_ROW_NONE 0xFFFFFFFFu
#define IQ_ROW_COUNT_MAX 0xFFFFFFFEu
#define IQ_LSN_NEVER UINT64_MAX

/* Rows per slab double from the first to the last of these and then stay, so that a small database is small. */
#define IQ_SLAB_ROWS_MIN 16u
#define IQ_SLAB_ROWS_MAX 1024u
#define IQ_SLAB_GROWING 6u /* slabs that hold the first IQ_SLAB_ROWS_MAX rows, less one */

typedef struct iq_slab {
    float *vectors; /* 64-byte aligned, stride floats a row, zeros behind dim */
    float *norms;
    uint32_t *previous; /* older row of the same id, or the next free row; IQ_ROW_NONE ends either chain */
    uint64_t *ids;
    uint64_t *births;   /* LSN from which the row is seen; IQ_LSN_NEVER while free or staged */
    uint64_t *deaths;   /* LSN from which it is not; IQ_LSN_NEVER while live */
    uint64_t *payloads; /* reference into the payload heap, 0 for none */
} iq_slab;

typedef struct iq_rows {
    const iqdb_allocator *allocator;
    uint32_t dim;    /* 0 until the first record */
    size_t stride;   /* floats */
    iq_slab *slabs;
    size_t slab_count, slab_capacity;
    uint32_t count;  /* rows ever used: all below may be looked at */
    uint32_t free_head, free_count;
    uint64_t bytes;  /* held by slabs */
} iq_rows;

IQ_FN void iq_rows_init(iq_rows *rows, const iqdb_allocator *allocator);
IQ_FN void iq_rows_free(iq_rows *rows);
/* Only while there are no rows. */
IQ_FN void iq_rows_set_dim(iq_rows *rows, uint32_t dim);

/* Slabs for so many rows in all, at most IQ_ROW_COUNT_MAX; needs a dimension. NOMEM keeps those that were made. */
IQ_FN iqdb_result iq_rows_reserve(iq_rows *rows, uint32_t count);

/* A row that nobody sees, its vector zeroed behind dim: a free one, or a new one. NOMEM; LIMIT beyond
 * IQ_ROW_COUNT_MAX. */
IQ_FN iqdb_result iq_rows_take(iq_rows *rows, uint32_t *out_row);
/* A row that nobody can see any more. */
IQ_FN void iq_rows_give_back(iq_rows *rows, uint32_t row);

/* The slab a row lies in, and its place there. */
IQ_INLINE const iq_slab *iq_rows_slab(const iq_rows *rows, uint32_t row, uint32_t *out_index) {
    if (IQ_LIKELY(row >= IQ_SLAB_ROWS_MAX)) {
        *out_index = row % IQ_SLAB_ROWS_MAX;
        return &rows->slabs[IQ_SLAB_GROWING + row / IQ_SLAB_ROWS_MAX];
    }
    uint32_t slab = 0, first = 0, size = IQ_SLAB_ROWS_MIN;
    while (row >= first + size) {
        first += size;
        if (slab > 0) size *= 2;
        slab++;
    }
    *out_index = row - first;
    return &rows->slabs[slab];
}

/* The first row and the number of rows of a slab. */
IQ_INLINE uint32_t iq_slab_first_row(size_t slab) {
    if (slab == 0) return 0;
    if (slab <= IQ_SLAB_GROWING) return IQ_SLAB_ROWS_MIN << (slab - 1);
    return (uint32_t)(slab - IQ_SLAB_GROWING) * IQ_SLAB_ROWS_MAX;
}
IQ_INLINE uint32_t iq_slab_rows(size_t slab) {
    if (slab == 0) return IQ_SLAB_ROWS_MIN;
    if (slab <= IQ_SLAB_GROWING) return IQ_SLAB_ROWS_MIN << (slab - 1);
    return IQ_SLAB_ROWS_MAX;
}

IQ_INLINE bool iq_row_visible(const iq_slab *slab, uint32_t index, uint64_t lsn) {
    return slab->births[index] <= lsn && lsn < slab->deaths[index];
}

#endif
