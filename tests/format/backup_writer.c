/* backup_writer COUNT BACKUP REPAIRED: records 0, 3, 6, ... with vectors of the id, some replaced and deleted, in memory;
 * backed up to a directory, which is repaired into another one. */
#include "api.h"

#include <stdio.h>
#include <stdlib.h>

static int put(iqdb *db, uint64_t id, float last) {
    const float vector[3] = {(float)id, 1.0f, last};
    iqdb_field field;
    field.key = "id";
    field.value = iqdb_int((int64_t)id);
    iqdb_record record = iqdb_record_default();
    record.id = id;
    record.vector = vector;
    record.dim = 3;
    record.fields = &field;
    record.field_count = 1;
    return iqdb_upsert(db, &record) == IQDB_OK;
}

int main(int argc, char **argv) {
    iqdb *db = NULL;
    const iqdb_index_key keys[2] = {{"id", IQDB_KEY_ORDERED}, {"x.y", IQDB_KEY_HASH}};
    iqdb_options options = iqdb_options_default();
    options.index_keys = keys;
    options.index_key_count = 2;
    options.model = "caf\xC3\xA9-2";
    if (argc != 4 || iqdb_open_in_memory(&options, &db) != IQDB_OK) return 2;
    const uint64_t count = strtoull(argv[1], NULL, 10);
    for (uint64_t id = 0; id < count + 5; id++)
        if (!put(db, id * 3, 0.0f)) return 2;
    for (uint64_t id = 0; id < count; id += 2)
        if (!put(db, id * 3, 7.0f)) return 2;
    for (uint64_t id = count; id < count + 5; id++)
        if (iqdb_delete(db, id * 3, NULL) != IQDB_OK) return 2;
    iqdb *named = NULL;
    if (iqdb_collection(db, "named", &options, &named) != IQDB_OK || !put(named, 1, 0.0f)) return 2;
    if (iqdb_close(named) != IQDB_OK) return 2;
    if (iqdb_backup(db, argv[2]) != IQDB_OK || iqdb_repair(argv[2], argv[3], NULL, NULL, NULL) != IQDB_OK) return 1;
    return iqdb_close(db) == IQDB_OK ? 0 : 1;
}
