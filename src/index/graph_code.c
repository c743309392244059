/* Codes of the graph: a row's own, a byte a dimension, and those of its neighbours, 2 bits a dimension of what leads
 * from it to them.
 *
 * 1. Vectors are moved by a centre and turned before they are coded, so that no few dimensions hold what matters: twice
 *    signs that a seed gives, and a Walsh-Hadamard transform of blocks; between the two, blocks are interleaved. Only
 *    sums, differences and powers of two: the same bits on every machine.
 * 2. The own codes are the graph's truth: all distances between nodes are those of what the codes stand for, x below.
 * 3. From node c to neighbour x leads r = x - c. Its code is v, of elements -3, -1, 1, 3; <q - c, r> is taken for
 *    <q - c, v> <r, r> / <r, v>, which is right where q - c is r itself and unbiased over turns (Gao, Long, "RaBitQ",
 *    SIGMOD 2024, section 3.2; here with two bits, and relative to a node as in Gou et al., "SymphonyQG", SIGMOD 2025).
 *    |q - x|^2 = |q - c|^2 + |r|^2 - 2 <q - c, r>, so with factor = 2 <r, r> / <r, v> and
 *    add = |r|^2 + factor <c, v> the key is |q - c|^2 + (add - factor <q, v>).
 * 4. Products are <q, x> = <q, c> + <q, r>: for DOT the key is -2 <q, c> - factor <q, v>, without any add. A query is
 *    not moved there: its product with the centre is the same for all rows. */
#include "index/graph.h"
#include "kernel/strict.h"

#define IQ_GRAPH_SAMPLE 256u /* rows whose middle is the centre */
#define IQ_GRAPH_FAR 1e12f   /* elements beyond it are cut off, so that no square is infinite */

/* What follows goes by chunks of so many dimensions: loops over arrays of their own that compilers turn into vectors. */
#define IQ_GRAPH_CHUNK IQ_LINK_DIMS

/* Butterflies of elements that are at least four apart, unscaled; count is a power of two. */
static void iq_graph_transform(float *x, size_t count) {
    for (size_t half = 4; half < count; half *= 2) {
        for (size_t i = 0; i < count; i += 2 * half) {
            for (size_t j = i; j < i + half; j += 4) {
                float a[4], b[4], sums[4], differences[4];
                memcpy(a, x + j, sizeof a);
                memcpy(b, x + j + half, sizeof b);
                for (int k = 0; k < 4; k++) sums[k] = a[k] + b[k];
                for (int k = 0; k < 4; k++) differences[k] = a[k] - b[k];
                memcpy(x + j, sums, sizeof sums);
                memcpy(x + j + half, differences, sizeof differences);
            }
        }
    }
}

/* Moves, where it does, and scales; what is too far is cut off. */
static void iq_graph_place(const iq_graph *graph, const float *vector, float norm, bool moves, float *out) {
    const size_t stride = graph->base.rows->stride;
    const float scale = graph->scale;
    for (size_t from = 0; from < graph->dims; from += IQ_GRAPH_CHUNK) {
        float x[IQ_GRAPH_CHUNK], centre[IQ_GRAPH_CHUNK];
        const size_t count = stride <= from ? 0 : stride - from < IQ_GRAPH_CHUNK ? stride - from : IQ_GRAPH_CHUNK;
        memset(x, 0, sizeof x);
        memset(centre, 0, sizeof centre);
        if (graph->base.metric != IQDB_COSINE || norm > 0.0f) memcpy(x, vector + from, count * sizeof *x);
        if (moves) memcpy(centre, graph->frame + from, sizeof centre);
        if (graph->base.metric == IQDB_COSINE && norm > 0.0f)
            for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) x[i] /= norm;
        IQ_STRICT_MEMORY(x);
        for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) {
            const float moved = (x[i] - centre[i]) * scale;
            const float low = moved < -IQ_GRAPH_FAR ? -IQ_GRAPH_FAR : moved;
            x[i] = low > IQ_GRAPH_FAR ? IQ_GRAPH_FAR : low;
        }
        memcpy(out + from, x, sizeof x);
    }
}

