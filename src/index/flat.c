/* Exact search over all rows; through their codes, where they have some.
 *
 * 1. A kernel turns a run of filled rows into sums without a look at their heads; those are read only for
 *    rows whose sum could be admitted, so the scan streams vectors and little else.
 * 2. The bound on sums discards a row only where its finished score is surely behind the k-th: see distance.h.
 * 3. Admission compares (score, id), so the set of hits does not depend on the order of rows, and what one vector gets
 *    does not depend on those that are searched with it, nor on how the rows are shared among tasks.
 * 4. So a scan may stop behind any block. What it needs to go on is in the probes and in how far it came.
 *
 * With codes there are two stages. First they are scanned, and no row is touched. A guess says how near a hit must be:
 * the k-th smallest of the keys that listed rows hardly exceed. Rows that are not surely beyond the guess of the moment
 * are listed. Then the listed rows are looked at, the most promising first. Where the k-th score found is no farther
 * than every guess, no row that was not listed can be a hit, and the answer is proved; else all is scanned again with
 * the k-th score for a threshold.
 *
 * 5. A row is left out only where iq_quant_aim has proved it beyond a key, and in the end the k-th score's own key is
 *    compared with the smallest that was aimed at while guessing. Estimates decide how much work there is, never what
 *    comes out.
 * 6. A list that overflows is looked at before the scan goes on, and its exact scores replace the guess; so memory does
 *    not grow with the rows or with k.
 * 7. Where more rows are listed than codes are worth, the rest is scanned in f32.
 * 8. Which rows have codes is asked once for each, because it changes meanwhile; the others are looked at.
 * 9. Lent rows, and their codes, are touched before anything of them is read. */
#include "index/flat.h"

#include "store/records.h"

/* Of a block of rows, for all vectors: they fit on the stack and stay in the nearest cache. */
#define IQ_FLAT_SUMS (IQ_SMALL ? 48u : 576u)

IQ_STATIC_ASSERT(IQ_FLAT_SUMS / IQ_FLAT_COUNT_MAX % IQ_TILE_ROWS == 0, blocks_are_whole_tiles);

/* With a limit, a block is what is done between two questions whether it is reached: some microseconds. */
#define IQ_FLAT_UNIT_ROWS 126u
#define IQ_FLAT_UNIT_BYTES ((size_t)64 * 1024)

/* With codes, a run of rows is what is done at a time. A row fetched alone costs some four times a row in a stream. */
enum {
    IQ_FLAT_WORDS = IQ_SMALL ? 8 : 32, /* of a bit a row: a run */
    IQ_FLAT_RUN_ROWS = IQ_FLAT_WORDS * 32,
    IQ_FLAT_CODED_ROWS = 2048,       /* fewer are as fast without */
    IQ_FLAT_CODED_DIM = 2048,        /* with more a run is too long to be asked after it whether it is time */
    IQ_FLAT_NEAR_BYTES = 128 * 1024, /* of codes that several tiles of vectors pass one after the other */
    IQ_FLAT_ITEMS = 4096,
    IQ_FLAT_ITEMS_FEW = 1024, /* for each of many vectors, and with a limit */
    IQ_FLAT_WINDOW = 2048,    /* rows between two looks at how many are listed */
    IQ_FLAT_AHEAD = 3,        /* rows fetched ahead of the one that is looked at */
    IQ_FLAT_FAR = 8           /* the same for allowed rows */
};

IQ_STATIC_ASSERT(IQ_FLAT_RUN_ROWS <= IQ_CODES_RUN * IQ_CODES_ROWS, a_run_is_one_call);

static size_t iq_flat_count(const iq_flat_query *query) { return IQ_FLAT_COUNT_MAX == 1 ? 1 : query->count; }

/* Sums beyond it are of no use to the probe. */
static void iq_flat_tighten(const iq_flat_query *query, size_t which) {
    iq_flat_probe *probe = &query->probes[which];
    const float kth = iq_topk_threshold(&probe->topk);
    probe->bound = iq_score_sum_bound(query->metric, kth < query->max_score ? kth : query->max_score, probe->norm);
    if (!IQ_SMALL && query->codes != NULL) probe->coded->stale[0] = probe->coded->stale[1] = true;
}

static void iq_flat_push(const iq_flat_query *query, iq_topk *topk, float score, uint64_t id, uint32_t row) {
    if (!IQ_SMALL && query->push_fn != NULL) {
        query->push_fn(topk, score, id, row, query->user);
    } else {
        iq_topk_push(topk, score, id, row);
    }
}

