/* Search: checks, the query vector in aligned memory, the index, and the hits with their payloads.
 *
 * 1. The caller's hits array is the heap of the top-k; no memory grows with k.
 * 2. Checks come in the order of the manual's table, all of them before the first hit is written.
 * 3. A batch holds the lock throughout, so all its queries see one state. */
#include "db/db.h"

/* What a search holds for a batch; only a vector alone may take more. */
#define IQ_SCRATCH_VECTOR_BYTES ((size_t)128 * 1024)
/* What it holds for the hits of other tasks, and the vectors that make a task worth its start. */
#define IQ_SCRATCH_HIT_BYTES ((size_t)1024 * 1024)
#define IQ_TASK_BYTES ((uint64_t)256 * 1024)
#define IQ_TASK_COUNT_MAX 64

/* How a search goes about its vectors. */
typedef struct iq_query_plan {
    size_t group;      /* vectors that share a pass over the rows */
    size_t task_count; /* tasks that share the rows of a pass */
    size_t k;          /* hits wanted, and there at most */
} iq_query_plan;

static iq_query_plan iq_query_plan_make(const iqdb *db, const iqdb_query *query, size_t vector_count) {
    iq_query_plan plan;
    const size_t row_bytes = db->records.rows.stride * sizeof(float), most = IQ_SCRATCH_VECTOR_BYTES / row_bytes;
    plan.k = query->k < db->records.live_count ? query->k : db->records.live_count;
    plan.group = vector_count < IQ_FLAT_COUNT_MAX ? vector_count : IQ_FLAT_COUNT_MAX;
    if (plan.group > most) plan.group = most > 0 ? most : 1;
    plan.task_count = 1;
    /* A predicate is asked in the caller's thread. */
    if (db->parallel_for.run_fn == NULL || query->predicate != NULL) return plan;
    const uint64_t worth = (uint64_t)db->records.rows.count * row_bytes * plan.group / IQ_TASK_BYTES;
    const size_t room = IQ_SCRATCH_HIT_BYTES / sizeof(iqdb_hit) / plan.group / plan.k;
    size_t tasks =
        db->parallel_for.worker_count < IQ_TASK_COUNT_MAX ? db->parallel_for.worker_count : IQ_TASK_COUNT_MAX;
    if (tasks > worth) tasks = (size_t)worth;
    if (tasks > room + 1) tasks = room + 1;
    if (tasks > 1) plan.task_count = tasks;
    return plan;
}

/* The block's header, vectors as iq_flat_query wants them, probes, and hits of all tasks but the first. */
static size_t iq_query_plan_bytes(const iqdb *db, const iq_query_plan *plan) {
    return IQ_CACHE_LINE +
           plan->group * (db->records.rows.stride * sizeof(float) + plan->task_count * sizeof(iq_flat_probe) +
                          (plan->task_count - 1) * plan->k * sizeof(iqdb_hit));
}

static iq_scratch *iq_scratch_take(iqdb *db, size_t size_bytes) {
    iq_scratch *kept = db->scratch;
    if (kept != NULL && kept->size_bytes >= size_bytes) {
        db->scratch = kept->next;
        return kept;
    }
    iq_scratch *made = (iq_scratch *)iq_alloc(&db->allocator, size_bytes, IQ_CACHE_LINE);
    if (made == NULL) return NULL;
    made->size_bytes = size_bytes;
    if (kept == NULL) return made;
    db->scratch = kept->next;
    iq_free(&db->allocator, kept, kept->size_bytes, IQ_CACHE_LINE);
    return made;
}

/* Memory for the plan, or for a humbler one that it becomes. */
static iq_scratch *iq_scratch_take_for(iqdb *db, iq_query_plan *plan) {
    iq_scratch *scratch = iq_scratch_take(db, iq_query_plan_bytes(db, plan));
    if (scratch != NULL || (plan->task_count == 1 && plan->group == 1)) return scratch;
    plan->task_count = 1;
    plan->group = 1;
    return iq_scratch_take(db, iq_query_plan_bytes(db, plan));
}

static void iq_scratch_give_back(iqdb *db, iq_scratch *scratch) {
    scratch->next = db->scratch;
    db->scratch = scratch;
}

/* A predicate's view of rows. */
typedef struct iq_predicate {
    iqdb *db;
    const iqdb_query *query;
} iq_predicate;

static bool iq_predicate_accept(const iq_slab *slab, uint32_t index, void *user) {
    const iq_predicate *predicate = (const iq_predicate *)user;
    iqdb *db = predicate->db;
    iqdb_record record = iqdb_record_default();
    record.id = slab->ids[index];
    record.vector = slab->vectors + index * db->records.rows.stride;
    record.dim = db->records.rows.dim;
    record.payload = iq_heap_payload(&db->records.heap, slab->payloads[index]);
    db->phase = IQ_PHASE_PREDICATE;
    const bool accepted = predicate->query->predicate(&record, predicate->query->user);
    db->phase = IQ_PHASE_CALL;
    return accepted;
}

