/* A table of iqdb beside a plain table: random operations in random transactions, the same on both, on two connections.
 *
 *   torture EXTENSION DIRECTORY SEED OPERATIONS KILLS
 *
 * Both have to take and to refuse the same statements, to hold the same rows after every commit, rollback and
 * savepoint, and every search has to give what sorting the plain table by a naive distance gives: same rowids, same
 * distances, in the same order. Vectors are small integers, so that a naive sum is exact and many distances are
 * equal. At the end a child process writes until it is killed, and what it leaves behind has to be the same in both
 * tables again. */
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define DIM 5
#define ROWIDS 60
#define BELOW 15 /* rowids begin at -15 */

static uint64_t state;
static const char *extension, *folder, *metric;
static long searches, refused, statements, kills;

static unsigned pick(unsigned below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(state >> 33) % below;
}

static void die(sqlite3 *db, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    printf("FAIL: ");
    vprintf(format, arguments);
    printf("%s%s\n", db != NULL ? ": " : "", db != NULL ? sqlite3_errmsg(db) : "");
    va_end(arguments);
    fflush(stdout);
    _exit(1);
}

/* naive(a, b): the metric by its definition, in double precision. */
static void naive(sqlite3_context *context, int count, sqlite3_value **values) {
    const float *a = sqlite3_value_blob(values[0]), *b = sqlite3_value_blob(values[1]);
    double sum = 0;
    (void)count;
    for (int i = 0; i < DIM; i++) {
        float x, y;
        memcpy(&x, (const char *)a + 4 * i, 4);
        memcpy(&y, (const char *)b + 4 * i, 4);
        sum += *metric == 'd'     ? -(double)x * y
               : metric[1] == '1' ? fabs((double)x - y)
                                  : ((double)x - y) * ((double)x - y);
    }
    sqlite3_result_double(context, metric[0] == 'l' && metric[1] == '2' ? (double)(float)sqrt(sum) : sum + 0.0);
}

static int execute(sqlite3 *db, const char *sql) {
    statements++;
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}
static void must(sqlite3 *db, const char *sql) {
    if (execute(db, sql) != SQLITE_OK) die(db, "%s", sql);
}

static sqlite3 *connect(void) {
    char path[512];
    sqlite3 *db;
    snprintf(path, sizeof path, "%s/torture.db", folder);
    if (sqlite3_open(path, &db) != SQLITE_OK) die(db, "open");
    sqlite3_extended_result_codes(db, 1);
    sqlite3_busy_timeout(db, 5000);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
    char *why = NULL;
    if (sqlite3_load_extension(db, extension, NULL, &why) != SQLITE_OK) die(db, "%s", why);
    sqlite3_create_function(db, "naive", 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL, naive, NULL, NULL);
    must(db, "pragma synchronous=off");
    return db;
}

/* A statement's value lists. Now and then a vector has a wrong length, which both tables refuse. */
static char *vector_text(int may_be_wrong) {
    unsigned char bytes[(DIM + 1) * 4];
    char hex[sizeof bytes * 2 + 1];
    const int dim = may_be_wrong && pick(25) == 0 ? DIM + (pick(2) ? 1 : -1) : DIM;
    if (may_be_wrong && pick(60) == 0) return sqlite3_mprintf("null");
    for (int i = 0; i < dim; i++) {
        const float x = (float)((int)pick(7) - 3);
        memcpy(bytes + 4 * i, &x, 4);
    }
    for (int i = 0; i < 4 * dim; i++) sprintf(hex + 2 * i, "%02x", bytes[i]);
    return sqlite3_mprintf("x'%s'", hex);
}

static char *columns_text(void) {
    char kind[16] = "null", year[16] = "null", score[16] = "null", data[16] = "null";
    if (pick(8)) snprintf(kind, sizeof kind, "'%c'", 'a' + (int)pick(5));
    if (pick(8)) snprintf(year, sizeof year, "%d", (int)pick(9));
    if (pick(8)) snprintf(score, sizeof score, "%d.25", (int)pick(3));
    if (pick(8)) snprintf(data, sizeof data, "x'%02x'", pick(4));
    return sqlite3_mprintf("%s,%s,%s,%s", kind, year, score, data);
}

