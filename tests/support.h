/* What many tests need: a watched allocator, directories that go away, random numbers, and how long to take.
 *
 * Include it after iqdb.h (or api.h) where support_allocator is wanted. Written in what C99 and C++11 share. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(_WIN32)
#include "mingw.h"
#define SUPPORT_POSIX 0
#else
#define SUPPORT_POSIX 1
#endif
/* Memory at a multiple of 16 to 64, to be freed by the second. */
static inline void *support_aligned_alloc(size_t size, size_t alignment) {
#if defined(_WIN32)
    return _aligned_malloc(size, alignment < 16 ? 16 : alignment);
#else
    /* a size that is a multiple of any alignment asked for */
    return aligned_alloc(alignment < 16 ? 16 : alignment, (size + 63) / 64 * 64);
#endif
}

static inline void support_aligned_free(void *memory) {
#if defined(_WIN32)
    _aligned_free(memory);
#else
    free(memory);
#endif
}

/* Begins a test of what only POSIX has: links, forks, modes, file descriptors. */
#define SUPPORT_NEEDS_POSIX \
    do { \
        if (!SUPPORT_POSIX) TEST_SKIP("needs POSIX"); \
    } while (0)

/* ---- How thorough: IQDB_TEST_TIER is `quick` under emulators and slow tools, `long` in the full pass. ---- */

static inline size_t support_amount(size_t quick, size_t normal, size_t full) {
    const char *tier = getenv("IQDB_TEST_TIER");
    if (tier != NULL && strcmp(tier, "quick") == 0) return quick;
    return tier != NULL && strcmp(tier, "long") == 0 ? full : normal;
}

/* ---- An allocator that counts, checks what it gets back, and fails when told to. ----
 *
 *   support_heap heap = support_heap_make();
 *   heap.fail_at = 3;                                     the third allocation from now on returns NULL,
 *   heap.sticky = 1;                                      and so does every later one
 *   options.allocator = support_allocator(&heap);
 *   ...
 *   CHECK_EQ_INT(support_heap_problems(&heap), 0);        nothing leaked, freed twice or with another size
 *
 * Fresh and freed memory is filled with 0xA5 and 0xDD. May be called from several threads; fail_at and sticky are set
 * while no other thread allocates. */

typedef struct support_heap {
    size_t calls;       /* allocations asked for, failed ones included */
    size_t live_blocks; /* not yet freed */
    size_t live_bytes;
    size_t peak_bytes;
    size_t failed;  /* allocations refused */
    size_t errors;  /* frees of something else than was allocated; each is printed */
    size_t fail_at; /* 0: never; 1: the next allocation, and so on (it counts down) */
    int sticky;     /* once failed, fail for ever */
} support_heap;

typedef struct support_block { /* right before each block */
    void *raw;
    size_t size;
    size_t alignment;
    uint64_t magic; /* own address, mixed: tells a block from anything else */
} support_block;

static inline support_heap support_heap_make(void) {
    support_heap heap;
    memset(&heap, 0, sizeof heap);
    return heap;
}

static inline uint64_t support_magic(const void *memory) {
    return (uint64_t)(uintptr_t)memory ^ UINT64_C(0x5ca1ab1e0ddba115);
}

static inline size_t support_add(size_t *counter, size_t n) { return __atomic_add_fetch(counter, n, __ATOMIC_RELAXED); }

static inline int support_refuse(support_heap *heap) {
    if (heap->fail_at == 0) return 0;
    const size_t left = __atomic_load_n(&heap->fail_at, __ATOMIC_RELAXED);
    if (left > 1) {
        __atomic_fetch_sub(&heap->fail_at, 1, __ATOMIC_RELAXED);
        return 0;
    }
    if (!heap->sticky) __atomic_store_n(&heap->fail_at, 0, __ATOMIC_RELAXED);
    support_add(&heap->failed, 1);
    return 1;
}

