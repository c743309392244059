/* Checks of the records in memory, and iqdb_verify. */
#include "codec/payload.h"
#include "db/db.h"

/* A row in memory: no file has an offset for it. */
static void iq_verify_say(iq_findings *findings, uint64_t row, const char *text) {
    const iqdb_error finding = iq_error_make(IQDB_ERR_CORRUPT, NULL, row, text);
    iq_findings_add(findings, &finding);
}

static void iq_verify_row(const iqdb *db, iq_findings *findings, uint32_t row) {
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
    const float *vector = slab->vectors + index * db->records.rows.stride;
    const iqdb_payload payload = iq_heap_payload(&db->records.heap, slab->heads[index].payload);
    const float norm = iq_vector_norm_of(db->records.kernel, vector, db->records.rows.dim);
    if (!iq_vector_is_finite(db->records.kernel, vector, db->records.rows.dim))
        iq_verify_say(findings, row, "the vector of a row is not finite");
    if (iq_f32_bits(norm) != iq_f32_bits(slab->norms[index]))
        iq_verify_say(findings, row, "the norm of a row is not that of its vector");
    if (payload.bytes != NULL && iq_payload_validate(payload.bytes, payload.size) != IQDB_OK)
        iq_verify_say(findings, row, "the payload of a row is malformed");
    if (iq_ids_find(&db->records.ids, &db->records.rows, slab->heads[index].id) != row)
        iq_verify_say(findings, row, "the id of a row does not lead to it");
}

IQ_FN void iq_verify_records(const iqdb *db, iq_findings *findings) {
    size_t live = 0;
    for (uint32_t row = 0; row < db->records.rows.count; row++) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
        if (!iq_row_is_live(slab, index)) continue;
        live++;
        iq_verify_row(db, findings, row);
    }
    if (live != db->records.live_count)
        iq_verify_say(findings, live, "the number of records is not the number of live rows");
}

IQDB_API iqdb_result iqdb_verify(iqdb *db, iqdb_depth depth, iqdb_report_fn report, void *user) {
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (depth < IQDB_DEPTH_DEFAULT || depth > IQDB_DEPTH_RECORDS) return iq_db_refuse(db, "the depth is unknown");
    iqdb_result result = iq_db_enter_upkeep(db);
    if (result != IQDB_OK) return result;
    iq_findings findings = iq_findings_make(report, user);
    if (depth == IQDB_DEPTH_DEFAULT) depth = IQDB_DEPTH_RECORDS;
    if (db->directory != NULL) result = iq_directory_verify(db->directory, depth, report, user);
    if (depth == IQDB_DEPTH_RECORDS) iq_verify_records(db, &findings);
    iq_db_leave(db);
    return result != IQDB_OK ? result : findings.first;
}
