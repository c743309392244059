/* The test harness: an explicit list of tests, checks that say what they saw, and one line of counts at the end.
 *
 *   static void adds(void) { CHECK_EQ_INT(1 + 1, 2); }
 *   TEST_MAIN("base/sums", TEST(adds))
 *
 * A failing check prints file, line, expression and values, marks the test as failed and returns from the function it
 * stands in, which must return void; EXPECT does the same without returning and gives the truth, for any other
 * function: if (!EXPECT(p != NULL)) return -1. Checks may be made from several threads. A test that made no check has
 * failed, unless it called TEST_SKIP (the list itself may hold no #if: it is a macro's argument). Argument of the
 * program: only tests whose name contains argv[1] are run.
 * Written in what C99 and C++11 have in common. */
#ifndef TEST_H
#define TEST_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct test_case {
    const char *name;
    void (*function)(void);
} test_case;

typedef struct test_state {
    long checks;
    long failures;
    const char *skipped; /* why */
} test_state;

static test_state test_now;

#define TEST(function) \
    { #function, function }
#define TEST_MAIN(suite, ...) \
    int main(int argc, char **argv) { \
        static const test_case test_list[] = {__VA_ARGS__}; \
        return test_run(suite, test_list, sizeof test_list / sizeof test_list[0], argc, argv); \
    }
#define TEST_SKIP(why) \
    do { \
        test_now.skipped = (why); \
        return; \
    } while (0)

#define EXPECT(condition) test_check(!!(condition), __FILE__, __LINE__, #condition)
#define TEST_RETURN_UNLESS(ok) \
    do { \
        if (!(ok)) return; \
    } while (0)
#define CHECK(condition) TEST_RETURN_UNLESS(EXPECT(condition))
/* The first value is the one seen, the second the one expected. */
#define CHECK_EQ_INT(a, b) \
    TEST_RETURN_UNLESS(test_check_int((long long)(a), (long long)(b), __FILE__, __LINE__, #a, #b))
#define CHECK_EQ_U64(a, b) TEST_RETURN_UNLESS(test_check_u64((uint64_t)(a), (uint64_t)(b), __FILE__, __LINE__, #a, #b))
#define CHECK_EQ_STR(a, b) TEST_RETURN_UNLESS(test_check_str((a), (b), __FILE__, __LINE__, #a, #b))
#define CHECK_EQ_F32(a, b) TEST_RETURN_UNLESS(test_check_f32((a), (b), __FILE__, __LINE__, #a, #b)) /* the same bits */
#define CHECK_MEM(a, b, size) TEST_RETURN_UNLESS(test_check_mem((a), (b), (size), __FILE__, __LINE__, #a, #b))

static inline void test_count(long *counter) {
#if defined(__GNUC__) || defined(__clang__)
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
#else
    *counter += 1;
#endif
}

static inline int test_check(int ok, const char *file, int line, const char *text) {
    test_count(&test_now.checks);
    if (ok) return 1;
    test_count(&test_now.failures);
    printf("\n    %s:%d: failed: %s", file, line, text);
    return 0;
}

static inline int test_check_int(long long a, long long b, const char *file, int line, const char *left,
                                 const char *right) {
    if (test_check(a == b, file, line, left)) return 1;
    printf(" == %s\n      seen %lld, expected %lld", right, a, b);
    return 0;
}

static inline int test_check_u64(uint64_t a, uint64_t b, const char *file, int line, const char *left,
                                 const char *right) {
    if (test_check(a == b, file, line, left)) return 1;
    printf(" == %s\n      seen %" PRIu64 " (0x%" PRIx64 "), expected %" PRIu64 " (0x%" PRIx64 ")", right, a, a, b, b);
    return 0;
}

static inline int test_check_str(const char *a, const char *b, const char *file, int line, const char *left,
                                 const char *right) {
    if (test_check(a == b || (a != NULL && b != NULL && strcmp(a, b) == 0), file, line, left)) return 1;
    printf(" == %s\n      seen     \"%s\"\n      expected \"%s\"", right, a ? a : "(NULL)", b ? b : "(NULL)");
    return 0;
}

/* Bits, because -0.0 == 0.0 and NaN != NaN; printed as bits, because libraries differ in how they print floats. */
static inline int test_check_f32(float a, float b, const char *file, int line, const char *left, const char *right) {
    uint32_t bits_a, bits_b;
    memcpy(&bits_a, &a, 4);
    memcpy(&bits_b, &b, 4);
    if (test_check(bits_a == bits_b, file, line, left)) return 1;
    printf(" == %s\n      seen %.9g (0x%08" PRIx32 "), expected %.9g (0x%08" PRIx32 ")", right, (double)a, bits_a,
           (double)b, bits_b);
    return 0;
}

static inline int test_check_mem(const void *a, const void *b, size_t size, const char *file, int line,
                                 const char *left, const char *right) {
    const unsigned char *x = (const unsigned char *)a, *y = (const unsigned char *)b;
    size_t at = 0;
    while (at < size && x[at] == y[at]) at++;
    if (test_check(at == size, file, line, left)) return 1;
    printf(" == %s\n      byte %zu of %zu: seen 0x%02x, expected 0x%02x", right, at, size, x[at], y[at]);
    return 0;
}

static inline int test_run(const char *suite, const test_case *list, size_t count, int argc, char **argv) {
    int passed = 0, failed = 0, skipped = 0;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    for (size_t i = 0; i < count; i++) {
        if (argc > 1 && strstr(list[i].name, argv[1]) == NULL) continue;
        /* Named before it runs, so that a crash shows where it happened. */
        printf("  test %s ...", list[i].name);
        fflush(stdout);
        memset(&test_now, 0, sizeof test_now);
        list[i].function();
        if (test_now.failures > 0) {
            failed++;
            printf("\n  FAIL %s\n", list[i].name);
        } else if (test_now.skipped != NULL) {
            skipped++;
            printf("\n  skip %s: %s\n", list[i].name, test_now.skipped);
        } else if (test_now.checks == 0) {
            failed++;
            printf("\n  FAIL %s: it made no check\n", list[i].name);
        } else {
            passed++;
            printf(" ok\n");
        }
    }
    if (passed + failed + skipped == 0) {
        printf("  FAIL: no test was run\n");
        failed = 1;
    }
    printf("%s: %d passed, %d failed", suite, passed, failed);
    if (skipped > 0) printf(", %d skipped", skipped);
    printf("\n");
    fflush(stdout);
    return failed > 0 ? 1 : 0;
}

#endif
