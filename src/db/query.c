/* Search: checks, the query vector in aligned memory, the index, and the hits with their payloads.
 *
 * 1. The caller's hits array is the heap of the top-k; no memory grows with k.
 * 2. Checks come in the order of the manual's table, all of them before the first hit is written.
 * 3. A call pins one moment throughout, so all queries of a batch see one state.
 * 4. Scratch is left for the next search: once as many have run at once, none allocates. Only to have more a search takes
 *    the lock, for allocators are called by one thread at a time. */
#include "db/db.h"

/* What a search holds for a batch; only a vector alone may take more. */
#define IQ_SCRATCH_VECTOR_BYTES ((size_t)128 * 1024)
/* What it holds for the hits of other tasks, and the vectors that make a task worth its start. */
#define IQ_SCRATCH_HIT_BYTES ((size_t)1024 * 1024)
#define IQ_TASK_BYTES ((uint64_t)256 * 1024)
#define IQ_TASK_COUNT_MAX 64

/* One running call. */
typedef struct iq_search {
    const iqdb *db;
    const iqdb_query *query;
    iq_pin pin;
    iq_scratch *scratch;
    uint32_t row_count;      /* among which all lie that the pin sees */
    size_t group;            /* vectors that share a pass over the rows */
    size_t task_count;       /* tasks that share the rows of a pass */
    size_t k;                /* hits wanted, and there at most */
    iq_filter_layout layout; /* of the query's filter; all 0 where there is none */
    iq_filter filter;        /* compiled into the scratch */
} iq_search;

static void iq_search_plan(iq_search *search, size_t vector_count) {
    const iqdb *db = search->db;
    const size_t row_bytes = db->records.rows.stride * sizeof(float), most = IQ_SCRATCH_VECTOR_BYTES / row_bytes;
    search->row_count = IQ_ATOMIC_LOAD(&db->records.rows.count);
    search->k = search->query->k < search->pin.count ? search->query->k : (size_t)search->pin.count;
    search->group = vector_count < IQ_FLAT_COUNT_MAX ? vector_count : IQ_FLAT_COUNT_MAX;
    if (search->group > most) search->group = most > 0 ? most : 1;
    search->task_count = 1;
    /* A predicate is asked in the caller's thread. */
    if (db->parallel_for.run_fn == NULL || search->query->predicate != NULL) return;
    const uint64_t worth = (uint64_t)search->row_count * row_bytes * search->group / IQ_TASK_BYTES;
    const size_t room = IQ_SCRATCH_HIT_BYTES / sizeof(iqdb_hit) / search->group / search->k;
    size_t tasks =
        db->parallel_for.worker_count < IQ_TASK_COUNT_MAX ? db->parallel_for.worker_count : IQ_TASK_COUNT_MAX;
    if (tasks > worth) tasks = (size_t)worth;
    if (tasks > room + 1) tasks = room + 1;
    if (tasks > 1) search->task_count = tasks;
}

/* Gives scratch back, or gets so much of it in its place; 0 is none. The old one stays where there is no memory. */
static iqdb_result iq_search_change_scratch(iq_search *search, size_t size_bytes) {
    iqdb *db = iq_db_of(search->db);
    iqdb_result result = iq_db_enter_upkeep(db);
    if (result != IQDB_OK) return result;
    iq_scratch *made = size_bytes == 0 ? NULL : (iq_scratch *)iq_alloc(&db->allocator, size_bytes, IQ_CACHE_LINE);
    if (made == NULL && size_bytes > 0) {
        result = IQDB_ERR_NOMEM;
    } else {
        if (search->scratch != NULL)
            iq_free(&db->allocator, search->scratch, search->scratch->size_bytes, IQ_CACHE_LINE);
        search->scratch = made;
        if (made != NULL) made->size_bytes = size_bytes;
    }
    iq_db_leave(db);
    return result;
}

/* Scratch with room for `size` bytes, a multiple of 16, and behind them the program of the query's filter. */
static iqdb_result iq_search_take_room(iq_search *search, size_t size) {
    const size_t whole = size + search->layout.size_bytes;
    if (search->scratch == NULL)
        search->scratch = iq_epoch_take_scratch(&iq_db_of(search->db)->records.epoch, search->pin.slot);
    iqdb_result result = IQDB_OK;
    if (search->scratch == NULL || search->scratch->size_bytes < whole)
        result = iq_search_change_scratch(search, whole);
    if (result == IQDB_OK && search->query->filter != NULL)
        iq_filter_compile(search->query->filter, &search->layout, (uint8_t *)search->scratch + size, &search->filter);
    return result;
}

