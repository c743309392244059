/* POSIX: files, chance, time, threads and identities.
 *
 * 1. Every file is reached through the descriptor of its directory, so that nobody who renames a directory meanwhile
 *    can lead us elsewhere. Links are never followed in the last place; only regular files are opened.
 * 2. Every descriptor is above 2 (a program that has closed its stderr would print into the database) and is closed
 *    by exec.
 * 3. Interrupted and short calls go on until they are done or fail; only close is never repeated, because the
 *    descriptor may be another thread's by then.
 * 4. NOSPACE comes from writing and making, never from a sync: a sync that failed for whatever reason is IO, because
 *    the kernel may have dropped the pages, and what the file holds is unknown.
 *
 * Codes: ENOENT is NOT_FOUND, EROFS is READONLY, ENOMEM is NOMEM; ENOSPC, EDQUOT and EFBIG (a limit of the file system
 * or of the process, whose SIGXFSZ the program has to ignore) are NOSPACE; whatever else is IO with errno beside it. */
#include "sys/sys.h"
#include "sys/thread.h"

#if !defined(_WIN32) && !defined(IQDB_NO_OS)

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#if !defined(IQDB_NO_MMAP)
#include <sys/mman.h>
#endif
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__) && defined(__has_include)
#if __has_include(<sys/random.h>)
#include <sys/random.h>
#define IQ_POSIX_GETENTROPY 1
#endif
#elif defined(__APPLE__)
#include <sys/random.h>
#define IQ_POSIX_GETENTROPY 1
#elif defined(__FreeBSD__) || defined(__OpenBSD__)
#define IQ_POSIX_GETENTROPY 1
#endif

/* Opens a directory on the way to another one. It need not be readable where the system can tell the two apart. */
#if defined(O_PATH)
#define IQ_POSIX_PASS (O_PATH | O_DIRECTORY)
#elif defined(O_SEARCH)
#define IQ_POSIX_PASS (O_SEARCH | O_DIRECTORY)
#else
#define IQ_POSIX_PASS (O_RDONLY | O_DIRECTORY)
#endif

#define IQ_POSIX_NAME_MAX 255
#define IQ_POSIX_LISTED_SIZE 32          /* with the final zero; longer names cannot be ours */
#define IQ_POSIX_CHUNK ((size_t)1 << 30) /* no system takes less at once; some refuse 2^31 and more */
#define IQ_POSIX_END UINT64_C(0x7FFFFFFFFFFFFFFF)

IQ_STATIC_ASSERT(sizeof(off_t) == 8, off_t_has_64_bits_so_compile_with_FILE_OFFSET_BITS_64);

/* A file or a directory. A lock is the open file's, and a child made by fork shares that: the parent's close has to
 * release it in so many words, because the child's copy would keep it, and the child's close must not. */
typedef struct iq_posix_handle {
    int fd;
    bool locked;
    pid_t opener;
} iq_posix_handle;

static iqdb_result iq_posix_code(int error) {
    switch (error) {
    case ENOENT:
        return IQDB_ERR_NOT_FOUND;
    case ENOMEM:
        return IQDB_ERR_NOMEM;
    case EROFS:
        return IQDB_ERR_READONLY;
    case ENOSPC:
    case EFBIG:
#ifdef EDQUOT
    case EDQUOT:
#endif
        return IQDB_ERR_NOSPACE;
    default:
        return IQDB_ERR_IO;
    }
}

static iqdb_result iq_posix_fail(int *os_code) {
    *os_code = errno;
    return iq_posix_code(errno);
}

/* openat by rules 2 and 3; -1 with errno. */
static int iq_posix_openat(int at, const char *name, int flags) {
    int fd;
    do fd = openat(at, name, flags | O_CLOEXEC | O_NOCTTY, 0600);
    while (fd < 0 && errno == EINTR);
    if (fd < 0 || fd > 2) return fd;
    const int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    const int error = errno;
    close(fd);
    errno = error;
    return moved;
}

/* Takes the descriptor over, also when it fails. */
static iqdb_result iq_posix_wrap(int fd, void **out_handle, int *os_code) {
    const iqdb_allocator allocator = iq_alloc_default();
    iq_posix_handle *handle = (iq_posix_handle *)iq_alloc(&allocator, sizeof *handle, 16);
    if (handle == NULL) {
        close(fd);
        *os_code = ENOMEM;
        return IQDB_ERR_NOMEM;
    }
    handle->fd = fd;
    handle->locked = false;
    handle->opener = getpid();
    *out_handle = handle;
    return IQDB_OK;
}

