/* The contract that every index over the rows of a collection keeps, and what all of them share.
 *
 * An index finds rows of the store by their numbers; whoever it finds is scored by iq_flat_offer_row, like every other
 * row: one admission, and scores are always the canonical ones. Rows that it has taken in are marked as indexed (store/
 * rows.h); a search first looks at those that are not, exactly, and then asks the index. In this order none is missed: a
 * row is reachable in the index before it is marked, and a row that is taken in between was looked at already. It may
 * then be found twice: whoever offers a row looks whether the topk has it.
 *
 * One thread works, under the lock of the writer; any number search, under pins, without a lock, an allocation or a
 * system call. What they may reach is immutable or atomic; what is replaced goes to iq_garbage. */
#ifndef IQ_INDEX_INDEX_H
#define IQ_INDEX_INDEX_H

#include "index/flat.h"
#include "persist/sections.h"
#include "persist/snapshot.h"

typedef struct iq_index_knobs {
    uint32_t rows_min;           /* fewer rows are not worth it */
    uint32_t nlist;              /* 0: by the number of rows */
    uint32_t m, ef_construction; /* 0: 16, 200 */
    uint64_t seed;
} iq_index_knobs;

/* In front of all memory that readers may still have when it is replaced; what it is for comes at IQ_CACHE_LINE. */
typedef struct iq_block {
    struct iq_block *next; /* in the garbage */
    size_t size_bytes;     /* with this */
    uint64_t replaced;     /* the last moment from which it can be reached */
} iq_block;

typedef struct iq_garbage {
    iq_block *first, *last; /* in the order of their moments */
    uint64_t bytes;         /* and what an index keeps otherwise of what it has replaced */
} iq_garbage;

struct iq_index_ops;

/* What calibration has an effort for. */
typedef enum iq_recall {
    IQ_RECALL_90,
    IQ_RECALL_95,
    IQ_RECALL_99,
    IQ_RECALL_WISH
} iq_recall;
#define IQ_RECALLS 4

/* Efforts by which neighbours are found that a scan has found, of one vector after the other. */
typedef struct iq_calibration {
    uint32_t at, vectors; /* how many are done, of how many */
    uint32_t count;       /* of needs */
    uint32_t *needs;
    void *memory; /* NULL: none is under way */
    size_t size_bytes;
    const float *asked; /* NULL: rows; else vectors, each at the stride of the rows */
} iq_calibration;

/* The first member of every index. */
typedef struct iq_index {
    const struct iq_index_ops *ops;
    const iqdb_allocator *allocator;
    iq_epoch *epoch;
    iq_rows *rows;
    const iq_kernel *kernel;
    const iq_codes *codes; /* NULL: rows have none */
    iqdb_metric metric;
    iq_index_knobs knobs;
    uint32_t intake;   /* the row behind the last one that iq_index_next_fresh gave */
    uint32_t unstored; /* rows taken in that the stored section has not, all where it is of another training */
    uint32_t storing;  /* of these: what the base in the making has */
    uint64_t bytes;    /* of all blocks, garbage included */
    iq_garbage garbage;
    uint64_t garbage_max;         /* bytes of it beyond which nothing is done; 0: no limit */
    uint32_t efforts[IQ_RECALLS]; /* atomic; 0: not known yet */
    float wish;                   /* for recall; 0: .95 */
    float stretch;                /* what iqdb_tune was shown takes so many times the effort of rows; 0: nothing was */
    iq_calibration calibration;
} iq_index;

typedef struct iq_index_query {
    iq_flat_query *flat; /* vectors, probes, what is wanted */
    size_t which;        /* of its vectors */
    uint32_t effort;     /* lists to probe, or the width of the beam; 0: for `recall` */
    uint32_t allowed;    /* rows that may be hits, about; those of flat->allow or few, where there are such */
    bool accepted;       /* hardly any of which is not accepted */
    iq_recall recall;
    void *memory; /* 64-byte aligned */
    size_t size_bytes;
    uint32_t self;    /* the row that the vector is of, or IQ_ROW_NONE: for need_fn */
    uint64_t visited; /* rows whose codes were read, added to */
} iq_index_query;

/* ---- Storing ----
 * An index lies in a base as a section of its own, and is loaded into memory that has the rows of that base and no others.
 * Rows go by their places among these: loaded, row i is the one of place i. */

/* Which rows have a place: a bit for each of 32, and how many have one before them. */
typedef struct iq_place_word {
    uint32_t bits, before;
} iq_place_word;
typedef struct iq_places {
    const iq_place_word *words;
    uint32_t row_end;
} iq_places;

/* IQ_ROW_NONE: it has none. */
IQ_INLINE uint32_t iq_place_of(const iq_places *places, uint32_t row) {
    if (row >= places->row_end) return IQ_ROW_NONE;
    const iq_place_word *word = &places->words[row / 32];
    if ((word->bits >> row % 32 & 1) == 0) return IQ_ROW_NONE;
    return word->before + iq_count_bits(word->bits & ((UINT32_C(1) << row % 32) - 1));
}

/* While one is measured and saved nothing is taken in, and what is removed are rows without a place. */
typedef struct iq_index_save {
    iq_snapshot_writer *writer;
    const iq_places *places;
    uint64_t size;         /* of the section: what was measured */
    uint32_t phase, at;    /* the index's own: 0 when measuring begins, and again when saving begins */
    uint64_t own, written; /* of one of the caller's: what it has for `at`, and bytes so far */
} iq_index_save;

