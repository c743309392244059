/* Opening, loading, and closing a handle; flush and maintain. */
#include "db/db.h"
#include "persist/pack.h"

/* ---- Options ---- */

static bool iq_files_are_whole(const iqdb_files *files) {
    return files->dir_close_fn != NULL && files->dir_sync_fn != NULL && files->dir_list_fn != NULL &&
           files->remove_fn != NULL && files->open_fn != NULL && files->close_fn != NULL && files->size_fn != NULL &&
           files->read_fn != NULL && files->write_fn != NULL && files->sync_fn != NULL && files->lock_fn != NULL;
}

IQ_FN iqdb_element iq_options_element(const iqdb_options *options) {
    return options->metric == IQDB_HAMMING ? IQDB_ELEMENT_BIT : options->element;
}

/* NULL, or what is wrong. */
IQ_FN const char *iq_options_schema_complaint(const iqdb_options *options) {
    if (options->dim > IQDB_DIM_MAX) return "options.dim is beyond IQDB_DIM_MAX";
    if (options->metric < IQDB_METRIC_DEFAULT || options->metric > IQDB_HAMMING) return "options.metric is unknown";
    if (options->element < IQDB_ELEMENT_F32 || options->element > IQDB_ELEMENT_BIT) return "options.element is unknown";
    if (options->element != IQDB_ELEMENT_F32 && options->metric != IQDB_METRIC_DEFAULT &&
        !iq_element_answers(options->element, options->metric))
        return "options.metric is none of options.element";
    if (!iq_index_serves(iq_options_element(options), options->index)) return "options.index is for other elements";
    return NULL;
}

static const char *iq_options_complaint(const iqdb_options *options) {
    const char *complaint = iq_options_schema_complaint(options);
    if (complaint != NULL) return complaint;
    if (options->sync < IQDB_SYNC_FLUSH || options->sync > IQDB_SYNC_PERIODIC) return "options.sync is unknown";
    if (options->open_mode < IQDB_OPEN_HEAP || options->open_mode > IQDB_OPEN_MMAP)
        return "options.open_mode is unknown";
    if (options->verify < IQDB_DEPTH_DEFAULT || options->verify > IQDB_DEPTH_RECORDS)
        return "options.verify is unknown";
    if (IQ_ONLY_BLOBS && options->verify == IQDB_DEPTH_RECORDS)
        return "in this build records are verified by iqdb_verify";
    if (!iq_index_is_known((uint32_t)options->index)) return "options.index is unknown, or left out of this build";
    if (options->simd_max < IQDB_SIMD_BEST || options->simd_max > IQDB_SIMD_WASM) return "options.simd_max is unknown";
    if (options->allocator.alloc_fn != NULL && options->allocator.free_fn == NULL)
        return "options.allocator has no free_fn";
    if (options->allocator.alloc_fn == NULL && !IQ_HAS_MALLOC)
        return "options.allocator is needed: IQDB_NO_MALLOC has left out malloc";
    if (options->sync == IQDB_SYNC_PERIODIC && options->clock_us.now_fn == NULL && !IQ_HAS_CLOCK)
        return "options.clock_us is needed: IQDB_NO_OS has left out the system's";
    if (IQ_HAS_FILES && options->files.dir_open_fn != NULL && !iq_files_are_whole(&options->files))
        return "options.files has a function missing";
    if (options->index == IQDB_INDEX_CUSTOM && options->index_ops == NULL) return "options.index_ops is missing";
    if (!IQ_HAS_MODELS && options->model != NULL) return "this build has no models";
    if (IQ_HAS_MODELS && options->model != NULL && !iq_model_is_valid(options->model, strlen(options->model)))
        return "options.model is longer than IQDB_MODEL_SIZE_MAX, or not UTF-8";
    complaint = iq_custom_complaint(options->index_ops);
    if (complaint != NULL) return complaint;
    if (IQ_SMALL && options->codec_count > 0) return "this build has no codecs";
    complaint = IQ_SMALL ? NULL : iq_codecs_complaint(options->codecs, options->codec_count);
    if (complaint != NULL) return complaint;
    if (IQ_SMALL) return options->index_key_count > 0 ? "this build has no indexes of payload keys" : NULL;
    return iq_keys_complaint(options->index_keys, options->index_key_count);
}

