/* Records in memory: rows in slabs that never move. What a scan streams of a row (vector, norm) stands in arrays of its
 * own; all else in its head, so that a look at one row costs one cache miss beside its vector. A vector never changes
 * in place: a replacement is a new row, and the old one is buried by its death. One thread writes; any number read what
 * it has filled. Beside the rows lie their codes, in blocks of 16 rows; the row of a code is found by counting. */
#ifndef IQ_STORE_ROWS_H
#define IQ_STORE_ROWS_H

#include "base/alloc.h"
#include "kernel/quant.h"
#include "store/epoch.h"
#include "sys/limit.h"
#include "sys/sys.h"

#define IQ_ROW_NONE 0xFFFFFFFFu
#define IQ_ROW_COUNT_MAX 0xFFFFFFFEu

/* Rows per slab double from the first and then stay, so that a small database is small: 16, 16, 32, ... up to
 * 2^slab_shift, which is what fits in IQ_SLAB_BYTES_MAX, so that a large one has large pages, but at least 2^10. */
#define IQ_SLAB_FIRST_SHIFT 4u
#define IQ_SLAB_SHIFT_MIN 10u
#define IQ_SLAB_SHIFT_MAX 16u
#define IQ_SLAB_BYTES_MAX (8u << 20)

/* What every look at a row wants: half a cache line, so that none lies in two. */
typedef struct iq_row_head {
    uint64_t id;
    uint64_t birth;   /* moment from which the row is seen; IQ_MOMENT_NEVER while free or staged */
    uint64_t death;   /* atomic: moment from which it is not; IQ_MOMENT_NEVER while live */
    uint64_t payload; /* reference into the payload heap, 0 for none */
} iq_row_head;

typedef struct iq_row_links {
    uint32_t previous; /* atomic: older row of the same id, or the next free row; IQ_ROW_NONE ends either chain */
    uint32_t next;     /* the writer's: newer row of the same id */
} iq_row_links;

typedef struct iq_slab {
    float
        *vectors; /* elements of any kind, 64-byte aligned, stride floats or what takes their place a row, then zeros */
    float *norms;
    uint32_t *filled;   /* atomic, a bit a row: the row may be read; 32 rows a word, the lowest bit first */
    uint32_t *indexed;  /* atomic, a bit a row: it is filled, and an index finds it */
    uint32_t *fresh;    /* atomic: the number of those that are filled and not indexed */
    iq_row_head *heads; /* atomic; of lent rows, of which the ids and payloads here are not read, NULL until one dies */
    iq_row_links *links;
    const uint8_t *ids, *payloads; /* of lent rows, u64 each, little-endian; else NULL */
    /* Where rows have codes: */
    uint8_t *blocks;
    uint32_t *narrow;  /* atomic: not 0 where codes are those of rows->narrow. Set while none of them may be read */
    uint32_t *coded;   /* atomic, a bit a row: its code may be read. Nobody writes into a block that has any of them */
    uint32_t *encoded; /* the writer's, a bit a row: its code is written */
    uint64_t *opened;  /* the writer's, one a block: the moment at which readers saw it last */
} iq_slab;

/* Rows that lie in memory of somebody else, who stays: the first of all, with what belongs to them. They are only read, and
 * never given back: what dies is noted in heads of our own. Before the first look at some of them they have to be found
 * sound, a unit at a time, by whoever looks; any number of threads may do that at once. A small build has none but those
 * of a blob, all of which were found sound when it was opened, and which nobody writes to. */
