/* Slabs of rows.
 *
 * 1. A slab is one allocation and never moves or shrinks; a pointer to a row holds until iq_rows_free.
 * 2. Slab sizes double up to 2^slab_shift and then stay, so row -> slab is arithmetic.
 * 3. A row is in exactly one state: free (in the free list), staged (taken, birth NEVER), live, or buried. Readers read
 *    the filled ones only, among them all that are live or buried: a scan must not stream what is being written, though
 *    it would not use it.
 * 4. Floats of a row from dim to stride are 0, whatever was in the row before.
 * 5. In borrowed rows only births, deaths, chains and what is filled are ours; nothing else is ever written. */
#include "store/rows.h"

IQ_FN void iq_rows_init(iq_rows *rows, const iqdb_allocator *allocator) {
    memset(rows, 0, sizeof *rows);
    rows->allocator = allocator;
    rows->slab_shift = IQ_SLAB_SHIFT_MIN;
    rows->free_head = IQ_ROW_NONE;
}

static size_t iq_rows_filled_bytes(const iq_rows *rows, size_t slab) {
    return (iq_slab_rows(rows, slab) + 63) / 64 * 8; /* keeps the 8-byte arrays behind it aligned */
}

/* Vector, norm, previous, next, and four 8-byte arrays: at most 256 KiB and 44, and 1,024 of them are far from 2^32. */
static size_t iq_rows_row_bytes(const iq_rows *rows) {
    return rows->stride * sizeof(float) + 3 * 4 + 4 * 8;
}

static size_t iq_rows_slab_bytes(const iq_rows *rows, size_t slab) {
    if (rows->borrowed) return iq_slab_rows(rows, slab) * (2 * 4 + 2 * 8) + iq_rows_filled_bytes(rows, slab);
    return iq_slab_rows(rows, slab) * iq_rows_row_bytes(rows) + iq_rows_filled_bytes(rows, slab);
}

IQ_FN void iq_rows_free(iq_rows *rows) {
    for (size_t i = 0; i < rows->slab_count; i++) {
        void *memory = rows->slabs[i].vectors;
        if (rows->borrowed) memory = rows->slabs[i].filled;
        iq_pages_free(rows->allocator, memory, iq_rows_slab_bytes(rows, i));
    }
    iq_table_free(rows->allocator, rows->slabs);
    iq_rows_init(rows, rows->allocator);
}

IQ_FN void iq_rows_set_dim(iq_rows *rows, uint32_t dim) {
    IQ_ASSERT(rows->slab_count == 0 || dim == rows->dim);
    rows->dim = dim;
    rows->stride = iq_row_stride(dim);
    rows->slab_shift = IQ_SLAB_SHIFT_MIN;
    while (rows->slab_shift < IQ_SLAB_SHIFT_MAX &&
           iq_rows_row_bytes(rows) <= IQ_SLAB_BYTES_MAX >> (rows->slab_shift + 1))
        rows->slab_shift++;
}

/* A slab of which only the memory is there. */
static iqdb_result iq_rows_add_memory(iq_rows *rows, uint8_t **out_memory) {
    iq_slab *slabs =
        (iq_slab *)iq_table_reserve(rows->allocator, rows->slabs, rows->slab_count * sizeof(iq_slab), sizeof(iq_slab));
    if (slabs == NULL) return IQDB_ERR_NOMEM;
    IQ_ATOMIC_STORE(&rows->slabs, slabs);
    const size_t bytes = iq_rows_slab_bytes(rows, rows->slab_count);
    *out_memory = (uint8_t *)iq_pages_alloc(rows->allocator, bytes);
    if (*out_memory == NULL) return IQDB_ERR_NOMEM;
    rows->slab_count++;
    rows->bytes += bytes;
    return IQDB_OK;
}

static iqdb_result iq_rows_add_slab(iq_rows *rows) {
    uint8_t *memory;
    const iqdb_result result = iq_rows_add_memory(rows, &memory);
    if (result != IQDB_OK) return result;
    const size_t count = iq_slab_rows(rows, rows->slab_count - 1);
    const size_t filled_bytes = iq_rows_filled_bytes(rows, rows->slab_count - 1);
    iq_slab *slab = &rows->slabs[rows->slab_count - 1];
    slab->vectors = (float *)(void *)memory;
    memory += count * rows->stride * sizeof(float);
    slab->filled = (uint32_t *)(void *)memory;
    memset(memory, 0, filled_bytes);
    memory += filled_bytes;
    slab->ids = (uint64_t *)(void *)memory;
    slab->births = slab->ids + count;
    slab->deaths = slab->births + count;
    slab->payloads = slab->deaths + count;
    slab->norms = (float *)(void *)(slab->payloads + count);
    slab->previous = (uint32_t *)(void *)(slab->norms + count);
    slab->next = slab->previous + count;
    return IQDB_OK;
}

