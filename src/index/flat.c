/* Exact search over all rows.
 *
 * 1. A kernel turns a run of filled rows into sums without a look at their heads; those are read only for
 *    rows whose sum could be admitted, so the scan streams vectors and little else.
 * 2. The bound on sums discards a row only where its finished score is surely behind the k-th: see distance.h.
 * 3. For many vectors, a sift that is faster than sums discards most rows first, by a bound that is sure as well. What
 *    is left gets the same sum, and so the same answer.
 * 4. Admission compares (score, id), so the set of hits does not depend on the order of rows, and what one vector gets
 *    does not depend on those that are searched with it, nor on how the rows are shared among tasks. */
#include "index/flat.h"

#define IQ_FLAT_SUMS 768u /* of a block of rows, for all vectors: 3 KiB that stay in the first-level cache */

IQ_STATIC_ASSERT(IQ_FLAT_SUMS / IQ_FLAT_COUNT_MAX % IQ_TILE_ROWS == 0, blocks_are_whole_tiles);

/* A sift pays where it discards three rows of four. A block where it does not is summed up anyhow, and so are as many
 * blocks after it as make what was lost little. */
#define IQ_FLAT_SIFT_QUERIES 8 /* fewer are as fast without */
#define IQ_FLAT_SIFT_ROWS 24u  /* at a time, but no more than ask for so many cache lines beside four vectors: */
#define IQ_FLAT_SIFT_LINES 24u
#define IQ_FLAT_SIFT_PART 4
#define IQ_FLAT_SIFT_PAUSE 16

/* The bounds of a sift for all probes. */
typedef struct iq_flat_sieve {
    float offsets[IQ_FLAT_COUNT_MAX], slopes[IQ_FLAT_COUNT_MAX];
    uint64_t open; /* bits of probes without a bound */
    float scale;
    uint32_t pause; /* blocks to come without a sift */
    bool wanted;
} iq_flat_sieve;

/* Sums beyond it are of no use to the probe. */
static void iq_flat_tighten(const iq_flat_query *query, iq_flat_sieve *sieve, size_t which) {
    iq_flat_probe *probe = &query->probes[which];
    const float kth = iq_topk_threshold(&probe->topk);
    probe->bound = iq_score_sum_bound(query->metric, kth < query->max_score ? kth : query->max_score, probe->norm);
    if (!sieve->wanted) return;
    const uint64_t bit = (uint64_t)1 << which;
    sieve->open |= bit;
    if (iq_score_sift_bound(query->metric, probe->bound, probe->norm, query->rows->stride, &sieve->offsets[which],
                            &sieve->slopes[which]))
        sieve->open ^= bit;
}

static void iq_flat_sieve_start(const iq_flat_query *query, iq_flat_sieve *sieve) {
    sieve->wanted = query->kernel->sift != NULL && query->count >= IQ_FLAT_SIFT_QUERIES && query->metric != IQDB_L1;
    sieve->scale = iq_score_sift_scale(query->metric, query->rows->stride);
    sieve->open = 0;
    sieve->pause = 0;
    for (size_t i = 0; i < query->count; i++) iq_flat_tighten(query, sieve, i);
}

static void iq_flat_offer(const iq_flat_query *query, iq_flat_sieve *sieve, size_t which, const iq_slab *slab,
                          uint32_t index, uint32_t row, float sum) {
    const size_t stride = query->rows->stride;
    iq_flat_probe *probe = &query->probes[which];
    if (!iq_row_visible(slab, index, query->moment)) return;
    const float score =
        iq_score_finish(query->metric, sum, probe->norm, slab->norms[index], query->vectors + which * stride,
                        slab->vectors + index * stride, query->rows->dim);
    if (!iq_topk_admits(&probe->topk, score, slab->heads[index].id) || score > query->max_score) return;
    if (query->after != NULL && !iq_ranks_before(query->after->score, query->after->id, score, slab->heads[index].id))
        return;
    if (query->accept_fn != NULL && !query->accept_fn(slab, index, query->user)) return;
    iq_topk_push(&probe->topk, score, slab->heads[index].id, row);
    iq_flat_tighten(query, sieve, which);
}

/* The first of the sums [i, count) that is not surely beyond, or count. The metric is a constant where this is inlined,
 * and four answers meet in one branch: with few dimensions the test of a sum costs as much as the sum. */
