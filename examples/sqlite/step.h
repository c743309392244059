/* Keeps the handle in step with the shadow tables: see the numbered rules in iqdb_sqlite.c. */
#ifndef IQDB_SQLITE_STEP_H
#define IQDB_SQLITE_STEP_H

#include "table.h"

/* ---- the handle in step with the shadow tables ----------------------------------------------------------------- */

/* A shadow row, or the values of an INSERT, as the fields of a record. */
static void field_of(const declared *c, sqlite3_value *value, iqdb_field *fields, size_t *count) {
    iqdb_field *field = &fields[*count];
    field->key = c->name;
    switch (sqlite3_value_type(value)) {
    case SQLITE_INTEGER:
        field->value = iqdb_int(sqlite3_value_int64(value));
        break;
    case SQLITE_FLOAT:
        field->value = iqdb_float(sqlite3_value_double(value));
        break;
    case SQLITE_TEXT: {
        const char *text = (const char *)sqlite3_value_text(value);
        field->value = iqdb_text_n(text, (size_t)sqlite3_value_bytes(value));
        break;
    }
    case SQLITE_BLOB: {
        const void *bytes = sqlite3_value_blob(value);
        const size_t size = (size_t)sqlite3_value_bytes(value);
        field->value = iqdb_bytes(bytes != NULL || size > 0 ? bytes : "", size);
        break;
    }
    default:
        return; /* NULL: the key is missing */
    }
    ++*count;
}

/* The row that the statement stands on, for the time of the call. */
static int record_of(table *t, sqlite3_stmt *row, float *vector, iqdb_field *fields, iqdb_record *out) {
    const int last = t->column_count + 1;
    const void *bytes = sqlite3_column_blob(row, last);
    *out = iqdb_record_default();
    out->id = id_of(sqlite3_column_int64(row, 0));
    if (sqlite3_column_type(row, last) != SQLITE_BLOB || bytes == NULL ||
        (size_t)sqlite3_column_bytes(row, last) != t->dim * sizeof(float))
        return fail(t, SQLITE_CORRUPT_VTAB, "%s_rows: row %lld has no vector of %d elements", t->name,
                    sqlite3_column_int64(row, 0), (int)t->dim);
    floats_from(vector, bytes, t->dim);
    if (iqdb_vector_check(vector, t->dim) != IQDB_OK)
        return fail(t, SQLITE_CORRUPT_VTAB, "%s_rows: the vector of row %lld is not finite", t->name,
                    sqlite3_column_int64(row, 0));
    out->vector = vector;
    out->dim = t->dim;
    out->fields = fields;
    fields[0].key = ROWID_KEY;
    fields[0].value = iqdb_int(sqlite3_column_int64(row, 0));
    out->field_count = 1;
    for (int i = 0; i < t->column_count; i++)
        field_of(&t->columns[i], sqlite3_column_value(row, 1 + i), fields, &out->field_count);
    return SQLITE_OK;
}

static void drop_handle(table *t) {
    (void)iqdb_close(t->handle);
    t->handle = NULL;
    memset(&t->seen, 0, sizeof t->seen);
    t->dirty.count = 0;
}

static int open_handle(table *t) {
    drop_handle(t);
    t->options.dim = t->dim;
    const iqdb_result result = iqdb_open_in_memory(&t->options, &t->handle);
    return result == IQDB_OK ? SQLITE_OK : fail_iqdb(t, result);
}

