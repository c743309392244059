/* Slabs of rows.
 *
 * 1. A slab is one allocation and never moves or shrinks; a pointer to a row holds until iq_rows_free.
 * 2. Slab sizes double up to 2^slab_shift and then stay, so row -> slab is arithmetic.
 * 3. A row is in exactly one state: free (in the free list), staged (taken, birth NEVER), live, or buried. Readers read
 *    the filled ones only, among them all that are live or buried: a scan must not stream what is being written, though
 *    it would not use it.
 * 4. Bytes of a row behind its elements are 0, whatever was in the row before.
 * 5. A block of codes is open, which its readers see as no bit of `coded`, or closed, and then nobody writes into it. It
 *    is opened when a row of it is cleared, or to encode a row; and written into once no pin is as old as that. It is
 *    closed when all its rows are encoded, or when tending finds that all are that are filled. Filled rows without a
 *    code are for readers to look at themselves. So a search never waits for codes, nor a write for searches.
 *    Narrow codes lie in the place of others, which are longer; a slab has one kind, and changes it while all is open.
 *    Rows may come with their codes, when they are loaded: then these are written, and `encoded`, before they are filled.
 * 6. Lent rows are the first, and fill slabs of their own, whose end may be empty. Of these only the bits of a row, and
 *    heads once one has died, are ours; nothing else is ever written, no such row is taken again, and no block of codes is
 *    opened. */
#include "store/rows.h"

#define IQ_ROWS_OPEN_MOMENTS 64u /* for which a block with free rows stays open */
#define IQ_ROWS_MAKER_BYTES iq_round_up(sizeof(iq_basis_maker), IQ_CACHE_LINE) /* in front of its memory */
#define IQ_ROWS_NARROW_MIN 16384u                                 /* fewer are searched fast enough as they are */
#define IQ_OWN_BYTES (sizeof(iq_row_head) + sizeof(iq_row_links)) /* of a lent row, beside others that die */

IQ_FN void iq_rows_init(iq_rows *rows, const iqdb_allocator *allocator) {
    memset(rows, 0, sizeof *rows);
    rows->allocator = allocator;
    rows->slab_shift = IQ_SLAB_SHIFT_MIN;
    rows->first_shift = IQ_SLAB_FIRST_SHIFT;
    rows->row_max = IQ_ROW_COUNT_MAX;
    rows->free_head = IQ_ROW_NONE;
    rows->safe = 1;
}

static size_t iq_rows_word_bytes(const iq_rows *rows, size_t slab) {
    return (iq_slab_rows(rows, slab) + 31) / 32 * sizeof(uint32_t);
}

/* What a row is encoded with, the row in f32 where it is of something else, and a block to compare with. */
static size_t iq_rows_encode_bytes(const iq_rows *rows) {
    return iq_round_up(iq_quant_encode_bytes(&rows->quant), IQ_CACHE_LINE);
}
static size_t iq_rows_scratch_bytes(const iq_rows *rows) {
    const size_t floats = rows->element == IQDB_ELEMENT_F32 ? 0 : iq_row_stride(rows->dim);
    return iq_rows_encode_bytes(rows) + iq_quant_block_bytes(&rows->quant) + floats * sizeof(float);
}

/* Of the codes of 16 rows and what belongs to them. */
static size_t iq_rows_block_bytes(const iq_rows *rows) {
    return !iq_rows_have_codes(rows) ? 0 : iq_quant_block_bytes(&rows->quant) + sizeof(uint64_t);
}

/* Of a row: at most 288 KiB and 53, and 1,024 times that is far from 2^32. */
static size_t iq_rows_row_bytes(const iq_rows *rows) {
    return (rows->stride + 1) * sizeof(float) + sizeof(iq_row_head) + sizeof(iq_row_links);
}

IQ_FN float *iq_rows_basis_memory(const iq_rows *rows, uint32_t dims) {
    return (float *)iq_alloc(rows->allocator, iq_basis_bytes(rows->dim, dims), IQ_CACHE_LINE);
}

/* One that is in the making. */
static void iq_rows_drop_maker(iq_rows *rows) {
    if (rows->maker == NULL) return;
    iq_free(rows->allocator, rows->maker, IQ_ROWS_MAKER_BYTES + iq_basis_maker_bytes(rows->dim), IQ_CACHE_LINE);
    rows->maker = NULL;
}

