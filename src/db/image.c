/* The sections of a collection in a snapshot: written from the rows that one LSN sees, loaded into empty memory, or
 * used where they lie.
 *
 * 1. Rows come in the order of memory without the dead, so the same history gives the same bytes.
 * 2. Sections are laid out as memory is (stride, block sizes of the heap), little-endian.
 * 3. Loading trusts no number: sizes must agree with the row count exactly, payload blocks must follow one another
 *    without gap, ids must differ, vectors must be finite and padded with zeros. */
#include "codec/payload.h"
#include "db/db.h"
#include "persist/sections.h"

#define IQ_IMAGE_READ 262144u /* bytes of vectors read at a time: the largest one, and half of many a near cache */
#define IQ_IMAGE_AHEAD 16u    /* rows, until the place of an id is there */

/* The sections that have something of every row. */
static const uint32_t iq_image_kinds[] = {IQ_SECTION_IDS, IQ_SECTION_VECTORS, IQ_SECTION_NORMS,
                                          IQ_SECTION_PAYLOAD_REFS};

static size_t iq_image_row_size(const iqdb *db, uint32_t kind) {
    if (kind == IQ_SECTION_VECTORS) return db->records.rows.stride * sizeof(float);
    return kind == IQ_SECTION_NORMS ? 4 : 8;
}

/* ---- Writing ---- */

/* Moves *row to the first row of the image from there on; NULL at the end. */
static const iq_slab *iq_image_row(const iq_image *image, uint32_t *row, uint32_t *out_index) {
    for (; *row < image->row_end; ++*row) {
        const iq_slab *slab = iq_rows_slab(&image->db->records.rows, *row, out_index);
        if (iq_row_visible(slab, *out_index, image->moment)) return slab;
    }
    return NULL;
}

IQ_FN iq_image iq_image_take(iqdb *db) {
    iq_image image = {db, db->records.lsn, db->records.epoch.moment, db->records.rows.count, 0};
    uint32_t index;
    for (uint32_t row = 0; iq_image_row(&image, &row, &index) != NULL; row++) image.count++;
    return image;
}

/* What a section has of one row. *cursor: where the next payload block lies in IQ_SECTION_PAYLOADS. Errors of the writer
 * are sticky, so only the last one is looked at. */
static iqdb_result iq_image_write_row(const iq_image *image, iq_snapshot_writer *writer, uint32_t kind,
                                      const iq_slab *slab, uint32_t index, uint64_t *cursor) {
    const iq_rows *rows = &image->db->records.rows;
    const void *vector = slab->vectors + index * rows->stride;
    const uint64_t ref =
        kind >= IQ_SECTION_PAYLOAD_REFS ? slab->heads[index].payload : 0; /* the heap is dear to look at */
    const iqdb_payload payload = iq_heap_payload(&image->db->records.heap, ref);
    const uint64_t block_size = payload.bytes == NULL ? 0 : iq_heap_block_size(payload.size);
    uint8_t number[8];
    switch (kind) {
    case IQ_SECTION_IDS:
        iq_put_u64(number, slab->heads[index].id);
        return iq_snapshot_write(writer, number, 8);
    case IQ_SECTION_NORMS:
        iq_put_u32(number, iq_f32_bits(slab->norms[index]));
        return iq_snapshot_write(writer, number, 4);
    case IQ_SECTION_VECTORS:
        if (IQ_BIG_ENDIAN) {
            iq_copy_words_le(image->db->encoded.bytes, vector, rows->stride);
            vector = image->db->encoded.bytes;
        }
        return iq_snapshot_write(writer, vector, rows->stride * sizeof(float));
    case IQ_SECTION_PAYLOAD_REFS:
        iq_put_u64(number, payload.bytes == NULL ? 0 : *cursor);
        *cursor += block_size;
        return iq_snapshot_write(writer, number, 8);
    default: /* IQ_SECTION_PAYLOADS */
        if (payload.bytes == NULL) return IQDB_OK;
        iq_put_u32(number, (uint32_t)payload.size);
        (void)iq_snapshot_write(writer, number, 4);
        (void)iq_snapshot_write(writer, payload.bytes, payload.size);
        return iq_snapshot_write(writer, NULL, (size_t)block_size - 4 - payload.size);
    }
}

