/* iqdb_payload_with against the obvious: take the fields of both into one list and encode that. */
#include "test.h"
#include "tree.h"

static iqdb_field field_of(const char *key, iqdb_value value) {
    iqdb_field field;
    field.key = key;
    field.value = value;
    return field;
}

static iqdb_value absent(void) {
    iqdb_value value = iqdb_null();
    value.type = IQDB_TYPE_ABSENT;
    return value;
}

static const iqdb_payload no_payload = {NULL, 0};

static void small_cases(void) {
    static const uint8_t empty[4] = {0, 0, 0, 0};
    iqdb_buffer buffer = iqdb_buffer_default(), second = iqdb_buffer_default();
    iqdb_payload payload = {NULL, 0}, next = {NULL, 0};
    CHECK_EQ_INT(iqdb_payload_with(no_payload, NULL, 0, &buffer, &payload), IQDB_OK);
    CHECK_EQ_U64(payload.size, 4);
    CHECK_MEM(payload.bytes, empty, 4);
    iqdb_field changes[3];
    changes[0] = field_of("b", iqdb_int(1));
    changes[1] = field_of("a", iqdb_text("x"));
    changes[2] = field_of("gone", absent());
    CHECK_EQ_INT(iqdb_payload_with(payload, changes, 3, &second, &next), IQDB_OK);
    CHECK_EQ_U64(iqdb_payload_count(next), 2);
    CHECK_EQ_STR(iqdb_payload_text(next, "a", NULL), "x");
    CHECK_EQ_INT(iqdb_payload_int(next, "b", 0), 1);
    CHECK_EQ_U64(second.used, next.size + (size_t)((const uint8_t *)next.bytes - (const uint8_t *)second.bytes));
    changes[0].value = absent();
    changes[1].value = absent();
    CHECK_EQ_INT(iqdb_payload_with(next, changes, 3, &buffer, &payload), IQDB_OK);
    CHECK_EQ_U64(payload.size, 4);
    CHECK_MEM(payload.bytes, empty, 4);
    CHECK_EQ_INT(iqdb_payload_with(next, NULL, 0, &buffer, &payload), IQDB_OK); /* a checked copy */
    CHECK_EQ_U64(payload.size, next.size);
    CHECK_MEM(payload.bytes, next.bytes, next.size);
    iqdb_buffer_free(&buffer);
    iqdb_buffer_free(&second);
}

static void arguments(void) {
    uint8_t memory[256];
    iqdb_buffer buffer = iqdb_buffer_fixed(memory, sizeof memory);
    iqdb_payload out = {memory, 77};
    iqdb_field changes[2];
    changes[0] = field_of("a", iqdb_int(1));
    changes[1] = field_of("b", iqdb_int(2));
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 1, NULL, &out), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 1, &buffer, NULL), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_payload_with(no_payload, NULL, 1, &buffer, &out), IQDB_ERR_INVALID_ARGUMENT);
    const iqdb_payload bad = {"\1\0\0\0", 4};
    CHECK_EQ_INT(iqdb_payload_with(bad, changes, 1, &buffer, &out), IQDB_ERR_INVALID_PAYLOAD);
    CHECK_EQ_INT(iqdb_payload_with(bad, NULL, 0, &buffer, &out), IQDB_ERR_INVALID_PAYLOAD);
    changes[1].key = "a";
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 2, &buffer, &out), IQDB_ERR_INVALID_PAYLOAD);
    changes[1].value = absent(); /* nor once to add and once to remove */
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 2, &buffer, &out), IQDB_ERR_INVALID_PAYLOAD);
    changes[0].value = absent();
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 2, &buffer, &out), IQDB_ERR_INVALID_PAYLOAD);
    CHECK_EQ_U64(buffer.used, 0);
    changes[1].key = NULL;
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 2, &buffer, &out), IQDB_ERR_INVALID_PAYLOAD);
    changes[1].key = "\xFF";
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 2, &buffer, &out), IQDB_ERR_INVALID_PAYLOAD);
    changes[1] = field_of("b", iqdb_text("\xFF"));
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 2, &buffer, &out), IQDB_ERR_INVALID_PAYLOAD);
    const iqdb_value inner = absent(); /* removes at the first level only */
    changes[1] = field_of("b", iqdb_array(&inner, 1));
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 2, &buffer, &out), IQDB_ERR_INVALID_PAYLOAD);
    iqdb_field twice[2];
    twice[0] = twice[1] = field_of("k", iqdb_null()); /* found only while the result is written */
    changes[1] = field_of("b", iqdb_object(twice, 2));
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 2, &buffer, &out), IQDB_ERR_INVALID_PAYLOAD);
    CHECK_EQ_U64(buffer.used, 0);
    CHECK(out.bytes == memory && out.size == 77); /* untouched by all of them */
}

