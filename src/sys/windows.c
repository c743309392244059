/* Windows: files, chance, time, threads and identities. Only kernel32 is linked.
 *
 * 1. A directory is held open without FILE_SHARE_DELETE, so that nobody can rename it away, and its files are reached
 *    by its full path in the form "\\?\...", which has no limit of 260 characters and knows no device names.
 * 2. Paths come in UTF-8 and go on in UTF-16; a path that is not UTF-8 is INVALID_CONFIG. Links and junctions are not
 *    followed in the last place ("link\." says that one is meant); only regular files are opened.
 * 3. Handles are not inherited. Files are opened with every kind of sharing: a name can be removed while readers have
 *    the file, and who writes is a matter of LOCK.
 * 4. FlushFileBuffers goes through to the disk, for a file and, where the file system lets it, for a directory.
 * 5. A lock is of one byte far behind the end, for locks are mandatory here and would keep others from reading.
 *
 * Codes: as in posix.c, with the numbers of GetLastError. */
#include "sys/sys.h"
#include "sys/thread.h"

#if defined(_WIN32) && (!defined(IQDB_NO_OS) || !defined(IQDB_NO_THREADS))
#include <windows.h>
#endif

#if defined(_WIN32) && !defined(IQDB_NO_OS)

#define IQ_WINDOWS_CHUNK ((size_t)1 << 30)
#define IQ_WINDOWS_LISTED_SIZE 32
#define IQ_WINDOWS_LOCK_AT UINT64_C(0x7FFFFFFF00000000) /* the byte that is locked */
#define IQ_WINDOWS_PATH_MAX 32767u                      /* characters, of the system */

typedef struct iq_windows_handle {
    HANDLE native;
    bool locked;
    size_t path_size; /* of a directory: characters of its path, without the final zero */
    wchar_t path[1];
} iq_windows_handle;

static iqdb_result iq_windows_code(DWORD error) {
    switch (error) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_INVALID_DRIVE:
    case ERROR_BAD_NETPATH:
        return IQDB_ERR_NOT_FOUND;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
    case ERROR_NO_SYSTEM_RESOURCES:
        return IQDB_ERR_NOMEM;
    case ERROR_WRITE_PROTECT:
        return IQDB_ERR_READONLY;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL:
    case ERROR_FILE_TOO_LARGE:
#ifdef ERROR_DISK_QUOTA_EXCEEDED
    case ERROR_DISK_QUOTA_EXCEEDED:
#endif
        return IQDB_ERR_NOSPACE;
    default:
        return IQDB_ERR_IO;
    }
}

static iqdb_result iq_windows_fail_with(DWORD error, int *os_code) {
    *os_code = (int)error;
    return iq_windows_code(error);
}

static iqdb_result iq_windows_fail(int *os_code) { return iq_windows_fail_with(GetLastError(), os_code); }

/* ---- Handles and paths ---- */

static size_t iq_windows_handle_size(size_t path_size) {
    return sizeof(iq_windows_handle) + path_size * sizeof(wchar_t);
}

static iq_windows_handle *iq_windows_new(size_t path_size, int *os_code) {
    const iqdb_allocator allocator = iq_alloc_default();
    iq_windows_handle *handle = (iq_windows_handle *)iq_alloc_zeroed(&allocator, iq_windows_handle_size(path_size), 16);
    if (handle == NULL) {
        *os_code = (int)ERROR_NOT_ENOUGH_MEMORY;
        return NULL;
    }
    handle->native = INVALID_HANDLE_VALUE;
    handle->path_size = path_size;
    return handle;
}

static OVERLAPPED iq_windows_place(uint64_t offset) {
    OVERLAPPED place;
    memset(&place, 0, sizeof place);
    place.Offset = (DWORD)(offset & 0xFFFFFFFFu);
    place.OffsetHigh = (DWORD)(offset >> 32);
    return place;
}

