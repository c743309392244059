/* original.h: what the original iqdb left on disk, as rows. A directory of version 0.4 holds `snap` and `wal`; a file of
 * iqdb-persist 1.0, which iqdb 1.0 writes, has its log beside it, as FILE.wal. Little-endian everything, CRC-32 (IEEE).
 *
 *   0.4     snap: "IQDB", version 1 (u32), frames          wal: frames
 *           frame: size (u32), body, crc of the body        body: 0 id record | 1 id        id: u64
 *   1.0     file: "IQDBPRST", version (u32), size of a name (u64) and it, dim (u64), metric (u8), rows (u64), crc of all
 *           that follows: in version 2 a scheme (u8) and the size of what is packed by it (u64), then
 *           "IQDC", version 1 (u32), an index and its settings, dim (u64), metric (u8), rows (u64), each as id record
 *           log: "IQDBWAL\0", version 1 (u32), frames       body: 1 id record | 2 id
 *           frame: size (u32), crc of the body, body        id: 0 u64 | 1 size bytes; size is u64 in logs, u32 in rows
 *   record  dim (u32, but for rows of 1.0), as many floats, 1 and a payload or 0
 *   payload number of fields (u32); each as size (u32) and text of the key, a tag (u8), and the value
 *
 * 1. Any bytes are read without harm: a read that fails leaves an error in words, and what is not taken is reported.
 * 2. Rows are what the original would show: of each id the last record, unless it was deleted behind that. */
#ifndef ORIGINAL_H
#define ORIGINAL_H

#include "iqdb.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(IMPORT_ZSTD)
#include <zstd.h>
#endif

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define ULL(number) ((unsigned long long)(number))

/* Without memory the process ends; nothing is written by then. */
static void *room_for(void *memory, size_t count, size_t size) {
    void *resized = count > SIZE_MAX / 2 / size ? NULL : realloc(memory, count * size + (count == 0));
    if (resized != NULL) return resized;
    fputs("iqdb-import: there is not enough memory for this\n", stderr);
    exit(4);
}

/* The last thing an id was given: a record, or, with dim 0, its end. All point into the files. */
typedef struct row {
    uint64_t id;
    const unsigned char *id_bytes; /* NULL: the id is a number */
    size_t id_size;
    const unsigned char *vector; /* floats */
    uint32_t dim;
    const unsigned char *payload; /* NULL: none */
    size_t payload_size;
    size_t order;
} row;

/* A file, which belongs to the caller. */
typedef struct part {
    char *name; /* for people */
    unsigned char *bytes;
    size_t size;
} part;

typedef struct original {
    bool newer;   /* 1.0 */
    bool salvage; /* take frames behind damage too */
    part snapshot, log;
    void (*report)(const char *text, void *user); /* what is not taken, and why */
    void *user;

    char error[256];
    row *rows; /* by id */
    size_t count, room;
    size_t left; /* frames and pieces of files that are not taken; each was reported */
    char index[128];
    iqdb_metric metric; /* DEFAULT: not known, or none of ours */
    uint64_t dim;       /* 1.0: of the header */
    unsigned char *unpacked;
    uint64_t patience; /* bytes that the search for frames behind damage may still look at */
} original;

static bool wrong(original *o, const char *text, ...) __attribute__((format(printf, 2, 3)));
static bool wrong(original *o, const char *text, ...) {
    va_list arguments;
    va_start(arguments, text);
    vsnprintf(o->error, sizeof o->error, text, arguments);
    va_end(arguments);
    return false;
}

static void left_out(original *o, const char *text, ...) __attribute__((format(printf, 2, 3)));
static void left_out(original *o, const char *text, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, text);
    vsnprintf(line, sizeof line, text, arguments);
    va_end(arguments);
    o->left++;
    o->report(line, o->user);
}

/* ==== Bytes ========================================================================================================= */

typedef struct span {
    const unsigned char *at, *end;
} span;

static bool take(span *s, uint64_t size, const unsigned char **out) {
    *out = s->at;
    if (size > (size_t)(s->end - s->at)) return false;
    s->at += (size_t)size;
    return true;
}

