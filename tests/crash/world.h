/* A small database with a model of what it must hold, driven by a script of one letter for each step. The tests of
 * crashes, faults and mutants share it; all goes through the public face and a faulty disk.
 *
 *   world w;
 *   world_make(&w, WORLD_EACH, 4096, seed);
 *   world_play(&w, "o ub k x");              false: something did not hold, and was printed
 *   world_free(&w);
 *
 * Writes:  u upsert of a new id     r replace       t replace, payload of 300 bytes   d delete      n delete of nobody
 *          b batch of 4             B batch of 20   a apply: replace, delete, 2 new   D delete 3    w all of them again
 *          l payload of 7,150       L of 20,000     g of 70,000 bytes                 e upsert without a payload
 *          H batch of 4 of 70,000   y an upsert, and within its sync three writes of other threads, which form a group
 *          X drop the collection of WORLD_SIDE      i iqdb_reindex of the default collection: another kind each time
 * Upkeep:  f flush   m maintain, as little as can be   M until there is nothing left
 *          T the interval of WORLD_PERIODIC passes   k checkpoint
 *          K a checkpoint that finds no space for its snapshot   v verify
 *          c close and open   R close, open for reading only, and open again
 *          o open (the first one)   z close
 * Trouble: x the process dies, and opens again   p power cut: anything may be lost   q power cut: all is lost
 *          F the disk is full from here on       E it is not any more               G room for one frame or so
 *          I the next sync fails and its pages are dropped    W the next write to a log fails half-way
 *          1 .. 9: the step that follows, or steps in {}, so many times
 *
 * What it must hold. `history` has the records after each batch issued; after a crash they are those of one entry from
 * `durable` on: all that was acknowledged, whole batches, in order. */
#ifndef WORLD_H
#define WORLD_H

#include "api.h"
#include "db/db.h"
#include "fault.h"
#include "support.h"
#include "test.h"

#include <pthread.h>

#define WORLD_EACH 1u     /* IQDB_SYNC_EACH */
#define WORLD_COMPACT 2u  /* compact_on_close */
#define WORLD_PERIODIC 4u /* IQDB_SYNC_PERIODIC; each step takes a third of the interval */
#define WORLD_SIDE 16u    /* odd ids are in a collection of their own, which is made when it is needed */
#define WORLD_LISTS 32u   /* there are lists, and they and codes are stored */
#define WORLD_CUSTOM 64u  /* there is an index of the caller's, which is stored */
#define WORLD_INTERVAL 1000u
#define WORLD_PACED 8u    /* checkpoint_bytes of three sectors: checkpoints come by themselves */
#define WORLD_BALLAST 16u /* there is room for one: then deletes and recovery find space on a full disk */
#define WORLD_IDS 64
#define WORLD_DIM 4u
#define WORLD_HISTORY 600
#define WORLD_GROUP 3

/* Version of each id, 0 for none. The lowest 3 bits say how large the payload is. */
typedef struct world_model {
    uint32_t versions[WORLD_IDS];
    uint32_t index; /* the iqdb_index that was chosen */
} world_model;

typedef struct world {
    fault_files *disk;
    iqdb *db;
    iqdb_allocator allocator;
    support_heap *heap; /* of the allocator, or NULL: looking is not what is to fail */
    unsigned flags;
    uint64_t seed, entropy;
    world_model model;
    world_model history[WORLD_HISTORY];
    uint64_t prints[WORLD_HISTORY];
    uint64_t times[WORLD_HISTORY], now; /* when each was issued */
    size_t history_count;
    size_t durable;  /* index in history */
    uint32_t serial; /* of versions */
    bool unborn;     /* no open has returned yet */
    bool full;       /* NOSPACE may come */
    bool armed;      /* a call is to fail: IO may come, or NOSPACE, or a mere warning */
    bool lax;        /* any documented failure may come */
    bool stuck;      /* poisoned, or read-only for want of space: writes are refused */
    size_t step, failed;
    char letter; /* of the step */
    const char *script;
    iqdb_error error;
    bool (*watch_fn)(struct world *w, char letter, bool after); /* NULL, or called before and after each step */
} world;

static inline uint64_t world_mix(uint64_t id, uint64_t version) {
    return version == 0 ? 0 : iq_hash_u64(iq_hash_u64(id + 1) + version);
}

static inline uint64_t world_print_of(const world_model *model) {
    uint64_t print = world_mix(WORLD_IDS, model->index);
    for (uint64_t id = 0; id < WORLD_IDS; id++) print += world_mix(id, model->versions[id]);
    return print;
}

static inline bool world_complain(const world *w, const char *why) {
    char script[100] = "";
    if (w->script != NULL) snprintf(script, sizeof script, "%s", w->script);
    printf("\n    step %zu of \"%s\": %s; last error %d, %s at %llu: %s", w->step, script, why, (int)w->error.code,
           w->error.file, (unsigned long long)w->error.offset, w->error.text);
    return false;
}

/* ---- Records that follow from id and version ---- */