/* Scratch for the plan: vectors as iq_flat_query wants them, probes, and hits of all tasks but the first. */
static iqdb_result iq_search_find_room(iq_search *search) {
    const iqdb *db = search->db;
    const size_t vector = search->group * db->records.rows.stride * sizeof(float);
    const size_t probes = search->group * search->task_count * sizeof(iq_flat_probe);
    const size_t hits = search->group * (search->task_count - 1) * search->k * sizeof(iqdb_hit);
    return iq_search_take_room(search, iq_round_up(IQ_CACHE_LINE + vector + probes + hits, 16));
}

static void iq_search_end(iq_search *search) {
    iq_epoch *epoch = &iq_db_of(search->db)->records.epoch;
    if (search->scratch != NULL && !iq_epoch_leave_scratch(epoch, search->pin.slot, search->scratch))
        (void)iq_search_change_scratch(search, 0);
    iq_db_leave_read(search->db, search->pin);
}

static bool iq_search_accept(const iq_slab *slab, uint32_t index, void *user) {
    const iq_search *search = (const iq_search *)user;
    const iqdb_record record = iq_db_record_at(search->db, slab, index);
    if (search->query->filter != NULL && !iq_filter_accepts(&search->filter, record.payload)) return false;
    return search->query->predicate == NULL || search->query->predicate(&record, search->query->user);
}

