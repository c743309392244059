/* Snapshots: what is written comes back; every byte counts; no lie with valid checksums gets through. */
#include "api.h"
#include "base/bytes.h"
#include "fault.h"
#include "kernel/crc32.h"
#include "persist/format.h"
#include "persist/checkpoint.h"
#include "persist/sections.h"
#include "support.h"
#include "test.h"

#include <pthread.h>

static const uint8_t uuid[IQ_UUID_SIZE] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

typedef struct section {
    uint32_t collection, kind;
    size_t size;
    uint8_t *bytes;
} section;

typedef struct content {
    section sections[12];
    size_t count, chunk; /* bytes a write */
    iqdb_result fail_with;
} content;

typedef struct memory_sink {
    iq_blob blob;
    size_t fail_behind; /* bytes; 0: never */
} memory_sink;

static iqdb_allocator allocator;

static iqdb_result sink_write(const void *bytes, size_t size, void *user) {
    memory_sink *sink = (memory_sink *)user;
    if (sink->fail_behind > 0 && sink->blob.size + size > sink->fail_behind) return IQDB_ERR_NOSPACE;
    return iq_blob_append(&sink->blob, bytes, size);
}

static iqdb_result write_content(iq_snapshot_writer *writer, void *user) {
    const content *all = (const content *)user;
    iqdb_result result = IQDB_OK;
    for (size_t i = 0; i < all->count && result == IQDB_OK; i++) {
        const section *s = &all->sections[i];
        result = iq_snapshot_section(writer, s->collection, s->kind, s->size);
        for (size_t at = 0; at < s->size && result == IQDB_OK;) {
            const size_t part = s->size - at < all->chunk ? s->size - at : all->chunk;
            result = iq_snapshot_write(writer, s->bytes + at, part);
            at += part;
        }
    }
    return result == IQDB_OK ? all->fail_with : result;
}

static void add(content *all, uint32_t collection, uint32_t kind, size_t size) {
    section *s = &all->sections[all->count++];
    uint64_t state = size + kind;
    s->collection = collection;
    s->kind = kind;
    s->size = size;
    s->bytes = (uint8_t *)malloc(size + 1);
    for (size_t i = 0; i < size; i++) s->bytes[i] = (uint8_t)(support_random(&state) >> 13);
}

static void drop(content *all) {
    for (size_t i = 0; i < all->count; i++) free(all->sections[i].bytes);
}

static iq_snapshot_entry entry_make(void) {
    iq_snapshot_entry entry;
    memset(&entry, 0, sizeof entry);
    entry.number = 7;
    entry.lsn = 1234;
    return entry;
}

static iqdb_result produce(content *all, iq_snapshot_entry *entry, memory_sink *out) {
    iq_sink sink;
    sink.write_fn = sink_write;
    sink.user = out;
    out->blob.allocator = &allocator;
    out->blob.size = 0;
    support_heap heap = support_heap_make(); /* its memory is not zero */
    const iqdb_allocator watched = support_allocator(&heap);
    const iqdb_result result = snapshot_by(&sink, &watched, uuid, entry, write_content, all);
    EXPECT(support_heap_problems(&heap) == 0);
    return result;
}

/* A file in a directory in memory, opened as a snapshot. */
typedef struct stage {
    fault_files *disk;
    iq_volume volume;
    iqdb_error error;
    iq_reporter reporter;
} stage;

static void stage_make(stage *s) {
    memset(s, 0, sizeof *s);
    s->disk = fault_new(NULL);
    s->volume.allocator = allocator;
    s->volume.files = fault_table(s->disk);
    s->reporter.error = &s->error;
    s->volume.reporter = &s->reporter;
    CHECK_EQ_INT(iq_volume_open(&s->volume, "db", true), IQDB_OK);
}

static void stage_free(stage *s) {
    iq_volume_close(&s->volume);
    fault_free(s->disk);
}

/* Opens, reads every section whole, and checks the rest. */
static iqdb_result read_all(stage *s, const iq_snapshot_entry *entry, const content *all) {
    iq_snapshot_reader *reader;
    iqdb_result result = iq_snapshot_open(&s->volume, uuid, entry, &reader);
    if (result != IQDB_OK) {
        EXPECT(reader == NULL);
        return result;
    }
    for (size_t i = 0; i < all->count && result == IQDB_OK; i++) {
        const section *want = &all->sections[i];
        uint64_t size;
        uint8_t *bytes = (uint8_t *)malloc(want->size + 1);
        EXPECT(iq_snapshot_find(reader, want->collection, want->kind, &size) && size == want->size);
        result = iq_snapshot_read(reader, want->collection, want->kind, 0, bytes, want->size);
        if (result == IQDB_OK) EXPECT(memcmp(bytes, want->bytes, want->size) == 0);
        free(bytes);
    }
    if (result == IQDB_OK) result = iq_snapshot_check(reader);
    iq_snapshot_close(reader);
    return result;
}

