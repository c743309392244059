#!/usr/bin/env python3
"""Run test programs in parallel and tell what happened.

    run.py [--wrap COMMAND] [--timeout SECONDS] [--fuzz SECONDS] [--quick FOLDER]... PROGRAM...

A program (or a .py file) ends with the line "NAME: P passed, F failed[, S skipped]". What it says is not enough: a
program that crashes, hangs, exits non-zero, says nothing or ran no test counts as a failure. Each gets a TMPDIR of its
own, removed afterwards. The full output is shown only for programs that failed; reasons for skipping, and notes, always.
The last line is "P passed, F failed[, S skipped]", and the exit status is 0 only when nothing failed and something ran.

The longest ones begin first, so that no core is idle while the other works off a long one at the end. Programs in a
FOLDER named by --quick run in the quick tier, unless IQDB_TEST_TIER is set.
"""
import argparse
import concurrent.futures
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

LAST_LINE = re.compile(r"^\S.*: (\d+) passed, (\d+) failed(?:, (\d+) skipped)?$")
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
# Ends of names, longest first. A wrong order costs time and nothing else.
LONGEST = ("redis/test_cluster.py", "crash/test_enumerate", "compile/test_compile.py", "api/c99/test_index",
           "api/clang-cxx20/test_index", "crash/test_mutants.py",
           "import/test_import.py", "compile/test_switches.py", "compile/test_small.py", "examples/test_examples.py", "sqlite/test_sqlite.py",
           "tools/test_packages.py", "tools/test_bench.py", "format/test_directory.py", "db/test_stored",
           "python/test_python.py", "test_index", "test_approximate", "index/test_graph", "compile/test_readme.py",
           "api/c99/test_codes", "index/test_flat", "db/test_repair", "crash/test_failures", "crash/test_hostile",
           "test_elements", "crash/test_rot", "crash/test_kill",
           "codec/test_json.py", "cli/test_newcomer.py", "db/test_checkpoints", "test_real_data", "test_cursor",
           "test_search", "test_history", "persist/test_faults", "persist/test_wal", "test_files", "model/test_tapes",
           "test_persistence")


class Outcome:
    def __init__(self, passed=0, failed=0, skipped=0, trouble="", output="", seconds=0.0):
        self.passed, self.failed, self.skipped = passed, failed, skipped
        self.trouble, self.output, self.seconds = trouble, output, seconds


def rank(program):
    """Its place in LONGEST; `api/c99/test_search` ends as `test_search` does."""
    name = program[:-len(".exe")] if program.endswith(".exe") else program
    return next((place for place, end in enumerate(LONGEST) if name.endswith("/" + end)), len(LONGEST))


def execute(command, timeout, tier=None):
    """(exit status or None after a timeout, output, seconds). A hanging program is killed with its children."""
    directory = tempfile.mkdtemp(prefix="iqdb-test-")
    environment = dict(os.environ, TMPDIR=directory, PYTHONDONTWRITEBYTECODE="1")
    if tier:
        environment.setdefault("IQDB_TEST_TIER", tier)
    start = time.monotonic()
    try:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            output, _ = process.communicate(timeout=timeout)
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            status = None
    except OSError as error:
        return 127, "cannot be started: %s\n" % error, 0.0
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return status, output.decode("utf-8", "replace"), time.monotonic() - start


def judge(status, output, timeout):
    """What a program's exit status and its last line amount to."""
    lines = output.strip().split("\n")
    last = LAST_LINE.match(lines[-1])
    passed, failed, skipped = (int(n or 0) for n in last.groups()) if last else (0, 0, 0)
    trouble = ""
    if status is None:
        trouble = "killed after %g s" % timeout
    elif status < 0:
        trouble = "killed by %s" % signal.Signals(-status).name
    elif not last:
        trouble = "exit status %d, and no line with counts at the end" % status
    elif status != 0 and failed == 0:
        trouble = "exit status %d" % status
    elif status == 0 and failed > 0:
        trouble = "exit status 0 in spite of failures"
    elif passed + failed + skipped == 0:
        trouble = "no test was executed"
    if trouble and failed == 0:
        failed = 1
    return Outcome(passed, failed, skipped, trouble)


def run(program, options):
    command = [sys.executable, program] if program.endswith(".py") else [os.path.join(ROOT, program)]
    if options.fuzz:
        name = os.path.basename(program)[len("fuzz_"):]
        found = os.path.join(os.path.dirname(program), "corpus", name)
        os.makedirs(found, exist_ok=True)
        command += ["-max_total_time=%d" % options.fuzz, "-timeout=20", "-artifact_prefix=%s/" % found, found]
        committed = "tests/fuzz/corpus/" + name
        command += [committed] if os.path.isdir(os.path.join(ROOT, committed)) else []
        status, output, seconds = execute(command, options.fuzz + 120)
        outcome = Outcome(passed=1) if status == 0 else Outcome(failed=1, trouble="exit status %s" % status)
    else:
        if not program.endswith(".py"):
            command = shlex.split(options.wrap) + command
        quick = os.path.dirname(program) in options.quick
        status, output, seconds = execute(command, options.timeout, "quick" if quick else None)
        outcome = judge(status, output, options.timeout)
    outcome.output, outcome.seconds = output, seconds
    return outcome


def show(program, outcome):
    counts = "%d passed, %d failed" % (outcome.passed, outcome.failed)
    if outcome.skipped:
        counts += ", %d skipped" % outcome.skipped
    mark = "FAIL" if outcome.failed else "ok  "
    print("%s %6.1f s  %s: %s%s" % (mark, outcome.seconds, program, counts,
                                    " (%s)" % outcome.trouble if outcome.trouble else ""))
    if outcome.failed:
        print("".join("     | %s\n" % line for line in outcome.output.rstrip("\n").split("\n")), end="")
    else:
        for line in outcome.output.split("\n"):
            if line.startswith(("  skip ", "  note ")):
                print("     |" + line)
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description="Run test programs in parallel and tell what happened.")
    parser.add_argument("--wrap", default="", help="a command to put before each compiled program")
    parser.add_argument("--timeout", type=float, default=float(os.environ.get("IQDB_TEST_TIMEOUT", "900")))
    parser.add_argument("--fuzz", type=int, default=0, help="the programs are libFuzzer targets; run each this long")
    parser.add_argument("--quick", action="append", default=[], help="a folder whose programs run in the quick tier")
    parser.add_argument("programs", nargs="*")
    options = parser.parse_args()
    total = Outcome()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        running = {pool.submit(run, program, options): program for program in sorted(options.programs, key=rank)}
        for future in concurrent.futures.as_completed(running):
            outcome = future.result()
            show(running[future], outcome)
            total.passed += outcome.passed
            total.failed += outcome.failed
            total.skipped += outcome.skipped
    if total.passed + total.failed == 0:
        print("no test was executed")
        total.failed = 1
    print("%d passed, %d failed%s" % (total.passed, total.failed,
                                      ", %d skipped" % total.skipped if total.skipped else ""))
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
