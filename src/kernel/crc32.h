/* CRC-32 (IEEE 802.3: reflected polynomial 0xEDB88320), the one zlib, PNG and Ethernet use. */
#ifndef IQ_KERNEL_CRC32_H
#define IQ_KERNEL_CRC32_H

#include "base/bytes.h"

/* crc: 0 to start, else the value for the bytes before, as in zlib: crc32(crc32(0, a), b) = crc32(0, ab). */
IQ_FN uint32_t iq_crc32(uint32_t crc, const void *bytes, size_t size);

#endif