/* Removing a key more often than it is there must not count below nothing. */
static void removed_too_often(void) {
    iqdb_buffer buffer = iqdb_buffer_default(), second = iqdb_buffer_default();
    iqdb_payload payload = {NULL, 0}, out = {NULL, 0};
    const iqdb_field base = field_of("key", iqdb_text("some text"));
    CHECK_EQ_INT(iqdb_payload_with(no_payload, &base, 1, &buffer, &payload), IQDB_OK);
    iqdb_field changes[50];
    for (size_t i = 0; i < 50; i++) changes[i] = field_of("key", absent());
    CHECK_EQ_INT(iqdb_payload_with(payload, changes, 50, &second, &out), IQDB_ERR_INVALID_PAYLOAD);
    CHECK_EQ_INT(iqdb_payload_with(payload, changes, 1, &second, &out), IQDB_OK);
    CHECK_EQ_U64(out.size, 4);
    iqdb_buffer_free(&buffer);
    iqdb_buffer_free(&second);
}

static void inputs_in_the_buffer(void) {
    static union { /* room for whatever is put into it, at its alignment */
        uint8_t bytes[1024];
        iqdb_field fields[4];
        iqdb_value values[4];
    } memory;
    memset(&memory, 0, sizeof memory);
    iqdb_buffer buffer = iqdb_buffer_fixed(&memory, sizeof memory);
    iqdb_payload out = {NULL, 0};
    char *text = (char *)memory.bytes + 600;
    strcpy(text, "abc");
    const iqdb_payload inside = {memory.bytes + 1020, 4}; /* zeros: the empty payload */
    CHECK_EQ_INT(iqdb_payload_with(inside, NULL, 0, &buffer, &out), IQDB_ERR_INVALID_ARGUMENT);
    memory.fields[0] = field_of("k", iqdb_null());
    CHECK_EQ_INT(iqdb_payload_with(no_payload, memory.fields, 1, &buffer, &out), IQDB_ERR_INVALID_ARGUMENT);
    iqdb_field change = field_of(text, iqdb_null());
    CHECK_EQ_INT(iqdb_payload_with(no_payload, &change, 1, &buffer, &out), IQDB_ERR_INVALID_ARGUMENT);
    iqdb_value values[6];
    values[0] = iqdb_text(text);
    values[1] = iqdb_bytes(text, 1);
    values[2] = iqdb_object(memory.fields, 1);
    iqdb_field with_key = field_of(text, iqdb_null());
    values[3] = iqdb_object(&with_key, 1);
    values[4] = iqdb_object(NULL, 0);
    values[4].as.object.encoded = inside.bytes;
    values[4].as.object.size = inside.size;
    values[5] = iqdb_array(memory.values, 1);
    for (size_t i = 0; i < 6; i++) {
        change = field_of("k", values[i]);
        CHECK_EQ_INT(iqdb_payload_with(no_payload, &change, 1, &buffer, &out), IQDB_ERR_INVALID_ARGUMENT);
        change = field_of("k", iqdb_array(&values[i], 1));
        CHECK_EQ_INT(iqdb_payload_with(no_payload, &change, 1, &buffer, &out), IQDB_ERR_INVALID_ARGUMENT);
    }
    CHECK_EQ_STR(text, "abc");
    change = field_of("k", iqdb_bytes(text, 0)); /* no bytes lie nowhere */
    CHECK_EQ_INT(iqdb_payload_with(no_payload, &change, 1, &buffer, &out), IQDB_OK);
}