enum {
    IQ_LENT_ROWS,  /* vector, norm, id, payload */
    IQ_LENT_CODES, /* of these rows */
    IQ_LENT_PLACES,
    IQ_LENT_PARTS,
    IQ_LENT_ROWS_UNIT = 64, /* rows, */
    IQ_LENT_CODES_UNIT = 1024,
    IQ_LENT_PLACES_UNIT = 1024 /* and places, that are one unit */
};
typedef struct iq_lent {
    uint32_t count; /* 0: no row is lent */
    uint32_t end;   /* the first row behind their slabs */
    uint32_t gone;  /* of these rows, so many nobody sees any more */
    float *vectors, *norms;
    const uint8_t *ids, *payloads;
    uint8_t *codes;                 /* blocks, or NULL */
    bool narrow;                    /* which are so */
    const uint8_t *places;          /* NULL, or u64 each, little-endian: a table of their ids, as in store/ids.c */
    size_t place_count;             /* not 0 where there are any */
    const uint8_t *heap;            /* that the payloads are references into */
    size_t heap_size;               /* of it */
    uint32_t *sound[IQ_LENT_PARTS]; /* atomic, a bit a unit: it may be looked at */
    bool (*touch_fn)(void *user, uint32_t part, uint32_t unit); /* whether it may; then it sets the bit */
    void *user;
    void *memory; /* of the bits of slabs, and of these */
    size_t memory_size;
} iq_lent;

typedef struct iq_rows {
    const iqdb_allocator *allocator;
    uint32_t dim;                     /* 0 until the first record */
    size_t stride;                    /* floats, or words of as many bits */
    const iq_kernel *sums;            /* that of the element, once there are a dimension and `kernel` */
    uint32_t slab_shift, first_shift; /* of the rows of the largest slab and of the first one */
    uint32_t row_max;                 /* rows there may be */
    iq_slab *slabs;                   /* atomic: a table */
    size_t slab_count;
    uint32_t room;                 /* rows in slabs, but row_max at most */
    uint32_t count;                /* atomic, stored after the slab: rows ever used */
    uint32_t free_head, free_tail; /* what has been free for longest is taken first: its block is read by nobody then */
    uint32_t fresh;                /* atomic: of all slabs together */
    uint64_t bytes;                /* held by slabs */
    iq_lent lent;
    const iq_kernel *kernel; /* that of f32, which encodes */
    iqdb_element element;
    iqdb_metric coded_for; /* searches by this metric are helped by codes; DEFAULT: there are none */
    iq_quant quant;
    iq_quant narrow; /* its basis is atomic: NULL until there is one, which stays */
    iq_basis basis;  /* it */
    float *basis_memory;
    iq_basis_maker *maker; /* one in the making, or NULL */
    uint32_t made_of;      /* rows there were when one was tried last */
    uint32_t narrow_slabs; /* that tending has made */
    void *scratch;         /* to encode with */
    uint64_t safe;         /* nobody reads blocks that were opened before this moment */
    uint32_t tended;       /* the row at which tending goes on */
    uint32_t untended;     /* so many rows, until all have been looked at since there was something to do */
    uint32_t missed;       /* rows filled without a code since it last went on */
} iq_rows;

#define IQ_ROWS_CODED_DIM_MAX 4096u /* what longer vectors are encoded with would be more than they are */
IQ_INLINE bool iq_rows_have_codes(const iq_rows *rows) { return !IQ_SMALL && rows->quant.dim != 0; }
/* Of a row, and its part of what belongs to the block. */
IQ_INLINE size_t iq_rows_code_bytes(const iq_rows *rows) {
    return iq_rows_have_codes(rows) ? iq_quant_block_bytes(&rows->quant) / IQ_CODES_ROWS + 1 : 0;
}

/* With codes where `coded_for` and `kernel` are set before the dimension is; and of this element. */
IQ_FN void iq_rows_init(iq_rows *rows, const iqdb_allocator *allocator);
IQ_FN void iq_rows_free(iq_rows *rows);
/* Only while there are no rows. */
IQ_FN void iq_rows_set_dim(iq_rows *rows, uint32_t dim);

/* Slabs for so many rows in all, once there is a dimension. NOMEM, also beyond a row_max that memory sets, keeps those
 * that were made; LIMIT beyond IQ_ROW_COUNT_MAX. */
IQ_FN iqdb_result iq_rows_reserve(iq_rows *rows, size_t count);

