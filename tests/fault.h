/* A file layer for tests: counts, fails and records calls, fills the disk, and pulls the plug.
 *
 *   fault_files *disk = fault_new(NULL);              a disk in memory
 *   options.files = fault_table(disk);
 *
 *   fault_calls(disk, FAULT_SYNC | FAULT_DIR_SYNC)    calls of these kinds so far, failed ones included
 *   disk->open_files, disk->open_dirs                 handles not yet closed
 *   disk->recording = true;                           from here on disk->trace[0 .. disk->trace_count - 1] has each call
 *   fault_print(disk);                                prints it
 *   disk->space = 100000;                             writes that take all files beyond it are NOSPACE, half done
 *   disk->after_fn = f; disk->after_user = u;         f(disk, u) after each call that changed or synced something
 *
 *   fault_fail_nth(disk, FAULT_WRITE | FAULT_SYNC, 3, IQDB_ERR_IO, false);
 *       The third of these calls from now on fails and has done nothing; `sticky`: all later ones as well. n = 0: none.
 *   disk->partial = 100;                              a failing write has written this much first (SIZE_MAX: all of it)
 *   disk->drop_on_sync_failure = true;                what a failed sync left behind is clean to later syncs, as on ext4
 *   disk->failed                                      calls that were failed
 *
 * The power cut. What is written is in doubt until the file is synced, entries made and removed until the directory is.
 * Each thing in doubt is an item (fault_item); a cut decides the fate of each, and gives a new disk on which nothing is
 * in doubt. A sector that was written several times may have any of these versions, 0 being the one before; a size and
 * an entry likewise. A sector in flight may also be torn, all zeros or garbage, what was in it before included.
 *
 *   fault_pending(disk)                               the number of items
 *   fault_crash(disk, choose, user)                   a new disk; choose(item, user) decides
 *   fault_copy(disk)                                  everything kept
 *   fault_crashes(disk, FAULT_TEAR | FAULT_GARBAGE, 2000, seed, check, user)
 *       Every subset kept or lost while there are at most FAULT_EXHAUSTIVE items, else 2000 random ones; with damage
 *       also each sector torn at 8 places, zero or garbage while all others are kept, then lost. Each state is given to
 *       check(state, what, user) and freed; `what` describes it. Ends where check says false; returns how many were made.
 *
 * fault_load and fault_store read and replace a whole file past all counting, to plant damage. fault_over wraps any
 * other table: all of the above but power cuts. A disk is for one thread at a time. Its own memory is malloc's. */
#ifndef FAULT_H
#define FAULT_H

#include "base/hash.h"
#include "sys/sys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define FAULT_DIR_OPEN 1u
#define FAULT_DIR_SYNC 2u
#define FAULT_DIR_LIST 4u
#define FAULT_REMOVE 8u
#define FAULT_OPEN 16u
#define FAULT_SIZE 32u
#define FAULT_READ 64u
#define FAULT_WRITE 128u
#define FAULT_SYNC 256u
#define FAULT_LOCK 512u
#define FAULT_ANY 1023u
#define FAULT_KINDS 10

typedef struct fault_event {
    unsigned kind; /* FAULT_READ and so on */
    char name[32];
    uint64_t offset, size; /* of reads and writes as asked for; of an open: its kind in `size` */
    iqdb_result result;
} fault_event;

typedef struct fault_sector {
    uint64_t index;
    size_t count; /* versions written since the last sync */
    uint8_t *versions;
    bool dropped; /* by a failed sync: later ones do not reach it */
} fault_sector;

typedef struct fault_inode {
    struct fault_inode *next;
    uint8_t *durable; /* durable_size bytes */
    uint64_t durable_size, size;
    uint64_t *sizes; /* since the last sync */
    size_t size_count;
    fault_sector *sectors;
    size_t sector_count;
    size_t links;  /* durable entries and undecided creations that lead here */
    size_t opened; /* handles */
    bool alive;    /* has a name now */
} fault_inode;

typedef struct fault_entry {
    char name[32];
    fault_inode *inode;
    bool removes;
} fault_entry;