IQ_FN void iq_graph_set_frame(iq_graph *graph) {
    const iq_rows *rows = graph->base.rows;
    float *centre = graph->frame, *signs = centre + graph->dims;
    uint32_t index, count = 0;
    for (size_t i = 0; i < 2 * (size_t)graph->dims; i++)
        signs[i] = (iq_hash_u64(graph->base.knobs.seed + i) & 1) != 0 ? 1.0f : -1.0f;
    memset(centre, 0, graph->dims * sizeof *centre);
    graph->scale = 1.0f;
    float *out = (float *)(void *)graph->scratch, *sum = out + graph->dims;
    memset(sum, 0, graph->dims * sizeof *sum);
    double squares = 0;
    for (uint32_t row = 0; row < rows->count && count < IQ_GRAPH_SAMPLE; row++) {
        const iq_slab *slab = iq_rows_slab(rows, row, &index);
        if (iq_bits_at(slab->filled, index, index + 1) == 0) continue;
        iq_graph_place(graph, slab->vectors + index * rows->stride, slab->norms[index], true, out);
        for (uint32_t i = 0; i < graph->dims; i++) sum[i] += out[i];
        squares += (double)graph->base.kernel->pair(out, out, graph->dims, IQ_SUM_PRODUCTS);
        count++;
    }
    for (uint32_t i = 0; count > 0 && i < graph->dims; i++) centre[i] = sum[i] / (float)count;
    /* A power of two that makes elements about 1, and with it what two transforms multiply by. */
    double mean = count == 0 ? 0.0 : squares / count / graph->dims;
    float scale = 16.0f / (float)graph->turn;
    for (int i = 0; i < 60 && mean > 1.0; i++, mean *= 0.25) scale *= 0.5f;
    for (int i = 0; i < 60 && mean > 0.0 && mean < 0.25; i++, mean *= 4.0) scale *= 2.0f;
    graph->scale = scale;
}

/* The transform leaves alone the two lowest bits of an index and what is above its blocks; so these change places with
 * others between the two. */
IQ_FN void iq_graph_turn(const iq_graph *graph, const float *vector, float norm, bool moves, float *out, float *spare) {
    const uint32_t dims = graph->dims, turn = graph->turn, blocks = dims / turn, part = turn / 4;
    const float *signs = graph->frame + dims;
    iq_graph_place(graph, vector, norm, moves, spare);
    for (uint32_t i = 0; i < dims; i++) spare[i] *= signs[i];
    for (uint32_t b = 0; b < blocks; b++) iq_graph_transform(spare + (size_t)b * turn, turn);
    signs += dims;
    for (uint32_t run = 0; run < 4 * blocks; run++) {
        const float *from = spare + run % blocks * turn + run / blocks;
        for (uint32_t i = 0; i < part; i++) out[run * part + i] = from[4 * i] * signs[run * part + i];
    }
    for (uint32_t b = 0; b < blocks; b++) iq_graph_transform(out + (size_t)b * turn, turn);
}

/* The smallest and the largest of all elements. */
static void iq_graph_range(const float *x, uint32_t dims, float *out_low, float *out_high) {
    float low[8], high[8];
    memcpy(low, x, sizeof low);
    memcpy(high, x, sizeof high);
    for (const float *end = x + dims; x < end; x += 8) {
        float eight[8];
        memcpy(eight, x, sizeof eight);
        for (int i = 0; i < 8; i++) low[i] = eight[i] < low[i] ? eight[i] : low[i];
        for (int i = 0; i < 8; i++) high[i] = eight[i] > high[i] ? eight[i] : high[i];
    }
    for (int i = 1; i < 8; i++) {
        low[0] = low[i] < low[0] ? low[i] : low[0];
        high[0] = high[i] > high[0] ? high[i] : high[0];
    }
    *out_low = low[0];
    *out_high = high[0];
}

/* The integers nearest to (x - low) * factor, which are not negative. */
static void iq_graph_round(const float *x, float low, float factor, int32_t *out) {
    float chunk[IQ_GRAPH_CHUNK];
    int32_t rounded[IQ_GRAPH_CHUNK];
    memcpy(chunk, x, sizeof chunk);
    for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) chunk[i] = (chunk[i] - low) * factor;
    IQ_STRICT_MEMORY(chunk);
    for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) rounded[i] = (int32_t)(chunk[i] + 0.5f);
    memcpy(out, rounded, sizeof rounded);
}

