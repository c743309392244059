/* Queries: which way SQLite should go, conditions as filters of the search, and the rows. */
#ifndef IQDB_SQLITE_SEARCH_H
#define IQDB_SQLITE_SEARCH_H

#include "step.h"

/* ---- queries: the plan --------------------------------------------------------------------------------------------
 * idxNum says which of three ways it is, or that there is none. For a search idxStr has an operator and a column for
 * each value that xFilter gets: "M0;K0;=2;I-1;". */

enum {
    PLAN_SCAN,
    PLAN_ROWID,
    PLAN_SEARCH,
    PLAN_LONE_K, /* a condition of searches without a search: an error where it is carried out */
    PLAN_LONE_DISTANCE
};

/* Costs are there to be compared, and are no times. SQLite asks for the parts of an OR one by one, without the MATCH
 * that stands beside it, and a plan that it makes of lookups by rowid has lost the search: so a lookup costs more than
 * a search, and more than one for each of some thousand rows of another table. Between a lookup and a scan there is
 * what lies between one row and all. */
#define COST_FIRST 1e4 /* a search that has to come before another table: see plan_search */
#define COST_SEARCH 1e9
#define COST_ROWID 1e13
#define COST_SCAN 1e18
#define COST_NONE 1e30

static char operator_of(int op) {
    switch (op) {
    case SQLITE_INDEX_CONSTRAINT_EQ:
        return '=';
    case SQLITE_INDEX_CONSTRAINT_NE:
        return '!';
    case SQLITE_INDEX_CONSTRAINT_LT:
        return '<';
    case SQLITE_INDEX_CONSTRAINT_LE:
        return '{';
    case SQLITE_INDEX_CONSTRAINT_GT:
        return '>';
    case SQLITE_INDEX_CONSTRAINT_GE:
        return '}';
    case SQLITE_INDEX_CONSTRAINT_IS:
        return 'i';
    case SQLITE_INDEX_CONSTRAINT_ISNOT:
        return 'n';
    case SQLITE_INDEX_CONSTRAINT_ISNULL:
        return '0';
    case SQLITE_INDEX_CONSTRAINT_ISNOTNULL:
        return '1';
    default:
        return 0;
    }
}

/* The operator under which a constraint goes to the search, 0 where it does not. */
static char pushed(table *t, sqlite3_index_info *info, int i) {
    const int column = info->aConstraint[i].iColumn;
    const char op = operator_of(info->aConstraint[i].op);
    if (info->aConstraint[i].op == SQLITE_INDEX_CONSTRAINT_LIMIT) return 'L';
    if (info->aConstraint[i].op == SQLITE_INDEX_CONSTRAINT_OFFSET) return 'O';
    if (column == COLUMN_VECTOR) return info->aConstraint[i].op == SQLITE_INDEX_CONSTRAINT_MATCH ? 'M' : 0;
    if (column == COLUMN_K(t)) return op == '=' ? 'K' : 0;
    if (column == COLUMN_DISTANCE(t)) return op == '<' || op == '{' || op == '>' || op == '}' ? op : 0;
    if (column > t->column_count) return 0;
    if (column > 0 && t->columns[column - 1].class_ == CLASS_TEXT &&
        sqlite3_stricmp(sqlite3_vtab_collation(info, i), "BINARY") != 0)
        return 0;
    if (t->utf16 && column > 0 && t->columns[column - 1].class_ == CLASS_TEXT && op != 0 && strchr("<{>}", op) != NULL)
        return 0;
    return op == '=' && sqlite3_vtab_in(info, i, -1) ? 'I' : op;
}

static bool ordered_by(const sqlite3_index_info *info, int column) {
    return info->nOrderBy >= 1 && info->aOrderBy[0].iColumn == column && !info->aOrderBy[0].desc;
}