IQ_FN bool iq_rows_set_basis(iq_rows *rows, uint32_t dims, float *memory) {
    if (IQ_SMALL) return false;
    IQ_ASSERT(rows->basis_memory == NULL);
    const size_t bytes = iq_basis_bytes(rows->dim, dims);
    if (!iq_basis_set(&rows->basis, rows->kernel, rows->dim, dims, memory)) {
        iq_free(rows->allocator, memory, bytes, IQ_CACHE_LINE);
        return false;
    }
    rows->basis_memory = memory;
    rows->bytes += bytes;
    IQ_ATOMIC_STORE(&rows->narrow.basis, &rows->basis);
    return true;
}

/* With codes, a slab is made of whole blocks. */
static size_t iq_rows_slab_bytes(const iq_rows *rows, size_t slab) {
    const uint32_t count = iq_slab_rows(rows, slab);
    return count * iq_rows_row_bytes(rows) + count / IQ_CODES_ROWS * iq_rows_block_bytes(rows) +
           iq_rows_word_bytes(rows, slab) * (!iq_rows_have_codes(rows) ? 2 : 4) + 2 * sizeof(uint32_t);
}

/* Codes come first, because they are scanned most: what is left for small pages is the end. */
static void *iq_slab_memory(const iq_rows *rows, const iq_slab *slab) {
    return iq_rows_have_codes(rows) ? (void *)slab->blocks : (void *)slab->vectors;
}

IQ_FN void iq_rows_free(iq_rows *rows) {
    for (size_t i = 0; i < rows->slab_count && !IQ_ONLY_BLOBS; i++) {
        if (rows->slabs[i].ids != NULL) {
            iq_free(rows->allocator, rows->slabs[i].heads, iq_slab_rows(rows, i) * IQ_OWN_BYTES, IQ_CACHE_LINE);
        } else {
            iq_pages_free(rows->allocator, iq_slab_memory(rows, &rows->slabs[i]), iq_rows_slab_bytes(rows, i));
        }
    }
    if (IQ_ONLY_BLOBS) iq_free(rows->allocator, rows->slabs, sizeof(iq_slab), 16);
    if (IQ_ONLY_BLOBS) return;
    iq_table_free(rows->allocator, rows->slabs);
    iq_free(rows->allocator, rows->lent.memory, rows->lent.memory_size, IQ_CACHE_LINE);
    if (!IQ_SMALL && rows->scratch != NULL)
        iq_free(rows->allocator, rows->scratch, iq_rows_scratch_bytes(rows), IQ_CACHE_LINE);
    if (!IQ_SMALL) iq_rows_drop_maker(rows);
    if (!IQ_SMALL && rows->basis_memory != NULL)
        iq_free(rows->allocator, rows->basis_memory, iq_basis_bytes(rows->dim, rows->basis.dims), IQ_CACHE_LINE);
    const iq_kernel *kernel = rows->kernel;
    const iqdb_metric coded_for = rows->coded_for;
    const iqdb_element element = rows->element;
    iq_rows_init(rows, rows->allocator);
    rows->kernel = kernel;
    rows->element = element;
    rows->coded_for = coded_for;
}

IQ_FN void iq_rows_set_dim(iq_rows *rows, uint32_t dim) {
    IQ_ASSERT(rows->slab_count == 0 || dim == rows->dim);
    rows->dim = dim;
    rows->stride = iq_element_stride(rows->element, dim);
    if (rows->kernel != NULL) rows->sums = iq_kernel_of(rows->kernel, rows->element);
    const bool codes = rows->coded_for != IQDB_METRIC_DEFAULT && rows->coded_for != IQDB_L1 &&
                       rows->coded_for != IQDB_HAMMING && dim <= IQ_ROWS_CODED_DIM_MAX;
    if (IQ_ONLY_BLOBS) return;
    rows->quant.dim = codes ? dim : 0;
    rows->quant.unit = rows->coded_for == IQDB_COSINE;
    if (rows->narrow.basis == NULL) rows->narrow = rows->quant;
    rows->slab_shift = IQ_SLAB_SHIFT_MIN;
    while (rows->slab_shift < IQ_SLAB_SHIFT_MAX &&
           iq_rows_row_bytes(rows) + iq_rows_block_bytes(rows) / IQ_CODES_ROWS <= IQ_SLAB_BYTES_MAX >>
               (rows->slab_shift + 1))
        rows->slab_shift++;
}

static bool iq_rows_take_scratch(iq_rows *rows) {
    if (iq_rows_have_codes(rows) && rows->scratch == NULL)
        rows->scratch = iq_alloc(rows->allocator, iq_rows_scratch_bytes(rows), IQ_CACHE_LINE);
    return !iq_rows_have_codes(rows) || rows->scratch != NULL;
}

