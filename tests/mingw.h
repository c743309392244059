/* What MinGW's face of POSIX lacks, so that tests compile: what can be given is, the rest fails when it is called. A test
 * that is about the rest begins with SUPPORT_NEEDS_POSIX, which skips it. */
#ifndef MINGW_H
#define MINGW_H

#include <direct.h>
#include <fcntl.h>
#include <io.h>
#include <process.h>
#include <malloc.h>
#include <share.h>

#define lstat(path, info) stat((path), (info))
#define mkdir(path, mode) _mkdir(path)
#define alarm(seconds) ((void)(seconds))

static inline char *mkdtemp(char *path) {
    static unsigned count;
    for (int tries = 0; tries < 1000; tries++) {
        snprintf(path + strlen(path) - 6, 7, "%03x%03x", (unsigned)_getpid() & 0xfffu, count++ & 0xfffu);
        if (_mkdir(path) == 0) return path;
    }
    return NULL;
}

/* ---- Never called ---- */
#define WIFEXITED(status) ((status) == 0)
#define WEXITSTATUS(status) (status)
#define WIFSIGNALED(status) 0
#define WTERMSIG(status) 0
#ifndef SIGKILL
#define SIGKILL 9
#endif
#ifndef O_CLOEXEC
#define O_CLOEXEC 0
#endif
#define F_GETFD 1
#define FD_CLOEXEC 1
static inline int windows_never(void) { return -1; }
#define fork() windows_never()
#define pipe(ends) ((void)(ends), windows_never())
#define fcntl(fd, ...) ((void)(fd), windows_never())
#define waitpid(child, status, flags) ((void)(child), *(status) = -1, (void)(flags), windows_never())
#define kill(child, number) ((void)(child), (void)(number), windows_never())
#define mkfifo(path, mode) ((void)(path), (void)(mode), windows_never())
#define symlink(to, path) ((void)(to), (void)(path), windows_never())
#define link(to, path) ((void)(to), (void)(path), windows_never())
#define fchdir(fd) ((void)(fd), windows_never())
#define geteuid() 0
#define getuid() 0
#define setuid(id) ((void)(id), windows_never())
#define setgid(id) ((void)(id), windows_never())

#endif
