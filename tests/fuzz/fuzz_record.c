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
    require(record.type == IQ_RECORD_UPSERT ? record.vector == data + at : record.vector == NULL);
    if (record.type == IQ_RECORD_UPSERT) at += iq_element_bytes(record.element, record.dim);
    for (uint32_t i = 0; record.vector != NULL && record.element == IQDB_ELEMENT_F32 && i < record.dim; i++) {
        float element;
        const uint32_t bits = iq_get_u32(record.vector + 4 * (size_t)i);
        memcpy(&element, &bits, 4);
        require(isfinite(element));
    }
    require(record.payload == NULL ? record.payload_size == 0 && !record.has_payload : record.payload == data + at);
    if (record.has_payload) {
        require(record.type == IQ_RECORD_UPSERT);
        require(iq_payload_validate(record.payload, record.payload_size) == IQDB_OK);
    }
    if (record.type == IQ_RECORD_CREATE) require(iq_name_is_valid(record.payload, record.payload_size));
    at += record.payload_size;
    require(at <= size);
    for (; at < size; at++) require(data[at] == 0);
    return 0;
}
