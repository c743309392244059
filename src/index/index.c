/* What indexes share: memory that readers may have, and rows to take in. */
#include "index/index.h"

#include "base/hash.h"

IQ_FN void *iq_block_make(iq_index *index, size_t size_bytes) {
    if (size_bytes > (size_t)-1 / 2) return NULL;
    size_bytes += IQ_CACHE_LINE;
    uint8_t *memory = (uint8_t *)iq_pages_alloc(index->allocator, size_bytes);
    if (memory == NULL) return NULL;
    memset(memory, 0, size_bytes);
    ((iq_block *)(void *)memory)->size_bytes = size_bytes;
    index->bytes += size_bytes;
    return memory + IQ_CACHE_LINE;
}

static iq_block *iq_block_of(void *block) { return (iq_block *)(void *)((uint8_t *)block - IQ_CACHE_LINE); }

IQ_FN void iq_block_free(iq_index *index, void *block) {
    if (block == NULL) return;
    index->bytes -= iq_block_of(block)->size_bytes;
    iq_pages_free(index->allocator, iq_block_of(block), iq_block_of(block)->size_bytes);
}

IQ_FN void iq_block_retire(iq_index *index, void *block) {
    iq_garbage *garbage = &index->garbage;
    if (block == NULL) return;
    iq_block *last = iq_block_of(block);
    last->replaced = index->epoch->moment;
    last->next = NULL;
    if (garbage->last != NULL) garbage->last->next = last;
    if (garbage->last == NULL) garbage->first = last;
    garbage->last = last;
    garbage->bytes += last->size_bytes;
}

IQ_FN void iq_index_collect(iq_index *index, uint64_t oldest) {
    iq_garbage *garbage = &index->garbage;
    while (garbage->first != NULL && garbage->first->replaced < oldest) {
        iq_block *first = garbage->first;
        garbage->first = first->next;
        if (garbage->first == NULL) garbage->last = NULL;
        garbage->bytes -= first->size_bytes;
        iq_block_free(index, (uint8_t *)(void *)first + IQ_CACHE_LINE);
    }
}

IQ_FN void iq_index_free_garbage(iq_index *index) { iq_index_collect(index, UINT64_MAX); }

IQ_FN iqdb_result iq_index_read(const iq_index_load *load, uint64_t offset, void *bytes, size_t size) {
    return iq_snapshot_read(load->reader, load->collection, IQ_SECTION_INDEX, offset, bytes, size);
}

IQ_FN iqdb_result iq_index_reject(const iq_index_load *load, uint64_t offset, const char *why) {
    return iq_snapshot_reject(load->reader, load->collection, IQ_SECTION_INDEX, offset, why);
}

IQ_FN uint32_t iq_index_next_fresh(iq_index *index) {
    const iq_rows *rows = index->rows;
    uint32_t start, row = index->intake < rows->count ? index->intake : 0;
    /* One time around, and what is left of the slab it began in. */
    for (size_t slabs = rows->slab_count + 1; rows->fresh > 0 && slabs > 0; slabs--) {
        const size_t number = iq_slab_of_row(rows, row, &start);
        const iq_slab *slab = &rows->slabs[number];
        const uint32_t first = row - start, held = iq_slab_rows(rows, number);
        const uint32_t end = held < rows->count - first ? held : rows->count - first;
        for (uint32_t i = start; i<end && * slab->fresh> 0; i += 32) {
            const uint32_t bits = iq_bits_at(slab->filled, i, end) & ~iq_bits_at(slab->indexed, i, end);
            if (bits == 0) continue;
            row = first + i + iq_lowest_bit(bits);
            index->intake = row + 1;
            return row;
        }
        row = first + end < rows->count ? first + end : 0;
    }
    return IQ_ROW_NONE;
}

#define IQ_INDEX_DRAWS 64u

IQ_FN uint32_t iq_index_draw(const iq_rows *rows, uint32_t count, uint32_t row, uint64_t seed) {
    for (uint32_t i = 0; i < IQ_INDEX_DRAWS && row < count; i++) {
        if (iq_row_is_filled(iq_rows_spot(rows, row))) return row;
        row = (uint32_t)(iq_hash_u64(seed ^ iq_hash_u64(row + (uint64_t)i)) % count);
    }
    return IQ_ROW_NONE;
}

/* ---- calibration ---- */

#define IQ_CALIBRATION_ROWS 96u
#define IQ_CALIBRATION_K 10u

IQ_FN void iq_index_end_calibration(iq_index *index) {
    iq_calibration *calibration = &index->calibration;
    iq_block_free(index, calibration->needs);
    iq_block_free(index, calibration->memory);
    memset(calibration, 0, sizeof *calibration);
}

