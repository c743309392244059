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
    IQDB_ERR_IO = -1,                 /* the operating system refused; a write that got it has an unknown outcome */
    IQDB_ERR_INVALID_CONFIG = -2,     /* options or path make no sense, or contradict what is stored */
    IQDB_ERR_INVALID_VECTOR = -3,     /* empty, longer than IQDB_DIM_MAX, or with NaN or infinity */
    IQDB_ERR_DIMENSION_MISMATCH = -4, /* another dimension than the collection's */
    IQDB_ERR_CORRUPT = -5,            /* damaged data; options.error and the logger name file and offset */
    IQDB_ERR_NOT_IMPLEMENTED = -6,    /* returned by nothing in this version; kept for its number */
    IQDB_ERR_NOT_FOUND = -7,          /* no record with this id */
    IQDB_ERR_NOMEM = -8,              /* the allocator returned NULL */
    IQDB_ERR_NOSPACE = -9,            /* the disk is full; nothing was lost */
    IQDB_ERR_LOCKED = -10,            /* another handle, here or in another process, has the directory open */
    IQDB_ERR_READONLY = -11,          /* a write on a handle opened with read_only, or over a blob */
    IQDB_ERR_VERSION = -12,           /* the directory was written by a newer format */
    IQDB_ERR_LIMIT = -13,             /* a size limit of the format, or a fixed buffer too small (see needed) */
    IQDB_ERR_BUSY = -14,              /* from inside a callback; close while iterators live; beyond retired_max */
    IQDB_ERR_POISONED = -15,          /* an earlier write failed half-way: reads go on, reopen to recover */
    IQDB_ERR_INVALID_FILTER = -16,    /* a filter that this version cannot answer */
    IQDB_ERR_INVALID_PAYLOAD = -17,   /* not UTF-8, a key twice, deeper than IQDB_PAYLOAD_DEPTH_MAX, malformed bytes */
    IQDB_ERR_INVALID_ARGUMENT = -18,  /* a NULL or a number out of range */
    IQDB_ERR_CANCELLED = -19          /* returned by nothing in this version; kept for its number */
} iqdb_result;

/* What each argument gets, wherever it is passed. Checks are made in this order, so the first that applies wins.
 *
 *   argument                                                      | code
 *   --------------------------------------------------------------+--------------------------------------------
 *   db, out_*, path, record, query, hits (k > 0), ids, ops NULL    | INVALID_ARGUMENT (counts of 0 allow NULL arrays)
 *   data of a blob, or the function that takes one, NULL           | INVALID_ARGUMENT
 *   an unknown flag, op kind, depth or metric in a call            | INVALID_ARGUMENT
 *   NaN in max_distance or after.score, where they are asked for   | INVALID_ARGUMENT
 *   WITH_PAYLOAD without query.buffer; get without buffer          | INVALID_ARGUMENT
 *   an input that lies in the buffer of the same call              | INVALID_ARGUMENT
 *   vector_count * k beyond what memory can hold                   | INVALID_ARGUMENT
 *   a call from inside a callback that may not make it (Threads)   | BUSY
 *   a write on a read_only handle / after a failed sync            | READONLY / POISONED; READONLY as well where the
 *                                                                  | disk had no room for recovery
 *   a write while snapshots keep more than options.retired_max     | BUSY
 *   a filter that cannot be answered (Filters)                     | INVALID_FILTER
 *   k = 0                                                          | OK, no hits
 *   record.dim or query.dim > IQDB_DIM_MAX, NaN, infinity          | INVALID_VECTOR
 *   record.dim 0 while the collection has none; distance of dim 0  | INVALID_VECTOR
 *   search in an empty collection                                  | OK, no hits (whatever the dimension)
 *   another dimension than the collection's                        | DIMENSION_MISMATCH
 *   k > number of records                                          | OK, all records
 *   a key twice, NULL or not UTF-8; text NULL or not UTF-8; too deep| INVALID_PAYLOAD
 *   payload bytes that are not a payload                           | INVALID_PAYLOAD
 *   a payload beyond IQDB_PAYLOAD_SIZE_MAX                         | LIMIT
 *   a fixed buffer that is too small                               | LIMIT, buffer.needed says how much
 *   get of an absent id                                            | NOT_FOUND
 *   delete of an absent id                                         | OK, out_removed false
 *   options.dim > IQDB_DIM_MAX, unknown metric, sync, verify, simd_max | INVALID_CONFIG
 *   options.dim or metric that differ from what is stored          | INVALID_CONFIG
 *   a path that is a file, or holds the original's files and no META| INVALID_CONFIG
 *   read_only on a directory that does not exist or has no database| NOT_FOUND
 *   a directory that may not be written                            | IO
 *   a backup into a directory with a database                      | INVALID_CONFIG
 *   open_blob of data at an address that is no multiple of 8       | INVALID_ARGUMENT
 *   a second opener, in this or another process                    | LOCKED (but any number may open read_only, where
 *                                                                  | none has it open for writing)
 *   a directory or a blob of a newer format                        | VERSION
 *   damage, in any file                                            | CORRUPT, or the answers of before
 */

