/* Encoding and checking payloads: bytes by the letter, every refusal, every limit, and what a bit more or less does. */
#include "codec/payload.h"
#include "test.h"
#include "tree.h"

static iq_blob blob_make(const iqdb_allocator *allocator) {
    iq_blob blob;
    memset(&blob, 0, sizeof blob);
    blob.allocator = allocator;
    return blob;
}

/* Encodes into a blob of its own and says only how it went. */
static iqdb_result encode(const iqdb_field *fields, size_t count) {
    const iqdb_allocator allocator = iq_alloc_default();
    iq_blob blob = blob_make(&allocator);
    const iqdb_result result = iq_payload_encode(fields, count, &blob);
    if (result != IQDB_OK) EXPECT(blob.size == 0);
    if (result == IQDB_OK) EXPECT(iq_payload_validate(blob.bytes, blob.size) == IQDB_OK);
    iq_blob_free(&blob);
    return result;
}

static iqdb_field field_of(const char *key, iqdb_value value) {
    iqdb_field field;
    field.key = key;
    field.value = value;
    return field;
}

static iqdb_result encode_one(iqdb_value value) {
    const iqdb_field field = field_of("k", value);
    return encode(&field, 1);
}

/* Accepting bytes means that reading and encoding them gives them back. */
static bool is_sound(const uint8_t *bytes, size_t size) {
    if (iq_payload_validate(bytes, size) != IQDB_OK) return true;
    tree_pool pool = {NULL, 0, 0};
    iqdb_value root = iqdb_object(NULL, 0);
    root.as.object.encoded = bytes;
    root.as.object.size = size;
    const tree *node = tree_from_value(&pool, root);
    bool same = node != NULL;
    if (same) {
        const tree_bytes again = tree_encode(&pool, node, false);
        same = again.size == size && memcmp(again.bytes, bytes, size) == 0;
    }
    tree_free(&pool);
    return same;
}

/* ---- The format ---- */

/* Written by hand from the comment in codec/payload.h. */
static const uint8_t letter[] = {
    8,    0,   0,   0,    0x24, 0,    0,    0,    0x34, 0,    0,    0, 0x38, 0, 0, 0, 0x41, 0, 0,
    0,                                                                                            /* count, offsets */
    0x4C, 0,   0,   0,    0x57, 0,    0,    0,    0x5A, 0,    0,    0, 0x6D, 0, 0, 0,             /* */
    'a',  'r', 'r', 'a',  'y',  0,    6,    1,    0,    0,    0,    8, 0,    0, 0, 0,             /* 24: [null] */
    'b',  0,   1,   1,                                                                            /* 34: true */
    'b',  'y', 't', 'e',  's',  0,    5,    0xFF, 0,                                              /* 38: FF 00 */
    'f',  0,   3,   0,    0,    0,    0,    0,    0,    0xF8, 0x3F,                               /* 41: 1.5 */
    'i',  0,   2,   0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,                               /* 4C: -2 */
    'n',  0,   0,                                                                                 /* 57: null */
    'o',  'b', 'j', 'e',  'c',  't',  0,    7,    1,    0,    0,    0, 8,    0, 0, 0, 0,    1, 0, /* 5A: {"": false} */
    't',  0,   4,   0xC3, 0xA9, 0};                                                               /* 6D: "é" */

static const iqdb_value letter_null = {IQDB_TYPE_NULL, {0}};
static iqdb_field letter_inner;

static void letter_fields(iqdb_field fields[8]) {
    letter_inner = field_of("", iqdb_bool(false));
    fields[0] = field_of("t", iqdb_text("\xC3\xA9"));
    fields[1] = field_of("object", iqdb_object(&letter_inner, 1));
    fields[2] = field_of("n", iqdb_null());
    fields[3] = field_of("i", iqdb_int(-2));
    fields[4] = field_of("f", iqdb_float(1.5));
    fields[5] = field_of("bytes", iqdb_bytes("\xFF", 2));
    fields[6] = field_of("b", iqdb_bool(true));
    fields[7] = field_of("array", iqdb_array(&letter_null, 1));
}

