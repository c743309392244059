/* Payloads as JSON (RFC 8259) and back; the manual says what stands for what JSON has no word for.
 *
 * 1. Two passes in both directions, of the same code: the first only counts, so the second writes into memory that is
 *    known to suffice, and a fixed buffer learns at once what it lacks.
 * 2. No recursion: open containers stand on a stack of IQDB_PAYLOAD_DEPTH_MAX frames, which is also the depth limit.
 * 3. Reading keeps the items of open containers one behind another, as they come, and remembers where each starts. A
 *    container that closes is put together beside them, its items in the order of keys, and goes back to their place as
 *    one value. Each byte moves at most twice for each container around it.
 * 4. What is written reads as the same bytes: numbers by number.h, keys in order, and an object that looks like one of
 *    ours for bytes or floats gets one more $ in its key. */
#include "base/report.h"
#include "codec/number.h"
#include "codec/payload.h"

#if !defined(IQDB_NO_TEXT)

/* ---- Objects that stand for values ----
 * {"$bytes": text} and {"$float": text}; with more than one $ they stand for themselves, with one $ less. */

typedef enum iq_json_marker {
    IQ_JSON_PLAIN = 0,
    IQ_JSON_BYTES = 1,
    IQ_JSON_FLOAT = 2,
    IQ_JSON_ESCAPED = 3
} iq_json_marker;

static iq_json_marker iq_json_marker_of(const char *key, size_t size) {
    size_t dollars = 0;
    while (dollars < size && key[dollars] == '$') dollars++;
    if (dollars == 0 || size - dollars != 5) return IQ_JSON_PLAIN;
    const bool is_bytes = memcmp(key + dollars, "bytes", 5) == 0;
    if (!is_bytes && memcmp(key + dollars, "float", 5) != 0) return IQ_JSON_PLAIN;
    return dollars > 1 ? IQ_JSON_ESCAPED : is_bytes ? IQ_JSON_BYTES : IQ_JSON_FLOAT;
}

/* The number of `count` hexadecimal digits. */
static bool iq_hex_read(const char *text, size_t count, uint64_t *out) {
    *out = 0;
    for (size_t i = 0; i < count; i++) {
        const int digit = iq_hex_digit(text[i]);
        if (digit < 0) return false;
        *out = *out << 4 | (uint64_t)digit;
    }
    return true;
}

/* ---- Writing ---- */

