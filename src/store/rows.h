/* Records in memory: rows in slabs that never move, each row in parallel arrays. A vector never changes in place: a
 * replacement is a new row, and the old one is buried by its death. One thread writes; any number read what it has
 * filled. */
#ifndef IQ_STORE_ROWS_H
#define IQ_STORE_ROWS_H

#include "base/alloc.h"
#include "kernel/kernel.h"
#include "store/epoch.h"

#define IQ_ROW_NONE 0xFFFFFFFFu
#define IQ_ROW_COUNT_MAX 0xFFFFFFFEu

/* Rows per slab double from the first to the last of these and then stay, so that a small database is small. */
#define IQ_SLAB_ROWS_MIN 16u
#define IQ_SLAB_ROWS_MAX 1024u
#define IQ_SLAB_GROWING 6u /* slabs that hold the first IQ_SLAB_ROWS_MAX rows, less one */

typedef struct iq_slab {
    float *vectors; /* 64-byte aligned, stride floats a row, zeros behind dim */
    float *norms;
    uint32_t *previous; /* atomic: older row of the same id, or the next free row; IQ_ROW_NONE ends either chain */
    uint32_t *next;     /* the writer's: newer row of the same id */
    uint32_t *filled;   /* atomic, a bit a row: the row may be read; 32 rows a word, the lowest bit first */
    uint64_t *ids;
    uint64_t *births;   /* moment from which the row is seen; IQ_MOMENT_NEVER while free or staged */
    uint64_t *deaths;   /* atomic: moment from which it is not; IQ_MOMENT_NEVER while live */
    uint64_t *payloads; /* reference into the payload heap, 0 for none */
} iq_slab;

typedef struct iq_rows {
    const iqdb_allocator *allocator;
    uint32_t dim;   /* 0 until the first record */
    size_t stride;  /* floats */
    iq_slab *slabs; /* atomic: a table */
    size_t slab_count;
    uint32_t count; /* atomic, stored after the slab: rows ever used */
    uint32_t free_head, free_count;
    uint64_t bytes; /* held by slabs */
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
/* Readers may read the row, which is written whole; or no new reader may. */
IQ_FN void iq_rows_set_filled(const iq_slab *slab, uint32_t index, bool filled);
/* A row that nobody can read any more. */
IQ_FN void iq_rows_give_back(iq_rows *rows, uint32_t row);

/* The first row in [from, end) of a slab that is filled, or that is not; `end` where there is none. */
IQ_FN uint32_t iq_slab_seek(const iq_slab *slab, uint32_t from, uint32_t end, bool filled);

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

/* The number of the slab a row lies in: 0, or that of the row's highest bit, or by division. */
IQ_INLINE size_t iq_slab_of_row(uint32_t row) {
    if (IQ_LIKELY(row >= IQ_SLAB_ROWS_MAX)) return IQ_SLAB_GROWING + row / IQ_SLAB_ROWS_MAX;
    size_t slab = 0;
    for (row /= IQ_SLAB_ROWS_MIN; row != 0; row /= 2) slab++;
    return slab;
}

/* The slab a row lies in, and its place there. */
IQ_INLINE const iq_slab *iq_rows_slab(const iq_rows *rows, uint32_t row, uint32_t *out_index) {
    const iq_slab *slabs = IQ_ATOMIC_LOAD(&rows->slabs);
    const size_t slab = iq_slab_of_row(row);
    *out_index = row - iq_slab_first_row(slab);
    return &slabs[slab];
}

IQ_INLINE bool iq_row_visible(const iq_slab *slab, uint32_t index, uint64_t moment) {
    return slab->births[index] <= moment && moment < IQ_ATOMIC_LOAD(&slab->deaths[index]);
}
/* For the writer: whether the row is the present record of its id. */
IQ_INLINE bool iq_row_is_live(const iq_slab *slab, uint32_t index) {
    return slab->births[index] != IQ_MOMENT_NEVER && slab->deaths[index] == IQ_MOMENT_NEVER;
}

#endif
