/* The index of a collection: when there is one, and who works at it.
 *
 * 1. It is made when it is first worked at and there is a dimension, and stays until the handle goes, or iqdb_reindex wants
 *    another one. It is never needed for an answer: what it has not taken in is scanned.
 * 2. A handle that does not write makes none, and one in a block of the caller's has none: nobody would work at it.
 * 3. One that is replaced is not changed any more, and stays while a pin is left from before, by which somebody may have
 *    found it. Until then there is no other, and no row is marked as indexed: a mark is for whatever index a search has, so
 *    one that means the new one would hide its row from who has the old one.
 * 4. A base stores it, and an open loads it, as it was, before there are other rows. It does not work while it is stored,
 *    and the pin of the image keeps the rows that are stored: so what is written slice by slice is of one moment. */
#include "base/bytes.h"
#include "db/db.h"
#include "persist/sections.h"

#define IQ_INDEX_TUNE_MAX 10000u
#define IQ_INDEX_PACE 32u /* rows that are written between two shares of the work */

static void iq_db_index_remove(void *user, uint32_t row) {
    iq_index *index = ((const iqdb *)user)->index;
    index->ops->remove_fn(index, row);
}

static bool iq_db_index_collect(void *user, uint64_t oldest) {
    iq_index *index = ((const iqdb *)user)->index;
    iq_index_collect(index, oldest);
    return index->garbage.first != NULL;
}

IQ_FN bool iq_index_is_known(uint32_t kind) {
    return kind <= IQDB_INDEX_CUSTOM && (IQ_HAS_GRAPH || kind != IQDB_INDEX_HNSW) &&
           (IQ_HAS_LISTS || kind != IQDB_INDEX_IVF) && (!IQ_SMALL || kind != IQDB_INDEX_CUSTOM);
}

static iq_index_choice iq_index_choice_of(const iqdb_options *options) {
    iq_index_choice choice;
    memset(&choice, 0, sizeof choice);
    choice.kind = (uint32_t)options->index;
    choice.nlist = options->nlist;
    choice.nprobe = options->nprobe;
    choice.m = options->m;
    choice.ef_construction = options->ef_construction;
    choice.ef_search = options->ef_search;
    choice.seed = options->seed;
    return choice;
}

IQ_FN void iq_index_choice_encode(const iq_index_choice *choice, uint8_t *out) {
    iq_put_u32(out, choice->kind);
    iq_put_u32(out + 4, choice->nlist);
    iq_put_u32(out + 8, choice->nprobe);
    iq_put_u32(out + 12, choice->m);
    iq_put_u32(out + 16, choice->ef_construction);
    iq_put_u32(out + 20, choice->ef_search);
    iq_put_u64(out + 24, choice->seed);
}

IQ_FN iqdb_result iq_index_choice_decode(const iq_home *home, const uint8_t *bytes, iq_index_choice *out) {
    if (!iq_index_is_known(iq_get_u32(bytes)))
        return iq_report(&home->reporter, IQDB_ERR_VERSION, NULL, 0,
                         "iqdb_reindex has chosen an index that this build does not have");
    out->is_stored = true;
    out->kind = iq_get_u32(bytes);
    out->nlist = iq_get_u32(bytes + 4);
    out->nprobe = iq_get_u32(bytes + 8);
    out->m = iq_get_u32(bytes + 12);
    out->ef_construction = iq_get_u32(bytes + 16);
    out->ef_search = iq_get_u32(bytes + 20);
    out->seed = iq_get_u64(bytes + 24);
    return IQDB_OK;
}

