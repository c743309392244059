/* Filters from text, by the public face: what each construction becomes, where each mistake is found, and limits. */
#include "public.h"

static iqdb_filter parse(const char *text, iqdb_buffer *buffer) {
    iqdb_filter filter = iqdb_filter_default();
    iqdb_error error;
    memset(&error, 0, sizeof error);
    if (!EXPECT(iqdb_filter_parse(text, strlen(text), buffer, &filter, &error) == IQDB_OK))
        printf("\n    %s\n    at %u: %s", text, (unsigned)error.offset, error.text);
    return filter;
}

static void tests_become_what_the_constructors_make(void) {
    static const struct {
        const char *text;
        iqdb_filter_op op;
    } list[] = {
        {"k=1", IQDB_FILTER_EQ},         {" k == 1 ", IQDB_FILTER_EQ}, {"k!=1", IQDB_FILTER_NE},
        {"k<>1", IQDB_FILTER_NE},        {"k<1", IQDB_FILTER_LT},      {"k<=1", IQDB_FILTER_LE},
        {"k>1", IQDB_FILTER_GT},         {"k>=1", IQDB_FILTER_GE},     {"k CONTAINS 1", IQDB_FILTER_CONTAINS_VALUE},
        {"(((k = 1)))", IQDB_FILTER_EQ}, {"\"k\"=1", IQDB_FILTER_EQ}};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        iqdb_buffer buffer = iqdb_buffer_default();
        const iqdb_filter filter = parse(list[i].text, &buffer);
        CHECK_EQ_INT(filter.op, list[i].op);
        CHECK_EQ_STR(filter.key, "k");
        CHECK_EQ_INT(filter.value.type, IQDB_TYPE_INT);
        CHECK_EQ_INT(filter.value.as.integer, 1);
        iqdb_buffer_free(&buffer);
    }
}

static void keys_and_values(void) {
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_filter filter = parse("a.b-c_d$.\xc3\xa9 = 'it''s'", &buffer);
    CHECK_EQ_STR(filter.key, "a.b-c_d$.\xc3\xa9");
    CHECK_EQ_U64(filter.value.as.text.size, 4);
    CHECK_EQ_STR(filter.value.as.text.data, "it's");
    filter = parse("\"say \"\"x\"\" and 'y'\" prefix ''''", &buffer);
    CHECK_EQ_STR(filter.key, "say \"x\" and 'y'");
    CHECK_EQ_INT(filter.op, IQDB_FILTER_PREFIX);
    CHECK_EQ_STR(filter.value.as.text.data, "'");
    filter = parse("\"\" = \n\t\r -9223372036854775808", &buffer);
    CHECK_EQ_STR(filter.key, "");
    CHECK_EQ_INT(filter.value.as.integer, INT64_MIN);
    filter = parse("k = 1.0", &buffer);
    CHECK(filter.value.type == IQDB_TYPE_FLOAT && filter.value.as.real == 1.0);
    filter = parse("k = -1e-3", &buffer);
    CHECK(filter.value.type == IQDB_TYPE_FLOAT && filter.value.as.real == -1e-3);
    filter = parse("k = True", &buffer);
    CHECK(filter.value.type == IQDB_TYPE_BOOL && filter.value.as.boolean);
    filter = parse("k = FALSE", &buffer);
    CHECK(filter.value.type == IQDB_TYPE_BOOL && !filter.value.as.boolean);
    filter = parse("k = null", &buffer);
    CHECK_EQ_INT(filter.value.type, IQDB_TYPE_NULL);
    filter = parse("k = X'00fFA9'", &buffer);
    CHECK(filter.value.type == IQDB_TYPE_BYTES && filter.value.as.bytes.size == 3);
    CHECK_MEM(filter.value.as.bytes.data, "\x00\xff\xa9", 3);
    filter = parse("k = x''", &buffer);
    CHECK(filter.value.type == IQDB_TYPE_BYTES && filter.value.as.bytes.size == 0);
    filter = parse("x = 1", &buffer);
    CHECK_EQ_STR(filter.key, "x");
    CHECK_EQ_INT(iqdb_filter_parse("k = 'a\0b'", 9, &buffer, &filter, NULL), IQDB_OK);
    CHECK_EQ_U64(filter.value.as.text.size, 3);
    CHECK_MEM(filter.value.as.text.data, "a\0b", 4);
    filter = parse("k between -1 and 'x'", &buffer);
    CHECK_EQ_INT(filter.op, IQDB_FILTER_BETWEEN);
    CHECK_EQ_INT(filter.value.as.integer, -1);
    CHECK_EQ_STR(filter.high.as.text.data, "x");
    filter = parse("k in(1,'b' , null)", &buffer);
    CHECK_EQ_INT(filter.op, IQDB_FILTER_IN);
    CHECK_EQ_U64(filter.count, 3);
    CHECK_EQ_STR(filter.values[1].as.text.data, "b");
    CHECK_EQ_INT(filter.values[2].type, IQDB_TYPE_NULL);
    filter = parse("k in ( )", &buffer);
    CHECK_EQ_U64(filter.count, 0);
    filter = parse("k exists", &buffer);
    CHECK_EQ_INT(filter.op, IQDB_FILTER_EXISTS);
    filter = parse("k Is Null", &buffer);
    CHECK_EQ_INT(filter.op, IQDB_FILTER_IS_NULL);
    iqdb_buffer_free(&buffer);
}

