/* META: one page that says which files make up the database, kept twice.
 *
 * 1. A save never touches both slots in one sync: first the invalid or older slot, and only when that one has been
 *    synced and read back, the other. So at any moment one slot is valid, and damage to either one costs nothing.
 * 2. After a save both slots say the same. Only then may a caller rely on it: unlink files, append to a log.
 * 3. The sequence grows with every attempt, a failed one included, so what a failed save may have left on the disk
 *    never outranks what follows.
 * 4. What is decoded has been checked as if somebody had made it by hand: counts, order of numbers and LSNs. */
#include "persist/meta.h"
#include "base/bytes.h"
#include "kernel/crc32.h"

#define IQ_META_NAME "META"

IQ_FN bool iq_schema_is_valid(const iq_schema *schema) {
    return schema->dim <= IQDB_DIM_MAX && iq_element_answers(schema->element, schema->metric);
}

IQ_FN void iq_meta_encode(const iq_manifest *manifest, uint64_t sequence, uint8_t *slot) {
    memset(slot, 0, IQ_META_SLOT_SIZE);
    iq_put_u64(slot + IQ_META_SEQUENCE_AT, sequence);
    iq_put_u32(slot + IQ_META_REQUIRED_AT, manifest->required);
    iq_put_u32(slot + IQ_META_STATE_AT, manifest->clean ? IQ_META_CLEAN : 0);
    iq_put_u32(slot + IQ_META_SNAPSHOTS_AT, manifest->snapshot_count);
    iq_put_u32(slot + IQ_META_LOGS_AT, manifest->log_count);
    iq_put_u64(slot + IQ_META_APPLIED_AT, manifest->applied_lsn);
    iq_put_u32(slot + IQ_META_DIM_AT, manifest->schema.dim);
    iq_put_u32(slot + IQ_META_METRIC_AT, manifest->schema.metric);
    iq_put_u32(slot + IQ_META_ELEMENT_AT, manifest->schema.element);
    memcpy(slot + IQ_META_MODEL_AT, manifest->model, IQ_META_MODEL_SIZE);
    for (uint32_t i = 0; i < manifest->snapshot_count; i++) {
        const iq_snapshot_entry *snapshot = &manifest->snapshots[i];
        uint8_t *entry = slot + IQ_META_SNAPSHOT_AT + i * IQ_META_SNAPSHOT_SIZE;
        iq_put_u64(entry + IQ_META_SNAPSHOT_NUMBER_AT, snapshot->number);
        iq_put_u64(entry + IQ_META_SNAPSHOT_BYTES_AT, snapshot->size_bytes);
        iq_put_u64(entry + IQ_META_SNAPSHOT_LSN_AT, snapshot->lsn);
        iq_put_u32(entry + IQ_META_SNAPSHOT_ROOT_AT, snapshot->root);
    }
    for (uint32_t i = 0; i < manifest->log_count; i++) {
        const iq_log_entry *log = &manifest->logs[i];
        uint8_t *entry = slot + IQ_META_LOG_AT + i * IQ_META_LOG_SIZE;
        iq_put_u64(entry + IQ_META_LOG_NUMBER_AT, log->number);
        iq_put_u64(entry + IQ_META_LOG_SALT_AT, log->salt);
        iq_put_u64(entry + IQ_META_LOG_FIRST_AT, log->first_lsn);
        iq_put_u64(entry + IQ_META_LOG_BYTES_AT, log->size_bytes);
        if (!log->has_end) continue;
        iq_put_u64(entry + IQ_META_LOG_END_LSN_AT, log->end.lsn);
        iq_put_u64(entry + IQ_META_LOG_END_AT, log->end.offset);
        iq_put_u32(entry + IQ_META_LOG_END_CRC_AT, log->end.crc);
        iq_put_u32(entry + IQ_META_LOG_STATE_AT, IQ_META_LOG_ENDS);
    }
    (void)iq_page_seal(slot, IQ_META_SLOT_SIZE, IQ_META_MAGIC, manifest->uuid);
}

