/* Exact search over all rows.
 *
 * 1. A kernel turns a block of rows into sums without looking at births, deaths or ids; those are read only for rows
 *    whose sum could be admitted, so the scan streams vectors and nothing else.
 * 2. The bound on sums discards a row only where its finished score is surely behind the k-th: see distance.h.
 * 3. Admission compares (score, id), so the set of hits does not depend on the order of rows. */
#include "index/flat.h"

#define IQ_FLAT_BLOCK_ROWS 256u /* sums of a block are 1 KiB: they stay in the first-level cache */

static void iq_flat_offer(const iq_flat_query *query, const iq_slab *slab, uint32_t index, uint32_t row, float sum,
                          iq_topk *topk) {
    if (!iq_row_visible(slab, index, query->lsn)) return;
    const float *vector = slab->vectors + index * query->rows->stride;
    const float score = iq_score_finish(query->metric, sum, query->norm, slab->norms[index], query->vector, vector,
                                        query->rows->dim);
    if (!iq_topk_admits(topk, score, slab->ids[index])) return;
    if (query->accept_fn != NULL && !query->accept_fn(slab, index, query->user)) return;
    iq_topk_push(topk, score, slab->ids[index], row);
}

IQ_FN void iq_flat_search(const iq_flat_query *query, iq_topk *topk) {
    const iq_rows *rows = query->rows;
    const iq_scan_fn scan = iq_score_scan(query->kernel, query->metric);
    float sums[IQ_FLAT_BLOCK_ROWS];
    for (size_t s = 0; s < rows->slab_count; s++) {
        const iq_slab *slab = &rows->slabs[s];
        const uint32_t first = iq_slab_first_row(s);
        uint32_t count = iq_slab_rows(s);
        if (first >= rows->count) break;
        if (count > rows->count - first) count = rows->count - first;
        for (uint32_t start = 0; start < count; start += IQ_FLAT_BLOCK_ROWS) {
            const uint32_t size = count - start < IQ_FLAT_BLOCK_ROWS ? count - start : IQ_FLAT_BLOCK_ROWS;
            scan(query->vector, slab->vectors + start * rows->stride, rows->stride, size, sums);
            float bound = iq_score_sum_bound(query->metric, iq_topk_threshold(topk), query->norm);
            for (uint32_t i = 0; i < size; i++) {
                if (IQ_LIKELY(iq_score_is_beyond(query->metric, sums[i], slab->norms[start + i], bound))) continue;
                iq_flat_offer(query, slab, start + i, first + start + i, sums[i], topk);
                bound = iq_score_sum_bound(query->metric, iq_topk_threshold(topk), query->norm);
            }
        }
    }
}
