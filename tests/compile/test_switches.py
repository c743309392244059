#!/usr/bin/env python3
"""Every IQDB_NO_* does what it says: smoke.c runs under it, and the object calls nothing that it has switched off.

That they compile in pairs and by more compilers is the business of `make check`.
"""
import os
import platform
import re
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, Skip, compiler, main, must  # noqa: E402

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wundef", "-Werror"]
SMOKE = os.path.join(ROOT, "tests", "compile", "smoke.c")
# What compilers call of their own accord, and what else is left.
OWN = {"memcpy", "memmove", "memset", "memcmp", "bcmp"}
STRINGS = {"memchr", "strlen", "strcmp", "strncmp", "strchr"}
MALLOC = {"malloc", "free"}
THREADS = {"pthread_mutex_init", "pthread_mutex_destroy", "pthread_mutex_lock", "pthread_mutex_unlock", "pthread_self"}
PAGES = {"mmap", "mmap64", "munmap", "madvise"}
# What each switch leaves of these; the rest of the system is only there without IQDB_NO_FILES.
LEAVES = {"IQDB_NO_FILES": OWN | STRINGS | MALLOC | THREADS, "IQDB_NO_MALLOC": OWN | STRINGS | THREADS,
          "IQDB_NO_LIBC": OWN}
REMOVES = {"IQDB_NO_THREADS": THREADS, "IQDB_NO_MMAP": PAGES}
ALL = ["IQDB_NO_FILES", "IQDB_NO_LIBC", "IQDB_NO_MALLOC", "IQDB_NO_MMAP", "IQDB_NO_SIMD", "IQDB_NO_TEXT",
       "IQDB_NO_THREADS"]
TEXT = {"iqdb_payload_to_json", "iqdb_payload_from_json", "iqdb_payload_parse", "iqdb_filter_parse"}
COMPILERS = ((("CC", "cc"), ["-std=c99"]), (("CLANGXX", "clang++-19"), ["-x", "c++", "-std=c++11"]))


def implement(folder, command, switches, out="iqdb.o", more=()):
    source, made = os.path.join(folder, "iqdb.c"), os.path.join(folder, out)
    with open(source, "w") as file:
        file.write('#define IQDB_IMPLEMENTATION\n#include "iqdb.h"\n'
                   "#if defined(strlen) || defined(memmove)\n#error a name of the C library is left\n#endif\n")
    must(command + ["-O1", *WARNINGS, "-pthread", "-I", ROOT, *("-D" + name for name in switches), *more,
                    "-S" if out.endswith(".s") else "-c", source, "-o", made])
    return made


def names(made, *flags):
    return {line.split()[-1] for line in must(compiler("NM", "nm") + [*flags, made]).split("\n") if line}


def called(made):
    return {re.sub(r"^_*|@.*", "", name) for name in names(made, "-u")}


def smoke(which, dialect, switches):
    def test():
        command = compiler(*which) + dialect
        with tempfile.TemporaryDirectory() as folder:
            made, program = implement(folder, command, switches), os.path.join(folder, "smoke")
            wanted = called(made)
            for name in switches:
                extra = wanted - LEAVES.get(name, wanted) | wanted & REMOVES.get(name, set())
                assert not extra, "%s calls %s" % (name, " ".join(sorted(extra)))
            assert bool(names(made, "--defined-only") & TEXT) == ("IQDB_NO_TEXT" not in switches)
            must(command + ["-O1", *WARNINGS, "-I", ROOT, *("-D" + name for name in switches), SMOKE, "-x", "none",
                            made, "-pthread", "-o", program])
            must([program, " ".join(switches)], cwd=folder)
    return test


def the_system_is_there_otherwise():
    """Else the lists above would be fulfilled by anything."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = called(implement(folder, compiler("CC", "cc") + ["-std=c99"], []))
        for needed in (MALLOC, THREADS, STRINGS, {"munmap", "fsync"}):
            missing = needed - wanted
            assert not missing, "not called: %s" % " ".join(sorted(missing))


def no_threads_is_without_atomics():
    if platform.machine() not in ("x86_64", "AMD64"):
        raise Skip("knows the instructions of x86 only")
    fence = re.compile(r"^\s*(lock\b|[lms]fence\b|xchg[bwlq]?\s.*\()", re.M)
    command = compiler("CC", "cc") + ["-std=c99"]
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for switches in ([], ["IQDB_NO_THREADS"]):
            with open(implement(folder, command, switches, "iqdb.s")) as file:
                found.append(len(fence.findall(file.read())))
        assert found[0] > 0 and found[1] == 0, "fences and locked instructions: %d with threads, %d without" % tuple(found)


def no_libc_needs_no_header_of_it():
    """Only those that a compiler brings along: stdbool.h, stddef.h, stdint.h."""
    command = compiler("CC", "cc")
    own = must(command + ["-print-file-name=include"]).strip()
    with tempfile.TemporaryDirectory() as folder:
        implement(folder, command + ["-std=c99"], ["IQDB_NO_LIBC", "IQDB_NO_SIMD"],
                  more=["-ffreestanding", "-nostdinc", "-isystem", own])


def the_list_is_whole():
    """As `make check` finds the switches; IQDB_FAST_FP takes nothing away."""
    sys.path.insert(0, os.path.join(ROOT, "tools"))
    import check
    assert set(check.switches()) - {"IQDB_FAST_FP"} == set(ALL), check.switches()


def tests():
    yield the_list_is_whole
    yield the_system_is_there_otherwise
    yield no_threads_is_without_atomics
    yield no_libc_needs_no_header_of_it
    for which, dialect in COMPILERS:
        for chosen in [[]] + [[name] for name in ALL] + [ALL]:
            label = " ".join(chosen) if len(chosen) < 2 else "all together"
            yield "%s %s: %s" % (which[0], dialect[-1], label or "no switch"), smoke(which, dialect, chosen)


if __name__ == "__main__":
    main("compile/switches", list(tests()))
