#!/usr/bin/env python3
"""The judges are judged: tests/run.py, tests/test.h and tests/support.h notice what they are there to notice."""
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, compiler, main, must, run  # noqa: E402

RUN = [sys.executable, os.path.join(ROOT, "tests", "run.py")]


def runner(script, *flags):
    """run.py's verdict on one python test program."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "program.py")
        with open(path, "w") as file:
            file.write(script)
        status, output = run(RUN + list(flags) + [path])
        return status, output.rstrip().split("\n")[-1], output


def harness(body, *arguments, variable="CC", default="cc", dialect=("-std=c99",)):
    """(exit status, output) of a program with test.h."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = os.path.join(folder, "t.c"), os.path.join(folder, "t")
        with open(source, "w") as file:
            file.write('#include "test.h"\n#include "support.h"\n' + body)
        flags = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-D_GNU_SOURCE", "-I", os.path.join(ROOT, "tests"),
                 source, "-o", program]
        must(compiler(variable, default) + list(dialect) + flags)
        return run([program] + list(arguments))


def runner_believes_a_good_program():
    assert runner("print('x: 3 passed, 0 failed, 1 skipped')")[:2] == (0, "3 passed, 0 failed, 1 skipped")


def runner_shows_output_of_failures_only():
    _, _, output = runner("print('noise'); print('  skip b: no zlib'); print('x: 1 passed, 0 failed')")
    assert "noise" not in output and "no zlib" in output, output
    _, _, output = runner("import sys; print('noise'); print('x: 1 passed, 1 failed'); sys.exit(1)")
    assert "noise" in output, output


def runner_counts_as_failed():
    for script, wanted in (
            ("import os; print('x: 1 passed, 0 failed', flush=True); os.abort()", "SIGABRT"),
            ("import sys; print('x: 1 passed, 0 failed'); sys.exit(3)", "exit status 3"),
            ("print('all is well')", "no line with counts"),
            ("", "no line with counts"),
            ("print('x: 1 passed, 0 failed'); print('and more')", "no line with counts"),
            ("print('x: 0 passed, 0 failed')", "no test was executed"),
            ("print('x: 1 passed, 1 failed')", "in spite of failures")):
        status, last, output = runner(script)
        assert status == 1 and ", 1 failed" in last and wanted in output, (script, output)


def runner_kills_what_hangs():
    script = "import subprocess, time; subprocess.Popen(['sleep', '600']); print('deep', flush=True); time.sleep(600)"
    status, last, output = runner(script, "--timeout", "1")
    assert status == 1 and last == "0 passed, 1 failed" and "killed after 1 s" in output and "deep" in output, output


def runner_fails_on_nothing():
    status, output = run(RUN)
    assert status == 1 and output.endswith("0 passed, 1 failed\n"), output
    status, last, _ = runner("print('x: 0 passed, 0 failed, 1 skipped')")
    assert (status, last) == (1, "0 passed, 1 failed, 1 skipped")
    status, output = run(RUN + ["build/no-such-program"])
    assert status == 1 and "cannot be started" in output, output


def runner_gives_and_removes_a_directory():
    with tempfile.TemporaryDirectory() as folder:
        note = os.path.join(folder, "note")
        script = ("import os; d = os.environ['TMPDIR']; open(d + '/left', 'w').write('x'); "
                  "open(%r, 'w').write(d); print('x: 1 passed, 0 failed')" % note)
        assert runner(script)[0] == 0
        with open(note) as file:
            assert not os.path.exists(file.read())


def runner_gives_a_tier_to_folders():
    script = "import os\nprint('x: %d passed, 0 failed' % len(os.environ.get('IQDB_TEST_TIER', '..')))"
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "program.py")
        with open(path, "w") as file:
            file.write(script)
        for setting, flags, length in ((["-u", "IQDB_TEST_TIER"], ["--quick", folder], len("quick")),
                                       (["-u", "IQDB_TEST_TIER"], ["--quick", folder + "/other"], len("..")),
                                       (["IQDB_TEST_TIER=long"], ["--quick", folder], len("long"))):
            status, output = run(["env"] + setting + RUN + flags + [path])
            assert status == 0 and output.endswith("\n%d passed, 0 failed\n" % length), output


CHECKS = """
static int helper(int n) { if (!EXPECT(n == 3)) return -1; return n; }
static void good(void) { CHECK(1); CHECK_EQ_INT(helper(3), 3); CHECK_EQ_STR("a", "a"); CHECK_MEM("ab", "ab", 2); }
static void truth(void) { CHECK(1 > 2); printf("went on\\n"); }
static void integer(void) { CHECK_EQ_INT(2 - 5, 7); printf("went on\\n"); }
static void u64(void) { CHECK_EQ_U64(UINT64_MAX, 1); printf("went on\\n"); }
static void text(void) { CHECK_EQ_STR("seen", NULL); printf("went on\\n"); }
static void zero(void) { CHECK_EQ_F32(0.0f, -0.0f); printf("went on\\n"); }
static void memory(void) { CHECK_MEM("abc", "abd", 3); printf("went on\\n"); }
static void inside(void) { CHECK(1); helper(4); }
static void empty(void) {}
static void skipped(void) { TEST_SKIP("no zlib"); }
TEST_MAIN("base/x", TEST(good), TEST(truth), TEST(integer), TEST(u64), TEST(text), TEST(zero), TEST(memory),
          TEST(inside), TEST(empty), {"skipped", skipped})
"""


