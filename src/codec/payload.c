/* Payloads to bytes (payload.h has the format): encoding, checking, finding, merging.
 *
 * 1. Two passes. Measuring checks everything but the order of keys and finds the exact size, which does not depend on
 *    that order; writing then needs no bounds, no growth and no memory of its own.
 * 2. No recursion: open containers stand on a stack of IQDB_PAYLOAD_DEPTH_MAX frames, which is also the depth limit.
 * 3. A container is charged for its whole table before its first item is looked at, and an item for at least one byte,
 *    so a pass over values that share parts (or contain themselves) ends with the size limit or the depth limit.
 * 4. Keys are sorted in the place of the offsets they will get: entry i holds the index of the field that comes i-th
 *    until that field is written, then its offset. A merge sort from the bottom up: no recursion, n log n in the worst
 *    case, and the room it needs is there, where the items will go.
 * 5. Bytes that claim to be encoded are read only through iq_container_item, which keeps every extent in bounds. */
#include "codec/payload.h"

/* ---- Encoded containers and values ---- */

static size_t iq_container_table_end(uint32_t count) { return 4 + 4 * (size_t)count; }

IQ_FN bool iq_container_open(const void *bytes, size_t size, bool is_object, iq_container *out) {
    out->is_object = is_object;
    out->bytes = (const uint8_t *)bytes;
    out->size = size;
    out->count = 0;
    if (bytes == NULL || size < 4 || iq_get_u32(out->bytes) > (size - 4) / 4) return false;
    out->count = iq_get_u32(out->bytes);
    return true;
}

IQ_FN bool iq_container_item(const iq_container *container, size_t index, const uint8_t **out_bytes, size_t *out_size) {
    if (index >= container->count) return false;
    const uint8_t *entry = container->bytes + 4 + 4 * index;
    const size_t start = iq_get_u32(entry);
    const size_t end = index + 1 < container->count ? iq_get_u32(entry + 4) : container->size;
    if (start < iq_container_table_end(container->count) || start >= end || end > container->size) return false;
    *out_bytes = container->bytes + start;
    *out_size = end - start;
    return true;
}

IQ_FN iqdb_value iq_value_decode(const uint8_t *bytes, size_t size) {
    static const uint8_t sizes[] = {0, 1, 8, 8}; /* of NULL, BOOL, INT and FLOAT */
    iqdb_value value;
    iq_container container;
    memset(&value, 0, sizeof value);
    value.type = IQDB_TYPE_ABSENT;
    if (size == 0) return value;
    const uint8_t type = bytes[0], *body = bytes + 1;
    size--;
    if (type <= IQDB_TYPE_FLOAT) {
        if (size != sizes[type] || (size == 1 && body[0] > 1)) return value;
        if (size == 8) {
            const uint64_t word = iq_get_u64(body);
            /* Copied as bits: a double that passes through a register may lose the payload of a NaN. */
            memcpy(&value.as, &word, 8);
        } else if (size == 1) {
            value.as.boolean = body[0] == 1;
        }
    } else if (type == IQDB_TYPE_TEXT) {
        if (size == 0 || body[size - 1] != 0) return value;
        value.as.text.data = (const char *)body;
        value.as.text.size = size - 1;
    } else if (type == IQDB_TYPE_BYTES) {
        value.as.bytes.data = body;
        value.as.bytes.size = size;
    } else if (type > IQDB_TYPE_OBJECT || !iq_container_open(body, size, type == IQDB_TYPE_OBJECT, &container)) {
        return value;
    } else if (type == IQDB_TYPE_OBJECT) {
        value.as.object.count = container.count;
        value.as.object.encoded = body;
        value.as.object.size = size;
    } else {
        value.as.array.count = container.count;
        value.as.array.encoded = body;
        value.as.array.size = size;
    }
    value.type = (iqdb_type)type;
    return value;
}

