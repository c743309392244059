/* The history checker over stores that arrive late. A processor keeps a store to itself for a while, and a fence is what
 * makes it wait for that; on real hardware the while is too short for a missing fence to show. Here it lasts: what the
 * writer publishes is seen by the readers only when the writer comes to a fence, to its next ordered store, or to the end
 * of its call, where a lock is given back. The rules of the language allow all of that.
 *
 * So every answer has to be right with the fence of the writer, and the checker has to find wrong ones without it. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

static __thread bool late_reader, late_writer;
static uint64_t late_seen, late_stored; /* the moment: as readers see it, and as it was stored */
static bool late_fence_is_missing;

static void late_arrive(void) { __atomic_store_n(&late_seen, late_stored, __ATOMIC_SEQ_CST); }

/* The end of a write: time for readers to begin, then all has arrived. */
static void late_write_ends(void) {
    static unsigned writes;
    if (writes++ % 4 == 0) usleep(20);
    late_arrive();
}

static bool late_is_moment(const char *text) { return strcmp(text, "&epoch->moment") == 0; }

static void *late_place(const char *text, const volatile void *place) {
    return late_reader && late_is_moment(text) ? (void *)&late_seen : (void *)(uintptr_t)place;
}

static void late_store(const char *text, uint64_t value) {
    if (late_writer) late_arrive(); /* a release: what was stored before has arrived */
    if (!late_is_moment(text)) return;
    late_stored = value;
    if (!late_writer) late_arrive();
}

static void late_fence(const char *function) {
    if (late_fence_is_missing && strcmp(function, "iq_epoch_oldest") == 0) return;
    if (late_writer) late_arrive();
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

#define IQ_ATOMIC_LOAD(pointer) \
    __atomic_load_n((__typeof__(&*(pointer)))late_place(#pointer, (pointer)), __ATOMIC_ACQUIRE)
#define IQ_ATOMIC_STORE(pointer, value) \
    (late_store(#pointer, (uint64_t)(uintptr_t)(value)), __atomic_store_n((pointer), (value), __ATOMIC_RELEASE))
#define IQ_ATOMIC_SWAP_IF(pointer, old, value) __sync_bool_compare_and_swap((pointer), (old), (value))
#define IQ_ATOMIC_ADD(pointer, n) ((void)__atomic_fetch_add((pointer), (n), __ATOMIC_SEQ_CST))
#define IQ_ATOMIC_FENCE(pointer) ((void)(pointer), late_fence(__func__))
#define IQ_ATOMIC_FENCE_BEHIND_SWAP(pointer) IQ_ATOMIC_FENCE(pointer)

#define HISTORY_READER_BEGINS() (late_reader = true)
#define HISTORY_WRITER_BEGINS() (late_writer = true)
#define HISTORY_WRITE_ENDS() late_write_ends()
#define HISTORY_READERS 1 /* more of them protect one another: a row goes when nobody has a pin */

#include "store/epoch.c" /* in place of the one in the archive */

#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "api/public.h"
#include "api/history.h"

#include <signal.h>
#include <sys/wait.h>

static void late_stores_are_seen_in_time(void) {
    const size_t answers = support_amount(10000, 50000, 1000000);
    run_history(NULL, answers, (uint32_t)answers / 4, 3);
}

/* In a child, because rows that change under a reader may end it in any way, an endless chain of them among these. */
static void a_missing_fence_is_found(void) {
    int status = 0;
    fflush(stdout);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        late_fence_is_missing = true;
        if (freopen("/dev/null", "w", stdout) == NULL) _exit(0);
        alarm(120);
        run_history(NULL, 2000000, 2000000, 4);
        _exit(test_now.failures == 0 ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(status != 0 && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM));
}

TEST_MAIN("model/late", TEST(late_stores_are_seen_in_time), TEST(a_missing_fence_is_found))