IQ_FN void iq_graph_encode(const iq_graph *graph, const float *turned, iq_node *node) {
    uint8_t *code = iq_node_code(node);
    float low, high;
    int32_t sum = 0, squares = 0, rounded[IQ_GRAPH_CHUNK];
    iq_graph_range(turned, graph->dims, &low, &high);
    const float range = iq_strict_f32(high - low), factor = range > 1e-30f ? iq_strict_f32(255.0f / range) : 0.0f;
    for (uint32_t from = 0; from < graph->dims; from += IQ_GRAPH_CHUNK) {
        uint8_t bytes[IQ_GRAPH_CHUNK];
        iq_graph_round(turned + from, low, factor, rounded);
        for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) rounded[i] = rounded[i] > 255 ? 255 : rounded[i];
        for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) bytes[i] = (uint8_t)rounded[i];
        for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) sum += rounded[i];
        for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) squares += rounded[i] * rounded[i];
        memcpy(code + from, bytes, sizeof bytes);
    }
    node->offset = low;
    node->step = factor > 0.0f ? iq_strict_f32(range / 255.0f) : 0.0f;
    node->sum = (uint32_t)sum;
    const double o = (double)low, s = (double)node->step;
    const double a = iq_strict_f64(iq_strict_f64(o * o) * graph->dims),
                 b = iq_strict_f64(iq_strict_f64(2 * o * s) * sum);
    node->square = (float)(iq_strict_f64(a + b) + iq_strict_f64(iq_strict_f64(s * s) * squares));
}

IQ_FN void iq_graph_probe_make(const iq_graph *graph, const float *turned, int8_t *words, int16_t *wide,
                               iq_graph_probe *out_probe) {
    float low, high;
    int32_t sum = 0, wide_sum = 0, rounded[IQ_GRAPH_CHUNK];
    int64_t squares = 0;
    iq_graph_range(turned, graph->dims, &low, &high);
    const float most = -low > high ? -low : high;
    const float narrow = most > 1e-30f ? iq_strict_f32((float)IQ_LINK_WORD_MAX / most) : 0.0f;
    const float broad = most > 1e-30f ? iq_strict_f32((float)IQ_LINK_WIDE_MAX / most) : 0.0f;
    for (uint32_t from = 0; from < graph->dims; from += IQ_GRAPH_CHUNK) {
        int8_t bytes[IQ_GRAPH_CHUNK];
        int16_t shorts[IQ_GRAPH_CHUNK];
        int32_t square = 0;
        iq_graph_round(turned + from, -most, narrow, rounded);
        const int32_t middle = narrow > 0.0f ? IQ_LINK_WORD_MAX : 0, far_middle = narrow > 0.0f ? IQ_LINK_WIDE_MAX : 0;
        for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) rounded[i] -= middle;
        for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) bytes[i] = (int8_t)rounded[i];
        for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) sum += rounded[i];
        iq_graph_round(turned + from, -most, broad, rounded);
        for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) rounded[i] -= far_middle;
        for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) shorts[i] = (int16_t)rounded[i];
        for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) wide_sum += rounded[i];
        for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) square += rounded[i] * rounded[i];
        squares += square;
        memcpy(words + from, bytes, sizeof bytes);
        memcpy(wide + from, shorts, sizeof shorts);
    }
    out_probe->link.words = words;
    out_probe->link.wide = wide;
    out_probe->link.dims = graph->dims;
    out_probe->link.centre = 3 * sum;
    out_probe->link.scale = most / (float)IQ_LINK_WORD_MAX;
    out_probe->dot = false;
    out_probe->wide_scale = most / (float)IQ_LINK_WIDE_MAX;
    out_probe->wide_sum = (float)wide_sum;
    out_probe->square = iq_strict_f32(out_probe->wide_scale * out_probe->wide_scale) * (float)squares;
}

IQ_FN float iq_graph_distance(const iq_graph *graph, const iq_graph_probe *probe, const iq_node *node) {
    const int32_t dot = graph->links->dot(probe->link.wide, iq_node_code(node), graph->dims);
    const float sum = iq_strict_f32(node->offset * probe->wide_sum) + iq_strict_f32(node->step * (float)dot);
    const float product = iq_strict_f32(2.0f * probe->wide_scale * iq_strict_f32(sum));
    return probe->dot ? 0.0f - product : (probe->square + node->square) - product;
}

IQ_FN void iq_graph_widen(const iq_graph *graph, const iq_node *node, int16_t *out_wide) {
    const uint8_t *code = iq_node_code(node);
    for (const uint8_t *end = code + graph->dims; code < end; code += IQ_GRAPH_CHUNK, out_wide += IQ_GRAPH_CHUNK) {
        uint8_t bytes[IQ_GRAPH_CHUNK];
        int16_t shorts[IQ_GRAPH_CHUNK];
        memcpy(bytes, code, sizeof bytes);
        for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) shorts[i] = bytes[i];
        memcpy(out_wide, shorts, sizeof shorts);
    }
}

