/* Writing a log.
 *
 * 1. Frames go to a remembered offset: behind the last one that was written whole. What a failed write has left there
 *    is overwritten, or the handle is poisoned.
 * 2. A sync ends at the end of a sector, and the next frame starts there: no sector with acknowledged bytes is ever
 *    written again, so a torn one cannot hurt them. The last frame before a sync is stretched to get there. A batch
 *    that is not synced never leaves less of a sector than an attest frame needs, so stretching needs no new space.
 * 3. Space is asked for before a frame is written; a full disk is met there, with nothing changed. Zeros are written,
 *    because what is written over them needs no change of the file system's own tables, which makes short syncs half as
 *    long; but for long batches writing everything twice costs more than that, and space is only reserved. A
 *    write or sync that fails later may have left anything, so the handle is poisoned: no retry.
 * 4. Nothing is allocated between the first byte written and the end of a commit.
 * 5. durable_lsn of a frame is the LSN at the last sync, so the frame that follows a sync attests everything before it:
 *    the next commit, or an attest frame where none comes, at most one for each sync. */
#include "persist/wal.h"
#include "base/bytes.h"
#include "kernel/crc32.h"

#define IQ_WAL_ZEROS (64u * 1024u)
#define IQ_WAL_CHUNK_FIRST (64u * 1024u)
#define IQ_WAL_CHUNK_MAX (16u * 1024u * 1024u)
#define IQ_WAL_COPY_CHUNK (64u * 1024u)
/* From here on reserved space is better than zeros, and the disk is told to begin before the sync (bench: durable). */
#define IQ_WAL_LONG (256u * 1024u)
/* Kept free behind the frames of a batch: its stretch, or a control frame. */
#define IQ_WAL_SLACK (IQ_LOG_SECTOR_MAX + IQ_FRAME_SIZE_MIN + IQ_BODY_SWITCH_SIZE)

IQ_FN iqdb_result iq_wal_init(iq_wal *wal, const iqdb_allocator *allocator) {
    memset(wal, 0, sizeof *wal);
    wal->batch.allocator = allocator;
    wal->zeros = (uint8_t *)iq_alloc_zeroed(allocator, IQ_WAL_ZEROS, 16);
    return wal->zeros == NULL ? IQDB_ERR_NOMEM : iq_blob_reserve(&wal->batch, 2 * IQ_WAL_SLACK);
}

IQ_FN void iq_wal_free(iq_wal *wal) {
    iq_file_close(&wal->file);
    if (wal->batch.allocator != NULL) iq_free(wal->batch.allocator, wal->zeros, IQ_WAL_ZEROS, 16);
    wal->zeros = NULL;
    iq_blob_free(&wal->batch);
}

/* The handle cannot be written to any more. */
static iqdb_result iq_wal_poison(iq_wal *wal) {
    wal->poisoned = true;
    return IQDB_ERR_IO;
}

/* ---- Files ---- */

static void iq_wal_start(iq_wal *wal, const iq_log_header *header, const iq_log_position *end, uint64_t size) {
    wal->header = *header;
    wal->seed = iq_log_seed(header->salt);
    wal->allocated = wal->durable_size = size;
    wal->chunk_size = IQ_WAL_CHUNK_FIRST;
    wal->written = wal->synced = *end;
    wal->batch_lsn = 0;
}

IQ_FN iq_log_entry iq_wal_entry(const iq_wal *wal) {
    const iq_log_header *header = &wal->header;
    const iq_log_entry entry = {header->number, header->salt, header->first_lsn, wal->durable_size, true, wal->synced};
    return entry;
}

