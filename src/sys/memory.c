/* Files in memory: the contract of iqdb_files without a system, so that whatever is true of files can be tested.
 *
 * 1. A set is one tree. A removed file lives on for those who have it open; a closed one stays until it is removed.
 * 2. "a", "/a", "./a" and "a/" are the same directory; ".." is understood. Nothing is followed, there are no links.
 * 3. The memory is the disk: contents that cannot grow are NOSPACE with nothing changed, handles and names that cannot
 *    be had are NOMEM.
 * 4. One lock per set is held for the length of a call, so two databases may use it from two threads. It is not held
 *    around callbacks.
 * os_code is always 0. Where POSIX refuses with some errno of its own, this is IO. */
#include "sys/memory.h"
#include "sys/thread.h"

#define IQ_MEMORY_NAME_MAX 255
#define IQ_MEMORY_LISTED_SIZE 32 /* with the final zero; longer names cannot be a database's */

/* A file or a directory. Its name stands behind it in the same allocation. */
typedef struct iq_memory_node {
    struct iq_memory_node *parent; /* NULL: the root, or removed */
    struct iq_memory_node *child;  /* of a directory: the youngest entry */
    struct iq_memory_node *next;   /* the next older entry of the same directory; of removed ones: of the set */
    bool is_dir;
    bool is_exclusive; /* the kind of these locks */
    size_t lock_count; /* handles that have a lock */
    size_t open_count; /* handles */
    iq_blob contents;  /* of a file */
    size_t allocation_size;
} iq_memory_node;

typedef struct iq_memory_handle {
    struct iq_memory_handle *next, *previous; /* of the set, so that it can free what was left open */
    iq_memory_node *node;
    bool is_writable;
    bool is_locked;
} iq_memory_handle;

struct iq_memory_files {
    iqdb_allocator allocator;
    iq_mutex mutex;
    iq_memory_node root;
    iq_memory_node *removed; /* but still open */
    iq_memory_handle *handles;
};

/* ---- The tree ---- */

static const char *iq_memory_name(const iq_memory_node *node) { return (const char *)(node + 1); }

static iq_memory_node *iq_memory_find(const iq_memory_node *dir, const char *name, size_t size) {
    iq_memory_node *node = dir->child;
    while (node != NULL && (strncmp(iq_memory_name(node), name, size) != 0 || iq_memory_name(node)[size] != '\0'))
        node = node->next;
    return node;
}

static iq_memory_node *iq_memory_make(iq_memory_files *set, iq_memory_node *dir, const char *name, size_t size,
                                      bool is_dir) {
    const size_t allocation_size = sizeof(iq_memory_node) + size + 1;
    iq_memory_node *node = (iq_memory_node *)iq_alloc_zeroed(&set->allocator, allocation_size, 16);
    if (node == NULL) return NULL;
    memcpy(node + 1, name, size);
    node->is_dir = is_dir;
    node->allocation_size = allocation_size;
    node->contents.allocator = &set->allocator;
    node->parent = dir;
    node->next = dir->child;
    dir->child = node;
    return node;
}

static void iq_memory_free_node(iq_memory_files *set, iq_memory_node *node) {
    iq_blob_free(&node->contents);
    iq_free(&set->allocator, node, node->allocation_size, 16);
}

static void iq_memory_unlink(iq_memory_node **list, iq_memory_node *node) {
    while (*list != node) list = &(*list)->next;
    *list = node->next;
    node->next = NULL;
    node->parent = NULL;
}