/* What can be said without a look at the database. */
static iqdb_result iq_query_check(const iqdb_query *query, const void *vectors, size_t vector_count,
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

/* The vectors themselves, and whether there is anything to search: *out_empty ends the call with no hits. */
static iqdb_result iq_query_check_vectors(const iqdb *db, const iqdb_query *query, const float *vectors,
                                          size_t vector_count, bool *out_empty) {
    const size_t dim = query->dim != 0 ? query->dim : db->records.rows.dim;
    size_t size;
    *out_empty = true;
    if (query->k == 0 || vector_count == 0) return IQDB_OK;
    if (dim > IQDB_DIM_MAX) return IQDB_ERR_INVALID_VECTOR;
    if (!iq_mul(vector_count, dim * sizeof(float), &size)) return IQDB_ERR_INVALID_ARGUMENT;
    if (iq_buffer_overlaps(query->buffer, vectors, size)) return IQDB_ERR_INVALID_ARGUMENT;
    for (size_t i = 0; i < vector_count; i++)
        if (!iq_vector_is_finite(db->records.kernel, vectors + i * dim, dim)) return IQDB_ERR_INVALID_VECTOR;
    *out_empty = db->records.live_count == 0;
    if (!*out_empty && dim != db->records.rows.dim) return IQDB_ERR_DIMENSION_MISMATCH;
    return IQDB_OK;
}

/* The k best for each of `count` vectors, at most the plan's group, sorted; the tag of each hit is its row. */
static void iq_query_run(iqdb *db, const iqdb_query *query, const iq_query_plan *plan, const float *vectors,
                         size_t count, iq_scratch *scratch, iqdb_hit *hits, size_t *counts) {
    iq_flat_query flat;
    iq_predicate predicate;
    iqdb_hit after = query->after;
    const size_t dim = db->records.rows.dim, stride = db->records.rows.stride;
    float *padded = (float *)(void *)((uint8_t *)scratch + IQ_CACHE_LINE);
    predicate.db = db;
    predicate.query = query;
    flat.rows = &db->records.rows;
    flat.kernel = db->records.kernel;
    flat.metric = query->metric == IQDB_METRIC_DEFAULT ? db->metric : query->metric;
    flat.lsn = db->records.lsn;
    flat.max_score = (query->flags & IQDB_MAX_DISTANCE) != 0 ? query->max_distance : iq_f32_from_bits(0x7F800000u);
    if (iq_f32_bits(after.score) == 0x80000000u) after.score = 0.0f; /* no score is -0 */
    flat.after = (query->flags & IQDB_AFTER) != 0 ? &after : NULL;
    flat.vectors = padded;
    flat.probes = (iq_flat_probe *)(void *)(padded + plan->group * stride);
    flat.count = count;
    flat.task_count = plan->task_count;
    flat.parallel = &db->parallel_for;
    flat.spare_hits = (iqdb_hit *)(void *)(flat.probes + plan->group * plan->task_count);
    flat.accept_fn = query->predicate != NULL ? iq_predicate_accept : NULL;
    flat.user = &predicate;
    for (size_t i = 0; i < count; i++) {
        memcpy(padded + i * stride, vectors + i * dim, dim * sizeof(float));
        memset(padded + i * stride + dim, 0, (stride - dim) * sizeof(float));
        flat.probes[i].norm = iq_vector_norm_of(flat.kernel, padded + i * stride, dim);
        iq_topk_start(&flat.probes[i].topk, hits + i * query->k, plan->k);
    }
    iq_flat_search(&flat);
    for (size_t i = 0; i < count; i++) {
        iq_topk_sort(&flat.probes[i].topk);
        counts[i] = flat.probes[i].topk.count;
    }
}

/* Turns the tags of all hits into payloads, copied into the query's buffer. */
static iqdb_result iq_query_attach(iqdb *db, const iqdb_query *query, iqdb_hit *hits, const size_t *counts,
                                   size_t vector_count) {
    const bool wanted = (query->flags & IQDB_WITH_PAYLOAD) != 0;
    size_t total = 0;
    uint8_t *bytes = NULL;
    for (size_t q = 0; q < vector_count; q++) {
        for (size_t i = 0; i < counts[q]; i++) {
            iqdb_hit *hit = &hits[q * query->k + i];
            uint32_t index;
            const iq_slab *slab = iq_rows_slab(&db->records.rows, (uint32_t)hit->payload.size, &index);
            hit->payload = iq_heap_payload(&db->records.heap, wanted ? slab->payloads[index] : 0);
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

/* Under the lock, arguments checked. */
static iqdb_result iq_query_search(iqdb *db, const iqdb_query *query, const float *vectors, size_t vector_count,
                                   iqdb_hit *hits, size_t *counts) {
    bool empty;
    iqdb_result result = iq_query_check_vectors(db, query, vectors, vector_count, &empty);
    if (result != IQDB_OK) return result;
    if (empty) {
        for (size_t q = 0; q < vector_count; q++) counts[q] = 0;
        return iq_query_attach(db, query, hits, counts, vector_count);
    }
    iq_query_plan plan = iq_query_plan_make(db, query, vector_count);
    iq_scratch *scratch = iq_scratch_take_for(db, &plan);
    if (scratch == NULL) return IQDB_ERR_NOMEM;
    /* Each pass over the rows takes as many vectors as the others, for few cost nearly as much as many. */
    const size_t passes = (vector_count - 1) / plan.group + 1;
    for (size_t pass = 0, q = 0; pass < passes; pass++) {
        const size_t count = (vector_count - q - 1) / (passes - pass) + 1;
        iq_query_run(db, query, &plan, vectors + q * db->records.rows.dim, count, scratch, hits + q * query->k,
                     counts + q);
        q += count;
    }
    iq_scratch_give_back(db, scratch);
    result = iq_query_attach(db, query, hits, counts, vector_count);
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
    iqdb_result result = iq_query_check(query, vectors, vector_count, hits);
    if (result != IQDB_OK) return result;
    result = iq_db_enter_read(iq_db_of(db));
    if (result != IQDB_OK) return result;
    result = iq_query_search(iq_db_of(db), query, (const float *)vectors, vector_count, hits, counts);
    iq_db_leave(iq_db_of(db));
    return result;
}

IQDB_API iqdb_result iqdb_search(const iqdb *db, const iqdb_query *query, iqdb_hit *hits, size_t *out_count) {
    if (query == NULL || out_count == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    return iqdb_search_batch(db, query, query->vector, 1, hits, out_count);
}