static void iq_windows_close(void *file, void *user) {
    const iqdb_allocator allocator = iq_alloc_default();
    iq_windows_handle *handle = (iq_windows_handle *)file;
    OVERLAPPED place = iq_windows_place(IQ_WINDOWS_LOCK_AT);
    (void)user;
    if (handle->locked) (void)UnlockFileEx(handle->native, 0, 1, 0, &place);
    if (handle->native != INVALID_HANDLE_VALUE) CloseHandle(handle->native);
    iq_free(&allocator, handle, iq_windows_handle_size(handle->path_size), 16);
}

/* The full path of `path` behind its "\\?\", in a handle that is not open yet; NULL with *result. */
static iq_windows_handle *iq_windows_full_path(const char *path, iqdb_result *result, int *os_code) {
    static const wchar_t prefix[] = L"\\\\?\\", network[] = L"\\\\?\\UNC";
    const iqdb_allocator allocator = iq_alloc_default();
    const int wide_size = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, NULL, 0);
    *result = IQDB_ERR_INVALID_CONFIG;
    if (wide_size <= 1 || (uint32_t)wide_size > IQ_WINDOWS_PATH_MAX) {
        *os_code = wide_size <= 0 ? (int)GetLastError() : (int)ERROR_FILENAME_EXCED_RANGE;
        return NULL;
    }
    const size_t wide_bytes = (size_t)wide_size * sizeof(wchar_t);
    wchar_t *wide = (wchar_t *)iq_alloc(&allocator, wide_bytes, 16);
    iq_windows_handle *handle = NULL;
    *result = IQDB_ERR_NOMEM;
    if (wide != NULL) {
        MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, wide_size);
        const DWORD size = GetFullPathNameW(wide, 0, NULL, NULL);
        if (size > 0) handle = iq_windows_new(size + IQ_COUNT_OF(network), os_code);
        wchar_t *full = handle == NULL ? NULL : handle->path + IQ_COUNT_OF(network) - 1;
        size_t length = handle == NULL ? 0 : GetFullPathNameW(wide, size, full, NULL);
        if (handle != NULL && (length == 0 || length >= size)) { /* the current directory has become a longer one */
            *result = iq_windows_fail_with(length == 0 ? GetLastError() : (DWORD)ERROR_BUFFER_OVERFLOW, os_code);
            iq_windows_close(handle, NULL);
            handle = NULL;
        }
        if (handle != NULL) {
            const bool is_whole = wide[0] == L'\\' && wide[1] == L'\\' && (wide[2] == L'?' || wide[2] == L'.');
            const bool is_network = !is_whole && full[0] == L'\\' && full[1] == L'\\';
            const wchar_t *before = is_network ? network : prefix;
            size_t before_size = is_whole ? 0 : is_network ? IQ_COUNT_OF(network) - 1 : IQ_COUNT_OF(prefix) - 1;
            if (is_network) full++, length--;
            memmove(handle->path + before_size, full, (length + 1) * sizeof(wchar_t));
            memcpy(handle->path, before, before_size * sizeof(wchar_t));
            length += before_size;
            while (length > 7 && handle->path[length - 1] == L'\\') handle->path[--length] = 0;
        }
    }
    iq_free(&allocator, wide, wide_bytes, 16);
    return handle;
}

/* "directory\name"; the name has ASCII characters only where it is one of ours. To be freed with its size. */
static wchar_t *iq_windows_join(const iq_windows_handle *dir, const char *name, size_t *out_bytes, int *os_code) {
    const iqdb_allocator allocator = iq_alloc_default();
    const size_t before = wcslen(dir->path), size = strlen(name);
    *out_bytes = (before + size + 2) * sizeof(wchar_t);
    wchar_t *path = (wchar_t *)iq_alloc(&allocator, *out_bytes, 16);
    if (path == NULL) {
        *os_code = (int)ERROR_NOT_ENOUGH_MEMORY;
        return NULL;
    }
    memcpy(path, dir->path, before * sizeof(wchar_t));
    path[before] = L'\\';
    for (size_t i = 0; i <= size; i++) path[before + 1 + i] = (wchar_t)(unsigned char)name[i];
    return path;
}

static void iq_windows_free_path(wchar_t *path, size_t bytes) {
    const iqdb_allocator allocator = iq_alloc_default();
    iq_free(&allocator, path, bytes, 16);
}

/* ---- Directories ---- */

