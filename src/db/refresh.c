/* A read-only handle follows a writer in another process, when it is asked to.
 *
 * 1. Everything that can fail happens before anything is changed: what was written meanwhile is staged, as rows that
 *    nobody sees and a list of changes, which are then applied and published at once.
 * 2. Where logs do not tell any more what was written, everything is loaded beside what there is, and the list is the
 *    difference between the two: rows do not move, and who has pinned some goes on to see them. */
#include "db/db.h"

typedef struct iq_change {
    iqdb *db;
    uint64_t id;
    uint32_t row;   /* staged, or IQ_ROW_NONE: the record is deleted */
    uint32_t drops; /* nothing of this: the collection is dropped */
} iq_change;

/* Of an index. */
typedef struct iq_chosen {
    iqdb *db;
    iq_index_choice choice;
} iq_chosen;

typedef struct iq_refresh {
    iq_home *home;
    iq_home *beside;      /* NULL, or what is loaded is for this one */
    iq_blob changes;      /* in their order */
    iq_blob choices;      /* likewise, an iq_chosen each */
    uint32_t next_number; /* of a collection, before: those from there on are made, and nobody sees them yet */
} iq_refresh;

static iq_change *iq_refresh_change(const iq_refresh *refresh, size_t i) {
    return (iq_change *)(void *)refresh->changes.bytes + i;
}

static size_t iq_refresh_count(const iq_refresh *refresh) { return refresh->changes.size / sizeof(iq_change); }

/* Forgets all changes, and what was loaded beside. */
static void iq_refresh_forget(iq_refresh *refresh) {
    iq_home *home = refresh->home;
    for (size_t i = iq_refresh_count(refresh); i-- > 0;) {
        const iq_change *change = iq_refresh_change(refresh, i);
        if (change->drops != 0) IQ_ATOMIC_STORE(&change->db->died, IQ_MOMENT_NEVER);
        if (change->row != IQ_ROW_NONE) iq_records_unstage(&change->db->records, change->row);
    }
    iq_blob_free(&refresh->changes);
    iq_blob_free(&refresh->choices);
    while (iq_home_at(home, iq_home_count(home) - 1)->number >= refresh->next_number) iq_home_pop(home);
    home->next_number = refresh->next_number;
    if (refresh->beside != NULL) iq_home_free(refresh->beside);
    refresh->beside = NULL;
}

/* Room for one change more, in memory of the records too. */
static iqdb_result iq_refresh_reserve(iq_refresh *refresh, iqdb *db) {
    const iqdb_result result = iq_blob_reserve(&refresh->changes, sizeof(iq_change));
    const size_t count = db->touched++;
    if (result != IQDB_OK || (count & (count - 1)) != 0) return result;
    return iq_records_reserve(&db->records, 2 * count + 1); /* for as many as there are until the next time */
}

static iqdb_result iq_refresh_add(iq_refresh *refresh, iqdb *db, uint64_t id, uint32_t row, bool drops) {
    const iq_change change = {db, id, row, drops};
    return iq_blob_append(&refresh->changes, &change, sizeof change);
}

/* Dead for us, and for no reader: to make room, a moment may be published before all is applied. */
static iqdb_result iq_refresh_drop(iq_refresh *refresh, iqdb *db) {
    const iqdb_result result = iq_refresh_add(refresh, db, 0, IQ_ROW_NONE, true);
    if (result == IQDB_OK) IQ_ATOMIC_STORE(&db->died, IQ_MOMENT_LAST);
    return result;
}

/* It has no index; but its copies may. */
static iqdb_result iq_refresh_choose(iq_refresh *refresh, iqdb *db, const uint8_t *bytes) {
    iq_chosen chosen;
    chosen.db = db;
    const iqdb_result result = iq_index_choice_decode(refresh->home, bytes, &chosen.choice);
    return result == IQDB_OK ? iq_blob_append(&refresh->choices, &chosen, sizeof chosen) : result;
}

/* ---- What the directory hands out ---- */

/* Everything is to follow, from the beginning. */
static iqdb_result iq_refresh_schema(const iq_manifest *manifest, void *user) {
    iq_refresh *refresh = (iq_refresh *)user;
    const iq_home *home = refresh->home;
    iq_refresh_forget(refresh);
    iq_home *beside = refresh->beside = iq_home_new(&home->allocator, home->root.records.kernel);
    if (beside == NULL) return IQDB_ERR_NOMEM;
    beside->reporter = home->reporter;
    beside->is_beside = true;
    iq_db_set_metric(&beside->root, home->root.metric, home->root.element);
    iq_records_publish(&beside->root.records, 0);
    return iq_db_adopt_schema(&beside->root, &manifest->schema, "META");
}

