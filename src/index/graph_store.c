/* The graph in a section, and from there: its nodes as they are in memory, by places in the place of rows. What reads one
 * takes links for what they say only where both ends say it; so any bytes are a graph, though perhaps one that is to be
 * healed. While it is saved, nodes without a place may go, and others get a link for that: so each of two nodes is saved
 * with the link or without. */
#include "base/bytes.h"
#include "index/graph.h"
#include "persist/sections.h"

#define IQ_GRAPH_STORED_ROWS 1024u /* looked at in a unit of work; of those that are in the graph, */
#define IQ_GRAPH_STORED_NODES 64u  /* nodes in one of writing */

static uint64_t iq_graph_nodes_at(const iq_graph *graph) {
    return iq_round_up(IQ_GRAPH_HEAD + iq_graph_frame_bytes(graph), IQ_CACHE_LINE);
}

/* From the order of bytes that memory has to that of files, and back. */
static void iq_graph_swap(iq_node *node) {
    uint8_t *bytes = (uint8_t *)(void *)node->factors;
    if (!IQ_BIG_ENDIAN) return;
    iq_copy_words_le(node, node, offsetof(iq_node, factors) / 4);
    for (uint32_t i = 0; i < 2 * IQ_LINKS; i += 2) {
        const uint8_t low = bytes[i];
        bytes[i] = bytes[i + 1];
        bytes[i + 1] = low;
    }
}

/* The next row from save->at on, within a unit of work, that has a node and a place. */
static const iq_node *iq_graph_next_stored(const iq_graph *graph, iq_index_save *save) {
    for (uint32_t end = save->at + IQ_GRAPH_STORED_ROWS; save->at < end && save->at < graph->place_count;) {
        const uint32_t row = save->at++;
        if (iq_place_of(save->places, row) != IQ_ROW_NONE && iq_graph_node(graph, row) != NULL)
            return iq_graph_node(graph, row);
    }
    return NULL;
}

static void iq_graph_save_node(const iq_graph *graph, const iq_index_save *save, const iq_node *node) {
    iq_node *copy = (iq_node *)(void *)graph->scratch;
    memcpy(copy, node, graph->block_bytes);
    memset(copy->rest, 0, sizeof copy->rest);
    if (node->row != IQ_ROW_NONE) copy->row = iq_place_of(save->places, node->row);
    copy->count = 0;
    for (uint32_t i = 0; i < IQ_LINKS; i++) {
        const uint32_t row = node->links[i];
        copy->links[i] = row == IQ_ROW_NONE ? IQ_ROW_NONE : iq_place_of(save->places, row);
        copy->count += copy->links[i] != IQ_ROW_NONE;
    }
    iq_graph_swap(copy);
    (void)iq_snapshot_write(save->writer, copy, graph->block_bytes);
}

IQ_FN bool iq_graph_measure(iq_index *base, iq_index_save *save) {
    const iq_graph *graph = (const iq_graph *)(const void *)base;
    if (graph->entry == 0) return true;
    if (save->at == 0) save->size = iq_graph_nodes_at(graph) + graph->block_bytes;
    const uint32_t end = save->at + IQ_GRAPH_STORED_ROWS;
    while (save->at < end && save->at < graph->place_count)
        if (iq_graph_next_stored(graph, save) != NULL) save->size += graph->block_bytes;
    return save->at >= graph->place_count;
}

