/* An allocator in a block: next fit (D. Knuth, TAOCP volume 1, section 2.5) over one run of allocations and holes.
 *
 * 1. From `begin` to `end` one head follows the other: bytes up to the next one, and bit 0 where that is an allocation.
 * 2. Holes are merged when a search comes by, so freeing costs nothing, and what is free at the end falls off it.
 * 3. The front grows past twice what is in use only where no hole would do: so much may be set aside for it, and what is
 *    behind is kept for those who cut. */
#include "base/arena.h"

/* So little is searched from its beginning each time, which scatters less. */
#define IQ_ARENA_SMALL ((size_t)1 << 16)

static uint64_t *iq_arena_head(uint8_t *at) { return (uint64_t *)(void *)at; }

/* Makes an allocation of `need` bytes with its head out of the hole [at, end); NULL where it is too small. */
static void *iq_arena_carve(iq_arena *arena, uint8_t *at, uint8_t *end, size_t need, size_t alignment) {
    const size_t skip = (size_t)(-(uintptr_t)(at + IQ_ARENA_HEAD) & (alignment - 1));
    if ((size_t)(end - at) < skip || (size_t)(end - at) - skip < need) return NULL;
    if (skip > 0) *iq_arena_head(at) = skip;
    at += skip;
    if (at + need < end) *iq_arena_head(at + need) = (uint64_t)(end - at) - need;
    *iq_arena_head(at) = need | 1;
    arena->rover = at + need;
    arena->used += need;
    return at + IQ_ARENA_HEAD;
}

/* The same in the first hole from `at` on that is large enough. Where there is none the next search is from the
 * beginning: the rover may have been in a hole that is part of another one now. */
static void *iq_arena_search(iq_arena *arena, uint8_t *at, size_t need, size_t alignment) {
    for (uint8_t *next; at < arena->end; at = next) {
        void *made = NULL;
        next = at + (size_t)(*iq_arena_head(at) & ~(uint64_t)1);
        if ((*iq_arena_head(at) & 1) != 0) continue;
        while (next < arena->end && (*iq_arena_head(next) & 1) == 0) next += (size_t)*iq_arena_head(next);
        *iq_arena_head(at) = (uint64_t)(next - at);
        if (next == arena->end) {
            arena->end = at;
        } else {
            made = iq_arena_carve(arena, at, next, need, alignment);
        }
        if (made != NULL) return made;
    }
    arena->rover = arena->begin;
    return NULL;
}

/* Behind the end. */
static void *iq_arena_extend(iq_arena *arena, size_t need, size_t alignment) {
    void *made = iq_arena_carve(arena, arena->end, arena->limit, need, alignment);
    if (made != NULL) arena->end = arena->rover;
    return made;
}

IQ_FN void *iq_arena_alloc(size_t size, size_t alignment, void *user) {
    iq_arena *arena = (iq_arena *)user;
    void *made = NULL;
    if (size > (size_t)(arena->limit - arena->begin)) return NULL;
    if (alignment < 8) alignment = 8;
    const size_t need = iq_round_up(size, 8) + IQ_ARENA_HEAD;
    if ((size_t)(arena->end - arena->begin) <= 2 * arena->used) made = iq_arena_extend(arena, need, alignment);
    if (made == NULL && arena->used > IQ_ARENA_SMALL) made = iq_arena_search(arena, arena->rover, need, alignment);
    if (made == NULL) made = iq_arena_search(arena, arena->begin, need, alignment);
    return made != NULL ? made : iq_arena_extend(arena, need, alignment);
}

IQ_FN void iq_arena_free(void *memory, size_t size, size_t alignment, void *user) {
    iq_arena *arena = (iq_arena *)user;
    uint64_t *head = iq_arena_head((uint8_t *)memory - IQ_ARENA_HEAD);
    (void)size, (void)alignment;
    *head ^= 1;
    arena->used -= (size_t)*head;
}

IQ_FN void *iq_arena_cut(size_t size, size_t alignment, void *user) {
    iq_arena *arena = (iq_arena *)user;
    (void)alignment;
    if (size > (size_t)(arena->limit - arena->begin)) return NULL;
    const size_t need = iq_round_up(size, IQ_CACHE_LINE);
    if ((size_t)(arena->limit - arena->end) < need) (void)iq_arena_search(arena, arena->begin, (size_t)-1, 8);
    if ((size_t)(arena->limit - arena->end) < need) return NULL;
    arena->limit -= need;
    return arena->limit;
}

static void iq_arena_keep(void *memory, size_t size, size_t alignment, void *arena) {
    (void)memory, (void)size, (void)alignment, (void)arena;
}

IQ_FN uint8_t *iq_arena_init(iq_arena *arena, uint8_t *memory, size_t size) {
    const iqdb_allocator front = {iq_arena_alloc, iq_arena_free, arena}, back = {iq_arena_cut, iq_arena_keep, arena};
    arena->begin = arena->end = arena->rover = memory;
    arena->used = 0;
    arena->front = front;
    arena->back = back;
    return arena->limit = memory + size;
}
