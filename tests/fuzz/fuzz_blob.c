/* Any blob. The first byte says how: 1, the checksums are made right again; 2, the patches go to what is not data;
 * 4, the input is the blob itself. Else it is patches of three bytes to a sample: a place, and what is added there. */
#include "api.h"
#include "base/bytes.h"
#include "kernel/crc32.h"
#include "persist/format.h"
#include "support.h"

#define DIM 5u

static uint8_t sample[65536];
static size_t sample_size;

static void require(bool condition, const char *why) {
    if (condition) return;
    fprintf(stderr, "fuzz_blob: %s\n", why);
    abort();
}

static bool take(const void *bytes, size_t size, void *user) {
    (void)user;
    require(size <= sizeof sample - sample_size, "the sample is too large");
    memcpy(sample + sample_size, bytes, size);
    sample_size += size;
    return true;
}

static void make_sample(void) {
    iqdb *db = NULL;
    require(iqdb_open_in_memory(NULL, &db) == IQDB_OK, "no sample");
    for (uint64_t id = 0; id < 40; id++) {
        float vector[DIM] = {1.0f, 2.0f, (float)id, -1.0f, 0.5f};
        iqdb_field field;
        field.key = "text";
        field.value = iqdb_text_n("some words and some more", (size_t)id % 25);
        iqdb_record record = iqdb_record_default();
        record.id = id * 3;
        record.vector = vector;
        record.dim = DIM;
        if (id % 4 != 0) {
            record.fields = &field;
            record.field_count = 1;
        }
        require(iqdb_upsert(db, &record) == IQDB_OK, "no sample");
    }
    require(iqdb_export_blob(db, take, NULL) == IQDB_OK, "no sample");
    iqdb_close(db);
}

static void reseal(uint8_t *blob, size_t size) {
    uint8_t *footer = blob + size - IQ_FOOTER_SIZE;
    const size_t blocks = sample_size / IQ_SNAPSHOT_BLOCK - 1; /* of the sample: one block of table behind them */
    uint8_t *table = blob + blocks * IQ_SNAPSHOT_BLOCK, *roots = table + IQ_SNAPSHOT_BLOCK;
    iq_put_u32(blob + 8, iq_crc32(iq_crc32(0, blob, 8), blob + 12, IQ_SNAPSHOT_HEADER_SIZE - 12));
    for (size_t i = 0; i < blocks; i++)
        iq_put_u32(table + i * 4, iq_crc32(0, blob + i * IQ_SNAPSHOT_BLOCK, IQ_SNAPSHOT_BLOCK));
    iq_put_u32(roots, iq_crc32(0, table, IQ_SNAPSHOT_BLOCK));
    iq_put_u32(footer + IQ_FOOTER_ROOTS_CRC_AT, iq_crc32(0, roots, (size_t)(footer - roots)));
    iq_put_u32(footer + IQ_PAGE_CRC_AT, iq_crc32(iq_crc32(0, footer, 8), footer + 12, IQ_FOOTER_SIZE - 12));
}

/* All that a reader can do. */
static void use(iqdb *db, const iqdb_allocator *allocator) {
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_stats stats;
    iqdb_hit hits[7];
    size_t count, seen = 0;
    buffer.allocator = allocator;
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    while (iqdb_iter_next(&iter)) {
        iqdb_record record;
        seen++;
        require(iqdb_get(db, iter.record.id, &buffer, &record) == IQDB_OK, "a record cannot be got");
        require(iqdb_payload_count(record.payload) <= record.payload.size, "a payload is not one");
    }
    iqdb_iter_end(&iter);
    require(seen == iqdb_len(db), "another number of records");
    require(iqdb_stat(db, &stats) == IQDB_OK, "no facts");
    float *vector = (float *)calloc(stats.dim + 1u, sizeof(float));
    iqdb_query query = iqdb_query_default();
    query.vector = vector;
    query.dim = stats.dim;
    query.k = 7;
    query.flags = IQDB_WITH_PAYLOAD;
    query.buffer = &buffer;
    if (stats.dim > 0) require(iqdb_search(db, &query, hits, &count) == IQDB_OK, "no search");
    (void)iqdb_verify(db, IQDB_DEPTH_DEFAULT, NULL, NULL);
    free(vector);
    iqdb_buffer_free(&buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (sample_size == 0) make_sample();
    if (size < 1) return 0;
    const bool is_raw = (data[0] & 4) != 0;
    const size_t blob_size = is_raw ? size - 1 : sample_size;
    uint8_t *blob = (uint8_t *)malloc(blob_size + 1);
    memcpy(blob, is_raw ? data + 1 : sample, blob_size);
    const size_t from = data[0] & 2 ? sample_size - 512 : 0;
    for (size_t i = 1; i + 3 <= size && !is_raw; i += 3) {
        uint8_t *byte = blob + from + iq_get_u16(data + i) % (data[0] & 2 ? 512 : sample_size);
        *byte = (uint8_t)(*byte + data[i + 2]);
    }
    if ((data[0] & 1) != 0 && !is_raw) reseal(blob, blob_size);
    for (int way = 0; way < 2; way++) {
        support_heap heap = support_heap_make();
        iqdb_options options = iqdb_options_default();
        iqdb_error error;
        iqdb *db = NULL;
        options.allocator = support_allocator(&heap);
        options.error = &error;
        const iqdb_result result =
            way == 0 ? iqdb_open_blob(blob, blob_size, &options, &db) : iqdb_load_blob(blob, blob_size, &options, &db);
        require(result == IQDB_OK || result == IQDB_ERR_CORRUPT || result == IQDB_ERR_VERSION ||
                    (result == IQDB_ERR_INVALID_CONFIG && strstr(error.text, "index_ops") != NULL),
                "an undocumented code");
        require(error.code == result && (result == IQDB_OK || error.offset <= blob_size),
                "another code in the details");
        require(heap.peak_bytes <= 2 * blob_size + 262144, "too much memory");
        if (result == IQDB_OK) use(db, &options.allocator);
        iqdb_close(db);
        require(support_heap_problems(&heap) == 0, "memory leaked");
    }
    free(blob);
    return 0;
}