static bool take_number(span *s, size_t size, uint64_t *out) {
    const unsigned char *at;
    *out = 0;
    if (!take(s, size, &at)) return false;
    for (size_t i = 0; i < size; i++) *out |= (uint64_t)at[i] << 8 * i;
    return true;
}

static uint32_t crc_of(const unsigned char *at, size_t size) {
    static const uint32_t nibbles[16] = {0,          0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4,
                                         0x4DB26158, 0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C,
                                         0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C};
    uint32_t crc = 0xFFFFFFFF;
    for (size_t i = 0; i < size; i++) {
        crc = crc >> 4 ^ nibbles[(crc ^ at[i]) & 15];
        crc = crc >> 4 ^ nibbles[(crc ^ at[i] >> 4) & 15];
    }
    return ~crc;
}

static bool is_utf8(const unsigned char *at, size_t size) {
    for (size_t i = 0; i < size; i++) {
        const unsigned char first = at[i], second = i + 1 < size ? at[i + 1] : 0;
        const size_t more = first < 0x80 ? 0 : first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
        if (more == 0) continue;
        if (first < 0xC2 || first > 0xF4 || more > size - i - 1) return false;
        if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F)) return false; /* long; surrogates */
        if ((first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F)) return false; /* long; too far */
        for (size_t k = 1; k <= more; k++)
            if ((at[i + k] & 0xC0) != 0x80) return false;
        i += more;
    }
    return true;
}

/* ==== Payloads ====================================================================================================== */

/* A payload as fields for a record: first counted, with all pointers NULL, then built in memory of that size. */
typedef struct tree {
    size_t values, fields, key_bytes;
    iqdb_value *value_room;
    iqdb_field *field_room;
    char *key_room;
    bool zero_key, deep; /* what iqdb.h has no room for */
    iqdb_field *root;
    size_t root_count;
    size_t twice; /* keys that stood in an object before: the later one counts */
} tree;

typedef struct level {
    bool keyed;
    size_t left, count;
    iqdb_value *owner; /* NULL: the payload */
    iqdb_value *items;
    iqdb_field *fields;
} level;

static int by_key(const void *left, const void *right) {
    const char *a = ((const iqdb_field *)left)->key, *b = ((const iqdb_field *)right)->key;
    const int order = strcmp(a, b);
    return order != 0 ? order : (a > b) - (a < b); /* keys were laid down in their order */
}

static void level_finish(tree *t, const level *l) {
    size_t count = l->count;
    if (t->key_room == NULL) return;
    bool rising = true;
    for (size_t i = 1; l->keyed && i < count; i++)
        rising = rising && strcmp(l->fields[i - 1].key, l->fields[i].key) < 0;
    if (!rising) {
        qsort(l->fields, count, sizeof *l->fields, by_key);
        count = 0;
        for (size_t i = 0; i < l->count; i++)
            if (i + 1 == l->count || strcmp(l->fields[i].key, l->fields[i + 1].key) != 0)
                l->fields[count++] = l->fields[i];
        t->twice += l->count - count;
    }
    if (l->owner == NULL) t->root_count = count;
    if (l->owner == NULL) return;
    *l->owner = l->keyed ? iqdb_object(l->fields, count) : iqdb_array(l->items, count);
}

static void level_start(tree *t, level *l, bool keyed, size_t count, iqdb_value *owner) {
    l->keyed = keyed;
    l->left = l->count = count;
    l->owner = owner;
    l->items = t->value_room;
    l->fields = t->field_room;
    if (t->key_room != NULL && keyed) t->field_room += count;
    if (t->key_room != NULL && !keyed) t->value_room += count;
    if (keyed) t->fields += count;
    if (!keyed) t->values += count;
}

/* A number of things of `least` bytes each, which have to be there. */
static bool take_count(span *s, size_t least, size_t *out) {
    uint64_t count;
    const bool is = take_number(s, 4, &count) && count <= (uint64_t)(s->end - s->at) / least;
    *out = (size_t)count;
    return is;
}