#define IQDB_DIM_MAX 65536u               /* elements of a vector */
#define IQDB_PAYLOAD_DEPTH_MAX 64         /* arrays and objects within one another; the payload itself is depth 1 */
#define IQDB_PAYLOAD_SIZE_MAX (1u << 26)  /* bytes of one encoded payload: 64 MiB */

/* ==== Errors in detail ============================================================================
 * Filled by open and by calls that write, check or maintain; searches and gets return plain codes. */
typedef struct iqdb_error {
    iqdb_result code;
    int os_code;            /* errno and the like, 0 where none applies */
    char file[32];          /* name inside the directory, or empty */
    uint64_t offset;        /* bytes into that file, or into the text that was read, where one applies */
    uint64_t lsn;           /* log sequence number, where one applies */
    uint64_t lsn_last;      /* findings: of the range that begins at lsn, else 0 */
    uint64_t records;       /* findings of iqdb_repair: records that are lost, where their number is known */
    uint64_t id;            /* findings of iqdb_repair: of the lost record, where has_id says so */
    bool has_id;
    uint32_t dim_expected;  /* DIMENSION_MISMATCH: the collection's */
    uint32_t dim_found;     /* DIMENSION_MISMATCH: the argument's */
    char text[160];         /* one English sentence */
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
IQDB_API iqdb_value iqdb_float(double value); /* every bit pattern is kept, NaN included */
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
    uint64_t id;         /* any value */
    const float *vector; /* dim elements; needs no alignment beyond that of float */
    uint32_t dim;        /* 0: the collection's; INVALID_VECTOR while it has none */
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
 * objects can only be looked into. What cannot be answered is INVALID_FILTER, before anything is read. */
#define IQDB_FILTER_DEPTH_MAX 64    /* and, or, not within one another, with the test in the innermost */
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
IQDB_API iqdb_filter iqdb_between(const char *key, iqdb_value low, iqdb_value high); /* both ends included */
IQDB_API iqdb_filter iqdb_in(const char *key, const iqdb_value *values, size_t count); /* equal to one of them */
IQDB_API iqdb_filter iqdb_prefix(const char *key, const char *zero_terminated); /* a text that begins so */
IQDB_API iqdb_filter iqdb_exists(const char *key);  /* there, of any type, null included */
IQDB_API iqdb_filter iqdb_is_null(const char *key); /* there, and null */
IQDB_API iqdb_filter iqdb_contains_value(const char *key, iqdb_value value); /* an array with an item that is equal */
IQDB_API iqdb_filter iqdb_and(const iqdb_filter *children, size_t count); /* of none: true */
IQDB_API iqdb_filter iqdb_or(const iqdb_filter *children, size_t count);  /* of none: false */
IQDB_API iqdb_filter iqdb_not(const iqdb_filter *child);

#if !defined(IQDB_NO_TEXT)
/* A filter as text:  kind = 'doc' and year >= 2020 and tags contains 'c'
 *
 *   filter  either {or either}               `and` binds closer than `or`, and `not` closer than both;
 *   either  part {and part}                  (...) as usual, at most IQDB_FILTER_DEPTH_MAX within one another
 *   part    not part | ( filter ) | test
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
 *           true; false; null; x'00ff' for bytes
 *
 * Words may be in capitals. The filter's parts lie in `buffer`; where the text is refused (INVALID_FILTER), *out_error
 * (unless NULL) says why, and at which byte (offset). */
IQDB_API iqdb_result iqdb_filter_parse(const char *text, size_t size, iqdb_buffer *buffer, iqdb_filter *out_filter,
                                       iqdb_error *out_error);
#endif

/* ==== Messages ==================================================================================== */
typedef enum iqdb_level { IQDB_LEVEL_ERROR = 1, IQDB_LEVEL_WARNING = 2, IQDB_LEVEL_INFO = 3 } iqdb_level;

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
    IQDB_OPEN_READ = 0,   /* must exist */
    IQDB_OPEN_WRITE = 1,  /* must exist; read and write */
    IQDB_OPEN_CREATE = 2  /* must not exist in any form (INVALID_CONFIG otherwise); read and write, private to the user */
} iqdb_open_kind;

