#!/usr/bin/env python3
"""Everything about the source that needs no running program: one line per check, counts at the end.

Compilers come from $CC, $CXX, $CLANG and $CLANGXX; a check whose compiler is missing is skipped. An argument picks
checks by substring. The line budgets and notes at the top are guides and fail nothing.
"""
import glob
import itertools
import os
import re
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests"))
from harness import ROOT, Skip, compiler, main, must, run  # noqa: E402

BUDGETS = {"api.h": 800, "base": 700, "sys": 1200, "codec": 1500, "kernel": 2300, "store": 1500, "persist": 2200,
           "index": 3300, "db": 1500}
HEADER_LINES = 23725
FILE_LINES = 1000
FRAME_BYTES = 4096

WARNINGS = ["-Werror", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow",
            "-Wcast-qual", "-Wcast-align", "-Wundef", "-Wvla", "-Wframe-larger-than=%d" % FRAME_BYTES]
C_WARNINGS = ["-Wc++-compat", "-Wstrict-prototypes", "-Wmissing-prototypes"]
C, CXX = [("CC", "cc"), ("CLANG", "clang-19")], [("CXX", "c++"), ("CLANGXX", "clang++-19")]

# What the implementation may not call: output, the end of the process, the environment, hidden state, threads.
FORBIDDEN = re.compile(r"^_*(v?[fsdn]*printf|puts|fputs|putchar|putc|perror|fopen|fread|fwrite|abort|exit|quick_exit"
                       r"|assert_fail|assert_rtn|getenv|secure_getenv|setenv|rand|srand|random|srandom|longjmp|setjmp"
                       r"|signal|sigaction|atexit|setlocale|strtok|localtime|gmtime|pthread_create|pthread_key_create"
                       r"|tls_get_addr|emutls_get_address|alloca|system|popen|dlopen)(_chk)?$")
# Beside the ISO headers of everyone: sys/ may include what the OS has, kernel/ what the instruction sets need.
ISO_HEADERS = {"stdbool.h", "stddef.h", "stdint.h", "string.h", "limits.h", "float.h", "math.h", "stdlib.h"}
SIMD_HEADERS = re.compile(r"^(\w*intrin|arm_neon|arm_acle|wasm_simd128|cpuid)\.h$")
LEFT_ALONE = {"_GNU_SOURCE", "_DARWIN_C_SOURCE", "_FILE_OFFSET_BITS", "WIN32_LEAN_AND_MEAN", "NOMINMAX"}  # base/feature.h says why


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def source_files():
    found = []
    for folder, _, names in os.walk(os.path.join(ROOT, "src")):
        found += [os.path.relpath(os.path.join(folder, name), ROOT).replace(os.sep, "/") for name in names
                  if name.endswith((".c", ".h"))]
    return sorted(found)


SOURCES = source_files()


def implementation(folder):
    """A source file as users write it: the two lines."""
    path = os.path.join(folder, "iqdb.c")
    with open(path, "w") as file:
        file.write('#define IQDB_IMPLEMENTATION\n#include "iqdb.h"\n')
    return path


def compile_header(which, flags):
    with tempfile.TemporaryDirectory() as folder:
        source = implementation(folder)
        must(compiler(*which) + flags + ["-pthread", "-I", ROOT, "-c", source, "-o", os.path.join(folder, "iqdb.o")])


# ---- warnings ----
# What shows only where a compiler optimises, frames included, it shows in iqdb.h, which is the same text.
PLAIN_WARNINGS = [flag for flag in WARNINGS if not flag.startswith("-Wframe")]


def warnings_in_modules(which, folder):
    flags = ["-std=c99", "-O0", "-DIQDB_MODULES", "-pthread", "-Isrc", "-include", "src/base/feature.h"]
    command, bad = compiler(*which), []
    with tempfile.TemporaryDirectory() as out:
        for path in SOURCES:
            if path.startswith("src/%s/" % folder) and path.endswith(".c"):
                status, output = run(command + flags + PLAIN_WARNINGS + C_WARNINGS +
                                     ["-c", path, "-o", os.path.join(out, "x.o")], cwd=ROOT)
                bad += [output] if status else []
    assert not bad, "".join(bad)


def warnings_in_command(which, source):
    with tempfile.TemporaryDirectory() as folder:
        must(compiler(*which) + ["-std=gnu99", "-O1"] + PLAIN_WARNINGS + C_WARNINGS
             + ["-pthread", "-I", ROOT, "-c", os.path.join(ROOT, source), "-o", os.path.join(folder, "x.o")])


