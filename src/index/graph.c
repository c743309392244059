/* The graph: blocks, taking rows in and out.
 *
 * 1. A link is one of both its ends: x is a neighbour of c where c is one of x. So a node knows all that name it, and
 *    nothing is left that names one which is gone. Only the entry, which is no row, is named by none.
 * 2. Nodes have at most `degree` links, and as many as there may be: a row that comes takes the place of links. Where
 *    a-b was, a-x-b is (Hezel et al., "Fast Approximate Nearest Neighbor Search with a Dynamic Exploration Graph using
 *    Continuous Refinement", 2023, section 4). So degrees stay, and what was connected remains so.
 * 3. All nodes are connected, and some of them are neighbours of the entry: a walk from there can meet every row. A row
 *    that goes leaves its neighbours each with a free place; with these they are connected among each other, unless
 *    they are anyhow. Where the places are too few for that, the graph is not sound until it has been healed.
 * 4. Readers may reach a block that its place names; it is never written into, but for links that become none, each at
 *    once. A changed node is a copy, and one store of its place. The old block waits until no pin can be on it.
 * 5. A row's own block is placed before others name it. */
#include "index/graph.h"

#define IQ_GRAPH_CHUNK_BYTES ((size_t)4 << 20)
#define IQ_GRAPH_SPARE_BLOCKS 40u /* an insertion wants 34, a removal 33 */
#define IQ_GRAPH_OCCLUDED 1.2f    /* alpha squared */
#define IQ_GRAPH_SURVEYED 64u     /* nodes that a unit of healing looks at */

/* What the writer works with, in graph->scratch. */
typedef struct iq_graph_desk {
    float *turned, *spare; /* dims and twice that */
    float *centre;
    int16_t *wide, *wide_other;
    int8_t *words;
    void *walk;
} iq_graph_desk;

static size_t iq_graph_desk_bytes(const iq_graph *graph) {
    return (size_t)graph->dims * (4 * sizeof(float) + 2 * sizeof(int16_t) + 1) +
           iq_graph_walk_bytes(graph->beam, graph->beam);
}

static iq_graph_desk iq_graph_desk_of(const iq_graph *graph) {
    iq_graph_desk desk;
    desk.turned = (float *)(void *)graph->scratch;
    desk.spare = desk.turned + graph->dims;
    desk.centre = desk.spare + 2 * (size_t)graph->dims;
    desk.wide = (int16_t *)(void *)(desk.centre + graph->dims);
    desk.wide_other = desk.wide + graph->dims;
    desk.words = (int8_t *)(void *)(desk.wide_other + graph->dims);
    desk.walk = desk.words + graph->dims;
    return desk;
}

/* knobs.m: as many links as a layer of the paper's that is not the lowest, which has twice as many (Malkov, Yashunin,
 * "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small World graphs", 2018);
 * ef_construction: its walks go by exact distances and need a wider beam for the same neighbours. */
IQ_FN void iq_graph_set_knobs(iq_graph *graph) {
    const uint32_t m = graph->base.knobs.m, beam = graph->base.knobs.ef_construction / 3;
    graph->degree = m < 2 ? 4 : m > IQ_LINKS / 2 ? IQ_LINKS : 2 * m;
    graph->beam = beam < 8 ? 8 : beam > 1000 ? 1000 : beam;
}

IQ_FN bool iq_graph_init(iq_graph *graph, const iq_index *base, const iq_links *links) {
    const iq_rows *rows = base->rows;
    memset(graph, 0, sizeof *graph);
    graph->base = *base;
    graph->links = links;
    if (graph->base.knobs.m == 0) graph->base.knobs.m = IQ_LINKS / 2;
    if (graph->base.knobs.ef_construction == 0) graph->base.knobs.ef_construction = 200;
    iq_graph_set_knobs(graph);
    graph->free_block = IQ_ROW_NONE;
    graph->dims = (uint32_t)iq_round_up(rows->dim, IQ_LINK_DIMS);
    for (graph->turn = IQ_LINK_DIMS; graph->dims % (2 * graph->turn) == 0;) graph->turn *= 2;
    graph->block_bytes = sizeof(iq_node) + (size_t)graph->dims * 9; /* a multiple of cache lines */
    graph->chunk_shift = IQ_GRAPH_FIRST_SHIFT;
    while (graph->block_bytes << graph->chunk_shift < IQ_GRAPH_CHUNK_BYTES) graph->chunk_shift++;
    return base->metric != IQDB_L1 && rows->dim <= IQ_LINK_DIMS_MAX;
}

