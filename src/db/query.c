/* Search: checks, the query vector in aligned memory, the index, and the hits with their payloads; at once or in slices.
 *
 * 1. The caller's hits array is the heap of the top-k; no memory grows with k.
 * 2. Checks come in the order of the manual's table, all of them before the first hit is written.
 * 3. A call pins one moment throughout, so all queries of a batch see one state.
 * 4. Scratch is left for the next search: once as many have run at once, none allocates. Only to have more a search takes
 *    the lock, for allocators are called by one thread at a time.
 * 5. A cursor is a search that lies in its own scratch, hits included: every search can stop behind a block of rows and
 *    go on, and one without a budget never does. */
#include "db/db.h"

enum {
    IQ_SCRATCH_VECTOR_BYTES = 128 * 1024, /* what a search holds for a batch; only a vector alone may take more */
    IQ_SCRATCH_HIT_BYTES = 1024 * 1024,   /* and for the hits of other tasks */
    IQ_SCRATCH_CODES_BYTES = 8 * 1024 * 1024,
    IQ_TASK_BYTES = 256 * 1024, /* vectors that make a task worth its start */
    IQ_TASK_COUNT_MAX = 64,
    IQ_SCARCE_ROWS = 8,        /* one row in so many is sooner looked at than a scan goes by the others, */
    IQ_SCARCE_CODED = 32,      /* or their codes */
    IQ_LISTED_ROWS = 2,        /* one row in so many is sooner listed than asked; */
    IQ_LISTED_CODED = 16,      /* with codes, of which a scan asks few; */
    IQ_LISTED_ROOTS = 64,      /* and in lists so many times the root of the rows */
    IQ_IDS_AHEAD = 8,          /* ids, until the place of one is there */
    IQ_FRESH_ASKED = 8,        /* listed rows, of which each costs an eighth of what a fresh one does that is asked */
    IQ_INDEX_FRESH_FEW = 4096, /* rows that are sooner looked at than scanned by codes */
    IQ_CURSOR_SETTLED = 64     /* hits put in order between two looks at the clock */
};

/* One running call. */
typedef struct iq_search {
    const iqdb *db;
    const iqdb_query *query;
    iq_pin pin;
    iq_scratch *scratch;
    iq_limit limit;          /* asked where the query has a cancel or a deadline, and by cursors */
    uint64_t deadline;       /* on the limit's clock */
    bool is_cursor;          /* which is at the beginning of the scratch */
    size_t group;            /* vectors that share a pass over the rows */
    size_t k;                /* hits wanted, and there at most */
    iq_filter_layout layout; /* of the query's filter; all 0 where there is none */
    iq_filter filter;        /* compiled into the scratch */
    iqdb_hit after;          /* of the query */
    iq_flat_query flat;      /* of a pass; all passes have the same rows, and as many tasks */
    iq_filter_key grouping;  /* query->group_by, copied into the scratch */
    const iq_codes *codes;   /* NULL: they cannot help */
    const iq_index *index;   /* NULL: all rows are scanned */
    size_t index_bytes;
    uint32_t allowed;  /* rows that may be hits, about: at most so many are in flat.allow, or accepted by the filter */
    size_t more;       /* where its memory begins in the scratch, and then that of what is allowed */
    uint64_t compared; /* by all passes; and */
    bool lost;         /* whether one could not look at some rows */
    iqdb_plan plan;
} iq_search;

struct iqdb_cursor {
    iq_search search; /* that of `query` */
    iqdb_query query;
    size_t found;     /* hits, once all is searched */
    size_t unsettled; /* of these, so many are still a heap */
    size_t given;
    bool searched;
};

#define IQ_CURSOR_BYTES ((sizeof(iqdb_cursor) + IQ_CACHE_LINE - 1) / IQ_CACHE_LINE * IQ_CACHE_LINE)

/* What small builds have none of. */
static const iq_index *iq_search_index(const iq_search *search) { return IQ_SMALL ? NULL : search->index; }
static const iq_codes *iq_search_codes(const iq_search *search) { return IQ_SMALL ? NULL : search->codes; }

static size_t iq_search_group(const iq_search *search) { return IQ_FLAT_COUNT_MAX == 1 ? 1 : search->group; }

static bool iq_search_is_limited(const iq_search *search) {
    return search->is_cursor || search->query->deadline_us != 0 || search->query->cancel != NULL;
}

/* Whether some rows could not be looked at, now or in an earlier pass; of what is in memory all can. */
static bool iq_search_has_lost(const iq_search *search) {
    return !IQ_SMALL && (search->lost || search->flat.probes->lost);
}

static iqdb_metric iq_search_metric(const iq_search *search) {
    return search->query->metric == IQDB_METRIC_DEFAULT ? search->db->metric : search->query->metric;
}

static size_t iq_search_codes_bytes(const iq_search *search) {
    if (IQ_SMALL || search->codes == NULL) return 0;
    return iq_flat_codes_bytes(&search->db->records.rows, search->group, search->flat.task_count,
                               iq_search_is_limited(search));
}

/* Whether codes could help to scan all rows. */
static bool iq_search_may_use_codes(const iq_search *search) {
    return !IQ_SMALL && search->query->group_by == NULL &&
           iq_flat_can_use_codes(&search->db->records.rows, search->flat.row_count, iq_search_metric(search),
                                 iq_search_is_limited(search));
}

/* Whether these are few enough to look at each. Lists judge that themselves, by what they would read instead. */
static bool iq_search_is_scarce(const iq_search *search, const iq_index *index, size_t allowed) {
    const uint32_t part = index == NULL && iq_search_may_use_codes(search) ? IQ_SCARCE_CODED : IQ_SCARCE_ROWS;
    return allowed < search->flat.row_count / part && (index == NULL || index->ops->kind != IQDB_INDEX_IVF);
}