static void iq_rows_make_room(iq_rows *rows) {
    rows->room = IQ_ONLY_BLOBS ? rows->lent.count : rows->row_max;
    if (!IQ_ONLY_BLOBS && iq_slab_first_row(rows, rows->slab_count) < rows->row_max)
        rows->room = (uint32_t)iq_slab_first_row(rows, rows->slab_count);
}

static iqdb_result iq_rows_add_slab(iq_rows *rows) {
    const size_t number = rows->slab_count;
    if (!iq_rows_take_scratch(rows)) return IQDB_ERR_NOMEM;
    iq_slab *slabs = (iq_slab *)iq_table_reserve(rows->allocator, rows->slabs, sizeof(iq_slab), number, 1);
    if (slabs == NULL) return IQDB_ERR_NOMEM;
    IQ_ATOMIC_STORE(&rows->slabs, slabs);
    iq_slab *slab = &slabs[number];
    const size_t bytes = iq_rows_slab_bytes(rows, number), count = iq_slab_rows(rows, number);
    uint8_t *memory = (uint8_t *)iq_pages_alloc(rows->allocator, bytes);
    if (memory == NULL) return IQDB_ERR_NOMEM;
    const size_t vectors_size = count * rows->stride * sizeof(float);
    const size_t words = iq_rows_word_bytes(rows, number) / sizeof(uint32_t), blocks = count / IQ_CODES_ROWS;
    /* What has to be aligned to more comes first: there may be one row. */
    slab->ids = slab->payloads = NULL;
    slab->blocks = memory;
    memory += !iq_rows_have_codes(rows) ? 0 : blocks * iq_quant_block_bytes(&rows->quant);
    slab->vectors = (float *)(void *)memory;
    slab->heads = (iq_row_head *)(void *)(memory + vectors_size);
    slab->opened = (uint64_t *)(void *)(slab->heads + count);
    slab->links = (iq_row_links *)(void *)(slab->opened + (!iq_rows_have_codes(rows) ? 0 : blocks));
    memory = (uint8_t *)(void *)(slab->links + count);
    slab->norms = (float *)(void *)memory;
    slab->filled = (uint32_t *)(void *)memory + count;
    slab->indexed = slab->filled + words;
    slab->fresh = slab->indexed + words;
    slab->narrow = slab->fresh + 1;
    slab->coded = slab->narrow + 1;
    slab->encoded = slab->coded + words;
    memset(slab->filled, 0,
           iq_rows_word_bytes(rows, number) * (!iq_rows_have_codes(rows) ? 2 : 4) + 2 * sizeof(uint32_t));
    if (iq_rows_have_codes(rows)) memset(slab->opened, 0, blocks * sizeof(uint64_t));
    rows->slab_count++;
    rows->bytes += bytes;
    iq_rows_make_room(rows);
    return IQDB_OK;
}

IQ_FN iqdb_result iq_rows_reserve(iq_rows *rows, size_t count) {
    iqdb_result result = IQDB_OK;
    if (count > rows->row_max) return rows->row_max < IQ_ROW_COUNT_MAX ? IQDB_ERR_NOMEM : IQDB_ERR_LIMIT;
    if (rows->dim == 0) return IQDB_OK;
    while (iq_slab_first_row(rows, rows->slab_count) < count && result == IQDB_OK) result = iq_rows_add_slab(rows);
    return result;
}

IQ_HOT iqdb_result iq_rows_take(iq_rows *rows, uint32_t *out_row) {
    uint32_t row = rows->free_head, index;
    const iq_slab *slab;
    if (row != IQ_ROW_NONE) {
        slab = iq_rows_slab(rows, row, &index);
        rows->free_head = slab->links[index].previous;
        /* The next one is about to be written: until then it can come from wherever it is. */
        if (rows->free_head != IQ_ROW_NONE) iq_rows_prefetch(rows, iq_rows_spot(rows, rows->free_head));
    } else {
        row = rows->count;
        const iqdb_result result = row < rows->room ? IQDB_OK : iq_rows_reserve(rows, (size_t)row + 1);
        if (result != IQDB_OK) return result;
        slab = iq_rows_slab(rows, row, &index);
        IQ_ATOMIC_STORE(&rows->count, row + 1);
    }
    iq_row_head *head = &slab->heads[index];
    head->birth = head->death = IQ_MOMENT_NEVER;
    slab->links[index].previous = slab->links[index].next = IQ_ROW_NONE;
    head->payload = 0;
    const size_t size = iq_element_bytes(rows->element, rows->dim);
    uint8_t *vector = (uint8_t *)(void *)(slab->vectors + index * rows->stride);
    memset(vector + size, 0, rows->stride * sizeof(float) - size);
    *out_row = row;
    return IQDB_OK;
}

