/* The sections of a collection in a snapshot: written from the live rows, loaded into empty memory.
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

/* One number of each live row. */
static iqdb_result iq_image_write_numbers(const iqdb *db, iq_snapshot_writer *writer, uint32_t kind) {
    const size_t size = kind == IQ_SECTION_NORMS ? 4 : 8;
    uint64_t cursor = IQ_HEAP_FIRST_REF;
    iq_image_piece piece;
    piece.writer = writer;
    piece.size = 0;
    iqdb_result result = iq_snapshot_section(writer, 0, kind, (uint64_t)db->records.live_count * size);
    for (uint32_t row = 0; row < db->records.rows.count && result == IQDB_OK; row++) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
        if (!iq_row_is_live(slab, index)) continue;
        uint64_t value = slab->ids[index];
        if (kind == IQ_SECTION_NORMS) value = iq_f32_bits(slab->norms[index]);
        if (kind == IQ_SECTION_PAYLOAD_REFS) {
            value = slab->payloads[index] == 0 ? 0 : cursor;
            if (value != 0) cursor += iq_heap_block_size(iq_heap_payload(&db->records.heap, slab->payloads[index]).size);
        }
        result = iq_image_put(&piece, value, size);
    }
    return result == IQDB_OK ? iq_image_piece_flush(&piece) : result;
}

static iqdb_result iq_image_write_vectors(iqdb *db, iq_snapshot_writer *writer) {
    const size_t row_size = db->records.rows.stride * sizeof(float);
    iqdb_result result = iq_snapshot_section(writer, 0, IQ_SECTION_VECTORS, (uint64_t)db->records.live_count * row_size);
    db->encoded.size = 0;
    if (IQ_BIG_ENDIAN && result == IQDB_OK) result = iq_blob_reserve(&db->encoded, row_size);
    for (uint32_t row = 0; row < db->records.rows.count && result == IQDB_OK; row++) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
        if (!iq_row_is_live(slab, index)) continue;
        const void *vector = slab->vectors + index * db->records.rows.stride;
        if (IQ_BIG_ENDIAN) {
            iq_copy_words_le(db->encoded.bytes, vector, db->records.rows.stride);
            vector = db->encoded.bytes;
        }
        result = iq_snapshot_write(writer, vector, row_size);
    }
    return result;
}

