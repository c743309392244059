/* Any bytes as a logged record: what is accepted must be what its own parts are encoded to, and zeros behind. */
#include "codec/payload.h"
#include "codec/record.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
    if (!condition) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    iq_logged_record record;
    uint8_t head[IQ_RECORD_HEAD_SIZE];
    const iqdb_result result = iq_record_decode(data, size, &record);
    require(result == IQDB_OK || result == IQDB_ERR_CORRUPT);
    if (result != IQDB_OK) return 0;
    iq_record_encode_head(&record, head);
    require(memcmp(head, data, sizeof head) == 0);
    size_t at = sizeof head;
    require(record.type == IQ_RECORD_UPSERT ? record.vector == data + at : record.vector == NULL && record.dim == 0);
    for (uint32_t i = 0; i < record.dim; i++) {
        float element;
        const uint32_t bits = iq_get_u32(record.vector + 4 * (size_t)i);
        memcpy(&element, &bits, 4);
        require(isfinite(element));
    }
    at += 4 * (size_t)record.dim;
    require(record.has_payload == (record.payload != NULL));
    if (record.has_payload) {
        require(record.payload == data + at);
        require(iq_payload_validate(record.payload, record.payload_size) == IQDB_OK);
        at += record.payload_size;
    } else {
        require(record.payload_size == 0);
    }
    require(at <= size);
    for (; at < size; at++) require(data[at] == 0);
    return 0;
}
