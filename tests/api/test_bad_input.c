/* The manual's table "argument x code", cell by cell. Each cell is one call with one wrong (or borderline) argument; it
 * is made on every kind of handle named for it, and around each call the test checks that the database holds what it
 * held, that details of a failed write went to options.error and to the logger, and at the end that nothing leaked. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

#include <signal.h>
#if !defined(_WIN32)
#include <sys/wait.h>
#endif

#define NAN_F (test_nan())
#define INF_F (test_infinity())

static float test_nan(void) {
    const uint32_t bits = 0x7fc00000u;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static float test_infinity(void) {
    const uint32_t bits = 0x7f800000u;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* Enumerators that do not exist. C++ has no cast for them. */
#define UNKNOWN_ENUM(type, name) \
    static type name(int number) { \
        type value; \
        memset(&value, 0, sizeof value); \
        memcpy(&value, &number, sizeof number); \
        return value; \
    }
UNKNOWN_ENUM(iqdb_metric, unknown_metric)
UNKNOWN_ENUM(iqdb_sync, unknown_sync)
UNKNOWN_ENUM(iqdb_depth, unknown_depth)
UNKNOWN_ENUM(iqdb_simd, unknown_simd)
UNKNOWN_ENUM(iqdb_op_kind, unknown_kind)

/* ---- The handles that cells are tried on ---- */

enum {
    MEMORY = 1, /* dim 3, L2, records 1, 2, 3, 9 */
    DISK = 2,   /* the same in a directory */
    FILLED = MEMORY | DISK,
    EMPTY = 4,     /* in memory, no dimension yet */
    DECLARED = 8,  /* in memory, dimension 3 by option, no record */
    READ_ONLY = 16 /* the same as DISK, opened with read_only */
};

typedef struct subject {
    unsigned kind;
    iqdb *db;
    support_heap heap;
    public_log log;
    iqdb_error error;
    char folder[SUPPORT_PATH_MAX];
    char path[SUPPORT_PATH_MAX];
} subject;

static subject now;
static iqdb *other; /* another handle */

static const char *kind_name(unsigned kind) {
    return kind == MEMORY     ? "in memory"
           : kind == DISK     ? "on disk"
           : kind == EMPTY    ? "empty"
           : kind == DECLARED ? "empty with dim"
                              : "read_only";
}

static void subject_fill(iqdb *db) {
    for (uint64_t id = 1; id <= 3; id++) EXPECT(public_store(db, id, id) == IQDB_OK);
    EXPECT(public_store(db, 9, 1) == IQDB_OK);
}

static void subject_open(unsigned kind) {
    memset(&now, 0, sizeof now);
    now.kind = kind;
    now.heap = support_heap_make();
    iqdb_options options = iqdb_options_default();
    options.allocator = support_allocator(&now.heap);
    options.logger = public_logger(&now.log);
    options.error = &now.error;
    options.metric = IQDB_L2;
    if (kind == DECLARED) options.dim = PUBLIC_DIM;
    if (kind == MEMORY || kind == EMPTY || kind == DECLARED) {
        EXPECT(iqdb_open_in_memory(&options, &now.db) == IQDB_OK);
    } else {
        support_directory(now.folder);
        support_join(now.path, now.folder, "db");
        EXPECT(iqdb_open(now.path, &options, &now.db) == IQDB_OK);
    }
    if (now.db != NULL && kind != EMPTY && kind != DECLARED) subject_fill(now.db);
    if (kind == READ_ONLY) {
        EXPECT(iqdb_close(now.db) == IQDB_OK);
        now.db = NULL;
        options.read_only = true;
        EXPECT(iqdb_open(now.path, &options, &now.db) == IQDB_OK);
    }
    EXPECT(iqdb_open_in_memory(NULL, &other) == IQDB_OK);
}

static void subject_close(void) {
    EXPECT(iqdb_close(now.db) == IQDB_OK);
    EXPECT(iqdb_close(other) == IQDB_OK);
    EXPECT(support_heap_problems(&now.heap) == 0);
    if (now.folder[0] != 0) support_remove(now.folder);
    other = NULL;
}

/* All that can be asked: the records, and the answers of a search. */
static uint64_t subject_digest(void) {
    uint64_t digest = digest_u64(PUBLIC_DIGEST, digest_database(now.db));
    const float probe[PUBLIC_DIM] = {0.25f, -0.5f, 0.125f};
    iqdb_hit hits[8];
    size_t count = 0;
    const iqdb_query query = public_query(probe, PUBLIC_DIM, 8, IQDB_METRIC_DEFAULT);
    EXPECT(iqdb_search(now.db, &query, hits, &count) == IQDB_OK);
    EXPECT(count == iqdb_len(now.db));
    for (size_t i = 0; i < count; i++) digest = digest_score(digest_u64(digest, hits[i].id), hits[i].score);
    iqdb_stats stats;
    EXPECT(iqdb_stat(now.db, &stats) == IQDB_OK);
    digest = digest_u64(digest, stats.records);
    return digest_u64(digest, stats.dim);
}

/* ---- Arguments that would be right ---- */

static const float good_vector[4] = {0.5f, 0.25f, -1.0f, 2.0f};
static iqdb_hit good_hits[16];
static size_t good_counts[8];
static size_t good_count;
static uint64_t good_memory[512];

static iqdb_record good_record(void) { return public_record(77, good_vector, PUBLIC_DIM); }

static iqdb_query good_query(void) { return public_query(good_vector, PUBLIC_DIM, 2, IQDB_METRIC_DEFAULT); }

/* ---- The cells ----
 * One line each where it fits, for a table is read down the page. */
/* clang-format off */

#define CELL(name) static iqdb_result name(void)

/* NULL for each pointer */
CELL(open_path) { iqdb *db = NULL; return iqdb_open(NULL, NULL, &db); }
CELL(open_out) { return iqdb_open("never-made", NULL, NULL); }
CELL(open_memory_out) { return iqdb_open_in_memory(NULL, NULL); }
CELL(close_null) { return iqdb_close(NULL); }
CELL(flush_null) { return iqdb_flush(NULL); }
CELL(checkpoint_null) { return iqdb_checkpoint(NULL); }
CELL(verify_null) { return iqdb_verify(NULL, IQDB_DEPTH_DEFAULT, NULL, NULL); }
CELL(verify_report_null) { return iqdb_verify(now.db, IQDB_DEPTH_RECORDS, NULL, NULL); }
CELL(upsert_db) { const iqdb_record r = good_record(); return iqdb_upsert(NULL, &r); }
CELL(upsert_record) { return iqdb_upsert(now.db, NULL); }
CELL(upsert_vector) { iqdb_record r = good_record(); r.vector = NULL; return iqdb_upsert(now.db, &r); }
CELL(batch_db) { const iqdb_record r = good_record(); return iqdb_upsert_batch(NULL, &r, 1); }
CELL(batch_records) { return iqdb_upsert_batch(now.db, NULL, 1); }
CELL(batch_nothing) { return iqdb_upsert_batch(now.db, NULL, 0); }
CELL(delete_db) { bool removed; return iqdb_delete(NULL, 1, &removed); }
CELL(delete_out) { return iqdb_delete(now.db, 12345, NULL); }
CELL(delete_batch_db) { const uint64_t id = 1; size_t n; return iqdb_delete_batch(NULL, &id, 1, &n); }
CELL(delete_batch_ids) { size_t n; return iqdb_delete_batch(now.db, NULL, 1, &n); }
CELL(delete_batch_out) { const uint64_t id = 12345; return iqdb_delete_batch(now.db, &id, 1, NULL); }
CELL(delete_batch_nothing) {
    size_t removed = 7;
    const iqdb_result result = iqdb_delete_batch(now.db, NULL, 0, &removed);
    EXPECT(removed == 0);
    return result;
}
CELL(apply_db) { iqdb_op op = iqdb_op_default(); op.kind = IQDB_OP_DELETE; return iqdb_apply(NULL, &op, 1); }
CELL(apply_ops) { return iqdb_apply(now.db, NULL, 1); }
CELL(apply_nothing) { return iqdb_apply(now.db, NULL, 0); }
CELL(apply_record) { const iqdb_op op = iqdb_op_default(); return iqdb_apply(now.db, &op, 1); }
CELL(get_db) { iqdb_buffer b = iqdb_buffer_default(); iqdb_record r; return iqdb_get(NULL, 1, &b, &r); }
CELL(get_buffer) { iqdb_record r; return iqdb_get(now.db, 1, NULL, &r); }
CELL(get_out) {
    iqdb_buffer b = iqdb_buffer_default();
    const iqdb_result result = iqdb_get(now.db, 1, &b, NULL);
    iqdb_buffer_free(&b);
    return result;
}
CELL(search_db) { const iqdb_query q = good_query(); return iqdb_search(NULL, &q, good_hits, &good_count); }
CELL(search_query) { return iqdb_search(now.db, NULL, good_hits, &good_count); }
CELL(search_hits) { const iqdb_query q = good_query(); return iqdb_search(now.db, &q, NULL, &good_count); }
CELL(search_out) { const iqdb_query q = good_query(); return iqdb_search(now.db, &q, good_hits, NULL); }
CELL(search_vector) {
    iqdb_query q = good_query();
    q.vector = NULL;
    return iqdb_search(now.db, &q, good_hits, &good_count);
}
CELL(many_db) { const iqdb_query q = good_query(); return iqdb_search_batch(NULL, &q, good_vector, 1, good_hits, good_counts); }
CELL(many_query) { return iqdb_search_batch(now.db, NULL, good_vector, 1, good_hits, good_counts); }
CELL(many_vectors) { const iqdb_query q = good_query(); return iqdb_search_batch(now.db, &q, NULL, 1, good_hits, good_counts); }
CELL(many_hits) { const iqdb_query q = good_query(); return iqdb_search_batch(now.db, &q, good_vector, 1, NULL, good_counts); }
CELL(many_counts) { const iqdb_query q = good_query(); return iqdb_search_batch(now.db, &q, good_vector, 1, good_hits, NULL); }
CELL(many_nothing) { const iqdb_query q = good_query(); return iqdb_search_batch(now.db, &q, NULL, 0, NULL, NULL); }
CELL(stat_db) { iqdb_stats s; return iqdb_stat(NULL, &s); }
CELL(stat_out) { return iqdb_stat(now.db, NULL); }
CELL(distance_a) { float d; return iqdb_distance(IQDB_L2, NULL, good_vector, 3, &d); }
CELL(distance_b) { float d; return iqdb_distance(IQDB_L2, good_vector, NULL, 3, &d); }
CELL(distance_out) { return iqdb_distance(IQDB_L2, good_vector, good_vector, 3, NULL); }
CELL(check_null) { return iqdb_vector_check(NULL, 3); }
CELL(iter_null) {
    iqdb_iter iter = iqdb_iter_begin(NULL, NULL);
    const iqdb_result result = iter.result;
    EXPECT(!iqdb_iter_next(&iter));
    iqdb_iter_end(&iter);
    return result;
}
CELL(iter_next_null) { EXPECT(!iqdb_iter_next(NULL)); iqdb_iter_end(NULL); return IQDB_OK; }
static iqdb_filter bad_filter(void) {
    return iqdb_eq("key", iqdb_array(NULL, 0));
}
CELL(search_filter) {
    iqdb_query q = good_query();
    const iqdb_filter filter = bad_filter();
    q.filter = &filter;
    EXPECT(iqdb_search(now.db, &q, good_hits, &good_count) == IQDB_ERR_INVALID_FILTER);
    q.k = 0; /* it is refused whatever would have come of it */
    return iqdb_search_batch(now.db, &q, NULL, 0, NULL, NULL);
}
CELL(order_null_before_filter) {
    iqdb_query q = good_query();
    const iqdb_filter filter = bad_filter();
    q.filter = &filter;
    return iqdb_search(now.db, &q, NULL, &good_count);
}
CELL(count_filter) { const iqdb_filter filter = bad_filter(); return iqdb_count(now.db, &filter, &good_count); }
CELL(count_db) { return iqdb_count(NULL, NULL, &good_count); }
CELL(count_out) { return iqdb_count(now.db, NULL, NULL); }
CELL(where_db) { const iqdb_filter filter = iqdb_filter_default(); return iqdb_delete_where(NULL, &filter, NULL); }
CELL(where_null) { return iqdb_delete_where(now.db, NULL, NULL); }
CELL(where_filter) { const iqdb_filter filter = bad_filter(); return iqdb_delete_where(now.db, &filter, NULL); }
CELL(update_db) { return iqdb_update_payload(NULL, 1, NULL, 0); }
CELL(update_fields) { return iqdb_update_payload(now.db, 1, NULL, 1); }
CELL(update_absent) { return iqdb_update_payload(now.db, 987654321, NULL, 0); }
CELL(iter_filter) {
    const iqdb_filter filter = bad_filter();
    iqdb_iter iter = iqdb_iter_begin(now.db, &filter);
    EXPECT(!iqdb_iter_next(&iter));
    const iqdb_result result = iter.result;
    iqdb_iter_end(&iter);
    return result;
}
CELL(with_buffer) {
    iqdb_payload in = {NULL, 0}, out;
    return iqdb_payload_with(in, NULL, 0, NULL, &out);
}
CELL(with_out) {
    iqdb_payload in = {NULL, 0};
    iqdb_buffer b = iqdb_buffer_default();
    const iqdb_result result = iqdb_payload_with(in, NULL, 0, &b, NULL);
    iqdb_buffer_free(&b);
    return result;
}
CELL(with_changes) {
    iqdb_payload in = {NULL, 0}, out;
    iqdb_buffer b = iqdb_buffer_default();
    const iqdb_result result = iqdb_payload_with(in, NULL, 1, &b, &out);
    iqdb_buffer_free(&b);
    return result;
}
CELL(with_nothing) {
    iqdb_payload in = {NULL, 0}, out = {NULL, 0};
    iqdb_buffer b = iqdb_buffer_default();
    const iqdb_result result = iqdb_payload_with(in, NULL, 0, &b, &out);
    EXPECT(out.bytes != NULL && iqdb_payload_count(out) == 0);
    iqdb_buffer_free(&b);
    return result;
}
CELL(harmless_nulls) {
    const iqdb_payload none = {NULL, 0};
    const iqdb_value nothing = iqdb_text(NULL);
    (void)nothing;
    iqdb_buffer_free(NULL);
    EXPECT(iqdb_len(NULL) == 0);
    EXPECT(iqdb_is_empty(NULL));
    EXPECT(!iqdb_contains(NULL, 1));
    EXPECT(iqdb_simd_name(NULL) != NULL);
    EXPECT(iqdb_vector_norm(NULL, 3) == 0.0f);
    EXPECT(iqdb_payload_get(none, "a").type == IQDB_TYPE_ABSENT);
    EXPECT(iqdb_payload_get(none, NULL).type == IQDB_TYPE_ABSENT);
    EXPECT(iqdb_payload_count(none) == 0);
    EXPECT(!iqdb_payload_at(none, 0, NULL));
    EXPECT(iqdb_payload_text(none, NULL, NULL) == NULL);
    EXPECT(iqdb_value_get(iqdb_null(), NULL).type == IQDB_TYPE_ABSENT);
    EXPECT(!iqdb_value_field(iqdb_null(), 0, NULL));
    EXPECT(iqdb_strerror(IQDB_OK) != NULL);
    return IQDB_OK;
}