typedef struct fault_entries {
    fault_entry *at;
    size_t count;
} fault_entries;

typedef struct fault_directory {
    struct fault_directory *next;
    char *path;
    fault_entries live, durable, pending;
} fault_directory;

typedef struct fault_files {
    size_t failed, open_files, open_dirs;
    uint64_t space;
    size_t partial;
    bool drop_on_sync_failure, recording;
    fault_event *trace;
    size_t trace_count;
    size_t sector_size; /* 4096; to be changed before the first write */
    void (*after_fn)(struct fault_files *disk, void *user);
    void *after_user;
    /* inside */
    iqdb_files inner;
    iq_memory_files *memory; /* NULL: no power cuts */
    fault_directory *directories;
    fault_inode *inodes;
    size_t calls[FAULT_KINDS];
    unsigned fail_kinds;
    size_t fail_in;
    iqdb_result fail_code;
    bool fail_sticky;
} fault_files;

typedef struct fault_dir_handle {
    void *inner;
    fault_directory *directory;
} fault_dir_handle;

typedef struct fault_file_handle {
    void *inner;
    fault_inode *inode;
    char name[32];
} fault_file_handle;

/* ---- The parts of the model ---- */

static inline void fault_no_memory(void) {
    fprintf(stderr, "fault.h: out of memory\n");
    exit(2);
}

static inline void *fault_grow(void *memory, size_t size) {
    memory = realloc(memory, size > 0 ? size : 1);
    if (memory == NULL) fault_no_memory();
    return memory;
}

static inline void fault_name(char to[32], const char *name) {
    if (strlen(name) > 31) {
        fprintf(stderr, "fault.h: the name %s does not fit in 32 bytes\n", name);
        exit(2);
    }
    memset(to, 0, 32);
    memcpy(to, name, strlen(name));
}

static inline fault_entry *fault_find(const fault_entries *entries, const char *name) {
    for (size_t i = 0; i < entries->count; i++)
        if (strcmp(entries->at[i].name, name) == 0) return &entries->at[i];
    return NULL;
}

static inline void fault_add(fault_entries *entries, const char *name, fault_inode *inode, bool removes) {
    entries->at = fault_grow(entries->at, (entries->count + 1) * sizeof *entries->at);
    fault_entry *entry = &entries->at[entries->count++];
    fault_name(entry->name, name);
    entry->inode = inode;
    entry->removes = removes;
}

/* Makes or removes a name; what is there already, or not, stays so. */
static inline void fault_apply(fault_entries *entries, const fault_entry *change) {
    fault_entry *entry = fault_find(entries, change->name);
    if (entry != NULL && change->removes)
        *entry = entries->at[--entries->count];
    else if (entry != NULL)
        entry->inode = change->inode;
    else if (!change->removes)
        fault_add(entries, change->name, change->inode, false);
}

static inline void fault_settle(fault_inode *inode) {
    for (size_t i = 0; i < inode->sector_count; i++) free(inode->sectors[i].versions);
    inode->sector_count = inode->size_count = 0;
}

/* Frees what no name and no handle can reach any more. */
static inline void fault_sweep(fault_files *disk) {
    for (fault_inode **place = &disk->inodes; *place != NULL;) {
        fault_inode *inode = *place;
        if (inode->links > 0 || inode->alive || inode->opened > 0) {
            place = &inode->next;
            continue;
        }
        *place = inode->next;
        fault_settle(inode);
        free(inode->sectors);
        free(inode->sizes);
        free(inode->durable);
        free(inode);
    }
}

static inline void fault_count_links(fault_files *disk) {
    for (fault_inode *inode = disk->inodes; inode != NULL; inode = inode->next) inode->links = 0;
    for (fault_directory *d = disk->directories; d != NULL; d = d->next) {
        for (size_t i = 0; i < d->durable.count; i++) d->durable.at[i].inode->links++;
        for (size_t i = 0; i < d->pending.count; i++)
            if (!d->pending.at[i].removes) d->pending.at[i].inode->links++;
    }
    fault_sweep(disk);
}

