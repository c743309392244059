/* Payloads as JSON, by the public face: what is refused and where, what each buffer gets, and faults. The comparison
 * with another implementation is in tests/codec/test_json.py. */
#include "public.h"

static iqdb_payload read_json(const char *json, iqdb_buffer *buffer) {
    iqdb_payload payload;
    payload.bytes = NULL;
    payload.size = 0;
    EXPECT(iqdb_payload_from_json(json, strlen(json), buffer, &payload) == IQDB_OK);
    return payload;
}

static void values_arrive(void) {
    iqdb_buffer buffer = iqdb_buffer_default(), text = iqdb_buffer_default();
    const iqdb_payload payload =
        read_json(" {\"n\" : -9223372036854775808, \"f\": 1.0, \"t\": \"\\u00e9\\n\", \"no\": null,"
                  " \"yes\": true, \"list\": [1, 2.5, \"x\"], \"o\": {\"k\": {\"$bytes\": \"00fF\"}}} ",
                  &buffer);
    const char *json = NULL;
    size_t size = 0;
    CHECK_EQ_U64(iqdb_payload_count(payload), 7);
    CHECK_EQ_INT(iqdb_payload_int(payload, "n", 0), INT64_MIN);
    CHECK_EQ_INT(iqdb_payload_get(payload, "f").type, IQDB_TYPE_FLOAT);
    CHECK(iqdb_payload_float(payload, "f", 0) == 1.0);
    CHECK_EQ_STR(iqdb_payload_text(payload, "t", NULL), "\xc3\xa9\n");
    CHECK_EQ_INT(iqdb_payload_get(payload, "no").type, IQDB_TYPE_NULL);
    CHECK(iqdb_payload_bool(payload, "yes", false));
    CHECK_EQ_U64(iqdb_value_count(iqdb_payload_get(payload, "list")), 3);
    CHECK_EQ_INT(iqdb_payload_get(payload, "o.k").type, IQDB_TYPE_BYTES);
    CHECK_MEM(iqdb_payload_get(payload, "o.k").as.bytes.data, "\x00\xff", 2);
    CHECK_EQ_INT(iqdb_payload_to_json(payload, &text, &json, &size), IQDB_OK);
    CHECK_EQ_STR(json, "{\"f\":1.0,\"list\":[1,2.5,\"x\"],\"n\":-9223372036854775808,\"no\":null,"
                       "\"o\":{\"k\":{\"$bytes\":\"00ff\"}},\"t\":\"\xc3\xa9\\n\",\"yes\":true}");
    CHECK_EQ_U64(size, strlen(json));
    CHECK_EQ_U64(text.used, size + 1);
    iqdb_buffer_free(&buffer);
    iqdb_buffer_free(&text);
}

static void absent_and_empty(void) {
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload payload = read_json("{}", &buffer);
    const char *json = NULL;
    CHECK(payload.bytes != NULL && payload.size == 4 && buffer.used == 4);
    payload = read_json("null", &buffer);
    CHECK(payload.bytes == NULL && payload.size == 0);
    CHECK_EQ_INT(iqdb_payload_to_json(payload, &buffer, &json, NULL), IQDB_OK);
    CHECK_EQ_STR(json, "null");
    iqdb_buffer_free(&buffer);
}

