/* iqdb_repair: what persist/repair.c can still read, put together in memory and written as a new directory.
 *
 * 1. A row is taken only as a whole: id, vector, reference and payload all lie in undamaged blocks, and pass the checks
 *    that an upsert makes. The norm is computed anew.
 * 2. The places of the sections follow from the list; where that is damaged, from the catalog; where that is, from
 *    the list and META. */
#include "codec/payload.h"
#include "db/db.h"
#include "persist/sections.h"

#if IQ_HAS_FILES && IQ_HAS_WRITES

#define IQ_SALVAGE_ROWS 128u /* whose ids and references are read at once */

typedef struct iq_salvage {
    iqdb *db;
    iq_findings *findings;
    iq_snapshot_reader *reader;
    uint64_t lsn;     /* of the rows of the snapshot: below that of every record that follows */
    uint64_t unknown; /* lost rows in a run, whose ids cannot be read either */
    uint64_t unknown_at;
    bool is_assumed; /* that sections lie where they are read: the list is lost */
    uint64_t ids[IQ_SALVAGE_ROWS], refs[IQ_SALVAGE_ROWS];
    bool has_id[IQ_SALVAGE_ROWS], has_ref[IQ_SALVAGE_ROWS];
    uint8_t keys[IQ_META_KEYS_SIZE]; /* of META */
} iq_salvage;

/* What is stored counts. */
static void iq_salvage_model(iqdb *db, const char *stored) {
    if (stored[0] != 0) iq_model_copy(db->home->model, stored);
}

static iqdb_result iq_salvage_schema(const iq_manifest *manifest, void *user) {
    iqdb *db = ((const iq_salvage *)user)->db;
    iq_db_set_metric(db, IQDB_METRIC_DEFAULT, IQDB_ELEMENT_F32);
    iq_salvage_model(db, manifest->model);
    return iq_db_adopt_schema(db, &manifest->schema, "META");
}

/* Makes a collection of which it is lost how it was made. */
static iqdb_result iq_salvage_add(iq_salvage *salvage, uint32_t number, iqdb_element element, const char *file,
                                  iqdb **out_db) {
    char name[IQ_FILE_NAME_SIZE];
    const iq_schema schema = {0, (uint32_t)iq_element_metric(element), (uint32_t)element, 0};
    const iqdb_error finding = iq_error_make(IQDB_ERR_CORRUPT, file, 0,
                                             "name and metric of a collection are lost: it is called lost-<number>");
    iq_volume_name(name, "lost-", number);
    const iqdb_result result = iq_home_add(salvage->db->home, number, &schema, name, strlen(name), out_db);
    if (result == IQDB_OK) iq_findings_add(salvage->findings, &finding);
    return result;
}

/* What was made, and ended, in records that are lost, is made when it is met, and does not end. */
static iqdb_result iq_salvage_record(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user) {
    iq_salvage *salvage = (iq_salvage *)user;
    iq_logged_record record;
    iqdb_result result = iq_record_decode(bytes, size, &record);
    if (result == IQDB_OK && record.collection != 0) {
        iqdb *db = iq_home_find(salvage->db->home, record.collection);
        if (db == NULL && record.type == IQ_RECORD_UPSERT)
            result = iq_salvage_add(salvage, record.collection, record.element, "wal", &db);
        const bool is_strange =
            db != NULL && record.type == IQ_RECORD_UPSERT &&
            (db->element != record.element || (db->records.rows.dim != 0 && db->records.rows.dim != record.dim));
        if (is_strange || (db == NULL) != (record.type == IQ_RECORD_CREATE)) return IQDB_OK;
    }
    if (result == IQDB_OK) result = iq_db_replay(bytes, size, commit_lsn, salvage->db);
    if (result == IQDB_ERR_CORRUPT && record.type == IQ_RECORD_CREATE) { /* one of this name has not ended */
        iqdb *db;
        result = iq_salvage_add(salvage, record.collection, record.element, "wal", &db);
    }
    return result;
}

/* ---- Rows of a snapshot ---- */