static void iq_posix_close(void *file, void *user) {
    (void)user;
    iq_posix_handle *handle = (iq_posix_handle *)file;
    if (handle->locked && handle->opener == getpid()) flock(handle->fd, LOCK_UN);
    close(handle->fd);
    const iqdb_allocator allocator = iq_alloc_default();
    iq_free(&allocator, handle, sizeof *handle, 16);
}

static int iq_posix_fd(void *handle) { return ((iq_posix_handle *)handle)->fd; }

/* ---- Sync ---- */

/* *os_code: why it is less than asked for. */
static int iq_posix_flush(int fd, bool directory, int *os_code) {
#if defined(__APPLE__)
    /* fsync stops at the drive's cache there. What cannot flush that cache (a network volume) gets what fsync gives. */
    if (fcntl(fd, F_FULLFSYNC) == 0) return 0;
    if (errno != ENOTSUP && errno != EINVAL && errno != ENOTTY) return -1;
    *os_code = errno;
#elif defined(__linux__)
    /* fdatasync leaves out times and owners only: a changed size goes with the data, being needed to read them. */
    if (!directory) return fdatasync(fd);
#endif
    (void)directory, (void)os_code;
    return fsync(fd);
}

static iqdb_result iq_posix_sync_fd(int fd, bool directory, int *os_code) {
    int status;
    do status = iq_posix_flush(fd, directory, os_code);
    while (status != 0 && errno == EINTR);
    if (status == 0) return IQDB_OK;
    *os_code = errno;
    /* Some file systems (CIFS, some of FUSE) know no sync of a directory; their names are as durable as they get. */
    return directory && (errno == EINVAL || errno == ENOTSUP) ? IQDB_OK : IQDB_ERR_IO;
}

static iqdb_result iq_posix_sync(void *file, int *os_code, void *user) {
    (void)user;
    return iq_posix_sync_fd(iq_posix_fd(file), false, os_code);
}

static iqdb_result iq_posix_dir_sync(void *dir, int *os_code, void *user) {
    (void)user;
    return iq_posix_sync_fd(iq_posix_fd(dir), true, os_code);
}

/* ---- Directories ---- */

/* NULL with errno where it cannot be read. */
static DIR *iq_posix_stream(int at) {
    const int fd = iq_posix_openat(at, ".", O_RDONLY | O_DIRECTORY); /* a position of its own */
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (stream == NULL && fd >= 0) {
        const int error = errno;
        close(fd);
        errno = error;
    }
    return stream;
}

/* NULL at the end, or with errno. */
static const char *iq_posix_next_name(DIR *stream) {
    const struct dirent *entry;
    do {
        errno = 0;
        entry = readdir(stream);
    } while (entry != NULL && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0));
    return entry == NULL ? NULL : entry->d_name;
}

static iqdb_result iq_posix_dir_list(void *dir, void (*each_fn)(const char *name, void *each_user), void *each_user,
                                     int *os_code, void *user) {
    (void)user;
    DIR *stream = iq_posix_stream(iq_posix_fd(dir));
    if (stream == NULL) return iq_posix_fail(os_code);
    const char *name;
    while ((name = iq_posix_next_name(stream)) != NULL) {
        if (strlen(name) < IQ_POSIX_LISTED_SIZE) each_fn(name, each_user);
    }
    const iqdb_result result = errno == 0 ? IQDB_OK : iq_posix_fail(os_code);
    closedir(stream);
    return result;
}

/* Before anything is put into an empty directory, its own entry is made durable: it may be new, from a call of ours
 * that was cut short, or fresh from another program's mkdir. One in use has been through this. Where directories may
 * be passed but not read, nothing can be synced, and the file system's own order has to do. */
static iqdb_result iq_posix_settle(int fd, int *os_code) {
    DIR *stream = iq_posix_stream(fd);
    if (stream == NULL) return errno == EACCES ? IQDB_OK : iq_posix_fail(os_code);
    const bool used = iq_posix_next_name(stream) != NULL;
    iqdb_result result = errno == 0 ? IQDB_OK : iq_posix_fail(os_code);
    closedir(stream);
    if (used || result != IQDB_OK) return result;
    const int parent = iq_posix_openat(fd, "..", O_RDONLY | O_DIRECTORY);
    if (parent < 0) return errno == EACCES ? IQDB_OK : iq_posix_fail(os_code);
    result = iq_posix_sync_fd(parent, true, os_code);
    close(parent);
    return result;
}

