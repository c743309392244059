/* rows.h: files of vectors, for tools/iqdb.c: bytes come from a `source`, a `reader` makes rows of them by one of the
 * `formats`, a `block` holds the rows of one batch, and a `writer` puts rows into a file. It knows no database.
 *
 *   format   rows                                                  element
 *   fvecs    each its number of elements (int32), then these       f4; ivecs: i4; bvecs: u1
 *   fbin     behind the numbers of rows and of elements (uint32)   f4; ibin: i4; u8bin: u1; i8bin: i1
 *   npy      behind a text that describes them, versions 1 to 3    f4, f8, f2, i4, u1, i1
 *   jsonl    one JSON object a line, with id, vector and payload
 *   csv      one line each, or several where text in quotes has a newline; columns as in JSON
 *
 * 1. Memory does not grow with the input: one block, one buffer, one line of at most LINE_SIZE_MAX.
 * 2. Any bytes are read without harm. What is wrong is said in reader.error, with file, and line or row.
 * 3. Integers and doubles are rounded to the nearest float; what is not finite then is refused. */
#ifndef ROWS_H
#define ROWS_H

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE_SIZE_MAX ((size_t)1 << 26)
#define SOURCE_SIZE ((size_t)1 << 20)
#define BLOCK_BYTES ((size_t)1 << 20) /* vectors of a batch: more is not faster, and less is slower on wide vectors */
#define BLOCK_ROWS 4096
#define UNKNOWN UINT64_MAX
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define ULL(number) ((unsigned long long)(number))

/* Without memory the process ends: what was written is a whole number of batches, and running it again goes on. */
static void *resize(void *memory, size_t count, size_t size) {
    void *resized = count > SIZE_MAX / 2 / size ? NULL : realloc(memory, count * size + (count == 0));
    if (resized != NULL) return resized;
    fputs("iqdb: there is not enough memory for this\n", stderr);
    exit(4);
}

/* ==== Bytes that come in ============================================================================================ */

/* bytes[begin .. end) are read and not yet taken. One byte behind them is free for a final zero. */
typedef struct source {
    const char *name;
    int file;
    const volatile sig_atomic_t *stop; /* a signal came: reading ends with error EINTR */
    unsigned char *bytes;
    size_t begin, end, capacity;
    uint64_t offset; /* of bytes[begin] in the input */
    uint64_t size;   /* UNKNOWN for a pipe, until its end is seen */
    bool ended;
    int error;
} source;

static size_t source_have(const source *s) {
    return s->end - s->begin;
}

static const unsigned char *source_at(const source *s) {
    return s->bytes + s->begin;
}

static void source_take(source *s, size_t size) {
    s->begin += size;
    s->offset += size;
}

/* True when `want` bytes are there; else the input has ended, or cannot be read. */
static bool source_want(source *s, size_t want) {
    while (source_have(s) < want && !s->ended) {
        if (want > s->capacity - s->begin && s->begin > 0) {
            memmove(s->bytes, source_at(s), source_have(s));
            s->end -= s->begin;
            s->begin = 0;
        }
        if (want > s->capacity) {
            s->capacity = want > SOURCE_SIZE / 2 ? 2 * want : SOURCE_SIZE;
            s->bytes = (unsigned char *)resize(s->bytes, s->capacity + 1, 1);
        }
        const ssize_t got = *s->stop == 0 ? read(s->file, s->bytes + s->end, s->capacity - s->end) : 0;
        if (got < 0 && errno == EINTR && *s->stop == 0) continue;
        if (got < 0) s->error = errno;
        if (got <= 0) s->ended = true;
        /* Ctrl-C ends who writes into the pipe as well: what looks like the end then may be in the middle of a row. */
        if (got == 0 && *s->stop != 0) s->error = EINTR;
        if (got == 0 && *s->stop == 0) s->size = s->offset + source_have(s);
        if (got > 0) s->end += (size_t)got;
    }
    return source_have(s) >= want;
}

/* ==== Rows ========================================================================================================== */

/* The rows of one batch. Payloads lie in `memory`, vectors in `vectors`, and the records point at both. */
typedef struct block {
    size_t count, capacity, used, room;
    iqdb_record *records;
    uint64_t *lines; /* that they stand in, 0 where there are none */
    float *vectors;
    unsigned char *memory; /* `used` of `room` bytes */
} block;

/* The next row, for a vector of `dim` elements; the first one decides how many rows the block has. */
static float *block_row(block *b, uint32_t dim) {
    if (b->capacity == 0) {
        const size_t fit = BLOCK_BYTES / sizeof(float) / dim;
        b->capacity = fit < 16 ? 16 : fit > BLOCK_ROWS ? BLOCK_ROWS : fit;
        b->records = (iqdb_record *)resize(NULL, b->capacity, sizeof *b->records);
        b->lines = (uint64_t *)resize(NULL, b->capacity, sizeof *b->lines);
        b->vectors = (float *)resize(NULL, b->capacity * dim, sizeof *b->vectors);
    }
    float *vector = b->vectors + b->count * dim;
    b->records[b->count] = iqdb_record_default();
    b->records[b->count].vector = vector;
    b->records[b->count].dim = dim;
    return vector;
}

static void block_payload(block *b, iqdb_payload payload) {
    if (payload.size > b->room - b->used) {
        b->room = 2 * (b->room + payload.size);
        unsigned char *moved = (unsigned char *)resize(NULL, b->room, 1);
        if (b->used > 0) memcpy(moved, b->memory, b->used);
        for (size_t i = 0; i < b->count; i++) {
            iqdb_payload *earlier = &b->records[i].payload;
            if (earlier->bytes != NULL) earlier->bytes = moved + ((const unsigned char *)earlier->bytes - b->memory);
        }
        free(b->memory);
        b->memory = moved;
    }
    if (payload.size > 0) memcpy(b->memory + b->used, payload.bytes, payload.size);
    b->records[b->count].payload.bytes = payload.bytes != NULL ? b->memory + b->used : NULL;
    b->records[b->count].payload.size = payload.size;
    b->used += payload.size;
}

static void block_free(block *b) {
    free(b->records);
    free(b->lines);
    free(b->vectors);
    free(b->memory);
}

