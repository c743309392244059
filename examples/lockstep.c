/* lockstep.c: two players' machines compute the same game, and compare no more than one number a turn. One has the best
 * instructions of this processor, the other one none beyond plain C; the number has to be the same, here and everywhere.
 *
 *   cc -I. examples/lockstep.c -o lockstep -pthread -lm && ./lockstep
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DIM = 48,
    UNITS = 400,
    TURNS = 60
};

static void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

typedef struct player {
    iqdb *db;
    uint32_t chance;
    uint64_t hash;
} player;

static uint32_t draw(player *one) { return (one->chance = one->chance * 1664525u + 1013904223u) >> 8; }

/* FNV-1a of numbers, byte by byte from the lowest, so that the byte order of a machine does not show. */
static void digest(player *one, uint64_t number, int bytes) {
    for (int i = 0; i < bytes; i++) one->hash = (one->hash ^ (number >> (8 * i) & 0xFF)) * UINT64_C(1099511628211);
}

/* A unit's view of the field; it is what the others' decisions are made of. */
static void move(player *one, uint64_t unit) {
    float view[DIM];
    for (int i = 0; i < DIM; i++) view[i] = (float)draw(one) / 8388608.0f - 1.0f;
    iqdb_record record = iqdb_record_default();
    record.id = unit;
    record.vector = view;
    record.dim = DIM;
    check(iqdb_upsert(one->db, &record) == IQDB_OK, "move");
}

static void turn(player *one, iqdb_metric metric) {
    for (int i = 0; i < 20; i++) move(one, draw(one) % UNITS);
    check(iqdb_delete(one->db, draw(one) % UNITS, NULL) == IQDB_OK, "a loss");
    for (int i = 0; i < 10; i++) {
        float wanted[DIM];
        iqdb_hit hits[5];
        size_t count = 0;
        for (int j = 0; j < DIM; j++) wanted[j] = (float)draw(one) / 8388608.0f - 1.0f;
        iqdb_query query = iqdb_query_default();
        query.vector = wanted;
        query.k = 5;
        query.metric = metric;
        check(iqdb_search(one->db, &query, hits, &count) == IQDB_OK, "a decision");
        for (size_t hit = 0; hit < count; hit++) {
            uint32_t bits;
            memcpy(&bits, &hits[hit].score, sizeof bits);
            digest(one, hits[hit].id, 8);
            digest(one, bits, 4);
        }
    }
}

static player begin(iqdb_simd simd_max) {
    player one = {NULL, 12345, UINT64_C(14695981039346656037)};
    iqdb_options options = iqdb_options_default();
    options.simd_max = simd_max;
    check(iqdb_open_in_memory(&options, &one.db) == IQDB_OK, "begin");
    for (uint64_t unit = 0; unit < UNITS; unit++) move(&one, unit);
    return one;
}

int main(void) {
    static const iqdb_metric metrics[4] = {IQDB_L2, IQDB_COSINE, IQDB_DOT, IQDB_L1};
    player first = begin(IQDB_SIMD_BEST), second = begin(IQDB_SIMD_SCALAR);
    for (int number = 0; number < TURNS; number++) {
        turn(&first, metrics[number % 4]);
        turn(&second, metrics[number % 4]);
        check(first.hash == second.hash, "the players are in step");
    }
    printf("%d turns in step, hash %08lx%08lx\n", TURNS, (unsigned long)(first.hash >> 32),
           (unsigned long)(first.hash & 0xFFFFFFFFu));
    check(iqdb_close(first.db) == IQDB_OK && iqdb_close(second.db) == IQDB_OK, "end");
    return 0;
}
