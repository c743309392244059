/* jobs.c: a search that uses the program's own job system. The library starts no thread; it hands out tasks, and the
 * answers are the same bytes for any number of workers.
 *
 *   cc -O2 -I. examples/jobs.c -o jobs -pthread -lm && ./jobs
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DIM = 96,
    RECORDS = 20000,
    QUERIES = 8,
    K = 10,
    WORKERS_MAX = 8
};

static void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

/* ---- The program's jobs: a crew that waits for work, and helps until there is none ---- */

typedef struct crew {
    pthread_t threads[WORKERS_MAX];
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t workers;
    bool leaves;
    void (*task_fn)(size_t index, void *task); /* NULL: nothing to do */
    void *task;
    size_t next, count, running, done_by_others;
} crew;

/* Under the lock: takes tasks until none is left. */
static void help(crew *all, bool is_caller) {
    while (all->task_fn != NULL && all->next < all->count) {
        const size_t index = all->next++;
        all->running++;
        if (!is_caller) all->done_by_others++;
        pthread_mutex_unlock(&all->lock);
        all->task_fn(index, all->task);
        pthread_mutex_lock(&all->lock);
        all->running--;
    }
    pthread_cond_broadcast(&all->changed);
}

static void *work(void *user) {
    crew *all = (crew *)user;
    pthread_mutex_lock(&all->lock);
    while (!all->leaves) {
        if (all->task_fn != NULL && all->next < all->count)
            help(all, false);
        else
            pthread_cond_wait(&all->changed, &all->lock);
    }
    pthread_mutex_unlock(&all->lock);
    return NULL;
}

/* What options.parallel_for wants: returns when all tasks have. One search at a time, here. */
static void run_tasks(void (*task_fn)(size_t index, void *task), void *task, size_t count, void *user) {
    crew *all = (crew *)user;
    pthread_mutex_lock(&all->lock);
    all->task_fn = task_fn;
    all->task = task;
    all->next = 0;
    all->count = count;
    pthread_cond_broadcast(&all->changed);
    help(all, true);
    while (all->running > 0) pthread_cond_wait(&all->changed, &all->lock);
    all->task_fn = NULL;
    pthread_mutex_unlock(&all->lock);
}

static void hire(crew *all, size_t workers) {
    memset(all, 0, sizeof *all);
    check(pthread_mutex_init(&all->lock, NULL) == 0 && pthread_cond_init(&all->changed, NULL) == 0, "a lock");
    for (all->workers = 0; all->workers < workers; all->workers++)
        check(pthread_create(&all->threads[all->workers], NULL, work, all) == 0, "a thread");
}

static void dismiss(crew *all) {
    pthread_mutex_lock(&all->lock);
    all->leaves = true;
    pthread_cond_broadcast(&all->changed);
    pthread_mutex_unlock(&all->lock);
    for (size_t i = 0; i < all->workers; i++) pthread_join(all->threads[i], NULL);
    pthread_mutex_destroy(&all->lock);
    pthread_cond_destroy(&all->changed);
}

/* ---- The database ---- */

static void make_vector(float vector[DIM], uint32_t *state) {
    for (int i = 0; i < DIM; i++)
        vector[i] = (float)((*state = *state * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1.0f;
}

/* All hits of all queries, searched one by one by so many workers beside the caller. */
static void answer(size_t workers, iqdb_hit hits[QUERIES * K]) {
    static crew all;
    iqdb *db = NULL;
    uint32_t state = 1;
    float vector[DIM];
    hire(&all, workers);
    iqdb_options options = iqdb_options_default();
    options.parallel_for.run_fn = run_tasks;
    options.parallel_for.worker_count = workers + 1;
    options.parallel_for.user = &all;
    check(iqdb_open_in_memory(&options, &db) == IQDB_OK, "open");
    for (uint64_t id = 0; id < RECORDS; id++) {
        iqdb_record record = iqdb_record_default();
        make_vector(vector, &state);
        record.id = id;
        record.vector = vector;
        record.dim = DIM;
        check(iqdb_upsert(db, &record) == IQDB_OK, "upsert");
    }
    memset(hits, 0, QUERIES * K * sizeof *hits);
    for (int i = 0; i < QUERIES; i++) {
        size_t count = 0;
        make_vector(vector, &state);
        iqdb_query query = iqdb_query_default();
        query.vector = vector;
        query.k = K;
        check(iqdb_search(db, &query, hits + i * K, &count) == IQDB_OK && count == K, "search");
    }
    check(iqdb_close(db) == IQDB_OK, "close");
    dismiss(&all);
    check((all.done_by_others > 0) == (workers > 0) || workers > 0, "nobody else works where nobody is");
}

int main(void) {
    static const size_t crews[4] = {0, 1, 3, WORKERS_MAX};
    static iqdb_hit alone[QUERIES * K], together[QUERIES * K];
    answer(crews[0], alone);
    for (int i = 1; i < 4; i++) {
        answer(crews[i], together);
        for (int hit = 0; hit < QUERIES * K; hit++)
            check(together[hit].id == alone[hit].id && memcmp(&together[hit].score, &alone[hit].score, 4) == 0,
                  "the same ids and bits");
        printf("%lu helpers: the same %d hits as alone\n", (unsigned long)crews[i], QUERIES * K);
    }
    return 0;
}