/* Zeros up to `end` at least. NOSPACE, which is told where the call ends with it: only zeros were written. */
static iqdb_result iq_wal_allocate(iq_wal *wal, uint64_t end, bool is_needed) {
    const uint64_t sector = wal->header.sector_size;
    const uint64_t needed = (end + sector - 1) & ~(sector - 1);
    uint64_t target = wal->allocated + wal->chunk_size;
    if (end <= wal->allocated) return IQDB_OK;
    if (target < needed) target = needed;
    bool reserves = wal->batch.size >= IQ_WAL_LONG;
    while (wal->allocated < target) {
        uint64_t part = target - wal->allocated;
        int os_code;
        iqdb_result result = IQDB_ERR_NOT_IMPLEMENTED;
        if (reserves) result = iq_file_try_reserve(&wal->file, wal->allocated, part, &os_code);
        if (result == IQDB_ERR_NOT_IMPLEMENTED) {
            reserves = false;
            if (part > IQ_WAL_ZEROS) part = IQ_WAL_ZEROS;
            result = iq_file_try_write(&wal->file, wal->allocated, wal->zeros, (size_t)part, &os_code);
        }
        if (result == IQDB_OK) {
            wal->allocated += part;
        } else if (result != IQDB_ERR_NOSPACE) {
            (void)iq_report_os(wal->file.volume->reporter, result, wal->file.name, os_code, "the log cannot grow");
            return iq_wal_poison(wal);
        } else if (target != needed) {
            target = needed; /* a chunk does not fit, but the batch itself may */
        } else if (!is_needed || !iq_volume_spend(wal->file.volume)) {
            return !is_needed ? result
                              : iq_file_report(&wal->file, result, wal->allocated, wal->written.lsn,
                                               "the disk is full: the log cannot grow");
        }
    }
    if (wal->chunk_size < IQ_WAL_CHUNK_MAX) wal->chunk_size *= 2;
    return IQDB_OK;
}

IQ_FN iqdb_result iq_wal_synced(iq_wal *wal, iqdb_result result, int os_code) {
    IQ_ASSERT(wal->written.offset % wal->header.sector_size == 0);
    if (iq_file_synced(&wal->file, result, os_code) != IQDB_OK) return iq_wal_poison(wal);
    wal->synced = wal->written;
    wal->durable_size = wal->allocated;
    return IQDB_OK;
}

static iqdb_result iq_wal_sync(iq_wal *wal) {
    int os_code;
    const iqdb_result result = iq_file_try_sync(&wal->file, &os_code);
    return iq_wal_synced(wal, result, os_code);
}

/* The header is durable before anything is behind it, so that a log without one is known to be empty. The first chunk
 * comes at once: META can then say how long the log is, and seldom has to say so again. */
static iqdb_result iq_wal_fill(iq_wal *wal, const uint8_t *uuid, iq_log_header *header) {
    iq_log_encode_header(header, uuid, wal->batch.bytes);
    const iq_log_position start = {header->first_lsn - 1, header->sector_size, header->crc};
    iqdb_result result = iq_file_write(&wal->file, 0, wal->batch.bytes, header->sector_size);
    if (result != IQDB_OK) return result;
    iq_wal_start(wal, header, &start, header->sector_size);
    result = iq_wal_sync(wal);
    if (result == IQDB_OK) result = iq_wal_allocate(wal, start.offset + 1, false);
    if (result == IQDB_ERR_NOSPACE) result = IQDB_OK; /* the first batch may need less */
    if (result == IQDB_OK) result = iq_wal_sync(wal);
    if (result == IQDB_OK && iq_volume_sync(wal->file.volume) != IQDB_OK) result = iq_wal_poison(wal);
    return result;
}

IQ_FN iqdb_result iq_wal_create(iq_wal *wal, const iq_volume *volume, const uint8_t *uuid, iq_log_header *header) {
    IQ_ASSERT(wal->file.handle == NULL && wal->batch.size == 0 && header->sector_size <= wal->batch.capacity);
    iqdb_result result = iq_volume_create(&wal->file, volume, IQ_LOG_PREFIX, &header->number);
    if (result != IQDB_OK) return result;
    result = iq_wal_fill(wal, uuid, header);
    if (result != IQDB_OK) {
        iq_file_close(&wal->file);
        (void)iq_volume_remove(volume, wal->file.name);
    }
    return result;
}

IQ_FN iqdb_result iq_wal_resume(iq_wal *wal, const iq_volume *volume, const iq_log_header *header,
                                const iq_log_entry *entry) {
    const iq_log_position *end = &entry->end;
    char name[IQ_FILE_NAME_SIZE];
    uint64_t size;
    iq_volume_name(name, IQ_LOG_PREFIX, header->number);
    iqdb_result result = iq_file_open(&wal->file, volume, name, IQDB_OPEN_WRITE);
    if (result == IQDB_ERR_NOT_FOUND)
        return iq_file_report(&wal->file, IQDB_ERR_CORRUPT, 0, end->lsn, "the log has gone away");
    if (result == IQDB_OK) result = iq_file_size(&wal->file, &size);
    if (result != IQDB_OK) return result;
    if (end->offset % header->sector_size != 0 || size < end->offset)
        return iq_file_report(&wal->file, IQDB_ERR_CORRUPT, end->offset, end->lsn, "the log cannot end here");
    iq_wal_start(wal, header, end, size - size % header->sector_size);
    wal->durable_size = entry->size_bytes;
    wal->attested_lsn = end->lsn;
    return IQDB_OK;
}

