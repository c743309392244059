/* iqdb.h - a vector database in one C header (C99 and C++11, no dependency, no daemon, no thread).
 *
 *   In one source file:   #define IQDB_IMPLEMENTATION
 *                         #include "iqdb.h"
 *   Everywhere else:      #include "iqdb.h"
 *
 * The whole of it, as a program (the same text compiles as C and as C++):
 *
 *   #include <stdio.h>
 *   #define IQDB_IMPLEMENTATION
 *   #include "iqdb.h"
 *
 *   int main(void) {
 *       iqdb *db = NULL;
 *       iqdb_result result = iqdb_open("hello-db", NULL, &db);
 *       if (result != IQDB_OK) { puts(iqdb_strerror(result)); return 1; }
 *
 *       const float cat[3] = {1.0f, 0.0f, 0.1f}, dog[3] = {0.9f, 0.4f, 0.0f}, car[3] = {0.0f, 0.1f, 1.0f};
 *       const float *vectors[3] = {cat, dog, car};
 *       const char *words[3] = {"cat", "dog", "car"};
 *       for (int i = 0; i < 3 && result == IQDB_OK; i++) {
 *           iqdb_field field;
 *           field.key = "word";
 *           field.value = iqdb_text(words[i]);
 *           iqdb_record record = iqdb_record_default();
 *           record.id = (uint64_t)i + 1;
 *           record.vector = vectors[i];
 *           record.dim = 3;
 *           record.fields = &field;
 *           record.field_count = 1;
 *           result = iqdb_upsert(db, &record);
 *       }
 *       if (result == IQDB_OK) result = iqdb_flush(db); // from here on it survives a power cut
 *
 *       iqdb_hit hits[2];
 *       size_t count = 0;
 *       iqdb_buffer memory = iqdb_buffer_default();
 *       iqdb_query query = iqdb_query_default();
 *       query.vector = cat;
 *       query.k = 2;
 *       query.flags = IQDB_WITH_PAYLOAD;
 *       query.buffer = &memory;
 *       if (result == IQDB_OK) result = iqdb_search(db, &query, hits, &count);
 *       for (size_t i = 0; i < count; i++)
 *           printf("%s %.3f\n", iqdb_payload_text(hits[i].payload, "word", NULL), hits[i].score);
 *
 *       iqdb_buffer_free(&memory);
 *       iqdb_result closed = iqdb_close(db);
 *       return result == IQDB_OK && closed == IQDB_OK ? 0 : 1;
 *   }
 */
#ifndef IQDB_H
#define IQDB_H

/* ---- Configuration ----
 * IQDB_CONFIG_FILE, as "my_iqdb.h" with its quotes, is included before anything else, for all that may be defined. */
#if defined(IQDB_CONFIG_FILE)
#include IQDB_CONFIG_FILE
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IQDB_VERSION_MAJOR 0
#define IQDB_VERSION_MINOR 1
#define IQDB_VERSION_PATCH 0
/* MAJOR * 10000 + MINOR * 100 + PATCH; compare with iqdb_version(). */
#define IQDB_VERSION (IQDB_VERSION_MAJOR * 10000 + IQDB_VERSION_MINOR * 100 + IQDB_VERSION_PATCH)
/* Version of the files; a directory of a newer one is refused with IQDB_ERR_VERSION. */
#define IQDB_FORMAT_VERSION 1

/* ---- Linkage ----
 * IQDB_STATIC makes every function private to the including file (define it with IQDB_IMPLEMENTATION there).
 * IQDB_API may be predefined, for instance as __declspec(dllexport). */
#ifndef IQDB_API
#if defined(IQDB_STATIC) && (defined(__GNUC__) || defined(__clang__))
#define IQDB_API static __attribute__((unused))
#elif defined(IQDB_STATIC)
#define IQDB_API static
#else
#define IQDB_API extern
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ==== Results =====================================================================================
 * Every call that can fail returns one of these. Values are fixed and never reused. A call that fails
 * has changed nothing, except where IQDB_ERR_IO and IQDB_ERR_POISONED say otherwise. */
typedef enum iqdb_result {
    IQDB_OK = 0,
    IQDB_ERR_IO = -1,             /* the operating system refused; a write that got it has an unknown outcome */
    IQDB_ERR_INVALID_CONFIG = -2, /* options or path make no sense, or contradict what is stored */
    IQDB_ERR_INVALID_VECTOR = -3, /* empty, longer than IQDB_DIM_MAX, with NaN or infinity, or bits behind the last */
    IQDB_ERR_DIMENSION_MISMATCH = -4, /* another dimension than the collection's */
    IQDB_ERR_CORRUPT = -5,            /* damaged data; options.error and the logger name file and offset */
    IQDB_ERR_NOT_IMPLEMENTED = -6,    /* returned by nothing in this version; kept for its number */
    IQDB_ERR_NOT_FOUND = -7,          /* no record with this id, no collection of this name, or none any more */
    IQDB_ERR_NOMEM = -8,              /* the allocator returned NULL, or options.memory_max is reached */
    IQDB_ERR_NOSPACE = -9,            /* the disk is full; nothing was lost */
    IQDB_ERR_LOCKED = -10,            /* another handle, here or in another process, writes to the directory */
    IQDB_ERR_READONLY = -11,          /* a write on a handle opened with read_only, or over a blob */
    IQDB_ERR_VERSION = -12,           /* the directory was written by a newer format */
    IQDB_ERR_LIMIT = -13,             /* a size limit of the format, or a fixed buffer too small (see needed) */
    IQDB_ERR_BUSY = -14,              /* inside a callback; close while others live that need it; beyond retired_max */
    IQDB_ERR_POISONED = -15,          /* an earlier write failed half-way: reads go on, reopen to recover */
    IQDB_ERR_INVALID_FILTER = -16,    /* a filter that this version cannot answer */
    IQDB_ERR_INVALID_PAYLOAD = -17,   /* not UTF-8, a key twice, deeper than IQDB_PAYLOAD_DEPTH_MAX, malformed bytes */
    IQDB_ERR_INVALID_ARGUMENT = -18,  /* a NULL or a number out of range */
    IQDB_ERR_CANCELLED = -19          /* iqdb_cancel_request ended the search */
} iqdb_result;

/* What each argument gets, wherever it is passed. Checks are made in this order, so the first that applies wins.
 *
 *   argument                                                      | code
 *   --------------------------------------------------------------+--------------------------------------------
 *   db, out_*, path, record, query, hits (k > 0), ids, ops NULL    | INVALID_ARGUMENT (counts of 0 allow NULL arrays)
 *   cursor NULL, or hits NULL with a capacity above 0              | INVALID_ARGUMENT
 *   data of a blob, or the function that takes one, NULL           | INVALID_ARGUMENT
 *   an unknown flag, op kind, depth or metric in a call            | INVALID_ARGUMENT
 *   vector NULL where elements are f32, raw NULL where they are not| INVALID_ARGUMENT
 *   a query's metric that the collection's element does not answer | INVALID_ARGUMENT
 *   NaN in max_distance or after.score, where they are asked for   | INVALID_ARGUMENT
 *   WITH_PAYLOAD or WITH_VECTOR without query.buffer; get likewise | INVALID_ARGUMENT
 *   an input that lies in the buffer of the same call              | INVALID_ARGUMENT
 *   vector_count * k beyond what memory can hold                   | INVALID_ARGUMENT
 *   tune for a recall of 0 or 1, or beyond; with > 10,000 queries, | INVALID_ARGUMENT
 *   or any where elements are not f32                              |
 *   a call from inside a callback that may not make it (Threads)   | BUSY
 *   a write on a read_only handle / after a failed sync            | READONLY / POISONED; READONLY as well where the
 *                                                                  | disk had no room for recovery
 *   a write while snapshots keep more than options.retired_max     | BUSY
 *   a filter that cannot be answered (Filters)                     | INVALID_FILTER
 *   k = 0                                                          | OK, no hits
 *   record.dim or query.dim > IQDB_DIM_MAX, NaN, infinity, bits    | INVALID_VECTOR
 *   set behind the last one of a vector of bits                    |
 *   record.dim 0 while the collection has none; distance of dim 0  | INVALID_VECTOR
 *   search in an empty collection                                  | OK, no hits (whatever the dimension)
 *   another dimension than the collection's                        | DIMENSION_MISMATCH
 *   a cancel requested before or during a search among records     | CANCELLED, no hits
 *   a deadline that passes meanwhile                               | OK, the best found so far; info.complete is false
 *   k > number of records                                          | OK, all records
 *   a key twice, NULL or not UTF-8; text NULL or not UTF-8; too deep| INVALID_PAYLOAD
 *   payload bytes that are not a payload                           | INVALID_PAYLOAD
 *   a payload beyond IQDB_PAYLOAD_SIZE_MAX                         | LIMIT
 *   a fixed buffer that is too small                               | LIMIT, buffer.needed says how much
 *   get of an absent id                                            | NOT_FOUND
 *   a collection's name NULL, empty, not UTF-8, or too long        | INVALID_ARGUMENT
 *   a collection that does not exist, where none can be made       | NOT_FOUND; drop of one, too
 *   anything but close on a handle whose collection was dropped    | NOT_FOUND (len is 0, contains false)
 *   an operation for a collection of another database              | INVALID_ARGUMENT
 *   closing a handle of a collection more often than it was opened | INVALID_ARGUMENT
 *   delete of an absent id                                         | OK, out_removed false
 *   options.dim > IQDB_DIM_MAX, unknown metric, element, sync, verify, index, simd_max | INVALID_CONFIG
 *   options.metric that options.element does not answer            | INVALID_CONFIG
 *   IQDB_INDEX_HNSW of another element than f32                    | INVALID_CONFIG
 *   IQDB_INDEX_CUSTOM, or an index stored by it, without index_ops | INVALID_CONFIG
 *   index_ops with a function missing, or no name                  | INVALID_CONFIG
 *   options.dim, metric or element that differ from what is stored | INVALID_CONFIG
 *   a collection beside the default one in a block (iqdb_open_in)  | INVALID_CONFIG
 *   options.dim 0 where a block is to be divided (iqdb_open_in)    | INVALID_CONFIG
 *   no options.files or .allocator where a switch has left out ours| INVALID_CONFIG
 *   IQDB_SYNC_PERIODIC where there is no clock                     | INVALID_CONFIG
 *   files whose payloads a codec has packed that options do not have| INVALID_CONFIG
 *   a block too small for the handle or for one more record        | NOMEM (BUSY where a snapshot keeps the room)
 *   more records than options.memory_max has room for              | NOMEM
 *   a path that is a file, or holds the original's files and no META| INVALID_CONFIG
 *   read_only on a directory that does not exist or has no database| NOT_FOUND
 *   a directory that may not be written                            | IO
 *   a backup into a directory with a database                      | INVALID_CONFIG
 *   open_blob of data at an address that is no multiple of 8       | INVALID_ARGUMENT
 *   a second opener, in this or another process                    | LOCKED (but any number may open read_only, at any
 *                                                                  | time)
 *   a directory or a blob of a newer format                        | VERSION
 *   damage, in any file                                            | CORRUPT, or the answers of before
 */