static void iq_flat_offer(const iq_flat_query *query, size_t which, const iq_slab *slab, uint32_t index, uint32_t row,
                          float sum, bool accepted) {
    const size_t stride = query->rows->stride;
    iq_flat_probe *probe = &query->probes[which];
    if (!iq_row_visible(slab, index, query->moment)) return;
    const float score =
        iq_score_finish(query->metric, sum, probe->norm, slab->norms[index], query->rows->element,
                        query->vectors + which * stride, slab->vectors + index * stride, query->rows->dim);
    const uint64_t id = iq_row_id(slab, index);
    if (!iq_topk_admits(&probe->topk, score, id) || score > query->max_score) return;
    if (query->after != NULL && !iq_ranks_before(query->after->score, query->after->id, score, id)) return;
    if (!accepted && query->accept_fn != NULL && !query->accept_fn(slab, index, query->user)) return;
    iq_flat_push(query, &probe->topk, score, id, row);
    iq_flat_tighten(query, which);
}

/* The first of the sums [i, count) that is not surely beyond, or count. The metric is a constant where this is inlined,
 * and four answers meet in one branch: with few dimensions the test of a sum costs as much as the sum. */
IQ_INLINE uint32_t iq_flat_skip(iqdb_metric metric, const float *sums, const float *norms, uint32_t i, uint32_t count,
                                float bound) {
    for (; !IQ_SMALL && i + 4 <= count; i += 4) {
        const int a = iq_score_is_beyond(metric, sums[i], norms[i], bound);
        const int b = iq_score_is_beyond(metric, sums[i + 1], norms[i + 1], bound);
        const int c = iq_score_is_beyond(metric, sums[i + 2], norms[i + 2], bound);
        const int d = iq_score_is_beyond(metric, sums[i + 3], norms[i + 3], bound);
        if ((a & b & c & d) == 0) break;
    }
    while (i < count && iq_score_is_beyond(metric, sums[i], norms[i], bound)) i++;
    return i;
}

static uint32_t iq_flat_candidate(iqdb_metric metric, const float *sums, const float *norms, uint32_t i, uint32_t count,
                                  float bound) {
    if (IQ_SMALL) return iq_flat_skip(metric, sums, norms, i, count, bound);
    if (metric == IQDB_L2) return iq_flat_skip(IQDB_L2, sums, norms, i, count, bound);
    if (metric == IQDB_L1 || metric == IQDB_HAMMING) return iq_flat_skip(IQDB_L1, sums, norms, i, count, bound);
    if (metric == IQDB_DOT) return iq_flat_skip(IQDB_DOT, sums, norms, i, count, bound);
    return iq_flat_skip(IQDB_COSINE, sums, norms, i, count, bound);
}

/* Whether rows, or their codes, may be read; else what is found is no answer. */
IQ_INLINE bool iq_flat_touch(const iq_flat_query *query, uint32_t part, uint32_t first, uint32_t count) {
    const bool sound = iq_rows_touch_all(query->rows, part, first, count);
    if (IQ_UNLIKELY(!sound)) query->probes->lost = true;
    return sound;
}

static void iq_flat_look(const iq_flat_query *query, size_t which, const iq_slab *slab, uint32_t index, uint32_t row,
                         bool accepted) {
    const size_t stride = query->rows->stride;
    if (!iq_flat_touch(query, IQ_LENT_ROWS, row, 1)) return;
    const float sum = query->kernel->pair(query->vectors + which * stride, slab->vectors + index * stride, stride,
                                          iq_score_sum_kind(query->metric));
    query->probes->compared++;
    if (!iq_score_is_beyond(query->metric, sum, slab->norms[index], query->probes[which].bound))
        iq_flat_offer(query, which, slab, index, row, sum, accepted);
}

/* Of bits, for one query: these by themselves say which rows are not beyond. */
static void iq_flat_block_of_bits(const iq_flat_query *query, const iq_slab *slab, uint32_t start, uint32_t size,
                                  uint32_t first_row) {
    uint32_t found[IQ_FLAT_SUMS];
    const size_t stride = query->rows->stride;
    const size_t count = query->kernel->within(query->vectors, slab->vectors + start * stride, stride, size,
                                               query->probes->bound, found);
    query->probes->compared += size - count;
    for (size_t i = 0; i < count; i++)
        iq_flat_look(query, 0, slab, start + found[i], first_row + start + found[i], false);
}

