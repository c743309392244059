/* Logged records: the table by its letter, and every byte that may not be otherwise. */
#include "codec/record.h"

#include "codec/payload.h"
#include "support.h"
#include "test.h"

static const uint8_t upsert_bytes[] = {
    1,    0,    1,    0,    0x04, 0x03, 0x02, 0x01,            /* upsert, f32, payload; collection */
    0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,            /* id */
    2,    0,    0,    0,    11,   0,    0,    0,               /* dim, bytes of the payload */
    0,    0,    0,    0x40, 0,    0,    0,    0x80,            /* 2.0, -0.0: no flipped bit makes them infinite */
    1,    0,    0,    0,    8,    0,    0,    0,    'k', 0, 0, /* {"k": null} */
    0,    0,    0,    0,    0};                                /* padding */
#define UPSERT_SIZE (sizeof upsert_bytes - 5)

static const uint8_t delete_bytes[] = {2, 0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};

/* Decodes from a block of exactly this size, so that tools see a read beyond it. */
static iqdb_result decode(const uint8_t *bytes, size_t size) {
    iq_logged_record record;
    uint8_t *copy = (uint8_t *)malloc(size + (size == 0));
    if (copy == NULL) return IQDB_ERR_NOMEM;
    if (size > 0) memcpy(copy, bytes, size);
    const iqdb_result result = iq_record_decode(copy, size, &record);
    free(copy);
    return result;
}

static void by_the_letter(void) {
    uint8_t head[IQ_RECORD_HEAD_SIZE];
    iq_logged_record record, seen;
    memset(&record, 0, sizeof record);
    record.type = IQ_RECORD_UPSERT;
    record.collection = 0x01020304;
    record.id = UINT64_C(0x1122334455667788);
    record.dim = 2;
    record.has_payload = true;
    record.payload_size = 11;
    memset(head, 0xEE, sizeof head);
    iq_record_encode_head(&record, head);
    CHECK_MEM(head, upsert_bytes, sizeof head);
    for (size_t padding = 0; padding <= 5; padding++) {
        memset(&seen, 0xEE, sizeof seen);
        CHECK_EQ_INT(iq_record_decode(upsert_bytes, UPSERT_SIZE + padding, &seen), IQDB_OK);
        CHECK(seen.type == IQ_RECORD_UPSERT && seen.collection == record.collection && seen.id == record.id);
        CHECK(seen.dim == 2 && seen.vector == upsert_bytes + 24);
        CHECK(seen.has_payload && seen.payload == upsert_bytes + 32 && seen.payload_size == 11);
    }
    record.type = IQ_RECORD_DELETE; /* what a delete has no use for is not written */
    record.collection = 9;
    record.id = UINT64_C(0x8000000000000007);
    iq_record_encode_head(&record, head);
    CHECK_MEM(head, delete_bytes, sizeof head);
    for (size_t padding = 0; padding <= 2; padding++) {
        memset(&seen, 0xEE, sizeof seen);
        CHECK_EQ_INT(iq_record_decode(delete_bytes, 24 + padding, &seen), IQDB_OK);
        CHECK(seen.type == IQ_RECORD_DELETE && seen.collection == 9 && seen.id == record.id);
        CHECK(seen.dim == 0 && seen.vector == NULL && !seen.has_payload && seen.payload == NULL);
        CHECK_EQ_U64(seen.payload_size, 0);
    }
}

static void without_payload(void) {
    uint8_t bytes[24 + 4] = {0};
    iq_logged_record record, seen;
    memset(&record, 0, sizeof record);
    record.type = IQ_RECORD_UPSERT;
    record.dim = 1;
    record.payload_size = 5; /* not looked at */
    iq_record_encode_head(&record, bytes);
    CHECK_EQ_INT(iq_record_decode(bytes, sizeof bytes, &seen), IQDB_OK);
    CHECK(!seen.has_payload && seen.payload == NULL && seen.payload_size == 0 && seen.dim == 1);
    bytes[2] = 2; /* neither with nor without one */
    CHECK_EQ_INT(iq_record_decode(bytes, sizeof bytes, &seen), IQDB_ERR_CORRUPT);
}