static int load_all(table *t, float *vector, iqdb_field *fields) {
    sqlite3_stmt *rows;
    sqlite3_int64 count = 0;
    bool found;
    iqdb_record record;
    int code = open_handle(t);
    if (code == SQLITE_OK) code = look(t, SQL_COUNT, 0, &count, 1, &found);
    if (code == SQLITE_OK && iqdb_reserve(t->handle, (size_t)count) != IQDB_OK) code = SQLITE_NOMEM;
    if (code == SQLITE_OK) code = ready(t, SQL_ALL, 0, &rows);
    if (code != SQLITE_OK) return code;
    while (code == SQLITE_OK && sqlite3_step(rows) == SQLITE_ROW) {
        code = record_of(t, rows, vector, fields, &record);
        const iqdb_result result = code == SQLITE_OK ? iqdb_upsert(t->handle, &record) : IQDB_OK;
        if (result != IQDB_OK) code = fail_iqdb(t, result);
    }
    const int end = sqlite3_reset(rows);
    if (code == SQLITE_OK && end != SQLITE_OK) code = fail_sql(t, end);
    /* The index takes in all of them; of later changes, writes take in what they have written. */
    for (bool whole = false; code == SQLITE_OK && !whole;) {
        const iqdb_result result = iqdb_maintain(t->handle, 1000000, &whole);
        if (result != IQDB_OK) code = fail_iqdb(t, result);
    }
    return code;
}

static int compare_rowids(const void *a, const void *b) {
    const sqlite3_int64 x = *(const sqlite3_int64 *)a, y = *(const sqlite3_int64 *)b;
    return (x > y) - (x < y);
}

/* Adds what the log has behind `seen` to the dirty ones, and sorts those. */
static int collect(table *t) {
    sqlite3_stmt *since;
    int code = ready(t, SQL_LOG_SINCE, t->seen.seq, &since);
    if (code != SQLITE_OK) return code;
    while (code == SQLITE_OK && sqlite3_step(since) == SQLITE_ROW) {
        const sqlite3_int64 rowid = sqlite3_column_int64(since, 0);
        if (!append(&t->dirty, &rowid, 1)) code = SQLITE_NOMEM;
    }
    const int end = sqlite3_reset(since);
    if (code == SQLITE_OK && end != SQLITE_OK) code = fail_sql(t, end);
    if (t->dirty.count > 1) qsort(t->dirty.items, t->dirty.count, sizeof *t->dirty.items, compare_rowids);
    return code;
}

static int read_again(table *t, sqlite3_int64 rowid, float *vector, iqdb_field *fields) {
    sqlite3_stmt *row;
    iqdb_record record;
    iqdb_result result = IQDB_OK;
    int code = ready(t, SQL_ROW, rowid, &row);
    if (code != SQLITE_OK) return code;
    const int step = sqlite3_step(row);
    if (step == SQLITE_ROW) code = record_of(t, row, vector, fields, &record);
    if (step == SQLITE_ROW && code == SQLITE_OK) result = iqdb_upsert(t->handle, &record);
    if (step == SQLITE_DONE) result = iqdb_delete(t->handle, id_of(rowid), NULL);
    const int end = sqlite3_reset(row);
    if (code == SQLITE_OK && end != SQLITE_OK) code = fail_sql(t, end);
    return code == SQLITE_OK && result != IQDB_OK ? fail_iqdb(t, result) : code;
}

/* Brings the handle to the state of the shadow tables that this transaction sees. After a failure it may be called
 * again: what was not read stays dirty, and a handle that was half loaded is dropped. */