static iqdb_result iq_refresh_snapshot(iq_snapshot_reader *reader, void *user) {
    iq_home *beside = ((iq_refresh *)user)->beside;
    const iqdb_result result = iq_image_load(reader, beside, beside->checkpoint.count > 0, false);
    beside->checkpoint.count++;
    return result;
}

static iqdb_result iq_refresh_record(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user) {
    iq_refresh *refresh = (iq_refresh *)user;
    iq_logged_record record;
    iqdb *db;
    uint32_t row = IQ_ROW_NONE;
    if (refresh->beside != NULL) return iq_db_replay(bytes, size, commit_lsn, &refresh->beside->root);
    iqdb_result result = iq_record_decode(bytes, size, &record);
    if (result == IQDB_OK) result = iq_home_replay(refresh->home, &record, &db);
    if (result != IQDB_OK || record.type == IQ_RECORD_CREATE) return result;
    if (record.type == IQ_RECORD_DROP) return iq_refresh_drop(refresh, db);
    if (record.type == IQ_RECORD_KEYS) return iq_collection_keep_keys(db, record.payload, record.payload_size);
    if (record.type == IQ_RECORD_CHOOSE) return iq_refresh_choose(refresh, db, record.payload);
    result = iq_refresh_reserve(refresh, db);
    if (result == IQDB_OK && record.type == IQ_RECORD_UPSERT) result = iq_db_stage_logged(db, &record, &row);
    if (result == IQDB_OK && record.type != IQ_RECORD_UPSERT) result = iq_records_claim(&db->records, record.id);
    return result == IQDB_OK ? iq_refresh_add(refresh, db, record.id, row, false) : result;
}

/* ---- The difference ---- */

static bool iq_refresh_is_same(const iqdb_record *a, const iqdb_record *b, size_t vector_size) {
    const bool has_payload = a->payload.bytes != NULL;
    return memcmp(a->raw, b->raw, vector_size) == 0 && has_payload == (b->payload.bytes != NULL) &&
           a->payload.size == b->payload.size &&
           (!has_payload || memcmp(a->payload.bytes, b->payload.bytes, a->payload.size) == 0);
}

/* The changes that make of the records of `mine` those of `theirs`: only deletes, where `deletes`, or all else. */
static iqdb_result iq_refresh_compare(iq_refresh *refresh, iqdb *mine, const iqdb *theirs, bool deletes) {
    const iqdb *walked = deletes ? mine : theirs, *other = deletes ? theirs : mine;
    uint32_t row = 0, index;
    const iq_slab *slab;
    iqdb_result result = IQDB_OK;
    for (; result == IQDB_OK; row++) {
        uint32_t staged = IQ_ROW_NONE;
        slab = iq_records_next(&walked->records, &row, walked->records.rows.count, IQ_MOMENT_LAST, NULL, &index);
        if (slab == NULL && row < walked->records.rows.count) return IQDB_ERR_CORRUPT;
        if (slab == NULL) break;
        const iqdb_record record = iq_db_record_at(walked, slab, index);
        const iq_spot spot = iq_records_find(&other->records, record.id, IQ_MOMENT_LAST, !deletes);
        if (spot.slab == NULL && spot.row == IQ_ROW_LOST) return IQDB_ERR_CORRUPT;
        if (spot.slab != NULL) {
            const iqdb_record there = iq_db_record_at(other, spot.slab, spot.index);
            if (deletes || iq_refresh_is_same(&record, &there, iq_db_vector_bytes(mine, record.dim))) continue;
        }
        result = iq_refresh_reserve(refresh, mine);
        if (result == IQDB_OK && !deletes)
            result = iq_records_stage(&mine->records, record.id, record.raw, record.payload, &staged);
        if (result == IQDB_OK && deletes) result = iq_records_claim(&mine->records, record.id);
        if (result == IQDB_OK) result = iq_refresh_add(refresh, mine, record.id, staged, false);
    }
    return result;
}

static iqdb_result iq_refresh_collection(iq_refresh *refresh, iqdb *mine, const iqdb *theirs) {
    const uint32_t dim = theirs->records.rows.dim;
    if (dim != 0 && mine->records.rows.dim == 0) iq_rows_set_dim(&mine->records.rows, dim);
    if ((dim != 0 && dim != mine->records.rows.dim) || mine->metric != theirs->metric ||
        mine->element != theirs->element || strcmp(mine->name, theirs->name) != 0)
        return iq_report(&refresh->home->reporter, IQDB_ERR_CORRUPT, "META", 0, "a collection is another one now");
    const iq_chosen chosen = {mine, theirs->chosen};
    iqdb_result result = IQDB_OK;
    if (chosen.choice.is_stored) result = iq_blob_append(&refresh->choices, &chosen, sizeof chosen);
    mine->key_set.size = 0;
    if (result == IQDB_OK && theirs->key_set.size > 0)
        result = iq_blob_append(&mine->key_set, theirs->key_set.bytes, theirs->key_set.size);
    if (result == IQDB_OK) result = iq_refresh_compare(refresh, mine, theirs, true);
    return result == IQDB_OK ? iq_refresh_compare(refresh, mine, theirs, false) : result;
}

