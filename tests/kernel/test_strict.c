/* Square roots are correctly rounded, by the instruction and by integers alike. */
#include "kernel/strict.h"

#include "test.h"

#include "support.h"

#include <math.h>

static bool root_is_right(double value) {
    const double root = iq_sqrt_f64_portable(value);
    volatile double by_library = sqrt(value);
    if (EXPECT(iq_f64_bits(iq_sqrt_f64(value)) == iq_f64_bits(root) && iq_f64_bits(root) == iq_f64_bits(by_library)))
        return true;
    printf(" (root of 0x%016" PRIx64 ")", iq_f64_bits(value));
    return false;
}

static void roots_of_doubles(void) {
    static const uint64_t corners[] = {0,
                                       1,
                                       UINT64_C(0x000FFFFFFFFFFFFF),
                                       UINT64_C(0x0010000000000000),
                                       UINT64_C(0x3FF0000000000000),
                                       UINT64_C(0x3FEFFFFFFFFFFFFF),
                                       UINT64_C(0x4000000000000000),
                                       UINT64_C(0x400FFFFFFFFFFFFF),
                                       UINT64_C(0x7FEFFFFFFFFFFFFF),
                                       UINT64_C(0x7FF0000000000000)};
    uint64_t random = 1;
    for (size_t i = 0; i < IQ_COUNT_OF(corners); i++) CHECK(root_is_right(iq_f64_from_bits(corners[i])));
    for (size_t i = 0; i < support_amount(20000, 300000, 3000000); i++) {
        const uint64_t r = support_random(&random) >> 1;
        if (r >> 52 < 0x7FF) CHECK(root_is_right(iq_f64_from_bits(r)));
        CHECK(root_is_right(iq_f64_from_bits(r >> (12 + i % 52)))); /* subnormal */
        const double root = (double)((r >> 37) + 1); /* squares, and what lies beside them: the hardest to round */
        CHECK(root_is_right(root * root));
        CHECK(root_is_right(iq_f64_from_bits(iq_f64_bits(root * root) + 1)));
        CHECK(root_is_right(iq_f64_from_bits(iq_f64_bits(root * root) - 1)));
    }
}

static void roots_of_floats(void) {
    uint64_t random = 2;
    for (size_t i = 0; i < support_amount(20000, 300000, 3000000); i++) {
        const uint32_t bits = (uint32_t)(support_random(&random) >> 33);
        if (bits > 0x7F800000u) continue;
        volatile float by_library = sqrtf(iq_f32_from_bits(bits));
        CHECK_EQ_F32(iq_sqrt_f32(iq_f32_from_bits(bits)), by_library);
    }
    CHECK_EQ_F32(iq_sqrt_f32(0.0f), 0.0f);
    CHECK_EQ_F32(iq_sqrt_f32(iq_f32_from_bits(0x7F800000u)), iq_f32_from_bits(0x7F800000u));
}

TEST_MAIN("kernel/strict", TEST(roots_of_doubles), TEST(roots_of_floats))