IQ_FN size_t iq_value_write(const iqdb_value *value, uint8_t *out) {
    uint64_t word;
    switch ((unsigned)value->type) {
    case IQDB_TYPE_BOOL:
        if (out != NULL) *out = value->as.boolean ? 1 : 0;
        return 1;
    case IQDB_TYPE_INT:
    case IQDB_TYPE_FLOAT:
        memcpy(&word, &value->as, 8);
        if (out != NULL) iq_put_u64(out, word);
        return 8;
    case IQDB_TYPE_TEXT:
        if (out != NULL && value->as.text.size > 0) memcpy(out, value->as.text.data, value->as.text.size);
        if (out != NULL) out[value->as.text.size] = 0;
        return value->as.text.size + 1;
    case IQDB_TYPE_BYTES:
        if (out != NULL && value->as.bytes.size > 0) memcpy(out, value->as.bytes.data, value->as.bytes.size);
        return value->as.bytes.size;
    default:
        return 0; /* NULL */
    }
}

IQ_FN bool iq_container_field(const iq_container *container, size_t index, iqdb_field *out_field,
                              size_t *out_key_size) {
    const uint8_t *item;
    size_t size;
    if (!iq_container_item(container, index, &item, &size)) return false;
    if (!container->is_object) {
        *out_key_size = 0;
        out_field->key = "";
        out_field->value = iq_value_decode(item, size);
        return true;
    }
    const uint8_t *end = (const uint8_t *)memchr(item, 0, size);
    if (end == NULL) return false;
    *out_key_size = (size_t)(end - item);
    out_field->key = (const char *)item;
    out_field->value = iq_value_decode(end + 1, size - *out_key_size - 1);
    return true;
}

/* Order of a key of key_size bytes and the key that an item starts with; false where the item has no key. */
static bool iq_container_compare(const char *key, size_t key_size, const uint8_t *item, size_t item_size,
                                 int *out_order) {
    const size_t common = key_size < item_size ? key_size : item_size;
    const int order = common == 0 ? 0 : memcmp(key, item, common);
    /* Equal so far: the item's key goes on unless its NUL comes here. No key has a NUL, so nothing else ends it. */
    if (order == 0 && common == item_size) return false;
    *out_order = order != 0 ? order : item[common] == 0 ? 0 : -1;
    return true;
}

IQ_FN bool iq_container_find(const iq_container *container, const char *key, size_t key_size, size_t *out_index,
                             const uint8_t **out_item, size_t *out_size) {
    size_t low = 0, high = container->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        int order;
        if (!iq_container_item(container, middle, out_item, out_size)) return false;
        if (!iq_container_compare(key, key_size, *out_item, *out_size, &order)) return false;
        if (order == 0) {
            *out_index = middle;
            return true;
        }
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}

/* The bytes of the value of exactly this key; false also where there are none. */
static bool iq_container_value(const iq_container *object, const char *key, size_t key_size, const uint8_t **out_value,
                               size_t *out_size) {
    size_t index, size;
    const uint8_t *item;
    if (!iq_container_find(object, key, key_size, &index, &item, &size)) return false;
    *out_value = item + key_size + 1; /* a key that was found ends within its item */
    *out_size = size - key_size - 1;
    return *out_size > 0;
}

IQ_FN bool iq_container_get(const iq_container *object, const char *key, size_t key_size, const uint8_t **out_value,
                            size_t *out_size) {
    const char *end = key + key_size;
    iq_container inner = *object;
    while (!iq_container_value(&inner, key, (size_t)(end - key), out_value, out_size)) {
        /* Follow the shortest part before a dot that names an object. There is no way back from it: each key has one
         * meaning that does not depend on what the objects within hold. */
        const iq_container outer = inner;
        const char *dot = key;
        for (;; dot++) {
            dot = dot == end ? NULL : (const char *)memchr(dot, '.', (size_t)(end - dot));
            if (dot == NULL) return false;
            if (iq_container_value(&outer, key, (size_t)(dot - key), out_value, out_size) &&
                (*out_value)[0] == IQDB_TYPE_OBJECT && iq_container_open(*out_value + 1, *out_size - 1, true, &inner))
                break;
        }
        key = dot + 1;
    }
    return true;
}