/* Unknown numbers */
static iqdb_result search_flagged(uint32_t flags) {
    iqdb_query q = good_query();
    iqdb_buffer b = iqdb_buffer_default();
    q.flags = flags;
    q.buffer = &b;
    const iqdb_result result = iqdb_search(now.db, &q, good_hits, &good_count);
    const iqdb_result many = iqdb_search_batch(now.db, &q, good_vector, 1, good_hits, good_counts);
    EXPECT(result == many);
    iqdb_buffer_free(&b);
    return result;
}
CELL(flag_high) { return search_flagged(0x80000000u); }
CELL(flag_low) { return search_flagged(0x40000000u | IQDB_WITH_PAYLOAD); }
CELL(kind_unknown) {
    const iqdb_record record = good_record();
    iqdb_op op = iqdb_op_default();
    op.record = &record;
    op.kind = unknown_kind(2);
    return iqdb_apply(now.db, &op, 1);
}
CELL(kind_unknown_last) {
    const iqdb_record record = good_record();
    iqdb_op ops[2];
    ops[0] = ops[1] = iqdb_op_default();
    ops[0].record = ops[1].record = &record;
    ops[1].kind = unknown_kind(-1);
    return iqdb_apply(now.db, ops, 2);
}
CELL(apply_other_handle) {
    const iqdb_record record = good_record();
    iqdb_op op = iqdb_op_default();
    op.record = &record;
    op.collection = other;
    return iqdb_apply(now.db, &op, 1);
}
CELL(depth_unknown) { return iqdb_verify(now.db, unknown_depth(4), NULL, NULL); }
CELL(metric_query) {
    iqdb_query q = good_query();
    q.metric = unknown_metric(6);
    return iqdb_search(now.db, &q, good_hits, &good_count);
}
CELL(metric_many) {
    iqdb_query q = good_query();
    q.metric = unknown_metric(77);
    return iqdb_search_batch(now.db, &q, good_vector, 1, good_hits, good_counts);
}
CELL(limit_nan) {
    iqdb_query q = good_query();
    q.flags = IQDB_MAX_DISTANCE;
    q.max_distance = NAN_F;
    return iqdb_search(now.db, &q, good_hits, &good_count);
}
CELL(after_nan) {
    iqdb_query q = good_query();
    q.flags = IQDB_AFTER;
    q.after.score = -NAN_F;
    return iqdb_search_batch(now.db, &q, good_vector, 1, good_hits, good_counts);
}
CELL(nan_not_asked_for) {
    iqdb_query q = good_query();
    q.k = 0;
    q.max_distance = q.after.score = NAN_F;
    return iqdb_search(now.db, &q, good_hits, &good_count);
}
CELL(reserve_null) { return iqdb_reserve(NULL, 5); }
CELL(reserve_far_too_much) { return iqdb_reserve(now.db, (size_t)-1); }
CELL(reserve_some) { return iqdb_reserve(now.db, 10); }
CELL(metric_distance) {
    float d;
    return iqdb_distance(unknown_metric(6), good_vector, good_vector, 3, &d);
}
CELL(metric_negative) {
    float d;
    return iqdb_distance(unknown_metric(-1), good_vector, good_vector, 3, &d);
}

/* Buffers */
CELL(payload_no_buffer) {
    iqdb_query q = good_query();
    q.flags = IQDB_WITH_PAYLOAD;
    const iqdb_result many = iqdb_search_batch(now.db, &q, good_vector, 1, good_hits, good_counts);
    EXPECT(many == IQDB_ERR_INVALID_ARGUMENT);
    return iqdb_search(now.db, &q, good_hits, &good_count);
}
CELL(query_in_buffer) {
    iqdb_buffer b = iqdb_buffer_fixed(good_memory, sizeof good_memory);
    iqdb_query q = good_query();
    memcpy(good_memory + 20, good_vector, sizeof good_vector);
    q.vector = (const float *)(const void *)(good_memory + 20);
    q.flags = IQDB_WITH_PAYLOAD;
    q.buffer = &b;
    return iqdb_search(now.db, &q, good_hits, &good_count);
}
CELL(many_in_buffer) {
    iqdb_buffer b = iqdb_buffer_fixed(good_memory, sizeof good_memory);
    iqdb_query q = good_query();
    memcpy(good_memory + 20, good_vector, sizeof good_vector);
    q.flags = IQDB_WITH_PAYLOAD;
    q.buffer = &b;
    return iqdb_search_batch(now.db, &q, good_memory + 20, 1, good_hits, good_counts);
}
CELL(many_reach_into_buffer) { /* the first vector lies before the buffer, the last one inside */
    iqdb_buffer b = iqdb_buffer_fixed(good_memory + 3, sizeof good_memory - 24);
    iqdb_query q = good_query();
    memset(good_memory, 0, sizeof good_memory);
    q.flags = IQDB_WITH_PAYLOAD;
    q.buffer = &b;
    return iqdb_search_batch(now.db, &q, good_memory, 3, good_hits, good_counts);
}

/* payload_with: `which` part of its input lies in its own buffer. */
static iqdb_result with_inside(int which) {
    iqdb_buffer b = iqdb_buffer_default();
    iqdb_payload first = {NULL, 0}, out = {NULL, 0};
    iqdb_value items[2];
    iqdb_field fields[3];
    const iqdb_payload none = {NULL, 0};
    items[0] = iqdb_int(1);
    items[1] = iqdb_text("one");
    fields[0] = public_field("list", iqdb_array(items, 2));
    fields[1] = public_field("text", iqdb_text("some text that is not short"));
    fields[2] = public_field("raw", iqdb_bytes("\1\2\3", 3));
    EXPECT(iqdb_payload_with(none, fields, 3, &b, &first) == IQDB_OK);
    iqdb_field change = public_field("new", iqdb_int(5));
    iqdb_field seen;
    const iqdb_field *changes = &change;
    if (which == 1) {
        EXPECT(b.capacity >= sizeof change);
        memcpy(b.bytes, &change, sizeof change);
        changes = (const iqdb_field *)b.bytes;
    }
    if (which == 2) change.value = iqdb_payload_get(first, "text");
    if (which == 3) change.value = iqdb_payload_get(first, "raw");
    if (which == 4) change.value = iqdb_payload_get(first, "list");
    if (which == 5 && EXPECT(iqdb_payload_at(first, 1, &seen))) change.key = seen.key;
    const iqdb_result result = iqdb_payload_with(which == 0 ? first : none, changes, 1, &b, &out);
    iqdb_buffer_free(&b);
    return result;
}
CELL(with_payload_inside) { return with_inside(0); }
CELL(with_changes_inside) { return with_inside(1); }
CELL(with_text_inside) { return with_inside(2); }
CELL(with_bytes_inside) { return with_inside(3); }
CELL(with_array_inside) { return with_inside(4); }
CELL(with_key_inside) { return with_inside(5); }

CELL(get_too_small) {
    unsigned char *memory = NULL;
    iqdb_record record;
    iqdb_buffer b = iqdb_buffer_fixed(NULL, 0);
    const iqdb_result result = iqdb_get(now.db, 1, &b, &record);
    const size_t needed = b.needed;
    EXPECT(needed >= PUBLIC_DIM * sizeof(float));
    memory = (unsigned char *)malloc(needed);
    b = iqdb_buffer_fixed(memory, needed); /* what it asked for suffices, */
    EXPECT(iqdb_get(now.db, 1, &b, &record) == IQDB_OK);
    free(memory);
    memory = (unsigned char *)malloc(needed + 256);
    for (size_t shift = 0; shift < 16 && memory != NULL; shift++) { /* wherever the memory begins */
        b = iqdb_buffer_fixed(memory + shift, 0);
        EXPECT(iqdb_get(now.db, 1, &b, &record) == IQDB_ERR_LIMIT);
        EXPECT(b.needed <= 256);
        b = iqdb_buffer_fixed(memory + shift, b.needed);
        EXPECT(iqdb_get(now.db, 1, &b, &record) == IQDB_OK);
        EXPECT((uintptr_t)record.vector % sizeof(float) == 0);
        EXPECT(iqdb_payload_int(record.payload, "version", -1) == 1);
        EXPECT(b.used <= b.capacity);
    }
    free(memory);
    return result;
}
CELL(get_tiny_sizes) { /* every size from 0 up: LIMIT with the same `needed` until it fits */
    iqdb_record record;
    iqdb_result result = IQDB_ERR_LIMIT;
    size_t size = 0, refused = 0;
    for (; size < sizeof good_memory; size++) {
        iqdb_buffer b = iqdb_buffer_fixed(good_memory, size);
        result = iqdb_get(now.db, 1, &b, &record);
        if (result != IQDB_ERR_LIMIT) break;
        EXPECT(b.needed > size);
        refused++;
    }
    EXPECT(refused >= PUBLIC_DIM * sizeof(float));
    return result;
}
CELL(search_too_small) {
    iqdb_query q = good_query();
    iqdb_buffer b = iqdb_buffer_fixed(NULL, 0);
    q.flags = IQDB_WITH_PAYLOAD;
    q.buffer = &b;
    q.k = 4;
    const iqdb_result result = iqdb_search(now.db, &q, good_hits, &good_count);
    const size_t needed = b.needed;
    EXPECT(needed > 0);
    void *memory = malloc(needed);
    b = iqdb_buffer_fixed(memory, needed);
    EXPECT(iqdb_search(now.db, &q, good_hits, &good_count) == IQDB_OK);
    EXPECT(good_count == 4);
    free(memory);
    return result;
}
CELL(many_too_small) {
    iqdb_query q = good_query();
    iqdb_buffer b = iqdb_buffer_fixed(NULL, 0);
    float two[2 * PUBLIC_DIM] = {1, 2, 3, 4, 5, 6};
    q.flags = IQDB_WITH_PAYLOAD;
    q.buffer = &b;
    q.k = 3;
    const iqdb_result result = iqdb_search_batch(now.db, &q, two, 2, good_hits, good_counts);
    const size_t needed = b.needed;
    void *memory = malloc(needed);
    b = iqdb_buffer_fixed(memory, needed);
    EXPECT(iqdb_search_batch(now.db, &q, two, 2, good_hits, good_counts) == IQDB_OK);
    EXPECT(good_counts[0] == 3 && good_counts[1] == 3);
    free(memory);
    return result;
}
CELL(with_too_small) {
    iqdb_field field = public_field("key", iqdb_text("value"));
    const iqdb_payload none = {NULL, 0};
    iqdb_payload out;
    iqdb_buffer b = iqdb_buffer_fixed(NULL, 0);
    const iqdb_result result = iqdb_payload_with(none, &field, 1, &b, &out);
    const size_t needed = b.needed;
    void *memory = malloc(needed);
    b = iqdb_buffer_fixed(memory, needed);
    EXPECT(iqdb_payload_with(none, &field, 1, &b, &out) == IQDB_OK);
    EXPECT(strcmp(iqdb_payload_text(out, "key", NULL), "value") == 0);
    free(memory);
    return result;
}