/* Runs the same statement on both tables, v for the first %s and p for the second: both take it, or both refuse. */
static void both(sqlite3 *db, const char *with_v, const char *with_p) {
    const int first = execute(db, with_v), inside = sqlite3_get_autocommit(db);
    char why[200];
    snprintf(why, sizeof why, "%s", sqlite3_errmsg(db));
    if (first != SQLITE_OK && inside &&
        strstr(with_p, "rollback") != NULL) { /* OR ROLLBACK has ended the transaction */
        const int again = execute(db, with_p);
        if (again == SQLITE_OK) die(NULL, "refused by v only (%s): %s", why, with_v);
        refused++;
        return;
    }
    const int changes = sqlite3_changes(db), second = execute(db, with_p);
    if ((first == SQLITE_OK) != (second == SQLITE_OK))
        die(NULL, "v: %d %s; p: %d %s; %s", first, why, second, sqlite3_errmsg(db), with_v);
    if (first == SQLITE_OK && changes != sqlite3_changes(db))
        die(NULL, "v changes %d rows, p %d: %s", changes, sqlite3_changes(db), with_v);
    refused += first != SQLITE_OK;
}

static void change(sqlite3 *db) {
    static const char *const conflicts[] = {"", "", "or abort", "or ignore", "or replace", "or fail"};
    const char *conflict = conflicts[pick(6)];
    char *v = NULL, *p = NULL;
    const unsigned what = pick(10), rowid = pick(ROWIDS);
    if (what < 5) {
        sqlite3_str *rows = sqlite3_str_new(db);
        const unsigned count = 1 + pick(pick(4) ? 2 : 12), fixed = pick(3);
        for (unsigned i = 0; i < count; i++) {
            char *vector = vector_text(*conflict != 'o' || conflict[3] == 'a'), *columns = columns_text();
            if (fixed)
                sqlite3_str_appendf(rows, "%s(%d,%s,%s)", i ? "," : "", (int)pick(ROWIDS) - BELOW, vector, columns);
            else
                sqlite3_str_appendf(rows, "%s(null,%s,%s)", i ? "," : "", vector, columns);
            sqlite3_free(vector);
            sqlite3_free(columns);
        }
        char *list = sqlite3_str_finish(rows);
        v = sqlite3_mprintf("insert %s into v(rowid,vector,kind,year,score,data) values %s", conflict, list);
        p = sqlite3_mprintf("insert %s into p(rowid,vector,kind,year,score,data) values %s", conflict, list);
        sqlite3_free(list);
    } else if (what < 7) {
        char *columns = columns_text(), *vector = vector_text(1);
        const char *set = pick(2) ? "(kind,year,score,data)=(%s)" : "vector=%s";
        char *change = sqlite3_mprintf(set, *set == '(' ? columns : vector),
             *where = sqlite3_mprintf("rowid %s %d",
                                      pick(2)   ? "="
                                      : pick(2) ? "<"
                                                : ">",
                                      (int)rowid - BELOW);
        v = sqlite3_mprintf("update v set %s where %s", change, where);
        p = sqlite3_mprintf("update p set %s where %s", change, where);
        sqlite3_free(columns), sqlite3_free(vector), sqlite3_free(change), sqlite3_free(where);
    } else if (what < 8) {
        const int to = (int)pick(ROWIDS + 10) - BELOW;
        v = sqlite3_mprintf("update %s v set rowid=%d, year=year+1 where rowid=%d", conflict, to, (int)rowid - BELOW);
        p = sqlite3_mprintf("update %s p set rowid=%d, year=year+1 where rowid=%d", conflict, to, (int)rowid - BELOW);
    } else {
        char *where = pick(3)    ? sqlite3_mprintf("rowid=%d", (int)rowid - BELOW)
                      : pick(12) ? sqlite3_mprintf("year=%d", pick(9))
                                 : sqlite3_mprintf("true");
        v = sqlite3_mprintf("delete from v where %s", where);
        p = sqlite3_mprintf("delete from p where %s", where);
        sqlite3_free(where);
    }
    both(db, v, p);
    sqlite3_free(v);
    sqlite3_free(p);
}

/* ---- searches -------------------------------------------------------------------------------------------------- */

