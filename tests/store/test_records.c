/* Records with versions: what each pinned moment sees, while rows are replaced, deleted, reclaimed and used again. */
#include "api.h"
#include "base/alloc.h"
#include "store/records.h"
#include "support.h"
#include "test.h"

enum {
    DIM = 3,
    IDS = 40,
    VIEWS = 6
};

/* The state at one moment: version 0 is no record. */
typedef struct view {
    bool open;
    iq_pin pin;
    uint64_t live;
    uint32_t version[IDS];
} view;

static void vector_of(uint64_t id, uint32_t version, float *out) {
    for (int i = 0; i < DIM; i++) out[i] = (float)(id * 100 + version) + (float)i / 4.0f;
}

/* The payload of a version is its number, as often as the version says: sizes change, and so do blocks. */
static iqdb_payload payload_of(uint32_t version, uint32_t *room) {
    iqdb_payload payload = {NULL, 0};
    if (version % 5 == 0) return payload;
    for (uint32_t i = 0; i < version % 50; i++) room[i] = version;
    payload.bytes = room;
    payload.size = (version % 50) * sizeof(uint32_t);
    return payload;
}

/* The row of an id, or IQ_ROW_NONE. */
static uint32_t find(const iq_records *records, uint64_t id, uint64_t moment) {
    const iq_spot spot = iq_records_find(records, id, moment, id % 2 == 0);
    return spot.slab == NULL ? IQ_ROW_NONE : spot.row;
}

/* Every id at every open view is as the model has it, bit for bit. */
static bool agrees(const iq_records *records, const view *at) {
    for (uint64_t id = 0; id < IDS; id++) {
        const uint32_t row = find(records, id * 7919, at->pin.moment);
        if ((row != IQ_ROW_NONE) != (at->version[id] != 0)) return false;
        if (row == IQ_ROW_NONE) continue;
        uint32_t index, room[64];
        float expected[DIM];
        const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
        vector_of(id, at->version[id], expected);
        if (memcmp(slab->vectors + index * records->rows.stride, expected, sizeof expected) != 0) return false;
        if (slab->heads[index].id != id * 7919) return false;
        const iqdb_payload wanted = payload_of(at->version[id], room);
        const iqdb_payload found = iq_heap_payload(&records->heap, slab->heads[index].payload);
        if (found.size != wanted.size || (found.bytes != NULL) != (wanted.bytes != NULL)) return false;
        if (wanted.size > 0 && memcmp(found.bytes, wanted.bytes, wanted.size) != 0) return false;
    }
    return true;
}