def checks_fail_and_say_why(**compiler_of):
    status, output = harness(CHECKS, **compiler_of)
    assert status == 1 and output.endswith("base/x: 1 passed, 8 failed, 1 skipped\n"), output
    assert "went on" not in output, output
    for text in ("t.c:6: failed: 1 > 2", "seen -3, expected 7", "seen 18446744073709551615 (0xffffffffffffffff)",
                 'seen     "seen"', '"(NULL)"', "0x80000000", "byte 2 of 3: seen 0x63, expected 0x64", "failed: n == 3",
                 "FAIL empty: it made no check", "  skip skipped: no zlib"):
        assert text in output, "%r is missing in\n%s" % (text, output)


def checks_work_in_cxx_too():
    checks_fail_and_say_why(variable="CXX", default="c++", dialect=("-x", "c++", "-std=c++11"))


def tests_are_picked_by_name():
    assert harness(CHECKS, "good")[1].endswith("base/x: 1 passed, 0 failed\n")
    assert harness(CHECKS, "good")[0] == 0
    assert harness(CHECKS, "nothing")[0] == 1


def a_crash_names_its_test():
    status, output = harness("static void boom(void) { CHECK(1); abort(); }\nTEST_MAIN(\"x\", TEST(boom))\n")
    assert status < 0 and output.rstrip().endswith("test boom ..."), output


def heap_notices():
    body = """
static void wrong(void) {
    support_heap heap = support_heap_make();
    void *a = support_alloc(100, 64, &heap), *b = support_alloc(7, 1, &heap);
    CHECK((uintptr_t)a % 64 == 0 && heap.live_bytes == 107 && heap.live_blocks == 2);
    support_free(a, 99, 64, &heap);
    CHECK_EQ_INT(heap.errors, 1);
    support_free(b, 7, 8, &heap);
    CHECK_EQ_INT(heap.errors, 2);
    char local[256] = {0};
    support_free(local + 128, 1, 1, &heap);
    CHECK_EQ_INT(heap.errors, 3);
    CHECK_EQ_INT(support_heap_problems(&heap), 3);
    CHECK(support_alloc(5, 3, &heap) == NULL);
    CHECK_EQ_INT(heap.errors, 4);
}
static void leak(void) {
    support_heap heap = support_heap_make();
    void *a = support_alloc(5, 16, &heap);
    CHECK_EQ_INT(support_heap_problems(&heap), 1);
    support_free(a, 5, 16, &heap);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
    CHECK_EQ_INT(heap.peak_bytes, 5);
}
static void failing(void) {
    support_heap heap = support_heap_make();
    heap.fail_at = 2;
    void *a = support_alloc(1, 1, &heap), *b = support_alloc(1, 1, &heap), *c = support_alloc(1, 1, &heap);
    CHECK(a != NULL && b == NULL && c != NULL && heap.failed == 1 && heap.calls == 3);
    heap.fail_at = 1;
    heap.sticky = 1;
    CHECK(support_alloc(1, 1, &heap) == NULL && support_alloc(1, 1, &heap) == NULL && heap.failed == 3);
    support_free(a, 1, 1, &heap);
    support_free(c, 1, 1, &heap);
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}
static void files(void) {
    char folder[SUPPORT_PATH_MAX], inner[SUPPORT_PATH_MAX], link[SUPPORT_PATH_MAX];
    support_directory(folder);
    support_join(inner, folder, "inner");
    CHECK(mkdir(inner, 0700) == 0);
    support_join(link, inner, "link");
    CHECK(symlink("/", link) == 0);
    CHECK(chmod(inner, 0) == 0);
    support_remove(folder);
    CHECK(access(folder, F_OK) != 0 && access("/", F_OK) == 0);
}
static void spread(uint64_t seed) {
    float low = 1, high = -1;
    for (int i = 0; i < 10000; i++) {
        const float x = support_random_float(&seed);
        low = x < low ? x : low;
        high = x > high ? x : high;
    }
    CHECK(low >= -1 && low < -0.99f && high > 0.99f && high < 1);
}
static void randomness(void) {
    uint64_t seed = 0;
    CHECK_EQ_U64(support_random(&seed), UINT64_C(0xe220a8397b1dcdaf));
    spread(1);
}
TEST_MAIN("x", TEST(wrong), TEST(leak), TEST(failing), TEST(files), TEST(randomness))
"""
    status, output = harness(body)
    assert status == 0 and output.endswith("x: 5 passed, 0 failed\n"), output


if __name__ == "__main__":
    main("tools/run", [
        runner_believes_a_good_program, runner_shows_output_of_failures_only, runner_counts_as_failed,
        runner_kills_what_hangs, runner_fails_on_nothing, runner_gives_and_removes_a_directory,
        runner_gives_a_tier_to_folders, checks_fail_and_say_why, checks_work_in_cxx_too, tests_are_picked_by_name,
        a_crash_names_its_test, heap_notices])