static inline fault_inode *fault_new_inode(fault_files *disk) {
    fault_inode *inode = memset(fault_grow(NULL, sizeof *inode), 0, sizeof *inode);
    inode->next = disk->inodes;
    inode->alive = true;
    return disk->inodes = inode;
}

static inline fault_directory *fault_directory_of(fault_files *disk, const char *path) {
    size_t size = strlen(path);
    while (size > 1 && path[size - 1] == '/') size--;
    fault_directory *d = disk->directories;
    while (d != NULL && (strlen(d->path) != size || memcmp(d->path, path, size) != 0)) d = d->next;
    if (d != NULL) return d;
    d = memset(fault_grow(NULL, sizeof *d), 0, sizeof *d);
    d->path = fault_grow(NULL, size + 1);
    memcpy(d->path, path, size);
    d->path[size] = 0;
    d->next = disk->directories;
    return disk->directories = d;
}

/* Version 0 of a sector is the durable one; zeros where the file had not come so far. */
static inline void fault_version(const fault_files *disk, const fault_inode *inode, uint64_t index,
                                 const fault_sector *sector, size_t version, uint8_t *out) {
    const uint64_t start = index * disk->sector_size;
    if (version > 0) {
        memcpy(out, sector->versions + (version - 1) * disk->sector_size, disk->sector_size);
        return;
    }
    memset(out, 0, disk->sector_size);
    if (start >= inode->durable_size) return;
    const uint64_t left = inode->durable_size - start;
    memcpy(out, inode->durable + start, left < disk->sector_size ? (size_t)left : disk->sector_size);
}

static inline fault_sector *fault_sector_of(fault_inode *inode, uint64_t index) {
    for (size_t i = inode->sector_count; i > 0; i--)
        if (inode->sectors[i - 1].index == index) return &inode->sectors[i - 1];
    inode->sectors = fault_grow(inode->sectors, (inode->sector_count + 1) * sizeof(fault_sector));
    fault_sector *sector = &inode->sectors[inode->sector_count++];
    memset(sector, 0, sizeof *sector);
    sector->index = index;
    return sector;
}

static inline void fault_note_write(fault_files *disk, fault_inode *inode, uint64_t offset, const void *bytes,
                                    size_t size) {
    const uint8_t *source = (const uint8_t *)bytes;
    for (size_t done = 0; done < size;) {
        const uint64_t index = (offset + done) / disk->sector_size;
        const size_t within = (size_t)((offset + done) % disk->sector_size);
        const size_t part = size - done < disk->sector_size - within ? size - done : disk->sector_size - within;
        fault_sector *sector = fault_sector_of(inode, index);
        sector->versions = fault_grow(sector->versions, (sector->count + 1) * disk->sector_size);
        uint8_t *version = sector->versions + sector->count * disk->sector_size;
        fault_version(disk, inode, index, sector, sector->count, version);
        memcpy(version + within, source + done, part);
        sector->count++;
        sector->dropped = false;
        done += part;
    }
    if (offset + size <= inode->size) return;
    inode->size = offset + size;
    inode->sizes = fault_grow(inode->sizes, (inode->size_count + 1) * sizeof(uint64_t));
    inode->sizes[inode->size_count++] = inode->size;
}

static inline void fault_resize_durable(fault_inode *inode, uint64_t size) {
    inode->durable = fault_grow(inode->durable, (size_t)size);
    if (size > inode->durable_size)
        memset(inode->durable + inode->durable_size, 0, (size_t)(size - inode->durable_size));
    inode->durable_size = size;
}

static inline void fault_note_sync(fault_files *disk, fault_inode *inode) {
    size_t kept = 0;
    fault_resize_durable(inode, inode->size);
    for (size_t i = 0; i < inode->sector_count; i++) {
        fault_sector sector = inode->sectors[i];
        if (sector.dropped) {
            inode->sectors[kept++] = sector;
            continue;
        }
        const uint64_t start = sector.index * disk->sector_size, left = inode->size - start;
        memcpy(inode->durable + start, sector.versions + (sector.count - 1) * disk->sector_size,
               left < disk->sector_size ? (size_t)left : disk->sector_size);
        free(sector.versions);
    }
    inode->sector_count = kept;
    inode->size_count = 0;
}