/* ---- Checking encoded bytes ---- */

/* Opens a container; false where its table is malformed. */
static bool iq_payload_check_open(const iq_value_parts *parts, iq_open_container *open) {
    open->next = 0;
    if (!iq_container_open(parts->encoded, parts->size, parts->is_object, &open->container)) return false;
    const uint32_t count = open->container.count;
    return count == 0 ? parts->size == 4 : iq_get_u32(open->container.bytes + 4) == iq_container_table_end(count);
}

/* The next value of an open container, its key checked; false where it is malformed. */
static bool iq_payload_check_next(iq_open_container *open, iqdb_value *out_value) {
    const iq_container *container = &open->container;
    const uint32_t index = open->next++;
    iqdb_field field;
    size_t key_size;
    if (!iq_container_field(container, index, &field, &key_size)) return false;
    if (!iq_utf8_is_valid(field.key, key_size)) return false;
    if (container->is_object && index > 0) {
        /* The item before has been checked, so its key ends within it. */
        const uint8_t *before = container->bytes + iq_get_u32(container->bytes + 4 * (size_t)index);
        if (strcmp((const char *)before, field.key) >= 0) return false;
    }
    *out_value = field.value;
    if (out_value->type != IQDB_TYPE_TEXT) return out_value->type != IQDB_TYPE_ABSENT;
    return iq_utf8_is_valid(out_value->as.text.data, out_value->as.text.size);
}

/* Checks one encoded container that lies in `outside` others, fewer than IQDB_PAYLOAD_DEPTH_MAX. */
static iqdb_result iq_payload_check(iqdb_value value, size_t outside) {
    iq_open_container open[IQDB_PAYLOAD_DEPTH_MAX];
    size_t depth = 0;
    if (iq_value_parts_of(&value).size > IQDB_PAYLOAD_SIZE_MAX) return IQDB_ERR_LIMIT;
    for (;;) {
        const iq_value_parts parts = iq_value_parts_of(&value);
        if (depth >= IQDB_PAYLOAD_DEPTH_MAX - outside) return IQDB_ERR_INVALID_PAYLOAD;
        if (!iq_payload_check_open(&parts, &open[depth++])) return IQDB_ERR_INVALID_PAYLOAD;
        do {
            while (open[depth - 1].next == open[depth - 1].container.count)
                if (--depth == 0) return IQDB_OK;
            if (!iq_payload_check_next(&open[depth - 1], &value)) return IQDB_ERR_INVALID_PAYLOAD;
        } while (!iq_value_is_container(&value));
    }
}

IQ_FN iqdb_result iq_payload_validate(const void *bytes, size_t size) {
    return bytes == NULL ? IQDB_ERR_INVALID_PAYLOAD : iq_payload_check(iq_value_of_payload(bytes, size), 0);
}

/* ---- Measuring ---- */

typedef struct iq_payload_frame {
    const void *items; /* iqdb_field of an object, iqdb_value of an array */
    uint32_t count;    /* at least 1 */
    uint32_t next;
    uint32_t start; /* writing: where the container begins in the output */
    bool is_object;
} iq_payload_frame;

typedef struct iq_payload_walk {
    iq_payload_frame frames[IQDB_PAYLOAD_DEPTH_MAX];
    size_t depth;                 /* frames in use */
    size_t outside;               /* containers around the first value */
    size_t size;                  /* bytes measured, at most IQDB_PAYLOAD_SIZE_MAX; or written */
    const iqdb_buffer *forbidden; /* measuring: NULL, or what no input may lie in */
} iq_payload_walk;

static void iq_payload_walk_begin(iq_payload_walk *walk, size_t outside, const iqdb_buffer *forbidden) {
    walk->depth = 0;
    walk->outside = outside;
    walk->size = 0;
    walk->forbidden = forbidden;
}

static void iq_payload_walk_push(iq_payload_walk *walk, const iq_value_parts *parts) {
    iq_payload_frame *frame = &walk->frames[walk->depth++];
    frame->items = parts->items;
    frame->count = (uint32_t)parts->count;
    frame->next = 0;
    frame->start = (uint32_t)walk->size;
    frame->is_object = parts->is_object;
}