/* k and counts */
CELL(overflow_count) {
    iqdb_query q = good_query();
    q.k = 3;
    return iqdb_search_batch(now.db, &q, good_vector, (size_t)-1 / 2, good_hits, good_counts);
}
CELL(overflow_k) {
    iqdb_query q = good_query();
    q.k = (size_t)-1;
    return iqdb_search_batch(now.db, &q, good_vector, 2, good_hits, good_counts);
}
CELL(overflow_bytes) { /* the product fits, its size in bytes does not */
    iqdb_query q = good_query();
    q.k = (size_t)-1 / 8;
    return iqdb_search_batch(now.db, &q, good_vector, 2, good_hits, good_counts);
}
CELL(k_zero) {
    iqdb_query q = good_query();
    q.k = 0;
    good_count = 5;
    const iqdb_result result = iqdb_search(now.db, &q, NULL, &good_count);
    EXPECT(good_count == 0);
    return result;
}
CELL(k_zero_many) {
    iqdb_query q = good_query();
    q.k = 0;
    good_counts[0] = good_counts[1] = 5;
    const float two[6] = {1, 2, 3, 4, 5, 6};
    const iqdb_result result = iqdb_search_batch(now.db, &q, two, 2, NULL, good_counts);
    EXPECT(good_counts[0] == 0 && good_counts[1] == 0);
    return result;
}
CELL(k_beyond) {
    iqdb_query q = good_query();
    q.k = 16;
    const iqdb_result result = iqdb_search(now.db, &q, good_hits, &good_count);
    EXPECT(good_count == 4);
    return result;
}
CELL(k_huge) { /* more hits than memory could hold: refused, or answered with the records there are; no wrap, no hang */
    iqdb_query q = good_query();
    q.k = (size_t)-1;
    good_count = 4;
    const iqdb_result result = iqdb_search(now.db, &q, good_hits, &good_count);
    EXPECT(good_count == 4);
    return result;
}
CELL(k_large) { /* what memory could hold */
    iqdb_query q = good_query();
    q.k = (size_t)-1 / 64;
    const iqdb_result result = iqdb_search(now.db, &q, good_hits, &good_count);
    EXPECT(good_count == 4);
    return result;
}

/* Vectors */
static float long_vector[IQDB_DIM_MAX + 1];
CELL(upsert_too_long) { const iqdb_record r = public_record(77, long_vector, IQDB_DIM_MAX + 1); return iqdb_upsert(now.db, &r); }
CELL(upsert_far_too_long) { const iqdb_record r = public_record(77, long_vector, 0xffffffffu); return iqdb_upsert(now.db, &r); }
CELL(search_too_long) {
    const iqdb_query q = public_query(long_vector, IQDB_DIM_MAX + 1, 2, IQDB_METRIC_DEFAULT);
    return iqdb_search(now.db, &q, good_hits, &good_count);
}
CELL(many_too_long) {
    const iqdb_query q = public_query(long_vector, 0xffffffffu, 2, IQDB_METRIC_DEFAULT);
    return iqdb_search_batch(now.db, &q, long_vector, 1, good_hits, good_counts);
}
CELL(distance_too_long) { float d; return iqdb_distance(IQDB_L2, long_vector, long_vector, IQDB_DIM_MAX + 1, &d); }
CELL(distance_far_too_long) { float d; return iqdb_distance(IQDB_DOT, long_vector, long_vector, (size_t)-1, &d); }
CELL(distance_empty) { float d; return iqdb_distance(IQDB_COSINE, good_vector, good_vector, 0, &d); }
CELL(check_empty) { return iqdb_vector_check(good_vector, 0); }
CELL(check_too_long) { return iqdb_vector_check(long_vector, IQDB_DIM_MAX + 1); }
CELL(check_longest) { return iqdb_vector_check(long_vector, IQDB_DIM_MAX); }
CELL(check_zero_vector) { return iqdb_vector_check(long_vector, 3); }

/* Every place of every length up to 70 and every kind of bad element, in every call that takes a vector. */
static iqdb_result poisoned_vectors(int call) {
    iqdb_result worst = IQDB_ERR_INVALID_VECTOR;
    float vector[3 * 4];
    const float bad[4] = {NAN_F, -NAN_F, INF_F, -INF_F};
    for (size_t kind = 0; kind < 4; kind++) {
        for (size_t place = 0; place < PUBLIC_DIM; place++) {
            iqdb_result result = IQDB_OK;
            float d;
            for (size_t i = 0; i < 12; i++) vector[i] = 1.0f;
            vector[place] = bad[kind];
            const iqdb_record record = public_record(77, vector, PUBLIC_DIM);
            const iqdb_query query = public_query(vector, PUBLIC_DIM, 2, IQDB_METRIC_DEFAULT);
            if (call == 0) result = iqdb_upsert(now.db, &record);
            if (call == 1) {
                iqdb_record two[2];
                two[0] = good_record();
                two[1] = record;
                result = iqdb_upsert_batch(now.db, two, 2);
            }
            if (call == 2) {
                iqdb_op op = iqdb_op_default();
                op.record = &record;
                result = iqdb_apply(now.db, &op, 1);
            }
            if (call == 3) result = iqdb_search(now.db, &query, good_hits, &good_count);
            if (call == 4) {
                vector[place] = 1.0f;
                vector[2 * PUBLIC_DIM + place] = bad[kind];
                result = iqdb_search_batch(now.db, &query, vector, 3, good_hits, good_counts);
            }
            if (call == 5) result = iqdb_distance(IQDB_DOT, vector, good_vector, PUBLIC_DIM, &d);
            if (call == 6) result = iqdb_distance(IQDB_DOT, good_vector, vector, PUBLIC_DIM, &d);
            if (call == 7) {
                result = iqdb_vector_check(vector, PUBLIC_DIM);
                EXPECT(iqdb_vector_norm(vector, PUBLIC_DIM) == 0.0f);
            }
            if (result != IQDB_ERR_INVALID_VECTOR) worst = result;
        }
    }
    return worst;
}
CELL(upsert_not_finite) { return poisoned_vectors(0); }
CELL(batch_not_finite) { return poisoned_vectors(1); }
CELL(apply_not_finite) { return poisoned_vectors(2); }
CELL(search_not_finite) { return poisoned_vectors(3); }
CELL(many_not_finite) { return poisoned_vectors(4); }
CELL(distance_a_not_finite) { return poisoned_vectors(5); }
CELL(distance_b_not_finite) { return poisoned_vectors(6); }
CELL(check_not_finite) { return poisoned_vectors(7); }
CELL(check_every_place) {
    iqdb_result worst = IQDB_ERR_INVALID_VECTOR;
    float vector[300];
    memset(vector, 0, sizeof vector);
    for (size_t dim = 1; dim <= 300; dim++) {
        for (size_t place = 0; place < dim; place++) {
            vector[place] = (dim + place) % 3 == 0 ? NAN_F : (dim + place) % 3 == 1 ? INF_F : -INF_F;
            const iqdb_result result = iqdb_vector_check(vector, dim);
            if (result != IQDB_ERR_INVALID_VECTOR) worst = result;
            vector[place] = 3.0e38f; /* finite, if only just */
        }
        EXPECT(iqdb_vector_check(vector, dim) == IQDB_OK);
    }
    return worst;
}

CELL(upsert_no_dim) { const iqdb_record r = public_record(77, good_vector, 0); return iqdb_upsert(now.db, &r); }
CELL(upsert_wrong_dim) { const iqdb_record r = public_record(77, good_vector, 4); return iqdb_upsert(now.db, &r); }
CELL(upsert_wrong_dim_smaller) { const iqdb_record r = public_record(1, good_vector, 2); return iqdb_upsert(now.db, &r); }
CELL(batch_wrong_dim_last) {
    iqdb_record two[2];
    two[0] = good_record();
    two[1] = public_record(78, good_vector, 4);
    return iqdb_upsert_batch(now.db, two, 2);
}
CELL(batch_two_dims_first) { /* in a collection that has none yet, the first record would give one */
    iqdb_record two[2];
    two[0] = public_record(1, good_vector, 3);
    two[1] = public_record(2, good_vector, 4);
    return iqdb_upsert_batch(now.db, two, 2);
}
CELL(apply_wrong_dim_last) {
    const iqdb_record good = good_record(), wrong = public_record(78, good_vector, 4);
    iqdb_op ops[3];
    ops[0] = ops[1] = ops[2] = iqdb_op_default();
    ops[0].kind = IQDB_OP_DELETE;
    ops[0].id = 1;
    ops[1].record = &good;
    ops[2].record = &wrong;
    return iqdb_apply(now.db, ops, 3);
}
CELL(search_wrong_dim) {
    const iqdb_query q = public_query(good_vector, 4, 2, IQDB_METRIC_DEFAULT);
    return iqdb_search(now.db, &q, good_hits, &good_count);
}
CELL(many_wrong_dim) {
    const iqdb_query q = public_query(good_vector, 2, 2, IQDB_METRIC_DEFAULT);
    return iqdb_search_batch(now.db, &q, good_vector, 2, good_hits, good_counts);
}
static iqdb_result search_empty(uint32_t dim) {
    const iqdb_query q = public_query(long_vector, dim, 2, IQDB_METRIC_DEFAULT);
    good_count = 5;
    const iqdb_result result = iqdb_search(now.db, &q, good_hits, &good_count);
    EXPECT(good_count == 0);
    good_counts[0] = good_counts[1] = 5;
    EXPECT(iqdb_search_batch(now.db, &q, long_vector, 2, good_hits, good_counts) == result);
    EXPECT(good_counts[0] == 0 && good_counts[1] == 0);
    return result;
}
CELL(empty_dim_1) { return search_empty(1); }
CELL(empty_dim_3) { return search_empty(3); }
CELL(empty_dim_longest) { return search_empty(IQDB_DIM_MAX / 2); }
CELL(empty_dim_0) {
    const iqdb_query q = public_query(good_vector, 0, 2, IQDB_METRIC_DEFAULT);
    good_count = 5;
    const iqdb_result result = iqdb_search(now.db, &q, good_hits, &good_count);
    EXPECT(good_count == 0);
    return result;
}

/* Payloads. `through` is the call the fields go through. */
static iqdb_result write_fields(int through, const iqdb_field *fields, size_t count) {
    iqdb_record record = good_record();
    record.fields = fields;
    record.field_count = count;
    if (through == 0) return iqdb_upsert(now.db, &record);
    if (through == 1) {
        iqdb_record two[2];
        two[0] = public_record(78, good_vector, PUBLIC_DIM);
        two[1] = record;
        return iqdb_upsert_batch(now.db, two, 2);
    }
    if (through == 2) {
        iqdb_op ops[2];
        ops[0] = ops[1] = iqdb_op_default();
        ops[0].kind = IQDB_OP_DELETE;
        ops[0].id = 1;
        ops[1].record = &record;
        return iqdb_apply(now.db, ops, 2);
    }
    const iqdb_payload none = {NULL, 0};
    iqdb_payload out;
    iqdb_buffer b = iqdb_buffer_default();
    const iqdb_result result = iqdb_payload_with(none, fields, count, &b, &out);
    iqdb_buffer_free(&b);
    return result;
}

/* Through every call; all have to agree. */
static iqdb_result write_everywhere(const iqdb_field *fields, size_t count) {
    const iqdb_result result = write_fields(0, fields, count);
    for (int through = 1; through < 4; through++) EXPECT(write_fields(through, fields, count) == result);
    return result;
}
static iqdb_result write_value(iqdb_value value) {
    iqdb_field fields[2];
    fields[0] = public_field("good", iqdb_int(1));
    fields[1] = public_field("value", value);
    return write_everywhere(fields, 2);
}
CELL(key_twice) {
    iqdb_field fields[3];
    fields[0] = public_field("a", iqdb_int(1));
    fields[1] = public_field("b", iqdb_int(1));
    fields[2] = public_field("a", iqdb_int(1));
    iqdb_result result = IQDB_OK;
    for (int through = 0; through < 3; through++) { /* payload_with is asked below: two changes of one key */
        const iqdb_result one = write_fields(through, fields, 3);
        EXPECT(through == 0 || one == result);
        result = one;
    }
    return result;
}
CELL(key_twice_inside) {
    iqdb_field inner[2];
    inner[0] = inner[1] = public_field("a", iqdb_int(1));
    return write_value(iqdb_object(inner, 2));
}
CELL(key_null) {
    const iqdb_field field = public_field(NULL, iqdb_int(1));
    return write_everywhere(&field, 1);
}
CELL(key_null_inside) {
    const iqdb_field field = public_field(NULL, iqdb_int(1));
    return write_value(iqdb_object(&field, 1));
}
static const char *const not_utf8[] = {
    "\x80",             /* a continuation without its start */
    "a\xbf",            /* the same, later */
    "\xc3",             /* a start without its continuation */
    "\xc3(",            /* a start and something else */
    "\xc0\x80",         /* an overlong NUL */
    "\xc1\xbf",         /* overlong */
    "\xe0\x80\xaf",     /* overlong in three */
    "\xe2\x82",         /* cut */
    "\xed\xa0\x80",     /* a surrogate */
    "\xed\xbf\xbf",     /* the last surrogate */
    "\xf0\x80\x80\xaf", /* overlong in four */
    "\xf4\x90\x80\x80", /* beyond U+10FFFF */
    "\xf5\x80\x80\x80", /* no such start */
    "\xf0\x9f\x98",     /* cut in four */
    "\xff",
    "good until here \xfe",
};
CELL(key_not_utf8) {
    iqdb_result worst = IQDB_ERR_INVALID_PAYLOAD;
    for (size_t i = 0; i < sizeof not_utf8 / sizeof not_utf8[0]; i++) {
        const iqdb_field field = public_field(not_utf8[i], iqdb_int(1));
        const iqdb_result outer = write_everywhere(&field, 1), inner = write_value(iqdb_object(&field, 1));
        if (outer != IQDB_ERR_INVALID_PAYLOAD) worst = outer;
        if (inner != IQDB_ERR_INVALID_PAYLOAD) worst = inner;
    }
    return worst;
}
CELL(text_not_utf8) {
    iqdb_result worst = IQDB_ERR_INVALID_PAYLOAD;
    for (size_t i = 0; i < sizeof not_utf8 / sizeof not_utf8[0]; i++) {
        const iqdb_value value = iqdb_text(not_utf8[i]);
        const iqdb_result outer = write_value(value), inner = write_value(iqdb_array(&value, 1));
        if (outer != IQDB_ERR_INVALID_PAYLOAD) worst = outer;
        if (inner != IQDB_ERR_INVALID_PAYLOAD) worst = inner;
    }
    return worst;
}
CELL(text_cut) { /* good UTF-8, but size ends inside a character */
    return write_value(iqdb_text_n("\xe2\x82\xac", 2));
}
CELL(text_null) { return write_value(iqdb_text(NULL)); }
CELL(text_null_inside) {
    const iqdb_value value = iqdb_text(NULL);
    return write_value(iqdb_array(&value, 1));
}
CELL(bytes_null) { return write_value(iqdb_bytes(NULL, 5)); }
CELL(array_null) { return write_value(iqdb_array(NULL, 2)); }
CELL(object_null) { return write_value(iqdb_object(NULL, 2)); }
CELL(type_unknown) {
    iqdb_value value = iqdb_int(3);
    const int number = 100;
    memcpy(&value.type, &number, sizeof number);
    return write_value(value);
}

