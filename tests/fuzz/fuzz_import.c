/* Any bytes as a file of vectors. The first byte picks a format or leaves it to the content. Rows must be finite, of one
 * dimension, with valid payloads; what is refused must be refused with words; and rows must read the same again once they
 * were written as JSON lines and as CSV. */
#include "codec/payload.h"

#pragma GCC diagnostic ignored "-Wunused-function"
#include "../../tools/rows.h"

enum {
    ROWS = 64
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const volatile sig_atomic_t never = 0;

static void require(bool condition) {
    if (!condition) abort();
}

/* Rows of the first block; false where the bytes are refused. */
static bool read_block(const void *data, size_t size, const format *wanted, reader *r, block *b) {
    memset(r, 0, sizeof *r);
    memset(b, 0, sizeof *b);
    r->in.name = "input";
    r->in.stop = &never;
    r->in.bytes = (unsigned char *)malloc(size + 1);
    require(r->in.bytes != NULL);
    if (size > 0) memcpy(r->in.bytes, data, size);
    r->in.end = r->in.capacity = size;
    r->in.size = size;
    r->in.ended = true;
    r->rows = UNKNOWN;
    r->id_field = "id";
    r->vector_field = "vector";
    r->format = wanted;
    return reader_begin(r) != BAD && reader_fill(r, b, 5, ROWS) != BAD;
}

static void same_again(reader *r, const block *b, const char *name) {
    char *text = NULL;
    size_t size = 0;
    writer w;
    reader again;
    block read;
    memset(&w, 0, sizeof w);
    w.file = open_memstream(&text, &size);
    require(w.file != NULL);
    w.format = format_named(name);
    w.dim = r->dim;
    if (w.format->rules->begin != NULL) w.format->rules->begin(&w);
    for (size_t i = 0; i < b->count; i++) require(w.format->rules->put(&w, &b->records[i]));
    fclose(w.file);
    require(read_block(text, size, NULL, &again, &read));
    require(strcmp(again.format->name, name) == 0 && again.dim == r->dim && read.count == b->count);
    for (size_t i = 0; i < b->count; i++) {
        const iqdb_record *one = &b->records[i], *two = &read.records[i];
        require(one->id == two->id && memcmp(one->vector, two->vector, r->dim * sizeof(float)) == 0);
        require((one->payload.bytes == NULL) == (two->payload.bytes == NULL) && one->payload.size == two->payload.size);
        require(one->payload.size == 0 || memcmp(one->payload.bytes, two->payload.bytes, one->payload.size) == 0);
    }
    iqdb_buffer_free(&w.json);
    free(text);
    block_free(&read);
    reader_close(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    reader r;
    block b;
    if (size == 0) return 0;
    const bool read = read_block(data + 1, size - 1, data[0] < COUNT_OF(formats) ? &formats[data[0]] : NULL, &r, &b);
    require(read || r.error[0] != 0);
    for (size_t i = 0; i < b.count; i++) {
        require(b.records[i].dim == r.dim && iqdb_vector_check(b.records[i].vector, r.dim) == IQDB_OK);
        const iqdb_payload payload = b.records[i].payload;
        require(payload.bytes == NULL || iq_payload_validate(payload.bytes, payload.size) == IQDB_OK);
    }
    if (b.count > 0 && r.dim < 4096) same_again(&r, &b, "jsonl");
    if (b.count > 0 && r.dim < 4096) same_again(&r, &b, "csv");
    block_free(&b);
    reader_close(&r);
    return 0;
}