/* Each text as it comes back. */
static void what_is_written(void) {
    static const struct {
        const char *text;
        const char *written; /* NULL: the same */
    } list[] = {
        {"{\"a\":\"\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u0007\\u000b\\u000e\\u001f\"}", NULL},
        {"{\"a\":\"\\/\\u0041\\u00e9\\u20AC\\uD83D\\uDE00\\uFFFF\"}",
         "{\"a\":\"/A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xef\xbf\xbf\"}"},
        {"{\"\\u0061\":false,\"\":true}", "{\"\":true,\"a\":false}"},
        {"{\"a\":[-0,-0.0,1E2,1.50,12e-7,1e300]}", "{\"a\":[0,-0.0,100.0,1.5,1.2e-6,1e300]}"},
        {"{\"a\":[{\"$float\":\"nan\"},{\"$float\":\"infinity\"},{\"$float\":\"-infinity\"}]}", NULL},
        {"{\"a\":[{\"$float\":\"7ff0000000000001\"},{\"$float\":\"fff8000000000000\"}]}", NULL},
        {"{\"a\":{\"$float\":\"7FF8000000000000\"}}", "{\"a\":{\"$float\":\"nan\"}}"},
        {"{\"a\":[{\"$bytes\":\"\"},{\"$bytes\":\"00ff10\"}]}", NULL},
        {"{\"a\":{\"\\u0024bytes\":\"AB\"}}", "{\"a\":{\"$bytes\":\"ab\"}}"},
        {"{\"a\":[{\"$$bytes\":\"x\"},{\"$$$float\":\"y\"},{\"$other\":\"z\"},{\"$12345\":\"z\"}]}", NULL},
        {"{\"a\":[{\"$bytes\":1},{\"$$float\":[]},{\"$bytes\":\"x\",\"b\":1},{\"bytes\":\"x\"},{\"$\":\"x\"}]}", NULL},
        {"{\"$bytes\":\"x\"}", NULL}, /* the payload itself is an object in any case */
        {"{\"$$float\":\"x\"}", NULL},
        {"{\"a\":[[],{},[{}],{\"b\":[]}]}", NULL}};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        iqdb_buffer buffer = iqdb_buffer_default(), text = iqdb_buffer_default();
        const char *json = NULL;
        const iqdb_payload payload = read_json(list[i].text, &buffer);
        CHECK_EQ_INT(iqdb_payload_to_json(payload, &text, &json, NULL), IQDB_OK);
        CHECK_EQ_STR(json, list[i].written == NULL ? list[i].text : list[i].written);
        iqdb_buffer_free(&buffer);
        iqdb_buffer_free(&text);
    }
}

typedef struct refusal {
    const char *text;
    size_t offset;
} refusal;

static void refusals_say_where(void) {
    static const refusal list[] = {{"", 0},
                                   {"  ", 2},
                                   {" [1]", 1},
                                   {"nul", 0},
                                   {"null x", 5},
                                   {"{} x", 3},
                                   {"{", 1},
                                   {"{ 1:2}", 2},
                                   {"{\"a\" 1}", 5},
                                   {"{\"a\":", 5},
                                   {"{\"a\":}", 5},
                                   {"{\"a\":1 ", 7},
                                   {"{\"a\":1 \"b\"", 7},
                                   {"{\"a\":1,}", 7},
                                   {"{\"a\":[1,]}", 8},
                                   {"{\"a\":[1}", 7},
                                   {"{\"a\":01}", 6},
                                   {"{\"a\": -}", 6},
                                   {"{\"a\": 1e400}", 6},
                                   {"{\"a\": 9223372036854775808}", 6},
                                   {"{\"a\":tru}", 5},
                                   {"{\"a\":\"x", 5},
                                   {"{\"a\":\"x\ty\"}", 7},
                                   {"{\"a\":\"x\\q\"}", 7},
                                   {"{\"a\":\"\\u00g0\"}", 6},
                                   {"{\"a\":\"ab\\ud800\"}", 8},
                                   {"{\"a\":\"\\udc00\\ud800\"}", 6},
                                   {"{\"a\":\"\\ud800\\n12345\"}", 6},
                                   {"{\"a\":\"\\ud800x12345\"}", 6},
                                   {"{\"a\":\"\\ud800\\ud800\"}", 6},
                                   {"{\"a\":\"\\ud800\\ue000\"}", 6},
                                   {"{\"a\":\"\\ud800\\u0041\"}", 6},
                                   {"{\"a\":\"\\ud800\\uzzzz\"}", 6},
                                   {"{\"a\":\"\\u12", 6},
                                   {"{\"a\":\"\\", 6},
                                   {"{\"a\":\"ab\xff\"}", 5},
                                   {"{\"a\\u0000\":1}", 1},
                                   {"{\"a\":1,\"a\":2}", 12},
                                   {"{\"a\":{\"$bytes\":\"0\"}}", 18},
                                   {"{\"a\":{\"$bytes\":\"0g\"}}", 19},
                                   {"{\"a\":{\"$float\":\"\"}}", 17},
                                   {"{\"a\":{\"$float\":\"-\"}}", 18},
                                   {"{\"a\":{\"$float\":\"inf\"}}", 20},
                                   {"{\"a\":{\"$float\":\"infinite\"}}", 25},
                                   {"{\"a\":{\"$float\":\"3ff0000000000000\"}}", 33},
                                   {"{\"a\":{\"$float\":\"7ff8zz0000000000\"}}", 33},
                                   {"{\"a\":{\"$float\":\"x\"}}", 18}};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        iqdb_buffer buffer = iqdb_buffer_default();
        iqdb_payload payload;
        iqdb_error error;
        payload.bytes = &buffer;
        payload.size = 7;
        memset(&error, 0, sizeof error);
        if (!EXPECT(iqdb_payload_parse(list[i].text, strlen(list[i].text), &buffer, &payload, &error) ==
                    IQDB_ERR_INVALID_PAYLOAD) ||
            !EXPECT(error.code == IQDB_ERR_INVALID_PAYLOAD && error.offset == list[i].offset && error.text[0] != 0))
            printf("\n    %s: offset %u, %s", list[i].text, (unsigned)error.offset, error.text);
        EXPECT(payload.bytes == &buffer && payload.size == 7 && buffer.used == 0);
        EXPECT(iqdb_payload_from_json(list[i].text, strlen(list[i].text), &buffer, &payload) ==
               IQDB_ERR_INVALID_PAYLOAD);
        iqdb_buffer_free(&buffer);
    }
}

