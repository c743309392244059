/* Our side: iqdb.h as a user has it, in one unit, and the loops that measure it through its public face. The one thing
 * used from behind that face is the checksum, which has no public name. */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include "bench.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

/* Eight fields: a number, a price, a flag and five short texts, 160 bytes encoded. The number
 * `amount` lies below 50 in half of the records. */
typedef struct eight_fields {
    iqdb_field fields[8];
    char texts[5][24];
} eight_fields;

static void fill_fields(eight_fields *out, uint64_t i) {
    static const char *const keys[5] = {"author", "colour", "kind", "place", "title"};
    for (int k = 0; k < 5; k++) {
        snprintf(out->texts[k], sizeof out->texts[k], "%.4s %04u", keys[k], (unsigned)(i * (uint64_t)(k + 3) % 10000));
        out->fields[k].key = keys[k];
        out->fields[k].value = iqdb_text(out->texts[k]);
    }
    out->fields[5].key = "amount";
    out->fields[5].value = iqdb_int((int64_t)(i * 7919 % 100));
    out->fields[6].key = "live";
    out->fields[6].value = iqdb_bool(i % 3 == 0);
    out->fields[7].key = "price";
    out->fields[7].value = iqdb_float((double)(i % 1000) / 8.0);
}

static bool below_half(const iqdb_record *record, void *user) {
    (void)user;
    return iqdb_payload_int(record->payload, "amount", 100) < 50;
}

static bool without_codes;
void ours_keep_codes(int keep) { without_codes = keep == 0; } /* in handles opened from here on; as a rule they do */

static int index_kind = IQDB_INDEX_FLAT;
static uint32_t probes;
void ours_use_index(int kind) { index_kind = kind; } /* in handles opened from here on; as a rule they have none */
/* Of a search: lists to read, or how wide the way through the graph is. 0: as calibrated; the largest number: exactly. */
void ours_probe(uint32_t count) { probes = count; }

/* path NULL: in memory. simd_max and verify as in iqdb_options; sync_each: every write is durable when it returns. */
int ours_open(const char *path, int sync_each, int simd_max, int verify, iqdb **out_db) {
    iqdb_options options = iqdb_options_default();
    options.sync = sync_each ? IQDB_SYNC_EACH : IQDB_SYNC_FLUSH;
    options.simd_max = (iqdb_simd)simd_max;
    options.verify = (iqdb_depth)verify;
    options.metric = IQDB_L2;
    options.no_codes = without_codes;
    options.index = (iqdb_index)index_kind;
    return path == NULL ? iqdb_open_in_memory(&options, out_db) : iqdb_open(path, &options, out_db);
}

double ours_maintain(iqdb *db) {
    bool done = false;
    const double start = bench_now();
    for (iqdb_result result; !done;)
        if ((result = iqdb_maintain(db, 1000000, &done)) != IQDB_OK) return (double)result;
    return bench_now() - start;
}

double ours_index_bytes(iqdb *db) {
    iqdb_stats stats;
    const iqdb_result result = iqdb_stat(db, &stats);
    return result == IQDB_OK ? (double)stats.index_bytes : (double)result;
}

double ours_open_seconds(const char *path, int verify) {
    iqdb *db = NULL;
    const double start = bench_now();
    int result = ours_open(path, 0, 0, verify, &db);
    const double seconds = bench_now() - start;
    if (result == IQDB_OK) result = iqdb_close(db);
    return result == IQDB_OK ? seconds : (double)result;
}

/* A base that is used where it lies; `compact`: it is made by a close, and the time is of both. */
double ours_map_seconds(const char *path, int compact) {
    iqdb *db = NULL;
    iqdb_options options = iqdb_options_default();
    options.open_mode = compact ? IQDB_OPEN_HEAP : IQDB_OPEN_MMAP;
    options.compact_on_close = compact != 0;
    const double start = bench_now();
    int result = iqdb_open(path, &options, &db);
    double seconds = bench_now() - start;
    if (result == IQDB_OK) result = iqdb_close(db);
    if (compact) seconds = bench_now() - start;
    return result == IQDB_OK ? seconds : (double)result;
}

/* ---- Writing and reading records ------------------------------------------------------------------------------ */