/* From here on; whether the index that there may be would have been made otherwise. */
static bool iq_db_index_adopt(iqdb *db, const iq_index_choice *choice) {
    const iq_index_knobs before = db->index_knobs;
    iq_index_knobs *knobs = &db->index_knobs;
    const bool is_other_kind = db->index_kind != (iqdb_index)choice->kind;
    db->index_kind = (iqdb_index)choice->kind;
    IQ_ATOMIC_STORE(&db->nprobe, choice->nprobe);
    IQ_ATOMIC_STORE(&db->ef, choice->ef_search);
    knobs->nlist = choice->nlist;
    knobs->m = choice->m;
    knobs->ef_construction = choice->ef_construction;
    knobs->seed = choice->seed;
    knobs->rows_min = (choice->kind == IQDB_INDEX_HNSW ? choice->m : choice->nlist) != 0 ? 1 : IQ_INDEX_ROWS_MIN;
    if (choice->kind == IQDB_INDEX_AUTO) knobs->rows_min = IQ_INDEX_AUTO_ROWS;
    if (choice->kind == IQDB_INDEX_CUSTOM) knobs->rows_min = 1;
    return is_other_kind || knobs->nlist != before.nlist || knobs->m != before.m ||
           knobs->ef_construction != before.ef_construction || knobs->seed != before.seed;
}

IQ_FN bool iq_db_index_choose(iqdb *db, const iq_index_choice *choice) {
    db->chosen = *choice;
    db->chosen.is_stored = db->home->has_choices = true;
    return iq_db_index_adopt(db, choice);
}

IQ_FN iqdb_result iq_db_index_configure(iqdb *db, const iqdb_options *options) {
    const iq_index_choice *chosen = &db->chosen;
    iq_index_choice choice = iq_index_choice_of(options);
    if (IQ_SMALL) return IQDB_OK;
    /* One whose code is lost must not lock its records in. */
    if (chosen->kind != IQDB_INDEX_AUTO && choice.kind != IQDB_INDEX_AUTO && choice.kind != chosen->kind &&
        chosen->kind != IQDB_INDEX_CUSTOM)
        return iq_db_tell(db, IQDB_ERR_INVALID_CONFIG, "options.index is not what iqdb_reindex has chosen");
    if (!iq_index_serves(db->element, options->index))
        return iq_db_tell(db, IQDB_ERR_INVALID_CONFIG, "options.index is for other elements");
    if (choice.kind == IQDB_INDEX_AUTO) choice.kind = chosen->kind;
    if (choice.kind == IQDB_INDEX_CUSTOM && db->home->index_ops.open_fn == NULL)
        return iq_db_tell(db, IQDB_ERR_INVALID_CONFIG,
                          "the index that was chosen is that of options.index_ops, which is NULL");
    if (choice.nlist == 0) choice.nlist = chosen->nlist;
    if (choice.nprobe == 0) choice.nprobe = chosen->nprobe;
    if (choice.m == 0) choice.m = chosen->m;
    if (choice.ef_construction == 0) choice.ef_construction = chosen->ef_construction;
    if (choice.ef_search == 0) choice.ef_search = chosen->ef_search;
    if (choice.seed == 0) choice.seed = chosen->seed;
    (void)iq_db_index_adopt(db, &choice);
    iq_db_index_refit(db);
    return IQDB_OK;
}

IQ_FN void iq_db_clear_records(iqdb *db) {
    const iq_watch nobody = {NULL, NULL, NULL, false};
    if (!IQ_SMALL && db->index != NULL) db->index->ops->free_fn(db->index);
    if (!IQ_SMALL && db->replaced != NULL) db->replaced->ops->free_fn(db->replaced);
    db->index = db->replaced = NULL;
    db->index_waits = false;
    db->records.watch = nobody;
    memset(&db->chosen, 0, sizeof db->chosen);
    if (!IQ_SMALL) iq_blob_free(&db->key_set);
    db->lacks_index = false;
    iq_records_free(&db->records);
}

/* Whether nobody can be in an index that was replaced, which is freed then. */
static bool iq_db_index_let_go(iqdb *db) {
    if (IQ_SMALL || db->replaced == NULL) return true;
    if (iq_epoch_oldest(&db->home->common.epoch) <= db->replaced_after) return false;
    db->replaced->ops->free_fn(db->replaced);
    db->replaced = NULL;
    return true;
}