/* `containers` arrays, or arrays and objects by turns, around one number; the payload itself is one more. */
static iqdb_result write_nested(size_t containers, int objects) {
    static iqdb_value values[100001];
    static iqdb_field fields[100001];
    values[0] = iqdb_int(1);
    for (size_t i = 0; i < containers; i++) {
        fields[i] = public_field("in", values[i]);
        values[i + 1] = objects && i % 2 == 0 ? iqdb_object(&fields[i], 1) : iqdb_array(&values[i], 1);
    }
    iqdb_field field = public_field("nest", values[containers]);
    const iqdb_payload none = {NULL, 0};
    iqdb_payload out;
    iqdb_buffer b = iqdb_buffer_default();
    const iqdb_result result = iqdb_payload_with(none, &field, 1, &b, &out);
    if (result == IQDB_OK) {
        iqdb_value value = iqdb_payload_get(out, "nest");
        size_t depth = 0;
        while (iqdb_value_count(value) == 1 && depth <= containers) {
            value = iqdb_value_at(value, 0);
            depth++;
        }
        EXPECT(depth == containers);
        EXPECT(value.type == IQDB_TYPE_INT);
    } else {
        EXPECT(write_fields(0, &field, 1) == result);
        EXPECT(write_fields(2, &field, 1) == result);
    }
    iqdb_buffer_free(&b);
    return result;
}
CELL(depth_just_good) { EXPECT(write_nested(IQDB_PAYLOAD_DEPTH_MAX - 1, 1) == IQDB_OK); return write_nested(IQDB_PAYLOAD_DEPTH_MAX - 1, 0); }
CELL(depth_one_more) { EXPECT(write_nested(IQDB_PAYLOAD_DEPTH_MAX, 1) == IQDB_ERR_INVALID_PAYLOAD); return write_nested(IQDB_PAYLOAD_DEPTH_MAX, 0); }
CELL(depth_absurd) { return write_nested(100000, 1); }
CELL(depth_endless) {
    iqdb_value value = iqdb_null();
    value = iqdb_array(&value, 1); /* contains itself */
    return write_value(value);
}

static iqdb_result write_bytes(const void *bytes, size_t size) {
    iqdb_record record = good_record();
    record.payload.bytes = bytes;
    record.payload.size = size;
    return iqdb_upsert(now.db, &record);
}
CELL(bytes_empty) { return write_bytes("", 0); }
CELL(bytes_garbage) {
    iqdb_result worst = IQDB_ERR_INVALID_PAYLOAD;
    uint64_t state = 5;
    unsigned char bytes[64];
    for (size_t round = 0; round < 2000; round++) {
        const size_t size = 5 + (size_t)support_random_below(&state, 59);
        for (size_t i = 0; i < size; i++) bytes[i] = (unsigned char)(support_random(&state) | 128u);
        const iqdb_result result = write_bytes(bytes, size);
        if (result != IQDB_ERR_INVALID_PAYLOAD) worst = result;
    }
    return worst;
}
CELL(bytes_cut) { /* every proper prefix of a good payload, and the payload with a byte behind it that is no NUL */
    iqdb_value items[2];
    iqdb_field fields[4];
    items[0] = iqdb_int(-1);
    items[1] = iqdb_text("x");
    fields[0] = public_field("a", iqdb_array(items, 2));
    fields[1] = public_field("b", iqdb_float(2.5));
    fields[2] = public_field("c", iqdb_text("some text"));
    fields[3] = public_field("d", iqdb_object(fields, 3));
    iqdb_result worst = IQDB_ERR_INVALID_PAYLOAD;
    const iqdb_payload none = {NULL, 0};
    iqdb_payload good = {NULL, 0};
    iqdb_buffer b = iqdb_buffer_default();
    EXPECT(iqdb_payload_with(none, fields, 4, &b, &good) == IQDB_OK);
    unsigned char *bytes = (unsigned char *)malloc(good.size + 1);
    memcpy(bytes, good.bytes, good.size);
    bytes[good.size] = 'x';
    for (size_t size = 0; size <= good.size + 1; size++) {
        if (size == good.size) continue;
        const iqdb_result result = write_bytes(bytes, size);
        if (result != IQDB_ERR_INVALID_PAYLOAD) worst = result;
    }
    free(bytes);
    iqdb_buffer_free(&b);
    return worst;
}

/* Iterators and close */
CELL(close_with_iterator) {
    iqdb_iter iter = iqdb_iter_begin(now.db, NULL);
    const iqdb_result before = iqdb_close(now.db);
    EXPECT(iqdb_iter_next(&iter));
    EXPECT(iqdb_close(now.db) == before);
    iqdb_iter_end(&iter);
    return before;
}

/* Absent ids */
CELL(get_absent) {
    iqdb_buffer b = iqdb_buffer_default();
    iqdb_record r;
    const iqdb_result result = iqdb_get(now.db, 12345, &b, &r);
    EXPECT(!iqdb_contains(now.db, 12345));
    iqdb_buffer_free(&b);
    return result;
}
CELL(delete_absent) {
    bool removed = true;
    const iqdb_result result = iqdb_delete(now.db, 12345, &removed);
    EXPECT(!removed);
    return result;
}
CELL(delete_batch_absent) {
    const uint64_t ids[3] = {12345, 12346, 12345};
    size_t removed = 9;
    const iqdb_result result = iqdb_delete_batch(now.db, ids, 3, &removed);
    EXPECT(removed == 0);
    return result;
}

/* Writes, for the handle that may not make them */
CELL(write_upsert) { const iqdb_record r = good_record(); return iqdb_upsert(now.db, &r); }
CELL(write_batch) { const iqdb_record r = good_record(); return iqdb_upsert_batch(now.db, &r, 1); }
CELL(write_delete) { return iqdb_delete(now.db, 1, NULL); }
CELL(write_delete_batch) { const uint64_t id = 1; return iqdb_delete_batch(now.db, &id, 1, NULL); }
CELL(write_apply) { iqdb_op op = iqdb_op_default(); op.kind = IQDB_OP_DELETE; op.id = 1; return iqdb_apply(now.db, &op, 1); }
CELL(write_checkpoint) { return iqdb_checkpoint(now.db); }
CELL(write_verify) { return iqdb_verify(now.db, IQDB_DEPTH_RECORDS, NULL, NULL); }

/* Order: the first check that applies wins */
CELL(order_null_before_nan) {
    const float bad[3] = {NAN_F, 0, 0};
    const iqdb_query q = public_query(bad, PUBLIC_DIM, 2, IQDB_METRIC_DEFAULT);
    return iqdb_search(now.db, &q, NULL, &good_count);
}
CELL(order_flag_before_k) {
    iqdb_query q = good_query();
    q.k = 0;
    q.flags = 0x10000000u;
    return iqdb_search(now.db, &q, NULL, &good_count);
}
CELL(order_metric_before_k) {
    iqdb_query q = good_query();
    q.k = 0;
    q.metric = unknown_metric(6);
    return iqdb_search(now.db, &q, NULL, &good_count);
}
CELL(order_buffer_before_k) {
    iqdb_query q = good_query();
    q.k = 0;
    q.flags = IQDB_WITH_PAYLOAD;
    return iqdb_search(now.db, &q, NULL, &good_count);
}
CELL(order_k_before_nan) {
    const float bad[3] = {0, NAN_F, 0};
    const iqdb_query q = public_query(bad, PUBLIC_DIM, 0, IQDB_METRIC_DEFAULT);
    return iqdb_search(now.db, &q, good_hits, &good_count);
}
CELL(order_k_before_dim) {
    const iqdb_query q = public_query(good_vector, 4, 0, IQDB_METRIC_DEFAULT);
    return iqdb_search(now.db, &q, good_hits, &good_count);
}
CELL(order_nan_before_empty) {
    const float bad[3] = {0, 0, NAN_F};
    const iqdb_query q = public_query(bad, PUBLIC_DIM, 2, IQDB_METRIC_DEFAULT);
    return iqdb_search(now.db, &q, good_hits, &good_count);
}
CELL(order_length_before_empty) {
    const iqdb_query q = public_query(long_vector, IQDB_DIM_MAX + 1, 2, IQDB_METRIC_DEFAULT);
    return iqdb_search(now.db, &q, good_hits, &good_count);
}
CELL(order_nan_before_dim) {
    const float bad[4] = {0, 0, 0, NAN_F};
    const iqdb_query q = public_query(bad, 4, 2, IQDB_METRIC_DEFAULT);
    const iqdb_record r = public_record(77, bad, 4);
    EXPECT(iqdb_search(now.db, &q, good_hits, &good_count) == IQDB_ERR_INVALID_VECTOR);
    return iqdb_upsert(now.db, &r);
}
CELL(order_dim_before_payload) {
    iqdb_record r = public_record(77, good_vector, 4);
    r.payload.bytes = "rubbish";
    r.payload.size = 7;
    return iqdb_upsert(now.db, &r);
}
CELL(order_readonly_before_nan) {
    const float bad[3] = {0, NAN_F, 0};
    const iqdb_record r = public_record(77, bad, 3);
    return iqdb_upsert(now.db, &r);
}
CELL(order_null_before_readonly) { return iqdb_upsert(now.db, NULL); }

/* ---- The table ---- */

/* TELLS: a failure goes to options.error and to the logger. SILENT: it does not, for searches and gets share nothing. */
enum { SILENT = 0, TELLS = 1, EITHER = 2 };

typedef struct cell {
    const char *call;
    const char *argument;
    iqdb_result expected;
    iqdb_result or_else; /* the same, except where the manual leaves it open */
    iqdb_result (*run)(void);
    unsigned on;
    int tells;
} cell;

#define ROW(call, argument, code, run, on, tells) {call, argument, code, code, run, on, tells}
#define NULL_ARGUMENT IQDB_ERR_INVALID_ARGUMENT