/* One step from *at to *path's first component, which is cut off *path. */
static iqdb_result iq_posix_step(int *at, const char **path, bool create, int *os_code) {
    char name[IQ_POSIX_NAME_MAX + 1];
    size_t size = 0;
    for (; **path != '\0' && **path != '/'; ++*path) {
        if (size == IQ_POSIX_NAME_MAX) {
            *os_code = ENAMETOOLONG;
            return IQDB_ERR_INVALID_CONFIG;
        }
        name[size++] = **path;
    }
    name[size] = '\0';
    while (**path == '/') ++*path;
    const int flags = **path == '\0' ? O_RDONLY | O_DIRECTORY | O_NOFOLLOW : IQ_POSIX_PASS;
    int fd = iq_posix_openat(*at, name, flags);
    const bool make = fd < 0 && errno == ENOENT && create;
    if (make) {
        const iqdb_result result = iq_posix_settle(*at, os_code);
        if (result != IQDB_OK) return result;
        if (mkdirat(*at, name, 0700) != 0 && errno != EEXIST) return iq_posix_fail(os_code);
        fd = iq_posix_openat(*at, name, flags);
    }
    if (fd < 0) {
        const iqdb_result result = iq_posix_fail(os_code);
        if (make && result == IQDB_ERR_NOT_FOUND) return IQDB_ERR_IO; /* a link to nowhere, or removed at once */
        /* For a link in the last place systems say ENOTDIR, ELOOP or EMLINK. */
        const bool is_other = *os_code == ENOTDIR || *os_code == ELOOP || *os_code == EMLINK;
        return is_other ? IQDB_ERR_INVALID_CONFIG : result;
    }
    close(*at);
    *at = fd;
    return IQDB_OK;
}

/* Walks the path one component at a time: needs no copy of it, and no link can be slipped in behind a check. A path
 * that ends in a link is not followed; "link/." says that it is meant. */
static iqdb_result iq_posix_dir_open(const char *path, bool create, void **out_dir, int *os_code, void *user) {
    (void)user;
    *os_code = 0;
    if (path[0] == '\0') return IQDB_ERR_INVALID_CONFIG;
    const char *start = path[0] == '/' ? "/" : ".";
    while (*path == '/') path++;
    int at = iq_posix_openat(AT_FDCWD, start, *path == '\0' ? O_RDONLY | O_DIRECTORY : IQ_POSIX_PASS);
    if (at < 0) return iq_posix_fail(os_code);
    iqdb_result result = IQDB_OK;
    while (*path != '\0' && result == IQDB_OK) result = iq_posix_step(&at, &path, create, os_code);
    if (create && result == IQDB_OK) result = iq_posix_settle(at, os_code);
    if (result == IQDB_OK) return iq_posix_wrap(at, out_dir, os_code);
    close(at);
    return result;
}

static iqdb_result iq_posix_remove(void *dir, const char *name, int *os_code, void *user) {
    (void)user;
    return unlinkat(iq_posix_fd(dir), name, 0) == 0 ? IQDB_OK : iq_posix_fail(os_code);
}

/* ---- Files ---- */

/* A regular file, and no longer O_NONBLOCK, which was there so that a FIFO could not hang the open. */
static iqdb_result iq_posix_admit(int fd, int *os_code) {
    struct stat facts;
    if (fstat(fd, &facts) != 0) return iq_posix_fail(os_code);
    if (!S_ISREG(facts.st_mode)) {
        *os_code = S_ISDIR(facts.st_mode) ? EISDIR : ENOTSUP;
        return IQDB_ERR_IO;
    }
    const int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0 ? IQDB_OK : iq_posix_fail(os_code);
}

static iqdb_result iq_posix_open(void *dir, const char *name, iqdb_open_kind kind, void **out_file, int *os_code,
                                 void *user) {
    (void)user;
    const int access = kind == IQDB_OPEN_READ ? O_RDONLY : O_RDWR;
    const int create = kind == IQDB_OPEN_CREATE ? O_CREAT | O_EXCL : 0;
    const int fd = iq_posix_openat(iq_posix_fd(dir), name, access | create | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        const iqdb_result result = iq_posix_fail(os_code);
        return kind == IQDB_OPEN_CREATE && *os_code == EEXIST ? IQDB_ERR_INVALID_CONFIG : result;
    }
    iqdb_result result = iq_posix_admit(fd, os_code);
    if (result != IQDB_OK) close(fd);
    if (result == IQDB_OK) result = iq_posix_wrap(fd, out_file, os_code);
    if (result != IQDB_OK && create != 0) unlinkat(iq_posix_fd(dir), name, 0);
    return result;
}