static bool iq_windows_is_link(HANDLE native) {
    FILE_ATTRIBUTE_TAG_INFO facts;
    if (!GetFileInformationByHandleEx(native, FileAttributeTagInfo, &facts, sizeof facts)) return false;
    return (facts.FileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0 &&
           (facts.ReparseTag == IO_REPARSE_TAG_SYMLINK || facts.ReparseTag == IO_REPARSE_TAG_MOUNT_POINT);
}

/* Makes the directory and every parent that is missing. The part in front is made first: a path is cut and mended at
 * its separators, from the left. What cannot be made because it is there is fine; the open that follows tells. */
static void iq_windows_make(wchar_t *path) {
    for (size_t i = 7; path[i] != 0; i++) { /* behind "\\?\C:\" */
        if (path[i] != L'\\') continue;
        path[i] = 0;
        (void)CreateDirectoryW(path, NULL);
        path[i] = L'\\';
    }
    (void)CreateDirectoryW(path, NULL);
}

/* A directory of which entries can be flushed, or at least one that can be read. */
static HANDLE iq_windows_open_dir(const wchar_t *path, bool follow) {
    const DWORD share = FILE_SHARE_READ | FILE_SHARE_WRITE;
    const DWORD flags = FILE_FLAG_BACKUP_SEMANTICS | (follow ? 0 : FILE_FLAG_OPEN_REPARSE_POINT);
    HANDLE native = CreateFileW(path, GENERIC_READ | GENERIC_WRITE, share, NULL, OPEN_EXISTING, flags, NULL);
    if (native != INVALID_HANDLE_VALUE || GetLastError() == ERROR_FILE_NOT_FOUND) return native;
    return CreateFileW(path, GENERIC_READ, share, NULL, OPEN_EXISTING, flags, NULL);
}

static iqdb_result iq_windows_dir_open(const char *path, bool create, void **out_dir, int *os_code, void *user) {
    BY_HANDLE_FILE_INFORMATION facts;
    iqdb_result result;
    (void)user;
    *os_code = 0;
    iq_windows_handle *handle = iq_windows_full_path(path, &result, os_code);
    if (handle == NULL) return result;
    const size_t size = strlen(path);
    const bool follow = size >= 2 && path[size - 1] == '.' && (path[size - 2] == '/' || path[size - 2] == '\\');
    handle->native = iq_windows_open_dir(handle->path, follow);
    if (handle->native == INVALID_HANDLE_VALUE && create) {
        const DWORD error = GetLastError();
        if (error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND) {
            iq_windows_make(handle->path);
            handle->native = iq_windows_open_dir(handle->path, follow);
        }
    }
    result = IQDB_OK;
    if (handle->native == INVALID_HANDLE_VALUE) {
        result = iq_windows_fail(os_code);
        /* A file on the way, or names that cannot be. */
        if (*os_code == ERROR_DIRECTORY || *os_code == ERROR_INVALID_NAME || *os_code == ERROR_BAD_PATHNAME ||
            *os_code == ERROR_FILENAME_EXCED_RANGE || (create && result == IQDB_ERR_NOT_FOUND))
            result = IQDB_ERR_INVALID_CONFIG;
    } else if (!GetFileInformationByHandle(handle->native, &facts)) {
        result = iq_windows_fail(os_code);
    } else if ((facts.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) == 0 ||
               (!follow && iq_windows_is_link(handle->native))) {
        *os_code = (int)ERROR_DIRECTORY;
        result = IQDB_ERR_INVALID_CONFIG;
    }
    if (result == IQDB_OK) {
        *out_dir = handle;
    } else {
        iq_windows_close(handle, NULL);
    }
    return result;
}

static iqdb_result iq_windows_dir_sync(void *dir, int *os_code, void *user) {
    (void)user;
    if (FlushFileBuffers(((iq_windows_handle *)dir)->native)) return IQDB_OK;
    *os_code = (int)GetLastError();
    /* Not every file system flushes directories, nor every handle may; NTFS keeps a journal of its names. */
    const bool is_unable = *os_code == ERROR_ACCESS_DENIED || *os_code == ERROR_INVALID_FUNCTION ||
                           *os_code == ERROR_INVALID_HANDLE || *os_code == ERROR_NOT_SUPPORTED;
    return is_unable ? IQDB_OK : IQDB_ERR_IO;
}

static iqdb_result iq_windows_dir_list(void *dir, void (*each_fn)(const char *name, void *each_user), void *each_user,
                                       int *os_code, void *user) {
    WIN32_FIND_DATAW entry;
    size_t bytes;
    (void)user;
    wchar_t *pattern = iq_windows_join((iq_windows_handle *)dir, "*", &bytes, os_code);
    if (pattern == NULL) return IQDB_ERR_NOMEM;
    const HANDLE search = FindFirstFileW(pattern, &entry);
    const DWORD error = search == INVALID_HANDLE_VALUE ? GetLastError() : 0;
    iq_windows_free_path(pattern, bytes);
    if (search == INVALID_HANDLE_VALUE) return iq_windows_fail_with(error, os_code);
    do {
        char name[IQ_WINDOWS_LISTED_SIZE];
        if (wcscmp(entry.cFileName, L".") == 0 || wcscmp(entry.cFileName, L"..") == 0) continue;
        if (WideCharToMultiByte(CP_UTF8, 0, entry.cFileName, -1, name, (int)sizeof name, NULL, NULL) > 0)
            each_fn(name, each_user);
    } while (FindNextFileW(search, &entry));
    const DWORD last = GetLastError();
    FindClose(search);
    return last == ERROR_NO_MORE_FILES ? IQDB_OK : iq_windows_fail_with(last, os_code);
}

static iqdb_result iq_windows_remove(void *dir, const char *name, int *os_code, void *user) {
    size_t bytes;
    (void)user;
    wchar_t *path = iq_windows_join((iq_windows_handle *)dir, name, &bytes, os_code);
    if (path == NULL) return IQDB_ERR_NOMEM;
    const iqdb_result result = DeleteFileW(path) ? IQDB_OK : iq_windows_fail(os_code);
    iq_windows_free_path(path, bytes);
    return result;
}

/* ---- Files ---- */

static iqdb_result iq_windows_admit(HANDLE native, int *os_code) {
    BY_HANDLE_FILE_INFORMATION facts;
    if (GetFileType(native) != FILE_TYPE_DISK) {
        *os_code = (int)ERROR_NOT_SUPPORTED;
        return IQDB_ERR_IO;
    }
    if (!GetFileInformationByHandle(native, &facts)) return iq_windows_fail(os_code);
    if ((facts.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) == 0 && !iq_windows_is_link(native)) return IQDB_OK;
    *os_code = (int)ERROR_NOT_SUPPORTED;
    return IQDB_ERR_IO;
}

static iqdb_result iq_windows_open(void *dir, const char *name, iqdb_open_kind kind, void **out_file, int *os_code,
                                   void *user) {
    const DWORD access = kind == IQDB_OPEN_READ ? GENERIC_READ : GENERIC_READ | GENERIC_WRITE;
    size_t bytes;
    (void)user;
    wchar_t *path = iq_windows_join((iq_windows_handle *)dir, name, &bytes, os_code);
    iq_windows_handle *handle = path == NULL ? NULL : iq_windows_new(0, os_code);
    iqdb_result result = handle == NULL ? IQDB_ERR_NOMEM : IQDB_OK;
    if (result == IQDB_OK) {
        handle->native = CreateFileW(path, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                                     kind == IQDB_OPEN_CREATE ? CREATE_NEW : OPEN_EXISTING,
                                     FILE_ATTRIBUTE_NORMAL | FILE_FLAG_OPEN_REPARSE_POINT, NULL);
        if (handle->native == INVALID_HANDLE_VALUE) {
            result = iq_windows_fail(os_code);
            if (kind == IQDB_OPEN_CREATE && (*os_code == ERROR_FILE_EXISTS || *os_code == ERROR_ALREADY_EXISTS))
                result = IQDB_ERR_INVALID_CONFIG;
        } else {
            result = iq_windows_admit(handle->native, os_code);
        }
    }
    if (path != NULL) iq_windows_free_path(path, bytes);
    if (result == IQDB_OK) {
        *out_file = handle;
    } else if (handle != NULL) {
        iq_windows_close(handle, NULL);
    }
    return result;
}

static iqdb_result iq_windows_size(void *file, uint64_t *out_size, int *os_code, void *user) {
    LARGE_INTEGER size;
    (void)user;
    if (!GetFileSizeEx(((iq_windows_handle *)file)->native, &size)) return iq_windows_fail(os_code);
    *out_size = (uint64_t)size.QuadPart;
    return IQDB_OK;
}

static iqdb_result iq_windows_read(void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size,
                                   int *os_code, void *user) {
    uint8_t *target = (uint8_t *)bytes;
    size_t done = 0;
    (void)user;
    *out_size = 0;
    while (done < size) {
        OVERLAPPED place = iq_windows_place(offset + done);
        const size_t part = size - done < IQ_WINDOWS_CHUNK ? size - done : IQ_WINDOWS_CHUNK;
        DWORD got = 0;
        if (!ReadFile(((iq_windows_handle *)file)->native, target + done, (DWORD)part, &got, &place)) {
            if (GetLastError() == ERROR_HANDLE_EOF) break;
            return iq_windows_fail(os_code);
        }
        if (got == 0) break;
        done += got;
    }
    *out_size = done;
    return IQDB_OK;
}

static iqdb_result iq_windows_write(void *file, uint64_t offset, const void *bytes, size_t size, int *os_code,
                                    void *user) {
    const uint8_t *source = (const uint8_t *)bytes;
    size_t done = 0;
    (void)user;
    while (done < size) {
        OVERLAPPED place = iq_windows_place(offset + done);
        const size_t part = size - done < IQ_WINDOWS_CHUNK ? size - done : IQ_WINDOWS_CHUNK;
        DWORD put = 0;
        if (!WriteFile(((iq_windows_handle *)file)->native, source + done, (DWORD)part, &put, &place))
            return iq_windows_fail(os_code);
        if (put == 0) {
            *os_code = (int)ERROR_WRITE_FAULT;
            return IQDB_ERR_IO;
        }
        done += put;
    }
    return IQDB_OK;
}

static iqdb_result iq_windows_sync(void *file, int *os_code, void *user) {
    (void)user;
    if (FlushFileBuffers(((iq_windows_handle *)file)->native)) return IQDB_OK;
    *os_code = (int)GetLastError();
    return IQDB_ERR_IO;
}

#if !defined(IQDB_NO_MMAP)
/* The view keeps the file there: both handles may be closed. */
static iqdb_result iq_windows_map(void *file, uint64_t size, const void **out_bytes, int *os_code, void *user) {
    (void)user;
    if (size == 0 || size > (size_t)-1 / 2) return IQDB_ERR_NOT_IMPLEMENTED;
    const HANDLE mapping = CreateFileMappingW(((iq_windows_handle *)file)->native, NULL, PAGE_READONLY, 0, 0, NULL);
    *out_bytes = mapping == NULL ? NULL : MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, (SIZE_T)size);
    *os_code = (int)GetLastError();
    if (mapping != NULL) CloseHandle(mapping);
    return *out_bytes != NULL ? IQDB_OK : IQDB_ERR_NOT_IMPLEMENTED;
}

