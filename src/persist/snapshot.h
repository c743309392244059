/* Snapshot files: keyed sections of bytes, written in one pass to a sink, read back with every block checked.
 * The byte tables are in persist/format.h. */
#ifndef IQ_PERSIST_SNAPSHOT_H
#define IQ_PERSIST_SNAPSHOT_H

#include "persist/page.h"
#include "persist/volume.h"

/* Where a snapshot goes: a file, or a caller's function. Bytes come in order. */
typedef struct iq_sink {
    iqdb_result (*write_fn)(const void *bytes, size_t size, void *user);
    void *user;
} iq_sink;

/* What META keeps of a snapshot. */
typedef struct iq_snapshot_entry {
    uint64_t number;
    uint64_t size_bytes;
    uint64_t lsn;  /* the last one it holds */
    uint32_t root; /* the checksum that all others hang under */
} iq_snapshot_entry;

typedef struct iq_snapshot_writer iq_snapshot_writer;

/* A section of exactly `size` bytes, keyed (collection, kind): begin, any number of writes (of zeros where bytes is
 * NULL), and the next begin or the end. A key stands once. Errors are sticky: the first one is returned by everything
 * that follows. */
IQ_FN iqdb_result iq_snapshot_section(iq_snapshot_writer *writer, uint32_t collection, uint32_t kind, uint64_t size);
IQ_FN iqdb_result iq_snapshot_write(iq_snapshot_writer *writer, const void *bytes, size_t size);

/* Runs write_fn between the header and the checksums of a new snapshot; number and lsn of *entry are given, size and
 * root are filled. The writer lives during the call. */
typedef iqdb_result (*iq_snapshot_fn)(iq_snapshot_writer *writer, void *user);
IQ_FN iqdb_result iq_snapshot_produce(const iq_sink *sink, const iqdb_allocator *allocator, iq_crc32_fn crc32,
                                      const uint8_t *uuid, iq_snapshot_entry *entry, iq_snapshot_fn write_fn,
                                      void *user);

typedef struct iq_snapshot_reader iq_snapshot_reader;

/* Opens snap-<n> and checks footer, tables and list. CORRUPT where it is missing, or not the one META names. */
IQ_FN iqdb_result iq_snapshot_open(const iq_volume *volume, const uint8_t *uuid, const iq_snapshot_entry *entry,
                                   iq_snapshot_reader **out_reader);
/* The same for a snapshot in memory, which stays there until close; *out_entry is what it says of itself. */
IQ_FN iqdb_result iq_snapshot_open_bytes(const iq_volume *volume, const void *bytes, size_t size,
                                         iq_snapshot_entry *out_entry, iq_snapshot_reader **out_reader);
/* The same for a file that may be damaged. Every damage is reported, and reads fail, in silence, only for what lies in
 * damaged blocks; sections that the list names no more may be assumed. `wanted` NULL: whatever it is. *out_entry: its
 * LSN is IQ_NUMBER_MAX where it cannot be read. NOMEM, VERSION, or CORRUPT where nothing can be read. */
IQ_FN iqdb_result iq_snapshot_salvage(const iq_volume *volume, const uint8_t *uuid, uint64_t number,
                                      const iq_snapshot_entry *wanted, iq_snapshot_entry *out_entry,
                                      iq_snapshot_reader **out_reader);
IQ_FN bool iq_snapshot_is_whole(const iq_snapshot_reader *reader);
/* Gives the list a section, where a writer would have put it behind the last one that the list has. */
IQ_FN void iq_snapshot_assume(iq_snapshot_reader *reader, uint32_t collection, uint32_t kind, uint64_t size);
/* What is left behind the last section, to be assumed. */
IQ_FN uint64_t iq_snapshot_rest(const iq_snapshot_reader *reader);
/* A finding at this place of a section. */
IQ_FN iqdb_error iq_snapshot_finding(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind,
                                     uint64_t offset, const char *text);
IQ_FN void iq_snapshot_close(iq_snapshot_reader *reader); /* NULL is fine */

/* The size of a section, or false where the snapshot has none of this key. */
IQ_FN bool iq_snapshot_find(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind, uint64_t *out_size);
/* The bytes of a section of a snapshot in memory, checked or not; NULL where it has none of this key. */
IQ_FN const uint8_t *iq_snapshot_view(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind);
/* Bytes of a section; every block they lie in has been checked against its CRC. CORRUPT names file and offset. */
IQ_FN iqdb_result iq_snapshot_read(iq_snapshot_reader *reader, uint32_t collection, uint32_t kind, uint64_t offset,
                                   void *bytes, size_t size);
/* Reports that the bytes of a section, though their checksums hold, make no sense: returns CORRUPT. */
IQ_FN iqdb_result iq_snapshot_reject(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind,
                                     uint64_t offset, const char *why);
/* Checks every block that no read has checked yet, and reports each damaged one; the code of the first. */
IQ_FN iqdb_result iq_snapshot_check(iq_snapshot_reader *reader);

/* Whether snap-<number> ends in a valid footer: of the database `uuid`, where that is known, else it is known then. */
IQ_FN bool iq_snapshot_identify(const iq_volume *volume, uint64_t number, uint8_t *uuid, bool *has_uuid);
/* Whether snap-<number> is of this database, for what is left of an interrupted checkpoint. `torn`: it has no whole
 * header, so nobody can tell. */
IQ_FN bool iq_snapshot_is_ours(const iq_volume *volume, const uint8_t *uuid, uint64_t number, bool *out_torn);

#endif
