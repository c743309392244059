/* hot_reload.c: new data takes the place of old while readers search. Each generation is a blob; a reader holds the one
 * it began with, and who lets go of an old one last closes it.
 *
 *   cc -I. examples/hot_reload.c -o hot_reload -pthread -lm && ./hot_reload
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DIM = 8,
    RECORDS = 300,
    READERS = 3,
    GENERATIONS = 20,
    SEARCHES = 50 /* that each generation sees before the next one comes */
};

static void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

/* ---- One generation ---- */

typedef struct generation {
    iqdb *db;
    void *bytes; /* of the blob, which the handle reads in place */
    size_t size, capacity;
    int64_t number;
    int users; /* readers in it, and one for being the present one */
} generation;

static bool append(const void *bytes, size_t size, void *user) {
    generation *to = (generation *)user;
    if (size > to->capacity - to->size) {
        to->capacity = 2 * to->capacity + size;
        to->bytes = realloc(to->bytes, to->capacity);
        check(to->bytes != NULL, "memory for a blob");
    }
    memcpy((char *)to->bytes + to->size, bytes, size);
    to->size += size;
    return true;
}

/* What a tool elsewhere would do, and send here as a file. */
static generation *make(int64_t number) {
    iqdb *maker = NULL;
    uint32_t state = (uint32_t)number + 1;
    generation *made = (generation *)calloc(1, sizeof *made);
    check(made != NULL && iqdb_open_in_memory(NULL, &maker) == IQDB_OK, "begin a generation");
    for (uint64_t id = 0; id < RECORDS; id++) {
        float vector[DIM];
        iqdb_field field;
        for (int i = 0; i < DIM; i++)
            vector[i] = (float)((state = state * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1.0f;
        field.key = "generation";
        field.value = iqdb_int(number);
        iqdb_record record = iqdb_record_default();
        record.id = id;
        record.vector = vector;
        record.dim = DIM;
        record.fields = &field;
        record.field_count = 1;
        check(iqdb_upsert(maker, &record) == IQDB_OK, "upsert");
    }
    check(iqdb_export_blob(maker, append, made) == IQDB_OK && iqdb_close(maker) == IQDB_OK, "export");
    check(iqdb_open_blob(made->bytes, made->size, NULL, &made->db) == IQDB_OK, "open the blob");
    made->number = number;
    made->users = 1;
    return made;
}

/* ---- The present one ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t searched = PTHREAD_COND_INITIALIZER;
static generation *present;
static int searches, closed, stop; /* searches of the present one; all under the lock */

static generation *take(void) {
    pthread_mutex_lock(&lock);
    generation *taken = stop ? NULL : present;
    if (taken != NULL) taken->users++;
    pthread_mutex_unlock(&lock);
    return taken;
}

static void let_go(generation *taken, int searches_of_it) {
    pthread_mutex_lock(&lock);
    const int last = --taken->users == 0;
    if (taken == present) searches += searches_of_it;
    closed += last;
    pthread_cond_signal(&searched);
    pthread_mutex_unlock(&lock);
    if (!last) return;
    check(iqdb_close(taken->db) == IQDB_OK, "close an old generation");
    free(taken->bytes);
    free(taken);
}

static void *read_on(void *unused) {
    static const float vector[DIM] = {1, 0, 1, 0, 1, 0, 1, 0};
    iqdb_buffer buffer = iqdb_buffer_default();
    (void)unused;
    for (generation *own = take(); own != NULL; own = take()) {
        iqdb_hit hits[5];
        size_t count = 0;
        iqdb_query query = iqdb_query_default();
        query.vector = vector;
        query.k = 5;
        query.flags = IQDB_WITH_PAYLOAD;
        query.buffer = &buffer;
        check(iqdb_search(own->db, &query, hits, &count) == IQDB_OK && count == 5, "search");
        for (size_t i = 0; i < count; i++)
            check(iqdb_payload_int(hits[i].payload, "generation", -1) == own->number, "all hits of one generation");
        let_go(own, 1);
    }
    iqdb_buffer_free(&buffer);
    return NULL;
}

int main(void) {
    pthread_t readers[READERS];
    present = make(0);
    for (int i = 0; i < READERS; i++) check(pthread_create(&readers[i], NULL, read_on, NULL) == 0, "start a reader");
    for (int64_t number = 1; number <= GENERATIONS; number++) {
        generation *next = number < GENERATIONS ? make(number) : NULL; /* nobody waits for this */
        pthread_mutex_lock(&lock);
        while (searches < SEARCHES) pthread_cond_wait(&searched, &lock);
        generation *old = present;
        present = next;
        searches = 0;
        stop = next == NULL;
        pthread_mutex_unlock(&lock);
        let_go(old, 0);
    }
    for (int i = 0; i < READERS; i++) pthread_join(readers[i], NULL);
    printf("%d generations, each searched by %d threads, %d closed\n", GENERATIONS, READERS, closed);
    return 0;
}
