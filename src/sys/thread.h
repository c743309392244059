/* Locks and the identity of threads. IQDB_NO_THREADS makes them nothing. */
#ifndef IQ_SYS_THREAD_H
#define IQ_SYS_THREAD_H

#include "sys/sys.h"

#if defined(IQDB_NO_THREADS)
struct iq_mutex {
    char unused;
};
#elif defined(_WIN32)
struct iq_mutex {
    void *native, *changed; /* an SRWLOCK and a CONDITION_VARIABLE, whose header is better not read by all */
};
#else
#include <pthread.h>
struct iq_mutex {
    pthread_mutex_t native;
    pthread_cond_t changed;
};
#endif

IQ_FN bool iq_mutex_init(iq_mutex *mutex);
IQ_FN void iq_mutex_destroy(iq_mutex *mutex);
IQ_FN void iq_mutex_lock(iq_mutex *mutex);
IQ_FN void iq_mutex_unlock(iq_mutex *mutex);
/* For its holder: gives it up until somebody wakes those who wait, or for nothing. */
IQ_FN void iq_mutex_wait(iq_mutex *mutex);
IQ_FN void iq_mutex_wake(iq_mutex *mutex);
IQ_FN void iq_thread_yield(void); /* lets other threads run first */
/* Tells the calling thread from every other live one; never 0. */
IQ_FN uintptr_t iq_thread_identity(void);
/* The process, so that a handle can tell that it was carried across a fork. */
IQ_FN uint64_t iq_process_identity(void);

#endif
