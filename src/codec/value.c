/* Values and payloads as a program makes and reads them.
 *
 * 1. Readers take any bytes. They look at one item at a time through iq_container_item and iq_value_decode, which check
 *    bounds and shape; what fails there is absent. So they cost O(1), or O(log n) for a key, on valid and invalid bytes.
 * 2. A value says where it comes from: `encoded` set, or items built by the caller. Of built ones nothing can be
 *    checked but NULL; their fields are in the caller's order, and of equal keys the first counts. */
#include "codec/payload.h"

/* ---- Making values ---- */

static iqdb_value iq_value_make(iqdb_type type) {
    iqdb_value value;
    memset(&value, 0, sizeof value);
    value.type = type;
    return value;
}

IQDB_API iqdb_value iqdb_null(void) { return iq_value_make(IQDB_TYPE_NULL); }

IQDB_API iqdb_value iqdb_bool(bool value) {
    iqdb_value made = iq_value_make(IQDB_TYPE_BOOL);
    made.as.boolean = value;
    return made;
}

IQDB_API iqdb_value iqdb_int(int64_t value) {
    iqdb_value made = iq_value_make(IQDB_TYPE_INT);
    made.as.integer = value;
    return made;
}

IQDB_API iqdb_value iqdb_float(double value) {
    iqdb_value made = iq_value_make(IQDB_TYPE_FLOAT);
    made.as.real = value;
    return made;
}

IQDB_API iqdb_value iqdb_text(const char *zero_terminated) {
    iqdb_value made = iq_value_make(IQDB_TYPE_TEXT);
    made.as.text.data = zero_terminated;
    made.as.text.size = zero_terminated == NULL ? 0 : strlen(zero_terminated);
    return made;
}

IQDB_API iqdb_value iqdb_text_n(const char *data, size_t size) {
    iqdb_value made = iq_value_make(IQDB_TYPE_TEXT);
    made.as.text.data = data == NULL && size == 0 ? "" : data;
    made.as.text.size = size;
    return made;
}

IQDB_API iqdb_value iqdb_bytes(const void *data, size_t size) {
    iqdb_value made = iq_value_make(IQDB_TYPE_BYTES);
    made.as.bytes.data = data;
    made.as.bytes.size = size;
    return made;
}

IQDB_API iqdb_value iqdb_array(const iqdb_value *items, size_t count) {
    iqdb_value made = iq_value_make(IQDB_TYPE_ARRAY);
    made.as.array.items = items;
    made.as.array.count = count;
    return made;
}

IQDB_API iqdb_value iqdb_object(const iqdb_field *fields, size_t count) {
    iqdb_value made = iq_value_make(IQDB_TYPE_OBJECT);
    made.as.object.fields = fields;
    made.as.object.count = count;
    return made;
}

/* ---- Reading values ---- */

/* Item `index` of an array or object, with an empty key in an array. */
static bool iq_value_item(const iqdb_value *value, size_t index, iqdb_field *out_field) {
    iq_container container;
    size_t key_size;
    if (iq_value_is_container(value)) {
        const iq_value_parts parts = iq_value_parts_of(value);
        if (parts.encoded == NULL && parts.items != NULL && index < parts.count) {
            if (parts.is_object) *out_field = ((const iqdb_field *)parts.items)[index];
            if (!parts.is_object) out_field->value = ((const iqdb_value *)parts.items)[index];
            return true;
        }
        if (iq_container_open(parts.encoded, parts.size, parts.is_object, &container) &&
            iq_container_field(&container, index, out_field, &key_size) && out_field->value.type != IQDB_TYPE_ABSENT)
            return true;
    }
    out_field->key = NULL;
    out_field->value = iq_value_make(IQDB_TYPE_ABSENT);
    return false;
}

IQDB_API size_t iqdb_value_count(iqdb_value value) {
    iq_container container;
    if (!iq_value_is_container(&value)) return 0;
    const iq_value_parts parts = iq_value_parts_of(&value);
    if (parts.encoded == NULL) return parts.items == NULL ? 0 : parts.count;
    return iq_container_open(parts.encoded, parts.size, parts.is_object, &container) ? container.count : 0;
}