/* Whether the lists could have been written by a save: see invariant 4. */
static bool iq_meta_makes_sense(const iq_manifest *manifest) {
    uint64_t lsn = 0, number = 0;
    for (uint32_t i = 0; i < manifest->snapshot_count; i++) {
        const iq_snapshot_entry *snapshot = &manifest->snapshots[i];
        if (snapshot->number <= number || snapshot->number > IQ_NUMBER_MAX) return false;
        if (snapshot->lsn < lsn || snapshot->lsn > IQ_LSN_MAX) return false;
        number = snapshot->number;
        lsn = snapshot->lsn;
    }
    if (manifest->applied_lsn != lsn) return false;
    number = 0;
    for (uint32_t i = 0; i < manifest->log_count; i++) {
        const iq_log_entry *log = &manifest->logs[i];
        const bool is_last = i + 1 == manifest->log_count;
        if (log->number <= number || log->number > IQ_NUMBER_MAX) return false;
        if (log->first_lsn - 1 > IQ_LSN_MAX) return false;
        if (i == 0 ? log->first_lsn > lsn + 1 : log->first_lsn != lsn + 1) return false;
        if (!log->has_end) return is_last && !manifest->clean;
        if (log->end.lsn < log->first_lsn - 1 || log->end.lsn > IQ_LSN_MAX) return false;
        if (log->end.offset < IQ_LOG_SECTOR_MIN || log->end.offset > IQ_NUMBER_MAX) return false;
        number = log->number;
        lsn = log->end.lsn;
    }
    return lsn >= manifest->applied_lsn;
}

/* Whether a save could have written this tag: text, and zeros to the end. */
static bool iq_meta_has_model(const iq_manifest *manifest) {
    size_t end = IQ_META_MODEL_SIZE;
    while (end > 0 && manifest->model[end - 1] == 0) end--;
    return iq_model_is_valid(manifest->model, end);
}

IQ_FN iqdb_result iq_meta_decode(const uint8_t *slot, iq_manifest *out_manifest, uint64_t *out_sequence) {
    iq_manifest *manifest = out_manifest;
    memset(manifest, 0, sizeof *manifest);
    if (!iq_page_is_sound(slot, IQ_META_SLOT_SIZE, IQ_META_MAGIC)) return IQDB_ERR_CORRUPT;
    *out_sequence = iq_get_u64(slot + IQ_META_SEQUENCE_AT);
    if (*out_sequence > IQ_LSN_MAX) return IQDB_ERR_CORRUPT;
    if (iq_get_u32(slot + IQ_PAGE_VERSION_AT) != IQDB_FORMAT_VERSION) return IQDB_ERR_VERSION;
    manifest->required = iq_get_u32(slot + IQ_META_REQUIRED_AT);
    if ((manifest->required & ~(uint32_t)IQ_META_KNOWN) != 0) return IQDB_ERR_VERSION;
    memcpy(manifest->uuid, slot + IQ_PAGE_UUID_AT, IQ_UUID_SIZE);
    manifest->clean = (iq_get_u32(slot + IQ_META_STATE_AT) & IQ_META_CLEAN) != 0;
    manifest->snapshot_count = iq_get_u32(slot + IQ_META_SNAPSHOTS_AT);
    manifest->log_count = iq_get_u32(slot + IQ_META_LOGS_AT);
    manifest->applied_lsn = iq_get_u64(slot + IQ_META_APPLIED_AT);
    manifest->schema.dim = iq_get_u32(slot + IQ_META_DIM_AT);
    manifest->schema.metric = iq_get_u32(slot + IQ_META_METRIC_AT);
    manifest->schema.element = iq_get_u32(slot + IQ_META_ELEMENT_AT);
    memcpy(manifest->model, slot + IQ_META_MODEL_AT, IQ_META_MODEL_SIZE);
    if (!iq_meta_has_model(manifest)) return IQDB_ERR_CORRUPT;
    if (manifest->snapshot_count > IQ_META_SNAPSHOT_MAX) return IQDB_ERR_CORRUPT;
    if (manifest->log_count == 0 || manifest->log_count > IQ_META_LOG_MAX) return IQDB_ERR_CORRUPT;
    for (uint32_t i = 0; i < manifest->snapshot_count; i++) {
        const uint8_t *entry = slot + IQ_META_SNAPSHOT_AT + i * IQ_META_SNAPSHOT_SIZE;
        manifest->snapshots[i].number = iq_get_u64(entry + IQ_META_SNAPSHOT_NUMBER_AT);
        manifest->snapshots[i].size_bytes = iq_get_u64(entry + IQ_META_SNAPSHOT_BYTES_AT);
        manifest->snapshots[i].lsn = iq_get_u64(entry + IQ_META_SNAPSHOT_LSN_AT);
        manifest->snapshots[i].since = i == 0 ? 0 : manifest->snapshots[i - 1].lsn;
        manifest->snapshots[i].root = iq_get_u32(entry + IQ_META_SNAPSHOT_ROOT_AT);
    }
    for (uint32_t i = 0; i < manifest->log_count; i++) {
        const uint8_t *entry = slot + IQ_META_LOG_AT + i * IQ_META_LOG_SIZE;
        iq_log_entry *log = &manifest->logs[i];
        log->number = iq_get_u64(entry + IQ_META_LOG_NUMBER_AT);
        log->salt = iq_get_u64(entry + IQ_META_LOG_SALT_AT);
        log->first_lsn = iq_get_u64(entry + IQ_META_LOG_FIRST_AT);
        log->size_bytes = iq_get_u64(entry + IQ_META_LOG_BYTES_AT);
        log->end.lsn = iq_get_u64(entry + IQ_META_LOG_END_LSN_AT);
        log->end.offset = iq_get_u64(entry + IQ_META_LOG_END_AT);
        log->end.crc = iq_get_u32(entry + IQ_META_LOG_END_CRC_AT);
        log->has_end = (iq_get_u32(entry + IQ_META_LOG_STATE_AT) & IQ_META_LOG_ENDS) != 0;
    }
    return iq_meta_makes_sense(manifest) ? IQDB_OK : IQDB_ERR_CORRUPT;
}