IQ_FN size_t iq_graph_frame_bytes(const iq_graph *graph) { return 3 * sizeof(float) * graph->dims; }

static uint32_t iq_graph_chunk_blocks(const iq_graph *graph, uint32_t chunk) {
    const uint32_t shift = chunk + IQ_GRAPH_FIRST_SHIFT;
    return UINT32_C(1) << (shift < graph->chunk_shift ? shift : graph->chunk_shift);
}

IQ_FN uint64_t iq_graph_bytes(const iq_graph *graph) {
    return (uint64_t)graph->block_room * graph->block_bytes + iq_table_size(graph->chunks) +
           iq_table_size(graph->places) + graph->retired_capacity * sizeof *graph->retired + graph->survey.size_bytes +
           (graph->frame == NULL ? 0 : iq_graph_frame_bytes(graph)) +
           (graph->scratch == NULL ? 0 : iq_graph_desk_bytes(graph));
}

static void iq_graph_end_survey(iq_graph *graph) {
    iq_graph_survey *survey = &graph->survey;
    if (survey->bits != NULL) iq_free(graph->base.allocator, survey->bits, survey->size_bytes, IQ_CACHE_LINE);
    memset(survey, 0, sizeof *survey);
}

IQ_FN void iq_graph_free(iq_graph *graph) {
    for (uint32_t i = 0; i < graph->chunk_count; i++)
        iq_pages_free(graph->base.allocator, graph->chunks[i], iq_graph_chunk_blocks(graph, i) * graph->block_bytes);
    iq_table_free(graph->base.allocator, graph->chunks);
    iq_table_free(graph->base.allocator, graph->places);
    const size_t ring = graph->retired_capacity * sizeof *graph->retired;
    if (graph->retired != NULL) iq_free(graph->base.allocator, graph->retired, ring, IQ_CACHE_LINE);
    if (graph->frame != NULL) iq_free(graph->base.allocator, graph->frame, iq_graph_frame_bytes(graph), IQ_CACHE_LINE);
    if (graph->scratch != NULL)
        iq_free(graph->base.allocator, graph->scratch, iq_graph_desk_bytes(graph), IQ_CACHE_LINE);
    iq_graph_end_survey(graph);
    memset(graph, 0, sizeof *graph);
}

/* ---- blocks ---- */

static bool iq_graph_grow_ring(iq_graph *graph) {
    const size_t capacity = graph->retired_capacity > 0 ? 2 * graph->retired_capacity : 128;
    iq_graph_retired *ring =
        (iq_graph_retired *)iq_alloc(graph->base.allocator, capacity * sizeof *ring, IQ_CACHE_LINE);
    if (ring == NULL) return false;
    for (size_t i = 0; i < graph->retired_count; i++)
        ring[i] = graph->retired[(graph->retired_first + i) & (graph->retired_capacity - 1)];
    if (graph->retired != NULL)
        iq_free(graph->base.allocator, graph->retired, graph->retired_capacity * sizeof *ring, IQ_CACHE_LINE);
    graph->retired = ring;
    graph->retired_capacity = capacity;
    graph->retired_first = 0;
    return true;
}

static bool iq_graph_add_chunk(iq_graph *graph) {
    const uint32_t number = graph->chunk_count, blocks = iq_graph_chunk_blocks(graph, number);
    uint8_t **chunks = (uint8_t **)iq_table_reserve(graph->base.allocator, graph->chunks, sizeof *chunks, number, 1);
    if (chunks == NULL) return false;
    IQ_ATOMIC_STORE(&graph->chunks, chunks);
    chunks[number] = (uint8_t *)iq_pages_alloc(graph->base.allocator, blocks * graph->block_bytes);
    if (chunks[number] == NULL) return false;
    graph->chunk_count++;
    graph->block_room += blocks;
    return true;
}

static uint32_t *iq_graph_free_link(const iq_graph *graph, uint32_t block) {
    return &iq_graph_block(graph, block)->row;
}

