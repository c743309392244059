/* The walk: from the entry to what lies nearest, always into the nearest node that was not looked into.
 *
 * 1. The beam holds what was met, by estimates, each row once: the first estimate stays. The best are the nodes that
 *    were looked into, by their own codes.
 * 2. A walk ends when all of the beam was looked into, so it ends: no row enters twice.
 * 3. What is fetched next is known one hop ahead, and asked for before the codes of this one are summed up. */
#include "index/graph.h"

#define IQ_GRAPH_DONE 0x80000000u
#define IQ_GRAPH_UNIT 16u    /* nodes between two looks at the limit */
#define IQ_GRAPH_AHEAD 1024u /* bytes of codes that are asked for; what follows comes by itself */

static uint32_t iq_graph_pool_insert(iq_graph_pool *pool, float key, uint32_t row) {
    uint32_t from = 0, size = pool->count;
    while (size > 0) {
        const uint32_t half = size / 2;
        const bool right = pool->keys[from + half] <= key;
        from += right ? half + 1 : 0;
        size = right ? size - half - 1 : half;
    }
    if (from >= pool->capacity) return from;
    if (pool->count < pool->capacity) pool->count++;
    const size_t rest = pool->count - 1 - from;
    memmove(pool->keys + from + 1, pool->keys + from, rest * sizeof *pool->keys);
    memmove(pool->rows + from + 1, pool->rows + from, rest * sizeof *pool->rows);
    pool->keys[from] = key;
    pool->rows[from] = row;
    return from;
}

/* Whether the row is new. Once there is no room no row is. */
static bool iq_graph_see(iq_graph_walk *walk, uint32_t row) {
    uint32_t at = (row * 0x9E3779B1u) >> 7 & walk->seen_mask;
    for (; walk->seen[at] != IQ_ROW_NONE; at = (at + 1) & walk->seen_mask)
        if (walk->seen[at] == row) return false;
    if (walk->seen_count > walk->seen_mask - walk->seen_mask / 4) return false;
    walk->seen_count++;
    walk->seen[at] = row;
    return true;
}

static uint32_t iq_graph_seen_size(uint32_t beam) {
    uint32_t size = 1024;
    while (size < 16 * (uint64_t)beam) size *= 2;
    return size;
}

IQ_FN size_t iq_graph_walk_bytes(uint32_t beam, uint32_t keep) {
    return iq_round_up(((size_t)beam + keep) * 8 + (size_t)iq_graph_seen_size(beam) * 4, IQ_CACHE_LINE);
}

IQ_FN void iq_graph_walk_start(iq_graph_walk *walk, uint32_t beam, uint32_t keep, uint64_t moment, void *memory) {
    memset(walk, 0, sizeof *walk);
    walk->seen = (uint32_t *)memory;
    walk->seen_mask = iq_graph_seen_size(beam) - 1;
    memset(walk->seen, 0xFF, ((size_t)walk->seen_mask + 1) * 4);
    walk->beam.keys = (float *)memory + walk->seen_mask + 1;
    walk->beam.rows = (uint32_t *)(void *)(walk->beam.keys + beam);
    walk->beam.capacity = beam;
    walk->best.keys = walk->beam.keys + 2 * (size_t)beam;
    walk->best.rows = (uint32_t *)(void *)(walk->best.keys + keep);
    walk->best.capacity = keep;
    walk->moment = moment;
}

static void iq_graph_expand(const iq_graph *graph, const iq_graph_probe *probe, iq_graph_walk *walk,
                            const iq_node *node, float distance, uint32_t *next) {
    static const float none[IQ_LINKS] = {0};
    float keys[IQ_LINKS];
    iq_graph_pool *beam = &walk->beam;
    float limit = beam->count < beam->capacity ? 3e38f : beam->keys[beam->count - 1];
    uint32_t below = graph->links->scan(&probe->link, iq_node_codes(graph, node), probe->dot ? none : node->adds,
                                        node->factors, distance, limit, keys);
    for (; below != 0; below &= below - 1) {
        const uint32_t slot = iq_lowest_bit(below), row = IQ_ATOMIC_LOAD(&node->links[slot]);
        if (!(keys[slot] < limit) || row == IQ_ROW_NONE || !iq_graph_see(walk, row)) continue;
        const uint32_t at = iq_graph_pool_insert(beam, keys[slot], row);
        if (at < *next) *next = at;
        if (beam->count == beam->capacity) limit = beam->keys[beam->count - 1];
    }
}

/* Asks for the first so many bytes of a node (NULL: none). */
static const iq_node *iq_graph_prefetch(const iq_graph *graph, uint32_t row, size_t size) {
    const iq_node *node = iq_graph_node(graph, row);
    for (size_t at = 0; node != NULL && at < size; at += IQ_CACHE_LINE) iq_kernel_prefetch(node, at);
    return node;
}

static uint32_t iq_graph_undone(const iq_graph_pool *beam, uint32_t i) {
    while (i < beam->count && (beam->rows[i] & IQ_GRAPH_DONE) != 0) i++;
    return i;
}