static const cell cells[] = {
    ROW("open", "path NULL", NULL_ARGUMENT, open_path, MEMORY, SILENT),
    ROW("open", "out_db NULL", NULL_ARGUMENT, open_out, MEMORY, SILENT),
    ROW("open_in_memory", "out_db NULL", NULL_ARGUMENT, open_memory_out, MEMORY, SILENT),
    ROW("close", "db NULL", IQDB_OK, close_null, MEMORY, SILENT),
    ROW("flush", "db NULL", NULL_ARGUMENT, flush_null, MEMORY, SILENT),
    ROW("checkpoint", "db NULL", NULL_ARGUMENT, checkpoint_null, MEMORY, SILENT),
    ROW("verify", "db NULL", NULL_ARGUMENT, verify_null, MEMORY, SILENT),
    ROW("verify", "report NULL", IQDB_OK, verify_report_null, FILLED | EMPTY | DECLARED | READ_ONLY, SILENT),
    ROW("upsert", "db NULL", NULL_ARGUMENT, upsert_db, MEMORY, SILENT),
    ROW("upsert", "record NULL", NULL_ARGUMENT, upsert_record, FILLED | EMPTY, TELLS),
    {"upsert", "record.vector NULL", IQDB_ERR_INVALID_ARGUMENT, IQDB_ERR_INVALID_VECTOR, upsert_vector, FILLED | EMPTY, TELLS},
    ROW("upsert_batch", "db NULL", NULL_ARGUMENT, batch_db, MEMORY, SILENT),
    ROW("upsert_batch", "records NULL", NULL_ARGUMENT, batch_records, FILLED | EMPTY, TELLS),
    ROW("upsert_batch", "records NULL, count 0", IQDB_OK, batch_nothing, FILLED | EMPTY, SILENT),
    ROW("delete", "db NULL", NULL_ARGUMENT, delete_db, MEMORY, SILENT),
    ROW("delete", "out_removed NULL", IQDB_OK, delete_out, FILLED | EMPTY, SILENT),
    ROW("delete_batch", "db NULL", NULL_ARGUMENT, delete_batch_db, MEMORY, SILENT),
    ROW("delete_batch", "ids NULL", NULL_ARGUMENT, delete_batch_ids, FILLED | EMPTY, TELLS),
    ROW("delete_batch", "out_removed NULL", IQDB_OK, delete_batch_out, FILLED | EMPTY, SILENT),
    ROW("delete_batch", "ids NULL, count 0", IQDB_OK, delete_batch_nothing, FILLED | EMPTY, SILENT),
    ROW("apply", "db NULL", NULL_ARGUMENT, apply_db, MEMORY, SILENT),
    ROW("apply", "ops NULL", NULL_ARGUMENT, apply_ops, FILLED | EMPTY, TELLS),
    ROW("apply", "ops NULL, count 0", IQDB_OK, apply_nothing, FILLED | EMPTY, SILENT),
    ROW("apply", "op.record NULL", NULL_ARGUMENT, apply_record, FILLED | EMPTY, TELLS),
    ROW("get", "db NULL", NULL_ARGUMENT, get_db, MEMORY, SILENT),
    ROW("get", "buffer NULL", NULL_ARGUMENT, get_buffer, FILLED | READ_ONLY, SILENT),
    ROW("get", "out_record NULL", NULL_ARGUMENT, get_out, FILLED, SILENT),
    ROW("search", "db NULL", NULL_ARGUMENT, search_db, MEMORY, SILENT),
    ROW("search", "query NULL", NULL_ARGUMENT, search_query, FILLED | EMPTY, SILENT),
    ROW("search", "hits NULL, k > 0", NULL_ARGUMENT, search_hits, FILLED | EMPTY, SILENT),
    ROW("search", "out_count NULL", NULL_ARGUMENT, search_out, FILLED | EMPTY, SILENT),
    {"search", "query.vector NULL", IQDB_ERR_INVALID_ARGUMENT, IQDB_ERR_INVALID_VECTOR, search_vector, FILLED | EMPTY, SILENT},
    ROW("search_batch", "db NULL", NULL_ARGUMENT, many_db, MEMORY, SILENT),
    ROW("search_batch", "query NULL", NULL_ARGUMENT, many_query, FILLED | EMPTY, SILENT),
    ROW("search_batch", "vectors NULL", NULL_ARGUMENT, many_vectors, FILLED | EMPTY, SILENT),
    ROW("search_batch", "hits NULL", NULL_ARGUMENT, many_hits, FILLED | EMPTY, SILENT),
    ROW("search_batch", "counts NULL", NULL_ARGUMENT, many_counts, FILLED | EMPTY, SILENT),
    ROW("search_batch", "all NULL, vector_count 0", IQDB_OK, many_nothing, FILLED | EMPTY, SILENT),
    ROW("stat", "db NULL", NULL_ARGUMENT, stat_db, MEMORY, SILENT),
    ROW("stat", "out_stats NULL", NULL_ARGUMENT, stat_out, FILLED, SILENT),
    {"distance", "a NULL", IQDB_ERR_INVALID_ARGUMENT, IQDB_ERR_INVALID_VECTOR, distance_a, MEMORY, SILENT},
    {"distance", "b NULL", IQDB_ERR_INVALID_ARGUMENT, IQDB_ERR_INVALID_VECTOR, distance_b, MEMORY, SILENT},
    ROW("distance", "out_distance NULL", NULL_ARGUMENT, distance_out, MEMORY, SILENT),
    ROW("vector_check", "vector NULL", NULL_ARGUMENT, check_null, MEMORY, SILENT),
    ROW("iter_begin", "db NULL", NULL_ARGUMENT, iter_null, MEMORY, SILENT),
    ROW("iter_next, iter_end", "iter NULL", IQDB_OK, iter_next_null, MEMORY, SILENT),
    ROW("iter_begin", "a bad filter", IQDB_ERR_INVALID_FILTER, iter_filter, FILLED | EMPTY, SILENT),
    ROW("search, search_batch", "a bad filter", IQDB_ERR_INVALID_FILTER, search_filter, FILLED | EMPTY, SILENT),
    ROW("search", "hits NULL and a bad filter", NULL_ARGUMENT, order_null_before_filter, FILLED | EMPTY, SILENT),
    ROW("count", "a bad filter", IQDB_ERR_INVALID_FILTER, count_filter, FILLED | EMPTY, SILENT),
    ROW("count", "db NULL", NULL_ARGUMENT, count_db, MEMORY, SILENT),
    ROW("count", "out_count NULL", NULL_ARGUMENT, count_out, FILLED | EMPTY, SILENT),
    ROW("delete_where", "db NULL", NULL_ARGUMENT, where_db, MEMORY, SILENT),
    ROW("delete_where", "filter NULL", NULL_ARGUMENT, where_null, FILLED | EMPTY, TELLS),
    ROW("delete_where", "a bad filter", IQDB_ERR_INVALID_FILTER, where_filter, FILLED | EMPTY, TELLS),
    ROW("update_payload", "db NULL", NULL_ARGUMENT, update_db, MEMORY, SILENT),
    ROW("update_payload", "fields NULL", NULL_ARGUMENT, update_fields, FILLED | EMPTY, TELLS),
    ROW("update_payload", "an absent id", IQDB_ERR_NOT_FOUND, update_absent, FILLED | EMPTY, TELLS),
    ROW("payload_with", "buffer NULL", NULL_ARGUMENT, with_buffer, MEMORY, SILENT),
    ROW("payload_with", "out_payload NULL", NULL_ARGUMENT, with_out, MEMORY, SILENT),
    ROW("payload_with", "changes NULL", NULL_ARGUMENT, with_changes, MEMORY, SILENT),
    ROW("payload_with", "changes NULL, count 0", IQDB_OK, with_nothing, MEMORY, SILENT),
    ROW("what returns no code", "NULL", IQDB_OK, harmless_nulls, MEMORY, SILENT),

    ROW("search, search_batch", "flag 0x80000000", IQDB_ERR_INVALID_ARGUMENT, flag_high, FILLED | EMPTY, SILENT),
    ROW("search, search_batch", "flag 0x40000000", IQDB_ERR_INVALID_ARGUMENT, flag_low, FILLED | EMPTY, SILENT),
    ROW("apply", "kind 2", IQDB_ERR_INVALID_ARGUMENT, kind_unknown, FILLED | EMPTY, TELLS),
    ROW("apply", "kind -1 in the last of two", IQDB_ERR_INVALID_ARGUMENT, kind_unknown_last, FILLED | EMPTY, TELLS),
    ROW("apply", "op.collection another handle", IQDB_ERR_INVALID_ARGUMENT, apply_other_handle, FILLED, TELLS),
    ROW("verify", "depth 4", IQDB_ERR_INVALID_ARGUMENT, depth_unknown, FILLED | EMPTY, TELLS),
    ROW("search", "metric 6", IQDB_ERR_INVALID_ARGUMENT, metric_query, FILLED | EMPTY, SILENT),
    ROW("search_batch", "metric 77", IQDB_ERR_INVALID_ARGUMENT, metric_many, FILLED | EMPTY, SILENT),
    ROW("search", "max_distance NaN", IQDB_ERR_INVALID_ARGUMENT, limit_nan, FILLED | EMPTY, SILENT),
    ROW("search_batch", "after.score NaN", IQDB_ERR_INVALID_ARGUMENT, after_nan, FILLED | EMPTY, SILENT),
    ROW("search", "NaN where no flag asks for it", IQDB_OK, nan_not_asked_for, FILLED | EMPTY, SILENT),
    ROW("reserve", "db NULL", NULL_ARGUMENT, reserve_null, MEMORY, SILENT),
    ROW("reserve", "SIZE_MAX records", IQDB_ERR_LIMIT, reserve_far_too_much, FILLED | EMPTY, TELLS),
    ROW("distance", "metric 6", IQDB_ERR_INVALID_ARGUMENT, metric_distance, MEMORY, SILENT),
    ROW("distance", "metric -1", IQDB_ERR_INVALID_ARGUMENT, metric_negative, MEMORY, SILENT),

    ROW("search, search_batch", "WITH_PAYLOAD, buffer NULL", IQDB_ERR_INVALID_ARGUMENT, payload_no_buffer, FILLED | EMPTY, SILENT),
    ROW("search", "query.vector in the buffer", IQDB_ERR_INVALID_ARGUMENT, query_in_buffer, FILLED, SILENT),
    ROW("search_batch", "vectors in the buffer", IQDB_ERR_INVALID_ARGUMENT, many_in_buffer, FILLED, SILENT),
    ROW("search_batch", "vectors that reach into the buffer", IQDB_ERR_INVALID_ARGUMENT, many_reach_into_buffer, FILLED, SILENT),
    ROW("payload_with", "payload in the buffer", IQDB_ERR_INVALID_ARGUMENT, with_payload_inside, MEMORY, SILENT),
    ROW("payload_with", "changes in the buffer", IQDB_ERR_INVALID_ARGUMENT, with_changes_inside, MEMORY, SILENT),
    ROW("payload_with", "a change's text in the buffer", IQDB_ERR_INVALID_ARGUMENT, with_text_inside, MEMORY, SILENT),
    ROW("payload_with", "a change's bytes in the buffer", IQDB_ERR_INVALID_ARGUMENT, with_bytes_inside, MEMORY, SILENT),
    ROW("payload_with", "a change's array in the buffer", IQDB_ERR_INVALID_ARGUMENT, with_array_inside, MEMORY, SILENT),
    ROW("payload_with", "a change's key in the buffer", IQDB_ERR_INVALID_ARGUMENT, with_key_inside, MEMORY, SILENT),

    ROW("search_batch", "vector_count * k overflows", IQDB_ERR_INVALID_ARGUMENT, overflow_count, FILLED | EMPTY, SILENT),
    ROW("search_batch", "2 * SIZE_MAX", IQDB_ERR_INVALID_ARGUMENT, overflow_k, FILLED | EMPTY, SILENT),
    ROW("search_batch", "bytes of vector_count * k overflow", IQDB_ERR_INVALID_ARGUMENT, overflow_bytes, FILLED | EMPTY, SILENT),
    ROW("search", "k 0", IQDB_OK, k_zero, FILLED | EMPTY | READ_ONLY, SILENT),
    ROW("search_batch", "k 0", IQDB_OK, k_zero_many, FILLED | EMPTY, SILENT),
    ROW("search", "k > records", IQDB_OK, k_beyond, FILLED | READ_ONLY, SILENT),
    {"search", "k SIZE_MAX", IQDB_OK, IQDB_ERR_INVALID_ARGUMENT, k_huge, FILLED, SILENT},
    ROW("search", "k SIZE_MAX / 64", IQDB_OK, k_large, FILLED, SILENT),

    ROW("upsert", "dim 65,537", IQDB_ERR_INVALID_VECTOR, upsert_too_long, FILLED | EMPTY, TELLS),
    ROW("upsert", "dim 2^32 - 1", IQDB_ERR_INVALID_VECTOR, upsert_far_too_long, FILLED | EMPTY, TELLS),
    ROW("search", "dim 65,537", IQDB_ERR_INVALID_VECTOR, search_too_long, FILLED | EMPTY, SILENT),
    ROW("search_batch", "dim 2^32 - 1", IQDB_ERR_INVALID_VECTOR, many_too_long, FILLED | EMPTY, SILENT),
    ROW("distance", "dim 65,537", IQDB_ERR_INVALID_VECTOR, distance_too_long, MEMORY, SILENT),
    ROW("distance", "dim SIZE_MAX", IQDB_ERR_INVALID_VECTOR, distance_far_too_long, MEMORY, SILENT),
    ROW("distance", "dim 0", IQDB_ERR_INVALID_VECTOR, distance_empty, MEMORY, SILENT),
    ROW("vector_check", "dim 0", IQDB_ERR_INVALID_VECTOR, check_empty, MEMORY, SILENT),
    ROW("vector_check", "dim 65,537", IQDB_ERR_INVALID_VECTOR, check_too_long, MEMORY, SILENT),
    ROW("vector_check", "dim 65,536", IQDB_OK, check_longest, MEMORY, SILENT),
    ROW("vector_check", "zero vector", IQDB_OK, check_zero_vector, MEMORY, SILENT),
    ROW("upsert", "NaN or infinity", IQDB_ERR_INVALID_VECTOR, upsert_not_finite, FILLED | EMPTY | DECLARED, TELLS),
    ROW("upsert_batch", "NaN or infinity in the last", IQDB_ERR_INVALID_VECTOR, batch_not_finite, FILLED | EMPTY, TELLS),
    ROW("apply", "NaN or infinity", IQDB_ERR_INVALID_VECTOR, apply_not_finite, FILLED, TELLS),
    ROW("search", "NaN or infinity", IQDB_ERR_INVALID_VECTOR, search_not_finite, FILLED | EMPTY | DECLARED | READ_ONLY, SILENT),
    ROW("search_batch", "NaN or infinity in the last", IQDB_ERR_INVALID_VECTOR, many_not_finite, FILLED | EMPTY, SILENT),
    ROW("distance", "a NaN or infinity", IQDB_ERR_INVALID_VECTOR, distance_a_not_finite, MEMORY, SILENT),
    ROW("distance", "b NaN or infinity", IQDB_ERR_INVALID_VECTOR, distance_b_not_finite, MEMORY, SILENT),
    ROW("vector_check, vector_norm", "NaN or infinity", IQDB_ERR_INVALID_VECTOR, check_not_finite, MEMORY, SILENT),
    ROW("vector_check", "not finite at every place of dim 1 to 300", IQDB_ERR_INVALID_VECTOR, check_every_place, MEMORY, SILENT),
    ROW("upsert", "record.dim 0, collection has none", IQDB_ERR_INVALID_VECTOR, upsert_no_dim, EMPTY, TELLS),
    ROW("search", "empty collection, dim 1", IQDB_OK, empty_dim_1, EMPTY | DECLARED, SILENT),
    ROW("search", "empty collection, dim 3", IQDB_OK, empty_dim_3, EMPTY | DECLARED, SILENT),
    ROW("search", "empty collection, dim 32,768", IQDB_OK, empty_dim_longest, EMPTY | DECLARED, SILENT),
    ROW("search", "empty collection, dim 0", IQDB_OK, empty_dim_0, EMPTY | DECLARED, SILENT),
    ROW("upsert", "dim 4 in a collection of 3", IQDB_ERR_DIMENSION_MISMATCH, upsert_wrong_dim, FILLED | DECLARED, TELLS),
    ROW("upsert", "dim 2 in a collection of 3", IQDB_ERR_DIMENSION_MISMATCH, upsert_wrong_dim_smaller, FILLED | DECLARED, TELLS),
    ROW("upsert_batch", "dim 4 in the last", IQDB_ERR_DIMENSION_MISMATCH, batch_wrong_dim_last, FILLED | DECLARED, TELLS),
    ROW("upsert_batch", "dims 3 and 4 as the first records", IQDB_ERR_DIMENSION_MISMATCH, batch_two_dims_first, EMPTY, TELLS),
    ROW("apply", "dim 4 in the last", IQDB_ERR_DIMENSION_MISMATCH, apply_wrong_dim_last, FILLED, TELLS),
    ROW("search", "dim 4 in a collection of 3", IQDB_ERR_DIMENSION_MISMATCH, search_wrong_dim, FILLED | READ_ONLY, SILENT),
    ROW("search_batch", "dim 2 in a collection of 3", IQDB_ERR_DIMENSION_MISMATCH, many_wrong_dim, FILLED, SILENT),

    ROW("writes", "a key twice", IQDB_ERR_INVALID_PAYLOAD, key_twice, FILLED | EMPTY, TELLS),
    ROW("writes, payload_with", "a key twice inside", IQDB_ERR_INVALID_PAYLOAD, key_twice_inside, FILLED, TELLS),
    ROW("writes, payload_with", "key NULL", IQDB_ERR_INVALID_PAYLOAD, key_null, FILLED, TELLS),
    ROW("writes, payload_with", "key NULL inside", IQDB_ERR_INVALID_PAYLOAD, key_null_inside, FILLED, TELLS),
    ROW("writes, payload_with", "key not UTF-8", IQDB_ERR_INVALID_PAYLOAD, key_not_utf8, FILLED, TELLS),
    ROW("writes, payload_with", "text not UTF-8", IQDB_ERR_INVALID_PAYLOAD, text_not_utf8, FILLED, TELLS),
    ROW("writes, payload_with", "text cut in a character", IQDB_ERR_INVALID_PAYLOAD, text_cut, FILLED, TELLS),
    ROW("writes, payload_with", "text NULL", IQDB_ERR_INVALID_PAYLOAD, text_null, FILLED | EMPTY, TELLS),
    ROW("writes, payload_with", "text NULL inside", IQDB_ERR_INVALID_PAYLOAD, text_null_inside, FILLED, TELLS),
    {"writes, payload_with", "bytes NULL, size 5", IQDB_ERR_INVALID_PAYLOAD, IQDB_ERR_INVALID_ARGUMENT, bytes_null, FILLED, TELLS},
    {"writes, payload_with", "array NULL, count 2", IQDB_ERR_INVALID_PAYLOAD, IQDB_ERR_INVALID_ARGUMENT, array_null, FILLED, TELLS},
    {"writes, payload_with", "object NULL, count 2", IQDB_ERR_INVALID_PAYLOAD, IQDB_ERR_INVALID_ARGUMENT, object_null, FILLED, TELLS},
    {"writes, payload_with", "value of type 100", IQDB_ERR_INVALID_PAYLOAD, IQDB_ERR_INVALID_ARGUMENT, type_unknown, FILLED, TELLS},
    ROW("payload_with", "depth 64", IQDB_OK, depth_just_good, MEMORY, SILENT),
    ROW("writes, payload_with", "depth 65", IQDB_ERR_INVALID_PAYLOAD, depth_one_more, FILLED, TELLS),
    ROW("writes, payload_with", "depth 100,001", IQDB_ERR_INVALID_PAYLOAD, depth_absurd, FILLED, TELLS),
    ROW("writes, payload_with", "an array in itself", IQDB_ERR_INVALID_PAYLOAD, depth_endless, FILLED, TELLS),
    ROW("upsert", "payload of 0 bytes", IQDB_ERR_INVALID_PAYLOAD, bytes_empty, FILLED, TELLS),
    ROW("upsert", "payload of random bytes", IQDB_ERR_INVALID_PAYLOAD, bytes_garbage, FILLED, TELLS),
    ROW("upsert", "payload cut or too long", IQDB_ERR_INVALID_PAYLOAD, bytes_cut, FILLED, TELLS),

    ROW("get", "fixed buffer too small", IQDB_ERR_LIMIT, get_too_small, FILLED | READ_ONLY, SILENT),
    ROW("get", "fixed buffers of every size", IQDB_OK, get_tiny_sizes, FILLED, SILENT),
    ROW("search", "fixed buffer too small", IQDB_ERR_LIMIT, search_too_small, FILLED, SILENT),
    ROW("search_batch", "fixed buffer too small", IQDB_ERR_LIMIT, many_too_small, FILLED, SILENT),
    ROW("payload_with", "fixed buffer too small", IQDB_ERR_LIMIT, with_too_small, MEMORY, SILENT),
    ROW("get", "absent id", IQDB_ERR_NOT_FOUND, get_absent, FILLED | EMPTY | DECLARED | READ_ONLY, SILENT),
    ROW("delete", "absent id", IQDB_OK, delete_absent, FILLED | EMPTY | DECLARED, SILENT),
    ROW("delete_batch", "absent ids", IQDB_OK, delete_batch_absent, FILLED | EMPTY, SILENT),
    ROW("close", "while an iterator lives", IQDB_ERR_BUSY, close_with_iterator, FILLED | READ_ONLY, EITHER),

    ROW("upsert", "read_only handle", IQDB_ERR_READONLY, write_upsert, READ_ONLY, TELLS),
    ROW("upsert_batch", "read_only handle", IQDB_ERR_READONLY, write_batch, READ_ONLY, TELLS),
    ROW("delete", "read_only handle", IQDB_ERR_READONLY, write_delete, READ_ONLY, TELLS),
    ROW("delete_batch", "read_only handle", IQDB_ERR_READONLY, write_delete_batch, READ_ONLY, TELLS),
    ROW("apply", "read_only handle", IQDB_ERR_READONLY, write_apply, READ_ONLY, TELLS),
    ROW("reserve", "read_only handle", IQDB_ERR_READONLY, reserve_some, READ_ONLY, TELLS),
    ROW("checkpoint", "read_only handle", IQDB_ERR_READONLY, write_checkpoint, READ_ONLY, TELLS),
    ROW("verify", "read_only handle", IQDB_OK, write_verify, READ_ONLY, SILENT),

    ROW("search", "hits NULL and NaN", IQDB_ERR_INVALID_ARGUMENT, order_null_before_nan, FILLED | EMPTY, SILENT),
    ROW("search", "unknown flag and k 0", IQDB_ERR_INVALID_ARGUMENT, order_flag_before_k, FILLED | EMPTY, SILENT),
    ROW("search", "unknown metric and k 0", IQDB_ERR_INVALID_ARGUMENT, order_metric_before_k, FILLED | EMPTY, SILENT),
    ROW("search", "WITH_PAYLOAD, no buffer and k 0", IQDB_ERR_INVALID_ARGUMENT, order_buffer_before_k, FILLED | EMPTY, SILENT),
    ROW("search", "k 0 and NaN", IQDB_OK, order_k_before_nan, FILLED | EMPTY, SILENT),
    ROW("search", "k 0 and dim 4", IQDB_OK, order_k_before_dim, FILLED | EMPTY, SILENT),
    ROW("search", "NaN in an empty collection", IQDB_ERR_INVALID_VECTOR, order_nan_before_empty, EMPTY | DECLARED, SILENT),
    ROW("search", "dim 65,537 in an empty collection", IQDB_ERR_INVALID_VECTOR, order_length_before_empty, EMPTY | DECLARED, SILENT),
    ROW("search, upsert", "NaN and dim 4", IQDB_ERR_INVALID_VECTOR, order_nan_before_dim, FILLED, TELLS),
    ROW("upsert", "dim 4 and a bad payload", IQDB_ERR_DIMENSION_MISMATCH, order_dim_before_payload, FILLED | DECLARED, TELLS),
    ROW("upsert", "read_only handle and NaN", IQDB_ERR_READONLY, order_readonly_before_nan, READ_ONLY, TELLS),
    ROW("upsert", "read_only handle and record NULL", IQDB_ERR_INVALID_ARGUMENT, order_null_before_readonly, READ_ONLY, TELLS),
};