static void branches(void) {
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_filter filter = parse("a = 1 or b = 2 and not c = 3 AND d = 4 Or (e = 5 or f = 6)", &buffer);
    CHECK_EQ_INT(filter.op, IQDB_FILTER_OR);
    CHECK_EQ_U64(filter.count, 3);
    CHECK_EQ_STR(filter.children[0].key, "a");
    const iqdb_filter *both = &filter.children[1], *inner = &filter.children[2];
    CHECK(both->op == IQDB_FILTER_AND && both->count == 3);
    CHECK_EQ_STR(both->children[0].key, "b");
    CHECK(both->children[1].op == IQDB_FILTER_NOT && both->children[1].count == 1);
    CHECK_EQ_STR(both->children[1].children[0].key, "c");
    CHECK_EQ_STR(both->children[2].key, "d");
    CHECK(inner->op == IQDB_FILTER_OR && inner->count == 2);
    CHECK_EQ_STR(inner->children[1].key, "f");
    filter = parse("not not (a = 1 and b between 1 and 2)", &buffer);
    CHECK(filter.op == IQDB_FILTER_NOT && filter.children[0].op == IQDB_FILTER_NOT);
    both = &filter.children[0].children[0];
    CHECK(both->op == IQDB_FILTER_AND && both->count == 2 && both->children[1].op == IQDB_FILTER_BETWEEN);
    iqdb_buffer_free(&buffer);
}