static void iq_graph_save_head(const iq_graph *graph, const iq_index_save *save) {
    uint8_t head[IQ_GRAPH_HEAD] = {0};
    const size_t frame = iq_graph_frame_bytes(graph), end = (size_t)iq_graph_nodes_at(graph) - IQ_GRAPH_HEAD;
    float *words = (float *)(void *)graph->scratch;
    iq_put_u32(head, IQ_INDEX_TAG_GRAPH);
    iq_put_u32(head + IQ_GRAPH_DIMS_AT, graph->dims);
    iq_put_u32(head + IQ_GRAPH_M_AT, graph->base.knobs.m);
    iq_put_u32(head + IQ_GRAPH_EF_AT, graph->base.knobs.ef_construction);
    iq_put_u64(head + IQ_GRAPH_SEED_AT, graph->base.knobs.seed);
    iq_put_u64(head + IQ_GRAPH_BORN_AT, graph->born);
    iq_put_u32(head + IQ_GRAPH_SCALE_AT, iq_f32_bits(graph->scale));
    iq_put_u32(head + IQ_GRAPH_CALIBRATED_AT, (uint32_t)graph->calibrated);
    for (uint32_t i = 0; i < IQ_RECALLS; i++) iq_put_u32(head + IQ_GRAPH_BEAMS_AT + i * 4, graph->base.efforts[i]);
    iq_put_u32(head + IQ_GRAPH_WISH_AT, iq_f32_bits(graph->base.wish));
    iq_put_u32(head + IQ_GRAPH_STRETCH_AT, iq_f32_bits(graph->base.stretch));
    (void)iq_snapshot_write(save->writer, head, sizeof head);
    memcpy(words, graph->frame, frame);
    if (IQ_BIG_ENDIAN) iq_copy_words_le(words, words, frame / 4);
    (void)iq_snapshot_write(save->writer, words, frame);
    (void)iq_snapshot_write(save->writer, NULL, end - frame);
}

/* Head, frame and entry, then nodes. Errors of the writer are sticky. */
IQ_FN iqdb_result iq_graph_save(iq_index *base, iq_index_save *save, bool *out_done) {
    const iq_graph *graph = (const iq_graph *)(const void *)base;
    if (save->phase == 0) {
        iq_graph_save_head(graph, save);
        iq_graph_save_node(graph, save, iq_graph_block(graph, graph->entry - 1));
        save->phase = 1;
    }
    for (uint32_t i = 0; i < IQ_GRAPH_STORED_NODES; i++) {
        const iq_node *node = iq_graph_next_stored(graph, save);
        if (node == NULL) break;
        iq_graph_save_node(graph, save, node);
    }
    *out_done = save->at >= graph->place_count;
    return iq_snapshot_write(save->writer, NULL, 0);
}

static bool iq_graph_is_small(float value) { return value > -3.3e38f && value < 3.3e38f; }

/* A centre, and signs: what is turned by these stays as long as it was, so that no sum of it is infinite. */
static bool iq_graph_frame_is_sound(const iq_graph *graph) {
    for (uint32_t i = 0; i < 3 * graph->dims; i++) {
        const float value = graph->frame[i];
        if (i < graph->dims ? !iq_graph_is_small(value) : value != 1.0f && value != -1.0f) return false;
    }
    return true;
}

static iqdb_result iq_graph_load_head(iq_graph *graph, const iq_index_load *load) {
    uint8_t head[IQ_GRAPH_HEAD];
    iq_index *base = &graph->base;
    iqdb_result result = iq_index_read(load, 0, head, sizeof head);
    if (result != IQDB_OK) return result;
    const uint64_t nodes_at = iq_graph_nodes_at(graph);
    const float scale = iq_f32_from_bits(iq_get_u32(head + IQ_GRAPH_SCALE_AT));
    const float wish = iq_f32_from_bits(iq_get_u32(head + IQ_GRAPH_WISH_AT));
    const float stretch = iq_f32_from_bits(iq_get_u32(head + IQ_GRAPH_STRETCH_AT));
    if (iq_get_u32(head + IQ_GRAPH_DIMS_AT) != graph->dims || load->size < nodes_at + graph->block_bytes ||
        (load->size - nodes_at) % graph->block_bytes != 0 || load->row_count >> 31 != 0 ||
        (load->size - nodes_at) / graph->block_bytes - 1 > load->row_count || !(scale > 0.0f && scale < 1e30f) ||
        !iq_index_wishes_well(wish, stretch) || iq_get_u64(head + IQ_GRAPH_BORN_AT) >> 62 != 0)
        return iq_index_reject(load, 0, "the graph makes no sense");
    base->knobs.m = iq_get_u32(head + IQ_GRAPH_M_AT);
    base->knobs.ef_construction = iq_get_u32(head + IQ_GRAPH_EF_AT);
    base->knobs.seed = iq_get_u64(head + IQ_GRAPH_SEED_AT);
    iq_graph_set_knobs(graph);
    graph->born = iq_get_u64(head + IQ_GRAPH_BORN_AT);
    graph->calibrated = iq_get_u32(head + IQ_GRAPH_CALIBRATED_AT);
    for (uint32_t i = 0; i < IQ_RECALLS; i++) base->efforts[i] = iq_get_u32(head + IQ_GRAPH_BEAMS_AT + i * 4);
    base->wish = wish;
    base->stretch = stretch;
    if (load->row_count > 0 && !iq_graph_prepare(graph, load->row_count - 1)) return IQDB_ERR_NOMEM;
    graph->scale = scale;
    result = iq_index_read(load, IQ_GRAPH_HEAD, graph->frame, iq_graph_frame_bytes(graph));
    if (IQ_BIG_ENDIAN) iq_copy_words_le(graph->frame, graph->frame, iq_graph_frame_bytes(graph) / 4);
    if (result == IQDB_OK && !iq_graph_frame_is_sound(graph))
        result = iq_index_reject(load, IQ_GRAPH_HEAD, "the frame makes no sense");
    return result;
}