/* ==== Elements: little-endian bytes and floats ====================================================================== */

typedef enum element {
    F4,
    F8,
    F2,
    I4,
    U1,
    I1
} element;
static const struct {
    const char *name;
    size_t size;
    double low, high; /* of integers */
} elements[] = {{"f4", 4, 0, 0},   {"f8", 8, 0, 0},     {"f2", 2, 0, 0}, {"i4", 4, -2147483648.0, 2147483647.0},
                {"u1", 1, 0, 255}, {"i1", 1, -128, 127}};

static uint32_t load32(const unsigned char *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void store32(unsigned char *at, uint32_t bits) {
    for (int i = 0; i < 4; i++) at[i] = (unsigned char)(bits >> 8 * i);
}

static float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float load_half(const unsigned char *at) { /* IEEE 754 binary16: every one of them is a float */
    const uint32_t sign = (uint32_t)(at[1] & 0x80) << 24, exponent = at[1] >> 2 & 0x1F;
    const uint32_t fraction = (uint32_t)(at[1] & 3) << 8 | at[0];
    if (exponent == 0) return (float)fraction / (sign != 0 ? -16777216.0f : 16777216.0f);
    return float_of_bits(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13);
}

/* To the nearest float. The largest one, in 9 digits, reads as a double a little above it. */
static float narrow(double value) {
    if (fabs(value) <= (double)FLT_MAX) return (float)value;
    return fabs(value) < 3.4028235677973366e38 ? (value > 0.0 ? FLT_MAX : -FLT_MAX) : (float)NAN;
}

static float load_double(const unsigned char *at) {
    const uint64_t bits = load32(at) | (uint64_t)load32(at + 4) << 32;
    double value;
    memcpy(&value, &bits, sizeof value);
    return narrow(value);
}

static void load_elements(float *to, const unsigned char *from, element kind, size_t count) {
    const size_t size = elements[kind].size;
    for (size_t i = 0; i < count; i++, from += size)
        to[i] = kind == F4   ? float_of_bits(load32(from))
                : kind == U1 ? (float)from[0]
                : kind == I1 ? (float)(signed char)from[0]
                : kind == I4 ? (float)(int32_t)load32(from)
                : kind == F2 ? load_half(from)
                             : load_double(from);
}

/* False where an element is not an integer in the range of `kind`. */
static bool put_elements(FILE *to, const float *vector, element kind, size_t count) {
    for (size_t i = 0; i < count; i++) {
        unsigned char bytes[4];
        uint32_t bits;
        const double value = (double)vector[i];
        memcpy(&bits, &vector[i], sizeof bits);
        if (kind != F4) {
            if (value < elements[kind].low || value > elements[kind].high || floor(value) < value) return false;
            bits = (uint32_t)(int32_t)value;
        }
        store32(bytes, bits);
        fwrite(bytes, 1, elements[kind].size, to);
    }
    return true;
}

/* ---- Vectors as a database has them ---- */

static size_t packed_size(iqdb_element type, uint32_t dim) {
    if (type == IQDB_ELEMENT_BIT) return (dim + 7) / 8;
    return (size_t)dim * (type == IQDB_ELEMENT_F32 ? 4 : type <= IQDB_ELEMENT_BF16 ? 2 : 1);
}

/* Without its last `digits` bits, rounded to the nearest, and of two to the even one. */
static uint32_t rounded(uint32_t bits, int digits) {
    const uint32_t half = 1u << (digits - 1), rest = bits & (2 * half - 1);
    return (bits >> digits) + (rest > half || (rest == half && (bits >> digits & 1) != 0));
}

static uint16_t half_of(float value, iqdb_element type) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7FFFFFFF, exponent = size >> 23;
    if (type == IQDB_ELEMENT_BF16) return (uint16_t)(sign | rounded(size, 16));
    if (exponent >= 143) return (uint16_t)(sign | 0x7C00);
    if (exponent >= 113) return (uint16_t)(sign | rounded(size - (112u << 23), 13)); /* may become infinite */
    if (exponent < 102) return (uint16_t)sign;
    return (uint16_t)(sign | rounded((size & 0x7FFFFF) | 0x800000, 126 - (int)exponent));
}

/* Numbers into elements, in their own place, for none is larger. False where *out_at does not fit: a fraction or what is
 * out of range where they are whole numbers, or too large for a half. */
static bool pack_vector(iqdb_element type, float *vector, uint32_t dim, uint64_t *out_at) {
    unsigned char *to = (unsigned char *)(void *)vector;
    const double low = type == IQDB_ELEMENT_I8 ? -128 : 0,
                 high = type == IQDB_ELEMENT_I8 ? 127 : type == IQDB_ELEMENT_U8 ? 255 : 1;
    for (uint32_t i = 0; i < dim && type != IQDB_ELEMENT_F32; i++) {
        const float value = vector[i];
        *out_at = i;
        if (type <= IQDB_ELEMENT_BF16) {
            const uint16_t half = half_of(value, type), infinite = type == IQDB_ELEMENT_F16 ? 0x7C00 : 0x7F80;
            if ((half & infinite) == infinite) return false;
            memcpy(to + 2 * (size_t)i, &half, sizeof half);
            continue;
        }
        if ((double)value < low || (double)value > high || floor((double)value) < (double)value) return false;
        if (type == IQDB_ELEMENT_BIT)
            to[i / 8] = (unsigned char)((i % 8 == 0 ? 0 : to[i / 8]) | (value > 0.0f) << i % 8);
        else
            to[i] = (unsigned char)(int)value;
    }
    return true;
}

static float number_at(iqdb_element type, const void *raw, uint32_t i) {
    const unsigned char *from = (const unsigned char *)raw;
    uint16_t half;
    unsigned char bytes[2];
    float value;
    if (type == IQDB_ELEMENT_BIT) return (float)(from[i / 8] >> i % 8 & 1);
    if (type == IQDB_ELEMENT_U8) return (float)from[i];
    if (type == IQDB_ELEMENT_I8) return (float)(signed char)from[i];
    if (type == IQDB_ELEMENT_F32) {
        memcpy(&value, from + 4 * (size_t)i, sizeof value);
        return value;
    }
    memcpy(&half, from + 2 * (size_t)i, sizeof half);
    bytes[0] = (unsigned char)half;
    bytes[1] = (unsigned char)(half >> 8);
    return type == IQDB_ELEMENT_F16 ? load_half(bytes) : float_of_bits((uint32_t)half << 16);
}

