/* The heap against a sorted list. */
#include "base/topk.h"

#include "test.h"

#include "support.h"

typedef struct item {
    float score;
    uint64_t id;
    size_t tag;
} item;

/* Written without iq_score_key: NaN last, then numbers, then ids. */
static int compare_items(const void *left, const void *right) {
    const item *a = (const item *)left, *b = (const item *)right;
    const int nan_a = (iq_f32_bits(a->score) & 0x7FFFFFFFu) > 0x7F800000u;
    const int nan_b = (iq_f32_bits(b->score) & 0x7FFFFFFFu) > 0x7F800000u;
    if (nan_a != nan_b) return nan_a - nan_b;
    if (!nan_a && a->score != b->score) return a->score < b->score ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

static void check_offers(const item *items, size_t count, size_t k, const item *sorted) {
    iqdb_hit *hits = (iqdb_hit *)malloc((k + 1) * sizeof(iqdb_hit));
    iq_topk topk;
    memset(hits, 0x5A, (k + 1) * sizeof(iqdb_hit));
    iq_topk_start(&topk, hits, k);
    for (size_t i = 0; i < count; i++) {
        const float threshold = iq_topk_threshold(&topk);
        const bool admits = iq_topk_admits(&topk, items[i].score, items[i].id);
        if (i < k) CHECK(admits && iq_f32_bits(threshold) == 0x7F800000u);
        if (iq_score_key(items[i].score) > iq_score_key(threshold) && i >= k) CHECK(!admits);
        if (admits) iq_topk_push(&topk, items[i].score, items[i].id, items[i].tag);
        CHECK_EQ_U64(topk.count, i + 1 < k ? i + 1 : k);
    }
    iq_topk_sort(&topk);
    CHECK_EQ_U64(topk.count, count < k ? count : k);
    for (size_t i = 0; i < topk.count; i++) {
        CHECK_EQ_U64(hits[i].id, sorted[i].id);
        CHECK_EQ_F32(hits[i].score, sorted[i].score);
        CHECK_EQ_U64(hits[i].payload.size, sorted[i].tag);
        CHECK(hits[i].payload.bytes == NULL);
    }
    unsigned char untouched[sizeof(iqdb_hit)];
    memset(untouched, 0x5A, sizeof untouched);
    CHECK_MEM(&hits[k], untouched, sizeof untouched);
    free(hits);
}

static void keeps_the_first_k_in_any_order(void) {
    static const uint32_t special[] = {0x7F800000u, 0xFF800000u, 0x7FC00000u, 0xFFC00000u, 0x7F800001u, 0x00000000u,
                                       0x00000001u, 0x80000001u, 0x7F7FFFFFu, 0xFF7FFFFFu, 0x3F800000u, 0xBF800000u};
    static item items[300], sorted[300];
    uint64_t random = 1;
    for (size_t round = 0; round < support_amount(500, 5000, 50000); round++) {
        const size_t count = (size_t)support_random_below(&random, 300);
        const size_t k = 1 + (size_t)support_random_below(&random, round % 2 == 0 ? 12 : 320);
        const uint64_t kinds = 1 + support_random_below(&random, 20); /* few scores: many ties */
        for (size_t i = 0; i < count; i++) {
            const uint64_t which = support_random_below(&random, kinds);
            items[i].score =
                which % 3 == 0 ? iq_f32_from_bits(special[which % IQ_COUNT_OF(special)]) : (float)which / 3.0f - 2.0f;
            items[i].id = i * UINT64_C(0x9E3779B97F4A7C15); /* distinct, unordered, beyond 32 bits */
            items[i].tag = i;
        }
        memcpy(sorted, items, sizeof items);
        qsort(sorted, count, sizeof sorted[0], compare_items);
        for (int shuffle = 0; shuffle < 3; shuffle++) {
            check_offers(items, count, k, sorted);
            if (test_now.failures > 0) return;
            for (size_t i = count; i > 1; i--) {
                const size_t j = (size_t)support_random_below(&random, i);
                const item other = items[j];
                items[j] = items[i - 1];
                items[i - 1] = other;
            }
        }
        check_offers(sorted, count, k, sorted);
        if (test_now.failures > 0) return;
    }
}

static void keys_order_scores(void) {
    static const uint32_t ascending[] = {0xFF800000u, 0xFF7FFFFFu, 0xBF800000u, 0x80000001u, 0x00000000u,
                                         0x00000001u, 0x3F800000u, 0x7F7FFFFFu, 0x7F800000u, 0x7FC00000u};
    for (size_t i = 0; i + 1 < IQ_COUNT_OF(ascending); i++) {
        const float a = iq_f32_from_bits(ascending[i]), b = iq_f32_from_bits(ascending[i + 1]);
        CHECK(iq_score_key(a) < iq_score_key(b));
        CHECK(iq_ranks_before(a, 2, b, 1) && !iq_ranks_before(b, 1, a, 2));
        CHECK(iq_ranks_before(a, 1, a, 2) && !iq_ranks_before(a, 2, a, 1) && !iq_ranks_before(a, 1, a, 1));
    }
    CHECK(iq_score_key(iq_f32_from_bits(0xFFC00001u)) == iq_score_key(iq_f32_from_bits(0x7F800001u)));
}

TEST_MAIN("base/topk", TEST(keys_order_scores), TEST(keeps_the_first_k_in_any_order))