/* A batch of 1 is a single iqdb_upsert. Filling the array of records is part of the time: every caller pays for it. */
double ours_write(iqdb *db, const bench_records *from, size_t first, size_t count, size_t batch, int with_payload) {
    iqdb_record *records = (iqdb_record *)malloc(batch * sizeof *records);
    eight_fields *fields = (eight_fields *)malloc(batch * sizeof *fields);
    iqdb_result result = records != NULL && fields != NULL ? IQDB_OK : IQDB_ERR_NOMEM;
    for (size_t i = 0; i < batch && result == IQDB_OK; i++) {
        records[i] = iqdb_record_default();
        records[i].dim = from->dim;
        if (with_payload) records[i].fields = fields[i].fields;
        if (with_payload) records[i].field_count = 8;
    }
    const double start = bench_now();
    for (size_t i = first; i < first + count && result == IQDB_OK; i += batch) {
        const size_t n = batch < first + count - i ? batch : first + count - i;
        for (size_t k = 0; k < n; k++) {
            records[k].id = from->ids[i + k];
            records[k].vector = bench_row(from, i + k);
            if (with_payload) fill_fields(&fields[k], i + k);
        }
        result = batch == 1 ? iqdb_upsert(db, records) : iqdb_upsert_batch(db, records, n);
    }
    const double seconds = bench_now() - start;
    free(records);
    free(fields);
    return result == IQDB_OK ? seconds : (double)result;
}

double ours_get(iqdb *db, const uint64_t *ids, size_t count) {
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_record record;
    iqdb_result result = IQDB_OK;
    const double start = bench_now();
    for (size_t i = 0; i < count && result == IQDB_OK; i++) {
        result = iqdb_get(db, ids[i], &buffer, &record);
        bench_touch(record.vector);
    }
    const double seconds = bench_now() - start;
    iqdb_buffer_free(&buffer);
    return result == IQDB_OK ? seconds : (double)result;
}

double ours_delete(iqdb *db, const uint64_t *ids, size_t count) {
    iqdb_result result = IQDB_OK;
    const double start = bench_now();
    for (size_t i = 0; i < count && result == IQDB_OK; i++) result = iqdb_delete(db, ids[i], NULL);
    const double seconds = bench_now() - start;
    return result == IQDB_OK ? seconds : (double)result;
}

/* Upserts of `count` records in batches, and the flush that makes them durable. */
double ours_write_and_flush(iqdb *db, const bench_records *from, size_t count, size_t batch) {
    const double seconds = ours_write(db, from, 0, count, batch, 0), start = bench_now();
    const iqdb_result result = seconds < 0 ? IQDB_OK : iqdb_flush(db);
    return result == IQDB_OK ? seconds + (bench_now() - start) : (double)result;
}

double ours_checkpoint(iqdb *db) {
    const double start = bench_now();
    const iqdb_result result = iqdb_checkpoint(db);
    return result == IQDB_OK ? bench_now() - start : (double)result;
}

/* The upkeep that is due, in calls of so many microseconds: the longest one, and how many there were. */
double ours_slices(iqdb *db, uint32_t budget_us, size_t *out_count) {
    double longest = 0;
    bool done = false;
    for (*out_count = 0; !done; ++*out_count) {
        const double start = bench_now();
        const iqdb_result result = iqdb_maintain(db, budget_us, &done);
        const double seconds = bench_now() - start;
        if (result != IQDB_OK) return (double)result;
        if (seconds > longest) longest = seconds;
    }
    return longest;
}

/* ---- Filters --------------------------------------------------------------------------------------------------- */

/* Five fields, 70 bytes encoded: `part` and `kind` are indexed. Part 50 has half of the records, part 10 a tenth, and of
 * the others each has a hundredth; each of 50 kinds has as many; `price` is below 12.5 in a tenth of the records. */
static uint64_t random_of(uint64_t i) {
    i = (i ^ i >> 31) * UINT64_C(0x9E3779B97F4A7C15);
    return (i ^ i >> 29) >> 7;
}

static unsigned part_of(uint64_t random) {
    const unsigned part = (unsigned)(random % 100);
    return part >= 50 ? 50 : part >= 10 && part < 20 ? 10 : part;
}

int ours_filtered_open(int index, iqdb **out_db) {
    iqdb_index_key keys[2];
    iqdb_options options = iqdb_options_default();
    keys[0].key = "part";
    keys[1].key = "kind";
    keys[0].kind = keys[1].kind = IQDB_KEY_HASH;
    options.index_keys = keys;
    options.index_key_count = 2;
    options.metric = IQDB_L2;
    options.index = (iqdb_index)index;
    return iqdb_open_in_memory(&options, out_db);
}