/* Without a list: a choice, if there is one, behind the catalog and before so many ids. It has zeros behind it, where
 * the 5th id to the 8th would lie, or fewer ids and zeros; large sections lie behind zeros in either case. Of few ids
 * nobody can tell: norms will. */
static void iq_salvage_assume_choice(const iq_salvage *salvage, uint64_t count) {
    static const uint8_t zeros[IQ_CHOICE_SIZE] = {0};
    uint8_t bytes[2 * IQ_CHOICE_SIZE];
    if (count <= 5 || !iq_snapshot_peek(salvage->reader, bytes, sizeof bytes)) return;
    const bool is_blank = memcmp(bytes, zeros, sizeof zeros) == 0;
    if (iq_get_u32(bytes) <= IQDB_INDEX_CUSTOM && memcmp(bytes + sizeof zeros, zeros, sizeof zeros) == 0 &&
        (!is_blank || count * 8 < IQ_SNAPSHOT_LARGE))
        iq_snapshot_assume(salvage->reader, salvage->db->number, IQ_SECTION_CHOICE, IQ_CHOICE_SIZE);
}

static iqdb_result iq_salvage_find_sections(iq_salvage *salvage, iq_catalog *out_catalog) {
    iq_snapshot_reader *reader = salvage->reader;
    iqdb *db = salvage->db;
    iq_catalog *catalog = out_catalog;
    uint64_t size;
    memset(catalog, 0, sizeof *catalog);
    if (!iq_snapshot_find(reader, salvage->db->number, IQ_SECTION_CATALOG, &size))
        iq_snapshot_assume(reader, salvage->db->number, IQ_SECTION_CATALOG, IQ_CATALOG_SIZE);
    if (iq_image_catalog(reader, db->number, catalog) == IQDB_OK) {
        if (db->records.rows.count > 0 && (uint32_t)db->element != catalog->schema.element) return IQDB_ERR_CORRUPT;
        if ((uint32_t)db->element != catalog->schema.element) iq_rows_free(&db->records.rows);
        iq_db_set_metric(db, (iqdb_metric)catalog->schema.metric, (iqdb_element)catalog->schema.element);
        if (db->records.rows.dim == 0) iq_rows_set_dim(&db->records.rows, catalog->schema.dim);
        if (catalog->schema.dim != 0 && db->records.rows.dim != catalog->schema.dim) return IQDB_ERR_CORRUPT;
    } else {
        catalog->rows = iq_snapshot_find(reader, salvage->db->number, IQ_SECTION_IDS, &size) ? size / 8 : 0;
        catalog->deleted =
            iq_snapshot_find(reader, salvage->db->number, IQ_SECTION_DELETED, &size) ? (uint32_t)(size / 8) : 0;
    }
    salvage->is_assumed = !iq_snapshot_find(reader, salvage->db->number, IQ_SECTION_IDS, &size) &&
                          !iq_snapshot_find(reader, salvage->db->number, IQ_SECTION_DELETED, &size);
    if (salvage->is_assumed) iq_salvage_assume_choice(salvage, catalog->deleted > 0 ? catalog->deleted : catalog->rows);
    (void)iq_image_choice(reader, db);
    if (db->number != 0) (void)iq_image_keys(reader, db);
    if (salvage->is_assumed && catalog->deleted > 0)
        iq_snapshot_assume(reader, salvage->db->number, IQ_SECTION_DELETED, (uint64_t)catalog->deleted * 8);
    if (catalog->rows == 0) return IQDB_OK;
    if (catalog->rows > IQ_ROW_COUNT_MAX || db->records.rows.dim == 0) return IQDB_ERR_CORRUPT;
    if (salvage->is_assumed) {
        iq_snapshot_assume(reader, salvage->db->number, IQ_SECTION_IDS, catalog->rows * 8);
        iq_snapshot_assume(reader, salvage->db->number, IQ_SECTION_VECTORS,
                           catalog->rows * db->records.rows.stride * sizeof(float));
        iq_snapshot_assume(reader, salvage->db->number, IQ_SECTION_NORMS, catalog->rows * 4);
        iq_snapshot_assume(reader, salvage->db->number, IQ_SECTION_PAYLOAD_REFS, catalog->rows * 8);
        iq_snapshot_assume(reader, salvage->db->number, IQ_SECTION_PAYLOADS,
                           iq_snapshot_rest(reader, IQ_HEAP_FIRST_REF));
    }
    return IQDB_OK;
}

