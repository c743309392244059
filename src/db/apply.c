/* Records in memory: staging, birth, burial, reclaiming.
 *
 * 1. Everything that can fail happens before the log is written: after iq_apply_reserve and iq_apply_stage, applying
 *    a batch only writes to memory that is there.
 * 2. Rows of one id form a chain from the newest to the oldest that somebody may see; the id table names the newest.
 * 3. A buried row is reclaimed when no iterator's LSN is below its death, oldest death first, so a reclaimed row is
 *    always the last of its chain. */
#include "db/db.h"

IQ_FN iqdb_result iq_apply_reserve(iqdb *db, size_t count) {
    iq_retired *retired = &db->retired;
    if (retired->capacity - retired->count < count) {
        size_t capacity = retired->capacity * 2 > 64 ? retired->capacity * 2 : 64;
        if (count > (size_t)-1 / 16 - retired->count) return IQDB_ERR_NOMEM;
        if (capacity < retired->count + count) capacity = retired->count + count;
        uint32_t *rows = (uint32_t *)iq_alloc(&db->allocator, capacity * sizeof(uint32_t), 16);
        if (rows == NULL) return IQDB_ERR_NOMEM;
        for (size_t i = 0; i < retired->count; i++)
            rows[i] = retired->rows[(retired->first + i) % retired->capacity];
        iq_free(&db->allocator, retired->rows, retired->capacity * sizeof(uint32_t), 16);
        retired->rows = rows;
        retired->capacity = capacity;
        retired->first = 0;
    }
    return iq_ids_reserve(&db->ids, count);
}

IQ_FN iqdb_result iq_apply_stage(iqdb *db, uint64_t id, const float *vector, iqdb_payload payload, uint32_t *out_row) {
    uint64_t ref = 0;
    if (payload.bytes != NULL) {
        uint8_t *bytes;
        const iqdb_result result = iq_heap_take(&db->heap, payload.size, &ref, &bytes);
        if (result != IQDB_OK) return result;
        memcpy(bytes, payload.bytes, payload.size);
    }
    const iqdb_result result = iq_rows_take(&db->rows, out_row);
    if (result != IQDB_OK) {
        iq_heap_give_back(&db->heap, ref);
        return result;
    }
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&db->rows, *out_row, &index);
    float *stored = slab->vectors + index * db->rows.stride;
    memcpy(stored, vector, db->rows.dim * sizeof(float));
    slab->norms[index] = iq_vector_norm_of(db->kernel, stored, db->rows.dim);
    slab->ids[index] = id;
    slab->payloads[index] = ref;
    return IQDB_OK;
}

IQ_FN void iq_apply_unstage(iqdb *db, uint32_t row) {
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&db->rows, row, &index);
    iq_heap_give_back(&db->heap, slab->payloads[index]);
    iq_rows_give_back(&db->rows, row);
}

/* Ends the life of a row. */
static void iq_apply_bury(iqdb *db, const iq_slab *slab, uint32_t index, uint32_t row, uint64_t lsn) {
    iq_retired *retired = &db->retired;
    slab->deaths[index] = lsn;
    IQ_ASSERT(retired->count < retired->capacity);
    retired->rows[(retired->first + retired->count) % retired->capacity] = row;
    retired->count++;
    db->live_count--;
}

IQ_FN void iq_apply_upsert(iqdb *db, uint32_t row, uint64_t lsn) {
    uint32_t index, old_index;
    const iq_slab *slab = iq_rows_slab(&db->rows, row, &index);
    const uint32_t old = iq_ids_set(&db->ids, &db->rows, slab->ids[index], row);
    slab->previous[index] = old;
    slab->births[index] = lsn;
    db->live_count++;
    if (old == IQ_ROW_NONE) return;
    const iq_slab *old_slab = iq_rows_slab(&db->rows, old, &old_index);
    if (old_slab->deaths[old_index] == IQ_LSN_NEVER) iq_apply_bury(db, old_slab, old_index, old, lsn);
}

IQ_FN bool iq_apply_delete(iqdb *db, uint64_t id, uint64_t lsn) {
    const uint32_t row = iq_ids_find(&db->ids, &db->rows, id);
    if (row == IQ_ROW_NONE) return false;
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&db->rows, row, &index);
    if (slab->deaths[index] != IQ_LSN_NEVER) return false;
    iq_apply_bury(db, slab, index, row, lsn);
    return true;
}

/* Takes the last row of its chain out of it, and the id out of the table where the chain ends with it. */
static void iq_apply_unlink(iqdb *db, const iq_slab *slab, uint32_t index, uint32_t row) {
    uint32_t newer = iq_ids_find(&db->ids, &db->rows, slab->ids[index]);
    if (newer == row) {
        iq_ids_remove(&db->ids, &db->rows, slab->ids[index]);
        return;
    }
    for (;;) {
        uint32_t newer_index;
        const iq_slab *newer_slab = iq_rows_slab(&db->rows, newer, &newer_index);
        if (newer_slab->previous[newer_index] == row) {
            newer_slab->previous[newer_index] = IQ_ROW_NONE;
            return;
        }
        newer = newer_slab->previous[newer_index];
    }
}

IQ_FN void iq_apply_reclaim(iqdb *db) {
    uint64_t oldest = IQ_LSN_NEVER;
    for (size_t i = 0; i < db->pin_count; i++)
        if (db->pins[i] < oldest) oldest = db->pins[i];
    iq_retired *retired = &db->retired;
    while (retired->count > 0) {
        const uint32_t row = retired->rows[retired->first];
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&db->rows, row, &index);
        if (slab->deaths[index] > oldest) return; /* a pin at its death or later does not see it */
        iq_apply_unlink(db, slab, index, row);
        iq_heap_give_back(&db->heap, slab->payloads[index]);
        iq_rows_give_back(&db->rows, row);
        retired->first = (retired->first + 1) % retired->capacity;
        retired->count--;
    }
}

IQ_FN void iq_apply_publish(iqdb *db, uint64_t lsn) {
    db->lsn = lsn;
    iq_apply_reclaim(db);
}

IQ_FN uint32_t iq_db_find(const iqdb *db, uint64_t id, uint64_t lsn) {
    uint32_t row = iq_ids_find(&db->ids, &db->rows, id);
    while (row != IQ_ROW_NONE) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&db->rows, row, &index);
        if (iq_row_visible(slab, index, lsn)) return row;
        row = slab->previous[index];
    }
    return IQ_ROW_NONE;
}