static void iq_windows_unmap(const void *bytes, uint64_t size, void *user) {
    (void)size, (void)user;
    (void)UnmapViewOfFile(bytes);
}
#define IQ_WINDOWS_MAP iq_windows_map
#define IQ_WINDOWS_UNMAP iq_windows_unmap
#else
#define IQ_WINDOWS_MAP NULL
#define IQ_WINDOWS_UNMAP NULL
#endif

static iqdb_result iq_windows_lock(void *file, bool exclusive, int *os_code, void *user) {
    iq_windows_handle *handle = (iq_windows_handle *)file;
    OVERLAPPED place = iq_windows_place(IQ_WINDOWS_LOCK_AT);
    (void)user;
    const DWORD flags = LOCKFILE_FAIL_IMMEDIATELY | (exclusive ? LOCKFILE_EXCLUSIVE_LOCK : 0);
    if (LockFileEx(handle->native, flags, 0, 1, 0, &place)) {
        handle->locked = true;
        return IQDB_OK;
    }
    *os_code = (int)GetLastError();
    return *os_code == ERROR_LOCK_VIOLATION || *os_code == ERROR_IO_PENDING ? IQDB_ERR_LOCKED : IQDB_ERR_IO;
}

IQDB_API iqdb_files iqdb_files_default(void) {
    const iqdb_files files = {iq_windows_dir_open,
                              iq_windows_close,
                              iq_windows_dir_sync,
                              iq_windows_dir_list,
                              iq_windows_remove,
                              iq_windows_open,
                              iq_windows_close,
                              iq_windows_size,
                              iq_windows_read,
                              iq_windows_write,
                              iq_windows_sync,
                              iq_windows_lock,
                              NULL,
                              NULL,
                              NULL,
                              IQ_WINDOWS_MAP,
                              IQ_WINDOWS_UNMAP};
    return files;
}