/* Calls write (or only adds up sizes, where writer is NULL) for the payload block of each live row. */
static iqdb_result iq_image_payload_blocks(const iqdb *db, iq_snapshot_writer *writer, uint64_t *out_size) {
    static const uint8_t zeros[64] = {0};
    iqdb_result result = IQDB_OK;
    *out_size = 0;
    for (uint32_t row = 0; row < db->records.rows.count && result == IQDB_OK; row++) {
        uint32_t index;
        uint8_t size[4];
        const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
        if (!iq_row_is_live(slab, index) || slab->payloads[index] == 0) continue;
        const iqdb_payload payload = iq_heap_payload(&db->records.heap, slab->payloads[index]);
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

static iqdb_result iq_image_write_payloads(const iqdb *db, iq_snapshot_writer *writer) {
    static const uint8_t first[IQ_HEAP_FIRST_REF] = {0};
    uint64_t size;
    (void)iq_image_payload_blocks(db, NULL, &size);
    if (size == 0) return IQDB_OK;
    iqdb_result result = iq_snapshot_section(writer, 0, IQ_SECTION_PAYLOADS, size + sizeof first);
    if (result == IQDB_OK) result = iq_snapshot_write(writer, first, sizeof first);
    return result == IQDB_OK ? iq_image_payload_blocks(db, writer, &size) : result;
}

IQ_FN iqdb_result iq_image_write(iq_snapshot_writer *writer, void *user) {
    iqdb *db = (iqdb *)user;
    uint8_t catalog[IQ_CATALOG_SIZE];
    memset(catalog, 0, sizeof catalog);
    iq_put_u32(catalog + IQ_CATALOG_DIM, db->records.rows.dim);
    iq_put_u32(catalog + IQ_CATALOG_METRIC, (uint32_t)db->metric);
    iq_put_u64(catalog + IQ_CATALOG_ROWS, db->records.live_count);
    iqdb_result result = iq_snapshot_section(writer, 0, IQ_SECTION_CATALOG, sizeof catalog);
    if (result == IQDB_OK) result = iq_snapshot_write(writer, catalog, sizeof catalog);
    if (db->records.live_count == 0) return result;
    if (result == IQDB_OK) result = iq_image_write_numbers(db, writer, IQ_SECTION_IDS);
    if (result == IQDB_OK) result = iq_image_write_vectors(db, writer);
    if (result == IQDB_OK) result = iq_image_write_numbers(db, writer, IQ_SECTION_NORMS);
    if (result == IQDB_OK) result = iq_image_write_numbers(db, writer, IQ_SECTION_PAYLOAD_REFS);
    if (result == IQDB_OK) result = iq_image_write_payloads(db, writer);
    return result;
}

/* ---- Loading ---- */

typedef struct iq_image_loader {
    iqdb *db;
    iq_snapshot_reader *reader;
    uint64_t rows;
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
            return iq_snapshot_reject(loader->reader, 0, IQ_SECTION_CATALOG, 0, "a section of the collection is missing");
        if (size / row_sizes[i] != loader->rows || size % row_sizes[i] != 0)
            return iq_snapshot_reject(loader->reader, 0, kinds[i], 0, "the section has another size than its rows");
    }
    return IQDB_OK;
}

static iqdb_result iq_image_load_payload_bytes(iq_image_loader *loader) {
    uint64_t size;
    loader->payload_cursor = IQ_HEAP_FIRST_REF;
    if (!iq_snapshot_find(loader->reader, 0, IQ_SECTION_PAYLOADS, &size)) return IQDB_OK;
    if (size < IQ_HEAP_FIRST_REF)
        return iq_snapshot_reject(loader->reader, 0, IQ_SECTION_PAYLOADS, 0, "the section is too short");
    if (size > (size_t)-1 / 4) return IQDB_ERR_NOMEM;
    uint8_t *bytes;
    const iqdb_result result = iq_heap_adopt(&loader->db->records.heap, (size_t)size, &bytes);
    if (result != IQDB_OK) return result;
    loader->payload_size = size;
    return iq_snapshot_read(loader->reader, 0, IQ_SECTION_PAYLOADS, 0, bytes, (size_t)size);
}

/* A row's payload: the block that follows the one before. Its length becomes a native number. */
static iqdb_result iq_image_check_payload(iq_image_loader *loader, uint64_t ref) {
    if (ref == 0) return IQDB_OK;
    const uint64_t room = loader->payload_size - loader->payload_cursor;
    if (ref == loader->payload_cursor && loader->payload_cursor < loader->payload_size && room >= 8) {
        const uint8_t *block = (const uint8_t *)iq_heap_payload(&loader->db->records.heap, ref).bytes - 4;
        const uint32_t size = iq_get_u32(block);
        if (size <= room - 4 && iq_heap_block_size(size) <= room &&
            iq_payload_validate(block + 4, size) == IQDB_OK) {
            iq_heap_fix_size(&loader->db->records.heap, ref, size);
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
    bool sound = iq_vector_is_finite(db->records.kernel, vector, db->records.rows.dim) && iq_f32_bits(slab->norms[index]) <= 0x7F800000u;
    for (size_t i = db->records.rows.dim; i < db->records.rows.stride; i++) sound = sound && iq_f32_bits(vector[i]) == 0;
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
    const iqdb_result result =
        iq_snapshot_read(loader->reader, 0, kind, first * row_size, out, count * row_size);
    if (result == IQDB_OK) iq_image_to_native(out, count * (row_size / number_size), number_size);
    return result;
}

/* The rows from `first` to the end of their slab, or to the last one. */
static iqdb_result iq_image_load_slab(iq_image_loader *loader, size_t slab_number, uint32_t first) {
    iqdb *db = loader->db;
    uint32_t count = iq_slab_rows(&db->records.rows, slab_number), taken = 0;
    if (count > loader->rows - first) count = (uint32_t)(loader->rows - first);
    for (uint32_t i = 0; i < count; i++) {
        const iqdb_result result = iq_rows_take(&db->records.rows, &taken);
        if (result != IQDB_OK) return result;
    }
    const iq_slab *slab = &db->records.rows.slabs[slab_number];
    iqdb_result result = iq_image_read(loader, IQ_SECTION_IDS, first, count, 8, 8, slab->ids);
    if (result == IQDB_OK)
        result = iq_image_read(loader, IQ_SECTION_VECTORS, first, count, db->records.rows.stride * sizeof(float), 4,
                               slab->vectors);
    if (result == IQDB_OK) result = iq_image_read(loader, IQ_SECTION_NORMS, first, count, 4, 4, slab->norms);
    if (result == IQDB_OK) result = iq_image_read(loader, IQ_SECTION_PAYLOAD_REFS, first, count, 8, 8, slab->payloads);
    for (uint32_t i = 0; i < count && result == IQDB_OK; i++)
        result = iq_image_check_row(loader, slab, i, first + i);
    return result;
}

IQ_FN iqdb_result iq_image_load(iq_snapshot_reader *reader, void *user) {
    iq_image_loader loader;
    uint8_t catalog[IQ_CATALOG_SIZE];
    uint64_t size;
    iqdb *db = (iqdb *)user;
    memset(&loader, 0, sizeof loader);
    loader.db = db;
    loader.reader = reader;
    if (!iq_snapshot_find(reader, 0, IQ_SECTION_CATALOG, &size) || size != sizeof catalog)
        return iq_snapshot_reject(reader, 0, IQ_SECTION_CATALOG, 0, "the collection has no catalog");
    iqdb_result result = iq_snapshot_read(reader, 0, IQ_SECTION_CATALOG, 0, catalog, sizeof catalog);
    if (result != IQDB_OK) return result;
    const uint32_t dim = iq_get_u32(catalog + IQ_CATALOG_DIM);
    loader.rows = iq_get_u64(catalog + IQ_CATALOG_ROWS);
    if (dim > IQDB_DIM_MAX || (dim == 0 && loader.rows > 0) || loader.rows > IQ_ROW_COUNT_MAX ||
        iq_get_u32(catalog + IQ_CATALOG_METRIC) != (uint32_t)db->metric || iq_get_u32(catalog + IQ_CATALOG_ELEMENT) != 0)
        return iq_snapshot_reject(reader, 0, IQ_SECTION_CATALOG, 0, "the catalog makes no sense");
    if (dim != 0) iq_rows_set_dim(&db->records.rows, dim);
    if (loader.rows == 0) return IQDB_OK;
    result = iq_image_check_sizes(&loader);
    if (result == IQDB_OK) result = iq_ids_reserve(&db->records.ids, (size_t)loader.rows);
    if (result == IQDB_OK) result = iq_image_load_payload_bytes(&loader);
    for (size_t slab = 0; result == IQDB_OK && iq_slab_first_row(&db->records.rows, slab) < loader.rows; slab++)
        result = iq_image_load_slab(&loader, slab, (uint32_t)iq_slab_first_row(&db->records.rows, slab));
    if (result == IQDB_OK && loader.payload_size != 0 && loader.payload_cursor != loader.payload_size)
        result = iq_snapshot_reject(reader, 0, IQ_SECTION_PAYLOADS, loader.payload_cursor, "bytes behind the last payload");
    return result;
}
