/* Opening, loading, and closing a handle; flush and checkpoint. */
#include "codec/record.h"
#include "db/db.h"

/* ---- Options ---- */

static bool iq_files_are_whole(const iqdb_files *files) {
    return files->dir_close_fn != NULL && files->dir_sync_fn != NULL && files->dir_list_fn != NULL &&
           files->remove_fn != NULL && files->open_fn != NULL && files->close_fn != NULL && files->size_fn != NULL &&
           files->read_fn != NULL && files->write_fn != NULL && files->sync_fn != NULL && files->lock_fn != NULL;
}

/* NULL, or what is wrong. */
static const char *iq_options_complaint(const iqdb_options *options) {
    if (options->dim > IQDB_DIM_MAX) return "options.dim is beyond IQDB_DIM_MAX";
    if (options->metric < IQDB_METRIC_DEFAULT || options->metric > IQDB_L1) return "options.metric is unknown";
    if (options->sync < IQDB_SYNC_FLUSH || options->sync > IQDB_SYNC_EACH) return "options.sync is unknown";
    if (options->verify < IQDB_DEPTH_DEFAULT || options->verify > IQDB_DEPTH_RECORDS)
        return "options.verify is unknown";
    if (options->simd_max < IQDB_SIMD_BEST || options->simd_max > IQDB_SIMD_NEON) return "options.simd_max is unknown";
    if (options->allocator.alloc_fn != NULL && options->allocator.free_fn == NULL)
        return "options.allocator has no free_fn";
    if (options->allocator.alloc_fn == NULL && !iq_alloc_has_default())
        return "options.allocator is needed: IQDB_NO_MALLOC has left out malloc";
    if (options->files.dir_open_fn != NULL && !iq_files_are_whole(&options->files))
        return "options.files has a function missing";
    return NULL;
}

IQDB_API iqdb_options iqdb_options_default(void) {
    iqdb_options options;
    memset(&options, 0, sizeof options);
    return options;
}

/* ---- The handle ---- */

IQ_FN void iq_db_free(iqdb *db) {
    const iqdb_allocator allocator = db->allocator;
    iq_free(&allocator, db->staged, db->staged_capacity * sizeof(uint32_t), 16);
    iq_blob_free(&db->encoded);
    iq_records_free(&db->records);
    iq_mutex_destroy(&db->mutex);
    iq_free(&allocator, db, sizeof *db, IQ_CACHE_LINE);
}

static iqdb_result iq_db_new(const iqdb_options *options, iqdb **out_db) {
    iq_reporter reporter;
    reporter.error = options->error;
    reporter.logger = options->logger;
    reporter.told = NULL;
    if (reporter.error != NULL) *reporter.error = iq_error_make(IQDB_OK, NULL, 0, NULL);
    const char *complaint = iq_options_complaint(options);
    if (complaint != NULL) return iq_report(&reporter, IQDB_ERR_INVALID_CONFIG, NULL, 0, complaint);
    const iqdb_allocator allocator = options->allocator.alloc_fn != NULL ? options->allocator : iq_alloc_default();
    iqdb *db = (iqdb *)iq_alloc_zeroed(&allocator, sizeof *db, IQ_CACHE_LINE);
    if (db == NULL || !iq_mutex_init(&db->mutex)) {
        iq_free(&allocator, db, sizeof *db, IQ_CACHE_LINE);
        return iq_report(&reporter, IQDB_ERR_NOMEM, NULL, 0, "no memory for a handle");
    }
    db->allocator = allocator;
    db->reporter = reporter;
    db->reporter.told = &db->told;
    db->parallel_for = options->parallel_for;
    db->sync = options->sync;
    db->compact_on_close = options->compact_on_close;
    db->metric = options->metric == IQDB_METRIC_DEFAULT ? IQDB_COSINE : options->metric;
    db->process = iq_process_identity();
    db->encoded.allocator = &db->allocator;
    db->cpu_features = iq_cpu_features();
    db->crc32 = iq_crc32_select(db->cpu_features, options->simd_max);
    db->files = options->files.dir_open_fn != NULL ? options->files : iqdb_files_default();
    db->entropy = options->entropy;
    if (db->entropy.fill_fn == NULL) db->entropy.fill_fn = iq_sys_entropy;
    iq_records_init(&db->records, &db->allocator, iq_kernel_select(db->cpu_features, options->simd_max));
    if (options->dim != 0) iq_rows_set_dim(&db->records.rows, options->dim);
    db->records.retired_max = options->retired_max != 0 ? options->retired_max : (uint64_t)256 << 20;
    iq_records_publish(&db->records, 0);
    *out_db = db;
    return IQDB_OK;
}