static const size_t world_sizes[8] = {0, 40, 300, 7150, 20000, 70000, 0, 0};
#define WORLD_BARE 6u /* no payload at all */

/* Letter i of a text; from one to the next `*at`, which begins as world_first, goes on by 5, and by 1 more every 256. */
static inline unsigned world_first(uint64_t id, uint32_t version) { return (unsigned)((id * 7 + version) % 26); }
static inline char world_letter(unsigned *at, size_t i) {
    const char letter = (char)('a' + *at);
    *at += 5 + ((i & 255) == 255);
    if (*at >= 26) *at -= 26;
    return letter;
}

/* Fills `text`, 70,000 bytes, of which world_sizes[version & 7] count. */
static inline void world_record(uint64_t id, uint32_t version, float vector[WORLD_DIM], char *text,
                                iqdb_field fields[2], iqdb_record *out) {
    const size_t size = world_sizes[version & 7];
    *out = iqdb_record_default();
    vector[0] = (float)id;
    vector[1] = (float)version;
    vector[2] = (float)(version * 31 % 1009) / 8;
    vector[3] = -1.5f;
    unsigned at = world_first(id, version);
    for (size_t i = 0; i < size; i++) text[i] = world_letter(&at, i);
    fields[0].key = "version";
    fields[0].value = iqdb_int((int64_t)version);
    fields[1].key = "text";
    fields[1].value = iqdb_text_n(text, size);
    out->id = id;
    out->vector = vector;
    out->dim = WORLD_DIM;
    out->fields = (version & 7) == WORLD_BARE ? NULL : fields;
    out->field_count = (version & 7) == WORLD_BARE ? 0 : 2;
}

static inline bool world_is_intact(const iqdb_record *record, uint32_t *out_version) {
    size_t size = 0;
    if (record->dim != WORLD_DIM || record->id >= WORLD_IDS || record->vector[0] != (float)record->id) return false;
    if (record->vector[1] < 1 || record->vector[1] > 16777215.0f || record->vector[3] != -1.5f) return false;
    const uint32_t version = (uint32_t)record->vector[1];
    *out_version = version;
    if (record->vector[2] != (float)(version * 31 % 1009) / 8) return false;
    if ((version & 7) == WORLD_BARE) return record->payload.bytes == NULL;
    const char *text = iqdb_payload_text(record->payload, "text", &size);
    if (iqdb_payload_int(record->payload, "version", -1) != (int64_t)version ||
        iqdb_payload_count(record->payload) != 2)
        return false;
    if (text == NULL || size != world_sizes[version & 7]) return false;
    unsigned at = world_first(record->id, version);
    for (size_t i = 0; i < size; i++)
        if (text[i] != world_letter(&at, i)) return false;
    return true;
}

static inline bool world_is_side(const char *name, void *user) {
    if (strcmp(name, "side") == 0) *(bool *)user = true;
    return true;
}

/* Whether the record is found by its vector, through all lists. */
static inline bool world_finds(const iqdb *db, const iqdb_record *record) {
    iqdb_hit hit;
    size_t count = 0;
    iqdb_query query = iqdb_query_default();
    query.vector = record->vector;
    query.k = 1;
    query.nprobe = 1000;
    return iqdb_search(db, &query, &hit, &count) == IQDB_OK && count == 1 && hit.id == record->id;
}

/* Adds what a collection holds; false where a record is not what was written. */
static inline bool world_look_at(iqdb *db, uint64_t *out_print, world_model *out_model) {
    size_t count = 0;
    bool ok = true;
    const bool has_index = db->index != NULL;
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    while (iqdb_iter_next(&iter)) {
        uint32_t version;
        ok = ok && world_is_intact(&iter.record, &version) && (!has_index || world_finds(db, &iter.record));
        if (!ok) break;
        *out_print += world_mix(iter.record.id, version);
        if (out_model != NULL) out_model->versions[iter.record.id] = version;
        count++;
    }
    ok = ok && iter.result == IQDB_OK && count == iqdb_len(db);
    iqdb_iter_end(&iter);
    return ok;
}

/* What a database holds, as one number and, where wanted, as a model; false where a record is not what was written. */
static inline bool world_look(iqdb *db, uint64_t *out_print, world_model *out_model) {
    bool has_side = false;
    iqdb *side = NULL;
    *out_print = world_mix(WORLD_IDS, db->chosen.kind);
    if (out_model != NULL) memset(out_model, 0, sizeof *out_model);
    if (out_model != NULL) out_model->index = db->chosen.kind;
    if (!world_look_at(db, out_print, out_model)) return false;
    (void)iqdb_collection_names(db, world_is_side, &has_side); /* BUSY within a sync, where there is none */
    if (!has_side) return true;
    const bool ok = iqdb_collection(db, "side", NULL, &side) == IQDB_OK && world_look_at(side, out_print, out_model);
    return iqdb_close(side) == IQDB_OK && ok;
}