/* An index, where one may answer: not of few ids, whose rows are sooner looked at, nor in slices, nor for groups. */
static void iq_search_choose_index(iq_search *search) {
    const iqdb *db = search->db;
    const iq_index *index = IQ_ATOMIC_LOAD(&db->index);
    if (IQ_SMALL || index == NULL || (search->query->flags & IQDB_EXACT) != 0 || search->is_cursor ||
        search->query->group_by != NULL || iq_search_metric(search) != index->metric ||
        (search->query->ids != NULL && iq_search_is_scarce(search, index, search->query->id_count)))
        return;
    search->index_bytes = index->ops->search_bytes_fn(index, search->k);
    if (search->index_bytes != 0) search->index = index;
}

static void iq_search_plan(iq_search *search, size_t vector_count) {
    const iqdb *db = search->db;
    const size_t row_bytes = db->records.rows.stride * sizeof(float), most = IQ_SCRATCH_VECTOR_BYTES / row_bytes;
    search->flat.row_count = IQ_ATOMIC_LOAD(&db->records.rows.count);
    search->k = search->query->k < search->pin.count ? search->query->k : (size_t)search->pin.count;
    search->group = vector_count < IQ_FLAT_COUNT_MAX ? vector_count : IQ_FLAT_COUNT_MAX;
    if (search->group > most) search->group = most > 0 ? most : 1;
    search->flat.task_count = 1;
    iq_search_choose_index(search);
    if (iq_search_may_use_codes(search) &&
        (search->query->ids == NULL || !iq_search_is_scarce(search, NULL, search->query->id_count)) &&
        (iq_search_index(search) == NULL || IQ_ATOMIC_LOAD(&db->records.rows.fresh) >= IQ_INDEX_FRESH_FEW))
        search->codes = db->home->codes;
    /* A predicate is asked in the caller's thread, and a slice is too little to share. */
    if (!IQ_HAS_THREADS || db->home->parallel_for.run_fn == NULL || search->query->predicate != NULL ||
        search->is_cursor || iq_search_index(search) != NULL)
        return;
    const uint64_t worth = (uint64_t)search->flat.row_count * row_bytes * search->group / IQ_TASK_BYTES;
    const size_t room = IQ_SCRATCH_HIT_BYTES / sizeof(iqdb_hit) / search->group / search->k;
    size_t tasks = db->home->parallel_for.worker_count;
    if (tasks > IQ_TASK_COUNT_MAX) tasks = IQ_TASK_COUNT_MAX;
    if (tasks > worth) tasks = (size_t)worth;
    if (tasks > room + 1) tasks = room + 1;
    if (tasks > 1) search->flat.task_count = tasks;
    /* Each task has a list for each vector. */
    while (search->codes != NULL && search->group > 1 && iq_search_codes_bytes(search) > IQ_SCRATCH_CODES_BYTES)
        search->group /= 2;
}

/* ---- Scratch ---- */

/* Gives scratch (NULL: none) back, or gets so much in its place; 0 is none. It stays where there is no memory. */
static iqdb_result iq_scratch_change(const iqdb *db, iq_scratch **scratch, size_t size_bytes) {
    const bool entered = iq_db_lock(iq_db_of(db)); /* a cursor may be closed by who has it */
    iq_scratch *made = size_bytes == 0 ? NULL : iq_scratch_make(&db->home->allocator, size_bytes);
    const bool changes = made != NULL || size_bytes == 0;
    if (changes) {
        iq_scratch_free(&db->home->allocator, *scratch);
        *scratch = made;
    }
    if (entered) iq_db_leave(iq_db_of(db));
    return changes ? IQDB_OK : IQDB_ERR_NOMEM;
}

IQ_FN iqdb_result iq_scratch_take(const iqdb *db, iq_slot *own, size_t size_bytes, iq_scratch **scratch) {
    if (*scratch == NULL) *scratch = iq_epoch_take_scratch(&db->home->common.epoch, own, size_bytes);
    if (*scratch != NULL && (*scratch)->size_bytes >= size_bytes) return IQDB_OK;
    return iq_scratch_change(db, scratch, size_bytes);
}

IQ_FN void iq_scratch_leave(const iqdb *db, iq_slot *own, iq_scratch *scratch) {
    if (scratch != NULL && !iq_epoch_leave_scratch(&db->home->common.epoch, own, scratch))
        (void)iq_scratch_change(db, &scratch, 0);
}

/* ---- A search ---- */

/* Scratch with room for `size` bytes, a multiple of 16, and behind them the program of the query's filter and the key of
 * its groups. */
static iqdb_result iq_search_take_room(iq_search *search, size_t size) {
    const iqdb_query *query = search->query;
    const size_t end = size + search->layout.size_bytes,
                 key_size = IQ_SMALL || query->group_by == NULL ? 0 : strlen(query->group_by);
    const iqdb_result result = iq_scratch_take(search->db, search->pin.slot, end + key_size + 1, &search->scratch);
    if (result != IQDB_OK) return result;
    uint8_t *memory = (uint8_t *)search->scratch;
    if (query->filter != NULL) iq_filter_compile(query->filter, &search->layout, memory + size, &search->filter);
    if (IQ_SMALL || query->group_by == NULL) return IQDB_OK;
    memcpy(memory + end, query->group_by, key_size + 1);
    search->grouping = iq_filter_key_make((const char *)(memory + end), key_size);
    return IQDB_OK;
}

/* For a bit a row, where indexes of keys may tell what the filter accepts. */
static size_t iq_search_bits_bytes(const iq_search *search, uint32_t row_count) {
    if (search->query->filter == NULL || !iq_records_have_keys(&search->db->records)) return 0;
    return iq_round_up(iq_choice_bytes(row_count), IQ_CACHE_LINE);
}

/* They are fewer than records, so no size is beyond what memory can hold. */
IQ_FN size_t iq_search_bytes(size_t stride, bool is_cursor, size_t vectors, size_t probes, size_t hits) {
    return iq_round_up(IQ_CACHE_LINE + (is_cursor ? IQ_CURSOR_BYTES : 0) + vectors * stride * sizeof(float) +
                           probes * sizeof(iq_flat_probe) + hits * sizeof(iqdb_hit),
                       16);
}

/* Of the bits of the rows that query->ids, or what indexes tell of the filter, allow. */
static size_t iq_search_allow_bits_bytes(const iq_search *search) {
    if (search->query->ids == NULL) return iq_search_bits_bytes(search, search->flat.row_count);
    return iq_round_up(iq_choice_bytes(search->flat.row_count), IQ_CACHE_LINE);
}

