/* Numbers to text and back, with integers only: no floating-point operation, no locale, no libc.
 *
 * Both directions ask one question: floor(x * 2^a * 10^b), and is there a rest? Reading asks for the 54 leading bits of
 * the decimal, writing for the decimals at both ends of the interval that rounds to the double. It is answered by a
 * product of x with 128 bits of 5^b (Lemire, "Number Parsing at a Gigabyte per Second", 2021; Adams, "Ryu", PLDI 2018)
 * and by interval arithmetic: the error of the power is known, and where an integer lies within it, big integers decide
 * (Clinger, "How to Read Floating Point Numbers Accurately", PLDI 1990). So nothing hangs on a proof about the table:
 * a coarser one would be slower, not wrong.
 *
 * 1. Powers of five are kept for each 27th exponent, floor(5^27n / 2^e) with 128 bits; the others are products. A power
 *    is at most IQ_POWER_ERROR units of its last bit too small, and never too great. Up to 5^55 it is exact.
 * 2. The shortest decimal: that of the interval with the fewest digits, of several the closest to the double, of two the
 *    even one (Giulietti, "The Schubfach way to render doubles", 2020, chapters 8 and 9).
 * 3. A decimal of more than 800 digits is cut there and a 1 appended in place of a rest: halfway points between doubles
 *    have at most 767 digits, so the comparison with one has the same outcome. */
#include "codec/number.h"

#if !defined(IQDB_NO_TEXT)

/* ---- Powers of five ---- */

#define IQ_POWER_STEP 27
#define IQ_POWER_FIRST (-378)
#define IQ_POWER_ERROR 3u

static const uint64_t iq_power_table[27][2] = {
    {UINT64_C(0x9ECFFC31D586ABC0), UINT64_C(0x9AC0936257D9C76C)}, /* 5^-378 */
    {UINT64_C(0x8049A4AC0C5811AE), UINT64_C(0x205B896D777D6278)}, /* 5^-351 and so on */
    {UINT64_C(0xCF42894A5DCE35EA), UINT64_C(0x52064CAC828675B9)},
    {UINT64_C(0xA76C582338ED2621), UINT64_C(0xAF2AF2B80AF6F24E)},
    {UINT64_C(0x873E4F75E2224E68), UINT64_C(0x5A7744A6E804A291)},
    {UINT64_C(0xDA7F5BF590966848), UINT64_C(0xAF39A475506A899E)},
    {UINT64_C(0xB080392CC4349DEC), UINT64_C(0xBD8D794D96AACFB3)},
    {UINT64_C(0x8E938662882AF53E), UINT64_C(0x547EB47B7282EE9C)},
    {UINT64_C(0xE65829B3046B0AFA), UINT64_C(0x0CB4A5A3112A5112)},
    {UINT64_C(0xBA121A4650E4DDEB), UINT64_C(0x92F34D62616CE413)},
    {UINT64_C(0x964E858C91BA2655), UINT64_C(0x3A6A07F8D510F86F)},
    {UINT64_C(0xF2D56790AB41C2A2), UINT64_C(0xFAE27299423FB9C3)},
    {UINT64_C(0xC428D05AA4751E4C), UINT64_C(0xAA97E14C3C26B886)},
    {UINT64_C(0x9E74D1B791E07E48), UINT64_C(0x775EA264CF55347D)},
    {UINT64_C(0x8000000000000000), UINT64_C(0x0000000000000000)}, /* 5^0 */
    {UINT64_C(0xCECB8F27F4200F3A), UINT64_C(0x0000000000000000)},
    {UINT64_C(0xA70C3C40A64E6C51), UINT64_C(0x999090B65F67D924)},
    {UINT64_C(0x86F0AC99B4E8DAFD), UINT64_C(0x69A028BB3DED71A3)},
    {UINT64_C(0xDA01EE641A708DE9), UINT64_C(0xE80E6F4820CC9495)},
    {UINT64_C(0xB01AE745B101E9E4), UINT64_C(0x5EC05DCFF72E7F8F)},
    {UINT64_C(0x8E41ADE9FBEBC27D), UINT64_C(0x14588F13BE847307)},
    {UINT64_C(0xE5D3EF282A242E81), UINT64_C(0x8F1668C8A86DA5FA)},
    {UINT64_C(0xB9A74A0637CE2EE1), UINT64_C(0x6D953E2BD7173692)},
    {UINT64_C(0x95F83D0A1FB69CD9), UINT64_C(0x4ABDAF101564F98E)},
    {UINT64_C(0xF24A01A73CF2DCCF), UINT64_C(0xBC633B39673C8CEC)},
    {UINT64_C(0xC3B8358109E84F07), UINT64_C(0x0A862F80EC4700C8)},
    {UINT64_C(0x9E19DB92B4E31BA9), UINT64_C(0x6C07A2C26A8346D1)}, /* 5^324 */
};

