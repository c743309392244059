/* Files that lie with valid checksums: after any change to the bytes of a directory, everything that a CRC covers is
 * made right again, from the frames and blocks up to META. What remains wrong is what the bytes say. */
#ifndef FORGE_H
#define FORGE_H

#include "base/bytes.h"
#include "crash/world.h"
#include "kernel/crc32.h"
#include "persist/format.h"

#define FORGE_FILES 8

typedef struct forge_file {
    char name[32];
    uint8_t *bytes;
    size_t size, capacity;
} forge_file;

typedef struct forge {
    forge_file files[FORGE_FILES];
    size_t count;
} forge;

/* ---- Samples ---- */

static inline void forge_read(fault_files *disk, forge *out) {
    static const char *const names[] = {"META", "wal-1", "wal-2", "wal-3", "wal-4", "snap-1", "snap-2"};
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t size = 0;
        uint8_t *bytes = fault_load(disk, "db", names[i], &size);
        if (bytes == NULL) continue;
        forge_file *file = &out->files[out->count++];
        snprintf(file->name, sizeof file->name, "%s", names[i]);
        file->bytes = bytes;
        file->size = file->capacity = size;
        /* Nobody needs the space for later; it only costs time. */
        while (strncmp(names[i], "wal", 3) == 0 && file->size > 8192 && fault_is_zero(bytes + file->size - 4096, 4096))
            file->size -= 4096;
    }
}

/* The database that a script of world.h leaves. */
static inline bool forge_sample_of(const char *script, unsigned flags, forge *out) {
    static world w;
    world_make(&w, flags, 4096, 4242);
    const bool ok = world_play(&w, script);
    if (w.db != NULL) world_kill(w.disk, &w.db);
    forge_read(w.disk, out);
    world_free(&w);
    return ok;
}

static inline bool forge_sample(const char *script, forge *out) { return forge_sample_of(script, 0, out); }

static inline void forge_free(forge *f) {
    for (size_t i = 0; i < f->count; i++) free(f->files[i].bytes);
    f->count = 0;
}

static inline void forge_copy(const forge *from, forge *to) {
    for (size_t i = 0; i < from->count; i++) {
        forge_file *file = &to->files[i];
        if (file->capacity < from->files[i].capacity) {
            file->bytes = (uint8_t *)fault_grow(file->bytes, from->files[i].capacity);
            file->capacity = from->files[i].capacity;
        }
        memcpy(file->name, from->files[i].name, sizeof file->name);
        memcpy(file->bytes, from->files[i].bytes, from->files[i].size);
        file->size = from->files[i].size;
    }
    to->count = from->count;
}

static inline fault_files *forge_disk(const forge *f) {
    fault_files *disk = fault_new(NULL);
    for (size_t i = 0; i < f->count; i++)
        fault_store(disk, "db", f->files[i].name, f->files[i].bytes, f->files[i].size);
    return disk;
}

static inline size_t forge_total(const forge *f) {
    size_t total = 0;
    for (size_t i = 0; i < f->count; i++) total += f->files[i].size;
    return total;
}

/* ---- Checksums ---- */

static inline uint32_t forge_crc(const uint8_t *bytes, size_t crc_at, size_t size) {
    const uint32_t crc = iq_crc32(0, bytes, crc_at);
    return iq_crc32(crc, bytes + crc_at + 4, size - crc_at - 4);
}

/* Header and frames, as far as lengths lead; where `chained`, each frame also gets the CRC of the one before. In META
 * every end that was that of a frame stays so. */