static void mistakes_are_found_where_they_are(void) {
    static const struct {
        const char *text;
        size_t offset;
    } list[] = {{"", 0},
                {"  ", 2},
                {"k", 1},
                {"k ", 2},
                {"k =", 3},
                {"k = ", 4},
                {"k = v", 4},
                {"k = nulls", 4},
                {"k = \"v\"", 4},
                {"k = 'v", 4},
                {"k = 'v''", 4},
                {"k = '\xff'", 4},
                {"k = 01", 5},
                {"k = -", 4},
                {"k = +1", 4},
                {"k = .5", 4},
                {"k = 1e", 4},
                {"k = 1e999", 4},
                {"k = 9223372036854775808", 4},
                {"k = x'0'", 4},
                {"k = x'0g'", 4},
                {"k = x'00", 4},
                {"k = [1]", 4},
                {"k ! 1", 2},
                {"k ~ 1", 2},
                {"k like 'x'", 2},
                {"k = 1 2", 6},
                {"k = 1 and", 9},
                {"k = 1 and ", 10},
                {"k = 1 or or", 9},
                {"k = 1 xor k = 2", 6},
                {"and k = 1", 0},
                {"not", 3},
                {"(k = 1", 6},
                {"(k = 1 or (k = 2) ", 18},
                {"k = 1)", 5},
                {"(k = 1))", 7},
                {"()", 1},
                {"k in 1", 5},
                {"k in (1 2)", 8},
                {"k in (1,)", 8},
                {"k in (,1)", 6},
                {"k in (1", 7},
                {"k in (1, k)", 9},
                {"k not in (1)", 2},
                {"k between 1", 11},
                {"k between 1 or 2", 12},
                {"k between 1 and", 15},
                {"k between and 2", 10},
                {"k prefix 1", 9},
                {"k prefix k", 9},
                {"k contains", 10},
                {"k is 1", 5},
                {"k is not null", 5},
                {"exists k", 0},
                {"null = 1", 0},
                {"In = 1", 0},
                {"1 = k", 0},
                {"'k' = 1", 0},
                {"\"k = 1", 0},
                {"\"\xc3\" = 1", 0},
                {"\xff = 1", 0},
                {"k.\xc3 = 1", 0},
                {"a = 1 and (b = 2 or c = ?)", 24}};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        iqdb_buffer buffer = iqdb_buffer_default();
        iqdb_filter filter = iqdb_exists("untouched");
        iqdb_error error;
        memset(&error, 0, sizeof error);
        const size_t size = strlen(list[i].text);
        char *exact = (char *)malloc(size + (size == 0)); /* no NUL behind it */
        if (exact == NULL) exit(2);
        memcpy(exact, list[i].text, size);
        EXPECT(iqdb_filter_parse(exact, size, &buffer, &filter, &error) == IQDB_ERR_INVALID_FILTER);
        if (!EXPECT(error.code == IQDB_ERR_INVALID_FILTER && error.offset == list[i].offset && error.text[0] != 0))
            printf("\n    %s\n    at %u: %s", list[i].text, (unsigned)error.offset, error.text);
        EXPECT(strcmp(filter.key, "untouched") == 0 && buffer.used == 0);
        EXPECT(iqdb_filter_parse(exact, size, &buffer, &filter, NULL) == IQDB_ERR_INVALID_FILTER);
        free(exact);
        iqdb_buffer_free(&buffer);
    }
    const char with_nul[] = "\"a\0b\" = 1";
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_filter filter;
    iqdb_error error;
    CHECK_EQ_INT(iqdb_filter_parse(with_nul, sizeof with_nul - 1, &buffer, &filter, &error), IQDB_ERR_INVALID_FILTER);
    CHECK_EQ_U64(error.offset, 0);
}

/* ---- Limits ---- */

static char *repeated(const char *begin, const char *part, size_t count, const char *end) {
    const size_t part_size = strlen(part);
    char *text = (char *)malloc(strlen(begin) + count * part_size + strlen(end) + 1);
    if (text == NULL) exit(2);
    size_t size = strlen(begin);
    memcpy(text, begin, size);
    for (size_t i = 0; i < count; i++, size += part_size) memcpy(text + size, part, part_size);
    memcpy(text + size, end, strlen(end) + 1);
    return text;
}

/* Whether it parses; if not, *out_offset is where it does not. Takes the text. */
static bool parses(char *text, size_t *out_offset) {
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_filter filter;
    iqdb_error error;
    memset(&error, 0, sizeof error);
    const iqdb_result result = iqdb_filter_parse(text, strlen(text), &buffer, &filter, &error);
    EXPECT(result == IQDB_OK || (result == IQDB_ERR_INVALID_FILTER && error.code == result));
    *out_offset = (size_t)error.offset;
    iqdb_buffer_free(&buffer);
    free(text);
    return result == IQDB_OK;
}

