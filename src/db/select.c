/* Programs of filters that outlive a call, and deleting by filter.
 *
 * 1. What is deleted is decided under the lock that deletes it, and goes in one atomic batch.
 * 2. Allocators are called by one thread at a time: under the lock, which a caller of these may have or not. */
#include "db/db.h"

IQ_FN iqdb_result iq_program_make(const iqdb *db, const iqdb_filter *filter, iq_program **out_program) {
    iq_filter_layout layout;
    const size_t head = iq_round_up(sizeof(iq_program), 16);
    *out_program = NULL;
    if (iq_filter_measure(filter, &layout) != NULL) return IQDB_ERR_INVALID_FILTER;
    const bool entered = iq_db_enter_upkeep(iq_db_of(db)) == IQDB_OK;
    iq_program *program = (iq_program *)iq_alloc(&db->allocator, head + layout.size_bytes, 16);
    if (entered) iq_db_leave(iq_db_of(db));
    if (program == NULL) return IQDB_ERR_NOMEM;
    program->size_bytes = head + layout.size_bytes;
    iq_filter_compile(filter, &layout, (uint8_t *)program + head, &program->filter);
    *out_program = program;
    return IQDB_OK;
}

IQ_FN void iq_program_free(const iqdb *db, iq_program *program) {
    if (program == NULL) return;
    const bool entered = iq_db_enter_upkeep(iq_db_of(db)) == IQDB_OK;
    iq_free(&db->allocator, program, program->size_bytes, 16);
    if (entered) iq_db_leave(iq_db_of(db));
}

/* Appends the ids of all records that the filter accepts, under the lock. */
static iqdb_result iq_select_ids(const iqdb *db, const iq_filter *filter, iq_blob *ids) {
    iqdb_result result = IQDB_OK;
    for (uint32_t row = 0; row < db->records.rows.count && result == IQDB_OK; row++) {
        uint32_t index;
        const iq_slab *slab = iq_rows_slab(&db->records.rows, row, &index);
        if (iq_slab_seek(slab, index, index + 1, true) != index) continue;
        if (!iq_row_visible(slab, index, db->records.epoch.moment)) continue;
        if (!iq_filter_accepts(filter, iq_heap_payload(&db->records.heap, slab->heads[index].payload))) continue;
        const uint64_t id = slab->heads[index].id;
        result = iq_blob_append(ids, &id, sizeof id);
    }
    return result;
}

IQDB_API iqdb_result iqdb_delete_where(iqdb *db, const iqdb_filter *filter, size_t *out_removed) {
    iq_program *program;
    iq_blob ids;
    size_t removed = 0;
    if (db == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (filter == NULL) return iq_db_refuse(db, "the filter is NULL; iqdb_filter_default() is every record");
    iqdb_result result = iq_db_enter_write(db);
    if (result != IQDB_OK) return result;
    iq_filter_layout layout;
    const char *why = iq_filter_measure(filter, &layout);
    if (why != NULL) (void)iq_report(&db->reporter, IQDB_ERR_INVALID_FILTER, NULL, 0, why);
    memset(&ids, 0, sizeof ids);
    ids.allocator = &db->allocator;
    result = iq_program_make(db, filter, &program);
    if (program != NULL) result = iq_select_ids(db, &program->filter, &ids);
    if (result == IQDB_OK && ids.size > 0)
        result = iq_batch_delete(db, (const uint64_t *)(const void *)ids.bytes, ids.size / sizeof(uint64_t), &removed);
    iq_program_free(db, program);
    iq_blob_free(&ids);
    result = iq_db_leave_with(db, result);
    if (result == IQDB_OK && out_removed != NULL) *out_removed = removed;
    return result;
}
