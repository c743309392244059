/* The table: what it knows, errors, vectors, and the statements on its shadow tables. */
#ifndef IQDB_SQLITE_TABLE_H
#define IQDB_SQLITE_TABLE_H

#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3

#define IQDB_STATIC
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <ctype.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS_MAX 64
#if !defined(LOG_KEPT)
#define LOG_KEPT 131072 /* entries; who is further behind reads all rows */
#define LOG_STEP 4096   /* entries between two cuts */
#endif
#define FIRST_PAGE 64     /* hits, where neither k nor LIMIT says how many are wanted */
#define VALUES_MAX 60000  /* of all IN lists of a query: below IQDB_FILTER_NODES_MAX */
#define ROWID_KEY "rowid" /* the field of a record that stands for its rowid in filters */

enum {
    CLASS_NUMBER,
    CLASS_TEXT,
    CLASS_BLOB, /* in the order in which SQLite sorts them */
    CLASS_OTHER /* of values only: a text that is not UTF-8, as no row has one */
};

typedef struct declared {
    char *name;
    const char *type; /* as a STRICT table knows it */
    int class_;
} declared;

typedef struct rowids {
    sqlite3_int64 *items;
    size_t count, room;
} rowids;

/* A point in the history of the shadow tables, and how much had been noted by then. */
typedef struct mark {
    sqlite3_int64 seq, token;
    size_t noted;
} mark;

enum {
    SQL_INSERT,
    SQL_REPLACE,
    SQL_UPDATE,
    SQL_DELETE,
    SQL_ROW,
    SQL_ALL,
    SQL_COUNT,
    SQL_LOG,
    SQL_LOG_LAST,
    SQL_LOG_AT,
    SQL_LOG_SINCE,
    SQL_LOG_CUT,
    SQL_STATEMENTS
};

typedef struct table {
    sqlite3_vtab base;
    sqlite3 *db;
    char *schema, *name;
    uint32_t dim;
    iqdb_options options; /* of the handle: metric, index and its knobs */
    declared columns[COLUMNS_MAX];
    int column_count;
    char *names;                              /* of the columns, quoted, each with a comma behind it */
    char *places, *changes;                   /* the same as "?3," and as "name=?3," */
    sqlite3_stmt *statements[SQL_STATEMENTS]; /* NULL until they are needed */
    sqlite3_stmt *spare;                      /* SQL_ROW for a cursor */
    iqdb *handle;                             /* NULL until the first search */
    mark seen;                                /* what the handle shows; seq 0: who knows */
    rowids noted;                             /* read again since the transaction began */
    rowids dirty;                             /* to be read again */
    mark begin, *marks;                       /* of the transaction and its savepoints */
    int mark_count, mark_room;
    bool writing; /* between xBegin and xCommit or xRollback */
    bool utf16;   /* so SQLite sorts texts by their bytes in that, and searches by those in UTF-8 */
} table;

/* Columns of the virtual table: vector, the declared ones, and three that are hidden. */
#define COLUMN_VECTOR 0
#define COLUMN_DISTANCE(t) ((t)->column_count + 1)
#define COLUMN_K(t) ((t)->column_count + 2)
#define COLUMN_COMMAND(t) ((t)->column_count + 3)

/* The order of ids is that of rowids, so that equal distances come in the order of rowids. */
static uint64_t id_of(sqlite3_int64 rowid) { return (uint64_t)rowid ^ (uint64_t)1 << 63; }
static sqlite3_int64 rowid_of(uint64_t id) { return (sqlite3_int64)(id ^ (uint64_t)1 << 63); }

/* ---- errors ---------------------------------------------------------------------------------------------------- */

static int fail(table *t, int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    sqlite3_free(t->base.zErrMsg);
    t->base.zErrMsg = sqlite3_vmprintf(format, arguments);
    va_end(arguments);
    return code;
}

/* What says why something is refused, as the result of a function, where NULL means that it is not: so there always is
 * one, and no_memory where there is no memory for a text. Given up by no_more. */
static char no_memory[] = "out of memory";

static char *because(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    char *text = sqlite3_vmprintf(format, arguments);
    va_end(arguments);
    return text != NULL ? text : no_memory;
}

static void no_more(char *why) {
    if (why != no_memory) sqlite3_free(why);
}

/* `why` as an error of the table; it is given up. */
static int fail_because(table *t, int code, const char *what, char *why) {
    const bool memory = why != no_memory;
    if (memory) (void)fail(t, code, "%s: %s%s", t->name, what, why);
    no_more(why);
    return memory ? code : SQLITE_NOMEM;
}

static int fail_sql(table *t, int code) {
    return code == SQLITE_NOMEM ? code : fail(t, code, "%s: %s", t->name, sqlite3_errmsg(t->db));
}

