/* What somebody may have put where a database's file should be: links, pipes, devices, directories, files without
 * permission, empty ones, short ones, those of others, of newer versions, and longer ones than 32 bits can count; and
 * the same for the directory itself. What must hold, for reading and for writing: the right code, the file named, the
 * same when it is tried again, and nothing modified. */
#include "api/public.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

typedef struct yard {
    char folder[SUPPORT_PATH_MAX], sound[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX], other[SUPPORT_PATH_MAX];
} yard;

static iqdb_error told;

static iqdb_result open_at(const char *path, bool read_only, iqdb **out_db) {
    iqdb_options options = iqdb_options_default();
    options.read_only = read_only;
    options.error = &told;
    memset(&told, 0, sizeof told);
    return iqdb_open(path, &options, out_db);
}

/* A database with a snapshot and a log: snap-1 and wal-2. */
static bool make_database(const char *path, uint64_t first) {
    iqdb *db = NULL;
    bool ok = EXPECT(open_at(path, false, &db) == IQDB_OK);
    for (uint64_t id = first; ok && id < first + 6; id++) {
        ok = EXPECT(public_store(db, id, id) == IQDB_OK);
        if (id == first + 3) ok = ok && EXPECT(iqdb_checkpoint(db) == IQDB_OK);
    }
    return EXPECT(iqdb_close(db) == IQDB_OK) && ok;
}

static yard yard_make(void) {
    yard y;
    support_directory(y.folder);
    support_join(y.sound, y.folder, "sound");
    support_join(y.path, y.folder, "db");
    support_join(y.other, y.folder, "other");
    make_database(y.sound, 0);
    make_database(y.other, 100);
    return y;
}

/* Kind, mode, size and place of everything in a directory, as a number. */
static uint64_t look(const char *path) {
    uint64_t digest = 0;
    DIR *directory = opendir(path);
    for (struct dirent *entry = directory ? readdir(directory) : NULL; entry != NULL; entry = readdir(directory)) {
        char file[SUPPORT_PATH_MAX];
        struct stat info;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        support_join(file, path, entry->d_name);
        if (lstat(file, &info) != 0) continue;
        uint64_t state = (uint64_t)info.st_ino * 31 + (uint64_t)info.st_mode * 7 + (uint64_t)info.st_size +
                         (uint64_t)info.st_mtim.tv_nsec + (uint64_t)info.st_mtim.tv_sec * 1000003u;
        digest += support_random(&state);
    }
    if (directory != NULL) closedir(directory);
    return digest;
}

static bool holds_all(iqdb *db) {
    bool ok = EXPECT(iqdb_len(db) == 6);
    for (uint64_t id = 0; id < 6 && ok; id++) ok = EXPECT(public_holds(db, id, id));
    return ok;
}

/* `code` twice for reading and twice for writing, `name` blamed (NULL: any file), nothing modified. OK: all is there, as
 * it is for who only reads, and has no business with LOCK, whatever that is. */
static bool expect(const yard *y, const char *what, const char *name, iqdb_result code_of_writing) {
    for (int i = 0; i < 4; i++) {
        const bool read_only = i < 2;
        const bool free = read_only && name != NULL && strcmp(name, "LOCK") == 0;
        const iqdb_result code = free ? IQDB_OK : code_of_writing;
        iqdb *db = NULL;
        const uint64_t before = look(y->path);
        const iqdb_result result = open_at(y->path, read_only, &db);
        bool ok = EXPECT(result == code);
        if (code == IQDB_OK)
            ok = ok && holds_all(db) && EXPECT(iqdb_close(db) == IQDB_OK);
        else
            ok = ok && EXPECT(db == NULL) && EXPECT(told.code == code) && EXPECT(told.text[0] != 0) &&
                 EXPECT(name == NULL ? told.file[0] != 0 : strcmp(told.file, name) == 0);
        ok = ok && EXPECT(look(y->path) == before);
        if (ok) continue;
        printf("\n      ... %s, %s: code %d, os %d, \"%s\" at %llu: %s", what, read_only ? "reading" : "writing",
               (int)result, told.os_code, told.file, (unsigned long long)told.offset, told.text);
        if (db != NULL) (void)iqdb_close(db);
        return false;
    }
    return true;
}

static const char *const names[] = {"META", "wal-2", "snap-1", "LOCK"};

/* A fresh copy, and the path of one of its files. */
static bool fresh(const yard *y, const char *name, char file[SUPPORT_PATH_MAX]) {
    support_join(file, y->path, name);
    return EXPECT(public_copy(y->sound, y->path));
}