/* parts gets a byte for each id: the record's part. */
double ours_filtered_write(iqdb *db, const bench_records *from, size_t count, unsigned char *parts) {
    iqdb_field fields[5];
    char title[16];
    iqdb_result result = IQDB_OK;
    const double start = bench_now();
    for (size_t i = 0; i < count && result == IQDB_OK; i++) {
        iqdb_record record = iqdb_record_default();
        const uint64_t random = random_of(i);
        snprintf(title, sizeof title, "title %05u", (unsigned)(i % 100000));
        fields[0].key = "kind";
        fields[0].value = iqdb_int((int64_t)(random / 100 % 50));
        fields[1].key = "live";
        fields[1].value = iqdb_bool(i % 3 == 0);
        fields[2].key = "part";
        fields[2].value = iqdb_int((int64_t)part_of(random));
        fields[3].key = "price";
        fields[3].value = iqdb_float((double)(i * 7919 % 1000) / 8.0);
        fields[4].key = "title";
        fields[4].value = iqdb_text(title);
        parts[from->ids[i]] = (unsigned char)part_of(random);
        record.id = from->ids[i];
        record.vector = bench_row(from, i);
        record.dim = from->dim;
        record.fields = fields;
        record.field_count = 5;
        result = iqdb_upsert(db, &record);
    }
    return result == IQDB_OK ? bench_now() - start : (double)result;
}

/* The records of a part that are nearest to each query, by as many lists as ours_probe has said. */
double ours_filtered_search(const iqdb *db, const float *vectors, size_t count, uint32_t dim, size_t k, int part,
                            uint64_t *ids, double *times) {
    iqdb_hit hits[100];
    const iqdb_filter filter = iqdb_eq("part", iqdb_int(part));
    iqdb_query query = iqdb_query_default();
    query.dim = dim;
    query.k = k;
    query.filter = &filter;
    query.nprobe = probes;
    double all = 0;
    for (size_t i = 0; i < count; i++) {
        size_t found = 0;
        const double start = bench_now();
        query.vector = vectors + i * dim;
        const iqdb_result result = iqdb_search(db, &query, hits, &found);
        times[i] = bench_now() - start;
        if (result != IQDB_OK) return (double)result;
        for (size_t j = 0; j < k; j++) ids[i * k + j] = j < found ? hits[j].id : UINT64_MAX;
        all += times[i];
    }
    return all;
}

/* What `which` counts: 0 an indexed kind, 2 % of the records; 1 those of a price, which no index knows. */
double ours_filtered_count(const iqdb *db, int which, size_t *out_count) {
    const iqdb_filter filter = which == 0 ? iqdb_eq("kind", iqdb_int(7)) : iqdb_lt("price", iqdb_float(12.5));
    const double start = bench_now();
    const iqdb_result result = iqdb_count(db, &filter, out_count);
    return result == IQDB_OK ? bench_now() - start : (double)result;
}

static uint64_t bits_of(uint64_t i) {
    uint64_t z = (i + 1) * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    return z ^ z >> 27;
}

int ours_bits_open(size_t count, iqdb **out_db) {
    iqdb_options options = iqdb_options_default();
    options.dim = 64;
    options.metric = IQDB_HAMMING;
    iqdb_result result = iqdb_open_in_memory(&options, out_db);
    if (result == IQDB_OK) result = iqdb_reserve(*out_db, count);
    for (uint64_t i = 0; i < count && result == IQDB_OK; i++) {
        iqdb_record record = iqdb_record_default();
        const uint64_t bits = bits_of(i);
        record.id = i;
        record.raw = &bits;
        result = iqdb_upsert(*out_db, &record);
    }
    return (int)result;
}

/* One search for something near record `number`. */
double ours_bits_search(const iqdb *db, uint64_t number, size_t k) {
    iqdb_hit hits[100];
    size_t found;
    iqdb_query query = iqdb_query_default();
    const uint64_t bits = bits_of(number) ^ 5;
    query.raw = &bits;
    query.k = k;
    const double start = bench_now();
    const iqdb_result result = iqdb_search(db, &query, hits, &found);
    const double seconds = bench_now() - start;
    if (result == IQDB_OK && (found != k || hits[0].id != number || hits[0].score != 2.0f))
        return (double)IQDB_ERR_CORRUPT;
    return result == IQDB_OK ? seconds : (double)result;
}