static int plan_search(table *t, sqlite3_index_info *info) {
    int arguments = 0, matches = 0, ks = 0;
    bool waiting = false;
    sqlite3_str *plan = sqlite3_str_new(t->db);
    for (int i = 0; i < info->nConstraint; i++) {
        const char op = pushed(t, info, i);
        if (!info->aConstraint[i].usable) waiting = true;
        if (op == 0 || !info->aConstraint[i].usable) continue;
        if (op == 'I') sqlite3_vtab_in(info, i, 1);
        matches += op == 'M';
        ks += op == 'K' ? 1 + (sqlite3_vtab_in(info, i, -1) != 0) : 0;
        info->aConstraintUsage[i].argvIndex = ++arguments;
        info->aConstraintUsage[i].omit = op == 'M' || op == 'K'; /* the others SQLite asks again */
        sqlite3_str_appendf(plan, "%c%d;", op, info->aConstraint[i].iColumn);
    }
    info->idxStr = sqlite3_str_finish(plan);
    info->needToFreeIdxStr = 1;
    info->idxNum = PLAN_SEARCH;
    if (info->idxStr == NULL) return SQLITE_NOMEM;
    if (matches > 1) return fail(t, SQLITE_ERROR, "%s: one MATCH at a time", t->name);
    if (ks > 1) return fail(t, SQLITE_ERROR, "%s: one k at a time", t->name);
    /* By distance, or by distance and rowid: that is the order in which hits come. */
    if (ordered_by(info, COLUMN_DISTANCE(t)) &&
        (info->nOrderBy == 1 || (info->nOrderBy == 2 && info->aOrderBy[1].iColumn == -1 && !info->aOrderBy[1].desc)))
        info->orderByConsumed = 1;
    /* What is wanted of a join are the k nearest rows, joined, and not the k nearest for each row of the other table.
     * Where a condition refers to that, it could not be used in a plan that searches first: that one is made the
     * cheap one. */
    info->estimatedCost = waiting ? COST_FIRST : COST_SEARCH;
    info->estimatedRows = 10;
    return SQLITE_OK;
}

static int x_best_index(sqlite3_vtab *base, sqlite3_index_info *info) {
    table *t = (table *)base;
    int match = 0, usable_match = 0, rowid = -1, lone = -1;
    for (int i = 0; i < info->nConstraint; i++) {
        const int column = info->aConstraint[i].iColumn, op = info->aConstraint[i].op;
        if (op == SQLITE_INDEX_CONSTRAINT_LIMIT || op == SQLITE_INDEX_CONSTRAINT_OFFSET) continue;
        if (op == SQLITE_INDEX_CONSTRAINT_MATCH && column != COLUMN_VECTOR)
            return fail(t, SQLITE_ERROR, "%s: MATCH is for the column vector", t->name);
        match += op == SQLITE_INDEX_CONSTRAINT_MATCH;
        usable_match += op == SQLITE_INDEX_CONSTRAINT_MATCH && info->aConstraint[i].usable;
        if (column == -1 && op == SQLITE_INDEX_CONSTRAINT_EQ && info->aConstraint[i].usable) rowid = i;
        if (column == COLUMN_K(t) || column == COLUMN_DISTANCE(t)) lone = column;
    }
    if (usable_match > 0) return plan_search(t, info);
    if (match > 0) return SQLITE_CONSTRAINT; /* another order of the join has to make it usable */
    if (lone >= 0) { /* no error yet: it may be a part of an OR that stands beside a MATCH */
        info->idxNum = lone == COLUMN_K(t) ? PLAN_LONE_K : PLAN_LONE_DISTANCE;
        info->estimatedCost = COST_NONE;
        return SQLITE_OK;
    }
    info->idxNum = rowid >= 0 ? PLAN_ROWID : PLAN_SCAN;
    info->estimatedCost = rowid >= 0 ? COST_ROWID : COST_SCAN;
    info->estimatedRows = rowid >= 0 ? 1 : 100000;
    if (rowid >= 0) {
        info->aConstraintUsage[rowid].argvIndex = 1;
        info->aConstraintUsage[rowid].omit = 1;
        info->idxFlags = SQLITE_INDEX_SCAN_UNIQUE;
    } else if (info->nOrderBy == 1 && ordered_by(info, -1)) {
        info->orderByConsumed = 1;
    }
    return SQLITE_OK;
}

