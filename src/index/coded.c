/* Exact search through codes, in two stages.
 *
 * First the codes are scanned, and no row is touched. A guess says how near a hit must be: the k-th smallest of the
 * keys that listed rows hardly exceed. Rows that are not surely beyond the guess of the moment are listed. Then the
 * listed rows are looked at in f32, the most promising first. Where the k-th score found is no farther than every
 * guess, no row that was not listed can be a hit, and the answer is proved; else all is scanned again with the k-th
 * score for a threshold.
 *
 * 1. A row is left out only where iq_quant_aim has proved it beyond a key, and in the end the k-th score's own key is
 *    compared with the smallest that was aimed at while guessing. Estimates decide how much work there is, never what
 *    comes out.
 * 2. Scores come from the canonical kernels over f32 rows and from nowhere else, and admission compares (score, id).
 * 3. A list that overflows is looked at before the scan goes on, and its exact scores replace the guess; so memory does
 *    not grow with the rows or with k.
 * 4. Where more rows are listed than codes are worth, the rest is scanned in f32. */
#include "index/coded.h"

#include "base/alloc.h"

#define IQ_CODED_SUMS 768u
#define IQ_CODED_ITEMS_ALONE 4096u
#define IQ_CODED_ITEMS_TOGETHER 2048u
#define IQ_CODED_WINDOW 2048u       /* rows between two looks at how many are listed */
#define IQ_CODED_AHEAD 3u           /* rows fetched ahead of the one that is looked at */
#define IQ_CODED_NEAR (128u * 1024) /* bytes of blocks that several tiles pass one after the other */

typedef struct iq_coded_item {
    uint32_t span, index;
    iq_quant_row row;
} iq_coded_item;

typedef enum iq_coded_mode {
    IQ_CODED_GUESSING, /* the topk holds keys of estimates */
    IQ_CODED_SURE,     /* it holds hits */
    IQ_CODED_PLAIN     /* it holds hits, and codes are of no use */
} iq_coded_mode;

typedef struct iq_coded_state {
    iq_coded_probe *own;
    iq_quant_probe probe;
    iq_coded_mode mode;
    bool stale;       /* the topk has changed since it was aimed */
    double cap;       /* no key beyond it is wanted, whatever the topk says */
    double guess;     /* the smallest key that was guessed */
    double after_key; /* about the key of query->after */
    double size;      /* of rows that were admitted lately */
    float bound;      /* on sums, once the topk holds hits */
    uint32_t item_count, item_capacity;
    iq_coded_item *items;
    uint64_t seen, window_rows, window_listed;
} iq_coded_state;

IQ_INLINE double iq_coded_endless(void) {
    return (double)iq_f32_from_bits(0x7F800000u);
}
IQ_INLINE double iq_coded_least(double a, double b) {
    return a < b ? a : b;
}

/* ---- rows in f32 ---- */

/* Scores above it need not be looked at. */
static float iq_coded_threshold(const iq_coded_query *query, const iq_coded_state *state) {
    const float kept = iq_topk_threshold(&state->own->topk);
    return query->limited && query->max_distance < kept ? query->max_distance : kept;
}

static void iq_coded_tighten(const iq_coded_query *query, iq_coded_state *state) {
    state->bound = iq_score_sum_bound(query->metric, iq_coded_threshold(query, state), state->own->norm);
    state->stale = true;
}

static void iq_coded_offer(const iq_coded_query *query, iq_coded_state *state, const iq_coded_span *span,
                           uint32_t index, float sum) {
    iq_topk *topk = &state->own->topk;
    const float *vector = span->vectors + index * iq_row_stride(query->dim);
    const float score = iq_score_finish(query->metric, sum, state->own->norm, span->norms[index], state->own->vector,
                                        vector, query->dim);
    const uint64_t id = span->ids[index];
    if (query->limited && iq_ranks_before(query->max_distance, 0, score, 0)) return;
    if (query->after != NULL && !iq_ranks_before(query->after->score, query->after->id, score, id)) return;
    if (!iq_topk_admits(topk, score, id)) return;
    if (query->accept_fn != NULL && !query->accept_fn(span, index, query->user)) return;
    iq_topk_push(topk, score, id, span->first_row + index);
    iq_coded_tighten(query, state);
}

static void iq_coded_offer_alone(const iq_coded_query *query, iq_coded_state *state, const iq_coded_span *span,
                                 uint32_t index) {
    const size_t stride = iq_row_stride(query->dim);
    float sum;
    query->kernel->scan[iq_score_sum_kind(query->metric)](state->own->vector, 1, span->vectors + index * stride, stride,
                                                          1, &sum);
    if (!iq_score_is_beyond(query->metric, sum, span->norms[index], state->bound))
        iq_coded_offer(query, state, span, index, sum);
}

