/* The payload heap: blocks never overlap, keep their bytes, and are used again. */
#include "api.h"
#include "base/alloc.h"
#include "store/heap.h"
#include "support.h"
#include "test.h"

static void block_sizes_fit_and_waste_little(void) {
    uint64_t before = 0;
    for (size_t size = 0; size < 5000000; size = size < 3000 ? size + 1 : size + size / 97) {
        const uint64_t block = iq_heap_block_size(size);
        CHECK(block >= size + 4 && block % 8 == 0 && block >= before);
        if (size <= 1020) CHECK(block < size + 4 + 8);
        CHECK((double)block <= 1.13 * (double)(size + 4) + 8);
        before = block;
    }
    CHECK(iq_heap_block_size(IQDB_PAYLOAD_SIZE_MAX) >= (uint64_t)IQDB_PAYLOAD_SIZE_MAX + 4);
}

typedef struct item {
    uint64_t ref;
    size_t size;
    uint8_t fill;
} item;

/* Random takes and give-backs; every live block keeps its fill. */
static void blocks_keep_their_bytes(void) {
    enum {
        ITEMS = 700
    };
    static item items[ITEMS];
    support_heap memory = support_heap_make();
    iqdb_allocator allocator = support_allocator(&memory);
    uint64_t random = 11;
    iq_heap heap;
    iq_heap_init(&heap, &allocator);
    memset(items, 0, sizeof items);
    for (size_t step = 0; step < 40000; step++) {
        item *one = &items[support_random_below(&random, ITEMS)];
        if (one->ref != 0) {
            const iqdb_payload payload = iq_heap_payload(&heap, one->ref);
            CHECK_EQ_U64(payload.size, one->size);
            const uint8_t *bytes = (const uint8_t *)payload.bytes;
            for (size_t i = 0; i < one->size; i += 1 + one->size / 16) CHECK_EQ_INT(bytes[i], one->fill);
            if (one->size > 0) CHECK_EQ_INT(bytes[one->size - 1], one->fill);
            iq_heap_give_back(&heap, one->ref);
            one->ref = 0;
        } else {
            uint8_t *bytes;
            const uint64_t kind = support_random_below(&random, 100);
            one->size = (size_t)support_random_below(&random, kind < 90 ? 300 : kind < 99 ? 20000 : 600000);
            one->fill = (uint8_t)support_random_below(&random, 256);
            CHECK_EQ_INT(iq_heap_take(&heap, one->size, &one->ref, &bytes), IQDB_OK);
            CHECK(one->ref != 0 && one->ref % 8 == 0);
            memset(bytes, one->fill, one->size);
        }
    }
    iq_heap_free(&heap);
    CHECK_EQ_INT(support_heap_problems(&memory), 0);
}

static void steady_sizes_do_not_grow_it(void) {
    support_heap memory = support_heap_make();
    iqdb_allocator allocator = support_allocator(&memory);
    uint64_t refs[100];
    uint8_t *bytes;
    iq_heap heap;
    iq_heap_init(&heap, &allocator);
    for (size_t i = 0; i < 100; i++) CHECK_EQ_INT(iq_heap_take(&heap, 160, &refs[i], &bytes), IQDB_OK);
    iq_heap_give_back(&heap, refs[99]); /* the first one makes a list */
    CHECK_EQ_INT(iq_heap_take(&heap, 160, &refs[99], &bytes), IQDB_OK);
    const size_t calls = memory.calls;
    for (size_t i = 0; i < 100000; i++) {
        iq_heap_give_back(&heap, refs[i % 100]);
        CHECK_EQ_INT(iq_heap_take(&heap, 160, &refs[i % 100], &bytes), IQDB_OK);
    }
    CHECK_EQ_U64(memory.calls, calls);
    iq_heap_free(&heap);
    CHECK_EQ_INT(support_heap_problems(&memory), 0);
}

static void a_stored_heap_is_adopted(void) {
    support_heap memory = support_heap_make();
    iqdb_allocator allocator = support_allocator(&memory);
    uint8_t *bytes;
    uint64_t ref;
    iq_heap heap;
    iq_heap_init(&heap, &allocator);
    CHECK_EQ_INT(iq_heap_adopt(&heap, 3 * 65536 + 8, &bytes), IQDB_OK);
    memset(bytes, 0, 3 * 65536 + 8);
    iq_heap_fix_size(&heap, 65536 * 2 - 8, 12); /* across a page border */
    memcpy(bytes + 65536 * 2 - 4, "hello, page!", 12);
    const iqdb_payload payload = iq_heap_payload(&heap, 65536 * 2 - 8);
    CHECK_EQ_U64(payload.size, 12);
    CHECK_MEM(payload.bytes, "hello, page!", 12);
    CHECK_EQ_INT(iq_heap_take(&heap, 12, &ref, &bytes), IQDB_OK);
    CHECK(ref >= 4 * 65536); /* behind what was adopted */
    iq_heap_give_back(&heap, 65536 * 2 - 8);
    CHECK_EQ_INT(iq_heap_take(&heap, 12, &ref, &bytes), IQDB_OK);
    CHECK_EQ_U64(ref, 65536 * 2 - 8);
    iq_heap_free(&heap);
    CHECK_EQ_INT(support_heap_problems(&memory), 0);
}

static void a_failed_allocation_changes_nothing(void) {
    for (size_t n = 1; n < 30; n++) {
        support_heap memory = support_heap_make();
        iqdb_allocator allocator = support_allocator(&memory);
        uint64_t refs[64];
        iq_heap heap;
        iq_heap_init(&heap, &allocator);
        memory.fail_at = n;
        for (size_t i = 0; i < 64;) {
            uint8_t *bytes;
            const iqdb_result result = iq_heap_take(&heap, 9000 * (1 + i % 40), &refs[i], &bytes);
            if (result == IQDB_OK) {
                memset(bytes, (int)i, 9000 * (1 + i % 40));
                i++;
            } else {
                CHECK_EQ_INT(result, IQDB_ERR_NOMEM);
            }
        }
        for (size_t i = 0; i < 64; i++) {
            const iqdb_payload payload = iq_heap_payload(&heap, refs[i]);
            CHECK_EQ_U64(payload.size, 9000 * (1 + i % 40));
            CHECK_EQ_INT(((const uint8_t *)payload.bytes)[payload.size - 1], (int)i);
        }
        iq_heap_free(&heap);
        CHECK_EQ_INT(support_heap_problems(&memory), 0);
    }
}

TEST_MAIN("store/heap", TEST(block_sizes_fit_and_waste_little), TEST(blocks_keep_their_bytes),
          TEST(steady_sizes_do_not_grow_it), TEST(a_stored_heap_is_adopted), TEST(a_failed_allocation_changes_nothing))
