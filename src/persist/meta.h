/* META: what the database consists of. */
#ifndef IQ_PERSIST_META_H
#define IQ_PERSIST_META_H

#include "base/element.h"
#include "codec/utf8.h"
#include "persist/snapshot.h"

/* What META keeps of the default collection. */
typedef struct iq_schema {
    uint32_t dim; /* 0: not known yet */
    uint32_t metric;
    uint32_t element;
    uint32_t unused; /* 16 bytes: where a function returns 12, tcc 0.9.27 writes over what follows them */
} iq_schema;

IQ_FN bool iq_schema_is_valid(const iq_schema *schema);

/* A place in a log: right behind frame `lsn`. */
typedef struct iq_log_position {
    uint64_t lsn;
    uint64_t offset;
    uint32_t crc; /* of that frame, or of the log's header where it is the start */
} iq_log_position;

typedef struct iq_log_entry {
    uint64_t number, salt, first_lsn;
    uint64_t size_bytes; /* the file has at least these */
    bool has_end;
    iq_log_position end;
} iq_log_entry;

typedef struct iq_manifest {
    uint8_t uuid[IQ_UUID_SIZE];
    bool clean;
    uint32_t required; /* feature bits */
    iq_schema schema;
    char model[IQ_META_MODEL_SIZE]; /* "": none is known */
    uint64_t applied_lsn;
    uint32_t snapshot_count, log_count;
    iq_snapshot_entry snapshots[IQ_META_SNAPSHOT_MAX];
    iq_log_entry logs[IQ_META_LOG_MAX];
} iq_manifest;

/* Whether these bytes, behind which a zero may follow, can be the tag of a model. */
IQ_INLINE bool iq_model_is_valid(const void *model, size_t size) {
    return size < IQ_META_MODEL_SIZE && memchr(model, 0, size) == NULL && iq_utf8_is_valid(model, size);
}

/* To IQ_META_MODEL_SIZE bytes; NULL is "". */
IQ_INLINE void iq_model_copy(char *out, const char *model) {
    memset(out, 0, IQ_META_MODEL_SIZE);
    if (model != NULL) memcpy(out, model, strlen(model));
}

/* `slot` has IQ_META_SLOT_SIZE bytes. */
IQ_FN void iq_meta_encode(const iq_manifest *manifest, uint64_t sequence, uint8_t *slot);
/* OK; CORRUPT: not a valid slot; VERSION: valid, but of a newer format. *out_sequence is set but for CORRUPT. */
IQ_FN iqdb_result iq_meta_decode(const uint8_t *slot, iq_manifest *out_manifest, uint64_t *out_sequence);

typedef enum iq_meta_state {
    IQ_META_IS_GOOD,
    IQ_META_IS_MISSING,
    IQ_META_IS_BLANK,  /* no byte but zeros */
    IQ_META_IS_DAMAGED /* no valid slot */
} iq_meta_state;

typedef struct iq_meta {
    iq_file file;
    uint64_t sequence;               /* no lower one may be written */
    uint32_t next_slot;              /* the invalid or older one */
    bool settled;                    /* both slots say the same */
    bool torn;                       /* next_slot was found with a part of what somebody wanted to write, or damaged */
    uint8_t keys[IQ_META_KEYS_SIZE]; /* the part of that name, found by a load, and written by every save */
    uint8_t image[IQ_META_SLOT_SIZE];
    uint8_t check[IQ_META_SLOT_SIZE];
} iq_meta;

/* Opens META, to write where `writable`, and reads it. The manifest is filled where the state is GOOD. A damaged slot
 * beside a good one is worth a warning. VERSION: the slot that counts is of a newer format. */
IQ_FN iqdb_result iq_meta_load(iq_meta *meta, const iq_volume *volume, bool writable, iq_meta_state *out_state,
                               iq_manifest *out_manifest);
/* Reads META by a handle of its own and reports every slot that is not valid; the code of the first. `scratch` has
 * IQ_META_SLOT_SIZE bytes. */
IQ_FN iqdb_result iq_meta_verify(const iq_volume *volume, uint8_t *scratch);
/* Creates META empty, for the first save. */
IQ_FN iqdb_result iq_meta_create(iq_meta *meta, const iq_volume *volume);
/* Writes one slot, syncs and reads it back, then the other. After a failure either manifest may be what the next open
 * finds, so the files of both must stay; calling again is safe. */
IQ_FN iqdb_result iq_meta_save(iq_meta *meta, const iq_manifest *manifest);

#endif
