/* io_uring.h: a file layer for options.files over Linux's io_uring, by liburing (-luring).
 *
 * What makes a file longer, as snapshots are written, is only queued, with its space reserved at once, so that a full disk
 * is noticed where it can be told; the queue goes to the kernel in one call when it is full, or together with the sync that
 * follows. What overwrites, as the log does in its preallocated end, is in the file when the call returns, because others
 * may read it then. All that does not write is left to the system's own layer, uring_system(). */
#ifndef URING_H
#define URING_H

#include "iqdb.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if !defined(uring_system)
#define uring_system iqdb_files_default
#endif

enum {
    URING_SLOTS = 16,
    URING_SLOT_BYTES = 1 << 16
};

struct uring_file;

typedef struct uring_slot {
    struct uring_file *file;
    const char *bytes;
    size_t size;
    uint64_t offset;
} uring_slot;

/* A directory has a ring of its own: calls on one handle come one at a time. */
typedef struct uring_dir {
    void *inner;
    int fd;
    pid_t owner; /* a forked child has the ring's memory, but may not use it */
    struct io_uring ring;
    uring_slot slots[URING_SLOTS];
    unsigned queued;
    char *copies; /* of what is queued, URING_SLOT_BYTES for each slot */
} uring_dir;

typedef struct uring_file {
    uring_dir *dir;
    void *inner;
    int fd; /* the same file once more, or -1 where it is only read */
    uint64_t end;
    int failed; /* errno of a queued write: its sync will say so */
} uring_file;

static iqdb_result uring_code(int error, int *os_code) {
    *os_code = error;
    return error == ENOSPC || error == EDQUOT || error == EFBIG ? IQDB_ERR_NOSPACE
           : error == EROFS                                     ? IQDB_ERR_READONLY
           : error == ENOMEM                                    ? IQDB_ERR_NOMEM
                                                                : IQDB_ERR_IO;
}

static int uring_above_two(int fd) { /* a program may have closed its standard streams */
    if (fd < 0 || fd > 2) return fd;
    const int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    close(fd);
    return moved;
}

/* What the kernel left of a write, and why; 0 when all of it is in the file. */
static int uring_rest(const uring_slot *slot, int done) {
    size_t at = done > 0 ? (size_t)done : 0;
    if (done < 0 && done != -EINTR && done != -EAGAIN) return -done;
    while (at < slot->size) {
        const ssize_t more = pwrite(slot->file->fd, slot->bytes + at, slot->size - at, (off_t)(slot->offset + at));
        if (more < 0 && errno != EINTR) return errno;
        if (more > 0) at += (size_t)more;
    }
    return 0;
}

/* Gives the queue to the kernel in one call, with a sync of `synced` behind it unless that is NULL, and waits for all.
 * Errors of writes are kept by their files. 0, or what became of the sync. */
static int uring_submit(uring_dir *dir, uring_file *synced) {
    const unsigned count = dir->queued + (synced != NULL);
    bool again = false;
    int outcome = 0;
    dir->queued = 0;
    if (count == 0) return 0;
    for (unsigned i = 0; i < count; i++) {
        struct io_uring_sqe *entry = io_uring_get_sqe(&dir->ring); /* there are more of them than slots */
        const uring_slot *slot = &dir->slots[i];
        if (i + 1 == count && synced != NULL) {
            io_uring_prep_fsync(entry, synced->fd, IORING_FSYNC_DATASYNC);
            entry->flags |= IOSQE_IO_DRAIN; /* not before the writes are done */
        } else {
            io_uring_prep_write(entry, slot->file->fd, slot->bytes, (unsigned)slot->size, slot->offset);
        }
        entry->user_data = i;
    }
    unsigned given = 0;
    while (given < count) {
        const int more = io_uring_submit(&dir->ring);
        if (more > 0) given += (unsigned)more;
        if (more < 0 && more != -EINTR && more != -EAGAIN && more != -EBUSY) abort(); /* the ring itself is broken */
    }
    for (unsigned seen = 0; seen < count;) {
        struct io_uring_cqe *done;
        if (io_uring_wait_cqe(&dir->ring, &done) != 0) continue; /* a signal */
        const size_t i = (size_t)done->user_data;
        const int result = done->res;
        io_uring_cqe_seen(&dir->ring, done);
        seen++;
        if (i + 1 == count && synced != NULL) {
            outcome = result < 0 ? -result : 0;
        } else {
            const int error = uring_rest(&dir->slots[i], result);
            if (error != 0) dir->slots[i].file->failed = error;
            again = again || (error == 0 && (result < 0 || (size_t)result < dir->slots[i].size));
        }
    }
    if (again && synced != NULL && outcome == 0 && fdatasync(synced->fd) != 0) outcome = errno;
    return outcome;
}