/* `count` times `open`, then as often `close`, after a beginning and before an end; malloc'ed. */
static char *nested(const char *begin, const char *open, size_t count, const char *close, const char *end) {
    char *text = (char *)malloc(strlen(begin) + count * (strlen(open) + strlen(close)) + strlen(end) + 1);
    if (text == NULL) exit(2);
    size_t size = strlen(begin);
    memcpy(text, begin, size + 1);
    for (size_t i = 0; i < 2 * count; i++) {
        const char *part = i < count ? open : close;
        memcpy(text + size, part, strlen(part));
        size += strlen(part);
    }
    memcpy(text + size, end, strlen(end) + 1);
    return text;
}

static void depth(void) {
    static const size_t depths[] = {62, 63, 64, 65, 100000};
    for (size_t i = 0; i < 5; i++) {
        char *arrays = nested("{\"a\":", "[", depths[i], "]", "}");
        iqdb_buffer buffer = iqdb_buffer_default();
        iqdb_payload payload;
        iqdb_error error;
        memset(&error, 0, sizeof error);
        const bool fits = depths[i] + 1 <= IQDB_PAYLOAD_DEPTH_MAX;
        EXPECT(iqdb_payload_parse(arrays, strlen(arrays), &buffer, &payload, &error) ==
               (fits ? IQDB_OK : IQDB_ERR_INVALID_PAYLOAD));
        EXPECT(error.offset == (fits ? 0u : 5u + IQDB_PAYLOAD_DEPTH_MAX - 1u));
        free(arrays);
        iqdb_buffer_free(&buffer);
    }
}

static void arguments(void) {
    char memory[256] = "{\"a\":1}";
    iqdb_buffer buffer = iqdb_buffer_fixed(memory, sizeof memory), other = iqdb_buffer_default();
    iqdb_payload payload;
    const char *json;
    payload.bytes = "";
    payload.size = 1;
    CHECK_EQ_INT(iqdb_payload_from_json(NULL, 1, &other, &payload), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_payload_from_json(NULL, 0, &other, &payload), IQDB_ERR_INVALID_PAYLOAD);
    CHECK_EQ_INT(iqdb_payload_from_json("{}", 2, NULL, &payload), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_payload_from_json("{}", 2, &other, NULL), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_payload_from_json(memory, 7, &buffer, &payload), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_payload_to_json(payload, &other, &json, NULL), IQDB_ERR_INVALID_PAYLOAD);
    CHECK_EQ_INT(iqdb_payload_to_json(payload, NULL, &json, NULL), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_payload_to_json(payload, &other, NULL, NULL), IQDB_ERR_INVALID_ARGUMENT);
    payload.bytes = memory;
    CHECK_EQ_INT(iqdb_payload_to_json(payload, &buffer, &json, NULL), IQDB_ERR_INVALID_ARGUMENT);
}

static void fixed_buffers_say_what_they_need(void) {
    static const char text[] = "{\"b\":[1,2,3],\"a\":{\"$bytes\":\"0011\"}}";
    iqdb_buffer buffer = iqdb_buffer_fixed(NULL, 0);
    iqdb_payload payload;
    const char *json;
    CHECK_EQ_INT(iqdb_payload_from_json(text, strlen(text), &buffer, &payload), IQDB_ERR_LIMIT);
    const size_t needed = buffer.needed;
    char *memory = (char *)malloc(2 * needed);
    if (memory == NULL) exit(2);
    for (size_t shift = 0; shift < 16; shift++) { /* wherever the memory lies */
        buffer = iqdb_buffer_fixed(memory + shift, needed - 1);
        CHECK_EQ_INT(iqdb_payload_from_json(text, strlen(text), &buffer, &payload), IQDB_ERR_LIMIT);
        buffer = iqdb_buffer_fixed(memory + shift, buffer.needed);
        CHECK_EQ_INT(iqdb_payload_from_json(text, strlen(text), &buffer, &payload), IQDB_OK);
        CHECK((const char *)payload.bytes + payload.size == memory + shift + buffer.used);
    }
    iqdb_buffer out = iqdb_buffer_fixed(NULL, 0);
    CHECK_EQ_INT(iqdb_payload_to_json(payload, &out, &json, NULL), IQDB_ERR_LIMIT);
    CHECK_EQ_U64(out.needed, strlen(text) + 1);
    free(memory);
}

