/* Any bytes as what the original iqdb left. The first byte says whether as a directory of 0.4 or a file of 1.0, whether
 * to take frames behind damage, and whether checksums are made right first; the next two how much is the snapshot, and
 * the rest is the log. What cannot be read has to say why. Each row has to be in the database or in a report; and what
 * was imported, written as a snapshot of 0.4, has to import as the same again. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "../../tools/import/original.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
    if (!condition) abort();
}

static void count_report(const char *text, void *user) {
    require(text[0] != 0);
    ++*(size_t *)user;
}

static void store32(unsigned char *at, uint32_t number) {
    for (int i = 0; i < 4; i++) at[i] = (unsigned char)(number >> 8 * i);
}

/* Right checksums for as many frames as have a credible size. */
static void mend_frames(unsigned char *at, size_t size, bool newer) {
    span s = {at, at + size};
    uint64_t body;
    while (take_number(&s, 4, &body) && body + 4 <= (uint64_t)(s.end - s.at)) {
        unsigned char *from = at + (s.at - at);
        if (newer) store32(from, crc_of(from + 4, (size_t)body));
        if (!newer) store32(from + body, crc_of(from, (size_t)body));
        s.at += body + 4;
    }
}

static void mend(part *snapshot, part *log, bool newer) {
    if (newer && snapshot->size >= 50) { /* the name is iqdb-core */
        store32(snapshot->bytes + 46, crc_of(snapshot->bytes + 50, snapshot->size - 50));
    } else if (!newer && snapshot->size > 8) {
        mend_frames(snapshot->bytes + 8, snapshot->size - 8, false);
    }
    const size_t head = newer ? 12 : 0;
    if (log->size > head) mend_frames(log->bytes + head, log->size - head, newer);
}

static part part_of(const uint8_t *data, size_t size) {
    static char name[] = "input";
    part p = {name, (unsigned char *)room_for(NULL, size, 1), size};
    if (size > 0) memcpy(p.bytes, data, size);
    return p;
}

/* ---- Writing 0.4 ---- */

static void put(FILE *to, uint64_t number, size_t size) {
    for (size_t i = 0; i < size; i++) putc((int)(number >> 8 * i & 255), to);
}

static void put_bytes(FILE *to, const void *bytes, size_t size) {
    put(to, size, 4);
    if (size > 0) fwrite(bytes, 1, size, to);
}

static void put_fields(FILE *to, iqdb_value object);

static void put_value(FILE *to, iqdb_value v) { /* as deep as iqdb.h allows */
    uint64_t bits;
    memcpy(&bits, &v.as.real, sizeof bits);
    put(to, v.type, 1);
    if (v.type == IQDB_TYPE_BOOL) put(to, v.as.boolean, 1);
    if (v.type == IQDB_TYPE_INT) put(to, (uint64_t)v.as.integer, 8);
    if (v.type == IQDB_TYPE_FLOAT) put(to, bits, 8);
    if (v.type == IQDB_TYPE_TEXT) put_bytes(to, v.as.text.data, v.as.text.size);
    if (v.type == IQDB_TYPE_BYTES) put_bytes(to, v.as.bytes.data, v.as.bytes.size);
    if (v.type == IQDB_TYPE_OBJECT) put_fields(to, v);
    if (v.type != IQDB_TYPE_ARRAY) return;
    put(to, iqdb_value_count(v), 4);
    for (size_t i = 0; i < iqdb_value_count(v); i++) put_value(to, iqdb_value_at(v, i));
}

static void put_field(FILE *to, const iqdb_field *field) {
    put_bytes(to, field->key, strlen(field->key));
    put_value(to, field->value);
}

static void put_fields(FILE *to, iqdb_value object) {
    iqdb_field field;
    put(to, iqdb_value_count(object), 4);
    for (size_t i = 0; iqdb_value_field(object, i, &field); i++) put_field(to, &field);
}

