/* iqdb.h as a table of SQLite: a loadable extension, for SQLite 3.38 or later.
 *
 *   cc -shared -fPIC -O2 -I. examples/sqlite/iqdb_sqlite.c -pthread -o iqdb.so
 *
 *   .load ./iqdb
 *   create virtual table docs using iqdb(dim=384, metric=cosine, index=hnsw, kind text, year int);
 *   insert into docs(rowid, vector, kind, year) values (1, ?, 'note', 2024);
 *   select rowid, kind, distance from docs where vector match ? and k = 10 and year >= 2020;
 *
 * A vector is a blob of little-endian 32-bit floats, or a JSON array. `k` is how many are wanted; without it all
 * records come, nearest first, in pages, so that a LIMIT gets its rows whatever else the query asks. Comparisons of
 * columns with values, IN lists, null tests and bounds on `distance` are answered by the search itself, before the k
 * nearest are chosen; what SQLite alone can answer (LIKE, functions, other collations) is asked of those k.
 *
 * index=flat, which is what a table has that does not say, finds the k nearest. hnsw and ivf find most of them, faster
 * where rows are many; m, ef_construction and ef_search, and nlist and nprobe, are their knobs, as in iqdb.h.
 *
 * Rows live in the shadow table docs_rows and nowhere else, so that whatever SQLite does with its file (transactions,
 * recovery, VACUUM, backup) it does with them. For searching each connection holds the vectors in an iqdb in memory,
 * made at its first search. What keeps the two in step:
 *   1. Every change adds an entry to docs_log: a number that goes up, the rowid, and a random token. A handle knows
 *      number and token of the last entry it has seen. Before a search that entry is looked up: if it is the last,
 *      nothing has happened; if it is there, the rows of the later entries are read again; else all rows are.
 *   2. An entry that a rollback took away, and another connection's with the same number, differ in their tokens. So a
 *      handle never takes one history for another, even where SQLite has not told us of it.
 *   3. Rollbacks of which it does tell are cheap: rowids that were read again inside of the transaction are noted, with
 *      marks for its savepoints, and those behind the mark are read again before the next search.
 *   4. The log is cut from time to time; who was away for longer reads all rows. */
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT1

#include "search.h"

/* ---- changes --------------------------------------------------------------------------------------------------- */

static int log_change(table *t, sqlite3_int64 rowid) {
    sqlite3_stmt *statement;
    int code = ready(t, SQL_LOG, rowid, &statement);
    if (code == SQLITE_OK) code = done(t, statement);
    const sqlite3_int64 seq = sqlite3_last_insert_rowid(t->db);
    if (code != SQLITE_OK || seq % LOG_STEP != 0 || seq <= LOG_KEPT) return code;
    code = ready(t, SQL_LOG_CUT, seq - LOG_KEPT, &statement);
    return code == SQLITE_OK ? done(t, statement) : code;
}

/* Text has to be UTF-8, for searches compare it as such; SQLite itself takes any bytes. */
static int check_texts(table *t, sqlite3_value **values) {
    iqdb_field fields[COLUMNS_MAX];
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload payload = {NULL, 0};
    size_t count = 0;
    for (int i = 0; i < t->column_count; i++) {
        const size_t before = count;
        field_of(&t->columns[i], values[i], fields, &count);
        const iqdb_value *value = &fields[before].value;
        if (count > before && ((value->type == IQDB_TYPE_TEXT && value->as.text.data == NULL) ||
                               (value->type == IQDB_TYPE_BYTES && value->as.bytes.data == NULL)))
            return SQLITE_NOMEM;
    }
    const iqdb_result result = iqdb_payload_with(payload, fields, count, &buffer, &payload);
    iqdb_buffer_free(&buffer);
    if (result == IQDB_ERR_INVALID_PAYLOAD) return fail(t, SQLITE_MISMATCH, "%s: a text is not UTF-8", t->name);
    return result == IQDB_OK ? SQLITE_OK : fail_iqdb(t, result);
}