#define IQDB_DIM_MAX 65536u              /* elements of a vector */
#define IQDB_NAME_SIZE_MAX 255           /* bytes of a collection's name */
#define IQDB_PAYLOAD_DEPTH_MAX 64        /* arrays and objects within one another; the payload itself is depth 1 */
#define IQDB_PAYLOAD_SIZE_MAX (1u << 26) /* bytes of one encoded payload: 64 MiB */

/* ==== Errors in detail ============================================================================
 * Filled by open and by calls that write, check or maintain; searches and gets return plain codes. */
typedef struct iqdb_error {
    iqdb_result code;
    int os_code;       /* errno and the like, 0 where none applies */
    char file[32];     /* name inside the directory, or empty */
    uint64_t offset;   /* bytes into that file, or into the text that was read, where one applies */
    uint64_t lsn;      /* log sequence number, where one applies */
    uint64_t lsn_last; /* findings: of the range that begins at lsn, else 0 */
    uint64_t records;  /* findings of iqdb_repair: records that are lost, where their number is known */
    uint64_t id;       /* findings of iqdb_repair: of the lost record, where has_id says so */
    bool has_id;
    uint32_t dim_expected; /* DIMENSION_MISMATCH: the collection's */
    uint32_t dim_found;    /* DIMENSION_MISMATCH: the argument's */
    char text[160];        /* one English sentence */
} iqdb_error;

/* ==== Memory ======================================================================================
 * alloc_fn returns `size` bytes at a multiple of `alignment` (a power of two, up to 64), or NULL. free_fn gets the
 * same size and alignment back; it is never called with NULL. One allocator per database; callbacks run in the
 * calling thread, one at a time under the handle's lock, and may not call the handle (BUSY). */
typedef struct iqdb_allocator {
    void *(*alloc_fn)(size_t size, size_t alignment, void *user);
    void (*free_fn)(void *memory, size_t size, size_t alignment, void *user);
    void *user;
} iqdb_allocator;

/* Memory for results, owned by the caller, one per thread. Zeroed it grows by `allocator` (NULL: the default one)
 * and keeps its memory for the next call; iqdb_buffer_free releases it. A fixed one never grows: a call that needs
 * more returns IQDB_ERR_LIMIT and sets `needed` to a capacity that suffices for memory that begins where this one
 * does, and is 0 where no capacity would do. Each call starts the buffer anew, so
 * results of earlier calls in it are dead. Pointers into it are final when the call returns. */
typedef struct iqdb_buffer {
    void *bytes;
    size_t capacity;                 /* bytes at `bytes` */
    size_t used;                     /* bytes the last call filled */
    size_t needed;                   /* bytes the last call wanted */
    const iqdb_allocator *allocator; /* NULL: malloc and free; must outlive the buffer */
    bool fixed;                      /* never grow */
} iqdb_buffer;

IQDB_API iqdb_buffer iqdb_buffer_default(void);
IQDB_API iqdb_buffer iqdb_buffer_fixed(void *memory, size_t size);
IQDB_API void iqdb_buffer_free(iqdb_buffer *buffer); /* NULL and fixed ones are fine */

/* ==== Values and payloads =========================================================================
 * A payload is an object: keys (UTF-8, unique, no U+0000) with typed values. It is stored encoded, keys in byte
 * order, so equal payloads have equal bytes. An absent payload differs from an empty one. */
typedef enum iqdb_type {
    IQDB_TYPE_NULL = 0,
    IQDB_TYPE_BOOL = 1,
    IQDB_TYPE_INT = 2,
    IQDB_TYPE_FLOAT = 3,
    IQDB_TYPE_TEXT = 4,
    IQDB_TYPE_BYTES = 5,
    IQDB_TYPE_ARRAY = 6,
    IQDB_TYPE_OBJECT = 7,
    IQDB_TYPE_ABSENT = 255 /* no such value; as a change in iqdb_payload_with: remove the key */
} iqdb_type;

typedef struct iqdb_field iqdb_field;

/* A value. Text, bytes, arrays and objects point at memory of their maker: the caller's when built by the
 * constructors below, the payload's when read from one (then `encoded` is set and `items` or `fields` is NULL).
 * The iqdb_value_* readers accept both kinds. */
typedef struct iqdb_value {
    iqdb_type type;
    union {
        bool boolean;
        int64_t integer;
        double real;
        struct {
            const char *data; /* size bytes of UTF-8; a NUL follows when it was read from a payload */
            size_t size;
        } text;
        struct {
            const void *data;
            size_t size;
        } bytes;
        struct {
            const struct iqdb_value *items;
            size_t count;
            const void *encoded;
            size_t size;
        } array;
        struct {
            const iqdb_field *fields;
            size_t count;
            const void *encoded;
            size_t size;
        } object;
    } as;
} iqdb_value;

struct iqdb_field {
    const char *key; /* zero-terminated UTF-8 */
    iqdb_value value;
};

/* A view of an encoded payload. bytes == NULL: the record has none. */
typedef struct iqdb_payload {
    const void *bytes;
    size_t size;
} iqdb_payload;

IQDB_API iqdb_value iqdb_null(void);
IQDB_API iqdb_value iqdb_bool(bool value);
IQDB_API iqdb_value iqdb_int(int64_t value);
IQDB_API iqdb_value iqdb_float(double value);               /* every bit pattern is kept, NaN included */
IQDB_API iqdb_value iqdb_text(const char *zero_terminated); /* NULL makes a value that a write refuses */
IQDB_API iqdb_value iqdb_text_n(const char *data, size_t size);
IQDB_API iqdb_value iqdb_bytes(const void *data, size_t size);
IQDB_API iqdb_value iqdb_array(const iqdb_value *items, size_t count);
IQDB_API iqdb_value iqdb_object(const iqdb_field *fields, size_t count);

/* Reading arrays and objects, built or encoded. Fields of an encoded object come in byte order of keys. What does
 * not exist, or a value of another type, is 0, IQDB_TYPE_ABSENT or false. iqdb_value_get follows the rule of
 * iqdb_payload_get. */
IQDB_API size_t iqdb_value_count(iqdb_value value);
IQDB_API iqdb_value iqdb_value_at(iqdb_value value, size_t index); /* items of an array, values of an object */
IQDB_API iqdb_value iqdb_value_get(iqdb_value value, const char *key);
IQDB_API bool iqdb_value_field(iqdb_value value, size_t index, iqdb_field *out_field);

/* Reading a payload. Safe on any bytes: malformed ones read as absent. The exact key is tried first; else "a.b"
 * reaches into objects: the shortest part before a dot that names an object is followed, and so on. */
IQDB_API iqdb_value iqdb_payload_get(iqdb_payload payload, const char *key);
IQDB_API int64_t iqdb_payload_int(iqdb_payload payload, const char *key, int64_t otherwise);
IQDB_API double iqdb_payload_float(iqdb_payload payload, const char *key, double otherwise); /* ints too */
IQDB_API bool iqdb_payload_bool(iqdb_payload payload, const char *key, bool otherwise);
/* Zero-terminated; NULL when missing or of another type. out_size (may be NULL): bytes without the NUL. */
IQDB_API const char *iqdb_payload_text(iqdb_payload payload, const char *key, size_t *out_size);
IQDB_API size_t iqdb_payload_count(iqdb_payload payload);
IQDB_API bool iqdb_payload_at(iqdb_payload payload, size_t index, iqdb_field *out_field);

/* Builds a payload in `buffer`: that of `payload` (absent: an empty one) with each change added or replacing its key;
 * a value of IQDB_TYPE_ABSENT removes the key. `payload` and the changes may not lie in the buffer, which needs a few
 * bytes a change beyond the result. With no changes it says whether bytes are a payload. */
IQDB_API iqdb_result iqdb_payload_with(iqdb_payload payload, const iqdb_field *changes, size_t count,
                                       iqdb_buffer *buffer, iqdb_payload *out_payload);

#if !defined(IQDB_NO_TEXT)
/* ---- Payloads as JSON (RFC 8259) ----
 * Writing gives one line without spaces, keys in byte order, and reading it gives the same bytes again. Integers have
 * neither point nor exponent and are kept exactly; floats have one of them, and the fewest digits that read as the same
 * bits. What JSON has no word for is an object of one field, except for the payload itself:
 *   {"$bytes": "00ff"}        bytes, as pairs of hexadecimal digits
 *   {"$float": "infinity"}    or "-infinity", "nan", or the 16 hexadecimal digits of another NaN's bits
 * An object that looks like one of these but is none gets one more $, {"$$bytes": "00ff"}, and loses it when it is read.
 * An absent payload is null.
 * Reading refuses, with INVALID_PAYLOAD, whatever is not JSON by the letter, and a key twice or with U+0000, half of a
 * surrogate pair, integers beyond int64 (1e20 is a float, and fine), floats beyond the range of double, $bytes and $float
 * with another text than above, more than IQDB_PAYLOAD_DEPTH_MAX arrays and objects within one another, and anything
 * that is no object at the top. -0 is the integer 0, -0.0 the float. */

/* *out_json: zero-terminated text in `buffer`; out_size may be NULL. `payload` may not lie in the buffer. */
IQDB_API iqdb_result iqdb_payload_to_json(iqdb_payload payload, iqdb_buffer *buffer, const char **out_json,
                                          size_t *out_size);
/* The buffer has to hold more than the result: about twice that, and four bytes a value. */
IQDB_API iqdb_result iqdb_payload_from_json(const char *json, size_t size, iqdb_buffer *buffer,
                                            iqdb_payload *out_payload);
/* The same; where the text is refused, *out_error (unless NULL) says why, and at which byte (offset). */
IQDB_API iqdb_result iqdb_payload_parse(const char *json, size_t size, iqdb_buffer *buffer, iqdb_payload *out_payload,
                                        iqdb_error *out_error);
#endif

/* ==== Records =====================================================================================
 * Writing: payload.bytes, when not NULL, is taken as encoded (and validated); else `fields` when not NULL (a count of
 * 0 is a present, empty payload); else the record has no payload. Reading: `payload` only. */