/* The innermost container with items left, or NULL. */
static iq_payload_frame *iq_payload_walk_top(iq_payload_walk *walk) {
    while (walk->depth > 0) {
        iq_payload_frame *frame = &walk->frames[walk->depth - 1];
        if (frame->next < frame->count) return frame;
        walk->depth--;
    }
    return NULL;
}

static iqdb_result iq_payload_charge(iq_payload_walk *walk, size_t size) {
    if (size > IQDB_PAYLOAD_SIZE_MAX - walk->size) return IQDB_ERR_LIMIT;
    walk->size += size;
    return IQDB_OK;
}

static iqdb_result iq_payload_measure_bytes(iq_payload_walk *walk, const void *bytes, size_t size) {
    if (bytes == NULL && size > 0) return IQDB_ERR_INVALID_PAYLOAD;
    if (iq_buffer_overlaps(walk->forbidden, bytes, size)) return IQDB_ERR_INVALID_ARGUMENT;
    return iq_payload_charge(walk, size);
}

/* A key or a text, with the NUL behind it. */
static iqdb_result iq_payload_measure_text(iq_payload_walk *walk, const char *text, size_t size) {
    if (text == NULL) return IQDB_ERR_INVALID_PAYLOAD;
    iqdb_result result = iq_payload_measure_bytes(walk, text, size);
    if (result == IQDB_OK) result = iq_payload_charge(walk, 1);
    if (result == IQDB_OK && !iq_utf8_is_valid(text, size)) result = IQDB_ERR_INVALID_PAYLOAD;
    return result;
}

/* A container: an encoded one whole, of a built one the table; its items follow from its frame. */
static iqdb_result iq_payload_measure_container(iq_payload_walk *walk, const iqdb_value *value) {
    const iq_value_parts parts = iq_value_parts_of(value);
    const size_t outside = walk->outside + walk->depth;
    iqdb_result result;
    if (outside >= IQDB_PAYLOAD_DEPTH_MAX) return IQDB_ERR_INVALID_PAYLOAD;
    if (parts.encoded != NULL) {
        result = iq_payload_measure_bytes(walk, parts.encoded, parts.size);
        return result == IQDB_OK ? iq_payload_check(*value, outside) : result;
    }
    if (parts.items == NULL && parts.count > 0) return IQDB_ERR_INVALID_PAYLOAD;
    if (parts.count > IQDB_PAYLOAD_SIZE_MAX / 4) return IQDB_ERR_LIMIT;
    const size_t item_size = parts.is_object ? sizeof(iqdb_field) : sizeof(iqdb_value);
    if (iq_buffer_overlaps(walk->forbidden, parts.items, parts.count * item_size)) return IQDB_ERR_INVALID_ARGUMENT;
    result = iq_payload_charge(walk, 4 + 4 * parts.count);
    if (result == IQDB_OK && parts.count > 0) iq_payload_walk_push(walk, &parts);
    return result;
}

static iqdb_result iq_payload_measure_value(iq_payload_walk *walk, const iqdb_value *value) {
    const unsigned type = (unsigned)value->type;
    if (type == IQDB_TYPE_TEXT) return iq_payload_measure_text(walk, value->as.text.data, value->as.text.size);
    if (type == IQDB_TYPE_BYTES) return iq_payload_measure_bytes(walk, value->as.bytes.data, value->as.bytes.size);
    if (iq_value_is_container(value)) return iq_payload_measure_container(walk, value);
    return type < IQDB_TYPE_TEXT ? iq_payload_charge(walk, iq_value_write(value, NULL)) : IQDB_ERR_INVALID_PAYLOAD;
}