static inline void forge_seal_log(forge_file *log, uint8_t *meta, size_t meta_size, bool chained) {
    uint8_t salt[8];
    if (log->size < 512) return;
    uint32_t sector = iq_get_u32(log->bytes + IQ_LOG_SECTOR_AT);
    if (sector < 512 || sector > 4096 || sector > log->size) sector = log->size < 4096 ? 512 : 4096;
    const uint32_t header = forge_crc(log->bytes, IQ_PAGE_CRC_AT, sector);
    iq_put_u32(log->bytes + IQ_PAGE_CRC_AT, header);
    iq_put_u64(salt, iq_get_u64(log->bytes + IQ_LOG_SALT_AT));
    const uint32_t seed = iq_crc32(0, salt, 8);
    uint32_t before = header;
    const uint64_t number = iq_get_u64(log->bytes + IQ_LOG_NUMBER_AT);
    for (size_t at = sector; at + IQ_FRAME_HEADER_SIZE <= log->size;) {
        uint8_t *frame = log->bytes + at;
        const uint32_t length = iq_get_u32(frame + IQ_FRAME_LENGTH_AT);
        if (length == 0 || length > log->size - at - IQ_FRAME_HEADER_SIZE) break;
        if (chained) iq_put_u32(frame + IQ_FRAME_BEFORE_AT, before);
        const uint32_t crc = iq_crc32(seed, frame, 4);
        before = iq_crc32(crc, frame + 8, IQ_FRAME_HEADER_SIZE - 8 + (size_t)length);
        iq_put_u32(frame + IQ_FRAME_CRC_AT, before);
        at += IQ_FRAME_HEADER_SIZE + (size_t)length;
        for (size_t slot = 0; slot + IQ_META_SLOT_SIZE <= meta_size; slot += IQ_META_SLOT_SIZE) {
            for (size_t i = 0; i < IQ_META_LOG_MAX; i++) {
                uint8_t *entry = meta + slot + IQ_META_LOG_AT + i * IQ_META_LOG_SIZE;
                if (iq_get_u64(entry + IQ_META_LOG_NUMBER_AT) != number) continue;
                if (iq_get_u64(entry + IQ_META_LOG_END_AT) == at) iq_put_u32(entry + IQ_META_LOG_END_CRC_AT, before);
            }
        }
    }
}

static inline void forge_seal_snapshot(forge_file *snapshot, uint8_t *meta, size_t meta_size) {
    if (snapshot->size < IQ_SNAPSHOT_HEADER_SIZE + IQ_FOOTER_SIZE) return;
    uint8_t *bytes = snapshot->bytes, *footer = bytes + snapshot->size - IQ_FOOTER_SIZE;
    iq_put_u32(bytes + IQ_PAGE_CRC_AT, forge_crc(bytes, IQ_PAGE_CRC_AT, IQ_SNAPSHOT_HEADER_SIZE));
    const uint64_t blocks = iq_get_u64(footer + IQ_FOOTER_BLOCKS_AT);
    const uint64_t table_blocks = (blocks + 2047) / 2048;
    const uint64_t table_at = blocks * IQ_SNAPSHOT_BLOCK, roots_at = (blocks + table_blocks) * IQ_SNAPSHOT_BLOCK;
    if (blocks < 1000 && roots_at + table_blocks * 4 <= snapshot->size - IQ_FOOTER_SIZE) {
        for (uint64_t i = 0; i < blocks; i++)
            iq_put_u32(bytes + table_at + i * 4, iq_crc32(0, bytes + i * IQ_SNAPSHOT_BLOCK, IQ_SNAPSHOT_BLOCK));
        for (uint64_t i = 0; i < table_blocks; i++)
            iq_put_u32(bytes + roots_at + i * 4,
                       iq_crc32(0, bytes + table_at + i * IQ_SNAPSHOT_BLOCK, IQ_SNAPSHOT_BLOCK));
        iq_put_u32(footer + IQ_FOOTER_ROOTS_CRC_AT, iq_crc32(0, bytes + roots_at, (size_t)(footer - bytes) - roots_at));
    }
    const uint32_t root = forge_crc(footer, IQ_PAGE_CRC_AT, IQ_FOOTER_SIZE);
    iq_put_u32(footer + IQ_PAGE_CRC_AT, root);
    uint64_t number = 0;
    (void)sscanf(snapshot->name, "snap-%" SCNu64, &number);
    for (size_t slot = 0; slot + IQ_META_SLOT_SIZE <= meta_size; slot += IQ_META_SLOT_SIZE) {
        for (size_t i = 0; i < IQ_META_SNAPSHOT_MAX; i++) {
            uint8_t *entry = meta + slot + IQ_META_SNAPSHOT_AT + i * IQ_META_SNAPSHOT_SIZE;
            if (iq_get_u64(entry + IQ_META_SNAPSHOT_NUMBER_AT) == number)
                iq_put_u32(entry + IQ_META_SNAPSHOT_ROOT_AT, root);
        }
    }
}

static inline void forge_seal(forge *f, bool chained) {
    forge_file *meta = NULL;
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->files[i].name, "META") == 0) meta = &f->files[i];
    for (size_t i = 0; i < f->count; i++) {
        forge_file *file = &f->files[i];
        uint8_t *slots = meta != NULL ? meta->bytes : NULL;
        const size_t size = meta != NULL ? meta->size : 0;
        if (strncmp(file->name, "wal", 3) == 0) forge_seal_log(file, slots, size, chained);
        if (strncmp(file->name, "snap", 4) == 0) forge_seal_snapshot(file, slots, size);
    }
    for (size_t slot = 0; meta != NULL && slot + IQ_META_SLOT_SIZE <= meta->size; slot += IQ_META_SLOT_SIZE)
        iq_put_u32(meta->bytes + slot + IQ_PAGE_CRC_AT,
                   forge_crc(meta->bytes + slot, IQ_PAGE_CRC_AT, IQ_META_SLOT_SIZE));
}

