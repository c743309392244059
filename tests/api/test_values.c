/* Values and payloads through the public face: what is built, encoded and stored reads back the same, built and encoded
 * ones read alike, equal payloads have equal bytes, and no bytes whatsoever upset a reader. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

static const iqdb_payload none = {NULL, 0};

/* ---- Constructors ---- */

static void constructors_keep_what_they_get(void) {
    const iqdb_value items[2] = {iqdb_int(1), iqdb_int(2)};
    const iqdb_field fields[1] = {public_field("k", iqdb_int(3))};
    CHECK_EQ_INT(iqdb_null().type, IQDB_TYPE_NULL);
    CHECK(iqdb_bool(true).type == IQDB_TYPE_BOOL && iqdb_bool(true).as.boolean && !iqdb_bool(false).as.boolean);
    CHECK(iqdb_int(INT64_MIN).type == IQDB_TYPE_INT && iqdb_int(INT64_MIN).as.integer == INT64_MIN);
    CHECK(iqdb_float(0.1).type == IQDB_TYPE_FLOAT && iqdb_float(0.1).as.real == 0.1);
    CHECK(iqdb_text("abc").type == IQDB_TYPE_TEXT && iqdb_text("abc").as.text.size == 3);
    CHECK(iqdb_text_n("abc", 2).as.text.size == 2);
    CHECK(iqdb_bytes("abc", 3).type == IQDB_TYPE_BYTES && iqdb_bytes("abc", 3).as.bytes.size == 3);
    CHECK(iqdb_array(items, 2).type == IQDB_TYPE_ARRAY && iqdb_array(items, 2).as.array.items == items);
    CHECK(iqdb_object(fields, 1).type == IQDB_TYPE_OBJECT && iqdb_object(fields, 1).as.object.fields == fields);
}

/* The same bits, all the way down; reads through the public readers only. */
static int same_value(iqdb_value a, iqdb_value b) {
    if (a.type != b.type) return 0;
    switch (a.type) {
    case IQDB_TYPE_BOOL:
        return a.as.boolean == b.as.boolean;
    case IQDB_TYPE_INT:
        return a.as.integer == b.as.integer;
    case IQDB_TYPE_FLOAT:
        return memcmp(&a.as.real, &b.as.real, sizeof a.as.real) == 0;
    case IQDB_TYPE_TEXT:
        return a.as.text.size == b.as.text.size &&
               (a.as.text.size == 0 || memcmp(a.as.text.data, b.as.text.data, a.as.text.size) == 0);
    case IQDB_TYPE_BYTES:
        return a.as.bytes.size == b.as.bytes.size &&
               (a.as.bytes.size == 0 || memcmp(a.as.bytes.data, b.as.bytes.data, a.as.bytes.size) == 0);
    case IQDB_TYPE_ARRAY:
        if (iqdb_value_count(a) != iqdb_value_count(b)) return 0;
        for (size_t i = 0; i < iqdb_value_count(a); i++)
            if (!same_value(iqdb_value_at(a, i), iqdb_value_at(b, i))) return 0;
        return 1;
    case IQDB_TYPE_OBJECT: /* by key: a built one is in its maker's order */
        if (iqdb_value_count(a) != iqdb_value_count(b)) return 0;
        for (size_t i = 0; i < iqdb_value_count(a); i++) {
            iqdb_field field;
            if (!iqdb_value_field(a, i, &field)) return 0;
            if (!same_value(field.value, iqdb_value_at(a, i))) return 0;
            if (!same_value(field.value, iqdb_value_get(b, field.key))) return 0;
        }
        return 1;
    default:
        return a.type == IQDB_TYPE_NULL || a.type == IQDB_TYPE_ABSENT;
    }
}

/* ---- Random values ---- */

typedef struct maker {
    uint64_t state;
    char bytes[1 << 14];
    iqdb_value values[4096];
    iqdb_field fields[4096];
    size_t used_bytes, used_values, used_fields;
} maker;