static bool take_key(span *s, tree *t, const char **out) {
    const unsigned char *at;
    uint64_t size;
    if (!take_number(s, 4, &size) || !take(s, size, &at) || !is_utf8(at, (size_t)size)) return false;
    if (size > 0 && memchr(at, 0, (size_t)size) != NULL) t->zero_key = true;
    t->key_bytes += (size_t)size + 1;
    *out = t->key_room;
    if (t->key_room == NULL) return true;
    memcpy(t->key_room, at, (size_t)size);
    t->key_room[size] = 0;
    t->key_room += size + 1;
    return true;
}

/* One value but for what an array or an object holds. */
static bool take_scalar(span *s, iqdb_type type, iqdb_value *out) {
    const unsigned char *at = NULL;
    uint64_t number = 0;
    double real;
    if (type == IQDB_TYPE_TEXT || type == IQDB_TYPE_BYTES) {
        if (!take_number(s, 4, &number) || !take(s, number, &at)) return false;
        if (type == IQDB_TYPE_TEXT && !is_utf8(at, (size_t)number)) return false;
    } else if (type != IQDB_TYPE_NULL && !take_number(s, type == IQDB_TYPE_BOOL ? 1 : 8, &number)) {
        return false;
    }
    memcpy(&real, &number, sizeof real);
    *out = type == IQDB_TYPE_NULL    ? iqdb_null()
           : type == IQDB_TYPE_BOOL  ? iqdb_bool(number != 0)
           : type == IQDB_TYPE_INT   ? iqdb_int((int64_t)number)
           : type == IQDB_TYPE_FLOAT ? iqdb_float(real)
           : type == IQDB_TYPE_TEXT  ? iqdb_text_n((const char *)at, (size_t)number)
                                     : iqdb_bytes(at, (size_t)number);
    return true;
}

/* Takes a payload; true also where it is too deep for iqdb.h, and then everything up to the end of the span. */
static bool take_payload(span *s, bool newer, tree *t) {
    static const unsigned char older_tags[] = {0, 1, 2, 3, 4, 5, 6, 7}; /* the numbers of iqdb_type */
    static const unsigned char newer_tags[] = {4, 2, 3, 1, 0};
    level stack[IQDB_PAYLOAD_DEPTH_MAX];
    size_t depth = 1, count;
    if (!take_count(s, 5, &count)) return false;
    t->root = t->field_room;
    level_start(t, &stack[0], true, count, NULL);
    while (depth > 0) {
        level *l = &stack[depth - 1];
        if (l->left == 0) {
            level_finish(t, l);
            depth--;
            continue;
        }
        iqdb_value unused, *value = &unused;
        const char *key = NULL;
        uint64_t tag;
        if (l->keyed && !take_key(s, t, &key)) return false;
        if (!take_number(s, 1, &tag) || tag >= (newer ? COUNT_OF(newer_tags) : COUNT_OF(older_tags))) return false;
        const iqdb_type type = (iqdb_type)(newer ? newer_tags[tag] : older_tags[tag]);
        if (t->key_room != NULL)
            value = l->keyed ? &l->fields[l->count - l->left].value : &l->items[l->count - l->left];
        if (t->key_room != NULL && l->keyed) l->fields[l->count - l->left].key = key;
        l->left--;
        if (type != IQDB_TYPE_ARRAY && type != IQDB_TYPE_OBJECT) {
            if (!take_scalar(s, type, value)) return false;
        } else if (!take_count(s, type == IQDB_TYPE_OBJECT ? 5 : 1, &count)) {
            return false;
        } else if (depth == COUNT_OF(stack)) {
            t->deep = true;
            s->at = s->end;
            return true;
        } else {
            level_start(t, &stack[depth++], type == IQDB_TYPE_OBJECT, count, value);
        }
    }
    return true;
}

