/* Vectors and ids for the bench: conversions of real sets, and a generator where there are none. Never uniform noise:
 * in that all distances are alike, and a search has nothing to discard. */
#include "bench.h"

#include <math.h>

static uint64_t mix(uint64_t x) { /* splitmix64's finisher: one to one */
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}
/* About normal, from four uniform numbers; tails do not matter here. */
static float normal(uint64_t *state) {
    const uint64_t r = mix((*state)++);
    const float sum = (float)(r & 0xFFFF) + (float)(r >> 16 & 0xFFFF) + (float)(r >> 32 & 0xFFFF) + (float)(r >> 48);
    return (sum / 65536.0f - 2.0f) * 1.7320508f;
}

/* 0, 1, 2, .. or a random one-to-one choice of 63 bits (SQLite's are signed; at these counts none comes twice). */
void data_ids(uint64_t *out, size_t count, int random) {
    for (size_t i = 0; i < count; i++) out[i] = random ? mix(i) >> 1 : i;
}
/* A random order of the same ids, for gets and deletes. */
void data_shuffle(uint64_t *ids, size_t count) {
    for (size_t i = count; i > 1; i--) {
        const size_t j = (size_t)(mix(i) % i);
        const uint64_t id = ids[j];
        ids[j] = ids[i - 1];
        ids[i - 1] = id;
    }
}

void data_from_u8(float *out, const uint8_t *in, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = (float)in[i];
}
void data_from_f16(float *out, const uint16_t *in, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const int exponent = in[i] >> 10 & 31, fraction = in[i] & 1023;
        const float value =
            exponent == 0 ? ldexpf((float)fraction, -24) : ldexpf((float)(fraction + 1024), exponent - 25);
        out[i] = in[i] & 0x8000 ? -value : value;
    }
}

/* Row i becomes dim / base_dim rows of `base` side by side, each copy after the first pass over `base` moved by a
 * random step of length `step`, and is scaled to unit length. */
void data_tile(float *out, size_t count, uint32_t dim, const float *base, size_t base_count, uint32_t base_dim,
               float step, uint64_t seed) {
    uint64_t state = mix(seed);
    for (size_t i = 0; i < count; i++) {
        float *row = out + i * dim;
        const float move = i < base_count ? 0.0f : step / sqrtf((float)dim);
        double norm = 0;
        for (uint32_t part = 0; part < dim / base_dim; part++) {
            const size_t source = part == 0 ? i % base_count : (size_t)(mix(seed + i) % base_count);
            memcpy(row + part * base_dim, base + source * base_dim, base_dim * sizeof(float));
        }
        if (move > 0)
            for (uint32_t d = 0; d < dim; d++) row[d] += move * normal(&state);
        for (uint32_t d = 0; d < dim; d++) norm += (double)row[d] * row[d];
        for (uint32_t d = 0; d < dim; d++) row[d] *= (float)(1.0 / sqrt(norm));
    }
}

#define LATENT 24
#define HIDDEN 64
#define CENTRES 1024

/* Overlapping clusters in 24 dimensions, bent into `dim` by a fixed random network. `stream` tells sets apart that come
 * from the same source: rows and queries. */
int data_clusters(float *out, size_t count, uint32_t dim, uint64_t stream) {
    float *centres = (float *)malloc((CENTRES * LATENT + LATENT * HIDDEN + (size_t)HIDDEN * dim) * sizeof(float));
    if (centres == NULL) return -1;
    float *first = centres + CENTRES * LATENT, *second = first + LATENT * HIDDEN;
    uint64_t state = 1;
    for (float *p = centres; p < second + (size_t)HIDDEN * dim; p++) *p = normal(&state);
    state = mix(stream + 1);
    for (size_t i = 0; i < count; i++) {
        float hidden[HIDDEN] = {0}, *row = out + i * dim;
        const float *centre = centres + mix(state) % CENTRES * LATENT;
        for (int j = 0; j < LATENT; j++) {
            const float latent = centre[j] + normal(&state);
            for (int h = 0; h < HIDDEN; h++) hidden[h] += latent * first[j * HIDDEN + h];
        }
        memset(row, 0, dim * sizeof(float));
        for (int h = 0; h < HIDDEN; h++) {
            const float bent = tanhf(hidden[h] / 8);
            for (uint32_t d = 0; d < dim; d++) row[d] += bent * second[(size_t)h * dim + d];
        }
        double norm = 0;
        for (uint32_t d = 0; d < dim; d++) norm += (double)row[d] * row[d];
        for (uint32_t d = 0; d < dim; d++) row[d] *= (float)(1.0 / sqrt(norm));
    }
    free(centres);
    return 0;
}