/* ---- Chance ---- */

/* RtlGenRandom, which is named SystemFunction036 where it is; looked up, so that advapi32 need not be linked. */
IQ_FN bool iq_sys_entropy(void *bytes, size_t size, void *user) {
    union {
        FARPROC found;
        BOOLEAN(WINAPI *fill_fn)(PVOID, ULONG);
    } random;
    (void)user;
    if (size > IQ_WINDOWS_CHUNK) return false;
    const HMODULE library = LoadLibraryW(L"advapi32.dll");
    if (library == NULL) return false;
    random.found = GetProcAddress(library, "SystemFunction036");
    const bool filled = random.found != NULL && random.fill_fn(bytes, (ULONG)size);
    FreeLibrary(library);
    return filled;
}

/* ---- Time ---- */

IQ_FN uint64_t iq_sys_clock(void *user) {
    LARGE_INTEGER now, second;
    (void)user;
    (void)QueryPerformanceCounter(&now); /* both never fail */
    (void)QueryPerformanceFrequency(&second);
    const uint64_t ticks = (uint64_t)now.QuadPart, rate = (uint64_t)second.QuadPart;
    return ticks / rate * 1000000 + ticks % rate * 1000000 / rate;
}

IQ_FN uint64_t iq_process_identity(void) { return GetCurrentProcessId(); }