/* ---- What each call goes through ---- */

/* Whether this call is to fail. */
static inline bool fault_strikes(fault_files *disk, unsigned kind, int *os_code) {
    for (unsigned i = 0; i < FAULT_KINDS; i++) disk->calls[i] += kind >> i & 1;
    if (disk->fail_in == 0 || (disk->fail_kinds & kind) == 0) return false;
    if (disk->fail_in > 1) {
        disk->fail_in--;
        return false;
    }
    if (!disk->fail_sticky) disk->fail_in = 0;
    disk->failed++;
    *os_code = disk->fail_code == IQDB_ERR_NOSPACE ? ENOSPC : EIO;
    return true;
}
#define FAULT_TRY(kind, call) (fault_strikes(disk, kind, os_code) ? disk->fail_code : (call))

static inline iqdb_result fault_done(fault_files *disk, unsigned kind, const char *name, uint64_t offset, uint64_t size,
                                     iqdb_result result, bool changed) {
    if (disk->recording) {
        disk->trace = fault_grow(disk->trace, (disk->trace_count + 1) * sizeof *disk->trace);
        fault_event *event = &disk->trace[disk->trace_count++];
        memset(event, 0, sizeof *event);
        snprintf(event->name, sizeof event->name, "%s", name);
        event->kind = kind;
        event->offset = offset;
        event->size = size;
        event->result = result;
    }
    if (changed && disk->after_fn != NULL) disk->after_fn(disk, disk->after_user);
    return result;
}

static inline iqdb_result fault_dir_open(const char *path, bool create, void **out_dir, int *os_code, void *user) {
    fault_files *disk = user;
    fault_dir_handle handle = {NULL, NULL};
    const iqdb_result result =
        FAULT_TRY(FAULT_DIR_OPEN, disk->inner.dir_open_fn(path, create, &handle.inner, os_code, disk->inner.user));
    if (result == IQDB_OK) {
        handle.directory = fault_directory_of(disk, path);
        *out_dir = memcpy(fault_grow(NULL, sizeof handle), &handle, sizeof handle);
        disk->open_dirs++;
    }
    return fault_done(disk, FAULT_DIR_OPEN, "", 0, create, result, false);
}

static inline void fault_dir_close(void *dir, void *user) {
    fault_files *disk = user;
    disk->inner.dir_close_fn(((fault_dir_handle *)dir)->inner, disk->inner.user);
    disk->open_dirs--;
    free(dir);
}

static inline iqdb_result fault_dir_sync(void *dir, int *os_code, void *user) {
    fault_files *disk = user;
    fault_dir_handle *handle = dir;
    const iqdb_result result =
        FAULT_TRY(FAULT_DIR_SYNC, disk->inner.dir_sync_fn(handle->inner, os_code, disk->inner.user));
    if (result == IQDB_OK) {
        fault_entries *pending = &handle->directory->pending;
        for (size_t i = 0; i < pending->count; i++) fault_apply(&handle->directory->durable, &pending->at[i]);
        pending->count = 0;
        fault_count_links(disk);
    }
    return fault_done(disk, FAULT_DIR_SYNC, "", 0, 0, result, result == IQDB_OK);
}

static inline iqdb_result fault_dir_list(void *dir, void (*each_fn)(const char *name, void *each_user), void *each_user,
                                         int *os_code, void *user) {
    fault_files *disk = user;
    fault_dir_handle *handle = dir;
    const iqdb_result result = FAULT_TRY(
        FAULT_DIR_LIST, disk->inner.dir_list_fn(handle->inner, each_fn, each_user, os_code, disk->inner.user));
    return fault_done(disk, FAULT_DIR_LIST, "", 0, 0, result, false);
}