static void sections_of_all_sizes_come_back(void) {
    static const size_t sizes[] = {0, 1, 63, 64, 8191, 8192, 8193, 65535, 65536, 70000, 200000, 3};
    static const size_t chunks[] = {1, 7, 8192, 65536, 1000000};
    allocator = iq_alloc_default();
    for (size_t c = 0; c < 5; c++) {
        content all;
        memory_sink sink;
        stage s;
        memset(&all, 0, sizeof all);
        memset(&sink, 0, sizeof sink);
        iq_snapshot_entry entry = entry_make();
        for (uint32_t i = 0; i < 12; i++) add(&all, i / 4 * 3, i, sizes[(i + c) % 12]);
        all.chunk = chunks[c];
        CHECK_EQ_INT(produce(&all, &entry, &sink), IQDB_OK);
        CHECK_EQ_U64(entry.size_bytes, sink.blob.size);
        stage_make(&s);
        CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size));
        CHECK_EQ_INT(read_all(&s, &entry, &all), IQDB_OK);
        /* Pieces, across blocks. */
        iq_snapshot_reader *reader;
        uint64_t size, state = 5;
        CHECK_EQ_INT(iq_snapshot_open(&s.volume, uuid, &entry, &reader), IQDB_OK);
        CHECK(!iq_snapshot_find(reader, 9, 9, &size) && size == 0);
        CHECK(!iq_snapshot_find(reader, 3, 3, &size));
        for (uint32_t number = 0; number < 8; number++) {
            uint32_t next = number;
            CHECK_EQ_INT(iq_snapshot_next(reader, &next), number <= 6);
            CHECK_EQ_U64(next, number <= 6 ? (number + 2) / 3 * 3 : number);
        }
        for (int i = 0; i < 500; i++) {
            const section *want = &all.sections[support_random_below(&state, 12)];
            const size_t from = (size_t)support_random_below(&state, want->size + 1);
            const size_t part = (size_t)support_random_below(&state, want->size - from + 1);
            uint8_t *bytes = (uint8_t *)malloc(part + 1);
            CHECK_EQ_INT(iq_snapshot_read(reader, want->collection, want->kind, from, bytes, part), IQDB_OK);
            CHECK_MEM(bytes, want->bytes + from, part);
            free(bytes);
        }
        uint8_t byte;
        CHECK_EQ_INT(iq_snapshot_read(reader, 0, 0, all.sections[0].size, &byte, 1), IQDB_ERR_CORRUPT);
        CHECK_EQ_INT(iq_snapshot_read(reader, 0, 0, UINT64_MAX, &byte, 1), IQDB_ERR_CORRUPT);
        CHECK_EQ_INT(iq_snapshot_read(reader, 9, 9, 0, &byte, 1), IQDB_ERR_CORRUPT);
        CHECK_EQ_INT(iq_snapshot_read(reader, 9, 9, 0, &byte, 0), IQDB_OK);
        CHECK_EQ_INT(iq_snapshot_reject(reader, 6, 9, 5, "nonsense"), IQDB_ERR_CORRUPT);
        CHECK_EQ_STR(s.error.text, "nonsense");
        CHECK_EQ_STR(s.error.file, "snap-7");
        CHECK(s.error.offset % 64 == 5 && s.error.offset > 64);
        iq_snapshot_close(reader);
        iq_snapshot_close(NULL);
        /* Alignment and identity, as the tables say. */
        const uint8_t *footer = sink.blob.bytes + sink.blob.size - IQ_FOOTER_SIZE;
        const uint8_t *list = sink.blob.bytes + iq_get_u64(footer + IQ_FOOTER_LIST_AT);
        for (uint32_t i = 0; i < 12; i++) {
            const uint64_t at = iq_get_u64(list + i * IQ_SECTION_ENTRY_SIZE + IQ_SECTION_OFFSET_AT);
            CHECK_EQ_U64(at % (all.sections[i].size >= 65536 ? 65536 : 64), 0);
        }
        CHECK_MEM(sink.blob.bytes + IQ_PAGE_UUID_AT, uuid, 16);
        const uint64_t blocks = iq_get_u64(footer + IQ_FOOTER_BLOCKS_AT);
        for (const uint8_t *p = sink.blob.bytes + blocks * 8196; p < sink.blob.bytes + (blocks + 1) * 8192; p++)
            CHECK_EQ_INT(*p, 0); /* behind the checksums */
        for (const uint8_t *p = sink.blob.bytes + (blocks + 1) * 8192 + 4; p < footer; p++) CHECK_EQ_INT(*p, 0);
        CHECK_EQ_U64(iq_get_u64(sink.blob.bytes + IQ_SNAPSHOT_LSN_AT), 1234);
        stage_free(&s);
        iq_blob_free(&sink.blob);
        drop(&all);
    }
}

static void an_empty_one_and_one_of_many_blocks(void) {
    allocator = iq_alloc_default();
    for (int i = 0; i < 3; i++) {
        content all;
        memory_sink sink;
        stage s;
        memset(&all, 0, sizeof all);
        memset(&sink, 0, sizeof sink);
        iq_snapshot_entry entry = entry_make();
        all.chunk = 1 << 20;
        if (i == 1) add(&all, 0, 1, 2048 * 8192 - 65536 - 8192); /* all CRCs in one block, which is full */
        if (i == 2) add(&all, 0, 1, 40u << 20);                  /* several blocks of CRCs */
        CHECK_EQ_INT(produce(&all, &entry, &sink), IQDB_OK);
        stage_make(&s);
        CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size));
        CHECK_EQ_INT(read_all(&s, &entry, &all), IQDB_OK);
        stage_free(&s);
        iq_blob_free(&sink.blob);
        drop(&all);
    }
}

/* One small snapshot for the tests below; bytes in sink. */
static void small_one(content *all, iq_snapshot_entry *entry, memory_sink *sink) {
    allocator = iq_alloc_default();
    memset(all, 0, sizeof *all);
    memset(sink, 0, sizeof *sink);
    *entry = entry_make();
    add(all, 0, 1, 100);
    add(all, 0, 2, 9000);
    add(all, 1, 2, 10);
    all->chunk = 4096;
    CHECK_EQ_INT(produce(all, entry, sink), IQDB_OK);
}

static void every_byte_counts(void) {
    content all;
    memory_sink sink;
    iq_snapshot_entry entry;
    stage s;
    small_one(&all, &entry, &sink);
    const size_t step = support_amount(61, 7, 1);
    size_t opened = 0, tried = 0;
    for (size_t at = 0; at < sink.blob.size && test_now.failures == 0; at += step) {
        stage_make(&s);
        sink.blob.bytes[at] ^= 0x10;
        CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size));
        memset(&s.error, 0, sizeof s.error);
        CHECK_EQ_INT(read_all(&s, &entry, &all), IQDB_ERR_CORRUPT);
        CHECK_EQ_STR(s.error.file, "snap-7");
        CHECK(s.error.offset <= at && at - s.error.offset < 8192);
        sink.blob.bytes[at] ^= 0x10;
        tried++;
        /* Cut here. */
        CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, at));
        CHECK_EQ_INT(read_all(&s, &entry, &all), IQDB_ERR_CORRUPT);
        stage_free(&s);
    }
    CHECK(opened == 0 && tried > 400);
    iq_blob_free(&sink.blob);
    drop(&all);
}

static void blocks_that_changed_places(void) {
    content all;
    memory_sink sink;
    iq_snapshot_entry entry;
    stage s;
    uint8_t block[8192];
    small_one(&all, &entry, &sink);
    stage_make(&s);
    memcpy(block, sink.blob.bytes, 8192);
    memmove(sink.blob.bytes, sink.blob.bytes + 8192, 8192); /* a misdirected write */
    CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size));
    CHECK_EQ_INT(read_all(&s, &entry, &all), IQDB_ERR_CORRUPT);
    memcpy(sink.blob.bytes, block, 8192);
    sink.blob.bytes[sink.blob.size] = 0; /* capacity is larger */
    CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size + 1));
    CHECK_EQ_INT(read_all(&s, &entry, &all), IQDB_ERR_CORRUPT);
    CHECK(fault_store(s.disk, "db", "snap-7", NULL, 0));
    CHECK_EQ_INT(read_all(&s, &entry, &all), IQDB_ERR_CORRUPT);
    CHECK_EQ_STR(s.error.file, "snap-7");
    /* Whole, but not the one META means. */
    CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size));
    iq_snapshot_entry wrong = entry;
    wrong.root ^= 1;
    CHECK_EQ_INT(read_all(&s, &wrong, &all), IQDB_ERR_CORRUPT);
    wrong = entry;
    wrong.size_bytes += 64;
    CHECK_EQ_INT(read_all(&s, &wrong, &all), IQDB_ERR_CORRUPT);
    uint8_t other[16] = {0};
    iq_snapshot_reader *reader;
    CHECK_EQ_INT(iq_snapshot_open(&s.volume, other, &entry, &reader), IQDB_ERR_CORRUPT);
    CHECK(strstr(s.error.text, "another database") != NULL);
    CHECK(fault_store(s.disk, "db", "snap-8", sink.blob.bytes, sink.blob.size));
    wrong = entry;
    wrong.number = 8;
    CHECK_EQ_INT(read_all(&s, &wrong, &all), IQDB_ERR_CORRUPT);
    bool torn;
    CHECK(iq_snapshot_is_ours(&s.volume, uuid, 7, &torn) && !torn);
    CHECK(!iq_snapshot_is_ours(&s.volume, uuid, 8, &torn) && !torn); /* the number inside is another */
    CHECK(!iq_snapshot_is_ours(&s.volume, other, 7, &torn) && !torn);
    CHECK(!iq_snapshot_is_ours(&s.volume, uuid, 99, &torn) && !torn);
    CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, 63));
    CHECK(!iq_snapshot_is_ours(&s.volume, uuid, 7, &torn) && torn);
    sink.blob.bytes[63] ^= 1;
    CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size));
    CHECK(!iq_snapshot_is_ours(&s.volume, uuid, 7, &torn) && torn);
    stage_free(&s);
    iq_blob_free(&sink.blob);
    drop(&all);
}