static inline bool world_look_aside(world *w, uint64_t *out_print, world_model *out_model) {
    const size_t fail_at = w->heap != NULL ? w->heap->fail_at : 0;
    if (w->heap != NULL) w->heap->fail_at = 0;
    const bool ok = world_look(w->db, out_print, out_model);
    if (w->heap != NULL) w->heap->fail_at = fail_at;
    return ok;
}

/* ---- Opening ---- */

static inline bool world_entropy(void *bytes, size_t size, void *user) {
    uint64_t *state = (uint64_t *)user;
    for (size_t i = 0; i < size; i++) ((uint8_t *)bytes)[i] = (uint8_t)support_random(state);
    return true;
}

static inline uint64_t world_clock(void *user) { return *(const uint64_t *)user; }

/* An index of the caller's that offers what it has: one that has lost a row does not find it. */
typedef struct world_rows {
    iqdb_index_host *host;
    uint32_t *rows;
    uint32_t count, room;
} world_rows;

static inline iqdb_result world_rows_open(iqdb_index_host *host, void **out_index, void *user) {
    world_rows *index = (world_rows *)iqdb_index_alloc(host, sizeof *index);
    (void)user;
    if (index == NULL) return IQDB_ERR_NOMEM;
    index->host = host;
    *out_index = index;
    return IQDB_OK;
}

static inline void world_rows_close(void *user_index, void *user) {
    world_rows *index = (world_rows *)user_index;
    (void)user;
    iqdb_index_free(index->host, index->rows);
    iqdb_index_free(index->host, index);
}

static inline iqdb_result world_rows_insert(void *user_index, uint32_t row, const void *vector, void *user) {
    world_rows *index = (world_rows *)user_index;
    (void)vector;
    (void)user;
    if (index->count == index->room) {
        uint32_t *rows = (uint32_t *)iqdb_index_alloc(index->host, (2 * index->room + 8) * sizeof *rows);
        if (rows == NULL) return IQDB_ERR_NOMEM;
        if (index->count > 0) memcpy(rows, index->rows, index->count * sizeof *rows);
        iqdb_index_retire(index->host, index->rows);
        index->rows = rows;
        index->room = 2 * index->room + 8;
    }
    index->rows[index->count++] = row;
    return IQDB_OK;
}

static inline void world_rows_remove(void *user_index, uint32_t row, void *user) {
    world_rows *index = (world_rows *)user_index;
    (void)user;
    for (uint32_t i = 0; i < index->count; i++)
        if (index->rows[i] == row) index->rows[i--] = index->rows[--index->count];
}

static inline iqdb_result world_rows_search(const void *user_index, iqdb_index_query *query, void *user) {
    const world_rows *index = (const world_rows *)user_index;
    (void)user;
    (void)iqdb_index_offer(query, index->rows, index->count);
    return IQDB_OK;
}

static inline iqdb_result world_rows_save(const void *user_index, iqdb_index_io *io, bool *out_done, void *user) {
    const world_rows *index = (const world_rows *)user_index;
    (void)user;
    for (const uint64_t end = io->at + 10; io->at < end && io->at < index->count; io->at++) {
        const uint32_t place = iqdb_index_place(io, index->rows[io->at]);
        if (place != UINT32_MAX) (void)iqdb_index_write(io, &place, sizeof place);
    }
    *out_done = io->at >= index->count;
    return IQDB_OK;
}

static inline iqdb_result world_rows_load(void *user_index, iqdb_index_io *io, void *user) {
    iqdb_result result = IQDB_OK;
    uint32_t row;
    for (uint64_t at = 0; at < io->size && result == IQDB_OK; at += sizeof row) {
        result = iqdb_index_read(io, &row, sizeof row);
        if (result == IQDB_OK && !iqdb_index_restore(io, row)) result = IQDB_ERR_CORRUPT;
        if (result == IQDB_OK) result = world_rows_insert(user_index, row, NULL, user);
    }
    return result;
}

static const iqdb_index_ops world_index_ops = {
    "rows", world_rows_open,   world_rows_close, world_rows_insert, world_rows_remove,
    NULL,   world_rows_search, world_rows_save,  world_rows_load,   NULL};

static inline iqdb_options world_options(world *w) {
    iqdb_options options = iqdb_options_default();
    options.sync = (w->flags & WORLD_EACH) != 0 ? IQDB_SYNC_EACH : IQDB_SYNC_FLUSH;
    if ((w->flags & WORLD_PERIODIC) != 0) options.sync = IQDB_SYNC_PERIODIC;
    options.sync_interval_ms = WORLD_INTERVAL / 1000;
    options.clock_us.now_fn = world_clock;
    options.clock_us.user = &w->now;
    options.compact_on_close = (w->flags & WORLD_COMPACT) != 0;
    options.checkpoint_bytes = (w->flags & WORLD_PACED) != 0 ? 3 * 4096 : 0;
    options.metric = IQDB_L2;
    options.index = (w->flags & WORLD_LISTS) != 0 ? IQDB_INDEX_IVF : IQDB_INDEX_AUTO;
    options.nlist = (w->flags & WORLD_LISTS) != 0 ? 3 : 0;
    if ((w->flags & WORLD_CUSTOM) != 0) options.index = IQDB_INDEX_CUSTOM;
    if ((w->flags & WORLD_CUSTOM) != 0) options.index_ops = &world_index_ops;
    options.files = fault_table(w->disk);
    options.open_mode =
        w->seed % 2 == 1 ? IQDB_OPEN_MMAP : IQDB_OPEN_HEAP; /* every other life uses the base where it lies */
    options.entropy.fill_fn = world_entropy;
    options.entropy.user = &w->entropy;
    options.allocator = w->allocator;
    options.error = &w->error;
    return options;
}