static inline void fault_note_entry(fault_files *disk, fault_directory *directory, const char *name, fault_inode *inode,
                                    bool removes) {
    fault_add(&directory->pending, name, inode, removes);
    fault_apply(&directory->live, &directory->pending.at[directory->pending.count - 1]);
    fault_count_links(disk);
}

static inline iqdb_result fault_remove(void *dir, const char *name, int *os_code, void *user) {
    fault_files *disk = user;
    fault_dir_handle *handle = dir;
    const iqdb_result result =
        FAULT_TRY(FAULT_REMOVE, disk->inner.remove_fn(handle->inner, name, os_code, disk->inner.user));
    fault_entry *entry = fault_find(&handle->directory->live, name);
    if (result == IQDB_OK && entry != NULL) {
        entry->inode->alive = false;
        fault_note_entry(disk, handle->directory, name, NULL, true);
    }
    return fault_done(disk, FAULT_REMOVE, name, 0, 0, result, result == IQDB_OK);
}

static inline iqdb_result fault_open(void *dir, const char *name, iqdb_open_kind kind, void **out_file, int *os_code,
                                     void *user) {
    fault_files *disk = user;
    fault_dir_handle *parent = dir;
    fault_file_handle handle = {NULL, NULL, ""};
    fault_name(handle.name, name);
    const iqdb_result result =
        FAULT_TRY(FAULT_OPEN, disk->inner.open_fn(parent->inner, name, kind, &handle.inner, os_code, disk->inner.user));
    if (result == IQDB_OK) {
        fault_entry *entry = fault_find(&parent->directory->live, name);
        if (entry != NULL) {
            handle.inode = entry->inode;
        } else if (disk->memory != NULL) {
            handle.inode = fault_new_inode(disk);
            fault_note_entry(disk, parent->directory, name, handle.inode, false);
        }
        if (handle.inode != NULL) handle.inode->opened++;
        *out_file = memcpy(fault_grow(NULL, sizeof handle), &handle, sizeof handle);
        disk->open_files++;
    }
    return fault_done(disk, FAULT_OPEN, name, 0, (uint64_t)kind, result, result == IQDB_OK && kind == IQDB_OPEN_CREATE);
}

static inline void fault_close(void *file, void *user) {
    fault_files *disk = user;
    fault_file_handle *handle = file;
    disk->inner.close_fn(handle->inner, disk->inner.user);
    if (handle->inode != NULL) handle->inode->opened--;
    disk->open_files--;
    fault_sweep(disk);
    free(handle);
}

static inline iqdb_result fault_size(void *file, uint64_t *out_size, int *os_code, void *user) {
    fault_files *disk = user;
    fault_file_handle *handle = file;
    const iqdb_result result =
        FAULT_TRY(FAULT_SIZE, disk->inner.size_fn(handle->inner, out_size, os_code, disk->inner.user));
    return fault_done(disk, FAULT_SIZE, handle->name, 0, 0, result, false);
}

static inline iqdb_result fault_read(void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size,
                                     int *os_code, void *user) {
    fault_files *disk = user;
    fault_file_handle *handle = file;
    const iqdb_result result = FAULT_TRY(
        FAULT_READ, disk->inner.read_fn(handle->inner, offset, bytes, size, out_size, os_code, disk->inner.user));
    return fault_done(disk, FAULT_READ, handle->name, offset, size, result, false);
}

/* How much of a write still fits on the disk. */
static inline size_t fault_room(const fault_files *disk, const fault_inode *inode, uint64_t offset, size_t size) {
    uint64_t used = 0;
    if (disk->space == 0 || inode == NULL || offset + size <= inode->size) return size;
    for (const fault_inode *i = disk->inodes; i != NULL; i = i->next)
        used += i != inode && (i->alive || i->opened > 0) ? i->size : 0;
    const uint64_t end = disk->space > used ? disk->space - used : 0;
    return end >= offset + size ? size : end > offset ? (size_t)(end - offset) : 0;
}

