/* Random operations against a store that could not be simpler: an array of records and brute force. Each tape is one
 * database, in memory or in a directory, closed and opened and crashed at random places; every answer is compared with
 * the array's. A tape that fails is shrunk before it is printed, by leaving operations out as long as it still fails.
 *
 * A tape follows from its seed and is a list of operations that each carry a seed of their own, so leaving one out does
 * not change what the others do. Knows nothing of the database but its public face. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "api/public.h"

enum {
    IDS = 48,
    MOST_DIM = 5,
    MOST_OPERATIONS = 4000,
    ITERATORS = 2,
    QUERIES = 3,
    MOST_K = IDS + 4
};

/* ---- The store ---- */

typedef struct naive_record {
    bool live;
    float vector[MOST_DIM];
    int payload; /* -1: absent, 0: empty, else the number it holds */
} naive_record;

typedef struct naive_store {
    naive_record records[IDS];
    uint32_t dim; /* 0: none yet */
    iqdb_metric metric;
} naive_store;

typedef struct naive_hit {
    uint64_t id;
    float score;
} naive_hit;

static size_t naive_length(const naive_store *s) {
    size_t count = 0;
    for (size_t i = 0; i < IDS; i++) count += s->records[i].live;
    return count;
}

/* Ids of the database: the small numbers of the store, spread over the range. */
static uint64_t id_of(size_t slot) {
    return slot % 3 == 0 ? slot : slot % 3 == 1 ? UINT64_MAX - slot : (uint64_t)slot << 32;
}

static size_t slot_of(uint64_t id) {
    for (size_t slot = 0; slot < IDS; slot++)
        if (id_of(slot) == id) return slot;
    return IDS;
}

static bool naive_before(const naive_hit *a, const naive_hit *b) {
    return a->score < b->score || (a->score == b->score && a->id < b->id);
}

static size_t naive_search(const naive_store *s, const float *vector, const iqdb_query *query, uint64_t modulus,
                           naive_hit hits[IDS]) {
    const iqdb_metric metric = query->metric == IQDB_METRIC_DEFAULT ? s->metric : query->metric;
    naive_hit after;
    size_t count = 0;
    after.id = query->after.id;
    after.score = query->after.score;
    for (size_t slot = 0; slot < IDS; slot++) {
        if (!s->records[slot].live || (modulus != 0 && slot % modulus != 0)) continue;
        naive_hit hit;
        hit.id = id_of(slot);
        hit.score = model_score(metric, vector, s->records[slot].vector, s->dim);
        if ((query->flags & IQDB_MAX_DISTANCE) != 0 && hit.score > query->max_distance) continue;
        if ((query->flags & IQDB_AFTER) != 0 && !naive_before(&after, &hit)) continue;
        size_t at = count++;
        for (; at > 0 && naive_before(&hit, &hits[at - 1]); at--) hits[at] = hits[at - 1];
        hits[at] = hit;
    }
    return count < query->k ? count : query->k;
}

/* ---- Tapes ---- */

typedef enum operation_kind {
    UPSERT,
    BATCH,
    DELETE,
    DELETE_BATCH,
    APPLY,
    REFUSED, /* writes */
    GET,
    SEARCH,
    SEARCH_BATCH,
    WALK,
    BEGIN,
    STEP,
    STATISTICS, /* reads */
    MAINTAIN,
    FLUSH,
    CHECKPOINT,
    REOPEN,
    CRASH,
    VERIFY /* of a directory; in memory the first three */
} operation_kind;

static const char *const names[] = {
    "upsert", "batch", "delete",     "delete_batch", "apply", "refused",    "get",    "search", "search_batch", "walk",
    "begin",  "step",  "statistics", "maintain",     "flush", "checkpoint", "reopen", "crash",  "verify"};

/* Out of 1,000, in memory and on disk. */
static const int weights[] = {260, 40, 110, 20, 40, 15, 140, 200, 20, 25, 20, 60, 10, 20, 5, 3, 6, 4, 2};

typedef struct operation {
    operation_kind kind;
    uint64_t seed;
} operation;

typedef struct tape {
    uint64_t seed;
    bool on_disk;
    int planted; /* a fault of the store, to see that it is found: see plant */
    size_t count;
    operation list[MOST_OPERATIONS];
} tape;

typedef struct living_iterator {
    bool lives;
    iqdb_iter iter;
    naive_store snapshot;
    bool seen[IDS];
    size_t steps;
} living_iterator;