IQ_FN float iq_graph_between(const iq_graph *graph, const iq_node *a, const int16_t *wide_a, const iq_node *b) {
    const int32_t dot = graph->links->dot(wide_a, iq_node_code(b), graph->dims);
    const float both = iq_strict_f32(a->offset * b->offset) * (float)graph->dims;
    const float first = iq_strict_f32(a->offset * b->step) * (float)b->sum;
    const float second = iq_strict_f32(b->offset * a->step) * (float)a->sum;
    const float last = iq_strict_f32(a->step * b->step) * (float)dot;
    const float product = iq_strict_f32(both) + iq_strict_f32(first);
    const float rest = iq_strict_f32(second) + iq_strict_f32(last);
    return (a->square + b->square) - 2.0f * (product + rest);
}

IQ_FN void iq_graph_decode(const iq_graph *graph, const iq_node *node, const float *less, float *out) {
    const uint8_t *code = iq_node_code(node);
    const float step = node->step, offset = node->offset;
    for (uint32_t from = 0; from < graph->dims; from += IQ_GRAPH_CHUNK) {
        float x[IQ_GRAPH_CHUNK], y[IQ_GRAPH_CHUNK];
        uint8_t bytes[IQ_GRAPH_CHUNK];
        memcpy(bytes, code + from, sizeof bytes);
        memset(y, 0, sizeof y);
        if (less != NULL) memcpy(y, less + from, sizeof y);
        for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) x[i] = step * (float)bytes[i];
        IQ_STRICT_MEMORY(x);
        for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) x[i] = (x[i] + offset) - y[i];
        memcpy(out + from, x, sizeof x);
    }
}

IQ_FN void iq_graph_unlink(iq_node *node, uint32_t slot) {
    IQ_ATOMIC_STORE(&node->links[slot], IQ_ROW_NONE);
    node->adds[slot] = 3e38f;
    node->factors[slot] = 0;
}

/* The levels of 64 elements, as numbers and packed, sixteen after sixteen. */
static void iq_graph_pack(const float *r, float cut, float *out_v, uint8_t *codes) {
    float x[IQ_GRAPH_CHUNK], v[IQ_GRAPH_CHUNK];
    int32_t levels[IQ_GRAPH_CHUNK];
    uint8_t bytes[IQ_GRAPH_CHUNK];
    memcpy(x, r, sizeof x);
    for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) levels[i] = (x[i] > -cut) + (x[i] >= 0.0f) + (x[i] > cut);
    for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) v[i] = (float)(2 * levels[i] - 3);
    for (int i = 0; i < (int)IQ_GRAPH_CHUNK; i++) bytes[i] = (uint8_t)levels[i];
    memcpy(out_v, v, sizeof v);
    for (uint32_t i = 0; i < IQ_GRAPH_CHUNK; i += 16, codes += 64) {
        uint32_t fours[4];
        memcpy(fours, bytes + i, sizeof fours);
        fours[0] |= fours[1] << 2 | fours[2] << 4 | fours[3] << 6; /* of each byte, whichever end is first */
        memcpy(codes, fours, 4);
    }
}

IQ_FN void iq_graph_link(const iq_graph *graph, iq_node *node, const float *centre, uint32_t slot, const iq_node *other,
                         float *spare) {
    const uint32_t dims = graph->dims;
    float *r = spare, *v = spare + dims;
    uint8_t *codes = iq_node_codes(graph, node) + (slot >= 16 ? (size_t)dims * 4 : 0) + slot % 16 * 4;
    iq_graph_decode(graph, other, centre, r);
    const float square = graph->base.kernel->pair(r, r, dims, IQ_SUM_PRODUCTS);
    const float cut = iq_sqrt_f32(square / (float)dims);
    for (uint32_t i = 0; i < dims; i += IQ_GRAPH_CHUNK) iq_graph_pack(r + i, cut, v + i, codes + (size_t)i * 4);
    const float along = graph->base.kernel->pair(r, v, dims, IQ_SUM_PRODUCTS);
    const float start = graph->base.kernel->pair(centre, v, dims, IQ_SUM_PRODUCTS);
    const float factor = square > 0.0f && along > 0.0f ? 2.0f * (square / along) : 0.0f;
    const uint32_t bits = iq_f32_bits(factor) + 0x8000u;
    node->factors[slot] = (uint16_t)(bits >> 16);
    const float add = iq_strict_f32(iq_f32_from_bits(bits & 0xFFFF0000u) * start);
    node->adds[slot] = square + add;
    IQ_ATOMIC_STORE(&node->links[slot], other->row);
}