/* ---- Frames ---- */

/* Bytes that a frame ending at `end` is stretched by, when it is followed by a sync or not: see invariant 2. */
static size_t iq_wal_stretch(const iq_wal *wal, uint64_t end, bool before_sync) {
    const size_t sector = wal->header.sector_size;
    const size_t over = (size_t)(end % sector);
    const size_t left = over == 0 ? 0 : sector - over;
    return before_sync || left < IQ_FRAME_SIZE_MIN ? left : 0;
}

/* Appends a frame with an empty body of `length` bytes of zeros; there is room. seal does the rest of the header. */
static uint8_t *iq_wal_append(iq_wal *wal, size_t length, uint8_t type, uint8_t flags) {
    IQ_ASSERT(length % 8 == 0 && IQ_FRAME_HEADER_SIZE + length <= wal->batch.capacity - wal->batch.size);
    uint8_t *frame = wal->batch.bytes + wal->batch.size;
    memset(frame, 0, IQ_FRAME_HEADER_SIZE + length);
    iq_put_u32(frame + IQ_FRAME_LENGTH_AT, (uint32_t)length);
    frame[IQ_FRAME_TYPE_AT] = type;
    frame[IQ_FRAME_FLAGS_AT] = flags;
    wal->last_at = wal->batch.size;
    wal->batch.size += IQ_FRAME_HEADER_SIZE + length;
    return frame + IQ_FRAME_HEADER_SIZE;
}

/* Stretches the last frame of the batch by `more` bytes. */
static void iq_wal_lengthen(iq_wal *wal, size_t more) {
    uint8_t *length = wal->batch.bytes + wal->last_at + IQ_FRAME_LENGTH_AT;
    iq_put_u32(length, iq_get_u32(length) + (uint32_t)more);
    memset(wal->batch.bytes + wal->batch.size, 0, more);
    wal->batch.size += more;
}

/* Numbers, chains and checksums all frames of the batch; the position behind the last one. */
static iq_log_position iq_wal_seal(iq_wal *wal) {
    iq_log_position position = wal->written;
    for (size_t at = 0; at < wal->batch.size;) {
        uint8_t *frame = wal->batch.bytes + at;
        const uint32_t length = iq_get_u32(frame + IQ_FRAME_LENGTH_AT);
        position.lsn++;
        if (wal->batch_lsn == 0) wal->batch_lsn = position.lsn;
        iq_put_u64(frame + IQ_FRAME_LSN_AT, position.lsn);
        iq_put_u64(frame + IQ_FRAME_DURABLE_AT, wal->synced.lsn);
        iq_put_u64(frame + IQ_FRAME_BATCH_AT, wal->batch_lsn);
        iq_put_u32(frame + IQ_FRAME_BEFORE_AT, position.crc);
        position.crc = iq_frame_crc(wal->file.volume->crc32, wal->seed, frame, length);
        iq_put_u32(frame + IQ_FRAME_CRC_AT, position.crc);
        if ((frame[IQ_FRAME_FLAGS_AT] & IQ_FRAME_COMMIT) != 0) wal->batch_lsn = 0;
        at += IQ_FRAME_HEADER_SIZE + (size_t)length;
    }
    position.offset += wal->batch.size;
    return position;
}

/* Seals and writes the frames of the batch, for which there is space, with one write. */
static iqdb_result iq_wal_write(iq_wal *wal) {
    int os_code;
    const iq_log_position end = iq_wal_seal(wal);
    IQ_ASSERT(!wal->poisoned && wal->written.offset >= wal->synced.offset && end.offset <= wal->allocated);
    const iqdb_result result =
        iq_file_try_write(&wal->file, wal->written.offset, wal->batch.bytes, wal->batch.size, &os_code);
    wal->batch.size = 0;
    if (result != IQDB_OK) {
        (void)iq_report_os(wal->file.volume->reporter, IQDB_ERR_IO, wal->file.name, os_code,
                           "a write to the log failed; what is in it is unknown");
        return iq_wal_poison(wal);
    }
    wal->written = end;
    wal->attested_lsn = wal->synced.lsn;
    return IQDB_OK;
}