typedef struct player {
    const tape *played;
    iqdb *db;
    iqdb_options options;
    naive_store now;
    naive_store durable;   /* as of the last flush, checkpoint or close; IDS records are few enough to copy */
    bool maybe_lost;       /* writes since then */
    naive_store trail[64]; /* the states since then, for a crash may fall on each of them */
    size_t trail_count;
    living_iterator iterators[ITERATORS];
    support_heap heap;
    char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX], crash[SUPPORT_PATH_MAX];
    iqdb_buffer buffer;
    char problem[200];
    size_t at;
} player;

static bool wrong(player *p, const char *what, long long seen, long long expected) {
    if (p->problem[0] == 0)
        snprintf(p->problem, sizeof p->problem, "%s: seen %lld, expected %lld", what, seen, expected);
    return false;
}

#define SAME(what, seen, expected) \
    do { \
        if ((long long)(seen) != (long long)(expected)) \
            return wrong(p, what, (long long)(seen), (long long)(expected)); \
    } while (0)

/* Small numbers, so that scores tie; now and then a zero vector, a huge or a tiny one. */
static void make_vector(uint64_t *state, uint32_t dim, float *vector) {
    const uint64_t kind = support_random_below(state, 16);
    for (uint32_t i = 0; i < dim; i++) {
        vector[i] = kind < 9 ? (float)(int)(support_random_below(state, 5)) - 2 : support_random_float(state);
        if (kind == 9) vector[i] = 0;
        if (kind == 10) vector[i] *= 1e38f;
        if (kind == 11) vector[i] *= 1e-30f;
    }
}

typedef struct written {
    iqdb_record record;
    iqdb_field field;
    float vector[MOST_DIM];
    size_t slot;
} written;

static void make_record(player *p, uint64_t *state, written *w, naive_record *model) {
    memset(model, 0, sizeof *model);
    w->slot = (size_t)support_random_below(state, IDS);
    make_vector(state, p->now.dim, w->vector);
    memcpy(model->vector, w->vector, sizeof w->vector);
    model->live = true;
    model->payload = (int)support_random_below(state, 12) - 1;
    w->field = public_field("n", iqdb_int(model->payload));
    w->record = public_record(id_of(w->slot), w->vector, support_random_below(state, 4) == 0 ? 0 : p->now.dim);
    if (model->payload >= 0) {
        w->record.fields = &w->field;
        w->record.field_count = model->payload > 0;
    }
}

static bool same_record(player *p, const iqdb_record *record, const naive_record *model, uint32_t dim) {
    SAME("dim", record->dim, dim);
    SAME("vector differs", memcmp(record->vector, model->vector, dim * sizeof(float)) != 0, 0);
    SAME("payload present", record->payload.bytes != NULL, model->payload >= 0);
    if (model->payload >= 0) {
        SAME("payload fields", iqdb_payload_count(record->payload), model->payload > 0);
        SAME("payload number", iqdb_payload_int(record->payload, "n", 0), model->payload);
    }
    return true;
}

/* A fault in the store, not in the database. */
static void plant(player *p, int which, naive_store *next) {
    if (p->played->planted != which) return;
    for (size_t slot = 0; slot < IDS; slot++)
        if (next->records[slot].live && next->records[slot].payload == 7) next->records[slot].payload = 6;
}

static void changed(player *p, const naive_store *next) {
    p->now = *next;
    p->maybe_lost = true;
    if (p->trail_count < sizeof p->trail / sizeof p->trail[0]) p->trail[p->trail_count] = p->now;
    p->trail_count++;
}

static void became_durable(player *p) {
    p->durable = p->now;
    p->maybe_lost = false;
    p->trail_count = 0;
}