IQ_FN void iq_graph_collect(iq_graph *graph) {
    const uint64_t now = graph->base.epoch->moment, oldest = iq_epoch_oldest(graph->base.epoch);
    iq_table_trim(graph->base.allocator, graph->chunks, oldest, now);
    iq_table_trim(graph->base.allocator, graph->places, oldest, now);
    while (graph->retired_count > 0 && graph->retired[graph->retired_first].moment < oldest) {
        const uint32_t block = graph->retired[graph->retired_first].block;
        graph->retired_first = (graph->retired_first + 1) & (graph->retired_capacity - 1);
        graph->retired_count--;
        graph->base.garbage.bytes -= graph->block_bytes;
        *iq_graph_free_link(graph, block) = graph->free_block;
        graph->free_block = block;
        graph->free_count++;
    }
}

/* Whether there are so many blocks to take, and room to retire as many. */
IQ_FN bool iq_graph_reserve(iq_graph *graph, uint32_t count) {
    while (graph->retired_capacity < graph->retired_count + count)
        if (!iq_graph_grow_ring(graph)) return false;
    if (graph->free_count < count) iq_graph_collect(graph);
    while (graph->free_count < count) {
        const uint32_t block = graph->block_count;
        if (block == graph->block_room && !iq_graph_add_chunk(graph)) return false;
        *iq_graph_free_link(graph, block) = graph->free_block;
        graph->free_block = block;
        graph->block_count++;
        graph->free_count++;
    }
    return true;
}

IQ_FN uint32_t iq_graph_take(iq_graph *graph) {
    const uint32_t block = graph->free_block;
    graph->free_block = *iq_graph_free_link(graph, block);
    graph->free_count--;
    return block;
}

static void iq_graph_retire(iq_graph *graph, uint32_t block) {
    if (graph->retired_count == graph->retired_capacity) return; /* without memory for the ring, it is lost */
    const size_t at = (graph->retired_first + graph->retired_count++) & (graph->retired_capacity - 1);
    graph->retired[at].moment = graph->base.epoch->moment;
    graph->retired[at].block = block;
    graph->base.garbage.bytes += graph->block_bytes;
}

/* The place of a node becomes this block, whose row it is; that of the entry where it has none. */
IQ_FN void iq_graph_put(iq_graph *graph, uint32_t block) {
    const uint32_t row = iq_graph_block(graph, block)->row;
    uint32_t *place = row == IQ_ROW_NONE ? &graph->entry : &graph->places[row];
    if (*place != 0) iq_graph_retire(graph, *place - 1);
    IQ_ATOMIC_STORE(place, block + 1);
}

IQ_FN uint32_t iq_node_slot(const iq_node *node, uint32_t row) {
    uint32_t slot = 0;
    while (slot < IQ_LINKS && node->links[slot] != row) slot++;
    return slot;
}

/* A copy of the node in which `to` has the place of `from` (IQ_ROW_NONE: a free one); it is put. */
static void iq_graph_relink(iq_graph *graph, const iq_graph_desk *desk, const iq_node *node, uint32_t from,
                            const iq_node *to) {
    const uint32_t block = iq_graph_take(graph), slot = iq_node_slot(node, from);
    iq_node *copy = iq_graph_block(graph, block);
    IQ_ASSERT(slot < IQ_LINKS);
    memcpy(copy, node, graph->block_bytes);
    copy->count += from == IQ_ROW_NONE;
    iq_graph_decode(graph, copy, NULL, desk->centre);
    iq_graph_link(graph, copy, desk->centre, slot, to, desk->spare);
    iq_graph_put(graph, block);
}

/* The link ends where the node stands: readers find nothing there. */
static void iq_graph_forget(iq_node *node, uint32_t row) {
    IQ_ATOMIC_STORE(&node->links[iq_node_slot(node, row)], IQ_ROW_NONE);
    node->count--;
}

/* ---- taking in ---- */

/* What a new node is to be linked with: pairs of which one lost a link to the other, and single ones. */
typedef struct iq_graph_choice {
    uint32_t rows[IQ_LINKS], lost[IQ_LINKS]; /* lost: that it loses for this, or IQ_ROW_NONE */
    uint32_t count;
} iq_graph_choice;

static bool iq_graph_chosen(const iq_graph_choice *choice, uint32_t row) {
    for (uint32_t i = 0; i < choice->count; i++)
        if (choice->rows[i] == row) return true;
    return false;
}

static void iq_graph_choose(iq_graph_choice *choice, uint32_t row, uint32_t lost) {
    choice->rows[choice->count] = row;
    choice->lost[choice->count++] = lost;
}

