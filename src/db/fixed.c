/* A database in one block of the caller's: what it needs, and how the block is divided.
 *
 *   iq_fixed | work: handle, lists of a batch, scratch | two tables of ids | records: payloads -> <- slabs
 *
 * 1. How many records were stated is not known to iqdb_open_in, so rows and payloads share their area: a row counts what
 *    it takes, a payload twice its bytes (records.h), and all else is for as many rows as that makes. The figure is the
 *    size of the layout for these rows, and a block has the largest layout that fits into it: one formula, exact.
 * 2. Live records never count more than their share, so one more row and any one payload of theirs fit beside them.
 * 3. What is not records is there from the beginning, but for a payload or a backup in the making: no search can take the
 *    place of a record, nor the other way round.
 * 4. Slabs are equal, and each at most a sixteenth of all rows, because one is set aside: the last one may not fill. */
#include "db/db.h"

#if IQ_HAS_WRITES

enum {
#if defined(IQDB_NO_THREADS)
    IQ_FIXED_SEARCHES = 1,
#else
    IQ_FIXED_SEARCHES = 4,
#endif
    IQ_FIXED_ROOM = 4096, /* bytes of a search for its filter, and of a cursor for its hits */
    IQ_FIXED_SLABS = 33,  /* 16 to 32 make the whole, and fewer than 32 rows are one each */
    IQ_FIXED_SPARE = 1024 /* bytes for what is encoded, when hardly anything is set aside */
};

/* Sizes are in bytes, and multiples of IQ_CACHE_LINE. */
typedef struct iq_fixed_layout {
    uint64_t row_max; /* rows */
    uint64_t scratch, work, ids, records;
    uint32_t slab_shift;
} iq_fixed_layout;

typedef struct iq_fixed {
    iq_fixed_layout layout;
    iq_arena work, ids, records;
} iq_fixed;

static uint64_t iq_fixed_up(uint64_t size) { return (size + IQ_CACHE_LINE - 1) / IQ_CACHE_LINE * IQ_CACHE_LINE; }

static uint64_t iq_fixed_at_least(uint64_t least, uint64_t size) { return iq_fixed_up(size < least ? least : size); }

static uint64_t iq_fixed_table(uint64_t size) { return IQ_CACHE_LINE + iq_fixed_up(size); }

/* The layout for so many rows and the one that comes before that which it replaces goes. Returns its size, which grows
 * with them; 63 bytes are for an address that is no multiple of 64, and set aside for any, so that the figure is one. */
static uint64_t iq_fixed_lay_out(size_t stride, uint64_t rows, iq_fixed_layout *out) {
    const uint64_t row_max = out->row_max = rows + 1;
    uint64_t ring = IQ_RETIRED_ROWS_MIN;
    while (ring < row_max) ring *= 2;
    out->slab_shift = row_max < 32 ? 0 : iq_log2_u32((uint32_t)row_max) - 4;
    out->scratch = iq_fixed_up(iq_search_bytes(stride, true, 1, 1, 0) + IQ_FIXED_ROOM);
    out->work = iq_fixed_up(sizeof(iq_home)) + iq_fixed_at_least(IQ_BLOB_BYTES_MIN, row_max * sizeof(uint32_t)) +
                iq_fixed_up(ring * sizeof(uint32_t)) + IQ_FIXED_SEARCHES * out->scratch;
    out->ids = 2 * (IQ_CACHE_LINE + iq_fixed_table((uint64_t)iq_ids_capacity((size_t)row_max) * sizeof(uint64_t)));
    out->records = iq_fixed_up(row_max * iq_record_bytes(stride, 0)) + (iq_record_bytes(stride, 0) << out->slab_shift) +
                   iq_fixed_table(IQ_FIXED_SLABS * sizeof(iq_slab)) + IQ_FIXED_SPARE;
    /* With the table of its pages, which are of 65,536. */
    out->records =
        iq_fixed_up(out->records) + iq_fixed_table((out->records / 65000 + IQ_TABLE_ITEMS_MIN) * sizeof(uint8_t *));
    return IQ_CACHE_LINE - 1 + iq_fixed_up(sizeof(iq_fixed)) + out->work + out->ids + out->records;
}