typedef struct iqdb_files {
    /* A directory. `create` makes it and its parents, durably; without it a missing one is NOT_FOUND. A path that is
     * not a directory is INVALID_CONFIG. */
    iqdb_result (*dir_open_fn)(const char *path, bool create, void **out_dir, int *os_code, void *user);
    void (*dir_close_fn)(void *dir, void *user);
    iqdb_result (*dir_sync_fn)(void *dir, int *os_code, void *user); /* entries made and removed are durable */
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
} iqdb_files;

/* The operating system's files. A wrapper copies it and replaces what it wants. */
IQDB_API iqdb_files iqdb_files_default(void);

/* ==== Options ===================================================================================== */
typedef enum iqdb_metric {
    IQDB_METRIC_DEFAULT = 0, /* the stored one; IQDB_COSINE in a new database */
    IQDB_L2 = 1,             /* sqrt(sum (a-b)^2) */
    IQDB_COSINE = 2,         /* 1 - a.b / (|a| |b|), in [0, 2]; 1 when either norm is zero */
    IQDB_DOT = 3,            /* -a.b */
    IQDB_L1 = 4              /* sum |a-b| */
} iqdb_metric;

typedef enum iqdb_sync {
    IQDB_SYNC_FLUSH = 0, /* durable after flush, checkpoint or close */
    IQDB_SYNC_EACH = 1   /* every write is durable when it returns */
} iqdb_sync;

typedef enum iqdb_depth {
    IQDB_DEPTH_DEFAULT = 0, /* open: what it checks anyway, that is BLOCKS; verify: RECORDS */
    IQDB_DEPTH_FRAMES = 1,  /* META, headers, and the chain of log frames */
    IQDB_DEPTH_BLOCKS = 2,  /* and every block of every file against its checksum */
    IQDB_DEPTH_RECORDS = 3  /* and every record: finite vectors, norms, payloads, ids found by lookup */
} iqdb_depth;

/* In the order in which a machine prefers them. One that it does not have stands for the best below that it has: NEON
 * on x86-64 is the best there is, and all between SCALAR and NEON is plain C on 64-bit ARM. */