/* Lists ask rows where these are few: behind the bits there is room for so many as take no more. */
static uint32_t iq_search_few_most(const iq_search *search) {
    const bool asks = !IQ_SMALL && search->index != NULL && search->index->ops->kind == IQDB_INDEX_IVF;
    return asks ? search->flat.row_count / 32 : 0;
}

static size_t iq_search_allow_bytes(const iq_search *search) {
    const size_t bits = iq_search_allow_bits_bytes(search);
    return iq_search_few_most(search) > 0 ? 2 * bits : bits;
}

/* Scratch for the plan: what iq_search_bytes tells, then that of codes, and those bits. */
static iqdb_result iq_search_find_room(iq_search *search) {
    search->plan = iq_search_codes(search) != NULL ? IQDB_PLAN_CODES : IQDB_PLAN_SCAN;
    const iq_rows *rows = &search->db->records.rows;
    const size_t heaps = search->is_cursor ? 1 : iq_search_group(search) * (search->flat.task_count - 1);
    size_t size = iq_search_bytes(rows->stride, search->is_cursor, iq_search_group(search),
                                  iq_search_group(search) * search->flat.task_count, heaps * search->k);
    if (iq_search_index(search) != NULL)
        search->plan = search->index->ops->kind == IQDB_INDEX_HNSW  ? IQDB_PLAN_GRAPH
                       : search->index->ops->kind == IQDB_INDEX_IVF ? IQDB_PLAN_LISTS
                                                                    : IQDB_PLAN_CUSTOM;
    if (iq_search_codes(search) != NULL || iq_search_allow_bytes(search) > 0 || iq_search_index(search) != NULL)
        size = iq_round_up(size, IQ_CACHE_LINE);
    search->more = size;
    size += iq_search_codes_bytes(search) + iq_search_allow_bytes(search);
    return iq_search_take_room(search, size + search->index_bytes);
}

static void iq_search_end(iq_search *search) {
    iq_scratch_leave(search->db, search->pin.slot, search->scratch);
    iq_db_leave_read(search->db, search->pin);
}

static bool iq_search_accept(const iq_slab *slab, uint32_t index, void *user) {
    const iq_search *search = (const iq_search *)user;
    const iqdb_record record = iq_db_record_at(search->db, slab, index);
    if (search->query->filter != NULL && !iq_filter_accepts(&search->filter, record.payload)) return false;
    return search->query->predicate == NULL || search->query->predicate(&record, search->query->user);
}

/* The value of a row that a search is grouped by; false where there is none. */
static bool iq_search_group_of(iq_search *search, uint32_t row, const uint8_t **out_value, size_t *out_size) {
    iq_container fields;
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&search->db->records.rows, row, &index);
    const iqdb_payload payload = iq_heap_payload(&search->db->records.heap, iq_row_payload(slab, index));
    (void)iq_container_open(payload.bytes, payload.size, true, &fields);
    return iq_filter_find(&search->grouping, &fields, out_value, out_size);
}

/* Takes a record into its group, or in as the first one of it. Hits are marked with hashes of their groups' values. The
 * worst of those that are kept is never better than before, so no group comes to its end too early. */
static void iq_search_push_group(iq_topk *topk, float score, uint64_t id, uint32_t row, void *user) {
    iq_search *search = (iq_search *)user;
    const uint8_t *value, *other;
    size_t size, other_size, place = 0;
    uint64_t hash;
    iqdb_hit hit;
    if (!iq_search_group_of(search, row, &value, &size) || !iq_keys_hash(value, size, &hash)) return;
    memset(&hit, 0, sizeof hit);
    hit.id = id;
    hit.score = score;
    hit.payload.bytes = (const void *)(uintptr_t)hash;
    hit.payload.size = row;
    for (; place < topk->count; place++) {
        const iqdb_hit *there = &topk->hits[place];
        if (there->payload.bytes != hit.payload.bytes) continue;
        if (iq_search_group_of(search, (uint32_t)there->payload.size, &other, &other_size) &&
            iq_filter_is_equal(value, size, other, other_size))
            break;
    }
    if (place == topk->count || iq_ranks_before(score, id, topk->hits[place].score, topk->hits[place].id))
        iq_topk_put(topk, hit, place);
}

/* What can be said without a look at the database, but for the filter. */
static iqdb_result iq_query_check_arguments(const iqdb_query *query, const void *vectors, size_t vector_count,
                                            const iqdb_hit *hits) {
    if (query->metric < IQDB_METRIC_DEFAULT || query->metric > IQDB_HAMMING) return IQDB_ERR_INVALID_ARGUMENT;
    if ((query->flags & ~(IQDB_EXACT | IQDB_WITH_PAYLOAD | IQDB_WITH_VECTOR | IQDB_MAX_DISTANCE | IQDB_AFTER)) != 0)
        return IQDB_ERR_INVALID_ARGUMENT;
    if ((query->flags & IQDB_MAX_DISTANCE) != 0 && iq_f32_is_nan(query->max_distance)) return IQDB_ERR_INVALID_ARGUMENT;
    if ((query->flags & IQDB_AFTER) != 0 && iq_f32_is_nan(query->after.score)) return IQDB_ERR_INVALID_ARGUMENT;
    if ((query->flags & (IQDB_WITH_PAYLOAD | IQDB_WITH_VECTOR)) != 0 && query->buffer == NULL)
        return IQDB_ERR_INVALID_ARGUMENT;
    if (query->ids == NULL && query->id_count > 0) return IQDB_ERR_INVALID_ARGUMENT;
    if (IQ_SMALL && query->group_by != NULL) return IQDB_ERR_NOT_IMPLEMENTED;
    if (vector_count == 0) return IQDB_OK;
    if (vectors == NULL || (hits == NULL && query->k > 0)) return IQDB_ERR_INVALID_ARGUMENT;
    /* k has no limit of its own: with one vector there is no product, and no more hits than records. */
    size_t room;
    if (vector_count > 1 && (!iq_mul(vector_count, query->k, &room) || !iq_mul(room, sizeof(iqdb_hit), &room)))
        return IQDB_ERR_INVALID_ARGUMENT;
    return IQDB_OK;
}

