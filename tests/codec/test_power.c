/* Which powers of ten number.c calls exact. One too many would be seen by no text and no double: none comes near enough
 * to a place where 3 or 5 lost bits decide. So the claim is tested where it is made, against powers of five modulo 2^64,
 * which wrap around by themselves. */
#include "codec/number.c"

#include "test.h"

static void exact_powers(void) {
    uint64_t five = 1;
    for (int exponent = 0; exponent <= 350; exponent++, five *= 5) {
        const iq_power power = iq_power_of_ten(exponent);
        const unsigned bits = (unsigned)(power.shift < 0 ? -power.shift : power.shift);
        uint64_t low;
        if (power.error != 0) {
            CHECK(exponent > 55); /* 5^55 is the last one of 128 bits */
            continue;
        }
        if (power.shift >= 0) {
            low = bits < 64 ? power.low << bits : 0;
        } else if (bits < 64) {
            CHECK(power.low << (64 - bits) == 0);
            low = power.low >> bits | power.high << (64 - bits);
        } else {
            CHECK(power.low == 0 && (bits == 64 || power.high << (128 - bits) == 0));
            low = power.high >> (bits - 64);
        }
        CHECK(low == five);
    }
}

static void no_other_power_is_exact(void) {
    for (int exponent = -378; exponent < 0; exponent++) CHECK(iq_power_of_ten(exponent).error != 0);
}

TEST_MAIN("codec/power", TEST(exact_powers), TEST(no_other_power_is_exact))
