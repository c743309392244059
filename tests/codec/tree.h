/* A naive model of values: trees of nodes that are made at random, encoded by the letter of codec/payload.h with
 * recursion and a buffer per item, and compared with what the readers say. It shares no code with src/codec. */
#ifndef CODEC_TREE_H
#define CODEC_TREE_H

#include "codec/payload.h"
#include "support.h"

typedef struct tree {
    iqdb_type type;
    int64_t integer;
    uint64_t bits; /* of a float */
    bool boolean;
    char *data; /* of text and bytes; a NUL follows */
    size_t size;
    size_t count;
    struct tree **items; /* of arrays and objects */
    char **keys;         /* of objects, in no order */
} tree;

typedef struct tree_bytes {
    uint8_t *bytes;
    size_t size;
} tree_bytes;

/* Everything the model allocates is on one list and freed together. */
typedef struct tree_pool {
    void **blocks;
    size_t count, capacity;
} tree_pool;

static inline void *tree_alloc(tree_pool *pool, size_t size) {
    if (pool->count == pool->capacity) {
        pool->capacity = pool->capacity * 2 + 64;
        pool->blocks = (void **)realloc(pool->blocks, pool->capacity * sizeof *pool->blocks);
    }
    void *block = pool->blocks == NULL ? NULL : calloc(1, size + 1);
    if (block == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(2);
    }
    return pool->blocks[pool->count++] = block;
}

static inline void tree_free(tree_pool *pool) {
    for (size_t i = 0; i < pool->count; i++) free(pool->blocks[i]);
    free(pool->blocks);
    memset(pool, 0, sizeof *pool);
}

static inline tree *tree_new(tree_pool *pool, iqdb_type type, size_t count) {
    tree *node = (tree *)tree_alloc(pool, sizeof *node);
    node->type = type;
    node->count = count;
    node->items = (tree **)tree_alloc(pool, count * sizeof *node->items);
    node->keys = (char **)tree_alloc(pool, count * sizeof *node->keys);
    return node;
}

static inline char *tree_copy(tree_pool *pool, const void *data, size_t size) {
    char *copy = (char *)tree_alloc(pool, size);
    if (size > 0) memcpy(copy, data, size);
    return copy;
}

/* ---- Making trees ---- */

static inline size_t tree_put_character(char *out, uint32_t code) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    const size_t size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = size; i-- > 1; code >>= 6) out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)((size == 2 ? 0xC0 : size == 3 ? 0xE0 : 0xF0) | code);
    return size;
}

/* Text of up to `limit` characters at the edges of UTF-8, now and then with a NUL. */
static inline size_t tree_random_text(uint64_t *state, size_t limit, bool with_nul, char *out) {
    static const uint32_t codes[] = {'a',   'b',    'z',    '.',    ' ',    1,       0x7F,    0x80,     0xE9, 0x7FF,
                                     0x800, 0xD7FF, 0xE000, 0xFFFD, 0xFFFF, 0x10000, 0x1F600, 0x10FFFF, 0};
    const size_t length = (size_t)support_random_below(state, limit + 1);
    size_t size = 0;
    for (size_t i = 0; i < length; i++)
        size += tree_put_character(out + size, codes[support_random_below(state, with_nul ? 19 : 18)]);
    return size;
}

static inline char *tree_random_key(tree_pool *pool, uint64_t *state, const tree *node, size_t used) {
    char key[4 * 5 + 1];
    for (;;) {
        const size_t size = tree_random_text(state, 5, false, key);
        key[size] = 0;
        size_t i = 0;
        while (i < used && strcmp(node->keys[i], key) != 0) i++;
        if (i == used) return tree_copy(pool, key, size);
    }
}

static inline uint64_t tree_random_number(uint64_t *state) {
    static const uint64_t edges[] = {0,
                                     1,
                                     UINT64_C(0xFFFFFFFFFFFFFFFF),
                                     UINT64_C(0x8000000000000000), /* INT64_MIN; -0.0 */
                                     UINT64_C(0x7FFFFFFFFFFFFFFF),
                                     UINT64_C(0x7FF0000000000000),  /* infinity */
                                     UINT64_C(0x7FF0000000000001),  /* a signalling NaN */
                                     UINT64_C(0xFFF8000000000123)}; /* a quiet one that carries something */
    const uint64_t pick = support_random_below(state, 16);
    return pick < 8 ? edges[pick] : support_random(state);
}