/* The payload of a row as fields of `record`, in *memory; NULL, or why iqdb.h has no room for it. */
static const char *row_fields(const original *o, const row *r, void **memory, iqdb_record *record, size_t *out_twice) {
    tree t;
    span s;
    memset(&t, 0, sizeof t);
    *out_twice = 0;
    if (r->payload == NULL) return NULL;
    s.at = r->payload;
    s.end = r->payload + r->payload_size;
    if (!take_payload(&s, o->newer, &t)) return "its payload is malformed";
    if (t.deep) return "its payload is nested deeper than 64";
    if (t.zero_key) return "its payload has a key with U+0000";
    const size_t most = SIZE_MAX / 4 / sizeof(iqdb_field);
    if (t.fields > most || t.values > most || t.key_bytes > most) return "its payload is too large for this machine";
    /* The empty payload too is to be somewhere. */
    unsigned char *at = (unsigned char *)room_for(
        *memory, t.fields * sizeof(iqdb_field) + t.values * sizeof(iqdb_value) + t.key_bytes + 1, 1);
    *memory = at;
    t.field_room = (iqdb_field *)(void *)at;
    t.value_room = (iqdb_value *)(void *)(at + t.fields * sizeof(iqdb_field));
    t.key_room = (char *)(at + t.fields * sizeof(iqdb_field) + t.values * sizeof(iqdb_value));
    s.at = r->payload;
    if (!take_payload(&s, o->newer, &t)) return "its payload is malformed";
    record->fields = t.root;
    record->field_count = t.root_count;
    *out_twice = t.twice;
    return NULL;
}

/* ==== Records ======================================================================================================= */

static bool is_finite(const unsigned char *vector, size_t count) {
    for (size_t i = 0; i < count; i++)
        if ((vector[4 * i + 3] & 0x7F) == 0x7F && (vector[4 * i + 2] & 0x80) != 0) return false;
    return true;
}

/* What follows an id, in rows of `dim` elements, or, where that is 0, with a dim of their own. NULL, or what is wrong. */
static const char *take_record(const original *o, span *s, uint64_t dim, row *r) {
    uint64_t flag;
    tree counted;
    if (dim == 0 && !take_number(s, 4, &dim)) return "a record is cut short";
    if (dim == 0 || dim > UINT32_MAX) return "a vector of no, or too many, elements";
    if (dim > (uint64_t)(s->end - s->at) / 4 || !take(s, dim * 4, &r->vector) || !take_number(s, 1, &flag))
        return "a vector is cut short";
    r->dim = (uint32_t)dim;
    if (!o->newer && !is_finite(r->vector, r->dim)) return "a vector is not finite";
    if (flag > 1) return "a record is malformed";
    if (flag == 0) return NULL;
    r->payload = s->at;
    memset(&counted, 0, sizeof counted);
    if (!take_payload(s, o->newer, &counted)) return "a payload is malformed";
    r->payload_size = (size_t)(s->at - r->payload);
    return NULL;
}

static bool take_id(const original *o, span *s, size_t size_of_size, row *r) {
    uint64_t kind = 0, size = 0;
    if (o->newer && !take_number(s, 1, &kind)) return false;
    if (kind == 0) return take_number(s, 8, &r->id);
    if (kind > 1 || !take_number(s, size_of_size, &size) || !take(s, size, &r->id_bytes)) return false;
    r->id_size = (size_t)size;
    return size > 0;
}

static const char *take_body(const original *o, span *s, row *r) {
    uint64_t op;
    memset(r, 0, sizeof *r);
    if (!take_number(s, 1, &op)) return "an empty frame";
    if (o->newer) op--; /* and 0 becomes one of those that are unknown */
    if (op > 1) return "an unknown kind of frame";
    if (!take_id(o, s, 8, r)) return "an id is malformed";
    const char *why = op == 0 ? take_record(o, s, 0, r) : NULL;
    if (why != NULL) return why;
    return s->at == s->end ? NULL : "a frame is longer than what is in it";
}