static bool play_writes(player *p, operation_kind kind, uint64_t *state) {
    enum {
        MOST = 9
    };
    written w[MOST];
    iqdb_record records[MOST];
    iqdb_op ops[MOST];
    uint64_t ids[MOST];
    static naive_store next;
    const size_t count = kind == UPSERT || kind == DELETE ? 1 : (size_t)support_random_below(state, MOST);
    size_t removed = 0, expected = 0;
    if (p->now.dim == 0 && kind != DELETE && kind != DELETE_BATCH) {
        if (count == 0) return true;
        p->now.dim = 1 + (uint32_t)support_random_below(state, MOST_DIM);
        for (size_t i = 0; i < p->trail_count && i < sizeof p->trail / sizeof p->trail[0]; i++)
            p->trail[i].dim = p->now.dim;
    }
    next = p->now;
    for (size_t i = 0; i < count; i++) {
        naive_record model;
        make_record(p, state, &w[i], &model);
        if (i == 0) w[i].record.dim = p->now.dim;
        records[i] = w[i].record;
        ids[i] = id_of(w[i].slot);
        ops[i] = iqdb_op_default();
        ops[i].id = ids[i];
        ops[i].record = &w[i].record;
        ops[i].collection = support_random_below(state, 2) == 0 ? p->db : NULL;
        const bool deletes =
            kind == DELETE || kind == DELETE_BATCH || (kind == APPLY && i > 0 && support_random_below(state, 3) == 0);
        if (deletes) {
            ops[i].kind = IQDB_OP_DELETE;
            expected += next.records[w[i].slot].live;
            next.records[w[i].slot].live = false;
        } else {
            next.records[w[i].slot] = model;
        }
    }
    bool one = false;
    iqdb_result result;
    if (kind == UPSERT)
        result = iqdb_upsert(p->db, records);
    else if (kind == BATCH)
        result = iqdb_upsert_batch(p->db, records, count);
    else if (kind == APPLY)
        result = iqdb_apply(p->db, ops, count);
    else if (kind == DELETE)
        result = iqdb_delete(p->db, ids[0], &one);
    else
        result = iqdb_delete_batch(p->db, ids, count, &removed);
    SAME("result of the write", result, IQDB_OK);
    if (kind == DELETE) SAME("removed", one, expected);
    if (kind == DELETE_BATCH) SAME("removed", removed, expected);
    plant(p, kind == BATCH ? 1 : 2, &next);
    changed(p, &next);
    return true;
}

/* Writes that have to be refused, and to change nothing. */
static bool play_refused(player *p, uint64_t *state) {
    float vector[MOST_DIM + 1];
    for (size_t i = 0; i <= MOST_DIM; i++) vector[i] = 1;
    if (p->now.dim == 0) {
        SAME("upsert without a dimension", public_put(p->db, 1, vector, 0), IQDB_ERR_INVALID_VECTOR);
        return true;
    }
    const uint64_t id = id_of((size_t)support_random_below(state, IDS));
    SAME("upsert of another dimension", public_put(p->db, id, vector, p->now.dim + 1), IQDB_ERR_DIMENSION_MISMATCH);
    iqdb_record two[2];
    const iqdb_field twice[2] = {public_field("a", iqdb_null()), public_field("a", iqdb_null())};
    two[0] = two[1] = public_record(id, vector, p->now.dim);
    two[1].fields = twice;
    two[1].field_count = 2;
    SAME("batch with a key twice", iqdb_upsert_batch(p->db, two, 2), IQDB_ERR_INVALID_PAYLOAD);
    const uint32_t bits = 0x7fc00000u;
    memcpy(&vector[support_random_below(state, p->now.dim)], &bits, 4);
    SAME("upsert of NaN", public_put(p->db, id, vector, p->now.dim), IQDB_ERR_INVALID_VECTOR);
    return true;
}

static bool check_everything(player *p) {
    SAME("len", iqdb_len(p->db), naive_length(&p->now));
    SAME("is_empty", iqdb_is_empty(p->db), naive_length(&p->now) == 0);
    for (size_t slot = 0; slot < IDS; slot++) {
        iqdb_record record;
        const bool live = p->now.records[slot].live;
        SAME("contains", iqdb_contains(p->db, id_of(slot)), live);
        SAME("get", iqdb_get(p->db, id_of(slot), &p->buffer, &record), live ? IQDB_OK : IQDB_ERR_NOT_FOUND);
        if (live && !same_record(p, &record, &p->now.records[slot], p->now.dim)) return false;
    }
    return true;
}

typedef struct verdict {
    uint64_t modulus;
    bool unknown; /* a record was shown that the store does not have */
    const naive_store *store;
    player *p;
} verdict;

static bool predicate(const iqdb_record *record, void *user) {
    verdict *v = (verdict *)user;
    const size_t slot = slot_of(record->id);
    if (slot == IDS || !v->store->records[slot].live ||
        !same_record(v->p, record, &v->store->records[slot], v->store->dim)) {
        v->unknown = true;
        return false;
    }
    return slot % v->modulus == 0;
}