/* Every cut and every bit: refused, unless the bit is one that a record is free to have. */
static void cuts_and_bits(void) {
    uint8_t copy[sizeof upsert_bytes];
    for (size_t size = 0; size < UPSERT_SIZE; size++) CHECK_EQ_INT(decode(upsert_bytes, size), IQDB_ERR_CORRUPT);
    for (size_t size = 0; size < 24; size++) CHECK_EQ_INT(decode(delete_bytes, size), IQDB_ERR_CORRUPT);
    for (size_t bit = 0; bit < 8 * sizeof upsert_bytes; bit++) {
        const size_t at = bit / 8;
        memcpy(copy, upsert_bytes, sizeof copy);
        copy[at] = (uint8_t)(copy[at] ^ 1u << bit % 8);
        const bool free_to_be = (at >= 4 && at < 16) || (at >= 24 && at < 32) || (at == 40 && bit % 8 != 7);
        const iqdb_result result = decode(copy, sizeof copy);
        if (!EXPECT(result == (free_to_be ? IQDB_OK : IQDB_ERR_CORRUPT))) printf("\n    upsert, bit %zu", bit);
    }
    for (size_t bit = 0; bit < 8 * sizeof delete_bytes; bit++) {
        const size_t at = bit / 8;
        memcpy(copy, delete_bytes, sizeof delete_bytes);
        copy[at] = (uint8_t)(copy[at] ^ 1u << bit % 8);
        const iqdb_result result = decode(copy, sizeof delete_bytes);
        if (!EXPECT(result == (at >= 4 && at < 16 ? IQDB_OK : IQDB_ERR_CORRUPT))) printf("\n    delete, bit %zu", bit);
    }
}