/* Heap's algorithm runs through all 40,320 orders. */
static void every_type_in_every_order(void) {
    const iqdb_allocator allocator = iq_alloc_default();
    iq_blob blob = blob_make(&allocator);
    iqdb_field fields[8];
    size_t turns[8] = {0}, same = 0, orders = 1;
    letter_fields(fields);
    for (size_t i = 0;;) {
        blob.size = 0;
        if (!EXPECT(iq_payload_encode(fields, 8, &blob) == IQDB_OK)) break;
        same += blob.size == sizeof letter && memcmp(blob.bytes, letter, sizeof letter) == 0;
        while (i < 8 && turns[i] == i) turns[i++] = 0;
        if (i == 8) break;
        const size_t with = i % 2 == 0 ? 0 : turns[i];
        const iqdb_field swap = fields[i];
        fields[i] = fields[with];
        fields[with] = swap;
        turns[i]++;
        i = 0;
        orders++;
    }
    iq_blob_free(&blob);
    CHECK_EQ_U64(orders, 40320);
    CHECK_EQ_U64(same, orders);
    CHECK_EQ_INT(iq_payload_validate(letter, sizeof letter), IQDB_OK);
}

static void empty_ones(void) {
    static const uint8_t nothing[4] = {0, 0, 0, 0};
    const iqdb_allocator allocator = iq_alloc_default();
    iq_blob blob = blob_make(&allocator);
    CHECK_EQ_INT(iq_payload_encode(NULL, 0, &blob), IQDB_OK);
    CHECK_EQ_U64(blob.size, 4);
    CHECK_MEM(blob.bytes, nothing, 4);
    iq_blob_free(&blob);
    CHECK_EQ_INT(iq_payload_validate(nothing, 4), IQDB_OK);
    CHECK_EQ_INT(encode_one(iqdb_array(NULL, 0)), IQDB_OK);
    CHECK_EQ_INT(encode_one(iqdb_object(NULL, 0)), IQDB_OK);
    CHECK_EQ_INT(encode_one(iqdb_bytes(NULL, 0)), IQDB_OK);
    CHECK_EQ_INT(encode_one(iqdb_text_n(NULL, 0)), IQDB_OK);
    CHECK_EQ_INT(encode_one(iqdb_text("")), IQDB_OK);
}

static void appends_behind_what_is_there(void) {
    const iqdb_allocator allocator = iq_alloc_default();
    iq_blob blob = blob_make(&allocator);
    iqdb_field fields[8];
    letter_fields(fields);
    CHECK_EQ_INT(iq_blob_append(&blob, "abc", 3), IQDB_OK);
    for (size_t i = 0; i < 10; i++) {
        CHECK_EQ_INT(iq_payload_encode(fields, 8, &blob), IQDB_OK);
        CHECK_EQ_U64(blob.size, 3 + (i + 1) * sizeof letter);
        CHECK_MEM(blob.bytes + 3 + i * sizeof letter, letter, sizeof letter);
    }
    fields[3].key = "t"; /* twice: found only while the keys are sorted in the blob */
    CHECK_EQ_INT(iq_payload_encode(fields, 8, &blob), IQDB_ERR_INVALID_PAYLOAD);
    CHECK_EQ_U64(blob.size, 3 + 10 * sizeof letter);
    CHECK_MEM(blob.bytes, "abc", 3);
    iq_blob_free(&blob);
}

/* ---- Against the model ---- */

