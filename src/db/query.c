/* Search: checks, the query vector in aligned memory, the index, and the hits with their payloads.
 *
 * 1. The caller's hits array is the heap of the top-k; no memory grows with k.
 * 2. Checks come in the order of the manual's table, all of them before the first hit is written.
 * 3. A batch holds the lock throughout, so all its queries see one state. */
#include "db/db.h"

/* What a search holds for a batch; only a vector alone may take more. */
#define IQ_SCRATCH_BYTES ((size_t)128 * 1024)

static iq_scratch *iq_scratch_make(iqdb *db, size_t capacity) {
    const size_t each = db->records.rows.stride * sizeof(float) + sizeof(iq_flat_probe);
    const size_t size = IQ_CACHE_LINE + capacity * each;
    iq_scratch *scratch = (iq_scratch *)iq_alloc(&db->allocator, size, IQ_CACHE_LINE);
    if (scratch == NULL) return NULL;
    scratch->capacity = capacity;
    scratch->size_bytes = size;
    return scratch;
}

/* Room for `count` vectors, or for fewer where memory or the limits above say so. */
static iq_scratch *iq_scratch_take(iqdb *db, size_t count) {
    const size_t most = IQ_SCRATCH_BYTES / (db->records.rows.stride * sizeof(float));
    iq_scratch *kept = db->scratch;
    if (count > IQ_FLAT_COUNT_MAX) count = IQ_FLAT_COUNT_MAX;
    if (count > most) count = most > 0 ? most : 1;
    if (kept != NULL) db->scratch = kept->next;
    if (kept != NULL && kept->capacity >= count) return kept;
    iq_scratch *made = iq_scratch_make(db, count);
    if (made == NULL) return kept != NULL || count == 1 ? kept : iq_scratch_make(db, 1);
    if (kept != NULL) iq_free(&db->allocator, kept, kept->size_bytes, IQ_CACHE_LINE);
    return made;
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
    if (query->metric < IQDB_METRIC_DEFAULT || query->metric > IQDB_DOT) return IQDB_ERR_INVALID_ARGUMENT;
    if ((query->flags & ~IQDB_WITH_PAYLOAD) != 0) return IQDB_ERR_INVALID_ARGUMENT;
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
        if (!iq_vector_is_finite(vectors + i * dim, dim)) return IQDB_ERR_INVALID_VECTOR;
    *out_empty = db->records.live_count == 0;
    if (!*out_empty && dim != db->records.rows.dim) return IQDB_ERR_DIMENSION_MISMATCH;
    return IQDB_OK;
}

/* The k best for each of `count` vectors, at most the scratch's capacity, sorted; the tag of each hit is its row. */
static void iq_query_run(iqdb *db, const iqdb_query *query, const float *vectors, size_t count, iq_scratch *scratch,
                         iqdb_hit *hits, size_t *counts) {
    iq_flat_query flat;
    iq_predicate predicate;
    const size_t dim = db->records.rows.dim, stride = db->records.rows.stride;
    const size_t k = query->k < db->records.live_count ? query->k : db->records.live_count;
    float *padded = (float *)(void *)((uint8_t *)scratch + IQ_CACHE_LINE);
    predicate.db = db;
    predicate.query = query;
    flat.rows = &db->records.rows;
    flat.kernel = db->records.kernel;
    flat.metric = query->metric == IQDB_METRIC_DEFAULT ? db->metric : query->metric;
    flat.lsn = db->records.lsn;
    flat.vectors = padded;
    flat.probes = (iq_flat_probe *)(void *)(padded + scratch->capacity * stride);
    flat.count = count;
    flat.accept_fn = query->predicate != NULL ? iq_predicate_accept : NULL;
    flat.user = &predicate;
    for (size_t i = 0; i < count; i++) {
        memcpy(padded + i * stride, vectors + i * dim, dim * sizeof(float));
        memset(padded + i * stride + dim, 0, (stride - dim) * sizeof(float));
        flat.probes[i].norm = iq_vector_norm_of(flat.kernel, padded + i * stride, dim);
        iq_topk_start(&flat.probes[i].topk, hits + i * query->k, k);
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
    iq_scratch *scratch = iq_scratch_take(db, vector_count);
    if (scratch == NULL) return IQDB_ERR_NOMEM;
    /* Each pass over the rows takes as many vectors as the others, for few cost nearly as much as many. */
    const size_t passes = (vector_count - 1) / scratch->capacity + 1;
    for (size_t pass = 0, q = 0; pass < passes; pass++) {
        const size_t count = (vector_count - q - 1) / (passes - pass) + 1;
        iq_query_run(db, query, vectors + q * db->records.rows.dim, count, scratch, hits + q * query->k, counts + q);
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
