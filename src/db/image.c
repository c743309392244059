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

#define IQ_IMAGE_PIECE 256u /* numbers gathered before they are handed to the writer */

/* ---- Writing ---- */

/* Gathers 64-bit or 32-bit numbers of single rows into larger writes. */
typedef struct iq_image_piece {
    iq_snapshot_writer *writer;
    uint8_t bytes[IQ_IMAGE_PIECE * 8];
    size_t size;
} iq_image_piece;

static iqdb_result iq_image_piece_flush(iq_image_piece *piece) {
    const iqdb_result result = iq_snapshot_write(piece->writer, piece->bytes, piece->size);
    piece->size = 0;
    return result;
}

static iqdb_result iq_image_put(iq_image_piece *piece, uint64_t value, size_t size) {
    iqdb_result result = IQDB_OK;
    if (piece->size + size > sizeof piece->bytes) result = iq_image_piece_flush(piece);
    if (size == 8) {
        iq_put_u64(piece->bytes + piece->size, value);
    } else {
        iq_put_u32(piece->bytes + piece->size, (uint32_t)value);
    }
    piece->size += size;
    return result;
}

IQ_FN iq_image iq_image_take(iqdb *db) {
    iq_image image;
    image.db = db;
    image.lsn = db->records.lsn;
    image.moment = db->records.epoch.moment;
    image.row_end = db->records.rows.count;
    image.count = 0;
    for (uint32_t row = 0; row < image.row_end; row++) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
        if (iq_row_visible(slab, index, image.moment)) image.count++;
    }
    return image;
}

/* Moves *row to the first row of the image from there on; NULL at the end. */
static const iq_slab *iq_image_row(const iq_image *image, uint32_t *row, uint32_t *out_index) {
    for (; *row < image->row_end; ++*row) {
        const iq_slab *slab = iq_rows_slab(&image->db->records.rows, *row, out_index);
        if (iq_row_visible(slab, *out_index, image->moment)) return slab;
    }
    return NULL;
}

/* One number of each row. */
static iqdb_result iq_image_write_numbers(const iq_image *image, iq_snapshot_writer *writer, uint32_t kind) {
    const size_t size = kind == IQ_SECTION_NORMS ? 4 : 8;
    const iq_heap *heap = &image->db->records.heap;
    const iq_slab *slab;
    uint64_t cursor = IQ_HEAP_FIRST_REF;
    uint32_t index;
    iq_image_piece piece;
    piece.writer = writer;
    piece.size = 0;
    iqdb_result result = iq_snapshot_section(writer, 0, kind, image->count * size);
    for (uint32_t row = 0; result == IQDB_OK && (slab = iq_image_row(image, &row, &index)) != NULL; row++) {
        uint64_t value = slab->ids[index];
        if (kind == IQ_SECTION_NORMS) value = iq_f32_bits(slab->norms[index]);
        if (kind == IQ_SECTION_PAYLOAD_REFS) {
            value = slab->payloads[index] == 0 ? 0 : cursor;
            if (value != 0) cursor += iq_heap_block_size(iq_heap_payload(heap, slab->payloads[index]).size);
        }
        result = iq_image_put(&piece, value, size);
    }
    return result == IQDB_OK ? iq_image_piece_flush(&piece) : result;
}

static iqdb_result iq_image_write_vectors(const iq_image *image, iq_snapshot_writer *writer) {
    iqdb *db = image->db;
    const size_t stride = db->records.rows.stride, row_size = stride * sizeof(float);
    const iq_slab *slab;
    uint32_t index;
    iqdb_result result = iq_snapshot_section(writer, 0, IQ_SECTION_VECTORS, image->count * row_size);
    db->encoded.size = 0;
    if (IQ_BIG_ENDIAN && result == IQDB_OK) result = iq_blob_reserve(&db->encoded, row_size);
    for (uint32_t row = 0; result == IQDB_OK && (slab = iq_image_row(image, &row, &index)) != NULL; row++) {
        const void *vector = slab->vectors + index * stride;
        if (IQ_BIG_ENDIAN) {
            iq_copy_words_le(db->encoded.bytes, vector, stride);
            vector = db->encoded.bytes;
        }
        result = iq_snapshot_write(writer, vector, row_size);
    }
    return result;
}

