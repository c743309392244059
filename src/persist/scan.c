/* Reading a log.
 *
 * 1. A frame counts where its CRC, over the salt of this log, holds and its LSN and the CRC it remembers continue the
 *    frame before. The salt keeps out frames of other logs, the chain those of other times.
 * 2. The first frame that does not count ends what can be read. Whether it was lost in a crash or rotted later is for
 *    recover.c to decide, by what frames further on attest: those are found without the chain, at every 8 bytes.
 * 3. A frame that counts and yet makes no sense was not written by us: CORRUPT, never the end of the log.
 * 4. Memory: one window, and one record that is known to lie in the file, whatever the file says. Time: a search for
 *    attesting frames computes at most IQ_SCAN_PATIENCE checksums for each byte; more likely headers than that are
 *    made by hand. */
#include "persist/scan.h"
#include "base/bytes.h"
#include "kernel/crc32.h"

#define IQ_SCAN_WINDOW (128u * 1024u)
#define IQ_SCAN_PATIENCE 8u
#define IQ_SCAN_NO_ANCHOR UINT64_MAX
IQ_STATIC_ASSERT(IQ_SCAN_WINDOW >= IQ_FRAME_HEADER_SIZE + IQ_FRAME_LENGTH_MAX, scan_window);

/* ---- Header and frame, as bytes ---- */

IQ_FN void iq_log_encode_header(iq_log_header *header, const uint8_t *uuid, uint8_t *sector) {
    memset(sector, 0, header->sector_size);
    iq_put_u64(sector + IQ_LOG_NUMBER_AT, header->number);
    iq_put_u64(sector + IQ_LOG_SALT_AT, header->salt);
    iq_put_u64(sector + IQ_LOG_FIRST_AT, header->first_lsn);
    iq_put_u64(sector + IQ_LOG_BEFORE_AT, header->before);
    iq_put_u64(sector + IQ_LOG_BEFORE_SALT_AT, header->before_salt);
    iq_put_u32(sector + IQ_LOG_SECTOR_AT, header->sector_size);
    header->crc = iq_page_seal(sector, header->sector_size, IQ_LOG_MAGIC, uuid);
}

/* `size` bytes are there. VERSION: a whole header of a newer version. */
static iqdb_result iq_log_decode_header(const uint8_t *sector, size_t size, iq_log_header *out, uint8_t *out_uuid) {
    if (size < IQ_LOG_SECTOR_MIN) return IQDB_ERR_CORRUPT;
    const uint32_t sector_size = iq_get_u32(sector + IQ_LOG_SECTOR_AT);
    if (sector_size < IQ_LOG_SECTOR_MIN || sector_size > size || (sector_size & (sector_size - 1)) != 0 ||
        !iq_page_is_sound(sector, sector_size, IQ_LOG_MAGIC))
        return IQDB_ERR_CORRUPT;
    out->crc = iq_get_u32(sector + IQ_PAGE_CRC_AT);
    if (iq_get_u32(sector + IQ_PAGE_VERSION_AT) != IQDB_FORMAT_VERSION || iq_get_u32(sector + IQ_LOG_REQUIRED_AT) != 0)
        return IQDB_ERR_VERSION;
    memcpy(out_uuid, sector + IQ_PAGE_UUID_AT, IQ_UUID_SIZE);
    out->number = iq_get_u64(sector + IQ_LOG_NUMBER_AT);
    out->salt = iq_get_u64(sector + IQ_LOG_SALT_AT);
    out->first_lsn = iq_get_u64(sector + IQ_LOG_FIRST_AT);
    out->before = iq_get_u64(sector + IQ_LOG_BEFORE_AT);
    out->before_salt = iq_get_u64(sector + IQ_LOG_BEFORE_SALT_AT);
    out->sector_size = sector_size;
    return out->first_lsn == 0 || out->first_lsn > IQ_NUMBER_MAX ? IQDB_ERR_CORRUPT : IQDB_OK;
}

