/* An index of the caller's: what it says is taken for a hint, never for an answer.
 *
 * 1. Rows that it offers are looked at like all others: they have to be there, to be seen, allowed, accepted, and near.
 *    One that is found twice is a hit once. So any numbers are fine, and scores are exact.
 * 2. Where it fails, or leaves the hits short, the search begins anew over all rows; where it does not take in a row, that
 *    stays among those which every search looks at.
 * 3. It is stored with a mark behind it, that what it wrote is what it had counted: without that it is none. What it reads
 *    is checked against the checksums, and no further: any bytes may come. Rows that it takes in there become marked at
 *    once, and are unmarked if the load fails: nobody searches meanwhile. */
#include "index/custom.h"

#include "base/bytes.h"

#if !IQ_SMALL

enum {
    IQ_CUSTOM_K_MAX = 4096,
    IQ_CUSTOM_UNIT = 64, /* rows between two looks at the clock */
    IQ_CUSTOM_FETCHED = 4
};
#define IQ_CUSTOM_SIZE_MAX (UINT64_C(1) << 48) /* bytes of a section */

typedef struct iq_custom {
    iq_index base;
    iqdb_index_host host;
    const iqdb_index_ops *ops;
    void *index;
    uint64_t rows; /* in it */
} iq_custom;

typedef struct iq_custom_search {
    iqdb_index_query face; /* the first member */
    iq_flat_query flat;
    size_t which;
    uint64_t offered;
    bool stopped;
} iq_custom_search;

typedef struct iq_custom_io {
    iqdb_index_io face; /* the first member */
    iq_custom *custom;
    iq_index_save *save;       /* NULL: it is loaded; */
    const iq_index_load *load; /* NULL: it is only measured */
    uint64_t offset;           /* read so far */
    bool writes, failed;
    iqdb_result result;
} iq_custom_io;

static iq_custom *iq_custom_of(const iqdb_index_host *host) {
    return (iq_custom *)(void *)((uint8_t *)(uintptr_t)host - offsetof(iq_custom, host));
}

static bool iq_custom_has(const iq_custom *custom, uint32_t row) {
    const iq_spot spot = iq_rows_spot(custom->base.rows, row);
    return iq_bits_at(spot.slab->indexed, spot.index, spot.index + 1) != 0;
}

static void iq_custom_mark(iq_custom *custom, uint32_t row) {
    const iq_spot spot = iq_rows_spot(custom->base.rows, row);
    iq_rows_set_indexed(custom->base.rows, spot.slab, spot.index, true);
    custom->rows++;
}

/* ---- what it may call ---- */

IQDB_API void *iqdb_index_alloc(iqdb_index_host *host, size_t size) {
    return iq_block_make(&iq_custom_of(host)->base, size);
}

IQDB_API void iqdb_index_free(iqdb_index_host *host, void *memory) { iq_block_free(&iq_custom_of(host)->base, memory); }

IQDB_API void iqdb_index_retire(iqdb_index_host *host, void *memory) {
    iq_block_retire(&iq_custom_of(host)->base, memory);
}

IQDB_API const void *iqdb_index_vector(const iqdb_index_host *host, uint32_t row) {
    const iq_rows *rows = iq_custom_of(host)->base.rows;
    if (row >= IQ_ATOMIC_LOAD(&rows->count)) return NULL;
    const iq_spot spot = iq_rows_spot(rows, row);
    return spot.slab->vectors + spot.index * rows->stride;
}

/* Where the row is, if a search may look at it. */
static iq_spot iq_custom_spot(const iq_flat_query *flat, uint32_t row) {
    iq_spot spot = {NULL, 0, 0};
    if (row >= flat->row_count || (flat->allow != NULL && (flat->allow[row / 32] >> row % 32 & 1) == 0)) return spot;
    spot = iq_rows_spot(flat->rows, row);
    if (!iq_row_is_filled(spot)) spot.slab = NULL;
    return spot;
}