/* clang-format on */

static void cells_on(unsigned kind) {
    subject_open(kind);
    if (now.db == NULL) return;
    const uint64_t before = subject_digest();
    for (size_t i = 0; i < sizeof cells / sizeof cells[0]; i++) {
        const cell *c = &cells[i];
        if ((c->on & kind) == 0) continue;
        const long failures = test_now.failures;
        memset(&now.error, 0, sizeof now.error);
        memset(&now.log, 0, sizeof now.log);
        const iqdb_result result = c->run();
        EXPECT(result == c->expected || result == c->or_else);
        if (c->tells == TELLS && result != IQDB_OK) {
            EXPECT(now.error.code == result);
            EXPECT(now.error.text[0] != 0 && memchr(now.error.text, 0, sizeof now.error.text) != NULL);
            EXPECT(now.log.messages > 0);
            EXPECT(now.log.last.code == result);
            if (result == IQDB_ERR_DIMENSION_MISMATCH) {
                EXPECT(now.error.dim_expected == PUBLIC_DIM);
                EXPECT(now.error.dim_found == 4 || now.error.dim_found == 2);
            }
        }
        if (c->tells == SILENT) EXPECT(now.error.code == IQDB_OK);
        EXPECT(subject_digest() == before);
        if (test_now.failures != failures)
            printf("\n      ... %s: %s (%s): got %d %s, expected %d", c->call, c->argument, kind_name(kind),
                   (int)result, iqdb_strerror(result), (int)c->expected);
    }
    subject_close();
}

static void every_cell_in_memory(void) { cells_on(MEMORY); }
static void every_cell_on_disk(void) { cells_on(DISK); }
static void every_cell_on_an_empty_collection(void) { cells_on(EMPTY); }
static void every_cell_with_a_declared_dimension(void) { cells_on(DECLARED); }
static void every_cell_on_a_read_only_handle(void) { cells_on(READ_ONLY); }

/* What the calls above refused changed nothing durable either. */
static void refused_writes_leave_nothing_on_disk(void) {
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    iqdb *db = NULL;
    support_directory(folder);
    support_join(path, folder, "db");
    CHECK_EQ_INT(iqdb_open(path, NULL, &db), IQDB_OK);
    subject_fill(db);
    const uint64_t before = digest_database(db);
    now.db = db;
    EXPECT(upsert_wrong_dim() == IQDB_ERR_DIMENSION_MISMATCH);
    EXPECT(apply_wrong_dim_last() == IQDB_ERR_DIMENSION_MISMATCH);
    EXPECT(batch_not_finite() == IQDB_ERR_INVALID_VECTOR);
    EXPECT(key_twice() == IQDB_ERR_INVALID_PAYLOAD);
    now.db = NULL;
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(path, NULL, &db), IQDB_OK);
    EXPECT(digest_database(db) == before);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
}

/* ---- Sizes ---- */

