/* Copies of a whole database as blobs: the image that a checkpoint writes, sent somewhere else.
 *
 * 1. A copy is of one LSN. Only taking the image needs the handle to itself; what is written afterwards are rows that
 *    this LSN sees, which do not change.
 * 2. A handle over a blob in place is read-only, and writes nothing into the caller's memory. A blob of it is that one:
 *    there may be more in it than the handle makes use of. */
#include "db/db.h"

/* In place, ids and references are read as 64-bit numbers. */
#define IQ_BLOB_ALIGNMENT 8u
#define IQ_BLOB_PIECE 65536u

/* ---- Blobs ---- */

typedef struct iq_blob_source {
    const void *data;
    size_t size;
    bool in_place;
} iq_blob_source;

/* Every block is checked before anything in it is believed. */
static iqdb_result iq_blob_load(iqdb *db, const iqdb_options *options, const void *from) {
    const iq_blob_source *source = (const iq_blob_source *)from;
    iq_snapshot_entry entry = {0, 0, 0, 0, 0};
    iq_snapshot_reader *reader;
    iq_catalog catalog;
    if (source->in_place && (uintptr_t)source->data % IQ_BLOB_ALIGNMENT != 0)
        return iq_report(&db->home->reporter, IQDB_ERR_INVALID_ARGUMENT, "blob", 0,
                         "data does not lie at a multiple of 8: align it, or copy it by iqdb_load_blob");
    iqdb_result result = iq_snapshot_open_bytes(&db->home->config.volume, source->data, source->size, &entry, &reader);
    if (result != IQDB_OK) return result;
    if (!IQ_ONLY_BLOBS) result = iq_snapshot_check(reader); /* else that has been done */
    if (!IQ_ONLY_BLOBS && result == IQDB_OK) result = iq_image_catalog(reader, 0, &catalog);
    if (!IQ_ONLY_BLOBS && result == IQDB_OK) result = iq_db_adopt_schema(db, &catalog.schema, "blob");
    if (result == IQDB_OK) result = iq_image_load(reader, db->home, false, source->in_place);
    if (!IQ_SMALL) db->home->lender = NULL;
    iq_snapshot_close(reader);
    if (result != IQDB_OK) return result;
    db->home->read_only = source->in_place;
    if (source->in_place) db->home->blob.bytes = (const uint8_t *)source->data;
    if (source->in_place) db->home->blob.size = source->size;
    result = iq_db_finish(db, options, "blob");
    iq_records_publish(&db->records, entry.lsn);
    return result;
}

IQDB_API iqdb_result iqdb_open_blob(const void *data, size_t size, const iqdb_options *options, iqdb **out_db) {
    const iq_blob_source source = {data, size, true};
    return iq_db_open(options, iq_blob_load, data != NULL ? &source : NULL, out_db);
}

/* ---- Copies ---- */

#if IQ_HAS_WRITES

IQDB_API iqdb_result iqdb_load_blob(const void *data, size_t size, const iqdb_options *options, iqdb **out_db) {
    const iq_blob_source source = {data, size, false};
    return iq_db_open(options, iq_blob_load, data != NULL ? &source : NULL, out_db);
}

typedef struct iq_export {
    iqdb_write_fn write;
    void *user;
} iq_export;

static iqdb_result iq_export_write(const void *bytes, size_t size, void *user) {
    const iq_export *target = (const iq_export *)user;
    return target->write(bytes, size, target->user) ? IQDB_OK : IQDB_ERR_IO;
}

static iqdb_result iq_export_again(const iq_slice *blob, iq_export *target) {
    iqdb_result result = IQDB_OK;
    for (size_t at = 0, part; at < blob->size && result == IQDB_OK; at += part) {
        part = blob->size - at < IQ_BLOB_PIECE ? blob->size - at : IQ_BLOB_PIECE;
        result = iq_export_write((const uint8_t *)blob->bytes + at, part, target);
    }
    return result;
}

static iqdb_result iq_export_leave(iqdb *db, iqdb_result result) {
    if (result == IQDB_ERR_IO) (void)iq_db_tell(db, result, "the caller's function did not take the bytes");
    return iq_db_leave_with(db, result);
}

IQDB_API iqdb_result iqdb_export_blob(iqdb *db, iqdb_write_fn write, void *user) {
    iq_export target = {write, user};
    const iq_sink sink = {iq_export_write, &target};
    iqdb_stats stats;
    iqdb_result result = iq_db_enter_upkeep(db, write == NULL ? "write is NULL" : NULL);
    if (result != IQDB_OK) return result;
    if (db->home->blob.size > 0) return iq_export_leave(db, iq_export_again(&db->home->blob, &target));
    iq_image image = iq_image_take(db->home, 0);
    iq_snapshot_entry entry = {1, 0, image.lsn, 0, 0};
    iq_snapshot_writer *writer;
    memset(&stats, 0, sizeof stats);
    if (iq_db_directory(db) != NULL) iq_directory_describe(db->home->directory, &stats);
    result = iq_snapshot_begin(&sink, &db->home->config.volume, stats.uuid, &entry, &writer);
    if (result == IQDB_OK) result = iq_image_write(writer, &image);
    result = iq_snapshot_end(writer, result, &entry);
    iq_image_end(&image);
    return iq_export_leave(db, result);
}

#endif

/* ---- A closed database from outside ---- */

#if IQ_HAS_FILES

static void iq_inspect_describe(const iq_schema *schema, iqdb_stats *stats) {
    stats->dim = schema->dim;
    stats->metric = (iqdb_metric)schema->metric;
    stats->element = (iqdb_element)schema->element;
}

static iqdb_result iq_inspect_schema(const iq_manifest *manifest, void *user) {
    iq_inspect_describe(&manifest->schema, (iqdb_stats *)user);
    return IQDB_OK;
}

static iqdb_result iq_inspect_snapshot(iq_snapshot_reader *reader, void *user) {
    iq_catalog catalog;
    iqdb_stats *stats = (iqdb_stats *)user;
    const iqdb_result result = iq_image_catalog(reader, 0, &catalog);
    stats->collections = 0;
    for (uint32_t number = 1; iq_snapshot_next(reader, &number); number++) stats->collections++;
    if (result != IQDB_OK) return result;
    stats->records = catalog.records > 0 ? catalog.records : catalog.rows;
    iq_inspect_describe(&catalog.schema, stats);
    return IQDB_OK;
}

IQDB_API iqdb_result iqdb_inspect(const char *path, iqdb_stats *out_stats) {
    iqdb_stats stats;
    const iq_loader loader = {iq_inspect_schema, iq_inspect_snapshot, NULL, &stats, NULL};
    iq_directory_config config;
    if (path == NULL || out_stats == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    memset(&config, 0, sizeof config);
    memset(&stats, 0, sizeof stats);
    config.volume.allocator = iq_alloc_default();
    config.volume.files = iqdb_files_default();
    const iqdb_result result = iq_directory_inspect(path, &config, &loader, &stats);
    if (result != IQDB_OK) return result;
    stats.format_version = IQDB_FORMAT_VERSION;
    *out_stats = stats;
    return IQDB_OK;
}

#endif
