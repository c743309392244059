/* Slabs of rows.
 *
 * 1. A slab is one allocation and never moves or shrinks; a pointer to a row holds until iq_rows_free.
 * 2. Slab sizes double up to 2^slab_shift and then stay, so row -> slab is arithmetic.
 * 3. A row is in exactly one state: free (in the free list), staged (taken, birth NEVER), live, or buried. Readers read
 *    the filled ones only, among them all that are live or buried: a scan must not stream what is being written, though
 *    it would not use it.
 * 4. Floats of a row from dim to stride are 0, whatever was in the row before.
 * 5. Of rows with lent vectors only the heads and what is filled are ours; nothing else is ever written. */
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

/* Of a row: at most 256 KiB and 44, and 1,024 times that is far from 2^32. */
static size_t iq_rows_row_bytes(const iq_rows *rows) {
    return (rows->lent.vectors != NULL ? 0 : (rows->stride + 1) * sizeof(float)) + sizeof(iq_row_head);
}

static size_t iq_rows_slab_bytes(const iq_rows *rows, size_t slab) {
    return iq_slab_rows(rows, slab) * iq_rows_row_bytes(rows) + iq_rows_filled_bytes(rows, slab);
}

IQ_FN void iq_rows_free(iq_rows *rows) {
    for (size_t i = 0; i < rows->slab_count; i++) {
        void *memory = rows->slabs[i].vectors;
        if (rows->lent.vectors != NULL) memory = rows->slabs[i].filled;
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

static iqdb_result iq_rows_add_slab(iq_rows *rows) {
    const size_t number = rows->slab_count;
    iq_slab *slabs =
        (iq_slab *)iq_table_reserve(rows->allocator, rows->slabs, number * sizeof(iq_slab), sizeof(iq_slab));
    if (slabs == NULL) return IQDB_ERR_NOMEM;
    IQ_ATOMIC_STORE(&rows->slabs, slabs);
    iq_slab *slab = &slabs[number];
    const size_t bytes = iq_rows_slab_bytes(rows, number), count = iq_slab_rows(rows, number);
    uint8_t *memory = (uint8_t *)iq_pages_alloc(rows->allocator, bytes);
    if (memory == NULL) return IQDB_ERR_NOMEM;
    if (rows->lent.vectors != NULL) {
        slab->vectors = rows->lent.vectors + (size_t)iq_slab_first_row(rows, number) * rows->stride;
        slab->norms = rows->lent.norms + (size_t)iq_slab_first_row(rows, number);
    } else {
        slab->vectors = (float *)(void *)memory;
        slab->norms = slab->vectors + count * rows->stride;
        memory = (uint8_t *)(void *)(slab->norms + count);
    }
    slab->filled = (uint32_t *)(void *)memory;
    memset(memory, 0, iq_rows_filled_bytes(rows, number));
    slab->heads = (iq_row_head *)(void *)(memory + iq_rows_filled_bytes(rows, number));
    rows->slab_count++;
    rows->bytes += bytes;
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
        rows->free_head = slab->heads[index].previous;
        rows->free_count--;
    } else {
        row = rows->count;
        if (row >= IQ_ROW_COUNT_MAX) return IQDB_ERR_LIMIT;
        const iqdb_result result = iq_rows_reserve(rows, row + 1);
        if (result != IQDB_OK) return result;
        slab = iq_rows_slab(rows, row, &index);
        IQ_ATOMIC_STORE(&rows->count, row + 1);
    }
    iq_row_head *head = &slab->heads[index];
    head->birth = head->death = IQ_MOMENT_NEVER;
    head->previous = head->next = IQ_ROW_NONE;
    head->payload = 0;
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
    slab->heads[index].birth = IQ_MOMENT_NEVER;
    slab->heads[index].previous = rows->free_head;
    rows->free_head = row;
    rows->free_count++;
}
