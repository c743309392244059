/* A Redis module: collections of vectors as a data type of Redis's own, each key an iqdb handle in memory.
 *
 *   cc -O2 -shared -fPIC -fvisibility=hidden -pthread -I. examples/redis/module.c -o build/iqdb-redis.so
 *   redis-server --loadmodule ./build/iqdb-redis.so
 *
 *   IQ.ADD key [METRIC m] id vector [PAYLOAD json]       1 where the id is new, 0 where it replaced a record
 *   IQ.ADDMANY key [METRIC m] id bytes json [...]        how many ids are new; all or none; json "" for no payload
 *   IQ.SEARCH key vector [K n] [FILTER text] [MAXDISTANCE x] [AFTER id score] [METRIC m] [EF n] [WITHPAYLOADS]
 *                                                        [id, score(, payload)]..., nearest first; K is 10 by default
 *   IQ.GET key id [FP32]                                 [payload, elements], nil where there is none
 *   IQ.DEL key id [...]                                  how many there were
 *   IQ.STAT key                                          names and values, nil where there is no such key
 *
 *   vector   FP32 bytes (32-bit floats, little-endian) or VALUES n x...
 *   m        l2, cosine, dot or l1; in a write that of the key, which the first one chooses (cosine otherwise), in a
 *            search that of this search
 *   text     a filter as iqdb_filter_parse reads it: kind = 'doc' and year >= 2020
 *
 * Scores are smaller for what is closer, equal ones by id, and have nine digits, which read back as the same 32 bits. Ids
 * are decimal numbers below 2^64. Keys have no index, however large they are, and each search is exact. So EF, which
 * says how widely an index is to be searched, changes nothing: it is taken, so that what sends it need not be changed.
 *
 * 1. A command that answers with an error has changed nothing, and is not replicated.
 * 2. A key has at least one record: the first write makes it, the last IQ.DEL removes it, as with Redis's own types.
 * 3. Writes are replicated as they came. What they do depends on nothing but the key, and a search gives the same bits
 *    on every machine, so replicas answer as their master does. (What an index finds would depend on the writes that
 *    have made it.)
 * 4. RDB files, RESTORE and MIGRATE carry a key as a blob, all of whose bytes are under checksums; what is damaged is
 *    refused whole.
 * 5. All memory of a handle is Redis's, and counted: maxmemory and MEMORY USAGE see it. */
#define IQDB_STATIC
#define IQDB_NO_OS
#define IQDB_NO_MMAP
#define IQDB_IMPLEMENTATION
#include "iqdb.h"
#include "redis_module.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum {
    K_DEFAULT = 10,
    NUMBER_BYTES = 64,       /* room for a number as text */
    CHUNK_BYTES = 1 << 20,   /* of a blob, in one string of an RDB file */
    REWRITE_BYTES = 1 << 20, /* of one command in an AOF, about */
    REWRITE_RECORDS = 100
};

/* ---- Memory ---- */

/* The value of a key. */
typedef struct collection {
    iqdb *db;
    size_t bytes; /* that the handle holds, with what their alignment costs */
    iqdb_error error;
} collection;

/* What Redis gave is remembered before the aligned address. */
static void *take_memory(size_t size, size_t alignment, void *user) {
    size_t extra = alignment + sizeof(void *);
    char *given = size > SIZE_MAX - extra ? NULL : (char *)redis.TryAlloc(size + extra);
    if (given == NULL) return NULL;
    char *aligned = given + extra - ((uintptr_t)given + extra) % alignment;
    memcpy(aligned - sizeof given, &given, sizeof given);
    if (user != NULL) ((collection *)user)->bytes += size + extra;
    return aligned;
}

static void give_memory(void *memory, size_t size, size_t alignment, void *user) {
    char *given;
    memcpy(&given, (char *)memory - sizeof given, sizeof given);
    if (user != NULL) ((collection *)user)->bytes -= size + alignment + sizeof given;
    redis.Free(given);
}

static const iqdb_allocator uncounted = {take_memory, give_memory, NULL};

/* Bytes that become more. */
typedef struct heap {
    char *bytes;
    size_t used, capacity;
} heap;

/* Room for `size` more bytes, or NULL. Addresses of before are dead. */
static void *heap_extend(heap *h, size_t size) {
    if (size > SIZE_MAX / 4 || h->used > SIZE_MAX / 4) return NULL;
    if (h->bytes == NULL || size > h->capacity - h->used) {
        size_t capacity = h->used + size + h->used / 2 + 64;
        char *bytes = (char *)redis.TryAlloc(capacity);
        if (bytes == NULL) return NULL;
        if (h->used > 0) memcpy(bytes, h->bytes, h->used);
        redis.Free(h->bytes);
        h->bytes = bytes;
        h->capacity = capacity;
    }
    h->used += size;
    return h->bytes + h->used - size;
}

