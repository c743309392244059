/* delta_writer SEED PATH: a random life of a database with deltas, closed behind a checkpoint. Prints of each record the
 * name of its collection or -, its id, the number in its vector, whose elements follow from the collection, and the size of its text, all of one letter that follows
 * from the number; and of each collection its name and dashes. */
#include "api.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char text[20001];

/* The collections b, c and d are of other elements. */
static const iqdb_element elements[4] = {IQDB_ELEMENT_F32, IQDB_ELEMENT_U8, IQDB_ELEMENT_F16, IQDB_ELEMENT_BIT};

static bool put(iqdb *db, iqdb_element element, uint64_t id, uint64_t number, size_t size) {
    const float vector[3] = {(float)id, (float)number, 0.5f};
    const uint8_t bytes[3] = {(uint8_t)id, (uint8_t)number, (uint8_t)(number >> 8)};
    const uint16_t halves[3] = {(uint16_t)id, (uint16_t)number, 0x3800};
    iqdb_field field;
    iqdb_record record = iqdb_record_default();
    memset(text, 'a' + (int)(number % 26), size);
    field.key = "t";
    field.value = iqdb_text_n(text, size);
    record.id = id;
    record.vector = vector;
    record.raw = element == IQDB_ELEMENT_F16 ? (const void *)halves : (const void *)bytes;
    record.dim = element == IQDB_ELEMENT_BIT ? 24 : 3;
    record.fields = size > 0 ? &field : NULL;
    record.field_count = size > 0;
    return iqdb_upsert(db, &record) == IQDB_OK;
}

/* Ids from 60 on belong to these, one in four to each. */
static const char *const names[4] = {"a", "b", "c", "d"};

static const char *name_of(uint64_t id) { return id < 60 ? NULL : names[id % 4]; }

int main(int argc, char **argv) {
    iqdb *db = NULL;
    bool exists[4] = {false, false, false, false}, done;
    if (argc != 3) return 2;
    uint64_t state = strtoull(argv[1], NULL, 10), number = 0, numbers[100] = {0};
    const uint64_t most = state % 3 == 0 ? 60 : 100;
    size_t sizes[100] = {0};
    /* In most there are lists, in some a graph, which bases have. */
    iqdb_options options = iqdb_options_default();
    options.index = state % 3 == 1 ? IQDB_INDEX_AUTO : state % 6 == 5 ? IQDB_INDEX_HNSW : IQDB_INDEX_IVF;
    options.m = 5;
    options.nlist = (uint32_t)(state % 7);
    if (iqdb_open(argv[2], &options, &db) != IQDB_OK) return 1;
    for (int step = 0; step < 300; step++) {
        const uint64_t what = support_random_below(&state, step < 60 ? 10 : 14),
                       id = support_random_below(&state, most);
        const size_t size = what == 0 ? 20000 : support_random_below(&state, 3) * 40;
        iqdb *target = db;
        bool ok = true;
        if (what < 11 && name_of(id) != NULL) {
            iqdb_options beside = options;
            beside.element = elements[id % 4];
            if (beside.element != IQDB_ELEMENT_F32) beside.index = IQDB_INDEX_AUTO;
            ok = iqdb_collection(db, name_of(id), &beside, &target) == IQDB_OK;
            exists[id % 4] = true;
        }
        if (ok && what < 8) {
            ok = put(target, target == db ? IQDB_ELEMENT_F32 : elements[id % 4], id, ++number, size);
            numbers[id] = number;
            sizes[id] = size;
        } else if (what < 11 && name_of(id) != NULL && id % 7 == 0) {
            ok = iqdb_collection_drop(target, name_of(id)) == IQDB_OK;
            for (uint64_t other = 60; other < 100; other++)
                if (other % 4 == id % 4) numbers[other] = 0;
            exists[id % 4] = false;
        } else if (what < 11) {
            ok = ok && iqdb_delete(target, id, NULL) == IQDB_OK;
            numbers[id] = 0;
        } else if (what < 13) {
            ok = iqdb_maintain(db, UINT32_MAX, &done) == IQDB_OK && iqdb_checkpoint(db) == IQDB_OK;
        } else {
            ok = iqdb_close(db) == IQDB_OK && iqdb_open(argv[2], &options, &db) == IQDB_OK;
        }
        if (what < 11 && target != db && iqdb_close(target) != IQDB_OK) return 1;
        if (!ok) return 1;
    }
    if (iqdb_checkpoint(db) != IQDB_OK || iqdb_close(db) != IQDB_OK) return 1;
    for (uint64_t id = 0; id < 100; id++)
        if (numbers[id] > 0)
            printf("%s %d %d %d\n", name_of(id) != NULL ? name_of(id) : "-", (int)id, (int)numbers[id], (int)sizes[id]);
    for (size_t i = 0; i < 4; i++)
        if (exists[i]) printf("%s - - -\n", names[i]);
    return 0;
}
