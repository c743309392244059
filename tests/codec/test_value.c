/* Making and reading values: each type built and encoded, paths, and readers on bytes that are no payload. */
#include "test.h"
#include "tree.h"

static iqdb_payload payload_of(const void *bytes, size_t size) {
    iqdb_payload payload;
    payload.bytes = bytes;
    payload.size = size;
    return payload;
}

static iqdb_field field_of(const char *key, iqdb_value value) {
    iqdb_field field;
    field.key = key;
    field.value = value;
    return field;
}

/* Encoded in memory that the caller frees with iq_blob_free. */
static iq_blob encoded(const iqdb_field *fields, size_t count) {
    static iqdb_allocator allocator;
    allocator = iq_alloc_default();
    iq_blob blob;
    memset(&blob, 0, sizeof blob);
    blob.allocator = &allocator;
    EXPECT(iq_payload_encode(fields, count, &blob) == IQDB_OK);
    return blob;
}

static void constructors(void) {
    const iqdb_value item = iqdb_null();
    const iqdb_field field = field_of("", iqdb_null());
    CHECK_EQ_INT(iqdb_null().type, IQDB_TYPE_NULL);
    CHECK_EQ_INT(iqdb_bool(true).type, IQDB_TYPE_BOOL);
    CHECK(iqdb_bool(true).as.boolean && !iqdb_bool(false).as.boolean);
    CHECK_EQ_INT(iqdb_int(INT64_MIN).type, IQDB_TYPE_INT);
    CHECK_EQ_INT(iqdb_int(INT64_MIN).as.integer, INT64_MIN);
    CHECK_EQ_INT(iqdb_float(0.5).type, IQDB_TYPE_FLOAT);
    CHECK(iqdb_float(0.5).as.real == 0.5);
    CHECK_EQ_INT(iqdb_text("abc").type, IQDB_TYPE_TEXT);
    CHECK_EQ_U64(iqdb_text("abc").as.text.size, 3);
    CHECK(iqdb_text(NULL).as.text.data == NULL);
    CHECK_EQ_U64(iqdb_text(NULL).as.text.size, 0);
    CHECK(iqdb_text_n(NULL, 0).as.text.data != NULL);
    CHECK(iqdb_text_n(NULL, 1).as.text.data == NULL);
    CHECK_EQ_U64(iqdb_text_n("abc", 2).as.text.size, 2);
    CHECK_EQ_INT(iqdb_bytes("abc", 2).type, IQDB_TYPE_BYTES);
    CHECK_EQ_U64(iqdb_bytes("abc", 2).as.bytes.size, 2);
    CHECK(iqdb_array(&item, 1).type == IQDB_TYPE_ARRAY && iqdb_array(&item, 1).as.array.items == &item);
    CHECK(iqdb_object(&field, 1).type == IQDB_TYPE_OBJECT && iqdb_object(&field, 1).as.object.fields == &field);
    CHECK(iqdb_array(&item, 1).as.array.encoded == NULL && iqdb_object(&field, 1).as.object.encoded == NULL);
}

