/* What the compiler and the machine are, and the few macros that everything uses. */
#ifndef IQ_BASE_CONFIG_H
#define IQ_BASE_CONFIG_H

#include "api.h"

#include <string.h>

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
#if defined(__OPTIMIZE__)
#define IQ_INLINE static inline __attribute__((always_inline, unused))
#else
/* Forced inlining without optimisation makes stack frames of many KiB and code that no debugger can step through. */
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

#ifdef __cplusplus
#define IQ_STATIC_ASSERT(condition, name) static_assert(condition, #name)
#else
#define IQ_STATIC_ASSERT(condition, name) typedef char iq_static_assert_##name[(condition) ? 1 : -1]
#endif

#define IQ_COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Rounds up to a multiple of a power of two; the caller has excluded overflow. */
IQ_INLINE size_t iq_round_up(size_t n, size_t power_of_two) {
    return (n + power_of_two - 1) & ~(power_of_two - 1);
}

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

/* a * b, or false where size_t cannot hold it. */
IQ_INLINE bool iq_mul(size_t a, size_t b, size_t *out) {
    if (a != 0 && b > (size_t)-1 / a) return false;
    *out = a * b;
    return true;
}

#endif