/* Calls write (or only adds up sizes, where writer is NULL) for the payload block of each row. */
static iqdb_result iq_image_payload_blocks(const iq_image *image, iq_snapshot_writer *writer, uint64_t *out_size) {
    static const uint8_t zeros[64] = {0};
    const iq_slab *slab;
    uint32_t index;
    iqdb_result result = IQDB_OK;
    *out_size = 0;
    for (uint32_t row = 0; result == IQDB_OK && (slab = iq_image_row(image, &row, &index)) != NULL; row++) {
        uint8_t size[4];
        if (slab->payloads[index] == 0) continue;
        const iqdb_payload payload = iq_heap_payload(&image->db->records.heap, slab->payloads[index]);
        uint64_t slack = iq_heap_block_size(payload.size) - payload.size - 4;
        *out_size += payload.size + 4 + slack;
        if (writer == NULL) continue;
        iq_put_u32(size, (uint32_t)payload.size);
        result = iq_snapshot_write(writer, size, sizeof size);
        if (result == IQDB_OK) result = iq_snapshot_write(writer, payload.bytes, payload.size);
        for (; slack > 0 && result == IQDB_OK; slack -= slack < sizeof zeros ? slack : sizeof zeros)
            result = iq_snapshot_write(writer, zeros, slack < sizeof zeros ? (size_t)slack : sizeof zeros);
    }
    return result;
}

static iqdb_result iq_image_write_payloads(const iq_image *image, iq_snapshot_writer *writer) {
    static const uint8_t first[IQ_HEAP_FIRST_REF] = {0};
    uint64_t size;
    (void)iq_image_payload_blocks(image, NULL, &size);
    if (size == 0) return IQDB_OK;
    iqdb_result result = iq_snapshot_section(writer, 0, IQ_SECTION_PAYLOADS, size + sizeof first);
    if (result == IQDB_OK) result = iq_snapshot_write(writer, first, sizeof first);
    return result == IQDB_OK ? iq_image_payload_blocks(image, writer, &size) : result;
}