typedef struct iqdb_record {
    uint64_t id; /* any value */
    const float
        *vector;     /* dim elements; needs no alignment beyond that of float; of another element than f32 NULL, and */
    const void *raw; /* its elements, packed, at any address (IQDB_ELEMENT_*). Reading: what was stored, always */
    uint32_t dim;    /* elements, 0: the collection's; INVALID_VECTOR while it has none */
    const iqdb_field *fields;
    size_t field_count;
    iqdb_payload payload;
} iqdb_record;

IQDB_API iqdb_record iqdb_record_default(void);

/* ==== Filters =====================================================================================
 * A filter is a plain value made of others; nothing is allocated, and nothing copied but pointers:
 *
 *   const iqdb_value kinds[2] = {iqdb_text("doc"), iqdb_text("note")};
 *   const iqdb_filter both[2] = {iqdb_in("kind", kinds, 2), iqdb_ge("year", iqdb_int(2020))};
 *   const iqdb_filter filter = iqdb_and(both, 2);
 *
 * Keep children and lists in variables of your own, as above, until the call that uses the filter has returned. A key
 * names a field by the rule of iqdb_payload_get ("author.name").
 *
 * A test holds only for what is there and can be compared: it is false for a field that is missing or of another type,
 * and for all fields of a record without payload; that goes for `ne` too, and iqdb_not(iqdb_eq(...)) is the other
 * thing. Integers and floats are compared as the exact numbers that they are; NaN is unequal to everything, and neither
 * less nor greater. Text and bytes are compared byte by byte, false is less than true, and null equals null. Arrays and
 * objects can only be looked into. What cannot be answered is INVALID_FILTER, before anything is read; with
 * IQDB_NO_FILTERS these functions are not there, and every filter is. */
#ifndef IQDB_FILTER_DEPTH_MAX
#define IQDB_FILTER_DEPTH_MAX 64 /* and, or, not within one another, with the test in the innermost; each costs stack */
#endif
#define IQDB_FILTER_IN_MAX 1024     /* values of an `in` */
#define IQDB_FILTER_NODES_MAX 65536 /* tests, branches and values of lists together */

typedef enum iqdb_filter_op {
    IQDB_FILTER_ALL = 0, /* holds for every record */
    IQDB_FILTER_EQ = 1,
    IQDB_FILTER_NE = 2,
    IQDB_FILTER_LT = 3,
    IQDB_FILTER_LE = 4,
    IQDB_FILTER_GT = 5,
    IQDB_FILTER_GE = 6,
    IQDB_FILTER_BETWEEN = 7,
    IQDB_FILTER_IN = 8,
    IQDB_FILTER_PREFIX = 9,
    IQDB_FILTER_EXISTS = 10,
    IQDB_FILTER_IS_NULL = 11,
    IQDB_FILTER_CONTAINS_VALUE = 12,
    IQDB_FILTER_AND = 13,
    IQDB_FILTER_OR = 14,
    IQDB_FILTER_NOT = 15
} iqdb_filter_op;

typedef struct iqdb_filter {
    iqdb_filter_op op;
    const char *key;                    /* of a test */
    iqdb_value value;                   /* what to compare with; the low end of BETWEEN; the text of PREFIX */
    iqdb_value high;                    /* BETWEEN */
    const iqdb_value *values;           /* IN: count values */
    const struct iqdb_filter *children; /* AND, OR: count filters; NOT: one */
    size_t count;
} iqdb_filter;

IQDB_API iqdb_filter iqdb_filter_default(void); /* every record */
IQDB_API iqdb_filter iqdb_eq(const char *key, iqdb_value value);
IQDB_API iqdb_filter iqdb_ne(const char *key, iqdb_value value); /* there, comparable, and not equal */
IQDB_API iqdb_filter iqdb_lt(const char *key, iqdb_value value);
IQDB_API iqdb_filter iqdb_le(const char *key, iqdb_value value);
IQDB_API iqdb_filter iqdb_gt(const char *key, iqdb_value value);
IQDB_API iqdb_filter iqdb_ge(const char *key, iqdb_value value);
IQDB_API iqdb_filter iqdb_between(const char *key, iqdb_value low, iqdb_value high);   /* both ends included */
IQDB_API iqdb_filter iqdb_in(const char *key, const iqdb_value *values, size_t count); /* equal to one of them */
IQDB_API iqdb_filter iqdb_prefix(const char *key, const char *zero_terminated);        /* a text that begins so */
IQDB_API iqdb_filter iqdb_exists(const char *key);                           /* there, of any type, null included */
IQDB_API iqdb_filter iqdb_is_null(const char *key);                          /* there, and null */
IQDB_API iqdb_filter iqdb_contains_value(const char *key, iqdb_value value); /* an array with an item that is equal */
IQDB_API iqdb_filter iqdb_and(const iqdb_filter *children, size_t count);    /* of none: true */
IQDB_API iqdb_filter iqdb_or(const iqdb_filter *children, size_t count);     /* of none: false */
IQDB_API iqdb_filter iqdb_not(const iqdb_filter *child);

#if !defined(IQDB_NO_TEXT)
/* A filter as text:  kind = 'doc' and year >= 2020 and tags contains 'c'
 *
 *   filter  either {or either}               `and` binds closer than `or`, and `not` closer than both;
 *   either  part {and part}                  (...) as usual, at most IQDB_FILTER_DEPTH_MAX within one another
 *   part    not part | ( filter ) | test     also true, which every record passes, and false, which none does
 *   test    key = value                      also ==, != and <>, <, <=, >, >=
 *           key between value and value      both ends included
 *           key in ( value, value ... )      also in ()
 *           key prefix 'text'                a text that begins so
 *           key contains value               an array with such an item
 *           key exists                       there, null included
 *           key is null                      there, and null
 *   key     a letter, _ or $, then letters, digits, _ $ - and dots (everything beyond ASCII is a letter), as in
 *           author.name; any other, and one of the words above, in double quotes, with "" for a quote: "2nd ""key"""
 *   value   'text' with '' for a quote; a number as in JSON, with a point or exponent a float, else an integer;
 *           true; false; null; nan, infinity and -infinity; x'00ff' for bytes
 *
 * Words may be in capitals. The filter's parts lie in `buffer`; where the text is refused (INVALID_FILTER), *out_error
 * (unless NULL) says why, and at which byte (offset). */
IQDB_API iqdb_result iqdb_filter_parse(const char *text, size_t size, iqdb_buffer *buffer, iqdb_filter *out_filter,
                                       iqdb_error *out_error);
/* The filter in these words, zero-terminated, in `buffer`; *out_size, unless NULL, does not count that zero, but those in
 * texts of the filter. Parsed, it is the same filter but for what does not matter: branches of one child, NaN's bits; near
 * the limits of nodes and sizes a text may be too much for a parse. Or INVALID_FILTER. The filter may not lie in the
 * buffer. */
IQDB_API iqdb_result iqdb_filter_to_text(const iqdb_filter *filter, iqdb_buffer *buffer, const char **out_text,
                                         size_t *out_size);
#endif

/* ==== Messages ==================================================================================== */
typedef enum iqdb_level {
    IQDB_LEVEL_ERROR = 1,
    IQDB_LEVEL_WARNING = 2,
    IQDB_LEVEL_INFO = 3
} iqdb_level;

/* Called in the failing thread, under the handle's lock. Calling the handle from here is IQDB_ERR_BUSY. */
typedef struct iqdb_logger {
    void (*log_fn)(iqdb_level level, const iqdb_error *message, void *user);
    void *user;
} iqdb_logger;

/* ==== Files =======================================================================================
 * The file layer, for programs that bring their own. Names have no separators and fit in 32 bytes. Each function
 * returns IQDB_OK, or a code and then sets *os_code (never NULL) to the system's own number, 0 where it has none.
 * Calls on one handle come one at a time. NOSPACE, NOT_FOUND, LOCKED, READONLY and NOMEM are told from IO, because
 * the database acts on them. */
typedef enum iqdb_open_kind {
    IQDB_OPEN_READ = 0,  /* must exist */
    IQDB_OPEN_WRITE = 1, /* must exist; read and write */
    IQDB_OPEN_CREATE =
        2 /* must not exist in any form (INVALID_CONFIG otherwise); read and write, private to the user */
} iqdb_open_kind;

typedef struct iqdb_files {
    /* A directory. `create` makes it and its parents, durably; without it a missing one is NOT_FOUND. A path that is
     * not a directory is INVALID_CONFIG. */
    iqdb_result (*dir_open_fn)(const char *path, bool create, void **out_dir, int *os_code, void *user);
    void (*dir_close_fn)(void *dir, void *user);
    /* Entries made and removed are durable. OK with *os_code set, here and in sync_fn: as durable as the system makes
     * them, which is less; iqdb_stats.weak_sync_count counts those. The default's are F_FULLFSYNC where a volume of macOS
     * knows no more than fsync, and directories where the file system syncs none. */
    iqdb_result (*dir_sync_fn)(void *dir, int *os_code, void *user);
    /* Every name of at most 31 bytes but "." and "..", in any order; each_fn does not change the directory. */
    iqdb_result (*dir_list_fn)(void *dir, void (*each_fn)(const char *name, void *each_user), void *each_user,
                               int *os_code, void *user);
    iqdb_result (*remove_fn)(void *dir, const char *name, int *os_code, void *user); /* missing: NOT_FOUND */
    /* A regular file of a directory. Links and special files are refused with IO. */
    iqdb_result (*open_fn)(void *dir, const char *name, iqdb_open_kind kind, void **out_file, int *os_code, void *user);
    void (*close_fn)(void *file, void *user);
    iqdb_result (*size_fn)(void *file, uint64_t *out_size, int *os_code, void *user);
    /* Fewer bytes than asked for only at the end of the file. */
    iqdb_result (*read_fn)(void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size, int *os_code,
                           void *user);
    /* All bytes or an error; beyond the end the file grows, a gap reads as zeros. */
    iqdb_result (*write_fn)(void *file, uint64_t offset, const void *bytes, size_t size, int *os_code, void *user);
    iqdb_result (*sync_fn)(void *file, int *os_code, void *user); /* contents and size survive a power cut */
    /* A lock that belongs to the open file, not to the process, released by close_fn. LOCKED when another has it. */
    iqdb_result (*lock_fn)(void *file, bool exclusive, int *os_code, void *user);
    void *user;
    /* NULL, or space for `size` bytes at `offset`, the end of the file, which read as zeros then: long writes find it
     * cheaper than zeros that are written. NOSPACE; NOT_IMPLEMENTED: zeros have to be written after all. */
    iqdb_result (*reserve_fn)(void *file, uint64_t offset, uint64_t size, int *os_code, void *user);
    /* NULL, or a hint that a sync will follow: what was written there may go to the disk, nobody waits for it. */
    void (*start_fn)(void *file, uint64_t offset, uint64_t size, void *user);
    /* NULL, or the first `size` bytes of a file as memory that is only read, at a multiple of 64, until unmap_fn; the
     * file may be closed before that. NOT_IMPLEMENTED: they have to be read after all. */
    iqdb_result (*map_fn)(void *file, uint64_t size, const void **out_bytes, int *os_code, void *user);
    void (*unmap_fn)(const void *bytes, uint64_t size, void *user);
} iqdb_files;

