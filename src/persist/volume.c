/* Files by name, and errors that say which. Every call to the file layer of this folder is made here. */
#include "persist/volume.h"
#include "base/bytes.h"
#include "base/hash.h"
#include "persist/format.h"

#define IQ_DIGITS_MAX 20     /* of a 64-bit number */
#define IQ_NAME_TRIES 65536u /* more files in the way than this is no accident */
#define IQ_BALLAST_SIZE (1u << 20)
#define IQ_BALLAST_PART 32768u

IQ_FN void iq_volume_name(char name[IQ_FILE_NAME_SIZE], const char *prefix, uint64_t number) {
    char digits[IQ_DIGITS_MAX];
    size_t count = 0, size = strlen(prefix);
    IQ_ASSERT(size + sizeof digits < IQ_FILE_NAME_SIZE);
    do {
        digits[count++] = (char)('0' + (int)(number % 10));
        number /= 10;
    } while (number > 0);
    memcpy(name, prefix, size);
    while (count > 0) name[size++] = digits[--count];
    name[size] = 0;
}

IQ_FN bool iq_volume_number(const char *name, const char *prefix, uint64_t *out_number) {
    const size_t size = strlen(prefix);
    uint64_t number = 0;
    if (strncmp(name, prefix, size) != 0 || name[size] == '0' || name[size] == 0) return false;
    for (const char *digit = name + size; *digit != 0; digit++) {
        if (*digit < '0' || *digit > '9' || number > IQ_NUMBER_MAX / 10) return false;
        number = number * 10 + (uint64_t)(*digit - '0');
    }
    *out_number = number;
    return number <= IQ_NUMBER_MAX;
}

/* Reports what is none of OK. A file layer of somebody else may return anything: only what callers act on passes. */
static iqdb_result iq_volume_outcome(const iq_volume *volume, const char *name, iqdb_result result, int os_code,
                                     const char *text) {
    const bool known = result == IQDB_ERR_NOSPACE || result == IQDB_ERR_NOT_FOUND || result == IQDB_ERR_LOCKED ||
                       result == IQDB_ERR_READONLY || result == IQDB_ERR_NOMEM || result == IQDB_ERR_INVALID_CONFIG;
    if (result == IQDB_OK) return result;
    return iq_report_os(volume->reporter, known ? result : IQDB_ERR_IO, name, os_code, text);
}

static iqdb_result iq_file_outcome(const iq_file *file, iqdb_result result, int os_code, const char *text) {
    return iq_volume_outcome(file->volume, file->name, result, os_code, text);
}

IQ_FN iqdb_result iq_volume_open(iq_volume *volume, const char *path, bool create) {
    int os_code = 0;
    if (volume->crc32 == NULL) volume->crc32 = iq_crc32;
    if (volume->files.dir_open_fn == NULL)
        return iq_report(volume->reporter, IQDB_ERR_INVALID_CONFIG, NULL, 0,
                         "options.files is needed: IQDB_NO_OS has left out those of the system");
    const iqdb_result result = volume->files.dir_open_fn(path, create, &volume->dir, &os_code, volume->files.user);
    if (result != IQDB_OK) volume->dir = NULL;
    return iq_volume_outcome(volume, NULL, result, os_code, "the directory cannot be opened");
}

IQ_FN void iq_volume_close(iq_volume *volume) {
    if (volume->dir != NULL) volume->files.dir_close_fn(volume->dir, volume->files.user);
    volume->dir = NULL;
}

IQ_FN iq_volume iq_volume_silent(const iq_volume *volume) {
    iq_volume silent = *volume;
    silent.reporter = NULL;
    return silent;
}

IQ_FN iqdb_result iq_file_open(iq_file *file, const iq_volume *volume, const char *name, iqdb_open_kind kind) {
    int os_code = 0;
    file->volume = volume;
    file->handle = NULL;
    memcpy(file->name, name, strlen(name) + 1);
    iqdb_result result;
    do result = volume->files.open_fn(volume->dir, name, kind, &file->handle, &os_code, volume->files.user);
    while (result == IQDB_ERR_NOSPACE && iq_volume_spend(volume));
    if (result != IQDB_OK) file->handle = NULL;
    if (result == IQDB_ERR_NOT_FOUND || (kind == IQDB_OPEN_CREATE && result == IQDB_ERR_INVALID_CONFIG)) return result;
    return iq_file_outcome(file, result, os_code, "the file cannot be opened");
}

IQ_FN void iq_file_close(iq_file *file) {
    if (IQ_HAS_FILES && file->handle != NULL) file->volume->files.close_fn(file->handle, file->volume->files.user);
    file->handle = NULL;
}

IQ_FN iqdb_result iq_file_size(const iq_file *file, uint64_t *out_size) {
    const iqdb_files *files = &file->volume->files;
    int os_code = 0;
    *out_size = 0;
    const iqdb_result result = files->size_fn(file->handle, out_size, &os_code, files->user);
    return iq_file_outcome(file, result, os_code, "the size of the file cannot be read");
}

