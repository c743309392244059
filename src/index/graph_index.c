/* The graph as an index of a collection.
 *
 * 1. A search begins with a beam that is as wide as it is told, or as calibrated. Where that leaves room among its hits,
 *    or conditions accept few of the rows that come near, it begins again with a wider one; and where so few match that a
 *    scan costs no more, it leaves them to that. So there are always as many hits as records that match.
 * 2. The nearest nodes by their codes, some more than hits are wanted, are scored by their vectors: what a code is off
 *    by loses a hit only where that many others come before it.
 * 3. Searches that see rows which the graph may not lead to are left to a scan: sound_from.
 * 4. Rows that are dead and still seen by somebody stay nodes, and take no place among the best of those who do not see
 *    them. */
#include "index/graph.h"
#include "kernel/strict.h"

enum {
    IQ_GRAPH_BEAM = 100, /* while nothing is calibrated */
    IQ_GRAPH_BEAM_MAX = 4096,
    IQ_GRAPH_K_MAX = 2048,
    IQ_GRAPH_BEAM_ROWS = 64, /* a beam of one row in so many takes as long as a scan of all codes */
    IQ_GRAPH_BEAM_MIN = 256, /* up to here it may be widened among few rows, too */
    IQ_GRAPH_FETCHED = 4,
    IQ_GRAPH_TRIED = 14, /* rows that are scored, where ten are wanted */
    IQ_GRAPH_UNITS = 16  /* of work that a vector of a calibration is, where a row to be taken in is one */
};

static size_t iq_graph_hits_bytes(const iq_index *base, size_t k) {
    const iq_graph *graph = (const iq_graph *)(const void *)base;
    if (k > IQ_GRAPH_K_MAX || IQ_ATOMIC_LOAD(&graph->entry) == 0) return 0;
    return iq_graph_search_bytes(graph, IQ_GRAPH_BEAM_MAX, IQ_GRAPH_BEAM_MAX);
}

/* What is calibrated is for ten. More are missed at the rim of the beam, which is as wide as the root of what is in it. */
static uint32_t iq_graph_effort(const iq_graph *graph, const iq_index_query *query) {
    const size_t k = query->flat->probes[query->which].topk.capacity;
    const uint32_t calibrated = IQ_ATOMIC_LOAD(&graph->base.efforts[query->recall]);
    size_t beam = query->effort != 0 ? query->effort : calibrated != 0 ? calibrated : (size_t)IQ_GRAPH_BEAM;
    if (query->effort == 0 && k > 10) {
        const double rim = beam > 10 ? (double)(beam - 10) * iq_sqrt_f64((double)k / 10.0) : 0.0;
        beam = k + (size_t)rim;
    }
    if (beam < k) beam = k;
    return beam < IQ_GRAPH_BEAM_MAX ? (uint32_t)beam : (uint32_t)IQ_GRAPH_BEAM_MAX;
}

/* Offers what was found, but for what the topk had before: `had` says whether it did. */
static void iq_graph_offer(const iq_index_query *query, const uint32_t *found, uint32_t count, bool had) {
    const iq_flat_query *flat = query->flat;
    const iq_topk *topk = &flat->probes[query->which].topk;
    for (uint32_t i = 0; i < count; i++) {
        bool known = false;
        if (i + IQ_GRAPH_FETCHED < count)
            iq_rows_prefetch(flat->rows, iq_rows_spot(flat->rows, found[i + IQ_GRAPH_FETCHED]));
        for (size_t j = 0; had && j < topk->count; j++) known = known || topk->hits[j].payload.size == found[i];
        if (!known) iq_flat_offer_row(flat, query->which, iq_rows_spot(flat->rows, found[i]), true);
    }
}

/* How many of what was found lie up to the last hit. */
static uint32_t iq_graph_reach(const iq_topk *topk, const uint32_t *found, uint32_t count) {
    for (; count > 0; count--)
        for (size_t i = 0; i < topk->count; i++)
            if (topk->hits[i].payload.size == found[count - 1]) return count;
    return 0;
}

/* The next beam behind one that has found too little; 0: a scan is better. */
static uint32_t iq_graph_wider(const iq_graph_query *last, bool is_full) {
    uint32_t most = last->flat->row_count / IQ_GRAPH_BEAM_ROWS;
    if (most < IQ_GRAPH_BEAM_MIN) most = IQ_GRAPH_BEAM_MIN;
    if (most > IQ_GRAPH_BEAM_MAX) most = IQ_GRAPH_BEAM_MAX;
    const double part = (double)(last->accepted + 1) / (double)(last->asked + 1);
    double beam = (double)last->beam / part + 1.0;
    if (!is_full && beam < 4.0 * (double)last->beam) beam = 4.0 * (double)last->beam;
    return beam > (double)most ? 0 : (uint32_t)beam;
}

/* For COSINE all rows score 1 from a zero vector, and no walk knows which of them have the lowest ids. */
static bool iq_graph_says_nothing(const iq_index *base, const iq_flat_probe *probe) {
    return base->metric == IQDB_COSINE && probe->norm == 0.0f;
}