/* Adds what `value` takes behind its type byte. */
static iqdb_result iq_payload_measure(iq_payload_walk *walk, const iqdb_value *value) {
    for (;;) {
        iqdb_result result = iq_payload_measure_value(walk, value);
        if (result != IQDB_OK) return result;
        iq_payload_frame *frame = iq_payload_walk_top(walk);
        if (frame == NULL) return IQDB_OK;
        if (frame->is_object) {
            const iqdb_field *field = (const iqdb_field *)frame->items + frame->next;
            result = iq_payload_measure_text(walk, field->key, field->key == NULL ? 0 : strlen(field->key));
            value = &field->value;
        } else {
            value = (const iqdb_value *)frame->items + frame->next;
        }
        frame->next++;
        if (result == IQDB_OK) result = iq_payload_charge(walk, 1);
        if (result != IQDB_OK) return result;
    }
}

/* ---- Writing what has been measured ---- */

static const char *iq_payload_key(const iq_payload_keys *keys, uint32_t index) {
    if (keys->fields != NULL) return keys->fields[index].key;
    return (const char *)keys->items + keys->starts[index];
}

/* Merges the runs table[0 .. left - 1] and table[left .. count - 1]; false where a key stands in both. */
static bool iq_payload_merge_runs(const iq_payload_keys *keys, uint8_t *table, size_t left, size_t count,
                                  uint8_t *spare) {
    if (left == 0 || left == count) return true;
    const char *last = iq_payload_key(keys, iq_get_u32(table + 4 * left - 4));
    if (strcmp(last, iq_payload_key(keys, iq_get_u32(table + 4 * left))) < 0) return true;
    memcpy(spare, table, 4 * left);
    size_t i = 0, j = left, written = 0;
    while (i < left && j < count) {
        const uint32_t a = iq_get_u32(spare + 4 * i), b = iq_get_u32(table + 4 * j);
        const int order = strcmp(iq_payload_key(keys, a), iq_payload_key(keys, b));
        if (order == 0) return false;
        iq_put_u32(table + 4 * written++, order < 0 ? a : b);
        if (order < 0)
            i++;
        else
            j++;
    }
    memcpy(table + 4 * written, spare + 4 * i, 4 * (left - i));
    return true;
}

/* Run i of 2^level begins at i * count / 2^level, so no left one is longer than count / 2. */
IQ_FN bool iq_payload_sort(const iq_payload_keys *keys, size_t count, uint8_t *table, uint8_t *spare) {
    bool ascending = true;
    for (size_t i = 0; i < count; i++) {
        iq_put_u32(table + 4 * i, (uint32_t)i);
        if (ascending && i > 0)
            ascending = strcmp(iq_payload_key(keys, (uint32_t)i - 1), iq_payload_key(keys, (uint32_t)i)) < 0;
    }
    if (ascending) return true;
    unsigned level = 0;
    while ((uint64_t)1 << level < count) level++;
    for (; level > 0; level--) {
        for (uint64_t run = 0; run < (uint64_t)1 << level; run += 2) {
            const size_t first = (size_t)(run * count >> level);
            const size_t middle = (size_t)((run + 1) * count >> level);
            const size_t end = (size_t)((run + 2) * count >> level);
            if (!iq_payload_merge_runs(keys, table + 4 * first, middle - first, end - first, spare)) return false;
        }
    }
    return true;
}

static bool iq_payload_sort_fields(const iqdb_field *fields, size_t count, uint8_t *table, uint8_t *spare) {
    const iq_payload_keys keys = {fields, NULL, NULL};
    return iq_payload_sort(&keys, count, table, spare);
}

static void iq_payload_write_bytes(iq_payload_walk *walk, uint8_t *out, const void *bytes, size_t size) {
    if (size > 0) memcpy(out + walk->size, bytes, size);
    walk->size += size;
}

static void iq_payload_write_text(iq_payload_walk *walk, uint8_t *out, const char *text, size_t size) {
    iq_payload_write_bytes(walk, out, text, size);
    out[walk->size++] = 0;
}

