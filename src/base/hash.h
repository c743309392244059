/* A mixing function for ids: every input bit reaches every output bit (the finaliser of splitmix64; Steele, Lea, Flood,
 * "Fast splittable pseudorandom number generators", OOPSLA 2014). */
#ifndef IQ_BASE_HASH_H
#define IQ_BASE_HASH_H

#include "base/config.h"

IQ_INLINE uint64_t iq_hash_u64(uint64_t x) {
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

#endif
