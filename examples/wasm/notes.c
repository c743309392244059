/* notes.c: the part of the page that searches: a module without a system, a C library or a heap but its own memory.
 *
 *   clang --target=wasm32 -Os -msimd128 -mbulk-memory -ffreestanding -nostdlib -I. -Wl,--no-entry \
 *       -Wl,-z,stack-size=32768 examples/wasm/notes.c -o notes.wasm
 */
#define IQDB_NO_LIBC
#define IQDB_NO_FILES
#define IQDB_NO_FILTERS
#define IQDB_NO_THREADS
#define IQDB_NO_MALLOC
#define IQDB_NO_TEXT
#define IQDB_SMALL
#define IQDB_READONLY
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#define EXPORT(name) __attribute__((export_name(#name)))

enum {
    HITS = 32,
    PAGE = 65536
};

int memcmp(const void *a, const void *b, size_t size); /* the others are instructions */
int memcmp(const void *a, const void *b, size_t size) {
    const unsigned char *p = (const unsigned char *)a, *q = (const unsigned char *)b;
    for (; size > 0; size--, p++, q++)
        if (*p != *q) return *p - *q;
    return 0;
}

/* ---- Memory: what lies behind the module's own grows, and is never given back ---- */

extern unsigned char __heap_base;
static uintptr_t used;

static void *take(size_t size, size_t alignment, void *user) {
    (void)user;
    if (used == 0) used = (uintptr_t)&__heap_base;
    const uintptr_t begin = (used + alignment - 1) & ~(uintptr_t)(alignment - 1);
    const size_t there = __builtin_wasm_memory_size(0) * PAGE;
    if (size > UINT32_MAX - begin - PAGE) return NULL;
    if (begin + size > there && __builtin_wasm_memory_grow(0, (begin + size - there + PAGE - 1) / PAGE) == (size_t)-1)
        return NULL;
    used = begin + size;
    return (void *)begin;
}

static void give(void *memory, size_t size, size_t alignment, void *user) {
    (void)memory, (void)size, (void)alignment, (void)user;
}

/* ---- What the page calls ---- */

static iqdb_hit hits[HITS];
static _Alignas(8) unsigned char room[PAGE];

EXPORT(take_memory) void *take_memory(size_t size) { return take(size, 64, NULL); }

/* NULL where it cannot be opened. */
EXPORT(open) iqdb *open_notes(const void *blob, size_t size, iqdb_simd simd_max) {
    iqdb *db = NULL;
    iqdb_options options = iqdb_options_default();
    options.allocator.alloc_fn = take;
    options.allocator.free_fn = give;
    options.simd_max = simd_max;
    (void)iqdb_open_blob(blob, size, &options, &db);
    return db;
}

EXPORT(length) size_t length(const iqdb *db) { return iqdb_len(db); }
EXPORT(simd_name) const char *simd_name(const iqdb *db) { return iqdb_simd_name(db); }

/* How many were found, or the negative code. */
EXPORT(search) int search(const iqdb *db, const float *vector, size_t k) {
    size_t count = 0;
    iqdb_buffer buffer = iqdb_buffer_fixed(room, sizeof room);
    iqdb_query query = iqdb_query_default();
    query.vector = vector;
    query.k = k < HITS ? k : HITS;
    query.flags = IQDB_WITH_PAYLOAD;
    query.buffer = &buffer;
    const iqdb_result result = iqdb_search(db, &query, hits, &count);
    return result == IQDB_OK ? (int)count : (int)result;
}

EXPORT(hit_id) uint32_t hit_id(size_t i) { return (uint32_t)hits[i].id; }
EXPORT(hit_score) float hit_score(size_t i) { return hits[i].score; }
EXPORT(hit_text) const char *hit_text(size_t i) { return iqdb_payload_text(hits[i].payload, "text", NULL); }
