/* The handle, its lock and its pins.
 *
 * Whoever writes, checks or maintains holds the lock for the length of the call, but for the sync of a write; whoever
 * reads pins a moment and takes no lock. A call from a callback that runs under the lock, or within that sync, is BUSY;
 * one from anywhere else, a predicate or the body of an iterator's loop too, is a call like any other. */
#ifndef IQ_DB_DB_H
#define IQ_DB_DB_H

#include "codec/record.h"
#include "index/custom.h"
#include "index/graph.h"
#include "index/lists.h"
#include "persist/directory.h"
#include "store/records.h"
#include "sys/thread.h"

typedef struct iq_home iq_home;

/* What iqdb_reindex has stored. */
typedef struct iq_index_choice {
    bool is_stored;
    uint32_t kind, nlist, nprobe, m, ef_construction, ef_search;
    uint64_t seed;
} iq_index_choice;

/* A database seen through one of its collections, of which this is all there is in memory. */
struct iqdb {
    iq_home *home;
    uint32_t number;        /* 0: the default one, which is a part of its home */
    iqdb_metric metric;     /* DEFAULT while it is opened and nothing says which */
    iqdb_element element;   /* F32 meanwhile */
    const char *name;       /* behind this struct; "" */
    bool is_known;          /* there was a handle */
    bool lacks_index;       /* a stored one, by other index_ops than there are */
    size_t handles;         /* that the caller has and that are not closed yet; under the lock, as are */
    size_t touched;         /* operations of the batch in the making, */
    uint32_t wanted;        /* and the dimension that it would have with these */
    uint64_t born;          /* moment from which there is the collection, */
    uint64_t died;          /* atomic: and from which there is none; IQ_MOMENT_NEVER */
    iq_records records;     /* changed under the lock, read under pins */
    iq_index_choice chosen; /* by iqdb_reindex */
    iqdb_index index_kind;
    iq_index_knobs index_knobs;
    uint32_t nprobe, ef;     /* atomic: of a search that does not say; 0: as calibrated */
    iq_index *index;         /* atomic; NULL: none yet */
    iq_index *replaced;      /* NULL, or the one before, which pins up to the moment */
    uint64_t replaced_after; /* may be searching, and in the place of which none is made before they are gone */
    size_t untaken;          /* rows written since the index last worked */
    uint32_t lent_checked;   /* of the rows that are lent, so many have been found sound in a row */
    bool index_waits;        /* that of the base has not been loaded yet */
    size_t saves;            /* images that are writing it: it does not work meanwhile */
    iq_blob key_set;         /* of a named one: keys to be indexed, as codec/record.h has them; empty: none */
};

/* The records that a reader at `moment` sees, which have to stay while it is written; and how far it is. */
typedef struct iq_image {
    iq_home *home;
    uint64_t since; /* 0: everything; else what has changed since this moment */
    uint64_t moment, lsn;
    uint32_t next_number; /* of a collection */
    const iqdb *db;       /* the collection that is written, or NULL behind the last one; of it: */
    uint64_t count;       /* of its rows */
    uint64_t records;     /* that there are at the moment */
    uint32_t row_end;
    size_t stage;          /* sections of rows that are written */
    uint32_t row;          /* the next one to look at, for the section that is not */
    uint64_t payload_end;  /* of the payloads that the references so far lead to */
    const iq_quant *quant; /* of the codes that are being written */
    /* Of a base, where the collection has an index: */
    iqdb *indexed;    /* the collection, while its index is being written, */
    iq_index *index;  /* which is this one */
    iq_blob words;    /* of the places of rows; */
    iq_blob slots;    /* and the table of ids, in the making */
    uint32_t written; /* rows that have one so far */
    iq_places places;
    iq_index_save save;
} iq_image;

/* A checkpoint in the making. */
typedef struct iq_checkpoint {
    bool is_pinned; /* there is one, and its rows are not written yet */
    iq_image image;
    iq_pin pin;
    iq_tier tier;
    uint64_t begun_at; /* bytes of logs; of the image, units that are done, and about as many as there are */
    uint64_t units, unit_count;
    bool store;                          /* an index has much that no snapshot has, and waits for one that is whole */
    uint64_t due_at;                     /* bytes of logs, beyond which writes make one */
    uint32_t count;                      /* snapshots that there are */
    uint64_t held[IQ_META_SNAPSHOT_MAX]; /* each of them, with those before it, holds the rows born up to this moment */
} iq_checkpoint;