static inline iqdb_result fault_write(void *file, uint64_t offset, const void *bytes, size_t size, int *os_code,
                                      void *user) {
    fault_files *disk = user;
    fault_file_handle *handle = file;
    iqdb_result result = IQDB_OK;
    size_t part = fault_room(disk, handle->inode, offset, size);
    int failure = ENOSPC;
    if (part < size) result = IQDB_ERR_NOSPACE;
    if (fault_strikes(disk, FAULT_WRITE, &failure)) {
        result = disk->fail_code;
        part = size < disk->partial ? size : disk->partial;
    }
    const bool reaches = part > 0 || result == IQDB_OK;
    const iqdb_result inner =
        reaches ? disk->inner.write_fn(handle->inner, offset, bytes, part, os_code, disk->inner.user) : IQDB_OK;
    if (inner == IQDB_OK && part > 0 && handle->inode != NULL)
        fault_note_write(disk, handle->inode, offset, bytes, part);
    if (inner != IQDB_OK)
        result = inner;
    else if (result != IQDB_OK)
        *os_code = failure;
    return fault_done(disk, FAULT_WRITE, handle->name, offset, size, result, inner == IQDB_OK && part > 0);
}

static inline iqdb_result fault_sync(void *file, int *os_code, void *user) {
    fault_files *disk = user;
    fault_file_handle *handle = file;
    iqdb_result result = disk->fail_code;
    const bool struck = fault_strikes(disk, FAULT_SYNC, os_code);
    if (!struck) result = disk->inner.sync_fn(handle->inner, os_code, disk->inner.user);
    if (result == IQDB_OK && handle->inode != NULL) fault_note_sync(disk, handle->inode);
    if (struck && handle->inode != NULL && disk->drop_on_sync_failure)
        for (size_t i = 0; i < handle->inode->sector_count; i++) handle->inode->sectors[i].dropped = true;
    return fault_done(disk, FAULT_SYNC, handle->name, 0, 0, result, result == IQDB_OK);
}

static inline iqdb_result fault_lock(void *file, bool exclusive, int *os_code, void *user) {
    fault_files *disk = user;
    fault_file_handle *handle = file;
    const iqdb_result result =
        FAULT_TRY(FAULT_LOCK, disk->inner.lock_fn(handle->inner, exclusive, os_code, disk->inner.user));
    return fault_done(disk, FAULT_LOCK, handle->name, 0, exclusive, result, false);
}

/* ---- Disks ---- */

static inline fault_files *fault_over(iqdb_files inner) {
    fault_files *disk = memset(fault_grow(NULL, sizeof *disk), 0, sizeof *disk);
    disk->inner = inner;
    disk->sector_size = 4096;
    return disk;
}

/* allocator: of the files' contents; NULL is the default one. */
static inline fault_files *fault_new(const iqdb_allocator *allocator) {
    const iqdb_allocator fallback = iq_alloc_default();
    iq_memory_files *memory = iq_memory_files_new(allocator != NULL ? allocator : &fallback);
    if (memory == NULL) return NULL;
    fault_files *disk = fault_over(iq_memory_files_table(memory));
    disk->memory = memory;
    return disk;
}

/* Open handles die with a disk of fault_new; those of another table stay its own. NULL is fine. */
static inline void fault_free(fault_files *disk) {
    if (disk == NULL) return;
    while (disk->directories != NULL) {
        fault_directory *directory = disk->directories;
        disk->directories = directory->next;
        free(directory->live.at);
        free(directory->durable.at);
        free(directory->pending.at);
        free(directory->path);
        free(directory);
    }
    for (fault_inode *inode = disk->inodes; inode != NULL; inode = inode->next) {
        inode->links = inode->opened = 0;
        inode->alive = false;
    }
    fault_sweep(disk);
    iq_memory_files_free(disk->memory);
    free(disk->trace);
    free(disk);
}

static inline iqdb_files fault_table(fault_files *disk) {
    const iqdb_files files = {
        fault_dir_open, fault_dir_close, fault_dir_sync, fault_dir_list, fault_remove, fault_open, fault_close,
        fault_size,     fault_read,      fault_write,    fault_sync,     fault_lock,   disk};
    return files;
}

