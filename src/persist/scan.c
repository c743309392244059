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
    return out->first_lsn - 1 > IQ_LSN_MAX ? IQDB_ERR_CORRUPT : IQDB_OK;
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
    return frame->lsn <= IQ_LSN_MAX && frame->batch_lsn <= frame->lsn && frame->durable_lsn < frame->batch_lsn;
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

IQ_FN iqdb_result iq_scan_corrupt(const iq_scan *scan, uint64_t offset, uint64_t lsn, const char *text) {
    return iq_file_report(&scan->file, IQDB_ERR_CORRUPT, offset, lsn, text);
}

/* Leaves the scan open, unless it fails, whatever the header is. */
static iqdb_result iq_scan_start_reading(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid, uint64_t number) {
    char name[IQ_FILE_NAME_SIZE];
    size_t size = 0;
    memset(scan, 0, sizeof *scan);
    iq_volume_name(name, IQ_LOG_PREFIX, number);
    scan->state = IQ_LOG_IS_MISSING;
    scan->anchor = IQ_SCAN_NO_ANCHOR;
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
        scan->state = code == IQDB_OK ? IQ_LOG_IS_GOOD : IQ_LOG_IS_TORN;
        if (code == IQDB_ERR_VERSION)
            result = iq_file_report(&scan->file, code, 0, 0, "the log was written by a newer version");
    }
    if (scan->state == IQ_LOG_IS_GOOD &&
        (scan->header.number != number || (uuid != NULL && memcmp(scan->uuid, uuid, IQ_UUID_SIZE) != 0)))
        scan->state = IQ_LOG_IS_FOREIGN;
    scan->seed = iq_log_seed(scan->header.salt);
    if (result != IQDB_OK) iq_scan_close(scan);
    return result;
}

IQ_FN iqdb_result iq_scan_open(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid, uint64_t number) {
    const iqdb_result result = iq_scan_start_reading(scan, volume, uuid, number);
    if (scan->state != IQ_LOG_IS_GOOD) iq_scan_close(scan);
    return result;
}

/* NULL where the state is GOOD and the log is the one that the entry describes. */
static const char *iq_scan_complaint(const iq_scan *scan, const iq_log_entry *entry) {
    if (scan->state == IQ_LOG_IS_MISSING) return "the log must be there, but it is missing";
    if (scan->state == IQ_LOG_IS_TORN) return "the header of the log is damaged";
    if (scan->state == IQ_LOG_IS_FOREIGN) return "the log belongs to another database, or has another number";
    if (scan->header.salt != entry->salt || scan->header.first_lsn != entry->first_lsn)
        return "this is not the log of that number which belongs here";
    return NULL;
}

IQ_FN iqdb_result iq_scan_require(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid,
                                  const iq_log_entry *entry) {
    const iqdb_result result = iq_scan_open(scan, volume, uuid, entry->number);
    const char *text = result == IQDB_OK ? iq_scan_complaint(scan, entry) : NULL;
    if (text == NULL) return result;
    iq_scan_close(scan);
    return iq_scan_corrupt(scan, 0, entry->first_lsn, text);
}

IQ_FN iqdb_result iq_scan_salvage(iq_scan *scan, const iq_volume *volume, const uint8_t *uuid,
                                  const iq_log_entry *entry) {
    const iqdb_result result = iq_scan_start_reading(scan, volume, uuid, entry->number);
    scan->patience = scan->size_bytes * IQ_SCAN_PATIENCE + 1;
    if (result != IQDB_OK) {
        scan->state = IQ_LOG_IS_MISSING;
        return result == IQDB_ERR_NOMEM ? result : IQDB_OK;
    }
    const char *text = iq_scan_complaint(scan, entry);
    if (text != NULL) (void)iq_scan_corrupt(scan, 0, entry->first_lsn, text);
    if (scan->state == IQ_LOG_IS_TORN) {
        /* Where the frames begin is for a search to find out. */
        const iq_log_header header = {entry->number, entry->salt, entry->first_lsn, 0, 0, IQ_LOG_SECTOR_MIN, 0};
        scan->header = header;
        scan->seed = iq_log_seed(entry->salt);
        scan->state = IQ_LOG_IS_GOOD;
    }
    if (scan->state != IQ_LOG_IS_GOOD) iq_scan_close(scan);
    return IQDB_OK;
}

