/* Numbers as text against the C library, which rounds correctly both ways. The wider comparison, with Python, is in
 * test_number.py; this one runs wherever the other tests do. */
#include "codec/number.h"

#include "support.h"
#include "test.h"

#include <float.h>

static double from_bits(uint64_t bits) {
    double value;
    memcpy(&value, &bits, 8);
    return value;
}

static uint64_t to_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, 8);
    return bits;
}

/* What is read of the text; *out_size bytes of it, from memory that ends where it does. */
static iqdb_value read_text(const char *text, size_t *out_size) {
    const size_t size = strlen(text);
    char *exact = (char *)malloc(size + (size == 0));
    iqdb_value value;
    if (exact == NULL) exit(2);
    memcpy(exact, text, size);
    *out_size = iq_number_read(exact, size, &value);
    free(exact);
    return value;
}

static bool reads_as_the_library_does(const char *text) {
    size_t size;
    const iqdb_value value = read_text(text, &size);
    const double expected = strtod(text, NULL);
    const bool beyond = expected - expected != 0;
    bool ok = size == strlen(text);
    if (beyond) return ok && value.type == IQDB_TYPE_ABSENT;
    ok = ok && value.type == IQDB_TYPE_FLOAT && to_bits(value.as.real) == to_bits(expected);
    if (!ok) printf("\n    %.60s: %.17g, expected %.17g", text, value.as.real, expected);
    return ok;
}

static int digits_of(const char *text) {
    int count = 0, zeros = 0;
    for (; *text != 0 && *text != 'e'; text++) {
        if (*text < '0' || *text > '9') continue;
        if (*text == '0' && count == 0) continue;
        zeros = *text == '0' ? zeros + 1 : 0;
        count++;
    }
    return count - zeros;
}

/* It reads as the same bits, has a point or an exponent, and no shorter decimal would do. */
static bool is_written_well(double value) {
    char text[IQ_NUMBER_SIZE_MAX + 1], other[64];
    memset(text, '?', sizeof text);
    const size_t size = iq_number_write_float(value, text);
    if (!EXPECT(size < sizeof text && text[size] == '?')) return false;
    text[size] = 0;
    int digits = value == 0 ? 0 : 1;
    for (; digits > 0 && digits < 17; digits++) {
        snprintf(other, sizeof other, "%.*e", digits - 1, value);
        if (to_bits(strtod(other, NULL)) == to_bits(value)) break;
    }
    const bool ok = to_bits(strtod(text, NULL)) == to_bits(value) && digits_of(text) <= digits &&
                    strpbrk(text, ".e") != NULL && reads_as_the_library_does(text);
    if (!ok) printf("\n    %.17g as %s", value, text);
    return ok;
}

static void how_floats_look(void) {
    static const struct {
        double value;
        const char *text;
    } list[] = {{0.0, "0.0"},
                {-0.0, "-0.0"},
                {1.0, "1.0"},
                {-1.5, "-1.5"},
                {0.1, "0.1"},
                {123456.75, "123456.75"},
                {0.0001, "0.0001"},
                {0.00001, "1e-5"},
                {0.00012345, "0.00012345"},
                {100.0, "100.0"},
                {9007199254740993.0, "9007199254740992.0"},
                {1e16, "1e16"},
                {1e15, "1000000000000000.0"},
                {1.5e300, "1.5e300"},
                {-2.5e-10, "-2.5e-10"},
                {1e23, "1e23"},
                {5e-324, "5e-324"},
                {2.2250738585072014e-308, "2.2250738585072014e-308"},
                {1.7976931348623157e308, "1.7976931348623157e308"}};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        char text[IQ_NUMBER_SIZE_MAX + 1];
        text[iq_number_write_float(list[i].value, text)] = 0;
        CHECK_EQ_STR(text, list[i].text);
        CHECK(is_written_well(list[i].value));
    }
}

static void floats_of_all_sizes(void) {
    uint64_t state = 1;
    for (uint64_t biased = 0; biased < 2047; biased++) {
        static const uint64_t fractions[] = {0, 1, 2, UINT64_C(0xFFFFFFFFFFFFF), UINT64_C(0x8000000000000)};
        for (size_t i = 0; i < 5; i++) CHECK(is_written_well(from_bits(biased << 52 | fractions[i])));
    }
    for (size_t i = 0; i < support_amount(2000, 50000, 500000); i++) {
        uint64_t bits = support_random(&state);
        if ((bits >> 52 & 0x7FF) == 0x7FF) bits ^= UINT64_C(1) << 60;
        CHECK(is_written_well(from_bits(bits)));
        CHECK(is_written_well((double)(support_random(&state) >> 30) / 64)); /* few digits, and exact ones */
    }
    /* Multiples of powers of five and two: the ends of the interval are decimals themselves. */
    for (int shift = 0; shift < 900; shift += 31)
        for (double five = 1; five < 1e15; five *= 5)
            CHECK(is_written_well(five * from_bits((uint64_t)(1023 + shift) << 52)));
}

static void integers(void) {
    static const struct {
        const char *text;
        iqdb_type type;
        int64_t value;
    } list[] = {{"0", IQDB_TYPE_INT, 0},
                {"-0", IQDB_TYPE_INT, 0},
                {"-1", IQDB_TYPE_INT, -1},
                {"9223372036854775807", IQDB_TYPE_INT, INT64_MAX},
                {"9223372036854775808", IQDB_TYPE_ABSENT, 0},
                {"-9223372036854775808", IQDB_TYPE_INT, INT64_MIN},
                {"-9223372036854775809", IQDB_TYPE_ABSENT, 0},
                {"10000000000000000000", IQDB_TYPE_ABSENT, 0},
                {"99999999999999999999", IQDB_TYPE_ABSENT, 0},
                {"100000000000000000000000000000000000000", IQDB_TYPE_ABSENT, 0}};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        char text[IQ_NUMBER_SIZE_MAX + 1];
        size_t size;
        const iqdb_value value = read_text(list[i].text, &size);
        CHECK_EQ_U64(size, strlen(list[i].text));
        CHECK_EQ_INT(value.type, list[i].type);
        if (value.type != IQDB_TYPE_INT) continue;
        CHECK_EQ_INT(value.as.integer, list[i].value);
        text[iq_number_write_int(value.as.integer, text)] = 0;
        CHECK_EQ_STR(text, list[i].value == 0 ? "0" : list[i].text);
    }
}

