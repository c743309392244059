/* The body of a logged record. persist/ carries it as opaque bytes.
 *   0  u8   type: 1 upsert, 2 delete
 *   1  u8   upsert: element type of the vector (0 = f32); delete: 0
 *   2  u8   upsert: 1 when a payload follows, else 0; delete: 0
 *   3  u8   0
 *   4  u32  collection, 0 = the default one
 *   8  u64  id
 *  16  u32  upsert: dim, 1 to IQDB_DIM_MAX; delete: 0
 *  20  u32  upsert: bytes of the payload, 0 without one; delete: 0
 *  24  dim x f32, then the payload; then zeros to the end (the log pads) */
#ifndef IQ_CODEC_RECORD_H
#define IQ_CODEC_RECORD_H

#include "base/bytes.h"

#define IQ_RECORD_HEAD_SIZE 24
#define IQ_RECORD_UPSERT 1u
#define IQ_RECORD_DELETE 2u

typedef struct iq_logged_record {
    uint8_t type;
    uint32_t collection;
    uint64_t id;
    uint32_t dim;
    const uint8_t *vector; /* dim little-endian f32, at any alignment; NULL for a delete */
    bool has_payload;
    const uint8_t *payload; /* NULL where there is none */
    uint32_t payload_size;
} iq_logged_record;

/* The first IQ_RECORD_HEAD_SIZE bytes; vector and payload follow as they are (words little-endian). Of a delete only
 * collection and id are looked at, and payload_size only where has_payload. */
IQ_FN void iq_record_encode_head(const iq_logged_record *record, uint8_t *out);

/* Pointers of *out lie in `bytes`. CORRUPT on anything that encode would not have made: lengths, unknown types,
 * vector elements that are not finite, payloads that do not validate, non-zero padding. Any collection passes. */
IQ_FN iqdb_result iq_record_decode(const uint8_t *bytes, size_t size, iq_logged_record *out);

#endif
