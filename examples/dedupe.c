/* dedupe.c: finds pictures that are alike by perceptual hashes of 64 bits. A hash says of each place whether the picture
 * becomes brighter to the right, so that copies which are lighter, coarser or noisy differ in a few bits and other pictures
 * in some thirty. The hashes are vectors of bits, and what is alike is what lies within a Hamming radius.
 *
 *   cc -I. examples/dedupe.c -o dedupe -pthread -lm && ./dedupe
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SIZE = 72, /* pixels a side */
    PHOTOS = 300,
    COPIES = 40, /* of the first photos, each altered in one of four ways */
    RADIUS = 10  /* bits */
};

typedef struct picture {
    int pixels[SIZE][SIZE];
} picture;

static const char *const ways[4] = {"lighter", "16 shades", "noisy", "shifted"};

static void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

static uint32_t roll(uint32_t *state, uint32_t below) {
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) % below;
}

/* Some round lights and shadows, drawn by lot. */
static void photograph(picture *out, uint32_t seed) {
    uint32_t state = seed * 2654435761u + 1u;
    memset(out, 0, sizeof *out);
    for (int blob = 0; blob < 80; blob++) {
        const int x = (int)roll(&state, SIZE), y = (int)roll(&state, SIZE), reach = 6 + (int)roll(&state, 14);
        const int light = (int)roll(&state, 2) == 0 ? 3 : -3;
        for (int j = 0; j < SIZE; j++) {
            for (int i = 0; i < SIZE; i++) {
                const int inside = reach * reach - (i - x) * (i - x) - (j - y) * (j - y);
                if (inside > 0) out->pixels[j][i] += light * inside / reach;
            }
        }
    }
}

static void alter(picture *p, int way, uint32_t seed) {
    uint32_t state = seed;
    for (int j = 0; j < SIZE; j++) {
        for (int i = 0; i < SIZE; i++) {
            int *pixel = &p->pixels[j][i];
            if (way == 0) *pixel = *pixel * 5 / 4 + 30;
            if (way == 1) *pixel = *pixel / 16 * 16;
            if (way == 2) *pixel += (int)roll(&state, 21) - 10;
            if (way == 3 && i + 1 < SIZE) *pixel = p->pixels[j][i + 1];
        }
    }
}

/* The picture in 8 rows of 9 fields, and a bit for each pair of neighbours. */
static void hash_of(const picture *p, uint8_t out[8]) {
    memset(out, 0, 8);
    for (int row = 0; row < 8; row++) {
        int before = 0;
        for (int field = 0; field < 9; field++) {
            int sum = 0;
            for (int j = 0; j < SIZE / 8; j++)
                for (int i = 0; i < SIZE / 9; i++) sum += p->pixels[row * (SIZE / 8) + j][field * (SIZE / 9) + i];
            if (field > 0 && sum > before) out[row] = (uint8_t)(out[row] | 1 << (field - 1));
            before = sum;
        }
    }
}

static int differing_bits(const uint8_t a[8], const uint8_t b[8]) {
    int count = 0;
    for (int i = 0; i < 64; i++) count += ((a[i / 8] ^ b[i / 8]) >> i % 8) & 1;
    return count;
}

int main(void) {
    static uint8_t hashes[PHOTOS + COPIES][8];
    static iqdb_hit hits[PHOTOS + COPIES];
    static picture p;
    iqdb *db = NULL;
    int found[4] = {0, 0, 0, 0}, strangers = 0;
    iqdb_options options = iqdb_options_default();
    options.element = IQDB_ELEMENT_BIT; /* and so options.metric is IQDB_HAMMING */
    options.dim = 64;
    check(iqdb_open_in_memory(&options, &db) == IQDB_OK, "open");
    for (int i = 0; i < PHOTOS + COPIES; i++) {
        iqdb_record record = iqdb_record_default();
        photograph(&p, (uint32_t)(i < PHOTOS ? i : i - PHOTOS));
        if (i >= PHOTOS) alter(&p, i % 4, (uint32_t)i);
        hash_of(&p, hashes[i]);
        record.id = (uint64_t)i;
        record.raw = hashes[i];
        check(iqdb_upsert(db, &record) == IQDB_OK, "upsert");
    }
    for (int i = 0; i < PHOTOS + COPIES; i++) {
        size_t count = 0, expected = 0;
        iqdb_query query = iqdb_query_default();
        query.raw = hashes[i];
        query.k = PHOTOS + COPIES;
        query.flags = IQDB_MAX_DISTANCE;
        query.max_distance = RADIUS;
        check(iqdb_search(db, &query, hits, &count) == IQDB_OK, "search");
        for (int j = 0; j < PHOTOS + COPIES; j++) expected += differing_bits(hashes[i], hashes[j]) <= RADIUS;
        check(count == expected, "as many within the radius as a look at all of them finds");
        for (size_t h = 0; h < count; h++) {
            const int other = (int)hits[h].id;
            check(hits[h].score == (float)differing_bits(hashes[i], hashes[other]), "the score is the number of bits");
            if (other <= i) continue;
            if (other == i + PHOTOS) {
                found[other % 4]++;
            } else {
                strangers++;
            }
        }
    }
    printf("%d pictures, %d of them copies\n", PHOTOS + COPIES, COPIES);
    for (int way = 0; way < 4; way++) printf("  %-9s %d of %d found\n", ways[way], found[way], COPIES / 4);
    printf("other pairs within %d bits: %d\n", RADIUS, strangers);
    return iqdb_close(db) == IQDB_OK ? 0 : 1;
}
