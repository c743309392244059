/* A basis for rows: a centre, and the few directions in which what differs from it is longest (K. Pearson, "On lines and
 * planes of closest fit to systems of points in space", 1901). It is made from a sample, and right for all rows: what it
 * leaves of one is only longer where the sample was of others. */
#ifndef IQ_KERNEL_BASIS_H
#define IQ_KERNEL_BASIS_H

#include "kernel/kernel.h"

enum {
    IQ_BASIS_DIM_MIN = 64,   /* of rows: with fewer there is nothing to gain, */
    IQ_BASIS_DIM_MAX = 2048, /* and with more it takes too long to make one */
    IQ_BASIS_STEP = 16,      /* its dimensions are a multiple of that, */
    IQ_BASIS_SAMPLE = 4096,  /* and what it is made from are so many rows, */
    IQ_BASIS_QUERIES = 16    /* some of which are asked for their neighbours */
};

typedef struct iq_basis {
    const iq_kernel *kernel; /* of f32 */
    uint32_t dim, dims;      /* of rows, of heads */
    size_t stride;           /* floats of one */
    const float *centre;     /* and behind it the vectors, each at the stride, zeros from dim on */
    const float *vectors;
    double length; /* of the centre */
    double slack; /* what is computed with the basis may be off by so much, relative to the lengths: see iq_basis_set */
} iq_basis;

IQ_INLINE size_t iq_basis_bytes(uint32_t dim, uint32_t dims) {
    return ((size_t)dims + 1) * iq_row_stride(dim) * sizeof(float);
}
/* From iq_basis_bytes, 64-byte aligned, which stay. Whether they are one at all: anybody may have written the file. */
IQ_FN bool iq_basis_set(iq_basis *basis, const iq_kernel *kernel, uint32_t dim, uint32_t dims, const float *memory);

/* y -= centre, each element rounded once; then the `dims` products of the vectors with y. Both: 64-byte aligned. */
IQ_FN void iq_basis_move(const iq_basis *basis, float *y);
IQ_FN void iq_basis_project(const iq_basis *basis, const float *y, float *out);

/* One in the making, in steps of at most about a millisecond. The same bits on every machine. */
typedef struct iq_basis_maker {
    const iq_kernel *kernel;
    uint32_t dim, dims; /* of the basis: its limit, and once it is done what is good, or 0 */
    uint32_t count;     /* rows of the sample, at most IQ_BASIS_SAMPLE */
    uint32_t phase, at; /* what is done next */
    double held;        /* by vectors that were measured */
    uint64_t open;      /* rows that heads leave open beyond the nearest, for all queries */
    size_t stride;
    float *samples;         /* dim x IQ_BASIS_SAMPLE */
    float *moments;         /* dim x stride */
    float *centre;          /* stride, and behind it dims x stride: as iq_basis_set wants it */
    float *vectors, *mixed; /* these, and as many again */
    float *sums;
    float *lengths, *products; /* IQ_BASIS_SAMPLE: of rows of the sample */
    float *shared;             /* as many for each query: products of its head and theirs */
} iq_basis_maker;

IQ_FN size_t iq_basis_maker_bytes(uint32_t dim);
/* memory: zeroed, 64-byte aligned. */
IQ_FN void iq_basis_maker_start(iq_basis_maker *maker, const iq_kernel *kernel, uint32_t dim, void *memory);
/* A row of f32, divided by `norm`, where there is room. */
IQ_FN void iq_basis_maker_add(iq_basis_maker *maker, const float *row, float norm);
/* Whether that was the last step: then there are dims, or the spectrum is flat. */
IQ_FN bool iq_basis_maker_step(iq_basis_maker *maker);
#endif
