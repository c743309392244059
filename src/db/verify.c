/* Checks of the records in memory, and iqdb_verify. */
#include "codec/payload.h"
#include "db/db.h"

/* A row in memory: no file has an offset for it. */
static void iq_verify_say(iq_findings *findings, uint64_t row, const char *text) {
    const iqdb_error finding = iq_error_make(IQDB_ERR_CORRUPT, NULL, row, text);
    iq_findings_add(findings, &finding);
}

/* Of lent rows, as it was found last. */
static void iq_verify_damage(const iq_home *home, iq_findings *findings) {
    const uint64_t damaged = IQ_ATOMIC_LOAD(&home->damaged);
    const iqdb_error finding =
        iq_snapshot_damage(home->lender, damaged - (damaged > 0), "a part of the snapshot is damaged");
    iq_findings_add(findings, &finding);
}

static void iq_verify_row(const iqdb *db, iq_findings *findings, uint32_t row, const iq_slab *slab, uint32_t index) {
    const float *vector = slab->vectors + index * db->records.rows.stride;
    const iqdb_payload payload = iq_heap_payload(&db->records.heap, iq_row_payload(slab, index));
    const float norm = iq_row_norm_of(db->records.rows.sums, db->element, vector, db->records.rows.stride);
    if (!iq_vector_is_sound(db->records.kernel, db->element, vector, db->records.rows.dim))
        iq_verify_say(findings, row, "the vector of a row is not finite");
    if (iq_f32_bits(norm) != iq_f32_bits(slab->norms[index]))
        iq_verify_say(findings, row, "the norm of a row is not that of its vector");
    if (!iq_rows_touch_all(&db->records.rows, IQ_LENT_CODES, row, 1))
        iq_verify_damage(db->home, findings);
    else if (!iq_rows_code_agrees(&db->records.rows, slab, index))
        iq_verify_say(findings, row, "the code of a row is not that of its vector");
    if (payload.bytes != NULL && iq_payload_validate(payload.bytes, payload.size) != IQDB_OK)
        iq_verify_say(findings, row, "the payload of a row is malformed");
    const iq_spot found = iq_ids_find(&db->records.ids, &db->records.rows, iq_row_id(slab, index), false);
    if (found.slab == NULL || found.row != row) iq_verify_say(findings, row, "the id of a row does not lead to it");
}

static void iq_verify_collection(const iqdb *db, iq_findings *findings) {
    const iq_records *records = &db->records;
    const iq_slab *slab;
    uint32_t row = 0, index;
    size_t live = 0;
    bool whole = true;
    for (; row < records->rows.count; row++) {
        slab = iq_records_next(records, &row, records->rows.count, IQ_MOMENT_LAST, NULL, &index);
        if (slab != NULL) live++;
        if (slab != NULL) iq_verify_row(db, findings, row, slab, index);
        if (slab != NULL || row >= records->rows.count) continue;
        if (IQ_SMALL) break;
        whole = false;
        iq_verify_damage(db->home, findings);
        row |= IQ_LENT_ROWS_UNIT - 1; /* the others of the unit are damaged as well */
    }
    const char *wrong = db->index != NULL ? db->index->ops->check_fn(db->index) : NULL;
    if (wrong != NULL) iq_verify_say(findings, 0, wrong);
    if (live != records->live_count && whole)
        iq_verify_say(findings, live, "the number of records is not the number of live rows");
}

IQ_FN void iq_verify_records(iq_home *home, iq_findings *findings) {
    for (const iqdb *db = &home->root; db != NULL; db = iq_home_seek(home, db->number + 1, IQ_MOMENT_LAST))
        iq_verify_collection(db, findings);
}

IQDB_API iqdb_result iqdb_verify(iqdb *db, iqdb_depth depth, iqdb_report_fn report, void *user) {
    const bool is_known = depth >= IQDB_DEPTH_DEFAULT && depth <= IQDB_DEPTH_RECORDS;
    iqdb_result result = iq_db_enter_upkeep(db, is_known ? NULL : "the depth is unknown");
    if (result != IQDB_OK) return result;
    iq_findings findings = iq_findings_make(report, user);
    if (depth == IQDB_DEPTH_DEFAULT) depth = IQDB_DEPTH_RECORDS;
    (void)iq_db_quiesce(db);
    if (iq_db_directory(db) != NULL) result = iq_directory_verify(db->home->directory, depth, report, user);
    if (depth == IQDB_DEPTH_RECORDS) iq_verify_records(db->home, &findings);
    iq_db_leave(db);
    return result != IQDB_OK ? result : findings.first;
}
