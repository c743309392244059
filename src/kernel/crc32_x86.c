/* CRC-32 by carry-less multiplication (Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
 * Instruction", Intel, 2009), with registers of 16 or of 32 bytes, four of them per step.
 *
 * 1. Sixteen bytes, loaded as they lie, are a polynomial whose highest power is bit 0: the CRC takes the bits of a byte
 *    from the lowest on. Its low half A and its high half B make A x^64 + B.
 * 2. A register may be replaced by anything congruent modulo P, and may move D bits on to be added to what lies there:
 *    (A x^64 + B) x^D. Each half is multiplied by a constant that was reduced to 32 bits beforehand. Such a constant
 *    lies in the low half of its 64 bits, which makes it worth x^32 more, and the product of two halves ends one bit
 *    below the top, which makes it worth x more: so A takes x^(D + 64 - 33) mod P and B takes x^(D - 33) mod P.
 * 3. In the end everything lies in 16 bytes, which the tables take like any other, and then what is left. This departs
 *    from the paper, which goes on to multiply and ends with a Barrett reduction: the tables are needed for the left
 *    bytes anyway, and take no longer.
 * 4. Loads need no alignment, and nothing outside of the bytes is read. */
#include "kernel/crc32.h"

#if IQ_X86

#include <immintrin.h>

IQ_INLINE IQ_PCLMUL __m128i iq_pclmul_load(const uint8_t *p) {
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* r, moved on to where `next` lies. */
IQ_INLINE IQ_PCLMUL __m128i iq_pclmul_fold(__m128i r, __m128i constants, __m128i next) {
    const __m128i a = _mm_clmulepi64_si128(r, constants, 0x00), b = _mm_clmulepi64_si128(r, constants, 0x11);
    return _mm_xor_si128(_mm_xor_si128(a, b), next);
}

/* The constants of A and B, in this order. */
IQ_INLINE IQ_PCLMUL __m128i iq_pclmul_constants(int64_t of_a, int64_t of_b) { return _mm_set_epi64x(of_b, of_a); }

/* r holds all that came before p. */
IQ_INLINE IQ_PCLMUL uint32_t iq_pclmul_finish(__m128i r, const uint8_t *p, size_t size) {
    const __m128i by_128 = iq_pclmul_constants(IQ_CRC32_FOLD_128);
    uint8_t last[16];
    for (; size >= 16; size -= 16, p += 16) r = iq_pclmul_fold(r, by_128, iq_pclmul_load(p));
    _mm_storeu_si128((__m128i *)(void *)last, r);
    /* The register of the CRC is in r already: zero goes on from there, which is ~0 to a caller. */
    return iq_crc32(iq_crc32(UINT32_MAX, last, sizeof last), p, size);
}

IQ_FN IQ_PCLMUL uint32_t iq_crc32_pclmul(uint32_t crc, const void *bytes, size_t size) {
    const uint8_t *p = (const uint8_t *)bytes;
    if (size < 64) return iq_crc32(crc, bytes, size);
    const __m128i by_512 = iq_pclmul_constants(IQ_CRC32_FOLD_512), by_256 = iq_pclmul_constants(IQ_CRC32_FOLD_256),
                  by_128 = iq_pclmul_constants(IQ_CRC32_FOLD_128);
    __m128i r0 = _mm_xor_si128(iq_pclmul_load(p), _mm_cvtsi32_si128((int)~crc)), r1 = iq_pclmul_load(p + 16),
            r2 = iq_pclmul_load(p + 32), r3 = iq_pclmul_load(p + 48);
    for (p += 64, size -= 64; size >= 64; p += 64, size -= 64) {
        r0 = iq_pclmul_fold(r0, by_512, iq_pclmul_load(p));
        r1 = iq_pclmul_fold(r1, by_512, iq_pclmul_load(p + 16));
        r2 = iq_pclmul_fold(r2, by_512, iq_pclmul_load(p + 32));
        r3 = iq_pclmul_fold(r3, by_512, iq_pclmul_load(p + 48));
    }
    r0 = iq_pclmul_fold(r0, by_256, r2);
    r1 = iq_pclmul_fold(r1, by_256, r3);
    return iq_pclmul_finish(iq_pclmul_fold(r0, by_128, r1), p, size);
}

#if IQ_CRC32_VPCLMUL

/* Fewer bytes are left to the smaller registers, which were faster up to 200 and slower from 256 on (Zen 3). */
#define IQ_VPCLMUL_MIN 256

IQ_INLINE IQ_VPCLMUL __m256i iq_vpclmul_load(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

IQ_INLINE IQ_VPCLMUL __m256i iq_vpclmul_fold(__m256i r, __m256i constants, __m256i next) {
    const __m256i a = _mm256_clmulepi64_epi128(r, constants, 0x00), b = _mm256_clmulepi64_epi128(r, constants, 0x11);
    return _mm256_xor_si256(_mm256_xor_si256(a, b), next);
}

IQ_INLINE IQ_VPCLMUL __m256i iq_vpclmul_constants(int64_t of_a, int64_t of_b) {
    return _mm256_set_epi64x(of_b, of_a, of_b, of_a);
}

IQ_FN IQ_VPCLMUL uint32_t iq_crc32_vpclmul(uint32_t crc, const void *bytes, size_t size) {
    const uint8_t *p = (const uint8_t *)bytes;
    if (size < IQ_VPCLMUL_MIN) return iq_crc32_pclmul(crc, bytes, size);
    const __m256i by_1024 = iq_vpclmul_constants(IQ_CRC32_FOLD_1024), by_512 = iq_vpclmul_constants(IQ_CRC32_FOLD_512),
                  by_256 = iq_vpclmul_constants(IQ_CRC32_FOLD_256);
    __m256i r0 = _mm256_xor_si256(iq_vpclmul_load(p), _mm256_set_epi32(0, 0, 0, 0, 0, 0, 0, (int)~crc)),
            r1 = iq_vpclmul_load(p + 32), r2 = iq_vpclmul_load(p + 64), r3 = iq_vpclmul_load(p + 96);
    for (p += 128, size -= 128; size >= 128; p += 128, size -= 128) {
        r0 = iq_vpclmul_fold(r0, by_1024, iq_vpclmul_load(p));
        r1 = iq_vpclmul_fold(r1, by_1024, iq_vpclmul_load(p + 32));
        r2 = iq_vpclmul_fold(r2, by_1024, iq_vpclmul_load(p + 64));
        r3 = iq_vpclmul_fold(r3, by_1024, iq_vpclmul_load(p + 96));
    }
    r0 = iq_vpclmul_fold(r0, by_512, r2);
    r1 = iq_vpclmul_fold(r1, by_512, r3);
    r0 = iq_vpclmul_fold(r0, by_256, r1);
    for (; size >= 32; p += 32, size -= 32) r0 = iq_vpclmul_fold(r0, by_256, iq_vpclmul_load(p));
    const __m128i by_128 = iq_pclmul_constants(IQ_CRC32_FOLD_128);
    const __m128i r = iq_pclmul_fold(_mm256_castsi256_si128(r0), by_128, _mm256_extracti128_si256(r0, 1));
    return iq_pclmul_finish(r, p, size);
}

#endif
#endif
