/* Little-endian numbers in byte arrays, at any alignment and on any machine. */
#ifndef IQ_BASE_BYTES_H
#define IQ_BASE_BYTES_H

#include "base/config.h"

IQ_INLINE uint16_t iq_get_u16(const uint8_t *p) { return (uint16_t)(p[0] | (unsigned)p[1] << 8); }
IQ_INLINE uint32_t iq_get_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
IQ_INLINE uint64_t iq_get_u64(const uint8_t *p) { return (uint64_t)iq_get_u32(p) | (uint64_t)iq_get_u32(p + 4) << 32; }
IQ_INLINE void iq_put_u32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)(v >> 16);
    p[3] = (uint8_t)(v >> 24);
}
IQ_INLINE void iq_put_u64(uint8_t *p, uint64_t v) {
    iq_put_u32(p, (uint32_t)v);
    iq_put_u32(p + 4, (uint32_t)(v >> 32));
}
IQ_INLINE uint32_t iq_f32_bits(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return bits;
}
/* By its bits, because -ffast-math lets compilers fold comparisons. */
IQ_INLINE bool iq_f32_is_nan(float v) { return (iq_f32_bits(v) & 0x7FFFFFFFu) > 0x7F800000u; }
IQ_INLINE float iq_f32_from_bits(uint32_t bits) {
    float v;
    memcpy(&v, &bits, 4);
    return v;
}
IQ_INLINE uint64_t iq_f64_bits(double v) {
    uint64_t bits;
    memcpy(&bits, &v, 8);
    return bits;
}
#define IQ_F64_INFINITY UINT64_C(0x7FF0000000000000)
#define IQ_F64_NAN UINT64_C(0x7FF8000000000000)
#define IQ_F64_SIGN UINT64_C(0x8000000000000000)
IQ_INLINE bool iq_f64_is_nan(double value) { return (iq_f64_bits(value) & ~IQ_F64_SIGN) > IQ_F64_INFINITY; }
IQ_INLINE double iq_f64_from_bits(uint64_t bits) {
    double v;
    memcpy(&v, &bits, 8);
    return v;
}

/* count 32-bit words between memory and little-endian bytes: a copy where the machine is little-endian itself. */
IQ_INLINE void iq_copy_words_le(void *to, const void *from, size_t count) {
    if (!IQ_BIG_ENDIAN) {
        memcpy(to, from, count * 4);
        return;
    }
    const uint8_t *source = (const uint8_t *)from;
    uint8_t *target = (uint8_t *)to;
    for (size_t i = 0; i < count * 4; i += 4) {
        const uint8_t swapped[4] = {source[i + 3], source[i + 2], source[i + 1], source[i]};
        memcpy(target + i, swapped, 4);
    }
}

#endif
