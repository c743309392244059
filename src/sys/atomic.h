/* Atomic loads and stores over the compiler's own builtins, which C and C++ share. IQDB_NO_THREADS makes them plain. */
#ifndef IQ_SYS_ATOMIC_H
#define IQ_SYS_ATOMIC_H

#include "base/config.h"

#if defined(IQDB_NO_THREADS)
#define IQ_ATOMIC_LOAD(pointer) (*(pointer))
#define IQ_ATOMIC_STORE(pointer, value) (*(pointer) = (value))
#elif defined(__GNUC__) || defined(__clang__)
#define IQ_ATOMIC_LOAD(pointer) __atomic_load_n((pointer), __ATOMIC_ACQUIRE)
#define IQ_ATOMIC_STORE(pointer, value) __atomic_store_n((pointer), (value), __ATOMIC_RELEASE)
#else
#error "iqdb: no atomics known for this compiler; define IQDB_NO_THREADS for use by one thread"
#endif

#endif
