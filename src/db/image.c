/* The sections of a collection in a snapshot: written from the rows that one LSN sees, loaded into empty memory, or
 * used where they lie.
 *
 * 1. Rows come in the order of memory without the dead, so the same history gives the same bytes.
 * 2. Sections are laid out as memory is (stride, block sizes of the heap), little-endian.
 * 3. A base has what is made from its rows too, so that an open does not make it again: codes, from some number of rows
 *    on, and the index, which takes any number.
 * 4. Loading trusts no number: sizes must agree with the row count exactly, payload blocks must follow one another
 *    without gap, ids must differ, vectors must be finite and padded with zeros. */
#include "codec/payload.h"
#include "db/db.h"
#include "persist/sections.h"

#define IQ_IMAGE_READ 262144u /* bytes of vectors read at a time: the largest one, and half of many a near cache */
#define IQ_IMAGE_AHEAD 16u    /* rows, until the place of an id is there */
#define IQ_IMAGE_CODED 2048u  /* rows: codes of fewer are made as fast as they are read */
#define IQ_IMAGE_TABLED 1024u /* rows: so is a table of their ids */

/* The sections that have something of every row, in their order, behind a first look that counts these. All but the last
 * one have as much of each. */
static const uint32_t iq_image_kinds[] = {
    0, IQ_SECTION_IDS, IQ_SECTION_VECTORS, IQ_SECTION_NORMS, IQ_SECTION_PAYLOAD_REFS, IQ_SECTION_PAYLOADS};

/* Behind these. */
enum {
    IQ_IMAGE_CODES = IQ_COUNT_OF(iq_image_kinds),
    IQ_IMAGE_INDEX,
    IQ_IMAGE_ID_TABLE,
    IQ_IMAGE_STAGES = IQ_SMALL ? IQ_IMAGE_CODES : IQ_IMAGE_ID_TABLE + 1
};

static size_t iq_image_row_size(const iqdb *db, uint32_t kind) {
    if (kind == IQ_SECTION_VECTORS) return db->records.rows.stride * sizeof(float);
    return kind == IQ_SECTION_NORMS ? 4 : 8;
}

/* ---- Writing ---- */

/* Begins with the first collection from `number` on. */
static void iq_image_begin(iq_image *image, uint32_t number) {
    const iqdb *db = image->db = iq_home_seek(image->home, number, image->moment);
    if (db == NULL) return;
    const iq_records *records = &db->records;
    image->row_end = records->rows.count;
    image->records = iq_epoch_count(&image->home->common.epoch, &records->tally);
    /* What has changed since then, and what changes meanwhile, has to be counted. */
    image->stage = records->changed <= image->moment && (image->since == 0 || records->changed <= image->since) ? 1 : 0;
    image->count = image->since == 0 ? image->records : 0;
    if (image->stage == 0) image->records = image->count = 0;
    image->row = image->written = 0;
    image->payload_end = IQ_HEAP_FIRST_REF;
    image->places.words = NULL;
}

/* Room for the places of rows, if there is an index to be stored; without memory it is not. */
static void iq_image_begin_places(iq_image *image) {
    const size_t words = (size_t)(image->row_end / 32 + 1);
    const iq_index *index = image->db->index;
    image->words.size = 0;
    if (IQ_SMALL || image->since != 0 || index == NULL || index->ops->save_fn == NULL ||
        iq_blob_reserve(&image->words, words * sizeof(iq_place_word)) != IQDB_OK)
        return;
    memset(image->words.bytes, 0, words * sizeof(iq_place_word));
    image->places.words = (const iq_place_word *)(const void *)image->words.bytes;
    image->places.row_end = image->row_end;
}

static void iq_image_put_place(iq_image *image, uint32_t row) {
    iq_place_word *word = (iq_place_word *)(void *)image->words.bytes + row / 32;
    if (word->bits == 0) word->before = image->written;
    word->bits |= UINT32_C(1) << row % 32;
    image->written++;
}

IQ_FN void iq_image_end(iq_image *image) {
    if (image->indexed != NULL) image->indexed->saves--;
    image->indexed = NULL;
    iq_blob_free(&image->words);
    if (!IQ_SMALL) iq_blob_free(&image->slots);
}

IQ_FN iq_image iq_image_take(iq_home *home, uint64_t since) {
    iq_image image;
    memset(&image, 0, sizeof image);
    image.home = home;
    image.lsn = home->common.lsn;
    image.since = since;
    image.moment = home->common.epoch.moment;
    image.next_number = home->next_number;
    for (size_t i = 0; since == 0 && i < iq_home_count(home); i++) (void)iq_db_index_fetch(iq_home_at(home, i), NULL);
    image.words.allocator = image.slots.allocator = &home->allocator;
    iq_image_begin(&image, 0);
    return image;
}

/* What a section has of one row. *cursor: where the next payload block lies in IQ_SECTION_PAYLOADS. Errors of the writer
 * are sticky, so only the last one is looked at. */