static void payloads_end_at_64_mib(void) {
    if (support_amount(0, 1, 1) == 0) TEST_SKIP("takes 64 MiB and a while: not in the quick tier");
    const size_t limit = IQDB_PAYLOAD_SIZE_MAX;
    char *text = (char *)malloc(limit + 1);
    CHECK(text != NULL);
    memset(text, 'x', limit + 1);
    const iqdb_payload none = {NULL, 0};
    iqdb_payload out = {NULL, 0};
    iqdb_buffer b = iqdb_buffer_default();
    iqdb_field field = public_field("t", iqdb_text_n(text, limit - 64));
    CHECK_EQ_INT(iqdb_payload_with(none, &field, 1, &b, &out), IQDB_OK);
    const size_t overhead = out.size - (limit - 64);
    CHECK(overhead <= 64);
    field.value = iqdb_text_n(text, limit - overhead);
    CHECK_EQ_INT(iqdb_payload_with(none, &field, 1, &b, &out), IQDB_OK);
    EXPECT(out.size == limit);
    field.value = iqdb_text_n(text, limit - overhead + 1);
    CHECK_EQ_INT(iqdb_payload_with(none, &field, 1, &b, &out), IQDB_ERR_LIMIT);
    subject_open(MEMORY);
    EXPECT(write_fields(0, &field, 1) == IQDB_ERR_LIMIT);
    EXPECT(now.error.code == IQDB_ERR_LIMIT);
    EXPECT(write_fields(1, &field, 1) == IQDB_ERR_LIMIT);
    EXPECT(write_fields(2, &field, 1) == IQDB_ERR_LIMIT);
    EXPECT(iqdb_len(now.db) == 4);
    field.value = iqdb_text_n(text, limit - overhead);
    EXPECT(write_fields(0, &field, 1) == IQDB_OK);
    iqdb_record record;
    EXPECT(iqdb_get(now.db, 77, &b, &record) == IQDB_OK);
    EXPECT(record.payload.size == limit);
    subject_close();
    iqdb_buffer_free(&b);
    free(text);
}

/* Each of 40 arrays holds the one below twice: a terabyte of leaves from a handful of values. */
static void a_payload_that_explodes_is_refused(void) {
    if (support_amount(0, 1, 1) == 0) TEST_SKIP("a limit of 64 MiB takes a while to reach: not in the quick tier");
    iqdb_value pairs[41][2];
    pairs[0][0] = pairs[0][1] = iqdb_null();
    for (size_t i = 1; i <= 40; i++) pairs[i][0] = pairs[i][1] = iqdb_array(pairs[i - 1], 2);
    subject_open(MEMORY);
    const iqdb_field field = public_field("bomb", pairs[40][0]);
    EXPECT(write_fields(0, &field, 1) == IQDB_ERR_LIMIT);
    EXPECT(write_fields(3, &field, 1) == IQDB_ERR_LIMIT);
    EXPECT(iqdb_len(now.db) == 4);
    subject_close();
}

/* ---- Options ---- */

static void check_options(const iqdb_options *wrong, const char *what) {
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    const long failures = test_now.failures;
    iqdb_error error;
    iqdb_options options = *wrong;
    public_log log;
    support_heap heap = support_heap_make();
    memset(&error, 0, sizeof error);
    memset(&log, 0, sizeof log);
    options.error = &error;
    options.logger = public_logger(&log);
    options.allocator = support_allocator(&heap);
    support_directory(folder);
    support_join(path, folder, "db");
    iqdb *db = (iqdb *)(void *)folder; /* anything but NULL */
    EXPECT(iqdb_open_in_memory(&options, &db) == IQDB_ERR_INVALID_CONFIG);
    EXPECT(db == NULL);
    EXPECT(error.code == IQDB_ERR_INVALID_CONFIG && error.text[0] != 0);
    memset(&error, 0, sizeof error);
    memset(&log, 0, sizeof log);
    db = (iqdb *)(void *)folder;
    EXPECT(iqdb_open(path, &options, &db) == IQDB_ERR_INVALID_CONFIG);
    EXPECT(db == NULL);
    EXPECT(error.code == IQDB_ERR_INVALID_CONFIG && error.text[0] != 0);
    EXPECT(log.messages > 0 && log.last.code == IQDB_ERR_INVALID_CONFIG);
    EXPECT(support_heap_problems(&heap) == 0);
    EXPECT(access(path, F_OK) != 0); /* nothing was made */
    if (test_now.failures != failures) printf("\n      ... options: %s", what);
    support_remove(folder);
}

static void options_that_make_no_sense(void) {
    const iqdb_options good = iqdb_options_default();
    iqdb_options options = good;
    options.dim = IQDB_DIM_MAX + 1;
    check_options(&options, "dim 65,537");
    options.dim = 0xffffffffu;
    check_options(&options, "dim 2^32 - 1");
    options = good;
    options.metric = unknown_metric(6);
    check_options(&options, "metric 6");
    options.metric = unknown_metric(-1);
    check_options(&options, "metric -1");
    options = good;
    options.sync = unknown_sync(3);
    check_options(&options, "sync 3");
    options = good;
    options.verify = unknown_depth(4);
    check_options(&options, "verify 4");
    options = good;
    options.simd_max = unknown_simd(7);
    check_options(&options, "simd_max 7");
    options = good;
    options.simd_max = unknown_simd(1000);
    check_options(&options, "simd_max 1000");
}

static void *give_nothing(size_t size, size_t alignment, void *user) {
    (void)size;
    (void)alignment;
    (void)user;
    return NULL;
}

/* A table with a hole is refused before anything is called through it. */
static void tables_with_holes(void) {
    for (int hole = 0; hole < 12; hole++) {
        char folder[SUPPORT_PATH_MAX];
        iqdb_options options = iqdb_options_default();
        iqdb *db = (iqdb *)(void *)folder;
        options.files = iqdb_files_default();
        if (hole == 0) options.files.dir_close_fn = NULL;
        if (hole == 1) options.files.dir_sync_fn = NULL;
        if (hole == 2) options.files.dir_list_fn = NULL;
        if (hole == 3) options.files.remove_fn = NULL;
        if (hole == 4) options.files.open_fn = NULL;
        if (hole == 5) options.files.close_fn = NULL;
        if (hole == 6) options.files.size_fn = NULL;
        if (hole == 7) options.files.read_fn = NULL;
        if (hole == 8) options.files.write_fn = NULL;
        if (hole == 9) options.files.sync_fn = NULL;
        if (hole == 10) options.files.lock_fn = NULL;
        if (hole == 11) {
            options.files = iqdb_options_default().files;
            options.allocator.alloc_fn = give_nothing; /* and no free_fn */
        }
        support_directory(folder);
        if (!EXPECT(iqdb_open(folder, &options, &db) == IQDB_ERR_INVALID_CONFIG) || !EXPECT(db == NULL))
            printf("\n      ... hole %d", hole);
        support_remove(folder);
    }
}

static void the_longest_dimension_is_fine(void) {
    iqdb *db = NULL;
    iqdb_options options = iqdb_options_default();
    options.dim = IQDB_DIM_MAX;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    EXPECT(public_put(db, 1, long_vector, IQDB_DIM_MAX) == IQDB_OK);
    EXPECT(public_put(db, 2, long_vector, 0) == IQDB_OK);
    const iqdb_query query = public_query(long_vector, 0, 3, IQDB_L2);
    iqdb_hit hits[3];
    size_t count = 0;
    EXPECT(iqdb_search(db, &query, hits, &count) == IQDB_OK);
    EXPECT(count == 2 && hits[0].id == 1 && hits[1].id == 2);
    EXPECT(iqdb_close(db) == IQDB_OK);
}

/* ---- Paths ---- */

typedef struct place {
    char folder[SUPPORT_PATH_MAX];
    char path[SUPPORT_PATH_MAX];
    iqdb_error error;
    public_log log;
    support_heap heap;
    iqdb_options options;
    iqdb *db;
} place;

static void place_make(place *p) {
    memset(p, 0, sizeof *p);
    support_directory(p->folder);
    support_join(p->path, p->folder, "db");
    p->heap = support_heap_make();
    p->options = iqdb_options_default();
    p->options.error = &p->error;
    p->options.logger = public_logger(&p->log);
    p->options.allocator = support_allocator(&p->heap);
}

static void place_end(place *p) {
    EXPECT(support_heap_problems(&p->heap) == 0);
    support_remove(p->folder);
}

/* An open that has to fail with this code, tell why, and leave everything as it is. */
static int open_fails(place *p, const char *path, iqdb_result expected) {
    memset(&p->error, 0, sizeof p->error);
    memset(&p->log, 0, sizeof p->log);
    p->db = (iqdb *)(void *)p;
    const iqdb_result result = iqdb_open(path, &p->options, &p->db);
    int ok = EXPECT(p->db == NULL) & EXPECT(p->error.code == result) & EXPECT(p->error.text[0] != 0) &
             EXPECT(p->log.messages > 0) & EXPECT(p->log.last.code == result) & EXPECT(p->heap.live_blocks == 0);
    if (!EXPECT(result == expected)) {
        printf("\n      ... open gave %d %s (%s)", (int)result, iqdb_strerror(result), p->error.text);
        ok = 0;
    }
    return ok;
}

static void a_path_that_is_a_file(void) {
    place p;
    char below[SUPPORT_PATH_MAX];
    size_t size;
    place_make(&p);
    EXPECT(public_write_file(p.path, "just a file", 11));
    open_fails(&p, p.path, IQDB_ERR_INVALID_CONFIG);
    p.options.read_only = true;
    open_fails(&p, p.path, IQDB_ERR_INVALID_CONFIG);
    p.options.read_only = false;
    support_join(below, p.path, "db"); /* below a file */
    iqdb *db = (iqdb *)(void *)&p;
    const iqdb_result result = iqdb_open(below, &p.options, &db);
    EXPECT(result == IQDB_ERR_INVALID_CONFIG || result == IQDB_ERR_IO);
    EXPECT(db == NULL);
    unsigned char *bytes = public_read_file(p.path, &size);
    EXPECT(size == 11 && memcmp(bytes, "just a file", 11) == 0);
    free(bytes);
    place_end(&p);
}

/* A link is not taken for the directory behind it, unless the path says so. */
static void a_path_that_is_a_link(void) {
    SUPPORT_NEEDS_POSIX;
    place p;
    char link[SUPPORT_PATH_MAX], through[SUPPORT_PATH_MAX];
    place_make(&p);
    support_join(link, p.folder, "link");
    support_join(through, link, ".");
    CHECK_EQ_INT(iqdb_open(p.path, &p.options, &p.db), IQDB_OK);
    EXPECT(public_store(p.db, 1, 1) == IQDB_OK);
    EXPECT(iqdb_close(p.db) == IQDB_OK);
    EXPECT(symlink(p.path, link) == 0);
    p.db = (iqdb *)(void *)&p;
    const iqdb_result result = iqdb_open(link, &p.options, &p.db);
    EXPECT(result == IQDB_ERR_IO || result == IQDB_ERR_INVALID_CONFIG);
    EXPECT(p.db == NULL && p.error.code == result);
    CHECK_EQ_INT(iqdb_open(through, &p.options, &p.db), IQDB_OK);
    EXPECT(public_holds(p.db, 1, 1));
    EXPECT(iqdb_close(p.db) == IQDB_OK);
    place_end(&p);
}

static void a_path_without_a_name(void) {
    place p;
    place_make(&p);
    iqdb *db = (iqdb *)(void *)&p;
    EXPECT(iqdb_open("", &p.options, &db) != IQDB_OK);
    EXPECT(db == NULL);
    place_end(&p);
}

static void files_of_the_original(void) {
    static const unsigned char snap[] = {'I', 'Q', 'D', 'B', 1, 0, 0, 0};
    static const unsigned char wal[] = {9, 0, 0, 0, 1, 42, 0, 0, 0, 0, 0, 0, 0, 0x73, 0x7e, 0xc4, 0x99};
    for (int which = 1; which <= 3; which++) {
        place p;
        char file[SUPPORT_PATH_MAX];
        place_make(&p);
        EXPECT(mkdir(p.path, 0700) == 0);
        support_join(file, p.path, "snap");
        if (which & 1) EXPECT(public_write_file(file, snap, sizeof snap));
        support_join(file, p.path, "wal");
        if (which & 2) EXPECT(public_write_file(file, wal, sizeof wal));
        const uint64_t before = digest_directory(p.path);
        open_fails(&p, p.path, IQDB_ERR_INVALID_CONFIG);
        EXPECT(digest_directory(p.path) == before);
        EXPECT(public_find(p.path, "META", NULL) == 0);
        place_end(&p);
    }
}

static void read_only_where_nothing_is(void) {
    place p;
    place_make(&p);
    p.options.read_only = true;
    open_fails(&p, p.path, IQDB_ERR_NOT_FOUND);
    EXPECT(access(p.path, F_OK) != 0);
    EXPECT(mkdir(p.path, 0700) == 0); /* a directory, but no database */
    open_fails(&p, p.path, IQDB_ERR_NOT_FOUND);
    EXPECT(public_find(p.path, "META", NULL) == 0 && public_find(p.path, "wal", NULL) == 0);
    place_end(&p);
}

/* In a child without privileges, so that it means something for root too. Exit status: the code, negated. */
static void a_directory_that_may_not_be_written(void) {
    SUPPORT_NEEDS_POSIX;
    place p;
    place_make(&p);
    EXPECT(mkdir(p.path, 0755) == 0);
    EXPECT(chmod(p.folder, 0555) == 0 && chmod(p.path, 0555) == 0);
    fflush(stdout);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        iqdb *db = NULL;
        if (chdir(p.folder) != 0) _exit(200);
        if (getuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(201);
        const iqdb_result there = iqdb_open("db", NULL, &db);
        const iqdb_result fresh = iqdb_open("fresh/below", NULL, &db);
        _exit(there == fresh ? -(int)there : 202);
    }
    int status = 0;
    EXPECT(waitpid(child, &status, 0) == child);
    chmod(p.folder, 0700);
    EXPECT(WIFEXITED(status));
    if (WEXITSTATUS(status) == 201) {
        place_end(&p);
        TEST_SKIP("cannot give up privileges here");
    }
    EXPECT(WEXITSTATUS(status) == -(int)IQDB_ERR_IO);
    EXPECT(public_find(p.path, "META", NULL) == 0);
    place_end(&p);
}