static bool heap_add(heap *h, const void *bytes, size_t size) {
    void *place = heap_extend(h, size);
    if (place != NULL && size > 0) memcpy(place, bytes, size);
    return place != NULL;
}

/* ---- Collections ---- */

static redis_type *collection_type;
static const char *const metric_names[] = {NULL, "l2", "cosine", "dot", "l1"};

/* In memory, empty or from a blob; NULL, and the code in *out_result. */
static collection *collection_new(iqdb_metric metric, const void *blob, size_t size, iqdb_result *out_result) {
    collection *c = (collection *)redis.TryAlloc(sizeof *c);
    *out_result = IQDB_ERR_NOMEM;
    if (c == NULL) return NULL;
    memset(c, 0, sizeof *c);
    iqdb_options options = iqdb_options_default();
    options.metric = metric;
    /* By itself it would make lists in a large key, which find most of the nearest, and not the same ones where the
     * records came another way: by a file, a full synchronization, a rewritten AOF. */
    options.index = IQDB_INDEX_FLAT;
    options.error = &c->error;
    options.allocator = uncounted;
    options.allocator.user = c;
    *out_result = blob == NULL ? iqdb_open_in_memory(&options, &c->db) : iqdb_load_blob(blob, size, &options, &c->db);
    if (*out_result == IQDB_OK) return c;
    redis.Free(c);
    return NULL;
}

static void collection_free(void *value) {
    collection *c = (collection *)value;
    iqdb_close(c->db);
    redis.Free(c);
}

/* Floats as they are in commands, to or from those of this machine. */
static void copy_floats(void *to, const void *from, size_t count) {
    const unsigned char *in = (const unsigned char *)from;
    for (size_t i = 0; i < count; i++, in += 4) {
        uint32_t bits = in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
        memcpy((char *)to + 4 * i, &bits, sizeof bits);
    }
}

/* ---- Commands: arguments and errors ---- */

/* One command, with what it has to let go of at its end. */
typedef struct call {
    redis_context *context;
    redis_string **arguments;
    int count, at; /* arguments[at] is the next one */
    redis_key *key;
    collection *found; /* NULL: there is no such key */
    heap vectors, payloads, records, hits;
    iqdb_buffer filter, payload, text;
} call;

static call call_begin(redis_context *context, redis_string **arguments, int count) {
    call c;
    memset(&c, 0, sizeof c);
    c.context = context;
    c.arguments = arguments;
    c.count = count;
    c.at = 2; /* behind the command and the key */
    c.filter.allocator = c.payload.allocator = c.text.allocator = &uncounted;
    return c;
}

static int call_end(call *c) {
    heap *heaps[] = {&c->vectors, &c->payloads, &c->records, &c->hits};
    for (size_t i = 0; i < sizeof heaps / sizeof *heaps; i++) redis.Free(heaps[i]->bytes);
    iqdb_buffer_free(&c->filter);
    iqdb_buffer_free(&c->payload);
    iqdb_buffer_free(&c->text);
    if (c->key != NULL) redis.CloseKey(c->key);
    return REDIS_OK;
}

/* Answers with an error, and is false. */
static bool fail(call *c, const char *format, ...) {
    char text[256];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    redis.ReplyWithError(c->context, text);
    return false;
}

/* `error` may know more than the code tells. */
static bool fail_with(call *c, iqdb_result result, const iqdb_error *error) {
    if (result == IQDB_ERR_NOMEM) return fail(c, "OOM not enough memory for this command");
    if (result == IQDB_ERR_DIMENSION_MISMATCH && error != NULL && error->dim_expected != 0)
        return fail(c, "ERR the vector has %u elements, those of this key have %u", error->dim_found,
                    error->dim_expected);
    bool told = error != NULL && error->code == result && error->text[0] != 0;
    return fail(c, "ERR %s", told ? error->text : iqdb_strerror(result));
}

/* False, and answered, where the key is something else. */
static bool open_key(call *c, int mode) {
    c->key = redis.OpenKey(c->context, c->arguments[1], mode);
    if (c->key == NULL || redis.KeyType(c->key) == REDIS_KEY_EMPTY) return true;
    if (redis.ModuleTypeGetType(c->key) != collection_type)
        return fail(c, "WRONGTYPE Operation against a key holding the wrong kind of value");
    c->found = (collection *)redis.ModuleTypeGetValue(c->key);
    return true;
}

static const char *next_argument(call *c, size_t *out_size) {
    return redis.StringPtrLen(c->arguments[c->at++], out_size);
}

