/* UTF-8 by the table of RFC 3629, section 4.
 *
 * 1. No byte at or behind bytes + size is read, also where a character is cut off there.
 * 2. Only the second byte has a range that depends on the lead: that alone keeps out overlong forms (E0, F0),
 *    surrogates (ED) and what lies above U+10FFFF (F4). C0, C1 and F5 to FF never lead.
 *
 * Most keys and much text are ASCII, so eight bytes are looked at together where eight are left. */
#include "codec/utf8.h"

/* Bytes of the character that starts at p, of which `left` (at least 1) may be read; 0 where there is none. */
static size_t iq_utf8_step(const uint8_t *p, size_t left) {
    const uint8_t lead = p[0];
    if (lead < 0x80) return 1;
    if (lead < 0xC2 || lead > 0xF4) return 0;
    const size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (left < size) return 0;
    const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (p[1] < low || p[1] > high) return 0;
    for (size_t i = 2; i < size; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    return size;
}

static bool iq_utf8_is_ascii8(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return (word & UINT64_C(0x8080808080808080)) == 0;
}

IQ_FN bool iq_utf8_is_valid(const void *bytes, size_t size) {
    const uint8_t *p = (const uint8_t *)bytes;
    size_t i = 0;
    while (i < size) {
        if (!IQ_SMALL && size - i >= 8 && iq_utf8_is_ascii8(p + i)) {
            i += 8;
            continue;
        }
        /* The last bytes, looked at together with some before them. */
        if (!IQ_SMALL && size - i < 8 && size >= 8 && iq_utf8_is_ascii8(p + size - 8)) return true;
        const size_t step = iq_utf8_step(p + i, size - i);
        if (step == 0) return false;
        i += step;
    }
    return true;
}