static void random_trees(void) {
    const iqdb_allocator allocator = iq_alloc_default();
    iq_blob blob = blob_make(&allocator);
    const size_t rounds = support_amount(200, 5000, 100000);
    for (size_t round = 0; round < rounds; round++) {
        uint64_t state = round;
        tree_pool pool = {NULL, 0, 0};
        const tree *node = tree_random(&pool, &state, IQDB_TYPE_OBJECT, 4);
        const tree_bytes expected = tree_encode(&pool, node, false);
        blob.size = 0;
        const iqdb_field *fields = tree_to_fields(&pool, node, round % 2 == 0 ? NULL : &state);
        const iqdb_result result = iq_payload_encode(fields, node->count, &blob);
        iqdb_value root = iqdb_object(NULL, 0);
        root.as.object.encoded = blob.bytes;
        root.as.object.size = blob.size;
        const bool good = result == IQDB_OK && blob.size == expected.size &&
                          memcmp(blob.bytes, expected.bytes, blob.size) == 0 &&
                          iq_payload_validate(blob.bytes, blob.size) == IQDB_OK && tree_matches(node, root) &&
                          tree_matches(node, iqdb_object(fields, node->count));
        tree_free(&pool);
        if (!EXPECT(good)) {
            printf("\n    seed %zu", round);
            break;
        }
    }
    iq_blob_free(&blob);
}

/* Each sample lies in a block of its own size, so that tools see a read beyond it. */
static void damage(const uint8_t *bytes, size_t size) {
    uint8_t *copy = (uint8_t *)malloc(size + 8);
    CHECK(copy != NULL);
    memcpy(copy, bytes, size);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        copy[bit / 8] = (uint8_t)(copy[bit / 8] ^ 1u << bit % 8);
        if (!EXPECT(is_sound(copy, size))) printf("\n    bit %zu", bit);
        copy[bit / 8] = bytes[bit / 8];
    }
    for (size_t more = 0; more <= 8; more++) { /* and some bytes too many */
        memset(copy + size, 0, more);
        if (!EXPECT(is_sound(copy, size + more))) printf("\n    %zu more", more);
    }
    free(copy);
    for (size_t less = 0; less < size; less++) {
        copy = (uint8_t *)malloc(less + (less == 0));
        CHECK(copy != NULL);
        memcpy(copy, bytes, less);
        if (!EXPECT(is_sound(copy, less))) printf("\n    %zu left", less);
        free(copy);
    }
}

static void bits_flipped_and_ends_cut(void) {
    damage(letter, sizeof letter);
    const size_t rounds = support_amount(3, 60, 1000);
    for (size_t round = 0; round < rounds; round++) {
        uint64_t state = round + 1000;
        tree_pool pool = {NULL, 0, 0};
        const tree_bytes sample = tree_encode(&pool, tree_random(&pool, &state, IQDB_TYPE_OBJECT, 2), false);
        damage(sample.bytes, sample.size);
        tree_free(&pool);
    }
}

/* Two bytes at once reach what one bit does not: an offset and a count that lie together. */
static void bytes_replaced(void) {
    const size_t rounds = support_amount(2000, 200000, 5000000);
    static const uint8_t edges[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 0x24, 0x7F, 0x80, 0xFF};
    uint64_t state = 7;
    size_t accepted = 0;
    for (size_t round = 0; round < rounds; round++) {
        uint8_t copy[sizeof letter];
        memcpy(copy, letter, sizeof letter);
        for (uint64_t i = 2 + support_random_below(&state, 2); i > 0; i--)
            copy[support_random_below(&state, sizeof letter)] = edges[support_random_below(&state, sizeof edges)];
        accepted += iq_payload_validate(copy, sizeof copy) == IQDB_OK;
        if (!is_sound(copy, sizeof copy)) CHECK(false);
    }
    CHECK(accepted > 0 && accepted < rounds);
}

/* ---- What is refused ---- */