/* Takes a node, and of a full one the neighbour whose link is worth least: that is longest beside the one to the new
 * node. */
static void iq_graph_consider(const iq_graph *graph, const iq_graph_desk *desk, const iq_node *self,
                              const iq_node *node, iq_graph_choice *choice) {
    uint32_t other = IQ_ROW_NONE;
    float most = 0.0f;
    if (node->count < graph->degree) {
        iq_graph_choose(choice, node->row, IQ_ROW_NONE);
        return;
    }
    if (choice->count + 2 > graph->degree) return;
    for (uint32_t i = 0; i < IQ_LINKS; i++) iq_kernel_prefetch(iq_graph_node(graph, node->links[i]), sizeof(iq_node));
    for (uint32_t i = 0; i < IQ_LINKS; i++) {
        const uint32_t row = node->links[i];
        if (row == IQ_ROW_NONE || iq_graph_chosen(choice, row)) continue;
        const iq_node *end = iq_graph_node(graph, row);
        const float gain =
            iq_graph_between(graph, node, desk->wide_other, end) - iq_graph_between(graph, self, desk->wide, end);
        if (other != IQ_ROW_NONE && !(gain > most)) continue;
        most = gain;
        other = row;
    }
    if (other == IQ_ROW_NONE) return;
    iq_graph_choose(choice, node->row, other);
    iq_graph_choose(choice, other, node->row);
}

/* Nodes from the nearest on: first those that no chosen one is much nearer to, then any. */
static void iq_graph_choose_links(const iq_graph *graph, const iq_graph_desk *desk, const iq_node *self,
                                  const iq_graph_pool *pool, iq_graph_choice *choice) {
    choice->count = 0;
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < pool->count && choice->count < graph->degree; i++) {
            const iq_node *node = iq_graph_node(graph, pool->rows[i]);
            if (iq_graph_chosen(choice, pool->rows[i])) continue;
            iq_graph_widen(graph, node, desk->wide_other);
            bool open = true;
            for (uint32_t j = 0; round == 0 && open && j < choice->count; j++) {
                const iq_node *chosen = iq_graph_node(graph, choice->rows[j]);
                open = iq_graph_between(graph, node, desk->wide_other, chosen) * IQ_GRAPH_OCCLUDED > pool->keys[i];
            }
            if (open) iq_graph_consider(graph, desk, self, node, choice);
        }
    }
}

/* The entry has up to 32 neighbours, any of all rows with the same chance. */
static void iq_graph_tell_entry(iq_graph *graph, const iq_graph_desk *desk, const iq_node *node) {
    const iq_node *entry = iq_graph_block(graph, graph->entry - 1);
    const uint64_t random = iq_hash_u64(graph->base.knobs.seed ^ (graph->born << 20));
    if (entry->count < IQ_LINKS) {
        iq_graph_relink(graph, desk, entry, IQ_ROW_NONE, node);
    } else if (random % graph->born < IQ_LINKS) {
        iq_graph_relink(graph, desk, entry, entry->links[random % graph->born], node);
    }
}

static uint32_t iq_graph_make_block(iq_graph *graph, const float *turned, uint32_t row) {
    const uint32_t block = iq_graph_take(graph);
    iq_node *node = iq_graph_block(graph, block);
    memset(node, 0, graph->block_bytes);
    for (uint32_t i = 0; i < IQ_LINKS; i++) iq_graph_unlink(node, i);
    node->row = row;
    iq_graph_encode(graph, turned, node);
    return block;
}

IQ_FN bool iq_graph_prepare(iq_graph *graph, uint32_t row) {
    const uint32_t had = graph->place_count, wanted = row + 1;
    if (graph->frame == NULL) {
        graph->frame = (float *)iq_alloc(graph->base.allocator, iq_graph_frame_bytes(graph), IQ_CACHE_LINE);
        if (graph->frame == NULL) return false;
    }
    if (graph->scratch == NULL) {
        graph->scratch = (uint8_t *)iq_alloc(graph->base.allocator, iq_graph_desk_bytes(graph), IQ_CACHE_LINE);
        if (graph->scratch == NULL) return false;
        iq_graph_set_frame(graph);
    }
    if (!iq_graph_reserve(graph, IQ_GRAPH_SPARE_BLOCKS)) return false;
    if (wanted <= had) return true;
    uint32_t *places =
        (uint32_t *)iq_table_reserve(graph->base.allocator, graph->places, sizeof *places, had, wanted - had);
    if (places == NULL) return false;
    IQ_ATOMIC_STORE(&graph->places, places);
    IQ_ATOMIC_STORE(&graph->place_count, wanted);
    return true;
}