/* The node at an offset: NULL, or what is wrong with it alone. */
static const char *iq_graph_complaint(const iq_graph *graph, const iq_node *node, uint32_t row_count, bool is_entry) {
    if (is_entry != (node->row == IQ_ROW_NONE) || (!is_entry && node->row >= row_count)) return "a node is of no row";
    if (!is_entry && graph->places[node->row] != 0) return "a row has two nodes";
    uint32_t count = 0;
    bool whole = iq_graph_is_small(node->offset) && iq_graph_is_small(node->step) && iq_graph_is_small(node->square);
    for (uint32_t i = 0; i < IQ_LINKS; i++) {
        const uint32_t other = node->links[i];
        whole = whole && iq_graph_is_small(node->adds[i]) && node->factors[i] < 0x7F80u;
        if (other == IQ_ROW_NONE) continue;
        if (other >= row_count || other == node->row || iq_node_slot(node, other) != i) return "a link makes no sense";
        count++;
    }
    if (!is_entry && count > graph->degree) return "a node has too many links";
    return whole ? NULL : "a code is no number";
}

/* Ends links that only one end knows, or that lead nowhere. */
static void iq_graph_agree(iq_graph *graph, iq_node *node) {
    node->count = 0;
    for (uint32_t i = 0; i < IQ_LINKS; i++) {
        const uint32_t other = node->links[i];
        const iq_node *end = other == IQ_ROW_NONE ? NULL : iq_graph_node(graph, other);
        if (end == NULL || (node->row != IQ_ROW_NONE && iq_node_slot(end, node->row) == IQ_LINKS))
            node->links[i] = IQ_ROW_NONE;
        node->count += node->links[i] != IQ_ROW_NONE;
    }
}

IQ_FN iqdb_result iq_graph_load(iq_index *base, const iq_index_load *load) {
    iq_graph *graph = (iq_graph *)(void *)base;
    iqdb_result result = iq_graph_load_head(graph, load);
    size_t unreachable;
    for (uint64_t at = iq_graph_nodes_at(graph); result == IQDB_OK && at < load->size; at += graph->block_bytes) {
        const bool is_entry = graph->entry == 0;
        if (!iq_graph_reserve(graph, 1)) return IQDB_ERR_NOMEM;
        const uint32_t block = iq_graph_take(graph);
        iq_node *node = iq_graph_block(graph, block);
        result = iq_index_read(load, at, node, graph->block_bytes);
        if (result != IQDB_OK) return result;
        iq_graph_swap(node);
        const char *wrong = iq_graph_complaint(graph, node, load->row_count, is_entry);
        if (wrong != NULL) return iq_index_reject(load, at, wrong);
        iq_graph_put(graph, block);
        graph->count += !is_entry;
    }
    if (result != IQDB_OK) return result;
    iq_graph_agree(graph, iq_graph_block(graph, graph->entry - 1));
    for (uint32_t row = 0; row < load->row_count; row++)
        if (iq_graph_has(graph, row)) iq_graph_agree(graph, iq_graph_node(graph, row));
    if (!iq_graph_count_unreachable(graph, &unreachable)) return IQDB_ERR_NOMEM;
    if (graph->born < graph->count) graph->born = graph->count;
    if (unreachable > 0) graph->sound_from = IQ_MOMENT_NEVER;
    return IQDB_OK;
}
