/* Compiled filters: what each operator means, what is refused, and that limits hold. The comparison with another
 * evaluator is in test_filter.py. */
#include "store/filter.h"

#include "support.h"
#include "test.h"

/* ---- Programs ---- */

static const char *refusal(iqdb_filter filter) {
    iq_filter_layout layout;
    return iq_filter_measure(&filter, &layout);
}

/* Decides about one payload. The memory is of the size that was measured, and the filter is gone by then. */
static bool holds(iqdb_filter filter, iqdb_payload payload) {
    iq_filter_layout layout;
    iq_filter program;
    const char *why = iq_filter_measure(&filter, &layout);
    if (!EXPECT(why == NULL)) return false;
    void *memory = malloc(layout.size_bytes);
    if (memory == NULL) exit(2);
    iq_filter_compile(&filter, &layout, memory, &program);
    memset(&filter, 0xDD, sizeof filter);
    const bool held = iq_filter_accepts(&program, payload);
    EXPECT(held == iq_filter_accepts(&program, payload)); /* a guess of where the key is changes nothing */
    free(memory);
    return held;
}

/* ---- Operators: each line is a filter and whether it holds for the payload below ---- */

static const char sample[] =
    "{\"n\":5,\"f\":5.5,\"big\":9007199254740993,\"t\":\"apple\",\"e\":\"\",\"no\":null,\"yes\":true,"
    "\"raw\":{\"$bytes\":\"00ff\"},\"nan\":{\"$float\":\"nan\"},\"inf\":{\"$float\":\"infinity\"},\"list\":[1,2.5,\"x\",null,[7]],"
    "\"none\":[],\"o\":{\"k\":1,\"o\":{\"k\":2},\"a.b\":3},\"o.p\":4,\"$x\":1,\"two words\":6,\"and\":7,"
    "\"longer.than.sixteen.bytes\":1,\"eight_by\":8}";

typedef struct line {
    const char *text;
    bool holds;
} line;

static const line lines[] = {
    {"n = 5", true},
    {"n = 5.0", true},
    {"n == 5.00000000000001", false},
    {"n = '5'", false},
    {"n = 4", false},
    {"missing = 5", false},
    {"n != 4", true},
    {"n <> 5", false},
    {"n != '5'", false}, /* of another type: neither equal nor unequal */
    {"missing != 5", false},
    {"not missing = 5", true},
    {"n < 6", true},
    {"n < 5", false},
    {"n <= 5", true},
    {"n > 4.999", true},
    {"n >= 5.001", false},
    {"n < 'a'", false},
    {"f > 5", true},
    {"f <= 5", false},
    {"big = 9007199254740993", true},
    {"big = 9007199254740992.0", false}, /* what a conversion to double would make of it */
    {"big > 9007199254740992.0", true},
    {"big < 9007199254740994.0", true},
    {"big < 1e300", true},
    {"big > -1e300", true},
    {"t = 'apple'", true},
    {"t < 'apples'", true},
    {"t > 'Apple'", true},
    {"t > 'appl'", true},
    {"t != 'pear'", true},
    {"e = ''", true},
    {"e < 'a'", true},
    {"no = null", true},
    {"no <= null", true},
    {"no < null", false},
    {"no != null", false},
    {"n != null", false},
    {"no is null", true},
    {"n is null", false},
    {"missing is null", false},
    {"no exists", true},
    {"o exists", true},
    {"missing exists", false},
    {"longer.than.sixteen.bytes exists", true},
    {"eight_by = 8", true},
    {"eight_bz = 8", false},
    {"big < 9007199254740993.5", true},
    {"f between 5.4 and 5.6", true},
    {"yes = true", true},
    {"yes > false", true},
    {"yes != false", true},
    {"yes = 1", false},
    {"raw = x'00ff'", true},
    {"raw > x'00'", true},
    {"raw = '00ff'", false},
    {"raw < x'01'", true},
    {"nan = 1", false},
    {"nan < 1", false},
    {"nan >= 1", false},
    {"nan != 1", true},
    {"nan in (1, 2)", false},
    {"inf > 9223372036854775807", true},
    {"inf > 1.7e308", true},
    {"n between 5 and 5", true},
    {"n between 1 and 4", false},
    {"n between 6 and 1", false},
    {"n between 4.5 and 'z'", false},
    {"t between 'a' and 'b'", true},
    {"n in ()", false},
    {"n in (1, 'x', 5.0, null)", true},
    {"n in (1, 2, 3, 4, 6, 7, 8, 9)", false},
    {"t in ('pear', 'apple')", true},
    {"t prefix 'app'", true},
    {"t prefix 'apple'", true},
    {"t prefix 'apples'", false},
    {"t prefix ''", true},
    {"e prefix ''", true},
    {"n prefix ''", false},
    {"list contains 1.0", true},
    {"list contains 2.5", true},
    {"list contains 'x'", true},
    {"list contains null", true},
    {"list contains 7", false}, /* items of items are not looked at */
    {"none contains null", false},
    {"t contains 'a'", false},
    {"list = 1", false},
    {"list != 1", false},
    {"o.k = 1", true},
    {"o.o.k = 2", true},
    {"o.a.b = 3", true},
    {"o.p = 4", true}, /* the exact key before the path */
    {"o.x = 1", false},
    {"n.k = 1", false},
    {"$x = 1", true},
    {"\"two words\" = 6", true},
    {"\"and\" = 7", true},
    {"n = 5 and t = 'apple'", true},
    {"n = 5 and t = 'pear'", false},
    {"n = 4 or t = 'apple'", true},
    {"n = 4 or n = 6", false},
    {"n = 4 or n = 5 and t = 'pear'", false},
    {"(n = 4 or n = 5) and t = 'apple'", true},
    {"n = 5 or n = 4 and t = 'pear'", true},
    {"not n = 4 and t = 'apple'", true},
    {"not (n = 4 or t = 'apple')", false},
    {"not not n = 5", true},
    {"not (not n = 5 or not t = 'apple')", true},
};

