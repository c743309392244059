/* A file layer for tests: counts, fails and records calls, fills the disk, and pulls the plug.
 *
 *   fault_files *disk = fault_new(NULL);              a disk in memory
 *   options.files = fault_table(disk);
 *
 *   fault_calls(disk, FAULT_SYNC | FAULT_DIR_SYNC)    calls of these kinds so far, failed ones included
 *   disk->open_files, disk->open_dirs                 handles not yet closed
 *   disk->recording = true;                           from here on disk->trace[0 .. disk->trace_count - 1] has each call
 *   fault_print(disk);                                prints it
 *   disk->ballast = true;                             from here on there may be a file of this name, else it finds no space
 *   disk->space = 100000;                             writes that take all files beyond it are NOSPACE, half done
 *   disk->after_fn = f; disk->after_user = u;         f(disk, u) after each call that changed or synced something
 *
 *   fault_fail_nth(disk, FAULT_WRITE | FAULT_SYNC, 3, IQDB_ERR_IO, false);
 *       The third of these calls from now on fails and has done nothing; `sticky`: all later ones as well. n = 0: none.
 *   disk->partial = 100;                              a failing write has written this much first (SIZE_MAX: all of it)
 *   disk->drop_on_sync_failure = true;                what a failed sync left behind is clean to later syncs, as on ext4
 *   disk->plan.name = "snap";                         only calls on files whose names begin so fail; NULL: any
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
 *       Every subset kept or lost while there are at most FAULT_EXHAUSTIVE items that matter (a sector that was
 *       zeros and was written with zeros does not), else 2000 random ones; with damage also each sector torn at 8
 *       places, zero or garbage while all others are kept, then lost. Each state is given to
 *       check(state, what, user) and freed; `what` describes it. Ends where check says false; returns how many were made.
 *   fault_crashes_some(disk, ..., 2000, limit, seed, check, user)
 *       Where there are more than `limit` of those, about so many, chosen by the seed.
 *
 * fault_load and fault_store read and replace a whole file past all counting, fault_poke changes bytes in place under
 * whoever has the file open: to plant damage. fault_digest is a number that follows from all that is durable: disks with
 * the same one hold the same. fault_over wraps any other table: all of the above but power cuts.
 *
 * Contents are pages of one sector, counted and shared between disks until one of them writes; NULL is a page of zeros.
 * So a disk costs as much as its list of pages, and disks by the hundred thousand can be made and compared. Names and
 * locks are those of files in memory (sys/memory.c). All disks that share pages are for one thread. */
#ifndef FAULT_H
#define FAULT_H

#include "base/hash.h"
#include "sys/memory.h"
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

typedef struct fault_page {
    size_t owners;
    uint64_t hash; /* 0: not known yet */
    uint8_t bytes[];
} fault_page;

typedef struct fault_pages {
    fault_page **at;
    size_t count, capacity;
} fault_pages;

typedef struct fault_sector {
    uint64_t index;
    fault_pages versions; /* written since the last sync */
    bool dropped;         /* by a failed sync: later ones do not reach it */
} fault_sector;