/* The same with the filter, whose program is measured here and compiled once there is memory. Then it pins the present,
 * and the time of a deadline runs. Every OK needs an end. */
static iqdb_result iq_search_begin(iq_search *search, const iqdb *db, const iqdb_query *query, const void *vectors,
                                   size_t vector_count, const iqdb_hit *hits) {
    const iqdb_result result = iq_query_check_arguments(query, vectors, vector_count, hits);
    memset(search, 0, sizeof *search);
    if (result != IQDB_OK) return result;
    if (query->metric != IQDB_METRIC_DEFAULT && !iq_element_answers((uint32_t)db->element, query->metric))
        return IQDB_ERR_INVALID_ARGUMENT;
    if (query->filter != NULL && iq_filter_measure(query->filter, &search->layout) != NULL)
        return IQDB_ERR_INVALID_FILTER;
    search->db = db;
    search->query = query;
    search->limit = iq_limit_make(db->home->clock, query->cancel);
    if (query->deadline_us != 0) iq_limit_end_in(&search->limit, query->deadline_us);
    search->deadline = search->limit.end;
    return iq_db_enter_read(db, &search->pin);
}

/* The vectors themselves, and whether there is anything to search: *out_empty ends the call with no hits. */
static iqdb_result iq_search_check_vectors(const iq_search *search, const void *vectors, size_t vector_count,
                                           bool *out_empty) {
    const iqdb *db = search->db;
    const iqdb_query *query = search->query;
    const size_t own_dim = IQ_ATOMIC_LOAD(&db->records.dim), dim = query->dim != 0 ? query->dim : own_dim;
    size_t size;
    *out_empty = true;
    if (query->k == 0 || vector_count == 0) return IQDB_OK;
    if (dim > IQDB_DIM_MAX) return IQDB_ERR_INVALID_VECTOR;
    const size_t vector_size = iq_db_vector_bytes(db, dim);
    if (!iq_mul(vector_count, vector_size, &size)) return IQDB_ERR_INVALID_ARGUMENT;
    if (iq_buffer_overlaps(query->buffer, vectors, size)) return IQDB_ERR_INVALID_ARGUMENT;
    if (!IQ_SMALL && query->group_by != NULL &&
        iq_buffer_overlaps(query->buffer, query->group_by, strlen(query->group_by) + 1))
        return IQDB_ERR_INVALID_ARGUMENT;
    if (!iq_mul(query->id_count, sizeof(uint64_t), &size) || iq_buffer_overlaps(query->buffer, query->ids, size))
        return IQDB_ERR_INVALID_ARGUMENT;
    for (size_t i = 0; i < vector_count; i++)
        if (!iq_vector_is_sound(db->records.kernel, db->element, (const uint8_t *)vectors + i * vector_size, dim))
            return IQDB_ERR_INVALID_VECTOR;
    *out_empty = search->pin.count == 0;
    if (!*out_empty && dim != own_dim) return IQDB_ERR_DIMENSION_MISMATCH;
    return IQDB_OK;
}

/* What the index is asked for `count` vectors, at most the group; hits NULL: into the scratch. */
static void iq_search_prepare(iq_search *search, const uint8_t *vectors, size_t count, iqdb_hit *hits) {
    const iqdb *db = search->db;
    const iqdb_query *query = search->query;
    const size_t stride = db->records.rows.stride, size = iq_db_vector_bytes(db, db->records.rows.dim);
    uint8_t *memory = (uint8_t *)search->scratch + IQ_CACHE_LINE + (search->is_cursor ? IQ_CURSOR_BYTES : 0);
    float *padded = (float *)(void *)memory;
    iq_flat_query *flat = &search->flat;
    search->after = query->after;
    if (iq_f32_bits(search->after.score) == 0x80000000u) search->after.score = 0.0f; /* no score is -0 */
    flat->rows = &db->records.rows;
    flat->visited = 0;
    flat->limit = iq_search_is_limited(search) ? &search->limit : NULL;
    flat->kernel = db->records.rows.sums;
    flat->metric = iq_search_metric(search);
    flat->codes = iq_search_codes(search);
    flat->fresh = iq_search_index(search) != NULL;
    flat->moment = search->pin.moment;
    flat->max_score = (query->flags & IQDB_MAX_DISTANCE) != 0 ? query->max_distance : iq_f32_from_bits(0x7F800000u);
    flat->after = (query->flags & IQDB_AFTER) != 0 ? &search->after : NULL;
    flat->vectors = padded;
    flat->probes = (iq_flat_probe *)(void *)(padded + iq_search_group(search) * stride);
    flat->count = count;
    flat->parallel = &db->home->parallel_for;
    flat->spare_hits = (iqdb_hit *)(void *)(flat->probes + iq_search_group(search) * flat->task_count);
    flat->accept_fn = query->predicate != NULL || (IQ_HAS_FILTERS && query->filter != NULL) ? iq_search_accept : NULL;
    flat->push_fn = !IQ_SMALL && query->group_by != NULL ? iq_search_push_group : NULL;
    flat->user = search;
    if (hits == NULL) hits = flat->spare_hits;
    for (size_t i = 0; i < (IQ_FLAT_COUNT_MAX == 1 ? 1 : count); i++) {
        memcpy(padded + i * stride, vectors + i * size, size);
        memset((uint8_t *)(void *)(padded + i * stride) + size, 0, stride * sizeof(float) - size);
        flat->probes[i].norm = iq_row_norm_of(flat->kernel, db->element, padded + i * stride, stride);
        flat->probes[i].compared = 0;
        flat->probes[i].lost = false;
        flat->probes[i].coded = NULL;
        iq_topk_start(&flat->probes[i].topk, hits + i * query->k, search->k);
    }
    if (!IQ_SMALL && flat->codes != NULL) iq_flat_start_codes(flat, (uint8_t *)search->scratch + search->more);
}

/* How many rows may be listed for a filter before it costs less to ask payloads. A search of lists asks about as many of
 * them as there are rows for each that is accepted: listed rows cost a nanosecond each, asked ones a hundred. */