/* ---- The same as text ---- */

/* The fewest digits out of two choices that read as the same bits. JSON knows no infinity; -0 would be an integer. */
static void print_float(FILE *to, float value) {
    char text[32];
    const bool negative_zero = value >= 0.0f && value <= 0.0f && signbit(value) != 0;
    snprintf(text, sizeof text, "%.6g", (double)value);
    const float read = strtof(text, NULL);
    if (memcmp(&read, &value, sizeof value) != 0) snprintf(text, sizeof text, "%.9g", (double)value);
    fputs(negative_zero ? "-0.0" : isfinite(value) ? text : "null", to);
}

/* JSON readers take whole numbers up to 2^63 - 1; beyond that an id is a text of digits, which import understands. */
static void print_id(FILE *to, uint64_t id) {
    fprintf(to, id <= (uint64_t)INT64_MAX ? "%llu" : "\"%llu\"", ULL(id));
}

static void print_vector(FILE *to, const float *vector, size_t count, const char *between) {
    for (size_t i = 0; i < count; i++) {
        if (i > 0) fputs(between, to);
        print_float(to, vector[i]);
    }
}

/* ==== Readers and writers =========================================================================================== */

/* What reading one row, or a part of it, comes to; the first two are also what a question is answered with. */
enum {
    BAD = 0,
    ROW = 1,
    END = 2
};

struct format;

typedef struct cell {
    char *text;
    bool quoted;
} cell;

typedef enum role {
    ROLE_FIELD,
    ROLE_ID,
    ROLE_VECTOR,
    ROLE_PAYLOAD
} role;

typedef struct column {
    char *name;
    role holds;
} column;

typedef struct reader {
    source in;
    const struct format *format;
    element kind;
    iqdb_element into; /* what vectors become */
    const char *id_field, *vector_field;
    uint32_t dim; /* 0 until it is known, from the database or from the first row */
    bool dim_of_database, has_ids, started;
    uint64_t rows;      /* that the header promises, or UNKNOWN */
    uint64_t row, line; /* being read; lines are counted from 1, and 0 is for what has none */
    size_t line_size;   /* bytes of it that are not yet taken */
    float *numbers;     /* of the row that is being read, from text */
    size_t number_count, number_room;
    iqdb_buffer parsed, made;
    iqdb_field *fields;
    size_t field_room;
    char separator; /* CSV from here on */
    column *columns;
    cell *cells;
    size_t column_count, cell_count, cell_room;
    bool nested;  /* the payload is a column of its own */
    bool pending; /* the first line was no header: its cells are the first row */
    char error[512];
} reader;

typedef struct writer {
    FILE *file;
    const struct format *format;
    uint64_t rows;
    uint32_t dim;
    iqdb_element from; /* what vectors are in the database */
    iqdb_buffer json;
} writer;

/* How well do the bytes fit? LIKELY is not enough without a hint by the name; EXACT agrees with the size of the file. */
typedef enum fit {
    FIT_NONE,
    FIT_LIKELY,
    FIT_CLEAR,
    FIT_EXACT
} fit;

typedef struct layout {
    fit (*fits)(source *s, element kind);
    int (*open)(reader *r);           /* reads the header; ROW or BAD */
    int (*next)(reader *r, block *b); /* reads one row into block_row, which reader_fill counts */
    void (*begin)(writer *w);
    bool (*put)(writer *w, const iqdb_record *record); /* false: an element does not fit the format */
} layout;

typedef struct format {
    const char *name; /* and the usual end of a file's name */
    const layout *rules;
    element kind;
} format;

/* Where in a file: its line, or its row where it has no lines. */
static const char *place_of(char *text, size_t size, uint64_t line, uint64_t row) {
    snprintf(text, size, line > 0 ? ":%llu" : ", row %llu", ULL(line > 0 ? line : row));
    return text;
}

/* Keeps what is wrong, behind its place: a file, its line, or its row. */
static int bad(reader *r, const char *text, ...) __attribute__((format(printf, 2, 3)));
static int bad(reader *r, const char *text, ...) {
    char place[32] = "", what[240];
    va_list arguments;
    va_start(arguments, text);
    vsnprintf(what, sizeof what, text, arguments);
    va_end(arguments);
    if (r->line > 0 || r->started) place_of(place, sizeof place, r->line, r->row);
    snprintf(r->error, sizeof r->error, "%.200s%s: %s", r->in.name, place, what);
    return BAD;
}

/* Every row of every format comes through here with its number of elements. */
static int reader_dim(reader *r, uint64_t dim) {
    if (dim == 0 || dim > IQDB_DIM_MAX) return bad(r, "%llu elements; a vector has 1 to %u", ULL(dim), IQDB_DIM_MAX);
    if (r->dim == 0) r->dim = (uint32_t)dim;
    if (r->dim == dim) return ROW;
    return bad(r, "%llu elements, where %s %lu; correct or remove it", ULL(dim),
               r->dim_of_database ? "the database has" : "the rows before have", (unsigned long)r->dim);
}

/* One row of binary elements behind `skip` bytes. */
static int reader_elements(reader *r, block *b, size_t skip) {
    const size_t size = skip + r->dim * elements[r->kind].size;
    if (!source_want(&r->in, size))
        return bad(r, "the input ends after %llu of its %llu bytes; it was cut short, copy it again",
                   ULL(source_have(&r->in)), ULL(size));
    load_elements(block_row(b, r->dim), source_at(&r->in) + skip, r->kind, r->dim);
    source_take(&r->in, size);
    return ROW;
}

/* ---- vecs: each row is its number of elements (int32), then the elements ---- */

static fit vecs_fits(source *s, element kind) {
    if (!source_want(s, 4)) return FIT_NONE;
    const uint64_t dim = load32(source_at(s)), row = 4 + dim * elements[kind].size;
    if (dim == 0 || dim > IQDB_DIM_MAX) return FIT_NONE;
    if (!source_want(s, (size_t)row + 4)) return source_have(s) == row ? FIT_EXACT : FIT_LIKELY;
    if (load32(source_at(s) + row) != dim) return FIT_LIKELY;
    return s->size == UNKNOWN || s->size % row == 0 ? FIT_EXACT : FIT_CLEAR;
}