IQ_FN uint32_t iq_log_seed(uint64_t salt) {
    uint8_t bytes[8];
    iq_put_u64(bytes, salt);
    return iq_crc32(0, bytes, sizeof bytes);
}

IQ_FN uint32_t iq_frame_crc(iq_crc32_fn crc32, uint32_t seed, const uint8_t *frame, uint32_t length) {
    const uint32_t crc = iq_crc32(seed, frame, IQ_FRAME_CRC_AT);
    return crc32(crc, frame + IQ_FRAME_LSN_AT, IQ_FRAME_HEADER_SIZE - IQ_FRAME_LSN_AT + (size_t)length);
}

/* The header; false where no frame can have this length. */
static bool iq_frame_decode(const uint8_t *bytes, iq_frame *out) {
    out->length = iq_get_u32(bytes + IQ_FRAME_LENGTH_AT);
    if (out->length < IQ_BODY_HEAD_SIZE || out->length > IQ_FRAME_LENGTH_MAX || out->length % 8 != 0) return false;
    out->crc = iq_get_u32(bytes + IQ_FRAME_CRC_AT);
    out->lsn = iq_get_u64(bytes + IQ_FRAME_LSN_AT);
    out->durable_lsn = iq_get_u64(bytes + IQ_FRAME_DURABLE_AT);
    out->batch_lsn = iq_get_u64(bytes + IQ_FRAME_BATCH_AT);
    out->before_crc = iq_get_u32(bytes + IQ_FRAME_BEFORE_AT);
    out->type = bytes[IQ_FRAME_TYPE_AT];
    out->flags = bytes[IQ_FRAME_FLAGS_AT];
    return true;
}

/* What holds for every frame by itself. */
static bool iq_frame_makes_sense(const iq_frame *frame, const uint8_t *bytes) {
    if (frame->type < IQ_FRAME_RECORD || frame->type > IQ_FRAME_SWITCH || frame->flags > IQ_FRAME_WHOLE) return false;
    if (iq_get_u16(bytes + IQ_FRAME_ZERO_AT) != 0) return false;
    if ((frame->flags & IQ_FRAME_COMMIT) != 0 && (frame->flags & IQ_FRAME_LAST) == 0) return false;
    if (frame->type != IQ_FRAME_RECORD && frame->flags != IQ_FRAME_WHOLE) return false;
    return frame->lsn <= IQ_NUMBER_MAX && frame->batch_lsn <= frame->lsn && frame->durable_lsn < frame->batch_lsn;
}

/* ---- Opening ---- */

IQ_FN void iq_scan_close(iq_scan *scan) {
    if (scan->window == NULL && scan->file.handle == NULL) return;
    const iqdb_allocator *allocator = &scan->file.volume->allocator;
    iq_file_close(&scan->file);
    iq_free(allocator, scan->window, scan->window_capacity, 16);
    scan->window = NULL;
    iq_blob_free(&scan->record);
}

/* Leaves the scan open, unless it fails, whatever the header is. */
static iqdb_result iq_scan_start_reading(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid, uint64_t number,
                                         iq_log_state *out_state) {
    char name[IQ_FILE_NAME_SIZE];
    size_t size = 0;
    memset(scan, 0, sizeof *scan);
    iq_volume_name(name, IQ_LOG_PREFIX, number);
    *out_state = IQ_LOG_IS_MISSING;
    iqdb_result result = iq_file_open(&scan->file, volume, name, IQDB_OPEN_READ);
    if (result == IQDB_ERR_NOT_FOUND) return IQDB_OK;
    if (result == IQDB_OK) result = iq_file_size(&scan->file, &scan->size_bytes);
    if (result == IQDB_OK) {
        scan->record.allocator = &volume->allocator;
        scan->window_capacity = scan->size_bytes < IQ_SCAN_WINDOW ? (size_t)scan->size_bytes : IQ_SCAN_WINDOW;
        if (scan->window_capacity < IQ_LOG_SECTOR_MAX) scan->window_capacity = IQ_LOG_SECTOR_MAX;
        scan->window = (uint8_t *)iq_alloc(&volume->allocator, scan->window_capacity, 16);
        if (scan->window == NULL) result = iq_file_report(&scan->file, IQDB_ERR_NOMEM, 0, 0, "no memory to read a log");
    }
    if (result == IQDB_OK) result = iq_file_read(&scan->file, 0, scan->window, IQ_LOG_SECTOR_MAX, &size);
    if (result == IQDB_OK) {
        const iqdb_result code = iq_log_decode_header(scan->window, size, &scan->header, scan->uuid);
        *out_state = code == IQDB_OK ? IQ_LOG_IS_GOOD : IQ_LOG_IS_TORN;
        if (code == IQDB_ERR_VERSION)
            result = iq_file_report(&scan->file, code, 0, 0, "the log was written by a newer version");
    }
    if (*out_state == IQ_LOG_IS_GOOD &&
        (scan->header.number != number || (uuid != NULL && memcmp(scan->uuid, uuid, IQ_UUID_SIZE) != 0)))
        *out_state = IQ_LOG_IS_FOREIGN;
    if (result != IQDB_OK) iq_scan_close(scan);
    scan->seed = iq_log_seed(scan->header.salt);
    scan->anchor = IQ_SCAN_NO_ANCHOR;
    return result;
}

