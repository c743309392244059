"""What the python tests share: a list of functions is run, each prints one line, and the counts come last.

A test fails by raising, and skips by raising Skip("why"). From a file in tests/<folder>/ it is imported by
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
"""
import concurrent.futures
import os
import shlex
import shutil
import subprocess
import sys
import traceback

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))


class Skip(Exception):
    pass


def compiler(variable, default):
    """The command in $CC, $CXX, $CLANG or $CLANGXX as a list, or Skip where there is no such program."""
    command = shlex.split(os.environ.get(variable) or default)
    if shutil.which(command[0]) is None:
        raise Skip("no %s" % command[0])
    return command


def run(command, cwd=None, timeout=300):
    """(exit status, both outputs together)."""
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=timeout)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def must(command, cwd=None, timeout=300):
    status, output = run(command, cwd, timeout)
    assert status == 0, "exit status %s of %s\n%s" % (status, " ".join(command), output)
    return output


def attempt(test):
    try:
        test()
        return "ok  ", ""
    except Skip as why:
        return "skip", ": %s" % why
    except AssertionError as error:
        if error.args:
            return "FAIL", "\n" + "\n".join(str(error).split("\n")[:40])  # the rest follows from the first ones
        return "FAIL", "\n" + traceback.format_exc()
    except Exception:  # whatever else it is, it is a failed test too
        return "FAIL", "\n" + traceback.format_exc()


def main(suite, tests):
    """tests: functions, or pairs (name, function). They run on all cores; argv[1] picks by substring."""
    named = [test if isinstance(test, tuple) else (test.__name__, test) for test in tests]
    named = [pair for pair in named if len(sys.argv) < 2 or sys.argv[1] in pair[0]]
    counts = {"ok  ": 0, "FAIL": 0, "skip": 0}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for (name, _), (mark, detail) in zip(named, pool.map(lambda pair: attempt(pair[1]), named)):
            counts[mark] += 1
            print("  %s %s%s" % (mark, name, detail))
    print("%s: %d passed, %d failed%s" % (suite, counts["ok  "], counts["FAIL"],
                                          ", %d skipped" % counts["skip"] if counts["skip"] else ""))
    sys.exit(1 if counts["FAIL"] or not named else 0)