/* Finds the neighbours of the vector by a scan, and what it takes to find them. */
static void iq_index_ask(iq_index *index, const float *vector, iq_index_query *query) {
    iq_calibration *calibration = &index->calibration;
    const iq_rows *rows = index->rows;
    iq_flat_query flat;
    iq_flat_probe probe;
    iqdb_hit hits[IQ_CALIBRATION_K + 1];
    uint32_t count = 0;
    memset(&flat, 0, sizeof flat);
    memset(&probe, 0, sizeof probe);
    flat.rows = rows;
    flat.row_count = rows->count;
    flat.kernel = rows->sums;
    if (index->codes != NULL && iq_flat_can_use_codes(rows, rows->count, index->metric, false))
        flat.codes = index->codes;
    flat.metric = index->metric;
    flat.moment = IQ_MOMENT_LAST;
    flat.max_score = iq_f32_from_bits(0x7F800000u);
    flat.vectors = vector;
    flat.probes = &probe;
    flat.count = flat.task_count = 1;
    probe.norm = iq_row_norm_of(rows->sums, rows->element, vector, rows->stride);
    iq_topk_start(&probe.topk, hits, IQ_CALIBRATION_K + 1);
    if (flat.codes != NULL) iq_flat_start_codes(&flat, query->memory);
    iq_flat_search(&flat);
    iq_flat_stop(&flat);
    iq_topk_sort(&probe.topk);
    for (size_t i = 0; i < probe.topk.count && count < IQ_CALIBRATION_K; i++)
        if ((uint32_t)hits[i].payload.size != query->self) hits[count++] = hits[i];
    query->flat = &flat;
    calibration->count += index->ops->need_fn(index, query, hits, count, calibration->needs + calibration->count);
}

static void iq_index_conclude(iq_index *index) {
    uint32_t *needs = index->calibration.needs;
    const uint32_t count = index->calibration.count;
    const float recalls[IQ_RECALLS] = {0.90f, 0.95f, 0.99f, index->wish > 0.0f ? index->wish : 0.95f};
    for (uint32_t gap = count / 2; gap > 0; gap /= 2)
        for (uint32_t i = gap; i < count; i++)
            for (uint32_t j = i; j >= gap && needs[j] < needs[j - gap]; j -= gap) {
                const uint32_t need = needs[j];
                needs[j] = needs[j - gap];
                needs[j - gap] = need;
            }
    for (uint32_t i = 0; i < IQ_RECALLS && count > 0; i++) {
        /* A little more: rows that are stored are found more easily than others, and estimates lose some. */
        const double part = (double)recalls[i] + (1.0 - (double)recalls[i]) * 0.15;
        const double need = (double)needs[(uint32_t)(part * (double)(count - 1))], rows = (double)index->efforts[i];
        const bool is_rows = index->calibration.asked == NULL;
        if (!is_rows && i == IQ_RECALL_WISH && rows > 0.0) index->stretch = (float)(need / rows);
        IQ_ATOMIC_STORE(&index->efforts[i],
                        (uint32_t)(is_rows && index->stretch > 0.0f ? need * (double)index->stretch : need));
    }
}

/* With vectors, or, NULL, rows. False without memory. */
static bool iq_index_begin_calibration(iq_index *index, const float *vectors, uint32_t count) {
    iq_calibration *calibration = &index->calibration;
    const size_t scan =
        index->codes == NULL || !iq_rows_have_codes(index->rows) ? 0 : iq_flat_codes_bytes(index->rows, 1, 1, false);
    const size_t search = index->ops->search_bytes_fn(index, IQ_CALIBRATION_K + 1);
    iq_index_end_calibration(index);
    calibration->asked = vectors;
    calibration->vectors = vectors != NULL ? count : IQ_CALIBRATION_ROWS;
    calibration->needs =
        (uint32_t *)iq_block_make(index, (size_t)calibration->vectors * IQ_CALIBRATION_K * sizeof(uint32_t));
    if (calibration->needs != NULL) calibration->memory = iq_block_make(index, search > scan ? search : scan);
    calibration->size_bytes = search;
    if (calibration->memory == NULL) iq_index_end_calibration(index);
    return calibration->memory != NULL;
}

IQ_FN bool iq_index_calibrate(iq_index *index) {
    iq_calibration *calibration = &index->calibration;
    const iq_rows *rows = index->rows;
    iq_index_query query;
    const float *vector = NULL;
    if (calibration->memory == NULL && !iq_index_begin_calibration(index, NULL, 0)) return true;
    memset(&query, 0, sizeof query);
    query.memory = calibration->memory;
    query.size_bytes = calibration->size_bytes;
    query.self = IQ_ROW_NONE;
    if (calibration->asked != NULL) {
        vector = calibration->asked + calibration->at * rows->stride;
    } else {
        const uint32_t place = (uint32_t)((uint64_t)rows->count * calibration->at / IQ_CALIBRATION_ROWS);
        query.self = iq_index_draw(rows, rows->count, place, calibration->at);
        const iq_spot spot = iq_rows_spot(rows, query.self != IQ_ROW_NONE ? query.self : 0);
        if (query.self != IQ_ROW_NONE) vector = spot.slab->vectors + spot.index * rows->stride;
    }
    if (vector != NULL) iq_index_ask(index, vector, &query);
    if (++calibration->at < calibration->vectors) return false;
    iq_index_conclude(index);
    iq_index_end_calibration(index);
    return true;
}

IQ_FN bool iq_index_tune(iq_index *index, float recall, const float *vectors, uint32_t count) {
    index->wish = recall;
    index->stretch = 0.0f;
    if (index->ops->need_fn == NULL || index->ops->search_bytes_fn(index, IQ_CALIBRATION_K + 1) == 0)
        return true; /* calibration comes */
    /* By rows first: how much more the vectors take than these will be so when there are other rows. */
    for (int by_rows = 1; by_rows >= (vectors == NULL); by_rows--) {
        if (!iq_index_begin_calibration(index, by_rows ? NULL : vectors, count)) return false;
        while (!iq_index_calibrate(index)) {
        }
    }
    return true;
}
