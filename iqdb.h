/* iqdb.h 0.1.0, generated from src/ by tools/amalgamate.py - do not edit; edit src/ and run `make header`.
 * SHA-256 of the inputs: 4beff42bde71c0c31d79a396b9ee3b3960fca276bf247552eff9338c6978df48
 *
 * Copy this file into your project and add one source file, iqdb.c, of two lines:
 *     #define IQDB_IMPLEMENTATION
 *     #include "iqdb.h"
 * Everything else includes iqdb.h alone. Public domain; the licence stands at the end. */

#if defined(IQDB_IMPLEMENTATION) && !defined(IQDB_IMPLEMENTED)

/* What the implementation asks of the C library. These macros work only before the first system header of a
 * translation unit, so the amalgamator puts this file at the very top of iqdb.h, and the module build includes it
 * first by a compiler flag. No other file includes it; it has no guard because it may be read twice. */
#if defined(IQDB_NO_LIBC) || defined(IQDB_NO_FILES)
/* Nothing is asked of it. */
#elif defined(_FEATURES_H)
/* glibc or musl has been read already and has made its choice; only its strict ISO C face is not enough. */
#if !defined(_GNU_SOURCE) && !defined(_DEFAULT_SOURCE) && !defined(_BSD_SOURCE) && \
    (!defined(_POSIX_C_SOURCE) || _POSIX_C_SOURCE < 200809L) && (!defined(_XOPEN_SOURCE) || _XOPEN_SOURCE < 700)
#error "iqdb: include iqdb.h with IQDB_IMPLEMENTATION before all other headers, or compile with -D_GNU_SOURCE"
#endif
#else
#if (defined(__linux__) || defined(__GLIBC__)) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif
#if defined(__APPLE__) && !defined(_DARWIN_C_SOURCE)
#define _DARWIN_C_SOURCE 1
#endif
#if defined(_WIN32) && !defined(WIN32_LEAN_AND_MEAN)
#define WIN32_LEAN_AND_MEAN 1
#endif
#if defined(_WIN32) && !defined(NOMINMAX)
#define NOMINMAX 1
#endif
#if !defined(_WIN32) && !defined(_FILE_OFFSET_BITS)
#define _FILE_OFFSET_BITS 64
#endif
#endif
#endif

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

/* ======== declarations end here; below is the implementation ======== */

/* Chapters, each using only those before it; search for the bracketed name.
 *
 * [base/config.h] [base/alloc.h] [base/alloc.c] [base/bytes.h] [base/hash.h] [base/report.h]
 * [base/report.c] [base/topk.h] [base/topk.c]
 * [sys/atomic.h] [sys/sys.h] [sys/cpu.c] [sys/pages.c] [sys/thread.h] [sys/thread.c]
 * [sys/posix.c] [sys/windows.c]
 * [codec/number.h] [codec/number.c] [codec/utf8.h] [codec/utf8.c] [codec/payload.h]
 * [codec/payload.c] [codec/json.c] [codec/record.h] [codec/record.c] [codec/value.c]
 * [kernel/crc32.h] [kernel/crc32.c] [kernel/crc32_arm.c] [kernel/crc32_x86.c] [kernel/kernel.h]
 * [kernel/dispatch.c] [kernel/strict.h] [kernel/strict.c] [kernel/avx2.c] [kernel/avx512.c]
 * [kernel/distance.h] [kernel/distance.c] [kernel/quads.c] [kernel/scalar.c]
 * [persist/format.h] [persist/page.h] [persist/page.c] [persist/sections.h] [persist/volume.h]
 * [persist/volume.c] [persist/snapshot.h] [persist/snapshot.c] [persist/meta.h] [persist/meta.c]
 * [persist/scan.h] [persist/scan.c] [persist/wal.h] [persist/wal.c] [persist/recover.h]
 * [persist/recover.c] [persist/repair.h] [persist/repair.c] [persist/directory.h]
 * [persist/directory.c]
 * [store/epoch.h] [store/epoch.c] [store/filter.h] [store/filter.c] [store/filter_text.c]
 * [store/heap.h] [store/heap.c] [store/rows.h] [store/rows.c] [store/ids.h] [store/ids.c]
 * [store/records.h] [store/records.c]
 * [index/flat.h] [index/flat.c]
 * [db/db.h] [db/backup.c] [db/facts.c] [db/image.c] [db/iterate.c] [db/lock.c] [db/open.c]
 * [db/query.c] [db/read.c] [db/repair.c] [db/select.c] [db/verify.c] [db/write.c]
 */

#if defined(IQDB_IMPLEMENTATION) && !defined(IQDB_IMPLEMENTED)
#define IQDB_IMPLEMENTED

/* ======== [base/config.h] ======== */
/* What the compiler and the machine are, and the few macros that everything uses. */

/* What a switch takes with it. */
#if defined(IQDB_NO_LIBC) && !defined(IQDB_NO_THREADS)
#define IQDB_NO_THREADS
#endif
#if defined(IQDB_NO_LIBC) && !defined(IQDB_MALLOC) && !defined(IQDB_NO_MALLOC)
#define IQDB_NO_MALLOC
#endif
#if (defined(IQDB_NO_LIBC) || defined(IQDB_NO_MALLOC)) && !defined(IQDB_NO_FILES)
#define IQDB_NO_FILES /* the handles of its files are malloc's */
#endif

#if !defined(IQDB_NO_LIBC)
#include <string.h>
#endif

/* Internal functions are extern (and hidden) where modules are compiled apart for their unit tests, and static in the
 * single header, where a switched-off feature may leave some of them unused. */
#if defined(IQDB_MODULES)
#define IQ_FN
#elif defined(__GNUC__) || defined(__clang__)
#define IQ_FN static __attribute__((unused))
#else
#define IQ_FN static
#endif

#if defined(__GNUC__) || defined(__clang__)
#if defined(__OPTIMIZE__)
#define IQ_INLINE static inline __attribute__((always_inline, unused))
#else
/* Forced inlining without optimisation makes stack frames of many KiB and code that no debugger can step through. */
#define IQ_INLINE static inline __attribute__((unused))
#endif
#define IQ_LIKELY(x) __builtin_expect(!!(x), 1)
#define IQ_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define IQ_TARGET(isa) __attribute__((target(isa)))
#elif defined(_MSC_VER)
#define IQ_INLINE static __forceinline
#define IQ_LIKELY(x) (x)
#define IQ_UNLIKELY(x) (x)
#define IQ_TARGET(isa)
#else
#define IQ_INLINE static inline
#define IQ_LIKELY(x) (x)
#define IQ_UNLIKELY(x) (x)
#define IQ_TARGET(isa)
#endif

/* 1 where the SSE2, AVX2 and AVX-512 kernels can be compiled: per-function targets, so no build flags are needed. */
#if (defined(__x86_64__) || (defined(__i386__) && defined(__SSE2__))) && (defined(__GNUC__) || defined(__clang__)) && \
    !defined(IQDB_NO_SIMD)
#define IQ_X86 1
#else
#define IQ_X86 0
#endif
#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__)) && !defined(IQDB_NO_SIMD)
#define IQ_ARM64 1
#else
#define IQ_ARM64 0
#endif

/* 1 where the NEON kernel can be compiled: every 64-bit ARM has the instructions, so nothing is asked at run time. */
#if defined(__AARCH64EL__) && defined(__ARM_NEON) && (defined(__GNUC__) || defined(__clang__)) && !defined(IQDB_NO_SIMD)
#define IQ_NEON 1
#else
#define IQ_NEON 0
#endif

/* 1 where kernels may fuse a multiplication and an addition: faster sums whose last bits differ between machines. */
#if defined(IQDB_FAST_FP)
#define IQ_FAST_FP 1
#else
#define IQ_FAST_FP 0
#endif

#if defined(__BYTE_ORDER__) && defined(__ORDER_BIG_ENDIAN__)
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define IQ_BIG_ENDIAN 1
#endif
#endif
#ifndef IQ_BIG_ENDIAN
#define IQ_BIG_ENDIAN 0
#endif

/* Our own mistakes only, never a check of input: compiled out unless the user maps it to something. */
#ifndef IQDB_ASSERT
#define IQDB_ASSERT(condition) ((void)0)
#endif
#define IQ_ASSERT(condition) IQDB_ASSERT(condition)

#ifdef __cplusplus
#define IQ_STATIC_ASSERT(condition, name) static_assert(condition, #name)
#else
#define IQ_STATIC_ASSERT(condition, name) typedef char iq_static_assert_##name[(condition) ? 1 : -1]
#endif

#define IQ_COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Rounds up to a multiple of a power of two; the caller has excluded overflow. */
IQ_INLINE size_t iq_round_up(size_t n, size_t power_of_two) {
    return (n + power_of_two - 1) & ~(power_of_two - 1);
}

/* The place of the highest bit of a number that is not 0. */
IQ_INLINE unsigned iq_log2_u32(uint32_t n) {
#if defined(__GNUC__) || defined(__clang__)
    return 31u - (unsigned)__builtin_clz(n);
#else
    unsigned log = 0;
    while ((n >>= 1) != 0) log++;
    return log;
#endif
}

/* Without a C library there are the four functions that compilers call of their own accord, and these. The end of iqdb.h
 * undefines the names. */
#if defined(IQDB_NO_LIBC)
#define memcpy __builtin_memcpy
#define memmove __builtin_memmove
#define memset __builtin_memset
#define memcmp __builtin_memcmp
#define strlen iq_string_size
#define strcmp(a, b) iq_string_compare((a), (b), (size_t)-1)
#define strncmp iq_string_compare
#define memchr iq_bytes_find
#define strchr(text, byte) ((const char *)iq_bytes_find((text), (byte), iq_string_size(text) + 1))

IQ_INLINE size_t iq_string_size(const char *text) {
    const volatile char *end = text; /* else compilers see what it does, and call strlen */
    while (*end != 0) end++;
    return (size_t)(end - text);
}
IQ_INLINE int iq_string_compare(const char *a, const char *b, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (a[i] != b[i] || a[i] == 0) return (int)(uint8_t)a[i] - (int)(uint8_t)b[i];
    return 0;
}
IQ_INLINE const void *iq_bytes_find(const void *bytes, int byte, size_t size) {
    const uint8_t *at = (const uint8_t *)bytes;
    for (size_t i = 0; i < size; i++)
        if (at[i] == (uint8_t)byte) return at + i;
    return NULL;
}
#endif

/* a * b, or false where size_t cannot hold it. */
IQ_INLINE bool iq_mul(size_t a, size_t b, size_t *out) {
    if (a != 0 && b > (size_t)-1 / a) return false;
    *out = a * b;
    return true;
}

/* ======== [base/alloc.h] ======== */
/* All memory of a database goes through here. */

#define IQ_CACHE_LINE 64

/* malloc and free (or IQDB_MALLOC and IQDB_FREE), at any alignment; with IQDB_NO_MALLOC none has any memory. */
IQ_FN iqdb_allocator iq_alloc_default(void);
IQ_FN bool iq_alloc_has_default(void);
/* Whether it is malloc and free of the C library that serve it. */
IQ_FN bool iq_alloc_is_system(const iqdb_allocator *allocator);

/* NULL where the allocator has none. alignment: a power of two, at most 64. */
IQ_FN void *iq_alloc(const iqdb_allocator *allocator, size_t size, size_t alignment);
IQ_FN void *iq_alloc_zeroed(const iqdb_allocator *allocator, size_t size, size_t alignment);
/* NULL is fine; size and alignment are those of the allocation. */
IQ_FN void iq_free(const iqdb_allocator *allocator, void *memory, size_t size, size_t alignment);

/* A growing run of bytes, 16-byte aligned. Zeroed but for the allocator, it is empty. */
typedef struct iq_blob {
    const iqdb_allocator *allocator;
    uint8_t *bytes;
    size_t size;
    size_t capacity;
} iq_blob;

/* Room for `more` bytes behind size, or NOMEM with nothing changed. */
IQ_FN iqdb_result iq_blob_reserve(iq_blob *blob, size_t more);
IQ_FN iqdb_result iq_blob_append(iq_blob *blob, const void *bytes, size_t size);
IQ_FN void iq_blob_free(iq_blob *blob);

/* The rules of iqdb_buffer: starts it anew with `size` bytes at a multiple of 16, or LIMIT or NOMEM. */
IQ_FN iqdb_result iq_buffer_start(iqdb_buffer *buffer, size_t size, uint8_t **out_bytes);
/* Whether [bytes, bytes + size) touches the buffer's memory. */
IQ_FN bool iq_buffer_overlaps(const iqdb_buffer *buffer, const void *bytes, size_t size);

/* ======== [base/alloc.c] ======== */
/* Memory: the default allocator, growing blobs, and the rules of the caller's buffers.
 *
 * 1. Sizes are checked before they are added; no allocation of a wrapped size is ever asked for.
 * 2. A failed call leaves blob and buffer as they were, but for buffer.needed. */

#if defined(IQDB_NO_MALLOC) && !defined(IQDB_MALLOC) && !defined(IQDB_FREE)
#define IQ_MALLOC(size) NULL
#define IQ_HAS_MALLOC false
#define IQ_MALLOC_IS_SYSTEM false
#define IQ_RELEASE(memory) ((void)(memory))
#elif !defined(IQDB_NO_MALLOC) && !defined(IQDB_MALLOC) && !defined(IQDB_FREE)
#include <stdlib.h>
#define IQ_MALLOC(size) malloc(size)
#define IQ_MALLOC_IS_SYSTEM true
#define IQ_RELEASE(memory) free(memory)
#elif !defined(IQDB_NO_MALLOC) && defined(IQDB_MALLOC) && defined(IQDB_FREE)
#define IQ_MALLOC(size) IQDB_MALLOC(size)
#define IQ_MALLOC_IS_SYSTEM false
#define IQ_RELEASE(memory) IQDB_FREE(memory)
#else
#error "iqdb: define both IQDB_MALLOC and IQDB_FREE, or neither; and not IQDB_NO_MALLOC with them"
#endif
#ifndef IQ_HAS_MALLOC
#define IQ_HAS_MALLOC true
#endif

/* malloc promises 16 bytes at most; a larger alignment is made by hand, with the distance kept in the byte before. */
static void *iq_alloc_default_alloc(size_t size, size_t alignment, void *user) {
    (void)user;
    if (size > (size_t)-1 / 2 - IQ_CACHE_LINE) return NULL; /* no object is larger than PTRDIFF_MAX */
    uint8_t *raw = (uint8_t *)IQ_MALLOC(size + IQ_CACHE_LINE);
    if (raw == NULL) return NULL;
    if (alignment < 16) alignment = 16;
    const size_t shift = alignment - ((uintptr_t)raw & (alignment - 1));
    raw[shift - 1] = (uint8_t)shift;
    return raw + shift;
}

static void iq_alloc_default_free(void *memory, size_t size, size_t alignment, void *user) {
    (void)size;
    (void)alignment;
    (void)user;
    uint8_t *bytes = (uint8_t *)memory;
    IQ_RELEASE(bytes - bytes[-1]);
}

IQ_FN iqdb_allocator iq_alloc_default(void) {
    const iqdb_allocator allocator = {iq_alloc_default_alloc, iq_alloc_default_free, NULL};
    return allocator;
}

IQ_FN bool iq_alloc_has_default(void) {
    return IQ_HAS_MALLOC;
}

IQ_FN bool iq_alloc_is_system(const iqdb_allocator *allocator) {
    return IQ_MALLOC_IS_SYSTEM && allocator->alloc_fn == iq_alloc_default_alloc;
}

IQ_FN void *iq_alloc(const iqdb_allocator *allocator, size_t size, size_t alignment) {
    IQ_ASSERT(size > 0 && alignment <= IQ_CACHE_LINE);
    return allocator->alloc_fn(size, alignment, allocator->user);
}

IQ_FN void *iq_alloc_zeroed(const iqdb_allocator *allocator, size_t size, size_t alignment) {
    void *memory = iq_alloc(allocator, size, alignment);
    if (memory != NULL) memset(memory, 0, size);
    return memory;
}

IQ_FN void iq_free(const iqdb_allocator *allocator, void *memory, size_t size, size_t alignment) {
    if (memory != NULL) allocator->free_fn(memory, size, alignment, allocator->user);
}

IQ_FN iqdb_result iq_blob_reserve(iq_blob *blob, size_t more) {
    if (more <= blob->capacity - blob->size) return IQDB_OK;
    if (more > (size_t)-1 / 4 - blob->size) return IQDB_ERR_NOMEM;
    size_t capacity = blob->capacity + blob->capacity / 2;
    if (capacity < blob->size + more) capacity = blob->size + more;
    capacity = iq_round_up(capacity < 256 ? 256 : capacity, 64);
    uint8_t *bytes = (uint8_t *)iq_alloc(blob->allocator, capacity, 16);
    if (bytes == NULL) return IQDB_ERR_NOMEM;
    if (blob->size > 0) memcpy(bytes, blob->bytes, blob->size);
    iq_free(blob->allocator, blob->bytes, blob->capacity, 16);
    blob->bytes = bytes;
    blob->capacity = capacity;
    return IQDB_OK;
}

IQ_FN iqdb_result iq_blob_append(iq_blob *blob, const void *bytes, size_t size) {
    if (size == 0) return IQDB_OK;
    iqdb_result result = iq_blob_reserve(blob, size);
    if (result != IQDB_OK) return result;
    memcpy(blob->bytes + blob->size, bytes, size);
    blob->size += size;
    return IQDB_OK;
}

IQ_FN void iq_blob_free(iq_blob *blob) {
    iq_free(blob->allocator, blob->bytes, blob->capacity, 16);
    blob->bytes = NULL;
    blob->size = blob->capacity = 0;
}

static iqdb_allocator iq_buffer_allocator(const iqdb_buffer *buffer) {
    return buffer->allocator != NULL ? *buffer->allocator : iq_alloc_default();
}

IQ_FN iqdb_result iq_buffer_start(iqdb_buffer *buffer, size_t size, uint8_t **out_bytes) {
    size_t skip = buffer->bytes == NULL ? 0 : (size_t)(-(uintptr_t)buffer->bytes & 15u);
    buffer->used = 0;
    if (size > (size_t)-1 - 64) return IQDB_ERR_NOMEM;
    buffer->needed = size + skip;
    if (size == 0) {
        *out_bytes = (uint8_t *)buffer->bytes;
        return IQDB_OK;
    }
    if (buffer->capacity < size + skip) {
        if (buffer->fixed) return IQDB_ERR_LIMIT;
        const iqdb_allocator allocator = iq_buffer_allocator(buffer);
        const size_t capacity = iq_round_up(size, 64);
        void *bytes = iq_alloc(&allocator, capacity, 16);
        if (bytes == NULL) return IQDB_ERR_NOMEM;
        iq_free(&allocator, buffer->bytes, buffer->capacity, 16);
        buffer->bytes = bytes;
        buffer->capacity = capacity;
        buffer->needed = size;
        skip = 0;
    }
    buffer->used = size + skip;
    *out_bytes = (uint8_t *)buffer->bytes + skip;
    return IQDB_OK;
}

IQ_FN bool iq_buffer_overlaps(const iqdb_buffer *buffer, const void *bytes, size_t size) {
    if (buffer == NULL || buffer->bytes == NULL || bytes == NULL || size == 0) return false;
    const uintptr_t a = (uintptr_t)buffer->bytes, b = (uintptr_t)bytes;
    return a < b ? b - a < buffer->capacity : a - b < size;
}

IQDB_API iqdb_buffer iqdb_buffer_default(void) {
    iqdb_buffer buffer;
    memset(&buffer, 0, sizeof buffer);
    return buffer;
}

IQDB_API iqdb_buffer iqdb_buffer_fixed(void *memory, size_t size) {
    iqdb_buffer buffer = iqdb_buffer_default();
    buffer.bytes = memory;
    buffer.capacity = memory == NULL ? 0 : size;
    buffer.fixed = true;
    return buffer;
}

IQDB_API void iqdb_buffer_free(iqdb_buffer *buffer) {
    if (buffer == NULL) return;
    if (!buffer->fixed) {
        const iqdb_allocator allocator = iq_buffer_allocator(buffer);
        iq_free(&allocator, buffer->bytes, buffer->capacity, 16);
        buffer->bytes = NULL;
        buffer->capacity = 0;
    }
    buffer->used = buffer->needed = 0;
}

/* ======== [base/bytes.h] ======== */
/* Little-endian numbers in byte arrays, at any alignment and on any machine. */

IQ_INLINE uint16_t iq_get_u16(const uint8_t *p) {
    return (uint16_t)(p[0] | (unsigned)p[1] << 8);
}
IQ_INLINE uint32_t iq_get_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
IQ_INLINE uint64_t iq_get_u64(const uint8_t *p) {
    return (uint64_t)iq_get_u32(p) | (uint64_t)iq_get_u32(p + 4) << 32;
}
IQ_INLINE void iq_put_u32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)(v >> 16);
    p[3] = (uint8_t)(v >> 24);
}
IQ_INLINE void iq_put_u64(uint8_t *p, uint64_t v) {
    iq_put_u32(p, (uint32_t)v);
    iq_put_u32(p + 4, (uint32_t)(v >> 32));
}
IQ_INLINE uint32_t iq_f32_bits(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return bits;
}
/* By its bits, because -ffast-math lets compilers fold comparisons. */
IQ_INLINE bool iq_f32_is_nan(float v) {
    return (iq_f32_bits(v) & 0x7FFFFFFFu) > 0x7F800000u;
}
IQ_INLINE float iq_f32_from_bits(uint32_t bits) {
    float v;
    memcpy(&v, &bits, 4);
    return v;
}
IQ_INLINE uint64_t iq_f64_bits(double v) {
    uint64_t bits;
    memcpy(&bits, &v, 8);
    return bits;
}
IQ_INLINE double iq_f64_from_bits(uint64_t bits) {
    double v;
    memcpy(&v, &bits, 8);
    return v;
}

/* count 32-bit words between memory and little-endian bytes: a copy where the machine is little-endian itself. */
IQ_INLINE void iq_copy_words_le(void *to, const void *from, size_t count) {
    if (!IQ_BIG_ENDIAN) {
        memcpy(to, from, count * 4);
        return;
    }
    const uint8_t *source = (const uint8_t *)from;
    uint8_t *target = (uint8_t *)to;
    for (size_t i = 0; i < count * 4; i += 4) {
        const uint8_t swapped[4] = {source[i + 3], source[i + 2], source[i + 1], source[i]};
        memcpy(target + i, swapped, 4);
    }
}

/* ======== [base/hash.h] ======== */
/* A mixing function for ids: every input bit reaches every output bit (the finaliser of splitmix64; Steele, Lea, Flood,
 * "Fast splittable pseudorandom number generators", OOPSLA 2014). */

IQ_INLINE uint64_t iq_hash_u64(uint64_t x) {
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

/* ======== [base/report.h] ======== */
/* Where details of an error go: the caller's struct and the logger. */

typedef struct iq_reporter {
    iqdb_error *error; /* the caller's, or NULL */
    iqdb_logger logger;
    bool *told; /* NULL, or set by each report, so that nothing fails in silence or is told twice */
} iq_reporter;

/* What went wrong where; file NULL and the numbers 0 where they do not apply. */
IQ_FN iqdb_error iq_error_make(iqdb_result code, const char *file, uint64_t offset, const char *text);

/* Hands `error` to the caller's struct and the logger and returns its code, so that a failing function can end with
 * `return iq_report(...)`. `reporter` may be NULL. */
IQ_FN iqdb_result iq_report_error(const iq_reporter *reporter, const iqdb_error *error);
IQ_FN iqdb_result iq_report(const iq_reporter *reporter, iqdb_result code, const char *file, uint64_t offset,
                            const char *text);
IQ_FN iqdb_result iq_report_os(const iq_reporter *reporter, iqdb_result code, const char *file, int os_code,
                               const char *text);
/* To the logger only. */
IQ_FN void iq_log(const iq_reporter *reporter, iqdb_level level, const char *file, uint64_t offset, const char *text);

/* What a check finds: every report becomes a finding. */
typedef struct iq_findings {
    iqdb_report_fn report_fn; /* NULL: nobody wants to hear */
    void *user;
    iqdb_result first; /* code of the first one */
} iq_findings;

IQ_FN iq_findings iq_findings_make(iqdb_report_fn report, void *user);
IQ_FN void iq_findings_add(iq_findings *findings, const iqdb_error *finding);
IQ_FN iq_reporter iq_findings_reporter(iq_findings *findings);

/* ======== [base/report.c] ======== */
/* Error details. Text is copied with truncation, so no message can overrun the caller's struct. */

static void iq_report_copy_text(char *to, size_t capacity, const char *from) {
    size_t size = from == NULL ? 0 : strlen(from);
    if (size >= capacity) size = capacity - 1;
    if (size > 0) memcpy(to, from, size);
    to[size] = 0;
}

IQ_FN iqdb_error iq_error_make(iqdb_result code, const char *file, uint64_t offset, const char *text) {
    iqdb_error error;
    memset(&error, 0, sizeof error);
    error.code = code;
    error.offset = offset;
    iq_report_copy_text(error.file, sizeof error.file, file);
    iq_report_copy_text(error.text, sizeof error.text, text);
    return error;
}

IQ_FN iqdb_result iq_report_error(const iq_reporter *reporter, const iqdb_error *error) {
    if (reporter != NULL) {
        if (reporter->told != NULL) *reporter->told = true;
        if (reporter->error != NULL) *reporter->error = *error;
        if (reporter->logger.log_fn != NULL) reporter->logger.log_fn(IQDB_LEVEL_ERROR, error, reporter->logger.user);
    }
    return error->code;
}

IQ_FN iqdb_result iq_report(const iq_reporter *reporter, iqdb_result code, const char *file, uint64_t offset,
                            const char *text) {
    const iqdb_error error = iq_error_make(code, file, offset, text);
    return iq_report_error(reporter, &error);
}

IQ_FN iqdb_result iq_report_os(const iq_reporter *reporter, iqdb_result code, const char *file, int os_code,
                               const char *text) {
    iqdb_error error = iq_error_make(code, file, 0, text);
    error.os_code = os_code;
    return iq_report_error(reporter, &error);
}

IQ_FN void iq_log(const iq_reporter *reporter, iqdb_level level, const char *file, uint64_t offset, const char *text) {
    if (reporter == NULL || reporter->logger.log_fn == NULL) return;
    const iqdb_error message = iq_error_make(IQDB_OK, file, offset, text);
    reporter->logger.log_fn(level, &message, reporter->logger.user);
}

IQ_FN iq_findings iq_findings_make(iqdb_report_fn report, void *user) {
    const iq_findings findings = {report, user, IQDB_OK};
    return findings;
}

IQ_FN void iq_findings_add(iq_findings *findings, const iqdb_error *finding) {
    if (findings->first == IQDB_OK) findings->first = finding->code;
    if (findings->report_fn != NULL) findings->report_fn(finding, findings->user);
}

static void iq_findings_log(iqdb_level level, const iqdb_error *message, void *user) {
    if (level == IQDB_LEVEL_ERROR) iq_findings_add((iq_findings *)user, message);
}

IQ_FN iq_reporter iq_findings_reporter(iq_findings *findings) {
    iq_reporter reporter;
    memset(&reporter, 0, sizeof reporter);
    reporter.logger.log_fn = iq_findings_log;
    reporter.logger.user = findings;
    return reporter;
}

/* ======== [base/topk.h] ======== */
/* The k best hits, kept as a heap in the caller's own array: no memory of its own, ties by id already at admission. */

typedef struct iq_topk {
    iqdb_hit *hits;  /* a max-heap by (score, id); payload.size of each carries the caller's tag */
    size_t capacity; /* k, at least 1 */
    size_t count;
} iq_topk;

/* Unsigned order of the key is the order of scores: ascending, every NaN behind infinity. No score is -0. */
IQ_INLINE uint32_t iq_score_key(float score) {
    const uint32_t bits = iq_f32_bits(score);
    if (iq_f32_is_nan(score)) return 0xFFFFFFFFu;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* Whether (score_a, id_a) comes before (score_b, id_b). */
IQ_INLINE bool iq_ranks_before(float score_a, uint64_t id_a, float score_b, uint64_t id_b) {
    const uint32_t a = iq_score_key(score_a), b = iq_score_key(score_b);
    return a != b ? a < b : id_a < id_b;
}

IQ_FN void iq_topk_start(iq_topk *topk, iqdb_hit *hits, size_t k);

/* Whether a hit of this rank would be kept. */
IQ_INLINE bool iq_topk_admits(const iq_topk *topk, float score, uint64_t id) {
    return topk->count < topk->capacity || iq_ranks_before(score, id, topk->hits[0].score, topk->hits[0].id);
}

/* The worst score still kept, or +infinity while there is room: a row above it cannot be admitted. */
IQ_INLINE float iq_topk_threshold(const iq_topk *topk) {
    return topk->count < topk->capacity ? iq_f32_from_bits(0x7F800000u) : topk->hits[0].score;
}

/* Takes in a hit that iq_topk_admits; drops the worst one where the heap is full. */
IQ_FN void iq_topk_push(iq_topk *topk, float score, uint64_t id, size_t tag);

/* Best first. The heap is gone afterwards. */
IQ_FN void iq_topk_sort(iq_topk *topk);

/* ======== [base/topk.c] ======== */
/* The k best hits in a binary heap.
 *
 * 1. No hit ranks behind its parent, so hits[0] is the worst one kept.
 * 2. The kept set is that of the k first in (score, id) order, whatever the order of arrival. */

/* Whether a comes before b. */
IQ_INLINE bool iq_topk_before(const iqdb_hit *a, const iqdb_hit *b) {
    return iq_ranks_before(a->score, a->id, b->score, b->id);
}

/* Fills the hole at `hole` of a heap of `count` with `hit`, moving worse ones up. */
static void iq_topk_sink(iqdb_hit *hits, size_t count, size_t hole, iqdb_hit hit) {
    for (;;) {
        size_t child = 2 * hole + 1;
        if (child >= count) break;
        if (child + 1 < count && iq_topk_before(&hits[child], &hits[child + 1])) child++;
        if (!iq_topk_before(&hit, &hits[child])) break;
        hits[hole] = hits[child];
        hole = child;
    }
    hits[hole] = hit;
}

IQ_FN void iq_topk_start(iq_topk *topk, iqdb_hit *hits, size_t k) {
    IQ_ASSERT(k > 0);
    topk->hits = hits;
    topk->capacity = k;
    topk->count = 0;
}

IQ_FN void iq_topk_push(iq_topk *topk, float score, uint64_t id, size_t tag) {
    iqdb_hit hit;
    hit.id = id;
    hit.score = score;
    hit.payload.bytes = NULL;
    hit.payload.size = tag;
    if (topk->count == topk->capacity) {
        iq_topk_sink(topk->hits, topk->count, 0, hit);
        return;
    }
    size_t hole = topk->count++;
    while (hole > 0 && iq_topk_before(&topk->hits[(hole - 1) / 2], &hit)) {
        topk->hits[hole] = topk->hits[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    topk->hits[hole] = hit;
}

IQ_FN void iq_topk_sort(iq_topk *topk) {
    for (size_t count = topk->count; count > 1; count--) {
        const iqdb_hit last = topk->hits[count - 1];
        topk->hits[count - 1] = topk->hits[0];
        iq_topk_sink(topk->hits, count - 1, 0, last);
    }
}

/* ======== [sys/atomic.h] ======== */
/* Atomic operations over the compiler's own builtins, which C and C++ share. IQDB_NO_THREADS makes them plain.
 *
 *   IQ_ATOMIC_LOAD(pointer)                     acquire
 *   IQ_ATOMIC_STORE(pointer, value)             release
 *   IQ_ATOMIC_SWAP_IF(pointer, old, value)      whether *pointer was `old`; it is `value` then. A full barrier
 *   IQ_ATOMIC_ADD(pointer, n)                   a full barrier; n may be negative one of an unsigned type
 *   IQ_ATOMIC_FENCE(pointer)                    sequentially consistent; `pointer` names a word that nothing else uses
 *
 * The thread sanitizer does not know fences. For it a fence is an exchange on the word: of two exchanges one comes
 * first, and what its thread did before is seen by the other, which is all that is asked of a fence here. */

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define IQ_THREAD_SANITIZER 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define IQ_THREAD_SANITIZER 1
#endif
#ifndef IQ_THREAD_SANITIZER
#define IQ_THREAD_SANITIZER 0
#endif

#if defined(IQ_ATOMIC_LOAD)
/* A model of memory has brought its own. */
#elif defined(IQDB_NO_THREADS)
#define IQ_ATOMIC_LOAD(pointer) (*(pointer))
#define IQ_ATOMIC_STORE(pointer, value) ((void)(*(pointer) = (value)))
#define IQ_ATOMIC_SWAP_IF(pointer, old, value) (*(pointer) == (old) ? (*(pointer) = (value), true) : false)
#define IQ_ATOMIC_ADD(pointer, n) ((void)(*(pointer) += (n)))
#define IQ_ATOMIC_FENCE(pointer) ((void)(pointer))
#elif defined(__GNUC__) || defined(__clang__)
#if !(defined(__GCC_ATOMIC_LLONG_LOCK_FREE) && __GCC_ATOMIC_LLONG_LOCK_FREE == 2) && \
    !(defined(__CLANG_ATOMIC_LLONG_LOCK_FREE) && __CLANG_ATOMIC_LLONG_LOCK_FREE == 2) /* its name under Windows */
#error "iqdb: no lock-free 64-bit atomics on this machine; define IQDB_NO_THREADS for use by one thread"
#endif
#define IQ_ATOMIC_LOAD(pointer) __atomic_load_n((pointer), __ATOMIC_ACQUIRE)
#define IQ_ATOMIC_STORE(pointer, value) __atomic_store_n((pointer), (value), __ATOMIC_RELEASE)
#define IQ_ATOMIC_SWAP_IF(pointer, old, value) __sync_bool_compare_and_swap((pointer), (old), (value))
#define IQ_ATOMIC_ADD(pointer, n) ((void)__atomic_fetch_add((pointer), (n), __ATOMIC_SEQ_CST))
#if IQ_THREAD_SANITIZER
#define IQ_ATOMIC_FENCE(pointer) ((void)__atomic_exchange_n((pointer), 0, __ATOMIC_SEQ_CST))
#else
#define IQ_ATOMIC_FENCE(pointer) ((void)(pointer), __atomic_thread_fence(__ATOMIC_SEQ_CST))
#endif
#else
#error "iqdb: no atomics known for this compiler; define IQDB_NO_THREADS for use by one thread"
#endif

/* Words that different threads write lie so far apart: processors fetch lines of 64 bytes in pairs. */
#if defined(IQDB_NO_THREADS)
#define IQ_ATOMIC_DISTANCE 32
#else
#define IQ_ATOMIC_DISTANCE 128
#endif

/* ======== [sys/sys.h] ======== */
/* What the database needs of an operating system. The only folder that includes its headers. */

/* ---- Memory for large blocks ----
 * From the allocator, cache-line aligned, like iq_alloc; but from 2 MiB on and where the default allocator would ask
 * malloc, large pages of the system, zeroed. The size is the same for both calls. */
IQ_FN void *iq_pages_alloc(const iqdb_allocator *allocator, size_t size);
IQ_FN void iq_pages_free(const iqdb_allocator *allocator, void *memory, size_t size); /* NULL is fine */

/* ---- Chance ---- */
IQ_FN bool iq_sys_entropy(void *bytes, size_t size, void *user); /* user is not read */

/* ---- Threads ---- */
typedef struct iq_mutex iq_mutex; /* defined in sys/thread.h; not recursive */

/* Bits of iq_cpu_features. */
#define IQ_CPU_SSE2 1u
#define IQ_CPU_AVX2 2u    /* and FMA, and the system saves the registers */
#define IQ_CPU_AVX512F 4u /* the same */
#define IQ_CPU_PCLMUL 16u
#define IQ_CPU_VPCLMUL 32u /* on registers of 32 bytes, with AVX2 */
#define IQ_CPU_ARM_CRC32 64u
IQ_FN uint32_t iq_cpu_features(void);

/* ======== [sys/cpu.c] ======== */
/* What this processor can do. Asked of the processor itself, because the compilers' own helpers differ, and some look
 * at the instruction set without asking whether the system saves the wider registers. */

#if IQ_X86

#include <cpuid.h>

#define IQ_CPU_LEAF1_EDX_SSE2 (1u << 26)
#define IQ_CPU_LEAF1_ECX_PCLMUL (1u << 1)
#define IQ_CPU_LEAF1_ECX_FMA (1u << 12)
#define IQ_CPU_LEAF1_ECX_OSXSAVE (1u << 27)
#define IQ_CPU_LEAF1_ECX_AVX (1u << 28)
#define IQ_CPU_LEAF7_EBX_AVX2 (1u << 5)
#define IQ_CPU_LEAF7_ECX_VPCLMUL (1u << 10)
#define IQ_CPU_LEAF7_EBX_AVX512F (1u << 16)
#define IQ_CPU_XCR0_YMM 0x06u /* the system saves XMM and YMM registers */
#define IQ_CPU_XCR0_ZMM 0xE6u /* and mask registers, upper halves of ZMM 0 to 15, and ZMM 16 to 31 */

/* xgetbv by its bytes: the mnemonic and the intrinsic want build flags. Only where OSXSAVE is set. */
static uint32_t iq_cpu_xcr0(void) {
    uint32_t low, high;
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));
    (void)high;
    return low;
}

IQ_FN uint32_t iq_cpu_features(void) {
    /* With FMA, which sifts use: there is hardly a processor with AVX2 and without it. */
    const uint32_t avx = IQ_CPU_LEAF1_ECX_OSXSAVE | IQ_CPU_LEAF1_ECX_AVX | IQ_CPU_LEAF1_ECX_FMA;
    unsigned a = 0, b = 0, c = 0, d = 0;
    uint32_t features = 0;
    /* Each question costs microseconds in a virtual machine, where the hypervisor answers it. */
    const unsigned highest = (unsigned)__get_cpuid_max(0, NULL); /* an int in clang 14 */
    if (highest == 0) return 0;
    __cpuid(1, a, b, c, d);
    if ((d & IQ_CPU_LEAF1_EDX_SSE2) != 0) features |= IQ_CPU_SSE2;
    if ((c & IQ_CPU_LEAF1_ECX_PCLMUL) != 0 && (features & IQ_CPU_SSE2) != 0) features |= IQ_CPU_PCLMUL;
    if ((c & avx) != avx) return features;
    const uint32_t saved = iq_cpu_xcr0();
    if ((saved & IQ_CPU_XCR0_YMM) != IQ_CPU_XCR0_YMM || highest < 7) return features;
    __cpuid_count(7, 0, a, b, c, d);
    if ((b & IQ_CPU_LEAF7_EBX_AVX2) == 0) return features;
    features |= IQ_CPU_AVX2;
    if ((c & IQ_CPU_LEAF7_ECX_VPCLMUL) != 0 && (features & IQ_CPU_PCLMUL) != 0) features |= IQ_CPU_VPCLMUL;
    if ((b & IQ_CPU_LEAF7_EBX_AVX512F) != 0 && (saved & IQ_CPU_XCR0_ZMM) == IQ_CPU_XCR0_ZMM) features |= IQ_CPU_AVX512F;
    return features;
}

#elif IQ_ARM64

#if defined(__linux__) && !defined(IQDB_NO_LIBC)
#include <sys/auxv.h>
#define IQ_CPU_HWCAP_CRC32 (1ul << 7)
#endif

/* Programs may not ask an ARM processor; the system has, and tells. */
IQ_FN uint32_t iq_cpu_features(void) {
#if defined(__ARM_FEATURE_CRC32) || defined(__APPLE__)
    return IQ_CPU_ARM_CRC32; /* the compiler was told, or no machine is without */
#elif defined(IQ_CPU_HWCAP_CRC32)
    return (getauxval(AT_HWCAP) & IQ_CPU_HWCAP_CRC32) != 0 ? IQ_CPU_ARM_CRC32 : 0;
#else
    return 0;
#endif
}

#else

IQ_FN uint32_t iq_cpu_features(void) {
    return 0;
}

#endif

/* ======== [sys/pages.c] ======== */
/* Memory for large blocks, from the system's pages.
 *
 * A scan that streams through small pages misses the address cache with every one of them, and the first touch of each
 * costs a fault: with pages of 2 MiB, where Linux has them for the asking, reading went from 14 to 18 GB/s and filling
 * fresh memory from 1.3 to several GB/s on the machine of the bench. Blocks begin at a multiple of that size, because a
 * large page has to lie in a block whole. */

#if !defined(_WIN32) && !defined(IQDB_NO_FILES) && !defined(IQDB_NO_MMAP)
#include <sys/mman.h>
#if defined(MAP_ANONYMOUS)
#define IQ_PAGES_MAP MAP_ANONYMOUS
#elif defined(MAP_ANON)
#define IQ_PAGES_MAP MAP_ANON
#endif
#endif

#define IQ_PAGES_LARGE ((size_t)1 << 21)
#define IQ_PAGES_UNIT ((size_t)1 << 16) /* what every system's page size divides */

/* Only where nobody else wants to be asked for memory. */
static bool iq_pages_apply(const iqdb_allocator *allocator, size_t size) {
#if defined(IQ_PAGES_MAP)
    return size >= IQ_PAGES_LARGE && size < (size_t)-1 / 4 && iq_alloc_is_system(allocator);
#else
    (void)allocator;
    (void)size;
    return false;
#endif
}

IQ_FN void *iq_pages_alloc(const iqdb_allocator *allocator, size_t size) {
    if (!iq_pages_apply(allocator, size)) return iq_alloc(allocator, size, IQ_CACHE_LINE);
#if defined(IQ_PAGES_MAP)
    const size_t whole = iq_round_up(size, IQ_PAGES_UNIT), wide = whole + IQ_PAGES_LARGE;
    void *mapped = mmap(NULL, wide, PROT_READ | PROT_WRITE, MAP_PRIVATE | IQ_PAGES_MAP, -1, 0);
    if (mapped == MAP_FAILED) return NULL;
    uint8_t *bytes = (uint8_t *)mapped;
    const size_t before = (size_t)(-(uintptr_t)bytes & (IQ_PAGES_LARGE - 1));
    if (before > 0) (void)munmap(bytes, before);
    if (wide - whole > before) (void)munmap(bytes + before + whole, wide - whole - before);
#if defined(MADV_HUGEPAGE)
    (void)madvise(bytes + before, whole, MADV_HUGEPAGE); /* a wish */
#endif
    return bytes + before;
#else
    return NULL;
#endif
}

IQ_FN void iq_pages_free(const iqdb_allocator *allocator, void *memory, size_t size) {
    if (memory == NULL) return;
    if (!iq_pages_apply(allocator, size)) {
        iq_free(allocator, memory, size, IQ_CACHE_LINE);
        return;
    }
#if defined(IQ_PAGES_MAP)
    (void)munmap(memory, iq_round_up(size, IQ_PAGES_UNIT));
#endif
}

/* ======== [sys/thread.h] ======== */
/* Locks and the identity of threads. IQDB_NO_THREADS makes them nothing. */

#if defined(IQDB_NO_THREADS)
struct iq_mutex {
    char unused;
};
#elif defined(_WIN32)
struct iq_mutex {
    void *native; /* an SRWLOCK, whose header is better not read by all */
};
#else
#include <pthread.h>
struct iq_mutex {
    pthread_mutex_t native;
};
#endif

IQ_FN bool iq_mutex_init(iq_mutex *mutex);
IQ_FN void iq_mutex_destroy(iq_mutex *mutex);
IQ_FN void iq_mutex_lock(iq_mutex *mutex);
IQ_FN void iq_mutex_unlock(iq_mutex *mutex);
/* Tells the calling thread from every other live one; never 0. */
IQ_FN uintptr_t iq_thread_identity(void);
/* The process, so that a handle can tell that it was carried across a fork. */
IQ_FN uint64_t iq_process_identity(void);

/* ======== [sys/thread.c] ======== */
/* What stands in for a system where there is none: no locks and threads with IQDB_NO_THREADS; no files, chance and
 * processes with IQDB_NO_FILES. The others are in posix.c and windows.c. */

#if defined(IQDB_NO_THREADS)

IQ_FN bool iq_mutex_init(iq_mutex *mutex) {
    mutex->unused = 0;
    return true;
}
IQ_FN void iq_mutex_destroy(iq_mutex *mutex) {
    (void)mutex;
}
IQ_FN void iq_mutex_lock(iq_mutex *mutex) {
    (void)mutex;
}
IQ_FN void iq_mutex_unlock(iq_mutex *mutex) {
    (void)mutex;
}
IQ_FN uintptr_t iq_thread_identity(void) {
    return 1;
}

#endif

#if defined(IQDB_NO_FILES)

IQDB_API iqdb_files iqdb_files_default(void) {
    iqdb_files files;
    memset(&files, 0, sizeof files);
    return files;
}
IQ_FN bool iq_sys_entropy(void *bytes, size_t size, void *user) {
    (void)bytes;
    (void)size;
    (void)user;
    return false;
}
IQ_FN uint64_t iq_process_identity(void) {
    return 1;
}

#endif

/* ======== [sys/posix.c] ======== */
/* POSIX: files, chance, threads and identities.
 *
 * 1. Every file is reached through the descriptor of its directory, so that nobody who renames a directory meanwhile
 *    can lead us elsewhere. Links are never followed in the last place; only regular files are opened.
 * 2. Every descriptor is above 2 (a program that has closed its stderr would print into the database) and is closed
 *    by exec.
 * 3. Interrupted and short calls go on until they are done or fail; only close is never repeated, because the
 *    descriptor may be another thread's by then.
 * 4. NOSPACE comes from writing and making, never from a sync: a sync that failed for whatever reason is IO, because
 *    the kernel may have dropped the pages, and what the file holds is unknown.
 *
 * Codes: ENOENT is NOT_FOUND, EROFS is READONLY, ENOMEM is NOMEM; ENOSPC, EDQUOT and EFBIG (a limit of the file system
 * or of the process, whose SIGXFSZ the program has to ignore) are NOSPACE; whatever else is IO with errno beside it. */

#if !defined(_WIN32) && !defined(IQDB_NO_FILES)

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#if defined(__linux__) && defined(__has_include)
#if __has_include(<sys/random.h>)
#include <sys/random.h>
#define IQ_POSIX_GETENTROPY 1
#endif
#elif defined(__APPLE__)
#include <sys/random.h>
#define IQ_POSIX_GETENTROPY 1
#elif defined(__FreeBSD__) || defined(__OpenBSD__)
#define IQ_POSIX_GETENTROPY 1
#endif

/* Opens a directory on the way to another one. It need not be readable where the system can tell the two apart. */
#if defined(O_PATH)
#define IQ_POSIX_PASS (O_PATH | O_DIRECTORY)
#elif defined(O_SEARCH)
#define IQ_POSIX_PASS (O_SEARCH | O_DIRECTORY)
#else
#define IQ_POSIX_PASS (O_RDONLY | O_DIRECTORY)
#endif

#define IQ_POSIX_NAME_MAX 255
#define IQ_POSIX_LISTED_SIZE 32          /* with the final zero; longer names cannot be ours */
#define IQ_POSIX_CHUNK ((size_t)1 << 30) /* no system takes less at once; some refuse 2^31 and more */
#define IQ_POSIX_END UINT64_C(0x7FFFFFFFFFFFFFFF)

IQ_STATIC_ASSERT(sizeof(off_t) == 8, off_t_has_64_bits_so_compile_with_FILE_OFFSET_BITS_64);

/* A file or a directory. A lock is the open file's, and a child made by fork shares that: the parent's close has to
 * release it in so many words, because the child's copy would keep it, and the child's close must not. */
typedef struct iq_posix_handle {
    int fd;
    bool locked;
    pid_t opener;
} iq_posix_handle;

static iqdb_result iq_posix_code(int error) {
    switch (error) {
    case ENOENT:
        return IQDB_ERR_NOT_FOUND;
    case ENOMEM:
        return IQDB_ERR_NOMEM;
    case EROFS:
        return IQDB_ERR_READONLY;
    case ENOSPC:
    case EFBIG:
#ifdef EDQUOT
    case EDQUOT:
#endif
        return IQDB_ERR_NOSPACE;
    default:
        return IQDB_ERR_IO;
    }
}

static iqdb_result iq_posix_fail(int *os_code) {
    *os_code = errno;
    return iq_posix_code(errno);
}

/* openat by rules 2 and 3; -1 with errno. */
static int iq_posix_openat(int at, const char *name, int flags) {
    int fd;
    do fd = openat(at, name, flags | O_CLOEXEC | O_NOCTTY, 0600);
    while (fd < 0 && errno == EINTR);
    if (fd < 0 || fd > 2) return fd;
    const int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    const int error = errno;
    close(fd);
    errno = error;
    return moved;
}

/* Takes the descriptor over, also when it fails. */
static iqdb_result iq_posix_wrap(int fd, void **out_handle, int *os_code) {
    const iqdb_allocator allocator = iq_alloc_default();
    iq_posix_handle *handle = (iq_posix_handle *)iq_alloc(&allocator, sizeof *handle, 16);
    if (handle == NULL) {
        close(fd);
        *os_code = ENOMEM;
        return IQDB_ERR_NOMEM;
    }
    handle->fd = fd;
    handle->locked = false;
    handle->opener = getpid();
    *out_handle = handle;
    return IQDB_OK;
}

static void iq_posix_close(void *file, void *user) {
    (void)user;
    iq_posix_handle *handle = (iq_posix_handle *)file;
    if (handle->locked && handle->opener == getpid()) flock(handle->fd, LOCK_UN);
    close(handle->fd);
    const iqdb_allocator allocator = iq_alloc_default();
    iq_free(&allocator, handle, sizeof *handle, 16);
}

static int iq_posix_fd(void *handle) {
    return ((iq_posix_handle *)handle)->fd;
}

/* ---- Sync ---- */

static int iq_posix_flush(int fd, bool directory) {
#if defined(__APPLE__)
    /* fsync stops at the drive's cache there. What cannot flush that cache (a network volume) gets what fsync gives. */
    if (fcntl(fd, F_FULLFSYNC) == 0) return 0;
    if (errno != ENOTSUP && errno != EINVAL && errno != ENOTTY) return -1;
#elif defined(__linux__)
    /* fdatasync leaves out times and owners only: a changed size goes with the data, being needed to read them. */
    if (!directory) return fdatasync(fd);
#endif
    (void)directory;
    return fsync(fd);
}

static iqdb_result iq_posix_sync_fd(int fd, bool directory, int *os_code) {
    int status;
    do status = iq_posix_flush(fd, directory);
    while (status != 0 && errno == EINTR);
    if (status == 0) return IQDB_OK;
    *os_code = errno;
    /* Some file systems (CIFS, some of FUSE) know no sync of a directory; their names are as durable as they get. */
    return directory && (errno == EINVAL || errno == ENOTSUP) ? IQDB_OK : IQDB_ERR_IO;
}

static iqdb_result iq_posix_sync(void *file, int *os_code, void *user) {
    (void)user;
    return iq_posix_sync_fd(iq_posix_fd(file), false, os_code);
}

static iqdb_result iq_posix_dir_sync(void *dir, int *os_code, void *user) {
    (void)user;
    return iq_posix_sync_fd(iq_posix_fd(dir), true, os_code);
}

/* ---- Directories ---- */

/* NULL with errno where it cannot be read. */
static DIR *iq_posix_stream(int at) {
    const int fd = iq_posix_openat(at, ".", O_RDONLY | O_DIRECTORY); /* a position of its own */
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (stream == NULL && fd >= 0) {
        const int error = errno;
        close(fd);
        errno = error;
    }
    return stream;
}

/* NULL at the end, or with errno. */
static const char *iq_posix_next_name(DIR *stream) {
    const struct dirent *entry;
    do {
        errno = 0;
        entry = readdir(stream);
    } while (entry != NULL && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0));
    return entry == NULL ? NULL : entry->d_name;
}

static iqdb_result iq_posix_dir_list(void *dir, void (*each_fn)(const char *name, void *each_user), void *each_user,
                                     int *os_code, void *user) {
    (void)user;
    DIR *stream = iq_posix_stream(iq_posix_fd(dir));
    if (stream == NULL) return iq_posix_fail(os_code);
    const char *name;
    while ((name = iq_posix_next_name(stream)) != NULL) {
        if (strlen(name) < IQ_POSIX_LISTED_SIZE) each_fn(name, each_user);
    }
    const iqdb_result result = errno == 0 ? IQDB_OK : iq_posix_fail(os_code);
    closedir(stream);
    return result;
}

/* Before anything is put into an empty directory, its own entry is made durable: it may be new, from a call of ours
 * that was cut short, or fresh from another program's mkdir. One in use has been through this. Where directories may
 * be passed but not read, nothing can be synced, and the file system's own order has to do. */
static iqdb_result iq_posix_settle(int fd, int *os_code) {
    DIR *stream = iq_posix_stream(fd);
    if (stream == NULL) return errno == EACCES ? IQDB_OK : iq_posix_fail(os_code);
    const bool used = iq_posix_next_name(stream) != NULL;
    iqdb_result result = errno == 0 ? IQDB_OK : iq_posix_fail(os_code);
    closedir(stream);
    if (used || result != IQDB_OK) return result;
    const int parent = iq_posix_openat(fd, "..", O_RDONLY | O_DIRECTORY);
    if (parent < 0) return errno == EACCES ? IQDB_OK : iq_posix_fail(os_code);
    result = iq_posix_sync_fd(parent, true, os_code);
    close(parent);
    return result;
}

/* One step from *at to *path's first component, which is cut off *path. */
static iqdb_result iq_posix_step(int *at, const char **path, bool create, int *os_code) {
    char name[IQ_POSIX_NAME_MAX + 1];
    size_t size = 0;
    for (; **path != '\0' && **path != '/'; ++*path) {
        if (size == IQ_POSIX_NAME_MAX) {
            *os_code = ENAMETOOLONG;
            return IQDB_ERR_INVALID_CONFIG;
        }
        name[size++] = **path;
    }
    name[size] = '\0';
    while (**path == '/') ++*path;
    const int flags = **path == '\0' ? O_RDONLY | O_DIRECTORY | O_NOFOLLOW : IQ_POSIX_PASS;
    int fd = iq_posix_openat(*at, name, flags);
    const bool make = fd < 0 && errno == ENOENT && create;
    if (make) {
        const iqdb_result result = iq_posix_settle(*at, os_code);
        if (result != IQDB_OK) return result;
        if (mkdirat(*at, name, 0700) != 0 && errno != EEXIST) return iq_posix_fail(os_code);
        fd = iq_posix_openat(*at, name, flags);
    }
    if (fd < 0) {
        const iqdb_result result = iq_posix_fail(os_code);
        if (make && result == IQDB_ERR_NOT_FOUND) return IQDB_ERR_IO; /* a link to nowhere, or removed at once */
        /* For a link in the last place systems say ENOTDIR, ELOOP or EMLINK. */
        const bool is_other = *os_code == ENOTDIR || *os_code == ELOOP || *os_code == EMLINK;
        return is_other ? IQDB_ERR_INVALID_CONFIG : result;
    }
    close(*at);
    *at = fd;
    return IQDB_OK;
}

/* Walks the path one component at a time: needs no copy of it, and no link can be slipped in behind a check. A path
 * that ends in a link is not followed; "link/." says that it is meant. */
static iqdb_result iq_posix_dir_open(const char *path, bool create, void **out_dir, int *os_code, void *user) {
    (void)user;
    *os_code = 0;
    if (path[0] == '\0') return IQDB_ERR_INVALID_CONFIG;
    const char *start = path[0] == '/' ? "/" : ".";
    while (*path == '/') path++;
    int at = iq_posix_openat(AT_FDCWD, start, *path == '\0' ? O_RDONLY | O_DIRECTORY : IQ_POSIX_PASS);
    if (at < 0) return iq_posix_fail(os_code);
    iqdb_result result = IQDB_OK;
    while (*path != '\0' && result == IQDB_OK) result = iq_posix_step(&at, &path, create, os_code);
    if (create && result == IQDB_OK) result = iq_posix_settle(at, os_code);
    if (result == IQDB_OK) return iq_posix_wrap(at, out_dir, os_code);
    close(at);
    return result;
}

static iqdb_result iq_posix_remove(void *dir, const char *name, int *os_code, void *user) {
    (void)user;
    return unlinkat(iq_posix_fd(dir), name, 0) == 0 ? IQDB_OK : iq_posix_fail(os_code);
}

/* ---- Files ---- */

/* A regular file, and no longer O_NONBLOCK, which was there so that a FIFO could not hang the open. */
static iqdb_result iq_posix_admit(int fd, int *os_code) {
    struct stat facts;
    if (fstat(fd, &facts) != 0) return iq_posix_fail(os_code);
    if (!S_ISREG(facts.st_mode)) {
        *os_code = S_ISDIR(facts.st_mode) ? EISDIR : ENOTSUP;
        return IQDB_ERR_IO;
    }
    const int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0 ? IQDB_OK : iq_posix_fail(os_code);
}

static iqdb_result iq_posix_open(void *dir, const char *name, iqdb_open_kind kind, void **out_file, int *os_code,
                                 void *user) {
    (void)user;
    const int access = kind == IQDB_OPEN_READ ? O_RDONLY : O_RDWR;
    const int create = kind == IQDB_OPEN_CREATE ? O_CREAT | O_EXCL : 0;
    const int fd = iq_posix_openat(iq_posix_fd(dir), name, access | create | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        const iqdb_result result = iq_posix_fail(os_code);
        return kind == IQDB_OPEN_CREATE && *os_code == EEXIST ? IQDB_ERR_INVALID_CONFIG : result;
    }
    iqdb_result result = iq_posix_admit(fd, os_code);
    if (result != IQDB_OK) close(fd);
    if (result == IQDB_OK) result = iq_posix_wrap(fd, out_file, os_code);
    if (result != IQDB_OK && create != 0) unlinkat(iq_posix_fd(dir), name, 0);
    return result;
}

static iqdb_result iq_posix_size(void *file, uint64_t *out_size, int *os_code, void *user) {
    (void)user;
    struct stat facts;
    if (fstat(iq_posix_fd(file), &facts) != 0) return iq_posix_fail(os_code);
    *out_size = (uint64_t)facts.st_size;
    return IQDB_OK;
}

static iqdb_result iq_posix_read(void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size, int *os_code,
                                 void *user) {
    (void)user;
    uint8_t *target = (uint8_t *)bytes;
    size_t done = 0;
    *out_size = 0;
    if (offset >= IQ_POSIX_END) return IQDB_OK;
    if (size > IQ_POSIX_END - offset) size = (size_t)(IQ_POSIX_END - offset);
    while (done < size) {
        const size_t part = size - done < IQ_POSIX_CHUNK ? size - done : IQ_POSIX_CHUNK;
        const ssize_t got = pread(iq_posix_fd(file), target + done, part, (off_t)(offset + done));
        if (got == 0) break;
        if (got > 0)
            done += (size_t)got;
        else if (errno != EINTR)
            return iq_posix_fail(os_code);
    }
    *out_size = done;
    return IQDB_OK;
}

static iqdb_result iq_posix_write(void *file, uint64_t offset, const void *bytes, size_t size, int *os_code,
                                  void *user) {
    (void)user;
    const uint8_t *source = (const uint8_t *)bytes;
    size_t done = 0;
    if (offset > IQ_POSIX_END || size > IQ_POSIX_END - offset) {
        *os_code = EFBIG;
        return IQDB_ERR_NOSPACE;
    }
    while (done < size) {
        const size_t part = size - done < IQ_POSIX_CHUNK ? size - done : IQ_POSIX_CHUNK;
        const ssize_t put = pwrite(iq_posix_fd(file), source + done, part, (off_t)(offset + done));
        if (put > 0) {
            done += (size_t)put;
        } else if (put == 0) { /* no progress and no reason given: no use in asking for ever */
            *os_code = EIO;
            return IQDB_ERR_IO;
        } else if (errno != EINTR) {
            return iq_posix_fail(os_code);
        }
    }
    return IQDB_OK;
}

static iqdb_result iq_posix_lock(void *file, bool exclusive, int *os_code, void *user) {
    (void)user;
    iq_posix_handle *handle = (iq_posix_handle *)file;
    int status;
    do status = flock(handle->fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB);
    while (status != 0 && errno == EINTR);
    if (status == 0) {
        handle->locked = true;
        return IQDB_OK;
    }
    *os_code = errno;
    return errno == EWOULDBLOCK ? IQDB_ERR_LOCKED : IQDB_ERR_IO;
}

IQDB_API iqdb_files iqdb_files_default(void) {
    const iqdb_files files = {iq_posix_dir_open,
                              iq_posix_close,
                              iq_posix_dir_sync,
                              iq_posix_dir_list,
                              iq_posix_remove,
                              iq_posix_open,
                              iq_posix_close,
                              iq_posix_size,
                              iq_posix_read,
                              iq_posix_write,
                              iq_posix_sync,
                              iq_posix_lock,
                              NULL};
    return files;
}

/* ---- Chance ---- */

static bool iq_posix_urandom(uint8_t *bytes, size_t size) {
    const int fd = iq_posix_openat(AT_FDCWD, "/dev/urandom", O_RDONLY);
    if (fd < 0) return false;
    size_t done = 0;
    while (done < size) {
        const ssize_t got = read(fd, bytes + done, size - done < 4096 ? size - done : 4096);
        if (got > 0)
            done += (size_t)got;
        else if (got == 0 || errno != EINTR)
            break;
    }
    close(fd);
    return done == size;
}

IQ_FN bool iq_sys_entropy(void *bytes, size_t size, void *user) {
    (void)user;
    uint8_t *target = (uint8_t *)bytes;
    size_t done = 0;
#if defined(IQ_POSIX_GETENTROPY)
    while (done < size) {
        const size_t part = size - done < 256 ? size - done : 256;
        if (getentropy(target + done, part) != 0) break; /* an old kernel, or a sandbox that forbids it */
        done += part;
    }
#endif
    return done == size || iq_posix_urandom(target + done, size - done);
}

IQ_FN uint64_t iq_process_identity(void) {
    return (uint64_t)getpid();
}

#endif /* !_WIN32 && !IQDB_NO_FILES */

/* ---- Threads ---- */

#if !defined(_WIN32) && !defined(IQDB_NO_THREADS)

/* The errors that these calls know are misuse of a default mutex, which is ours to exclude. */
IQ_FN bool iq_mutex_init(iq_mutex *mutex) {
    return pthread_mutex_init(&mutex->native, NULL) == 0;
}
IQ_FN void iq_mutex_destroy(iq_mutex *mutex) {
    pthread_mutex_destroy(&mutex->native);
}
IQ_FN void iq_mutex_lock(iq_mutex *mutex) {
    pthread_mutex_lock(&mutex->native);
}
IQ_FN void iq_mutex_unlock(iq_mutex *mutex) {
    pthread_mutex_unlock(&mutex->native);
}

IQ_STATIC_ASSERT(sizeof(pthread_t) <= sizeof(uintptr_t), a_thread_fits_into_a_word);

/* A number on some systems, a pointer on others; on all of them it fits and tells live threads apart. */
IQ_FN uintptr_t iq_thread_identity(void) {
    const pthread_t self = pthread_self();
    uintptr_t identity = 0;
    memcpy(&identity, &self, sizeof self);
    return identity != 0 ? identity : UINTPTR_MAX;
}

#endif

/* ======== [sys/windows.c] ======== */
/* Windows: files, chance, threads and identities. Only kernel32 is linked.
 *
 * 1. A directory is held open without FILE_SHARE_DELETE, so that nobody can rename it away, and its files are reached
 *    by its full path in the form "\\?\...", which has no limit of 260 characters and knows no device names.
 * 2. Paths come in UTF-8 and go on in UTF-16; a path that is not UTF-8 is INVALID_CONFIG. Links and junctions are not
 *    followed in the last place ("link\." says that one is meant); only regular files are opened.
 * 3. Handles are not inherited. Files are opened with every kind of sharing: a name can be removed while readers have
 *    the file, and who writes is a matter of LOCK.
 * 4. FlushFileBuffers goes through to the disk, for a file and, where the file system lets it, for a directory.
 * 5. A lock is of one byte far behind the end, for locks are mandatory here and would keep others from reading.
 *
 * Codes: as in posix.c, with the numbers of GetLastError. */

#if defined(_WIN32) && (!defined(IQDB_NO_FILES) || !defined(IQDB_NO_THREADS))
#include <windows.h>
#endif

#if defined(_WIN32) && !defined(IQDB_NO_FILES)

#define IQ_WINDOWS_CHUNK ((size_t)1 << 30)
#define IQ_WINDOWS_LISTED_SIZE 32
#define IQ_WINDOWS_LOCK_AT 0x7FFFFFFFu /* high half of the offset of the byte that is locked */
#define IQ_WINDOWS_PATH_MAX 32767u     /* characters, of the system */

typedef struct iq_windows_handle {
    HANDLE native;
    bool locked;
    size_t path_size; /* of a directory: characters of its path, without the final zero */
    wchar_t path[1];
} iq_windows_handle;

static iqdb_result iq_windows_code(DWORD error) {
    switch (error) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_INVALID_DRIVE:
    case ERROR_BAD_NETPATH:
        return IQDB_ERR_NOT_FOUND;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
    case ERROR_NO_SYSTEM_RESOURCES:
        return IQDB_ERR_NOMEM;
    case ERROR_WRITE_PROTECT:
        return IQDB_ERR_READONLY;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL:
    case ERROR_FILE_TOO_LARGE:
#ifdef ERROR_DISK_QUOTA_EXCEEDED
    case ERROR_DISK_QUOTA_EXCEEDED:
#endif
        return IQDB_ERR_NOSPACE;
    default:
        return IQDB_ERR_IO;
    }
}

static iqdb_result iq_windows_fail_with(DWORD error, int *os_code) {
    *os_code = (int)error;
    return iq_windows_code(error);
}

static iqdb_result iq_windows_fail(int *os_code) {
    return iq_windows_fail_with(GetLastError(), os_code);
}

/* ---- Handles and paths ---- */

static size_t iq_windows_handle_size(size_t path_size) {
    return sizeof(iq_windows_handle) + path_size * sizeof(wchar_t);
}

static iq_windows_handle *iq_windows_new(size_t path_size, int *os_code) {
    const iqdb_allocator allocator = iq_alloc_default();
    iq_windows_handle *handle = (iq_windows_handle *)iq_alloc_zeroed(&allocator, iq_windows_handle_size(path_size), 16);
    if (handle == NULL) {
        *os_code = (int)ERROR_NOT_ENOUGH_MEMORY;
        return NULL;
    }
    handle->native = INVALID_HANDLE_VALUE;
    handle->path_size = path_size;
    return handle;
}

static void iq_windows_close(void *file, void *user) {
    const iqdb_allocator allocator = iq_alloc_default();
    iq_windows_handle *handle = (iq_windows_handle *)file;
    OVERLAPPED place;
    (void)user;
    memset(&place, 0, sizeof place);
    place.OffsetHigh = IQ_WINDOWS_LOCK_AT;
    if (handle->locked) (void)UnlockFileEx(handle->native, 0, 1, 0, &place);
    if (handle->native != INVALID_HANDLE_VALUE) CloseHandle(handle->native);
    iq_free(&allocator, handle, iq_windows_handle_size(handle->path_size), 16);
}

/* The full path of `path` behind its "\\?\", in a handle that is not open yet; NULL with *result. */
static iq_windows_handle *iq_windows_full_path(const char *path, iqdb_result *result, int *os_code) {
    static const wchar_t prefix[] = L"\\\\?\\", network[] = L"\\\\?\\UNC";
    const iqdb_allocator allocator = iq_alloc_default();
    const int wide_size = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, NULL, 0);
    *result = IQDB_ERR_INVALID_CONFIG;
    if (wide_size <= 1 || (uint32_t)wide_size > IQ_WINDOWS_PATH_MAX) {
        *os_code = wide_size <= 0 ? (int)GetLastError() : (int)ERROR_FILENAME_EXCED_RANGE;
        return NULL;
    }
    const size_t wide_bytes = (size_t)wide_size * sizeof(wchar_t);
    wchar_t *wide = (wchar_t *)iq_alloc(&allocator, wide_bytes, 16);
    iq_windows_handle *handle = NULL;
    *result = IQDB_ERR_NOMEM;
    if (wide != NULL) {
        MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, wide_size);
        const DWORD size = GetFullPathNameW(wide, 0, NULL, NULL);
        if (size > 0) handle = iq_windows_new(size + IQ_COUNT_OF(network), os_code);
        if (handle != NULL) {
            const bool is_whole = wide[0] == L'\\' && wide[1] == L'\\' && (wide[2] == L'?' || wide[2] == L'.');
            wchar_t *full = handle->path + IQ_COUNT_OF(network) - 1;
            size_t length = GetFullPathNameW(wide, size, full, NULL);
            const bool is_network = !is_whole && full[0] == L'\\' && full[1] == L'\\';
            const wchar_t *before = is_network ? network : prefix;
            size_t before_size = is_whole ? 0 : is_network ? IQ_COUNT_OF(network) - 1 : IQ_COUNT_OF(prefix) - 1;
            if (is_network) full++, length--;
            memmove(handle->path + before_size, full, (length + 1) * sizeof(wchar_t));
            memcpy(handle->path, before, before_size * sizeof(wchar_t));
            length += before_size;
            while (length > 7 && handle->path[length - 1] == L'\\') handle->path[--length] = 0;
        }
    }
    iq_free(&allocator, wide, wide_bytes, 16);
    return handle;
}

/* "directory\name"; the name has ASCII characters only where it is one of ours. To be freed with its size. */
static wchar_t *iq_windows_join(const iq_windows_handle *dir, const char *name, size_t *out_bytes, int *os_code) {
    const iqdb_allocator allocator = iq_alloc_default();
    const size_t before = wcslen(dir->path), size = strlen(name);
    *out_bytes = (before + size + 2) * sizeof(wchar_t);
    wchar_t *path = (wchar_t *)iq_alloc(&allocator, *out_bytes, 16);
    if (path == NULL) {
        *os_code = (int)ERROR_NOT_ENOUGH_MEMORY;
        return NULL;
    }
    memcpy(path, dir->path, before * sizeof(wchar_t));
    path[before] = L'\\';
    for (size_t i = 0; i <= size; i++) path[before + 1 + i] = (wchar_t)(unsigned char)name[i];
    return path;
}

static void iq_windows_free_path(wchar_t *path, size_t bytes) {
    const iqdb_allocator allocator = iq_alloc_default();
    iq_free(&allocator, path, bytes, 16);
}

/* ---- Directories ---- */

static bool iq_windows_is_link(HANDLE native) {
    FILE_ATTRIBUTE_TAG_INFO facts;
    if (!GetFileInformationByHandleEx(native, FileAttributeTagInfo, &facts, sizeof facts)) return false;
    return (facts.FileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0 &&
           (facts.ReparseTag == IO_REPARSE_TAG_SYMLINK || facts.ReparseTag == IO_REPARSE_TAG_MOUNT_POINT);
}

/* Makes the directory and every parent that is missing. The part in front is made first: a path is cut and mended at
 * its separators, from the left. What cannot be made because it is there is fine; the open that follows tells. */
static void iq_windows_make(wchar_t *path) {
    for (size_t i = 7; path[i] != 0; i++) { /* behind "\\?\C:\" */
        if (path[i] != L'\\') continue;
        path[i] = 0;
        (void)CreateDirectoryW(path, NULL);
        path[i] = L'\\';
    }
    (void)CreateDirectoryW(path, NULL);
}

/* A directory of which entries can be flushed, or at least one that can be read. */
static HANDLE iq_windows_open_dir(const wchar_t *path, bool follow) {
    const DWORD share = FILE_SHARE_READ | FILE_SHARE_WRITE;
    const DWORD flags = FILE_FLAG_BACKUP_SEMANTICS | (follow ? 0 : FILE_FLAG_OPEN_REPARSE_POINT);
    HANDLE native = CreateFileW(path, GENERIC_READ | GENERIC_WRITE, share, NULL, OPEN_EXISTING, flags, NULL);
    if (native != INVALID_HANDLE_VALUE || GetLastError() == ERROR_FILE_NOT_FOUND) return native;
    return CreateFileW(path, GENERIC_READ, share, NULL, OPEN_EXISTING, flags, NULL);
}

static iqdb_result iq_windows_dir_open(const char *path, bool create, void **out_dir, int *os_code, void *user) {
    BY_HANDLE_FILE_INFORMATION facts;
    iqdb_result result;
    (void)user;
    *os_code = 0;
    iq_windows_handle *handle = iq_windows_full_path(path, &result, os_code);
    if (handle == NULL) return result;
    const size_t size = strlen(path);
    const bool follow = size >= 2 && path[size - 1] == '.' && (path[size - 2] == '/' || path[size - 2] == '\\');
    handle->native = iq_windows_open_dir(handle->path, follow);
    if (handle->native == INVALID_HANDLE_VALUE && create) {
        const DWORD error = GetLastError();
        if (error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND) {
            iq_windows_make(handle->path);
            handle->native = iq_windows_open_dir(handle->path, follow);
        }
    }
    result = IQDB_OK;
    if (handle->native == INVALID_HANDLE_VALUE) {
        result = iq_windows_fail(os_code);
        /* A file on the way, or names that cannot be. */
        if (*os_code == ERROR_DIRECTORY || *os_code == ERROR_INVALID_NAME || *os_code == ERROR_BAD_PATHNAME ||
            *os_code == ERROR_FILENAME_EXCED_RANGE || (create && result == IQDB_ERR_NOT_FOUND))
            result = IQDB_ERR_INVALID_CONFIG;
    } else if (!GetFileInformationByHandle(handle->native, &facts)) {
        result = iq_windows_fail(os_code);
    } else if ((facts.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) == 0 ||
               (!follow && iq_windows_is_link(handle->native))) {
        *os_code = (int)ERROR_DIRECTORY;
        result = IQDB_ERR_INVALID_CONFIG;
    }
    if (result == IQDB_OK) {
        *out_dir = handle;
    } else {
        iq_windows_close(handle, NULL);
    }
    return result;
}

static iqdb_result iq_windows_dir_sync(void *dir, int *os_code, void *user) {
    (void)user;
    if (FlushFileBuffers(((iq_windows_handle *)dir)->native)) return IQDB_OK;
    *os_code = (int)GetLastError();
    /* Not every file system flushes directories, nor every handle may; NTFS keeps a journal of its names. */
    const bool is_unable = *os_code == ERROR_ACCESS_DENIED || *os_code == ERROR_INVALID_FUNCTION ||
                           *os_code == ERROR_INVALID_HANDLE || *os_code == ERROR_NOT_SUPPORTED;
    return is_unable ? IQDB_OK : IQDB_ERR_IO;
}

static iqdb_result iq_windows_dir_list(void *dir, void (*each_fn)(const char *name, void *each_user), void *each_user,
                                       int *os_code, void *user) {
    WIN32_FIND_DATAW entry;
    size_t bytes;
    (void)user;
    wchar_t *pattern = iq_windows_join((iq_windows_handle *)dir, "*", &bytes, os_code);
    if (pattern == NULL) return IQDB_ERR_NOMEM;
    const HANDLE search = FindFirstFileW(pattern, &entry);
    const DWORD error = search == INVALID_HANDLE_VALUE ? GetLastError() : 0;
    iq_windows_free_path(pattern, bytes);
    if (search == INVALID_HANDLE_VALUE) return iq_windows_fail_with(error, os_code);
    do {
        char name[IQ_WINDOWS_LISTED_SIZE];
        if (wcscmp(entry.cFileName, L".") == 0 || wcscmp(entry.cFileName, L"..") == 0) continue;
        if (WideCharToMultiByte(CP_UTF8, 0, entry.cFileName, -1, name, (int)sizeof name, NULL, NULL) > 0)
            each_fn(name, each_user);
    } while (FindNextFileW(search, &entry));
    const DWORD last = GetLastError();
    FindClose(search);
    return last == ERROR_NO_MORE_FILES ? IQDB_OK : iq_windows_fail_with(last, os_code);
}

static iqdb_result iq_windows_remove(void *dir, const char *name, int *os_code, void *user) {
    size_t bytes;
    (void)user;
    wchar_t *path = iq_windows_join((iq_windows_handle *)dir, name, &bytes, os_code);
    if (path == NULL) return IQDB_ERR_NOMEM;
    const iqdb_result result = DeleteFileW(path) ? IQDB_OK : iq_windows_fail(os_code);
    iq_windows_free_path(path, bytes);
    return result;
}

/* ---- Files ---- */

static iqdb_result iq_windows_admit(HANDLE native, int *os_code) {
    BY_HANDLE_FILE_INFORMATION facts;
    if (GetFileType(native) != FILE_TYPE_DISK) {
        *os_code = (int)ERROR_NOT_SUPPORTED;
        return IQDB_ERR_IO;
    }
    if (!GetFileInformationByHandle(native, &facts)) return iq_windows_fail(os_code);
    if ((facts.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) == 0 && !iq_windows_is_link(native)) return IQDB_OK;
    *os_code = (int)ERROR_NOT_SUPPORTED;
    return IQDB_ERR_IO;
}

static iqdb_result iq_windows_open(void *dir, const char *name, iqdb_open_kind kind, void **out_file, int *os_code,
                                   void *user) {
    const DWORD access = kind == IQDB_OPEN_READ ? GENERIC_READ : GENERIC_READ | GENERIC_WRITE;
    size_t bytes;
    (void)user;
    wchar_t *path = iq_windows_join((iq_windows_handle *)dir, name, &bytes, os_code);
    iq_windows_handle *handle = path == NULL ? NULL : iq_windows_new(0, os_code);
    iqdb_result result = handle == NULL ? IQDB_ERR_NOMEM : IQDB_OK;
    if (result == IQDB_OK) {
        handle->native = CreateFileW(path, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                                     kind == IQDB_OPEN_CREATE ? CREATE_NEW : OPEN_EXISTING,
                                     FILE_ATTRIBUTE_NORMAL | FILE_FLAG_OPEN_REPARSE_POINT, NULL);
        if (handle->native == INVALID_HANDLE_VALUE) {
            result = iq_windows_fail(os_code);
            if (kind == IQDB_OPEN_CREATE && (*os_code == ERROR_FILE_EXISTS || *os_code == ERROR_ALREADY_EXISTS))
                result = IQDB_ERR_INVALID_CONFIG;
        } else {
            result = iq_windows_admit(handle->native, os_code);
        }
    }
    if (path != NULL) iq_windows_free_path(path, bytes);
    if (result == IQDB_OK) {
        *out_file = handle;
    } else if (handle != NULL) {
        iq_windows_close(handle, NULL);
    }
    return result;
}

static iqdb_result iq_windows_size(void *file, uint64_t *out_size, int *os_code, void *user) {
    LARGE_INTEGER size;
    (void)user;
    if (!GetFileSizeEx(((iq_windows_handle *)file)->native, &size)) return iq_windows_fail(os_code);
    *out_size = (uint64_t)size.QuadPart;
    return IQDB_OK;
}

static OVERLAPPED iq_windows_place(uint64_t offset) {
    OVERLAPPED place;
    memset(&place, 0, sizeof place);
    place.Offset = (DWORD)(offset & 0xFFFFFFFFu);
    place.OffsetHigh = (DWORD)(offset >> 32);
    return place;
}

static iqdb_result iq_windows_read(void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size,
                                   int *os_code, void *user) {
    uint8_t *target = (uint8_t *)bytes;
    size_t done = 0;
    (void)user;
    *out_size = 0;
    while (done < size) {
        OVERLAPPED place = iq_windows_place(offset + done);
        const size_t part = size - done < IQ_WINDOWS_CHUNK ? size - done : IQ_WINDOWS_CHUNK;
        DWORD got = 0;
        if (!ReadFile(((iq_windows_handle *)file)->native, target + done, (DWORD)part, &got, &place)) {
            if (GetLastError() == ERROR_HANDLE_EOF) break;
            return iq_windows_fail(os_code);
        }
        if (got == 0) break;
        done += got;
    }
    *out_size = done;
    return IQDB_OK;
}

static iqdb_result iq_windows_write(void *file, uint64_t offset, const void *bytes, size_t size, int *os_code,
                                    void *user) {
    const uint8_t *source = (const uint8_t *)bytes;
    size_t done = 0;
    (void)user;
    while (done < size) {
        OVERLAPPED place = iq_windows_place(offset + done);
        const size_t part = size - done < IQ_WINDOWS_CHUNK ? size - done : IQ_WINDOWS_CHUNK;
        DWORD put = 0;
        if (!WriteFile(((iq_windows_handle *)file)->native, source + done, (DWORD)part, &put, &place))
            return iq_windows_fail(os_code);
        if (put == 0) {
            *os_code = (int)ERROR_WRITE_FAULT;
            return IQDB_ERR_IO;
        }
        done += put;
    }
    return IQDB_OK;
}

static iqdb_result iq_windows_sync(void *file, int *os_code, void *user) {
    (void)user;
    if (FlushFileBuffers(((iq_windows_handle *)file)->native)) return IQDB_OK;
    *os_code = (int)GetLastError();
    return IQDB_ERR_IO;
}

static iqdb_result iq_windows_lock(void *file, bool exclusive, int *os_code, void *user) {
    iq_windows_handle *handle = (iq_windows_handle *)file;
    OVERLAPPED place;
    (void)user;
    memset(&place, 0, sizeof place);
    place.OffsetHigh = IQ_WINDOWS_LOCK_AT;
    const DWORD flags = LOCKFILE_FAIL_IMMEDIATELY | (exclusive ? LOCKFILE_EXCLUSIVE_LOCK : 0);
    if (LockFileEx(handle->native, flags, 0, 1, 0, &place)) {
        handle->locked = true;
        return IQDB_OK;
    }
    *os_code = (int)GetLastError();
    return *os_code == ERROR_LOCK_VIOLATION || *os_code == ERROR_IO_PENDING ? IQDB_ERR_LOCKED : IQDB_ERR_IO;
}

IQDB_API iqdb_files iqdb_files_default(void) {
    const iqdb_files files = {iq_windows_dir_open,
                              iq_windows_close,
                              iq_windows_dir_sync,
                              iq_windows_dir_list,
                              iq_windows_remove,
                              iq_windows_open,
                              iq_windows_close,
                              iq_windows_size,
                              iq_windows_read,
                              iq_windows_write,
                              iq_windows_sync,
                              iq_windows_lock,
                              NULL};
    return files;
}

/* ---- Chance ---- */

/* RtlGenRandom, which is named SystemFunction036 where it is; looked up, so that advapi32 need not be linked. */
IQ_FN bool iq_sys_entropy(void *bytes, size_t size, void *user) {
    union {
        FARPROC found;
        BOOLEAN(WINAPI *fill_fn)(PVOID, ULONG);
    } random;
    (void)user;
    if (size > IQ_WINDOWS_CHUNK) return false;
    const HMODULE library = LoadLibraryW(L"advapi32.dll");
    if (library == NULL) return false;
    random.found = GetProcAddress(library, "SystemFunction036");
    const bool filled = random.found != NULL && random.fill_fn(bytes, (ULONG)size);
    FreeLibrary(library);
    return filled;
}

IQ_FN uint64_t iq_process_identity(void) {
    return GetCurrentProcessId();
}

#endif /* _WIN32 && !IQDB_NO_FILES */

/* ---- Threads ---- */

#if defined(_WIN32) && !defined(IQDB_NO_THREADS)

IQ_STATIC_ASSERT(sizeof(SRWLOCK) == sizeof(void *), a_lock_is_a_pointer);

static PSRWLOCK iq_windows_lock_of(iq_mutex *mutex) {
    return (PSRWLOCK)(void *)&mutex->native;
}

IQ_FN bool iq_mutex_init(iq_mutex *mutex) {
    InitializeSRWLock(iq_windows_lock_of(mutex));
    return true;
}
IQ_FN void iq_mutex_destroy(iq_mutex *mutex) {
    (void)mutex;
}
IQ_FN void iq_mutex_lock(iq_mutex *mutex) {
    AcquireSRWLockExclusive(iq_windows_lock_of(mutex));
}
IQ_FN void iq_mutex_unlock(iq_mutex *mutex) {
    ReleaseSRWLockExclusive(iq_windows_lock_of(mutex));
}

IQ_FN uintptr_t iq_thread_identity(void) {
    return (uintptr_t)GetCurrentThreadId();
}

#endif

/* ======== [codec/number.h] ======== */
/* Numbers as text: int64 exactly, doubles by the shortest decimal that reads as the same bits. */

#if !defined(IQDB_NO_TEXT)

#define IQ_NUMBER_SIZE_MAX 32 /* of any number written below */

/* Decimal digits to `out`; how many bytes. */
IQ_FN size_t iq_number_write_int(int64_t value, char *out);

/* A finite double; how many bytes. There is always a point or an exponent, so it reads as a double again: 1.0, -0.0,
 * 0.0001, 1e-5, 123456.75, 1e16, 1.5e300. */
IQ_FN size_t iq_number_write_float(double value, char *out);

/* Reads the number that `text` begins with, in the grammar of JSON (RFC 8259, section 6), and returns its bytes, 0
 * where there is none. What has no point and no exponent is an INT, the rest a FLOAT, rounded once, to nearest, ties to
 * even; *out_value is IQDB_TYPE_ABSENT where int64 or double are too small for it. */
IQ_FN size_t iq_number_read(const char *text, size_t size, iqdb_value *out_value);

/* The value of a hexadecimal digit, or -1. */
IQ_FN int iq_hex_digit(char c);

#endif

/* ======== [codec/number.c] ======== */
/* Numbers to text and back, with integers only: no floating-point operation, no locale, no libc.
 *
 * Both directions ask one question: floor(x * 2^a * 10^b), and is there a rest? Reading asks for the 54 leading bits of
 * the decimal, writing for the decimals at both ends of the interval that rounds to the double. It is answered by a
 * product of x with 128 bits of 5^b (Lemire, "Number Parsing at a Gigabyte per Second", 2021; Adams, "Ryu", PLDI 2018)
 * and by interval arithmetic: the error of the power is known, and where an integer lies within it, big integers decide
 * (Clinger, "How to Read Floating Point Numbers Accurately", PLDI 1990). So nothing hangs on a proof about the table:
 * a coarser one would be slower, not wrong.
 *
 * 1. Powers of five are kept for each 27th exponent, floor(5^27n / 2^e) with 128 bits; the others are products. A power
 *    is at most IQ_POWER_ERROR units of its last bit too small, and never too great. Up to 5^55 it is exact.
 * 2. The shortest decimal: that of the interval with the fewest digits, of several the closest to the double, of two the
 *    even one (Giulietti, "The Schubfach way to render doubles", 2020, chapters 8 and 9).
 * 3. A decimal of more than 800 digits is cut there and a 1 appended in place of a rest: halfway points between doubles
 *    have at most 767 digits, so the comparison with one has the same outcome. */

#if !defined(IQDB_NO_TEXT)

/* ---- Powers of five ---- */

#define IQ_POWER_STEP 27
#define IQ_POWER_FIRST (-378)
#define IQ_POWER_ERROR 3u

static const uint64_t iq_power_table[27][2] = {
    {UINT64_C(0x9ECFFC31D586ABC0), UINT64_C(0x9AC0936257D9C76C)}, /* 5^-378 */
    {UINT64_C(0x8049A4AC0C5811AE), UINT64_C(0x205B896D777D6278)}, /* 5^-351 and so on */
    {UINT64_C(0xCF42894A5DCE35EA), UINT64_C(0x52064CAC828675B9)},
    {UINT64_C(0xA76C582338ED2621), UINT64_C(0xAF2AF2B80AF6F24E)},
    {UINT64_C(0x873E4F75E2224E68), UINT64_C(0x5A7744A6E804A291)},
    {UINT64_C(0xDA7F5BF590966848), UINT64_C(0xAF39A475506A899E)},
    {UINT64_C(0xB080392CC4349DEC), UINT64_C(0xBD8D794D96AACFB3)},
    {UINT64_C(0x8E938662882AF53E), UINT64_C(0x547EB47B7282EE9C)},
    {UINT64_C(0xE65829B3046B0AFA), UINT64_C(0x0CB4A5A3112A5112)},
    {UINT64_C(0xBA121A4650E4DDEB), UINT64_C(0x92F34D62616CE413)},
    {UINT64_C(0x964E858C91BA2655), UINT64_C(0x3A6A07F8D510F86F)},
    {UINT64_C(0xF2D56790AB41C2A2), UINT64_C(0xFAE27299423FB9C3)},
    {UINT64_C(0xC428D05AA4751E4C), UINT64_C(0xAA97E14C3C26B886)},
    {UINT64_C(0x9E74D1B791E07E48), UINT64_C(0x775EA264CF55347D)},
    {UINT64_C(0x8000000000000000), UINT64_C(0x0000000000000000)}, /* 5^0 */
    {UINT64_C(0xCECB8F27F4200F3A), UINT64_C(0x0000000000000000)},
    {UINT64_C(0xA70C3C40A64E6C51), UINT64_C(0x999090B65F67D924)},
    {UINT64_C(0x86F0AC99B4E8DAFD), UINT64_C(0x69A028BB3DED71A3)},
    {UINT64_C(0xDA01EE641A708DE9), UINT64_C(0xE80E6F4820CC9495)},
    {UINT64_C(0xB01AE745B101E9E4), UINT64_C(0x5EC05DCFF72E7F8F)},
    {UINT64_C(0x8E41ADE9FBEBC27D), UINT64_C(0x14588F13BE847307)},
    {UINT64_C(0xE5D3EF282A242E81), UINT64_C(0x8F1668C8A86DA5FA)},
    {UINT64_C(0xB9A74A0637CE2EE1), UINT64_C(0x6D953E2BD7173692)},
    {UINT64_C(0x95F83D0A1FB69CD9), UINT64_C(0x4ABDAF101564F98E)},
    {UINT64_C(0xF24A01A73CF2DCCF), UINT64_C(0xBC633B39673C8CEC)},
    {UINT64_C(0xC3B8358109E84F07), UINT64_C(0x0A862F80EC4700C8)},
    {UINT64_C(0x9E19DB92B4E31BA9), UINT64_C(0x6C07A2C26A8346D1)}, /* 5^324 */
};

typedef struct iq_power {
    int exponent; /* of ten */
    int shift;    /* 5^exponent is (high * 2^64 + low) * 2^shift, or up to `error` units more */
    uint64_t high, low;
    uint32_t error;
} iq_power;

/* Of a number that is not 0. */
static unsigned iq_leading_zeros(uint64_t x) {
    return x >> 32 != 0 ? 31 - iq_log2_u32((uint32_t)(x >> 32)) : 63 - iq_log2_u32((uint32_t)x);
}

static uint64_t iq_multiply(uint64_t a, uint64_t b, uint64_t *out_high) {
    const uint64_t a0 = a & 0xFFFFFFFFu, a1 = a >> 32, b0 = b & 0xFFFFFFFFu, b1 = b >> 32;
    const uint64_t low = a0 * b0, cross = a1 * b0 + (low >> 32), middle = a0 * b1 + (cross & 0xFFFFFFFFu);
    *out_high = a1 * b1 + (cross >> 32) + (middle >> 32);
    return (middle << 32) | (low & 0xFFFFFFFFu);
}

/* factor * (high * 2^64 + low), the least word first. */
static void iq_multiply_wide(uint64_t factor, uint64_t high, uint64_t low, uint64_t out[3]) {
    uint64_t carry;
    out[0] = iq_multiply(factor, low, &carry);
    out[1] = iq_multiply(factor, high, &out[2]) + carry;
    out[2] += out[1] < carry;
}

/* floor(value / 2^bits) also below zero, where C leaves >> open. */
static int iq_floor_shift(int32_t value, unsigned bits) {
    return value >= 0 ? (int)(value >> bits) : -(int)((-value + ((int32_t)1 << bits) - 1) >> bits);
}

/* floor(log2(5^q)) for |q| < 400 */
static int iq_log2_of_power(int q) {
    return iq_floor_shift(q * 1217359, 19);
}

/* 10^exponent, for exponents of -378 to 350. */
static iq_power iq_power_of_ten(int exponent) {
    const int which = (exponent - IQ_POWER_FIRST) / IQ_POWER_STEP;
    const int more = (exponent - IQ_POWER_FIRST) % IQ_POWER_STEP;
    const uint64_t *base = iq_power_table[which];
    uint64_t factor = 1, product[3];
    for (int i = 0; i < more; i++) factor *= 5;
    factor <<= iq_leading_zeros(factor);
    iq_multiply_wide(factor, base[0], base[1], product);
    iq_power power;
    power.exponent = exponent;
    power.shift = iq_log2_of_power(exponent) - 127;
    power.high = product[2];
    power.low = product[1];
    if (product[2] >> 63 == 0) {
        power.high = product[2] << 1 | product[1] >> 63;
        power.low = product[1] << 1 | product[0] >> 63;
    }
    power.error = exponent >= 0 && exponent <= 55 ? 0 : IQ_POWER_ERROR;
    return power;
}

/* ---- Big integers, for the cases that 128 bits leave open ----
 * None has more than 2,900 bits: 801 digits take 2,661, a power of five below 5^-1147 as many, and both sides of a
 * comparison are about equal, 64 bits aside. */

#define IQ_BIG_LIMBS 112u
#define IQ_NUMBER_DIGITS_MAX 800u

typedef struct iq_big {
    uint32_t limbs[IQ_BIG_LIMBS]; /* the least first */
    size_t count;                 /* the last one is not 0 */
} iq_big;

/* big * factor + more */
static void iq_big_multiply(iq_big *big, uint32_t factor, uint32_t more) {
    uint64_t carry = more;
    for (size_t i = 0; i < big->count; i++) {
        carry += (uint64_t)big->limbs[i] * factor;
        big->limbs[i] = (uint32_t)carry;
        carry >>= 32;
    }
    IQ_ASSERT(carry == 0 || big->count < IQ_BIG_LIMBS);
    if (carry != 0) big->limbs[big->count++] = (uint32_t)carry;
}

static void iq_big_set(iq_big *big, uint64_t value) {
    big->limbs[0] = (uint32_t)value;
    big->limbs[1] = (uint32_t)(value >> 32);
    big->count = big->limbs[1] != 0 ? 2 : big->limbs[0] != 0 ? 1 : 0;
}

static void iq_big_multiply_by_five(iq_big *big, unsigned times) {
    for (; times >= 13; times -= 13) iq_big_multiply(big, 1220703125u, 0);
    for (; times > 0; times--) iq_big_multiply(big, 5, 0);
}

static void iq_big_shift(iq_big *big, unsigned bits) {
    const size_t limbs = bits / 32;
    iq_big_multiply(big, (uint32_t)1 << bits % 32, 0);
    IQ_ASSERT(big->count + limbs <= IQ_BIG_LIMBS);
    memmove(big->limbs + limbs, big->limbs, big->count * sizeof big->limbs[0]);
    memset(big->limbs, 0, limbs * sizeof big->limbs[0]);
    big->count = big->count == 0 ? 0 : big->count + limbs;
}

static int iq_big_compare(const iq_big *a, const iq_big *b) {
    if (a->count != b->count) return a->count < b->count ? -1 : 1;
    for (size_t i = a->count; i-- > 0;)
        if (a->limbs[i] != b->limbs[i]) return a->limbs[i] < b->limbs[i] ? -1 : 1;
    return 0;
}

/* The sign of big * 2^two * 10^ten - n; `big` is used up. */
static int iq_big_compare_scaled(iq_big *big, int two, int ten, uint64_t n) {
    iq_big other;
    iq_big_set(&other, n);
    iq_big_multiply_by_five(ten >= 0 ? big : &other, (unsigned)(ten >= 0 ? ten : -ten));
    two += ten;
    iq_big_shift(two >= 0 ? big : &other, (unsigned)(two >= 0 ? two : -two));
    return iq_big_compare(big, &other);
}

/* ---- The question ---- */

/* floor(product / 2^shift), which fits, for a shift of 65 or more; *out_rest: whether bits are lost. */
static uint64_t iq_product_shift(const uint64_t product[3], int shift, bool *out_rest) {
    if (shift >= 192) {
        *out_rest = true;
        return 0;
    }
    if (shift < 128) {
        *out_rest = (product[1] & (((uint64_t)1 << (shift - 64)) - 1)) != 0 || product[0] != 0;
        return product[2] << (128 - shift) | product[1] >> (shift - 64);
    }
    *out_rest = (product[2] & (((uint64_t)1 << (shift - 128)) - 1)) != 0 || product[1] != 0 || product[0] != 0;
    return product[2] >> (shift - 128);
}

/* floor(x * 2^two * power), with x > 0 and the result below 2^62; *out_rest: whether x * 2^two * power is more. */
static uint64_t iq_scale(uint64_t x, int two, const iq_power *power, bool *out_rest) {
    const int shift = -(power->shift + power->exponent + two);
    uint64_t product[3], error_high;
    iq_multiply_wide(x, power->high, power->low, product);
    const uint64_t floor_low = iq_product_shift(product, shift, out_rest);
    if (power->error == 0) return floor_low;
    *out_rest = true; /* more than what the product says, and less than what follows */
    const uint64_t error_low = iq_multiply(x, power->error, &error_high);
    product[0] += error_low;
    error_high += product[0] < error_low;
    product[1] += error_high;
    product[2] += product[1] < error_high;
    bool unused;
    const uint64_t floor_high = iq_product_shift(product, shift, &unused);
    if (floor_high == floor_low) return floor_low;
    iq_big big;
    iq_big_set(&big, x);
    const int order = iq_big_compare_scaled(&big, two, power->exponent, floor_high);
    *out_rest = order != 0;
    return order < 0 ? floor_high - 1 : floor_high;
}

/* ---- Writing ---- */

static size_t iq_number_write_digits(uint64_t value, char *out) {
    char reversed[20];
    size_t count = 0;
    do {
        reversed[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    for (size_t i = 0; i < count; i++) out[i] = reversed[count - 1 - i];
    return count;
}

IQ_FN size_t iq_number_write_int(int64_t value, char *out) {
    if (value >= 0) return iq_number_write_digits((uint64_t)value, out);
    out[0] = '-';
    return 1 + iq_number_write_digits(~(uint64_t)value + 1, out + 1);
}

/* One end of the interval of decimals that read as the double. */
typedef struct iq_bound {
    uint64_t floor;
    bool rest;
    bool is_inside; /* the end itself, where it is an integer */
} iq_bound;

static bool iq_is_between(const iq_bound *low, const iq_bound *high, uint64_t n) {
    if (n < low->floor || (n == low->floor && (low->rest || !low->is_inside))) return false;
    return n < high->floor || (n == high->floor && (high->rest || high->is_inside));
}

/* The shortest decimal digits * 10^*out_exponent of a positive double. */
static uint64_t iq_number_shortest(uint64_t bits, int *out_exponent) {
    const uint64_t fraction = bits & UINT64_C(0xFFFFFFFFFFFFF);
    const int biased = (int)(bits >> 52 & 0x7FF);
    const uint64_t c = biased == 0 ? fraction : fraction | UINT64_C(1) << 52;
    const int q = biased == 0 ? -1074 : biased - 1075;
    /* The double below a power of two is half as far away as the one above. */
    const bool is_narrow = fraction == 0 && biased > 1;
    const int k = iq_floor_shift(is_narrow ? q * 315653 - 131237 : q * 315653, 20); /* floor(log10(the interval)) */
    const iq_power power = iq_power_of_ten(-k);
    iq_bound low, high;
    bool rest;
    low.is_inside = high.is_inside = (c & 1) == 0;
    low.floor = iq_scale(4 * c - (is_narrow ? 1 : 2), q - 2, &power, &low.rest);
    high.floor = iq_scale(4 * c + 2, q - 2, &power, &high.rest);
    const uint64_t twice = iq_scale(8 * c, q - 2, &power, &rest);
    const uint64_t below = twice / 2, tens = below / 10;
    *out_exponent = k + 1;
    if (iq_is_between(&low, &high, tens * 10)) return tens;
    if (iq_is_between(&low, &high, tens * 10 + 10)) return tens + 1;
    *out_exponent = k;
    if (!iq_is_between(&low, &high, below)) return below + 1;
    if (!iq_is_between(&low, &high, below + 1)) return below;
    const bool is_half = (twice & 1) != 0 && !rest;
    return is_half ? below + (below & 1) : below + (twice & 1);
}

IQ_FN size_t iq_number_write_float(double value, char *out) {
    const uint64_t bits = iq_f64_bits(value);
    char digits[20];
    size_t size = 0;
    int exponent = 0;
    if (bits >> 63 != 0) out[size++] = '-';
    uint64_t decimal = bits << 1 == 0 ? 0 : iq_number_shortest(bits & ~(UINT64_C(1) << 63), &exponent);
    for (; decimal != 0 && decimal % 10 == 0; exponent++) decimal /= 10;
    const int count = (int)iq_number_write_digits(decimal, digits);
    const int point = decimal == 0 ? 1 : count + exponent; /* digits before the point */
    if (point < -3 || point > 16) {
        out[size++] = digits[0];
        if (count > 1) {
            out[size++] = '.';
            memcpy(out + size, digits + 1, (size_t)count - 1);
            size += (size_t)count - 1;
        }
        out[size++] = 'e';
        return size + iq_number_write_int(point - 1, out + size);
    }
    for (int i = point < 1 ? point - 1 : 0; i < count || i < point + 1; i++) {
        if (i == point) out[size++] = '.';
        out[size++] = i >= 0 && i < count ? digits[i] : '0';
    }
    return size;
}

/* ---- Reading ---- */

IQ_FN int iq_hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

typedef struct iq_decimal {
    const char *digits; /* from the first that is not 0 */
    const char *end;    /* of the digits; a point may stand among them */
    uint64_t first;     /* the first 19 as a number */
    size_t count;       /* of digits in it */
    bool is_cut;        /* digits behind them are not all 0 */
    int64_t exponent;   /* the value is first.rest * 10^exponent */
} iq_decimal;

static bool iq_is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Takes in the digit at p. */
static void iq_decimal_add(iq_decimal *decimal, const char *p, bool behind_point) {
    if (decimal->count == 19) {
        decimal->is_cut = decimal->is_cut || *p != '0';
        decimal->exponent += !behind_point;
        return;
    }
    decimal->exponent -= behind_point;
    if (decimal->count == 0) decimal->digits = p;
    decimal->count += *p != '0' || decimal->count > 0;
    decimal->first = decimal->first * 10 + (uint64_t)(*p - '0');
}

/* Whether a number of the grammar stands at *text, which moves behind its digits; a point may stand among them. */
static bool iq_decimal_scan(iq_decimal *decimal, const char **text, const char *end, bool *out_has_point) {
    const char *p = *text, *const integer_end = p < end && *p == '0' ? p + 1 : end;
    for (; p < integer_end && iq_is_digit(*p); p++) iq_decimal_add(decimal, p, false);
    if (p == *text) return false;
    *out_has_point = p < end && *p == '.';
    if (*out_has_point) {
        const char *point = p++;
        for (; p < end && iq_is_digit(*p); p++) iq_decimal_add(decimal, p, true);
        if (p == point + 1) return false;
    }
    *text = decimal->end = p;
    return true;
}

/* The exponent at *text, 0 where there is none; false where there is half a one. */
static bool iq_number_scan_exponent(const char **text, const char *end, bool *out_found, int64_t *out_exponent) {
    const char *p = *text;
    *out_exponent = 0;
    *out_found = p < end && (*p == 'e' || *p == 'E');
    if (!*out_found) return true;
    p++;
    const bool negative = p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+')) p++;
    if (p == end || !iq_is_digit(*p)) return false;
    for (; p < end && iq_is_digit(*p); p++)
        if (*out_exponent < ((int64_t)1 << 40)) *out_exponent = *out_exponent * 10 + (*p - '0');
    if (negative) *out_exponent = -*out_exponent;
    *text = p;
    return true;
}

/* The sign of the whole decimal * 2^two - n. */
static int iq_decimal_compare(const iq_decimal *decimal, int two, uint64_t n) {
    iq_big big;
    size_t taken = 0;
    bool rest = false;
    big.count = 0;
    for (const char *p = decimal->digits; p < decimal->end; p++) {
        if (*p == '.') continue;
        if (taken < IQ_NUMBER_DIGITS_MAX) {
            iq_big_multiply(&big, 10, (uint32_t)(*p - '0'));
            taken++;
        } else if (*p != '0') {
            rest = true;
            break;
        }
    }
    if (rest) {
        iq_big_multiply(&big, 10, 1);
        taken++;
    }
    return iq_big_compare_scaled(&big, two, (int)(decimal->exponent + (int64_t)decimal->count - (int64_t)taken), n);
}

/* The bits of the double nearest to a decimal that is not 0; those of infinity, or more, beyond the range. */
static uint64_t iq_decimal_round(const iq_decimal *decimal) {
    const int64_t point = decimal->exponent + (int64_t)decimal->count; /* 10^(point - 1) <= the value < 10^point */
    if (point > 310) return UINT64_C(0x7FF0000000000000);
    if (point < -340) return 0;
    const iq_power power = iq_power_of_ten((int)decimal->exponent);
    /* The value has this exponent, or one more. Half of its last bit is 2^half. */
    const int two = 63 - (int)iq_leading_zeros(decimal->first) + iq_log2_of_power(power.exponent) + power.exponent;
    int half = two - 53 < -1075 ? -1075 : two - 53;
    bool rest;
    uint64_t halves = iq_scale(decimal->first, -half, &power, &rest);
    if (decimal->is_cut) {
        bool rest_above;
        const uint64_t above = iq_scale(decimal->first + 1, -half, &power, &rest_above);
        rest = true;
        /* 19 digits are more than 54 bits: `above` is `halves` or one more. */
        if (above != halves && rest_above) {
            const int order = iq_decimal_compare(decimal, -half, above);
            rest = order != 0;
            halves = order < 0 ? above - 1 : above;
        }
    }
    if (halves >> 54 != 0) {
        rest = rest || (halves & 1) != 0;
        halves >>= 1;
        half++;
    }
    uint64_t mantissa = halves >> 1;
    mantissa += (halves & 1) != 0 && (rest || (mantissa & 1) != 0);
    /* The leading bit of the mantissa, where it has all 53, counts as one more in the exponent; so does a carry. */
    return ((uint64_t)(half + 1075) << 52) + mantissa;
}

IQ_FN size_t iq_number_read(const char *text, size_t size, iqdb_value *out_value) {
    const char *p = text, *end = text + size;
    iq_decimal decimal;
    bool has_point, has_exponent;
    int64_t exponent;
    memset(&decimal, 0, sizeof decimal);
    memset(out_value, 0, sizeof *out_value);
    out_value->type = IQDB_TYPE_ABSENT;
    const bool negative = p < end && *p == '-';
    if (negative) p++;
    if (!iq_decimal_scan(&decimal, &p, end, &has_point)) return 0;
    if (!iq_number_scan_exponent(&p, end, &has_exponent, &exponent)) return 0;
    if (!has_point && !has_exponent) {
        const uint64_t limit = (uint64_t)INT64_MAX + negative;
        if (decimal.exponent != 0 || decimal.first > limit) return (size_t)(p - text);
        out_value->type = IQDB_TYPE_INT;
        /* -1 - (n - 1): the least number has no counterpart. */
        out_value->as.integer =
            negative && decimal.first > 0 ? -1 - (int64_t)(decimal.first - 1) : (int64_t)decimal.first;
        return (size_t)(p - text);
    }
    decimal.exponent += exponent;
    uint64_t bits = decimal.first == 0 ? 0 : iq_decimal_round(&decimal);
    if (bits >= UINT64_C(0x7FF0000000000000)) return (size_t)(p - text);
    bits |= (uint64_t)negative << 63;
    out_value->type = IQDB_TYPE_FLOAT;
    memcpy(&out_value->as.real, &bits, 8);
    return (size_t)(p - text);
}

#endif

/* ======== [codec/utf8.h] ======== */
/* Whether bytes are UTF-8. */

/* UTF-8 as RFC 3629 has it: no surrogates, nothing overlong, nothing above U+10FFFF. U+0000 passes. */
IQ_FN bool iq_utf8_is_valid(const void *bytes, size_t size);

/* ======== [codec/utf8.c] ======== */
/* UTF-8 by the table of RFC 3629, section 4.
 *
 * 1. No byte at or behind bytes + size is read, also where a character is cut off there.
 * 2. Only the second byte has a range that depends on the lead: that alone keeps out overlong forms (E0, F0),
 *    surrogates (ED) and what lies above U+10FFFF (F4). C0, C1 and F5 to FF never lead.
 *
 * Most keys and much text are ASCII, so eight bytes are looked at together where eight are left. */

/* Bytes of the character that starts at p, of which `left` (at least 1) may be read; 0 where there is none. */
static size_t iq_utf8_step(const uint8_t *p, size_t left) {
    const uint8_t lead = p[0];
    if (lead < 0x80) return 1;
    if (lead < 0xC2 || lead > 0xF4) return 0;
    const size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (left < size) return 0;
    const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (p[1] < low || p[1] > high) return 0;
    for (size_t i = 2; i < size; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    return size;
}

static bool iq_utf8_is_ascii8(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return (word & UINT64_C(0x8080808080808080)) == 0;
}

IQ_FN bool iq_utf8_is_valid(const void *bytes, size_t size) {
    const uint8_t *p = (const uint8_t *)bytes;
    size_t i = 0;
    while (i < size) {
        if (size - i >= 8 && iq_utf8_is_ascii8(p + i)) {
            i += 8;
            continue;
        }
        /* The last bytes, looked at together with some before them. */
        if (size - i < 8 && size >= 8 && iq_utf8_is_ascii8(p + size - 8)) return true;
        const size_t step = iq_utf8_step(p + i, size - i);
        if (step == 0) return false;
        i += step;
    }
    return true;
}

/* ======== [codec/payload.h] ======== */
/* Encoded payloads. All numbers little-endian, no alignment.
 *
 *   payload, object, array := count u32, then count x u32: offset of item i from the container's first byte, then the
 *                             items without gaps. Item i ends where item i + 1 starts, the last one where the container
 *                             does, so the first offset is 4 + 4 * count (a container of 0 items is 4 bytes).
 *   item of an object      := key, NUL, value        keys are UTF-8, ascending by bytes, none twice
 *   item of an array       := value
 *   value                  := type u8 (iqdb_type), then
 *                             NULL nothing | BOOL u8 0 or 1 | INT i64 | FLOAT f64 bits | TEXT UTF-8 bytes, NUL |
 *                             BYTES raw | ARRAY, OBJECT a container
 *   A payload is an object, at most IQDB_PAYLOAD_SIZE_MAX bytes, containers at most IQDB_PAYLOAD_DEPTH_MAX deep with
 *   itself as the first. A value fills its extent exactly. So equal payloads have equal bytes and an item is found
 *   without a walk. Text may hold U+0000, a key cannot. */

/* Appends the encoding of an object with these fields. INVALID_PAYLOAD, LIMIT or NOMEM leave out->size as it was.
 * Values may be built or encoded views (which are validated). IQDB_TYPE_ABSENT is INVALID_PAYLOAD. The fields may not
 * lie in `out`. */
IQ_FN iqdb_result iq_payload_encode(const iqdb_field *fields, size_t count, iq_blob *out);

/* OK, INVALID_PAYLOAD or LIMIT. What passes is canonical: decoding and encoding it gives the same bytes. */
IQ_FN iqdb_result iq_payload_validate(const void *bytes, size_t size);

/* The keys of an object in the making: of fields, or at the starts of encoded items. */
typedef struct iq_payload_keys {
    const iqdb_field *fields; /* NULL: key i is at items + starts[i] */
    const uint8_t *items;
    const uint32_t *starts;
} iq_payload_keys;

/* Fills `table` (count x u32) with the indices of the keys in byte order; false where a key stands twice. `spare` is
 * room for count / 2 indices. */
IQ_FN bool iq_payload_sort(const iq_payload_keys *keys, size_t count, uint8_t *table, uint8_t *spare);

/* ---- Reading encoded bytes that need not be valid: what is out of bounds is not there ---- */
typedef struct iq_container {
    const uint8_t *bytes;
    size_t size;
    uint32_t count; /* the whole table of offsets lies within size */
    bool is_object;
} iq_container;

IQ_FN bool iq_container_open(const void *bytes, size_t size, bool is_object, iq_container *out);

/* The bytes of item `index`, at least one and within the container. */
IQ_FN bool iq_container_item(const iq_container *container, size_t index, const uint8_t **out_bytes, size_t *out_size);

/* The key (zero-terminated, *out_key_size bytes without the NUL; empty in an array) and the value of item `index`; the
 * value is IQDB_TYPE_ABSENT where its bytes make none. */
IQ_FN bool iq_container_field(const iq_container *container, size_t index, iqdb_field *out_field, size_t *out_key_size);

/* Binary search in an object; any answer where the keys are not in order. */
IQ_FN bool iq_container_find(const iq_container *container, const char *key, size_t key_size, size_t *out_index);

/* The bytes of the value, at least one, that a key stands for by the rule of iqdb_payload_get. */
IQ_FN bool iq_container_get(const iq_container *object, const char *key, size_t key_size, const uint8_t **out_value,
                            size_t *out_size);

/* The value that fills these bytes, as a view of them; IQDB_TYPE_ABSENT where there is none. Text is not checked to be
 * UTF-8, nor containers beyond their table. */
IQ_FN iqdb_value iq_value_decode(const uint8_t *bytes, size_t size);

/* Writes what stands behind the type byte of any value but a container, unless `out` is NULL; how many bytes. */
IQ_FN size_t iq_value_write(const iqdb_value *value, uint8_t *out);

/* What arrays and objects are alike in. */
typedef struct iq_value_parts {
    const void *items; /* built: iqdb_field of an object, iqdb_value of an array */
    size_t count;
    const void *encoded;
    size_t size;
    bool is_object;
} iq_value_parts;

IQ_INLINE bool iq_value_is_container(const iqdb_value *value) {
    return value->type == IQDB_TYPE_ARRAY || value->type == IQDB_TYPE_OBJECT;
}

/* Of a container. */
IQ_INLINE iq_value_parts iq_value_parts_of(const iqdb_value *value) {
    iq_value_parts parts;
    parts.is_object = value->type == IQDB_TYPE_OBJECT;
    parts.items = parts.is_object ? (const void *)value->as.object.fields : (const void *)value->as.array.items;
    parts.count = parts.is_object ? value->as.object.count : value->as.array.count;
    parts.encoded = parts.is_object ? value->as.object.encoded : value->as.array.encoded;
    parts.size = parts.is_object ? value->as.object.size : value->as.array.size;
    return parts;
}

/* ======== [codec/payload.c] ======== */
/* Payloads to bytes (payload.h has the format): encoding, checking, finding, merging.
 *
 * 1. Two passes. Measuring checks everything but the order of keys and finds the exact size, which does not depend on
 *    that order; writing then needs no bounds, no growth and no memory of its own.
 * 2. No recursion: open containers stand on a stack of IQDB_PAYLOAD_DEPTH_MAX frames, which is also the depth limit.
 * 3. A container is charged for its whole table before its first item is looked at, and an item for at least one byte,
 *    so a pass over values that share parts (or contain themselves) ends with the size limit or the depth limit.
 * 4. Keys are sorted in the place of the offsets they will get: entry i holds the index of the field that comes i-th
 *    until that field is written, then its offset. A merge sort from the bottom up: no recursion, n log n in the worst
 *    case, and the room it needs is there, where the items will go.
 * 5. Bytes that claim to be encoded are read only through iq_container_item, which keeps every extent in bounds. */

/* ---- Encoded containers and values ---- */

static size_t iq_container_table_end(uint32_t count) {
    return 4 + 4 * (size_t)count;
}

IQ_FN bool iq_container_open(const void *bytes, size_t size, bool is_object, iq_container *out) {
    if (bytes == NULL || size < 4) return false;
    out->is_object = is_object;
    out->bytes = (const uint8_t *)bytes;
    out->size = size;
    out->count = iq_get_u32(out->bytes);
    return out->count <= (size - 4) / 4;
}

IQ_FN bool iq_container_item(const iq_container *container, size_t index, const uint8_t **out_bytes, size_t *out_size) {
    if (index >= container->count) return false;
    const uint8_t *entry = container->bytes + 4 + 4 * index;
    const size_t start = iq_get_u32(entry);
    const size_t end = index + 1 < container->count ? iq_get_u32(entry + 4) : container->size;
    if (start < iq_container_table_end(container->count) || start >= end || end > container->size) return false;
    *out_bytes = container->bytes + start;
    *out_size = end - start;
    return true;
}

IQ_FN iqdb_value iq_value_decode(const uint8_t *bytes, size_t size) {
    iqdb_value value;
    iq_container container;
    memset(&value, 0, sizeof value);
    value.type = IQDB_TYPE_ABSENT;
    if (size == 0) return value;
    const uint8_t *body = bytes + 1;
    size--;
    bool fits = false;
    uint64_t word;
    switch (bytes[0]) {
    case IQDB_TYPE_NULL:
        fits = size == 0;
        break;
    case IQDB_TYPE_BOOL:
        fits = size == 1 && body[0] <= 1;
        if (fits) value.as.boolean = body[0] == 1;
        break;
    case IQDB_TYPE_INT:
    case IQDB_TYPE_FLOAT:
        fits = size == 8;
        if (!fits) break;
        word = iq_get_u64(body);
        /* Copied as bits: a double that passes through a register may lose the payload of a NaN. */
        memcpy(&value.as, &word, 8);
        break;
    case IQDB_TYPE_TEXT:
        fits = size >= 1 && body[size - 1] == 0;
        if (!fits) break;
        value.as.text.data = (const char *)body;
        value.as.text.size = size - 1;
        break;
    case IQDB_TYPE_BYTES:
        fits = true;
        value.as.bytes.data = body;
        value.as.bytes.size = size;
        break;
    case IQDB_TYPE_ARRAY:
        fits = iq_container_open(body, size, false, &container);
        if (!fits) break;
        value.as.array.count = container.count;
        value.as.array.encoded = body;
        value.as.array.size = size;
        break;
    case IQDB_TYPE_OBJECT:
        fits = iq_container_open(body, size, true, &container);
        if (!fits) break;
        value.as.object.count = container.count;
        value.as.object.encoded = body;
        value.as.object.size = size;
        break;
    default:
        break;
    }
    if (fits) value.type = (iqdb_type)bytes[0];
    return value;
}

IQ_FN size_t iq_value_write(const iqdb_value *value, uint8_t *out) {
    uint64_t word;
    switch ((unsigned)value->type) {
    case IQDB_TYPE_BOOL:
        if (out != NULL) *out = value->as.boolean ? 1 : 0;
        return 1;
    case IQDB_TYPE_INT:
    case IQDB_TYPE_FLOAT:
        memcpy(&word, &value->as, 8);
        if (out != NULL) iq_put_u64(out, word);
        return 8;
    case IQDB_TYPE_TEXT:
        if (out != NULL && value->as.text.size > 0) memcpy(out, value->as.text.data, value->as.text.size);
        if (out != NULL) out[value->as.text.size] = 0;
        return value->as.text.size + 1;
    case IQDB_TYPE_BYTES:
        if (out != NULL && value->as.bytes.size > 0) memcpy(out, value->as.bytes.data, value->as.bytes.size);
        return value->as.bytes.size;
    default:
        return 0; /* NULL */
    }
}

IQ_FN bool iq_container_field(const iq_container *container, size_t index, iqdb_field *out_field,
                              size_t *out_key_size) {
    const uint8_t *item;
    size_t size;
    if (!iq_container_item(container, index, &item, &size)) return false;
    if (!container->is_object) {
        *out_key_size = 0;
        out_field->key = "";
        out_field->value = iq_value_decode(item, size);
        return true;
    }
    const uint8_t *end = (const uint8_t *)memchr(item, 0, size);
    if (end == NULL) return false;
    *out_key_size = (size_t)(end - item);
    out_field->key = (const char *)item;
    out_field->value = iq_value_decode(end + 1, size - *out_key_size - 1);
    return true;
}

/* Order of a key of key_size bytes and the key that an item starts with; false where the item has no key. */
static bool iq_container_compare(const char *key, size_t key_size, const uint8_t *item, size_t item_size,
                                 int *out_order) {
    const size_t common = key_size < item_size ? key_size : item_size;
    const int order = common == 0 ? 0 : memcmp(key, item, common);
    /* Equal so far: the item's key goes on unless its NUL comes here. No key has a NUL, so nothing else ends it. */
    if (order == 0 && common == item_size) return false;
    *out_order = order != 0 ? order : item[common] == 0 ? 0 : -1;
    return true;
}

IQ_FN bool iq_container_find(const iq_container *container, const char *key, size_t key_size, size_t *out_index) {
    size_t low = 0, high = container->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const uint8_t *item;
        size_t item_size;
        int order;
        if (!iq_container_item(container, middle, &item, &item_size)) return false;
        if (!iq_container_compare(key, key_size, item, item_size, &order)) return false;
        if (order == 0) {
            *out_index = middle;
            return true;
        }
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}

/* The bytes of the value of exactly this key; false also where there are none. */
static bool iq_container_value(const iq_container *object, const char *key, size_t key_size, const uint8_t **out_value,
                               size_t *out_size) {
    size_t index, size;
    const uint8_t *item;
    if (!iq_container_find(object, key, key_size, &index) || !iq_container_item(object, index, &item, &size))
        return false;
    *out_value = item + key_size + 1; /* a key that was found ends within its item */
    *out_size = size - key_size - 1;
    return *out_size > 0;
}

IQ_FN bool iq_container_get(const iq_container *object, const char *key, size_t key_size, const uint8_t **out_value,
                            size_t *out_size) {
    const char *end = key + key_size;
    iq_container inner = *object;
    while (!iq_container_value(&inner, key, (size_t)(end - key), out_value, out_size)) {
        /* Follow the shortest part before a dot that names an object. There is no way back from it: each key has one
         * meaning that does not depend on what the objects within hold. */
        const iq_container outer = inner;
        const char *dot = key;
        for (;; dot++) {
            dot = dot == end ? NULL : (const char *)memchr(dot, '.', (size_t)(end - dot));
            if (dot == NULL) return false;
            if (iq_container_value(&outer, key, (size_t)(dot - key), out_value, out_size) &&
                (*out_value)[0] == IQDB_TYPE_OBJECT && iq_container_open(*out_value + 1, *out_size - 1, true, &inner))
                break;
        }
        key = dot + 1;
    }
    return true;
}

/* ---- Checking encoded bytes ---- */

typedef struct iq_payload_open {
    iq_container container;
    uint32_t next; /* item to check */
} iq_payload_open;

/* Opens a container; false where its table is malformed. */
static bool iq_payload_check_open(const void *bytes, size_t size, bool is_object, iq_payload_open *open) {
    open->next = 0;
    if (!iq_container_open(bytes, size, is_object, &open->container)) return false;
    const uint32_t count = open->container.count;
    return count == 0 ? size == 4 : iq_get_u32(open->container.bytes + 4) == iq_container_table_end(count);
}

/* The next value of an open container, its key checked; false where it is malformed. */
static bool iq_payload_check_next(iq_payload_open *open, iqdb_value *out_value) {
    const iq_container *container = &open->container;
    const uint32_t index = open->next++;
    iqdb_field field;
    size_t key_size;
    if (!iq_container_field(container, index, &field, &key_size)) return false;
    if (!iq_utf8_is_valid(field.key, key_size)) return false;
    if (container->is_object && index > 0) {
        /* The item before has been checked, so its key ends within it. */
        const uint8_t *before = container->bytes + iq_get_u32(container->bytes + 4 * (size_t)index);
        if (strcmp((const char *)before, field.key) >= 0) return false;
    }
    *out_value = field.value;
    if (out_value->type != IQDB_TYPE_TEXT) return out_value->type != IQDB_TYPE_ABSENT;
    return iq_utf8_is_valid(out_value->as.text.data, out_value->as.text.size);
}

/* Checks one encoded container that lies in `outside` others, fewer than IQDB_PAYLOAD_DEPTH_MAX. */
static iqdb_result iq_payload_check(const void *encoded, size_t size, bool is_object, size_t outside) {
    iq_payload_open open[IQDB_PAYLOAD_DEPTH_MAX];
    if (encoded == NULL) return IQDB_ERR_INVALID_PAYLOAD;
    if (size > IQDB_PAYLOAD_SIZE_MAX) return IQDB_ERR_LIMIT;
    if (!iq_payload_check_open(encoded, size, is_object, &open[0])) return IQDB_ERR_INVALID_PAYLOAD;
    size_t depth = 1;
    while (depth > 0) {
        iq_payload_open *top = &open[depth - 1];
        if (top->next == top->container.count) {
            depth--;
            continue;
        }
        iqdb_value value;
        if (!iq_payload_check_next(top, &value)) return IQDB_ERR_INVALID_PAYLOAD;
        if (!iq_value_is_container(&value)) continue;
        const iq_value_parts inner = iq_value_parts_of(&value);
        if (depth >= IQDB_PAYLOAD_DEPTH_MAX - outside) return IQDB_ERR_INVALID_PAYLOAD;
        if (!iq_payload_check_open(inner.encoded, inner.size, inner.is_object, &open[depth]))
            return IQDB_ERR_INVALID_PAYLOAD;
        depth++;
    }
    return IQDB_OK;
}

IQ_FN iqdb_result iq_payload_validate(const void *bytes, size_t size) {
    return iq_payload_check(bytes, size, true, 0);
}

/* ---- Measuring ---- */

typedef struct iq_payload_frame {
    const void *items; /* iqdb_field of an object, iqdb_value of an array */
    uint32_t count;    /* at least 1 */
    uint32_t next;
    uint32_t start; /* writing: where the container begins in the output */
    bool is_object;
} iq_payload_frame;

typedef struct iq_payload_walk {
    iq_payload_frame frames[IQDB_PAYLOAD_DEPTH_MAX];
    size_t depth;                 /* frames in use */
    size_t outside;               /* containers around the first value */
    size_t size;                  /* bytes measured, at most IQDB_PAYLOAD_SIZE_MAX; or written */
    const iqdb_buffer *forbidden; /* measuring: NULL, or what no input may lie in */
} iq_payload_walk;

static void iq_payload_walk_begin(iq_payload_walk *walk, size_t outside, const iqdb_buffer *forbidden) {
    walk->depth = 0;
    walk->outside = outside;
    walk->size = 0;
    walk->forbidden = forbidden;
}

static void iq_payload_walk_push(iq_payload_walk *walk, const iq_value_parts *parts) {
    iq_payload_frame *frame = &walk->frames[walk->depth++];
    frame->items = parts->items;
    frame->count = (uint32_t)parts->count;
    frame->next = 0;
    frame->start = (uint32_t)walk->size;
    frame->is_object = parts->is_object;
}

/* The innermost container with items left, or NULL. */
static iq_payload_frame *iq_payload_walk_top(iq_payload_walk *walk) {
    while (walk->depth > 0) {
        iq_payload_frame *frame = &walk->frames[walk->depth - 1];
        if (frame->next < frame->count) return frame;
        walk->depth--;
    }
    return NULL;
}

static iqdb_result iq_payload_charge(iq_payload_walk *walk, size_t size) {
    if (size > IQDB_PAYLOAD_SIZE_MAX - walk->size) return IQDB_ERR_LIMIT;
    walk->size += size;
    return IQDB_OK;
}

static iqdb_result iq_payload_measure_bytes(iq_payload_walk *walk, const void *bytes, size_t size) {
    if (bytes == NULL && size > 0) return IQDB_ERR_INVALID_PAYLOAD;
    if (iq_buffer_overlaps(walk->forbidden, bytes, size)) return IQDB_ERR_INVALID_ARGUMENT;
    return iq_payload_charge(walk, size);
}

/* A key or a text, with the NUL behind it. */
static iqdb_result iq_payload_measure_text(iq_payload_walk *walk, const char *text, size_t size) {
    if (text == NULL) return IQDB_ERR_INVALID_PAYLOAD;
    iqdb_result result = iq_payload_measure_bytes(walk, text, size);
    if (result == IQDB_OK) result = iq_payload_charge(walk, 1);
    if (result == IQDB_OK && !iq_utf8_is_valid(text, size)) result = IQDB_ERR_INVALID_PAYLOAD;
    return result;
}

/* A container: an encoded one whole, of a built one the table; its items follow from its frame. */
static iqdb_result iq_payload_measure_container(iq_payload_walk *walk, const iqdb_value *value) {
    const iq_value_parts parts = iq_value_parts_of(value);
    const size_t outside = walk->outside + walk->depth;
    iqdb_result result;
    if (outside >= IQDB_PAYLOAD_DEPTH_MAX) return IQDB_ERR_INVALID_PAYLOAD;
    if (parts.encoded != NULL) {
        result = iq_payload_measure_bytes(walk, parts.encoded, parts.size);
        return result == IQDB_OK ? iq_payload_check(parts.encoded, parts.size, parts.is_object, outside) : result;
    }
    if (parts.items == NULL && parts.count > 0) return IQDB_ERR_INVALID_PAYLOAD;
    if (parts.count > IQDB_PAYLOAD_SIZE_MAX / 4) return IQDB_ERR_LIMIT;
    const size_t item_size = parts.is_object ? sizeof(iqdb_field) : sizeof(iqdb_value);
    if (iq_buffer_overlaps(walk->forbidden, parts.items, parts.count * item_size)) return IQDB_ERR_INVALID_ARGUMENT;
    result = iq_payload_charge(walk, 4 + 4 * parts.count);
    if (result == IQDB_OK && parts.count > 0) iq_payload_walk_push(walk, &parts);
    return result;
}

static iqdb_result iq_payload_measure_value(iq_payload_walk *walk, const iqdb_value *value) {
    switch ((unsigned)value->type) {
    case IQDB_TYPE_NULL:
    case IQDB_TYPE_BOOL:
    case IQDB_TYPE_INT:
    case IQDB_TYPE_FLOAT:
        return iq_payload_charge(walk, iq_value_write(value, NULL));
    case IQDB_TYPE_TEXT:
        return iq_payload_measure_text(walk, value->as.text.data, value->as.text.size);
    case IQDB_TYPE_BYTES:
        return iq_payload_measure_bytes(walk, value->as.bytes.data, value->as.bytes.size);
    case IQDB_TYPE_ARRAY:
    case IQDB_TYPE_OBJECT:
        return iq_payload_measure_container(walk, value);
    default:
        return IQDB_ERR_INVALID_PAYLOAD;
    }
}

/* Adds what `value` takes behind its type byte. */
static iqdb_result iq_payload_measure(iq_payload_walk *walk, const iqdb_value *value) {
    for (;;) {
        iqdb_result result = iq_payload_measure_value(walk, value);
        if (result != IQDB_OK) return result;
        iq_payload_frame *frame = iq_payload_walk_top(walk);
        if (frame == NULL) return IQDB_OK;
        if (frame->is_object) {
            const iqdb_field *field = (const iqdb_field *)frame->items + frame->next;
            result = iq_payload_measure_text(walk, field->key, field->key == NULL ? 0 : strlen(field->key));
            value = &field->value;
        } else {
            value = (const iqdb_value *)frame->items + frame->next;
        }
        frame->next++;
        if (result == IQDB_OK) result = iq_payload_charge(walk, 1);
        if (result != IQDB_OK) return result;
    }
}

/* ---- Writing what has been measured ---- */

static const char *iq_payload_key(const iq_payload_keys *keys, uint32_t index) {
    if (keys->fields != NULL) return keys->fields[index].key;
    return (const char *)keys->items + keys->starts[index];
}

/* Merges the runs table[0 .. left - 1] and table[left .. count - 1]; false where a key stands in both. */
static bool iq_payload_merge_runs(const iq_payload_keys *keys, uint8_t *table, size_t left, size_t count,
                                  uint8_t *spare) {
    if (left == 0 || left == count) return true;
    const char *last = iq_payload_key(keys, iq_get_u32(table + 4 * left - 4));
    if (strcmp(last, iq_payload_key(keys, iq_get_u32(table + 4 * left))) < 0) return true;
    memcpy(spare, table, 4 * left);
    size_t i = 0, j = left, written = 0;
    while (i < left && j < count) {
        const uint32_t a = iq_get_u32(spare + 4 * i), b = iq_get_u32(table + 4 * j);
        const int order = strcmp(iq_payload_key(keys, a), iq_payload_key(keys, b));
        if (order == 0) return false;
        iq_put_u32(table + 4 * written++, order < 0 ? a : b);
        if (order < 0)
            i++;
        else
            j++;
    }
    memcpy(table + 4 * written, spare + 4 * i, 4 * (left - i));
    return true;
}

/* Run i of 2^level begins at i * count / 2^level, so no left one is longer than count / 2. */
IQ_FN bool iq_payload_sort(const iq_payload_keys *keys, size_t count, uint8_t *table, uint8_t *spare) {
    bool ascending = true;
    for (size_t i = 0; i < count; i++) {
        iq_put_u32(table + 4 * i, (uint32_t)i);
        if (ascending && i > 0)
            ascending = strcmp(iq_payload_key(keys, (uint32_t)i - 1), iq_payload_key(keys, (uint32_t)i)) < 0;
    }
    if (ascending) return true;
    unsigned level = 0;
    while ((uint64_t)1 << level < count) level++;
    for (; level > 0; level--) {
        for (uint64_t run = 0; run < (uint64_t)1 << level; run += 2) {
            const size_t first = (size_t)(run * count >> level);
            const size_t middle = (size_t)((run + 1) * count >> level);
            const size_t end = (size_t)((run + 2) * count >> level);
            if (!iq_payload_merge_runs(keys, table + 4 * first, middle - first, end - first, spare)) return false;
        }
    }
    return true;
}

static bool iq_payload_sort_fields(const iqdb_field *fields, size_t count, uint8_t *table, uint8_t *spare) {
    const iq_payload_keys keys = {fields, NULL, NULL};
    return iq_payload_sort(&keys, count, table, spare);
}

static void iq_payload_write_bytes(iq_payload_walk *walk, uint8_t *out, const void *bytes, size_t size) {
    if (size > 0) memcpy(out + walk->size, bytes, size);
    walk->size += size;
}

static void iq_payload_write_text(iq_payload_walk *walk, uint8_t *out, const char *text, size_t size) {
    iq_payload_write_bytes(walk, out, text, size);
    out[walk->size++] = 0;
}

/* Writes a measured value behind its type byte, of a built container the table; its items follow from its frame. */
static bool iq_payload_write_value(iq_payload_walk *walk, const iqdb_value *value, uint8_t *out) {
    if (!iq_value_is_container(value)) {
        walk->size += iq_value_write(value, out + walk->size);
        return true;
    }
    const iq_value_parts parts = iq_value_parts_of(value);
    if (parts.encoded != NULL) {
        iq_payload_write_bytes(walk, out, parts.encoded, parts.size);
        return true;
    }
    uint8_t *table = out + walk->size + 4, *spare = table + 4 * parts.count;
    iq_put_u32(table - 4, (uint32_t)parts.count);
    /* Each item to come takes two bytes at least, NUL and type: so much the sorting may borrow behind the table. */
    if (parts.is_object && !iq_payload_sort_fields((const iqdb_field *)parts.items, parts.count, table, spare))
        return false;
    if (parts.count > 0) iq_payload_walk_push(walk, &parts);
    walk->size += 4 + 4 * parts.count;
    return true;
}

/* Writes a measured value behind its type byte to out + walk->size; false where a key stands twice. */
static bool iq_payload_write(iq_payload_walk *walk, const iqdb_value *value, uint8_t *out) {
    for (;;) {
        if (!iq_payload_write_value(walk, value, out)) return false;
        iq_payload_frame *frame = iq_payload_walk_top(walk);
        if (frame == NULL) return true;
        uint8_t *entry = out + frame->start + 4 + 4 * (size_t)frame->next;
        const size_t offset = walk->size - frame->start;
        if (frame->is_object) {
            const iqdb_field *field = (const iqdb_field *)frame->items + iq_get_u32(entry);
            iq_payload_write_text(walk, out, field->key, strlen(field->key));
            value = &field->value;
        } else {
            value = (const iqdb_value *)frame->items + frame->next;
        }
        iq_put_u32(entry, (uint32_t)offset);
        out[walk->size++] = (uint8_t)value->type;
        frame->next++;
    }
}

IQ_FN iqdb_result iq_payload_encode(const iqdb_field *fields, size_t count, iq_blob *out) {
    const iqdb_value root = iqdb_object(fields, count);
    iq_payload_walk walk;
    iq_payload_walk_begin(&walk, 0, NULL);
    iqdb_result result = iq_payload_measure(&walk, &root);
    if (result == IQDB_OK) result = iq_blob_reserve(out, walk.size);
    if (result != IQDB_OK) return result;
    iq_payload_walk_begin(&walk, 0, NULL);
    if (!iq_payload_write(&walk, &root, out->bytes + out->size)) return IQDB_ERR_INVALID_PAYLOAD;
    out->size += walk.size;
    return IQDB_OK;
}

/* ---- Merging ---- */

/* Adds what the changes take in the result to walk->size; subtracts the items they replace from *base_size. */
static iqdb_result iq_payload_measure_changes(iq_payload_walk *walk, const iq_container *base,
                                              const iqdb_field *changes, size_t count, int64_t *base_size,
                                              int64_t *out_count) {
    for (size_t i = 0; i < count; i++) {
        const iqdb_field *change = &changes[i];
        const size_t key_size = change->key == NULL ? 0 : strlen(change->key);
        const size_t size_before = walk->size;
        iqdb_result result = iq_payload_measure_text(walk, change->key, key_size);
        if (result != IQDB_OK) return result;
        const uint8_t *item;
        size_t index, item_size = 0;
        if (iq_container_find(base, change->key, key_size, &index)) {
            iq_container_item(base, index, &item, &item_size); /* it is there: it has been found */
            *base_size -= (int64_t)item_size + 4;
            --*out_count;
        }
        if (change->value.type == IQDB_TYPE_ABSENT) {
            walk->size = size_before;
            continue;
        }
        result = iq_payload_charge(walk, 4 + 1);
        if (result == IQDB_OK) result = iq_payload_measure(walk, &change->value);
        if (result != IQDB_OK) return result;
        ++*out_count;
    }
    return IQDB_OK;
}

/* Writes the result: base and changes[order[0]], changes[order[1]] ... are both in the order of keys. */
static bool iq_payload_write_merged(iq_payload_walk *walk, const iq_container *base, const iqdb_field *changes,
                                    size_t count, const uint8_t *order, size_t out_count, uint8_t *out) {
    const uint8_t *item = NULL;
    size_t i = 0, j = 0, written = 0, item_size = 0;
    iq_put_u32(out, (uint32_t)out_count);
    walk->size = 4 + 4 * out_count;
    while (i < base->count || j < count) {
        const iqdb_field *change = j < count ? &changes[iq_get_u32(order + 4 * j)] : NULL;
        /* The base is valid: each item is there, and its key ends in it. */
        int compared = 1;
        if (iq_container_item(base, i, &item, &item_size))
            compared = change == NULL ? -1 : strcmp((const char *)item, change->key);
        if (compared <= 0) i++;
        if (compared >= 0) j++;
        if (compared >= 0 && change->value.type == IQDB_TYPE_ABSENT) continue;
        iq_put_u32(out + 4 + 4 * written++, (uint32_t)walk->size);
        if (compared < 0) {
            iq_payload_write_bytes(walk, out, item, item_size);
            continue;
        }
        iq_payload_write_text(walk, out, change->key, strlen(change->key));
        out[walk->size++] = (uint8_t)change->value.type;
        if (!iq_payload_write(walk, &change->value, out)) return false;
    }
    return true;
}

IQDB_API iqdb_result iqdb_payload_with(iqdb_payload payload, const iqdb_field *changes, size_t count,
                                       iqdb_buffer *buffer, iqdb_payload *out_payload) {
    static const uint8_t empty[4] = {0, 0, 0, 0};
    if (buffer == NULL || out_payload == NULL || (changes == NULL && count > 0)) return IQDB_ERR_INVALID_ARGUMENT;
    const void *base_bytes = payload.bytes == NULL ? (const void *)empty : payload.bytes;
    const size_t size = payload.bytes == NULL ? sizeof empty : payload.size;
    if (iq_buffer_overlaps(buffer, base_bytes, size)) return IQDB_ERR_INVALID_ARGUMENT;
    buffer->used = buffer->needed = 0; /* a LIMIT that no capacity helps against leaves needed at 0 */
    if (count > IQDB_PAYLOAD_SIZE_MAX / 4) return IQDB_ERR_LIMIT;
    if (iq_buffer_overlaps(buffer, changes, count * sizeof *changes)) return IQDB_ERR_INVALID_ARGUMENT;
    iq_container base;
    if (!iq_container_open(base_bytes, size, true, &base)) return IQDB_ERR_INVALID_PAYLOAD;
    iqdb_result result = iq_payload_validate(base_bytes, size);
    if (result != IQDB_OK) return result;

    iq_payload_walk walk;
    iq_payload_walk_begin(&walk, 1, buffer);
    int64_t out_size = (int64_t)size, out_count = (int64_t)base.count;
    result = iq_payload_measure_changes(&walk, &base, changes, count, &out_size, &out_count);
    if (result != IQDB_OK) return result;
    out_size += (int64_t)walk.size;
    if (out_size > (int64_t)IQDB_PAYLOAD_SIZE_MAX) return IQDB_ERR_LIMIT;
    /* A key that stands twice has been counted twice, perhaps below nothing. It is found by sorting, before the size
     * is relied on. The order of the changes, and room to sort them, stand behind the result until it is written. */
    if (out_size < 0) out_size = 0;
    const size_t order_size = 4 * count + 4 * (count / 2);
    uint8_t *out;
    result = iq_buffer_start(buffer, (size_t)out_size + order_size, &out);
    if (result != IQDB_OK) return result;
    uint8_t *order = out + (size_t)out_size;
    iq_payload_walk_begin(&walk, 1, NULL);
    if (!iq_payload_sort_fields(changes, count, order, order + 4 * count) ||
        !iq_payload_write_merged(&walk, &base, changes, count, order, (size_t)out_count, out)) {
        buffer->used = 0;
        return IQDB_ERR_INVALID_PAYLOAD;
    }
    IQ_ASSERT(walk.size == (size_t)out_size);
    buffer->used -= order_size;
    out_payload->bytes = out;
    out_payload->size = walk.size;
    return IQDB_OK;
}

/* ======== [codec/json.c] ======== */
/* Payloads as JSON (RFC 8259) and back; the manual says what stands for what JSON has no word for.
 *
 * 1. Two passes in both directions, of the same code: the first only counts, so the second writes into memory that is
 *    known to suffice, and a fixed buffer learns at once what it lacks.
 * 2. No recursion: open containers stand on a stack of IQDB_PAYLOAD_DEPTH_MAX frames, which is also the depth limit.
 * 3. Reading keeps the items of open containers one behind another, as they come, and remembers where each starts. A
 *    container that closes is put together beside them, its items in the order of keys, and goes back to their place as
 *    one value. Each byte moves at most twice for each container around it.
 * 4. What is written reads as the same bytes: numbers by number.h, keys in order, and an object that looks like one of
 *    ours for bytes or floats gets one more $ in its key. */

#if !defined(IQDB_NO_TEXT)

/* ---- Objects that stand for values ----
 * {"$bytes": text} and {"$float": text}; with more than one $ they stand for themselves, with one $ less. */

typedef enum iq_json_marker {
    IQ_JSON_PLAIN = 0,
    IQ_JSON_BYTES = 1,
    IQ_JSON_FLOAT = 2,
    IQ_JSON_ESCAPED = 3
} iq_json_marker;

static iq_json_marker iq_json_marker_of(const char *key, size_t size) {
    size_t dollars = 0;
    while (dollars < size && key[dollars] == '$') dollars++;
    if (dollars == 0 || size - dollars != 5) return IQ_JSON_PLAIN;
    const bool is_bytes = memcmp(key + dollars, "bytes", 5) == 0;
    if (!is_bytes && memcmp(key + dollars, "float", 5) != 0) return IQ_JSON_PLAIN;
    return dollars > 1 ? IQ_JSON_ESCAPED : is_bytes ? IQ_JSON_BYTES : IQ_JSON_FLOAT;
}

#define IQ_F64_INFINITY UINT64_C(0x7FF0000000000000)
#define IQ_F64_NAN UINT64_C(0x7FF8000000000000)
#define IQ_F64_SIGN UINT64_C(0x8000000000000000)

/* The number of `count` hexadecimal digits. */
static bool iq_hex_read(const char *text, size_t count, uint64_t *out) {
    *out = 0;
    for (size_t i = 0; i < count; i++) {
        const int digit = iq_hex_digit(text[i]);
        if (digit < 0) return false;
        *out = *out << 4 | (uint64_t)digit;
    }
    return true;
}

/* ---- Writing ---- */

typedef struct iq_json_sink {
    char *text; /* NULL: count only */
    size_t size;
} iq_json_sink;

static void iq_json_put(iq_json_sink *sink, const char *text, size_t size) {
    if (sink->text != NULL && size > 0) memcpy(sink->text + sink->size, text, size);
    sink->size += size;
}

static void iq_json_put_hex(iq_json_sink *sink, const uint8_t *bytes, size_t size) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size; i++) {
        const char pair[2] = {digits[bytes[i] >> 4], digits[bytes[i] & 15]};
        iq_json_put(sink, pair, 2);
    }
}

static void iq_json_put_string(iq_json_sink *sink, const char *text, size_t size) {
    static const char names[] = "btn?fr"; /* of U+0008 to U+000D; U+000B has none */
    size_t from = 0;
    iq_json_put(sink, "\"", 1);
    for (size_t i = 0; i < size; i++) {
        const uint8_t c = (uint8_t)text[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        iq_json_put(sink, text + from, i - from);
        from = i + 1;
        if (c < 0x20 && (c < 8 || c > 13 || c == 11)) {
            iq_json_put(sink, "\\u00", 4);
            iq_json_put_hex(sink, &c, 1);
        } else {
            const char pair[2] = {'\\', c < 0x20 ? names[c - 8] : (char)c};
            iq_json_put(sink, pair, 2);
        }
    }
    iq_json_put(sink, text + from, size - from);
    iq_json_put(sink, "\"", 1);
}

static void iq_json_put_special(iq_json_sink *sink, uint64_t bits) {
    iq_json_put(sink, "{\"$float\":\"", 11);
    if ((bits & ~IQ_F64_SIGN) == IQ_F64_INFINITY) {
        if (bits >> 63 != 0) iq_json_put(sink, "-", 1);
        iq_json_put(sink, "infinity", 8);
    } else if (bits == IQ_F64_NAN) {
        iq_json_put(sink, "nan", 3);
    } else {
        uint8_t bytes[8];
        for (unsigned i = 0; i < 8; i++) bytes[i] = (uint8_t)(bits >> (56 - 8 * i));
        iq_json_put_hex(sink, bytes, 8);
    }
    iq_json_put(sink, "\"}", 2);
}

/* Any value but a container. */
static void iq_json_put_scalar(iq_json_sink *sink, const iqdb_value *value) {
    char number[IQ_NUMBER_SIZE_MAX];
    uint64_t bits;
    switch ((unsigned)value->type) {
    case IQDB_TYPE_NULL:
        iq_json_put(sink, "null", 4);
        break;
    case IQDB_TYPE_BOOL:
        iq_json_put(sink, value->as.boolean ? "true" : "false", value->as.boolean ? 4 : 5);
        break;
    case IQDB_TYPE_INT:
        iq_json_put(sink, number, iq_number_write_int(value->as.integer, number));
        break;
    case IQDB_TYPE_FLOAT:
        memcpy(&bits, &value->as.real, 8);
        if ((bits & IQ_F64_INFINITY) == IQ_F64_INFINITY)
            iq_json_put_special(sink, bits);
        else
            iq_json_put(sink, number, iq_number_write_float(value->as.real, number));
        break;
    case IQDB_TYPE_TEXT:
        iq_json_put_string(sink, value->as.text.data, value->as.text.size);
        break;
    default: /* BYTES */
        iq_json_put(sink, "{\"$bytes\":\"", 11);
        iq_json_put_hex(sink, (const uint8_t *)value->as.bytes.data, value->as.bytes.size);
        iq_json_put(sink, "\"}", 2);
        break;
    }
}

typedef struct iq_json_open {
    iq_container container;
    uint32_t next;
} iq_json_open;

/* A container of a valid payload; of other bytes an empty one. */
static void iq_json_enter(iq_json_open *open, const void *bytes, size_t size, bool is_object) {
    memset(open, 0, sizeof *open);
    if (!iq_container_open(bytes, size, is_object, &open->container)) open->container.count = 0;
}

/* Writes item `next` of the container, and its value unless that is a container, which goes to *out_value. */
static bool iq_json_put_item(iq_json_sink *sink, iq_json_open *top, bool is_root, iqdb_value *out_value) {
    iqdb_field field = {"", iqdb_null()};
    size_t size = 0;
    if (top->next > 0) iq_json_put(sink, ",", 1);
    iq_container_field(&top->container, top->next++, &field, &size);
    if (top->container.is_object) {
        const bool is_alone = !is_root && top->container.count == 1 && field.value.type == IQDB_TYPE_TEXT;
        const bool is_marked = is_alone && iq_json_marker_of(field.key, size) != IQ_JSON_PLAIN;
        if (is_marked) {
            iq_json_put(sink, "\"$", 2);
            iq_json_put(sink, field.key, size); /* dollars and letters */
            iq_json_put(sink, "\"", 1);
        } else {
            iq_json_put_string(sink, field.key, size);
        }
        iq_json_put(sink, ":", 1);
    }
    *out_value = field.value;
    if (iq_value_is_container(out_value)) return false;
    iq_json_put_scalar(sink, out_value);
    return true;
}

/* Writes a valid payload, or that there is none. */
static void iq_json_put_payload(iq_json_sink *sink, iqdb_payload payload) {
    iq_json_open open[IQDB_PAYLOAD_DEPTH_MAX];
    size_t depth = 1;
    if (payload.bytes == NULL) {
        iq_json_put(sink, "null", 4);
        return;
    }
    iq_json_enter(&open[0], payload.bytes, payload.size, true);
    iq_json_put(sink, "{", 1);
    while (depth > 0) {
        iq_json_open *top = &open[depth - 1];
        iqdb_value value;
        if (top->next == top->container.count) {
            iq_json_put(sink, top->container.is_object ? "}" : "]", 1);
            depth--;
            continue;
        }
        if (iq_json_put_item(sink, top, depth == 1, &value)) continue;
        const iq_value_parts inner = iq_value_parts_of(&value);
        iq_json_enter(&open[depth++], inner.encoded, inner.size, inner.is_object);
        iq_json_put(sink, inner.is_object ? "{" : "[", 1);
    }
}

IQDB_API iqdb_result iqdb_payload_to_json(iqdb_payload payload, iqdb_buffer *buffer, const char **out_json,
                                          size_t *out_size) {
    if (buffer == NULL || out_json == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (iq_buffer_overlaps(buffer, payload.bytes, payload.size)) return IQDB_ERR_INVALID_ARGUMENT;
    buffer->used = buffer->needed = 0;
    iqdb_result result = payload.bytes == NULL ? IQDB_OK : iq_payload_validate(payload.bytes, payload.size);
    if (result != IQDB_OK) return result;
    iq_json_sink sink = {NULL, 0};
    iq_json_put_payload(&sink, payload);
    uint8_t *bytes;
    result = iq_buffer_start(buffer, sink.size + 1, &bytes);
    if (result != IQDB_OK) return result;
    sink.text = (char *)bytes;
    sink.size = 0;
    iq_json_put_payload(&sink, payload);
    sink.text[sink.size] = 0;
    *out_json = sink.text;
    if (out_size != NULL) *out_size = sink.size;
    return IQDB_OK;
}

/* ---- Reading ---- */

typedef struct iq_json_frame {
    uint32_t start; /* of the container's items in `items` */
    uint32_t first; /* of its items in `starts` */
    uint32_t count;
    bool is_object;
} iq_json_frame;

typedef struct iq_json {
    const char *text;
    size_t size;
    size_t at; /* what comes next; after a failure where it is */
    iqdb_result result;
    const char *why;
    uint8_t *items;   /* NULL: measuring */
    size_t used;      /* bytes of `items` */
    uint32_t *starts; /* of the items of open containers, from where their container's begin */
    size_t pending;   /* of these */
    size_t pending_max;
    uint8_t *built; /* room for one container */
    size_t depth;
    iq_json_frame frames[IQDB_PAYLOAD_DEPTH_MAX];
} iq_json;

static bool iq_json_fail(iq_json *json, size_t at, const char *why) {
    json->at = at;
    json->why = why;
    json->result = IQDB_ERR_INVALID_PAYLOAD;
    return false;
}

/* What stands for bytes or a float is measured as the object that it looks like, at most five times as large. */
#define IQ_JSON_SIZE_MAX ((size_t)IQDB_PAYLOAD_SIZE_MAX * 8)

/* Room for `size` bytes of the encoding. */
static bool iq_json_take(iq_json *json, size_t size, uint8_t **out) {
    *out = json->items == NULL ? NULL : json->items + json->used;
    if (size > IQ_JSON_SIZE_MAX - json->used) {
        json->why = "the payload would be larger than IQDB_PAYLOAD_SIZE_MAX";
        json->result = IQDB_ERR_LIMIT;
        return false;
    }
    json->used += size;
    return true;
}

static bool iq_json_put_type(iq_json *json, iqdb_type type) {
    uint8_t *out;
    if (!iq_json_take(json, 1, &out)) return false;
    if (out != NULL) *out = (uint8_t)type;
    return true;
}

static void iq_json_skip_space(iq_json *json) {
    while (json->at < json->size) {
        const char c = json->text[json->at];
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r') break;
        json->at++;
    }
}

/* 0 at the end, where it is no byte of any word of JSON. */
static char iq_json_peek(const iq_json *json) {
    return json->at < json->size ? json->text[json->at] : 0;
}

static size_t iq_utf8_write(uint32_t code, char *out) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    const size_t size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = size; i-- > 1; code >>= 6) out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)((size == 2 ? 0xC0 : size == 3 ? 0xE0 : 0xF0) | code);
    return size;
}

/* The character of an escape that begins at text[*at], which moves behind it. */
static const char *iq_json_read_escape(const char *text, size_t size, size_t *at, uint32_t *out_code) {
    static const char names[] = "\"\\/bfnrt", codes[] = "\"\\/\b\f\n\r\t";
    uint64_t code, low;
    if (size - *at < 2) return "the text ends within a string";
    const char name = text[*at + 1];
    if (name != 'u') {
        const char *found = name == 0 ? NULL : strchr(names, name);
        if (found == NULL) return "there is no such escape";
        *out_code = (uint8_t)codes[found - names];
        *at += 2;
        return NULL;
    }
    if (size - *at < 6 || !iq_hex_read(text + *at + 2, 4, &code)) return "\\u wants four hexadecimal digits";
    if (code >= 0xD800 && code <= 0xDFFF) {
        const char *second = text + *at + 6;
        const bool is_pair = code < 0xDC00 && size - *at >= 12 && second[0] == '\\' && second[1] == 'u' &&
                             iq_hex_read(second + 2, 4, &low) && low >= 0xDC00 && low <= 0xDFFF;
        if (!is_pair) return "half of a surrogate pair is no character";
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        *at += 6;
    }
    *out_code = (uint32_t)code;
    *at += 6;
    return NULL;
}

/* Reads the string at json->at, which moves behind it. Its characters go to `out`, unless that is NULL. */
static bool iq_json_read_string(iq_json *json, char *out, size_t *out_size) {
    const char *text = json->text;
    const size_t begin = json->at + 1;
    size_t at = begin, size = 0;
    while (at < json->size && text[at] != '"') {
        uint32_t code;
        char encoded[4];
        if ((uint8_t)text[at] < 0x20) return iq_json_fail(json, at, "a control character in a string must be escaped");
        if (text[at] != '\\') {
            if (out != NULL) out[size] = text[at];
            size++;
            at++;
            continue;
        }
        const char *why = iq_json_read_escape(text, json->size, &at, &code);
        if (why != NULL) return iq_json_fail(json, at, why);
        const size_t count = iq_utf8_write(code, encoded);
        if (out != NULL) memcpy(out + size, encoded, count);
        size += count;
    }
    if (at >= json->size) return iq_json_fail(json, begin - 1, "the string has no end");
    /* Escapes are ASCII, so they neither complete a character nor hide that one is incomplete. */
    if (out == NULL && !iq_utf8_is_valid(text + begin, at - begin))
        return iq_json_fail(json, begin - 1, "the string is not UTF-8");
    *out_size = size;
    json->at = at + 1;
    return true;
}

/* A string with its NUL, as the encoding has keys and texts. */
static bool iq_json_take_string(iq_json *json, bool is_key) {
    const size_t begin = json->at;
    const bool measuring = json->items == NULL;
    char *out = measuring ? NULL : (char *)json->items + json->used;
    uint8_t *room;
    size_t size;
    if (iq_json_peek(json) != '"') return iq_json_fail(json, begin, "a key in quotes is expected");
    if (!iq_json_read_string(json, out, &size)) return false;
    if (!iq_json_take(json, size, &room) || !iq_json_take(json, 1, &room)) return false;
    if (measuring) return true;
    out[size] = 0;
    if (is_key && strlen(out) != size) return iq_json_fail(json, begin, "a key cannot hold U+0000");
    return true;
}

static bool iq_json_is_word(const iq_json *json, const char *word, size_t size) {
    return json->size - json->at >= size && memcmp(json->text + json->at, word, size) == 0;
}

/* Any value but a container. */
static bool iq_json_take_scalar(iq_json *json) {
    iqdb_value value = iqdb_null();
    uint8_t *out;
    size_t size = 4;
    if (iq_json_peek(json) == '"') return iq_json_put_type(json, IQDB_TYPE_TEXT) && iq_json_take_string(json, false);
    if (iq_json_is_word(json, "true", 4)) {
        value = iqdb_bool(true);
    } else if (iq_json_is_word(json, "false", 5)) {
        value = iqdb_bool(false);
        size = 5;
    } else if (!iq_json_is_word(json, "null", 4)) {
        size = iq_number_read(json->text + json->at, json->size - json->at, &value);
        if (size == 0) return iq_json_fail(json, json->at, "a value is expected");
        if (value.type == IQDB_TYPE_ABSENT) return iq_json_fail(json, json->at, "the number is too large");
    }
    json->at += size;
    if (!iq_json_put_type(json, value.type) || !iq_json_take(json, iq_value_write(&value, NULL), &out)) return false;
    if (out != NULL) (void)iq_value_write(&value, out);
    return true;
}

/* ---- Containers, read ---- */

static bool iq_json_read_special(const char *text, size_t size, uint64_t *out_bits) {
    const size_t sign = size > 0 && text[0] == '-';
    *out_bits = IQ_F64_NAN;
    if (size == 3 && memcmp(text, "nan", 3) == 0) return true;
    *out_bits = IQ_F64_INFINITY | (uint64_t)sign << 63;
    if (size - sign == 8 && memcmp(text + sign, "infinity", 8) == 0) return true;
    return size == 16 && iq_hex_read(text, 16, out_bits) && (*out_bits & ~IQ_F64_SIGN) > IQ_F64_INFINITY;
}

/* An object of one field with a marker's key and a text becomes what it stands for: *out_done. Its item is at `item`,
 * and the type of the object before it. */
static bool iq_json_unmark(iq_json *json, uint8_t *item, bool *out_done) {
    const size_t key_size = strlen((const char *)item);
    const iq_json_marker marker = iq_json_marker_of((const char *)item, key_size);
    *out_done = false;
    if (marker == IQ_JSON_PLAIN || item[key_size + 1] != IQDB_TYPE_TEXT) return true;
    if (marker == IQ_JSON_ESCAPED) {
        json->used--;
        memmove(item, item + 1, json->used - (size_t)(item - json->items));
        return true;
    }
    const char *text = (const char *)item + key_size + 2;
    const size_t text_size = json->used - (size_t)((const uint8_t *)text - json->items) - 1;
    uint64_t bits;
    size_t size = 8;
    if (marker == IQ_JSON_FLOAT) {
        if (!iq_json_read_special(text, text_size, &bits))
            return iq_json_fail(json, json->at, "$float wants nan, infinity, -infinity or the 16 digits of a NaN");
        iq_put_u64(item, bits);
    } else {
        bool is_hex = text_size % 2 == 0;
        for (size = 0; is_hex && size < text_size / 2; size++) {
            is_hex = iq_hex_read(text + 2 * size, 2, &bits);
            item[size] = (uint8_t)bits; /* before the digits that are still to be read */
        }
        if (!is_hex) return iq_json_fail(json, json->at, "$bytes wants pairs of hexadecimal digits");
    }
    item[-1] = (uint8_t)(marker == IQ_JSON_FLOAT ? IQDB_TYPE_FLOAT : IQDB_TYPE_BYTES);
    json->used = (size_t)(item - json->items) + size;
    *out_done = true;
    return true;
}

/* Puts the container of `frame` together in json->built. */
static bool iq_json_build(iq_json *json, const iq_json_frame *frame, size_t *out_size) {
    const uint32_t count = frame->count, end = (uint32_t)json->used - frame->start;
    uint8_t *table = json->built + 4;
    const iq_payload_keys keys = {NULL, json->items + frame->start, json->starts + frame->first};
    iq_put_u32(json->built, count);
    /* Each item takes two bytes at least: so much the sorting may borrow behind the table. */
    if (!frame->is_object)
        for (uint32_t i = 0; i < count; i++) iq_put_u32(table + 4 * (size_t)i, i);
    else if (!iq_payload_sort(&keys, count, table, table + 4 * (size_t)count))
        return iq_json_fail(json, json->at, "a key stands twice in the object that ends here");
    size_t size = 4 + 4 * (size_t)count;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t which = iq_get_u32(table + 4 * (size_t)i);
        const uint32_t start = keys.starts[which], stop = which + 1 < count ? keys.starts[which + 1] : end;
        memcpy(json->built + size, keys.items + start, stop - start);
        iq_put_u32(table + 4 * (size_t)i, (uint32_t)size);
        size += stop - start;
    }
    *out_size = size;
    return true;
}

/* The innermost container ends at json->at, where its bracket stands. The outermost one stays in json->built. */
static bool iq_json_close(iq_json *json) {
    const iq_json_frame *frame = &json->frames[json->depth - 1];
    bool done = json->items == NULL;
    size_t size;
    uint8_t *room;
    if (done && !iq_json_take(json, 4 + 4 * (size_t)frame->count, &room)) return false;
    if (!done && json->depth > 1 && frame->is_object && frame->count == 1)
        if (!iq_json_unmark(json, json->items + frame->start, &done)) return false;
    if (!done) {
        if (!iq_json_build(json, frame, &size)) return false;
        if (json->depth > 1) memcpy(json->items + frame->start, json->built, size);
        json->used = frame->start + size;
    }
    json->pending = frame->first;
    json->depth--;
    json->at++;
    return true;
}

static bool iq_json_open_container(iq_json *json) {
    if (json->depth == IQDB_PAYLOAD_DEPTH_MAX)
        return iq_json_fail(json, json->at, "arrays and objects are nested deeper than IQDB_PAYLOAD_DEPTH_MAX");
    const bool is_object = json->text[json->at] == '{';
    if (json->depth > 0 && !iq_json_put_type(json, is_object ? IQDB_TYPE_OBJECT : IQDB_TYPE_ARRAY)) return false;
    iq_json_frame *frame = &json->frames[json->depth++];
    frame->start = (uint32_t)json->used;
    frame->first = (uint32_t)json->pending;
    frame->count = 0;
    frame->is_object = is_object;
    json->at++;
    return true;
}

/* A new item of the innermost container, up to its value. */
static bool iq_json_begin_item(iq_json *json) {
    iq_json_frame *frame = &json->frames[json->depth - 1];
    if (json->items != NULL) json->starts[json->pending] = (uint32_t)json->used - frame->start;
    json->pending++;
    if (json->pending > json->pending_max) json->pending_max = json->pending;
    frame->count++;
    if (!frame->is_object) return true;
    if (!iq_json_take_string(json, true)) return false;
    iq_json_skip_space(json);
    if (iq_json_peek(json) != ':') return iq_json_fail(json, json->at, "a colon is expected");
    json->at++;
    iq_json_skip_space(json);
    return true;
}

/* The object at json->at, and that nothing follows it. */
static bool iq_json_read_document(iq_json *json) {
    if (!iq_json_open_container(json)) return false;
    while (json->depth > 0) {
        const iq_json_frame *top = &json->frames[json->depth - 1];
        iq_json_skip_space(json);
        if (iq_json_peek(json) == (top->is_object ? '}' : ']')) {
            if (!iq_json_close(json)) return false;
            continue;
        }
        if (top->count > 0) {
            if (iq_json_peek(json) != ',')
                return iq_json_fail(json, json->at, "a comma is expected, or the end of the array or object");
            json->at++;
            iq_json_skip_space(json);
        }
        if (!iq_json_begin_item(json)) return false;
        const char c = iq_json_peek(json);
        if (!(c == '{' || c == '[' ? iq_json_open_container(json) : iq_json_take_scalar(json))) return false;
    }
    iq_json_skip_space(json);
    return json->at == json->size || iq_json_fail(json, json->at, "something follows the end");
}

/* The whole text with memory of these sizes, or without any. */
static bool iq_json_run(iq_json *json, uint8_t *memory, size_t size, size_t starts_at) {
    const size_t begin = json->at;
    json->built = memory;
    json->items = memory == NULL ? NULL : memory + size;
    json->starts = memory == NULL ? NULL : (uint32_t *)(void *)(memory + starts_at);
    json->used = json->pending = json->depth = 0;
    json->result = IQDB_OK;
    const bool ok = iq_json_read_document(json);
    if (ok) json->at = begin;
    return ok;
}

static iqdb_result iq_json_parse(iq_json *json, iqdb_buffer *buffer, iqdb_payload *out_payload) {
    iq_json_skip_space(json);
    if (iq_json_is_word(json, "null", 4)) {
        json->at += 4;
        iq_json_skip_space(json);
        if (json->at < json->size) return iq_json_fail(json, json->at, "something follows the end"), json->result;
        out_payload->bytes = NULL;
        out_payload->size = 0;
        return IQDB_OK;
    }
    if (iq_json_peek(json) != '{') return iq_json_fail(json, json->at, "a payload is an object, or null"), json->result;
    if (!iq_json_run(json, NULL, 0, 0)) return json->result;
    const size_t size = json->used, starts_at = iq_round_up(2 * size, 4);
    const size_t total = starts_at + 4 * json->pending_max;
    uint8_t *memory;
    json->why = "the buffer cannot be as large as it would have to be";
    const iqdb_result result = iq_buffer_start(buffer, total, &memory);
    if (result != IQDB_OK) return result;
    const bool ok = iq_json_run(json, memory, size, starts_at);
    const bool fits = ok && json->used <= IQDB_PAYLOAD_SIZE_MAX;
    json->why = ok ? "the payload would be larger than IQDB_PAYLOAD_SIZE_MAX" : json->why;
    if (!fits) buffer->used = 0;
    if (!fits) return ok ? IQDB_ERR_LIMIT : json->result;
    buffer->used -= total - json->used;
    out_payload->bytes = memory;
    out_payload->size = json->used;
    return IQDB_OK;
}

IQDB_API iqdb_result iqdb_payload_parse(const char *json, size_t size, iqdb_buffer *buffer, iqdb_payload *out_payload,
                                        iqdb_error *out_error) {
    iq_json parser;
    if (buffer == NULL || out_payload == NULL || (json == NULL && size > 0)) return IQDB_ERR_INVALID_ARGUMENT;
    if (iq_buffer_overlaps(buffer, json, size)) return IQDB_ERR_INVALID_ARGUMENT;
    memset(&parser, 0, sizeof parser);
    parser.text = json;
    parser.size = size;
    buffer->used = buffer->needed = 0;
    const iqdb_result result = iq_json_parse(&parser, buffer, out_payload);
    if (result != IQDB_OK && out_error != NULL) *out_error = iq_error_make(result, NULL, parser.at, parser.why);
    return result;
}

IQDB_API iqdb_result iqdb_payload_from_json(const char *json, size_t size, iqdb_buffer *buffer,
                                            iqdb_payload *out_payload) {
    return iqdb_payload_parse(json, size, buffer, out_payload, NULL);
}

#endif

/* ======== [codec/record.h] ======== */
/* The body of a logged record. persist/ carries it as opaque bytes.
 *   0  u8   type: 1 upsert, 2 delete
 *   1  u8   upsert: element type of the vector (0 = f32); delete: 0
 *   2  u8   upsert: 1 when a payload follows, else 0; delete: 0
 *   3  u8   0
 *   4  u32  collection, 0 = the default one
 *   8  u64  id
 *  16  u32  upsert: dim, 1 to IQDB_DIM_MAX; delete: 0
 *  20  u32  upsert: bytes of the payload, 0 without one; delete: 0
 *  24  dim x f32, then the payload; then zeros to the end (the log pads) */

#define IQ_RECORD_HEAD_SIZE 24
#define IQ_RECORD_UPSERT 1u
#define IQ_RECORD_DELETE 2u

typedef struct iq_logged_record {
    uint8_t type;
    uint32_t collection;
    uint64_t id;
    uint32_t dim;
    const uint8_t *vector; /* dim little-endian f32, at any alignment; NULL for a delete */
    bool has_payload;
    const uint8_t *payload; /* NULL where there is none */
    uint32_t payload_size;
} iq_logged_record;

/* The first IQ_RECORD_HEAD_SIZE bytes; vector and payload follow as they are (words little-endian). Of a delete only
 * collection and id are looked at, and payload_size only where has_payload. */
IQ_FN void iq_record_encode_head(const iq_logged_record *record, uint8_t *out);

/* Pointers of *out lie in `bytes`. CORRUPT on anything that encode would not have made: lengths, unknown types,
 * vector elements that are not finite, payloads that do not validate, non-zero padding. Any collection passes. */
IQ_FN iqdb_result iq_record_decode(const uint8_t *bytes, size_t size, iq_logged_record *out);

/* ======== [codec/record.c] ======== */
/* Logged records to bytes and back; record.h has the table.
 *
 * 1. Decoding accepts exactly what encoding makes, followed by zeros. A checksum tells rot from bytes that were written;
 *    this tells bytes that we wrote from bytes that somebody else did.
 * 2. No length is used before it is known to fit in what is left: 24 + 4 * dim + payload_size is never computed as a
 *    sum that could wrap. */

IQ_FN void iq_record_encode_head(const iq_logged_record *record, uint8_t *out) {
    const bool upsert = record->type == IQ_RECORD_UPSERT;
    const bool has_payload = upsert && record->has_payload;
    out[0] = record->type;
    out[1] = 0;
    out[2] = has_payload ? 1 : 0;
    out[3] = 0;
    iq_put_u32(out + 4, record->collection);
    iq_put_u64(out + 8, record->id);
    iq_put_u32(out + 16, upsert ? record->dim : 0);
    iq_put_u32(out + 20, has_payload ? record->payload_size : 0);
}

/* An exponent of all ones, and one more, carries into the place of the sign. No branch, so the loop is a wide one. */
static bool iq_record_is_finite(const uint8_t *vector, uint32_t dim) {
    uint32_t carried = 0;
    for (size_t i = 0; i < dim; i++) carried |= (iq_get_u32(vector + 4 * i) & 0x7F800000u) + 0x00800000u;
    return (carried & 0x80000000u) == 0;
}

static bool iq_record_is_zero(const uint8_t *bytes, size_t size) {
    uint8_t any = 0;
    for (size_t i = 0; i < size; i++) any = (uint8_t)(any | bytes[i]);
    return any == 0;
}

IQ_FN iqdb_result iq_record_decode(const uint8_t *bytes, size_t size, iq_logged_record *out) {
    if (size < IQ_RECORD_HEAD_SIZE) return IQDB_ERR_CORRUPT;
    const uint8_t type = bytes[0];
    const uint32_t dim = iq_get_u32(bytes + 16), payload_size = iq_get_u32(bytes + 20);
    memset(out, 0, sizeof *out);
    out->type = type;
    out->collection = iq_get_u32(bytes + 4);
    out->id = iq_get_u64(bytes + 8);
    const uint8_t *rest = bytes + IQ_RECORD_HEAD_SIZE;
    size_t left = size - IQ_RECORD_HEAD_SIZE;
    if (bytes[1] != 0 || bytes[2] > 1 || bytes[3] != 0) return IQDB_ERR_CORRUPT;
    if (type == IQ_RECORD_UPSERT) {
        if (dim == 0 || dim > IQDB_DIM_MAX || left / 4 < dim) return IQDB_ERR_CORRUPT;
        if (!iq_record_is_finite(rest, dim)) return IQDB_ERR_CORRUPT;
        out->dim = dim;
        out->vector = rest;
        rest += (size_t)dim * 4;
        left -= (size_t)dim * 4;
        out->has_payload = bytes[2] == 1;
        if (!out->has_payload && payload_size != 0) return IQDB_ERR_CORRUPT;
        if (out->has_payload) {
            if (payload_size > left || iq_payload_validate(rest, payload_size) != IQDB_OK) return IQDB_ERR_CORRUPT;
            out->payload = rest;
            out->payload_size = payload_size;
            rest += payload_size;
            left -= payload_size;
        }
    } else if (type != IQ_RECORD_DELETE || bytes[2] != 0 || dim != 0 || payload_size != 0) {
        return IQDB_ERR_CORRUPT;
    }
    return iq_record_is_zero(rest, left) ? IQDB_OK : IQDB_ERR_CORRUPT;
}

/* ======== [codec/value.c] ======== */
/* Values and payloads as a program makes and reads them.
 *
 * 1. Readers take any bytes. They look at one item at a time through iq_container_item and iq_value_decode, which check
 *    bounds and shape; what fails there is absent. So they cost O(1), or O(log n) for a key, on valid and invalid bytes.
 * 2. A value says where it comes from: `encoded` set, or items built by the caller. Of built ones nothing can be
 *    checked but NULL; their fields are in the caller's order, and of equal keys the first counts. */

/* ---- Making values ---- */

static iqdb_value iq_value_make(iqdb_type type) {
    iqdb_value value;
    memset(&value, 0, sizeof value);
    value.type = type;
    return value;
}

IQDB_API iqdb_value iqdb_null(void) {
    return iq_value_make(IQDB_TYPE_NULL);
}

IQDB_API iqdb_value iqdb_bool(bool value) {
    iqdb_value made = iq_value_make(IQDB_TYPE_BOOL);
    made.as.boolean = value;
    return made;
}

IQDB_API iqdb_value iqdb_int(int64_t value) {
    iqdb_value made = iq_value_make(IQDB_TYPE_INT);
    made.as.integer = value;
    return made;
}

IQDB_API iqdb_value iqdb_float(double value) {
    iqdb_value made = iq_value_make(IQDB_TYPE_FLOAT);
    made.as.real = value;
    return made;
}

IQDB_API iqdb_value iqdb_text(const char *zero_terminated) {
    iqdb_value made = iq_value_make(IQDB_TYPE_TEXT);
    made.as.text.data = zero_terminated;
    made.as.text.size = zero_terminated == NULL ? 0 : strlen(zero_terminated);
    return made;
}

IQDB_API iqdb_value iqdb_text_n(const char *data, size_t size) {
    iqdb_value made = iq_value_make(IQDB_TYPE_TEXT);
    made.as.text.data = data == NULL && size == 0 ? "" : data;
    made.as.text.size = size;
    return made;
}

IQDB_API iqdb_value iqdb_bytes(const void *data, size_t size) {
    iqdb_value made = iq_value_make(IQDB_TYPE_BYTES);
    made.as.bytes.data = data;
    made.as.bytes.size = size;
    return made;
}

IQDB_API iqdb_value iqdb_array(const iqdb_value *items, size_t count) {
    iqdb_value made = iq_value_make(IQDB_TYPE_ARRAY);
    made.as.array.items = items;
    made.as.array.count = count;
    return made;
}

IQDB_API iqdb_value iqdb_object(const iqdb_field *fields, size_t count) {
    iqdb_value made = iq_value_make(IQDB_TYPE_OBJECT);
    made.as.object.fields = fields;
    made.as.object.count = count;
    return made;
}

/* ---- Reading values ---- */

/* Item `index` of an array or object, with an empty key in an array. */
static bool iq_value_item(const iqdb_value *value, size_t index, iqdb_field *out_field) {
    iq_container container;
    size_t key_size;
    if (iq_value_is_container(value)) {
        const iq_value_parts parts = iq_value_parts_of(value);
        if (parts.encoded == NULL && parts.items != NULL && index < parts.count) {
            if (parts.is_object) *out_field = ((const iqdb_field *)parts.items)[index];
            if (!parts.is_object) out_field->value = ((const iqdb_value *)parts.items)[index];
            return true;
        }
        if (iq_container_open(parts.encoded, parts.size, parts.is_object, &container) &&
            iq_container_field(&container, index, out_field, &key_size) && out_field->value.type != IQDB_TYPE_ABSENT)
            return true;
    }
    out_field->key = NULL;
    out_field->value = iq_value_make(IQDB_TYPE_ABSENT);
    return false;
}

IQDB_API size_t iqdb_value_count(iqdb_value value) {
    iq_container container;
    if (!iq_value_is_container(&value)) return 0;
    const iq_value_parts parts = iq_value_parts_of(&value);
    if (parts.encoded == NULL) return parts.items == NULL ? 0 : parts.count;
    return iq_container_open(parts.encoded, parts.size, parts.is_object, &container) ? container.count : 0;
}

IQDB_API bool iqdb_value_field(iqdb_value value, size_t index, iqdb_field *out_field) {
    if (out_field == NULL) return false;
    if (value.type != IQDB_TYPE_OBJECT) value.type = IQDB_TYPE_ABSENT;
    return iq_value_item(&value, index, out_field);
}

IQDB_API iqdb_value iqdb_value_at(iqdb_value value, size_t index) {
    iqdb_field field;
    (void)iq_value_item(&value, index, &field);
    return field.value;
}

/* The value of exactly this key of a built object. */
static iqdb_value iq_value_of_key(const iqdb_value *object, const char *key, size_t key_size) {
    const bool built = object->type == IQDB_TYPE_OBJECT && object->as.object.encoded == NULL;
    const iqdb_field *fields = built ? object->as.object.fields : NULL;
    for (size_t i = 0; fields != NULL && i < object->as.object.count; i++)
        if (fields[i].key != NULL && strncmp(fields[i].key, key, key_size) == 0 && fields[i].key[key_size] == 0)
            return fields[i].value;
    return iq_value_make(IQDB_TYPE_ABSENT);
}

IQDB_API iqdb_value iqdb_value_get(iqdb_value value, const char *key) {
    iq_container container;
    while (key != NULL) {
        if (value.type == IQDB_TYPE_OBJECT &&
            iq_container_open(value.as.object.encoded, value.as.object.size, true, &container)) {
            const uint8_t *bytes;
            size_t size;
            if (iq_container_get(&container, key, strlen(key), &bytes, &size)) return iq_value_decode(bytes, size);
            break;
        }
        iqdb_value found = iq_value_of_key(&value, key, strlen(key));
        if (found.type != IQDB_TYPE_ABSENT) return found;
        /* As in iq_container_get: the shortest part before a dot that names an object, and no way back. */
        const char *dot = strchr(key, '.');
        for (; dot != NULL; dot = strchr(dot + 1, '.')) {
            found = iq_value_of_key(&value, key, (size_t)(dot - key));
            if (found.type == IQDB_TYPE_OBJECT) break;
        }
        value = found;
        key = dot == NULL ? NULL : dot + 1;
    }
    return iq_value_make(IQDB_TYPE_ABSENT);
}

/* ---- Reading payloads ---- */

static iqdb_value iq_value_of_payload(iqdb_payload payload) {
    iqdb_value value = iq_value_make(IQDB_TYPE_OBJECT);
    value.as.object.encoded = payload.bytes;
    value.as.object.size = payload.size;
    return value;
}

IQDB_API iqdb_value iqdb_payload_get(iqdb_payload payload, const char *key) {
    return iqdb_value_get(iq_value_of_payload(payload), key);
}

IQDB_API int64_t iqdb_payload_int(iqdb_payload payload, const char *key, int64_t otherwise) {
    const iqdb_value value = iqdb_payload_get(payload, key);
    return value.type == IQDB_TYPE_INT ? value.as.integer : otherwise;
}

IQDB_API double iqdb_payload_float(iqdb_payload payload, const char *key, double otherwise) {
    const iqdb_value value = iqdb_payload_get(payload, key);
    if (value.type == IQDB_TYPE_INT) return (double)value.as.integer;
    return value.type == IQDB_TYPE_FLOAT ? value.as.real : otherwise;
}

IQDB_API bool iqdb_payload_bool(iqdb_payload payload, const char *key, bool otherwise) {
    const iqdb_value value = iqdb_payload_get(payload, key);
    return value.type == IQDB_TYPE_BOOL ? value.as.boolean : otherwise;
}

IQDB_API const char *iqdb_payload_text(iqdb_payload payload, const char *key, size_t *out_size) {
    const iqdb_value value = iqdb_payload_get(payload, key);
    const bool is_text = value.type == IQDB_TYPE_TEXT;
    if (out_size != NULL) *out_size = is_text ? value.as.text.size : 0;
    return is_text ? value.as.text.data : NULL;
}

IQDB_API size_t iqdb_payload_count(iqdb_payload payload) {
    return iqdb_value_count(iq_value_of_payload(payload));
}

IQDB_API bool iqdb_payload_at(iqdb_payload payload, size_t index, iqdb_field *out_field) {
    return iqdb_value_field(iq_value_of_payload(payload), index, out_field);
}

/* ======== [kernel/crc32.h] ======== */
/* CRC-32 (IEEE 802.3: reflected polynomial 0xEDB88320), the one zlib, PNG and Ethernet use. */

/* crc: 0 to start, else the value for the bytes before, as in zlib: crc32(crc32(0, a), b) = crc32(0, ab). */
typedef uint32_t (*iq_crc32_fn)(uint32_t crc, const void *bytes, size_t size);

/* By tables, on every machine: for a page now and then, or where nobody has chosen. */
IQ_FN uint32_t iq_crc32(uint32_t crc, const void *bytes, size_t size);

/* The fastest that `cpu_features` (of iq_cpu_features) allows; all give the same. Who checks much asks once and keeps
 * the answer. Carry-less multiplication is younger than SSE2: a simd_max below AVX2 gets the tables. */
IQ_FN iq_crc32_fn iq_crc32_select(uint32_t cpu_features, iqdb_simd simd_max);

#if IQ_X86
#define IQ_PCLMUL IQ_TARGET("sse2,pclmul")
IQ_FN IQ_PCLMUL uint32_t iq_crc32_pclmul(uint32_t crc, const void *bytes, size_t size);
/* Older compilers may not know the instruction. */
#if defined(__clang__) ? __clang_major__ >= 7 : __GNUC__ >= 10
#define IQ_CRC32_VPCLMUL 1
#define IQ_VPCLMUL IQ_TARGET("avx2,pclmul,vpclmulqdq")
IQ_FN IQ_VPCLMUL uint32_t iq_crc32_vpclmul(uint32_t crc, const void *bytes, size_t size);
#else
#define IQ_CRC32_VPCLMUL 0
#endif

/* x^(D + 31) mod P and x^(D - 33) mod P, bit 0 the highest power, for a move by D bits: see crc32_x86.c. */
#define IQ_CRC32_FOLD_128 0xAE689191, 0xCCAA009E
#define IQ_CRC32_FOLD_256 0xF1DA05AA, 0x81256527
#define IQ_CRC32_FOLD_512 0x8F352D95, 0x1D9513D7
#define IQ_CRC32_FOLD_1024 0x33FFF533, 0x910EEEC1
#endif

#if IQ_ARM64
IQ_FN uint32_t iq_crc32_arm(uint32_t crc, const void *bytes, size_t size);
#endif

/* ======== [kernel/crc32.c] ======== */
/* CRC-32: which way a machine gets, and the way of every machine: eight tables, eight bytes per step instead of one
 * ("slicing-by-8": Kounavis and Berry, "A systematic approach to building high performance software-based CRC
 * generators", 2005).
 *
 * 1. Words are put together from bytes, so that any alignment and byte order give the same.
 * 2. A table entry is linear in the bits of its index: entry(x ^ y) = entry(x) ^ entry(y). The eight entries of single
 *    bits therefore say the whole table, and the macros spell out the 256 combinations in their order. */

#define IQ_CRC32_1(v, a) (v), (v) ^ (a)
#define IQ_CRC32_2(v, a, b) IQ_CRC32_1(v, a), IQ_CRC32_1((v) ^ (b), a)
#define IQ_CRC32_3(v, a, b, c) IQ_CRC32_2(v, a, b), IQ_CRC32_2((v) ^ (c), a, b)
#define IQ_CRC32_4(v, a, b, c, d) IQ_CRC32_3(v, a, b, c), IQ_CRC32_3((v) ^ (d), a, b, c)
#define IQ_CRC32_5(v, a, b, c, d, e) IQ_CRC32_4(v, a, b, c, d), IQ_CRC32_4((v) ^ (e), a, b, c, d)
#define IQ_CRC32_6(v, a, b, c, d, e, f) IQ_CRC32_5(v, a, b, c, d, e), IQ_CRC32_5((v) ^ (f), a, b, c, d, e)
#define IQ_CRC32_7(v, a, b, c, d, e, f, g) IQ_CRC32_6(v, a, b, c, d, e, f), IQ_CRC32_6((v) ^ (g), a, b, c, d, e, f)
/* From the entries of indices 1, 2, 4, .. 128. */
#define IQ_CRC32_TABLE(a, b, c, d, e, f, g, h) \
    { IQ_CRC32_7(0u, a, b, c, d, e, f, g), IQ_CRC32_7((h), a, b, c, d, e, f, g) }

/* clang-format off */
/* [0][n] is the CRC register after byte n, [k][n] that after k further zero bytes. */
static const uint32_t iq_crc32_tables[8][256] = {
    IQ_CRC32_TABLE(0x77073096u, 0xEE0E612Cu, 0x076DC419u, 0x0EDB8832u,
                   0x1DB71064u, 0x3B6E20C8u, 0x76DC4190u, 0xEDB88320u),
    IQ_CRC32_TABLE(0x191B3141u, 0x32366282u, 0x646CC504u, 0xC8D98A08u,
                   0x4AC21251u, 0x958424A2u, 0xF0794F05u, 0x3B83984Bu),
    IQ_CRC32_TABLE(0x01C26A37u, 0x0384D46Eu, 0x0709A8DCu, 0x0E1351B8u,
                   0x1C26A370u, 0x384D46E0u, 0x709A8DC0u, 0xE1351B80u),
    IQ_CRC32_TABLE(0xB8BC6765u, 0xAA09C88Bu, 0x8F629757u, 0xC5B428EFu,
                   0x5019579Fu, 0xA032AF3Eu, 0x9B14583Du, 0xED59B63Bu),
    IQ_CRC32_TABLE(0x3D6029B0u, 0x7AC05360u, 0xF580A6C0u, 0x30704BC1u,
                   0x60E09782u, 0xC1C12F04u, 0x58F35849u, 0xB1E6B092u),
    IQ_CRC32_TABLE(0xCB5CD3A5u, 0x4DC8A10Bu, 0x9B914216u, 0xEC53826Du,
                   0x03D6029Bu, 0x07AC0536u, 0x0F580A6Cu, 0x1EB014D8u),
    IQ_CRC32_TABLE(0xA6770BB4u, 0x979F1129u, 0xF44F2413u, 0x33EF4E67u,
                   0x67DE9CCEu, 0xCFBD399Cu, 0x440B7579u, 0x8816EAF2u),
    IQ_CRC32_TABLE(0xCCAA009Eu, 0x4225077Du, 0x844A0EFAu, 0xD3E51BB5u,
                   0x7CBB312Bu, 0xF9766256u, 0x299DC2EDu, 0x533B85DAu),
};
/* clang-format on */

IQ_FN uint32_t iq_crc32(uint32_t crc, const void *bytes, size_t size) {
    const uint8_t *p = (const uint8_t *)bytes;
    crc = ~crc;
    for (; size >= 8; size -= 8, p += 8) {
        /* In pairs, because each step waits for the one before: the less that hangs on `crc`, the better. */
        const uint32_t low = crc ^ iq_get_u32(p), high = iq_get_u32(p + 4);
        const uint32_t ahead = (iq_crc32_tables[3][high & 0xFF] ^ iq_crc32_tables[2][high >> 8 & 0xFF]) ^
                               (iq_crc32_tables[1][high >> 16 & 0xFF] ^ iq_crc32_tables[0][high >> 24]);
        crc = (iq_crc32_tables[7][low & 0xFF] ^ iq_crc32_tables[6][low >> 8 & 0xFF]) ^
              (iq_crc32_tables[5][low >> 16 & 0xFF] ^ iq_crc32_tables[4][low >> 24]) ^ ahead;
    }
    for (; size > 0; size--, p++) crc = crc >> 8 ^ iq_crc32_tables[0][(crc ^ *p) & 0xFF];
    return ~crc;
}

IQ_FN iq_crc32_fn iq_crc32_select(uint32_t cpu_features, iqdb_simd simd_max) {
    const int limit = simd_max == IQDB_SIMD_BEST ? INT32_MAX : (int)simd_max;
    (void)cpu_features;
    (void)limit;
#if IQ_X86
    if (limit < (int)IQDB_SIMD_AVX2) return iq_crc32;
#if IQ_CRC32_VPCLMUL
    if ((cpu_features & IQ_CPU_VPCLMUL) != 0) return iq_crc32_vpclmul;
#endif
    if ((cpu_features & IQ_CPU_PCLMUL) != 0) return iq_crc32_pclmul;
#elif IQ_ARM64
    if ((cpu_features & IQ_CPU_ARM_CRC32) != 0 && limit > (int)IQDB_SIMD_SCALAR) return iq_crc32_arm;
#endif
    return iq_crc32;
}

/* ======== [kernel/crc32_arm.c] ======== */
/* CRC-32 by the instructions of ARMv8, eight bytes each.
 *
 * 1. The instructions stand in assembly that asks for them by itself: which header and which attribute make a compiler
 *    offer them differs between compilers and their versions.
 * 2. Words are put together from bytes, so that any alignment and byte order give the same. */

#if IQ_ARM64

IQ_INLINE uint32_t iq_arm_crc32_u64(uint32_t crc, uint64_t word) {
    __asm__(".arch_extension crc\n\tcrc32x %w0, %w0, %x1" : "+r"(crc) : "r"(word));
    return crc;
}

IQ_INLINE uint32_t iq_arm_crc32_u8(uint32_t crc, uint32_t byte) {
    __asm__(".arch_extension crc\n\tcrc32b %w0, %w0, %w1" : "+r"(crc) : "r"(byte));
    return crc;
}

IQ_FN uint32_t iq_crc32_arm(uint32_t crc, const void *bytes, size_t size) {
    const uint8_t *p = (const uint8_t *)bytes;
    crc = ~crc;
    for (; size >= 64; size -= 64, p += 64) {
        crc = iq_arm_crc32_u64(crc, iq_get_u64(p));
        crc = iq_arm_crc32_u64(crc, iq_get_u64(p + 8));
        crc = iq_arm_crc32_u64(crc, iq_get_u64(p + 16));
        crc = iq_arm_crc32_u64(crc, iq_get_u64(p + 24));
        crc = iq_arm_crc32_u64(crc, iq_get_u64(p + 32));
        crc = iq_arm_crc32_u64(crc, iq_get_u64(p + 40));
        crc = iq_arm_crc32_u64(crc, iq_get_u64(p + 48));
        crc = iq_arm_crc32_u64(crc, iq_get_u64(p + 56));
    }
    for (; size >= 8; size -= 8, p += 8) crc = iq_arm_crc32_u64(crc, iq_get_u64(p));
    for (; size > 0; size--, p++) crc = iq_arm_crc32_u8(crc, *p);
    return ~crc;
}

#endif

/* ======== [kernel/crc32_x86.c] ======== */
/* CRC-32 by carry-less multiplication (Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
 * Instruction", Intel, 2009), with registers of 16 or of 32 bytes, four of them per step.
 *
 * 1. Sixteen bytes, loaded as they lie, are a polynomial whose highest power is bit 0: the CRC takes the bits of a byte
 *    from the lowest on. Its low half A and its high half B make A x^64 + B.
 * 2. A register may be replaced by anything congruent modulo P, and may move D bits on to be added to what lies there:
 *    (A x^64 + B) x^D. Each half is multiplied by a constant that was reduced to 32 bits beforehand. Such a constant
 *    lies in the low half of its 64 bits, which makes it worth x^32 more, and the product of two halves ends one bit
 *    below the top, which makes it worth x more: so A takes x^(D + 64 - 33) mod P and B takes x^(D - 33) mod P.
 * 3. In the end everything lies in 16 bytes, which the tables take like any other, and then what is left. This departs
 *    from the paper, which goes on to multiply and ends with a Barrett reduction: the tables are needed for the left
 *    bytes anyway, and take no longer.
 * 4. Loads need no alignment, and nothing outside of the bytes is read. */

#if IQ_X86

#include <immintrin.h>

IQ_INLINE IQ_PCLMUL __m128i iq_pclmul_load(const uint8_t *p) {
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* r, moved on to where `next` lies. */
IQ_INLINE IQ_PCLMUL __m128i iq_pclmul_fold(__m128i r, __m128i constants, __m128i next) {
    const __m128i a = _mm_clmulepi64_si128(r, constants, 0x00), b = _mm_clmulepi64_si128(r, constants, 0x11);
    return _mm_xor_si128(_mm_xor_si128(a, b), next);
}

/* The constants of A and B, in this order. */
IQ_INLINE IQ_PCLMUL __m128i iq_pclmul_constants(int64_t of_a, int64_t of_b) {
    return _mm_set_epi64x(of_b, of_a);
}

/* r holds all that came before p. */
IQ_INLINE IQ_PCLMUL uint32_t iq_pclmul_finish(__m128i r, const uint8_t *p, size_t size) {
    const __m128i by_128 = iq_pclmul_constants(IQ_CRC32_FOLD_128);
    uint8_t last[16];
    for (; size >= 16; size -= 16, p += 16) r = iq_pclmul_fold(r, by_128, iq_pclmul_load(p));
    _mm_storeu_si128((__m128i *)(void *)last, r);
    /* The register of the CRC is in r already: zero goes on from there, which is ~0 to a caller. */
    return iq_crc32(iq_crc32(UINT32_MAX, last, sizeof last), p, size);
}

IQ_FN IQ_PCLMUL uint32_t iq_crc32_pclmul(uint32_t crc, const void *bytes, size_t size) {
    const uint8_t *p = (const uint8_t *)bytes;
    if (size < 64) return iq_crc32(crc, bytes, size);
    const __m128i by_512 = iq_pclmul_constants(IQ_CRC32_FOLD_512), by_256 = iq_pclmul_constants(IQ_CRC32_FOLD_256),
                  by_128 = iq_pclmul_constants(IQ_CRC32_FOLD_128);
    __m128i r0 = _mm_xor_si128(iq_pclmul_load(p), _mm_cvtsi32_si128((int)~crc)), r1 = iq_pclmul_load(p + 16),
            r2 = iq_pclmul_load(p + 32), r3 = iq_pclmul_load(p + 48);
    for (p += 64, size -= 64; size >= 64; p += 64, size -= 64) {
        r0 = iq_pclmul_fold(r0, by_512, iq_pclmul_load(p));
        r1 = iq_pclmul_fold(r1, by_512, iq_pclmul_load(p + 16));
        r2 = iq_pclmul_fold(r2, by_512, iq_pclmul_load(p + 32));
        r3 = iq_pclmul_fold(r3, by_512, iq_pclmul_load(p + 48));
    }
    r0 = iq_pclmul_fold(r0, by_256, r2);
    r1 = iq_pclmul_fold(r1, by_256, r3);
    return iq_pclmul_finish(iq_pclmul_fold(r0, by_128, r1), p, size);
}

#if IQ_CRC32_VPCLMUL

/* Fewer bytes are left to the smaller registers, which were faster up to 200 and slower from 256 on (Zen 3). */
#define IQ_VPCLMUL_MIN 256

IQ_INLINE IQ_VPCLMUL __m256i iq_vpclmul_load(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

IQ_INLINE IQ_VPCLMUL __m256i iq_vpclmul_fold(__m256i r, __m256i constants, __m256i next) {
    const __m256i a = _mm256_clmulepi64_epi128(r, constants, 0x00), b = _mm256_clmulepi64_epi128(r, constants, 0x11);
    return _mm256_xor_si256(_mm256_xor_si256(a, b), next);
}

IQ_INLINE IQ_VPCLMUL __m256i iq_vpclmul_constants(int64_t of_a, int64_t of_b) {
    return _mm256_set_epi64x(of_b, of_a, of_b, of_a);
}

IQ_FN IQ_VPCLMUL uint32_t iq_crc32_vpclmul(uint32_t crc, const void *bytes, size_t size) {
    const uint8_t *p = (const uint8_t *)bytes;
    if (size < IQ_VPCLMUL_MIN) return iq_crc32_pclmul(crc, bytes, size);
    const __m256i by_1024 = iq_vpclmul_constants(IQ_CRC32_FOLD_1024), by_512 = iq_vpclmul_constants(IQ_CRC32_FOLD_512),
                  by_256 = iq_vpclmul_constants(IQ_CRC32_FOLD_256);
    __m256i r0 = _mm256_xor_si256(iq_vpclmul_load(p), _mm256_set_epi32(0, 0, 0, 0, 0, 0, 0, (int)~crc)),
            r1 = iq_vpclmul_load(p + 32), r2 = iq_vpclmul_load(p + 64), r3 = iq_vpclmul_load(p + 96);
    for (p += 128, size -= 128; size >= 128; p += 128, size -= 128) {
        r0 = iq_vpclmul_fold(r0, by_1024, iq_vpclmul_load(p));
        r1 = iq_vpclmul_fold(r1, by_1024, iq_vpclmul_load(p + 32));
        r2 = iq_vpclmul_fold(r2, by_1024, iq_vpclmul_load(p + 64));
        r3 = iq_vpclmul_fold(r3, by_1024, iq_vpclmul_load(p + 96));
    }
    r0 = iq_vpclmul_fold(r0, by_512, r2);
    r1 = iq_vpclmul_fold(r1, by_512, r3);
    r0 = iq_vpclmul_fold(r0, by_256, r1);
    for (; size >= 32; p += 32, size -= 32) r0 = iq_vpclmul_fold(r0, by_256, iq_vpclmul_load(p));
    const __m128i by_128 = iq_pclmul_constants(IQ_CRC32_FOLD_128);
    const __m128i r = iq_pclmul_fold(_mm256_castsi256_si128(r0), by_128, _mm256_extracti128_si256(r0, 1));
    return iq_pclmul_finish(r, p, size);
}

#endif
#endif

/* ======== [kernel/kernel.h] ======== */
/* Sums of products over f32 vectors, one file per instruction set, every one with the same bits.
 *
 * The canonical order: 32 virtual lanes; element i is added to lane i mod 32 in ascending order of i, each term
 * rounded to f32 before it is added (no fused multiply-add), lanes starting at +0; then
 * lane[j] += lane[j + 16] for j < 16, lane[j] += lane[j + 8] for j < 8, and so on with 4, 2, 1; the sum is lane[0].
 * A lane is never -0, so leaving out terms that are 0 * 0 (padding) does not change a bit. */

#define IQ_KERNEL_LANES 32
#define IQ_ROW_FLOATS 16 /* stored rows are padded with zeros to a multiple of this: 64 bytes */

/* The stride of stored rows, in floats. dim <= IQDB_DIM_MAX. */
IQ_INLINE size_t iq_row_stride(uint32_t dim) {
    return iq_round_up(dim, IQ_ROW_FLOATS);
}

/* Asks for the cache line `ahead` bytes behind p. The address may lie outside of the rows: nothing is read there, and
 * the sum is made of integers because a pointer may not go there. */
IQ_INLINE void iq_kernel_prefetch(const void *p, size_t ahead) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch((const void *)((uintptr_t)p + ahead));
#else
    (void)p;
    (void)ahead;
#endif
}

/* What is summed up over i. */
typedef enum iq_sum_kind {
    IQ_SUM_PRODUCTS = 0,  /* a[i] * b[i] */
    IQ_SUM_SQUARES = 1,   /* (a[i] - b[i])^2 */
    IQ_SUM_ABSOLUTES = 2, /* |a[i] - b[i]| */
    IQ_SUM_KINDS = 3
} iq_sum_kind;

/* The sum of one pair. Any dim (0 gives 0), any alignment that float allows. */
typedef float (*iq_pair_fn)(const float *a, const float *b, size_t dim, iq_sum_kind kind);

/* The same sums of `query_count` queries against `row_count` rows: out_sums[q * row_count + r] for queries + q * stride
 * and rows + r * stride. Both are 64-byte aligned and padded with zeros to the stride, a multiple of IQ_ROW_FLOATS.
 * One query streams through the rows. More of them go by tiles: IQ_TILE_ROWS rows stay near while query after query
 * passes, so that memory is read once, and a query's registers are loaded once for all rows of the tile. */
typedef void (*iq_scan_fn)(const float *queries, size_t query_count, const float *rows, size_t stride, size_t row_count,
                           float *out_sums, iq_sum_kind kind);

#define IQ_TILE_ROWS 3

/* While a query, or a few, pass a tile of `size` bytes, their share of the next tile is asked for: as many bytes for each
 * of `parts` passes. */
IQ_INLINE size_t iq_kernel_tile_share(size_t size, size_t parts) {
    return (size / 64 + parts - 1) / parts * 64;
}
IQ_INLINE void iq_kernel_prefetch_share(const float *rows, size_t size, size_t part, size_t share) {
    for (size_t at = part * share; at < (part + 1) * share && at < size; at += 64) iq_kernel_prefetch(rows, size + at);
}

/* What a sift compares the products of query q and row r with: offsets[q] + slopes[q] * norms[r] + terms[r]. */
typedef struct iq_sift_bounds {
    const float *offsets, *slopes; /* of IQ_SIFT_QUERIES queries */
    const float *norms, *terms;    /* of the rows */
} iq_sift_bounds;

/* Products of IQ_SIFT_QUERIES queries with at least IQ_TILE_ROWS rows, laid out as for a scan, but in four or more lanes
 * that are folded last, with fused additions, so that an element is rounded stride / 4 + 6 times at most. Bit q of
 * out_masks[r] is set unless the product is less than its bound, both rounded as they come; the others are cleared. The
 * tile is four queries by three rows: twelve sums, which is what the units can have under way, for seven loads. */
typedef void (*iq_sift_fn)(const float *queries, const float *rows, size_t stride, size_t row_count,
                           const iq_sift_bounds *bounds, uint32_t *out_masks);

#define IQ_SIFT_QUERIES 4

typedef struct iq_kernel {
    const char *name;
    iq_pair_fn pair;
    iq_scan_fn scan;
    iq_sift_fn sift; /* NULL where it would not pay */
} iq_kernel;

IQ_FN const iq_kernel *iq_kernel_scalar(void);
#if IQ_X86
IQ_FN const iq_kernel *iq_kernel_sse2(void);
IQ_FN const iq_kernel *iq_kernel_avx2(void);
IQ_FN const iq_kernel *iq_kernel_avx512(void);
#endif
#if IQ_NEON
IQ_FN const iq_kernel *iq_kernel_neon(void);
#endif

/* The best set that `cpu_features` (of iq_cpu_features) allows and `simd_max` does not exceed. */
IQ_FN const iq_kernel *iq_kernel_select(uint32_t cpu_features, iqdb_simd simd_max);

/* ======== [kernel/dispatch.c] ======== */
/* Which kernel a machine gets. All give the same bits, so this is a question of speed alone. */

IQ_FN const iq_kernel *iq_kernel_select(uint32_t cpu_features, iqdb_simd simd_max) {
    const int limit = simd_max == IQDB_SIMD_BEST ? INT32_MAX : (int)simd_max;
#if IQ_X86
    if ((cpu_features & IQ_CPU_AVX512F) != 0 && limit >= (int)IQDB_SIMD_AVX512) return iq_kernel_avx512();
    if ((cpu_features & IQ_CPU_AVX2) != 0 && limit >= (int)IQDB_SIMD_AVX2) return iq_kernel_avx2();
    if ((cpu_features & IQ_CPU_SSE2) != 0 && limit >= (int)IQDB_SIMD_SSE2) return iq_kernel_sse2();
#endif
#if IQ_NEON
    if (limit >= (int)IQDB_SIMD_NEON) return iq_kernel_neon();
#endif
    (void)cpu_features;
    (void)limit;
    return iq_kernel_scalar();
}

/* ======== [kernel/strict.h] ======== */
/* Arithmetic whose every step is rounded once to its type, whatever the compiler was told.
 *
 * Compilers may fuse a * b + c, keep wider intermediates (x87), or reorder sums (-ffast-math). No pragma stops all of
 * it in all of them, and a pragma at file scope would leak into the program that includes the header. So results pass
 * through an empty asm statement: the compiler has to produce the value, and cannot know what comes out. It costs
 * nothing in a register; through memory it also drops the excess bits of x87, where rounding twice is harmless for f32
 * (64 >= 2 * 24 + 2 bits; Figueroa, "When is double rounding innocuous?", 1995). Other compilers get volatile.
 * What it cannot mend is a processor that was told to flush subnormals, as gcc before 13 does at the start of every
 * program that is linked with -ffast-math: then subnormal results are zero. */

/* gcc keeps its hands off bits that are asked whether they are a number; clang folds even those. */
#if defined(__clang__) && defined(__FINITE_MATH_ONLY__)
#if __FINITE_MATH_ONLY__
#error "iqdb: under -ffast-math clang assumes that no number is infinite; add -fno-finite-math-only for this file"
#endif
#endif

/* An array or variable in memory. */
#if defined(__GNUC__) || defined(__clang__)
#define IQ_STRICT_MEMORY(array) __asm__ volatile("" : "+m"(array))
#else
#define IQ_STRICT_MEMORY(array) iq_strict_touch(&(array), sizeof(array))
static void iq_strict_touch(volatile void *memory, size_t size) {
    volatile uint8_t *bytes = (volatile uint8_t *)memory;
    for (size_t i = 0; i < size; i++) bytes[i] = bytes[i];
}
#endif

IQ_INLINE float iq_strict_f32(float value) {
    IQ_STRICT_MEMORY(value);
    return value;
}
IQ_INLINE double iq_strict_f64(double value) {
    IQ_STRICT_MEMORY(value);
    return value;
}

/* A vector register, and four at once: between two steps of a loop that gives gcc less reason to copy them. "v" names
 * all 32 registers of AVX-512 where there are so many, and else what "x" does. */
#if IQ_X86
#define IQ_STRICT_VECTOR(v) __asm__("" : "+v"(v))
#define IQ_STRICT_VECTORS(v0, v1, v2, v3) __asm__("" : "+v"(v0), "+v"(v1), "+v"(v2), "+v"(v3))
#elif IQ_NEON
#define IQ_STRICT_VECTOR(v) __asm__("" : "+w"(v))
#define IQ_STRICT_VECTORS(v0, v1, v2, v3) __asm__("" : "+w"(v0), "+w"(v1), "+w"(v2), "+w"(v3))
#endif

/* For f64, rounding twice on x87 does harm: there the unit is told to round to 53 bits from begin to end. */
#if defined(__i386__) && !defined(__SSE2_MATH__) && (defined(__GNUC__) || defined(__clang__))
#define IQ_STRICT_X87 1
#else
#define IQ_STRICT_X87 0
#endif

IQ_INLINE uint16_t iq_strict_f64_begin(void) {
    uint16_t before = 0;
#if IQ_STRICT_X87
    uint16_t now;
    __asm__ volatile("fnstcw %0" : "=m"(before));
    now = (uint16_t)((before & ~0x0300u) | 0x0200u);
    __asm__ volatile("fldcw %0" : : "m"(now));
#endif
    return before;
}
IQ_INLINE void iq_strict_f64_end(uint16_t before) {
#if IQ_STRICT_X87
    __asm__ volatile("fldcw %0" : : "m"(before));
#endif
    (void)before;
}

/* Square roots, correctly rounded, of what is not negative. The C library's are no choice: a call to them may stay
 * behind in unoptimised code, and a program would have to be linked with -lm. */
IQ_FN double iq_sqrt_f64(double value);
IQ_FN float iq_sqrt_f32(float value);
/* The same by integers alone: for machines without the instruction, and extern for its test. */
IQ_FN double iq_sqrt_f64_portable(double value);

/* ======== [kernel/strict.c] ======== */
/* Square roots without the C library.
 *
 * 1. Correctly rounded (to nearest, ties to even), so that every machine has the same bits.
 * 2. The asm is opaque: -ffast-math cannot turn it into an estimate.
 * 3. Defined for +0, positive numbers and +infinity; sums of squares are nothing else. */

/* Digit by digit: the root of a 106-bit integer, two bits of it per step, as one learns it at school. */
IQ_FN double iq_sqrt_f64_portable(double value) {
    uint64_t bits = iq_f64_bits(value);
    int exponent = (int)(bits >> 52);
    uint64_t mantissa = bits & UINT64_C(0x000FFFFFFFFFFFFF);
    if (bits == 0 || exponent >= 0x7FF) return value;
    if (exponent == 0) {
        exponent = 1;
        while ((mantissa >> 52) == 0) {
            mantissa <<= 1;
            exponent--;
        }
    }
    mantissa |= UINT64_C(1) << 52;
    exponent -= 1023;
    if ((exponent & 1) != 0) {
        mantissa <<= 1;
        exponent--;
    }
    /* value = mantissa * 2^(exponent - 52) with 1 <= mantissa / 2^52 < 4: the root has one digit before the point. Its
     * 53 digits and one for rounding come out of mantissa * 2^54, taken two bits at a time from the top. */
    uint64_t root = 0, rest = 0;
    for (int i = 0; i < 54; i++) {
        rest = rest << 2 | (mantissa >> 52 & 3);
        mantissa <<= 2;
        const uint64_t trial = root << 2 | 1;
        root <<= 1;
        if (rest >= trial) {
            rest -= trial;
            root |= 1;
        }
    }
    /* Never a tie: a root that ends on exactly half a unit has a square of more than 53 bits. */
    root = (root >> 1) + (root & 1);
    return iq_f64_from_bits(root + ((uint64_t)(exponent / 2 + 1022) << 52));
}

IQ_FN double iq_sqrt_f64(double value) {
#if (defined(__GNUC__) || defined(__clang__)) && defined(__SSE2__)
    double root;
#if defined(__AVX__)
    __asm__("vsqrtsd %1, %1, %0" : "=x"(root) : "x"(value));
#else
    __asm__("sqrtsd %1, %0" : "=x"(root) : "x"(value));
#endif
    return root;
#elif (defined(__GNUC__) || defined(__clang__)) && defined(__aarch64__)
    double root;
    __asm__("fsqrt %d0, %d1" : "=w"(root) : "w"(value));
    return root;
#else
    return iq_sqrt_f64_portable(value);
#endif
}

/* Rounding a root to 53 bits and then to 24 gives the root rounded to 24 (53 >= 2 * 24 + 2). */
IQ_FN float iq_sqrt_f32(float value) {
    return iq_strict_f32((float)iq_sqrt_f64((double)value));
}

/* ======== [kernel/avx2.c] ======== */
/* The canonical order in four AVX2 registers of eight lanes.
 *
 * 1. Register r holds lanes 8r .. 8r + 7. Products and lanes pass through IQ_STRICT_VECTOR, so that neither -mfma nor
 *    -ffast-math can fuse or reorder them.
 * 2. Nothing outside a[0, dim) and b[0, dim) is read: tails are masked loads.
 * 3. A sift has none of this: its sums only bound others. */

#if IQ_X86

#include <immintrin.h>

#define IQ_AVX2_FMA IQ_TARGET("avx2,fma")
#if IQ_FAST_FP
#define IQ_AVX2 IQ_AVX2_FMA
#else
#define IQ_AVX2 IQ_TARGET("avx2")
#endif
typedef struct iq_avx2_lanes {
    __m256 r0, r1, r2, r3;
} iq_avx2_lanes;

IQ_INLINE IQ_AVX2 __m256 iq_avx2_plus(__m256 lanes, __m256 more) {
    lanes = _mm256_add_ps(lanes, more);
    IQ_STRICT_VECTOR(lanes);
    return lanes;
}

IQ_INLINE IQ_AVX2 __m128 iq_avx2_plus_half(__m128 lanes, __m128 more) {
    lanes = _mm_add_ps(lanes, more);
    IQ_STRICT_VECTOR(lanes);
    return lanes;
}

IQ_INLINE IQ_AVX2 __m256 iq_avx2_absolute(__m256 v) {
    return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF)));
}

IQ_INLINE IQ_AVX2 __m256 iq_avx2_term(__m256 lanes, __m256 x, __m256 y, iq_sum_kind kind) {
    const __m256 difference = _mm256_sub_ps(x, y);
#if IQ_FAST_FP
    if (kind == IQ_SUM_PRODUCTS) return _mm256_fmadd_ps(x, y, lanes);
    if (kind == IQ_SUM_SQUARES) return _mm256_fmadd_ps(difference, difference, lanes);
#endif
    __m256 term = kind == IQ_SUM_PRODUCTS  ? _mm256_mul_ps(x, y)
                  : kind == IQ_SUM_SQUARES ? _mm256_mul_ps(difference, difference)
                                           : iq_avx2_absolute(difference);
    IQ_STRICT_VECTOR(term);
    return _mm256_add_ps(lanes, term);
}

IQ_INLINE IQ_AVX2 iq_avx2_lanes iq_avx2_zero(void) {
    iq_avx2_lanes lanes;
    lanes.r0 = lanes.r1 = lanes.r2 = lanes.r3 = _mm256_setzero_ps();
    return lanes;
}

/* The fixed tree: 16, 8, then 4, 2 and 1 inside the register. */
IQ_INLINE IQ_AVX2 float iq_avx2_sum(const iq_avx2_lanes *lanes) {
    const __m256 s8 = iq_avx2_plus(iq_avx2_plus(lanes->r0, lanes->r2), iq_avx2_plus(lanes->r1, lanes->r3));
    __m128 s = iq_avx2_plus_half(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    s = iq_avx2_plus_half(s, _mm_movehl_ps(s, s));
    s = iq_avx2_plus_half(s, _mm_shuffle_ps(s, s, 1));
    return _mm_cvtss_f32(s);
}

IQ_INLINE IQ_AVX2 void iq_avx2_half_step(iq_avx2_lanes *lanes, const float *a, const float *b, iq_sum_kind kind) {
    lanes->r0 = iq_avx2_term(lanes->r0, _mm256_loadu_ps(a), _mm256_loadu_ps(b), kind);
    lanes->r1 = iq_avx2_term(lanes->r1, _mm256_loadu_ps(a + 8), _mm256_loadu_ps(b + 8), kind);
}

IQ_INLINE IQ_AVX2 void iq_avx2_step(iq_avx2_lanes *lanes, const float *a, const float *b, iq_sum_kind kind) {
    iq_avx2_half_step(lanes, a, b, kind);
    lanes->r2 = iq_avx2_term(lanes->r2, _mm256_loadu_ps(a + 16), _mm256_loadu_ps(b + 16), kind);
    lanes->r3 = iq_avx2_term(lanes->r3, _mm256_loadu_ps(a + 24), _mm256_loadu_ps(b + 24), kind);
    IQ_STRICT_VECTORS(lanes->r0, lanes->r1, lanes->r2, lanes->r3);
}

/* The first `count` floats at p, then zeros. */
IQ_INLINE IQ_AVX2 __m256 iq_avx2_load(const float *p, size_t count) {
    static const int32_t mask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    if (count >= 8) return _mm256_loadu_ps(p);
    return _mm256_maskload_ps(p, _mm256_loadu_si256((const __m256i *)(const void *)(mask + 8 - count)));
}

IQ_INLINE IQ_AVX2 float iq_avx2_pair(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    iq_avx2_lanes lanes = iq_avx2_zero();
    size_t rest = dim;
    for (; rest >= IQ_KERNEL_LANES; rest -= IQ_KERNEL_LANES, a += IQ_KERNEL_LANES, b += IQ_KERNEL_LANES)
        iq_avx2_step(&lanes, a, b, kind);
    if (rest > 0) lanes.r0 = iq_avx2_term(lanes.r0, iq_avx2_load(a, rest), iq_avx2_load(b, rest), kind);
    if (rest > 8) lanes.r1 = iq_avx2_term(lanes.r1, iq_avx2_load(a + 8, rest - 8), iq_avx2_load(b + 8, rest - 8), kind);
    if (rest > 16)
        lanes.r2 = iq_avx2_term(lanes.r2, iq_avx2_load(a + 16, rest - 16), iq_avx2_load(b + 16, rest - 16), kind);
    if (rest > 24)
        lanes.r3 = iq_avx2_term(lanes.r3, iq_avx2_load(a + 24, rest - 24), iq_avx2_load(b + 24, rest - 24), kind);
    return iq_avx2_sum(&lanes);
}

/* One register of a query with three rows, `apart` floats from one to the next. */
IQ_INLINE IQ_AVX2 void iq_avx2_terms(__m256 *lanes_0, __m256 *lanes_1, __m256 *lanes_2, const float *query,
                                     const float *rows, size_t apart, iq_sum_kind kind) {
    const __m256 x = _mm256_loadu_ps(query);
    *lanes_0 = iq_avx2_term(*lanes_0, x, _mm256_loadu_ps(rows), kind);
    *lanes_1 = iq_avx2_term(*lanes_1, x, _mm256_loadu_ps(rows + apart), kind);
    *lanes_2 = iq_avx2_term(*lanes_2, x, _mm256_loadu_ps(rows + 2 * apart), kind);
    IQ_STRICT_VECTOR(*lanes_0);
    IQ_STRICT_VECTOR(*lanes_1);
    IQ_STRICT_VECTOR(*lanes_2);
}

/* One query against IQ_TILE_ROWS rows that lie `step` rows apart: twelve registers of lanes, one of the query, one or
 * two for terms. Two queries against four rows, eight lanes at a time, take half as many loads in four passes over
 * both, and were no faster. */
IQ_INLINE IQ_AVX2 void iq_avx2_tile(const float *query, const float *rows, size_t step, size_t stride, float *out_sums,
                                    iq_sum_kind kind) {
    const size_t apart = step * stride;
    iq_avx2_lanes a = iq_avx2_zero(), b = iq_avx2_zero(), c = iq_avx2_zero();
    for (size_t i = 0; i < stride; i += IQ_KERNEL_LANES, query += IQ_KERNEL_LANES, rows += IQ_KERNEL_LANES) {
        iq_avx2_terms(&a.r0, &b.r0, &c.r0, query, rows, apart, kind);
        iq_avx2_terms(&a.r1, &b.r1, &c.r1, query + 8, rows + 8, apart, kind);
        if (stride - i == IQ_ROW_FLOATS) break;
        iq_avx2_terms(&a.r2, &b.r2, &c.r2, query + 16, rows + 16, apart, kind);
        iq_avx2_terms(&a.r3, &b.r3, &c.r3, query + 24, rows + 24, apart, kind);
    }
    out_sums[0] = iq_avx2_sum(&a);
    out_sums[step] = iq_avx2_sum(&b);
    out_sums[2 * step] = iq_avx2_sum(&c);
}

/* Three thirds of the rows side by side. Memory delivers three streams faster than one: on Zen 3 15 % faster than a
 * plain read of all bytes in their order, which a scan in that order stays 10 % behind; two streams get half of that,
 * software prefetch adds nothing, and three neighbouring rows lose 35 %. */
IQ_INLINE IQ_AVX2 void iq_avx2_stream(const float *query, const float *rows, size_t stride, size_t count,
                                      float *out_sums, iq_sum_kind kind) {
    const size_t third = count / IQ_TILE_ROWS;
    for (size_t row = 0; row < third; row++)
        iq_avx2_tile(query, rows + row * stride, third, stride, out_sums + row, kind);
    for (size_t row = third * IQ_TILE_ROWS; row < count; row++)
        out_sums[row] = iq_avx2_pair(query, rows + row * stride, stride, kind);
}

IQ_INLINE IQ_AVX2 void iq_avx2_scan(const float *queries, size_t query_count, const float *rows, size_t stride,
                                    size_t row_count, float *out_sums, iq_sum_kind kind) {
    const size_t size = IQ_TILE_ROWS * stride * sizeof(float), share = iq_kernel_tile_share(size, query_count);
    size_t row = 0;
    for (; query_count > 1 && row + IQ_TILE_ROWS <= row_count; row += IQ_TILE_ROWS, rows += IQ_TILE_ROWS * stride) {
        for (size_t q = 0; q < query_count; q++) {
            iq_kernel_prefetch_share(rows, size, q, share);
            iq_avx2_tile(queries + q * stride, rows, 1, stride, out_sums + q * row_count + row, kind);
        }
    }
    for (size_t q = 0; q < query_count && row < row_count; q++)
        iq_avx2_stream(queries + q * stride, rows, stride, row_count - row, out_sums + q * row_count + row, kind);
}

/* ---- sifting ---- */

/* One row with four queries. */
typedef struct iq_avx2_quad {
    __m256 a, b, c, d;
} iq_avx2_quad;

/* Which of the four products are not below their bounds: four bits. */
IQ_INLINE IQ_AVX2_FMA uint32_t iq_avx2_keep(const iq_avx2_quad *row, const iq_sift_bounds *bounds, size_t r) {
    const __m256 halves = _mm256_hadd_ps(_mm256_hadd_ps(row->a, row->b), _mm256_hadd_ps(row->c, row->d));
    const __m128 sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
    const __m128 fixed = _mm_add_ps(_mm_loadu_ps(bounds->offsets), _mm_set1_ps(bounds->terms[r]));
    const __m128 slope = _mm_mul_ps(_mm_loadu_ps(bounds->slopes), _mm_set1_ps(bounds->norms[r]));
    return (uint32_t)_mm_movemask_ps(_mm_cmpnlt_ps(sums, _mm_add_ps(fixed, slope)));
}

/* One register of a query with those of three rows. */
IQ_INLINE IQ_AVX2_FMA void iq_avx2_fuse(__m256 *x, __m256 *y, __m256 *z, const float *query, __m256 row_x, __m256 row_y,
                                        __m256 row_z) {
    const __m256 v = _mm256_loadu_ps(query);
    *x = _mm256_fmadd_ps(v, row_x, *x);
    *y = _mm256_fmadd_ps(v, row_y, *y);
    *z = _mm256_fmadd_ps(v, row_z, *z);
}

static IQ_AVX2_FMA void iq_avx2_sift(const float *queries, const float *rows, size_t stride, size_t row_count,
                                     const iq_sift_bounds *bounds, uint32_t *out_masks) {
    for (size_t next = 0; next < row_count; next += IQ_TILE_ROWS) {
        /* The rest is a tile that overlaps another. */
        const size_t r = next + IQ_TILE_ROWS <= row_count ? next : row_count - IQ_TILE_ROWS;
        const float *query = queries, *row = rows + r * stride;
        iq_avx2_quad x, y, z;
        x.a = x.b = x.c = x.d = y.a = y.b = y.c = y.d = z.a = z.b = z.c = z.d = _mm256_setzero_ps();
        for (size_t i = 0; i < stride; i += 8, query += 8, row += 8) {
            const __m256 row_x = _mm256_loadu_ps(row), row_y = _mm256_loadu_ps(row + stride);
            const __m256 row_z = _mm256_loadu_ps(row + 2 * stride);
            iq_avx2_fuse(&x.a, &y.a, &z.a, query, row_x, row_y, row_z);
            iq_avx2_fuse(&x.b, &y.b, &z.b, query + stride, row_x, row_y, row_z);
            iq_avx2_fuse(&x.c, &y.c, &z.c, query + 2 * stride, row_x, row_y, row_z);
            iq_avx2_fuse(&x.d, &y.d, &z.d, query + 3 * stride, row_x, row_y, row_z);
        }
        out_masks[r] = iq_avx2_keep(&x, bounds, r);
        out_masks[r + 1] = iq_avx2_keep(&y, bounds, r + 1);
        out_masks[r + 2] = iq_avx2_keep(&z, bounds, r + 2);
    }
}

static IQ_AVX2 float iq_avx2_pair_of(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS) return iq_avx2_pair(a, b, dim, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) return iq_avx2_pair(a, b, dim, IQ_SUM_SQUARES);
    return iq_avx2_pair(a, b, dim, IQ_SUM_ABSOLUTES);
}

static IQ_AVX2 void iq_avx2_scan_of(const float *queries, size_t query_count, const float *rows, size_t stride,
                                    size_t row_count, float *out_sums, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS) iq_avx2_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) iq_avx2_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_SQUARES);
    if (kind == IQ_SUM_ABSOLUTES)
        iq_avx2_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_ABSOLUTES);
}

IQ_FN const iq_kernel *iq_kernel_avx2(void) {
    static const iq_kernel kernel = {"avx2", iq_avx2_pair_of, iq_avx2_scan_of, iq_avx2_sift};
    return &kernel;
}

#endif

/* ======== [kernel/avx512.c] ======== */
/* The canonical order in two AVX-512 registers of sixteen lanes.
 *
 * 1. Register r holds lanes 16r .. 16r + 15. Products and lanes pass through IQ_STRICT_VECTOR, so that neither -mfma
 *    nor -ffast-math can fuse or reorder them.
 * 2. Nothing outside a[0, dim) and b[0, dim) is read: tails are masked loads.
 * 3. The foundation, AVX-512F, is all that is used. Halves are taken with maskz intrinsics, whose mask costs nothing:
 *    the plain ones, and _mm512_reduce_add_ps, make g++ 12 warn about variables inside its own header.
 * 4. A sift has none of this: its sums only bound others. */

#if IQ_X86

/* A test brings both, to emulate the instructions where the machine has none. */
#if !defined(IQ_AVX512)
#include <immintrin.h>
/* clang 18 to 21 want 512-bit registers named apart where the program is built without them; clang 22 forgot the
 * name again. */
#if defined(__clang__) && __clang_major__ >= 18 && __clang_major__ <= 21
#define IQ_AVX512 IQ_TARGET("avx512f,evex512")
#else
#define IQ_AVX512 IQ_TARGET("avx512f")
#endif
#endif

#define IQ_AVX512_AHEAD 512 /* bytes that a scan prefetches ahead, as in avx2.c */

typedef struct iq_avx512_lanes {
    __m512 r0, r1;
} iq_avx512_lanes;

IQ_INLINE IQ_AVX512 __m512 iq_avx512_plus(__m512 lanes, __m512 more) {
    lanes = _mm512_add_ps(lanes, more);
    IQ_STRICT_VECTOR(lanes);
    return lanes;
}

IQ_INLINE IQ_AVX512 __m256 iq_avx512_plus_half(__m256 lanes, __m256 more) {
    lanes = _mm256_add_ps(lanes, more);
    IQ_STRICT_VECTOR(lanes);
    return lanes;
}

IQ_INLINE IQ_AVX512 __m128 iq_avx512_plus_quarter(__m128 lanes, __m128 more) {
    lanes = _mm_add_ps(lanes, more);
    IQ_STRICT_VECTOR(lanes);
    return lanes;
}

IQ_INLINE IQ_AVX512 __m512 iq_avx512_term(__m512 lanes, __m512 x, __m512 y, iq_sum_kind kind) {
    const __m512 difference = _mm512_sub_ps(x, y);
#if IQ_FAST_FP
    if (kind == IQ_SUM_PRODUCTS) return _mm512_fmadd_ps(x, y, lanes);
    if (kind == IQ_SUM_SQUARES) return _mm512_fmadd_ps(difference, difference, lanes);
#endif
    __m512 term = kind == IQ_SUM_PRODUCTS  ? _mm512_mul_ps(x, y)
                  : kind == IQ_SUM_SQUARES ? _mm512_mul_ps(difference, difference)
                                           : _mm512_abs_ps(difference);
    IQ_STRICT_VECTOR(term);
    return iq_avx512_plus(lanes, term);
}

IQ_INLINE IQ_AVX512 iq_avx512_lanes iq_avx512_zero(void) {
    iq_avx512_lanes lanes;
    lanes.r0 = lanes.r1 = _mm512_setzero_ps();
    return lanes;
}

/* lanes[j] + lanes[j + 8]. */
IQ_INLINE IQ_AVX512 __m256 iq_avx512_fold(__m512 lanes) {
    const __m256d lower = _mm512_maskz_extractf64x4_pd(0xFF, _mm512_castps_pd(lanes), 0);
    const __m256d upper = _mm512_maskz_extractf64x4_pd(0xFF, _mm512_castps_pd(lanes), 1);
    return iq_avx512_plus_half(_mm256_castpd_ps(lower), _mm256_castpd_ps(upper));
}

/* The fixed tree: 16, then 8, 4, 2 and 1 inside the register. */
IQ_INLINE IQ_AVX512 float iq_avx512_sum(const iq_avx512_lanes *lanes) {
    const __m256 s8 = iq_avx512_fold(iq_avx512_plus(lanes->r0, lanes->r1));
    __m128 s = iq_avx512_plus_quarter(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    s = iq_avx512_plus_quarter(s, _mm_movehl_ps(s, s));
    s = iq_avx512_plus_quarter(s, _mm_shuffle_ps(s, s, 1));
    return _mm_cvtss_f32(s);
}

IQ_INLINE IQ_AVX512 void iq_avx512_step(iq_avx512_lanes *lanes, const float *a, const float *b, iq_sum_kind kind) {
    lanes->r0 = iq_avx512_term(lanes->r0, _mm512_loadu_ps(a), _mm512_loadu_ps(b), kind);
    lanes->r1 = iq_avx512_term(lanes->r1, _mm512_loadu_ps(a + 16), _mm512_loadu_ps(b + 16), kind);
}

/* The first `count` < 16 floats at p, then zeros. */
IQ_INLINE IQ_AVX512 __m512 iq_avx512_load(const float *p, size_t count) {
    return _mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1u), p);
}

IQ_INLINE IQ_AVX512 float iq_avx512_pair(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    iq_avx512_lanes lanes = iq_avx512_zero();
    size_t rest = dim;
    for (; rest >= IQ_KERNEL_LANES; rest -= IQ_KERNEL_LANES, a += IQ_KERNEL_LANES, b += IQ_KERNEL_LANES)
        iq_avx512_step(&lanes, a, b, kind);
    if (rest >= 16) {
        lanes.r0 = iq_avx512_term(lanes.r0, _mm512_loadu_ps(a), _mm512_loadu_ps(b), kind);
        lanes.r1 = iq_avx512_term(lanes.r1, iq_avx512_load(a + 16, rest - 16), iq_avx512_load(b + 16, rest - 16), kind);
    } else {
        lanes.r0 = iq_avx512_term(lanes.r0, iq_avx512_load(a, rest), iq_avx512_load(b, rest), kind);
    }
    return iq_avx512_sum(&lanes);
}

IQ_INLINE IQ_AVX512 void iq_avx512_stream(const float *query, const float *rows, size_t stride, size_t count,
                                          float *out_sums, iq_sum_kind kind) {
    for (size_t row = 0; row < count; row++, rows += stride) {
        iq_avx512_lanes lanes = iq_avx512_zero();
        size_t i = 0;
        for (; i + IQ_KERNEL_LANES <= stride; i += IQ_KERNEL_LANES) {
            iq_kernel_prefetch(rows + i, IQ_AVX512_AHEAD);
            iq_kernel_prefetch(rows + i, IQ_AVX512_AHEAD + 64);
            iq_avx512_step(&lanes, query + i, rows + i, kind);
        }
        if (i < stride)
            lanes.r0 = iq_avx512_term(lanes.r0, _mm512_loadu_ps(query + i), _mm512_loadu_ps(rows + i), kind);
        out_sums[row] = iq_avx512_sum(&lanes);
    }
}

/* One register of a query with three rows. */
IQ_INLINE IQ_AVX512 void iq_avx512_terms(__m512 *lanes_0, __m512 *lanes_1, __m512 *lanes_2, const float *query,
                                         const float *rows, size_t stride, iq_sum_kind kind) {
    const __m512 x = _mm512_loadu_ps(query);
    *lanes_0 = iq_avx512_term(*lanes_0, x, _mm512_loadu_ps(rows), kind);
    *lanes_1 = iq_avx512_term(*lanes_1, x, _mm512_loadu_ps(rows + stride), kind);
    *lanes_2 = iq_avx512_term(*lanes_2, x, _mm512_loadu_ps(rows + 2 * stride), kind);
}

/* One query against IQ_TILE_ROWS rows: six registers of lanes are as many sums as the units can have under way. */
IQ_INLINE IQ_AVX512 void iq_avx512_tile(const float *query, const float *rows, size_t stride, float *out_sums,
                                        iq_sum_kind kind) {
    iq_avx512_lanes a = iq_avx512_zero(), b = iq_avx512_zero(), c = iq_avx512_zero();
    for (size_t i = 0; i < stride; i += IQ_KERNEL_LANES, query += IQ_KERNEL_LANES, rows += IQ_KERNEL_LANES) {
        iq_avx512_terms(&a.r0, &b.r0, &c.r0, query, rows, stride, kind);
        if (stride - i == IQ_ROW_FLOATS) break;
        iq_avx512_terms(&a.r1, &b.r1, &c.r1, query + 16, rows + 16, stride, kind);
    }
    out_sums[0] = iq_avx512_sum(&a);
    out_sums[1] = iq_avx512_sum(&b);
    out_sums[2] = iq_avx512_sum(&c);
}

IQ_INLINE IQ_AVX512 void iq_avx512_scan(const float *queries, size_t query_count, const float *rows, size_t stride,
                                        size_t row_count, float *out_sums, iq_sum_kind kind) {
    const size_t size = IQ_TILE_ROWS * stride * sizeof(float), share = iq_kernel_tile_share(size, query_count);
    size_t row = 0;
    for (; query_count > 1 && row + IQ_TILE_ROWS <= row_count; row += IQ_TILE_ROWS, rows += IQ_TILE_ROWS * stride) {
        for (size_t q = 0; q < query_count; q++) {
            iq_kernel_prefetch_share(rows, size, q, share);
            iq_avx512_tile(queries + q * stride, rows, stride, out_sums + q * row_count + row, kind);
        }
    }
    for (size_t q = 0; q < query_count && row < row_count; q++)
        iq_avx512_stream(queries + q * stride, rows, stride, row_count - row, out_sums + q * row_count + row, kind);
}

/* ---- sifting ---- */

/* One row with four queries. */
typedef struct iq_avx512_quad {
    __m512 a, b, c, d;
} iq_avx512_quad;

/* Which of the four products are not below their bounds: four bits. */
IQ_INLINE IQ_AVX512 uint32_t iq_avx512_keep(const iq_avx512_quad *row, const iq_sift_bounds *bounds, size_t r) {
    const __m256 ab = _mm256_hadd_ps(iq_avx512_fold(row->a), iq_avx512_fold(row->b));
    const __m256 halves = _mm256_hadd_ps(ab, _mm256_hadd_ps(iq_avx512_fold(row->c), iq_avx512_fold(row->d)));
    const __m128 sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
    const __m128 fixed = _mm_add_ps(_mm_loadu_ps(bounds->offsets), _mm_set1_ps(bounds->terms[r]));
    const __m128 slope = _mm_mul_ps(_mm_loadu_ps(bounds->slopes), _mm_set1_ps(bounds->norms[r]));
    return (uint32_t)_mm_movemask_ps(_mm_cmpnlt_ps(sums, _mm_add_ps(fixed, slope)));
}

/* One register of a query with those of three rows. */
IQ_INLINE IQ_AVX512 void iq_avx512_fuse(__m512 *x, __m512 *y, __m512 *z, const float *query, __m512 row_x, __m512 row_y,
                                        __m512 row_z) {
    const __m512 v = _mm512_loadu_ps(query);
    *x = _mm512_fmadd_ps(v, row_x, *x);
    *y = _mm512_fmadd_ps(v, row_y, *y);
    *z = _mm512_fmadd_ps(v, row_z, *z);
}

static IQ_AVX512 void iq_avx512_sift(const float *queries, const float *rows, size_t stride, size_t row_count,
                                     const iq_sift_bounds *bounds, uint32_t *out_masks) {
    for (size_t next = 0; next < row_count; next += IQ_TILE_ROWS) {
        /* The rest is a tile that overlaps another. */
        const size_t r = next + IQ_TILE_ROWS <= row_count ? next : row_count - IQ_TILE_ROWS;
        const float *query = queries, *row = rows + r * stride;
        iq_avx512_quad x, y, z;
        x.a = x.b = x.c = x.d = y.a = y.b = y.c = y.d = z.a = z.b = z.c = z.d = _mm512_setzero_ps();
        for (size_t i = 0; i < stride; i += 16, query += 16, row += 16) {
            const __m512 row_x = _mm512_loadu_ps(row), row_y = _mm512_loadu_ps(row + stride);
            const __m512 row_z = _mm512_loadu_ps(row + 2 * stride);
            iq_avx512_fuse(&x.a, &y.a, &z.a, query, row_x, row_y, row_z);
            iq_avx512_fuse(&x.b, &y.b, &z.b, query + stride, row_x, row_y, row_z);
            iq_avx512_fuse(&x.c, &y.c, &z.c, query + 2 * stride, row_x, row_y, row_z);
            iq_avx512_fuse(&x.d, &y.d, &z.d, query + 3 * stride, row_x, row_y, row_z);
        }
        out_masks[r] = iq_avx512_keep(&x, bounds, r);
        out_masks[r + 1] = iq_avx512_keep(&y, bounds, r + 1);
        out_masks[r + 2] = iq_avx512_keep(&z, bounds, r + 2);
    }
}

static IQ_AVX512 float iq_avx512_pair_of(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS) return iq_avx512_pair(a, b, dim, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) return iq_avx512_pair(a, b, dim, IQ_SUM_SQUARES);
    return iq_avx512_pair(a, b, dim, IQ_SUM_ABSOLUTES);
}

static IQ_AVX512 void iq_avx512_scan_of(const float *queries, size_t query_count, const float *rows, size_t stride,
                                        size_t row_count, float *out_sums, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS)
        iq_avx512_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) iq_avx512_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_SQUARES);
    if (kind == IQ_SUM_ABSOLUTES)
        iq_avx512_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_ABSOLUTES);
}

IQ_FN const iq_kernel *iq_kernel_avx512(void) {
    static const iq_kernel kernel = {"avx512", iq_avx512_pair_of, iq_avx512_scan_of, iq_avx512_sift};
    return &kernel;
}

#endif

/* ======== [kernel/distance.h] ======== */
/* From sums to the scores that are returned. The rules of the contract stand here and nowhere else:
 *   L2     = sqrt(sum (a-b)^2)
 *   COSINE = clamp(1 - (a.b / |a|) / |b|, 0, 2), 1 where either norm is 0; a is the query or first argument
 *   DOT    = 0 - a.b
 *   L1     = sum |a-b|
 * Where a sum (or, for the cosine, a norm) is not finite, everything is done again in f64 in the same order and rounded
 * once; a norm that is 0 as stored stays 0. Scores are never -0 and never NaN for finite vectors. */

/* |v| as it is stored: f32 root of the canonical sum of squares; from f64 where that is not finite. */
IQ_FN float iq_vector_norm_of(const iq_kernel *kernel, const float *v, size_t dim);

/* The sums that iq_score_finish turns into scores of this metric (not DEFAULT). */
IQ_INLINE iq_sum_kind iq_score_sum_kind(iqdb_metric metric) {
    return metric == IQDB_L2 ? IQ_SUM_SQUARES : metric == IQDB_L1 ? IQ_SUM_ABSOLUTES : IQ_SUM_PRODUCTS;
}

/* The score from the canonical sum. a and b are read only where the sum or a norm is not finite; norms only for
 * COSINE. */
IQ_FN float iq_score_finish(iqdb_metric metric, float sum, float norm_a, float norm_b, const float *a, const float *b,
                            size_t dim);

/* What iq_score_is_beyond compares sums with: a value that only rows surely behind `threshold` are beyond, and one that
 * no row is beyond where nothing is sure. norm_a only for COSINE. */
IQ_FN float iq_score_sum_bound(iqdb_metric metric, float threshold, float norm_a);

/* Below it (and where it is not finite) a norm says too little: products of two may vanish. */
#define IQ_NORM_SURE 8.8817841970012523e-16f /* 2^-50 */

/* Whether the finished score of this sum would surely be greater than the bound's threshold. Never says so of a row
 * whose score equals the threshold, whatever was rounded on the way; norm_b only for COSINE. A sum that is not finite
 * says nothing, because it is done again. */
IQ_INLINE bool iq_score_is_beyond(iqdb_metric metric, float sum, float norm_b, float bound) {
    if ((iq_f32_bits(sum) & 0x7F800000u) == 0x7F800000u) return false;
    if (metric == IQDB_L2 || metric == IQDB_L1) return sum > bound;
    if (metric == IQDB_DOT) return sum < bound;
    return sum < bound * norm_b && norm_b >= IQ_NORM_SURE && norm_b <= 3.402823466e+38f;
}

/* ---- bounds on products that were added up in any order (iq_sift_fn) ---- */

/* Offset and slope of a query's bound: a row with a product below offset + slope * norm_b + iq_score_sift_term is beyond
 * `bound`, of iq_score_sum_bound. False where nothing can be said: not for L1, nor without a bound or a safe norm. */
IQ_FN bool iq_score_sift_bound(iqdb_metric metric, float bound, float norm_a, size_t stride, float *out_offset,
                               float *out_slope);

/* A row's part of the bound, with scale from iq_score_sift_scale; only for rows with a safe norm. */
IQ_FN float iq_score_sift_scale(iqdb_metric metric, size_t stride);
IQ_INLINE float iq_score_sift_term(float scale, float norm_b) {
    return scale * norm_b * norm_b;
}

/* Norms in [2^-40, 2^60]: sums cannot overflow, and what is lost below the smallest number is nothing to them. */
IQ_INLINE bool iq_norm_is_safe(float norm) {
    return iq_f32_bits(norm) - 0x2B800000u <= 0x5D800000u - 0x2B800000u;
}

/* All elements finite, which the sum of their squares tells, or else their bits: no floating-point flag can fold the
 * test away. */
IQ_FN bool iq_vector_is_finite(const iq_kernel *kernel, const float *v, size_t dim);
/* The same, and the norm, in one pass. */
IQ_FN bool iq_vector_measure(const iq_kernel *kernel, const float *v, size_t dim, float *out_norm);

/* ======== [kernel/distance.c] ======== */
/* From sums to scores: the rules of distance.h.
 *
 * 1. Every operation is rounded to its type once: results pass through iq_strict_f32 and iq_strict_f64, so that a
 *    score has the same bits under any flags.
 * 2. The f64 sums have the lanes and the tree of the kernels; products of two f32 are exact in f64, and no sum of
 *    65,536 of them overflows, so the second try is always finite before it is rounded to f32.
 * 3. Whether a number is finite is asked of its bits: comparisons may be folded away under -ffast-math. */

/* Public functions have no handle that remembers what the machine can do; they take what the compiler may assume. */
#if IQ_X86
#define IQ_DISTANCE_KERNEL iq_kernel_sse2()
#elif IQ_NEON
#define IQ_DISTANCE_KERNEL iq_kernel_neon()
#else
#define IQ_DISTANCE_KERNEL iq_kernel_scalar()
#endif

IQ_INLINE bool iq_distance_finite(float v) {
    return (iq_f32_bits(v) & 0x7F800000u) != 0x7F800000u;
}

/* ---- in f64 ---- */

/* The canonical sum, like iq_scalar_sum. */
static double iq_distance_sum_f64(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    double lanes[IQ_KERNEL_LANES], terms[IQ_KERNEL_LANES];
    memset(lanes, 0, sizeof lanes);
    for (size_t i = 0; i < dim; i += IQ_KERNEL_LANES) {
        const size_t count = dim - i < IQ_KERNEL_LANES ? dim - i : IQ_KERNEL_LANES;
        for (size_t j = 0; j < count; j++) {
            const double x = (double)a[i + j], y = (double)b[i + j];
            terms[j] = kind == IQ_SUM_PRODUCTS ? x * y : kind == IQ_SUM_ABSOLUTES && x < y ? y - x : x - y;
        }
        IQ_STRICT_MEMORY(terms);
        if (kind == IQ_SUM_SQUARES)
            for (size_t j = 0; j < count; j++) terms[j] *= terms[j];
        IQ_STRICT_MEMORY(terms);
        for (size_t j = 0; j < count; j++) lanes[j] += terms[j];
        IQ_STRICT_MEMORY(lanes);
    }
    for (size_t half = IQ_KERNEL_LANES / 2; half > 0; half /= 2) {
        for (size_t j = 0; j < half; j++) lanes[j] += lanes[j + half];
        IQ_STRICT_MEMORY(lanes);
    }
    return lanes[0];
}

static double iq_distance_norm_f64(const float *v, size_t dim) {
    return iq_sqrt_f64(iq_distance_sum_f64(v, v, dim, IQ_SUM_PRODUCTS));
}

static double iq_distance_score_f64(iqdb_metric metric, const float *a, const float *b, size_t dim) {
    const double sum = iq_distance_sum_f64(a, b, dim, iq_score_sum_kind(metric));
    if (metric == IQDB_L1) return sum;
    if (metric == IQDB_L2) return iq_sqrt_f64(sum);
    if (metric == IQDB_DOT) return iq_strict_f64(0.0) - sum;
    const double ratio = iq_strict_f64(sum / iq_distance_norm_f64(a, dim));
    const double score = 1.0 - iq_strict_f64(ratio / iq_distance_norm_f64(b, dim));
    return score < 0.0 ? 0.0 : score > 2.0 ? 2.0 : score;
}

/* ---- in f32 ---- */

IQ_FN float iq_vector_norm_of(const iq_kernel *kernel, const float *v, size_t dim) {
    const float sum = kernel->pair(v, v, dim, IQ_SUM_PRODUCTS);
    if (IQ_LIKELY(iq_distance_finite(sum))) return iq_sqrt_f32(sum);
    const uint16_t unit = iq_strict_f64_begin();
    const float norm = iq_strict_f32((float)iq_distance_norm_f64(v, dim));
    iq_strict_f64_end(unit);
    return norm;
}

IQ_FN float iq_score_finish(iqdb_metric metric, float sum, float norm_a, float norm_b, const float *a, const float *b,
                            size_t dim) {
    const bool cosine = metric == IQDB_COSINE;
    if (cosine && (norm_a == 0.0f || norm_b == 0.0f)) return 1.0f;
    if (IQ_UNLIKELY(!iq_distance_finite(sum) ||
                    (cosine && !(iq_distance_finite(norm_a) && iq_distance_finite(norm_b))))) {
        const uint16_t unit = iq_strict_f64_begin();
        const float score = iq_strict_f32((float)iq_distance_score_f64(metric, a, b, dim));
        iq_strict_f64_end(unit);
        return score;
    }
    if (metric == IQDB_L1) return sum;
    if (metric == IQDB_L2) return iq_sqrt_f32(sum);
    /* The compiler may not see that this is a zero: -ffast-math would make it -sum, which can be -0. */
    if (metric == IQDB_DOT) return iq_strict_f32(iq_strict_f32(0.0f) - sum);
    const float ratio = iq_strict_f32(sum / norm_a);
    const float score = iq_strict_f32(1.0f - iq_strict_f32(ratio / norm_b));
    return score < 0.0f ? 0.0f : score > 2.0f ? 2.0f : score;
}

/* ---- bounds ---- */

/* The next larger f32; v is neither NaN nor infinite. */
IQ_INLINE float iq_distance_up(float v) {
    const uint32_t bits = iq_f32_bits(v);
    if ((bits & 0x7FFFFFFFu) == 0) return iq_f32_from_bits(1);
    return iq_f32_from_bits(bits & 0x80000000u ? bits - 1 : bits + 1);
}

/* A finite sum above it has a root above `threshold`. Let m be the middle between the threshold and the next f32, u. A
 * root greater than m is rounded to u or more, so m^2 is the bound: 25 bits squared are exact in f64. Rounding it to
 * f32 puts no sum, being one, on the other side. */
static float iq_distance_bound_l2(float threshold) {
    const double middle = ((double)threshold + (double)iq_distance_up(threshold)) * 0.5;
    return iq_strict_f32((float)iq_strict_f64(middle * middle));
}

/* A row with sum < bound * norm_b has a score above `threshold`, where both norms are in [2^-50, FLT_MAX].
 * Below a threshold of 0 every row has. Else let u be the next f32 above the threshold t < 2; it is at most t + 2^-23.
 * With q the twice rounded quotient, 1 - q >= u in real numbers suffices: u is an f32, so rounding cannot get below it,
 * and clamping to 2 cannot either. That is q <= c with c = 1 - u. Each of four roundings (bound, bound * norm_b, two
 * quotients) moves a number by 2^-24 of its size at most, or by 2^-150 where it is subnormal, which norms of at least
 * 2^-50 turn into less than 2^-49. With |c| <= 1 (a more negative q only helps) that is less than 2^-21 together, and
 * 2^-23 + 2^-21 < 2^-20, so a bound made of 1 - t - 2^-20 keeps q <= c. A product bound * norm_b that overflows lies on
 * the same side of every finite sum as its exact value does. */
static float iq_distance_bound_cosine(float threshold, float norm_a) {
    if (!(threshold < 2.0f) || !(norm_a >= IQ_NORM_SURE) || !iq_distance_finite(norm_a))
        return iq_f32_from_bits(0xFF800000u);
    return iq_strict_f32((float)((1.0 - (double)threshold - 1.0 / 1048576.0) * (double)norm_a));
}

IQ_FN float iq_score_sum_bound(iqdb_metric metric, float threshold, float norm_a) {
    if (!iq_distance_finite(threshold))
        return iq_f32_from_bits(metric == IQDB_L2 || metric == IQDB_L1 ? 0x7F800000u : 0xFF800000u);
    if (metric == IQDB_L2) return iq_distance_bound_l2(threshold);
    if (metric == IQDB_COSINE) return iq_distance_bound_cosine(threshold, norm_a);
    if (metric == IQDB_L1) return threshold; /* the score is the sum */
    return -threshold;                       /* the score of a finite sum is -sum, exactly */
}

/* A sift adds products up in another order. Let u = 2^-24, A = |a|, B = |b|, p = a.b and D = |a - b|^2 in real numbers,
 * q the sum of a sift, c the canonical one, s the stride, a and b the norms as stored. A number that goes through n
 * roundings is off by n u / (1 - n u) of its size at most (Higham, "Accuracy and Stability of Numerical Algorithms",
 * lemma 3.1), here less than 1.002 n u; and the sizes of all terms of p add up to AB at most (Cauchy and Schwarz). So
 *   |q - p| <= 1.002 (s/4 + 6) u AB     see kernel.h
 *   |c - p| <= 1.002 (s/32 + 7) u AB    for products: the product, its lane, five levels of the tree
 *   |c - D| <= 1.002 (s/32 + 9) u D     for squares: a difference counts twice
 * and the square of a stored norm is off by 1.002 (s/32 + 9) u of itself, likewise. Beside that, each number that is
 * subnormal, or flushed by a processor told to, is off by 2^-126 at most; where norms are 2^-40 or more, all of those
 * together are less than u ab, u a^2 and u b^2. Norms of 2^60 or less keep every sum finite.
 *   DOT and COSINE: beyond is c < t, where t is `bound`, or bound * b within u |t|. As c <= q + e with
 *   e = 1.01 (s/4 + s/32 + 14) u ab, q < t - e suffices. It is evaluated with less than five roundings of numbers that
 *   decide only while they are less than 2 ab, because |q| is: 10 u ab. There is 32 in place of 14 to cover them.
 *   L2: beyond is c > t. With g = 1.01 (s/32 + 11) u, c >= (1 - g) D and D >= (1 - g) (a^2 + b^2) - 2 q - 2 e, so that
 *   q < ((1 - g) (a^2 + b^2) - (1 + g) t) / 2 - e suffices. It is evaluated with less than ten roundings of numbers
 *   that are not larger than (a^2 + b^2 + t) / 2. There is 32 in place of 11 to cover them. */
#define IQ_SIFT_UNIT (1.01 / 16777216.0)

IQ_INLINE double iq_distance_sift_squares(size_t stride) {
    return ((double)stride / 32.0 + 32.0) * IQ_SIFT_UNIT;
}

IQ_FN float iq_score_sift_scale(iqdb_metric metric, size_t stride) {
    return metric == IQDB_L2 ? (float)(0.5 - 0.5 * iq_distance_sift_squares(stride)) : 0.0f;
}

IQ_FN bool iq_score_sift_bound(iqdb_metric metric, float bound, float norm_a, size_t stride, float *out_offset,
                               float *out_slope) {
    const double g = iq_distance_sift_squares(stride), t = (double)bound, a = (double)norm_a;
    const double slack = ((double)stride / 4.0 + (double)stride / 32.0 + 32.0) * IQ_SIFT_UNIT * a;
    *out_offset = *out_slope = 0.0f;
    if (metric == IQDB_L1 || !iq_distance_finite(bound) || !iq_norm_is_safe(norm_a)) return false;
    *out_offset = metric == IQDB_L2    ? (float)(((1.0 - g) * a * a - (1.0 + g) * t) / 2.0)
                  : metric == IQDB_DOT ? bound
                                       : 0.0f;
    *out_slope = (float)(metric == IQDB_COSINE ? t - slack : -slack);
    return true;
}

/* ---- vectors without a database ---- */

static bool iq_distance_all_finite(const float *v, size_t dim) {
    uint32_t bad = 0;
    for (size_t i = 0; i < dim; i++) bad |= (uint32_t)((iq_f32_bits(v[i]) & 0x7FFFFFFFu) >= 0x7F800000u);
    return bad == 0;
}

/* No square is negative: a finite sum of them tells that all are finite, and so does its root. */
IQ_FN bool iq_vector_is_finite(const iq_kernel *kernel, const float *v, size_t dim) {
    return IQ_LIKELY(iq_distance_finite(kernel->pair(v, v, dim, IQ_SUM_PRODUCTS))) || iq_distance_all_finite(v, dim);
}

IQ_FN bool iq_vector_measure(const iq_kernel *kernel, const float *v, size_t dim, float *out_norm) {
    *out_norm = iq_vector_norm_of(kernel, v, dim);
    return IQ_LIKELY(iq_distance_finite(*out_norm)) || iq_distance_all_finite(v, dim);
}

IQDB_API iqdb_result iqdb_vector_check(const float *vector, size_t dim) {
    if (vector == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (dim == 0 || dim > IQDB_DIM_MAX || !iq_vector_is_finite(IQ_DISTANCE_KERNEL, vector, dim))
        return IQDB_ERR_INVALID_VECTOR;
    return IQDB_OK;
}

IQDB_API float iqdb_vector_norm(const float *vector, size_t dim) {
    if (iqdb_vector_check(vector, dim) != IQDB_OK) return 0.0f;
    return iq_vector_norm_of(IQ_DISTANCE_KERNEL, vector, dim);
}

IQDB_API iqdb_result iqdb_distance(iqdb_metric metric, const float *a, const float *b, size_t dim,
                                   float *out_distance) {
    const iq_kernel *kernel = IQ_DISTANCE_KERNEL;
    float norm_a = 0.0f, norm_b = 0.0f;
    if (a == NULL || b == NULL || out_distance == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (metric == IQDB_METRIC_DEFAULT) metric = IQDB_COSINE;
    if (metric < IQDB_L2 || metric > IQDB_L1) return IQDB_ERR_INVALID_ARGUMENT;
    if (iqdb_vector_check(a, dim) != IQDB_OK || iqdb_vector_check(b, dim) != IQDB_OK) return IQDB_ERR_INVALID_VECTOR;
    if (metric == IQDB_COSINE) {
        norm_a = iq_vector_norm_of(kernel, a, dim);
        norm_b = iq_vector_norm_of(kernel, b, dim);
    }
    *out_distance =
        iq_score_finish(metric, kernel->pair(a, b, dim, iq_score_sum_kind(metric)), norm_a, norm_b, a, b, dim);
    return IQDB_OK;
}

/* ======== [kernel/quads.c] ======== */
/* The canonical order in eight registers of four lanes: SSE2, and NEON on 64-bit ARM.
 *
 * 1. Register r holds lanes 4r .. 4r + 3. Products and lanes pass through IQ_STRICT_VECTOR, so that no flag makes a
 *    compiler fuse or reorder them: gcc fuses vectors as it does a * b + c, unless it is told not to contract.
 * 2. Nothing outside a[0, dim) and b[0, dim) is read: a tail is copied between zeros first.
 * 3. The 64-bit unit of ARM keeps subnormals, as the canonical order wants; the 32-bit one flushes them and has no
 *    kernel.
 * 4. A sift has none of this: its sums only bound others. */

#if IQ_X86 || IQ_NEON

/* ---- what the two do not share ---- */

#if IQ_X86

#include <immintrin.h>

typedef __m128 iq_quad;
#define IQ_QUAD_REGISTERS 16

IQ_INLINE iq_quad iq_quad_load(const float *p) {
    return _mm_loadu_ps(p);
}

IQ_INLINE iq_quad iq_quad_absolute(iq_quad v) {
    return _mm_and_ps(v, _mm_castsi128_ps(_mm_set1_epi32(0x7FFFFFFF)));
}

/* Lanes 2 and 3 in the place of 0 and 1; lane 1 in the place of 0. */
IQ_INLINE iq_quad iq_quad_upper(iq_quad v) {
    return _mm_movehl_ps(v, v);
}
IQ_INLINE iq_quad iq_quad_second(iq_quad v) {
    return _mm_shuffle_ps(v, v, 1);
}

#else

#include <arm_neon.h>

typedef float32x4_t iq_quad;
#define IQ_QUAD_REGISTERS 32

IQ_INLINE iq_quad iq_quad_load(const float *p) {
    return vld1q_f32(p);
}

IQ_INLINE iq_quad iq_quad_absolute(iq_quad v) {
    return vabsq_f32(v);
}

IQ_INLINE iq_quad iq_quad_upper(iq_quad v) {
    return vextq_f32(v, v, 2);
}
IQ_INLINE iq_quad iq_quad_second(iq_quad v) {
    return vextq_f32(v, v, 1);
}

#endif

/* ---- sums ---- */

#define IQ_QUAD_AHEAD 512 /* bytes that a scan prefetches ahead */

typedef struct iq_quad_lanes {
    iq_quad r0, r1, r2, r3, r4, r5, r6, r7;
} iq_quad_lanes;

IQ_INLINE iq_quad iq_quad_plus(iq_quad lanes, iq_quad more) {
    lanes = lanes + more;
    IQ_STRICT_VECTOR(lanes);
    return lanes;
}

IQ_INLINE iq_quad iq_quad_term(iq_quad lanes, iq_quad x, iq_quad y, iq_sum_kind kind) {
    const iq_quad difference = x - y;
#if IQ_FAST_FP && IQ_NEON
    if (kind == IQ_SUM_PRODUCTS) return vfmaq_f32(lanes, x, y);
    if (kind == IQ_SUM_SQUARES) return vfmaq_f32(lanes, difference, difference);
#endif
    iq_quad term = iq_quad_absolute(difference);
    if (kind == IQ_SUM_PRODUCTS) term = x * y;
    if (kind == IQ_SUM_SQUARES) term = difference * difference;
    IQ_STRICT_VECTOR(term);
    return lanes + term;
}

IQ_INLINE void iq_quad_half_step(iq_quad_lanes *lanes, const float *a, const float *b, iq_sum_kind kind) {
    lanes->r0 = iq_quad_term(lanes->r0, iq_quad_load(a), iq_quad_load(b), kind);
    lanes->r1 = iq_quad_term(lanes->r1, iq_quad_load(a + 4), iq_quad_load(b + 4), kind);
    lanes->r2 = iq_quad_term(lanes->r2, iq_quad_load(a + 8), iq_quad_load(b + 8), kind);
    lanes->r3 = iq_quad_term(lanes->r3, iq_quad_load(a + 12), iq_quad_load(b + 12), kind);
    IQ_STRICT_VECTORS(lanes->r0, lanes->r1, lanes->r2, lanes->r3);
}

IQ_INLINE void iq_quad_step(iq_quad_lanes *lanes, const float *a, const float *b, iq_sum_kind kind) {
    iq_quad_half_step(lanes, a, b, kind);
    lanes->r4 = iq_quad_term(lanes->r4, iq_quad_load(a + 16), iq_quad_load(b + 16), kind);
    lanes->r5 = iq_quad_term(lanes->r5, iq_quad_load(a + 20), iq_quad_load(b + 20), kind);
    lanes->r6 = iq_quad_term(lanes->r6, iq_quad_load(a + 24), iq_quad_load(b + 24), kind);
    lanes->r7 = iq_quad_term(lanes->r7, iq_quad_load(a + 28), iq_quad_load(b + 28), kind);
    IQ_STRICT_VECTORS(lanes->r4, lanes->r5, lanes->r6, lanes->r7);
}

IQ_INLINE iq_quad_lanes iq_quad_zero(void) {
    const iq_quad zero = {0.0f, 0.0f, 0.0f, 0.0f};
    iq_quad_lanes lanes;
    lanes.r0 = lanes.r1 = lanes.r2 = lanes.r3 = lanes.r4 = lanes.r5 = lanes.r6 = lanes.r7 = zero;
    return lanes;
}

/* The fixed tree: 16, 8, 4, then 2 and 1 inside the register. */
IQ_INLINE float iq_quad_sum(const iq_quad_lanes *lanes) {
    const iq_quad s0 = iq_quad_plus(lanes->r0, lanes->r4), s1 = iq_quad_plus(lanes->r1, lanes->r5);
    const iq_quad s2 = iq_quad_plus(lanes->r2, lanes->r6), s3 = iq_quad_plus(lanes->r3, lanes->r7);
    iq_quad s = iq_quad_plus(iq_quad_plus(s0, s2), iq_quad_plus(s1, s3));
    s = iq_quad_plus(s, iq_quad_upper(s));
    s = iq_quad_plus(s, iq_quad_second(s));
    return s[0];
}

IQ_INLINE float iq_quad_pair(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    iq_quad_lanes lanes = iq_quad_zero();
    size_t i = 0;
    for (; i + IQ_KERNEL_LANES <= dim; i += IQ_KERNEL_LANES) iq_quad_step(&lanes, a + i, b + i, kind);
    if (dim - i == IQ_ROW_FLOATS) {
        iq_quad_half_step(&lanes, a + i, b + i, kind);
    } else if (i < dim) {
        float tail_a[IQ_KERNEL_LANES], tail_b[IQ_KERNEL_LANES];
        memset(tail_a, 0, sizeof tail_a);
        memset(tail_b, 0, sizeof tail_b);
        memcpy(tail_a, a + i, (dim - i) * sizeof(float));
        memcpy(tail_b, b + i, (dim - i) * sizeof(float));
        iq_quad_step(&lanes, tail_a, tail_b, kind);
    }
    return iq_quad_sum(&lanes);
}

IQ_INLINE void iq_quad_stream(const float *query, const float *rows, size_t stride, size_t count, float *out_sums,
                              iq_sum_kind kind) {
    for (size_t row = 0; row < count; row++, rows += stride) {
        iq_quad_lanes lanes = iq_quad_zero();
        size_t i = 0;
        for (; i + IQ_KERNEL_LANES <= stride; i += IQ_KERNEL_LANES) {
            iq_kernel_prefetch(rows + i, IQ_QUAD_AHEAD);
            iq_kernel_prefetch(rows + i, IQ_QUAD_AHEAD + 64);
            iq_quad_step(&lanes, query + i, rows + i, kind);
        }
        if (i < stride) iq_quad_half_step(&lanes, query + i, rows + i, kind);
        out_sums[row] = iq_quad_sum(&lanes);
    }
}

/* One register of a query with three rows. */
IQ_INLINE void iq_quad_terms(iq_quad *lanes_0, iq_quad *lanes_1, iq_quad *lanes_2, const float *query,
                             const float *rows, size_t stride, iq_sum_kind kind) {
    const iq_quad x = iq_quad_load(query);
    *lanes_0 = iq_quad_term(*lanes_0, x, iq_quad_load(rows), kind);
    *lanes_1 = iq_quad_term(*lanes_1, x, iq_quad_load(rows + stride), kind);
    *lanes_2 = iq_quad_term(*lanes_2, x, iq_quad_load(rows + 2 * stride), kind);
    IQ_STRICT_VECTOR(*lanes_0);
    IQ_STRICT_VECTOR(*lanes_1);
    IQ_STRICT_VECTOR(*lanes_2);
}

/* Half of the lanes of a query with three rows. */
IQ_INLINE void iq_quad_lower_terms(iq_quad_lanes *a, iq_quad_lanes *b, iq_quad_lanes *c, const float *query,
                                   const float *rows, size_t stride, iq_sum_kind kind) {
    iq_quad_terms(&a->r0, &b->r0, &c->r0, query, rows, stride, kind);
    iq_quad_terms(&a->r1, &b->r1, &c->r1, query + 4, rows + 4, stride, kind);
    iq_quad_terms(&a->r2, &b->r2, &c->r2, query + 8, rows + 8, stride, kind);
    iq_quad_terms(&a->r3, &b->r3, &c->r3, query + 12, rows + 12, stride, kind);
}
IQ_INLINE void iq_quad_upper_terms(iq_quad_lanes *a, iq_quad_lanes *b, iq_quad_lanes *c, const float *query,
                                   const float *rows, size_t stride, iq_sum_kind kind) {
    iq_quad_terms(&a->r4, &b->r4, &c->r4, query, rows, stride, kind);
    iq_quad_terms(&a->r5, &b->r5, &c->r5, query + 4, rows + 4, stride, kind);
    iq_quad_terms(&a->r6, &b->r6, &c->r6, query + 8, rows + 8, stride, kind);
    iq_quad_terms(&a->r7, &b->r7, &c->r7, query + 12, rows + 12, stride, kind);
}

/* One query against IQ_TILE_ROWS rows. Without room for all lanes there are two passes, each over its own cache lines. */
IQ_INLINE void iq_quad_tile(const float *query, const float *rows, size_t stride, float *out_sums, iq_sum_kind kind) {
    iq_quad_lanes a = iq_quad_zero(), b = iq_quad_zero(), c = iq_quad_zero();
    for (size_t i = 0; i < stride; i += IQ_KERNEL_LANES) {
        iq_quad_lower_terms(&a, &b, &c, query + i, rows + i, stride, kind);
        if (IQ_QUAD_REGISTERS == 32 && stride - i > IQ_ROW_FLOATS)
            iq_quad_upper_terms(&a, &b, &c, query + i + 16, rows + i + 16, stride, kind);
    }
    for (size_t i = 16; IQ_QUAD_REGISTERS == 16 && i < stride; i += IQ_KERNEL_LANES)
        iq_quad_upper_terms(&a, &b, &c, query + i, rows + i, stride, kind);
    out_sums[0] = iq_quad_sum(&a);
    out_sums[1] = iq_quad_sum(&b);
    out_sums[2] = iq_quad_sum(&c);
}

IQ_INLINE void iq_quad_scan(const float *queries, size_t query_count, const float *rows, size_t stride,
                            size_t row_count, float *out_sums, iq_sum_kind kind) {
    const size_t size = IQ_TILE_ROWS * stride * sizeof(float), share = iq_kernel_tile_share(size, query_count);
    size_t row = 0;
    for (; query_count > 1 && row + IQ_TILE_ROWS <= row_count; row += IQ_TILE_ROWS, rows += IQ_TILE_ROWS * stride) {
        for (size_t q = 0; q < query_count; q++) {
            iq_kernel_prefetch_share(rows, size, q, share);
            iq_quad_tile(queries + q * stride, rows, stride, out_sums + q * row_count + row, kind);
        }
    }
    for (size_t q = 0; q < query_count && row < row_count; q++)
        iq_quad_stream(queries + q * stride, rows, stride, row_count - row, out_sums + q * row_count + row, kind);
}

static float iq_quad_pair_of(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS) return iq_quad_pair(a, b, dim, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) return iq_quad_pair(a, b, dim, IQ_SUM_SQUARES);
    return iq_quad_pair(a, b, dim, IQ_SUM_ABSOLUTES);
}

static void iq_quad_scan_of(const float *queries, size_t query_count, const float *rows, size_t stride,
                            size_t row_count, float *out_sums, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS) iq_quad_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) iq_quad_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_SQUARES);
    if (kind == IQ_SUM_ABSOLUTES)
        iq_quad_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_ABSOLUTES);
}

#if IQ_X86

IQ_FN const iq_kernel *iq_kernel_sse2(void) {
    static const iq_kernel kernel = {"sse2", iq_quad_pair_of, iq_quad_scan_of, NULL};
    return &kernel;
}

#else

/* ---- sifting ---- */

/* One row with four queries. */
typedef struct iq_neon_quad {
    iq_quad a, b, c, d;
} iq_neon_quad;

/* Which of the four products are not below their bounds: four bits. */
IQ_INLINE uint32_t iq_neon_keep(const iq_neon_quad *row, const iq_sift_bounds *bounds, size_t r) {
    static const uint32_t bits[4] = {1, 2, 4, 8};
    const iq_quad sums = vpaddq_f32(vpaddq_f32(row->a, row->b), vpaddq_f32(row->c, row->d));
    const iq_quad fixed = vaddq_f32(vld1q_f32(bounds->offsets), vdupq_n_f32(bounds->terms[r]));
    const iq_quad slope = vmulq_f32(vld1q_f32(bounds->slopes), vdupq_n_f32(bounds->norms[r]));
    return vaddvq_u32(vbicq_u32(vld1q_u32(bits), vcltq_f32(sums, vaddq_f32(fixed, slope))));
}

/* One register of a query with those of three rows. */
IQ_INLINE void iq_neon_fuse(iq_quad *x, iq_quad *y, iq_quad *z, const float *query, iq_quad row_x, iq_quad row_y,
                            iq_quad row_z) {
    const iq_quad v = vld1q_f32(query);
    *x = vfmaq_f32(*x, v, row_x);
    *y = vfmaq_f32(*y, v, row_y);
    *z = vfmaq_f32(*z, v, row_z);
}

static void iq_neon_sift(const float *queries, const float *rows, size_t stride, size_t row_count,
                         const iq_sift_bounds *bounds, uint32_t *out_masks) {
    for (size_t next = 0; next < row_count; next += IQ_TILE_ROWS) {
        /* The rest is a tile that overlaps another. */
        const size_t r = next + IQ_TILE_ROWS <= row_count ? next : row_count - IQ_TILE_ROWS;
        const float *query = queries, *row = rows + r * stride;
        iq_neon_quad x, y, z;
        x.a = x.b = x.c = x.d = y.a = y.b = y.c = y.d = z.a = z.b = z.c = z.d = vdupq_n_f32(0.0f);
        for (size_t i = 0; i < stride; i += 4, query += 4, row += 4) {
            const iq_quad row_x = vld1q_f32(row), row_y = vld1q_f32(row + stride);
            const iq_quad row_z = vld1q_f32(row + 2 * stride);
            iq_neon_fuse(&x.a, &y.a, &z.a, query, row_x, row_y, row_z);
            iq_neon_fuse(&x.b, &y.b, &z.b, query + stride, row_x, row_y, row_z);
            iq_neon_fuse(&x.c, &y.c, &z.c, query + 2 * stride, row_x, row_y, row_z);
            iq_neon_fuse(&x.d, &y.d, &z.d, query + 3 * stride, row_x, row_y, row_z);
        }
        out_masks[r] = iq_neon_keep(&x, bounds, r);
        out_masks[r + 1] = iq_neon_keep(&y, bounds, r + 1);
        out_masks[r + 2] = iq_neon_keep(&z, bounds, r + 2);
    }
}

IQ_FN const iq_kernel *iq_kernel_neon(void) {
    static const iq_kernel kernel = {"neon", iq_quad_pair_of, iq_quad_scan_of, iq_neon_sift};
    return &kernel;
}

#endif
#endif

/* ======== [kernel/scalar.c] ======== */
/* The canonical order in plain C: the kernel of every machine without one of its own, and the model for the others.
 *
 * 1. Lanes and terms live in arrays that IQ_STRICT_MEMORY guards after each operation: nothing is fused, reordered or
 *    kept wider, and each loop over an array may still become vector instructions.
 * 2. Nothing outside a[0, dim) and b[0, dim) is read. */

/* lanes[j] += the term of element j, for j < count <= IQ_KERNEL_LANES. */
IQ_INLINE void iq_scalar_step(float *lanes, const float *a, const float *b, size_t count, iq_sum_kind kind) {
    float terms[IQ_KERNEL_LANES];
    for (size_t j = 0; j < count; j++) terms[j] = kind == IQ_SUM_PRODUCTS ? a[j] * b[j] : a[j] - b[j];
    IQ_STRICT_MEMORY(terms);
    if (kind == IQ_SUM_ABSOLUTES)
        for (size_t j = 0; j < count; j++) terms[j] = iq_f32_from_bits(iq_f32_bits(terms[j]) & 0x7FFFFFFFu);
    if (kind == IQ_SUM_SQUARES) {
        for (size_t j = 0; j < count; j++) terms[j] *= terms[j];
        IQ_STRICT_MEMORY(terms);
    }
    for (size_t j = 0; j < count; j++) lanes[j] += terms[j];
}

IQ_INLINE void iq_scalar_fold(float *lanes, size_t half) {
    for (size_t j = 0; j < half; j++) lanes[j] += lanes[j + half];
}

IQ_INLINE float iq_scalar_sum(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    float lanes[IQ_KERNEL_LANES];
    size_t i = 0;
    memset(lanes, 0, sizeof lanes);
    for (; i + IQ_KERNEL_LANES <= dim; i += IQ_KERNEL_LANES) {
        iq_scalar_step(lanes, a + i, b + i, IQ_KERNEL_LANES, kind);
        IQ_STRICT_MEMORY(lanes);
    }
    if (dim - i == IQ_ROW_FLOATS)
        iq_scalar_step(lanes, a + i, b + i, IQ_ROW_FLOATS, kind);
    else
        iq_scalar_step(lanes, a + i, b + i, dim - i, kind);
    IQ_STRICT_MEMORY(lanes);
    iq_scalar_fold(lanes, 16); /* constants, because they become straight code */
    IQ_STRICT_MEMORY(lanes);
    iq_scalar_fold(lanes, 8);
    IQ_STRICT_MEMORY(lanes);
    iq_scalar_fold(lanes, 4);
    IQ_STRICT_MEMORY(lanes);
    iq_scalar_fold(lanes, 2);
    IQ_STRICT_MEMORY(lanes);
    return iq_strict_f32(lanes[0] + lanes[1]);
}

static float iq_scalar_pair_of(const float *a, const float *b, size_t dim, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS) return iq_scalar_sum(a, b, dim, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) return iq_scalar_sum(a, b, dim, IQ_SUM_SQUARES);
    return iq_scalar_sum(a, b, dim, IQ_SUM_ABSOLUTES);
}

/* A row at a time, because one is read from memory in less time than it is summed up. */
IQ_INLINE void iq_scalar_scan(const float *queries, size_t query_count, const float *rows, size_t stride,
                              size_t row_count, float *out_sums, iq_sum_kind kind) {
    for (size_t row = 0; row < row_count; row++)
        for (size_t q = 0; q < query_count; q++)
            out_sums[q * row_count + row] = iq_scalar_sum(queries + q * stride, rows + row * stride, stride, kind);
}

static void iq_scalar_scan_of(const float *queries, size_t query_count, const float *rows, size_t stride,
                              size_t row_count, float *out_sums, iq_sum_kind kind) {
    if (kind == IQ_SUM_PRODUCTS)
        iq_scalar_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_PRODUCTS);
    if (kind == IQ_SUM_SQUARES) iq_scalar_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_SQUARES);
    if (kind == IQ_SUM_ABSOLUTES)
        iq_scalar_scan(queries, query_count, rows, stride, row_count, out_sums, IQ_SUM_ABSOLUTES);
}

IQ_FN const iq_kernel *iq_kernel_scalar(void) {
    static const iq_kernel kernel = {"scalar", iq_scalar_pair_of, iq_scalar_scan_of, NULL};
    return &kernel;
}

/* ======== [persist/format.h] ======== */
/* THE byte tables of the files of a database: META, wal-<n>, snap-<n>. (LOCK is empty. What a record's body means is
 * in codec/record.h, what a section's bytes mean in persist/sections.h.)
 *
 * All numbers little-endian. Every CRC is the CRC-32 of zlib. Bytes that no table names are zero and under the CRC.
 * A writer that needs them sets a feature bit first: a reader that does not know a bit of `required` refuses the file
 * with VERSION, and one that does not know a bit of `ignorable` reads on, and clears the bit when it writes META. */

#define IQ_NUMBER_MAX (UINT64_C(1) << 62) /* of files and LSNs, so that no sum of a few of them can wrap */
#define IQ_META_MAGIC "iqdbMETA"
#define IQ_LOG_MAGIC "iqdbWLOG"
#define IQ_SNAPSHOT_MAGIC "iqdbSNAP"
#define IQ_FOOTER_MAGIC "iqdbSEND"

enum {
    IQ_UUID_SIZE = 16,

    /* ==== The head of a page: of a slot of META, the first sector of a log, header and footer of a snapshot ==========
     * What follows in the tables of these begins behind it. */
    IQ_PAGE_MAGIC_AT = 0,    /* u8[8]  what it is */
    IQ_PAGE_CRC_AT = 8,      /* u32   of the page without this field */
    IQ_PAGE_VERSION_AT = 12, /* u32   IQDB_FORMAT_VERSION of the writer */
    IQ_PAGE_UUID_AT = 16,    /* u8[16] of the database; all its files have it */
    IQ_PAGE_HEAD_SIZE = 32,

    /* ==== META: two slots, each one whole ============================================================
     * The valid slot with the higher sequence counts. Both say the same except in the middle of a change. */
    IQ_META_SLOT_SIZE = 4096,
    IQ_META_SEQUENCE_AT = 32,  /* u64   counts the changes of META */
    IQ_META_REQUIRED_AT = 40,  /* u32   feature bits */
    IQ_META_IGNORABLE_AT = 44, /* u32   feature bits */
    IQ_META_STATE_AT = 48,     /* u32   IQ_META_CLEAN or 0 */
    IQ_META_SNAPSHOTS_AT = 52, /* u32   snapshots named, 0 to IQ_META_SNAPSHOT_MAX */
    IQ_META_LOGS_AT = 56,      /* u32   logs named, 1 to IQ_META_LOG_MAX */
    IQ_META_APPLIED_AT = 64,   /* u64   last LSN that the snapshots hold, 0 without any */
    IQ_META_DIM_AT = 80,       /* u32   collection 0: dimension, 0 while unknown */
    IQ_META_METRIC_AT = 84,    /* u32   collection 0: iqdb_metric */
    IQ_META_ELEMENT_AT = 88,   /* u32   collection 0: element type, 0 = f32 */
    IQ_META_MODEL_AT = 96,     /* u8[64] kept for the tag of the model that made the vectors */
    IQ_META_SNAPSHOT_AT = 256, /* IQ_META_SNAPSHOT_MAX entries of IQ_META_SNAPSHOT_SIZE: base, deltas */
    IQ_META_LOG_AT = 1536,     /* IQ_META_LOG_MAX entries of IQ_META_LOG_SIZE, oldest first */

    IQ_META_CLEAN = 1, /* nothing was written behind the end of the last log */
    IQ_META_SNAPSHOT_MAX = 32,
    IQ_META_LOG_MAX = 8,

    IQ_META_SNAPSHOT_SIZE = 40,
    IQ_META_SNAPSHOT_NUMBER_AT = 0, /* u64   <n> of snap-<n> */
    IQ_META_SNAPSHOT_BYTES_AT = 8,  /* u64   size of the file */
    IQ_META_SNAPSHOT_LSN_AT = 16,   /* u64   last LSN it holds */
    IQ_META_SNAPSHOT_ROOT_AT = 24,  /* u32   CRC of its footer, the root of all its checksums */

    IQ_META_LOG_SIZE = 64,
    IQ_META_LOG_NUMBER_AT = 0,   /* u64   <n> of wal-<n>; ascending */
    IQ_META_LOG_SALT_AT = 8,     /* u64   that of its header */
    IQ_META_LOG_FIRST_AT = 16,   /* u64   LSN of its first frame */
    IQ_META_LOG_END_LSN_AT = 24, /* u64   the last LSN of a batch, or FIRST - 1: acknowledged up to here. */
    IQ_META_LOG_END_AT = 32,     /* u64   offset behind that frame */
    IQ_META_LOG_END_CRC_AT = 40, /* u32   CRC of that frame (of the log's header where there is none) */
    IQ_META_LOG_STATE_AT = 44,   /* u32   IQ_META_LOG_ENDS where the three above are known */
    IQ_META_LOG_BYTES_AT = 48,   /* u64   the file has at least this size: whoever cut it shorter is noticed */
    IQ_META_LOG_ENDS = 1,        /* in the last log of a META that is not clean, more frames may follow the end */

    /* ==== wal-<n>: a header that fills the first sector, then frames, then zeros ======================
     * Frames lie at multiples of 8 without gaps. A sync ends at a multiple of the sector size: the frame before it is
     * stretched by zeros, which count in its length. */
    IQ_LOG_NUMBER_AT = 32,      /* u64   <n> */
    IQ_LOG_SALT_AT = 40,        /* u64   random */
    IQ_LOG_FIRST_AT = 48,       /* u64   LSN of the first frame */
    IQ_LOG_BEFORE_AT = 56,      /* u64   number of the log that this one continues, 0 for none */
    IQ_LOG_BEFORE_SALT_AT = 64, /* u64   and its salt */
    IQ_LOG_SECTOR_AT = 72,      /* u32   sector size: a power of two, IQ_LOG_SECTOR_MIN to _MAX */
    IQ_LOG_REQUIRED_AT = 76,    /* u32   feature bits */
    IQ_LOG_HEADER_SIZE = 80,    /* and zeros to the end of the sector */
    IQ_LOG_SECTOR_MIN = 512,
    IQ_LOG_SECTOR_MAX = 4096,
    IQ_LOG_SECTOR_DEFAULT = 4096,

    IQ_FRAME_LENGTH_AT = 0,   /* u32   bytes of the body, zeros at its end included; a multiple of 8, > 0 */
    IQ_FRAME_CRC_AT = 4,      /* u32   of: salt (u64), header without this field, body */
    IQ_FRAME_LSN_AT = 8,      /* u64   one more than the frame before, across logs */
    IQ_FRAME_DURABLE_AT = 16, /* u64   every frame up to this LSN was durable before this one was written */
    IQ_FRAME_BATCH_AT = 24,   /* u64   LSN of the first frame of the batch */
    IQ_FRAME_BEFORE_AT = 32,  /* u32   CRC of the frame before; of the header, for the first frame */
    IQ_FRAME_TYPE_AT = 36,    /* u8    IQ_FRAME_RECORD, _ATTEST or _SWITCH */
    IQ_FRAME_FLAGS_AT = 37,   /* u8    IQ_FRAME_FIRST, _LAST, _COMMIT */
    IQ_FRAME_ZERO_AT = 38,    /* u16   0 */
    IQ_FRAME_HEADER_SIZE = 40,

    IQ_FRAME_RECORD = 1, /* body: a record or a piece of one */
    IQ_FRAME_ATTEST = 2, /* body: head, zeros. A batch of its own that only carries durable_lsn */
    IQ_FRAME_SWITCH = 3, /* body: as below; the log ends, and another goes on */
    IQ_FRAME_FIRST = 1,  /* the first piece of its record */
    IQ_FRAME_LAST = 2,   /* the last piece of its record */
    IQ_FRAME_COMMIT = 4, /* the last frame of its batch */
    IQ_FRAME_WHOLE = 7,

    /* The head of every body, records included: type u8, three bytes, collection u32. Ours have collection 0. */
    IQ_BODY_HEAD_SIZE = 8,
    IQ_BODY_ATTEST = 128,
    IQ_BODY_SWITCH = 129,
    IQ_BODY_SWITCH_NUMBER_AT = 8, /* u64s of the log that goes on */
    IQ_BODY_SWITCH_SALT_AT = 16,
    IQ_BODY_SWITCH_BYTES_AT = 24, /* as IQ_META_LOG_BYTES_AT */
    IQ_BODY_SWITCH_SIZE = 32,

    /* A piece is at most 7 KiB, so that its frame, stretched to the end of a sector, stays within the 11,450 bytes up
     * to which CRC-32 finds every error of three bits. */
    IQ_FRAME_PIECE_MAX = 7168,
    IQ_FRAME_LENGTH_MAX = IQ_FRAME_PIECE_MAX + IQ_LOG_SECTOR_MAX,
    IQ_FRAME_SIZE_MIN = IQ_FRAME_HEADER_SIZE + IQ_BODY_HEAD_SIZE,

    /* ==== snap-<n>: blocks of 8 KiB, their CRCs, the CRCs of those, and a footer ======================
     *   blocks   header, sections at multiples of 64 (of 64 KiB where they are as large), list of the sections, zeros
     *   table    u32 a block: its CRC; zeros to a multiple of 8 KiB
     *   roots    u32 a table block: its CRC; zeros to a multiple of 64
     *   footer   whose CRC stands in META */
    IQ_SNAPSHOT_BLOCK = 8192,
    IQ_SNAPSHOT_ALIGN = 64,
    IQ_SNAPSHOT_LARGE = 65536,

    IQ_SNAPSHOT_NUMBER_AT = 32, /* u64   <n> */
    IQ_SNAPSHOT_LSN_AT = 40,    /* u64   last LSN it holds */
    IQ_SNAPSHOT_HEADER_SIZE = 64,

    IQ_SECTION_COLLECTION_AT = 0, /* u32 */
    IQ_SECTION_KIND_AT = 4,       /* u32 */
    IQ_SECTION_REQUIRED_AT = 8,   /* u32   feature bits */
    IQ_SECTION_IGNORABLE_AT = 12, /* u32   feature bits */
    IQ_SECTION_OFFSET_AT = 16,    /* u64 */
    IQ_SECTION_BYTES_AT = 24,     /* u64   size */
    IQ_SECTION_ENTRY_SIZE = 32,

    IQ_FOOTER_NUMBER_AT = 32,    /* u64   <n> */
    IQ_FOOTER_BLOCKS_AT = 40,    /* u64   blocks before the table */
    IQ_FOOTER_LIST_AT = 48,      /* u64   offset of the list of sections */
    IQ_FOOTER_SECTIONS_AT = 56,  /* u32   sections */
    IQ_FOOTER_ROOTS_CRC_AT = 60, /* u32   of the roots, zeros included */
    IQ_FOOTER_SIZE = 64
};

IQ_STATIC_ASSERT(IQ_META_SNAPSHOT_AT + IQ_META_SNAPSHOT_MAX * IQ_META_SNAPSHOT_SIZE <= IQ_META_LOG_AT, meta_snapshots);
IQ_STATIC_ASSERT(IQ_META_LOG_AT + IQ_META_LOG_MAX * IQ_META_LOG_SIZE <= IQ_META_SLOT_SIZE, meta_logs);
IQ_STATIC_ASSERT(IQ_FRAME_PIECE_MAX % 8 == 0 && IQ_FRAME_SIZE_MIN % 8 == 0, frame_multiple);
IQ_STATIC_ASSERT(IQ_FRAME_HEADER_SIZE + IQ_FRAME_LENGTH_MAX <= 11450, frame_distance);

/* ======== [persist/page.h] ======== */
/* Pages that begin alike, as the first table of persist/format.h says. */

/* Fills the head of a page that is complete behind it; its CRC. */
IQ_FN uint32_t iq_page_seal(uint8_t *page, size_t size, const char *magic, const uint8_t *uuid);
/* Whether the magic is this one and the CRC that of the page. */
IQ_FN bool iq_page_is_sound(const uint8_t *page, size_t size, const char *magic);

/* ======== [persist/page.c] ======== */
/* The head of a page. */

static uint32_t iq_page_crc(const uint8_t *page, size_t size) {
    const uint32_t crc = iq_crc32(0, page, IQ_PAGE_CRC_AT);
    return iq_crc32(crc, page + IQ_PAGE_CRC_AT + 4, size - IQ_PAGE_CRC_AT - 4);
}

IQ_FN uint32_t iq_page_seal(uint8_t *page, size_t size, const char *magic, const uint8_t *uuid) {
    memcpy(page + IQ_PAGE_MAGIC_AT, magic, 8);
    iq_put_u32(page + IQ_PAGE_VERSION_AT, IQDB_FORMAT_VERSION);
    memcpy(page + IQ_PAGE_UUID_AT, uuid, IQ_UUID_SIZE);
    const uint32_t crc = iq_page_crc(page, size);
    iq_put_u32(page + IQ_PAGE_CRC_AT, crc);
    return crc;
}

IQ_FN bool iq_page_is_sound(const uint8_t *page, size_t size, const char *magic) {
    return memcmp(page + IQ_PAGE_MAGIC_AT, magic, 8) == 0 &&
           iq_get_u32(page + IQ_PAGE_CRC_AT) == iq_page_crc(page, size);
}

/* ======== [persist/sections.h] ======== */
enum {
    /* Kinds of sections of a collection. */
    IQ_SECTION_CATALOG = 1,      /* IQ_CATALOG_SIZE bytes, below */
    IQ_SECTION_IDS = 2,          /* u64 a row */
    IQ_SECTION_VECTORS = 3,      /* f32 x stride a row; stride: dim rounded up to 16, zeros behind dim */
    IQ_SECTION_NORMS = 4,        /* f32 a row */
    IQ_SECTION_PAYLOAD_REFS = 5, /* u64 a row: offset of its block in PAYLOADS, 0 for none */
    IQ_SECTION_PAYLOADS = 6,     /* 8 zeros, then blocks in row order: u32 size, payload, zeros to the block size */

    /* The catalog of a collection. */
    IQ_CATALOG_DIM = 0,     /* u32, 0 while there never was a record */
    IQ_CATALOG_METRIC = 4,  /* u32, iqdb_metric */
    IQ_CATALOG_ELEMENT = 8, /* u32, 0 = f32 */
    IQ_CATALOG_ZERO = 12,   /* u32 0 */
    IQ_CATALOG_ROWS = 16,   /* u64 */
    IQ_CATALOG_SPARE = 24,  /* u64 0 */
    IQ_CATALOG_SIZE = 32
};

/* ======== [persist/volume.h] ======== */
/* A directory and its files, with errors that name the file. Numbers in names are the only part of a name that comes
 * from outside, and they are digits only. */

typedef struct iq_volume {
    iqdb_allocator allocator;
    iqdb_files files;
    void *dir;
    const iq_reporter *reporter; /* NULL: silent */
    iq_crc32_fn crc32;           /* for frames and blocks, but not for the single pages of headers and META */
} iq_volume;

#define IQ_FILE_NAME_SIZE 32
#define IQ_LOG_PREFIX "wal-"
#define IQ_SNAPSHOT_PREFIX "snap-"

typedef struct iq_file {
    const iq_volume *volume;
    void *handle; /* NULL: not open */
    char name[IQ_FILE_NAME_SIZE];
} iq_file;

/* prefix and number in decimal. */
IQ_FN void iq_volume_name(char name[IQ_FILE_NAME_SIZE], const char *prefix, uint64_t number);
/* Whether `name` is what iq_volume_name would make of some number from 1 to IQ_NUMBER_MAX. */
IQ_FN bool iq_volume_number(const char *name, const char *prefix, uint64_t *out_number);

/* allocator, files and reporter are given; crc32 may be, else it is iq_crc32. */
IQ_FN iqdb_result iq_volume_open(iq_volume *volume, const char *path, bool create);
IQ_FN void iq_volume_close(iq_volume *volume); /* nothing where it is not open */
/* The same volume without anybody to report to; not to be closed. */
IQ_FN iq_volume iq_volume_silent(const iq_volume *volume);

/* NOT_FOUND, and INVALID_CONFIG for a CREATE of what exists, are not reported: the caller knows what they mean. */
IQ_FN iqdb_result iq_file_open(iq_file *file, const iq_volume *volume, const char *name, iqdb_open_kind kind);
IQ_FN void iq_file_close(iq_file *file); /* nothing where it is not open */
IQ_FN iqdb_result iq_file_size(const iq_file *file, uint64_t *out_size);
/* Fewer bytes only at the end of the file. */
IQ_FN iqdb_result iq_file_read(const iq_file *file, uint64_t offset, void *bytes, size_t size, size_t *out_size);
IQ_FN iqdb_result iq_file_try_write(const iq_file *file, uint64_t offset, const void *bytes, size_t size,
                                    int *os_code); /* OK, NOSPACE or IO; not reported */
IQ_FN iqdb_result iq_file_write(const iq_file *file, uint64_t offset, const void *bytes, size_t size);
IQ_FN iqdb_result iq_file_sync(const iq_file *file);                 /* OK or IO */
IQ_FN iqdb_result iq_file_lock(const iq_file *file, bool exclusive); /* OK, LOCKED or IO */
IQ_FN iqdb_result iq_volume_sync(const iq_volume *volume);           /* of the directory; OK or IO */
/* What stays is an orphan, and the logger hears of it; few callers need to know. */
IQ_FN bool iq_volume_remove(const iq_volume *volume, const char *name);
/* Creates prefix<number> for the first number from *number on whose name is free, which is then in *number. */
IQ_FN iqdb_result iq_volume_create(iq_file *file, const iq_volume *volume, const char *prefix, uint64_t *number);

/* The numbers of all files of a prefix, in no order. */
typedef struct iq_numbers {
    iq_blob blob; /* of uint64_t */
    const char *prefix;
    iqdb_result result;
} iq_numbers;
IQ_FN iqdb_result iq_volume_list(const iq_volume *volume, const char *prefix, iq_numbers *out_numbers); /* free blob */
IQ_FN size_t iq_numbers_count(const iq_numbers *numbers);
IQ_FN uint64_t iq_numbers_at(const iq_numbers *numbers, size_t i);

/* A code at an offset of a file, with an LSN where one applies. */
IQ_FN iqdb_result iq_file_report(const iq_file *file, iqdb_result code, uint64_t offset, uint64_t lsn,
                                 const char *text);

/* ======== [persist/volume.c] ======== */
/* Files by name, and errors that say which. Every call to the file layer of this folder is made here. */

#define IQ_DIGITS_MAX 20     /* of a 64-bit number */
#define IQ_NAME_TRIES 65536u /* more files in the way than this is no accident */

IQ_FN void iq_volume_name(char name[IQ_FILE_NAME_SIZE], const char *prefix, uint64_t number) {
    char digits[IQ_DIGITS_MAX];
    size_t count = 0, size = strlen(prefix);
    IQ_ASSERT(size + sizeof digits < IQ_FILE_NAME_SIZE);
    do {
        digits[count++] = (char)('0' + (int)(number % 10));
        number /= 10;
    } while (number > 0);
    memcpy(name, prefix, size);
    while (count > 0) name[size++] = digits[--count];
    name[size] = 0;
}

IQ_FN bool iq_volume_number(const char *name, const char *prefix, uint64_t *out_number) {
    const size_t size = strlen(prefix);
    uint64_t number = 0;
    if (strncmp(name, prefix, size) != 0 || name[size] == '0' || name[size] == 0) return false;
    for (const char *digit = name + size; *digit != 0; digit++) {
        if (*digit < '0' || *digit > '9' || number > IQ_NUMBER_MAX / 10) return false;
        number = number * 10 + (uint64_t)(*digit - '0');
    }
    *out_number = number;
    return number <= IQ_NUMBER_MAX;
}

/* A file layer of somebody else may return anything: only what the callers act on passes. */
static iqdb_result iq_volume_code(iqdb_result result) {
    const bool known = result == IQDB_OK || result == IQDB_ERR_NOSPACE || result == IQDB_ERR_NOT_FOUND ||
                       result == IQDB_ERR_LOCKED || result == IQDB_ERR_READONLY || result == IQDB_ERR_NOMEM ||
                       result == IQDB_ERR_INVALID_CONFIG;
    return known ? result : IQDB_ERR_IO;
}

static iqdb_result iq_file_outcome(const iq_file *file, iqdb_result result, int os_code, const char *text) {
    result = iq_volume_code(result);
    if (result != IQDB_OK) return iq_report_os(file->volume->reporter, result, file->name, os_code, text);
    return IQDB_OK;
}

IQ_FN iqdb_result iq_volume_open(iq_volume *volume, const char *path, bool create) {
    int os_code = 0;
    if (volume->crc32 == NULL) volume->crc32 = iq_crc32;
    if (volume->files.dir_open_fn == NULL)
        return iq_report(volume->reporter, IQDB_ERR_INVALID_CONFIG, NULL, 0,
                         "options.files is needed: IQDB_NO_FILES has left out those of the system");
    const iqdb_result result =
        iq_volume_code(volume->files.dir_open_fn(path, create, &volume->dir, &os_code, volume->files.user));
    if (result == IQDB_OK) return result;
    volume->dir = NULL;
    return iq_report_os(volume->reporter, result, NULL, os_code, "the directory cannot be opened");
}

IQ_FN void iq_volume_close(iq_volume *volume) {
    if (volume->dir != NULL) volume->files.dir_close_fn(volume->dir, volume->files.user);
    volume->dir = NULL;
}

IQ_FN iq_volume iq_volume_silent(const iq_volume *volume) {
    iq_volume silent = *volume;
    silent.reporter = NULL;
    return silent;
}

IQ_FN iqdb_result iq_file_open(iq_file *file, const iq_volume *volume, const char *name, iqdb_open_kind kind) {
    int os_code = 0;
    file->volume = volume;
    file->handle = NULL;
    memcpy(file->name, name, strlen(name) + 1);
    const iqdb_result result =
        volume->files.open_fn(volume->dir, name, kind, &file->handle, &os_code, volume->files.user);
    if (result != IQDB_OK) file->handle = NULL;
    if (result == IQDB_ERR_NOT_FOUND || (kind == IQDB_OPEN_CREATE && result == IQDB_ERR_INVALID_CONFIG)) return result;
    return iq_file_outcome(file, result, os_code, "the file cannot be opened");
}

IQ_FN void iq_file_close(iq_file *file) {
    if (file->handle != NULL) file->volume->files.close_fn(file->handle, file->volume->files.user);
    file->handle = NULL;
}

IQ_FN iqdb_result iq_file_size(const iq_file *file, uint64_t *out_size) {
    const iqdb_files *files = &file->volume->files;
    int os_code = 0;
    *out_size = 0;
    const iqdb_result result = files->size_fn(file->handle, out_size, &os_code, files->user);
    return iq_file_outcome(file, result, os_code, "the size of the file cannot be read");
}

IQ_FN iqdb_result iq_file_read(const iq_file *file, uint64_t offset, void *bytes, size_t size, size_t *out_size) {
    const iqdb_files *files = &file->volume->files;
    int os_code = 0;
    *out_size = 0;
    const iqdb_result result = files->read_fn(file->handle, offset, bytes, size, out_size, &os_code, files->user);
    return iq_file_outcome(file, result, os_code, "the file cannot be read");
}

IQ_FN iqdb_result iq_file_try_write(const iq_file *file, uint64_t offset, const void *bytes, size_t size,
                                    int *os_code) {
    const iqdb_files *files = &file->volume->files;
    *os_code = 0;
    const iqdb_result result = files->write_fn(file->handle, offset, bytes, size, os_code, files->user);
    return result == IQDB_OK || result == IQDB_ERR_NOSPACE ? result : IQDB_ERR_IO;
}

IQ_FN iqdb_result iq_file_write(const iq_file *file, uint64_t offset, const void *bytes, size_t size) {
    int os_code;
    const iqdb_result result = iq_file_try_write(file, offset, bytes, size, &os_code);
    return iq_file_outcome(file, result, os_code, "the file cannot be written");
}

IQ_FN iqdb_result iq_file_sync(const iq_file *file) {
    const iqdb_files *files = &file->volume->files;
    int os_code = 0;
    if (files->sync_fn(file->handle, &os_code, files->user) == IQDB_OK) return IQDB_OK;
    return iq_report_os(file->volume->reporter, IQDB_ERR_IO, file->name, os_code, "the file cannot be synced");
}

IQ_FN iqdb_result iq_file_lock(const iq_file *file, bool exclusive) {
    const iqdb_files *files = &file->volume->files;
    int os_code = 0;
    const iqdb_result result = files->lock_fn(file->handle, exclusive, &os_code, files->user);
    if (result == IQDB_OK) return result;
    const bool is_locked = result == IQDB_ERR_LOCKED;
    return iq_report_os(file->volume->reporter, is_locked ? result : IQDB_ERR_IO, file->name, os_code,
                        is_locked ? "the database is open elsewhere" : "the file cannot be locked");
}

IQ_FN iqdb_result iq_volume_sync(const iq_volume *volume) {
    int os_code = 0;
    if (volume->files.dir_sync_fn(volume->dir, &os_code, volume->files.user) == IQDB_OK) return IQDB_OK;
    return iq_report_os(volume->reporter, IQDB_ERR_IO, NULL, os_code, "the directory cannot be synced");
}

IQ_FN bool iq_volume_remove(const iq_volume *volume, const char *name) {
    int os_code = 0;
    const iqdb_result result = volume->files.remove_fn(volume->dir, name, &os_code, volume->files.user);
    if (result == IQDB_OK || result == IQDB_ERR_NOT_FOUND) return true;
    iq_log(volume->reporter, IQDB_LEVEL_WARNING, name, 0, "a file that is not needed any more cannot be removed");
    return false;
}

IQ_FN iqdb_result iq_volume_create(iq_file *file, const iq_volume *volume, const char *prefix, uint64_t *number) {
    char name[IQ_FILE_NAME_SIZE];
    for (uint32_t tries = 0; tries < IQ_NAME_TRIES && *number <= IQ_NUMBER_MAX; tries++, ++*number) {
        iq_volume_name(name, prefix, *number);
        const iqdb_result result = iq_file_open(file, volume, name, IQDB_OPEN_CREATE);
        if (result == IQDB_ERR_NOT_FOUND)
            return iq_report(volume->reporter, IQDB_ERR_IO, name, 0, "the directory has gone away");
        if (result != IQDB_ERR_INVALID_CONFIG) return result;
    }
    return iq_report(volume->reporter, IQDB_ERR_LIMIT, prefix, 0, "no number is left for another file");
}

static void iq_volume_list_each(const char *name, void *user) {
    iq_numbers *numbers = (iq_numbers *)user;
    uint64_t number;
    if (numbers->result == IQDB_OK && iq_volume_number(name, numbers->prefix, &number))
        numbers->result = iq_blob_append(&numbers->blob, &number, sizeof number);
}

IQ_FN iqdb_result iq_volume_list(const iq_volume *volume, const char *prefix, iq_numbers *out_numbers) {
    int os_code = 0;
    memset(out_numbers, 0, sizeof *out_numbers);
    out_numbers->blob.allocator = &volume->allocator;
    out_numbers->prefix = prefix;
    out_numbers->result = IQDB_OK;
    const iqdb_result result = iq_volume_code(
        volume->files.dir_list_fn(volume->dir, iq_volume_list_each, out_numbers, &os_code, volume->files.user));
    if (result != IQDB_OK)
        return iq_report_os(volume->reporter, result, NULL, os_code, "the directory cannot be listed");
    if (out_numbers->result != IQDB_OK)
        return iq_report(volume->reporter, out_numbers->result, NULL, 0, "no memory for the names of the directory");
    return IQDB_OK;
}

IQ_FN size_t iq_numbers_count(const iq_numbers *numbers) {
    return numbers->blob.size / sizeof(uint64_t);
}

IQ_FN uint64_t iq_numbers_at(const iq_numbers *numbers, size_t i) {
    uint64_t number;
    memcpy(&number, numbers->blob.bytes + i * sizeof number, sizeof number);
    return number;
}

IQ_FN iqdb_result iq_file_report(const iq_file *file, iqdb_result code, uint64_t offset, uint64_t lsn,
                                 const char *text) {
    iqdb_error error = iq_error_make(code, file->name, offset, text);
    error.lsn = lsn;
    return iq_report_error(file->volume->reporter, &error);
}

/* ======== [persist/snapshot.h] ======== */
/* Snapshot files: keyed sections of bytes, written in one pass to a sink, read back with every block checked.
 * The byte tables are in persist/format.h. */

/* Where a snapshot goes: a file, or a caller's function. Bytes come in order. */
typedef struct iq_sink {
    iqdb_result (*write_fn)(const void *bytes, size_t size, void *user);
    void *user;
} iq_sink;

/* What META keeps of a snapshot. */
typedef struct iq_snapshot_entry {
    uint64_t number;
    uint64_t size_bytes;
    uint64_t lsn;  /* the last one it holds */
    uint32_t root; /* the checksum that all others hang under */
} iq_snapshot_entry;

typedef struct iq_snapshot_writer iq_snapshot_writer;

/* A section of exactly `size` bytes, keyed (collection, kind): begin, any number of writes (of zeros where bytes is
 * NULL), and the next begin or the end. A key stands once. Errors are sticky: the first one is returned by everything
 * that follows. */
IQ_FN iqdb_result iq_snapshot_section(iq_snapshot_writer *writer, uint32_t collection, uint32_t kind, uint64_t size);
IQ_FN iqdb_result iq_snapshot_write(iq_snapshot_writer *writer, const void *bytes, size_t size);

/* Runs write_fn between the header and the checksums of a new snapshot; number and lsn of *entry are given, size and
 * root are filled. The writer lives during the call. */
typedef iqdb_result (*iq_snapshot_fn)(iq_snapshot_writer *writer, void *user);
IQ_FN iqdb_result iq_snapshot_produce(const iq_sink *sink, const iqdb_allocator *allocator, iq_crc32_fn crc32,
                                      const uint8_t *uuid, iq_snapshot_entry *entry, iq_snapshot_fn write_fn,
                                      void *user);

typedef struct iq_snapshot_reader iq_snapshot_reader;

/* Opens snap-<n> and checks footer, tables and list. CORRUPT where it is missing, or not the one META names. */
IQ_FN iqdb_result iq_snapshot_open(const iq_volume *volume, const uint8_t *uuid, const iq_snapshot_entry *entry,
                                   iq_snapshot_reader **out_reader);
/* The same for a snapshot in memory, which stays there until close; *out_entry is what it says of itself. */
IQ_FN iqdb_result iq_snapshot_open_bytes(const iq_volume *volume, const void *bytes, size_t size,
                                         iq_snapshot_entry *out_entry, iq_snapshot_reader **out_reader);
/* The same for a file that may be damaged. Every damage is reported, and reads fail, in silence, only for what lies in
 * damaged blocks; sections that the list names no more may be assumed. `wanted` NULL: whatever it is. *out_entry: its
 * LSN is IQ_NUMBER_MAX where it cannot be read. NOMEM, VERSION, or CORRUPT where nothing can be read. */
IQ_FN iqdb_result iq_snapshot_salvage(const iq_volume *volume, const uint8_t *uuid, uint64_t number,
                                      const iq_snapshot_entry *wanted, iq_snapshot_entry *out_entry,
                                      iq_snapshot_reader **out_reader);
IQ_FN bool iq_snapshot_is_whole(const iq_snapshot_reader *reader);
/* Gives the list a section, where a writer would have put it behind the last one that the list has. */
IQ_FN void iq_snapshot_assume(iq_snapshot_reader *reader, uint32_t collection, uint32_t kind, uint64_t size);
/* What is left behind the last section, to be assumed. */
IQ_FN uint64_t iq_snapshot_rest(const iq_snapshot_reader *reader);
/* A finding at this place of a section. */
IQ_FN iqdb_error iq_snapshot_finding(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind,
                                     uint64_t offset, const char *text);
IQ_FN void iq_snapshot_close(iq_snapshot_reader *reader); /* NULL is fine */

/* The size of a section, or false where the snapshot has none of this key. */
IQ_FN bool iq_snapshot_find(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind, uint64_t *out_size);
/* The bytes of a section of a snapshot in memory, checked or not; NULL where it has none of this key. */
IQ_FN const uint8_t *iq_snapshot_view(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind);
/* Bytes of a section; every block they lie in has been checked against its CRC. CORRUPT names file and offset. */
IQ_FN iqdb_result iq_snapshot_read(iq_snapshot_reader *reader, uint32_t collection, uint32_t kind, uint64_t offset,
                                   void *bytes, size_t size);
/* Reports that the bytes of a section, though their checksums hold, make no sense: returns CORRUPT. */
IQ_FN iqdb_result iq_snapshot_reject(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind,
                                     uint64_t offset, const char *why);
/* Checks every block that no read has checked yet, and reports each damaged one; the code of the first. */
IQ_FN iqdb_result iq_snapshot_check(iq_snapshot_reader *reader);

/* Whether snap-<number> ends in a valid footer: of the database `uuid`, where that is known, else it is known then. */
IQ_FN bool iq_snapshot_identify(const iq_volume *volume, uint64_t number, uint8_t *uuid, bool *has_uuid);
/* Whether snap-<number> is of this database, for what is left of an interrupted checkpoint. `torn`: it has no whole
 * header, so nobody can tell. */
IQ_FN bool iq_snapshot_is_ours(const iq_volume *volume, const uint8_t *uuid, uint64_t number, bool *out_torn);

/* ======== [persist/snapshot.c] ======== */
/* Snapshots: written once from front to back, never changed afterwards.
 *
 * 1. Every byte before the table lies in a block whose CRC stands in the table, every byte of the table under a CRC of
 *    the roots, those under one of the footer, and that under one of META: a block that was lost, or written elsewhere,
 *    cannot pass for the right one, because no block carries its own checksum.
 * 2. The writer holds one buffer, and the CRCs; it never goes back.
 * 3. The reader hands out no byte that it has not checked in this very read: what the disk says twice may differ.
 * 4. Nothing is allocated for a number that was read before the file is known to be as large as it says. */

#define IQ_SNAPSHOT_BUFFER (8u * IQ_SNAPSHOT_BLOCK)
#define IQ_SNAPSHOT_CRCS_PER_BLOCK (IQ_SNAPSHOT_BLOCK / 4u)

/* Sections that a reader of a damaged list may assume. */
#define IQ_SNAPSHOT_ASSUMED_MAX 8u

static uint64_t iq_snapshot_round_up(uint64_t offset, uint64_t alignment) {
    return (offset + alignment - 1) & ~(alignment - 1);
}

/* Where a section of this size goes that must not begin before `end`. */
static uint64_t iq_snapshot_place(uint64_t end, uint64_t size) {
    return iq_snapshot_round_up(end, size >= IQ_SNAPSHOT_LARGE ? IQ_SNAPSHOT_LARGE : IQ_SNAPSHOT_ALIGN);
}

/* Where everything behind the blocks lies; it follows from their number. */
typedef struct iq_snapshot_shape {
    uint64_t blocks, table_blocks;
    uint64_t table_at, roots_at, footer_at, size;
} iq_snapshot_shape;

static iq_snapshot_shape iq_snapshot_shape_of(uint64_t blocks) {
    iq_snapshot_shape shape;
    shape.blocks = blocks;
    shape.table_blocks = (blocks + IQ_SNAPSHOT_CRCS_PER_BLOCK - 1) / IQ_SNAPSHOT_CRCS_PER_BLOCK;
    shape.table_at = blocks * IQ_SNAPSHOT_BLOCK;
    shape.roots_at = shape.table_at + shape.table_blocks * IQ_SNAPSHOT_BLOCK;
    shape.footer_at = iq_snapshot_round_up(shape.roots_at + shape.table_blocks * 4, IQ_SNAPSHOT_ALIGN);
    shape.size = shape.footer_at + IQ_FOOTER_SIZE;
    return shape;
}

/* ---- Writing ---- */

struct iq_snapshot_writer {
    const iq_sink *sink;
    iq_crc32_fn crc32;
    iqdb_result result;
    uint64_t offset;    /* of the next byte */
    uint64_t remaining; /* of the section */
    bool is_summing;    /* in front of the table */
    size_t used;        /* of the buffer */
    uint8_t *buffer;    /* IQ_SNAPSHOT_BUFFER bytes */
    iq_blob sections;   /* entries of the list */
    iq_blob crcs;
};

static void iq_snapshot_flush(iq_snapshot_writer *writer) {
    for (size_t at = 0; at < writer->used && writer->is_summing && writer->result == IQDB_OK; at += IQ_SNAPSHOT_BLOCK) {
        uint8_t crc[4];
        IQ_ASSERT(writer->used % IQ_SNAPSHOT_BLOCK == 0);
        iq_put_u32(crc, writer->crc32(0, writer->buffer + at, IQ_SNAPSHOT_BLOCK));
        writer->result = iq_blob_append(&writer->crcs, crc, sizeof crc);
    }
    if (writer->result == IQDB_OK && writer->used > 0)
        writer->result = writer->sink->write_fn(writer->buffer, writer->used, writer->sink->user);
    writer->used = 0;
}

/* bytes NULL: zeros. */
static void iq_snapshot_put(iq_snapshot_writer *writer, const uint8_t *bytes, uint64_t size) {
    writer->offset += size;
    while (size > 0 && writer->result == IQDB_OK) {
        const size_t room = IQ_SNAPSHOT_BUFFER - writer->used;
        const size_t part = size < room ? (size_t)size : room;
        if (bytes == NULL) {
            memset(writer->buffer + writer->used, 0, part);
        } else {
            memcpy(writer->buffer + writer->used, bytes, part);
            bytes += part;
        }
        writer->used += part;
        size -= part;
        if (writer->used == IQ_SNAPSHOT_BUFFER) iq_snapshot_flush(writer);
    }
}

static void iq_snapshot_pad(iq_snapshot_writer *writer, uint64_t offset) {
    iq_snapshot_put(writer, NULL, offset - writer->offset);
}

IQ_FN iqdb_result iq_snapshot_section(iq_snapshot_writer *writer, uint32_t collection, uint32_t kind, uint64_t size) {
    uint8_t entry[IQ_SECTION_ENTRY_SIZE] = {0};
    if (writer->result != IQDB_OK) return writer->result;
    iq_put_u32(entry + IQ_SECTION_COLLECTION_AT, collection);
    iq_put_u32(entry + IQ_SECTION_KIND_AT, kind);
    /* Both of these are mistakes of the caller. */
    if (writer->remaining > 0) writer->result = IQDB_ERR_INVALID_ARGUMENT;
    for (size_t at = 0; at < writer->sections.size; at += IQ_SECTION_ENTRY_SIZE)
        if (memcmp(writer->sections.bytes + at, entry, IQ_SECTION_KIND_AT + 4) == 0)
            writer->result = IQDB_ERR_INVALID_ARGUMENT;
    if (size > IQ_NUMBER_MAX - writer->offset || writer->sections.size / IQ_SECTION_ENTRY_SIZE >= UINT32_MAX)
        writer->result = IQDB_ERR_LIMIT;
    if (writer->result != IQDB_OK) return writer->result;
    iq_snapshot_pad(writer, iq_snapshot_place(writer->offset, size));
    iq_put_u64(entry + IQ_SECTION_OFFSET_AT, writer->offset);
    iq_put_u64(entry + IQ_SECTION_BYTES_AT, size);
    if (writer->result == IQDB_OK) writer->result = iq_blob_append(&writer->sections, entry, sizeof entry);
    writer->remaining = size;
    return writer->result;
}

IQ_FN iqdb_result iq_snapshot_write(iq_snapshot_writer *writer, const void *bytes, size_t size) {
    if (writer->result == IQDB_OK && size > writer->remaining) writer->result = IQDB_ERR_INVALID_ARGUMENT;
    if (writer->result != IQDB_OK) return writer->result;
    writer->remaining -= size;
    iq_snapshot_put(writer, (const uint8_t *)bytes, size);
    return writer->result;
}

/* List, table, roots and footer. */
static void iq_snapshot_finish(iq_snapshot_writer *writer, const uint8_t *uuid, iq_snapshot_entry *entry) {
    uint8_t footer[IQ_FOOTER_SIZE] = {0};
    iq_blob *crcs = &writer->crcs;
    iq_snapshot_pad(writer, iq_snapshot_place(writer->offset, 0));
    iq_put_u64(footer + IQ_FOOTER_LIST_AT, writer->offset);
    iq_snapshot_put(writer, writer->sections.bytes, writer->sections.size);
    iq_snapshot_pad(writer, iq_snapshot_round_up(writer->offset, IQ_SNAPSHOT_BLOCK));
    iq_snapshot_flush(writer);
    writer->is_summing = false;
    const iq_snapshot_shape shape = iq_snapshot_shape_of(writer->offset / IQ_SNAPSHOT_BLOCK);
    const size_t table_size = (size_t)(shape.roots_at - shape.table_at);
    const size_t size = (size_t)(shape.footer_at - shape.table_at);
    if (writer->result == IQDB_OK) writer->result = iq_blob_reserve(crcs, size - crcs->size);
    if (writer->result != IQDB_OK) return;
    memset(crcs->bytes + crcs->size, 0, size - crcs->size);
    crcs->size = size;
    for (size_t i = 0; i < shape.table_blocks; i++)
        iq_put_u32(crcs->bytes + table_size + i * 4,
                   writer->crc32(0, crcs->bytes + i * IQ_SNAPSHOT_BLOCK, IQ_SNAPSHOT_BLOCK));
    iq_snapshot_put(writer, crcs->bytes, size);
    iq_put_u64(footer + IQ_FOOTER_BLOCKS_AT, shape.blocks);
    iq_put_u32(footer + IQ_FOOTER_SECTIONS_AT, (uint32_t)(writer->sections.size / IQ_SECTION_ENTRY_SIZE));
    iq_put_u32(footer + IQ_FOOTER_ROOTS_CRC_AT, writer->crc32(0, crcs->bytes + table_size, size - table_size));
    iq_put_u64(footer + IQ_FOOTER_NUMBER_AT, entry->number);
    entry->root = iq_page_seal(footer, sizeof footer, IQ_FOOTER_MAGIC, uuid);
    entry->size_bytes = shape.size;
    iq_snapshot_put(writer, footer, sizeof footer);
    iq_snapshot_flush(writer);
    IQ_ASSERT(writer->offset == shape.size);
}

IQ_FN iqdb_result iq_snapshot_produce(const iq_sink *sink, const iqdb_allocator *allocator, iq_crc32_fn crc32,
                                      const uint8_t *uuid, iq_snapshot_entry *entry, iq_snapshot_fn write_fn,
                                      void *user) {
    uint8_t header[IQ_SNAPSHOT_HEADER_SIZE] = {0};
    iq_snapshot_writer writer;
    memset(&writer, 0, sizeof writer);
    writer.sink = sink;
    writer.crc32 = crc32;
    writer.is_summing = true;
    writer.sections.allocator = writer.crcs.allocator = allocator;
    writer.buffer = (uint8_t *)iq_alloc(allocator, IQ_SNAPSHOT_BUFFER, 16);
    if (writer.buffer == NULL) return IQDB_ERR_NOMEM;
    iq_put_u64(header + IQ_SNAPSHOT_LSN_AT, entry->lsn);
    iq_put_u64(header + IQ_SNAPSHOT_NUMBER_AT, entry->number);
    (void)iq_page_seal(header, sizeof header, IQ_SNAPSHOT_MAGIC, uuid);
    iq_snapshot_put(&writer, header, sizeof header);
    const iqdb_result result = write_fn(&writer, user);
    if (writer.result == IQDB_OK) writer.result = result;
    if (writer.result == IQDB_OK && writer.remaining > 0) writer.result = IQDB_ERR_INVALID_ARGUMENT;
    if (writer.result == IQDB_OK) iq_snapshot_finish(&writer, uuid, entry);
    iq_free(allocator, writer.buffer, IQ_SNAPSHOT_BUFFER, 16);
    iq_blob_free(&writer.sections);
    iq_blob_free(&writer.crcs);
    return writer.result;
}

/* ---- Reading ---- */

struct iq_snapshot_reader {
    iq_volume volume;
    iq_file file;         /* not open where there are `bytes` */
    const uint8_t *bytes; /* the whole of it, or NULL */
    uint64_t size;
    uint8_t uuid[IQ_UUID_SIZE];
    iq_snapshot_shape shape;
    uint32_t roots_crc, section_count, section_capacity;
    bool is_damaged;          /* found so by salvage */
    uint64_t list_at, cached; /* number of the block in `block`, or IQ_NUMBER_MAX */
    uint8_t *memory;          /* in which all of these are */
    size_t memory_size;
    uint8_t *block, *fresh; /* IQ_SNAPSHOT_BLOCK bytes each */
    uint8_t *table, *roots; /* the CRCs, and the roots right behind them */
    uint8_t *list;
    uint8_t *seen; /* a bit a block: checked once */
};

IQ_FN void iq_snapshot_close(iq_snapshot_reader *reader) {
    if (reader == NULL) return;
    const iqdb_allocator allocator = reader->volume.allocator;
    iq_file_close(&reader->file);
    iq_free(&allocator, reader->memory, reader->memory_size, 16);
    iq_free(&allocator, reader, sizeof *reader, 16);
}

/* Closes a reader that could not be opened. */
static iqdb_result iq_snapshot_opened(iq_snapshot_reader **reader, iqdb_result result) {
    if (result == IQDB_OK) return result;
    iq_snapshot_close(*reader);
    *reader = NULL;
    return result;
}

static iqdb_result iq_snapshot_corrupt(const iq_snapshot_reader *reader, uint64_t offset, const char *text) {
    return iq_file_report(&reader->file, IQDB_ERR_CORRUPT, offset, 0, text);
}

/* All of [offset, offset + size) of the file, unchecked. */
static iqdb_result iq_snapshot_fetch(const iq_snapshot_reader *reader, uint64_t offset, uint8_t *bytes, size_t size) {
    size_t got = size;
    iqdb_result result = IQDB_OK;
    if (reader->bytes == NULL) {
        result = iq_file_read(&reader->file, offset, bytes, size, &got);
    } else if (size > 0) {
        memcpy(bytes, reader->bytes + (size_t)offset, size);
    }
    if (result == IQDB_OK && got < size) return iq_snapshot_corrupt(reader, offset + got, "the file ends too early");
    return result;
}

/* Whole blocks, checked. */
static iqdb_result iq_snapshot_fetch_blocks(iq_snapshot_reader *reader, uint64_t first, uint8_t *bytes, size_t count) {
    iqdb_result result = iq_snapshot_fetch(reader, first * IQ_SNAPSHOT_BLOCK, bytes, count * IQ_SNAPSHOT_BLOCK);
    for (size_t i = 0; i < count && result == IQDB_OK; i++) {
        const uint64_t block = first + i;
        const uint32_t crc = reader->volume.crc32(0, bytes + i * IQ_SNAPSHOT_BLOCK, IQ_SNAPSHOT_BLOCK);
        if (crc != iq_get_u32(reader->table + (size_t)block * 4))
            result = iq_snapshot_corrupt(reader, block * IQ_SNAPSHOT_BLOCK, "a block does not match its checksum");
        reader->seen[block / 8] = (uint8_t)(reader->seen[block / 8] | 1u << (block % 8));
    }
    return result;
}

/* Any bytes in front of the table: whole blocks go straight to the caller, pieces of blocks through the cached one. */
static iqdb_result iq_snapshot_fetch_checked(iq_snapshot_reader *reader, uint64_t offset, uint8_t *bytes, size_t size) {
    iqdb_result result = IQDB_OK;
    while (size > 0 && result == IQDB_OK) {
        const uint64_t block = offset / IQ_SNAPSHOT_BLOCK;
        const size_t within = (size_t)(offset % IQ_SNAPSHOT_BLOCK);
        size_t part = IQ_SNAPSHOT_BLOCK - within;
        if (within == 0 && size >= IQ_SNAPSHOT_BLOCK) {
            size_t count = size / IQ_SNAPSHOT_BLOCK;
            if (count > 128) count = 128; /* 1 MiB: checked while it is still in the cache */
            part = count * IQ_SNAPSHOT_BLOCK;
            result = iq_snapshot_fetch_blocks(reader, block, bytes, count);
        } else {
            if (part > size) part = size;
            if (reader->cached != block) {
                reader->cached = IQ_NUMBER_MAX;
                result = iq_snapshot_fetch_blocks(reader, block, reader->block, 1);
                if (result == IQDB_OK) reader->cached = block;
            }
            if (result == IQDB_OK) memcpy(bytes, reader->block + within, part);
        }
        offset += part;
        bytes += part;
        size -= part;
    }
    return result;
}

/* What the file says of itself. */
static iqdb_result iq_snapshot_read_footer(iq_snapshot_reader *reader, iq_snapshot_entry *out_entry) {
    uint8_t footer[IQ_FOOTER_SIZE];
    const uint64_t size = reader->size;
    if (size < IQ_FOOTER_SIZE) return iq_snapshot_corrupt(reader, size, "this is too short for a snapshot");
    const uint64_t at = size - IQ_FOOTER_SIZE;
    const iqdb_result result = iq_snapshot_fetch(reader, at, footer, sizeof footer);
    if (result != IQDB_OK) return result;
    if (!iq_page_is_sound(footer, sizeof footer, IQ_FOOTER_MAGIC))
        return iq_snapshot_corrupt(reader, at, "the footer is damaged");
    if (iq_get_u32(footer + IQ_PAGE_VERSION_AT) != IQDB_FORMAT_VERSION)
        return iq_file_report(&reader->file, IQDB_ERR_VERSION, at, 0, "the snapshot is of a newer version");
    out_entry->number = iq_get_u64(footer + IQ_FOOTER_NUMBER_AT);
    out_entry->size_bytes = size;
    out_entry->root = iq_get_u32(footer + IQ_PAGE_CRC_AT);
    memcpy(reader->uuid, footer + IQ_PAGE_UUID_AT, IQ_UUID_SIZE);
    const uint64_t blocks = iq_get_u64(footer + IQ_FOOTER_BLOCKS_AT);
    const uint32_t sections = iq_get_u32(footer + IQ_FOOTER_SECTIONS_AT);
    reader->list_at = iq_get_u64(footer + IQ_FOOTER_LIST_AT);
    reader->roots_crc = iq_get_u32(footer + IQ_FOOTER_ROOTS_CRC_AT);
    if (blocks > size / IQ_SNAPSHOT_BLOCK || iq_snapshot_shape_of(blocks).size != size || blocks == 0 ||
        reader->list_at > blocks * IQ_SNAPSHOT_BLOCK ||
        sections > (blocks * IQ_SNAPSHOT_BLOCK - reader->list_at) / IQ_SECTION_ENTRY_SIZE)
        return iq_snapshot_corrupt(reader, at, "the footer makes no sense");
    reader->section_count = sections;
    reader->shape = iq_snapshot_shape_of(blocks);
    return IQDB_OK;
}

/* NULL, or in what it is not the snapshot that META, in the database `uuid`, wants. NULL: whatever it is. */
static const char *iq_snapshot_complaint(const iq_snapshot_reader *reader, const iq_snapshot_entry *found,
                                         const uint8_t *uuid, const iq_snapshot_entry *wanted) {
    if (uuid != NULL && memcmp(reader->uuid, uuid, IQ_UUID_SIZE) != 0) return "the file belongs to another database";
    if (wanted == NULL || (found->root == wanted->root && found->number == wanted->number)) return NULL;
    return "this is not the snapshot that META names";
}

/* The table with its roots behind it: the roots against the footer, then each block of the table against its root. */
static iqdb_result iq_snapshot_read_table(iq_snapshot_reader *reader) {
    const iq_snapshot_shape *shape = &reader->shape;
    const iqdb_result result =
        iq_snapshot_fetch(reader, shape->table_at, reader->table, (size_t)(shape->footer_at - shape->table_at));
    if (result != IQDB_OK) return result;
    if (reader->volume.crc32(0, reader->roots, (size_t)(shape->footer_at - shape->roots_at)) != reader->roots_crc)
        return iq_snapshot_corrupt(reader, shape->roots_at, "the roots of the checksums are damaged");
    for (size_t i = 0; i < shape->table_blocks; i++)
        if (reader->volume.crc32(0, reader->table + i * IQ_SNAPSHOT_BLOCK, IQ_SNAPSHOT_BLOCK) !=
            iq_get_u32(reader->roots + i * 4))
            return iq_snapshot_corrupt(reader, shape->table_at + i * IQ_SNAPSHOT_BLOCK,
                                       "a block of checksums does not match its own");
    return IQDB_OK;
}

/* Where a section lies; zeros where there is none. */
typedef struct iq_snapshot_extent {
    uint64_t offset, size;
} iq_snapshot_extent;

static iq_snapshot_extent iq_snapshot_extent_at(const iq_snapshot_reader *reader, uint32_t i) {
    const uint8_t *entry = reader->list + (size_t)i * IQ_SECTION_ENTRY_SIZE;
    const iq_snapshot_extent extent = {iq_get_u64(entry + IQ_SECTION_OFFSET_AT),
                                       iq_get_u64(entry + IQ_SECTION_BYTES_AT)};
    return extent;
}

static bool iq_snapshot_locate(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind,
                               iq_snapshot_extent *out_extent) {
    memset(out_extent, 0, sizeof *out_extent);
    for (uint32_t i = 0; i < reader->section_count; i++) {
        const uint8_t *entry = reader->list + (size_t)i * IQ_SECTION_ENTRY_SIZE;
        if (iq_get_u32(entry + IQ_SECTION_COLLECTION_AT) != collection ||
            iq_get_u32(entry + IQ_SECTION_KIND_AT) != kind)
            continue;
        *out_extent = iq_snapshot_extent_at(reader, i);
        return true;
    }
    return false;
}

static iqdb_result iq_snapshot_read_list(iq_snapshot_reader *reader) {
    uint64_t end = IQ_SNAPSHOT_HEADER_SIZE, at = reader->list_at;
    const iqdb_result result =
        iq_snapshot_fetch_checked(reader, at, reader->list, (size_t)reader->section_count * IQ_SECTION_ENTRY_SIZE);
    for (uint32_t i = 0; i < reader->section_count && result == IQDB_OK; i++, at += IQ_SECTION_ENTRY_SIZE) {
        const iq_snapshot_extent extent = iq_snapshot_extent_at(reader, i);
        if (iq_get_u32(reader->list + (size_t)i * IQ_SECTION_ENTRY_SIZE + IQ_SECTION_REQUIRED_AT) != 0)
            return iq_file_report(&reader->file, IQDB_ERR_VERSION, at, 0, "a section needs a newer version");
        if (extent.offset % IQ_SNAPSHOT_ALIGN != 0 || extent.offset < end || extent.offset > reader->list_at ||
            extent.size > reader->list_at - extent.offset)
            return iq_snapshot_corrupt(reader, at, "a section does not lie where one may");
        end = extent.offset + extent.size;
    }
    return result;
}

/* What a reader of this shape needs, with room in the list for `more` sections. */
static iqdb_result iq_snapshot_allocate(iq_snapshot_reader *reader, uint32_t more) {
    const iq_snapshot_shape *shape = &reader->shape;
    const size_t table_size = (size_t)(shape->footer_at - shape->table_at);
    reader->section_capacity = reader->section_count + more;
    const size_t list_size = (size_t)reader->section_capacity * IQ_SECTION_ENTRY_SIZE;
    reader->memory_size = 2 * IQ_SNAPSHOT_BLOCK + table_size + list_size + (size_t)(shape->blocks / 8 + 1);
    if (shape->blocks <= (size_t)-1 / IQ_SNAPSHOT_BLOCK) /* else on 32-bit machines */
        reader->memory = (uint8_t *)iq_alloc_zeroed(&reader->volume.allocator, reader->memory_size, 16);
    if (reader->memory == NULL)
        return iq_file_report(&reader->file, IQDB_ERR_NOMEM, 0, 0, "no memory for the checksums of the snapshot");
    reader->block = reader->memory;
    reader->fresh = reader->block + IQ_SNAPSHOT_BLOCK;
    reader->table = reader->fresh + IQ_SNAPSHOT_BLOCK;
    reader->roots = reader->table + (size_t)(shape->roots_at - shape->table_at);
    reader->list = reader->table + table_size;
    reader->seen = reader->list + list_size;
    return IQDB_OK;
}

static iqdb_result iq_snapshot_new(const iq_volume *volume, iq_snapshot_reader **out_reader) {
    iq_snapshot_reader *reader = (iq_snapshot_reader *)iq_alloc_zeroed(&volume->allocator, sizeof *reader, 16);
    *out_reader = reader;
    if (reader == NULL) return iq_report(volume->reporter, IQDB_ERR_NOMEM, NULL, 0, "no memory to read a snapshot");
    reader->volume = *volume;
    reader->file.volume = &reader->volume;
    reader->cached = IQ_NUMBER_MAX;
    return IQDB_OK;
}

static iqdb_result iq_snapshot_open_file(const iq_volume *volume, uint64_t number, iq_snapshot_reader **out_reader) {
    char name[IQ_FILE_NAME_SIZE];
    iq_volume_name(name, IQ_SNAPSHOT_PREFIX, number);
    iqdb_result result = iq_snapshot_new(volume, out_reader);
    if (result != IQDB_OK) return result;
    iq_snapshot_reader *reader = *out_reader;
    result = iq_file_open(&reader->file, &reader->volume, name, IQDB_OPEN_READ);
    if (result == IQDB_ERR_NOT_FOUND)
        result = iq_snapshot_corrupt(reader, 0, "the file must be there, but it is missing");
    return result == IQDB_OK ? iq_file_size(&reader->file, &reader->size) : result;
}

/* Everything behind the first look at the file. */
static iqdb_result iq_snapshot_start(iq_snapshot_reader *reader, const uint8_t *uuid, const iq_snapshot_entry *wanted,
                                     iq_snapshot_entry *out_entry) {
    if (wanted != NULL && reader->size != wanted->size_bytes)
        return iq_snapshot_corrupt(reader, reader->size, "the file has another size than META says");
    iqdb_result result = iq_snapshot_read_footer(reader, out_entry);
    if (result != IQDB_OK) return result;
    const char *text = iq_snapshot_complaint(reader, out_entry, uuid, wanted);
    if (text != NULL) return iq_snapshot_corrupt(reader, reader->shape.footer_at, text);
    result = iq_snapshot_allocate(reader, 0);
    if (result == IQDB_OK) result = iq_snapshot_read_table(reader);
    return result == IQDB_OK ? iq_snapshot_read_list(reader) : result;
}

IQ_FN iqdb_result iq_snapshot_open(const iq_volume *volume, const uint8_t *uuid, const iq_snapshot_entry *entry,
                                   iq_snapshot_reader **out_reader) {
    iq_snapshot_entry seen;
    iqdb_result result = iq_snapshot_open_file(volume, entry->number, out_reader);
    if (result == IQDB_OK) result = iq_snapshot_start(*out_reader, uuid, entry, &seen);
    return iq_snapshot_opened(out_reader, result);
}

/* The LSN stands in the header only. */
static iqdb_result iq_snapshot_read_header(iq_snapshot_reader *reader, iq_snapshot_entry *entry) {
    uint8_t header[IQ_SNAPSHOT_HEADER_SIZE];
    const iqdb_result result = iq_snapshot_fetch_checked(reader, 0, header, sizeof header);
    if (result != IQDB_OK) return result;
    entry->lsn = iq_get_u64(header + IQ_SNAPSHOT_LSN_AT);
    if (!iq_page_is_sound(header, sizeof header, IQ_SNAPSHOT_MAGIC) || entry->lsn > IQ_NUMBER_MAX ||
        iq_get_u64(header + IQ_SNAPSHOT_NUMBER_AT) != entry->number)
        return iq_snapshot_corrupt(reader, 0, "the header makes no sense, though its checksum holds");
    return IQDB_OK;
}

IQ_FN iqdb_result iq_snapshot_open_bytes(const iq_volume *volume, const void *bytes, size_t size,
                                         iq_snapshot_entry *out_entry, iq_snapshot_reader **out_reader) {
    iqdb_result result = iq_snapshot_new(volume, out_reader);
    if (result != IQDB_OK) return result;
    iq_snapshot_reader *reader = *out_reader;
    memcpy(reader->file.name, "blob", sizeof "blob");
    reader->bytes = (const uint8_t *)bytes;
    reader->size = size;
    result = iq_snapshot_start(reader, NULL, NULL, out_entry);
    if (result == IQDB_OK) result = iq_snapshot_read_header(reader, out_entry);
    return iq_snapshot_opened(out_reader, result);
}

IQ_FN bool iq_snapshot_find(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind, uint64_t *out_size) {
    iq_snapshot_extent extent;
    const bool is_found = iq_snapshot_locate(reader, collection, kind, &extent);
    *out_size = extent.size;
    return is_found;
}

IQ_FN const uint8_t *iq_snapshot_view(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind) {
    iq_snapshot_extent extent;
    return iq_snapshot_locate(reader, collection, kind, &extent) ? reader->bytes + (size_t)extent.offset : NULL;
}

IQ_FN iqdb_result iq_snapshot_read(iq_snapshot_reader *reader, uint32_t collection, uint32_t kind, uint64_t offset,
                                   void *bytes, size_t size) {
    iq_snapshot_extent extent;
    (void)iq_snapshot_locate(reader, collection, kind, &extent);
    if (offset > extent.size || size > extent.size - offset)
        return iq_snapshot_reject(reader, collection, kind, 0, "a section is missing or too short");
    return iq_snapshot_fetch_checked(reader, extent.offset + offset, (uint8_t *)bytes, size);
}

IQ_FN iqdb_error iq_snapshot_finding(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind,
                                     uint64_t offset, const char *text) {
    iq_snapshot_extent extent;
    if (!iq_snapshot_locate(reader, collection, kind, &extent)) offset = 0;
    return iq_error_make(IQDB_ERR_CORRUPT, reader->file.name, extent.offset + offset, text);
}

IQ_FN iqdb_result iq_snapshot_reject(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind,
                                     uint64_t offset, const char *why) {
    const iqdb_error error = iq_snapshot_finding(reader, collection, kind, offset, why);
    return iq_report_error(reader->volume.reporter, &error);
}

IQ_FN iqdb_result iq_snapshot_check(iq_snapshot_reader *reader) {
    iqdb_result first = IQDB_OK;
    reader->cached = IQ_NUMBER_MAX;
    for (uint64_t block = 0; block < reader->shape.blocks; block++) {
        if ((reader->seen[block / 8] >> (block % 8) & 1u) != 0) continue;
        const iqdb_result result = iq_snapshot_fetch_blocks(reader, block, reader->block, 1);
        if (first == IQDB_OK) first = result;
    }
    return first;
}

/* ---- Reading what is damaged ---- */

/* Damage that salvage goes on behind. */
static void iq_snapshot_note(iq_snapshot_reader *reader, uint64_t offset, const char *text) {
    reader->is_damaged = true;
    (void)iq_snapshot_corrupt(reader, offset, text);
}

/* Which blocks of the file are what was written? Those whose checksum stands in the table. And where the checksums of
 * all the blocks that one block of the table is about give just its root, all of them are, whatever the table says now.
 * The table is left so that reads find it right for them, and wrong for all others. */
static iqdb_result iq_snapshot_judge(iq_snapshot_reader *reader, uint64_t table_block) {
    const iq_crc32_fn crc32 = reader->volume.crc32;
    uint8_t *table = reader->table + (size_t)table_block * IQ_SNAPSHOT_BLOCK, *fresh = reader->fresh;
    const uint32_t root = iq_get_u32(reader->roots + (size_t)table_block * 4);
    const uint64_t first = table_block * IQ_SNAPSHOT_CRCS_PER_BLOCK;
    size_t count = IQ_SNAPSHOT_CRCS_PER_BLOCK;
    if (count > reader->shape.blocks - first) count = (size_t)(reader->shape.blocks - first);
    memset(fresh, 0, IQ_SNAPSHOT_BLOCK);
    for (size_t i = 0; i < count; i++) {
        size_t got = 0;
        const iqdb_result result =
            iq_file_read(&reader->file, (first + i) * IQ_SNAPSHOT_BLOCK, reader->block, IQ_SNAPSHOT_BLOCK, &got);
        if (result == IQDB_ERR_NOMEM) return result;
        const bool is_there = result == IQDB_OK && got == IQ_SNAPSHOT_BLOCK;
        iq_put_u32(fresh + i * 4, is_there ? crc32(0, reader->block, IQ_SNAPSHOT_BLOCK) : ~iq_get_u32(table + i * 4));
    }
    if (crc32(0, table, IQ_SNAPSHOT_BLOCK) != root)
        iq_snapshot_note(reader, reader->shape.table_at + table_block * IQ_SNAPSHOT_BLOCK,
                         "a block of checksums does not match its own");
    if (crc32(0, fresh, IQ_SNAPSHOT_BLOCK) == root) {
        memcpy(table, fresh, IQ_SNAPSHOT_BLOCK);
        return IQDB_OK;
    }
    reader->is_damaged = true;
    for (size_t i = 0; i < count; i++)
        if (iq_get_u32(table + i * 4) != iq_get_u32(fresh + i * 4))
            iq_snapshot_note(reader, (first + i) * IQ_SNAPSHOT_BLOCK, "a block does not match its checksum");
    return IQDB_OK;
}

/* Footer and shape, or what must have been there: the shape of a file of this size, or the nearest below. */
static iqdb_result iq_snapshot_salvage_footer(iq_snapshot_reader *reader, const uint8_t *uuid,
                                              const iq_snapshot_entry *wanted, iq_snapshot_entry *out_entry) {
    if (wanted != NULL && reader->size != wanted->size_bytes) {
        iq_snapshot_note(reader, reader->size, "the file has another size than META says");
        reader->size = wanted->size_bytes;
    }
    const iqdb_result result = iq_snapshot_read_footer(reader, out_entry);
    if (result == IQDB_ERR_VERSION) return result;
    if (result == IQDB_OK) {
        const char *text = iq_snapshot_complaint(reader, out_entry, uuid, wanted);
        if (text != NULL) iq_snapshot_note(reader, 0, text);
        return iq_snapshot_complaint(reader, out_entry, uuid, NULL) == NULL ? IQDB_OK : IQDB_ERR_CORRUPT;
    }
    uint64_t blocks = reader->size / IQ_SNAPSHOT_BLOCK;
    while (blocks > 0 && iq_snapshot_shape_of(blocks).size > reader->size) blocks--;
    reader->is_damaged = true;
    reader->shape = iq_snapshot_shape_of(blocks);
    reader->list_at = reader->shape.table_at;
    return blocks == 0 ? IQDB_ERR_CORRUPT : IQDB_OK;
}

static iqdb_result iq_snapshot_salvage_blocks(iq_snapshot_reader *reader) {
    const iq_snapshot_shape *shape = &reader->shape;
    size_t got;
    iqdb_result result =
        iq_file_read(&reader->file, shape->table_at, reader->table, (size_t)(shape->footer_at - shape->table_at), &got);
    if (result != IQDB_ERR_NOMEM) result = IQDB_OK;
    const uint32_t crc = reader->volume.crc32(0, reader->roots, (size_t)(shape->footer_at - shape->roots_at));
    if (reader->section_count > 0 &&
        crc != reader->roots_crc) /* without a footer there is nothing to hold it against */
        iq_snapshot_note(reader, shape->roots_at, "the roots of the checksums are damaged");
    for (uint64_t i = 0; i < shape->table_blocks && result == IQDB_OK; i++) result = iq_snapshot_judge(reader, i);
    return result;
}

IQ_FN iqdb_result iq_snapshot_salvage(const iq_volume *volume, const uint8_t *uuid, uint64_t number,
                                      const iq_snapshot_entry *wanted, iq_snapshot_entry *out_entry,
                                      iq_snapshot_reader **out_reader) {
    memset(out_entry, 0, sizeof *out_entry);
    iqdb_result result = iq_snapshot_open_file(volume, number, out_reader);
    iq_snapshot_reader *reader = *out_reader;
    if (result == IQDB_OK) result = iq_snapshot_salvage_footer(reader, uuid, wanted, out_entry);
    if (result == IQDB_OK) result = iq_snapshot_allocate(reader, IQ_SNAPSHOT_ASSUMED_MAX);
    if (result == IQDB_OK) result = iq_snapshot_salvage_blocks(reader);
    if (result != IQDB_OK) return iq_snapshot_opened(out_reader, result);
    reader->volume.reporter = NULL; /* what is in damaged blocks has been told */
    if (iq_snapshot_read_list(reader) != IQDB_OK) {
        reader->is_damaged = true;
        reader->section_count = 0;
    }
    out_entry->number = number;
    out_entry->size_bytes = reader->size;
    if (iq_snapshot_read_header(reader, out_entry) != IQDB_OK) out_entry->lsn = IQ_NUMBER_MAX;
    return IQDB_OK;
}

IQ_FN bool iq_snapshot_is_whole(const iq_snapshot_reader *reader) {
    return !reader->is_damaged;
}

/* Where the last section of the list ends. */
static uint64_t iq_snapshot_end(const iq_snapshot_reader *reader) {
    if (reader->section_count == 0) return IQ_SNAPSHOT_HEADER_SIZE;
    const iq_snapshot_extent last = iq_snapshot_extent_at(reader, reader->section_count - 1);
    return last.offset + last.size;
}

IQ_FN uint64_t iq_snapshot_rest(const iq_snapshot_reader *reader) {
    const uint64_t end = iq_snapshot_end(reader);
    const uint64_t packed = iq_snapshot_place(end, 0), large = iq_snapshot_place(end, IQ_SNAPSHOT_LARGE);
    if (large < reader->list_at && reader->list_at - large >= IQ_SNAPSHOT_LARGE) return reader->list_at - large;
    return packed < reader->list_at ? reader->list_at - packed : 0;
}

IQ_FN void iq_snapshot_assume(iq_snapshot_reader *reader, uint32_t collection, uint32_t kind, uint64_t size) {
    const uint64_t at = iq_snapshot_place(iq_snapshot_end(reader), size);
    if (reader->section_count == reader->section_capacity || at > reader->list_at || size > reader->list_at - at)
        return;
    uint8_t *entry = reader->list + (size_t)reader->section_count * IQ_SECTION_ENTRY_SIZE;
    memset(entry, 0, IQ_SECTION_ENTRY_SIZE);
    iq_put_u32(entry + IQ_SECTION_COLLECTION_AT, collection);
    iq_put_u32(entry + IQ_SECTION_KIND_AT, kind);
    iq_put_u64(entry + IQ_SECTION_OFFSET_AT, at);
    iq_put_u64(entry + IQ_SECTION_BYTES_AT, size);
    reader->section_count++;
}

IQ_FN bool iq_snapshot_identify(const iq_volume *volume, uint64_t number, uint8_t *uuid, bool *has_uuid) {
    iq_snapshot_entry entry;
    iq_snapshot_reader *reader;
    const bool is_ours = iq_snapshot_open_file(volume, number, &reader) == IQDB_OK &&
                         iq_snapshot_read_footer(reader, &entry) == IQDB_OK &&
                         iq_snapshot_complaint(reader, &entry, *has_uuid ? uuid : NULL, NULL) == NULL;
    if (is_ours) memcpy(uuid, reader->uuid, IQ_UUID_SIZE);
    if (is_ours) *has_uuid = true;
    iq_snapshot_close(reader);
    return is_ours;
}

IQ_FN bool iq_snapshot_is_ours(const iq_volume *volume, const uint8_t *uuid, uint64_t number, bool *out_torn) {
    uint8_t header[IQ_SNAPSHOT_HEADER_SIZE] = {0};
    iq_snapshot_reader *reader;
    iqdb_result result = iq_snapshot_open_file(volume, number, &reader);
    if (result == IQDB_OK && reader->size >= sizeof header)
        result = iq_snapshot_fetch(reader, 0, header, sizeof header);
    iq_snapshot_close(reader);
    *out_torn = result == IQDB_OK && !iq_page_is_sound(header, sizeof header, IQ_SNAPSHOT_MAGIC);
    return result == IQDB_OK && !*out_torn && memcmp(header + IQ_PAGE_UUID_AT, uuid, IQ_UUID_SIZE) == 0 &&
           iq_get_u64(header + IQ_SNAPSHOT_NUMBER_AT) == number;
}

/* ======== [persist/meta.h] ======== */
/* META: what the database consists of. */

/* What META keeps of the default collection. */
typedef struct iq_schema {
    uint32_t dim; /* 0: not known yet */
    uint32_t metric;
    uint32_t element;
} iq_schema;

/* A place in a log: right behind frame `lsn`. */
typedef struct iq_log_position {
    uint64_t lsn;
    uint64_t offset;
    uint32_t crc; /* of that frame, or of the log's header where it is the start */
} iq_log_position;

typedef struct iq_log_entry {
    uint64_t number, salt, first_lsn;
    uint64_t size_bytes; /* the file has at least these */
    bool has_end;
    iq_log_position end;
} iq_log_entry;

typedef struct iq_manifest {
    uint8_t uuid[IQ_UUID_SIZE];
    bool clean;
    iq_schema schema;
    uint64_t applied_lsn;
    uint32_t snapshot_count, log_count;
    iq_snapshot_entry snapshots[IQ_META_SNAPSHOT_MAX];
    iq_log_entry logs[IQ_META_LOG_MAX];
} iq_manifest;

/* `slot` has IQ_META_SLOT_SIZE bytes. */
IQ_FN void iq_meta_encode(const iq_manifest *manifest, uint64_t sequence, uint8_t *slot);
/* OK; CORRUPT: not a valid slot; VERSION: valid, but of a newer format. *out_sequence is set but for CORRUPT. */
IQ_FN iqdb_result iq_meta_decode(const uint8_t *slot, iq_manifest *out_manifest, uint64_t *out_sequence);

typedef enum iq_meta_state {
    IQ_META_IS_GOOD,
    IQ_META_IS_MISSING,
    IQ_META_IS_BLANK,  /* no byte but zeros */
    IQ_META_IS_DAMAGED /* no valid slot */
} iq_meta_state;

typedef struct iq_meta {
    iq_file file;
    uint64_t sequence;  /* no lower one may be written */
    uint32_t next_slot; /* the invalid or older one */
    bool settled;       /* both slots say the same */
    bool torn;          /* next_slot was found with a part of what somebody wanted to write, or damaged */
    uint8_t image[IQ_META_SLOT_SIZE];
    uint8_t check[IQ_META_SLOT_SIZE];
} iq_meta;

/* Opens META, to write where `writable`, and reads it. The manifest is filled where the state is GOOD. A damaged slot
 * beside a good one is worth a warning. VERSION: the slot that counts is of a newer format. */
IQ_FN iqdb_result iq_meta_load(iq_meta *meta, const iq_volume *volume, bool writable, iq_meta_state *out_state,
                               iq_manifest *out_manifest);
/* Reads META by a handle of its own and reports every slot that is not valid; the code of the first. `scratch` has
 * IQ_META_SLOT_SIZE bytes. */
IQ_FN iqdb_result iq_meta_verify(const iq_volume *volume, uint8_t *scratch);
/* Creates META empty, for the first save. */
IQ_FN iqdb_result iq_meta_create(iq_meta *meta, const iq_volume *volume);
/* Writes one slot, syncs and reads it back, then the other. After a failure either manifest may be what the next open
 * finds, so the files of both must stay; calling again is safe. */
IQ_FN iqdb_result iq_meta_save(iq_meta *meta, const iq_manifest *manifest);

/* ======== [persist/meta.c] ======== */
/* META: one page that says which files make up the database, kept twice.
 *
 * 1. A save never touches both slots in one sync: first the invalid or older slot, and only when that one has been
 *    synced and read back, the other. So at any moment one slot is valid, and damage to either one costs nothing.
 * 2. After a save both slots say the same. Only then may a caller rely on it: unlink files, append to a log.
 * 3. The sequence grows with every attempt, a failed one included, so what a failed save may have left on the disk
 *    never outranks what follows.
 * 4. What is decoded has been checked as if somebody had made it by hand: counts, order of numbers and LSNs. */

#define IQ_META_NAME "META"

IQ_FN void iq_meta_encode(const iq_manifest *manifest, uint64_t sequence, uint8_t *slot) {
    memset(slot, 0, IQ_META_SLOT_SIZE);
    iq_put_u64(slot + IQ_META_SEQUENCE_AT, sequence);
    iq_put_u32(slot + IQ_META_STATE_AT, manifest->clean ? IQ_META_CLEAN : 0);
    iq_put_u32(slot + IQ_META_SNAPSHOTS_AT, manifest->snapshot_count);
    iq_put_u32(slot + IQ_META_LOGS_AT, manifest->log_count);
    iq_put_u64(slot + IQ_META_APPLIED_AT, manifest->applied_lsn);
    iq_put_u32(slot + IQ_META_DIM_AT, manifest->schema.dim);
    iq_put_u32(slot + IQ_META_METRIC_AT, manifest->schema.metric);
    iq_put_u32(slot + IQ_META_ELEMENT_AT, manifest->schema.element);
    for (uint32_t i = 0; i < manifest->snapshot_count; i++) {
        const iq_snapshot_entry *snapshot = &manifest->snapshots[i];
        uint8_t *entry = slot + IQ_META_SNAPSHOT_AT + i * IQ_META_SNAPSHOT_SIZE;
        iq_put_u64(entry + IQ_META_SNAPSHOT_NUMBER_AT, snapshot->number);
        iq_put_u64(entry + IQ_META_SNAPSHOT_BYTES_AT, snapshot->size_bytes);
        iq_put_u64(entry + IQ_META_SNAPSHOT_LSN_AT, snapshot->lsn);
        iq_put_u32(entry + IQ_META_SNAPSHOT_ROOT_AT, snapshot->root);
    }
    for (uint32_t i = 0; i < manifest->log_count; i++) {
        const iq_log_entry *log = &manifest->logs[i];
        uint8_t *entry = slot + IQ_META_LOG_AT + i * IQ_META_LOG_SIZE;
        iq_put_u64(entry + IQ_META_LOG_NUMBER_AT, log->number);
        iq_put_u64(entry + IQ_META_LOG_SALT_AT, log->salt);
        iq_put_u64(entry + IQ_META_LOG_FIRST_AT, log->first_lsn);
        iq_put_u64(entry + IQ_META_LOG_BYTES_AT, log->size_bytes);
        if (!log->has_end) continue;
        iq_put_u64(entry + IQ_META_LOG_END_LSN_AT, log->end.lsn);
        iq_put_u64(entry + IQ_META_LOG_END_AT, log->end.offset);
        iq_put_u32(entry + IQ_META_LOG_END_CRC_AT, log->end.crc);
        iq_put_u32(entry + IQ_META_LOG_STATE_AT, IQ_META_LOG_ENDS);
    }
    (void)iq_page_seal(slot, IQ_META_SLOT_SIZE, IQ_META_MAGIC, manifest->uuid);
}

/* Whether the lists could have been written by a save: see invariant 4. */
static bool iq_meta_makes_sense(const iq_manifest *manifest) {
    uint64_t lsn = 0, number = 0;
    for (uint32_t i = 0; i < manifest->snapshot_count; i++) {
        const iq_snapshot_entry *snapshot = &manifest->snapshots[i];
        if (snapshot->number <= number || snapshot->number > IQ_NUMBER_MAX) return false;
        if (snapshot->lsn < lsn || snapshot->lsn > IQ_NUMBER_MAX) return false;
        number = snapshot->number;
        lsn = snapshot->lsn;
    }
    if (manifest->applied_lsn != lsn) return false;
    number = 0;
    for (uint32_t i = 0; i < manifest->log_count; i++) {
        const iq_log_entry *log = &manifest->logs[i];
        const bool is_last = i + 1 == manifest->log_count;
        if (log->number <= number || log->number > IQ_NUMBER_MAX) return false;
        if (log->first_lsn == 0 || log->first_lsn > IQ_NUMBER_MAX) return false;
        if (i == 0 ? log->first_lsn > lsn + 1 : log->first_lsn != lsn + 1) return false;
        if (!log->has_end) return is_last && !manifest->clean;
        if (log->end.lsn < log->first_lsn - 1 || log->end.lsn > IQ_NUMBER_MAX) return false;
        if (log->end.offset < IQ_LOG_SECTOR_MIN || log->end.offset > IQ_NUMBER_MAX) return false;
        number = log->number;
        lsn = log->end.lsn;
    }
    return lsn >= manifest->applied_lsn;
}

IQ_FN iqdb_result iq_meta_decode(const uint8_t *slot, iq_manifest *out_manifest, uint64_t *out_sequence) {
    iq_manifest *manifest = out_manifest;
    memset(manifest, 0, sizeof *manifest);
    if (!iq_page_is_sound(slot, IQ_META_SLOT_SIZE, IQ_META_MAGIC)) return IQDB_ERR_CORRUPT;
    *out_sequence = iq_get_u64(slot + IQ_META_SEQUENCE_AT);
    if (*out_sequence > IQ_NUMBER_MAX) return IQDB_ERR_CORRUPT;
    if (iq_get_u32(slot + IQ_PAGE_VERSION_AT) != IQDB_FORMAT_VERSION) return IQDB_ERR_VERSION;
    if (iq_get_u32(slot + IQ_META_REQUIRED_AT) != 0) return IQDB_ERR_VERSION;
    memcpy(manifest->uuid, slot + IQ_PAGE_UUID_AT, IQ_UUID_SIZE);
    manifest->clean = (iq_get_u32(slot + IQ_META_STATE_AT) & IQ_META_CLEAN) != 0;
    manifest->snapshot_count = iq_get_u32(slot + IQ_META_SNAPSHOTS_AT);
    manifest->log_count = iq_get_u32(slot + IQ_META_LOGS_AT);
    manifest->applied_lsn = iq_get_u64(slot + IQ_META_APPLIED_AT);
    manifest->schema.dim = iq_get_u32(slot + IQ_META_DIM_AT);
    manifest->schema.metric = iq_get_u32(slot + IQ_META_METRIC_AT);
    manifest->schema.element = iq_get_u32(slot + IQ_META_ELEMENT_AT);
    if (manifest->snapshot_count > IQ_META_SNAPSHOT_MAX) return IQDB_ERR_CORRUPT;
    if (manifest->log_count == 0 || manifest->log_count > IQ_META_LOG_MAX) return IQDB_ERR_CORRUPT;
    for (uint32_t i = 0; i < manifest->snapshot_count; i++) {
        const uint8_t *entry = slot + IQ_META_SNAPSHOT_AT + i * IQ_META_SNAPSHOT_SIZE;
        manifest->snapshots[i].number = iq_get_u64(entry + IQ_META_SNAPSHOT_NUMBER_AT);
        manifest->snapshots[i].size_bytes = iq_get_u64(entry + IQ_META_SNAPSHOT_BYTES_AT);
        manifest->snapshots[i].lsn = iq_get_u64(entry + IQ_META_SNAPSHOT_LSN_AT);
        manifest->snapshots[i].root = iq_get_u32(entry + IQ_META_SNAPSHOT_ROOT_AT);
    }
    for (uint32_t i = 0; i < manifest->log_count; i++) {
        const uint8_t *entry = slot + IQ_META_LOG_AT + i * IQ_META_LOG_SIZE;
        iq_log_entry *log = &manifest->logs[i];
        log->number = iq_get_u64(entry + IQ_META_LOG_NUMBER_AT);
        log->salt = iq_get_u64(entry + IQ_META_LOG_SALT_AT);
        log->first_lsn = iq_get_u64(entry + IQ_META_LOG_FIRST_AT);
        log->size_bytes = iq_get_u64(entry + IQ_META_LOG_BYTES_AT);
        log->end.lsn = iq_get_u64(entry + IQ_META_LOG_END_LSN_AT);
        log->end.offset = iq_get_u64(entry + IQ_META_LOG_END_AT);
        log->end.crc = iq_get_u32(entry + IQ_META_LOG_END_CRC_AT);
        log->has_end = (iq_get_u32(entry + IQ_META_LOG_STATE_AT) & IQ_META_LOG_ENDS) != 0;
    }
    return iq_meta_makes_sense(manifest) ? IQDB_OK : IQDB_ERR_CORRUPT;
}

/* Reads slot `index` into `bytes`, zeros where the file ends. *out_blank: nothing but zeros is there. */
static iqdb_result iq_meta_read_slot(const iq_file *file, uint32_t index, uint8_t *bytes, bool *out_blank) {
    size_t size;
    memset(bytes, 0, IQ_META_SLOT_SIZE);
    const iqdb_result result = iq_file_read(file, (uint64_t)index * IQ_META_SLOT_SIZE, bytes, IQ_META_SLOT_SIZE, &size);
    *out_blank = bytes[0] == 0 && memcmp(bytes, bytes + 1, IQ_META_SLOT_SIZE - 1) == 0;
    return result;
}

IQ_FN iqdb_result iq_meta_load(iq_meta *meta, const iq_volume *volume, bool writable, iq_meta_state *out_state,
                               iq_manifest *out_manifest) {
    iqdb_result codes[2] = {IQDB_OK, IQDB_OK};
    uint64_t sequences[2] = {0, 0};
    bool blank[2] = {false, false};
    *out_state = IQ_META_IS_MISSING;
    meta->sequence = 0;
    meta->next_slot = 0;
    meta->settled = meta->torn = false;
    iqdb_result result = iq_file_open(&meta->file, volume, IQ_META_NAME, writable ? IQDB_OPEN_WRITE : IQDB_OPEN_READ);
    if (result == IQDB_ERR_NOT_FOUND) return IQDB_OK;
    for (uint32_t i = 0; i < 2 && result == IQDB_OK; i++) {
        uint8_t *slot = i == 0 ? meta->image : meta->check;
        result = iq_meta_read_slot(&meta->file, i, slot, &blank[i]);
        if (result == IQDB_OK) codes[i] = iq_meta_decode(slot, out_manifest, &sequences[i]);
        if (codes[i] == IQDB_ERR_CORRUPT) sequences[i] = 0;
    }
    if (result != IQDB_OK) return result;
    if (codes[0] == IQDB_ERR_CORRUPT && codes[1] == IQDB_ERR_CORRUPT) {
        *out_state = blank[0] && blank[1] ? IQ_META_IS_BLANK : IQ_META_IS_DAMAGED;
        return IQDB_OK;
    }
    uint32_t newest = sequences[1] > sequences[0] ? 1 : 0;
    if (codes[newest] == IQDB_ERR_CORRUPT) newest ^= 1u;
    *out_state = IQ_META_IS_GOOD;
    meta->sequence = sequences[newest];
    meta->next_slot = newest ^ 1u;
    meta->torn = codes[newest ^ 1u] == IQDB_ERR_CORRUPT;
    meta->settled = memcmp(meta->image, meta->check, IQ_META_SLOT_SIZE) == 0;
    if (codes[newest] == IQDB_ERR_VERSION)
        return iq_file_report(&meta->file, IQDB_ERR_VERSION, (uint64_t)newest * IQ_META_SLOT_SIZE, 0,
                              "the database was written by a newer version");
    (void)iq_meta_decode(newest == 0 ? meta->image : meta->check, out_manifest, &meta->sequence);
    if (codes[newest ^ 1u] == IQDB_ERR_CORRUPT)
        iq_log(volume->reporter, IQDB_LEVEL_WARNING, IQ_META_NAME, (uint64_t)(newest ^ 1u) * IQ_META_SLOT_SIZE,
               "one of the two slots is not valid; the other one is used");
    return IQDB_OK;
}

IQ_FN iqdb_result iq_meta_verify(const iq_volume *volume, uint8_t *scratch) {
    iq_manifest unused;
    iq_file file;
    uint64_t sequence;
    bool blank;
    iqdb_result first = iq_file_open(&file, volume, IQ_META_NAME, IQDB_OPEN_READ);
    if (first == IQDB_ERR_NOT_FOUND)
        return iq_report(volume->reporter, IQDB_ERR_CORRUPT, IQ_META_NAME, 0, "the file is missing");
    if (first != IQDB_OK) return first;
    for (uint32_t i = 0; i < 2; i++) {
        iqdb_result result = iq_meta_read_slot(&file, i, scratch, &blank);
        if (result == IQDB_OK && iq_meta_decode(scratch, &unused, &sequence) != IQDB_OK)
            result =
                iq_file_report(&file, IQDB_ERR_CORRUPT, (uint64_t)i * IQ_META_SLOT_SIZE, 0, "this slot is not valid");
        if (first == IQDB_OK) first = result;
    }
    iq_file_close(&file);
    return first;
}

IQ_FN iqdb_result iq_meta_create(iq_meta *meta, const iq_volume *volume) {
    meta->sequence = 0;
    meta->next_slot = 0;
    meta->settled = meta->torn = false;
    const iqdb_result result = iq_file_open(&meta->file, volume, IQ_META_NAME, IQDB_OPEN_CREATE);
    if (result == IQDB_ERR_INVALID_CONFIG || result == IQDB_ERR_NOT_FOUND)
        return iq_report(volume->reporter, IQDB_ERR_IO, IQ_META_NAME, 0, "the file cannot be created");
    return result;
}

/* A slot that was found torn must not be completed by a later save of which only some sectors get through: most of its
 * sectors would say the same. Without its first one it is nothing. */
static iqdb_result iq_meta_forget_torn(iq_meta *meta) {
    if (!meta->torn) return IQDB_OK;
    memset(meta->check, 0, IQ_LOG_SECTOR_MIN);
    const uint64_t offset = (uint64_t)meta->next_slot * IQ_META_SLOT_SIZE;
    iqdb_result result = iq_file_write(&meta->file, offset, meta->check, IQ_LOG_SECTOR_MIN);
    if (result == IQDB_OK) result = iq_file_sync(&meta->file);
    meta->torn = result != IQDB_OK;
    return result;
}

IQ_FN iqdb_result iq_meta_save(iq_meta *meta, const iq_manifest *manifest) {
    IQ_ASSERT(iq_meta_makes_sense(manifest));
    meta->sequence++;
    meta->settled = false;
    iq_meta_encode(manifest, meta->sequence, meta->image);
    for (int pass = 0; pass < 2; pass++) {
        const uint64_t offset = (uint64_t)meta->next_slot * IQ_META_SLOT_SIZE;
        bool blank;
        iqdb_result result = iq_meta_forget_torn(meta);
        if (result == IQDB_OK) result = iq_file_write(&meta->file, offset, meta->image, IQ_META_SLOT_SIZE);
        if (result == IQDB_OK) result = iq_file_sync(&meta->file);
        if (result == IQDB_OK) result = iq_meta_read_slot(&meta->file, meta->next_slot, meta->check, &blank);
        if (result == IQDB_OK && memcmp(meta->image, meta->check, IQ_META_SLOT_SIZE) != 0)
            result = iq_file_report(&meta->file, IQDB_ERR_IO, offset, 0, "what was written does not read back");
        if (result != IQDB_OK) return result;
        meta->next_slot ^= 1u;
    }
    meta->settled = true;
    return IQDB_OK;
}

/* ======== [persist/scan.h] ======== */
/* Reading a log: its header, its frames one by one, whole batches, and what its frames attest. */

typedef struct iq_log_header {
    uint64_t number, salt, first_lsn;
    uint64_t before, before_salt; /* the log that this one continues */
    uint32_t sector_size;
    uint32_t crc;
} iq_log_header;

/* Fills the sector_size bytes of the first sector, and header->crc. */
IQ_FN void iq_log_encode_header(iq_log_header *header, const uint8_t *uuid, uint8_t *sector);
/* What the CRC of every frame of a log starts from. */
IQ_FN uint32_t iq_log_seed(uint64_t salt);
IQ_FN uint32_t iq_frame_crc(iq_crc32_fn crc32, uint32_t seed, const uint8_t *frame, uint32_t length);

typedef struct iq_frame {
    uint64_t offset, lsn, durable_lsn, batch_lsn;
    uint32_t length, crc, before_crc;
    uint8_t type, flags;
    const uint8_t *body; /* in the window: until the next frame is read. NULL: there is no frame */
} iq_frame;

typedef enum iq_log_state {
    IQ_LOG_IS_GOOD,
    IQ_LOG_IS_MISSING,
    IQ_LOG_IS_TORN,   /* no whole header */
    IQ_LOG_IS_FOREIGN /* of another database, or of another number */
} iq_log_state;

/* A log that is being read. Zeroed, it is closed. */
typedef struct iq_scan {
    iq_file file;
    iq_log_state state;
    uint64_t size_bytes; /* when it was opened */
    iq_log_header header;
    uint8_t uuid[IQ_UUID_SIZE];
    uint32_t seed;
    uint8_t *window;
    size_t window_capacity, window_size;
    uint64_t window_at, window_turns; /* turns: how often it was filled */
    uint64_t patience;                /* bytes that may still be summed in searches for frames */
    uint64_t anchor;                  /* what the next filling should keep: the start of the batch */
    iq_blob record;                   /* one put together from pieces */
} iq_scan;

/* Opens wal-<number> and reads its header. uuid NULL: of any database. Only a scan in state GOOD is open. */
IQ_FN iqdb_result iq_scan_open(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid, uint64_t number);
/* The same for a log that must be there and be the one that META or a switch frame describes, else CORRUPT. */
IQ_FN iqdb_result iq_scan_require(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid,
                                  const iq_log_entry *entry);
/* The same for a log whose header may be damaged, missing or another's; then the entry stands for it. Every such
 * damage is reported. In state GOOD there is a file of this database, and a salt to check its frames with. NOMEM. */
IQ_FN iqdb_result iq_scan_salvage(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid,
                                  const iq_log_entry *entry);
IQ_FN void iq_scan_close(iq_scan *scan);
IQ_FN iq_log_position iq_scan_start(const iq_scan *scan);
/* Reports damage and returns CORRUPT. */
IQ_FN iqdb_result iq_scan_corrupt(const iq_scan *scan, uint64_t offset, uint64_t lsn, const char *text);

/* The frame behind `from`: its CRC holds, and it continues `from`; else its body is NULL. CORRUPT: it does, but means
 * nothing. */
IQ_FN iqdb_result iq_scan_frame(iq_scan *scan, const iq_log_position *from, iq_frame *out_frame);
/* The same where it has been read before: CORRUPT where it is not there any more. */
IQ_FN iqdb_result iq_scan_frame_again(iq_scan *scan, const iq_log_position *from, iq_frame *out_frame);
/* Whether zeros stand there, where a frame would: the log was never written so far. */
IQ_FN iqdb_result iq_scan_is_blank(iq_scan *scan, uint64_t offset, bool *out_blank);
IQ_FN iq_log_position iq_scan_behind(const iq_frame *frame);

/* A batch: of records, or a single attest or switch frame. */
typedef struct iq_span {
    iq_log_position start, end;
    uint64_t durable_lsn;
    size_t record_max; /* bytes of the longest record that has more than one piece */
    uint8_t type;
    bool is_whole;     /* else it does not end, and `end` is behind its last valid frame */
    iq_log_entry next; /* of a switch: the log it leads to */
    uint64_t turns;    /* of the window, when the first frame had been checked */
} iq_span;

/* The batch behind `from`. */
IQ_FN iqdb_result iq_scan_batch(iq_scan *scan, const iq_log_position *from, iq_span *out_span);

/* Hands out each record of a whole batch. CORRUPT from record_fn is reported with the record's place. */
typedef iqdb_result (*iq_record_fn)(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user);
IQ_FN iqdb_result iq_scan_records(iq_scan *scan, const iq_span *span, iq_record_fn record_fn, void *user);

/* The first frame at or behind `offset` that is valid by itself, has LSN `lsn` or a later one and says that
 * `durable_lsn` was durable when it was written; its body is NULL where there is none. A scan's searches end where its
 * patience does. */
IQ_FN iqdb_result iq_scan_find(iq_scan *scan, uint64_t offset, uint64_t lsn, uint64_t durable_lsn, iq_frame *out_frame);
/* Whether any valid frame at or behind `offset` says that LSN `lsn` was durable when it was written. */
IQ_FN iqdb_result iq_scan_attests(iq_scan *scan, uint64_t offset, uint64_t lsn, bool *out_attests);

/* ======== [persist/scan.c] ======== */
/* Reading a log.
 *
 * 1. A frame counts where its CRC, over the salt of this log, holds and its LSN and the CRC it remembers continue the
 *    frame before. The salt keeps out frames of other logs, the chain those of other times.
 * 2. The first frame that does not count ends what can be read. Whether it was lost in a crash or rotted later is for
 *    recover.c to decide, by what frames further on attest: those are found without the chain, at every 8 bytes.
 * 3. A frame that counts and yet makes no sense was not written by us: CORRUPT, never the end of the log.
 * 4. Memory: one window, and one record that is known to lie in the file, whatever the file says. Time: a search for
 *    attesting frames computes at most IQ_SCAN_PATIENCE checksums for each byte; more likely headers than that are
 *    made by hand. */

#define IQ_SCAN_WINDOW (128u * 1024u)
#define IQ_SCAN_PATIENCE 8u
#define IQ_SCAN_NO_ANCHOR UINT64_MAX
IQ_STATIC_ASSERT(IQ_SCAN_WINDOW >= IQ_FRAME_HEADER_SIZE + IQ_FRAME_LENGTH_MAX, scan_window);

/* ---- Header and frame, as bytes ---- */

IQ_FN void iq_log_encode_header(iq_log_header *header, const uint8_t *uuid, uint8_t *sector) {
    memset(sector, 0, header->sector_size);
    iq_put_u64(sector + IQ_LOG_NUMBER_AT, header->number);
    iq_put_u64(sector + IQ_LOG_SALT_AT, header->salt);
    iq_put_u64(sector + IQ_LOG_FIRST_AT, header->first_lsn);
    iq_put_u64(sector + IQ_LOG_BEFORE_AT, header->before);
    iq_put_u64(sector + IQ_LOG_BEFORE_SALT_AT, header->before_salt);
    iq_put_u32(sector + IQ_LOG_SECTOR_AT, header->sector_size);
    header->crc = iq_page_seal(sector, header->sector_size, IQ_LOG_MAGIC, uuid);
}

/* `size` bytes are there. VERSION: a whole header of a newer version. */
static iqdb_result iq_log_decode_header(const uint8_t *sector, size_t size, iq_log_header *out, uint8_t *out_uuid) {
    if (size < IQ_LOG_SECTOR_MIN) return IQDB_ERR_CORRUPT;
    const uint32_t sector_size = iq_get_u32(sector + IQ_LOG_SECTOR_AT);
    if (sector_size < IQ_LOG_SECTOR_MIN || sector_size > size || (sector_size & (sector_size - 1)) != 0 ||
        !iq_page_is_sound(sector, sector_size, IQ_LOG_MAGIC))
        return IQDB_ERR_CORRUPT;
    out->crc = iq_get_u32(sector + IQ_PAGE_CRC_AT);
    if (iq_get_u32(sector + IQ_PAGE_VERSION_AT) != IQDB_FORMAT_VERSION || iq_get_u32(sector + IQ_LOG_REQUIRED_AT) != 0)
        return IQDB_ERR_VERSION;
    memcpy(out_uuid, sector + IQ_PAGE_UUID_AT, IQ_UUID_SIZE);
    out->number = iq_get_u64(sector + IQ_LOG_NUMBER_AT);
    out->salt = iq_get_u64(sector + IQ_LOG_SALT_AT);
    out->first_lsn = iq_get_u64(sector + IQ_LOG_FIRST_AT);
    out->before = iq_get_u64(sector + IQ_LOG_BEFORE_AT);
    out->before_salt = iq_get_u64(sector + IQ_LOG_BEFORE_SALT_AT);
    out->sector_size = sector_size;
    return out->first_lsn == 0 || out->first_lsn > IQ_NUMBER_MAX ? IQDB_ERR_CORRUPT : IQDB_OK;
}

IQ_FN uint32_t iq_log_seed(uint64_t salt) {
    uint8_t bytes[8];
    iq_put_u64(bytes, salt);
    return iq_crc32(0, bytes, sizeof bytes);
}

IQ_FN uint32_t iq_frame_crc(iq_crc32_fn crc32, uint32_t seed, const uint8_t *frame, uint32_t length) {
    const uint32_t crc = iq_crc32(seed, frame, IQ_FRAME_CRC_AT);
    return crc32(crc, frame + IQ_FRAME_LSN_AT, IQ_FRAME_HEADER_SIZE - IQ_FRAME_LSN_AT + (size_t)length);
}

/* The header; false where no frame can have this length. */
static bool iq_frame_decode(const uint8_t *bytes, iq_frame *out) {
    out->length = iq_get_u32(bytes + IQ_FRAME_LENGTH_AT);
    if (out->length < IQ_BODY_HEAD_SIZE || out->length > IQ_FRAME_LENGTH_MAX || out->length % 8 != 0) return false;
    out->crc = iq_get_u32(bytes + IQ_FRAME_CRC_AT);
    out->lsn = iq_get_u64(bytes + IQ_FRAME_LSN_AT);
    out->durable_lsn = iq_get_u64(bytes + IQ_FRAME_DURABLE_AT);
    out->batch_lsn = iq_get_u64(bytes + IQ_FRAME_BATCH_AT);
    out->before_crc = iq_get_u32(bytes + IQ_FRAME_BEFORE_AT);
    out->type = bytes[IQ_FRAME_TYPE_AT];
    out->flags = bytes[IQ_FRAME_FLAGS_AT];
    return true;
}

/* What holds for every frame by itself. */
static bool iq_frame_makes_sense(const iq_frame *frame, const uint8_t *bytes) {
    if (frame->type < IQ_FRAME_RECORD || frame->type > IQ_FRAME_SWITCH || frame->flags > IQ_FRAME_WHOLE) return false;
    if (iq_get_u16(bytes + IQ_FRAME_ZERO_AT) != 0) return false;
    if ((frame->flags & IQ_FRAME_COMMIT) != 0 && (frame->flags & IQ_FRAME_LAST) == 0) return false;
    if (frame->type != IQ_FRAME_RECORD && frame->flags != IQ_FRAME_WHOLE) return false;
    return frame->lsn <= IQ_NUMBER_MAX && frame->batch_lsn <= frame->lsn && frame->durable_lsn < frame->batch_lsn;
}

/* ---- Opening ---- */

IQ_FN void iq_scan_close(iq_scan *scan) {
    if (scan->window == NULL && scan->file.handle == NULL) return;
    const iqdb_allocator *allocator = &scan->file.volume->allocator;
    iq_file_close(&scan->file);
    iq_free(allocator, scan->window, scan->window_capacity, 16);
    scan->window = NULL;
    iq_blob_free(&scan->record);
}

IQ_FN iqdb_result iq_scan_corrupt(const iq_scan *scan, uint64_t offset, uint64_t lsn, const char *text) {
    return iq_file_report(&scan->file, IQDB_ERR_CORRUPT, offset, lsn, text);
}

/* Leaves the scan open, unless it fails, whatever the header is. */
static iqdb_result iq_scan_start_reading(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid, uint64_t number) {
    char name[IQ_FILE_NAME_SIZE];
    size_t size = 0;
    memset(scan, 0, sizeof *scan);
    iq_volume_name(name, IQ_LOG_PREFIX, number);
    scan->state = IQ_LOG_IS_MISSING;
    scan->anchor = IQ_SCAN_NO_ANCHOR;
    iqdb_result result = iq_file_open(&scan->file, volume, name, IQDB_OPEN_READ);
    if (result == IQDB_ERR_NOT_FOUND) return IQDB_OK;
    if (result == IQDB_OK) result = iq_file_size(&scan->file, &scan->size_bytes);
    if (result == IQDB_OK) {
        scan->record.allocator = &volume->allocator;
        scan->window_capacity = scan->size_bytes < IQ_SCAN_WINDOW ? (size_t)scan->size_bytes : IQ_SCAN_WINDOW;
        if (scan->window_capacity < IQ_LOG_SECTOR_MAX) scan->window_capacity = IQ_LOG_SECTOR_MAX;
        scan->window = (uint8_t *)iq_alloc(&volume->allocator, scan->window_capacity, 16);
        if (scan->window == NULL) result = iq_file_report(&scan->file, IQDB_ERR_NOMEM, 0, 0, "no memory to read a log");
    }
    if (result == IQDB_OK) result = iq_file_read(&scan->file, 0, scan->window, IQ_LOG_SECTOR_MAX, &size);
    if (result == IQDB_OK) {
        const iqdb_result code = iq_log_decode_header(scan->window, size, &scan->header, scan->uuid);
        scan->state = code == IQDB_OK ? IQ_LOG_IS_GOOD : IQ_LOG_IS_TORN;
        if (code == IQDB_ERR_VERSION)
            result = iq_file_report(&scan->file, code, 0, 0, "the log was written by a newer version");
    }
    if (scan->state == IQ_LOG_IS_GOOD &&
        (scan->header.number != number || (uuid != NULL && memcmp(scan->uuid, uuid, IQ_UUID_SIZE) != 0)))
        scan->state = IQ_LOG_IS_FOREIGN;
    scan->seed = iq_log_seed(scan->header.salt);
    if (result != IQDB_OK) iq_scan_close(scan);
    return result;
}

IQ_FN iqdb_result iq_scan_open(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid, uint64_t number) {
    const iqdb_result result = iq_scan_start_reading(scan, volume, uuid, number);
    if (scan->state != IQ_LOG_IS_GOOD) iq_scan_close(scan);
    return result;
}

/* NULL where the state is GOOD and the log is the one that the entry describes. */
static const char *iq_scan_complaint(const iq_scan *scan, const iq_log_entry *entry) {
    if (scan->state == IQ_LOG_IS_MISSING) return "the log must be there, but it is missing";
    if (scan->state == IQ_LOG_IS_TORN) return "the header of the log is damaged";
    if (scan->state == IQ_LOG_IS_FOREIGN) return "the log belongs to another database, or has another number";
    if (scan->header.salt != entry->salt || scan->header.first_lsn != entry->first_lsn)
        return "this is not the log of that number which belongs here";
    return NULL;
}

IQ_FN iqdb_result iq_scan_require(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid,
                                  const iq_log_entry *entry) {
    const iqdb_result result = iq_scan_open(scan, volume, uuid, entry->number);
    const char *text = result == IQDB_OK ? iq_scan_complaint(scan, entry) : NULL;
    if (text == NULL) return result;
    iq_scan_close(scan);
    return iq_scan_corrupt(scan, 0, entry->first_lsn, text);
}

IQ_FN iqdb_result iq_scan_salvage(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid,
                                  const iq_log_entry *entry) {
    const iqdb_result result = iq_scan_start_reading(scan, volume, uuid, entry->number);
    scan->patience = scan->size_bytes * IQ_SCAN_PATIENCE + 1;
    if (result != IQDB_OK) {
        scan->state = IQ_LOG_IS_MISSING;
        return result == IQDB_ERR_NOMEM ? result : IQDB_OK;
    }
    const char *text = iq_scan_complaint(scan, entry);
    if (text != NULL) (void)iq_scan_corrupt(scan, 0, entry->first_lsn, text);
    if (scan->state == IQ_LOG_IS_TORN) {
        /* Where the frames begin is for a search to find out. */
        const iq_log_header header = {entry->number, entry->salt, entry->first_lsn, 0, 0, IQ_LOG_SECTOR_MIN, 0};
        scan->header = header;
        scan->seed = iq_log_seed(entry->salt);
        scan->state = IQ_LOG_IS_GOOD;
    }
    if (scan->state != IQ_LOG_IS_GOOD) iq_scan_close(scan);
    return IQDB_OK;
}

IQ_FN iq_log_position iq_scan_start(const iq_scan *scan) {
    const iq_log_position start = {scan->header.first_lsn - 1, scan->header.sector_size, scan->header.crc};
    return start;
}

/* ---- Frames ---- */

/* The bytes of the file at `offset`, or NULL where it does not have so many. size <= the window. */
static iqdb_result iq_scan_get(iq_scan *scan, uint64_t offset, size_t size, const uint8_t **out_bytes) {
    *out_bytes = NULL;
    if (offset > scan->size_bytes || size > scan->size_bytes - offset) return IQDB_OK;
    if (offset < scan->window_at || offset + size > scan->window_at + scan->window_size) {
        const bool keep = scan->anchor <= offset && offset + size - scan->anchor <= scan->window_capacity;
        const uint64_t at = keep ? scan->anchor : offset;
        const uint64_t left = scan->size_bytes - at;
        const size_t want = left < scan->window_capacity ? (size_t)left : scan->window_capacity;
        scan->window_at = at;
        scan->window_turns++;
        const iqdb_result result = iq_file_read(&scan->file, at, scan->window, want, &scan->window_size);
        if (result != IQDB_OK) {
            scan->window_size = 0;
            return result;
        }
        if (offset + size > at + scan->window_size) return IQDB_OK; /* it has shrunk */
    }
    *out_bytes = scan->window + (size_t)(offset - scan->window_at);
    return IQDB_OK;
}

/* The frame at `offset`, unchecked; its body is NULL where its length makes no sense, or where the file ends. */
static iqdb_result iq_scan_load(iq_scan *scan, uint64_t offset, iq_frame *out) {
    const uint8_t *bytes;
    memset(out, 0, sizeof *out);
    iqdb_result result = iq_scan_get(scan, offset, IQ_FRAME_HEADER_SIZE, &bytes);
    if (result != IQDB_OK || bytes == NULL || !iq_frame_decode(bytes, out)) return result;
    result = iq_scan_get(scan, offset, IQ_FRAME_HEADER_SIZE + (size_t)out->length, &bytes);
    out->offset = offset;
    out->body = bytes == NULL ? NULL : bytes + IQ_FRAME_HEADER_SIZE;
    return result;
}

/* Whether a loaded frame has its checksum. */
static bool iq_scan_sums(const iq_scan *scan, const iq_frame *frame) {
    const uint8_t *bytes = frame->body - IQ_FRAME_HEADER_SIZE;
    return iq_frame_crc(scan->file.volume->crc32, scan->seed, bytes, frame->length) == frame->crc;
}

IQ_FN iqdb_result iq_scan_frame(iq_scan *scan, const iq_log_position *from, iq_frame *out_frame) {
    const iqdb_result result = iq_scan_load(scan, from->offset, out_frame);
    if (result != IQDB_OK || out_frame->body == NULL) return result;
    if (out_frame->lsn != from->lsn + 1 || out_frame->before_crc != from->crc || !iq_scan_sums(scan, out_frame)) {
        out_frame->body = NULL;
        return IQDB_OK;
    }
    if (iq_frame_makes_sense(out_frame, out_frame->body - IQ_FRAME_HEADER_SIZE)) return IQDB_OK;
    return iq_scan_corrupt(scan, from->offset, out_frame->lsn, "a frame makes no sense, though its checksum holds");
}

IQ_FN iqdb_result iq_scan_frame_again(iq_scan *scan, const iq_log_position *from, iq_frame *out_frame) {
    const iqdb_result result = iq_scan_frame(scan, from, out_frame);
    if (result != IQDB_OK || out_frame->body != NULL) return result;
    return iq_scan_corrupt(scan, from->offset, from->lsn + 1, "a frame reads differently the second time");
}

IQ_FN iq_log_position iq_scan_behind(const iq_frame *frame) {
    const iq_log_position position = {frame->lsn, frame->offset + IQ_FRAME_HEADER_SIZE + frame->length, frame->crc};
    return position;
}

IQ_FN iqdb_result iq_scan_is_blank(iq_scan *scan, uint64_t offset, bool *out_blank) {
    const uint8_t *bytes;
    const iqdb_result result = iq_scan_get(scan, offset, IQ_FRAME_SIZE_MIN, &bytes);
    *out_blank = bytes != NULL;
    for (size_t i = 0; i < IQ_FRAME_SIZE_MIN && *out_blank; i++) *out_blank = bytes[i] == 0;
    return result;
}

/* ---- Batches ---- */

/* Takes the next frame into the span, or tells that it cannot follow there. */
static bool iq_span_take(iq_span *span, const iq_frame *frame, bool is_in_record, size_t *record_size) {
    const bool is_first = span->end.lsn == span->start.lsn;
    const bool starts = (frame->flags & IQ_FRAME_FIRST) != 0;
    if (frame->batch_lsn != span->start.lsn + 1 || starts == is_in_record) return false;
    if (!is_first && (frame->type != span->type || frame->durable_lsn != span->durable_lsn)) return false;
    span->type = frame->type;
    span->durable_lsn = frame->durable_lsn;
    if (frame->type == IQ_FRAME_SWITCH) {
        if (frame->length < IQ_BODY_SWITCH_SIZE || frame->body[0] != IQ_BODY_SWITCH) return false;
        span->next.number = iq_get_u64(frame->body + IQ_BODY_SWITCH_NUMBER_AT);
        span->next.salt = iq_get_u64(frame->body + IQ_BODY_SWITCH_SALT_AT);
        span->next.size_bytes = iq_get_u64(frame->body + IQ_BODY_SWITCH_BYTES_AT);
        span->next.first_lsn = frame->lsn + 1;
    }
    if (frame->type == IQ_FRAME_ATTEST && frame->body[0] != IQ_BODY_ATTEST) return false;
    *record_size = starts ? frame->length : *record_size + frame->length;
    if (!starts && *record_size > span->record_max) span->record_max = *record_size;
    span->end = iq_scan_behind(frame);
    return true;
}

IQ_FN iqdb_result iq_scan_batch(iq_scan *scan, const iq_log_position *from, iq_span *out_span) {
    size_t record_size = 0;
    bool is_in_record = false;
    memset(out_span, 0, sizeof *out_span);
    out_span->start = out_span->end = *from;
    scan->anchor = from->offset;
    while (!out_span->is_whole) {
        iq_frame frame;
        const iqdb_result result = iq_scan_frame(scan, &out_span->end, &frame);
        if (result != IQDB_OK || frame.body == NULL) return result;
        if (out_span->end.lsn == from->lsn) out_span->turns = scan->window_turns;
        if (!iq_span_take(out_span, &frame, is_in_record, &record_size))
            return iq_scan_corrupt(scan, frame.offset, frame.lsn,
                                   "a frame does not belong where it stands, though its checksum holds");
        is_in_record = (frame.flags & IQ_FRAME_LAST) == 0;
        out_span->is_whole = (frame.flags & IQ_FRAME_COMMIT) != 0;
    }
    return IQDB_OK;
}

/* A frame of a batch that iq_scan_batch has found whole; checked again only where the window has turned since. */
static iqdb_result iq_scan_recall(iq_scan *scan, const iq_log_position *from, uint64_t turns, iq_frame *out_frame) {
    if (scan->window_turns == turns) {
        const iqdb_result result = iq_scan_load(scan, from->offset, out_frame);
        if (result != IQDB_OK || (out_frame->body != NULL && scan->window_turns == turns)) return result;
    }
    return iq_scan_frame_again(scan, from, out_frame);
}

IQ_FN iqdb_result iq_scan_records(iq_scan *scan, const iq_span *span, iq_record_fn record_fn, void *user) {
    iq_log_position position = span->start;
    uint64_t record_at = 0;
    if (span->record_max > scan->record.capacity) {
        iq_blob_free(&scan->record); /* first, so that there is never more than one */
        if (iq_blob_reserve(&scan->record, span->record_max) != IQDB_OK)
            return iq_file_report(&scan->file, IQDB_ERR_NOMEM, span->start.offset, span->end.lsn,
                                  "no memory for a record");
    }
    while (position.lsn < span->end.lsn) {
        iq_frame frame;
        iqdb_result result = iq_scan_recall(scan, &position, span->turns, &frame);
        if (result != IQDB_OK) return result;
        const uint8_t *bytes = frame.body;
        size_t size = frame.length;
        position = iq_scan_behind(&frame);
        if ((frame.flags & IQ_FRAME_FIRST) != 0) {
            scan->record.size = 0;
            record_at = frame.offset;
        }
        if ((frame.flags & (IQ_FRAME_FIRST | IQ_FRAME_LAST)) != (IQ_FRAME_FIRST | IQ_FRAME_LAST)) {
            result = iq_blob_append(&scan->record, bytes, size);
            if (result != IQDB_OK) return result;
            bytes = scan->record.bytes;
            size = scan->record.size;
        }
        if ((frame.flags & IQ_FRAME_LAST) == 0) continue;
        result = record_fn(bytes, size, span->end.lsn, user);
        if (result == IQDB_ERR_CORRUPT)
            return iq_file_report(&scan->file, result, record_at, span->end.lsn,
                                  "a record makes no sense, though its checksums hold");
        if (result != IQDB_OK) return result;
    }
    return IQDB_OK;
}

/* The next multiple of 8 from `at` on where the window has something else than zeros, or its end: most of a log is
 * space for later, and no frame begins with zeros. */
static uint64_t iq_scan_skip_zeros(const iq_scan *scan, uint64_t at) {
    static const uint8_t zeros[64] = {0};
    const uint64_t end = scan->window_at + scan->window_size;
    while (at + sizeof zeros <= end && memcmp(scan->window + (size_t)(at - scan->window_at), zeros, sizeof zeros) == 0)
        at += sizeof zeros;
    while (at + 8 <= end && memcmp(scan->window + (size_t)(at - scan->window_at), zeros, 8) == 0) at += 8;
    return at;
}

IQ_FN iqdb_result iq_scan_find(iq_scan *scan, uint64_t offset, uint64_t lsn, uint64_t durable_lsn,
                               iq_frame *out_frame) {
    iq_frame *frame = out_frame;
    memset(frame, 0, sizeof *frame);
    scan->anchor = IQ_SCAN_NO_ANCHOR;
    for (uint64_t at = (offset + 7) & ~(uint64_t)7; scan->patience > 0; at += 8) {
        const uint8_t *bytes;
        iqdb_result result = iq_scan_get(scan, at, IQ_FRAME_HEADER_SIZE, &bytes);
        if (result != IQDB_OK || bytes == NULL) return result;
        if (iq_get_u32(bytes) == 0) {
            const uint64_t next = iq_scan_skip_zeros(scan, at);
            if (next > at) at = next - 8;
            continue;
        }
        if (!iq_frame_decode(bytes, frame) || frame->durable_lsn < durable_lsn || frame->lsn < lsn ||
            frame->lsn - scan->header.first_lsn > scan->size_bytes / IQ_FRAME_SIZE_MIN ||
            !iq_frame_makes_sense(frame, bytes))
            continue;
        result = iq_scan_load(scan, at, frame);
        if (result != IQDB_OK) return result;
        if (frame->body == NULL) continue;
        scan->patience -= scan->patience < frame->length ? scan->patience : frame->length;
        if (iq_scan_sums(scan, frame)) return IQDB_OK;
        frame->body = NULL;
    }
    return IQDB_OK;
}

IQ_FN iqdb_result iq_scan_attests(iq_scan *scan, uint64_t offset, uint64_t lsn, bool *out_attests) {
    iq_frame frame;
    scan->patience = scan->size_bytes * IQ_SCAN_PATIENCE + 1;
    const iqdb_result result = iq_scan_find(scan, offset, 0, lsn, &frame);
    *out_attests = frame.body != NULL || scan->patience == 0;
    return result;
}

/* ======== [persist/wal.h] ======== */
/* Writing a log: batches, control frames, preallocation, syncs. */

typedef struct iq_slice {
    const void *bytes;
    size_t size;
} iq_slice;

/* The log that is written. Zeroed, it is closed. */
typedef struct iq_wal {
    iq_file file;
    iq_log_header header;
    uint32_t seed;
    uint64_t allocated;      /* the file has zeros or frames up to here */
    uint64_t durable_size;   /* what was allocated at the last sync */
    uint64_t chunk_size;     /* of the next preallocation */
    iq_log_position written; /* behind the last frame */
    iq_log_position synced;  /* behind the last frame that is durable; at the end of a sector */
    uint64_t data_lsn;       /* last one of a batch of records, whichever log it is in */
    uint64_t attested_lsn;   /* highest durable_lsn written */
    uint64_t batch_lsn;      /* of the batch that the next frame continues, 0: it starts one */
    iq_blob batch;           /* frames in the making */
    size_t last_at;          /* offset of the last one in the batch */
    uint8_t *zeros;
    bool poisoned; /* a sync, or a write behind preallocation, has failed: nothing may be written any more */
} iq_wal;

/* What no commit may have to ask for any more. NOMEM. */
IQ_FN iqdb_result iq_wal_init(iq_wal *wal, const iqdb_allocator *allocator);
IQ_FN void iq_wal_free(iq_wal *wal); /* closes it, too */

/* Creates a log under the first free number from header->number on (which it sets), durable, its name too. header:
 * number, salt, first_lsn, before, before_salt, sector_size. Nothing is left after a failure. */
IQ_FN iqdb_result iq_wal_create(iq_wal *wal, const iq_volume *volume, const uint8_t *uuid, iq_log_header *header);
/* Goes on in an existing log behind its end, where everything is durable. */
IQ_FN iqdb_result iq_wal_resume(iq_wal *wal, const iq_volume *volume, const iq_log_header *header,
                                const iq_log_entry *entry);

/* What META has to say of the log. */
IQ_FN iq_log_entry iq_wal_entry(const iq_wal *wal);

IQ_FN void iq_wal_begin(iq_wal *wal);
/* NOMEM or LIMIT: the batch is as it was. */
IQ_FN iqdb_result iq_wal_add(iq_wal *wal, const iq_slice *pieces, size_t count);
/* Writes the batch; with `sync` it is durable at return. NOSPACE: the batch is as it was. IO: poisoned. */
IQ_FN iqdb_result iq_wal_commit(iq_wal *wal, bool sync);
/* Makes all batches durable. Never needs space. */
IQ_FN iqdb_result iq_wal_flush(iq_wal *wal);
/* Writes, unsynced, a frame that says what is durable, where none says so yet and there is space. */
IQ_FN iqdb_result iq_wal_attest(iq_wal *wal);
/* Ends this log, which is then *out_ended, and goes on in a new one. NOSPACE: nothing happened. */
IQ_FN iqdb_result iq_wal_switch(iq_wal *wal, const uint8_t *uuid, uint64_t salt, iq_log_entry *out_ended);

/* Recovery: appends a frame of another log, renumbered behind the last one. A switch becomes an attest frame. */
IQ_FN iqdb_result iq_wal_copy(iq_wal *wal, const iq_frame *frame);
/* Recovery: writes what is left of copied frames, ends the sector, syncs. */
IQ_FN iqdb_result iq_wal_copy_end(iq_wal *wal);

/* ======== [persist/wal.c] ======== */
/* Writing a log.
 *
 * 1. Frames go to a remembered offset: behind the last one that was written whole. What a failed write has left there
 *    is overwritten, or the handle is poisoned.
 * 2. A sync ends at the end of a sector, and the next frame starts there: no sector with acknowledged bytes is ever
 *    written again, so a torn one cannot hurt them. The last frame before a sync is stretched to get there. A batch
 *    that is not synced never leaves less of a sector than an attest frame needs, so stretching needs no new space.
 * 3. Space is asked for by writing zeros before a frame is written; a full disk is met there, with nothing changed. A
 *    write or sync that fails later may have left anything, so the handle is poisoned: no retry.
 * 4. Nothing is allocated between the first byte written and the end of a commit.
 * 5. durable_lsn of a frame is the LSN at the last sync, so the frame that follows a sync attests everything before it:
 *    the next commit, or an attest frame where none comes, at most one for each sync. */

#define IQ_WAL_ZEROS (64u * 1024u)
#define IQ_WAL_CHUNK_FIRST (64u * 1024u)
#define IQ_WAL_CHUNK_MAX (16u * 1024u * 1024u)
#define IQ_WAL_COPY_CHUNK (64u * 1024u)
/* Kept free behind the frames of a batch: its stretch, or a control frame. */
#define IQ_WAL_SLACK (IQ_LOG_SECTOR_MAX + IQ_FRAME_SIZE_MIN + IQ_BODY_SWITCH_SIZE)

IQ_FN iqdb_result iq_wal_init(iq_wal *wal, const iqdb_allocator *allocator) {
    memset(wal, 0, sizeof *wal);
    wal->batch.allocator = allocator;
    wal->zeros = (uint8_t *)iq_alloc_zeroed(allocator, IQ_WAL_ZEROS, 16);
    return wal->zeros == NULL ? IQDB_ERR_NOMEM : iq_blob_reserve(&wal->batch, 2 * IQ_WAL_SLACK);
}

IQ_FN void iq_wal_free(iq_wal *wal) {
    iq_file_close(&wal->file);
    if (wal->batch.allocator != NULL) iq_free(wal->batch.allocator, wal->zeros, IQ_WAL_ZEROS, 16);
    wal->zeros = NULL;
    iq_blob_free(&wal->batch);
}

/* The handle cannot be written to any more. */
static iqdb_result iq_wal_poison(iq_wal *wal) {
    wal->poisoned = true;
    return IQDB_ERR_IO;
}

/* ---- Files ---- */

static void iq_wal_start(iq_wal *wal, const iq_log_header *header, const iq_log_position *end, uint64_t size) {
    wal->header = *header;
    wal->seed = iq_log_seed(header->salt);
    wal->allocated = wal->durable_size = size;
    wal->chunk_size = IQ_WAL_CHUNK_FIRST;
    wal->written = wal->synced = *end;
    wal->batch_lsn = 0;
}

IQ_FN iq_log_entry iq_wal_entry(const iq_wal *wal) {
    iq_log_entry entry;
    entry.number = wal->header.number;
    entry.salt = wal->header.salt;
    entry.first_lsn = wal->header.first_lsn;
    entry.size_bytes = wal->durable_size;
    entry.has_end = true;
    entry.end = wal->synced;
    return entry;
}

/* Zeros up to `end` at least. NOSPACE, which the caller reports: only zeros were written. */
static iqdb_result iq_wal_allocate(iq_wal *wal, uint64_t end) {
    const uint64_t sector = wal->header.sector_size;
    const uint64_t needed = (end + sector - 1) & ~(sector - 1);
    uint64_t target = wal->allocated + wal->chunk_size;
    if (end <= wal->allocated) return IQDB_OK;
    if (target < needed) target = needed;
    while (wal->allocated < target) {
        const uint64_t left = target - wal->allocated;
        const size_t part = left < IQ_WAL_ZEROS ? (size_t)left : IQ_WAL_ZEROS;
        int os_code;
        const iqdb_result result = iq_file_try_write(&wal->file, wal->allocated, wal->zeros, part, &os_code);
        if (result == IQDB_OK) {
            wal->allocated += part;
        } else if (result != IQDB_ERR_NOSPACE) {
            (void)iq_report_os(wal->file.volume->reporter, result, wal->file.name, os_code, "the log cannot grow");
            return iq_wal_poison(wal);
        } else if (target == needed) {
            return result;
        } else {
            target = needed; /* a chunk does not fit, but the batch itself may */
        }
    }
    if (wal->chunk_size < IQ_WAL_CHUNK_MAX) wal->chunk_size *= 2;
    return IQDB_OK;
}

static iqdb_result iq_wal_sync(iq_wal *wal) {
    IQ_ASSERT(wal->written.offset % wal->header.sector_size == 0);
    if (iq_file_sync(&wal->file) != IQDB_OK) return iq_wal_poison(wal);
    wal->synced = wal->written;
    wal->durable_size = wal->allocated;
    return IQDB_OK;
}

/* The header is durable before anything is behind it, so that a log without one is known to be empty. The first chunk
 * comes at once: META can then say how long the log is, and seldom has to say so again. */
static iqdb_result iq_wal_fill(iq_wal *wal, const uint8_t *uuid, iq_log_header *header) {
    iq_log_position start;
    iq_log_encode_header(header, uuid, wal->batch.bytes);
    start.lsn = header->first_lsn - 1;
    start.offset = header->sector_size;
    start.crc = header->crc;
    iqdb_result result = iq_file_write(&wal->file, 0, wal->batch.bytes, header->sector_size);
    if (result != IQDB_OK) return result;
    iq_wal_start(wal, header, &start, header->sector_size);
    result = iq_wal_sync(wal);
    if (result == IQDB_OK) result = iq_wal_allocate(wal, start.offset + 1);
    if (result == IQDB_ERR_NOSPACE) result = IQDB_OK; /* the first batch may need less */
    if (result == IQDB_OK) result = iq_wal_sync(wal);
    if (result == IQDB_OK && iq_volume_sync(wal->file.volume) != IQDB_OK) result = iq_wal_poison(wal);
    return result;
}

IQ_FN iqdb_result iq_wal_create(iq_wal *wal, const iq_volume *volume, const uint8_t *uuid, iq_log_header *header) {
    IQ_ASSERT(wal->file.handle == NULL && wal->batch.size == 0 && header->sector_size <= wal->batch.capacity);
    iqdb_result result = iq_volume_create(&wal->file, volume, IQ_LOG_PREFIX, &header->number);
    if (result != IQDB_OK) return result;
    result = iq_wal_fill(wal, uuid, header);
    if (result != IQDB_OK) {
        iq_file_close(&wal->file);
        (void)iq_volume_remove(volume, wal->file.name);
    }
    return result;
}

IQ_FN iqdb_result iq_wal_resume(iq_wal *wal, const iq_volume *volume, const iq_log_header *header,
                                const iq_log_entry *entry) {
    const iq_log_position *end = &entry->end;
    char name[IQ_FILE_NAME_SIZE];
    uint64_t size;
    iq_volume_name(name, IQ_LOG_PREFIX, header->number);
    iqdb_result result = iq_file_open(&wal->file, volume, name, IQDB_OPEN_WRITE);
    if (result == IQDB_ERR_NOT_FOUND)
        return iq_file_report(&wal->file, IQDB_ERR_CORRUPT, 0, end->lsn, "the log has gone away");
    if (result == IQDB_OK) result = iq_file_size(&wal->file, &size);
    if (result != IQDB_OK) return result;
    if (end->offset % header->sector_size != 0 || size < end->offset)
        return iq_file_report(&wal->file, IQDB_ERR_CORRUPT, end->offset, end->lsn, "the log cannot end here");
    iq_wal_start(wal, header, end, size - size % header->sector_size);
    wal->durable_size = entry->size_bytes;
    wal->attested_lsn = end->lsn;
    return IQDB_OK;
}

/* The same where a full disk ends the call. */
static iqdb_result iq_wal_make_room(iq_wal *wal, uint64_t end) {
    const iqdb_result result = iq_wal_allocate(wal, end);
    if (result != IQDB_ERR_NOSPACE) return result;
    return iq_file_report(&wal->file, result, wal->allocated, wal->written.lsn,
                          "the disk is full: the log cannot grow");
}

/* ---- Frames ---- */

/* Bytes that a frame ending at `end` is stretched by, when it is followed by a sync or not: see invariant 2. */
static size_t iq_wal_stretch(const iq_wal *wal, uint64_t end, bool before_sync) {
    const size_t sector = wal->header.sector_size;
    const size_t over = (size_t)(end % sector);
    const size_t left = over == 0 ? 0 : sector - over;
    return before_sync || left < IQ_FRAME_SIZE_MIN ? left : 0;
}

/* Appends a frame with an empty body of `length` bytes of zeros; there is room. seal does the rest of the header. */
static uint8_t *iq_wal_append(iq_wal *wal, size_t length, uint8_t type, uint8_t flags) {
    IQ_ASSERT(length % 8 == 0 && IQ_FRAME_HEADER_SIZE + length <= wal->batch.capacity - wal->batch.size);
    uint8_t *frame = wal->batch.bytes + wal->batch.size;
    memset(frame, 0, IQ_FRAME_HEADER_SIZE + length);
    iq_put_u32(frame + IQ_FRAME_LENGTH_AT, (uint32_t)length);
    frame[IQ_FRAME_TYPE_AT] = type;
    frame[IQ_FRAME_FLAGS_AT] = flags;
    wal->last_at = wal->batch.size;
    wal->batch.size += IQ_FRAME_HEADER_SIZE + length;
    return frame + IQ_FRAME_HEADER_SIZE;
}

/* Stretches the last frame of the batch by `more` bytes. */
static void iq_wal_lengthen(iq_wal *wal, size_t more) {
    uint8_t *length = wal->batch.bytes + wal->last_at + IQ_FRAME_LENGTH_AT;
    iq_put_u32(length, iq_get_u32(length) + (uint32_t)more);
    memset(wal->batch.bytes + wal->batch.size, 0, more);
    wal->batch.size += more;
}

/* Numbers, chains and checksums all frames of the batch; the position behind the last one. */
static iq_log_position iq_wal_seal(iq_wal *wal) {
    iq_log_position position = wal->written;
    for (size_t at = 0; at < wal->batch.size;) {
        uint8_t *frame = wal->batch.bytes + at;
        const uint32_t length = iq_get_u32(frame + IQ_FRAME_LENGTH_AT);
        position.lsn++;
        if (wal->batch_lsn == 0) wal->batch_lsn = position.lsn;
        iq_put_u64(frame + IQ_FRAME_LSN_AT, position.lsn);
        iq_put_u64(frame + IQ_FRAME_DURABLE_AT, wal->synced.lsn);
        iq_put_u64(frame + IQ_FRAME_BATCH_AT, wal->batch_lsn);
        iq_put_u32(frame + IQ_FRAME_BEFORE_AT, position.crc);
        position.crc = iq_frame_crc(wal->file.volume->crc32, wal->seed, frame, length);
        iq_put_u32(frame + IQ_FRAME_CRC_AT, position.crc);
        if ((frame[IQ_FRAME_FLAGS_AT] & IQ_FRAME_COMMIT) != 0) wal->batch_lsn = 0;
        at += IQ_FRAME_HEADER_SIZE + (size_t)length;
    }
    position.offset += wal->batch.size;
    return position;
}

/* Seals and writes the frames of the batch, for which there is space, with one write. */
static iqdb_result iq_wal_write(iq_wal *wal) {
    int os_code;
    const iq_log_position end = iq_wal_seal(wal);
    IQ_ASSERT(!wal->poisoned && wal->written.offset >= wal->synced.offset && end.offset <= wal->allocated);
    const iqdb_result result =
        iq_file_try_write(&wal->file, wal->written.offset, wal->batch.bytes, wal->batch.size, &os_code);
    wal->batch.size = 0;
    if (result != IQDB_OK) {
        (void)iq_report_os(wal->file.volume->reporter, IQDB_ERR_IO, wal->file.name, os_code,
                           "a write to the log failed; what is in it is unknown");
        return iq_wal_poison(wal);
    }
    wal->written = end;
    wal->attested_lsn = wal->synced.lsn;
    return IQDB_OK;
}

/* A batch of one frame of our own, its body given. */
static iqdb_result iq_wal_control(iq_wal *wal, uint8_t type, const uint8_t *body, size_t size, bool before_sync) {
    const uint64_t end = wal->written.offset + IQ_FRAME_HEADER_SIZE + size;
    const size_t stretch = iq_wal_stretch(wal, end, before_sync);
    IQ_ASSERT(wal->batch.size == 0 && size % 8 == 0);
    const iqdb_result result = iq_wal_make_room(wal, end + stretch);
    if (result != IQDB_OK) return result;
    memcpy(iq_wal_append(wal, size + stretch, type, IQ_FRAME_WHOLE), body, size);
    return iq_wal_write(wal);
}

static iqdb_result iq_wal_control_attest(iq_wal *wal, bool before_sync) {
    const uint8_t body[IQ_BODY_HEAD_SIZE] = {IQ_BODY_ATTEST};
    return iq_wal_control(wal, IQ_FRAME_ATTEST, body, sizeof body, before_sync);
}

/* ---- Batches ---- */

IQ_FN void iq_wal_begin(iq_wal *wal) {
    wal->batch.size = 0;
}

IQ_FN iqdb_result iq_wal_add(iq_wal *wal, const iq_slice *pieces, size_t count) {
    size_t size = 0, piece = 0, used = 0;
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].size > (size_t)-1 / 4 - size) return IQDB_ERR_LIMIT;
        size += pieces[i].size;
    }
    const size_t frames = size / IQ_FRAME_PIECE_MAX + 1;
    const iqdb_result result = iq_blob_reserve(&wal->batch, size + frames * IQ_FRAME_SIZE_MIN + IQ_WAL_SLACK);
    if (result != IQDB_OK) return result;
    if (wal->written.offset > IQ_NUMBER_MAX - wal->batch.capacity) return IQDB_ERR_LIMIT;
    uint8_t flags = IQ_FRAME_FIRST;
    do {
        const size_t most = IQ_FRAME_PIECE_MAX, part = size < most ? size : most;
        if (part == size) flags = (uint8_t)(flags | IQ_FRAME_LAST);
        uint8_t *body = iq_wal_append(wal, part < 8 ? 8 : iq_round_up(part, 8), IQ_FRAME_RECORD, flags);
        for (size_t left = part; left > 0;) {
            const size_t rest = pieces[piece].size - used;
            const size_t run = rest < left ? rest : left;
            if (run > 0) memcpy(body, (const uint8_t *)pieces[piece].bytes + used, run);
            body += run;
            left -= run;
            used = run < rest ? used + run : 0;
            if (run == rest) piece++;
        }
        size -= part;
        flags = 0;
    } while (size > 0);
    return IQDB_OK;
}

IQ_FN iqdb_result iq_wal_commit(iq_wal *wal, bool sync) {
    if (wal->batch.size == 0) return sync ? iq_wal_flush(wal) : IQDB_OK;
    const uint64_t end = wal->written.offset + wal->batch.size;
    const size_t stretch = iq_wal_stretch(wal, end, sync);
    iqdb_result result = iq_wal_make_room(wal, end + stretch);
    if (result != IQDB_OK) return result;
    uint8_t *flags = wal->batch.bytes + wal->last_at + IQ_FRAME_FLAGS_AT;
    *flags = (uint8_t)(*flags | IQ_FRAME_COMMIT);
    iq_wal_lengthen(wal, stretch);
    result = iq_wal_write(wal);
    if (result == IQDB_OK) wal->data_lsn = wal->written.lsn;
    return result == IQDB_OK && sync ? iq_wal_sync(wal) : result;
}

IQ_FN iqdb_result iq_wal_flush(iq_wal *wal) {
    if (wal->data_lsn <= wal->synced.lsn) return IQDB_OK;
    if (wal->written.offset % wal->header.sector_size != 0) {
        const iqdb_result result = iq_wal_control_attest(wal, true);
        if (result != IQDB_OK) return result;
    }
    return iq_wal_sync(wal);
}

IQ_FN iqdb_result iq_wal_attest(iq_wal *wal) {
    if (wal->attested_lsn >= wal->synced.lsn) return IQDB_OK;
    /* Only a hint is lost where there is no space for it. */
    const iqdb_result result = iq_wal_allocate(wal, wal->written.offset + IQ_FRAME_SIZE_MIN);
    if (result == IQDB_ERR_NOSPACE) return IQDB_OK;
    return result == IQDB_OK ? iq_wal_control_attest(wal, false) : result;
}

IQ_FN iqdb_result iq_wal_switch(iq_wal *wal, const uint8_t *uuid, uint64_t salt, iq_log_entry *out_ended) {
    const iq_volume *volume = wal->file.volume;
    uint8_t body[IQ_BODY_SWITCH_SIZE] = {IQ_BODY_SWITCH};
    iq_wal next = *wal; /* shares batch and zeros; only one of the two is used at a time */
    iq_log_header header = wal->header;
    next.file.handle = NULL;
    header.number = wal->header.number + 1;
    header.salt = salt;
    header.before = wal->header.number;
    header.before_salt = wal->header.salt;
    header.first_lsn = wal->written.lsn + 2; /* behind the switch frame */
    iqdb_result result = iq_wal_create(&next, volume, uuid, &header);
    wal->poisoned = next.poisoned;
    if (result != IQDB_OK) return result;
    iq_put_u64(body + IQ_BODY_SWITCH_NUMBER_AT, header.number);
    iq_put_u64(body + IQ_BODY_SWITCH_SALT_AT, salt);
    iq_put_u64(body + IQ_BODY_SWITCH_BYTES_AT, next.durable_size);
    result = iq_wal_control(wal, IQ_FRAME_SWITCH, body, sizeof body, true);
    if (result == IQDB_OK) result = iq_wal_sync(wal);
    if (result != IQDB_OK) {
        iq_file_close(&next.file);
        if (!wal->poisoned) iq_volume_remove(volume, next.file.name);
        return result;
    }
    *out_ended = iq_wal_entry(wal);
    iq_file_close(&wal->file);
    next.data_lsn = wal->data_lsn;
    next.attested_lsn = wal->attested_lsn;
    *wal = next;
    return IQDB_OK;
}

/* ---- Recovery ---- */

static iqdb_result iq_wal_copy_flush(iq_wal *wal) {
    if (wal->batch.size == 0) return IQDB_OK;
    const iqdb_result result = iq_wal_make_room(wal, wal->written.offset + wal->batch.size);
    return result == IQDB_OK ? iq_wal_write(wal) : result;
}

IQ_FN iqdb_result iq_wal_copy(iq_wal *wal, const iq_frame *frame) {
    if (iq_blob_reserve(&wal->batch, IQ_FRAME_HEADER_SIZE + (size_t)frame->length + IQ_WAL_SLACK) != IQDB_OK)
        return iq_file_report(&wal->file, IQDB_ERR_NOMEM, 0, frame->lsn, "no memory to copy the log");
    if (frame->type == IQ_FRAME_RECORD) {
        memcpy(iq_wal_append(wal, frame->length, frame->type, frame->flags), frame->body, frame->length);
    } else {
        *iq_wal_append(wal, frame->length, IQ_FRAME_ATTEST, IQ_FRAME_WHOLE) = IQ_BODY_ATTEST;
    }
    return wal->batch.size < IQ_WAL_COPY_CHUNK ? IQDB_OK : iq_wal_copy_flush(wal);
}

IQ_FN iqdb_result iq_wal_copy_end(iq_wal *wal) {
    iqdb_result result = iq_wal_copy_flush(wal);
    if (result == IQDB_OK && wal->written.offset % wal->header.sector_size != 0)
        result = iq_wal_control_attest(wal, true);
    if (result == IQDB_OK && wal->written.lsn > wal->synced.lsn) result = iq_wal_sync(wal);
    return result;
}

/* ======== [persist/recover.h] ======== */
/* What open does with what it finds: load, decide what is torn and what is rotten, and recover. */

/* Called by open with what it finds, in this order. Any other result than OK ends the open with it. */
typedef struct iq_loader {
    iqdb_result (*schema_fn)(const iq_schema *schema, void *user);        /* not for a new directory */
    iqdb_result (*snapshot_fn)(iq_snapshot_reader *snapshot, void *user); /* where there is one */
    /* Each logged record above the snapshot, in order, of whole batches only; commit_lsn is its batch's last LSN.
     * CORRUPT from here is reported by the directory with file and offset of the record. */
    iqdb_result (*record_fn)(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user);
    void *user;
} iq_loader;

typedef struct iq_recovery {
    const iq_volume *volume;
    const iq_loader *loader;
    /* As META has it. Loading adds the logs that switch frames lead to, and to each log the end of what counts. */
    iq_manifest *manifest;
    uint64_t data_lsn;        /* last one of a batch of records */
    uint64_t log_bytes;       /* of all log files */
    uint64_t last_bytes;      /* of the last one */
    iq_log_header last;       /* header of the last log */
    iq_log_position attested; /* all up to here was acknowledged, or may have been: it is never written again */
    uint32_t attested_log;    /* index of the log it lies in */
} iq_recovery;

/* META is `state`: OK where that and the other files are no more than an interrupted create, or nothing at all, which
 * *out_blank says. Else CORRUPT. */
IQ_FN iqdb_result iq_recover_is_unborn(const iq_volume *volume, iq_meta_state state, bool *out_blank);

/* Loads the snapshot, then the logs. */
IQ_FN iqdb_result iq_recover_load(iq_recovery *recovery);
/* Makes a fresh log of what is above `attested` and leaves `wal` behind it; *out_next is what META has to say. A
 * failure has removed the log again. */
IQ_FN iqdb_result iq_recover_rewrite(const iq_recovery *recovery, uint64_t salt, iq_wal *wal, iq_manifest *out_next);
/* Removes files of this database that META, in both slots, does not name. */
IQ_FN void iq_recover_sweep(const iq_volume *volume, const iq_manifest *manifest);

/* ======== [persist/recover.c] ======== */
/* Open: what counts of the logs, and how a crash is mended.
 *
 * 1. Torn or rotten: at the first frame that does not count, with LSN L, everything depends on whether L had been
 *    acknowledged. It had where META says that the log goes on to L or further, where a snapshot holds L, or where any
 *    valid frame further on in this log, or in one whose header says that it continues this one, carries durable_lsn
 *    >= L. Then it is CORRUPT and nothing is changed. Otherwise the crash took it, and what follows, away. But a crash
 *    does not make a file shorter than META knows it was: in such a log only zeros after the last frame prove that
 *    none is missing.
 * 2. Whole batches only. A log that META gives an end counts to there exactly; only the last one may go on behind it,
 *    and only while META is not clean. A switch frame names the log that must be there next.
 * 3. Recovery never appends behind bytes that nobody has vouched for, and never trusts pages that were read back but
 *    may not be on the disk: what counts above the attested LSN is written again to a fresh log, with the LSNs it had,
 *    and only then does META name that log, and the old one with the attested LSN as its end. Done twice, or
 *    interrupted and done again, it finds the same records.
 * 4. Where META could not name another log, everything above the snapshot is copied to the fresh log, which is then
 *    the only one. (A checkpoint would do as well, but the records are the business of a higher layer.)
 * 5. What a frame attests is the LSN right before it, for a sync covers all that was written. A frame that attests
 *    something older is no contradiction: more is copied than had to be. */

/* ---- Before there is a META ---- */

/* Whether log `number` has no frame; *out_whole: but a header. */
static iqdb_result iq_recover_is_blank(const iq_volume *volume, uint64_t number, bool *out_blank, bool *out_whole) {
    iq_scan scan;
    bool attests = false;
    iqdb_result result = iq_scan_open(&scan, volume, NULL, number);
    *out_whole = scan.state == IQ_LOG_IS_GOOD;
    if (result == IQDB_OK && *out_whole) result = iq_scan_attests(&scan, scan.header.sector_size, 0, &attests);
    /* Without its header nothing tells what is behind it, if there is anything. */
    *out_blank = !attests && (*out_whole || scan.size_bytes <= IQ_LOG_SECTOR_MAX);
    iq_scan_close(&scan);
    return result;
}

IQ_FN iqdb_result iq_recover_is_unborn(const iq_volume *volume, iq_meta_state state, bool *out_blank) {
    iq_numbers snapshots, logs;
    bool has_first = false;
    memset(&logs, 0, sizeof logs);
    iqdb_result result = iq_volume_list(volume, IQ_SNAPSHOT_PREFIX, &snapshots);
    if (result == IQDB_OK) result = iq_volume_list(volume, IQ_LOG_PREFIX, &logs);
    bool is_unborn = iq_numbers_count(&snapshots) == 0;
    for (size_t i = 0; i < iq_numbers_count(&logs) && result == IQDB_OK && is_unborn; i++) {
        bool is_whole;
        result = iq_recover_is_blank(volume, iq_numbers_at(&logs, i), &is_unborn, &is_whole);
        if (iq_numbers_at(&logs, i) == 1 && is_whole) has_first = true;
    }
    if (state == IQ_META_IS_DAMAGED && !has_first) is_unborn = false;
    if (result == IQDB_OK && !is_unborn)
        result = iq_report(volume->reporter, IQDB_ERR_CORRUPT, "META", 0,
                           state == IQ_META_IS_MISSING ? "the file is missing, but there are logs or snapshots"
                                                       : "neither of the two slots is valid");
    *out_blank = state == IQ_META_IS_MISSING && iq_numbers_count(&logs) == 0;
    iq_blob_free(&snapshots.blob);
    iq_blob_free(&logs.blob);
    return result;
}

/* ---- Torn or rotten ---- */

/* Whether a log that continues this one attests LSN `lsn`. Logs that META names come later anyway. */
static iqdb_result iq_recover_successors_attest(const iq_recovery *recovery, const iq_scan *scan, uint64_t lsn,
                                                bool *out_attests) {
    const iq_volume silent = iq_volume_silent(recovery->volume);
    iq_numbers logs;
    *out_attests = false;
    iqdb_result result = iq_volume_list(recovery->volume, IQ_LOG_PREFIX, &logs);
    for (size_t i = 0; i < iq_numbers_count(&logs) && result == IQDB_OK && !*out_attests; i++) {
        const uint64_t number = iq_numbers_at(&logs, i);
        iq_scan other;
        if (number <= scan->header.number) continue;
        result = iq_scan_open(&other, &silent, recovery->manifest->uuid, number);
        if (result == IQDB_ERR_VERSION) result = IQDB_OK;
        if (other.state != IQ_LOG_IS_GOOD) continue;
        if (other.header.before == scan->header.number && other.header.before_salt == scan->header.salt)
            result = iq_scan_attests(&other, other.header.sector_size, lsn, out_attests);
        iq_scan_close(&other);
    }
    iq_blob_free(&logs.blob);
    return result;
}

/* The frame behind `end` does not count. OK: it is torn. */
static iqdb_result iq_recover_judge(const iq_recovery *recovery, iq_scan *scan, const iq_log_entry *entry,
                                    bool is_exact, const iq_log_position *end) {
    const uint64_t lsn = end->lsn + 1;
    bool attests = is_exact || (entry->has_end && entry->end.lsn >= lsn) || recovery->manifest->applied_lsn >= lsn;
    bool is_blank = true;
    iqdb_result result = IQDB_OK;
    if (!attests) result = iq_scan_attests(scan, end->offset, lsn, &attests);
    if (result == IQDB_OK && !attests) result = iq_recover_successors_attest(recovery, scan, lsn, &attests);
    if (result == IQDB_OK && !attests && scan->size_bytes < entry->size_bytes)
        result = iq_scan_is_blank(scan, end->offset, &is_blank);
    if (result == IQDB_OK && !is_blank)
        return iq_scan_corrupt(scan, scan->size_bytes, lsn, "the log has been cut short");
    if (result != IQDB_OK || !attests) return result;
    return iq_scan_corrupt(scan, end->offset, lsn, "a frame that had been acknowledged is damaged");
}

/* ---- Loading ---- */

static bool iq_recover_same(const iq_log_position *a, const iq_log_position *b) {
    return a->lsn == b->lsn && a->offset == b->offset && a->crc == b->crc;
}

/* Behind the end of a clean log there may be an attest frame; but no other frame follows it, for META says that it is
 * clean no longer before one is written, and none further on attests more than that end: else META is older than the
 * log, a copy taken while somebody wrote, half a backup. (A poisoned handle that is verified may have written frames
 * behind what it knows to be synced: is_open is false there.) */
static iqdb_result iq_recover_is_behind(iq_scan *scan, const iq_log_position *end, bool is_open) {
    iq_log_position next = *end;
    iq_frame frame;
    bool attests = false, goes_on = is_open;
    iqdb_result result = IQDB_OK;
    while (result == IQDB_OK && goes_on && !attests) {
        result = iq_scan_frame(scan, &next, &frame);
        goes_on = frame.body != NULL;
        attests = goes_on && frame.type != IQ_FRAME_ATTEST;
        next = iq_scan_behind(&frame);
    }
    if (result == IQDB_OK && !attests) result = iq_scan_attests(scan, end->offset, end->lsn + 1, &attests);
    if (result != IQDB_OK || !attests) return result;
    return iq_scan_corrupt(scan, end->offset, end->lsn + 1, "the log goes on where META ends it");
}

/* Reads batches from the start of the log to its end, which goes to *end. *out_next: the span of a switch frame. */
static iqdb_result iq_recover_batches(iq_recovery *recovery, iq_scan *scan, uint32_t i, bool is_exact,
                                      iq_log_position *end, iq_span *out_next) {
    const iq_loader *loader = recovery->loader;
    const iq_log_entry *entry = &recovery->manifest->logs[i];
    const uint64_t limit = is_exact ? entry->end.lsn : UINT64_MAX;
    *end = iq_scan_start(scan);
    for (;;) {
        iq_span span;
        if (entry->has_end && end->lsn == entry->end.lsn) {
            if (!iq_recover_same(end, &entry->end))
                return iq_scan_corrupt(scan, end->offset, end->lsn, "the log does not have the end that META gives it");
            recovery->attested = *end;
            recovery->attested_log = i;
        }
        if (end->lsn == limit || out_next->type != 0) return IQDB_OK;
        iqdb_result result = iq_scan_batch(scan, end, &span);
        if (result != IQDB_OK) return result;
        if (!span.is_whole) return iq_recover_judge(recovery, scan, entry, is_exact, &span.end);
        if (span.end.lsn > limit)
            return iq_scan_corrupt(scan, span.start.offset, limit, "the end that META gives the log is within a batch");
        if (span.durable_lsn == end->lsn && end->lsn >= recovery->attested.lsn) {
            recovery->attested = *end;
            recovery->attested_log = i;
        }
        if (span.type == IQ_FRAME_RECORD) {
            recovery->data_lsn = span.end.lsn;
            if (span.end.lsn > recovery->manifest->applied_lsn)
                result = iq_scan_records(scan, &span, loader->record_fn, loader->user);
        }
        if (result != IQDB_OK) return result;
        if (span.type == IQ_FRAME_SWITCH && !is_exact) *out_next = span;
        *end = span.end;
    }
}

static iqdb_result iq_recover_log(iq_recovery *recovery, uint32_t i) {
    iq_manifest *manifest = recovery->manifest;
    iq_log_entry *entry = &manifest->logs[i];
    const bool is_exact = entry->has_end && (manifest->clean || i + 1 < manifest->log_count);
    iq_scan scan;
    iq_log_position end;
    iq_span next;
    memset(&next, 0, sizeof next);
    iqdb_result result = iq_scan_require(&scan, recovery->volume, manifest->uuid, entry);
    if (result != IQDB_OK) return result;
    if (i == 0) {
        recovery->attested = iq_scan_start(&scan);
        recovery->attested_log = 0;
    }
    result = iq_recover_batches(recovery, &scan, i, is_exact, &end, &next);
    if (result == IQDB_OK && is_exact && i + 1 == manifest->log_count)
        result = iq_recover_is_behind(&scan, &end, recovery->loader != NULL);
    if (result == IQDB_OK && next.type != 0) {
        if (manifest->log_count == IQ_META_LOG_MAX || next.next.number <= entry->number ||
            next.next.number > IQ_NUMBER_MAX)
            result = iq_scan_corrupt(&scan, next.start.offset, next.end.lsn,
                                     "a switch frame makes no sense, though its checksum holds");
        else
            manifest->logs[manifest->log_count++] = next.next;
    }
    recovery->log_bytes += scan.size_bytes;
    recovery->last_bytes = scan.size_bytes;
    recovery->last = scan.header;
    iq_scan_close(&scan);
    entry->end = end;
    entry->has_end = true;
    return result;
}

static iqdb_result iq_recover_snapshot(iq_recovery *recovery, uint32_t i) {
    const iq_manifest *manifest = recovery->manifest;
    const iq_loader *loader = recovery->loader;
    iq_snapshot_reader *reader;
    iqdb_result result = iq_snapshot_open(recovery->volume, manifest->uuid, &manifest->snapshots[i], &reader);
    if (result == IQDB_OK) result = loader->snapshot_fn(reader, loader->user);
    if (result == IQDB_OK) result = iq_snapshot_check(reader);
    iq_snapshot_close(reader);
    return result;
}

IQ_FN iqdb_result iq_recover_load(iq_recovery *recovery) {
    iqdb_result result = IQDB_OK;
    if (recovery->manifest->snapshot_count > 1)
        return iq_report(recovery->volume->reporter, IQDB_ERR_VERSION, "META", 0,
                         "snapshots in several parts need a newer version");
    recovery->data_lsn = recovery->log_bytes = 0;
    for (uint32_t i = 0; i < recovery->manifest->snapshot_count && result == IQDB_OK; i++)
        result = iq_recover_snapshot(recovery, i);
    /* Switch frames make the list longer on the way. */
    for (uint32_t i = 0; i < recovery->manifest->log_count && result == IQDB_OK; i++)
        result = iq_recover_log(recovery, i);
    return result;
}

/* ---- Recovering ---- */

/* Copies the frames of log i behind `from` and above `lsn`. */
static iqdb_result iq_recover_copy(const iq_recovery *recovery, uint32_t i, const iq_log_position *from, uint64_t lsn,
                                   iq_wal *wal) {
    const iq_log_entry *entry = &recovery->manifest->logs[i];
    iq_scan scan;
    iqdb_result result = iq_scan_require(&scan, recovery->volume, recovery->manifest->uuid, entry);
    if (result != IQDB_OK) return result;
    iq_log_position position = from != NULL ? *from : iq_scan_start(&scan);
    while (position.lsn < entry->end.lsn && result == IQDB_OK) {
        iq_frame frame;
        result = iq_scan_frame_again(&scan, &position, &frame);
        if (result != IQDB_OK) break;
        if (frame.lsn == lsn + 1 && frame.batch_lsn != frame.lsn)
            result =
                iq_scan_corrupt(&scan, position.offset, lsn, "the snapshot that META describes ends within a batch");
        if (frame.lsn > lsn && result == IQDB_OK) result = iq_wal_copy(wal, &frame);
        position = iq_scan_behind(&frame);
    }
    iq_scan_close(&scan);
    return result;
}

/* The logs of META that go on to be named, each with the end it has or had at the attested LSN. */
static void iq_recover_keep(const iq_recovery *recovery, iq_manifest *next) {
    const iq_manifest *found = recovery->manifest;
    next->log_count = 0;
    for (uint32_t i = 0; i <= recovery->attested_log; i++) {
        iq_log_entry entry = found->logs[i];
        if (i == recovery->attested_log) entry.end = recovery->attested;
        /* Nothing is in it, or nothing that the snapshot does not hold. */
        if (entry.end.lsn < entry.first_lsn || entry.end.lsn <= found->applied_lsn) continue;
        next->logs[next->log_count++] = entry;
    }
}

IQ_FN iqdb_result iq_recover_rewrite(const iq_recovery *recovery, uint64_t salt, iq_wal *wal, iq_manifest *out_next) {
    const iq_manifest *found = recovery->manifest;
    const iq_log_entry *last = &found->logs[found->log_count - 1];
    uint64_t from_lsn = recovery->attested.lsn;
    uint32_t first = recovery->attested_log;
    const iq_log_position *from = &recovery->attested;
    *out_next = *found;
    out_next->clean = false;
    iq_recover_keep(recovery, out_next);
    if (out_next->log_count == IQ_META_LOG_MAX) {
        out_next->log_count = 0;
        from_lsn = found->applied_lsn;
        first = 0;
        from = NULL;
    }
    iq_log_header header = {last->number + 1, salt, from_lsn + 1, last->number, last->salt, IQ_LOG_SECTOR_DEFAULT, 0};
    iqdb_result result = iq_wal_create(wal, recovery->volume, found->uuid, &header);
    if (result != IQDB_OK) return result;
    wal->data_lsn = recovery->data_lsn;
    for (uint32_t i = first; i < found->log_count && result == IQDB_OK; i++)
        result = iq_recover_copy(recovery, i, i == first ? from : NULL, from_lsn, wal);
    if (result == IQDB_OK) result = iq_wal_copy_end(wal);
    IQ_ASSERT(result != IQDB_OK || wal->written.lsn >= last->end.lsn);
    if (result != IQDB_OK) {
        iq_file_close(&wal->file);
        iq_volume_remove(recovery->volume, wal->file.name);
        return result;
    }
    wal->attested_lsn = wal->synced.lsn; /* META will say so */
    out_next->logs[out_next->log_count++] = iq_wal_entry(wal);
    return IQDB_OK;
}

/* Whether log `number` is of this database; *out_torn: it has no whole header, so nobody can tell. */
static bool iq_recover_is_ours(const iq_volume *volume, const uint8_t *uuid, uint64_t number, bool *out_torn) {
    iq_scan scan;
    const iqdb_result result = iq_scan_open(&scan, volume, uuid, number);
    iq_scan_close(&scan);
    *out_torn = result == IQDB_OK && scan.state == IQ_LOG_IS_TORN;
    return result == IQDB_OK && scan.state == IQ_LOG_IS_GOOD;
}

/* A file that META does not name may go where it is ours, or where nobody can tell and it is newer than all named. */
static void iq_recover_sweep_kind(const iq_volume *volume, const iq_manifest *manifest, bool is_log) {
    const iq_volume silent = iq_volume_silent(volume);
    const char *prefix = is_log ? IQ_LOG_PREFIX : IQ_SNAPSHOT_PREFIX;
    const uint32_t count = is_log ? manifest->log_count : manifest->snapshot_count;
    iq_numbers numbers;
    (void)iq_volume_list(&silent, prefix, &numbers);
    for (size_t i = 0; i < iq_numbers_count(&numbers); i++) {
        const uint64_t number = iq_numbers_at(&numbers, i);
        uint64_t named = 0;
        bool is_torn = false;
        for (uint32_t k = 0; k < count && named != number; k++)
            named = is_log ? manifest->logs[k].number : manifest->snapshots[k].number;
        if (named == number) continue; /* else it is the highest one */
        const bool is_ours = is_log ? iq_recover_is_ours(&silent, manifest->uuid, number, &is_torn)
                                    : iq_snapshot_is_ours(&silent, manifest->uuid, number, &is_torn);
        if (is_ours || (is_torn && number > named)) {
            char name[IQ_FILE_NAME_SIZE];
            iq_volume_name(name, prefix, number);
            iq_volume_remove(volume, name);
        }
    }
    iq_blob_free(&numbers.blob);
}

IQ_FN void iq_recover_sweep(const iq_volume *volume, const iq_manifest *manifest) {
    iq_recover_sweep_kind(volume, manifest, true);
    iq_recover_sweep_kind(volume, manifest, false);
}

/* ======== [persist/repair.h] ======== */
/* Reading a directory that may be damaged: everything that is wrong with it, and everything that is not. */

/* Reports to volume->reporter what is wrong with the files that `manifest` describes, whose logs are taken to end where
 * it says. `blocks`: with every block of the snapshots, else with their tables only. NOMEM, or OK, whatever was found. */
IQ_FN iqdb_result iq_repair_check(const iq_volume *volume, const iq_manifest *manifest, bool blocks);

/* Reports what is wrong with the directory of `volume`, which is open, and hands the rest to `loader`: snapshots as
 * iq_snapshot_salvage opens them, and records above them of whole batches. META may be lost: then schema_fn is not
 * called, and the files say what they belong to. `meta` is memory, and is closed by the caller. *out_lsn: no higher one
 * was found. NOT_FOUND, LOCKED, VERSION, NOMEM,
 * codes of the loader; or OK, whatever was found. */
IQ_FN iqdb_result iq_repair_read(const iq_volume *volume, iq_meta *meta, const iq_loader *loader, uint64_t *out_lsn);

/* ======== [persist/repair.c] ======== */
/* Salvage: what open refuses, read as far as it goes.
 *
 * 1. Nothing is written, and nothing is believed that has no valid checksum of its own. Damage in tables, footers,
 *    headers and META costs no row, for what they say is said twice, or follows from the rest.
 * 2. Logs are read twice: first for what had been acknowledged, that is the highest LSN that any valid frame, or META,
 *    attests; then for the batches. A hole that begins at an acknowledged LSN is a loss: it is reported, and reading
 *    goes on behind it. At a hole that begins above, the log ends, as it does for open: a crash took the rest.
 * 3. Where two logs have the same LSNs, the later one counts from its first LSN on: recovery has copied what counted,
 *    and writes have gone on from there.
 * 4. A batch is handed out as a whole, and only when each of its records can be read.
 * 5. Logs may still hold what a snapshot has taken over. Where that is damaged they are replayed first, below it. */

typedef enum iq_repair_pass {
    IQ_REPAIR_ATTEST, /* find out what had been acknowledged; silent */
    IQ_REPAIR_BELOW,  /* hand out what the snapshot should have; silent */
    IQ_REPAIR_ABOVE   /* hand out what comes after it, and report */
} iq_repair_pass;

typedef struct iq_repair {
    const iq_volume *volume;
    iq_volume silent;
    const iq_loader *loader; /* NULL: only check */
    iq_manifest manifest;
    uint64_t attested; /* everything up to here had been acknowledged */
    uint64_t next_lsn; /* of the batch that comes next */
    bool ended;        /* what follows was never acknowledged, and does not count */
    iq_repair_pass pass;
} iq_repair;

static uint64_t iq_repair_max(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

/* ---- Logs ---- */

/* Writes [next_lsn, last] are gone; `offset` is where they should have been. */
static void iq_repair_lost(iq_repair *repair, const iq_scan *scan, uint64_t offset, uint64_t last) {
    iqdb_error error = iq_error_make(IQDB_ERR_CORRUPT, scan->file.name, offset,
                                     last <= repair->manifest.applied_lsn
                                         ? "frames are damaged whose writes the snapshot holds"
                                         : "frames that had been acknowledged are damaged: their writes are lost");
    error.lsn = repair->next_lsn;
    error.lsn_last = last;
    if (repair->pass == IQ_REPAIR_ABOVE && last >= repair->next_lsn)
        (void)iq_report_error(repair->volume->reporter, &error);
}

static iqdb_result iq_repair_try_record(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user) {
    const iq_repair *repair = (const iq_repair *)user;
    iq_logged_record record;
    (void)commit_lsn;
    const iqdb_result result = iq_record_decode(bytes, size, &record);
    if (result != IQDB_OK) return result;
    const uint32_t dim = repair->manifest.schema.dim;
    const bool fits = record.type != IQ_RECORD_UPSERT || dim == 0 || record.dim == dim;
    return record.collection == 0 && fits ? IQDB_OK : IQDB_ERR_CORRUPT;
}

/* A whole batch, of which nothing was handed out yet. */
static iqdb_result iq_repair_batch(iq_repair *repair, iq_scan *scan, const iq_span *span) {
    const uint64_t applied = repair->manifest.applied_lsn, lsn = span->end.lsn;
    const bool wanted =
        repair->pass == IQ_REPAIR_ABOVE ? lsn > applied : repair->pass == IQ_REPAIR_BELOW && lsn <= applied;
    if (span->type != IQ_FRAME_RECORD || !wanted || repair->loader == NULL) return IQDB_OK;
    iqdb_result result = iq_scan_records(scan, span, iq_repair_try_record, repair);
    if (result == IQDB_OK) result = iq_scan_records(scan, span, repair->loader->record_fn, repair->loader->user);
    return result == IQDB_ERR_CORRUPT || result == IQDB_ERR_IO ? IQDB_OK : result; /* reported */
}

/* The log that a switch frame of log i leads to, where the list ends with i and META does not say that it does. Where the
 * list goes on, recovery may have replaced that log by the next one. */
static void iq_repair_follow(iq_repair *repair, uint32_t i, const iq_log_entry *next) {
    iq_manifest *manifest = &repair->manifest;
    const bool is_exact = manifest->logs[i].has_end && manifest->clean;
    if (i + 1 < manifest->log_count || is_exact || manifest->log_count == IQ_META_LOG_MAX) return;
    if (next->number <= manifest->logs[i].number || next->number > IQ_NUMBER_MAX) return;
    manifest->logs[i + 1] = *next;
    manifest->log_count++;
}

/* The whole batch `span` of log i. False: the log ends here. */
static bool iq_repair_take(iq_repair *repair, iq_scan *scan, uint32_t i, const iq_span *span, uint64_t hole_at,
                           iqdb_result *result) {
    const iq_log_entry *entry = &repair->manifest.logs[i];
    const bool is_last = i + 1 == repair->manifest.log_count;
    const uint64_t first = span->start.lsn + 1, last = span->end.lsn;
    if (!is_last && last >= repair->manifest.logs[i + 1].first_lsn) return false; /* invariant 3 */
    if (repair->pass == IQ_REPAIR_ATTEST) {
        if (span->type == IQ_FRAME_SWITCH) iq_repair_follow(repair, i, &span->next);
        return true;
    }
    if (last < repair->next_lsn) return true;
    if (first > repair->next_lsn) {
        if (repair->next_lsn <= repair->attested)
            iq_repair_lost(repair, scan, hole_at, first - 1 < repair->attested ? first - 1 : repair->attested);
        if (first > repair->attested + 1) repair->ended = true;
    }
    /* META is clean, and still there is more: it may have been copied while somebody wrote. */
    if (repair->manifest.clean && is_last && entry->has_end && first > entry->end.lsn) {
        if (first > repair->attested || span->type != IQ_FRAME_RECORD) return first <= repair->attested;
        if (first == entry->end.lsn + 1 && repair->pass == IQ_REPAIR_ABOVE)
            (void)iq_scan_corrupt(scan, span->start.offset, first, "the log goes on where META ends it");
    }
    if (repair->ended) return false;
    *result = iq_repair_batch(repair, scan, span);
    repair->next_lsn = last + 1;
    return *result == IQDB_OK;
}

/* Moves *position to the next frame, at `offset` or behind it, that begins a batch. */
static iqdb_result iq_repair_resume(iq_repair *repair, iq_scan *scan, uint64_t offset, iq_log_position *position,
                                    bool *out_found) {
    const uint64_t step = IQ_LOG_SECTOR_MAX;
    *out_found = false;
    for (;;) {
        iq_frame frame;
        const iqdb_result result = iq_scan_find(scan, offset, position->lsn + 1, 0, &frame);
        if (result == IQDB_ERR_IO && offset < scan->size_bytes) {
            offset = (offset & ~(step - 1)) + step;
            continue;
        }
        if (result != IQDB_OK || frame.body == NULL) return result == IQDB_ERR_IO ? IQDB_OK : result;
        if (repair->pass == IQ_REPAIR_ATTEST) repair->attested = iq_repair_max(repair->attested, frame.durable_lsn);
        offset = iq_scan_behind(&frame).offset;
        if (frame.batch_lsn != frame.lsn) continue;
        const iq_log_position found = {frame.lsn - 1, frame.offset, frame.before_crc};
        *position = found;
        *out_found = true;
        return IQDB_OK;
    }
}

/* What is missing behind the last batch, which ends at `end`. */
static void iq_repair_end(iq_repair *repair, iq_scan *scan, uint32_t i, uint64_t end) {
    const iq_log_entry *entry = &repair->manifest.logs[i];
    const bool is_last = i + 1 == repair->manifest.log_count;
    uint64_t last = entry->has_end ? entry->end.lsn : 0;
    bool is_blank = true;
    if (is_last) last = iq_repair_max(last, repair->attested);
    if (repair->next_lsn <= last) {
        iq_repair_lost(repair, scan, end, last);
        repair->next_lsn = last + 1;
    }
    if (!is_last || scan->size_bytes >= entry->size_bytes || scan->state != IQ_LOG_IS_GOOD) return;
    (void)iq_scan_is_blank(scan, end, &is_blank);
    if (!is_blank) (void)iq_scan_corrupt(scan, scan->size_bytes, repair->next_lsn, "the log has been cut short");
}

static iqdb_result iq_repair_batches(iq_repair *repair, iq_scan *scan, uint32_t i, uint64_t *out_end) {
    const iq_log_entry *entry = &repair->manifest.logs[i];
    const iq_volume *volume = scan->file.volume;
    iq_log_position position = iq_scan_start(scan);
    iqdb_result result = IQDB_OK;
    bool goes_on = true;
    *out_end = position.offset;
    while (goes_on && result == IQDB_OK) {
        iq_span span;
        if (entry->has_end && position.lsn == entry->end.lsn && scan->header.crc != 0 &&
            (position.offset != entry->end.offset || position.crc != entry->end.crc))
            (void)iq_scan_corrupt(scan, position.offset, position.lsn,
                                  "the log does not have the end that META gives it");
        scan->file.volume = &repair->silent; /* damage is told as what is lost by it */
        result = iq_scan_batch(scan, &position, &span);
        scan->file.volume = volume;
        if (result == IQDB_ERR_NOMEM) return result;
        if (repair->pass == IQ_REPAIR_ATTEST && span.end.lsn > span.start.lsn)
            repair->attested = iq_repair_max(repair->attested, span.durable_lsn);
        if (result == IQDB_OK && span.is_whole) {
            goes_on = iq_repair_take(repair, scan, i, &span, *out_end, &result);
            position = span.end;
            if (goes_on) *out_end = position.offset;
            continue;
        }
        /* A valid frame that makes no sense is passed over. */
        const uint64_t behind = span.end.offset + (result == IQDB_ERR_CORRUPT ? 8 : 0);
        result = iq_repair_resume(repair, scan, behind, &position, &goes_on);
    }
    return result;
}

/* Reads log i, as far as there is one. */
static iqdb_result iq_repair_log(iq_repair *repair, uint32_t i) {
    const iq_manifest *manifest = &repair->manifest;
    const iq_volume *volume = repair->pass == IQ_REPAIR_ABOVE ? repair->volume : &repair->silent;
    iq_scan scan;
    uint64_t end = 0;
    iqdb_result result = iq_scan_salvage(&scan, volume, manifest->uuid, &manifest->logs[i]);
    if (result == IQDB_OK && scan.state == IQ_LOG_IS_GOOD) result = iq_repair_batches(repair, &scan, i, &end);
    if (result == IQDB_OK && repair->pass == IQ_REPAIR_ABOVE) iq_repair_end(repair, &scan, i, end);
    iq_scan_close(&scan);
    return result;
}

static iqdb_result iq_repair_logs(iq_repair *repair, iq_repair_pass pass) {
    const iq_manifest *manifest = &repair->manifest;
    iqdb_result result = IQDB_OK;
    repair->pass = pass;
    repair->ended = false;
    repair->next_lsn = manifest->applied_lsn + 1;
    if (manifest->log_count > 0 && manifest->logs[0].first_lsn < repair->next_lsn)
        repair->next_lsn = manifest->logs[0].first_lsn;
    for (uint32_t i = 0; i < manifest->log_count && result == IQDB_OK && !repair->ended; i++)
        result = iq_repair_log(repair, i);
    return result;
}

/* ---- Snapshots ---- */

/* The one snapshot there may be; NULL where nothing of it can be read. */
static iqdb_result iq_repair_snapshot(iq_repair *repair, iq_snapshot_reader **out_reader, bool is_named) {
    iq_manifest *manifest = &repair->manifest;
    iq_snapshot_entry found;
    *out_reader = NULL;
    if (manifest->snapshot_count == 0) return IQDB_OK;
    const iq_snapshot_entry *named = &manifest->snapshots[0];
    const iqdb_result result =
        iq_snapshot_salvage(repair->volume, manifest->uuid, named->number, is_named ? named : NULL, &found, out_reader);
    if (result == IQDB_ERR_NOMEM || result == IQDB_ERR_VERSION) return result;
    if (*out_reader == NULL) return IQDB_OK;
    /* Where only logs can tell how far it goes, they begin behind it. */
    if (found.lsn != IQ_NUMBER_MAX) {
        manifest->applied_lsn = found.lsn;
    } else if (!is_named && manifest->log_count > 0) {
        manifest->applied_lsn = manifest->logs[0].first_lsn - 1;
    }
    return IQDB_OK;
}

/* ---- Without META ---- */

/* The highest number below *number, which it becomes; false where there is none. */
static bool iq_repair_next_number(const iq_numbers *numbers, uint64_t *number) {
    uint64_t highest = 0;
    for (size_t i = 0; i < iq_numbers_count(numbers); i++) {
        const uint64_t one = iq_numbers_at(numbers, i);
        if (one < *number) highest = iq_repair_max(highest, one);
    }
    *number = highest;
    return highest > 0;
}

/* Makes a manifest of what the files say: the identity is that of the last file which tells one. */
static void iq_repair_guess_logs(iq_repair *repair, const iq_numbers *logs, bool *has_uuid) {
    iq_manifest *manifest = &repair->manifest;
    uint64_t number = UINT64_MAX;
    while (manifest->log_count < IQ_META_LOG_MAX && iq_repair_next_number(logs, &number)) {
        iq_scan scan;
        (void)iq_scan_open(&scan, &repair->silent, NULL, number);
        iq_scan_close(&scan);
        if (scan.state != IQ_LOG_IS_GOOD) continue;
        if (!*has_uuid) memcpy(manifest->uuid, scan.uuid, IQ_UUID_SIZE);
        *has_uuid = true;
        if (memcmp(manifest->uuid, scan.uuid, IQ_UUID_SIZE) != 0) continue;
        /* A later log begins before this one does: it has taken over all of it. */
        if (manifest->log_count > 0 && manifest->logs[0].first_lsn <= scan.header.first_lsn) continue;
        const iq_log_header *header = &scan.header;
        const iq_log_entry entry = {header->number, header->salt, header->first_lsn, 0, false, {0, 0, 0}};
        memmove(manifest->logs + 1, manifest->logs, manifest->log_count++ * sizeof entry);
        manifest->logs[0] = entry;
    }
}

static iqdb_result iq_repair_guess(iq_repair *repair) {
    iq_manifest *manifest = &repair->manifest;
    iq_numbers logs, snapshots;
    uint64_t number = UINT64_MAX;
    bool has_uuid = false, is_chosen = false;
    memset(manifest, 0, sizeof *manifest);
    memset(&snapshots, 0, sizeof snapshots);
    iqdb_result result = iq_volume_list(repair->volume, IQ_LOG_PREFIX, &logs);
    if (result == IQDB_OK) result = iq_volume_list(repair->volume, IQ_SNAPSHOT_PREFIX, &snapshots);
    if (result == IQDB_OK) iq_repair_guess_logs(repair, &logs, &has_uuid);
    /* The last one that is complete, else the last one. */
    while (result == IQDB_OK && !is_chosen && iq_repair_next_number(&snapshots, &number)) {
        is_chosen = iq_snapshot_identify(&repair->silent, number, manifest->uuid, &has_uuid);
        if (is_chosen || manifest->snapshot_count == 0) manifest->snapshots[0].number = number;
        manifest->snapshot_count = 1;
    }
    if (result == IQDB_OK && iq_numbers_count(&logs) + iq_numbers_count(&snapshots) == 0)
        result = iq_report(repair->volume->reporter, IQDB_ERR_NOT_FOUND, NULL, 0, "the directory holds no database");
    iq_blob_free(&logs.blob);
    iq_blob_free(&snapshots.blob);
    return result;
}

/* ---- All of it ---- */

static iqdb_result iq_repair_run(iq_repair *repair, bool is_named) {
    const iq_loader *loader = repair->loader;
    iq_manifest *manifest = &repair->manifest;
    iq_snapshot_reader *reader = NULL;
    iqdb_result result = IQDB_OK;
    if (loader != NULL) result = iq_repair_snapshot(repair, &reader, is_named);
    const bool is_short = manifest->snapshot_count > 0 && (reader == NULL || !iq_snapshot_is_whole(reader));
    repair->attested = manifest->applied_lsn;
    for (uint32_t i = 0; i < manifest->log_count; i++)
        if (manifest->logs[i].has_end) repair->attested = iq_repair_max(repair->attested, manifest->logs[i].end.lsn);
    if (result == IQDB_OK) result = iq_repair_logs(repair, IQ_REPAIR_ATTEST);
    if (result == IQDB_OK && is_short && loader != NULL) result = iq_repair_logs(repair, IQ_REPAIR_BELOW);
    if (result == IQDB_OK && reader != NULL) result = loader->snapshot_fn(reader, loader->user);
    iq_snapshot_close(reader);
    if (result == IQDB_OK) result = iq_repair_logs(repair, IQ_REPAIR_ABOVE);
    return result;
}

static void iq_repair_init(iq_repair *repair, const iq_volume *volume, const iq_loader *loader) {
    memset(repair, 0, sizeof *repair);
    repair->volume = volume;
    repair->silent = iq_volume_silent(volume);
    repair->loader = loader;
}

IQ_FN iqdb_result iq_repair_check(const iq_volume *volume, const iq_manifest *manifest, bool blocks) {
    iqdb_result result = IQDB_OK;
    iq_repair repair;
    iq_repair_init(&repair, volume, NULL);
    repair.manifest = *manifest;
    for (uint32_t i = 0; i < manifest->snapshot_count && result != IQDB_ERR_NOMEM; i++) {
        const iq_snapshot_entry *entry = &manifest->snapshots[i];
        iq_snapshot_entry seen;
        iq_snapshot_reader *reader;
        result = blocks ? iq_snapshot_salvage(volume, manifest->uuid, entry->number, entry, &seen, &reader)
                        : iq_snapshot_open(volume, manifest->uuid, entry, &reader);
        iq_snapshot_close(reader);
    }
    return result == IQDB_ERR_NOMEM ? result : iq_repair_run(&repair, true);
}

IQ_FN iqdb_result iq_repair_read(const iq_volume *volume, iq_meta *meta, const iq_loader *loader, uint64_t *out_lsn) {
    iq_meta_state state;
    iq_repair repair;
    iq_repair_init(&repair, volume, loader);
    iqdb_result result = iq_meta_load(meta, volume, false, &state, &repair.manifest);
    const bool is_named = result == IQDB_OK && state == IQ_META_IS_GOOD;
    if (result == IQDB_ERR_VERSION || result == IQDB_ERR_NOMEM) return result;
    if (is_named && repair.manifest.snapshot_count > 1)
        return iq_report(volume->reporter, IQDB_ERR_VERSION, "META", 0,
                         "snapshots in several parts need a newer version");
    result = is_named ? loader->schema_fn(&repair.manifest.schema, loader->user) : iq_repair_guess(&repair);
    if (result == IQDB_OK) (void)iq_meta_verify(volume, meta->check);
    if (result == IQDB_OK) result = iq_repair_run(&repair, is_named);
    *out_lsn = iq_repair_max(repair.next_lsn - 1, iq_repair_max(repair.attested, repair.manifest.applied_lsn));
    return result;
}

/* ======== [persist/directory.h] ======== */
/* The durable directory as the database sees it: LOCK, META, logs and snapshots behind one object. It knows bytes and
 * LSNs, not vectors. One thread at a time. */

typedef struct iq_directory iq_directory;

typedef struct iq_directory_config {
    iqdb_allocator allocator;
    iqdb_files files;
    iqdb_entropy entropy;
    const iq_reporter *reporter; /* outlives the directory */
    iq_crc32_fn crc32;           /* of iq_crc32_select; NULL: iq_crc32 */
    bool read_only;
    iq_schema schema; /* of a new database */
} iq_directory_config;

/* Creates, or loads and recovers (DESIGN: see the rules in persist/recover.c). A new database is durable at return. */
IQ_FN iqdb_result iq_directory_open(const char *path, const iq_directory_config *config, const iq_loader *loader,
                                    iq_directory **out_directory);

/* What a new directory begins with: a snapshot of everything up to `lsn`. */
typedef struct iq_directory_content {
    const uint8_t *uuid; /* NULL: one of its own */
    uint64_t lsn;
    iqdb_result (*write_fn)(iq_snapshot_writer *writer, void *user);
    void *user;
} iq_directory_content;

/* Makes a directory with this snapshot and an empty log, durable and closed at return. INVALID_CONFIG where there are
 * files of a database already. A failure leaves none, as far as they can be removed. */
IQ_FN iqdb_result iq_directory_make(const char *path, const iq_directory_config *config,
                                    const iq_directory_content *content);

/* Frees in every case. A clean close has synced the log and marked META clean; the code says whether. */
IQ_FN iqdb_result iq_directory_close(iq_directory *directory);

/* ---- Writing a batch: begin, add every record, commit; what was added without a commit is forgotten ---- */
/* READONLY, POISONED, or OK. */
IQ_FN iqdb_result iq_directory_batch_begin(iq_directory *directory);
/* One record, given in pieces. NOMEM or LIMIT: the batch cannot be committed. */
IQ_FN iqdb_result iq_directory_batch_add(iq_directory *directory, const iq_slice *pieces, size_t count);
/* Writes the batch to the log; with `sync` it is durable at return. NOSPACE: nothing happened. IO: the outcome is
 * unknown and the directory is poisoned. The batch is over in any case. */
IQ_FN iqdb_result iq_directory_batch_commit(iq_directory *directory, bool sync, uint64_t *out_commit_lsn);

/* Frees a directory that another process owns: descriptors are closed, nothing is written, no lock is released. */
IQ_FN void iq_directory_abandon(iq_directory *directory);

/* What META will say at its next change. */
IQ_FN void iq_directory_set_schema(iq_directory *directory, const iq_schema *schema);

IQ_FN iqdb_result iq_directory_flush(iq_directory *directory);

/* The image is that of last_lsn: write_fn writes its sections. */
IQ_FN iqdb_result iq_directory_checkpoint(iq_directory *directory,
                                          iqdb_result (*write_fn)(iq_snapshot_writer *writer, void *user), void *user);

/* Reads everything again to `depth` (FRAMES or BLOCKS) and reports each finding; the code of the first. */
IQ_FN iqdb_result iq_directory_verify(iq_directory *directory, iqdb_depth depth, iqdb_report_fn report, void *user);

/* Reads what may be damaged: see persist/repair.h. Nobody may have it open for writing. */
IQ_FN iqdb_result iq_directory_repair(const char *path, const iq_directory_config *config, const iq_loader *loader,
                                      iq_findings *findings, uint64_t *out_lsn);

/* As iq_directory_describe, but what META says of a directory, without a lock, without reading logs or data, and writes nothing: recovered is
 * whether the next open will have to recover. loader: schema_fn and snapshot_fn are called. */
IQ_FN iqdb_result iq_directory_inspect(const char *path, const iq_directory_config *config, const iq_loader *loader,
                                       iqdb_stats *stats);

/* Sets what a directory knows of the facts: the UUID, what it may do, LSNs, the sizes of files. */
IQ_FN void iq_directory_describe(const iq_directory *directory, iqdb_stats *stats);
/* Whether it may be written: OK, READONLY or POISONED. */
IQ_FN iqdb_result iq_directory_check(const iq_directory *directory);
/* Whether one snapshot holds everything and the log is empty. */
IQ_FN bool iq_directory_is_compact(const iq_directory *directory);

/* ======== [persist/directory.c] ======== */
/* The directory: open, commit, flush, checkpoint, close.
 *
 * 1. META's clean mark means: nothing lies behind the end of the last log. The first write withdraws it, in both slots,
 *    before it touches the log; only close sets it again. A handle that never wrote leaves the disk as it was.
 * 2. A log or snapshot is durable, its name too, before META or a switch frame names it, and is removed only after
 *    META, in both slots, has stopped naming it.
 * 3. `manifest` is what META says, except that logs that switch frames lead to stand in it already, and that the end of
 *    the last log is known to `wal` only.
 * 4. NOSPACE leaves everything usable. What else goes wrong while META is changed, or in a sync, poisons: reads of
 *    facts go on, nothing is written any more, and the next open recovers.
 * 5. Read-only opens write nothing at all. An open that has no space to recover becomes one, and says so. */

#define IQ_LOCK_NAME "LOCK"

struct iq_directory {
    iq_volume volume;
    iqdb_entropy entropy;
    iq_file lock;
    iq_meta meta;
    iq_manifest manifest;
    iq_wal wal;
    uint64_t data_lsn;      /* of a read-only handle; else wal has it */
    uint64_t old_log_bytes; /* of logs in front of the last one; of all, of a read-only handle */
    bool read_only, poisoned, recovered;
};

/* Invariant 4. */
static iqdb_result iq_directory_poison(iq_directory *directory, iqdb_result result) {
    if (result == IQDB_OK || result == IQDB_ERR_NOSPACE) return result;
    directory->poisoned = true;
    return IQDB_ERR_IO;
}

static bool iq_directory_is_poisoned(const iq_directory *directory) {
    return directory->poisoned || directory->wal.poisoned;
}

IQ_FN iqdb_result iq_directory_check(const iq_directory *directory) {
    if (directory->read_only) return IQDB_ERR_READONLY;
    return iq_directory_is_poisoned(directory) ? IQDB_ERR_POISONED : IQDB_OK;
}

static iqdb_result iq_directory_random(const iq_directory *directory, void *bytes, size_t size) {
    if (directory->entropy.fill_fn(bytes, size, directory->entropy.user)) return IQDB_OK;
    return iq_report(directory->volume.reporter, IQDB_ERR_IO, NULL, 0, "no random numbers can be had; options.entropy may bring some");
}

/* Writes META; `next` is what holds afterwards, in memory too. */
static iqdb_result iq_directory_save(iq_directory *directory, const iq_manifest *next) {
    const iqdb_result result = iq_meta_save(&directory->meta, next);
    if (result == IQDB_OK) directory->manifest = *next;
    return iq_directory_poison(directory, result);
}

/* META has to know how long the log is, or nobody would notice that it was cut short. */
static iqdb_result iq_directory_note_growth(iq_directory *directory) {
    iq_manifest next = directory->manifest;
    iq_log_entry *last = &next.logs[next.log_count - 1];
    if (last->size_bytes >= directory->wal.durable_size) return IQDB_OK;
    *last = iq_wal_entry(&directory->wal);
    const iqdb_result result = iq_directory_save(directory, &next);
    return result == IQDB_ERR_NOSPACE ? IQDB_OK : result; /* another time */
}

/* Invariant 1. */
static iqdb_result iq_directory_touch(iq_directory *directory) {
    if (!directory->manifest.clean) return IQDB_OK;
    iq_manifest next = directory->manifest;
    next.clean = false;
    return iq_directory_save(directory, &next);
}

/* ---- Snapshot files ---- */

typedef struct iq_directory_sink {
    iq_file file;
    uint64_t offset;
} iq_directory_sink;

static iqdb_result iq_directory_sink_write(const void *bytes, size_t size, void *user) {
    iq_directory_sink *sink = (iq_directory_sink *)user;
    const iqdb_result result = iq_file_write(&sink->file, sink->offset, bytes, size);
    sink->offset += size;
    return result;
}

/* Writes the snapshot file, durable with its name; nothing is left of it after a failure. */
static iqdb_result iq_directory_write_snapshot(iq_directory *directory, iq_snapshot_entry *entry,
                                               iq_snapshot_fn write_fn, void *user) {
    const iq_volume *volume = &directory->volume;
    iq_directory_sink target;
    const iq_sink sink = {iq_directory_sink_write, &target};
    target.offset = 0;
    iqdb_result result = iq_volume_create(&target.file, volume, IQ_SNAPSHOT_PREFIX, &entry->number);
    if (result != IQDB_OK) return result;
    result =
        iq_snapshot_produce(&sink, &volume->allocator, volume->crc32, directory->manifest.uuid, entry, write_fn, user);
    if (result == IQDB_OK) {
        result = iq_directory_poison(directory, iq_file_sync(&target.file));
        if (result == IQDB_OK) result = iq_directory_poison(directory, iq_volume_sync(volume));
    }
    iq_file_close(&target.file);
    if (result != IQDB_OK) iq_volume_remove(volume, target.file.name);
    return result;
}

/* ---- Opening ---- */

/* The file systems's word for a regular file of this name. */
static bool iq_directory_has(const iq_volume *volume, const char *name) {
    const iq_volume silent = iq_volume_silent(volume);
    iq_file file;
    const bool found = iq_file_open(&file, &silent, name, IQDB_OPEN_READ) == IQDB_OK;
    iq_file_close(&file);
    return found;
}

/* Takes the lock, and what writing needs. */
static iqdb_result iq_directory_lock(iq_directory *directory) {
    const iq_volume *volume = &directory->volume;
    iqdb_result result =
        iq_file_open(&directory->lock, volume, IQ_LOCK_NAME, directory->read_only ? IQDB_OPEN_READ : IQDB_OPEN_WRITE);
    if (result == IQDB_ERR_NOT_FOUND && directory->read_only) return IQDB_OK; /* a copy on a read-only medium */
    if (result == IQDB_ERR_NOT_FOUND) result = iq_file_open(&directory->lock, volume, IQ_LOCK_NAME, IQDB_OPEN_CREATE);
    if (result == IQDB_ERR_INVALID_CONFIG) /* somebody was faster */
        result = iq_file_open(&directory->lock, volume, IQ_LOCK_NAME, IQDB_OPEN_WRITE);
    if (result == IQDB_OK) result = iq_file_lock(&directory->lock, !directory->read_only);
    if (result == IQDB_OK && !directory->read_only && iq_wal_init(&directory->wal, &volume->allocator) != IQDB_OK)
        result = iq_report(volume->reporter, IQDB_ERR_NOMEM, NULL, 0, "no memory to write a log");
    return result;
}

static bool iq_directory_remove_all(const iq_volume *volume, const char *prefix) {
    char name[IQ_FILE_NAME_SIZE];
    iq_numbers numbers;
    bool done = iq_volume_list(volume, prefix, &numbers) == IQDB_OK;
    for (size_t i = 0; i < iq_numbers_count(&numbers); i++) {
        iq_volume_name(name, prefix, iq_numbers_at(&numbers, i));
        if (!iq_volume_remove(volume, name)) done = false;
    }
    iq_blob_free(&numbers.blob);
    return done;
}

/* META goes first, then the logs: at each moment an interrupted create is one again. Snapshots are there only where a
 * copy could not be finished. */
static iqdb_result iq_directory_clear(const iq_volume *volume) {
    bool done = iq_volume_remove(volume, "META");
    const iqdb_result result = iq_volume_sync(volume);
    if (result != IQDB_OK) return result;
    if (!iq_directory_remove_all(volume, IQ_LOG_PREFIX)) done = false;
    if (!iq_directory_remove_all(volume, IQ_SNAPSHOT_PREFIX)) done = false;
    if (done) return IQDB_OK;
    return iq_report(volume->reporter, IQDB_ERR_IO, NULL, 0, "what an unfinished create has left cannot be removed");
}

/* A new database, empty or with `content`. The snapshot comes first: what is left of a copy is never taken for an
 * interrupted create, which would be made anew, and empty. */
static iqdb_result iq_directory_create(iq_directory *directory, const iq_schema *schema,
                                       const iq_directory_content *content) {
    const iq_volume *volume = &directory->volume;
    iq_manifest *manifest = &directory->manifest;
    iq_log_header header = {1, 0, 1, 0, 0, IQ_LOG_SECTOR_DEFAULT, 0};
    memset(manifest, 0, sizeof *manifest);
    iqdb_result result = iq_directory_random(directory, manifest->uuid, sizeof manifest->uuid);
    if (result == IQDB_OK) result = iq_directory_random(directory, &header.salt, sizeof header.salt);
    if (result == IQDB_OK && content != NULL) {
        iq_snapshot_entry *entry = &manifest->snapshots[0];
        if (content->uuid != NULL) memcpy(manifest->uuid, content->uuid, sizeof manifest->uuid);
        manifest->snapshot_count = 1;
        entry->number = 1;
        manifest->applied_lsn = entry->lsn = content->lsn;
        manifest->clean = true;
        header.first_lsn = content->lsn + 1;
        result = iq_directory_write_snapshot(directory, entry, content->write_fn, content->user);
    }
    if (result == IQDB_OK) result = iq_wal_create(&directory->wal, volume, manifest->uuid, &header);
    if (result == IQDB_OK) result = iq_meta_create(&directory->meta, volume);
    if (result != IQDB_OK) return result;
    manifest->schema = *schema;
    manifest->log_count = 1;
    manifest->logs[0] = iq_wal_entry(&directory->wal);
    result = iq_meta_save(&directory->meta, manifest);
    return result == IQDB_OK ? iq_volume_sync(volume) : result;
}

/* Everything is loaded, and not clean: invariant 3 of recover.c. */
static iqdb_result iq_directory_recover(iq_directory *directory, const iq_recovery *recovery) {
    iq_manifest next;
    uint64_t salt;
    iqdb_result result = iq_directory_random(directory, &salt, sizeof salt);
    if (result == IQDB_OK) result = iq_recover_rewrite(recovery, salt, &directory->wal, &next);
    if (result == IQDB_OK) result = iq_directory_save(directory, &next);
    if (result == IQDB_ERR_NOSPACE) {
        iq_log(directory->volume.reporter, IQDB_LEVEL_WARNING, NULL, 0,
               "there is no space to recover: the database is open for reading only");
        directory->read_only = true;
        return IQDB_OK;
    }
    if (result != IQDB_OK) return result;
    directory->recovered = true;
    directory->old_log_bytes = 0;
    for (uint32_t i = 0; i + 1 < next.log_count; i++) directory->old_log_bytes += next.logs[i].end.offset;
    return IQDB_OK;
}

static iqdb_result iq_directory_load(iq_directory *directory, const iq_loader *loader) {
    iq_manifest *manifest = &directory->manifest;
    iq_recovery recovery;
    memset(&recovery, 0, sizeof recovery);
    recovery.volume = &directory->volume;
    recovery.loader = loader;
    recovery.manifest = manifest;
    iqdb_result result = loader->schema_fn(&manifest->schema, loader->user);
    if (result == IQDB_OK) result = iq_recover_load(&recovery);
    if (result != IQDB_OK) return result;
    directory->data_lsn = recovery.data_lsn;
    directory->old_log_bytes = recovery.log_bytes;
    if (directory->read_only) return IQDB_OK;
    if (manifest->clean) {
        result = iq_wal_resume(&directory->wal, &directory->volume, &recovery.last,
                               &manifest->logs[manifest->log_count - 1]);
        directory->wal.data_lsn = recovery.data_lsn;
        directory->old_log_bytes -= recovery.last_bytes;
    } else {
        result = iq_directory_recover(directory, &recovery);
    }
    /* In a slot that still says something else, files may be named that would be orphans here. */
    if (result == IQDB_OK && !directory->read_only && directory->meta.settled)
        iq_recover_sweep(&directory->volume, &directory->manifest);
    return result;
}

/* Reads META. Where there is none, *out_blank: no log of an interrupted create is there either. */
static iqdb_result iq_directory_look(iq_directory *directory, bool *out_found, bool *out_blank) {
    const iq_volume *volume = &directory->volume;
    iq_meta_state state;
    *out_found = *out_blank = false;
    iqdb_result result = iq_meta_load(&directory->meta, volume, !directory->read_only, &state, &directory->manifest);
    if (result != IQDB_OK) return result;
    *out_found = state == IQ_META_IS_GOOD;
    if (*out_found) return IQDB_OK;
    result = iq_recover_is_unborn(volume, state, out_blank);
    if (result != IQDB_OK) return result;
    iq_file_close(&directory->meta.file);
    if (!directory->read_only) return IQDB_OK;
    return iq_report(volume->reporter, IQDB_ERR_NOT_FOUND, NULL, 0, "the directory holds no database");
}

static iqdb_result iq_directory_start(iq_directory *directory, const iq_directory_config *config,
                                      const iq_loader *loader) {
    const iq_volume *volume = &directory->volume;
    bool is_found, is_blank;
    if (!iq_directory_has(volume, "META") && (iq_directory_has(volume, "snap") || iq_directory_has(volume, "wal")))
        return iq_report(volume->reporter, IQDB_ERR_INVALID_CONFIG, NULL, 0,
                         "the directory holds a database of the original iqdb: bring it over with the import tool");
    iqdb_result result = iq_directory_lock(directory);
    if (result == IQDB_OK) result = iq_directory_look(directory, &is_found, &is_blank);
    if (result != IQDB_OK) return result;
    if (is_found) return iq_directory_load(directory, loader);
    if (!is_blank) result = iq_directory_clear(volume);
    return result == IQDB_OK ? iq_directory_create(directory, &config->schema, NULL) : result;
}

/* A directory object over the path, with nothing read yet. */
static iqdb_result iq_directory_new(const char *path, const iq_directory_config *config, bool read_only,
                                    iq_directory **out_directory) {
    iq_directory *directory = (iq_directory *)iq_alloc_zeroed(&config->allocator, sizeof *directory, 16);
    *out_directory = directory;
    if (directory == NULL) return iq_report(config->reporter, IQDB_ERR_NOMEM, NULL, 0, "no memory for a directory");
    directory->volume.allocator = config->allocator;
    directory->volume.files = config->files;
    directory->volume.reporter = config->reporter;
    directory->volume.crc32 = config->crc32;
    directory->entropy = config->entropy;
    directory->read_only = read_only;
    return iq_volume_open(&directory->volume, path, !read_only);
}

IQ_FN iqdb_result iq_directory_open(const char *path, const iq_directory_config *config, const iq_loader *loader,
                                    iq_directory **out_directory) {
    iqdb_result result = iq_directory_new(path, config, config->read_only, out_directory);
    if (result == IQDB_OK) result = iq_directory_start(*out_directory, config, loader);
    if (result == IQDB_OK) return result;
    iq_directory_abandon(*out_directory);
    *out_directory = NULL;
    return result;
}

/* Nothing of a database may be there, not even what is left of one. */
static iqdb_result iq_directory_require_empty(const iq_volume *volume) {
    const char *const prefixes[] = {IQ_LOG_PREFIX, IQ_SNAPSHOT_PREFIX};
    bool is_empty = !iq_directory_has(volume, "META");
    iqdb_result result = IQDB_OK;
    for (size_t i = 0; i < IQ_COUNT_OF(prefixes) && result == IQDB_OK; i++) {
        iq_numbers numbers;
        result = iq_volume_list(volume, prefixes[i], &numbers);
        if (iq_numbers_count(&numbers) > 0) is_empty = false;
        iq_blob_free(&numbers.blob);
    }
    if (result != IQDB_OK || is_empty) return result;
    return iq_report(volume->reporter, IQDB_ERR_INVALID_CONFIG, NULL, 0,
                     "the directory holds a database already, or what is left of one: name another directory");
}

IQ_FN iqdb_result iq_directory_make(const char *path, const iq_directory_config *config,
                                    const iq_directory_content *content) {
    iq_directory *directory;
    iqdb_result result = iq_directory_new(path, config, false, &directory);
    if (result == IQDB_OK) result = iq_directory_lock(directory);
    if (result == IQDB_OK) result = iq_directory_require_empty(&directory->volume);
    if (result == IQDB_OK) {
        result = iq_directory_create(directory, &config->schema, content);
        if (result != IQDB_OK) (void)iq_directory_clear(&directory->volume);
    }
    iq_directory_abandon(directory);
    return result;
}

IQ_FN iqdb_result iq_directory_inspect(const char *path, const iq_directory_config *config, const iq_loader *loader,
                                       iqdb_stats *stats) {
    iq_directory *directory;
    bool is_found, is_blank;
    iqdb_result result = iq_directory_new(path, config, true, &directory);
    if (result == IQDB_OK) result = iq_directory_look(directory, &is_found, &is_blank);
    if (result == IQDB_OK) result = loader->schema_fn(&directory->manifest.schema, loader->user);
    for (uint32_t i = 0; result == IQDB_OK && i < directory->manifest.snapshot_count; i++) {
        iq_snapshot_reader *reader;
        const iq_manifest *manifest = &directory->manifest;
        result = iq_snapshot_open(&directory->volume, manifest->uuid, &manifest->snapshots[i], &reader);
        if (result == IQDB_OK) result = loader->snapshot_fn(reader, loader->user);
        iq_snapshot_close(reader);
    }
    for (uint32_t i = 0; result == IQDB_OK && i < directory->manifest.log_count; i++) {
        const iq_log_entry *log = &directory->manifest.logs[i];
        directory->old_log_bytes += log->size_bytes;
        if (log->has_end) directory->data_lsn = log->end.lsn;
    }
    if (result == IQDB_OK) {
        iq_directory_describe(directory, stats);
        stats->recovered = !directory->manifest.clean;
    }
    iq_directory_abandon(directory);
    return result;
}

/* ---- Closing ---- */

IQ_FN void iq_directory_abandon(iq_directory *directory) {
    if (directory == NULL) return;
    const iqdb_allocator allocator = directory->volume.allocator;
    iq_wal_free(&directory->wal);
    iq_file_close(&directory->meta.file);
    iq_file_close(&directory->lock);
    iq_volume_close(&directory->volume);
    iq_free(&allocator, directory, sizeof *directory, 16);
}

IQ_FN iqdb_result iq_directory_close(iq_directory *directory) {
    iqdb_result result = IQDB_OK;
    if (iq_directory_is_poisoned(directory)) {
        result = IQDB_ERR_POISONED;
    } else if (!directory->read_only && !directory->manifest.clean) {
        iq_wal_begin(&directory->wal);
        result = iq_wal_flush(&directory->wal);
        iq_manifest next = directory->manifest;
        next.clean = true;
        next.logs[next.log_count - 1] = iq_wal_entry(&directory->wal);
        if (result == IQDB_OK) {
            result = iq_directory_save(directory, &next);
            /* META could not say what is durable; a frame may. */
            if (result != IQDB_OK) (void)iq_wal_attest(&directory->wal);
        }
    }
    iq_directory_abandon(directory);
    return result;
}

/* ---- Writing ---- */

IQ_FN iqdb_result iq_directory_batch_begin(iq_directory *directory) {
    const iqdb_result result = iq_directory_check(directory);
    if (result == IQDB_OK) iq_wal_begin(&directory->wal);
    return result;
}

IQ_FN iqdb_result iq_directory_batch_add(iq_directory *directory, const iq_slice *pieces, size_t count) {
    return iq_wal_add(&directory->wal, pieces, count);
}

IQ_FN iqdb_result iq_directory_batch_commit(iq_directory *directory, bool sync, uint64_t *out_commit_lsn) {
    iqdb_result result = iq_directory_check(directory);
    if (result == IQDB_OK) result = iq_directory_touch(directory);
    if (result == IQDB_OK) result = iq_wal_commit(&directory->wal, sync);
    if (result == IQDB_OK && sync) result = iq_directory_note_growth(directory);
    iq_wal_begin(&directory->wal); /* a batch that was refused is forgotten */
    *out_commit_lsn = directory->wal.data_lsn;
    return result;
}

IQ_FN void iq_directory_set_schema(iq_directory *directory, const iq_schema *schema) {
    directory->manifest.schema = *schema;
}

IQ_FN iqdb_result iq_directory_flush(iq_directory *directory) {
    if (directory->read_only) return IQDB_OK;
    iqdb_result result = iq_directory_check(directory);
    iq_wal_begin(&directory->wal);
    if (result == IQDB_OK) result = iq_wal_flush(&directory->wal);
    if (result == IQDB_OK) result = iq_directory_note_growth(directory);
    return result == IQDB_OK ? iq_wal_attest(&directory->wal) : result;
}

/* ---- Checkpoint ---- */

/* Ends the current log, so that a snapshot of all that is in it lets it go. Where there is nothing in it, or no room in
 * META for one log more, it stays, and the snapshot ends within it. */
static iqdb_result iq_directory_next_log(iq_directory *directory) {
    iq_manifest *manifest = &directory->manifest;
    iq_wal *wal = &directory->wal;
    iq_log_entry ended;
    uint64_t salt;
    if (wal->data_lsn < wal->header.first_lsn || manifest->log_count == IQ_META_LOG_MAX) return iq_wal_flush(wal);
    const uint64_t log_bytes = wal->allocated;
    iqdb_result result = iq_directory_random(directory, &salt, sizeof salt);
    if (result == IQDB_OK) result = iq_wal_switch(wal, manifest->uuid, salt, &ended);
    if (result != IQDB_OK) return result;
    directory->old_log_bytes += log_bytes;
    manifest->logs[manifest->log_count - 1] = ended;
    manifest->logs[manifest->log_count++] = iq_wal_entry(wal);
    return IQDB_OK;
}

/* META names one snapshot and one log; what it named before goes. */
static iqdb_result iq_directory_adopt(iq_directory *directory, const iq_snapshot_entry *entry) {
    const iq_manifest before = directory->manifest;
    iq_manifest next = before;
    char name[IQ_FILE_NAME_SIZE];
    next.snapshots[0] = *entry;
    next.snapshot_count = 1;
    next.applied_lsn = entry->lsn;
    next.logs[0] = iq_wal_entry(&directory->wal);
    next.log_count = 1;
    const iqdb_result result = iq_directory_save(directory, &next);
    if (result != IQDB_OK) return result;
    directory->old_log_bytes = 0;
    if (directory->wal.attested_lsn < entry->lsn) directory->wal.attested_lsn = entry->lsn;
    for (uint32_t i = 0; i + 1 < before.log_count; i++) {
        iq_volume_name(name, IQ_LOG_PREFIX, before.logs[i].number);
        iq_volume_remove(&directory->volume, name);
    }
    for (uint32_t i = 0; i < before.snapshot_count; i++) {
        iq_volume_name(name, IQ_SNAPSHOT_PREFIX, before.snapshots[i].number);
        iq_volume_remove(&directory->volume, name);
    }
    return IQDB_OK;
}

IQ_FN iqdb_result iq_directory_checkpoint(iq_directory *directory, iq_snapshot_fn write_fn, void *user) {
    const iq_manifest *manifest = &directory->manifest;
    iq_snapshot_entry entry;
    iqdb_result result = iq_directory_check(directory);
    if (result == IQDB_OK) result = iq_directory_touch(directory);
    if (result != IQDB_OK) return result;
    iq_wal_begin(&directory->wal);
    result = iq_directory_next_log(directory);
    if (result != IQDB_OK) return result;
    memset(&entry, 0, sizeof entry);
    entry.number = manifest->snapshot_count == 0 ? 1 : manifest->snapshots[manifest->snapshot_count - 1].number + 1;
    entry.lsn = directory->wal.synced.lsn;
    result = iq_directory_write_snapshot(directory, &entry, write_fn, user);
    if (result == IQDB_OK) result = iq_directory_adopt(directory, &entry);
    /* The old log has ended, and no commit may follow for long. */
    if (result == IQDB_OK || iq_directory_is_poisoned(directory)) return result;
    return iq_wal_attest(&directory->wal) == IQDB_OK ? result : IQDB_ERR_IO;
}

/* ---- Facts and checks ---- */

IQ_FN iqdb_result iq_directory_verify(iq_directory *directory, iqdb_depth depth, iqdb_report_fn report, void *user) {
    iq_volume volume = directory->volume;
    iq_manifest manifest = directory->manifest;
    iq_findings findings = iq_findings_make(report, user);
    const iq_reporter reporter = iq_findings_reporter(&findings);
    volume.reporter = &reporter;
    manifest.clean = true; /* every log ends where we know that it ends */
    if (!directory->read_only) {
        iq_log_entry *last = &manifest.logs[manifest.log_count - 1];
        last->has_end = true;
        last->end = iq_directory_is_poisoned(directory) ? directory->wal.synced : directory->wal.written;
    }
    (void)iq_meta_verify(&volume, directory->meta.check);
    const iqdb_result result = iq_repair_check(&volume, &manifest, depth != IQDB_DEPTH_FRAMES);
    return findings.first != IQDB_OK ? findings.first : result;
}

IQ_FN iqdb_result iq_directory_repair(const char *path, const iq_directory_config *config, const iq_loader *loader,
                                      iq_findings *findings, uint64_t *out_lsn) {
    iq_directory *directory;
    const iq_reporter reporter = iq_findings_reporter(findings);
    iqdb_result result = iq_directory_new(path, config, true, &directory);
    if (result == IQDB_OK) result = iq_directory_lock(directory);
    if (result == IQDB_OK) {
        directory->volume.reporter = &reporter;
        result = iq_repair_read(&directory->volume, &directory->meta, loader, out_lsn);
    }
    iq_directory_abandon(directory);
    return result;
}

IQ_FN void iq_directory_describe(const iq_directory *directory, iqdb_stats *stats) {
    const iq_manifest *manifest = &directory->manifest;
    const iq_wal *wal = &directory->wal;
    memcpy(stats->uuid, manifest->uuid, sizeof stats->uuid);
    stats->read_only = directory->read_only;
    stats->recovered = directory->recovered;
    stats->poisoned = iq_directory_is_poisoned(directory);
    stats->applied_lsn = manifest->applied_lsn;
    stats->last_lsn = directory->read_only ? directory->data_lsn : wal->data_lsn;
    if (stats->last_lsn < stats->applied_lsn) stats->last_lsn = stats->applied_lsn;
    /* Frames that are no writes count only inside. */
    stats->durable_lsn = directory->read_only || wal->synced.lsn > stats->last_lsn ? stats->last_lsn : wal->synced.lsn;
    stats->log_bytes = directory->old_log_bytes + (directory->read_only ? 0 : wal->allocated);
    stats->snapshot_bytes = 0;
    for (uint32_t i = 0; i < manifest->snapshot_count; i++) stats->snapshot_bytes += manifest->snapshots[i].size_bytes;
}

IQ_FN bool iq_directory_is_compact(const iq_directory *directory) {
    const iq_manifest *manifest = &directory->manifest;
    const uint64_t last_lsn = directory->read_only ? directory->data_lsn : directory->wal.data_lsn;
    return manifest->snapshot_count == 1 && last_lsn <= manifest->applied_lsn;
}

/* ======== [store/epoch.h] ======== */
/* How readers keep what they read without a lock: pins on moments, and tables that grow under their eyes.
 *
 * A moment is a state of the store. The writer publishes one after the other; a reader pins the newest, and sees what
 * was born at its moment or before and is not dead at it. Moments number the publications of a handle, without gap;
 * LSNs are the log's. */

#define IQ_MOMENT_NEVER UINT64_MAX
#if !defined(IQ_SLOT_COUNT)
#define IQ_SLOT_COUNT 16u /* of a chunk */
#endif

/* Memory that a call may use while it has it; what it is for comes behind this header, at IQ_CACHE_LINE. */
typedef struct iq_scratch {
    size_t size_bytes; /* with the header */
} iq_scratch;

/* A place for one pin, and beside it one for scratch, which is anybody's. Pins belong to calls and iterators, not to
 * threads: whoever swaps a slot from 0 has it. */
typedef struct iq_slot {
    uint64_t moment;     /* 0: free; else its holder sees this one or a newer one */
    iq_scratch *scratch; /* left by a call for another one, or NULL */
    uint8_t distance[IQ_ATOMIC_DISTANCE - 8 - sizeof(void *)];
} iq_slot;

typedef struct iq_slots {
    iq_slot slots[IQ_SLOT_COUNT];
    struct iq_slots *next;
    uint8_t distance[IQ_ATOMIC_DISTANCE - sizeof(void *)];
} iq_slots;

typedef struct iq_epoch {
    iq_slots first;
    uint64_t moment;    /* the newest one; never 0 */
    uint64_t counts[2]; /* live records at that moment, by its parity */
    uint8_t distance[IQ_ATOMIC_DISTANCE - 3 * 8];
    uint64_t unslotted; /* pins that found no slot: while there are any, nothing is given back */
    uint64_t fence;
    bool crowded; /* the writer's: there were such pins */
} iq_epoch;

typedef struct iq_pin {
    iq_slot *slot; /* NULL: counted in `unslotted` */
    uint64_t moment;
    uint64_t count; /* live records at the moment */
} iq_pin;

IQ_FN void iq_epoch_init(iq_epoch *epoch);
IQ_FN void iq_epoch_free(iq_epoch *epoch, const iqdb_allocator *allocator);

/* ---- For readers: no lock, no wait, no failure ---- */

/* `self` is any number; threads that pass different ones tend not to meet in a slot. */
IQ_FN iq_pin iq_epoch_pin(iq_epoch *epoch, uintptr_t self);
/* `slot` is the pin's. */
IQ_FN void iq_epoch_unpin(iq_epoch *epoch, iq_slot *slot);
/* Scratch that a call has left, best near the own slot (NULL: anywhere); NULL where all is in use. */
IQ_FN iq_scratch *iq_epoch_take_scratch(iq_epoch *epoch, iq_slot *own);
/* Leaves it to another call; false where there is no place for it. */
IQ_FN bool iq_epoch_leave_scratch(iq_epoch *epoch, iq_slot *own, iq_scratch *scratch);
/* Live records now. */
IQ_FN uint64_t iq_epoch_count(const iq_epoch *epoch);

/* ---- For the writer ---- */

/* What was written so far belongs to the next moment, epoch->moment + 1, which is now the newest. */
IQ_FN void iq_epoch_publish(iq_epoch *epoch, uint64_t count);
/* No pin is on an older moment: NEVER where there is none. What cannot be reached from `moment` on, and was
 * unreachable before that was published, may be given back once this is above the moment before it. */
IQ_FN uint64_t iq_epoch_oldest(iq_epoch *epoch);
/* More slots where they were short; without memory it stays as it is. */
IQ_FN void iq_epoch_make_room(iq_epoch *epoch, const iqdb_allocator *allocator);

/* ---- Arrays that readers may be reading while the writer replaces them by larger ones ---- */

/* Stands IQ_CACHE_LINE bytes before the items. */
typedef struct iq_table {
    struct iq_table *older; /* replaced by this one, perhaps still read */
    size_t size_bytes;      /* of the items */
    uint64_t replaced;      /* the last moment from which it can be reached; 0: not known yet */
} iq_table;

IQ_INLINE iq_table *iq_table_of(void *items) {
    return (iq_table *)(void *)((uint8_t *)items - IQ_CACHE_LINE);
}
IQ_INLINE size_t iq_table_size(void *items) {
    return items == NULL ? 0 : iq_table_of(items)->size_bytes;
}
/* Whether there are older items behind these. */
IQ_INLINE bool iq_table_is_replacement(void *items) {
    return items != NULL && iq_table_of(items)->older != NULL;
}

/* New items, zeroed, with the old ones (NULL or a table's) behind them; NULL without memory. To be filled and then
 * published with a release store. */
IQ_FN void *iq_table_renew(const iqdb_allocator *allocator, void *items, size_t size_bytes);
/* Room for `more` bytes behind the `used` ones: `items` itself or a renewed copy; NULL without memory. */
IQ_FN void *iq_table_reserve(const iqdb_allocator *allocator, void *items, size_t used, size_t more);
/* Frees older items that no pin reaches. `oldest` is that of the epoch, asked before `now` is published over. */
IQ_FN void iq_table_trim(const iqdb_allocator *allocator, void *items, uint64_t oldest, uint64_t now);
/* Frees the items and all older ones. */
IQ_FN void iq_table_free(const iqdb_allocator *allocator, void *items);

/* ======== [store/epoch.c] ======== */
/* Epoch-based reclamation (K. Fraser, "Practical lock-freedom", 2004, section 5.2.3), with the moment of publication
 * as the epoch.
 *
 * Reader: e = moment; slot = e; FENCE; v = moment; reads; slot = 0.
 * Writer: makes things unreachable; moment = m + 1; FENCE; looks at the slots; gives back what no slot <= m can reach.
 *
 * 1. The fences stand between a reader's slot and what it reads, and between what the writer has published and the
 *    slots it looks at. So either the writer finds the slot, or the reader finds all that was published.
 * 2. A reader sees the state of v, taken behind its fence; e, taken before, may be older than what the writer has
 *    already cleared away. The slot tells e <= v, so it keeps too much rather than too little.
 * 3. The moment is stored with release and loaded with acquire: a reader whose slot says e reaches nothing that was
 *    made unreachable before e was published. With a relaxed store it could announce the new moment and still follow
 *    the old pointer.
 * 4. A slot is left with release and looked at with acquire: what its holder read was read before it is written over.
 *    The next holder's swap continues the release, so the look needs to find only the last one.
 *
 * tests/model/test_epoch.c runs this file under every order of its steps and every value that a load may return. */

IQ_STATIC_ASSERT(sizeof(iq_table) <= IQ_CACHE_LINE, a_table_has_room_for_its_head);

/* ---- Pins ---- */

IQ_FN void iq_epoch_init(iq_epoch *epoch) {
    memset(epoch, 0, sizeof *epoch);
    epoch->moment = 1; /* 0 would make a slot look free */
}

IQ_FN void iq_epoch_free(iq_epoch *epoch, const iqdb_allocator *allocator) {
    iq_slots *chunk = &epoch->first;
    while (chunk != NULL) {
        iq_slots *next = chunk->next;
        for (size_t i = 0; i < IQ_SLOT_COUNT; i++) {
            iq_scratch *scratch = chunk->slots[i].scratch;
            if (scratch != NULL) iq_free(allocator, scratch, scratch->size_bytes, IQ_CACHE_LINE);
        }
        if (chunk != &epoch->first) iq_free(allocator, chunk, sizeof *chunk, IQ_CACHE_LINE);
        chunk = next;
    }
    iq_epoch_init(epoch);
}

/* A free slot, now holding `moment`, or NULL. */
static iq_slot *iq_epoch_claim(iq_epoch *epoch, uint64_t moment, uintptr_t self) {
    const size_t start = (size_t)(iq_hash_u64(self) >> 32);
    for (iq_slots *chunk = &epoch->first; chunk != NULL; chunk = IQ_ATOMIC_LOAD(&chunk->next)) {
        for (size_t i = 0; i < IQ_SLOT_COUNT; i++) {
            iq_slot *slot = &chunk->slots[(start + i) % IQ_SLOT_COUNT];
            if (IQ_ATOMIC_LOAD(&slot->moment) == 0 && IQ_ATOMIC_SWAP_IF(&slot->moment, 0, moment)) return slot;
        }
    }
    return NULL;
}

/* The newest moment and its count. The writer fills the other cell before it publishes: while the moment stands, so
 * does its count. Each further round is made by a write that came between. */
static uint64_t iq_epoch_now(const iq_epoch *epoch, uint64_t *out_count) {
    for (;;) {
        const uint64_t moment = IQ_ATOMIC_LOAD(&epoch->moment);
        *out_count = IQ_ATOMIC_LOAD(&epoch->counts[moment % 2]);
        if (IQ_ATOMIC_LOAD(&epoch->moment) == moment) return moment;
    }
}

IQ_FN iq_pin iq_epoch_pin(iq_epoch *epoch, uintptr_t self) {
    iq_pin pin;
    pin.slot = iq_epoch_claim(epoch, IQ_ATOMIC_LOAD(&epoch->moment), self);
    if (pin.slot == NULL) IQ_ATOMIC_ADD(&epoch->unslotted, 1);
    IQ_ATOMIC_FENCE(&epoch->fence);
    pin.moment = iq_epoch_now(epoch, &pin.count);
    return pin;
}

IQ_FN void iq_epoch_unpin(iq_epoch *epoch, iq_slot *slot) {
    if (slot != NULL) {
        IQ_ATOMIC_STORE(&slot->moment, 0);
    } else {
        IQ_ATOMIC_ADD(&epoch->unslotted, UINT64_MAX);
    }
}

/* Whoever swaps the pointer out has the memory: nobody looks at what is behind it before. */
static iq_scratch *iq_slot_take_scratch(iq_slot *slot) {
    iq_scratch *scratch = IQ_ATOMIC_LOAD(&slot->scratch);
    return scratch != NULL && IQ_ATOMIC_SWAP_IF(&slot->scratch, scratch, NULL) ? scratch : NULL;
}

IQ_FN iq_scratch *iq_epoch_take_scratch(iq_epoch *epoch, iq_slot *own) {
    iq_scratch *scratch = own != NULL ? iq_slot_take_scratch(own) : NULL;
    for (iq_slots *chunk = &epoch->first; chunk != NULL && scratch == NULL; chunk = IQ_ATOMIC_LOAD(&chunk->next))
        for (size_t i = 0; i < IQ_SLOT_COUNT && scratch == NULL; i++) scratch = iq_slot_take_scratch(&chunk->slots[i]);
    return scratch;
}

IQ_FN bool iq_epoch_leave_scratch(iq_epoch *epoch, iq_slot *own, iq_scratch *scratch) {
    if (own != NULL && IQ_ATOMIC_SWAP_IF(&own->scratch, NULL, scratch)) return true;
    for (iq_slots *chunk = &epoch->first; chunk != NULL; chunk = IQ_ATOMIC_LOAD(&chunk->next))
        for (size_t i = 0; i < IQ_SLOT_COUNT; i++)
            if (IQ_ATOMIC_SWAP_IF(&chunk->slots[i].scratch, NULL, scratch)) return true;
    return false;
}

IQ_FN uint64_t iq_epoch_count(const iq_epoch *epoch) {
    uint64_t count;
    (void)iq_epoch_now(epoch, &count);
    return count;
}

IQ_FN void iq_epoch_publish(iq_epoch *epoch, uint64_t count) {
    const uint64_t moment = epoch->moment + 1; /* nobody else writes it */
    IQ_ATOMIC_STORE(&epoch->counts[moment % 2], count);
    IQ_ATOMIC_STORE(&epoch->moment, moment);
}

IQ_FN uint64_t iq_epoch_oldest(iq_epoch *epoch) {
    uint64_t oldest = IQ_MOMENT_NEVER;
    IQ_ATOMIC_FENCE(&epoch->fence);
    for (const iq_slots *chunk = &epoch->first; chunk != NULL; chunk = chunk->next) {
        for (size_t i = 0; i < IQ_SLOT_COUNT; i++) {
            const uint64_t moment = IQ_ATOMIC_LOAD(&chunk->slots[i].moment);
            if (moment != 0 && moment < oldest) oldest = moment;
        }
    }
    if (IQ_ATOMIC_LOAD(&epoch->unslotted) == 0) return oldest;
    epoch->crowded = true;
    return 0;
}

IQ_FN void iq_epoch_make_room(iq_epoch *epoch, const iqdb_allocator *allocator) {
    if (!epoch->crowded) return;
    iq_slots *last = &epoch->first;
    iq_slots *chunk = (iq_slots *)iq_alloc_zeroed(allocator, sizeof *chunk, IQ_CACHE_LINE);
    if (chunk == NULL) return;
    while (last->next != NULL) last = last->next;
    IQ_ATOMIC_STORE(&last->next, chunk);
    epoch->crowded = false;
}

/* ---- Tables ---- */

IQ_FN void *iq_table_renew(const iqdb_allocator *allocator, void *items, size_t size_bytes) {
    if (size_bytes > (size_t)-1 - IQ_CACHE_LINE) return NULL;
    iq_table *table = (iq_table *)iq_pages_alloc(allocator, IQ_CACHE_LINE + size_bytes);
    if (table == NULL) return NULL;
    memset(table, 0, IQ_CACHE_LINE + size_bytes);
    table->older = items == NULL ? NULL : iq_table_of(items);
    table->size_bytes = size_bytes;
    return (uint8_t *)(void *)table + IQ_CACHE_LINE;
}

IQ_FN void *iq_table_reserve(const iqdb_allocator *allocator, void *items, size_t used, size_t more) {
    const size_t size = iq_table_size(items);
    if (more <= size - used) return items;
    if (more > (size_t)-1 / 4 - used) return NULL;
    size_t grown = size * 2 > used + more ? size * 2 : used + more;
    if (grown < 256) grown = 256;
    void *copy = iq_table_renew(allocator, items, grown);
    if (copy != NULL && used > 0) memcpy(copy, items, used);
    return copy;
}

static void iq_table_free_from(const iqdb_allocator *allocator, iq_table *table) {
    while (table != NULL) {
        iq_table *older = table->older;
        iq_pages_free(allocator, table, IQ_CACHE_LINE + table->size_bytes);
        table = older;
    }
}

IQ_FN void iq_table_trim(const iqdb_allocator *allocator, void *items, uint64_t oldest, uint64_t now) {
    if (items == NULL) return;
    iq_table *table = iq_table_of(items);
    for (; table->older != NULL; table = table->older) {
        if (table->older->replaced == 0) table->older->replaced = now;
        if (table->older->replaced >= oldest) continue;
        iq_table_free_from(allocator, table->older); /* what is behind was replaced before */
        table->older = NULL;
        return;
    }
}

IQ_FN void iq_table_free(const iqdb_allocator *allocator, void *items) {
    if (items != NULL) iq_table_free_from(allocator, iq_table_of(items));
}

/* ======== [store/filter.h] ======== */
/* Filters, compiled to a flat program over encoded payloads. */

/* A constant, encoded as a payload has it. */
typedef struct iq_filter_operand {
    const uint8_t *bytes;
    size_t size;
    unsigned kind; /* what it can be compared with; not 0 */
} iq_filter_operand;

/* One test of one key, and where to go on. */
typedef struct iq_filter_step {
    const char *key; /* zero-terminated */
    size_t key_size;
    const iq_filter_operand *operands;
    uint32_t operand_count;
    uint32_t on_true, on_false; /* a step, IQ_FILTER_ACCEPT or IQ_FILTER_REJECT */
    uint32_t index;             /* where the key was found last: a guess, the only thing that evaluation changes */
    uint8_t op;                 /* iqdb_filter_op */
    uint8_t orders;             /* of field and operand, for which a comparison holds; 0: no comparison */
    bool has_dot;               /* the key may reach into objects */
} iq_filter_step;

#define IQ_FILTER_ACCEPT 0xFFFFFFFFu
#define IQ_FILTER_REJECT 0xFFFFFFFEu

typedef struct iq_filter {
    iq_filter_step *steps;
    uint32_t entry;
} iq_filter;

/* What a program takes. */
typedef struct iq_filter_layout {
    size_t step_count;
    size_t operand_count;
    size_t byte_count;
    size_t size_bytes; /* in all, at an alignment of 16 */
} iq_filter_layout;

/* NULL, or in words why the filter is INVALID_FILTER. */
IQ_FN const char *iq_filter_measure(const iqdb_filter *filter, iq_filter_layout *out_layout);

/* Compiles what has been measured into `memory`, which lives as long as *out; the caller's filter need not. */
IQ_FN void iq_filter_compile(const iqdb_filter *filter, const iq_filter_layout *layout, void *memory, iq_filter *out);

/* Whether the filter holds; payload.bytes may be NULL, and the bytes need not be a payload. Allocates nothing. Any
 * number of threads may share a program. */
IQ_FN bool iq_filter_accepts(const iq_filter *filter, iqdb_payload payload);

/* ======== [store/filter.c] ======== */
/* Filters: constructors, compilation, evaluation.
 *
 * 1. A program is a list of tests, each with a step for true and one for false, as in the short-circuit code of a
 *    compiler (Aho, Sethi, Ullman, "Compilers", section 8.4). and, or and not leave nothing behind but these targets.
 * 2. The last test is made first, so every target is known when it is needed, and every jump leads to a smaller index:
 *    an evaluation ends after as many tests as there are.
 * 3. Measuring and compiling are one walk, without recursion: open branches stand on a stack of IQDB_FILTER_DEPTH_MAX.
 *    A filter whose parts are shared, or that contains itself, ends with the limit of nodes or of depth.
 * 4. A program owns what it needs: keys and constants are copied, the constants in the encoding of payloads, so that two
 *    encoded values are all that is ever compared.
 * 5. The constants of `in` are sorted by kind and value, so one field takes log2(1,024) comparisons. */

/* ---- Constructors ---- */

static iqdb_filter iq_filter_make(iqdb_filter_op op, const char *key) {
    iqdb_filter filter;
    memset(&filter, 0, sizeof filter);
    filter.op = op;
    filter.key = key;
    return filter;
}

static iqdb_filter iq_filter_with_value(iqdb_filter_op op, const char *key, iqdb_value value) {
    iqdb_filter filter = iq_filter_make(op, key);
    filter.value = value;
    return filter;
}

static iqdb_filter iq_filter_with_children(iqdb_filter_op op, const iqdb_filter *children, size_t count) {
    iqdb_filter filter = iq_filter_make(op, NULL);
    filter.children = children;
    filter.count = count;
    return filter;
}

IQDB_API iqdb_filter iqdb_filter_default(void) {
    return iq_filter_make(IQDB_FILTER_ALL, NULL);
}

IQDB_API iqdb_filter iqdb_eq(const char *key, iqdb_value value) {
    return iq_filter_with_value(IQDB_FILTER_EQ, key, value);
}

IQDB_API iqdb_filter iqdb_ne(const char *key, iqdb_value value) {
    return iq_filter_with_value(IQDB_FILTER_NE, key, value);
}

IQDB_API iqdb_filter iqdb_lt(const char *key, iqdb_value value) {
    return iq_filter_with_value(IQDB_FILTER_LT, key, value);
}

IQDB_API iqdb_filter iqdb_le(const char *key, iqdb_value value) {
    return iq_filter_with_value(IQDB_FILTER_LE, key, value);
}

IQDB_API iqdb_filter iqdb_gt(const char *key, iqdb_value value) {
    return iq_filter_with_value(IQDB_FILTER_GT, key, value);
}

IQDB_API iqdb_filter iqdb_ge(const char *key, iqdb_value value) {
    return iq_filter_with_value(IQDB_FILTER_GE, key, value);
}

IQDB_API iqdb_filter iqdb_between(const char *key, iqdb_value low, iqdb_value high) {
    iqdb_filter filter = iq_filter_with_value(IQDB_FILTER_BETWEEN, key, low);
    filter.high = high;
    return filter;
}

IQDB_API iqdb_filter iqdb_in(const char *key, const iqdb_value *values, size_t count) {
    iqdb_filter filter = iq_filter_make(IQDB_FILTER_IN, key);
    filter.values = values;
    filter.count = count;
    return filter;
}

IQDB_API iqdb_filter iqdb_prefix(const char *key, const char *zero_terminated) {
    return iq_filter_with_value(IQDB_FILTER_PREFIX, key, iqdb_text(zero_terminated));
}

IQDB_API iqdb_filter iqdb_exists(const char *key) {
    return iq_filter_make(IQDB_FILTER_EXISTS, key);
}

IQDB_API iqdb_filter iqdb_is_null(const char *key) {
    return iq_filter_make(IQDB_FILTER_IS_NULL, key);
}

IQDB_API iqdb_filter iqdb_contains_value(const char *key, iqdb_value value) {
    return iq_filter_with_value(IQDB_FILTER_CONTAINS_VALUE, key, value);
}

IQDB_API iqdb_filter iqdb_and(const iqdb_filter *children, size_t count) {
    return iq_filter_with_children(IQDB_FILTER_AND, children, count);
}

IQDB_API iqdb_filter iqdb_or(const iqdb_filter *children, size_t count) {
    return iq_filter_with_children(IQDB_FILTER_OR, children, count);
}

IQDB_API iqdb_filter iqdb_not(const iqdb_filter *child) {
    return iq_filter_with_children(IQDB_FILTER_NOT, child, 1);
}

/* ---- Comparing encoded values ---- */

#define IQ_ORDER_LESS 1u
#define IQ_ORDER_EQUAL 2u
#define IQ_ORDER_GREATER 4u
#define IQ_ORDER_UNEQUAL 8u /* of one kind and yet in no order: a NaN is among them */

/* What can be compared with what; 0 where the bytes are no value that can. */
static unsigned iq_filter_kind(const uint8_t *value, size_t size) {
    const unsigned type = size == 0 ? (unsigned)IQDB_TYPE_ABSENT : value[0];
    if (type == IQDB_TYPE_INT || type == IQDB_TYPE_FLOAT) return size == 9 ? 3 : 0;
    if (type == IQDB_TYPE_NULL) return size == 1 ? 1 : 0;
    if (type == IQDB_TYPE_BOOL) return size == 2 ? 2 : 0;
    if (type == IQDB_TYPE_TEXT) return size >= 2 ? 4 : 0;
    return type == IQDB_TYPE_BYTES ? 5 : 0;
}

static bool iq_f64_is_nan(double value) {
    return (iq_f64_bits(value) & UINT64_C(0x7FFFFFFFFFFFFFFF)) > UINT64_C(0x7FF0000000000000);
}

static unsigned iq_order_ints(int64_t a, int64_t b) {
    return a < b ? IQ_ORDER_LESS : a > b ? IQ_ORDER_GREATER : IQ_ORDER_EQUAL;
}

static unsigned iq_order_floats(double a, double b) {
    if (iq_f64_is_nan(a) || iq_f64_is_nan(b)) return IQ_ORDER_UNEQUAL;
    return a < b ? IQ_ORDER_LESS : a > b ? IQ_ORDER_GREATER : IQ_ORDER_EQUAL;
}

/* Exact: a double that is no int64 lies beyond all of them or between two. */
static unsigned iq_order_int_float(int64_t a, double b) {
    if (iq_f64_is_nan(b)) return IQ_ORDER_UNEQUAL;
    if (b >= 9223372036854775808.0) return IQ_ORDER_LESS;
    if (b < -9223372036854775808.0) return IQ_ORDER_GREATER;
    const int64_t whole = (int64_t)b;
    if (a != whole) return a < whole ? IQ_ORDER_LESS : IQ_ORDER_GREATER;
    const double rest = b - (double)whole;
    return rest > 0 ? IQ_ORDER_LESS : rest < 0 ? IQ_ORDER_GREATER : IQ_ORDER_EQUAL;
}

static unsigned iq_order_numbers(const uint8_t *a, const uint8_t *b) {
    const uint64_t a_bits = iq_get_u64(a + 1), b_bits = iq_get_u64(b + 1);
    int64_t a_int, b_int;
    memcpy(&a_int, &a_bits, 8);
    memcpy(&b_int, &b_bits, 8);
    if (a[0] == IQDB_TYPE_FLOAT && b[0] == IQDB_TYPE_FLOAT)
        return iq_order_floats(iq_f64_from_bits(a_bits), iq_f64_from_bits(b_bits));
    if (b[0] == IQDB_TYPE_FLOAT) return iq_order_int_float(a_int, iq_f64_from_bits(b_bits));
    if (a[0] == IQDB_TYPE_INT) return iq_order_ints(a_int, b_int);
    const unsigned turned = iq_order_int_float(b_int, iq_f64_from_bits(a_bits));
    return turned == IQ_ORDER_LESS ? IQ_ORDER_GREATER : turned == IQ_ORDER_GREATER ? IQ_ORDER_LESS : turned;
}

/* The order of two values of the same kind. */
static unsigned iq_order_of_kind(unsigned kind, const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size) {
    if (kind == 3) return iq_order_numbers(a, b);
    /* The NUL of a text is less than all that may stand in its place, so it needs no care. */
    const size_t common = a_size < b_size ? a_size : b_size;
    const int order = memcmp(a, b, common);
    if (order != 0) return order < 0 ? IQ_ORDER_LESS : IQ_ORDER_GREATER;
    return a_size < b_size ? IQ_ORDER_LESS : a_size > b_size ? IQ_ORDER_GREATER : IQ_ORDER_EQUAL;
}

/* 0 where the two cannot be compared. */
static unsigned iq_filter_order(const uint8_t *value, size_t size, const iq_filter_operand *operand) {
    const unsigned kind = iq_filter_kind(value, size);
    if (kind != operand->kind) return 0;
    return iq_order_of_kind(kind, value, size, operand->bytes, operand->size);
}

/* The order in which the constants of `in` are sorted: by kind first. */
static unsigned iq_filter_order_all(const uint8_t *value, size_t size, const iq_filter_operand *operand) {
    const unsigned kind = iq_filter_kind(value, size);
    if (kind != operand->kind) return kind < operand->kind ? IQ_ORDER_LESS : IQ_ORDER_GREATER;
    return iq_order_of_kind(kind, value, size, operand->bytes, operand->size);
}

/* ---- Measuring and compiling ---- */

typedef struct iq_filter_frame {
    const iqdb_filter *branch;
    size_t left; /* children to come; the last one comes first */
    uint32_t on_true, on_false;
    uint32_t entry; /* of what has been made of it */
} iq_filter_frame;

typedef struct iq_filter_maker {
    iq_filter_step *steps; /* NULL: measuring */
    iq_filter_operand *operands;
    uint8_t *bytes;
    size_t step_count, operand_count, node_count;
    uint64_t byte_count;
    const char *why;
    iq_filter_frame frames[IQDB_FILTER_DEPTH_MAX];
} iq_filter_maker;

static bool iq_filter_fail(iq_filter_maker *maker, const char *why) {
    maker->why = why;
    return false;
}

/* Room for `size` bytes; NULL while measuring. */
static uint8_t *iq_filter_take(iq_filter_maker *maker, size_t size) {
    uint8_t *room = maker->bytes == NULL ? NULL : maker->bytes + maker->byte_count;
    maker->byte_count += size;
    return room;
}

static bool iq_filter_put_operand(iq_filter_maker *maker, const iqdb_value *value) {
    size_t size = 0;
    switch ((unsigned)value->type) {
    case IQDB_TYPE_NULL:
    case IQDB_TYPE_BOOL:
    case IQDB_TYPE_INT:
    case IQDB_TYPE_FLOAT:
        break;
    case IQDB_TYPE_TEXT:
        size = value->as.text.size;
        if (value->as.text.data == NULL) return iq_filter_fail(maker, "a text is NULL");
        if (!iq_utf8_is_valid(value->as.text.data, size)) return iq_filter_fail(maker, "a text is not UTF-8");
        break;
    case IQDB_TYPE_BYTES:
        size = value->as.bytes.size;
        if (value->as.bytes.data == NULL && size > 0) return iq_filter_fail(maker, "bytes are NULL");
        break;
    default:
        return iq_filter_fail(maker, "a field is compared with an array, an object or nothing");
    }
    if (size > IQDB_PAYLOAD_SIZE_MAX) return iq_filter_fail(maker, "a value is larger than IQDB_PAYLOAD_SIZE_MAX");
    const size_t all = 1 + iq_value_write(value, NULL);
    uint8_t *room = iq_filter_take(maker, all);
    if (room != NULL) {
        iq_filter_operand *operand = &maker->operands[maker->operand_count];
        room[0] = (uint8_t)value->type;
        (void)iq_value_write(value, room + 1);
        operand->bytes = room;
        operand->size = all;
        operand->kind = iq_filter_kind(room, all);
    }
    maker->operand_count++;
    return true;
}

/* Shell's sort with gaps that are one third of the one before: few values need few, and 1,024 some 15,000 moves. NaNs
 * equal nothing, so they are left out. */
static void iq_filter_sort(iq_filter_operand *operands, uint32_t *count) {
    uint32_t kept = 0, gap = 1;
    for (uint32_t i = 0; i < *count; i++)
        if (iq_filter_order(operands[i].bytes, operands[i].size, &operands[i]) == IQ_ORDER_EQUAL)
            operands[kept++] = operands[i];
    *count = kept;
    while (gap < kept / 3) gap = 3 * gap + 1;
    for (; gap > 0; gap /= 3) {
        for (uint32_t i = gap; i < kept; i++) {
            const iq_filter_operand moved = operands[i];
            uint32_t j = i;
            for (; j >= gap; j -= gap) {
                if (iq_filter_order_all(moved.bytes, moved.size, &operands[j - gap]) != IQ_ORDER_LESS) break;
                operands[j] = operands[j - gap];
            }
            operands[j] = moved;
        }
    }
}

static bool iq_filter_put_operands(iq_filter_maker *maker, const iqdb_filter *filter) {
    if (filter->op == IQDB_FILTER_EXISTS || filter->op == IQDB_FILTER_IS_NULL) return true;
    if (filter->op == IQDB_FILTER_IN) {
        if (filter->count > IQDB_FILTER_IN_MAX)
            return iq_filter_fail(maker, "there are more than IQDB_FILTER_IN_MAX values in a list");
        if (filter->count > 0 && filter->values == NULL) return iq_filter_fail(maker, "a list of values is NULL");
        for (size_t i = 0; i < filter->count; i++)
            if (!iq_filter_put_operand(maker, &filter->values[i])) return false;
        return true;
    }
    if (filter->op == IQDB_FILTER_PREFIX && filter->value.type != IQDB_TYPE_TEXT)
        return iq_filter_fail(maker, "a prefix must be a text");
    if (!iq_filter_put_operand(maker, &filter->value)) return false;
    return filter->op != IQDB_FILTER_BETWEEN || iq_filter_put_operand(maker, &filter->high);
}

static uint8_t iq_filter_orders(iqdb_filter_op op) {
    switch ((unsigned)op) {
    case IQDB_FILTER_EQ:
        return IQ_ORDER_EQUAL;
    case IQDB_FILTER_NE:
        return IQ_ORDER_LESS | IQ_ORDER_GREATER | IQ_ORDER_UNEQUAL;
    case IQDB_FILTER_LT:
        return IQ_ORDER_LESS;
    case IQDB_FILTER_LE:
        return IQ_ORDER_LESS | IQ_ORDER_EQUAL;
    case IQDB_FILTER_GT:
        return IQ_ORDER_GREATER;
    case IQDB_FILTER_GE:
        return IQ_ORDER_GREATER | IQ_ORDER_EQUAL;
    default:
        return 0;
    }
}

/* Makes the step of a test. */
static bool iq_filter_put_test(iq_filter_maker *maker, const iqdb_filter *filter, uint32_t on_true, uint32_t on_false) {
    const size_t first = maker->operand_count;
    if (filter->key == NULL) return iq_filter_fail(maker, "a key is NULL");
    const size_t key_size = strlen(filter->key);
    if (!iq_utf8_is_valid(filter->key, key_size)) return iq_filter_fail(maker, "a key is not UTF-8");
    uint8_t *key = iq_filter_take(maker, key_size + 1);
    if (!iq_filter_put_operands(maker, filter)) return false;
    const size_t index = maker->step_count++;
    if (maker->steps == NULL) return true;
    memcpy(key, filter->key, key_size + 1);
    iq_filter_step *step = &maker->steps[index];
    step->key = (const char *)key;
    step->key_size = key_size;
    step->operands = maker->operands + first;
    step->operand_count = (uint32_t)(maker->operand_count - first);
    step->on_true = on_true;
    step->on_false = on_false;
    step->index = 0;
    step->op = (uint8_t)filter->op;
    step->has_dot = memchr(key, '.', key_size) != NULL;
    step->orders = iq_filter_orders(filter->op);
    if (filter->op == IQDB_FILTER_IN) iq_filter_sort(maker->operands + first, &step->operand_count);
    return true;
}

static bool iq_filter_is_branch(const iqdb_filter *filter) {
    return filter->op == IQDB_FILTER_AND || filter->op == IQDB_FILTER_OR || filter->op == IQDB_FILTER_NOT;
}

/* What has no children: a test, or what is true or false by itself. *out_entry is where it begins. */
static bool iq_filter_put_leaf(iq_filter_maker *maker, const iqdb_filter *filter, uint32_t on_true, uint32_t on_false,
                               uint32_t *out_entry) {
    if (filter->op == IQDB_FILTER_ALL || filter->op == IQDB_FILTER_AND || filter->op == IQDB_FILTER_OR) {
        *out_entry = filter->op == IQDB_FILTER_OR ? on_false : on_true;
        return true;
    }
    if (filter->op < IQDB_FILTER_EQ || filter->op > IQDB_FILTER_CONTAINS_VALUE)
        return iq_filter_fail(maker, "the operator is unknown");
    *out_entry = (uint32_t)maker->step_count;
    return iq_filter_put_test(maker, filter, on_true, on_false);
}

static bool iq_filter_check_node(iq_filter_maker *maker, const iqdb_filter *filter, size_t depth) {
    maker->node_count += 1 + (filter->op == IQDB_FILTER_IN && filter->count <= IQDB_FILTER_IN_MAX ? filter->count : 0);
    if (maker->node_count > IQDB_FILTER_NODES_MAX)
        return iq_filter_fail(maker, "there are more than IQDB_FILTER_NODES_MAX tests, branches and values");
    if (maker->byte_count > IQDB_PAYLOAD_SIZE_MAX) return iq_filter_fail(maker, "the values are too large together");
    if (depth == IQDB_FILTER_DEPTH_MAX)
        return iq_filter_fail(maker, "the filter is nested deeper than IQDB_FILTER_DEPTH_MAX");
    if (!iq_filter_is_branch(filter)) return true;
    if (filter->children == NULL && filter->count > 0)
        return iq_filter_fail(maker, "the children of a branch are NULL");
    return filter->op != IQDB_FILTER_NOT || filter->count == 1 || iq_filter_fail(maker, "not takes one child");
}

/* Walks the filter; *out_entry is where its program begins. */
static bool iq_filter_walk(iq_filter_maker *maker, const iqdb_filter *filter, uint32_t *out_entry) {
    size_t depth = 0;
    uint32_t on_true = IQ_FILTER_ACCEPT, on_false = IQ_FILTER_REJECT, entry;
    for (;;) {
        if (!iq_filter_check_node(maker, filter, depth)) return false;
        if (iq_filter_is_branch(filter) && filter->count > 0) {
            iq_filter_frame *frame = &maker->frames[depth++];
            frame->branch = filter;
            frame->left = filter->count;
            frame->on_true = on_true;
            frame->on_false = on_false;
            frame->entry = filter->op == IQDB_FILTER_OR ? on_false : on_true;
        } else {
            if (!iq_filter_put_leaf(maker, filter, on_true, on_false, &entry)) return false;
            while (depth > 0 && maker->frames[depth - 1].left == 0) depth--;
            if (depth == 0) break;
            maker->frames[depth - 1].entry = entry;
        }
        /* The next child to the left: where it does not decide, the evaluation goes on with its right neighbour. */
        iq_filter_frame *top = &maker->frames[depth - 1];
        const iqdb_filter_op op = top->branch->op;
        filter = &top->branch->children[--top->left];
        on_true = op == IQDB_FILTER_AND ? top->entry : op == IQDB_FILTER_OR ? top->on_true : top->on_false;
        on_false = op == IQDB_FILTER_AND ? top->on_false : op == IQDB_FILTER_OR ? top->entry : top->on_true;
    }
    *out_entry = entry;
    return true;
}

static void iq_filter_maker_begin(iq_filter_maker *maker) {
    maker->steps = NULL;
    maker->operands = NULL;
    maker->bytes = NULL;
    maker->step_count = maker->operand_count = maker->node_count = 0;
    maker->byte_count = 0;
    maker->why = NULL;
}

IQ_FN const char *iq_filter_measure(const iqdb_filter *filter, iq_filter_layout *out_layout) {
    iq_filter_maker maker;
    uint32_t entry;
    iq_filter_maker_begin(&maker);
    if (!iq_filter_walk(&maker, filter, &entry)) return maker.why;
    if (maker.byte_count > IQDB_PAYLOAD_SIZE_MAX) return "the values are too large together";
    out_layout->step_count = maker.step_count;
    out_layout->operand_count = maker.operand_count;
    out_layout->byte_count = (size_t)maker.byte_count;
    out_layout->size_bytes = maker.step_count * sizeof(iq_filter_step) +
                             maker.operand_count * sizeof(iq_filter_operand) + (size_t)maker.byte_count + 1;
    return NULL;
}

IQ_FN void iq_filter_compile(const iqdb_filter *filter, const iq_filter_layout *layout, void *memory, iq_filter *out) {
    iq_filter_maker maker;
    iq_filter_maker_begin(&maker);
    maker.steps = (iq_filter_step *)memory;
    maker.operands = (iq_filter_operand *)(void *)(maker.steps + layout->step_count);
    maker.bytes = (uint8_t *)(maker.operands + layout->operand_count);
    out->steps = maker.steps;
    out->entry = IQ_FILTER_REJECT;
    (void)iq_filter_walk(&maker, filter, &out->entry);
}

/* ---- Evaluating ---- */

/* Whether one of the sorted operands equals the value. */
static bool iq_filter_is_among(const iq_filter_step *step, const uint8_t *value, size_t size) {
    uint32_t low = 0, high = step->operand_count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const unsigned order = iq_filter_order_all(value, size, &step->operands[middle]);
        if (order == IQ_ORDER_EQUAL) return true;
        if (order == IQ_ORDER_LESS)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}

static bool iq_filter_array_contains(const iq_filter_operand *operand, const uint8_t *value, size_t size) {
    iq_container array;
    const uint8_t *item;
    size_t item_size;
    if (value[0] != IQDB_TYPE_ARRAY || !iq_container_open(value + 1, size - 1, false, &array)) return false;
    for (uint32_t i = 0; i < array.count; i++)
        if (iq_container_item(&array, i, &item, &item_size) &&
            iq_filter_order(item, item_size, operand) == IQ_ORDER_EQUAL)
            return true;
    return false;
}

/* memcmp for few bytes, without the call: keys are short. */
IQ_INLINE bool iq_filter_is_same(const uint8_t *a, const char *b, size_t size) {
    uint64_t a_first, b_first, a_last, b_last;
    if (size < 8 || size > 16) return memcmp(a, b, size) == 0;
    memcpy(&a_first, a, 8);
    memcpy(&b_first, b, 8);
    memcpy(&a_last, a + size - 8, 8);
    memcpy(&b_last, b + size - 8, 8);
    return a_first == b_first && a_last == b_last;
}

/* The value of a step's key. Records of a collection mostly have the same keys, so the place where it was found last is
 * tried first. */
static bool iq_filter_find(iq_filter_step *step, const iq_container *fields, const uint8_t **out_value,
                           size_t *out_size) {
    const uint8_t *item;
    size_t size, index = IQ_ATOMIC_LOAD(&step->index);
    if (!iq_container_item(fields, index, &item, &size) || size < step->key_size + 2 ||
        !iq_filter_is_same(item, step->key, step->key_size + 1)) {
        if (!iq_container_find(fields, step->key, step->key_size, &index) ||
            !iq_container_item(fields, index, &item, &size) || size < step->key_size + 2)
            return step->has_dot && iq_container_get(fields, step->key, step->key_size, out_value, out_size);
        IQ_ATOMIC_STORE(&step->index, (uint32_t)index);
    }
    *out_value = item + step->key_size + 1;
    *out_size = size - step->key_size - 1;
    return true;
}

static bool iq_filter_step_holds(iq_filter_step *step, const iq_container *fields) {
    const uint8_t *value;
    size_t size;
    if (!iq_filter_find(step, fields, &value, &size)) return false;
    const iq_filter_operand *operand = step->operands;
    if (step->orders != 0) return (iq_filter_order(value, size, operand) & step->orders) != 0;
    switch (step->op) {
    case IQDB_FILTER_IS_NULL:
        return value[0] == IQDB_TYPE_NULL;
    case IQDB_FILTER_BETWEEN:
        return (iq_filter_order(value, size, operand) & (IQ_ORDER_GREATER | IQ_ORDER_EQUAL)) != 0 &&
               (iq_filter_order(value, size, operand + 1) & (IQ_ORDER_LESS | IQ_ORDER_EQUAL)) != 0;
    case IQDB_FILTER_IN:
        return iq_filter_is_among(step, value, size);
    case IQDB_FILTER_PREFIX: /* all of the operand but its NUL; a text of that size has one byte more */
        return size >= operand->size && memcmp(value, operand->bytes, operand->size - 1) == 0;
    case IQDB_FILTER_CONTAINS_VALUE:
        return iq_filter_array_contains(operand, value, size);
    default: /* EXISTS */
        return true;
    }
}

IQ_FN bool iq_filter_accepts(const iq_filter *filter, iqdb_payload payload) {
    iq_container fields;
    if (!iq_container_open(payload.bytes, payload.size, true, &fields)) memset(&fields, 0, sizeof fields);
    uint32_t at = filter->entry;
    while (at < IQ_FILTER_REJECT) {
        iq_filter_step *step = &filter->steps[at];
        at = iq_filter_step_holds(step, &fields) ? step->on_true : step->on_false;
    }
    return at == IQ_FILTER_ACCEPT;
}

/* ======== [store/filter_text.c] ======== */
/* Filters from text; the manual has the grammar.
 *
 * 1. Two passes of the same code: the first counts, the second builds into memory that is known to suffice.
 * 2. No recursion: what stands in open parentheses is on a stack of IQDB_FILTER_DEPTH_MAX frames. Finished parts wait on
 *    a stack of nodes until it is known what they are children of; then they move, side by side, to where they stay.
 * 3. What is accepted can be compiled: every limit that a text can break is met here, where its place is known. */

#if !defined(IQDB_NO_TEXT)

/* An open parenthesis, and the whole. */
typedef struct iq_filter_group {
    uint32_t nots;         /* before the part to come */
    uint32_t parts;        /* joined by `and`, so far */
    uint32_t eithers;      /* joined by `or`, so far; the parts are not among them yet */
    uint32_t part_depth;   /* of the deepest of the parts */
    uint32_t either_depth; /* of the deepest of the eithers */
} iq_filter_group;

typedef struct iq_filter_reader {
    const char *text;
    size_t size;
    size_t at; /* what comes next; after a failure where it is */
    const char *why;
    iqdb_filter *nodes; /* NULL: measuring */
    size_t node_count;
    iqdb_filter *stack;
    size_t stack_count, stack_max;
    iqdb_value *values;
    size_t value_count;
    char *chars;
    size_t char_count;
    size_t depth;
    iq_filter_group groups[IQDB_FILTER_DEPTH_MAX + 1];
} iq_filter_reader;

static bool iq_reader_fail(iq_filter_reader *reader, size_t at, const char *why) {
    reader->at = at;
    reader->why = why;
    return false;
}

/* ---- Words ---- */

static bool iq_is_word_start(char c) {
    const uint8_t u = (uint8_t)c;
    return (u >= 'a' && u <= 'z') || (u >= 'A' && u <= 'Z') || u == '_' || u == '$' || u >= 0x80;
}

static char iq_reader_peek(const iq_filter_reader *reader) {
    return reader->at < reader->size ? reader->text[reader->at] : 0;
}

static void iq_reader_skip_space(iq_filter_reader *reader) {
    while (reader->at < reader->size) {
        const char c = reader->text[reader->at];
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r') break;
        reader->at++;
    }
}

/* Bytes of the bare word that comes next, 0 where none does. */
static size_t iq_reader_word(const iq_filter_reader *reader) {
    size_t end = reader->at;
    if (end == reader->size || !iq_is_word_start(reader->text[end])) return 0;
    while (end < reader->size) {
        const char c = reader->text[end];
        if (!iq_is_word_start(c) && !(c >= '0' && c <= '9') && c != '.' && c != '-') break;
        end++;
    }
    return end - reader->at;
}

static bool iq_word_is(const char *text, size_t size, const char *word) {
    for (size_t i = 0; i < size; i++) {
        const char c = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] - 'A' + 'a') : text[i];
        if (word[i] == 0 || c != word[i]) return false;
    }
    return word[size] == 0;
}

/* Steps over `word` where it comes next. */
static bool iq_reader_take_word(iq_filter_reader *reader, const char *word) {
    iq_reader_skip_space(reader);
    const size_t size = iq_reader_word(reader);
    if (!iq_word_is(reader->text + reader->at, size, word)) return false;
    reader->at += size;
    return true;
}

static bool iq_reader_take_sign(iq_filter_reader *reader, char sign) {
    iq_reader_skip_space(reader);
    if (reader->at == reader->size || reader->text[reader->at] != sign) return false;
    reader->at++;
    return true;
}

static bool iq_word_is_reserved(const char *text, size_t size) {
    static const char *const words[] = {"and",      "or",     "not", "between", "in",   "prefix",
                                        "contains", "exists", "is",  "null",    "true", "false"};
    for (size_t i = 0; i < IQ_COUNT_OF(words); i++)
        if (iq_word_is(text, size, words[i])) return true;
    return false;
}

/* ---- Keys and values ---- */

/* Room for the characters; NULL while measuring. */
static char *iq_reader_room(iq_filter_reader *reader, size_t size) {
    char *room = reader->chars == NULL ? NULL : reader->chars + reader->char_count;
    reader->char_count += size;
    return room;
}

/* What stands between two quotes, the first of which comes next; a doubled one counts as one. A NUL follows it. */
static bool iq_reader_take_quoted(iq_filter_reader *reader, const char **out_text, size_t *out_size) {
    const size_t begin = reader->at;
    const char quote = reader->text[begin];
    size_t size = 0, end = begin + 1;
    for (;; end++, size++) {
        if (end >= reader->size) return iq_reader_fail(reader, begin, "the quotes are not closed");
        if (reader->text[end] != quote) continue;
        if (end + 1 == reader->size || reader->text[end + 1] != quote) break;
        end++;
    }
    if (!iq_utf8_is_valid(reader->text + begin + 1, end - begin - 1))
        return iq_reader_fail(reader, begin, "what stands in quotes is not UTF-8");
    char *room = iq_reader_room(reader, size + 1);
    *out_text = room;
    *out_size = size;
    reader->at = end + 1;
    if (room == NULL) return true;
    for (size_t i = begin + 1; i < end; i++) {
        *room++ = reader->text[i];
        i += reader->text[i] == quote;
    }
    *room = 0;
    return true;
}

static bool iq_reader_take_key(iq_filter_reader *reader, const char **out_key) {
    const size_t begin = reader->at;
    size_t size;
    if (iq_reader_peek(reader) == '"') {
        if (!iq_reader_take_quoted(reader, out_key, &size)) return false;
        if (memchr(reader->text + begin, 0, reader->at - begin) != NULL)
            return iq_reader_fail(reader, begin, "a key cannot hold U+0000");
        return true;
    }
    size = iq_reader_word(reader);
    if (size == 0) return iq_reader_fail(reader, begin, "a key is expected, or not, or a parenthesis");
    if (iq_word_is_reserved(reader->text + begin, size))
        return iq_reader_fail(reader, begin, "a key is expected; one of this name goes in double quotes");
    if (!iq_utf8_is_valid(reader->text + begin, size)) return iq_reader_fail(reader, begin, "the key is not UTF-8");
    char *room = iq_reader_room(reader, size + 1);
    *out_key = room;
    reader->at += size;
    if (room == NULL) return true;
    memcpy(room, reader->text + begin, size);
    room[size] = 0;
    return true;
}

static bool iq_reader_take_text(iq_filter_reader *reader, iqdb_value *out) {
    const char *text;
    size_t size;
    iq_reader_skip_space(reader);
    if (iq_reader_peek(reader) != '\'')
        return iq_reader_fail(reader, reader->at, "a text in single quotes is expected");
    if (!iq_reader_take_quoted(reader, &text, &size)) return false;
    *out = iqdb_text_n(text, size);
    return true;
}

/* x'00ff', whose x comes next. */
static bool iq_reader_take_bytes(iq_filter_reader *reader, iqdb_value *out) {
    const size_t begin = reader->at;
    size_t end = begin + 2;
    while (end < reader->size && iq_hex_digit(reader->text[end]) >= 0) end++;
    const size_t size = (end - begin - 2) / 2;
    if (end == reader->size || reader->text[end] != '\'' || (end - begin) % 2 != 0)
        return iq_reader_fail(reader, begin, "x'...' wants pairs of hexadecimal digits");
    char *room = iq_reader_room(reader, size);
    for (size_t i = 0; room != NULL && i < size; i++)
        room[i] =
            (char)(iq_hex_digit(reader->text[begin + 2 + 2 * i]) << 4 | iq_hex_digit(reader->text[begin + 3 + 2 * i]));
    *out = iqdb_bytes(room, size);
    reader->at = end + 1;
    return true;
}

static bool iq_reader_take_value(iq_filter_reader *reader, iqdb_value *out) {
    iq_reader_skip_space(reader);
    const char c = iq_reader_peek(reader);
    if (c == '\'') return iq_reader_take_text(reader, out);
    if ((c == 'x' || c == 'X') && reader->size - reader->at > 1 && reader->text[reader->at + 1] == '\'')
        return iq_reader_take_bytes(reader, out);
    *out = iqdb_null();
    if (iq_reader_take_word(reader, "null")) return true;
    *out = iqdb_bool(true);
    if (iq_reader_take_word(reader, "true")) return true;
    *out = iqdb_bool(false);
    if (iq_reader_take_word(reader, "false")) return true;
    const size_t size = iq_number_read(reader->text + reader->at, reader->size - reader->at, out);
    if (size == 0)
        return iq_reader_fail(reader, reader->at, "a value is expected: 'text', a number, true, false, null");
    if (out->type == IQDB_TYPE_ABSENT) return iq_reader_fail(reader, reader->at, "the number is too large");
    reader->at += size;
    return true;
}

/* ---- Tests ---- */

static bool iq_reader_take_list(iq_filter_reader *reader, iqdb_filter *out) {
    const size_t first = reader->value_count;
    if (!iq_reader_take_sign(reader, '(')) return iq_reader_fail(reader, reader->at, "in wants a list in parentheses");
    bool more = !iq_reader_take_sign(reader, ')');
    while (more) {
        iqdb_value value;
        iq_reader_skip_space(reader);
        if (reader->value_count - first == IQDB_FILTER_IN_MAX)
            return iq_reader_fail(reader, reader->at, "there are more than IQDB_FILTER_IN_MAX values in the list");
        if (!iq_reader_take_value(reader, &value)) return false;
        if (reader->values != NULL) reader->values[reader->value_count] = value;
        reader->value_count++;
        more = !iq_reader_take_sign(reader, ')');
        if (more && !iq_reader_take_sign(reader, ','))
            return iq_reader_fail(reader, reader->at, "a comma or the end of the list is expected");
    }
    out->values = reader->values == NULL ? NULL : reader->values + first;
    out->count = reader->value_count - first;
    return true;
}

/* The sign of a comparison; ALL where there is none. */
static iqdb_filter_op iq_reader_take_comparison(iq_filter_reader *reader) {
    const char c = iq_reader_peek(reader);
    const char next = reader->size - reader->at > 1 ? reader->text[reader->at + 1] : (char)0;
    if (c == '=' || (c == '!' && next == '=') || (c == '<' && next == '>')) {
        reader->at += c == '=' && next != '=' ? 1 : 2;
        return c == '=' ? IQDB_FILTER_EQ : IQDB_FILTER_NE;
    }
    if (c != '<' && c != '>') return IQDB_FILTER_ALL;
    reader->at += next == '=' ? 2 : 1;
    if (c == '<') return next == '=' ? IQDB_FILTER_LE : IQDB_FILTER_LT;
    return next == '=' ? IQDB_FILTER_GE : IQDB_FILTER_GT;
}

static bool iq_reader_take_test(iq_filter_reader *reader, iqdb_filter *out) {
    const char *key = NULL;
    *out = iqdb_filter_default();
    if (!iq_reader_take_key(reader, &key)) return false;
    out->key = key;
    iq_reader_skip_space(reader);
    const size_t begin = reader->at;
    out->op = iq_reader_take_comparison(reader);
    if (out->op != IQDB_FILTER_ALL) return iq_reader_take_value(reader, &out->value);
    if (iq_reader_take_word(reader, "exists")) {
        out->op = IQDB_FILTER_EXISTS;
        return true;
    }
    if (iq_reader_take_word(reader, "is")) {
        out->op = IQDB_FILTER_IS_NULL;
        return iq_reader_take_word(reader, "null") ||
               iq_reader_fail(reader, reader->at, "null is expected; the contrary is: not key is null");
    }
    if (iq_reader_take_word(reader, "in")) {
        out->op = IQDB_FILTER_IN;
        return iq_reader_take_list(reader, out);
    }
    if (iq_reader_take_word(reader, "prefix")) {
        out->op = IQDB_FILTER_PREFIX;
        return iq_reader_take_text(reader, &out->value);
    }
    if (iq_reader_take_word(reader, "contains")) {
        out->op = IQDB_FILTER_CONTAINS_VALUE;
        return iq_reader_take_value(reader, &out->value);
    }
    if (iq_reader_take_word(reader, "between")) {
        out->op = IQDB_FILTER_BETWEEN;
        if (!iq_reader_take_value(reader, &out->value)) return false;
        if (!iq_reader_take_word(reader, "and"))
            return iq_reader_fail(reader, reader->at, "between wants: low and high");
        return iq_reader_take_value(reader, &out->high);
    }
    return iq_reader_fail(reader, begin, "a comparison is expected, or in, between, prefix, contains, exists, is null");
}

/* ---- The filter ---- */

static void iq_reader_push(iq_filter_reader *reader, const iqdb_filter *node) {
    if (reader->nodes != NULL) reader->stack[reader->stack_count] = *node;
    reader->stack_count++;
    if (reader->stack_count > reader->stack_max) reader->stack_max = reader->stack_count;
}

/* The last `count` nodes become children of a new one. */
static void iq_reader_join(iq_filter_reader *reader, iqdb_filter_op op, size_t count) {
    iqdb_filter node = iqdb_filter_default();
    reader->stack_count -= count;
    if (reader->nodes != NULL) {
        node.children = reader->nodes + reader->node_count;
        memcpy(reader->nodes + reader->node_count, reader->stack + reader->stack_count, count * sizeof node);
    }
    reader->node_count += count;
    node.op = op;
    node.count = count;
    iq_reader_push(reader, &node);
}

/* A part of this depth is complete, but for the `not`s before it. */
static bool iq_reader_end_part(iq_filter_reader *reader, uint32_t depth) {
    iq_filter_group *group = &reader->groups[reader->depth - 1];
    depth += group->nots;
    for (; group->nots > 0; group->nots--) iq_reader_join(reader, IQDB_FILTER_NOT, 1);
    group->parts++;
    if (depth > group->part_depth) group->part_depth = depth;
    /* Each open group may still become two nodes. */
    const size_t nodes = reader->node_count + reader->stack_count + 2 * reader->depth;
    if (nodes + reader->value_count > IQDB_FILTER_NODES_MAX)
        return iq_reader_fail(reader, reader->at, "there are too many tests and values");
    return depth <= IQDB_FILTER_DEPTH_MAX ||
           iq_reader_fail(reader, reader->at, "the filter is nested deeper than IQDB_FILTER_DEPTH_MAX");
}

/* An `or` or the end of the group: the parts become one either. */
static void iq_reader_end_either(iq_filter_reader *reader) {
    iq_filter_group *group = &reader->groups[reader->depth - 1];
    const uint32_t depth = group->part_depth + (group->parts > 1);
    if (group->parts > 1) iq_reader_join(reader, IQDB_FILTER_AND, group->parts);
    group->parts = 0;
    group->part_depth = 0;
    group->eithers++;
    if (depth > group->either_depth) group->either_depth = depth;
}

/* The group becomes one node; its depth. */
static uint32_t iq_reader_end_group(iq_filter_reader *reader) {
    iq_reader_end_either(reader);
    const iq_filter_group *group = &reader->groups[--reader->depth];
    if (group->eithers > 1) iq_reader_join(reader, IQDB_FILTER_OR, group->eithers);
    return group->either_depth + (group->eithers > 1);
}

static bool iq_reader_begin_group(iq_filter_reader *reader) {
    if (reader->depth > IQDB_FILTER_DEPTH_MAX)
        return iq_reader_fail(reader, reader->at, "there are more than IQDB_FILTER_DEPTH_MAX open parentheses");
    memset(&reader->groups[reader->depth++], 0, sizeof reader->groups[0]);
    return true;
}

/* `not`s, parentheses, and one test. */
static bool iq_reader_take_part(iq_filter_reader *reader) {
    iqdb_filter test;
    for (;;) {
        iq_filter_group *group = &reader->groups[reader->depth - 1];
        iq_reader_skip_space(reader);
        const size_t begin = reader->at;
        if (iq_reader_take_word(reader, "not")) {
            if (++group->nots == IQDB_FILTER_DEPTH_MAX)
                return iq_reader_fail(reader, begin, "the filter is nested deeper than IQDB_FILTER_DEPTH_MAX");
        } else if (iq_reader_peek(reader) == '(') {
            if (!iq_reader_begin_group(reader)) return false;
            reader->at++;
        } else {
            break;
        }
    }
    if (!iq_reader_take_test(reader, &test)) return false;
    iq_reader_push(reader, &test);
    return iq_reader_end_part(reader, 1);
}

static bool iq_reader_take_filter(iq_filter_reader *reader) {
    /* What is made of a text is hardly longer, and within what a program may hold. */
    if (reader->size > IQDB_PAYLOAD_SIZE_MAX / 2) return iq_reader_fail(reader, 0, "the text is too long");
    (void)iq_reader_begin_group(reader);
    for (;;) {
        if (!iq_reader_take_part(reader)) return false;
        while (iq_reader_take_sign(reader, ')')) {
            if (reader->depth == 1) return iq_reader_fail(reader, reader->at - 1, "no parenthesis is open");
            if (!iq_reader_end_part(reader, iq_reader_end_group(reader))) return false;
        }
        if (iq_reader_take_word(reader, "and")) continue;
        if (reader->at == reader->size) break;
        if (!iq_reader_take_word(reader, "or"))
            return iq_reader_fail(reader, reader->at, "and, or, or the end is expected");
        iq_reader_end_either(reader);
    }
    if (reader->depth > 1) return iq_reader_fail(reader, reader->at, "a parenthesis is not closed");
    return iq_reader_end_group(reader) <= IQDB_FILTER_DEPTH_MAX ||
           iq_reader_fail(reader, reader->at, "the filter is nested deeper than IQDB_FILTER_DEPTH_MAX");
}

/* Shares `memory` out by what has been counted, and begins again. */
static void iq_reader_rewind(iq_filter_reader *reader, uint8_t *memory) {
    reader->nodes = (iqdb_filter *)(void *)memory;
    reader->stack = reader->nodes + reader->node_count;
    reader->values = (iqdb_value *)(void *)(reader->stack + reader->stack_max);
    reader->chars = (char *)(reader->values + reader->value_count);
    reader->at = reader->depth = 0;
    reader->node_count = reader->stack_count = reader->value_count = reader->char_count = 0;
}

IQDB_API iqdb_result iqdb_filter_parse(const char *text, size_t size, iqdb_buffer *buffer, iqdb_filter *out_filter,
                                       iqdb_error *out_error) {
    iq_filter_reader reader;
    uint8_t *memory;
    if (buffer == NULL || out_filter == NULL || (text == NULL && size > 0)) return IQDB_ERR_INVALID_ARGUMENT;
    if (iq_buffer_overlaps(buffer, text, size)) return IQDB_ERR_INVALID_ARGUMENT;
    memset(&reader, 0, sizeof reader);
    reader.text = text == NULL ? "" : text;
    reader.size = size;
    buffer->used = buffer->needed = 0;
    iqdb_result result = iq_reader_take_filter(&reader) ? IQDB_OK : IQDB_ERR_INVALID_FILTER;
    if (result == IQDB_OK) {
        reader.why = "the buffer cannot be as large as it would have to be";
        result = iq_buffer_start(buffer,
                                 (reader.node_count + reader.stack_max) * sizeof(iqdb_filter) +
                                     reader.value_count * sizeof(iqdb_value) + reader.char_count,
                                 &memory);
    }
    if (result != IQDB_OK) {
        if (out_error != NULL) *out_error = iq_error_make(result, NULL, reader.at, reader.why);
        return result;
    }
    iq_reader_rewind(&reader, memory);
    (void)iq_reader_take_filter(&reader);
    *out_filter = reader.stack[0];
    return IQDB_OK;
}

#endif

/* ======== [store/heap.h] ======== */
/* The payload heap: a space of 64-bit references over 64 KiB pages, so that a reference means the same in memory and in
 * a snapshot. Blocks never move. */

#define IQ_HEAP_PAGE_SIZE 65536u
#define IQ_HEAP_FIRST_REF 8u /* reference 0 means none */
#define IQ_HEAP_CLASS_COUNT 264u

typedef struct iq_heap_region {
    uint8_t *bytes;
    size_t size;
} iq_heap_region;

typedef struct iq_heap {
    const iqdb_allocator *allocator;
    uint8_t **pages; /* atomic: a table; page i of the space: references [i * 64 KiB, (i + 1) * 64 KiB) */
    size_t page_count;
    iq_heap_region *regions; /* a table; what was allocated: runs of pages */
    size_t region_count;
    uint64_t cursor, cursor_end;             /* unused rest of the newest small region */
    uint64_t free_refs[IQ_HEAP_CLASS_COUNT]; /* free blocks by size, chained through their first bytes */
    uint64_t bytes;                          /* held by regions */
} iq_heap;

IQ_FN void iq_heap_init(iq_heap *heap, const iqdb_allocator *allocator);
IQ_FN void iq_heap_free(iq_heap *heap);

/* What a block of `size` payload bytes takes: 4 bytes of length, the payload, and zeros to the next block size. */
IQ_FN uint64_t iq_heap_block_size(size_t size);

/* A block for `size` bytes (at most IQDB_PAYLOAD_SIZE_MAX); its bytes are to be written by the caller. */
IQ_FN iqdb_result iq_heap_take(iq_heap *heap, size_t size, uint64_t *out_ref, uint8_t **out_bytes);
IQ_FN void iq_heap_give_back(iq_heap *heap, uint64_t ref);

/* The payload of a reference; 0 gives the absent payload. */
IQ_FN iqdb_payload iq_heap_payload(const iq_heap *heap, uint64_t ref);

/* Memory for a stored heap of `size` bytes in an empty heap: to be filled, references are offsets into it. */
IQ_FN iqdb_result iq_heap_adopt(iq_heap *heap, size_t size, uint8_t **out_bytes);
/* The same for a heap that is in memory already, which stays where it is until this one is freed and is only read. */
IQ_FN iqdb_result iq_heap_borrow(iq_heap *heap, uint8_t *bytes, size_t size);
/* Sets the payload size of an adopted block, which files keep little-endian, to the machine's form. */
IQ_FN void iq_heap_fix_size(iq_heap *heap, uint64_t ref, uint32_t size);

/* ======== [store/heap.c] ======== */
/* The payload heap.
 *
 * 1. A block is [u32 payload size][payload][slack]; its extent follows from the payload size alone, so a block from a
 *    snapshot and one made here are freed alike.
 * 2. Block sizes are multiples of 8 up to 1 KiB, then eight steps a doubling; a freed block serves only its own size,
 *    so the heap does not fragment under records of steady sizes.
 * 3. A block lies in one region; the pages of a region are contiguous in memory and in the reference space.
 * 4. A block in use does not change, so whoever was shown its reference reads it without a lock. */

#define IQ_HEAP_FINE_MAX 1024u
#define IQ_HEAP_FINE_COUNT 128u           /* multiples of 8 up to IQ_HEAP_FINE_MAX */
#define IQ_HEAP_REGION_PAGES_MAX 64u      /* 4 MiB */
#define IQ_HEAP_LARGE_SIZE (256u * 1024u) /* from here on a block has a region of its own */

IQ_STATIC_ASSERT(IQ_HEAP_FINE_COUNT + 8 * (26 - 10 + 1) <= IQ_HEAP_CLASS_COUNT, every_payload_has_a_class);

IQ_FN void iq_heap_init(iq_heap *heap, const iqdb_allocator *allocator) {
    memset(heap, 0, sizeof *heap);
    heap->allocator = allocator;
}

IQ_FN void iq_heap_free(iq_heap *heap) {
    for (size_t i = 0; i < heap->region_count; i++)
        iq_pages_free(heap->allocator, heap->regions[i].bytes, heap->regions[i].size);
    iq_table_free(heap->allocator, heap->regions);
    iq_table_free(heap->allocator, heap->pages);
    iq_heap_init(heap, heap->allocator);
}

/* The class of a payload size and the bytes of its blocks. */
static unsigned iq_heap_class(size_t size, uint64_t *out_block_size) {
    const uint64_t need = ((uint64_t)size + 4 + 7) & ~(uint64_t)7;
    if (need <= IQ_HEAP_FINE_MAX) {
        *out_block_size = need;
        return (unsigned)(need / 8 - 1);
    }
    unsigned doubling = 0;
    uint64_t base = IQ_HEAP_FINE_MAX;
    while (base * 2 < need) {
        base *= 2;
        doubling++;
    }
    const uint64_t step = base / 8;
    const uint64_t steps = (need - base + step - 1) / step; /* 1 to 8 */
    *out_block_size = base + steps * step;
    return IQ_HEAP_FINE_COUNT + doubling * 8 + (unsigned)steps - 1;
}

IQ_FN uint64_t iq_heap_block_size(size_t size) {
    uint64_t block_size;
    (void)iq_heap_class(size, &block_size);
    return block_size;
}

static uint8_t *iq_heap_at(const iq_heap *heap, uint64_t ref) {
    uint8_t *const *pages = IQ_ATOMIC_LOAD(&heap->pages);
    return pages[ref / IQ_HEAP_PAGE_SIZE] + ref % IQ_HEAP_PAGE_SIZE;
}

/* Adds a region at the end of the space and returns its first reference. */
static iqdb_result iq_heap_add_region(iq_heap *heap, size_t page_count, uint64_t *out_ref) {
    uint8_t **pages = (uint8_t **)iq_table_reserve(heap->allocator, heap->pages, heap->page_count * sizeof(uint8_t *),
                                                   page_count * sizeof(uint8_t *));
    if (pages == NULL) return IQDB_ERR_NOMEM;
    IQ_ATOMIC_STORE(&heap->pages, pages);
    iq_heap_region *regions = (iq_heap_region *)iq_table_reserve(
        heap->allocator, heap->regions, heap->region_count * sizeof(iq_heap_region), sizeof(iq_heap_region));
    if (regions == NULL) return IQDB_ERR_NOMEM;
    heap->regions = regions;
    size_t size;
    if (!iq_mul(page_count, IQ_HEAP_PAGE_SIZE, &size)) return IQDB_ERR_NOMEM;
    uint8_t *bytes = (uint8_t *)iq_pages_alloc(heap->allocator, size);
    if (bytes == NULL) return IQDB_ERR_NOMEM;
    heap->regions[heap->region_count].bytes = bytes;
    heap->regions[heap->region_count].size = size;
    heap->region_count++;
    *out_ref = (uint64_t)heap->page_count * IQ_HEAP_PAGE_SIZE;
    for (size_t i = 0; i < page_count; i++) pages[heap->page_count++] = bytes + i * IQ_HEAP_PAGE_SIZE;
    heap->bytes += size;
    return IQDB_OK;
}

static iqdb_result iq_heap_take_fresh(iq_heap *heap, uint64_t block_size, uint64_t *out_ref) {
    if (block_size >= IQ_HEAP_LARGE_SIZE) {
        const size_t pages = (size_t)((block_size + IQ_HEAP_FIRST_REF + IQ_HEAP_PAGE_SIZE - 1) / IQ_HEAP_PAGE_SIZE);
        const iqdb_result result = iq_heap_add_region(heap, pages, out_ref);
        *out_ref += IQ_HEAP_FIRST_REF; /* only the first region needs it; always is simpler */
        return result;
    }
    if (heap->cursor_end - heap->cursor < block_size) {
        size_t pages = heap->page_count / 4; /* grow by a quarter */
        const size_t least = (size_t)((block_size + IQ_HEAP_FIRST_REF + IQ_HEAP_PAGE_SIZE - 1) / IQ_HEAP_PAGE_SIZE);
        if (pages < least) pages = least;
        if (pages > IQ_HEAP_REGION_PAGES_MAX) pages = IQ_HEAP_REGION_PAGES_MAX;
        uint64_t first;
        const iqdb_result result = iq_heap_add_region(heap, pages, &first);
        if (result != IQDB_OK) return result;
        heap->cursor = first + IQ_HEAP_FIRST_REF;
        heap->cursor_end = first + (uint64_t)pages * IQ_HEAP_PAGE_SIZE;
    }
    *out_ref = heap->cursor;
    heap->cursor += block_size;
    return IQDB_OK;
}

IQ_FN iqdb_result iq_heap_take(iq_heap *heap, size_t size, uint64_t *out_ref, uint8_t **out_bytes) {
    uint64_t block_size;
    const unsigned class_index = iq_heap_class(size, &block_size);
    uint64_t ref = heap->free_refs[class_index];
    if (ref != 0) {
        memcpy(&heap->free_refs[class_index], iq_heap_at(heap, ref), sizeof ref);
    } else {
        const iqdb_result result = iq_heap_take_fresh(heap, block_size, &ref);
        if (result != IQDB_OK) return result;
    }
    const uint32_t stored_size = (uint32_t)size;
    uint8_t *block = iq_heap_at(heap, ref);
    memcpy(block, &stored_size, sizeof stored_size);
    *out_ref = ref;
    *out_bytes = block + 4;
    return IQDB_OK;
}

IQ_FN void iq_heap_give_back(iq_heap *heap, uint64_t ref) {
    if (ref == 0) return;
    uint64_t block_size;
    const unsigned class_index = iq_heap_class(iq_heap_payload(heap, ref).size, &block_size);
    memcpy(iq_heap_at(heap, ref), &heap->free_refs[class_index], sizeof ref);
    heap->free_refs[class_index] = ref;
}

IQ_FN iqdb_payload iq_heap_payload(const iq_heap *heap, uint64_t ref) {
    iqdb_payload payload;
    payload.bytes = NULL;
    payload.size = 0;
    if (ref != 0) {
        const uint8_t *block = iq_heap_at(heap, ref);
        uint32_t size;
        memcpy(&size, block, sizeof size);
        payload.bytes = block + 4;
        payload.size = size;
    }
    return payload;
}

IQ_FN iqdb_result iq_heap_adopt(iq_heap *heap, size_t size, uint8_t **out_bytes) {
    IQ_ASSERT(heap->page_count == 0);
    uint64_t first;
    const iqdb_result result = iq_heap_add_region(heap, (size - 1) / IQ_HEAP_PAGE_SIZE + 1, &first);
    if (result != IQDB_OK) return result;
    *out_bytes = heap->regions[heap->region_count - 1].bytes;
    return IQDB_OK;
}

IQ_FN iqdb_result iq_heap_borrow(iq_heap *heap, uint8_t *bytes, size_t size) {
    IQ_ASSERT(heap->page_count == 0);
    const size_t count = (size - 1) / IQ_HEAP_PAGE_SIZE + 1;
    uint8_t **pages = (uint8_t **)iq_table_reserve(heap->allocator, heap->pages, 0, count * sizeof(uint8_t *));
    if (pages == NULL) return IQDB_ERR_NOMEM;
    IQ_ATOMIC_STORE(&heap->pages, pages);
    for (size_t i = 0; i < count; i++) pages[heap->page_count++] = bytes + i * IQ_HEAP_PAGE_SIZE;
    return IQDB_OK;
}

IQ_FN void iq_heap_fix_size(iq_heap *heap, uint64_t ref, uint32_t size) {
    memcpy(iq_heap_at(heap, ref), &size, sizeof size);
}

/* ======== [store/rows.h] ======== */
/* Records in memory: rows in slabs that never move. What a scan streams of a row (vector, norm) stands in arrays of its
 * own; all else in its head, so that a look at one row costs one cache miss beside its vector. A vector never changes
 * in place: a replacement is a new row, and the old one is buried by its death. One thread writes; any number read what
 * it has filled. */

#define IQ_ROW_NONE 0xFFFFFFFFu
#define IQ_ROW_COUNT_MAX 0xFFFFFFFEu

/* Rows per slab double from the first and then stay, so that a small database is small: 16, 16, 32, ... up to
 * 2^slab_shift, which is what fits in IQ_SLAB_BYTES_MAX, so that a large one has large pages, but at least 2^10. */
#define IQ_SLAB_ROWS_MIN 16u
#define IQ_SLAB_SHIFT_MIN 10u
#define IQ_SLAB_SHIFT_MAX 16u
#define IQ_SLAB_BYTES_MAX (8u << 20)

typedef struct iq_row_head {
    uint64_t id;
    uint64_t birth;    /* moment from which the row is seen; IQ_MOMENT_NEVER while free or staged */
    uint64_t death;    /* atomic: moment from which it is not; IQ_MOMENT_NEVER while live */
    uint64_t payload;  /* reference into the payload heap, 0 for none */
    uint32_t previous; /* atomic: older row of the same id, or the next free row; IQ_ROW_NONE ends either chain */
    uint32_t next;     /* the writer's: newer row of the same id */
} iq_row_head;

typedef struct iq_slab {
    float *vectors; /* 64-byte aligned, stride floats a row, zeros behind dim */
    float *norms;
    uint32_t *filled; /* atomic, a bit a row: the row may be read; 32 rows a word, the lowest bit first */
    iq_row_head *heads;
} iq_slab;

typedef struct iq_rows {
    const iqdb_allocator *allocator;
    uint32_t dim;  /* 0 until the first record */
    size_t stride; /* floats */
    uint32_t slab_shift;
    iq_slab *slabs; /* atomic: a table */
    size_t slab_count;
    uint32_t count; /* atomic, stored after the slab: rows ever used */
    uint32_t free_head, free_count;
    uint64_t bytes; /* held by slabs */
    iq_slab lent;   /* vectors and norms of all rows, where they are somebody else's and stay there; else NULL */
} iq_rows;

IQ_FN void iq_rows_init(iq_rows *rows, const iqdb_allocator *allocator);
IQ_FN void iq_rows_free(iq_rows *rows);
/* Only while there are no rows. */
IQ_FN void iq_rows_set_dim(iq_rows *rows, uint32_t dim);

/* Slabs for so many rows in all, at most IQ_ROW_COUNT_MAX; needs a dimension. NOMEM keeps those that were made. Where
 * `lent` is set, they get only heads, and no row may be taken. */
IQ_FN iqdb_result iq_rows_reserve(iq_rows *rows, uint32_t count);

/* A row that nobody sees, its vector zeroed behind dim: a free one, or a new one. NOMEM; LIMIT beyond
 * IQ_ROW_COUNT_MAX. */
IQ_FN iqdb_result iq_rows_take(iq_rows *rows, uint32_t *out_row);
/* Readers may read the row, which is written whole; or no new reader may. */
IQ_FN void iq_rows_set_filled(const iq_slab *slab, uint32_t index, bool filled);
/* A row that nobody can read any more. */
IQ_FN void iq_rows_give_back(iq_rows *rows, uint32_t row);

/* The first row in [from, end) of a slab that is filled, or that is not; `end` where there is none. */
IQ_FN uint32_t iq_slab_seek(const iq_slab *slab, uint32_t from, uint32_t end, bool filled);

/* The number of the slab a row lies in, and its place there. */
IQ_INLINE size_t iq_slab_of_row(const iq_rows *rows, uint32_t row, uint32_t *out_index) {
    const uint32_t whole = row >> rows->slab_shift;
    if (IQ_LIKELY(whole > 0)) {
        *out_index = row & ((UINT32_C(1) << rows->slab_shift) - 1);
        return (size_t)whole + rows->slab_shift - 4;
    }
    *out_index = row;
    if (row < IQ_SLAB_ROWS_MIN) return 0;
    const unsigned doublings = iq_log2_u32(row);
    *out_index = row - (UINT32_C(1) << doublings);
    return doublings - 3;
}
IQ_INLINE const iq_slab *iq_rows_slab(const iq_rows *rows, uint32_t row, uint32_t *out_index) {
    const iq_slab *slabs = IQ_ATOMIC_LOAD(&rows->slabs);
    return &slabs[iq_slab_of_row(rows, row, out_index)];
}

/* The number of rows of a slab, and its first row. */
IQ_INLINE uint32_t iq_slab_rows(const iq_rows *rows, size_t slab) {
    if (slab == 0) return IQ_SLAB_ROWS_MIN;
    return slab + 4 <= rows->slab_shift ? IQ_SLAB_ROWS_MIN << (slab - 1) : UINT32_C(1) << rows->slab_shift;
}
IQ_INLINE uint64_t iq_slab_first_row(const iq_rows *rows, size_t slab) {
    if (slab + 4 <= rows->slab_shift) return slab == 0 ? 0 : IQ_SLAB_ROWS_MIN << (slab - 1);
    return (uint64_t)(slab + 4 - rows->slab_shift) << rows->slab_shift;
}

IQ_INLINE bool iq_row_visible(const iq_slab *slab, uint32_t index, uint64_t moment) {
    return slab->heads[index].birth <= moment && moment < IQ_ATOMIC_LOAD(&slab->heads[index].death);
}
/* For the writer: whether the row is the present record of its id. */
IQ_INLINE bool iq_row_is_live(const iq_slab *slab, uint32_t index) {
    return slab->heads[index].birth != IQ_MOMENT_NEVER && slab->heads[index].death == IQ_MOMENT_NEVER;
}

/* ======== [store/rows.c] ======== */
/* Slabs of rows.
 *
 * 1. A slab is one allocation and never moves or shrinks; a pointer to a row holds until iq_rows_free.
 * 2. Slab sizes double up to 2^slab_shift and then stay, so row -> slab is arithmetic.
 * 3. A row is in exactly one state: free (in the free list), staged (taken, birth NEVER), live, or buried. Readers read
 *    the filled ones only, among them all that are live or buried: a scan must not stream what is being written, though
 *    it would not use it.
 * 4. Floats of a row from dim to stride are 0, whatever was in the row before.
 * 5. Of rows with lent vectors only the heads and what is filled are ours; nothing else is ever written. */

IQ_FN void iq_rows_init(iq_rows *rows, const iqdb_allocator *allocator) {
    memset(rows, 0, sizeof *rows);
    rows->allocator = allocator;
    rows->slab_shift = IQ_SLAB_SHIFT_MIN;
    rows->free_head = IQ_ROW_NONE;
}

static size_t iq_rows_filled_bytes(const iq_rows *rows, size_t slab) {
    return (iq_slab_rows(rows, slab) + 63) / 64 * 8; /* keeps the 8-byte arrays behind it aligned */
}

/* Of a row: at most 256 KiB and 44, and 1,024 times that is far from 2^32. */
static size_t iq_rows_row_bytes(const iq_rows *rows) {
    return (rows->lent.vectors != NULL ? 0 : (rows->stride + 1) * sizeof(float)) + sizeof(iq_row_head);
}

static size_t iq_rows_slab_bytes(const iq_rows *rows, size_t slab) {
    return iq_slab_rows(rows, slab) * iq_rows_row_bytes(rows) + iq_rows_filled_bytes(rows, slab);
}

IQ_FN void iq_rows_free(iq_rows *rows) {
    for (size_t i = 0; i < rows->slab_count; i++) {
        void *memory = rows->slabs[i].vectors;
        if (rows->lent.vectors != NULL) memory = rows->slabs[i].filled;
        iq_pages_free(rows->allocator, memory, iq_rows_slab_bytes(rows, i));
    }
    iq_table_free(rows->allocator, rows->slabs);
    iq_rows_init(rows, rows->allocator);
}

IQ_FN void iq_rows_set_dim(iq_rows *rows, uint32_t dim) {
    IQ_ASSERT(rows->slab_count == 0 || dim == rows->dim);
    rows->dim = dim;
    rows->stride = iq_row_stride(dim);
    rows->slab_shift = IQ_SLAB_SHIFT_MIN;
    while (rows->slab_shift < IQ_SLAB_SHIFT_MAX &&
           iq_rows_row_bytes(rows) <= IQ_SLAB_BYTES_MAX >> (rows->slab_shift + 1))
        rows->slab_shift++;
}

static iqdb_result iq_rows_add_slab(iq_rows *rows) {
    const size_t number = rows->slab_count;
    iq_slab *slabs =
        (iq_slab *)iq_table_reserve(rows->allocator, rows->slabs, number * sizeof(iq_slab), sizeof(iq_slab));
    if (slabs == NULL) return IQDB_ERR_NOMEM;
    IQ_ATOMIC_STORE(&rows->slabs, slabs);
    iq_slab *slab = &slabs[number];
    const size_t bytes = iq_rows_slab_bytes(rows, number), count = iq_slab_rows(rows, number);
    uint8_t *memory = (uint8_t *)iq_pages_alloc(rows->allocator, bytes);
    if (memory == NULL) return IQDB_ERR_NOMEM;
    if (rows->lent.vectors != NULL) {
        slab->vectors = rows->lent.vectors + (size_t)iq_slab_first_row(rows, number) * rows->stride;
        slab->norms = rows->lent.norms + (size_t)iq_slab_first_row(rows, number);
    } else {
        slab->vectors = (float *)(void *)memory;
        slab->norms = slab->vectors + count * rows->stride;
        memory = (uint8_t *)(void *)(slab->norms + count);
    }
    slab->filled = (uint32_t *)(void *)memory;
    memset(memory, 0, iq_rows_filled_bytes(rows, number));
    slab->heads = (iq_row_head *)(void *)(memory + iq_rows_filled_bytes(rows, number));
    rows->slab_count++;
    rows->bytes += bytes;
    return IQDB_OK;
}

IQ_FN iqdb_result iq_rows_reserve(iq_rows *rows, uint32_t count) {
    iqdb_result result = IQDB_OK;
    while (iq_slab_first_row(rows, rows->slab_count) < count && result == IQDB_OK) result = iq_rows_add_slab(rows);
    return result;
}

IQ_FN iqdb_result iq_rows_take(iq_rows *rows, uint32_t *out_row) {
    uint32_t row = rows->free_head, index;
    const iq_slab *slab;
    if (row != IQ_ROW_NONE) {
        slab = iq_rows_slab(rows, row, &index);
        rows->free_head = slab->heads[index].previous;
        rows->free_count--;
    } else {
        row = rows->count;
        if (row >= IQ_ROW_COUNT_MAX) return IQDB_ERR_LIMIT;
        const iqdb_result result = iq_rows_reserve(rows, row + 1);
        if (result != IQDB_OK) return result;
        slab = iq_rows_slab(rows, row, &index);
        IQ_ATOMIC_STORE(&rows->count, row + 1);
    }
    iq_row_head *head = &slab->heads[index];
    head->birth = head->death = IQ_MOMENT_NEVER;
    head->previous = head->next = IQ_ROW_NONE;
    head->payload = 0;
    float *vector = slab->vectors + index * rows->stride;
    memset(vector + rows->dim, 0, (rows->stride - rows->dim) * sizeof(float));
    *out_row = row;
    return IQDB_OK;
}

IQ_FN void iq_rows_set_filled(const iq_slab *slab, uint32_t index, bool filled) {
    uint32_t *word = &slab->filled[index / 32];
    const uint32_t bit = (uint32_t)1 << index % 32;
    IQ_ATOMIC_STORE(word, filled ? *word | bit : *word & ~bit); /* there is one writer */
}

IQ_FN uint32_t iq_slab_seek(const iq_slab *slab, uint32_t from, uint32_t end, bool filled) {
    const uint32_t others = filled ? 0 : 0xFFFFFFFFu;
    while (from < end) {
        uint32_t word = (IQ_ATOMIC_LOAD(&slab->filled[from / 32]) ^ others) >> from % 32;
        if (word == 0) {
            from = from / 32 * 32 + 32;
            continue;
        }
        for (; (word & 1) == 0; word >>= 1) from++;
        break;
    }
    return from < end ? from : end;
}

IQ_FN void iq_rows_give_back(iq_rows *rows, uint32_t row) {
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(rows, row, &index);
    slab->heads[index].birth = IQ_MOMENT_NEVER;
    slab->heads[index].previous = rows->free_head;
    rows->free_head = row;
    rows->free_count++;
}

/* ======== [store/ids.h] ======== */
/* From an id to its newest row: open addressing over one array of 8-byte slots. The ids themselves are in the rows. One
 * thread writes; any number find. */

typedef struct iq_ids {
    const iqdb_allocator *allocator;
    uint64_t
        *slots; /* atomic: a table; high half: tag, low half: row + 1; 0 is empty, low half 0 with a tag is removed */
    size_t capacity; /* atomic, of the newest table: slots */
    size_t live;     /* the writer's: slots with a row */
    size_t used;     /* and removed ones */
} iq_ids;

IQ_FN void iq_ids_init(iq_ids *ids, const iqdb_allocator *allocator);
IQ_FN void iq_ids_free(iq_ids *ids);
/* After OK, `more` ids have a place. */
IQ_FN iqdb_result iq_ids_reserve(iq_ids *ids, size_t more);
/* Asks for what a look for the id will want, at any time: nothing is read. */
IQ_FN void iq_ids_prefetch(const iq_ids *ids, uint64_t id);
/* The newest row of the id, dead or alive, or IQ_ROW_NONE. */
IQ_FN uint32_t iq_ids_find(const iq_ids *ids, const iq_rows *rows, uint64_t id);
/* The place of the id, for iq_ids_put; behind a reserve. *out_row: its newest row, or IQ_ROW_NONE. */
IQ_FN uint64_t *iq_ids_place(const iq_ids *ids, const iq_rows *rows, uint64_t id, uint32_t *out_row);
/* Names `row`, whose head is written, the newest of its id. */
IQ_FN void iq_ids_put(iq_ids *ids, uint64_t *place, uint64_t id, uint32_t row);
IQ_FN void iq_ids_remove(iq_ids *ids, const iq_rows *rows, uint64_t id);

/* ======== [store/ids.c] ======== */
/* The id table.
 *
 * 1. used <= 3/4 of capacity, so every probe meets an empty slot and ends.
 * 2. A slot's place follows from its tag alone, so the table grows without a look at the rows.
 * 3. A removed slot keeps its place while the next one is not empty, so a probe never skips an id behind it.
 * 4. A slot changes by one release store, behind all of the row that it names; a rebuilt table is published whole. */

#define IQ_IDS_REMOVED (UINT64_C(1) << 32)

static uint32_t iq_ids_tag(uint64_t id) {
    const uint32_t tag = (uint32_t)(iq_hash_u64(id) >> 32);
    return tag == 0 ? 1 : tag; /* a tag of 0 would make a removed slot look empty */
}

/* Maps the tag to [0, capacity) keeping its order, whatever the capacity: tags stay 32 bits in tables beyond 2^32. */
static size_t iq_ids_home(uint32_t tag, size_t capacity) {
    return (size_t)(((uint64_t)tag * (uint64_t)capacity) >> 32);
}

static size_t iq_ids_next(size_t place, size_t capacity) {
    return place + 1 == capacity ? 0 : place + 1;
}

IQ_FN void iq_ids_init(iq_ids *ids, const iqdb_allocator *allocator) {
    memset(ids, 0, sizeof *ids);
    ids->allocator = allocator;
}

IQ_FN void iq_ids_free(iq_ids *ids) {
    iq_table_free(ids->allocator, ids->slots);
    iq_ids_init(ids, ids->allocator);
}

IQ_FN iqdb_result iq_ids_reserve(iq_ids *ids, size_t more) {
    const size_t limit = ids->capacity - ids->capacity / 4;
    if (ids->used <= limit && more <= limit - ids->used) return IQDB_OK;
    if (more > (size_t)-1 / 32 - ids->live) return IQDB_ERR_NOMEM;
    /* At most 5/8 full after a rebuild, so that a table of steady size is rebuilt only after capacity / 8 removals. */
    size_t capacity = (ids->live + more + 4) / 5 * 8;
    if (capacity > ids->capacity / 4 && capacity <= ids->capacity) capacity = ids->capacity;
    if (capacity > ids->capacity && capacity < ids->capacity * 2) capacity = ids->capacity * 2;
    if (capacity < 32) capacity = 32;
    uint64_t *slots = (uint64_t *)iq_table_renew(ids->allocator, ids->slots, capacity * sizeof(uint64_t));
    if (slots == NULL) return IQDB_ERR_NOMEM;
    for (size_t i = 0; i < ids->capacity; i++) {
        if ((uint32_t)ids->slots[i] == 0) continue;
        size_t place = iq_ids_home((uint32_t)(ids->slots[i] >> 32), capacity);
        while (slots[place] != 0) place = iq_ids_next(place, capacity);
        slots[place] = ids->slots[i];
    }
    IQ_ATOMIC_STORE(&ids->slots, slots);
    IQ_ATOMIC_STORE(&ids->capacity, capacity);
    ids->used = ids->live;
    return IQDB_OK;
}

/* The slot of the id with what it holds; the empty one where it belongs, with 0; NULL, with 0, where there is no table. */
static uint64_t *iq_ids_probe(const iq_ids *ids, const iq_rows *rows, uint64_t id, uint64_t *out_slot) {
    uint64_t *slots = IQ_ATOMIC_LOAD(&ids->slots);
    const size_t capacity = iq_table_size(slots) / sizeof(uint64_t);
    *out_slot = 0;
    if (capacity == 0) return NULL;
    const uint32_t tag = iq_ids_tag(id);
    size_t place = iq_ids_home(tag, capacity);
    for (;; place = iq_ids_next(place, capacity)) {
        const uint64_t slot = *out_slot = IQ_ATOMIC_LOAD(&slots[place]);
        if (slot == 0) return &slots[place];
        if ((uint32_t)(slot >> 32) != tag || (uint32_t)slot == 0) continue;
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(rows, (uint32_t)slot - 1, &index);
        if (slab->heads[index].id == id) return &slots[place];
    }
}

IQ_FN void iq_ids_prefetch(const iq_ids *ids, uint64_t id) {
    const uint64_t *slots = IQ_ATOMIC_LOAD(&ids->slots);
    iq_kernel_prefetch(slots, iq_ids_home(iq_ids_tag(id), IQ_ATOMIC_LOAD(&ids->capacity)) * sizeof(uint64_t));
}

IQ_FN uint32_t iq_ids_find(const iq_ids *ids, const iq_rows *rows, uint64_t id) {
    uint64_t slot;
    (void)iq_ids_probe(ids, rows, id, &slot);
    return (uint32_t)slot - 1; /* of 0 that is IQ_ROW_NONE */
}

IQ_FN uint64_t *iq_ids_place(const iq_ids *ids, const iq_rows *rows, uint64_t id, uint32_t *out_row) {
    uint64_t slot, *place = iq_ids_probe(ids, rows, id, &slot);
    *out_row = (uint32_t)slot - 1;
    return place;
}

IQ_FN void iq_ids_put(iq_ids *ids, uint64_t *place, uint64_t id, uint32_t row) {
    if (*place == 0) {
        IQ_ASSERT(ids->used < ids->capacity);
        ids->live++;
        ids->used++;
    }
    IQ_ATOMIC_STORE(place, (uint64_t)iq_ids_tag(id) << 32 | (row + 1));
}

IQ_FN void iq_ids_remove(iq_ids *ids, const iq_rows *rows, uint64_t id) {
    uint64_t slot, *place = iq_ids_probe(ids, rows, id, &slot);
    if (slot == 0) return;
    IQ_ATOMIC_STORE(place, IQ_IDS_REMOVED);
    ids->live--;
    uint64_t *slots = ids->slots;
    size_t at = (size_t)(place - slots);
    if (slots[iq_ids_next(at, ids->capacity)] != 0) return;
    for (; slots[at] == IQ_IDS_REMOVED; ids->used--) {
        IQ_ATOMIC_STORE(&slots[at], (uint64_t)0);
        at = (at == 0 ? ids->capacity : at) - 1;
    }
}

/* ======== [store/records.h] ======== */
/* Records in memory: rows, the table of their ids, the payload heap, and which moment sees which row. One thread at a
 * time writes; any number read under pins, without a lock. */

/* Rows buried but perhaps still seen at a pinned moment, oldest death first. */
typedef struct iq_retired {
    uint32_t *rows; /* a ring; its capacity is a power of two */
    size_t capacity, first, count;
    size_t unlinked; /* the first so many of them are reached by no pin newer than `unlinked_at` */
    uint64_t unlinked_at;
    uint64_t bytes; /* of rows and payloads */
} iq_retired;

/* So many, of so many bytes, wait for more of them before they are given back. */
#define IQ_RETIRED_FEW 32u
#define IQ_RETIRED_FEW_BYTES (64u * 1024u)

typedef struct iq_records {
    iq_epoch epoch;
    const iqdb_allocator *allocator;
    const iq_kernel *kernel; /* for norms */
    iq_rows rows;
    iq_ids ids;
    iq_heap heap;
    iq_retired retired;
    uint64_t retired_max; /* bytes */
    uint64_t lsn;         /* of the last write */
    size_t live_count;    /* records after it; readers have that of their moment */
    uint32_t dim;         /* atomic: what readers know: rows.dim once a record has one */
} iq_records;

IQ_FN void iq_records_init(iq_records *records, const iqdb_allocator *allocator, const iq_kernel *kernel);
IQ_FN void iq_records_free(iq_records *records);

/* ---- Writing: reserve and stage may fail, what follows cannot ---- */

/* Room for `count` operations. BUSY while pins keep more than retired_max. */
IQ_FN iqdb_result iq_records_reserve(iq_records *records, size_t count);
/* A row with this vector and payload that nobody sees yet. The vector is copied; norm is computed. INVALID_VECTOR where
 * an element is not finite. */
IQ_FN iqdb_result iq_records_stage(iq_records *records, uint64_t id, const float *vector, iqdb_payload payload,
                                   uint32_t *out_row);
IQ_FN void iq_records_unstage(iq_records *records, uint32_t row);
/* The staged row is the record of its id from the next moment on. */
IQ_FN void iq_records_upsert(iq_records *records, uint32_t row);
/* Ends the record of the id with the next moment; whether there was one. */
IQ_FN bool iq_records_delete(iq_records *records, uint64_t id);
/* All that was upserted and deleted since the last time is seen from here on, at once; rows that nobody sees any more
 * are given back. */
IQ_FN void iq_records_publish(iq_records *records, uint64_t lsn);
/* Gives back what no pin keeps any more. */
IQ_FN void iq_records_reclaim(iq_records *records);

/* ---- Reading, under a pin of records->epoch, or by the writer at its newest moment ---- */

/* The row of this id that is seen at `moment`, or IQ_ROW_NONE. */
IQ_FN uint32_t iq_records_find(const iq_records *records, uint64_t id, uint64_t moment);

/* ======== [store/records.c] ======== */
/* Records: staging, birth, burial, reclaiming.
 *
 * 1. Everything that can fail happens before a log is written: after reserve and stage, a batch only writes to memory
 *    that is there.
 * 2. Rows of one id form a chain from the newest to the oldest that somebody may see; the id table names the newest. A
 *    reader that meets a row born after its moment goes on to the one before, so beside a write it finds the old record
 *    or the new one, never none.
 * 3. A row is written whole before it is filled and linked; both come before the moment of its birth is published.
 * 4. A buried row goes in two steps, oldest death first, so that it is always the last of its chain: when no pin is older
 *    than its death nobody sees it, and it is unlinked; when no pin is as old as that nobody can be looking at it, and it
 *    is given back. */

IQ_FN void iq_records_init(iq_records *records, const iqdb_allocator *allocator, const iq_kernel *kernel) {
    memset(records, 0, sizeof *records);
    records->allocator = allocator;
    records->kernel = kernel;
    iq_rows_init(&records->rows, allocator);
    iq_ids_init(&records->ids, allocator);
    iq_heap_init(&records->heap, allocator);
    iq_epoch_init(&records->epoch);
    records->retired_max = UINT64_MAX;
}

IQ_FN void iq_records_free(iq_records *records) {
    iq_epoch_free(&records->epoch, records->allocator);
    iq_free(records->allocator, records->retired.rows, records->retired.capacity * sizeof(uint32_t), 16);
    iq_heap_free(&records->heap);
    iq_ids_free(&records->ids);
    iq_rows_free(&records->rows);
    iq_records_init(records, records->allocator, records->kernel);
}

static uint32_t *iq_retired_at(const iq_retired *retired, size_t i) {
    return &retired->rows[(retired->first + i) & (retired->capacity - 1)];
}

IQ_FN iqdb_result iq_records_reserve(iq_records *records, size_t count) {
    iq_retired *retired = &records->retired;
    iq_epoch_make_room(&records->epoch, records->allocator);
    if (retired->bytes > records->retired_max) {
        /* A new moment, though nothing has changed: else short reads that follow one another could all be on one. */
        iq_epoch_publish(&records->epoch, records->live_count);
        iq_records_reclaim(records);
        if (retired->bytes > records->retired_max) return IQDB_ERR_BUSY;
    }
    if (retired->capacity - retired->count < count) {
        size_t capacity = 64;
        if (count > (size_t)-1 / 16 - retired->count) return IQDB_ERR_NOMEM;
        while (capacity < retired->count + count) capacity *= 2;
        uint32_t *rows = (uint32_t *)iq_alloc(records->allocator, capacity * sizeof(uint32_t), 16);
        if (rows == NULL) return IQDB_ERR_NOMEM;
        for (size_t i = 0; i < retired->count; i++) rows[i] = *iq_retired_at(retired, i);
        iq_free(records->allocator, retired->rows, retired->capacity * sizeof(uint32_t), 16);
        retired->rows = rows;
        retired->capacity = capacity;
        retired->first = 0;
    }
    return iq_ids_reserve(&records->ids, count);
}

IQ_FN iqdb_result iq_records_stage(iq_records *records, uint64_t id, const float *vector, iqdb_payload payload,
                                   uint32_t *out_row) {
    uint64_t ref = 0;
    float norm;
    if (!iq_vector_measure(records->kernel, vector, records->rows.dim, &norm)) return IQDB_ERR_INVALID_VECTOR;
    if (payload.bytes != NULL) {
        uint8_t *bytes;
        const iqdb_result result = iq_heap_take(&records->heap, payload.size, &ref, &bytes);
        if (result != IQDB_OK) return result;
        memcpy(bytes, payload.bytes, payload.size);
    }
    const iqdb_result result = iq_rows_take(&records->rows, out_row);
    if (result != IQDB_OK) {
        iq_heap_give_back(&records->heap, ref);
        return result;
    }
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&records->rows, *out_row, &index);
    memcpy(slab->vectors + index * records->rows.stride, vector, records->rows.dim * sizeof(float));
    slab->norms[index] = norm;
    slab->heads[index].id = id;
    slab->heads[index].payload = ref;
    return IQDB_OK;
}

IQ_FN void iq_records_unstage(iq_records *records, uint32_t row) {
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
    iq_heap_give_back(&records->heap, slab->heads[index].payload);
    iq_rows_give_back(&records->rows, row);
}

/* What a row holds, with its payload. */
static uint64_t iq_records_row_bytes(const iq_records *records, const iq_slab *slab, uint32_t index) {
    const uint64_t ref = slab->heads[index].payload;
    return (records->rows.stride + 1) * sizeof(float) + sizeof(iq_row_head) +
           (ref == 0 ? 0 : iq_heap_block_size(iq_heap_payload(&records->heap, ref).size));
}

/* Ends the life of a row with the next moment. */
static void iq_records_bury(iq_records *records, const iq_slab *slab, uint32_t index, uint32_t row) {
    iq_retired *retired = &records->retired;
    IQ_ATOMIC_STORE(&slab->heads[index].death, records->epoch.moment + 1);
    IQ_ASSERT(retired->count < retired->capacity);
    *iq_retired_at(retired, retired->count) = row;
    retired->count++;
    retired->bytes += iq_records_row_bytes(records, slab, index);
    records->live_count--;
}

IQ_FN void iq_records_upsert(iq_records *records, uint32_t row) {
    uint32_t index, old_index, old;
    const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
    iq_row_head *head = &slab->heads[index];
    uint64_t *place = iq_ids_place(&records->ids, &records->rows, head->id, &old);
    head->previous = old;
    head->birth = records->epoch.moment + 1;
    iq_rows_set_filled(slab, index, true);
    iq_ids_put(&records->ids, place, head->id, row);
    records->live_count++;
    if (old == IQ_ROW_NONE) return;
    const iq_slab *old_slab = iq_rows_slab(&records->rows, old, &old_index);
    old_slab->heads[old_index].next = row;
    if (old_slab->heads[old_index].death == IQ_MOMENT_NEVER) iq_records_bury(records, old_slab, old_index, old);
}

IQ_FN bool iq_records_delete(iq_records *records, uint64_t id) {
    const uint32_t row = iq_ids_find(&records->ids, &records->rows, id);
    if (row == IQ_ROW_NONE) return false;
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
    if (slab->heads[index].death != IQ_MOMENT_NEVER) return false;
    iq_records_bury(records, slab, index, row);
    return true;
}

/* Takes the last row of its chain out of it, and the id out of the table where the chain ends with it. */
static void iq_records_unlink(iq_records *records, uint32_t row) {
    uint32_t index, next_index;
    const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
    iq_rows_set_filled(slab, index, false);
    if (slab->heads[index].next == IQ_ROW_NONE) {
        iq_ids_remove(&records->ids, &records->rows, slab->heads[index].id);
        return;
    }
    const iq_slab *next_slab = iq_rows_slab(&records->rows, slab->heads[index].next, &next_index);
    IQ_ATOMIC_STORE(&next_slab->heads[next_index].previous, IQ_ROW_NONE);
}

static void iq_records_give_back(iq_records *records, uint32_t row) {
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
    records->retired.bytes -= iq_records_row_bytes(records, slab, index);
    iq_heap_give_back(&records->heap, slab->heads[index].payload);
    iq_rows_give_back(&records->rows, row);
}

/* Unlinks what nobody sees at `oldest` or later. */
static void iq_records_unlink_dead(iq_records *records, uint64_t oldest) {
    iq_retired *retired = &records->retired;
    for (; retired->unlinked < retired->count; retired->unlinked++) {
        uint32_t index;
        const uint32_t row = *iq_retired_at(retired, retired->unlinked);
        const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
        if (slab->heads[index].death > oldest) break;
        iq_records_unlink(records, row);
    }
    retired->unlinked_at = records->epoch.moment;
}

IQ_FN void iq_records_reclaim(iq_records *records) {
    iq_retired *retired = &records->retired;
    const uint64_t now = records->epoch.moment;
    for (;;) {
        const uint64_t oldest = iq_epoch_oldest(&records->epoch);
        iq_table_trim(records->allocator, records->ids.slots, oldest, now);
        iq_table_trim(records->allocator, records->rows.slabs, oldest, now);
        iq_table_trim(records->allocator, records->heap.pages, oldest, now);
        iq_table_trim(records->allocator, records->heap.regions, IQ_MOMENT_NEVER, now); /* no reader knows them */
        if (retired->unlinked > 0 && oldest <= retired->unlinked_at) return;
        for (; retired->unlinked > 0; retired->unlinked--) {
            iq_records_give_back(records, retired->rows[retired->first]);
            retired->first = (retired->first + 1) & (retired->capacity - 1);
            retired->count--;
        }
        iq_records_unlink_dead(records, oldest);
        if (retired->unlinked == 0) return;
    }
}

IQ_FN void iq_records_publish(iq_records *records, uint64_t lsn) {
    records->lsn = lsn;
    IQ_ATOMIC_STORE(&records->dim, records->rows.dim);
    iq_epoch_publish(&records->epoch, records->live_count);
    /* A look at all pins costs as much as a write: not for a few rows, nor while records only come. */
    if (records->retired.count >= IQ_RETIRED_FEW || records->retired.bytes >= IQ_RETIRED_FEW_BYTES ||
        iq_table_is_replacement(records->ids.slots) || iq_table_is_replacement(records->rows.slabs) ||
        iq_table_is_replacement(records->heap.pages) || iq_table_is_replacement(records->heap.regions))
        iq_records_reclaim(records);
}

IQ_FN uint32_t iq_records_find(const iq_records *records, uint64_t id, uint64_t moment) {
    uint32_t row = iq_ids_find(&records->ids, &records->rows, id);
    while (row != IQ_ROW_NONE) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&records->rows, row, &index);
        /* What is behind a row that was born in time was dead by then, and may be gone. */
        if (slab->heads[index].birth <= moment)
            return moment < IQ_ATOMIC_LOAD(&slab->heads[index].death) ? row : IQ_ROW_NONE;
        row = IQ_ATOMIC_LOAD(&slab->heads[index].previous);
    }
    return IQ_ROW_NONE;
}

/* ======== [index/flat.h] ======== */
/* Exact search: every row is looked at. */

/* What belongs to one vector of a search. */
typedef struct iq_flat_probe {
    float norm;   /* of the vector, for COSINE */
    float bound;  /* the search's own */
    iq_topk topk; /* started by the caller; the tag of a hit is its row */
} iq_flat_probe;

typedef struct iq_flat_query {
    const iq_rows *rows;
    uint32_t row_count; /* of them, all that are visible among these */
    const iq_kernel *kernel;
    iqdb_metric metric;    /* not DEFAULT */
    uint64_t moment;       /* rows visible here take part; it is pinned */
    float max_score;       /* and have at most this score */
    const iqdb_hit *after; /* NULL, or they rank behind it */
    const float *vectors;  /* 64-byte aligned, each at the stride of the rows, zeros from dim on */
    iq_flat_probe *probes; /* `count` of each task; those of the first are started */
    size_t count;          /* of vectors, 1 to IQ_FLAT_COUNT_MAX */
    /* More than one task go to parallel->run_fn, each with a share of the rows. */
    size_t task_count;
    const iqdb_parallel_for *parallel;
    iqdb_hit *spare_hits; /* k for each vector of each task but the first, whose hits are the caller's */
    /* NULL, or decides about a row that would be admitted; only with one task. */
    bool (*accept_fn)(const iq_slab *slab, uint32_t index, void *user);
    void *user;
} iq_flat_query;

/* Memory is read once for so many vectors; by then it is far from being what takes the time. */
#define IQ_FLAT_COUNT_MAX 64

/* Offers every visible row to the topk of every probe of the first task. */
IQ_FN void iq_flat_search(const iq_flat_query *query);

/* ======== [index/flat.c] ======== */
/* Exact search over all rows.
 *
 * 1. A kernel turns a run of filled rows into sums without a look at their heads; those are read only for
 *    rows whose sum could be admitted, so the scan streams vectors and little else.
 * 2. The bound on sums discards a row only where its finished score is surely behind the k-th: see distance.h.
 * 3. For many vectors, a sift that is faster than sums discards most rows first, by a bound that is sure as well. What
 *    is left gets the same sum, and so the same answer.
 * 4. Admission compares (score, id), so the set of hits does not depend on the order of rows, and what one vector gets
 *    does not depend on those that are searched with it, nor on how the rows are shared among tasks. */

#define IQ_FLAT_SUMS 768u /* of a block of rows, for all vectors: 3 KiB that stay in the first-level cache */

IQ_STATIC_ASSERT(IQ_FLAT_SUMS / IQ_FLAT_COUNT_MAX % IQ_TILE_ROWS == 0, blocks_are_whole_tiles);

/* A sift pays where it discards three rows of four. A block where it does not is summed up anyhow, and so are as many
 * blocks after it as make what was lost little. */
#define IQ_FLAT_SIFT_QUERIES 8 /* fewer are as fast without */
#define IQ_FLAT_SIFT_ROWS 24u  /* at a time, but no more than ask for so many cache lines beside four vectors: */
#define IQ_FLAT_SIFT_LINES 24u
#define IQ_FLAT_SIFT_PART 4
#define IQ_FLAT_SIFT_PAUSE 16

/* The bounds of a sift for all probes. */
typedef struct iq_flat_sieve {
    float offsets[IQ_FLAT_COUNT_MAX], slopes[IQ_FLAT_COUNT_MAX];
    uint64_t open; /* bits of probes without a bound */
    float scale;
    uint32_t pause; /* blocks to come without a sift */
    bool wanted;
} iq_flat_sieve;

/* Sums beyond it are of no use to the probe. */
static void iq_flat_tighten(const iq_flat_query *query, iq_flat_sieve *sieve, size_t which) {
    iq_flat_probe *probe = &query->probes[which];
    const float kth = iq_topk_threshold(&probe->topk);
    probe->bound = iq_score_sum_bound(query->metric, kth < query->max_score ? kth : query->max_score, probe->norm);
    if (!sieve->wanted) return;
    const uint64_t bit = (uint64_t)1 << which;
    sieve->open |= bit;
    if (iq_score_sift_bound(query->metric, probe->bound, probe->norm, query->rows->stride, &sieve->offsets[which],
                            &sieve->slopes[which]))
        sieve->open ^= bit;
}

static void iq_flat_sieve_start(const iq_flat_query *query, iq_flat_sieve *sieve) {
    sieve->wanted = query->kernel->sift != NULL && query->count >= IQ_FLAT_SIFT_QUERIES && query->metric != IQDB_L1;
    sieve->scale = iq_score_sift_scale(query->metric, query->rows->stride);
    sieve->open = 0;
    sieve->pause = 0;
    for (size_t i = 0; i < query->count; i++) iq_flat_tighten(query, sieve, i);
}

static void iq_flat_offer(const iq_flat_query *query, iq_flat_sieve *sieve, size_t which, const iq_slab *slab,
                          uint32_t index, uint32_t row, float sum) {
    const size_t stride = query->rows->stride;
    iq_flat_probe *probe = &query->probes[which];
    if (!iq_row_visible(slab, index, query->moment)) return;
    const float score =
        iq_score_finish(query->metric, sum, probe->norm, slab->norms[index], query->vectors + which * stride,
                        slab->vectors + index * stride, query->rows->dim);
    if (!iq_topk_admits(&probe->topk, score, slab->heads[index].id) || score > query->max_score) return;
    if (query->after != NULL && !iq_ranks_before(query->after->score, query->after->id, score, slab->heads[index].id))
        return;
    if (query->accept_fn != NULL && !query->accept_fn(slab, index, query->user)) return;
    iq_topk_push(&probe->topk, score, slab->heads[index].id, row);
    iq_flat_tighten(query, sieve, which);
}

/* The first of the sums [i, count) that is not surely beyond, or count. The metric is a constant where this is inlined,
 * and four answers meet in one branch: with few dimensions the test of a sum costs as much as the sum. */
IQ_INLINE uint32_t iq_flat_skip(iqdb_metric metric, const float *sums, const float *norms, uint32_t i, uint32_t count,
                                float bound) {
    for (; i + 4 <= count; i += 4) {
        const int a = iq_score_is_beyond(metric, sums[i], norms[i], bound);
        const int b = iq_score_is_beyond(metric, sums[i + 1], norms[i + 1], bound);
        const int c = iq_score_is_beyond(metric, sums[i + 2], norms[i + 2], bound);
        const int d = iq_score_is_beyond(metric, sums[i + 3], norms[i + 3], bound);
        if ((a & b & c & d) == 0) break;
    }
    while (i < count && iq_score_is_beyond(metric, sums[i], norms[i], bound)) i++;
    return i;
}

static uint32_t iq_flat_candidate(iqdb_metric metric, const float *sums, const float *norms, uint32_t i, uint32_t count,
                                  float bound) {
    if (metric == IQDB_L2) return iq_flat_skip(IQDB_L2, sums, norms, i, count, bound);
    if (metric == IQDB_L1) return iq_flat_skip(IQDB_L1, sums, norms, i, count, bound);
    if (metric == IQDB_DOT) return iq_flat_skip(IQDB_DOT, sums, norms, i, count, bound);
    return iq_flat_skip(IQDB_COSINE, sums, norms, i, count, bound);
}

/* One row for the probes whose bits are set. */
static void iq_flat_left(const iq_flat_query *query, iq_flat_sieve *sieve, const iq_slab *slab, uint32_t index,
                         uint32_t row, uint64_t mask) {
    const size_t stride = query->rows->stride;
    for (size_t which = 0; mask != 0; which++, mask >>= 1) {
        if ((mask & 1) == 0) continue;
        const float sum = query->kernel->pair(query->vectors + which * stride, slab->vectors + index * stride, stride,
                                              iq_score_sum_kind(query->metric));
        if (!iq_score_is_beyond(query->metric, sum, slab->norms[index], query->probes[which].bound))
            iq_flat_offer(query, sieve, which, slab, index, row, sum);
    }
}

/* Of each row of a block, the probes that it may not be beyond; returns how many in all. While a few vectors pass the
 * block, their share of the next one is asked for. */
static size_t iq_flat_masks(const iq_flat_query *query, const iq_flat_sieve *sieve, const float *norms,
                            const float *rows, uint32_t size, uint64_t *out_masks) {
    float terms[IQ_FLAT_SIFT_ROWS];
    uint32_t four[IQ_FLAT_SIFT_ROWS];
    const size_t stride = query->rows->stride, bytes = size * stride * sizeof(float);
    const size_t share = iq_kernel_tile_share(bytes, query->count / IQ_SIFT_QUERIES);
    iq_sift_bounds bounds = {NULL, NULL, norms, terms};
    size_t left = 0;
    for (uint32_t i = 0; i < size; i++) {
        terms[i] = iq_score_sift_term(sieve->scale, norms[i]);
        out_masks[i] = iq_norm_is_safe(norms[i]) ? sieve->open : UINT64_MAX >> (64 - query->count);
    }
    for (size_t next = 0; next < query->count; next += IQ_SIFT_QUERIES) {
        const size_t q = next + IQ_SIFT_QUERIES <= query->count ? next : query->count - IQ_SIFT_QUERIES;
        bounds.offsets = sieve->offsets + q;
        bounds.slopes = sieve->slopes + q;
        iq_kernel_prefetch_share(rows, bytes, next / IQ_SIFT_QUERIES, share);
        query->kernel->sift(query->vectors + q * stride, rows, stride, size, &bounds, four);
        for (uint32_t i = 0; i < size; i++) out_masks[i] |= (uint64_t)four[i] << q;
    }
    for (uint32_t i = 0; i < size; i++)
        for (uint64_t mask = out_masks[i]; mask != 0; mask &= mask - 1) left++;
    return left;
}

/* Does what iq_flat_block does, or returns false where that is expected to be faster. */
static bool iq_flat_sift(const iq_flat_query *query, iq_flat_sieve *sieve, const iq_slab *slab, uint32_t start,
                         uint32_t size, uint32_t first_row) {
    uint64_t masks[IQ_FLAT_SIFT_ROWS];
    if (!sieve->wanted || size < IQ_TILE_ROWS) return false;
    if (sieve->pause > 0) {
        sieve->pause--;
        return false;
    }
    const float *rows = slab->vectors + start * query->rows->stride;
    if (iq_flat_masks(query, sieve, slab->norms + start, rows, size, masks) > size * query->count / IQ_FLAT_SIFT_PART) {
        sieve->pause = IQ_FLAT_SIFT_PAUSE;
        return false;
    }
    for (uint32_t i = 0; i < size; i++)
        if (masks[i] != 0) iq_flat_left(query, sieve, slab, start + i, first_row + start + i, masks[i]);
    return true;
}

/* Rows [start, start + size) of a slab whose first row is `first_row`. */
static void iq_flat_block(const iq_flat_query *query, iq_flat_sieve *sieve, const iq_slab *slab, uint32_t start,
                          uint32_t size, uint32_t first_row) {
    float sums[IQ_FLAT_SUMS];
    const size_t stride = query->rows->stride;
    const float *norms = slab->norms + start;
    query->kernel->scan(query->vectors, query->count, slab->vectors + start * stride, stride, size, sums,
                        iq_score_sum_kind(query->metric));
    for (size_t which = 0; which < query->count; which++) {
        const float *own = sums + which * size, *bound = &query->probes[which].bound;
        uint32_t i = iq_flat_candidate(query->metric, own, norms, 0, size, *bound);
        for (; i < size; i = iq_flat_candidate(query->metric, own, norms, i + 1, size, *bound))
            iq_flat_offer(query, sieve, which, slab, start + i, first_row + start + i, own[i]);
    }
}

/* How many rows are a block. */
static uint32_t iq_flat_block_rows(const iq_flat_query *query, const iq_flat_sieve *sieve) {
    const size_t count = query->count, row_lines = query->rows->stride * sizeof(float) / IQ_CACHE_LINE;
    size_t size = IQ_FLAT_SUMS / count, most = IQ_FLAT_SIFT_LINES * (count / IQ_SIFT_QUERIES) / row_lines;
    if (most > IQ_FLAT_SIFT_ROWS) most = IQ_FLAT_SIFT_ROWS;
    if (most < IQ_TILE_ROWS) most = IQ_TILE_ROWS;
    if (sieve->wanted && size > most) size = most;
    return (uint32_t)(size / IQ_TILE_ROWS * IQ_TILE_ROWS);
}

/* Rows [begin, end). */
static void iq_flat_rows(const iq_flat_query *query, iq_flat_sieve *sieve, uint32_t begin, uint32_t end) {
    const iq_rows *rows = query->rows;
    iq_flat_sieve_start(query, sieve);
    const uint32_t block = iq_flat_block_rows(query, sieve);
    const iq_slab *slabs = IQ_ATOMIC_LOAD(&rows->slabs);
    while (begin < end) {
        uint32_t start;
        const size_t number = iq_slab_of_row(rows, begin, &start);
        const iq_slab *slab = &slabs[number];
        const uint32_t first = begin - start, held = iq_slab_rows(rows, number);
        const uint32_t count = held < end - first ? held : end - first;
        while ((start = iq_slab_seek(slab, start, count, true)) < count) {
            const uint32_t stop = iq_slab_seek(slab, start, count, false);
            for (; start < stop; start += block) {
                const uint32_t size = stop - start < block ? stop - start : block;
                if (!iq_flat_sift(query, sieve, slab, start, size, first))
                    iq_flat_block(query, sieve, slab, start, size, first);
            }
            start = stop;
        }
        begin = first + count;
    }
}

static uint32_t iq_flat_share(const iq_flat_query *query, size_t task) {
    return (uint32_t)((uint64_t)query->row_count * task / query->task_count);
}

static void iq_flat_task(size_t index, void *task) {
    iq_flat_sieve sieve;
    iq_flat_query part = *(const iq_flat_query *)task;
    part.probes += index * part.count;
    iq_flat_rows(&part, &sieve, iq_flat_share(&part, index), iq_flat_share(&part, index + 1));
}

IQ_FN void iq_flat_search(const iq_flat_query *query) {
    iq_flat_query shared = *query;
    if (query->task_count == 1) {
        iq_flat_sieve sieve;
        iq_flat_rows(query, &sieve, 0, query->row_count);
        return;
    }
    const size_t k = query->probes->topk.capacity;
    for (size_t i = query->count; i < query->count * query->task_count; i++) {
        query->probes[i].norm = query->probes[i % query->count].norm;
        iq_topk_start(&query->probes[i].topk, query->spare_hits + (i - query->count) * k, k);
    }
    query->parallel->run_fn(iq_flat_task, &shared, query->task_count, query->parallel->user);
    for (size_t i = query->count; i < query->count * query->task_count; i++) {
        const iq_topk *found = &query->probes[i].topk;
        iq_topk *all = &query->probes[i % query->count].topk;
        for (size_t j = 0; j < found->count; j++) {
            const iqdb_hit *hit = &found->hits[j];
            if (iq_topk_admits(all, hit->score, hit->id)) iq_topk_push(all, hit->score, hit->id, hit->payload.size);
        }
    }
}

/* ======== [db/db.h] ======== */
/* The handle, its lock and its pins.
 *
 * Whoever writes, checks or maintains holds the lock for the length of the call; whoever reads pins a moment and takes no
 * lock. A call from a callback that runs under the lock is BUSY; one from anywhere else, a predicate or the body of an
 * iterator's loop too, is a call like any other. */

struct iqdb {
    iqdb_allocator allocator;
    iq_reporter reporter;
    iqdb_sync sync;
    bool compact_on_close;
    bool read_only; /* over memory of somebody else; a directory has a mark of its own */
    iqdb_metric metric;
    iqdb_parallel_for parallel_for;
    iqdb_files files;
    iqdb_entropy entropy;
    iq_crc32_fn crc32;
    iq_directory *directory; /* NULL in memory */
    uint32_t cpu_features;   /* asked once, for in a virtual machine the question is dear */
    uint64_t process;        /* that opened it: another one is a forked child */

    iq_mutex mutex;
    uintptr_t owner; /* thread under the lock, 0 for none; read without it to detect re-entry */
    bool told;       /* the call under the lock has reported details of its failure */

    uint8_t distance[IQ_ATOMIC_DISTANCE]; /* from what writers write at each entry to the slots of readers */

    iq_records records; /* changed under the lock, read under pins */

    uint32_t *staged; /* rows of the batch in the making, one an operation */
    size_t staged_capacity;
    iq_blob encoded; /* a payload in the making */
};

/* Pins the present state; BUSY inside a callback that runs under the lock. Every OK needs an unpin of the epoch. */
IQ_FN iqdb_result iq_db_enter_read(const iqdb *db, iq_pin *out_pin);
IQ_FN void iq_db_leave_read(const iqdb *db, iq_pin pin);

/* A view of a row's record, good while the row is pinned. */
IQ_FN iqdb_record iq_db_record_at(const iqdb *db, const iq_slab *slab, uint32_t index);

/* Takes the lock; BUSY where this thread has it already. Every OK needs a leave. */
IQ_FN iqdb_result iq_db_enter_upkeep(iqdb *db);
IQ_FN iqdb_result iq_db_enter_write(iqdb *db); /* and POISONED, READONLY, LOCKED where nothing may be written */
IQ_FN void iq_db_leave(iqdb *db);
/* Leaves with this result and returns it; a failure that nobody has given details of is reported first. */
IQ_FN iqdb_result iq_db_leave_with(iqdb *db, iqdb_result result);
/* Returns INVALID_ARGUMENT, with the details where they go, which takes the lock; from inside a callback without. */
IQ_FN iqdb_result iq_db_refuse(iqdb *db, const char *why);

/* Deletes these ids in one batch, under the writer's lock (write.c). */
IQ_FN iqdb_result iq_batch_delete(iqdb *db, const uint64_t *ids, size_t count, size_t *out_removed);

/* A filter compiled into memory of the handle's allocator: INVALID_FILTER or NOMEM. Given back by iq_program_free. */
typedef struct iq_program {
    iq_filter filter;
    size_t size_bytes;
} iq_program;

IQ_FN iqdb_result iq_program_make(const iqdb *db, const iqdb_filter *filter, iq_program **out_program);
IQ_FN void iq_program_free(const iqdb *db, iq_program *program); /* NULL is fine */

/* ---- The handle itself (open.c) ---- */
/* Opens a handle, options NULL being the defaults, and has it filled under its lock. INVALID_ARGUMENT where out_db or
 * source is NULL. After a failure there is no handle, and its directory is closed. */
typedef iqdb_result (*iq_fill_fn)(iqdb *db, const iqdb_options *options, const void *source);
IQ_FN iqdb_result iq_db_open(const iqdb_options *options, iq_fill_fn fill_fn, const void *source, iqdb **out_db);
IQ_FN void iq_db_free(iqdb *db);
/* What is stored fixes metric and dimension; `file` says so. Options that contradict it are INVALID_CONFIG. */
IQ_FN iqdb_result iq_db_adopt_schema(iqdb *db, const iqdb_options *options, const iq_schema *schema, const char *file);
/* The same for the dimension, which may be known only when all is loaded, and what options.verify asks for. */
IQ_FN iqdb_result iq_db_finish(iqdb *db, const iqdb_options *options, const char *file);
/* A logged record of a batch that ended at commit_lsn takes effect. CORRUPT where it cannot. */
IQ_FN iqdb_result iq_db_replay(iqdb *db, const uint8_t *bytes, size_t size, uint64_t commit_lsn);
IQ_FN iq_schema iq_db_schema(const iqdb *db);
IQ_FN iq_directory_config iq_db_config(const iqdb *db);

/* ---- Snapshots (image.c) and checks (verify.c) ---- */

/* The records that a reader at `moment` sees; they have to stay while it is written. */
typedef struct iq_image {
    iqdb *db;
    uint64_t lsn, moment;
    uint32_t row_end;
    uint64_t count;
} iq_image;

IQ_FN iq_image iq_image_take(iqdb *db);
IQ_FN iqdb_result iq_image_write(iq_snapshot_writer *writer, void *image);
/* Makes a directory of all records, as of `lsn`; uuid NULL: with one of its own. */
IQ_FN iqdb_result iq_image_to_directory(iqdb *db, const char *path, const uint8_t *uuid, uint64_t lsn);
/* Into a handle without records; in_place: the snapshot is in memory, has been checked, and outlives the handle. */
IQ_FN iqdb_result iq_image_load(iq_snapshot_reader *reader, iqdb *db, bool in_place);
/* What the snapshot says of itself, where it can be read. */
IQ_FN iqdb_result iq_image_schema(iq_snapshot_reader *reader, iq_schema *out_schema, uint64_t *out_rows);
IQ_FN void iq_verify_records(const iqdb *db, iq_findings *findings);

/* The handle behind a const one: readers pin it, or take the lock for its statistics. */
IQ_FN iqdb *iq_db_of(const iqdb *db);

/* Whether the handle was carried into a child by fork. */
IQ_FN bool iq_db_is_forked(const iqdb *db);

/* ======== [db/backup.c] ======== */
/* Copies of a whole database: blobs and backups. Both are the image that a checkpoint writes, sent somewhere else.
 *
 * 1. A copy is of one LSN. Only taking the image needs the handle to itself; what is written afterwards are rows that
 *    this LSN sees, which do not change.
 * 2. A handle over a blob in place is read-only, and writes nothing into the caller's memory. */

/* In place, ids and references are read as 64-bit numbers. */
#define IQ_BLOB_ALIGNMENT 8u

/* ---- Blobs ---- */

typedef struct iq_export {
    iqdb_write_fn write;
    void *user;
} iq_export;

static iqdb_result iq_export_write(const void *bytes, size_t size, void *user) {
    const iq_export *target = (const iq_export *)user;
    return target->write(bytes, size, target->user) ? IQDB_OK : IQDB_ERR_IO;
}

IQDB_API iqdb_result iqdb_export_blob(iqdb *db, iqdb_write_fn write, void *user) {
    iq_export target = {write, user};
    const iq_sink sink = {iq_export_write, &target};
    iqdb_stats stats;
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (write == NULL) return iq_db_refuse(db, "write is NULL");
    iqdb_result result = iq_db_enter_upkeep(db);
    if (result != IQDB_OK) return result;
    iq_image image = iq_image_take(db);
    iq_snapshot_entry entry = {1, 0, image.lsn, 0};
    memset(&stats, 0, sizeof stats);
    if (db->directory != NULL) iq_directory_describe(db->directory, &stats);
    result = iq_snapshot_produce(&sink, &db->allocator, db->crc32, stats.uuid, &entry, iq_image_write, &image);
    if (result == IQDB_ERR_IO)
        (void)iq_report(&db->reporter, result, NULL, 0, "the caller's function did not take the bytes");
    return iq_db_leave_with(db, result);
}

typedef struct iq_blob_source {
    const void *data;
    size_t size;
    bool in_place;
} iq_blob_source;

/* Every block is checked before anything in it is believed. */
static iqdb_result iq_blob_load(iqdb *db, const iqdb_options *options, const void *from) {
    const iq_blob_source *source = (const iq_blob_source *)from;
    iq_volume volume;
    iq_snapshot_entry entry;
    iq_snapshot_reader *reader;
    iq_schema schema;
    uint64_t rows;
    if (source->in_place && (uintptr_t)source->data % IQ_BLOB_ALIGNMENT != 0)
        return iq_report(&db->reporter, IQDB_ERR_INVALID_ARGUMENT, "blob", 0,
                         "data does not lie at a multiple of 8: align it, or copy it by iqdb_load_blob");
    memset(&volume, 0, sizeof volume);
    volume.allocator = db->allocator;
    volume.reporter = &db->reporter;
    volume.crc32 = db->crc32;
    iqdb_result result = iq_snapshot_open_bytes(&volume, source->data, source->size, &entry, &reader);
    if (result != IQDB_OK) return result;
    result = iq_snapshot_check(reader);
    if (result == IQDB_OK) result = iq_image_schema(reader, &schema, &rows);
    if (result == IQDB_OK) result = iq_db_adopt_schema(db, options, &schema, "blob");
    if (result == IQDB_OK) result = iq_image_load(reader, db, source->in_place);
    iq_snapshot_close(reader);
    if (result != IQDB_OK) return result;
    db->read_only = source->in_place;
    result = iq_db_finish(db, options, "blob");
    iq_records_publish(&db->records, entry.lsn);
    return result;
}

IQDB_API iqdb_result iqdb_open_blob(const void *data, size_t size, const iqdb_options *options, iqdb **out_db) {
    const iq_blob_source source = {data, size, true};
    return iq_db_open(options, iq_blob_load, data != NULL ? &source : NULL, out_db);
}

IQDB_API iqdb_result iqdb_load_blob(const void *data, size_t size, const iqdb_options *options, iqdb **out_db) {
    const iq_blob_source source = {data, size, false};
    return iq_db_open(options, iq_blob_load, data != NULL ? &source : NULL, out_db);
}

/* ---- Backups ---- */

IQDB_API iqdb_result iqdb_backup(iqdb *db, const char *path) {
    iqdb_stats stats;
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (path == NULL) return iq_db_refuse(db, "path is NULL");
    const iqdb_result result = iq_db_enter_upkeep(db);
    if (result != IQDB_OK) return result;
    if (db->directory != NULL) iq_directory_describe(db->directory, &stats);
    const uint8_t *uuid = db->directory != NULL ? stats.uuid : NULL;
    return iq_db_leave_with(db, iq_image_to_directory(db, path, uuid, db->records.lsn));
}

/* ---- A closed database from outside ---- */

static iqdb_result iq_inspect_schema(const iq_schema *schema, void *user) {
    iqdb_stats *stats = (iqdb_stats *)user;
    stats->dim = schema->dim;
    stats->metric = (iqdb_metric)schema->metric;
    return IQDB_OK;
}

static iqdb_result iq_inspect_snapshot(iq_snapshot_reader *reader, void *user) {
    iq_schema schema;
    const iqdb_result result = iq_image_schema(reader, &schema, &((iqdb_stats *)user)->records);
    return result == IQDB_OK ? iq_inspect_schema(&schema, user) : result;
}

IQDB_API iqdb_result iqdb_inspect(const char *path, iqdb_stats *out_stats) {
    iqdb_stats stats;
    const iq_loader loader = {iq_inspect_schema, iq_inspect_snapshot, NULL, &stats};
    iq_directory_config config;
    if (path == NULL || out_stats == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    memset(&config, 0, sizeof config);
    memset(&stats, 0, sizeof stats);
    config.allocator = iq_alloc_default();
    config.files = iqdb_files_default();
    const iqdb_result result = iq_directory_inspect(path, &config, &loader, &stats);
    if (result != IQDB_OK) return result;
    stats.format_version = IQDB_FORMAT_VERSION;
    *out_stats = stats;
    return IQDB_OK;
}

/* ======== [db/facts.c] ======== */
/* What a handle can tell about itself, and the texts of results. */

IQDB_API const char *iqdb_strerror(iqdb_result result) {
    static const char *const texts[] = {
        "ok",
        "input or output error",
        "invalid configuration",
        "invalid vector: empty, too long, or not finite",
        "another dimension than the collection's",
        "corrupt data",
        "not implemented",
        "not found",
        "out of memory",
        "no space left on the disk",
        "locked by another handle",
        "opened for reading only",
        "written by a newer version",
        "beyond a limit",
        "busy: not from inside a callback, nor while iterators live or keep too much",
        "poisoned by an earlier failed write: open again to recover",
        "invalid filter",
        "invalid payload",
        "invalid argument",
        "cancelled",
    };
    const int index = -(int)result;
    return index >= 0 && index < (int)IQ_COUNT_OF(texts) ? texts[index] : "unknown result";
}

IQDB_API uint32_t iqdb_version(void) {
    return IQDB_VERSION;
}

IQDB_API const char *iqdb_simd_name(const iqdb *db) {
    return db != NULL ? db->records.kernel->name : iq_kernel_select(iq_cpu_features(), IQDB_SIMD_BEST)->name;
}

IQDB_API iqdb_result iqdb_stat(const iqdb *db, iqdb_stats *out_stats) {
    if (db == NULL || out_stats == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    const iqdb_result result = iq_db_enter_upkeep(iq_db_of(db));
    if (result != IQDB_OK) return result;
    /* What is told of retired rows are those that somebody may be reading. */
    iq_records_reclaim(&iq_db_of(db)->records);
    iqdb_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.records = db->records.live_count;
    stats.dim = db->records.rows.dim;
    stats.metric = db->metric;
    stats.format_version = IQDB_FORMAT_VERSION;
    stats.in_memory = db->directory == NULL;
    stats.read_only = db->read_only;
    stats.last_lsn = db->records.lsn;
    if (db->directory != NULL) iq_directory_describe(db->directory, &stats);
    stats.vector_bytes = db->records.rows.bytes;
    stats.payload_bytes = db->records.heap.bytes;
    stats.lookup_bytes = (uint64_t)db->records.ids.capacity * sizeof(uint64_t);
    stats.retired_rows = db->records.retired.count;
    stats.retired_bytes = db->records.retired.bytes;
    const uint64_t oldest = iq_epoch_oldest(&iq_db_of(db)->records.epoch);
    stats.oldest_pin_age = oldest == IQ_MOMENT_NEVER ? 0 : db->records.epoch.moment - oldest;
    *out_stats = stats;
    iq_db_leave(iq_db_of(db));
    return IQDB_OK;
}

/* ======== [db/image.c] ======== */
/* The sections of a collection in a snapshot: written from the rows that one LSN sees, loaded into empty memory, or
 * used where they lie.
 *
 * 1. Rows come in the order of memory without the dead, so the same history gives the same bytes.
 * 2. Sections are laid out as memory is (stride, block sizes of the heap), little-endian.
 * 3. Loading trusts no number: sizes must agree with the row count exactly, payload blocks must follow one another
 *    without gap, ids must differ, vectors must be finite and padded with zeros. */

#define IQ_IMAGE_READ 262144u /* bytes of vectors read at a time: the largest one, and half of many a near cache */
#define IQ_IMAGE_AHEAD 16u    /* rows, until the place of an id is there */

/* The sections that have something of every row. */
static const uint32_t iq_image_kinds[] = {IQ_SECTION_IDS, IQ_SECTION_VECTORS, IQ_SECTION_NORMS,
                                          IQ_SECTION_PAYLOAD_REFS};

static size_t iq_image_row_size(const iqdb *db, uint32_t kind) {
    if (kind == IQ_SECTION_VECTORS) return db->records.rows.stride * sizeof(float);
    return kind == IQ_SECTION_NORMS ? 4 : 8;
}

/* ---- Writing ---- */

/* Moves *row to the first row of the image from there on; NULL at the end. */
static const iq_slab *iq_image_row(const iq_image *image, uint32_t *row, uint32_t *out_index) {
    for (; *row < image->row_end; ++*row) {
        const iq_slab *slab = iq_rows_slab(&image->db->records.rows, *row, out_index);
        if (iq_row_visible(slab, *out_index, image->moment)) return slab;
    }
    return NULL;
}

IQ_FN iq_image iq_image_take(iqdb *db) {
    iq_image image = {db, db->records.lsn, db->records.epoch.moment, db->records.rows.count, 0};
    uint32_t index;
    for (uint32_t row = 0; iq_image_row(&image, &row, &index) != NULL; row++) image.count++;
    return image;
}

/* What a section has of one row. *cursor: where the next payload block lies in IQ_SECTION_PAYLOADS. Errors of the writer
 * are sticky, so only the last one is looked at. */
static iqdb_result iq_image_write_row(const iq_image *image, iq_snapshot_writer *writer, uint32_t kind,
                                      const iq_slab *slab, uint32_t index, uint64_t *cursor) {
    const iq_rows *rows = &image->db->records.rows;
    const void *vector = slab->vectors + index * rows->stride;
    const uint64_t ref =
        kind >= IQ_SECTION_PAYLOAD_REFS ? slab->heads[index].payload : 0; /* the heap is dear to look at */
    const iqdb_payload payload = iq_heap_payload(&image->db->records.heap, ref);
    const uint64_t block_size = payload.bytes == NULL ? 0 : iq_heap_block_size(payload.size);
    uint8_t number[8];
    switch (kind) {
    case IQ_SECTION_IDS:
        iq_put_u64(number, slab->heads[index].id);
        return iq_snapshot_write(writer, number, 8);
    case IQ_SECTION_NORMS:
        iq_put_u32(number, iq_f32_bits(slab->norms[index]));
        return iq_snapshot_write(writer, number, 4);
    case IQ_SECTION_VECTORS:
        if (IQ_BIG_ENDIAN) {
            iq_copy_words_le(image->db->encoded.bytes, vector, rows->stride);
            vector = image->db->encoded.bytes;
        }
        return iq_snapshot_write(writer, vector, rows->stride * sizeof(float));
    case IQ_SECTION_PAYLOAD_REFS:
        iq_put_u64(number, payload.bytes == NULL ? 0 : *cursor);
        *cursor += block_size;
        return iq_snapshot_write(writer, number, 8);
    default: /* IQ_SECTION_PAYLOADS */
        if (payload.bytes == NULL) return IQDB_OK;
        iq_put_u32(number, (uint32_t)payload.size);
        (void)iq_snapshot_write(writer, number, 4);
        (void)iq_snapshot_write(writer, payload.bytes, payload.size);
        return iq_snapshot_write(writer, NULL, (size_t)block_size - 4 - payload.size);
    }
}

static iqdb_result iq_image_write_rows(const iq_image *image, iq_snapshot_writer *writer, uint32_t kind,
                                       uint64_t *out_payload_end) {
    const iq_slab *slab;
    uint32_t index;
    iqdb_result result = IQDB_OK;
    *out_payload_end = IQ_HEAP_FIRST_REF;
    for (uint32_t row = 0; result == IQDB_OK && (slab = iq_image_row(image, &row, &index)) != NULL; row++)
        result = iq_image_write_row(image, writer, kind, slab, index, out_payload_end);
    return result;
}

IQ_FN iqdb_result iq_image_write(iq_snapshot_writer *writer, void *user) {
    const iq_image *image = (const iq_image *)user;
    iqdb *db = image->db;
    uint8_t catalog[IQ_CATALOG_SIZE] = {0};
    uint64_t payload_end = IQ_HEAP_FIRST_REF;
    iq_put_u32(catalog + IQ_CATALOG_DIM, db->records.rows.dim);
    iq_put_u32(catalog + IQ_CATALOG_METRIC, (uint32_t)db->metric);
    iq_put_u64(catalog + IQ_CATALOG_ROWS, image->count);
    (void)iq_snapshot_section(writer, 0, IQ_SECTION_CATALOG, sizeof catalog);
    iqdb_result result = iq_snapshot_write(writer, catalog, sizeof catalog);
    db->encoded.size = 0;
    if (IQ_BIG_ENDIAN && result == IQDB_OK)
        result = iq_blob_reserve(&db->encoded, iq_image_row_size(db, IQ_SECTION_VECTORS));
    for (size_t i = 0; i < IQ_COUNT_OF(iq_image_kinds) && image->count > 0 && result == IQDB_OK; i++) {
        result =
            iq_snapshot_section(writer, 0, iq_image_kinds[i], image->count * iq_image_row_size(db, iq_image_kinds[i]));
        if (result == IQDB_OK) result = iq_image_write_rows(image, writer, iq_image_kinds[i], &payload_end);
    }
    /* The last of those were the references: now it is known how many bytes they lead to. */
    if (payload_end == IQ_HEAP_FIRST_REF || result != IQDB_OK) return result;
    (void)iq_snapshot_section(writer, 0, IQ_SECTION_PAYLOADS, payload_end);
    (void)iq_snapshot_write(writer, NULL, IQ_HEAP_FIRST_REF);
    return iq_image_write_rows(image, writer, IQ_SECTION_PAYLOADS, &payload_end);
}

IQ_FN iqdb_result iq_image_to_directory(iqdb *db, const char *path, const uint8_t *uuid, uint64_t lsn) {
    const iq_directory_config config = iq_db_config(db);
    iq_image image = iq_image_take(db);
    const iq_directory_content content = {uuid, lsn, iq_image_write, &image};
    return iq_directory_make(path, &config, &content);
}

/* ---- Loading ---- */

typedef struct iq_image_loader {
    iqdb *db;
    iq_snapshot_reader *reader;
    uint64_t rows;
    bool in_place;
    uint64_t payload_size;   /* of the section */
    uint64_t payload_cursor; /* where the next block must start */
} iq_image_loader;

/* Sizes of all sections against the row count. */
static iqdb_result iq_image_check_sizes(iq_image_loader *loader) {
    for (size_t i = 0; i < IQ_COUNT_OF(iq_image_kinds); i++) {
        const uint32_t kind = iq_image_kinds[i];
        const uint64_t row_size = iq_image_row_size(loader->db, kind);
        uint64_t size;
        if (!iq_snapshot_find(loader->reader, 0, kind, &size))
            return iq_snapshot_reject(loader->reader, 0, IQ_SECTION_CATALOG, 0,
                                      "a section of the collection is missing");
        if (size / row_size != loader->rows || size % row_size != 0)
            return iq_snapshot_reject(loader->reader, 0, kind, 0, "the section has another size than its rows");
    }
    return IQDB_OK;
}

/* The bytes of a section in place, or NULL where they are to be copied. They are only read. */
static uint8_t *iq_image_view(const iq_image_loader *loader, uint32_t kind) {
    union {
        const uint8_t *theirs;
        uint8_t *ours;
    } bytes;
    bytes.theirs = loader->in_place ? iq_snapshot_view(loader->reader, 0, kind) : NULL;
    return bytes.ours;
}

static iqdb_result iq_image_load_payload_bytes(iq_image_loader *loader) {
    uint64_t size;
    loader->payload_cursor = IQ_HEAP_FIRST_REF;
    if (!iq_snapshot_find(loader->reader, 0, IQ_SECTION_PAYLOADS, &size)) return IQDB_OK;
    if (size < IQ_HEAP_FIRST_REF)
        return iq_snapshot_reject(loader->reader, 0, IQ_SECTION_PAYLOADS, 0, "the section is too short");
    if (size > (size_t)-1 / 4) return IQDB_ERR_NOMEM;
    loader->payload_size = size;
    uint8_t *bytes = iq_image_view(loader, IQ_SECTION_PAYLOADS);
    if (bytes != NULL) return iq_heap_borrow(&loader->db->records.heap, bytes, (size_t)size);
    const iqdb_result result = iq_heap_adopt(&loader->db->records.heap, (size_t)size, &bytes);
    if (result != IQDB_OK) return result;
    return iq_snapshot_read(loader->reader, 0, IQ_SECTION_PAYLOADS, 0, bytes, (size_t)size);
}

/* A row's payload: the block that follows the one before. Its length becomes a native number. */
static iqdb_result iq_image_check_payload(iq_image_loader *loader, uint64_t ref) {
    if (ref == 0) return IQDB_OK;
    const uint64_t room = loader->payload_size - loader->payload_cursor;
    if (ref == loader->payload_cursor && loader->payload_cursor < loader->payload_size && room >= 8) {
        const uint8_t *block = (const uint8_t *)iq_heap_payload(&loader->db->records.heap, ref).bytes - 4;
        const uint32_t size = iq_get_u32(block);
        if (size <= room - 4 && iq_heap_block_size(size) <= room && iq_payload_validate(block + 4, size) == IQDB_OK) {
            if (IQ_BIG_ENDIAN) iq_heap_fix_size(&loader->db->records.heap, ref, size);
            loader->payload_cursor += iq_heap_block_size(size);
            return IQDB_OK;
        }
    }
    return iq_snapshot_reject(loader->reader, 0, IQ_SECTION_PAYLOADS, loader->payload_cursor,
                              "a payload is malformed or out of place");
}

static iqdb_result iq_image_check_row(iq_image_loader *loader, const iq_slab *slab, uint32_t index, uint32_t row) {
    iqdb *db = loader->db;
    const float *vector = slab->vectors + index * db->records.rows.stride;
    /* A norm may be infinite (components near FLT_MAX), but neither NaN nor negative. */
    bool sound = iq_vector_is_finite(db->records.kernel, vector, db->records.rows.dim) &&
                 iq_f32_bits(slab->norms[index]) <= 0x7F800000u;
    for (size_t i = db->records.rows.dim; i < db->records.rows.stride; i++)
        sound = sound && iq_f32_bits(vector[i]) == 0;
    if (!sound)
        return iq_snapshot_reject(loader->reader, 0, IQ_SECTION_VECTORS,
                                  (uint64_t)row * db->records.rows.stride * sizeof(float), "a vector is not one");
    const uint64_t id = slab->heads[index].id;
    uint32_t twin;
    uint64_t *place = iq_ids_place(&db->records.ids, &db->records.rows, id, &twin);
    if (twin != IQ_ROW_NONE)
        return iq_snapshot_reject(loader->reader, 0, IQ_SECTION_IDS, (uint64_t)row * 8, "an id stands twice");
    iq_ids_put(&db->records.ids, place, id, row);
    iq_rows_set_filled(slab, index, true);
    db->records.live_count++;
    return iq_image_check_payload(loader, slab->heads[index].payload);
}

/* `width` floats of each row. */
static iqdb_result iq_image_read_floats(iq_image_loader *loader, uint32_t kind, uint64_t first, uint32_t count,
                                        size_t width, float *out) {
    const size_t row_size = width * sizeof(float);
    const iqdb_result result = iq_snapshot_read(loader->reader, 0, kind, first * row_size, out, count * row_size);
    if (IQ_BIG_ENDIAN && result == IQDB_OK) iq_copy_words_le(out, out, count * width);
    return result;
}

/* The heads of rows, from their ids and payload references in the file's byte order. */
static void iq_image_fill_heads(iq_row_head *heads, const uint8_t *ids, const uint8_t *payloads, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        heads[i].id = iq_get_u64(ids + (size_t)i * 8);
        heads[i].payload = iq_get_u64(payloads + (size_t)i * 8);
        heads[i].birth = 0;
        heads[i].death = IQ_MOMENT_NEVER;
        heads[i].previous = heads[i].next = IQ_ROW_NONE;
    }
}

/* Heads and norms of the rows [first, first + count), which are the first ones of a new slab. What the heads are made of
 * waits where the vectors will be: none of those is smaller. */
static iqdb_result iq_image_load_heads(iq_image_loader *loader, size_t slab_number, uint32_t first, uint32_t count) {
    iq_rows *rows = &loader->db->records.rows;
    iqdb_result result = iq_rows_reserve(rows, first + count);
    if (result != IQDB_OK) return result;
    const iq_slab *slab = &rows->slabs[slab_number];
    const size_t at = (size_t)first * 8, size = (size_t)count * 8;
    rows->count = first + count;
    if (loader->in_place) {
        iq_image_fill_heads(slab->heads, iq_image_view(loader, IQ_SECTION_IDS) + at,
                            iq_image_view(loader, IQ_SECTION_PAYLOAD_REFS) + at, count);
        return IQDB_OK;
    }
    uint8_t *ids = (uint8_t *)(void *)slab->vectors, *payloads = ids + size;
    result = iq_snapshot_read(loader->reader, 0, IQ_SECTION_IDS, at, ids, size);
    if (result == IQDB_OK) result = iq_snapshot_read(loader->reader, 0, IQ_SECTION_PAYLOAD_REFS, at, payloads, size);
    if (result != IQDB_OK) return result;
    iq_image_fill_heads(slab->heads, ids, payloads, count);
    return iq_image_read_floats(loader, IQ_SECTION_NORMS, first, count, 1, slab->norms);
}

/* The rows from `first` to the end of their slab, or to the last one: their vectors piece by piece, so that each is
 * still in the cache when its rows are checked. */
static iqdb_result iq_image_load_slab(iq_image_loader *loader, size_t slab_number, uint32_t first) {
    iqdb *db = loader->db;
    const iq_rows *rows = &db->records.rows;
    const uint32_t piece = IQ_IMAGE_READ / (uint32_t)(rows->stride * sizeof(float));
    uint32_t count = iq_slab_rows(rows, slab_number);
    if (count > loader->rows - first) count = (uint32_t)(loader->rows - first);
    iqdb_result result = iq_image_load_heads(loader, slab_number, first, count);
    for (uint32_t i = 0; i < count && result == IQDB_OK; i++) {
        const iq_slab *slab = &rows->slabs[slab_number];
        if (i % piece == 0 && !loader->in_place)
            result = iq_image_read_floats(loader, IQ_SECTION_VECTORS, (uint64_t)first + i,
                                          count - i < piece ? count - i : piece, rows->stride,
                                          slab->vectors + i * rows->stride);
        if (i + IQ_IMAGE_AHEAD < count) iq_ids_prefetch(&db->records.ids, slab->heads[i + IQ_IMAGE_AHEAD].id);
        if (result == IQDB_OK) result = iq_image_check_row(loader, slab, i, first + i);
    }
    return result;
}

IQ_FN iqdb_result iq_image_schema(iq_snapshot_reader *reader, iq_schema *out_schema, uint64_t *out_rows) {
    uint8_t catalog[IQ_CATALOG_SIZE];
    uint64_t size;
    if (!iq_snapshot_find(reader, 0, IQ_SECTION_CATALOG, &size) || size != sizeof catalog)
        return iq_snapshot_reject(reader, 0, IQ_SECTION_CATALOG, 0, "the collection has no catalog");
    const iqdb_result result = iq_snapshot_read(reader, 0, IQ_SECTION_CATALOG, 0, catalog, sizeof catalog);
    if (result != IQDB_OK) return result;
    out_schema->dim = iq_get_u32(catalog + IQ_CATALOG_DIM);
    out_schema->metric = iq_get_u32(catalog + IQ_CATALOG_METRIC);
    out_schema->element = iq_get_u32(catalog + IQ_CATALOG_ELEMENT);
    *out_rows = iq_get_u64(catalog + IQ_CATALOG_ROWS);
    const uint32_t dim = out_schema->dim;
    if (dim > IQDB_DIM_MAX || (dim == 0 && *out_rows > 0) || *out_rows > IQ_ROW_COUNT_MAX || out_schema->element != 0 ||
        out_schema->metric < IQDB_L2 || out_schema->metric > IQDB_L1)
        return iq_snapshot_reject(reader, 0, IQ_SECTION_CATALOG, 0, "the catalog makes no sense");
    return IQDB_OK;
}

IQ_FN iqdb_result iq_image_load(iq_snapshot_reader *reader, iqdb *db, bool in_place) {
    iq_image_loader loader;
    iq_schema schema;
    memset(&loader, 0, sizeof loader);
    loader.db = db;
    loader.reader = reader;
    loader.in_place = in_place && !IQ_BIG_ENDIAN;
    iqdb_result result = iq_image_schema(reader, &schema, &loader.rows);
    if (result != IQDB_OK) return result;
    if (schema.metric != (uint32_t)db->metric)
        return iq_snapshot_reject(reader, 0, IQ_SECTION_CATALOG, 0, "the catalog has another metric than META");
    if (schema.dim != 0) iq_rows_set_dim(&db->records.rows, schema.dim);
    if (loader.rows == 0) return IQDB_OK;
    result = iq_image_check_sizes(&loader);
    if (result == IQDB_OK) result = iq_ids_reserve(&db->records.ids, (size_t)loader.rows);
    if (result == IQDB_OK) result = iq_image_load_payload_bytes(&loader);
    if (result == IQDB_OK && loader.in_place) {
        db->records.rows.lent.vectors = (float *)(void *)iq_image_view(&loader, IQ_SECTION_VECTORS);
        db->records.rows.lent.norms = (float *)(void *)iq_image_view(&loader, IQ_SECTION_NORMS);
    }
    for (size_t slab = 0; result == IQDB_OK && iq_slab_first_row(&db->records.rows, slab) < loader.rows; slab++)
        result = iq_image_load_slab(&loader, slab, (uint32_t)iq_slab_first_row(&db->records.rows, slab));
    if (result == IQDB_OK && loader.payload_size != 0 && loader.payload_cursor != loader.payload_size)
        result =
            iq_snapshot_reject(reader, 0, IQ_SECTION_PAYLOADS, loader.payload_cursor, "bytes behind the last payload");
    return result;
}

/* ======== [db/iterate.c] ======== */
/* Iteration: a pin, and a walk over the rows.
 *
 * 1. A pinned moment keeps every row that it sees where it is, with its payload, so a record needs no copy.
 * 2. No row that it sees lies beyond those of its beginning, so a loop that writes comes to an end. */

IQDB_API iqdb_iter iqdb_iter_begin(const iqdb *db, const iqdb_filter *filter) {
    iqdb_iter iter;
    iq_pin pin;
    iq_program *program = NULL;
    memset(&iter, 0, sizeof iter);
    iter.record = iqdb_record_default();
    iter.db = db;
    iter.result = db == NULL ? IQDB_ERR_INVALID_ARGUMENT : iq_db_enter_read(db, &pin);
    if (iter.result != IQDB_OK) return iter;
    if (filter != NULL) iter.result = iq_program_make(db, filter, &program);
    if (iter.result != IQDB_OK) {
        iq_db_leave_read(db, pin);
        return iter;
    }
    iter.program = program;
    iter.pinned = true;
    iter.pin = pin.slot;
    iter.moment = pin.moment;
    /* Where no record is seen the rows may be taken apart again: the first write may fail and leave no dimension. */
    if (pin.count > 0) iter.end = IQ_ATOMIC_LOAD(&db->records.rows.count);
    return iter;
}

IQDB_API bool iqdb_iter_next(iqdb_iter *iter) {
    if (iter == NULL || !iter->pinned || iter->result != IQDB_OK) return false;
    const iq_records *records = &iter->db->records;
    if (IQ_ATOMIC_LOAD(&iter->db->owner) == iq_thread_identity()) {
        iter->result = IQDB_ERR_BUSY;
        return false;
    }
    const iq_program *program = (const iq_program *)iter->program;
    while (iter->position < iter->end) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&records->rows, (uint32_t)iter->position++, &index);
        if (iq_slab_seek(slab, index, index + 1, true) != index || !iq_row_visible(slab, index, iter->moment)) continue;
        const iqdb_record record = iq_db_record_at(iter->db, slab, index);
        if (program != NULL && !iq_filter_accepts(&program->filter, record.payload)) continue;
        iter->record = record;
        return true;
    }
    return false;
}

IQDB_API void iqdb_iter_end(iqdb_iter *iter) {
    if (iter == NULL || !iter->pinned) return;
    iq_epoch_unpin(&iq_db_of(iter->db)->records.epoch, (iq_slot *)iter->pin);
    iq_program_free(iter->db, (iq_program *)iter->program);
    iter->program = NULL;
    iter->pinned = false;
}

/* ======== [db/lock.c] ======== */
/* Entering and leaving a call.
 *
 * 1. `owner` is this thread's identity only while this thread holds the lock, so comparing without it is safe: another
 *    thread's value never equals ours.
 * 2. A reader's entry is that comparison and a pin: it waits for nobody. */

IQ_FN iqdb *iq_db_of(const iqdb *db) {
    union {
        const iqdb *shared;
        iqdb *mine;
    } handle;
    handle.shared = db;
    return handle.mine;
}

IQ_FN bool iq_db_is_forked(const iqdb *db) {
    return db->directory != NULL && db->process != iq_process_identity();
}

IQ_FN iqdb_result iq_db_enter_read(const iqdb *db, iq_pin *out_pin) {
    const uintptr_t self = iq_thread_identity();
    if (IQ_ATOMIC_LOAD(&db->owner) == self) return IQDB_ERR_BUSY;
    *out_pin = iq_epoch_pin(&iq_db_of(db)->records.epoch, self);
    return IQDB_OK;
}

IQ_FN void iq_db_leave_read(const iqdb *db, iq_pin pin) {
    iq_epoch_unpin(&iq_db_of(db)->records.epoch, pin.slot);
}

IQ_FN iqdb_result iq_db_enter_upkeep(iqdb *db) {
    const uintptr_t self = iq_thread_identity();
    if (IQ_ATOMIC_LOAD(&db->owner) == self) return IQDB_ERR_BUSY;
    iq_mutex_lock(&db->mutex);
    IQ_ATOMIC_STORE(&db->owner, self);
    db->told = false;
    return IQDB_OK;
}

IQ_FN iqdb_result iq_db_enter_write(iqdb *db) {
    iqdb_result result = iq_db_enter_upkeep(db);
    if (result == IQDB_OK && db->read_only)
        return iq_db_leave_with(db, iq_report(&db->reporter, IQDB_ERR_READONLY, NULL, 0,
                                              "the handle is over a blob: iqdb_load_blob makes one to be written"));
    if (result != IQDB_OK || db->directory == NULL) return result;
    const iqdb_result allowed = iq_directory_check(db->directory);
    if (allowed == IQDB_ERR_READONLY) {
        result = iq_report(&db->reporter, IQDB_ERR_READONLY, NULL, 0, "the handle was opened for reading only");
    } else if (allowed == IQDB_ERR_POISONED) {
        result = iq_report(&db->reporter, IQDB_ERR_POISONED, NULL, 0,
                           "an earlier write failed half-way; close and open again to recover");
    } else if (iq_db_is_forked(db)) {
        result = iq_report(&db->reporter, IQDB_ERR_LOCKED, "LOCK", 0,
                           "the handle belongs to the parent process; open the directory anew");
    }
    return result == IQDB_OK ? result : iq_db_leave_with(db, result);
}

IQ_FN void iq_db_leave(iqdb *db) {
    IQ_ATOMIC_STORE(&db->owner, (uintptr_t)0);
    iq_mutex_unlock(&db->mutex);
}

IQ_FN iqdb_result iq_db_leave_with(iqdb *db, iqdb_result result) {
    const iqdb_error *error = db->reporter.error;
    /* A clean-up may have failed after what this call fails with, and have had the last word. */
    const bool told = db->told && (error == NULL || error->code == result);
    if (result != IQDB_OK && !told) (void)iq_report(&db->reporter, result, NULL, 0, iqdb_strerror(result));
    iq_db_leave(db);
    return result;
}

IQ_FN iqdb_result iq_db_refuse(iqdb *db, const char *why) {
    if (iq_db_enter_upkeep(db) == IQDB_OK) {
        (void)iq_report(&db->reporter, IQDB_ERR_INVALID_ARGUMENT, NULL, 0, why);
        iq_db_leave(db);
    }
    return IQDB_ERR_INVALID_ARGUMENT;
}

IQ_FN iqdb_record iq_db_record_at(const iqdb *db, const iq_slab *slab, uint32_t index) {
    iqdb_record record = iqdb_record_default();
    record.id = slab->heads[index].id;
    record.vector = slab->vectors + index * db->records.rows.stride;
    record.dim = db->records.rows.dim;
    record.payload = iq_heap_payload(&db->records.heap, slab->heads[index].payload);
    return record;
}

/* ======== [db/open.c] ======== */
/* Opening, loading, and closing a handle; flush and checkpoint. */

/* ---- Options ---- */

static bool iq_files_are_whole(const iqdb_files *files) {
    return files->dir_close_fn != NULL && files->dir_sync_fn != NULL && files->dir_list_fn != NULL &&
           files->remove_fn != NULL && files->open_fn != NULL && files->close_fn != NULL && files->size_fn != NULL &&
           files->read_fn != NULL && files->write_fn != NULL && files->sync_fn != NULL && files->lock_fn != NULL;
}

/* NULL, or what is wrong. */
static const char *iq_options_complaint(const iqdb_options *options) {
    if (options->dim > IQDB_DIM_MAX) return "options.dim is beyond IQDB_DIM_MAX";
    if (options->metric < IQDB_METRIC_DEFAULT || options->metric > IQDB_L1) return "options.metric is unknown";
    if (options->sync < IQDB_SYNC_FLUSH || options->sync > IQDB_SYNC_EACH) return "options.sync is unknown";
    if (options->verify < IQDB_DEPTH_DEFAULT || options->verify > IQDB_DEPTH_RECORDS)
        return "options.verify is unknown";
    if (options->simd_max < IQDB_SIMD_BEST || options->simd_max > IQDB_SIMD_NEON) return "options.simd_max is unknown";
    if (options->allocator.alloc_fn != NULL && options->allocator.free_fn == NULL)
        return "options.allocator has no free_fn";
    if (options->allocator.alloc_fn == NULL && !iq_alloc_has_default())
        return "options.allocator is needed: IQDB_NO_MALLOC has left out malloc";
    if (options->files.dir_open_fn != NULL && !iq_files_are_whole(&options->files))
        return "options.files has a function missing";
    return NULL;
}

IQDB_API iqdb_options iqdb_options_default(void) {
    iqdb_options options;
    memset(&options, 0, sizeof options);
    return options;
}

/* ---- The handle ---- */

IQ_FN void iq_db_free(iqdb *db) {
    const iqdb_allocator allocator = db->allocator;
    iq_free(&allocator, db->staged, db->staged_capacity * sizeof(uint32_t), 16);
    iq_blob_free(&db->encoded);
    iq_records_free(&db->records);
    iq_mutex_destroy(&db->mutex);
    iq_free(&allocator, db, sizeof *db, IQ_CACHE_LINE);
}

static iqdb_result iq_db_new(const iqdb_options *options, iqdb **out_db) {
    iq_reporter reporter;
    reporter.error = options->error;
    reporter.logger = options->logger;
    reporter.told = NULL;
    if (reporter.error != NULL) *reporter.error = iq_error_make(IQDB_OK, NULL, 0, NULL);
    const char *complaint = iq_options_complaint(options);
    if (complaint != NULL) return iq_report(&reporter, IQDB_ERR_INVALID_CONFIG, NULL, 0, complaint);
    const iqdb_allocator allocator = options->allocator.alloc_fn != NULL ? options->allocator : iq_alloc_default();
    iqdb *db = (iqdb *)iq_alloc_zeroed(&allocator, sizeof *db, IQ_CACHE_LINE);
    if (db == NULL || !iq_mutex_init(&db->mutex)) {
        iq_free(&allocator, db, sizeof *db, IQ_CACHE_LINE);
        return iq_report(&reporter, IQDB_ERR_NOMEM, NULL, 0, "no memory for a handle");
    }
    db->allocator = allocator;
    db->reporter = reporter;
    db->reporter.told = &db->told;
    db->parallel_for = options->parallel_for;
    db->sync = options->sync;
    db->compact_on_close = options->compact_on_close;
    db->metric = options->metric == IQDB_METRIC_DEFAULT ? IQDB_COSINE : options->metric;
    db->process = iq_process_identity();
    db->encoded.allocator = &db->allocator;
    db->cpu_features = iq_cpu_features();
    db->crc32 = iq_crc32_select(db->cpu_features, options->simd_max);
    db->files = options->files.dir_open_fn != NULL ? options->files : iqdb_files_default();
    db->entropy = options->entropy;
    if (db->entropy.fill_fn == NULL) db->entropy.fill_fn = iq_sys_entropy;
    iq_records_init(&db->records, &db->allocator, iq_kernel_select(db->cpu_features, options->simd_max));
    if (options->dim != 0) iq_rows_set_dim(&db->records.rows, options->dim);
    db->records.retired_max = options->retired_max != 0 ? options->retired_max : (uint64_t)256 << 20;
    iq_records_publish(&db->records, 0);
    *out_db = db;
    return IQDB_OK;
}

/* ---- Loading ---- */

typedef struct iq_opening {
    iqdb *db;
    const iqdb_options *options;
} iq_opening;

IQ_FN iqdb_result iq_db_adopt_schema(iqdb *db, const iqdb_options *options, const iq_schema *schema, const char *file) {
    const uint32_t metric = schema->metric, wanted = (uint32_t)options->metric;
    if (metric < IQDB_L2 || metric > IQDB_L1 || schema->element != 0 || schema->dim > IQDB_DIM_MAX)
        return iq_report(&db->reporter, IQDB_ERR_CORRUPT, file, 0, "the collection's description makes no sense");
    if (wanted != 0 && wanted != metric)
        return iq_report(&db->reporter, IQDB_ERR_INVALID_CONFIG, file, 0,
                         "options.metric differs from the stored metric");
    db->metric = (iqdb_metric)metric;
    /* What is stored fixes the dimension; options.dim is compared when all is loaded. */
    iq_rows_set_dim(&db->records.rows, schema->dim);
    return IQDB_OK;
}

/* A finding of options.verify goes where every other failure of open goes. */
static void iq_open_report(const iqdb_error *finding, void *user) {
    (void)iq_report_error(&((const iqdb *)user)->reporter, finding);
}

IQ_FN iqdb_result iq_db_finish(iqdb *db, const iqdb_options *options, const char *file) {
    if (db->records.rows.dim == 0) {
        iq_rows_set_dim(&db->records.rows, options->dim);
    } else if (options->dim != 0 && options->dim != db->records.rows.dim) {
        return iq_report(&db->reporter, IQDB_ERR_INVALID_CONFIG, file, 0,
                         "options.dim differs from the stored dimension");
    }
    iq_findings findings = iq_findings_make(iq_open_report, db);
    if (options->verify == IQDB_DEPTH_RECORDS) iq_verify_records(db, &findings);
    return findings.first;
}

static iqdb_result iq_open_schema(const iq_schema *schema, void *user) {
    const iq_opening *opening = (const iq_opening *)user;
    return iq_db_adopt_schema(opening->db, opening->options, schema, "META");
}

static iqdb_result iq_open_snapshot(iq_snapshot_reader *reader, void *user) {
    return iq_image_load(reader, ((const iq_opening *)user)->db, false);
}

static iqdb_result iq_open_upsert(iqdb *db, const iq_logged_record *record) {
    iqdb_payload payload;
    uint32_t row;
    payload.bytes = record->has_payload ? record->payload : NULL;
    payload.size = record->payload_size;
    if (db->records.rows.dim == 0) iq_rows_set_dim(&db->records.rows, record->dim);
    if (record->dim != db->records.rows.dim) return IQDB_ERR_CORRUPT;
    db->encoded.size = 0;
    iqdb_result result = iq_blob_reserve(&db->encoded, record->dim * sizeof(float));
    if (result != IQDB_OK) return result;
    iq_copy_words_le(db->encoded.bytes, record->vector, record->dim);
    result = iq_records_stage(&db->records, record->id, (const float *)(const void *)db->encoded.bytes, payload, &row);
    if (result == IQDB_OK) iq_records_upsert(&db->records, row);
    return result;
}

IQ_FN iqdb_result iq_db_replay(iqdb *db, const uint8_t *bytes, size_t size, uint64_t commit_lsn) {
    iq_logged_record record;
    iqdb_result result = iq_record_decode(bytes, size, &record);
    if (result == IQDB_OK && record.collection != 0) result = IQDB_ERR_CORRUPT;
    if (result == IQDB_OK) result = iq_records_reserve(&db->records, 1);
    if (result != IQDB_OK) return result;
    if (record.type == IQ_RECORD_UPSERT) {
        result = iq_open_upsert(db, &record);
    } else {
        (void)iq_records_delete(&db->records, record.id);
    }
    if (result == IQDB_OK) iq_records_publish(&db->records, commit_lsn);
    return result;
}

static iqdb_result iq_open_record(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user) {
    return iq_db_replay(((const iq_opening *)user)->db, bytes, size, commit_lsn);
}

IQ_FN iq_schema iq_db_schema(const iqdb *db) {
    iq_schema schema;
    schema.dim = db->records.rows.dim;
    schema.metric = (uint32_t)db->metric;
    schema.element = 0;
    return schema;
}

IQ_FN iq_directory_config iq_db_config(const iqdb *db) {
    iq_directory_config config;
    memset(&config, 0, sizeof config);
    config.allocator = db->allocator;
    config.files = db->files;
    config.entropy = db->entropy;
    config.reporter = &db->reporter;
    config.crc32 = db->crc32;
    config.schema = iq_db_schema(db);
    return config;
}

/* Everything of iqdb_open behind an empty handle. */
static iqdb_result iq_open_directory(iqdb *db, const iqdb_options *options, const void *path) {
    iq_directory_config config = iq_db_config(db);
    iq_opening opening = {db, options};
    const iq_loader loader = {iq_open_schema, iq_open_snapshot, iq_open_record, &opening};
    iqdb_stats stats;
    config.read_only = options->read_only;
    iqdb_result result = iq_directory_open((const char *)path, &config, &loader, &db->directory);
    if (result != IQDB_OK) return result;
    iq_directory_describe(db->directory, &stats);
    result = iq_db_finish(db, options, "META");
    iq_records_publish(&db->records, stats.last_lsn);
    const iq_schema schema = iq_db_schema(db);
    iq_directory_set_schema(db->directory, &schema);
    return result;
}

IQ_FN iqdb_result iq_db_open(const iqdb_options *options, iq_fill_fn fill_fn, const void *source, iqdb **out_db) {
    const iqdb_options defaults = iqdb_options_default();
    iqdb *db = NULL;
    if (out_db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    *out_db = NULL;
    if (source == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (options == NULL) options = &defaults;
    iqdb_result result = iq_db_new(options, &db);
    if (result != IQDB_OK) return result;
    /* Callbacks that run while the handle is opened find it taken; nobody else has it. */
    (void)iq_db_enter_upkeep(db);
    result = iq_db_leave_with(db, fill_fn(db, options, source));
    if (result == IQDB_OK) {
        *out_db = db;
        return result;
    }
    if (db->directory != NULL) (void)iq_directory_close(db->directory);
    iq_db_free(db);
    return result;
}

IQDB_API iqdb_result iqdb_open(const char *path, const iqdb_options *options, iqdb **out_db) {
    return iq_db_open(options, iq_open_directory, path, out_db);
}

IQDB_API iqdb_result iqdb_open_in_memory(const iqdb_options *options, iqdb **out_db) {
    const iqdb_options defaults = iqdb_options_default();
    if (out_db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    *out_db = NULL;
    return iq_db_new(options != NULL ? options : &defaults, out_db);
}

/* ---- Upkeep and close ---- */

IQDB_API iqdb_result iqdb_flush(iqdb *db) {
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    iqdb_result result = iq_db_enter_upkeep(db);
    if (result != IQDB_OK) return result;
    if (db->directory != NULL) result = iq_db_is_forked(db) ? IQDB_ERR_LOCKED : iq_directory_flush(db->directory);
    return iq_db_leave_with(db, result);
}

static iqdb_result iq_db_checkpoint(iqdb *db) {
    iq_image image = iq_image_take(db);
    return iq_directory_checkpoint(db->directory, iq_image_write, &image);
}

IQDB_API iqdb_result iqdb_checkpoint(iqdb *db) {
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    iqdb_result result = iq_db_enter_write(db);
    if (result != IQDB_OK) return result;
    if (db->directory != NULL) result = iq_db_checkpoint(db);
    return iq_db_leave_with(db, result);
}

static iqdb_result iq_close_directory(iqdb *db) {
    iq_directory *directory = db->directory;
    iqdb_result result = IQDB_OK;
    if (directory == NULL) return IQDB_OK;
    if (iq_db_is_forked(db)) {
        iq_directory_abandon(directory);
        return IQDB_OK;
    }
    if (db->compact_on_close && iq_directory_check(directory) == IQDB_OK && !iq_directory_is_compact(directory))
        result = iq_db_checkpoint(db);
    const iqdb_result closed = iq_directory_close(directory);
    return result != IQDB_OK ? result : closed;
}

IQDB_API iqdb_result iqdb_close(iqdb *db) {
    if (db == NULL) return IQDB_OK;
    iqdb_result result = iq_db_enter_upkeep(db);
    if (result != IQDB_OK) return result;
    /* Pins that other threads had when the process forked will never be given back in the child. */
    if (!iq_db_is_forked(db) && iq_epoch_oldest(&db->records.epoch) != IQ_MOMENT_NEVER) {
        iq_db_leave(db);
        return IQDB_ERR_BUSY;
    }
    result = iq_db_leave_with(db, iq_close_directory(db));
    iq_db_free(db);
    return result;
}

/* ======== [db/query.c] ======== */
/* Search: checks, the query vector in aligned memory, the index, and the hits with their payloads.
 *
 * 1. The caller's hits array is the heap of the top-k; no memory grows with k.
 * 2. Checks come in the order of the manual's table, all of them before the first hit is written.
 * 3. A call pins one moment throughout, so all queries of a batch see one state.
 * 4. Scratch is left for the next search: once as many have run at once, none allocates. Only to have more a search takes
 *    the lock, for allocators are called by one thread at a time. */

/* What a search holds for a batch; only a vector alone may take more. */
#define IQ_SCRATCH_VECTOR_BYTES ((size_t)128 * 1024)
/* What it holds for the hits of other tasks, and the vectors that make a task worth its start. */
#define IQ_SCRATCH_HIT_BYTES ((size_t)1024 * 1024)
#define IQ_TASK_BYTES ((uint64_t)256 * 1024)
#define IQ_TASK_COUNT_MAX 64

/* One running call. */
typedef struct iq_search {
    const iqdb *db;
    const iqdb_query *query;
    iq_pin pin;
    iq_scratch *scratch;
    uint32_t row_count;      /* among which all lie that the pin sees */
    size_t group;            /* vectors that share a pass over the rows */
    size_t task_count;       /* tasks that share the rows of a pass */
    size_t k;                /* hits wanted, and there at most */
    iq_filter_layout layout; /* of the query's filter; all 0 where there is none */
    iq_filter filter;        /* compiled into the scratch */
} iq_search;

static void iq_search_plan(iq_search *search, size_t vector_count) {
    const iqdb *db = search->db;
    const size_t row_bytes = db->records.rows.stride * sizeof(float), most = IQ_SCRATCH_VECTOR_BYTES / row_bytes;
    search->row_count = IQ_ATOMIC_LOAD(&db->records.rows.count);
    search->k = search->query->k < search->pin.count ? search->query->k : (size_t)search->pin.count;
    search->group = vector_count < IQ_FLAT_COUNT_MAX ? vector_count : IQ_FLAT_COUNT_MAX;
    if (search->group > most) search->group = most > 0 ? most : 1;
    search->task_count = 1;
    /* A predicate is asked in the caller's thread. */
    if (db->parallel_for.run_fn == NULL || search->query->predicate != NULL) return;
    const uint64_t worth = (uint64_t)search->row_count * row_bytes * search->group / IQ_TASK_BYTES;
    const size_t room = IQ_SCRATCH_HIT_BYTES / sizeof(iqdb_hit) / search->group / search->k;
    size_t tasks =
        db->parallel_for.worker_count < IQ_TASK_COUNT_MAX ? db->parallel_for.worker_count : IQ_TASK_COUNT_MAX;
    if (tasks > worth) tasks = (size_t)worth;
    if (tasks > room + 1) tasks = room + 1;
    if (tasks > 1) search->task_count = tasks;
}

/* Gives scratch back, or gets so much of it in its place; 0 is none. The old one stays where there is no memory. */
static iqdb_result iq_search_change_scratch(iq_search *search, size_t size_bytes) {
    iqdb *db = iq_db_of(search->db);
    iqdb_result result = iq_db_enter_upkeep(db);
    if (result != IQDB_OK) return result;
    iq_scratch *made = size_bytes == 0 ? NULL : (iq_scratch *)iq_alloc(&db->allocator, size_bytes, IQ_CACHE_LINE);
    if (made == NULL && size_bytes > 0) {
        result = IQDB_ERR_NOMEM;
    } else {
        if (search->scratch != NULL)
            iq_free(&db->allocator, search->scratch, search->scratch->size_bytes, IQ_CACHE_LINE);
        search->scratch = made;
        if (made != NULL) made->size_bytes = size_bytes;
    }
    iq_db_leave(db);
    return result;
}

/* Scratch with room for `size` bytes, a multiple of 16, and behind them the program of the query's filter. */
static iqdb_result iq_search_take_room(iq_search *search, size_t size) {
    const size_t whole = size + search->layout.size_bytes;
    if (search->scratch == NULL)
        search->scratch = iq_epoch_take_scratch(&iq_db_of(search->db)->records.epoch, search->pin.slot);
    iqdb_result result = IQDB_OK;
    if (search->scratch == NULL || search->scratch->size_bytes < whole)
        result = iq_search_change_scratch(search, whole);
    if (result == IQDB_OK && search->query->filter != NULL)
        iq_filter_compile(search->query->filter, &search->layout, (uint8_t *)search->scratch + size, &search->filter);
    return result;
}

/* Scratch for the plan: vectors as iq_flat_query wants them, probes, and hits of all tasks but the first. */
static iqdb_result iq_search_find_room(iq_search *search) {
    const iqdb *db = search->db;
    const size_t vector = search->group * db->records.rows.stride * sizeof(float);
    const size_t probes = search->group * search->task_count * sizeof(iq_flat_probe);
    const size_t hits = search->group * (search->task_count - 1) * search->k * sizeof(iqdb_hit);
    return iq_search_take_room(search, iq_round_up(IQ_CACHE_LINE + vector + probes + hits, 16));
}

static void iq_search_end(iq_search *search) {
    iq_epoch *epoch = &iq_db_of(search->db)->records.epoch;
    if (search->scratch != NULL && !iq_epoch_leave_scratch(epoch, search->pin.slot, search->scratch))
        (void)iq_search_change_scratch(search, 0);
    iq_db_leave_read(search->db, search->pin);
}

static bool iq_search_accept(const iq_slab *slab, uint32_t index, void *user) {
    const iq_search *search = (const iq_search *)user;
    const iqdb_record record = iq_db_record_at(search->db, slab, index);
    if (search->query->filter != NULL && !iq_filter_accepts(&search->filter, record.payload)) return false;
    return search->query->predicate == NULL || search->query->predicate(&record, search->query->user);
}

/* What can be said without a look at the database, but for the filter. */
static iqdb_result iq_query_check_arguments(const iqdb_query *query, const void *vectors, size_t vector_count,
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

/* The same with the filter, whose program is measured here and compiled once there is memory. */
static iqdb_result iq_query_check(const iqdb_query *query, const void *vectors, size_t vector_count,
                                  const iqdb_hit *hits, iq_filter_layout *out_layout) {
    const iqdb_result result = iq_query_check_arguments(query, vectors, vector_count, hits);
    memset(out_layout, 0, sizeof *out_layout);
    if (result != IQDB_OK || query->filter == NULL) return result;
    return iq_filter_measure(query->filter, out_layout) == NULL ? IQDB_OK : IQDB_ERR_INVALID_FILTER;
}

/* The vectors themselves, and whether there is anything to search: *out_empty ends the call with no hits. */
static iqdb_result iq_search_check_vectors(const iq_search *search, const float *vectors, size_t vector_count,
                                           bool *out_empty) {
    const iqdb_query *query = search->query;
    const size_t own_dim = IQ_ATOMIC_LOAD(&search->db->records.dim), dim = query->dim != 0 ? query->dim : own_dim;
    size_t size;
    *out_empty = true;
    if (query->k == 0 || vector_count == 0) return IQDB_OK;
    if (dim > IQDB_DIM_MAX) return IQDB_ERR_INVALID_VECTOR;
    if (!iq_mul(vector_count, dim * sizeof(float), &size)) return IQDB_ERR_INVALID_ARGUMENT;
    if (iq_buffer_overlaps(query->buffer, vectors, size)) return IQDB_ERR_INVALID_ARGUMENT;
    for (size_t i = 0; i < vector_count; i++)
        if (!iq_vector_is_finite(search->db->records.kernel, vectors + i * dim, dim)) return IQDB_ERR_INVALID_VECTOR;
    *out_empty = search->pin.count == 0;
    if (!*out_empty && dim != own_dim) return IQDB_ERR_DIMENSION_MISMATCH;
    return IQDB_OK;
}

/* The k best for each of `count` vectors, at most the group, sorted; the tag of each hit is its row. */
static void iq_search_pass(iq_search *search, const float *vectors, size_t count, iqdb_hit *hits, size_t *counts) {
    iq_flat_query flat;
    const iqdb *db = search->db;
    const iqdb_query *query = search->query;
    iqdb_hit after = query->after;
    const size_t dim = db->records.rows.dim, stride = db->records.rows.stride;
    float *padded = (float *)(void *)((uint8_t *)search->scratch + IQ_CACHE_LINE);
    flat.rows = &db->records.rows;
    flat.row_count = search->row_count;
    flat.kernel = db->records.kernel;
    flat.metric = query->metric == IQDB_METRIC_DEFAULT ? db->metric : query->metric;
    flat.moment = search->pin.moment;
    flat.max_score = (query->flags & IQDB_MAX_DISTANCE) != 0 ? query->max_distance : iq_f32_from_bits(0x7F800000u);
    if (iq_f32_bits(after.score) == 0x80000000u) after.score = 0.0f; /* no score is -0 */
    flat.after = (query->flags & IQDB_AFTER) != 0 ? &after : NULL;
    flat.vectors = padded;
    flat.probes = (iq_flat_probe *)(void *)(padded + search->group * stride);
    flat.count = count;
    flat.task_count = search->task_count;
    flat.parallel = &db->parallel_for;
    flat.spare_hits = (iqdb_hit *)(void *)(flat.probes + search->group * search->task_count);
    flat.accept_fn = query->predicate != NULL || query->filter != NULL ? iq_search_accept : NULL;
    flat.user = search;
    for (size_t i = 0; i < count; i++) {
        memcpy(padded + i * stride, vectors + i * dim, dim * sizeof(float));
        memset(padded + i * stride + dim, 0, (stride - dim) * sizeof(float));
        flat.probes[i].norm = iq_vector_norm_of(flat.kernel, padded + i * stride, dim);
        iq_topk_start(&flat.probes[i].topk, hits + i * query->k, search->k);
    }
    iq_flat_search(&flat);
    for (size_t i = 0; i < count; i++) {
        iq_topk_sort(&flat.probes[i].topk);
        counts[i] = flat.probes[i].topk.count;
    }
}

/* Turns the tags of all hits into payloads, copied into the query's buffer. */
static iqdb_result iq_query_attach(const iqdb *db, const iqdb_query *query, iqdb_hit *hits, const size_t *counts,
                                   size_t vector_count) {
    const bool wanted = (query->flags & IQDB_WITH_PAYLOAD) != 0;
    size_t total = 0;
    uint8_t *bytes = NULL;
    for (size_t q = 0; q < vector_count; q++) {
        for (size_t i = 0; i < counts[q]; i++) {
            iqdb_hit *hit = &hits[q * query->k + i];
            uint32_t index;
            const iq_slab *slab = iq_rows_slab(&db->records.rows, (uint32_t)hit->payload.size, &index);
            hit->payload = iq_heap_payload(&db->records.heap, wanted ? slab->heads[index].payload : 0);
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

/* Under the pin, arguments checked. */
static iqdb_result iq_search_run(iq_search *search, const float *vectors, size_t vector_count, iqdb_hit *hits,
                                 size_t *counts) {
    bool empty;
    const iqdb_query *query = search->query;
    iqdb_result result = iq_search_check_vectors(search, vectors, vector_count, &empty);
    if (result != IQDB_OK) return result;
    if (empty) {
        for (size_t q = 0; q < vector_count; q++) counts[q] = 0;
        return iq_query_attach(search->db, query, hits, counts, vector_count);
    }
    iq_search_plan(search, vector_count);
    result = iq_search_find_room(search);
    if (result == IQDB_ERR_NOMEM && (search->task_count > 1 || search->group > 1)) {
        search->task_count = search->group = 1; /* humbler */
        result = iq_search_find_room(search);
    }
    if (result != IQDB_OK) return result;
    /* Each pass over the rows takes as many vectors as the others, for few cost nearly as much as many. */
    const size_t passes = (vector_count - 1) / search->group + 1;
    for (size_t pass = 0, q = 0; pass < passes; pass++) {
        const size_t count = (vector_count - q - 1) / (passes - pass) + 1;
        iq_search_pass(search, vectors + q * search->db->records.rows.dim, count, hits + q * query->k, counts + q);
        q += count;
    }
    result = iq_query_attach(search->db, query, hits, counts, vector_count);
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
    iq_search search;
    iqdb_result result = iq_query_check(query, vectors, vector_count, hits, &search.layout);
    if (result != IQDB_OK) return result;
    search.db = db;
    search.query = query;
    search.scratch = NULL;
    result = iq_db_enter_read(db, &search.pin);
    if (result != IQDB_OK) return result;
    result = iq_search_run(&search, (const float *)vectors, vector_count, hits, counts);
    iq_search_end(&search);
    return result;
}

IQDB_API iqdb_result iqdb_search(const iqdb *db, const iqdb_query *query, iqdb_hit *hits, size_t *out_count) {
    if (query == NULL || out_count == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    return iqdb_search_batch(db, query, query->vector, 1, hits, out_count);
}

IQDB_API iqdb_result iqdb_count(const iqdb *db, const iqdb_filter *filter, size_t *out_count) {
    iq_search search;
    iqdb_query query = iqdb_query_default();
    size_t count = 0;
    if (db == NULL || out_count == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    query.filter = filter;
    search.db = db;
    search.query = &query;
    search.scratch = NULL;
    if (filter != NULL && iq_filter_measure(filter, &search.layout) != NULL) return IQDB_ERR_INVALID_FILTER;
    iqdb_result result = iq_db_enter_read(db, &search.pin);
    if (result != IQDB_OK) return result;
    if (filter == NULL) count = (size_t)search.pin.count;
    if (filter != NULL) result = iq_search_take_room(&search, IQ_CACHE_LINE);
    const bool looks = filter != NULL && result == IQDB_OK && search.pin.count > 0;
    const uint32_t end = looks ? IQ_ATOMIC_LOAD(&db->records.rows.count) : 0;
    for (uint32_t row = 0; row < end; row++) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
        if (iq_slab_seek(slab, index, index + 1, true) != index) continue;
        if (!iq_row_visible(slab, index, search.pin.moment)) continue;
        count += iq_filter_accepts(&search.filter, iq_heap_payload(&db->records.heap, slab->heads[index].payload));
    }
    iq_search_end(&search);
    if (result == IQDB_OK) *out_count = count;
    return result;
}

/* ======== [db/read.c] ======== */
/* Reading by id, under a pin. */

IQDB_API iqdb_result iqdb_get(const iqdb *db, uint64_t id, iqdb_buffer *buffer, iqdb_record *out_record) {
    if (db == NULL || buffer == NULL || out_record == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    iq_pin pin;
    iq_ids_prefetch(&db->records.ids, id); /* while there is no pin to wait for */
    iqdb_result result = iq_db_enter_read(db, &pin);
    if (result != IQDB_OK) return result;
    const uint32_t row = iq_records_find(&db->records, id, pin.moment);
    if (row == IQ_ROW_NONE) {
        result = IQDB_ERR_NOT_FOUND;
    } else {
        uint32_t index;
        uint8_t *bytes;
        const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
        const iqdb_payload payload = iq_heap_payload(&db->records.heap, slab->heads[index].payload);
        const size_t vector_size = db->records.rows.dim * sizeof(float);
        result = iq_buffer_start(buffer, vector_size + payload.size, &bytes);
        if (result == IQDB_OK) {
            memcpy(bytes, slab->vectors + index * db->records.rows.stride, vector_size);
            *out_record = iqdb_record_default();
            out_record->id = id;
            out_record->vector = (const float *)(const void *)bytes;
            out_record->dim = db->records.rows.dim;
            if (payload.bytes != NULL) {
                memcpy(bytes + vector_size, payload.bytes, payload.size);
                out_record->payload.bytes = bytes + vector_size;
                out_record->payload.size = payload.size;
            }
        }
    }
    iq_db_leave_read(db, pin);
    return result;
}

IQDB_API bool iqdb_contains(const iqdb *db, uint64_t id) {
    iq_pin pin;
    if (db == NULL || iq_db_enter_read(db, &pin) != IQDB_OK) return false;
    const bool found = iq_records_find(&db->records, id, pin.moment) != IQ_ROW_NONE;
    iq_db_leave_read(db, pin);
    return found;
}

IQDB_API size_t iqdb_len(const iqdb *db) {
    if (db == NULL || IQ_ATOMIC_LOAD(&db->owner) == iq_thread_identity()) return 0;
    return (size_t)iq_epoch_count(&db->records.epoch);
}

IQDB_API bool iqdb_is_empty(const iqdb *db) {
    return iqdb_len(db) == 0;
}

/* ======== [db/repair.c] ======== */
/* iqdb_repair: what persist/repair.c can still read, put together in memory and written as a new directory.
 *
 * 1. A row is taken only as a whole: id, vector, reference and payload all lie in undamaged blocks, and pass the checks
 *    that an upsert makes. The norm is computed anew.
 * 2. The places of the sections follow from the list; where that is damaged, from the catalog; where that is, from
 *    the list and META. */

#define IQ_SALVAGE_ROWS 128u /* whose ids and references are read at once */

typedef struct iq_salvage {
    iqdb *db;
    iq_findings *findings;
    iq_snapshot_reader *reader;
    uint64_t lsn;     /* of the rows of the snapshot: below that of every record that follows */
    uint64_t unknown; /* lost rows in a run, whose ids cannot be read either */
    uint64_t unknown_at;
    uint64_t ids[IQ_SALVAGE_ROWS], refs[IQ_SALVAGE_ROWS];
    bool has_id[IQ_SALVAGE_ROWS], has_ref[IQ_SALVAGE_ROWS];
} iq_salvage;

static iqdb_result iq_salvage_schema(const iq_schema *schema, void *user) {
    const iq_salvage *salvage = (const iq_salvage *)user;
    iqdb_options options = iqdb_options_default();
    return iq_db_adopt_schema(salvage->db, &options, schema, "META");
}

static iqdb_result iq_salvage_record(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user) {
    return iq_db_replay(((const iq_salvage *)user)->db, bytes, size, commit_lsn);
}

/* ---- Rows of a snapshot ---- */

static iqdb_result iq_salvage_find_sections(iq_salvage *salvage, uint64_t *out_rows) {
    iq_snapshot_reader *reader = salvage->reader;
    iqdb *db = salvage->db;
    iq_schema schema;
    uint64_t size;
    *out_rows = 0;
    if (!iq_snapshot_find(reader, 0, IQ_SECTION_CATALOG, &size))
        iq_snapshot_assume(reader, 0, IQ_SECTION_CATALOG, IQ_CATALOG_SIZE);
    if (iq_image_schema(reader, &schema, out_rows) == IQDB_OK) {
        db->metric = (iqdb_metric)schema.metric;
        if (db->records.rows.dim == 0) iq_rows_set_dim(&db->records.rows, schema.dim);
        if (db->records.rows.dim != schema.dim) return IQDB_ERR_CORRUPT;
    } else if (iq_snapshot_find(reader, 0, IQ_SECTION_IDS, &size)) {
        *out_rows = size / 8;
    }
    if (*out_rows == 0) return IQDB_OK;
    if (*out_rows > IQ_ROW_COUNT_MAX || db->records.rows.dim == 0) return IQDB_ERR_CORRUPT;
    if (!iq_snapshot_find(reader, 0, IQ_SECTION_IDS, &size)) {
        iq_snapshot_assume(reader, 0, IQ_SECTION_IDS, *out_rows * 8);
        iq_snapshot_assume(reader, 0, IQ_SECTION_VECTORS, *out_rows * db->records.rows.stride * sizeof(float));
        iq_snapshot_assume(reader, 0, IQ_SECTION_NORMS, *out_rows * 4);
        iq_snapshot_assume(reader, 0, IQ_SECTION_PAYLOAD_REFS, *out_rows * 8);
        iq_snapshot_assume(reader, 0, IQ_SECTION_PAYLOADS, iq_snapshot_rest(reader));
    }
    return IQDB_OK;
}

/* One number a row, as many as can be read. */
static void iq_salvage_numbers(const iq_salvage *salvage, uint32_t kind, uint64_t first, size_t count, uint64_t *out,
                               bool *out_read) {
    uint8_t bytes[IQ_SALVAGE_ROWS * 8];
    const bool all = iq_snapshot_read(salvage->reader, 0, kind, first * 8, bytes, count * 8) == IQDB_OK;
    for (size_t i = 0; i < count; i++) {
        out_read[i] = all || iq_snapshot_read(salvage->reader, 0, kind, (first + i) * 8, bytes + i * 8, 8) == IQDB_OK;
        out[i] = out_read[i] ? iq_get_u64(bytes + i * 8) : 0;
    }
}

static void iq_salvage_tell_unknown(iq_salvage *salvage) {
    if (salvage->unknown == 0) return;
    iqdb_error finding = iq_snapshot_finding(salvage->reader, 0, IQ_SECTION_IDS, salvage->unknown_at * 8,
                                             "records are lost whose ids are lost too");
    finding.records = salvage->unknown;
    iq_findings_add(salvage->findings, &finding);
    salvage->unknown = 0;
}

static void iq_salvage_tell_lost(iq_salvage *salvage, uint64_t row, size_t i) {
    if (!salvage->has_id[i]) {
        if (salvage->unknown++ == 0) salvage->unknown_at = row;
        return;
    }
    iq_salvage_tell_unknown(salvage);
    iqdb_error finding = iq_snapshot_finding(salvage->reader, 0, IQ_SECTION_IDS, row * 8,
                                             "the record of this id is lost, but for what logs have of it");
    finding.records = 1;
    finding.id = salvage->ids[i];
    finding.has_id = true;
    iq_findings_add(salvage->findings, &finding);
}

/* Vector, then payload, into db->encoded. CORRUPT: the row cannot be had. */
static iqdb_result iq_salvage_bytes(iq_salvage *salvage, uint64_t row, uint64_t ref, size_t *out_payload_size) {
    iq_blob *blob = &salvage->db->encoded;
    iq_snapshot_reader *reader = salvage->reader;
    const size_t row_size = salvage->db->records.rows.stride * sizeof(float);
    const size_t vector_size = (size_t)salvage->db->records.rows.dim * sizeof(float);
    uint8_t size[4];
    *out_payload_size = 0;
    blob->size = 0;
    iqdb_result result = iq_blob_reserve(blob, row_size);
    if (result == IQDB_OK)
        result = iq_snapshot_read(reader, 0, IQ_SECTION_VECTORS, row * row_size, blob->bytes, row_size);
    for (size_t i = vector_size; result == IQDB_OK && i < row_size; i++)
        if (blob->bytes[i] != 0) result = IQDB_ERR_CORRUPT;
    if (result != IQDB_OK || ref == 0) return result;
    result = iq_snapshot_read(reader, 0, IQ_SECTION_PAYLOADS, ref, size, sizeof size);
    if (result != IQDB_OK) return result;
    const uint32_t payload_size = iq_get_u32(size);
    uint64_t section_size;
    (void)iq_snapshot_find(reader, 0, IQ_SECTION_PAYLOADS, &section_size);
    if (payload_size > IQDB_PAYLOAD_SIZE_MAX || payload_size > section_size) return IQDB_ERR_CORRUPT;
    blob->size = row_size;
    result = iq_blob_reserve(blob, (size_t)payload_size + 1);
    uint8_t *payload = blob->bytes + row_size;
    if (result == IQDB_OK) result = iq_snapshot_read(reader, 0, IQ_SECTION_PAYLOADS, ref + 4, payload, payload_size);
    if (result == IQDB_OK && iq_payload_validate(payload, payload_size) != IQDB_OK) result = IQDB_ERR_CORRUPT;
    *out_payload_size = payload_size;
    return result;
}

static iqdb_result iq_salvage_row(iq_salvage *salvage, uint64_t row, size_t i) {
    iq_records *records = &salvage->db->records;
    size_t payload_size;
    iqdb_payload payload;
    uint32_t taken;
    if (!salvage->has_id[i] || !salvage->has_ref[i]) return IQDB_ERR_CORRUPT;
    iqdb_result result = iq_salvage_bytes(salvage, row, salvage->refs[i], &payload_size);
    if (result != IQDB_OK) return result;
    uint8_t *bytes = salvage->db->encoded.bytes;
    float *vector = (float *)(void *)bytes;
    if (IQ_BIG_ENDIAN)
        for (uint32_t k = 0; k < records->rows.dim; k++) vector[k] = iq_f32_from_bits(iq_get_u32(bytes + k * 4u));
    if (!iq_vector_is_finite(records->kernel, vector, records->rows.dim)) return IQDB_ERR_CORRUPT;
    payload.bytes = salvage->refs[i] == 0 ? NULL : bytes + records->rows.stride * sizeof(float);
    payload.size = payload_size;
    result = iq_records_reserve(records, 1);
    if (result == IQDB_OK) result = iq_records_stage(records, salvage->ids[i], vector, payload, &taken);
    if (result != IQDB_OK) return result;
    iq_records_upsert(records, taken);
    iq_records_publish(records, salvage->lsn);
    return IQDB_OK;
}

/* CORRUPT and IO are what this is about: the row is lost, and told so. */
static iqdb_result iq_salvage_group(iq_salvage *salvage, uint64_t first, size_t count) {
    iq_salvage_numbers(salvage, IQ_SECTION_IDS, first, count, salvage->ids, salvage->has_id);
    iq_salvage_numbers(salvage, IQ_SECTION_PAYLOAD_REFS, first, count, salvage->refs, salvage->has_ref);
    for (size_t i = 0; i < count; i++) {
        const iqdb_result result = iq_salvage_row(salvage, first + i, i);
        if (result == IQDB_ERR_NOMEM || result == IQDB_ERR_LIMIT) return result;
        if (result != IQDB_OK) iq_salvage_tell_lost(salvage, first + i, i);
    }
    return IQDB_OK;
}

static iqdb_result iq_salvage_snapshot(iq_snapshot_reader *reader, void *user) {
    iq_salvage *salvage = (iq_salvage *)user;
    uint64_t rows;
    salvage->reader = reader;
    salvage->lsn = salvage->db->records.lsn;
    iqdb_result result = iq_salvage_find_sections(salvage, &rows);
    if (result == IQDB_ERR_CORRUPT) {
        const iqdb_error finding = iq_snapshot_finding(
            reader, 0, IQ_SECTION_CATALOG, 0, "nothing tells any more what the records look like: they are lost");
        iq_findings_add(salvage->findings, &finding);
        return IQDB_OK;
    }
    for (uint64_t row = 0; row < rows && result == IQDB_OK; row += IQ_SALVAGE_ROWS)
        result = iq_salvage_group(salvage, row, rows - row < IQ_SALVAGE_ROWS ? (size_t)(rows - row) : IQ_SALVAGE_ROWS);
    iq_salvage_tell_unknown(salvage);
    return result;
}

/* ---- The call ---- */

typedef struct iq_repair_source {
    const char *from, *to;
    iqdb_report_fn report_fn;
    void *user;
} iq_repair_source;

static iqdb_result iq_salvage_all(iqdb *db, const iqdb_options *options, const void *from) {
    const iq_repair_source *source = (const iq_repair_source *)from;
    const iq_directory_config config = iq_db_config(db);
    iq_findings findings = iq_findings_make(source->report_fn, source->user);
    iq_salvage *salvage = (iq_salvage *)iq_alloc_zeroed(&db->allocator, sizeof *salvage, 16);
    const iq_loader loader = {iq_salvage_schema, iq_salvage_snapshot, iq_salvage_record, salvage};
    uint64_t lsn = 0;
    (void)options;
    if (salvage == NULL) return IQDB_ERR_NOMEM;
    salvage->db = db;
    salvage->findings = &findings;
    const iqdb_result result = iq_directory_repair(source->from, &config, &loader, &findings, &lsn);
    iq_free(&db->allocator, salvage, sizeof *salvage, 16);
    if (result != IQDB_OK) return result;
    return source->to != NULL ? iq_image_to_directory(db, source->to, NULL, lsn) : findings.first;
}

IQDB_API iqdb_result iqdb_repair(const char *from, const char *to, const iqdb_options *options, iqdb_report_fn report,
                                 void *user) {
    const iq_repair_source source = {from, to, report, user};
    iqdb *db = NULL;
    const iqdb_result result = iq_db_open(options, iq_salvage_all, from != NULL ? &source : NULL, &db);
    if (db != NULL) iq_db_free(db);
    return result;
}

/* ======== [db/select.c] ======== */
/* Programs of filters that outlive a call, and deleting by filter.
 *
 * 1. What is deleted is decided under the lock that deletes it, and goes in one atomic batch.
 * 2. Allocators are called by one thread at a time: under the lock, which a caller of these may have or not. */

IQ_FN iqdb_result iq_program_make(const iqdb *db, const iqdb_filter *filter, iq_program **out_program) {
    iq_filter_layout layout;
    const size_t head = iq_round_up(sizeof(iq_program), 16);
    *out_program = NULL;
    if (iq_filter_measure(filter, &layout) != NULL) return IQDB_ERR_INVALID_FILTER;
    const bool entered = iq_db_enter_upkeep(iq_db_of(db)) == IQDB_OK;
    iq_program *program = (iq_program *)iq_alloc(&db->allocator, head + layout.size_bytes, 16);
    if (entered) iq_db_leave(iq_db_of(db));
    if (program == NULL) return IQDB_ERR_NOMEM;
    program->size_bytes = head + layout.size_bytes;
    iq_filter_compile(filter, &layout, (uint8_t *)program + head, &program->filter);
    *out_program = program;
    return IQDB_OK;
}

IQ_FN void iq_program_free(const iqdb *db, iq_program *program) {
    if (program == NULL) return;
    const bool entered = iq_db_enter_upkeep(iq_db_of(db)) == IQDB_OK;
    iq_free(&db->allocator, program, program->size_bytes, 16);
    if (entered) iq_db_leave(iq_db_of(db));
}

/* Appends the ids of all records that the filter accepts, under the lock. */
static iqdb_result iq_select_ids(const iqdb *db, const iq_filter *filter, iq_blob *ids) {
    iqdb_result result = IQDB_OK;
    for (uint32_t row = 0; row < db->records.rows.count && result == IQDB_OK; row++) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
        if (iq_slab_seek(slab, index, index + 1, true) != index) continue;
        if (!iq_row_visible(slab, index, db->records.epoch.moment)) continue;
        if (!iq_filter_accepts(filter, iq_heap_payload(&db->records.heap, slab->heads[index].payload))) continue;
        const uint64_t id = slab->heads[index].id;
        result = iq_blob_append(ids, &id, sizeof id);
    }
    return result;
}

IQDB_API iqdb_result iqdb_delete_where(iqdb *db, const iqdb_filter *filter, size_t *out_removed) {
    iq_program *program;
    iq_blob ids;
    size_t removed = 0;
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (filter == NULL) return iq_db_refuse(db, "the filter is NULL; iqdb_filter_default() is every record");
    iqdb_result result = iq_db_enter_write(db);
    if (result != IQDB_OK) return result;
    iq_filter_layout layout;
    const char *why = iq_filter_measure(filter, &layout);
    if (why != NULL) (void)iq_report(&db->reporter, IQDB_ERR_INVALID_FILTER, NULL, 0, why);
    memset(&ids, 0, sizeof ids);
    ids.allocator = &db->allocator;
    result = iq_program_make(db, filter, &program);
    if (program != NULL) result = iq_select_ids(db, &program->filter, &ids);
    if (result == IQDB_OK && ids.size > 0)
        result = iq_batch_delete(db, (const uint64_t *)(const void *)ids.bytes, ids.size / sizeof(uint64_t), &removed);
    iq_program_free(db, program);
    iq_blob_free(&ids);
    result = iq_db_leave_with(db, result);
    if (result == IQDB_OK && out_removed != NULL) *out_removed = removed;
    return result;
}

/* ======== [db/verify.c] ======== */
/* Checks of the records in memory, and iqdb_verify. */

/* A row in memory: no file has an offset for it. */
static void iq_verify_say(iq_findings *findings, uint64_t row, const char *text) {
    const iqdb_error finding = iq_error_make(IQDB_ERR_CORRUPT, NULL, row, text);
    iq_findings_add(findings, &finding);
}

static void iq_verify_row(const iqdb *db, iq_findings *findings, uint32_t row) {
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
    const float *vector = slab->vectors + index * db->records.rows.stride;
    const iqdb_payload payload = iq_heap_payload(&db->records.heap, slab->heads[index].payload);
    const float norm = iq_vector_norm_of(db->records.kernel, vector, db->records.rows.dim);
    if (!iq_vector_is_finite(db->records.kernel, vector, db->records.rows.dim))
        iq_verify_say(findings, row, "the vector of a row is not finite");
    if (iq_f32_bits(norm) != iq_f32_bits(slab->norms[index]))
        iq_verify_say(findings, row, "the norm of a row is not that of its vector");
    if (payload.bytes != NULL && iq_payload_validate(payload.bytes, payload.size) != IQDB_OK)
        iq_verify_say(findings, row, "the payload of a row is malformed");
    if (iq_ids_find(&db->records.ids, &db->records.rows, slab->heads[index].id) != row)
        iq_verify_say(findings, row, "the id of a row does not lead to it");
}

IQ_FN void iq_verify_records(const iqdb *db, iq_findings *findings) {
    size_t live = 0;
    for (uint32_t row = 0; row < db->records.rows.count; row++) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
        if (!iq_row_is_live(slab, index)) continue;
        live++;
        iq_verify_row(db, findings, row);
    }
    if (live != db->records.live_count)
        iq_verify_say(findings, live, "the number of records is not the number of live rows");
}

IQDB_API iqdb_result iqdb_verify(iqdb *db, iqdb_depth depth, iqdb_report_fn report, void *user) {
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (depth < IQDB_DEPTH_DEFAULT || depth > IQDB_DEPTH_RECORDS) return iq_db_refuse(db, "the depth is unknown");
    iqdb_result result = iq_db_enter_upkeep(db);
    if (result != IQDB_OK) return result;
    iq_findings findings = iq_findings_make(report, user);
    if (depth == IQDB_DEPTH_DEFAULT) depth = IQDB_DEPTH_RECORDS;
    if (db->directory != NULL) result = iq_directory_verify(db->directory, depth, report, user);
    if (depth == IQDB_DEPTH_RECORDS) iq_verify_records(db, &findings);
    iq_db_leave(db);
    return result != IQDB_OK ? result : findings.first;
}

/* ======== [db/write.c] ======== */
/* Writes: one commit path for upsert, delete, batches of either, and mixed ones.
 *
 * 1. check everything, 2. stage rows and reserve memory, 3. write the log, 4. apply and publish. A failure in 1 to 3
 * undoes the staging and leaves no trace; 4 cannot fail. */

#define IQ_BATCH_AHEAD 8u /* operations, until what one wants is there */

/* A batch in the form that the caller has it: one of the three arrays is set. */
typedef struct iq_batch {
    const iqdb_record *records;
    const uint64_t *deletes;
    const iqdb_op *ops;
    size_t count;
} iq_batch;

/* The record of operation i, or NULL for a delete, whose id is then set. */
static const iqdb_record *iq_batch_at(const iq_batch *batch, size_t i, uint64_t *out_id) {
    if (batch->records != NULL) return &batch->records[i];
    if (batch->deletes != NULL) {
        *out_id = batch->deletes[i];
        return NULL;
    }
    *out_id = batch->ops[i].id;
    return batch->ops[i].kind == IQDB_OP_UPSERT ? batch->ops[i].record : NULL;
}

/* Asks for what operation i, if there is one, will want. */
static void iq_batch_prefetch(const iqdb *db, const iq_batch *batch, size_t i) {
    uint64_t id;
    if (i >= batch->count) return;
    const iqdb_record *record = iq_batch_at(batch, i, &id);
    iq_ids_prefetch(&db->records.ids, record != NULL ? record->id : id);
}

/* What can be said without a look at the database. */
static iqdb_result iq_batch_check_arguments(const iqdb *db, const iq_batch *batch) {
    if (batch->count > 0 && batch->records == NULL && batch->deletes == NULL && batch->ops == NULL)
        return IQDB_ERR_INVALID_ARGUMENT;
    for (size_t i = 0; i < batch->count; i++) {
        uint64_t id;
        if (batch->ops != NULL) {
            const iqdb_op *op = &batch->ops[i];
            if (op->collection != NULL && op->collection != db) return IQDB_ERR_INVALID_ARGUMENT;
            if (op->kind != IQDB_OP_UPSERT && op->kind != IQDB_OP_DELETE) return IQDB_ERR_INVALID_ARGUMENT;
            if (op->kind == IQDB_OP_UPSERT && op->record == NULL) return IQDB_ERR_INVALID_ARGUMENT;
        }
        const iqdb_record *record = iq_batch_at(batch, i, &id);
        if (record == NULL) continue;
        if (record->vector == NULL) return IQDB_ERR_INVALID_ARGUMENT;
        if (record->payload.bytes == NULL && record->fields == NULL && record->field_count > 0)
            return IQDB_ERR_INVALID_ARGUMENT;
    }
    return IQDB_OK;
}

static iqdb_result iq_batch_refuse_vector(const iqdb *db) {
    return iq_report(&db->reporter, IQDB_ERR_INVALID_VECTOR, NULL, 0, "a vector has a NaN or an infinity");
}

/* The dimension of every vector against `*dim`, which the first one sets where it is 0. */
static iqdb_result iq_batch_check_vectors(const iqdb *db, const iq_batch *batch, uint32_t *dim) {
    for (size_t i = 0; i < batch->count; i++) {
        uint64_t id;
        const iqdb_record *record = iq_batch_at(batch, i, &id);
        if (record == NULL) continue;
        const uint32_t found = record->dim != 0 ? record->dim : *dim;
        if (found == 0 || found > IQDB_DIM_MAX)
            return iq_report(&db->reporter, IQDB_ERR_INVALID_VECTOR, NULL, 0,
                             "a vector has no elements, or more than IQDB_DIM_MAX");
        if (*dim == 0) *dim = found;
        if (found != *dim) {
            if (!iq_vector_is_finite(db->records.kernel, record->vector, found)) return iq_batch_refuse_vector(db);
            iqdb_error error = iq_error_make(IQDB_ERR_DIMENSION_MISMATCH, NULL, 0,
                                             "a vector has another dimension than the collection");
            error.dim_expected = *dim;
            error.dim_found = found;
            return iq_report_error(&db->reporter, &error);
        }
    }
    return IQDB_OK;
}

/* The encoded payload of a record: the caller's own bytes, or made in db->encoded. */
static iqdb_result iq_batch_payload(iqdb *db, const iqdb_record *record, iqdb_payload *out_payload) {
    *out_payload = record->payload;
    if (record->payload.bytes != NULL) return iq_payload_validate(record->payload.bytes, record->payload.size);
    out_payload->size = 0;
    if (record->fields == NULL) return IQDB_OK;
    db->encoded.size = 0;
    const iqdb_result result = iq_payload_encode(record->fields, record->field_count, &db->encoded);
    out_payload->bytes = db->encoded.bytes;
    out_payload->size = db->encoded.size;
    return result;
}

static void iq_batch_unstage(iqdb *db, size_t count) {
    while (count-- > 0)
        if (db->staged[count] != IQ_ROW_NONE) iq_records_unstage(&db->records, db->staged[count]);
}

/* Rows for all upserts in db->staged (IQ_ROW_NONE for deletes) and room to apply them. */
static iqdb_result iq_batch_stage(iqdb *db, const iq_batch *batch) {
    if (batch->count > (size_t)-1 / 16) return IQDB_ERR_NOMEM;
    if (db->staged_capacity < batch->count) {
        const size_t capacity = batch->count < 64 ? 64 : batch->count;
        uint32_t *staged = (uint32_t *)iq_alloc(&db->allocator, capacity * sizeof(uint32_t), 16);
        if (staged == NULL) return IQDB_ERR_NOMEM;
        iq_free(&db->allocator, db->staged, db->staged_capacity * sizeof(uint32_t), 16);
        db->staged = staged;
        db->staged_capacity = capacity;
    }
    iqdb_result result = iq_records_reserve(&db->records, batch->count);
    for (size_t i = 0; i < batch->count && result == IQDB_OK; i++) {
        uint64_t id;
        iqdb_payload payload;
        const iqdb_record *record = iq_batch_at(batch, i, &id);
        db->staged[i] = IQ_ROW_NONE;
        if (record == NULL) continue;
        result = iq_batch_payload(db, record, &payload);
        if (result == IQDB_OK)
            result = iq_records_stage(&db->records, record->id, record->vector, payload, &db->staged[i]);
        if (result == IQDB_ERR_INVALID_VECTOR) result = iq_batch_refuse_vector(db);
        if (result != IQDB_OK) iq_batch_unstage(db, i);
    }
    return result;
}

/* One staged upsert as the log keeps it. Vectors are little-endian there. */
static iqdb_result iq_batch_log_upsert(iqdb *db, uint32_t row) {
    uint32_t index;
    uint8_t head[IQ_RECORD_HEAD_SIZE];
    const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
    const iqdb_payload payload = iq_heap_payload(&db->records.heap, slab->heads[index].payload);
    iq_logged_record record;
    memset(&record, 0, sizeof record);
    record.type = IQ_RECORD_UPSERT;
    record.id = slab->heads[index].id;
    record.dim = db->records.rows.dim;
    record.has_payload = payload.bytes != NULL;
    record.payload_size = (uint32_t)payload.size;
    iq_record_encode_head(&record, head);
    iq_slice pieces[3];
    pieces[0].bytes = head;
    pieces[0].size = sizeof head;
    pieces[1].bytes = slab->vectors + index * db->records.rows.stride;
    pieces[1].size = db->records.rows.dim * sizeof(float);
    pieces[2].bytes = payload.bytes;
    pieces[2].size = payload.size;
    if (IQ_BIG_ENDIAN) {
        db->encoded.size = 0;
        const iqdb_result result = iq_blob_reserve(&db->encoded, pieces[1].size);
        if (result != IQDB_OK) return result;
        iq_copy_words_le(db->encoded.bytes, pieces[1].bytes, db->records.rows.dim);
        pieces[1].bytes = db->encoded.bytes;
    }
    return iq_directory_batch_add(db->directory, pieces, payload.size > 0 ? 3 : 2);
}

static iqdb_result iq_batch_log_delete(iqdb *db, uint64_t id) {
    uint8_t head[IQ_RECORD_HEAD_SIZE];
    iq_logged_record record;
    memset(&record, 0, sizeof record);
    record.type = IQ_RECORD_DELETE;
    record.id = id;
    iq_record_encode_head(&record, head);
    iq_slice piece;
    piece.bytes = head;
    piece.size = sizeof head;
    return iq_directory_batch_add(db->directory, &piece, 1);
}

/* Makes the batch durable as db->sync asks for, and names its LSN. */
static iqdb_result iq_batch_log(iqdb *db, const iq_batch *batch, uint64_t *out_lsn) {
    if (db->directory == NULL) {
        *out_lsn = db->records.lsn + 1;
        return IQDB_OK;
    }
    iqdb_result result = iq_directory_batch_begin(db->directory);
    if (result != IQDB_OK) return result;
    for (size_t i = 0; i < batch->count && result == IQDB_OK; i++) {
        uint64_t id;
        if (iq_batch_at(batch, i, &id) != NULL) {
            result = iq_batch_log_upsert(db, db->staged[i]);
        } else {
            result = iq_batch_log_delete(db, id);
        }
    }
    if (result != IQDB_OK) return result;
    return iq_directory_batch_commit(db->directory, db->sync == IQDB_SYNC_EACH, out_lsn);
}

/* Whether the batch changes anything: a delete of ids that are not there is not logged. */
static bool iq_batch_has_effect(const iqdb *db, const iq_batch *batch) {
    for (size_t i = 0; i < batch->count; i++) {
        uint64_t id;
        if (iq_batch_at(batch, i, &id) != NULL ||
            iq_records_find(&db->records, id, db->records.epoch.moment) != IQ_ROW_NONE)
            return true;
    }
    return false;
}

/* Under the lock, arguments checked. */
static iqdb_result iq_batch_commit(iqdb *db, const iq_batch *batch, size_t *out_removed) {
    const uint32_t dim_before = db->records.rows.dim;
    uint32_t dim = dim_before;
    iqdb_result result = iq_batch_check_vectors(db, batch, &dim);
    if (result != IQDB_OK || !iq_batch_has_effect(db, batch)) return result;
    if (dim != dim_before) iq_rows_set_dim(&db->records.rows, dim);
    result = iq_batch_stage(db, batch);
    if (result == IQDB_OK) {
        uint64_t lsn;
        result = iq_batch_log(db, batch, &lsn);
        if (result == IQDB_OK) {
            for (size_t i = 0; i < batch->count; i++) {
                uint64_t id;
                iq_batch_prefetch(db, batch, i + IQ_BATCH_AHEAD);
                if (iq_batch_at(batch, i, &id) != NULL) {
                    iq_records_upsert(&db->records, db->staged[i]);
                } else if (iq_records_delete(&db->records, id)) {
                    ++*out_removed;
                }
            }
            iq_records_publish(&db->records, lsn);
        } else {
            iq_batch_unstage(db, batch->count);
        }
    }
    if (dim != dim_before) {
        if (result == IQDB_OK && db->directory != NULL) {
            iq_schema schema;
            schema.dim = dim;
            schema.metric = (uint32_t)db->metric;
            schema.element = 0;
            iq_directory_set_schema(db->directory, &schema);
        } else if (result != IQDB_OK) {
            iq_rows_free(&db->records.rows); /* the first record was refused: no dimension yet, and no reader */
        }
    }
    return result;
}

static iqdb_result iq_batch_run(iqdb *db, const iq_batch *batch, size_t *out_removed) {
    size_t removed = 0;
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    iqdb_result result = iq_batch_check_arguments(db, batch);
    if (result == IQDB_OK) iq_batch_prefetch(db, batch, 0);
    if (result != IQDB_OK) return iq_db_refuse(db, "a record, its vector, or a list is NULL, or an operation unknown");
    result = iq_db_enter_write(db);
    if (result != IQDB_OK) return result;
    if (batch->count > 0) result = iq_batch_commit(db, batch, &removed);
    result = iq_db_leave_with(db, result);
    if (result == IQDB_OK && out_removed != NULL) *out_removed = removed;
    return result;
}

static iq_batch iq_batch_empty(void) {
    iq_batch batch;
    memset(&batch, 0, sizeof batch);
    return batch;
}

IQ_FN iqdb_result iq_batch_delete(iqdb *db, const uint64_t *ids, size_t count, size_t *out_removed) {
    iq_batch batch = iq_batch_empty();
    batch.deletes = ids;
    batch.count = count;
    return iq_batch_commit(db, &batch, out_removed);
}

/* Under the lock: the record again, with its payload merged in `buffer`. */
static iqdb_result iq_batch_update(iqdb *db, uint64_t id, const iqdb_field *fields, size_t count, iqdb_buffer *buffer) {
    uint32_t index;
    size_t removed = 0;
    iqdb_record record = iqdb_record_default();
    iq_batch batch = iq_batch_empty();
    const uint32_t row = iq_records_find(&db->records, id, db->records.epoch.moment);
    if (row == IQ_ROW_NONE) return IQDB_ERR_NOT_FOUND;
    const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
    const iqdb_payload payload = iq_heap_payload(&db->records.heap, slab->heads[index].payload);
    const iqdb_result result = iqdb_payload_with(payload, fields, count, buffer, &record.payload);
    if (result != IQDB_OK) return result;
    record.id = id;
    record.vector = slab->vectors + index * db->records.rows.stride; /* rows do not move while one is added */
    record.dim = db->records.rows.dim;
    batch.records = &record;
    batch.count = 1;
    return iq_batch_commit(db, &batch, &removed);
}

IQDB_API iqdb_result iqdb_update_payload(iqdb *db, uint64_t id, const iqdb_field *fields, size_t field_count) {
    iqdb_buffer buffer = iqdb_buffer_default();
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (fields == NULL && field_count > 0) return iq_db_refuse(db, "a list of fields is NULL");
    iqdb_result result = iq_db_enter_write(db);
    if (result != IQDB_OK) return result;
    buffer.allocator = &db->allocator;
    result = iq_batch_update(db, id, fields, field_count, &buffer);
    iqdb_buffer_free(&buffer);
    return iq_db_leave_with(db, result);
}

IQDB_API iqdb_record iqdb_record_default(void) {
    iqdb_record record;
    memset(&record, 0, sizeof record);
    return record;
}

IQDB_API iqdb_op iqdb_op_default(void) {
    iqdb_op op;
    memset(&op, 0, sizeof op);
    return op;
}

IQDB_API iqdb_result iqdb_upsert_batch(iqdb *db, const iqdb_record *records, size_t count) {
    iq_batch batch = iq_batch_empty();
    batch.records = records;
    batch.count = count;
    return iq_batch_run(db, &batch, NULL);
}

IQDB_API iqdb_result iqdb_upsert(iqdb *db, const iqdb_record *record) {
    return iqdb_upsert_batch(db, record, 1);
}

IQDB_API iqdb_result iqdb_delete_batch(iqdb *db, const uint64_t *ids, size_t count, size_t *out_removed) {
    iq_batch batch = iq_batch_empty();
    batch.deletes = ids;
    batch.count = count;
    return iq_batch_run(db, &batch, out_removed);
}

IQDB_API iqdb_result iqdb_delete(iqdb *db, uint64_t id, bool *out_removed) {
    size_t removed = 0;
    const iqdb_result result = iqdb_delete_batch(db, &id, 1, &removed);
    if (result == IQDB_OK && out_removed != NULL) *out_removed = removed > 0;
    return result;
}

IQDB_API iqdb_result iqdb_apply(iqdb *db, const iqdb_op *ops, size_t count) {
    iq_batch batch = iq_batch_empty();
    batch.ops = ops;
    batch.count = count;
    return iq_batch_run(db, &batch, NULL);
}

IQDB_API iqdb_result iqdb_reserve(iqdb *db, size_t records) {
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    iqdb_result result = iq_db_enter_write(db);
    if (result != IQDB_OK) return result;
    iq_records *all = &db->records;
    if (records > IQ_ROW_COUNT_MAX) result = IQDB_ERR_LIMIT;
    if (result == IQDB_OK && records > all->live_count) result = iq_ids_reserve(&all->ids, records - all->live_count);
    if (result == IQDB_OK && all->rows.dim != 0) result = iq_rows_reserve(&all->rows, (uint32_t)records);
    return iq_db_leave_with(db, result);
}

/* ======== the end: nothing of the above leaks ======== */
#undef IQ_ARM64
#undef IQ_ASSERT
#undef IQ_ATOMIC_ADD
#undef IQ_ATOMIC_DISTANCE
#undef IQ_ATOMIC_FENCE
#undef IQ_ATOMIC_LOAD
#undef IQ_ATOMIC_STORE
#undef IQ_ATOMIC_SWAP_IF
#undef IQ_AVX2
#undef IQ_AVX2_FMA
#undef IQ_AVX512
#undef IQ_AVX512_AHEAD
#undef IQ_BATCH_AHEAD
#undef IQ_BIG_ENDIAN
#undef IQ_BIG_LIMBS
#undef IQ_BLOB_ALIGNMENT
#undef IQ_CACHE_LINE
#undef IQ_COUNT_OF
#undef IQ_CPU_ARM_CRC32
#undef IQ_CPU_AVX2
#undef IQ_CPU_AVX512F
#undef IQ_CPU_HWCAP_CRC32
#undef IQ_CPU_LEAF1_ECX_AVX
#undef IQ_CPU_LEAF1_ECX_FMA
#undef IQ_CPU_LEAF1_ECX_OSXSAVE
#undef IQ_CPU_LEAF1_ECX_PCLMUL
#undef IQ_CPU_LEAF1_EDX_SSE2
#undef IQ_CPU_LEAF7_EBX_AVX2
#undef IQ_CPU_LEAF7_EBX_AVX512F
#undef IQ_CPU_LEAF7_ECX_VPCLMUL
#undef IQ_CPU_PCLMUL
#undef IQ_CPU_SSE2
#undef IQ_CPU_VPCLMUL
#undef IQ_CPU_XCR0_YMM
#undef IQ_CPU_XCR0_ZMM
#undef IQ_CRC32_1
#undef IQ_CRC32_2
#undef IQ_CRC32_3
#undef IQ_CRC32_4
#undef IQ_CRC32_5
#undef IQ_CRC32_6
#undef IQ_CRC32_7
#undef IQ_CRC32_FOLD_1024
#undef IQ_CRC32_FOLD_128
#undef IQ_CRC32_FOLD_256
#undef IQ_CRC32_FOLD_512
#undef IQ_CRC32_TABLE
#undef IQ_CRC32_VPCLMUL
#undef IQ_DIGITS_MAX
#undef IQ_DISTANCE_KERNEL
#undef IQ_F64_INFINITY
#undef IQ_F64_NAN
#undef IQ_F64_SIGN
#undef IQ_FAST_FP
#undef IQ_FILE_NAME_SIZE
#undef IQ_FILTER_ACCEPT
#undef IQ_FILTER_REJECT
#undef IQ_FLAT_COUNT_MAX
#undef IQ_FLAT_SIFT_LINES
#undef IQ_FLAT_SIFT_PART
#undef IQ_FLAT_SIFT_PAUSE
#undef IQ_FLAT_SIFT_QUERIES
#undef IQ_FLAT_SIFT_ROWS
#undef IQ_FLAT_SUMS
#undef IQ_FN
#undef IQ_FOOTER_MAGIC
#undef IQ_HAS_MALLOC
#undef IQ_HEAP_CLASS_COUNT
#undef IQ_HEAP_FINE_COUNT
#undef IQ_HEAP_FINE_MAX
#undef IQ_HEAP_FIRST_REF
#undef IQ_HEAP_LARGE_SIZE
#undef IQ_HEAP_PAGE_SIZE
#undef IQ_HEAP_REGION_PAGES_MAX
#undef IQ_IDS_REMOVED
#undef IQ_IMAGE_AHEAD
#undef IQ_IMAGE_READ
#undef IQ_INLINE
#undef IQ_JSON_SIZE_MAX
#undef IQ_KERNEL_LANES
#undef IQ_LIKELY
#undef IQ_LOCK_NAME
#undef IQ_LOG_MAGIC
#undef IQ_LOG_PREFIX
#undef IQ_MALLOC
#undef IQ_MALLOC_IS_SYSTEM
#undef IQ_META_MAGIC
#undef IQ_META_NAME
#undef IQ_MOMENT_NEVER
#undef IQ_NAME_TRIES
#undef IQ_NEON
#undef IQ_NORM_SURE
#undef IQ_NUMBER_DIGITS_MAX
#undef IQ_NUMBER_MAX
#undef IQ_NUMBER_SIZE_MAX
#undef IQ_ORDER_EQUAL
#undef IQ_ORDER_GREATER
#undef IQ_ORDER_LESS
#undef IQ_ORDER_UNEQUAL
#undef IQ_PAGES_LARGE
#undef IQ_PAGES_MAP
#undef IQ_PAGES_UNIT
#undef IQ_PCLMUL
#undef IQ_POSIX_CHUNK
#undef IQ_POSIX_END
#undef IQ_POSIX_GETENTROPY
#undef IQ_POSIX_LISTED_SIZE
#undef IQ_POSIX_NAME_MAX
#undef IQ_POSIX_PASS
#undef IQ_POWER_ERROR
#undef IQ_POWER_FIRST
#undef IQ_POWER_STEP
#undef IQ_QUAD_AHEAD
#undef IQ_QUAD_REGISTERS
#undef IQ_RECORD_DELETE
#undef IQ_RECORD_HEAD_SIZE
#undef IQ_RECORD_UPSERT
#undef IQ_RELEASE
#undef IQ_RETIRED_FEW
#undef IQ_RETIRED_FEW_BYTES
#undef IQ_ROW_COUNT_MAX
#undef IQ_ROW_FLOATS
#undef IQ_ROW_NONE
#undef IQ_SALVAGE_ROWS
#undef IQ_SCAN_NO_ANCHOR
#undef IQ_SCAN_PATIENCE
#undef IQ_SCAN_WINDOW
#undef IQ_SCRATCH_HIT_BYTES
#undef IQ_SCRATCH_VECTOR_BYTES
#undef IQ_SIFT_QUERIES
#undef IQ_SIFT_UNIT
#undef IQ_SLAB_BYTES_MAX
#undef IQ_SLAB_ROWS_MIN
#undef IQ_SLAB_SHIFT_MAX
#undef IQ_SLAB_SHIFT_MIN
#undef IQ_SLOT_COUNT
#undef IQ_SNAPSHOT_ASSUMED_MAX
#undef IQ_SNAPSHOT_BUFFER
#undef IQ_SNAPSHOT_CRCS_PER_BLOCK
#undef IQ_SNAPSHOT_MAGIC
#undef IQ_SNAPSHOT_PREFIX
#undef IQ_STATIC_ASSERT
#undef IQ_STRICT_MEMORY
#undef IQ_STRICT_VECTOR
#undef IQ_STRICT_VECTORS
#undef IQ_STRICT_X87
#undef IQ_TARGET
#undef IQ_TASK_BYTES
#undef IQ_TASK_COUNT_MAX
#undef IQ_THREAD_SANITIZER
#undef IQ_TILE_ROWS
#undef IQ_UNLIKELY
#undef IQ_VPCLMUL
#undef IQ_VPCLMUL_MIN
#undef IQ_WAL_CHUNK_FIRST
#undef IQ_WAL_CHUNK_MAX
#undef IQ_WAL_COPY_CHUNK
#undef IQ_WAL_SLACK
#undef IQ_WAL_ZEROS
#undef IQ_WINDOWS_CHUNK
#undef IQ_WINDOWS_LISTED_SIZE
#undef IQ_WINDOWS_LOCK_AT
#undef IQ_WINDOWS_PATH_MAX
#undef IQ_X86
#if defined(IQDB_NO_LIBC)
#undef memchr
#undef memcmp
#undef memcpy
#undef memmove
#undef memset
#undef strchr
#undef strcmp
#undef strlen
#undef strncmp
#endif

#endif /* IQDB_IMPLEMENTATION */

/*
This is free and unencumbered software released into the public domain.

Anyone is free to copy, modify, publish, use, compile, sell, or
distribute this software, either in source code form or as a compiled
binary, for any purpose, commercial or non-commercial, and by any
means.

In jurisdictions that recognize copyright laws, the author or authors
of this software dedicate any and all copyright interest in the
software to the public domain. We make this dedication for the benefit
of the public at large and to the detriment of our heirs and
successors. We intend this dedication to be an overt act of
relinquishment in perpetuity of all present and future rights to this
software under copyright law.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND,
EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT.
IN NO EVENT SHALL THE AUTHORS BE LIABLE FOR ANY CLAIM, DAMAGES OR
OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR
OTHER DEALINGS IN THE SOFTWARE.

For more information, please refer to <https://unlicense.org/>
*/