static int vecs_next(reader *r, block *b) {
    if (!source_want(&r->in, 1)) return END;
    if (!source_want(&r->in, 4))
        return bad(r, "the input ends inside its first 4 bytes; it was cut short, copy it again");
    return reader_dim(r, load32(source_at(&r->in))) == BAD ? BAD : reader_elements(r, b, 4);
}

static bool vecs_put(writer *w, const iqdb_record *record) {
    unsigned char head[4];
    store32(head, record->dim);
    fwrite(head, 1, sizeof head, w->file);
    return put_elements(w->file, record->vector, w->format->kind, record->dim);
}

/* ---- bin: number of rows and of elements (uint32 each), then all elements ---- */

static fit bin_fits(source *s, element kind) {
    if (!source_want(s, 8)) return FIT_NONE;
    const uint64_t rows = load32(source_at(s)), dim = load32(source_at(s) + 4);
    if (dim == 0 || dim > IQDB_DIM_MAX) return FIT_NONE;
    return s->size == 8 + rows * dim * elements[kind].size ? FIT_EXACT : FIT_LIKELY;
}

/* What a header promises is compared with what the file has before anything is imported. */
static int rows_are_there(reader *r, uint64_t rows, uint64_t dim) {
    r->rows = rows;
    if (rows > 0 && reader_dim(r, dim) == BAD) return BAD;
    if (rows == 0 || r->in.size == UNKNOWN) return ROW;
    const uint64_t row = dim * elements[r->kind].size, size = r->in.size - r->in.offset, there = size / row;
    if (there == rows && size % row == 0) return ROW;
    return bad(r, "its header promises %llu rows of %llu elements, and there are %llu and %llu bytes; %s", ULL(rows),
               ULL(dim), ULL(there), ULL(size % row),
               there < rows ? "it was cut short, copy it again" : "is it of another format?");
}

static int bin_open(reader *r) {
    if (!source_want(&r->in, 8)) return bad(r, "it is shorter than the header of a %s", r->format->name);
    const uint32_t rows = load32(source_at(&r->in)), dim = load32(source_at(&r->in) + 4);
    source_take(&r->in, 8);
    return rows_are_there(r, rows, dim);
}

static int bin_next(reader *r, block *b) {
    if (r->row < r->rows) return reader_elements(r, b, 0);
    return !source_want(&r->in, 1) ? END : bad(r, "more follows than the %llu rows of its header", ULL(r->rows));
}

static void bin_begin(writer *w) {
    unsigned char head[8];
    store32(head, (uint32_t)w->rows);
    store32(head + 4, w->dim);
    fwrite(head, 1, sizeof head, w->file);
}

static bool bin_put(writer *w, const iqdb_record *record) {
    return put_elements(w->file, record->vector, w->format->kind, record->dim);
}

/* ---- npy: a text that describes the array, then all elements, as in bin ---- */

static fit npy_fits(source *s, element kind) {
    (void)kind;
    return source_want(s, 6) && memcmp(source_at(s), "\x93NUMPY", 6) == 0 ? FIT_EXACT : FIT_NONE;
}

static const char *npy_value(const char *header, const char *key) {
    const char *at = strstr(header, key);
    return at == NULL ? "" : at + strlen(key) + strspn(at + strlen(key), "'\": ");
}

static int npy_described(reader *r, const char *header) {
    const char *type = npy_value(header, "descr");
    unsigned long long rows, dim;
    int used = 0;
    size_t kind = 0;
    if (*type == 0 || strchr("<|>=", *type) == NULL) return bad(r, "its header is not one of an npy");
    while (kind < COUNT_OF(elements) && strncmp(type + 1, elements[kind].name, 2) != 0) kind++;
    if (kind == COUNT_OF(elements) || strchr("'\"", type[3]) == NULL || (*type == '>' && elements[kind].size > 1))
        return bad(r, "its elements are none of <f4, <f8, <f2, <i4, i1, u1; save it as array.astype('<f4')");
    if (strncmp(npy_value(header, "fortran_order"), "False", 5) != 0)
        return bad(r, "it is stored column by column; save it as numpy.ascontiguousarray(array)");
    const char *shape = npy_value(header, "shape");
    if (sscanf(shape, "(%19llu , %19llu%n", &rows, &dim, &used) != 2 ||
        shape[used + (int)strspn(shape + used, " ,")] != ')')
        return bad(r, "it has not two dimensions, rows and elements; save it as array.reshape(rows, -1)");
    r->kind = (element)kind;
    return rows_are_there(r, rows, dim);
}

static int npy_open(reader *r) {
    source *in = &r->in;
    if (!source_want(in, 12)) return bad(r, "it is shorter than the header of an npy");
    const unsigned char *at = source_at(in);
    const unsigned version = at[6];
    const size_t skip = version == 1 ? 10 : 12, size = version == 1 ? at[8] + 256u * at[9] : load32(at + 8);
    if (version < 1 || version > 3) return bad(r, "npy version %u; 1, 2 and 3 are known", version);
    if (size > 65536 || !source_want(in, skip + size)) return bad(r, "it ends inside the header of an npy");
    char *header = (char *)resize(NULL, size + 1, 1);
    memcpy(header, source_at(in) + skip, size);
    header[size] = 0;
    source_take(in, skip + size);
    const int result = npy_described(r, header);
    free(header);
    return result;
}

static void npy_begin(writer *w) { /* filled with spaces, so that elements begin at a multiple of 64 */
    char text[118];
    snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (%llu, %lu), }", ULL(w->rows),
             (unsigned long)w->dim);
    fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, w->file);
    fprintf(w->file, "%-117s\n", text);
}

/* ---- Text: lines, numbers, payloads ---- */