/* Makes all checksums right again, from the blocks up. */
static void reseal(memory_sink *sink, iq_snapshot_entry *entry) {
    uint8_t *footer = sink->blob.bytes + sink->blob.size - IQ_FOOTER_SIZE;
    const uint64_t blocks = 3;
    uint8_t *table = sink->blob.bytes + blocks * 8192, *roots = table + 8192;
    for (uint64_t i = 0; i < blocks; i++) iq_put_u32(table + i * 4, iq_crc32(0, sink->blob.bytes + i * 8192, 8192));
    iq_put_u32(roots, iq_crc32(0, table, 8192));
    iq_put_u32(footer + IQ_FOOTER_ROOTS_CRC_AT, iq_crc32(0, roots, 64));
    iq_put_u32(footer + IQ_PAGE_CRC_AT, iq_crc32(iq_crc32(0, footer, 8), footer + 12, IQ_FOOTER_SIZE - 12));
    entry->root = iq_get_u32(footer + IQ_PAGE_CRC_AT);
}

static void lies_with_valid_checksums(void) {
    content all;
    memory_sink sink;
    iq_snapshot_entry entry;
    small_one(&all, &entry, &sink);
    uint8_t *good = (uint8_t *)malloc(sink.blob.size);
    memcpy(good, sink.blob.bytes, sink.blob.size);
    const size_t footer = sink.blob.size - IQ_FOOTER_SIZE;
    const size_t list = (size_t)iq_get_u64(good + footer + IQ_FOOTER_LIST_AT);
    CHECK_EQ_U64(iq_get_u64(good + footer + IQ_FOOTER_BLOCKS_AT), 2);
    free(good);
    iq_blob_free(&sink.blob);
    drop(&all);
    memset(&all, 0, sizeof all);
    add(&all, 0, 1, 100);
    add(&all, 0, 2, 17000);
    all.chunk = 4096;
    CHECK_EQ_INT(produce(&all, &entry, &sink), IQDB_OK);
    good = (uint8_t *)malloc(sink.blob.size);
    memcpy(good, sink.blob.bytes, sink.blob.size);
    const size_t end = sink.blob.size - IQ_FOOTER_SIZE;
    const size_t entries = (size_t)iq_get_u64(good + end + IQ_FOOTER_LIST_AT);
    CHECK_EQ_U64(iq_get_u64(good + end + IQ_FOOTER_BLOCKS_AT), 3);
    CHECK(list != entries);
    const struct {
        const char *what;
        size_t at, size;
        uint64_t value;
        iqdb_result code;
    } lies[] = {
        {"nothing", end + IQ_FOOTER_BLOCKS_AT, 8, 3, IQDB_OK},
        {"no blocks", end + IQ_FOOTER_BLOCKS_AT, 8, 0, IQDB_ERR_CORRUPT},
        {"blocks without end", end + IQ_FOOTER_BLOCKS_AT, 8, UINT64_MAX, IQDB_ERR_CORRUPT},
        {"blocks that wrap", end + IQ_FOOTER_BLOCKS_AT, 8, UINT64_C(1) << 51, IQDB_ERR_CORRUPT},
        {"one block less", end + IQ_FOOTER_BLOCKS_AT, 8, 2, IQDB_ERR_CORRUPT},
        {"a list behind the blocks", end + IQ_FOOTER_LIST_AT, 8, 3 * 8192 + 1, IQDB_ERR_CORRUPT},
        {"a list nowhere", end + IQ_FOOTER_LIST_AT, 8, UINT64_MAX, IQDB_ERR_CORRUPT},
        {"a list in the header", end + IQ_FOOTER_LIST_AT, 8, 0, IQDB_ERR_CORRUPT},
        {"a list at an odd place", end + IQ_FOOTER_LIST_AT, 8, entries + 8, IQDB_ERR_CORRUPT},
        {"a section of no collection", entries + 32 + IQ_SECTION_COLLECTION_AT, 4, UINT32_MAX, IQDB_ERR_CORRUPT},
        {"collections that go back", entries + IQ_SECTION_COLLECTION_AT, 4, 1, IQDB_ERR_CORRUPT},
        {"sections without end", end + IQ_FOOTER_SECTIONS_AT, 4, UINT32_MAX, IQDB_ERR_CORRUPT},
        {"sections of zeros", end + IQ_FOOTER_SECTIONS_AT, 4, 40, IQDB_ERR_CORRUPT},
        {"a newer version", end + IQ_PAGE_VERSION_AT, 4, 2, IQDB_ERR_VERSION},
        {"a required feature", entries + IQ_SECTION_REQUIRED_AT, 4, 1, IQDB_ERR_VERSION},
        {"an ignorable feature", entries + IQ_SECTION_IGNORABLE_AT, 4, 1, IQDB_OK},
        {"a section in the header", entries + IQ_SECTION_OFFSET_AT, 8, 0, IQDB_ERR_CORRUPT},
        {"a section at an odd place", entries + IQ_SECTION_OFFSET_AT, 8, 65, IQDB_ERR_CORRUPT},
        {"a section nowhere", entries + IQ_SECTION_OFFSET_AT, 8, UINT64_MAX - 63, IQDB_ERR_CORRUPT},
        {"a section over the next", entries + IQ_SECTION_BYTES_AT, 8, 200, IQDB_ERR_CORRUPT},
        {"a section without end", entries + 32 + IQ_SECTION_BYTES_AT, 8, UINT64_MAX, IQDB_ERR_CORRUPT},
        {"a section over the list", entries + 32 + IQ_SECTION_BYTES_AT, 8, 17100, IQDB_ERR_CORRUPT},
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        stage s;
        support_heap heap = support_heap_make();
        stage_make(&s);
        s.volume.allocator = support_allocator(&heap);
        memcpy(sink.blob.bytes, good, sink.blob.size);
        if (lies[i].size == 4)
            iq_put_u32(sink.blob.bytes + lies[i].at, (uint32_t)lies[i].value);
        else
            iq_put_u64(sink.blob.bytes + lies[i].at, lies[i].value);
        reseal(&sink, &entry);
        CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size));
        const iqdb_result code = read_all(&s, &entry, &all);
        if (!EXPECT(code == lies[i].code)) printf("\n      ... %s: %d, %s", lies[i].what, (int)code, s.error.text);
        CHECK_EQ_U64(support_heap_problems(&heap), 0);
        CHECK(heap.peak_bytes <= 2 * sink.blob.size + 262144);
        stage_free(&s);
    }
    free(good);
    iq_blob_free(&sink.blob);
    drop(&all);
}