/* ---- Loading ---- */

typedef struct iq_opening {
    iqdb *db;
    const iqdb_options *options;
} iq_opening;

IQ_FN iqdb_result iq_db_adopt_schema(iqdb *db, const iqdb_options *options, const iq_schema *schema, const char *file) {
    const uint32_t metric = schema->metric, wanted = (uint32_t)options->metric;
    if (metric < IQDB_L2 || metric > IQDB_L1 || schema->element != 0 || schema->dim > IQDB_DIM_MAX)
        return iq_report(&db->reporter, IQDB_ERR_CORRUPT, file, 0, "the collection's description makes no sense");
    if (wanted != 0 && wanted != metric)
        return iq_report(&db->reporter, IQDB_ERR_INVALID_CONFIG, file, 0,
                         "options.metric differs from the stored metric");
    db->metric = (iqdb_metric)metric;
    /* What is stored fixes the dimension; options.dim is compared when all is loaded. */
    iq_rows_set_dim(&db->records.rows, schema->dim);
    return IQDB_OK;
}

/* A finding of options.verify goes where every other failure of open goes. */
static void iq_open_report(const iqdb_error *finding, void *user) {
    (void)iq_report_error(&((const iqdb *)user)->reporter, finding);
}

IQ_FN iqdb_result iq_db_finish(iqdb *db, const iqdb_options *options, const char *file) {
    if (db->records.rows.dim == 0) {
        iq_rows_set_dim(&db->records.rows, options->dim);
    } else if (options->dim != 0 && options->dim != db->records.rows.dim) {
        return iq_report(&db->reporter, IQDB_ERR_INVALID_CONFIG, file, 0,
                         "options.dim differs from the stored dimension");
    }
    iq_findings findings = iq_findings_make(iq_open_report, db);
    if (options->verify == IQDB_DEPTH_RECORDS) iq_verify_records(db, &findings);
    return findings.first;
}

static iqdb_result iq_open_schema(const iq_schema *schema, void *user) {
    const iq_opening *opening = (const iq_opening *)user;
    return iq_db_adopt_schema(opening->db, opening->options, schema, "META");
}

static iqdb_result iq_open_snapshot(iq_snapshot_reader *reader, void *user) {
    return iq_image_load(reader, ((const iq_opening *)user)->db, false);
}

static iqdb_result iq_open_upsert(iqdb *db, const iq_logged_record *record) {
    iqdb_payload payload;
    uint32_t row;
    payload.bytes = record->has_payload ? record->payload : NULL;
    payload.size = record->payload_size;
    if (db->records.rows.dim == 0) iq_rows_set_dim(&db->records.rows, record->dim);
    if (record->dim != db->records.rows.dim) return IQDB_ERR_CORRUPT;
    db->encoded.size = 0;
    iqdb_result result = iq_blob_reserve(&db->encoded, record->dim * sizeof(float));
    if (result != IQDB_OK) return result;
    iq_copy_words_le(db->encoded.bytes, record->vector, record->dim);
    result = iq_records_stage(&db->records, record->id, (const float *)(const void *)db->encoded.bytes, payload, &row);
    if (result == IQDB_OK) iq_records_upsert(&db->records, row);
    return result;
}

IQ_FN iqdb_result iq_db_replay(iqdb *db, const uint8_t *bytes, size_t size, uint64_t commit_lsn) {
    iq_logged_record record;
    iqdb_result result = iq_record_decode(bytes, size, &record);
    if (result == IQDB_OK && record.collection != 0) result = IQDB_ERR_CORRUPT;
    if (result == IQDB_OK) result = iq_records_reserve(&db->records, 1);
    if (result != IQDB_OK) return result;
    if (record.type == IQ_RECORD_UPSERT) {
        result = iq_open_upsert(db, &record);
    } else {
        (void)iq_records_delete(&db->records, record.id);
    }
    if (result == IQDB_OK) iq_records_publish(&db->records, commit_lsn);
    return result;
}

static iqdb_result iq_open_record(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user) {
    return iq_db_replay(((const iq_opening *)user)->db, bytes, size, commit_lsn);
}

IQ_FN iq_schema iq_db_schema(const iqdb *db) {
    iq_schema schema;
    schema.dim = db->records.rows.dim;
    schema.metric = (uint32_t)db->metric;
    schema.element = 0;
    return schema;
}

