/* Encoded payloads. All numbers little-endian, no alignment.
 *
 *   payload, object, array := count u32, then count x u32: offset of item i from the container's first byte, then the
 *                             items without gaps. Item i ends where item i + 1 starts, the last one where the container
 *                             does, so the first offset is 4 + 4 * count (a container of 0 items is 4 bytes).
 *   item of an object      := key, NUL, value        keys are UTF-8, ascending by bytes, none twice
 *   item of an array       := value
 *   value                  := type u8 (iqdb_type), then
 *                             NULL nothing | BOOL u8 0 or 1 | INT i64 | FLOAT f64 bits | TEXT UTF-8 bytes, NUL |
 *                             BYTES raw | ARRAY, OBJECT a container
 *   A payload is an object, at most IQDB_PAYLOAD_SIZE_MAX bytes, containers at most IQDB_PAYLOAD_DEPTH_MAX deep with
 *   itself as the first. A value fills its extent exactly. So equal payloads have equal bytes and an item is found
 *   without a walk. Text may hold U+0000, a key cannot. */
#ifndef IQ_CODEC_PAYLOAD_H
#define IQ_CODEC_PAYLOAD_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "codec/utf8.h"

/* Appends the encoding of an object with these fields. INVALID_PAYLOAD, LIMIT or NOMEM leave out->size as it was.
 * Values may be built or encoded views (which are validated). IQDB_TYPE_ABSENT is INVALID_PAYLOAD. The fields may not
 * lie in `out`. */
IQ_FN iqdb_result iq_payload_encode(const iqdb_field *fields, size_t count, iq_blob *out);

/* OK, INVALID_PAYLOAD or LIMIT. What passes is canonical: decoding and encoding it gives the same bytes. */
IQ_FN iqdb_result iq_payload_validate(const void *bytes, size_t size);

/* The keys of an object in the making: of fields, or at the starts of encoded items. */
typedef struct iq_payload_keys {
    const iqdb_field *fields; /* NULL: key i is at items + starts[i] */
    const uint8_t *items;
    const uint32_t *starts;
} iq_payload_keys;

/* Fills `table` (count x u32) with the indices of the keys in byte order; false where a key stands twice. `spare` is
 * room for count / 2 indices. */
IQ_FN bool iq_payload_sort(const iq_payload_keys *keys, size_t count, uint8_t *table, uint8_t *spare);

/* ---- Reading encoded bytes that need not be valid: what is out of bounds is not there ---- */
typedef struct iq_container {
    const uint8_t *bytes;
    size_t size;
    uint32_t count; /* the whole table of offsets lies within size */
    bool is_object;
} iq_container;

/* Of bytes that make none, an empty one and false. */
IQ_FN bool iq_container_open(const void *bytes, size_t size, bool is_object, iq_container *out);

/* One on the stack of a walk. */
typedef struct iq_open_container {
    iq_container container;
    uint32_t next; /* item to come */
} iq_open_container;

/* The bytes of item `index`, at least one and within the container. */
IQ_FN bool iq_container_item(const iq_container *container, size_t index, const uint8_t **out_bytes, size_t *out_size);

/* The key (zero-terminated, *out_key_size bytes without the NUL; empty in an array) and the value of item `index`; the
 * value is IQDB_TYPE_ABSENT where its bytes make none. */
IQ_FN bool iq_container_field(const iq_container *container, size_t index, iqdb_field *out_field, size_t *out_key_size);

/* Binary search in an object: the index and bytes of the item. Any answer where the keys are not in order. */
IQ_FN bool iq_container_find(const iq_container *container, const char *key, size_t key_size, size_t *out_index,
                             const uint8_t **out_item, size_t *out_size);

/* The bytes of the value, at least one, that a key stands for by the rule of iqdb_payload_get. */
IQ_FN bool iq_container_get(const iq_container *object, const char *key, size_t key_size, const uint8_t **out_value,
                            size_t *out_size);

/* The value that fills these bytes, as a view of them; IQDB_TYPE_ABSENT where there is none. Text is not checked to be
 * UTF-8, nor containers beyond their table. */
IQ_FN iqdb_value iq_value_decode(const uint8_t *bytes, size_t size);

/* A view of a payload, which has not been opened. */
IQ_INLINE iqdb_value iq_value_of_payload(const void *bytes, size_t size) {
    iqdb_value value = iqdb_object(NULL, 0);
    value.as.object.encoded = bytes;
    value.as.object.size = size;
    return value;
}

/* Writes what stands behind the type byte of any value but a container, unless `out` is NULL; how many bytes. */
IQ_FN size_t iq_value_write(const iqdb_value *value, uint8_t *out);

/* What arrays and objects are alike in. */
typedef struct iq_value_parts {
    const void *items; /* built: iqdb_field of an object, iqdb_value of an array */
    size_t count;
    const void *encoded;
    size_t size;
    bool is_object;
} iq_value_parts;

IQ_INLINE bool iq_value_is_container(const iqdb_value *value) {
    return value->type == IQDB_TYPE_ARRAY || value->type == IQDB_TYPE_OBJECT;
}

/* Of a container. */
IQ_INLINE iq_value_parts iq_value_parts_of(const iqdb_value *value) {
    iq_value_parts parts;
    parts.is_object = value->type == IQDB_TYPE_OBJECT;
    parts.items = parts.is_object ? (const void *)value->as.object.fields : (const void *)value->as.array.items;
    parts.count = parts.is_object ? value->as.object.count : value->as.array.count;
    parts.encoded = parts.is_object ? value->as.object.encoded : value->as.array.encoded;
    parts.size = parts.is_object ? value->as.object.size : value->as.array.size;
    return parts;
}

#endif