IQ_FN iqdb_result iq_graph_insert(iq_graph *graph, uint32_t row) {
    iq_graph_walk walk;
    iq_graph_probe probe;
    iq_graph_choice choice;
    uint32_t index;
    if (row >> 31 != 0) return IQDB_ERR_LIMIT;
    iq_graph_end_survey(graph);
    if (!iq_graph_prepare(graph, row)) return IQDB_ERR_NOMEM;
    const iq_graph_desk desk = iq_graph_desk_of(graph);
    const iq_slab *slab = iq_rows_slab(graph->base.rows, row, &index);
    iq_graph_turn(graph, slab->vectors + index * graph->base.rows->stride, slab->norms[index], true, desk.turned,
                  desk.spare);
    if (graph->entry == 0) iq_graph_put(graph, iq_graph_make_block(graph, desk.turned, IQ_ROW_NONE));
    iq_graph_walk_start(&walk, graph->beam, graph->beam, IQ_MOMENT_NEVER, desk.walk);
    iq_graph_probe_make(graph, desk.turned, desk.words, desk.wide, &probe);
    iq_graph_walk_run(graph, &probe, &walk);

    const uint32_t block = iq_graph_make_block(graph, desk.turned, row);
    iq_node *node = iq_graph_block(graph, block);
    iq_graph_widen(graph, node, desk.wide);
    iq_graph_choose_links(graph, &desk, node, &walk.best, &choice);
    iq_graph_decode(graph, node, NULL, desk.centre);
    for (uint32_t i = 0; i < choice.count; i++)
        iq_graph_link(graph, node, desk.centre, i, iq_graph_node(graph, choice.rows[i]), desk.spare);
    node->count = choice.count;
    iq_graph_put(graph, block);
    for (uint32_t i = 0; i < choice.count; i++)
        iq_graph_relink(graph, &desk, iq_graph_node(graph, choice.rows[i]), choice.lost[i], node);
    graph->count++;
    graph->born++;
    iq_graph_tell_entry(graph, &desk, node);
    return IQDB_OK;
}

/* ---- taking out ---- */

/* The neighbours of a node that goes, which of them hang together, and how far apart they are. */
typedef struct iq_graph_party {
    uint32_t rows[IQ_LINKS], group[IQ_LINKS], slots[IQ_LINKS]; /* slots: free places; of a group, in its first member */
    uint32_t count, groups;
    float apart[IQ_LINKS * (IQ_LINKS - 1) / 2]; /* negative: they are linked */
} iq_graph_party;

static float *iq_graph_apart(iq_graph_party *party, uint32_t i, uint32_t j) {
    return &party->apart[i > j ? i * (i - 1) / 2 + j : j * (j - 1) / 2 + i];
}

static uint32_t iq_graph_group_slots(const iq_graph_party *party, uint32_t group) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < party->count; i++) sum += party->group[i] == group ? party->slots[i] : 0;
    return sum;
}

static void iq_graph_join(iq_graph_party *party, uint32_t i, uint32_t j) {
    const uint32_t from = party->group[j], to = party->group[i];
    if (from == to) return;
    for (uint32_t k = 0; k < party->count; k++) party->group[k] = party->group[k] == from ? to : party->group[k];
    party->groups--;
}

static void iq_graph_gather(const iq_graph *graph, const iq_graph_desk *desk, const iq_node *node,
                            iq_graph_party *party) {
    party->count = 0;
    for (uint32_t i = 0; i < IQ_LINKS; i++) {
        if (node->links[i] == IQ_ROW_NONE) continue;
        party->group[party->count] = party->count;
        party->slots[party->count] = graph->degree - iq_graph_node(graph, node->links[i])->count + 1;
        party->rows[party->count++] = node->links[i];
    }
    party->groups = party->count;
    for (uint32_t i = 0; i < party->count; i++) {
        const iq_node *a = iq_graph_node(graph, party->rows[i]);
        iq_graph_widen(graph, a, desk->wide);
        for (uint32_t j = 0; j < i; j++) {
            const float apart = iq_graph_between(graph, a, desk->wide, iq_graph_node(graph, party->rows[j]));
            const bool linked = iq_node_slot(a, party->rows[j]) < IQ_LINKS;
            *iq_graph_apart(party, i, j) = linked ? -1.0f : apart > 0.0f ? apart : 0.0f;
            if (linked) iq_graph_join(party, i, j);
        }
    }
}