static void keys(void) {
    static const char *const bad[] = {"\xFF", "a\xC3", "\xED\xA0\x80", "\xC0\x80", "12345678\x80"};
    iqdb_field fields[3];
    for (size_t i = 0; i < 3; i++) fields[i] = field_of("", iqdb_null());
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        fields[0].key = bad[i];
        CHECK_EQ_INT(encode(fields, 1), IQDB_ERR_INVALID_PAYLOAD);
        const iqdb_value nested = iqdb_object(fields, 1);
        CHECK_EQ_INT(encode_one(iqdb_array(&nested, 1)), IQDB_ERR_INVALID_PAYLOAD);
    }
    fields[0].key = NULL;
    CHECK_EQ_INT(encode(fields, 1), IQDB_ERR_INVALID_PAYLOAD);
    CHECK_EQ_INT(encode(NULL, 1), IQDB_ERR_INVALID_PAYLOAD);
    static const char *const thrice[][3] = {{"a", "a", "b"}, {"a", "b", "b"}, {"b", "a", "b"}, {"b", "b", "a"},
                                            {"a", "a", "a"}, {"", "a", ""},   {"c", "b", "c"}};
    for (size_t i = 0; i < sizeof thrice / sizeof thrice[0]; i++) {
        for (size_t k = 0; k < 3; k++) fields[k].key = thrice[i][k];
        CHECK_EQ_INT(encode(fields, 3), IQDB_ERR_INVALID_PAYLOAD);
        CHECK_EQ_INT(encode_one(iqdb_object(fields, 3)), IQDB_ERR_INVALID_PAYLOAD);
    }
    static const char *const near[3] = {"aa", "a", "a\x01"}; /* prefixes are not the same key */
    for (size_t k = 0; k < 3; k++) fields[k].key = near[k];
    CHECK_EQ_INT(encode(fields, 3), IQDB_OK);
}

static void values(void) {
    iqdb_value value = iqdb_null();
    for (unsigned type = 0; type < 256; type++) {
        const iqdb_result expected =
            type <= IQDB_TYPE_OBJECT && type != IQDB_TYPE_TEXT ? IQDB_OK : IQDB_ERR_INVALID_PAYLOAD;
        memset(&value, 0, sizeof value); /* for each type that is one: empty; but a text of NULL */
        value.type = (iqdb_type)type;
        CHECK_EQ_INT(encode_one(value), expected);
        CHECK_EQ_INT(encode_one(iqdb_array(&value, 1)), expected);
    }
    CHECK_EQ_INT(encode_one(iqdb_text(NULL)), IQDB_ERR_INVALID_PAYLOAD);
    CHECK_EQ_INT(encode_one(iqdb_text_n(NULL, 1)), IQDB_ERR_INVALID_PAYLOAD);
    CHECK_EQ_INT(encode_one(iqdb_text_n("\xC3\xA9", 1)), IQDB_ERR_INVALID_PAYLOAD);
    CHECK_EQ_INT(encode_one(iqdb_text_n("a\0b", 3)), IQDB_OK);
    CHECK_EQ_INT(encode_one(iqdb_bytes(NULL, 1)), IQDB_ERR_INVALID_PAYLOAD);
    CHECK_EQ_INT(encode_one(iqdb_array(NULL, 1)), IQDB_ERR_INVALID_PAYLOAD);
    CHECK_EQ_INT(encode_one(iqdb_object(NULL, 1)), IQDB_ERR_INVALID_PAYLOAD);
}

/* ---- Depth ---- */

#define LEVELS 70

/* `depth` containers in one another, alternating, the innermost first. */
static void nest(iqdb_value *levels, iqdb_field *fields, size_t depth, iqdb_value innermost) {
    for (size_t i = 0; i < depth; i++) {
        const iqdb_value inner = i == 0 ? innermost : levels[i - 1];
        fields[i] = field_of("k", inner);
        levels[i] = i % 2 == 0 ? iqdb_object(&fields[i], 1) : iqdb_array(&fields[i].value, 1);
    }
}

static void depth_of_built_ones(void) {
    iqdb_value levels[LEVELS];
    iqdb_field fields[LEVELS];
    const iqdb_value leaves[3] = {iqdb_int(1), iqdb_array(NULL, 0), iqdb_object(NULL, 0)};
    for (size_t leaf = 0; leaf < 3; leaf++)
        for (size_t depth = 1; depth < LEVELS; depth++) {
            nest(levels, fields, depth, leaves[leaf]); /* the payload, `depth` containers, and the leaf */
            const bool fits = 1 + depth + (leaf > 0) <= IQDB_PAYLOAD_DEPTH_MAX;
            CHECK_EQ_INT(encode_one(levels[depth - 1]), fits ? IQDB_OK : IQDB_ERR_INVALID_PAYLOAD);
        }
    iqdb_value ring[1]; /* an array that holds itself */
    ring[0] = iqdb_array(ring, 1);
    CHECK_EQ_INT(encode_one(ring[0]), IQDB_ERR_INVALID_PAYLOAD);
}