/* Rows [start, start + size) of a slab whose first row is `first_row`. */
static void iq_flat_block(const iq_flat_query *query, const iq_slab *slab, uint32_t start, uint32_t size,
                          uint32_t first_row) {
    float sums[IQ_FLAT_SUMS];
    const size_t stride = query->rows->stride;
    const float *norms = slab->norms + start;
    if (!iq_flat_touch(query, IQ_LENT_ROWS, first_row + start, size)) return;
    if (IQ_SCANS && query->kernel->within != NULL && iq_flat_count(query) == 1) {
        iq_flat_block_of_bits(query, slab, start, size, first_row);
        return;
    }
    iq_kernel_scan(query->kernel, query->vectors, iq_flat_count(query), slab->vectors + start * stride, stride, size,
                   sums, iq_score_sum_kind(query->metric));
    query->probes->compared += size * iq_flat_count(query);
    for (size_t which = 0; which < iq_flat_count(query); which++) {
        const float *own = sums + which * size, *bound = &query->probes[which].bound;
        if (!IQ_SMALL && query->probes[which].coded != NULL && query->probes[which].coded->proved) continue;
        uint32_t i = iq_flat_candidate(query->metric, own, norms, 0, size, *bound);
        for (; i < size; i = iq_flat_candidate(query->metric, own, norms, i + 1, size, *bound))
            iq_flat_offer(query, which, slab, start + i, first_row + start + i, own[i], false);
    }
}

/* How many rows are a block. */
static uint32_t iq_flat_block_rows(const iq_flat_query *query) {
    const size_t count = iq_flat_count(query), row_bytes = query->rows->stride * sizeof(float);
    size_t size = IQ_FLAT_SUMS / count;
    if (query->limit != NULL && size > IQ_FLAT_UNIT_ROWS) size = IQ_FLAT_UNIT_ROWS;
    if (query->limit != NULL && size > IQ_FLAT_UNIT_BYTES / row_bytes) size = IQ_FLAT_UNIT_BYTES / row_bytes;
    return size < IQ_TILE_ROWS ? IQ_TILE_ROWS : (uint32_t)(size / IQ_TILE_ROWS * IQ_TILE_ROWS);
}

/* ---- through codes ---- */

IQ_INLINE double iq_flat_endless(void) { return (double)iq_f32_from_bits(0x7F800000u); }
IQ_INLINE double iq_flat_least(double a, double b) { return a < b ? a : b; }

/* The smallest key that no hit of the topk is beyond. */
static double iq_flat_needed(const iq_flat_query *query, const iq_flat_probe *probe) {
    const float kth = iq_topk_threshold(&probe->topk);
    const double key = iq_quant_key_beyond(probe->coded->probes, kth < query->max_score ? kth : query->max_score);
    return iq_flat_least(probe->coded->cap, key);
}

/* What codes of one kind are compared with, at the threshold of the moment. */
static const iq_quant_probe *iq_flat_aim(const iq_flat_query *query, const iq_flat_probe *probe, bool narrow) {
    iq_flat_coded *coded = probe->coded;
    double key;
    if (!coded->stale[narrow]) return &coded->probes[narrow];
    coded->stale[narrow] = false;
    if (coded->guessing) {
        const double kept = (double)iq_topk_threshold(&probe->topk); /* infinite while there is room */
        key = coded->guess = iq_flat_least(coded->guess, iq_flat_least(coded->cap, kept));
    } else {
        key = iq_flat_needed(query, probe);
    }
    iq_quant_aim(&coded->probes[narrow], key, coded->sizes[narrow]);
    return &coded->probes[narrow];
}

/* Drops items that are beyond the threshold by now; returns how many are left. */
static uint32_t iq_flat_drop(const iq_flat_query *query, size_t which, iq_flat_item *items, uint32_t count) {
    const iq_flat_probe *probe = &query->probes[which];
    uint32_t open = 0;
    for (uint32_t i = 0; i < count; i++)
        if (!iq_quant_is_beyond(iq_flat_aim(query, probe, items[i].narrow), &items[i].code)) items[open++] = items[i];
    return open;
}

/* Looks at all items that the aim leaves open; those beyond it are gone before any row is fetched. */
static void iq_flat_look_at(const iq_flat_query *query, size_t which, iq_flat_item *items, uint32_t count) {
    const iq_flat_probe *probe = &query->probes[which];
    const uint32_t open = iq_flat_drop(query, which, items, count);
    for (uint32_t i = 0; i < open; i++) {
        if (i + IQ_FLAT_AHEAD < open)
            iq_rows_prefetch(query->rows, iq_rows_spot(query->rows, items[i + IQ_FLAT_AHEAD].row));
        if (iq_quant_is_beyond(iq_flat_aim(query, probe, items[i].narrow), &items[i].code)) continue;
        const iq_spot spot = iq_rows_spot(query->rows, items[i].row);
        iq_flat_look(query, which, spot.slab, spot.index, spot.row, items[i].accepted);
    }
}

