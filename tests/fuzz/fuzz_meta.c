/* Any META beside the files of a small database. The first byte says which slots get valid checksums, the second which
 * slot the patches are for; the rest are patches. */
#include "fuzz_directory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t good[2 * IQ_META_SLOT_SIZE];
    if (fuzz_file_count == 0) {
        fuzz_sample(false);
        memcpy(good, fuzz_file_of("META")->bytes, sizeof good);
    }
    if (size < 2) return 0;
    fuzz_file *meta = fuzz_file_of("META");
    memcpy(meta->bytes, good, sizeof good);
    meta->size = data[0] & 4 ? (size_t)data[1] * 32 : sizeof good;
    if (data[1] & 1) fuzz_patch(meta->bytes, IQ_META_SLOT_SIZE, data + 2, size - 2);
    if (data[1] & 2) fuzz_patch(meta->bytes + IQ_META_SLOT_SIZE, IQ_META_SLOT_SIZE, data + 2, size - 2);
    for (int i = 0; i < 2; i++) {
        uint8_t *slot = meta->bytes + i * IQ_META_SLOT_SIZE;
        if ((data[0] >> i & 1) != 0)
            iq_put_u32(slot + IQ_PAGE_CRC_AT, iq_crc32(iq_crc32(0, slot, 8), slot + 12, IQ_META_SLOT_SIZE - 12));
    }
    fuzz_run((data[0] & 64) != 0);
    return 0;
}