/* Of an image is written between two looks at the clock: bytes, and rows to look at for them. */
#define IQ_IMAGE_UNIT 65536u
#define IQ_IMAGE_UNIT_ROWS 1024u

/* What the collections of a database share. */
struct iq_home {
    iqdb root; /* the default collection */
    iqdb_allocator allocator;
    iq_reporter reporter;
    iqdb_sync sync;
    uint64_t sync_interval_us; /* PERIODIC */
    uint64_t durable_at;       /* by the clock, no later than the first write that is not durable */
    bool compact_on_close;
    uint64_t checkpoint_bytes;
    bool read_only; /* over memory of somebody else; a directory has a mark of its own */
    iq_slice blob;  /* that it is over, in place; empty: none */
    /* NULL, or whose rows are used where they lie: a map, or, while that is opened, a blob; and, atomic, one more than the
     * offset of what was last found damaged in it, 0: nothing. */
    iq_snapshot_reader *lender;
    uint64_t damaged;
    bool rebuilds;                              /* options.rebuild_damaged_index */
    bool is_beside;                             /* only to be compared with another one */
    iqdb_index_ops index_ops;                   /* open_fn NULL: none */
    bool wants_stored;                          /* it is an error where a collection lacks one; */
    char lacking[IQDB_CODEC_NAME_SIZE_MAX + 1]; /* the name of it */
    iqdb_parallel_for parallel_for;
    iqdb_clock clock;
    const iq_codes *codes; /* NULL: none are kept */
    iqdb_codec codecs[IQDB_CODECS_MAX];
    const iq_links *links;      /* NULL: there are no graphs */
    iq_directory_config config; /* of directories that it opens or makes, but for the schema */
    iq_directory *directory;    /* NULL in memory */
    uint64_t process;           /* that opened it: another one is a forked child */

    iq_mutex mutex;
    iq_mutex
        child_mutex;   /* in a child, for a thread that is not there may have the other one for ever; and of a child: */
    uint64_t forked;   /* atomic: not 0 from the first call on that takes it; */
    bool is_torn;      /* another thread was under the lock: nobody knows how far its call had come */
    uintptr_t owner;   /* thread under the lock, 0 for none; read without it to detect re-entry */
    uintptr_t syncing; /* thread that leads a group, which gives up the lock for the sync; 0 for none; read likewise */
    uintptr_t settling; /* thread that ends a checkpoint, likewise */
    uint64_t slicing;   /* atomic: threads that keep the lock slice by slice: while there are any, */
    uint64_t waiting;   /* atomic: those who want it are counted */
    /* What follows changes under the lock, and who waits for it is woken. */
    size_t queued;     /* writers of the group that no thread leads yet */
    size_t served;     /* that were in the last one, but for its leader: they are expected again */
    size_t draining;   /* threads that wait until there are none, nor a leader: no write begins */
    bool group_failed; /* and so will all that wait: the directory is poisoned */
    bool told;         /* the call under the lock has reported details of its failure */
    char model[IQ_HAS_MODELS ? IQ_META_MODEL_SIZE : 1]; /* the stored one, or that of options; "": none */

    iq_blob named; /* an iqdb * each, by number: all collections but the root, and those that died and are still seen */
    uint32_t next_number; /* of a collection; 1: there never was one */
    bool has_choices;     /* of an index, that were stored; never false again */
    size_t dead;          /* of those, so many have died */

    uint32_t *staged; /* rows of the batch in the making, one an operation */
    iq_blob staging;  /* their memory, always empty */
    iq_blob encoded;  /* a payload in the making */

    iq_checkpoint checkpoint;
    uint64_t made, made_at; /* checkpoints, and when the last one was: for statistics */
    iq_sync_tally syncs;

    uint8_t distance[IQ_ATOMIC_DISTANCE]; /* from what writers write at each entry to the slots of readers */
    iq_common common;
};

/* Whether this thread is within a callback under the lock, or within a sync that it leads. */
IQ_FN bool iq_db_is_inside(const iqdb *db);
/* Pins the present state; BUSY inside a callback that runs under the lock, NOT_FOUND where the collection was dropped.
 * Every OK needs an unpin of the epoch. */
IQ_FN iqdb_result iq_db_enter_read(const iqdb *db, iq_pin *out_pin);
IQ_FN void iq_db_leave_read(const iqdb *db, iq_pin pin);