/* From estimates to hits: first the rows that made the guess, then what their scores leave open. */
static void iq_flat_settle(const iq_flat_query *query, size_t which) {
    iq_topk *topk = &query->probes[which].topk;
    iq_flat_coded *coded = query->probes[which].coded;
    uint32_t front = 0;
    if (coded->guessing) {
        const double worst = (double)iq_topk_threshold(topk);
        iq_topk_start(topk, topk->hits, topk->capacity);
        coded->guessing = false;
        iq_flat_tighten(query, which);
        for (uint32_t i = 0; i < coded->item_count; i++) {
            const iq_flat_item item = coded->items[i];
            double high;
            if (item.code.size < 0.0f) continue;
            (void)iq_quant_estimate(&coded->probes[item.narrow], &item.code, &high);
            if (high > worst) continue;
            coded->items[i] = coded->items[front];
            coded->items[front++] = item;
        }
        iq_flat_look_at(query, which, coded->items, front);
    }
    iq_flat_look_at(query, which, coded->items + front, coded->item_count - front);
    coded->item_count = 0;
}

/* A listed row may set the guess. Returns whether it is a row that counts at all. */
static bool iq_flat_guess(const iq_flat_query *query, iq_flat_probe *probe, const iq_slab *slab, uint32_t index,
                          iq_flat_item *item) {
    iq_flat_coded *coded = probe->coded;
    double high;
    if (item->code.size < 0.0f) return true;
    const double middle = iq_quant_estimate(&coded->probes[item->narrow], &item->code, &high);
    if (high > coded->cap || (query->after != NULL && !(middle > coded->after_key))) return true;
    if (!iq_topk_admits(&probe->topk, (float)high, item->row)) return true;
    if (!iq_row_visible(slab, index, query->moment) || !iq_flat_touch(query, IQ_LENT_ROWS, item->row, 1)) return false;
    if (query->accept_fn != NULL && !query->accept_fn(slab, index, query->user)) return false;
    item->accepted = true;
    iq_topk_push(&probe->topk, (float)high, item->row, 0);
    double *size = &coded->sizes[item->narrow];
    *size = *size > 0.0 ? 0.75 * *size + 0.25 * (double)item->code.size : (double)item->code.size;
    coded->stale[0] = coded->stale[1] = true;
    return true;
}

static void iq_flat_list(const iq_flat_query *query, size_t which, const iq_slab *slab, uint32_t index, uint32_t row,
                         bool narrow, iq_quant_row code) {
    iq_flat_probe *probe = &query->probes[which];
    iq_flat_coded *coded = probe->coded;
    if (coded->item_count == coded->item_capacity) {
        coded->item_count = iq_flat_drop(query, which, coded->items, coded->item_count);
        if (coded->item_count > coded->item_capacity / 2) iq_flat_settle(query, which);
    }
    iq_flat_item *item = &coded->items[coded->item_count];
    item->row = row;
    item->accepted = false;
    item->narrow = narrow;
    item->code = code;
    if (!coded->guessing || iq_flat_guess(query, probe, slab, index, item)) coded->item_count++;
}

/* Whether codes leave so much open that f32 is faster: a fifth of the rows is too much, and more in the beginning, for
 * the threshold needs rows to settle. While guessing, what counts is how many rows are still open, not how many have
 * been listed. */
static bool iq_flat_is_hopeless(const iq_flat_query *query, size_t which, uint32_t rows) {
    iq_flat_coded *coded = query->probes[which].coded;
    coded->seen += rows;
    const uint64_t most = coded->seen / 5 + 3 * IQ_FLAT_WINDOW / 4;
    if (coded->seen < 2 * IQ_FLAT_WINDOW || coded->seen < 4 * (uint64_t)query->probes[which].topk.capacity)
        return false;
    if (!coded->guessing) return coded->listed > most;
    if (coded->item_count > most) coded->item_count = iq_flat_drop(query, which, coded->items, coded->item_count);
    return coded->item_count > most;
}