/* ---- Lent rows ---- */

/* Words of a bit a unit; of those of a part, the number. */
static size_t iq_lent_words(const iq_lent *lent, uint32_t part) {
    const size_t count = part == IQ_LENT_PLACES ? lent->place_count : lent->count;
    return count / iq_lent_unit(part) / 32 + 1;
}

/* A slab of lent rows, `held` of them, whose bits are in zeroed memory at *words. */
static void iq_rows_lend_slab(iq_rows *rows, size_t number, uint32_t **words) {
    const iq_lent *lent = &rows->lent;
    iq_slab *slab = &rows->slabs[number];
    const size_t first = (size_t)iq_slab_first_row(rows, number), count = iq_slab_rows(rows, number);
    const size_t size = iq_rows_word_bytes(rows, number) / sizeof(uint32_t);
    const uint32_t held = (uint32_t)(lent->count - first < count ? lent->count - first : count);
    slab->vectors = lent->vectors + first * rows->stride;
    slab->norms = lent->norms + first;
    slab->ids = lent->ids + first * 8;
    slab->payloads = lent->payloads + first * 8;
    if (IQ_ONLY_BLOBS) return;
    if (!IQ_SMALL && lent->codes != NULL)
        slab->blocks =
            lent->codes + first / IQ_CODES_ROWS * iq_quant_block_bytes(lent->narrow ? &rows->narrow : &rows->quant);
    slab->filled = *words;
    slab->indexed = slab->filled + size;
    slab->coded = slab->encoded = slab->indexed + size;
    slab->fresh = slab->coded + size;
    slab->narrow = slab->fresh + 1;
    *words = slab->narrow + 1;
    *slab->narrow = !IQ_SMALL && lent->narrow;
    memset(slab->filled, 0xFF, held / 32 * sizeof(uint32_t));
    if (held % 32 != 0) slab->filled[held / 32] = (UINT32_C(1) << held % 32) - 1;
    if (!IQ_SMALL && lent->codes != NULL) memcpy(slab->coded, slab->filled, size * sizeof(uint32_t));
    *slab->fresh = held;
}

IQ_FN iqdb_result iq_rows_lend(iq_rows *rows, const iq_lent *lent) {
    uint32_t index;
    size_t size = 0;
    IQ_ASSERT(rows->slab_count == 0 && rows->dim != 0 && lent->count > 0);
    const size_t slabs = iq_slab_of_row(rows, lent->count - 1, &index) + 1;
    for (size_t i = 0; i < slabs && !IQ_ONLY_BLOBS; i++) size += 3 * iq_rows_word_bytes(rows, i) + 2 * sizeof(uint32_t);
    for (uint32_t part = 0; part < IQ_LENT_PARTS && !IQ_SMALL; part++)
        size += iq_lent_words(lent, part) * sizeof(uint32_t);
    if (IQ_ONLY_BLOBS)
        rows->slabs = (iq_slab *)iq_alloc_zeroed(rows->allocator, sizeof(iq_slab), 16);
    else
        rows->slabs = (iq_slab *)iq_table_reserve(rows->allocator, rows->slabs, sizeof(iq_slab), 0, slabs);
    if (rows->slabs == NULL || !iq_rows_take_scratch(rows)) return IQDB_ERR_NOMEM;
    uint32_t *words = size > 0 ? (uint32_t *)iq_alloc_zeroed(rows->allocator, size, IQ_CACHE_LINE) : NULL;
    if (size > 0 && words == NULL) return IQDB_ERR_NOMEM;
    rows->lent = *lent;
    rows->lent.memory = words;
    rows->lent.memory_size = size;
    for (uint32_t part = 0; part < IQ_LENT_PARTS && !IQ_SMALL; part++) {
        rows->lent.sound[part] = words;
        words += iq_lent_words(lent, part);
    }
    for (size_t i = 0; i < slabs; i++) iq_rows_lend_slab(rows, i, &words);
    rows->slab_count = slabs;
    rows->bytes += size;
    iq_rows_make_room(rows);
    rows->fresh = lent->count;
    rows->count = rows->lent.end = rows->room;
    return IQDB_OK;
}

IQ_FN void iq_rows_believe(iq_rows *rows) {
    for (uint32_t part = 0; part < IQ_LENT_PARTS && !IQ_SMALL; part++)
        memset(rows->lent.sound[part], 0xFF, iq_lent_words(&rows->lent, part) * sizeof(uint32_t));
}