/* Each of these goes wholly into the search, so that k counts what they accept. */
static const char *const conditions[] = {"true",
                                         "kind='a'",
                                         "kind in ('a','c','x')",
                                         "kind>'b'",
                                         "kind<>'b'",
                                         "year>3",
                                         "year>=2.5",
                                         "year between 2 and 6",
                                         "year is null",
                                         "kind is not null",
                                         "year is 4",
                                         "year is not 4",
                                         "rowid in (1,5,9,20,33,70)",
                                         "rowid>30",
                                         "rowid<=20 and rowid<>7",
                                         "rowid in (select id from o where w>5)",
                                         "score<1.25",
                                         "score in (0.25, 2.25)",
                                         "score>=1",
                                         "data=x'01'",
                                         "data>x''",
                                         "data is null",
                                         "year='4'",
                                         "year in ('4','5','x',null)",
                                         "year<'x'",
                                         "year>'x'",
                                         "year<>'x'",
                                         "kind<x'00'",
                                         "data>'text'",
                                         "data>7",
                                         "year=null",
                                         "kind='a' and year<5 and score>0",
                                         "DISTANCE<3",
                                         "DISTANCE>=2",
                                         "DISTANCE>2 and DISTANCE<=4",
                                         "DISTANCE<=1e400",
                                         "DISTANCE>-1e400",
                                         "DISTANCE>0.5 and kind<'d'",
                                         "rowid=12",
                                         "rowid<'x'",
                                         "kind='a' and kind='b'",
                                         "kind in ()",
                                         "DISTANCE<2.9999999 and year>1"};
/* SQLite answers these, or parts of them, itself: they go with LIMIT. */
static const char *const others[] = {"kind like 'A%'",
                                     "kind='A' collate nocase",
                                     "kind in (1,'a')",
                                     "score<=year",
                                     "year%2=0",
                                     "(kind=1 or year=2)",
                                     "kind<5",
                                     "length(data)=1 and year<7",
                                     "DISTANCE<>3",
                                     "+year>2",
                                     "(rowid=3 or rowid=12)",
                                     "(rowid in (1,9) or rowid=7)",
                                     "(rowid=1 or (rowid=20 and year>5) or rowid=11)",
                                     "(DISTANCE<2 or rowid=5)",
                                     "(rowid=8 or year=4)"};

static char *replaced(const char *text, const char *with) {
    sqlite3_str *out = sqlite3_str_new(NULL);
    for (const char *at; (at = strstr(text, "DISTANCE")) != NULL; text = at + 8)
        sqlite3_str_appendf(out, "%.*s%s", (int)(at - text), text, with);
    sqlite3_str_appendall(out, text);
    return sqlite3_str_finish(out);
}

/* Both queries, row by row; the second orders by itself. */
static void compare(sqlite3 *db, const char *ours, const char *model, const char *vector, int k, int offset) {
    sqlite3_stmt *a, *b;
    float query[DIM];
    (void)vector;
    for (int i = 0; i < DIM; i++) query[i] = (float)((int)pick(7) - 3);
    if (sqlite3_prepare_v2(db, ours, -1, &a, NULL) != SQLITE_OK) die(db, "%s", ours);
    if (sqlite3_prepare_v2(db, model, -1, &b, NULL) != SQLITE_OK) die(db, "%s", model);
    sqlite3_stmt *two[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        sqlite3_bind_blob(two[i], 1, query, sizeof query, SQLITE_STATIC);
        sqlite3_bind_int(two[i], 2, k);
        sqlite3_bind_int(two[i], 3, offset);
    }
    searches++;
    for (int row = 0;; row++) {
        const int x = sqlite3_step(a), y = sqlite3_step(b);
        if (x != SQLITE_ROW && x != SQLITE_DONE) die(db, "%s", ours);
        if (x != y) die(db, "row %d: ours %d, the model %d; k %d: %s", row, x, y, k, ours);
        if (x == SQLITE_DONE) break;
        for (int i = 0; i < sqlite3_column_count(a); i++)
            if (sqlite3_column_double(a, i) != sqlite3_column_double(b, i))
                die(NULL, "row %d, column %d: ours %.17g, the model %.17g; k %d: %s", row, i,
                    sqlite3_column_double(a, i), sqlite3_column_double(b, i), k, ours);
    }
    sqlite3_finalize(a);
    sqlite3_finalize(b);
}

