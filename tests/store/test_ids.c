/* The id table against a plain array. */
#include "api.h"
#include "base/alloc.h"
#include "store/ids.h"
#include "support.h"
#include "test.h"

enum {
    ROWS = 4000
};

static void open_rows(iq_rows *rows, const iqdb_allocator *allocator) {
    iq_rows_init(rows, allocator);
    iq_rows_set_dim(rows, 1);
    for (uint32_t i = 0; i < ROWS; i++) {
        uint32_t row;
        (void)iq_rows_take(rows, &row);
    }
}

static void name_row(const iq_rows *rows, uint32_t row, uint64_t id) {
    uint32_t index;
    iq_rows_slab(rows, row, &index)->heads[index].id = id;
}

/* What a write does: looks for the place, and puts the row there. Returns the row before it. */
static uint32_t set(iq_ids *ids, const iq_rows *rows, uint64_t id, uint32_t row) {
    iq_spot before;
    uint64_t *place = iq_ids_place(ids, rows, id, &before);
    iq_ids_put(ids, place, id, row);
    return before.slab == NULL ? IQ_ROW_NONE : before.row;
}

/* The row of an id, found in both ways, and where it lies. */
static uint32_t find(const iq_ids *ids, const iq_rows *rows, uint64_t id) {
    const iq_spot spot = iq_ids_find(ids, rows, id, false), same = iq_ids_find(ids, rows, id, true);
    EXPECT(same.slab == spot.slab);
    if (spot.slab == NULL) return IQ_ROW_NONE;
    EXPECT(same.row == spot.row && same.index == spot.index && iq_spot_head(spot)->id == id);
    return spot.row;
}

/* Random sets, replacements and removals over few and many ids; the model is an array id -> row. */
static void agrees_with_a_model(void) {
    static uint32_t model[ROWS];
    support_heap heap = support_heap_make();
    iqdb_allocator allocator = support_allocator(&heap);
    const uint64_t spreads[] = {1, UINT64_C(0x100000000), UINT64_C(0x9E3779B97F4A7C15)};
    for (size_t s = 0; s < sizeof spreads / sizeof spreads[0]; s++) {
        uint64_t random = 7 + s;
        iq_rows rows;
        iq_ids ids;
        open_rows(&rows, &allocator);
        iq_ids_init(&ids, &allocator);
        size_t live = 0;
        for (size_t i = 0; i < ROWS; i++) model[i] = IQ_ROW_NONE;
        for (size_t step = 0; step < 60000; step++) {
            const uint64_t key = support_random_below(&random, ROWS), id = key * spreads[s];
            const uint32_t row = (uint32_t)key; /* one row per id, so that its id never changes under the table */
            if (support_random_below(&random, 3) > 0) {
                name_row(&rows, row, id);
                CHECK_EQ_INT(iq_ids_reserve(&ids, 1), IQDB_OK);
                CHECK_EQ_U64(set(&ids, &rows, id, row), model[key]);
                live += model[key] == IQ_ROW_NONE;
                model[key] = row;
            } else if (model[key] != IQ_ROW_NONE) {
                iq_ids_remove(&ids, id, row);
                live--;
                model[key] = IQ_ROW_NONE;
            }
            CHECK_EQ_U64(ids.live, live);
            CHECK(ids.used <= ids.capacity - ids.capacity / 4);
            const uint64_t probe = support_random_below(&random, ROWS);
            CHECK_EQ_U64(find(&ids, &rows, probe * spreads[s]), model[probe]);
        }
        for (size_t i = 0; i < ROWS; i++) CHECK_EQ_U64(find(&ids, &rows, i * spreads[s]), model[i]);
        CHECK(ids.capacity <= 16384); /* removals do not grow it */
        iq_ids_free(&ids);
        iq_rows_free(&rows);
    }
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

static void one_id_may_change_its_row(void) {
    support_heap heap = support_heap_make();
    iqdb_allocator allocator = support_allocator(&heap);
    iq_rows rows;
    iq_ids ids;
    open_rows(&rows, &allocator);
    iq_ids_init(&ids, &allocator);
    CHECK_EQ_U64(find(&ids, &rows, 5), IQ_ROW_NONE);
    CHECK_EQ_INT(iq_ids_reserve(&ids, 1), IQDB_OK);
    name_row(&rows, 3, UINT64_MAX);
    name_row(&rows, 9, UINT64_MAX);
    CHECK_EQ_U64(set(&ids, &rows, UINT64_MAX, 3), IQ_ROW_NONE);
    CHECK_EQ_U64(set(&ids, &rows, UINT64_MAX, 9), 3);
    CHECK_EQ_U64(find(&ids, &rows, UINT64_MAX), 9);
    CHECK_EQ_U64(ids.live, 1);
    iq_ids_free(&ids);
    iq_rows_free(&rows);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

static void a_failed_rebuild_keeps_the_table(void) {
    support_heap heap = support_heap_make();
    iqdb_allocator allocator = support_allocator(&heap);
    iq_rows rows;
    iq_ids ids;
    open_rows(&rows, &allocator);
    iq_ids_init(&ids, &allocator);
    for (uint32_t i = 0; i < ROWS; i++) {
        name_row(&rows, i, i);
        heap.fail_at = 1;
        if (iq_ids_reserve(&ids, 1) != IQDB_OK) CHECK_EQ_INT(iq_ids_reserve(&ids, 1), IQDB_OK);
        (void)set(&ids, &rows, i, i);
    }
    heap.fail_at = 0;
    for (uint32_t i = 0; i < ROWS; i++) CHECK_EQ_U64(find(&ids, &rows, i), i);
    CHECK_EQ_INT(iq_ids_reserve(&ids, (size_t)-1), IQDB_ERR_NOMEM);
    CHECK_EQ_INT(iq_ids_reserve(&ids, (size_t)-1 / 2), IQDB_ERR_NOMEM);
    iq_ids_free(&ids);
    iq_rows_free(&rows);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* Ids that come and go leave nothing behind: with no id in it the table is as good as new, and is not rebuilt. */
static void removed_places_are_used_again(void) {
    support_heap heap = support_heap_make();
    iqdb_allocator allocator = support_allocator(&heap);
    iq_rows rows;
    iq_ids ids;
    open_rows(&rows, &allocator);
    iq_ids_init(&ids, &allocator);
    CHECK_EQ_INT(iq_ids_reserve(&ids, 1000), IQDB_OK);
    const uint64_t *slots = ids.slots;
    for (uint64_t round = 0; round < 50; round++) {
        for (uint32_t i = 0; i < 1000; i++) {
            name_row(&rows, i, round * 1000 + i);
            CHECK_EQ_INT(iq_ids_reserve(&ids, 1), IQDB_OK);
            CHECK_EQ_U64(set(&ids, &rows, round * 1000 + i, i), IQ_ROW_NONE);
        }
        for (uint32_t i = 0; i < 1000; i++) {
            const uint32_t other = (i * 617u + (uint32_t)round) % 1000;
            iq_ids_remove(&ids, round * 1000 + other, other);
            CHECK_EQ_U64(ids.live, 999 - i);
            CHECK(ids.used >= ids.live);
        }
        CHECK_EQ_U64(ids.used, 0);
    }
    CHECK(ids.slots == slots);
    iq_ids_free(&ids);
    iq_rows_free(&rows);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

TEST_MAIN("store/ids", TEST(agrees_with_a_model), TEST(one_id_may_change_its_row),
          TEST(a_failed_rebuild_keeps_the_table), TEST(removed_places_are_used_again))