typedef struct iq_power {
    int exponent; /* of ten */
    int shift;    /* 5^exponent is (high * 2^64 + low) * 2^shift, or up to `error` units more */
    uint64_t high, low;
    uint32_t error;
} iq_power;

/* Of a number that is not 0. */
static unsigned iq_leading_zeros(uint64_t x) {
    return x >> 32 != 0 ? 31 - iq_log2_u32((uint32_t)(x >> 32)) : 63 - iq_log2_u32((uint32_t)x);
}

static uint64_t iq_multiply(uint64_t a, uint64_t b, uint64_t *out_high) {
    const uint64_t a0 = a & 0xFFFFFFFFu, a1 = a >> 32, b0 = b & 0xFFFFFFFFu, b1 = b >> 32;
    const uint64_t low = a0 * b0, cross = a1 * b0 + (low >> 32), middle = a0 * b1 + (cross & 0xFFFFFFFFu);
    *out_high = a1 * b1 + (cross >> 32) + (middle >> 32);
    return (middle << 32) | (low & 0xFFFFFFFFu);
}

/* factor * (high * 2^64 + low), the least word first. */
static void iq_multiply_wide(uint64_t factor, uint64_t high, uint64_t low, uint64_t out[3]) {
    uint64_t carry;
    out[0] = iq_multiply(factor, low, &carry);
    out[1] = iq_multiply(factor, high, &out[2]) + carry;
    out[2] += out[1] < carry;
}

/* floor(value / 2^bits) also below zero, where C leaves >> open. */
static int iq_floor_shift(int32_t value, unsigned bits) {
    return value >= 0 ? (int)(value >> bits) : -(int)((-value + ((int32_t)1 << bits) - 1) >> bits);
}

/* floor(log2(5^q)) for |q| < 400 */
static int iq_log2_of_power(int q) {
    return iq_floor_shift(q * 1217359, 19);
}

/* 10^exponent, for exponents of -378 to 350. */
static iq_power iq_power_of_ten(int exponent) {
    const int which = (exponent - IQ_POWER_FIRST) / IQ_POWER_STEP;
    const int more = (exponent - IQ_POWER_FIRST) % IQ_POWER_STEP;
    const uint64_t *base = iq_power_table[which];
    uint64_t factor = 1, product[3];
    for (int i = 0; i < more; i++) factor *= 5;
    factor <<= iq_leading_zeros(factor);
    iq_multiply_wide(factor, base[0], base[1], product);
    iq_power power;
    power.exponent = exponent;
    power.shift = iq_log2_of_power(exponent) - 127;
    power.high = product[2];
    power.low = product[1];
    if (product[2] >> 63 == 0) {
        power.high = product[2] << 1 | product[1] >> 63;
        power.low = product[1] << 1 | product[0] >> 63;
    }
    power.error = exponent >= 0 && exponent <= 55 ? 0 : IQ_POWER_ERROR;
    return power;
}

/* ---- Big integers, for the cases that 128 bits leave open ----
 * None has more than 2,900 bits: 801 digits take 2,661, a power of five below 5^-1147 as many, and both sides of a
 * comparison are about equal, 64 bits aside. */

#define IQ_BIG_LIMBS 112u
#define IQ_NUMBER_DIGITS_MAX 800u

