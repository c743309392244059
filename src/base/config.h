/* What the compiler and the machine are, and the few macros that everything uses. */
#ifndef IQ_BASE_CONFIG_H
#define IQ_BASE_CONFIG_H

#include "api.h"

#if SIZE_MAX < 0xFFFFFFFFu
#error "iqdb: size_t has 16 bits here, and records want 32: this machine is too small"
#endif

/* What a switch takes with it. */
#if defined(IQDB_NO_LIBC) && !defined(IQDB_NO_THREADS)
#define IQDB_NO_THREADS
#endif
#if defined(IQDB_NO_LIBC) && !defined(IQDB_MALLOC) && !defined(IQDB_NO_MALLOC)
#define IQDB_NO_MALLOC
#endif
#if defined(IQDB_NO_MALLOC)
#define IQ_HAS_MALLOC 0
#else
#define IQ_HAS_MALLOC 1
#endif
#if (defined(IQDB_NO_LIBC) || defined(IQDB_NO_FILES) || !IQ_HAS_MALLOC) && !defined(IQDB_NO_OS)
#define IQDB_NO_OS /* the handles of its files are malloc's */
#endif

/* Constants for conditions in functions: what is never called then, compilers leave out of a single header by
 * themselves, whole files of it. So a switch takes away public functions, and no other line knows of it. */
#if defined(IQDB_NO_FILES)
#define IQ_HAS_FILES 0   /* directories, of any file layer */
typedef size_t iq_place; /* in a snapshot, which is in memory then */
#else
#define IQ_HAS_FILES 1
typedef uint64_t iq_place;
#endif
#if defined(IQDB_SMALL)
#define IQ_SMALL 1 /* one collection and plain scans; tables, buffers in frames and batches are small */
#else
#define IQ_SMALL 0
#endif
#if IQ_SMALL && !IQ_HAS_FILES
#define IQ_HAS_MODELS 0 /* options.model */
#else
#define IQ_HAS_MODELS 1
#endif
#if defined(IQDB_NO_FILTERS)
#define IQ_HAS_FILTERS 0 /* but ids and predicates */
#else
#define IQ_HAS_FILTERS 1
#endif
#if defined(IQDB_NO_HNSW)
#define IQ_HAS_GRAPH 0
#else
#define IQ_HAS_GRAPH 1
#endif
#if defined(IQDB_NO_IVF)
#define IQ_HAS_LISTS 0
#else
#define IQ_HAS_LISTS 1
#endif
#if defined(IQDB_READONLY)
#define IQ_HAS_WRITES 0
#else
#define IQ_HAS_WRITES 1
#endif
/* Small builds whose records are those of a blob where it lies, found sound when it was opened, in one slab and for ever. */
#define IQ_ONLY_BLOBS (IQ_SMALL && !IQ_HAS_FILES && !IQ_HAS_WRITES && !IQ_BIG_ENDIAN)

#if !defined(IQDB_NO_LIBC)
#include <string.h>
#endif

/* Internal functions are extern (and hidden) where modules are compiled apart for their unit tests, and static in the
 * single header, where a switched-off feature may leave some of them unused. */
#if defined(IQDB_MODULES)
#define IQ_FN
#elif defined(__GNUC__) || defined(__clang__)
#define IQ_FN static __attribute__((unused))
#else
#define IQ_FN static
#endif

#if defined(__GNUC__) || defined(__clang__)
#if defined(__OPTIMIZE__) && !defined(__OPTIMIZE_SIZE__)
#define IQ_INLINE static inline __attribute__((always_inline, unused))
#else
/* Without optimisation it makes stack frames of many KiB and code that no debugger can step through; and with -Os the
 * compiler knows better. */
#define IQ_INLINE static inline __attribute__((unused))
#endif
#define IQ_LIKELY(x) __builtin_expect(!!(x), 1)
#define IQ_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define IQ_TARGET(isa) __attribute__((target(isa)))
#elif defined(_MSC_VER)
#define IQ_INLINE static __forceinline
#define IQ_LIKELY(x) (x)
#define IQ_UNLIKELY(x) (x)
#define IQ_TARGET(isa)
#else
#define IQ_INLINE static inline
#define IQ_LIKELY(x) (x)
#define IQ_UNLIKELY(x) (x)
#define IQ_TARGET(isa)
#endif

/* For the definition of an internal function that is laid into its callers, where a call and its registers would cost as
 * much as what it does, or what is known of an argument spares half of it: IQ_HOT for those of other files, in the
 * single header, and IQ_SPREAD for those of the same file. */
#if defined(__OPTIMIZE_SIZE__)
#define IQ_HOT IQ_FN
#define IQ_SPREAD static
#elif defined(IQDB_MODULES)
#define IQ_HOT
#define IQ_SPREAD IQ_INLINE
#else
#define IQ_HOT IQ_INLINE
#define IQ_SPREAD IQ_INLINE
#endif

/* 1 where the SSE2, AVX2 and AVX-512 kernels can be compiled: per-function targets, so no build flags are needed. */
#if (defined(__x86_64__) || (defined(__i386__) && defined(__SSE2__))) && (defined(__GNUC__) || defined(__clang__)) && \
    !defined(IQDB_NO_SIMD)