static inline tree *tree_random(tree_pool *pool, uint64_t *state, iqdb_type type, size_t depth) {
    const bool container = type == IQDB_TYPE_ARRAY || type == IQDB_TYPE_OBJECT;
    tree *node = tree_new(pool, type, container ? (size_t)support_random_below(state, 7) : 0);
    char text[4 * 20 + 1];
    node->boolean = (support_random(state) & 1) != 0;
    node->bits = tree_random_number(state);
    memcpy(&node->integer, &node->bits, 8);
    if (type == IQDB_TYPE_TEXT) node->size = tree_random_text(state, 20, true, text);
    if (type == IQDB_TYPE_BYTES) {
        node->size = (size_t)support_random_below(state, 20);
        for (size_t i = 0; i < node->size; i++) text[i] = (char)support_random(state);
    }
    node->data = tree_copy(pool, text, node->size);
    for (size_t i = 0; i < node->count; i++) {
        const iqdb_type inner = (iqdb_type)support_random_below(state, depth > 0 ? 8 : 6);
        node->items[i] = tree_random(pool, state, inner, depth - (depth > 0));
        node->keys[i] = type == IQDB_TYPE_OBJECT ? tree_random_key(pool, state, node, i) : NULL;
    }
    return node;
}

/* What the readers say about a value; NULL where they say that something is absent. */
static inline tree *tree_from_value(tree_pool *pool, iqdb_value value) {
    tree *node = tree_new(pool, value.type, iqdb_value_count(value));
    switch (value.type) {
    case IQDB_TYPE_ABSENT:
        return NULL;
    case IQDB_TYPE_NULL:
        break;
    case IQDB_TYPE_BOOL:
        node->boolean = value.as.boolean;
        break;
    case IQDB_TYPE_INT:
        node->integer = value.as.integer;
        break;
    case IQDB_TYPE_FLOAT:
        memcpy(&node->bits, &value.as.real, 8);
        break;
    case IQDB_TYPE_TEXT:
        node->data = tree_copy(pool, value.as.text.data, value.as.text.size);
        node->size = value.as.text.size;
        break;
    case IQDB_TYPE_BYTES:
        node->data = tree_copy(pool, value.as.bytes.data, value.as.bytes.size);
        node->size = value.as.bytes.size;
        break;
    case IQDB_TYPE_ARRAY:
    case IQDB_TYPE_OBJECT:
        for (size_t i = 0; i < node->count; i++) {
            iqdb_field field = {NULL, iqdb_value_at(value, i)};
            if (value.type == IQDB_TYPE_OBJECT) {
                if (!iqdb_value_field(value, i, &field)) return NULL;
                node->keys[i] = tree_copy(pool, field.key, strlen(field.key));
            }
            node->items[i] = tree_from_value(pool, field.value);
            if (node->items[i] == NULL) return NULL;
        }
        break;
    }
    return node;
}

/* ---- The format, by its letter ---- */

static inline void tree_put_u32(uint8_t *out, size_t value) {
    for (int i = 0; i < 4; i++) out[i] = (uint8_t)(value >> (8 * i));
}

static inline tree_bytes tree_encode(tree_pool *pool, const tree *node, bool with_type);

static inline bool tree_key_before(const char *a, const char *b) {
    while (*a != 0 && *a == *b) a++, b++;
    return (unsigned char)*a < (unsigned char)*b;
}

static inline tree_bytes tree_encode_container(tree_pool *pool, const tree *node) {
    tree_bytes *items = (tree_bytes *)tree_alloc(pool, node->count * sizeof *items);
    size_t size = 4 + 4 * node->count;
    for (size_t i = 0; i < node->count; i++) {
        items[i] = tree_encode(pool, node->items[i], true);
        if (node->type == IQDB_TYPE_OBJECT) {
            const size_t key_size = strlen(node->keys[i]) + 1;
            uint8_t *whole = (uint8_t *)tree_alloc(pool, key_size + items[i].size);
            memcpy(whole, node->keys[i], key_size);
            memcpy(whole + key_size, items[i].bytes, items[i].size);
            items[i].bytes = whole;
            items[i].size += key_size;
        }
        size += items[i].size;
        for (size_t j = i; node->type == IQDB_TYPE_OBJECT && j > 0; j--) {
            if (!tree_key_before((const char *)items[j].bytes, (const char *)items[j - 1].bytes)) break;
            const tree_bytes swap = items[j];
            items[j] = items[j - 1];
            items[j - 1] = swap;
        }
    }
    tree_bytes out = {(uint8_t *)tree_alloc(pool, size), 4 + 4 * node->count};
    tree_put_u32(out.bytes, node->count);
    for (size_t i = 0; i < node->count; i++) {
        tree_put_u32(out.bytes + 4 + 4 * i, out.size);
        memcpy(out.bytes + out.size, items[i].bytes, items[i].size);
        out.size += items[i].size;
    }
    return out;
}

static inline tree_bytes tree_encode(tree_pool *pool, const tree *node, bool with_type) {
    tree_bytes body = {(uint8_t *)tree_alloc(pool, 8), 0};
    if (node->type == IQDB_TYPE_ARRAY || node->type == IQDB_TYPE_OBJECT) body = tree_encode_container(pool, node);
    if (node->type == IQDB_TYPE_TEXT || node->type == IQDB_TYPE_BYTES) {
        body.bytes = (uint8_t *)node->data;
        body.size = node->size + (node->type == IQDB_TYPE_TEXT);
    }
    if (node->type == IQDB_TYPE_BOOL) body.bytes[body.size++] = node->boolean;
    if (node->type == IQDB_TYPE_INT || node->type == IQDB_TYPE_FLOAT) {
        const uint64_t word = node->type == IQDB_TYPE_INT ? (uint64_t)node->integer : node->bits;
        for (; body.size < 8; body.size++) body.bytes[body.size] = (uint8_t)(word >> (8 * body.size));
    }
    if (!with_type) return body;
    tree_bytes out = {(uint8_t *)tree_alloc(pool, body.size + 1), body.size + 1};
    out.bytes[0] = (uint8_t)node->type;
    if (body.size > 0) memcpy(out.bytes + 1, body.bytes, body.size);
    return out;
}