/* What can be said without a look at the database, but for the filter. */
static iqdb_result iq_query_check_arguments(const iqdb_query *query, const void *vectors, size_t vector_count,
                                            const iqdb_hit *hits) {
    if (query->metric < IQDB_METRIC_DEFAULT || query->metric > IQDB_L1) return IQDB_ERR_INVALID_ARGUMENT;
    if ((query->flags & ~(IQDB_WITH_PAYLOAD | IQDB_MAX_DISTANCE | IQDB_AFTER)) != 0) return IQDB_ERR_INVALID_ARGUMENT;
    if ((query->flags & IQDB_MAX_DISTANCE) != 0 && iq_f32_is_nan(query->max_distance)) return IQDB_ERR_INVALID_ARGUMENT;
    if ((query->flags & IQDB_AFTER) != 0 && iq_f32_is_nan(query->after.score)) return IQDB_ERR_INVALID_ARGUMENT;
    if ((query->flags & IQDB_WITH_PAYLOAD) != 0 && query->buffer == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (vector_count == 0) return IQDB_OK;
    if (vectors == NULL || (hits == NULL && query->k > 0)) return IQDB_ERR_INVALID_ARGUMENT;
    /* k has no limit of its own: with one vector there is no product, and no more hits than records. */
    size_t room;
    if (vector_count > 1 && (!iq_mul(vector_count, query->k, &room) || !iq_mul(room, sizeof(iqdb_hit), &room)))
        return IQDB_ERR_INVALID_ARGUMENT;
    return IQDB_OK;
}

/* The same with the filter, whose program is measured here and compiled once there is memory. */
static iqdb_result iq_query_check(const iqdb_query *query, const void *vectors, size_t vector_count,
                                  const iqdb_hit *hits, iq_filter_layout *out_layout) {
    const iqdb_result result = iq_query_check_arguments(query, vectors, vector_count, hits);
    memset(out_layout, 0, sizeof *out_layout);
    if (result != IQDB_OK || query->filter == NULL) return result;
    return iq_filter_measure(query->filter, out_layout) == NULL ? IQDB_OK : IQDB_ERR_INVALID_FILTER;
}

/* The vectors themselves, and whether there is anything to search: *out_empty ends the call with no hits. */
static iqdb_result iq_search_check_vectors(const iq_search *search, const float *vectors, size_t vector_count,
                                           bool *out_empty) {
    const iqdb_query *query = search->query;
    const size_t own_dim = IQ_ATOMIC_LOAD(&search->db->records.dim), dim = query->dim != 0 ? query->dim : own_dim;
    size_t size;
    *out_empty = true;
    if (query->k == 0 || vector_count == 0) return IQDB_OK;
    if (dim > IQDB_DIM_MAX) return IQDB_ERR_INVALID_VECTOR;
    if (!iq_mul(vector_count, dim * sizeof(float), &size)) return IQDB_ERR_INVALID_ARGUMENT;
    if (iq_buffer_overlaps(query->buffer, vectors, size)) return IQDB_ERR_INVALID_ARGUMENT;
    for (size_t i = 0; i < vector_count; i++)
        if (!iq_vector_is_finite(search->db->records.kernel, vectors + i * dim, dim)) return IQDB_ERR_INVALID_VECTOR;
    *out_empty = search->pin.count == 0;
    if (!*out_empty && dim != own_dim) return IQDB_ERR_DIMENSION_MISMATCH;
    return IQDB_OK;
}

/* The k best for each of `count` vectors, at most the group, sorted; the tag of each hit is its row. */
static void iq_search_pass(iq_search *search, const float *vectors, size_t count, iqdb_hit *hits, size_t *counts) {
    iq_flat_query flat;
    const iqdb *db = search->db;
    const iqdb_query *query = search->query;
    iqdb_hit after = query->after;
    const size_t dim = db->records.rows.dim, stride = db->records.rows.stride;
    float *padded = (float *)(void *)((uint8_t *)search->scratch + IQ_CACHE_LINE);
    flat.rows = &db->records.rows;
    flat.row_count = search->row_count;
    flat.kernel = db->records.kernel;
    flat.metric = query->metric == IQDB_METRIC_DEFAULT ? db->metric : query->metric;
    flat.moment = search->pin.moment;
    flat.max_score = (query->flags & IQDB_MAX_DISTANCE) != 0 ? query->max_distance : iq_f32_from_bits(0x7F800000u);
    if (iq_f32_bits(after.score) == 0x80000000u) after.score = 0.0f; /* no score is -0 */
    flat.after = (query->flags & IQDB_AFTER) != 0 ? &after : NULL;
    flat.vectors = padded;
    flat.probes = (iq_flat_probe *)(void *)(padded + search->group * stride);
    flat.count = count;
    flat.task_count = search->task_count;
    flat.parallel = &db->parallel_for;
    flat.spare_hits = (iqdb_hit *)(void *)(flat.probes + search->group * search->task_count);
    flat.accept_fn = query->predicate != NULL || query->filter != NULL ? iq_search_accept : NULL;
    flat.user = search;
    for (size_t i = 0; i < count; i++) {
        memcpy(padded + i * stride, vectors + i * dim, dim * sizeof(float));
        memset(padded + i * stride + dim, 0, (stride - dim) * sizeof(float));
        flat.probes[i].norm = iq_vector_norm_of(flat.kernel, padded + i * stride, dim);
        iq_topk_start(&flat.probes[i].topk, hits + i * query->k, search->k);
    }
    iq_flat_search(&flat);
    for (size_t i = 0; i < count; i++) {
        iq_topk_sort(&flat.probes[i].topk);
        counts[i] = flat.probes[i].topk.count;
    }
}

/* Turns the tags of all hits into payloads, copied into the query's buffer. */
static iqdb_result iq_query_attach(const iqdb *db, const iqdb_query *query, iqdb_hit *hits, const size_t *counts,
                                   size_t vector_count) {
    const bool wanted = (query->flags & IQDB_WITH_PAYLOAD) != 0;
    size_t total = 0;
    uint8_t *bytes = NULL;
    for (size_t q = 0; q < vector_count; q++) {
        for (size_t i = 0; i < counts[q]; i++) {
            iqdb_hit *hit = &hits[q * query->k + i];
            uint32_t index;
            const iq_slab *slab = iq_rows_slab(&db->records.rows, (uint32_t)hit->payload.size, &index);
            hit->payload = iq_heap_payload(&db->records.heap, wanted ? slab->heads[index].payload : 0);
            if (hit->payload.size > (size_t)-1 - total) return IQDB_ERR_NOMEM;
            total += hit->payload.size;
        }
    }
    if (!wanted) return IQDB_OK;
    const iqdb_result result = iq_buffer_start(query->buffer, total, &bytes);
    for (size_t q = 0; q < vector_count; q++) {
        for (size_t i = 0; i < counts[q]; i++) {
            iqdb_payload *payload = &hits[q * query->k + i].payload;
            if (result != IQDB_OK) {
                payload->bytes = NULL; /* never a pointer into the database */
                payload->size = 0;
            }
            if (payload->bytes == NULL) continue;
            memcpy(bytes, payload->bytes, payload->size);
            payload->bytes = bytes;
            bytes += payload->size;
        }
    }
    return result;
}

/* Under the pin, arguments checked. */
static iqdb_result iq_search_run(iq_search *search, const float *vectors, size_t vector_count, iqdb_hit *hits,
                                 size_t *counts) {
    bool empty;
    const iqdb_query *query = search->query;
    iqdb_result result = iq_search_check_vectors(search, vectors, vector_count, &empty);
    if (result != IQDB_OK) return result;
    if (empty) {
        for (size_t q = 0; q < vector_count; q++) counts[q] = 0;
        return iq_query_attach(search->db, query, hits, counts, vector_count);
    }
    iq_search_plan(search, vector_count);
    result = iq_search_find_room(search);
    if (result == IQDB_ERR_NOMEM && (search->task_count > 1 || search->group > 1)) {
        search->task_count = search->group = 1; /* humbler */
        result = iq_search_find_room(search);
    }
    if (result != IQDB_OK) return result;
    /* Each pass over the rows takes as many vectors as the others, for few cost nearly as much as many. */
    const size_t passes = (vector_count - 1) / search->group + 1;
    for (size_t pass = 0, q = 0; pass < passes; pass++) {
        const size_t count = (vector_count - q - 1) / (passes - pass) + 1;
        iq_search_pass(search, vectors + q * search->db->records.rows.dim, count, hits + q * query->k, counts + q);
        q += count;
    }
    result = iq_query_attach(search->db, query, hits, counts, vector_count);
    if (result != IQDB_OK)
        for (size_t q = 0; q < vector_count; q++) counts[q] = 0;
    return result;
}

IQDB_API iqdb_query iqdb_query_default(void) {
    iqdb_query query;
    memset(&query, 0, sizeof query);
    return query;
}

IQDB_API iqdb_result iqdb_search_batch(const iqdb *db, const iqdb_query *query, const void *vectors,
                                       size_t vector_count, iqdb_hit *hits, size_t *counts) {
    if (db == NULL || query == NULL || (counts == NULL && vector_count > 0)) return IQDB_ERR_INVALID_ARGUMENT;
    iq_search search;
    iqdb_result result = iq_query_check(query, vectors, vector_count, hits, &search.layout);
    if (result != IQDB_OK) return result;
    search.db = db;
    search.query = query;
    search.scratch = NULL;
    result = iq_db_enter_read(db, &search.pin);
    if (result != IQDB_OK) return result;
    result = iq_search_run(&search, (const float *)vectors, vector_count, hits, counts);
    iq_search_end(&search);
    return result;
}

IQDB_API iqdb_result iqdb_search(const iqdb *db, const iqdb_query *query, iqdb_hit *hits, size_t *out_count) {
    if (query == NULL || out_count == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    return iqdb_search_batch(db, query, query->vector, 1, hits, out_count);
}

IQDB_API iqdb_result iqdb_count(const iqdb *db, const iqdb_filter *filter, size_t *out_count) {
    iq_search search;
    iqdb_query query = iqdb_query_default();
    size_t count = 0;
    if (db == NULL || out_count == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    query.filter = filter;
    search.db = db;
    search.query = &query;
    search.scratch = NULL;
    if (filter != NULL && iq_filter_measure(filter, &search.layout) != NULL) return IQDB_ERR_INVALID_FILTER;
    iqdb_result result = iq_db_enter_read(db, &search.pin);
    if (result != IQDB_OK) return result;
    if (filter == NULL) count = (size_t)search.pin.count;
    if (filter != NULL) result = iq_search_take_room(&search, IQ_CACHE_LINE);
    const bool looks = filter != NULL && result == IQDB_OK && search.pin.count > 0;
    const uint32_t end = looks ? IQ_ATOMIC_LOAD(&db->records.rows.count) : 0;
    for (uint32_t row = 0; row < end; row++) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
        if (iq_slab_seek(slab, index, index + 1, true) != index) continue;
        if (!iq_row_visible(slab, index, search.pin.moment)) continue;
        count += iq_filter_accepts(&search.filter, iq_heap_payload(&db->records.heap, slab->heads[index].payload));
    }
    iq_search_end(&search);
    if (result == IQDB_OK) *out_count = count;
    return result;
}