static inline void *support_alloc(size_t size, size_t alignment, void *user) {
    support_heap *heap = (support_heap *)user;
    support_add(&heap->calls, 1);
    if (support_refuse(heap)) return NULL;
    const size_t align = alignment < 16 ? 16 : alignment;
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 || size == 0) {
        printf("\n    allocator: asked for %zu bytes at alignment %zu", size, alignment);
        support_add(&heap->errors, 1);
        return NULL;
    }
    if (size > (size_t)-1 - align - sizeof(support_block)) return NULL;
    unsigned char *raw = (unsigned char *)malloc(size + align + sizeof(support_block));
    if (raw == NULL) return NULL;
    const uintptr_t first = (uintptr_t)raw + sizeof(support_block);
    unsigned char *memory = raw + sizeof(support_block) + (((uintptr_t)0 - first) & (align - 1));
    support_block block;
    block.raw = raw;
    block.size = size;
    block.alignment = alignment;
    block.magic = support_magic(memory);
    memcpy(memory - sizeof block, &block, sizeof block);
    memset(memory, 0xA5, size);
    support_add(&heap->live_blocks, 1);
    const size_t live = support_add(&heap->live_bytes, size);
    size_t peak = __atomic_load_n(&heap->peak_bytes, __ATOMIC_RELAXED);
    while (live > peak &&
           !__atomic_compare_exchange_n(&heap->peak_bytes, &peak, live, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return memory;
}

static inline void support_free(void *memory, size_t size, size_t alignment, void *user) {
    support_heap *heap = (support_heap *)user;
    support_block block;
    if (memory == NULL) {
        printf("\n    allocator: free of NULL");
        support_add(&heap->errors, 1);
        return;
    }
    memcpy(&block, (unsigned char *)memory - sizeof block, sizeof block);
    if (block.magic != support_magic(memory)) {
        printf("\n    allocator: free of memory that is no live block");
        support_add(&heap->errors, 1);
        return;
    }
    if (block.size != size || block.alignment != alignment) {
        printf("\n    allocator: %zu bytes at alignment %zu came back as %zu bytes at alignment %zu", block.size,
               block.alignment, size, alignment);
        support_add(&heap->errors, 1);
    }
    __atomic_fetch_sub(&heap->live_blocks, 1, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&heap->live_bytes, block.size, __ATOMIC_RELAXED);
    memset((unsigned char *)memory - sizeof block, 0xDD, sizeof block + block.size);
    free(block.raw);
}

/* Blocks still living and wrong frees. */
static inline size_t support_heap_problems(const support_heap *heap) { return heap->live_blocks + heap->errors; }

#ifdef IQDB_H
static inline iqdb_allocator support_allocator(support_heap *heap) {
    iqdb_allocator allocator;
    allocator.alloc_fn = support_alloc;
    allocator.free_fn = support_free;
    allocator.user = heap;
    return allocator;
}
#endif

/* ---- Directories below $TMPDIR. ---- */

#define SUPPORT_PATH_MAX 1024

/* A fresh directory; ends the program where none can be made, for then no test means anything. */
static inline void support_directory(char path[SUPPORT_PATH_MAX]) {
    const char *parent = getenv("TMPDIR");
    snprintf(path, SUPPORT_PATH_MAX, "%s/iqdb-XXXXXX", parent != NULL && parent[0] != 0 ? parent : "/tmp");
    if (mkdtemp(path) == NULL) {
        perror(path);
        exit(2);
    }
}

/* folder/name. */
static inline void support_join(char path[SUPPORT_PATH_MAX], const char *folder, const char *name) {
    if (snprintf(path, SUPPORT_PATH_MAX, "%s/%s", folder, name) >= SUPPORT_PATH_MAX) {
        fprintf(stderr, "path too long: %s/%s\n", folder, name);
        exit(2);
    }
}

/* Removes a file, or a directory with all that is in it. Links are removed, not followed. */
static inline void support_remove(const char *path) {
    struct stat info;
    if (lstat(path, &info) != 0) return;
    if (!S_ISDIR(info.st_mode)) {
        unlink(path);
        return;
    }
    chmod(path, 0700); /* tests take permissions away */
    DIR *directory = opendir(path);
    if (directory == NULL) return;
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        char child[SUPPORT_PATH_MAX];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        support_join(child, path, entry->d_name);
        support_remove(child);
    }
    closedir(directory);
    rmdir(path);
}

/* ---- Random numbers: splitmix64, the same on every machine. The state may start as any number. ---- */

static inline uint64_t support_random(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* 0 .. limit - 1; limit > 0. The bias is below 2^-32 for the small limits of tests. */
static inline uint64_t support_random_below(uint64_t *state, uint64_t limit) { return support_random(state) % limit; }

/* -1 <= x < 1, a multiple of 2^-23, so it is exact in a float. */
static inline float support_random_float(uint64_t *state) {
    return (float)((int32_t)(support_random(state) >> 40) - (1 << 23)) / (float)(1 << 23);
}

#endif
