/* Limits: units where there is no clock, a clock that turns over, and cancels. */
#include "api.h"
#include "sys/limit.h"
#include "sys/sys.h"
#include "test.h"

static uint64_t read_number(void *user) { return *(const uint64_t *)user; }

static iqdb_clock clock_of(uint64_t *number) {
    iqdb_clock clock;
    clock.now_fn = number != NULL ? read_number : NULL;
    clock.user = number;
    return clock;
}

static void without_a_clock_units_count(void) {
    iq_limit limit = iq_limit_make(clock_of(NULL), NULL);
    for (int i = 0; i < 10; i++) CHECK(!iq_limit_reached(&limit)); /* no end yet */
    for (uint32_t budget = 0; budget < 20; budget++) {
        uint32_t units = 1;
        iq_limit_end_in(&limit, budget);
        while (!iq_limit_reached(&limit)) units++;
        CHECK_EQ_U64(units, budget == 0 ? 1 : budget);
    }
    iq_limit_end_in(&limit, UINT32_MAX);
    CHECK(!iq_limit_reached(&limit));
    CHECK(!iq_limit_reached(NULL));
}

static void a_clock_may_turn_over(void) {
    static const uint64_t begins[] = {0, 1, UINT64_MAX / 2 - 3, UINT64_MAX - 5, UINT64_MAX - UINT32_MAX, UINT64_MAX};
    for (size_t i = 0; i < IQ_COUNT_OF(begins); i++) {
        uint64_t now = begins[i];
        iq_limit limit = iq_limit_make(clock_of(&now), NULL);
        iq_limit_end_in(&limit, 10);
        CHECK(!iq_limit_reached(&limit));
        now += 9;
        CHECK(!iq_limit_reached(&limit));
        now += 1;
        CHECK(iq_limit_reached(&limit));
        now += UINT32_MAX;
        CHECK(iq_limit_reached(&limit));
        iq_limit_end_in(&limit, UINT32_MAX);
        CHECK(!iq_limit_reached(&limit));
        now += UINT32_MAX - 1;
        CHECK(!iq_limit_reached(&limit));
        now -= 1000000; /* one that goes back ends nothing early */
        CHECK(!iq_limit_reached(&limit));
        now += 1000001;
        CHECK(iq_limit_reached(&limit));
    }
}

static void a_cancel_holds_until_it_is_zeroed(void) {
    iqdb_cancel cancel;
    uint64_t now = 0;
    memset(&cancel, 0, sizeof cancel);
    iq_limit limit = iq_limit_make(clock_of(&now), &cancel);
    CHECK(!iq_limit_is_cancelled(&limit) && !iq_limit_reached(&limit));
    iqdb_cancel_request(&cancel);
    CHECK(iq_limit_is_cancelled(&limit) && iq_limit_reached(&limit) && iq_limit_reached(&limit));
    cancel.requested = 0;
    CHECK(!iq_limit_is_cancelled(&limit) && !iq_limit_reached(&limit));
}

static void the_clock_of_the_system_goes_on(void) {
    const uint64_t begin = iq_sys_clock(NULL);
    uint64_t last = begin;
    while (last < begin + 2000) { /* or the test is ended for hanging */
        const uint64_t now = iq_sys_clock(NULL);
        CHECK(now >= last);
        last = now;
    }
}

TEST_MAIN("sys/limit", TEST(without_a_clock_units_count), TEST(a_clock_may_turn_over),
          TEST(a_cancel_holds_until_it_is_zeroed), TEST(the_clock_of_the_system_goes_on))