/* The first rows are lent, filled, with codes where `lent` has any; nothing of them is read yet. From `lent` come its
 * count and what lies elsewhere. There are no rows, but a dimension. */
IQ_FN iqdb_result iq_rows_lend(iq_rows *rows, const iq_lent *lent);
/* All units are sound. */
IQ_FN void iq_rows_believe(iq_rows *rows);
/* Heads for the slab of a lent row, all of whose rows live on; NOMEM. The id and payload in its head are set. */
IQ_FN iqdb_result iq_rows_own(iq_rows *rows, uint32_t row);
IQ_FN void iq_lent_set_sound(const iq_lent *lent, uint32_t part, uint32_t unit);
/* Whether all units of a part that have some of [first, first + count) are sound. */
IQ_FN bool iq_lent_touch_all(const iq_lent *lent, uint32_t part, uint64_t first, uint64_t count);
/* A number of what is lent, which big-endian machines cannot be. */
IQ_INLINE uint64_t iq_lent_u64(const uint8_t *numbers, size_t index) {
    uint64_t number;
    memcpy(&number, numbers + index * 8, sizeof number);
    return number;
}
IQ_INLINE uint32_t iq_lent_unit(uint32_t part) { return part == IQ_LENT_ROWS ? IQ_LENT_ROWS_UNIT : IQ_LENT_CODES_UNIT; }
IQ_INLINE bool iq_lent_touch(const iq_lent *lent, uint32_t part, uint32_t unit) {
    return IQ_LIKELY((IQ_ATOMIC_LOAD(&lent->sound[part][unit / 32]) >> unit % 32 & 1) != 0) ||
           lent->touch_fn(lent->user, part, unit);
}
/* Whether the row may be looked at: one that is lent may be damaged. */
IQ_INLINE bool iq_rows_touch(const iq_rows *rows, uint32_t row) {
    return IQ_SMALL || IQ_LIKELY(row >= rows->lent.count) ||
           iq_lent_touch(&rows->lent, IQ_LENT_ROWS, row / IQ_LENT_ROWS_UNIT);
}
/* Whether rows [first, first + count), or their codes, may. */
IQ_INLINE bool iq_rows_touch_all(const iq_rows *rows, uint32_t part, uint32_t first, uint32_t count) {
    return IQ_SMALL || IQ_LIKELY(first >= rows->lent.count) || iq_lent_touch_all(&rows->lent, part, first, count);
}

/* A row that nobody sees, its vector zeroed behind dim: a free one, or a new one. NOMEM; LIMIT beyond
 * IQ_ROW_COUNT_MAX. */
IQ_FN iqdb_result iq_rows_take(iq_rows *rows, uint32_t *out_row);
/* Readers may read the row, which is written whole, and its code once its block is complete. */
IQ_FN void iq_rows_fill(iq_rows *rows, const iq_slab *slab, uint32_t index);
/* An index finds the filled row, or, where it is given up, none does any more. */
IQ_FN void iq_rows_set_indexed(iq_rows *rows, const iq_slab *slab, uint32_t index, bool indexed);
/* No index finds any of them any more. */
IQ_FN void iq_rows_forget_indexed(iq_rows *rows);
/* No new reader may, from the moment behind `now` on. */
IQ_FN void iq_rows_clear(iq_rows *rows, const iq_slab *slab, uint32_t index, uint64_t now);
/* Brings the codes of so many blocks up to date, going around: those of rows that took the place of others are written,
 * and blocks with free rows are given to readers again, young ones too where it is `all`. `oldest` is that of
 * the epoch at `now`, a moment. */
IQ_FN void iq_rows_tend(iq_rows *rows, uint64_t oldest, uint64_t now, size_t block_count, bool all);
/* The writer's: the code of a filled row as row `place` of blocks elsewhere; and whether it is what its vector gives, in
 * these, or where it lies, if it has one. */