/* ---- queries: the filter -------------------------------------------------------------------------------------------
 * A condition on a column becomes a test of the field of that name, with the meaning that SQLite gives it: numbers
 * before texts before blobs, NULL in no comparison, numeric texts as numbers where the column has numbers. */

typedef struct piece {
    struct piece *next;
} piece;

typedef struct cursor {
    sqlite3_vtab_cursor base;
    int plan;
    bool at_end;
    sqlite3_stmt *row; /* of a scan, where it stands; of a search, for columns */
    bool row_read;     /* a search: row stands on the hit */
    /* a search */
    piece *pieces; /* memory of filter and values */
    iqdb_query query;
    iqdb_hit *hits;
    size_t count, next, room;
    sqlite3_int64 k; /* -1: all there are */
} cursor;

static void *take(cursor *c, size_t size) {
    piece *made = (piece *)sqlite3_malloc64(sizeof *made + size);
    if (made == NULL) return NULL;
    made->next = c->pieces;
    c->pieces = made;
    return made + 1;
}

/* Whether it is UTF-8, by what a payload says of it. */
static int check_text(iqdb_value text, bool *out_good) {
    const iqdb_field field = {ROWID_KEY, text};
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload payload = {NULL, 0};
    const iqdb_result result = iqdb_payload_with(payload, &field, 1, &buffer, &payload);
    iqdb_buffer_free(&buffer);
    *out_good = result == IQDB_OK;
    return result == IQDB_ERR_NOMEM ? SQLITE_NOMEM : SQLITE_OK;
}

/* A value for a test of a column of that class, in memory of the cursor. *out_class: that of the value, -1 for NULL. */
static int value_for(cursor *c, sqlite3_value *from, int class_, iqdb_value *out, int *out_class) {
    sqlite3_value *value = sqlite3_value_dup(from); /* for its type may change here, but not there */
    if (value == NULL) return SQLITE_NOMEM;
    const int type = class_ == CLASS_NUMBER ? sqlite3_value_numeric_type(value) : sqlite3_value_type(value);
    const void *from_bytes = type == SQLITE_TEXT   ? (const void *)sqlite3_value_text(value)
                             : type == SQLITE_BLOB ? sqlite3_value_blob(value)
                                                   : NULL;
    const size_t size = from_bytes != NULL ? (size_t)sqlite3_value_bytes(value) : 0;
    char *bytes = type == SQLITE_TEXT || type == SQLITE_BLOB ? (char *)take(c, size + 1) : NULL;
    int code = SQLITE_OK;
    if (bytes != NULL && size > 0) memcpy(bytes, from_bytes, size);
    *out = iqdb_null();
    *out_class = type == SQLITE_NULL   ? -1
                 : type == SQLITE_TEXT ? CLASS_TEXT
                 : type == SQLITE_BLOB ? CLASS_BLOB
                                       : CLASS_NUMBER;
    if (from_bytes == NULL && (type == SQLITE_TEXT || (type == SQLITE_BLOB && sqlite3_value_bytes(value) > 0)))
        code = SQLITE_NOMEM; /* for the bytes, which is not the same as none */
    else if (type == SQLITE_INTEGER)
        *out = iqdb_int(sqlite3_value_int64(value));
    else if (type == SQLITE_FLOAT)
        *out = iqdb_float(sqlite3_value_double(value));
    else if (type != SQLITE_NULL && bytes == NULL)
        code = SQLITE_NOMEM;
    else if (type == SQLITE_TEXT)
        *out = iqdb_text_n(bytes, size);
    else if (type == SQLITE_BLOB)
        *out = iqdb_bytes(bytes, size);
    sqlite3_value_free(value);
    bool good = true;
    if (code == SQLITE_OK && type == SQLITE_TEXT && class_ == CLASS_TEXT) code = check_text(*out, &good);
    if (!good) *out_class = CLASS_OTHER;
    return code;
}