IQDB_API bool iqdb_value_field(iqdb_value value, size_t index, iqdb_field *out_field) {
    if (out_field == NULL) return false;
    if (value.type != IQDB_TYPE_OBJECT) value.type = IQDB_TYPE_ABSENT;
    return iq_value_item(&value, index, out_field);
}

IQDB_API iqdb_value iqdb_value_at(iqdb_value value, size_t index) {
    iqdb_field field;
    (void)iq_value_item(&value, index, &field);
    return field.value;
}

/* The value of exactly this key of a built object. */
static iqdb_value iq_value_of_key(const iqdb_value *object, const char *key, size_t key_size) {
    const bool built = object->type == IQDB_TYPE_OBJECT && object->as.object.encoded == NULL;
    const iqdb_field *fields = built ? object->as.object.fields : NULL;
    for (size_t i = 0; fields != NULL && i < object->as.object.count; i++)
        if (fields[i].key != NULL && strncmp(fields[i].key, key, key_size) == 0 && fields[i].key[key_size] == 0)
            return fields[i].value;
    return iq_value_make(IQDB_TYPE_ABSENT);
}

IQDB_API iqdb_value iqdb_value_get(iqdb_value value, const char *key) {
    iq_container container;
    while (key != NULL) {
        if (value.type == IQDB_TYPE_OBJECT &&
            iq_container_open(value.as.object.encoded, value.as.object.size, true, &container)) {
            const uint8_t *bytes;
            size_t size;
            if (iq_container_get(&container, key, strlen(key), &bytes, &size)) return iq_value_decode(bytes, size);
            break;
        }
        iqdb_value found = iq_value_of_key(&value, key, strlen(key));
        if (found.type != IQDB_TYPE_ABSENT) return found;
        /* As in iq_container_get: the shortest part before a dot that names an object, and no way back. */
        const char *dot = strchr(key, '.');
        for (; dot != NULL; dot = strchr(dot + 1, '.')) {
            found = iq_value_of_key(&value, key, (size_t)(dot - key));
            if (found.type == IQDB_TYPE_OBJECT) break;
        }
        value = found;
        key = dot == NULL ? NULL : dot + 1;
    }
    return iq_value_make(IQDB_TYPE_ABSENT);
}

/* ---- Reading payloads ---- */

IQDB_API iqdb_value iqdb_payload_get(iqdb_payload payload, const char *key) {
    return iqdb_value_get(iq_value_of_payload(payload.bytes, payload.size), key);
}

IQDB_API int64_t iqdb_payload_int(iqdb_payload payload, const char *key, int64_t otherwise) {
    const iqdb_value value = iqdb_payload_get(payload, key);
    return value.type == IQDB_TYPE_INT ? value.as.integer : otherwise;
}

IQDB_API double iqdb_payload_float(iqdb_payload payload, const char *key, double otherwise) {
    const iqdb_value value = iqdb_payload_get(payload, key);
    if (value.type == IQDB_TYPE_INT) return (double)value.as.integer;
    return value.type == IQDB_TYPE_FLOAT ? value.as.real : otherwise;
}

IQDB_API bool iqdb_payload_bool(iqdb_payload payload, const char *key, bool otherwise) {
    const iqdb_value value = iqdb_payload_get(payload, key);
    return value.type == IQDB_TYPE_BOOL ? value.as.boolean : otherwise;
}

IQDB_API const char *iqdb_payload_text(iqdb_payload payload, const char *key, size_t *out_size) {
    const iqdb_value value = iqdb_payload_get(payload, key);
    const bool is_text = value.type == IQDB_TYPE_TEXT;
    if (out_size != NULL) *out_size = is_text ? value.as.text.size : 0;
    return is_text ? value.as.text.data : NULL;
}

IQDB_API size_t iqdb_payload_count(iqdb_payload payload) {
    return iqdb_value_count(iq_value_of_payload(payload.bytes, payload.size));
}

IQDB_API bool iqdb_payload_at(iqdb_payload payload, size_t index, iqdb_field *out_field) {
    return iqdb_value_field(iq_value_of_payload(payload.bytes, payload.size), index, out_field);
}
