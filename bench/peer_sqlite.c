/* SQLite as people use it for durable rows (WAL, synchronous=FULL, one transaction per batch, prepared statements, all
 * else at its defaults), and sqlite-vec, its extension for exact vector search, in memory. */
#include "bench.h"

#include <sqlite3.h>
#include <stdio.h>

typedef struct peer_sqlite {
    sqlite3 *db;
    sqlite3_stmt *begin, *put, *commit, *count, *search;
} peer_sqlite;

static int prepare(peer_sqlite *peer, const char *text, sqlite3_stmt **out) {
    return sqlite3_prepare_v3(peer->db, text, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);
}

static int step(sqlite3_stmt *statement) {
    const int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    return code == SQLITE_DONE || code == SQLITE_ROW ? SQLITE_OK : code;
}

void peer_sqlite_close(peer_sqlite *peer) {
    sqlite3_finalize(peer->begin);
    sqlite3_finalize(peer->put);
    sqlite3_finalize(peer->commit);
    sqlite3_finalize(peer->count);
    sqlite3_finalize(peer->search);
    sqlite3_close(peer->db);
    free(peer);
}

static peer_sqlite *made(peer_sqlite *peer, int code) {
    if (code == SQLITE_OK) return peer;
    fprintf(stderr, "SQLite: %s\n", sqlite3_errmsg(peer->db));
    peer_sqlite_close(peer);
    return NULL;
}

peer_sqlite *peer_sqlite_open(const char *path) {
    peer_sqlite *peer = (peer_sqlite *)calloc(1, sizeof *peer);
    if (peer == NULL) return NULL;
    int code = sqlite3_open(path, &peer->db);
    if (code == SQLITE_OK)
        code = sqlite3_exec(peer->db,
                            "pragma journal_mode=wal; pragma synchronous=full;"
                            "create table t(id integer primary key, v blob)",
                            NULL, NULL, NULL);
    if (code == SQLITE_OK) code = prepare(peer, "begin immediate", &peer->begin);
    if (code == SQLITE_OK) code = prepare(peer, "insert or replace into t values(?,?)", &peer->put);
    if (code == SQLITE_OK) code = prepare(peer, "commit", &peer->commit);
    if (code == SQLITE_OK) code = prepare(peer, "select count(*) from t", &peer->count);
    return made(peer, code);
}

double peer_sqlite_write(peer_sqlite *peer, const bench_records *records, size_t first, size_t count, size_t batch) {
    int code = SQLITE_OK;
    const double start = bench_now();
    for (size_t i = first; i < first + count && code == SQLITE_OK; i += batch) {
        if (batch > 1) code = step(peer->begin); /* a single statement is its own transaction */
        for (size_t k = i; k < i + batch && k < first + count && code == SQLITE_OK; k++) {
            sqlite3_bind_int64(peer->put, 1, (sqlite3_int64)records->ids[k]);
            sqlite3_bind_blob(peer->put, 2, bench_row(records, k), (int)(records->dim * sizeof(float)), SQLITE_STATIC);
            code = step(peer->put);
        }
        if (batch > 1 && code == SQLITE_OK) code = step(peer->commit);
    }
    return code == SQLITE_OK ? bench_now() - start : -(double)code;
}

size_t peer_sqlite_count(peer_sqlite *peer) {
    const size_t count = sqlite3_step(peer->count) == SQLITE_ROW ? (size_t)sqlite3_column_int64(peer->count, 0) : 0;
    sqlite3_reset(peer->count);
    return count;
}

const char *peer_sqlite_version(void) {
    return sqlite3_libversion();
}

/* `rows` in a table t of the extension, which is made by `create` and has the vectors in a column v or vector. */
peer_sqlite *peer_vec_open(const char *extension, const char *create, const char *column, const float *rows,
                           size_t count, uint32_t dim) {
    peer_sqlite *peer = (peer_sqlite *)calloc(1, sizeof *peer);
    char text[96];
    if (peer == NULL) return NULL;
    int code = sqlite3_open(":memory:", &peer->db);
    if (code == SQLITE_OK) code = sqlite3_db_config(peer->db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
    if (code == SQLITE_OK) code = sqlite3_load_extension(peer->db, extension, NULL, NULL);
    if (code == SQLITE_OK) code = sqlite3_exec(peer->db, create, NULL, NULL, NULL);
    if (code == SQLITE_OK) code = prepare(peer, "begin immediate", &peer->begin);
    snprintf(text, sizeof text, "insert into t(rowid, %s) values(?,?)", column);
    if (code == SQLITE_OK) code = prepare(peer, text, &peer->put);
    if (code == SQLITE_OK) code = prepare(peer, "commit", &peer->commit);
    snprintf(text, sizeof text, "select rowid from t where %s match ? and k = ?", column);
    if (code == SQLITE_OK) code = prepare(peer, text, &peer->search);
    if (code == SQLITE_OK) code = step(peer->begin);
    for (size_t i = 0; i < count && code == SQLITE_OK; i++) {
        sqlite3_bind_int64(peer->put, 1, (sqlite3_int64)i);
        sqlite3_bind_blob(peer->put, 2, rows + i * dim, (int)(dim * sizeof(float)), SQLITE_STATIC);
        code = step(peer->put);
    }
    if (code == SQLITE_OK) code = step(peer->commit);
    return made(peer, code);
}

double peer_vec_search(peer_sqlite *peer, const float *vectors, size_t count, uint32_t dim, size_t k, uint64_t *ids) {
    int code = SQLITE_DONE;
    const double start = bench_now();
    for (size_t i = 0; i < count && code == SQLITE_DONE; i++) {
        sqlite3_bind_blob(peer->search, 1, vectors + i * dim, (int)(dim * sizeof(float)), SQLITE_STATIC);
        sqlite3_bind_int64(peer->search, 2, (sqlite3_int64)k);
        for (size_t hit = i * k; (code = sqlite3_step(peer->search)) == SQLITE_ROW; hit++)
            ids[hit] = (uint64_t)sqlite3_column_int64(peer->search, 0);
        sqlite3_reset(peer->search);
    }
    return code == SQLITE_DONE ? bench_now() - start : -(double)code;
}