static void every_pin_sees_its_state(void) {
    support_heap heap = support_heap_make();
    iqdb_allocator allocator = support_allocator(&heap);
    iq_common common;
    iq_records records;
    view now, views[VIEWS];
    uint64_t random = 5;
    uint32_t version = 0;
    uint64_t lsn = 0;
    memset(&now, 0, sizeof now);
    memset(views, 0, sizeof views);
    iq_common_init(&common);
    iq_records_init(&records, &common, &allocator, iq_kernel_scalar());
    iq_rows_set_dim(&records.rows, DIM);
    for (size_t step = 0; step < 30000; step++) {
        const uint64_t kind = support_random_below(&random, 20), id = support_random_below(&random, IDS);
        view *one = &views[support_random_below(&random, VIEWS)];
        if (kind < 10) {
            uint32_t row, room[64];
            float vector[DIM];
            version++;
            vector_of(id, version, vector);
            CHECK_EQ_INT(iq_records_reserve(&records, 1), IQDB_OK);
            CHECK_EQ_INT(iq_records_stage(&records, id * 7919, vector, payload_of(version, room), &row), IQDB_OK);
            if (kind == 0) { /* given up before it was logged */
                iq_records_unstage(&records, row);
            } else {
                iq_records_upsert(&records, row);
                now.live += now.version[id] == 0;
                now.version[id] = version;
                iq_records_publish(&records, ++lsn);
            }
        } else if (kind < 16) {
            CHECK_EQ_INT(iq_records_reserve(&records, 1), IQDB_OK);
            CHECK_EQ_INT(iq_records_delete(&records, id * 7919), now.version[id] != 0);
            now.live -= now.version[id] != 0;
            now.version[id] = 0;
            iq_records_publish(&records, ++lsn);
        } else if (one->open) {
            CHECK(agrees(&records, one));
            CHECK_EQ_U64(one->pin.count, one->live);
            iq_epoch_unpin(&common.epoch, one->pin.slot);
            one->open = false;
        } else {
            *one = now;
            one->pin = iq_epoch_pin(&common.epoch, &records.tally, 0);
            CHECK_EQ_U64(one->pin.moment, common.epoch.moment);
            one->open = true;
        }
        now.pin.moment = common.epoch.moment;
        if (step % 16 == 0) {
            size_t live = 0;
            CHECK(agrees(&records, &now));
            for (size_t v = 0; v < VIEWS; v++) CHECK(!views[v].open || agrees(&records, &views[v]));
            for (size_t i = 0; i < IDS; i++) live += now.version[i] != 0;
            CHECK_EQ_U64(records.live_count, live);
        }
    }
    for (size_t v = 0; v < VIEWS; v++)
        if (views[v].open) iq_epoch_unpin(&common.epoch, views[v].pin.slot);
    (void)iq_records_maintain(&records, NULL);
    CHECK_EQ_U64(records.retired.bytes, 0);
    CHECK_EQ_U64(records.retired.count, 0);
    uint32_t kept = records.rows.count, index;
    for (uint32_t row = records.rows.free_head; row != IQ_ROW_NONE; kept--)
        row = iq_rows_slab(&records.rows, row, &index)->links[index].previous;
    CHECK_EQ_U64(kept, records.live_count); /* nothing dead is kept */
    CHECK_EQ_U64(records.ids.live, records.live_count);
    iq_records_free(&records);
    iq_common_free(&common, &allocator);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

static void two_of_one_id_in_one_batch(void) {
    support_heap heap = support_heap_make();
    iqdb_allocator allocator = support_allocator(&heap);
    const iqdb_payload none = {NULL, 0};
    const float first[DIM] = {1, 2, 3}, second[DIM] = {4, 5, 6};
    iq_common common;
    iq_records records;
    uint32_t rows[2], index;
    iq_common_init(&common);
    iq_records_init(&records, &common, &allocator, iq_kernel_scalar());
    iq_rows_set_dim(&records.rows, DIM);
    const iq_pin pin = iq_epoch_pin(&common.epoch, &records.tally, 0);
    CHECK_EQ_INT(iq_records_reserve(&records, 3), IQDB_OK);
    CHECK_EQ_INT(iq_records_stage(&records, 9, first, none, &rows[0]), IQDB_OK);
    CHECK_EQ_INT(iq_records_stage(&records, 9, second, none, &rows[1]), IQDB_OK);
    CHECK_EQ_U64(find(&records, 9, UINT64_MAX - 1), IQ_ROW_NONE);
    iq_records_upsert(&records, rows[0]);
    iq_records_upsert(&records, rows[1]);
    iq_records_publish(&records, 1);
    CHECK_EQ_U64(find(&records, 9, pin.moment), IQ_ROW_NONE);
    CHECK_EQ_U64(find(&records, 9, common.epoch.moment), rows[1]);
    CHECK_EQ_U64(records.live_count, 1);
    CHECK_EQ_U64(records.retired.count, 1);
    iq_epoch_unpin(&common.epoch, pin.slot);
    (void)iq_records_reclaim(&records, NULL);
    CHECK_EQ_U64(records.retired.count, 0);
    const iq_slab *slab = iq_rows_slab(&records.rows, rows[1], &index);
    CHECK_EQ_U64(slab->links[index].previous, IQ_ROW_NONE);
    CHECK_EQ_F32(slab->norms[index], iqdb_vector_norm(second, DIM));
    iq_records_free(&records);
    iq_common_free(&common, &allocator);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* A reader that has loaded a table goes on in it while the writer replaces it, many times over, by larger ones. Such a
 * reader is played by copies of what it has loaded: every id leads to the row it led to. The old tables go with the pin
 * and not before, which the filling of freed memory or an address sanitizer would show. */
static void replaced_tables_outlive_their_readers(void) {
    enum {
        BEFORE = 20,
        AFTER = 30000
    };
    support_heap heap = support_heap_make();
    iqdb_allocator allocator = support_allocator(&heap);
    static const uint8_t bytes[200] = {1, 2, 3};
    const iqdb_payload payload = {bytes, sizeof bytes};
    iq_common common;
    iq_records records;
    uint32_t rows[BEFORE];
    iq_common_init(&common);
    iq_records_init(&records, &common, &allocator, iq_kernel_scalar());
    iq_rows_set_dim(&records.rows, DIM);
    iq_pin pin = {NULL, 0, 0};
    iq_records reader = records;
    for (uint64_t id = 0; id < AFTER; id++) {
        uint32_t row, index;
        float vector[DIM];
        vector_of(id, 1, vector);
        CHECK_EQ_INT(iq_records_reserve(&records, 1), IQDB_OK);
        CHECK_EQ_INT(iq_records_stage(&records, id, vector, payload, &row), IQDB_OK);
        iq_records_upsert(&records, row);
        iq_records_publish(&records, id + 1);
        if (id < BEFORE) rows[id] = row;
        if (id + 1 == BEFORE) {
            pin = iq_epoch_pin(&common.epoch, &records.tally, 0);
            reader = records;
        }
        if (id % 500 != 499 && id + 1 != AFTER) continue;
        for (uint64_t old = 0; old < BEFORE; old++) {
            CHECK_EQ_U64(find(&reader, old, pin.moment), rows[old]);
            const iq_slab *slab = iq_rows_slab(&reader.rows, rows[old], &index);
            CHECK_EQ_U64(slab->heads[index].id, old);
            CHECK_MEM(iq_heap_payload(&reader.heap, slab->heads[index].payload).bytes, payload.bytes, payload.size);
        }
    }
    CHECK(records.ids.slots != reader.ids.slots && iq_table_is_replacement(records.ids.slots));
    CHECK(records.rows.slabs != reader.rows.slabs && iq_table_is_replacement(records.rows.slabs));
    CHECK(records.heap.pages != reader.heap.pages && iq_table_is_replacement(records.heap.pages));
    iq_epoch_unpin(&common.epoch, pin.slot);
    iq_records_publish(&records, AFTER + 1);
    CHECK(!iq_table_is_replacement(records.ids.slots) && !iq_table_is_replacement(records.rows.slabs));
    CHECK(!iq_table_is_replacement(records.heap.pages));
    iq_records_free(&records);
    iq_common_free(&common, &allocator);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* Only a publication publishes: what is sealed first, and what came after the seal with the next one. */
static void what_waits_is_published_by_nothing_else(void) {
    support_heap heap = support_heap_make();
    iqdb_allocator allocator = support_allocator(&heap);
    const iqdb_payload none = {NULL, 0};
    const float vector[DIM] = {1, 2, 3};
    iq_common common;
    iq_records records;
    uint32_t rows[4], index = 0, walked = 0;
    iq_common_init(&common);
    iq_records_init(&records, &common, &allocator, iq_kernel_scalar());
    iq_rows_set_dim(&records.rows, DIM);
    CHECK_EQ_INT(iq_records_reserve(&records, 8), IQDB_OK);
    for (uint64_t id = 0; id < 4; id++)
        CHECK_EQ_INT(iq_records_stage(&records, id / 2, vector, none, &rows[id]), IQDB_OK);
    for (size_t step = 0; step < 4; step++) { /* an id, its replacement, sealed; another id, which is deleted */
        iq_records_upsert(&records, rows[step]);
        if (step == 1) iq_common_seal(&common);
        if (step == 2) CHECK(iq_records_delete(&records, 1));
        CHECK(iq_records_maintain(&records, NULL));
        for (uint64_t id = 0; id < 2; id++) CHECK_EQ_U64(find(&records, id, common.epoch.moment), IQ_ROW_NONE);
        CHECK_EQ_U64(iq_epoch_count(&common.epoch, &records.tally), 0);
    }
    iq_records_publish(&records, 1);
    CHECK(iq_records_maintain(&records, NULL));
    CHECK_EQ_U64(find(&records, 0, common.epoch.moment), rows[1]);
    CHECK_EQ_U64(find(&records, 1, common.epoch.moment), IQ_ROW_NONE);
    CHECK_EQ_U64(iq_epoch_count(&common.epoch, &records.tally), 1);
    iq_records_publish(&records, 2);
    CHECK(iq_records_maintain(&records, NULL));
    CHECK_EQ_U64(find(&records, 1, common.epoch.moment), rows[3]);
    CHECK_EQ_U64(iq_epoch_count(&common.epoch, &records.tally), 2);
    for (uint32_t row = 0; iq_records_next(&records, &row, 4, common.epoch.moment, NULL, &index) != NULL; row++) {
        CHECK(row == rows[1] || row == rows[3]);
        walked++;
    }
    CHECK_EQ_U64(walked, 2);
    CHECK_EQ_U64(records.retired.count, 0);
    CHECK(iq_records_delete(&records, 0));
    iq_records_publish(&records, 3);
    CHECK_EQ_U64(records.retired.count, 1);
    iq_common_seal(&common); /* without a change, but the moment is spoken for */
    const uint64_t moment = common.epoch.moment;
    (void)iq_records_maintain(&records, NULL);
    CHECK_EQ_U64(common.epoch.moment, moment);
    iq_records_free(&records);
    iq_common_free(&common, &allocator);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* What several have in common is their moments: each publication, sealed before or not, tells the counts of all of them,
 * also of those that have not changed for long, or whose change is not published yet. */
static void counts_are_those_of_the_moment(void) {
    enum {
        SETS = 3,
        IDS = 6
    };
    support_heap heap = support_heap_make();
    iqdb_allocator allocator = support_allocator(&heap);
    const iqdb_payload none = {NULL, 0};
    const float vector[DIM] = {1, 2, 3};
    iq_common common;
    iq_records sets[SETS];
    uint64_t random = 3, counts[SETS] = {0}, sealed[SETS] = {0}, seen[SETS] = {0};
    bool live[SETS][IDS] = {{false}}, is_sealed = false;
    iq_common_init(&common);
    for (size_t i = 0; i < SETS; i++) {
        iq_records_init(&sets[i], &common, &allocator, iq_kernel_scalar());
        iq_rows_set_dim(&sets[i].rows, DIM);
    }
    for (uint64_t step = 0; step < 20000; step++) {
        const uint64_t what = support_random_below(&random, 6), id = support_random_below(&random, IDS);
        const size_t i = (size_t)support_random_below(&random, step % 100 < 50 ? SETS : 1); /* and some rest */
        if (what < 2) {
            uint32_t row;
            CHECK_EQ_INT(iq_records_reserve(&sets[i], 1), IQDB_OK);
            CHECK_EQ_INT(iq_records_stage(&sets[i], id, vector, none, &row), IQDB_OK);
            iq_records_upsert(&sets[i], row);
            counts[i] += !live[i][id];
            live[i][id] = true;
        } else if (what == 2) {
            CHECK_EQ_INT(iq_records_reserve(&sets[i], 1), IQDB_OK);
            CHECK_EQ_INT(iq_records_delete(&sets[i], id), live[i][id]);
            counts[i] -= live[i][id];
            live[i][id] = false;
        } else if (what == 3 && !is_sealed) {
            iq_common_seal(&common);
            memcpy(sealed, counts, sizeof sealed);
            is_sealed = true;
        } else if (what == 4) {
            iq_common_publish(&common, step);
            memcpy(seen, is_sealed ? sealed : counts, sizeof seen);
            is_sealed = false;
            iq_records_tidy(&sets[i]);
        } else if (what == 5 && step % 977 < 10) { /* one of them goes, and is another one then */
            iq_common_publish(&common, step);
            if (is_sealed) iq_common_publish(&common, step);
            is_sealed = false;
            iq_records_free(&sets[i]);
            iq_rows_set_dim(&sets[i].rows, DIM);
            iq_records_publish(&sets[i], step);
            memset(live[i], 0, sizeof live[i]);
            counts[i] = 0;
            memcpy(seen, counts, sizeof seen);
        }
        for (size_t j = 0; j < SETS; j++) CHECK_EQ_U64(iq_epoch_count(&common.epoch, &sets[j].tally), seen[j]);
    }
    for (size_t i = 0; i < SETS; i++) iq_records_free(&sets[i]);
    CHECK(common.stale == NULL && common.charge == 0 && common.retired_bytes == 0);
    iq_common_free(&common, &allocator);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

TEST_MAIN("store/records", TEST(every_pin_sees_its_state), TEST(two_of_one_id_in_one_batch),
          TEST(replaced_tables_outlive_their_readers), TEST(what_waits_is_published_by_nothing_else),
          TEST(counts_are_those_of_the_moment))