/* Joins those that have a neighbour in common, other than the one that goes. Whether they are linked stays as it is. */
static void iq_graph_look_around(const iq_graph *graph, iq_graph_party *party, uint32_t gone) {
    for (uint32_t i = 0; party->groups > 1 && i < party->count; i++) {
        const iq_node *node = iq_graph_node(graph, party->rows[i]);
        for (uint32_t a = 0; a < IQ_LINKS; a++) {
            if (node->links[a] == IQ_ROW_NONE || node->links[a] == gone) continue;
            const iq_node *common = iq_graph_node(graph, node->links[a]);
            for (uint32_t j = 0; j < party->count; j++)
                if (party->group[i] != party->group[j] && iq_node_slot(common, party->rows[j]) < IQ_LINKS)
                    iq_graph_join(party, i, j);
        }
    }
}

/* The nearest two that are not linked and have free places: of different groups, one of them `group`, or of any where
 * that is IQ_ROW_NONE. False where there are none. */
static bool iq_graph_nearest_two(iq_graph_party *party, uint32_t group, uint32_t *out_i, uint32_t *out_j) {
    float least = 3.3e38f;
    bool found = false;
    for (uint32_t i = 0; i < party->count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            const float apart = *iq_graph_apart(party, i, j);
            const bool across =
                party->group[i] != party->group[j] && (party->group[i] == group || party->group[j] == group);
            if (party->slots[i] == 0 || party->slots[j] == 0 || !(apart >= 0.0f && apart < least)) continue;
            if (group != IQ_ROW_NONE && !across) continue;
            least = apart;
            *out_i = i;
            *out_j = j;
            found = true;
        }
    }
    return found;
}

/* The next two to be linked. While there are several groups, the one with most free places takes in another: so the
 * places last as long as they can. */
static bool iq_graph_next_two(iq_graph_party *party, uint32_t *out_i, uint32_t *out_j) {
    uint32_t group = IQ_ROW_NONE, most = 0;
    for (uint32_t i = 0; party->groups > 1 && i < party->count; i++) {
        const uint32_t slots = iq_graph_group_slots(party, party->group[i]);
        if (group != IQ_ROW_NONE && slots <= most) continue;
        most = slots;
        group = party->group[i];
    }
    return iq_graph_nearest_two(party, group, out_i, out_j);
}

/* Fills the places that the node's neighbours have, and takes its name out of the others. */
static void iq_graph_mend(iq_graph *graph, const iq_graph_desk *desk, iq_graph_party *party, uint32_t gone) {
    uint32_t i, j, losing[IQ_LINKS];
    for (i = 0; i < party->count; i++) losing[i] = gone;
    while (graph->free_count > 2 && iq_graph_next_two(party, &i, &j)) {
        const iq_node *a = iq_graph_node(graph, party->rows[i]), *b = iq_graph_node(graph, party->rows[j]);
        iq_graph_relink(graph, desk, a, losing[i], b);
        iq_graph_relink(graph, desk, b, losing[j], a);
        losing[i] = losing[j] = IQ_ROW_NONE;
        party->slots[i]--;
        party->slots[j]--;
        *iq_graph_apart(party, i, j) = -1.0f;
        iq_graph_join(party, i, j);
    }
    for (i = 0; i < party->count; i++)
        if (losing[i] != IQ_ROW_NONE) iq_graph_forget(iq_graph_node(graph, party->rows[i]), gone);
}

static bool iq_graph_met(const iq_graph_survey *survey, uint32_t row) {
    return survey->bits != NULL && (survey->bits[row / 32] >> row % 32 & 1) != 0;
}

/* What a survey has met of them may have a new neighbour now that it has not. */
static void iq_graph_see_again(iq_graph *graph, const iq_graph_party *party) {
    iq_graph_survey *survey = &graph->survey;
    for (uint32_t i = 0; survey->bits != NULL && !survey->taking && i < party->count; i++) {
        if (!iq_graph_met(survey, party->rows[i])) continue;
        if (survey->waiting < survey->room) {
            survey->stack[survey->waiting++] = party->rows[i];
        } else {
            iq_graph_end_survey(graph); /* from the beginning */
        }
    }
}