/* The frame at *at, which then is behind it. A search looks at what is in it first: seldom does that make sense. */
static const char *take_frame(original *o, const part *p, size_t *at, bool searching, row *r) {
    span s, body;
    uint64_t size, crc;
    s.at = p->bytes + *at;
    s.end = p->bytes + p->size;
    if (!take_number(&s, 4, &size) || (o->newer && !take_number(&s, 4, &crc))) return "a frame is cut short";
    body.at = s.at;
    if (!take(&s, size, &body.at)) return "a frame is cut short";
    body.end = s.at;
    if (!o->newer && !take_number(&s, 4, &crc)) return "a frame is cut short";
    const unsigned char *bytes = body.at;
    if (searching) o->patience -= size < o->patience ? size : o->patience;
    const char *why = searching ? take_body(o, &body, r) : NULL;
    if (why != NULL) return why;
    if (crc_of(bytes, (size_t)size) != crc) return "the checksum of a frame is wrong";
    if (!searching) why = take_body(o, &body, r);
    if (why == NULL) *at = (size_t)(s.at - p->bytes);
    return why;
}

static void name_of(const row *r, char *text, size_t room) {
    if (r->id_bytes == NULL) snprintf(text, room, "%llu", ULL(r->id));
    for (size_t i = 0; r->id_bytes != NULL && i < r->id_size && 2 * i + 6 < room; i++)
        snprintf(text + 2 * i, room - 2 * i, i < 40 ? "%02x" : "...", r->id_bytes[i]);
}

static void add_row(original *o, const row *r) {
    if (o->count == o->room) o->rows = (row *)room_for(o->rows, o->room = 2 * o->room + 256, sizeof *o->rows);
    o->rows[o->count] = *r;
    o->rows[o->count].order = o->count;
    o->count++;
}

/* Frames up to the end. Where there are none any more, the original cuts a log off and refuses a snapshot. What is whole
 * behind that is taken with o->salvage, and otherwise named. */
static bool read_frames(original *o, const part *p, size_t at, bool is_log) {
    bool cut = false;
    o->patience = 8 * (uint64_t)p->size + (1u << 26);
    while (at < p->size) {
        const size_t from = at;
        char id[96];
        row r;
        const char *why = take_frame(o, p, &at, false, &r);
        if (why == NULL && !is_log && r.dim == 0) why = "a delete stands in the snapshot";
        if (why == NULL && (!cut || o->salvage)) {
            add_row(o, &r);
        } else if (why == NULL) {
            name_of(&r, id, sizeof id);
            left_out(o, "record %s: its %s at byte %llu of %s lies behind damage; --salvage takes it", id,
                     r.dim > 0 ? "upsert" : "delete", ULL(from), p->name);
        } else if (!is_log && !o->salvage) {
            return wrong(o, "%s, byte %llu: %s; --salvage takes what is whole", p->name, ULL(from), why);
        } else {
            for (at = from + 1; at < p->size && o->patience > 0; at++) {
                size_t behind = at;
                if (take_frame(o, p, &behind, true, &r) == NULL) break;
            }
            if (o->patience == 0) at = p->size;
            left_out(o, "%s, byte %llu: %s; %llu bytes are not read%s", p->name, ULL(from), why, ULL(at - from),
                     o->patience == 0 ? ", and may have had more frames" : "");
            cut = true;
        }
    }
    return true;
}

/* ==== Files of 1.0 ================================================================================================== */

/* An LZ4 block; false unless it gives `size` bytes. */
static bool unpack_lz4(const unsigned char *at, const unsigned char *end, unsigned char *to, size_t size) {
    size_t done = 0;
    while (at < end) {
        const unsigned token = *at++;
        size_t literals = token >> 4, match = token & 15;
        for (unsigned more = literals == 15 ? 255 : 0; more == 255; literals += more) {
            if (at == end) return false;
            more = *at++;
        }
        if (literals > (size_t)(end - at) || literals > size - done) return false;
        if (literals > 0) memcpy(to + done, at, literals);
        at += literals;
        done += literals;
        if (at == end) break; /* the last sequence has literals only */
        if (end - at < 2) return false;
        const size_t back = at[0] | (size_t)at[1] << 8;
        at += 2;
        for (unsigned more = match == 15 ? 255 : 0; more == 255; match += more) {
            if (at == end) return false;
            more = *at++;
        }
        match += 4;
        if (back == 0 || back > done || match > size - done) return false;
        for (; match > 0; match--, done++) to[done] = to[done - back];
    }
    return done == size;
}