/* A batch of one frame of our own, its body given. */
static iqdb_result iq_wal_control(iq_wal *wal, uint8_t type, const uint8_t *body, size_t size, bool before_sync) {
    const uint64_t end = wal->written.offset + IQ_FRAME_HEADER_SIZE + size;
    const size_t stretch = iq_wal_stretch(wal, end, before_sync);
    IQ_ASSERT(wal->batch.size == 0 && size % 8 == 0);
    if (wal->written.lsn >= IQ_LSN_MAX)
        return iq_file_report(&wal->file, IQDB_ERR_LIMIT, wal->written.offset, IQ_LSN_MAX, "no LSN is left");
    const iqdb_result result = iq_wal_allocate(wal, end + stretch, true);
    if (result != IQDB_OK) return result;
    memcpy(iq_wal_append(wal, size + stretch, type, IQ_FRAME_WHOLE), body, size);
    return iq_wal_write(wal);
}

static iqdb_result iq_wal_control_attest(iq_wal *wal, bool before_sync) {
    const uint8_t body[IQ_BODY_HEAD_SIZE] = {IQ_BODY_ATTEST};
    return iq_wal_control(wal, IQ_FRAME_ATTEST, body, sizeof body, before_sync);
}

/* ---- Batches ---- */

IQ_FN void iq_wal_begin(iq_wal *wal) {
    wal->begun_at = wal->batch.size;
    wal->before_at = wal->last_at;
}

IQ_FN void iq_wal_abort(iq_wal *wal) {
    wal->batch.size = wal->begun_at;
    wal->last_at = wal->before_at;
}

IQ_FN iqdb_result iq_wal_add(iq_wal *wal, const iq_slice *pieces, size_t count) {
    size_t size = 0, piece = 0, used = 0;
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].size > (size_t)-1 / 4 - size) return IQDB_ERR_LIMIT;
        size += pieces[i].size;
    }
    const size_t frames = size / IQ_FRAME_PIECE_MAX + 1;
    const iqdb_result result = iq_blob_reserve(&wal->batch, size + frames * IQ_FRAME_SIZE_MIN + IQ_WAL_SLACK);
    if (result != IQDB_OK) return result;
    if (wal->written.offset > IQ_NUMBER_MAX - wal->batch.capacity) return IQDB_ERR_LIMIT;
    if (wal->written.lsn > IQ_LSN_MAX - wal->batch.capacity) return IQDB_ERR_LIMIT; /* a frame has more than a byte */
    uint8_t flags = IQ_FRAME_FIRST;
    do {
        const size_t most = IQ_FRAME_PIECE_MAX, part = size < most ? size : most;
        if (part == size) flags = (uint8_t)(flags | IQ_FRAME_LAST);
        uint8_t *body = iq_wal_append(wal, part < 8 ? 8 : iq_round_up(part, 8), IQ_FRAME_RECORD, flags);
        for (size_t left = part; left > 0;) {
            const size_t rest = pieces[piece].size - used;
            const size_t run = rest < left ? rest : left;
            if (run > 0) memcpy(body, (const uint8_t *)pieces[piece].bytes + used, run);
            body += run;
            left -= run;
            used = run < rest ? used + run : 0;
            if (run == rest) piece++;
        }
        size -= part;
        flags = 0;
    } while (size > 0);
    return IQDB_OK;
}

static void iq_wal_end(iq_wal *wal) {
    uint8_t *flags = wal->batch.bytes + wal->last_at + IQ_FRAME_FLAGS_AT;
    *flags = (uint8_t)(*flags | IQ_FRAME_COMMIT);
}

IQ_FN bool iq_wal_queue(iq_wal *wal) {
    const uint64_t end = wal->written.offset + wal->batch.size;
    if (end + iq_wal_stretch(wal, end, true) > wal->allocated) return false;
    iq_wal_end(wal);
    return true;
}

IQ_FN iqdb_result iq_wal_commit(iq_wal *wal, bool before_sync) {
    const uint64_t end = wal->written.offset + wal->batch.size;
    const size_t stretch = iq_wal_stretch(wal, end, before_sync);
    IQ_ASSERT(wal->batch.size > 0);
    iqdb_result result = iq_wal_allocate(wal, end + stretch, true);
    if (result != IQDB_OK) return result;
    const uint64_t start = wal->written.offset;
    iq_wal_end(wal);
    iq_wal_lengthen(wal, stretch);
    result = iq_wal_write(wal);
    if (result != IQDB_OK) return result;
    wal->data_lsn = wal->written.lsn;
    const uint64_t size = wal->written.offset - start;
    if (before_sync && size >= IQ_WAL_LONG) iq_file_start(&wal->file, start, size);
    return IQDB_OK;
}