IQ_FN void iq_graph_remove(iq_graph *graph, uint32_t row) {
    iq_graph_party party;
    const iq_node *node = iq_graph_node(graph, row);
    if (node == NULL) return;
    /* Without memory nothing is mended. */
    const bool can_mend = iq_graph_reserve(graph, IQ_GRAPH_SPARE_BLOCKS);
    const iq_graph_desk desk = iq_graph_desk_of(graph);
    iq_node *entry = iq_graph_block(graph, graph->entry - 1);
    iq_graph_gather(graph, &desk, node, &party);
    iq_graph_look_around(graph, &party, row);
    if (iq_node_slot(entry, row) < IQ_LINKS) {
        uint32_t i = 0;
        while (i < party.count && iq_node_slot(entry, party.rows[i]) < IQ_LINKS) i++;
        if (i < party.count && can_mend) {
            iq_graph_relink(graph, &desk, entry, row, iq_graph_node(graph, party.rows[i]));
        } else {
            iq_graph_forget(entry, row);
        }
    }
    if (!can_mend) memset(party.slots, 0, sizeof party.slots);
    iq_graph_mend(graph, &desk, &party, row);
    iq_graph_see_again(graph, &party);
    const uint32_t block = graph->places[row] - 1;
    IQ_ATOMIC_STORE(&graph->places[row], 0);
    iq_graph_retire(graph, block);
    graph->count--;
    const uint32_t left = iq_graph_block(graph, graph->entry - 1)->count;
    if (party.groups <= 1 && (left > 0 || graph->count == 0)) return;
    IQ_ATOMIC_STORE(&graph->sound_from, IQ_MOMENT_NEVER);
    if (!graph->survey.taking || iq_graph_met(&graph->survey, row)) iq_graph_end_survey(graph);
}

IQ_FN bool iq_graph_has(const iq_graph *graph, uint32_t row) { return iq_graph_node(graph, row) != NULL; }

/* ---- what hangs together ---- */

static const char *iq_graph_check_node(const iq_graph *graph, uint32_t row, const iq_node *node) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < IQ_LINKS; i++) {
        const uint32_t other = node->links[i];
        if (other == IQ_ROW_NONE) continue;
        count++;
        const iq_node *end = iq_graph_node(graph, other);
        if (end == NULL) return "a link leads to no node";
        if (other == row || iq_node_slot(node, other) != i) return "a link leads to its own node, or is there twice";
        if (row != IQ_ROW_NONE && iq_node_slot(end, row) == IQ_LINKS) return "a link is known to one of its ends only";
    }
    return node->row != row || node->count != count ? "the head of a node is wrong" : NULL;
}

static void iq_graph_meet(iq_graph_survey *survey, uint32_t row) {
    if (row == IQ_ROW_NONE || iq_graph_met(survey, row)) return;
    survey->bits[row / 32] |= UINT32_C(1) << row % 32;
    survey->stack[survey->waiting++] = row;
    survey->met++;
}

/* Meets the neighbours of so many nodes that it has met; whether there are no more. */
static bool iq_graph_flood(const iq_graph *graph, iq_graph_survey *survey, size_t count) {
    for (; survey->waiting > 0 && count > 0; count--) {
        const iq_node *node = iq_graph_node(graph, survey->stack[--survey->waiting]);
        for (uint32_t i = 0; node != NULL && i < IQ_LINKS; i++) iq_graph_meet(survey, node->links[i]);
    }
    return survey->waiting == 0;
}

static bool iq_graph_begin_survey(const iq_graph *graph, iq_graph_survey *survey) {
    const size_t words = (size_t)graph->place_count / 32 + 1;
    memset(survey, 0, sizeof *survey);
    survey->rows = graph->place_count;
    survey->room = (uint32_t)graph->count + IQ_LINKS;
    survey->size_bytes = (words + survey->room) * sizeof(uint32_t);
    survey->bits = (uint32_t *)iq_alloc_zeroed(graph->base.allocator, survey->size_bytes, IQ_CACHE_LINE);
    survey->stack = survey->bits + words;
    return survey->bits != NULL;
}