/* The directory at `path`. INVALID_CONFIG: a file is in the way, or an empty path or too long a name. */
static iqdb_result iq_memory_walk(iq_memory_files *set, const char *path, bool create, iq_memory_node **out_dir) {
    iq_memory_node *dir = &set->root;
    if (*path == '\0') return IQDB_ERR_INVALID_CONFIG;
    while (*path != '\0') {
        size_t size = 0;
        while (path[size] != '\0' && path[size] != '/') size++;
        if (size > IQ_MEMORY_NAME_MAX) return IQDB_ERR_INVALID_CONFIG;
        if (size == 2 && path[0] == '.' && path[1] == '.') {
            if (dir->parent != NULL) dir = dir->parent;
        } else if (size > 0 && !(size == 1 && path[0] == '.')) {
            iq_memory_node *node = iq_memory_find(dir, path, size);
            if (node == NULL && !create) return IQDB_ERR_NOT_FOUND;
            if (node == NULL) node = iq_memory_make(set, dir, path, size, true);
            if (node == NULL) return IQDB_ERR_NOMEM;
            if (!node->is_dir) return IQDB_ERR_INVALID_CONFIG;
            dir = node;
        }
        path += size;
        while (*path == '/') path++;
    }
    *out_dir = dir;
    return IQDB_OK;
}

/* ---- Handles ---- */

static iq_memory_handle *iq_memory_handle_new(iq_memory_files *set) {
    iq_memory_handle *handle = (iq_memory_handle *)iq_alloc_zeroed(&set->allocator, sizeof *handle, 16);
    if (handle == NULL) return NULL;
    handle->next = set->handles;
    if (handle->next != NULL) handle->next->previous = handle;
    set->handles = handle;
    return handle;
}

static void iq_memory_handle_free(iq_memory_files *set, iq_memory_handle *handle) {
    if (handle->next != NULL) handle->next->previous = handle->previous;
    if (handle->previous != NULL)
        handle->previous->next = handle->next;
    else
        set->handles = handle->next;
    iq_free(&set->allocator, handle, sizeof *handle, 16);
}

static void iq_memory_close(void *file, void *user) {
    iq_memory_files *set = (iq_memory_files *)user;
    iq_memory_handle *handle = (iq_memory_handle *)file;
    iq_memory_node *node = handle->node;
    iq_mutex_lock(&set->mutex);
    if (handle->is_locked) node->lock_count--;
    if (--node->open_count == 0 && node->parent == NULL && node != &set->root) {
        iq_memory_unlink(&set->removed, node);
        iq_memory_free_node(set, node);
    }
    iq_memory_handle_free(set, handle);
    iq_mutex_unlock(&set->mutex);
}

static iqdb_result iq_memory_dir_open(const char *path, bool create, void **out_dir, int *os_code, void *user) {
    iq_memory_files *set = (iq_memory_files *)user;
    *os_code = 0;
    iq_mutex_lock(&set->mutex);
    iqdb_result result = IQDB_ERR_NOMEM;
    iq_memory_handle *handle = iq_memory_handle_new(set);
    if (handle != NULL) {
        result = iq_memory_walk(set, path, create, &handle->node);
        if (result == IQDB_OK)
            handle->node->open_count++;
        else
            iq_memory_handle_free(set, handle);
    }
    iq_mutex_unlock(&set->mutex);
    if (result == IQDB_OK) *out_dir = handle;
    return result;
}

static iqdb_result iq_memory_open(void *dir, const char *name, iqdb_open_kind kind, void **out_file, int *os_code,
                                  void *user) {
    iq_memory_files *set = (iq_memory_files *)user;
    iq_memory_node *parent = ((iq_memory_handle *)dir)->node;
    *os_code = 0;
    iq_mutex_lock(&set->mutex);
    iqdb_result result = IQDB_OK;
    iq_memory_handle *handle = iq_memory_handle_new(set);
    iq_memory_node *node = iq_memory_find(parent, name, strlen(name));
    if (kind == IQDB_OPEN_CREATE && node != NULL) {
        result = IQDB_ERR_INVALID_CONFIG;
    } else if (kind != IQDB_OPEN_CREATE && node == NULL) {
        result = IQDB_ERR_NOT_FOUND;
    } else if (node != NULL && node->is_dir) {
        result = IQDB_ERR_IO;
    } else {
        if (handle != NULL && node == NULL) node = iq_memory_make(set, parent, name, strlen(name), false);
        if (handle == NULL || node == NULL) result = IQDB_ERR_NOMEM;
    }
    if (result == IQDB_OK) {
        handle->node = node;
        handle->is_writable = kind != IQDB_OPEN_READ;
        node->open_count++;
    } else if (handle != NULL) {
        iq_memory_handle_free(set, handle);
    }
    iq_mutex_unlock(&set->mutex);
    if (result == IQDB_OK) *out_file = handle;
    return result;
}