static fit text_fits(source *s) {
    source_want(s, 3);
    const size_t size = source_have(s) < 4096 ? source_have(s) : 4096;
    for (size_t i = 0; i < size; i++) /* bytes from 0xF5 on are in no UTF-8 */
        if (source_at(s)[i] >= 0xF5 || (source_at(s)[i] < 0x20 && memchr("\t\n\r", source_at(s)[i], 3) == NULL))
            return FIT_NONE;
    return size > 0 ? FIT_EXACT : FIT_NONE;
}

static int text_open(reader *r) { /* a byte order mark says nothing in UTF-8 */
    if (source_want(&r->in, 3) && memcmp(source_at(&r->in), "\xEF\xBB\xBF", 3) == 0) source_take(&r->in, 3);
    return ROW;
}

/* The next line that is not empty, ended by a zero in place of the newline, which may stand inside the quotes of CSV.
 * It stays where it is until the next call. A line that could not be read to its end is none, though it may look whole. */
static int text_line(reader *r, bool quotes, char **out_text) {
    source *in = &r->in;
    size_t size;
    do {
        uint64_t newlines = 0;
        bool inside = false;
        source_take(in, r->line_size);
        r->line++;
        for (size = 0; size < LINE_SIZE_MAX && source_want(in, size + 1); size++) {
            const unsigned char c = source_at(in)[size];
            if (c == '\n' && !inside) break;
            newlines += c == '\n';
            inside = inside != (quotes && c == '"');
        }
        r->line_size = 0;
        if (source_have(in) == 0 || (size == source_have(in) && in->error != 0)) return END;
        if (size == LINE_SIZE_MAX) return bad(r, "longer than 64 MiB%s", inside ? ": a quote is never closed" : "");
        if (inside) return bad(r, "a quote that opens here is never closed");
        r->line_size = size < source_have(in) ? size + 1 : size;
        r->line += newlines;
        *out_text = (char *)in->bytes + in->begin;
        if (size > 0 && (*out_text)[size - 1] == '\r') size--;
        (*out_text)[size] = 0;
        if (strlen(*out_text) != size) return bad(r, "a zero byte; is this text?");
    } while ((*out_text)[strspn(*out_text, " \t")] == 0);
    return ROW;
}

static int reader_number(reader *r, double value, const char *text) {
    if (!isfinite(narrow(value)))
        return bad(r, "element %llu%s%.40s is no finite 32-bit float", ULL(r->number_count), *text != 0 ? ", " : "",
                   text);
    if (r->number_count == r->number_room) {
        r->number_room = 2 * r->number_room + 256;
        r->numbers = (float *)resize(r->numbers, r->number_room, sizeof *r->numbers);
    }
    r->numbers[r->number_count++] = narrow(value);
    return ROW;
}

/* "[0.1, 2 3;4]": numbers with spaces, commas, semicolons and brackets between them. */
static int reader_numbers(reader *r, char *text) {
    static const char between[] = " \t\r\n,;[]()";
    for (char *at = text + strspn(text, between); *at != 0; at += strspn(at, between)) {
        char *end = at + strcspn(at, between), kept = *end, *stop;
        *end = 0;
        const double value = strtod(at, &stop);
        if (reader_number(r, stop == end && strpbrk(at, "xX(") == NULL ? value : NAN, at) == BAD) return BAD;
        *end = kept;
        at = end;
    }
    return ROW;
}

static int reader_row(reader *r, block *b) {
    if (reader_dim(r, r->number_count) == BAD) return BAD;
    memcpy(block_row(b, r->dim), r->numbers, r->dim * sizeof(float));
    return ROW;
}

static bool id_of(const char *text, uint64_t *out) {
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return isdigit((unsigned char)text[0]) != 0 && *end == 0 && errno == 0;
}

static iqdb_field *reader_field(reader *r, size_t index) {
    if (index >= r->field_room) {
        r->field_room = 2 * index + 16;
        r->fields = (iqdb_field *)resize(r->fields, r->field_room, sizeof *r->fields);
    }
    return &r->fields[index];
}

static int reader_payload(reader *r, block *b, size_t field_count) {
    iqdb_payload made = {NULL, 0};
    const iqdb_result result = iqdb_payload_with(made, r->fields, field_count, &r->made, &made);
    if (result != IQDB_OK) return bad(r, "the payload cannot be stored: %s", iqdb_strerror(result));
    block_payload(b, made);
    return ROW;
}

/* `size` bytes of JSON, of which the first is number `at` of a line or cell, into `memory`. */
static int reader_json(reader *r, const char *text, size_t size, size_t at, iqdb_buffer *memory, iqdb_payload *out) {
    iqdb_error error;
    const iqdb_result result = iqdb_payload_parse(text, size, memory, out, &error);
    if (result == IQDB_OK) return ROW;
    if (result != IQDB_ERR_INVALID_PAYLOAD) return bad(r, "the payload cannot be stored: %s", iqdb_strerror(result));
    return bad(r, "byte %llu: %s", ULL(at + error.offset + 1), error.text);
}

/* ---- JSON lines: {"id": 7, "vector": [...], "payload": {...}}, or with the fields of the payload beside the two ---- */

static fit jsonl_fits(source *s, element kind) {
    size_t at = 0;
    (void)kind;
    if (text_fits(s) == FIT_NONE) return FIT_NONE;
    while (at < source_have(s) && (isspace(source_at(s)[at]) != 0 || source_at(s)[at] >= 0xBB)) at++;
    return at < source_have(s) && source_at(s)[at] == '{' ? FIT_EXACT : FIT_NONE;
}

static int jsonl_vector(reader *r, block *b, iqdb_value vector) {
    if (vector.type != IQDB_TYPE_ARRAY)
        return bad(r, "\"%.40s\" is not there, or no array; --vector-field names another one", r->vector_field);
    r->number_count = 0;
    for (size_t i = 0; i < iqdb_value_count(vector); i++) {
        const iqdb_value item = iqdb_value_at(vector, i);
        const double value = item.type == IQDB_TYPE_INT ? (double)item.as.integer : item.as.real;
        if (reader_number(r, item.type == IQDB_TYPE_INT || item.type == IQDB_TYPE_FLOAT ? value : NAN, "") == BAD)
            return BAD;
    }
    return reader_row(r, b);
}