typedef struct iq_big {
    uint32_t limbs[IQ_BIG_LIMBS]; /* the least first */
    size_t count;                 /* the last one is not 0 */
} iq_big;

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

static void iq_big_set(iq_big *big, uint64_t value) {
    big->limbs[0] = (uint32_t)value;
    big->limbs[1] = (uint32_t)(value >> 32);
    big->count = big->limbs[1] != 0 ? 2 : big->limbs[0] != 0 ? 1 : 0;
}

static void iq_big_multiply_by_five(iq_big *big, unsigned times) {
    for (; times >= 13; times -= 13) iq_big_multiply(big, 1220703125u, 0);
    for (; times > 0; times--) iq_big_multiply(big, 5, 0);
}

static void iq_big_shift(iq_big *big, unsigned bits) {
    const size_t limbs = bits / 32;
    iq_big_multiply(big, (uint32_t)1 << bits % 32, 0);
    IQ_ASSERT(big->count + limbs <= IQ_BIG_LIMBS);
    memmove(big->limbs + limbs, big->limbs, big->count * sizeof big->limbs[0]);
    memset(big->limbs, 0, limbs * sizeof big->limbs[0]);
    big->count = big->count == 0 ? 0 : big->count + limbs;
}

static int iq_big_compare(const iq_big *a, const iq_big *b) {
    if (a->count != b->count) return a->count < b->count ? -1 : 1;
    for (size_t i = a->count; i-- > 0;)
        if (a->limbs[i] != b->limbs[i]) return a->limbs[i] < b->limbs[i] ? -1 : 1;
    return 0;
}

/* The sign of big * 2^two * 10^ten - n; `big` is used up. */
static int iq_big_compare_scaled(iq_big *big, int two, int ten, uint64_t n) {
    iq_big other;
    iq_big_set(&other, n);
    iq_big_multiply_by_five(ten >= 0 ? big : &other, (unsigned)(ten >= 0 ? ten : -ten));
    two += ten;
    iq_big_shift(two >= 0 ? big : &other, (unsigned)(two >= 0 ? two : -two));
    return iq_big_compare(big, &other);
}

/* ---- The question ---- */

/* floor(product / 2^shift), which fits, for a shift of 65 or more; *out_rest: whether bits are lost. */
static uint64_t iq_product_shift(const uint64_t product[3], int shift, bool *out_rest) {
    if (shift >= 192) {
        *out_rest = true;
        return 0;
    }
    if (shift < 128) {
        *out_rest = (product[1] & (((uint64_t)1 << (shift - 64)) - 1)) != 0 || product[0] != 0;
        return product[2] << (128 - shift) | product[1] >> (shift - 64);
    }
    *out_rest = (product[2] & (((uint64_t)1 << (shift - 128)) - 1)) != 0 || product[1] != 0 || product[0] != 0;
    return product[2] >> (shift - 128);
}