static iqdb_result iq_memory_remove(void *dir, const char *name, int *os_code, void *user) {
    iq_memory_files *set = (iq_memory_files *)user;
    iq_memory_node *parent = ((iq_memory_handle *)dir)->node;
    *os_code = 0;
    iq_mutex_lock(&set->mutex);
    iq_memory_node *node = iq_memory_find(parent, name, strlen(name));
    iqdb_result result = node == NULL ? IQDB_ERR_NOT_FOUND : node->is_dir ? IQDB_ERR_IO : IQDB_OK;
    if (result == IQDB_OK) {
        iq_memory_unlink(&parent->child, node);
        if (node->open_count == 0) {
            iq_memory_free_node(set, node);
        } else {
            node->next = set->removed;
            set->removed = node;
        }
    }
    iq_mutex_unlock(&set->mutex);
    return result;
}

/* The names are copied first: each_fn may call the set. */
static iqdb_result iq_memory_dir_list(void *dir, void (*each_fn)(const char *name, void *each_user), void *each_user,
                                      int *os_code, void *user) {
    iq_memory_files *set = (iq_memory_files *)user;
    iq_blob names;
    memset(&names, 0, sizeof names);
    names.allocator = &set->allocator;
    *os_code = 0;
    iq_mutex_lock(&set->mutex);
    iqdb_result result = IQDB_OK;
    const iq_memory_node *node = ((iq_memory_handle *)dir)->node->child;
    for (; node != NULL && result == IQDB_OK; node = node->next) {
        const size_t size = strlen(iq_memory_name(node)) + 1;
        if (size <= IQ_MEMORY_LISTED_SIZE) result = iq_blob_append(&names, iq_memory_name(node), size);
    }
    iq_mutex_unlock(&set->mutex);
    for (size_t at = 0; at < names.size && result == IQDB_OK;) {
        const char *name = (const char *)names.bytes + at;
        at += strlen(name) + 1;
        each_fn(name, each_user);
    }
    iq_blob_free(&names);
    return result;
}

/* ---- Contents ---- */

static iqdb_result iq_memory_size(void *file, uint64_t *out_size, int *os_code, void *user) {
    iq_memory_files *set = (iq_memory_files *)user;
    (void)os_code; /* cannot fail */
    iq_mutex_lock(&set->mutex);
    *out_size = ((iq_memory_handle *)file)->node->contents.size;
    iq_mutex_unlock(&set->mutex);
    return IQDB_OK;
}

static iqdb_result iq_memory_read(void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size, int *os_code,
                                  void *user) {
    iq_memory_files *set = (iq_memory_files *)user;
    (void)os_code; /* cannot fail */
    iq_mutex_lock(&set->mutex);
    const iq_blob *contents = &((iq_memory_handle *)file)->node->contents;
    const size_t left = offset < contents->size ? contents->size - (size_t)offset : 0;
    *out_size = size < left ? size : left;
    if (*out_size > 0) memcpy(bytes, contents->bytes + (size_t)offset, *out_size);
    iq_mutex_unlock(&set->mutex);
    return IQDB_OK;
}

/* Fills the gap, if there is one, with zeros. */
static iqdb_result iq_memory_put(iq_blob *contents, uint64_t offset, const void *bytes, size_t size) {
    const size_t limit = (size_t)-1 / 4; /* what a blob can hold */
    if (offset > limit || size > limit - (size_t)offset) return IQDB_ERR_NOSPACE;
    const size_t start = (size_t)offset, end = start + size;
    if (end > contents->size) {
        if (iq_blob_reserve(contents, end - contents->size) != IQDB_OK) return IQDB_ERR_NOSPACE;
        if (start > contents->size) memset(contents->bytes + contents->size, 0, start - contents->size);
        contents->size = end;
    }
    memcpy(contents->bytes + start, bytes, size);
    return IQDB_OK;
}