IQ_FN iqdb_result iq_file_read(const iq_file *file, uint64_t offset, void *bytes, size_t size, size_t *out_size) {
    const iqdb_files *files = &file->volume->files;
    int os_code = 0;
    *out_size = 0;
    const iqdb_result result = files->read_fn(file->handle, offset, bytes, size, out_size, &os_code, files->user);
    return iq_file_outcome(file, result, os_code, "the file cannot be read");
}

IQ_FN iqdb_result iq_file_try_write(const iq_file *file, uint64_t offset, const void *bytes, size_t size,
                                    int *os_code) {
    const iqdb_files *files = &file->volume->files;
    *os_code = 0;
    const iqdb_result result = files->write_fn(file->handle, offset, bytes, size, os_code, files->user);
    return result == IQDB_OK || result == IQDB_ERR_NOSPACE ? result : IQDB_ERR_IO;
}

IQ_FN iqdb_result iq_file_try_reserve(const iq_file *file, uint64_t offset, uint64_t size, int *os_code) {
    const iqdb_files *files = &file->volume->files;
    *os_code = 0;
    if (files->reserve_fn == NULL) return IQDB_ERR_NOT_IMPLEMENTED;
    const iqdb_result result = files->reserve_fn(file->handle, offset, size, os_code, files->user);
    return result == IQDB_OK || result == IQDB_ERR_NOSPACE ? result : IQDB_ERR_NOT_IMPLEMENTED;
}

IQ_FN iqdb_result iq_file_map(const iq_file *file, uint64_t size, const uint8_t **out_bytes) {
    const iqdb_files *files = &file->volume->files;
    const void *bytes = NULL;
    int os_code;
    if (files->map_fn == NULL || files->unmap_fn == NULL) return IQDB_ERR_NOT_IMPLEMENTED;
    const iqdb_result result = files->map_fn(file->handle, size, &bytes, &os_code, files->user);
    *out_bytes = (const uint8_t *)bytes;
    return result == IQDB_OK ? result : IQDB_ERR_NOT_IMPLEMENTED;
}

IQ_FN void iq_file_start(const iq_file *file, uint64_t offset, uint64_t size) {
    const iqdb_files *files = &file->volume->files;
    if (files->start_fn != NULL) files->start_fn(file->handle, offset, size, files->user);
}

IQ_FN iqdb_result iq_file_write(const iq_file *file, uint64_t offset, const void *bytes, size_t size) {
    int os_code;
    iqdb_result result;
    do result = iq_file_try_write(file, offset, bytes, size, &os_code);
    while (result == IQDB_ERR_NOSPACE && iq_volume_spend(file->volume));
    return iq_file_outcome(file, result, os_code, "the file cannot be written");
}

/* Of a file, or, where that is NULL, of the directory. */
static iqdb_result iq_volume_wait(const iq_volume *volume, void *file, int *os_code) {
    const iqdb_files *files = &volume->files;
    iq_sync_tally *tally = volume->syncs;
    const iqdb_clock none = {NULL, NULL}, clock = tally != NULL ? tally->clock : none;
    const uint64_t began = clock.now_fn != NULL ? clock.now_fn(clock.user) : 0;
    *os_code = 0;
    const iqdb_result result = file != NULL ? files->sync_fn(file, os_code, files->user)
                                            : files->dir_sync_fn(volume->dir, os_code, files->user);
    if (tally != NULL) IQ_ATOMIC_ADD(&tally->count, 1);
    if (tally != NULL && result == IQDB_OK && *os_code != 0) IQ_ATOMIC_ADD(&tally->weak, 1);
    if (clock.now_fn != NULL) IQ_ATOMIC_ADD(&tally->us, clock.now_fn(clock.user) - began);
    return result == IQDB_OK ? IQDB_OK : IQDB_ERR_IO;
}

IQ_FN iqdb_result iq_file_try_sync(const iq_file *file, int *os_code) {
    return iq_volume_wait(file->volume, file->handle, os_code);
}

IQ_FN iqdb_result iq_file_synced(const iq_file *file, iqdb_result result, int os_code) {
    return iq_file_outcome(file, result, os_code, "the file cannot be synced");
}

IQ_FN iqdb_result iq_file_sync(const iq_file *file) {
    int os_code;
    const iqdb_result result = iq_file_try_sync(file, &os_code);
    return iq_file_synced(file, result, os_code);
}

IQ_FN iqdb_result iq_file_lock(const iq_file *file, bool exclusive) {
    const iqdb_files *files = &file->volume->files;
    int os_code = 0;
    const iqdb_result result = files->lock_fn(file->handle, exclusive, &os_code, files->user);
    if (result == IQDB_OK) return result;
    const bool is_locked = result == IQDB_ERR_LOCKED;
    return iq_report_os(file->volume->reporter, is_locked ? result : IQDB_ERR_IO, file->name, os_code,
                        is_locked ? "the database is open elsewhere" : "the file cannot be locked");
}