static void a_failed_allocation(void) {
    support_heap heap = support_heap_make();
    const iqdb_allocator allocator = support_allocator(&heap);
    iqdb_buffer buffer = iqdb_buffer_default(), kept = iqdb_buffer_default();
    iqdb_payload payload = read_json("{\"a\":1}", &kept);
    iqdb_error error;
    const char *json;
    buffer.allocator = &allocator;
    heap.fail_at = 1;
    CHECK_EQ_INT(iqdb_payload_parse("{\"a\":1}", 7, &buffer, &payload, &error), IQDB_ERR_NOMEM);
    CHECK_EQ_INT(error.code, IQDB_ERR_NOMEM);
    CHECK(payload.bytes == kept.bytes);
    heap.fail_at = 1;
    CHECK_EQ_INT(iqdb_payload_to_json(payload, &buffer, &json, NULL), IQDB_ERR_NOMEM);
    CHECK_EQ_INT(iqdb_payload_to_json(payload, &buffer, &json, NULL), IQDB_OK);
    iqdb_buffer_free(&buffer);
    iqdb_buffer_free(&kept);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

static void too_large(void) {
    /* Text of the most that a payload may hold, and one byte more. */
    if (support_amount(0, 1, 1) == 0) TEST_SKIP("it takes 0.3 GB");
    const size_t most = IQDB_PAYLOAD_SIZE_MAX - (4 + 4 + 2 + 1 + 1);
    for (size_t more = 0; more < 2; more++) {
        char *text = (char *)malloc(most + 32);
        if (text == NULL) exit(2);
        memcpy(text, "{\"a\":\"", 6);
        memset(text + 6, 'x', most + more);
        memcpy(text + 6 + most + more, "\"}", 2);
        iqdb_buffer buffer = iqdb_buffer_default();
        iqdb_payload payload;
        const iqdb_result result = iqdb_payload_from_json(text, 8 + most + more, &buffer, &payload);
        EXPECT(result == (more == 0 ? IQDB_OK : IQDB_ERR_LIMIT));
        if (result == IQDB_OK) EXPECT(payload.size == IQDB_PAYLOAD_SIZE_MAX);
        iqdb_buffer_free(&buffer);
        free(text);
    }
    /* What would be far too large is known before there is memory for it. */
    const size_t count = (size_t)41 << 20; /* 13 bytes each */
    char *text = (char *)malloc(9 + 2 * count);
    if (text == NULL) exit(2);
    memcpy(text, "{\"a\":[1", 7);
    for (size_t i = 0; i < count; i++) memcpy(text + 7 + 2 * i, ",1", 2);
    memcpy(text + 7 + 2 * count, "]}", 2);
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload payload;
    CHECK_EQ_INT(iqdb_payload_from_json(text, 9 + 2 * count, &buffer, &payload), IQDB_ERR_LIMIT);
    CHECK(buffer.bytes == NULL && buffer.needed == 0);
    free(text);
}

/* A byte of zero ends no text, and is no escape. */
static void zeros_in_the_text(void) {
    static const char *const texts[] = {"{\"a\":\"\\\0\"}", "{\"a\":\"\0\"}", "{\"a\"\0:1}", "{\"a\":1}\0"};
    static const size_t sizes[] = {10, 9, 8, 8};
    for (size_t i = 0; i < 4; i++) {
        iqdb_buffer buffer = iqdb_buffer_default();
        iqdb_payload payload;
        CHECK_EQ_INT(iqdb_payload_from_json(texts[i], sizes[i], &buffer, &payload), IQDB_ERR_INVALID_PAYLOAD);
        iqdb_buffer_free(&buffer);
    }
}

TEST_MAIN("api/json", TEST(values_arrive), TEST(what_is_written), TEST(absent_and_empty), TEST(refusals_say_where),
          TEST(depth), TEST(arguments), TEST(fixed_buffers_say_what_they_need), TEST(a_failed_allocation),
          TEST(zeros_in_the_text), TEST(too_large))
