/* What tests of the checksum share: every way of this machine, and random bytes. */
#ifndef CHECKSUMS_H
#define CHECKSUMS_H

#include "kernel/crc32.h"
#include "sys/sys.h"

#include "support.h"

typedef struct model_checksum {
    const char *name;
    iq_crc32_fn function;
} model_checksum;

/* The tables first, the best one last; returns how many. */
static inline int model_checksums(model_checksum list[4]) {
    const uint32_t features = iq_cpu_features();
    int count = 0;
    list[count].name = "tables";
    list[count++].function = iq_crc32;
#if IQ_X86
    if ((features & IQ_CPU_PCLMUL) != 0) {
        list[count].name = "pclmul";
        list[count++].function = iq_crc32_pclmul;
    }
#if IQ_CRC32_VPCLMUL
    if ((features & IQ_CPU_VPCLMUL) != 0) {
        list[count].name = "vpclmul";
        list[count++].function = iq_crc32_vpclmul;
    }
#endif
#elif IQ_ARM64
    if ((features & IQ_CPU_ARM_CRC32) != 0) {
        list[count].name = "arm";
        list[count++].function = iq_crc32_arm;
    }
#endif
    (void)features;
    return count;
}

static inline uint8_t *model_bytes(size_t size, uint64_t seed) {
    uint8_t *bytes = (uint8_t *)malloc(size);
    for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)support_random(&seed);
    return bytes;
}

#endif