/* Takes the index away, for searches that come from the next moment on. */
static void iq_db_index_replace(iqdb *db) {
    const iq_watch nobody = {NULL, NULL, NULL, false};
    db->index_waits = false;
    if (db->index == NULL) return;
    db->replaced = db->index;
    db->replaced_after = db->home->common.epoch.moment;
    IQ_ATOMIC_STORE(&db->index, (iq_index *)NULL);
    db->records.watch = nobody;
    iq_rows_forget_indexed(&db->records.rows);
}

static bool iq_knob_fits(uint32_t wanted, uint32_t found) { return wanted == 0 || wanted == found; }

IQ_FN void iq_db_index_refit(iqdb *db) {
    const iq_index_knobs *wanted = &db->index_knobs;
    if (IQ_SMALL || db->index == NULL) return;
    iq_index_knobs *found = &db->index->knobs;
    const bool is_graph = db->index->ops->kind == IQDB_INDEX_HNSW;
    if ((db->index_kind == IQDB_INDEX_AUTO || db->index_kind == db->index->ops->kind) &&
        (is_graph ? iq_knob_fits(wanted->m, found->m) && iq_knob_fits(wanted->ef_construction, found->ef_construction)
                  : iq_knob_fits(wanted->nlist, found->nlist) || db->index->ops->kind == IQDB_INDEX_CUSTOM)) {
        const iq_index_knobs stored = *found;
        *found = *wanted;
        if (is_graph) found->m = stored.m;
        if (is_graph) found->ef_construction = stored.ef_construction;
        return;
    }
    iq_db_index_replace(db);
    (void)iq_db_index_let_go(db);
}

/* Whether records lie where an index may be over them. */
static bool iq_db_index_may_be(const iqdb *db) {
    return !IQ_SMALL && !db->home->is_beside && db->records.rows.dim != 0 && db->records.heap.arena == NULL;
}

/* NULL where there is none to be, or no memory. */
static iq_index *iq_db_index_make(iqdb *db, iqdb_index kind) {
    iq_index base;
    if (kind == IQDB_INDEX_AUTO) kind = db->element == IQDB_ELEMENT_BIT ? IQDB_INDEX_FLAT : IQDB_INDEX_IVF;
    if (kind == IQDB_INDEX_FLAT || !iq_index_serves(db->element, kind) || !iq_db_index_may_be(db)) return NULL;
    memset(&base, 0, sizeof base);
    base.allocator = &db->home->allocator;
    base.epoch = &db->home->common.epoch;
    base.rows = &db->records.rows;
    base.kernel = db->records.kernel;
    base.codes = db->home->codes;
    base.metric = (iqdb_metric)iq_db_schema(db).metric;
    base.knobs = db->index_knobs;
    base.garbage_max = db->home->common.retired_max;
    if (!IQ_SMALL && kind == IQDB_INDEX_CUSTOM) return iq_custom_make(&base, &db->home->index_ops);
    if (IQ_HAS_GRAPH && kind == IQDB_INDEX_HNSW) return iq_graph_make(&base, db->home->links);
    return IQ_HAS_LISTS && kind == IQDB_INDEX_IVF ? iq_lists_make(&base) : NULL;
}

static void iq_db_index_install(iqdb *db, iq_index *index) {
    IQ_ATOMIC_STORE(&db->index, index);
    db->records.watch.remove_fn = iq_db_index_remove;
    db->records.watch.collect_fn = iq_db_index_collect;
    db->records.watch.user = db;
}

/* Whether there is none, but one to be made. */
static bool iq_db_index_is_due(const iqdb *db) {
    return IQ_HAS_WRITES && !db->home->read_only && !db->home->config.read_only && db->index_kind != IQDB_INDEX_FLAT &&
           db->records.rows.count >= db->index_knobs.rows_min && (db->number == 0 || db->is_known);
}

