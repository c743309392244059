/* What stands in for a system where there is none: no locks and threads with IQDB_NO_THREADS; no files, chance and
 * processes with IQDB_NO_OS. The others are in posix.c and windows.c. */
#include "sys/thread.h"

#if defined(IQDB_NO_THREADS)

IQ_FN bool iq_mutex_init(iq_mutex *mutex) {
    mutex->unused = 0;
    return true;
}
IQ_FN void iq_mutex_destroy(iq_mutex *mutex) { (void)mutex; }
IQ_FN void iq_mutex_lock(iq_mutex *mutex) { (void)mutex; }
IQ_FN void iq_mutex_unlock(iq_mutex *mutex) { (void)mutex; }
IQ_FN void iq_mutex_wait(iq_mutex *mutex) { /* there is nobody to wait for */
    (void)mutex;
}
IQ_FN void iq_mutex_wake(iq_mutex *mutex) { (void)mutex; }
IQ_FN void iq_thread_yield(void) {}
IQ_FN uintptr_t iq_thread_identity(void) { return 1; }

#endif

#if defined(IQDB_NO_OS)

IQ_DEFINE_DEFAULT(iqdb_files)
IQ_FN bool iq_sys_entropy(void *bytes, size_t size, void *user) {
    (void)bytes;
    (void)size;
    (void)user;
    return false;
}
IQ_FN uint64_t iq_process_identity(void) { return 1; }

#endif
