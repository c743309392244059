/* A graph over rows of the store: each row it has taken in is a node with at most IQ_LINKS neighbours, whose codes lie
 * beside their numbers, so that one hop of a search is one sequential read. It finds rows; what they score is for the
 * caller to say, from their vectors. One thread writes; any number search, under pins of the epoch. */
#ifndef IQ_INDEX_GRAPH_H
#define IQ_INDEX_GRAPH_H

#include "base/hash.h"
#include "index/index.h"
#include "kernel/links.h"

#define IQ_GRAPH_FIRST 16u /* blocks of the first chunk */
#define IQ_GRAPH_FIRST_SHIFT 4u

/* The head of a node's block. Behind it: its own code, a byte a dimension; and the codes of its neighbours, as
 * kernel/links.h says. */
typedef struct iq_node {
    uint32_t row, count;
    uint32_t sum;             /* of the own code */
    float offset, step;       /* element i is about offset + step * code[i] */
    float square;             /* of the length of that */
    uint32_t rest[10];        /* to the next cache line */
    uint32_t links[IQ_LINKS]; /* atomic; IQ_ROW_NONE where there is none */
    float adds[IQ_LINKS];
    uint16_t factors[IQ_LINKS];
} iq_node;

/* The search for nodes that are cut off, which goes on from unit to unit while rows are taken out, and none in. Parts are
 * nodes that hang together. */
typedef struct iq_graph_survey {
    uint32_t *bits, *stack; /* by row: it was met; nodes whose neighbours were not. NULL: none is under way */
    size_t size_bytes;
    uint32_t rows, room, waiting; /* of the bits; of the stack; on it */
    uint32_t row;                 /* the next to be looked at */
    uint32_t parts, start, met;   /* parts; a row of this one, and how many of it were met */
    uint32_t best, best_met;      /* the same of the largest one */
    bool chosen, taking;          /* only that is met now; the others are taken out */
} iq_graph_survey;

/* A block that readers may still have. */
typedef struct iq_graph_retired {
    uint64_t moment;
    uint32_t block;
} iq_graph_retired;

typedef struct iq_graph {
    iq_index base;
    const iq_links *links;
    uint32_t degree, beam; /* of links a node has at most, and of the search for its neighbours */
    uint32_t dims, turn;   /* of codes: those of rows, rounded up; and of what is turned at a time, a power of two */
    size_t block_bytes;
    uint32_t chunk_shift;             /* of blocks in a chunk that is not one of the first, which are smaller */
    uint8_t **chunks;                 /* atomic: a table */
    uint32_t *places;                 /* atomic: a table, by row: its block and 1, or 0 */
    uint32_t place_count;             /* atomic: rows there is a place for */
    uint32_t entry;                   /* atomic: a block and 1, or 0: a node without a row, from which searches start */
    uint32_t chunk_count, block_room; /* chunks, and blocks in them */
    uint32_t block_count, free_block; /* ever used; and a chain, or IQ_ROW_NONE */
    uint32_t free_count;
    iq_graph_retired *retired; /* a ring; its capacity is a power of two */
    size_t retired_first, retired_count, retired_capacity;
    size_t count;  /* nodes */
    uint64_t born; /* nodes ever */
    uint64_t
        sound_from; /* atomic: from this moment on searches meet every node; IQ_MOMENT_NEVER: some may be cut off */
    iq_graph_survey survey;
    size_t calibrated; /* nodes there were at the last calibration */
    uint64_t counted;  /* bytes, among those of base */
    float *frame;      /* centre, and two runs of signs: dims floats each */
    float scale;
    uint8_t *scratch; /* of the writer */
} iq_graph;