def public_part(which, language, dialect):
    """What every includer sees is silent under all that clang knows, but for padding."""
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "user.c")
        with open(source, "w") as file:
            file.write('#include "iqdb.h"\n')
        must(compiler(*which) + ["-x", language, "-std=" + dialect, "-Werror", "-Weverything", "-Wno-padded",
                                 "-fsyntax-only", "-I", ROOT, source])


# ---- switches ----
def switches():
    names = set()
    for path in SOURCES:
        for line in read(path).replace("\\\n", " ").split("\n"):
            if re.match(r"\s*#\s*(if|elif|ifdef|ifndef)\b", line):
                names.update(re.findall(r"\bIQDB_(?:NO_\w+|READONLY|SMALL|FAST_FP)\b", line))
    return sorted(names)


# ---- the object ----
SYMBOLS, LOCKS = {}, {}


def symbols(*flags):
    """Of the object, which is compiled once for all who ask."""
    with LOCKS.setdefault(flags, threading.Lock()):
        if flags not in SYMBOLS:
            SYMBOLS[flags] = read_symbols(flags)
        return SYMBOLS[flags]


def read_symbols(flags):
    with tempfile.TemporaryDirectory() as folder:
        source, made = implementation(folder), os.path.join(folder, "iqdb.o")
        # Without position independence, for there constant tables of pointers count as writable.
        must(compiler("CC", "cc") + ["-std=c99", "-O2", "-fno-pic", "-fno-pie", "-pthread", "-I", ROOT, "-c", source,
                                     "-o", made] + list(flags))
        rows = [line.split() for line in must(compiler("NM", "nm") + [made]).split("\n") if line]
    return [(row[-2], row[-1]) for row in rows]


def only_iqdb_is_exported():
    names = [name for kind, name in symbols() if (kind.isupper() or kind in "uvw") and kind not in "Uw"]
    assert names, "no symbol at all"
    foreign = [name for name in names if not name.startswith("iqdb_")]
    assert not foreign, "exported: " + " ".join(foreign)


def static_exports_nothing():
    names = [name for kind, name in symbols("-DIQDB_STATIC") if kind.isupper() and kind != "U"]
    assert not names, "exported: " + " ".join(names)


def no_writable_data():
    names = [name for kind, name in symbols() if kind in "bBdDCsSgG"]
    assert not names, "globals that can be written: " + " ".join(names)


def nothing_forbidden_is_called():
    names = [name for kind, name in symbols() if kind == "U" and FORBIDDEN.match(name)]
    assert not names, "called: " + " ".join(names)


def no_macro_leaks():
    with tempfile.TemporaryDirectory() as folder:
        text = must(compiler("CC", "cc") + ["-std=c99", "-E", "-dD", "-I", ROOT, implementation(folder)])
    ours, inside = set(), False
    for line in text.split("\n"):
        marker = re.match(r'# \d+ "([^"]*)"', line)
        define, undef = re.match(r"#define (\w+)", line), re.match(r"#undef (\w+)", line)
        if marker:
            inside = os.path.basename(marker.group(1)) == "iqdb.h"
        elif define and inside:
            ours.add(define.group(1))
        elif undef:
            ours.discard(undef.group(1))
    leaked = sorted(name for name in ours if not name.startswith("IQDB_") and name not in LEFT_ALONE)
    assert "IQDB_IMPLEMENTED" in ours and not leaked, "left behind: " + " ".join(leaked)


# ---- house rules ----
def headers_where_they_belong():
    bad = []
    for path in SOURCES:
        folder = path.split("/")[1]
        for name in re.findall(r"^\s*#\s*include\s*<([^>]+)>", read(path), re.M):
            simd = SIMD_HEADERS.match(name) and (folder == "kernel" or path == "src/base/config.h")
            if folder != "sys" and name not in ISO_HEADERS and not simd:
                bad.append("%s includes <%s>" % (path, name))
    assert not bad, "only sys/ talks to the OS, only kernel/ to an instruction set:\n" + "\n".join(bad)


def plain_text():
    """ASCII, because compilers that take source for another code page warn, or swallow the end of a comment."""
    bad = []
    for path in SOURCES:
        for number, line in enumerate(read(path).split("\n"), 1):
            odd = re.search(r"[^ -~]", line)
            if odd or line != line.rstrip():
                bad.append("%s:%d: %s" % (path, number, "U+%04X" % ord(odd.group()) if odd else "space at the end"))
    assert not bad, "\n".join(bad)