static int negated(cursor *c, iqdb_filter of, iqdb_filter *out) {
    iqdb_filter *child = (iqdb_filter *)take(c, sizeof *child);
    if (child == NULL) return SQLITE_NOMEM;
    *child = of;
    *out = iqdb_not(child);
    return SQLITE_OK;
}

/* What the search cannot decide is left to SQLite: the test of every record. So it is with a number for a column of
 * text: SQLite compares them as numbers where the other side is a column of numbers, else as texts, and does not say
 * which. */
static iqdb_filter undecided(void) { return iqdb_filter_default(); }

static int list_test(cursor *c, const char *key, int class_, sqlite3_value *list, size_t *values_left,
                     iqdb_filter *out) {
    sqlite3_value *item;
    size_t count = 0, used = 0;
    int code;
    for (code = sqlite3_vtab_in_first(list, &item); code == SQLITE_OK; code = sqlite3_vtab_in_next(list, &item))
        count++;
    if (code != SQLITE_DONE) return code;
    *out = undecided();
    if (count > *values_left) return SQLITE_OK;
    *values_left -= count;
    const size_t chunks = count / IQDB_FILTER_IN_MAX + 1;
    iqdb_value *values = (iqdb_value *)take(c, (count + 1) * sizeof *values);
    iqdb_filter *parts = (iqdb_filter *)take(c, chunks * sizeof *parts);
    if (values == NULL || parts == NULL) return SQLITE_NOMEM;
    for (code = sqlite3_vtab_in_first(list, &item); code == SQLITE_OK && used < count;
         code = sqlite3_vtab_in_next(list, &item)) {
        int found;
        code = value_for(c, item, class_, &values[used], &found);
        if (code != SQLITE_OK) return code;
        if (class_ == CLASS_TEXT && found == CLASS_NUMBER) return SQLITE_OK;
        used += found == class_; /* others, and NULL, are equal to nothing here */
    }
    if (code != SQLITE_DONE && code != SQLITE_OK) return code;
    for (size_t i = 0; i < chunks; i++) {
        const size_t first = i * IQDB_FILTER_IN_MAX, left = used > first ? used - first : 0;
        parts[i] = iqdb_in(key, values + (left > 0 ? first : 0), left < IQDB_FILTER_IN_MAX ? left : IQDB_FILTER_IN_MAX);
    }
    *out = iqdb_or(parts, chunks);
    return SQLITE_OK;
}

static int column_test(cursor *c, const char *key, int class_, char op, sqlite3_value *from, iqdb_filter *out) {
    const iqdb_filter nothing = iqdb_or(NULL, 0), there = iqdb_exists(key);
    iqdb_value value;
    int found;
    int code = value_for(c, from, class_, &value, &found);
    if (code != SQLITE_OK) return code;
    if (op == '1') return *out = there, SQLITE_OK;
    if (op == '0') return negated(c, there, out);
    if (found == -1 && op == 'i') return negated(c, there, out);
    if (found == -1) return *out = op == 'n' ? there : nothing, SQLITE_OK;
    if (class_ == CLASS_TEXT && found == CLASS_NUMBER) return *out = undecided(), SQLITE_OK;
    if (found == CLASS_OTHER) {
        *out = op == '=' || op == 'i' ? nothing : op == '!' ? there : undecided();
        return SQLITE_OK;
    }
    if (found != class_) {
        const bool less = class_ < found;
        *out = op == '!' || ((op == '<' || op == '{') && less) || ((op == '>' || op == '}') && !less) ? there : nothing;
        if (op == 'n') *out = undecided(); /* IS NOT holds for all, NULL too */
        return SQLITE_OK;
    }
    switch (op) {
    case '=':
    case 'i':
        *out = iqdb_eq(key, value);
        break;
    case '!':
        *out = iqdb_ne(key, value);
        break;
    case '<':
        *out = iqdb_lt(key, value);
        break;
    case '{':
        *out = iqdb_le(key, value);
        break;
    case '>':
        *out = iqdb_gt(key, value);
        break;
    case '}':
        *out = iqdb_ge(key, value);
        break;
    default:
        return negated(c, iqdb_eq(key, value), out);
    }
    return SQLITE_OK;
}