/* The blocks of rows [start, stop) of a slab; whether codes are of use for all probes. */
static bool iq_flat_scan_codes(const iq_flat_query *query, const iq_slab *slab, uint32_t first, uint32_t start,
                               uint32_t stop, const uint16_t *allow) {
    const iq_quant *quant = iq_slab_quant(query->rows, slab);
    const bool narrow = quant == &query->rows->narrow;
    const uint32_t groups = iq_codes_groups(iq_quant_dims(quant));
    const size_t bytes = iq_quant_block_bytes(quant);
    const uint8_t *blocks = slab->blocks + start / IQ_CODES_ROWS * bytes;
    const size_t block_count = (stop - start + IQ_CODES_ROWS - 1) / IQ_CODES_ROWS;
    bool useful = true;
    for (size_t next = 0; next < query->count;) {
        iq_codes_probe tile[IQ_CODES_TILE];
        size_t counts[IQ_CODES_TILE], numbers[IQ_CODES_TILE], size = 0;
        for (; next < query->count && size < IQ_CODES_TILE; next++) {
            if (query->probes[next].coded->proved) continue;
            numbers[size] = next;
            tile[size++] = iq_flat_aim(query, &query->probes[next], narrow)->codes;
        }
        query->codes->scan(tile, size, blocks, block_count, blocks + block_count * bytes, groups, allow, query->listed,
                           counts);
        for (size_t i = 0; i < size; i++) {
            const iq_codes_hit *hits = query->listed + i * IQ_CODES_HITS;
            iq_flat_coded *coded = query->probes[numbers[i]].coded;
            coded->listed += counts[i];
            for (size_t j = 0; j < counts[i]; j++) {
                const uint32_t row = hits[j].row;
                iq_flat_list(query, numbers[i], slab, start + row, first + start + row, narrow,
                             iq_quant_look(&coded->probes[narrow], blocks + row / IQ_CODES_ROWS * bytes,
                                           row % IQ_CODES_ROWS, hits[j].sum));
            }
            useful = !iq_flat_is_hopeless(query, numbers[i], stop - start) && useful;
        }
    }
    return useful;
}

/* From here on all rows are looked at, and the topk of every probe holds hits. */
static void iq_flat_give_up(iq_flat_query *query) {
    for (size_t which = 0; which < query->count; which++) iq_flat_settle(query, which);
    query->codes = NULL;
}

IQ_FN void iq_flat_stop(iq_flat_query *query) {
    if (IQ_SMALL || query->codes == NULL) return;
    iq_flat_give_up(query);
}

IQ_FN void iq_flat_allow_few(iq_flat_query *query) {
    memset(query->few_bits, 0, iq_choice_bytes(query->row_count));
    for (uint32_t i = 0; i < query->few_count; i++)
        query->few_bits[query->few[i] / 32] |= UINT32_C(1) << query->few[i] % 32;
    query->allow = query->few_bits;
}

/* Rows [start, stop) of a slab, which `words` have bits of: those with codes through these. The others stay in `words`,
 * but for those that are listed because a guess is in the way. */
static void iq_flat_run_codes(iq_flat_query *query, const iq_slab *slab, uint32_t first, uint32_t start, uint32_t stop,
                              uint32_t *words) {
    const iq_quant_row unknown = {-1.0f, 0.0f, 0.0f, 0.0f};
    uint16_t allow[2 * IQ_FLAT_WORDS];
    bool any = false, guesses = false;
    for (uint32_t i = 0; i * 32 < stop - start; i++) {
        uint32_t coded = iq_bits_at(slab->coded, start + i * 32, stop) & words[i];
        if (coded != 0 && !query->narrow && IQ_ATOMIC_LOAD(slab->narrow) != 0) coded = 0;
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t bits = coded >> 16 * half & 0xFFFFu;
            allow[2 * i + half] = (uint16_t)bits;
            words[i] &= ~(bits << 16 * half);
            any = any || bits != 0;
        }
    }
    any = any && iq_flat_touch(query, IQ_LENT_CODES, first + start, stop - start);
    if (any && !iq_flat_scan_codes(query, slab, first, start, stop, allow)) iq_flat_give_up(query);
    for (size_t which = 0; which < query->count; which++) guesses = guesses || query->probes[which].coded->guessing;
    for (uint32_t i = 0; i * 32 < stop - start && guesses; i++) {
        for (; words[i] != 0; words[i] &= words[i] - 1) {
            const uint32_t index = start + i * 32 + iq_lowest_bit(words[i]);
            for (size_t which = 0; which < query->count; which++)
                iq_flat_list(query, which, slab, index, first + index, false, unknown);
        }
    }
}