IQ_FN iqdb_result iq_scan_open(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid, uint64_t number,
                               iq_log_state *out_state) {
    const iqdb_result result = iq_scan_start_reading(scan, volume, uuid, number, out_state);
    if (*out_state != IQ_LOG_IS_GOOD) iq_scan_close(scan);
    return result;
}

/* NULL where the state is GOOD and the log is the one that the entry describes. */
static const char *iq_scan_complaint(const iq_scan *scan, const iq_log_entry *entry, iq_log_state state) {
    if (state == IQ_LOG_IS_MISSING) return "the log must be there, but it is missing";
    if (state == IQ_LOG_IS_TORN) return "the header of the log is damaged";
    if (state == IQ_LOG_IS_FOREIGN) return "the log belongs to another database, or has another number";
    if (scan->header.salt != entry->salt || scan->header.first_lsn != entry->first_lsn)
        return "this is not the log of that number which belongs here";
    return NULL;
}

IQ_FN iqdb_result iq_scan_require(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid,
                                  const iq_log_entry *entry) {
    iq_log_state state;
    const iqdb_result result = iq_scan_open(scan, volume, uuid, entry->number, &state);
    if (result != IQDB_OK) return result;
    const char *text = iq_scan_complaint(scan, entry, state);
    if (text == NULL) return IQDB_OK;
    iq_scan_close(scan);
    return iq_file_report(&scan->file, IQDB_ERR_CORRUPT, 0, entry->first_lsn, text);
}

IQ_FN iqdb_result iq_scan_salvage(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid,
                                  const iq_log_entry *entry, bool *out_usable) {
    iq_log_state state;
    *out_usable = false;
    iqdb_result result = iq_scan_start_reading(scan, volume, uuid, entry->number, &state);
    scan->patience = scan->size_bytes * IQ_SCAN_PATIENCE + 1;
    if (result == IQDB_ERR_NOMEM) return result;
    if (result == IQDB_OK) {
        const char *text = iq_scan_complaint(scan, entry, state);
        if (text != NULL) (void)iq_file_report(&scan->file, IQDB_ERR_CORRUPT, 0, entry->first_lsn, text);
    }
    if (result == IQDB_OK && state == IQ_LOG_IS_TORN) {
        /* Where the frames begin is for a search to find out. */
        scan->header.number = entry->number;
        scan->header.salt = entry->salt;
        scan->header.first_lsn = entry->first_lsn;
        scan->header.sector_size = IQ_LOG_SECTOR_MIN;
        scan->header.crc = 0;
        scan->seed = iq_log_seed(entry->salt);
        state = IQ_LOG_IS_GOOD;
    }
    *out_usable = result == IQDB_OK && state == IQ_LOG_IS_GOOD;
    if (!*out_usable) iq_scan_close(scan);
    return IQDB_OK;
}