/* Encoded by the model, which knows no limit: alone, and inside `outside` built containers. */
static void depth_of_encoded_ones(void) {
    tree_pool pool = {NULL, 0, 0};
    for (size_t depth = 1; depth < LEVELS; depth++) {
        tree *node = tree_new(&pool, IQDB_TYPE_OBJECT, 0);
        for (size_t i = 1; i < depth; i++) {
            tree *outer = tree_new(&pool, i % 2 == 0 || i + 1 == depth ? IQDB_TYPE_OBJECT : IQDB_TYPE_ARRAY, 1);
            outer->items[0] = node;
            outer->keys[0] = tree_copy(&pool, "k", 1);
            node = outer;
        }
        const tree_bytes bytes = tree_encode(&pool, node, true);
        const bool fits = depth <= IQDB_PAYLOAD_DEPTH_MAX;
        CHECK_EQ_INT(iq_payload_validate(bytes.bytes + 1, bytes.size - 1), fits ? IQDB_OK : IQDB_ERR_INVALID_PAYLOAD);
        for (size_t outside = 1; outside < LEVELS; outside++) {
            iqdb_value levels[LEVELS];
            iqdb_field fields[LEVELS];
            const iqdb_value view = iq_value_decode(bytes.bytes, bytes.size);
            nest(levels, fields, outside, view);
            const bool all = outside + depth <= IQDB_PAYLOAD_DEPTH_MAX;
            CHECK_EQ_INT(encode_one(outside == 1 ? view : levels[outside - 2]),
                         all ? IQDB_OK : IQDB_ERR_INVALID_PAYLOAD);
        }
    }
    tree_free(&pool);
}

/* ---- Limits ---- */

/* Two items each, that are the same array two items each ...: 2^62 values to walk, were it not for the limit. */
static void values_that_share_parts(void) {
    iqdb_value levels[LEVELS][2];
    levels[0][0] = levels[0][1] = iqdb_null();
    for (size_t i = 1; i < LEVELS; i++) levels[i][0] = levels[i][1] = iqdb_array(levels[i - 1], 2);
    CHECK_EQ_INT(encode_one(levels[62][0]), IQDB_ERR_LIMIT);
    CHECK_EQ_INT(encode_one(levels[8][0]), IQDB_OK);
}

static void sizes_that_cannot_be(void) {
    static const size_t huge[] = {(size_t)-1,
                                  (size_t)-1 / 2,
                                  (size_t)-1 / 4,
                                  (size_t)-1 / sizeof(iqdb_field) + 1,
                                  (size_t)1 << 30,
                                  IQDB_PAYLOAD_SIZE_MAX,
                                  IQDB_PAYLOAD_SIZE_MAX / 4 + 1,
                                  IQDB_PAYLOAD_SIZE_MAX / 4,
                                  IQDB_PAYLOAD_SIZE_MAX / 4 - 1};
    const iqdb_value item = iqdb_null();
    const iqdb_field field = field_of("", iqdb_null());
    for (size_t i = 0; i < sizeof huge / sizeof huge[0]; i++) { /* refused before anything is read */
        CHECK_EQ_INT(encode_one(iqdb_array(&item, huge[i])), IQDB_ERR_LIMIT);
        CHECK_EQ_INT(encode_one(iqdb_object(&field, huge[i])), IQDB_ERR_LIMIT);
        CHECK_EQ_INT(encode(&field, huge[i]), IQDB_ERR_LIMIT);
    }
    for (size_t i = 0; i < 6; i++) {
        CHECK_EQ_INT(encode_one(iqdb_text_n("", huge[i])), IQDB_ERR_LIMIT);
        CHECK_EQ_INT(encode_one(iqdb_bytes("", huge[i])), IQDB_ERR_LIMIT);
        iqdb_value view = iqdb_object(NULL, 0);
        view.as.object.encoded = letter;
        view.as.object.size = huge[i];
        CHECK_EQ_INT(encode_one(view), IQDB_ERR_LIMIT);
    }
    CHECK_EQ_INT(iq_payload_validate(letter, IQDB_PAYLOAD_SIZE_MAX + 1u), IQDB_ERR_LIMIT);
    CHECK_EQ_INT(iq_payload_validate(letter, (size_t)-1), IQDB_ERR_LIMIT);
}