/* Whether the hits of all probes are the best; those of which they are not are searched again, and surely. */
static bool iq_flat_prove(iq_flat_query *query) {
    bool all = true;
    if (IQ_SMALL || query->probes->coded == NULL) return true;
    for (size_t which = 0; which < query->count; which++) {
        iq_flat_probe *probe = &query->probes[which];
        iq_flat_coded *coded = probe->coded;
        if (coded->proved) continue;
        iq_flat_settle(query, which);
        coded->cap = iq_flat_needed(query, probe);
        coded->proved = coded->guess >= iq_flat_endless() || coded->cap <= coded->guess;
        if (coded->proved) continue;
        all = false;
        coded->guess = iq_flat_endless();
        iq_topk_start(&probe->topk, probe->topk.hits, probe->topk.capacity);
        iq_flat_tighten(query, which);
    }
    return all;
}

/* How many rows are a run, at most. */
static uint32_t iq_flat_run_rows(const iq_flat_query *query, uint32_t block) {
    const size_t row_bytes = iq_quant_block_bytes(&query->rows->quant) / IQ_CODES_ROWS;
    uint32_t run = IQ_FLAT_RUN_ROWS;
    if (IQ_SMALL || query->codes == NULL) return run / block * block;
    while (run > 32 && query->count > IQ_CODES_TILE && run * row_bytes > IQ_FLAT_NEAR_BYTES) run /= 2;
    while (run > 32 && query->limit != NULL && run * row_bytes > IQ_FLAT_UNIT_BYTES) run /= 2;
    return run;
}

/* Rows [begin, end); returns how far it came. Runs of codes start short at row `from`, because the first rows are listed
 * whatever they are; and they are done as a whole. */
static uint32_t iq_flat_pass(iq_flat_query *query, uint32_t from, uint32_t begin, uint32_t end) {
    const iq_rows *rows = query->rows;
    const iq_slab *slabs = IQ_ATOMIC_LOAD(&rows->slabs);
    const uint32_t block = iq_flat_block_rows(query);
    for (uint32_t run = begin == from ? 32 : IQ_FLAT_RUN_ROWS; begin < end; run *= 2) {
        const bool is_coded = !IQ_SMALL && query->codes != NULL;
        uint32_t start, words[IQ_FLAT_WORDS], at = 0, ahead = 0, asked = 0;
        const size_t number = iq_slab_of_row(rows, begin, &start);
        const iq_slab *slab = &slabs[number];
        const uint32_t first = begin - start, held = iq_slab_rows(rows, number), most = iq_flat_run_rows(query, block);
        const uint32_t count = held < end - first ? held : end - first;
        if (!IQ_SMALL && query->fresh && IQ_ATOMIC_LOAD(slab->fresh) == 0) {
            begin = first + count;
            continue;
        }
        if (run > most || !is_coded) run = most;
        const uint32_t size = count - start < run ? count - start : run;
        for (uint32_t i = 0; i * 32 < size; i++) {
            words[i] = iq_slab_filled(slab, start + i * 32, start + size);
            if (query->allow != NULL) words[i] &= iq_bits_at(query->allow, begin + i * 32, begin + size);
            if (!IQ_SMALL && query->fresh) words[i] &= ~iq_bits_at(slab->indexed, start + i * 32, start + size);
        }
        if (is_coded) iq_flat_run_codes(query, slab, first, start, start + size, words);
        while ((at = iq_bits_seek(words, at, size, true)) < size) {
            const uint32_t stop = iq_bits_seek(words, at, size, false);
            /* Rows that lie apart are asked for before it is their turn. */
            for (; !IQ_SMALL && query->allow != NULL && asked < IQ_FLAT_FAR &&
                   (ahead = iq_bits_seek(words, ahead, size, true)) < size;
                 asked++, ahead++) {
                const iq_spot spot = {slab, start + ahead, begin + ahead};
                iq_rows_prefetch(rows, spot);
            }
            asked -= asked < stop - at ? asked : stop - at;
            if (ahead < stop) ahead = stop;
            for (; at < stop; at += block) {
                const uint32_t some = stop - at < block ? stop - at : block;
                iq_flat_block(query, slab, start + at, some, first);
                if (!is_coded && iq_limit_reached(query->limit)) return begin + at + some;
            }
            at = stop;
        }
        begin += size;
        if (is_coded && iq_limit_reached(query->limit)) return begin;
    }
    return end;
}

/* The same for rows that are all there, one by one: who reads nothing but a blob is short of room for code, and blocks
 * take far more of it. */
static uint32_t iq_flat_walk(const iq_flat_query *query, uint32_t begin, uint32_t end) {
    const uint32_t block = iq_flat_block_rows(query);
    for (; begin < end; begin++) {
        if (query->allow == NULL || iq_bits_at(query->allow, begin, begin + 1) != 0)
            iq_flat_look(query, 0, query->rows->slabs, begin, begin, false);
        if ((begin + 1) % block == 0 && iq_limit_reached(query->limit)) return begin + 1;
    }
    return end;
}