static bool same_hits(player *p, const iqdb_hit *hits, size_t count, const naive_hit *expected, size_t expected_count,
                      bool payloads) {
    SAME("hits", count, expected_count);
    for (size_t i = 0; i < count; i++) {
        uint32_t seen_bits, expected_bits;
        SAME("id of a hit", hits[i].id, expected[i].id);
        memcpy(&seen_bits, &hits[i].score, 4);
        memcpy(&expected_bits, &expected[i].score, 4);
        SAME("bits of a score", seen_bits, expected_bits);
        const int payload = p->now.records[slot_of(hits[i].id)].payload;
        SAME("payload of a hit", hits[i].payload.bytes != NULL, payloads && payload >= 0);
        if (payloads && payload > 0) SAME("number of a hit", iqdb_payload_int(hits[i].payload, "n", 0), payload);
    }
    return true;
}

static bool play_search(player *p, operation_kind kind, uint64_t *state) {
    float vectors[QUERIES][MOST_DIM];
    float packed[QUERIES * MOST_DIM];
    iqdb_hit hits[QUERIES * MOST_K];
    size_t counts[QUERIES];
    naive_hit expected[IDS];
    const uint32_t dim = p->now.dim != 0 ? p->now.dim : 1 + (uint32_t)support_random_below(state, MOST_DIM);
    const size_t k = support_random_below(state, 4) == 0 ? (size_t)support_random_below(state, MOST_K)
                                                         : 1 + (size_t)support_random_below(state, 12);
    const size_t queries = kind == SEARCH ? 1 : (size_t)support_random_below(state, QUERIES + 1);
    for (size_t q = 0; q < QUERIES; q++) {
        make_vector(state, dim, vectors[q]);
        memcpy(packed + q * dim, vectors[q], dim * sizeof(float));
    }
    const iqdb_metric metrics[5] = {IQDB_METRIC_DEFAULT, IQDB_L2, IQDB_COSINE, IQDB_DOT, IQDB_L1};
    iqdb_query query = public_query(vectors[0], support_random_below(state, 3) == 0 && p->now.dim != 0 ? 0 : dim, k,
                                    metrics[support_random_below(state, 5)]);
    verdict v;
    v.modulus = 0;
    v.unknown = false;
    v.store = &p->now;
    v.p = p;
    if (support_random_below(state, 3) == 0) {
        v.modulus = 1 + support_random_below(state, 7);
        query.predicate = predicate;
        query.user = &v;
    }
    if (support_random_below(state, 4) == 0) {
        query.flags = IQDB_WITH_PAYLOAD;
        query.buffer = &p->buffer;
    }
    if (support_random_below(state, 4) == 0) { /* a page that begins, or ends, with a score that some record has */
        const size_t there = naive_search(&p->now, vectors[0], &query, 0, expected);
        const uint32_t flags = 1 + (uint32_t)support_random_below(state, 3);
        if (there > 0) {
            const naive_hit *from = &expected[support_random_below(state, there)];
            query.max_distance = expected[support_random_below(state, there)].score;
            query.after.score = from->score;
            query.after.id = from->id - support_random_below(state, 2);
            query.flags |= ((flags & 1u) != 0 ? IQDB_MAX_DISTANCE : 0u) | ((flags & 2u) != 0 ? IQDB_AFTER : 0u);
        }
    }
    const iqdb_result result = kind == SEARCH ? iqdb_search(p->db, &query, hits, counts)
                                              : iqdb_search_batch(p->db, &query, packed, queries, hits, counts);
    SAME("result of a search", result, IQDB_OK);
    SAME("a predicate saw a record that is not there", v.unknown, false);
    for (size_t q = 0; q < queries; q++) {
        const size_t count = naive_search(&p->now, vectors[q], &query, v.modulus, expected);
        if (!same_hits(p, hits + q * k, counts[q], expected, count, (query.flags & IQDB_WITH_PAYLOAD) != 0))
            return false;
    }
    if (p->now.dim != 0 && naive_length(&p->now) > 0) {
        query.dim = p->now.dim + 1;
        float longer[MOST_DIM + 1];
        memset(longer, 0, sizeof longer);
        query.vector = longer;
        SAME("a search of another dimension", iqdb_search(p->db, &query, hits, counts),
             k == 0 ? IQDB_OK : IQDB_ERR_DIMENSION_MISMATCH);
    }
    return true;
}

