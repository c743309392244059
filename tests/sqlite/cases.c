/* What a table of iqdb says to single statements: errors in every clause, bad vectors, hidden columns, transactions
 * within one another, other connections, and what else SQLite does to a table.
 *
 *   cases EXTENSION DIRECTORY STEP      of the allocations each STEPth fails once
 *
 * A case is a statement and what comes of it: its rows as text, columns joined by | and rows by ;, or "error: " and a
 * part of the message. */
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *extension;
static int passed, failed, skipped;

static void fail(const char *sql, const char *expected, const char *found) {
    printf("  FAIL %s\n    expected: %s\n    found:    %s\n", sql, expected, found);
    failed++;
}

/* What all statements of the text give together. */
static void answer(sqlite3 *db, const char *sql, char *out, size_t room) {
    size_t used = 0;
    *out = 0;
    while (*sql != 0) {
        sqlite3_stmt *statement = NULL;
        int code = sqlite3_prepare_v2(db, sql, -1, &statement, &sql);
        while (code == SQLITE_OK && statement != NULL && (code = sqlite3_step(statement)) == SQLITE_ROW) {
            for (int i = 0; i < sqlite3_column_count(statement); i++) {
                const char *text = (const char *)sqlite3_column_text(statement, i);
                used += (size_t)snprintf(out + used, room - used, "%s%s",
                                         i > 0      ? "|"
                                         : used > 0 ? ";"
                                                    : "",
                                         text != NULL ? text : "null");
                if (used >= room) used = room - 1;
            }
            code = SQLITE_OK;
        }
        if (code != SQLITE_OK && code != SQLITE_DONE) {
            snprintf(out, room, "error: %s", sqlite3_errmsg(db));
            sqlite3_finalize(statement);
            return;
        }
        sqlite3_finalize(statement);
    }
}

static void is(sqlite3 *db, const char *sql, const char *expected) {
    char found[4000];
    answer(db, sql, found, sizeof found);
    const int same = strncmp(expected, "error: ", 7) == 0
                         ? strncmp(found, "error: ", 7) == 0 && strstr(found, expected + 7) != NULL
                         : strcmp(expected, found) == 0;
    if (same)
        passed++;
    else
        fail(sql, expected, found);
}

static sqlite3 *connect(const char *path) {
    sqlite3 *db;
    char *why = NULL;
    if (sqlite3_open(path, &db) != SQLITE_OK) exit(2);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
    if (sqlite3_load_extension(db, extension, NULL, &why) != SQLITE_OK) {
        printf("%s\n", why);
        exit(2);
    }
    return db;
}

