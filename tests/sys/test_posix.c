/* What only the system's own files can do wrong: links, pipes and devices, permissions, descriptors, forks, and calls
 * of the C library that are interrupted, fall short or fail. For the last, this program brings its own versions of
 * some calls, which come before the library's; without glibc those tests are skipped. */
#include "api.h"
#include "support.h"
#include "test.h"

#include "sys/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static iqdb_files files;
static char root[SUPPORT_PATH_MAX];
static void *dir;
static void *locked; /* or NULL */
static int os;

/* Every test stands in a fresh directory of its own, with `root` open as `dir`. */
static void in_directory(void (*body)(void)) {
    files = iqdb_files_default();
    support_directory(root);
    if (EXPECT(files.dir_open_fn(root, false, &dir, &os, NULL) == IQDB_OK)) {
        body();
        files.dir_close_fn(dir, NULL);
    }
    support_remove(root);
}
#define IN_DIRECTORY(body) \
    static void body(void) { in_directory(body##_in); }

#define CHILD_SKIPS 77

/* Runs body in a child; its checks count. Returns what it exits with, -1 where it was killed. */
static int in_child(void (*body)(void)) {
    int status = 0;
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        test_now.failures = 0;
        alarm(60);
        body();
        fflush(stdout);
        if (locked != NULL) files.close_fn(locked, NULL); /* for those who look for leaks in children too */
        files.dir_close_fn(dir, NULL);
        _exit(test_now.failures > 0 ? 1 : test_now.skipped != NULL ? CHILD_SKIPS : 0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
}

static char *below(const char *name) {
    static char paths[4][SUPPORT_PATH_MAX];
    static int turn;
    turn = (turn + 1) % 4;
    support_join(paths[turn], root, name);
    return paths[turn];
}

static iqdb_result open_file(const char *name, iqdb_open_kind kind, void **out_file) {
    os = 0;
    return files.open_fn(dir, name, kind, out_file, &os, NULL);
}

static iqdb_result try_file(const char *name, iqdb_open_kind kind) {
    void *file;
    const iqdb_result result = open_file(name, kind, &file);
    if (result == IQDB_OK) files.close_fn(file, NULL);
    return result;
}

static iqdb_result try_path(const char *path, bool create) {
    void *opened;
    os = 0;
    const iqdb_result result = files.dir_open_fn(path, create, &opened, &os, NULL);
    if (result == IQDB_OK) files.dir_close_fn(opened, NULL);
    return result;
}

static bool is_open(int fd) { return fcntl(fd, F_GETFD) != -1; }

static int count_descriptors(void) {
    int count = 0;
    for (int fd = 0; fd < 256; fd++) count += is_open(fd);
    return count;
}

static bool exists(const char *name) {
    struct stat facts;
    return lstat(below(name), &facts) == 0;
}

static unsigned mode_of(const char *name) {
    struct stat facts;
    return lstat(below(name), &facts) == 0 ? (unsigned)facts.st_mode & 07777u : 0xFFFFu;
}

/* ---- Our own versions of library calls ---- */

#if defined(__GLIBC__) && defined(__linux__)
#define INTERPOSES 1

typedef struct interposed {
    bool active;
    int interruptions; /* this many calls of any kind are EINTR first */
    size_t at_most;    /* bytes one read or write gets; 0: all */
    int stuck;         /* writes return 0 */
    int sync_errno;    /* of fsync and fdatasync */
    int lock_errno;
    int random_errno;
    int close_errno;
    int reads, writes, opens, closes, syncs, data_syncs, locks;
    char synced[64][SUPPORT_PATH_MAX]; /* what fsync was called for, in order */
} interposed;

static interposed lib;

static int interrupted(void) {
    if (!lib.active || lib.interruptions == 0) return 0;
    lib.interruptions--;
    errno = EINTR;
    return 1;
}

ssize_t pread64(int fd, void *bytes, size_t size, off64_t offset) {
    lib.reads++;
    if (interrupted()) return -1;
    if (lib.active && lib.at_most > 0 && size > lib.at_most) size = lib.at_most;
    return syscall(SYS_pread64, fd, bytes, size, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset) {
    lib.writes++;
    if (interrupted()) return -1;
    if (lib.active && lib.stuck) return 0;
    if (lib.active && lib.at_most > 0 && size > lib.at_most) size = lib.at_most;
    return syscall(SYS_pwrite64, fd, bytes, size, offset);
}

int openat64(int at, const char *name, int flags, ...) {
    va_list list;
    va_start(list, flags);
    const unsigned mode = (flags & O_CREAT) != 0 ? va_arg(list, unsigned) : 0;
    va_end(list);
    lib.opens++;
    if (interrupted()) return -1;
    return (int)syscall(SYS_openat, at, name, flags, mode);
}

static int sync_by(long number, int fd) {
    if (interrupted()) return -1;
    if (lib.active && lib.sync_errno != 0) {
        errno = lib.sync_errno;
        return -1;
    }
    return (int)syscall(number, fd);
}

int fsync(int fd) {
    char link[64];
    if (lib.active && lib.syncs < 64) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        const ssize_t size = readlink(link, lib.synced[lib.syncs], SUPPORT_PATH_MAX - 1);
        lib.synced[lib.syncs][size > 0 ? size : 0] = 0;
    }
    lib.syncs++;
    return sync_by(SYS_fsync, fd);
}

int fdatasync(int fd) {
    lib.data_syncs++;
    return sync_by(SYS_fdatasync, fd);
}

int flock(int fd, int operation) {
    lib.locks++;
    if (interrupted()) return -1;
    if (lib.active && lib.lock_errno != 0) {
        errno = lib.lock_errno;
        return -1;
    }
    return (int)syscall(SYS_flock, fd, operation);
}

int close(int fd) {
    const int result = (int)syscall(SYS_close, fd);
    if (!lib.active) return result;
    lib.closes++;
    if (lib.close_errno == 0) return result;
    errno = lib.close_errno;
    return -1;
}

int getentropy(void *bytes, size_t size) {
    if (lib.active && lib.random_errno != 0) {
        errno = lib.random_errno;
        return -1;
    }
    return syscall(SYS_getrandom, bytes, size, 0) == (long)size ? 0 : -1;
}

static void interpose(void) {
    memset(&lib, 0, sizeof lib);
    lib.active = true;
}

/* Whether our versions are the ones that the modules call. */
static bool interposing(void) {
    iqdb_result result;
    void *file;
    interpose();
    result = open_file("probe", IQDB_OPEN_READ, &file);
    const bool seen = lib.opens > 0 && result == IQDB_ERR_NOT_FOUND;
    interpose();
    return seen;
}
#define NEEDS_INTERPOSITION() \
    do { \
        if (!interposing()) TEST_SKIP("calls of the C library cannot be replaced here"); \
    } while (0)

static void loops_in(void) {
    static char text[1000], seen[1000];
    void *file;
    size_t size;
    NEEDS_INTERPOSITION();
    for (int i = 0; i < 1000; i++) text[i] = (char)('a' + i % 26);
    lib.interruptions = 3;
    CHECK_EQ_INT(open_file("f", IQDB_OPEN_CREATE, &file), IQDB_OK);
    CHECK_EQ_INT(lib.opens, 4);
    lib.at_most = 300;
    lib.interruptions = 2;
    CHECK_EQ_INT(files.write_fn(file, 0, text, 1000, &os, NULL), IQDB_OK);
    CHECK_EQ_INT(lib.writes, 6);
    lib.interruptions = 2;
    CHECK_EQ_INT(files.read_fn(file, 0, seen, 1000, &size, &os, NULL), IQDB_OK);
    CHECK_EQ_U64(size, 1000);
    CHECK_MEM(seen, text, 1000);
    CHECK_EQ_INT(lib.reads, 6);
    CHECK_EQ_INT(files.read_fn(file, 450, seen, 1000, &size, &os, NULL), IQDB_OK); /* falls short at the end only */
    CHECK_EQ_U64(size, 550);
    CHECK_MEM(seen, text + 450, 550);
    lib.interruptions = 2;
    CHECK_EQ_INT(files.sync_fn(file, &os, NULL), IQDB_OK);
    CHECK_EQ_INT(lib.data_syncs, 3);
    lib.interruptions = 2;
    CHECK_EQ_INT(files.lock_fn(file, true, &os, NULL), IQDB_OK);
    CHECK_EQ_INT(lib.locks, 3);
    lib.closes = 0;
    lib.close_errno = EINTR;
    files.close_fn(file, NULL);
    CHECK_EQ_INT(lib.closes, 1); /* never again: the number may be another file's */
}

static void failures_in(void) {
    void *file;
    NEEDS_INTERPOSITION();
    CHECK_EQ_INT(open_file("f", IQDB_OPEN_CREATE, &file), IQDB_OK);
    lib.stuck = 1;
    CHECK_EQ_INT(files.write_fn(file, 0, "text", 4, &os, NULL), IQDB_ERR_IO);
    CHECK(os != 0);
    lib.stuck = 0;
    /* A failed sync is IO, even where the disk is full: the pages may be gone. */
    static const int reasons[] = {EIO, ENOSPC, EDQUOT, EROFS, ENOMEM, EINVAL};
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        lib.sync_errno = reasons[i];
        lib.data_syncs = lib.syncs = 0;
        CHECK_EQ_INT(files.sync_fn(file, &os, NULL), IQDB_ERR_IO);
        CHECK_EQ_INT(os, reasons[i]);
        CHECK_EQ_INT(lib.data_syncs + lib.syncs, 1); /* never again: the second would say that all is well */
        /* File systems that cannot sync a directory say EINVAL. */
        CHECK_EQ_INT(files.dir_sync_fn(dir, &os, NULL), reasons[i] == EINVAL ? IQDB_OK : IQDB_ERR_IO);
    }
    lib.sync_errno = EIO;
    const int before = count_descriptors();
    CHECK_EQ_INT(try_path(below("new"), true), IQDB_ERR_IO);
    CHECK_EQ_INT(os, EIO);
    CHECK_EQ_INT(try_path(below("new/below"), true), IQDB_ERR_IO); /* not on top of what may vanish */
    CHECK(!exists("new/below"));
    CHECK_EQ_INT(count_descriptors(), before);
    lib.sync_errno = 0;
    static const int refusals[] = {ENOLCK, EOPNOTSUPP, EINVAL};
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        lib.lock_errno = refusals[i];
        CHECK_EQ_INT(files.lock_fn(file, true, &os, NULL), IQDB_ERR_IO);
        CHECK_EQ_INT(os, refusals[i]);
    }
    lib.lock_errno = EWOULDBLOCK;
    CHECK_EQ_INT(files.lock_fn(file, true, &os, NULL), IQDB_ERR_LOCKED);
    lib.locks = 0;
    files.close_fn(file, NULL);
    CHECK_EQ_INT(lib.locks, 0); /* it has none */
}

/* Each directory is named durably before the next is made in it, and so is one that a cut may have left. */
static void syncs_parents_in(void) {
    NEEDS_INTERPOSITION();
    CHECK_EQ_INT(mkdir(below("used"), 0700), 0);
    CHECK_EQ_INT(try_path(below("a/b/c"), true), IQDB_OK);
    CHECK_EQ_INT(lib.syncs, 3);
    CHECK_EQ_STR(lib.synced[0], root);
    CHECK_EQ_STR(lib.synced[1], below("a"));
    CHECK_EQ_STR(lib.synced[2], below("a/b"));
    interpose();
    CHECK_EQ_INT(try_path(below("a/b/c"), true), IQDB_OK); /* empty: as if the sync had not come about */
    CHECK_EQ_INT(lib.syncs, 1);
    CHECK_EQ_STR(lib.synced[0], below("a/b"));
    interpose();
    CHECK_EQ_INT(try_path(below("a/b/c"), false), IQDB_OK);
    CHECK_EQ_INT(try_path(below("a"), true), IQDB_OK); /* in use: has been through it */
    CHECK_EQ_INT(lib.syncs, 0);
    CHECK_EQ_INT(mkdir(below("x"), 0700), 0);
    CHECK_EQ_INT(try_path(below("x/y"), true), IQDB_OK); /* the cut came between x and its sync */
    CHECK_EQ_INT(lib.syncs, 2);
    CHECK_EQ_STR(lib.synced[0], root);
    CHECK_EQ_STR(lib.synced[1], below("x"));
    interpose();
    CHECK_EQ_INT(try_path(below("x/z"), true), IQDB_OK);
    CHECK_EQ_INT(lib.syncs, 1);
    CHECK_EQ_STR(lib.synced[0], below("x"));
}

static void syncs_contents_in(void) {
    void *file;
    NEEDS_INTERPOSITION();
    CHECK_EQ_INT(open_file("f", IQDB_OPEN_CREATE, &file), IQDB_OK);
    CHECK_EQ_INT(files.sync_fn(file, &os, NULL), IQDB_OK);
    CHECK_EQ_INT(lib.data_syncs, 1);
    CHECK_EQ_INT(lib.syncs, 0);
    CHECK_EQ_INT(files.dir_sync_fn(dir, &os, NULL), IQDB_OK);
    CHECK_EQ_INT(lib.data_syncs, 1);
    CHECK_EQ_INT(lib.syncs, 1);
    CHECK_EQ_STR(lib.synced[0], root);
    files.close_fn(file, NULL);
}

static void chance_without_getentropy_in(void) {
    uint8_t a[5000], b[5000];
    NEEDS_INTERPOSITION();
    static const int reasons[] = {ENOSYS, EPERM};
    const int before = count_descriptors();
    for (size_t i = 0; i < 2; i++) {
        memset(a, 0, sizeof a);
        memset(b, 0, sizeof b);
        lib.random_errno = reasons[i];
        CHECK(iq_sys_entropy(a, sizeof a, NULL));
        CHECK(iq_sys_entropy(b, sizeof b, NULL));
        size_t zeros = 0;
        for (size_t j = 0; j < sizeof a; j++) zeros += a[j] == 0;
        CHECK(zeros < 100); /* 20 are expected */
        CHECK(memcmp(a, b, sizeof a) != 0);
        CHECK(memcmp(a + 4096, a, 900) != 0);
    }
    CHECK_EQ_INT(count_descriptors(), before);
    lib.random_errno = 0;
    lib.opens = 0;
    CHECK(iq_sys_entropy(a, 16, NULL));
    CHECK_EQ_INT(lib.opens, 0);
}
#else
#define NO_INTERPOSITION(name) \
    static void name(void) { TEST_SKIP("calls of the C library cannot be replaced here"); }
NO_INTERPOSITION(loops_in)
NO_INTERPOSITION(failures_in)
NO_INTERPOSITION(syncs_parents_in)
NO_INTERPOSITION(syncs_contents_in)
NO_INTERPOSITION(chance_without_getentropy_in)
#endif
IN_DIRECTORY(loops)
IN_DIRECTORY(failures)
IN_DIRECTORY(syncs_parents)
IN_DIRECTORY(syncs_contents)
IN_DIRECTORY(chance_without_getentropy)

/* ---- Links and special files ---- */

static void refuses_links_in(void) {
    CHECK_EQ_INT(symlink("target", below("link")), 0);
    CHECK_EQ_INT(try_file("link", IQDB_OPEN_READ), IQDB_ERR_IO);
    CHECK(os != 0);
    CHECK_EQ_INT(try_file("link", IQDB_OPEN_CREATE), IQDB_ERR_INVALID_CONFIG); /* and nothing behind it is made */
    CHECK(!exists("target"));
    CHECK_EQ_INT(try_file("target", IQDB_OPEN_CREATE), IQDB_OK);
    CHECK_EQ_INT(try_file("link", IQDB_OPEN_READ), IQDB_ERR_IO);
    CHECK_EQ_INT(try_file("link", IQDB_OPEN_WRITE), IQDB_ERR_IO);
    CHECK_EQ_INT(os, ELOOP);
    CHECK_EQ_INT(files.remove_fn(dir, "link", &os, NULL), IQDB_OK); /* the link, not its target */
    CHECK(exists("target") && !exists("link"));
}
IN_DIRECTORY(refuses_links)

static void refuses_linked_directories_in(void) {
    CHECK_EQ_INT(try_path(below("real/sub"), true), IQDB_OK);
    CHECK_EQ_INT(symlink("real", below("link")), 0);
    CHECK_EQ_INT(symlink("nowhere", below("dangling")), 0);
    CHECK_EQ_INT(symlink("loop", below("loop")), 0);
    for (int create = 0; create < 2; create++) {
        CHECK_EQ_INT(try_path(below("link"), create), IQDB_ERR_INVALID_CONFIG);
        CHECK_EQ_INT(try_path(below("link/"), create), IQDB_ERR_INVALID_CONFIG);
        CHECK_EQ_INT(try_path(below("link/."), create), IQDB_OK); /* it is meant */
        CHECK_EQ_INT(try_path(below("link/sub"), create), IQDB_OK);
        CHECK_EQ_INT(try_path(below("dangling"), create), IQDB_ERR_INVALID_CONFIG);
        CHECK_EQ_INT(try_path(below("loop"), create), IQDB_ERR_INVALID_CONFIG);
        CHECK_EQ_INT(try_path(below("loop/x"), create), IQDB_ERR_INVALID_CONFIG);
    }
    CHECK_EQ_INT(try_path(below("dangling/x"), false), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(try_path(below("dangling/x"), true), IQDB_ERR_IO);
    CHECK(!exists("nowhere"));
}
IN_DIRECTORY(refuses_linked_directories)

/* Whatever it does, it may not hang: in_child sets an alarm. */
static void opens_special_files(void) {
    CHECK_EQ_INT(mkfifo(below("fifo"), 0600), 0);
    CHECK_EQ_INT(try_file("fifo", IQDB_OPEN_READ), IQDB_ERR_IO);
    CHECK(os != 0);
    CHECK_EQ_INT(try_file("fifo", IQDB_OPEN_WRITE), IQDB_ERR_IO);
    CHECK(os != 0);
    CHECK_EQ_INT(try_file("fifo", IQDB_OPEN_CREATE), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(try_path(below("fifo"), true), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(try_path(below("fifo"), false), IQDB_ERR_INVALID_CONFIG);
    if (mknod(below("null"), S_IFCHR | 0600, 0x0103) != 0) return; /* /dev/null; needs to be root */
    CHECK_EQ_INT(try_file("null", IQDB_OPEN_READ), IQDB_ERR_IO);
    CHECK_EQ_INT(try_file("null", IQDB_OPEN_WRITE), IQDB_ERR_IO);
}
static void refuses_special_files_in(void) { CHECK_EQ_INT(in_child(opens_special_files), 0); }
IN_DIRECTORY(refuses_special_files)

static void count_name(const char *name, void *user) {
    if (strcmp(name, "short") == 0)
        ++*(int *)user;
    else
        *(int *)user += 100;
}
static void skips_long_names_in(void) {
    int seen = 0;
    const int fd = open(below("a-name-that-is-longer-than-31-bytes"), O_CREAT | O_WRONLY, 0600);
    CHECK(fd >= 0);
    close(fd);
    CHECK_EQ_INT(try_file("short", IQDB_OPEN_CREATE), IQDB_OK);
    CHECK_EQ_INT(files.dir_list_fn(dir, count_name, &seen, &os, NULL), IQDB_OK);
    CHECK_EQ_INT(seen, 1);
}
IN_DIRECTORY(skips_long_names)

/* ---- Paths ---- */

static void count_names(const char *name, void *user) {
    (void)name;
    ++*(int *)user;
}

static void takes_relative_paths(void) {
    CHECK_EQ_INT(chdir(root), 0);
    CHECK_EQ_INT(try_path("name", false), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(try_path("name", true), IQDB_OK);
    CHECK_EQ_INT(try_path("name", false), IQDB_OK);
    CHECK(exists("name"));
    CHECK_EQ_INT(try_path("./name/", false), IQDB_OK);
    CHECK_EQ_INT(try_path("name/../other/deep", true), IQDB_OK);
    CHECK(exists("other/deep"));
    CHECK_EQ_INT(try_path(".", true), IQDB_OK);
    CHECK_EQ_INT(try_path("./", false), IQDB_OK);
    CHECK_EQ_INT(try_path("..", false), IQDB_OK);
    CHECK_EQ_INT(try_path("//", true), IQDB_OK);
    void *top;
    int names = 0;
    CHECK_EQ_INT(files.dir_open_fn("/", false, &top, &os, NULL), IQDB_OK);
    CHECK_EQ_INT(files.dir_list_fn(top, count_names, &names, &os, NULL), IQDB_OK);
    CHECK(names > 0);
    CHECK_EQ_INT(files.dir_sync_fn(top, &os, NULL), IQDB_OK); /* opened for more than passing */
    files.dir_close_fn(top, NULL);
}
static void relative_paths_in(void) { CHECK_EQ_INT(in_child(takes_relative_paths), 0); }
IN_DIRECTORY(relative_paths)

/* Longer than any path that the system takes at once. */
static void long_paths_in(void) {
    static char path[6000];
    size_t size = strlen(root);
    memcpy(path, root, size);
    while (size < 5800) {
        memset(path + size + 1, 'd', 199);
        path[size] = '/';
        size += 200;
        path[size] = 0;
    }
    CHECK(strlen(path) > PATH_MAX);
    CHECK_EQ_INT(try_path(path, false), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(try_path(path, true), IQDB_OK);
    CHECK_EQ_INT(try_path(path, false), IQDB_OK);
    /* support_remove cannot reach so far: the second level takes the place of the first until none is left. */
    path[strlen(root) + 400] = 0;
    char first[SUPPORT_PATH_MAX];
    snprintf(first, sizeof first, "%.*s", (int)strlen(root) + 200, path);
    while (rename(path, below("second")) == 0) {
        CHECK_EQ_INT(rmdir(first), 0);
        CHECK_EQ_INT(rename(below("second"), first), 0);
    }
}
IN_DIRECTORY(long_paths)

/* ---- Permissions ---- */

static void makes_with_any_umask(void) {
    umask(0);
    CHECK_EQ_INT(try_path(below("x/y/z"), true), IQDB_OK);
    CHECK_EQ_INT(mode_of("x"), 0700);
    CHECK_EQ_INT(mode_of("x/y"), 0700);
    CHECK_EQ_INT(mode_of("x/y/z"), 0700);
    CHECK_EQ_INT(try_file("f", IQDB_OPEN_CREATE), IQDB_OK);
    CHECK_EQ_INT(mode_of("f"), 0600);
    umask(0777);
    CHECK_EQ_INT(try_file("g", IQDB_OPEN_CREATE), IQDB_OK);
    CHECK_EQ_INT(mode_of("g"), 0);
}
static void is_private_in(void) { CHECK_EQ_INT(in_child(makes_with_any_umask), 0); }
IN_DIRECTORY(is_private)

/* As a user whom permissions bind; stands in root, which is his. */
static void is_refused(void) {
    void *opened, *file;
    CHECK_EQ_INT(chdir(root), 0);
    if (geteuid() == 0) {
        CHECK_EQ_INT(chown(".", 65534, 65534), 0);
        CHECK_EQ_INT(setresgid(65534, 65534, 65534), 0);
        CHECK_EQ_INT(setresuid(65534, 65534, 65534), 0);
    }
    CHECK_EQ_INT(files.dir_open_fn("d", true, &opened, &os, NULL), IQDB_OK);
    CHECK_EQ_INT(files.open_fn(opened, "f", IQDB_OPEN_CREATE, &file, &os, NULL), IQDB_OK);
    files.close_fn(file, NULL);
    CHECK_EQ_INT(chmod("d/f", 0400), 0);
    CHECK_EQ_INT(files.open_fn(opened, "f", IQDB_OPEN_WRITE, &file, &os, NULL), IQDB_ERR_IO);
    CHECK_EQ_INT(os, EACCES);
    CHECK_EQ_INT(files.open_fn(opened, "f", IQDB_OPEN_READ, &file, &os, NULL), IQDB_OK);
    files.close_fn(file, NULL);
    CHECK_EQ_INT(chmod("d", 0500), 0);
    CHECK_EQ_INT(files.open_fn(opened, "g", IQDB_OPEN_CREATE, &file, &os, NULL), IQDB_ERR_IO);
    CHECK_EQ_INT(os, EACCES);
    CHECK_EQ_INT(files.remove_fn(opened, "f", &os, NULL), IQDB_ERR_IO);
    CHECK_EQ_INT(os, EACCES);
    CHECK_EQ_INT(try_path("d/new", true), IQDB_ERR_IO);
    CHECK_EQ_INT(os, EACCES);
    files.dir_close_fn(opened, NULL);
    CHECK_EQ_INT(chmod("d", 0), 0);
    CHECK_EQ_INT(try_path("d", false), IQDB_ERR_IO);
    CHECK_EQ_INT(os, EACCES);
    CHECK_EQ_INT(try_path("d/x", true), IQDB_ERR_IO);
    CHECK_EQ_INT(os, EACCES);
    /* A parent that may be passed and changed but not read has to do, each time. */
    CHECK_EQ_INT(chmod("d", 0300), 0);
    CHECK_EQ_INT(try_path("d/x/y", true), IQDB_OK);
    CHECK_EQ_INT(try_path("d/x", true), IQDB_OK);
    CHECK_EQ_INT(try_path("d/z", true), IQDB_OK);
    CHECK_EQ_INT(try_path("d/z", true), IQDB_OK);
    CHECK_EQ_INT(chmod("d", 0700), 0);
    /* The same of the directory a relative path starts from; closed altogether it is an error. */
    CHECK_EQ_INT(chmod(".", 0300), 0);
    CHECK_EQ_INT(try_path("d", true), IQDB_OK);
    CHECK_EQ_INT(try_path("e/f", true), IQDB_OK);
    CHECK_EQ_INT(chmod(".", 0), 0);
    CHECK_EQ_INT(try_path("d", true), IQDB_ERR_IO);
    CHECK_EQ_INT(os, EACCES);
}
static void permissions_in(void) { CHECK_EQ_INT(in_child(is_refused), 0); }
IN_DIRECTORY(permissions)

/* ---- Limits: a small file system of our own, if we may ---- */

static void fills_small_disk(void) {
    static char bytes[100000];
    void *opened, *file;
    uint64_t size = 0;
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("small", root, "tmpfs", 0, "size=256k,nr_inodes=6") != 0)
        TEST_SKIP("mounts are for root");
    CHECK_EQ_INT(files.dir_open_fn(root, false, &opened, &os, NULL), IQDB_OK);
    CHECK_EQ_INT(files.open_fn(opened, "f", IQDB_OPEN_CREATE, &file, &os, NULL), IQDB_OK);
    iqdb_result result = IQDB_OK;
    for (uint64_t at = 0; at < 1000000 && result == IQDB_OK; at += sizeof bytes)
        result = files.write_fn(file, at, bytes, sizeof bytes, &os, NULL);
    CHECK_EQ_INT(result, IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(os, ENOSPC);
    CHECK_EQ_INT(files.size_fn(file, &size, &os, NULL), IQDB_OK);
    CHECK_EQ_U64(size, 256 * 1024); /* a part of the last write went in */
    files.close_fn(file, NULL);
    char name[16];
    for (int i = 0; i < 10 && result != IQDB_OK; i++) { /* inodes */
        snprintf(name, sizeof name, "%d", i);
        result = files.open_fn(opened, name, IQDB_OPEN_CREATE, &file, &os, NULL) == IQDB_OK ? IQDB_ERR_IO : IQDB_OK;
        if (result != IQDB_OK) files.close_fn(file, NULL);
    }
    CHECK_EQ_INT(os, ENOSPC);
    CHECK_EQ_INT(files.open_fn(opened, "more", IQDB_OPEN_CREATE, &file, &os, NULL), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(try_path(below("more"), true), IQDB_ERR_NOSPACE);
    files.dir_close_fn(opened, NULL);
    CHECK_EQ_INT(mount("small", root, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL), 0);
    CHECK_EQ_INT(files.dir_open_fn(root, true, &opened, &os, NULL), IQDB_OK);
    CHECK_EQ_INT(files.open_fn(opened, "f", IQDB_OPEN_READ, &file, &os, NULL), IQDB_OK);
    files.close_fn(file, NULL);
    CHECK_EQ_INT(files.open_fn(opened, "f", IQDB_OPEN_WRITE, &file, &os, NULL), IQDB_ERR_READONLY);
    CHECK_EQ_INT(os, EROFS);
    CHECK_EQ_INT(files.open_fn(opened, "new", IQDB_OPEN_CREATE, &file, &os, NULL), IQDB_ERR_READONLY);
    CHECK_EQ_INT(files.remove_fn(opened, "f", &os, NULL), IQDB_ERR_READONLY);
    CHECK_EQ_INT(try_path(below("new"), true), IQDB_ERR_READONLY);
    files.dir_close_fn(opened, NULL);
}
static void small_disk_in(void) {
    const int status = in_child(fills_small_disk);
    if (status == CHILD_SKIPS) TEST_SKIP("mounts are for root");
    CHECK_EQ_INT(status, 0);
}
IN_DIRECTORY(small_disk)

static void reaches_size_limit(void) {
    static char bytes[3000];
    struct rlimit limit;
    void *file;
    uint64_t size = 0;
    signal(SIGXFSZ, SIG_IGN);
    limit.rlim_cur = limit.rlim_max = 1000;
    CHECK_EQ_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    CHECK_EQ_INT(open_file("f", IQDB_OPEN_CREATE, &file), IQDB_OK);
    CHECK_EQ_INT(files.write_fn(file, 0, bytes, 600, &os, NULL), IQDB_OK);
    CHECK_EQ_INT(files.write_fn(file, 600, bytes, 3000, &os, NULL), IQDB_ERR_NOSPACE);
    CHECK_EQ_INT(os, EFBIG);
    CHECK_EQ_INT(files.size_fn(file, &size, &os, NULL), IQDB_OK);
    CHECK_EQ_U64(size, 1000); /* so the write was short first, and was gone on with */
    files.close_fn(file, NULL);
}
static void size_limit_in(void) { CHECK_EQ_INT(in_child(reaches_size_limit), 0); }
IN_DIRECTORY(size_limit)

/* ---- Descriptors ---- */

/* Opens a directory and a file and looks at the two new descriptors. */
static bool opens_well(void) {
    void *opened, *file;
    bool before[256];
    int fresh = 0, closed_by_exec = 0, waiting = 0;
    for (int fd = 0; fd < 256; fd++) before[fd] = is_open(fd);
    if (files.dir_open_fn(root, false, &opened, &os, NULL) != IQDB_OK) return false;
    if (files.open_fn(opened, "f", IQDB_OPEN_CREATE, &file, &os, NULL) != IQDB_OK) return false;
    for (int fd = 0; fd < 256; fd++) {
        if (before[fd] || !is_open(fd)) continue;
        fresh += fd > 2 ? 1 : 100;
        closed_by_exec += (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
        waiting += (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0;
    }
    files.close_fn(file, NULL);
    files.remove_fn(opened, "f", &os, NULL);
    files.dir_close_fn(opened, NULL);
    return fresh == 2 && closed_by_exec == 2 && waiting == 2;
}

static void opens_without_standard_streams(void) {
    CHECK(opens_well());
    const int report = dup(1); /* to say what failed */
    close(0);
    close(1);
    close(2);
    const bool ok = opens_well();
    dup2(report, 1);
    close(report);
    CHECK(ok);
}
static void descriptors_in(void) { CHECK_EQ_INT(in_child(opens_without_standard_streams), 0); }
IN_DIRECTORY(descriptors)

static void runs_out_of_descriptors(void) {
    struct rlimit limit;
    int spare[64], count = 0;
    CHECK_EQ_INT(try_file("f", IQDB_OPEN_CREATE), IQDB_OK);
    CHECK_EQ_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 64;
    CHECK_EQ_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    while (count < 64 && (spare[count] = dup(1)) >= 0) count++;
    CHECK_EQ_INT(try_file("f", IQDB_OPEN_READ), IQDB_ERR_IO);
    CHECK_EQ_INT(os, EMFILE);
    CHECK_EQ_INT(try_file("g", IQDB_OPEN_CREATE), IQDB_ERR_IO);
    CHECK_EQ_INT(try_path(root, false), IQDB_ERR_IO);
    CHECK_EQ_INT(os, EMFILE);
    while (count > 0) close(spare[--count]);
    CHECK_EQ_INT(try_file("f", IQDB_OPEN_READ), IQDB_OK);
}
static void descriptors_run_out_in(void) { CHECK_EQ_INT(in_child(runs_out_of_descriptors), 0); }
IN_DIRECTORY(descriptors_run_out)

static void ignore_name(const char *name, void *user) {
    (void)name;
    (void)user;
}

static void leaks_no_descriptor_in(void) {
    const int before = count_descriptors();
    CHECK_EQ_INT(mkfifo(below("fifo"), 0600), 0);
    for (int i = 0; i < 20; i++) {
        try_path(below("a/b/c"), true);
        try_path(below("a/b/x"), false);
        try_path(below("fifo/x"), true);
        try_file("fifo", IQDB_OPEN_WRITE);
        try_file("a", IQDB_OPEN_READ);
        try_file("f", IQDB_OPEN_CREATE);
        try_file("f", IQDB_OPEN_READ);
        files.dir_list_fn(dir, ignore_name, NULL, &os, NULL);
        files.dir_sync_fn(dir, &os, NULL);
    }
    CHECK_EQ_INT(count_descriptors(), before);
}
IN_DIRECTORY(leaks_no_descriptor)

/* ---- Forks ---- */

static iqdb_result try_lock(bool exclusive) {
    void *file;
    iqdb_result result = open_file("LOCK", IQDB_OPEN_WRITE, &file);
    if (result != IQDB_OK) return result;
    result = files.lock_fn(file, exclusive, &os, NULL);
    files.close_fn(file, NULL);
    return result;
}

static void finds_it_locked(void) {
    CHECK_EQ_INT(try_lock(true), IQDB_ERR_LOCKED);
    CHECK_EQ_INT(os, EWOULDBLOCK);
    CHECK_EQ_INT(try_lock(false), IQDB_ERR_LOCKED);
}
static void finds_it_shared(void) {
    CHECK_EQ_INT(try_lock(true), IQDB_ERR_LOCKED);
    CHECK_EQ_INT(try_lock(false), IQDB_OK);
}
static void finds_it_free(void) { CHECK_EQ_INT(try_lock(true), IQDB_OK); }

static void closes_inherited_handle(void) {
    files.close_fn(locked, NULL);
    locked = NULL;
    CHECK_EQ_INT(try_lock(true), IQDB_ERR_LOCKED); /* the parent's lock stands */
}

static void locks_across_processes_in(void) {
    CHECK_EQ_INT(try_file("LOCK", IQDB_OPEN_CREATE), IQDB_OK);
    CHECK_EQ_INT(open_file("LOCK", IQDB_OPEN_WRITE, &locked), IQDB_OK);
    CHECK_EQ_INT(files.lock_fn(locked, true, &os, NULL), IQDB_OK);
    CHECK_EQ_INT(in_child(finds_it_locked), 0);
    CHECK_EQ_INT(in_child(closes_inherited_handle), 0);
    CHECK_EQ_INT(in_child(finds_it_locked), 0);
    CHECK_EQ_INT(files.lock_fn(locked, false, &os, NULL), IQDB_OK);
    CHECK_EQ_INT(in_child(finds_it_shared), 0);
    files.close_fn(locked, NULL);
    locked = NULL;
    CHECK_EQ_INT(in_child(finds_it_free), 0);
}
IN_DIRECTORY(locks_across_processes)

/* A child that lives on with a copy of the descriptor does not keep the parent's closed database locked. */
static void close_releases_under_fork_in(void) {
    int gate[2];
    CHECK_EQ_INT(try_file("LOCK", IQDB_OPEN_CREATE), IQDB_OK);
    CHECK_EQ_INT(open_file("LOCK", IQDB_OPEN_WRITE, &locked), IQDB_OK);
    CHECK_EQ_INT(files.lock_fn(locked, true, &os, NULL), IQDB_OK);
    CHECK_EQ_INT(pipe(gate), 0);
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        char byte;
        alarm(60);
        close(gate[1]);
        const bool waited = read(gate[0], &byte, 1) == 0;
        files.close_fn(locked, NULL);
        files.dir_close_fn(dir, NULL);
        _exit(waited ? 0 : 1);
    }
    CHECK_EQ_INT(try_lock(true), IQDB_ERR_LOCKED);
    files.close_fn(locked, NULL);
    locked = NULL;
    const iqdb_result after = try_lock(true);
    int status = 1;
    close(gate[0]);
    close(gate[1]);
    CHECK_EQ_INT(waitpid(child, &status, 0), child);
    CHECK_EQ_INT(status, 0);
    CHECK_EQ_INT(after, IQDB_OK);
}
IN_DIRECTORY(close_releases_under_fork)

TEST_MAIN("sys/posix", TEST(loops), TEST(failures), TEST(syncs_parents), TEST(syncs_contents),
          TEST(chance_without_getentropy), TEST(refuses_links), TEST(refuses_linked_directories),
          TEST(refuses_special_files), TEST(skips_long_names), TEST(relative_paths), TEST(long_paths), TEST(is_private),
          TEST(permissions), TEST(small_disk), TEST(size_limit), TEST(descriptors), TEST(descriptors_run_out),
          TEST(leaks_no_descriptor), TEST(locks_across_processes), TEST(close_releases_under_fork))