IQ_FN iq_log_position iq_scan_start(const iq_scan *scan) {
    const iq_log_position start = {scan->header.first_lsn - 1, scan->header.sector_size, scan->header.crc};
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

/* The frame at `offset`, unchecked; its body is NULL where its length makes no sense, or where the file ends. */
static iqdb_result iq_scan_load(iq_scan *scan, uint64_t offset, iq_frame *out) {
    const uint8_t *bytes;
    memset(out, 0, sizeof *out);
    iqdb_result result = iq_scan_get(scan, offset, IQ_FRAME_HEADER_SIZE, &bytes);
    if (result != IQDB_OK || bytes == NULL || !iq_frame_decode(bytes, out)) return result;
    result = iq_scan_get(scan, offset, IQ_FRAME_HEADER_SIZE + (size_t)out->length, &bytes);
    out->offset = offset;
    out->body = bytes == NULL ? NULL : bytes + IQ_FRAME_HEADER_SIZE;
    return result;
}

/* Whether a loaded frame has its checksum. */
static bool iq_scan_sums(const iq_scan *scan, const iq_frame *frame) {
    const uint8_t *bytes = frame->body - IQ_FRAME_HEADER_SIZE;
    return iq_frame_crc(scan->file.volume->crc32, scan->seed, bytes, frame->length) == frame->crc;
}

IQ_FN iqdb_result iq_scan_frame(iq_scan *scan, const iq_log_position *from, iq_frame *out_frame) {
    const iqdb_result result = iq_scan_load(scan, from->offset, out_frame);
    if (result != IQDB_OK || out_frame->body == NULL) return result;
    if (out_frame->lsn != from->lsn + 1 || out_frame->before_crc != from->crc || !iq_scan_sums(scan, out_frame)) {
        out_frame->body = NULL;
        return IQDB_OK;
    }
    if (iq_frame_makes_sense(out_frame, out_frame->body - IQ_FRAME_HEADER_SIZE)) return IQDB_OK;
    return iq_scan_corrupt(scan, from->offset, out_frame->lsn, "a frame makes no sense, though its checksum holds");
}

IQ_FN iqdb_result iq_scan_frame_again(iq_scan *scan, const iq_log_position *from, iq_frame *out_frame) {
    const iqdb_result result = iq_scan_frame(scan, from, out_frame);
    if (result != IQDB_OK || out_frame->body != NULL) return result;
    return iq_scan_corrupt(scan, from->offset, from->lsn + 1, "a frame reads differently the second time");
}

IQ_FN iq_log_position iq_scan_behind(const iq_frame *frame) {
    const iq_log_position position = {frame->lsn, frame->offset + IQ_FRAME_HEADER_SIZE + frame->length, frame->crc};
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

IQ_FN iqdb_result iq_scan_batch(iq_scan *scan, const iq_log_position *from, iq_span *out_span) {
    size_t record_size = 0;
    bool is_in_record = false;
    memset(out_span, 0, sizeof *out_span);
    out_span->start = out_span->end = *from;
    scan->anchor = from->offset;
    while (!out_span->is_whole) {
        iq_frame frame;
        const iqdb_result result = iq_scan_frame(scan, &out_span->end, &frame);
        if (result != IQDB_OK || frame.body == NULL) return result;
        if (out_span->end.lsn == from->lsn) out_span->turns = scan->window_turns;
        if (!iq_span_take(out_span, &frame, is_in_record, &record_size))
            return iq_scan_corrupt(scan, frame.offset, frame.lsn,
                                   "a frame does not belong where it stands, though its checksum holds");
        is_in_record = (frame.flags & IQ_FRAME_LAST) == 0;
        out_span->is_whole = (frame.flags & IQ_FRAME_COMMIT) != 0;
    }
    return IQDB_OK;
}

/* A frame of a batch that iq_scan_batch has found whole; checked again only where the window has turned since: else the
 * whole batch is in it, as it was when it was checked. */
static iqdb_result iq_scan_recall(iq_scan *scan, const iq_log_position *from, uint64_t turns, iq_frame *out_frame) {
    return scan->window_turns == turns ? iq_scan_load(scan, from->offset, out_frame)
                                       : iq_scan_frame_again(scan, from, out_frame);
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
        iqdb_result result = iq_scan_recall(scan, &position, span->turns, &frame);
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
            /* There is room for what iq_scan_batch has seen: more comes only where longer valid frames stand there now. */
            if (IQ_NEVER(result != IQDB_OK)) return result;
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

IQ_FN iqdb_result iq_scan_find(iq_scan *scan, uint64_t offset, uint64_t lsn, uint64_t durable_lsn,
                               iq_frame *out_frame) {
    iq_frame *frame = out_frame;
    memset(frame, 0, sizeof *frame);
    scan->anchor = IQ_SCAN_NO_ANCHOR;
    for (uint64_t at = (offset + 7) & ~(uint64_t)7; scan->patience > 0; at += 8) {
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
        result = iq_scan_load(scan, at, frame);
        if (result != IQDB_OK) return result;
        if (frame->body == NULL) continue;
        scan->patience -= scan->patience < frame->length ? scan->patience : frame->length;
        if (iq_scan_sums(scan, frame)) return IQDB_OK;
        frame->body = NULL;
    }
    return IQDB_OK;
}

IQ_FN iqdb_result iq_scan_attests(iq_scan *scan, uint64_t offset, uint64_t lsn, bool *out_attests) {
    iq_frame frame;
    scan->patience = scan->size_bytes * IQ_SCAN_PATIENCE + 1;
    const iqdb_result result = iq_scan_find(scan, offset, 0, lsn, &frame);
    *out_attests = frame.body != NULL || scan->patience == 0;
    return result;
}