typedef struct iq_graph_query {
    uint64_t moment;           /* rows seen there are found; IQ_MOMENT_NEVER: all */
    const iq_flat_query *flat; /* NULL, or only rows that take part in this search, until its limit is reached */
    const float *vector;       /* as for a scan */
    float norm;                /* of it, for COSINE */
    uint32_t beam;             /* how many of the nearest nodes are looked into */
    uint32_t keep;             /* rows to find, at most */
    uint32_t self;             /* a row that is left aside, or IQ_ROW_NONE */
    void *memory;              /* iq_graph_search_bytes, 64-byte aligned */
    uint32_t *found;           /* out: rows, the nearest by their codes first */
    uint32_t visited;          /* out: nodes looked into; rows that flat was asked about, and those that it accepted */
    uint32_t asked, accepted;
    bool met_zero; /* out: some were left aside because they are zero, and so score 1, for COSINE */
} iq_graph_query;

/* The contract (graph_index.c). The fields of `base` from `allocator` to `knobs` are copied. NULL without memory, or
 * where there is no graph for such rows. */
IQ_FN iq_index *iq_graph_make(const iq_index *base, const iq_links *links);

/* dim of rows is set. False where there is no graph for it. */
IQ_FN bool iq_graph_init(iq_graph *graph, const iq_index *base, const iq_links *links);
IQ_FN void iq_graph_free(iq_graph *graph);
IQ_FN uint64_t iq_graph_bytes(const iq_graph *graph);
/* Takes in a filled row. NOMEM with nothing changed. */
IQ_FN iqdb_result iq_graph_insert(iq_graph *graph, uint32_t row);
/* Takes a row out, if it is in; nobody finds it from now on. Cannot fail; without memory the graph may not be sound. */
IQ_FN void iq_graph_remove(iq_graph *graph, uint32_t row);
IQ_FN bool iq_graph_has(const iq_graph *graph, uint32_t row);
/* Frees nothing, but makes blocks that no pin reaches any more usable. */
IQ_FN void iq_graph_collect(iq_graph *graph);
/* A unit of work at a graph that is not sound: the rows of nodes that are cut off are told, and taken out. Until it is,
 * nothing is to be taken in. Whether it has ended: the graph is sound then, or there is no memory. */
IQ_FN bool iq_graph_heal(iq_graph *graph, void (*lost_fn)(uint32_t row, void *user), void *user);

IQ_FN size_t iq_graph_search_bytes(const iq_graph *graph, uint32_t beam, uint32_t keep);
/* How many rows were found. */
IQ_FN uint32_t iq_graph_search(const iq_graph *graph, iq_graph_query *query);

/* Nodes that do not hang together with a neighbour of the entry; false without memory. */
IQ_FN bool iq_graph_count_unreachable(const iq_graph *graph, size_t *out_count);
/* The writer's: NULL, or what is wrong. */
IQ_FN const char *iq_graph_check(const iq_graph *graph, size_t *out_unreachable);

/* ---- of its parts: storing, in graph_store.c, over blocks; ---- */

IQ_FN bool iq_graph_measure(iq_index *base, iq_index_save *save);
IQ_FN iqdb_result iq_graph_save(iq_index *base, iq_index_save *save, bool *out_done);
/* Marks no rows yet. */
IQ_FN iqdb_result iq_graph_load(iq_index *base, const iq_index_load *load);

IQ_FN void iq_graph_set_knobs(iq_graph *graph);
IQ_FN size_t iq_graph_frame_bytes(const iq_graph *graph);
/* Frame, scratch, and a place for the row and all before it. */
IQ_FN bool iq_graph_prepare(iq_graph *graph, uint32_t row);
/* Whether there are so many blocks to take, and room to retire as many; one of them; and a block becomes its row's. */
IQ_FN bool iq_graph_reserve(iq_graph *graph, uint32_t count);
IQ_FN uint32_t iq_graph_take(iq_graph *graph);
IQ_FN void iq_graph_put(iq_graph *graph, uint32_t block);
IQ_FN uint32_t iq_node_slot(const iq_node *node, uint32_t row);

/* ---- codes, in graph_code.c, and the walk, in graph_walk.c ---- */

/* A query as the codes see it. */
typedef struct iq_graph_probe {
    iq_link_probe link;
    bool dot;
    float square; /* of its length, but 0 for DOT */
    float wide_scale;
    float wide_sum; /* of the wide words, an integer */
} iq_graph_probe;