IQ_FN void iq_rows_put_code(const iq_rows *rows, const iq_slab *slab, uint32_t index, uint8_t *blocks, uint32_t place);
IQ_FN bool iq_rows_code_is(const iq_rows *rows, const iq_slab *slab, uint32_t index, const uint8_t *blocks,
                           uint32_t place);
IQ_FN bool iq_rows_code_agrees(const iq_rows *rows, const iq_slab *slab, uint32_t index);
/* The same as `quant`, rows->quant or rows->narrow, has it. */
IQ_FN void iq_rows_put_code_as(const iq_rows *rows, const iq_quant *quant, const iq_slab *slab, uint32_t index,
                               uint8_t *blocks, uint32_t place);
/* The writer's: a block to make elsewhere, spare until the next of these two. */
IQ_FN uint8_t *iq_rows_spare_block(const iq_rows *rows);
/* The codes of rows [index, index + count) are written already; they are filled next. All of a slab are of one kind. */
IQ_FN void iq_rows_adopt_codes(const iq_slab *slab, uint32_t index, uint32_t count, bool narrow);

/* What narrow codes need. iq_rows_work_at_basis goes on making one, where rows are many and one would serve, until the
 * limit; whether it came to an end. Then tending makes codes narrow, slab by slab. `memory` of iq_basis_bytes, by
 * iq_rows_basis_memory, is taken over, or freed where it is no basis: then false. */
IQ_FN bool iq_rows_work_at_basis(iq_rows *rows, iq_limit *limit);
IQ_FN float *iq_rows_basis_memory(const iq_rows *rows, uint32_t dims);
IQ_FN bool iq_rows_set_basis(iq_rows *rows, uint32_t dims, float *memory);
/* Of the codes in a slab. */
IQ_INLINE const iq_quant *iq_slab_quant(const iq_rows *rows, const iq_slab *slab) {
    return IQ_ATOMIC_LOAD(slab->narrow) != 0 ? &rows->narrow : &rows->quant;
}
/* Whether tending has something to make narrow: a slab all of whose rows have been used. */
IQ_FN bool iq_rows_are_plain(const iq_rows *rows);
/* A row that nobody can read any more. */
IQ_FN void iq_rows_give_back(iq_rows *rows, uint32_t row);

/* The first bit in [from, end) that is set, or that is not; `end` where there is none. */
IQ_FN uint32_t iq_bits_seek(const uint32_t *words, uint32_t from, uint32_t end, bool set);
/* Of words with a bit a row, those of up to 32 rows [from, end). */
IQ_INLINE uint32_t iq_bits_at(const uint32_t *words, uint32_t from, uint32_t end) {
    uint64_t bits = IQ_ATOMIC_LOAD(&words[from / 32]);
    if (from / 32 < (end - 1) / 32) bits |= (uint64_t)IQ_ATOMIC_LOAD(&words[from / 32 + 1]) << 32;
    bits >>= from % 32;
    return (uint32_t)(end - from < 32 ? bits & ((UINT64_C(1) << (end - from)) - 1) : bits);
}
IQ_INLINE uint32_t iq_block_bits(const uint32_t *words, uint32_t first) {
    return iq_bits_at(words, first, first + IQ_CODES_ROWS);
}

/* The number of the slab a row lies in, and its place there. */
IQ_INLINE size_t iq_slab_of_row(const iq_rows *rows, uint32_t row, uint32_t *out_index) {
    if (IQ_ONLY_BLOBS) {
        *out_index = row;
        return 0;
    }
    const uint32_t whole = row >> rows->slab_shift;
    if (IQ_LIKELY(whole > 0)) {
        *out_index = row & ((UINT32_C(1) << rows->slab_shift) - 1);
        return (size_t)whole + rows->slab_shift - rows->first_shift;
    }
    *out_index = row;
    if (row >> rows->first_shift == 0) return 0;
    const unsigned doublings = iq_log2_u32(row);
    *out_index = row - (UINT32_C(1) << doublings);
    return doublings + 1 - rows->first_shift;
}
IQ_INLINE const iq_slab *iq_rows_slab(const iq_rows *rows, uint32_t row, uint32_t *out_index) {
    const iq_slab *slabs = IQ_ATOMIC_LOAD(&rows->slabs);
    return &slabs[iq_slab_of_row(rows, row, out_index)];
}