static uint32_t iq_coded_allowed(const iq_coded_span *span, uint32_t block) {
    return span->allow == NULL ? 0xFFFFu : span->allow[block];
}

/* Rows [from, to) of a span, all of which take part. */
static void iq_coded_plain_run(const iq_coded_query *query, iq_coded_state *state, const iq_coded_span *span,
                               uint32_t from, uint32_t to) {
    float sums[IQ_CODED_SUMS];
    const size_t stride = iq_row_stride(query->dim);
    while (from < to) {
        const uint32_t count = to - from < IQ_CODED_SUMS ? to - from : IQ_CODED_SUMS;
        query->kernel->scan[iq_score_sum_kind(query->metric)](state->own->vector, 1, span->vectors + from * stride,
                                                              stride, count, sums);
        for (uint32_t i = 0; i < count; i++)
            if (!iq_score_is_beyond(query->metric, sums[i], span->norms[from + i], state->bound))
                iq_coded_offer(query, state, span, from + i, sums[i]);
        from += count;
    }
}

/* Blocks [from, to) of a span; the last may be short. */
static void iq_coded_plain(const iq_coded_query *query, iq_coded_state *state, const iq_coded_span *span, uint32_t from,
                           uint32_t to) {
    for (uint32_t block = from, next; block < to; block = next) {
        const uint32_t allowed = iq_coded_allowed(span, block), first = block * IQ_CODES_ROWS;
        const uint32_t rest = span->row_count - first, size = rest < IQ_CODES_ROWS ? rest : IQ_CODES_ROWS;
        next = block + 1;
        if (allowed == 0xFFFFu) {
            while (next < to && iq_coded_allowed(span, next) == 0xFFFFu) next++;
            const uint32_t end = next * IQ_CODES_ROWS;
            iq_coded_plain_run(query, state, span, first, end < span->row_count ? end : span->row_count);
            state->own->info.plain += (end < span->row_count ? end : span->row_count) - first;
            continue;
        }
        for (uint32_t r = 0; r < size; r++) {
            if ((allowed >> r & 1) == 0) continue;
            iq_coded_offer_alone(query, state, span, first + r);
            state->own->info.plain++;
        }
    }
}

/* ---- thresholds ---- */

static void iq_coded_aim(const iq_coded_query *query, iq_coded_state *state) {
    double key = state->cap;
    const float kept = iq_topk_threshold(&state->own->topk);
    state->stale = false;
    if (state->mode == IQ_CODED_GUESSING) {
        if ((iq_f32_bits(kept) & 0x7F800000u) != 0x7F800000u) key = iq_coded_least(key, (double)kept);
        state->guess = iq_coded_least(state->guess, key);
        key = state->guess;
    } else {
        key = iq_coded_least(key, iq_quant_key_beyond(&state->probe, iq_coded_threshold(query, state)));
    }
    iq_quant_aim(&state->probe, key, state->size);
}

static void iq_coded_fetch(const iq_coded_query *query, const iq_coded_item *item) {
    const iq_coded_span *span = &query->spans[item->span];
    const size_t bytes = iq_row_stride(query->dim) * sizeof(float), most = bytes < 2048 ? bytes : 2048;
    const uint8_t *row = (const uint8_t *)(const void *)(span->vectors + item->index * iq_row_stride(query->dim));
    for (size_t at = 0; at < most; at += IQ_CACHE_LINE) iq_kernel_prefetch(row, at);
    iq_kernel_prefetch(span->ids + item->index, 0);
    if (query->metric == IQDB_COSINE) iq_kernel_prefetch(span->norms + item->index, 0);
}

/* Looks at all items that the aim leaves open; those beyond it are gone before any row is fetched. */
static void iq_coded_look(const iq_coded_query *query, iq_coded_state *state, iq_coded_item *items, uint32_t count) {
    uint32_t open = 0;
    if (count == 0) return;
    if (state->stale) iq_coded_aim(query, state);
    for (uint32_t i = 0; i < count; i++)
        if (!iq_quant_is_beyond(&state->probe, &items[i].row)) items[open++] = items[i];
    for (uint32_t i = 0; i < open && i < IQ_CODED_AHEAD; i++) iq_coded_fetch(query, &items[i]);
    for (uint32_t i = 0; i < open; i++) {
        if (i + IQ_CODED_AHEAD < open) iq_coded_fetch(query, &items[i + IQ_CODED_AHEAD]);
        if (state->stale) iq_coded_aim(query, state);
        if (iq_quant_is_beyond(&state->probe, &items[i].row)) continue;
        state->own->info.evaluated++;
        iq_coded_offer_alone(query, state, &query->spans[items[i].span], items[i].index);
    }
}