IQ_FN iqdb_result iq_rows_own(iq_rows *rows, uint32_t row) {
    uint32_t index;
    const size_t number = iq_slab_of_row(rows, row, &index), count = iq_slab_rows(rows, number);
    iq_slab *slab = &rows->slabs[number];
    iq_row_head *heads = slab->heads;
    if (heads == NULL) {
        heads = (iq_row_head *)iq_alloc(rows->allocator, count * IQ_OWN_BYTES, IQ_CACHE_LINE);
        if (heads == NULL) return IQDB_ERR_NOMEM;
        slab->links = (iq_row_links *)(void *)(heads + count);
        for (size_t i = 0; i < count; i++) {
            heads[i].birth = 1; /* the first moment there is */
            heads[i].death = IQ_MOMENT_NEVER;
            slab->links[i].previous = slab->links[i].next = IQ_ROW_NONE;
        }
        rows->bytes += count * IQ_OWN_BYTES;
        IQ_ATOMIC_STORE(&slab->heads, heads);
    }
    heads[index].id = iq_row_id(slab, index);
    heads[index].payload = iq_row_payload(slab, index);
    return IQDB_OK;
}

IQ_FN void iq_lent_set_sound(const iq_lent *lent, uint32_t part, uint32_t unit) {
    uint32_t *word = &lent->sound[part][unit / 32], old;
    do old = IQ_ATOMIC_LOAD(word);
    while (!IQ_ATOMIC_SWAP_IF(word, old, old | UINT32_C(1) << unit % 32));
}

IQ_FN bool iq_lent_touch_all(const iq_lent *lent, uint32_t part, uint64_t first, uint64_t count) {
    uint64_t end = first + count;
    const uint32_t unit = iq_lent_unit(part);
    bool sound = true;
    if (part == IQ_LENT_CODES && lent->codes == NULL) return true;
    if (part != IQ_LENT_PLACES && end > lent->count) end = lent->count;
    for (uint64_t i = first / unit; i * unit < end; i++) sound = iq_lent_touch(lent, part, (uint32_t)i) && sound;
    return sound;
}

/* ---- Bits and codes ---- */

/* There is one writer, so a word is only stored atomically. */
static void iq_bits_set(uint32_t *words, uint32_t index, uint32_t bits) {
    IQ_ATOMIC_STORE(&words[index / 32], words[index / 32] | bits << index % 32);
}
static void iq_bits_clear(uint32_t *words, uint32_t index, uint32_t bits) {
    IQ_ATOMIC_STORE(&words[index / 32], words[index / 32] & ~(bits << index % 32));
}

/* What follows gets the first row of a block, and `coded` bits of it are set or cleared all at once. */
static void iq_block_open(iq_rows *rows, const iq_slab *slab, uint32_t first, uint64_t now) {
    iq_bits_clear(slab->coded, first, 0xFFFFu);
    slab->opened[first / IQ_CODES_ROWS] = now;
    if (rows->safe > now) rows->safe = now; /* the last look at pins came before */
}
static bool iq_block_is_writable(const iq_rows *rows, const iq_slab *slab, uint32_t first) {
    return iq_block_bits(slab->coded, first) == 0 && slab->opened[first / IQ_CODES_ROWS] < rows->safe;
}

IQ_FN uint8_t *iq_rows_spare_block(const iq_rows *rows) {
    return (uint8_t *)rows->scratch + iq_rows_scratch_bytes(rows) - iq_quant_block_bytes(&rows->quant);
}

/* As row `place` of a block. */
static void iq_rows_encode_to(const iq_rows *rows, const iq_quant *quant, const iq_slab *slab, uint32_t index,
                              uint8_t *block, uint32_t place) {
    const float *row = slab->vectors + index * rows->stride;
    if (rows->element != IQDB_ELEMENT_F32) {
        float *floats = (float *)(void *)((uint8_t *)rows->scratch + iq_rows_encode_bytes(rows));
        iq_row_to_f32(rows->element, row, rows->dim, floats);
        row = floats;
    }
    iq_quant_encode(quant, rows->kernel, row, slab->norms[index], block, place, rows->scratch);
}

static void iq_rows_encode(const iq_rows *rows, const iq_slab *slab, uint32_t index) {
    const iq_quant *quant = iq_slab_quant(rows, slab);
    iq_rows_encode_to(rows, quant, slab, index, slab->blocks + index / IQ_CODES_ROWS * iq_quant_block_bytes(quant),
                      index % IQ_CODES_ROWS);
    iq_bits_set(slab->encoded, index, 1);
}

