/* iqdb_repair: what persist/repair.c can still read, put together in memory and written as a new directory.
 *
 * 1. A row is taken only as a whole: id, vector, reference and payload all lie in undamaged blocks, and pass the checks
 *    that an upsert makes. The norm is computed anew.
 * 2. The places of the sections follow from the list; where that is damaged, from the catalog; where that is, from
 *    the list and META. */
#include "codec/payload.h"
#include "db/db.h"
#include "persist/sections.h"

#define IQ_SALVAGE_ROWS 128u /* whose ids and references are read at once */

typedef struct iq_salvage {
    iqdb *db;
    iq_findings *findings;
    iq_snapshot_reader *reader;
    uint64_t lsn;     /* of the rows of the snapshot: below that of every record that follows */
    uint64_t unknown; /* lost rows in a run, whose ids cannot be read either */
    uint64_t unknown_at;
    uint64_t ids[IQ_SALVAGE_ROWS], refs[IQ_SALVAGE_ROWS];
    bool has_id[IQ_SALVAGE_ROWS], has_ref[IQ_SALVAGE_ROWS];
} iq_salvage;

static iqdb_result iq_salvage_schema(const iq_schema *schema, void *user) {
    const iq_salvage *salvage = (const iq_salvage *)user;
    iqdb_options options = iqdb_options_default();
    return iq_db_adopt_schema(salvage->db, &options, schema, "META");
}

static iqdb_result iq_salvage_record(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user) {
    return iq_db_replay(((const iq_salvage *)user)->db, bytes, size, commit_lsn);
}

/* ---- Rows of a snapshot ---- */

static iqdb_result iq_salvage_find_sections(iq_salvage *salvage, uint64_t *out_rows) {
    iq_snapshot_reader *reader = salvage->reader;
    iqdb *db = salvage->db;
    iq_schema schema;
    uint64_t size;
    *out_rows = 0;
    if (!iq_snapshot_find(reader, 0, IQ_SECTION_CATALOG, &size))
        iq_snapshot_assume(reader, 0, IQ_SECTION_CATALOG, IQ_CATALOG_SIZE);
    if (iq_image_schema(reader, &schema, out_rows) == IQDB_OK) {
        db->metric = (iqdb_metric)schema.metric;
        if (db->records.rows.dim == 0) iq_rows_set_dim(&db->records.rows, schema.dim);
        if (db->records.rows.dim != schema.dim) return IQDB_ERR_CORRUPT;
    } else if (iq_snapshot_find(reader, 0, IQ_SECTION_IDS, &size)) {
        *out_rows = size / 8;
    }
    if (*out_rows == 0) return IQDB_OK;
    if (*out_rows > IQ_ROW_COUNT_MAX || db->records.rows.dim == 0) return IQDB_ERR_CORRUPT;
    if (!iq_snapshot_find(reader, 0, IQ_SECTION_IDS, &size)) {
        iq_snapshot_assume(reader, 0, IQ_SECTION_IDS, *out_rows * 8);
        iq_snapshot_assume(reader, 0, IQ_SECTION_VECTORS, *out_rows * db->records.rows.stride * sizeof(float));
        iq_snapshot_assume(reader, 0, IQ_SECTION_NORMS, *out_rows * 4);
        iq_snapshot_assume(reader, 0, IQ_SECTION_PAYLOAD_REFS, *out_rows * 8);
        iq_snapshot_assume(reader, 0, IQ_SECTION_PAYLOADS, iq_snapshot_rest(reader));
    }
    return IQDB_OK;
}

/* One number a row, as many as can be read. */
static void iq_salvage_numbers(const iq_salvage *salvage, uint32_t kind, uint64_t first, size_t count, uint64_t *out,
                               bool *out_read) {
    uint8_t bytes[IQ_SALVAGE_ROWS * 8];
    const bool all = iq_snapshot_read(salvage->reader, 0, kind, first * 8, bytes, count * 8) == IQDB_OK;
    for (size_t i = 0; i < count; i++) {
        out_read[i] = all || iq_snapshot_read(salvage->reader, 0, kind, (first + i) * 8, bytes + i * 8, 8) == IQDB_OK;
        out[i] = out_read[i] ? iq_get_u64(bytes + i * 8) : 0;
    }
}

static void iq_salvage_tell_unknown(iq_salvage *salvage) {
    if (salvage->unknown == 0) return;
    iqdb_error finding = iq_snapshot_finding(salvage->reader, 0, IQ_SECTION_IDS, salvage->unknown_at * 8,
                                             "records are lost whose ids are lost too");
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
    iqdb_error finding = iq_snapshot_finding(salvage->reader, 0, IQ_SECTION_IDS, row * 8,
                                             "the record of this id is lost, but for what logs have of it");
    finding.records = 1;
    finding.id = salvage->ids[i];
    finding.has_id = true;
    iq_findings_add(salvage->findings, &finding);
}

