/* Numbers to text and back, with integers only: no floating-point operation, no locale, no libc.
 *
 * Both directions ask one question: floor(x * 2^a * 10^b), and is there a rest? Reading asks for the 54 leading bits of
 * the decimal, writing for the decimals at both ends of the interval that rounds to the double. Big integers answer it
 * exactly (Clinger, "How to Read Floating Point Numbers Accurately", PLDI 1990). They are divided by powers of two and
 * five alone, a word of them at a time: floor(floor(x / m) / n) = floor(x / mn), so there is no long division. Products
 * with 128 bits of the power (Lemire, "Number Parsing at a Gigabyte per Second", 2021; Adams, "Ryu", PLDI 2018) are
 * faster where exponents are large, but want a table and another way for what they leave open; numbers that people and
 * programs write mostly have small exponents, and then three or four words are all there is.
 *
 * 1. The shortest decimal: that of the interval with the fewest digits, of several the closest to the double, of two the
 *    even one (Giulietti, "The Schubfach way to render doubles", 2020, chapters 8 and 9).
 * 2. A decimal of more than 800 digits is cut there and a 1 appended in place of a rest: halfway points between doubles
 *    have at most 767 digits, so the comparison with one has the same outcome. */
#include "codec/number.h"

#if !defined(IQDB_NO_TEXT)

IQ_FN void iq_text_put(iq_text_sink *sink, const char *text, size_t size) {
    if (sink->text != NULL && size > 0) memcpy(sink->text + sink->size, text, size);
    sink->size += size;
}

IQ_FN void iq_text_put_hex(iq_text_sink *sink, const uint8_t *bytes, size_t size) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size; i++) {
        const char pair[2] = {digits[bytes[i] >> 4], digits[bytes[i] & 15]};
        iq_text_put(sink, pair, 2);
    }
}

/* ---- Big integers ----
 * None has more than 2,800 bits: 801 digits take 2,661, and what 5^1141, of 2,650 bits, divides leaves 64 at most. */

#define IQ_BIG_LIMBS 88u
#define IQ_NUMBER_DIGITS_MAX 800u

typedef struct iq_big {
    uint32_t limbs[IQ_BIG_LIMBS]; /* the least first */
    size_t count;                 /* the last one is not 0 */
} iq_big;

static void iq_big_set(iq_big *big, uint64_t value) {
    big->limbs[0] = (uint32_t)value;
    big->limbs[1] = (uint32_t)(value >> 32);
    big->count = big->limbs[1] != 0 ? 2 : big->limbs[0] != 0 ? 1 : 0;
}

/* big * factor + more */
static void iq_big_multiply(iq_big *big, uint32_t factor, uint32_t more) {
    uint64_t carry = more;
    for (size_t i = 0; i < big->count; i++) {
        carry += (uint64_t)big->limbs[i] * factor;
        big->limbs[i] = (uint32_t)carry;
        carry >>= 32;
    }
    IQ_ASSERT(carry == 0 || big->count < IQ_BIG_LIMBS);
    if (carry != 0) big->limbs[big->count++] = (uint32_t)carry;
}

/* floor(big / divisor); whether there is a rest. */
static bool iq_big_divide(iq_big *big, uint32_t divisor) {
    uint64_t rest = 0;
    for (size_t i = big->count; i-- > 0;) {
        rest = rest << 32 | big->limbs[i];
        big->limbs[i] = (uint32_t)(rest / divisor);
        rest %= divisor;
    }
    while (big->count > 0 && big->limbs[big->count - 1] == 0) big->count--;
    return rest != 0;
}

/* floor(big * base^exponent); whether there is a rest. */
static bool iq_big_scale(iq_big *big, uint32_t base, int exponent) {
    bool rest = false;
    for (int left = exponent < 0 ? -exponent : exponent; left > 0;) {
        uint32_t factor = 1;
        for (; left > 0 && factor < (uint32_t)1 << 28; left--) factor *= base; /* up to 2^28 or 5^13 */
        if (exponent > 0)
            iq_big_multiply(big, factor, 0);
        else
            rest = iq_big_divide(big, factor) || rest;
    }
    return rest;
}

