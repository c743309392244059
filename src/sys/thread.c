/* Locks and threads where there are none: IQDB_NO_THREADS. The others are in posix.c and windows.c. */
#include "sys/thread.h"

#if defined(IQDB_NO_THREADS)

IQ_FN bool iq_mutex_init(iq_mutex *mutex) {
    mutex->unused = 0;
    return true;
}
IQ_FN void iq_mutex_destroy(iq_mutex *mutex) {
    (void)mutex;
}
IQ_FN void iq_mutex_lock(iq_mutex *mutex) {
    (void)mutex;
}
IQ_FN void iq_mutex_unlock(iq_mutex *mutex) {
    (void)mutex;
}
IQ_FN uintptr_t iq_thread_identity(void) {
    return 1;
}

#endif