IQ_INLINE uint8_t *iq_node_code(const iq_node *node) { return (uint8_t *)(uintptr_t)(node + 1); }
IQ_INLINE uint8_t *iq_node_codes(const iq_graph *graph, const iq_node *node) {
    return iq_node_code(node) + graph->dims;
}
/* Chunks double from 16 blocks on, up to so many that they are large. With 16 added, a number begins with a bit that says
 * in which of the first chunks it is. */
IQ_INLINE iq_node *iq_graph_block(const iq_graph *graph, uint32_t block) {
    uint8_t **chunks = IQ_ATOMIC_LOAD(&graph->chunks);
    const uint32_t i = block + IQ_GRAPH_FIRST, shift = graph->chunk_shift, large = i >> shift;
    const uint32_t bit = IQ_LIKELY(large != 0) ? shift : iq_log2_u32(i);
    const uint32_t chunk = bit - IQ_GRAPH_FIRST_SHIFT + (large != 0 ? large - 1 : 0);
    return (iq_node *)(void *)(chunks[chunk] + (i & ((UINT32_C(1) << bit) - 1)) * graph->block_bytes);
}
/* NULL: it is not in the graph. */
IQ_INLINE iq_node *iq_graph_node(const iq_graph *graph, uint32_t row) {
    if (row >= IQ_ATOMIC_LOAD(&graph->place_count)) return NULL;
    const uint32_t *places = IQ_ATOMIC_LOAD(&graph->places);
    const uint32_t place = IQ_ATOMIC_LOAD(&places[row]);
    return place == 0 ? NULL : iq_graph_block(graph, place - 1);
}

/* Signs, and the middle of the first rows. */
IQ_FN void iq_graph_set_frame(iq_graph *graph);
/* A vector in the frame of the graph, dims floats; without a move it is a direction. spare: as many. */
IQ_FN void iq_graph_turn(const iq_graph *graph, const float *vector, float norm, bool moves, float *out, float *spare);
IQ_FN void iq_graph_encode(const iq_graph *graph, const float *turned, iq_node *node);
/* words and wide: dims of each. */
IQ_FN void iq_graph_probe_make(const iq_graph *graph, const float *turned, int8_t *words, int16_t *wide,
                               iq_graph_probe *out_probe);
IQ_FN float iq_graph_distance(const iq_graph *graph, const iq_graph_probe *probe, const iq_node *node);
/* The own codes of nodes against each other: squared distances. */
IQ_FN void iq_graph_widen(const iq_graph *graph, const iq_node *node, int16_t *out_wide);
IQ_FN float iq_graph_between(const iq_graph *graph, const iq_node *a, const int16_t *wide_a, const iq_node *b);
/* What its code stands for, less something (NULL: nothing). */
IQ_FN void iq_graph_decode(const iq_graph *graph, const iq_node *node, const float *less, float *out);
/* `other` becomes the neighbour in this slot; `centre` is the node decoded. spare: twice dims floats. */
IQ_FN void iq_graph_link(const iq_graph *graph, iq_node *node, const float *centre, uint32_t slot, const iq_node *other,
                         float *spare);
IQ_FN void iq_graph_unlink(iq_node *node, uint32_t slot);

typedef struct iq_graph_pool {
    float *keys;
    uint32_t *rows; /* the highest bit: looked into */
    uint32_t count, capacity;
} iq_graph_pool;

typedef struct iq_graph_walk {
    iq_graph_pool beam, best;
    uint32_t *seen;
    uint32_t seen_mask, seen_count, visited, asked, accepted;
    bool met_zero;
    uint64_t moment;
    const iq_flat_query *flat;
} iq_graph_walk;

IQ_FN size_t iq_graph_walk_bytes(uint32_t beam, uint32_t keep);
IQ_FN void iq_graph_walk_start(iq_graph_walk *walk, uint32_t beam, uint32_t keep, uint64_t moment, void *memory);
IQ_FN void iq_graph_walk_run(const iq_graph *graph, const iq_graph_probe *probe, iq_graph_walk *walk);

#endif