static void exactly_the_limit(void) {
    if (support_amount(1, 0, 0)) TEST_SKIP("it takes 200 MB");
    const size_t rest = 4 + 4 + 2 + 1; /* count, offset, "k", type */
    char *data = (char *)calloc(1, IQDB_PAYLOAD_SIZE_MAX);
    CHECK(data != NULL);
    CHECK_EQ_INT(encode_one(iqdb_bytes(data, IQDB_PAYLOAD_SIZE_MAX - rest)), IQDB_OK);
    CHECK_EQ_INT(encode_one(iqdb_bytes(data, IQDB_PAYLOAD_SIZE_MAX - rest + 1)), IQDB_ERR_LIMIT);
    CHECK_EQ_INT(encode_one(iqdb_text_n(data, IQDB_PAYLOAD_SIZE_MAX - rest - 1)), IQDB_OK);
    CHECK_EQ_INT(encode_one(iqdb_text_n(data, IQDB_PAYLOAD_SIZE_MAX - rest)), IQDB_ERR_LIMIT);
    CHECK_EQ_INT(encode_one(iqdb_text_n(data, IQDB_PAYLOAD_SIZE_MAX - rest + 1)), IQDB_ERR_LIMIT);
    iqdb_value pair[2]; /* the last byte is the type of the second item */
    pair[1] = iqdb_null();
    for (size_t over = 0; over < 3; over++) {
        pair[0] = iqdb_bytes(data, IQDB_PAYLOAD_SIZE_MAX - rest - (4 + 8 + 1 + 1) + over);
        CHECK_EQ_INT(encode_one(iqdb_array(pair, 2)), over == 0 ? IQDB_OK : IQDB_ERR_LIMIT);
    }
    memset(data, 'k', IQDB_PAYLOAD_SIZE_MAX - 1);
    iqdb_field field = field_of(data, iqdb_null()); /* a key alone */
    CHECK_EQ_INT(encode(&field, 1), IQDB_ERR_LIMIT);
    data[IQDB_PAYLOAD_SIZE_MAX - 10] = 0;
    CHECK_EQ_INT(encode(&field, 1), IQDB_OK);
    data[IQDB_PAYLOAD_SIZE_MAX - 10] = 'k';
    data[IQDB_PAYLOAD_SIZE_MAX - 9] = 0;
    CHECK_EQ_INT(encode(&field, 1), IQDB_ERR_LIMIT);
    free(data);
}

/* A million keys in the orders that are bad for one sort or another. */
static void many_fields(void) {
    const size_t count = support_amount(20000, 1000000, 1000000);
    char *names = (char *)malloc(count * 8);
    iqdb_field *fields = (iqdb_field *)calloc(count, sizeof *fields);
    CHECK(names != NULL && fields != NULL);
    for (size_t i = 0; i < count; i++) snprintf(names + 8 * i, 8, "%07u", (unsigned)i);
    for (int order = 0; order < 4; order++) {
        uint64_t state = 5;
        for (size_t i = 0; i < count; i++) {
            const size_t at = order == 0 ? i : order == 1 ? count - 1 - i : order == 2 ? (i * 7919) % count : i ^ 1;
            fields[i] = field_of(names + 8 * (at < count ? at : i), iqdb_int((int64_t)at));
        }
        CHECK_EQ_INT(encode(fields, count), IQDB_OK);
        const size_t a = (size_t)support_random_below(&state, count - 1);
        fields[a].key = fields[a + 1].key;
        CHECK_EQ_INT(encode(fields, count), IQDB_ERR_INVALID_PAYLOAD);
    }
    free(fields);
    free(names);
}

