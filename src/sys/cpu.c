/* What this processor can do. Asked of the processor itself, because the compilers' own helpers differ, and some look
 * at the instruction set without asking whether the system saves the wider registers. */
#include "sys/sys.h"

#if IQ_X86

#include <cpuid.h>

enum {
    IQ_CPU_LEAF1_EDX_SSE2 = 1 << 26,
    IQ_CPU_LEAF1_ECX_PCLMUL = 1 << 1,
    IQ_CPU_LEAF1_ECX_FMA = 1 << 12,
    IQ_CPU_LEAF1_ECX_POPCNT = 1 << 23,
    IQ_CPU_LEAF1_ECX_OSXSAVE = 1 << 27,
    IQ_CPU_LEAF1_ECX_AVX = 1 << 28,
    IQ_CPU_LEAF1_ECX_F16C = 1 << 29,
    IQ_CPU_LEAF7_EBX_AVX2 = 1 << 5,
    IQ_CPU_LEAF7_ECX_VPCLMUL = 1 << 10,
    IQ_CPU_LEAF7_EBX_AVX512F = 1 << 16,
    IQ_CPU_LEAF7_ECX_AVX512VNNI = 1 << 11,
    IQ_CPU_XCR0_YMM = 0x06, /* the system saves XMM and YMM registers */
    IQ_CPU_XCR0_ZMM = 0xE6  /* and mask registers, upper halves of ZMM 0 to 15, and ZMM 16 to 31 */
};

/* xgetbv by its bytes: the mnemonic and the intrinsic want build flags. Only where OSXSAVE is set. */
static uint32_t iq_cpu_xcr0(void) {
    uint32_t low, high;
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));
    (void)high;
    return low;
}

IQ_FN uint32_t iq_cpu_features(void) {
    /* With FMA, which IQDB_FAST_FP uses, and what elements want: there is hardly a processor with AVX2 and without these. */
    const uint32_t avx = IQ_CPU_LEAF1_ECX_OSXSAVE | IQ_CPU_LEAF1_ECX_AVX | IQ_CPU_LEAF1_ECX_FMA |
                         IQ_CPU_LEAF1_ECX_POPCNT | IQ_CPU_LEAF1_ECX_F16C;
    unsigned a = 0, b = 0, c = 0, d = 0;
    uint32_t features = 0;
    /* Each question costs tens of microseconds in a virtual machine, where the hypervisor answers it. So it is not asked
     * which leaves there are: every processor that this is compiled for has leaf 1, and one with OSXSAVE has leaf 13,
     * which says what is saved, and all before it. */
    __cpuid(1, a, b, c, d);
    if ((d & IQ_CPU_LEAF1_EDX_SSE2) != 0) features |= IQ_CPU_SSE2;
    if ((c & IQ_CPU_LEAF1_ECX_PCLMUL) != 0 && (features & IQ_CPU_SSE2) != 0) features |= IQ_CPU_PCLMUL;
    if ((c & avx) != avx) return features;
    const uint32_t saved = iq_cpu_xcr0();
    if ((saved & IQ_CPU_XCR0_YMM) != IQ_CPU_XCR0_YMM) return features;
    __cpuid_count(7, 0, a, b, c, d);
    if ((b & IQ_CPU_LEAF7_EBX_AVX2) == 0) return features;
    features |= IQ_CPU_AVX2;
    if ((c & IQ_CPU_LEAF7_ECX_VPCLMUL) != 0 && (features & IQ_CPU_PCLMUL) != 0) features |= IQ_CPU_VPCLMUL;
    if ((b & IQ_CPU_LEAF7_EBX_AVX512F) == 0 || (saved & IQ_CPU_XCR0_ZMM) != IQ_CPU_XCR0_ZMM) return features;
    return features | IQ_CPU_AVX512F | ((c & IQ_CPU_LEAF7_ECX_AVX512VNNI) != 0 ? IQ_CPU_AVX512VNNI : 0);
}

#elif IQ_ARM64

#if defined(__linux__) && !defined(IQDB_NO_LIBC)
#include <sys/auxv.h>
#define IQ_CPU_HWCAP_CRC32 (1ul << 7)
#define IQ_CPU_HWCAP_ASIMDDP (1ul << 20)
#endif

/* Programs may not ask an ARM processor; the system has, and tells. */
IQ_FN uint32_t iq_cpu_features(void) {
    uint32_t features = 0;
#if defined(IQ_CPU_HWCAP_CRC32)
    const unsigned long known = getauxval(AT_HWCAP);
    if ((known & IQ_CPU_HWCAP_CRC32) != 0) features |= IQ_CPU_ARM_CRC32;
    if ((known & IQ_CPU_HWCAP_ASIMDDP) != 0) features |= IQ_CPU_ARM_DOTPROD;
#endif
#if defined(__ARM_FEATURE_CRC32) || defined(__APPLE__)
    features |= IQ_CPU_ARM_CRC32; /* the compiler was told, or no machine is without */
#endif
#if defined(__ARM_FEATURE_DOTPROD)
    features |= IQ_CPU_ARM_DOTPROD;
#endif
    return features;
}

#else

IQ_FN uint32_t iq_cpu_features(void) { return 0; }

#endif