static iq_index *iq_db_index_get(iqdb *db) {
    if (db->index != NULL) return db->index;
    if (!iq_db_index_let_go(db) || !iq_db_index_is_due(db)) return NULL;
    iq_index *index = iq_db_index_make(db, db->index_kind);
    if (index != NULL) iq_db_index_install(db, index);
    return index;
}

/* Rows that nobody sees any more were in the base, and so they are in its index. */
static iqdb_result iq_db_index_load_late(iqdb *db) {
    iq_rows *rows = &db->records.rows;
    iq_blob gone = {&db->home->allocator, NULL, 0, 0};
    const size_t size = rows->lent.gone == 0 ? 0 : rows->lent.count / 8 + 1;
    iqdb_result result = iq_blob_reserve(&gone, size);
    if (result != IQDB_OK) return result;
    if (size > 0) memset(gone.bytes, 0, size);
    for (uint32_t row = 0; size > 0 && row < rows->lent.count; row++) {
        const iq_spot spot = iq_rows_spot(rows, row);
        if (iq_row_is_filled(spot)) continue;
        gone.bytes[row / 8] = (uint8_t)(gone.bytes[row / 8] | 1u << row % 8);
        iq_rows_fill(rows, spot.slab, spot.index);
    }
    result = iq_db_index_load(db, db->home->lender);
    for (uint32_t row = 0; size > 0 && row < rows->lent.count; row++) {
        const iq_spot spot = iq_rows_spot(rows, row);
        if ((gone.bytes[row / 8] >> row % 8 & 1) == 0) continue;
        if (db->index != NULL) db->index->ops->remove_fn(db->index, row);
        iq_rows_clear(rows, spot.slab, spot.index, db->home->common.epoch.moment);
        rows->lent.gone--;
    }
    iq_blob_free(&gone);
    return result;
}

IQ_FN iqdb_result iq_db_index_fetch(iqdb *db, iq_limit *limit) {
    if (IQ_SMALL || db->records.rows.lent.count == 0 || (db->number != 0 && !db->is_known) ||
        (db->index == NULL && !db->index_waits && !iq_db_index_is_due(db)))
        return IQDB_OK;
    iqdb_result result = iq_lend_check(db, limit);
    if (result == IQDB_OK && db->index_waits) {
        result = iq_db_index_load_late(db);
        if (result != IQDB_ERR_CORRUPT) db->index_waits = false;
        if (result == IQDB_OK) iq_db_index_refit(db);
    }
    return result;
}

IQ_FN bool iq_db_index_work(iqdb *db, iq_limit *limit) {
    const iqdb_result fetched = IQ_SMALL || db->saves > 0 ? IQDB_OK : iq_db_index_fetch(db, limit);
    if (fetched != IQDB_OK) return fetched != IQDB_ERR_BUSY;
    iq_index *index = IQ_SMALL ? NULL : iq_db_index_get(db);
    if (index == NULL || db->saves > 0 || iq_db_is_forked(db)) return true;
    iq_common *common = &db->home->common;
    bool done;
    uint32_t fresh;
    do {
        /* What work has replaced itself goes with a new moment; what readers keep does not, and then nothing is taken in. */
        const bool is_held = iq_index_is_held(index);
        if (is_held && common->changed <= common->epoch.moment && !common->sealed) iq_common_publish(common, common->lsn);
        if (is_held) iq_index_collect(index, iq_epoch_oldest(index->epoch));
        fresh = IQ_ATOMIC_LOAD(&index->rows->fresh);
        done = index->ops->work_fn(index, limit);
    } while (iq_index_is_held(index) && IQ_ATOMIC_LOAD(&index->rows->fresh) < fresh && !iq_limit_reached(limit));
    if (!iq_index_is_held(index)) db->untaken = 0;
    db->records.watch.waits = index->garbage.first != NULL;
    return done;
}

IQ_FN bool iq_db_basis_work(iqdb *db, iq_limit *limit) {
    const bool is_flat = db->index_kind == IQDB_INDEX_FLAT || db->index_kind == IQDB_INDEX_AUTO;
    if (IQ_SMALL || !is_flat || db->index != NULL || db->index_waits || iq_db_is_forked(db)) return true;
    return iq_rows_work_at_basis(&db->records.rows, limit);
}

