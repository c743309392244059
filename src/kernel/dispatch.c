/* Which kernel a machine gets. All give the same bits, so this is a question of speed alone. */
#include "kernel/kernel.h"
#include "sys/sys.h"

IQ_FN const iq_kernel *iq_kernel_select(uint32_t cpu_features, iqdb_simd simd_max) {
    const int limit = simd_max == IQDB_SIMD_BEST ? INT32_MAX : (int)simd_max;
#if IQ_X86
    if ((cpu_features & IQ_CPU_AVX512F) != 0 && limit >= (int)IQDB_SIMD_AVX512) return iq_kernel_avx512();
    if ((cpu_features & IQ_CPU_AVX2) != 0 && limit >= (int)IQDB_SIMD_AVX2) return iq_kernel_avx2();
    if ((cpu_features & IQ_CPU_SSE2) != 0 && limit >= (int)IQDB_SIMD_SSE2) return iq_kernel_sse2();
#endif
#if IQ_NEON
    if (limit >= (int)IQDB_SIMD_NEON) return iq_kernel_neon();
#endif
    (void)cpu_features;
    (void)limit;
    return iq_kernel_scalar();
}