/* Whether the next argument is this word, which it then steps over. */
static bool next_is(call *c, const char *word) {
    if (c->at == c->count) return false;
    size_t size;
    const char *text = redis.StringPtrLen(c->arguments[c->at], &size);
    bool same = size == strlen(word) && strncasecmp(text, word, size) == 0;
    c->at += same;
    return same;
}

static bool has_more(call *c, int wanted) {
    return c->count - c->at >= wanted || fail(c, "ERR syntax error: the command ends too early");
}

static bool parse_unsigned(call *c, const char *name, uint64_t limit, uint64_t *out_value) {
    if (!has_more(c, 1)) return false;
    size_t size;
    const char *text = next_argument(c, &size);
    uint64_t value = 0;
    bool good = size > 0;
    for (size_t i = 0; good && i < size; i++) {
        uint64_t digit = (uint64_t)text[i] - '0';
        good = digit <= 9 && value <= (limit - digit) / 10;
        value = 10 * value + digit;
    }
    *out_value = value;
    return good || fail(c, "ERR %s is not a number from 0 to %llu", name, (unsigned long long)limit);
}

static bool parse_id(call *c, uint64_t *out_id) { return parse_unsigned(c, "id", UINT64_MAX, out_id); }

static bool parse_float(call *c, const char *name, float *out_value) {
    if (!has_more(c, 1)) return false;
    size_t size;
    const char *text = next_argument(c, &size);
    char copy[NUMBER_BYTES], *end = copy;
    if (size > 0 && size < sizeof copy && (unsigned char)text[0] > ' ') {
        memcpy(copy, text, size);
        copy[size] = 0;
        *out_value = strtof(copy, &end);
    }
    return (size > 0 && end == copy + size && *out_value == *out_value) || fail(c, "ERR %s is not a number", name);
}

static bool parse_metric(call *c, iqdb_metric *out_metric) {
    if (!has_more(c, 1)) return false;
    for (int i = IQDB_L2; i <= IQDB_L1; i++)
        if (next_is(c, metric_names[i])) {
            *out_metric = (iqdb_metric)i;
            return true;
        }
    return fail(c, "ERR METRIC is l2, cosine, dot or l1");
}

/* Appends the vector that an argument holds to c->vectors. */
static bool parse_bytes(call *c, uint32_t *out_dim) {
    size_t size;
    const char *bytes = next_argument(c, &size);
    if (size == 0 || size % 4 != 0 || size / 4 > IQDB_DIM_MAX)
        return fail(c, "ERR a vector is 1 to %u floats of 4 bytes, not %llu bytes", IQDB_DIM_MAX,
                    (unsigned long long)size);
    void *place = heap_extend(&c->vectors, size);
    if (place == NULL) return fail_with(c, IQDB_ERR_NOMEM, NULL);
    copy_floats(place, bytes, size / 4);
    *out_dim = (uint32_t)(size / 4);
    return true;
}

static bool parse_vector(call *c, uint32_t *out_dim) {
    if (next_is(c, "FP32")) return has_more(c, 1) && parse_bytes(c, out_dim);
    if (!next_is(c, "VALUES")) return fail(c, "ERR a vector is FP32 bytes, or VALUES n x...");
    uint64_t dim;
    if (!parse_unsigned(c, "the number of VALUES", IQDB_DIM_MAX, &dim) || !has_more(c, (int)dim)) return false;
    if (dim == 0) return fail_with(c, IQDB_ERR_INVALID_VECTOR, NULL);
    for (uint64_t i = 0; i < dim; i++) {
        float value;
        if (!parse_float(c, "an element", &value)) return false;
        if (!heap_add(&c->vectors, &value, sizeof value)) return fail_with(c, IQDB_ERR_NOMEM, NULL);
    }
    *out_dim = (uint32_t)dim;
    return true;
}

/* Appends the payload to c->payloads; of "" there is none. */
static bool parse_payload(call *c, size_t *out_size) {
    size_t size;
    const char *json = next_argument(c, &size);
    *out_size = 0;
    if (size == 0) return true;
    iqdb_payload payload = {NULL, 0};
    iqdb_error error;
    memset(&error, 0, sizeof error);
    iqdb_result result = iqdb_payload_parse(json, size, &c->payload, &payload, &error);
    if (result == IQDB_OK && !heap_add(&c->payloads, payload.bytes, payload.size)) result = IQDB_ERR_NOMEM;
    *out_size = payload.size;
    if (result == IQDB_ERR_INVALID_PAYLOAD)
        return fail(c, "ERR payload, byte %llu: %s", (unsigned long long)error.offset, error.text);
    return result == IQDB_OK || fail_with(c, result, &error);
}

/* ---- Commands: writing ---- */