/* Of rows [from, end) those from `begin` on; returns how far it came. */
static uint32_t iq_flat_rows(iq_flat_query *query, uint32_t from, uint32_t begin, uint32_t end) {
    for (size_t which = 0; which < iq_flat_count(query); which++) iq_flat_tighten(query, which);
    if (IQ_ONLY_BLOBS) return iq_flat_walk(query, begin, end);
    for (;;) {
        begin = iq_flat_pass(query, from, begin, end);
        if (begin < end || iq_flat_prove(query)) return begin;
        begin = from;
    }
}

/* ---- for indexes ---- */

IQ_FN bool iq_flat_accepts(const iq_flat_query *query, iq_spot spot) {
    return iq_row_visible(spot.slab, spot.index, query->moment) && iq_flat_touch(query, IQ_LENT_ROWS, spot.row, 1) &&
           (query->accept_fn == NULL || query->accept_fn(spot.slab, spot.index, query->user));
}

IQ_FN void iq_flat_offer_row(const iq_flat_query *query, size_t which, iq_spot spot, bool accepted) {
    iq_flat_tighten(query, which);
    iq_flat_look(query, which, spot.slab, spot.index, spot.row, accepted);
}

/* ---- all of it ---- */

IQ_FN bool iq_flat_can_use_codes(const iq_rows *rows, uint32_t row_count, iqdb_metric metric, bool limited) {
    return iq_rows_have_codes(rows) && iq_quant_serves(&rows->quant, metric) && row_count >= IQ_FLAT_CODED_ROWS &&
           !(limited && rows->dim > IQ_FLAT_CODED_DIM);
}

static uint32_t iq_flat_items(size_t count, bool limited) {
    return count == 1 && !limited ? IQ_FLAT_ITEMS : IQ_FLAT_ITEMS_FEW;
}

/* Of a vector in f32, where rows are of something else. */
static size_t iq_flat_floats_bytes(const iq_rows *rows) {
    return rows->element == IQDB_ELEMENT_F32 ? 0 : iq_row_stride(rows->dim) * sizeof(float);
}

IQ_FN size_t iq_flat_codes_bytes(const iq_rows *rows, size_t count, size_t task_count, bool limited) {
    const size_t one = sizeof(iq_flat_coded) + iq_flat_items(count, limited) * sizeof(iq_flat_item);
    return iq_flat_floats_bytes(rows) +
           iq_round_up(task_count * (IQ_CODES_TILE * IQ_CODES_HITS * sizeof(iq_codes_hit) + count * one) +
                           count * 2 * iq_round_up(rows->dim, 8) + iq_quant_probe_bytes(&rows->quant),
                       IQ_CACHE_LINE);
}

/* The vector in f32, the prepared one, lists of the scan, probes, words, items. */
IQ_FN void iq_flat_start_codes(iq_flat_query *query, void *memory) {
    const iq_quant *quant = &query->rows->quant;
    const iq_basis *basis = IQ_ATOMIC_LOAD(&query->rows->narrow.basis);
    const size_t all = query->count * query->task_count;
    float *floats = (float *)memory;
    memory = (uint8_t *)memory + iq_flat_floats_bytes(query->rows);
    query->listed = (iq_codes_hit *)(void *)((uint8_t *)memory + iq_quant_probe_bytes(quant));
    iq_flat_coded *coded = (iq_flat_coded *)(void *)(query->listed + query->task_count * IQ_CODES_TILE * IQ_CODES_HITS);
    int8_t *words = (int8_t *)(void *)(coded + all);
    iq_flat_item *items = (iq_flat_item *)(void *)(words + query->count * 2 * iq_round_up(quant->dim, 8));
    query->narrow = basis != NULL;
    for (size_t i = 0; i < all; i++, coded++) {
        iq_flat_probe *probe = &query->probes[i];
        probe->coded = coded;
        memset(coded, 0, sizeof *coded);
        coded->item_capacity = iq_flat_items(query->count, query->limit != NULL);
        coded->items = items;
        items += coded->item_capacity;
        if (i >= query->count) continue;
        const float *vector = query->vectors + i * query->rows->stride;
        if (query->rows->element != IQDB_ELEMENT_F32) {
            iq_row_to_f32(query->rows->element, vector, query->rows->dim, floats);
            vector = floats;
        }
        iq_quant_probe_make(coded->probes, quant, query->metric, vector, probe->norm, words, memory);
        words += iq_round_up(quant->dim, 8);
        if (basis != NULL)
            iq_quant_probe_make(&coded->probes[1], &query->rows->narrow, query->metric, vector, probe->norm, words,
                                memory);
        words += iq_round_up(quant->dim, 8);
        query->narrow = query->narrow && coded->probes[1].usable && coded->probes[0].usable;
        coded->guess = coded->cap = iq_flat_endless();
        coded->stale[0] = coded->stale[1] = true;
        if (coded->probes->usable) {
            coded->cap = iq_quant_key_beyond(coded->probes, query->max_score);
            if (query->after != NULL) coded->after_key = iq_quant_key_beyond(coded->probes, query->after->score);
            /* More hits than that are too many to guess. */
            coded->guessing = probe->topk.capacity <= query->row_count / 16;
        }
        if (!coded->guessing && coded->cap >= iq_flat_endless()) query->codes = NULL; /* nothing is to be proved */
    }
    for (size_t i = 0; i < all && query->codes == NULL; i++) query->probes[i].coded = NULL;
}

