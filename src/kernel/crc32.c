/* CRC-32: which way a machine gets, and the way of every machine: eight tables, eight bytes per step instead of one
 * ("slicing-by-8": Kounavis and Berry, "A systematic approach to building high performance software-based CRC
 * generators", 2005); a small build (config.h) takes four bits.
 *
 * 1. Words are put together from bytes, so that any alignment and byte order give the same.
 * 2. A table entry is linear in the bits of its index: entry(x ^ y) = entry(x) ^ entry(y). The eight entries of single
 *    bits therefore say the whole table, and the macros spell out the 256 combinations in their order. */
#include "kernel/crc32.h"
#include "sys/sys.h"

#define IQ_CRC32_1(v, a) (v), (v) ^ (a)
#define IQ_CRC32_2(v, a, b) IQ_CRC32_1(v, a), IQ_CRC32_1((v) ^ (b), a)
#define IQ_CRC32_3(v, a, b, c) IQ_CRC32_2(v, a, b), IQ_CRC32_2((v) ^ (c), a, b)
#define IQ_CRC32_4(v, a, b, c, d) IQ_CRC32_3(v, a, b, c), IQ_CRC32_3((v) ^ (d), a, b, c)
#define IQ_CRC32_5(v, a, b, c, d, e) IQ_CRC32_4(v, a, b, c, d), IQ_CRC32_4((v) ^ (e), a, b, c, d)
#define IQ_CRC32_6(v, a, b, c, d, e, f) IQ_CRC32_5(v, a, b, c, d, e), IQ_CRC32_5((v) ^ (f), a, b, c, d, e)
#define IQ_CRC32_7(v, a, b, c, d, e, f, g) IQ_CRC32_6(v, a, b, c, d, e, f), IQ_CRC32_6((v) ^ (g), a, b, c, d, e, f)
/* From the entries of indices 1, 2, 4, .. 128. */
#define IQ_CRC32_TABLE(a, b, c, d, e, f, g, h) \
    { IQ_CRC32_7(0u, a, b, c, d, e, f, g), IQ_CRC32_7((h), a, b, c, d, e, f, g) }

#if IQ_SMALL
/* [n] is the CRC register after the four bits n: 64 bytes in the place of 8 KiB. */
static const uint32_t iq_crc32_nibbles[16] = {IQ_CRC32_4(0u, 0x1DB71064u, 0x3B6E20C8u, 0x76DC4190u, 0xEDB88320u)};
#else
/* clang-format off */
/* [0][n] is the CRC register after byte n, [k][n] that after k further zero bytes. */
static const uint32_t iq_crc32_tables[8][256] = {
    IQ_CRC32_TABLE(0x77073096u, 0xEE0E612Cu, 0x076DC419u, 0x0EDB8832u,
                   0x1DB71064u, 0x3B6E20C8u, 0x76DC4190u, 0xEDB88320u),
    IQ_CRC32_TABLE(0x191B3141u, 0x32366282u, 0x646CC504u, 0xC8D98A08u,
                   0x4AC21251u, 0x958424A2u, 0xF0794F05u, 0x3B83984Bu),
    IQ_CRC32_TABLE(0x01C26A37u, 0x0384D46Eu, 0x0709A8DCu, 0x0E1351B8u,
                   0x1C26A370u, 0x384D46E0u, 0x709A8DC0u, 0xE1351B80u),
    IQ_CRC32_TABLE(0xB8BC6765u, 0xAA09C88Bu, 0x8F629757u, 0xC5B428EFu,
                   0x5019579Fu, 0xA032AF3Eu, 0x9B14583Du, 0xED59B63Bu),
    IQ_CRC32_TABLE(0x3D6029B0u, 0x7AC05360u, 0xF580A6C0u, 0x30704BC1u,
                   0x60E09782u, 0xC1C12F04u, 0x58F35849u, 0xB1E6B092u),
    IQ_CRC32_TABLE(0xCB5CD3A5u, 0x4DC8A10Bu, 0x9B914216u, 0xEC53826Du,
                   0x03D6029Bu, 0x07AC0536u, 0x0F580A6Cu, 0x1EB014D8u),
    IQ_CRC32_TABLE(0xA6770BB4u, 0x979F1129u, 0xF44F2413u, 0x33EF4E67u,
                   0x67DE9CCEu, 0xCFBD399Cu, 0x440B7579u, 0x8816EAF2u),
    IQ_CRC32_TABLE(0xCCAA009Eu, 0x4225077Du, 0x844A0EFAu, 0xD3E51BB5u,
                   0x7CBB312Bu, 0xF9766256u, 0x299DC2EDu, 0x533B85DAu),
};
/* clang-format on */
#endif

IQ_FN uint32_t iq_crc32(uint32_t crc, const void *bytes, size_t size) {
    const uint8_t *p = (const uint8_t *)bytes;
    crc = ~crc;
#if IQ_SMALL
    for (; size > 0; size--, p++)
        for (int half = (crc ^= *p, 0); half < 2; half++) crc = crc >> 4 ^ iq_crc32_nibbles[crc & 15];
#else
    for (; size >= 8; size -= 8, p += 8) {
        /* In pairs, because each step waits for the one before: the less that hangs on `crc`, the better. */
        const uint32_t low = crc ^ iq_get_u32(p), high = iq_get_u32(p + 4);
        const uint32_t ahead = (iq_crc32_tables[3][high & 0xFF] ^ iq_crc32_tables[2][high >> 8 & 0xFF]) ^
                               (iq_crc32_tables[1][high >> 16 & 0xFF] ^ iq_crc32_tables[0][high >> 24]);
        crc = (iq_crc32_tables[7][low & 0xFF] ^ iq_crc32_tables[6][low >> 8 & 0xFF]) ^
              (iq_crc32_tables[5][low >> 16 & 0xFF] ^ iq_crc32_tables[4][low >> 24]) ^ ahead;
    }
    for (; size > 0; size--, p++) crc = crc >> 8 ^ iq_crc32_tables[0][(crc ^ *p) & 0xFF];
#endif
    return ~crc;
}

IQ_FN iq_crc32_fn iq_crc32_select(uint32_t cpu_features, iqdb_simd simd_max) {
    const int limit = simd_max == IQDB_SIMD_BEST ? INT32_MAX : (int)simd_max;
    (void)cpu_features;
    (void)limit;
#if IQ_X86
    if (limit < (int)IQDB_SIMD_AVX2) return iq_crc32;
#if IQ_CRC32_VPCLMUL
    if ((cpu_features & IQ_CPU_VPCLMUL) != 0) return iq_crc32_vpclmul;
#endif
    if ((cpu_features & IQ_CPU_PCLMUL) != 0) return iq_crc32_pclmul;
#elif IQ_ARM64
    if ((cpu_features & IQ_CPU_ARM_CRC32) != 0 && limit > (int)IQDB_SIMD_SCALAR) return iq_crc32_arm;
#endif
    return iq_crc32;
}