IQ_FN iq_log_position iq_scan_start(const iq_scan *scan) {
    iq_log_position start;
    start.lsn = scan->header.first_lsn - 1;
    start.offset = scan->header.sector_size;
    start.crc = scan->header.crc;
    return start;
}

/* ---- Frames ---- */

/* The bytes of the file at `offset`, or NULL where it does not have so many. size <= the window. */
static iqdb_result iq_scan_get(iq_scan *scan, uint64_t offset, size_t size, const uint8_t **out_bytes) {
    *out_bytes = NULL;
    if (offset > scan->size_bytes || size > scan->size_bytes - offset) return IQDB_OK;
    if (offset < scan->window_at || offset + size > scan->window_at + scan->window_size) {
        const bool keep = scan->anchor <= offset && offset + size - scan->anchor <= scan->window_capacity;
        const uint64_t at = keep ? scan->anchor : offset;
        const uint64_t left = scan->size_bytes - at;
        const size_t want = left < scan->window_capacity ? (size_t)left : scan->window_capacity;
        scan->window_at = at;
        scan->window_turns++;
        const iqdb_result result = iq_file_read(&scan->file, at, scan->window, want, &scan->window_size);
        if (result != IQDB_OK) {
            scan->window_size = 0;
            return result;
        }
        if (offset + size > at + scan->window_size) return IQDB_OK; /* it has shrunk */
    }
    *out_bytes = scan->window + (size_t)(offset - scan->window_at);
    return IQDB_OK;
}

/* The frame at `offset` with its body where `length` allows one; bytes NULL where there is none. */
static iqdb_result iq_scan_load(iq_scan *scan, uint64_t offset, iq_frame *out, const uint8_t **out_bytes) {
    iqdb_result result = iq_scan_get(scan, offset, IQ_FRAME_HEADER_SIZE, out_bytes);
    if (result != IQDB_OK || *out_bytes == NULL) return result;
    if (!iq_frame_decode(*out_bytes, out)) {
        *out_bytes = NULL;
        return IQDB_OK;
    }
    result = iq_scan_get(scan, offset, IQ_FRAME_HEADER_SIZE + (size_t)out->length, out_bytes);
    if (*out_bytes == NULL) return result;
    out->offset = offset;
    out->body = *out_bytes + IQ_FRAME_HEADER_SIZE;
    return result;
}

IQ_FN iqdb_result iq_scan_frame(iq_scan *scan, const iq_log_position *from, iq_frame *out_frame, bool *out_valid) {
    const uint8_t *bytes;
    *out_valid = false;
    memset(out_frame, 0, sizeof *out_frame);
    const iqdb_result result = iq_scan_load(scan, from->offset, out_frame, &bytes);
    if (result != IQDB_OK || bytes == NULL) return result;
    if (out_frame->lsn != from->lsn + 1 || out_frame->before_crc != from->crc) return IQDB_OK;
    if (iq_frame_crc(scan->file.volume->crc32, scan->seed, bytes, out_frame->length) != out_frame->crc) return IQDB_OK;
    if (!iq_frame_makes_sense(out_frame, bytes))
        return iq_file_report(&scan->file, IQDB_ERR_CORRUPT, from->offset, out_frame->lsn,
                              "a frame makes no sense, though its checksum holds");
    *out_valid = true;
    return IQDB_OK;
}

IQ_FN iq_log_position iq_scan_behind(const iq_frame *frame) {
    iq_log_position position;
    position.lsn = frame->lsn;
    position.offset = frame->offset + IQ_FRAME_HEADER_SIZE + frame->length;
    position.crc = frame->crc;
    return position;
}

IQ_FN iqdb_result iq_scan_is_blank(iq_scan *scan, uint64_t offset, bool *out_blank) {
    const uint8_t *bytes;
    const iqdb_result result = iq_scan_get(scan, offset, IQ_FRAME_SIZE_MIN, &bytes);
    *out_blank = bytes != NULL;
    for (size_t i = 0; i < IQ_FRAME_SIZE_MIN && *out_blank; i++) *out_blank = bytes[i] == 0;
    return result;
}