static uint32_t iq_search_listed_most(const iq_search *search) {
    const uint32_t rows = search->flat.row_count;
    uint32_t root = 1;
    if (search->index == NULL) return rows / (search->codes != NULL ? IQ_LISTED_CODED : IQ_LISTED_ROWS);
    if (search->index->ops->kind != IQDB_INDEX_IVF) return rows / IQ_LISTED_ROWS;
    while ((uint64_t)root * root < rows) root *= 2;
    return root < rows / IQ_LISTED_ROOTS ? root * IQ_LISTED_ROOTS : rows;
}

static uint32_t *iq_search_bits(const iq_search *search) {
    return (uint32_t *)(void *)((uint8_t *)search->scratch + search->more + iq_search_codes_bytes(search));
}

/* The bits of the rows that indexes list for the filter, by the plan that was made of it. */
static void iq_search_list(iq_search *search) {
    iq_key_rows rows = {search->flat.row_count, iq_search_bits(search), NULL, 0, 0, false};
    memset(rows.bits, 0, iq_search_allow_bits_bytes(search));
    iq_keys_list(&search->db->records.keys, &search->filter, &rows);
    search->flat.allow = rows.bits;
}

/* The same rows one by one, so many at most; false where they are more. */
static bool iq_search_list_few(iq_search *search, uint32_t *few, uint32_t most) {
    iq_key_rows rows = {search->flat.row_count, NULL, few, 0, most, false};
    iq_keys_list(&search->db->records.keys, &search->filter, &rows);
    if (rows.lacks_room) return false;
    search->flat.few = few;
    search->flat.few_count = rows.count;
    return true;
}

/* The rows of query->ids, as bits or, where `few` is not NULL, one by one. */
static void iq_search_find_ids(iq_search *search, uint32_t *few) {
    const iqdb_query *query = search->query;
    const iq_records *records = &search->db->records;
    uint32_t *bits = iq_search_bits(search), count = 0;
    if (few == NULL) memset(bits, 0, iq_search_allow_bits_bytes(search));
    for (size_t i = 0; i < query->id_count; i++) {
        if (!IQ_SMALL && i + 2 * IQ_IDS_AHEAD < query->id_count)
            iq_ids_prefetch(&records->ids, query->ids[i + 2 * IQ_IDS_AHEAD]);
        if (!IQ_SMALL && i + IQ_IDS_AHEAD < query->id_count)
            iq_ids_prefetch_head(&records->ids, &records->rows, query->ids[i + IQ_IDS_AHEAD]);
        const iq_spot spot = iq_records_find(records, query->ids[i], search->pin.moment, false);
        if (!IQ_SMALL && spot.slab == NULL && spot.row == IQ_ROW_LOST) search->lost = true;
        if (spot.slab == NULL || spot.row >= search->flat.row_count) continue;
        if (few != NULL) few[count++] = spot.row;
        if (few == NULL) bits[spot.row / 32] |= UINT32_C(1) << spot.row % 32;
    }
    search->flat.few = few;
    search->flat.few_count = count;
    if (few == NULL) search->flat.allow = bits;
}

/* The rows of query->ids, or those that indexes list for the filter, behind all else but the index's memory. */
static void iq_search_allow(iq_search *search) {
    const iqdb_query *query = search->query;
    iq_flat_query *flat = &search->flat;
    const iq_records *records = &search->db->records;
    const uint32_t most = iq_search_few_most(search), fresh = IQ_ATOMIC_LOAD(&records->rows.fresh);
    search->allowed = flat->row_count;
    flat->few_bits = iq_search_bits(search);
    uint32_t *few = (uint32_t *)(void *)((uint8_t *)flat->few_bits + iq_search_allow_bits_bytes(search));
    if (!IQ_SMALL && query->ids == NULL && iq_search_allow_bytes(search) > 0) {
        const uint32_t count = flat->row_count, listed = iq_keys_plan(&records->keys, &search->filter, count);
        search->allowed = listed;
        if (listed < count && listed <= iq_search_listed_most(search) &&
            (listed > most || !iq_search_list_few(search, few, most)))
            iq_search_list(search);
        if (iq_search_is_scarce(search, search->index, listed)) {
            search->codes = NULL;
            search->index = NULL;
            search->plan = IQDB_PLAN_KEYS;
        }
    }
    if (query->ids != NULL) {
        search->allowed = (uint32_t)(query->id_count < flat->row_count ? query->id_count : flat->row_count);
        iq_search_find_ids(search, query->id_count <= most ? few : NULL);
    }
    /* Rows in no index are scanned by bits; a few are sooner asked whether they are accepted, of which ids know nothing. */
    if (!IQ_SMALL && flat->few != NULL && fresh > (query->ids != NULL ? 0 : flat->few_count / IQ_FRESH_ASKED))
        iq_flat_allow_few(flat);
}

/* What the index finds for each vector, behind the fresh rows; false where it cannot answer. */
static bool iq_search_ask_index(iq_search *search, uint64_t *visited, bool *out_complete) {
    const iqdb_query *query = search->query;
    iq_index_query asked;
    memset(&asked, 0, sizeof asked);
    asked.flat = &search->flat;
    const bool is_graph = search->index->ops->kind == IQDB_INDEX_HNSW;
    asked.effort = is_graph ? query->ef : query->nprobe;
    if (asked.effort == 0) asked.effort = IQ_ATOMIC_LOAD(is_graph ? &search->db->ef : &search->db->nprobe);
    asked.recall = IQ_RECALL_WISH;
    asked.allowed = search->allowed;
    asked.accepted = query->predicate == NULL && query->ids == NULL && query->filter != NULL &&
                     search->flat.few != NULL && iq_keys_tell_all(&search->db->records.keys, &search->filter);
    asked.memory =
        (uint8_t *)search->scratch + search->more + iq_search_codes_bytes(search) + iq_search_allow_bytes(search);
    asked.size_bytes = search->index_bytes;
    for (; asked.which < search->flat.count; asked.which++)
        if (!search->index->ops->search_fn(search->index, &asked)) return false;
    *visited += asked.visited;
    *out_complete = !iq_limit_reached(search->flat.limit);
    return true;
}

