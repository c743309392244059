/* Square roots without the C library.
 *
 * 1. Correctly rounded (to nearest, ties to even), so that every machine has the same bits.
 * 2. The asm is opaque: -ffast-math cannot turn it into an estimate.
 * 3. Defined for +0, positive numbers and +infinity; sums of squares are nothing else. */
#include "kernel/strict.h"

/* Digit by digit: the root of a 106-bit integer, two bits of it per step, as one learns it at school. */
IQ_FN double iq_sqrt_f64_portable(double value) {
    uint64_t bits = iq_f64_bits(value);
    int exponent = (int)(bits >> 52);
    uint64_t mantissa = bits & UINT64_C(0x000FFFFFFFFFFFFF);
    if (bits == 0 || exponent >= 0x7FF) return value;
    if (!IQ_SMALL && exponent == 0) { /* no sum of squares of f32 is so small */
        exponent = 1;
        while ((mantissa >> 52) == 0) {
            mantissa <<= 1;
            exponent--;
        }
    }
    mantissa |= UINT64_C(1) << 52;
    exponent -= 1023;
    if ((exponent & 1) != 0) {
        mantissa <<= 1;
        exponent--;
    }
    /* value = mantissa * 2^(exponent - 52) with 1 <= mantissa / 2^52 < 4: the root has one digit before the point. Its
     * 53 digits and one for rounding come out of mantissa * 2^54, taken two bits at a time from the top. */
    uint64_t root = 0, rest = 0;
    for (int i = 0; i < 54; i++) {
        rest = rest << 2 | (mantissa >> 52 & 3);
        mantissa <<= 2;
        const uint64_t trial = root << 2 | 1;
        root <<= 1;
        if (rest >= trial) {
            rest -= trial;
            root |= 1;
        }
    }
    /* Never a tie: a root that ends on exactly half a unit has a square of more than 53 bits. */
    root = (root >> 1) + (root & 1);
    return iq_f64_from_bits(root + ((uint64_t)(exponent / 2 + 1022) << 52));
}

IQ_FN double iq_sqrt_f64(double value) {
#if (defined(__GNUC__) || defined(__clang__)) && defined(__SSE2__)
    double root;
#if defined(__AVX__)
    __asm__("vsqrtsd %1, %1, %0" : "=x"(root) : "x"(value));
#else
    __asm__("sqrtsd %1, %0" : "=x"(root) : "x"(value));
#endif
    return root;
#elif (defined(__GNUC__) || defined(__clang__)) && defined(__aarch64__)
    double root;
    __asm__("fsqrt %d0, %d1" : "=w"(root) : "w"(value));
    return root;
#else
    return iq_sqrt_f64_portable(value);
#endif
}

/* Rounding a root to 53 bits and then to 24 gives the root rounded to 24 (53 >= 2 * 24 + 2). */
IQ_FN float iq_sqrt_f32(float value) { return iq_strict_f32((float)iq_sqrt_f64((double)value)); }