static inline void world_make(world *w, unsigned flags, size_t sector_size, uint64_t seed) {
    memset(w, 0, sizeof *w);
    w->disk = fault_new(NULL);
    w->disk->sector_size = sector_size;
    w->disk->ballast = (flags & WORLD_BALLAST) != 0;
    w->flags = flags;
    w->seed = w->entropy = seed;
    w->history_count = 1;
    w->unborn = true;
}

/* As when a process dies: the handle goes, and nothing of what it does reaches the disk. */
static inline void world_kill(fault_files *disk, iqdb **db) {
    void (*after_fn)(fault_files *, void *) = disk->after_fn;
    const fault_plan plan = disk->plan;
    const size_t failed = disk->failed;
    disk->after_fn = NULL;
    disk->plan.name = NULL;
    fault_fail_nth(disk, FAULT_ANY, 1, IQDB_ERR_IO, true);
    (void)iqdb_close(*db);
    *db = NULL;
    disk->after_fn = after_fn;
    disk->plan = plan;
    disk->failed = failed;
}

static inline void world_free(world *w) {
    if (w->db != NULL) world_kill(w->disk, &w->db);
    fault_free(w->disk);
    w->disk = NULL;
}

static inline bool world_is_documented(iqdb_result result) {
    return result == IQDB_ERR_IO || result == IQDB_ERR_NOSPACE || result == IQDB_ERR_NOMEM ||
           result == IQDB_ERR_POISONED || result == IQDB_ERR_READONLY;
}

/* Opens and finds its place in the history. */
static inline bool world_open(world *w, bool read_only) {
    iqdb_options options = world_options(w);
    iqdb_stats stats;
    uint64_t print;
    options.read_only = read_only;
    memset(&w->error, 0, sizeof w->error);
    const iqdb_result result = iqdb_open("db", &options, &w->db);
    if (result != IQDB_OK) {
        if (w->db != NULL || w->error.code != result) return world_complain(w, "open failed without saying why");
        if (w->lax && world_is_documented(result)) {
            w->failed++;
            return true;
        }
        return world_complain(w, "it does not open");
    }
    if (!world_look_aside(w, &print, &w->model)) return world_complain(w, "a record is not what was written");
    size_t at = w->durable;
    while (at < w->history_count && w->prints[at] != print) at++;
    if (at == w->history_count) return world_complain(w, "the records are those of no moment that counts");
    w->history_count = at + 1;
    if (iqdb_stat(w->db, &stats) != IQDB_OK) return world_complain(w, "no statistics");
    w->stuck = stats.read_only;
    if (stats.read_only && !read_only) {
        if ((!w->full || (w->flags & WORLD_BALLAST) != 0) && !w->armed && !w->lax)
            return world_complain(w, "it opens for reading only");
        w->failed++;
    } else if (!read_only) {
        w->durable = at;
    }
    w->unborn = false;
    return true;
}

/* ---- Steps ---- */

/* The code of a call that failed: what may it be, and what is known then? */
static inline bool world_failed(world *w, iqdb_result result, bool was_stuck) {
    iqdb_stats stats;
    w->failed++;
    const bool may_be_full = w->full && ((w->flags & WORLD_BALLAST) == 0 || strchr("dD", w->letter) == NULL);
    const bool expected = was_stuck ? result == IQDB_ERR_POISONED || result == IQDB_ERR_READONLY
                                    : (may_be_full && result == IQDB_ERR_NOSPACE) ||
                                          (w->armed && (result == IQDB_ERR_IO || result == IQDB_ERR_NOSPACE)) ||
                                          (w->lax && world_is_documented(result));
    if (!expected) {
        printf("\n    code %d", (int)result);
        return world_complain(w, "a step failed that should not have, or not so");
    }
    if (iqdb_stat(w->db, &stats) == IQDB_OK && stats.poisoned) w->stuck = true;
    return true;
}

/* A call that began now has returned: what was issued an interval before, or earlier, is durable. */
static inline void world_elapsed(world *w) {
    if ((w->flags & WORLD_PERIODIC) == 0) return;
    for (size_t i = w->durable + 1; i < w->history_count && w->times[i] + WORLD_INTERVAL <= w->now; i++) w->durable = i;
}