static void iq_json_put_string(iq_text_sink *sink, const char *text, size_t size) {
    static const char names[] = "btn?fr"; /* of U+0008 to U+000D; U+000B has none */
    size_t from = 0;
    iq_text_put(sink, "\"", 1);
    for (size_t i = 0; i < size; i++) {
        const uint8_t c = (uint8_t)text[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        iq_text_put(sink, text + from, i - from);
        from = i + 1;
        if (c < 0x20 && (c < 8 || c > 13 || c == 11)) {
            iq_text_put(sink, "\\u00", 4);
            iq_text_put_hex(sink, &c, 1);
        } else {
            const char pair[2] = {'\\', c < 0x20 ? names[c - 8] : (char)c};
            iq_text_put(sink, pair, 2);
        }
    }
    iq_text_put(sink, text + from, size - from);
    iq_text_put(sink, "\"", 1);
}

static void iq_json_put_special(iq_text_sink *sink, uint64_t bits) {
    iq_text_put(sink, "{\"$float\":\"", 11);
    if ((bits & ~IQ_F64_SIGN) == IQ_F64_INFINITY) {
        if (bits >> 63 != 0) iq_text_put(sink, "-", 1);
        iq_text_put(sink, "infinity", 8);
    } else if (bits == IQ_F64_NAN) {
        iq_text_put(sink, "nan", 3);
    } else {
        uint8_t bytes[8];
        for (unsigned i = 0; i < 8; i++) bytes[i] = (uint8_t)(bits >> (56 - 8 * i));
        iq_text_put_hex(sink, bytes, 8);
    }
    iq_text_put(sink, "\"}", 2);
}

/* Any value but a container. */
static void iq_json_put_scalar(iq_text_sink *sink, const iqdb_value *value) {
    char number[IQ_NUMBER_SIZE_MAX];
    uint64_t bits;
    switch ((unsigned)value->type) {
    case IQDB_TYPE_NULL:
        iq_text_put(sink, "null", 4);
        break;
    case IQDB_TYPE_BOOL:
        iq_text_put(sink, value->as.boolean ? "true" : "false", value->as.boolean ? 4 : 5);
        break;
    case IQDB_TYPE_INT:
        iq_text_put(sink, number, iq_number_write_int(value->as.integer, number));
        break;
    case IQDB_TYPE_FLOAT:
        memcpy(&bits, &value->as.real, 8);
        if ((bits & IQ_F64_INFINITY) == IQ_F64_INFINITY)
            iq_json_put_special(sink, bits);
        else
            iq_text_put(sink, number, iq_number_write_float(value->as.real, number));
        break;
    case IQDB_TYPE_TEXT:
        iq_json_put_string(sink, value->as.text.data, value->as.text.size);
        break;
    default: /* BYTES */
        iq_text_put(sink, "{\"$bytes\":\"", 11);
        iq_text_put_hex(sink, (const uint8_t *)value->as.bytes.data, value->as.bytes.size);
        iq_text_put(sink, "\"}", 2);
        break;
    }
}

/* Writes the next item of the container, and its value unless that is a container, which goes to *out_value. */
static void iq_json_put_item(iq_text_sink *sink, iq_open_container *top, bool is_root, iqdb_value *out_value) {
    iqdb_field field = {"", iqdb_null()};
    size_t size = 0;
    if (top->next > 0) iq_text_put(sink, ",", 1);
    iq_container_field(&top->container, top->next++, &field, &size);
    if (top->container.is_object) {
        const bool is_alone = !is_root && top->container.count == 1 && field.value.type == IQDB_TYPE_TEXT;
        const bool is_marked = is_alone && iq_json_marker_of(field.key, size) != IQ_JSON_PLAIN;
        if (is_marked) {
            iq_text_put(sink, "\"$", 2);
            iq_text_put(sink, field.key, size); /* dollars and letters */
            iq_text_put(sink, "\"", 1);
        } else {
            iq_json_put_string(sink, field.key, size);
        }
        iq_text_put(sink, ":", 1);
    }
    if (!iq_value_is_container(&field.value)) iq_json_put_scalar(sink, &field.value);
    *out_value = field.value;
}

/* Writes a valid payload, or that there is none; of other bytes, empty containers. */
static void iq_json_put_payload(iq_text_sink *sink, iqdb_payload payload) {
    iq_open_container open[IQDB_PAYLOAD_DEPTH_MAX];
    iqdb_value value = payload.bytes != NULL ? iq_value_of_payload(payload.bytes, payload.size) : iqdb_null();
    size_t depth = 0;
    if (payload.bytes == NULL) iq_text_put(sink, "null", 4);
    for (;;) {
        if (iq_value_is_container(&value)) {
            const iq_value_parts parts = iq_value_parts_of(&value);
            (void)iq_container_open(parts.encoded, parts.size, parts.is_object, &open[depth].container);
            open[depth++].next = 0;
            iq_text_put(sink, parts.is_object ? "{" : "[", 1);
        }
        for (; depth > 0 && open[depth - 1].next == open[depth - 1].container.count; depth--)
            iq_text_put(sink, open[depth - 1].container.is_object ? "}" : "]", 1);
        if (depth == 0) return;
        iq_json_put_item(sink, &open[depth - 1], depth == 1, &value);
    }
}

IQDB_API iqdb_result iqdb_payload_to_json(iqdb_payload payload, iqdb_buffer *buffer, const char **out_json,
                                          size_t *out_size) {
    if (buffer == NULL || out_json == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (iq_buffer_overlaps(buffer, payload.bytes, payload.size)) return IQDB_ERR_INVALID_ARGUMENT;
    buffer->used = buffer->needed = 0;
    iqdb_result result = payload.bytes == NULL ? IQDB_OK : iq_payload_validate(payload.bytes, payload.size);
    if (result != IQDB_OK) return result;
    iq_text_sink sink = {NULL, 0};
    iq_json_put_payload(&sink, payload);
    uint8_t *bytes;
    result = iq_buffer_start(buffer, sink.size + 1, &bytes);
    if (result != IQDB_OK) return result;
    sink.text = (char *)bytes;
    sink.size = 0;
    iq_json_put_payload(&sink, payload);
    sink.text[sink.size] = 0;
    *out_json = sink.text;
    if (out_size != NULL) *out_size = sink.size;
    return IQDB_OK;
}

/* ---- Reading ---- */

typedef struct iq_json_frame {
    uint32_t start; /* of the container's items in `items` */
    uint32_t first; /* of its items in `starts` */
    uint32_t count;
    bool is_object;
} iq_json_frame;

typedef struct iq_json {
    const char *text;
    size_t size;
    size_t at; /* what comes next; after a failure where it is */
    iqdb_result result;
    const char *why;
    uint8_t *items;   /* NULL: measuring */
    uint64_t used;    /* bytes of `items`; 64 bits hold what any text measures */
    uint32_t *starts; /* of the items of open containers, from where their container's begin */
    size_t pending;   /* of these */
    size_t pending_max;
    uint8_t *built; /* room for one container */
    size_t depth;
    iq_json_frame frames[IQDB_PAYLOAD_DEPTH_MAX];
} iq_json;

static bool iq_json_fail(iq_json *json, size_t at, const char *why) {
    json->at = at;
    json->why = why;
    json->result = IQDB_ERR_INVALID_PAYLOAD;
    return false;
}

/* What stands for bytes or a float is measured as the object that it looks like, at most five times as large. */
#define IQ_JSON_SIZE_MAX ((size_t)IQDB_PAYLOAD_SIZE_MAX * 8)

/* Room for `size` bytes of the encoding; NULL: measuring. */
static uint8_t *iq_json_take(iq_json *json, size_t size) {
    uint8_t *out = json->items == NULL ? NULL : json->items + (size_t)json->used;
    json->used += size;
    return out;
}

static void iq_json_put_type(iq_json *json, iqdb_type type) {
    uint8_t *out = iq_json_take(json, 1);
    if (out != NULL) *out = (uint8_t)type;
}

static void iq_json_skip_space(iq_json *json) {
    while (json->at < json->size) {
        const char c = json->text[json->at];
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r') break;
        json->at++;
    }
}

/* 0 at the end, where it is no byte of any word of JSON. */
static char iq_json_peek(const iq_json *json) { return json->at < json->size ? json->text[json->at] : 0; }

static size_t iq_utf8_write(uint32_t code, char *out) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    const size_t size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = size; i-- > 1; code >>= 6) out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)((size == 2 ? 0xC0 : size == 3 ? 0xE0 : 0xF0) | code);
    return size;
}