static int jsonl_id(reader *r, block *b, iqdb_value id) {
    uint64_t *to = &b->records[b->count].id;
    if (r->row == 0) r->has_ids = id.type != IQDB_TYPE_ABSENT;
    if (r->has_ids != (id.type != IQDB_TYPE_ABSENT))
        return bad(r, "\"%.40s\" is %s, unlike in the lines before", r->id_field, r->has_ids ? "not there" : "there");
    if (id.type == IQDB_TYPE_INT) *to = (uint64_t)id.as.integer;
    if (!r->has_ids || (id.type == IQDB_TYPE_INT && id.as.integer >= 0)) return ROW;
    const bool is_text = id.type == IQDB_TYPE_TEXT && strlen(id.as.text.data) == id.as.text.size; /* no zero in it */
    if (is_text && id_of(id.as.text.data, to)) return ROW;
    return bad(r, "\"%.40s\" is no whole number from 0 to 2^64 - 1", r->id_field);
}

static bool jsonl_is_key(const char *from, const char *to, const char *name) {
    return strlen(name) == (size_t)(to - from) && memcmp(from, name, (size_t)(to - from)) == 0;
}

/* The text of the object "payload", where a line has nothing else but an id and a vector; NULL: it is to be read with
 * the line. Where that is no JSON it may end anywhere: it, or what is left, is then refused. */
static char *jsonl_payload(const reader *r, char *line, size_t *out_size) {
    char *found = NULL;
    size_t depth = 0;
    *out_size = 0;
    for (char *at = line; *at != 0; at++) {
        if (*at == '{' || *at == '[') depth++;
        if (depth > 0 && (*at == '}' || *at == ']') && --depth == 1 && found != NULL && *out_size == 0)
            *out_size = (size_t)(at + 1 - found);
        if (*at != '"') continue;
        const char *name = at + 1;
        for (at++; *at != 0 && *at != '"'; at++) at += *at == '\\' && at[1] != 0;
        if (*at == 0) return NULL;
        char *value = at + 1 + strspn(at + 1, " \t\r");
        if (depth != 1 || *value != ':' || jsonl_is_key(name, at, r->id_field) ||
            jsonl_is_key(name, at, r->vector_field))
            continue;
        value += 1 + strspn(value + 1, " \t\r");
        if (!jsonl_is_key(name, at, "payload") || found != NULL || *value != '{') return NULL;
        found = value;
    }
    return *out_size > 0 ? found : NULL;
}

static int jsonl_next(reader *r, block *b) {
    iqdb_payload line, payload = {NULL, 0};
    iqdb_value id = iqdb_null(), vector = iqdb_null();
    size_t count = 0, size;
    char *text;
    const int next = text_line(r, false, &text);
    if (next != ROW) return next;
    /* As the root of a payload it may be as deep as one may be, and {"$bytes": ""} is a field with a text there, as in
     * what export has written; inside of the line neither would be so. */
    char *alone = jsonl_payload(r, text, &size);
    if (alone != NULL) {
        if (reader_json(r, alone, size, (size_t)(alone - text), &r->made, &payload) == BAD) return BAD;
        memset(alone + 1, ' ', size - 1);
        alone[size - 1] = '}';
    }
    if (reader_json(r, text, strlen(text), 0, &r->parsed, &line) == BAD) return BAD;
    id.type = IQDB_TYPE_ABSENT;
    for (size_t i = 0; i < iqdb_payload_count(line); i++) {
        iqdb_field *field = reader_field(r, count);
        if (!iqdb_payload_at(line, i, field)) break;
        if (strcmp(field->key, r->id_field) == 0)
            id = field->value;
        else if (strcmp(field->key, r->vector_field) == 0)
            vector = field->value;
        else
            count++;
    }
    if (jsonl_vector(r, b, vector) == BAD || jsonl_id(r, b, id) == BAD) return BAD;
    if (alone != NULL) {
        block_payload(b, payload);
        return ROW;
    }
    if (count == 1 && strcmp(r->fields[0].key, "payload") == 0) {
        const iqdb_value only = r->fields[0].value;
        if (only.type == IQDB_TYPE_NULL) return ROW;
        if (only.type == IQDB_TYPE_OBJECT) count = iqdb_value_count(only);
        if (only.type == IQDB_TYPE_OBJECT)
            for (size_t i = 0; i < count; i++) iqdb_value_field(only, i, reader_field(r, i));
        return reader_payload(r, b, count);
    }
    return count == 0 ? ROW : reader_payload(r, b, count);
}

static bool jsonl_put(writer *w, const iqdb_record *record) {
    const char *json = "null";
    fputs("{\"id\":", w->file);
    print_id(w->file, record->id);
    if (record->vector != NULL) {
        fputs(",\"vector\":[", w->file);
        print_vector(w->file, record->vector, record->dim, ",");
        putc(']', w->file);
    }
    if (iqdb_payload_to_json(record->payload, &w->json, &json, NULL) != IQDB_OK) return false;
    fprintf(w->file, ",\"payload\":%s}\n", json);
    return true;
}

/* ---- CSV (RFC 4180, or with tabs or semicolons). A first line with a word in it names the columns: id; the vector, as
 * one cell of numbers or one column an element (vector0, vector1, ...); and payload, as JSON, or any others, which are
 * its fields. Without such a line every cell is an element. ---- */

static fit csv_fits(source *s, element kind) {
    (void)kind;
    return text_fits(s) == FIT_NONE ? FIT_NONE : FIT_CLEAR;
}

static int csv_line(reader *r) {
    char *text;
    const int next = text_line(r, true, &text);
    if (next != ROW) return next;
    if (r->separator == 0) r->separator = strchr(text, '\t') != NULL ? '\t' : strchr(text, ';') != NULL ? ';' : ',';
    r->cell_count = 0;
    for (char *at = text, ended = 0; ended == 0; at++) {
        if (r->cell_count == r->cell_room) {
            r->cell_room = 2 * r->cell_room + 64;
            r->cells = (cell *)resize(r->cells, r->cell_room, sizeof *r->cells);
        }
        cell *made = &r->cells[r->cell_count++];
        char *to = at;
        made->text = at;
        made->quoted = *at == '"';
        if (made->quoted) /* two quotes stand for one */
            for (at++; *at != 0 && (*at != '"' || *++at == '"'); at++) *to++ = *at;
        else
            while (*at != 0 && *at != r->separator) to = ++at;
        if (*at != 0 && *at != r->separator) return bad(r, "cell %llu goes on behind its quotes", ULL(r->cell_count));
        ended = *at == 0;
        *to = 0;
    }
    return ROW;
}