/* A view of a row's record, good while the row is pinned. */
IQ_INLINE iqdb_record iq_db_record_at(const iqdb *db, const iq_slab *slab, uint32_t index) {
    iqdb_record record;
    memset(&record, 0, sizeof record);
    record.id = iq_row_id(slab, index);
    record.raw = slab->vectors + index * db->records.rows.stride;
    if (db->element == IQDB_ELEMENT_F32) record.vector = (const float *)record.raw;
    record.dim = db->records.rows.dim;
    record.payload = iq_heap_payload(&db->records.heap, iq_row_payload(slab, index));
    return record;
}

/* Whether an index of this kind is for vectors of the element. */
IQ_INLINE bool iq_index_serves(iqdb_element element, iqdb_index kind) {
    return kind != IQDB_INDEX_HNSW || element == IQDB_ELEMENT_F32;
}
/* Bytes of a packed vector of so many elements. */
IQ_INLINE size_t iq_db_vector_bytes(const iqdb *db, size_t dim) { return iq_element_bytes(db->element, dim); }
/* That of a record or a query, in the form that the collection takes it. */
IQ_INLINE const void *iq_db_vector_of(const iqdb *db, const float *vector, const void *raw) {
    return db->element == IQDB_ELEMENT_F32 ? vector : raw;
}

/* Takes the lock unless this thread has it: whether it did, and has to leave. For memory that calls give back from where
 * they would be BUSY: in a sync this thread has no lock, and another one may be in the allocator. */
IQ_FN bool iq_db_lock(iqdb *db);
/* Takes the lock; BUSY where this thread is inside, LOCKED where the handle is torn. INVALID_ARGUMENT where there is no handle, or a complaint, which is
 * told where it can be; NOT_FOUND where the collection was dropped. Every OK needs a leave. */
IQ_FN iqdb_result iq_db_enter_upkeep(iqdb *db, const char *complaint);
/* Under the lock, with IQDB_SYNC_PERIODIC: syncs where that is due. IO: poisoned. */
IQ_FN iqdb_result iq_db_sync_late(iqdb *db);
/* And POISONED, READONLY, LOCKED where nothing may be written; and with the sync that is due. */
IQ_FN iqdb_result iq_db_enter_write(iqdb *db, const char *complaint);
/* What that does under the lock. */
IQ_FN iqdb_result iq_db_prepare_write(iqdb *db);
IQ_FN void iq_db_leave(iqdb *db);
/* Under the lock: gives it up to those who wait for it while there is a checkpoint. */
IQ_FN void iq_db_let_go(iqdb *db);
/* Under the lock: gives it up until something changes; and says that something did. */
IQ_FN void iq_db_wait(iqdb *db);
IQ_FN void iq_db_wake(iqdb *db);
/* Under the lock: whether a write is queued or synced, so that the log is not to be touched. */
IQ_FN bool iq_db_is_writing(const iqdb *db);
/* Under the lock: waits until none is, as whoever uses the directory has to, but for queued writes;
 * or acts on what is not durable yet. IO where it has not become so. */
IQ_FN iqdb_result iq_db_quiesce(iqdb *db);
/* Leaves with this result and returns it; a failure that nobody has given details of is reported first. */
IQ_FN iqdb_result iq_db_leave_with(iqdb *db, iqdb_result result);
/* Under the lock: returns the result, with details that no file has a part in. */
IQ_INLINE iqdb_result iq_db_tell(const iqdb *db, iqdb_result result, const char *why) {
    if (IQ_ONLY_BLOBS) return iq_report_code(&db->home->reporter, result);
    return iq_report(&db->home->reporter, result, NULL, 0, why);
}

/* Memory for a call (query.c): *scratch, which may be NULL, is of so many bytes after OK; after NOMEM, too, it is to be
 * left for other calls. `own` is a pin's slot, or NULL. */
IQ_FN iqdb_result iq_scratch_take(const iqdb *db, iq_slot *own, size_t size_bytes, iq_scratch **scratch);
IQ_FN void iq_scratch_leave(const iqdb *db, iq_slot *own, iq_scratch *scratch); /* NULL is fine */
/* Bytes of scratch that a search takes: with vectors as iq_flat_query wants them, probes, and hits. */
IQ_FN size_t iq_search_bytes(size_t stride, bool is_cursor, size_t vectors, size_t probes, size_t hits);

