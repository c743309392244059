/* motion.c: motion matching. Sixty frames a second; every sixth asks 53,000 recorded poses for the one to go on with,
 * among those of the gait that the player wants. Once warm, nothing is allocated.
 *
 *   cc -O2 -I. examples/motion.c -o motion -pthread -lm && ./motion
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static unsigned long allocations;
static void *counted_malloc(size_t size) {
    allocations++;
    return malloc(size);
}
static void counted_free(void *memory) { free(memory); }
#define IQDB_MALLOC(size) counted_malloc(size)
#define IQDB_FREE(memory) counted_free(memory)
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

enum {
    FEATURES = 27, /* of feet, hips and the path ahead: positions and velocities */
    POSES = 53000,
    CLIP = 600, /* poses of a clip, which has one gait */
    FRAMES = 600,
    EVERY = 6 /* frames between two questions */
};
static const char *const gaits[3] = {"walk", "run", "crouch"};

static void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

static double now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* Stands for a capture: each feature swings, at a pace of its own, and every clip is a little different. The weights of
 * the features would be multiplied in here; distances are then weighted ones. */
static void pose(int number, float features[FEATURES]) {
    const int clip = number / CLIP, gait = clip % 3;
    for (int i = 0; i < FEATURES; i++) {
        const int period = 40 + 7 * i - 8 * gait, phase = (number + 13 * clip + 5 * i) % period;
        const float swing = (float)(phase < period / 2 ? phase : period - phase) / (float)period;
        features[i] = swing + 0.3f * (float)gait + 0.001f * (float)(clip % 17);
    }
}

static void load(iqdb *db) {
    for (int number = 0; number < POSES; number++) {
        float features[FEATURES];
        iqdb_field field;
        pose(number, features);
        field.key = "gait";
        field.value = iqdb_text(gaits[number / CLIP % 3]);
        iqdb_record record = iqdb_record_default();
        record.id = (uint64_t)number;
        record.vector = features;
        record.dim = FEATURES;
        record.fields = &field;
        record.field_count = 1;
        check(iqdb_upsert(db, &record) == IQDB_OK, "upsert");
    }
}

int main(void) {
    iqdb *db = NULL;
    iqdb_options options = iqdb_options_default();
    options.dim = FEATURES;
    options.metric = IQDB_L2;
    check(iqdb_open_in_memory(&options, &db) == IQDB_OK, "open");
    check(iqdb_reserve(db, POSES) == IQDB_OK, "reserve");
    load(db);

    unsigned long warm = 0, questions = 0;
    double worst = 0, sum = 0;
    uint64_t playing = 0;
    for (int frame = 0; frame < FRAMES; frame++, playing++) {
        if (frame % EVERY != 0) continue;
        const int wanted = frame / 120 % 3; /* the player changes the gait every two seconds */
        const iqdb_filter gait = iqdb_eq("gait", iqdb_text(gaits[wanted]));
        float features[FEATURES];
        iqdb_hit hit;
        size_t count = 0;
        pose((int)(playing % POSES), features);
        for (int i = 0; i < FEATURES; i++) features[i] += 0.02f * (float)wanted; /* where the stick points */
        iqdb_query query = iqdb_query_default();
        query.vector = features;
        query.k = 1;
        query.filter = &gait;
        const double begin = now_us();
        check(iqdb_search(db, &query, &hit, &count) == IQDB_OK && count == 1, "search");
        const double took = now_us() - begin;
        check((int)hit.id / CLIP % 3 == wanted, "a pose of the gait that is wanted");
        playing = hit.id;
        if (frame / 120 < 3) warm = allocations; /* each gait has been asked for: searches have the memory they want */
        questions++;
        sum += took;
        if (took > worst) worst = took;
    }
    printf("%d poses of %d features, %lu questions in %d frames\n", POSES, FEATURES, questions, FRAMES);
    printf("%.0f us a question, %.0f us the slowest\n", sum / (double)questions, worst);
    printf("%lu allocations once it is warm\n", allocations - warm);
    check(iqdb_close(db) == IQDB_OK, "close");
    return 0;
}