static void operators(void) {
    iqdb_buffer memory = iqdb_buffer_default();
    iqdb_payload payload;
    CHECK_EQ_INT(iqdb_payload_from_json(sample, strlen(sample), &memory, &payload), IQDB_OK);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        iqdb_buffer buffer = iqdb_buffer_default();
        iqdb_filter filter;
        iqdb_error error;
        if (EXPECT(iqdb_filter_parse(lines[i].text, strlen(lines[i].text), &buffer, &filter, &error) == IQDB_OK)) {
            if (!EXPECT(holds(filter, payload) == lines[i].holds)) printf("\n    %s", lines[i].text);
            const iqdb_filter nots = iqdb_not(&filter);
            EXPECT(holds(nots, payload) == !lines[i].holds);
            const iqdb_payload absent = {NULL, 0}; /* nothing is there: only what a `not` says can hold */
            EXPECT(!holds(filter, absent) || strstr(lines[i].text, "not") != NULL);
        }
        iqdb_buffer_free(&buffer);
    }
    iqdb_buffer_free(&memory);
}

static void constructors(void) {
    const iqdb_value items[2] = {iqdb_int(1), iqdb_int(2)};
    const iqdb_filter list[] = {iqdb_filter_default(),
                                iqdb_eq("k", items[0]),
                                iqdb_ne("k", items[0]),
                                iqdb_lt("k", items[0]),
                                iqdb_le("k", items[0]),
                                iqdb_gt("k", items[0]),
                                iqdb_ge("k", items[0]),
                                iqdb_between("k", items[0], items[1]),
                                iqdb_in("k", items, 2),
                                iqdb_prefix("k", "p"),
                                iqdb_exists("k"),
                                iqdb_is_null("k"),
                                iqdb_contains_value("k", items[0])};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        CHECK_EQ_INT(list[i].op, i); /* the order of the manual */
        if (i > 0) CHECK_EQ_STR(list[i].key, "k");
        if ((i >= 1 && i <= 7) || i == 12) CHECK_EQ_INT(list[i].value.as.integer, 1);
        CHECK(list[i].children == NULL && list[i].count == (i == 8 ? 2u : 0u));
    }
    CHECK_EQ_INT(list[7].high.as.integer, 2);
    CHECK(list[8].values == items);
    CHECK_EQ_STR(list[9].value.as.text.data, "p");
    CHECK(iqdb_and(list, 3).op == IQDB_FILTER_AND && iqdb_and(list, 3).children == list &&
          iqdb_and(list, 3).count == 3);
    CHECK(iqdb_or(list, 3).op == IQDB_FILTER_OR && iqdb_or(list, 3).children == list && iqdb_or(list, 3).count == 3);
    CHECK(iqdb_not(list).op == IQDB_FILTER_NOT && iqdb_not(list).children == list && iqdb_not(list).count == 1);
}

static void branches_of_none_and_of_all(void) {
    const iqdb_payload absent = {NULL, 0};
    const iqdb_filter all = iqdb_filter_default(), none = iqdb_or(NULL, 0);
    const iqdb_filter pair[2] = {all, none};
    CHECK(holds(all, absent));
    CHECK(holds(iqdb_and(NULL, 0), absent));
    CHECK(!holds(none, absent));
    CHECK(!holds(iqdb_not(&all), absent));
    CHECK(holds(iqdb_not(&none), absent));
    CHECK(!holds(iqdb_and(pair, 2), absent));
    CHECK(holds(iqdb_or(pair, 2), absent));
    CHECK(holds(iqdb_or(pair, 1), absent));
}