static iqdb_result iq_image_write_rows(const iq_image *image, iq_snapshot_writer *writer, uint32_t kind,
                                       uint64_t *out_payload_end) {
    const iq_slab *slab;
    uint32_t index;
    iqdb_result result = IQDB_OK;
    *out_payload_end = IQ_HEAP_FIRST_REF;
    for (uint32_t row = 0; result == IQDB_OK && (slab = iq_image_row(image, &row, &index)) != NULL; row++)
        result = iq_image_write_row(image, writer, kind, slab, index, out_payload_end);
    return result;
}

IQ_FN iqdb_result iq_image_write(iq_snapshot_writer *writer, void *user) {
    const iq_image *image = (const iq_image *)user;
    iqdb *db = image->db;
    uint8_t catalog[IQ_CATALOG_SIZE] = {0};
    uint64_t payload_end = IQ_HEAP_FIRST_REF;
    iq_put_u32(catalog + IQ_CATALOG_DIM, db->records.rows.dim);
    iq_put_u32(catalog + IQ_CATALOG_METRIC, (uint32_t)db->metric);
    iq_put_u64(catalog + IQ_CATALOG_ROWS, image->count);
    (void)iq_snapshot_section(writer, 0, IQ_SECTION_CATALOG, sizeof catalog);
    iqdb_result result = iq_snapshot_write(writer, catalog, sizeof catalog);
    db->encoded.size = 0;
    if (IQ_BIG_ENDIAN && result == IQDB_OK)
        result = iq_blob_reserve(&db->encoded, iq_image_row_size(db, IQ_SECTION_VECTORS));
    for (size_t i = 0; i < IQ_COUNT_OF(iq_image_kinds) && image->count > 0 && result == IQDB_OK; i++) {
        result =
            iq_snapshot_section(writer, 0, iq_image_kinds[i], image->count * iq_image_row_size(db, iq_image_kinds[i]));
        if (result == IQDB_OK) result = iq_image_write_rows(image, writer, iq_image_kinds[i], &payload_end);
    }
    /* The last of those were the references: now it is known how many bytes they lead to. */
    if (payload_end == IQ_HEAP_FIRST_REF || result != IQDB_OK) return result;
    (void)iq_snapshot_section(writer, 0, IQ_SECTION_PAYLOADS, payload_end);
    (void)iq_snapshot_write(writer, NULL, IQ_HEAP_FIRST_REF);
    return iq_image_write_rows(image, writer, IQ_SECTION_PAYLOADS, &payload_end);
}

IQ_FN iqdb_result iq_image_to_directory(iqdb *db, const char *path, const uint8_t *uuid, uint64_t lsn) {
    const iq_directory_config config = iq_db_config(db);
    iq_image image = iq_image_take(db);
    const iq_directory_content content = {uuid, lsn, iq_image_write, &image};
    return iq_directory_make(path, &config, &content);
}

/* ---- Loading ---- */

typedef struct iq_image_loader {
    iqdb *db;
    iq_snapshot_reader *reader;
    uint64_t rows;
    bool in_place;
    uint64_t payload_size;   /* of the section */
    uint64_t payload_cursor; /* where the next block must start */
} iq_image_loader;

/* Sizes of all sections against the row count. */
static iqdb_result iq_image_check_sizes(iq_image_loader *loader) {
    for (size_t i = 0; i < IQ_COUNT_OF(iq_image_kinds); i++) {
        const uint32_t kind = iq_image_kinds[i];
        const uint64_t row_size = iq_image_row_size(loader->db, kind);
        uint64_t size;
        if (!iq_snapshot_find(loader->reader, 0, kind, &size))
            return iq_snapshot_reject(loader->reader, 0, IQ_SECTION_CATALOG, 0,
                                      "a section of the collection is missing");
        if (size / row_size != loader->rows || size % row_size != 0)
            return iq_snapshot_reject(loader->reader, 0, kind, 0, "the section has another size than its rows");
    }
    return IQDB_OK;
}