/* Appends a record to c->records; where its vector and payload lie is written in when no more are added. */
static bool add_record(call *c, uint64_t id, uint32_t dim, size_t payload_size) {
    iqdb_record record = iqdb_record_default();
    record.id = id;
    record.dim = dim;
    record.payload.size = payload_size;
    return heap_add(&c->records, &record, sizeof record) || fail_with(c, IQDB_ERR_NOMEM, NULL);
}

static bool write_records(call *c, iqdb_metric metric) {
    iqdb_record *records = (iqdb_record *)(void *)c->records.bytes;
    size_t count = c->records.used / sizeof *records;
    const char *vector = c->vectors.bytes, *payload = c->payloads.bytes;
    for (size_t i = 0; i < count; i++) {
        records[i].vector = (const float *)(const void *)vector;
        vector += sizeof(float) * records[i].dim;
        if (records[i].payload.size == 0) continue;
        records[i].payload.bytes = payload;
        payload += records[i].payload.size;
    }
    iqdb_result result = IQDB_OK;
    iqdb_stats stats;
    collection *target = c->found != NULL ? c->found : collection_new(metric, NULL, 0, &result);
    if (target == NULL || (result = iqdb_stat(target->db, &stats)) != IQDB_OK) return fail_with(c, result, NULL);
    if (metric != IQDB_METRIC_DEFAULT && metric != stats.metric)
        return fail(c, "ERR the METRIC of this key is %s", metric_names[stats.metric]);
    memset(&target->error, 0, sizeof target->error);
    result = iqdb_upsert_batch(target->db, records, count);
    if (result != IQDB_OK) {
        fail_with(c, result, &target->error);
        if (c->found == NULL) collection_free(target);
        return false;
    }
    if (c->found == NULL) redis.ModuleTypeSetValue(c->key, collection_type, target);
    redis.ReplicateVerbatim(c->context);
    redis.ReplyWithLongLong(c->context, (long long)(iqdb_len(target->db) - stats.records));
    return true;
}

static bool run_add(call *c) {
    iqdb_metric metric = IQDB_METRIC_DEFAULT;
    uint64_t id;
    uint32_t dim;
    size_t payload_size = 0;
    if (next_is(c, "METRIC") && !parse_metric(c, &metric)) return false;
    if (!parse_id(c, &id) || !parse_vector(c, &dim)) return false;
    if (next_is(c, "PAYLOAD") && (!has_more(c, 1) || !parse_payload(c, &payload_size))) return false;
    if (c->at != c->count) return fail(c, "ERR syntax error: IQ.ADD key [METRIC m] id vector [PAYLOAD json]");
    return add_record(c, id, dim, payload_size) && write_records(c, metric);
}

static bool run_add_many(call *c) {
    iqdb_metric metric = IQDB_METRIC_DEFAULT;
    if (next_is(c, "METRIC") && !parse_metric(c, &metric)) return false;
    if (c->at == c->count || (c->count - c->at) % 3 != 0)
        return fail(c, "ERR syntax error: IQ.ADDMANY key [METRIC m] id bytes json [id bytes json ...]");
    while (c->at < c->count) {
        uint64_t id;
        uint32_t dim;
        size_t payload_size;
        if (!parse_id(c, &id) || !parse_bytes(c, &dim) || !parse_payload(c, &payload_size) ||
            !add_record(c, id, dim, payload_size))
            return false;
    }
    return write_records(c, metric);
}

static bool run_del(call *c) {
    while (c->at < c->count) {
        uint64_t id;
        if (!parse_id(c, &id)) return false;
        if (!heap_add(&c->records, &id, sizeof id)) return fail_with(c, IQDB_ERR_NOMEM, NULL);
    }
    size_t removed = 0;
    if (c->found != NULL) {
        memset(&c->found->error, 0, sizeof c->found->error);
        iqdb_result result = iqdb_delete_batch(c->found->db, (const uint64_t *)(const void *)c->records.bytes,
                                               c->records.used / sizeof(uint64_t), &removed);
        if (result != IQDB_OK) return fail_with(c, result, &c->found->error);
        if (iqdb_is_empty(c->found->db)) redis.DeleteKey(c->key);
    }
    if (removed > 0) redis.ReplicateVerbatim(c->context);
    redis.ReplyWithLongLong(c->context, (long long)removed);
    return true;
}

/* ---- Commands: reading ---- */

static void reply_text(call *c, const char *text) { redis.ReplyWithStringBuffer(c->context, text, strlen(text)); }

/* A float as "%.9g" has it, for which printf takes a third of a microsecond: ten hits would cost as much as a small search.
 * Nine digits of what lies between 1e-4 and 1e9 are a double's product with a power of ten that is exact, so that only what
 * is within its error of a half may be rounded the other way; that, and the rest, is for printf. */