static void head_values(void) {
    uint8_t copy[sizeof upsert_bytes];
    static const uint32_t numbers[] = {0,          1,          3,          4,          65536,      65537,
                                       0x3FFFFFFF, 0x40000000, 0x40000002, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        for (size_t at = 16; at <= 20; at += 4) { /* each with too much or too little behind it */
            memcpy(copy, upsert_bytes, sizeof copy);
            iq_put_u32(copy + at, numbers[i]);
            CHECK_EQ_INT(decode(copy, sizeof copy), IQDB_ERR_CORRUPT);
        }
    for (unsigned type = 0; type < 256; type++) {
        uint8_t bytes[24 + 4] = {0}; /* a delete with padding, or an upsert but for its dim */
        bytes[0] = (uint8_t)type;
        CHECK_EQ_INT(decode(bytes, sizeof bytes), type == 2 ? IQDB_OK : IQDB_ERR_CORRUPT);
        bytes[16] = 1;
        CHECK_EQ_INT(decode(bytes, sizeof bytes), type == 1 ? IQDB_OK : IQDB_ERR_CORRUPT);
        bytes[20] = 1; /* a size, but no payload */
        CHECK_EQ_INT(decode(bytes, sizeof bytes), IQDB_ERR_CORRUPT);
    }
    uint8_t bytes[24 + 4] = {0};
    bytes[0] = 2;
    bytes[24 + 3] = 1;
    CHECK_EQ_INT(decode(bytes, sizeof bytes), IQDB_ERR_CORRUPT);
    bytes[24 + 3] = 0;
    for (size_t at = 1; at < 24; at++) { /* of a delete only collection and id may be anything */
        bytes[at] = 1;
        CHECK_EQ_INT(decode(bytes, sizeof bytes), at >= 4 && at < 16 ? IQDB_OK : IQDB_ERR_CORRUPT);
        bytes[at] = 0;
    }
}

/* A collection is made, and dropped, by the letter; every byte that may not be otherwise is not. */
static void collections(void) {
    static const uint8_t made[] = {
        3, 0, 0, 0, 5, 0, 0, 0, 1, 0,   0,   0,    0,    0, 0,
        0, 0, 4, 0, 0, 4, 0, 0, 0, 'a', 'b', 0xC3, 0xA9, 0, 0}; /* L2, dim 1,024, "ab\xC3\xA9", padding */
    static const uint8_t dropped[] = {4, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    uint8_t head[IQ_RECORD_HEAD_SIZE], copy[sizeof made];
    iq_logged_record record, seen;
    memset(&record, 0, sizeof record);
    record.type = IQ_RECORD_CREATE;
    record.collection = 5;
    record.id = IQDB_L2;
    record.dim = 1024;
    record.payload_size = 4;
    iq_record_encode_head(&record, head);
    CHECK_MEM(head, made, sizeof head);
    CHECK_EQ_INT(iq_record_decode(made, sizeof made, &seen), IQDB_OK);
    CHECK(seen.type == IQ_RECORD_CREATE && seen.collection == 5 && seen.id == IQDB_L2 && seen.dim == 1024);
    CHECK(seen.payload == made + 24 && seen.payload_size == 4 && !seen.has_payload && seen.vector == NULL);
    for (size_t size = 0; size < 28; size++) CHECK_EQ_INT(decode(made, size), IQDB_ERR_CORRUPT);
    for (size_t at = 0; at < sizeof made; at++) {
        memcpy(copy, made, sizeof copy);
        copy[at] = (uint8_t)(copy[at] + 0x80); /* metrics and dimensions beyond what there is, names that are no text */
        CHECK_EQ_INT(decode(copy, sizeof copy),
                     (at >= 4 && at < 8) || at == 16 || at == 17 ? IQDB_OK : IQDB_ERR_CORRUPT);
    }
    memcpy(copy, made, sizeof copy);
    copy[4] = 0; /* the default collection */
    CHECK_EQ_INT(decode(copy, sizeof copy), IQDB_ERR_CORRUPT);
    copy[4] = 5;
    copy[25] = 0; /* a zero in the name */
    CHECK_EQ_INT(decode(copy, sizeof copy), IQDB_ERR_CORRUPT);
    record.type = IQ_RECORD_DROP;
    record.id = 0;
    iq_record_encode_head(&record, head);
    CHECK_MEM(head, dropped, sizeof head);
    for (size_t at = 0; at < sizeof dropped; at++) {
        memcpy(copy, dropped, sizeof dropped);
        CHECK_EQ_INT(decode(copy, sizeof dropped), IQDB_OK);
        copy[at] = at == 4 ? 0 : (uint8_t)(copy[at] + 1);
        CHECK_EQ_INT(decode(copy, sizeof dropped), at >= 5 && at < 8 ? IQDB_OK : IQDB_ERR_CORRUPT);
    }
    char name[IQDB_NAME_SIZE_MAX + 1];
    memset(name, 'x', sizeof name);
    CHECK(iq_name_is_valid(name, IQDB_NAME_SIZE_MAX) && !iq_name_is_valid(name, sizeof name));
    CHECK(!iq_name_is_valid("", 0) && !iq_name_is_valid("\xC3", 1));
}

static void choices(void) {
    static const uint8_t chosen[] = {
        5, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, /* and what the database reads */
        3, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x80, 0, 0};
    uint8_t head[IQ_RECORD_HEAD_SIZE], copy[sizeof chosen];
    iq_logged_record record, seen;
    memset(&record, 0, sizeof record);
    record.type = IQ_RECORD_CHOOSE;
    record.collection = 9;
    record.payload_size = IQ_CHOICE_SIZE;
    iq_record_encode_head(&record, head);
    CHECK_MEM(head, chosen, sizeof head);
    CHECK_EQ_INT(iq_record_decode(chosen, sizeof chosen, &seen), IQDB_OK);
    CHECK(seen.type == IQ_RECORD_CHOOSE && seen.collection == 9 && seen.payload == chosen + 24);
    CHECK(seen.payload_size == 32 && !seen.has_payload && seen.vector == NULL && seen.dim == 0);
    for (size_t size = 0; size < 56; size++) CHECK_EQ_INT(decode(chosen, size), IQDB_ERR_CORRUPT);
    for (size_t at = 1; at < sizeof chosen; at++) {
        memcpy(copy, chosen, sizeof copy);
        copy[at] = (uint8_t)(copy[at] + 1);
        CHECK_EQ_INT(decode(copy, sizeof copy),
                     (at >= 4 && at < 8) || (at >= 24 && at < 56) ? IQDB_OK : IQDB_ERR_CORRUPT);
    }
}

/* A set of keys is taken by its size: what it means is for whoever has the collection. */
static void sets_of_keys(void) {
    static const uint8_t named[] = {6, 0, 0, 0, 9, 0, 0, 0, 0,   0,   0, 0, 0, 0,   0, 0,
                                    0, 0, 0, 0, 8, 0, 0, 0, 1, 'a', 'b', 0, 2, 'c', 0, 0, 0, 0};
    static uint8_t longest[24 + IQ_KEY_SET_SIZE_MAX + 1];
    uint8_t head[IQ_RECORD_HEAD_SIZE], copy[sizeof named];
    iq_logged_record record, seen;
    memset(&record, 0, sizeof record);
    record.type = IQ_RECORD_KEYS;
    record.collection = 9;
    record.payload_size = 8;
    iq_record_encode_head(&record, head);
    CHECK_MEM(head, named, sizeof head);
    CHECK_EQ_INT(iq_record_decode(named, sizeof named, &seen), IQDB_OK);
    CHECK(seen.type == IQ_RECORD_KEYS && seen.collection == 9 && seen.payload == named + 24 && seen.payload_size == 8);
    for (size_t size = 0; size < 32; size++) CHECK_EQ_INT(decode(named, size), IQDB_ERR_CORRUPT);
    for (size_t at = 1; at < sizeof named; at++) {
        memcpy(copy, named, sizeof copy);
        copy[at] = (uint8_t)(copy[at] + 1);
        const bool is_fine = (at >= 4 && at < 8) || (at >= 24 && at < 32) || at == 20; /* or one zero more */
        CHECK_EQ_INT(decode(copy, sizeof copy), is_fine ? IQDB_OK : IQDB_ERR_CORRUPT);
    }
    memcpy(copy, named, sizeof copy);
    copy[4] = 0; /* those of the default collection are in META */
    CHECK_EQ_INT(decode(copy, sizeof copy), IQDB_ERR_CORRUPT);
    for (uint32_t size = IQ_KEY_SET_SIZE_MAX; size <= IQ_KEY_SET_SIZE_MAX + 1; size++) {
        record.payload_size = size;
        iq_record_encode_head(&record, longest);
        CHECK_EQ_INT(decode(longest, sizeof longest), size == IQ_KEY_SET_SIZE_MAX ? IQDB_OK : IQDB_ERR_CORRUPT);
    }
    record.payload_size = 0;
    iq_record_encode_head(&record, longest);
    CHECK_EQ_INT(decode(longest, sizeof longest), IQDB_ERR_CORRUPT);
}

/* Each class of float, at each place of vectors of some lengths, also where nothing is aligned. */
static void elements(void) {
    static const uint32_t patterns[] = {0x00000000, 0x80000000, 0x00000001, 0x807FFFFF, 0x7F7FFFFF, 0xFF7FFFFF,
                                        0x7F800000, 0xFF800000, 0x7F800001, 0xFFC00000, 0x7FFFFFFF};
    enum {
        DIM_MAX_HERE = 40
    };
    static uint8_t memory[1 + 24 + 4 * DIM_MAX_HERE];
    for (uint32_t dim = 1; dim <= DIM_MAX_HERE; dim += 3)
        for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++)
            for (size_t at = 0; at < dim; at++) {
                uint8_t *bytes = memory + 1;
                iq_logged_record record;
                memset(memory, 0, sizeof memory);
                bytes[0] = 1;
                iq_put_u32(bytes + 16, dim);
                iq_put_u32(bytes + 24 + 4 * at, patterns[i]);
                CHECK_EQ_INT(iq_record_decode(bytes, 24 + 4 * dim, &record), i < 6 ? IQDB_OK : IQDB_ERR_CORRUPT);
            }
}

static void longest_vector(void) {
    const size_t size = 24 + 4 * ((size_t)IQDB_DIM_MAX + 1);
    uint8_t *bytes = (uint8_t *)calloc(1, size);
    CHECK(bytes != NULL);
    bytes[0] = 1;
    iq_put_u32(bytes + 16, IQDB_DIM_MAX);
    const iqdb_result longest = decode(bytes, size);
    iq_put_u32(bytes + 16, IQDB_DIM_MAX + 1);
    const iqdb_result longer = decode(bytes, size);
    free(bytes);
    CHECK_EQ_INT(longest, IQDB_OK);
    CHECK_EQ_INT(longer, IQDB_ERR_CORRUPT);
}

TEST_MAIN("codec/record", TEST(by_the_letter), TEST(without_payload), TEST(cuts_and_bits), TEST(head_values),
          TEST(collections), TEST(choices), TEST(sets_of_keys), TEST(elements), TEST(longest_vector))