IQ_FN void iq_db_index_keep_pace(iqdb *db, size_t row_count) {
    const iqdb_clock units = {NULL, NULL};
    db->untaken += row_count;
    if (IQ_SMALL || db->untaken < IQ_INDEX_PACE || db->saves > 0 ||
        (db->index_kind == IQDB_INDEX_FLAT && db->replaced == NULL))
        return;
    iq_limit limit = iq_limit_make(units, NULL);
    /* What could not be done while it was stored, or held, is made up for little by little. */
    size_t owed = row_count < UINT32_MAX / 8 ? 4 * row_count + IQ_INDEX_PACE : UINT32_MAX;
    if (owed > db->untaken) owed = db->untaken;
    iq_limit_end_in(&limit, (uint32_t)owed);
    const size_t all = db->untaken;
    (void)iq_db_index_work(db, &limit);
    db->untaken = db->index != NULL && iq_index_is_held(db->index) ? all : all - owed;
}

/* ---- storing ---- */

IQ_FN bool iq_home_wants_store(iq_home *home, bool wants) {
    for (size_t i = 0; !IQ_SMALL && i < iq_home_count(home); i++) {
        const iqdb *db = iq_home_at(home, i);
        iq_index *index = db->index;
        iq_index_facts facts;
        if (index == NULL || index->ops->save_fn == NULL) continue;
        if (db->died != IQ_MOMENT_NEVER) continue; /* readers have it still, but no snapshot has it any more */
        if (!wants) index->unstored = 0;           /* until it has grown again */
        if (index->unstored == 0) continue;
        index->ops->describe_fn(index, &facts);
        if (index->unstored > facts.rows / 3) return true;
    }
    return false;
}

IQ_FN iqdb_result iq_db_index_save(iq_image *image, iq_snapshot_writer *writer, bool *out_done) {
    iq_index *index = image->indexed != NULL ? image->index : image->db->index;
    iqdb *db = image->indexed;
    iqdb_result result = IQDB_OK;
    *out_done = IQ_SMALL;
    if (IQ_SMALL) return result;
    if (db == NULL) {
        if (index != NULL && image->since == 0 && image == &image->home->checkpoint.image)
            index->storing = index->unstored;
        *out_done = image->count == 0 || index == NULL || index->ops->save_fn == NULL || image->places.words == NULL;
        if (*out_done) return result;
        memset(&image->save, 0, sizeof image->save);
        image->save.writer = writer;
        image->index = index; /* which may be replaced meanwhile */
        db = image->indexed = iq_db_of(image->db);
        db->saves++;
    }
    image->save.places = &image->places; /* an image may be copied */
    if (image->row == 0) {
        if (!index->ops->measure_fn(index, &image->save)) return result;
        image->row = 1;
        image->save.phase = image->save.at = 0;
        *out_done = image->save.size == 0;
        if (!*out_done) result = iq_snapshot_derive(writer, image->db->number, IQ_SECTION_INDEX, image->save.size);
    } else {
        result = index->ops->save_fn(index, &image->save, out_done);
    }
    if (!*out_done) return result;
    db->saves--;
    image->indexed = NULL;
    return result;
}

IQ_FN bool iq_db_rebuilds(iqdb *db, iq_snapshot_reader *reader, uint32_t kind, iqdb_result result) {
    const iq_reporter *reporter = &db->home->reporter;
    if (result != IQDB_ERR_CORRUPT || !db->home->rebuilds) return false;
    iq_snapshot_forgive(reader, db->number, kind);
    if (reporter->error != NULL) *reporter->error = iq_error_make(IQDB_OK, NULL, 0, NULL);
    if (reporter->told != NULL) *reporter->told = false;
    iq_log(reporter, IQDB_LEVEL_WARNING, NULL, 0, "a damaged section is made again from the records");
    db->home->checkpoint.store = true;
    return true;
}

