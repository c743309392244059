/* Locks, identities, chance, and what the processor says of itself. */
#include "api.h"
#include "support.h"
#include "test.h"

#include "sys/atomic.h"
#include "sys/thread.h"

#include <pthread.h>
#include <sys/wait.h>

#define THREADS 4

static iq_mutex mutex;
static long counter, turns;
static uintptr_t identities[THREADS];
static int arrived;

static void *count_up(void *argument) {
    const long my_turns = turns;
    (void)argument;
    for (long i = 0; i < my_turns; i++) {
        iq_mutex_lock(&mutex);
        const long seen = counter;
        if (i % 64 == 0) sched_yield(); /* in the middle of it */
        counter = seen + 1;
        iq_mutex_unlock(&mutex);
    }
    return NULL;
}

static void mutex_excludes(void) {
    pthread_t threads[THREADS];
    turns = (long)support_amount(2000, 50000, 500000);
    counter = 0;
    CHECK(iq_mutex_init(&mutex));
    for (int i = 0; i < THREADS; i++) CHECK_EQ_INT(pthread_create(&threads[i], NULL, count_up, NULL), 0);
    for (int i = 0; i < THREADS; i++) CHECK_EQ_INT(pthread_join(threads[i], NULL), 0);
    CHECK_EQ_INT(counter, THREADS * turns);
    iq_mutex_destroy(&mutex);
}

/* All live at once: an identity may be used again when its thread is gone. */
static void *identify(void *argument) {
    *(uintptr_t *)argument = iq_thread_identity();
    const bool same = iq_thread_identity() == *(uintptr_t *)argument;
    __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&arrived, __ATOMIC_SEQ_CST) < THREADS) sched_yield();
    return same ? NULL : argument;
}

static void threads_differ(void) {
    pthread_t threads[THREADS];
    arrived = 0;
    for (int i = 0; i < THREADS; i++) CHECK_EQ_INT(pthread_create(&threads[i], NULL, identify, &identities[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        void *differs = NULL;
        CHECK_EQ_INT(pthread_join(threads[i], &differs), 0);
        CHECK(differs == NULL);
        CHECK(identities[i] != 0);
        CHECK(identities[i] != iq_thread_identity());
        for (int j = 0; j < i; j++) CHECK(identities[i] != identities[j]);
    }
    CHECK(iq_thread_identity() == iq_thread_identity());
}

static void processes_differ(void) {
    const uint64_t own = iq_process_identity();
    int status = 1;
    CHECK_EQ_U64(iq_process_identity(), own);
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) _exit(iq_process_identity() != own ? 0 : 1);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQ_INT(status, 0);
}

static void atomics_store_and_load(void) {
    uintptr_t word = 1;
    uint64_t wide = 1;
    IQ_ATOMIC_STORE(&word, (uintptr_t)77);
    IQ_ATOMIC_STORE(&wide, UINT64_C(0x123456789ABCDEF0));
    CHECK_EQ_U64(IQ_ATOMIC_LOAD(&word), 77);
    CHECK_EQ_U64(IQ_ATOMIC_LOAD(&wide), UINT64_C(0x123456789ABCDEF0));
}

/* Every size is filled to the last byte and not beyond, and never twice the same. */
static void chance_fills(void) {
    static const size_t sizes[] = {1, 8, 16, 255, 256, 257, 1000, 5000};
    static uint8_t a[5016], b[5016];
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const size_t size = sizes[i];
        size_t touched_last = 0, equal = 0;
        for (int round = 0; round < 8; round++) {
            memset(a, 0, sizeof a);
            memset(b, 0, sizeof b);
            CHECK(iq_sys_entropy(a, size, NULL));
            CHECK(iq_sys_entropy(b, size, NULL));
            touched_last += a[size - 1] != 0;
            equal += memcmp(a, b, size) == 0;
            for (size_t j = size; j < size + 16; j++) CHECK_EQ_INT(a[j], 0);
        }
        CHECK(touched_last > 0);
        CHECK(equal < (size == 1 ? 4u : 1u)); /* of 8; two single bytes may be equal now and then */
        size_t zeros = 0;
        for (size_t j = 0; j < size; j++) zeros += a[j] == 0;
        CHECK(size < 255 || zeros < size / 16);
    }
    CHECK(iq_sys_entropy(a, 0, NULL));
}

static void processor_is_known(void) {
    const uint32_t features = iq_cpu_features();
    CHECK_EQ_U64(features, iq_cpu_features());
#if IQ_X86
    const uint32_t known =
        IQ_CPU_SSE2 | IQ_CPU_AVX2 | IQ_CPU_AVX512F | IQ_CPU_AVX512VNNI | IQ_CPU_PCLMUL | IQ_CPU_VPCLMUL;
    CHECK_EQ_U64(features & ~known, 0);
    const uint32_t wide = IQ_CPU_AVX512F | IQ_CPU_AVX512VNNI;
    CHECK_EQ_INT((features & wide) == wide, __builtin_cpu_supports("avx512vnni") != 0);
    __builtin_cpu_init();
    CHECK_EQ_INT((features & IQ_CPU_SSE2) != 0, __builtin_cpu_supports("sse2") != 0);
    CHECK_EQ_INT((features & IQ_CPU_AVX2) != 0, __builtin_cpu_supports("avx2") != 0);
    CHECK_EQ_INT((features & IQ_CPU_AVX512F) != 0, __builtin_cpu_supports("avx512f") != 0);
    CHECK_EQ_INT((features & IQ_CPU_PCLMUL) != 0, __builtin_cpu_supports("pclmul") != 0);
    CHECK_EQ_INT((features & IQ_CPU_VPCLMUL) != 0, __builtin_cpu_supports("vpclmulqdq") != 0);
#elif IQ_ARM64
    CHECK_EQ_U64(features & ~(uint32_t)(IQ_CPU_ARM_CRC32 | IQ_CPU_ARM_DOTPROD), 0);
#else
    CHECK_EQ_U64(features, 0);
#endif
}

TEST_MAIN("sys/system", TEST(mutex_excludes), TEST(threads_differ), TEST(processes_differ),
          TEST(atomics_store_and_load), TEST(chance_fills), TEST(processor_is_known))