IQ_FN iqdb_result iq_volume_sync(const iq_volume *volume) {
    int os_code;
    if (iq_volume_wait(volume, NULL, &os_code) == IQDB_OK) return IQDB_OK;
    return iq_report_os(volume->reporter, IQDB_ERR_IO, NULL, os_code, "the directory cannot be synced");
}

IQ_FN bool iq_volume_remove(const iq_volume *volume, const char *name) {
    int os_code = 0;
    const iqdb_result result = volume->files.remove_fn(volume->dir, name, &os_code, volume->files.user);
    if (result == IQDB_OK || result == IQDB_ERR_NOT_FOUND) return true;
    iq_log(volume->reporter, IQDB_LEVEL_WARNING, name, 0, "a file that is not needed any more cannot be removed");
    return false;
}

IQ_FN bool iq_volume_spend(const iq_volume *volume) {
    int os_code;
    return volume->spends &&
           volume->files.remove_fn(volume->dir, IQ_BALLAST_NAME, &os_code, volume->files.user) == IQDB_OK;
}

/* Of noise, which no file system makes smaller. It is not synced: its loss costs nothing. */
IQ_FN void iq_volume_make_ballast(const iq_volume *volume) {
    const iq_volume silent = iq_volume_silent(volume);
    uint8_t *noise = NULL;
    uint64_t size = 0;
    iq_file file;
    iqdb_result result = iq_file_open(&file, &silent, IQ_BALLAST_NAME, IQDB_OPEN_WRITE);
    if (result == IQDB_ERR_NOT_FOUND) result = iq_file_open(&file, &silent, IQ_BALLAST_NAME, IQDB_OPEN_CREATE);
    if (result == IQDB_OK) result = iq_file_size(&file, &size);
    if (result == IQDB_OK && size < IQ_BALLAST_SIZE) {
        noise = (uint8_t *)iq_alloc(&volume->allocator, IQ_BALLAST_PART, 16);
        if (noise == NULL) result = IQDB_ERR_NOMEM;
    }
    for (; result == IQDB_OK && size < IQ_BALLAST_SIZE; size += IQ_BALLAST_PART) {
        for (size_t i = 0; i < IQ_BALLAST_PART; i += 8) iq_put_u64(noise + i, iq_hash_u64(size + i));
        result = iq_file_write(&file, size, noise, IQ_BALLAST_PART);
    }
    iq_free(&volume->allocator, noise, IQ_BALLAST_PART, 16);
    iq_file_close(&file);
    if (result != IQDB_OK) (void)iq_volume_remove(&silent, IQ_BALLAST_NAME); /* others want what is left */
}

IQ_FN iqdb_result iq_volume_create(iq_file *file, const iq_volume *volume, const char *prefix, uint64_t *number) {
    char name[IQ_FILE_NAME_SIZE];
    for (uint32_t tries = 0; tries < IQ_NAME_TRIES && *number <= IQ_NUMBER_MAX; tries++, ++*number) {
        iq_volume_name(name, prefix, *number);
        const iqdb_result result = iq_file_open(file, volume, name, IQDB_OPEN_CREATE);
        if (result == IQDB_ERR_NOT_FOUND)
            return iq_report(volume->reporter, IQDB_ERR_IO, name, 0, "the directory has gone away");
        if (result != IQDB_ERR_INVALID_CONFIG) return result;
    }
    return iq_report(volume->reporter, IQDB_ERR_LIMIT, prefix, 0, "no number is left for another file");
}

static void iq_volume_list_each(const char *name, void *user) {
    iq_numbers *numbers = (iq_numbers *)user;
    uint64_t number;
    if (numbers->result == IQDB_OK && iq_volume_number(name, numbers->prefix, &number))
        numbers->result = iq_blob_append(&numbers->blob, &number, sizeof number);
}

IQ_FN iqdb_result iq_volume_list(const iq_volume *volume, const char *prefix, iq_numbers *out_numbers) {
    int os_code = 0;
    memset(out_numbers, 0, sizeof *out_numbers);
    out_numbers->blob.allocator = &volume->allocator;
    out_numbers->prefix = prefix;
    iqdb_result result =
        volume->files.dir_list_fn(volume->dir, iq_volume_list_each, out_numbers, &os_code, volume->files.user);
    result = iq_volume_outcome(volume, NULL, result, os_code, "the directory cannot be listed");
    out_numbers->items = (const uint64_t *)(const void *)out_numbers->blob.bytes;
    out_numbers->count = out_numbers->blob.size / sizeof(uint64_t);
    if (result != IQDB_OK || out_numbers->result == IQDB_OK) return result;
    return iq_report(volume->reporter, out_numbers->result, NULL, 0, "no memory for the names of the directory");
}

IQ_FN iqdb_result iq_file_report_text(const iq_file *file, iqdb_result code, uint64_t offset, uint64_t lsn,
                                      const char *text) {
    iqdb_error error = iq_error_make(code, file->name, offset, text);
    error.lsn = lsn;
    return iq_report_error(file->volume->reporter, &error);
}