static iqdb_result iq_posix_size(void *file, uint64_t *out_size, int *os_code, void *user) {
    (void)user;
    struct stat facts;
    if (fstat(iq_posix_fd(file), &facts) != 0) return iq_posix_fail(os_code);
    *out_size = (uint64_t)facts.st_size;
    return IQDB_OK;
}

static iqdb_result iq_posix_read(void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size, int *os_code,
                                 void *user) {
    (void)user;
    uint8_t *target = (uint8_t *)bytes;
    size_t done = 0;
    *out_size = 0;
    if (offset >= IQ_POSIX_END) return IQDB_OK;
    if (size > IQ_POSIX_END - offset) size = (size_t)(IQ_POSIX_END - offset);
    while (done < size) {
        const size_t part = size - done < IQ_POSIX_CHUNK ? size - done : IQ_POSIX_CHUNK;
        const ssize_t got = pread(iq_posix_fd(file), target + done, part, (off_t)(offset + done));
        if (got == 0) break;
        if (got > 0)
            done += (size_t)got;
        else if (errno != EINTR)
            return iq_posix_fail(os_code);
    }
    *out_size = done;
    return IQDB_OK;
}

static iqdb_result iq_posix_write(void *file, uint64_t offset, const void *bytes, size_t size, int *os_code,
                                  void *user) {
    (void)user;
    const uint8_t *source = (const uint8_t *)bytes;
    size_t done = 0;
    if (offset > IQ_POSIX_END || size > IQ_POSIX_END - offset) {
        *os_code = EFBIG;
        return IQDB_ERR_NOSPACE;
    }
    while (done < size) {
        const size_t part = size - done < IQ_POSIX_CHUNK ? size - done : IQ_POSIX_CHUNK;
        const ssize_t put = pwrite(iq_posix_fd(file), source + done, part, (off_t)(offset + done));
        if (put > 0) {
            done += (size_t)put;
        } else if (put == 0) { /* no progress and no reason given: no use in asking for ever */
            *os_code = EIO;
            return IQDB_ERR_IO;
        } else if (errno != EINTR) {
            return iq_posix_fail(os_code);
        }
    }
    return IQDB_OK;
}

static iqdb_result iq_posix_lock(void *file, bool exclusive, int *os_code, void *user) {
    (void)user;
    iq_posix_handle *handle = (iq_posix_handle *)file;
    int status;
    do status = flock(handle->fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB);
    while (status != 0 && errno == EINTR);
    if (status == 0) {
        handle->locked = true;
        return IQDB_OK;
    }
    *os_code = errno;
    return errno == EWOULDBLOCK ? IQDB_ERR_LOCKED : IQDB_ERR_IO;
}

/* Of Linux, whose headers show both or neither; elsewhere, and where the file system cannot, zeros are written, and
 * writing back begins with the sync. */
static iqdb_result iq_posix_reserve(void *file, uint64_t offset, uint64_t size, int *os_code, void *user) {
    (void)user;
#if defined(SYNC_FILE_RANGE_WRITE)
    int status;
    do status = fallocate(iq_posix_fd(file), 0, (off_t)offset, (off_t)size);
    while (status != 0 && errno == EINTR);
    if (status == 0) return IQDB_OK;
    if (iq_posix_fail(os_code) == IQDB_ERR_NOSPACE) return IQDB_ERR_NOSPACE;
#else
    (void)file, (void)offset, (void)size, (void)os_code;
#endif
    return IQDB_ERR_NOT_IMPLEMENTED;
}

static void iq_posix_start(void *file, uint64_t offset, uint64_t size, void *user) {
    (void)user;
#if defined(SYNC_FILE_RANGE_WRITE)
    (void)sync_file_range(iq_posix_fd(file), (off_t)offset, (off_t)size, SYNC_FILE_RANGE_WRITE);
#else
    (void)file, (void)offset, (void)size;
#endif
}

#if !defined(IQDB_NO_MMAP)
static iqdb_result iq_posix_map(void *file, uint64_t size, const void **out_bytes, int *os_code, void *user) {
    (void)user;
    if (size == 0 || size > (size_t)-1 / 2) return IQDB_ERR_NOT_IMPLEMENTED;
    void *bytes = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, iq_posix_fd(file), 0);
    if (bytes == MAP_FAILED) {
        *os_code = errno;
        return IQDB_ERR_NOT_IMPLEMENTED;
    }
    *out_bytes = bytes;
    return IQDB_OK;
}