static role csv_role(const reader *r, const char *name) {
    const size_t prefix = strlen(r->vector_field);
    if (strcmp(name, r->id_field) == 0) return ROLE_ID;
    if (strcmp(name, "payload") == 0) return ROLE_PAYLOAD;
    if (strncmp(name, r->vector_field, prefix) != 0) return ROLE_FIELD;
    name += prefix + (name[prefix] == '_');
    return name[strspn(name, "0123456789")] == 0 ? ROLE_VECTOR : ROLE_FIELD;
}

static int csv_open(reader *r) {
    size_t counts[ROLE_PAYLOAD + 1] = {0, 0, 0, 0};
    text_open(r);
    const int next = csv_line(r);
    if (next != ROW) return next == BAD ? BAD : bad(r, "it holds no line");
    r->pending = true;
    for (size_t i = 0; i < r->cell_count && r->pending; i++) {
        char *end;
        (void)strtod(r->cells[i].text, &end); /* nan is a number here, so that it is refused as one */
        r->pending = end != r->cells[i].text && end[strspn(end, " ")] == 0;
    }
    r->column_count = r->cell_count;
    r->columns = (column *)resize(NULL, r->column_count, sizeof *r->columns);
    for (size_t i = 0; i < r->column_count; i++) {
        column *made = &r->columns[i];
        made->name = (char *)resize(NULL, strlen(r->cells[i].text) + 1, 1);
        strcpy(made->name, r->cells[i].text);
        made->holds = r->pending ? ROLE_VECTOR : csv_role(r, made->name);
        counts[made->holds]++;
    }
    r->has_ids = counts[ROLE_ID] > 0;
    r->nested = counts[ROLE_PAYLOAD] == 1 && counts[ROLE_FIELD] == 0;
    if (counts[ROLE_ID] > 1) return bad(r, "two columns are named '%.40s'", r->id_field);
    return counts[ROLE_VECTOR] > 0 ? ROW
                                   : bad(r,
                                         "no column is named '%.40s', or '%.40s0' and so on; --vector-field "
                                         "names others",
                                         r->vector_field, r->vector_field);
}

/* Text in quotes is text. Else what JSON takes for a number, true or false is that, and 007 remains text. */
static iqdb_value csv_value(reader *r, const cell *c) {
    char json[64];
    iqdb_payload read;
    if (c->quoted || strlen(c->text) > 40 || strpbrk(c->text, "[{\"") != NULL) return iqdb_text(c->text);
    snprintf(json, sizeof json, "{\"\":%s}", c->text);
    if (iqdb_payload_from_json(json, strlen(json), &r->parsed, &read) != IQDB_OK) return iqdb_text(c->text);
    return iqdb_payload_get(read, "");
}

static int csv_next(reader *r, block *b) {
    size_t fields = 0;
    const int next = r->pending ? ROW : csv_line(r);
    if (next != ROW) return next;
    r->pending = false;
    r->number_count = 0;
    if (r->cell_count != r->column_count)
        return bad(r, "%llu cells, where the first line has %llu; correct or remove it", ULL(r->cell_count),
                   ULL(r->column_count));
    for (size_t i = 0; i < r->column_count; i++)
        if (r->columns[i].holds == ROLE_VECTOR && reader_numbers(r, r->cells[i].text) == BAD) return BAD;
    if (reader_row(r, b) == BAD) return BAD;
    for (size_t i = 0; i < r->column_count; i++) {
        const role what = r->columns[i].holds;
        const cell *c = &r->cells[i];
        if (what == ROLE_ID && !id_of(c->text, &b->records[b->count].id))
            return bad(r, "the id '%.40s' is no whole number from 0 to 2^64 - 1", c->text);
        if (what == ROLE_ID || what == ROLE_VECTOR || (*c->text == 0 && !c->quoted)) continue;
        if (what == ROLE_PAYLOAD && r->nested) {
            iqdb_payload payload;
            if (reader_json(r, c->text, strlen(c->text), 0, &r->parsed, &payload) == BAD) return BAD;
            block_payload(b, payload);
        } else {
            iqdb_field *field = reader_field(r, fields++);
            field->key = r->columns[i].name;
            field->value = csv_value(r, c);
        }
    }
    return fields == 0 ? ROW : reader_payload(r, b, fields);
}
static void csv_begin(writer *w) {
    fputs("id,payload", w->file);
    for (uint32_t i = 0; i < w->dim; i++) fprintf(w->file, ",vector%lu", (unsigned long)i);
    putc('\n', w->file);
}

static bool csv_put(writer *w, const iqdb_record *record) {
    const char *json = "";
    if (record->payload.bytes != NULL && iqdb_payload_to_json(record->payload, &w->json, &json, NULL) != IQDB_OK)
        return false;
    fprintf(w->file, "%llu,", ULL(record->id));
    if (*json != 0) putc('"', w->file);
    for (const char *at = json; *at != 0; at++) {
        if (*at == '"') putc('"', w->file);
        putc(*at, w->file);
    }
    fputs(*json != 0 ? "\"," : ",", w->file);
    print_vector(w->file, record->vector, record->dim, ",");
    putc('\n', w->file);
    return true;
}

/* ---- All formats, and which one some bytes are ---- */

static const layout vecs = {vecs_fits, NULL, vecs_next, NULL, vecs_put};
static const layout bin = {bin_fits, bin_open, bin_next, bin_begin, bin_put};
static const layout npy = {npy_fits, npy_open, bin_next, npy_begin, bin_put};
static const layout jsonl = {jsonl_fits, text_open, jsonl_next, NULL, jsonl_put};
static const layout csv = {csv_fits, csv_open, csv_next, csv_begin, csv_put};
static const format formats[] = {{"fvecs", &vecs, F4},  {"ivecs", &vecs, I4}, {"bvecs", &vecs, U1}, {"fbin", &bin, F4},
                                 {"ibin", &bin, I4},    {"u8bin", &bin, U1},  {"i8bin", &bin, I1},  {"npy", &npy, F4},
                                 {"jsonl", &jsonl, F4}, {"csv", &csv, F4}};