/* CUSTOM where options.index_ops has the name that the section says; else AUTO, and iq_home_needs_indexes knows of it. */
static iqdb_result iq_db_index_custom(iqdb *db, const iq_index_load *load, iqdb_index *out_kind) {
    iq_home *home = db->home;
    char name[IQDB_CODEC_NAME_SIZE_MAX + 1];
    const iqdb_result result = iq_custom_name(load, name);
    if (result != IQDB_OK) return result;
    db->lacks_index = home->index_ops.open_fn == NULL || strcmp(name, home->index_ops.name) != 0;
    if (db->lacks_index) memcpy(home->lacking, name, sizeof name);
    *out_kind = db->lacks_index ? IQDB_INDEX_AUTO : IQDB_INDEX_CUSTOM;
    return IQDB_OK;
}

IQ_FN iqdb_result iq_home_needs_indexes(iq_home *home) {
    static const char before[] = "the index is by options.index_ops of the name '", behind[] = "', which are not there";
    char text[sizeof before + sizeof behind + IQDB_CODEC_NAME_SIZE_MAX];
    bool needs = false;
    for (size_t i = 0; !IQ_SMALL && i < iq_home_count(home); i++) {
        const iqdb *db = iq_home_at(home, i);
        const bool is_given_up = db->chosen.is_stored && db->chosen.kind != IQDB_INDEX_CUSTOM;
        needs = needs || (db->lacks_index && home->wants_stored && !is_given_up);
    }
    if (!needs) return IQDB_OK;
    const size_t size = strlen(home->lacking);
    memcpy(text, before, sizeof before);
    memcpy(text + sizeof before - 1, home->lacking, size);
    memcpy(text + sizeof before - 1 + size, behind, sizeof behind);
    return iq_report(&home->reporter, IQDB_ERR_INVALID_CONFIG, NULL, 0, text);
}

/* What the section says that it is: AUTO where that is unknown, and it is left aside. */
static iqdb_result iq_db_index_kind(iqdb *db, const iq_index_load *load, iqdb_index *out_kind) {
    uint8_t bytes[4];
    *out_kind = IQDB_INDEX_AUTO;
    const iqdb_result result = iq_index_read(load, 0, bytes, sizeof bytes);
    if (result != IQDB_OK) return result;
    const uint32_t tag = iq_get_u32(bytes);
    if (tag == IQ_INDEX_TAG_LISTS) *out_kind = IQDB_INDEX_IVF;
    if (tag == IQ_INDEX_TAG_GRAPH) *out_kind = IQDB_INDEX_HNSW;
    if (tag == IQ_INDEX_TAG_CUSTOM) return iq_db_index_custom(db, load, out_kind);
    if (*out_kind != IQDB_INDEX_AUTO) return result;
    return iq_snapshot_pass_over(load->reader, load->collection, IQ_SECTION_INDEX);
}

IQ_FN iqdb_result iq_db_index_load(iqdb *db, iq_snapshot_reader *reader) {
    const iq_rows *rows = &db->records.rows;
    iq_index_load load = {reader, db->number, rows->lent.count > 0 ? rows->lent.count : rows->count, 0};
    iq_index *index = NULL;
    iqdb_index kind;
    if (!iq_db_index_may_be(db) || db->index_kind == IQDB_INDEX_FLAT ||
        !iq_snapshot_find(reader, db->number, IQ_SECTION_INDEX, &load.size))
        return IQDB_OK;
    iqdb_result result = iq_db_index_kind(db, &load, &kind);
    if (result == IQDB_OK && kind != IQDB_INDEX_AUTO) index = iq_db_index_make(db, kind);
    if (result == IQDB_OK && index == NULL) return result;
    if (result == IQDB_OK) result = index->ops->load_fn(index, &load);
    if (result == IQDB_OK) {
        iq_db_index_install(db, index);
        return result;
    }
    if (index != NULL) index->ops->free_fn(index);
    if (result == IQDB_ERR_NOT_FOUND || iq_db_rebuilds(db, reader, IQ_SECTION_INDEX, result)) return IQDB_OK;
    return result;
}

