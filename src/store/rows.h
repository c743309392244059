/* Records in memory: rows in slabs that never move. What a scan streams of a row (vector, norm) stands in arrays of its
 * own; all else in its head, so that a look at one row costs one cache miss beside its vector. A vector never changes
 * in place: a replacement is a new row, and the old one is buried by its death. One thread writes; any number read what
 * it has filled. */
#ifndef IQ_STORE_ROWS_H
#define IQ_STORE_ROWS_H

#include "base/alloc.h"
#include "kernel/kernel.h"
#include "store/epoch.h"
#include "sys/sys.h"

#define IQ_ROW_NONE 0xFFFFFFFFu
#define IQ_ROW_COUNT_MAX 0xFFFFFFFEu

/* Rows per slab double from the first and then stay, so that a small database is small: 16, 16, 32, ... up to
 * 2^slab_shift, which is what fits in IQ_SLAB_BYTES_MAX, so that a large one has large pages, but at least 2^10. */
#define IQ_SLAB_ROWS_MIN 16u
#define IQ_SLAB_SHIFT_MIN 10u
#define IQ_SLAB_SHIFT_MAX 16u
#define IQ_SLAB_BYTES_MAX (8u << 20)

typedef struct iq_row_head {
    uint64_t id;
    uint64_t birth;    /* moment from which the row is seen; IQ_MOMENT_NEVER while free or staged */
    uint64_t death;    /* atomic: moment from which it is not; IQ_MOMENT_NEVER while live */
    uint64_t payload;  /* reference into the payload heap, 0 for none */
    uint32_t previous; /* atomic: older row of the same id, or the next free row; IQ_ROW_NONE ends either chain */
    uint32_t next;     /* the writer's: newer row of the same id */
} iq_row_head;

typedef struct iq_slab {
    float *vectors; /* 64-byte aligned, stride floats a row, zeros behind dim */
    float *norms;
    uint32_t *filled; /* atomic, a bit a row: the row may be read; 32 rows a word, the lowest bit first */
    iq_row_head *heads;
} iq_slab;

typedef struct iq_rows {
    const iqdb_allocator *allocator;
    uint32_t dim;  /* 0 until the first record */
    size_t stride; /* floats */
    uint32_t slab_shift;
    iq_slab *slabs; /* atomic: a table */
    size_t slab_count;
    uint32_t count; /* atomic, stored after the slab: rows ever used */
    uint32_t free_head, free_count;
    uint64_t bytes; /* held by slabs */
    iq_slab lent;   /* vectors and norms of all rows, where they are somebody else's and stay there; else NULL */
} iq_rows;

IQ_FN void iq_rows_init(iq_rows *rows, const iqdb_allocator *allocator);
IQ_FN void iq_rows_free(iq_rows *rows);
/* Only while there are no rows. */
IQ_FN void iq_rows_set_dim(iq_rows *rows, uint32_t dim);

/* Slabs for so many rows in all, at most IQ_ROW_COUNT_MAX; needs a dimension. NOMEM keeps those that were made. Where
 * `lent` is set, they get only heads, and no row may be taken. */
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

/* The number of the slab a row lies in, and its place there. */
IQ_INLINE size_t iq_slab_of_row(const iq_rows *rows, uint32_t row, uint32_t *out_index) {
    const uint32_t whole = row >> rows->slab_shift;
    if (IQ_LIKELY(whole > 0)) {
        *out_index = row & ((UINT32_C(1) << rows->slab_shift) - 1);
        return (size_t)whole + rows->slab_shift - 4;
    }
    *out_index = row;
    if (row < IQ_SLAB_ROWS_MIN) return 0;
    const unsigned doublings = iq_log2_u32(row);
    *out_index = row - (UINT32_C(1) << doublings);
    return doublings - 3;
}
IQ_INLINE const iq_slab *iq_rows_slab(const iq_rows *rows, uint32_t row, uint32_t *out_index) {
    const iq_slab *slabs = IQ_ATOMIC_LOAD(&rows->slabs);
    return &slabs[iq_slab_of_row(rows, row, out_index)];
}

/* The number of rows of a slab, and its first row. */
IQ_INLINE uint32_t iq_slab_rows(const iq_rows *rows, size_t slab) {
    if (slab == 0) return IQ_SLAB_ROWS_MIN;
    return slab + 4 <= rows->slab_shift ? IQ_SLAB_ROWS_MIN << (slab - 1) : UINT32_C(1) << rows->slab_shift;
}
IQ_INLINE uint64_t iq_slab_first_row(const iq_rows *rows, size_t slab) {
    if (slab + 4 <= rows->slab_shift) return slab == 0 ? 0 : IQ_SLAB_ROWS_MIN << (slab - 1);
    return (uint64_t)(slab + 4 - rows->slab_shift) << rows->slab_shift;
}

IQ_INLINE bool iq_row_visible(const iq_slab *slab, uint32_t index, uint64_t moment) {
    return slab->heads[index].birth <= moment && moment < IQ_ATOMIC_LOAD(&slab->heads[index].death);
}
/* For the writer: whether the row is the present record of its id. */
IQ_INLINE bool iq_row_is_live(const iq_slab *slab, uint32_t index) {
    return slab->heads[index].birth != IQ_MOMENT_NEVER && slab->heads[index].death == IQ_MOMENT_NEVER;
}

#endif