static bool step(player *p, living_iterator *living, size_t most, bool *out_ended) {
    *out_ended = false;
    for (size_t i = 0; i < most; i++) {
        if (!iqdb_iter_next(&living->iter)) {
            SAME("result of an iterator", living->iter.result, IQDB_OK);
            SAME("steps of an iterator", living->steps, naive_length(&living->snapshot));
            *out_ended = true;
            return true;
        }
        const size_t slot = slot_of(living->iter.record.id);
        SAME("an iterator's record is there", slot < IDS && living->snapshot.records[slot].live, true);
        SAME("an iterator's record comes once", living->seen[slot], false);
        living->seen[slot] = true;
        living->steps++;
        if (!same_record(p, &living->iter.record, &living->snapshot.records[slot], living->snapshot.dim)) return false;
    }
    return true;
}

static void end_iterators(player *p) {
    for (int i = 0; i < ITERATORS; i++) {
        if (p->iterators[i].lives) iqdb_iter_end(&p->iterators[i].iter);
        p->iterators[i].lives = false;
    }
}

static bool play_iterator(player *p, operation_kind kind, uint64_t *state) {
    living_iterator *living = &p->iterators[support_random_below(state, ITERATORS)];
    bool ended = false;
    if (kind == STEP && !living->lives) return true;
    if (kind == BEGIN) {
        if (living->lives) iqdb_iter_end(&living->iter); /* early */
        memset(living->seen, 0, sizeof living->seen);
        living->steps = 0;
        living->snapshot = p->now;
        living->iter = iqdb_iter_begin(p->db, NULL);
        living->lives = true;
        SAME("begin", living->iter.result, IQDB_OK);
    }
    if (!step(p, living, (size_t)support_random_below(state, 20), &ended)) return false;
    if (ended) {
        iqdb_iter_end(&living->iter);
        living->lives = false;
    }
    return true;
}

static bool play_walk(player *p) {
    static living_iterator living; /* large */
    bool ended = false;
    memset(&living, 0, sizeof living);
    living.snapshot = p->now;
    living.iter = iqdb_iter_begin(p->db, NULL);
    const bool fine = step(p, &living, IDS + 1, &ended);
    iqdb_iter_end(&living.iter);
    if (!fine) return false;
    SAME("a walk ends", ended, true);
    return check_everything(p);
}

static bool play_statistics(player *p) {
    iqdb_stats stats;
    SAME("stat", iqdb_stat(p->db, &stats), IQDB_OK);
    SAME("records", stats.records, naive_length(&p->now));
    SAME("metric", stats.metric, p->now.metric);
    SAME("dim", stats.dim, p->now.dim);
    SAME("poisoned", stats.poisoned, false);
    SAME("durable beyond last", stats.durable_lsn > stats.last_lsn, false);
    return true;
}

static bool open_database(player *p) {
    p->db = NULL;
    const iqdb_result result =
        p->played->on_disk ? iqdb_open(p->path, &p->options, &p->db) : iqdb_open_in_memory(&p->options, &p->db);
    SAME("open", result, IQDB_OK);
    return true;
}

static bool play_reopen(player *p, uint64_t *state) {
    end_iterators(p);
    if (!p->played->on_disk) return true;
    SAME("close", iqdb_close(p->db), IQDB_OK);
    p->db = NULL;
    became_durable(p);
    p->options.sync = support_random_below(state, 4) == 0 ? IQDB_SYNC_EACH : IQDB_SYNC_FLUSH;
    p->options.compact_on_close = support_random_below(state, 3) == 0;
    p->options.checkpoint_bytes = support_random_below(state, 3) == 0 ? 0 : 20000;
    p->options.verify = support_random_below(state, 4) == 0 ? IQDB_DEPTH_RECORDS : IQDB_DEPTH_DEFAULT;
    return open_database(p) && check_everything(p);
}