/* The character of an escape that begins at text[*at], which moves behind it. */
static const char *iq_json_read_escape(const char *text, size_t size, size_t *at, uint32_t *out_code) {
    static const char names[] = "\"\\/bfnrt", codes[] = "\"\\/\b\f\n\r\t";
    uint64_t code, low;
    if (size - *at < 2) return "the text ends within a string";
    const char name = text[*at + 1];
    if (name != 'u') {
        const char *found = name == 0 ? NULL : strchr(names, name);
        if (found == NULL) return "there is no such escape";
        *out_code = (uint8_t)codes[found - names];
        *at += 2;
        return NULL;
    }
    if (size - *at < 6 || !iq_hex_read(text + *at + 2, 4, &code)) return "\\u wants four hexadecimal digits";
    if (code >= 0xD800 && code <= 0xDFFF) {
        const char *second = text + *at + 6;
        const bool is_pair = code < 0xDC00 && size - *at >= 12 && second[0] == '\\' && second[1] == 'u' &&
                             iq_hex_read(second + 2, 4, &low) && low >= 0xDC00 && low <= 0xDFFF;
        if (!is_pair) return "half of a surrogate pair is no character";
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        *at += 6;
    }
    *out_code = (uint32_t)code;
    *at += 6;
    return NULL;
}

