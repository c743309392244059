/* The C side of test_filter.py. From stdin:
 *   u32 count, and so many payloads: u32 size, JSON
 *   u32 count, and so many filters: u32 size, text (empty where it has none); u32 size, the same filter in prefix order:
 *     u8 op, then for a test: u32 size, key; u32 count, and so many constants: u32 size, encoded value;
 *     for a branch: u32 count, and so many filters
 * To stdout: for each filter a line of 0 and 1, one for each payload. */
#include "store/filter.h"

#include <stdio.h>
#include <stdlib.h>

static void *need(void *memory) {
    if (memory == NULL) exit(3);
    return memory;
}

static void require(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "%s\n", what);
    exit(4);
}

static uint32_t take_u32(const uint8_t **at) {
    *at += 4;
    return iq_get_u32(*at - 4);
}

/* A copy with a NUL behind it, never freed. */
static char *take_bytes(const uint8_t **at, size_t *out_size) {
    *out_size = take_u32(at);
    char *copy = (char *)need(malloc(*out_size + 1));
    memcpy(copy, *at, *out_size);
    copy[*out_size] = 0;
    *at += *out_size;
    return copy;
}

static iqdb_filter take_filter(const uint8_t **at) {
    const iqdb_filter_op op = (iqdb_filter_op) * (*at)++;
    size_t size;
    if (op >= IQDB_FILTER_AND) {
        const size_t count = take_u32(at);
        iqdb_filter *children = (iqdb_filter *)need(malloc((count + 1) * sizeof *children));
        for (size_t i = 0; i < count; i++) children[i] = take_filter(at);
        if (op == IQDB_FILTER_NOT) return iqdb_not(children);
        return op == IQDB_FILTER_AND ? iqdb_and(children, count) : iqdb_or(children, count);
    }
    const char *key = take_bytes(at, &size);
    const size_t count = take_u32(at);
    iqdb_value *values = (iqdb_value *)need(calloc(count + 2, sizeof *values));
    for (size_t i = 0; i < count; i++) {
        char *bytes = take_bytes(at, &size);
        values[i] = iq_value_decode((const uint8_t *)bytes, size);
    }
    switch (op) {
    case IQDB_FILTER_EQ:
        return iqdb_eq(key, values[0]);
    case IQDB_FILTER_NE:
        return iqdb_ne(key, values[0]);
    case IQDB_FILTER_LT:
        return iqdb_lt(key, values[0]);
    case IQDB_FILTER_LE:
        return iqdb_le(key, values[0]);
    case IQDB_FILTER_GT:
        return iqdb_gt(key, values[0]);
    case IQDB_FILTER_GE:
        return iqdb_ge(key, values[0]);
    case IQDB_FILTER_BETWEEN:
        return iqdb_between(key, values[0], values[1]);
    case IQDB_FILTER_IN:
        return iqdb_in(key, values, count);
    case IQDB_FILTER_PREFIX:
        return iqdb_prefix(key, values[0].as.text.data);
    case IQDB_FILTER_EXISTS:
        return iqdb_exists(key);
    case IQDB_FILTER_IS_NULL:
        return iqdb_is_null(key);
    case IQDB_FILTER_CONTAINS_VALUE:
        return iqdb_contains_value(key, values[0]);
    default:
        exit(5);
    }
}

static iq_filter compile(const iqdb_filter *filter) {
    iq_filter_layout layout;
    iq_filter program;
    const char *why = iq_filter_measure(filter, &layout);
    require(why == NULL, why);
    iq_filter_compile(filter, &layout, need(malloc(layout.size_bytes)), &program);
    return program;
}

int main(void) {
    size_t size = 0, capacity = 1 << 20, got, ignored;
    uint8_t *input = (uint8_t *)need(malloc(capacity));
    while ((got = fread(input + size, 1, capacity - size, stdin)) > 0) {
        size += got;
        if (size == capacity) input = (uint8_t *)need(realloc(input, capacity *= 2));
    }
    const uint8_t *at = input;
    const size_t payload_count = take_u32(&at);
    iqdb_payload *payloads = (iqdb_payload *)need(malloc(payload_count * sizeof *payloads));
    for (size_t i = 0; i < payload_count; i++) {
        iqdb_buffer buffer = iqdb_buffer_default();
        const char *json = take_bytes(&at, &ignored);
        require(iqdb_payload_from_json(json, strlen(json), &buffer, &payloads[i]) == IQDB_OK, json);
    }
    const size_t filter_count = take_u32(&at);
    for (size_t i = 0; i < filter_count; i++) {
        const char *text = take_bytes(&at, &ignored);
        ignored = take_u32(&at);
        iqdb_filter filter = take_filter(&at), parsed = filter;
        iqdb_buffer buffer = iqdb_buffer_default();
        if (text[0] != 0) require(iqdb_filter_parse(text, strlen(text), &buffer, &parsed, NULL) == IQDB_OK, text);
        iqdb_buffer words = iqdb_buffer_default(), third = iqdb_buffer_default();
        const char *printed = NULL;
        size_t printed_size = 0; /* texts may hold U+0000 */
        iqdb_filter reread;
        require(iqdb_filter_to_text(&filter, &words, &printed, &printed_size) == IQDB_OK, text);
        require(iqdb_filter_parse(printed, printed_size, &third, &reread, NULL) == IQDB_OK, printed);
        const iq_filter built_program = compile(&filter), parsed_program = compile(&parsed);
        const iq_filter printed_program = compile(&reread);
        iqdb_buffer_free(&third);
        iqdb_buffer_free(&buffer); /* a program needs nothing of its filter */
        for (size_t p = 0; p < payload_count; p++) {
            const bool held = iq_filter_accepts(&built_program, payloads[p]);
            require(held == iq_filter_accepts(&parsed_program, payloads[p]), text);
            require(held == iq_filter_accepts(&printed_program, payloads[p]), printed);
            putchar(held ? '1' : '0');
        }
        putchar('\n');
        iqdb_buffer_free(&words);
    }
    require(at == input + size, "the input goes on");
    return fflush(stdout) != 0;
}
