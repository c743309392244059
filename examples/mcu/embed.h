/* embed.h: stands for the network that turns a picture into numbers. Pictures of one person are alike. */
#ifndef EMBED_H
#define EMBED_H

#include <stdint.h>

enum {
    DIM = 64,
    PEOPLE = 200
};

static float embed_noise(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 16) / 32768.0f - 1.0f;
}

static void embed(unsigned person, unsigned picture, float vector[DIM]) {
    uint32_t of_person = person * 2654435761u + 1, of_picture = picture * 40503u + person;
    for (int i = 0; i < DIM; i++) vector[i] = embed_noise(&of_person) + 0.25f * embed_noise(&of_picture);
}

#endif