IQDB_API bool iqdb_index_offer(iqdb_index_query *query, const uint32_t *rows, size_t count) {
    iq_custom_search *search = (iq_custom_search *)(void *)query;
    for (size_t i = 0; i < count && !search->stopped; i++) {
        if (i + IQ_CUSTOM_FETCHED < count) {
            const iq_spot ahead = iq_custom_spot(&search->flat, rows[i + IQ_CUSTOM_FETCHED]);
            if (ahead.slab != NULL) iq_rows_prefetch(search->flat.rows, ahead);
        }
        const iq_spot spot = iq_custom_spot(&search->flat, rows[i]);
        if (spot.slab != NULL) iq_flat_offer_row(&search->flat, search->which, spot, false);
        if (++search->offered % IQ_CUSTOM_UNIT == 0) search->stopped = iq_limit_reached(search->flat.limit);
    }
    return !search->stopped;
}

static void iq_custom_push(iq_topk *topk, float score, uint64_t id, uint32_t row, void *user) {
    (void)user;
    for (size_t i = 0; i < topk->count; i++)
        if (topk->hits[i].payload.size == row) return;
    iq_topk_push(topk, score, id, row);
}

IQDB_API iqdb_result iqdb_index_write(iqdb_index_io *face, const void *bytes, size_t size) {
    iq_custom_io *io = (iq_custom_io *)(void *)face;
    iq_index_save *save = io->save;
    if (save == NULL || io->failed) return IQDB_ERR_INVALID_ARGUMENT;
    io->failed = size > (io->writes ? save->size - 4 - save->written : IQ_CUSTOM_SIZE_MAX - save->size);
    if (io->failed) return IQDB_ERR_INVALID_ARGUMENT;
    if (!io->writes) save->size += size;
    if (!io->writes) return IQDB_OK;
    save->written += size;
    return io->result = iq_snapshot_write(save->writer, bytes, size);
}

/* Bytes of its own in the section. */
static uint64_t iq_custom_stored(const iq_index_load *load) { return load->size - IQ_CUSTOM_HEAD - 4; }

IQDB_API uint32_t iqdb_index_place(const iqdb_index_io *face, uint32_t row) {
    const iq_custom_io *io = (const iq_custom_io *)(const void *)face;
    return io->save == NULL ? IQ_ROW_NONE : iq_place_of(io->save->places, row);
}