/* The bytes of a section in place, or NULL where they are to be copied. They are only read. */
static uint8_t *iq_image_view(const iq_image_loader *loader, uint32_t kind) {
    union {
        const uint8_t *theirs;
        uint8_t *ours;
    } bytes;
    bytes.theirs = loader->in_place ? iq_snapshot_view(loader->reader, 0, kind) : NULL;
    return bytes.ours;
}

static iqdb_result iq_image_load_payload_bytes(iq_image_loader *loader) {
    uint64_t size;
    loader->payload_cursor = IQ_HEAP_FIRST_REF;
    if (!iq_snapshot_find(loader->reader, 0, IQ_SECTION_PAYLOADS, &size)) return IQDB_OK;
    if (size < IQ_HEAP_FIRST_REF)
        return iq_snapshot_reject(loader->reader, 0, IQ_SECTION_PAYLOADS, 0, "the section is too short");
    if (size > (size_t)-1 / 4) return IQDB_ERR_NOMEM;
    loader->payload_size = size;
    uint8_t *bytes = iq_image_view(loader, IQ_SECTION_PAYLOADS);
    if (bytes != NULL) return iq_heap_borrow(&loader->db->records.heap, bytes, (size_t)size);
    const iqdb_result result = iq_heap_adopt(&loader->db->records.heap, (size_t)size, &bytes);
    if (result != IQDB_OK) return result;
    return iq_snapshot_read(loader->reader, 0, IQ_SECTION_PAYLOADS, 0, bytes, (size_t)size);
}

/* A row's payload: the block that follows the one before. Its length becomes a native number. */
static iqdb_result iq_image_check_payload(iq_image_loader *loader, uint64_t ref) {
    if (ref == 0) return IQDB_OK;
    const uint64_t room = loader->payload_size - loader->payload_cursor;
    if (ref == loader->payload_cursor && loader->payload_cursor < loader->payload_size && room >= 8) {
        const uint8_t *block = (const uint8_t *)iq_heap_payload(&loader->db->records.heap, ref).bytes - 4;
        const uint32_t size = iq_get_u32(block);
        if (size <= room - 4 && iq_heap_block_size(size) <= room && iq_payload_validate(block + 4, size) == IQDB_OK) {
            if (IQ_BIG_ENDIAN) iq_heap_fix_size(&loader->db->records.heap, ref, size);
            loader->payload_cursor += iq_heap_block_size(size);
            return IQDB_OK;
        }
    }
    return iq_snapshot_reject(loader->reader, 0, IQ_SECTION_PAYLOADS, loader->payload_cursor,
                              "a payload is malformed or out of place");
}

static iqdb_result iq_image_check_row(iq_image_loader *loader, const iq_slab *slab, uint32_t index, uint32_t row) {
    iqdb *db = loader->db;
    const float *vector = slab->vectors + index * db->records.rows.stride;
    /* A norm may be infinite (components near FLT_MAX), but neither NaN nor negative. */
    bool sound = iq_vector_is_finite(db->records.kernel, vector, db->records.rows.dim) &&
                 iq_f32_bits(slab->norms[index]) <= 0x7F800000u;
    for (size_t i = db->records.rows.dim; i < db->records.rows.stride; i++)
        sound = sound && iq_f32_bits(vector[i]) == 0;
    if (!sound)
        return iq_snapshot_reject(loader->reader, 0, IQ_SECTION_VECTORS,
                                  (uint64_t)row * db->records.rows.stride * sizeof(float), "a vector is not one");
    const uint64_t id = slab->heads[index].id;
    uint32_t twin;
    uint64_t *place = iq_ids_place(&db->records.ids, &db->records.rows, id, &twin);
    if (twin != IQ_ROW_NONE)
        return iq_snapshot_reject(loader->reader, 0, IQ_SECTION_IDS, (uint64_t)row * 8, "an id stands twice");
    iq_ids_put(&db->records.ids, place, id, row);
    iq_rows_set_filled(slab, index, true);
    db->records.live_count++;
    return iq_image_check_payload(loader, slab->heads[index].payload);
}