static iqdb_result iq_image_write_row(const iq_image *image, iq_snapshot_writer *writer, uint32_t kind,
                                      const iq_slab *slab, uint32_t index, uint64_t *cursor) {
    const iq_rows *rows = &image->db->records.rows;
    const void *vector = slab->vectors + index * rows->stride;
    const uint64_t ref =
        kind >= IQ_SECTION_PAYLOAD_REFS ? iq_row_payload(slab, index) : 0; /* the heap is dear to look at */
    const iqdb_payload payload = iq_heap_payload(&image->db->records.heap, ref);
    const uint64_t block_size = payload.bytes == NULL ? 0 : iq_heap_block_size(payload.size);
    uint8_t number[8];
    switch (kind) {
    case IQ_SECTION_IDS:
        iq_put_u64(number, iq_row_id(slab, index));
        return iq_snapshot_write(writer, number, 8);
    case IQ_SECTION_NORMS:
        iq_put_u32(number, iq_f32_bits(slab->norms[index]));
        return iq_snapshot_write(writer, number, 4);
    case IQ_SECTION_VECTORS:
        if (IQ_BIG_ENDIAN) {
            iq_element_copy_le(rows->element, image->db->home->encoded.bytes, vector, rows->stride * sizeof(float));
            vector = image->db->home->encoded.bytes;
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

/* The ids that a delta has deleted: *out_first is where they begin. */
static size_t iq_image_deleted(const iq_image *image, size_t *out_first) {
    const iq_blob *blob = &image->db->records.deleted;
    const iq_deleted *deleted = (const iq_deleted *)(const void *)blob->bytes;
    size_t first = 0, end = image->since == 0 ? 0 : blob->size / sizeof *deleted;
    while (end > 0 && deleted[end - 1].moment > image->moment) end--;
    for (first = end; first > 0 && deleted[first - 1].moment > image->since; first--) {
    }
    *out_first = first;
    return end - first;
}

/* And the deleted ids of a delta. */
static iqdb_result iq_image_write_catalog(const iq_image *image, iq_snapshot_writer *writer) {
    const iqdb *db = image->db;
    size_t first, name_size = strlen(db->name);
    const void *name = db->name;
    const size_t count = iq_image_deleted(image, &first);
    uint8_t catalog[IQ_CATALOG_SIZE] = {0}, number[8];
    iq_put_u32(catalog + IQ_CATALOG_DIM, db->records.rows.dim);
    iq_put_u32(catalog + IQ_CATALOG_METRIC, iq_db_schema(db).metric);
    iq_put_u32(catalog + IQ_CATALOG_ELEMENT, (uint32_t)db->element);
    iq_put_u64(catalog + IQ_CATALOG_ROWS, image->count);
    if (image->since != 0) iq_put_u64(catalog + IQ_CATALOG_RECORDS, image->records);
    iq_put_u32(catalog + IQ_CATALOG_DELETED, (uint32_t)count);
    if (db->number == 0 && image->next_number > 1) {
        iq_put_u32(number, image->next_number);
        name = number;
        name_size = 4;
    }
    (void)iq_snapshot_section(writer, db->number, IQ_SECTION_CATALOG, sizeof catalog + name_size);
    (void)iq_snapshot_write(writer, catalog, sizeof catalog);
    iqdb_result result = iq_snapshot_write(writer, name, name_size);
    if (db->chosen.is_stored) {
        uint8_t choice[IQ_CHOICE_SIZE];
        iq_index_choice_encode(&db->chosen, choice);
        (void)iq_snapshot_section(writer, db->number, IQ_SECTION_CHOICE, sizeof choice);
        result = iq_snapshot_write(writer, choice, sizeof choice);
    }
    if (count > 0) result = iq_snapshot_section(writer, db->number, IQ_SECTION_DELETED, (uint64_t)count * 8);
    for (size_t i = first; result == IQDB_OK && i < first + count; i++) {
        iq_put_u64(number, ((const iq_deleted *)(const void *)db->records.deleted.bytes)[i].id);
        result = iq_snapshot_write(writer, number, 8);
    }
    return result;
}

/* Before the first row of a section. The payloads come after the references, which tell how many bytes they lead to. */
static iqdb_result iq_image_begin_section(iq_image *image, iq_snapshot_writer *writer, uint32_t kind) {
    if (kind != IQ_SECTION_PAYLOADS)
        return iq_snapshot_section(writer, image->db->number, kind, image->count * iq_image_row_size(image->db, kind));
    (void)iq_snapshot_section(writer, image->db->number, kind, image->payload_end);
    (void)iq_snapshot_pack(writer);
    return iq_snapshot_write(writer, NULL, IQ_HEAP_FIRST_REF);
}

/* A unit of work; kind 0: they are only counted. *out_end: no row is left for the section. */
static iqdb_result iq_image_write_rows(iq_image *image, iq_snapshot_writer *writer, uint32_t kind, bool *out_end) {
    const iq_records *records = &image->db->records;
    const uint64_t stop = iq_snapshot_offset(writer) + IQ_IMAGE_UNIT;
    uint32_t end = image->row + IQ_IMAGE_UNIT_ROWS, index;
    iqdb_result result = IQDB_OK;
    if (end > image->row_end || end < image->row) end = image->row_end;
    for (; result == IQDB_OK && iq_snapshot_offset(writer) < stop; image->row++) {
        const iq_slab *slab = iq_records_next(records, &image->row, end, image->moment, NULL, &index);
        if (!IQ_SMALL && slab == NULL && image->row < end) return IQDB_ERR_CORRUPT;
        if (slab == NULL) break;
        if (kind == 0) image->records++;
        if (iq_row_birth(slab, index) <= image->since) continue;
        if (kind == 0) image->count++;
        if (kind == IQ_SECTION_IDS && image->places.words != NULL) iq_image_put_place(image, image->row);
        if (kind != 0) result = iq_image_write_row(image, writer, kind, slab, index, &image->payload_end);
    }
    *out_end = image->row >= image->row_end;
    return result;
}

/* Whether the codes of rows are a section. */
static bool iq_image_has_codes(const iq_image *image) {
    return image->since == 0 && image->count > 0 && iq_rows_have_codes(&image->db->records.rows) &&
           (image->count >= IQ_IMAGE_CODED || image->places.words != NULL);
}

/* All of one kind. */
static void iq_image_begin_codes(iq_image *image, iq_snapshot_writer *writer) {
    const iq_rows *rows = &image->db->records.rows;
    const iq_basis *basis = rows->narrow.basis;
    const iq_quant *quant = image->quant = basis != NULL ? &rows->narrow : &rows->quant;
    const size_t basis_bytes = basis != NULL ? iq_basis_bytes(basis->dim, basis->dims) : 0;
    const uint64_t blocks = (image->count + IQ_CODES_ROWS - 1) / IQ_CODES_ROWS;
    uint8_t head[IQ_CODES_HEAD] = {0};
    iq_put_u32(head + IQ_CODES_TAG_AT, basis != NULL ? IQ_CODES_TAG_NARROW : IQ_CODES_TAG_NIBBLES);
    iq_put_u32(head + IQ_CODES_DIMS_AT, basis != NULL ? basis->dims : 0);
    iq_put_u32(head + IQ_CODES_DIM_AT, quant->dim);
    iq_put_u32(head + IQ_CODES_UNIT_AT, quant->unit);
    iq_put_u32(head + IQ_CODES_ROWS_AT, (uint32_t)image->count);
    (void)iq_snapshot_derive(writer, image->db->number, IQ_SECTION_CODES,
                             sizeof head + basis_bytes + blocks * iq_quant_block_bytes(quant));
    (void)iq_snapshot_write(writer, head, sizeof head);
    for (size_t at = 0; at < basis_bytes; at += IQ_CACHE_LINE) {
        uint8_t line[IQ_CACHE_LINE];
        for (size_t i = 0; i < sizeof line; i += 4)
            iq_put_u32(line + i, iq_f32_bits(basis->centre[(at + i) / sizeof(float)]));
        (void)iq_snapshot_write(writer, line, sizeof line);
    }
}

/* A unit of the blocks of codes; *out_end: that was all. */
static iqdb_result iq_image_write_codes(iq_image *image, iq_snapshot_writer *writer, bool *out_end) {
    const iq_records *records = &image->db->records;
    const size_t size = iq_quant_block_bytes(image->quant);
    const uint64_t stop = iq_snapshot_offset(writer) + IQ_IMAGE_UNIT;
    uint8_t *block = iq_rows_spare_block(&records->rows);
    uint32_t index, count = IQ_CODES_ROWS;
    iqdb_result result = IQDB_OK;
    while (result == IQDB_OK && count == IQ_CODES_ROWS && iq_snapshot_offset(writer) < stop) {
        memset(block, 0, size);
        for (count = 0; count < IQ_CODES_ROWS; count++, image->row++) {
            const iq_slab *slab = iq_records_next(records, &image->row, image->row_end, image->moment, NULL, &index);
            if (slab == NULL && image->row < image->row_end) return IQDB_ERR_CORRUPT;
            if (slab == NULL) break;
            if (!iq_rows_touch_all(&records->rows, IQ_LENT_CODES, image->row, 1)) return IQDB_ERR_CORRUPT;
            iq_rows_put_code_as(&records->rows, image->quant, slab, index, block, count);
        }
        if (count > 0) result = iq_snapshot_write(writer, block, size);
    }
    *out_end = count < IQ_CODES_ROWS;
    return result;
}

/* A unit of the table of ids: first rows are put into it, then it is written. Without memory for it there is none. */
static iqdb_result iq_image_write_ids(iq_image *image, iq_snapshot_writer *writer, bool *out_end) {
    const iq_records *records = &image->db->records;
    iq_blob *slots = &image->slots;
    uint32_t index, end = image->row + IQ_IMAGE_UNIT_ROWS;
    const size_t capacity = iq_ids_capacity((size_t)image->count);
    if (image->row == 0) {
        slots->size = 0;
        *out_end = image->since != 0 || image->count < IQ_IMAGE_TABLED || capacity > (size_t)-1 / 16 ||
                   iq_blob_reserve(slots, capacity * 8) != IQDB_OK;
        if (*out_end) return IQDB_OK;
        memset(slots->bytes, 0, capacity * 8);
        slots->size = capacity * 8;
        image->written = 0;
    }
    if (image->row < image->row_end) {
        if (end > image->row_end || end < image->row) end = image->row_end;
        for (; image->row < end; image->row++) {
            const iq_slab *slab = iq_records_next(records, &image->row, end, image->moment, NULL, &index);
            if (slab == NULL && image->row < end) return IQDB_ERR_CORRUPT;
            if (slab == NULL) break;
            iq_ids_put_lent(slots->bytes, capacity, iq_row_id(slab, index), image->written++);
        }
        if (image->row < image->row_end) return IQDB_OK;
        image->written = 0;
        return iq_snapshot_derive(writer, image->db->number, IQ_SECTION_ID_TABLE, slots->size);
    }
    const size_t at = (size_t)image->written * IQ_IMAGE_UNIT;
    const size_t part = slots->size - at < IQ_IMAGE_UNIT ? slots->size - at : IQ_IMAGE_UNIT;
    image->written++;
    *out_end = at + part == slots->size;
    return iq_snapshot_write(writer, slots->bytes + at, part);
}

/* A unit of what is made from rows. */
static iqdb_result iq_image_write_derived(iq_image *image, iq_snapshot_writer *writer, bool *out_end) {
    if (image->stage == IQ_IMAGE_ID_TABLE) return iq_image_write_ids(image, writer, out_end);
    if (image->stage == IQ_IMAGE_INDEX) return iq_db_index_save(image, writer, out_end);
    *out_end = !iq_image_has_codes(image);
    if (*out_end) return IQDB_OK;
    if (image->row == 0) iq_image_begin_codes(image, writer);
    return iq_image_write_codes(image, writer, out_end);
}

/* Likewise behind all else of a named one. */
static iqdb_result iq_image_write_keys(const iq_image *image, iq_snapshot_writer *writer) {
    const iq_blob *set = &image->db->key_set;
    if (IQ_SMALL || set->size == 0) return IQDB_OK;
    (void)iq_snapshot_section(writer, image->db->number, IQ_SECTION_KEYS, set->size);
    return iq_snapshot_write(writer, set->bytes, set->size);
}

/* Behind all else of collection 0, where none of what salvage assumes of a list that is lost lies. */
static iqdb_result iq_image_write_model(const iq_image *image, iq_snapshot_writer *writer) {
    const char *model = image->home->model;
    if (!IQ_HAS_MODELS || model[0] == 0) return IQDB_OK;
    (void)iq_snapshot_section(writer, 0, IQ_SECTION_MODEL, strlen(model));
    return iq_snapshot_write(writer, model, strlen(model));
}

IQ_FN iqdb_result iq_image_step(iq_image *image, iq_snapshot_writer *writer, iq_limit *limit, bool *out_done) {
    iqdb_result result = IQDB_OK;
    *out_done = false;
    image->home->encoded.size = 0;
    while (result == IQDB_OK && image->db != NULL) {
        if (image->stage == IQ_IMAGE_STAGES) {
            result = image->db->number == 0 ? iq_image_write_model(image, writer) : iq_image_write_keys(image, writer);
            iq_image_begin(image, image->db->number + 1);
            continue;
        }
        const bool derives = !IQ_SMALL && image->stage >= IQ_IMAGE_CODES;
        const uint32_t kind = derives ? 0 : iq_image_kinds[image->stage];
        if (IQ_BIG_ENDIAN && kind == IQ_SECTION_VECTORS)
            result = iq_blob_reserve(&image->home->encoded, iq_image_row_size(image->db, kind));
        bool ends = (kind != 0 || derives) && image->count == 0;
        if (derives && image->stage == IQ_IMAGE_INDEX) ends = false; /* which is to know that nothing is to be stored */
        if (kind == IQ_SECTION_PAYLOADS && image->payload_end == IQ_HEAP_FIRST_REF) ends = true;
        if (kind == IQ_SECTION_IDS && image->row == 0) result = iq_image_write_catalog(image, writer);
        if (kind == IQ_SECTION_IDS && image->row == 0) iq_image_begin_places(image);
        if (kind != 0 && !ends && image->row == 0) result = iq_image_begin_section(image, writer, kind);
        if (!ends && result == IQDB_OK)
            result = derives ? iq_image_write_derived(image, writer, &ends)
                             : iq_image_write_rows(image, writer, kind, &ends);
        if (ends) image->stage++;
        if (ends) image->row = 0;
        if (result == IQDB_OK && iq_limit_reached(limit)) return result;
    }
    *out_done = result == IQDB_OK;
    return result;
}

IQ_FN iqdb_result iq_image_write(iq_snapshot_writer *writer, void *user) {
    bool done;
    return iq_image_step((iq_image *)user, writer, NULL, &done);
}

IQ_FN iqdb_result iq_image_to_directory(iq_home *home, const char *path, const uint8_t *uuid, uint64_t lsn) {
    const iq_directory_config config = iq_home_config(home);
    uint8_t keys[IQ_META_KEYS_SIZE];
    iq_keys_encode(&home->root.records.keys, keys, sizeof keys);
    iq_image image = iq_image_take(home, 0);
    const iq_directory_content content = {uuid, lsn, keys, iq_image_write, &image};
    const iqdb_result result = iq_directory_make(path, &config, &content);
    iq_image_end(&image);
    return result;
}

/* ---- Loading ---- */

typedef struct iq_image_loader {
    iqdb *db;
    iq_snapshot_reader *reader;
    iq_place rows;
    bool delta, in_place, is_mapped;
    bool has_codes;          /* of rows, that are loaded with them; */
    bool narrow;             /* which are so */
    uint64_t codes_at;       /* the blocks, in their section */
    uint32_t row_base;       /* rows that were there before */
    uint64_t ref_base;       /* and references into the heap */
    uint8_t *payloads;       /* in memory, */
    iq_place payload_size;   /* of the section */
    iq_place payload_cursor; /* where the next block must start */
} iq_image_loader;

/* A blob is none. */
static bool iq_image_is_delta(const iq_image_loader *loader) { return IQ_HAS_FILES && loader->delta; }

static iqdb_result iq_image_reject(const iq_image_loader *loader, uint32_t kind, uint64_t offset, const char *why) {
    return iq_snapshot_reject(loader->reader, loader->db->number, kind, offset, why);
}

/* Sizes of all sections against the row count. */
static iqdb_result iq_image_check_sizes(iq_image_loader *loader) {
    for (size_t i = 1; i + 1 < IQ_COUNT_OF(iq_image_kinds); i++) {
        const uint32_t kind = iq_image_kinds[i];
        const uint64_t row_size = iq_image_row_size(loader->db, kind);
        uint64_t size;
        if (!iq_snapshot_find(loader->reader, loader->db->number, kind, &size))
            return iq_image_reject(loader, IQ_SECTION_CATALOG, 0, "a section of the collection is missing");
        if (size != (uint64_t)loader->rows * row_size) /* less than 2^51 */
            return iq_image_reject(loader, kind, 0, "the section has another size than its rows");
    }
    return IQDB_OK;
}

/* The bytes of a section in place, or NULL where they are to be copied. They are only read. */
static uint8_t *iq_image_view(const iq_image_loader *loader, uint32_t kind) {
    if (!IQ_ONLY_BLOBS && !loader->in_place) return NULL;
    return (uint8_t *)(uintptr_t)iq_snapshot_view(loader->reader, loader->db->number, kind);
}

static iqdb_result iq_image_load_payload_bytes(iq_image_loader *loader) {
    uint64_t size;
    loader->payload_cursor = IQ_HEAP_FIRST_REF;
    if (!IQ_ONLY_BLOBS) loader->ref_base = (uint64_t)loader->db->records.heap.page_count * IQ_HEAP_PAGE_SIZE;
    if (!iq_snapshot_find(loader->reader, loader->db->number, IQ_SECTION_PAYLOADS, &size)) return IQDB_OK;
    if (size < IQ_HEAP_FIRST_REF) { /* or it is a packed one, and its codec is not there */
        const iqdb_result result =
            IQ_SMALL ? IQDB_OK : iq_snapshot_read(loader->reader, loader->db->number, IQ_SECTION_PAYLOADS, 0, &size, 0);
        if (result != IQDB_OK) return result;
        return iq_image_reject(loader, IQ_SECTION_PAYLOADS, 0, "the section is too short");
    }
    if (size > (size_t)-1 / 4) return IQDB_ERR_NOMEM;
    loader->payload_size = (iq_place)size;
    loader->payloads = iq_image_view(loader, IQ_SECTION_PAYLOADS);
    if (IQ_ONLY_BLOBS || loader->payloads != NULL)
        return iq_heap_borrow(&loader->db->records.heap, loader->payloads, (size_t)size);
    const iqdb_result result = iq_heap_adopt(&loader->db->records.heap, (size_t)size, &loader->payloads);
    if (result != IQDB_OK) return result;
    return iq_snapshot_read(loader->reader, loader->db->number, IQ_SECTION_PAYLOADS, 0, loader->payloads, (size_t)size);
}

/* A row's payload: the block that follows the one before. Its length becomes a native number. */
static iqdb_result iq_image_check_payload(iq_image_loader *loader, uint64_t *ref_at) {
    uint64_t ref = *ref_at;
    if (ref == 0) return IQDB_OK;
    const iq_place room = loader->payload_size - loader->payload_cursor;
    if (ref == loader->payload_cursor && loader->payload_cursor < loader->payload_size && room >= 8) {
        *ref_at = ref += IQ_ONLY_BLOBS ? 0 : loader->ref_base;
        const uint8_t *block = (const uint8_t *)iq_heap_payload(&loader->db->records.heap, ref).bytes - 4;
        const uint32_t size = iq_get_u32(block);
        if (size <= room - 4 && iq_heap_block_size(size) <= room && iq_payload_validate(block + 4, size) == IQDB_OK) {
            if (IQ_BIG_ENDIAN) iq_heap_fix_size(&loader->db->records.heap, ref, size);
            loader->payload_cursor += (iq_place)iq_heap_block_size(size);
            return IQDB_OK;
        }
    }
    return iq_image_reject(loader, IQ_SECTION_PAYLOADS, loader->payload_cursor,
                           "a payload is malformed or out of place");
}

/* Rows of a blob, whose blocks have been checked: they are there, and what else a load would see to is seen to. */
static bool iq_image_is_lent(const iq_image_loader *loader) { return IQ_ONLY_BLOBS || loader->in_place; }

/* A norm may be infinite (components near FLT_MAX), but neither NaN nor negative. */
IQ_FN bool iq_image_is_vector(const iqdb *db, const uint8_t *vector, float norm) {
    const size_t size = db->records.rows.stride * sizeof(float);
    bool sound = iq_vector_is_sound(db->records.kernel, db->element, vector, db->records.rows.dim) &&
                 iq_f32_bits(norm) <= 0x7F800000u;
    for (size_t k = iq_db_vector_bytes(db, db->records.rows.dim); k < size; k++) sound = sound && vector[k] == 0;
    return sound;
}

/* Row i of the snapshot. */
static iqdb_result iq_image_check_vector(iq_image_loader *loader, const iq_slab *slab, uint32_t index, uint32_t i) {
    const iqdb *db = loader->db;
    const size_t size = db->records.rows.stride * sizeof(float);
    const uint8_t *vector = (const uint8_t *)(const void *)(slab->vectors + index * db->records.rows.stride);
    if (iq_image_is_vector(db, vector, slab->norms[index])) return IQDB_OK;
    return iq_image_reject(loader, IQ_SECTION_VECTORS, (uint64_t)i * size, "a vector is not one");
}

/* With a sound vector it becomes a record. */
static iqdb_result iq_image_check_head(iq_image_loader *loader, const iq_slab *slab, uint32_t index, uint32_t i) {
    iqdb *db = loader->db;
    const bool has_table = !IQ_SMALL && db->records.rows.lent.place_count > 0 && !iq_image_is_delta(loader);
    const uint64_t id = iq_row_id(slab, index);
    uint64_t ref = iq_row_payload(slab, index);
    iq_spot twin;
    uint64_t *place = iq_ids_place(&db->records.ids, &db->records.rows, id, &twin);
    iqdb_result result = iq_image_is_delta(loader) ? iq_records_claim(&db->records, id) : IQDB_OK;
    if (result != IQDB_OK) return result;
    if (has_table ? twin.row != i : twin.slab != NULL && twin.row >= loader->row_base)
        return iq_image_reject(loader, IQ_SECTION_IDS, (uint64_t)i * 8, "an id stands twice");
    result = iq_image_check_payload(loader, &ref);
    if (result != IQDB_OK) return result;
    if (!iq_image_is_lent(loader)) {
        slab->heads[index].payload = ref;
        result = iq_records_count_in(&db->records, id, iq_heap_payload(&db->records.heap, ref).size);
        if (result != IQDB_OK) return result;
        if (!iq_image_is_delta(loader)) iq_rows_fill(&db->records.rows, slab, index);
    }
    if (iq_image_is_delta(loader)) {
        iq_records_upsert(&db->records, loader->row_base + i);
    } else {
        if (!has_table) iq_ids_put(&db->records.ids, place, id, i);
        db->records.live_count++;
    }
    return IQDB_OK;
}

/* `width` words of each row. */
static iqdb_result iq_image_read_floats(iq_image_loader *loader, uint32_t kind, uint64_t first, uint32_t count,
                                        size_t width, float *out) {
    const size_t row_size = width * sizeof(float);
    const iqdb_result result =
        iq_snapshot_read(loader->reader, loader->db->number, kind, first * row_size, out, count * row_size);
    if (IQ_BIG_ENDIAN && result == IQDB_OK)
        iq_element_copy_le(kind == IQ_SECTION_NORMS ? IQDB_ELEMENT_F32 : loader->db->element, out, out,
                           count * row_size);
    return result;
}

/* The heads of rows, from their ids and payload references in the file's byte order. */
static void iq_image_fill_heads(const iq_slab *slab, uint32_t index, const uint8_t *ids, const uint8_t *payloads,
                                uint32_t count) {
    iq_row_head *heads = slab->heads + index;
    iq_row_links *links = slab->links + index;
    for (uint32_t i = 0; i < count; i++) {
        heads[i].id = iq_get_u64(ids + (size_t)i * 8);
        heads[i].payload = iq_get_u64(payloads + (size_t)i * 8);
        heads[i].birth = 1; /* the first moment there is */
        heads[i].death = IQ_MOMENT_NEVER;
        links[i].previous = links[i].next = IQ_ROW_NONE;
    }
}

/* Heads and norms of the rows [first, first + count) of the snapshot, which go to the end of a slab, or not so far. Ids
 * wait in the links, and references where the vectors will be: nothing of these is smaller. */
static iqdb_result iq_image_load_heads(iq_image_loader *loader, const iq_slab *slab, uint32_t index, uint32_t first,
                                       uint32_t count) {
    const size_t at = (size_t)first * 8, size = (size_t)count * 8;
    loader->db->records.rows.count = loader->row_base + first + count;
    const size_t stride = loader->db->records.rows.stride;
    uint8_t *ids = (uint8_t *)(void *)(slab->links + index);
    uint8_t *payloads = (uint8_t *)(void *)(slab->vectors + index * stride);
    iqdb_result result = iq_snapshot_read(loader->reader, loader->db->number, IQ_SECTION_IDS, at, ids, size);
    if (result == IQDB_OK)
        result = iq_snapshot_read(loader->reader, loader->db->number, IQ_SECTION_PAYLOAD_REFS, at, payloads, size);
    if (result != IQDB_OK) return result;
    iq_image_fill_heads(slab, index, ids, payloads, count);
    return iq_image_read_floats(loader, IQ_SECTION_NORMS, first, count, 1, slab->norms + index);
}

/* The basis of narrow codes, of `dims` dimensions, which there is memory for where the section is that long. */
static iqdb_result iq_image_load_basis(iq_image_loader *loader, uint32_t dims) {
    iq_rows *rows = &loader->db->records.rows;
    const size_t bytes = iq_basis_bytes(rows->dim, dims);
    float *memory = iq_rows_basis_memory(rows, dims);
    if (memory == NULL) return IQDB_ERR_NOMEM;
    const iqdb_result result =
        iq_snapshot_read(loader->reader, loader->db->number, IQ_SECTION_CODES, IQ_CODES_HEAD, memory, bytes);
    if (IQ_BIG_ENDIAN) iq_element_copy_le(IQDB_ELEMENT_F32, memory, memory, bytes);
    if (result != IQDB_OK) iq_free(rows->allocator, memory, bytes, IQ_CACHE_LINE);
    if (result != IQDB_OK) return result;
    if (!iq_rows_set_basis(rows, dims, memory))
        return iq_image_reject(loader, IQ_SECTION_CODES, IQ_CODES_HEAD, "the basis of the codes is none");
    loader->codes_at += bytes;
    return IQDB_OK;
}

/* Whether the section of codes is of these rows, and as they are coded here. */
static iqdb_result iq_image_look_at_codes(iq_image_loader *loader) {
    const iq_rows *rows = &loader->db->records.rows;
    const uint64_t blocks = (loader->rows + IQ_CODES_ROWS - 1) / IQ_CODES_ROWS;
    uint8_t head[IQ_CODES_HEAD];
    uint64_t size;
    loader->has_codes = !iq_image_is_delta(loader) && iq_rows_have_codes(rows) &&
                        iq_snapshot_find(loader->reader, loader->db->number, IQ_SECTION_CODES, &size);
    if (!loader->has_codes) return IQDB_OK;
    iqdb_result result = iq_snapshot_read(loader->reader, loader->db->number, IQ_SECTION_CODES, 0, head, sizeof head);
    if (result != IQDB_OK) return result;
    const uint32_t tag = iq_get_u32(head + IQ_CODES_TAG_AT), dims = iq_get_u32(head + IQ_CODES_DIMS_AT);
    loader->narrow = tag == IQ_CODES_TAG_NARROW;
    loader->has_codes = loader->narrow || tag == IQ_CODES_TAG_NIBBLES;
    if (!loader->has_codes) return iq_snapshot_pass_over(loader->reader, loader->db->number, IQ_SECTION_CODES);
    const uint32_t coded = loader->narrow ? dims : rows->dim;
    loader->codes_at = IQ_CODES_HEAD;
    const uint64_t before = IQ_CODES_HEAD + (loader->narrow && dims <= rows->dim ? iq_basis_bytes(rows->dim, dims) : 0);
    if (iq_get_u32(head + IQ_CODES_DIM_AT) != rows->dim || iq_get_u32(head + IQ_CODES_UNIT_AT) != rows->quant.unit ||
        iq_get_u32(head + IQ_CODES_ROWS_AT) != loader->rows || coded > rows->dim || size < before ||
        size - before != blocks * iq_codes_block_bytes(iq_codes_groups(coded)))
        return iq_image_reject(loader, IQ_SECTION_CODES, 0, "the codes are not those of the rows");
    return loader->narrow ? iq_image_load_basis(loader, dims) : IQDB_OK;
}

/* Those of `count` rows, the first of which is the first of the slab. */
static iqdb_result iq_image_load_codes(const iq_image_loader *loader, const iq_slab *slab, uint32_t first,
                                       uint32_t count) {
    const iq_rows *rows = &loader->db->records.rows;
    const size_t bytes = iq_quant_block_bytes(loader->narrow ? &rows->narrow : &rows->quant);
    const uint64_t at = loader->codes_at + (uint64_t)(first / IQ_CODES_ROWS) * bytes;
    const iqdb_result result = iq_snapshot_read(loader->reader, loader->db->number, IQ_SECTION_CODES, at, slab->blocks,
                                                (count + IQ_CODES_ROWS - 1) / IQ_CODES_ROWS * bytes);
    if (result == IQDB_OK) iq_rows_adopt_codes(slab, 0, count, loader->narrow);
    return result;
}

/* What could not be loaded is made from the rows, where that is wanted. */
static iqdb_result iq_image_forgive_codes(iq_image_loader *loader, iqdb_result result) {
    if (!iq_db_rebuilds(loader->db, loader->reader, IQ_SECTION_CODES, result)) return result;
    loader->has_codes = false;
    return IQDB_OK;
}

/* The rows from *first to the end of their slab, or to the last one: their heads, and then their vectors piece by piece,
 * so that each is still in the cache when it is checked and coded. */
static iqdb_result iq_image_load_slab(iq_image_loader *loader, uint32_t *first) {
    iqdb *db = loader->db;
    const iq_rows *rows = &db->records.rows;
    const uint32_t piece = IQ_IMAGE_READ / (uint32_t)(rows->stride * sizeof(float));
    uint32_t at;
    const size_t number = iq_slab_of_row(rows, loader->row_base + *first, &at);
    uint32_t count = iq_slab_rows(rows, number) - at;
    if (count > loader->rows - *first) count = (uint32_t)(loader->rows - *first);
    const bool is_lent = iq_image_is_lent(loader);
    iqdb_result result =
        is_lent ? IQDB_OK : iq_rows_reserve(&db->records.rows, (size_t)loader->row_base + *first + count);
    if (result == IQDB_OK && iq_image_is_delta(loader)) result = iq_records_reserve(&db->records, count);
    if (result != IQDB_OK) return result;
    const iq_slab *slab = &rows->slabs[number];
    if (!IQ_SMALL && loader->has_codes && !is_lent)
        result = iq_image_forgive_codes(loader, iq_image_load_codes(loader, slab, *first, count));
    if (result == IQDB_OK && !is_lent) result = iq_image_load_heads(loader, slab, at, *first, count);
    for (uint32_t i = 0; i < count && result == IQDB_OK; i++) {
        if (i + IQ_IMAGE_AHEAD < count && !is_lent)
            iq_ids_prefetch(&db->records.ids, slab->heads[at + i + IQ_IMAGE_AHEAD].id);
        if (i % piece == 0 && !is_lent)
            result = iq_image_read_floats(loader, IQ_SECTION_VECTORS, (uint64_t)*first + i,
                                          count - i < piece ? count - i : piece, rows->stride,
                                          slab->vectors + (at + i) * rows->stride);
        if (result == IQDB_OK) result = iq_image_check_vector(loader, slab, at + i, *first + i);
        if (result == IQDB_OK) result = iq_image_check_head(loader, slab, at + i, *first + i);
    }
    if (result == IQDB_OK && iq_image_is_delta(loader)) iq_records_publish(&db->records, db->home->common.lsn);
    *first += count;
    return result;
}

static iqdb_result iq_image_load_deleted(iq_image_loader *loader, uint32_t count) {
    iqdb *db = loader->db;
    uint64_t size;
    const bool has_any = iq_snapshot_find(loader->reader, db->number, IQ_SECTION_DELETED, &size);
    if (has_any ? size != (uint64_t)count * 8 : count > 0)
        return iq_image_reject(loader, IQ_SECTION_DELETED, 0, "there are not as many deleted ids as there should be");
    for (uint32_t i = 0; i < count; i++) {
        uint8_t id[8];
        iqdb_result result =
            iq_snapshot_read(loader->reader, db->number, IQ_SECTION_DELETED, (uint64_t)i * 8, id, sizeof id);
        if (result == IQDB_OK) result = iq_records_reserve(&db->records, 1);
        if (result == IQDB_OK) result = iq_records_claim(&db->records, iq_get_u64(id));
        if (result != IQDB_OK) return result;
        if (iq_records_delete(&db->records, iq_get_u64(id))) iq_records_publish(&db->records, db->home->common.lsn);
    }
    return IQDB_OK;
}

IQ_FN iqdb_result iq_image_catalog(iq_snapshot_reader *reader, uint32_t collection, iq_catalog *out_catalog) {
    uint8_t catalog[IQ_CATALOG_SIZE];
    uint64_t size;
    if (!iq_snapshot_find(reader, collection, IQ_SECTION_CATALOG, &size) || size < sizeof catalog ||
        size > sizeof catalog + IQDB_NAME_SIZE_MAX)
        return iq_snapshot_reject(reader, collection, IQ_SECTION_CATALOG, 0, "the collection has no catalog");
    iqdb_result result = iq_snapshot_read(reader, collection, IQ_SECTION_CATALOG, 0, catalog, sizeof catalog);
    iq_schema *schema = &out_catalog->schema;
    out_catalog->name_size = (size_t)size - sizeof catalog;
    if (result == IQDB_OK)
        result = iq_snapshot_read(reader, collection, IQ_SECTION_CATALOG, sizeof catalog, out_catalog->name,
                                  out_catalog->name_size);
    if (result != IQDB_OK) return result;
    schema->dim = iq_get_u32(catalog + IQ_CATALOG_DIM);
    schema->metric = iq_get_u32(catalog + IQ_CATALOG_METRIC);
    schema->element = iq_get_u32(catalog + IQ_CATALOG_ELEMENT);
    out_catalog->rows = iq_get_u64(catalog + IQ_CATALOG_ROWS);
    out_catalog->records = iq_get_u64(catalog + IQ_CATALOG_RECORDS);
    out_catalog->deleted = iq_get_u32(catalog + IQ_CATALOG_DELETED);
    out_catalog->next_number =
        collection == 0 && out_catalog->name_size == 4 ? iq_get_u32((const uint8_t *)out_catalog->name) : 1;
    if (!iq_schema_is_valid(schema) || (schema->dim == 0 && out_catalog->rows > 0) ||
        out_catalog->rows > IQ_ROW_COUNT_MAX ||
        (collection != 0 ? !iq_name_is_valid(out_catalog->name, out_catalog->name_size)
                         : out_catalog->name_size > 0 && out_catalog->next_number <= 1))
        return iq_snapshot_reject(reader, collection, IQ_SECTION_CATALOG, 0, "the catalog makes no sense");
    return IQDB_OK;
}

IQ_FN iqdb_result iq_image_model(iq_snapshot_reader *reader, char *out_model) {
    uint64_t size;
    memset(out_model, 0, IQ_META_MODEL_SIZE);
    if (!iq_snapshot_find(reader, 0, IQ_SECTION_MODEL, &size)) return IQDB_OK;
    iqdb_result result = IQDB_OK;
    if (size < IQ_META_MODEL_SIZE) result = iq_snapshot_read(reader, 0, IQ_SECTION_MODEL, 0, out_model, (size_t)size);
    if (result != IQDB_OK || (size > 0 && size < IQ_META_MODEL_SIZE && iq_model_is_valid(out_model, (size_t)size)))
        return result;
    return iq_snapshot_reject(reader, 0, IQ_SECTION_MODEL, 0, "the tag of the model makes no sense");
}

IQ_FN iqdb_result iq_image_keys(iq_snapshot_reader *reader, iqdb *db) {
    iq_blob *scratch = &db->home->encoded;
    uint64_t size;
    db->key_set.size = 0;
    if (IQ_SMALL || !iq_snapshot_find(reader, db->number, IQ_SECTION_KEYS, &size)) return IQDB_OK;
    if (size > IQ_KEY_SET_SIZE_MAX)
        return iq_snapshot_reject(reader, db->number, IQ_SECTION_KEYS, 0, "the set of indexed keys is too long");
    scratch->size = 0;
    iqdb_result result = iq_blob_reserve(scratch, (size_t)size);
    if (result == IQDB_OK)
        result = iq_snapshot_read(reader, db->number, IQ_SECTION_KEYS, 0, scratch->bytes, (size_t)size);
    if (result != IQDB_OK) return result;
    result = iq_collection_keep_keys(db, scratch->bytes, (size_t)size);
    if (result != IQDB_ERR_CORRUPT) return result;
    return iq_snapshot_reject(reader, db->number, IQ_SECTION_KEYS, 0, "the keys to be indexed make no sense");
}

IQ_FN iqdb_result iq_image_choice(iq_snapshot_reader *reader, iqdb *db) {
    uint8_t bytes[IQ_CHOICE_SIZE];
    iq_index_choice choice;
    uint64_t size;
    if (IQ_SMALL || !iq_snapshot_find(reader, db->number, IQ_SECTION_CHOICE, &size)) return IQDB_OK;
    if (size != sizeof bytes)
        return iq_snapshot_reject(reader, db->number, IQ_SECTION_CHOICE, 0, "the choice of an index has another size");
    iqdb_result result = iq_snapshot_read(reader, db->number, IQ_SECTION_CHOICE, 0, bytes, sizeof bytes);
    if (result == IQDB_OK && !iq_index_is_known(iq_get_u32(bytes)))
        result = iq_snapshot_pass_over(reader, db->number, IQ_SECTION_CHOICE); /* of a later version */
    if (result == IQDB_OK) result = iq_index_choice_decode(db->home, bytes, &choice);
    if (result == IQDB_OK) (void)iq_db_index_choose(db, &choice);
    if (result == IQDB_OK) iq_db_index_refit(db);
    return result;
}

/* All rows of a base where they lie. */
static iqdb_result iq_image_lend(iq_image_loader *loader) {
    iq_rows *rows = &loader->db->records.rows;
    iq_lent lent;
    uint64_t size;
    memset(&lent, 0, sizeof lent);
    lent.count = (uint32_t)loader->rows;
    lent.vectors = (float *)(void *)iq_image_view(loader, IQ_SECTION_VECTORS);
    lent.norms = (float *)(void *)iq_image_view(loader, IQ_SECTION_NORMS);
    lent.ids = iq_image_view(loader, IQ_SECTION_IDS);
    lent.payloads = iq_image_view(loader, IQ_SECTION_PAYLOAD_REFS);
    lent.heap = loader->payloads;
    lent.heap_size = (size_t)loader->payload_size;
    if (!IQ_SMALL && loader->has_codes) lent.codes = iq_image_view(loader, IQ_SECTION_CODES) + loader->codes_at;
    lent.narrow = loader->narrow;
    if (!IQ_SMALL && (uintptr_t)lent.codes % IQ_CACHE_LINE != 0) lent.codes = NULL;
    if (!IQ_SMALL && lent.codes == NULL && lent.count >= IQ_IMAGE_CODED) { /* too many to be looked at one by one */
        rows->coded_for = IQDB_METRIC_DEFAULT;
        iq_rows_set_dim(rows, rows->dim);
    }
    if (!IQ_SMALL && iq_snapshot_find(loader->reader, loader->db->number, IQ_SECTION_ID_TABLE, &size) && size >= 8) {
        lent.places = iq_image_view(loader, IQ_SECTION_ID_TABLE);
        lent.place_count = (size_t)(size / 8);
    }
    if (!IQ_SMALL) lent.touch_fn = iq_lend_touch;
    if (!IQ_SMALL) lent.user = loader->db;
    const iqdb_result result = iq_rows_lend(rows, &lent);
    if (result != IQDB_OK || IQ_SMALL || !loader->is_mapped) {
        if (result == IQDB_OK) iq_rows_believe(rows);
        return result;
    }
    return iq_lend_map(loader->db);
}

static iqdb_result iq_image_load_rows(iq_image_loader *loader) {
    iq_records *records = &loader->db->records;
    uint32_t first = 0;
    iqdb_result result = iq_image_check_sizes(loader);
    if (result == IQDB_OK) result = iq_image_load_payload_bytes(loader);
    if (result == IQDB_OK && !IQ_SMALL) result = iq_image_forgive_codes(loader, iq_image_look_at_codes(loader));
    if (result == IQDB_OK && (IQ_ONLY_BLOBS || loader->in_place)) result = iq_image_lend(loader);
    if (!IQ_SMALL && loader->is_mapped) return result;
    if (result == IQDB_OK && (IQ_SMALL || records->rows.lent.place_count == 0))
        result = iq_ids_reserve(&records->ids, (size_t)loader->rows);
    while (result == IQDB_OK && first < loader->rows) result = iq_image_load_slab(loader, &first);
    if (result == IQDB_OK && loader->payload_size != 0 && loader->payload_cursor != loader->payload_size)
        result = iq_image_reject(loader, IQ_SECTION_PAYLOADS, loader->payload_cursor, "bytes behind the last payload");
    if (!IQ_ONLY_BLOBS && result == IQDB_OK && !iq_image_is_delta(loader) && !loader->in_place)
        result = iq_db_index_load(loader->db, loader->reader);
    return result;
}

/* The collection as its catalog has it. */
static iqdb_result iq_image_load_collection(iq_snapshot_reader *reader, iqdb *db, const iq_catalog *catalog,
                                            bool is_delta, bool in_place) {
    iq_image_loader loader;
    iq_records *records = &db->records;
    iqdb_result result = IQDB_OK;
    memset(&loader, 0, sizeof loader);
    loader.db = db;
    loader.reader = reader;
    loader.rows = (iq_place)catalog->rows;
    loader.delta = is_delta;
    loader.in_place = in_place && !IQ_BIG_ENDIAN;
    loader.is_mapped = !IQ_SMALL && loader.in_place && iq_snapshot_is_mapped(reader);
    loader.row_base = records->rows.count;
    if (!IQ_ONLY_BLOBS && /* which has just been taken from there */
        (catalog->schema.metric != (uint32_t)db->metric || catalog->schema.element != (uint32_t)db->element))
        return iq_image_reject(&loader, IQ_SECTION_CATALOG, 0,
                               "the catalog has another metric or element than was there before");
    if (!IQ_ONLY_BLOBS && records->rows.count > 0 && catalog->schema.dim != records->rows.dim)
        return iq_image_reject(&loader, IQ_SECTION_CATALOG, 0, "the catalog has another dimension than the base");
    if (!IQ_ONLY_BLOBS && catalog->schema.dim != 0) iq_rows_set_dim(&records->rows, catalog->schema.dim);
    if (catalog->rows > IQ_ROW_COUNT_MAX - loader.row_base) return IQDB_ERR_LIMIT;
    result = iq_image_choice(reader, db);
    if (result == IQDB_OK && iq_image_is_delta(&loader)) result = iq_image_load_deleted(&loader, catalog->deleted);
    if (result == IQDB_OK && loader.rows > 0) result = iq_image_load_rows(&loader);
    if (result == IQDB_OK && iq_image_is_delta(&loader) && records->live_count != catalog->records)
        result =
            iq_image_reject(&loader, IQ_SECTION_CATALOG, 0, "the snapshots do not add up to the collection's records");
    return result;
}

IQ_FN uint32_t iq_image_drop(iq_home *home, uint32_t from, uint32_t end) {
    for (iqdb *db; (db = iq_home_seek(home, from, IQ_MOMENT_LAST)) != NULL && db->number < end; from = db->number + 1)
        iq_home_bury(db);
    return end + (end < UINT32_MAX);
}

/* A collection that is new, or the same as before. */
static iqdb_result iq_image_load_named(iq_snapshot_reader *reader, iq_home *home, uint32_t number, bool is_delta,
                                       bool in_place) {
    iq_catalog catalog;
    iqdb *db = iq_home_find(home, number);
    iqdb_result result = iq_image_catalog(reader, number, &catalog);
    if (result != IQDB_OK) return result;
    if (db == NULL) result = iq_home_add(home, number, &catalog.schema, catalog.name, catalog.name_size, &db);
    if (result == IQDB_ERR_CORRUPT || (result == IQDB_OK && (strlen(db->name) != catalog.name_size ||
                                                             memcmp(db->name, catalog.name, catalog.name_size) != 0)))
        return iq_snapshot_reject(reader, number, IQ_SECTION_CATALOG, 0,
                                  "the collection cannot be one of the database");
    if (result == IQDB_OK) result = iq_image_keys(reader, db);
    if (result == IQDB_OK) result = iq_image_load_collection(reader, db, &catalog, is_delta, in_place);
    if (result == IQDB_OK) iq_records_publish(&db->records, home->common.lsn);
    return result;
}

IQ_FN iqdb_result iq_image_load(iq_snapshot_reader *reader, iq_home *home, bool is_delta, bool in_place) {
    iq_catalog catalog;
    uint32_t number = 1, from = 1;
    char model[IQ_META_MODEL_SIZE];
    iqdb_result result = iq_image_catalog(reader, 0, &catalog);
    if (IQ_HAS_MODELS && result == IQDB_OK) result = iq_image_model(reader, model);
    if (IQ_HAS_MODELS && result == IQDB_OK) result = iq_home_adopt_model(home, model);
    if (IQ_ONLY_BLOBS && result == IQDB_OK) result = iq_db_adopt_schema(&home->root, &catalog.schema, "blob");
    if (!IQ_SMALL && in_place) home->lender = reader;
    if (!IQ_ONLY_BLOBS && result == IQDB_OK && catalog.next_number < home->next_number)
        result = iq_snapshot_reject(reader, 0, IQ_SECTION_CATALOG, 0, "the snapshot knows less than the one before it");
    if (result == IQDB_OK) result = iq_image_load_collection(reader, &home->root, &catalog, is_delta, in_place);
    if (IQ_ONLY_BLOBS && result == IQDB_OK && iq_snapshot_next(reader, &number))
        return iq_report(&home->reporter, IQDB_ERR_NOT_IMPLEMENTED, NULL, 0, "this build has one collection");
    for (; !IQ_ONLY_BLOBS && result == IQDB_OK && iq_snapshot_next(reader, &number); number++) {
        if (number >= catalog.next_number)
            return iq_snapshot_reject(reader, number, IQ_SECTION_CATALOG, 0, "there is no such collection");
        from = iq_image_drop(home, from, number);
        result = iq_image_load_named(reader, home, number, is_delta, in_place);
    }
    if (result != IQDB_OK) return result;
    if (!IQ_SMALL) (void)iq_image_drop(home, from, UINT32_MAX);
    home->next_number = catalog.next_number;
    if (IQ_ONLY_BLOBS) return IQDB_OK; /* who opens it publishes */
    iq_common_publish(&home->common, home->common.lsn);
    iq_home_sweep(home);
    return IQDB_OK;
}