static void memory_runs_out(void) {
    iqdb_field fields[8];
    size_t failures = 0;
    letter_fields(fields);
    for (size_t n = 1;; n++) {
        support_heap heap = support_heap_make();
        const iqdb_allocator allocator = support_allocator(&heap);
        iq_blob blob = blob_make(&allocator);
        CHECK_EQ_INT(iq_blob_append(&blob, letter, sizeof letter), IQDB_OK);
        heap.fail_at = n;
        iqdb_result result = IQDB_OK;
        size_t size = blob.size;
        for (size_t i = 0; i < 20 && result == IQDB_OK; i++) {
            size = blob.size;
            result = iq_payload_encode(fields, 8, &blob);
        }
        if (result != IQDB_OK) {
            CHECK_EQ_INT(result, IQDB_ERR_NOMEM);
            CHECK_EQ_U64(blob.size, size);
            failures++;
        }
        for (size_t i = 0; i < blob.size; i += sizeof letter) CHECK_MEM(blob.bytes + i, letter, sizeof letter);
        iq_blob_free(&blob);
        CHECK_EQ_U64(support_heap_problems(&heap), 0);
        if (heap.failed == 0) break;
    }
    CHECK(failures >= 2);
}

/* ---- Bytes that are not canonical ---- */

typedef struct bad_bytes {
    const char *what;
    size_t size;
    const char *bytes;
} bad_bytes;

#define BAD(what, bytes) \
    { what, sizeof(bytes) - 1, bytes }

static void what_is_not_canonical(void) {
    static const bad_bytes list[] = {
        BAD("no bytes", ""),
        BAD("three bytes", "\0\0\0"),
        BAD("nothing, and one byte more", "\0\0\0\0\0"),
        BAD("a table that is cut off", "\1\0\0\0\10\0\0"),
        BAD("a count beyond all bytes", "\377\377\377\377\10\0\0\0k\0\0"),
        BAD("a count that wraps times four", "\1\0\0\100\10\0\0\0k\0\0"),
        BAD("an item without bytes", "\1\0\0\0\10\0\0\0"),
        BAD("a first offset too small", "\1\0\0\0\7\0\0\0k\0\0"),
        BAD("a first offset into the count", "\1\0\0\0\0\0\0\0k\0\0"),
        BAD("a gap before the first item", "\1\0\0\0\11\0\0\0xk\0\0"),
        BAD("an offset at the end", "\1\0\0\0\13\0\0\0k\0\0"),
        BAD("an offset beyond the end", "\1\0\0\0\377\377\377\377k\0\0"),
        BAD("offsets that go back", "\2\0\0\0\14\0\0\0\13\0\0\0a\0\0b\0\0"),
        BAD("an empty item", "\2\0\0\0\14\0\0\0\14\0\0\0a\0\0b\0\0"),
        BAD("a key without end", "\1\0\0\0\10\0\0\0kkk"),
        BAD("a key without value", "\1\0\0\0\10\0\0\0kk\0"),
        BAD("a key that is not UTF-8", "\1\0\0\0\10\0\0\0\200\0\0"),
        BAD("the same key twice", "\2\0\0\0\14\0\0\0\17\0\0\0a\0\0a\0\0"),
        BAD("keys out of order", "\2\0\0\0\14\0\0\0\17\0\0\0b\0\0a\0\0"),
        BAD("keys out of order as signed bytes would have them", "\2\0\0\0\14\0\0\0\20\0\0\0\303\251\0\0a\0\0"),
        BAD("a null with a byte", "\1\0\0\0\10\0\0\0k\0\0\0"),
        BAD("a bool without byte", "\1\0\0\0\10\0\0\0k\0\1"),
        BAD("a bool of two", "\1\0\0\0\10\0\0\0k\0\1\2"),
        BAD("a bool of two bytes", "\1\0\0\0\10\0\0\0k\0\1\1\1"),
        BAD("an int of seven bytes", "\1\0\0\0\10\0\0\0k\0\2\1\2\3\4\5\6\7"),
        BAD("a float of nine bytes", "\1\0\0\0\10\0\0\0k\0\3\1\2\3\4\5\6\7\1\2"),
        BAD("a text without bytes", "\1\0\0\0\10\0\0\0k\0\4"),
        BAD("a text without NUL", "\1\0\0\0\10\0\0\0k\0\4a"),
        BAD("a text that is not UTF-8", "\1\0\0\0\10\0\0\0k\0\4\303\0"),
        BAD("an unknown type", "\1\0\0\0\10\0\0\0k\0\10"),
        BAD("the type of an absent value", "\1\0\0\0\10\0\0\0k\0\377"),
        BAD("an array of three bytes", "\1\0\0\0\10\0\0\0k\0\6\0\0\0"),
        BAD("an array of nothing in five bytes", "\1\0\0\0\10\0\0\0k\0\6\0\0\0\0\0"),
        BAD("an array that starts elsewhere", "\1\0\0\0\10\0\0\0k\0\6\1\0\0\0\7\0\0\0\0"),
        BAD("an array of a text without NUL", "\1\0\0\0\10\0\0\0k\0\6\1\0\0\0\10\0\0\0\4a"),
        BAD("an array with an empty item", "\1\0\0\0\10\0\0\0k\0\6\1\0\0\0\10\0\0\0"),
        BAD("an object whose key has no end", "\1\0\0\0\10\0\0\0k\0\7\1\0\0\0\10\0\0\0a"),
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        uint8_t *copy = (uint8_t *)malloc(list[i].size + (list[i].size == 0));
        CHECK(copy != NULL);
        memcpy(copy, list[i].bytes, list[i].size);
        iqdb_value view = iqdb_object(NULL, 0);
        view.as.object.encoded = copy;
        view.as.object.size = list[i].size;
        const bool refused = iq_payload_validate(copy, list[i].size) == IQDB_ERR_INVALID_PAYLOAD;
        const bool refused_inside = encode_one(view) == IQDB_ERR_INVALID_PAYLOAD;
        free(copy);
        if (!EXPECT(refused && refused_inside)) printf("\n    %s", list[i].what);
    }
    CHECK_EQ_INT(iq_payload_validate(NULL, 0), IQDB_ERR_INVALID_PAYLOAD);
    CHECK_EQ_INT(iq_payload_validate(NULL, 4), IQDB_ERR_INVALID_PAYLOAD);
    CHECK_EQ_INT(iq_payload_validate("\1\0\0\0\10\0\0\0k\0\0", 11), IQDB_OK); /* what most of them start from */
}