/* One number a row, as many as can be read. */
static void iq_salvage_numbers(const iq_salvage *salvage, uint32_t kind, uint64_t first, size_t count, uint64_t *out,
                               bool *out_read) {
    uint8_t bytes[IQ_SALVAGE_ROWS * 8];
    const bool all =
        iq_snapshot_read(salvage->reader, salvage->db->number, kind, first * 8, bytes, count * 8) == IQDB_OK;
    for (size_t i = 0; i < count; i++) {
        out_read[i] = all || iq_snapshot_read(salvage->reader, salvage->db->number, kind, (first + i) * 8,
                                              bytes + i * 8, 8) == IQDB_OK;
        out[i] = out_read[i] ? iq_get_u64(bytes + i * 8) : 0;
    }
}

static void iq_salvage_tell_unknown(iq_salvage *salvage) {
    if (salvage->unknown == 0) return;
    iqdb_error finding = iq_snapshot_finding(salvage->reader, salvage->db->number, IQ_SECTION_IDS,
                                             salvage->unknown_at * 8, "records are lost whose ids are lost too");
    finding.records = salvage->unknown;
    iq_findings_add(salvage->findings, &finding);
    salvage->unknown = 0;
}

static void iq_salvage_tell_lost(iq_salvage *salvage, uint64_t row, size_t i) {
    if (!salvage->has_id[i]) {
        if (salvage->unknown++ == 0) salvage->unknown_at = row;
        return;
    }
    iq_salvage_tell_unknown(salvage);
    iqdb_error finding =
        iq_snapshot_finding(salvage->reader, salvage->db->number, IQ_SECTION_IDS, row * 8,
                            "the record of this id is lost, but for what logs and older snapshots have of it");
    finding.records = 1;
    finding.id = salvage->ids[i];
    finding.has_id = true;
    iq_findings_add(salvage->findings, &finding);
}

/* Vector, then payload, into db->home->encoded. CORRUPT: the row cannot be had. */
static iqdb_result iq_salvage_bytes(iq_salvage *salvage, uint64_t row, uint64_t ref, size_t *out_payload_size) {
    iq_blob *blob = &salvage->db->home->encoded;
    iq_snapshot_reader *reader = salvage->reader;
    const size_t row_size = salvage->db->records.rows.stride * sizeof(float);
    const size_t vector_size = iq_db_vector_bytes(salvage->db, salvage->db->records.rows.dim);
    uint8_t size[4];
    *out_payload_size = 0;
    blob->size = 0;
    iqdb_result result = iq_blob_reserve(blob, row_size);
    if (result == IQDB_OK)
        result =
            iq_snapshot_read(reader, salvage->db->number, IQ_SECTION_VECTORS, row * row_size, blob->bytes, row_size);
    for (size_t i = vector_size; result == IQDB_OK && i < row_size; i++)
        if (blob->bytes[i] != 0) result = IQDB_ERR_CORRUPT;
    if (result != IQDB_OK || ref == 0) return result;
    result = iq_snapshot_read(reader, salvage->db->number, IQ_SECTION_PAYLOADS, ref, size, sizeof size);
    if (result != IQDB_OK) return result;
    const uint32_t payload_size = iq_get_u32(size);
    uint64_t section_size;
    (void)iq_snapshot_find(reader, salvage->db->number, IQ_SECTION_PAYLOADS, &section_size);
    if (payload_size > IQDB_PAYLOAD_SIZE_MAX || payload_size > section_size) return IQDB_ERR_CORRUPT;
    blob->size = row_size;
    result = iq_blob_reserve(blob, (size_t)payload_size + 1);
    uint8_t *payload = blob->bytes + row_size;
    if (result == IQDB_OK)
        result = iq_snapshot_read(reader, salvage->db->number, IQ_SECTION_PAYLOADS, ref + 4, payload, payload_size);
    if (result == IQDB_OK && iq_payload_validate(payload, payload_size) != IQDB_OK) result = IQDB_ERR_CORRUPT;
    *out_payload_size = payload_size;
    return result;
}