IQ_DEFINE_DEFAULT(iqdb_options)

/* ---- The handle ---- */

IQ_FN iq_home *iq_home_new(const iqdb_allocator *allocator, const iq_kernel *kernel) {
    iq_home *home = (iq_home *)iq_alloc_zeroed(allocator, sizeof *home, IQ_CACHE_LINE);
    bool has_locks = home != NULL && iq_mutex_init(&home->mutex);
    if (has_locks && !iq_mutex_init(&home->child_mutex)) {
        iq_mutex_destroy(&home->mutex);
        has_locks = false;
    }
    if (!has_locks) {
        iq_free(allocator, home, sizeof *home, IQ_CACHE_LINE);
        return NULL;
    }
    home->allocator = *allocator;
    home->process = iq_process_identity();
    home->encoded.allocator = home->staging.allocator = home->named.allocator = &home->allocator;
    home->next_number = 1;
    home->root.home = home;
    home->root.name = "";
    home->root.died = IQ_MOMENT_NEVER;
    iq_common_init(&home->common);
    iq_records_init(&home->root.records, &home->common, &home->allocator, kernel);
    return home;
}

IQ_FN void iq_home_free(iq_home *home) {
    const iqdb_allocator allocator = home->allocator;
    IQ_ATOMIC_STORE(&home->owner, iq_thread_identity()); /* for callbacks on the way */
    if (IQ_HAS_FILES && home->checkpoint.is_pinned) iq_image_end(&home->checkpoint.image); /* in a child */
    IQ_ONLY_BLOBS ? iq_records_free(&home->root.records) : iq_home_clear(home);
    iq_common_free(&home->common, &allocator);
    if (!IQ_SMALL) iq_blob_free(&home->named);
    if (!IQ_ONLY_BLOBS) iq_blob_free(&home->staging);
    if (!IQ_ONLY_BLOBS) iq_blob_free(&home->encoded);
    /* In a child, threads that waited when it was forked still stand there, and destroying would wait for them. */
    if (home->process == iq_process_identity()) iq_mutex_destroy(&home->mutex);
    iq_mutex_destroy(&home->child_mutex);
    iq_free(&allocator, home, sizeof *home, IQ_CACHE_LINE);
}

IQ_FN void iq_db_set_metric(iqdb *db, iqdb_metric metric, iqdb_element element) {
    db->metric = metric;
    db->element = db->records.rows.element = element;
    db->records.rows.coded_for = db->home->codes == NULL ? IQDB_METRIC_DEFAULT : (iqdb_metric)iq_db_schema(db).metric;
}

/* What directories, and indexes, want of the options. */
static void iq_home_set_storage(iq_home *home, const iqdb_options *options) {
    iq_volume *volume = &home->config.volume;
    home->sync_interval_us = (options->sync_interval_ms != 0 ? (uint64_t)options->sync_interval_ms : 1000) * 1000;
    home->compact_on_close = options->compact_on_close;
    home->rebuilds = options->rebuild_damaged_index;
    home->wants_stored = options->index == IQDB_INDEX_AUTO || options->index == IQDB_INDEX_CUSTOM;
    home->checkpoint_bytes = options->checkpoint_bytes != 0 ? options->checkpoint_bytes : (uint64_t)64 << 20;
    if (home->checkpoint_bytes > IQ_NUMBER_MAX) home->checkpoint_bytes = IQ_NUMBER_MAX;
    home->checkpoint.due_at = home->checkpoint_bytes;
    if (options->codec_count > 0) memcpy(home->codecs, options->codecs, options->codec_count * sizeof *home->codecs);
    volume->codecs = home->codecs;
    volume->codec_count = options->codec_count;
    const iqdb_files own = iqdb_files_default();
    iqdb_files *files = &volume->files;
    *files = options->files.dir_open_fn != NULL ? options->files : own;
    /* A wrapper that knows nothing of these two has handles of its own, or wants to see every byte. */
    if (files->open_fn != own.open_fn || files->write_fn != own.write_fn) {
        if (files->reserve_fn == own.reserve_fn) files->reserve_fn = NULL;
        if (files->start_fn == own.start_fn) files->start_fn = NULL;
        if (files->map_fn == own.map_fn) files->map_fn = NULL;
    }
    home->syncs.clock = home->clock;
    volume->syncs = &home->syncs;
    home->config.entropy = options->entropy;
    if (options->entropy.fill_fn == NULL) home->config.entropy.fill_fn = iq_sys_entropy;
}