def header_size():
    lines = read("iqdb.h").count("\n")
    assert lines <= HEADER_LINES, "iqdb.h has %d lines, the bar is %d" % (lines, HEADER_LINES)


# ---- guides ----
def print_guides():
    print("  %-8s %7s %7s" % ("layer", "lines", "budget"))
    total = 0
    for layer, budget in BUDGETS.items():
        lines = sum(read(path).count("\n") for path in SOURCES
                    if path == "src/" + layer or path.startswith("src/%s/" % layer))
        total += lines
        print("  %-8s %7d %7d%s" % (layer, lines, budget, "   over budget" if lines > budget else ""))
    print("  %-8s %7d %7d" % ("iqdb.h", read("iqdb.h").count("\n"), HEADER_LINES))
    for path in SOURCES:
        lines = read(path).count("\n")
        if lines > FILE_LINES and path != "src/api.h":
            print("  note: %s has %d lines, the guide is %d" % (path, lines, FILE_LINES))
    try:
        formatter = compiler("CLANG_FORMAT", "clang-format-14")
    except Skip:
        return
    done = subprocess.run(formatter + ["--dry-run"] + SOURCES, cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    files = sorted(set(re.findall(r"^(src/\S+?):\d+", done.stdout.decode(), re.M)))
    if files:
        print("  note: `make format` would change " + " ".join(files))


def checks():
    yield "house: system headers where they belong", headers_where_they_belong
    yield "house: plain text", plain_text
    yield "house: size of iqdb.h", header_size
    folders = sorted({path.split("/")[1] for path in SOURCES if path.endswith(".c")})
    for which in C:
        for folder in folders:
            yield "warnings: %s modules of %s/" % (which[0], folder), \
                lambda which=which, folder=folder: warnings_in_modules(which, folder)
        for source in sorted(os.path.relpath(path, ROOT) for path in glob.glob(ROOT + "/tools/**/*.c", recursive=True)):
            yield "warnings: %s %s" % (which[0], source), lambda which=which, source=source: warnings_in_command(which, source)
    for compilers, flags, dialects in ((C, C_WARNINGS, ("c99", "c11")), (CXX, [], ("c++11", "c++20"))):
        for which in compilers:
            for dialect in dialects:
                # What a compiler finds while it optimises, frames included, it finds in either standard of a language.
                whole = dialect == dialects[0]
                warnings = WARNINGS if whole else PLAIN_WARNINGS
                language = ["-x", "c++" if compilers is CXX else "c", "-std=" + dialect, "-O2" if whole else "-O0"]
                yield "warnings: %s iqdb.h as %s" % (which[0], dialect), \
                    lambda which=which, all=language + warnings + flags: compile_header(which, all)
    for which, language, dialect in ((C[1], "c", "c99"), (C[1], "c", "c11"), (CXX[1], "c++", "c++11"),
                                     (CXX[1], "c++", "c++20")):
        yield "warnings: -Weverything on the public part as " + dialect, \
            lambda which=which, language=language, dialect=dialect: public_part(which, language, dialect)
    names = switches()
    pairs = [list(pair) for pair in itertools.combinations(names, 2)] if len(names) > 2 else []
    for chosen in [[name] for name in names] + pairs + ([names] if len(names) > 1 else []):
        label = " and ".join(chosen) if len(chosen) <= 2 else "all together"
        flags = ["-Wall", "-Wextra", "-Wpedantic", "-Wundef", "-Werror"] + ["-D" + name for name in chosen]
        # The first compiler builds each alone, and all together, in tests/compile/test_switches.py.
        for which, language in zip(C[1:] + CXX, (["-std=c99", "-O0"], *2 * (["-x", "c++", "-std=c++11", "-O0"],))):
            if chosen not in pairs or which == CXX[1]:
                look = ["-fsyntax-only"] if chosen in pairs else []
                yield "switches: %s, %s as %s" % (label, which[0], language[-2][5:]), \
                    lambda which=which, all=language + flags + look: compile_header(which, all)
    yield "object: only iqdb_* is exported", only_iqdb_is_exported
    yield "object: IQDB_STATIC exports nothing", static_exports_nothing
    yield "object: no global can be written", no_writable_data
    yield "object: nothing forbidden is called", nothing_forbidden_is_called
    yield "macros: none leaks", no_macro_leaks


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print_guides()
    main("check", list(checks()))