static void uring_queue(uring_file *file, uint64_t offset, const char *bytes, size_t size) {
    uring_slot *slot = &file->dir->slots[file->dir->queued++];
    slot->file = file;
    slot->bytes = bytes;
    slot->size = size;
    slot->offset = offset;
}

static bool uring_is_ours(const uring_file *file) { return file->fd >= 0 && file->dir->owner == getpid(); }

static iqdb_result uring_write(void *handle, uint64_t offset, const void *bytes, size_t size, int *os_code,
                               void *user) {
    uring_file *file = (uring_file *)handle;
    uring_dir *dir = file->dir;
    const char *from = (const char *)bytes;
    (void)user;
    if (!uring_is_ours(file)) {
        const iqdb_files inner = uring_system();
        return inner.write_fn(file->inner, offset, bytes, size, os_code, inner.user);
    }
    bool later = size > 0 && offset >= file->end;
    if (later && fallocate(file->fd, 0, (off_t)offset, (off_t)size) != 0) {
        if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) return uring_code(errno, os_code);
        later = false; /* this file system cannot reserve */
    }
    if (!later) uring_submit(dir, NULL); /* what is queued may be what this overwrites */
    while (size > 0) {
        const size_t part = size < URING_SLOT_BYTES ? size : (size_t)URING_SLOT_BYTES;
        if (dir->queued == URING_SLOTS) uring_submit(dir, NULL);
        char *copy = dir->copies + (size_t)dir->queued * URING_SLOT_BYTES;
        if (later) memcpy(copy, from, part);
        uring_queue(file, offset, later ? copy : from, part);
        offset += part;
        from += part;
        size -= part;
        if (offset > file->end) file->end = offset;
    }
    if (later) return IQDB_OK;
    uring_submit(dir, NULL);
    const int error = file->failed;
    file->failed = 0; /* told */
    return error == 0 ? IQDB_OK : uring_code(error, os_code);
}

static iqdb_result uring_sync(void *handle, int *os_code, void *user) {
    uring_file *file = (uring_file *)handle;
    (void)user;
    if (!uring_is_ours(file)) {
        const iqdb_files inner = uring_system();
        return inner.sync_fn(file->inner, os_code, inner.user);
    }
    int error = uring_submit(file->dir, file);
    if (error == 0) error = file->failed;
    file->failed = 0;
    return error == 0 ? IQDB_OK : uring_code(error, os_code);
}

static iqdb_result uring_read(void *handle, uint64_t offset, void *bytes, size_t size, size_t *out_size, int *os_code,
                              void *user) {
    uring_file *file = (uring_file *)handle;
    const iqdb_files inner = uring_system();
    (void)user;
    if (file->dir->owner == getpid()) uring_submit(file->dir, NULL);
    return inner.read_fn(file->inner, offset, bytes, size, out_size, os_code, inner.user);
}

static iqdb_result uring_size(void *handle, uint64_t *out_size, int *os_code, void *user) {
    const iqdb_files inner = uring_system();
    (void)user;
    return inner.size_fn(((uring_file *)handle)->inner, out_size, os_code, inner.user);
}

static iqdb_result uring_lock(void *handle, bool exclusive, int *os_code, void *user) {
    const iqdb_files inner = uring_system();
    (void)user;
    return inner.lock_fn(((uring_file *)handle)->inner, exclusive, os_code, inner.user);
}

static void uring_close(void *handle, void *user) {
    uring_file *file = (uring_file *)handle;
    const iqdb_files inner = uring_system();
    (void)user;
    if (file->dir->owner == getpid()) uring_submit(file->dir, NULL);
    if (file->fd >= 0) close(file->fd);
    inner.close_fn(file->inner, inner.user);
    free(file);
}