/* Whether the norm says that what was read is a row: where sections were only assumed, nothing else does. */
static bool iq_salvage_fits(const iq_salvage *salvage, uint64_t row, uint32_t taken) {
    const iq_spot spot = iq_rows_spot(&salvage->db->records.rows, taken);
    uint8_t norm[4];
    return !salvage->is_assumed ||
           iq_snapshot_read(salvage->reader, salvage->db->number, IQ_SECTION_NORMS, row * 4, norm, 4) != IQDB_OK ||
           iq_get_u32(norm) == iq_f32_bits(spot.slab->norms[spot.index]);
}

static iqdb_result iq_salvage_row(iq_salvage *salvage, uint64_t row, size_t i) {
    iq_records *records = &salvage->db->records;
    size_t payload_size;
    iqdb_payload payload;
    uint32_t taken = IQ_ROW_NONE;
    if (!salvage->has_id[i] || !salvage->has_ref[i]) return IQDB_ERR_CORRUPT;
    iqdb_result result = iq_salvage_bytes(salvage, row, salvage->refs[i], &payload_size);
    if (result != IQDB_OK) return result;
    uint8_t *bytes = salvage->db->home->encoded.bytes;
    const iqdb_element element = salvage->db->element;
    iq_element_copy_le(element, bytes, bytes, iq_element_bytes(element, records->rows.dim));
    if (!iq_vector_is_sound(records->kernel, element, bytes, records->rows.dim)) return IQDB_ERR_CORRUPT;
    payload.bytes = salvage->refs[i] == 0 ? NULL : bytes + records->rows.stride * sizeof(float);
    payload.size = payload_size;
    result = iq_records_reserve(records, 1);
    if (result == IQDB_OK) result = iq_records_stage(records, salvage->ids[i], bytes, payload, &taken);
    if (result != IQDB_OK) return result;
    if (!iq_salvage_fits(salvage, row, taken)) {
        iq_records_unstage(records, taken);
        return IQDB_ERR_CORRUPT;
    }
    iq_records_upsert(records, taken);
    iq_records_publish(records, salvage->lsn);
    return IQDB_OK;
}

/* CORRUPT and IO are what this is about: the row is lost, and told so. */
static iqdb_result iq_salvage_group(iq_salvage *salvage, uint64_t first, size_t count) {
    iq_salvage_numbers(salvage, IQ_SECTION_IDS, first, count, salvage->ids, salvage->has_id);
    iq_salvage_numbers(salvage, IQ_SECTION_PAYLOAD_REFS, first, count, salvage->refs, salvage->has_ref);
    for (size_t i = 0; i < count; i++) {
        const iqdb_result result = iq_salvage_row(salvage, first + i, i);
        if (result == IQDB_ERR_NOMEM || result == IQDB_ERR_LIMIT) return result;
        if (result != IQDB_OK) iq_salvage_tell_lost(salvage, first + i, i);
    }
    return IQDB_OK;
}

/* How many of `count` numbers the section has, whatever the catalog says. */
static uint64_t iq_salvage_held(const iq_salvage *salvage, uint32_t kind, uint64_t count) {
    uint64_t size;
    (void)iq_snapshot_find(salvage->reader, salvage->db->number, kind, &size);
    return size / 8 < count ? size / 8 : count;
}