IQ_FN iq_directory_config iq_db_config(const iqdb *db) {
    iq_directory_config config;
    memset(&config, 0, sizeof config);
    config.allocator = db->allocator;
    config.files = db->files;
    config.entropy = db->entropy;
    config.reporter = &db->reporter;
    config.crc32 = db->crc32;
    config.schema = iq_db_schema(db);
    return config;
}

/* Everything of iqdb_open behind an empty handle. */
static iqdb_result iq_open_directory(iqdb *db, const iqdb_options *options, const void *path) {
    iq_directory_config config = iq_db_config(db);
    iq_opening opening = {db, options};
    const iq_loader loader = {iq_open_schema, iq_open_snapshot, iq_open_record, &opening};
    iqdb_stats stats;
    config.read_only = options->read_only;
    iqdb_result result = iq_directory_open((const char *)path, &config, &loader, &db->directory);
    if (result != IQDB_OK) return result;
    iq_directory_describe(db->directory, &stats);
    result = iq_db_finish(db, options, "META");
    iq_records_publish(&db->records, stats.last_lsn);
    const iq_schema schema = iq_db_schema(db);
    iq_directory_set_schema(db->directory, &schema);
    return result;
}

IQ_FN iqdb_result iq_db_open(const iqdb_options *options, iq_fill_fn fill_fn, const void *source, iqdb **out_db) {
    const iqdb_options defaults = iqdb_options_default();
    iqdb *db = NULL;
    if (out_db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    *out_db = NULL;
    if (source == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (options == NULL) options = &defaults;
    iqdb_result result = iq_db_new(options, &db);
    if (result != IQDB_OK) return result;
    /* Callbacks that run while the handle is opened find it taken; nobody else has it. */
    (void)iq_db_enter_upkeep(db);
    result = iq_db_leave_with(db, fill_fn(db, options, source));
    if (result == IQDB_OK) {
        *out_db = db;
        return result;
    }
    if (db->directory != NULL) (void)iq_directory_close(db->directory);
    iq_db_free(db);
    return result;
}

IQDB_API iqdb_result iqdb_open(const char *path, const iqdb_options *options, iqdb **out_db) {
    return iq_db_open(options, iq_open_directory, path, out_db);
}

IQDB_API iqdb_result iqdb_open_in_memory(const iqdb_options *options, iqdb **out_db) {
    const iqdb_options defaults = iqdb_options_default();
    if (out_db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    *out_db = NULL;
    return iq_db_new(options != NULL ? options : &defaults, out_db);
}

/* ---- Upkeep and close ---- */

IQDB_API iqdb_result iqdb_flush(iqdb *db) {
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    iqdb_result result = iq_db_enter_upkeep(db);
    if (result != IQDB_OK) return result;
    if (db->directory != NULL) result = iq_db_is_forked(db) ? IQDB_ERR_LOCKED : iq_directory_flush(db->directory);
    return iq_db_leave_with(db, result);
}

static iqdb_result iq_db_checkpoint(iqdb *db) {
    iq_image image = iq_image_take(db);
    return iq_directory_checkpoint(db->directory, iq_image_write, &image);
}

IQDB_API iqdb_result iqdb_checkpoint(iqdb *db) {
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    iqdb_result result = iq_db_enter_write(db);
    if (result != IQDB_OK) return result;
    if (db->directory != NULL) result = iq_db_checkpoint(db);
    return iq_db_leave_with(db, result);
}

static iqdb_result iq_close_directory(iqdb *db) {
    iq_directory *directory = db->directory;
    iqdb_result result = IQDB_OK;
    if (directory == NULL) return IQDB_OK;
    if (iq_db_is_forked(db)) {
        iq_directory_abandon(directory);
        return IQDB_OK;
    }
    if (db->compact_on_close && iq_directory_check(directory) == IQDB_OK && !iq_directory_is_compact(directory))
        result = iq_db_checkpoint(db);
    const iqdb_result closed = iq_directory_close(directory);
    return result != IQDB_OK ? result : closed;
}

IQDB_API iqdb_result iqdb_close(iqdb *db) {
    if (db == NULL) return IQDB_OK;
    iqdb_result result = iq_db_enter_upkeep(db);
    if (result != IQDB_OK) return result;
    /* Pins that other threads had when the process forked will never be given back in the child. */
    if (!iq_db_is_forked(db) && iq_epoch_oldest(&db->records.epoch) != IQ_MOMENT_NEVER) {
        iq_db_leave(db);
        return IQDB_ERR_BUSY;
    }
    result = iq_db_leave_with(db, iq_close_directory(db));
    iq_db_free(db);
    return result;
}