typedef struct iq_index_load {
    iq_snapshot_reader *reader;
    uint32_t collection, row_count; /* rows 0 to row_count - 1 are filled, and none is indexed */
    uint64_t size;                  /* of the section */
} iq_index_load;

typedef struct iq_index_facts {
    uint64_t rows, lists, longest, unreachable;
} iq_index_facts;

typedef struct iq_index_ops {
    iqdb_index kind;
    /* Ends it; no reader is left. */
    void (*free_fn)(iq_index *index);
    /* Trains, takes in fresh rows, mends, until the limit (NULL: none) is reached: whether there is nothing left to do.
     * To take in a row is a unit. Without memory, or held, it stops where it is, and says that nothing is left. */
    bool (*work_fn)(iq_index *index, iq_limit *limit);
    /* The row is seen by nobody any more, though some may be looking at it; it was indexed or not. Cannot fail. */
    void (*remove_fn)(iq_index *index, uint32_t row);
    /* Memory for a search for k hits; 0: it cannot search yet, or not for so many. */
    size_t (*search_bytes_fn)(const iq_index *index, size_t k);
    /* Offers what it finds to the probe's topk, which is full afterwards, with what was there, unless the limit came
     * before. False where it cannot, and then the search begins anew, over all rows. */
    bool (*search_fn)(const iq_index *index, iq_index_query *query);
    void (*describe_fn)(const iq_index *index, iq_index_facts *out_facts);
    /* Every marked row is reachable, and nothing else is: NULL, or what is wrong. */
    const char *(*check_fn)(const iq_index *index);
    /* What follows may be NULL: it is never calibrated. */
    /* The efforts from which on a search for the only vector of query->flat, which leaves query->self aside, finds these
     * hits, 10 at most, but for rows that are not in the index: how many. search_bytes_fn has told what memory it gets. */
    uint32_t (*need_fn)(const iq_index *index, const iq_index_query *query, const iqdb_hit *hits, uint32_t count,
                        uint32_t *out_efforts);
    /* What follows may be NULL: it is never stored. */
    /* Adds what a unit of work, 1,024 rows or so, will write to save->size; whether that was all. 0 bytes: there is nothing
     * to store. */
    bool (*measure_fn)(iq_index *index, iq_index_save *save);
    /* Writes a unit. */
    iqdb_result (*save_fn)(iq_index *index, iq_index_save *save, bool *out_done);
    /* Into one that was just made, which is freed after a failure: any bytes are a sound index, or CORRUPT, or NOT_FOUND where
     * it is none that its knobs want. Rows are marked as indexed when all of it is known to be sound. */
    iqdb_result (*load_fn)(iq_index *index, const iq_index_load *load);
} iq_index_ops;

/* ---- for indexes ---- */

/* NULL without memory. Zeroed but for the header. */
IQ_FN void *iq_block_make(iq_index *index, size_t size_bytes);
IQ_FN void iq_block_free(iq_index *index,
                         void *block); /* NULL is fine; no reader has ever had it, or has it any more */
/* No reader that comes now reaches it. */
IQ_FN void iq_block_retire(iq_index *index, void *block);
/* Frees what no pin reaches; `oldest` is of the epoch. */
IQ_FN void iq_index_collect(iq_index *index, uint64_t oldest);
IQ_FN void iq_index_free_garbage(iq_index *index);
/* Whether it waits: so much is kept by readers that what work would replace is not to come on top. What is not taken in
 * stays fresh, and is found by a scan. */
IQ_INLINE bool iq_index_is_held(const iq_index *index) {
    return index->garbage_max != 0 && index->garbage.bytes > index->garbage_max;
}

/* Bytes of the section, checked; and the result of one that makes no sense at this offset. */
IQ_FN iqdb_result iq_index_read(const iq_index_load *load, uint64_t offset, void *bytes, size_t size);
IQ_FN iqdb_result iq_index_reject(const iq_index_load *load, uint64_t offset, const char *why);

/* Whether these make sense, as stored. */
IQ_INLINE bool iq_index_wishes_well(float wish, float stretch) {
    return wish >= 0.0f && wish < 1.0f && stretch >= 0.0f && stretch < 1e5f;
}

/* The next row, going around from where it stopped, that is filled and not indexed; IQ_ROW_NONE where a whole round has
 * found none. */
IQ_FN uint32_t iq_index_next_fresh(iq_index *index);
IQ_INLINE bool iq_row_is_filled(iq_spot spot) { return iq_bits_at(spot.slab->filled, spot.index, spot.index + 1) != 0; }

/* A sample is of rows, not of their places, most of which may be empty: `row` if it is filled, or another one of the
 * first `count` that is, each with the same chance. IQ_ROW_NONE where none was met soon. */
IQ_FN uint32_t iq_index_draw(const iq_rows *rows, uint32_t count, uint32_t row, uint64_t seed);

/* One more vector of a calibration, which begins where none is under way; behind the last one the efforts are known.
 * Whether it has ended, without memory too. */
IQ_FN bool iq_index_calibrate(iq_index *index);
IQ_FN void iq_index_end_calibration(iq_index *index);

/* ---- for who has one ---- */

/* From now on a search that says nothing else is to have this recall, where the index can be calibrated. The effort is found with `count` vectors (NULL:
 * rows), 64-byte aligned and padded like rows. False without memory. */
IQ_FN bool iq_index_tune(iq_index *index, float recall, const float *vectors, uint32_t count);

#endif