IQ_INLINE uint32_t iq_flat_skip(iqdb_metric metric, const float *sums, const float *norms, uint32_t i, uint32_t count,
                                float bound) {
    for (; i + 4 <= count; i += 4) {
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
    if (metric == IQDB_L2) return iq_flat_skip(IQDB_L2, sums, norms, i, count, bound);
    if (metric == IQDB_L1) return iq_flat_skip(IQDB_L1, sums, norms, i, count, bound);
    if (metric == IQDB_DOT) return iq_flat_skip(IQDB_DOT, sums, norms, i, count, bound);
    return iq_flat_skip(IQDB_COSINE, sums, norms, i, count, bound);
}

/* One row for the probes whose bits are set. */
static void iq_flat_left(const iq_flat_query *query, iq_flat_sieve *sieve, const iq_slab *slab, uint32_t index,
                         uint32_t row, uint64_t mask) {
    const size_t stride = query->rows->stride;
    for (size_t which = 0; mask != 0; which++, mask >>= 1) {
        if ((mask & 1) == 0) continue;
        const float sum = query->kernel->pair(query->vectors + which * stride, slab->vectors + index * stride, stride,
                                              iq_score_sum_kind(query->metric));
        if (!iq_score_is_beyond(query->metric, sum, slab->norms[index], query->probes[which].bound))
            iq_flat_offer(query, sieve, which, slab, index, row, sum);
    }
}

/* Of each row of a block, the probes that it may not be beyond; returns how many in all. While a few vectors pass the
 * block, their share of the next one is asked for. */
static size_t iq_flat_masks(const iq_flat_query *query, const iq_flat_sieve *sieve, const float *norms,
                            const float *rows, uint32_t size, uint64_t *out_masks) {
    float terms[IQ_FLAT_SIFT_ROWS];
    uint32_t four[IQ_FLAT_SIFT_ROWS];
    const size_t stride = query->rows->stride, bytes = size * stride * sizeof(float);
    const size_t share = iq_kernel_tile_share(bytes, query->count / IQ_SIFT_QUERIES);
    iq_sift_bounds bounds = {NULL, NULL, norms, terms};
    size_t left = 0;
    for (uint32_t i = 0; i < size; i++) {
        terms[i] = iq_score_sift_term(sieve->scale, norms[i]);
        out_masks[i] = iq_norm_is_safe(norms[i]) ? sieve->open : UINT64_MAX >> (64 - query->count);
    }
    for (size_t next = 0; next < query->count; next += IQ_SIFT_QUERIES) {
        const size_t q = next + IQ_SIFT_QUERIES <= query->count ? next : query->count - IQ_SIFT_QUERIES;
        bounds.offsets = sieve->offsets + q;
        bounds.slopes = sieve->slopes + q;
        iq_kernel_prefetch_share(rows, bytes, next / IQ_SIFT_QUERIES, share);
        query->kernel->sift(query->vectors + q * stride, rows, stride, size, &bounds, four);
        for (uint32_t i = 0; i < size; i++) out_masks[i] |= (uint64_t)four[i] << q;
    }
    for (uint32_t i = 0; i < size; i++)
        for (uint64_t mask = out_masks[i]; mask != 0; mask &= mask - 1) left++;
    return left;
}

/* Does what iq_flat_block does, or returns false where that is expected to be faster. */
static bool iq_flat_sift(const iq_flat_query *query, iq_flat_sieve *sieve, const iq_slab *slab, uint32_t start,
                         uint32_t size, uint32_t first_row) {
    uint64_t masks[IQ_FLAT_SIFT_ROWS];
    if (!sieve->wanted || size < IQ_TILE_ROWS) return false;
    if (sieve->pause > 0) {
        sieve->pause--;
        return false;
    }
    const float *rows = slab->vectors + start * query->rows->stride;
    if (iq_flat_masks(query, sieve, slab->norms + start, rows, size, masks) > size * query->count / IQ_FLAT_SIFT_PART) {
        sieve->pause = IQ_FLAT_SIFT_PAUSE;
        return false;
    }
    for (uint32_t i = 0; i < size; i++)
        if (masks[i] != 0) iq_flat_left(query, sieve, slab, start + i, first_row + start + i, masks[i]);
    return true;
}

/* Rows [start, start + size) of a slab whose first row is `first_row`. */
static void iq_flat_block(const iq_flat_query *query, iq_flat_sieve *sieve, const iq_slab *slab, uint32_t start,
                          uint32_t size, uint32_t first_row) {
    float sums[IQ_FLAT_SUMS];
    const size_t stride = query->rows->stride;
    const float *norms = slab->norms + start;
    query->kernel->scan(query->vectors, query->count, slab->vectors + start * stride, stride, size, sums,
                        iq_score_sum_kind(query->metric));
    for (size_t which = 0; which < query->count; which++) {
        const float *own = sums + which * size, *bound = &query->probes[which].bound;
        uint32_t i = iq_flat_candidate(query->metric, own, norms, 0, size, *bound);
        for (; i < size; i = iq_flat_candidate(query->metric, own, norms, i + 1, size, *bound))
            iq_flat_offer(query, sieve, which, slab, start + i, first_row + start + i, own[i]);
    }
}

/* How many rows are a block. */
static uint32_t iq_flat_block_rows(const iq_flat_query *query, const iq_flat_sieve *sieve) {
    const size_t count = query->count, row_lines = query->rows->stride * sizeof(float) / IQ_CACHE_LINE;
    size_t size = IQ_FLAT_SUMS / count, most = IQ_FLAT_SIFT_LINES * (count / IQ_SIFT_QUERIES) / row_lines;
    if (most > IQ_FLAT_SIFT_ROWS) most = IQ_FLAT_SIFT_ROWS;
    if (most < IQ_TILE_ROWS) most = IQ_TILE_ROWS;
    if (sieve->wanted && size > most) size = most;
    return (uint32_t)(size / IQ_TILE_ROWS * IQ_TILE_ROWS);
}

/* Rows [begin, end). */
static void iq_flat_rows(const iq_flat_query *query, iq_flat_sieve *sieve, uint32_t begin, uint32_t end) {
    const iq_rows *rows = query->rows;
    iq_flat_sieve_start(query, sieve);
    const uint32_t block = iq_flat_block_rows(query, sieve);
    const iq_slab *slabs = IQ_ATOMIC_LOAD(&rows->slabs);
    while (begin < end) {
        uint32_t start;
        const size_t number = iq_slab_of_row(rows, begin, &start);
        const iq_slab *slab = &slabs[number];
        const uint32_t first = begin - start, held = iq_slab_rows(rows, number);
        const uint32_t count = held < end - first ? held : end - first;
        while ((start = iq_slab_seek(slab, start, count, true)) < count) {
            const uint32_t stop = iq_slab_seek(slab, start, count, false);
            for (; start < stop; start += block) {
                const uint32_t size = stop - start < block ? stop - start : block;
                if (!iq_flat_sift(query, sieve, slab, start, size, first))
                    iq_flat_block(query, sieve, slab, start, size, first);
            }
            start = stop;
        }
        begin = first + count;
    }
}

static uint32_t iq_flat_share(const iq_flat_query *query, size_t task) {
    return (uint32_t)((uint64_t)query->row_count * task / query->task_count);
}

static void iq_flat_task(size_t index, void *task) {
    iq_flat_sieve sieve;
    iq_flat_query part = *(const iq_flat_query *)task;
    part.probes += index * part.count;
    iq_flat_rows(&part, &sieve, iq_flat_share(&part, index), iq_flat_share(&part, index + 1));
}

IQ_FN void iq_flat_search(const iq_flat_query *query) {
    iq_flat_query shared = *query;
    if (query->task_count == 1) {
        iq_flat_sieve sieve;
        iq_flat_rows(query, &sieve, 0, query->row_count);
        return;
    }
    const size_t k = query->probes->topk.capacity;
    for (size_t i = query->count; i < query->count * query->task_count; i++) {
        query->probes[i].norm = query->probes[i % query->count].norm;
        iq_topk_start(&query->probes[i].topk, query->spare_hits + (i - query->count) * k, k);
    }
    query->parallel->run_fn(iq_flat_task, &shared, query->task_count, query->parallel->user);
    for (size_t i = query->count; i < query->count * query->task_count; i++) {
        const iq_topk *found = &query->probes[i].topk;
        iq_topk *all = &query->probes[i % query->count].topk;
        for (size_t j = 0; j < found->count; j++) {
            const iqdb_hit *hit = &found->hits[j];
            if (iq_topk_admits(all, hit->score, hit->id)) iq_topk_push(all, hit->score, hit->id, hit->payload.size);
        }
    }
}