static iqdb_result iq_memory_write(void *file, uint64_t offset, const void *bytes, size_t size, int *os_code,
                                   void *user) {
    iq_memory_files *set = (iq_memory_files *)user;
    iq_memory_handle *handle = (iq_memory_handle *)file;
    *os_code = 0;
    if (!handle->is_writable) return IQDB_ERR_IO;
    if (size == 0) return IQDB_OK;
    iq_mutex_lock(&set->mutex);
    const iqdb_result result = iq_memory_put(&handle->node->contents, offset, bytes, size);
    iq_mutex_unlock(&set->mutex);
    return result;
}

/* Nothing survives the process, and until then everything does. */
static iqdb_result iq_memory_sync(void *handle, int *os_code, void *user) {
    (void)handle;
    (void)user;
    (void)os_code; /* cannot fail */
    return IQDB_OK;
}

/* As flock: asking again on the same handle changes the kind of its lock. */
static iqdb_result iq_memory_lock(void *file, bool exclusive, int *os_code, void *user) {
    iq_memory_files *set = (iq_memory_files *)user;
    iq_memory_handle *handle = (iq_memory_handle *)file;
    iq_memory_node *node = handle->node;
    *os_code = 0;
    iq_mutex_lock(&set->mutex);
    const size_t others = node->lock_count - (handle->is_locked ? 1 : 0);
    const bool free_to_take = others == 0 || (!exclusive && !node->is_exclusive);
    if (free_to_take) {
        node->lock_count = others + 1;
        node->is_exclusive = exclusive;
        handle->is_locked = true;
    }
    iq_mutex_unlock(&set->mutex);
    return free_to_take ? IQDB_OK : IQDB_ERR_LOCKED;
}

/* ---- The set ---- */

IQ_FN iq_memory_files *iq_memory_files_new(const iqdb_allocator *allocator) {
    iq_memory_files *set = (iq_memory_files *)iq_alloc_zeroed(allocator, sizeof *set, 16);
    if (set == NULL) return NULL;
    set->allocator = *allocator;
    if (!iq_mutex_init(&set->mutex)) {
        iq_free(allocator, set, sizeof *set, 16);
        return NULL;
    }
    return set;
}

/* Leaf by leaf, so that depth costs no stack. */
static void iq_memory_free_tree(iq_memory_files *set) {
    iq_memory_node *node = &set->root;
    while (node != &set->root || node->child != NULL) {
        if (node->child != NULL) {
            node = node->child;
            continue;
        }
        iq_memory_node *parent = node->parent;
        parent->child = node->next;
        iq_memory_free_node(set, node);
        node = parent;
    }
}

IQ_FN void iq_memory_files_free(iq_memory_files *set) {
    if (set == NULL) return;
    while (set->handles != NULL) iq_memory_close(set->handles, set);
    iq_memory_free_tree(set);
    iq_mutex_destroy(&set->mutex);
    const iqdb_allocator allocator = set->allocator;
    iq_free(&allocator, set, sizeof *set, 16);
}

IQ_FN iqdb_files iq_memory_files_table(iq_memory_files *set) {
    const iqdb_files files = {iq_memory_dir_open,
                              iq_memory_close,
                              iq_memory_sync,
                              iq_memory_dir_list,
                              iq_memory_remove,
                              iq_memory_open,
                              iq_memory_close,
                              iq_memory_size,
                              iq_memory_read,
                              iq_memory_write,
                              iq_memory_sync,
                              iq_memory_lock,
                              set,
                              NULL,
                              NULL,
                              NULL,
                              NULL};
    return files;
}