/* ---- Search --------------------------------------------------------------------------------------------------- */

/* `count` queries one by one, or all in one call. ids gets count * k. `half`: with a predicate that half of the records
 * (of eight fields) pass. times, where not NULL: seconds of each of single queries. */
double ours_search(const iqdb *db, const float *vectors, size_t count, uint32_t dim, size_t k, int metric, int half,
                   int as_batch, uint64_t *ids, double *times) {
    iqdb_hit *hits = (iqdb_hit *)malloc(count * k * sizeof *hits);
    size_t *counts = (size_t *)calloc(count, sizeof *counts);
    iqdb_result result = hits != NULL && counts != NULL ? IQDB_OK : IQDB_ERR_NOMEM;
    iqdb_query query = iqdb_query_default();
    query.dim = dim;
    query.k = k;
    query.metric = (iqdb_metric)metric;
    query.nprobe = probes;
    query.ef = probes <= 4096 ? probes : 0;
    if (probes == UINT32_MAX) query.flags = IQDB_EXACT;
    if (half) query.predicate = below_half;
    const double start = bench_now();
    if (as_batch && result == IQDB_OK) result = iqdb_search_batch(db, &query, vectors, count, hits, counts);
    for (size_t i = 0; !as_batch && i < count && result == IQDB_OK; i++) {
        const double before = times != NULL ? bench_now() : 0;
        query.vector = vectors + i * dim;
        result = iqdb_search(db, &query, hits + i * k, &counts[i]);
        if (times != NULL) times[i] = bench_now() - before;
    }
    const double seconds = bench_now() - start;
    for (size_t i = 0; i < count * k && result == IQDB_OK; i++)
        ids[i] = i % k < counts[i / k] ? hits[i].id : UINT64_MAX;
    free(hits);
    free(counts);
    return result == IQDB_OK ? seconds : (double)result;
}

/* The mean of `count` searches by L2; before each, which does not count, `size` bytes of other memory are read, so that
 * what is searched comes from memory. ids: only these, as many as id_count. */
double ours_search_apart(const iqdb *db, const float *vectors, size_t count, uint32_t dim, size_t k,
                         const unsigned char *other, size_t size, const uint64_t *ids, size_t id_count) {
    static volatile unsigned sink;
    iqdb_hit hits[100];
    size_t found;
    double seconds = 0;
    iqdb_query query = iqdb_query_default();
    query.dim = dim;
    query.k = k < 100 ? k : 100;
    query.ids = ids;
    query.id_count = ids != NULL ? id_count : 0;
    for (size_t i = 0; i < count; i++) {
        unsigned sum = 0;
        for (size_t at = 0; at < size; at += 64) sum += other[at];
        sink = sum;
        query.vector = vectors + i * dim;
        const double start = bench_now();
        const iqdb_result result = iqdb_search(db, &query, hits, &found);
        seconds += bench_now() - start;
        if (result != IQDB_OK) return (double)result;
    }
    return seconds / (double)count;
}

typedef struct bare_range {
    const unsigned char *bytes;
    size_t size;
} bare_range;

static int by_address(const void *a, const void *b) {
    const uintptr_t x = (uintptr_t) * (const void *const *)a, y = (uintptr_t) * (const void *const *)b;
    return (x > y) - (x < y);
}

/* Where the rows lie: an iterator shows each at its place, and neighbours become one range. So a bare loop can read the
 * very pages that a search reads. 0: the iterator shows copies, or there are more ranges than room. */
size_t ours_ranges(const iqdb *db, uint32_t dim, bare_range *out, size_t room) {
    const size_t count = iqdb_len(db), row = (dim * sizeof(float) + 63) / 64 * 64;
    const void **at = (const void **)malloc((count + 1) * sizeof *at);
    size_t seen = 0, ranges = 0;
    if (at == NULL) return 0;
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    while (seen < count && iqdb_iter_next(&iter)) at[seen++] = iter.record.vector;
    iqdb_iter_end(&iter);
    qsort(at, seen, sizeof *at, by_address);
    for (size_t i = 0; i < seen; i++) {
        if (ranges > 0 && (const unsigned char *)at[i] < out[ranges - 1].bytes + out[ranges - 1].size) break;
        if (ranges > 0 && (const unsigned char *)at[i] == out[ranges - 1].bytes + out[ranges - 1].size) {
            out[ranges - 1].size += row;
        } else if (ranges < room) {
            out[ranges].bytes = (const unsigned char *)at[i];
            out[ranges++].size = row;
        } else {
            break;
        }
        if (i + 1 == count) {
            free((void *)at);
            return ranges;
        }
    }
    free((void *)at);
    return 0;
}

