/* Arithmetic whose every step is rounded once to its type, whatever the compiler was told.
 *
 * Compilers may fuse a * b + c, keep wider intermediates (x87), or reorder sums (-ffast-math). No pragma stops all of
 * it in all of them, and a pragma at file scope would leak into the program that includes the header. So results pass
 * through an empty asm statement: the compiler has to produce the value, and cannot know what comes out. It costs
 * nothing in a register; through memory it also drops the excess bits of x87, where rounding twice is harmless for f32
 * (64 >= 2 * 24 + 2 bits; Figueroa, "When is double rounding innocuous?", 1995). Other compilers get volatile.
 * What it cannot mend is a processor that was told to flush subnormals, as gcc before 13 does at the start of every
 * program that is linked with -ffast-math: then subnormal results are zero. */
#ifndef IQ_KERNEL_STRICT_H
#define IQ_KERNEL_STRICT_H

#include "base/bytes.h"

/* gcc keeps its hands off bits that are asked whether they are a number; clang folds even those. */
#if defined(__clang__) && defined(__FINITE_MATH_ONLY__)
#if __FINITE_MATH_ONLY__
#error "iqdb: under -ffast-math clang assumes that no number is infinite; add -fno-finite-math-only for this file"
#endif
#endif

/* An array or variable in memory. */
#if defined(__GNUC__) || defined(__clang__)
#define IQ_STRICT_MEMORY(array) __asm__ volatile("" : "+m"(array))
#else
#define IQ_STRICT_MEMORY(array) iq_strict_touch(&(array), sizeof(array))
static void iq_strict_touch(volatile void *memory, size_t size) {
    volatile uint8_t *bytes = (volatile uint8_t *)memory;
    for (size_t i = 0; i < size; i++) bytes[i] = bytes[i];
}
#endif

IQ_INLINE float iq_strict_f32(float value) {
    IQ_STRICT_MEMORY(value);
    return value;
}
IQ_INLINE double iq_strict_f64(double value) {
    IQ_STRICT_MEMORY(value);
    return value;
}

/* A vector register, and four at once: between two steps of a loop that gives gcc less reason to copy them. "v" names
 * all 32 registers of AVX-512 where there are so many, and else what "x" does. */
#if IQ_X86
#define IQ_STRICT_VECTOR(v) __asm__("" : "+v"(v))
#define IQ_STRICT_VECTORS(v0, v1, v2, v3) __asm__("" : "+v"(v0), "+v"(v1), "+v"(v2), "+v"(v3))
#elif IQ_WASM
#define IQ_STRICT_VECTOR(v) ((void)0) /* no asm takes a vector there; only clang has them, and it is told in words */
#define IQ_STRICT_VECTORS(v0, v1, v2, v3) ((void)0)
#define IQ_STRICT_BODY _Pragma("clang fp reassociate(off) contract(off)")
#elif IQ_NEON
#define IQ_STRICT_VECTOR(v) __asm__("" : "+w"(v))
#define IQ_STRICT_VECTORS(v0, v1, v2, v3) __asm__("" : "+w"(v0), "+w"(v1), "+w"(v2), "+w"(v3))
#endif
#ifndef IQ_STRICT_BODY
#define IQ_STRICT_BODY /* begins a function that computes with vectors */
#endif

/* For f64, rounding twice on x87 does harm: there the unit is told to round to 53 bits from begin to end. */
#if defined(__i386__) && !defined(__SSE2_MATH__) && (defined(__GNUC__) || defined(__clang__))
#define IQ_STRICT_X87 1
#else
#define IQ_STRICT_X87 0
#endif

IQ_INLINE uint16_t iq_strict_f64_begin(void) {
    uint16_t before = 0;
#if IQ_STRICT_X87
    uint16_t now;
    __asm__ volatile("fnstcw %0" : "=m"(before));
    now = (uint16_t)((before & ~0x0300u) | 0x0200u);
    __asm__ volatile("fldcw %0" : : "m"(now));
#endif
    return before;
}
IQ_INLINE void iq_strict_f64_end(uint16_t before) {
#if IQ_STRICT_X87
    __asm__ volatile("fldcw %0" : : "m"(before));
#endif
    (void)before;
}

/* Square roots, correctly rounded, of what is not negative. The C library's are no choice: a call to them may stay
 * behind in unoptimised code, and a program would have to be linked with -lm. */
IQ_FN double iq_sqrt_f64(double value);
IQ_FN float iq_sqrt_f32(float value);
/* The same by integers alone: for machines without the instruction, and extern for its test. */
IQ_FN double iq_sqrt_f64_portable(double value);

#endif