/* Ends a write: the model before it was w->model, the one after it is in the history already. */
static inline bool world_wrote(world *w, iqdb_result result, bool was_stuck) {
    if (result == IQDB_OK) {
        w->model = w->history[w->history_count - 1];
        if ((w->flags & WORLD_EACH) != 0) w->durable = w->history_count - 1;
        /* A write does not answer for what it has done of a checkpoint. */
        iqdb_stats stats;
        if ((w->armed || w->lax) && iqdb_stat(w->db, &stats) == IQDB_OK && stats.poisoned) w->stuck = true;
        world_elapsed(w);
        return !was_stuck || world_complain(w, "a write went through that had to be refused");
    }
    /* IO: it may be there or not. All else: it is not. */
    if (result != IQDB_ERR_IO) w->history_count--;
    if (!world_failed(w, result, was_stuck)) return false;
    return result != IQDB_ERR_IO || w->stuck || world_complain(w, "nobody knows what is in the log, but writes go on");
}

static inline uint32_t world_version(world *w, unsigned size_class) { return ++w->serial * 8 + size_class; }

typedef struct world_batch {
    iqdb_op ops[WORLD_IDS];
    iqdb_record records[WORLD_IDS];
    iqdb_field fields[WORLD_IDS][2];
    float vectors[WORLD_IDS][WORLD_DIM];
    uint64_t ids[WORLD_IDS];
    size_t count, upserts;
} world_batch;

static char world_texts[WORLD_IDS][320], world_large[4][70000];

static inline void world_upsert(world *w, world_batch *batch, world_model *next, uint64_t id, unsigned size_class) {
    const size_t i = batch->count++;
    const uint32_t version = world_version(w, size_class);
    world_record(id, version, batch->vectors[i], size_class > 2 ? world_large[i % 4] : world_texts[i], batch->fields[i],
                 &batch->records[i]);
    batch->ops[i] = iqdb_op_default();
    batch->ops[i].kind = IQDB_OP_UPSERT;
    batch->ops[i].record = &batch->records[i];
    batch->ids[i] = id;
    batch->upserts++;
    next->versions[id] = version;
}

static inline void world_delete(world_batch *batch, world_model *next, uint64_t id) {
    const size_t i = batch->count++;
    batch->ops[i] = iqdb_op_default();
    batch->ops[i].kind = IQDB_OP_DELETE;
    batch->ops[i].id = id;
    batch->ids[i] = id;
    next->versions[id] = 0;
}

/* The nth id that is there (present) or not; ids go round. */
static inline uint64_t world_pick(const world *w, const world_model *model, bool present, size_t n) {
    uint64_t id = w->serial * 5 % WORLD_IDS;
    for (size_t tries = 0; tries < WORLD_IDS * (n + 1); tries++, id = (id + 1) % WORLD_IDS)
        if ((model->versions[id] != 0) == present && n-- == 0) return id;
    return id;
}

/* A write as the letter says; the batch is made for both the database and the model. */
static inline void world_compose(world *w, char letter, world_batch *batch, world_model *next) {
    static const char letters[] = "urtlLge";
    static const unsigned classes[] = {1, 1, 2, 3, 4, 5, WORLD_BARE};
    *next = w->model;
    batch->count = batch->upserts = 0;
    const char *found = strchr(letters, letter);
    if (found != NULL) {
        world_upsert(w, batch, next, world_pick(w, next, letter == 'r' || letter == 't', 0), classes[found - letters]);
    } else if (letter == 'd') {
        world_delete(batch, next, world_pick(w, next, true, 0));
    } else if (letter == 'n') {
        world_delete(batch, next, world_pick(w, next, false, 1));
    } else if (letter == 'H') {
        for (size_t i = 0; i < 4; i++) world_upsert(w, batch, next, world_pick(w, next, i == 3, 0), 5);
    } else if (letter == 'b' || letter == 'B') {
        for (size_t i = 0; i < (letter == 'b' ? 4u : 20u); i++)
            world_upsert(w, batch, next, world_pick(w, next, i % 4 == 3, 0), i % 3 == 2 ? 2 : 1);
    } else if (letter == 'a') {
        world_upsert(w, batch, next, world_pick(w, next, true, 0), 2);
        world_delete(batch, next, world_pick(w, next, true, 1));
        world_upsert(w, batch, next, world_pick(w, next, false, 0), 1);
        world_upsert(w, batch, next, world_pick(w, next, false, 0), WORLD_BARE);
    } else if (letter == 'D') {
        for (size_t i = 0; i < 3; i++) world_delete(batch, next, world_pick(w, next, true, i));
    } else { /* w */
        for (uint64_t id = 0; id < WORLD_IDS; id++)
            if (next->versions[id] != 0) world_upsert(w, batch, next, id, 1);
    }
}

/* ---- A group: writes that come while another one is synced ---- */

typedef struct world_member {
    world_batch batch;
    pthread_t thread;
    bool started;
    iqdb_result result;
} world_member;

typedef struct world_party {
    world *w;
    size_t begin; /* where the first write stands in the history */
    uint64_t moment;
    bool saw_others;
    world_member members[WORLD_GROUP];
} world_party;

static world_party world_party_now;