static bool iq_graph_search_for(const iq_index *base, iq_index_query *query) {
    const iq_graph *graph = (const iq_graph *)(const void *)base;
    const iq_flat_query *flat = query->flat;
    const iq_flat_probe *probe = &flat->probes[query->which];
    const iq_topk *topk = &probe->topk;
    const uint32_t k = (uint32_t)topk->capacity, spare = k + k / 5 + 2;
    bool had = topk->count > 0;
    iq_graph_query walk;
    if (flat->metric != base->metric || iq_graph_says_nothing(base, probe) ||
        flat->moment < IQ_ATOMIC_LOAD(&graph->sound_from) || k > IQ_GRAPH_K_MAX ||
        query->size_bytes < iq_graph_search_bytes(graph, IQ_GRAPH_BEAM_MAX, IQ_GRAPH_BEAM_MAX))
        return false;
    memset(&walk, 0, sizeof walk);
    walk.self = IQ_ROW_NONE;
    walk.moment = flat->moment;
    walk.flat = flat;
    walk.vector = flat->vectors + query->which * flat->rows->stride;
    walk.norm = probe->norm;
    walk.memory = query->memory;
    for (uint32_t beam = iq_graph_effort(graph, query), first = beam; beam != 0; had = true) {
        walk.beam = beam;
        walk.keep = spare < 12 ? 12 : spare < beam ? spare : beam;
        if (flat->after != NULL) walk.keep = beam; /* which rows rank behind it codes do not know */
        const uint32_t count = iq_graph_search(graph, &walk);
        query->visited += walk.visited;
        iq_graph_offer(query, walk.found, count, had);
        bool is_full = topk->count == topk->capacity && count >= topk->capacity;
        /* Far out in a beam much is missing: behind other hits, these count like hits. */
        if (flat->after != NULL && iq_graph_reach(topk, walk.found, count) + (first - k) > beam) is_full = false;
        if (iq_limit_reached(flat->limit)) return true;
        if (is_full && walk.met_zero && !(iq_topk_threshold(topk) < 1.0f)) return false; /* they may be hits */
        if (is_full && (beam > first || walk.accepted >= walk.asked - walk.asked / 4)) return true;
        beam = iq_graph_wider(&walk, is_full);
    }
    return false;
}

/* ---- the contract ---- */

static void iq_graph_end(iq_index *base) {
    iq_graph *graph = (iq_graph *)(void *)base;
    const iqdb_allocator *allocator = base->allocator;
    iq_index_end_calibration(base);
    iq_graph_free(graph);
    iq_free(allocator, graph, sizeof *graph, IQ_CACHE_LINE);
}

static void iq_graph_note(iq_graph *graph, uint32_t row, bool indexed) {
    const iq_spot spot = iq_rows_spot(graph->base.rows, row);
    if ((iq_bits_at(spot.slab->indexed, spot.index, spot.index + 1) != 0) != indexed)
        iq_rows_set_indexed(graph->base.rows, spot.slab, spot.index, indexed);
}

static void iq_graph_lose(uint32_t row, void *user) { iq_graph_note((iq_graph *)user, row, false); }

/* When there are twice as many nodes as the last time, or all are in that there are; not of so few that a walk meets
 * all of them anyhow. */
static bool iq_graph_is_to_calibrate(const iq_graph *graph) {
    const size_t last = graph->calibrated, growth = graph->base.rows->fresh == 0 ? last / 4 : last;
    return graph->base.calibration.memory != NULL ||
           (graph->count >= 256 && (graph->count > last + growth || graph->count < last / 4));
}

static void iq_graph_count_bytes(iq_graph *graph) {
    graph->base.bytes -= graph->counted;
    graph->counted = iq_graph_bytes(graph);
    graph->base.bytes += graph->counted;
}

static bool iq_graph_work(iq_index *base, iq_limit *limit) {
    iq_graph *graph = (iq_graph *)(void *)base;
    bool done = false, whole = true;
    if (iq_index_is_held(base)) iq_graph_collect(graph);
    while (!done && whole && !iq_index_is_held(base)) {
        const bool sound = graph->sound_from != IQ_MOMENT_NEVER, calibrates = sound && iq_graph_is_to_calibrate(graph);
        const uint32_t row = !sound || calibrates ? IQ_ROW_NONE : iq_index_next_fresh(base);
        if (!sound) {
            done = iq_graph_heal(graph, iq_graph_lose, graph) && graph->sound_from == IQ_MOMENT_NEVER;
        } else if (calibrates) {
            if (iq_index_calibrate(base)) graph->calibrated = graph->count;
            if (limit != NULL) limit->units += IQ_GRAPH_UNITS - 1;
        } else {
            done = row == IQ_ROW_NONE || iq_graph_insert(graph, row) != IQDB_OK;
            if (!done) iq_graph_note(graph, row, true);
            base->unstored += !done;
        }
        whole = done || !iq_limit_reached(limit);
    }
    iq_graph_collect(graph);
    iq_graph_count_bytes(graph);
    return whole;
}

static void iq_graph_drop(iq_index *base, uint32_t row) { iq_graph_remove((iq_graph *)(void *)base, row); }