/* ---- Batches ---- */

/* Takes the next frame into the span, or tells that it cannot follow there. */
static bool iq_span_take(iq_span *span, const iq_frame *frame, bool is_in_record, size_t *record_size) {
    const bool is_first = span->end.lsn == span->start.lsn;
    const bool starts = (frame->flags & IQ_FRAME_FIRST) != 0;
    if (frame->batch_lsn != span->start.lsn + 1 || starts == is_in_record) return false;
    if (!is_first && (frame->type != span->type || frame->durable_lsn != span->durable_lsn)) return false;
    span->type = frame->type;
    span->durable_lsn = frame->durable_lsn;
    if (frame->type == IQ_FRAME_SWITCH) {
        if (frame->length < IQ_BODY_SWITCH_SIZE || frame->body[0] != IQ_BODY_SWITCH) return false;
        span->next.number = iq_get_u64(frame->body + IQ_BODY_SWITCH_NUMBER_AT);
        span->next.salt = iq_get_u64(frame->body + IQ_BODY_SWITCH_SALT_AT);
        span->next.size_bytes = iq_get_u64(frame->body + IQ_BODY_SWITCH_BYTES_AT);
        span->next.first_lsn = frame->lsn + 1;
    }
    if (frame->type == IQ_FRAME_ATTEST && frame->body[0] != IQ_BODY_ATTEST) return false;
    *record_size = starts ? frame->length : *record_size + frame->length;
    if (!starts && *record_size > span->record_max) span->record_max = *record_size;
    span->end = iq_scan_behind(frame);
    return true;
}

IQ_FN iqdb_result iq_scan_batch(iq_scan *scan, const iq_log_position *from, iq_span *out_span, bool *out_whole) {
    size_t record_size = 0;
    bool is_in_record = false;
    memset(out_span, 0, sizeof *out_span);
    out_span->start = out_span->end = *from;
    scan->anchor = from->offset;
    *out_whole = false;
    while (!*out_whole) {
        iq_frame frame;
        bool is_valid;
        const iqdb_result result = iq_scan_frame(scan, &out_span->end, &frame, &is_valid);
        if (result != IQDB_OK || !is_valid) return result;
        if (out_span->end.lsn == from->lsn) out_span->turns = scan->window_turns;
        if (!iq_span_take(out_span, &frame, is_in_record, &record_size))
            return iq_file_report(&scan->file, IQDB_ERR_CORRUPT, frame.offset, frame.lsn,
                                  "a frame does not belong where it stands, though its checksum holds");
        is_in_record = (frame.flags & IQ_FRAME_LAST) == 0;
        *out_whole = (frame.flags & IQ_FRAME_COMMIT) != 0;
    }
    return IQDB_OK;
}

/* A frame of a batch that iq_scan_batch has found whole; checked again only where the window has turned since. */
static iqdb_result iq_scan_again(iq_scan *scan, const iq_log_position *from, uint64_t turns, iq_frame *out_frame) {
    const uint8_t *bytes = NULL;
    bool is_valid = true;
    iqdb_result result = IQDB_OK;
    if (scan->window_turns == turns) result = iq_scan_load(scan, from->offset, out_frame, &bytes);
    if (result != IQDB_OK || (bytes != NULL && scan->window_turns == turns)) return result;
    result = iq_scan_frame(scan, from, out_frame, &is_valid);
    if (result == IQDB_OK && !is_valid)
        result = iq_file_report(&scan->file, IQDB_ERR_CORRUPT, from->offset, from->lsn + 1,
                                "a frame reads differently the second time");
    return result;
}