IQ_FN void iq_rows_put_code_as(const iq_rows *rows, const iq_quant *quant, const iq_slab *slab, uint32_t index,
                               uint8_t *blocks, uint32_t place) {
    if (iq_bits_at(slab->encoded, index, index + 1) != 0 && iq_slab_quant(rows, slab) == quant) {
        iq_quant_copy(quant, slab->blocks, index, blocks, place);
    } else {
        blocks += place / IQ_CODES_ROWS * iq_quant_block_bytes(quant);
        iq_rows_encode_to(rows, quant, slab, index, blocks, place % IQ_CODES_ROWS);
    }
}

IQ_FN void iq_rows_put_code(const iq_rows *rows, const iq_slab *slab, uint32_t index, uint8_t *blocks, uint32_t place) {
    iq_rows_put_code_as(rows, &rows->quant, slab, index, blocks, place);
}

IQ_FN void iq_rows_adopt_codes(const iq_slab *slab, uint32_t index, uint32_t count, bool narrow) {
    IQ_ATOMIC_STORE(slab->narrow, (uint32_t)narrow);
    for (; count > 0; index++, count--) iq_bits_set(slab->encoded, index, 1);
}

/* Whether row `place` of some blocks is what `quant` makes of the row. */
static bool iq_rows_code_is_as(const iq_rows *rows, const iq_quant *quant, const iq_slab *slab, uint32_t index,
                               const uint8_t *blocks, uint32_t place) {
    const size_t bytes = iq_quant_block_bytes(quant);
    uint8_t *again = iq_rows_spare_block(rows);
    blocks += place / IQ_CODES_ROWS * bytes;
    place %= IQ_CODES_ROWS;
    iq_rows_encode_to(rows, quant, slab, index, again, place);
    for (size_t at = place * 4; at < bytes; at += 64)
        if (memcmp(blocks + at, again + at, 4) != 0) return false;
    return true;
}

IQ_FN bool iq_rows_code_is(const iq_rows *rows, const iq_slab *slab, uint32_t index, const uint8_t *blocks,
                           uint32_t place) {
    return iq_rows_code_is_as(rows, &rows->quant, slab, index, blocks, place);
}

IQ_FN bool iq_rows_code_agrees(const iq_rows *rows, const iq_slab *slab, uint32_t index) {
    return !iq_rows_have_codes(rows) || iq_bits_at(slab->encoded, index, index + 1) == 0 ||
           iq_rows_code_is_as(rows, iq_slab_quant(rows, slab), slab, index, slab->blocks, index);
}

/* One row more, or, with `more` -1, one less that is filled and not indexed. */
static void iq_rows_count_fresh(iq_rows *rows, const iq_slab *slab, uint32_t more) {
    IQ_ATOMIC_STORE(slab->fresh, *slab->fresh + more);
    IQ_ATOMIC_STORE(&rows->fresh, rows->fresh + more);
}

IQ_FN void iq_rows_set_indexed(iq_rows *rows, const iq_slab *slab, uint32_t index, bool indexed) {
    if (iq_bits_at(slab->indexed, index, index + 1) == (uint32_t)indexed) return;
    if (indexed) {
        iq_bits_set(slab->indexed, index, 1);
    } else {
        iq_bits_clear(slab->indexed, index, 1);
    }
    iq_rows_count_fresh(rows, slab, indexed ? UINT32_MAX : 1);
}

IQ_FN void iq_rows_forget_indexed(iq_rows *rows) {
    for (size_t i = 0; i < rows->slab_count; i++) {
        const iq_slab *slab = &rows->slabs[i];
        const uint32_t words = (iq_slab_rows(rows, i) + 31) / 32;
        uint32_t found = 0;
        for (uint32_t word = 0; word < words; word++) {
            for (uint32_t bits = slab->indexed[word]; bits != 0; bits &= bits - 1) found++;
            IQ_ATOMIC_STORE(&slab->indexed[word], 0u);
        }
        iq_rows_count_fresh(rows, slab, found);
    }
}

IQ_FN void iq_rows_fill(iq_rows *rows, const iq_slab *slab, uint32_t index) {
    const uint32_t first = index / IQ_CODES_ROWS * IQ_CODES_ROWS;
    iq_bits_set(slab->filled, index, 1);
    iq_rows_count_fresh(rows, slab, 1);
    if (!iq_rows_have_codes(rows) || (!IQ_SMALL && slab->ids != NULL)) return;
    if (!iq_block_is_writable(rows, slab, first)) {
        rows->untended = rows->count - rows->lent.end;
        rows->missed++;
        return;
    }
    if (iq_bits_at(slab->encoded, index, index + 1) == 0) iq_rows_encode(rows, slab, index);
    if (iq_block_bits(slab->encoded, first) == 0xFFFFu) iq_bits_set(slab->coded, first, 0xFFFFu);
}