static iqdb_result uring_open(void *dir, const char *name, iqdb_open_kind kind, void **out_file, int *os_code,
                              void *user) {
    uring_dir *at = (uring_dir *)dir;
    const iqdb_files inner = uring_system();
    struct stat facts;
    void *opened = NULL;
    (void)user;
    iqdb_result result = inner.open_fn(at->inner, name, kind, &opened, os_code, inner.user);
    if (result != IQDB_OK) return result;
    uring_file *file = (uring_file *)calloc(1, sizeof *file);
    if (file == NULL) {
        inner.close_fn(opened, inner.user);
        return uring_code(ENOMEM, os_code);
    }
    file->dir = at;
    file->inner = opened;
    file->fd = -1;
    *out_file = file;
    if (kind == IQDB_OPEN_READ) return IQDB_OK;
    file->fd = uring_above_two(openat(at->fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW));
    if (file->fd >= 0 && fstat(file->fd, &facts) == 0) {
        file->end = (uint64_t)facts.st_size;
        return IQDB_OK;
    }
    result = uring_code(errno, os_code);
    uring_close(file, NULL);
    return result;
}

static void uring_dir_close(void *dir, void *user) {
    uring_dir *at = (uring_dir *)dir;
    const iqdb_files inner = uring_system();
    (void)user;
    io_uring_queue_exit(&at->ring);
    close(at->fd);
    inner.dir_close_fn(at->inner, inner.user);
    free(at->copies);
    free(at);
}

static iqdb_result uring_dir_open(const char *path, bool create, void **out_dir, int *os_code, void *user) {
    const iqdb_files inner = uring_system();
    void *opened = NULL;
    (void)user;
    const iqdb_result result = inner.dir_open_fn(path, create, &opened, os_code, inner.user);
    if (result != IQDB_OK) return result;
    uring_dir *dir = (uring_dir *)calloc(1, sizeof *dir);
    char *copies = (char *)malloc((size_t)URING_SLOTS * URING_SLOT_BYTES);
    int error = dir == NULL || copies == NULL ? ENOMEM : 0;
    if (error == 0) error = -io_uring_queue_init(2 * URING_SLOTS, &dir->ring, 0);
    if (error == 0) {
        dir->inner = opened;
        dir->copies = copies;
        dir->owner = getpid();
        dir->fd = uring_above_two(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        *out_dir = dir;
        if (dir->fd >= 0) return IQDB_OK;
        error = errno;
        io_uring_queue_exit(&dir->ring);
    }
    inner.dir_close_fn(opened, inner.user);
    free(dir);
    free(copies);
    return uring_code(error, os_code);
}

static iqdb_result uring_dir_sync(void *dir, int *os_code, void *user) {
    const iqdb_files inner = uring_system();
    (void)user;
    return inner.dir_sync_fn(((uring_dir *)dir)->inner, os_code, inner.user);
}

static iqdb_result uring_dir_list(void *dir, void (*each_fn)(const char *name, void *each_user), void *each_user,
                                  int *os_code, void *user) {
    const iqdb_files inner = uring_system();
    (void)user;
    return inner.dir_list_fn(((uring_dir *)dir)->inner, each_fn, each_user, os_code, inner.user);
}

static iqdb_result uring_remove(void *dir, const char *name, int *os_code, void *user) {
    const iqdb_files inner = uring_system();
    (void)user;
    return inner.remove_fn(((uring_dir *)dir)->inner, name, os_code, inner.user);
}

static iqdb_files uring_files(void) {
    iqdb_files files;
    memset(&files, 0, sizeof files);
    files.dir_open_fn = uring_dir_open;
    files.dir_close_fn = uring_dir_close;
    files.dir_sync_fn = uring_dir_sync;
    files.dir_list_fn = uring_dir_list;
    files.remove_fn = uring_remove;
    files.open_fn = uring_open;
    files.close_fn = uring_close;
    files.size_fn = uring_size;
    files.read_fn = uring_read;
    files.write_fn = uring_write;
    files.sync_fn = uring_sync;
    files.lock_fn = uring_lock;
    return files;
}

/* 0, or why there is no io_uring here: sandboxes and administrators may have switched it off. */
static int uring_missing(void) {
    struct io_uring ring;
    const int error = io_uring_queue_init(2, &ring, 0);
    if (error == 0) io_uring_queue_exit(&ring);
    return -error;
}

#endif