static size_t float_text(char text[NUMBER_BYTES], float value) {
    static const double tens[] = {1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6,
                                  1e7,  1e8,  1e9,  1e10, 1e11, 1e12};
    const double number = (double)value, all = number < 0 ? -number : number;
    int exponent = -4;
    if (all == 0 && !signbit(value)) return (size_t)snprintf(text, NUMBER_BYTES, "0");
    if (!(all >= 1.0001e-4 && all < 9.99e8)) return (size_t)snprintf(text, NUMBER_BYTES, "%.9g", number);
    while (all >= tens[exponent + 5]) exponent++;
    const double scaled = all * tens[12 - exponent]; /* from 1e8 to 1e9 */
    uint64_t digits = (uint64_t)scaled;
    const double rest = scaled - (double)digits;
    if (rest > 0.499999 && rest < 0.500001) return (size_t)snprintf(text, NUMBER_BYTES, "%.9g", number);
    digits += rest > 0.5;
    if (digits >= 1000000000) return (size_t)snprintf(text, NUMBER_BYTES, "%.9g", number);
    char figures[9], *out = text;
    int count = 9;
    for (int i = 9; i-- > 0; digits /= 10) figures[i] = (char)('0' + digits % 10);
    while (count > 1 && figures[count - 1] == '0') count--;
    if (number < 0) *out++ = '-';
    if (exponent < 0) {
        *out++ = '0';
        *out++ = '.';
        for (int i = -1; i > exponent; i--) *out++ = '0';
    }
    for (int i = 0; i < count || i <= exponent; i++) {
        if (i > 0 && i == exponent + 1) *out++ = '.';
        *out++ = i < count ? figures[i] : '0';
    }
    return (size_t)(out - text);
}

static void reply_float(call *c, float value) {
    char text[NUMBER_BYTES];
    redis.ReplyWithStringBuffer(c->context, text, float_text(text, value));
}

/* As text, because a number of Redis's ends at 2^63. */
static void reply_id(call *c, uint64_t id) {
    char text[NUMBER_BYTES], *digit = text + sizeof text;
    do *--digit = (char)('0' + id % 10);
    while ((id /= 10) > 0);
    redis.ReplyWithStringBuffer(c->context, digit, (size_t)(text + sizeof text - digit));
}

static void reply_payload(call *c, iqdb_payload payload) {
    const char *json = NULL;
    size_t size = 0;
    if (payload.bytes == NULL) {
        redis.ReplyWithNull(c->context);
        return;
    }
    iqdb_result result = iqdb_payload_to_json(payload, &c->text, &json, &size);
    if (result != IQDB_OK)
        fail_with(c, result, NULL); /* an error in the place of this payload */
    else
        redis.ReplyWithStringBuffer(c->context, json, size);
}

static bool parse_options(call *c, iqdb_query *query, iqdb_filter *filter) {
    uint64_t number = 0;
    while (c->at < c->count) {
        if (next_is(c, "K")) {
            if (!parse_unsigned(c, "K", SIZE_MAX, &number)) return false;
            query->k = (size_t)number;
        } else if (next_is(c, "EF")) {
            if (!parse_unsigned(c, "EF", UINT32_MAX, &number)) return false; /* no index has a use for it */
        } else if (next_is(c, "METRIC")) {
            if (!parse_metric(c, &query->metric)) return false;
        } else if (next_is(c, "WITHPAYLOADS")) {
            query->flags |= IQDB_WITH_PAYLOAD;
            query->buffer = &c->payload;
        } else if (next_is(c, "MAXDISTANCE")) {
            query->flags |= IQDB_MAX_DISTANCE;
            if (!parse_float(c, "MAXDISTANCE", &query->max_distance)) return false;
        } else if (next_is(c, "AFTER")) {
            query->flags |= IQDB_AFTER;
            if (!parse_id(c, &query->after.id) || !parse_float(c, "AFTER", &query->after.score)) return false;
        } else if (next_is(c, "FILTER")) {
            if (!has_more(c, 1)) return false;
            size_t size;
            const char *text = next_argument(c, &size);
            iqdb_error error;
            memset(&error, 0, sizeof error);
            iqdb_result result = iqdb_filter_parse(text, size, &c->filter, filter, &error);
            if (result == IQDB_ERR_INVALID_FILTER)
                return fail(c, "ERR filter, byte %llu: %s", (unsigned long long)error.offset, error.text);
            if (result != IQDB_OK) return fail_with(c, result, &error);
            query->filter = filter;
        } else
            return fail(c, "ERR syntax error: an option that IQ.SEARCH does not have");
    }
    return true;
}

