/* Centres of a set of vectors: made by k-means, and ranked by how near they are to a vector. Everything is in the same
 * steps on every machine, so the same vectors and seed give the same centres and orders. */
#ifndef IQ_INDEX_KMEANS_H
#define IQ_INDEX_KMEANS_H

#include "index/index.h"

typedef struct iq_centres {
    uint32_t count, dim;
    size_t stride;
    iq_quant quant;  /* of blocks; dim 0: there are none, and ranks are by the vectors */
    float *vectors;  /* 64-byte aligned, zeros behind dim */
    uint8_t *blocks; /* codes; what is behind the last centre is loose */
    bool loose;      /* some centre is, too */
} iq_centres;

/* Memory of `count` centres, 64-byte aligned; and these in it, to be filled. */
IQ_FN size_t iq_centres_bytes(uint32_t count, uint32_t dim, bool coded);
IQ_FN void iq_centres_start(iq_centres *centres, uint32_t count, uint32_t dim, bool coded, void *memory);

/* Behind codes that were copied there. */
IQ_FN void iq_centres_note_loose(iq_centres *centres);

/* What ranking a vector takes beside it, 64-byte aligned. */
IQ_FN size_t iq_centres_scratch_bytes(const iq_centres *centres);
/* A probe for a vector that is padded like a row, by L2 or DOT: for the codes of centres, and of rows if these are of what
 * the vector is. Not usable where codes say nothing of it. */
IQ_FN void iq_centres_probe(const iq_centres *centres, iqdb_metric metric, const float *vector, iq_quant_probe *probe,
                            void *scratch);
/* About the key of each centre: smaller is nearer. metric: L2, DOT or L1; the probe, if usable, is of that. `keys` has
 * room for the count rounded up to 16. */
IQ_FN void iq_centres_rank(const iq_centres *centres, const iq_kernel *kernel, const iq_codes *codes,
                           iqdb_metric metric, const float *vector, const iq_quant_probe *probe, float *keys);
/* The `want` <= IQ_NEAREST_MAX nearest, or all, by their squared distances; fewer is faster. Their number. */
#define IQ_NEAREST_MAX 32u
typedef struct iq_nearest {
    uint32_t centre;
    float square;
} iq_nearest;
IQ_FN uint32_t iq_centres_nearest(const iq_centres *centres, const iq_kernel *kernel, const iq_codes *codes,
                                  const float *vector, uint32_t want, iq_nearest *out, float *keys, void *scratch);

/* A key such that about `want` of the keys, and all that are equal to the last of these, are no greater. */
IQ_FN float iq_keys_select(const float *keys, uint32_t count, uint32_t want);
/* How many of the keys are no greater. */
IQ_FN uint32_t iq_keys_below(const float *keys, uint32_t count, float limit);

/* Lloyd's algorithm over `sample_count` vectors, in units. */
typedef struct iq_kmeans {
    iq_centres *centres;
    const iq_kernel *kernel;
    const iq_codes *codes;
    /* Vector i, padded like a row: `room` for one or where it is; NULL where there is none. */
    const float *(*vector_fn)(void *user, uint32_t i, float *room);
    void *user;
    uint64_t seed;
    uint32_t sample_count, round, at;
    double inertia; /* of the last whole round, before its centres moved */
    double *sums;   /* what follows is in the memory that it was given */
    uint32_t *counts;
    uint32_t *last;       /* the centre of each vector, in the last round */
    uint32_t *neighbours; /* IQ_NEAREST_MAX of each centre, itself first, or as many as there are */
    float *room, *keys;
    void *scratch;
    double sum;
} iq_kmeans;

#define IQ_KMEANS_ROUNDS 8u
#define IQ_KMEANS_UNIT 16u /* vectors */
IQ_FN size_t iq_kmeans_bytes(const iq_centres *centres, uint32_t sample_count);
/* The fields before `round` are set; memory: 64-byte aligned, zeroed. */
IQ_FN void iq_kmeans_start(iq_kmeans *kmeans, void *memory);
/* One unit; whether all is done. */
IQ_FN bool iq_kmeans_step(iq_kmeans *kmeans);

#endif