static inline void *world_join(void *user) {
    world_member *m = (world_member *)user;
    iqdb *db = world_party_now.w->db;
    m->result = m->batch.upserts > 0 ? iqdb_upsert(db, &m->batch.records[0]) : iqdb_delete(db, m->batch.ids[0], NULL);
    return NULL;
}

/* Nobody sees a write that a power cut may still take away: while the first one is synced, and while its group is, which
 * is another moment, readers have what was before it. */
static inline void *world_look_within(void *user) {
    world_party *party = (world_party *)user;
    const uint64_t groups = party->w->db->home->common.epoch.moment - party->moment;
    uint64_t print = 0;
    const uint64_t expected =
        groups == 0 ? world_print_of(&party->w->model) : party->w->prints[party->begin + (size_t)groups - 1];
    if (groups < 2 && (!world_look(party->w->db, &print, NULL) || print != expected)) party->saw_others = true;
    return NULL;
}

/* Called by the leader, which has given up the lock for its sync: each of the others queues its write, in order. */
static inline void world_before_sync(void *user) {
    world_party *party = (world_party *)user;
    world_member *group = party->members;
    const iqdb *db = party->w->db;
    pthread_t reader; /* another thread, for this one is inside */
    if (db->home->syncing == 0) return;
    if (pthread_create(&reader, NULL, world_look_within, party) != 0) fault_no_memory();
    pthread_join(reader, NULL);
    if (group->started) return;
    for (size_t i = 0; i < WORLD_GROUP; i++) {
        group[i].started = true;
        if (pthread_create(&group[i].thread, NULL, world_join, &group[i]) != 0) fault_no_memory();
        while (__atomic_load_n(&db->home->queued, __ATOMIC_ACQUIRE) != i + 1) {
            if (__atomic_load_n(&db->home->draining, __ATOMIC_ACQUIRE) > 0) return; /* there is no space for it yet */
            usleep(20);
        }
    }
}

/* An upsert of a new id; then, queued behind it, another one, a delete of that, and an upsert that stays. */
static inline bool world_group(world *w) {
    static world_batch first;
    world_party *party = &world_party_now;
    world_member *group = party->members;
    const bool was_stuck = w->stuck;
    const size_t begin = w->history_count;
    const world_model before = w->model;
    const uint64_t id = world_pick(w, &before, false, 3);
    memset(party, 0, sizeof *party);
    party->w = w;
    party->begin = begin;
    party->moment = w->db->home->common.epoch.moment;
    if (begin + WORLD_GROUP >= WORLD_HISTORY) return world_complain(w, "the script is too long");
    for (size_t i = 0; i <= WORLD_GROUP; i++) {
        world_model *next = &w->history[w->history_count];
        world_batch *batch = i == 0 ? &first : &group[i - 1].batch;
        *next = i == 0 ? before : next[-1];
        batch->count = batch->upserts = 0;
        if (i == 2)
            world_delete(batch, next, id);
        else
            world_upsert(w, batch, next, i == 1 ? id : world_pick(w, next, false, 0), i == 0 ? 1 : WORLD_BARE);
        w->prints[w->history_count++] = world_print_of(next);
    }
    w->disk->before_sync_user = party;
    w->disk->before_sync_fn = world_before_sync;
    iqdb_result result = iqdb_upsert(w->db, &first.records[0]);
    size_t count = 0;
    for (; count < WORLD_GROUP && group[count].started; count++) pthread_join(group[count].thread, NULL);
    w->disk->before_sync_fn = NULL;
    w->history_count = begin + 1 + count;
    if (party->saw_others) return world_complain(w, "a write is seen before it is durable");
    for (size_t i = 0; i < count; i++) {
        if (group[i].result != group[0].result) return world_complain(w, "a group fares differently than its writes");
        if (group[i].result == IQDB_OK && result != IQDB_OK) return world_complain(w, "a group is lost but its end");
    }
    if (result == IQDB_OK && count > 0) {
        w->model = w->history[begin];
        w->durable = begin;
        result = group[0].result;
    }
    return world_wrote(w, result, was_stuck);
}

/* A batch over two collections. */
static inline iqdb_result world_apply_aside(world *w, world_batch *batch, iqdb *side) {
    size_t records = 0;
    for (size_t i = 0; i < batch->count; i++) {
        if (batch->ops[i].kind == IQDB_OP_UPSERT) records++;
        if (batch->ids[i] % 2 != 0) batch->ops[i].collection = side;
    }
    return records == batch->upserts ? iqdb_apply(w->db, batch->ops, batch->count) : IQDB_ERR_INVALID_ARGUMENT;
}

static inline bool world_drop(world *w) {
    const bool was_stuck = w->stuck;
    bool has_side = false;
    world_model *next = &w->history[w->history_count];
    if (iqdb_collection_names(w->db, world_is_side, &has_side) != IQDB_OK || !has_side) return true;
    if (w->history_count == WORLD_HISTORY) return world_complain(w, "the script is too long");
    *next = w->model;
    for (uint64_t id = 1; id < WORLD_IDS; id += 2) next->versions[id] = 0;
    w->times[w->history_count] = w->now;
    w->prints[w->history_count++] = world_print_of(next);
    return world_wrote(w, iqdb_collection_drop(w->db, "side"), was_stuck);
}