static void search(sqlite3 *db) {
    const unsigned kind = pick(8);
    const int k = pick(10) ? (int)pick(20) : 200, offset = pick(4) ? 0 : (int)pick(10);
    const char *chosen = kind < 5 ? conditions[pick(sizeof conditions / sizeof *conditions)]
                                  : others[pick(sizeof others / sizeof *others)];
    char *v = replaced(chosen, "distance"), *p = replaced(chosen, "naive(vector,?1)"), *ours, *model;
    const char *rank =
        "select rowid,naive(vector,?1) d,coalesce(year,-1) from p where %s order by d,rowid limit ?2 offset ?3";
    if (kind < 4) {
        ours = sqlite3_mprintf(
            "select rowid,distance,coalesce(year,-1) from v where vector match ?1 and k=?2 and %s and ?3=?3%s", v,
            pick(2)   ? ""
            : pick(2) ? " order by distance"
                      : " order by distance,rowid");
        model = sqlite3_mprintf(
            "select rowid,naive(vector,?1) d,coalesce(year,-1) from p where %s order by d,rowid limit ?2", p);
    } else if (kind < 7) {
        ours = sqlite3_mprintf(
            "select rowid,distance,coalesce(year,-1) from v where vector match ?1 and %s order by distance,rowid limit ?2 offset ?3",
            v);
        model = sqlite3_mprintf(rank, p);
    } else {
        const char *const joins[] = {"v join o on o.id=v.rowid", "o join v on o.id=v.rowid", "o, v"};
        const unsigned which = pick(3), one = pick(2) ? 2 * pick(20) : 0;
        char *only = one > 0 ? sqlite3_mprintf(" and o.id>=%d and o.id<=%d", one, one) : sqlite3_mprintf("");
        ours = sqlite3_mprintf(
            "select v.rowid,distance,o.w from %s where %sv.vector match ?1 and k=?2 and ?3=?3%s order by distance,v.rowid",
            joins[which], which == 2 ? "o.id=v.rowid and " : "", only);
        model = sqlite3_mprintf(
            "select s.rowid,d,o.w from (select rowid,naive(vector,?1) d from p order by d,rowid limit ?2) s "
            "join o on o.id=s.rowid%s order by d,s.rowid",
            only);
        sqlite3_free(only);
    }
    compare(db, ours, model, NULL, k, offset);
    sqlite3_free(v), sqlite3_free(p), sqlite3_free(ours), sqlite3_free(model);
}

static void same_rows(sqlite3 *db) {
    static const char *const texts[] = {
        "select count(*) from (select rowid,vector,kind,year,score,data from v except select rowid,vector,kind,year,score,data from p)",
        "select count(*) from (select rowid,vector,kind,year,score,data from p except select rowid,vector,kind,year,score,data from v)",
        "select (select count(*) from v)<>(select count(*) from p)"};
    for (int i = 0; i < 3; i++) {
        sqlite3_stmt *statement;
        if (sqlite3_prepare_v2(db, texts[i], -1, &statement, NULL) != SQLITE_OK) die(db, "%s", texts[i]);
        if (sqlite3_step(statement) != SQLITE_ROW || sqlite3_column_int(statement, 0) != 0)
            die(db, "the tables differ: %s", texts[i]);
        sqlite3_finalize(statement);
    }
    must(db, "insert into v(v) values('integrity-check')");
}