IQ_FN iqdb_result iq_rows_borrow(iq_rows *rows, uint32_t count, const iq_slab *all) {
    IQ_ASSERT(rows->slab_count == 0);
    rows->borrowed = true;
    while (iq_slab_first_row(rows, rows->slab_count) < count) {
        const size_t first = (size_t)iq_slab_first_row(rows, rows->slab_count);
        uint8_t *memory;
        const iqdb_result result = iq_rows_add_memory(rows, &memory);
        if (result != IQDB_OK) return result;
        const uint32_t room = iq_slab_rows(rows, rows->slab_count - 1);
        iq_slab *slab = &rows->slabs[rows->slab_count - 1];
        const size_t filled_bytes = iq_rows_filled_bytes(rows, rows->slab_count - 1);
        slab->filled = (uint32_t *)(void *)memory;
        memset(memory, 0, filled_bytes);
        slab->births = (uint64_t *)(void *)(memory + filled_bytes);
        slab->deaths = slab->births + room;
        slab->previous = (uint32_t *)(void *)(slab->deaths + room);
        slab->next = slab->previous + room;
        slab->vectors = all->vectors + first * rows->stride;
        slab->ids = all->ids + first;
        slab->norms = all->norms + first;
        slab->payloads = all->payloads + first;
        for (uint32_t i = 0; i < room; i++) {
            slab->births[i] = slab->deaths[i] = IQ_MOMENT_NEVER;
            slab->previous[i] = slab->next[i] = IQ_ROW_NONE;
        }
    }
    IQ_ATOMIC_STORE(&rows->count, count);
    return IQDB_OK;
}

IQ_FN iqdb_result iq_rows_reserve(iq_rows *rows, uint32_t count) {
    iqdb_result result = IQDB_OK;
    while (iq_slab_first_row(rows, rows->slab_count) < count && result == IQDB_OK) result = iq_rows_add_slab(rows);
    return result;
}

IQ_FN iqdb_result iq_rows_take(iq_rows *rows, uint32_t *out_row) {
    uint32_t row = rows->free_head, index;
    const iq_slab *slab;
    if (row != IQ_ROW_NONE) {
        slab = iq_rows_slab(rows, row, &index);
        rows->free_head = slab->previous[index];
        rows->free_count--;
    } else {
        row = rows->count;
        if (row >= IQ_ROW_COUNT_MAX) return IQDB_ERR_LIMIT;
        const iqdb_result result = iq_rows_reserve(rows, row + 1);
        if (result != IQDB_OK) return result;
        slab = iq_rows_slab(rows, row, &index);
        IQ_ATOMIC_STORE(&rows->count, row + 1);
    }
    slab->births[index] = IQ_MOMENT_NEVER;
    slab->deaths[index] = IQ_MOMENT_NEVER;
    slab->previous[index] = slab->next[index] = IQ_ROW_NONE;
    slab->payloads[index] = 0;
    float *vector = slab->vectors + index * rows->stride;
    memset(vector + rows->dim, 0, (rows->stride - rows->dim) * sizeof(float));
    *out_row = row;
    return IQDB_OK;
}

IQ_FN void iq_rows_set_filled(const iq_slab *slab, uint32_t index, bool filled) {
    uint32_t *word = &slab->filled[index / 32];
    const uint32_t bit = (uint32_t)1 << index % 32;
    IQ_ATOMIC_STORE(word, filled ? *word | bit : *word & ~bit); /* there is one writer */
}

IQ_FN uint32_t iq_slab_seek(const iq_slab *slab, uint32_t from, uint32_t end, bool filled) {
    const uint32_t others = filled ? 0 : 0xFFFFFFFFu;
    while (from < end) {
        uint32_t word = (IQ_ATOMIC_LOAD(&slab->filled[from / 32]) ^ others) >> from % 32;
        if (word == 0) {
            from = from / 32 * 32 + 32;
            continue;
        }
        for (; (word & 1) == 0; word >>= 1) from++;
        break;
    }
    return from < end ? from : end;
}

IQ_FN void iq_rows_give_back(iq_rows *rows, uint32_t row) {
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(rows, row, &index);
    slab->births[index] = IQ_MOMENT_NEVER;
    slab->previous[index] = rows->free_head;
    rows->free_head = row;
    rows->free_count++;
}
