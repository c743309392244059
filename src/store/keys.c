/* Indexes of payload keys: a logarithmic structure of sorted runs (Bentley, Saxe, "Decomposable searching problems I",
 * J. Algorithms 1, 1980) behind a log. A full log is sorted and merged with all runs that are at most twice as long as
 * what there is so far; so an entry is moved some log2(n) times, always in sequence, and a lookup is a few binary
 * searches and a look at the log.
 *
 * 1. A row is listed before it can be seen, under every value that a test could find, and is not taken out when it
 *    goes: what is listed is what is seen, and more. Visibility and the filter decide.
 * 2. Runs do not change. A merged one is published before those that it is made of are taken away, the log last;
 *    readers look in the opposite order, so they meet an entry twice rather than never.
 * 3. Where a newer run lists a row, nobody sees what an older one says of it: the row was given back in between. Merges
 *    with a long run drop that, so there is no more garbage than a few entries a row.
 * 4. Values that are equal for a filter have equal codes; in an ordered index a greater value never has a smaller one.
 *    A code is the kind of the value and its first 11 bytes, or a hash of all. */
#include "store/keys.h"

#include "base/hash.h"

enum {
    IQ_KEY_CODE_SIZE = 12,  /* bytes, the first one the most significant */
    IQ_KEY_SET_SIZE = 2047, /* bytes of a set that is encoded */
    IQ_KEY_FEW = 16         /* values of a list, each of which is looked for in the log */
};

static bool iq_key_is_less(const iq_key_entry *a, const iq_key_entry *b) {
    return (a->high < b->high) | ((a->high == b->high) & (a->low < b->low));
}

/* ---- Codes ---- */

static uint64_t iq_key_get_u64(const uint8_t *bytes) {
    uint64_t word = 0;
    for (unsigned i = 0; i < 8; i++) word = word << 8 | bytes[i];
    return word;
}