static void files_that_are_none(void) {
    const yard y = yard_make();
    char file[SUPPORT_PATH_MAX], aside[SUPPORT_PATH_MAX];
    support_join(aside, y.folder, "aside");
    for (int i = 0; i < 4; i++) {
        CHECK(fresh(&y, names[i], file) && rename(file, aside) == 0 && symlink(aside, file) == 0);
        CHECK(expect(&y, "a link", names[i], IQDB_ERR_IO));
        CHECK(fresh(&y, names[i], file) && unlink(file) == 0 && symlink("nowhere", file) == 0);
        CHECK(expect(&y, "a link to nothing", names[i], IQDB_ERR_IO));
        CHECK(fresh(&y, names[i], file) && unlink(file) == 0 && mkfifo(file, 0600) == 0);
        CHECK(expect(&y, "a pipe", names[i], IQDB_ERR_IO));
        CHECK(fresh(&y, names[i], file) && unlink(file) == 0 && mkdir(file, 0700) == 0);
        CHECK(expect(&y, "a directory", names[i], IQDB_ERR_IO));
        CHECK(fresh(&y, names[i], file) && unlink(file) == 0);
        if (mknod(file, S_IFCHR | 0600, 0x0103) != 0) continue; /* /dev/null; takes root */
        CHECK(expect(&y, "a device", names[i], IQDB_ERR_IO));
    }
    support_remove(y.folder);
}

static void files_too_short(void) {
    const yard y = yard_make();
    char file[SUPPORT_PATH_MAX];
    for (int i = 0; i < 4; i++) {
        const iqdb_result code = i == 3 ? IQDB_OK : IQDB_ERR_CORRUPT; /* LOCK may hold anything */
        CHECK(fresh(&y, names[i], file) && truncate(file, 0) == 0);
        CHECK(expect(&y, "an empty file", names[i], code));
        CHECK(fresh(&y, names[i], file) && public_write_file(file, "iqdbW", 5));
        CHECK(expect(&y, "five bytes", names[i], code));
        CHECK(fresh(&y, names[i], file) && public_write_file(file, "#!/bin/sh\necho hello\n", 21));
        CHECK(expect(&y, "a script", names[i], code));
    }
    support_remove(y.folder);
}

static void files_of_others(void) {
    const yard y = yard_make();
    char file[SUPPORT_PATH_MAX], foreign[SUPPORT_PATH_MAX];
    for (int i = 0; i < 3; i++) {
        size_t size;
        support_join(foreign, y.other, names[i]);
        unsigned char *bytes = public_read_file(foreign, &size);
        CHECK(bytes != NULL && fresh(&y, names[i], file) && public_write_file(file, bytes, size));
        free(bytes);
        CHECK(expect(&y, "another database's", i == 0 ? NULL : names[i], IQDB_ERR_CORRUPT));
        CHECK(fresh(&y, names[i], file) && unlink(file) == 0);
        CHECK(expect(&y, "missing", names[i], IQDB_ERR_CORRUPT));
    }
    CHECK(fresh(&y, "LOCK", file) && unlink(file) == 0);
    iqdb *db = NULL; /* made anew */
    CHECK_EQ_INT(open_at(y.path, false, &db), IQDB_OK);
    CHECK(holds_all(db));
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(y.folder);
}

/* A log or META that goes on for four gigabytes of nothing is read to its end, and is what it was; a snapshot of
 * another size than META says is not. */
static void files_beyond_32_bits(void) {
    const yard y = yard_make();
    char file[SUPPORT_PATH_MAX];
    const off_t large = ((off_t)1 << 32) + 12288;
    for (int i = 0; i < 4; i++) {
        if (support_amount(0, 0, 1) == 0 && i == 1) continue; /* the log is read whole, which takes a while */
        CHECK(fresh(&y, names[i], file));
        if (truncate(file, large) != 0) {
            support_remove(y.folder);
            TEST_SKIP("files of 4 GiB cannot be made here");
        }
        CHECK(expect(&y, "beyond 4 GiB", names[i], i == 2 ? IQDB_ERR_CORRUPT : IQDB_OK));
    }
    support_remove(y.folder);
}

