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
    uint64_t lsn;   /* the last one it holds */
    uint64_t since; /* the last one that it does not hold, but those before it; 0: it is a base */
    uint32_t root;  /* the checksum that all others hang under */
} iq_snapshot_entry;

typedef struct iq_snapshot_writer iq_snapshot_writer;

/* A section of exactly `size` bytes, keyed (collection, kind): begin, any number of writes (of zeros where bytes is
 * NULL), and the next begin or the end. A key stands once, and collections do not go back. Errors are sticky: the first one is returned by everything
 * that follows. */
IQ_FN iqdb_result iq_snapshot_section(iq_snapshot_writer *writer, uint32_t collection, uint32_t kind, uint64_t size);
/* The same for one that is made from others, IQ_SECTION_DERIVED. */
IQ_FN iqdb_result iq_snapshot_derive(iq_snapshot_writer *writer, uint32_t collection, uint32_t kind, uint64_t size);
IQ_FN iqdb_result iq_snapshot_write(iq_snapshot_writer *writer, const void *bytes, size_t size);
/* Right behind the begin of a section of payloads: it is packed, where the volume has a codec to do it. */
IQ_FN iqdb_result iq_snapshot_pack(iq_snapshot_writer *writer);
/* Bytes so far, before they are packed. */
IQ_FN uint64_t iq_snapshot_offset(const iq_snapshot_writer *writer);

/* Begins a snapshot of which number, lsn and since of *entry are given. NOMEM. The volume outlives the writer. */
IQ_FN iqdb_result iq_snapshot_begin(const iq_sink *sink, const iq_volume *volume, const uint8_t *uuid,
                                    const iq_snapshot_entry *entry, iq_snapshot_writer **out_writer);
/* Writes what is behind the sections, and sets size and root of *entry; or, where `result` is none of OK, gives up. The
 * writer, which may be NULL then, is freed in every case. */
IQ_FN iqdb_result iq_snapshot_end(iq_snapshot_writer *writer, iqdb_result result, iq_snapshot_entry *entry);

typedef iqdb_result (*iq_snapshot_fn)(iq_snapshot_writer *writer, void *user); /* writes sections */

typedef struct iq_snapshot_reader iq_snapshot_reader;

/* Opens snap-<n> and checks footer, tables and list. CORRUPT where it is missing, or not the one META names. */
IQ_FN iqdb_result iq_snapshot_open(const iq_volume *volume, const uint8_t *uuid, const iq_snapshot_entry *entry,
                                   iq_snapshot_reader **out_reader);
/* The same over a map of the file, of which header, list and what these hang under are checked, and all else when it is
 * touched. The file must not change while it is open. NOT_IMPLEMENTED where it cannot be mapped. */
IQ_FN iqdb_result iq_snapshot_open_mapped(const iq_volume *volume, const uint8_t *uuid, const iq_snapshot_entry *entry,
                                          iq_snapshot_reader **out_reader);
/* OK where these bytes of a snapshot in memory are what was written, which each block is asked once, or where they are
 * elsewhere; else CORRUPT, which is not reported, and the offset of the first damaged block. Any number of threads may. */
IQ_FN iqdb_result iq_snapshot_touch(const iq_snapshot_reader *reader, const void *bytes, uint64_t size,
                                    uint64_t *out_bad);
/* Where in the file these bytes are; IQ_NUMBER_MAX where they are elsewhere. */
IQ_FN uint64_t iq_snapshot_offset_of(const iq_snapshot_reader *reader, const void *bytes);
IQ_FN bool iq_snapshot_is_mapped(const iq_snapshot_reader *reader);
/* From here on; a reader that stays has to outlive that of the volume it was opened with. */
IQ_FN void iq_snapshot_report_to(iq_snapshot_reader *reader, const iq_reporter *reporter);
IQ_FN uint64_t iq_snapshot_seen_bytes(const iq_snapshot_reader *reader); /* of it, what was found sound under a map */
IQ_FN uint64_t iq_snapshot_size(const iq_snapshot_reader *reader);       /* of the file */
/* A finding at an offset of the file. */
IQ_FN iqdb_error iq_snapshot_damage(const iq_snapshot_reader *reader, uint64_t offset, const char *text);
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
/* The bytes that stand where a small section would be assumed; false where they cannot be read. */
IQ_FN bool iq_snapshot_peek(iq_snapshot_reader *reader, uint8_t *bytes, size_t size);
/* What is left behind the last section, to be assumed: it begins with so many zeros, and another number than 0. */
IQ_FN uint64_t iq_snapshot_rest(iq_snapshot_reader *reader, uint32_t zeros);
/* A finding at this place of a section. */
IQ_FN iqdb_error iq_snapshot_finding(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind,
                                     uint64_t offset, const char *text);
IQ_FN void iq_snapshot_close(iq_snapshot_reader *reader); /* NULL is fine */

/* The size of a section, unpacked, or false where the snapshot has none of this key; 0 where it is packed, and cannot be
 * unpacked, which is reported. */
IQ_FN bool iq_snapshot_find(iq_snapshot_reader *reader, uint32_t collection, uint32_t kind, uint64_t *out_size);
/* iq_snapshot_check passes over the blocks of this section: it is not needed. */
IQ_FN void iq_snapshot_forgive(iq_snapshot_reader *reader, uint32_t collection, uint32_t kind);
/* Moves *collection to the first one from there on that has any section; false where none has. */
IQ_FN bool iq_snapshot_next(const iq_snapshot_reader *reader, uint32_t *collection);
/* The bytes of a section of a snapshot in memory, checked or not; NULL where it has none of this key, or a packed one. */
IQ_FN const uint8_t *iq_snapshot_view(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind);
/* Bytes of a section; every block they lie in has been checked against its CRC. CORRUPT names file and offset. */
IQ_FN iqdb_result iq_snapshot_read(iq_snapshot_reader *reader, uint32_t collection, uint32_t kind, uint64_t offset,
                                   void *bytes, size_t size);
/* Reports that the bytes of a section, though their checksums hold, make no sense: returns CORRUPT. */
IQ_FN iqdb_result iq_snapshot_reject_text(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind,
                                          uint64_t offset, const char *why);
IQ_INLINE iqdb_result iq_snapshot_reject(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind,
                                         uint64_t offset, const char *why) {
    if (IQ_ONLY_BLOBS) return IQDB_ERR_CORRUPT;
    return iq_snapshot_reject_text(reader, collection, kind, offset, IQ_SMALL ? "" : why);
}
/* The same for one that a later version has written: left aside, where it is marked as made from others, else VERSION. */
IQ_FN iqdb_result iq_snapshot_pass_over(const iq_snapshot_reader *reader, uint32_t collection, uint32_t kind);
/* Checks every block that no read has checked yet, and reports each damaged one; the code of the first. */
IQ_FN iqdb_result iq_snapshot_check(iq_snapshot_reader *reader);

/* Whether snap-<number> ends in a valid footer: of the database `uuid`, where that is known, else it is known then.
 * *out_entry: its LSNs are IQ_NUMBER_MAX where they cannot be read. OK, or NOMEM: nobody can tell. */
IQ_FN iqdb_result iq_snapshot_identify(const iq_volume *volume, uint64_t number, uint8_t *uuid, bool *has_uuid,
                                       iq_snapshot_entry *out_entry, bool *out_ours);
/* Whether snap-<number> is of this database, for what is left of an interrupted checkpoint. `torn`: it has no whole
 * header, so nobody can tell. */
IQ_FN bool iq_snapshot_is_ours(const iq_volume *volume, const uint8_t *uuid, uint64_t number, bool *out_torn);

#endif