IQ_FN void iq_rows_clear(iq_rows *rows, const iq_slab *slab, uint32_t index, uint64_t now) {
    const uint32_t first = index / IQ_CODES_ROWS * IQ_CODES_ROWS;
    iq_rows_set_indexed(rows, slab, index, false);
    iq_bits_clear(slab->filled, index, 1);
    iq_rows_count_fresh(rows, slab, UINT32_MAX);
    if (!IQ_SMALL && slab->ids != NULL) {
        iq_bits_clear(slab->coded, index, 1);
        rows->lent.gone++;
        return;
    }
    if (!iq_rows_have_codes(rows)) return;
    iq_bits_clear(slab->encoded, index, 1);
    if (iq_block_bits(slab->coded, first) != 0) iq_block_open(rows, slab, first, now);
    rows->untended = rows->count - rows->lent.end;
}

/* Whether there is nothing left to do. A block that was opened lately is left open: its free rows are those that are
 * taken next. */
static bool iq_block_tend(iq_rows *rows, const iq_slab *slab, uint32_t first, uint64_t now, bool all) {
    const uint32_t filled = iq_block_bits(slab->filled, first), coded = iq_block_bits(slab->coded, first);
    uint32_t missing = filled & ~iq_block_bits(slab->encoded, first);
    if (missing == 0 && coded == filled) return true;
    if (missing != 0 && coded != 0) iq_block_open(rows, slab, first, now);
    if (!iq_block_is_writable(rows, slab, first)) return false;
    for (; missing != 0; missing &= missing - 1) iq_rows_encode(rows, slab, first + iq_lowest_bit(missing));
    if (!all && filled != 0xFFFFu && now - slab->opened[first / IQ_CODES_ROWS] < IQ_ROWS_OPEN_MOMENTS) return false;
    iq_bits_set(slab->coded, first, filled);
    return true;
}

/* Whether there is nothing to do for any of 32 rows. */
static bool iq_word_is_tended(const iq_slab *slab, uint32_t first) {
    const uint32_t filled = slab->filled[first / 32];
    return slab->coded[first / 32] == filled && (filled & ~slab->encoded[first / 32]) == 0;
}

/* Whether the codes of a slab are to be narrow and are not. */
static bool iq_slab_is_plain(const iq_rows *rows, size_t number) {
    const iq_slab *slab = &rows->slabs[number];
    return slab->ids == NULL && *slab->narrow == 0 &&
           iq_slab_first_row(rows, number) + iq_slab_rows(rows, number) <= rows->count;
}

IQ_FN bool iq_rows_are_plain(const iq_rows *rows) {
    if (IQ_SMALL) return false;
    bool are_plain = false;
    for (size_t i = 0; rows->narrow.basis != NULL && iq_rows_have_codes(rows) && i < rows->slab_count; i++)
        are_plain = are_plain || iq_slab_is_plain(rows, i);
    return are_plain;
}

/* Whether the rows of a slab may be encoded; where it is plain, narrowly. For that all its blocks are opened: what is
 * written into these is wider than what comes in their place. */
static bool iq_slab_is_ready(iq_rows *rows, uint32_t row, uint64_t now) {
    if (IQ_SMALL) return true;
    uint32_t index;
    const size_t number = iq_slab_of_row(rows, row, &index);
    const iq_slab *slab = &rows->slabs[number];
    const uint32_t count = iq_slab_rows(rows, number);
    bool is_ready = true;
    if (rows->narrow.basis == NULL || !iq_slab_is_plain(rows, number)) return true;
    for (uint32_t first = 0; first < count; first += IQ_CODES_ROWS) {
        if (iq_block_bits(slab->coded, first) != 0) iq_block_open(rows, slab, first, now);
        is_ready = iq_block_is_writable(rows, slab, first) && is_ready;
    }
    if (!is_ready) return false;
    memset(slab->encoded, 0, iq_rows_word_bytes(rows, number));
    IQ_ATOMIC_STORE(slab->narrow, 1u);
    rows->narrow_slabs++;
    return true;
}

