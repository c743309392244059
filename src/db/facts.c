/* What a handle can tell about itself, and the texts of results. */
#include "db/db.h"

IQDB_API const char *iqdb_strerror(iqdb_result result) {
    static const char *const texts[] = {
        "ok",
        "input or output error",
        "invalid configuration",
        "invalid vector: empty, too long, or not finite",
        "another dimension than the collection's",
        "corrupt data",
        "not implemented",
        "not found",
        "out of memory",
        "no space left on the disk",
        "locked by another handle",
        "opened for reading only",
        "written by a newer version",
        "beyond a limit",
        "busy: not from inside a callback, nor while iterators live or keep too much",
        "poisoned by an earlier failed write: open again to recover",
        "invalid filter",
        "invalid payload",
        "invalid argument",
        "cancelled",
    };
    const int index = -(int)result;
    return index >= 0 && index < (int)IQ_COUNT_OF(texts) ? texts[index] : "unknown result";
}

IQDB_API uint32_t iqdb_version(void) {
    return IQDB_VERSION;
}

IQDB_API const char *iqdb_simd_name(const iqdb *db) {
    return db != NULL ? db->records.kernel->name : iq_kernel_select(iq_cpu_features(), IQDB_SIMD_BEST)->name;
}

IQDB_API iqdb_result iqdb_stat(const iqdb *db, iqdb_stats *out_stats) {
    if (db == NULL || out_stats == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    const iqdb_result result = iq_db_enter_upkeep(iq_db_of(db));
    if (result != IQDB_OK) return result;
    /* What is told of retired rows are those that somebody may be reading. */
    iq_records_reclaim(&iq_db_of(db)->records);
    iqdb_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.records = db->records.live_count;
    stats.dim = db->records.rows.dim;
    stats.metric = db->metric;
    stats.format_version = IQDB_FORMAT_VERSION;
    stats.in_memory = db->directory == NULL;
    stats.read_only = db->read_only;
    stats.last_lsn = db->records.lsn;
    if (db->directory != NULL) iq_directory_describe(db->directory, &stats);
    stats.vector_bytes = db->records.rows.bytes;
    stats.payload_bytes = db->records.heap.bytes;
    stats.lookup_bytes = (uint64_t)db->records.ids.capacity * sizeof(uint64_t);
    stats.retired_rows = db->records.retired.count;
    stats.retired_bytes = db->records.retired.bytes;
    const uint64_t oldest = iq_epoch_oldest(&iq_db_of(db)->records.epoch);
    stats.oldest_pin_age = oldest == IQ_MOMENT_NEVER ? 0 : db->records.epoch.moment - oldest;
    *out_stats = stats;
    iq_db_leave(iq_db_of(db));
    return IQDB_OK;
}