/* Reads the string at json->at, which moves behind it. Its characters go to `out`, unless that is NULL. */
static bool iq_json_read_string(iq_json *json, char *out, size_t *out_size) {
    const char *text = json->text;
    const size_t begin = json->at + 1;
    size_t at = begin, size = 0;
    while (at < json->size && text[at] != '"') {
        uint32_t code;
        char encoded[4];
        if ((uint8_t)text[at] < 0x20) return iq_json_fail(json, at, "a control character in a string must be escaped");
        if (text[at] != '\\') {
            if (out != NULL) out[size] = text[at];
            size++;
            at++;
            continue;
        }
        const char *why = iq_json_read_escape(text, json->size, &at, &code);
        if (why != NULL) return iq_json_fail(json, at, why);
        const size_t count = iq_utf8_write(code, encoded);
        if (out != NULL) memcpy(out + size, encoded, count);
        size += count;
    }
    if (at >= json->size) return iq_json_fail(json, begin - 1, "the string has no end");
    /* Escapes are ASCII, so they neither complete a character nor hide that one is incomplete. */
    if (out == NULL && !iq_utf8_is_valid(text + begin, at - begin))
        return iq_json_fail(json, begin - 1, "the string is not UTF-8");
    *out_size = size;
    json->at = at + 1;
    return true;
}

/* A string with its NUL, as the encoding has keys and texts. */
static bool iq_json_take_string(iq_json *json, bool is_key) {
    const size_t begin = json->at;
    const bool measuring = json->items == NULL;
    char *out = measuring ? NULL : (char *)json->items + (size_t)json->used;
    size_t size;
    if (iq_json_peek(json) != '"') return iq_json_fail(json, begin, "a key in quotes is expected");
    if (!iq_json_read_string(json, out, &size)) return false;
    (void)iq_json_take(json, size + 1);
    if (measuring) return true;
    out[size] = 0;
    if (is_key && strlen(out) != size) return iq_json_fail(json, begin, "a key cannot hold U+0000");
    return true;
}

static bool iq_json_is_word(const iq_json *json, const char *word, size_t size) {
    return json->size - json->at >= size && memcmp(json->text + json->at, word, size) == 0;
}

/* Any value but a container. */
static bool iq_json_take_scalar(iq_json *json) {
    iqdb_value value = iqdb_null();
    size_t size = 4;
    if (iq_json_peek(json) == '"') {
        iq_json_put_type(json, IQDB_TYPE_TEXT);
        return iq_json_take_string(json, false);
    }
    if (iq_json_is_word(json, "true", 4)) {
        value = iqdb_bool(true);
    } else if (iq_json_is_word(json, "false", 5)) {
        value = iqdb_bool(false);
        size = 5;
    } else if (!iq_json_is_word(json, "null", 4)) {
        size = iq_number_read(json->text + json->at, json->size - json->at, &value);
        if (size == 0) return iq_json_fail(json, json->at, "a value is expected");
        if (value.type == IQDB_TYPE_ABSENT) return iq_json_fail(json, json->at, "the number is too large");
    }
    json->at += size;
    iq_json_put_type(json, value.type);
    uint8_t *out = iq_json_take(json, iq_value_write(&value, NULL));
    if (out != NULL) (void)iq_value_write(&value, out);
    return true;
}

/* ---- Containers, read ---- */

static bool iq_json_read_special(const char *text, size_t size, uint64_t *out_bits) {
    const size_t sign = size > 0 && text[0] == '-';
    *out_bits = IQ_F64_NAN;
    if (size == 3 && memcmp(text, "nan", 3) == 0) return true;
    *out_bits = IQ_F64_INFINITY | (uint64_t)sign << 63;
    if (size - sign == 8 && memcmp(text + sign, "infinity", 8) == 0) return true;
    return size == 16 && iq_hex_read(text, 16, out_bits) && (*out_bits & ~IQ_F64_SIGN) > IQ_F64_INFINITY;
}

/* An object of one field with a marker's key and a text becomes what it stands for: *out_done. Its item is at `item`,
 * and the type of the object before it. */
static bool iq_json_unmark(iq_json *json, uint8_t *item, bool *out_done) {
    const size_t key_size = strlen((const char *)item);
    const iq_json_marker marker = iq_json_marker_of((const char *)item, key_size);
    *out_done = false;
    if (marker == IQ_JSON_PLAIN || item[key_size + 1] != IQDB_TYPE_TEXT) return true;
    if (marker == IQ_JSON_ESCAPED) {
        json->used--;
        memmove(item, item + 1, (size_t)json->used - (size_t)(item - json->items));
        return true;
    }
    const char *text = (const char *)item + key_size + 2;
    const size_t text_size = (size_t)json->used - (size_t)((const uint8_t *)text - json->items) - 1;
    uint64_t bits;
    size_t size = 8;
    if (marker == IQ_JSON_FLOAT) {
        if (!iq_json_read_special(text, text_size, &bits))
            return iq_json_fail(json, json->at, "$float wants nan, infinity, -infinity or the 16 digits of a NaN");
        iq_put_u64(item, bits);
    } else {
        bool is_hex = text_size % 2 == 0;
        for (size = 0; is_hex && size < text_size / 2; size++) {
            is_hex = iq_hex_read(text + 2 * size, 2, &bits);
            item[size] = (uint8_t)bits; /* before the digits that are still to be read */
        }
        if (!is_hex) return iq_json_fail(json, json->at, "$bytes wants pairs of hexadecimal digits");
    }
    item[-1] = (uint8_t)(marker == IQ_JSON_FLOAT ? IQDB_TYPE_FLOAT : IQDB_TYPE_BYTES);
    json->used = (size_t)(item - json->items) + size;
    *out_done = true;
    return true;
}