typedef struct fault_inode {
    struct fault_inode *next;
    fault_pages durable, live;
    uint64_t durable_size, size;
    uint64_t *sizes; /* since the last sync */
    size_t size_count;
    fault_sector *sectors;
    size_t sector_count, sector_capacity;
    uint64_t sector_highest;
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

/* What is to fail: of the calls of these kinds on files whose names begin so the one that counts `in` down to 0. */
typedef struct fault_plan {
    unsigned kinds;
    size_t in;
    iqdb_result code;
    bool sticky;
    const char *name;
} fault_plan;

typedef struct fault_files {
    size_t failed, open_files, open_dirs, open_maps;
    uint64_t space;
    size_t partial;
    bool drop_on_sync_failure, recording, ballast;
    fault_plan plan;
    fault_event *trace;
    size_t trace_count;
    size_t sector_size; /* 4096; to be changed before the first write */
    void (*after_fn)(struct fault_files *disk, void *user);
    void *after_user;
    void (*before_sync_fn)(void *user); /* of a file */
    void *before_sync_user;
    /* inside */
    iqdb_files inner;
    iq_memory_files *memory; /* NULL: no power cuts */
    fault_directory *directories;
    fault_inode *inodes;
    size_t calls[FAULT_KINDS];
} fault_files;

typedef struct fault_dir_handle {
    void *inner;
    fault_directory *directory;
} fault_dir_handle;

typedef struct fault_file_handle {
    void *inner;
    fault_inode *inode;
    bool writable;
    char name[32];
} fault_file_handle;

#define FAULT_FILE_MAX (UINT64_C(1) << 30) /* more is NOSPACE */

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

/* ---- Pages ---- */

static inline fault_page *fault_share(fault_page *page) {
    if (page != NULL) page->owners++;
    return page;
}

static inline void fault_drop(fault_page *page) {
    if (page != NULL && --page->owners == 0) free(page);
}

static inline void fault_drop_all(fault_pages *pages) {
    for (size_t i = 0; i < pages->count; i++) fault_drop(pages->at[i]);
    free(pages->at);
    memset(pages, 0, sizeof *pages);
}

/* So many pages, new ones being zeros. */
static inline void fault_set_count(fault_pages *pages, size_t count) {
    for (size_t i = count; i < pages->count; i++) fault_drop(pages->at[i]);
    if (count > pages->capacity) {
        pages->capacity = count + count / 2 + 2;
        pages->at = (fault_page **)fault_grow(pages->at, pages->capacity * sizeof(fault_page *));
    }
    for (size_t i = pages->count; i < count; i++) pages->at[i] = NULL;
    pages->count = count;
}

static inline void fault_put_page(fault_pages *pages, size_t index, fault_page *page) {
    fault_share(page);
    fault_drop(pages->at[index]);
    pages->at[index] = page;
}

static inline fault_page *fault_get_page(const fault_pages *pages, uint64_t index) {
    return index < pages->count ? pages->at[index] : NULL;
}

static inline size_t fault_page_count(uint64_t size, size_t sector_size) {
    return (size_t)((size + sector_size - 1) / sector_size);
}

static inline bool fault_is_zero(const uint8_t *bytes, size_t size) {
    static const uint8_t zeros[512];
    for (; size > sizeof zeros; bytes += sizeof zeros, size -= sizeof zeros)
        if (memcmp(bytes, zeros, sizeof zeros) != 0) return false;
    return memcmp(bytes, zeros, size) == 0;
}

/* A page with these bytes of another (NULL: zeros), changed where bytes is not NULL; NULL where that gives zeros. */
static inline fault_page *fault_make_page(const fault_page *from, size_t sector_size, size_t at, const uint8_t *bytes,
                                          size_t size) {
    if (size == sector_size && fault_is_zero(bytes, size)) return NULL;
    fault_page *page = (fault_page *)fault_grow(NULL, sizeof *page + sector_size);
    page->owners = 1;
    page->hash = 0;
    if (from != NULL)
        memcpy(page->bytes, from->bytes, sector_size);
    else if (size < sector_size)
        memset(page->bytes, 0, sector_size);
    if (size > 0) memcpy(page->bytes + at, bytes, size);
    return page;
}

static inline uint64_t fault_hash(const uint8_t *bytes, size_t size, uint64_t hash) {
    uint64_t lanes[4] = {hash, hash + 1, hash + 2, hash + 3}, word;
    size_t at = 0;
    for (; at + 32 <= size; at += 32) {
        for (size_t i = 0; i < 4; i++) {
            memcpy(&word, bytes + at + 8 * i, 8);
            lanes[i] = (lanes[i] ^ word) * UINT64_C(0x9FB21C651E98DF25);
            lanes[i] ^= lanes[i] >> 32;
        }
    }
    for (; at < size; at++) lanes[0] = (lanes[0] ^ bytes[at]) * UINT64_C(0x100000001B3);
    return iq_hash_u64(lanes[0] + iq_hash_u64(lanes[1] + iq_hash_u64(lanes[2] + iq_hash_u64(lanes[3]))));
}

/* 0 for zeros, however they are stored. */
static inline uint64_t fault_page_hash(fault_page *page, size_t sector_size) {
    if (page == NULL) return 0;
    if (page->hash == 0)
        page->hash = fault_is_zero(page->bytes, sector_size) ? 1 : fault_hash(page->bytes, sector_size, 7) | 2;
    return page->hash == 1 ? 0 : page->hash;
}

/* ---- Inodes ---- */

static inline void fault_settle(fault_inode *inode) {
    for (size_t i = 0; i < inode->sector_count; i++) fault_drop_all(&inode->sectors[i].versions);
    inode->sector_count = inode->size_count = 0;
    inode->sector_highest = 0;
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
        fault_drop_all(&inode->durable);
        fault_drop_all(&inode->live);
        free(inode->sectors);
        free(inode->sizes);
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
static inline fault_page *fault_version(const fault_inode *inode, const fault_sector *sector, size_t version) {
    return version > 0 ? sector->versions.at[version - 1] : fault_get_page(&inode->durable, sector->index);
}

static inline fault_sector *fault_sector_of(fault_inode *inode, uint64_t index) {
    if (inode->sector_count > 0 && index <= inode->sector_highest)
        for (size_t i = inode->sector_count; i > 0; i--)
            if (inode->sectors[i - 1].index == index) return &inode->sectors[i - 1];
    if (inode->sector_count == inode->sector_capacity) {
        inode->sector_capacity = inode->sector_capacity * 2 + 4;
        inode->sectors = (fault_sector *)fault_grow(inode->sectors, inode->sector_capacity * sizeof(fault_sector));
    }
    fault_sector *sector = &inode->sectors[inode->sector_count++];
    memset(sector, 0, sizeof *sector);
    sector->index = index;
    if (index > inode->sector_highest) inode->sector_highest = index;
    return sector;
}

/* The write itself, and what it puts in doubt. */
static inline void fault_note_write(fault_files *disk, fault_inode *inode, uint64_t offset, const void *bytes,
                                    size_t size) {
    const uint8_t *source = (const uint8_t *)bytes;
    if (offset + size > inode->size) {
        inode->size = offset + size;
        inode->sizes = (uint64_t *)fault_grow(inode->sizes, (inode->size_count + 1) * sizeof(uint64_t));
        inode->sizes[inode->size_count++] = inode->size;
        fault_set_count(&inode->live, fault_page_count(inode->size, disk->sector_size));
    }
    for (size_t done = 0; done < size;) {
        const size_t index = (size_t)((offset + done) / disk->sector_size);
        const size_t within = (size_t)((offset + done) % disk->sector_size);
        const size_t part = size - done < disk->sector_size - within ? size - done : disk->sector_size - within;
        fault_sector *sector = fault_sector_of(inode, index);
        fault_page *page = fault_make_page(inode->live.at[index], disk->sector_size, within, source + done, part);
        fault_put_page(&inode->live, index, page);
        fault_set_count(&sector->versions, sector->versions.count + 1);
        sector->versions.at[sector->versions.count - 1] = page;
        sector->dropped = false;
        done += part;
    }
}

static inline void fault_note_sync(fault_files *disk, fault_inode *inode) {
    size_t kept = 0;
    inode->sector_highest = 0;
    inode->durable_size = inode->size;
    fault_set_count(&inode->durable, fault_page_count(inode->size, disk->sector_size));
    for (size_t i = 0; i < inode->sector_count; i++) {
        fault_sector sector = inode->sectors[i];
        if (sector.dropped) {
            if (sector.index > inode->sector_highest) inode->sector_highest = sector.index;
            inode->sectors[kept++] = sector;
            continue;
        }
        fault_put_page(&inode->durable, (size_t)sector.index, sector.versions.at[sector.versions.count - 1]);
        fault_drop_all(&sector.versions);
    }
    inode->sector_count = kept;
    inode->size_count = 0;
}

/* ---- What each call goes through ---- */

/* Whether this call is to fail. */
static inline bool fault_strikes(fault_files *disk, unsigned kind, const char *name, int *os_code) {
    for (unsigned i = 0; i < FAULT_KINDS; i++) disk->calls[i] += kind >> i & 1;
    if (disk->plan.in == 0 || (disk->plan.kinds & kind) == 0) return false;
    if (disk->plan.name != NULL && strncmp(disk->plan.name, name, strlen(disk->plan.name)) != 0) return false;
    if (disk->plan.in > 1) {
        disk->plan.in--;
        return false;
    }
    if (!disk->plan.sticky) disk->plan.in = 0;
    disk->failed++;
    *os_code = disk->plan.code == IQDB_ERR_NOSPACE ? ENOSPC : EIO;
    return true;
}
#define FAULT_TRY(kind, name, call) (fault_strikes(disk, kind, name, os_code) ? disk->plan.code : (call))

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
        FAULT_TRY(FAULT_DIR_OPEN, "", disk->inner.dir_open_fn(path, create, &handle.inner, os_code, disk->inner.user));
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
        FAULT_TRY(FAULT_DIR_SYNC, "", disk->inner.dir_sync_fn(handle->inner, os_code, disk->inner.user));
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
        FAULT_DIR_LIST, "", disk->inner.dir_list_fn(handle->inner, each_fn, each_user, os_code, disk->inner.user));
    return fault_done(disk, FAULT_DIR_LIST, "", 0, 0, result, false);
}