/* What a delta has deleted, as far as it can be read. */
static iqdb_result iq_salvage_deleted(iq_salvage *salvage, uint32_t count) {
    iqdb_error finding = iq_snapshot_finding(salvage->reader, salvage->db->number, IQ_SECTION_DELETED, 0,
                                             "ids of deleted records are lost: the records may be back");
    const uint64_t held = iq_salvage_held(salvage, IQ_SECTION_DELETED, count);
    finding.records = count - held;
    for (uint64_t i = 0; i < held; i++) {
        iq_salvage_numbers(salvage, IQ_SECTION_DELETED, i, 1, salvage->ids, salvage->has_id);
        finding.records += !salvage->has_id[0];
        if (!salvage->has_id[0]) continue;
        const iqdb_result result = iq_records_reserve(&salvage->db->records, 1);
        if (result != IQDB_OK) return result;
        (void)iq_records_delete(&salvage->db->records, salvage->ids[0]);
        iq_records_publish(&salvage->db->records, salvage->lsn);
    }
    if (finding.records > 0) iq_findings_add(salvage->findings, &finding);
    return IQDB_OK;
}

static iqdb_result iq_salvage_collection(iq_salvage *salvage) {
    iq_snapshot_reader *reader = salvage->reader;
    iq_catalog catalog;
    iqdb_result result = iq_salvage_find_sections(salvage, &catalog);
    if (result == IQDB_ERR_CORRUPT) {
        const iqdb_error finding =
            iq_snapshot_finding(reader, salvage->db->number, IQ_SECTION_CATALOG, 0,
                                "nothing tells any more what the records look like: they are lost");
        iq_findings_add(salvage->findings, &finding);
        return IQDB_OK;
    }
    uint64_t size;
    /* Not what is lost: with the codec all of it can be had. */
    if (result == IQDB_OK &&
        iq_snapshot_read(reader, salvage->db->number, IQ_SECTION_PAYLOADS, 0, &size, 0) == IQDB_ERR_INVALID_CONFIG)
        return iq_report(&salvage->db->home->reporter, IQDB_ERR_INVALID_CONFIG, "snap", 0,
                         "payloads are packed by a codec that options.codecs does not have");
    if (result == IQDB_OK) result = iq_salvage_deleted(salvage, catalog.deleted);
    const uint64_t rows = iq_salvage_held(salvage, IQ_SECTION_IDS, catalog.rows);
    for (uint64_t row = 0; row < rows && result == IQDB_OK; row += IQ_SALVAGE_ROWS)
        result = iq_salvage_group(salvage, row, rows - row < IQ_SALVAGE_ROWS ? (size_t)(rows - row) : IQ_SALVAGE_ROWS);
    if (salvage->unknown == 0) salvage->unknown_at = rows;
    salvage->unknown += catalog.rows - rows;
    iq_salvage_tell_unknown(salvage);
    return result;
}

static iqdb_result iq_salvage_snapshot(iq_snapshot_reader *reader, void *user) {
    iq_salvage *salvage = (iq_salvage *)user;
    iqdb *root = salvage->db;
    iq_catalog catalog;
    uint32_t from = 1;
    char model[IQ_META_MODEL_SIZE];
    salvage->reader = reader;
    salvage->lsn = root->home->common.lsn;
    iqdb_result result = iq_salvage_collection(salvage);
    if (iq_image_model(reader, model) == IQDB_OK) iq_salvage_model(root, model);
    /* Where the list is lost, or its end, what was there before stays. */
    const bool is_whole = iq_image_catalog(reader, 0, &catalog) == IQDB_OK && catalog.next_number > 1;
    for (uint32_t number = 1; result == IQDB_OK && iq_snapshot_next(reader, &number); number++) {
        if (is_whole) from = iq_image_drop(root->home, from, number);
        iqdb *db = iq_home_find(root->home, number);
        const bool is_readable = db == NULL && iq_image_catalog(reader, number, &catalog) == IQDB_OK;
        if (is_readable)
            result = iq_home_add(root->home, number, &catalog.schema, catalog.name, catalog.name_size, &db);
        if (db == NULL && result != IQDB_ERR_NOMEM)
            result = iq_salvage_add(salvage, number, IQDB_ELEMENT_F32, "snap", &db);
        if (result == IQDB_ERR_CORRUPT) result = IQDB_OK;
        if (db == NULL) continue;
        salvage->db = db;
        if (result == IQDB_OK) result = iq_salvage_collection(salvage);
        if (result == IQDB_OK) iq_records_publish(&db->records, salvage->lsn);
        salvage->db = root;
    }
    if (result == IQDB_OK && is_whole) (void)iq_image_drop(root->home, from, UINT32_MAX);
    iq_common_publish(&root->home->common, salvage->lsn);
    iq_home_sweep(root->home);
    return result;
}