/* First what is none any more, for its name may be another one's. */
static iqdb_result iq_refresh_beside(iq_refresh *refresh) {
    iq_home *home = refresh->home, *beside = refresh->beside;
    iqdb_result result = IQDB_OK;
    iqdb *db;
    for (uint32_t next = 1; (db = iq_home_seek(home, next, IQ_MOMENT_LAST)) != NULL; next = db->number + 1) {
        if (iq_home_find(beside, db->number) == NULL) result = iq_refresh_drop(refresh, db);
        if (result != IQDB_OK) return result;
    }
    const iqdb *theirs = &beside->root;
    for (; theirs != NULL && result == IQDB_OK; theirs = iq_home_seek(beside, theirs->number + 1, IQ_MOMENT_LAST)) {
        const iq_schema schema = iq_db_schema(theirs);
        db = iq_home_find(home, theirs->number);
        if (db == NULL && theirs->number >= refresh->next_number)
            result = iq_home_add(home, theirs->number, &schema, theirs->name, strlen(theirs->name), &db);
        if (db == NULL) return result != IQDB_OK ? result : IQDB_ERR_CORRUPT;
        if (result == IQDB_OK) result = iq_refresh_collection(refresh, db, theirs);
    }
    if (result == IQDB_OK) home->next_number = beside->next_number;
    return result;
}

/* All is there: nothing else can fail. */
static iqdb_result iq_refresh_apply(void *user) {
    iq_refresh *refresh = (iq_refresh *)user;
    iq_home *home = refresh->home;
    iqdb_stats stats;
    iq_directory_describe(home->directory, &stats);
    iqdb_result result = iq_home_adopt_model(home, stats.model);
    if (result == IQDB_OK && refresh->beside != NULL) result = iq_refresh_beside(refresh);
    if (result != IQDB_OK) return result;
    for (size_t i = 0; i < iq_refresh_count(refresh); i++) {
        const iq_change *change = iq_refresh_change(refresh, i);
        if (change->drops != 0) {
            iq_home_bury(change->db);
        } else if (change->row != IQ_ROW_NONE) {
            iq_records_upsert(&change->db->records, change->row);
        } else {
            (void)iq_records_delete(&change->db->records, change->id);
        }
    }
    for (size_t at = 0; at < refresh->choices.size; at += sizeof(iq_chosen)) {
        const iq_chosen *chosen = (const iq_chosen *)(const void *)(refresh->choices.bytes + at);
        (void)iq_db_index_choose(chosen->db, &chosen->choice);
    }
    refresh->changes.size = refresh->choices.size = 0;
    refresh->next_number = home->next_number;
    iq_records_publish(&home->root.records, stats.last_lsn);
    for (size_t i = 1; i < iq_home_count(home); i++) iq_records_tidy(&iq_home_at(home, i)->records);
    iq_home_sweep(home);
    return IQDB_OK;
}

static iqdb_result iq_refresh_run(iq_home *home) {
    const iq_loader loader = {iq_refresh_schema, iq_refresh_snapshot, iq_refresh_record, NULL, NULL};
    const int64_t charge_max = home->common.charge_max;
    iq_refresh refresh;
    memset(&refresh, 0, sizeof refresh);
    refresh.home = home;
    refresh.next_number = home->next_number;
    refresh.changes.allocator = refresh.choices.allocator = &home->allocator;
    home->common.charge_max = INT64_MAX; /* what has gone is counted until all is applied */
    for (size_t i = 0; i < iq_home_count(home); i++) iq_home_at(home, i)->touched = 0;
    iq_loader own = loader;
    own.user = &refresh;
    const iqdb_result result = iq_directory_refresh(home->directory, &own, iq_refresh_apply);
    iq_refresh_forget(&refresh);
    home->common.charge_max = charge_max;
    for (size_t i = 0; i < iq_home_count(home); i++) {
        iq_records *records = &iq_home_at(home, i)->records;
        if (records->written_dim != records->rows.dim)
            iq_rows_free(&records->rows); /* there was no first record after all */
    }
    return result;
}

IQDB_API iqdb_result iqdb_refresh(iqdb *db) {
    iqdb_result result = iq_db_enter_upkeep(db, NULL);
    if (result != IQDB_OK) return result;
    if (iq_db_directory(db) != NULL && iq_db_is_forked(db)) {
        result = iq_report(&db->home->reporter, IQDB_ERR_LOCKED, "LOCK", 0,
                           "the handle belongs to the parent process; open the directory anew");
    } else if (iq_db_directory(db) != NULL && db->home->config.read_only) {
        result = iq_refresh_run(db->home);
    }
    return iq_db_leave_with(db, result);
}