static void a_second_opener(void) {
    SUPPORT_NEEDS_POSIX;
    place p;
    iqdb *first = NULL;
    place_make(&p);
    CHECK_EQ_INT(iqdb_open(p.path, NULL, &first), IQDB_OK);
    EXPECT(public_store(first, 1, 1) == IQDB_OK);
    open_fails(&p, p.path, IQDB_ERR_LOCKED);
    p.options.read_only = true; /* one that only reads takes no lock, and sees what is written */
    CHECK_EQ_INT(iqdb_open(p.path, &p.options, &p.db), IQDB_OK);
    EXPECT(public_holds(p.db, 1, 1));
    EXPECT(iqdb_close(p.db) == IQDB_OK);
    p.options.read_only = false;
    int said[2], result = 0, status = 0;
    CHECK(pipe(said) == 0);
    fflush(stdout);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) { /* it tells and dies, and whatever the parent has open is none of its business */
        iqdb *db = NULL;
        result = (int)iqdb_open(p.path, NULL, &db);
        if (write(said[1], &result, sizeof result) == (ssize_t)sizeof result) raise(SIGKILL);
        _exit(1);
    }
    EXPECT(read(said[0], &result, sizeof result) == (ssize_t)sizeof result);
    EXPECT(waitpid(child, &status, 0) == child);
    EXPECT(WIFSIGNALED(status));
    EXPECT(result == IQDB_ERR_LOCKED);
    close(said[0]);
    close(said[1]);
    /* The first one has not noticed, and neither a failed opener nor the child's end has released its lock. */
    EXPECT(public_store(first, 2, 2) == IQDB_OK);
    EXPECT(iqdb_flush(first) == IQDB_OK);
    open_fails(&p, p.path, IQDB_ERR_LOCKED);
    EXPECT(iqdb_close(first) == IQDB_OK);
    CHECK_EQ_INT(iqdb_open(p.path, &p.options, &p.db), IQDB_OK);
    EXPECT(public_holds(p.db, 1, 1) && public_holds(p.db, 2, 2));
    EXPECT(iqdb_close(p.db) == IQDB_OK);
    place_end(&p);
}

static void options_that_contradict_what_is_stored(void) {
    place p;
    place_make(&p);
    p.options.dim = PUBLIC_DIM;
    p.options.metric = IQDB_L2;
    CHECK_EQ_INT(iqdb_open(p.path, &p.options, &p.db), IQDB_OK);
    EXPECT(public_store(p.db, 1, 1) == IQDB_OK);
    EXPECT(iqdb_close(p.db) == IQDB_OK);
    const uint64_t before = digest_directory(p.path);
    for (int read_only = 0; read_only < 2; read_only++) {
        p.options.read_only = read_only != 0;
        p.options.dim = 4;
        p.options.metric = IQDB_L2;
        open_fails(&p, p.path, IQDB_ERR_INVALID_CONFIG);
        p.options.dim = PUBLIC_DIM;
        p.options.metric = IQDB_COSINE;
        open_fails(&p, p.path, IQDB_ERR_INVALID_CONFIG);
        p.options.dim = 0;
        p.options.metric = IQDB_DOT;
        open_fails(&p, p.path, IQDB_ERR_INVALID_CONFIG);
    }
    EXPECT(digest_directory(p.path) == before);
    p.options.read_only = false;
    for (int named = 0; named < 2; named++) { /* what agrees, or says nothing, is fine */
        p.options.dim = named ? PUBLIC_DIM : 0;
        p.options.metric = named ? IQDB_L2 : IQDB_METRIC_DEFAULT;
        CHECK_EQ_INT(iqdb_open(p.path, &p.options, &p.db), IQDB_OK);
        iqdb_stats stats;
        EXPECT(iqdb_stat(p.db, &stats) == IQDB_OK);
        EXPECT(stats.dim == PUBLIC_DIM && stats.metric == IQDB_L2 && stats.records == 1);
        EXPECT(iqdb_close(p.db) == IQDB_OK);
    }
    place_end(&p);
}

/* ---- Codes ---- */

static void every_code_has_words(void) {
    for (int code = 0; code >= -19; code--) {
        iqdb_result result;
        memcpy(&result, &code, sizeof code);
        CHECK(iqdb_strerror(result) != NULL);
        CHECK(iqdb_strerror(result)[0] != 0);
        for (int earlier = 0; earlier > code; earlier--) {
            iqdb_result one;
            memcpy(&one, &earlier, sizeof earlier);
            CHECK(strcmp(iqdb_strerror(one), iqdb_strerror(result)) != 0);
        }
    }
    const int strange[3] = {-20, 1, -1000000};
    for (int i = 0; i < 3; i++) {
        iqdb_result result;
        memcpy(&result, &strange[i], sizeof result);
        CHECK(iqdb_strerror(result) != NULL && iqdb_strerror(result)[0] != 0);
    }
    CHECK_EQ_INT(IQDB_ERR_IO, -1);
    CHECK_EQ_INT(IQDB_ERR_NOT_FOUND, -7);
    CHECK_EQ_INT(IQDB_ERR_CANCELLED, -19);
    CHECK_EQ_INT(iqdb_version(), IQDB_VERSION);
}

static void numbers_have_names(void) {
    CHECK_EQ_STR(iqdb_metric_name(IQDB_METRIC_DEFAULT), "default");
    CHECK_EQ_STR(iqdb_metric_name(IQDB_L2), "l2");
    CHECK_EQ_STR(iqdb_metric_name(IQDB_COSINE), "cosine");
    CHECK_EQ_STR(iqdb_metric_name(IQDB_DOT), "dot");
    CHECK_EQ_STR(iqdb_metric_name(IQDB_L1), "l1");
    CHECK_EQ_STR(iqdb_metric_name(IQDB_HAMMING), "hamming");
    CHECK_EQ_STR(iqdb_element_name(IQDB_ELEMENT_F32), "f32");
    CHECK_EQ_STR(iqdb_element_name(IQDB_ELEMENT_F16), "f16");
    CHECK_EQ_STR(iqdb_element_name(IQDB_ELEMENT_BF16), "bf16");
    CHECK_EQ_STR(iqdb_element_name(IQDB_ELEMENT_I8), "i8");
    CHECK_EQ_STR(iqdb_element_name(IQDB_ELEMENT_U8), "u8");
    CHECK_EQ_STR(iqdb_element_name(IQDB_ELEMENT_BIT), "bit");
    CHECK_EQ_STR(iqdb_index_name(IQDB_INDEX_AUTO), "auto");
    CHECK_EQ_STR(iqdb_index_name(IQDB_INDEX_FLAT), "flat");
    CHECK_EQ_STR(iqdb_index_name(IQDB_INDEX_HNSW), "hnsw");
    CHECK_EQ_STR(iqdb_index_name(IQDB_INDEX_IVF), "ivf");
    CHECK_EQ_STR(iqdb_index_name(IQDB_INDEX_CUSTOM), "custom");
    CHECK_EQ_STR(iqdb_plan_name(IQDB_PLAN_NONE), "none");
    CHECK_EQ_STR(iqdb_plan_name(IQDB_PLAN_SCAN), "scan");
    CHECK_EQ_STR(iqdb_plan_name(IQDB_PLAN_CODES), "codes");
    CHECK_EQ_STR(iqdb_plan_name(IQDB_PLAN_LISTS), "lists");
    CHECK_EQ_STR(iqdb_plan_name(IQDB_PLAN_GRAPH), "graph");
    CHECK_EQ_STR(iqdb_plan_name(IQDB_PLAN_KEYS), "keys");
    CHECK_EQ_STR(iqdb_plan_name(IQDB_PLAN_CUSTOM), "custom");
    CHECK_EQ_STR(iqdb_type_name(IQDB_TYPE_NULL), "null");
    CHECK_EQ_STR(iqdb_type_name(IQDB_TYPE_FLOAT), "float");
    CHECK_EQ_STR(iqdb_type_name(IQDB_TYPE_OBJECT), "object");
    CHECK_EQ_STR(iqdb_type_name(IQDB_TYPE_ABSENT), "absent");
    const int strange[3] = {100, -1, 8};
    for (int i = 0; i < 3; i++) {
        iqdb_metric metric;
        iqdb_element element;
        iqdb_index index;
        iqdb_plan plan;
        iqdb_type type;
        memcpy(&metric, &strange[i], sizeof metric);
        memcpy(&element, &strange[i], sizeof element);
        memcpy(&index, &strange[i], sizeof index);
        memcpy(&plan, &strange[i], sizeof plan);
        memcpy(&type, &strange[i], sizeof type);
        CHECK_EQ_STR(iqdb_metric_name(metric), "unknown");
        CHECK_EQ_STR(iqdb_element_name(element), "unknown");
        CHECK_EQ_STR(iqdb_index_name(index), "unknown");
        CHECK_EQ_STR(iqdb_plan_name(plan), "unknown");
        CHECK_EQ_STR(iqdb_type_name(type), "unknown");
    }
}

static void zeroed_structs_are_the_defaults(void) {
    iqdb_record record;
    iqdb_query query;
    iqdb_options options;
    iqdb_buffer buffer;
    iqdb_op op;
    const iqdb_record d_record = iqdb_record_default();
    const iqdb_query d_query = iqdb_query_default();
    const iqdb_options d_options = iqdb_options_default();
    const iqdb_buffer d_buffer = iqdb_buffer_default();
    const iqdb_op d_op = iqdb_op_default();
    iqdb_filter filter;
    const iqdb_filter d_filter = iqdb_filter_default();
    memset(&filter, 0, sizeof filter);
    CHECK(filter.op == d_filter.op && filter.key == d_filter.key && filter.children == d_filter.children &&
          filter.values == d_filter.values && filter.count == d_filter.count && filter.op == IQDB_FILTER_ALL);
    memset(&record, 0, sizeof record);
    memset(&query, 0, sizeof query);
    memset(&options, 0, sizeof options);
    memset(&buffer, 0, sizeof buffer);
    memset(&op, 0, sizeof op);
    CHECK(record.id == d_record.id && record.vector == d_record.vector && record.dim == d_record.dim &&
          record.fields == d_record.fields && record.field_count == d_record.field_count &&
          record.payload.bytes == d_record.payload.bytes && record.payload.size == d_record.payload.size);
    CHECK(query.vector == d_query.vector && query.dim == d_query.dim && query.k == d_query.k &&
          query.metric == d_query.metric && query.flags == d_query.flags && query.predicate == d_query.predicate &&
          query.filter == d_query.filter && query.user == d_query.user && query.buffer == d_query.buffer);
    CHECK(options.dim == d_options.dim && options.metric == d_options.metric && options.sync == d_options.sync &&
          options.read_only == d_options.read_only && options.compact_on_close == d_options.compact_on_close &&
          options.verify == d_options.verify && options.simd_max == d_options.simd_max &&
          options.allocator.alloc_fn == d_options.allocator.alloc_fn &&
          options.files.dir_open_fn == d_options.files.dir_open_fn &&
          options.logger.log_fn == d_options.logger.log_fn && options.entropy.fill_fn == d_options.entropy.fill_fn &&
          options.error == d_options.error);
    CHECK(buffer.bytes == d_buffer.bytes && buffer.capacity == d_buffer.capacity && buffer.used == d_buffer.used &&
          buffer.needed == d_buffer.needed && buffer.allocator == d_buffer.allocator && buffer.fixed == d_buffer.fixed);
    CHECK(op.kind == d_op.kind && op.collection == d_op.collection && op.record == d_op.record && op.id == d_op.id);
    iqdb *db = NULL;
    CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
    record.vector = good_vector;
    record.dim = 3;
    CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
    query.vector = good_vector;
    query.k = 1;
    CHECK_EQ_INT(iqdb_search(db, &query, good_hits, &good_count), IQDB_OK);
    CHECK_EQ_U64(good_count, 1);
    CHECK_EQ_U64(good_hits[0].id, 0);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

TEST_MAIN("api/bad_input", TEST(every_cell_in_memory), TEST(every_cell_on_disk),
          TEST(every_cell_on_an_empty_collection), TEST(every_cell_with_a_declared_dimension),
          TEST(every_cell_on_a_read_only_handle), TEST(refused_writes_leave_nothing_on_disk),
          TEST(payloads_end_at_64_mib), TEST(a_payload_that_explodes_is_refused), TEST(options_that_make_no_sense),
          TEST(tables_with_holes), TEST(the_longest_dimension_is_fine), TEST(a_path_that_is_a_file),
          TEST(a_path_that_is_a_link), TEST(a_path_without_a_name), TEST(files_of_the_original),
          TEST(read_only_where_nothing_is), TEST(a_directory_that_may_not_be_written), TEST(a_second_opener),
          TEST(options_that_contradict_what_is_stored), TEST(every_code_has_words),
          TEST(numbers_have_names), TEST(zeroed_structs_are_the_defaults))
