/* Slabs of rows: arithmetic of row -> slab, reuse, padding. */
#include "api.h"
#include "base/alloc.h"
#include "store/rows.h"
#include "support.h"
#include "test.h"

/* The slab of a row by walking all slabs, as the comment in rows.h describes them. */
static void walk(uint32_t most, uint32_t row, size_t *out_slab, uint32_t *out_index) {
    uint64_t first = 0, size = 16;
    size_t slab = 0;
    while (row >= first + size) {
        first += size;
        slab++;
        size = slab == 1 ? 16 : size * 2;
        if (size > most) size = most;
    }
    *out_slab = slab;
    *out_index = (uint32_t)(row - first);
}

static void a_row_is_where_the_sizes_say(void) {
    static iq_slab slabs[128];
    /* 8 MiB hold 65,536 rows of 16 floats and 40 bytes; 8,192 of 128; 2,048 of 768; and never fewer than 1,024. */
    static const uint32_t dims[] = {1, 128, 768, 1536, 65536}, most[] = {65536, 8192, 2048, 1024, 1024};
    for (size_t d = 0; d < IQ_COUNT_OF(dims); d++) {
        iq_rows rows;
        iqdb_allocator allocator = iq_alloc_default();
        iq_rows_init(&rows, &allocator);
        iq_rows_set_dim(&rows, dims[d]);
        rows.slabs = slabs;
        for (uint32_t row = 0; row < most[d] * 40; row += row < 70000 ? 1 : 977) {
            size_t slab;
            uint32_t index, seen;
            walk(most[d], row, &slab, &index);
            CHECK(iq_rows_slab(&rows, row, &seen) == &slabs[slab]);
            CHECK_EQ_U64(seen, index);
            CHECK_EQ_U64(iq_slab_first_row(&rows, slab) + index, row);
            CHECK(index < iq_slab_rows(&rows, slab));
            CHECK_EQ_U64(iq_slab_first_row(&rows, slab) + iq_slab_rows(&rows, slab),
                         iq_slab_first_row(&rows, slab + 1));
        }
    }
}

static void rows_are_reused_and_padded(void) {
    support_heap heap = support_heap_make();
    iqdb_allocator allocator = support_allocator(&heap);
    iq_rows rows;
    iq_rows_init(&rows, &allocator);
    iq_rows_set_dim(&rows, 5);
    CHECK_EQ_U64(rows.stride, 16);
    enum {
        COUNT = 3000
    };
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t row, index;
        CHECK_EQ_INT(iq_rows_take(&rows, &row), IQDB_OK);
        CHECK_EQ_U64(row, i);
        const iq_slab *slab = iq_rows_slab(&rows, row, &index);
        CHECK_EQ_U64((uintptr_t)(slab->vectors + index * rows.stride) % 64, 0);
        CHECK(!iq_row_visible(slab, index, IQ_MOMENT_NEVER - 1));
        for (size_t f = 0; f < rows.stride; f++) slab->vectors[index * rows.stride + f] = 7.0f;
        slab->heads[index].id = slab->heads[index].birth = slab->heads[index].payload = i;
        slab->norms[index] = (float)i;
        slab->links[index].previous = i;
    }
    for (uint32_t i = 0; i < COUNT; i++) { /* no two arrays overlap */
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&rows, i, &index);
        CHECK_EQ_U64(slab->heads[index].id, i);
        CHECK_EQ_U64(slab->heads[index].birth, i);
        CHECK_EQ_U64(slab->heads[index].death, IQ_MOMENT_NEVER);
        CHECK_EQ_U64(slab->heads[index].payload, i);
        CHECK_EQ_U64(slab->links[index].previous, i);
        CHECK_EQ_F32(slab->norms[index], (float)i);
        CHECK_EQ_F32(slab->vectors[index * rows.stride + 15], 7.0f);
    }
    iq_rows_give_back(&rows, 10);
    iq_rows_give_back(&rows, 2000);
    uint32_t a, b, c, index;
    CHECK_EQ_INT(iq_rows_take(&rows, &a), IQDB_OK);
    CHECK_EQ_INT(iq_rows_take(&rows, &b), IQDB_OK);
    CHECK_EQ_INT(iq_rows_take(&rows, &c), IQDB_OK);
    CHECK(a == 10 && b == 2000 && c == COUNT);
    const iq_slab *slab = iq_rows_slab(&rows, b, &index);
    for (size_t f = 5; f < rows.stride; f++) CHECK_EQ_F32(slab->vectors[index * rows.stride + f], 0.0f);
    iq_rows_free(&rows);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

static void a_failed_allocation_changes_nothing(void) {
    for (size_t n = 1; n < 40; n++) {
        support_heap heap = support_heap_make();
        iqdb_allocator allocator = support_allocator(&heap);
        iq_rows rows;
        iq_rows_init(&rows, &allocator);
        iq_rows_set_dim(&rows, 3);
        heap.fail_at = n;
        uint32_t taken = 0, row;
        while (taken < 20000) {
            const iqdb_result result = iq_rows_take(&rows, &row);
            if (result == IQDB_OK) {
                CHECK_EQ_U64(row, taken);
                taken++;
            } else {
                CHECK_EQ_INT(result, IQDB_ERR_NOMEM);
                CHECK_EQ_U64(rows.count, taken);
            }
        }
        iq_rows_free(&rows);
        CHECK_EQ_INT(support_heap_problems(&heap), 0);
    }
}

TEST_MAIN("store/rows", TEST(a_row_is_where_the_sizes_say), TEST(rows_are_reused_and_padded),
          TEST(a_failed_allocation_changes_nothing))