/* What a shadow table says of a row it does not take. */
static int fail_row(table *t, int code, sqlite3_value *rowid) {
    const int extended = sqlite3_extended_errcode(t->db);
    if (extended == SQLITE_CONSTRAINT_PRIMARYKEY || extended == SQLITE_CONSTRAINT_ROWID)
        return fail(t, SQLITE_CONSTRAINT, "%s: there is a row %lld already", t->name, sqlite3_value_int64(rowid));
    return fail_sql(t, extended == SQLITE_CONSTRAINT_DATATYPE ? SQLITE_MISMATCH : code);
}

/* values: vector, the columns, and the three that are hidden. old: the rowid to replace, or NULL. */
static int write_row(table *t, sqlite3_value *old, sqlite3_value *rowid, sqlite3_value **values,
                     sqlite3_int64 *out_rowid) {
    const bool replace = sqlite3_vtab_on_conflict(t->db) == SQLITE_REPLACE;
    const int numeric = sqlite3_value_numeric_type(rowid);
    const bool moved = old != NULL && sqlite3_value_int64(old) != sqlite3_value_int64(rowid);
    float *vector;
    uint32_t dim;
    sqlite3_stmt *statement;
    if (sqlite3_value_type(values[COLUMN_DISTANCE(t)]) != SQLITE_NULL ||
        sqlite3_value_type(values[COLUMN_K(t)]) != SQLITE_NULL)
        return fail(t, SQLITE_ERROR, "%s: distance and k belong to searches and cannot be written", t->name);
    if (numeric != SQLITE_INTEGER && (numeric != SQLITE_NULL || old != NULL))
        return fail(t, SQLITE_MISMATCH, "%s: a rowid is an integer", t->name);
    char *why = floats_of(values[COLUMN_VECTOR], t->dim, &vector, &dim);
    if (why != NULL) return fail_because(t, SQLITE_MISMATCH, "", why);
    int code = check_texts(t, values + 1);
    if (code == SQLITE_OK && moved && replace) { /* the row that is in the way goes */
        code = ready(t, SQL_DELETE, sqlite3_value_int64(rowid), &statement);
        if (code == SQLITE_OK) code = done(t, statement);
    }
    const int which = old != NULL ? SQL_UPDATE : replace ? SQL_REPLACE : SQL_INSERT;
    if (code == SQLITE_OK) code = ready(t, which, 0, &statement);
    if (code == SQLITE_OK) {
        sqlite3_bind_value(statement, 1, rowid);
        little_endian(vector, dim);
        code = sqlite3_bind_blob(statement, 2, vector, (int)(dim * sizeof(float)), SQLITE_STATIC);
        for (int i = 0; i < t->column_count && code == SQLITE_OK; i++)
            code = sqlite3_bind_value(statement, 3 + i, values[1 + i]);
        if (old != NULL && code == SQLITE_OK) code = sqlite3_bind_value(statement, 3 + t->column_count, old);
        if (code == SQLITE_OK) sqlite3_step(statement);
        const int end = sqlite3_reset(statement);
        sqlite3_clear_bindings(statement);
        if (code == SQLITE_OK && end != SQLITE_OK) code = fail_row(t, end, rowid);
    }
    sqlite3_free(vector);
    *out_rowid = old != NULL ? sqlite3_value_int64(rowid) : sqlite3_last_insert_rowid(t->db);
    if (code == SQLITE_OK && moved) code = log_change(t, sqlite3_value_int64(old));
    return code == SQLITE_OK ? log_change(t, *out_rowid) : code;
}

static int check_table(table *t, bool with_handle, char **out_why);

/* insert into docs(docs) values ('integrity-check') or ('reload') */
static int obey(table *t, sqlite3_value *command) {
    const char *text = (const char *)sqlite3_value_text(command);
    char *why = NULL;
    if (text != NULL && strcmp(text, "reload") == 0) return drop_handle(t), SQLITE_OK;
    if (text == NULL || strcmp(text, "integrity-check") != 0)
        return fail(t, SQLITE_ERROR, "%s: there are the commands 'integrity-check' and 'reload'", t->name);
    int code = check_table(t, true, &why);
    if (why != NULL) code = fail(t, SQLITE_CORRUPT_VTAB, "%s", why);
    sqlite3_free(why);
    return code;
}