static int fail_iqdb(table *t, iqdb_result result) {
    return result == IQDB_ERR_NOMEM ? SQLITE_NOMEM : fail(t, SQLITE_ERROR, "%s: %s", t->name, iqdb_strerror(result));
}

static bool append(rowids *list, const sqlite3_int64 *items, size_t count) {
    if (list->count + count > list->room) {
        const size_t room = 2 * (list->count + count) + 64;
        sqlite3_int64 *grown = (sqlite3_int64 *)sqlite3_realloc64(list->items, room * sizeof *grown);
        if (grown == NULL) return false;
        list->items = grown;
        list->room = room;
    }
    if (count > 0) memcpy(list->items + list->count, items, count * sizeof *items);
    list->count += count;
    return true;
}

/* ---- vectors --------------------------------------------------------------------------------------------------- */

/* Between the bytes of a blob and floats of this machine, in place, either way. */
static void little_endian(float *floats, size_t count) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    for (unsigned char *b = (unsigned char *)floats, swap; count > 0; count--, b += 4) {
        swap = b[0], b[0] = b[3], b[3] = swap;
        swap = b[1], b[1] = b[2], b[2] = swap;
    }
#endif
    (void)floats, (void)count;
}

static void floats_from(float *out, const void *bytes, size_t count) {
    memcpy(out, bytes, count * sizeof *out);
    little_endian(out, count);
}

/* The nearest float. The compiler's own conversion says nothing of numbers beyond the largest float. */
static float narrow(double x) {
    const double size = fabs(x), nearest = size >= 3.4028235677973366e38 ? (double)INFINITY : FLT_MAX;
    return size <= FLT_MAX || isnan(x) ? (float)x : (float)(x > 0 ? nearest : -nearest);
}

/* The numbers of a JSON array, read by iqdb's own reader as the only field of an object. */
static char *floats_of_text(const char *text, size_t size, float **out, size_t *out_count) {
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload payload = {NULL, 0};
    iqdb_error error;
    char *why = NULL, *json = (char *)sqlite3_malloc64(size + 8);
    if (json == NULL) return no_memory;
    memcpy(json, "{\"v\":", 5);
    memcpy(json + 5, text, size);
    json[size + 5] = '}';
    const iqdb_result result = iqdb_payload_parse(json, size + 6, &buffer, &payload, &error);
    const iqdb_value list = result == IQDB_OK ? iqdb_payload_get(payload, "v") : iqdb_null();
    const size_t count = iqdb_value_count(list);
    if (result != IQDB_OK && result != IQDB_ERR_INVALID_PAYLOAD) {
        why = because("%s", iqdb_strerror(result));
    } else if (result != IQDB_OK) {
        why = because("a vector as text is a JSON array of numbers: %s (byte %d)", error.text,
                              (int)(error.offset > 5 ? error.offset - 5 : 0));
    } else if (list.type != IQDB_TYPE_ARRAY || iqdb_payload_count(payload) != 1) {
        why = because("a vector as text is a JSON array of numbers");
    } else if ((*out = (float *)sqlite3_malloc64(count * sizeof **out + 4)) == NULL) {
        why = no_memory;
    }
    for (size_t i = 0; why == NULL && i < count; i++) {
        const iqdb_value item = iqdb_value_at(list, i);
        if (item.type == IQDB_TYPE_INT)
            (*out)[i] = (float)item.as.integer;
        else if (item.type == IQDB_TYPE_FLOAT)
            (*out)[i] = narrow(item.as.real);
        else
            why = because("element %d of the vector is no number", (int)i);
    }
    *out_count = count;
    iqdb_buffer_free(&buffer);
    sqlite3_free(json);
    return why;
}

/* The floats of a value in memory of their own, or why there are none. dim 0: any. */
static char *floats_of(sqlite3_value *value, uint32_t dim, float **out, uint32_t *out_dim) {
    const int type = sqlite3_value_type(value);
    size_t count = 0;
    char *why = NULL;
    *out = NULL;
    if (type == SQLITE_BLOB) {
        const void *bytes = sqlite3_value_blob(value); /* NULL where a zeroblob found no memory */
        const size_t size = (size_t)sqlite3_value_bytes(value);
        count = size / sizeof(float);
        if (size % sizeof(float) != 0)
            return because("a vector of %d bytes is no array of 32-bit floats", (int)size);
        *out = bytes != NULL || size == 0 ? (float *)sqlite3_malloc64(size + 4) : NULL;
        if (*out == NULL) return no_memory;
        if (size > 0) floats_from(*out, bytes, count);
    } else if (type == SQLITE_TEXT) {
        const char *text = (const char *)sqlite3_value_text(value);
        why = text == NULL ? no_memory
                           : floats_of_text(text, (size_t)sqlite3_value_bytes(value), out, &count);
    } else {
        return because(type == SQLITE_NULL ? "a vector may not be NULL"
                                                   : "a vector is a blob of 32-bit floats, or a JSON array");
    }
    if (why == NULL && dim != 0 && count != dim)
        why = because("the vector has %d elements, %d are needed", (int)count, (int)dim);
    if (why == NULL && iqdb_vector_check(*out, count) != IQDB_OK)
        why = because(count == 0             ? "the vector is empty"
                              : count > IQDB_DIM_MAX ? "the vector is too long"
                                                     : "the vector has an element that is no finite number");
    if (why != NULL) {
        sqlite3_free(*out);
        *out = NULL;
    }
    *out_dim = (uint32_t)count;
    return why;
}