static inline void fault_note_entry(fault_files *disk, fault_directory *directory, const char *name, fault_inode *inode,
                                    bool removes) {
    fault_add(&directory->pending, name, inode, removes);
    fault_apply(&directory->live, &directory->pending.at[directory->pending.count - 1]);
    fault_count_links(disk);
}

/* Nobody reads the ballast, and it may be missing: most tests do without it, and the model without its bytes. */
static inline bool fault_is_hidden(const fault_files *disk, const char *name) {
    return !disk->ballast && strcmp(name, "ballast") == 0;
}

static inline iqdb_result fault_remove(void *dir, const char *name, int *os_code, void *user) {
    fault_files *disk = user;
    fault_dir_handle *handle = dir;
    if (fault_is_hidden(disk, name)) return IQDB_ERR_NOT_FOUND;
    const iqdb_result result =
        FAULT_TRY(FAULT_REMOVE, name, disk->inner.remove_fn(handle->inner, name, os_code, disk->inner.user));
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
    fault_file_handle handle = {NULL, NULL, kind != IQDB_OPEN_READ, ""};
    if (fault_is_hidden(disk, name)) return kind == IQDB_OPEN_CREATE ? IQDB_ERR_NOSPACE : IQDB_ERR_NOT_FOUND;
    fault_name(handle.name, name);
    const iqdb_result result = FAULT_TRY(
        FAULT_OPEN, name, disk->inner.open_fn(parent->inner, name, kind, &handle.inner, os_code, disk->inner.user));
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
    iqdb_result result = disk->plan.code;
    if (!fault_strikes(disk, FAULT_SIZE, handle->name, os_code)) {
        result = IQDB_OK;
        if (handle->inode != NULL)
            *out_size = handle->inode->size;
        else
            result = disk->inner.size_fn(handle->inner, out_size, os_code, disk->inner.user);
    }
    return fault_done(disk, FAULT_SIZE, handle->name, 0, 0, result, false);
}