static iqdb_result iq_db_new(const iqdb_options *options, const iq_reporter *reporter, iqdb **out_db) {
    if (reporter->error != NULL) memset(reporter->error, 0, sizeof *reporter->error);
    const char *complaint = iq_options_complaint(options);
    if (complaint != NULL) return iq_report(reporter, IQDB_ERR_INVALID_CONFIG, NULL, 0, complaint);
    const iqdb_allocator allocator = options->allocator.alloc_fn != NULL ? options->allocator : iq_alloc_default();
    const uint32_t cpu_features = iq_cpu_features(); /* asked once: in a virtual machine the question is dear */
    iq_home *home = iq_home_new(&allocator, iq_kernel_select(cpu_features, options->simd_max));
    if (home == NULL) return iq_report(reporter, IQDB_ERR_NOMEM, NULL, 0, "no memory for a handle");
    home->reporter = *reporter;
    home->reporter.told = &home->told;
    home->parallel_for = options->parallel_for;
    home->sync = options->sync;
    if (!IQ_SMALL && options->index_ops != NULL) home->index_ops = *options->index_ops;
    if (IQ_HAS_MODELS) iq_model_copy(home->model, options->model);
    iq_volume *volume = &home->config.volume;
    volume->allocator = allocator;
    volume->reporter = &home->reporter;
    volume->crc32 = iq_crc32_select(cpu_features, options->simd_max);
    home->clock = options->clock_us;
    if (home->clock.now_fn == NULL) home->clock.now_fn = IQ_SYS_CLOCK;
    if (IQ_HAS_FILES || !IQ_SMALL) iq_home_set_storage(home, options);
    home->config.read_only = options->read_only || !IQ_HAS_WRITES;
    iqdb *db = &home->root;
    if (!IQ_SMALL && !options->no_codes) home->codes = iq_codes_select(cpu_features, options->simd_max);
    iq_db_set_metric(db, options->metric, iq_options_element(options));
    if (!IQ_SMALL && IQ_HAS_GRAPH) home->links = iq_links_select(cpu_features, options->simd_max);
    if (options->dim != 0) iq_rows_set_dim(&db->records.rows, options->dim);
    db->index_kind = options->index; /* until all is loaded, and iq_db_index_configure knows what was chosen */
    if (!IQ_ONLY_BLOBS)
        home->common.retired_max = options->retired_max != 0 ? options->retired_max : (uint64_t)256 << 20;
    if (!IQ_ONLY_BLOBS && options->memory_max != 0 && options->memory_max < INT64_MAX)
        home->common.charge_max = (int64_t)options->memory_max;
    iq_records_publish(&db->records, 0);
    *out_db = db;
    return IQDB_OK;
}

/* ---- Loading ---- */

IQ_FN iqdb_result iq_db_adopt_schema(iqdb *db, const iq_schema *schema, const char *file) {
    const uint32_t metric = schema->metric, wanted = (uint32_t)db->metric;
    if (!iq_schema_is_valid(schema))
        return iq_report(&db->home->reporter, IQDB_ERR_CORRUPT, file, 0, "the collection's description makes no sense");
    if (wanted != 0 && wanted != metric)
        return iq_report(&db->home->reporter, IQDB_ERR_INVALID_CONFIG, file, 0,
                         "options.metric differs from the stored metric");
    if (db->element != IQDB_ELEMENT_F32 && (uint32_t)db->element != schema->element)
        return iq_report(&db->home->reporter, IQDB_ERR_INVALID_CONFIG, file, 0,
                         "options.element differs from the stored element");
    iq_db_set_metric(db, (iqdb_metric)metric, (iqdb_element)schema->element);
    /* What is stored fixes the dimension; options.dim is compared when all is loaded. */
    iq_rows_set_dim(&db->records.rows, schema->dim);
    return IQDB_OK;
}

