/* link: -luring */
/* io_uring.c: the same database over the system's files and over io_uring (io_uring.h), and what each writes in a second:
 * records that are durable one by one, and a snapshot. The tests run the whole public suite over that layer.
 *
 *   cc -I. examples/io_uring.c -o io_uring -pthread -lm -luring && ./io_uring
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include "io_uring.h"

#include <stdio.h>
#include <time.h>

enum {
    DIM = 128,
    SINGLE = 200, /* records, each durable before the next */
    ROUNDS = 3,
    BULK = 20000 /* records of the snapshot */
};

static void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

static double now(void) { /* seconds */
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void put(iqdb *db, uint64_t first, uint64_t count) {
    for (uint64_t id = first; id < first + count; id++) {
        float vector[DIM];
        uint32_t state = (uint32_t)id * 2654435761u + 1;
        for (int i = 0; i < DIM; i++)
            vector[i] = (float)((state = state * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1.0f;
        iqdb_record record = iqdb_record_default();
        record.id = id;
        record.vector = vector;
        record.dim = DIM;
        check(iqdb_upsert(db, &record) == IQDB_OK, "upsert");
    }
}

typedef struct rates {
    double durable, snapshot; /* records and bytes a second */
} rates;

static rates measure(const char *path, iqdb_files files) {
    iqdb_options options = iqdb_options_default();
    iqdb_stats stats;
    iqdb *db = NULL;
    rates found;
    options.files = files;
    options.sync = IQDB_SYNC_EACH;
    check(iqdb_open(path, &options, &db) == IQDB_OK, "open");
    put(db, 1, 1); /* what is made once */
    double began = now();
    put(db, 2, SINGLE);
    found.durable = SINGLE / (now() - began);
    check(iqdb_close(db) == IQDB_OK, "close");

    options.sync = IQDB_SYNC_FLUSH;
    check(iqdb_open(path, &options, &db) == IQDB_OK, "open again");
    put(db, 1000, BULK);
    check(iqdb_flush(db) == IQDB_OK, "flush");
    began = now();
    check(iqdb_checkpoint(db) == IQDB_OK, "checkpoint");
    const double took = now() - began;
    check(iqdb_stat(db, &stats) == IQDB_OK && stats.records == 1 + SINGLE + BULK, "all records are there");
    found.snapshot = (double)stats.snapshot_bytes / took;
    check(iqdb_close(db) == IQDB_OK, "close again");

    options.files = iqdb_files_default(); /* what one layer wrote the other reads */
    options.verify = IQDB_DEPTH_RECORDS;
    check(iqdb_open(path, &options, &db) == IQDB_OK, "open by the system's layer");
    check(iqdb_len(db) == 1 + SINGLE + BULK, "all records are there again");
    check(iqdb_close(db) == IQDB_OK, "close for good");
    return found;
}

static void remove_name(const char *name, void *user) {
    char path[64];
    snprintf(path, sizeof path, "%.20s/%.31s", (const char *)user, name);
    unlink(path);
}

static void remove_database(const char *path) {
    const iqdb_files files = iqdb_files_default();
    char name[32];
    void *dir = NULL;
    int os_code = 0;
    snprintf(name, sizeof name, "%s", path);
    if (files.dir_open_fn(path, false, &dir, &os_code, files.user) != IQDB_OK) return;
    files.dir_list_fn(dir, remove_name, name, &os_code, files.user);
    files.dir_close_fn(dir, files.user);
    rmdir(path);
}

typedef struct layer {
    const char *name, *path;
    iqdb_files files;
    rates best;
} layer;

int main(void) {
    const int missing = uring_missing();
    layer layers[2];
    memset(layers, 0, sizeof layers);
    layers[0].name = "default";
    layers[0].path = "plain-db";
    layers[0].files = iqdb_files_default();
    layers[1].name = "io_uring";
    layers[1].path = "uring-db";
    layers[1].files = uring_files();
    const int count = missing == 0 ? 2 : 1;
    for (int round = 0; round < ROUNDS; round++) { /* in turns, and the best of each: disks have moods */
        for (int i = 0; i < count; i++) {
            layer *at = &layers[i];
            remove_database(at->path);
            const rates found = measure(at->path, at->files);
            if (found.durable > at->best.durable) at->best.durable = found.durable;
            if (found.snapshot > at->best.snapshot) at->best.snapshot = found.snapshot;
            remove_database(at->path);
        }
    }
    for (int i = 0; i < count; i++)
        printf("%-10s %8.0f durable records/s %8.0f MB/s of snapshot\n", layers[i].name, layers[i].best.durable,
               layers[i].best.snapshot / 1e6);
    if (missing != 0) printf("io_uring   skipped, it is not to be had here: %s\n", strerror(missing));
    return 0;
}