/* The k best for each of `count` vectors, at most the group, sorted; the tag of each hit is its row. Whether all rows
 * were visited. */
static bool iq_search_pass(iq_search *search, const uint8_t *vectors, size_t count, iqdb_hit *hits, size_t *counts,
                           uint64_t *visited) {
    bool complete = true;
    iq_search_prepare(search, vectors, count, hits);
    if (iq_search_index(search) == NULL || IQ_ATOMIC_LOAD(&search->db->records.rows.fresh) > 0) {
        iq_flat_search(&search->flat);
        iq_flat_stop(&search->flat);
        complete = search->flat.visited == search->flat.row_count;
        *visited += search->flat.visited;
    }
    if (!IQ_SMALL && search->index != NULL && complete && !iq_search_ask_index(search, visited, &complete)) {
        search->lost = iq_search_has_lost(search);
        search->index = NULL; /* from here on, rows are scanned, */
        if (search->flat.few != NULL) iq_flat_allow_few(&search->flat);
        if (search->query->ids == NULL && search->flat.allow == NULL &&
            search->allowed < search->flat.row_count / IQ_LISTED_ROWS)
            iq_search_list(search); /* those that are listed at least */
        const bool has_keys = search->query->ids == NULL && search->flat.allow != NULL;
        search->plan = has_keys && iq_search_is_scarce(search, NULL, search->allowed) ? IQDB_PLAN_KEYS : IQDB_PLAN_SCAN;
        iq_search_prepare(search, vectors, count, hits);
        iq_flat_search(&search->flat);
        iq_flat_stop(&search->flat);
        complete = search->flat.visited == search->flat.row_count;
        *visited += search->flat.visited;
    }
    for (size_t i = 0; i < (IQ_FLAT_COUNT_MAX == 1 ? 1 : count); i++) {
        iq_topk_sort(&search->flat.probes[i].topk);
        counts[i] = search->flat.probes[i].topk.count;
    }
    search->compared += search->flat.probes->compared;
    search->lost = iq_search_has_lost(search);
    return complete;
}

/* What was done, told to who has asked; CANCELLED where that was asked for; CORRUPT where rows are damaged. */
static iqdb_result iq_search_tell(const iq_search *search, uint64_t visited, bool complete) {
    iqdb_search_info *info = search->query->info;
    if (info != NULL) {
        info->plan = search->plan;
        info->rows_visited = visited;
        info->rows_compared = search->compared;
        info->complete = complete;
        info->exact = complete && iq_search_index(search) == NULL;
    }
    if (iq_limit_is_cancelled(&search->limit)) return IQDB_ERR_CANCELLED;
    return !IQ_SMALL && search->lost ? IQDB_ERR_CORRUPT : IQDB_OK;
}

/* The payload in the row that is a hit's tag. */
static iqdb_payload iq_query_payload(const iqdb *db, const iqdb_hit *hit) {
    const iq_spot spot = iq_rows_spot(&db->records.rows, (uint32_t)hit->payload.size);
    return iq_heap_payload(&db->records.heap, iq_row_payload(spot.slab, spot.index));
}

/* The tag of a hit becomes its payload where it lies, or none; its vector is copied to *at. */
static void iq_query_name(const iqdb *db, const iqdb_query *query, iqdb_hit *hit, size_t vector_size, uint8_t **at) {
    const iq_spot spot = iq_rows_spot(&db->records.rows, (uint32_t)hit->payload.size);
    const bool has_payload = (query->flags & IQDB_WITH_PAYLOAD) != 0 && *at != NULL;
    hit->payload = iq_heap_payload(&db->records.heap, has_payload ? iq_row_payload(spot.slab, spot.index) : 0);
    hit->vector = NULL;
    hit->raw = NULL;
    if (vector_size == 0 || *at == NULL) return;
    hit->raw = memcpy(*at, spot.slab->vectors + spot.index * db->records.rows.stride, vector_size);
    if (db->element == IQDB_ELEMENT_F32) hit->vector = (const float *)hit->raw;
    *at += vector_size;
}

/* Turns the tags of all hits into what is wanted of their records, copied into the query's buffer, vectors first: never
 * pointers into the database. */
static iqdb_result iq_query_attach(const iqdb *db, const iqdb_query *query, iqdb_hit *hits, const size_t *counts,
                                   size_t vector_count) {
    const bool payloads = (query->flags & IQDB_WITH_PAYLOAD) != 0, vectors = (query->flags & IQDB_WITH_VECTOR) != 0;
    const size_t vector_size = vectors ? iq_db_vector_bytes(db, IQ_ATOMIC_LOAD(&db->records.dim)) : 0;
    iqdb_result result = IQDB_OK;
    size_t total = 0;
    uint8_t *at = NULL;
    /* They are measured, named, and their payloads copied. */
    for (unsigned step = 0; step < (at == NULL ? 2u : 3u); step++) {
        for (size_t q = 0; q < vector_count && (step > 0 || payloads || vectors); q++) {
            for (size_t i = 0; i < counts[q]; i++) {
                iqdb_hit *hit = &hits[q * query->k + i];
                if (step == 0) {
                    const size_t size = payloads ? iq_query_payload(db, hit).size : 0;
                    if (size > (size_t)-1 - vector_size || size + vector_size > (size_t)-1 - total)
                        return IQDB_ERR_NOMEM;
                    total += size + vector_size;
                } else if (step == 1) {
                    iq_query_name(db, query, hit, vector_size, &at);
                } else if (hit->payload.bytes != NULL) {
                    hit->payload.bytes = memcpy(at, hit->payload.bytes, hit->payload.size);
                    at += hit->payload.size;
                }
            }
        }
        if (step == 0 && (payloads || vectors)) result = iq_buffer_start(query->buffer, total, &at);
    }
    return result;
}