static inline size_t fault_read_pages(const fault_pages *pages, uint64_t file_size, size_t sector_size, uint64_t offset,
                                      uint8_t *bytes, size_t size) {
    const uint64_t left = offset < file_size ? file_size - offset : 0;
    if (size > left) size = (size_t)left;
    for (size_t done = 0; done < size;) {
        const size_t within = (size_t)((offset + done) % sector_size);
        const size_t part = size - done < sector_size - within ? size - done : sector_size - within;
        const fault_page *page = fault_get_page(pages, (offset + done) / sector_size);
        if (page != NULL)
            memcpy(bytes + done, page->bytes + within, part);
        else
            memset(bytes + done, 0, part);
        done += part;
    }
    return size;
}

static inline iqdb_result fault_read(void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size,
                                     int *os_code, void *user) {
    fault_files *disk = user;
    fault_file_handle *handle = file;
    iqdb_result result = disk->plan.code;
    if (!fault_strikes(disk, FAULT_READ, handle->name, os_code)) {
        const fault_inode *inode = handle->inode;
        result = IQDB_OK;
        if (inode != NULL)
            *out_size = fault_read_pages(&inode->live, inode->size, disk->sector_size, offset, (uint8_t *)bytes, size);
        else
            result = disk->inner.read_fn(handle->inner, offset, bytes, size, out_size, os_code, disk->inner.user);
    }
    return fault_done(disk, FAULT_READ, handle->name, offset, size, result, false);
}