static void what_is_not_there(void) {
    iqdb_field out = field_of("x", iqdb_int(1));
    const iqdb_value scalars[] = {iqdb_null(),    iqdb_bool(true),    iqdb_int(1),         iqdb_float(1),
                                  iqdb_text("a"), iqdb_bytes("a", 1), iqdb_array(NULL, 3), iqdb_object(NULL, 3)};
    for (size_t i = 0; i < sizeof scalars / sizeof scalars[0]; i++) {
        CHECK_EQ_U64(iqdb_value_count(scalars[i]), 0);
        CHECK_EQ_INT(iqdb_value_at(scalars[i], 0).type, IQDB_TYPE_ABSENT);
        CHECK_EQ_INT(iqdb_value_get(scalars[i], "").type, IQDB_TYPE_ABSENT);
        CHECK_EQ_INT(iqdb_value_get(scalars[i], "a.b").type, IQDB_TYPE_ABSENT);
        CHECK_EQ_INT(iqdb_value_get(scalars[i], NULL).type, IQDB_TYPE_ABSENT);
        CHECK(!iqdb_value_field(scalars[i], 0, &out));
        CHECK(out.key == NULL && out.value.type == IQDB_TYPE_ABSENT);
        CHECK(!iqdb_value_field(scalars[i], 0, NULL));
    }
    const iqdb_payload absent = payload_of(NULL, 100);
    CHECK_EQ_U64(iqdb_payload_count(absent), 0);
    CHECK_EQ_INT(iqdb_payload_get(absent, "k").type, IQDB_TYPE_ABSENT);
    CHECK(!iqdb_payload_at(absent, 0, &out));
    CHECK_EQ_INT(iqdb_payload_int(absent, "k", 5), 5);
    CHECK(iqdb_payload_bool(absent, "k", true) && !iqdb_payload_bool(absent, "k", false));
    CHECK(iqdb_payload_float(absent, "k", 2.5) == 2.5);
    size_t size = 9;
    CHECK(iqdb_payload_text(absent, "k", &size) == NULL);
    CHECK_EQ_U64(size, 0);
    CHECK(iqdb_payload_text(absent, "k", NULL) == NULL);
}

/* One field of each type; each reader takes its own and leaves the others. */
static void typed_readers(void) {
    const iqdb_value item = iqdb_int(7);
    iqdb_field fields[8];
    fields[0] = field_of("null", iqdb_null());
    fields[1] = field_of("bool", iqdb_bool(true));
    fields[2] = field_of("int", iqdb_int(-5));
    fields[3] = field_of("float", iqdb_float(1.25));
    fields[4] = field_of("text", iqdb_text_n("a\0b", 3));
    fields[5] = field_of("bytes", iqdb_bytes("xyz", 3));
    fields[6] = field_of("array", iqdb_array(&item, 1));
    fields[7] = field_of("object", iqdb_object(fields, 2));
    iq_blob blob = encoded(fields, 8);
    const iqdb_payload payload = payload_of(blob.bytes, blob.size);
    CHECK_EQ_U64(iqdb_payload_count(payload), 8);
    for (size_t i = 0; i < 8; i++) {
        const char *key = fields[i].key;
        size_t size = 99;
        const char *text = iqdb_payload_text(payload, key, &size);
        CHECK_EQ_INT(iqdb_payload_int(payload, key, 99), i == 2 ? -5 : 99);
        CHECK(iqdb_payload_float(payload, key, 99) == (i == 2 ? -5 : i == 3 ? 1.25 : 99));
        CHECK(iqdb_payload_bool(payload, key, false) == (i == 1));
        CHECK((text != NULL) == (i == 4));
        CHECK_EQ_U64(size, i == 4 ? 3 : 0);
        if (text != NULL) CHECK_MEM(text, "a\0b", 4);
        CHECK_EQ_INT(iqdb_payload_get(payload, key).type, i);
    }
    static const char *const sorted[] = {"array", "bool", "bytes", "float", "int", "null", "object", "text"};
    for (size_t i = 0; i < 8; i++) {
        iqdb_field out;
        CHECK(iqdb_payload_at(payload, i, &out));
        CHECK_EQ_STR(out.key, sorted[i]);
        CHECK_EQ_INT(out.value.type, iqdb_payload_get(payload, out.key).type);
    }
    const iqdb_value object = iqdb_payload_get(payload, "object");
    CHECK(object.as.object.fields == NULL && object.as.object.encoded != NULL);
    CHECK_EQ_U64(object.as.object.count, 2);
    const iqdb_value array = iqdb_payload_get(payload, "array");
    CHECK(array.as.array.items == NULL && array.as.array.encoded != NULL);
    CHECK_EQ_U64(array.as.array.count, 1);
    CHECK_EQ_INT(iqdb_value_at(array, 0).as.integer, 7);
    CHECK_EQ_INT(iqdb_value_get(array, "").type, IQDB_TYPE_ABSENT);
    iq_blob_free(&blob);
}