/* From estimates to hits: first the rows that made the guess, then what their scores leave open. */
static void iq_coded_settle(const iq_coded_query *query, iq_coded_state *state) {
    uint32_t front = 0;
    if (state->mode == IQ_CODED_GUESSING) {
        iq_topk *topk = &state->own->topk;
        const double worst = (double)iq_topk_threshold(topk);
        iq_topk_start(topk, topk->hits, topk->capacity);
        state->mode = IQ_CODED_SURE;
        iq_coded_tighten(query, state);
        for (uint32_t i = 0; i < state->item_count; i++) {
            const iq_coded_item item = state->items[i];
            double high;
            if (item.row.size < 0.0f) continue;
            iq_quant_estimate(&state->probe, &item.row, &high);
            if (high > worst) continue;
            state->items[i] = state->items[front];
            state->items[front++] = item;
        }
        iq_coded_look(query, state, state->items, front);
    }
    iq_coded_look(query, state, state->items + front, state->item_count - front);
    state->item_count = 0;
}

static void iq_coded_give_up(const iq_coded_query *query, iq_coded_state *state) {
    iq_coded_settle(query, state);
    state->mode = IQ_CODED_PLAIN;
    state->own->info.gave_up = true;
}

/* ---- the first stage ---- */

/* A listed row that may set the guess. Returns whether it is a row that counts at all. */
static bool iq_coded_guess(const iq_coded_query *query, iq_coded_state *state, const iq_coded_span *span,
                           uint32_t index, const iq_quant_row *row) {
    iq_topk *topk = &state->own->topk;
    double high;
    if (row->size < 0.0f) return true;
    const double middle = iq_quant_estimate(&state->probe, row, &high);
    if (high > state->cap || (query->after != NULL && !(middle > state->after_key))) return true;
    const float key = (float)high;
    if (!iq_topk_admits(topk, key, span->first_row + index)) return true;
    if (query->accept_fn != NULL && !query->accept_fn(span, index, query->user)) return false;
    iq_topk_push(topk, key, span->first_row + index, 0);
    state->size = state->size > 0.0 ? 0.75 * state->size + 0.25 * (double)row->size : (double)row->size;
    state->stale = true;
    return true;
}

/* Items that are beyond the threshold by now. */
static void iq_coded_drop(const iq_coded_query *query, iq_coded_state *state) {
    uint32_t kept = 0;
    if (state->stale) iq_coded_aim(query, state);
    for (uint32_t i = 0; i < state->item_count; i++)
        if (!iq_quant_is_beyond(&state->probe, &state->items[i].row)) state->items[kept++] = state->items[i];
    state->item_count = kept;
}

static void iq_coded_absorb(const iq_coded_query *query, iq_coded_state *state, uint32_t span_index, uint32_t block,
                            const iq_codes_hit *hits, size_t count) {
    const iq_coded_span *span = &query->spans[span_index];
    const size_t bytes = iq_quant_block_bytes(query->quant);
    state->own->info.listed += count;
    state->window_listed += count;
    for (size_t i = 0; i < count; i++) {
        const uint32_t row = hits[i].row;
        const uint8_t *at = span->blocks + (block + row / IQ_CODES_ROWS) * bytes;
        const uint32_t index = block * IQ_CODES_ROWS + row;
        if (state->item_count == state->item_capacity) {
            iq_coded_drop(query, state);
            if (state->item_count > state->item_capacity / 2) iq_coded_settle(query, state);
        }
        iq_coded_item *item = &state->items[state->item_count];
        item->span = span_index;
        item->index = index;
        item->row = iq_quant_look(&state->probe, at, row % IQ_CODES_ROWS, hits[i].sum);
        if (state->mode == IQ_CODED_GUESSING && !iq_coded_guess(query, state, span, index, &item->row)) continue;
        state->item_count++;
    }
}

/* Whether codes leave so much open that f32 is faster: a row fetched alone costs some four times a row in a stream, so
 * that a fifth of the rows is too much, and more in the beginning, for the threshold needs rows to settle. While
 * guessing, what counts is how many rows are still open, not how many have been listed. */