/* Puts the container of `frame` together in json->built. */
static bool iq_json_build(iq_json *json, const iq_json_frame *frame, size_t *out_size) {
    const uint32_t count = frame->count, end = (uint32_t)json->used - frame->start;
    uint8_t *table = json->built + 4;
    const iq_payload_keys keys = {NULL, json->items + frame->start, json->starts + frame->first};
    iq_put_u32(json->built, count);
    /* Each item takes two bytes at least: so much the sorting may borrow behind the table. */
    if (!frame->is_object)
        for (uint32_t i = 0; i < count; i++) iq_put_u32(table + 4 * (size_t)i, i);
    else if (!iq_payload_sort(&keys, count, table, table + 4 * (size_t)count))
        return iq_json_fail(json, json->at, "a key stands twice in the object that ends here");
    size_t size = 4 + 4 * (size_t)count;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t which = iq_get_u32(table + 4 * (size_t)i);
        const uint32_t start = keys.starts[which], stop = which + 1 < count ? keys.starts[which + 1] : end;
        memcpy(json->built + size, keys.items + start, stop - start);
        iq_put_u32(table + 4 * (size_t)i, (uint32_t)size);
        size += stop - start;
    }
    *out_size = size;
    return true;
}

/* The innermost container ends at json->at, where its bracket stands. The outermost one stays in json->built. */
static bool iq_json_close(iq_json *json) {
    const iq_json_frame *frame = &json->frames[json->depth - 1];
    bool done = json->items == NULL;
    size_t size;
    if (done) (void)iq_json_take(json, 4 + 4 * (size_t)frame->count);
    if (!done && json->depth > 1 && frame->is_object && frame->count == 1)
        if (!iq_json_unmark(json, json->items + frame->start, &done)) return false;
    if (!done) {
        if (!iq_json_build(json, frame, &size)) return false;
        if (json->depth > 1) memcpy(json->items + frame->start, json->built, size);
        json->used = frame->start + size;
    }
    json->pending = frame->first;
    json->depth--;
    json->at++;
    return true;
}

static bool iq_json_open_container(iq_json *json) {
    if (json->depth == IQDB_PAYLOAD_DEPTH_MAX)
        return iq_json_fail(json, json->at, "arrays and objects are nested deeper than IQDB_PAYLOAD_DEPTH_MAX");
    const bool is_object = json->text[json->at] == '{';
    if (json->depth > 0) iq_json_put_type(json, is_object ? IQDB_TYPE_OBJECT : IQDB_TYPE_ARRAY);
    iq_json_frame *frame = &json->frames[json->depth++];
    frame->start = (uint32_t)json->used;
    frame->first = (uint32_t)json->pending;
    frame->count = 0;
    frame->is_object = is_object;
    json->at++;
    return true;
}

/* A new item of the innermost container, up to its value. */
static bool iq_json_begin_item(iq_json *json) {
    iq_json_frame *frame = &json->frames[json->depth - 1];
    if (json->items != NULL) json->starts[json->pending] = (uint32_t)json->used - frame->start;
    json->pending++;
    if (json->pending > json->pending_max) json->pending_max = json->pending;
    frame->count++;
    if (!frame->is_object) return true;
    if (!iq_json_take_string(json, true)) return false;
    iq_json_skip_space(json);
    if (iq_json_peek(json) != ':') return iq_json_fail(json, json->at, "a colon is expected");
    json->at++;
    iq_json_skip_space(json);
    return true;
}

