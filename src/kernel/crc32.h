/* CRC-32 (IEEE 802.3: reflected polynomial 0xEDB88320), the one zlib, PNG and Ethernet use. */
#ifndef IQ_KERNEL_CRC32_H
#define IQ_KERNEL_CRC32_H

#include "base/bytes.h"

/* crc: 0 to start, else the value for the bytes before, as in zlib: crc32(crc32(0, a), b) = crc32(0, ab). */
typedef uint32_t (*iq_crc32_fn)(uint32_t crc, const void *bytes, size_t size);

/* By tables, on every machine: for a page now and then, or where nobody has chosen. */
IQ_FN uint32_t iq_crc32(uint32_t crc, const void *bytes, size_t size);

/* The fastest that `cpu_features` (of iq_cpu_features) allows; all give the same. Who checks much asks once and keeps
 * the answer. Carry-less multiplication is younger than SSE2: a simd_max below AVX2 gets the tables. */
IQ_FN iq_crc32_fn iq_crc32_select(uint32_t cpu_features, iqdb_simd simd_max);

#if IQ_X86
#define IQ_PCLMUL IQ_TARGET("sse2,pclmul")
IQ_FN IQ_PCLMUL uint32_t iq_crc32_pclmul(uint32_t crc, const void *bytes, size_t size);
/* Older compilers may not know the instruction. */
#if defined(__clang__) ? __clang_major__ >= 7 : __GNUC__ >= 10
#define IQ_CRC32_VPCLMUL 1
#define IQ_VPCLMUL IQ_TARGET("avx2,pclmul,vpclmulqdq")
IQ_FN IQ_VPCLMUL uint32_t iq_crc32_vpclmul(uint32_t crc, const void *bytes, size_t size);
#else
#define IQ_CRC32_VPCLMUL 0
#endif

/* x^(D + 31) mod P and x^(D - 33) mod P, bit 0 the highest power, for a move by D bits: see crc32_x86.c. */
#define IQ_CRC32_FOLD_128 0xAE689191, 0xCCAA009E
#define IQ_CRC32_FOLD_256 0xF1DA05AA, 0x81256527
#define IQ_CRC32_FOLD_512 0x8F352D95, 0x1D9513D7
#define IQ_CRC32_FOLD_1024 0x33FFF533, 0x910EEEC1
#endif

#if IQ_ARM64
IQ_FN uint32_t iq_crc32_arm(uint32_t crc, const void *bytes, size_t size);
#endif

#endif