static bool iq_coded_is_hopeless(const iq_coded_query *query, iq_coded_state *state, uint64_t rows) {
    const uint64_t listed = state->window_listed, window = state->window_rows + rows;
    state->seen += rows;
    state->window_rows = window;
    if (window < IQ_CODED_WINDOW) return false;
    const uint64_t most = state->seen / 5 + 3 * IQ_CODED_WINDOW / 4;
    state->window_rows = state->window_listed = 0;
    if (listed * 5 < window || state->seen < 2 * IQ_CODED_WINDOW || state->seen < 4 * state->own->topk.capacity)
        return false;
    if (state->mode == IQ_CODED_SURE) return listed * state->seen > window * most;
    iq_coded_drop(query, state);
    return state->item_count > most;
}

static void iq_coded_run(const iq_coded_query *query, iq_coded_state *const *states, size_t count, uint32_t span_index,
                         uint32_t block, uint32_t block_count, iq_codes_hit *hits) {
    const iq_coded_span *span = &query->spans[span_index];
    const uint8_t *blocks = span->blocks + block * iq_quant_block_bytes(query->quant);
    const uint16_t *allow = span->allow == NULL ? NULL : span->allow + block;
    for (size_t first = 0; first < count;) {
        iq_coded_state *tile[IQ_CODES_TILE];
        iq_codes_probe probes[IQ_CODES_TILE];
        size_t counts[IQ_CODES_TILE], size = 0;
        for (; first < count && size < IQ_CODES_TILE; first++) {
            if (states[first]->mode == IQ_CODED_PLAIN) {
                iq_coded_plain(query, states[first], span, block, block + block_count);
                continue;
            }
            if (states[first]->stale) iq_coded_aim(query, states[first]);
            probes[size] = states[first]->probe.codes;
            tile[size++] = states[first];
        }
        if (size == 0) continue;
        query->codes->scan(probes, size, blocks, block_count, iq_codes_groups(query->quant->head), allow, hits, counts);
        for (size_t i = 0; i < size; i++) {
            iq_coded_absorb(query, tile[i], span_index, block, hits + i * IQ_CODES_HITS, counts[i]);
            if (iq_coded_is_hopeless(query, tile[i], (uint64_t)block_count * IQ_CODES_ROWS))
                iq_coded_give_up(query, tile[i]);
        }
    }
}

/* All coded spans. Runs start short, because the first rows are listed whatever they are. */
static void iq_coded_scan(const iq_coded_query *query, iq_coded_state *const *states, size_t count,
                          iq_codes_hit *hits) {
    uint32_t most = IQ_CODES_RUN, run = 1;
    if (count > IQ_CODES_TILE) {
        while (most > 1 && most * iq_quant_block_bytes(query->quant) > IQ_CODED_NEAR) most /= 2;
    }
    for (size_t s = 0; s < query->span_count; s++) {
        if (query->spans[s].blocks == NULL) continue;
        const uint32_t block_count = query->spans[s].row_count / IQ_CODES_ROWS;
        for (uint32_t block = 0, next; block < block_count; block = next) {
            next = block_count - block < run ? block_count : block + run;
            iq_coded_run(query, states, count, (uint32_t)s, block, next - block, hits);
            run = run < most ? 2 * run : most;
            if (run > most) run = most;
        }
    }
}

/* ---- all of it ---- */

/* Rows that take part, and blocks that hold any. */
static void iq_coded_count(const iq_coded_query *query, uint64_t *out_rows, uint64_t *out_blocks) {
    *out_rows = *out_blocks = 0;
    for (size_t s = 0; s < query->span_count; s++) {
        const iq_coded_span *span = &query->spans[s];
        const uint32_t blocks = (span->row_count + IQ_CODES_ROWS - 1) / IQ_CODES_ROWS;
        if (span->allow == NULL) {
            *out_rows += span->row_count;
            *out_blocks += blocks;
            continue;
        }
        for (uint32_t b = 0; b < blocks; b++) {
            uint32_t bits = span->allow[b];
            *out_blocks += bits != 0;
            bits = (bits & 0x5555u) + (bits >> 1 & 0x5555u);
            bits = (bits & 0x3333u) + (bits >> 2 & 0x3333u);
            bits = (bits & 0x0F0Fu) + (bits >> 4 & 0x0F0Fu);
            *out_rows += (bits & 0x1F) + (bits >> 8);
        }
    }
}

static void iq_coded_start(const iq_coded_query *query, iq_coded_state *state, bool worth_it, bool many) {
    const bool proves = worth_it && query->quant != NULL && state->probe.usable;
    state->mode = IQ_CODED_PLAIN;
    state->guess = state->cap = iq_coded_endless();
    if (proves) {
        if (query->limited) state->cap = iq_quant_key_beyond(&state->probe, query->max_distance);
        if (query->after != NULL) state->after_key = iq_quant_key_of(&state->probe, query->after->score);
        state->mode = many ? (state->cap < iq_coded_endless() ? IQ_CODED_SURE : IQ_CODED_PLAIN) : IQ_CODED_GUESSING;
    }
    iq_coded_tighten(query, state);
}

