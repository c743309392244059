/* Memory for large blocks: where it begins, that it is all there, and whose it is. */
#include "sys/sys.h"

#include "support.h"
#include "test.h"

#define LARGE ((size_t)1 << 21)

static void blocks_are_aligned_and_their_own(void) {
    static const size_t sizes[] = {1, 4096, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE - 5000, 5 * LARGE};
    const iqdb_allocator allocator = iq_alloc_default();
    uint8_t *blocks[IQ_COUNT_OF(sizes)];
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < IQ_COUNT_OF(sizes); i++) {
            blocks[i] = (uint8_t *)iq_pages_alloc(&allocator, sizes[i]);
            CHECK(blocks[i] != NULL);
            CHECK_EQ_U64((uintptr_t)blocks[i] % 64, 0);
            memset(blocks[i], (int)i + 1, sizes[i]);
        }
        for (size_t i = 0; i < IQ_COUNT_OF(sizes); i++) {
            size_t others = 0;
            for (size_t at = 0; at < sizes[i]; at++) others += blocks[i][at] != i + 1;
            CHECK_EQ_U64(others, 0);
            iq_pages_free(&allocator, blocks[i], sizes[i]);
        }
    }
    iq_pages_free(&allocator, NULL, LARGE);
}

static void what_cannot_be_is_null(void) {
    const iqdb_allocator allocator = iq_alloc_default();
    CHECK(iq_pages_alloc(&allocator, (size_t)-1 / 5) == NULL);
    CHECK(iq_pages_alloc(&allocator, (size_t)-1 / 2) == NULL);
}

/* An allocator that the user has brought is asked for everything. */
static void a_users_allocator_is_asked(void) {
    support_heap heap = support_heap_make();
    const iqdb_allocator allocator = support_allocator(&heap);
    void *block = iq_pages_alloc(&allocator, 2 * LARGE);
    CHECK(block != NULL);
    CHECK_EQ_U64(heap.calls, 1);
    CHECK_EQ_U64(heap.live_bytes, 2 * LARGE);
    iq_pages_free(&allocator, block, 2 * LARGE);
    heap.fail_at = 1;
    CHECK(iq_pages_alloc(&allocator, 2 * LARGE) == NULL);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
}

TEST_MAIN("sys/pages", TEST(blocks_are_aligned_and_their_own), TEST(what_cannot_be_is_null),
          TEST(a_users_allocator_is_asked))