/* In a built object keys may stand in any order, twice, or be missing: the first of a name counts. */
static void built_objects(void) {
    iqdb_field fields[4], out;
    fields[0] = field_of(NULL, iqdb_int(0));
    fields[1] = field_of("b", iqdb_int(1));
    fields[2] = field_of("a", iqdb_int(2));
    fields[3] = field_of("b", iqdb_int(3));
    const iqdb_value object = iqdb_object(fields, 4);
    CHECK_EQ_U64(iqdb_value_count(object), 4);
    CHECK_EQ_INT(iqdb_value_get(object, "b").as.integer, 1);
    CHECK_EQ_INT(iqdb_value_get(object, "a").as.integer, 2);
    CHECK_EQ_INT(iqdb_value_get(object, "").type, IQDB_TYPE_ABSENT);
    CHECK_EQ_INT(iqdb_value_get(object, "ab").type, IQDB_TYPE_ABSENT);
    CHECK(iqdb_value_field(object, 3, &out));
    CHECK_EQ_INT(out.value.as.integer, 3);
    CHECK_EQ_INT(iqdb_value_at(object, 2).as.integer, 2);
    CHECK_EQ_INT(iqdb_value_at(object, 4).type, IQDB_TYPE_ABSENT);
    CHECK_EQ_INT(iqdb_value_at(object, (size_t)-1).type, IQDB_TYPE_ABSENT);
}

/* Built and encoded objects answer alike. */
static void paths(void) {
    iqdb_field deep[2], middle[3], dotted[1], all[8];
    deep[0] = field_of("x", iqdb_int(1));
    deep[1] = field_of("y.z", iqdb_int(2));
    middle[0] = field_of("b", iqdb_object(deep, 2));
    middle[1] = field_of("b.x", iqdb_int(3));
    middle[2] = field_of("leaf", iqdb_int(4));
    dotted[0] = field_of("c", iqdb_int(5));
    all[0] = field_of("a", iqdb_object(middle, 3));
    all[1] = field_of("a.b", iqdb_object(dotted, 1)); /* hidden behind "a" for longer keys */
    all[2] = field_of("a.leaf", iqdb_int(6));         /* exact: before the one inside "a" */
    all[3] = field_of("n", iqdb_int(7));
    all[4] = field_of("n.o", iqdb_object(dotted, 1)); /* "n" is no object, so this is followed */
    all[5] = field_of("", iqdb_object(dotted, 1));
    all[6] = field_of(".", iqdb_int(8));
    all[7] = field_of("list", iqdb_array(&deep[0].value, 1));
    static const struct {
        const char *key;
        int64_t expected; /* 0: absent; -1: an object */
    } cases[] = {{"a", -1},     {"a.b", -1},    {"a.b.x", 3},   {"a.b.y.z", 2}, {"a.b.y", 0},    {"a.b.c", 0},
                 {"a.leaf", 6}, {"n", 7},       {"n.o", -1},    {"n.o.c", 5},   {"n.p", 0},      {".c", 5},
                 {".", 8},      {"", -1},       {"..", 0},      {"a.", 0},      {"a..b", 0},     {"list", -2},
                 {"list.0", 0}, {"b", 0},       {"a.b.x.y", 0}, {"a.bb.x", 0},  {"a.leaf.x", 0}, {".c.d", 0},
                 {"aa", 0},     {"a.b.y.z.", 0}};
    iq_blob blob = encoded(all, 8);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int kind = 0; kind < 2; kind++) {
            const iqdb_value found = kind == 0 ? iqdb_payload_get(payload_of(blob.bytes, blob.size), cases[i].key)
                                               : iqdb_value_get(iqdb_object(all, 8), cases[i].key);
            const iqdb_type type = cases[i].expected == 0    ? IQDB_TYPE_ABSENT
                                   : cases[i].expected == -1 ? IQDB_TYPE_OBJECT
                                   : cases[i].expected == -2 ? IQDB_TYPE_ARRAY
                                                             : IQDB_TYPE_INT;
            if (!EXPECT(found.type == type && (type != IQDB_TYPE_INT || found.as.integer == cases[i].expected)))
                printf("\n    key \"%s\", %s", cases[i].key, kind == 0 ? "encoded" : "built");
        }
    iq_blob_free(&blob);
}