/* The operating system's files. A wrapper copies it and replaces what it wants; what comes behind user is called only
 * where open_fn and write_fn come from the same table. */
IQDB_API iqdb_files iqdb_files_default(void);

/* ==== Options ===================================================================================== */
typedef enum iqdb_metric {
    IQDB_METRIC_DEFAULT = 0, /* the stored one; IQDB_COSINE in a new database */
    IQDB_L2 = 1,             /* sqrt(sum (a-b)^2) */
    IQDB_COSINE = 2,         /* 1 - a.b / (|a| |b|), in [0, 2]; 1 when either norm is zero */
    IQDB_DOT = 3,            /* -a.b */
    IQDB_L1 = 4,             /* sum |a-b| */
    IQDB_HAMMING = 5         /* bits that differ; of IQDB_ELEMENT_BIT only, which it implies */
} iqdb_metric;

/* What vectors are made of. Those of f32 are given as `vector`, all others as `raw`: dim elements one behind the other, in
 * the machine's byte order. They are kept as they are, in memory and in files. Scores are those of the numbers: of halves
 * in the order that f32 has, of integers from exact sums that are rounded once to f32; the same bits everywhere. A
 * graph is for f32; lists are for all elements, and codes for all but bits, of which AUTO looks at every one. */
typedef enum iqdb_element {
    IQDB_ELEMENT_F32 = 0,  /* as an option: the stored one, and f32 in a new collection */
    IQDB_ELEMENT_F16 = 1,  /* IEEE 754 binary16 */
    IQDB_ELEMENT_BF16 = 2, /* the upper half of an f32 */
    IQDB_ELEMENT_I8 = 3,   /* -128 to 127 */
    IQDB_ELEMENT_U8 = 4,
    IQDB_ELEMENT_BIT = 5 /* bit i is bit i % 8, from the lowest, of byte i / 8; those behind the last one are 0. Only by
                            IQDB_HAMMING, which is their default */
} iqdb_element;

/* How a search finds records. */
typedef enum iqdb_index {
    IQDB_INDEX_AUTO = 0, /* IQDB_INDEX_FLAT; unless of bits, IQDB_INDEX_IVF once there are 50,000 records */
    IQDB_INDEX_FLAT = 1, /* a look at every record: exact */
    /* A graph of near records, through which a search goes from neighbour to neighbour: for recalls that take many lists,
     * and slower to make. It takes 9 bytes a dimension and some 400 more a record. What is said of IQDB_INDEX_IVF holds
     * for it: it is there from about two thousand records on, unless options.m says how many links; and with IQDB_L1,
     * more than 4,096 dimensions or more than 2,048 hits every record is looked at. */
    IQDB_INDEX_HNSW = 2,
    /* Lists of near records, of which a search reads those nearest to its vector, and which writes and iqdb_maintain
     * make: from about two thousand records on, unless options.nlist says how many lists. Scores are exact, and min(k, all
     * that match) hits are found, but perhaps not the best. A query by another metric, with IQDB_EXACT, of few ids, or of
     * more than 4,096 hits, and a cursor, look at every record. Snapshots of all that there is store them, and the codes
     * of records, so an open has them as they were. Handles that only read make none, but search those that are stored;
     * those of iqdb_open_in and iqdb_open_blob have none. */
    IQDB_INDEX_IVF = 3,
    IQDB_INDEX_CUSTOM = 4 /* that of options.index_ops */
} iqdb_index;

typedef enum iqdb_sync {
    IQDB_SYNC_FLUSH = 0, /* durable after flush, checkpoint or close */
    IQDB_SYNC_EACH = 1,  /* every write is durable when it returns, and seen then; threads that write share syncs */
    /* A write is seen at once, and durable when a call has returned OK that began at least options.sync_interval_ms
     * later: any that writes, though it may find nothing to change, or iqdb_maintain; or, at any time, a flush, a
     * checkpoint or close. Nothing is synced while nobody calls: a program that goes idle calls one of these. A power cut
     * takes writes from the end only, and whole ones. */
    IQDB_SYNC_PERIODIC = 2
} iqdb_sync;

typedef enum iqdb_depth {
    IQDB_DEPTH_DEFAULT = 0, /* open: what it checks anyway, BLOCKS, or of a map FRAMES; verify: RECORDS */
    IQDB_DEPTH_FRAMES = 1,  /* META, headers, and the chain of log frames */
    IQDB_DEPTH_BLOCKS = 2,  /* and every block of every file against its checksum */
    IQDB_DEPTH_RECORDS = 3  /* and every record: finite vectors, norms, payloads, ids found by lookup */
} iqdb_depth;

/* What an open does with the base, the snapshot that the last checkpoint has made. */
typedef enum iqdb_open_mode {
    IQDB_OPEN_HEAP = 0, /* reads it into memory, and checks all of it */
    /* Maps it, and uses it where it lies: open takes as long for many records as for few, and memory is for what is
     * written later. Each part is checked when it is first looked at. What is damaged then is CORRUPT for whoever needs
     * it, each time, and nothing is left out in silence; the logger gets file and offset (from readers, too, and by
     * several at once), as does options.error from calls that write, and iqdb_verify finds all. An index is loaded by
     * the first iqdb_maintain (or by writes, little by little): until then searches are exact. Payload keys that are
     * indexed are read at open. A file that is cut short, or a disk that fails, under a map ends in a signal of the
     * system (SIGBUS, or an exception): no other program should touch the files. Where there is no map (options.files,
     * IQDB_NO_MMAP, a big-endian machine, no address space) it is read as by IQDB_OPEN_HEAP, and the logger hears of it;
     * iqdb_stats.mapped_bytes tells. */
    IQDB_OPEN_MMAP = 1
} iqdb_open_mode;

/* In the order in which a machine prefers them. One that it does not have stands for the best below that it has: NEON
 * on x86-64 is the best there is, and all between SCALAR and NEON is plain C on 64-bit ARM, up to WASM in WebAssembly. */
typedef enum iqdb_simd {
    IQDB_SIMD_BEST = 0, /* the best this machine has */
    IQDB_SIMD_SCALAR = 1,
    IQDB_SIMD_SSE2 = 2,
    IQDB_SIMD_AVX2 = 3,
    IQDB_SIMD_AVX512 = 4, /* its foundation, F, is all that is used */
    IQDB_SIMD_NEON = 5,
    IQDB_SIMD_WASM = 6 /* the 128-bit instructions, where the module was compiled with -msimd128 */
} iqdb_simd;

/* Fills `size` bytes that cannot be guessed; false on failure. */
typedef struct iqdb_entropy {
    bool (*fill_fn)(void *bytes, size_t size, void *user);
    void *user;
} iqdb_entropy;

/* The caller's threads, for a search to use: the library starts none of its own. run_fn calls task_fn(index, task) once
 * for each index below count, on any threads, in any order, at once or one by one, and returns when all have returned;
 * what they wrote is then visible to it (as any join, queue or barrier makes it). Searches of several threads call it at
 * the same time. Answers are the same bytes for any worker_count. */
typedef struct iqdb_parallel_for {
    void (*run_fn)(void (*task_fn)(size_t index, void *task), void *task, size_t count, void *user);
    size_t worker_count; /* how many tasks are worth making; 0 and 1: the calling thread does everything */
    void *user;
} iqdb_parallel_for;

/* Microseconds since any beginning, never going back. Asked only by calls with a budget or a deadline, every few
 * microseconds, in their own threads, several at a time; and, once in each, by writes with IQDB_SYNC_PERIODIC; and, for
 * iqdb_stats, by iqdb_stat, at the end of a checkpoint, and before and behind each sync. */
typedef struct iqdb_clock {
    uint64_t (*now_fn)(void *user);
    void *user;
} iqdb_clock;

/* ---- Indexes of payload keys ----
 * A filter that tests such a key is answered from the rows that the index lists, in a count, a delete, an iteration or
 * a search; what is found is the same. A key names a field by the rule of iqdb_payload_get; of an array, each item is
 * listed. An index takes 16 bytes for each value, up to four times that while much is replaced. */
#define IQDB_INDEX_KEYS_MAX 32
#define IQDB_INDEX_KEY_SIZE_MAX 255

typedef enum iqdb_key_kind {
    IQDB_KEY_HASH = 0,   /* for eq, in, is_null and contains, by a hash of the value */
    IQDB_KEY_ORDERED = 1 /* and for lt, le, gt, ge, between and prefix, by the first 11 bytes of a text */
} iqdb_key_kind;

typedef struct iqdb_index_key {
    const char *key;
    iqdb_key_kind kind;
} iqdb_index_key;

/* ---- Codecs ----
 * A codec packs the payloads in snapshots, that is in files of checkpoints, in copies and in blobs, in blocks of 64 KiB;
 * vectors do not pack, and logs and memory are as without. options.codecs names those that a handle has, at most
 * IQDB_CODECS_MAX: the first one packs, where it has a compress_fn, and all unpack. The file says which it needs: an open
 * without it is INVALID_CONFIG, and options.error names it. In a blob that is opened in place, payloads are unpacked into
 * memory. A codec of one's own is two functions, which run in the calling thread under the handle's lock, and may not call
 * the handle (BUSY); examples/codec_zlib.c, _lz4.c and _zstd.c have them. */
#define IQDB_CODECS_MAX 4
#define IQDB_CODEC_NAME_SIZE_MAX 31

typedef struct iqdb_codec {
    const char *name; /* kept in files, 1 to IQDB_CODEC_NAME_SIZE_MAX bytes; must outlive the handle */
    /* Packs `size` bytes, at most 64 KiB, into `out`: returns how many these are, or 0 where they are more than `capacity`,
     * or anything fails: then the bytes are kept as they are. The same bytes have to give the same, where blobs and files
     * are to be the same. NULL: it only unpacks. */
    size_t (*compress_fn)(const void *bytes, size_t size, void *out, size_t capacity, void *user);
    /* Unpacks them into just `size` bytes; false where it cannot: any bytes may come, with valid checksums. */
    bool (*decompress_fn)(const void *packed, size_t packed_size, void *out, size_t size, void *user);
    void *user;
} iqdb_codec;