/* What the payload region holds, unpacked where it is packed. */
static bool open_region(original *o, uint64_t version, span *s) {
    uint64_t scheme, size;
    const char *name = o->snapshot.name;
    if (version == 1) return true;
    if (!take_number(s, 1, &scheme) || !take_number(s, 8, &size)) return wrong(o, "%s is cut short", name);
    const size_t packed = (size_t)(s->end - s->at);
    if (scheme == 0) return size == packed || wrong(o, "%s: the size of its rows is wrong", name);
    if (scheme > 2) return wrong(o, "%s: packed by an unknown scheme, %llu", name, ULL(scheme));
    if (size / 4096 > packed || size > SIZE_MAX / 2) return wrong(o, "%s: the size of its rows is not credible", name);
    o->unpacked = (unsigned char *)room_for(NULL, (size_t)size, 1);
    bool good;
    if (scheme == 2) {
        good = unpack_lz4(s->at, s->end, o->unpacked, (size_t)size);
    } else {
#if defined(IMPORT_ZSTD)
        good = ZSTD_decompress(o->unpacked, (size_t)size, s->at, packed) == (size_t)size;
#else
        return wrong(o,
                     "%s: packed by Zstandard, which this program was built without; build it with "
                     "-DIMPORT_ZSTD and -lzstd",
                     name);
#endif
    }
    s->at = o->unpacked;
    s->end = o->unpacked + size;
    return good || wrong(o, "%s: its rows cannot be unpacked", name);
}

/* The index and its settings, for people: here it is chosen anew. */
static bool take_index(original *o, span *s) {
    static const char *const hnsw[] = {"m", "ef_construction", "ef_search", "filter_widen", "seed"};
    static const char *const ivf[] = {"n_clusters", "n_probes", "training_sample_size"};
    uint64_t kind, number;
    const unsigned char *skipped;
    if (!take_number(s, 1, &kind) || kind > 2) return false;
    const size_t count = kind == 1 ? COUNT_OF(hnsw) : kind == 2 ? COUNT_OF(ivf) : 0;
    size_t used = (size_t)snprintf(o->index, sizeof o->index, "%s", kind == 0 ? "flat" : kind == 1 ? "hnsw" : "ivf");
    for (size_t i = 0; i < count; i++) {
        if (!take_number(s, 8, &number)) return false;
        if (used < sizeof o->index)
            used += (size_t)snprintf(o->index + used, sizeof o->index - used, " %s %llu", kind == 1 ? hnsw[i] : ivf[i],
                                     ULL(number));
    }
    if (kind != 2) return true;
    uint64_t pq, has;
    return take_number(s, 1, &pq) && take_number(s, 1, &has) && has <= 1 && take(s, 12 + 8 * has, &skipped);
}

static bool read_rows(original *o, span *s, uint64_t dim, uint64_t metric, uint64_t rows) {
    const unsigned char *magic;
    const char *name = o->snapshot.name, *why;
    uint64_t version, own_dim, own_metric, own_rows;
    if (!take(s, 4, &magic) || memcmp(magic, "IQDC", 4) != 0 || !take_number(s, 4, &version) || version != 1)
        return wrong(o, "%s: its rows are of another format than that of iqdb 1.0", name);
    if (!take_index(o, s) || !take_number(s, 8, &own_dim) || !take_number(s, 1, &own_metric) ||
        !take_number(s, 8, &own_rows))
        return wrong(o, "%s: the description of its index is malformed", name);
    if (own_dim != dim || own_metric != metric || own_rows != rows || dim == 0)
        return wrong(o, "%s: its header and its rows contradict one another", name);
    for (uint64_t i = 0; i < rows; i++) {
        row r;
        memset(&r, 0, sizeof r);
        why = take_id(o, s, 4, &r) ? take_record(o, s, dim, &r) : "an id is malformed";
        if (why != NULL) return wrong(o, "%s, row %llu: %s", name, ULL(i), why);
        add_row(o, &r);
    }
    return s->at == s->end || wrong(o, "%s: there are bytes behind its rows", name);
}