static inline void fault_print(const fault_files *disk) {
    static const char *const names[FAULT_KINDS] = {"dir_open", "dir_sync", "dir_list", "remove", "open",
                                                   "size",     "read",     "write",    "sync",   "lock"};
    for (size_t i = 0; i < disk->trace_count; i++) {
        const fault_event *event = &disk->trace[i];
        unsigned kind = 0;
        while (event->kind >> kind > 1) kind++;
        printf("    %zu: %s %s at %llu, %llu: %d\n", i, names[kind], event->name, (unsigned long long)event->offset,
               (unsigned long long)event->size, (int)event->result);
    }
}

static inline size_t fault_calls(const fault_files *disk, unsigned kinds) {
    size_t count = 0;
    for (unsigned i = 0; i < FAULT_KINDS; i++) count += (kinds >> i & 1) != 0 ? disk->calls[i] : 0;
    return count;
}

static inline void fault_fail_nth(fault_files *disk, unsigned kinds, size_t n, iqdb_result code, bool sticky) {
    disk->fail_kinds = kinds;
    disk->fail_in = n;
    disk->fail_code = code;
    disk->fail_sticky = sticky;
}

/* The whole file in malloc's memory, or NULL where there is none. */
static inline uint8_t *fault_load(fault_files *disk, const char *path, const char *name, size_t *out_size) {
    const iqdb_files *files = &disk->inner;
    void *dir, *file;
    int os_code;
    uint64_t size = 0;
    uint8_t *bytes = NULL;
    if (files->dir_open_fn(path, false, &dir, &os_code, files->user) != IQDB_OK) return NULL;
    if (files->open_fn(dir, name, IQDB_OPEN_READ, &file, &os_code, files->user) == IQDB_OK) {
        if (files->size_fn(file, &size, &os_code, files->user) == IQDB_OK) bytes = fault_grow(NULL, (size_t)size);
        if (bytes != NULL) files->read_fn(file, 0, bytes, (size_t)size, out_size, &os_code, files->user);
        files->close_fn(file, files->user);
    }
    files->dir_close_fn(dir, files->user);
    return bytes;
}

/* The file holds these bytes, durably; bytes NULL: it does not exist. False where the layer below refuses. */
static inline bool fault_store(fault_files *disk, const char *path, const char *name, const void *bytes, size_t size) {
    const iqdb_files *files = &disk->inner;
    void *dir, *file;
    int os_code;
    if (files->dir_open_fn(path, true, &dir, &os_code, files->user) != IQDB_OK) return false;
    const iqdb_result removed = files->remove_fn(dir, name, &os_code, files->user);
    bool ok = removed == IQDB_OK || removed == IQDB_ERR_NOT_FOUND;
    if (ok && bytes != NULL) {
        ok = files->open_fn(dir, name, IQDB_OPEN_CREATE, &file, &os_code, files->user) == IQDB_OK;
        if (ok) {
            ok = files->write_fn(file, 0, bytes, size, &os_code, files->user) == IQDB_OK;
            files->close_fn(file, files->user);
        }
    }
    files->dir_close_fn(dir, files->user);
    if (disk->memory == NULL || !ok) return ok;
    fault_directory *directory = fault_directory_of(disk, path);
    fault_entry change, *old = fault_find(&directory->live, name);
    if (old != NULL) old->inode->alive = false;
    fault_name(change.name, name);
    change.removes = bytes == NULL;
    change.inode = bytes == NULL ? NULL : fault_new_inode(disk);
    if (bytes != NULL) {
        fault_resize_durable(change.inode, size);
        if (size > 0) memcpy(change.inode->durable, bytes, size);
        change.inode->size = size;
    }
    fault_apply(&directory->live, &change);
    fault_apply(&directory->durable, &change);
    size_t kept = 0; /* what was undecided about this name is decided */
    for (size_t i = 0; i < directory->pending.count; i++)
        if (strcmp(directory->pending.at[i].name, name) != 0) directory->pending.at[kept++] = directory->pending.at[i];
    directory->pending.count = kept;
    fault_count_links(disk);
    return true;
}

#include "fault_cut.h"

#endif