static iqdb_result misuse(iq_snapshot_writer *writer, void *user) {
    const int which = *(const int *)user;
    uint8_t bytes[16] = {0};
    iqdb_result result = iq_snapshot_section(writer, 0, 1, 8);
    if (which == 0) result = iq_snapshot_write(writer, bytes, 9);  /* more than announced */
    if (which == 1) result = iq_snapshot_section(writer, 0, 2, 8); /* less than announced */
    if (which == 2) result = IQDB_OK;                              /* the same, at the end */
    if (which == 3) (void)iq_snapshot_write(writer, bytes, 8);
    if (which == 3) result = iq_snapshot_section(writer, 0, 1, 8); /* twice */
    if (which == 4) (void)iq_snapshot_write(writer, bytes, 8);
    if (which == 4) result = iq_snapshot_section(writer, 0, 2, UINT64_MAX);
    if (which == 5) (void)iq_snapshot_write(writer, bytes, 8);
    if (which == 5) (void)iq_snapshot_section(writer, 3, 1, 0);
    if (which == 5) result = iq_snapshot_section(writer, 2, 1, 8); /* back to an earlier collection */
    if (which == 6) result = iq_snapshot_derive(writer, 0, 2, 8);  /* less than announced */
    if (which != 2) EXPECT(result != IQDB_OK);
    if (which != 2) EXPECT(iq_snapshot_write(writer, bytes, 1) == result); /* sticky */
    if (which != 2) EXPECT(iq_snapshot_section(writer, 5, 5, 1) == result);
    return IQDB_OK; /* the first error is the outcome anyway */
}

static void mistakes_of_the_caller(void) {
    allocator = iq_alloc_default();
    for (int which = 0; which < 7; which++) {
        memory_sink out;
        iq_sink sink;
        memset(&out, 0, sizeof out);
        out.blob.allocator = &allocator;
        sink.write_fn = sink_write;
        sink.user = &out;
        iq_snapshot_entry entry = entry_make();
        CHECK_EQ_INT(snapshot_by(&sink, &allocator, uuid, &entry, misuse, &which),
                     which == 4 ? IQDB_ERR_LIMIT : IQDB_ERR_INVALID_ARGUMENT);
        iq_blob_free(&out.blob);
    }
}

static void sinks_and_memory_fail(void) {
    content all;
    memory_sink sink;
    iq_snapshot_entry entry;
    small_one(&all, &entry, &sink);
    const size_t size = sink.blob.size;
    for (size_t i = 1; i < size; i += 997) {
        sink.fail_behind = i;
        CHECK_EQ_INT(produce(&all, &entry, &sink), IQDB_ERR_NOSPACE);
    }
    sink.fail_behind = 0;
    all.fail_with = IQDB_ERR_LIMIT; /* of the one who writes the sections */
    CHECK_EQ_INT(produce(&all, &entry, &sink), IQDB_ERR_LIMIT);
    all.fail_with = IQDB_OK;
    support_heap heap = support_heap_make();
    size_t failed = 1, runs = 0;
    for (size_t n = 1; failed > 0; n++, runs++) {
        stage s;
        iq_snapshot_reader *reader;
        heap.failed = 0;
        heap.fail_at = n;
        allocator = iq_alloc_default();
        sink.blob.size = 0;
        iq_sink target;
        target.write_fn = sink_write;
        target.user = &sink;
        const iqdb_allocator watched = support_allocator(&heap);
        iqdb_result result = snapshot_by(&target, &watched, uuid, &entry, write_content, &all);
        stage_make(&s);
        s.volume.allocator = watched;
        if (result == IQDB_OK) {
            CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size));
            result = iq_snapshot_open(&s.volume, uuid, &entry, &reader);
            iq_snapshot_close(reader);
        }
        failed = heap.failed;
        CHECK_EQ_INT(result, failed > 0 ? IQDB_ERR_NOMEM : IQDB_OK);
        CHECK_EQ_U64(support_heap_problems(&heap), 0);
        stage_free(&s);
    }
    CHECK(runs > 6);
    iq_blob_free(&sink.blob);
    drop(&all);
}

/* A file that changes under the reader: each read is checked by itself. */
static void bytes_that_rot_after_they_were_read(void) {
    content all;
    memory_sink sink;
    iq_snapshot_entry entry;
    stage s;
    iq_snapshot_reader *reader;
    uint8_t bytes[9000];
    small_one(&all, &entry, &sink);
    stage_make(&s);
    CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size));
    CHECK_EQ_INT(iq_snapshot_open(&s.volume, uuid, &entry, &reader), IQDB_OK);
    CHECK_EQ_INT(iq_snapshot_read(reader, 0, 2, 0, bytes, 9000), IQDB_OK);
    CHECK_EQ_INT(iq_snapshot_check(reader), IQDB_OK);
    iq_file file;
    CHECK_EQ_INT(iq_file_open(&file, &s.volume, "snap-7", IQDB_OPEN_WRITE), IQDB_OK);
    const uint8_t wrong = (uint8_t)~sink.blob.bytes[300];
    CHECK_EQ_INT(iq_file_write(&file, 300, &wrong, 1), IQDB_OK);
    iq_file_close(&file);
    CHECK_EQ_INT(iq_snapshot_read(reader, 0, 2, 8190, bytes, 100), IQDB_OK); /* another block */
    CHECK_EQ_INT(iq_snapshot_read(reader, 0, 2, 0, bytes, 9000), IQDB_ERR_CORRUPT);
    CHECK_EQ_U64(s.error.offset, 0);
    iq_snapshot_close(reader);
    stage_free(&s);
    iq_blob_free(&sink.blob);
    drop(&all);
}

/* Two blocks of checksums, and what is small beside what is large. */
static void map_make(stage *s, content *all, iq_snapshot_entry *entry, memory_sink *sink) {
    memset(all, 0, sizeof *all);
    all->chunk = 1u << 20;
    memset(sink, 0, sizeof *sink);
    *entry = entry_make();
    add(all, 0, 1, 100);
    add(all, 0, 2, 300000);
    add(all, 0, 3, 17u << 20);
    add(all, 0, 4, 5000);
    CHECK_EQ_INT(produce(all, entry, sink), IQDB_OK);
    stage_make(s);
    CHECK(fault_store(s->disk, "db", "snap-7", sink->blob.bytes, sink->blob.size));
}