static uint64_t iq_key_hash(unsigned kind, const uint8_t *bytes, size_t size) {
    uint8_t last[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    uint64_t hash = iq_hash_u64((uint64_t)size << 8 | kind);
    for (; size >= 8; size -= 8, bytes += 8) hash = iq_hash_u64(hash ^ iq_get_u64(bytes));
    if (size > 0) memcpy(last, bytes, size);
    return iq_hash_u64(hash ^ iq_get_u64(last));
}

/* Bits of a number whose unsigned order is that of numbers; false for a NaN, which no test of an index accepts. */
static bool iq_key_number(const uint8_t *value, uint64_t *out_bits) {
    uint64_t bits = iq_get_u64(value + 1);
    int64_t integer;
    memcpy(&integer, &bits, 8);
    if (value[0] == IQDB_TYPE_INT) bits = iq_f64_bits((double)integer); /* rounding keeps the order */
    if (iq_f64_is_nan(iq_f64_from_bits(bits))) return false;
    if (bits == UINT64_C(1) << 63) bits = 0;
    *out_bits = bits >> 63 != 0 ? ~bits : bits | UINT64_C(1) << 63;
    return true;
}

/* The code of an encoded value; what it does not fill are `fill` bytes. False where there is none. */
static bool iq_key_encode(iqdb_key_kind index, const uint8_t *value, size_t size, uint8_t fill, iq_key_entry *out) {
    uint8_t code[IQ_KEY_CODE_SIZE], number[8];
    const unsigned kind = iq_filter_kind(value, size);
    const uint8_t *bytes = value + 1;
    if (kind == 0) return false;
    size -= kind == 4 ? 2 : 1; /* the NUL of a text */
    if (kind == 3) {
        uint64_t bits;
        if (!iq_key_number(value, &bits)) return false;
        for (unsigned i = 0; i < 8; i++) number[i] = (uint8_t)(bits >> (56 - 8 * i));
        bytes = number;
    }
    out->low = kind;
    out->high = index == IQDB_KEY_HASH ? iq_key_hash(kind, bytes, size) : 0;
    if (index == IQDB_KEY_HASH) return true;
    memset(code, fill, sizeof code);
    code[0] = (uint8_t)kind;
    if (size > sizeof code - 1) size = sizeof code - 1;
    if (size > 0) memcpy(code + 1, bytes, size);
    out->high = iq_key_get_u64(code);
    out->low = (uint32_t)iq_key_get_u64(code + 4);
    return true;
}

IQ_FN bool iq_keys_hash(const uint8_t *value, size_t size, uint64_t *out_hash) {
    iq_key_entry code;
    const bool has_code = iq_key_encode(IQDB_KEY_HASH, value, size, 0, &code);
    *out_hash = has_code ? code.high : 0;
    return has_code;
}

/* ---- Runs ---- */

static iq_key_entry *iq_key_table(const iq_keys *keys, uint64_t count) {
    if (count > (size_t)-1 / sizeof(iq_key_entry) - 2) return NULL;
    iq_key_entry *table =
        (iq_key_entry *)iq_table_renew(keys->allocator, NULL, ((size_t)count + 1) * sizeof(iq_key_entry));
    if (table != NULL) memset(table, 0, sizeof *table);
    return table;
}

/* [a, a_end) and [b, b_end) in one, without those of `a` whose rows are `gone`, where that is not NULL; returns the
 * end. Which of two comes first cannot be foretold, so it is no branch. */
static iq_key_entry *iq_key_merge_into(iq_key_entry *out, const iq_key_entry *a, const iq_key_entry *a_end,
                                       const iq_key_entry *b, const iq_key_entry *b_end, const uint32_t *gone) {
    while (a != a_end) {
        if (gone != NULL && (gone[a->row / 32] >> a->row % 32 & 1) != 0) {
            a++;
        } else if (b == b_end) {
            *out++ = *a++;
        } else {
            const bool is_b = iq_key_is_less(b, a);
            *out++ = is_b ? *b : *a;
            a += !is_b;
            b += is_b;
        }
    }
    if (b != b_end) memcpy(out, b, (size_t)(b_end - b) * sizeof *b);
    return out + (b_end - b);
}

/* A run of the entries of a log; NULL without memory. */
static iq_key_entry *iq_key_sort(const iq_keys *keys, const iq_key_entry *log) {
    const size_t count = (size_t)log[0].high;
    iq_key_entry *run = iq_key_table(keys, count), *spare = iq_key_table(keys, count);
    for (size_t width = 1; run != NULL && spare != NULL && (width == 1 || width < count); width *= 2) {
        const iq_key_entry *from = (width == 1 ? log : run) + 1, *end = from + count;
        iq_key_entry *out = spare + 1, *sorted = spare;
        while (from < end) {
            const iq_key_entry *middle = (size_t)(end - from) > width ? from + width : end;
            const iq_key_entry *stop = (size_t)(end - middle) > width ? middle + width : end;
            out = iq_key_merge_into(out, from, middle, middle, stop, NULL);
            from = stop;
        }
        spare = run;
        run = sorted;
    }
    if (spare == NULL) iq_table_free(keys->allocator, run);
    if (spare == NULL) run = NULL;
    iq_table_free(keys->allocator, spare);
    if (run != NULL) run[0].high = count;
    return run;
}

/* Both in one run; NULL without memory. Of a long one it drops what is gone, unless there is no memory for that. */
static iq_key_entry *iq_key_merge(const iq_keys *keys, const iq_key_entry *older, const iq_key_entry *newer) {
    const size_t a = (size_t)older[0].high, b = (size_t)newer[0].high, bytes = (keys->row_end / 32 + (size_t)1) * 4;
    iq_key_entry *run = iq_key_table(keys, (uint64_t)a + b);
    uint32_t *gone = NULL;
    if (run == NULL) return NULL;
    if (a >= keys->row_end / 4) gone = (uint32_t *)iq_alloc_zeroed(keys->allocator, bytes, 16);
    for (size_t i = 1; gone != NULL && i <= b; i++) gone[newer[i].row / 32] |= UINT32_C(1) << newer[i].row % 32;
    const iq_key_entry *end = iq_key_merge_into(run + 1, older + 1, older + 1 + a, newer + 1, newer + 1 + b, gone);
    iq_free(keys->allocator, gone, bytes, 16);
    run[0].high = (uint64_t)(end - run) - 1;
    return run;
}

/* To be freed when nobody reads it any more. */
static void iq_key_bury(const iq_key *key, iq_key_entry *run) {
    iq_table *log = iq_table_of(key->log);
    iq_table_of(run)->older = log->older;
    log->older = iq_table_of(run);
}

/* The log becomes a run, and an empty one takes its place, with room for `more` entries. */
static iqdb_result iq_key_flush(const iq_keys *keys, iq_key *key, size_t more) {
    uint32_t kept = key->run_count;
    iq_key_entry *fresh = iq_key_table(keys, more > IQ_KEY_LOG_SIZE ? more : IQ_KEY_LOG_SIZE);
    iq_key_entry *run = fresh != NULL ? iq_key_sort(keys, key->log) : NULL;
    while (run != NULL && kept > 0 && key->runs[kept - 1][0].high <= 2 * run[0].high) {
        iq_key_entry *merged = iq_key_merge(keys, key->runs[--kept], run);
        iq_table_free(keys->allocator, run);
        run = merged;
    }
    if (run == NULL) {
        iq_table_free(keys->allocator, fresh);
        return IQDB_ERR_NOMEM;
    }
    IQ_ASSERT(kept < IQ_KEY_RUNS);
    for (uint32_t i = kept; i < key->run_count; i++) {
        iq_key_entry *old = key->runs[i];
        IQ_ATOMIC_STORE(&key->runs[i], i == kept ? run : NULL);
        iq_key_bury(key, old);
    }
    if (kept == key->run_count) IQ_ATOMIC_STORE(&key->runs[kept], run);
    key->run_count = kept + 1;
    iq_table_of(fresh)->older = iq_table_of(key->log);
    IQ_ATOMIC_STORE(&key->log, fresh);
    return IQDB_OK;
}

/* Room in the log for so many: those of a row are never parted (invariant 3). */
static iqdb_result iq_key_reserve(const iq_keys *keys, iq_key *key, size_t more) {
    const size_t used = key->log == NULL ? 1 : (size_t)key->log[0].high + 1;
    const size_t capacity = iq_table_size(key->log) / sizeof(iq_key_entry);
    if (used < capacity && more <= capacity - used) return IQDB_OK;
    if (used > 1 && used - 1 + more > IQ_KEY_LOG_SIZE) return iq_key_flush(keys, key, more);
    if (more > (size_t)-1 / 64) return IQDB_ERR_NOMEM;
    const size_t old = key->log == NULL ? 0 : used;
    iq_key_entry *log =
        (iq_key_entry *)iq_table_reserve(keys->allocator, key->log, sizeof *log, old, used + more - old);
    if (log == NULL) return IQDB_ERR_NOMEM;
    IQ_ATOMIC_STORE(&key->log, log);
    return IQDB_OK;
}

/* ---- The set ---- */

IQ_FN void iq_keys_init(iq_keys *keys, const iqdb_allocator *allocator) {
    memset(keys, 0, sizeof *keys);
    keys->allocator = allocator;
}

IQ_FN void iq_keys_free(iq_keys *keys) {
    for (size_t i = 0; i < keys->count; i++) {
        iq_table_free(keys->allocator, keys->keys[i].log);
        for (uint32_t run = 0; run < keys->keys[i].run_count; run++)
            iq_table_free(keys->allocator, keys->keys[i].runs[run]);
    }
    iq_free(keys->allocator, keys->keys, keys->size_bytes, 16);
    iq_keys_init(keys, keys->allocator);
}

IQ_FN const char *iq_keys_complaint(const iqdb_index_key *set, size_t count) {
    if (count > IQDB_INDEX_KEYS_MAX) return "there are more than IQDB_INDEX_KEYS_MAX keys to be indexed";
    if (set == NULL && count > 0) return "the list of keys to be indexed is NULL";
    size_t all = 0;
    for (size_t i = 0; i < count; i++) {
        if (set[i].key == NULL) return "a key to be indexed is NULL";
        const size_t size = strlen(set[i].key);
        all += size + 2;
        if (size > IQDB_INDEX_KEY_SIZE_MAX) return "a key to be indexed is longer than IQDB_INDEX_KEY_SIZE_MAX";
        if (!iq_utf8_is_valid(set[i].key, size)) return "a key to be indexed is not UTF-8";
        if (set[i].kind != IQDB_KEY_HASH && set[i].kind != IQDB_KEY_ORDERED) return "the kind of an index is unknown";
        for (size_t j = 0; j < i; j++)
            if (set[i].kind == set[j].kind && strcmp(set[i].key, set[j].key) == 0)
                return "a key is to be indexed twice in the same way";
    }
    return all > IQ_KEY_SET_SIZE ? "the keys to be indexed are too long together" : NULL;
}

IQ_FN void iq_keys_encode(const iq_keys *keys, uint8_t *bytes, size_t size) {
    memset(bytes, 0, size);
    for (size_t i = 0; i < keys->count; i++) {
        *bytes++ = (uint8_t)(1 + keys->keys[i].kind);
        memcpy(bytes, keys->keys[i].name.text, keys->keys[i].name.size);
        bytes += keys->keys[i].name.size + 1;
    }
}

IQ_FN bool iq_keys_decode(const uint8_t *bytes, size_t size, iqdb_index_key *out_set, size_t *out_count) {
    size_t at = 0, count = 0;
    for (; at < size && bytes[at] != 0; count++) {
        const uint8_t *end = (const uint8_t *)memchr(bytes + at, 0, size - at);
        if (count == IQDB_INDEX_KEYS_MAX || end == NULL || bytes[at] > 1 + IQDB_KEY_ORDERED) return false;
        out_set[count].kind = (iqdb_key_kind)(bytes[at] - 1);
        out_set[count].key = (const char *)bytes + at + 1;
        at = (size_t)(end - bytes) + 1;
    }
    *out_count = count;
    return at < size && iq_keys_complaint(out_set, count) == NULL;
}

IQ_FN iqdb_result iq_keys_declare(iq_keys *keys, const iqdb_index_key *set, size_t count) {
    iq_keys_free(keys);
    if (count == 0) return IQDB_OK;
    size_t size = count * sizeof(iq_key);
    for (size_t i = 0; i < count; i++) size += strlen(set[i].key) + 1;
    keys->keys = (iq_key *)iq_alloc_zeroed(keys->allocator, size, 16);
    if (keys->keys == NULL) return IQDB_ERR_NOMEM;
    keys->size_bytes = size;
    keys->count = count;
    char *names = (char *)(keys->keys + count);
    for (size_t i = 0; i < count; i++) {
        size = strlen(set[i].key);
        memcpy(names, set[i].key, size + 1);
        keys->keys[i].name = iq_filter_key_make(names, size);
        keys->keys[i].kind = set[i].kind;
        names += size + 1;
    }
    return IQDB_OK;
}

/* A value, or each item of an array. */
static iqdb_result iq_key_add(const iq_keys *keys, iq_key *key, uint32_t row, const uint8_t *value, size_t size) {
    iq_container items;
    const bool is_array = value[0] == IQDB_TYPE_ARRAY && iq_container_open(value + 1, size - 1, false, &items);
    const size_t count = is_array ? items.count : 1;
    const iqdb_result result = iq_key_reserve(keys, key, count);
    if (result != IQDB_OK) return result;
    iq_key_entry *next = key->log + 1 + key->log[0].high;
    for (size_t i = 0; i < count; i++) {
        if (is_array && !iq_container_item(&items, i, &value, &size)) continue;
        if (!iq_key_encode(key->kind, value, size, 0, next)) continue;
        next->row = row;
        next++;
    }
    IQ_ATOMIC_STORE(&key->log[0].high, (uint64_t)(next - key->log) - 1);
    return IQDB_OK;
}

IQ_FN iqdb_result iq_keys_add(iq_keys *keys, uint32_t row, iqdb_payload payload) {
    iq_container fields;
    const uint8_t *value;
    size_t size;
    iqdb_result result = IQDB_OK;
    (void)iq_container_open(payload.bytes, payload.size, true, &fields);
    if (row >= keys->row_end) keys->row_end = row + 1;
    for (size_t i = 0; i < keys->count && result == IQDB_OK; i++)
        if (iq_filter_find(&keys->keys[i].name, &fields, &value, &size))
            result = iq_key_add(keys, &keys->keys[i], row, value, size);
    return result;
}

IQ_FN void iq_keys_trim(iq_keys *keys, uint64_t oldest, uint64_t now) {
    for (size_t i = 0; i < keys->count; i++) iq_table_trim(keys->allocator, keys->keys[i].log, oldest, now);
}

IQ_FN bool iq_keys_have_old_tables(const iq_keys *keys) {
    bool have = false;
    for (size_t i = 0; i < keys->count; i++) have = have || iq_table_is_replacement(keys->keys[i].log);
    return have;
}

IQ_FN uint64_t iq_keys_bytes(const iq_keys *keys) {
    uint64_t bytes = keys->size_bytes;
    for (size_t i = 0; i < keys->count; i++) {
        bytes += iq_table_size(keys->keys[i].log);
        for (uint32_t run = 0; run < keys->keys[i].run_count; run++) bytes += iq_table_size(keys->keys[i].runs[run]);
    }
    return bytes;
}

/* ---- Looking up ---- */

/* The first entry of a run, or its end, that is not less than the code; or, `behind` it, that is greater. */
static const iq_key_entry *iq_key_seek(const iq_key_entry *run, const iq_key_entry *code, bool behind) {
    const iq_key_entry *at = run + 1;
    for (size_t count = (size_t)run[0].high; count > 0;) {
        const size_t half = count / 2;
        const bool on = behind ? !iq_key_is_less(code, at + half) : iq_key_is_less(at + half, code);
        at += on ? half + 1 : 0;
        count = on ? count - half - 1 : half;
    }
    return at;
}

/* Whether any value of interval `i` of the test can be there, and where it begins and ends, both included. */
static bool iq_key_interval(const iq_key *key, const iq_filter_step *step, uint32_t i, iq_key_entry *from,
                            iq_key_entry *to) {
    static const uint8_t null[1] = {IQDB_TYPE_NULL};
    const iq_filter_operand *low = step->operands + i, *high = low;
    const unsigned op = step->op;
    if (op == IQDB_FILTER_IS_NULL) {
        (void)iq_key_encode(key->kind, null, 1, 0, from);
        *to = *from;
        return true;
    }
    if (op == IQDB_FILTER_BETWEEN) high++;
    if (!iq_key_encode(key->kind, low->bytes, low->size, 0, from)) return false;
    if (!iq_key_encode(key->kind, high->bytes, high->size, op == IQDB_FILTER_PREFIX ? 0xFF : 0, to)) return false;
    const uint64_t kind = (uint64_t)low->kind << 56;
    if (op == IQDB_FILTER_LT || op == IQDB_FILTER_LE) from->high = kind;
    if (op == IQDB_FILTER_LT || op == IQDB_FILTER_LE) from->low = 0;
    if (op == IQDB_FILTER_GT || op == IQDB_FILTER_GE) to->high = kind | (UINT64_MAX >> 8);
    if (op == IQDB_FILTER_GT || op == IQDB_FILTER_GE) to->low = UINT32_MAX;
    return !iq_key_is_less(to, from);
}

static void iq_key_list(const iq_key_entry *from, const iq_key_entry *end, iq_key_rows *out) {
    for (; out->bits != NULL && from != end; from++)
        if (from->row < out->row_count) out->bits[from->row / 32] |= UINT32_C(1) << from->row % 32;
    if (out->bits != NULL) return;
    const uint32_t row_count = out->row_count, most = out->most;
    uint32_t *rows = out->rows, count = out->count;
    for (; from != end && count < most; from++) {
        rows[count] = from->row;
        count += from->row < row_count;
    }
    out->count = count;
    for (; from != end; from++) out->lacks_room = out->lacks_room || from->row < row_count;
}

/* How many entries the test leads to; they are listed, where `out` is not NULL. The log before the runs, and of these the
 * newest first (invariant 2). */
static uint64_t iq_key_visit(const iq_key *key, const iq_filter_step *step, iq_key_rows *out) {
    iq_key_entry from, to;
    uint64_t found = 0;
    const iq_key_entry *log = IQ_ATOMIC_LOAD(&key->log);
    const uint32_t intervals = step->op == IQDB_FILTER_IN ? step->operand_count : 1;
    const size_t logged = log == NULL ? 0 : (size_t)IQ_ATOMIC_LOAD(&log[0].high);
    for (uint32_t i = 0; i < intervals && i <= IQ_KEY_FEW; i++) {
        if (intervals <= IQ_KEY_FEW && !iq_key_interval(key, step, i, &from, &to)) continue;
        for (size_t at = 1; at <= logged; at++) {
            if (intervals <= IQ_KEY_FEW && (iq_key_is_less(log + at, &from) || iq_key_is_less(&to, log + at))) continue;
            if (out != NULL) iq_key_list(log + at, log + at + 1, out);
            found++;
        }
        if (intervals > IQ_KEY_FEW) break; /* it costs less to take all of the log */
    }
    for (uint32_t number = IQ_KEY_RUNS; number-- > 0;) {
        const iq_key_entry *run = IQ_ATOMIC_LOAD(&key->runs[number]);
        for (uint32_t i = 0; run != NULL && i < intervals; i++) {
            if (!iq_key_interval(key, step, i, &from, &to)) continue;
            const iq_key_entry *at = iq_key_seek(run, &from, false), *end = iq_key_seek(run, &to, true);
            found += (uint64_t)(end - at);
            if (out != NULL) iq_key_list(at, end, out);
        }
    }
    return found;
}

/* The index that can tell what the test may hold for, or NULL. */
static const iq_key *iq_keys_find(const iq_keys *keys, const iq_filter_step *step) {
    static const uint16_t served[2] = {
        1u << IQDB_FILTER_EQ | 1u << IQDB_FILTER_IN | 1u << IQDB_FILTER_IS_NULL | 1u << IQDB_FILTER_CONTAINS_VALUE,
        1u << IQDB_FILTER_EQ | 1u << IQDB_FILTER_IN | 1u << IQDB_FILTER_IS_NULL | 1u << IQDB_FILTER_CONTAINS_VALUE |
            1u << IQDB_FILTER_LT | 1u << IQDB_FILTER_LE | 1u << IQDB_FILTER_GT | 1u << IQDB_FILTER_GE |
            1u << IQDB_FILTER_BETWEEN | 1u << IQDB_FILTER_PREFIX};
    for (size_t i = 0; i < keys->count; i++) {
        const iq_key *key = &keys->keys[i];
        if ((served[key->kind] >> step->op & 1) != 0 && key->name.size == step->key.size &&
            memcmp(key->name.text, step->key.text, step->key.size) == 0)
            return key;
    }
    return NULL;
}

static uint32_t iq_keys_bound_of(const iq_filter *filter, uint32_t target, uint32_t row_count) {
    if (target >= IQ_FILTER_REJECT) return target == IQ_FILTER_REJECT ? 0 : row_count;
    return filter->steps[target].bound;
}

/* What a step accepts has passed its test, and is accepted from on_true; or it is accepted from on_false. Targets are
 * smaller than steps, so one walk upwards tells how much it is, and one downwards which tests are to be looked up. */
IQ_FN uint32_t iq_keys_plan(const iq_keys *keys, const iq_filter *filter, uint32_t row_count) {
    if (keys->count == 0 || row_count == 0) return row_count;
    for (uint32_t i = 0; filter->entry < IQ_FILTER_REJECT && i <= filter->entry; i++) {
        iq_filter_step *step = &filter->steps[i];
        const iq_key *key = iq_keys_find(keys, step);
        const uint64_t listed = key == NULL ? row_count : iq_key_visit(key, step, NULL);
        const uint32_t on_true = iq_keys_bound_of(filter, step->on_true, row_count);
        const uint32_t on_false = iq_keys_bound_of(filter, step->on_false, row_count);
        step->listed = key != NULL && listed < row_count ? (uint32_t)listed : UINT32_MAX;
        step->bound = step->listed < on_true ? step->listed : on_true;
        step->bound = on_false < row_count - step->bound ? step->bound + on_false : row_count;
        step->wanted = false;
    }
    return iq_keys_bound_of(filter, filter->entry, row_count);
}

IQ_FN void iq_keys_list(const iq_keys *keys, const iq_filter *filter, iq_key_rows *out) {
    if (filter->entry >= IQ_FILTER_REJECT) return;
    filter->steps[filter->entry].wanted = true;
    for (uint32_t i = filter->entry + 1; i-- > 0;) {
        const iq_filter_step *step = &filter->steps[i];
        if (!step->wanted) continue;
        if (step->listed < iq_keys_bound_of(filter, step->on_true, out->row_count)) {
            (void)iq_key_visit(iq_keys_find(keys, step), step, out);
        } else if (step->on_true < IQ_FILTER_REJECT) {
            filter->steps[step->on_true].wanted = true;
        }
        if (step->on_false < IQ_FILTER_REJECT) filter->steps[step->on_false].wanted = true;
    }
}

IQ_FN bool iq_keys_tell_all(const iq_keys *keys, const iq_filter *filter) {
    if (filter->entry >= IQ_FILTER_REJECT) return false;
    const iq_filter_step *step = &filter->steps[filter->entry];
    return step->listed != UINT32_MAX && step->on_true == IQ_FILTER_ACCEPT && step->on_false == IQ_FILTER_REJECT &&
           iq_keys_find(keys, step)->kind == IQDB_KEY_HASH;
}