static void what_is_no_number(void) {
    static const char *const list[] = {"",    "-",    "+1",  ".5",  "-.5",      "a",   "-a", "1.",  "1.e5", "1e", "1e+",
                                       "1E-", "1.5e", "1.x", "1ex", "Infinity", "NaN", "e5", "-e5", " 1",   "--1"};
    size_t size;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        CHECK_EQ_INT(read_text(list[i], &size).type, IQDB_TYPE_ABSENT);
        CHECK_EQ_U64(size, 0);
    }
    CHECK_EQ_INT(read_text("01", &size).as.integer, 0); /* the 1 is not of it */
    CHECK_EQ_U64(size, 1);
    CHECK_EQ_INT(read_text("12]", &size).as.integer, 12);
    CHECK_EQ_U64(size, 2);
    CHECK(read_text("1.5.2", &size).as.real == 1.5);
    CHECK_EQ_U64(size, 3);
    CHECK(read_text("1e5e5", &size).as.real == 1e5);
    CHECK_EQ_U64(size, 3);
}

static void hard_texts(void) {
    static const char *const list[] = {"0e5",
                                       "-0.0",
                                       "0.000",
                                       "0e999999999999",
                                       "1e309",
                                       "1e311",
                                       "-1e400",
                                       "1e99999999999999999999",
                                       "1e-99999999999999999999",
                                       "4.9e-324",
                                       "2.5e-324",
                                       "2.4e-324",
                                       "2.4703282292062327e-324",
                                       "2.4703282292062328e-324",
                                       "1e-340",
                                       "1e-342",
                                       "2.2250738585072011e-308",
                                       "2.2250738585072012e-308",
                                       "1.7976931348623158e308",
                                       "1.7976931348623159e308",
                                       "9007199254740993.0",
                                       "9007199254740993.00000000000000000000000000000000000001",
                                       "9007199254740992.99999999999999999999999999999999999999",
                                       "123456789012345678901234567890e-5",
                                       "0.00000000000000000000000000000000000000000000000001e50",
                                       "1234567890123456789.5",
                                       "1.0e+0"};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) CHECK(reads_as_the_library_does(list[i]));
}

/* The decimals that lie exactly between two doubles, in full, and a little beside. Long doubles hold them. */
static void halfway_texts(void) {
#if LDBL_MANT_DIG > 53
    static char text[2400];
    uint64_t state = 3;
    for (size_t i = 0; i < support_amount(100, 1000, 10000); i++) {
        uint64_t bits = i < 20 ? i : support_random(&state) >> 1;
        if (bits >> 52 >= 0x7FE) bits ^= UINT64_C(1) << 62;
        const long double middle = ((long double)from_bits(bits) + (long double)from_bits(bits + 1)) / 2;
        const int size = snprintf(text, sizeof text, "%.1200Le", middle);
        char *exponent = strchr(text, 'e');
        if (!EXPECT(size > 1200 && exponent != NULL)) return;
        CHECK(reads_as_the_library_does(text));
        exponent[-1] = '1'; /* digit 1,200: the last that is not 0 comes far before it */
        CHECK(reads_as_the_library_does(text));
        exponent[-1] = '0';
        char *last = exponent - 1;
        while (*last == '0') last--;
        if (*last == '.') continue;
        *last = (char)(*last - 1);
        memset(last + 1, '9', (size_t)(exponent - last - 1));
        CHECK(reads_as_the_library_does(text));
        text[2 + 17] = 0; /* and cut short */
        CHECK(reads_as_the_library_does(text));
    }
#else
    TEST_SKIP("a long double is a double here");
#endif
}

static void random_texts(void) {
    uint64_t state = 9;
    for (size_t i = 0; i < support_amount(2000, 50000, 500000); i++) {
        char text[64];
        const uint64_t a = support_random(&state) >> support_random_below(&state, 60), b = support_random(&state);
        const int exponent = (int)support_random_below(&state, 680) - 350;
        snprintf(text, sizeof text, "%llu.%llue%d", (unsigned long long)a, (unsigned long long)b, exponent);
        CHECK(reads_as_the_library_does(text));
    }
}

/* Decimals exactly half-way between two doubles, which read as the even one: the ends of its interval are written. */
static void ends_of_an_interval(void) {
    static const char *const texts[] = {"7e22", "1e23", "9e22", "1.0000000000000001e23"};
    for (size_t i = 0; i < 4; i++) {
        char text[IQ_NUMBER_SIZE_MAX + 1];
        const double value = strtod(texts[i], NULL);
        text[iq_number_write_float(value, text)] = 0;
        CHECK_EQ_INT(strtod(text, NULL) == value, 1);
        CHECK_EQ_INT(digits_of(text), digits_of(texts[i]));
    }
}

TEST_MAIN("codec/number", TEST(ends_of_an_interval), TEST(how_floats_look), TEST(floats_of_all_sizes), TEST(integers),
          TEST(what_is_no_number), TEST(hard_texts), TEST(halfway_texts), TEST(random_texts))
