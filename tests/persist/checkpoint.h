/* A checkpoint of a directory all at once, of everything; and a snapshot without a directory. */
#ifndef CHECKPOINT_H
#define CHECKPOINT_H

#include "persist/directory.h"

static inline iqdb_result checkpoint_by(iq_directory *directory, iq_snapshot_fn write_fn, void *user) {
    iq_tier tier;
    int os_code;
    iqdb_result result = iq_directory_checkpoint_begin(directory, true, &tier);
    if (result == IQDB_OK) result = iq_directory_checkpoint_finish(directory, write_fn(tier.writer, user));
    if (result == IQDB_OK) {
        result = iq_directory_checkpoint_sync(directory, &os_code);
        result = iq_directory_checkpoint_end(directory, result, os_code);
    }
    if (result == IQDB_OK || iq_directory_check(directory) != IQDB_OK) return result;
    return iq_directory_flush(directory, false) == IQDB_OK ? result : IQDB_ERR_IO;
}

static inline iqdb_result snapshot_by(const iq_sink *sink, const iqdb_allocator *allocator, const uint8_t *uuid,
                                      iq_snapshot_entry *entry, iq_snapshot_fn write_fn, void *user) {
    iq_snapshot_writer *writer;
    iq_volume volume;
    memset(&volume, 0, sizeof volume);
    volume.allocator = *allocator;
    volume.crc32 = iq_crc32;
    iqdb_result result = iq_snapshot_begin(sink, &volume, uuid, entry, &writer);
    if (result == IQDB_OK) result = write_fn(writer, user);
    return iq_snapshot_end(writer, result, entry);
}

#endif