/* Under the pin, arguments checked. */
static iqdb_result iq_search_run(iq_search *search, const uint8_t *vectors, size_t vector_count, iqdb_hit *hits,
                                 size_t *counts) {
    bool empty, complete = true;
    uint64_t visited = 0;
    const iqdb_query *query = search->query;
    iqdb_result result = iq_search_check_vectors(search, vectors, vector_count, &empty);
    if (result != IQDB_OK) return result;
    if (empty) {
        (void)iq_search_tell(search, 0, true);
        for (size_t q = 0; q < vector_count; q++) counts[q] = 0;
        return iq_query_attach(search->db, query, hits, counts, vector_count);
    }
    iq_search_plan(search, vector_count);
    result = iq_search_find_room(search);
    while (!IQ_ONLY_BLOBS && result == IQDB_ERR_NOMEM &&
           (search->index != NULL || search->codes != NULL || search->flat.task_count > 1 || search->group > 1)) {
        search->index = NULL;
        search->index_bytes = 0;
        if (search->codes == NULL && search->flat.task_count == 1) search->group /= 2;
        if (search->codes == NULL) search->flat.task_count = 1;
        search->codes = NULL;
        result = iq_search_find_room(search);
    }
    if (result != IQDB_OK) return result;
    iq_search_allow(search);
    /* Each pass over the rows takes as many vectors as the others, for few cost nearly as much as many. */
    const size_t passes = (vector_count - 1) / iq_search_group(search) + 1;
    for (size_t q = 0; q < vector_count; q++) counts[q] = 0;
    for (size_t pass = 0, q = 0; pass < passes && complete; pass++) {
        const size_t count = IQ_FLAT_COUNT_MAX == 1 ? 1 : (vector_count - q - 1) / (passes - pass) + 1;
        complete = iq_search_pass(search, vectors + q * iq_db_vector_bytes(search->db, search->db->records.rows.dim),
                                  count, hits + q * query->k, counts + q, &visited);
        q += count;
    }
    result = iq_search_tell(search, visited, complete);
    if (result == IQDB_OK) result = iq_query_attach(search->db, query, hits, counts, vector_count);
    if (result != IQDB_OK)
        for (size_t q = 0; q < vector_count; q++) counts[q] = 0;
    return result;
}

IQ_DEFINE_DEFAULT(iqdb_query)

IQDB_API iqdb_result iqdb_search_batch(const iqdb *db, const iqdb_query *query, const void *vectors,
                                       size_t vector_count, iqdb_hit *hits, size_t *counts) {
    if (db == NULL || query == NULL || (counts == NULL && vector_count > 0)) return IQDB_ERR_INVALID_ARGUMENT;
    iq_search search;
    iqdb_result result = iq_search_begin(&search, db, query, vectors, vector_count, hits);
    if (result != IQDB_OK) return result;
    result = iq_search_run(&search, (const uint8_t *)vectors, vector_count, hits, counts);
    iq_search_end(&search);
    return result;
}

