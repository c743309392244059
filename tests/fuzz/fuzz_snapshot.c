/* Any snapshot that META names. The first byte says whether the checksums are made right again, from the blocks up to
 * META; the rest are patches. */
#include "fuzz_directory.h"

static void reseal(fuzz_file *snapshot, fuzz_file *meta) {
    uint8_t *footer = snapshot->bytes + snapshot->size - IQ_FOOTER_SIZE;
    const uint64_t blocks = 2; /* of the sample */
    uint8_t *table = snapshot->bytes + blocks * IQ_SNAPSHOT_BLOCK, *roots = table + IQ_SNAPSHOT_BLOCK;
    for (uint64_t i = 0; i < blocks; i++)
        iq_put_u32(table + i * 4, iq_crc32(0, snapshot->bytes + i * IQ_SNAPSHOT_BLOCK, IQ_SNAPSHOT_BLOCK));
    iq_put_u32(roots, iq_crc32(0, table, IQ_SNAPSHOT_BLOCK));
    iq_put_u32(footer + IQ_FOOTER_ROOTS_CRC_AT, iq_crc32(0, roots, (size_t)(footer - roots)));
    iq_put_u32(footer + IQ_PAGE_CRC_AT, iq_crc32(iq_crc32(0, footer, 8), footer + 12, IQ_FOOTER_SIZE - 12));
    for (int i = 0; i < 2; i++) {
        uint8_t *slot = meta->bytes + i * IQ_META_SLOT_SIZE;
        iq_put_u32(slot + IQ_META_SNAPSHOT_AT + IQ_META_SNAPSHOT_ROOT_AT, iq_get_u32(footer + IQ_PAGE_CRC_AT));
        iq_put_u32(slot + IQ_PAGE_CRC_AT, iq_crc32(iq_crc32(0, slot, 8), slot + 12, IQ_META_SLOT_SIZE - 12));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t good[65536];
    static size_t good_size;
    if (fuzz_file_count == 0) {
        fuzz_sample(true);
        good_size = fuzz_file_of("snap-1")->size;
        memcpy(good, fuzz_file_of("snap-1")->bytes, good_size);
    }
    if (size < 1) return 0;
    fuzz_file *snapshot = fuzz_file_of("snap-1");
    memcpy(snapshot->bytes, good, good_size);
    /* Half of the patches go to what is not data. */
    const size_t from = data[0] & 2 ? good_size - 512 : data[0] & 4 ? 9000 : 0;
    fuzz_patch(snapshot->bytes + from, data[0] & 6 ? 512 : good_size, data + 1, size - 1);
    if (data[0] & 1) reseal(snapshot, fuzz_file_of("META"));
    fuzz_run((data[0] & 64) != 0);
    return 0;
}