IQ_FN iqdb_result iq_image_write(iq_snapshot_writer *writer, void *user) {
    const iq_image *image = (const iq_image *)user;
    uint8_t catalog[IQ_CATALOG_SIZE];
    memset(catalog, 0, sizeof catalog);
    iq_put_u32(catalog + IQ_CATALOG_DIM, image->db->records.rows.dim);
    iq_put_u32(catalog + IQ_CATALOG_METRIC, (uint32_t)image->db->metric);
    iq_put_u64(catalog + IQ_CATALOG_ROWS, image->count);
    iqdb_result result = iq_snapshot_section(writer, 0, IQ_SECTION_CATALOG, sizeof catalog);
    if (result == IQDB_OK) result = iq_snapshot_write(writer, catalog, sizeof catalog);
    if (image->count == 0) return result;
    if (result == IQDB_OK) result = iq_image_write_numbers(image, writer, IQ_SECTION_IDS);
    if (result == IQDB_OK) result = iq_image_write_vectors(image, writer);
    if (result == IQDB_OK) result = iq_image_write_numbers(image, writer, IQ_SECTION_NORMS);
    if (result == IQDB_OK) result = iq_image_write_numbers(image, writer, IQ_SECTION_PAYLOAD_REFS);
    if (result == IQDB_OK) result = iq_image_write_payloads(image, writer);
    return result;
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
    static const uint32_t kinds[] = {IQ_SECTION_IDS, IQ_SECTION_VECTORS, IQ_SECTION_NORMS, IQ_SECTION_PAYLOAD_REFS};
    const uint64_t row_sizes[] = {8, (uint64_t)loader->db->records.rows.stride * sizeof(float), 4, 8};
    for (size_t i = 0; i < IQ_COUNT_OF(kinds); i++) {
        uint64_t size;
        if (!iq_snapshot_find(loader->reader, 0, kinds[i], &size))
            return iq_snapshot_reject(loader->reader, 0, IQ_SECTION_CATALOG, 0,
                                      "a section of the collection is missing");
        if (size / row_sizes[i] != loader->rows || size % row_sizes[i] != 0)
            return iq_snapshot_reject(loader->reader, 0, kinds[i], 0, "the section has another size than its rows");
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
    if (iq_ids_set(&db->records.ids, &db->records.rows, slab->ids[index], row) != IQ_ROW_NONE)
        return iq_snapshot_reject(loader->reader, 0, IQ_SECTION_IDS, (uint64_t)row * 8, "an id stands twice");
    slab->births[index] = 0;
    iq_rows_set_filled(slab, index, true);
    db->records.live_count++;
    return iq_image_check_payload(loader, slab->payloads[index]);
}

/* Brings `count` numbers of `size` bytes from the file's byte order into the machine's. */
static void iq_image_to_native(void *numbers, size_t count, size_t size) {
    uint8_t *bytes = (uint8_t *)numbers;
    for (size_t i = 0; IQ_BIG_ENDIAN && i < count; i++) {
        for (size_t j = 0; j < size / 2; j++) {
            const uint8_t byte = bytes[i * size + j];
            bytes[i * size + j] = bytes[i * size + size - 1 - j];
            bytes[i * size + size - 1 - j] = byte;
        }
    }
}

static iqdb_result iq_image_read(iq_image_loader *loader, uint32_t kind, uint64_t first, size_t count, size_t row_size,
                                 size_t number_size, void *out) {
    const iqdb_result result = iq_snapshot_read(loader->reader, 0, kind, first * row_size, out, count * row_size);
    if (result == IQDB_OK) iq_image_to_native(out, count * (row_size / number_size), number_size);
    return result;
}

/* Rows for a slab, filled from the file. */
static iqdb_result iq_image_fill_slab(iq_image_loader *loader, size_t slab_number, uint32_t first, uint32_t count) {
    iq_rows *rows = &loader->db->records.rows;
    uint32_t taken = 0;
    for (uint32_t i = 0; i < count; i++) {
        const iqdb_result result = iq_rows_take(rows, &taken);
        if (result != IQDB_OK) return result;
    }
    const iq_slab *slab = &rows->slabs[slab_number];
    iqdb_result result = iq_image_read(loader, IQ_SECTION_IDS, first, count, 8, 8, slab->ids);
    if (result == IQDB_OK)
        result =
            iq_image_read(loader, IQ_SECTION_VECTORS, first, count, rows->stride * sizeof(float), 4, slab->vectors);
    if (result == IQDB_OK) result = iq_image_read(loader, IQ_SECTION_NORMS, first, count, 4, 4, slab->norms);
    if (result == IQDB_OK) result = iq_image_read(loader, IQ_SECTION_PAYLOAD_REFS, first, count, 8, 8, slab->payloads);
    return result;
}

/* All rows where they are. */
static iqdb_result iq_image_borrow(iq_image_loader *loader) {
    iq_slab all;
    memset(&all, 0, sizeof all);
    all.ids = (uint64_t *)(void *)iq_image_view(loader, IQ_SECTION_IDS);
    all.vectors = (float *)(void *)iq_image_view(loader, IQ_SECTION_VECTORS);
    all.norms = (float *)(void *)iq_image_view(loader, IQ_SECTION_NORMS);
    all.payloads = (uint64_t *)(void *)iq_image_view(loader, IQ_SECTION_PAYLOAD_REFS);
    return iq_rows_borrow(&loader->db->records.rows, (uint32_t)loader->rows, &all);
}

/* The rows from `first` to the end of their slab, or to the last one. */
static iqdb_result iq_image_load_slab(iq_image_loader *loader, size_t slab_number, uint32_t first) {
    uint32_t count = iq_slab_rows(&loader->db->records.rows, slab_number);
    if (count > loader->rows - first) count = (uint32_t)(loader->rows - first);
    iqdb_result result = IQDB_OK;
    if (!loader->in_place) result = iq_image_fill_slab(loader, slab_number, first, count);
    for (uint32_t i = 0; i < count && result == IQDB_OK; i++)
        result = iq_image_check_row(loader, &loader->db->records.rows.slabs[slab_number], i, first + i);
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
    if (result == IQDB_OK && loader.in_place) result = iq_image_borrow(&loader);
    for (size_t slab = 0; result == IQDB_OK && iq_slab_first_row(&db->records.rows, slab) < loader.rows; slab++)
        result = iq_image_load_slab(&loader, slab, (uint32_t)iq_slab_first_row(&db->records.rows, slab));
    if (result == IQDB_OK && loader.payload_size != 0 && loader.payload_cursor != loader.payload_size)
        result =
            iq_snapshot_reject(reader, 0, IQ_SECTION_PAYLOADS, loader.payload_cursor, "bytes behind the last payload");
    return result;
}