/* ---- What has to hold, whatever the bytes are ---- */

typedef struct forge_verdict {
    iqdb_result result; /* of the first open */
    iqdb_error error;
    size_t peak; /* of the heap, while it was opened */
} forge_verdict;

static inline uint64_t forge_walk(iqdb *db, size_t *out_count) {
    uint64_t digest = 0;
    *out_count = 0;
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    while (iqdb_iter_next(&iter)) {
        uint64_t one = fault_hash((const uint8_t *)iter.record.vector, iter.record.dim * sizeof(float), iter.record.id);
        if (iter.record.payload.bytes != NULL)
            one = fault_hash((const uint8_t *)iter.record.payload.bytes, iter.record.payload.size, one + 1);
        digest += iq_hash_u64(one);
        ++*out_count;
    }
    iqdb_iter_end(&iter);
    return digest;
}

static inline bool forge_search(iqdb *db) {
    iqdb_stats stats;
    iqdb_hit hits[5];
    size_t count = 0;
    if (iqdb_stat(db, &stats) != IQDB_OK) return false;
    if (stats.dim == 0) return iqdb_len(db) == 0;
    float *vector = (float *)calloc(stats.dim, sizeof(float));
    iqdb_query query = iqdb_query_default();
    query.vector = vector;
    query.k = 5;
    const iqdb_result result = iqdb_search(db, &query, hits, &count);
    free(vector);
    return result == IQDB_OK && count == (stats.records < 5 ? stats.records : 5);
}

/* The same opened in a map, which believes what it does not look at: no more is asked than that every call answers with
 * a code that is documented, and that what is sound in memory is the same there. */
static inline const char *forge_map(const forge *f, bool sound, uint64_t digest) {
    fault_files *disk = forge_disk(f);
    uint64_t entropy = 3;
    size_t count = 0;
    iqdb *db = NULL;
    iqdb_options options = iqdb_options_default();
    const char *trouble = NULL;
    options.files = fault_table(disk);
    options.entropy.fill_fn = world_entropy;
    options.entropy.user = &entropy;
    options.open_mode = IQDB_OPEN_MMAP;
    const iqdb_result result = iqdb_open("db", &options, &db);
    if (sound && result != IQDB_OK) trouble = "what can be read cannot be mapped";
    if (result == IQDB_OK) {
        const uint64_t walked = forge_walk(db, &count);
        if (sound && walked != digest) trouble = "other records in a map";
        (void)forge_search(db);
        for (uint64_t id = 0; id < 40; id++) (void)iqdb_contains(db, id);
        for (uint64_t id = 0; id < 40; id += 3) {
            const iqdb_result deleted = iqdb_delete(db, id, NULL);
            if (deleted != IQDB_OK && deleted != IQDB_ERR_CORRUPT) trouble = "it cannot be written in a map";
        }
        (void)iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL);
        (void)iqdb_checkpoint(db);
        if (iqdb_close(db) != IQDB_OK) trouble = "a map does not close";
    }
    if (trouble == NULL && disk->open_files + disk->open_dirs + disk->open_maps != 0) trouble = "a map is left";
    fault_free(disk);
    return trouble;
}

/* Repair that only reports ends, with a code that is documented, soon, and takes no more memory than it reads. */
static inline const char *forge_mend(fault_files *disk, const iqdb_options *options, support_heap *heap, size_t total) {
    const size_t before = fault_calls(disk, FAULT_ANY);
    heap->peak_bytes = 0;
    const iqdb_result result = iqdb_repair("db", NULL, options, NULL, NULL);
    if (heap->peak_bytes > 2 * total + 524288) return "too much memory for repair";
    if (fault_calls(disk, FAULT_ANY) - before > 200 + total / 64) return "repair reads too often";
    const bool is_documented = result == IQDB_OK || result == IQDB_ERR_CORRUPT || result == IQDB_ERR_VERSION ||
                               result == IQDB_ERR_NOT_FOUND || result == IQDB_ERR_LIMIT;
    return is_documented ? NULL : "an undocumented code of repair";
}