static int x_update(sqlite3_vtab *base, int count, sqlite3_value **values, sqlite3_int64 *out_rowid) {
    table *t = (table *)base;
    const sqlite3_int64 last = sqlite3_last_insert_rowid(t->db);
    const bool update = count > 1 && sqlite3_value_type(values[0]) != SQLITE_NULL;
    int code;
    if (count == 1) {
        sqlite3_stmt *statement;
        code = ready(t, SQL_DELETE, sqlite3_value_int64(values[0]), &statement);
        if (code == SQLITE_OK) code = done(t, statement);
        if (code == SQLITE_OK) code = log_change(t, sqlite3_value_int64(values[0]));
    } else if (!update && sqlite3_value_type(values[2 + COLUMN_COMMAND(t)]) != SQLITE_NULL) {
        code = obey(t, values[2 + COLUMN_COMMAND(t)]);
    } else {
        code = write_row(t, update ? values[0] : NULL, values[1], values + 2, out_rowid);
        if (!update) return code; /* SQLite sets the last rowid itself */
    }
    sqlite3_set_last_insert_rowid(t->db, last); /* not that of the log */
    return code;
}

/* ---- checks ---------------------------------------------------------------------------------------------------- */

/* *out_held: whether the handle holds this record, bit for bit. */
static int look_held(table *t, const iqdb_record *record, iqdb_buffer *found_in, iqdb_buffer *made_in, bool *out_held) {
    iqdb_record found = iqdb_record_default();
    iqdb_payload made = {NULL, 0};
    iqdb_result result = iqdb_get(t->handle, record->id, found_in, &found);
    *out_held = false;
    if (result == IQDB_ERR_NOT_FOUND) return SQLITE_OK;
    if (result == IQDB_OK) result = iqdb_payload_with(made, record->fields, record->field_count, made_in, &made);
    if (result != IQDB_OK && result != IQDB_ERR_INVALID_PAYLOAD) return fail_iqdb(t, result);
    *out_held = result == IQDB_OK && memcmp(found.vector, record->vector, t->dim * sizeof(float)) == 0 &&
                found.payload.size == made.size && memcmp(found.payload.bytes, made.bytes, made.size) == 0;
    return SQLITE_OK;
}

/* Every row is one that could have been written, and the handle, where that is asked, holds these and no other.
 * *out_why: what is wrong, for sqlite3_free, or NULL. */
static int check_table(table *t, bool with_handle, char **out_why) {
    iqdb_buffer found_in = iqdb_buffer_default(), made_in = iqdb_buffer_default();
    float *vector = (float *)sqlite3_malloc64(t->dim * sizeof *vector);
    iqdb_field *fields = (iqdb_field *)sqlite3_malloc64((size_t)(t->column_count + 1) * sizeof *fields);
    sqlite3_stmt *rows = NULL;
    size_t count = 0;
    *out_why = NULL;
    int code = vector == NULL || fields == NULL ? SQLITE_NOMEM : with_handle ? step_up(t) : SQLITE_OK;
    if (code == SQLITE_OK) code = prepare(t, SQL_ALL, &rows);
    while (code == SQLITE_OK && *out_why == NULL && sqlite3_step(rows) == SQLITE_ROW) {
        iqdb_record record;
        bool held = true;
        code = record_of(t, rows, vector, fields, &record);
        if (code == SQLITE_OK && with_handle) code = look_held(t, &record, &found_in, &made_in, &held);
        if (code == SQLITE_OK && !held)
            *out_why = because("%s: row %lld is not what searches see", t->name, rowid_of(record.id));
        count++;
    }
    const int end = sqlite3_finalize(rows);
    if (code == SQLITE_OK && *out_why == NULL && end != SQLITE_OK) code = fail_sql(t, end);
    if (code == SQLITE_OK && *out_why == NULL && with_handle && iqdb_len(t->handle) != count)
        *out_why = because("%s: searches see %d rows of %d", t->name, (int)iqdb_len(t->handle), (int)count);
    if (code == SQLITE_CORRUPT_VTAB && t->base.zErrMsg != NULL) {
        *out_why = t->base.zErrMsg;
        t->base.zErrMsg = NULL;
        code = SQLITE_OK;
    }
    if (*out_why == no_memory) {
        *out_why = NULL;
        code = SQLITE_NOMEM;
    }
    iqdb_buffer_free(&found_in);
    iqdb_buffer_free(&made_in);
    sqlite3_free(vector);
    sqlite3_free(fields);
    return code;
}