/* What META says of it must be so, wherever it comes from; and a delta is no database. */
static void snapshots_that_do_not_follow(void) {
    content all;
    memory_sink sink;
    iq_snapshot_entry entry, said;
    stage s;
    iq_snapshot_reader *reader;
    small_one(&all, &entry, &sink);
    for (uint64_t since = 0; since < 2; since++) {
        entry.since = since * 1000;
        CHECK_EQ_INT(produce(&all, &entry, &sink), IQDB_OK);
        stage_make(&s);
        CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size));
        said = entry;
        CHECK_EQ_INT(iq_snapshot_open(&s.volume, uuid, &said, &reader), IQDB_OK);
        iq_snapshot_close(reader);
        said.since = 500;
        CHECK_EQ_INT(iq_snapshot_open(&s.volume, uuid, &said, &reader), IQDB_ERR_CORRUPT);
        CHECK(reader == NULL && strcmp(s.error.file, "snap-7") == 0);
        CHECK_EQ_INT(iq_snapshot_open_mapped(&s.volume, uuid, &said, &reader), IQDB_ERR_CORRUPT);
        CHECK(reader == NULL && s.disk->open_maps == 0);
        CHECK_EQ_INT(iq_snapshot_open_bytes(&s.volume, sink.blob.bytes, sink.blob.size, &said, &reader),
                     since == 0 ? IQDB_OK : IQDB_ERR_CORRUPT);
        CHECK((reader != NULL) == (since == 0) && said.since == since * 1000);
        iq_snapshot_close(reader);
        support_heap heap = support_heap_make();
        s.volume.allocator = support_allocator(&heap);
        heap.fail_at = 1;
        CHECK_EQ_INT(iq_snapshot_open_bytes(&s.volume, sink.blob.bytes, sink.blob.size, &said, &reader),
                     IQDB_ERR_NOMEM);
        stage_free(&s);
    }
    iq_blob_free(&sink.blob);
    drop(&all);
}

/* A section that is not needed may rot, and so may what a later version has made of others; but not what it needs. */
static void sections_that_are_not_needed(void) {
    content all;
    memory_sink sink;
    iq_snapshot_entry entry, found;
    stage s;
    iq_snapshot_reader *reader;
    small_one(&all, &entry, &sink);
    stage_make(&s);
    sink.blob.bytes[300] ^= 1; /* the second section, and the first block */
    CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size));
    for (int forgiven = 0; forgiven < 2; forgiven++) {
        CHECK_EQ_INT(iq_snapshot_salvage(&s.volume, uuid, 7, &entry, &found, &reader), IQDB_OK);
        CHECK(!iq_snapshot_is_whole(reader));
        if (forgiven) iq_snapshot_forgive(reader, 0, 2);
        iq_snapshot_forgive(reader, 0, 99);
        CHECK_EQ_INT(iq_snapshot_check(reader), forgiven ? IQDB_OK : IQDB_ERR_CORRUPT);
        CHECK_EQ_INT(iq_snapshot_pass_over(reader, 0, 2), IQDB_ERR_VERSION);
        CHECK_EQ_U64(iq_snapshot_finding(reader, 0, 99, 7, "").offset, 0); /* in a section that is nowhere */
        iq_snapshot_close(reader);
    }
    stage_free(&s);
    iq_blob_free(&sink.blob);
    drop(&all);
}

static iqdb_result derive_one(iq_snapshot_writer *writer, void *user) {
    (void)user;
    iqdb_result result = iq_snapshot_derive(writer, 0, 50, 4);
    if (result == IQDB_OK) result = iq_snapshot_write(writer, "made", 4);
    return result;
}

static void sections_made_from_others(void) {
    memory_sink sink;
    stage s;
    iq_snapshot_reader *reader;
    iq_snapshot_entry entry = entry_make();
    iq_sink target;
    allocator = iq_alloc_default();
    memset(&sink, 0, sizeof sink);
    sink.blob.allocator = &allocator;
    target.write_fn = sink_write;
    target.user = &sink;
    CHECK_EQ_INT(snapshot_by(&target, &allocator, uuid, &entry, derive_one, NULL), IQDB_OK);
    stage_make(&s);
    CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size));
    CHECK_EQ_INT(iq_snapshot_open(&s.volume, uuid, &entry, &reader), IQDB_OK);
    CHECK_EQ_INT(iq_snapshot_pass_over(reader, 0, 50), IQDB_OK);
    iq_snapshot_close(reader);
    stage_free(&s);
    iq_blob_free(&sink.blob);
}

/* ---- Packed ---- */

static size_t drop_zeros(const void *bytes, size_t size, void *out, size_t capacity, void *user) {
    (void)user;
    while (size > 1 && ((const uint8_t *)bytes)[size - 1] == 0) size--;
    if (size > capacity) return 0;
    memcpy(out, bytes, size);
    return size;
}

static bool bring_zeros(const void *packed, size_t packed_size, void *out, size_t size, void *user) {
    (void)user;
    if (packed_size > size) return false;
    memcpy(out, packed, packed_size);
    memset((uint8_t *)out + packed_size, 0, size - packed_size);
    return true;
}

/* Whatever fails while a section is packed is the outcome, and what is packed comes back. */
static void packing_meets_faults(void) {
    static const iqdb_codec codec = {"zeros", drop_zeros, bring_zeros, NULL};
    static uint8_t plain[200000], back[sizeof plain];
    for (size_t i = 0; i < sizeof plain; i++) plain[i] = i % 70000 < 50000 ? (uint8_t)(i * 7 + 1) : 0;
    memset(plain + 150000, 0, 50000); /* the last 50,000 bytes are written as zeros */
    allocator = iq_alloc_default();
    size_t struck = 0;
    for (int way = 0; way < 3; way++) { /* memory, or space; or an end before the section's */
        bool hit = true;
        for (size_t n = 1; hit; n++) {
            support_heap heap = support_heap_make();
            memory_sink out;
            iq_snapshot_writer *writer;
            iq_snapshot_entry entry = entry_make();
            stage s;
            stage_make(&s);
            memset(&out, 0, sizeof out);
            out.blob.allocator = &allocator;
            out.fail_behind = way == 1 ? n * 40000 : 0;
            const iq_sink sink = {sink_write, &out};
            s.volume.allocator = support_allocator(&heap);
            s.volume.codecs = &codec;
            s.volume.codec_count = 1;
            heap.fail_at = way == 0 ? n : 0;
            iqdb_result result = iq_snapshot_begin(&sink, &s.volume, uuid, &entry, &writer);
            if (result == IQDB_OK) {
                (void)iq_snapshot_section(writer, 0, IQ_SECTION_PAYLOADS, sizeof plain);
                (void)iq_snapshot_pack(writer);
                for (size_t at = 0; at < 150000; at += 7500) (void)iq_snapshot_write(writer, plain + at, 7500);
                if (way < 2) (void)iq_snapshot_write(writer, NULL, 50000);
            }
            result = iq_snapshot_end(writer, result, &entry);
            hit = way == 0 ? heap.failed > 0 : result == IQDB_ERR_NOSPACE;
            struck += hit;
            heap.fail_at = 0;
            CHECK_EQ_INT(result, way == 2 ? IQDB_ERR_INVALID_ARGUMENT
                                 : !hit   ? IQDB_OK
                                 : way    ? IQDB_ERR_NOSPACE
                                          : IQDB_ERR_NOMEM);
            if (result == IQDB_OK) {
                iq_snapshot_reader *reader;
                uint64_t size;
                CHECK(out.blob.size < 65536 + 170000); /* which begins at a multiple of 64 KiB */
                CHECK(fault_store(s.disk, "db", "snap-7", out.blob.bytes, out.blob.size));
                CHECK_EQ_INT(iq_snapshot_open(&s.volume, uuid, &entry, &reader), IQDB_OK);
                CHECK(iq_snapshot_find(reader, 0, IQ_SECTION_PAYLOADS, &size) && size == sizeof plain);
                CHECK(iq_snapshot_view(reader, 0, IQ_SECTION_PAYLOADS) == NULL);
                CHECK_EQ_INT(iq_snapshot_read(reader, 0, IQ_SECTION_PAYLOADS, 0, back, sizeof back), IQDB_OK);
                CHECK(memcmp(plain, back, sizeof plain) == 0);
                iq_snapshot_close(reader);
                heap.fail_at = 3; /* the unpacker, behind what the reader needs */
                CHECK_EQ_INT(iq_snapshot_open(&s.volume, uuid, &entry, &reader), IQDB_OK);
                CHECK_EQ_INT(iq_snapshot_read(reader, 0, IQ_SECTION_PAYLOADS, 0, back, 10), IQDB_ERR_NOMEM);
                CHECK_EQ_INT(iq_snapshot_read(reader, 0, IQ_SECTION_PAYLOADS, 0, back, 10), IQDB_ERR_NOMEM);
                iq_snapshot_close(reader);
                heap.fail_at = 0;
            }
            CHECK_EQ_INT(support_heap_problems(&heap), 0);
            iq_blob_free(&out.blob);
            s.volume.allocator = allocator;
            stage_free(&s);
        }
    }
    CHECK(struck > 5);
}