/* Binary search hits every key and no other, for every count up to 70. */
static void every_key_is_found(void) {
    char names[140][4];
    iqdb_field fields[70];
    for (unsigned i = 0; i < 140; i++) snprintf(names[i], sizeof names[i], "%03u", i);
    for (size_t count = 0; count <= 70; count++) {
        for (size_t i = 0; i < count; i++) fields[i] = field_of(names[2 * i + 1], iqdb_int((int64_t)i));
        iq_blob blob = encoded(fields, count);
        const iqdb_payload payload = payload_of(blob.bytes, blob.size);
        for (size_t i = 0; i < count; i++) {
            CHECK_EQ_INT(iqdb_payload_int(payload, names[2 * i + 1], -1), i);
            CHECK_EQ_INT(iqdb_payload_int(payload, names[2 * i], -1), -1);
        }
        CHECK_EQ_INT(iqdb_payload_get(payload, "").type, IQDB_TYPE_ABSENT);
        CHECK_EQ_INT(iqdb_payload_get(payload, "001x").type, IQDB_TYPE_ABSENT);
        CHECK_EQ_INT(iqdb_payload_get(payload, "00").type, IQDB_TYPE_ABSENT);
        CHECK_EQ_INT(iqdb_payload_get(payload, "\x7F").type, IQDB_TYPE_ABSENT);
        iq_blob_free(&blob);
    }
}