static void limits(void) {
    size_t offset;
    CHECK(parses(repeated("k in (0", ",1", 1023, ")"), &offset));
    CHECK(!parses(repeated("k in (0", ",1", 1024, ")"), &offset));
    CHECK_EQ_U64(offset, 7 + 2 * 1023 + 1);
    CHECK(parses(repeated("", "not ", 63, "k = 1"), &offset)); /* 64 deep */
    CHECK(!parses(repeated("", "not ", 64, "k = 1"), &offset));
    CHECK_EQ_U64(offset, 4 * 63);
    CHECK(!parses(repeated("", "not ", 100000, "k = 1"), &offset));
    CHECK(!parses(repeated("", "not (", 64, "k = 1"), &offset)); /* found before the parentheses are missed */
    CHECK(!parses(repeated("", "(", 100000, "k = 1"), &offset));
    CHECK_EQ_U64(offset, 64);
    CHECK(!parses(repeated("", "(", 64, "k = 1"), &offset));
    CHECK_EQ_U64(offset, 64 + 5);
    char *closed = repeated("", "(", 64, "k = 1");
    char *both = repeated(closed, ")", 64, "");
    free(closed);
    CHECK(parses(both, &offset));      /* parentheses alone add no depth */
    for (size_t n = 30; n < 34; n++) { /* and, not, and, not ... : 2n + 1 deep */
        char *open = repeated("", "k = 1 and not (", n, "k = 1");
        char *text = repeated(open, ")", n, "");
        free(open);
        CHECK(parses(text, &offset) == (2 * n + 1 <= IQDB_FILTER_DEPTH_MAX));
    }
    CHECK(!parses(repeated("k = 1 and ", "not ", 63, "k = 1"), &offset)); /* known at the end only */
    CHECK_EQ_U64(offset, 10 + 4 * 63 + 5);
    CHECK(!parses(repeated("(k = 1 and ", "not ", 63, "k = 1)"), &offset));
    CHECK(parses(repeated("k = 1", " or k = 1", 60000, ""), &offset));
    CHECK(!parses(repeated("k = 1", " or k = 1", 66000, ""), &offset));
    CHECK(!parses(repeated("k in (1,2,3)", " or k in (1,2,3)", 20000, ""), &offset));
}