/* ---- statements on the shadow tables --------------------------------------------------------------------------- */

static char *sql_text(const table *t, int which) {
    const char *s = t->schema, *n = t->name;
    switch (which) {
    case SQL_INSERT:
        return sqlite3_mprintf("insert into \"%w\".\"%w_rows\"(rowid,%svector) values(?1,%s?2)", s, n, t->names,
                               t->places);
    case SQL_REPLACE:
        return sqlite3_mprintf("insert or replace into \"%w\".\"%w_rows\"(rowid,%svector) values(?1,%s?2)", s, n,
                               t->names, t->places);
    case SQL_UPDATE:
        return sqlite3_mprintf("update \"%w\".\"%w_rows\" set rowid=?1,%svector=?2 where rowid=?%d", s, n, t->changes,
                               t->column_count + 3);
    case SQL_DELETE:
        return sqlite3_mprintf("delete from \"%w\".\"%w_rows\" where rowid=?1", s, n);
    case SQL_ROW:
        return sqlite3_mprintf("select rowid,%svector from \"%w\".\"%w_rows\" where rowid=?1", t->names, s, n);
    case SQL_ALL:
        return sqlite3_mprintf("select rowid,%svector from \"%w\".\"%w_rows\" order by rowid", t->names, s, n);
    case SQL_COUNT:
        return sqlite3_mprintf("select count(*) from \"%w\".\"%w_rows\"", s, n);
    case SQL_LOG:
        return sqlite3_mprintf("insert into \"%w\".\"%w_log\"(id,token) values(?1,random())", s, n);
    case SQL_LOG_LAST:
        return sqlite3_mprintf("select seq,token from \"%w\".\"%w_log\" order by seq desc limit 1", s, n);
    case SQL_LOG_AT:
        return sqlite3_mprintf("select token from \"%w\".\"%w_log\" where seq=?1", s, n);
    case SQL_LOG_SINCE:
        return sqlite3_mprintf("select id from \"%w\".\"%w_log\" where seq>?1", s, n);
    default:
        return sqlite3_mprintf("delete from \"%w\".\"%w_log\" where seq<=?1", s, n);
    }
}

static int prepare(table *t, int which, sqlite3_stmt **out) {
    if (*out != NULL) return SQLITE_OK;
    char *text = sql_text(t, which);
    if (text == NULL) return SQLITE_NOMEM;
    const int code = sqlite3_prepare_v3(t->db, text, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);
    sqlite3_free(text);
    return code == SQLITE_OK ? SQLITE_OK : fail_sql(t, code);
}

/* Makes a statement ready and binds ?1. */
static int ready(table *t, int which, sqlite3_int64 first, sqlite3_stmt **out) {
    const int code = prepare(t, which, &t->statements[which]);
    *out = t->statements[which];
    return code != SQLITE_OK || sqlite3_bind_parameter_count(*out) == 0 ? code : sqlite3_bind_int64(*out, 1, first);
}

/* Runs a statement that gives no rows. */
static int done(table *t, sqlite3_stmt *statement) {
    sqlite3_step(statement);
    const int code = sqlite3_reset(statement);
    return code == SQLITE_OK ? SQLITE_OK : fail_sql(t, code);
}

/* The first row's columns as integers; *out_found: whether there was one. */
static int look(table *t, int which, sqlite3_int64 first, sqlite3_int64 *out, int columns, bool *out_found) {
    sqlite3_stmt *statement;
    int code = ready(t, which, first, &statement);
    if (code != SQLITE_OK) return code;
    *out_found = sqlite3_step(statement) == SQLITE_ROW;
    for (int i = 0; i < columns && *out_found; i++) out[i] = sqlite3_column_int64(statement, i);
    code = sqlite3_reset(statement);
    return code == SQLITE_OK ? SQLITE_OK : fail_sql(t, code);
}

static void forget_statements(table *t) {
    for (int i = 0; i < SQL_STATEMENTS; i++) {
        sqlite3_finalize(t->statements[i]);
        t->statements[i] = NULL;
    }
    sqlite3_finalize(t->spare);
    t->spare = NULL;
}

#endif