/* ---- An index of one's own ----
 * An index finds rows, the numbers of the places that records have. One of your own is a table of functions, which
 * options.index_ops names and IQDB_INDEX_CUSTOM makes: it is given the rows that are new and told of those that go; a
 * search asks it for rows, and compares these like all others. So it may offer what it likes, a row twice or one that does
 * not exist: scores are exact, and min(k, all that match) hits are found, though perhaps not the best. Records that it has
 * not taken in are looked at one by one, and all of them where a search gets too few rows, or it fails: as where k is
 * beyond 4,096, and where IQDB_INDEX_IVF says so. Snapshots store it under its name; an open that finds one which
 * index_ops does not have is INVALID_CONFIG, and options.error names it, unless options.index asks for an index of
 * another kind. examples/custom_index.c has one.
 *
 * search_fn and search_bytes_fn run in the threads of searches, any number at a time, and may call the handle as a
 * predicate may; beside them one of the others runs, under the handle's lock, and may not call it (BUSY). An index of a
 * program with threads therefore changes no memory that a search may be reading, but for what is atomic: it publishes a
 * changed copy, and retires what that replaces. */

/* What the index is made for. There is one for each collection, and one more while iqdb_reindex replaces it. */
typedef struct iqdb_index_host {
    uint32_t dim;
    iqdb_element element;
    iqdb_metric metric;
    uint64_t seed; /* options.seed */
} iqdb_index_host;

typedef struct iqdb_index_query {
    const void *vector; /* as iqdb_index_vector gives them */
    size_t k;           /* hits that are wanted */
    uint32_t effort;    /* query.nprobe, or options.nprobe; 0: neither says */
    void *memory;       /* of search_bytes_fn, at a multiple of 64 */
} iqdb_index_query;

typedef struct iqdb_index_io {
    uint64_t size;      /* bytes that there are to read */
    uint32_t row_count; /* rows that there are then, from 0 on */
    uint64_t at;        /* save_fn's own, 0 at first */
} iqdb_index_io;

/* Anything but IQDB_OK is a failure. */
typedef struct iqdb_index_ops {
    const char *name; /* what files call it, 1 to IQDB_CODEC_NAME_SIZE_MAX bytes; must outlive the handle */
    /* An empty one, for a host that stays until close_fn. Where it fails it is asked again later. */
    iqdb_result (*open_fn)(iqdb_index_host *host, void **out_index, void *user);
    void (*close_fn)(void *index, void *user);
    /* From when it returns searches find the row. Its vector stays, where it is and as it is, until remove_fn has
     * returned. Where it fails the row comes again later. */
    iqdb_result (*insert_fn)(void *index, uint32_t row, const void *vector, void *user);
    /* Nobody is looking for the row any more, though a search that runs may still offer it. The number may come again. */
    void (*remove_fn)(void *index, uint32_t row, void *user);
    /* Memory that a search for k hits wants; NULL: none. */
    size_t (*search_bytes_fn)(const void *index, size_t k, void *user);
    /* Offers rows, the most promising first, by iqdb_index_offer. */
    iqdb_result (*search_fn)(const void *index, iqdb_index_query *query, void *user);
    /* Writes a slice, of some 64 KiB where others are not to wait, by iqdb_index_write, until *out_done; all of it twice:
     * the first time bytes are only counted. Meanwhile no row comes, and those go that have no place: it writes places in
     * the place of rows. Where the bytes are not as many the second time, or it fails, none are stored. NULL, with
     * load_fn: it is made anew behind each open. */
    iqdb_result (*save_fn)(const void *index, iqdb_index_io *io, bool *out_done, void *user);
    /* Into an empty one: reads them by iqdb_index_read, and names each row that it has by iqdb_index_restore. Any bytes
     * may come, with valid checksums. NOT_FOUND: it is to be made anew; any other failure, but NOMEM, is CORRUPT. */
    iqdb_result (*load_fn)(void *index, iqdb_index_io *io, void *user);
    void *user;
} iqdb_index_ops;

/* For an index, and not from search_fn: memory, zeroed, at a multiple of 64, NULL where there is none, with 64 bytes for
 * itself; counted in index_bytes of iqdb_stats. Free what no search has ever reached, or at close; retire what they do not
 * reach from now on, and it is freed when those that run have ended. NULL is fine. */
IQDB_API void *iqdb_index_alloc(iqdb_index_host *host, size_t size);
IQDB_API void iqdb_index_free(iqdb_index_host *host, void *memory);
IQDB_API void iqdb_index_retire(iqdb_index_host *host, void *memory);
/* The vector of a row that the index has: its elements as they were given, at a multiple of 64, and zeros to the next one,
 * of bits to a multiple of 8. NULL: no row has had this number. */
IQDB_API const void *iqdb_index_vector(const iqdb_index_host *host, uint32_t row);
/* Has a search look at these rows; false: its time is over. */
IQDB_API bool iqdb_index_offer(iqdb_index_query *query, const uint32_t *rows, size_t count);
IQDB_API iqdb_result iqdb_index_write(iqdb_index_io *io, const void *bytes, size_t size);
/* The number that the row has when it is loaded again, or UINT32_MAX: it is not stored. */
IQDB_API uint32_t iqdb_index_place(const iqdb_index_io *io, uint32_t row);
/* The next bytes; CORRUPT where they are damaged, or not so many. */
IQDB_API iqdb_result iqdb_index_read(iqdb_index_io *io, void *bytes, size_t size);
/* From now on searches find the row; false where there is none, or it was named before. */
IQDB_API bool iqdb_index_restore(iqdb_index_io *io, uint32_t row);

#define IQDB_MODEL_SIZE_MAX 63

/* All zero is all defaults, and so is NULL. Tables are copied; every `user`, and `error`, must outlive the handle. */
typedef struct iqdb_options {
    uint32_t dim;       /* 0: the stored one, else taken from the first upsert */
    iqdb_metric metric; /* what a query uses that names none */
    iqdb_element element;
    const char *model; /* tag of the model that makes the vectors, at most IQDB_MODEL_SIZE_MAX bytes of UTF-8, so that
                          two models are never mixed. A database keeps the first that it is given, in META, copies and
                          blobs; an open, a load or a refresh that names another one is INVALID_CONFIG, with both in
                          options.error. NULL or "": whichever is stored. Without files, IQDB_SMALL has none: a tag is
                          INVALID_CONFIG, that of a blob is left aside, and lost in a copy */
    iqdb_sync sync;
    uint32_t sync_interval_ms; /* of IQDB_SYNC_PERIODIC, 0: 1,000 */
    bool read_only;            /* the database must exist; nothing is written, nor locked: others may write */
    bool compact_on_close; /* close leaves one snapshot and an empty log, O(n); otherwise close is O(pending bytes) */
    uint64_t checkpoint_bytes; /* of logs, 0: 64 MiB. Beyond them each write works off a slice of a checkpoint, as large
                                    as to be done with it when there are twice as many; UINT64_MAX: none does */
    iqdb_open_mode open_mode;
    iqdb_depth verify;         /* check more at open. RECORDS is INVALID_CONFIG where IQDB_SMALL and IQDB_READONLY leave
                                nothing but blobs, whose vectors, ids and payloads are always looked at: iqdb_verify */
    uint64_t retired_max;      /* bytes of replaced and deleted records that living snapshots may keep, 0: 256 MiB; with
                                more than that a write is BUSY, so a loop that rewrites everything iterates in pages */
    uint64_t memory_max; /* bytes that records may count, 0: no limit. A record counts 4 bytes an element, elements
                              rounded up to 16, and 88 more (of other elements their bytes, rounded up to 64, of bits 8); with a code also half a byte an element, elements rounded
                              up to 8, and 9 more; a payload twice, for it may leave a gap of its size: so it is near
                              what vector_bytes, payload_bytes and lookup_bytes of iqdb_stats come to. Beside it
                              there are retired_max, indexes of keys, and what searches need. A write, an open or a load that would go
                              beyond it is NOMEM; deletes go on, and replacing one by one by what is no larger */
    iqdb_index index;
    uint32_t m;               /* of IQDB_INDEX_HNSW: a record has twice as many links, 2 to 16, 0: 16 */
    uint32_t ef_construction; /* and how widely its neighbours are searched for, up to 3,000, 0: 200 */
    uint32_t ef_search;       /* the same for a search that does not say, 0: as calibrated for a recall of .95 */
    uint32_t nlist;           /* of IQDB_INDEX_IVF: lists, 0: as many as suit the number of records */
    uint32_t nprobe; /* lists that a search reads which does not say how many, 0: as calibrated for a recall of .95 */
    uint64_t seed;   /* for what an index draws by lot: the same writes and seed give the same index */
    const iqdb_index_ops *index_ops;  /* of IQDB_INDEX_CUSTOM; NULL: there is none. With IQDB_SMALL INVALID_CONFIG */
    bool rebuild_damaged_index;       /* codes and indexes that are stored, and found damaged, are made again from the
                                   records; otherwise open is CORRUPT */
    const iqdb_index_key *index_keys; /* payload keys to be indexed, of some 2,000 bytes in all; a directory remembers
                                         their names, and what they list is made from the payloads at each open, in
                                         O(n). Others than before take their place. NULL: as before. With IQDB_SMALL
                                         INVALID_CONFIG */
    size_t index_key_count;
    bool no_codes;      /* keep no codes of 4 bits beside the vectors: an eighth less memory, but exact searches read
                              every vector. Answers are the same. Handles of iqdb_open_in never have any */
    iqdb_simd simd_max; /* use no better instruction set than this: answers are the same, bit for bit */
    const iqdb_codec *codecs; /* codec_count of them, for payloads in snapshots; NULL: they are not packed. With
                                 IQDB_SMALL INVALID_CONFIG */
    size_t codec_count;
    iqdb_allocator allocator;       /* alloc_fn NULL: malloc and free */
    iqdb_files files;               /* dir_open_fn NULL: iqdb_files_default() */
    iqdb_logger logger;             /* log_fn NULL: silent */
    iqdb_parallel_for parallel_for; /* run_fn NULL: the calling thread does everything */
    iqdb_clock clock_us;            /* now_fn NULL: the system's */
    iqdb_entropy entropy;           /* fill_fn NULL: the system's; identity of the database and salts of its logs */
    iqdb_error *error;              /* NULL, or where details of the last failure go (open's too) */
} iqdb_options;

