/* pak.c: a game's vectors in the game's own package. They are baked where the game is made, put into one file with
 * everything else, and opened for reading through a file layer that knows where in the package each file lies.
 *
 *   cc -I. examples/pak.c -o pak -pthread -lm && ./pak
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DIM = 16,
    LINES = 500,
    ENTRIES_MAX = 16
};

static void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

static void vector_of(uint64_t id, float vector[DIM]) {
    uint32_t state = (uint32_t)id * 2654435761u + 1;
    for (int i = 0; i < DIM; i++)
        vector[i] = (float)((state = state * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1.0f;
}

/* ---- The package: a table of names, offsets and sizes, and then the bytes ---- */

typedef struct entry {
    char name[32];
    uint64_t offset, size;
} entry;

typedef struct package {
    FILE *file;
    entry entries[ENTRIES_MAX];
    size_t count;
} package;

static void pack_bytes(package *to, const char *name, const void *bytes, size_t size) {
    entry *made = &to->entries[to->count++];
    check(to->count <= ENTRIES_MAX && strlen(name) < sizeof made->name, "there is room in the table");
    memset(made, 0, sizeof *made);
    memcpy(made->name, name, strlen(name));
    made->offset = (uint64_t)ftell(to->file);
    made->size = size;
    check(fwrite(bytes, 1, size, to->file) == size, "write to the package");
}

/* ---- Baking: an ordinary directory, of which every file is taken ---- */

typedef struct names {
    char names[ENTRIES_MAX][32];
    size_t count;
} names;

static void take_name(const char *name, void *user) {
    names *all = (names *)user;
    check(all->count < ENTRIES_MAX, "there is room for the names");
    memcpy(all->names[all->count++], name, strlen(name) + 1);
}

static void bake(const char *path) {
    iqdb *db = NULL;
    iqdb_options options = iqdb_options_default();
    options.dim = DIM;
    options.compact_on_close = true; /* one snapshot, and hardly anything in the log */
    check(iqdb_open(path, &options, &db) == IQDB_OK, "open to bake");
    for (uint64_t id = 1; id <= LINES; id++) {
        float vector[DIM];
        char text[32];
        iqdb_field field;
        vector_of(id, vector);
        snprintf(text, sizeof text, "line %lu of the dialogue", (unsigned long)id);
        field.key = "text";
        field.value = iqdb_text(text);
        iqdb_record record = iqdb_record_default();
        record.id = id;
        record.vector = vector;
        record.fields = &field;
        record.field_count = 1;
        check(iqdb_upsert(db, &record) == IQDB_OK, "upsert");
    }
    check(iqdb_close(db) == IQDB_OK, "close");
}

/* The files of a directory, read by the layer that wrote them; the directory goes. */
static void pack_directory(package *to, const char *path) {
    const iqdb_files files = iqdb_files_default();
    void *dir = NULL;
    int os_code = 0;
    names all;
    memset(&all, 0, sizeof all);
    check(files.dir_open_fn(path, false, &dir, &os_code, files.user) == IQDB_OK, "open the directory");
    check(files.dir_list_fn(dir, take_name, &all, &os_code, files.user) == IQDB_OK, "list the directory");
    for (size_t i = 0; i < all.count; i++) {
        void *file = NULL;
        uint64_t size = 0;
        size_t got = 0;
        check(files.open_fn(dir, all.names[i], IQDB_OPEN_READ, &file, &os_code, files.user) == IQDB_OK, "open a file");
        check(files.size_fn(file, &size, &os_code, files.user) == IQDB_OK, "ask for a size");
        void *bytes = malloc((size_t)size + 1);
        check(bytes != NULL, "memory for a file");
        check(files.read_fn(file, 0, bytes, (size_t)size, &got, &os_code, files.user) == IQDB_OK && got == size,
              "read a file");
        /* Room for a full disk: what is only read has no use for it. */
        if (strcmp(all.names[i], "ballast") != 0) pack_bytes(to, all.names[i], bytes, got);
        free(bytes);
        files.close_fn(file, files.user);
        check(files.remove_fn(dir, all.names[i], &os_code, files.user) == IQDB_OK, "remove a file");
    }
    files.dir_close_fn(dir, files.user);
    check(remove(path) == 0, "remove the directory");
}

/* ---- The file layer of the game: read only, out of the package ---- */

