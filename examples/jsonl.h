/* jsonl.h: reads JSON objects, one a line, into iqdb_values. It belongs to the examples, not to iqdb.h.
 *
 *   jsonl notes;
 *   if (!jsonl_parse(text, size, &notes)) printf("line %lu is not JSON\n", (unsigned long)notes.count + 1);
 *   for (size_t i = 0; i < notes.count; i++) use(notes.objects[i]); // and jsonl_free(&notes) in the end
 *
 * Strict: what RFC 8259 does not allow is refused. Whole numbers that fit in 64 bits become IQDB_TYPE_INT, others
 * IQDB_TYPE_FLOAT. That text is UTF-8 and that no key comes twice is checked later, by iqdb_upsert. */
#ifndef JSONL_H
#define JSONL_H

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef union jsonl_block { /* a piece of memory; its bytes follow it */
    union jsonl_block *next;
    int64_t alignment;
} jsonl_block;

typedef struct jsonl {
    iqdb_value *objects; /* each of IQDB_TYPE_OBJECT */
    size_t count;
    const char *at;      /* private: what is read next */
    jsonl_block *blocks; /* private: the memory of all values, newest first */
} jsonl;

static void *jsonl_alloc(jsonl *in, size_t size) {
    jsonl_block *block = (jsonl_block *)malloc(sizeof(jsonl_block) + size);
    if (block == NULL) return NULL;
    block->next = in->blocks;
    in->blocks = block;
    return block + 1;
}

static bool jsonl_take(jsonl *in, const char *word) { /* spaces before it are skipped in any case */
    in->at += strspn(in->at, " \t\r");
    if (strncmp(in->at, word, strlen(word)) != 0) return false;
    in->at += strlen(word);
    return true;
}

static long jsonl_hex4(const char *at) { /* -1: not four digits */
    char four[5] = "";
    if (strspn(at, "0123456789abcdefABCDEF") >= 4) memcpy(four, at, 4);
    return four[0] != 0 ? strtol(four, NULL, 16) : -1;
}

static bool jsonl_string(jsonl *in, iqdb_value *out) { /* behind its opening quote; the text gets a final zero */
    static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *at = in->at, *close = at;
    for (; *close != '"'; close += *close == '\\' && close[1] != 0 ? 2 : 1)
        if ((unsigned char)*close < 0x20) return false;
    char *text = (char *)jsonl_alloc(in, (size_t)(close - at) + 1), *to = text;
    if (text == NULL) return false;
    while (at < close) {
        const char *escape = *at == '\\' ? strchr(escapes, at[1]) : NULL;
        if (*at != '\\') {
            *to++ = *at++;
        } else if (escape != NULL) {
            *to++ = meant[escape - escapes];
            at += 2;
        } else {
            long code = at[1] == 'u' ? jsonl_hex4(at + 2) : -1;
            const bool high = code >= 0xD800 && code < 0xDC00; /* the first half of a surrogate pair */
            const long low = high && at[6] == '\\' && at[7] == 'u' ? jsonl_hex4(at + 8) : -1;
            if (high && low >= 0xDC00 && low < 0xE000) code = 0x10000 + (code - 0xD800) * 1024 + (low - 0xDC00);
            if (code < 0 || (code >= 0xD800 && code < 0xE000)) return false;
            const int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
            *to++ = (char)((more == 0 ? 0 : 0xFF00 >> (more + 1)) | (int)(code >> (6 * more)));
            for (int i = more - 1; i >= 0; i--) *to++ = (char)(0x80 | (int)((code >> (6 * i)) & 0x3F));
            at += high ? 12 : 6;
        }
    }
    *to = 0;
    *out = iqdb_text_n(text, (size_t)(to - text));
    in->at = close + 1;
    return true;
}

static bool jsonl_number(jsonl *in, iqdb_value *out) {
    const char *first = in->at, *at = first + (*first == '-'), *const digits = "0123456789";
    size_t whole = strspn(at, digits), fraction = 0, exponent = 0;
    if (whole == 0 || (whole > 1 && *at == '0')) return false;
    at += whole;
    if (*at == '.' && (fraction = strspn(++at, digits)) == 0) return false;
    at += fraction;
    if (*at == 'e' || *at == 'E') {
        at += at[1] == '+' || at[1] == '-' ? 2 : 1;
        if ((exponent = strspn(at, digits)) == 0) return false;
        at += exponent;
    }
    in->at = at;
    errno = 0;
    *out = iqdb_int(fraction + exponent == 0 ? strtoll(first, NULL, 10) : 0);
    if (fraction + exponent > 0 || errno != 0) *out = iqdb_float(strtod(first, NULL));
    return out->type == IQDB_TYPE_INT || isfinite(out->as.real);
}

static bool jsonl_value(jsonl *in, int depth, iqdb_value *out) {
    if (jsonl_take(in, "null")) return *out = iqdb_null(), true;
    if (jsonl_take(in, "true")) return *out = iqdb_bool(true), true;
    if (jsonl_take(in, "false")) return *out = iqdb_bool(false), true;
    if (jsonl_take(in, "\"")) return jsonl_string(in, out);
    const bool object = jsonl_take(in, "{");
    if (!object && !jsonl_take(in, "[")) return jsonl_number(in, out);

    if (depth > IQDB_PAYLOAD_DEPTH_MAX) return false;
    const char *const close = object ? "}" : "]";
    iqdb_field *fields = NULL; /* of an array: without keys, until its items are copied together */
    size_t count = 0, room = 0;
    for (bool more = !jsonl_take(in, close); more; count++) {
        if (count == room) {
            iqdb_field *bigger = (iqdb_field *)jsonl_alloc(in, (room = 2 * room + 4) * sizeof(iqdb_field));
            if (bigger == NULL) return false;
            if (count > 0) memcpy(bigger, fields, count * sizeof(iqdb_field));
            fields = bigger;
        }
        iqdb_value key = iqdb_text("");
        if (object && !(jsonl_take(in, "\"") && jsonl_string(in, &key) && jsonl_take(in, ":"))) return false;
        if (memchr(key.as.text.data, 0, key.as.text.size) != NULL) return false;
        fields[count].key = key.as.text.data;
        if (!jsonl_value(in, depth + 1, &fields[count].value)) return false;
        more = jsonl_take(in, ",");
        if (!more && !jsonl_take(in, close)) return false;
    }
    if (object) return *out = iqdb_object(fields, count), true;
    iqdb_value *items = (iqdb_value *)jsonl_alloc(in, count * sizeof(iqdb_value));
    for (size_t i = 0; items != NULL && i < count; i++) items[i] = fields[i].value;
    return *out = iqdb_array(items, count), items != NULL;
}

/* `text` is `size` bytes with a zero behind them. After false the line behind the last object is the one at fault. */
static bool jsonl_parse(const char *text, size_t size, jsonl *out) {
    size_t lines = 1;
    for (size_t i = 0; i < size; i++) lines += text[i] == '\n';
    memset(out, 0, sizeof *out);
    out->objects = (iqdb_value *)jsonl_alloc(out, lines * sizeof(iqdb_value));
    bool ok = out->objects != NULL;
    for (out->at = text; ok && out->at < text + size; out->count += ok) {
        ok = *out->at == '{' && jsonl_value(out, 1, &out->objects[out->count]);
        ok = ok && (jsonl_take(out, "\n") || out->at == text + size);
    }
    return ok;
}

static void jsonl_free(jsonl *in) {
    for (jsonl_block *block = in->blocks, *next; block != NULL; block = next) {
        next = block->next;
        free(block);
    }
}

#endif