static void put_record(FILE *to, const iqdb_record *record) {
    char *body = NULL;
    size_t size = 0;
    iqdb_field field;
    FILE *memory = open_memstream(&body, &size);
    require(memory != NULL);
    put(memory, 0, 1);
    put(memory, record->id, 8);
    put(memory, record->dim, 4);
    fwrite(record->vector, sizeof(float), record->dim, memory);
    put(memory, record->payload.bytes != NULL, 1);
    if (record->payload.bytes != NULL) put(memory, iqdb_payload_count(record->payload), 4);
    for (size_t i = 0; iqdb_payload_at(record->payload, i, &field); i++) put_field(memory, &field);
    fclose(memory);
    put_bytes(to, body, size);
    put(to, crc_of((const unsigned char *)body, size), 4);
    free(body);
}

/* ---- The round ---- */

static void require_same(iqdb *db, iqdb *again) {
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    require(iqdb_len(db) == iqdb_len(again));
    while (iqdb_iter_next(&iter)) {
        const iqdb_record *one = &iter.record;
        iqdb_record two;
        require(iqdb_get(again, one->id, &buffer, &two) == IQDB_OK);
        require(two.dim == one->dim && memcmp(one->vector, two.vector, one->dim * sizeof(float)) == 0);
        require((one->payload.bytes == NULL) == (two.payload.bytes == NULL) && one->payload.size == two.payload.size);
        require(one->payload.size == 0 || memcmp(one->payload.bytes, two.payload.bytes, one->payload.size) == 0);
    }
    require(iter.result == IQDB_OK);
    iqdb_iter_end(&iter);
    iqdb_buffer_free(&buffer);
}

static iqdb *import(original *o, uint32_t dim) {
    iqdb_options options = iqdb_options_default();
    iqdb *db;
    size_t written = 0;
    const size_t left = o->left;
    options.dim = dim;
    require(iqdb_open_in_memory(&options, &db) == IQDB_OK);
    require(original_import(o, db, dim, &written) == IQDB_OK);
    require(iqdb_len(db) == written && written <= o->count && written + (o->left - left) >= o->count);
    return db;
}

static void same_again(iqdb *db, uint32_t dim) {
    char *bytes = NULL;
    original o;
    part empty = part_of(NULL, 0);
    size_t reports = 0, size = 0;
    FILE *file = open_memstream(&bytes, &size);
    require(file != NULL);
    fwrite("IQDB\1\0\0\0", 1, 8, file);
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    while (iqdb_iter_next(&iter)) put_record(file, &iter.record);
    iqdb_iter_end(&iter);
    fclose(file);
    memset(&o, 0, sizeof o);
    o.report = count_report;
    o.user = &reports;
    o.log = empty;
    o.snapshot = part_of((const uint8_t *)bytes, size);
    free(bytes);
    require(original_read(&o));
    iqdb *again = import(&o, dim);
    require(reports == 0);
    require_same(db, again);
    require(iqdb_close(again) == IQDB_OK);
    original_free(&o);
    free(o.snapshot.bytes);
    free(empty.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    original o;
    size_t reports = 0;
    if (size < 3) return 0;
    const size_t most = size - 3, wanted = data[1] | (size_t)data[2] << 8, first = wanted < most ? wanted : most;
    memset(&o, 0, sizeof o);
    o.newer = (data[0] & 1) != 0;
    o.salvage = (data[0] & 2) != 0;
    o.report = count_report;
    o.user = &reports;
    o.snapshot = part_of(data + 3, first);
    o.log = part_of(data + 3 + first, most - first);
    if ((data[0] & 4) != 0) mend(&o.snapshot, &o.log, o.newer);
    const bool read = original_read(&o);
    require(read || o.error[0] != 0);
    const uint32_t dim = read ? original_dim(&o) : 0;
    if (dim > 0 && dim <= 4096) {
        iqdb *db = import(&o, dim);
        same_again(db, dim);
        require(iqdb_close(db) == IQDB_OK);
    }
    require(reports == o.left);
    original_free(&o);
    free(o.snapshot.bytes);
    free(o.log.bytes);
    return 0;
}
