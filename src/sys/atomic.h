/* Atomic operations over the compiler's own builtins, which C and C++ share. IQDB_NO_THREADS makes them plain.
 *
 *   IQ_ATOMIC_LOAD(pointer)                     acquire
 *   IQ_ATOMIC_STORE(pointer, value)             release
 *   IQ_ATOMIC_SWAP_IF(pointer, old, value)      whether *pointer was `old`; it is `value` then. A full barrier
 *   IQ_ATOMIC_ADD(pointer, n)                   a full barrier; n may be negative one of an unsigned type
 *   IQ_ATOMIC_OR(pointer, bits)                 a full barrier
 *   IQ_ATOMIC_FENCE(pointer)                    sequentially consistent; `pointer` names a word that nothing else uses
 *   IQ_ATOMIC_FENCE_BEHIND_SWAP(pointer)        the same where the last operation was a SWAP_IF: on some processors it
 *                                               is all that a fence could be
 *
 * The thread sanitizer does not know fences. For it a fence is an exchange on the word: of two exchanges one comes
 * first, and what its thread did before is seen by the other, which is all that is asked of a fence here. */
#ifndef IQ_SYS_ATOMIC_H
#define IQ_SYS_ATOMIC_H

#include "base/config.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define IQ_THREAD_SANITIZER 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define IQ_THREAD_SANITIZER 1
#endif
#ifndef IQ_THREAD_SANITIZER
#define IQ_THREAD_SANITIZER 0
#endif

#if defined(IQ_ATOMIC_LOAD)
/* A model of memory has brought its own. */
#elif defined(IQDB_NO_THREADS)
#define IQ_ATOMIC_LOAD(pointer) (*(pointer))
#define IQ_ATOMIC_STORE(pointer, value) ((void)(*(pointer) = (value)))
#define IQ_ATOMIC_SWAP_IF(pointer, old, value) (*(pointer) == (old) ? (*(pointer) = (value), true) : false)
#define IQ_ATOMIC_ADD(pointer, n) ((void)(*(pointer) += (n)))
#define IQ_ATOMIC_OR(pointer, bits) ((void)(*(pointer) |= (bits)))
#define IQ_ATOMIC_FENCE(pointer) ((void)(pointer))
#elif defined(__GNUC__) || defined(__clang__)
#if !(defined(__GCC_ATOMIC_LLONG_LOCK_FREE) && __GCC_ATOMIC_LLONG_LOCK_FREE == 2) && \
    !(defined(__CLANG_ATOMIC_LLONG_LOCK_FREE) && __CLANG_ATOMIC_LLONG_LOCK_FREE == 2) /* its name under Windows */
#error "iqdb: no lock-free 64-bit atomics on this machine; define IQDB_NO_THREADS for use by one thread"
#endif
#define IQ_ATOMIC_LOAD(pointer) __atomic_load_n((pointer), __ATOMIC_ACQUIRE)
#define IQ_ATOMIC_STORE(pointer, value) __atomic_store_n((pointer), (value), __ATOMIC_RELEASE)
#define IQ_ATOMIC_SWAP_IF(pointer, old, value) __sync_bool_compare_and_swap((pointer), (old), (value))
#define IQ_ATOMIC_ADD(pointer, n) ((void)__atomic_fetch_add((pointer), (n), __ATOMIC_SEQ_CST))
#define IQ_ATOMIC_OR(pointer, bits) ((void)__atomic_fetch_or((pointer), (bits), __ATOMIC_SEQ_CST))
#if IQ_THREAD_SANITIZER
#define IQ_ATOMIC_FENCE(pointer) ((void)__atomic_exchange_n((pointer), 0, __ATOMIC_SEQ_CST))
#else
#define IQ_ATOMIC_FENCE(pointer) ((void)(pointer), __atomic_thread_fence(__ATOMIC_SEQ_CST))
#if defined(__x86_64__) || defined(__i386__)
#define IQ_ATOMIC_FENCE_BEHIND_SWAP(pointer) ((void)(pointer))
#endif
#endif
#else
#error "iqdb: no atomics known for this compiler; define IQDB_NO_THREADS for use by one thread"
#endif

#if !defined(IQ_ATOMIC_FENCE_BEHIND_SWAP)
#define IQ_ATOMIC_FENCE_BEHIND_SWAP(pointer) IQ_ATOMIC_FENCE(pointer)
#endif

/* Words that different threads write lie so far apart: processors fetch lines of 64 bytes in pairs. */
#if defined(IQDB_NO_THREADS)
#define IQ_ATOMIC_DISTANCE 32
#define IQ_HAS_THREADS 0
#else
#define IQ_ATOMIC_DISTANCE 128
#define IQ_HAS_THREADS 1
#endif

#endif