static bool run_search(call *c) {
    iqdb_query query = iqdb_query_default();
    iqdb_filter filter;
    query.k = K_DEFAULT;
    if (!parse_vector(c, &query.dim) || !parse_options(c, &query, &filter)) return false;
    query.vector = (const float *)(const void *)c->vectors.bytes;
    iqdb_result result = iqdb_vector_check(query.vector, query.dim);
    if (result != IQDB_OK) return fail_with(c, result, NULL);
    size_t records = c->found != NULL ? iqdb_len(c->found->db) : 0, count = 0;
    if (query.k > records) query.k = records;
    iqdb_hit *hits = (iqdb_hit *)heap_extend(&c->hits, query.k * sizeof(iqdb_hit));
    if (hits == NULL) return fail_with(c, IQDB_ERR_NOMEM, NULL);
    if (c->found != NULL) result = iqdb_search(c->found->db, &query, hits, &count);
    if (result != IQDB_OK) {
        iqdb_stats stats;
        iqdb_error error; /* a search tells the code alone */
        memset(&error, 0, sizeof error);
        if (iqdb_stat(c->found->db, &stats) == IQDB_OK) error.dim_expected = stats.dim;
        error.dim_found = query.dim;
        return fail_with(c, result, &error);
    }
    bool with_payload = (query.flags & IQDB_WITH_PAYLOAD) != 0;
    redis.ReplyWithArray(c->context, (long)count);
    for (size_t i = 0; i < count; i++) {
        redis.ReplyWithArray(c->context, with_payload ? 3 : 2);
        reply_id(c, hits[i].id);
        reply_float(c, hits[i].score);
        if (with_payload) reply_payload(c, hits[i].payload);
    }
    return true;
}

static bool run_get(call *c) {
    uint64_t id;
    if (!parse_id(c, &id)) return false;
    bool bytes = next_is(c, "FP32");
    if (c->at != c->count) return fail(c, "ERR syntax error: IQ.GET key id [FP32]");
    iqdb_record record = iqdb_record_default();
    iqdb_result result = c->found == NULL ? IQDB_ERR_NOT_FOUND : iqdb_get(c->found->db, id, &c->payload, &record);
    if (result == IQDB_ERR_NOT_FOUND) {
        redis.ReplyWithNull(c->context);
        return true;
    }
    if (result != IQDB_OK) return fail_with(c, result, NULL);
    char *place = bytes ? (char *)heap_extend(&c->vectors, sizeof(float) * record.dim) : NULL;
    if (bytes && place == NULL) return fail_with(c, IQDB_ERR_NOMEM, NULL);
    redis.ReplyWithArray(c->context, 2);
    reply_payload(c, record.payload);
    if (bytes) {
        copy_floats(place, record.vector, record.dim);
        redis.ReplyWithStringBuffer(c->context, place, sizeof(float) * record.dim);
        return true;
    }
    redis.ReplyWithArray(c->context, (long)record.dim);
    for (uint32_t i = 0; i < record.dim; i++) reply_float(c, record.vector[i]);
    return true;
}

static bool run_stat(call *c) {
    iqdb_stats stats;
    if (c->found == NULL) {
        redis.ReplyWithNull(c->context);
        return true;
    }
    iqdb_result result = iqdb_stat(c->found->db, &stats);
    if (result != IQDB_OK) return fail_with(c, result, NULL);
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {{"records", stats.records},           {"dim", stats.dim},
                   {"vector_bytes", stats.vector_bytes}, {"payload_bytes", stats.payload_bytes},
                   {"lookup_bytes", stats.lookup_bytes}, {"memory_bytes", c->found->bytes}};
    const size_t count = sizeof numbers / sizeof *numbers;
    redis.ReplyWithArray(c->context, 2 * (long)(count + 2));
    for (size_t i = 0; i < count; i++) {
        reply_text(c, numbers[i].name);
        redis.ReplyWithLongLong(c->context, (long long)numbers[i].value);
    }
    reply_text(c, "metric");
    reply_text(c, metric_names[stats.metric]);
    reply_text(c, "simd");
    reply_text(c, iqdb_simd_name(c->found->db));
    return true;
}

/* ---- Commands: what Redis calls ---- */

static int run_command(redis_context *context, redis_string **arguments, int count, int least, int mode,
                       bool (*run)(call *)) {
    if (count < least) return redis.WrongArity(context);
    call c = call_begin(context, arguments, count);
    if (open_key(&c, mode)) run(&c);
    return call_end(&c);
}