/* How much of a write still fits on the disk. */
static inline size_t fault_room(const fault_files *disk, const fault_inode *inode, uint64_t offset, size_t size) {
    uint64_t used = 0;
    if (inode == NULL) return size;
    if (offset > FAULT_FILE_MAX || size > FAULT_FILE_MAX - offset) return 0;
    if (disk->space == 0 || offset + size <= inode->size) return size;
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
    if (fault_strikes(disk, FAULT_WRITE, handle->name, &failure)) {
        result = disk->plan.code;
        part = size < disk->partial ? size : disk->partial;
    }
    iqdb_result inner = IQDB_OK;
    if (handle->inode != NULL && !handle->writable) {
        inner = IQDB_ERR_IO;
    } else if (handle->inode != NULL) {
        const bool is_ballast = strcmp(handle->name, "ballast") == 0;
        void *zeros = is_ballast ? memset(fault_grow(NULL, part), 0, part) : NULL;
        if (part > 0) fault_note_write(disk, handle->inode, offset, is_ballast ? zeros : bytes, part);
        if (is_ballast) fault_note_sync(disk, handle->inode);
        free(zeros);
    } else if (part > 0 || result == IQDB_OK) {
        inner = disk->inner.write_fn(handle->inner, offset, bytes, part, os_code, disk->inner.user);
    }
    if (inner != IQDB_OK)
        result = inner;
    else if (result != IQDB_OK)
        *os_code = failure;
    return fault_done(disk, FAULT_WRITE, handle->name, offset, size, result, inner == IQDB_OK && part > 0);
}

static inline iqdb_result fault_sync(void *file, int *os_code, void *user) {
    fault_files *disk = user;
    fault_file_handle *handle = file;
    iqdb_result result = disk->plan.code;
    if (disk->before_sync_fn != NULL) disk->before_sync_fn(disk->before_sync_user);
    const bool struck = fault_strikes(disk, FAULT_SYNC, handle->name, os_code);
    if (!struck) result = disk->inner.sync_fn(handle->inner, os_code, disk->inner.user);
    if (result == IQDB_OK && handle->inode != NULL) fault_note_sync(disk, handle->inode);
    if (struck && handle->inode != NULL && disk->drop_on_sync_failure)
        for (size_t i = 0; i < handle->inode->sector_count; i++) handle->inode->sectors[i].dropped = true;
    return fault_done(disk, FAULT_SYNC, handle->name, 0, 0, result, result == IQDB_OK);
}

/* As writing zeros, but all or nothing. */
static inline iqdb_result fault_reserve(void *file, uint64_t offset, uint64_t size, int *os_code, void *user) {
    fault_files *disk = user;
    fault_file_handle *handle = file;
    if (handle->inode == NULL) return IQDB_ERR_NOT_IMPLEMENTED;
    *os_code = ENOSPC;
    if (fault_room(disk, handle->inode, offset, (size_t)size) < size) return IQDB_ERR_NOSPACE;
    void *zeros = memset(fault_grow(NULL, (size_t)size), 0, (size_t)size);
    const iqdb_result result = fault_write(file, offset, zeros, (size_t)size, os_code, user);
    free(zeros);
    return result;
}

static inline iqdb_result fault_lock(void *file, bool exclusive, int *os_code, void *user) {
    fault_files *disk = user;
    fault_file_handle *handle = file;
    const iqdb_result result =
        FAULT_TRY(FAULT_LOCK, handle->name, disk->inner.lock_fn(handle->inner, exclusive, os_code, disk->inner.user));
    return fault_done(disk, FAULT_LOCK, handle->name, 0, exclusive, result, false);
}