/* `width` floats of each row. */
static iqdb_result iq_image_read_floats(iq_image_loader *loader, uint32_t kind, uint64_t first, uint32_t count,
                                        size_t width, float *out) {
    const size_t row_size = width * sizeof(float);
    const iqdb_result result = iq_snapshot_read(loader->reader, 0, kind, first * row_size, out, count * row_size);
    if (IQ_BIG_ENDIAN && result == IQDB_OK) iq_copy_words_le(out, out, count * width);
    return result;
}

/* The heads of rows, from their ids and payload references in the file's byte order. */
static void iq_image_fill_heads(iq_row_head *heads, const uint8_t *ids, const uint8_t *payloads, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        heads[i].id = iq_get_u64(ids + (size_t)i * 8);
        heads[i].payload = iq_get_u64(payloads + (size_t)i * 8);
        heads[i].birth = 0;
        heads[i].death = IQ_MOMENT_NEVER;
        heads[i].previous = heads[i].next = IQ_ROW_NONE;
    }
}

/* Heads and norms of the rows [first, first + count), which are the first ones of a new slab. What the heads are made of
 * waits where the vectors will be: none of those is smaller. */
static iqdb_result iq_image_load_heads(iq_image_loader *loader, size_t slab_number, uint32_t first, uint32_t count) {
    iq_rows *rows = &loader->db->records.rows;
    iqdb_result result = iq_rows_reserve(rows, first + count);
    if (result != IQDB_OK) return result;
    const iq_slab *slab = &rows->slabs[slab_number];
    const size_t at = (size_t)first * 8, size = (size_t)count * 8;
    rows->count = first + count;
    if (loader->in_place) {
        iq_image_fill_heads(slab->heads, iq_image_view(loader, IQ_SECTION_IDS) + at,
                            iq_image_view(loader, IQ_SECTION_PAYLOAD_REFS) + at, count);
        return IQDB_OK;
    }
    uint8_t *ids = (uint8_t *)(void *)slab->vectors, *payloads = ids + size;
    result = iq_snapshot_read(loader->reader, 0, IQ_SECTION_IDS, at, ids, size);
    if (result == IQDB_OK) result = iq_snapshot_read(loader->reader, 0, IQ_SECTION_PAYLOAD_REFS, at, payloads, size);
    if (result != IQDB_OK) return result;
    iq_image_fill_heads(slab->heads, ids, payloads, count);
    return iq_image_read_floats(loader, IQ_SECTION_NORMS, first, count, 1, slab->norms);
}

/* The rows from `first` to the end of their slab, or to the last one: their vectors piece by piece, so that each is
 * still in the cache when its rows are checked. */
static iqdb_result iq_image_load_slab(iq_image_loader *loader, size_t slab_number, uint32_t first) {
    iqdb *db = loader->db;
    const iq_rows *rows = &db->records.rows;
    const uint32_t piece = IQ_IMAGE_READ / (uint32_t)(rows->stride * sizeof(float));
    uint32_t count = iq_slab_rows(rows, slab_number);
    if (count > loader->rows - first) count = (uint32_t)(loader->rows - first);
    iqdb_result result = iq_image_load_heads(loader, slab_number, first, count);
    for (uint32_t i = 0; i < count && result == IQDB_OK; i++) {
        const iq_slab *slab = &rows->slabs[slab_number];
        if (i % piece == 0 && !loader->in_place)
            result = iq_image_read_floats(loader, IQ_SECTION_VECTORS, (uint64_t)first + i,
                                          count - i < piece ? count - i : piece, rows->stride,
                                          slab->vectors + i * rows->stride);
        if (i + IQ_IMAGE_AHEAD < count) iq_ids_prefetch(&db->records.ids, slab->heads[i + IQ_IMAGE_AHEAD].id);
        if (result == IQDB_OK) result = iq_image_check_row(loader, slab, i, first + i);
    }
    return result;
}