/* The files as they are now go on as the database: what was durable is there, and of what was not, some first writes. */
static bool play_crash(player *p) {
    if (!p->played->on_disk) return true;
    end_iterators(p);
    SAME("copy", public_copy(p->path, p->crash), 1);
    SAME("close", iqdb_close(p->db), IQDB_OK);
    p->db = NULL;
    support_remove(p->path);
    SAME("rename", rename(p->crash, p->path), 0);
    const naive_store last = p->now;
    if (!open_database(p)) return false;
    iqdb_stats stats;
    SAME("stat", iqdb_stat(p->db, &stats), IQDB_OK);
    if (stats.dim == last.dim) { /* as the system kept every byte that was written, nothing may be gone at all */
        p->now = last;
        if (check_everything(p)) {
            became_durable(p);
            return true;
        }
    }
    if (p->options.sync == IQDB_SYNC_EACH) return wrong(p, "after a crash with sync each", stats.dim, last.dim);
    for (size_t back = 0; back <= p->trail_count; back++) {
        if (p->trail_count > sizeof p->trail / sizeof p->trail[0]) break; /* too long a trail to tell */
        char problem[sizeof p->problem];
        memcpy(problem, p->problem, sizeof problem);
        p->problem[0] = 0;
        p->now = back < p->trail_count ? p->trail[p->trail_count - 1 - back] : p->durable;
        p->now.dim = stats.dim;
        if (check_everything(p)) {
            became_durable(p);
            return true;
        }
        memcpy(p->problem, problem, sizeof problem);
    }
    return wrong(p, "after a crash no state since the last flush", 0, 1);
}

