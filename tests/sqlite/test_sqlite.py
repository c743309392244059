#!/usr/bin/env python3
"""examples/sqlite: it compiles without a warning, and what it says and does is right.

cases.c asks single statements, torture.c plays random transactions beside a plain table, with many seeds; both run under
valgrind as well. The extension is built twice: as it is, and with a log that is cut every few entries, so that tables
are also read as a whole. The session that the README shows is run by the sqlite3 shell.
IQDB_TEST_TIER=long plays 20 times as many seeds, quick fewer.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, Skip, compiler, main, must, run  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
TIER = os.environ.get("IQDB_TEST_TIER", "normal")
STEP = {"quick": "31", "normal": "7", "long": "1"}[TIER]  # of the allocations that fail
SEEDS = {"quick": 4, "normal": 12, "long": 240}[TIER]
SOURCE = os.path.join(ROOT, "examples", "sqlite", "iqdb_sqlite.c")
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wundef", "-Wvla", "-Wcast-qual", "-Werror"]
SHORT_LOG = ["-DLOG_KEPT=24", "-DLOG_STEP=4"]
VALGRIND = ["valgrind", "-q", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite,possible"]
LOCK, BUILT = threading.Lock(), {}


def built(name, command):
    """The path of a program or extension, made once; Skip where SQLite is missing."""
    with LOCK:
        if name not in BUILT:
            BUILT[name] = build(name, command)
        if isinstance(BUILT[name], Exception):
            raise BUILT[name]
        return BUILT[name]


def build(name, command):
    try:
        cc = compiler("CC", "cc")
    except Skip as why:
        return why
    probe = os.path.join(SCRATCH, "probe.c")
    with open(probe, "w") as file:
        file.write("#include <sqlite3.h>\n#include <sqlite3ext.h>\n#if SQLITE_VERSION_NUMBER < 3038000\n#error too old\n"
                   "#endif\nint main(void) { return 0; }\n")
    status, output = run(cc + [probe, "-lsqlite3", "-o", probe[:-2]])
    if status:
        return Skip("no SQLite to build with: %s" % (re.findall(r"error: (.*)", output) or [output.strip()])[0])
    path = os.path.join(SCRATCH, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    status, output = run(cc + WARNINGS + command + ["-o", path])
    return path if status == 0 else AssertionError(output)


def extension(folder="", flags=()):
    return built(os.path.join(folder, "iqdb.so"), ["-std=gnu99", "-shared", "-fPIC", "-O2", "-g", "-I", ROOT, SOURCE,
                                                  "-pthread"] + list(flags))


def program(name):
    return built(name, ["-O1", "-g", os.path.join(HERE, name + ".c"), "-lsqlite3", "-lm"])


def folder():
    return tempfile.mkdtemp(dir=SCRATCH)


def cases():
    output = must([program("cases"), extension(), folder(), STEP])
    for line in output.split("\n"):
        if line.startswith("  skip "):
            print(line, flush=True)


def under_valgrind(command):
    program("cases"), extension()  # what is missing is told first
    if shutil.which("valgrind") is None:
        raise Skip("no valgrind")
    must(VALGRIND + command(), timeout=500)


def torture(first, seeds, flags):
    made = extension("short", SHORT_LOG) if flags else extension()
    for seed in range(first, first + seeds):
        must([program("torture"), made, folder(), str(seed), "2500", "3"])


def readme():
    """The session in 'From SQL', as the shell answers it."""
    shell = shutil.which("sqlite3")
    made = extension()
    if shell is None:
        raise Skip("no sqlite3 shell")
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        section = re.search(r"^## From SQL\n(.*?)^## ", file.read(), re.M | re.S).group(1)
    build_line = re.search(r"^```sh\n(.*?)\n```$", section, re.M | re.S).group(1)
    at = folder()
    for name in ("iqdb.h", "examples"):
        os.symlink(os.path.join(ROOT, name), os.path.join(at, name))
    must(["sh", "-c", build_line], cwd=at)
    assert os.path.getsize(os.path.join(at, os.path.basename(made))) > 0
    session = re.search(r"^```sql\n(.*?)^```$", section, re.M | re.S).group(1)
    assert session.count("sqlite> ") >= 6
    entered = "\n".join(line[8:] for line in session.split("\n") if line.startswith(("sqlite> ", "   ...> ")))
    expected = [line for line in session.split("\n") if line and not line.startswith(("sqlite> ", "   ...> "))]
    done = subprocess.run([shell, "-batch", "notes.db"], input=entered.encode(), cwd=at, timeout=100,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = [line for line in done.stdout.decode().split("\n") if line]
    assert output == expected, "the README shows:\n%s\nthe shell prints:\n%s" % ("\n".join(expected), "\n".join(output))


def tests():
    yield "statements", cases
    yield "statements under valgrind", lambda: under_valgrind(lambda: [program("cases"), extension(), folder(), "499"])
    yield "torture under valgrind", lambda: under_valgrind(
        lambda: [program("torture"), extension(), folder(), "7", "300", "0"])
    for first in range(0, SEEDS, 4):
        yield "torture, seeds from %d" % first, lambda first=first: torture(first, 4, False)
        yield "torture with a short log, seeds from %d" % first, lambda first=first: torture(first, 4, True)
    yield "README: From SQL", readme


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as SCRATCH:
        main("sqlite", list(tests()))