#define FORMAT_NAMES "fvecs, ivecs, bvecs, fbin, u8bin, i8bin, ibin, npy, jsonl, csv"

static const format *format_named(const char *name) {
    for (size_t i = 0; name != NULL && i < COUNT_OF(formats); i++)
        if (strcmp(formats[i].name, name) == 0) return &formats[i];
    return NULL;
}

static const format *format_of_file(const char *path) {
    const char *dot = strrchr(path, '.');
    return dot != NULL ? format_named(dot + 1) : NULL;
}

/* Do words look like floats? Whole numbers below 2^23 are subnormal ones, or NaN, and small ones are rare among floats. */
static bool look_like_floats(const source *s) {
    size_t size = source_have(s) < 4096 ? source_have(s) : 4096, floats = 0, integers = 0;
    for (size_t at = 8; at + 4 <= size; at += 4) {
        const uint32_t bits = load32(source_at(s) + at), exponent = bits >> 23 & 0xFF;
        if (bits << 1 != 0) (exponent > 67 && exponent < 187 ? &floats : &integers)[0]++; /* 1e-18 to 1e18 */
    }
    return floats >= integers;
}

/* The content decides. Where it leaves a choice (u8bin and i8bin are the same bytes) or is cut short, the name helps. */
static int reader_sniff(reader *r) {
    const format *best = NULL, *hint = format_of_file(r->in.name);
    int best_score = 0;
    bool tie = false;
    for (size_t i = 0; i < COUNT_OF(formats); i++) {
        const format *f = &formats[i];
        int score = 8 * (int)f->rules->fits(&r->in, f->kind);
        if (score > 0 && elements[f->kind].size == 4 && (f->kind == F4) == look_like_floats(&r->in)) score += 4;
        if (score > 0 && f == hint) score += 2;
        if (score >= best_score) tie = score == best_score;
        if (score > best_score) best = f;
        if (score > best_score) best_score = score;
    }
    const bool doubtful = best_score < 8 * (int)FIT_CLEAR && best != hint;
    r->format = best;
    if (source_have(&r->in) == 0) return bad(r, "it is empty");
    if (best == NULL || doubtful)
        return bad(r, "its content is none of " FORMAT_NAMES "; convert it, or say with --format which it is");
    return !tie ? ROW : bad(r, "it may be %s or another format of the same bytes; say with --format which", best->name);
}

/* Finds out what the bytes are, unless r->format says so, and reads what stands before the rows. */
static int reader_begin(reader *r) {
    int result = r->format == NULL ? reader_sniff(r) : ROW;
    if (result != BAD) r->kind = r->format->kind;
    if (result != BAD && r->format->rules->open != NULL) result = r->format->rules->open(r);
    r->started = result != BAD;
    if (r->in.error == 0) return result;
    r->line = 0;
    r->started = false;
    return bad(r, "it cannot be read: %s", strerror(r->in.error));
}

/* A file, or standard input for "-". The caller sets before what it wants: format, id_field, vector_field, in.stop; all
 * else is zero. */
static int reader_open(reader *r, const char *path) {
    struct stat facts;
    const bool standard = strcmp(path, "-") == 0;
    r->rows = r->in.size = UNKNOWN;
    r->in.name = standard ? "stdin" : path;
    r->in.file = standard ? 0 : open(path, O_RDONLY | O_CLOEXEC);
    if (r->in.file < 0 || fstat(r->in.file, &facts) != 0) return bad(r, "%s", strerror(errno));
    if (S_ISDIR(facts.st_mode)) return bad(r, "it is a directory; name a file, or - for standard input");
    if (S_ISREG(facts.st_mode) && !standard) r->in.size = (uint64_t)facts.st_size;
    return reader_begin(r);
}

/* Behind reader_open: rows have to fit a database of `dim` elements, 0 for one that has none yet, and become `into`. */
static int reader_expect(reader *r, uint32_t dim, iqdb_element into) {
    const uint32_t own = r->dim;
    r->into = into;
    if (dim == 0) return ROW;
    r->dim = dim;
    r->dim_of_database = true;
    return own == 0 ? ROW : reader_dim(r, own);
}

static void reader_close(reader *r) {
    if (r->in.file > 0) close(r->in.file);
    free(r->in.bytes);
    iqdb_buffer_free(&r->parsed);
    iqdb_buffer_free(&r->made);
    for (size_t i = 0; i < r->column_count; i++) free(r->columns[i].name);
    free(r->columns);
    free(r->cells);
    free(r->fields);
    free(r->numbers);
}

/* Up to `limit` rows. BAD: those before the bad one are in the block, and r->error says what is wrong. */
static int reader_fill(reader *r, block *b, uint64_t first_id, uint64_t limit) {
    b->count = b->used = 0;
    while (b->count < limit && (b->capacity == 0 || b->count < b->capacity) && b->used < 16 * SOURCE_SIZE) {
        const int next = r->format->rules->next(r, b);
        if (next != ROW && r->in.error == EINTR) return END;
        if (next != ROW && r->in.error != 0) return bad(r, "it cannot be read further: %s", strerror(r->in.error));
        if (next != ROW) return next;
        iqdb_record *record = &b->records[b->count];
        if (iqdb_vector_check(record->vector, r->dim) != IQDB_OK) {
            size_t at = 0;
            while (isfinite(record->vector[at])) at++;
            return bad(r, "element %llu is no finite 32-bit float", ULL(at));
        }
        uint64_t at = 0;
        if (!pack_vector(r->into, b->vectors + b->count * r->dim, r->dim, &at))
            return bad(r, "element %llu does not fit the elements of the database", ULL(at));
        record->raw = record->vector;
        if (!r->has_ids && r->row > UINT64_MAX - first_id)
            return bad(r, "its id would be beyond 2^64 - 1; --first-id counts from a smaller one");
        if (!r->has_ids) record->id = first_id + r->row;
        b->lines[b->count] = r->line;
        b->count++;
        r->row++;
    }
    return ROW;
}

#endif /* ROWS_H */