/* ---- Salvage ---- */

/* Of a file without its footer, what is written tells where sections were; of one without its middle, nothing does. */
static void what_is_left_is_read(void) {
    content all;
    memory_sink sink;
    iq_snapshot_entry entry, found;
    stage s;
    iq_snapshot_reader *reader;
    uint8_t bytes[256];
    small_one(&all, &entry, &sink);
    const size_t size = sink.blob.size;
    stage_make(&s);
    sink.blob.bytes[size - 1] ^= 1;
    CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, size));
    CHECK_EQ_INT(iq_snapshot_salvage(&s.volume, uuid, 7, &entry, &found, &reader), IQDB_OK);
    CHECK(!iq_snapshot_is_whole(reader) && found.lsn == entry.lsn);
    CHECK(iq_snapshot_peek(reader, bytes, 100) && memcmp(bytes, all.sections[0].bytes, 100) == 0);
    const uint64_t rest = iq_snapshot_rest(reader, 0);
    CHECK_EQ_U64(rest, 2 * 8192 - 64);
    CHECK_EQ_U64(iq_snapshot_rest(reader, 1u << 30), rest); /* more zeros than there are bytes */
    iq_snapshot_assume(reader, 0, 1, 100);
    CHECK_EQ_INT(iq_snapshot_read(reader, 0, 1, 0, bytes, 100), IQDB_OK);
    CHECK(memcmp(bytes, all.sections[0].bytes, 100) == 0);
    iq_snapshot_assume(reader, 0, 2, rest); /* more than is left */
    CHECK_EQ_INT(iq_snapshot_read(reader, 0, 2, 0, bytes, 1), IQDB_ERR_CORRUPT);
    iq_snapshot_assume(reader, 0, 2, 1u << 20); /* whose place would be behind the end */
    CHECK_EQ_INT(iq_snapshot_read(reader, 0, 2, 0, bytes, 1), IQDB_ERR_CORRUPT);
    iq_snapshot_assume(reader, 0, 2, 9000);
    for (uint32_t i = 3; i < 20; i++) iq_snapshot_assume(reader, 0, i, 0); /* more than it may assume */
    CHECK_EQ_INT(iq_snapshot_read(reader, 0, 8, 0, bytes, 0), IQDB_OK);
    uint64_t none;
    CHECK(iq_snapshot_find(reader, 0, 8, &none) && !iq_snapshot_find(reader, 0, 9, &none));
    iq_snapshot_assume(reader, 0, 21, iq_snapshot_rest(reader, 0));
    CHECK(!iq_snapshot_peek(reader, bytes, 9000));
    iq_snapshot_close(reader);
    /* A damaged block shows nothing. */
    sink.blob.bytes[IQ_SNAPSHOT_HEADER_SIZE] ^= 1;
    CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, size));
    CHECK_EQ_INT(iq_snapshot_salvage(&s.volume, uuid, 7, &entry, &found, &reader), IQDB_OK);
    CHECK(!iq_snapshot_peek(reader, bytes, 100));
    CHECK_EQ_U64(iq_snapshot_rest(reader, 0), rest);
    iq_snapshot_close(reader);
    sink.blob.bytes[IQ_SNAPSHOT_HEADER_SIZE] ^= 1;
    /* Too short for a block, for a footer, or for half of what it was. */
    static const size_t cuts[] = {0, 50, 100, 8191, 8192};
    for (size_t i = 0; i < 5; i++) {
        CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, cuts[i]));
        CHECK_EQ_INT(iq_snapshot_salvage(&s.volume, uuid, 7, NULL, &found, &reader), IQDB_ERR_CORRUPT);
        CHECK(reader == NULL);
    }
    CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, 4000));
    CHECK_EQ_INT(iq_snapshot_salvage(&s.volume, uuid, 7, &entry, &found, &reader), IQDB_ERR_CORRUPT);
    CHECK_EQ_INT(iq_snapshot_salvage(&s.volume, uuid, 8, &entry, &found, &reader), IQDB_ERR_CORRUPT);
    stage_free(&s);
    iq_blob_free(&sink.blob);
    drop(&all);
}

/* What lies at once behind the section before is less than large, whatever follows; what lies behind zeros is all. */
static void the_rest_is_large_or_not(void) {
    for (int small = 0; small < 2; small++) {
        content all;
        memory_sink sink;
        iq_snapshot_entry entry = entry_make(), found;
        stage s;
        iq_snapshot_reader *reader;
        memset(&all, 0, sizeof all);
        memset(&sink, 0, sizeof sink);
        allocator = iq_alloc_default();
        add(&all, 0, 1, 64);
        if (small) add(&all, 0, 2, 1000);
        add(&all, 0, 3, 100000);
        all.chunk = 5000;
        if (small) all.sections[1].bytes[0] = 1;
        CHECK_EQ_INT(produce(&all, &entry, &sink), IQDB_OK);
        stage_make(&s);
        sink.blob.bytes[sink.blob.size - 1] ^= 1;
        CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size));
        CHECK_EQ_INT(iq_snapshot_salvage(&s.volume, uuid, 7, &entry, &found, &reader), IQDB_OK);
        iq_snapshot_assume(reader, 0, 1, 64);
        const uint64_t rest = iq_snapshot_rest(reader, 0);
        CHECK(small ? rest == IQ_SNAPSHOT_LARGE - 1 : rest >= 100000);
        iq_snapshot_assume(reader, 0, 2, rest);
        uint8_t bytes[1000];
        CHECK_EQ_INT(iq_snapshot_read(reader, 0, 2, 0, bytes, sizeof bytes), IQDB_OK);
        CHECK(memcmp(bytes, all.sections[1].bytes, sizeof bytes) == 0);
        iq_snapshot_close(reader);
        stage_free(&s);
        iq_blob_free(&sink.blob);
        drop(&all);
    }
}