static inline bool world_reindex(world *w) {
    static const iqdb_index after[] = {IQDB_INDEX_FLAT, IQDB_INDEX_IVF, IQDB_INDEX_AUTO, IQDB_INDEX_AUTO};
    const bool was_stuck = w->stuck;
    world_model *next = &w->history[w->history_count];
    iqdb_options options = iqdb_options_default();
    if (w->history_count == WORLD_HISTORY) return world_complain(w, "the script is too long");
    *next = w->model;
    options.index = after[w->model.index];
    next->index = (uint32_t)options.index;
    w->times[w->history_count] = w->now;
    w->prints[w->history_count++] = world_print_of(next);
    return world_wrote(w, iqdb_reindex(w->db, &options), was_stuck);
}

static inline bool world_write(world *w, char letter) {
    static world_batch batch;
    world_model *next = &w->history[w->history_count];
    const bool was_stuck = w->stuck;
    iqdb_result result;
    if (w->history_count == WORLD_HISTORY) return world_complain(w, "the script is too long");
    iqdb *side = NULL;
    if ((w->flags & WORLD_SIDE) != 0) {
        iqdb_options options = iqdb_options_default();
        options.metric = IQDB_L2;
        result = iqdb_collection(w->db, "side", &options, &side);
        if (result != IQDB_OK)
            return world_failed(w, result == IQDB_ERR_NOT_FOUND && was_stuck ? IQDB_ERR_READONLY : result, was_stuck);
    }
    world_compose(w, letter, &batch, next);
    w->times[w->history_count] = w->now;
    w->prints[w->history_count++] = world_print_of(next);
    if (side != NULL) {
        result = world_apply_aside(w, &batch, side);
        if (iqdb_close(side) != IQDB_OK) return world_complain(w, "a handle of a collection does not close");
    } else if (letter == 'd' || letter == 'n') {
        result = iqdb_delete(w->db, batch.ids[0], NULL);
    } else if (letter == 'D') {
        result = iqdb_delete_batch(w->db, batch.ids, batch.count, NULL);
    } else if (letter == 'a') {
        result = iqdb_apply(w->db, batch.ops, batch.count);
    } else if (batch.count == 1) {
        result = iqdb_upsert(w->db, &batch.records[0]);
    } else {
        result = iqdb_upsert_batch(w->db, batch.records, batch.count);
    }
    return world_wrote(w, result, was_stuck);
}

/* Flush, checkpoint and close make everything durable. A read-only handle has nothing to flush. */
static inline bool world_settled(world *w, iqdb_result result, bool was_stuck) {
    if (result != IQDB_OK) return world_failed(w, result, was_stuck);
    if (!was_stuck) w->durable = w->history_count - 1;
    return true;
}

static inline bool world_close(world *w) {
    const bool was_stuck = w->stuck;
    iqdb *db = w->db;
    w->db = NULL;
    const iqdb_result result = iqdb_close(db);
    w->stuck = false;
    if (result == IQDB_OK) {
        if (!was_stuck) w->durable = w->history_count - 1;
        return true;
    }
    w->failed++;
    if (was_stuck || (w->full && result == IQDB_ERR_NOSPACE) || w->armed || (w->lax && world_is_documented(result)))
        return true;
    printf("\n    code %d", (int)result);
    return world_complain(w, "close failed");
}

/* What is left of the disk after a power cut, in any way that is allowed. */
static inline fault_fate world_fate(const fault_item *item, void *user) {
    world *w = (world *)user;
    return fault_random_fate(item, FAULT_TEAR | FAULT_ZEROS | FAULT_GARBAGE, 4, w->disk->sector_size, &w->seed);
}

static inline void world_power_cut(world *w, bool everything) {
    fault_files *state = fault_crash(w->disk, everything ? fault_lose : world_fate, w);
    state->after_fn = w->disk->after_fn;
    state->after_user = w->disk->after_user;
    state->plan = w->disk->plan;
    state->failed = w->disk->failed;
    state->partial = w->disk->partial;
    state->drop_on_sync_failure = w->disk->drop_on_sync_failure;
    fault_free(w->disk);
    w->disk = state;
}

static inline bool world_die(world *w, char letter) {
    if (w->db != NULL) world_kill(w->disk, &w->db);
    if (w->armed) fault_fail_nth(w->disk, 0, 0, IQDB_OK, false);
    w->stuck = w->armed = false;
    if (letter != 'x') world_power_cut(w, letter == 'q');
    return world_open(w, false);
}

static inline uint64_t world_used(const fault_files *disk) {
    uint64_t used = 0;
    for (const fault_inode *i = disk->inodes; i != NULL; i = i->next) used += i->alive || i->opened > 0 ? i->size : 0;
    return used;
}

