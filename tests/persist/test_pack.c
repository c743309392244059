/* Packed sections: any bytes of what was packed come back, and a section that lies, whatever its checksums say, is refused
 * or unpacks to no more than it has room for. */
#include "persist/pack.h"
#include "base/bytes.h"
#include "support.h"
#include "test.h"

enum {
    PLAIN_MAX = 3 * 65536 + 1000
};

static support_heap heap;
static iqdb_allocator allocator;

/* Leaves out zeros at the end. With a user it claims more than it may. */
static size_t trim(const void *bytes, size_t size, void *out, size_t capacity, void *user) {
    const uint8_t *from = (const uint8_t *)bytes;
    (void)user;
    while (size > 1 && from[size - 1] == 0) size--;
    if (size > capacity) return user != NULL ? capacity + 1000 : 0;
    memcpy(out, bytes, size);
    return size;
}

static bool untrim(const void *packed, size_t packed_size, void *out, size_t size, void *user) {
    (void)user;
    if (packed_size > size) return false;
    memcpy(out, packed, packed_size);
    memset((uint8_t *)out + packed_size, 0, size - packed_size);
    return packed_size > 0 && ((const uint8_t *)packed)[0] != 0xEE;
}

static iqdb_codec codec = {"trim", trim, untrim, NULL};

typedef struct section {
    uint8_t *bytes;
    size_t size, fail_at; /* the nth fetch fails */
} section;

static iqdb_result fetch(void *user, uint64_t offset, uint8_t *bytes, size_t size) {
    section *s = (section *)user;
    if (offset > s->size || size > s->size - offset) return IQDB_ERR_INVALID_ARGUMENT; /* a mistake of ours */
    if (s->fail_at > 0 && --s->fail_at == 0) return IQDB_ERR_IO;
    memcpy(bytes, s->bytes + offset, size);
    return IQDB_OK;
}

/* As the snapshot writer does it. */
static section pack(const uint8_t *plain, size_t size) {
    section s = {NULL, 0, 0};
    uint8_t head[IQ_PACK_HEAD_SIZE];
    iq_packer *packer = iq_packer_new(&allocator, &codec, size, head);
    s.bytes = (uint8_t *)malloc(size + size / 1000 + 4096);
    if (!EXPECT(packer != NULL && s.bytes != NULL)) return s;
    memcpy(s.bytes, head, sizeof head);
    s.size = sizeof head;
    for (size_t at = 0; at < size; at += IQ_PACK_BLOCK) {
        const uint8_t *block;
        size_t block_size;
        packer->used = size - at < IQ_PACK_BLOCK ? size - at : IQ_PACK_BLOCK;
        memcpy(packer->plain, plain + at, packer->used);
        EXPECT(iq_packer_block(packer, &block, &block_size) == IQDB_OK);
        memcpy(s.bytes + s.size, block, block_size);
        s.size += block_size;
    }
    memcpy(s.bytes + s.size, packer->sizes.bytes, packer->sizes.size);
    s.size += packer->sizes.size;
    iq_packer_free(packer);
    return s;
}

static iq_volume volume_of(void) {
    iq_volume volume;
    memset(&volume, 0, sizeof volume);
    volume.allocator = allocator;
    volume.codecs = &codec;
    volume.codec_count = 1;
    return volume;
}

static void begin(void) {
    heap = support_heap_make();
    allocator = support_allocator(&heap);
}

/* Blocks of noise, of noise and zeros, of zeros only. */
static size_t fill(uint8_t *plain, uint64_t seed) {
    uint64_t random = seed;
    const size_t size = 1 + support_random_below(&random, PLAIN_MAX);
    memset(plain, 0, PLAIN_MAX);
    for (size_t at = 0; at < size; at += IQ_PACK_BLOCK) {
        const size_t held = size - at < IQ_PACK_BLOCK ? size - at : IQ_PACK_BLOCK;
        size_t noise = support_random_below(&random, 3) == 0 ? held : support_random_below(&random, held);
        if (support_random_below(&random, 4) == 0) noise = 0;
        for (size_t i = 0; i < noise; i++) plain[at + i] = (uint8_t)(1 + support_random_below(&random, 200));
    }
    return size;
}

static uint8_t plain[PLAIN_MAX], seen[PLAIN_MAX];

static void any_part_comes_back(void) {
    const iq_volume volume = volume_of();
    char why[160];
    for (uint64_t seed = 1; seed < 40; seed++) {
        begin();
        iq_volume mine = volume;
        mine.allocator = allocator;
        const size_t size = fill(plain, seed);
        section s = pack(plain, size);
        iq_unpacker *unpacker;
        uint64_t bad, random = seed;
        CHECK(s.size <= size + IQ_PACK_HEAD_SIZE + 4 * (size / IQ_PACK_BLOCK + 1));
        CHECK_EQ_INT(iq_unpacker_open(&mine, fetch, &s, s.size, why, &unpacker), IQDB_OK);
        CHECK_EQ_U64(unpacker->plain_size, size);
        CHECK_EQ_INT(iq_unpacker_read(unpacker, 0, seen, size, &bad), IQDB_OK);
        CHECK(memcmp(seen, plain, size) == 0);
        for (int i = 0; i < 50; i++) {
            const size_t from = support_random_below(&random, size), part = support_random_below(&random, size - from);
            CHECK_EQ_INT(iq_unpacker_read(unpacker, from, seen, part, &bad), IQDB_OK);
            CHECK(memcmp(seen, plain + from, part) == 0);
        }
        iq_unpacker_close(unpacker);
        free(s.bytes);
        CHECK_EQ_INT(support_heap_problems(&heap), 0);
    }
}

