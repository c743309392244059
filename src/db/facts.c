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

#if !defined(IQDB_NO_TEXT)
static const char *iq_name_of(const char *const *names, size_t count, int number) {
    return number >= 0 && (size_t)number < count ? names[number] : "unknown";
}

IQDB_API const char *iqdb_metric_name(iqdb_metric metric) {
    static const char *const names[] = {"default", "l2", "cosine", "dot", "l1", "hamming"};
    return iq_name_of(names, IQ_COUNT_OF(names), (int)metric);
}

IQDB_API const char *iqdb_element_name(iqdb_element element) {
    static const char *const names[] = {"f32", "f16", "bf16", "i8", "u8", "bit"};
    return iq_name_of(names, IQ_COUNT_OF(names), (int)element);
}

IQDB_API const char *iqdb_index_name(iqdb_index index) {
    static const char *const names[] = {"auto", "flat", "hnsw", "ivf", "custom"};
    return iq_name_of(names, IQ_COUNT_OF(names), (int)index);
}

IQDB_API const char *iqdb_plan_name(iqdb_plan plan) {
    static const char *const names[] = {"none", "scan", "codes", "lists", "graph", "keys", "custom"};
    return iq_name_of(names, IQ_COUNT_OF(names), (int)plan);
}

IQDB_API const char *iqdb_type_name(iqdb_type type) {
    static const char *const names[] = {"null", "bool", "int", "float", "text", "bytes", "array", "object"};
    return type == IQDB_TYPE_ABSENT ? "absent" : iq_name_of(names, IQ_COUNT_OF(names), (int)type);
}

#endif

IQDB_API uint32_t iqdb_version(void) { return IQDB_VERSION; }

IQDB_API const char *iqdb_simd_name(const iqdb *db) {
    return db != NULL ? db->records.kernel->name : iq_kernel_select(iq_cpu_features(), IQDB_SIMD_BEST)->name;
}

/* Memory of rows and payloads by what it is for. */
static void iq_stat_memory(const iq_records *records, iqdb_stats *stats) {
    const iq_rows *rows = &records->rows;
    /* Of lent rows nothing is in memory but bits, and heads where some have died. */
    const uint64_t places = iq_slab_first_row(rows, rows->slab_count) - rows->lent.end,
                   used = records->live_count + records->retired.count - (rows->lent.count - rows->lent.gone);
    stats->vector_bytes = rows->bytes;
    stats->payload_bytes = records->heap.bytes;
    stats->lookup_bytes = (uint64_t)records->ids.capacity * sizeof(uint64_t);
    if (!IQ_SMALL) stats->key_bytes = iq_keys_bytes(&records->keys);
    if (places > 0) stats->code_bytes = places * iq_rows_code_bytes(rows);
    if (places > used) {
        stats->free_rows = places - used;
        stats->free_bytes = rows->bytes / places * stats->free_rows;
    }
    if (records->heap.bytes > records->heap.used && records->heap.arena == NULL)
        stats->free_bytes += records->heap.bytes - records->heap.used;
    stats->retired_rows = records->retired.count;
    stats->retired_bytes = records->retired.bytes;
}

static void iq_stat_disk(const iq_home *home, iqdb_stats *stats) {
    stats->sync_count = IQ_ATOMIC_LOAD(&home->syncs.count);
    stats->weak_sync_count = IQ_ATOMIC_LOAD(&home->syncs.weak);
    stats->sync_us = IQ_ATOMIC_LOAD(&home->syncs.us);
    stats->checkpoints = home->made;
    if (home->made > 0 && home->clock.now_fn != NULL)
        stats->checkpoint_age_us = home->clock.now_fn(home->clock.user) - home->made_at;
    stats->snapshots = home->checkpoint.count;
}

static void iq_stat_home(const iq_home *home, iqdb_stats *stats) {
    stats->sync = home->sync;
    if (IQ_HAS_FILES) iq_stat_disk(home, stats);
    stats->scratch_bytes = iq_epoch_scratch_bytes(&home->common.epoch);
    stats->simd = iqdb_simd_name(&home->root);
}

static void iq_stat_index(const iqdb *db, iqdb_stats *stats) {
    stats->nlist = db->index_knobs.nlist;
    stats->nprobe = db->nprobe;
    stats->m = db->index_knobs.m;
    stats->ef_construction = db->index_knobs.ef_construction;
    stats->ef_search = db->ef;
    if (db->replaced != NULL) stats->index_bytes = db->replaced->bytes;
    if (db->index == NULL) return;
    iq_index_facts facts;
    db->index->ops->describe_fn(db->index, &facts);
    if (facts.rows > 0) stats->index = db->index->ops->kind;
    stats->index_bytes += db->index->bytes;
    stats->index_rows = facts.rows;
    stats->index_lists = facts.lists;
    stats->longest_list = facts.longest;
    stats->unreachable_rows = facts.unreachable;
    stats->tail_rows = db->records.rows.fresh;
}

IQDB_API iqdb_result iqdb_stat(const iqdb *db, iqdb_stats *out_stats) {
    if (out_stats == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    const iqdb_result result = iq_db_enter_upkeep(iq_db_of(db), NULL);
    if (result != IQDB_OK) return result;
    /* What is told of retired rows are those that somebody may be reading. */
    (void)iq_records_reclaim(&iq_db_of(db)->records, NULL);
    iqdb_stats stats;
    memset(&stats, 0, sizeof stats);
    if (!IQ_SMALL && db->home->lender != NULL) {
        stats.mapped_bytes = iq_snapshot_size(db->home->lender);
        stats.touched_bytes = iq_snapshot_seen_bytes(db->home->lender);
    }
    stats.records = iq_epoch_count(&db->home->common.epoch, &db->records.tally);
    stats.dim = db->records.dim; /* of what is published */
    stats.metric = db->metric;
    stats.element = db->element;
    stats.collections = (uint32_t)(iq_home_count(db->home) - 1 - db->home->dead);
    stats.format_version = IQDB_FORMAT_VERSION;
    stats.in_memory = iq_db_directory(db) == NULL;
    stats.read_only = db->home->read_only;
    stats.last_lsn = db->home->common.lsn;
    if (IQ_HAS_MODELS) iq_model_copy(stats.model, db->home->model);
    if (iq_db_directory(db) != NULL) iq_directory_describe(db->home->directory, &stats);
    for (size_t i = 0; i < iq_home_count(db->home); i++)
        if (iq_home_at(db->home, i)->died == IQ_MOMENT_NEVER)
            stats.all_records += iq_epoch_count(&db->home->common.epoch, &iq_home_at(db->home, i)->records.tally);
    iq_stat_memory(&db->records, &stats);
    iq_stat_home(db->home, &stats);
    stats.index_wanted = db->index_kind;
    stats.seed = db->index_knobs.seed;
    stats.tail_rows = stats.records;
    stats.index = IQDB_INDEX_FLAT;
    if (!IQ_SMALL) iq_stat_index(db, &stats);
    const uint64_t oldest = iq_epoch_oldest(&db->home->common.epoch);
    stats.oldest_pin_age = oldest == IQ_MOMENT_NEVER ? 0 : db->home->common.epoch.moment - oldest;
    *out_stats = stats;
    iq_db_leave(iq_db_of(db));
    return IQDB_OK;
}