IQ_FN iqdb_result iq_wal_flush(iq_wal *wal) {
    if (wal->data_lsn <= wal->synced.lsn) return IQDB_OK;
    if (wal->written.offset % wal->header.sector_size != 0) {
        const iqdb_result result = iq_wal_control_attest(wal, true);
        if (result != IQDB_OK) return result;
    }
    return iq_wal_sync(wal);
}

IQ_FN iqdb_result iq_wal_attest(iq_wal *wal) {
    if (wal->attested_lsn >= wal->synced.lsn) return IQDB_OK;
    /* Only a hint is lost where there is no space for it. */
    const iqdb_result result = iq_wal_allocate(wal, wal->written.offset + IQ_FRAME_SIZE_MIN, false);
    if (result == IQDB_ERR_NOSPACE) return IQDB_OK;
    return result == IQDB_OK ? iq_wal_control_attest(wal, false) : result;
}

IQ_FN iqdb_result iq_wal_switch(iq_wal *wal, const uint8_t *uuid, uint64_t salt, iq_log_entry *out_ended) {
    const iq_volume *volume = wal->file.volume;
    uint8_t body[IQ_BODY_SWITCH_SIZE] = {IQ_BODY_SWITCH};
    iq_wal next = *wal; /* shares batch and zeros; only one of the two is used at a time */
    const iq_log_header *last = &wal->header;
    /* Its first frame comes behind the switch frame. */
    iq_log_header header = {last->number + 1,  salt, wal->written.lsn + 2, last->number, last->salt,
                            last->sector_size, 0};
    next.file.handle = NULL;
    iqdb_result result = iq_wal_create(&next, volume, uuid, &header);
    wal->poisoned = next.poisoned;
    if (result != IQDB_OK) return result;
    iq_put_u64(body + IQ_BODY_SWITCH_NUMBER_AT, header.number);
    iq_put_u64(body + IQ_BODY_SWITCH_SALT_AT, salt);
    iq_put_u64(body + IQ_BODY_SWITCH_BYTES_AT, next.durable_size);
    result = iq_wal_control(wal, IQ_FRAME_SWITCH, body, sizeof body, true);
    if (result == IQDB_OK) result = iq_wal_sync(wal);
    if (result != IQDB_OK) {
        iq_file_close(&next.file);
        if (!wal->poisoned) iq_volume_remove(volume, next.file.name);
        return result;
    }
    *out_ended = iq_wal_entry(wal);
    iq_file_close(&wal->file);
    next.data_lsn = wal->data_lsn;
    next.attested_lsn = wal->attested_lsn;
    *wal = next;
    return IQDB_OK;
}

/* ---- Recovery ---- */

static iqdb_result iq_wal_copy_flush(iq_wal *wal) {
    if (wal->batch.size == 0) return IQDB_OK;
    const iqdb_result result = iq_wal_allocate(wal, wal->written.offset + wal->batch.size, true);
    return result == IQDB_OK ? iq_wal_write(wal) : result;
}

IQ_FN iqdb_result iq_wal_copy(iq_wal *wal, const iq_frame *frame) {
    if (iq_blob_reserve(&wal->batch, IQ_FRAME_HEADER_SIZE + (size_t)frame->length + IQ_WAL_SLACK) != IQDB_OK)
        return iq_file_report(&wal->file, IQDB_ERR_NOMEM, 0, frame->lsn, "no memory to copy the log");
    if (frame->type == IQ_FRAME_RECORD) {
        memcpy(iq_wal_append(wal, frame->length, frame->type, frame->flags), frame->body, frame->length);
    } else {
        *iq_wal_append(wal, frame->length, IQ_FRAME_ATTEST, IQ_FRAME_WHOLE) = IQ_BODY_ATTEST;
    }
    return wal->batch.size < IQ_WAL_COPY_CHUNK ? IQDB_OK : iq_wal_copy_flush(wal);
}

IQ_FN iqdb_result iq_wal_copy_end(iq_wal *wal) {
    iqdb_result result = iq_wal_copy_flush(wal);
    if (result == IQDB_OK && wal->written.offset % wal->header.sector_size != 0)
        result = iq_wal_control_attest(wal, true);
    if (result == IQDB_OK && wal->written.lsn > wal->synced.lsn) result = iq_wal_sync(wal);
    return result;
}