static bool play_one(player *p, const operation *o) {
    uint64_t state = o->seed;
    switch (o->kind) {
    case UPSERT:
    case BATCH:
    case DELETE:
    case DELETE_BATCH:
    case APPLY:
        if (!play_writes(p, o->kind, &state)) return false;
        if (p->options.sync == IQDB_SYNC_EACH) became_durable(p);
        break;
    case REFUSED:
        return play_refused(p, &state);
    case GET: {
        const size_t slot = (size_t)support_random_below(&state, IDS);
        const bool live = p->now.records[slot].live;
        iqdb_record record;
        SAME("contains", iqdb_contains(p->db, id_of(slot)), live);
        SAME("get", iqdb_get(p->db, id_of(slot), &p->buffer, &record), live ? IQDB_OK : IQDB_ERR_NOT_FOUND);
        if (live) {
            SAME("id", record.id, id_of(slot));
            if (!same_record(p, &record, &p->now.records[slot], p->now.dim)) return false;
        }
        break;
    }
    case SEARCH:
    case SEARCH_BATCH:
        return play_search(p, o->kind, &state);
    case WALK:
        return play_walk(p);
    case BEGIN:
    case STEP:
        return play_iterator(p, o->kind, &state);
    case STATISTICS:
        return play_statistics(p);
    case MAINTAIN: {
        bool done;
        SAME("maintain", iqdb_maintain(p->db, 0, &done), IQDB_OK);
        break;
    }
    case FLUSH:
    case CHECKPOINT:
        SAME(names[o->kind], o->kind == FLUSH ? iqdb_flush(p->db) : iqdb_checkpoint(p->db), IQDB_OK);
        became_durable(p);
        break;
    case REOPEN:
        return play_reopen(p, &state);
    case CRASH:
        return play_crash(p);
    case VERIFY:
        SAME("verify", iqdb_verify(p->db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
        break;
    }
    SAME("len", iqdb_len(p->db), naive_length(&p->now));
    return true;
}

static char directory[SUPPORT_PATH_MAX];
static player the_player; /* large */

/* True when every answer was right; else the_player.problem and .at tell. */
static bool play(const tape *t) {
    player *p = &the_player;
    memset(p, 0, sizeof *p);
    p->played = t;
    p->heap = support_heap_make();
    p->options = iqdb_options_default();
    p->options.allocator = support_allocator(&p->heap);
    p->options.files = public_quick_files(); /* the disk's speed is not what is tested */
    p->options.checkpoint_bytes = 20000;     /* in slices beside all else */
    uint64_t state = t->seed;
    const iqdb_metric metrics[4] = {IQDB_L2, IQDB_COSINE, IQDB_DOT, IQDB_L1};
    p->now.metric = p->options.metric = metrics[support_random_below(&state, 4)];
    p->options.simd_max = support_random_below(&state, 2) == 0 ? IQDB_SIMD_BEST : IQDB_SIMD_SCALAR;
    if (support_random_below(&state, 3) == 0)
        p->now.dim = p->options.dim = 1 + (uint32_t)support_random_below(&state, MOST_DIM);
    p->durable = p->now;
    support_join(p->path, directory, "tape");
    support_join(p->crash, directory, "tape-crash");
    support_remove(p->path);
    support_remove(p->crash);
    bool fine = open_database(p);
    for (p->at = 0; fine && p->at < t->count; p->at++) fine = play_one(p, &t->list[p->at]);
    fine = fine && check_everything(p);
    end_iterators(p);
    if (p->db != NULL && iqdb_close(p->db) != IQDB_OK) fine = wrong(p, "the last close", 1, 0);
    iqdb_buffer_free(&p->buffer);
    if (fine && support_heap_problems(&p->heap) != 0)
        fine = wrong(p, "memory not given back", (long long)p->heap.live_blocks, 0);
    return fine;
}

static void record_tape(tape *t, uint64_t seed, bool on_disk, size_t count) {
    uint64_t state = seed * 2654435761u + 1;
    t->seed = seed;
    t->on_disk = on_disk;
    t->planted = 0;
    t->count = count;
    for (size_t i = 0; i < count; i++) {
        int pick = (int)support_random_below(&state, 1000), kind = 0;
        while (pick >= weights[kind]) pick -= weights[kind++];
        t->list[i].kind = (operation_kind)kind;
        t->list[i].seed = support_random(&state);
    }
}

/* Leaves out chunks, halves at first and single operations at last, as long as what is left still fails. */
static void shrink(tape *t) {
    static tape shorter; /* large */
    for (size_t chunk = t->count; chunk > 0; chunk /= 2) {
        for (bool again = true; again;) {
            again = false;
            for (size_t begin = 0; begin < t->count;) {
                const size_t end = begin + chunk < t->count ? begin + chunk : t->count;
                shorter = *t;
                memmove(shorter.list + begin, shorter.list + end, (t->count - end) * sizeof shorter.list[0]);
                shorter.count -= end - begin;
                if (play(&shorter)) {
                    begin = end;
                } else {
                    *t = shorter;
                    again = chunk == 1;
                }
            }
        }
    }
}

static void print_tape(tape *t) {
    const bool fine = play(t);
    printf("\n    tape with seed %" PRIu64 " %s fails%s; shrunk to %zu operations:", t->seed,
           t->on_disk ? "on disk" : "in memory", fine ? " (not any more)" : "", t->count);
    for (size_t i = 0; i < t->count; i++)
        printf("\n      %zu %s %" PRIx64 "%s", i, names[t->list[i].kind], t->list[i].seed,
               !fine && i == the_player.at ? " <- " : "");
    printf("\n      %s\n", the_player.problem);
}

/* ---- Tests ---- */

static tape the_tape; /* large */

static void answers_are_those_of_a_naive_store(void) {
    const size_t bar = support_amount(20000, 1000000, 5000000);
    const char *chosen = getenv("IQDB_TEST_SEED"); /* another set of tapes, or one that has failed */
    const uint64_t first = chosen != NULL ? strtoull(chosen, NULL, 0) : 1;
    size_t done = 0, tapes = 0;
    support_directory(directory);
    for (uint64_t seed = first; done < bar; seed++, tapes++) {
        uint64_t state = seed;
        record_tape(&the_tape, seed, seed % 3 == 0, 50 + (size_t)support_random_below(&state, MOST_OPERATIONS - 50));
        if (!EXPECT(play(&the_tape))) {
            shrink(&the_tape);
            print_tape(&the_tape);
            break;
        }
        done += the_tape.count;
    }
    support_remove(directory);
    printf(" %zu operations on %zu tapes from seed %" PRIu64 " ...", done, tapes, first);
    CHECK(done >= bar);
}

/* The store gets a fault; a tape has to find it, and shrinking has to come down to the operations it takes: one that
 * writes a payload of 7, and one that reads it. */
static void a_planted_fault_is_found_and_shrunk(void) {
    support_directory(directory);
    for (int planted = 1; planted <= 2; planted++) {
        for (int on_disk = 0; on_disk < 2; on_disk++) {
            uint64_t seed = 1;
            bool fine = true;
            for (; fine && seed < 100; seed++) {
                record_tape(&the_tape, seed, on_disk != 0, 400);
                the_tape.planted = planted;
                fine = play(&the_tape);
            }
            CHECK(!fine);
            shrink(&the_tape);
            CHECK(!play(&the_tape));
            CHECK(strstr(the_player.problem, "number") != NULL);
            CHECK(the_tape.count >= 1 && the_tape.count <= 2);
            the_tape.planted = 0; /* without the fault nothing is wrong with it */
            CHECK(play(&the_tape));
        }
    }
    support_remove(directory);
}

TEST_MAIN("model/tapes", TEST(a_planted_fault_is_found_and_shrunk), TEST(answers_are_those_of_a_naive_store))