/* ---- The call ---- */

typedef struct iq_repair_source {
    const char *from, *to;
    iqdb_report_fn report_fn;
    void *user;
} iq_repair_source;

/* The names of the indexed keys go on to the new META; their indexes are not needed for that. */
static iqdb_result iq_salvage_keys(const iq_salvage *salvage) {
    iqdb_index_key set[IQDB_INDEX_KEYS_MAX];
    size_t count;
    if (IQ_SMALL) return IQDB_OK;
    if (iq_keys_decode(salvage->keys, sizeof salvage->keys, set, &count))
        return iq_keys_declare(&salvage->db->records.keys, set, count);
    const iqdb_error finding =
        iq_error_make(IQDB_ERR_CORRUPT, "META", IQ_META_KEYS_AT, "the keys to be indexed make no sense: they are lost");
    iq_findings_add(salvage->findings, &finding);
    return IQDB_OK;
}

static iqdb_result iq_salvage_all(iqdb *db, const iqdb_options *options, const void *from) {
    const iq_repair_source *source = (const iq_repair_source *)from;
    const iq_directory_config config = iq_home_config(db->home);
    iq_findings findings = iq_findings_make(source->report_fn, source->user);
    iq_salvage *salvage = (iq_salvage *)iq_alloc_zeroed(&db->home->allocator, sizeof *salvage, 16);
    const iq_loader loader = {iq_salvage_schema, iq_salvage_snapshot, iq_salvage_record, salvage, NULL};
    uint64_t lsn = 0;
    (void)options;
    if (salvage == NULL) return IQDB_ERR_NOMEM;
    salvage->db = db;
    salvage->findings = &findings;
    iqdb_result result = iq_directory_repair(source->from, &config, &loader, &findings, salvage->keys, &lsn);
    if (result == IQDB_OK) result = iq_salvage_keys(salvage);
    iq_free(&db->home->allocator, salvage, sizeof *salvage, 16);
    if (result != IQDB_OK) return result;
    const iqdb_result made =
        source->to != NULL ? iq_image_to_directory(db->home, source->to, NULL, lsn) : findings.first;
    memset(&db->chosen, 0, sizeof db->chosen); /* nobody will search here: it needs no index, nor what makes one */
    return made;
}

IQDB_API iqdb_result iqdb_repair(const char *from, const char *to, const iqdb_options *options, iqdb_report_fn report,
                                 void *user) {
    const iq_repair_source source = {from, to, report, user};
    iqdb *db = NULL;
    iqdb_options own = iqdb_options_default();
    if (options != NULL) own = *options;
    /* Of what is for using a database nothing counts. */
    own.index = IQDB_INDEX_AUTO;
    own.index_ops = NULL;
    own.index_keys = NULL;
    own.index_key_count = 0;
    own.dim = 0;
    own.retired_max = own.memory_max = 0;
    const iqdb_result result = iq_db_open(&own, iq_salvage_all, from != NULL ? &source : NULL, &db);
    if (db != NULL) iq_home_free(db->home);
    return result;
}

/* ---- Backups, the other way to a new directory ---- */

IQDB_API iqdb_result iqdb_backup(iqdb *db, const char *path) {
    iqdb_stats stats;
    const iqdb_result result = iq_db_enter_upkeep(db, path == NULL ? "path is NULL" : NULL);
    if (result != IQDB_OK) return result;
    if (iq_db_directory(db) != NULL) iq_directory_describe(db->home->directory, &stats);
    const uint8_t *uuid = iq_db_directory(db) != NULL ? stats.uuid : NULL;
    return iq_db_leave_with(db, iq_image_to_directory(db->home, path, uuid, db->home->common.lsn));
}

#endif