#endif /* _WIN32 && !IQDB_NO_OS */

/* ---- Threads ---- */

#if defined(_WIN32) && !defined(IQDB_NO_THREADS)

IQ_STATIC_ASSERT(sizeof(SRWLOCK) == sizeof(void *), a_lock_is_a_pointer);
IQ_STATIC_ASSERT(sizeof(CONDITION_VARIABLE) == sizeof(void *), and_so_is_what_waits_for_it);

static PSRWLOCK iq_windows_lock_of(iq_mutex *mutex) { return (PSRWLOCK)(void *)&mutex->native; }

IQ_FN bool iq_mutex_init(iq_mutex *mutex) {
    InitializeSRWLock(iq_windows_lock_of(mutex));
    InitializeConditionVariable((PCONDITION_VARIABLE)(void *)&mutex->changed);
    return true;
}
IQ_FN void iq_mutex_destroy(iq_mutex *mutex) { (void)mutex; }
IQ_FN void iq_mutex_lock(iq_mutex *mutex) { AcquireSRWLockExclusive(iq_windows_lock_of(mutex)); }
IQ_FN void iq_mutex_unlock(iq_mutex *mutex) { ReleaseSRWLockExclusive(iq_windows_lock_of(mutex)); }
IQ_FN void iq_mutex_wait(iq_mutex *mutex) {
    SleepConditionVariableSRW((PCONDITION_VARIABLE)(void *)&mutex->changed, iq_windows_lock_of(mutex), INFINITE, 0);
}
IQ_FN void iq_mutex_wake(iq_mutex *mutex) { WakeAllConditionVariable((PCONDITION_VARIABLE)(void *)&mutex->changed); }
IQ_FN void iq_thread_yield(void) { SwitchToThread(); }

IQ_FN uintptr_t iq_thread_identity(void) { return (uintptr_t)GetCurrentThreadId(); }

#endif
