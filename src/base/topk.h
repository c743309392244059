/* The k best hits, kept as a heap in the caller's own array: no memory of its own, ties by id already at admission. */
#ifndef IQ_BASE_TOPK_H
#define IQ_BASE_TOPK_H

#include "base/bytes.h"

typedef struct iq_topk {
    iqdb_hit *hits;  /* a max-heap by (score, id); payload.size of each carries the caller's tag */
    size_t capacity; /* k, at least 1 */
    size_t count;
} iq_topk;

/* Unsigned order of the key is the order of scores: ascending, every NaN behind infinity. No score is -0. */
IQ_INLINE uint32_t iq_score_key(float score) {
    const uint32_t bits = iq_f32_bits(score);
    if (iq_f32_is_nan(score)) return 0xFFFFFFFFu;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* Whether (score_a, id_a) comes before (score_b, id_b). */
IQ_INLINE bool iq_ranks_before(float score_a, uint64_t id_a, float score_b, uint64_t id_b) {
    const uint32_t a = iq_score_key(score_a), b = iq_score_key(score_b);
    return a != b ? a < b : id_a < id_b;
}

IQ_FN void iq_topk_start(iq_topk *topk, iqdb_hit *hits, size_t k);

/* Whether a hit of this rank would be kept. */
IQ_INLINE bool iq_topk_admits(const iq_topk *topk, float score, uint64_t id) {
    return topk->count < topk->capacity || iq_ranks_before(score, id, topk->hits[0].score, topk->hits[0].id);
}

/* The worst score still kept, or +infinity while there is room: a row above it cannot be admitted. */
IQ_INLINE float iq_topk_threshold(const iq_topk *topk) {
    return topk->count < topk->capacity ? iq_f32_from_bits(0x7F800000u) : topk->hits[0].score;
}

/* Takes in a hit that iq_topk_admits; drops the worst one where the heap is full. */
IQ_FN void iq_topk_push(iq_topk *topk, float score, uint64_t id, size_t tag);
/* The same in the place of a hit that ranks behind it; or, where `place` is beyond the count, as before. */
IQ_FN void iq_topk_put(iq_topk *topk, iqdb_hit hit, size_t place);

/* Best first. The heap is gone afterwards. */
IQ_FN void iq_topk_sort(iq_topk *topk);
/* One step of that: puts the worst of the first `count` hits, at least 2, behind the others, which stay a heap. */
IQ_FN void iq_topk_settle(iq_topk *topk, size_t count);

#endif