#if SQLITE_VERSION_NUMBER >= 3044000
/* flags 1: PRAGMA quick_check, which leaves the handle alone. */
static int x_integrity(sqlite3_vtab *base, const char *schema, const char *name, int flags, char **out_why) {
    (void)schema, (void)name;
    return check_table((table *)base, (flags & 1) == 0, out_why);
}
#endif

/* ---- tables ---------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name, *type;
    int class_;
} types[] = {{"int", "integer", CLASS_NUMBER}, {"integer", "integer", CLASS_NUMBER}, {"real", "real", CLASS_NUMBER},
             {"float", "real", CLASS_NUMBER},  {"double", "real", CLASS_NUMBER},     {"text", "text", CLASS_TEXT},
             {"blob", "blob", CLASS_BLOB}};
static const char *const metrics[] = {"", "l2", "cosine", "dot", "l1"};
static const char *const reserved[] = {"vector", "distance", "k", "rowid", "oid", "_rowid_"};

/* The word at *at, in memory for sqlite3_free, and *at behind it and the spaces around it. */
static char *word(const char **at) {
    while (isspace((unsigned char)**at)) ++*at;
    const char *start = *at;
    while (isalnum((unsigned char)**at) || **at == '_') ++*at;
    char *made = sqlite3_mprintf("%.*s", (int)(*at - start), start);
    while (isspace((unsigned char)**at)) ++*at;
    return made;
}

static const char *const indexes[] = {"auto", "flat", "hnsw", "ivf"}; /* in the order of iqdb_index */

static char *set_option(table *t, const char *name, const char *value) {
    const struct {
        const char *name;
        uint32_t *number;
        uint32_t most;
    } numbers[] = {{"dim", &t->dim, IQDB_DIM_MAX},
                   {"m", &t->options.m, 1000},
                   {"ef_construction", &t->options.ef_construction, 100000},
                   {"ef_search", &t->options.ef_search, 100000},
                   {"nlist", &t->options.nlist, 100000},
                   {"nprobe", &t->options.nprobe, 100000}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char *end = NULL;
        if (sqlite3_stricmp(name, numbers[i].name) != 0) continue;
        const long number = strtol(value, &end, 10);
        if (*end != 0 || number < 1 || number > (long)numbers[i].most)
            return because("%s=%s: a number from 1 to %d is needed", name, value, (int)numbers[i].most);
        *numbers[i].number = (uint32_t)number;
        return NULL;
    }
    if (sqlite3_stricmp(name, "metric") == 0) {
        for (int i = 1; i <= 4; i++)
            if (sqlite3_stricmp(value, metrics[i]) == 0) return t->options.metric = (iqdb_metric)i, (char *)NULL;
        return because("metric=%s: there are cosine, l2, dot and l1", value);
    }
    if (sqlite3_stricmp(name, "index") == 0) {
        for (int i = 0; i < 4; i++)
            if (sqlite3_stricmp(value, indexes[i]) == 0) return t->options.index = (iqdb_index)i, (char *)NULL;
        return because("index=%s: there are flat, hnsw, ivf and auto", value);
    }
    return because("there is no option %s: there are dim, metric, index and its knobs", name);
}

