/* Lists: rows by the nearest of some centres, in blocks of codes as the exact scan has them. A search reads the lists of
 * the centres that are nearest to its vector, and compares the rows that their codes leave open. */
#ifndef IQ_INDEX_LISTS_H
#define IQ_INDEX_LISTS_H

#include "index/kmeans.h"

/* The fields of `base` from `allocator` to `knobs` are copied. NULL without memory. */
IQ_FN iq_index *iq_lists_make(const iq_index *base);

/* ---- of its parts ---- */

enum {
    IQ_LISTS_EXTENT_ROWS = 256,
    IQ_LISTS_MAX = 32768,
    IQ_LISTS_UNIT_ROWS = 1024 /* rows that are stored at a time */
};
#define IQ_LISTS_SECOND 0x80000000u
#define IQ_LISTS_BEYOND 3.0e38f

typedef struct iq_extent {
    struct iq_extent *next; /* atomic */
    uint32_t count, live;   /* live: the writer's */
    uint8_t distance[IQ_CACHE_LINE - sizeof(void *) - 8];
} iq_extent; /* then rows, then others: the list of the other copy or IQ_ROW_NONE, IQ_LISTS_SECOND in the second one */

typedef struct iq_list_set {
    iq_centres centres;
    iq_extent **lists; /* atomic */
    uint32_t *homes;   /* atomic: two lists a row, 16 bits each */
    uint32_t row_room; /* of homes; atomic, and read before them */
    uint32_t wanted;   /* lists, by the knobs */
    uint32_t trained;  /* rows */
    float length;      /* of a row, about */
    float spill;       /* a loss, relative to the nearest centre's, up to which a second copy is worth it */
} iq_list_set;

typedef enum iq_lists_stage {
    IQ_LISTS_IDLE,
    IQ_LISTS_CLUSTER,
    IQ_LISTS_ASSIGN,
    IQ_LISTS_FILL,
    IQ_LISTS_CALIBRATE
} iq_lists_stage;

typedef struct iq_lists {
    iq_index base;
    iq_list_set *set; /* atomic */
    uint32_t taken;   /* rows in it */
    uint32_t tried;   /* rows there were when training had no memory */
    uint32_t came;    /* rows taken in since the set was trained */
    uint32_t gone;    /* rows removed while the next one is trained, of which it is made all the same */
    void *scratch;    /* to rank with: a vector, keys, scratch of centres */
    size_t scratch_bytes;
    /* Training: */
    iq_lists_stage stage;
    iq_list_set *made;
    iq_kmeans kmeans;
    void *memory; /* of kmeans */
    float *ratios;
    uint32_t *drawn; /* the samples: rows and 1, or 0 */
    uint32_t *order; /* rows by list, and where those of each begin */
    uint32_t at, row_count;
} iq_lists;

IQ_INLINE size_t iq_extent_head(uint32_t count) {
    return sizeof(iq_extent) + 2 * iq_round_up(count, IQ_CODES_ROWS) * sizeof(uint32_t);
}
IQ_INLINE size_t iq_extent_bytes(const iq_index *base, uint32_t count) {
    const size_t blocks = (count + IQ_CODES_ROWS - 1) / IQ_CODES_ROWS;
    return iq_extent_head(count) + blocks * iq_quant_block_bytes(&base->rows->quant);
}
IQ_INLINE uint32_t *iq_extent_rows(const iq_extent *extent) {
    return (uint32_t *)(void *)((uint8_t *)(uintptr_t)extent + sizeof(iq_extent));
}
IQ_INLINE uint32_t *iq_extent_others(const iq_extent *extent) {
    return iq_extent_rows(extent) + iq_round_up(extent->count, IQ_CODES_ROWS);
}
IQ_INLINE uint8_t *iq_extent_blocks(const iq_extent *extent) {
    return (uint8_t *)(uintptr_t)extent + iq_extent_head(extent->count);
}
/* The lists of a row: its first, or the other one; IQ_ROW_NONE: it has none. */
IQ_INLINE uint32_t iq_home_half(uint32_t homes, uint32_t which) {
    const uint32_t list = homes >> 16 * which & 0xFFFFu;
    return list == 0xFFFFu ? IQ_ROW_NONE : list;
}
IQ_INLINE uint32_t iq_home_of(const iq_list_set *set, uint32_t row, uint32_t which) {
    return iq_home_half(set->homes[row], which);
}
IQ_INLINE void iq_home_put(iq_list_set *set, uint32_t row, uint32_t which, uint32_t list) {
    const uint32_t others = set->homes[row] & ~(0xFFFFu << 16 * which);
    IQ_ATOMIC_STORE(&set->homes[row], others | (list & 0xFFFFu) << 16 * which);
}
IQ_INLINE size_t iq_lists_keys_bytes(uint32_t count) { return iq_round_up(count, IQ_CODES_ROWS) * sizeof(float); }

IQ_FN iq_extent *iq_extent_make(iq_lists *lists, uint32_t count);
IQ_FN iq_list_set *iq_list_set_make(iq_lists *lists, uint32_t count, uint32_t row_room);
/* Marks the row as one that the set finds. */
IQ_FN void iq_lists_mark(iq_lists *lists, uint32_t row);

/* A vector as the rows have them, in f32: that of other elements lies in `room`. */
IQ_FN const float *iq_lists_floats(const iq_rows *rows, const float *vector, float *room);

/* Searching, in lists_search.c, */
IQ_FN size_t iq_lists_search_bytes(const iq_index *base, size_t k);
IQ_FN bool iq_lists_search_for(const iq_index *base, iq_index_query *query);
IQ_FN uint32_t iq_lists_need(const iq_index *base, const iq_index_query *query, const iqdb_hit *hits, uint32_t count,
                             uint32_t *out_efforts);

/* and storing, in lists_store.c. */
IQ_FN bool iq_lists_measure(iq_index *base, iq_index_save *save);
IQ_FN iqdb_result iq_lists_save(iq_index *base, iq_index_save *save, bool *out_done);
IQ_FN iqdb_result iq_lists_load(iq_index *base, const iq_index_load *load);

#endif