/* A copy, as the file is now: whoever maps one has to know that it does not change. */
static inline iqdb_result fault_map(void *file, uint64_t size, const void **out_bytes, int *os_code, void *user) {
    fault_files *disk = user;
    size_t got = 0;
    if (size == 0 || size > (size_t)-1 / 2) return IQDB_ERR_NOT_IMPLEMENTED;
    void *bytes = aligned_alloc(64, ((size_t)size + 63) / 64 * 64);
    if (bytes == NULL) return IQDB_ERR_NOT_IMPLEMENTED;
    const iqdb_result result = fault_read(file, 0, bytes, (size_t)size, &got, os_code, user);
    if (result == IQDB_OK) disk->open_maps++;
    if (result == IQDB_OK) *out_bytes = bytes;
    if (result != IQDB_OK) free(bytes);
    return result;
}

static inline void fault_unmap(const void *bytes, uint64_t size, void *user) {
    fault_files *disk = user;
    union {
        const void *theirs;
        void *ours;
    } memory;
    (void)size;
    memory.theirs = bytes;
    free(memory.ours);
    disk->open_maps--;
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
    const iqdb_files files = {fault_dir_open, fault_dir_close, fault_dir_sync, fault_dir_list, fault_remove, fault_open,
                              fault_close,    fault_size,      fault_read,     fault_write,    fault_sync,   fault_lock,
                              disk,           fault_reserve,   NULL,           fault_map,      fault_unmap};
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
    disk->plan.kinds = kinds;
    disk->plan.in = n;
    disk->plan.code = code;
    disk->plan.sticky = sticky;
}

/* The whole file in malloc's memory, or NULL where there is none. */
static inline uint8_t *fault_load(fault_files *disk, const char *path, const char *name, size_t *out_size) {
    fault_files quiet = *disk; /* the counts are of the copy */
    const iqdb_files files = fault_table(&quiet);
    void *dir = NULL, *file = NULL;
    int os_code;
    uint64_t size = 0;
    uint8_t *bytes = NULL;
    quiet.plan.in = 0;
    quiet.recording = false;
    quiet.after_fn = NULL;
    if (files.dir_open_fn(path, false, &dir, &os_code, files.user) != IQDB_OK) return NULL;
    if (files.open_fn(dir, name, IQDB_OPEN_READ, &file, &os_code, files.user) == IQDB_OK) {
        if (files.size_fn(file, &size, &os_code, files.user) == IQDB_OK) bytes = fault_grow(NULL, (size_t)size);
        if (bytes != NULL) files.read_fn(file, 0, bytes, (size_t)size, out_size, &os_code, files.user);
        files.close_fn(file, files.user);
    }
    files.dir_close_fn(dir, files.user);
    disk->directories = quiet.directories;
    disk->inodes = quiet.inodes;
    return bytes;
}

static inline void fault_fill_pages(fault_pages *pages, const uint8_t *bytes, size_t size, size_t sector_size) {
    fault_set_count(pages, fault_page_count(size, sector_size));
    for (size_t i = 0; i < pages->count; i++) {
        const size_t at = i * sector_size, part = size - at < sector_size ? size - at : sector_size;
        fault_page *page = fault_make_page(NULL, sector_size, 0, bytes + at, part);
        fault_put_page(pages, i, page);
        fault_drop(page);
    }
}

static inline void fault_share_all(fault_pages *to, const fault_pages *from) {
    fault_set_count(to, from->count);
    for (size_t i = 0; i < from->count; i++) fault_put_page(to, i, from->at[i]);
}