/* `name` becomes the column's. */
static char *add_column(table *t, char *name, const char *type) {
    declared *made = &t->columns[t->column_count];
    char *why = NULL;
    if (t->column_count == COLUMNS_MAX) why = because("more than %d columns", COLUMNS_MAX);
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved && why == NULL; i++)
        if (sqlite3_stricmp(name, reserved[i]) == 0) why = because("a column may not be named %s", name);
    for (int i = 0; i < t->column_count && why == NULL; i++)
        if (sqlite3_stricmp(name, t->columns[i].name) == 0) why = because("two columns are named %s", name);
    if (why == NULL && sqlite3_stricmp(name, t->name) == 0)
        why = because("a column may not have the table's name, %s", name);
    for (size_t i = 0; i < sizeof types / sizeof *types && why == NULL; i++) {
        if (sqlite3_stricmp(type, types[i].name) != 0) continue;
        made->name = name;
        made->type = types[i].type;
        made->class_ = types[i].class_;
        t->column_count++;
        return NULL;
    }
    if (why == NULL) why = because("%s %s: the types are int, real, text and blob", name, type);
    sqlite3_free(name);
    return why;
}

/* One argument of `using iqdb(...)`. NULL, or why not. */
static char *read_argument(table *t, const char *text) {
    const char *at = text;
    char *name = word(&at), *why;
    const bool option = *at == '=';
    at += option;
    char *value = word(&at);
    if (name == NULL || value == NULL)
        why = no_memory;
    else if (*at != 0 || *name == 0 || *value == 0 || isdigit((unsigned char)*name))
        why = because("'%s' is neither option=value nor a column and its type", text);
    else if (option)
        why = set_option(t, name, value);
    else
        why = add_column(t, name, value), name = NULL;
    sqlite3_free(name);
    sqlite3_free(value);
    return why;
}

static void free_table(table *t) {
    forget_statements(t);
    drop_handle(t);
    for (int i = 0; i < t->column_count; i++) sqlite3_free(t->columns[i].name);
    sqlite3_free(t->schema);
    sqlite3_free(t->name);
    sqlite3_free(t->names);
    sqlite3_free(t->places);
    sqlite3_free(t->changes);
    sqlite3_free(t->noted.items);
    sqlite3_free(t->dirty.items);
    sqlite3_free(t->marks);
    sqlite3_free(t);
}

static int run(sqlite3 *db, char **out_why, char *sql) {
    const int code = sql == NULL ? SQLITE_NOMEM : sqlite3_exec(db, sql, NULL, NULL, out_why);
    sqlite3_free(sql);
    return code;
}

/* The parts of statements that name the columns, and the declaration of the table. */
static int declare(table *t) {
    sqlite3_str *names = sqlite3_str_new(t->db), *places = sqlite3_str_new(t->db), *changes = sqlite3_str_new(t->db);
    sqlite3_str *text = sqlite3_str_new(t->db);
    sqlite3_str_appendf(text, "create table x(vector blob");
    for (int i = 0; i < t->column_count; i++) {
        sqlite3_str_appendf(names, "\"%w\",", t->columns[i].name);
        sqlite3_str_appendf(places, "?%d,", 3 + i);
        sqlite3_str_appendf(changes, "\"%w\"=?%d,", t->columns[i].name, 3 + i);
        sqlite3_str_appendf(text, ",\"%w\" %s", t->columns[i].name, t->columns[i].type);
    }
    sqlite3_str_appendf(text, ",distance real hidden,k integer hidden,\"%w\" hidden)", t->name);
    const bool columns = t->column_count > 0;
    t->names = sqlite3_str_finish(names);
    t->places = sqlite3_str_finish(places);
    t->changes = sqlite3_str_finish(changes);
    if (!columns) t->names = sqlite3_mprintf(""), t->places = sqlite3_mprintf(""), t->changes = sqlite3_mprintf("");
    char *sql = sqlite3_str_finish(text);
    int code = sql == NULL || t->names == NULL || t->places == NULL || t->changes == NULL ? SQLITE_NOMEM : SQLITE_OK;
    if (code == SQLITE_OK) code = sqlite3_declare_vtab(t->db, sql);
    sqlite3_free(sql);
    return code;
}

