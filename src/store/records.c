/* Records: staging, birth, burial, reclaiming.
 *
 * 1. Everything that can fail happens before a log is written: after reserve and stage, a batch only writes to memory
 *    that is there.
 * 2. Rows of one id form a chain from the newest to the oldest that somebody may see; the id table names the newest. A
 *    reader that meets a row born after its moment goes on to the one before, so beside a write it finds the old record
 *    or the new one, never none.
 * 3. A row is written whole before it is filled and linked; both come before the moment of its birth is published.
 * 4. A buried row goes in two steps, oldest death first, so that it is always the last of its chain: when no pin is older
 *    than its death nobody sees it, and it is unlinked; when no pin is as old as that nobody can be looking at it, and it
 *    is given back. */
#include "store/records.h"

#include "kernel/distance.h"

IQ_FN void iq_records_init(iq_records *records, const iqdb_allocator *allocator, const iq_kernel *kernel) {
    memset(records, 0, sizeof *records);
    records->allocator = allocator;
    records->kernel = kernel;
    iq_rows_init(&records->rows, allocator);
    iq_ids_init(&records->ids, allocator);
    iq_heap_init(&records->heap, allocator);
    iq_epoch_init(&records->epoch);
    records->retired_max = UINT64_MAX;
}

IQ_FN void iq_records_free(iq_records *records) {
    iq_epoch_free(&records->epoch, records->allocator);
    iq_free(records->allocator, records->retired.rows, records->retired.capacity * sizeof(uint32_t), 16);
    iq_heap_free(&records->heap);
    iq_ids_free(&records->ids);
    iq_rows_free(&records->rows);
    iq_records_init(records, records->allocator, records->kernel);
}

static uint32_t *iq_retired_at(const iq_retired *retired, size_t i) {
    return &retired->rows[(retired->first + i) & (retired->capacity - 1)];
}

IQ_FN iqdb_result iq_records_reserve(iq_records *records, size_t count) {
    iq_retired *retired = &records->retired;
    iq_epoch_make_room(&records->epoch, records->allocator);
    if (retired->bytes > records->retired_max) {
        /* A new moment, though nothing has changed: else short reads that follow one another could all be on one. */
        iq_epoch_publish(&records->epoch, records->live_count);
        iq_records_reclaim(records);
        if (retired->bytes > records->retired_max) return IQDB_ERR_BUSY;
    }
    if (retired->capacity - retired->count < count) {
        size_t capacity = 64;
        if (count > (size_t)-1 / 16 - retired->count) return IQDB_ERR_NOMEM;
        while (capacity < retired->count + count) capacity *= 2;
        uint32_t *rows = (uint32_t *)iq_alloc(records->allocator, capacity * sizeof(uint32_t), 16);
        if (rows == NULL) return IQDB_ERR_NOMEM;
        for (size_t i = 0; i < retired->count; i++) rows[i] = *iq_retired_at(retired, i);
        iq_free(records->allocator, retired->rows, retired->capacity * sizeof(uint32_t), 16);
        retired->rows = rows;
        retired->capacity = capacity;
        retired->first = 0;
    }
    return iq_ids_reserve(&records->ids, count);
}

IQ_FN iqdb_result iq_records_stage(iq_records *records, uint64_t id, const float *vector, iqdb_payload payload,
                                   uint32_t *out_row) {
    uint64_t ref = 0;
    float norm;
    if (!iq_vector_measure(records->kernel, vector, records->rows.dim, &norm)) return IQDB_ERR_INVALID_VECTOR;
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
    memcpy(slab->vectors + index * records->rows.stride, vector, records->rows.dim * sizeof(float));
    slab->norms[index] = norm;
    slab->heads[index].id = id;
    slab->heads[index].payload = ref;
    return IQDB_OK;
}

IQ_FN void iq_records_unstage(iq_records *records, uint32_t row) {
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
    iq_heap_give_back(&records->heap, slab->heads[index].payload);
    iq_rows_give_back(&records->rows, row);
}

/* What a row holds, with its payload. */
static uint64_t iq_records_row_bytes(const iq_records *records, const iq_slab *slab, uint32_t index) {
    const uint64_t ref = slab->heads[index].payload;
    return (records->rows.stride + 1) * sizeof(float) + sizeof(iq_row_head) +
           (ref == 0 ? 0 : iq_heap_block_size(iq_heap_payload(&records->heap, ref).size));
}

/* Ends the life of a row with the next moment. */
static void iq_records_bury(iq_records *records, const iq_slab *slab, uint32_t index, uint32_t row) {
    iq_retired *retired = &records->retired;
    IQ_ATOMIC_STORE(&slab->heads[index].death, records->epoch.moment + 1);
    IQ_ASSERT(retired->count < retired->capacity);
    *iq_retired_at(retired, retired->count) = row;
    retired->count++;
    retired->bytes += iq_records_row_bytes(records, slab, index);
    records->live_count--;
}

