/* Any bytes as a filter and as what it is asked about. A text that is accepted must compile; evaluation must survive any
 * bytes, and `not` must turn every answer; a filter must answer the same however often it is asked.
 *
 * The first byte splits the rest: the text, then JSON or the bytes of a payload. */
#include "store/filter.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
    if (!condition) abort();
}

static bool ask(const iqdb_filter *filter, iqdb_payload payload) {
    iq_filter_layout layout;
    iq_filter program;
    require(iq_filter_measure(filter, &layout) == NULL);
    void *memory = malloc(layout.size_bytes);
    require(memory != NULL);
    iq_filter_compile(filter, &layout, memory, &program);
    const bool held = iq_filter_accepts(&program, payload);
    require(held == iq_filter_accepts(&program, payload));
    free(memory);
    return held;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    const size_t text_size = data[0] < size ? data[0] : size - 1;
    const char *text = (const char *)data + 1;
    iqdb_payload payload = {data + 1 + text_size, size - 1 - text_size};
    iqdb_buffer buffer = iqdb_buffer_default(), memory = iqdb_buffer_default();
    iqdb_buffer again = iqdb_buffer_default(), spelled = iqdb_buffer_default();
    iqdb_filter filter;
    iqdb_error error;
    const iqdb_result result = iqdb_filter_parse(text, text_size, &buffer, &filter, &error);
    if (result != IQDB_OK) {
        require(result == IQDB_ERR_INVALID_FILTER && error.code == result && error.offset <= text_size);
    } else {
        const iqdb_filter nots = iqdb_not(&filter);
        iq_filter_layout layout;
        (void)iqdb_payload_from_json((const char *)payload.bytes, payload.size, &memory, &payload);
        const bool held = ask(&filter, payload);
        if (iq_filter_measure(&nots, &layout) == NULL) require(held != ask(&nots, payload));
        const char *words;
        size_t word_size;
        require(iqdb_filter_to_text(&filter, &spelled, &words, &word_size) == IQDB_OK);
        require(iqdb_filter_parse(words, word_size, &again, &filter, NULL) == IQDB_OK);
        require(held == ask(&filter, payload));
        iqdb_buffer_free(&again);
        iqdb_buffer_free(&spelled);
    }
    iqdb_buffer_free(&buffer);
    iqdb_buffer_free(&memory);
    return 0;
}
