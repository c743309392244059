/* The head of a page. */
#include "persist/page.h"
#include "base/bytes.h"
#include "kernel/crc32.h"

static uint32_t iq_page_crc(const uint8_t *page, size_t size) {
    const uint32_t crc = iq_crc32(0, page, IQ_PAGE_CRC_AT);
    return iq_crc32(crc, page + IQ_PAGE_CRC_AT + 4, size - IQ_PAGE_CRC_AT - 4);
}

IQ_FN uint32_t iq_page_seal(uint8_t *page, size_t size, const char *magic, const uint8_t *uuid) {
    memcpy(page + IQ_PAGE_MAGIC_AT, magic, 8);
    iq_put_u32(page + IQ_PAGE_VERSION_AT, IQDB_FORMAT_VERSION);
    memcpy(page + IQ_PAGE_UUID_AT, uuid, IQ_UUID_SIZE);
    const uint32_t crc = iq_page_crc(page, size);
    iq_put_u32(page + IQ_PAGE_CRC_AT, crc);
    return crc;
}

IQ_FN bool iq_page_is_sound(const uint8_t *page, size_t size, const char *magic) {
    return memcmp(page + IQ_PAGE_MAGIC_AT, magic, 8) == 0 &&
           iq_get_u32(page + IQ_PAGE_CRC_AT) == iq_page_crc(page, size);
}