IQ_FN iqdb_result iq_scan_records(iq_scan *scan, const iq_span *span, iq_record_fn record_fn, void *user) {
    iq_log_position position = span->start;
    uint64_t record_at = 0;
    if (span->record_max > scan->record.capacity) {
        iq_blob_free(&scan->record); /* first, so that there is never more than one */
        if (iq_blob_reserve(&scan->record, span->record_max) != IQDB_OK)
            return iq_file_report(&scan->file, IQDB_ERR_NOMEM, span->start.offset, span->end.lsn,
                                  "no memory for a record");
    }
    while (position.lsn < span->end.lsn) {
        iq_frame frame;
        iqdb_result result = iq_scan_again(scan, &position, span->turns, &frame);
        if (result != IQDB_OK) return result;
        const uint8_t *bytes = frame.body;
        size_t size = frame.length;
        position = iq_scan_behind(&frame);
        if ((frame.flags & IQ_FRAME_FIRST) != 0) {
            scan->record.size = 0;
            record_at = frame.offset;
        }
        if ((frame.flags & (IQ_FRAME_FIRST | IQ_FRAME_LAST)) != (IQ_FRAME_FIRST | IQ_FRAME_LAST)) {
            result = iq_blob_append(&scan->record, bytes, size);
            if (result != IQDB_OK) return result;
            bytes = scan->record.bytes;
            size = scan->record.size;
        }
        if ((frame.flags & IQ_FRAME_LAST) == 0) continue;
        result = record_fn(bytes, size, span->end.lsn, user);
        if (result == IQDB_ERR_CORRUPT)
            return iq_file_report(&scan->file, result, record_at, span->end.lsn,
                                  "a record makes no sense, though its checksums hold");
        if (result != IQDB_OK) return result;
    }
    return IQDB_OK;
}

/* The next multiple of 8 from `at` on where the window has something else than zeros, or its end: most of a log is
 * space for later, and no frame begins with zeros. */
static uint64_t iq_scan_skip_zeros(const iq_scan *scan, uint64_t at) {
    static const uint8_t zeros[64] = {0};
    const uint64_t end = scan->window_at + scan->window_size;
    while (at + sizeof zeros <= end && memcmp(scan->window + (size_t)(at - scan->window_at), zeros, sizeof zeros) == 0)
        at += sizeof zeros;
    while (at + 8 <= end && memcmp(scan->window + (size_t)(at - scan->window_at), zeros, 8) == 0) at += 8;
    return at;
}

IQ_FN iqdb_result iq_scan_find(iq_scan *scan, uint64_t offset, uint64_t lsn, uint64_t durable_lsn, iq_frame *out_frame,
                               bool *out_found) {
    iq_frame *frame = out_frame;
    *out_found = false;
    scan->anchor = IQ_SCAN_NO_ANCHOR;
    for (uint64_t at = (offset + 7) & ~(uint64_t)7; !*out_found && scan->patience > 0; at += 8) {
        const uint8_t *bytes;
        iqdb_result result = iq_scan_get(scan, at, IQ_FRAME_HEADER_SIZE, &bytes);
        if (result != IQDB_OK || bytes == NULL) return result;
        if (iq_get_u32(bytes) == 0) {
            const uint64_t next = iq_scan_skip_zeros(scan, at);
            if (next > at) at = next - 8;
            continue;
        }
        if (!iq_frame_decode(bytes, frame) || frame->durable_lsn < durable_lsn || frame->lsn < lsn ||
            frame->lsn - scan->header.first_lsn > scan->size_bytes / IQ_FRAME_SIZE_MIN ||
            !iq_frame_makes_sense(frame, bytes))
            continue;
        result = iq_scan_load(scan, at, frame, &bytes);
        if (result != IQDB_OK) return result;
        if (bytes == NULL) continue;
        *out_found = iq_frame_crc(scan->file.volume->crc32, scan->seed, bytes, frame->length) == frame->crc;
        scan->patience -= scan->patience < frame->length ? scan->patience : frame->length;
    }
    return IQDB_OK;
}

IQ_FN iqdb_result iq_scan_attests(iq_scan *scan, uint64_t offset, uint64_t lsn, bool *out_attests) {
    iq_frame frame;
    bool is_found;
    scan->patience = scan->size_bytes * IQ_SCAN_PATIENCE + 1;
    const iqdb_result result = iq_scan_find(scan, offset, 0, lsn, &frame, &is_found);
    *out_attests = is_found || scan->patience == 0;
    return result;
}