/* Vector, then payload, into db->encoded. CORRUPT: the row cannot be had. */
static iqdb_result iq_salvage_bytes(iq_salvage *salvage, uint64_t row, uint64_t ref, size_t *out_payload_size) {
    iq_blob *blob = &salvage->db->encoded;
    iq_snapshot_reader *reader = salvage->reader;
    const size_t row_size = salvage->db->records.rows.stride * sizeof(float);
    const size_t vector_size = (size_t)salvage->db->records.rows.dim * sizeof(float);
    uint8_t size[4];
    *out_payload_size = 0;
    blob->size = 0;
    iqdb_result result = iq_blob_reserve(blob, row_size);
    if (result == IQDB_OK)
        result = iq_snapshot_read(reader, 0, IQ_SECTION_VECTORS, row * row_size, blob->bytes, row_size);
    for (size_t i = vector_size; result == IQDB_OK && i < row_size; i++)
        if (blob->bytes[i] != 0) result = IQDB_ERR_CORRUPT;
    if (result != IQDB_OK || ref == 0) return result;
    result = iq_snapshot_read(reader, 0, IQ_SECTION_PAYLOADS, ref, size, sizeof size);
    if (result != IQDB_OK) return result;
    const uint32_t payload_size = iq_get_u32(size);
    uint64_t section_size;
    (void)iq_snapshot_find(reader, 0, IQ_SECTION_PAYLOADS, &section_size);
    if (payload_size > IQDB_PAYLOAD_SIZE_MAX || payload_size > section_size) return IQDB_ERR_CORRUPT;
    blob->size = row_size;
    result = iq_blob_reserve(blob, (size_t)payload_size + 1);
    uint8_t *payload = blob->bytes + row_size;
    if (result == IQDB_OK) result = iq_snapshot_read(reader, 0, IQ_SECTION_PAYLOADS, ref + 4, payload, payload_size);
    if (result == IQDB_OK && iq_payload_validate(payload, payload_size) != IQDB_OK) result = IQDB_ERR_CORRUPT;
    *out_payload_size = payload_size;
    return result;
}

static iqdb_result iq_salvage_row(iq_salvage *salvage, uint64_t row, size_t i) {
    iq_records *records = &salvage->db->records;
    size_t payload_size;
    iqdb_payload payload;
    uint32_t taken;
    if (!salvage->has_id[i] || !salvage->has_ref[i]) return IQDB_ERR_CORRUPT;
    iqdb_result result = iq_salvage_bytes(salvage, row, salvage->refs[i], &payload_size);
    if (result != IQDB_OK) return result;
    uint8_t *bytes = salvage->db->encoded.bytes;
    float *vector = (float *)(void *)bytes;
    if (IQ_BIG_ENDIAN)
        for (uint32_t k = 0; k < records->rows.dim; k++) vector[k] = iq_f32_from_bits(iq_get_u32(bytes + k * 4u));
    if (!iq_vector_is_finite(records->kernel, vector, records->rows.dim)) return IQDB_ERR_CORRUPT;
    payload.bytes = salvage->refs[i] == 0 ? NULL : bytes + records->rows.stride * sizeof(float);
    payload.size = payload_size;
    result = iq_records_reserve(records, 1);
    if (result == IQDB_OK) result = iq_records_stage(records, salvage->ids[i], vector, payload, &taken);
    if (result != IQDB_OK) return result;
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

static iqdb_result iq_salvage_snapshot(iq_snapshot_reader *reader, void *user) {
    iq_salvage *salvage = (iq_salvage *)user;
    uint64_t rows;
    salvage->reader = reader;
    salvage->lsn = salvage->db->records.lsn;
    iqdb_result result = iq_salvage_find_sections(salvage, &rows);
    if (result == IQDB_ERR_CORRUPT) {
        const iqdb_error finding = iq_snapshot_finding(
            reader, 0, IQ_SECTION_CATALOG, 0, "nothing tells any more what the records look like: they are lost");
        iq_findings_add(salvage->findings, &finding);
        return IQDB_OK;
    }
    for (uint64_t row = 0; row < rows && result == IQDB_OK; row += IQ_SALVAGE_ROWS)
        result = iq_salvage_group(salvage, row, rows - row < IQ_SALVAGE_ROWS ? (size_t)(rows - row) : IQ_SALVAGE_ROWS);
    iq_salvage_tell_unknown(salvage);
    return result;
}

/* ---- The call ---- */

typedef struct iq_repair_source {
    const char *from, *to;
    iqdb_report_fn report_fn;
    void *user;
} iq_repair_source;

static iqdb_result iq_salvage_all(iqdb *db, const iqdb_options *options, const void *from) {
    const iq_repair_source *source = (const iq_repair_source *)from;
    const iq_directory_config config = iq_db_config(db);
    iq_findings findings = iq_findings_make(source->report_fn, source->user);
    iq_salvage *salvage = (iq_salvage *)iq_alloc_zeroed(&db->allocator, sizeof *salvage, 16);
    const iq_loader loader = {iq_salvage_schema, iq_salvage_snapshot, iq_salvage_record, salvage};
    uint64_t lsn = 0;
    (void)options;
    if (salvage == NULL) return IQDB_ERR_NOMEM;
    salvage->db = db;
    salvage->findings = &findings;
    const iqdb_result result = iq_directory_repair(source->from, &config, &loader, &findings, &lsn);
    iq_free(&db->allocator, salvage, sizeof *salvage, 16);
    if (result != IQDB_OK) return result;
    return source->to != NULL ? iq_image_to_directory(db, source->to, NULL, lsn) : findings.first;
}

IQDB_API iqdb_result iqdb_repair(const char *from, const char *to, const iqdb_options *options, iqdb_report_fn report,
                                 void *user) {
    const iq_repair_source source = {from, to, report, user};
    iqdb *db = NULL;
    const iqdb_result result = iq_db_open(options, iq_salvage_all, from != NULL ? &source : NULL, &db);
    if (db != NULL) iq_db_free(db);
    return result;
}