/* Everything the readers can reach, a bounded number of steps; touches what they hand out, so that tools see it. */
static size_t touch(iqdb_value value, size_t *steps) {
    size_t sum = 0;
    if (*steps == 0) return 0;
    --*steps;
    if (value.type == IQDB_TYPE_TEXT) sum += strlen(value.as.text.data) + (value.as.text.data[value.as.text.size] == 0);
    if (value.type == IQDB_TYPE_BYTES && value.as.bytes.size > 0)
        sum += ((const uint8_t *)value.as.bytes.data)[value.as.bytes.size - 1];
    size_t count = iqdb_value_count(value);
    for (size_t i = 0; i < count && i < 40; i++) {
        iqdb_field field;
        sum += touch(iqdb_value_at(value, i), steps);
        if (!iqdb_value_field(value, i, &field)) continue;
        sum += strlen(field.key) + (size_t)iqdb_value_get(value, field.key).type;
    }
    static const char *const keys[] = {"", "a", "k", "a.k", ".", "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) sum += (size_t)iqdb_value_get(value, keys[i]).type;
    return sum;
}

static void readers_take_any_bytes(void) {
    const size_t rounds = support_amount(300, 20000, 1000000);
    volatile size_t sink = 0;
    for (size_t round = 0; round < rounds; round++) {
        uint64_t state = round;
        tree_pool pool = {NULL, 0, 0};
        const tree_bytes whole = tree_encode(&pool, tree_random(&pool, &state, IQDB_TYPE_OBJECT, 2), false);
        const size_t size = (size_t)support_random_below(&state, whole.size + 1);
        uint8_t *bytes = (uint8_t *)malloc(size + (size == 0));
        if (bytes == NULL) break;
        memcpy(bytes, whole.bytes, size);
        for (uint64_t i = support_random_below(&state, 6); i > 0 && size > 0; i--) {
            const size_t at = (size_t)support_random_below(&state, size);
            bytes[at] = (uint8_t)(support_random(&state) >> (support_random_below(&state, 8) + 8));
            if (size > 4 && i % 2 == 0) tree_put_u32(bytes + at % (size - 3), (size_t)support_random_below(&state, 64));
        }
        size_t steps = 1000;
        iqdb_field field;
        const iqdb_payload payload = payload_of(bytes, size);
        for (size_t i = 0; i < 5; i++)
            if (iqdb_payload_at(payload, i, &field)) sink += touch(field.value, &steps);
        sink += (size_t)iqdb_payload_get(payload, "a.b.a").type;
        free(bytes);
        tree_free(&pool);
    }
    CHECK(sink > 0);
}

/* A payload's malformed parts are absent, its other ones are not. */
static void malformed_parts_are_absent(void) {
    static const char bytes[] = "\3\0\0\0\20\0\0\0\24\0\0\0\27\0\0\0" /* a: bool 2, b: null, c: int of 2 bytes */
                                "a\0\1\2"
                                "b\0\0"
                                "c\0\2\1";
    const iqdb_payload payload = payload_of(bytes, sizeof bytes - 1);
    iqdb_field field = field_of("x", iqdb_int(1));
    CHECK_EQ_INT(iq_payload_validate(bytes, sizeof bytes - 1), IQDB_ERR_INVALID_PAYLOAD);
    CHECK_EQ_U64(iqdb_payload_count(payload), 3);
    CHECK_EQ_INT(iqdb_payload_get(payload, "a").type, IQDB_TYPE_ABSENT);
    CHECK_EQ_INT(iqdb_payload_get(payload, "b").type, IQDB_TYPE_NULL);
    CHECK_EQ_INT(iqdb_payload_get(payload, "c").type, IQDB_TYPE_ABSENT);
    CHECK(!iqdb_payload_at(payload, 0, &field));
    CHECK(field.key == NULL && field.value.type == IQDB_TYPE_ABSENT);
    CHECK(iqdb_payload_at(payload, 1, &field));
    CHECK_EQ_STR(field.key, "b");
    CHECK_EQ_U64(iqdb_payload_count(payload_of(bytes, 15)), 0); /* the table is cut off */
    CHECK_EQ_U64(iqdb_payload_count(payload_of(bytes, 3)), 0);
    CHECK_EQ_INT(iqdb_payload_get(payload_of("\1\0\0\0\10\0\0\0kkk", 11), "kkk").type, IQDB_TYPE_ABSENT);
    CHECK_EQ_INT(iqdb_payload_get(payload_of("\1\0\0\0\10\0\0\0kkk", 11), "kkkk").type, IQDB_TYPE_ABSENT);
}

/* What a NaN carries must survive every step, also where doubles travel in registers of another width. */
static void bits_of_floats_are_kept(void) {
    static const uint64_t patterns[] = {UINT64_C(0x7FF0000000000001), UINT64_C(0xFFF7FFFFFFFFFFFF),
                                        UINT64_C(0x8000000000000000), UINT64_C(1), UINT64_C(0x7FF8000000000000)};
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        iqdb_field field = field_of("f", iqdb_float(0));
        memcpy(&field.value.as.real, &patterns[i], 8);
        iq_blob blob = encoded(&field, 1);
        const iqdb_value value = iqdb_payload_get(payload_of(blob.bytes, blob.size), "f");
        CHECK_EQ_INT(value.type, IQDB_TYPE_FLOAT);
        CHECK_MEM(&value.as.real, &patterns[i], 8);
        iq_blob_free(&blob);
    }
}

TEST_MAIN("codec/value", TEST(constructors), TEST(what_is_not_there), TEST(typed_readers), TEST(built_objects),
          TEST(paths), TEST(every_key_is_found), TEST(readers_take_any_bytes), TEST(malformed_parts_are_absent),
          TEST(bits_of_floats_are_kept))