static void creating(sqlite3 *db) {
    static const char *const cases[][2] = {{"", "dim is needed"},
                                           {"dim", "neither option=value"},
                                           {"dim=", "neither"},
                                           {"dim=0", "1 to 65536"},
                                           {"dim=-1", "neither"},
                                           {"dim=65537", "1 to 65536"},
                                           {"dim=99999999999999999999", "1 to 65536"},
                                           {"dim=x3", "1 to 65536"},
                                           {"dim=3, metric=hamming", "metric=hamming"},
                                           {"dim=3, index=lsh", "index=lsh: there are flat, hnsw, ivf"},
                                           {"dim=3, index=ivf, nlist=0", "nlist=0: a number from 1"},
                                           {"dim=3, index=hnsw, m=1001", "m=1001: a number from 1 to 1000"},
                                           {"dim=3, ef_search=x", "ef_search=x: a number"},
                                           {"dim=3, colour=red", "no option colour"},
                                           {"dim=3, kind", "neither"},
                                           {"dim=3, kind varchar(20)", "neither"},
                                           {"dim=3, kind date", "the types are"},
                                           {"dim=3, a int, A text", "two columns"},
                                           {"dim=3, vector blob", "may not be named"},
                                           {"dim=3, Distance real", "may not be named"},
                                           {"dim=3, k int", "may not be named"},
                                           {"dim=3, rowid int", "may not be named"},
                                           {"dim=3, t int", "table's name"},
                                           {"dim=3, 1 int", "neither"},
                                           {"dim=3, a int not null", "neither"},
                                           {"dim=3, \"a b\" int", "neither"},
                                           {"dim=3, =", "neither"},
                                           {"dim=3, a=", "neither"},
                                           {"dim=3, 'a' int", "neither"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char sql[200], expected[200];
        snprintf(sql, sizeof sql, "create virtual table t using iqdb(%s)", cases[i][0]);
        snprintf(expected, sizeof expected, "error: %s", cases[i][1]);
        is(db, sql, expected);
    }
    is(db, "create virtual table t using iqdb", "error: dim is needed");
    is(db, "create virtual table vector using iqdb(dim=3)", "error: may not be named");
    is(db, "select count(*) from sqlite_schema", "0");
    is(db, "create virtual table t using iqdb( DIM = 2 , Metric=L2, a INT, b Real , c text,d blob, e_9 integer)", "");
    is(db, "insert into t values('[1,2]', 1, 2, 'x', x'00', 3); select a,b,c,hex(d),e_9 from t; drop table t",
       "1|2.0|x|00|3");
    is(db, "create table taken_rows(x); create virtual table taken using iqdb(dim=1)", "error: taken_rows");
    is(db, "drop table taken_rows; select count(*) from sqlite_schema", "0");
    is(db,
       "create virtual table \"odd 'name\" using iqdb(dim=1); insert into \"odd 'name\"(vector) values('[1]'); "
       "select distance from \"odd 'name\" where vector match '[2]' and k=1; drop table \"odd 'name\"",
       "0.0");
    is(db,
       "create virtual table wide using iqdb(dim=65536); insert into wide(vector) values(zeroblob(262144)); "
       "select rowid from wide where vector match zeroblob(262144) and k=1; drop table wide",
       "1");
}

static void writing(sqlite3 *db) {
    is(db, "create virtual table t using iqdb(dim=3, metric=l2, kind text, year int, score real, data blob)", "");
    static const char *const bad[][2] = {{"null", "may not be NULL"},
                                         {"1", "a vector is a blob"},
                                         {"1.5", "a vector is a blob"},
                                         {"'[1,2]'", "2 elements, 3 are needed"},
                                         {"'[1,2,3,4]'", "4 elements"},
                                         {"'[]'", "0 elements, 3"},
                                         {"x''", "0 elements, 3"},
                                         {"x'00'", "1 bytes"},
                                         {"zeroblob(13)", "13 bytes"},
                                         {"zeroblob(8)", "2 elements"},
                                         {"''", "JSON array"},
                                         {"'[1,2,'", "JSON array"},
                                         {"'[1,2,\"3\"]'", "element 2"},
                                         {"'{\"a\":1}'", "JSON array"},
                                         {"'[1,2,[3]]'", "element 2"},
                                         {"'[1,2,null]'", "element 2"},
                                         {"'1'", "JSON array"},
                                         {"'[1,2,1e39]'", "no finite"},
                                         {"'[1,2,3],\"v\":[1,2,3]'", "JSON array"},
                                         {"'[1,2,3],\"w\":1'", "JSON array"},
                                         {"'[1,2,3]}'", "JSON array"},
                                         {"x'0000c07f0000000000000000'", "no finite"},
                                         {"x'0000807f0000000000000000'", "no finite"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char sql[200], expected[200];
        snprintf(expected, sizeof expected, "error: %s", bad[i][1]);
        snprintf(sql, sizeof sql, "insert into t(vector) values(%s)", bad[i][0]);
        is(db, sql, expected);
        snprintf(sql, sizeof sql, "insert into t(rowid,vector) values(1,'[0,0,0]'); update t set vector=%s", bad[i][0]);
        is(db, sql, expected);
        snprintf(sql, sizeof sql, "select rowid from t where vector match %s and k=1", bad[i][0]);
        is(db, sql, expected);
        is(db, "select iqdb_json(vector) from t; delete from t", "[0.0,0.0,0.0]");
    }
    is(db, "insert into t(vector,year) values('[1,2,3]','abc')", "error: cannot store TEXT value in INTEGER column");
    is(db, "insert into t(vector,year) values('[1,2,3]',1.5)", "error: cannot store REAL value in INTEGER column");
    is(db, "insert into t(vector,kind) values('[1,2,3]',x'00')", "error: cannot store BLOB value in TEXT column");
    is(db, "insert into t(vector,data) values('[1,2,3]',7)", "error: cannot store INT value in BLOB column");
    is(db, "insert into t(vector,kind) values('[1,2,3]',cast(x'ff' as text))", "error: not UTF-8");
    is(db, "insert into t(vector,distance) values('[1,2,3]',1)", "error: cannot be written");
    is(db, "insert into t(vector,k) values('[1,2,3]',1)", "error: cannot be written");
    is(db, "insert into t(rowid,vector) values('x','[1,2,3]')", "error: ");
    is(db, "insert into t(rowid,vector) values(1.5,'[1,2,3]')", "error: ");
    is(db, "insert into t(t) values('explode')", "error: 'integrity-check' and 'reload'");
    is(db, "insert into t(missing) values(1)", "error: no column named missing");
    is(db, "select count(*) from t; select count(*) from t_log where id is null", "0;0");
    is(db, "insert into t values('[1,2,3]','12','7','2.5',null); select kind,year,score,data,typeof(score) from t",
       "12|7|2.5|null|real");
    is(db,
       "insert into t(rowid,vector,kind) values(9223372036854775807,'[1,1,1]','a'||char(0)||'b'),(-9223372036854775808,'[1,1,1]','c')",
       "");
    is(db, "select rowid,length(cast(kind as blob)) from t where vector match '[1,1,1]' and k=2",
       "-9223372036854775808|1;9223372036854775807|3");
    is(db, "select rowid from t where vector match '[1,1,1]' and k=5 and kind='a'||char(0)||'b'",
       "9223372036854775807");
    is(db, "insert into t(vector) values('[1,2,3]')", "");
    is(db, "delete from t; insert into t(rowid,vector) values(5,'[1,2,3]'); select last_insert_rowid()", "5");
    is(db, "insert into t(rowid,vector) values(5,'[1,2,3]')", "error: there is a row 5 already");
    is(db, "insert or ignore into t(rowid,vector) values(5,'[9,9,9]'); select iqdb_json(vector) from t",
       "[1.0,2.0,3.0]");
    is(db, "insert or replace into t(rowid,vector) values(5,'[9,9,9]'); select iqdb_json(vector) from t",
       "[9.0,9.0,9.0]");
    is(db,
       "insert into t(vector) values('[0,0,0]'); update t set year=1; delete from t where rowid=6; select last_insert_rowid()",
       "6");
    is(db, "update t set rowid=null", "error: a rowid is an integer");
    is(db, "update t set rowid=8; select rowid from t where vector match '[9,9,9]' and k=9", "8");
    is(db,
       "create table plain(x); create trigger no after insert on plain begin select raise(abort,'no') from t where vector match '[1,2,3]' and k=1; end;"
       "insert into plain values(1)",
       "error: no");
    is(db, "drop table plain; select total_changes()>0; drop table t", "1");
}

static void searching(sqlite3 *db) {
    is(db, "create virtual table t using iqdb(dim=2, metric=l2, kind text, year int)", "");
    is(db, "select rowid from t where vector match '[0,0]' and k=3; select rowid from t where vector match '[0,0]'",
       "");
    is(db, "insert into t(rowid,vector,kind,year) values(1,'[0,0]','a',1),(2,'[3,4]','b',2),(3,'[6,8]','a',null)", "");
    is(db, "select rowid,distance,k from t where vector match '[0,0]' and k=2", "1|0.0|2;2|5.0|2");
    is(db, "select rowid,distance,k from t where vector match '[0,0]'", "1|0.0|null;2|5.0|null;3|10.0|null");
    is(db, "select rowid from t where k=2 and vector match '[0,0]' and kind='a'", "1;3");
    is(db, "select rowid from t where vector match '[0,0]' and k=1 and kind like 'b%'",
       ""); /* asked of the one nearest */
    is(db, "select rowid from t where vector match '[0,0]' and kind like 'b%' limit 1", "2");
    is(db, "select rowid from t where vector match '[0,0]' and k=5 order by distance desc", "3;2;1");
    is(db, "select rowid from t where vector match '[0,0]' and k=5 order by year desc", "2;1;3");
    is(db, "select t.rowid from t where vector match '[0,0]' and k=0", "");
    is(db, "select count(*) from t where vector match '[0,0]' and k=9223372036854775807", "3");
    is(db, "select rowid from t where vector match '[0,0]' and k='2'", "1;2");
    is(db, "select rowid from t where vector match '[0,0]' and k=-1", "error: k is an integer from 0");
    is(db, "select rowid from t where vector match '[0,0]' and k=1.5", "error: k is an integer from 0");
    is(db, "select rowid from t where vector match '[0,0]' and k='x'", "error: k is an integer from 0");
    is(db, "select rowid from t where vector match '[0,0]' and k=null", "error: k is an integer from 0");
    is(db, "select rowid from t where vector match '[0,0]' and k=1 and k=2", "error: one k at a time");
    is(db, "select rowid from t where vector match '[0,0]' and k in (1,2)", "error: one k at a time");
    is(db, "select rowid from t where vector match '[0,0]' and vector match '[1,1]'", "error: one MATCH at a time");
    is(db, "select rowid from t where vector match '[0,0]' or year=2", "error: cannot be answered here");
    /* An OR beside the search never takes its place; what is no list SQLite asks of the k. */
    is(db, "select rowid from t where vector match '[0,0]' and k=2 and (rowid=1 or rowid=3)", "1;3");
    is(db, "select rowid from t where vector match '[0,0]' and (rowid=3 or rowid=1)", "1;3");
    is(db, "select rowid from t where vector match '[0,0]' and k=2 and (rowid in (2,3) or rowid=7)", "2");
    is(db, "select rowid from t where vector match '[0,0]' and (rowid in (1,2) or rowid=3)", "1;2;3");
    is(db, "select rowid from t where vector match '[0,0]' and k=2 and (rowid=1 or (rowid=2 and year>5))", "1");
    is(db, "select rowid from t where vector match '[6,8]' and (rowid=1 or (rowid=2 and year>1))", "2;1");
    is(db, "select rowid from t where vector match '[0,0]' and k=3 and (distance<1 or distance>6)", "1;3");
    is(db, "select rowid from t where vector match '[0,0]' and (distance<1 or rowid=2)", "1;2");
    is(db, "select rowid from t where vector match '[0,0]' and k=3 and (k=2 or rowid=2)", "2");
    is(db, "select rowid from t where (vector match '[0,0]' and k=1) or rowid=3 order by rowid", "1;3");
    is(db, "select rowid from t where vector match '[0,0]' or rowid=2 order by rowid", "1;2;3");
    is(db, "select count(*) from t where rowid=1 or rowid=3", "2");
    is(db, "select rowid from t where kind match 'a'", "error: MATCH is for the column vector");
    is(db, "select vector match '[0,0]' from t", "error: cannot be answered here");
    is(db, "select rowid from t where k=1", "error: k says something of a search only");
    is(db, "select rowid from t where distance<1", "error: distance says something of a search only");
    is(db, "select rowid from t where vector match '[0,0]' and k>1", "");
    is(db, "select missing from t where vector match '[0,0]'", "error: no such column");
    is(db, "select rowid from t where vector match (select vector from t where rowid=2) and k=1", "2");
    is(db, "select a.rowid,b.rowid from t a join t b on b.vector match a.vector and b.k=2 order by a.rowid,b.distance",
       "1|1;1|2;2|2;2|1;3|3;3|2");
    is(db,
       "select a.rowid,b.rowid from t a join t b on b.vector match a.vector and b.k=1 and b.rowid<>a.rowid order by 1",
       "1|2;2|1;3|2");
    is(db,
       "create table one(id integer primary key, w); insert into one values(3,'w'); analyze;"
       "select t.rowid,w from one join t on t.rowid=one.id where vector match '[0,0]' and k=2",
       "");
    is(db, "select t.rowid,w from t join one on t.rowid=one.id where vector match '[0,0]' and k=3", "3|w");
    is(db,
       "select t.rowid,w from one join t on t.rowid=one.id where vector match '[0,0]' and k=2 and (t.rowid=1 or t.rowid=3)",
       "3|w");
    is(db, "select t.rowid,w from one join t on t.rowid=one.id or t.rowid=one.id-1 where vector match '[0,0]' and k=2",
       "2|w");
    is(db, "select t.rowid,w from one join t on t.rowid=one.id; select t.rowid,w from t join one on t.rowid=one.id",
       "3|w;3|w");
    is(db, "select a.rowid,b.rowid from t a join t b on b.vector match a.vector and b.k=1 where b.rowid=1 or b.rowid=3",
       "1|1;2|1;3|3");
    is(db, "drop table one; select kind,count(*),min(distance) from t where vector match '[0,0]' and k=9 group by kind",
       "a|2|0.0;b|1|5.0");
    is(db,
       "select rowid from t where rowid=2; select rowid from t where rowid='3'; select rowid from t where rowid=1.0",
       "2;3;1");
    is(db,
       "select rowid from t where rowid=1.5; select rowid from t where rowid='x'; select rowid from t where rowid=null; select rowid from t where rowid=1e300",
       "");
    is(db,
       "select rowid from t where rowid in (3,1,7); select rowid from t order by rowid desc; select max(rowid) from t",
       "1;3;3;2;1;3");
    is(db,
       "with recursive n(i) as (select 1 union all select i+1 from n where i<70000)"
       "select count(*) from t where vector match '[0,0]' and rowid in (select i from n)",
       "3");
    is(db,
       "with recursive n(i) as (select 1 union all select i+1 from n where i<5000)"
       "select rowid from t where vector match '[0,0]' and k=2 and rowid in (select i from n where i>1)",
       "2;3");
    is(db,
       "update t set year=9 where rowid in (select rowid from t where vector match '[0,0]' and k=2); select rowid from t where year=9",
       "1;2");
    is(db, "delete from t where vector match '[0,0]' and k=1; select rowid from t", "2;3");
    is(db,
       "insert into t(vector,kind) select vector,kind from t where vector match '[3,4]' and k=1; select kind from t where rowid=4",
       "b");
    is(db,
       "create view near as select rowid,distance from t where vector match '[3,4]' and k=2; select * from near; drop view near",
       "2|0.0;4|0.0");
    is(db, "drop table t", "");
}

/* Rows that a condition on `kind` leaves to a search are those that SQLite finds without. */
static void texts(const char *encoding) {
    static const char *const conditions[] = {"kind%s'b'",
                                             "kind%s'\u00e9'",
                                             "kind%s'\uffee'",
                                             "kind%s'\U0001f600'",
                                             "kind%scast(x'ff' as text)",
                                             "kind%scast(x'61ff' as text)"};
    static const char *const operators[] = {"<", "<=", ">", ">=", "=", "<>", " is ", " is not "};
    char sql[300], expected[400];
    sqlite3 *db = connect(":memory:");
    snprintf(sql, sizeof sql, "pragma encoding='%s'; create virtual table t using iqdb(dim=1, kind text)", encoding);
    is(db, sql, "");
    is(db,
       "insert into t(rowid,vector,kind) values(1,'[1]','a'),(2,'[1]','\u0100'),(3,'[1]','b'),(4,'[1]','\u00e9'),"
       "(5,'[1]','\U0001f600'),(6,'[1]','\uffee'),(7,'[1]',null)",
       "");
    for (size_t i = 0; i < sizeof conditions / sizeof *conditions; i++)
        for (size_t j = 0; j < sizeof operators / sizeof *operators; j++) {
            char condition[100];
            snprintf(condition, sizeof condition, conditions[i], operators[j]);
            snprintf(sql, sizeof sql, "select rowid from t where %s", condition);
            answer(db, sql, expected, sizeof expected);
            snprintf(sql, sizeof sql, "select rowid from t where vector match '[1]' and %s", condition);
            is(db, sql, expected);
        }
    is(db, "select rowid from t where vector match '[1]' and k=2 and kind in ('b',cast(x'ff' as text),'\uffee','x')",
       "3;6");
    sqlite3_close(db);
}

static void transactions(sqlite3 *db) {
    const char *near = "select group_concat(rowid) from (select rowid from t where vector match '[0]' and k=99)";
    is(db, "create virtual table t using iqdb(dim=1, metric=l2); insert into t(rowid,vector) values(1,'[1]'),(2,'[2]')",
       "");
    is(db, near, "1,2");
    is(db, "begin; insert into t(rowid,vector) values(3,'[0]')", "");
    is(db, "begin", "error: cannot start a transaction within a transaction");
    is(db, near, "3,1,2");
    is(db, "savepoint a; delete from t where rowid=1; savepoint b; update t set vector='[9]' where rowid=3", "");
    is(db, near, "2,3");
    is(db, "rollback to b", "");
    is(db, near, "3,2");
    is(db, "rollback to a", "");
    is(db, near, "3,1,2");
    is(db, "insert into t(rowid,vector) values(4,'[4]'),(5,'[5,5]')", "error: 2 elements");
    is(db, near, "3,1,2");
    is(db, "release a; rollback", "");
    is(db, near, "1,2");
    is(db, "savepoint a; delete from t; savepoint b; insert into t(rowid,vector) values(7,'[7]'); release b", "");
    is(db, near, "7");
    is(db, "rollback to a", "");
    is(db, near, "1,2");
    is(db, "release a; insert into t(t) values('integrity-check')", "");
    is(db, "begin; drop table t; rollback; create table later(x)", "");
    is(db, near, "1,2");
    is(db, "begin; insert into t(rowid,vector) values(8,'[0]'); create table again(x)", "");
    is(db, near, "8,1,2");
    is(db, "rollback", "");
    is(db, near, "1,2");
    is(db, "begin; alter table t rename to u; select rowid from u where vector match '[2]' and k=1", "2");
    is(db, "insert into u(u) values('integrity-check'); insert into u(rowid,vector) values(3,'[0]'); rollback", "");
    is(db, near, "1,2");
    is(db,
       "alter table t rename to \"an other\"; select rowid from \"an other\" where vector match '[2]' and k=9; select name from sqlite_schema where name like 'an%' order by 1",
       "2;1;an other;an other_log;an other_rows");
    is(db,
       "insert into \"an other\"(\"an other\") values('integrity-check'); drop table \"an other\"; select name from sqlite_schema where name not like 'sqlite%'",
       "later");
    is(db, "drop table later", "");
}

static void connections(const char *folder) {
    char path[512];
    snprintf(path, sizeof path, "%s/cases.db", folder);
    sqlite3 *a = connect(path), *b = connect(path);
    const char *near = "select group_concat(rowid) from (select rowid from t where vector match '[0]' and k=99)";
    is(a,
       "pragma journal_mode=wal; create virtual table t using iqdb(dim=1, metric=l2, year int); insert into t(rowid,vector) values(1,'[1]'),(2,'[2]')",
       "wal");
    is(b, near, "1,2");
    is(a, "begin; insert into t(rowid,vector) values(3,'[0]')", "");
    is(a, near, "3,1,2");
    is(b, near, "1,2");
    is(b, "pragma busy_timeout=0; insert into t(rowid,vector) values(4,'[4]')", "error: database is locked");
    is(a, "rollback", "");
    is(b, "insert into t(rowid,vector) values(4,'[0.5]')", ""); /* the number in the log that the rollback gave free */
    is(a, near, "4,1,2");
    is(b, "begin; select count(*) from t", "3");
    is(a, "delete from t where rowid=1", "");
    is(b, near, "4,1,2");
    is(b, "commit", "");
    is(b, near, "4,2");
    is(b, "vacuum; drop table t; create virtual table t using iqdb(dim=1, metric=dot)", "");
    is(a, near, "null");
    is(b, "insert into t(rowid,vector) values(10,'[1]')", "");
    is(a, near, "10");
    is(a,
       "attach ':memory:' as m; create virtual table m.t using iqdb(dim=2); insert into m.t(vector) values('[1,0]');"
       "select rowid,distance from m.t where vector match '[0,1]' and k=1; select count(*) from m.t_rows; detach m",
       "1|1.0;1");
    is(a,
       "create virtual table temp.x using iqdb(dim=1); insert into x(vector) values('[1]'); select rowid from x where vector match '[1]' and k=1",
       "1");
    /* Another history, whose entries have the same numbers: only the tokens tell. */
    is(a, "select rowid,distance from t where vector match '[1]' and k=1", "10|-1.0");
    is(b, "update t_rows set vector=x'00000040'; update t_log set token=token+1", "");
    is(a, "select rowid,distance from t where vector match '[1]' and k=1", "10|-2.0");
    sqlite3_close(b);
    /* What a stranger does to a shadow table is found. */
    is(a, "insert into t(t) values('integrity-check'); update t_rows set vector='[7]'", "error: ");
    is(a, "update t_rows set vector=x'0000e040'; insert into t(t) values('integrity-check')",
       "error: row 10 is not what searches see");
    is(a, "insert into t(t) values('reload'); insert into t(t) values('integrity-check')", "");
    is(a, "delete from t_rows; insert into t(t) values('integrity-check')", "error: searches see 1 rows of 0");
    is(a, "insert into t_rows values(1, x'00')", "");
    is(a, "insert into t(t) values('integrity-check')", "error: row 1 has no vector of 1 elements");
    is(a, "insert into t(t) values('reload')", "");
    is(a, near, "error: row 1 has no vector of 1 elements");
    is(a, "select hex(vector) from t; update t set vector='[3]'", "00");
    is(a, near, "1");
    if (sqlite3_libversion_number() >= 3044000) {
        is(a, "pragma integrity_check", "ok");
        is(a, "insert into t_rows values(2, x'00'); pragma quick_check", "t_rows: row 2 has no vector of 1 elements");
        is(a, "pragma integrity_check", "t_rows: row 2 has no vector of 1 elements");
        is(a,
           "delete from t_rows where rowid=2; insert into t_rows values(7,x'0000803f'); pragma quick_check; pragma integrity_check",
           "ok;t: row 7 is not what searches see");
    } else {
        printf("  skip PRAGMA integrity_check asks tables from SQLite 3.44 on (this is %s)\n", sqlite3_libversion());
        skipped++;
    }
    is(a, "pragma integrity_check('t_rows')", "ok");
    sqlite3_db_config(a, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    is(a, "delete from t_rows", "error: may not be modified");
    is(a, "insert into t(rowid,vector) values(11,'[1]'); select count(*)>0 from t where vector match '[1]' and k=9",
       "1");
    sqlite3_close(a);
}

/* How many of the k = 10 nearest of 60 rows a search of the table finds, of 600. */
static long found_of_600(sqlite3 *db, const char *table, const char *suffix) {
    char sql[600], found[100];
    snprintf(sql, sizeof sql,
             "select count(*) from (select p.rowid as a from plain p where p.rowid %% 50 = 0), exact e "
             "where e.asked = a and e.found in (select rowid from %s where vector match "
             "(select vector from plain where plain.rowid = a) %s)",
             table, suffix);
    answer(db, sql, found, sizeof found);
    if (strncmp(found, "error", 5) == 0) fail(sql, "a number", found);
    return atol(found);
}

static void range(const char *what, long found, long low, long high) {
    char expected[100], is_text[40];
    snprintf(expected, sizeof expected, "%ld to %ld of 600", low, high);
    snprintf(is_text, sizeof is_text, "%ld", found);
    if (found >= low && found <= high)
        passed++;
    else
        fail(what, expected, is_text);
}

/* Tables with an index find what sorting by the distance finds: nearly all with the knobs as they are, and fewer where
 * these let a search see little, by which one knows that there is an index at all. A flat one finds all. */
static void indexes(sqlite3 *db) {
    is(db,
       "create table plain(vector blob); with recursive n(i) as (select 8 union all select i+8 from n where i<24000)"
       "insert into plain select iqdb_vector((select '['||group_concat((x*x%1000003*x%1000003)/1000003.0)||']' from "
       "(select i x union all select i+1 union all select i+2 union all select i+3 union all select i+4 "
       "union all select i+5 union all select i+6 union all select i+7))) from n; select count(*) from plain",
       "3000");
    is(db, "create virtual table flat using iqdb(dim=8, metric=l2, INDEX=Flat)", "");
    is(db, "create virtual table plainly using iqdb(dim=8, metric=l2)", "");
    is(db, "create virtual table by_itself using iqdb(dim=8, metric=l2, index=auto)", "");
    is(db, "create virtual table graph using iqdb(dim=8, metric=l2, index=hnsw, m=16, ef_construction=200, year int)",
       "");
    is(db, "create virtual table narrow using iqdb(dim=8, metric=l2, index=hnsw, m=2, ef_search=10)", "");
    is(db, "create virtual table lists using iqdb(dim=8, metric=l2, index=ivf)", "");
    is(db, "create virtual table few using iqdb(dim=8, metric=l2, index=ivf, nlist=100, nprobe=1)", "");
    static const char *const names[] = {"flat", "plainly", "by_itself", "graph", "narrow", "lists", "few"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char sql[200];
        snprintf(sql, sizeof sql, "insert into %s(rowid,vector) select rowid,vector from plain", names[i]);
        is(db, sql, "");
    }
    is(db,
       "create table exact(asked int, found int); insert into exact select a,b from (select p.rowid as a,q.rowid as b,"
       "row_number() over (partition by p.rowid order by iqdb_distance(p.vector,q.vector,'l2'),q.rowid) as place "
       "from plain p join plain q where p.rowid % 50 = 0) where place <= 10; select count(*) from exact",
       "600");
    const char *ten = "and k=10", *limited = "order by distance limit 10";
    range("flat", found_of_600(db, "flat", ten), 600, 600);
    range("no index", found_of_600(db, "plainly", ten), 600, 600);
    range("auto", found_of_600(db, "by_itself", ten), 600, 600);
    range("hnsw", found_of_600(db, "graph", ten), 570, 600);
    range("hnsw by LIMIT", found_of_600(db, "graph", limited), 570, 600);
    range("a narrow hnsw", found_of_600(db, "narrow", ten), 100, 590);
    range("ivf", found_of_600(db, "lists", ten), 540, 600);
    range("few of ivf", found_of_600(db, "few", ten), 60, 540);
    /* All come where all are asked for, conditions hold, and what changes is seen. */
    is(db,
       "select count(*),count(distinct rowid) from few where vector match zeroblob(32); "
       "select count(*) from narrow where vector match zeroblob(32)",
       "3000|3000;3000");
    is(db, "update graph set year=7 where rowid in (5,500,2500)", "");
    is(db, "select count(*) from graph where vector match zeroblob(32) and k=10 and year=7", "3");
    is(db,
       "begin; delete from graph where rowid=100; insert into graph(rowid,vector) select -1,vector from plain where rowid=100;"
       "select rowid from graph where vector match (select vector from plain where rowid=100) and k=1; rollback;"
       "select rowid from graph where vector match (select vector from plain where rowid=100) and k=1;"
       "insert into graph(graph) values('integrity-check')",
       "-1;100");
    is(db, "drop table exact; drop table plain", "");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char sql[200];
        snprintf(sql, sizeof sql, "drop table %s", names[i]);
        is(db, sql, "");
    }
}

static void functions(sqlite3 *db) {
    is(db, "select hex(iqdb_vector('[1, -2.5]')), iqdb_json(x'0000803f000020c0')", "0000803F000020C0|[1.0,-2.5]");
    is(db,
       "select iqdb_json(iqdb_vector('[0.1,3.4028234e38,1e-45,16777216]'))=iqdb_json(iqdb_vector(iqdb_json(iqdb_vector('[0.1,3.4028234e38,1e-45,16777216]'))))",
       "1");
    is(db,
       "select iqdb_distance('[3,4]','[0,0]','l2'), iqdb_distance('[3,4]','[0,0]','l1'), iqdb_distance('[3,4]','[1,2]','dot'), iqdb_distance('[1,0]','[0,2]')",
       "5.0|7.0|-11.0|1.0");
    is(db, "select iqdb_distance('[1]','[1,2]')", "error: 2 elements, 1 are needed");
    is(db, "select iqdb_distance('[1]','[1]','hamming')", "error: the metrics are");
    is(db, "select iqdb_distance('[1]','[1]',null)", "error: the metrics are");
    is(db, "select iqdb_vector(null)", "error: iqdb_vector: a vector may not be NULL");
    is(db, "select iqdb_json('[]')", "error: iqdb_json: the vector is empty");
    is(db, "select iqdb_json(zeroblob(262148))", "error: too long");
    is(db, "select iqdb_vector()", "error: wrong number of arguments");
    is(db, "select iqdb_version() glob '[0-9]*.[0-9]*.[0-9]*'", "1");
}

/* ---- allocations that fail ---- */

static sqlite3_mem_methods plain;
static long left = -1;   /* allocations until some fail; negative: none does */
static long failing = 1; /* how many then fail in turn */

static bool fails(void) {
    if (left < 0 || left-- > 0) return false;
    if (--failing > 0) left = 0;
    return true;
}
static void *starved_malloc(int size) { return fails() ? NULL : plain.xMalloc(size); }
static void *starved_realloc(void *memory, int size) { return fails() ? NULL : plain.xRealloc(memory, size); }

/* Every allocation of SQLite and of the table in this session fails, `in_turn` of them at a time. Each statement then
 * succeeds or fails as a whole, and when memory is back the table is what the statements that succeeded have made of
 * it; those that are refused are so however little memory there is to say why. */
static void starving(long step, long in_turn) {
    static const char *const session[] = {
        "create virtual table wrong using iqdb(dim=1, colour=red)",
        "create virtual table t using iqdb(dim=2, metric=l2, kind text, year int, data blob)",
        "insert into t(rowid,vector,kind,year) values(1,'[1,2]','a',1),(2,iqdb_vector('[3,4]'),'b',2),(3,'[5,6]',null,3)",
        "insert into t(vector) values(zeroblob(4000))",
        "insert into t(rowid,vector,data) values(4,'[7,8]',zeroblob(3000))",
        "select rowid from t where vector match '[0,0]' and k=1 and data=zeroblob(3000)",
        "select rowid,kind,iqdb_json(vector),distance from t where vector match '[0,0]' and k=2 and year in (1,3,5) and kind is not 'z'",
        "begin",
        "update t set year=year+1, vector='[9,9]' where rowid=2",
        "savepoint s",
        "delete from t where rowid=1",
        "select rowid from t where vector match '[0,0]' and kind like '%' and distance<99 limit 2",
        "rollback to s",
        "select group_concat(kind) from t where rowid>1",
        "commit",
        "alter table t rename to u",
        "insert into u(u) values('integrity-check')"};
    /* Row 4 has no year, and so is in none of these. */
    static const char *const rows[] = {"null", "1:1,2:2,3:3", "1:1,2:3,3:3", "2:2,3:3", "2:3,3:3"};
    long n = 0, refused = 0;
    for (bool failed_one = true; failed_one; n += step) {
        sqlite3 *db = connect(":memory:");
        char name[400], sql[400], found[400], listed[400];
        bool known = false;
        left = n;
        failing = in_turn;
        for (size_t i = 0; i < sizeof session / sizeof *session; i++)
            refused += sqlite3_exec(db, session[i], NULL, NULL, NULL) != SQLITE_OK;
        failed_one = left <= 0;
        left = -1;
        if (!sqlite3_get_autocommit(db)) sqlite3_exec(db, "rollback", NULL, NULL, NULL);
        is(db, "select count(*) from sqlite_schema where name like 'wrong%'", "0");
        answer(db, "select name from sqlite_schema where sql like 'create virtual%'", name, sizeof name);
        if (*name == 0) {
            is(db, "select count(*) from sqlite_schema", "0");
        } else {
            snprintf(sql, sizeof sql, "insert into %.1s(%.1s) values('integrity-check')", name, name);
            is(db, sql, "");
            snprintf(sql, sizeof sql, "select group_concat(rowid||':'||year) from %.1s", name);
            answer(db, sql, listed, sizeof listed);
            for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) known = known || strcmp(listed, rows[i]) == 0;
            if (!known) fail("a session with an allocation that fails", "whole statements", listed);
            snprintf(sql, sizeof sql,
                     "select group_concat(rowid||':'||year) from (select rowid,year from %.1s "
                     "where vector match '[0,0]' order by rowid)",
                     name);
            answer(db, sql, found, sizeof found);
            if (strcmp(found, listed) != 0) fail("a search after an allocation that failed", listed, found);
        }
        sqlite3_close(db);
    }
    printf("  allocations failed %ld times, %ld in turn, %ld statements with them\n", n / step, in_turn, refused);
}

int main(int count, char **arguments) {
    if (count != 4 || atol(arguments[3]) < 1) return printf("usage: cases EXTENSION DIRECTORY STEP\n"), 2;
    extension = arguments[1];
    sqlite3_config(SQLITE_CONFIG_GETMALLOC, &plain);
    sqlite3_mem_methods starved = plain;
    starved.xMalloc = starved_malloc;
    starved.xRealloc = starved_realloc;
    sqlite3_config(SQLITE_CONFIG_MALLOC, &starved);
    sqlite3 *db = connect(":memory:");
    creating(db);
    writing(db);
    searching(db);
    texts("UTF-8");
    texts("UTF-16le");
    texts("UTF-16be");
    transactions(db);
    indexes(db);
    functions(db);
    sqlite3_close(db);
    connections(arguments[2]);
    starving(atol(arguments[3]), 1);
    starving(atol(arguments[3]), 4);
    printf("cases: %d passed, %d failed, %d skipped, SQLite %s\n", passed, failed, skipped, sqlite3_libversion());
    return failed != 0;
}