IQ_FN iqdb_result iq_image_schema(iq_snapshot_reader *reader, iq_schema *out_schema, uint64_t *out_rows) {
    uint8_t catalog[IQ_CATALOG_SIZE];
    uint64_t size;
    if (!iq_snapshot_find(reader, 0, IQ_SECTION_CATALOG, &size) || size != sizeof catalog)
        return iq_snapshot_reject(reader, 0, IQ_SECTION_CATALOG, 0, "the collection has no catalog");
    const iqdb_result result = iq_snapshot_read(reader, 0, IQ_SECTION_CATALOG, 0, catalog, sizeof catalog);
    if (result != IQDB_OK) return result;
    out_schema->dim = iq_get_u32(catalog + IQ_CATALOG_DIM);
    out_schema->metric = iq_get_u32(catalog + IQ_CATALOG_METRIC);
    out_schema->element = iq_get_u32(catalog + IQ_CATALOG_ELEMENT);
    *out_rows = iq_get_u64(catalog + IQ_CATALOG_ROWS);
    const uint32_t dim = out_schema->dim;
    if (dim > IQDB_DIM_MAX || (dim == 0 && *out_rows > 0) || *out_rows > IQ_ROW_COUNT_MAX || out_schema->element != 0 ||
        out_schema->metric < IQDB_L2 || out_schema->metric > IQDB_L1)
        return iq_snapshot_reject(reader, 0, IQ_SECTION_CATALOG, 0, "the catalog makes no sense");
    return IQDB_OK;
}

IQ_FN iqdb_result iq_image_load(iq_snapshot_reader *reader, iqdb *db, bool in_place) {
    iq_image_loader loader;
    iq_schema schema;
    memset(&loader, 0, sizeof loader);
    loader.db = db;
    loader.reader = reader;
    loader.in_place = in_place && !IQ_BIG_ENDIAN;
    iqdb_result result = iq_image_schema(reader, &schema, &loader.rows);
    if (result != IQDB_OK) return result;
    if (schema.metric != (uint32_t)db->metric)
        return iq_snapshot_reject(reader, 0, IQ_SECTION_CATALOG, 0, "the catalog has another metric than META");
    if (schema.dim != 0) iq_rows_set_dim(&db->records.rows, schema.dim);
    if (loader.rows == 0) return IQDB_OK;
    result = iq_image_check_sizes(&loader);
    if (result == IQDB_OK) result = iq_ids_reserve(&db->records.ids, (size_t)loader.rows);
    if (result == IQDB_OK) result = iq_image_load_payload_bytes(&loader);
    if (result == IQDB_OK && loader.in_place) {
        db->records.rows.lent.vectors = (float *)(void *)iq_image_view(&loader, IQ_SECTION_VECTORS);
        db->records.rows.lent.norms = (float *)(void *)iq_image_view(&loader, IQ_SECTION_NORMS);
    }
    for (size_t slab = 0; result == IQDB_OK && iq_slab_first_row(&db->records.rows, slab) < loader.rows; slab++)
        result = iq_image_load_slab(&loader, slab, (uint32_t)iq_slab_first_row(&db->records.rows, slab));
    if (result == IQDB_OK && loader.payload_size != 0 && loader.payload_cursor != loader.payload_size)
        result =
            iq_snapshot_reject(reader, 0, IQ_SECTION_PAYLOADS, loader.payload_cursor, "bytes behind the last payload");
    return result;
}
