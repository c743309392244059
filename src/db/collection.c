/* Collections: the named parts of a database, made, found, and dropped.
 *
 * 1. Numbers grow and are never given again, so that of two snapshots, or of a log and a snapshot, one number is one
 *    collection. The table has them in this order: a new one comes last.
 * 2. A collection is there from the moment `born` on, and until `died`, like a row: who has pinned a moment between the two
 *    goes on to see it, whatever the table says now. A dead one leaves its memory when nobody is on such a moment, and
 *    the table when nobody has a handle either.
 * 3. Handles of one collection are one object: closing one of them ends nothing for the others. */
#include "db/db.h"

/* ---- The table ---- */

IQ_FN iqdb *iq_home_seek(iq_home *home, uint32_t number, uint64_t moment) {
    size_t low = 0, high = iq_home_count(home);
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (iq_home_at(home, middle)->number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (; low < iq_home_count(home); low++) {
        iqdb *db = iq_home_at(home, low);
        if (db->born <= moment && moment < db->died) return db;
    }
    return NULL;
}

IQ_FN iqdb *iq_home_find(iq_home *home, uint32_t number) {
    iqdb *db = iq_home_seek(home, number, IQ_MOMENT_LAST);
    return db != NULL && db->number == number ? db : NULL;
}

/* The one of this name that has not died; or, where `is_read`, one whose death is not published: it may never be. */
static iqdb *iq_home_named(iq_home *home, const char *name, size_t size, bool is_read) {
    iqdb *found = NULL;
    for (size_t i = 1; i < iq_home_count(home); i++) {
        iqdb *db = iq_home_at(home, i);
        if (strlen(db->name) != size || memcmp(db->name, name, size) != 0) continue;
        if (db->died == IQ_MOMENT_NEVER || (is_read && db->died > home->common.epoch.moment)) found = db;
    }
    return found;
}

static void iq_home_remove(iq_home *home, size_t i) {
    iqdb *db = iq_home_at(home, i), **all = (iqdb **)(void *)home->named.bytes;
    iq_db_clear_records(db);
    iq_free(&home->allocator, db, sizeof *db + strlen(db->name) + 1, IQ_CACHE_LINE);
    memmove(all + i - 1, all + i, (iq_home_count(home) - i - 1) * sizeof *all);
    home->named.size -= sizeof *all;
}

IQ_FN void iq_home_pop(iq_home *home) { iq_home_remove(home, iq_home_count(home) - 1); }

IQ_FN void iq_home_clear(iq_home *home) {
    while (iq_home_count(home) > 1) iq_home_pop(home);
    iq_db_clear_records(&home->root);
    if (!IQ_SMALL) iq_lend_end(home);
    home->next_number = 1;
    home->dead = 0;
}

IQ_FN iqdb_result iq_home_add(iq_home *home, uint32_t number, const iq_schema *schema, const char *name, size_t size,
                              iqdb **out_db) {
    const iq_records *like = &home->root.records;
    size_t at = home->named.size / sizeof(iqdb *);
    if (IQ_SMALL) return iq_report(&home->reporter, IQDB_ERR_NOT_IMPLEMENTED, NULL, 0, "this build has one collection");
    if (number == 0 || number == UINT32_MAX || iq_home_find(home, number) != NULL || !iq_name_is_valid(name, size) ||
        iq_home_named(home, name, size, false) != NULL || !iq_schema_is_valid(schema))
        return IQDB_ERR_CORRUPT;
    if (iq_blob_reserve(&home->named, sizeof(iqdb *)) != IQDB_OK) return IQDB_ERR_NOMEM;
    iqdb *db = (iqdb *)iq_alloc_zeroed(&home->allocator, sizeof *db + size + 1, IQ_CACHE_LINE);
    if (db == NULL) return IQDB_ERR_NOMEM;
    (void)iq_blob_append(&home->named, &db, sizeof db); /* there is room */
    for (iqdb **all = (iqdb **)(void *)home->named.bytes; at > 0 && all[at - 1]->number > number; at--) {
        all[at] = all[at - 1];
        all[at - 1] = db;
    }
    db->home = home;
    db->number = number;
    db->name = (const char *)memcpy(db + 1, name, size);
    db->died = IQ_MOMENT_NEVER;
    db->key_set.allocator = &home->allocator;
    iq_records_init(&db->records, &home->common, &home->allocator, like->kernel);
    db->records.keeps_deleted = like->keeps_deleted;
    iq_db_set_metric(db, (iqdb_metric)schema->metric, (iqdb_element)schema->element);
    if (schema->dim != 0) iq_rows_set_dim(&db->records.rows, schema->dim);
    db->records.dim = db->records.written_dim = schema->dim;
    db->born = db->records.changed = home->common.epoch.moment + 1;
    if (home->next_number <= number) home->next_number = number + 1;
    *out_db = db;
    return IQDB_OK;
}

IQ_FN void iq_home_bury(iqdb *db) {
    db->records.live_count = 0;
    IQ_ATOMIC_STORE(&db->died, iq_records_change(&db->records));
    db->home->dead++;
}

IQ_FN iqdb_result iq_home_replay(iq_home *home, const iq_logged_record *record, iqdb **out_db) {
    if (record->type == IQ_RECORD_CREATE) {
        const iq_schema schema = {record->dim, (uint32_t)record->id, (uint32_t)record->element, 0};
        if (record->collection < home->next_number) return IQDB_ERR_CORRUPT;
        return iq_home_add(home, record->collection, &schema, (const char *)record->payload, record->payload_size,
                           out_db);
    }
    *out_db = iq_home_find(home, record->collection);
    return *out_db != NULL ? IQDB_OK : IQDB_ERR_CORRUPT;
}

IQ_FN void iq_home_sweep(iq_home *home) {
    if (home->dead == 0) return;
    const uint64_t oldest = iq_epoch_oldest(&home->common.epoch);
    for (size_t i = iq_home_count(home); --i > 0;) {
        iqdb *db = iq_home_at(home, i);
        /* Whoever comes from the present moment on finds it dead, and looks no further than at its tally. */
        if (db->died > oldest || db->died > home->common.epoch.moment) continue;
        iq_db_clear_records(db);
        if (db->handles > 0) continue;
        iq_home_remove(home, i);
        home->dead--;
    }
}

IQ_FN iqdb_result iq_collection_keep_keys(iqdb *db, const uint8_t *bytes, size_t size) {
    iqdb_index_key set[IQDB_INDEX_KEYS_MAX];
    size_t count = 0, used = 1;
    if (!iq_keys_decode(bytes, size, set, &count)) return IQDB_ERR_CORRUPT;
    for (size_t i = 0; i < count; i++) used += strlen(set[i].key) + 2;
    if (used != size) return IQDB_ERR_CORRUPT;
    const iqdb_result result = count > 0 ? iq_blob_reserve(&db->key_set, size) : IQDB_OK;
    if (result != IQDB_OK) return result;
    db->key_set.size = 0;
    return count > 0 ? iq_blob_append(&db->key_set, bytes, size) : IQDB_OK;
}

IQ_FN iqdb_result iq_collection_close(iqdb *db) {
    if (iq_db_is_inside(db)) return IQDB_ERR_BUSY;
    const bool is_open = iq_db_lock(db) && db->handles > 0;
    iq_home *home = db->home;
    if (is_open) db->handles--;
    if (!home->is_torn) iq_home_sweep(home);
    iq_db_leave(&home->root);
    return is_open ? IQDB_OK : IQDB_ERR_INVALID_ARGUMENT;
}

#if !IQ_SMALL

/* ---- Calls ---- */

/* Under the lock: options against what is stored. */
static iqdb_result iq_collection_check(const iqdb *db, const iqdb_options *options) {
    const iqdb_element element = iq_options_element(options);
    const bool differs = (element != IQDB_ELEMENT_F32 && element != db->element) ||
                         (options->metric != IQDB_METRIC_DEFAULT && options->metric != db->metric) ||
                         (options->dim != 0 && db->records.rows.dim != 0 && options->dim != db->records.rows.dim);
    if (!differs) return IQDB_OK;
    return iq_db_tell(db, IQDB_ERR_INVALID_CONFIG, "options differ from what is stored of the collection");
}

/* Of a collection that nobody has a handle of, and so no reader: indexes the keys that options name, or else those that
 * are kept, and takes what options say of an index. */
static iqdb_result iq_collection_begin(iqdb *db, const iqdb_options *options) {
    iqdb_index_key set[IQDB_INDEX_KEYS_MAX];
    const iqdb_index_key *keys = options->index_keys;
    size_t count = options->index_key_count;
    if (keys == NULL) {
        count = 0;
        if (db->key_set.size > 0) (void)iq_keys_decode(db->key_set.bytes, db->key_set.size, set, &count);
        keys = set;
    }
    const iqdb_result result = iq_records_index(&db->records, keys, count);
    return result == IQDB_OK ? iq_db_index_configure(db, options) : result;
}

#if IQ_HAS_WRITES

/* Whether the first handle names other keys than are kept, and may have them kept. */
static bool iq_collection_changes_keys(const iqdb *db, const iqdb_options *options) {
    iqdb_index_key set[IQDB_INDEX_KEYS_MAX];
    size_t count = 0;
    const iq_directory *directory = iq_db_directory(db);
    if (db->is_known || db->died != IQ_MOMENT_NEVER || options->index_keys == NULL || db->home->read_only ||
        (directory != NULL && iq_directory_check(directory) == IQDB_ERR_READONLY))
        return false;
    if (db->key_set.size > 0) (void)iq_keys_decode(db->key_set.bytes, db->key_set.size, set, &count);
    bool is_same = count == options->index_key_count;
    for (size_t i = 0; i < count && is_same; i++)
        is_same = set[i].kind == options->index_keys[i].kind && strcmp(set[i].key, options->index_keys[i].key) == 0;
    return !is_same;
}

/* The set of keys that is indexed, in memory that others use too. */
static iqdb_result iq_collection_key_set(iqdb *db, iq_slice *out_set) {
    iq_blob *encoded = &db->home->encoded;
    const iq_keys *keys = &db->records.keys;
    encoded->size = 0;
    const iqdb_result result = iq_blob_reserve(encoded, IQ_KEY_SET_SIZE_MAX);
    if (result != IQDB_OK) return result;
    iq_keys_encode(keys, encoded->bytes, IQ_KEY_SET_SIZE_MAX);
    out_set->bytes = encoded->bytes;
    out_set->size = 1;
    for (size_t i = 0; i < keys->count; i++) out_set->size += keys->keys[i].name.size + 2;
    return IQDB_OK;
}

/* Has the keys that are indexed kept, as a write. */
static iqdb_result iq_collection_log_keys(iqdb *db, uint64_t *out_lsn) {
    iq_slice set;
    iqdb_result result = iq_collection_key_set(db, &set);
    if (result == IQDB_OK) result = iq_blob_reserve(&db->key_set, set.size);
    if (result == IQDB_OK) result = iq_write_collection(db, IQ_RECORD_KEYS, set, out_lsn);
    if (result != IQDB_OK) return result;
    (void)iq_records_change(&db->records);
    return iq_collection_keep_keys(db, (const uint8_t *)set.bytes, set.size);
}

/* One handle more; where `changes`, behind a write that has the keys that are indexed kept. */
static iqdb_result iq_collection_lend(iqdb *db, bool changes) {
    uint64_t lsn = 0;
    iqdb_result result = changes ? iq_collection_log_keys(db, &lsn) : IQDB_OK;
    if (result != IQDB_OK) return result;
    db->is_known = true;
    db->handles++; /* before another thread may drop it */
    if (changes) result = iq_write_settle(db, lsn);
    if (result != IQDB_OK) db->handles--;
    return result;
}

static iqdb_result iq_collection_make(iqdb *db, const char *name, size_t size, const iqdb_options *options,
                                      iqdb **out_made) {
    iq_home *home = db->home;
    iq_schema schema = {options->dim, (uint32_t)options->metric, (uint32_t)iq_options_element(options), 0};
    uint64_t lsn;
    if (home->root.records.heap.arena != NULL)
        return iq_db_tell(db, IQDB_ERR_INVALID_CONFIG, "a database in a block has one collection");
    if (home->next_number == UINT32_MAX - 1) return IQDB_ERR_LIMIT;
    if (schema.metric == IQDB_METRIC_DEFAULT) schema.metric = iq_element_metric(options->element);
    (void)iq_db_quiesce(db);
    iqdb_result result = iq_home_add(home, home->next_number, &schema, name, size, out_made);
    if (result != IQDB_OK) return result;
    const iq_slice body = {(*out_made)->name, size};
    iq_slice set;
    const bool has_keys = options->index_key_count > 0;
    result = iq_collection_begin(*out_made, options);
    if (has_keys && result == IQDB_OK) result = iq_collection_key_set(*out_made, &set);
    if (has_keys && result == IQDB_OK)
        result = iq_collection_keep_keys(*out_made, (const uint8_t *)set.bytes, set.size);
    if (result == IQDB_OK) result = iq_write_collection(*out_made, IQ_RECORD_CREATE, body, &lsn);
    if (result != IQDB_OK) {
        iq_home_pop(home);
        home->next_number--;
        return result;
    }
    (void)iq_records_change(&(*out_made)->records);
    (*out_made)->is_known = true;
    (*out_made)->handles++; /* before another thread may drop it */
    result = iq_write_settle(*out_made, lsn);
    if (result != IQDB_OK) (*out_made)->handles--;
    return result;
}

IQDB_API iqdb_result iqdb_collection_drop(iqdb *db, const char *name) {
    uint64_t lsn;
    iqdb_result result = iq_db_enter_write(db, name == NULL ? "the name is NULL" : NULL);
    if (result != IQDB_OK) return result;
    iq_home *home = db->home;
    (void)iq_db_quiesce(db);
    iqdb *dropped = iq_home_named(home, name, strlen(name), false);
    if (dropped == NULL) return iq_db_leave_with(db, IQDB_ERR_NOT_FOUND);
    const iq_slice nothing = {NULL, 0};
    result = iq_write_collection(dropped, IQ_RECORD_DROP, nothing, &lsn);
    if (result != IQDB_OK) return iq_db_leave_with(db, result);
    iq_home_bury(dropped);
    result = iq_write_settle(db, lsn);
    iq_home_sweep(home);
    return iq_db_leave_with(db, result);
}

#else

static iqdb_result iq_collection_lend(iqdb *db, bool changes) {
    (void)changes; /* there are none */
    db->is_known = true;
    db->handles++;
    return IQDB_OK;
}

#endif

IQDB_API iqdb_result iqdb_collection(iqdb *db, const char *name, const iqdb_options *options, iqdb **out_collection) {
    const iqdb_options defaults = iqdb_options_default();
    bool changes = false;
    if (out_collection == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    *out_collection = NULL;
    if (options == NULL) options = &defaults;
    const size_t size = name != NULL ? strlen(name) : 0;
    iqdb_result result =
        iq_db_enter_upkeep(db, iq_name_is_valid(name, size) ? NULL : "the name is NULL, empty, too long, or not UTF-8");
    if (result != IQDB_OK) return result;
    const char *complaint = iq_options_schema_complaint(options);
    if (complaint == NULL) complaint = iq_keys_complaint(options->index_keys, options->index_key_count);
    if (complaint != NULL) return iq_db_leave_with(db, iq_db_tell(db, IQDB_ERR_INVALID_CONFIG, complaint));
    iqdb *found = iq_home_named(db->home, name, size, true);
#if IQ_HAS_WRITES
    changes = found != NULL && iq_collection_changes_keys(found, options);
    if (found == NULL || changes) {
        result = iq_db_prepare_write(db);
        if (changes && result != IQDB_OK) return iq_db_leave_with(db, result);
        if (changes) (void)iq_db_quiesce(db);
        found = iq_home_named(db->home, name, size, true); /* another thread may have been first */
        changes = changes && found != NULL && iq_collection_changes_keys(found, options);
    }
    if (found == NULL && result == IQDB_OK) {
        result = iq_collection_make(db, name, size, options, &found);
        if (result == IQDB_OK) *out_collection = found;
        return iq_db_leave_with(db, result);
    }
#endif
    if (found == NULL) {
        if (result == IQDB_OK || result == IQDB_ERR_READONLY)
            result = iq_db_tell(db, IQDB_ERR_NOT_FOUND, "there is no collection of this name");
        return iq_db_leave_with(db, result);
    }
    result = iq_collection_check(found, options);
    if (result == IQDB_OK && !found->is_known) result = iq_collection_begin(found, options);
    if (result == IQDB_OK) result = iq_collection_lend(found, changes);
    if (result == IQDB_OK) *out_collection = found;
    return iq_db_leave_with(db, result);
}

IQDB_API iqdb_result iqdb_collection_names(const iqdb *db, iqdb_name_fn fn, void *user) {
    char name[IQDB_NAME_SIZE_MAX + 1];
    for (uint32_t number = 1;;) {
        const iqdb_result result = iq_db_enter_upkeep(iq_db_of(db), fn == NULL ? "the function is NULL" : NULL);
        if (result != IQDB_OK) return result;
        const iqdb *next = iq_home_seek(db->home, number, db->home->common.epoch.moment);
        if (next != NULL) memcpy(name, next->name, strlen(next->name) + 1);
        if (next != NULL) number = next->number + 1;
        iq_db_leave(iq_db_of(db));
        /* Without the lock: what is called may do anything, and so may others meanwhile. */
        if (next == NULL || !fn(name, user)) return IQDB_OK;
    }
}

#endif
