/* The databases under golden/: what is in them, as a formula that read_golden in test_golden.py has too, and how they
 * are made. They were written by this format's first version and are never written again: every later version reads
 * them, and until the format changes on purpose, makes the same bytes. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include "api.h"

#include <stdio.h>
#include <string.h>

enum {
    GOLDEN_RECORDS = 24,
    GOLDEN_DIM = 6
};

typedef struct golden_record {
    iqdb_record record;
    float vector[GOLDEN_DIM];
    iqdb_field fields[7], inner[1], deep[1];
    iqdb_value tags[3];
    char name[24], bytes[5];
} golden_record;

/* Record i as it is written in round `round` (0, or 1 for those that are replaced). */
static inline void golden_fill(golden_record *out, int i, int round) {
    memset(out, 0, sizeof *out);
    for (int j = 0; j < GOLDEN_DIM; j++) out->vector[j] = (float)((i * 13 + j * 7 + round * 5) % 31) / 8.0f - 1.5f;
    snprintf(out->name, sizeof out->name,
             "r\xc3\xa9"
             "cord %d",
             i);
    memcpy(out->bytes, "\x00\xff\x01\x80", 4);
    out->bytes[4] = (char)i;
    out->tags[0] = iqdb_text("alpha");
    out->tags[1] = iqdb_int(-i);
    out->tags[2] = iqdb_null();
    out->deep[0].key = "bytes";
    out->deep[0].value = iqdb_bytes(out->bytes, 5);
    out->inner[0].key = "deep";
    out->inner[0].value = iqdb_object(out->deep, 1);
    out->fields[0].key = "name";
    out->fields[0].value = iqdb_text(out->name);
    out->fields[1].key = "n";
    out->fields[1].value = iqdb_int((int64_t)i * 1000003 - round);
    out->fields[2].key = "x";
    out->fields[2].value = iqdb_float((double)i / 4.0);
    out->fields[3].key = "even";
    out->fields[3].value = iqdb_bool(i % 2 == 0);
    out->fields[4].key = "tags";
    out->fields[4].value = iqdb_array(out->tags, (size_t)(i % 4));
    out->fields[5].key = "nested";
    out->fields[5].value = iqdb_object(out->inner, 1);
    out->fields[6].key = "";
    out->fields[6].value = iqdb_null();
    out->record.id = UINT64_C(0xFFFFFFFFFFFFFFFF) - (uint64_t)i * UINT64_C(0x0123456789ABCDEF);
    out->record.vector = out->vector;
    out->record.dim = GOLDEN_DIM;
    if (i % 4 != 0) out->record.fields = out->fields;
    out->record.field_count = i % 4 == 1 ? 0 : (size_t)(i % 8);
    if (i % 4 == 0) out->record.field_count = 0;
}

/* 0: deleted at the end; 1: as written in round 0; 2: replaced in round 1. */
static inline int golden_fate(int i) { return i % 6 == 5 ? 0 : i % 5 == 3 ? 2 : 1; }

static inline bool golden_entropy(void *bytes, size_t size, void *user) {
    unsigned char *out = (unsigned char *)bytes;
    unsigned *state = (unsigned *)user;
    for (size_t k = 0; k < size; k++) out[k] = (unsigned char)(*state = *state * 5u + 17u);
    return true;
}

/* Writes the database at `path`, through `files` (NULL: the system's). A checkpoint in the middle is asked for by
 * `checkpointed`. */
static inline iqdb_result golden_write(const char *path, const iqdb_files *files, bool checkpointed) {
    static golden_record records[GOLDEN_RECORDS];
    iqdb_record batch[GOLDEN_RECORDS];
    iqdb_options options = iqdb_options_default();
    unsigned state = checkpointed ? 1 : 2;
    iqdb *db = NULL;
    if (files != NULL) options.files = *files;
    options.metric = checkpointed ? IQDB_L2 : IQDB_COSINE;
    options.entropy.fill_fn = golden_entropy;
    options.entropy.user = &state;
    iqdb_result result = iqdb_open(path, &options, &db);
    for (int i = 0; i < GOLDEN_RECORDS; i++) {
        golden_fill(&records[i], i, 0);
        batch[i] = records[i].record;
    }
    for (int i = 0; i < GOLDEN_RECORDS / 2 && result == IQDB_OK; i++) result = iqdb_upsert(db, &batch[i]);
    if (result == IQDB_OK) result = iqdb_flush(db);
    if (result == IQDB_OK && checkpointed) result = iqdb_checkpoint(db);
    if (result == IQDB_OK) result = iqdb_upsert_batch(db, batch + GOLDEN_RECORDS / 2, GOLDEN_RECORDS / 2);
    for (int i = 0; i < GOLDEN_RECORDS && result == IQDB_OK; i++) {
        golden_fill(&records[i], i, 1);
        if (golden_fate(i) == 2) result = iqdb_upsert(db, &records[i].record);
        if (golden_fate(i) == 0) result = iqdb_delete(db, records[i].record.id, NULL);
    }
    const iqdb_result closed = iqdb_close(db);
    return result != IQDB_OK ? result : closed;
}

#endif