/* floor(big * 2^two * 10^ten), which has 64 bits at most; *out_rest: whether there is a rest. Uses `big` up. */
static uint64_t iq_big_floor(iq_big *big, int two, int ten, bool *out_rest) {
    uint64_t floor = 0;
    two += ten;
    (void)iq_big_scale(big, 2, two > 0 ? two : 0);
    *out_rest = iq_big_scale(big, 5, ten);
    for (size_t i = 0; i < big->count; i++) {
        const int place = 32 * (int)i + (two < 0 ? two : 0); /* of the limb's lowest bit */
        const uint64_t limb = big->limbs[i];
        const int below = place >= 0 ? 0 : place > -32 ? -place : 32;
        floor |= place >= 0 ? limb << place : limb >> below;
        *out_rest = *out_rest || (below > 0 && limb << (64 - below) != 0);
    }
    return floor;
}

/* floor(value / 2^bits) also below zero, where C leaves >> open. */
static int iq_floor_shift(int32_t value, unsigned bits) {
    return value >= 0 ? (int)(value >> bits) : -(int)((-value + ((int32_t)1 << bits) - 1) >> bits);
}

/* ---- Writing ---- */

static size_t iq_number_write_digits(uint64_t value, char *out) {
    char reversed[20];
    size_t count = 0;
    do {
        reversed[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    for (size_t i = 0; i < count; i++) out[i] = reversed[count - 1 - i];
    return count;
}

IQ_FN size_t iq_number_write_int(int64_t value, char *out) {
    if (value >= 0) return iq_number_write_digits((uint64_t)value, out);
    out[0] = '-';
    return 1 + iq_number_write_digits(~(uint64_t)value + 1, out + 1);
}

/* One end of the interval of decimals that read as the double. */
typedef struct iq_bound {
    uint64_t floor;
    bool rest;
    bool is_inside; /* the end itself, where it is an integer */
} iq_bound;

static bool iq_is_between(const iq_bound *low, const iq_bound *high, uint64_t n) {
    if (n < low->floor || (n == low->floor && (low->rest || !low->is_inside))) return false;
    return n < high->floor || (n == high->floor && (high->rest || high->is_inside));
}

static uint64_t iq_number_floor(uint64_t x, int two, int ten, bool *out_rest) {
    iq_big big;
    iq_big_set(&big, x);
    return iq_big_floor(&big, two, ten, out_rest);
}

/* The shortest decimal digits * 10^*out_exponent of a positive double. */
static uint64_t iq_number_shortest(uint64_t bits, int *out_exponent) {
    const uint64_t fraction = bits & UINT64_C(0xFFFFFFFFFFFFF);
    const int biased = (int)(bits >> 52 & 0x7FF);
    const uint64_t c = biased == 0 ? fraction : fraction | UINT64_C(1) << 52;
    const int q = biased == 0 ? -1074 : biased - 1075;
    /* The double below a power of two is half as far away as the one above. */
    const bool is_narrow = fraction == 0 && biased > 1;
    const int k = iq_floor_shift(is_narrow ? q * 315653 - 131237 : q * 315653, 20); /* floor(log10(the interval)) */
    iq_bound low, high;
    bool rest;
    low.is_inside = high.is_inside = (c & 1) == 0;
    low.floor = iq_number_floor(4 * c - (is_narrow ? 1 : 2), q - 2, -k, &low.rest);
    high.floor = iq_number_floor(4 * c + 2, q - 2, -k, &high.rest);
    const uint64_t twice = iq_number_floor(8 * c, q - 2, -k, &rest);
    const uint64_t below = twice / 2, tens = below / 10;
    *out_exponent = k + 1;
    if (iq_is_between(&low, &high, tens * 10)) return tens;
    if (iq_is_between(&low, &high, tens * 10 + 10)) return tens + 1;
    *out_exponent = k;
    if (!iq_is_between(&low, &high, below)) return below + 1;
    if (!iq_is_between(&low, &high, below + 1)) return below;
    const bool is_half = (twice & 1) != 0 && !rest;
    return is_half ? below + (below & 1) : below + (twice & 1);
}

IQ_FN size_t iq_number_write_float(double value, char *out) {
    const uint64_t bits = iq_f64_bits(value);
    char digits[20];
    size_t size = 0;
    int exponent = 0;
    if (bits >> 63 != 0) out[size++] = '-';
    uint64_t decimal = bits << 1 == 0 ? 0 : iq_number_shortest(bits & ~(UINT64_C(1) << 63), &exponent);
    for (; decimal != 0 && decimal % 10 == 0; exponent++) decimal /= 10;
    const int count = (int)iq_number_write_digits(decimal, digits);
    const int point = decimal == 0 ? 1 : count + exponent; /* digits before the point */
    if (point < -3 || point > 16) {
        out[size++] = digits[0];
        if (count > 1) {
            out[size++] = '.';
            memcpy(out + size, digits + 1, (size_t)count - 1);
            size += (size_t)count - 1;
        }
        out[size++] = 'e';
        return size + iq_number_write_int(point - 1, out + size);
    }
    for (int i = point < 1 ? point - 1 : 0; i < count || i < point + 1; i++) {
        if (i == point) out[size++] = '.';
        out[size++] = i >= 0 && i < count ? digits[i] : '0';
    }
    return size;
}

/* ---- Reading ---- */

IQ_FN int iq_hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

typedef struct iq_decimal {
    uint64_t first;   /* the first 19 digits as a number */
    size_t count;     /* of digits in it, from the first that is not 0 */
    const char *more; /* NULL, or where the digits behind them begin */
    const char *end;  /* of the digits; a point may stand among them */
    int64_t exponent; /* the value is first.more * 10^exponent */
} iq_decimal;

static bool iq_is_digit(char c) { return c >= '0' && c <= '9'; }

/* Takes in the digit at p. */
static void iq_decimal_add(iq_decimal *decimal, const char *p, bool behind_point) {
    if (decimal->count == 19) {
        if (decimal->more == NULL) decimal->more = p;
        decimal->exponent += !behind_point;
        return;
    }
    decimal->exponent -= behind_point;
    decimal->count += *p != '0' || decimal->count > 0;
    decimal->first = decimal->first * 10 + (uint64_t)(*p - '0');
}

/* Whether a number of the grammar stands at *text, which moves behind its digits; a point may stand among them. */
static bool iq_decimal_scan(iq_decimal *decimal, const char **text, const char *end, bool *out_has_point) {
    const char *p = *text, *const integer_end = p < end && *p == '0' ? p + 1 : end;
    for (; p < integer_end && iq_is_digit(*p); p++) iq_decimal_add(decimal, p, false);
    if (p == *text) return false;
    *out_has_point = p < end && *p == '.';
    if (*out_has_point) {
        const char *point = p++;
        for (; p < end && iq_is_digit(*p); p++) iq_decimal_add(decimal, p, true);
        if (p == point + 1) return false;
    }
    *text = decimal->end = p;
    return true;
}

/* The exponent at *text, 0 where there is none; false where there is half a one. */
static bool iq_number_scan_exponent(const char **text, const char *end, bool *out_found, int64_t *out_exponent) {
    const char *p = *text;
    *out_exponent = 0;
    *out_found = p < end && (*p == 'e' || *p == 'E');
    if (!*out_found) return true;
    p++;
    const bool negative = p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+')) p++;
    if (p == end || !iq_is_digit(*p)) return false;
    for (; p < end && iq_is_digit(*p); p++)
        if (*out_exponent < ((int64_t)1 << 40)) *out_exponent = *out_exponent * 10 + (*p - '0');
    if (negative) *out_exponent = -*out_exponent;
    *text = p;
    return true;
}

/* All digits as one integer; the value is *out * 10^result. */
static int iq_decimal_load(const iq_decimal *decimal, iq_big *out) {
    int exponent = (int)decimal->exponent;
    size_t count = decimal->count;
    iq_big_set(out, decimal->first);
    for (const char *p = decimal->more; p != NULL && p < decimal->end && count <= IQ_NUMBER_DIGITS_MAX; p++) {
        if (*p == '.' || (*p == '0' && count == IQ_NUMBER_DIGITS_MAX)) continue;
        iq_big_multiply(out, 10, count == IQ_NUMBER_DIGITS_MAX ? 1 : (uint32_t)(*p - '0'));
        exponent--;
        count++;
    }
    return exponent;
}

/* The bits of the double nearest to a decimal that is not 0; those of infinity, or more, beyond the range. */
static uint64_t iq_decimal_round(const iq_decimal *decimal) {
    const int64_t point = decimal->exponent + (int64_t)decimal->count; /* 10^(point - 1) <= the value < 10^point */
    if (point > 310) return UINT64_C(0x7FF0000000000000);
    if (point < -340) return 0;
    iq_big big;
    bool rest;
    const int ten = iq_decimal_load(decimal, &big);
    /* The value is at least 2^two and less than 2^(two + 2), by floor(log2(5^ten)) for |ten| <= 1200. Half of its last
     * bit is 2^half. */
    const int bits = 32 * (int)big.count - 32 + (int)iq_log2_u32(big.limbs[big.count - 1]);
    const int two = bits + iq_floor_shift(ten * 1217359, 19) + ten;
    int half = two - 53 < -1075 ? -1075 : two - 53;
    uint64_t halves = iq_big_floor(&big, -half, ten, &rest);
    if (halves >> 54 != 0) {
        rest = rest || (halves & 1) != 0;
        halves >>= 1;
        half++;
    }
    uint64_t mantissa = halves >> 1;
    mantissa += (halves & 1) != 0 && (rest || (mantissa & 1) != 0);
    /* The leading bit of the mantissa, where it has all 53, counts as one more in the exponent; so does a carry. */
    return ((uint64_t)(half + 1075) << 52) + mantissa;
}

IQ_FN size_t iq_number_read(const char *text, size_t size, iqdb_value *out_value) {
    const char *p = text, *end = text + size;
    iq_decimal decimal;
    bool has_point, has_exponent;
    int64_t exponent;
    memset(&decimal, 0, sizeof decimal);
    memset(out_value, 0, sizeof *out_value);
    out_value->type = IQDB_TYPE_ABSENT;
    const bool negative = p < end && *p == '-';
    if (negative) p++;
    if (!iq_decimal_scan(&decimal, &p, end, &has_point)) return 0;
    if (!iq_number_scan_exponent(&p, end, &has_exponent, &exponent)) return 0;
    if (!has_point && !has_exponent) {
        const uint64_t limit = (uint64_t)INT64_MAX + negative;
        if (decimal.more != NULL || decimal.first > limit) return (size_t)(p - text);
        out_value->type = IQDB_TYPE_INT;
        /* -1 - (n - 1): the least number has no counterpart. */
        out_value->as.integer =
            negative && decimal.first > 0 ? -1 - (int64_t)(decimal.first - 1) : (int64_t)decimal.first;
        return (size_t)(p - text);
    }
    decimal.exponent += exponent;
    uint64_t bits = decimal.first == 0 ? 0 : iq_decimal_round(&decimal);
    if (bits >= UINT64_C(0x7FF0000000000000)) return (size_t)(p - text);
    bits |= (uint64_t)negative << 63;
    out_value->type = IQDB_TYPE_FLOAT;
    memcpy(&out_value->as.real, &bits, 8);
    return (size_t)(p - text);
}

#endif
