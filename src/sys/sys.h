/* What the database needs of an operating system. The only folder that includes its headers. */
#ifndef IQ_SYS_SYS_H
#define IQ_SYS_SYS_H

#include "base/alloc.h"

/* ---- Memory for large blocks ----
 * From the allocator, cache-line aligned, like iq_alloc; but from 2 MiB on and where the default allocator would ask
 * malloc, large pages of the system, zeroed. The size is the same for both calls. */
IQ_FN void *iq_pages_alloc(const iqdb_allocator *allocator, size_t size);
IQ_FN void iq_pages_free(const iqdb_allocator *allocator, void *memory, size_t size); /* NULL is fine */

/* ---- Chance ---- */
IQ_FN bool iq_sys_entropy(void *bytes, size_t size, void *user); /* user is not read */

/* ---- Time ---- */
#if defined(IQDB_NO_OS)
#define IQ_SYS_CLOCK NULL /* none: time is counted in units of work */
#define IQ_HAS_CLOCK false
#else
#define IQ_HAS_CLOCK true
#define IQ_SYS_CLOCK iq_sys_clock
IQ_FN uint64_t iq_sys_clock(void *user); /* monotonic microseconds; user is not read */
#endif

/* ---- Threads ---- */
typedef struct iq_mutex iq_mutex; /* defined in sys/thread.h; not recursive */

/* Bits of iq_cpu_features. */
enum {
    IQ_CPU_SSE2 = 1,
    IQ_CPU_AVX2 = 2,       /* and FMA, and the system saves the registers */
    IQ_CPU_AVX512F = 4,    /* the same */
    IQ_CPU_AVX512VNNI = 8, /* with AVX512F */
    IQ_CPU_PCLMUL = 16,
    IQ_CPU_VPCLMUL = 32, /* on registers of 32 bytes, with AVX2 */
    IQ_CPU_ARM_CRC32 = 64,
    IQ_CPU_ARM_DOTPROD = 128
};
IQ_FN uint32_t iq_cpu_features(void);

#endif