IQ_FN iqdb_result iq_home_adopt_model(iq_home *home, const char *stored) {
    static const char before[] = "options.model is '", between[] = "', stored is '";
    char text[sizeof before + sizeof between + 2 * IQDB_MODEL_SIZE_MAX];
    const char *parts[] = {before, home->model, between, stored, "'"};
    size_t size = 0;
    if (!IQ_HAS_MODELS || stored[0] == 0 || strcmp(home->model, stored) == 0) return IQDB_OK;
    if (home->model[0] == 0) {
        iq_model_copy(home->model, stored);
        return IQDB_OK;
    }
    for (size_t i = 0; i < IQ_COUNT_OF(parts); i++) {
        memcpy(text + size, parts[i], strlen(parts[i]) + 1);
        size += strlen(parts[i]);
    }
    return iq_report(&home->reporter, IQDB_ERR_INVALID_CONFIG, NULL, 0, text);
}

/* A finding of options.verify goes where every other failure of open goes. */
static void iq_open_report(const iqdb_error *finding, void *user) {
    (void)iq_report_error(&((const iqdb *)user)->home->reporter, finding);
}

IQ_FN iqdb_result iq_db_finish(iqdb *db, const iqdb_options *options, const char *file) {
    if (db->records.rows.dim == 0) {
        iq_rows_set_dim(&db->records.rows, options->dim);
    } else if (options->dim != 0 && options->dim != db->records.rows.dim) {
        return iq_report(&db->home->reporter, IQDB_ERR_INVALID_CONFIG, file, 0,
                         "options.dim differs from the stored dimension");
    }
    iq_findings findings = iq_findings_make(iq_open_report, db);
    if (!IQ_ONLY_BLOBS && options->verify == IQDB_DEPTH_RECORDS) iq_verify_records(db->home, &findings);
    return findings.first;
}

IQ_FN iq_schema iq_db_schema(const iqdb *db) {
    iq_schema schema;
    schema.dim = db->records.rows.dim;
    schema.metric = (uint32_t)(db->metric != IQDB_METRIC_DEFAULT ? db->metric : iq_element_metric(db->element));
    schema.element = (uint32_t)db->element;
    schema.unused = 0;
    return schema;
}

IQ_FN iq_directory_config iq_home_config(iq_home *home) {
    iq_directory_config config = home->config;
    config.schema = iq_db_schema(&home->root);
    config.model = home->model;
    config.required = home->next_number > 1 ? IQ_META_COLLECTIONS : 0;
    if (home->has_choices) config.required |= IQ_META_CHOICES;
    for (size_t i = 0; i < iq_home_count(home); i++)
        if (iq_home_at(home, i)->element != IQDB_ELEMENT_F32) config.required |= IQ_META_ELEMENTS;
    return config;
}

/* Indexes of the keys that options name, or else of those that the directory has. */
static iqdb_result iq_open_keys(iqdb *db, const iqdb_options *options) {
    iqdb_index_key set[IQDB_INDEX_KEYS_MAX];
    size_t count = 0;
    iq_directory *directory = iq_db_directory(db);
    if (options->index_keys != NULL || directory == NULL) {
        iqdb_result result = iq_records_index(&db->records, options->index_keys, options->index_key_count);
        if (result != IQDB_OK || directory == NULL) return result;
        db->home->encoded.size = 0;
        result = iq_blob_reserve(&db->home->encoded, IQ_META_KEYS_SIZE);
        if (result != IQDB_OK) return result;
        iq_keys_encode(&db->records.keys, db->home->encoded.bytes, IQ_META_KEYS_SIZE);
        return iq_directory_set_keys(directory, db->home->encoded.bytes);
    }
    if (!iq_keys_decode(iq_directory_keys(directory), IQ_META_KEYS_SIZE, set, &count))
        return iq_report(&db->home->reporter, IQDB_ERR_CORRUPT, "META", 0, "the keys to be indexed make no sense");
    return iq_records_index(&db->records, set, count);
}