static bool read_file(original *o) {
    static const iqdb_metric metrics[] = {IQDB_COSINE, IQDB_DOT, IQDB_L2, IQDB_L1};
    const unsigned char *magic, *type;
    const char *name = o->snapshot.name;
    uint64_t version, size, metric, rows, crc;
    span s;
    s.at = o->snapshot.bytes;
    s.end = s.at + o->snapshot.size;
    if (!take(&s, 8, &magic) || memcmp(magic, "IQDBPRST", 8) != 0)
        return wrong(o, "%s: it is no file of iqdb 1.0, which begins with IQDBPRST", name);
    if (!take_number(&s, 4, &version) || version < 1 || version > 2)
        return wrong(o, "%s: its version is %llu; 1 and 2 can be read", name, ULL(version));
    if (!take_number(&s, 8, &size) || size > 4096 || !take(&s, size, &type) || !take_number(&s, 8, &o->dim) ||
        !take_number(&s, 1, &metric) || !take_number(&s, 8, &rows) || !take_number(&s, 4, &crc))
        return wrong(o, "%s: its header is cut short or malformed", name);
    if (size != 9 || memcmp(type, "iqdb-core", 9) != 0) {
        char kind[65] = "";
        for (size_t i = 0; i < size && i < 64; i++) kind[i] = type[i] > ' ' && type[i] < 127 ? (char)type[i] : '?';
        return wrong(o, "%s: it holds an index of the kind '%s', which only its own program can read", name, kind);
    }
    if (crc_of(s.at, (size_t)(s.end - s.at)) != crc) return wrong(o, "%s: the checksum of its rows is wrong", name);
    o->metric = metric < COUNT_OF(metrics) ? metrics[metric] : IQDB_METRIC_DEFAULT;
    return open_region(o, version, &s) && read_rows(o, &s, o->dim, metric, rows);
}

/* ==== Both ========================================================================================================== */

static int by_id(const void *left, const void *right) {
    const row *a = (const row *)left, *b = (const row *)right;
    if (a->id_bytes != NULL && b->id_bytes != NULL) {
        const int order = memcmp(a->id_bytes, b->id_bytes, a->id_size < b->id_size ? a->id_size : b->id_size);
        if (order != 0) return order;
        if (a->id_size != b->id_size) return a->id_size < b->id_size ? -1 : 1;
    } else if (a->id_bytes != b->id_bytes) {
        return a->id_bytes == NULL ? -1 : 1;
    } else if (a->id != b->id) {
        return a->id < b->id ? -1 : 1;
    }
    return (a->order > b->order) - (a->order < b->order);
}

static bool same_id(const row *a, const row *b) {
    if (a->id_bytes == NULL || b->id_bytes == NULL) return a->id_bytes == b->id_bytes && a->id == b->id;
    return a->id_size == b->id_size && memcmp(a->id_bytes, b->id_bytes, a->id_size) == 0;
}