/* Whole words of a bit a row. */
static uint32_t iq_flat_share(const iq_flat_query *query, size_t task) {
    if (task == query->task_count) return query->row_count;
    return (uint32_t)((uint64_t)(query->row_count / 32) * task / query->task_count) * 32;
}

static void iq_flat_task(size_t index, void *task) {
    iq_limit limit;
    iq_flat_query part = *(const iq_flat_query *)task;
    const uint32_t begin = iq_flat_share(&part, index);
    if (part.limit != NULL) {
        limit = *part.limit;
        part.limit = &limit;
    }
    part.probes += index * part.count;
    if (part.codes != NULL) part.listed += index * IQ_CODES_TILE * IQ_CODES_HITS;
    part.probes->visited = iq_flat_rows(&part, begin, begin, iq_flat_share(&part, index + 1)) - begin;
    iq_flat_stop(&part);
}

IQ_FN void iq_flat_search(iq_flat_query *query) {
    if (!IQ_HAS_THREADS || query->task_count == 1) {
        query->visited = iq_flat_rows(query, 0, query->visited, query->row_count);
        return;
    }
    const size_t k = query->probes->topk.capacity;
    for (size_t i = query->count; i < query->count * query->task_count; i++) {
        iq_flat_probe *probe = &query->probes[i];
        const iq_flat_probe *model = &query->probes[i % query->count];
        probe->norm = model->norm;
        probe->compared = 0;
        probe->lost = false;
        iq_topk_start(&probe->topk, query->spare_hits + (i - query->count) * k, k);
        if (model->coded == NULL) probe->coded = NULL;
        if (model->coded == NULL) continue;
        iq_flat_item *items = probe->coded->items;
        *probe->coded = *model->coded;
        probe->coded->items = items;
    }
    query->parallel->run_fn(iq_flat_task, query, query->task_count, query->parallel->user);
    query->visited = 0;
    for (size_t i = 0; i < query->task_count; i++) {
        query->visited += query->probes[i * query->count].visited;
        if (i > 0) query->probes->compared += query->probes[i * query->count].compared;
        if (query->probes[i * query->count].lost) query->probes->lost = true;
    }
    for (size_t i = query->count; i < query->count * query->task_count; i++) {
        const iq_topk *found = &query->probes[i].topk;
        iq_topk *all = &query->probes[i % query->count].topk;
        for (size_t j = 0; j < found->count; j++) {
            const iqdb_hit *hit = &found->hits[j];
            if (iq_topk_admits(all, hit->score, hit->id))
                iq_flat_push(query, all, hit->score, hit->id, (uint32_t)hit->payload.size);
        }
    }
}

IQ_FN bool iq_flat_measure(const iq_flat_query *query, size_t which, iq_spot spot, float *out_sum, float *out_score) {
    const size_t stride = query->rows->stride;
    const float *vector = query->vectors + which * stride, *row = spot.slab->vectors + spot.index * stride;
    if (!iq_flat_touch(query, IQ_LENT_ROWS, spot.row, 1)) return false;
    query->probes->compared++;
    *out_sum = query->kernel->pair(vector, row, stride, iq_score_sum_kind(query->metric));
    *out_score = iq_score_finish(query->metric, *out_sum, query->probes[which].norm, spot.slab->norms[spot.index],
                                 query->rows->element, vector, row, query->rows->dim);
    return true;
}

IQ_FN void iq_flat_offer_sum(const iq_flat_query *query, size_t which, iq_spot spot, float sum) {
    iq_flat_offer(query, which, spot.slab, spot.index, spot.row, sum, false);
}
