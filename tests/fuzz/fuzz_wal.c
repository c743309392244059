/* Any frames behind a valid header. The first byte says how much of each frame is made right: 1 its checksum, 2 its LSN
 * and the CRC of the one before, 4 the batch, 8 that a META gives the log an end there. The rest is the log. */
#include "fuzz_directory.h"

#define SALT 4711

/* A META of one log, which is not clean, unless `end` is given. */
static void write_meta(fuzz_file *file, const iq_log_header *header, const iq_log_position *end, bool clean) {
    iq_manifest manifest;
    memset(&manifest, 0, sizeof manifest);
    memset(manifest.uuid, 7, sizeof manifest.uuid);
    manifest.schema.metric = 2;
    manifest.clean = clean;
    manifest.log_count = 1;
    manifest.logs[0].number = header->number;
    manifest.logs[0].salt = header->salt;
    manifest.logs[0].first_lsn = header->first_lsn;
    manifest.logs[0].has_end = end != NULL;
    if (end != NULL) manifest.logs[0].end = *end;
    iq_meta_encode(&manifest, 1, file->bytes);
    memcpy(file->bytes + IQ_META_SLOT_SIZE, file->bytes, IQ_META_SLOT_SIZE);
    file->size = 2 * IQ_META_SLOT_SIZE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t uuid[IQ_UUID_SIZE];
    iq_log_header header;
    iq_log_position end;
    if (fuzz_file_count == 0) {
        snprintf(fuzz_files[0].name, 32, "META");
        snprintf(fuzz_files[1].name, 32, "wal-1");
        for (int i = 0; i < 2; i++) fuzz_files[i].bytes = (uint8_t *)malloc(1 << 20);
        fuzz_file_count = 2;
    }
    if (size < 1 || size > 1 << 19) return 0;
    memset(uuid, 7, sizeof uuid);
    memset(&header, 0, sizeof header);
    header.number = header.first_lsn = 1;
    header.salt = SALT;
    header.sector_size = 512;
    uint8_t *log = fuzz_files[1].bytes;
    iq_log_encode_header(&header, uuid, log);
    memcpy(log + 512, data + 1, size - 1);
    fuzz_files[1].size = 512 + size - 1;
    end.lsn = 0;
    end.offset = 512;
    end.crc = header.crc;
    uint64_t batch = 1;
    for (size_t at = 512; at + IQ_FRAME_SIZE_MIN <= fuzz_files[1].size;) {
        uint8_t *frame = log + at;
        uint32_t length = iq_get_u32(frame);
        if (length > IQ_FRAME_LENGTH_MAX || length > fuzz_files[1].size - at - IQ_FRAME_HEADER_SIZE || length < 8)
            break;
        if (data[0] & 2) {
            iq_put_u64(frame + IQ_FRAME_LSN_AT, end.lsn + 1);
            iq_put_u32(frame + IQ_FRAME_BEFORE_AT, end.crc);
        }
        if (data[0] & 4) iq_put_u64(frame + IQ_FRAME_BATCH_AT, batch);
        if (data[0] & 1) iq_put_u32(frame + IQ_FRAME_CRC_AT, iq_frame_crc(iq_crc32, iq_log_seed(SALT), frame, length));
        at += IQ_FRAME_HEADER_SIZE + length;
        end.lsn++;
        end.offset = at;
        end.crc = iq_get_u32(frame + IQ_FRAME_CRC_AT);
        if ((frame[IQ_FRAME_FLAGS_AT] & IQ_FRAME_COMMIT) != 0) batch = end.lsn + 1;
    }
    write_meta(&fuzz_files[0], &header, data[0] & 8 ? &end : NULL, (data[0] & 24) == 24);
    fuzz_run((data[0] & 64) != 0);
    return 0;
}
