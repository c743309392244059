/* What the C parts of the bench share. Each part is a shared library that run.py loads; a function that measures
 * returns seconds, or the negative code of what failed. */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline double bench_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Makes the compiler believe that the memory behind p is read and changed. */
static inline void bench_touch(const void *p) {
    __asm__ volatile("" : : "g"(p) : "memory");
}

/* The records that every engine is given: record i has ids[i] and the vector at rows + (i % pool) * dim. A write takes
 * records first .. first + count - 1, in batches of `batch`, each durable at its end where the engine has files. */
typedef struct bench_records {
    const uint64_t *ids;
    const float *rows;
    size_t pool;
    uint32_t dim;
} bench_records;

static inline const float *bench_row(const bench_records *records, size_t i) {
    return records->rows + (i % records->pool) * records->dim;
}

#endif