IQDB_API iqdb_result iqdb_index_read(iqdb_index_io *face, void *bytes, size_t size) {
    iq_custom_io *io = (iq_custom_io *)(void *)face;
    if (io->load == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (io->result != IQDB_OK || size > iq_custom_stored(io->load) - io->offset) return IQDB_ERR_CORRUPT;
    io->result = iq_index_read(io->load, IQ_CUSTOM_HEAD + io->offset, bytes, size);
    io->offset += size;
    return io->result;
}

IQDB_API bool iqdb_index_restore(iqdb_index_io *face, uint32_t row) {
    const iq_custom_io *io = (const iq_custom_io *)(const void *)face;
    if (io->load == NULL || row >= io->load->row_count || iq_custom_has(io->custom, row)) return false;
    iq_custom_mark(io->custom, row);
    return true;
}

/* ---- the contract ---- */

static void iq_custom_free(iq_index *base) {
    iq_custom *custom = (iq_custom *)(void *)base;
    const iqdb_allocator *allocator = base->allocator;
    custom->ops->close_fn(custom->index, custom->ops->user);
    iq_index_free_garbage(base);
    iq_free(allocator, custom, sizeof *custom, IQ_CACHE_LINE);
}

static bool iq_custom_work(iq_index *base, iq_limit *limit) {
    iq_custom *custom = (iq_custom *)(void *)base;
    for (;;) {
        const uint32_t row = iq_index_is_held(base) ? IQ_ROW_NONE : iq_index_next_fresh(base);
        if (row == IQ_ROW_NONE || custom->ops->insert_fn(custom->index, row, iqdb_index_vector(&custom->host, row),
                                                         custom->ops->user) != IQDB_OK)
            return true;
        iq_custom_mark(custom, row);
        base->unstored += custom->ops->save_fn != NULL;
        if (iq_limit_reached(limit)) return false;
    }
}

static void iq_custom_remove(iq_index *base, uint32_t row) {
    iq_custom *custom = (iq_custom *)(void *)base;
    if (!iq_custom_has(custom, row)) return;
    custom->rows--;
    custom->ops->remove_fn(custom->index, row, custom->ops->user);
}

static size_t iq_custom_search_bytes(const iq_index *base, size_t k) {
    const iq_custom *custom = (const iq_custom *)(const void *)base;
    const iqdb_index_ops *ops = custom->ops;
    const size_t size = ops->search_bytes_fn == NULL ? 0 : ops->search_bytes_fn(custom->index, k, ops->user);
    if (k > IQ_CUSTOM_K_MAX || size > (size_t)-1 / 4) return 0;
    return iq_round_up(size + 1, IQ_CACHE_LINE);
}

static bool iq_custom_search_for(const iq_index *base, iq_index_query *query) {
    const iq_custom *custom = (const iq_custom *)(const void *)base;
    const iq_topk *topk = &query->flat->probes[query->which].topk;
    iq_custom_search search;
    memset(&search, 0, sizeof search);
    search.flat = *query->flat;
    search.flat.codes = NULL;
    search.flat.push_fn = iq_custom_push;
    search.which = query->which;
    search.face.vector = search.flat.vectors + query->which * search.flat.rows->stride;
    search.face.k = topk->capacity;
    search.face.effort = query->effort;
    search.face.memory = query->memory;
    const iqdb_result result = custom->ops->search_fn(custom->index, &search.face, custom->ops->user);
    query->visited += search.offered;
    return search.stopped || (result == IQDB_OK && topk->count == topk->capacity);
}

static void iq_custom_describe(const iq_index *base, iq_index_facts *out_facts) {
    memset(out_facts, 0, sizeof *out_facts);
    out_facts->rows = ((const iq_custom *)(const void *)base)->rows;
}

static const char *iq_custom_check(const iq_index *base) {
    const iq_custom *custom = (const iq_custom *)(const void *)base;
    uint64_t marked = 0;
    for (uint32_t row = 0; row < base->rows->count; row++) marked += iq_custom_has(custom, row);
    return marked == custom->rows ? NULL : "more or fewer rows are marked than the index was given";
}

/* ---- storing ---- */

/* A slice of a round; false where it has failed. */
static bool iq_custom_slice(iq_custom *custom, iq_index_save *save, bool writes, bool *out_done) {
    iq_custom_io io;
    memset(&io, 0, sizeof io);
    io.custom = custom;
    io.save = save;
    io.writes = writes;
    io.face.at = save->own;
    *out_done = false;
    const iqdb_result result = custom->ops->save_fn(custom->index, &io.face, out_done, custom->ops->user);
    save->own = io.face.at;
    return result == IQDB_OK && !io.failed;
}

static bool iq_custom_measure(iq_index *base, iq_index_save *save) {
    iq_custom *custom = (iq_custom *)(void *)base;
    bool done = true;
    if (custom->ops->save_fn == NULL) return true;
    if (save->phase == 0) save->size = IQ_CUSTOM_HEAD + 4;
    save->phase = 1;
    const bool fine = iq_custom_slice(custom, save, false, &done);
    if (!fine) save->size = 0;
    if (done || !fine) save->own = 0;
    return done || !fine;
}

static iqdb_result iq_custom_save(iq_index *base, iq_index_save *save, bool *out_done) {
    iq_custom *custom = (iq_custom *)(void *)base;
    uint8_t head[IQ_CUSTOM_HEAD] = {0}, mark[4] = {0};
    bool done;
    if (save->phase == 0) {
        iq_put_u32(head, IQ_INDEX_TAG_CUSTOM);
        memcpy(head + IQ_CUSTOM_NAME_AT, custom->ops->name, strlen(custom->ops->name));
        (void)iq_snapshot_write(save->writer, head, sizeof head);
        save->written = sizeof head;
        save->phase = 1;
    }
    const bool fine = iq_custom_slice(custom, save, true, &done);
    *out_done = done || !fine;
    if (!*out_done) return iq_snapshot_write(save->writer, NULL, 0);
    const uint64_t rest = save->size - 4 - save->written;
    for (uint64_t left = rest; left > 0;) {
        const size_t size = left < IQ_CUSTOM_HEAD ? (size_t)left : (size_t)IQ_CUSTOM_HEAD;
        (void)iq_snapshot_write(save->writer, NULL, size);
        left -= size;
    }
    iq_put_u32(mark, fine && rest == 0);
    return iq_snapshot_write(save->writer, mark, sizeof mark);
}

IQ_FN iqdb_result iq_custom_name(const iq_index_load *load, char out[IQDB_CODEC_NAME_SIZE_MAX + 1]) {
    out[IQDB_CODEC_NAME_SIZE_MAX] = 0;
    return iq_index_read(load, IQ_CUSTOM_NAME_AT, out, IQDB_CODEC_NAME_SIZE_MAX);
}

static iqdb_result iq_custom_load(iq_index *base, const iq_index_load *load) {
    iq_custom *custom = (iq_custom *)(void *)base;
    uint8_t mark[4];
    iq_custom_io io;
    if (custom->ops->load_fn == NULL) return IQDB_ERR_NOT_FOUND;
    if (load->size < IQ_CUSTOM_HEAD + sizeof mark) return iq_index_reject(load, 0, "the index is too short");
    iqdb_result result = iq_index_read(load, load->size - sizeof mark, mark, sizeof mark);
    if (result != IQDB_OK) return result;
    if (iq_get_u32(mark) != 1) return IQDB_ERR_NOT_FOUND;
    memset(&io, 0, sizeof io);
    io.custom = custom;
    io.load = load;
    io.face.size = iq_custom_stored(load);
    io.face.row_count = load->row_count;
    result = custom->ops->load_fn(custom->index, &io.face, custom->ops->user);
    if (io.result != IQDB_OK) result = io.result;
    if (result != IQDB_OK) iq_rows_forget_indexed(base->rows);
    if (result == IQDB_OK || result == IQDB_ERR_NOT_FOUND || result == IQDB_ERR_NOMEM || io.result != IQDB_OK)
        return result;
    return iq_index_reject(load, IQ_CUSTOM_HEAD, "options.index_ops.load_fn refuses what is stored");
}

static const iq_index_ops iq_custom_ops = {IQDB_INDEX_CUSTOM,  iq_custom_free,         iq_custom_work,
                                           iq_custom_remove,   iq_custom_search_bytes, iq_custom_search_for,
                                           iq_custom_describe, iq_custom_check,        NULL,
                                           iq_custom_measure,  iq_custom_save,         iq_custom_load};

IQ_FN iq_index *iq_custom_make(const iq_index *base, const iqdb_index_ops *ops) {
    if (ops->open_fn == NULL) return NULL;
    iq_custom *custom = (iq_custom *)iq_alloc_zeroed(base->allocator, sizeof *custom, IQ_CACHE_LINE);
    if (custom == NULL) return NULL;
    custom->base = *base;
    custom->base.ops = &iq_custom_ops;
    custom->ops = ops;
    custom->host.dim = base->rows->dim;
    custom->host.element = base->rows->element;
    custom->host.metric = base->metric;
    custom->host.seed = base->knobs.seed;
    if (ops->open_fn(&custom->host, &custom->index, ops->user) == IQDB_OK) return &custom->base;
    iq_index_free_garbage(&custom->base);
    iq_free(base->allocator, custom, sizeof *custom, IQ_CACHE_LINE);
    return NULL;
}

#else

/* Nobody gets here: the kind is refused. */
IQ_FN iqdb_result iq_custom_name(const iq_index_load *load, char out[IQDB_CODEC_NAME_SIZE_MAX + 1]) {
    (void)load, (void)out;
    return IQDB_ERR_NOT_IMPLEMENTED;
}
IQ_FN iq_index *iq_custom_make(const iq_index *base, const iqdb_index_ops *ops) {
    (void)base, (void)ops;
    return NULL;
}

#endif

IQ_FN const char *iq_custom_complaint(const iqdb_index_ops *ops) {
    if (ops == NULL) return NULL;
    if (IQ_SMALL) return "this build has no indexes";
    if (ops->name == NULL || ops->name[0] == 0 || memchr(ops->name, 0, IQDB_CODEC_NAME_SIZE_MAX + 1) == NULL)
        return "options.index_ops.name is NULL, empty, or too long";
    if (ops->open_fn == NULL || ops->close_fn == NULL || ops->insert_fn == NULL || ops->remove_fn == NULL ||
        ops->search_fn == NULL || (ops->save_fn == NULL) != (ops->load_fn == NULL))
        return "options.index_ops has a function missing";
    return NULL;
}