static void iq_graph_describe(const iq_index *base, iq_index_facts *out_facts) {
    memset(out_facts, 0, sizeof *out_facts);
    const iq_graph *graph = (const iq_graph *)(const void *)base;
    size_t unreachable = 0;
    if (graph->sound_from == IQ_MOMENT_NEVER) (void)iq_graph_count_unreachable(graph, &unreachable);
    out_facts->rows = graph->count;
    out_facts->unreachable = unreachable;
}

static const char *iq_graph_check_rows(const iq_index *base) {
    const iq_graph *graph = (const iq_graph *)(const void *)base;
    size_t unreachable, marked = 0;
    const char *wrong = iq_graph_check(graph, &unreachable);
    if (wrong != NULL) return wrong;
    for (uint32_t row = 0; row < base->rows->count; row++) {
        const iq_spot spot = iq_rows_spot(base->rows, row);
        if (iq_bits_at(spot.slab->indexed, spot.index, spot.index + 1) == 0) continue;
        if (!iq_graph_has(graph, row)) return "a row is marked that is not in the graph";
        marked++;
    }
    if (marked != graph->count) return "the graph has a row that is not marked";
    return unreachable > 0 && graph->sound_from != IQ_MOMENT_NEVER ? "no way through the graph leads to a row" : NULL;
}

/* How many of what it finds is no farther than `worst`. */
static uint32_t iq_graph_try(const iq_graph *graph, const iq_index_query *query, iq_graph_query *walk, float worst) {
    iqdb_hit hits[IQ_GRAPH_TRIED];
    iq_topk *topk = &query->flat->probes->topk;
    uint32_t inside = 0;
    iq_topk_start(topk, hits, IQ_GRAPH_TRIED);
    const uint32_t found = iq_graph_search(graph, walk);
    iq_graph_offer(query, walk->found, found, false);
    for (size_t i = 0; i < topk->count; i++) inside += topk->hits[i].score <= worst;
    return inside;
}

/* Walks with wider and wider beams, until some in a row have found all. So many are found from the beam on behind which
 * none has found fewer: a walk may be lucky. */
static uint32_t iq_graph_need(const iq_index *base, const iq_index_query *query, const iqdb_hit *hits, uint32_t count,
                              uint32_t *out_efforts) {
    const iq_graph *graph = (const iq_graph *)(const void *)base;
    uint32_t known = 0, sure = 0, inside, sum = 0;
    float worst = 0.0f;
    iq_graph_query walk;
    memset(&walk, 0, sizeof walk);
    walk.self = query->self;
    walk.moment = IQ_MOMENT_LAST;
    walk.vector = query->flat->vectors;
    walk.norm = query->flat->probes->norm;
    walk.memory = query->memory;
    walk.keep = IQ_GRAPH_TRIED;
    if (iq_graph_says_nothing(base, query->flat->probes)) return 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t row = (uint32_t)hits[i].payload.size;
        const iq_spot spot = iq_rows_spot(base->rows, row);
        const bool is_zero = base->metric == IQDB_COSINE && spot.slab->norms[spot.index] == 0.0f;
        if (is_zero || !iq_graph_has(graph, row)) continue;
        worst = hits[i].score;
        out_efforts[known++] = IQ_GRAPH_BEAM_MAX;
    }
    for (uint32_t beam = 8; sum < IQ_GRAPH_BEAM_MAX && sure < 4; sum += beam, beam += beam / 8) {
        walk.beam = beam;
        inside = iq_graph_try(graph, query, &walk, worst);
        for (uint32_t i = 0; i < known; i++)
            if ((i < inside) != (out_efforts[i] < IQ_GRAPH_BEAM_MAX))
                out_efforts[i] = i < inside ? beam : (uint32_t)IQ_GRAPH_BEAM_MAX;
        sure = inside < known ? 0 : sure + 1;
    }
    return known;
}

static iqdb_result iq_graph_restore(iq_index *base, const iq_index_load *load) {
    iq_graph *graph = (iq_graph *)(void *)base;
    const iqdb_result result = iq_graph_load(base, load);
    for (uint32_t row = 0; row < load->row_count && result == IQDB_OK; row++)
        if (iq_graph_has(graph, row)) iq_graph_note(graph, row, true);
    base->unstored = 0;
    iq_graph_count_bytes(graph);
    return result;
}

static const iq_index_ops iq_graph_ops = {
    IQDB_INDEX_HNSW,   iq_graph_end,        iq_graph_work, iq_graph_drop,    iq_graph_hits_bytes, iq_graph_search_for,
    iq_graph_describe, iq_graph_check_rows, iq_graph_need, iq_graph_measure, iq_graph_save,       iq_graph_restore};

IQ_FN iq_index *iq_graph_make(const iq_index *base, const iq_links *links) {
    iq_graph own;
    if (links == NULL || !iq_graph_init(&own, base, links)) return NULL;
    iq_graph *graph = (iq_graph *)iq_alloc_zeroed(base->allocator, sizeof own, IQ_CACHE_LINE);
    if (graph == NULL) return NULL;
    own.base.ops = &iq_graph_ops;
    *graph = own;
    return &graph->base;
}