static void iq_posix_unmap(const void *bytes, uint64_t size, void *user) {
    (void)user;
    (void)munmap((void *)(uintptr_t)bytes, (size_t)size);
}
#define IQ_POSIX_MAP iq_posix_map
#define IQ_POSIX_UNMAP iq_posix_unmap
#else
#define IQ_POSIX_MAP NULL
#define IQ_POSIX_UNMAP NULL
#endif

IQDB_API iqdb_files iqdb_files_default(void) {
    const iqdb_files files = {iq_posix_dir_open,
                              iq_posix_close,
                              iq_posix_dir_sync,
                              iq_posix_dir_list,
                              iq_posix_remove,
                              iq_posix_open,
                              iq_posix_close,
                              iq_posix_size,
                              iq_posix_read,
                              iq_posix_write,
                              iq_posix_sync,
                              iq_posix_lock,
                              NULL,
                              iq_posix_reserve,
                              iq_posix_start,
                              IQ_POSIX_MAP,
                              IQ_POSIX_UNMAP};
    return files;
}

/* ---- Chance ---- */

static bool iq_posix_urandom(uint8_t *bytes, size_t size) {
    const int fd = iq_posix_openat(AT_FDCWD, "/dev/urandom", O_RDONLY);
    if (fd < 0) return false;
    size_t done = 0;
    while (done < size) {
        const ssize_t got = read(fd, bytes + done, size - done < 4096 ? size - done : 4096);
        if (got > 0)
            done += (size_t)got;
        else if (got == 0 || errno != EINTR)
            break;
    }
    close(fd);
    return done == size;
}

IQ_FN bool iq_sys_entropy(void *bytes, size_t size, void *user) {
    (void)user;
    uint8_t *target = (uint8_t *)bytes;
    size_t done = 0;
#if defined(IQ_POSIX_GETENTROPY)
    while (done < size) {
        const size_t part = size - done < 256 ? size - done : 256;
        if (getentropy(target + done, part) != 0) break; /* an old kernel, or a sandbox that forbids it */
        done += part;
    }
#endif
    return done == size || iq_posix_urandom(target + done, size - done);
}

/* ---- Time ---- */

IQ_FN uint64_t iq_sys_clock(void *user) {
    struct timespec now = {0, 0}; /* what it stays without such a clock */
    (void)user;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

IQ_FN uint64_t iq_process_identity(void) { return (uint64_t)getpid(); }

#endif /* !_WIN32 && !IQDB_NO_OS */

/* ---- Threads ---- */

#if !defined(_WIN32) && !defined(IQDB_NO_THREADS)

/* The errors that these calls know are misuse of a default mutex, which is ours to exclude. */
IQ_FN bool iq_mutex_init(iq_mutex *mutex) {
    if (pthread_mutex_init(&mutex->native, NULL) != 0) return false;
    if (pthread_cond_init(&mutex->changed, NULL) == 0) return true;
    pthread_mutex_destroy(&mutex->native);
    return false;
}
IQ_FN void iq_mutex_destroy(iq_mutex *mutex) {
    pthread_cond_destroy(&mutex->changed);
    pthread_mutex_destroy(&mutex->native);
}
IQ_FN void iq_mutex_lock(iq_mutex *mutex) { pthread_mutex_lock(&mutex->native); }
IQ_FN void iq_mutex_unlock(iq_mutex *mutex) { pthread_mutex_unlock(&mutex->native); }
IQ_FN void iq_mutex_wait(iq_mutex *mutex) { pthread_cond_wait(&mutex->changed, &mutex->native); }
IQ_FN void iq_mutex_wake(iq_mutex *mutex) { pthread_cond_broadcast(&mutex->changed); }
IQ_FN void iq_thread_yield(void) { sched_yield(); }

IQ_STATIC_ASSERT(sizeof(pthread_t) <= sizeof(uintptr_t), a_thread_fits_into_a_word);

/* A number on some systems, a pointer on others; on all of them it fits and tells live threads apart. */
IQ_FN uintptr_t iq_thread_identity(void) {
    const pthread_t self = pthread_self();
    uintptr_t identity = 0;
    memcpy(&identity, &self, sizeof self);
    return identity != 0 ? identity : UINTPTR_MAX;
}

#endif
