/* LMDB with durable commits, one transaction per batch, integer keys; in ascending order they are appended
 * (MDB_APPEND), which is its fastest way in. */
#include "bench.h"

#include <lmdb.h>

typedef struct peer_lmdb {
    MDB_env *env;
    MDB_dbi dbi;
    unsigned put_flags;
} peer_lmdb;

void peer_lmdb_close(peer_lmdb *peer) {
    mdb_env_close(peer->env);
    free(peer);
}

/* path: an existing directory. */
peer_lmdb *peer_lmdb_open(const char *path, size_t map_size, int in_order) {
    peer_lmdb *peer = (peer_lmdb *)calloc(1, sizeof *peer);
    MDB_txn *txn = NULL;
    if (peer == NULL) return NULL;
    peer->put_flags = in_order ? MDB_APPEND : 0;
    int code = mdb_env_create(&peer->env);
    if (code == 0) code = mdb_env_set_mapsize(peer->env, map_size);
    if (code == 0) code = mdb_env_open(peer->env, path, 0, 0600);
    if (code == 0) code = mdb_txn_begin(peer->env, NULL, 0, &txn);
    if (code == 0) code = mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &peer->dbi);
    if (code == 0) code = mdb_txn_commit(txn);
    if (code == 0) return peer;
    peer_lmdb_close(peer);
    return NULL;
}

double peer_lmdb_write(peer_lmdb *peer, const bench_records *records, size_t first, size_t count, size_t batch) {
    int code = 0;
    const double start = bench_now();
    for (size_t i = first; i < first + count && code == 0; i += batch) {
        MDB_txn *txn = NULL;
        code = mdb_txn_begin(peer->env, NULL, 0, &txn);
        for (size_t k = i; k < i + batch && k < first + count && code == 0; k++) {
            MDB_val key = {sizeof(uint64_t), (void *)&records->ids[k]};
            MDB_val value = {records->dim * sizeof(float), (void *)bench_row(records, k)};
            code = mdb_put(txn, peer->dbi, &key, &value, peer->put_flags);
        }
        if (code == 0)
            code = mdb_txn_commit(txn);
        else if (txn != NULL)
            mdb_txn_abort(txn);
    }
    return code == 0 ? bench_now() - start : code < 0 ? code : -code;
}

size_t peer_lmdb_count(peer_lmdb *peer) {
    MDB_stat stat = {0};
    return mdb_env_stat(peer->env, &stat) == 0 ? stat.ms_entries : 0;
}

const char *peer_lmdb_version(void) {
    return mdb_version(NULL, NULL, NULL);
}
