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

/* ---- Threads ---- */
typedef struct iq_mutex iq_mutex; /* defined in sys/thread.h; not recursive */

/* Bits of iq_cpu_features. */
#define IQ_CPU_SSE2 1u
#define IQ_CPU_AVX2 2u    /* and FMA, and the system saves the registers */
#define IQ_CPU_AVX512F 4u /* the same */
#define IQ_CPU_PCLMUL 16u
#define IQ_CPU_VPCLMUL 32u /* on registers of 32 bytes, with AVX2 */
#define IQ_CPU_ARM_CRC32 64u
IQ_FN uint32_t iq_cpu_features(void);

#endif