/* F(function, name, flags, mode, fewest arguments with the command itself) */
#define COMMANDS(F) \
    F(run_add, "iq.add", "write deny-oom", REDIS_READ | REDIS_WRITE, 5) \
    F(run_add_many, "iq.addmany", "write deny-oom", REDIS_READ | REDIS_WRITE, 5) \
    F(run_search, "iq.search", "readonly", REDIS_READ, 4) \
    F(run_get, "iq.get", "readonly fast", REDIS_READ, 3) \
    F(run_del, "iq.del", "write", REDIS_READ | REDIS_WRITE, 3) \
    F(run_stat, "iq.stat", "readonly fast", REDIS_READ, 2)

#define COMMAND(function, name, flags, mode, least) \
    static int command_##function(redis_context *context, redis_string **arguments, int count) { \
        return run_command(context, arguments, count, least, mode, function); \
    }
COMMANDS(COMMAND)

/* ---- The type: RDB, AOF, COPY, DEBUG DIGEST, MEMORY USAGE ---- */

/* A blob as strings of CHUNK_BYTES, the end of which is an empty one. */
typedef struct saver {
    redis_io *io;
    heap chunk;
} saver;

static bool save_bytes(const void *bytes, size_t size, void *user) {
    saver *s = (saver *)user;
    if (s->chunk.used + size > CHUNK_BYTES && s->chunk.used > 0) {
        redis.SaveStringBuffer(s->io, s->chunk.bytes, s->chunk.used);
        s->chunk.used = 0;
    }
    if (size < CHUNK_BYTES) return heap_add(&s->chunk, bytes, size);
    redis.SaveStringBuffer(s->io, (const char *)bytes, size);
    return true;
}

/* There is no way to tell Redis of a failure, and a file that lacks the key would be a loss. What can fail is memory,
 * for a few hundred KiB, and Redis ends where that fails, too; in the child of a BGSAVE that only ends the save. */
static void collection_save(redis_io *io, void *value) {
    saver s = {io, {NULL, 0, 0}};
    iqdb_result result = iqdb_export_blob(((collection *)value)->db, save_bytes, &s);
    if (result != IQDB_OK) {
        redis.LogIOError(io, "warning", "iqdb: a key cannot be saved: %s", iqdb_strerror(result));
        abort();
    }
    if (s.chunk.used > 0) redis.SaveStringBuffer(io, s.chunk.bytes, s.chunk.used);
    redis.SaveStringBuffer(io, "", 0);
    redis.Free(s.chunk.bytes);
}

/* Whether a blob is what collection_save writes: whole blobs may have elements, metrics and collections that no command
 * here knows of, or no record. */
static bool is_of_commands(const collection *c) {
    iqdb_stats stats;
    return iqdb_stat(c->db, &stats) == IQDB_OK && stats.element == IQDB_ELEMENT_F32 && stats.metric >= IQDB_L2 &&
           stats.metric <= IQDB_L1 && stats.collections == 0 && stats.records > 0;
}

static void *collection_load(redis_io *io, int encoding) {
    heap blob = {NULL, 0, 0};
    iqdb_result result = encoding == 0 ? IQDB_OK : IQDB_ERR_VERSION;
    for (size_t size = 1; size > 0 && result == IQDB_OK;) {
        char *chunk = redis.LoadStringBuffer(io, &size);
        if (chunk == NULL || redis.IsIOError(io))
            result = IQDB_ERR_IO;
        else if (!heap_add(&blob, chunk, size))
            result = IQDB_ERR_NOMEM;
        redis.Free(chunk);
    }
    collection *c = NULL;
    if (result == IQDB_OK) c = collection_new(IQDB_METRIC_DEFAULT, blob.bytes, blob.used, &result);
    bool foreign = c != NULL && !is_of_commands(c);
    if (foreign) {
        collection_free(c);
        c = NULL;
    }
    if (c == NULL)
        redis.LogIOError(io, "warning", "iqdb: a key cannot be loaded: %s",
                         foreign ? "it is no collection of this module" : iqdb_strerror(result));
    redis.Free(blob.bytes);
    return c;
}

static bool copy_bytes(const void *bytes, size_t size, void *user) { return heap_add((heap *)user, bytes, size); }

static void *collection_copy(redis_string *from, redis_string *to, const void *value) {
    (void)from;
    (void)to;
    heap blob = {NULL, 0, 0};
    iqdb_result result = iqdb_export_blob(((const collection *)value)->db, copy_bytes, &blob);
    collection *c = NULL;
    if (result == IQDB_OK) c = collection_new(IQDB_METRIC_DEFAULT, blob.bytes, blob.used, &result);
    redis.Free(blob.bytes);
    return c;
}

/* The key again as IQ.ADDMANY commands. Where one cannot be made the name of one that does not exist tells Redis to
 * give the rewrite up, and to go on with the file it has. */