/* A fixed buffer works from exactly `needed` on, wherever it starts, and `needed` is told whatever is too small. */
static void fixed_buffers(void) {
    uint8_t memory[512 + 16];
    iqdb_field changes[3];
    changes[0] = field_of("text", iqdb_text("some text"));
    changes[1] = field_of("bytes", iqdb_bytes("\0\1", 2));
    changes[2] = field_of("gone", absent());
    for (size_t shift = 0; shift < 16; shift++) {
        iqdb_payload out = {NULL, 0};
        iqdb_buffer buffer = iqdb_buffer_fixed(memory + shift, 512);
        CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 3, &buffer, &out), IQDB_OK);
        const size_t needed = buffer.needed, size = out.size;
        CHECK(needed <= 512);
        for (size_t capacity = 0; capacity < 512; capacity++) {
            buffer = iqdb_buffer_fixed(memory + shift, capacity);
            memset(memory, 0xEE, sizeof memory);
            const iqdb_result expected = capacity < needed ? IQDB_ERR_LIMIT : IQDB_OK;
            CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 3, &buffer, &out), expected);
            CHECK_EQ_U64(buffer.needed, needed);
            CHECK(memory[shift + capacity] == 0xEE);
            if (expected == IQDB_OK) {
                CHECK_EQ_U64(out.size, size);
                CHECK_EQ_INT(iq_payload_validate(out.bytes, out.size), IQDB_OK);
            }
        }
        buffer = iqdb_buffer_fixed(NULL, 0);
        CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 3, &buffer, &out), IQDB_ERR_LIMIT);
        CHECK(buffer.needed >= size);
    }
}

static void limits(void) {
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload out = {NULL, 0};
    iqdb_field changes[2];
    changes[0] = field_of("a", iqdb_bytes("", (size_t)IQDB_PAYLOAD_SIZE_MAX));
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 1, &buffer, &out), IQDB_ERR_LIMIT);
    CHECK_EQ_U64(buffer.needed, 0); /* no capacity helps */
    /* But for the count of fields this would fit, and the next, but for the type of the second one. */
    changes[0] = field_of("a", iqdb_bytes("", IQDB_PAYLOAD_SIZE_MAX - 9));
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 1, &buffer, &out), IQDB_ERR_LIMIT);
    CHECK(buffer.needed == 0 && out.bytes == NULL);
    changes[0] = field_of("a", iqdb_bytes("", IQDB_PAYLOAD_SIZE_MAX - 10));
    changes[1] = field_of("b", iqdb_null());
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 2, &buffer, &out), IQDB_ERR_LIMIT);
    CHECK(buffer.needed == 0 && out.bytes == NULL);
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, (size_t)-1, &buffer, &out), IQDB_ERR_LIMIT);
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, IQDB_PAYLOAD_SIZE_MAX / 4 + 1, &buffer, &out), IQDB_ERR_LIMIT);
    iqdb_value levels[64][1]; /* as deep as they go below a key, and one deeper */
    levels[0][0] = iqdb_array(NULL, 0);
    for (size_t i = 1; i < 64; i++) levels[i][0] = iqdb_array(levels[i - 1], 1);
    changes[0] = field_of("a", levels[62][0]);
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 1, &buffer, &out), IQDB_OK);
    CHECK_EQ_INT(iq_payload_validate(out.bytes, out.size), IQDB_OK);
    changes[0] = field_of("a", levels[63][0]);
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 1, &buffer, &out), IQDB_ERR_INVALID_PAYLOAD);
    iqdb_buffer_free(&buffer);
    if (support_amount(1, 0, 0) == 1) return;
    /* Two halves that are too much together; replacing one by the other is not. */
    const size_t half = IQDB_PAYLOAD_SIZE_MAX / 2;
    void *data = calloc(1, half);
    CHECK(data != NULL);
    iqdb_payload base = {NULL, 0};
    iqdb_buffer second = iqdb_buffer_default();
    changes[0] = field_of("a", iqdb_bytes(data, half));
    changes[1] = field_of("b", iqdb_bytes(data, half));
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 2, &buffer, &base), IQDB_ERR_LIMIT);
    CHECK_EQ_INT(iqdb_payload_with(no_payload, changes, 1, &buffer, &base), IQDB_OK);
    CHECK_EQ_INT(iqdb_payload_with(base, &changes[1], 1, &second, &out), IQDB_ERR_LIMIT);
    CHECK_EQ_U64(second.needed, 0);
    CHECK_EQ_INT(iqdb_payload_with(base, changes, 1, &second, &out), IQDB_OK);
    CHECK(out.size == base.size && memcmp(out.bytes, base.bytes, base.size) == 0);
    iqdb_buffer_free(&buffer);
    iqdb_buffer_free(&second);
    free(data);
}