IQ_FN iqdb_result iq_db_open(const iqdb_options *options, iq_fill_fn fill_fn, const void *source, iqdb **out_db) {
    const iqdb_options defaults = iqdb_options_default();
    iqdb *db = NULL;
    if (out_db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    *out_db = NULL;
    if (source == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (options == NULL) options = &defaults;
    const iq_reporter reporter = {options->error, options->logger, NULL};
    iqdb_result result = iq_db_new(options, &reporter, &db);
    if (result != IQDB_OK) return IQ_ONLY_BLOBS ? iq_report_code(&reporter, result) : result;
    /* Callbacks that run while the handle is opened find it taken; nobody else has it. */
    (void)iq_db_enter_upkeep(db, NULL);
    if (fill_fn != NULL) result = fill_fn(db, options, source);
    if (!IQ_SMALL && result == IQDB_OK) result = iq_home_needs_indexes(db->home);
    if (!IQ_SMALL && result == IQDB_OK) result = iq_db_index_configure(db, options);
    if ((!IQ_SMALL || IQ_HAS_FILES) && result == IQDB_OK) result = iq_open_keys(db, options);
    if (result == IQDB_OK && iq_db_directory(db) != NULL)
        result = iq_directory_set_model(db->home->directory, db->home->model);
    db->metric = (iqdb_metric)iq_db_schema(db).metric;
    result = iq_db_leave_with(db, result);
    if (result == IQDB_OK) {
        *out_db = db;
        return result;
    }
    if (iq_db_directory(db) != NULL) (void)iq_directory_close(db->home->directory);
    iq_home_free(db->home);
    return result;
}

/* ---- Directories ---- */

IQ_FN iqdb_result iq_db_stage_logged(iqdb *db, const iq_logged_record *record, uint32_t *out_row) {
    iqdb_payload payload;
    payload.bytes = record->has_payload ? record->payload : NULL;
    payload.size = record->payload_size;
    if (record->element != db->element) return IQDB_ERR_CORRUPT;
    if (db->records.rows.dim == 0) iq_rows_set_dim(&db->records.rows, record->dim);
    if (record->dim != db->records.rows.dim) return IQDB_ERR_CORRUPT;
    const size_t size = iq_db_vector_bytes(db, record->dim);
    db->home->encoded.size = 0;
    iqdb_result result = iq_blob_reserve(&db->home->encoded, size);
    if (result != IQDB_OK) return result;
    iq_element_copy_le(db->element, db->home->encoded.bytes, record->vector, size);
    return iq_records_stage(&db->records, record->id, db->home->encoded.bytes, payload, out_row);
}

IQ_FN iqdb_result iq_db_replay(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user) {
    iq_home *home = ((iqdb *)user)->home;
    iq_logged_record record;
    iq_index_choice choice;
    iqdb *db;
    uint32_t row = IQ_ROW_NONE;
    iqdb_result result = iq_record_decode(bytes, size, &record);
    if (result == IQDB_OK) result = iq_home_replay(home, &record, &db);
    if (result == IQDB_OK) result = iq_records_reserve(&db->records, 1);
    if (result != IQDB_OK) return result;
    if (record.type >= IQ_RECORD_CREATE) {
        if (record.type == IQ_RECORD_DROP) iq_home_bury(db);
        if (record.type == IQ_RECORD_KEYS) result = iq_collection_keep_keys(db, record.payload, record.payload_size);
        if (record.type == IQ_RECORD_CHOOSE) result = iq_index_choice_decode(home, record.payload, &choice);
        if (record.type == IQ_RECORD_CHOOSE && result == IQDB_OK) (void)iq_db_index_choose(db, &choice);
        if (record.type == IQ_RECORD_CHOOSE && result == IQDB_OK) iq_db_index_refit(db);
    } else if (record.type == IQ_RECORD_UPSERT) {
        result = iq_db_stage_logged(db, &record, &row);
        if (result == IQDB_OK) iq_records_upsert(&db->records, row);
    } else {
        result = iq_records_claim(&db->records, record.id);
        if (result == IQDB_OK) (void)iq_records_delete(&db->records, record.id);
    }
    if (result == IQDB_OK) iq_records_publish(&db->records, commit_lsn);
    iq_home_sweep(home);
    return result;
}

#if IQ_HAS_FILES

static iqdb_result iq_open_schema(const iq_manifest *manifest, void *user) {
    iqdb *db = (iqdb *)user;
    iq_records *records = &db->records;
    const iqdb_result result = iq_home_adopt_model(db->home, manifest->model);
    if (result != IQDB_OK) return result;
    iq_home_clear(db->home); /* there may be what could not be read to its end */
    records->keeps_deleted = !db->home->config.read_only;
    db->home->checkpoint.count = 0;
    iq_records_publish(records, 0);
    return iq_db_adopt_schema(db, &manifest->schema, "META");
}

static iqdb_result iq_open_snapshot(iq_snapshot_reader *reader, void *user) {
    iqdb *db = (iqdb *)user;
    const bool is_delta = db->home->checkpoint.count > 0;
    const iqdb_result result = iq_image_load(reader, db->home, is_delta, !is_delta && iq_snapshot_is_mapped(reader));
    if (result == IQDB_OK) iq_checkpoint_note_loaded(db);
    return result;
}

/* Everything of iqdb_open behind an empty handle. */
static iqdb_result iq_open_directory(iqdb *db, const iqdb_options *options, const void *path) {
    const iq_directory_config config = iq_home_config(db->home);
    const iq_loader loader = {iq_open_schema, iq_open_snapshot, iq_db_replay, db,
                              options->open_mode == IQDB_OPEN_MMAP ? &db->home->lender : NULL};
    iqdb_stats stats;
    db->records.keeps_deleted = !options->read_only;
    iqdb_result result = iq_directory_open((const char *)path, &config, &loader, &db->home->directory);
    if (result != IQDB_OK) return result;
    iq_directory_describe(db->home->directory, &stats);
    if (db->home->lender != NULL && options->verify >= IQDB_DEPTH_BLOCKS) result = iq_snapshot_check(db->home->lender);
    if (result != IQDB_OK) return result;
    result = iq_db_finish(db, options, "META");
    iq_records_publish(&db->records, stats.last_lsn);
    iq_directory_set_schema(db->home->directory, iq_db_schema(db));
    return result;
}

IQDB_API iqdb_result iqdb_open(const char *path, const iqdb_options *options, iqdb **out_db) {
    return iq_db_open(options, iq_open_directory, path, out_db);
}

#endif

/* ---- Upkeep and close ---- */

static iqdb_result iq_close_directory(iqdb *db) {
    iq_directory *directory = iq_db_directory(db);
    iq_limit none = iq_limit_make(db->home->clock, NULL);
    iqdb_result result = IQDB_OK;
    if (directory == NULL) return IQDB_OK;
    if (iq_db_is_forked(db)) {
        iq_directory_abandon(directory);
        return IQDB_OK;
    }
    if (IQ_HAS_WRITES && db->home->compact_on_close && iq_directory_check(directory) == IQDB_OK &&
        !iq_directory_is_compact(directory))
        result = iq_checkpoint_run(db, true, &none);
    const iqdb_result closed = iq_directory_close(directory);
    return result != IQDB_OK ? result : closed;
}

/* Whether anybody but a checkpoint in the making, which is to go on if so, needs the handle. */
static bool iq_close_is_busy(iqdb *db) {
    iq_home *home = db->home;
    iq_slot *own = home->checkpoint.is_pinned ? home->checkpoint.pin.slot : NULL;
    const uint64_t moment = own != NULL ? IQ_ATOMIC_LOAD(&own->moment) : 0;
    if (own != NULL) IQ_ATOMIC_STORE(&own->moment, IQ_MOMENT_NEVER); /* no pin, nor free for another one */
    bool is_busy = iq_epoch_oldest(&home->common.epoch) != IQ_MOMENT_NEVER;
    if (own != NULL) IQ_ATOMIC_STORE(&own->moment, moment);
    for (size_t i = 1; i < iq_home_count(home); i++)
        if (iq_home_at(home, i)->handles > 0) is_busy = true;
    return is_busy;
}

IQDB_API iqdb_result iqdb_close(iqdb *db) {
    if (db == NULL) return IQDB_OK;
    if (!IQ_SMALL && db->number != 0) return iq_collection_close(db);
    if (iq_db_is_torn(db)) {
        iq_directory_let_go(iq_db_directory(db));
        return IQDB_OK;
    }
    iqdb_result result = iq_db_enter_upkeep(db, NULL);
    if (result != IQDB_OK) return result;
    if (db->home->checkpoint.pin.slot == NULL) (void)iq_checkpoint_abandon(db); /* its pin cannot be told from others */
    /* Pins and handles that other threads had when the process forked will never be given back in the child. */
    if (iq_close_is_busy(db) && !iq_db_is_forked(db)) {
        iq_db_leave(db);
        return IQDB_ERR_BUSY;
    }
    (void)iq_checkpoint_abandon(db);
    result = iq_db_leave_with(db, iq_close_directory(db));
    iq_home_free(db->home);
    return result;
}

IQDB_API iqdb_result iqdb_open_in_memory(const iqdb_options *options, iqdb **out_db) {
    return iq_db_open(options, NULL, "", out_db);
}

IQDB_API iqdb_result iqdb_flush(iqdb *db) {
    iqdb_result result = iq_db_enter_upkeep(db, NULL);
    if (result != IQDB_OK) return result;
    (void)iq_db_quiesce(db);
    if (iq_db_directory(db) != NULL)
        result = iq_db_is_forked(db) ? IQDB_ERR_LOCKED : iq_directory_flush(db->home->directory, true);
    return iq_db_leave_with(db, result);
}

IQDB_API iqdb_result iqdb_maintain(iqdb *db, uint32_t budget_us, bool *out_done) {
    if (db == NULL || out_done == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    iq_limit limit = iq_limit_make(db->home->clock, NULL);
    iq_limit_end_in(&limit, budget_us);
    iqdb_result result = iq_db_enter_upkeep(db, NULL);
    if (result != IQDB_OK) return result;
    result = iq_db_sync_late(db);
    *out_done = true;
    if (IQ_HAS_WRITES && result == IQDB_OK && iq_db_directory(db) != NULL && !iq_db_is_forked(db))
        result = iq_checkpoint_maintain(db, &limit, out_done);
    bool is_tidy = true;
    for (size_t i = 0; is_tidy && i < iq_home_count(db->home); i++)
        is_tidy = iq_db_index_work(iq_home_at(db->home, i), &limit) &&
                  iq_db_basis_work(iq_home_at(db->home, i), &limit) &&
                  iq_records_maintain(&iq_home_at(db->home, i)->records, &limit);
    /* What it took long to make is stored before more is written than it was made of. */
    if (is_tidy && iq_db_directory(db) != NULL && iq_directory_check(db->home->directory) == IQDB_OK &&
        !iq_db_is_forked(db) && iq_home_wants_store(db->home, true))
        is_tidy = !(db->home->checkpoint.store = true);
    if (!is_tidy) *out_done = false;
    iq_home_sweep(db->home);
    /* Behind a write that is on its way there is nothing to note: the log is its own, and it notes what is before it. */
    if (result == IQDB_OK && *out_done && iq_db_directory(db) != NULL && !iq_db_is_writing(db) && !iq_db_is_forked(db))
        result = iq_directory_flush(db->home->directory, false);
    return iq_db_leave_with(db, result);
}