/* Fills o->rows from o->snapshot and o->log, which may be empty. The rows point into both. */
static bool original_read(original *o) {
    bool good;
    size_t start = 0;
    if (o->newer) {
        static const unsigned char head[12] = {'I', 'Q', 'D', 'B', 'W', 'A', 'L', 0, 1, 0, 0, 0};
        good = read_file(o);
        const bool known = o->log.size >= sizeof head && memcmp(o->log.bytes, head, sizeof head) == 0;
        if (known) start = sizeof head;
        if (good && !known && o->log.size > 0)
            left_out(o, "%s: it does not begin as a log of iqdb 1.0 does", o->log.name);
    } else {
        static const unsigned char head[8] = {'I', 'Q', 'D', 'B', 1, 0, 0, 0};
        good = o->snapshot.size == 0 ||
               (o->snapshot.size >= sizeof head && memcmp(o->snapshot.bytes, head, sizeof head) == 0) ||
               wrong(o, "%s: it does not begin as a snapshot of iqdb 0.4 does", o->snapshot.name);
        if (good && o->snapshot.size > 0) good = read_frames(o, &o->snapshot, sizeof head, false);
    }
    if (!good || !read_frames(o, &o->log, start, true)) return false;
    size_t kept = 0;
    if (o->count > 1) qsort(o->rows, o->count, sizeof *o->rows, by_id);
    for (size_t i = 0; i < o->count; i++)
        if ((i + 1 == o->count || !same_id(&o->rows[i], &o->rows[i + 1])) && o->rows[i].dim > 0)
            o->rows[kept++] = o->rows[i];
    o->count = kept;
    return true;
}

/* The dimension that most rows have, the smallest of several. 0: none that iqdb.h can have. */
static uint32_t original_dim(const original *o) {
    size_t *counts = (size_t *)room_for(NULL, IQDB_DIM_MAX + 1, sizeof *counts);
    memset(counts, 0, (IQDB_DIM_MAX + 1) * sizeof *counts);
    uint32_t most = 0;
    for (size_t i = 0; i < o->count; i++)
        if (o->rows[i].id_bytes == NULL && o->rows[i].dim <= IQDB_DIM_MAX) counts[o->rows[i].dim]++;
    for (uint32_t dim = 1; dim <= IQDB_DIM_MAX; dim++)
        if (counts[dim] > counts[most]) most = dim;
    free(counts);
    return most;
}

/* Writes every row that fits into `db`, whose dimension is `dim`, and reports the others. IQDB_OK, or the code of a
 * failure that is no row's fault. */
static iqdb_result original_import(original *o, iqdb *db, uint32_t dim, size_t *out_written) {
    float *vector = (float *)room_for(NULL, dim, sizeof *vector);
    void *memory = NULL;
    iqdb_result result = IQDB_OK;
    *out_written = 0;
    for (size_t i = 0; i < o->count && result == IQDB_OK; i++) {
        const row *r = &o->rows[i];
        char id[96], text[96];
        const char *why = NULL;
        size_t twice = 0;
        iqdb_record record = iqdb_record_default();
        name_of(r, id, sizeof id);
        snprintf(text, sizeof text, "it has %lu elements, not %lu%s", (unsigned long)r->dim, (unsigned long)dim,
                 r->dim <= IQDB_DIM_MAX ? "; --dim takes it into a directory of its own" : "");
        if (r->id_bytes != NULL) why = "its id is bytes, and those of iqdb.h are numbers";
        if (why == NULL && r->dim != dim) why = text;
        if (why == NULL) why = row_fields(o, r, &memory, &record, &twice);
        if (why == NULL) {
            for (size_t k = 0; k < dim; k++) {
                const unsigned char *at = r->vector + 4 * k;
                const uint32_t bits = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
                memcpy(&vector[k], &bits, sizeof bits);
            }
            record.id = r->id;
            record.vector = vector;
            record.dim = dim;
            result = iqdb_upsert(db, &record);
            if (result == IQDB_ERR_INVALID_VECTOR || result == IQDB_ERR_INVALID_PAYLOAD || result == IQDB_ERR_LIMIT) {
                why = result == IQDB_ERR_LIMIT ? "its payload is larger than 64 MiB" : iqdb_strerror(result);
                result = IQDB_OK;
            } else if (result == IQDB_OK) {
                (*out_written)++;
            }
        }
        if (why != NULL) left_out(o, "record %s: %s", id, why);
        if (why == NULL && twice > 0)
            left_out(o, "record %s: %llu keys stood twice; like the original, the later value is taken", id,
                     ULL(twice));
    }
    free(vector);
    free(memory);
    return result;
}

static void original_free(original *o) {
    free(o->rows);
    free(o->unpacked);
}

#endif
