/* Elements of vectors: checks, byte orders, and conversions, which are exact. */
#include "base/element.h"

/* An exponent of all ones, and one more, carries into the place of the sign. No branch, so the loops are wide ones. */
static bool iq_element_words_are_finite(const uint8_t *bytes, size_t count, bool big_endian) {
    uint32_t carried = 0;
    for (size_t i = 0; i < count && big_endian; i++)
        carried |= (((uint32_t)bytes[4 * i] << 24 | (uint32_t)bytes[4 * i + 1] << 16) & 0x7F800000u) + 0x00800000u;
    for (size_t i = 0; i < count && !big_endian; i++)
        carried |= (iq_get_u32(bytes + 4 * i) & 0x7F800000u) + 0x00800000u;
    return (carried & 0x80000000u) == 0;
}

static bool iq_element_halves_are_finite(const uint8_t *bytes, size_t count, bool big_endian, uint32_t exponent) {
    uint32_t carried = 0;
    const uint8_t *high = bytes + !big_endian, *low = bytes + big_endian;
    for (size_t i = 0; i < count; i++)
        carried |= (((uint32_t)high[2 * i] << 8 | low[2 * i]) & exponent) + (exponent & (~exponent + 1));
    return (carried & 0x8000u) == 0;
}

IQ_FN bool iq_element_is_vector(iqdb_element element, const void *bytes, size_t dim, bool big_endian) {
    const uint8_t *at = (const uint8_t *)bytes;
    if (element == IQDB_ELEMENT_F32) return iq_element_words_are_finite(at, dim, big_endian);
    if (element == IQDB_ELEMENT_F16) return iq_element_halves_are_finite(at, dim, big_endian, 0x7C00u);
    if (element == IQDB_ELEMENT_BF16) return iq_element_halves_are_finite(at, dim, big_endian, 0x7F80u);
    return element != IQDB_ELEMENT_BIT || dim % 8 == 0 || at[dim / 8] >> dim % 8 == 0;
}

IQ_FN void iq_element_copy_le(iqdb_element element, void *to, const void *from, size_t size) {
    const size_t step = (iq_element_bits(element) + 7) / 8;
    const uint8_t *source = (const uint8_t *)from;
    uint8_t *target = (uint8_t *)to;
    if (step == 4) iq_copy_words_le(to, from, size / 4);
    if (step != 4 && (!IQ_BIG_ENDIAN || step == 1)) memcpy(to, from, size);
    for (size_t i = 0; i < size && IQ_BIG_ENDIAN && step == 2; i += 2) {
        const uint8_t swapped[2] = {source[i + 1], source[i]};
        memcpy(target + i, swapped, 2);
    }
}

/* A half whose exponent is 0 is a whole number of 2^-24; no other becomes a subnormal, and neither does it. */
static float iq_element_half(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, rest = half & 0x7FFFu;
    if (rest < 0x0400u) return iq_f32_from_bits(sign | iq_f32_bits((float)rest * (1.0f / 16777216.0f)));
    return iq_f32_from_bits(sign | ((rest << 13) + (rest < 0x7C00u ? UINT32_C(112) << 23 : UINT32_C(224) << 23)));
}

IQ_FN void iq_element_to_f32(iqdb_element element, const void *bytes, size_t count, float *out) {
    const uint8_t *at = (const uint8_t *)bytes;
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        if (element == IQDB_ELEMENT_F32) {
            memcpy(out + i, at + 4 * i, 4);
        } else if (element <= IQDB_ELEMENT_BF16) {
            memcpy(&half, at + 2 * i, 2);
            out[i] = element == IQDB_ELEMENT_F16 ? iq_element_half(half) : iq_f32_from_bits((uint32_t)half << 16);
        } else if (element == IQDB_ELEMENT_BIT) {
            out[i] = (float)(at[i / 8] >> i % 8 & 1);
        } else {
            out[i] = element == IQDB_ELEMENT_U8 ? (float)at[i] : (float)(at[i] < 128 ? at[i] : at[i] - 256);
        }
    }
}