static int step_up(table *t) {
    sqlite3_int64 last[2] = {0, 0}, token = 0;
    bool found = false, known = false;
    int code = look(t, SQL_LOG_LAST, 0, last, 2, &found);
    if (code != SQLITE_OK) return code;
    if (t->handle != NULL && t->dirty.count == 0 && t->seen.seq > 0 && t->seen.seq == last[0] &&
        t->seen.token == last[1])
        return SQLITE_OK;
    if (t->handle != NULL && t->seen.seq > 0) {
        code = look(t, SQL_LOG_AT, t->seen.seq, &token, 1, &found);
        known = code == SQLITE_OK && found && token == t->seen.token;
    }
    float *vector = (float *)sqlite3_malloc64(t->dim * sizeof *vector);
    iqdb_field *fields = (iqdb_field *)sqlite3_malloc64((size_t)(t->column_count + 1) * sizeof *fields);
    if (vector == NULL || fields == NULL) code = SQLITE_NOMEM;
    if (code == SQLITE_OK && known) {
        code = collect(t);
        if (code == SQLITE_OK && t->writing && !append(&t->noted, t->dirty.items, t->dirty.count)) code = SQLITE_NOMEM;
        for (size_t i = 0; i < t->dirty.count && code == SQLITE_OK; i++)
            if (i == 0 || t->dirty.items[i] != t->dirty.items[i - 1])
                code = read_again(t, t->dirty.items[i], vector, fields);
    } else if (code == SQLITE_OK) {
        code = load_all(t, vector, fields);
        if (code != SQLITE_OK) drop_handle(t);
        t->begin.seq = 0; /* a rollback cannot tell which of these rows it takes away */
        for (int i = 0; i < t->mark_count; i++) t->marks[i].seq = 0;
    }
    if (code == SQLITE_OK) {
        t->dirty.count = 0;
        t->seen.seq = last[0];
        t->seen.token = last[1];
    }
    sqlite3_free(vector);
    sqlite3_free(fields);
    return code;
}

/* ---- transactions ---------------------------------------------------------------------------------------------- */

static void back_to(table *t, mark to) {
    /* What was read since may be gone. Without memory for the list: all rows again. */
    if (t->noted.count > to.noted && !append(&t->dirty, t->noted.items + to.noted, t->noted.count - to.noted)) {
        drop_handle(t);
        return;
    }
    t->seen.seq = to.seq;
    t->seen.token = to.token;
}

static void transaction_over(table *t) {
    t->writing = false;
    t->noted.count = 0;
    t->mark_count = 0;
}

static int x_begin(sqlite3_vtab *base) {
    table *t = (table *)base;
    transaction_over(t);
    t->writing = true;
    t->begin = t->seen;
    t->begin.noted = 0;
    return SQLITE_OK;
}
static int x_sync(sqlite3_vtab *base) { return (void)base, SQLITE_OK; }
static int x_commit(sqlite3_vtab *base) { return transaction_over((table *)base), SQLITE_OK; }
static int x_rollback(sqlite3_vtab *base) {
    table *t = (table *)base;
    back_to(t, t->begin);
    transaction_over(t);
    return SQLITE_OK;
}

/* Savepoint -1 is the one that has opened the transaction. Savepoints that were open before this table was written to
 * are not announced: those get the mark before. */
static int x_savepoint(sqlite3_vtab *base, int n) {
    table *t = (table *)base;
    if (n < 0) return SQLITE_OK; /* that is `begin` */
    if (n >= t->mark_room) {
        mark *grown = (mark *)sqlite3_realloc64(t->marks, (size_t)(2 * n + 8) * sizeof *grown);
        if (grown == NULL) return SQLITE_NOMEM;
        t->marks = grown;
        t->mark_room = 2 * n + 8;
    }
    for (; t->mark_count < n; t->mark_count++)
        t->marks[t->mark_count] = t->mark_count > 0 ? t->marks[t->mark_count - 1] : t->begin;
    t->marks[n] = t->seen;
    t->marks[n].noted = t->noted.count;
    t->mark_count = n + 1;
    return SQLITE_OK;
}
static int x_release(sqlite3_vtab *base, int n) {
    table *t = (table *)base;
    if (n < t->mark_count) t->mark_count = n > 0 ? n : 0;
    return SQLITE_OK;
}
static int x_rollback_to(sqlite3_vtab *base, int n) {
    table *t = (table *)base;
    back_to(t, n >= 0 && n < t->mark_count ? t->marks[n] : t->begin);
    if (n + 1 < t->mark_count) t->mark_count = n + 1 > 0 ? n + 1 : 0;
    return SQLITE_OK;
}

#endif