/* Gives a name to these pages, which it takes, durably; pages NULL: the name goes. False where the layer below refuses. */
static inline bool fault_place(fault_files *disk, const char *path, const char *name, fault_pages *pages,
                               uint64_t size) {
    const iqdb_files *files = &disk->inner;
    void *dir = NULL, *file = NULL;
    int os_code;
    fault_entry change;
    if (files->dir_open_fn(path, true, &dir, &os_code, files->user) != IQDB_OK) return false;
    fault_directory *directory = fault_directory_of(disk, path);
    fault_entry *old = fault_find(&directory->live, name);
    bool ok = old == NULL || files->remove_fn(dir, name, &os_code, files->user) == IQDB_OK;
    if (ok && pages != NULL) {
        ok = files->open_fn(dir, name, IQDB_OPEN_CREATE, &file, &os_code, files->user) == IQDB_OK;
        if (ok) files->close_fn(file, files->user);
    }
    files->dir_close_fn(dir, files->user);
    if (!ok) return false;
    if (old != NULL) old->inode->alive = false;
    fault_name(change.name, name);
    change.removes = pages == NULL;
    change.inode = pages == NULL ? NULL : fault_new_inode(disk);
    if (pages != NULL) {
        change.inode->durable = *pages;
        fault_share_all(&change.inode->live, pages);
        change.inode->durable_size = change.inode->size = size;
    }
    fault_apply(&directory->live, &change);
    fault_apply(&directory->durable, &change);
    size_t kept = 0; /* what was undecided about this name is decided */
    for (size_t i = 0; i < directory->pending.count; i++)
        if (strcmp(directory->pending.at[i].name, name) != 0) directory->pending.at[kept++] = directory->pending.at[i];
    directory->pending.count = kept;
    return true;
}

/* The file holds these bytes, durably; bytes NULL: it does not exist. False where the layer below refuses. */
static inline bool fault_store(fault_files *disk, const char *path, const char *name, const void *bytes, size_t size) {
    if (disk->memory != NULL) {
        fault_pages pages;
        memset(&pages, 0, sizeof pages);
        if (bytes != NULL) fault_fill_pages(&pages, (const uint8_t *)bytes, size, disk->sector_size);
        const bool placed = fault_place(disk, path, name, bytes == NULL ? NULL : &pages, size);
        if (placed) fault_count_links(disk);
        return placed;
    }
    const iqdb_files *files = &disk->inner;
    void *dir = NULL, *file = NULL;
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
    return ok;
}

/* Changes bytes of a file of fault_new in place, durably, under whoever has it open. */
static inline bool fault_poke(fault_files *disk, const char *path, const char *name, uint64_t offset, const void *bytes,
                              size_t size) {
    const fault_entry *entry = fault_find(&fault_directory_of(disk, path)->live, name);
    if (entry == NULL || offset + size > entry->inode->size || offset + size > entry->inode->durable_size) return false;
    fault_pages *tables[2] = {&entry->inode->live, &entry->inode->durable};
    for (size_t done = 0; done < size;) {
        const size_t index = (size_t)((offset + done) / disk->sector_size);
        const size_t within = (size_t)((offset + done) % disk->sector_size);
        const size_t part = size - done < disk->sector_size - within ? size - done : disk->sector_size - within;
        for (size_t i = 0; i < 2; i++) {
            fault_page *page =
                fault_make_page(tables[i]->at[index], disk->sector_size, within, (const uint8_t *)bytes + done, part);
            fault_put_page(tables[i], index, page);
            fault_drop(page);
        }
        done += part;
    }
    return true;
}

/* Follows from the names, sizes and contents that are durable, in whatever order they came. */
static inline uint64_t fault_digest(const fault_files *disk) {
    uint64_t digest = 0;
    for (const fault_directory *d = disk->directories; d != NULL; d = d->next) {
        const uint64_t place = fault_hash((const uint8_t *)d->path, strlen(d->path), 11);
        for (size_t i = 0; i < d->durable.count; i++) {
            const fault_inode *inode = d->durable.at[i].inode;
            const char *name = d->durable.at[i].name;
            uint64_t file = fault_hash((const uint8_t *)name, strlen(name), place + inode->durable_size);
            for (size_t k = 0; k < inode->durable.count; k++) {
                const uint64_t hash = fault_page_hash(inode->durable.at[k], disk->sector_size);
                if (hash != 0) file += iq_hash_u64(hash + k);
            }
            digest += iq_hash_u64(file);
        }
    }
    return digest;
}

#include "fault_cut.h"

#endif