IQDB_API iqdb_result iqdb_search(const iqdb *db, const iqdb_query *query, iqdb_hit *hits, size_t *out_count) {
    if (db == NULL || query == NULL || out_count == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    return iqdb_search_batch(db, query, iq_db_vector_of(db, query->vector, query->raw), 1, hits, out_count);
}

#if !IQ_SMALL

/* For one vector: adds to the hits there are, and to those found that are as good. */
static iqdb_result iq_recall_add(const iqdb *db, iqdb_query *query, iqdb_hit *hits, size_t *all, size_t *found) {
    size_t count = 0;
    iqdb_query exact = *query;
    exact.flags |= IQDB_EXACT;
    exact.deadline_us = 0;
    iqdb_result result = iqdb_search(db, &exact, hits, &count);
    if (result != IQDB_OK || count == 0) return result;
    const float worst = hits[count - 1].score;
    *all += count;
    result = iqdb_search(db, query, hits, &count);
    for (size_t i = 0; i < count; i++) *found += hits[i].score <= worst;
    return result;
}

IQDB_API iqdb_result iqdb_measure_recall(const iqdb *db, const iqdb_query *query, const void *vectors,
                                         size_t vector_count, double *out_recall) {
    if (db == NULL || query == NULL || out_recall == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    const size_t len = iqdb_len(db), step = vector_count == 0 || len < vector_count ? 1 : len / vector_count;
    size_t all = 0, found = 0, size;
    iqdb_query own = *query;
    iq_scratch *scratch = NULL;
    own.flags &= ~(IQDB_WITH_PAYLOAD | IQDB_WITH_VECTOR);
    own.info = NULL;
    if (own.k > len) own.k = len;
    if (iq_db_is_inside(db)) return IQDB_ERR_BUSY;
    if (!iq_mul(own.k, sizeof(iqdb_hit), &size)) return IQDB_ERR_NOMEM;
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    iqdb_result result =
        iter.result == IQDB_OK ? iq_scratch_take(db, NULL, IQ_CACHE_LINE + size, &scratch) : iter.result;
    for (size_t i = 0; i < vector_count && result == IQDB_OK; i++) {
        for (size_t ahead = 0; vectors == NULL && ahead < (i == 0 ? 1 : step); ahead++)
            if (!iqdb_iter_next(&iter)) vector_count = i;
        if (i == vector_count) break;
        if (vectors == NULL) own.dim = iter.record.dim;
        const size_t dim = own.dim != 0 ? own.dim : IQ_ATOMIC_LOAD(&db->records.dim);
        own.raw = vectors == NULL ? iter.record.raw : (const uint8_t *)vectors + i * iq_db_vector_bytes(db, dim);
        own.vector = (const float *)own.raw;
        iqdb_hit *hits = (iqdb_hit *)(void *)((uint8_t *)scratch + IQ_CACHE_LINE);
        result = iq_recall_add(db, &own, hits, &all, &found);
    }
    iq_scratch_leave(db, NULL, scratch);
    iqdb_iter_end(&iter);
    if (result == IQDB_OK) *out_recall = all == 0 ? 1.0 : (double)(found < all ? found : all) / (double)all;
    return result;
}

#endif

IQDB_API iqdb_result iqdb_count(const iqdb *db, const iqdb_filter *filter, size_t *out_count) {
    iq_search search;
    iqdb_query query = iqdb_query_default();
    size_t count = 0;
    uint32_t index;
    if (db == NULL || out_count == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    query.filter = filter;
    iqdb_result result = iq_search_begin(&search, db, &query, NULL, 0, NULL);
    if (result != IQDB_OK) return result;
    if (filter == NULL) count = (size_t)search.pin.count;
    if (filter != NULL && search.pin.count > 0) {
        const uint32_t end = IQ_ATOMIC_LOAD(&db->records.rows.count);
        const size_t bits_size = iq_search_bits_bytes(&search, end);
        result = iq_search_take_room(&search, IQ_CACHE_LINE + bits_size);
        iq_choice choice = {&search.filter, NULL, 0, 0};
        uint32_t *bits = (uint32_t *)(void *)((uint8_t *)search.scratch + IQ_CACHE_LINE);
        if (result == IQDB_OK && bits_size > 0 && iq_records_choose(&db->records, &search.filter, end, bits) < end)
            choice.bits = bits;
        uint32_t row = 0;
        for (; result == IQDB_OK; row++, count++)
            if (iq_records_next(&db->records, &row, end, search.pin.moment, &choice, &index) == NULL) break;
        if (!IQ_SMALL && result == IQDB_OK && row < end) result = IQDB_ERR_CORRUPT;
    }
    iq_search_end(&search);
    if (result == IQDB_OK) *out_count = count;
    return result;
}

/* ---- In slices ---- */

IQDB_API void iqdb_cancel_request(iqdb_cancel *cancel) {
    if (cancel != NULL) IQ_ATOMIC_STORE(&cancel->requested, 1);
}

IQDB_API iqdb_result iqdb_cursor_open(const iqdb *db, const iqdb_query *query, iqdb_cursor **out_cursor) {
    iq_search search;
    iqdb_hit own; /* in place of the caller's */
    bool empty;
    if (out_cursor != NULL) *out_cursor = NULL;
    if (db == NULL || query == NULL || out_cursor == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    const uint8_t *vector = (const uint8_t *)iq_db_vector_of(db, query->vector, query->raw);
    iqdb_result result = iq_search_begin(&search, db, query, vector, 1, &own);
    if (result != IQDB_OK) return result;
    search.is_cursor = true;
    result = iq_search_check_vectors(&search, vector, 1, &empty);
    if (result == IQDB_OK && empty) result = iq_search_take_room(&search, iq_search_bytes(0, true, 0, 0, 0));
    if (result == IQDB_OK && !empty) {
        iq_search_plan(&search, 1);
        result = iq_search_find_room(&search);
        if (result == IQDB_ERR_NOMEM && search.codes != NULL) {
            search.codes = NULL;
            result = iq_search_find_room(&search);
        }
    }
    if (result != IQDB_OK) {
        iq_search_end(&search);
        return result;
    }
    iqdb_cursor *cursor = (iqdb_cursor *)(void *)((uint8_t *)search.scratch + IQ_CACHE_LINE);
    memset(cursor, 0, sizeof *cursor);
    cursor->query = *query;
    cursor->search = search;
    cursor->search.query = &cursor->query;
    cursor->searched = empty;
    if (!empty) iq_search_allow(&cursor->search);
    if (!empty) iq_search_prepare(&cursor->search, vector, 1, NULL);
    *out_cursor = cursor;
    return IQDB_OK;
}

/* Goes on where the last step stopped; whether the answer is final. */
static bool iq_cursor_work(iqdb_cursor *cursor, uint32_t budget_us) {
    iq_search *search = &cursor->search;
    iq_limit *limit = &search->limit;
    if (cursor->searched && cursor->unsettled <= 1) return true;
    iq_limit_end_in(limit, budget_us);
    if (!cursor->searched) {
        const bool has_deadline = cursor->query.deadline_us != 0;
        if (has_deadline && iq_limit_is_past(limit->end, search->deadline)) limit->end = search->deadline;
        iq_flat_search(&cursor->search.flat);
        if (cursor->search.flat.visited < cursor->search.flat.row_count &&
            (!has_deadline || !iq_limit_is_past(iq_limit_now(limit), search->deadline)))
            return false;
        iq_flat_stop(&search->flat);
        cursor->searched = true;
        cursor->found = cursor->unsettled = cursor->search.flat.probes->topk.count;
    }
    while (cursor->unsettled > 1) {
        iq_topk_settle(&cursor->search.flat.probes->topk, cursor->unsettled--);
        if (cursor->unsettled % IQ_CURSOR_SETTLED == 0 && iq_limit_reached(limit)) return false;
    }
    return true;
}

IQDB_API iqdb_result iqdb_cursor_step(iqdb_cursor *cursor, uint32_t budget_us, iqdb_hit *hits, size_t capacity,
                                      size_t *out_count, bool *out_done) {
    if (cursor == NULL || out_count == NULL || out_done == NULL || (hits == NULL && capacity > 0))
        return IQDB_ERR_INVALID_ARGUMENT;
    iq_search *search = &cursor->search;
    const iqdb *db = search->db;
    *out_count = 0;
    *out_done = false;
    if (iq_db_is_inside(db)) return IQDB_ERR_BUSY;
    const bool final = iq_cursor_work(cursor, budget_us);
    if (search->flat.probes != NULL) search->compared = search->flat.probes->compared;
    if (search->flat.probes != NULL) search->lost = iq_search_has_lost(search);
    iqdb_result result = iq_search_tell(search, search->flat.visited, search->flat.visited == search->flat.row_count);
    if (result != IQDB_OK || !final) return result;
    const size_t left = cursor->found - cursor->given, count = left < capacity ? left : capacity;
    if (count > 0) memcpy(hits, cursor->search.flat.probes->topk.hits + cursor->given, count * sizeof *hits);
    result = iq_query_attach(db, &cursor->query, hits, &count, 1);
    if (result != IQDB_OK) return result;
    cursor->given += count;
    *out_count = count;
    *out_done = count == left;
    return IQDB_OK;
}

IQDB_API void iqdb_cursor_close(iqdb_cursor *cursor) {
    if (cursor == NULL) return;
    iq_search search = cursor->search; /* which lies in the scratch that it leaves */
    iq_search_end(&search);
}