/* The next part, or, when all are known and there are several, the largest one again. */
static void iq_graph_next_part(const iq_graph *graph, iq_graph_survey *survey) {
    if (survey->met > survey->best_met) {
        survey->best = survey->start;
        survey->best_met = survey->met;
    }
    while (survey->row < survey->rows && (iq_graph_met(survey, survey->row) || !iq_graph_has(graph, survey->row)))
        survey->row++;
    survey->chosen = survey->row == survey->rows;
    survey->taking = survey->chosen && survey->parts <= 1;
    survey->start = survey->chosen ? survey->best : survey->row;
    survey->met = 0;
    if (survey->taking) return;
    if (survey->chosen) memset(survey->bits, 0, ((size_t)survey->rows / 32 + 1) * sizeof(uint32_t));
    survey->parts++;
    iq_graph_meet(survey, survey->start);
}

/* The entry gets a neighbour, where it has none. False without memory. */
static bool iq_graph_open(iq_graph *graph) {
    const iq_node *entry = iq_graph_block(graph, graph->entry - 1);
    const iq_graph_desk desk = iq_graph_desk_of(graph);
    uint32_t row = 0;
    if (entry->count > 0 || graph->count == 0) return true;
    if (!iq_graph_reserve(graph, 1)) return false;
    while (!iq_graph_has(graph, row)) row++;
    iq_graph_relink(graph, &desk, entry, IQ_ROW_NONE, iq_graph_node(graph, row));
    return true;
}

IQ_FN bool iq_graph_heal(iq_graph *graph, void (*lost_fn)(uint32_t row, void *user), void *user) {
    iq_graph_survey *survey = &graph->survey;
    if (graph->sound_from != IQ_MOMENT_NEVER) return true;
    if (survey->bits == NULL && !iq_graph_begin_survey(graph, survey)) return true;
    if (!survey->taking) {
        /* A part's first node is looked into at once: so who takes it out finds its neighbours met. */
        if (survey->waiting == 0) iq_graph_next_part(graph, survey);
        if (survey->taking) return false;
        if (survey->chosen && survey->met == 1 && !iq_graph_has(graph, survey->best)) {
            iq_graph_end_survey(graph);
            return false;
        }
        survey->taking = iq_graph_flood(graph, survey, IQ_GRAPH_SURVEYED) && survey->chosen;
        if (survey->taking) survey->row = 0;
        return false;
    }
    for (uint32_t i = 0; i < IQ_GRAPH_SURVEYED && survey->row < survey->rows; i++) {
        const uint32_t row = survey->row++;
        if (!iq_graph_has(graph, row) || iq_graph_met(survey, row)) continue;
        lost_fn(row, user);
        iq_graph_remove(graph, row);
        return false;
    }
    if (survey->row < survey->rows) return false;
    iq_graph_end_survey(graph);
    if (iq_graph_open(graph)) IQ_ATOMIC_STORE(&graph->sound_from, graph->base.epoch->moment + 1);
    return true;
}

IQ_FN bool iq_graph_count_unreachable(const iq_graph *graph, size_t *out_count) {
    iq_graph_survey survey;
    *out_count = graph->count;
    if (graph->entry == 0) return true;
    if (!iq_graph_begin_survey(graph, &survey)) return false;
    const iq_node *entry = iq_graph_block(graph, graph->entry - 1);
    for (uint32_t i = 0; i < IQ_LINKS && survey.met == 0; i++) iq_graph_meet(&survey, entry->links[i]);
    (void)iq_graph_flood(graph, &survey, SIZE_MAX);
    *out_count -= survey.met;
    iq_free(graph->base.allocator, survey.bits, survey.size_bytes, IQ_CACHE_LINE);
    return true;
}

IQ_FN const char *iq_graph_check(const iq_graph *graph, size_t *out_unreachable) {
    const char *wrong = NULL;
    size_t nodes = 0;
    *out_unreachable = 0;
    if (graph->entry == 0) return graph->count == 0 ? NULL : "there is no entry";
    for (uint32_t row = 0; row < graph->place_count && wrong == NULL; row++) {
        const iq_node *node = iq_graph_node(graph, row);
        if (node != NULL) wrong = iq_graph_check_node(graph, row, node);
        nodes += node != NULL;
    }
    if (wrong == NULL) wrong = iq_graph_check_node(graph, IQ_ROW_NONE, iq_graph_block(graph, graph->entry - 1));
    if (wrong == NULL && nodes != graph->count) wrong = "the number of nodes is wrong";
    if (wrong != NULL) return wrong;
    return iq_graph_count_unreachable(graph, out_unreachable) ? NULL : "no memory";
}