/* The next float below. */
static float below(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = x == 0 ? 0x80000001u : x > 0 ? bits - 1 : bits + 1;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

/* Bounds on distance. Scores are floats, so each bound is moved to the float that means the same: with `low` the
 * largest float at or below the bound, s <= bound is s <= low, and s > bound is s > low. */
static int distance_bound(cursor *c, char op, sqlite3_value *from, bool *out_none) {
    const int type = sqlite3_value_type(from);
    if (type == SQLITE_NULL) *out_none = true;
    if (type != SQLITE_INTEGER && type != SQLITE_FLOAT) return SQLITE_OK;
    const double bound = sqlite3_value_double(from);
    float low = bound > FLT_MAX && !isinf(bound) ? FLT_MAX : narrow(bound);
    if ((double)low > bound) low = below(low);
    if ((op == '<' || op == '}') && (double)low == bound && !(isinf(low) && low < 0)) low = below(low);
    iqdb_query *q = &c->query;
    if (op == '<' || op == '{') {
        q->max_distance = q->flags & IQDB_MAX_DISTANCE && q->max_distance < low ? q->max_distance : low;
        q->flags |= IQDB_MAX_DISTANCE;
    } else if (!(isinf(low) && low < 0)) {
        q->after.score = q->flags & IQDB_AFTER && q->after.score > low ? q->after.score : low;
        q->after.id = UINT64_MAX;
        q->flags |= IQDB_AFTER;
    }
    return SQLITE_OK;
}

/* ---- queries: rows --------------------------------------------------------------------------------------------- */

static void forget(cursor *c) {
    table *t = (table *)c->base.pVtab;
    while (c->pieces != NULL) {
        piece *next = c->pieces->next;
        sqlite3_free(c->pieces);
        c->pieces = next;
    }
    if (c->plan != PLAN_SCAN && t->spare == NULL && c->row != NULL) {
        sqlite3_reset(c->row);
        t->spare = c->row;
    } else {
        sqlite3_finalize(c->row);
    }
    sqlite3_free(c->hits);
    c->row = NULL;
    c->hits = NULL;
    c->count = c->next = c->room = 0;
    c->row_read = c->at_end = false;
    c->query = iqdb_query_default();
}

/* c->row becomes the statement for one row, the table's spare one where there is one. */
static int row_statement(cursor *c) {
    table *t = (table *)c->base.pVtab;
    if (c->row != NULL) return sqlite3_reset(c->row), SQLITE_OK;
    c->row = t->spare;
    t->spare = NULL;
    return prepare(t, SQL_ROW, &c->row);
}

static int x_open(sqlite3_vtab *base, sqlite3_vtab_cursor **out) {
    cursor *c = (cursor *)sqlite3_malloc(sizeof *c);
    (void)base;
    if (c == NULL) return SQLITE_NOMEM;
    memset(c, 0, sizeof *c);
    *out = &c->base;
    return SQLITE_OK;
}

static int x_close(sqlite3_vtab_cursor *base) {
    forget((cursor *)base);
    sqlite3_free(base);
    return SQLITE_OK;
}

/* The next hits: all k at once, or a page of those behind the last one. */
static int search_on(cursor *c) {
    table *t = (table *)c->base.pVtab;
    const size_t all = iqdb_len(t->handle);
    size_t wanted = c->k >= 0 ? (size_t)c->k : c->room > 0 ? 8 * c->room : c->query.k;
    if (c->k >= 0 && c->hits != NULL) return c->at_end = true, SQLITE_OK; /* all k were given */
    if (wanted > all) wanted = all;
    if (c->hits != NULL) {
        c->query.after = c->hits[c->count - 1];
        c->query.flags |= IQDB_AFTER | IQDB_EXACT; /* an index is for the first that are wanted, not for all there are */
    }
    iqdb_hit *hits = (iqdb_hit *)sqlite3_malloc64((wanted + 1) * sizeof *hits);
    if (hits == NULL) return SQLITE_NOMEM;
    sqlite3_free(c->hits);
    c->hits = hits;
    c->query.k = c->room = wanted;
    c->next = 0;
    const iqdb_result result = iqdb_search(t->handle, &c->query, hits, &c->count);
    c->at_end = result != IQDB_OK || c->count == 0;
    return result == IQDB_OK ? SQLITE_OK : fail_iqdb(t, result);
}

static int x_next(sqlite3_vtab_cursor *base) {
    cursor *c = (cursor *)base;
    table *t = (table *)base->pVtab;
    if (c->plan != PLAN_SEARCH) {
        c->at_end = sqlite3_step(c->row) != SQLITE_ROW;
        const int code = c->at_end ? sqlite3_reset(c->row) : SQLITE_OK;
        return code == SQLITE_OK ? SQLITE_OK : fail_sql(t, code);
    }
    c->row_read = false;
    if (++c->next < c->count) return SQLITE_OK;
    if (t->handle == NULL) return fail(t, SQLITE_ABORT, "%s: the rows were read anew under a search", t->name);
    if (c->k < 0 && c->count < c->room) return c->at_end = true, SQLITE_OK; /* that page was not full */
    return search_on(c);
}

static int whole_number(table *t, sqlite3_value *value, const char *what, sqlite3_int64 *out) {
    if (sqlite3_value_numeric_type(value) != SQLITE_INTEGER || sqlite3_value_int64(value) < 0)
        return fail(t, SQLITE_ERROR, "%s: %s is an integer from 0", t->name, what);
    *out = sqlite3_value_int64(value);
    return SQLITE_OK;
}

/* Reads the plan and the values of a search into c->query. *out_none: a condition holds for no row. */
static int read_search(cursor *c, const char *plan, sqlite3_value **values, int count, bool *out_none) {
    table *t = (table *)c->base.pVtab;
    iqdb_filter *tests = (iqdb_filter *)take(c, ((size_t)count + 1) * sizeof *tests);
    size_t test_count = 0, values_left = VALUES_MAX;
    sqlite3_int64 limit = -1, offset = 0;
    int code = tests == NULL ? SQLITE_NOMEM : SQLITE_OK;
    c->k = -1;
    for (int i = 0; i < count && code == SQLITE_OK; i++) {
        const char op = *plan;
        char *end;
        const int column = (int)strtol(plan + 1, &end, 10);
        plan = end + 1;
        if (op == 'M') {
            float *vector = NULL, *kept = (float *)take(c, t->dim * sizeof *kept);
            uint32_t dim;
            char *why = kept == NULL ? no_memory : floats_of(values[i], t->dim, &vector, &dim);
            if (why != NULL)
                code = fail_because(t, SQLITE_ERROR, "match: ", why);
            else
                c->query.vector = (const float *)memcpy(kept, vector, t->dim * sizeof *kept);
            sqlite3_free(vector);
        } else if (op == 'K') {
            code = whole_number(t, values[i], "k", &c->k);
        } else if (op == 'L' || op == 'O') {
            *(op == 'L' ? &limit : &offset) = sqlite3_value_int64(values[i]);
        } else if (column == COLUMN_DISTANCE(t)) {
            code = distance_bound(c, op, values[i], out_none);
        } else {
            const char *key = column == -1 ? ROWID_KEY : t->columns[column - 1].name;
            const int class_ = column == -1 ? CLASS_NUMBER : t->columns[column - 1].class_;
            code = op == 'I' ? list_test(c, key, class_, values[i], &values_left, &tests[test_count])
                             : column_test(c, key, class_, op, values[i], &tests[test_count]);
            test_count += code == SQLITE_OK && tests[test_count].op != IQDB_FILTER_ALL;
        }
    }
    if (code != SQLITE_OK) return code;
    iqdb_filter *all = (iqdb_filter *)take(c, sizeof *all);
    if (all == NULL) return SQLITE_NOMEM;
    *all = iqdb_and(tests, test_count);
    c->query.filter = test_count > 0 ? all : NULL;
    c->query.dim = t->dim;
    /* LIMIT is a guess at the first page only: SQLite counts the rows that pass what it asks itself. */
    const bool limited = limit >= 0 && limit <= 1 << 20 && offset >= 0 && offset <= 1 << 20;
    c->query.k = limited ? (size_t)(limit + offset + 1) : FIRST_PAGE;
    if (c->k < 0 && !limited) c->query.flags |= IQDB_EXACT;
    return SQLITE_OK;
}

static int x_filter(sqlite3_vtab_cursor *base, int plan, const char *text, int count, sqlite3_value **values) {
    cursor *c = (cursor *)base;
    table *t = (table *)base->pVtab;
    bool none = false;
    forget(c);
    c->plan = plan;
    if (plan == PLAN_LONE_K || plan == PLAN_LONE_DISTANCE)
        return fail(t, SQLITE_ERROR, "%s: %s says something of a search only: vector match ?", t->name,
                    plan == PLAN_LONE_K ? "k" : "distance");
    if (plan == PLAN_SEARCH) {
        int code = read_search(c, text, values, count, &none);
        c->at_end = none || c->k == 0;
        if (code == SQLITE_OK && !c->at_end) code = step_up(t);
        return code == SQLITE_OK && !c->at_end ? search_on(c) : code;
    }
    if (plan == PLAN_ROWID && sqlite3_value_numeric_type(values[0]) != SQLITE_INTEGER) {
        /* 3.0 is a rowid as well, and nothing else that is no integer. */
        const double number = sqlite3_value_double(values[0]);
        if (sqlite3_value_type(values[0]) != SQLITE_FLOAT || !(number >= -9.2e18 && number <= 9.2e18) ||
            number != (double)(sqlite3_int64)number)
            return c->at_end = true, SQLITE_OK;
    }
    int code = plan == PLAN_ROWID ? row_statement(c) : prepare(t, SQL_ALL, &c->row);
    if (code == SQLITE_OK && plan == PLAN_ROWID) code = sqlite3_bind_int64(c->row, 1, sqlite3_value_int64(values[0]));
    return code == SQLITE_OK ? x_next(base) : code;
}

static int x_eof(sqlite3_vtab_cursor *base) { return ((cursor *)base)->at_end; }

static int x_rowid(sqlite3_vtab_cursor *base, sqlite3_int64 *out) {
    cursor *c = (cursor *)base;
    *out = c->plan == PLAN_SEARCH ? rowid_of(c->hits[c->next].id) : sqlite3_column_int64(c->row, 0);
    return SQLITE_OK;
}

/* Makes c->row stand on the hit. */
static int read_hit(cursor *c) {
    table *t = (table *)c->base.pVtab;
    int code = row_statement(c);
    if (code != SQLITE_OK) return code;
    sqlite3_bind_int64(c->row, 1, rowid_of(c->hits[c->next].id));
    c->row_read = sqlite3_step(c->row) == SQLITE_ROW;
    code = c->row_read ? SQLITE_OK : sqlite3_reset(c->row);
    return code == SQLITE_OK ? SQLITE_OK : fail_sql(t, code);
}

static int x_column(sqlite3_vtab_cursor *base, sqlite3_context *context, int column) {
    cursor *c = (cursor *)base;
    table *t = (table *)base->pVtab;
    const bool search = c->plan == PLAN_SEARCH;
    if (column > t->column_count) {
        if (search && column == COLUMN_DISTANCE(t))
            sqlite3_result_double(context, (double)c->hits[c->next].score);
        else if (search && column == COLUMN_K(t) && c->k >= 0)
            sqlite3_result_int64(context, c->k);
        return SQLITE_OK;
    }
    if (search && !c->row_read) {
        const int code = read_hit(c);
        if (code != SQLITE_OK || !c->row_read) return code; /* deleted under the search: NULL */
    }
    sqlite3_result_value(context, sqlite3_column_value(c->row, column == COLUMN_VECTOR ? t->column_count + 1 : column));
    return SQLITE_OK;
}

#endif