/* ---- The handle itself (open.c; fixed.c for one in a block) ---- */
/* Opens a handle, options NULL being the defaults, and has it filled (fill_fn NULL: it is empty) under its lock.
 * INVALID_ARGUMENT where out_db or source is NULL. After a failure there is no handle, and its directory is closed. */
typedef iqdb_result (*iq_fill_fn)(iqdb *db, const iqdb_options *options, const void *source);
IQ_FN iqdb_result iq_db_open(const iqdb_options *options, iq_fill_fn fill_fn, const void *source, iqdb **out_db);
/* A home with nothing but an empty root, whose metric is not known. */
IQ_FN iq_home *iq_home_new(const iqdb_allocator *allocator, const iq_kernel *kernel);
IQ_FN void iq_home_free(iq_home *home);
/* NULL, or what is wrong with options.dim, .metric or .element. */
IQ_FN const char *iq_options_schema_complaint(const iqdb_options *options);
/* The element that they ask for; F32: also none. */
IQ_FN iqdb_element iq_options_element(const iqdb_options *options);
/* Before the dimension is set, for they decide about codes and strides. */
IQ_FN void iq_db_set_metric(iqdb *db, iqdb_metric metric, iqdb_element element);
/* What is stored fixes metric, element and dimension; `file` says so. Options that contradict it are INVALID_CONFIG. */
IQ_FN iqdb_result iq_db_adopt_schema(iqdb *db, const iq_schema *schema, const char *file);
/* So does the model, where one is: "" is none. */
IQ_FN iqdb_result iq_home_adopt_model(iq_home *home, const char *stored);
/* The same for the dimension, which may be known only when all is loaded, and what options.verify asks for. */
IQ_FN iqdb_result iq_db_finish(iqdb *db, const iqdb_options *options, const char *file);
/* A row of the record of a logged upsert; the dimension, where there is none yet, becomes its own. CORRUPT where it cannot
 * be one. */
IQ_FN iqdb_result iq_db_stage_logged(iqdb *db, const iq_logged_record *record, uint32_t *out_row);
/* A logged record of a batch that ended at commit_lsn takes effect. CORRUPT where it cannot. The handle is the user. */
IQ_FN iqdb_result iq_db_replay(const uint8_t *bytes, size_t size, uint64_t commit_lsn, void *user);
IQ_FN iq_schema iq_db_schema(const iqdb *db);
IQ_FN iq_directory_config iq_home_config(iq_home *home);

/* ---- Collections (collection.c), under the lock ---- */

/* Collection i, the root being 0, in the order of their numbers, dead ones too. */
IQ_INLINE size_t iq_home_count(const iq_home *home) { return IQ_SMALL ? 1 : 1 + home->named.size / sizeof(iqdb *); }
IQ_INLINE iqdb *iq_home_at(iq_home *home, size_t i) {
    return IQ_SMALL || i == 0 ? &home->root : ((iqdb **)(void *)home->named.bytes)[i - 1];
}
/* The first one from this number on that was there at `moment`, or NULL. */
IQ_FN iqdb *iq_home_seek(iq_home *home, uint32_t number, uint64_t moment);
/* The one of this number that has not died, or NULL. */
IQ_FN iqdb *iq_home_find(iq_home *home, uint32_t number);
/* One more, there from the next moment on. CORRUPT where number, name or schema cannot be. */
IQ_FN iqdb_result iq_home_add(iq_home *home, uint32_t number, const iq_schema *schema, const char *name, size_t size,
                              iqdb **out_db);
/* The collection of a logged record; made, where that says so. CORRUPT where there is none. */
IQ_FN iqdb_result iq_home_replay(iq_home *home, const iq_logged_record *record, iqdb **out_db);
/* Forgets the last one, which nobody has seen. */
IQ_FN void iq_home_pop(iq_home *home);
/* It is none any more from the next moment on. */
IQ_FN void iq_home_bury(iqdb *db);
/* Gives back what nobody sees any more of those that have died. */
IQ_FN void iq_home_sweep(iq_home *home);
/* Forgets all but an empty root. */
IQ_FN void iq_home_clear(iq_home *home);
IQ_FN iqdb_result iq_collection_close(iqdb *db);
/* It has this set of keys from its first handle on. CORRUPT where the bytes are none. */
IQ_FN iqdb_result iq_collection_keep_keys(iqdb *db, const uint8_t *bytes, size_t size);
#if IQ_HAS_WRITES
/* Logs what becomes of a collection as a batch of its own; `body` is what a record of this type has behind its head.
 * One that is made has the record of its keys in the same batch. */