/* Base and changes draw their keys from the same few, so that all of add, replace, remove and miss come up. */
static void random_merges(void) {
    const size_t rounds = support_amount(200, 5000, 100000);
    support_heap heap = support_heap_make();
    const iqdb_allocator allocator = support_allocator(&heap);
    iqdb_buffer buffer = iqdb_buffer_default();
    buffer.allocator = &allocator;
    for (size_t round = 0; round < rounds; round++) {
        uint64_t state = round + 1;
        tree_pool pool = {NULL, 0, 0};
        const tree *a = tree_random(&pool, &state, IQDB_TYPE_OBJECT, 2);
        const tree *b = tree_random(&pool, &state, IQDB_TYPE_OBJECT, 2);
        tree *merged = tree_new(&pool, IQDB_TYPE_OBJECT, a->count + b->count);
        merged->count = 0;
        iqdb_field *changes = tree_to_fields(&pool, b, &state);
        for (size_t i = 0; i < b->count; i++) {
            if (a->count > 0 && support_random_below(&state, 2) == 0) { /* a key of the base, unless that is taken */
                char *key = a->keys[support_random_below(&state, a->count)];
                size_t at = 0;
                while (at < b->count && strcmp(b->keys[at], key) != 0) at++;
                if (at == b->count) b->keys[i] = key;
            }
            changes[i].key = b->keys[i];
            if (support_random_below(&state, 3) == 0) changes[i].value = absent();
        }
        for (size_t i = 0; i < a->count; i++) {
            size_t at = 0;
            while (at < b->count && strcmp(b->keys[at], a->keys[i]) != 0) at++;
            if (at < b->count) continue;
            merged->keys[merged->count] = a->keys[i];
            merged->items[merged->count++] = a->items[i];
        }
        for (size_t i = 0; i < b->count; i++) {
            if (changes[i].value.type == IQDB_TYPE_ABSENT) continue;
            merged->keys[merged->count] = b->keys[i];
            merged->items[merged->count++] = b->items[i];
        }
        const tree_bytes base = tree_encode(&pool, a, false), expected = tree_encode(&pool, merged, false);
        const iqdb_payload payload = {base.bytes, base.size};
        iqdb_payload out = {NULL, 0};
        const iqdb_result result = iqdb_payload_with(payload, changes, b->count, &buffer, &out);
        const bool good = result == IQDB_OK && out.size == expected.size &&
                          memcmp(out.bytes, expected.bytes, out.size) == 0 && buffer.used >= out.size &&
                          (uintptr_t)out.bytes % 16 == 0;
        tree_free(&pool);
        if (!EXPECT(good)) {
            printf("\n    seed %zu", round + 1);
            break;
        }
    }
    iqdb_buffer_free(&buffer);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
}

static void memory_runs_out(void) {
    support_heap heap = support_heap_make();
    const iqdb_allocator allocator = support_allocator(&heap);
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload first = {NULL, 0}, out = {NULL, 0};
    buffer.allocator = &allocator;
    const iqdb_field small = field_of("k", iqdb_text("x"));
    heap.fail_at = 1;
    CHECK_EQ_INT(iqdb_payload_with(no_payload, &small, 1, &buffer, &first), IQDB_ERR_NOMEM);
    CHECK(first.bytes == NULL && heap.live_blocks == 0);
    CHECK_EQ_INT(iqdb_payload_with(no_payload, &small, 1, &buffer, &first), IQDB_OK);
    CHECK_EQ_U64(heap.calls, 2); /* the result, and nothing beside it */
    static const char large[1000] = {0};
    const iqdb_field more = field_of("k", iqdb_bytes(large, sizeof large));
    heap.fail_at = 1;
    CHECK_EQ_INT(iqdb_payload_with(no_payload, &more, 1, &buffer, &out), IQDB_ERR_NOMEM);
    CHECK_EQ_U64(heap.live_blocks, 1);
    CHECK_EQ_INT(iqdb_payload_with(no_payload, &more, 1, &buffer, &out), IQDB_OK);
    CHECK_EQ_U64(heap.live_blocks, 1);
    iqdb_buffer_free(&buffer);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
}

TEST_MAIN("codec/with", TEST(small_cases), TEST(arguments), TEST(removed_too_often), TEST(inputs_in_the_buffer),
          TEST(fixed_buffers), TEST(limits), TEST(random_merges), TEST(memory_runs_out))