/* The object at json->at, and that nothing follows it. */
static bool iq_json_read_document(iq_json *json) {
    (void)iq_json_open_container(json); /* the first one is not too deep */
    while (json->depth > 0) {
        const iq_json_frame *top = &json->frames[json->depth - 1];
        iq_json_skip_space(json);
        if (iq_json_peek(json) == (top->is_object ? '}' : ']')) {
            if (!iq_json_close(json)) return false;
            continue;
        }
        if (top->count > 0) {
            if (iq_json_peek(json) != ',')
                return iq_json_fail(json, json->at, "a comma is expected, or the end of the array or object");
            json->at++;
            iq_json_skip_space(json);
        }
        if (!iq_json_begin_item(json)) return false;
        const char c = iq_json_peek(json);
        if (!(c == '{' || c == '[' ? iq_json_open_container(json) : iq_json_take_scalar(json))) return false;
    }
    iq_json_skip_space(json);
    if (json->at < json->size) return iq_json_fail(json, json->at, "something follows the end");
    return true;
}

/* The whole text with memory of these sizes, or without any; `most` is what the encoding may take. */
static iqdb_result iq_json_run(iq_json *json, uint8_t *memory, size_t size, size_t starts_at, size_t most) {
    const size_t begin = json->at;
    json->built = memory;
    json->items = memory == NULL ? NULL : memory + size;
    json->starts = memory == NULL ? NULL : (uint32_t *)(void *)(memory + starts_at);
    json->used = json->pending = json->depth = 0;
    if (!iq_json_read_document(json)) return json->result;
    json->at = begin;
    json->why = "the payload would be larger than IQDB_PAYLOAD_SIZE_MAX";
    return json->used > most ? IQDB_ERR_LIMIT : IQDB_OK;
}

static iqdb_result iq_json_parse(iq_json *json, iqdb_buffer *buffer, iqdb_payload *out_payload) {
    iq_json_skip_space(json);
    if (iq_json_is_word(json, "null", 4)) {
        json->at += 4;
        iq_json_skip_space(json);
        if (json->at < json->size) return iq_json_fail(json, json->at, "something follows the end"), json->result;
        out_payload->bytes = NULL;
        out_payload->size = 0;
        return IQDB_OK;
    }
    if (iq_json_peek(json) != '{') return iq_json_fail(json, json->at, "a payload is an object, or null"), json->result;
    iqdb_result result = iq_json_run(json, NULL, 0, 0, IQ_JSON_SIZE_MAX);
    if (result != IQDB_OK) return result;
    const size_t size = (size_t)json->used, starts_at = iq_round_up(2 * size, 4);
    const size_t total = starts_at + 4 * json->pending_max;
    uint8_t *memory;
    json->why = "the buffer cannot be as large as it would have to be";
    result = iq_buffer_start(buffer, total, &memory);
    if (result != IQDB_OK) return result;
    result = iq_json_run(json, memory, size, starts_at, IQDB_PAYLOAD_SIZE_MAX);
    buffer->used = result == IQDB_OK ? buffer->used - total + (size_t)json->used : 0;
    if (result != IQDB_OK) return result;
    out_payload->bytes = memory;
    out_payload->size = (size_t)json->used;
    return IQDB_OK;
}

IQDB_API iqdb_result iqdb_payload_parse(const char *json, size_t size, iqdb_buffer *buffer, iqdb_payload *out_payload,
                                        iqdb_error *out_error) {
    iq_json parser;
    if (buffer == NULL || out_payload == NULL || (json == NULL && size > 0)) return IQDB_ERR_INVALID_ARGUMENT;
    if (iq_buffer_overlaps(buffer, json, size)) return IQDB_ERR_INVALID_ARGUMENT;
    memset(&parser, 0, sizeof parser);
    parser.text = json;
    parser.size = size;
    buffer->used = buffer->needed = 0;
    const iqdb_result result = iq_json_parse(&parser, buffer, out_payload);
    if (result != IQDB_OK && out_error != NULL) *out_error = iq_error_make(result, NULL, parser.at, parser.why);
    return result;
}

IQDB_API iqdb_result iqdb_payload_from_json(const char *json, size_t size, iqdb_buffer *buffer,
                                            iqdb_payload *out_payload) {
    return iqdb_payload_parse(json, size, buffer, out_payload, NULL);
}

#endif