/* ---- Refusals ---- */

static void what_cannot_be_answered(void) {
    const iqdb_value items[1] = {iqdb_int(1)};
    iqdb_value odd = iqdb_null();
    iqdb_filter filter = iqdb_filter_default();
    odd.type = IQDB_TYPE_ABSENT;
    CHECK(refusal(iqdb_eq(NULL, iqdb_int(1))) != NULL);
    CHECK(refusal(iqdb_exists(NULL)) != NULL);
    CHECK(refusal(iqdb_eq("\xff", iqdb_int(1))) != NULL);
    CHECK(refusal(iqdb_eq("a", iqdb_text(NULL))) != NULL);
    CHECK(refusal(iqdb_eq("a", iqdb_text("\xff"))) != NULL);
    CHECK(refusal(iqdb_eq("a", iqdb_bytes(NULL, 1))) != NULL);
    CHECK(refusal(iqdb_eq("a", iqdb_bytes(NULL, 0))) == NULL);
    CHECK(refusal(iqdb_eq("a", iqdb_array(items, 1))) != NULL);
    CHECK(refusal(iqdb_ne("a", iqdb_object(NULL, 0))) != NULL);
    CHECK(refusal(iqdb_lt("a", odd)) != NULL);
    CHECK(refusal(iqdb_between("a", iqdb_int(1), iqdb_array(items, 1))) != NULL);
    CHECK(refusal(iqdb_between("a", odd, iqdb_int(1))) != NULL);
    CHECK(refusal(iqdb_contains_value("a", iqdb_array(items, 1))) != NULL);
    CHECK(refusal(iqdb_prefix("a", NULL)) != NULL);
    CHECK(refusal(iqdb_in("a", NULL, 1)) != NULL);
    CHECK(refusal(iqdb_in("a", NULL, 0)) == NULL);
    CHECK(refusal(iqdb_in("a", &odd, 1)) != NULL);
    CHECK(refusal(iqdb_and(NULL, 1)) != NULL);
    CHECK(refusal(iqdb_not(NULL)) != NULL);
    filter.op = IQDB_FILTER_PREFIX;
    filter.key = "a";
    filter.value = iqdb_bytes("a", 1);
    CHECK(refusal(filter) != NULL);
    filter = iqdb_not(&filter);
    filter.count = 2;
    CHECK(refusal(filter) != NULL);
    filter = iqdb_exists("a");
    for (int op = -1; op <= 16; op += 17) {
        memcpy(&filter.op, &op, sizeof filter.op);
        CHECK(refusal(filter) != NULL);
    }
}

static void depth(void) {
    iqdb_filter chain[70];
    const iqdb_payload absent = {NULL, 0};
    for (int kind = 0; kind < 3; kind++) {
        chain[0] = iqdb_exists("a");
        for (size_t i = 1; i < 70; i++) {
            chain[i] = kind == 0   ? iqdb_not(&chain[i - 1])
                       : kind == 1 ? iqdb_and(&chain[i - 1], 1)
                                   : iqdb_or(&chain[i - 1], 1);
            CHECK((refusal(chain[i]) == NULL) == (i + 1 <= IQDB_FILTER_DEPTH_MAX));
        }
        CHECK(holds(chain[63], absent) == (kind == 0));
        CHECK(holds(chain[62], absent) == false);
    }
    chain[0] = iqdb_and(&chain[0], 1); /* contains itself */
    CHECK(refusal(chain[0]) != NULL);
    for (size_t i = 1; i < 10; i++) chain[i] = iqdb_or(chain, i); /* and each contains all before it */
    CHECK(refusal(chain[9]) != NULL);
}