/* Writes a measured value behind its type byte, of a built container the table; its items follow from its frame. */
static bool iq_payload_write_value(iq_payload_walk *walk, const iqdb_value *value, uint8_t *out) {
    if (!iq_value_is_container(value)) {
        walk->size += iq_value_write(value, out + walk->size);
        return true;
    }
    const iq_value_parts parts = iq_value_parts_of(value);
    if (parts.encoded != NULL) {
        iq_payload_write_bytes(walk, out, parts.encoded, parts.size);
        return true;
    }
    uint8_t *table = out + walk->size + 4, *spare = table + 4 * parts.count;
    iq_put_u32(table - 4, (uint32_t)parts.count);
    /* Each item to come takes two bytes at least, NUL and type: so much the sorting may borrow behind the table. */
    if (parts.is_object && !iq_payload_sort_fields((const iqdb_field *)parts.items, parts.count, table, spare))
        return false;
    if (parts.count > 0) iq_payload_walk_push(walk, &parts);
    walk->size += 4 + 4 * parts.count;
    return true;
}

/* Writes a measured value behind its type byte to out + walk->size; false where a key stands twice. */
static bool iq_payload_write(iq_payload_walk *walk, const iqdb_value *value, uint8_t *out) {
    for (;;) {
        if (!iq_payload_write_value(walk, value, out)) return false;
        iq_payload_frame *frame = iq_payload_walk_top(walk);
        if (frame == NULL) return true;
        uint8_t *entry = out + frame->start + 4 + 4 * (size_t)frame->next;
        const size_t offset = walk->size - frame->start;
        if (frame->is_object) {
            const iqdb_field *field = (const iqdb_field *)frame->items + iq_get_u32(entry);
            iq_payload_write_text(walk, out, field->key, strlen(field->key));
            value = &field->value;
        } else {
            value = (const iqdb_value *)frame->items + frame->next;
        }
        iq_put_u32(entry, (uint32_t)offset);
        out[walk->size++] = (uint8_t)value->type;
        frame->next++;
    }
}

IQ_FN iqdb_result iq_payload_encode(const iqdb_field *fields, size_t count, iq_blob *out) {
    const iqdb_value root = iqdb_object(fields, count);
    iq_payload_walk walk;
    iq_payload_walk_begin(&walk, 0, NULL);
    iqdb_result result = iq_payload_measure(&walk, &root);
    if (result == IQDB_OK) result = iq_blob_reserve(out, walk.size);
    if (result != IQDB_OK) return result;
    iq_payload_walk_begin(&walk, 0, NULL);
    if (!iq_payload_write(&walk, &root, out->bytes + out->size)) return IQDB_ERR_INVALID_PAYLOAD;
    out->size += walk.size;
    return IQDB_OK;
}

/* ---- Merging ---- */

/* Adds what the changes take in the result to walk->size; subtracts the items they replace from *base_size. */
static iqdb_result iq_payload_measure_changes(iq_payload_walk *walk, const iq_container *base,
                                              const iqdb_field *changes, size_t count, int64_t *base_size,
                                              int64_t *out_count) {
    for (size_t i = 0; i < count; i++) {
        const iqdb_field *change = &changes[i];
        const size_t key_size = change->key == NULL ? 0 : strlen(change->key);
        const size_t size_before = walk->size;
        iqdb_result result = iq_payload_measure_text(walk, change->key, key_size);
        if (result != IQDB_OK) return result;
        const uint8_t *item;
        size_t index, item_size;
        if (iq_container_find(base, change->key, key_size, &index, &item, &item_size)) {
            *base_size -= (int64_t)item_size + 4;
            --*out_count;
        }
        if (change->value.type == IQDB_TYPE_ABSENT) {
            walk->size = size_before;
            continue;
        }
        result = iq_payload_charge(walk, 4 + 1);
        if (result == IQDB_OK) result = iq_payload_measure(walk, &change->value);
        if (result != IQDB_OK) return result;
        ++*out_count;
    }
    return IQDB_OK;
}

