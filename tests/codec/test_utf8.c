/* iq_utf8_is_valid against a decoder that works the other way round: it takes the bits of a character out by its lead
 * byte alone, then asks whether encoding the number gives those bytes back and whether the number is a character. */
#include "codec/utf8.h"
#include "support.h"
#include "test.h"

static bool model_is_valid(const uint8_t *p, size_t size) {
    for (size_t i = 0; i < size;) {
        size_t more = 0;
        uint32_t code = p[i];
        if ((p[i] & 0xE0) == 0xC0)
            more = 1, code &= 0x1F;
        else if ((p[i] & 0xF0) == 0xE0)
            more = 2, code &= 0x0F;
        else if ((p[i] & 0xF8) == 0xF0)
            more = 3, code &= 0x07;
        else if (p[i] >= 0x80)
            return false;
        if (more > size - i - 1) return false;
        for (size_t k = 1; k <= more; k++) {
            if (p[i + k] / 64 != 2) return false;
            code = code * 64 + p[i + k] % 64;
        }
        const size_t shortest = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        if (shortest != more || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return false;
        i += more + 1;
    }
    return true;
}

static bool agrees(const uint8_t *p, size_t size) {
    if (iq_utf8_is_valid(p, size) == model_is_valid(p, size)) return true;
    printf("\n    %zu bytes: %02x %02x %02x %02x", size, p[0], p[1], p[2], p[3]);
    return false;
}

static void every_one_to_three_bytes(void) {
    uint8_t p[4] = {0, 0, 0, 0};
    const bool quick = support_amount(1, 0, 0) == 1; /* third bytes x0 and xF only */
    CHECK(iq_utf8_is_valid(p, 0));
    CHECK(iq_utf8_is_valid(NULL, 0));
    for (uint32_t n = 0; n < 0x1000000; n++) {
        if (quick && ((n + 1) & 0xE) != 0) continue;
        p[0] = (uint8_t)(n >> 16);
        p[1] = (uint8_t)(n >> 8);
        p[2] = (uint8_t)n;
        for (size_t size = 1; size <= 3; size++)
            if (!agrees(p, size)) CHECK(false);
    }
}

/* All four-byte sequences in the long tier, else each byte from a list of edges. */
static void four_bytes(void) {
    static const uint8_t edges[] = {0x00, 0x01, 0x7E, 0x7F, 0x80, 0x81, 0x8F, 0x90, 0x9F, 0xA0, 0xBE, 0xBF,
                                    0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5, 0xF8, 0xFF};
    const bool all = support_amount(0, 0, 1) == 1;
    const size_t count = all ? 256 : sizeof edges;
    uint8_t p[4];
    for (int lead = 0xE0; lead < 0x100; lead++)
        for (size_t i = 0; i < count; i++)
            for (size_t j = 0; j < count; j++)
                for (size_t k = 0; k < count; k++) {
                    p[0] = (uint8_t)lead;
                    p[1] = all ? (uint8_t)i : edges[i];
                    p[2] = all ? (uint8_t)j : edges[j];
                    p[3] = all ? (uint8_t)k : edges[k];
                    if (!agrees(p, 4)) CHECK(false);
                }
    CHECK(true);
}

/* Characters at every place relative to the eight-byte steps, whole and cut off. The block is exactly as long as the
 * text, so a tool sees a read beyond it. */
static void every_place_and_cut(void) {
    static const char *const characters[] = {"\xC2\x80",
                                             "\xE0\xA0\x80",
                                             "\xED\x9F\xBF",
                                             "\xEE\x80\x80",
                                             "\xF0\x90\x80\x80",
                                             "\xF4\x8F\xBF\xBF",
                                             "\xED\xA0\x80",
                                             "\xF4\x90\x80\x80",
                                             "\xC0\x80",
                                             "\x80",
                                             "\xFF"};
    for (size_t c = 0; c < sizeof characters / sizeof characters[0]; c++)
        for (size_t before = 0; before < 20; before++)
            for (size_t after = 0; after < 12; after++)
                for (size_t keep = 0; keep <= strlen(characters[c]); keep++) {
                    const size_t size = before + keep + after;
                    uint8_t *text = (uint8_t *)malloc(size + (size == 0));
                    CHECK(text != NULL);
                    memset(text, 'x', size);
                    memcpy(text + before, characters[c], keep);
                    const bool same = iq_utf8_is_valid(text, size) == model_is_valid(text, size);
                    free(text);
                    CHECK(same);
                }
}

TEST_MAIN("codec/utf8", TEST(every_one_to_three_bytes), TEST(four_bytes), TEST(every_place_and_cut))