#if IQ_HAS_WRITES && !IQ_SMALL

IQDB_API iqdb_result iqdb_reindex(iqdb *db, const iqdb_options *options) {
    const iqdb_options defaults = iqdb_options_default();
    uint8_t bytes[IQ_CHOICE_SIZE];
    const iq_slice body = {bytes, sizeof bytes};
    uint64_t lsn;
    iqdb_result result = iq_db_enter_write(db, NULL);
    if (result != IQDB_OK) return result;
    const iq_index_choice choice = iq_index_choice_of(options != NULL ? options : &defaults);
    if (!iq_index_is_known(choice.kind))
        return iq_db_leave_with(
            db, iq_db_tell(db, IQDB_ERR_INVALID_CONFIG, "options.index is unknown, or left out of this build"));
    if (choice.kind == IQDB_INDEX_CUSTOM && db->home->index_ops.open_fn == NULL)
        return iq_db_leave_with(db, iq_db_tell(db, IQDB_ERR_INVALID_CONFIG, "the handle has no options.index_ops"));
    if (!iq_index_serves(db->element, (iqdb_index)choice.kind))
        return iq_db_leave_with(db, iq_db_tell(db, IQDB_ERR_INVALID_CONFIG, "options.index is for other elements"));
    (void)iq_db_quiesce(db);
    if (!iq_db_index_let_go(db))
        return iq_db_leave_with(db, iq_db_tell(db, IQDB_ERR_BUSY, "a snapshot keeps the index of before the last one"));
    iq_index_choice_encode(&choice, bytes);
    result = iq_write_collection(db, IQ_RECORD_CHOOSE, body, &lsn);
    if (result != IQDB_OK) return iq_db_leave_with(db, result);
    if (iq_db_index_choose(db, &choice)) iq_db_index_replace(db);
    (void)iq_records_change(&db->records);
    result = iq_write_settle(db, lsn);
    (void)iq_db_index_let_go(db);
    return iq_db_leave_with(db, result);
}

#endif

#if !IQ_SMALL

IQDB_API iqdb_result iqdb_tune(iqdb *db, float recall, const float *queries, size_t query_count) {
    const bool good =
        recall > 0.0f && recall < 1.0f &&
        (queries == NULL || (query_count <= IQ_INDEX_TUNE_MAX && db != NULL && db->element == IQDB_ELEMENT_F32));
    iqdb_result result = iq_db_enter_upkeep(
        db, good ? NULL : "the recall is not between 0 and 1, or there are too many queries, or of another element");
    if (result != IQDB_OK) return result;
    if (iq_db_index_fetch(db, NULL) == IQDB_ERR_CORRUPT) return iq_db_leave_with(db, IQDB_ERR_CORRUPT);
    iq_index *index = iq_db_index_get(db);
    const size_t dim = db->records.rows.dim, stride = db->records.rows.stride;
    float *padded = NULL;
    if (query_count == 0) queries = NULL;
    for (size_t i = 0; queries != NULL && index != NULL && i < query_count && result == IQDB_OK; i++)
        if (!iq_vector_is_finite(db->records.kernel, queries + i * dim, dim)) result = IQDB_ERR_INVALID_VECTOR;
    if (queries != NULL && index != NULL && result == IQDB_OK) {
        padded = (float *)iq_block_make(index, query_count * stride * sizeof(float));
        if (padded == NULL) result = IQDB_ERR_NOMEM;
        for (size_t i = 0; padded != NULL && i < query_count; i++)
            memcpy(padded + i * stride, queries + i * dim, dim * sizeof(float));
    }
    if (index != NULL && result == IQDB_OK && !iq_index_tune(index, recall, padded, (uint32_t)query_count))
        result = IQDB_ERR_NOMEM;
    if (padded != NULL) iq_block_free(index, padded);
    return iq_db_leave_with(db, result);
}

#endif