static void sizes(void) {
    iqdb_filter pair[64][2];
    iqdb_value *values = (iqdb_value *)calloc(1025, sizeof *values);
    iqdb_filter *many = (iqdb_filter *)calloc(IQDB_FILTER_NODES_MAX, sizeof *many);
    if (values == NULL || many == NULL) exit(2);
    for (size_t i = 0; i < 1025; i++) values[i] = iqdb_int((int64_t)(i * 7919 % 1025));
    CHECK(refusal(iqdb_in("a", values, 1024)) == NULL);
    CHECK(refusal(iqdb_in("a", values, 1025)) != NULL);
    CHECK(refusal(iqdb_in("a", values, (size_t)-1)) != NULL);
    pair[0][0] = pair[0][1] = iqdb_exists("a");
    for (size_t i = 1; i < 64; i++) pair[i][0] = pair[i][1] = iqdb_and(pair[i - 1], 2);
    CHECK(refusal(pair[15][0]) == NULL); /* 2^16 - 1 nodes */
    CHECK(refusal(pair[16][0]) != NULL);
    CHECK(refusal(pair[63][0]) != NULL); /* at once, not after 2^63 */
    for (size_t i = 0; i < IQDB_FILTER_NODES_MAX; i++) many[i] = iqdb_exists("a");
    CHECK(refusal(iqdb_or(many, IQDB_FILTER_NODES_MAX - 1)) == NULL);
    CHECK(refusal(iqdb_or(many, IQDB_FILTER_NODES_MAX)) != NULL);
    /* Sizes alone, for nothing is read before all is known to fit. */
    const iqdb_filter big = iqdb_eq("a", iqdb_bytes("", (40u << 20)));
    pair[0][0] = pair[0][1] = big;
    CHECK(refusal(big) == NULL);
    CHECK(refusal(iqdb_or(pair[0], 2)) != NULL);
    many[2] = many[1] = big;
    CHECK(refusal(iqdb_or(many, 3)) != NULL);
    CHECK(refusal(iqdb_eq("a", iqdb_bytes("", IQDB_PAYLOAD_SIZE_MAX + 1u))) != NULL);
    many[1] = many[2] = many[3];
    many[0] = iqdb_in("a", values, 1000);
    CHECK(refusal(iqdb_or(many, IQDB_FILTER_NODES_MAX - 1001)) == NULL);
    CHECK(refusal(iqdb_or(many, IQDB_FILTER_NODES_MAX - 1000)) != NULL);
    free(many);
    free(values);
}

/* Every one of 1,024 values is found among them, in whatever order they stand, and none between two. */
static void a_full_list(void) {
    static iqdb_value values[1024];
    iqdb_buffer buffer = iqdb_buffer_default();
    const iqdb_payload absent = {NULL, 0};
    for (size_t i = 0; i < 1024; i++) {
        const size_t n = i * 389 % 1024;
        values[i] = n % 2 == 0 ? iqdb_int((int64_t)n * 10) : iqdb_float((double)n * 10);
    }
    for (int64_t n = -10; n <= 10250; n += 5) {
        iqdb_field field = {"a", n % 3 == 0 ? iqdb_int(n) : iqdb_float((double)n)};
        iqdb_payload payload;
        CHECK_EQ_INT(iqdb_payload_with(absent, &field, 1, &buffer, &payload), IQDB_OK);
        CHECK(holds(iqdb_in("a", values, 1024), payload) == (n % 10 == 0 && n >= 0 && n < 10240));
    }
    iqdb_buffer_free(&buffer);
}

/* ---- Bytes that are no payload ---- */

static void damaged_payloads(void) {
    static const char text[] =
        "a = 1 or a > 'x' or b.c between 1 and 2 or b in (1, 'x', x'00') or c contains 1 or c is null or "
        "d prefix 'x' or not d exists";
    iqdb_buffer memory = iqdb_buffer_default(), buffer = iqdb_buffer_default();
    iqdb_payload payload;
    iqdb_filter filter;
    uint64_t state = 5;
    size_t held = 0;
    CHECK_EQ_INT(iqdb_payload_from_json("{\"a\":2,\"b\":{\"c\":3},\"c\":[2,3],\"d\":\"y\"}", 37, &memory, &payload),
                 IQDB_OK);
    CHECK_EQ_INT(iqdb_filter_parse(text, strlen(text), &buffer, &filter, NULL), IQDB_OK);
    CHECK(!holds(filter, payload));
    for (size_t round = 0; round < support_amount(2000, 20000, 200000); round++) {
        iqdb_payload damaged;
        damaged.size = round < payload.size ? round : payload.size; /* first every truncation */
        uint8_t *bytes = (uint8_t *)malloc(damaged.size + 1);
        if (bytes == NULL) exit(2);
        memcpy(bytes, payload.bytes, damaged.size);
        if (round >= payload.size) bytes[support_random_below(&state, damaged.size)] = (uint8_t)support_random(&state);
        uint8_t *exact = (uint8_t *)realloc(bytes, damaged.size + (damaged.size == 0));
        damaged.bytes = exact;
        held += holds(filter, damaged);
        free(exact);
    }
    CHECK(held > 0);
    iqdb_buffer_free(&memory);
    iqdb_buffer_free(&buffer);
}

TEST_MAIN("store/filter", TEST(operators), TEST(constructors), TEST(branches_of_none_and_of_all),
          TEST(what_cannot_be_answered), TEST(depth), TEST(sizes), TEST(a_full_list), TEST(damaged_payloads))