static iqdb_result pak_dir_open(const char *path, bool create, void **out_dir, int *os_code, void *user) {
    (void)path, (void)os_code;
    if (create) return IQDB_ERR_READONLY;
    *out_dir = user;
    return IQDB_OK;
}
static void pak_close(void *handle, void *user) { (void)handle, (void)user; }
static iqdb_result pak_list(void *dir, void (*each_fn)(const char *name, void *each_user), void *each_user,
                            int *os_code, void *user) {
    const package *from = (const package *)dir;
    (void)os_code, (void)user;
    for (size_t i = 0; i < from->count; i++) each_fn(from->entries[i].name, each_user);
    return IQDB_OK;
}
static iqdb_result pak_open(void *dir, const char *name, iqdb_open_kind kind, void **out_file, int *os_code,
                            void *user) {
    package *from = (package *)dir;
    (void)os_code, (void)user;
    if (kind != IQDB_OPEN_READ) return IQDB_ERR_READONLY;
    for (size_t i = 0; i < from->count; i++) {
        if (strcmp(from->entries[i].name, name) != 0) continue;
        *out_file = &from->entries[i];
        return IQDB_OK;
    }
    return IQDB_ERR_NOT_FOUND;
}
static iqdb_result pak_size(void *file, uint64_t *out_size, int *os_code, void *user) {
    (void)os_code, (void)user;
    *out_size = ((const entry *)file)->size;
    return IQDB_OK;
}
static iqdb_result pak_read(void *file, uint64_t offset, void *bytes, size_t size, size_t *out_size, int *os_code,
                            void *user) {
    const entry *from = (const entry *)file;
    FILE *pack = ((const package *)user)->file;
    (void)os_code;
    const uint64_t left = offset < from->size ? from->size - offset : 0;
    if (size > left) size = (size_t)left;
    if (fseek(pack, (long)(from->offset + offset), SEEK_SET) != 0) return IQDB_ERR_IO;
    *out_size = fread(bytes, 1, size, pack);
    return *out_size == size ? IQDB_OK : IQDB_ERR_IO;
}
static iqdb_result pak_refuse_write(void *file, uint64_t offset, const void *bytes, size_t size, int *os_code,
                                    void *user) {
    (void)file, (void)offset, (void)bytes, (void)size, (void)os_code, (void)user;
    return IQDB_ERR_READONLY;
}
static iqdb_result pak_refuse_sync(void *file, int *os_code, void *user) {
    (void)file, (void)os_code, (void)user;
    return IQDB_ERR_READONLY;
}
static iqdb_result pak_refuse_remove(void *dir, const char *name, int *os_code, void *user) {
    (void)dir, (void)name, (void)os_code, (void)user;
    return IQDB_ERR_READONLY;
}
static iqdb_result pak_lock(void *file, bool exclusive, int *os_code, void *user) {
    (void)file, (void)os_code, (void)user;
    return exclusive ? IQDB_ERR_READONLY : IQDB_OK; /* nobody writes a package while the game runs */
}

static iqdb_files pak_files(package *from) {
    iqdb_files files;
    memset(&files, 0, sizeof files);
    files.dir_open_fn = pak_dir_open;
    files.dir_close_fn = pak_close;
    files.dir_sync_fn = pak_refuse_sync;
    files.dir_list_fn = pak_list;
    files.remove_fn = pak_refuse_remove;
    files.open_fn = pak_open;
    files.close_fn = pak_close;
    files.size_fn = pak_size;
    files.read_fn = pak_read;
    files.write_fn = pak_refuse_write;
    files.sync_fn = pak_refuse_sync;
    files.lock_fn = pak_lock;
    files.user = from;
    return files;
}

int main(void) {
    static package pack;
    pack.file = fopen("game.pak", "w+b");
    check(pack.file != NULL, "make the package");
    pack_bytes(&pack, "logo.png", "not really a picture", 20);
    bake("dialogue-db");
    pack_directory(&pack, "dialogue-db");
    printf("%lu files packed\n", (unsigned long)pack.count);

    iqdb *db = NULL;
    iqdb_options options = iqdb_options_default();
    options.files = pak_files(&pack);
    options.read_only = true;
    check(iqdb_open("in the package", &options, &db) == IQDB_OK, "open from the package");
    printf("%lu records\n", (unsigned long)iqdb_len(db));

    iqdb_hit hit;
    size_t count = 0;
    float vector[DIM];
    iqdb_buffer buffer = iqdb_buffer_default();
    vector_of(123, vector);
    iqdb_query query = iqdb_query_default();
    query.vector = vector;
    query.k = 1;
    query.flags = IQDB_WITH_PAYLOAD;
    query.buffer = &buffer;
    check(iqdb_search(db, &query, &hit, &count) == IQDB_OK && count == 1, "search");
    printf("nearest: %s\n", iqdb_payload_text(hit.payload, "text", NULL));
    check(iqdb_delete(db, 123, NULL) == IQDB_ERR_READONLY, "nothing can be written");
    iqdb_buffer_free(&buffer);
    check(iqdb_close(db) == IQDB_OK, "close");
    fclose(pack.file);
    return remove("game.pak");
}