static void collection_rewrite(redis_io *io, redis_string *key, void *value) {
    collection *c = (collection *)value;
    redis_string *strings[3 * REWRITE_RECORDS];
    size_t count = 0, bytes = 0;
    iqdb_stats stats;
    iqdb_buffer json = iqdb_buffer_default();
    json.allocator = &uncounted;
    heap wire = {NULL, 0, 0};
    iqdb_result result = iqdb_stat(c->db, &stats);
    iqdb_iter iter = iqdb_iter_begin(c->db, NULL);
    for (bool more = result == IQDB_OK; more;) {
        more = iqdb_iter_next(&iter);
        if (more) {
            const char *text = "";
            size_t size = 0, vector_bytes = sizeof(float) * iter.record.dim;
            wire.used = 0;
            char *vector = (char *)heap_extend(&wire, vector_bytes), id[NUMBER_BYTES];
            result = vector == NULL ? IQDB_ERR_NOMEM : IQDB_OK;
            if (result == IQDB_OK && iter.record.payload.bytes != NULL)
                result = iqdb_payload_to_json(iter.record.payload, &json, &text, &size);
            if (result != IQDB_OK) break;
            copy_floats(vector, iter.record.vector, iter.record.dim);
            int digits = snprintf(id, sizeof id, "%llu", (unsigned long long)iter.record.id);
            strings[count++] = redis.CreateString(NULL, id, (size_t)digits);
            strings[count++] = redis.CreateString(NULL, vector, vector_bytes);
            strings[count++] = redis.CreateString(NULL, text, size);
            bytes += vector_bytes + size;
        }
        if (count > 0 && (!more || count == 3 * REWRITE_RECORDS || bytes >= REWRITE_BYTES)) {
            redis.EmitAOF(io, "IQ.ADDMANY", "sccv", key, "METRIC", metric_names[stats.metric], strings, count);
            while (count > 0) redis.FreeString(NULL, strings[--count]);
            bytes = 0;
        }
    }
    if (result == IQDB_OK) result = iter.result;
    iqdb_iter_end(&iter);
    while (count > 0) redis.FreeString(NULL, strings[--count]);
    iqdb_buffer_free(&json);
    redis.Free(wire.bytes);
    if (result == IQDB_OK) return;
    redis.LogIOError(io, "warning", "iqdb: a key cannot be rewritten: %s", iqdb_strerror(result));
    redis.EmitAOF(io, "IQ.FAILED", "");
}

/* Of the records in any order: equal keys have equal digests, whatever became of them before. */
static void collection_digest(redis_digest *digest, void *value) {
    iqdb_iter iter = iqdb_iter_begin(((collection *)value)->db, NULL);
    while (iqdb_iter_next(&iter)) {
        redis.DigestAddStringBuffer(digest, (const char *)&iter.record.id, sizeof iter.record.id);
        redis.DigestAddStringBuffer(digest, (const char *)iter.record.vector, sizeof(float) * iter.record.dim);
        if (iter.record.payload.bytes != NULL)
            redis.DigestAddStringBuffer(digest, (const char *)iter.record.payload.bytes, iter.record.payload.size);
        redis.DigestEndSequence(digest);
    }
    iqdb_iter_end(&iter);
}

static size_t collection_memory(const void *value) { return sizeof(collection) + ((const collection *)value)->bytes; }

static size_t collection_effort(redis_string *key, const void *value) {
    (void)key;
    return iqdb_len(((const collection *)value)->db);
}

/* ---- Loading ---- */

#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
int RedisModule_OnLoad(redis_context *context, redis_string **arguments, int count);

int RedisModule_OnLoad(redis_context *context, redis_string **arguments, int count) {
    (void)arguments;
    if (count > 0 || !redis_find(context)) return REDIS_ERROR;
    redis.SetModuleAttribs(context, "iqdb", IQDB_VERSION, REDIS_API_VERSION);
    redis.SetModuleOptions(context, REDIS_HANDLES_IO_ERRORS);
    redis_methods methods;
    memset(&methods, 0, sizeof methods);
    methods.version = REDIS_METHODS_VERSION;
    methods.load = collection_load;
    methods.save = collection_save;
    methods.rewrite = collection_rewrite;
    methods.memory = collection_memory;
    methods.digest = collection_digest;
    methods.free = collection_free;
    methods.free_effort = collection_effort;
    methods.copy = collection_copy;
    /* Loaded once more, by the same path, this is the code that is at work already: its type stays. */
    redis_type *type = redis.CreateDataType(context, "iqdb-vecs", 0, &methods);
    if (type == NULL) return REDIS_ERROR;
    collection_type = type;
#define CREATE(function, name, flags, mode, least) \
    &&redis.CreateCommand(context, name, command_##function, flags, 1, 1, 1) == REDIS_OK
    return true COMMANDS(CREATE) ? REDIS_OK : REDIS_ERROR;
}