static bool identify(stage *s, uint64_t number, uint8_t *seen, bool *has_uuid, iq_snapshot_entry *out_entry) {
    bool is_ours;
    EXPECT(iq_snapshot_identify(&s->volume, number, seen, has_uuid, out_entry, &is_ours) == IQDB_OK);
    return is_ours;
}

/* A later version is not salvaged as if it were ours; another database's file is no part of this one. */
static void what_is_not_ours(void) {
    static const uint8_t others[IQ_UUID_SIZE] = {99};
    content all;
    memory_sink sink;
    iq_snapshot_entry entry, found;
    stage s;
    iq_snapshot_reader *reader;
    uint8_t seen[IQ_UUID_SIZE];
    bool has_uuid = false;
    small_one(&all, &entry, &sink);
    stage_make(&s);
    CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size));
    CHECK_EQ_INT(iq_snapshot_salvage(&s.volume, others, 7, NULL, &found, &reader), IQDB_ERR_CORRUPT);
    CHECK(!identify(&s, 8, seen, &has_uuid, &found) && !has_uuid && found.lsn == IQ_NUMBER_MAX);
    CHECK(identify(&s, 7, seen, &has_uuid, &found) && has_uuid);
    CHECK(memcmp(seen, uuid, sizeof seen) == 0 && found.lsn == entry.lsn && found.root == entry.root);
    memcpy(seen, others, sizeof seen);
    CHECK(!identify(&s, 7, seen, &has_uuid, &found));
    has_uuid = false;
    sink.blob.bytes[40] ^= 1; /* of the header: whose LSNs stand nowhere else */
    CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size));
    CHECK(identify(&s, 7, seen, &has_uuid, &found) && found.lsn == IQ_NUMBER_MAX);
    uint8_t *footer = sink.blob.bytes + sink.blob.size - IQ_FOOTER_SIZE;
    iq_put_u32(footer + IQ_PAGE_VERSION_AT, 2);
    iq_put_u32(footer + IQ_PAGE_CRC_AT, iq_crc32(iq_crc32(0, footer, 8), footer + 12, IQ_FOOTER_SIZE - 12));
    CHECK(fault_store(s.disk, "db", "snap-7", sink.blob.bytes, sink.blob.size));
    CHECK_EQ_INT(iq_snapshot_salvage(&s.volume, uuid, 7, NULL, &found, &reader), IQDB_ERR_VERSION);
    CHECK(!identify(&s, 7, seen, &has_uuid, &found));
    /* A footer alone, of a file without blocks. */
    iq_put_u32(footer + IQ_PAGE_VERSION_AT, 1);
    iq_put_u64(footer + IQ_FOOTER_BLOCKS_AT, 0);
    iq_put_u32(footer + IQ_PAGE_CRC_AT, iq_crc32(iq_crc32(0, footer, 8), footer + 12, IQ_FOOTER_SIZE - 12));
    entry.size_bytes = IQ_FOOTER_SIZE;
    CHECK(fault_store(s.disk, "db", "snap-7", footer, IQ_FOOTER_SIZE));
    CHECK_EQ_INT(iq_snapshot_open(&s.volume, uuid, &entry, &reader), IQDB_ERR_CORRUPT);
    CHECK_EQ_INT(iq_snapshot_salvage(&s.volume, uuid, 7, &entry, &found, &reader), IQDB_ERR_CORRUPT);
    stage_free(&s);
    iq_blob_free(&sink.blob);
    drop(&all);
}

/* Each read and each allocation of a salvage fails: memory ends it, all else is damage like any other. */
static void salvage_meets_faults(void) {
    content all;
    memory_sink sink;
    iq_snapshot_entry entry, found;
    stage s;
    iq_snapshot_reader *reader;
    size_t struck = 0;
    allocator = iq_alloc_default();
    map_make(&s, &all, &entry, &sink); /* more than one block of checksums */
    CHECK_EQ_INT(iq_snapshot_salvage(&s.volume, uuid, 7, &entry, &found, &reader), IQDB_OK);
    CHECK(iq_snapshot_is_whole(reader));
    iq_snapshot_close(reader);
    for (int memory = 0; memory < 2; memory++) {
        for (size_t n = 1; n < 3000; n = n < 8 ? n + 1 : n * 3) {
            s.disk->failed = 0;
            fault_fail_nth(s.disk, FAULT_READ | FAULT_OPEN | FAULT_SIZE, n, memory ? IQDB_ERR_NOMEM : IQDB_ERR_IO,
                           false);
            const iqdb_result result = iq_snapshot_salvage(&s.volume, uuid, 7, &entry, &found, &reader);
            struck += s.disk->failed;
            if (s.disk->failed == 0) CHECK_EQ_INT(result, IQDB_OK);
            /* Whoever reads a footer or a header takes any failure for damage. */
            if (s.disk->failed > 0 && n < 3) CHECK_EQ_INT(result, memory ? IQDB_ERR_NOMEM : IQDB_ERR_IO);
            if (s.disk->failed > 0 && n == 100 && memory) CHECK_EQ_INT(result, IQDB_ERR_NOMEM);
            if (result == IQDB_OK && s.disk->failed > 0)
                CHECK(!iq_snapshot_is_whole(reader) || found.lsn == IQ_NUMBER_MAX);
            iq_snapshot_close(reader);
            CHECK_EQ_U64(s.disk->open_files, 0);
        }
    }
    CHECK(struck > 10);
    fault_fail_nth(s.disk, 0, 0, IQDB_OK, false);
    for (size_t n = 1; n < 3; n++) {
        support_heap heap = support_heap_make();
        s.volume.allocator = support_allocator(&heap);
        heap.fail_at = n;
        CHECK_EQ_INT(iq_snapshot_salvage(&s.volume, uuid, 7, &entry, &found, &reader), IQDB_ERR_NOMEM);
        CHECK_EQ_INT(support_heap_problems(&heap), 0);
    }
    stage_free(&s);
    iq_blob_free(&sink.blob);
    drop(&all);
}

/* ---- Maps ---- */

static bool touch_all(const iq_snapshot_reader *reader, const content *all, size_t step, size_t *out_bad) {
    bool same = true;
    *out_bad = 0;
    for (size_t i = 0; i < all->count; i++) {
        const section *want = &all->sections[i];
        const uint8_t *bytes = iq_snapshot_view(reader, want->collection, want->kind);
        for (size_t at = 0; at < want->size; at += step) {
            const size_t size = want->size - at < step ? want->size - at : step;
            uint64_t where = 0;
            if (iq_snapshot_touch(reader, bytes + at, size, &where) != IQDB_OK)
                ++*out_bad;
            else
                same = same && memcmp(bytes + at, want->bytes + at, size) == 0;
        }
    }
    return same;
}