IQDB_API iqdb_options iqdb_options_default(void);

/* ==== Lifecycle ===================================================================================
 * A handle may be used by any number of threads at once, except that no other thread may be in a call on it when it
 * is closed. On failure *out_db is NULL. */
typedef struct iqdb iqdb;

/* path: a directory, created with its parents when missing; one that is a symbolic link itself is refused ("link/." says
 * that it is meant). Loads and checks everything that is stored. After fork a child may read its copy of the handle and
 * close it; its writes are LOCKED, and the lock is free when both have let go of it. Where another thread was in a call
 * that writes (see Threads) when the process was forked, all such calls are LOCKED in the child, and its close gives up
 * the lock only: memory and other files of the handle stay until the child ends. A handle in memory is to be forked
 * while no other thread writes to it. */
IQDB_API iqdb_result iqdb_open(const char *path, const iqdb_options *options, iqdb **out_db);
IQDB_API iqdb_result iqdb_open_in_memory(const iqdb_options *options, iqdb **out_db);
/* A handle opened with read_only holds what was written when it was opened, and does not change by itself, whatever a
 * writer in another process, or in this one, does meanwhile. This brings it to what is written now: it reads on in the
 * log, or, behind checkpoints, all of it beside what there is, which takes memory for both. Readers see all of it at
 * once, and iterators and cursors go on to see what they saw. Writes may be seen that are not durable yet (durable_lsn of
 * iqdb_stats tells), and, if the writer dies with the machine, were never there; what is seen is always all writes up to
 * one of them. A failure changes nothing; CORRUPT means what it does in iqdb_open; memory_max is not looked at. Other
 * handles are as they should be: OK. */
IQDB_API iqdb_result iqdb_refresh(iqdb *db);
/* A database in memory that lies wholly in one block of the caller's, and asks nobody for more: neither the block nor
 * what is in it ever moves. `memory` may have any address, and must outlive the handle; nothing is written before it or
 * behind its `size` bytes. options.dim is needed (INVALID_CONFIG), options.allocator is not used. NOMEM where the block
 * is smaller than for no records at all. With more than was asked for there is room for more.
 *
 * iqdb_memory_required says how many bytes do, 0 where no number would. They cover
 *   - `records` records at a time with payloads of `payload_bytes` in all (the sum of iqdb_payload.size), however the
 *     bytes are shared out, written one by one or in batches. Records may take the place of payloads and the reverse:
 *     each counts what it takes, and a payload counts twice;
 *   - one record more while it is written, so that in a full block records can be replaced one by one, for ever. A
 *     payload may be replaced by one of any size that leaves all within payload_bytes; made from fields, which are
 *     encoded in the block first, of half of that. Batches that replace more, and records that are replaced while an
 *     iterator sees the old ones, need as many records more, of the same size;
 *   - four searches, counts, cursors or iterators at once (one with IQDB_NO_THREADS), with filters of some twenty tests,
 *     and cursors with a k of up to 64; the hits of a search are the caller's. More at once, larger filters, lists of ids
 *     among more than some 20,000 records, and cursors of more hits may be NOMEM. Of a batch as many vectors are searched
 *     at a time as 4 KiB hold. Gets go into fixed buffers. iqdb_delete_where, a backup or a blob need room among the
 *     records (8 bytes for each that goes; some 100 KiB), and are NOMEM without.
 * In a block that is one byte smaller the last of these records is refused. A write that does not fit is NOMEM, or BUSY
 * where what it needs is kept by a snapshot; either leaves everything as it was and in use. Places of records stay such:
 * where once there were more of them than stated, there may be less room for payloads. Payloads whose sizes change a lot
 * may scatter what is free so that a large one finds none: state more where that is to be expected. */
IQDB_API size_t iqdb_memory_required(const iqdb_options *options, size_t records, size_t payload_bytes);
IQDB_API iqdb_result iqdb_open_in(void *memory, size_t size, const iqdb_options *options, iqdb **out_db);
/* BUSY while an iterator, a cursor or a handle of a collection lives or from inside a callback or predicate; otherwise
 * always frees the handle, whatever it returns: the code says whether everything written is durable. NULL is OK. A handle
 * of a collection is closed at once; iterators and cursors go on. */
IQDB_API iqdb_result iqdb_close(iqdb *db);
/* Everything written so far survives a power cut. In memory: OK. */
IQDB_API iqdb_result iqdb_flush(iqdb *db);
/* All that was written before is in snapshots when it returns, and the log is an empty one. What it writes is what has
 * changed: a delta, which now and then takes in those before it, and the base, so that no file is large beside those that
 * follow it. It works in slices, beside which others read and write. An index that has grown by half since it was stored
 * is stored, in a snapshot of all. In memory: OK. */
IQDB_API iqdb_result iqdb_checkpoint(iqdb *db);

/* Works for about budget_us, but always a little, on what writes have left to do: takes records into the index that
 * options.index asks for, trains it anew when there are twice as many as the last time, or these were replaced twice, and
 * stores it, by a checkpoint of all, when it has grown by half; gives back memory that snapshots had kept, syncs where
 * IQDB_SYNC_PERIODIC wants it by now, goes on with the checkpoint that options.checkpoint_bytes asks for (its codes are
 * then those of iqdb_checkpoint), and notes in the log what is durable. *out_done: there is no more of it, as long as
 * living snapshots keep the rest. Writes do the same, so this is for programs that count their microseconds; but for one
 * thing that they leave to it: where there is no index, and 16,384 records or more of 64 to 2,048 elements, codes of the
 * records' principal directions take the place of those of all elements, if that makes exact searches read less. */
IQDB_API iqdb_result iqdb_maintain(iqdb *db, uint32_t budget_us, bool *out_done);
/* How many lists are to be read, or how widely a graph is to be searched, for a recall between 0 and 1, which is otherwise
 * .95: found by searching for `queries`, query_count vectors of the collection's dimension, at most 10,000, one behind the
 * other, by the index and exactly; or, NULL, for records. Queries of another kind than the records, short titles for
 * texts, need more than records tell: this is where to show some; how much more stays known when there are other records. Searches that say nprobe or ef are not concerned.
 * Without an index: OK. */
IQDB_API iqdb_result iqdb_tune(iqdb *db, float recall, const float *queries, size_t query_count);

/* Gives the collection another index while it is used: of the options (NULL: all defaults) index, its knobs and seed
 * count, as in iqdb_open. The choice is a write like any other, and stays: from then on options that name no index get it, those
 * that name another one are INVALID_CONFIG, and knobs that are 0 are those chosen here. Where more than nprobe and
 * ef_search has changed, the present index is given up, and searches look at every record until writes and iqdb_maintain
 * have made the new one; which they begin to when no iterator, cursor or search is left that began before. BUSY where the
 * index of before the last reindex is still kept so. INVALID_CONFIG: an index that is unknown. */
IQDB_API iqdb_result iqdb_reindex(iqdb *db, const iqdb_options *options);

/* One finding; called under the handle's lock, calling the handle is BUSY. */
typedef void (*iqdb_report_fn)(const iqdb_error *finding, void *user);
/* Reads the files again and checks them, and memory, to `depth`; reports every finding (report may be NULL). OK when
 * there is none, else the code of the first. Changes nothing. */
IQDB_API iqdb_result iqdb_verify(iqdb *db, iqdb_depth depth, iqdb_report_fn report, void *user);

/* ==== Collections =================================================================================
 * A database is one collection of records, or many: beside the default one, which iqdb_open gives, there may be others by
 * name, each with ids, dimension, element and metric of its own, all in one directory and one log. A handle sees a database through
 * one collection: records are written, read and searched there, while flush, checkpoint, maintain, verify, refresh,
 * copies and the limits of options are those of the whole database. Thousands of small collections are fine.
 *
 *   iqdb *notes = NULL;
 *   result = iqdb_collection(db, "notes", NULL, &notes);
 *   if (result == IQDB_OK) result = iqdb_upsert(notes, &record);
 *   iqdb_close(notes); */

/* The collection of this name (UTF-8, 1 to IQDB_NAME_SIZE_MAX bytes), which is made where there is none: NOT_FOUND where
 * the handle may not write. db: any handle of the database. Of options (NULL: all defaults) dim, metric and element count, and
 * index_keys where no handle of the collection has been there since the database was opened. Their names stay with it,
 * in copies and blobs too, and count where index_keys is NULL; others take their place, which is a write, or, where the
 * handle may not write, do not stay. What they list is not stored, but made from the payloads for that first handle, in
 * O(n). Making a collection is a write like any other. Each handle is closed before that of iqdb_open; the collection
 * stays. */
IQDB_API iqdb_result iqdb_collection(iqdb *db, const char *name, const iqdb_options *options, iqdb **out_collection);
/* Deletes the collection and all that is in it, at once and atomically; NOT_FOUND where there is none. What iterators and
 * cursors see stays until they end; its handles are left to be closed. */
IQDB_API iqdb_result iqdb_collection_drop(iqdb *db, const char *name);
/* Calls for each name until that returns false. In the call the handle may be used for anything; what is made or dropped
 * meanwhile may or may not be named. The default collection has no name. */
typedef bool (*iqdb_name_fn)(const char *name, void *user);
IQDB_API iqdb_result iqdb_collection_names(const iqdb *db, iqdb_name_fn fn, void *user);

/* ==== Copies and repair ===========================================================================
 * A blob is a whole database in one piece of memory: it means the same at any address and on any machine, and each
 * of its bytes is under a checksum. */

/* Takes `size` more bytes, in order; false ends the export with IQDB_ERR_IO. Called under the handle's lock. */
typedef bool (*iqdb_write_fn)(const void *bytes, size_t size, void *user);
/* Writes what the handle holds now as a blob. The same records, in the same history, give the same bytes. */
IQDB_API iqdb_result iqdb_export_blob(iqdb *db, iqdb_write_fn write, void *user);
/* Reads a blob where it lies, in ROM or in a larger file: records stay there, and only what finds them is built. The
 * memory must not change while the handle lives; writes are READONLY. `data` must lie at a multiple of 8 (64 is
 * fastest), else INVALID_ARGUMENT: align it, or use iqdb_load_blob. A big-endian machine copies the records. Any bytes
 * may be passed: what is not a whole blob is CORRUPT, one of a newer format VERSION. */