/* A backup by SQLite opens as the same tables. */
static void backup(sqlite3 *db) {
    sqlite3 *copy = NULL;
    if (sqlite3_open(":memory:", &copy) != SQLITE_OK) die(copy, "open");
    sqlite3_backup *going = sqlite3_backup_init(copy, "main", db, "main");
    if (going == NULL || sqlite3_backup_step(going, -1) != SQLITE_DONE) die(copy, "backup");
    sqlite3_backup_finish(going);
    sqlite3_db_config(copy, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
    if (sqlite3_load_extension(copy, extension, NULL, NULL) != SQLITE_OK) die(copy, "extension");
    sqlite3_create_function(copy, "naive", 2, SQLITE_UTF8, NULL, naive, NULL, NULL);
    same_rows(copy);
    for (int i = 0; i < 3; i++) search(copy);
    sqlite3_close(copy);
}

static void play(sqlite3 **main_one, sqlite3 *other, long operations) {
    int depth = 0;
    for (long i = 0; i < operations; i++) {
        sqlite3 *db = *main_one;
        const int outside = sqlite3_get_autocommit(db);
        const unsigned what = pick(100);
        char text[64];
        if (outside) depth = 0;
        if (what < 45)
            change(db);
        else if (what < 65)
            search(db);
        else if (what < 72)
            outside ? change(other) : search(other);
        else if (what < 76)
            search(other);
        else if (what < 82 && outside)
            must(db, pick(2) ? "begin" : "begin immediate");
        else if (what < 82)
            must(db, pick(3) ? "commit" : "rollback");
        else if (what < 88 && depth < 4)
            snprintf(text, sizeof text, "savepoint s%d", depth++), must(db, text);
        else if (what < 96 && depth > 0) {
            const int to = (int)pick((unsigned)depth);
            const int release = pick(3) == 0;
            snprintf(text, sizeof text, "%s s%d", release ? "release" : "rollback to", to);
            must(db, text);
            depth = release ? to : to + 1;
        } else if (what < 97)
            same_rows(db);
        else if (what < 98 && outside)
            must(db, "vacuum"), same_rows(other);
        else if (what < 99 && outside)
            backup(db);
        else if (outside && pick(4) == 0)
            sqlite3_close(db) == SQLITE_OK ? (void)(*main_one = connect()) : die(db, "close");
    }
    if (!sqlite3_get_autocommit(*main_one)) must(*main_one, pick(2) ? "commit" : "rollback");
    same_rows(*main_one);
    same_rows(other);
}

/* A child writes in transactions until it is killed; both tables are in one file, so they have to agree. */
static void crash(void) {
    const pid_t child = fork();
    if (child == 0) {
        sqlite3 *db = connect();
        for (;;) {
            must(db, "begin immediate");
            for (unsigned n = 1 + pick(6); n > 0; n--) change(db);
            if (pick(3) == 0) search(db);
            must(db, pick(4) ? "commit" : "rollback");
        }
    }
    usleep(3000 + pick(20000));
    kill(child, SIGKILL);
    int status = 0;
    if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status)) die(NULL, "the child ended by itself");
    pick(100);
    sqlite3 *db = connect();
    same_rows(db);
    for (int i = 0; i < 3; i++) search(db);
    sqlite3_close(db);
    kills++;
}

int main(int count, char **arguments) {
    static const char *const metrics[] = {"l2", "l1", "dot"};
    char text[512];
    if (count != 6) return printf("usage: torture EXTENSION DIRECTORY SEED OPERATIONS KILLS\n"), 2;
    extension = arguments[1];
    folder = arguments[2];
    state = strtoull(arguments[3], NULL, 10) * 0x9E3779B97F4A7C15u + 1;
    metric = metrics[pick(3)];
    sqlite3 *db = connect();
    must(db, pick(2) ? "pragma journal_mode=wal" : "pragma journal_mode=delete");
    snprintf(
        text, sizeof text,
        "create virtual table v using iqdb(dim=%d, metric=%s, index=flat, kind text, year int, score real, data blob)",
        DIM, metric);
    must(db, text);
    must(
        db,
        "create table p(rowid integer primary key, vector blob not null check(length(vector)=20), kind text, year integer, score real, data blob) strict;"
        "create table o(id integer primary key, w int);"
        "insert into o select value*2, value%10 from (with recursive n(value) as (select 1 union all select value+1 from n where value<40) select value from n)");
    sqlite3 *other = connect();
    play(&db, other, atol(arguments[4]));
    sqlite3_close(other);
    sqlite3_close(db);
    for (long i = atol(arguments[5]); i > 0; i--) crash();
    printf("seed %s, %s: %ld statements, %ld refused alike, %ld searches, %ld kills\n", arguments[3], metric,
           statements, refused, searches, kills);
    return 0;
}