/* ---- Trees as built values ---- */

/* With `state`, an inner container in four is handed over encoded. */
static inline iqdb_value tree_to_value(tree_pool *pool, const tree *node, uint64_t *state) {
    iqdb_value value = iqdb_null();
    value.type = node->type;
    switch (node->type) {
    case IQDB_TYPE_NULL:
    case IQDB_TYPE_ABSENT:
        break;
    case IQDB_TYPE_BOOL:
        value = iqdb_bool(node->boolean);
        break;
    case IQDB_TYPE_INT:
        value = iqdb_int(node->integer);
        break;
    case IQDB_TYPE_FLOAT:
        memcpy(&value.as.real, &node->bits, 8);
        break;
    case IQDB_TYPE_TEXT:
        value = iqdb_text_n(node->data, node->size);
        break;
    case IQDB_TYPE_BYTES:
        value = iqdb_bytes(node->data, node->size);
        break;
    case IQDB_TYPE_ARRAY:
    case IQDB_TYPE_OBJECT:
        if (state != NULL && support_random_below(state, 4) == 0) {
            const tree_bytes bytes = tree_encode(pool, node, true);
            return iq_value_decode(bytes.bytes, bytes.size);
        }
        if (node->type == IQDB_TYPE_ARRAY) {
            iqdb_value *items = (iqdb_value *)tree_alloc(pool, node->count * sizeof *items);
            for (size_t i = 0; i < node->count; i++) items[i] = tree_to_value(pool, node->items[i], state);
            value = iqdb_array(items, node->count);
        } else {
            iqdb_field *fields = (iqdb_field *)tree_alloc(pool, node->count * sizeof *fields);
            for (size_t i = 0; i < node->count; i++) {
                fields[i].key = node->keys[i];
                fields[i].value = tree_to_value(pool, node->items[i], state);
            }
            value = iqdb_object(fields, node->count);
        }
        break;
    }
    return value;
}

/* The fields of a tree's root, always built. */
static inline iqdb_field *tree_to_fields(tree_pool *pool, const tree *node, uint64_t *state) {
    iqdb_field *fields = (iqdb_field *)tree_alloc(pool, node->count * sizeof *fields);
    for (size_t i = 0; i < node->count; i++) {
        fields[i].key = node->keys[i];
        fields[i].value = tree_to_value(pool, node->items[i], state);
    }
    return fields;
}

/* Whether the readers see exactly this tree in `value`. */
static inline bool tree_matches(const tree *node, iqdb_value value) {
    if (node->type != value.type) return false;
    switch (node->type) {
    case IQDB_TYPE_ABSENT:
    case IQDB_TYPE_NULL:
        return true;
    case IQDB_TYPE_BOOL:
        return node->boolean == value.as.boolean;
    case IQDB_TYPE_INT:
        return node->integer == value.as.integer;
    case IQDB_TYPE_FLOAT:
        return memcmp(&node->bits, &value.as.real, 8) == 0;
    case IQDB_TYPE_TEXT:
        return node->size == value.as.text.size && memcmp(node->data, value.as.text.data, node->size) == 0;
    case IQDB_TYPE_BYTES:
        return node->size == value.as.bytes.size &&
               (node->size == 0 || memcmp(node->data, value.as.bytes.data, node->size) == 0);
    case IQDB_TYPE_ARRAY:
        if (iqdb_value_count(value) != node->count) return false;
        for (size_t i = 0; i < node->count; i++)
            if (!tree_matches(node->items[i], iqdb_value_at(value, i))) return false;
        return iqdb_value_at(value, node->count).type == IQDB_TYPE_ABSENT;
    case IQDB_TYPE_OBJECT:
        if (iqdb_value_count(value) != node->count) return false;
        for (size_t i = 0; i < node->count; i++) {
            iqdb_field field;
            size_t at = 0;
            if (!tree_matches(node->items[i], iqdb_value_get(value, node->keys[i]))) return false;
            if (!iqdb_value_field(value, i, &field)) return false;
            while (at < node->count && strcmp(node->keys[at], field.key) != 0) at++;
            if (at == node->count || !tree_matches(node->items[at], field.value)) return false;
            if (!tree_matches(node->items[at], iqdb_value_at(value, i))) return false;
        }
        return iqdb_value_at(value, node->count).type == IQDB_TYPE_ABSENT;
    }
    return false;
}

#endif