static int create_shadows(table *t, char **out_why) {
    sqlite3_str *columns = sqlite3_str_new(t->db);
    sqlite3_str_appendf(columns, "rowid integer primary key,");
    for (int i = 0; i < t->column_count; i++)
        sqlite3_str_appendf(columns, "\"%w\" %s,", t->columns[i].name, t->columns[i].type);
    char *text = sqlite3_str_finish(columns);
    if (text == NULL) return SQLITE_NOMEM;
    const int code = run(
        t->db, out_why,
        sqlite3_mprintf(
            "create table \"%w\".\"%w_rows\"(%svector blob not null) strict;"
            "create table \"%w\".\"%w_log\"(seq integer primary key,id integer not null,token integer not null) strict",
            t->schema, t->name, text, t->schema, t->name));
    sqlite3_free(text);
    return code;
}

/* How the texts of the file are encoded, which is settled when its first table is there. A pragma would say it, too,
 * but programs that let strangers write SQL may allow none. */
static int read_encoding(table *t) {
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(t->db, "select cast('a' as blob)", -1, &statement, NULL);
    if (code != SQLITE_OK) return code;
    t->utf16 = sqlite3_step(statement) == SQLITE_ROW && sqlite3_column_bytes(statement, 0) == 2;
    return sqlite3_finalize(statement);
}

static int open_table(sqlite3 *db, int count, const char *const *arguments, bool create, sqlite3_vtab **out,
                      char **out_why) {
    table *t = (table *)sqlite3_malloc(sizeof *t);
    char *why = NULL;
    int code = SQLITE_OK;
    if (t == NULL) return SQLITE_NOMEM;
    memset(t, 0, sizeof *t);
    t->db = db;
    t->options = iqdb_options_default();
    t->options.metric = IQDB_COSINE;
    t->options.index = IQDB_INDEX_FLAT;
    t->schema = sqlite3_mprintf("%s", arguments[1]);
    t->name = sqlite3_mprintf("%s", arguments[2]);
    if (t->schema == NULL || t->name == NULL) code = SQLITE_NOMEM;
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved && code == SQLITE_OK && why == NULL; i++)
        if (sqlite3_stricmp(t->name, reserved[i]) == 0) why = because("a table may not be named %s", t->name);
    for (int i = 3; i < count && code == SQLITE_OK && why == NULL; i++) why = read_argument(t, arguments[i]);
    if (code == SQLITE_OK && why == NULL && t->dim == 0) why = because("dim is needed, as in iqdb(dim=384)");
    if (why != NULL) {
        code = why == no_memory ? SQLITE_NOMEM : SQLITE_ERROR;
        *out_why = sqlite3_mprintf("iqdb: %s", why);
        no_more(why);
    }
    if (code == SQLITE_OK) code = sqlite3_vtab_config(db, SQLITE_VTAB_CONSTRAINT_SUPPORT, 1);
    if (code == SQLITE_OK) code = sqlite3_vtab_config(db, SQLITE_VTAB_INNOCUOUS);
    if (code == SQLITE_OK) code = read_encoding(t);
    if (code == SQLITE_OK) code = declare(t);
    if (code == SQLITE_OK && create) code = create_shadows(t, out_why);
    if (code != SQLITE_OK) return free_table(t), code;
    *out = &t->base;
    return SQLITE_OK;
}

static int x_create(sqlite3 *db, void *aux, int count, const char *const *arguments, sqlite3_vtab **out,
                    char **out_why) {
    (void)aux;
    return open_table(db, count, arguments, true, out, out_why);
}
static int x_connect(sqlite3 *db, void *aux, int count, const char *const *arguments, sqlite3_vtab **out,
                     char **out_why) {
    (void)aux;
    return open_table(db, count, arguments, false, out, out_why);
}
static int x_disconnect(sqlite3_vtab *base) { return free_table((table *)base), SQLITE_OK; }

