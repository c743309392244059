/* CRC-32 by the instructions of ARMv8, eight bytes each.
 *
 * 1. The instructions stand in assembly that asks for them by itself: which header and which attribute make a compiler
 *    offer them differs between compilers and their versions.
 * 2. Words are put together from bytes, so that any alignment and byte order give the same. */
#include "kernel/crc32.h"

#if IQ_ARM64

IQ_INLINE uint32_t iq_arm_crc32_u64(uint32_t crc, uint64_t word) {
    __asm__(".arch_extension crc\n\tcrc32x %w0, %w0, %x1" : "+r"(crc) : "r"(word));
    return crc;
}

IQ_INLINE uint32_t iq_arm_crc32_u8(uint32_t crc, uint32_t byte) {
    __asm__(".arch_extension crc\n\tcrc32b %w0, %w0, %w1" : "+r"(crc) : "r"(byte));
    return crc;
}

IQ_FN uint32_t iq_crc32_arm(uint32_t crc, const void *bytes, size_t size) {
    const uint8_t *p = (const uint8_t *)bytes;
    crc = ~crc;
    for (; size >= 64; size -= 64, p += 64) {
        crc = iq_arm_crc32_u64(crc, iq_get_u64(p));
        crc = iq_arm_crc32_u64(crc, iq_get_u64(p + 8));
        crc = iq_arm_crc32_u64(crc, iq_get_u64(p + 16));
        crc = iq_arm_crc32_u64(crc, iq_get_u64(p + 24));
        crc = iq_arm_crc32_u64(crc, iq_get_u64(p + 32));
        crc = iq_arm_crc32_u64(crc, iq_get_u64(p + 40));
        crc = iq_arm_crc32_u64(crc, iq_get_u64(p + 48));
        crc = iq_arm_crc32_u64(crc, iq_get_u64(p + 56));
    }
    for (; size >= 8; size -= 8, p += 8) crc = iq_arm_crc32_u64(crc, iq_get_u64(p));
    for (; size > 0; size--, p++) crc = iq_arm_crc32_u8(crc, *p);
    return ~crc;
}

#endif