IQ_FN void iq_rows_tend(iq_rows *rows, uint64_t oldest, uint64_t now, size_t block_count, bool all) {
    uint32_t index;
    bool waits = false;
    rows->safe = oldest > 1 ? oldest : 1;
    rows->missed = 0;
    if (all && iq_rows_are_plain(rows)) rows->untended = rows->count - rows->lent.end;
    for (uint32_t row = rows->tended, step; iq_rows_have_codes(rows) && block_count > 0 && rows->untended > 0;
         row += step) {
        if (rows->count < IQ_CODES_ROWS || row > rows->count - IQ_CODES_ROWS) row = 0; /* the last one is being made */
        if (row < rows->lent.end) row = rows->lent.end;
        const iq_slab *slab = iq_rows_slab(rows, row, &index);
        /* Most are as they should be; there may be thousands of them for each that is not. */
        const bool is_ready = !all || iq_slab_is_ready(rows, row, now);
        const bool skips = index % 32 == 0 && row + 32 <= rows->count && iq_word_is_tended(slab, index);
        step = skips ? 32 : IQ_CODES_ROWS;
        block_count -= skips && block_count > 1 ? 2 : 1;
        if (!is_ready || !skips) waits = !is_ready || !iq_block_tend(rows, slab, index, now, all) || waits;
        if (waits) continue;
        rows->tended = row + step;
        rows->untended -= rows->untended < step ? rows->untended : step;
    }
}

/* ---- A basis ---- */

/* Rows all over take part; those that are free do not, nor what cannot be read. */
static void iq_rows_sample(const iq_rows *rows, iq_basis_maker *maker) {
    float *floats = (float *)(void *)((uint8_t *)rows->scratch + iq_rows_encode_bytes(rows));
    uint32_t index;
    for (uint32_t i = 0; i < IQ_BASIS_SAMPLE; i++) {
        const uint32_t row = (uint32_t)((uint64_t)rows->count * i / IQ_BASIS_SAMPLE);
        const iq_slab *slab = iq_rows_slab(rows, row, &index);
        if (iq_bits_at(slab->filled, index, index + 1) == 0 || !iq_rows_touch(rows, row)) continue;
        const float *vector = slab->vectors + index * rows->stride;
        if (rows->element != IQDB_ELEMENT_F32) iq_row_to_f32(rows->element, vector, rows->dim, floats);
        if (rows->element != IQDB_ELEMENT_F32) vector = floats;
        iq_basis_maker_add(maker, vector, rows->narrow.unit ? slab->norms[index] : 1.0f);
    }
}

IQ_FN bool iq_rows_work_at_basis(iq_rows *rows, iq_limit *limit) {
    if (IQ_SMALL) return true;
    const uint32_t own = rows->count - rows->lent.end;
    iq_basis_maker *maker = rows->maker;
    if (!iq_rows_have_codes(rows) || rows->narrow.basis != NULL || rows->dim < IQ_BASIS_DIM_MIN ||
        rows->dim > IQ_BASIS_DIM_MAX)
        return true;
    if (maker == NULL) {
        /* Once more when there are twice as many. */
        const size_t bytes = IQ_ROWS_MAKER_BYTES + iq_basis_maker_bytes(rows->dim);
        if (own < IQ_ROWS_NARROW_MIN || own < 16 * rows->dim || own / 2 < rows->made_of) return true;
        rows->made_of = own;
        maker = rows->maker = (iq_basis_maker *)iq_alloc_zeroed(rows->allocator, bytes, IQ_CACHE_LINE);
        if (maker == NULL) return true;
        iq_basis_maker_start(maker, rows->kernel, rows->dim, (uint8_t *)(void *)maker + IQ_ROWS_MAKER_BYTES);
        iq_rows_sample(rows, maker);
    }
    while (!iq_basis_maker_step(maker))
        if (iq_limit_reached(limit)) return false;
    float *memory = maker->dims > 0 ? iq_rows_basis_memory(rows, maker->dims) : NULL;
    if (memory != NULL) memcpy(memory, maker->centre, iq_basis_bytes(rows->dim, maker->dims));
    if (memory != NULL) (void)iq_rows_set_basis(rows, maker->dims, memory);
    iq_rows_drop_maker(rows);
    return true;
}

IQ_FN uint32_t iq_bits_seek(const uint32_t *words, uint32_t from, uint32_t end, bool set) {
    const uint32_t others = set ? 0 : 0xFFFFFFFFu;
    for (; from < end; from = from / 32 * 32 + 32) {
        const uint32_t word = (IQ_ATOMIC_LOAD(&words[from / 32]) ^ others) >> from % 32;
        if (word == 0) continue;
        from += iq_lowest_bit(word);
        break;
    }
    return from < end ? from : end;
}

IQ_HOT void iq_rows_give_back(iq_rows *rows, uint32_t row) {
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(rows, row, &index);
    slab->heads[index].birth = IQ_MOMENT_NEVER;
    slab->links[index].previous = IQ_ROW_NONE;
    if (rows->free_head == IQ_ROW_NONE) {
        rows->free_head = row;
    } else {
        iq_spot_links(iq_rows_spot(rows, rows->free_tail))->previous = row;
    }
    rows->free_tail = row;
}