static void directories_that_are_none(void) {
    const yard y = yard_make();
    char file[SUPPORT_PATH_MAX];
    iqdb *db = NULL;
    for (int kind = 0; kind < 5; kind++) {
        support_remove(y.path);
        if (kind == 0) CHECK(public_write_file(y.path, "a file", 6));
        if (kind == 1) CHECK_EQ_INT(symlink(y.sound, y.path), 0);
        if (kind == 2) CHECK_EQ_INT(symlink("nowhere", y.path), 0);
        if (kind == 3) CHECK_EQ_INT(mkfifo(y.path, 0600), 0);
        if (kind == 4 && mknod(y.path, S_IFCHR | 0600, 0x0103) != 0) continue;
        for (int read_only = 0; read_only < 2; read_only++) {
            const uint64_t before = look(y.folder);
            CHECK_EQ_INT(open_at(y.path, read_only != 0, &db), IQDB_ERR_INVALID_CONFIG);
            CHECK(db == NULL && told.code == IQDB_ERR_INVALID_CONFIG && told.text[0] != 0);
            CHECK_EQ_U64(look(y.folder), before);
        }
    }
    support_remove(y.path);
    CHECK_EQ_INT(open_at(y.path, true, &db), IQDB_ERR_NOT_FOUND);
    support_join(file, y.folder, "db");
    CHECK(access(file, F_OK) != 0);
    CHECK_EQ_INT(mkdir(y.path, 0700), 0); /* empty */
    CHECK_EQ_INT(open_at(y.path, true, &db), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_U64(look(y.path), 0);
    support_remove(y.folder);
}

/* ---- As somebody else, and in another name space: in a child, for there is no way back ---- */

static yard shared;

static int in_child(void (*body)(void)) {
    int status = 0;
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        test_now.failures = 0;
        body();
        fflush(stdout);
        _exit(test_now.failures > 0 ? 1 : test_now.skipped != NULL ? 2 : 0);
    }
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return 3;
    return WEXITSTATUS(status);
}

static void give_to_nobody(const char *name, void *user) {
    char file[SUPPORT_PATH_MAX];
    support_join(file, (const char *)user, name);
    EXPECT(chown(file, 65534, 65534) == 0);
}

static void without_permission(void) {
    char file[SUPPORT_PATH_MAX];
    if (geteuid() == 0) {
        CHECK_EQ_INT(chown(shared.folder, 65534, 65534), 0);
        CHECK_EQ_INT(chown(shared.sound, 65534, 65534), 0);
        CHECK(public_list(shared.sound, give_to_nobody, shared.sound));
        /* From here on by relative paths: folders above may be root's alone. */
        CHECK_EQ_INT(chdir(shared.folder), 0);
        strcpy(shared.path, "db");
        strcpy(shared.sound, "sound");
        CHECK_EQ_INT(setresgid(65534, 65534, 65534), 0);
        CHECK_EQ_INT(setresuid(65534, 65534, 65534), 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK(fresh(&shared, names[i], file) && chmod(file, 0) == 0);
        CHECK(expect(&shared, "mode 0000", names[i], IQDB_ERR_IO));
        CHECK_EQ_INT(told.os_code, EACCES);
    }
    CHECK(fresh(&shared, "META", file) && chmod(shared.path, 0) == 0);
    iqdb *db = NULL;
    for (int read_only = 0; read_only < 2; read_only++) {
        CHECK_EQ_INT(open_at(shared.path, read_only != 0, &db), IQDB_ERR_IO);
        CHECK_EQ_INT(told.os_code, EACCES);
    }
    /* A directory and files that may be read: for reading. */
    CHECK_EQ_INT(chmod(shared.path, 0500), 0);
    for (int i = 0; i < 4; i++) {
        support_join(file, shared.path, names[i]);
        CHECK_EQ_INT(chmod(file, 0400), 0);
    }
    const uint64_t before = look(shared.path);
    CHECK_EQ_INT(open_at(shared.path, false, &db), IQDB_ERR_IO);
    CHECK_EQ_INT(open_at(shared.path, true, &db), IQDB_OK);
    CHECK(holds_all(db));
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_U64(look(shared.path), before);
}

static void no_permission(void) {
    shared = yard_make();
    const int status = in_child(without_permission);
    support_remove(shared.folder);
    CHECK_EQ_INT(status, 0);
}

static void on_a_medium_without_writing(void) {
    iqdb *db = NULL;
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0 ||
        mkdir(shared.path, 0700) != 0 || mount(shared.sound, shared.path, "none", MS_BIND, NULL) != 0 ||
        mount("none", shared.path, "none", MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) != 0)
        TEST_SKIP("no name space of our own here");
    const uint64_t before = look(shared.path);
    const iqdb_result result = open_at(shared.path, false, &db);
    CHECK(result == IQDB_ERR_READONLY || result == IQDB_ERR_IO);
    CHECK_EQ_INT(told.os_code, EROFS);
    CHECK_EQ_INT(open_at(shared.path, true, &db), IQDB_OK);
    CHECK(holds_all(db));
    CHECK_EQ_INT(public_store(db, 9, 9), IQDB_ERR_READONLY);
    CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_U64(look(shared.path), before);
}

static void a_medium_without_writing(void) {
    shared = yard_make();
    const int status = in_child(on_a_medium_without_writing);
    support_remove(shared.folder);
    if (status == 2) TEST_SKIP("no name space of our own here");
    CHECK_EQ_INT(status, 0);
}

TEST_MAIN("crash/surroundings", TEST(files_that_are_none), TEST(files_too_short), TEST(files_of_others),
          TEST(files_beyond_32_bits), TEST(directories_that_are_none), TEST(no_permission),
          TEST(a_medium_without_writing))
