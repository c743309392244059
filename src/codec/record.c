/* Logged records to bytes and back; record.h has the table.
 *
 * 1. Decoding accepts exactly what encoding makes, followed by zeros. A checksum tells rot from bytes that were written;
 *    this tells bytes that we wrote from bytes that somebody else did.
 * 2. No length is used before it is known to fit in what is left: 24 + the vector + payload_size is never computed as a
 *    sum that could wrap. */
#include "codec/record.h"

#include "codec/payload.h"
#include "codec/utf8.h"

IQ_FN void iq_record_encode_head(const iq_logged_record *record, uint8_t *out) {
    const bool is_create = record->type == IQ_RECORD_CREATE, upsert = record->type == IQ_RECORD_UPSERT;
    const bool has_payload = upsert && record->has_payload, has_body = is_create || record->type >= IQ_RECORD_CHOOSE;
    out[0] = record->type;
    out[1] = upsert || is_create ? (uint8_t)record->element : 0;
    out[2] = has_payload ? 1 : 0;
    out[3] = 0;
    iq_put_u32(out + 4, record->collection);
    iq_put_u64(out + 8, record->id);
    iq_put_u32(out + 16, upsert || is_create ? record->dim : 0);
    iq_put_u32(out + 20, has_payload || has_body ? record->payload_size : 0);
}

static bool iq_record_is_zero(const uint8_t *bytes, size_t size) {
    uint8_t any = 0;
    for (size_t i = 0; i < size; i++) any = (uint8_t)(any | bytes[i]);
    return any == 0;
}

IQ_FN bool iq_name_is_valid(const void *name, size_t size) {
    return size > 0 && size <= IQDB_NAME_SIZE_MAX && memchr(name, 0, size) == NULL && iq_utf8_is_valid(name, size);
}

IQ_FN iqdb_result iq_record_decode(const uint8_t *bytes, size_t size, iq_logged_record *out) {
    if (size < IQ_RECORD_HEAD_SIZE) return IQDB_ERR_CORRUPT;
    const uint8_t type = bytes[0];
    const uint32_t dim = iq_get_u32(bytes + 16), payload_size = iq_get_u32(bytes + 20);
    memset(out, 0, sizeof *out);
    out->type = type;
    out->collection = iq_get_u32(bytes + 4);
    out->id = iq_get_u64(bytes + 8);
    const uint8_t *rest = bytes + IQ_RECORD_HEAD_SIZE;
    size_t left = size - IQ_RECORD_HEAD_SIZE;
    if (iq_element_bits(bytes[1]) == 0 || bytes[2] > 1 || bytes[3] != 0) return IQDB_ERR_CORRUPT;
    out->element = (iqdb_element)bytes[1];
    if (type == IQ_RECORD_UPSERT) {
        if (dim == 0 || dim > IQDB_DIM_MAX) return IQDB_ERR_CORRUPT;
        const size_t vector_size = iq_element_bytes(out->element, dim);
        if (left < vector_size || !iq_element_is_vector(out->element, rest, dim, false)) return IQDB_ERR_CORRUPT;
        out->dim = dim;
        out->vector = rest;
        rest += vector_size;
        left -= vector_size;
        out->has_payload = bytes[2] == 1;
        if (!out->has_payload && payload_size != 0) return IQDB_ERR_CORRUPT;
        if (out->has_payload) {
            if (payload_size > left || iq_payload_validate(rest, payload_size) != IQDB_OK) return IQDB_ERR_CORRUPT;
            out->payload = rest;
            out->payload_size = payload_size;
            rest += payload_size;
            left -= payload_size;
        }
    } else if (type == IQ_RECORD_CREATE) {
        if (out->collection == 0 || bytes[2] != 0 || dim > IQDB_DIM_MAX || !iq_element_answers(bytes[1], out->id) ||
            payload_size > left || !iq_name_is_valid(rest, payload_size))
            return IQDB_ERR_CORRUPT;
        out->dim = dim;
        out->payload = rest;
        out->payload_size = payload_size;
        rest += payload_size;
        left -= payload_size;
    } else if (type == IQ_RECORD_CHOOSE || type == IQ_RECORD_KEYS) {
        const bool fits = type == IQ_RECORD_CHOOSE
                              ? payload_size == IQ_CHOICE_SIZE
                              : out->collection != 0 && payload_size > 0 && payload_size <= IQ_KEY_SET_SIZE_MAX;
        if (bytes[1] != 0 || bytes[2] != 0 || dim != 0 || out->id != 0 || !fits || left < payload_size)
            return IQDB_ERR_CORRUPT;
        out->payload = rest;
        out->payload_size = payload_size;
        rest += payload_size;
        left -= payload_size;
    } else if ((type != IQ_RECORD_DELETE && type != IQ_RECORD_DROP) || bytes[1] != 0 || bytes[2] != 0 || dim != 0 ||
               payload_size != 0 || (type == IQ_RECORD_DROP && (out->collection == 0 || out->id != 0))) {
        return IQDB_ERR_CORRUPT;
    }
    return iq_record_is_zero(rest, left) ? IQDB_OK : IQDB_ERR_CORRUPT;
}