IQDB_API size_t iqdb_memory_required(const iqdb_options *options, size_t records, size_t payload_bytes) {
    iq_fixed_layout layout;
    if (options == NULL || options->dim == 0 || iq_options_schema_complaint(options) != NULL ||
        payload_bytes > (size_t)-1 / 4)
        return 0;
    const size_t stride = iq_element_stride(iq_options_element(options), options->dim);
    const uint64_t one = iq_record_bytes(stride, 0), more = ((uint64_t)payload_bytes * 2 + one - 1) / one;
    if (records > IQ_ROW_COUNT_MAX - 2 || more > IQ_ROW_COUNT_MAX - 2 - records) return 0;
    const uint64_t size = iq_fixed_lay_out(stride, records + more, &layout);
    return size > (size_t)-1 / 2 ? 0 : (size_t)size;
}

/* Everything that is there from the beginning; it all fits, and so the work area is full. */
static iqdb_result iq_fixed_settle(iqdb *db, const iqdb_options *options, const void *source) {
    iq_fixed *fixed = *(iq_fixed *const *)source;
    const size_t row_max = (size_t)fixed->layout.row_max;
    iq_records *records = &db->records;
    iq_rows *rows = &records->rows;
    bool whole = true;
    (void)options;
    records->ids.allocator = &fixed->ids.front;
    records->heap.allocator = rows->allocator = &fixed->records.back;
    db->home->encoded.allocator = &fixed->records.front;
    db->home->config.volume.allocator = fixed->records.front;
    rows->row_max = (uint32_t)row_max;
    rows->slab_shift = rows->first_shift = fixed->layout.slab_shift;
    rows->slabs = (iq_slab *)iq_table_reserve(rows->allocator, NULL, sizeof(iq_slab), 0, IQ_FIXED_SLABS);
    const int64_t charge_max = (int64_t)(iq_record_bytes(rows->stride, 0) * (row_max - 1));
    if (charge_max < db->home->common.charge_max) db->home->common.charge_max = charge_max;
    for (int i = 0; i < IQ_FIXED_SEARCHES && whole; i++) {
        iq_scratch *scratch = iq_scratch_make(&db->home->allocator, (size_t)fixed->layout.scratch);
        whole = scratch != NULL && iq_epoch_leave_scratch(&db->home->common.epoch, NULL, scratch);
    }
    records->heap.arena = &fixed->records;
    if (!whole || rows->slabs == NULL || iq_blob_reserve(&db->home->staging, row_max * sizeof(uint32_t)) != IQDB_OK ||
        iq_records_reserve(records, row_max) != IQDB_OK)
        return IQDB_ERR_NOMEM;
    return iq_heap_borrow(&records->heap, fixed->records.begin, (size_t)(fixed->records.limit - fixed->records.begin));
}

IQDB_API iqdb_result iqdb_open_in(void *memory, size_t size, const iqdb_options *options, iqdb **out_db) {
    iq_fixed_layout layout;
    uint64_t rows = 0;
    if (out_db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    *out_db = NULL;
    if (memory == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (options == NULL) return IQDB_ERR_INVALID_CONFIG;
    const iq_reporter reporter = {options->error, options->logger, NULL};
    const char *complaint =
        options->dim == 0 ? "options.dim is needed to divide a block" : iq_options_schema_complaint(options);
    if (complaint != NULL) return iq_report(&reporter, IQDB_ERR_INVALID_CONFIG, NULL, 0, complaint);
    if (options->index_key_count > 0)
        return iq_report(&reporter, IQDB_ERR_INVALID_CONFIG, NULL, 0, "a block has no room for options.index_keys");
    const size_t stride = iq_element_stride(iq_options_element(options), options->dim);
    for (uint64_t step = (uint64_t)1 << 31; step > 0; step /= 2)
        if (rows + step <= IQ_ROW_COUNT_MAX - 2 && iq_fixed_lay_out(stride, rows + step, &layout) <= size) rows += step;
    if (iq_fixed_lay_out(stride, rows, &layout) > size)
        return iq_report(&reporter, IQDB_ERR_NOMEM, NULL, 0, "the block has no room for a handle");
    uint8_t *at = (uint8_t *)memory + (size_t)(-(uintptr_t)memory & (IQ_CACHE_LINE - 1)),
            *end = (uint8_t *)memory + size;
    iq_fixed *fixed = (iq_fixed *)(void *)at;
    fixed->layout = layout;
    at = iq_arena_init(&fixed->work, at + iq_fixed_up(sizeof(iq_fixed)), (size_t)layout.work);
    at = iq_arena_init(&fixed->ids, at, (size_t)layout.ids);
    (void)iq_arena_init(&fixed->records, at, (size_t)(end - at) / IQ_CACHE_LINE * IQ_CACHE_LINE);
    iqdb_options own = *options;
    own.allocator = fixed->work.back;
    own.no_codes = true;
    return iq_db_open(&own, iq_fixed_settle, &fixed, out_db);
}

#endif
