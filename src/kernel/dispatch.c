/* Which kernel a machine gets. All give the same bits, so this is a question of speed alone. */
#include "kernel/kernel.h"
#include "sys/sys.h"

IQ_FN const iq_kernel *iq_kernel_select(uint32_t cpu_features, iqdb_simd simd_max) {
    const int limit = simd_max == IQDB_SIMD_BEST ? INT32_MAX : (int)simd_max;
#if IQ_X86
    if ((cpu_features & IQ_CPU_AVX512F) != 0 && limit >= (int)IQDB_SIMD_AVX512) return iq_kernel_avx512();
    if ((cpu_features & IQ_CPU_AVX2) != 0 && limit >= (int)IQDB_SIMD_AVX2) return iq_kernel_avx2();
#endif
#if IQ_QUADS
    const int quads = (int)(IQ_X86 ? IQDB_SIMD_SSE2 : IQ_NEON ? IQDB_SIMD_NEON : IQDB_SIMD_WASM);
    if ((!IQ_X86 || (cpu_features & IQ_CPU_SSE2) != 0) && limit >= quads) return iq_kernel_quads();
#endif
    (void)cpu_features;
    (void)limit;
    return iq_kernel_scalar();
}