/* ---- Threads beside one another ------------------------------------------------------------------------------- */

enum {
    BESIDE_NOTHING,
    BESIDE_WRITES,      /* one by one, as durable as the handle makes them */
    BESIDE_CHECKPOINTS, /* each after a write */
    BESIDE_SEARCHES
};

typedef struct other {
    iqdb *db;
    const bench_records *from;
    size_t records, done;
    const float *queries;
    size_t query_count, wanted; /* 0: until it is stopped */
    int load, stop;
    iqdb_result result;
} other;

static iqdb_result search_one(const iqdb *db, const float *vector) {
    iqdb_hit hits[10];
    size_t count = 0;
    iqdb_query query = iqdb_query_default();
    query.vector = vector;
    query.k = 10;
    return iqdb_search(db, &query, hits, &count);
}

static void *run_other(void *argument) {
    other *o = (other *)argument;
    for (o->done = 0; !__atomic_load_n(&o->stop, __ATOMIC_ACQUIRE) && o->result == IQDB_OK; o->done++) {
        if (o->wanted != 0 && o->done == o->wanted) break;
        iqdb_record record = iqdb_record_default();
        record.id = o->from->ids[o->done % o->records];
        record.vector = bench_row(o->from, o->done);
        record.dim = o->from->dim;
        if (o->load == BESIDE_SEARCHES)
            o->result = search_one(o->db, o->queries + o->done % o->query_count * o->from->dim);
        if (o->load != BESIDE_SEARCHES) o->result = iqdb_upsert(o->db, &record);
        if (o->load == BESIDE_CHECKPOINTS && o->result == IQDB_OK) o->result = iqdb_checkpoint(o->db);
    }
    return NULL;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Each of `count` gets or searches is timed while another thread does its load; p50, p99, p99.9 and the worst. */
double ours_latencies(iqdb *db, const bench_records *from, size_t records, int load, int search, const float *queries,
                      size_t query_count, size_t count, double out[4]) {
    other o = {db, from, records, 0, queries, query_count, 0, load, 0, IQDB_OK};
    pthread_t thread;
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_record record;
    iqdb_result result = IQDB_OK;
    double *times = (double *)malloc(count * sizeof *times);
    if (times == NULL || (load != BESIDE_NOTHING && pthread_create(&thread, NULL, run_other, &o) != 0))
        result = IQDB_ERR_NOMEM;
    const double start = bench_now();
    for (size_t i = 0; i < count && result == IQDB_OK; i++) {
        const double before = bench_now();
        if (search) result = search_one(db, queries + i % query_count * from->dim);
        if (!search) result = iqdb_get(db, from->ids[i * 7919 % records], &buffer, &record);
        times[i] = bench_now() - before;
    }
    const double seconds = bench_now() - start;
    __atomic_store_n(&o.stop, 1, __ATOMIC_RELEASE);
    if (load != BESIDE_NOTHING && times != NULL) pthread_join(thread, NULL);
    if (result == IQDB_OK) result = o.result;
    if (result == IQDB_OK) {
        qsort(times, count, sizeof *times, by_value);
        out[0] = times[count / 2];
        out[1] = times[count - 1 - count / 100];
        out[2] = times[count - 1 - count / 1000];
        out[3] = times[count - 1];
    }
    iqdb_buffer_free(&buffer);
    free(times);
    return result == IQDB_OK ? seconds : (double)result;
}

/* `count` writes (or searches) in each of `threads` threads, beside as many readers without end. */
double ours_threads(iqdb *db, const bench_records *from, size_t records, int load, size_t threads, size_t readers,
                    const float *queries, size_t query_count, size_t count) {
    other all[16];
    pthread_t handles[16];
    iqdb_result result = IQDB_OK;
    if (threads + readers > 16) return IQDB_ERR_LIMIT;
    const double start = bench_now();
    for (size_t i = 0; i < threads + readers; i++) {
        const other o = {
            db, from,   records, 0, queries, query_count, i < threads ? count : 0, i < threads ? load : BESIDE_SEARCHES,
            0,  IQDB_OK};
        all[i] = o;
        if (pthread_create(&handles[i], NULL, run_other, &all[i]) != 0) return IQDB_ERR_NOMEM;
    }
    for (size_t i = 0; i < threads; i++) pthread_join(handles[i], NULL);
    const double seconds = bench_now() - start;
    for (size_t i = threads; i < threads + readers; i++) {
        __atomic_store_n(&all[i].stop, 1, __ATOMIC_RELEASE);
        pthread_join(handles[i], NULL);
    }
    for (size_t i = 0; i < threads + readers; i++)
        if (all[i].result != IQDB_OK) result = all[i].result;
    return result == IQDB_OK ? seconds : (double)result;
}

/* What a reader's entry and leave cost: no public call does only that. */
double ours_pin(iqdb *db, size_t count) {
    iq_pin pin;
    const double start = bench_now();
    for (size_t i = 0; i < count; i++) {
        if (iq_db_enter_read(db, &pin) != IQDB_OK) return IQDB_ERR_BUSY;
        bench_touch(&pin);
        iq_db_leave_read(db, pin);
    }
    return bench_now() - start;
}

/* ---- Without a database --------------------------------------------------------------------------------------- */

/* What making a vector costs its maker here: the check, and the copy of its elements. */
double ours_vector_new(const float *rows, uint32_t dim, size_t count) {
    float *copy = (float *)malloc(dim * sizeof(float));
    iqdb_result result = copy != NULL ? IQDB_OK : IQDB_ERR_NOMEM;
    const double start = bench_now();
    for (size_t i = 0; i < count && result == IQDB_OK; i++) {
        const float *row = rows + i % 64 * dim;
        result = iqdb_vector_check(row, dim);
        memcpy(copy, row, dim * sizeof(float));
        bench_touch(copy);
    }
    const double seconds = bench_now() - start;
    free(copy);
    return result == IQDB_OK ? seconds : (double)result;
}

double ours_distance(const float *rows, uint32_t dim, int metric, size_t count) {
    iqdb_result result = IQDB_OK;
    float distance = 0;
    const double start = bench_now();
    for (size_t i = 0; i < count && result == IQDB_OK; i++) {
        result = iqdb_distance((iqdb_metric)metric, rows, rows + (1 + i % 63) * dim, dim, &distance);
        bench_touch(&distance);
    }
    const double seconds = bench_now() - start;
    return result == IQDB_OK ? seconds : (double)result;
}

double ours_crc32(const void *bytes, size_t size, size_t count, uint32_t *out_crc) {
    const iq_crc32_fn crc32 = iq_crc32_select(iq_cpu_features(), IQDB_SIMD_BEST);
    const double start = bench_now();
    for (size_t i = 0; i < count; i++) {
        *out_crc = crc32(0, bytes, size);
        bench_touch(out_crc);
    }
    return bench_now() - start;
}

/* ---- Memory --------------------------------------------------------------------------------------------------- */

static double resident_bytes(void) {
    unsigned long all = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL) return -1;
    const int read = fscanf(file, "%lu %lu", &all, &resident);
    fclose(file);
    return read == 2 ? (double)resident * (double)sysconf(_SC_PAGESIZE) : -1;
}

/* What `count` records in memory add to the process, per record; for a process that has done little else before. */
double ours_resident(const bench_records *from, size_t count, int with_payload) {
    iqdb *db = NULL;
    const double before = resident_bytes();
    int result = ours_open(NULL, 0, 0, 0, &db);
    if (result != IQDB_OK) return result;
    const double written = ours_write(db, from, 0, count, 1, with_payload), after = resident_bytes();
    result = iqdb_close(db);
    if (written < 0 || result != IQDB_OK || before < 0) return written < 0 ? written : IQDB_ERR_IO;
    return (after - before) / (double)count;
}

double ours_payload_bytes(void) {
    eight_fields fields;
    iqdb_payload payload = {NULL, 0};
    iqdb_buffer buffer = iqdb_buffer_default();
    fill_fields(&fields, 12345);
    const iqdb_result result = iqdb_payload_with(payload, fields.fields, 8, &buffer, &payload);
    iqdb_buffer_free(&buffer);
    return result == IQDB_OK ? (double)payload.size : (double)result;
}
