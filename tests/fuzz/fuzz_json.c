/* Any bytes as JSON. What is accepted must be a payload, and its text must read as the same payload and be written as
 * the same text; so must a payload that is valid by itself. What is refused must be refused at a place in the text. */
#include "codec/payload.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
    if (!condition) abort();
}

static void check_payload(iqdb_payload payload) {
    iqdb_buffer first = iqdb_buffer_default(), second = iqdb_buffer_default(), third = iqdb_buffer_default();
    iqdb_payload again;
    const char *json, *json_again;
    size_t size, size_again;
    require(iqdb_payload_to_json(payload, &first, &json, &size) == IQDB_OK);
    require(strlen(json) == size);
    require(iqdb_payload_from_json(json, size, &second, &again) == IQDB_OK);
    require((again.bytes == NULL) == (payload.bytes == NULL) && again.size == payload.size);
    require(payload.size == 0 || memcmp(again.bytes, payload.bytes, payload.size) == 0);
    require(iqdb_payload_to_json(again, &third, &json_again, &size_again) == IQDB_OK);
    require(size_again == size && memcmp(json, json_again, size) == 0);
    iqdb_buffer_free(&first);
    iqdb_buffer_free(&second);
    iqdb_buffer_free(&third);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload payload = {data, size};
    iqdb_error error;
    if (iq_payload_validate(data, size) == IQDB_OK) check_payload(payload);
    const iqdb_result result = iqdb_payload_parse((const char *)data, size, &buffer, &payload, &error);
    if (result == IQDB_OK) {
        require(payload.bytes == NULL || iq_payload_validate(payload.bytes, payload.size) == IQDB_OK);
        check_payload(payload);
    } else {
        require(result == IQDB_ERR_INVALID_PAYLOAD && error.code == result && error.offset <= size &&
                error.text[0] != 0);
    }
    iqdb_buffer_free(&buffer);
    return 0;
}