/* Reads slot `index` into `bytes`, zeros where the file ends. *out_blank: nothing but zeros is there. */
static iqdb_result iq_meta_read_slot(const iq_file *file, uint32_t index, uint8_t *bytes, bool *out_blank) {
    size_t size;
    memset(bytes, 0, IQ_META_SLOT_SIZE);
    const iqdb_result result = iq_file_read(file, (uint64_t)index * IQ_META_SLOT_SIZE, bytes, IQ_META_SLOT_SIZE, &size);
    *out_blank = bytes[0] == 0 && memcmp(bytes, bytes + 1, IQ_META_SLOT_SIZE - 1) == 0;
    return result;
}

IQ_FN iqdb_result iq_meta_load(iq_meta *meta, const iq_volume *volume, bool writable, iq_meta_state *out_state,
                               iq_manifest *out_manifest) {
    iqdb_result codes[2] = {IQDB_OK, IQDB_OK};
    uint64_t sequences[2] = {0, 0};
    bool blank[2] = {false, false};
    *out_state = IQ_META_IS_MISSING;
    meta->sequence = 0;
    meta->next_slot = 0;
    meta->settled = meta->torn = false;
    iqdb_result result = iq_file_open(&meta->file, volume, IQ_META_NAME, writable ? IQDB_OPEN_WRITE : IQDB_OPEN_READ);
    if (result == IQDB_ERR_NOT_FOUND) return IQDB_OK;
    for (uint32_t i = 0; i < 2 && result == IQDB_OK; i++) {
        uint8_t *slot = i == 0 ? meta->image : meta->check;
        result = iq_meta_read_slot(&meta->file, i, slot, &blank[i]);
        if (result == IQDB_OK) codes[i] = iq_meta_decode(slot, out_manifest, &sequences[i]);
        if (codes[i] == IQDB_ERR_CORRUPT) sequences[i] = 0;
    }
    if (result != IQDB_OK) return result;
    if (codes[0] == IQDB_ERR_CORRUPT && codes[1] == IQDB_ERR_CORRUPT) {
        *out_state = blank[0] && blank[1] ? IQ_META_IS_BLANK : IQ_META_IS_DAMAGED;
        return IQDB_OK;
    }
    uint32_t newest = sequences[1] > sequences[0] ? 1 : 0;
    if (codes[newest] == IQDB_ERR_CORRUPT) newest ^= 1u;
    *out_state = IQ_META_IS_GOOD;
    meta->sequence = sequences[newest];
    meta->next_slot = newest ^ 1u;
    meta->torn = codes[newest ^ 1u] == IQDB_ERR_CORRUPT;
    meta->settled = memcmp(meta->image, meta->check, IQ_META_SLOT_SIZE) == 0;
    if (codes[newest] == IQDB_ERR_VERSION)
        return iq_file_report(&meta->file, IQDB_ERR_VERSION, (uint64_t)newest * IQ_META_SLOT_SIZE, 0,
                              "the database was written by a newer version");
    (void)iq_meta_decode(newest == 0 ? meta->image : meta->check, out_manifest, &meta->sequence);
    memcpy(meta->keys, (newest == 0 ? meta->image : meta->check) + IQ_META_KEYS_AT, IQ_META_KEYS_SIZE);
    if (codes[newest ^ 1u] == IQDB_ERR_CORRUPT)
        iq_log(volume->reporter, IQDB_LEVEL_WARNING, IQ_META_NAME, (uint64_t)(newest ^ 1u) * IQ_META_SLOT_SIZE,
               "one of the two slots is not valid; the other one is used");
    return IQDB_OK;
}