static void iq_coded_plain_spans(const iq_coded_query *query, iq_coded_state *state) {
    for (size_t s = 0; s < query->span_count; s++)
        if (query->spans[s].blocks == NULL)
            iq_coded_plain(query, state, &query->spans[s], 0,
                           (query->spans[s].row_count + IQ_CODES_ROWS - 1) / IQ_CODES_ROWS);
}

/* Ends a search; where a guess was too bold, all over again. */
static void iq_coded_finish(const iq_coded_query *query, iq_coded_state *state, iq_codes_hit *hits) {
    iq_coded_settle(query, state);
    iq_coded_plain_spans(query, state);
    if (!(state->guess < iq_coded_endless())) return;
    const double needed =
        iq_coded_least(state->cap, iq_quant_key_beyond(&state->probe, iq_coded_threshold(query, state)));
    if (needed <= state->guess) return;
    state->own->info.rescans++;
    state->cap = needed;
    state->mode = IQ_CODED_SURE;
    state->seen = state->window_rows = state->window_listed = 0;
    iq_topk_start(&state->own->topk, state->own->topk.hits, state->own->topk.capacity);
    iq_coded_tighten(query, state);
    iq_coded_scan(query, &state, 1, hits);
    iq_coded_settle(query, state);
    iq_coded_plain_spans(query, state);
}

IQ_INLINE size_t iq_coded_items(size_t count) {
    return count == 1 ? IQ_CODED_ITEMS_ALONE : IQ_CODED_ITEMS_TOGETHER;
}
IQ_INLINE size_t iq_coded_words_bytes(const iq_quant *quant) {
    return quant == NULL ? 0 : iq_round_up(quant->head, IQ_CACHE_LINE);
}

IQ_FN size_t iq_coded_scratch_bytes(const iq_quant *quant, size_t count) {
    size_t size = IQ_CODES_TILE * IQ_CODES_HITS * sizeof(iq_codes_hit) + IQ_CODED_COUNT_MAX * sizeof(void *);
    size += count * iq_round_up(sizeof(iq_coded_state), IQ_CACHE_LINE);
    if (quant == NULL) return size;
    return size + count * (iq_coded_items(count) * sizeof(iq_coded_item) + iq_coded_words_bytes(quant)) +
           iq_round_up(iq_quant_probe_bytes(quant), IQ_CACHE_LINE);
}

IQ_FN void iq_coded_search(const iq_coded_query *query, iq_coded_probe *probes, size_t count, void *scratch) {
    uint8_t *at = (uint8_t *)scratch;
    iq_codes_hit *hits = (iq_codes_hit *)(void *)at;
    at += IQ_CODES_TILE * IQ_CODES_HITS * sizeof(iq_codes_hit);
    iq_coded_state **states = (iq_coded_state **)(void *)at;
    at += IQ_CODED_COUNT_MAX * sizeof(void *);
    uint8_t *probe_scratch = at;
    if (query->quant != NULL) at += iq_round_up(iq_quant_probe_bytes(query->quant), IQ_CACHE_LINE);
    uint64_t rows, blocks;
    iq_coded_count(query, &rows, &blocks);
    /* Where few rows of a block take part, reading those costs less than the block. */
    const bool worth_it = rows >= 3 * blocks;
    for (size_t i = 0; i < count; i++) {
        iq_coded_state *state = (iq_coded_state *)(void *)at;
        at += iq_round_up(sizeof *state, IQ_CACHE_LINE);
        memset(state, 0, sizeof *state);
        memset(&probes[i].info, 0, sizeof probes[i].info);
        state->own = &probes[i];
        states[i] = state;
        if (query->quant != NULL) {
            state->items = (iq_coded_item *)(void *)at;
            state->item_capacity = (uint32_t)iq_coded_items(count);
            at += state->item_capacity * sizeof(iq_coded_item);
            iq_quant_probe_make(&state->probe, query->quant, query->kernel, query->metric, probes[i].vector,
                                probes[i].norm, (int8_t *)(void *)at, probe_scratch);
            at += iq_coded_words_bytes(query->quant);
        }
        iq_coded_start(query, state, worth_it, (uint64_t)probes[i].topk.capacity > rows / 16);
    }
    iq_coded_scan(query, states, count, hits);
    for (size_t i = 0; i < count; i++) iq_coded_finish(query, states[i], hits);
}