static int x_destroy(sqlite3_vtab *base) {
    table *t = (table *)base;
    forget_statements(t);
    const int code =
        run(t->db, NULL,
            sqlite3_mprintf("drop table if exists \"%w\".\"%w_rows\";drop table if exists \"%w\".\"%w_log\"", t->schema,
                            t->name, t->schema, t->name));
    if (code == SQLITE_OK) free_table(t);
    return code;
}

static int x_rename(sqlite3_vtab *base, const char *name) {
    table *t = (table *)base;
    char *kept = sqlite3_mprintf("%s", name), *why = NULL;
    if (kept == NULL) return SQLITE_NOMEM;
    forget_statements(t);
    const int code = run(t->db, &why,
                         sqlite3_mprintf("alter table \"%w\".\"%w_rows\" rename to \"%w_rows\";"
                                         "alter table \"%w\".\"%w_log\" rename to \"%w_log\"",
                                         t->schema, t->name, name, t->schema, t->name, name));
    if (code == SQLITE_OK) {
        sqlite3_free(t->name);
        t->name = kept;
        return SQLITE_OK;
    }
    sqlite3_free(kept);
    sqlite3_free(t->base.zErrMsg);
    t->base.zErrMsg = why;
    return code;
}

static int x_shadow_name(const char *suffix) {
    return sqlite3_stricmp(suffix, "rows") == 0 || sqlite3_stricmp(suffix, "log") == 0;
}

/* Only so that the parser takes MATCH; the search answers it. */
static void match_function(sqlite3_context *context, int count, sqlite3_value **values) {
    (void)count, (void)values;
    sqlite3_result_error(context, "vector match ? cannot be answered here", -1);
}
static int x_find_function(sqlite3_vtab *base, int count, const char *name,
                           void (**out)(sqlite3_context *, int, sqlite3_value **), void **out_user) {
    (void)base, (void)out_user;
    if (count != 2 || sqlite3_stricmp(name, "match") != 0) return 0;
    *out = match_function;
    return 1;
}

static const sqlite3_module module = {
    .iVersion = SQLITE_VERSION_NUMBER >= 3044000 ? 4 : 3,
    .xCreate = x_create,
    .xConnect = x_connect,
    .xBestIndex = x_best_index,
    .xDisconnect = x_disconnect,
    .xDestroy = x_destroy,
    .xOpen = x_open,
    .xClose = x_close,
    .xFilter = x_filter,
    .xNext = x_next,
    .xEof = x_eof,
    .xColumn = x_column,
    .xRowid = x_rowid,
    .xUpdate = x_update,
    .xBegin = x_begin,
    .xSync = x_sync,
    .xCommit = x_commit,
    .xRollback = x_rollback,
    .xFindFunction = x_find_function,
    .xRename = x_rename,
    .xSavepoint = x_savepoint,
    .xRelease = x_release,
    .xRollbackTo = x_rollback_to,
    .xShadowName = x_shadow_name,
#if SQLITE_VERSION_NUMBER >= 3044000
    .xIntegrity = x_integrity,
#endif
};

/* ---- functions ------------------------------------------------------------------------------------------------- */

static void fail_function(sqlite3_context *context, const char *name, char *why) {
    char *text = sqlite3_mprintf("%s: %s", name, why);
    if (text != NULL && why != no_memory)
        sqlite3_result_error(context, text, -1);
    else
        sqlite3_result_error_nomem(context);
    sqlite3_free(text);
    no_more(why);
}

/* iqdb_vector(x): the blob of a vector. */
static void vector_function(sqlite3_context *context, int count, sqlite3_value **values) {
    float *vector;
    uint32_t dim;
    char *why = floats_of(values[0], 0, &vector, &dim);
    (void)count;
    if (why != NULL) {
        fail_function(context, "iqdb_vector", why);
        return;
    }
    little_endian(vector, dim);
    sqlite3_result_blob64(context, vector, dim * sizeof(float), sqlite3_free);
}