static void arguments_and_buffers(void) {
    static const char text[] = "kind = 'doc' and (year >= 2020 or tags contains 'c') and not id in (1, 2)";
    char memory[4096];
    iqdb_buffer buffer = iqdb_buffer_fixed(NULL, 0), other = iqdb_buffer_default();
    iqdb_filter filter;
    CHECK_EQ_INT(iqdb_filter_parse(NULL, 1, &other, &filter, NULL), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_filter_parse(NULL, 0, &other, &filter, NULL), IQDB_ERR_INVALID_FILTER);
    CHECK_EQ_INT(iqdb_filter_parse(text, 3, NULL, &filter, NULL), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_filter_parse(text, 3, &other, NULL, NULL), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_filter_parse(text, strlen(text), &buffer, &filter, NULL), IQDB_ERR_LIMIT);
    CHECK(buffer.needed <= sizeof memory - 16);
    const size_t needed = buffer.needed;
    for (size_t shift = 0; shift < 16; shift++) {
        buffer = iqdb_buffer_fixed(memory + shift, needed);
        iqdb_result result = iqdb_filter_parse(text, strlen(text), &buffer, &filter, NULL);
        if (result == IQDB_ERR_LIMIT) {
            buffer = iqdb_buffer_fixed(memory + shift, buffer.needed);
            result = iqdb_filter_parse(text, strlen(text), &buffer, &filter, NULL);
        }
        CHECK_EQ_INT(result, IQDB_OK);
        CHECK(filter.op == IQDB_FILTER_AND && filter.count == 3);
        CHECK_EQ_STR(filter.children[1].children[1].value.as.text.data, "c");
    }
    memcpy(memory, text, sizeof text);
    buffer = iqdb_buffer_fixed(memory, sizeof memory);
    CHECK_EQ_INT(iqdb_filter_parse(memory, strlen(text), &buffer, &filter, NULL), IQDB_ERR_INVALID_ARGUMENT);
    support_heap heap = support_heap_make();
    const iqdb_allocator allocator = support_allocator(&heap);
    iqdb_error error;
    other.allocator = &allocator;
    heap.fail_at = 1;
    CHECK_EQ_INT(iqdb_filter_parse(text, strlen(text), &other, &filter, &error), IQDB_ERR_NOMEM);
    CHECK_EQ_INT(error.code, IQDB_ERR_NOMEM);
    CHECK_EQ_INT(iqdb_filter_parse(text, strlen(text), &other, &filter, &error), IQDB_OK);
    CHECK_EQ_U64(heap.calls, 2);
    iqdb_buffer_free(&other);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* ---- To text ---- */

static void says(const iqdb_filter *filter, const char *expected) {
    iqdb_buffer buffer = iqdb_buffer_default(), again = iqdb_buffer_default();
    const char *text = NULL, *second = NULL;
    size_t size = 0;
    CHECK_EQ_INT(iqdb_filter_to_text(filter, &buffer, &text, &size), IQDB_OK);
    CHECK_EQ_STR(text, expected);
    CHECK_EQ_U64(size, strlen(expected));
    const iqdb_filter parsed = parse(expected, &again);
    iqdb_buffer_free(&buffer);
    CHECK_EQ_INT(iqdb_filter_to_text(&parsed, &buffer, &second, NULL), IQDB_OK);
    CHECK_EQ_STR(second, expected);
    iqdb_buffer_free(&buffer);
    iqdb_buffer_free(&again);
}

static void filters_are_printed(void) {
    const iqdb_value values[3] = {iqdb_int(-1), iqdb_text("it's"), iqdb_null()};
    const volatile double zero = 0.0;
    const struct {
        iqdb_filter filter;
        const char *text;
    } tests[] = {{iqdb_filter_default(), "true"},
                 {iqdb_and(NULL, 0), "true"},
                 {iqdb_or(NULL, 0), "false"},
                 {iqdb_eq("k", iqdb_int(INT64_MIN)), "k = -9223372036854775808"},
                 {iqdb_ne("a.b-c", iqdb_float(1.0)), "a.b-c != 1.0"},
                 {iqdb_lt("k", iqdb_bool(true)), "k < true"},
                 {iqdb_le("k", iqdb_bytes("\x00\xff", 2)), "k <= x'00ff'"},
                 {iqdb_gt("k", iqdb_float(-1.0 / zero)), "k > -infinity"},
                 {iqdb_ge("k", iqdb_float(1.0 / zero)), "k >= infinity"},
                 {iqdb_eq("k", iqdb_float(zero / zero)), "k = nan"},
                 {iqdb_between("k", iqdb_float(-0.0), iqdb_text("")), "k between -0.0 and ''"},
                 {iqdb_in("k", values, 3), "k in (-1, 'it''s', null)"},
                 {iqdb_in("k", NULL, 0), "k in ()"},
                 {iqdb_prefix("two words", "x"), "\"two words\" prefix 'x'"},
                 {iqdb_contains_value("say \"x\"", iqdb_int(1)), "\"say \"\"x\"\"\" contains 1"},
                 {iqdb_exists("And"), "\"And\" exists"},
                 {iqdb_exists("nan"), "nan exists"},
                 {iqdb_exists(""), "\"\" exists"},
                 {iqdb_exists("1"), "\"1\" exists"},
                 {iqdb_is_null("\xc3\xa9"), "\xc3\xa9 is null"}};
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) says(&tests[i].filter, tests[i].text);
}

static void parentheses_stand_where_they_matter(void) {
    const iqdb_filter a = iqdb_exists("a"), b = iqdb_exists("b"), ab[2] = {a, b};
    const iqdb_filter both = iqdb_and(ab, 2), either = iqdb_or(ab, 2), alone_or = iqdb_or(&either, 1);
    const iqdb_filter alone_and = iqdb_and(&both, 1), not_a = iqdb_not(&a), not_alone = iqdb_not(&alone_or);
    const iqdb_filter mixed[4] = {both, either, alone_or, alone_and}, all = iqdb_and(mixed, 4), any = iqdb_or(mixed, 4);
    const iqdb_filter nots[2] = {not_a, not_alone}, of_nots = iqdb_or(nots, 2), not_not = iqdb_not(&not_alone);
    says(&both, "a exists and b exists");
    says(&alone_or, "a exists or b exists");
    says(&all, "(a exists and b exists) and (a exists or b exists) and (a exists or b exists) and "
               "(a exists and b exists)");
    says(&any, "a exists and b exists or (a exists or b exists) or (a exists or b exists) or a exists and b exists");
    says(&of_nots, "not a exists or not (a exists or b exists)");
    says(&not_not, "not not (a exists or b exists)");
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_filter filter = parse("true and not FALSE", &buffer);
    CHECK(filter.op == IQDB_FILTER_AND && filter.children[0].op == IQDB_FILTER_ALL);
    CHECK(filter.children[1].children[0].op == IQDB_FILTER_OR && filter.children[1].children[0].count == 0);
    filter = parse("k = Infinity or k = -INFINITY or k = NaN", &buffer);
    CHECK(filter.children[0].value.as.real > 1e308 && filter.children[1].value.as.real < -1e308);
    CHECK(filter.children[2].value.as.real != filter.children[2].value.as.real);
    iqdb_buffer_free(&buffer);
}

