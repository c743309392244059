/* Slots, pins without a slot, scratch, and tables that are replaced under readers' eyes. What threads do to one another
 * is in tests/model/test_epoch.c and tests/api/test_history.c. */
#include "api.h"
#include "store/epoch.h"
#include "support.h"
#include "test.h"

static void pins_keep_the_oldest_moment(void) {
    enum {
        MOST = 3 * IQ_SLOT_COUNT
    };
    support_heap heap = support_heap_make();
    const iqdb_allocator allocator = support_allocator(&heap);
    iq_pin pins[MOST];
    iq_epoch epoch;
    iq_tally tally = {{0, 0}};
    iq_epoch_init(&epoch);
    CHECK_EQ_U64(epoch.moment, 1);
    CHECK_EQ_U64(iq_epoch_oldest(&epoch), IQ_MOMENT_NEVER);
    for (int round = 0; round < 3; round++) {
        size_t slotted = 0;
        for (uint64_t i = 0; i < MOST; i++) {
            pins[i] = iq_epoch_pin(&epoch, &tally, (uintptr_t)i);
            CHECK_EQ_U64(pins[i].moment, epoch.moment);
            CHECK_EQ_U64(pins[i].count, epoch.moment == 1 ? 0 : epoch.moment * 7);
            slotted += pins[i].slot != NULL;
            for (uint64_t j = 0; j < i; j++) CHECK(pins[i].slot == NULL || pins[i].slot != pins[j].slot);
            iq_epoch_tell(&epoch, &tally, (epoch.moment + 1) * 7);
            iq_epoch_publish(&epoch);
            CHECK_EQ_U64(iq_epoch_count(&epoch, &tally), epoch.moment * 7);
            CHECK_EQ_U64(iq_epoch_oldest(&epoch), slotted == i + 1 ? pins[0].moment : 0);
        }
        CHECK_EQ_U64(slotted, IQ_SLOT_COUNT * (uint64_t)(round + 1));
        heap.fail_at = 1;
        iq_epoch_make_room(&epoch, &allocator); /* in vain */
        iq_epoch_make_room(&epoch, &allocator);
        iq_epoch_make_room(&epoch, &allocator); /* once is enough */
        CHECK_EQ_U64(heap.live_blocks, round < 2 ? (uint64_t)round + 1 : 2);
        for (size_t i = 0; i < MOST; i++) iq_epoch_unpin(&epoch, pins[i].slot);
        CHECK_EQ_U64(iq_epoch_oldest(&epoch), IQ_MOMENT_NEVER);
    }
    iq_epoch_free(&epoch, &allocator);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

static void scratch_is_anybodys(void) {
    support_heap heap = support_heap_make();
    const iqdb_allocator allocator = support_allocator(&heap);
    iq_epoch epoch;
    iq_scratch *made[IQ_SLOT_COUNT + 1];
    iq_epoch_init(&epoch);
    CHECK(iq_epoch_take_scratch(&epoch, NULL, 0) == NULL);
    CHECK(iq_epoch_take_scratch(&epoch, &epoch.first.slots[3], 0) == NULL);
    for (size_t i = 0; i <= IQ_SLOT_COUNT; i++) {
        made[i] = (iq_scratch *)iq_alloc(&allocator, 128, IQ_CACHE_LINE);
        CHECK(made[i] != NULL);
        made[i]->size_bytes = 128;
        CHECK(iq_epoch_leave_scratch(&epoch, i % 2 == 0 ? &epoch.first.slots[5] : NULL, made[i]) ==
              (i < IQ_SLOT_COUNT));
    }
    CHECK(iq_epoch_take_scratch(&epoch, &epoch.first.slots[5], 0) == made[0]); /* its own first */
    CHECK(iq_epoch_leave_scratch(&epoch, NULL, made[IQ_SLOT_COUNT]));
    for (size_t i = 1; i <= IQ_SLOT_COUNT; i++) CHECK(iq_epoch_take_scratch(&epoch, NULL, 0) != NULL);
    CHECK(iq_epoch_take_scratch(&epoch, NULL, 0) == NULL);
    /* One of another size is taken only where none is large enough; the small ones stay where they are. */
    for (size_t i = 0; i < 3; i++) {
        made[i]->size_bytes = 100 + i;
        CHECK(iq_epoch_leave_scratch(&epoch, &epoch.first.slots[i], made[i]));
    }
    CHECK(iq_epoch_take_scratch(&epoch, &epoch.first.slots[0], 102) == made[2]);
    CHECK(iq_epoch_take_scratch(&epoch, &epoch.first.slots[1], 102) == made[1]);
    CHECK(iq_epoch_take_scratch(&epoch, &epoch.first.slots[1], 100) == made[0]);
    CHECK(iq_epoch_take_scratch(&epoch, NULL, 1) == NULL);
    for (size_t i = 0; i < 3; i++) made[i]->size_bytes = 128;
    for (size_t i = 0; i < IQ_SLOT_COUNT; i++) CHECK(iq_epoch_leave_scratch(&epoch, NULL, made[i]));
    iq_free(&allocator, made[IQ_SLOT_COUNT], 128, IQ_CACHE_LINE);
    iq_epoch_free(&epoch, &allocator); /* with what lies in it */
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

static void tables_outlive_their_readers(void) {
    support_heap heap = support_heap_make();
    const iqdb_allocator allocator = support_allocator(&heap);
    uint64_t *items = NULL, *kept[8];
    uint64_t used = 0;
    for (uint64_t now = 1; now <= 8; now++) { /* one is replaced at each moment */
        const size_t size = iq_table_size(items);
        uint64_t *grown =
            (uint64_t *)iq_table_reserve(&allocator, items, sizeof *items, used, size / sizeof *items + 1 - used);
        CHECK(grown != NULL && grown != items && (uintptr_t)grown % IQ_CACHE_LINE == 0);
        for (uint64_t i = 0; i < used; i++) CHECK_EQ_U64(grown[i], i);
        CHECK_EQ_U64(grown[used], 0);
        while (used < iq_table_size(grown) / sizeof *grown / 2) {
            grown[used] = used;
            used++;
        }
        kept[now - 1] = items = grown;
        iq_table_trim(&allocator, items, 1, now); /* a pin on moment 1 keeps them all */
        CHECK_EQ_U64(heap.live_blocks, now);
        CHECK(iq_table_reserve(&allocator, items, sizeof *items, used, 1) == items);
    }
    for (uint64_t oldest = 2; oldest <= 8; oldest++) { /* kept[i] was replaced at i + 2, the first at 2 */
        iq_table_trim(&allocator, items, oldest, 9);
        CHECK_EQ_U64(heap.live_blocks, 8 - (oldest - 2));
        for (uint64_t i = oldest - 2; i < 8; i++) CHECK_EQ_U64(kept[i][1], 1);
    }
    iq_table_trim(&allocator, items, IQ_MOMENT_NEVER, 9);
    CHECK_EQ_U64(heap.live_blocks, 1);
    heap.fail_at = 1;
    CHECK(iq_table_renew(&allocator, items, 64) == NULL);
    CHECK(iq_table_reserve(&allocator, items, 1, iq_table_size(items), (size_t)-1 / 2) == NULL);
    CHECK(iq_table_renew(&allocator, items, (size_t)-1) == NULL);
    iq_table_free(&allocator, items);
    iq_table_free(&allocator, NULL);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

TEST_MAIN("store/epoch", TEST(pins_keep_the_oldest_moment), TEST(scratch_is_anybodys),
          TEST(tables_outlive_their_readers))
