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

static iqdb_result iq_export_image(iqdb *db, iq_export *target) {
    iq_image image = iq_image_take(db);
    iq_directory_facts facts;
    iq_snapshot_entry entry;
    iq_sink sink;
    memset(&facts, 0, sizeof facts);
    memset(&entry, 0, sizeof entry);
    if (db->directory != NULL) iq_directory_describe(db->directory, &facts);
    entry.number = 1;
    entry.lsn = image.lsn;
    sink.write_fn = iq_export_write;
    sink.user = target;
    return iq_snapshot_produce(&sink, &db->allocator, db->crc32, facts.uuid, &entry, iq_image_write, &image);
}

IQDB_API iqdb_result iqdb_export_blob(iqdb *db, iqdb_write_fn write, void *user) {
    iq_export target;
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (write == NULL) return iq_db_refuse(db, "write is NULL");
    iqdb_result result = iq_db_enter_upkeep(db);
    if (result != IQDB_OK) return result;
    target.write = write;
    target.user = user;
    result = iq_export_image(db, &target);
    if (result == IQDB_ERR_IO)
        (void)iq_report(&db->reporter, result, NULL, 0, "the caller's function did not take the bytes");
    return iq_db_leave_with(db, result);
}

/* Every block is checked before anything in it is believed. */
static iqdb_result iq_blob_load(iqdb *db, const void *data, size_t size, const iqdb_options *options, bool in_place) {
    iq_volume volume;
    iq_snapshot_entry entry;
    iq_snapshot_reader *reader;
    iq_schema schema;
    uint64_t rows;
    memset(&volume, 0, sizeof volume);
    volume.allocator = db->allocator;
    volume.reporter = &db->reporter;
    volume.crc32 = db->crc32;
    iqdb_result result = iq_snapshot_open_bytes(&volume, data, size, &entry, &reader);
    if (result != IQDB_OK) return result;
    result = iq_snapshot_check(reader);
    if (result == IQDB_OK) result = iq_image_schema(reader, &schema, &rows);
    if (result == IQDB_OK) result = iq_db_adopt_schema(db, options, &schema, "blob");
    if (result == IQDB_OK) result = iq_image_load(reader, db, in_place);
    iq_snapshot_close(reader);
    if (result != IQDB_OK) return result;
    db->read_only = in_place;
    result = iq_db_finish(db, options, "blob");
    iq_records_publish(&db->records, entry.lsn);
    return result;
}

static iqdb_result iq_blob_open(const void *data, size_t size, const iqdb_options *options, bool in_place,
                                iqdb **out_db) {
    const iqdb_options defaults = iqdb_options_default();
    if (options == NULL) options = &defaults;
    if (out_db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    *out_db = NULL;
    if (data == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    iqdb *db = NULL;
    iqdb_result result = iq_db_new(options, &db);
    if (result != IQDB_OK) return result;
    (void)iq_db_enter_upkeep(db);
    if (in_place && (uintptr_t)data % IQ_BLOB_ALIGNMENT != 0) {
        result = iq_report(&db->reporter, IQDB_ERR_INVALID_ARGUMENT, "blob", 0,
                           "data does not lie at a multiple of 8: align it, or copy it by iqdb_load_blob");
    } else {
        result = iq_blob_load(db, data, size, options, in_place);
    }
    result = iq_db_leave_with(db, result);
    if (result == IQDB_OK) {
        *out_db = db;
    } else {
        iq_db_free(db);
    }
    return result;
}

IQDB_API iqdb_result iqdb_open_blob(const void *data, size_t size, const iqdb_options *options, iqdb **out_db) {
    return iq_blob_open(data, size, options, true, out_db);
}

IQDB_API iqdb_result iqdb_load_blob(const void *data, size_t size, const iqdb_options *options, iqdb **out_db) {
    return iq_blob_open(data, size, options, false, out_db);
}

/* ---- Backups ---- */

static iqdb_result iq_backup_image(iqdb *db, const char *path) {
    const iq_directory_config config = iq_db_config(db);
    iq_image image = iq_image_take(db);
    iq_directory_content content;
    iq_directory_facts facts;
    content.uuid = NULL;
    content.lsn = image.lsn;
    content.write_fn = iq_image_write;
    content.user = &image;
    if (db->directory != NULL) {
        iq_directory_describe(db->directory, &facts);
        content.uuid = facts.uuid;
    }
    return iq_directory_make(path, &config, &content);
}

IQDB_API iqdb_result iqdb_backup(iqdb *db, const char *path) {
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (path == NULL) return iq_db_refuse(db, "path is NULL");
    const iqdb_result result = iq_db_enter_upkeep(db);
    return result == IQDB_OK ? iq_db_leave_with(db, iq_backup_image(db, path)) : result;
}

/* ---- A closed database from outside ---- */

typedef struct iq_inspection {
    iq_schema schema;
    uint64_t records;
} iq_inspection;

static iqdb_result iq_inspect_schema(const iq_schema *schema, void *user) {
    ((iq_inspection *)user)->schema = *schema;
    return IQDB_OK;
}

static iqdb_result iq_inspect_snapshot(iq_snapshot_reader *reader, void *user) {
    iq_inspection *inspection = (iq_inspection *)user;
    return iq_image_schema(reader, &inspection->schema, &inspection->records);
}

IQDB_API iqdb_result iqdb_inspect(const char *path, iqdb_stats *out_stats) {
    iq_directory_config config;
    iq_directory_facts facts;
    iq_inspection inspection;
    iq_loader loader;
    if (path == NULL || out_stats == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    memset(&config, 0, sizeof config);
    memset(&inspection, 0, sizeof inspection);
    memset(&loader, 0, sizeof loader);
    config.allocator = iq_alloc_default();
    config.files = iqdb_files_default();
    loader.schema_fn = iq_inspect_schema;
    loader.snapshot_fn = iq_inspect_snapshot;
    loader.user = &inspection;
    const iqdb_result result = iq_directory_inspect(path, &config, &loader, &facts);
    if (result != IQDB_OK) return result;
    memset(out_stats, 0, sizeof *out_stats);
    out_stats->records = inspection.records;
    out_stats->dim = inspection.schema.dim;
    out_stats->metric = (iqdb_metric)inspection.schema.metric;
    out_stats->format_version = IQDB_FORMAT_VERSION;
    iq_stats_of_directory(&facts, out_stats);
    return IQDB_OK;
}