static const char *make_text(maker *m, size_t *out_size, int key) {
    static const char *const pieces[] = {"a",
                                         "b",
                                         "z",
                                         "~",
                                         "\xc3\xa4",
                                         "\xe2\x82\xac",
                                         "\xf0\x9f\x98\x80",
                                         "\x01",
                                         "\xf4\x8f\xbf\xbf",
                                         "\xed\x9f\xbf",
                                         "\xee\x80\x80",
                                         " ",
                                         "\x7f",
                                         "\xc2\x80"};
    const size_t count = (size_t)support_random_below(&m->state, key ? 5 : 12);
    char *text = m->bytes + m->used_bytes;
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        const char *piece = pieces[support_random_below(&m->state, sizeof pieces / sizeof pieces[0])];
        memcpy(text + size, piece, strlen(piece));
        size += strlen(piece);
        if (!key && support_random_below(&m->state, 20) == 0) text[size++] = 0; /* text may hold U+0000 */
    }
    text[size] = 0;
    m->used_bytes += size + 1;
    *out_size = size;
    return text;
}

static iqdb_value make_value(maker *m, int depth);

/* Distinct keys: each ends in its own number. */
static size_t make_fields(maker *m, iqdb_field **out, int depth) {
    const size_t count = (size_t)support_random_below(&m->state, 6);
    iqdb_field *fields = m->fields + m->used_fields;
    m->used_fields += count;
    for (size_t i = 0; i < count; i++) {
        size_t size;
        char *key = m->bytes + m->used_bytes;
        (void)make_text(m, &size, 1);
        key[size] = (char)('0' + i);
        key[size + 1] = 0;
        m->used_bytes++;
        fields[i].key = key;
        fields[i].value = make_value(m, depth);
    }
    *out = fields;
    return count;
}

static iqdb_value make_value(maker *m, int depth) {
    size_t size;
    double real;
    switch (support_random_below(&m->state, depth > 0 ? 8 : 6)) {
    case 0:
        return iqdb_null();
    case 1:
        return iqdb_bool(support_random(&m->state) & 1);
    case 2:
        return iqdb_int((int64_t)(support_random(&m->state) >> support_random_below(&m->state, 64)));
    case 3: {
        const uint64_t bits =
            support_random_below(&m->state, 5) == 0 ? UINT64_C(0x7ff8dead00000001) : support_random(&m->state);
        memcpy(&real, &bits, 8);
        return iqdb_float(real);
    }
    case 4: {
        const char *text = make_text(m, &size, 0);
        return iqdb_text_n(text, size);
    }
    case 5: {
        unsigned char *bytes = (unsigned char *)m->bytes + m->used_bytes;
        size = (size_t)support_random_below(&m->state, 20);
        for (size_t i = 0; i < size; i++) bytes[i] = (unsigned char)support_random(&m->state);
        m->used_bytes += size;
        return iqdb_bytes(bytes, size);
    }
    case 6: {
        const size_t count = (size_t)support_random_below(&m->state, 5);
        iqdb_value *items = m->values + m->used_values;
        m->used_values += count;
        for (size_t i = 0; i < count; i++) items[i] = make_value(m, depth - 1);
        return iqdb_array(items, count);
    }
    default: {
        iqdb_field *fields;
        const size_t count = make_fields(m, &fields, depth - 1);
        return iqdb_object(fields, count);
    }
    }
}

static maker m;

static size_t make_payload(uint64_t seed, iqdb_field **out) {
    m.state = seed;
    m.used_bytes = m.used_values = m.used_fields = 0;
    return make_fields(&m, out, 4);
}

