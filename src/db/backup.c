/* Copies of a whole database: blobs and backups. Both are the image that a checkpoint writes, sent somewhere else.
 *
 * 1. A copy is of one LSN. Only taking the image needs the handle to itself; what is written afterwards are rows that
 *    this LSN sees, which do not change.
 * 2. A handle over a blob in place is read-only, and writes nothing into the caller's memory. */
#include "db/db.h"

/* In place, ids and references are read as 64-bit numbers. */
#define IQ_BLOB_ALIGNMENT 8u

/* ---- Blobs ---- */

typedef struct iq_export {
    iqdb_write_fn write;
    void *user;
} iq_export;

static iqdb_result iq_export_write(const void *bytes, size_t size, void *user) {
    const iq_export *target = (const iq_export *)user;
    return target->write(bytes, size, target->user) ? IQDB_OK : IQDB_ERR_IO;
}

IQDB_API iqdb_result iqdb_export_blob(iqdb *db, iqdb_write_fn write, void *user) {
    iq_export target = {write, user};
    const iq_sink sink = {iq_export_write, &target};
    iqdb_stats stats;
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (write == NULL) return iq_db_refuse(db, "write is NULL");
    iqdb_result result = iq_db_enter_upkeep(db);
    if (result != IQDB_OK) return result;
    iq_image image = iq_image_take(db);
    iq_snapshot_entry entry = {1, 0, image.lsn, 0};
    memset(&stats, 0, sizeof stats);
    if (db->directory != NULL) iq_directory_describe(db->directory, &stats);
    result = iq_snapshot_produce(&sink, &db->allocator, db->crc32, stats.uuid, &entry, iq_image_write, &image);
    if (result == IQDB_ERR_IO)
        (void)iq_report(&db->reporter, result, NULL, 0, "the caller's function did not take the bytes");
    return iq_db_leave_with(db, result);
}

typedef struct iq_blob_source {
    const void *data;
    size_t size;
    bool in_place;
} iq_blob_source;

/* Every block is checked before anything in it is believed. */
static iqdb_result iq_blob_load(iqdb *db, const iqdb_options *options, const void *from) {
    const iq_blob_source *source = (const iq_blob_source *)from;
    iq_volume volume;
    iq_snapshot_entry entry;
    iq_snapshot_reader *reader;
    iq_schema schema;
    uint64_t rows;
    if (source->in_place && (uintptr_t)source->data % IQ_BLOB_ALIGNMENT != 0)
        return iq_report(&db->reporter, IQDB_ERR_INVALID_ARGUMENT, "blob", 0,
                         "data does not lie at a multiple of 8: align it, or copy it by iqdb_load_blob");
    memset(&volume, 0, sizeof volume);
    volume.allocator = db->allocator;
    volume.reporter = &db->reporter;
    volume.crc32 = db->crc32;
    iqdb_result result = iq_snapshot_open_bytes(&volume, source->data, source->size, &entry, &reader);
    if (result != IQDB_OK) return result;
    result = iq_snapshot_check(reader);
    if (result == IQDB_OK) result = iq_image_schema(reader, &schema, &rows);
    if (result == IQDB_OK) result = iq_db_adopt_schema(db, options, &schema, "blob");
    if (result == IQDB_OK) result = iq_image_load(reader, db, source->in_place);
    iq_snapshot_close(reader);
    if (result != IQDB_OK) return result;
    db->read_only = source->in_place;
    result = iq_db_finish(db, options, "blob");
    iq_records_publish(&db->records, entry.lsn);
    return result;
}

IQDB_API iqdb_result iqdb_open_blob(const void *data, size_t size, const iqdb_options *options, iqdb **out_db) {
    const iq_blob_source source = {data, size, true};
    return iq_db_open(options, iq_blob_load, data != NULL ? &source : NULL, out_db);
}

IQDB_API iqdb_result iqdb_load_blob(const void *data, size_t size, const iqdb_options *options, iqdb **out_db) {
    const iq_blob_source source = {data, size, false};
    return iq_db_open(options, iq_blob_load, data != NULL ? &source : NULL, out_db);
}

/* ---- Backups ---- */

IQDB_API iqdb_result iqdb_backup(iqdb *db, const char *path) {
    iqdb_stats stats;
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (path == NULL) return iq_db_refuse(db, "path is NULL");
    const iqdb_result result = iq_db_enter_upkeep(db);
    if (result != IQDB_OK) return result;
    if (db->directory != NULL) iq_directory_describe(db->directory, &stats);
    const uint8_t *uuid = db->directory != NULL ? stats.uuid : NULL;
    return iq_db_leave_with(db, iq_image_to_directory(db, path, uuid, db->records.lsn));
}

/* ---- A closed database from outside ---- */

static iqdb_result iq_inspect_schema(const iq_schema *schema, void *user) {
    iqdb_stats *stats = (iqdb_stats *)user;
    stats->dim = schema->dim;
    stats->metric = (iqdb_metric)schema->metric;
    return IQDB_OK;
}

static iqdb_result iq_inspect_snapshot(iq_snapshot_reader *reader, void *user) {
    iq_schema schema;
    const iqdb_result result = iq_image_schema(reader, &schema, &((iqdb_stats *)user)->records);
    return result == IQDB_OK ? iq_inspect_schema(&schema, user) : result;
}

IQDB_API iqdb_result iqdb_inspect(const char *path, iqdb_stats *out_stats) {
    iqdb_stats stats;
    const iq_loader loader = {iq_inspect_schema, iq_inspect_snapshot, NULL, &stats};
    iq_directory_config config;
    if (path == NULL || out_stats == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    memset(&config, 0, sizeof config);
    memset(&stats, 0, sizeof stats);
    config.allocator = iq_alloc_default();
    config.files = iqdb_files_default();
    const iqdb_result result = iq_directory_inspect(path, &config, &loader, &stats);
    if (result != IQDB_OK) return result;
    stats.format_version = IQDB_FORMAT_VERSION;
    *out_stats = stats;
    return IQDB_OK;
}
