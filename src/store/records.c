/* Records: staging, birth, burial, reclaiming.
 *
 * 1. Everything that can fail happens before a log is written: after reserve and stage, a batch only writes to memory
 *    that is there.
 * 2. Rows of one id form a chain from the newest to the oldest that somebody may see; the id table names the newest.
 * 3. A buried row is reclaimed when no pinned LSN is below its death, oldest death first, so a reclaimed row is
 *    always the last of its chain. */
#include "store/records.h"

#include "kernel/distance.h"

IQ_FN void iq_records_init(iq_records *records, const iqdb_allocator *allocator, const iq_kernel *kernel) {
    memset(records, 0, sizeof *records);
    records->allocator = allocator;
    records->kernel = kernel;
    iq_rows_init(&records->rows, allocator);
    iq_ids_init(&records->ids, allocator);
    iq_heap_init(&records->heap, allocator);
}

IQ_FN void iq_records_free(iq_records *records) {
    iq_free(records->allocator, records->pins, records->pin_capacity * sizeof(uint64_t), 16);
    iq_free(records->allocator, records->retired.rows, records->retired.capacity * sizeof(uint32_t), 16);
    iq_heap_free(&records->heap);
    iq_ids_free(&records->ids);
    iq_rows_free(&records->rows);
    iq_records_init(records, records->allocator, records->kernel);
}

IQ_FN iqdb_result iq_records_reserve(iq_records *records, size_t count) {
    iq_retired *retired = &records->retired;
    if (retired->capacity - retired->count < count) {
        size_t capacity = retired->capacity * 2 > 64 ? retired->capacity * 2 : 64;
        if (count > (size_t)-1 / 16 - retired->count) return IQDB_ERR_NOMEM;
        if (capacity < retired->count + count) capacity = retired->count + count;
        uint32_t *rows = (uint32_t *)iq_alloc(records->allocator, capacity * sizeof(uint32_t), 16);
        if (rows == NULL) return IQDB_ERR_NOMEM;
        for (size_t i = 0; i < retired->count; i++)
            rows[i] = retired->rows[(retired->first + i) % retired->capacity];
        iq_free(records->allocator, retired->rows, retired->capacity * sizeof(uint32_t), 16);
        retired->rows = rows;
        retired->capacity = capacity;
        retired->first = 0;
    }
    return iq_ids_reserve(&records->ids, count);
}

IQ_FN iqdb_result iq_records_stage(iq_records *records, uint64_t id, const float *vector, iqdb_payload payload, uint32_t *out_row) {
    uint64_t ref = 0;
    if (payload.bytes != NULL) {
        uint8_t *bytes;
        const iqdb_result result = iq_heap_take(&records->heap, payload.size, &ref, &bytes);
        if (result != IQDB_OK) return result;
        memcpy(bytes, payload.bytes, payload.size);
    }
    const iqdb_result result = iq_rows_take(&records->rows, out_row);
    if (result != IQDB_OK) {
        iq_heap_give_back(&records->heap, ref);
        return result;
    }
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&records->rows, *out_row, &index);
    float *stored = slab->vectors + index * records->rows.stride;
    memcpy(stored, vector, records->rows.dim * sizeof(float));
    slab->norms[index] = iq_vector_norm_of(records->kernel, stored, records->rows.dim);
    slab->ids[index] = id;
    slab->payloads[index] = ref;
    return IQDB_OK;
}

IQ_FN void iq_records_unstage(iq_records *records, uint32_t row) {
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
    iq_heap_give_back(&records->heap, slab->payloads[index]);
    iq_rows_give_back(&records->rows, row);
}

/* Ends the life of a row. */
static void iq_records_bury(iq_records *records, const iq_slab *slab, uint32_t index, uint32_t row, uint64_t lsn) {
    iq_retired *retired = &records->retired;
    slab->deaths[index] = lsn;
    IQ_ASSERT(retired->count < retired->capacity);
    retired->rows[(retired->first + retired->count) % retired->capacity] = row;
    retired->count++;
    records->live_count--;
}