/* floor(x * 2^two * power), with x > 0 and the result below 2^62; *out_rest: whether x * 2^two * power is more. */
static uint64_t iq_scale(uint64_t x, int two, const iq_power *power, bool *out_rest) {
    const int shift = -(power->shift + power->exponent + two);
    uint64_t product[3], error_high;
    iq_multiply_wide(x, power->high, power->low, product);
    const uint64_t floor_low = iq_product_shift(product, shift, out_rest);
    if (power->error == 0) return floor_low;
    *out_rest = true; /* more than what the product says, and less than what follows */
    const uint64_t error_low = iq_multiply(x, power->error, &error_high);
    product[0] += error_low;
    error_high += product[0] < error_low;
    product[1] += error_high;
    product[2] += product[1] < error_high;
    bool unused;
    const uint64_t floor_high = iq_product_shift(product, shift, &unused);
    if (floor_high == floor_low) return floor_low;
    iq_big big;
    iq_big_set(&big, x);
    const int order = iq_big_compare_scaled(&big, two, power->exponent, floor_high);
    *out_rest = order != 0;
    return order < 0 ? floor_high - 1 : floor_high;
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

/* The shortest decimal digits * 10^*out_exponent of a positive double. */
static uint64_t iq_number_shortest(uint64_t bits, int *out_exponent) {
    const uint64_t fraction = bits & UINT64_C(0xFFFFFFFFFFFFF);
    const int biased = (int)(bits >> 52 & 0x7FF);
    const uint64_t c = biased == 0 ? fraction : fraction | UINT64_C(1) << 52;
    const int q = biased == 0 ? -1074 : biased - 1075;
    /* The double below a power of two is half as far away as the one above. */
    const bool is_narrow = fraction == 0 && biased > 1;
    const int k = iq_floor_shift(is_narrow ? q * 315653 - 131237 : q * 315653, 20); /* floor(log10(the interval)) */
    const iq_power power = iq_power_of_ten(-k);
    iq_bound low, high;
    bool rest;
    low.is_inside = high.is_inside = (c & 1) == 0;
    low.floor = iq_scale(4 * c - (is_narrow ? 1 : 2), q - 2, &power, &low.rest);
    high.floor = iq_scale(4 * c + 2, q - 2, &power, &high.rest);
    const uint64_t twice = iq_scale(8 * c, q - 2, &power, &rest);
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
    const char *digits; /* from the first that is not 0 */
    const char *end;    /* of the digits; a point may stand among them */
    uint64_t first;     /* the first 19 as a number */
    size_t count;       /* of digits in it */
    bool is_cut;        /* digits behind them are not all 0 */
    int64_t exponent;   /* the value is first.rest * 10^exponent */
} iq_decimal;

static bool iq_is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Takes in the digit at p. */
static void iq_decimal_add(iq_decimal *decimal, const char *p, bool behind_point) {
    if (decimal->count == 19) {
        decimal->is_cut = decimal->is_cut || *p != '0';
        decimal->exponent += !behind_point;
        return;
    }
    decimal->exponent -= behind_point;
    if (decimal->count == 0) decimal->digits = p;
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

/* The sign of the whole decimal * 2^two - n. */
static int iq_decimal_compare(const iq_decimal *decimal, int two, uint64_t n) {
    iq_big big;
    size_t taken = 0;
    bool rest = false;
    big.count = 0;
    for (const char *p = decimal->digits; p < decimal->end; p++) {
        if (*p == '.') continue;
        if (taken < IQ_NUMBER_DIGITS_MAX) {
            iq_big_multiply(&big, 10, (uint32_t)(*p - '0'));
            taken++;
        } else if (*p != '0') {
            rest = true;
            break;
        }
    }
    if (rest) {
        iq_big_multiply(&big, 10, 1);
        taken++;
    }
    return iq_big_compare_scaled(&big, two, (int)(decimal->exponent + (int64_t)decimal->count - (int64_t)taken), n);
}

/* The bits of the double nearest to a decimal that is not 0; those of infinity, or more, beyond the range. */
static uint64_t iq_decimal_round(const iq_decimal *decimal) {
    const int64_t point = decimal->exponent + (int64_t)decimal->count; /* 10^(point - 1) <= the value < 10^point */
    if (point > 310) return UINT64_C(0x7FF0000000000000);
    if (point < -340) return 0;
    const iq_power power = iq_power_of_ten((int)decimal->exponent);
    /* The value has this exponent, or one more. Half of its last bit is 2^half. */
    const int two = 63 - (int)iq_leading_zeros(decimal->first) + iq_log2_of_power(power.exponent) + power.exponent;
    int half = two - 53 < -1075 ? -1075 : two - 53;
    bool rest;
    uint64_t halves = iq_scale(decimal->first, -half, &power, &rest);
    if (decimal->is_cut) {
        bool rest_above;
        const uint64_t above = iq_scale(decimal->first + 1, -half, &power, &rest_above);
        rest = true;
        /* 19 digits are more than 54 bits: `above` is `halves` or one more. */
        if (above != halves && rest_above) {
            const int order = iq_decimal_compare(decimal, -half, above);
            rest = order != 0;
            halves = order < 0 ? above - 1 : above;
        }
    }
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
        if (decimal.exponent != 0 || decimal.first > limit) return (size_t)(p - text);
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