/* Opens what may be anything, and reads all of it where that is possible. */
static iqdb_result try_section(section *s, const iq_volume *volume) {
    char why[160];
    iq_unpacker *unpacker;
    uint64_t bad;
    iqdb_result result = iq_unpacker_open(volume, fetch, s, s->size, why, &unpacker);
    if (result != IQDB_OK) {
        EXPECT(unpacker == NULL && (result == IQDB_ERR_IO || result == IQDB_ERR_NOMEM) == (why[0] == 0));
        EXPECT(memchr(why, 0, sizeof why) != NULL);
        return result;
    }
    if (!EXPECT(unpacker->plain_size <= 64 * (uint64_t)s->size)) result = IQDB_ERR_LIMIT;
    uint8_t *exact = (uint8_t *)malloc((size_t)unpacker->plain_size + 1);
    if (!EXPECT(exact != NULL)) return IQDB_ERR_NOMEM;
    if (result == IQDB_OK) result = iq_unpacker_read(unpacker, 0, exact, (size_t)unpacker->plain_size, &bad);
    if (result == IQDB_ERR_CORRUPT) EXPECT(bad < s->size);
    free(exact);
    iq_unpacker_close(unpacker);
    return result;
}

static void lies(void) {
    begin();
    const iq_volume volume = volume_of();
    const size_t size = 2 * IQ_PACK_BLOCK + 777;
    (void)fill(plain, 3);
    memset(plain + IQ_PACK_BLOCK, 0, IQ_PACK_BLOCK); /* packs to less than it may */
    section s = pack(plain, size);
    CHECK_EQ_INT(try_section(&s, &volume), IQDB_OK);
    size_t refused = 0, tried = 0;
    for (size_t at = 0; at < s.size; at += at < IQ_PACK_HEAD_SIZE || at + 40 > s.size ? 1 : 97) {
        for (unsigned change = 1; change < 256; change = change * 3 + 1) {
            const uint8_t before = s.bytes[at];
            s.bytes[at] = (uint8_t)(before + change);
            const iqdb_result result = try_section(&s, &volume);
            CHECK(result == IQDB_OK || result == IQDB_ERR_CORRUPT || result == IQDB_ERR_INVALID_CONFIG);
            refused += result != IQDB_OK;
            tried++;
            s.bytes[at] = before;
        }
    }
    CHECK(refused > 100 && refused < tried);
    for (size_t cut = 0; cut < s.size; cut += cut < 200 ? 1 : 613) { /* a section that ends early */
        section shorter = s;
        shorter.size = cut;
        CHECK_EQ_INT(try_section(&shorter, &volume), IQDB_ERR_CORRUPT);
    }
    /* More than 64 times what there is: refused before memory is asked for. */
    const size_t peak = heap.peak_bytes;
    for (int shift = 20; shift < 64; shift++) {
        iq_put_u64(s.bytes + IQ_PACK_BYTES_AT, UINT64_C(1) << shift);
        CHECK_EQ_INT(try_section(&s, &volume), IQDB_ERR_CORRUPT);
        iq_put_u64(s.bytes + IQ_PACK_BYTES_AT, UINT64_MAX >> (63 - shift));
        CHECK_EQ_INT(try_section(&s, &volume), IQDB_ERR_CORRUPT);
    }
    CHECK(heap.peak_bytes <= peak + 64 * s.size / 1000);
    free(s.bytes);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

static void what_fails_is_told(void) {
    const size_t size = IQ_PACK_BLOCK + 5;
    begin();
    const iq_volume volume = volume_of();
    iq_volume none = volume;
    (void)fill(plain, 4);
    section s = pack(plain, size);
    for (size_t fail = 1; fail < 5; fail++) { /* head, table, two blocks */
        s.fail_at = fail;
        CHECK_EQ_INT(try_section(&s, &volume), IQDB_ERR_IO);
    }
    s.fail_at = 0;
    for (size_t fail = 1; fail < 3; fail++) {
        heap.fail_at = fail;
        CHECK_EQ_INT(try_section(&s, &volume), IQDB_ERR_NOMEM);
    }
    none.codec_count = 0;
    CHECK_EQ_INT(try_section(&s, &none), IQDB_ERR_INVALID_CONFIG);
    char why[160];
    iq_unpacker *unpacker;
    CHECK_EQ_INT(iq_unpacker_open(&none, fetch, &s, s.size, why, &unpacker), IQDB_ERR_INVALID_CONFIG);
    CHECK(strstr(why, "'trim'") != NULL);
    memset(s.bytes, 'x', IQ_PACK_NAME_SIZE - 1); /* the longest name */
    CHECK_EQ_INT(iq_unpacker_open(&none, fetch, &s, s.size, why, &unpacker), IQDB_ERR_INVALID_CONFIG);
    s.bytes[IQ_PACK_NAME_SIZE - 1] = 'x';
    CHECK_EQ_INT(iq_unpacker_open(&none, fetch, &s, s.size, why, &unpacker), IQDB_ERR_CORRUPT);
    free(s.bytes);
    /* A codec that says it has written more than it may is not believed. */
    codec.user = &heap;
    memset(plain, 7, IQ_PACK_BLOCK);
    s = pack(plain, IQ_PACK_BLOCK);
    codec.user = NULL;
    CHECK_EQ_U64(s.size, IQ_PACK_HEAD_SIZE + IQ_PACK_BLOCK + 4);
    CHECK_EQ_INT(try_section(&s, &volume), IQDB_OK);
    free(s.bytes);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* Damage in a packed block is told with its place; what fails between is told by who failed, and nothing of it is kept. */
static void blocks_that_do_not_unpack(void) {
    const size_t size = 2 * IQ_PACK_BLOCK;
    begin();
    const iq_volume volume = volume_of();
    char why[160];
    uint64_t bad;
    iq_unpacker *unpacker;
    memset(plain, 0, size);
    memset(plain, 9, 3000);
    memset(plain + IQ_PACK_BLOCK, 5, 3000);
    section s = pack(plain, size);
    CHECK_EQ_INT(iq_unpacker_open(&volume, fetch, &s, s.size, why, &unpacker), IQDB_OK);
    s.fail_at = 1;
    CHECK_EQ_INT(iq_unpacker_read(unpacker, 10, seen, 100, &bad), IQDB_ERR_IO);
    CHECK_EQ_U64(bad, IQ_NUMBER_MAX);
    s.bytes[IQ_PACK_HEAD_SIZE + 3000] = 0xEE; /* the first byte of the second block: the codec refuses it */
    CHECK_EQ_INT(iq_unpacker_read(unpacker, 10, seen, 100, &bad), IQDB_OK);
    CHECK(memcmp(seen, plain + 10, 100) == 0);
    CHECK_EQ_INT(iq_unpacker_read(unpacker, IQ_PACK_BLOCK - 5, seen, 100, &bad), IQDB_ERR_CORRUPT);
    CHECK_EQ_U64(bad, IQ_PACK_HEAD_SIZE + 3000);
    CHECK_EQ_INT(iq_unpacker_read(unpacker, 10, seen, 100, &bad), IQDB_OK);
    iq_unpacker_close(unpacker);
    free(s.bytes);
    plain[0] = 7;
    s = pack(plain, 1); /* a byte cannot become fewer */
    CHECK_EQ_U64(s.size, IQ_PACK_HEAD_SIZE + 1 + 4);
    CHECK_EQ_INT(try_section(&s, &volume), IQDB_OK);
    s.size = IQ_PACK_HEAD_SIZE + 3; /* no room for the table */
    CHECK_EQ_INT(try_section(&s, &volume), IQDB_ERR_CORRUPT);
    free(s.bytes);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

static void options_that_make_no_sense(void) {
    static char long_name[IQ_PACK_NAME_SIZE + 1];
    iqdb_codec codecs[IQDB_CODECS_MAX + 1];
    char names[IQDB_CODECS_MAX + 1][4];
    for (size_t i = 0; i <= IQDB_CODECS_MAX; i++) {
        names[i][0] = (char)('a' + (int)i);
        names[i][1] = 0;
        codecs[i] = codec;
        codecs[i].name = names[i];
    }
    CHECK(iq_codecs_complaint(NULL, 0) == NULL && iq_codecs_complaint(codecs, IQDB_CODECS_MAX) == NULL);
    CHECK(iq_codecs_complaint(codecs, IQDB_CODECS_MAX + 1) != NULL);
    CHECK(iq_codecs_complaint(NULL, 1) != NULL);
    memset(long_name, 'x', IQ_PACK_NAME_SIZE - 1);
    codecs[1].name = long_name;
    CHECK(iq_codecs_complaint(codecs, 2) == NULL);
    long_name[IQ_PACK_NAME_SIZE - 1] = 'x';
    CHECK(iq_codecs_complaint(codecs, 2) != NULL);
    codecs[1].name = "";
    CHECK(iq_codecs_complaint(codecs, 2) != NULL);
    codecs[1].name = NULL;
    CHECK(iq_codecs_complaint(codecs, 2) != NULL);
    codecs[1].name = names[0];
    CHECK(iq_codecs_complaint(codecs, 2) != NULL && iq_codecs_complaint(codecs, 1) == NULL);
    codecs[0].decompress_fn = NULL;
    CHECK(iq_codecs_complaint(codecs, 1) != NULL);
}

TEST_MAIN("persist/pack", TEST(any_part_comes_back), TEST(lies), TEST(what_fails_is_told),
          TEST(blocks_that_do_not_unpack), TEST(options_that_make_no_sense))