IQ_FN void iq_records_upsert(iq_records *records, uint32_t row, uint64_t lsn) {
    uint32_t index, old_index;
    const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
    const uint32_t old = iq_ids_set(&records->ids, &records->rows, slab->ids[index], row);
    slab->previous[index] = old;
    slab->births[index] = lsn;
    records->live_count++;
    if (old == IQ_ROW_NONE) return;
    const iq_slab *old_slab = iq_rows_slab(&records->rows, old, &old_index);
    if (old_slab->deaths[old_index] == IQ_LSN_NEVER) iq_records_bury(records, old_slab, old_index, old, lsn);
}

IQ_FN bool iq_records_delete(iq_records *records, uint64_t id, uint64_t lsn) {
    const uint32_t row = iq_ids_find(&records->ids, &records->rows, id);
    if (row == IQ_ROW_NONE) return false;
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
    if (slab->deaths[index] != IQ_LSN_NEVER) return false;
    iq_records_bury(records, slab, index, row, lsn);
    return true;
}

/* Takes the last row of its chain out of it, and the id out of the table where the chain ends with it. */
static void iq_records_unlink(iq_records *records, const iq_slab *slab, uint32_t index, uint32_t row) {
    uint32_t newer = iq_ids_find(&records->ids, &records->rows, slab->ids[index]);
    if (newer == row) {
        iq_ids_remove(&records->ids, &records->rows, slab->ids[index]);
        return;
    }
    for (;;) {
        uint32_t newer_index;
        const iq_slab *newer_slab = iq_rows_slab(&records->rows, newer, &newer_index);
        if (newer_slab->previous[newer_index] == row) {
            newer_slab->previous[newer_index] = IQ_ROW_NONE;
            return;
        }
        newer = newer_slab->previous[newer_index];
    }
}

static void iq_records_reclaim(iq_records *records) {
    uint64_t oldest = IQ_LSN_NEVER;
    for (size_t i = 0; i < records->pin_count; i++)
        if (records->pins[i] < oldest) oldest = records->pins[i];
    iq_retired *retired = &records->retired;
    while (retired->count > 0) {
        const uint32_t row = retired->rows[retired->first];
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
        if (slab->deaths[index] > oldest) return; /* a pin at its death or later does not see it */
        iq_records_unlink(records, slab, index, row);
        iq_heap_give_back(&records->heap, slab->payloads[index]);
        iq_rows_give_back(&records->rows, row);
        retired->first = (retired->first + 1) % retired->capacity;
        retired->count--;
    }
}

IQ_FN void iq_records_publish(iq_records *records, uint64_t lsn) {
    records->lsn = lsn;
    iq_records_reclaim(records);
}

IQ_FN uint32_t iq_records_find(const iq_records *records, uint64_t id, uint64_t lsn) {
    uint32_t row = iq_ids_find(&records->ids, &records->rows, id);
    while (row != IQ_ROW_NONE) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
        if (iq_row_visible(slab, index, lsn)) return row;
        row = slab->previous[index];
    }
    return IQ_ROW_NONE;
}

IQ_FN iqdb_result iq_records_pin(iq_records *records, uint64_t *out_lsn) {
    if (records->pin_count == records->pin_capacity) {
        const size_t capacity = records->pin_capacity == 0 ? 8 : records->pin_capacity * 2;
        uint64_t *pins = (uint64_t *)iq_alloc(records->allocator, capacity * sizeof(uint64_t), 16);
        if (pins == NULL) return IQDB_ERR_NOMEM;
        if (records->pin_count > 0) memcpy(pins, records->pins, records->pin_count * sizeof(uint64_t));
        iq_free(records->allocator, records->pins, records->pin_capacity * sizeof(uint64_t), 16);
        records->pins = pins;
        records->pin_capacity = capacity;
    }
    records->pins[records->pin_count++] = *out_lsn = records->lsn;
    return IQDB_OK;
}

IQ_FN void iq_records_unpin(iq_records *records, uint64_t lsn) {
    size_t i = 0;
    while (records->pins[i] != lsn) i++;
    records->pins[i] = records->pins[--records->pin_count];
    iq_records_reclaim(records);
}