typedef enum iqdb_simd {
    IQDB_SIMD_BEST = 0, /* the best this machine has */
    IQDB_SIMD_SCALAR = 1,
    IQDB_SIMD_SSE2 = 2,
    IQDB_SIMD_AVX2 = 3,
    IQDB_SIMD_AVX512 = 4, /* its foundation, F, is all that is used */
    IQDB_SIMD_NEON = 5
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

/* All zero is all defaults, and so is NULL. Tables are copied; every `user`, and `error`, must outlive the handle. */
typedef struct iqdb_options {
    uint32_t dim;            /* 0: the stored one, else taken from the first upsert */
    iqdb_metric metric;      /* what a query uses that names none */
    iqdb_sync sync;
    bool read_only;          /* the database must exist; nothing is written */
    bool compact_on_close;   /* close leaves one snapshot and an empty log, O(n); otherwise close is O(pending bytes) */
    iqdb_depth verify;       /* check more at open */
    uint64_t retired_max;    /* bytes of replaced and deleted records that living snapshots may keep, 0: 256 MiB; with
                                more than that a write is BUSY, so a loop that rewrites everything iterates in pages */
    iqdb_simd simd_max;      /* use no better instruction set than this: answers are the same, bit for bit */
    iqdb_allocator allocator; /* alloc_fn NULL: malloc and free */
    iqdb_files files;        /* dir_open_fn NULL: iqdb_files_default() */
    iqdb_logger logger;      /* log_fn NULL: silent */
    iqdb_parallel_for parallel_for; /* run_fn NULL: the calling thread does everything */
    iqdb_entropy entropy;    /* fill_fn NULL: the system's; identity of the database and salts of its logs */
    iqdb_error *error;       /* NULL, or where details of the last failure go (open's too) */
} iqdb_options;

IQDB_API iqdb_options iqdb_options_default(void);

/* ==== Lifecycle ===================================================================================
 * A handle may be used by any number of threads at once, except that no other thread may be in a call on it when it
 * is closed. On failure *out_db is NULL. */
typedef struct iqdb iqdb;

/* path: a directory, created with its parents when missing; one that is a symbolic link itself is refused ("link/." says
 * that it is meant). Loads and checks everything that is stored. After fork a child may read its copy of the handle and
 * close it; its writes are LOCKED, and the lock is free when both have let go of it. */
IQDB_API iqdb_result iqdb_open(const char *path, const iqdb_options *options, iqdb **out_db);
IQDB_API iqdb_result iqdb_open_in_memory(const iqdb_options *options, iqdb **out_db);
/* BUSY while an iterator lives or from inside a callback or predicate; otherwise always frees the handle, whatever it returns: the
 * code says whether everything written is durable. NULL is OK. */
IQDB_API iqdb_result iqdb_close(iqdb *db);
/* Everything written so far survives a power cut. In memory: OK. */
IQDB_API iqdb_result iqdb_flush(iqdb *db);
/* Writes one snapshot of the live records and starts an empty log; older files go. In memory: OK. */
IQDB_API iqdb_result iqdb_checkpoint(iqdb *db);

/* One finding; called under the handle's lock, calling the handle is BUSY. */
typedef void (*iqdb_report_fn)(const iqdb_error *finding, void *user);
/* Reads the files again and checks them, and memory, to `depth`; reports every finding (report may be NULL). OK when
 * there is none, else the code of the first. Changes nothing. */
IQDB_API iqdb_result iqdb_verify(iqdb *db, iqdb_depth depth, iqdb_report_fn report, void *user);

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
 * be read, lost writes with the range of their LSNs: what those had changed is found as it was before. `to` NULL: only
 * report, also where iqdb_open fails. Of the options, allocator, files, entropy, simd_max, error, and, where META and
 * snapshot are both lost, metric count. OK: `to` holds what could be saved, under an identity of its own; without `to`,
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

typedef enum iqdb_op_kind { IQDB_OP_UPSERT = 0, IQDB_OP_DELETE = 1 } iqdb_op_kind;

typedef struct iqdb_op {
    iqdb_op_kind kind;
    iqdb *collection;          /* NULL or the handle itself */
    const iqdb_record *record; /* UPSERT */
    uint64_t id;               /* DELETE */
} iqdb_op;

IQDB_API iqdb_op iqdb_op_default(void);
/* One atomic batch; operations take effect in their order. */
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
#define IQDB_WITH_PAYLOAD 0x2u /* copy the payload of each hit into query.buffer */
#define IQDB_MAX_DISTANCE 0x4u /* only records whose score is at most query.max_distance */
#define IQDB_AFTER 0x8u        /* only records that rank behind query.after by score and id: the last hit of a page asks
                                * for the next one. Each call sees the records of its own time. */

typedef struct iqdb_hit {
    uint64_t id;
    float score;          /* smaller is closer, for every metric */
    iqdb_payload payload; /* with IQDB_WITH_PAYLOAD; lives in query.buffer */
} iqdb_hit;

/* Decides whether a record may be a hit. The record is valid during the call. It may read, search and write the same
 * handle; the running search does not see the writes. Called for a record only while that could still become a hit. */
typedef bool (*iqdb_predicate_fn)(const iqdb_record *record, void *user);

typedef struct iqdb_query {
    const float *vector;
    uint32_t dim;  /* 0: the collection's */
    size_t k;      /* hits wanted */
    iqdb_metric metric;
    uint32_t flags;
    const iqdb_filter *filter;   /* NULL: every record */
    iqdb_predicate_fn predicate; /* NULL: every record; asked for those that the filter accepts */
    void *user;                  /* the predicate's */
    float max_distance;          /* with IQDB_MAX_DISTANCE; not NaN */
    iqdb_hit after;              /* with IQDB_AFTER: its id and score, which is not NaN */
    iqdb_buffer *buffer;
} iqdb_query;

IQDB_API iqdb_query iqdb_query_default(void);
/* hits: room for query->k. *out_count: hits found, min(k, matching records). */
IQDB_API iqdb_result iqdb_search(const iqdb *db, const iqdb_query *query, iqdb_hit *hits, size_t *out_count);
/* vector_count queries that differ only in the vector: `vectors` is vector_count rows of dim floats (query->vector is
 * not read). The hits of query i are hits[i * k .. i * k + counts[i] - 1]. All see one state; a bad vector fails the
 * call before any output. hits: room for vector_count * k; counts: vector_count. Records are read once for many vectors,
 * whose calls of the predicate therefore alternate. */
IQDB_API iqdb_result iqdb_search_batch(const iqdb *db, const iqdb_query *query, const void *vectors,
                                       size_t vector_count, iqdb_hit *hits, size_t *counts);

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
    const iqdb *db;      /* private from here on */
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
typedef struct iqdb_stats {
    uint64_t records;
    uint32_t dim;            /* 0 until the first upsert */
    iqdb_metric metric;
    uint8_t uuid[16];        /* all zero in memory */
    uint32_t format_version;
    bool in_memory;
    bool read_only;
    bool poisoned;
    bool recovered;          /* the last close was not clean, and open recovered */
    uint64_t last_lsn;       /* of the last write */
    uint64_t durable_lsn;    /* writes up to here survive a power cut */
    uint64_t applied_lsn;    /* of the snapshot */
    uint64_t log_bytes;      /* of log files, preallocation included */
    uint64_t snapshot_bytes;
    uint64_t vector_bytes;   /* memory held for vectors, norms, ids and versions */
    uint64_t payload_bytes;  /* memory held for payloads */
    uint64_t lookup_bytes;   /* memory held to find ids */
    uint64_t retired_rows;   /* replaced or deleted, and still in memory for those who may be reading them */
    uint64_t retired_bytes;  /* memory of these */
    uint64_t oldest_pin_age; /* writes since the oldest snapshot began that a call or an iterator still sees, 0: none */
} iqdb_stats;

IQDB_API iqdb_result iqdb_stat(const iqdb *db, iqdb_stats *out_stats);
/* What META and the snapshot say of a directory, without loading it, by the system's own files; takes no lock and writes
 * nothing, so it is allowed beside a handle, and then may be a little behind. `records` are those of the snapshot, which
 * holds everything up to applied_lsn; `recovered`: the last close was not clean, and the next open will recover;
 * read_only is true, and memory 0. NOT_FOUND where there is no database; CORRUPT, VERSION as in iqdb_open. */
IQDB_API iqdb_result iqdb_inspect(const char *path, iqdb_stats *out_stats);
IQDB_API const char *iqdb_strerror(iqdb_result result); /* never NULL; static text */
IQDB_API uint32_t iqdb_version(void);                   /* IQDB_VERSION of the implementation */
/* "scalar", "sse2", "avx2", "avx512" or "neon"; NULL: what a new handle gets. */
IQDB_API const char *iqdb_simd_name(const iqdb *db);

/* ==== Threads =====================================================================================
 * Readers never wait: they take no lock, and once the handle has served as many of them at once, their memory is there.
 * (A search that needs more scratch than any before it, and an iterator with a filter, take the writers' lock to get it.) Writers wait for one another.
 * A cell says what the call gets beside, or inside, a call of the other kind on the same handle: it "runs" at the same
 * time, "waits" for its turn, or is BUSY (then len is 0 and contains false); "never" is up to the caller.
 *
 *   calls                                          | beside read | beside write | beside close
 *   -----------------------------------------------+-------------+--------------+-------------
 *   read:  get contains len is_empty count search  | runs        | runs         | never
 *          search_batch iter simd_name             |             |              |
 *   write: upsert upsert_batch apply delete        | runs        | waits        | never
 *          delete_batch delete_where               |             |              |
 *          update_payload reserve flush checkpoint |             |              |
 *          verify stat export_blob backup          |             |              |
 *   close: close                                   | never       | never        | never
 *
 *   from inside                                    | read        | write        | close
 *   -----------------------------------------------+-------------+--------------+-------------
 *   predicate, loop of an iterator, allocator of a | runs        | runs         | BUSY
 *   buffer, parallel_for and its tasks             |             |              |
 *   logger, file layer, report, allocator of the   | BUSY        | BUSY         | BUSY
 *   handle, iqdb_write_fn                          |             |              |
 *
 * iter stands for begin, next and end; an iterator may go from thread to thread, one at a time; end never fails. What
 * was read under way does not see what is written there. Values, payloads, distance and vector_* share nothing, nor
 * do open_blob, load_blob, inspect and repair, which use no handle; handles may share a blob. */

#ifdef __cplusplus
}
#endif
#endif /* IQDB_H */