/* iqdb_json(x): a vector as text that reads as the same floats. */
static void json_function(sqlite3_context *context, int count, sqlite3_value **values) {
    float *vector;
    uint32_t dim;
    char *why = floats_of(values[0], 0, &vector, &dim);
    (void)count;
    if (why != NULL) {
        fail_function(context, "iqdb_json", why);
        return;
    }
    sqlite3_str *text = sqlite3_str_new(sqlite3_context_db_handle(context));
    for (uint32_t i = 0; i < dim; i++) sqlite3_str_appendf(text, "%s%!.9g", i > 0 ? "," : "[", (double)vector[i]);
    sqlite3_str_appendall(text, "]");
    sqlite3_free(vector);
    char *made = sqlite3_str_finish(text);
    if (made == NULL)
        sqlite3_result_error_nomem(context);
    else
        sqlite3_result_text(context, made, -1, sqlite3_free);
}

/* iqdb_distance(a, b[, metric]): the score that a search returns; cosine, where none is named. */
static void distance_function(sqlite3_context *context, int count, sqlite3_value **values) {
    float *a = NULL, *b = NULL, score = 0;
    uint32_t dim = 0, other;
    iqdb_metric metric = count < 3 ? IQDB_COSINE : IQDB_METRIC_DEFAULT;
    const char *name = count < 3 ? NULL : (const char *)sqlite3_value_text(values[2]);
    for (int i = 1; name != NULL && i <= 4; i++)
        if (sqlite3_stricmp(name, metrics[i]) == 0) metric = (iqdb_metric)i;
    char *why = metric == IQDB_METRIC_DEFAULT ? because("the metrics are cosine, l2, dot and l1") : NULL;
    if (why == NULL) why = floats_of(values[0], 0, &a, &dim);
    if (why == NULL) why = floats_of(values[1], dim, &b, &other);
    if (why == NULL && iqdb_distance(metric, a, b, dim, &score) != IQDB_OK) why = because("no vectors");
    if (why != NULL)
        fail_function(context, "iqdb_distance", why);
    else
        sqlite3_result_double(context, (double)score);
    sqlite3_free(a);
    sqlite3_free(b);
}

static void version_function(sqlite3_context *context, int count, sqlite3_value **values) {
    const int v = (int)iqdb_version();
    char text[32];
    (void)count, (void)values;
    snprintf(text, sizeof text, "%d.%d.%d", v / 10000, v / 100 % 100, v % 100);
    sqlite3_result_text(context, text, -1, SQLITE_TRANSIENT);
}

#if defined(_WIN32)
__declspec(dllexport)
#endif
    int sqlite3_iqdb_init(sqlite3 *db, char **out_why, const sqlite3_api_routines *api);

int sqlite3_iqdb_init(sqlite3 *db, char **out_why, const sqlite3_api_routines *api) {
    const int flags = SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS;
    SQLITE_EXTENSION_INIT2(api);
    if (sqlite3_libversion_number() < 3038000) {
        *out_why = sqlite3_mprintf("iqdb needs SQLite 3.38 or later, this is %s", sqlite3_libversion());
        return SQLITE_ERROR;
    }
    int code = sqlite3_create_module_v2(db, "iqdb", &module, NULL, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_create_function(db, "iqdb_vector", 1, flags, NULL, vector_function, NULL, NULL);
    if (code == SQLITE_OK) code = sqlite3_create_function(db, "iqdb_json", 1, flags, NULL, json_function, NULL, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_create_function(db, "iqdb_distance", 2, flags, NULL, distance_function, NULL, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_create_function(db, "iqdb_distance", 3, flags, NULL, distance_function, NULL, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_create_function(db, "iqdb_version", 0, flags, NULL, version_function, NULL, NULL);
    return code;
}
