/* recovery.c: a process that writes is killed in the middle, and what it had been told is stored is found. Half of the
 * writes are batches of ten, which are found whole or not at all. For systems with fork.
 *
 *   cc -I. examples/recovery.c -o recovery -pthread -lm && ./recovery
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    DIM = 64,
    BATCH = 10,
    KILLS = 5
};

static void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

static void vector_of(uint64_t id, float vector[DIM]) {
    for (int i = 0; i < DIM; i++) vector[i] = (float)((id * 31 + (uint64_t)i * 7) % 101);
}

/* Ids from `first` on, one write after another, and each is told through the pipe when it has returned. Never ends. */
static void write_on(uint64_t first, int to) {
    static float vectors[BATCH][DIM];
    iqdb_record records[BATCH];
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL;
    options.sync = IQDB_SYNC_EACH;
    if (iqdb_open("killed-db", &options, &db) != IQDB_OK) _exit(1);
    for (uint64_t id = first;;) {
        const size_t count = id % (2 * BATCH) < BATCH ? 1 : BATCH;
        for (size_t i = 0; i < count; i++) {
            vector_of(id + i, vectors[i]);
            records[i] = iqdb_record_default();
            records[i].id = id + i;
            records[i].vector = vectors[i];
            records[i].dim = DIM;
        }
        if (iqdb_upsert_batch(db, records, count) != IQDB_OK) _exit(1);
        id += count;
        if (write(to, &id, sizeof id) != (ssize_t)sizeof id) _exit(1);
    }
}

/* Lets a child write until it has told of some, and kills it. The next id that it had not told of. */
static uint64_t kill_one(uint64_t first, int round) {
    int ends[2];
    uint64_t told = first, id;
    check(pipe(ends) == 0, "pipe");
    const pid_t child = fork();
    if (child == 0) write_on(first, ends[1]);
    check(child > 0, "fork");
    close(ends[1]);
    for (int i = 0; i < 20 + 7 * round && read(ends[0], &id, sizeof id) == (ssize_t)sizeof id; i++) told = id;
    kill(child, SIGKILL);
    check(waitpid(child, NULL, 0) == child, "wait");
    while (read(ends[0], &id, sizeof id) == (ssize_t)sizeof id) told = id; /* what it had told meanwhile */
    close(ends[0]);
    check(told > first, "the child has written");
    return told;
}

int main(void) {
    uint64_t next = 0;
    for (int round = 0; round < KILLS; round++) {
        const uint64_t told = kill_one(next, round);
        iqdb_options options = iqdb_options_default();
        iqdb_buffer buffer = iqdb_buffer_default();
        iqdb_stats stats;
        iqdb *db = NULL;
        options.verify = IQDB_DEPTH_RECORDS;
        check(iqdb_open("killed-db", &options, &db) == IQDB_OK, "open what was left behind");
        check(iqdb_stat(db, &stats) == IQDB_OK && stats.recovered, "it knows that it was not closed");
        next = iqdb_len(db);
        check(next >= told, "all that was told is there");
        check(next == told || next == told + 1 || next == told + BATCH, "of the last write all or nothing");
        for (uint64_t id = 0; id < next; id++) {
            float wanted[DIM];
            iqdb_record record;
            vector_of(id, wanted);
            check(iqdb_get(db, id, &buffer, &record) == IQDB_OK, "no record is missing");
            check(memcmp(record.vector, wanted, sizeof wanted) == 0, "and none is another");
        }
        iqdb_buffer_free(&buffer);
        check(iqdb_close(db) == IQDB_OK, "close");
        printf("killed, reopened: every record of which the writer was told is there\n");
    }
    check(system("rm -r killed-db") == 0, "tidy up");
    return 0;
}