IQ_FN iqdb_result iq_meta_verify(const iq_volume *volume, uint8_t *scratch) {
    iq_manifest unused;
    iq_file file;
    uint64_t sequence;
    bool blank;
    iqdb_result first = iq_file_open(&file, volume, IQ_META_NAME, IQDB_OPEN_READ);
    if (first == IQDB_ERR_NOT_FOUND)
        return iq_report(volume->reporter, IQDB_ERR_CORRUPT, IQ_META_NAME, 0, "the file is missing");
    if (first != IQDB_OK) return first;
    for (uint32_t i = 0; i < 2; i++) {
        iqdb_result result = iq_meta_read_slot(&file, i, scratch, &blank);
        if (result == IQDB_OK && iq_meta_decode(scratch, &unused, &sequence) != IQDB_OK)
            result =
                iq_file_report(&file, IQDB_ERR_CORRUPT, (uint64_t)i * IQ_META_SLOT_SIZE, 0, "this slot is not valid");
        if (first == IQDB_OK) first = result;
    }
    iq_file_close(&file);
    return first;
}

IQ_FN iqdb_result iq_meta_create(iq_meta *meta, const iq_volume *volume) {
    meta->sequence = 0;
    meta->next_slot = 0;
    meta->settled = meta->torn = false;
    const iqdb_result result = iq_file_open(&meta->file, volume, IQ_META_NAME, IQDB_OPEN_CREATE);
    if (result == IQDB_ERR_INVALID_CONFIG || result == IQDB_ERR_NOT_FOUND)
        return iq_report(volume->reporter, IQDB_ERR_IO, IQ_META_NAME, 0, "the file cannot be created");
    return result;
}

/* A slot that was found torn must not be completed by a later save of which only some sectors get through: most of its
 * sectors would say the same. Without its first one it is nothing. */
static iqdb_result iq_meta_forget_torn(iq_meta *meta) {
    if (!meta->torn) return IQDB_OK;
    memset(meta->check, 0, IQ_LOG_SECTOR_MIN);
    const uint64_t offset = (uint64_t)meta->next_slot * IQ_META_SLOT_SIZE;
    iqdb_result result = iq_file_write(&meta->file, offset, meta->check, IQ_LOG_SECTOR_MIN);
    if (result == IQDB_OK) result = iq_file_sync(&meta->file);
    meta->torn = result != IQDB_OK;
    return result;
}

IQ_FN iqdb_result iq_meta_save(iq_meta *meta, const iq_manifest *manifest) {
    IQ_ASSERT(iq_meta_makes_sense(manifest));
    if (meta->sequence >= IQ_LSN_MAX)
        return iq_file_report(&meta->file, IQDB_ERR_LIMIT, 0, 0, "no number is left for another change");
    meta->sequence++;
    meta->settled = false;
    iq_meta_encode(manifest, meta->sequence, meta->image);
    memcpy(meta->image + IQ_META_KEYS_AT, meta->keys, IQ_META_KEYS_SIZE);
    (void)iq_page_seal(meta->image, IQ_META_SLOT_SIZE, IQ_META_MAGIC, manifest->uuid);
    for (int pass = 0; pass < 2; pass++) {
        const uint64_t offset = (uint64_t)meta->next_slot * IQ_META_SLOT_SIZE;
        bool blank;
        iqdb_result result = iq_meta_forget_torn(meta);
        if (result == IQDB_OK) result = iq_file_write(&meta->file, offset, meta->image, IQ_META_SLOT_SIZE);
        if (result == IQDB_OK) result = iq_file_sync(&meta->file);
        if (result == IQDB_OK) result = iq_meta_read_slot(&meta->file, meta->next_slot, meta->check, &blank);
        if (result == IQDB_OK && memcmp(meta->image, meta->check, IQ_META_SLOT_SIZE) != 0)
            result = iq_file_report(&meta->file, IQDB_ERR_IO, offset, 0, "what was written does not read back");
        if (result != IQDB_OK) return result;
        meta->next_slot ^= 1u;
    }
    meta->settled = true;
    return IQDB_OK;
}