/* For COSINE a zero row scores 1, but lies nearer to any query than rows at a right angle do: it would take the place
 * of hits. */
static bool iq_graph_leaves(const iq_graph *graph, iq_graph_walk *walk, iq_spot spot) {
    const bool is_zero = graph->base.metric == IQDB_COSINE && spot.slab->norms[spot.index] == 0.0f;
    walk->met_zero = walk->met_zero || is_zero;
    return is_zero;
}

/* Whether the row may be found. */
static bool iq_graph_takes(const iq_graph *graph, iq_graph_walk *walk, uint32_t row) {
    const iq_flat_query *flat = walk->flat;
    if (walk->moment == IQ_MOMENT_NEVER) return true;
    /* Rows that came behind the plan are not seen, nor do the bits reach them. */
    if (flat != NULL && row >= flat->row_count) return false;
    const iq_spot spot = iq_rows_spot(graph->base.rows, row);
    if (flat == NULL) return iq_row_visible(spot.slab, spot.index, walk->moment) && !iq_graph_leaves(graph, walk, spot);
    walk->asked++;
    if (flat->allow != NULL && (flat->allow[row / 32] >> row % 32 & 1) == 0) return false;
    const bool accepts = iq_flat_accepts(flat, spot);
    walk->accepted += accepts;
    return accepts && !iq_graph_leaves(graph, walk, spot);
}

/* Its distance by its own code; the row is one of the best if it is seen and near. */
static float iq_graph_look(const iq_graph *graph, const iq_graph_probe *probe, iq_graph_walk *walk, const iq_node *node,
                           uint32_t row) {
    const iq_graph_pool *best = &walk->best;
    const float distance = iq_graph_distance(graph, probe, node);
    if ((best->count < best->capacity || distance < best->keys[best->count - 1]) && iq_graph_takes(graph, walk, row))
        (void)iq_graph_pool_insert(&walk->best, distance, row);
    walk->visited++;
    return distance;
}

IQ_FN void iq_graph_walk_run(const iq_graph *graph, const iq_graph_probe *probe, iq_graph_walk *walk) {
    iq_graph_pool *beam = &walk->beam;
    const size_t size = sizeof(iq_node) + graph->dims + IQ_GRAPH_AHEAD;
    const iq_node *node = iq_graph_block(graph, IQ_ATOMIC_LOAD(&graph->entry) - 1), *ahead = NULL;
    uint32_t next = 0;
    iq_graph_expand(graph, probe, walk, node, iq_graph_distance(graph, probe, node), &next);
    for (next = iq_graph_undone(beam, 0); next < beam->count; next = iq_graph_undone(beam, next)) {
        const uint32_t row = beam->rows[next];
        beam->rows[next++] |= IQ_GRAPH_DONE;
        node = iq_graph_node(graph, row);
        if (node == NULL) continue;
        if (node != ahead) (void)iq_graph_prefetch(graph, row, size);
        const uint32_t second = iq_graph_undone(beam, next);
        ahead = second < beam->count ? iq_graph_prefetch(graph, beam->rows[second], size) : NULL;
        iq_graph_expand(graph, probe, walk, node, iq_graph_look(graph, probe, walk, node, row), &next);
        if (walk->flat != NULL && walk->visited % IQ_GRAPH_UNIT == 0 && iq_limit_reached(walk->flat->limit)) break;
    }
}

static size_t iq_graph_probe_bytes(const iq_graph *graph) {
    return (size_t)graph->dims * (2 * sizeof(float) + sizeof(int16_t) + 1);
}

IQ_FN size_t iq_graph_search_bytes(const iq_graph *graph, uint32_t beam, uint32_t keep) {
    return iq_graph_probe_bytes(graph) + iq_graph_walk_bytes(beam, keep);
}

IQ_FN uint32_t iq_graph_search(const iq_graph *graph, iq_graph_query *query) {
    iq_graph_walk walk;
    iq_graph_probe probe;
    float *turned = (float *)query->memory;
    query->visited = query->asked = query->accepted = 0;
    query->met_zero = false;
    if (IQ_ATOMIC_LOAD(&graph->entry) == 0) return 0;
    int16_t *wide = (int16_t *)(void *)(turned + 2 * (size_t)graph->dims);
    int8_t *words = (int8_t *)(void *)(wide + graph->dims);
    const bool dot = graph->base.metric == IQDB_DOT;
    iq_graph_turn(graph, query->vector, query->norm, !dot, turned, turned + graph->dims);
    iq_graph_probe_make(graph, turned, words, wide, &probe);
    probe.dot = dot;
    iq_graph_walk_start(&walk, query->beam, query->keep, query->moment,
                        (uint8_t *)query->memory + iq_graph_probe_bytes(graph));
    walk.flat = query->flat;
    if (query->self != IQ_ROW_NONE) (void)iq_graph_see(&walk, query->self);
    iq_graph_walk_run(graph, &probe, &walk);
    query->found = walk.best.rows;
    query->visited = walk.visited;
    query->asked = walk.asked;
    query->accepted = walk.accepted;
    query->met_zero = walk.met_zero;
    return walk.best.count;
}