/* Bytes that were never checked: a path ends where the object that it leads through is none. */
static void paths_through_no_object(void) {
    static const uint8_t sound[] = "\1\0\0\0\10\0\0\0k\0\7\1\0\0\0\10\0\0\0i\0\1\1"; /* {"k": {"i": true}} */
    uint8_t bytes[sizeof sound - 1];
    memcpy(bytes, sound, sizeof bytes);
    iqdb_payload payload;
    payload.bytes = bytes;
    payload.size = sizeof bytes;
    CHECK_EQ_INT(iqdb_payload_get(payload, "k.i").type, IQDB_TYPE_BOOL);
    bytes[11] = 2; /* a table that does not fit */
    CHECK_EQ_INT(iqdb_payload_get(payload, "k.i").type, IQDB_TYPE_ABSENT);
    payload.size = 13; /* not even a count */
    CHECK_EQ_INT(iqdb_payload_get(payload, "k.i").type, IQDB_TYPE_ABSENT);
}

TEST_MAIN("codec/payload", TEST(every_type_in_every_order), TEST(empty_ones), TEST(appends_behind_what_is_there),
          TEST(random_trees), TEST(bits_flipped_and_ends_cut), TEST(bytes_replaced), TEST(keys), TEST(values),
          TEST(depth_of_built_ones), TEST(depth_of_encoded_ones), TEST(values_that_share_parts),
          TEST(sizes_that_cannot_be), TEST(exactly_the_limit), TEST(many_fields), TEST(memory_runs_out),
          TEST(what_is_not_canonical), TEST(paths_through_no_object))