/* Built, encoded, stored and read: the same. And encoding what was read gives the same bytes. */
static void whatever_is_built_reads_back(void) {
    iqdb *db = NULL;
    const float vector[1] = {1};
    iqdb_buffer first = iqdb_buffer_default(), second = iqdb_buffer_default(), third = iqdb_buffer_default();
    CHECK_EQ_INT(iqdb_open_in_memory(NULL, &db), IQDB_OK);
    for (uint64_t seed = 1; seed <= support_amount(300, 3000, 50000); seed++) {
        iqdb_field *fields, seen;
        iqdb_payload encoded = none, again = none;
        const size_t count = make_payload(seed, &fields);
        CHECK_EQ_INT(iqdb_payload_with(none, fields, count, &first, &encoded), IQDB_OK);
        CHECK_EQ_U64(iqdb_payload_count(encoded), count);
        for (size_t i = 0; i < count; i++) CHECK(same_value(fields[i].value, iqdb_payload_get(encoded, fields[i].key)));
        iqdb_field in_order[8];
        for (size_t i = 0; i < count; i++) {
            CHECK(iqdb_payload_at(encoded, i, &seen));
            if (i > 0) CHECK(strcmp(in_order[i - 1].key, seen.key) < 0); /* byte order */
            in_order[i] = seen;
        }
        CHECK(!iqdb_payload_at(encoded, count, &seen));
        /* Another order of the same fields, and views of encoded values in place of built ones. */
        for (size_t i = 0; i < count / 2; i++) {
            const iqdb_field swap = in_order[i];
            in_order[i] = in_order[count - 1 - i];
            in_order[count - 1 - i] = swap;
        }
        CHECK_EQ_INT(iqdb_payload_with(none, in_order, count, &second, &again), IQDB_OK);
        CHECK_EQ_U64(again.size, encoded.size);
        CHECK_MEM(again.bytes, encoded.bytes, encoded.size);
        iqdb_record record = public_record(seed, vector, 1), stored;
        record.fields = fields;
        record.field_count = count;
        CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
        CHECK_EQ_INT(iqdb_get(db, seed, &third, &stored), IQDB_OK);
        CHECK_EQ_U64(stored.payload.size, encoded.size);
        CHECK_MEM(stored.payload.bytes, encoded.bytes, encoded.size);
        CHECK_EQ_INT(iqdb_delete(db, seed, NULL), IQDB_OK);
    }
    iqdb_buffer_free(&first);
    iqdb_buffer_free(&second);
    iqdb_buffer_free(&third);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

/* ---- Readers ---- */

static void built_and_encoded_values_read_alike(void) {
    iqdb_value items[3] = {iqdb_int(7), iqdb_text("seven"), iqdb_null()};
    iqdb_field fields[3];
    fields[0] = public_field("b", iqdb_array(items, 3));
    fields[1] = public_field("a", iqdb_bool(true));
    fields[2] = public_field("c", iqdb_int(9));
    const iqdb_field outer = public_field("o", iqdb_object(fields, 3));
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload payload = none;
    CHECK_EQ_INT(iqdb_payload_with(none, &outer, 1, &buffer, &payload), IQDB_OK);
    const iqdb_value both[2] = {outer.value, iqdb_payload_get(payload, "o")};
    CHECK(both[1].as.object.fields == NULL && both[1].as.object.encoded != NULL);
    for (int i = 0; i < 2; i++) {
        iqdb_field field;
        const iqdb_value object = both[i], array = iqdb_value_get(object, "b");
        CHECK_EQ_U64(iqdb_value_count(object), 3);
        CHECK_EQ_U64(iqdb_value_count(array), 3);
        CHECK_EQ_INT(iqdb_value_at(array, 0).as.integer, 7);
        CHECK_EQ_INT(iqdb_value_at(array, 1).type, IQDB_TYPE_TEXT);
        CHECK_EQ_INT(iqdb_value_at(array, 2).type, IQDB_TYPE_NULL);
        CHECK_EQ_INT(iqdb_value_at(array, 3).type, IQDB_TYPE_ABSENT);
        CHECK_EQ_INT(iqdb_value_at(array, (size_t)-1).type, IQDB_TYPE_ABSENT);
        CHECK(!iqdb_value_field(array, 0, &field)); /* an array has no fields */
        CHECK_EQ_INT(iqdb_value_get(array, "0").type, IQDB_TYPE_ABSENT);
        CHECK_EQ_INT(iqdb_value_get(object, "d").type, IQDB_TYPE_ABSENT);
        CHECK_EQ_INT(iqdb_value_get(object, "c").as.integer, 9);
        CHECK_EQ_INT(iqdb_value_at(object, 3).type, IQDB_TYPE_ABSENT);
        CHECK(!iqdb_value_field(object, 3, &field));
        CHECK(iqdb_value_field(object, 0, &field));
        CHECK_EQ_STR(field.key, i == 0 ? "b" : "a"); /* a built one as it was built, an encoded one in byte order */
        const iqdb_value scalar = iqdb_value_get(object, "c");
        CHECK_EQ_U64(iqdb_value_count(scalar), 0);
        CHECK_EQ_INT(iqdb_value_at(scalar, 0).type, IQDB_TYPE_ABSENT);
        CHECK_EQ_INT(iqdb_value_get(scalar, "c").type, IQDB_TYPE_ABSENT);
        CHECK(!iqdb_value_field(scalar, 0, &field));
    }
    iqdb_buffer_free(&buffer);
}

static void typed_readers(void) {
    iqdb_field fields[7];
    fields[0] = public_field("null", iqdb_null());
    fields[1] = public_field("yes", iqdb_bool(true));
    fields[2] = public_field("int", iqdb_int(-5));
    fields[3] = public_field("float", iqdb_float(2.5));
    fields[4] = public_field("text", iqdb_text("word"));
    fields[5] = public_field("bytes", iqdb_bytes("xy", 2));
    fields[6] = public_field("", iqdb_int(1)); /* the empty key is one */
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload p = none;
    size_t size = 99;
    CHECK_EQ_INT(iqdb_payload_with(none, fields, 7, &buffer, &p), IQDB_OK);
    CHECK_EQ_INT(iqdb_payload_int(p, "int", 1), -5);
    CHECK_EQ_INT(iqdb_payload_int(p, "", 7), 1);
    CHECK_EQ_INT(iqdb_payload_int(p, "float", 1), 1); /* no float is taken for an int */
    CHECK_EQ_INT(iqdb_payload_int(p, "yes", 2), 2);
    CHECK_EQ_INT(iqdb_payload_int(p, "missing", 3), 3);
    CHECK(iqdb_payload_float(p, "float", 0) == 2.5);
    CHECK(iqdb_payload_float(p, "int", 0) == -5.0); /* but an int for a float */
    CHECK(iqdb_payload_float(p, "text", 1.5) == 1.5);
    CHECK(iqdb_payload_bool(p, "yes", false));
    CHECK(iqdb_payload_bool(p, "int", true));
    CHECK(!iqdb_payload_bool(p, "null", false));
    CHECK_EQ_STR(iqdb_payload_text(p, "text", &size), "word");
    CHECK_EQ_U64(size, 4);
    CHECK_EQ_STR(iqdb_payload_text(p, "text", NULL), "word");
    CHECK(iqdb_payload_text(p, "bytes", NULL) == NULL);
    CHECK(iqdb_payload_text(p, "missing", NULL) == NULL);
    CHECK_EQ_INT(iqdb_payload_get(p, "null").type, IQDB_TYPE_NULL); /* null is there, absent is not */
    CHECK_EQ_INT(iqdb_payload_get(p, "nul").type, IQDB_TYPE_ABSENT);
    CHECK_EQ_INT(iqdb_payload_get(p, "nulll").type, IQDB_TYPE_ABSENT);
    CHECK_EQ_INT(iqdb_payload_int(none, "int", 4), 4);
    CHECK_EQ_U64(iqdb_payload_count(none), 0);
    iqdb_buffer_free(&buffer);
}

/* The exact key first; else the shortest part before a dot that names an object is followed, and so on. */
static void keys_with_dots(void) {
    iqdb_field deepest[2], deeper[2], deep[2], fields[5];
    deepest[0] = public_field("c", iqdb_int(1));
    deepest[1] = public_field("c.d", iqdb_int(2));
    deeper[0] = public_field("b", iqdb_object(deepest, 2));
    deeper[1] = public_field("b.c", iqdb_int(3));
    deep[0] = public_field("x", iqdb_int(4));
    deep[1] = public_field("c", iqdb_int(5));
    fields[0] = public_field("a", iqdb_object(deeper, 2));
    fields[1] = public_field("a.b", iqdb_object(deep, 2));
    fields[2] = public_field("n", iqdb_int(6));
    fields[3] = public_field("n.m", iqdb_object(deep, 2));
    fields[4] = public_field("a.exact", iqdb_int(7));
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload p = none;
    CHECK_EQ_INT(iqdb_payload_with(none, fields, 5, &buffer, &p), IQDB_OK);
    const iqdb_value built = iqdb_object(fields, 5);
    struct question {
        const char *key;
        int64_t answer; /* 0: absent */
    };
    const struct question questions[] = {
        {"a.exact", 7}, /* the exact key */
        {"a.b.c", 3},   /* into a, whose own exact key b.c comes first */
        {"a.b.c.d", 2}, /* into a, into its b, exact key c.d */
        {"n.m.x", 4},   /* n is no object, so n.m is the shortest part that names one */
        {"n.m.c", 5},   {"n.x", 0},  {"n", 6},         {"a.", 0},        {".a", 0},
        {".", 0},       {"a..b", 0}, {"a.b.c.d.e", 0}, {"missing.b", 0}, {"", 0},
    };
    for (size_t i = 0; i < sizeof questions / sizeof questions[0]; i++) {
        const iqdb_value encoded = iqdb_payload_get(p, questions[i].key),
                         plain = iqdb_value_get(built, questions[i].key);
        const int64_t a = encoded.type == IQDB_TYPE_INT ? encoded.as.integer : 0;
        const int64_t b = plain.type == IQDB_TYPE_INT ? plain.as.integer : 0;
        if (!EXPECT(a == questions[i].answer) || !EXPECT(b == questions[i].answer))
            printf("\n      ... key \"%s\": encoded %" PRId64 ", built %" PRId64, questions[i].key, a, b);
    }
    CHECK_EQ_INT(iqdb_payload_get(p, "a.b").type, IQDB_TYPE_OBJECT);
    CHECK_EQ_INT(iqdb_value_get(iqdb_payload_get(p, "a.b"), "x").as.integer, 4); /* the exact one, not a's b */
    iqdb_buffer_free(&buffer);
}

/* ---- payload_with ---- */

static void changes_add_replace_and_remove(void) {
    iqdb_field fields[3], changes[4], seen;
    fields[0] = public_field("a", iqdb_int(1));
    fields[1] = public_field("b", iqdb_text("two"));
    fields[2] = public_field("c", iqdb_float(3));
    iqdb_buffer first = iqdb_buffer_default(), second = iqdb_buffer_default();
    iqdb_payload p = none, q = none;
    iqdb_value absent = iqdb_null();
    absent.type = IQDB_TYPE_ABSENT;
    CHECK_EQ_INT(iqdb_payload_with(none, fields, 3, &first, &p), IQDB_OK);
    changes[0] = public_field("b", iqdb_int(22));  /* replaces, with another type */
    changes[1] = public_field("aa", iqdb_int(11)); /* adds, in the middle */
    changes[2] = public_field("c", absent);        /* removes */
    changes[3] = public_field("nothing", absent);  /* nothing to remove */
    CHECK_EQ_INT(iqdb_payload_with(p, changes, 4, &second, &q), IQDB_OK);
    CHECK_EQ_U64(iqdb_payload_count(q), 3);
    const char *const keys[3] = {"a", "aa", "b"};
    const int64_t numbers[3] = {1, 11, 22};
    for (size_t i = 0; i < 3; i++) {
        CHECK(iqdb_payload_at(q, i, &seen));
        CHECK_EQ_STR(seen.key, keys[i]);
        CHECK_EQ_INT(seen.value.as.integer, numbers[i]);
    }
    CHECK_EQ_U64(iqdb_payload_count(p), 3); /* the first one is as it was */
    CHECK_EQ_STR(iqdb_payload_text(p, "b", NULL), "two");
    CHECK_EQ_INT(iqdb_payload_with(p, NULL, 0, &second, &q), IQDB_OK); /* no change: the same bytes */
    CHECK_EQ_U64(q.size, p.size);
    CHECK_MEM(q.bytes, p.bytes, p.size);
    for (size_t i = 0; i < 3; i++) changes[i] = public_field(fields[i].key, absent);
    CHECK_EQ_INT(iqdb_payload_with(p, changes, 3, &second, &q), IQDB_OK); /* all gone: empty, not absent */
    CHECK(q.bytes != NULL);
    CHECK_EQ_U64(iqdb_payload_count(q), 0);
    const iqdb_field dotted = public_field("o.x", iqdb_int(1)); /* a key is a key here, not a path */
    CHECK_EQ_INT(iqdb_payload_with(p, &dotted, 1, &second, &q), IQDB_OK);
    CHECK_EQ_U64(iqdb_payload_count(q), 4);
    iqdb_payload rubbish;
    rubbish.bytes = "rubbish";
    rubbish.size = 7;
    CHECK_EQ_INT(iqdb_payload_with(rubbish, &dotted, 1, &second, &q), IQDB_ERR_INVALID_PAYLOAD);
    iqdb_buffer_free(&first);
    iqdb_buffer_free(&second);
}

/* One change after the other gives the bytes that all of them at once give. */
static void many_small_changes_make_the_same_bytes(void) {
    iqdb_buffer buffers[2] = {iqdb_buffer_default(), iqdb_buffer_default()}, whole = iqdb_buffer_default();
    for (uint64_t seed = 1; seed <= support_amount(50, 500, 5000); seed++) {
        iqdb_field *fields;
        const size_t count = make_payload(seed * 7919, &fields);
        iqdb_payload at_once = none, grown = none;
        CHECK_EQ_INT(iqdb_payload_with(none, fields, count, &whole, &at_once), IQDB_OK);
        CHECK_EQ_INT(iqdb_payload_with(none, NULL, 0, &buffers[1], &grown), IQDB_OK);
        for (size_t i = 0; i < count; i++)
            CHECK_EQ_INT(iqdb_payload_with(grown, &fields[count - 1 - i], 1, &buffers[i % 2], &grown), IQDB_OK);
        CHECK_EQ_U64(grown.size, at_once.size);
        CHECK_MEM(grown.bytes, at_once.bytes, at_once.size);
    }
    iqdb_buffer_free(&buffers[0]);
    iqdb_buffer_free(&buffers[1]);
    iqdb_buffer_free(&whole);
}

/* ---- Hostile bytes ---- */

/* Walks everything a payload shows, in every way there is; returns how many values it met. */
static unsigned char touched_bytes;

static size_t walk(iqdb_value value, int depth) {
    iqdb_field field;
    size_t met = 1;
    unsigned char touched = 0;
    if (depth > 2 * IQDB_PAYLOAD_DEPTH_MAX) return 0;
    if (value.type == IQDB_TYPE_TEXT)
        for (size_t i = 0; i <= value.as.text.size; i++)
            touched ^= (unsigned char)value.as.text.data[i]; /* and its NUL */
    if (value.type == IQDB_TYPE_BYTES)
        for (size_t i = 0; i < value.as.bytes.size; i++) touched ^= ((const unsigned char *)value.as.bytes.data)[i];
    const size_t count = iqdb_value_count(value);
    for (size_t i = 0; i < count && i < 100; i++) {
        met += walk(iqdb_value_at(value, i), depth + 1);
        if (iqdb_value_field(value, i, &field)) {
            touched ^= (unsigned char)strlen(field.key);
            (void)iqdb_value_get(value, field.key);
        }
    }
    __atomic_store_n(&touched_bytes, touched, __ATOMIC_RELAXED); /* so that the reads are made */
    return met;
}

static void read_everything(iqdb_payload p) {
    iqdb_field field;
    const size_t count = iqdb_payload_count(p);
    for (size_t i = 0; i < count && i < 100; i++) {
        if (!iqdb_payload_at(p, i, &field)) continue;
        walk(field.value, 1);
        walk(iqdb_payload_get(p, field.key), 1);
        (void)iqdb_payload_text(p, field.key, NULL);
    }
    (void)iqdb_payload_int(p, "a.b.c", 0);
    (void)iqdb_payload_float(p, "a", 0);
    (void)iqdb_payload_bool(p, "", false);
    (void)iqdb_payload_at(p, (size_t)-1, &field);
}

/* Every byte of a payload changed, and every cut of it: readers survive, a write refuses or takes it; and what is taken
 * is the one way to encode what it says. In memory of exactly its size, so that a tool sees every step beyond. */
static void hostile_bytes(void) {
    iqdb *db = NULL;
    const float vector[1] = {1};
    iqdb_buffer buffer = iqdb_buffer_default(), again = iqdb_buffer_default();
    long taken = 0, refused = 0;
    CHECK_EQ_INT(iqdb_open_in_memory(NULL, &db), IQDB_OK);
    for (uint64_t seed = 1; seed <= support_amount(4, 25, 400); seed++) {
        iqdb_field *fields;
        iqdb_payload good = none;
        const size_t count = make_payload(seed * 104729, &fields);
        CHECK_EQ_INT(iqdb_payload_with(none, fields, count, &buffer, &good), IQDB_OK);
        uint64_t state = seed;
        for (size_t variant = 0; variant < good.size * 12; variant++) {
            const size_t at = variant / 12, way = variant % 12;
            const size_t size = way == 11 ? at : good.size;
            unsigned char *bytes = (unsigned char *)malloc(size + (size == 0));
            CHECK(bytes != NULL);
            memcpy(bytes, good.bytes, size);
            if (way < 8) bytes[at] ^= (unsigned char)(1u << way);
            if (way == 8) bytes[at] = 0;
            if (way == 9) bytes[at] = 0xFF;
            if (way == 10) bytes[at] = (unsigned char)support_random(&state);
            iqdb_payload p;
            p.bytes = bytes;
            p.size = size;
            read_everything(p);
            iqdb_record record = public_record(1, vector, 1), stored;
            record.payload = p;
            const iqdb_result result = iqdb_upsert(db, &record);
            CHECK(result == IQDB_OK || result == IQDB_ERR_INVALID_PAYLOAD);
            if (result == IQDB_OK) {
                iqdb_field all[16];
                size_t n = 0;
                iqdb_payload encoded = none;
                taken++;
                while (n < 16 && iqdb_payload_at(p, n, &all[n])) n++;
                CHECK_EQ_INT(iqdb_payload_with(none, all, n, &again, &encoded), IQDB_OK);
                CHECK_EQ_U64(encoded.size, p.size);
                CHECK_MEM(encoded.bytes, p.bytes, p.size);
                CHECK_EQ_INT(iqdb_get(db, 1, &again, &stored), IQDB_OK);
                CHECK_EQ_U64(stored.payload.size, p.size);
                CHECK_MEM(stored.payload.bytes, p.bytes, p.size);
            } else {
                refused++;
                CHECK_EQ_INT(iqdb_payload_with(p, NULL, 0, &again, &record.payload), IQDB_ERR_INVALID_PAYLOAD);
            }
            free(bytes);
        }
        for (int round = 0; round < 200; round++) { /* and bytes that never were one */
            unsigned char *bytes = (unsigned char *)malloc(1 + (size_t)round);
            CHECK(bytes != NULL);
            for (int i = 0; i <= round; i++)
                bytes[i] = (unsigned char)(support_random(&state) >> (i % 8 * 7) & (i % 3 == 0 ? 0x0F : 0xFF));
            iqdb_payload p;
            p.bytes = bytes;
            p.size = (size_t)round + 1;
            read_everything(p);
            const iqdb_value forged[2] = {iqdb_array(NULL, 0), iqdb_object(NULL, 0)};
            for (int i = 0; i < 2; i++) { /* a value that claims to be a view of them */
                iqdb_value value = forged[i];
                if (i == 0) {
                    value.as.array.encoded = bytes;
                    value.as.array.size = p.size;
                    value.as.array.count = 3;
                } else {
                    value.as.object.encoded = bytes;
                    value.as.object.size = p.size;
                    value.as.object.count = 3;
                }
                walk(value, 1);
                const iqdb_field field = public_field("forged", value);
                iqdb_payload out = none;
                const iqdb_result result = iqdb_payload_with(none, &field, 1, &again, &out);
                CHECK(result == IQDB_OK || result == IQDB_ERR_INVALID_PAYLOAD);
                if (result == IQDB_OK) read_everything(out);
            }
            free(bytes);
        }
    }
    CHECK(taken > 0 && refused > taken);
    iqdb_buffer_free(&buffer);
    iqdb_buffer_free(&again);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static void a_bomb_of_nested_views(void) {
    /* 64 levels are read without recursion trouble, by every reader. */
    iqdb_value values[IQDB_PAYLOAD_DEPTH_MAX];
    iqdb_field fields[IQDB_PAYLOAD_DEPTH_MAX];
    values[0] = iqdb_int(42);
    for (size_t i = 0; i + 1 < IQDB_PAYLOAD_DEPTH_MAX; i++) {
        fields[i] = public_field("a", values[i]);
        values[i + 1] = iqdb_object(&fields[i], 1);
    }
    const iqdb_field field = public_field("a", values[IQDB_PAYLOAD_DEPTH_MAX - 1]);
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload p = none;
    CHECK_EQ_INT(iqdb_payload_with(none, &field, 1, &buffer, &p), IQDB_OK);
    char key[2 * IQDB_PAYLOAD_DEPTH_MAX + 2];
    for (size_t i = 0; i < IQDB_PAYLOAD_DEPTH_MAX; i++) memcpy(key + 2 * i, "a.", 3);
    key[2 * IQDB_PAYLOAD_DEPTH_MAX - 1] = 0;
    CHECK_EQ_INT(iqdb_payload_int(p, key, 0), 42);
    CHECK_EQ_U64(walk(iqdb_payload_get(p, "a"), 1), IQDB_PAYLOAD_DEPTH_MAX);
    iqdb_buffer_free(&buffer);
}

static void wide_payloads(void) {
    enum {
        WIDE = 3000
    };
    static iqdb_field fields[WIDE];
    static char keys[WIDE][8];
    for (size_t i = 0; i < WIDE; i++) {
        snprintf(keys[i], sizeof keys[i], "%zx", i * 7919 % WIDE);
        fields[i] = public_field(keys[i], iqdb_int((int64_t)(i * 7919 % WIDE)));
    }
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload p = none;
    CHECK_EQ_INT(iqdb_payload_with(none, fields, WIDE, &buffer, &p), IQDB_OK);
    CHECK_EQ_U64(iqdb_payload_count(p), WIDE);
    for (size_t i = 0; i < WIDE; i++) CHECK_EQ_INT(iqdb_payload_int(p, keys[i], -1), fields[i].value.as.integer);
    fields[WIDE - 1].key = keys[3]; /* one key twice, far apart */
    CHECK_EQ_INT(iqdb_payload_with(none, fields, WIDE, &buffer, &p), IQDB_ERR_INVALID_PAYLOAD);
    iqdb_buffer_free(&buffer);
}

TEST_MAIN("api/values", TEST(constructors_keep_what_they_get), TEST(whatever_is_built_reads_back),
          TEST(built_and_encoded_values_read_alike), TEST(typed_readers), TEST(keys_with_dots),
          TEST(changes_add_replace_and_remove), TEST(many_small_changes_make_the_same_bytes), TEST(hostile_bytes),
          TEST(a_bomb_of_nested_views), TEST(wide_payloads))