/* NULL where all is as it has to be, else what is not. `deep`: also open for writing, write, close, open again. */
static inline const char *forge_judge(const forge *f, bool deep, forge_verdict *out) {
    fault_files *disk = forge_disk(f);
    support_heap heap = support_heap_make();
    uint64_t entropy = 3, digest = 0, again = 0;
    iqdb *db = NULL;
    iqdb_options options = iqdb_options_default();
    const char *trouble = NULL;
    bool sound = false;
    uint64_t held = 0;
    size_t count = 0, more = 0;
    options.index_ops = &world_index_ops;
    options.files = fault_table(disk);
    options.allocator = support_allocator(&heap);
    options.entropy.fill_fn = world_entropy;
    options.entropy.user = &entropy;
    options.error = &out->error;
    options.read_only = true;
    memset(&out->error, 0, sizeof out->error);
    out->result = iqdb_open("db", &options, &db);
    out->peak = heap.peak_bytes;
    if (heap.peak_bytes > 2 * forge_total(f) + 262144) trouble = "too much memory";
    if (out->result == IQDB_OK) {
        digest = forge_walk(db, &count);
        if (count != iqdb_len(db)) trouble = "the iterator does not see all records";
        if (!forge_search(db)) trouble = "search fails";
        (void)iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL);
        if (iqdb_close(db) != IQDB_OK) trouble = "a read-only handle does not close";
    } else if (out->result != IQDB_ERR_CORRUPT && out->result != IQDB_ERR_VERSION &&
               out->result != IQDB_ERR_NOT_FOUND && out->result != IQDB_ERR_LIMIT &&
               (out->result != IQDB_ERR_INVALID_CONFIG || strstr(out->error.text, "index_ops") == NULL)) {
        trouble = "an undocumented code";
    } else if (out->error.code != out->result || out->error.text[0] == 0) {
        trouble = "a failure that is not told";
    } else if (out->result != IQDB_ERR_NOT_FOUND && out->result != IQDB_ERR_INVALID_CONFIG && out->error.file[0] == 0) {
        trouble = "a failure without a file";
    }
    if (trouble == NULL && deep) trouble = forge_mend(disk, &options, &heap, forge_total(f));
    if (fault_calls(disk, FAULT_WRITE | FAULT_REMOVE | FAULT_SYNC) > 0) trouble = "reading writes";
    options.read_only = false;
    if (trouble == NULL && deep) {
        iqdb_result result = iqdb_open("db", &options, &db);
        if (result != IQDB_OK) {
            /* To go on writing it looks closer, so a lie may come to light only now. */
            if (result != IQDB_ERR_CORRUPT && result != IQDB_ERR_LIMIT && result != out->result)
                trouble = "another code";
        } else if (out->result != IQDB_OK && out->result != IQDB_ERR_NOT_FOUND) {
            trouble = "it opens for writing, but not for reading";
        } else {
            const float vector[3] = {1, 2, 3};
            iqdb_stats stats;
            iqdb_record record = iqdb_record_default();
            if (forge_walk(db, &more) != digest || more != count) trouble = "other records for writing";
            sound = out->result == IQDB_OK;
            held = digest;
            (void)iqdb_stat(db, &stats);
            float *zeros = (float *)calloc(stats.dim + 1, sizeof(float));
            record.id = UINT64_C(0xFEEDFACECAFE);
            record.vector = stats.dim == 0 ? vector : zeros;
            record.dim = stats.dim == 0 ? 3 : stats.dim;
            if (iqdb_upsert(db, &record) != IQDB_OK) trouble = "it cannot be written";
            free(zeros);
            digest = forge_walk(db, &count);
            if (iqdb_close(db) != IQDB_OK) trouble = "it does not close";
            if (trouble == NULL) {
                if (iqdb_open("db", &options, &db) != IQDB_OK) {
                    trouble = "it does not open again";
                } else {
                    again = forge_walk(db, &more);
                    if (again != digest || more != count) trouble = "other records after closing";
                    if (iqdb_checkpoint(db) != IQDB_OK || iqdb_close(db) != IQDB_OK) trouble = "no checkpoint";
                }
            }
        }
    }
    if (trouble == NULL && deep) trouble = forge_map(f, sound, held);
    if (trouble == NULL && support_heap_problems(&heap) != 0) trouble = "memory is lost";
    if (trouble == NULL && disk->open_files + disk->open_dirs != 0) trouble = "a file is left open";
    fault_free(disk);
    return trouble;
}

#endif