IQDB_API iqdb_result iqdb_open_blob(const void *data, size_t size, const iqdb_options *options, iqdb **out_db);
/* Copies a blob, at any address, into a database in memory that may be written. `data` is read during the call only. */
IQDB_API iqdb_result iqdb_load_blob(const void *data, size_t size, const iqdb_options *options, iqdb **out_db);
/* Writes what the handle holds now to another directory, which is then an ordinary database, closed and durable, of the
 * same identity (of its own, where the handle is in memory). The handle may be in memory, read-only or poisoned. Files
 * go through options.files of the handle. INVALID_CONFIG where there is a database already, LOCKED where it is open.
 * What a failure has left in the directory, LOCK excepted, is removed. */
IQDB_API iqdb_result iqdb_backup(iqdb *db, const char *path);
/* Makes a new database in `to` of all that can be read of a damaged one in `from`, which is never changed: of
 * snapshots every row whose bytes lie in undamaged blocks, of logs every whole batch before, between and behind damage.
 * Each damage is reported (report may be NULL) with file and offset, each lost record with its id where that can still
 * be read, lost writes with the range of their LSNs: what those had changed is found as it was before. Where META is
 * lost, it does not know the index_keys of the default collection any more. `to` NULL: only report, also where iqdb_open fails. Of the options, allocator, files, entropy, codecs, simd_max, error, and, where META and
 * snapshot are both lost, metric and element count. OK: `to` holds what could be saved, under an identity of its own; without `to`,
 * nothing was found; else, without `to`, the code of the first finding. Other codes are those of iqdb_open for `from`
 * and of iqdb_backup for `to`. */
IQDB_API iqdb_result iqdb_repair(const char *from, const char *to, const iqdb_options *options, iqdb_report_fn report,
                                 void *user);

/* ==== Writing =====================================================================================
 * Every write is atomic: all of it or none is found after a crash, and no search sees half of one. */
IQDB_API iqdb_result iqdb_upsert(iqdb *db, const iqdb_record *record);
/* One atomic batch with one sync. An id that stands twice gets the later record. count 0 is OK. */
IQDB_API iqdb_result iqdb_upsert_batch(iqdb *db, const iqdb_record *records, size_t count);
/* out_removed (may be NULL): whether the id was there. */
IQDB_API iqdb_result iqdb_delete(iqdb *db, uint64_t id, bool *out_removed);
IQDB_API iqdb_result iqdb_delete_batch(iqdb *db, const uint64_t *ids, size_t count, size_t *out_removed);

/* Deletes what the filter accepts, in one atomic batch. */
IQDB_API iqdb_result iqdb_delete_where(iqdb *db, const iqdb_filter *filter, size_t *out_removed);
/* Changes the payload as iqdb_payload_with does (adds, replaces, and removes with IQDB_TYPE_ABSENT) and keeps the vector.
 * NOT_FOUND where there is no such record. */
IQDB_API iqdb_result iqdb_update_payload(iqdb *db, uint64_t id, const iqdb_field *fields, size_t field_count);

typedef enum iqdb_op_kind {
    IQDB_OP_UPSERT = 0,
    IQDB_OP_DELETE = 1
} iqdb_op_kind;

typedef struct iqdb_op {
    iqdb_op_kind kind;
    iqdb *collection;          /* of the same database; NULL: that of the handle */
    const iqdb_record *record; /* UPSERT */
    uint64_t id;               /* DELETE */
} iqdb_op;

IQDB_API iqdb_op iqdb_op_default(void);
/* One atomic batch, in as many collections as it names; operations take effect in their order. */
IQDB_API iqdb_result iqdb_apply(iqdb *db, const iqdb_op *ops, size_t count);
/* Memory for the vectors of `records` records in all, so that inserting them does not have to ask for it piece by
 * piece. While the collection has no dimension, what can be prepared without it. LIMIT beyond 2^32 - 2. */
IQDB_API iqdb_result iqdb_reserve(iqdb *db, size_t records);

/* ==== Reading ===================================================================================== */
/* Copies the record into `buffer`, bit for bit as it was stored. */
IQDB_API iqdb_result iqdb_get(const iqdb *db, uint64_t id, iqdb_buffer *buffer, iqdb_record *out_record);
IQDB_API bool iqdb_contains(const iqdb *db, uint64_t id);
IQDB_API size_t iqdb_len(const iqdb *db); /* 0 for NULL */
IQDB_API bool iqdb_is_empty(const iqdb *db);
/* The records that the filter accepts; NULL: all. */
IQDB_API iqdb_result iqdb_count(const iqdb *db, const iqdb_filter *filter, size_t *out_count);

/* ==== Search ======================================================================================
 * Exact: the k records with the smallest scores, ascending, equal scores by ascending id; the same ids and the same
 * score bits on every platform and instruction set. */
#define IQDB_EXACT 0x1u        /* whatever index there is: the best of all records */
#define IQDB_WITH_PAYLOAD 0x2u /* copy the payload of each hit into query.buffer */
#define IQDB_MAX_DISTANCE 0x4u /* only records whose score is at most query.max_distance */
#define IQDB_AFTER \
    0x8u                       /* only records that rank behind query.after by score and id: the last hit of a page asks
                                * for the next one. Each call sees the records of its own time. */
#define IQDB_WITH_VECTOR 0x10u /* copy the vector of each hit into query.buffer, as WITH_PAYLOAD does payloads */

typedef struct iqdb_hit {
    uint64_t id;
    float score;          /* smaller is closer, for every metric */
    iqdb_payload payload; /* with IQDB_WITH_PAYLOAD; lives in query.buffer */
    const float *vector;  /* with IQDB_WITH_VECTOR, else NULL; likewise, at a multiple of 4; of another element NULL */
    const void *raw;      /* the same, of any element, one vector behind the other */
} iqdb_hit;

/* Decides whether a record may be a hit. The record is valid during the call. It may read, search and write the same
 * handle; the running search does not see the writes. Called for a record only while that could still become
 * a hit, in any order, and perhaps again: for one record it says the same within a search. */
typedef bool (*iqdb_predicate_fn)(const iqdb_record *record, void *user);

/* Ends the searches that were given it, soon, with IQDB_ERR_CANCELLED. Zeroed it asks for nothing; once requested it
 * holds, for searches that begin later too, until the caller zeroes it. */
typedef struct iqdb_cancel {
    volatile uint32_t requested;
} iqdb_cancel;

IQDB_API void iqdb_cancel_request(iqdb_cancel *cancel); /* anywhere, in a signal handler too; NULL is fine */

/* How a search went about it. */
typedef enum iqdb_plan {
    IQDB_PLAN_NONE = 0,  /* there was nothing to search */
    IQDB_PLAN_SCAN = 1,  /* over the vectors */
    IQDB_PLAN_CODES = 2, /* over codes that say which vectors need not be compared, as long as that paid */
    IQDB_PLAN_LISTS = 3, /* in the lists nearest to the vector; and over what is in none yet */
    IQDB_PLAN_GRAPH = 4, /* from neighbour to neighbour towards the vector; and over what is not in the graph yet */
    IQDB_PLAN_KEYS = 5,  /* over the few vectors that an index of a payload key lists */
    IQDB_PLAN_CUSTOM = 6 /* over those that options.index_ops offers; and over what is not in there yet */
} iqdb_plan;

/* What a search did; written where it returns OK or CANCELLED. */
typedef struct iqdb_search_info {
    iqdb_plan plan;
    uint64_t rows_visited;  /* rows of memory, dead and free ones too; of a batch, in all its passes over them */
    uint64_t rows_compared; /* vectors that were compared in full, once for each vector of a batch */
    bool complete;          /* these are all there are: no deadline, cancel or budget came between */
    bool exact;             /* the hits are surely the best of all records */
} iqdb_search_info;

typedef struct iqdb_query {
    const float *vector;
    const void *raw; /* instead of vector where elements are not f32, as in a record */
    uint32_t dim;    /* 0: the collection's */
    size_t k;        /* hits wanted */
    iqdb_metric metric;
    uint32_t flags;
    const iqdb_filter *filter; /* NULL: every record */
    const uint64_t *ids;       /* NULL: every record; else only those with these ids, in any order */
    size_t id_count;
    iqdb_predicate_fn predicate; /* NULL: every record; asked, perhaps twice, for those that the filter accepts */
    void *user;                  /* the predicate's */
    uint32_t ef;                 /* how widely a graph is searched, up to 4,096, 0: as options.ef_search says */
    uint32_t nprobe;             /* lists to read, 0: those of options.nprobe; more are slower and find more */
    const char *group_by;        /* NULL, or a payload key: the hits are the best record each of the k best groups of
                                    records whose values there are equal (as for eq). Records without one, or with an
                                    array, an object or NaN, are in none. One compares all hits with each other: for some
                                    thousands of k it takes long. With IQDB_AFTER, groups are of what ranks behind it;
                                    for page after page of groups there are cursors. With IQDB_SMALL NOT_IMPLEMENTED */
    float max_distance;          /* with IQDB_MAX_DISTANCE; not NaN */
    iqdb_hit after;              /* with IQDB_AFTER: its id and score, which is not NaN */
    uint32_t deadline_us;        /* from the call on, about; 0: none */
    iqdb_cancel *cancel;         /* or NULL */
    iqdb_buffer *buffer;
    iqdb_search_info *info; /* or NULL */
} iqdb_query;

IQDB_API iqdb_query iqdb_query_default(void);
/* hits: room for query->k. *out_count: hits found, min(k, matching records). */
IQDB_API iqdb_result iqdb_search(const iqdb *db, const iqdb_query *query, iqdb_hit *hits, size_t *out_count);
/* vector_count queries that differ only in the vector: `vectors` is vector_count rows of dim floats, or raw
 * vectors one behind the other (query->vector and raw are not read). The hits of query i are hits[i * k .. i * k + counts[i] - 1]. All see one state; a bad vector fails the
 * call before any output. hits: room for vector_count * k; counts: vector_count. Records are read once for many vectors,
 * whose calls of the predicate therefore alternate. */
IQDB_API iqdb_result iqdb_search_batch(const iqdb *db, const iqdb_query *query, const void *vectors,
                                       size_t vector_count, iqdb_hit *hits, size_t *counts);

/* How much of what there is to find searches find: of the hits that exact searches without a deadline have for
 * vector_count vectors (as in a batch; NULL: those of so many records, evenly chosen), the part from 0 to 1 that `query`
 * finds with all it says of k, index, filter, deadline and so on; other hits of the same score are as good. 1 where there
 * is nothing to find. Both are searched for one after the other: what is written meanwhile is in the figure. */
IQDB_API iqdb_result iqdb_measure_recall(const iqdb *db, const iqdb_query *query, const void *vectors,
                                         size_t vector_count, double *out_recall);

