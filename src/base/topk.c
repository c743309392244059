/* The k best hits in a binary heap.
 *
 * 1. No hit ranks behind its parent, so hits[0] is the worst one kept.
 * 2. The kept set is that of the k first in (score, id) order, whatever the order of arrival. */
#include "base/topk.h"

/* Whether a comes before b. */
IQ_INLINE bool iq_topk_before(const iqdb_hit *a, const iqdb_hit *b) {
    return iq_ranks_before(a->score, a->id, b->score, b->id);
}

/* Fills the hole at `hole` of a heap of `count` with `hit`, moving worse ones up. */
static void iq_topk_sink(iqdb_hit *hits, size_t count, size_t hole, iqdb_hit hit) {
    for (;;) {
        size_t child = 2 * hole + 1;
        if (child >= count) break;
        if (child + 1 < count && iq_topk_before(&hits[child], &hits[child + 1])) child++;
        if (!iq_topk_before(&hit, &hits[child])) break;
        hits[hole] = hits[child];
        hole = child;
    }
    hits[hole] = hit;
}

IQ_FN void iq_topk_start(iq_topk *topk, iqdb_hit *hits, size_t k) {
    IQ_ASSERT(k > 0);
    topk->hits = hits;
    topk->capacity = k;
    topk->count = 0;
}

IQ_FN void iq_topk_push(iq_topk *topk, float score, uint64_t id, size_t tag) {
    iqdb_hit hit;
    hit.id = id;
    hit.score = score;
    hit.payload.bytes = NULL;
    hit.payload.size = tag;
    hit.vector = NULL;
    iq_topk_put(topk, hit, (size_t)-1);
}

IQ_FN void iq_topk_put(iq_topk *topk, iqdb_hit hit, size_t place) {
    if (topk->count == topk->capacity || place < topk->count) {
        iq_topk_sink(topk->hits, topk->count, place < topk->count ? place : 0, hit);
        return;
    }
    size_t hole = topk->count++;
    while (hole > 0 && iq_topk_before(&topk->hits[(hole - 1) / 2], &hit)) {
        topk->hits[hole] = topk->hits[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    topk->hits[hole] = hit;
}

IQ_FN void iq_topk_settle(iq_topk *topk, size_t count) {
    const iqdb_hit last = topk->hits[count - 1];
    topk->hits[count - 1] = topk->hits[0];
    iq_topk_sink(topk->hits, count - 1, 0, last);
}

IQ_FN void iq_topk_sort(iq_topk *topk) {
    for (size_t count = topk->count; count > 1; count--) iq_topk_settle(topk, count);
}