#define IQ_ROW_LOST IQ_ROW_COUNT_MAX /* no row: what would tell which one is damaged */

/* A row where it lies; slab NULL: none, or, where row is IQ_ROW_LOST, nobody knows. */
typedef struct iq_spot {
    const iq_slab *slab;
    uint32_t index, row;
} iq_spot;
IQ_INLINE iq_spot iq_rows_spot(const iq_rows *rows, uint32_t row) {
    iq_spot spot;
    spot.slab = iq_rows_slab(rows, row, &spot.index);
    spot.row = row;
    return spot;
}
IQ_INLINE iq_row_head *iq_spot_head(iq_spot spot) { return &spot.slab->heads[spot.index]; }
IQ_INLINE iq_row_links *iq_spot_links(iq_spot spot) { return &spot.slab->links[spot.index]; }

/* Asks for a row's vector: for as much of it as a processor fetches at a time, more would only wait for each other. Each
 * line by itself: the neighbour that comes with a line comes later than one that was asked for. */
IQ_INLINE void iq_rows_prefetch(const iq_rows *rows, iq_spot spot) {
    const float *vector = spot.slab->vectors + spot.index * rows->stride;
    const float *end = vector + (rows->stride < 128 ? rows->stride : 128);
    for (; vector < end; vector += IQ_CACHE_LINE / sizeof(float)) iq_kernel_prefetch(vector, 0);
}

/* The number of rows of a slab, and its first row. */
IQ_INLINE uint32_t iq_slab_rows(const iq_rows *rows, size_t slab) {
    if (IQ_ONLY_BLOBS) return rows->lent.count;
    const size_t shift = slab + rows->first_shift - (slab > 0);
    return UINT32_C(1) << (shift < rows->slab_shift ? shift : rows->slab_shift);
}
IQ_INLINE uint64_t iq_slab_first_row(const iq_rows *rows, size_t slab) {
    if (IQ_ONLY_BLOBS) return slab == 0 ? 0 : rows->lent.count;
    if (slab + rows->first_shift > rows->slab_shift)
        return (uint64_t)(slab + rows->first_shift - rows->slab_shift) << rows->slab_shift;
    return slab == 0 ? 0 : iq_slab_rows(rows, slab);
}

/* Of up to 32 rows [from, end) those that may be read. */
IQ_INLINE uint32_t iq_slab_filled(const iq_slab *slab, uint32_t from, uint32_t end) {
    return iq_bits_at(slab->filled, from, end);
}

IQ_INLINE bool iq_row_visible(const iq_slab *slab, uint32_t index, uint64_t moment) {
    if (IQ_ONLY_BLOBS) return true;
    const iq_row_head *heads = IQ_ATOMIC_LOAD(&slab->heads);
    return heads == NULL || (heads[index].birth <= moment && moment < IQ_ATOMIC_LOAD(&heads[index].death));
}
IQ_INLINE uint64_t iq_row_birth(const iq_slab *slab, uint32_t index) {
    return slab->ids != NULL ? 1 : slab->heads[index].birth;
}
IQ_INLINE uint64_t iq_row_id(const iq_slab *slab, uint32_t index) {
    return IQ_ONLY_BLOBS || slab->ids != NULL ? iq_lent_u64(slab->ids, index) : slab->heads[index].id;
}
/* A reference into the heap. */
IQ_INLINE uint64_t iq_row_payload(const iq_slab *slab, uint32_t index) {
    return IQ_ONLY_BLOBS || slab->ids != NULL ? iq_lent_u64(slab->payloads, index) : slab->heads[index].payload;
}

#endif