/* ---- Search in slices ----
 *   iqdb_cursor *cursor = NULL;
 *   iqdb_result result = iqdb_cursor_open(db, &query, &cursor);
 *   // and in each frame, until `done`
 *   result = iqdb_cursor_step(cursor, 2000, hits, 10, &count, &done);
 *   iqdb_cursor_close(cursor);
 * The hits are those of an iqdb_search at the time of open, whatever the slices and whatever is written meanwhile: like
 * an iterator, a cursor keeps what it sees. All its work is done in the calling thread. */
typedef struct iqdb_cursor iqdb_cursor;

/* Checks as a search does, copies the vector, compiles the filter, and takes memory for the hits. The query's user,
 * buffer, cancel and info must outlive the cursor. A deadline runs from here on: the answer is final when it passes. */
IQDB_API iqdb_result iqdb_cursor_open(const iqdb *db, const iqdb_query *query, iqdb_cursor **out_cursor);
/* Works for about budget_us, but always a little; where there is no clock, budget_us counts blocks of at most 64 KiB. No
 * hits until the answer is final; then each step gives the next `capacity`, with their payloads, until *out_done. A step
 * that fails has given none of them, and may be tried again: after LIMIT with more memory, after CANCELLED when the
 * cancel is zeroed. */
IQDB_API iqdb_result iqdb_cursor_step(iqdb_cursor *cursor, uint32_t budget_us, iqdb_hit *hits, size_t capacity,
                                      size_t *out_count, bool *out_done);
IQDB_API void iqdb_cursor_close(iqdb_cursor *cursor); /* NULL is fine */

/* ==== Vectors without a database ================================================================== */
IQDB_API iqdb_result iqdb_distance(iqdb_metric metric, const float *a, const float *b, size_t dim,
                                   float *out_distance); /* DEFAULT is cosine; the bits a search returns */
/* OK, INVALID_VECTOR, or INVALID_ARGUMENT for NULL. */
IQDB_API iqdb_result iqdb_vector_check(const float *vector, size_t dim);
IQDB_API float iqdb_vector_norm(const float *vector, size_t dim); /* Euclidean; 0 for a vector that check refuses */

/* ==== Iteration ===================================================================================
 *   iqdb_iter iter = iqdb_iter_begin(db, NULL); // or a filter, which is needed no longer then
 *   while (iqdb_iter_next(&iter)) use(&iter.record);
 *   if (iter.result != IQDB_OK) ...
 *   iqdb_iter_end(&iter);
 * Sees the records as they stood at begin, in no promised order. The loop may read, search and write the handle. The
 * record is valid until the next step. Never copy an iterator; end it once, also after a break. */
typedef struct iqdb_iter {
    iqdb_record record;
    iqdb_result result;
    const iqdb *db; /* private from here on */
    void *pin;
    uint64_t moment;
    uint64_t position;
    uint64_t end;
    void *program;
    bool pinned;
} iqdb_iter;

IQDB_API iqdb_iter iqdb_iter_begin(const iqdb *db, const iqdb_filter *filter);
IQDB_API bool iqdb_iter_next(iqdb_iter *iter);
IQDB_API void iqdb_iter_end(iqdb_iter *iter);

/* ==== Facts ======================================================================================= */
/* Records, dim, metric and memory are those of the handle's collection, all else is of the database. */
typedef struct iqdb_stats {
    uint64_t records;
    uint32_t dim;         /* 0 until the first upsert */
    uint32_t collections; /* beside the default one */
    iqdb_metric metric;
    iqdb_element element;
    uint8_t uuid[16]; /* all zero in memory */
    uint32_t format_version;
    bool in_memory;
    bool read_only;
    bool poisoned;
    bool recovered;       /* the last close was not clean, and open recovered */
    uint64_t last_lsn;    /* of the last write */
    uint64_t durable_lsn; /* writes up to here survive a power cut */
    uint64_t applied_lsn; /* of the snapshot */
    uint64_t log_bytes;   /* of log files, preallocation included */
    uint64_t snapshot_bytes;
    uint64_t vector_bytes;   /* memory held for vectors, norms, ids and versions */
    uint64_t payload_bytes;  /* memory held for payloads */
    uint64_t lookup_bytes;   /* memory held to find ids */
    iqdb_index index;        /* what there is: IQDB_INDEX_FLAT, IQDB_INDEX_HNSW or IQDB_INDEX_IVF */
    iqdb_index index_wanted; /* by options.index or iqdb_reindex */
    uint64_t index_bytes;    /* memory held for it */
    uint64_t index_rows;     /* records in it; a search looks at the others one by one */
    uint64_t index_lists;    /* of IQDB_INDEX_IVF; and of the longest one: */
    uint64_t longest_list;   /* records */
    uint64_t key_bytes;      /* memory held by indexes of payload keys */
    uint64_t retired_rows;   /* replaced or deleted, and still in memory for those who may be reading them */
    uint64_t retired_bytes;  /* memory of these */
    uint64_t oldest_pin_age; /* writes since the oldest snapshot began that anybody still sees, 0: none */
    uint64_t all_records;    /* of all collections; of one of them, iqdb_stat of its handle tells */
    uint64_t code_bytes;     /* of vector_bytes, for codes */
    uint64_t free_rows;      /* places for records that have their memory, and are empty */
    uint64_t free_bytes;     /* of vector_bytes and payload_bytes, what is empty; 0 in a block */
    uint64_t tail_rows;      /* records that are in no index: a search looks at each */
    uint32_t nlist, nprobe;  /* of the index that is wanted, 0: chosen by the library; as are */
    uint32_t m, ef_construction, ef_search;
    uint64_t seed;
    iqdb_sync sync;             /* when a write is durable */
    uint64_t sync_count;        /* of files and directories, since the handle was opened */
    uint64_t weak_sync_count;   /* of these, where the system had less to offer than iqdb_files.sync_fn promises */
    uint64_t sync_us;           /* that all of them took, by options.clock_us */
    uint64_t checkpoints;       /* since the handle was opened */
    uint64_t checkpoint_age_us; /* since the last one of those, by options.clock_us; 0 without any */
    uint64_t snapshots;         /* files: a base, and deltas */
    uint64_t mapped_bytes;      /* of a base that is used where it lies, by IQDB_OPEN_MMAP; 0: none is */
    uint64_t touched_bytes;     /* of these: found sound since it was opened, because something in them was wanted */
    /* Of index_rows, those that no way through IQDB_INDEX_HNSW leads to any more, until iqdb_maintain has mended it, or a
     * write; meanwhile searches look at every record. Only a lack of memory or a damaged file makes any. */
    uint64_t unreachable_rows;
    uint64_t scratch_bytes;     /* memory that searches have left for the next ones, which therefore allocate none */
    const char *simd;           /* iqdb_simd_name of the handle; NULL from iqdb_inspect */
    char model[64];             /* options.model, or the stored one; "": none */
} iqdb_stats;

IQDB_API iqdb_result iqdb_stat(const iqdb *db, iqdb_stats *out_stats);
/* What META and the snapshot say of a directory, without loading it, by the system's own files; takes no lock and writes
 * nothing, so it is allowed beside a handle, and then may be a little behind. `records` are those of the default collection
 * in the snapshot, which holds everything up to applied_lsn; `recovered`: the last close was not clean, and the next open
 * will recover; read_only is true, and memory 0. NOT_FOUND where there is no database; CORRUPT, VERSION as in iqdb_open. */
IQDB_API iqdb_result iqdb_inspect(const char *path, iqdb_stats *out_stats);
IQDB_API const char *iqdb_strerror(iqdb_result result); /* never NULL; static text */
IQDB_API uint32_t iqdb_version(void);                   /* IQDB_VERSION of the implementation */
#if !defined(IQDB_NO_TEXT)
/* In small letters and one word what the last part of a constant says: "l2", "cosine", "f32", "ivf", "lists"; "unknown"
 * for any other number. Static text. */
IQDB_API const char *iqdb_metric_name(iqdb_metric metric);
IQDB_API const char *iqdb_element_name(iqdb_element element);
IQDB_API const char *iqdb_index_name(iqdb_index index);
IQDB_API const char *iqdb_plan_name(iqdb_plan plan);
IQDB_API const char *iqdb_type_name(iqdb_type type);
#endif
/* "scalar", "sse2", "avx2", "avx512", "neon" or "wasm"; NULL: what a new handle gets. */
IQDB_API const char *iqdb_simd_name(const iqdb *db);

/* ==== Threads =====================================================================================
 * Readers never wait: they take no lock, and once the handle has served as many of them at once, their memory is there.
 * (A search, a cursor or an iterator with a filter that needs more scratch than any before it takes the writers' lock to
 * get it.) Writers wait for one another.
 * A cell says what the call gets beside, or inside, a call of the other kind on the same handle: it "runs" at the same
 * time, "waits" for its turn, or is BUSY (then len is 0 and contains false); "never" is up to the caller.
 *
 *   calls                                          | beside read | beside write | beside close
 *   -----------------------------------------------+-------------+--------------+-------------
 *   read:  get contains len is_empty count search  | runs        | runs         | never
 *          search_batch measure_recall iter cursor |             |              |
 *          simd_name                               |             |              |
 *   write: upsert upsert_batch apply delete        | runs        | waits        | never
 *          delete_batch delete_where               |             |              |
 *          update_payload reserve flush checkpoint |             |              |
 *          verify stat export_blob backup maintain |             |              |
 *          refresh tune reindex collection         |             |              |
 *          collection_drop collection_names        |             |              |
 *   close: close                                   | never       | never        | never
 *
 *   from inside                                    | read        | write        | close
 *   -----------------------------------------------+-------------+--------------+-------------
 *   predicate, loop of an iterator, allocator of a | runs        | runs         | BUSY
 *   buffer, parallel_for and its tasks, search_fn  |             |              |
 *   of an index                                    |             |              |
 *   logger, file layer, codec, report, allocator   | BUSY        | BUSY         | BUSY
 *   of the handle, iqdb_write_fn, index_ops        |             |              |
 *
 * Closing a handle of a collection is like a write. iter stands for begin, next and end, cursor for open, step and close;
 * both may go from thread to thread, one at a time; end and close never fail. What was read under way does not see what
 * is written there. cancel_request may be called
 * beside and inside everything. Values, payloads, distance and vector_* share nothing, nor
 * do open_blob, load_blob, inspect and repair, which use no handle; handles may share a blob. */

#ifdef __cplusplus
}
#endif
#endif /* IQDB_H */