IQ_FN iqdb_result iq_write_collection(iqdb *db, uint8_t type, iq_slice body, uint64_t *out_lsn);
/* What has been applied of it is published, and durable where each write is. */
IQ_FN iqdb_result iq_write_settle(iqdb *db, uint64_t lsn);
#endif

/* ---- The index (indexing.c); under the lock ---- */

#define IQ_INDEX_ROWS_MIN 2048u   /* fewer are searched as fast without */
#define IQ_INDEX_AUTO_ROWS 50000u /* and from so many on lists are faster by far */

/* Whether this build has it. */
IQ_FN bool iq_index_is_known(uint32_t kind);
/* What the options ask for, and behind that what was chosen. INVALID_CONFIG where they ask for another kind. */
IQ_FN iqdb_result iq_db_index_configure(iqdb *db, const iqdb_options *options);
/* When all is loaded: INVALID_CONFIG where an index is stored that options.index_ops does not make. */
IQ_FN iqdb_result iq_home_needs_indexes(iq_home *home);
/* The choice in IQ_CHOICE_SIZE bytes. VERSION where this build cannot know what was chosen. */
IQ_FN void iq_index_choice_encode(const iq_index_choice *choice, uint8_t *out);
IQ_FN iqdb_result iq_index_choice_decode(const iq_home *home, const uint8_t *bytes, iq_index_choice *out);
/* It is chosen from now on; whether the index that there may be would have been made otherwise. */
IQ_FN bool iq_db_index_choose(iqdb *db, const iq_index_choice *choice);
/* The records and the index over them, as when the collection was made. No reader is left. */
IQ_FN void iq_db_clear_records(iqdb *db);
/* Works at the index until the limit (NULL: none) is reached: whether there is nothing left to do. */
IQ_FN bool iq_db_index_work(iqdb *db, iq_limit *limit);
/* Likewise at the basis of narrow codes, which every search goes through where there is no index. */
IQ_FN bool iq_db_basis_work(iqdb *db, iq_limit *limit);
/* Loads what waits, and finds lent rows sound, which an index would have to read: OK where the index may work; CORRUPT, or
 * BUSY where the limit (NULL: none) was reached. */
IQ_FN iqdb_result iq_db_index_fetch(iqdb *db, iq_limit *limit);
/* Behind a load and a choice: what was loaded goes, if it is not what is wanted. */
IQ_FN void iq_db_index_refit(iqdb *db);
/* Writes a unit of the index section of the collection in hand, where there is to be one; whether that was all. */
IQ_FN iqdb_result iq_db_index_save(iq_image *image, iq_snapshot_writer *writer, bool *out_done);
/* The index that the base has, whose rows have just been loaded. */
IQ_FN iqdb_result iq_db_index_load(iqdb *db, iq_snapshot_reader *reader);
/* After a failure: whether the section was damaged and is to be made from the rows. Then the failure is settled. */
IQ_FN bool iq_db_rebuilds(iqdb *db, iq_snapshot_reader *reader, uint32_t kind, iqdb_result result);
/* Whether some index has much that no snapshot has; `wants` false: it is not to say so. */
IQ_FN bool iq_home_wants_store(iq_home *home, bool wants);
/* What a write of so many rows owes it: so that fresh rows stay few, whoever calls iqdb_maintain or not. */
IQ_FN void iq_db_index_keep_pace(iqdb *db, size_t row_count);

/* ---- Checkpoints (checkpoint.c), snapshots (image.c) and checks (verify.c) ---- */

/* Goes on with the checkpoint, or begins one, of everything where `whole`, until the limit (NULL: none) is reached or it
 * is done; a failure ends it, and leaves nothing of it. Under the lock, which is given up meanwhile. */
IQ_FN iqdb_result iq_checkpoint_run(iqdb *db, bool whole, iq_limit *limit);
/* The present state is that of one more snapshot. */
IQ_FN void iq_checkpoint_note_loaded(iqdb *db);
/* Gives up what is in the making: whether there was something, which had a pin. */
IQ_FN bool iq_checkpoint_abandon(iqdb *db);
#if IQ_HAS_WRITES
/* Behind a write: what options.checkpoint_bytes wants of it. */
IQ_FN void iq_checkpoint_keep_pace(iqdb *db);
#endif
/* What maintain does of it; *out_done: false where there is more. */
IQ_FN iqdb_result iq_checkpoint_maintain(iqdb *db, iq_limit *limit, bool *out_done);