/* Writes the result: base and changes[order[0]], changes[order[1]] ... are both in the order of keys. */
static bool iq_payload_write_merged(iq_payload_walk *walk, const iq_container *base, const iqdb_field *changes,
                                    size_t count, const uint8_t *order, size_t out_count, uint8_t *out) {
    const uint8_t *item = NULL;
    size_t i = 0, j = 0, written = 0, item_size = 0;
    iq_put_u32(out, (uint32_t)out_count);
    walk->size = 4 + 4 * out_count;
    while (i < base->count || j < count) {
        const iqdb_field *change = j < count ? &changes[iq_get_u32(order + 4 * j)] : NULL;
        /* The base is valid: each item is there, and its key ends in it. */
        int compared = 1;
        if (iq_container_item(base, i, &item, &item_size))
            compared = change == NULL ? -1 : strcmp((const char *)item, change->key);
        if (compared <= 0) i++;
        if (compared >= 0) j++;
        if (compared >= 0 && change->value.type == IQDB_TYPE_ABSENT) continue;
        iq_put_u32(out + 4 + 4 * written++, (uint32_t)walk->size);
        if (compared < 0) {
            iq_payload_write_bytes(walk, out, item, item_size);
            continue;
        }
        iq_payload_write_text(walk, out, change->key, strlen(change->key));
        out[walk->size++] = (uint8_t)change->value.type;
        if (!iq_payload_write(walk, &change->value, out)) return false;
    }
    return true;
}

IQDB_API iqdb_result iqdb_payload_with(iqdb_payload payload, const iqdb_field *changes, size_t count,
                                       iqdb_buffer *buffer, iqdb_payload *out_payload) {
    static const uint8_t empty[4] = {0, 0, 0, 0};
    if (buffer == NULL || out_payload == NULL || (changes == NULL && count > 0)) return IQDB_ERR_INVALID_ARGUMENT;
    const void *base_bytes = payload.bytes == NULL ? (const void *)empty : payload.bytes;
    const size_t size = payload.bytes == NULL ? sizeof empty : payload.size;
    if (iq_buffer_overlaps(buffer, base_bytes, size)) return IQDB_ERR_INVALID_ARGUMENT;
    buffer->used = buffer->needed = 0; /* a LIMIT that no capacity helps against leaves needed at 0 */
    if (count > IQDB_PAYLOAD_SIZE_MAX / 4) return IQDB_ERR_LIMIT;
    if (iq_buffer_overlaps(buffer, changes, count * sizeof *changes)) return IQDB_ERR_INVALID_ARGUMENT;
    iq_container base;
    if (!iq_container_open(base_bytes, size, true, &base)) return IQDB_ERR_INVALID_PAYLOAD;
    iqdb_result result = iq_payload_validate(base_bytes, size);
    if (result != IQDB_OK) return result;

    iq_payload_walk walk;
    iq_payload_walk_begin(&walk, 1, buffer);
    int64_t out_size = (int64_t)size, out_count = (int64_t)base.count;
    result = iq_payload_measure_changes(&walk, &base, changes, count, &out_size, &out_count);
    if (result != IQDB_OK) return result;
    out_size += (int64_t)walk.size;
    if (out_size > (int64_t)IQDB_PAYLOAD_SIZE_MAX) return IQDB_ERR_LIMIT;
    /* A key that stands twice has been counted twice, perhaps below nothing. It is found by sorting, before the size
     * is relied on. The order of the changes, and room to sort them, stand behind the result until it is written. */
    if (out_size < 0) out_size = 0;
    const size_t order_size = 4 * count + 4 * (count / 2);
    uint8_t *out;
    result = iq_buffer_start(buffer, (size_t)out_size + order_size, &out);
    if (result != IQDB_OK) return result;
    uint8_t *order = out + (size_t)out_size;
    iq_payload_walk_begin(&walk, 1, NULL);
    if (!iq_payload_sort_fields(changes, count, order, order + 4 * count) ||
        !iq_payload_write_merged(&walk, &base, changes, count, order, (size_t)out_count, out)) {
        buffer->used = 0;
        return IQDB_ERR_INVALID_PAYLOAD;
    }
    IQ_ASSERT(walk.size == (size_t)out_size);
    buffer->used -= order_size;
    out_payload->bytes = out;
    out_payload->size = walk.size;
    return IQDB_OK;
}
