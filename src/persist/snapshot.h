/* Snapshot files: keyed sections of bytes, written in one pass to a sink, read back with every block checked.
 * The byte tables are in persist/format.h. */
#ifndef IQ_PERSIST_SNAPSHOT_H
#define IQ_PERSIST_SNAPSHOT_H

#include "base/alloc.h"
#include "base/report.h"

/* Where a snapshot goes: a file, and later a backup or a caller's function. Bytes come in order. */
typedef struct iq_sink {
    iqdb_result (*write_fn)(const void *bytes, size_t size, void *user);
    void *user;
} iq_sink;

typedef struct iq_snapshot_writer iq_snapshot_writer;

/* A section of exactly `size` bytes, keyed (collection, kind): begin, any number of writes, and the next begin or the
 * end. A key stands once. Errors are sticky: the first one is returned by everything that follows. */
IQ_FN iqdb_result iq_snapshot_section(iq_snapshot_writer *writer, uint32_t collection, uint32_t kind, uint64_t size);
IQ_FN iqdb_result iq_snapshot_write(iq_snapshot_writer *writer, const void *bytes, size_t size);

typedef struct iq_snapshot_reader iq_snapshot_reader;

/* The size of a section, or false where the snapshot has none of this key. */
IQ_FN bool iq_snapshot_find(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind, uint64_t *out_size);
/* Bytes of a section; every block they lie in has been checked against its CRC. CORRUPT names file and offset. */
IQ_FN iqdb_result iq_snapshot_read(iq_snapshot_reader *reader, uint32_t collection, uint32_t kind, uint64_t offset,
                                   void *bytes, size_t size);
/* Reports that the bytes of a section, though their checksums hold, make no sense: returns CORRUPT. */
IQ_FN iqdb_result iq_snapshot_reject(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind,
                                     uint64_t offset, const char *why);

#endif