IQ_FN void iq_records_upsert(iq_records *records, uint32_t row) {
    uint32_t index, old_index, old;
    const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
    iq_row_head *head = &slab->heads[index];
    uint64_t *place = iq_ids_place(&records->ids, &records->rows, head->id, &old);
    head->previous = old;
    head->birth = records->epoch.moment + 1;
    iq_rows_set_filled(slab, index, true);
    iq_ids_put(&records->ids, place, head->id, row);
    records->live_count++;
    if (old == IQ_ROW_NONE) return;
    const iq_slab *old_slab = iq_rows_slab(&records->rows, old, &old_index);
    old_slab->heads[old_index].next = row;
    if (old_slab->heads[old_index].death == IQ_MOMENT_NEVER) iq_records_bury(records, old_slab, old_index, old);
}

IQ_FN bool iq_records_delete(iq_records *records, uint64_t id) {
    const uint32_t row = iq_ids_find(&records->ids, &records->rows, id);
    if (row == IQ_ROW_NONE) return false;
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
    if (slab->heads[index].death != IQ_MOMENT_NEVER) return false;
    iq_records_bury(records, slab, index, row);
    return true;
}

/* Takes the last row of its chain out of it, and the id out of the table where the chain ends with it. */
static void iq_records_unlink(iq_records *records, uint32_t row) {
    uint32_t index, next_index;
    const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
    iq_rows_set_filled(slab, index, false);
    if (slab->heads[index].next == IQ_ROW_NONE) {
        iq_ids_remove(&records->ids, &records->rows, slab->heads[index].id);
        return;
    }
    const iq_slab *next_slab = iq_rows_slab(&records->rows, slab->heads[index].next, &next_index);
    IQ_ATOMIC_STORE(&next_slab->heads[next_index].previous, IQ_ROW_NONE);
}

static void iq_records_give_back(iq_records *records, uint32_t row) {
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
    records->retired.bytes -= iq_records_row_bytes(records, slab, index);
    iq_heap_give_back(&records->heap, slab->heads[index].payload);
    iq_rows_give_back(&records->rows, row);
}

/* Unlinks what nobody sees at `oldest` or later. */
static void iq_records_unlink_dead(iq_records *records, uint64_t oldest) {
    iq_retired *retired = &records->retired;
    for (; retired->unlinked < retired->count; retired->unlinked++) {
        uint32_t index;
        const uint32_t row = *iq_retired_at(retired, retired->unlinked);
        const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
        if (slab->heads[index].death > oldest) break;
        iq_records_unlink(records, row);
    }
    retired->unlinked_at = records->epoch.moment;
}

IQ_FN void iq_records_reclaim(iq_records *records) {
    iq_retired *retired = &records->retired;
    const uint64_t now = records->epoch.moment;
    for (;;) {
        const uint64_t oldest = iq_epoch_oldest(&records->epoch);
        iq_table_trim(records->allocator, records->ids.slots, oldest, now);
        iq_table_trim(records->allocator, records->rows.slabs, oldest, now);
        iq_table_trim(records->allocator, records->heap.pages, oldest, now);
        iq_table_trim(records->allocator, records->heap.regions, IQ_MOMENT_NEVER, now); /* no reader knows them */
        if (retired->unlinked > 0 && oldest <= retired->unlinked_at) return;
        for (; retired->unlinked > 0; retired->unlinked--) {
            iq_records_give_back(records, retired->rows[retired->first]);
            retired->first = (retired->first + 1) & (retired->capacity - 1);
            retired->count--;
        }
        iq_records_unlink_dead(records, oldest);
        if (retired->unlinked == 0) return;
    }
}

IQ_FN void iq_records_publish(iq_records *records, uint64_t lsn) {
    records->lsn = lsn;
    IQ_ATOMIC_STORE(&records->dim, records->rows.dim);
    iq_epoch_publish(&records->epoch, records->live_count);
    /* A look at all pins costs as much as a write: not for a few rows, nor while records only come. */
    if (records->retired.count >= IQ_RETIRED_FEW || records->retired.bytes >= IQ_RETIRED_FEW_BYTES ||
        iq_table_is_replacement(records->ids.slots) || iq_table_is_replacement(records->rows.slabs) ||
        iq_table_is_replacement(records->heap.pages) || iq_table_is_replacement(records->heap.regions))
        iq_records_reclaim(records);
}

IQ_FN uint32_t iq_records_find(const iq_records *records, uint64_t id, uint64_t moment) {
    uint32_t row = iq_ids_find(&records->ids, &records->rows, id);
    while (row != IQ_ROW_NONE) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
        /* What is behind a row that was born in time was dead by then, and may be gone. */
        if (slab->heads[index].birth <= moment)
            return moment < IQ_ATOMIC_LOAD(&slab->heads[index].death) ? row : IQ_ROW_NONE;
        row = IQ_ATOMIC_LOAD(&slab->heads[index].previous);
    }
    return IQ_ROW_NONE;
}