/* Of everything (since 0), or of what has changed since that moment. */
IQ_FN iq_image iq_image_take(iq_home *home, uint64_t since);
IQ_FN void iq_image_end(iq_image *image); /* whatever came of it */
/* Goes on writing until the limit (NULL: none) is reached. Under the lock. */
IQ_FN iqdb_result iq_image_step(iq_image *image, iq_snapshot_writer *writer, iq_limit *limit, bool *out_done);
IQ_FN iqdb_result iq_image_write(iq_snapshot_writer *writer, void *image); /* all of it */
/* Makes a directory of all records, as of `lsn`; uuid NULL: with one of its own. */
IQ_FN iqdb_result iq_image_to_directory(iq_home *home, const char *path, const uint8_t *uuid, uint64_t lsn);
/* A base into a home without records, or a delta into one that has what comes before it; in_place: a base that is in
 * memory, has been checked, and outlives the home. */
IQ_FN iqdb_result iq_image_load(iq_snapshot_reader *reader, iq_home *home, bool is_delta, bool in_place);
/* Whether these bytes may be a stored vector, of this norm. */
IQ_FN bool iq_image_is_vector(const iqdb *db, const uint8_t *vector, float norm);
/* ---- Rows of a base where they lie (lend.c) ---- */
/* A unit of iq_lent, its user being the handle. */
IQ_FN bool iq_lend_touch(void *user, uint32_t part, uint32_t unit);
/* Behind iq_rows_lend, where all is in a map that nobody has looked at. */
IQ_FN iqdb_result iq_lend_map(iqdb *db);
/* Goes on touching all of them: OK where all are sound, CORRUPT, or BUSY where the limit (NULL: none) came first. */
IQ_FN iqdb_result iq_lend_check(iqdb *db, iq_limit *limit);
/* Under the lock: reports what was found damaged last. CORRUPT. */
IQ_FN iqdb_result iq_lend_tell(const iq_home *home);
IQ_FN void iq_lend_end(iq_home *home); /* no rows are left */

/* What the snapshot says of itself, where it can be read. */
typedef struct iq_catalog {
    iq_schema schema;
    uint64_t rows, records; /* records: of a delta, with all before it */
    uint32_t deleted;
    char name[IQDB_NAME_SIZE_MAX]; /* without a zero */
    size_t name_size;
    uint32_t next_number; /* of a collection, in that of the root */
} iq_catalog;
IQ_FN iqdb_result iq_image_catalog(iq_snapshot_reader *reader, uint32_t collection, iq_catalog *out_catalog);
/* The model that the snapshot names, in IQ_META_MODEL_SIZE bytes; "": none. */
IQ_FN iqdb_result iq_image_model(iq_snapshot_reader *reader, char *out_model);
/* The choice of an index that the snapshot has for the collection, if any. */
IQ_FN iqdb_result iq_image_choice(iq_snapshot_reader *reader, iqdb *db);
/* The set of keys that the snapshot has for a named collection, if any. */
IQ_FN iqdb_result iq_image_keys(iq_snapshot_reader *reader, iqdb *db);
/* Buries the collections from the number `from` on that are below `end`: a snapshot that has the one of that number, and
 * not these, says that they were dropped. Returns where the next ones begin. */
IQ_FN uint32_t iq_image_drop(iq_home *home, uint32_t from, uint32_t end);
IQ_FN void iq_verify_records(iq_home *home, iq_findings *findings);

/* The handle behind a const one: readers pin it, or take the lock for its statistics. */
IQ_FN iqdb *iq_db_of(const iqdb *db);

/* NULL in memory, and a constant where there are no directories. */
IQ_INLINE iq_directory *iq_db_directory(const iqdb *db) { return IQ_HAS_FILES ? db->home->directory : NULL; }

/* Under the lock: whether the handle was carried into a child by fork. */
IQ_FN bool iq_db_is_forked(const iqdb *db);
/* Without it: that, and out of a call of another thread, so that nothing but reading is left to do with it. */
IQ_FN bool iq_db_is_torn(iqdb *db);

#endif