/* As deep as a filter may be, in the only buffer that is large enough; and what has no text. */
static void limits_of_printing(void) {
    static iqdb_filter deep[IQDB_FILTER_DEPTH_MAX + 1][2];
    char memory[4096];
    const char *text = NULL;
    size_t size = 0;
    iqdb_buffer fixed = iqdb_buffer_fixed(NULL, 0), buffer = iqdb_buffer_default();
    deep[0][0] = deep[0][1] = iqdb_exists("k");
    for (size_t i = 1; i <= IQDB_FILTER_DEPTH_MAX; i++) {
        deep[i][0] = i % 2 == 0 ? iqdb_or(deep[i - 1], 2) : iqdb_and(deep[i - 1], 2);
        deep[i][1] = iqdb_exists("l");
    }
    const iqdb_filter *deepest = &deep[IQDB_FILTER_DEPTH_MAX - 1][0];
    CHECK_EQ_INT(iqdb_filter_to_text(deepest, &fixed, &text, &size), IQDB_ERR_LIMIT);
    CHECK(fixed.needed <= sizeof memory);
    fixed = iqdb_buffer_fixed(memory, fixed.needed);
    CHECK_EQ_INT(iqdb_filter_to_text(deepest, &fixed, &text, &size), IQDB_OK);
    says(deepest, text);
    CHECK_EQ_INT(iqdb_filter_to_text(&deep[IQDB_FILTER_DEPTH_MAX][0], &buffer, &text, &size), IQDB_ERR_INVALID_FILTER);
    const iqdb_filter no_key = iqdb_exists(NULL), no_utf8 = iqdb_eq("k", iqdb_text("\xff"));
    CHECK_EQ_INT(iqdb_filter_to_text(&no_key, &buffer, &text, &size), IQDB_ERR_INVALID_FILTER);
    CHECK_EQ_INT(iqdb_filter_to_text(&no_utf8, &buffer, &text, &size), IQDB_ERR_INVALID_FILTER);
    CHECK_EQ_INT(iqdb_filter_to_text(NULL, &buffer, &text, &size), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_filter_to_text(deepest, NULL, &text, &size), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_filter_to_text(deepest, &buffer, NULL, &size), IQDB_ERR_INVALID_ARGUMENT);
    static const char *const texts[3] = {"k = 'x'", "a exists and not b in (1, 'y')", "a between 'b' and 'c' or d exists"};
    for (size_t i = 0; i < 3; i++) { /* what lies in the buffer is not overwritten */
        iqdb_buffer own = iqdb_buffer_default();
        const iqdb_filter filter = parse(texts[i], &own);
        CHECK_EQ_INT(iqdb_filter_to_text(&filter, &own, &text, &size), IQDB_ERR_INVALID_ARGUMENT);
        says(&filter, texts[i]);
        iqdb_buffer_free(&own);
    }
    support_heap heap = support_heap_make();
    const iqdb_allocator allocator = support_allocator(&heap);
    buffer.allocator = &allocator;
    heap.fail_at = 1;
    CHECK_EQ_INT(iqdb_filter_to_text(deepest, &buffer, &text, &size), IQDB_ERR_NOMEM);
    CHECK_EQ_INT(iqdb_filter_to_text(deepest, &buffer, &text, &size), IQDB_OK);
    iqdb_buffer_free(&buffer);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

TEST_MAIN("api/filter_text", TEST(tests_become_what_the_constructors_make), TEST(keys_and_values), TEST(branches),
          TEST(mistakes_are_found_where_they_are), TEST(limits), TEST(arguments_and_buffers), TEST(filters_are_printed),
          TEST(parentheses_stand_where_they_matter), TEST(limits_of_printing))
