/* A directory and its files, with errors that name the file. Numbers in names are the only part of a name that comes
 * from outside, and they are digits only. */
#ifndef IQ_PERSIST_VOLUME_H
#define IQ_PERSIST_VOLUME_H

#include "base/alloc.h"
#include "base/report.h"
#include "kernel/crc32.h"
#include "sys/limit.h"

/* What waiting for the disk has cost; several threads may sync at once. */
typedef struct iq_sync_tally {
    uint64_t count, weak, us; /* atomic */
    iqdb_clock clock;         /* now_fn NULL: us stays 0 */
} iq_sync_tally;

typedef struct iq_volume {
    iqdb_allocator allocator;
    iqdb_files files;
    void *dir;
    const iq_reporter *reporter; /* NULL: silent */
    iq_crc32_fn crc32;           /* for frames and blocks, but not for the single pages of headers and META */
    const iqdb_codec *codecs;    /* that pack sections: the first one; and that unpack them: any */
    size_t codec_count;
    iq_sync_tally *syncs; /* NULL: nobody counts */
    bool spends;          /* what is written now may have the space of the ballast */
} iq_volume;

#define IQ_FILE_NAME_SIZE 32
#define IQ_LOG_PREFIX "wal-"
#define IQ_SNAPSHOT_PREFIX "snap-"
#define IQ_BALLAST_NAME "ballast"

typedef struct iq_file {
    const iq_volume *volume;
    void *handle; /* NULL: not open */
    char name[IQ_FILE_NAME_SIZE];
} iq_file;

/* prefix and number in decimal. */
IQ_FN void iq_volume_name(char name[IQ_FILE_NAME_SIZE], const char *prefix, uint64_t number);
/* Whether `name` is what iq_volume_name would make of some number from 1 to IQ_NUMBER_MAX. */
IQ_FN bool iq_volume_number(const char *name, const char *prefix, uint64_t *out_number);

/* allocator, files and reporter are given; crc32 may be, else it is iq_crc32. */
IQ_FN iqdb_result iq_volume_open(iq_volume *volume, const char *path, bool create);
IQ_FN void iq_volume_close(iq_volume *volume); /* nothing where it is not open */
/* The same volume without anybody to report to; not to be closed. */
IQ_FN iq_volume iq_volume_silent(const iq_volume *volume);

/* NOT_FOUND, and INVALID_CONFIG for a CREATE of what exists, are not reported: the caller knows what they mean. */
IQ_FN iqdb_result iq_file_open(iq_file *file, const iq_volume *volume, const char *name, iqdb_open_kind kind);
IQ_FN void iq_file_close(iq_file *file); /* nothing where it is not open */
IQ_FN iqdb_result iq_file_size(const iq_file *file, uint64_t *out_size);
/* Fewer bytes only at the end of the file. */
IQ_FN iqdb_result iq_file_read(const iq_file *file, uint64_t offset, void *bytes, size_t size, size_t *out_size);
IQ_FN iqdb_result iq_file_try_write(const iq_file *file, uint64_t offset, const void *bytes, size_t size,
                                    int *os_code); /* OK, NOSPACE or IO; not reported */
/* Zeros behind the end of the file: OK, NOSPACE, or NOT_IMPLEMENTED where they have to be written. */
IQ_FN iqdb_result iq_file_try_reserve(const iq_file *file, uint64_t offset, uint64_t size, int *os_code);
/* The first `size` bytes as memory. NOT_IMPLEMENTED where they have to be read, which is not reported. */
IQ_FN iqdb_result iq_file_map(const iq_file *file, uint64_t size, const uint8_t **out_bytes);
IQ_FN void iq_file_start(const iq_file *file, uint64_t offset, uint64_t size); /* a hint: a sync will follow */
IQ_FN iqdb_result iq_file_write(const iq_file *file, uint64_t offset, const void *bytes, size_t size);
IQ_FN iqdb_result iq_file_try_sync(const iq_file *file, int *os_code);                  /* OK or IO; not reported */
IQ_FN iqdb_result iq_file_synced(const iq_file *file, iqdb_result result, int os_code); /* reports it */
IQ_FN iqdb_result iq_file_sync(const iq_file *file);                                    /* OK or IO */
IQ_FN iqdb_result iq_file_lock(const iq_file *file, bool exclusive);                    /* OK, LOCKED or IO */
IQ_FN iqdb_result iq_volume_sync(const iq_volume *volume);                              /* of the directory; OK or IO */
/* What stays is an orphan, and the logger hears of it; few callers need to know. */
IQ_FN bool iq_volume_remove(const iq_volume *volume, const char *name);
/* Creates prefix<number> for the first number from *number on whose name is free, which is then in *number. */
IQ_FN iqdb_result iq_volume_create(iq_file *file, const iq_volume *volume, const char *prefix, uint64_t *number);

/* The numbers of all files of a prefix, in no order. */
typedef struct iq_numbers {
    const uint64_t *items; /* in the blob */
    size_t count;
    iq_blob blob;
    const char *prefix;
    iqdb_result result;
} iq_numbers;
IQ_FN iqdb_result iq_volume_list(const iq_volume *volume, const char *prefix, iq_numbers *out_numbers); /* free blob */

/* The ballast is a file that is nothing but space, for what has to go on when the disk is full: recovery, deletes, META.
 * It may be missing at any time, or shorter. */
/* NOSPACE was met: whether the ballast has given its space, so that it is worth another try. */
IQ_FN bool iq_volume_spend(const iq_volume *volume);
/* Makes it where it is missing and there is space. */
IQ_FN void iq_volume_make_ballast(const iq_volume *volume);

/* A code at an offset of a file, with an LSN where one applies. */
IQ_FN iqdb_result iq_file_report_text(const iq_file *file, iqdb_result code, uint64_t offset, uint64_t lsn,
                                      const char *text);
IQ_INLINE iqdb_result iq_file_report(const iq_file *file, iqdb_result code, uint64_t offset, uint64_t lsn,
                                     const char *text) {
    if (IQ_ONLY_BLOBS) return code;
    return iq_file_report_text(file, code, offset, lsn, IQ_SMALL ? "" : text);
}

#endif