/* Wherever a bit flips: open finds it, or whoever touches the block does, each time; nobody else minds. */
static void a_map_is_checked_where_it_is_touched(void) {
    content all;
    iq_snapshot_entry entry;
    memory_sink sink;
    stage s;
    iq_snapshot_reader *reader;
    uint64_t state = 5;
    size_t bad, refused = 0, found = 0, harmless = 0;
    allocator = iq_alloc_default();
    map_make(&s, &all, &entry, &sink);
    CHECK_EQ_INT(iq_snapshot_open_mapped(&s.volume, uuid, &entry, &reader), IQDB_OK);
    CHECK(touch_all(reader, &all, 1000, &bad) && bad == 0);
    uint64_t where = 0; /* what lies elsewhere is no matter of it, and what is no block is nobody's */
    CHECK_EQ_INT(iq_snapshot_touch(reader, sink.blob.bytes, 100, &where), IQDB_OK);
    const uint8_t *begin =
        iq_snapshot_view(reader, 0, 1) - iq_snapshot_offset_of(reader, iq_snapshot_view(reader, 0, 1));
    CHECK_EQ_U64(iq_snapshot_offset_of(reader, begin), 0);
    CHECK_EQ_INT(iq_snapshot_touch(reader, begin, 0, &where), IQDB_OK);
    const uintptr_t at_begin = (uintptr_t)begin, outside[2] = {at_begin - 1, at_begin + iq_snapshot_size(reader)};
    for (int i = 0; i < 2; i++) CHECK_EQ_U64(iq_snapshot_offset_of(reader, (const void *)outside[i]), IQ_NUMBER_MAX);
    CHECK(iq_snapshot_view(reader, 0, 9) == NULL);
    iq_snapshot_forgive(reader, 0, 2); /* a map is checked where it is touched anyway */
    CHECK_EQ_INT(iq_snapshot_touch(reader, iq_snapshot_view(reader, 0, 1), iq_snapshot_size(reader) - 4096, &where),
                 IQDB_ERR_CORRUPT);
    CHECK_EQ_INT(iq_snapshot_check(reader), IQDB_OK);
    iq_snapshot_close(reader);
    const size_t size = sink.blob.size, places = support_amount(60, 300, 3000);
    for (size_t i = 0; i < places; i++) {
        const size_t at = i % 3 == 0 ? size - 1 - (size_t)support_random_below(&state, 24000)
                                     : (size_t)support_random_below(&state, size);
        uint8_t byte = sink.blob.bytes[at] ^ 16;
        CHECK(fault_poke(s.disk, "db", "snap-7", at, &byte, 1));
        const iqdb_result result = iq_snapshot_open_mapped(&s.volume, uuid, &entry, &reader);
        CHECK(result == IQDB_OK || (result == IQDB_ERR_CORRUPT && reader == NULL));
        refused += result != IQDB_OK;
        if (result == IQDB_OK) {
            size_t again;
            CHECK(touch_all(reader, &all, 8192, &bad));
            CHECK(touch_all(reader, &all, 8192, &again) && again == bad);
            found += bad > 0;
            harmless += bad == 0;
            iq_snapshot_close(reader);
        }
        byte = sink.blob.bytes[at];
        CHECK(fault_poke(s.disk, "db", "snap-7", at, &byte, 1));
    }
    printf(" %zu refused, %zu found, %zu in nothing", refused, found, harmless);
    CHECK(refused > 0 && found > places / 2);
    CHECK_EQ_U64(s.disk->open_maps, 0);
    CHECK_EQ_U64(s.disk->open_files, 0);
    entry.size_bytes--;
    CHECK_EQ_INT(iq_snapshot_open_mapped(&s.volume, uuid, &entry, &reader), IQDB_ERR_CORRUPT);
    entry.size_bytes++;
    entry.number++;
    CHECK_EQ_INT(iq_snapshot_open_mapped(&s.volume, uuid, &entry, &reader), IQDB_ERR_CORRUPT);
    entry.number--;
    s.volume.files.map_fn = NULL;
    CHECK_EQ_INT(iq_snapshot_open_mapped(&s.volume, uuid, &entry, &reader), IQDB_ERR_NOT_IMPLEMENTED);
    stage_free(&s);
    drop(&all);
    iq_blob_free(&sink.blob);
}

typedef struct toucher {
    const iq_snapshot_reader *reader;
    const content *all;
    pthread_t thread;
    size_t step, bad;
    bool same;
} toucher;

static void *touch_on(void *user) {
    toucher *t = (toucher *)user;
    t->same = touch_all(t->reader, t->all, t->step, &t->bad);
    return NULL;
}

/* Of the system's own files, and by several threads. */
static void threads_touch_at_once(void) {
    char folder[SUPPORT_PATH_MAX];
    content all;
    iq_snapshot_entry entry;
    memory_sink sink;
    stage s;
    iq_file file;
    iq_snapshot_reader *reader;
    static toucher touchers[4];
    allocator = iq_alloc_default();
    map_make(&s, &all, &entry, &sink);
    support_directory(folder);
    iq_volume volume = s.volume;
    volume.files = iqdb_files_default();
    CHECK_EQ_INT(iq_volume_open(&volume, folder, true), IQDB_OK);
    CHECK_EQ_INT(iq_file_open(&file, &volume, "snap-7", IQDB_OPEN_CREATE), IQDB_OK);
    CHECK_EQ_INT(iq_file_write(&file, 0, sink.blob.bytes, sink.blob.size), IQDB_OK);
    CHECK_EQ_INT(iq_file_write(&file, 9u << 20, "damage", 6), IQDB_OK);
    iq_file_close(&file);
    CHECK_EQ_INT(iq_snapshot_open_mapped(&volume, uuid, &entry, &reader), IQDB_OK);
    for (size_t i = 0; i < 4; i++) {
        touchers[i].reader = reader;
        touchers[i].all = &all;
        touchers[i].step = 8192;
        CHECK(pthread_create(&touchers[i].thread, NULL, touch_on, &touchers[i]) == 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(touchers[i].thread, NULL);
        CHECK(touchers[i].same);
        CHECK_EQ_U64(touchers[i].bad, 1);
    }
    iq_snapshot_close(reader);
    iq_volume_close(&volume);
    support_remove(folder);
    stage_free(&s);
    drop(&all);
    iq_blob_free(&sink.blob);
}

TEST_MAIN("persist/snapshot", TEST(sections_of_all_sizes_come_back), TEST(an_empty_one_and_one_of_many_blocks),
          TEST(every_byte_counts), TEST(blocks_that_changed_places), TEST(lies_with_valid_checksums),
          TEST(mistakes_of_the_caller), TEST(sinks_and_memory_fail), TEST(bytes_that_rot_after_they_were_read),
          TEST(a_map_is_checked_where_it_is_touched), TEST(threads_touch_at_once), TEST(snapshots_that_do_not_follow),
          TEST(sections_that_are_not_needed), TEST(sections_made_from_others), TEST(packing_meets_faults),
          TEST(what_is_left_is_read), TEST(the_rest_is_large_or_not), TEST(what_is_not_ours),
          TEST(salvage_meets_faults))