static inline bool world_checkpoint_in_vain(world *w) {
    const bool was_stuck = w->stuck, was_full = w->full;
    const bool is_idle =
        iq_directory_holds(w->db->home->directory, w->db->home->common.lsn); /* there is nothing to write */
    const fault_plan plan = w->disk->plan;
    const size_t failed = w->disk->failed;
    w->disk->plan.name = "snap";
    w->full = true;
    fault_fail_nth(w->disk, FAULT_OPEN, 1, IQDB_ERR_NOSPACE, true);
    const iqdb_result result = iqdb_checkpoint(w->db);
    w->disk->plan = plan;
    w->disk->failed = failed;
    const bool ok = result != IQDB_OK ? world_failed(w, result, was_stuck)
                                      : is_idle || world_complain(w, "a checkpoint without space");
    w->full = was_full;
    return ok;
}

static inline bool world_maintain(world *w, bool whole) {
    const bool was_stuck = w->stuck;
    bool done = false;
    iqdb_result result = IQDB_OK;
    for (int i = 0; result == IQDB_OK && !done && i < (whole ? 1000 : 1); i++) result = iqdb_maintain(w->db, 0, &done);
    if (result != IQDB_OK) return world_failed(w, result, was_stuck);
    if (!was_stuck) world_elapsed(w);
    return !whole || done || world_complain(w, "maintain does not come to an end");
}

static inline bool world_verify(world *w) {
    const iqdb_result result = iqdb_verify(w->db, IQDB_DEPTH_RECORDS, NULL, NULL);
    if (result == IQDB_OK || w->stuck || w->full || w->failed > 0) return true;
    if (w->lax && world_is_documented(result)) { /* its own call failed */
        w->failed++;
        return true;
    }
    printf("\n    code %d", (int)result);
    return world_complain(w, "verify finds something");
}

static inline bool world_step(world *w, char letter) {
    const bool was_stuck = w->stuck;
    w->letter = letter;
    w->now += letter == 'T' ? WORLD_INTERVAL : WORLD_INTERVAL / 3;
    switch (letter) {
    case 'T':
        return true;
    case 'y':
        return world_group(w);
    case 'X':
        return world_drop(w);
    case 'i':
        return world_reindex(w);
    case 'o':
        return world_open(w, false);
    case 'z':
        return world_close(w);
    case 'f':
        return world_settled(w, iqdb_flush(w->db), was_stuck);
    case 'k':
        return world_settled(w, iqdb_checkpoint(w->db), was_stuck);
    case 'K':
        return world_checkpoint_in_vain(w);
    case 'm':
    case 'M':
        return world_maintain(w, letter == 'M');
    case 'v':
        return world_verify(w);
    case 'c':
        return world_close(w) && world_open(w, false);
    case 'R':
        return world_close(w) && world_open(w, true) && (w->db == NULL || world_close(w)) && world_open(w, false);
    case 'x':
    case 'p':
    case 'q':
        return world_die(w, letter);
    case 'F':
    case 'G':
        w->disk->space = world_used(w->disk) + (letter == 'G' ? 5000 : 1);
        w->full = true;
        return true;
    case 'E':
        w->disk->space = 0;
        w->full = false;
        return true;
    case 'I':
        w->disk->drop_on_sync_failure = true;
        w->disk->plan.name = NULL;
        fault_fail_nth(w->disk, FAULT_SYNC, 1, IQDB_ERR_IO, false);
        w->armed = true;
        return true;
    case 'W':
        w->disk->partial = 100;
        w->disk->plan.name = "wal";
        fault_fail_nth(w->disk, FAULT_WRITE, 1, IQDB_ERR_IO, false);
        w->armed = true;
        return true;
    default:
        return world_write(w, letter);
    }
}

/* Between steps the database must hold what the model says. */
static inline bool world_agrees(world *w) {
    uint64_t print;
    if (w->db == NULL) return true;
    if (!world_look_aside(w, &print, NULL)) return world_complain(w, "a record is not what was written");
    return print == world_print_of(&w->model) || world_complain(w, "the records are not those of the model");
}

/* Every step without a handle is left out, but opens. */
static inline bool world_take(world *w, char letter) {
    if (letter == ' ' || letter == '}') return true;
    if (w->db == NULL && strchr("oxpqFGE", letter) == NULL) return strchr("cR", letter) == NULL || world_open(w, false);
    return (w->watch_fn == NULL || w->watch_fn(w, letter, false)) && world_step(w, letter) && world_agrees(w) &&
           (w->watch_fn == NULL || w->watch_fn(w, letter, true));
}

static inline bool world_play(world *w, const char *script) {
    w->script = script;
    w->prints[0] = world_print_of(&w->model);
    for (const char *at = script; *at != 0; at++) {
        size_t times = 1, length = 1;
        if (*at >= '1' && *at <= '9') times = (size_t)(*at++ - '0');
        if (*at == '{') length = (size_t)(strchr(at, '}') - at);
        for (size_t i = 0; i < times * length; i++) {
            const char letter = length > 1 && i % length == 0 ? ' ' : at[i % length];
            w->step = (size_t)(at - script) + i % length;
            if (!world_take(w, letter)) return false;
        }
        at += length - 1;
    }
    return true;
}

#endif
