/* A block of the caller's as an allocator. What is asked for comes from its front and can be freed; what is cut off its
 * back is gone for good. */
#ifndef IQ_BASE_ARENA_H
#define IQ_BASE_ARENA_H

#include "base/alloc.h"

#define IQ_ARENA_HEAD 8u /* before each allocation, which begins at a multiple of 8 */

typedef struct iq_arena {
    uint8_t *begin, *end; /* allocations and holes, one behind the other */
    uint8_t *limit;       /* from `end` to here nothing was used yet, or no longer is */
    uint8_t *rover;       /* where the next search for a hole begins: at one of those, or `end` */
    size_t used;          /* bytes of allocations, with their heads */
    iqdb_allocator front; /* by iq_arena_alloc and iq_arena_free, */
    iqdb_allocator back;  /* and by iq_arena_cut */
} iq_arena;

/* memory is 64-byte aligned, and size a multiple of 64. Returns its end. */
IQ_FN uint8_t *iq_arena_init(iq_arena *arena, uint8_t *memory, size_t size);
/* alloc_fn and free_fn of an iqdb_allocator whose user is an arena. */
IQ_FN void *iq_arena_alloc(size_t size, size_t alignment, void *arena);
IQ_FN void iq_arena_free(void *memory, size_t size, size_t alignment, void *arena);
/* alloc_fn of one that never frees: 64-byte aligned, off the far end. */
IQ_FN void *iq_arena_cut(size_t size, size_t alignment, void *arena);

#endif