#define IQ_X86 1
#else
#define IQ_X86 0
#endif
#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__)) && !defined(IQDB_NO_SIMD)
#define IQ_ARM64 1
#else
#define IQ_ARM64 0
#endif

/* 1 where the NEON kernel can be compiled: every 64-bit ARM has the instructions, so nothing is asked at run time. */
#if defined(__AARCH64EL__) && defined(__ARM_NEON) && (defined(__GNUC__) || defined(__clang__)) && !defined(IQDB_NO_SIMD)
#define IQ_NEON 1
#else
#define IQ_NEON 0
#endif

/* 1 where that of WebAssembly can: a module that has the instructions (-msimd128) loads only where they are. */
#if defined(__wasm_simd128__) && !defined(__wasm_relaxed_simd__) && !defined(IQDB_NO_SIMD)
#define IQ_WASM 1
#else
#define IQ_WASM 0
#endif

/* 1 where kernels may fuse a multiplication and an addition: faster sums whose last bits differ between machines. */
#if defined(IQDB_FAST_FP)
#define IQ_FAST_FP 1
#else
#define IQ_FAST_FP 0
#endif

#if defined(__BYTE_ORDER__) && defined(__ORDER_BIG_ENDIAN__)
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define IQ_BIG_ENDIAN 1
#endif
#endif
#ifndef IQ_BIG_ENDIAN
#define IQ_BIG_ENDIAN 0
#endif

/* Our own mistakes only, never a check of input: compiled out unless the user maps it to something. */
#ifndef IQDB_ASSERT
#define IQDB_ASSERT(condition) ((void)0)
#endif
#define IQ_ASSERT(condition) IQDB_ASSERT(condition)

/* What cannot happen, for the reason that stands beside it, and is answered by an error all the same. What a measurement
 * of coverage cannot reach, it leaves out. */
#if defined(IQ_COVERAGE)
#define IQ_NEVER(condition) false
#else
#define IQ_NEVER(condition) (condition)
#endif

#ifdef __cplusplus
#define IQ_STATIC_ASSERT(condition, name) static_assert(condition, #name)
#else
#define IQ_STATIC_ASSERT(condition, name) typedef char iq_static_assert_##name[(condition) ? 1 : -1]
#endif

#define IQ_COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* T_default(), which is zeroed, as every public struct may be. */
#define IQ_DEFINE_DEFAULT(type) \
    IQDB_API type type##_default(void) { \
        type zeroed; \
        memset(&zeroed, 0, sizeof zeroed); \
        return zeroed; \
    }

/* Rounds up to a multiple of a power of two; the caller has excluded overflow. */
IQ_INLINE size_t iq_round_up(size_t n, size_t power_of_two) { return (n + power_of_two - 1) & ~(power_of_two - 1); }

/* The place of the highest bit of a number that is not 0. */
IQ_INLINE unsigned iq_log2_u32(uint32_t n) {
#if defined(__GNUC__) || defined(__clang__)
    return 31u - (unsigned)__builtin_clz(n);
#else
    unsigned log = 0;
    while ((n >>= 1) != 0) log++;
    return log;
#endif
}

/* And of its lowest bit. */
IQ_INLINE unsigned iq_lowest_bit(uint32_t n) { return iq_log2_u32(n & (~n + 1)); }

IQ_INLINE uint32_t iq_count_bits(uint32_t n) {
    n -= n >> 1 & 0x55555555u;
    n = (n & 0x33333333u) + (n >> 2 & 0x33333333u);
    return ((n + (n >> 4)) & 0x0F0F0F0Fu) * 0x01010101u >> 24;
}

/* Without a C library there are the four functions that compilers call of their own accord, and these. The end of iqdb.h
 * undefines the names. */
#if defined(IQDB_NO_LIBC)
#define memcpy __builtin_memcpy
#define memmove __builtin_memmove
#define memset __builtin_memset
#define memcmp __builtin_memcmp
#define strlen iq_string_size
#define strcmp(a, b) iq_string_compare((a), (b), (size_t)-1)
#define strncmp iq_string_compare
#define memchr iq_bytes_find
#define strchr(text, byte) ((const char *)iq_bytes_find((text), (byte), iq_string_size(text) + 1))

IQ_INLINE size_t iq_string_size(const char *text) {
    const volatile char *end = text; /* else compilers see what it does, and call strlen */
    while (*end != 0) end++;
    return (size_t)(end - text);
}
IQ_INLINE int iq_string_compare(const char *a, const char *b, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (a[i] != b[i] || a[i] == 0) return (int)(uint8_t)a[i] - (int)(uint8_t)b[i];
    return 0;
}
IQ_INLINE const void *iq_bytes_find(const void *bytes, int byte, size_t size) {
    const uint8_t *at = (const uint8_t *)bytes;
    for (size_t i = 0; i < size; i++)
        if (at[i] == (uint8_t)byte) return at + i;
    return NULL;
}
#endif

/* a * b, or false where size_t cannot hold it. */
IQ_INLINE bool iq_mul(size_t a, size_t b, size_t *out) {
    if (a != 0 && b > (size_t)-1 / a) return false;
    *out = a * b;
    return true;
}

#endif
