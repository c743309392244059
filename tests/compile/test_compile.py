#!/usr/bin/env python3
"""iqdb.h in the ways people include it: one case per line, each compiled, linked and run without a warning."""
import itertools
import os
import platform
import re
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, Skip, compiler, main, must, run  # noqa: E402

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
USERS_WARNINGS = ["-Wundef", "-Wshadow", "-Wconversion", "-Wsign-conversion", "-Wcast-qual", "-Wdouble-promotion",
                  "-Wwrite-strings", "-Wvla"]
REMEDY = "include iqdb.h with IQDB_IMPLEMENTATION before all other headers, or compile with -D_GNU_SOURCE"
IMPLEMENT = '#define IQDB_IMPLEMENTATION\n#include "iqdb.h"\n'
DECLARE = '#include "iqdb.h"\n'
# Reaches into the implementation, so that a missing one does not link.
USE = ("int main(void) { return iqdb_version() == IQDB_VERSION && iqdb_strerror(IQDB_ERR_NOMEM)[0] != 0 ? 0 : 1; }\n")
OTHER = "int other(void); int other(void) { return iqdb_version() == IQDB_VERSION ? 0 : 1; }\n"
USE_OTHER = "int other(void);\nint main(void) { return iqdb_version() == IQDB_VERSION ? other() : 1; }\n"
# For this warning gcc looks lines up in its file again and again, a third of its time. One case of each language does.
LINES = ["-Wno-misleading-indentation"]
CASES, OBJECTS, LOCKS = [], {}, {}
SHARED, NUMBERS = tempfile.TemporaryDirectory(), itertools.count()
# To compile at -O3 takes ten times as long as without: but for the long tier, -O2 of the commands and benches has to do.
LEVELS = ["-Os", "-O3"] if os.environ.get("IQDB_TEST_TIER") == "long" else ["-Os"]
CC, CXX, CLANG, CLANGXX = ("CC", "cc"), ("CXX", "c++"), ("CLANG", "clang-19"), ("CLANGXX", "clang++-19")


def tool(which, *flags):
    """The compiler with its language: what a .c file is for g++ is said once, here."""
    return compiler(*which) + (["-x", "c++"] if which in (CXX, CLANGXX) else []) + list(flags)


def build_object(command, text):
    """(exit status, output, path of the object); what several cases want alike is compiled once."""
    key = (tuple(command), text)
    with LOCKS.setdefault(key, threading.Lock()):
        if key not in OBJECTS:
            path = os.path.join(SHARED.name, "unit%d" % next(NUMBERS))
            with open(path + ".c", "w") as file:
                file.write(text)
            warnings = WARNINGS + ([] if "-Wundef" in command else LINES)
            status, output = run(command + warnings + ["-I", ROOT, "-pthread", "-c", path + ".c", "-o", path + ".o"])
            OBJECTS[key] = status, output, path + ".o"
        return OBJECTS[key]


def build(folder, units, command, link=True):
    """Compiles each text of `units` by itself, by `command` or, where that is a list of commands, by the one in its
    place; (exit status, output) of the first that fails, or of the program."""
    objects = []
    for index, text in enumerate(units):
        status, output, path = build_object(command[index] if isinstance(command[0], list) else command, text)
        if status != 0:
            return status, output
        objects.append(path)
    if not link:
        return 0, ""
    linker = command[-1] if isinstance(command[0], list) else command
    must(linker + ["-x", "none"] + objects + ["-pthread", "-lm", "-o", os.path.join(folder, "program")])
    return run([os.path.join(folder, "program")], cwd=folder)


def case(name, which, flags, *units, link=True):
    def test():
        with tempfile.TemporaryDirectory() as folder:
            status, output = build(folder, units, tool(which, *flags), link)
            assert status == 0, output
    CASES.append((name, test))


def language(which):
    return "c++" if which in (CXX, CLANGXX) else "c"


# ---- how often, and in how many units ----
for which, flag in ((CC, "-std=gnu99"), (CXX, "-std=c++11")):
    name = " (%s)" % language(which)
    case("two lines" + name, which, [flag], IMPLEMENT + USE)
    case("include twice" + name, which, [flag], DECLARE + DECLARE + USE, IMPLEMENT)
    case("declare, then implement" + name, which, [flag], DECLARE + IMPLEMENT + USE)
    case("implement twice in a unit" + name, which, [flag],
         IMPLEMENT + DECLARE + "#undef IQDB_IMPLEMENTATION\n" + IMPLEMENT + USE)
    case("implement, then declare" + name, which, [flag], IMPLEMENT + "#undef IQDB_IMPLEMENTATION\n" + DECLARE + USE)
    case("two units, one implementation" + name, which, [flag], IMPLEMENT + OTHER, DECLARE + USE_OTHER)
    case("two static units" + name, which, [flag], "#define IQDB_STATIC\n" + IMPLEMENT + OTHER,
         "#define IQDB_STATIC\n" + IMPLEMENT + USE_OTHER)
    case("a static unit beside a public one" + name, which, [flag], "#define IQDB_STATIC\n" + IMPLEMENT + OTHER,
         DECLARE + USE_OTHER, IMPLEMENT)


def implement_in_c_use_in_cxx():
    with tempfile.TemporaryDirectory() as folder:
        units = [IMPLEMENT, DECLARE + "int other(void) { return 0; }\n" + USE_OTHER]
        status, output = build(folder, units, [tool(CC, "-std=c99"), tool(CXX, "-std=c++11")])
        assert status == 0, output


CASES.append(("implemented as C, used as C++", implement_in_c_use_in_cxx))

# ---- dialects, and flags people build with ----
for which, flags in ((CC, ["-std=c99"]), (CC, ["-std=c11"]), (CC, ["-std=c2x"]),
                     *((CC, ["-std=c99", level]) for level in LEVELS), (CC, ["-std=c99", "-fno-strict-aliasing", "-funsigned-char"]),
                     (CC, ["-std=c99", *USERS_WARNINGS]), (CXX, ["-std=c++11", *USERS_WARNINGS]),
                     (CLANG, ["-std=c99"]), (CLANG, ["-std=c2x"]), (CXX, ["-std=c++11"]), (CXX, ["-std=c++20"]),
                     (CXX, ["-std=c++11", "-fno-exceptions", "-fno-rtti"]), (CLANGXX, ["-std=c++11"]),
                     (CLANGXX, ["-std=c++23"])):
    case(" ".join([which[0]] + flags), which, flags, IMPLEMENT + USE)


def with_v3(which, flag, optimized):
    def test():
        if platform.machine() not in ("x86_64", "AMD64"):
            raise Skip("not an x86-64")
        with tempfile.TemporaryDirectory() as folder:  # not run: this machine may be older
            status, output = build(folder, [IMPLEMENT + USE], tool(which, flag, "-march=x86-64-v3", optimized), link=False)
            assert status == 0, output
    CASES.append(("%s %s -march=x86-64-v3" % (which[0], flag), test))


for which in (CC, CLANG, CXX, CLANGXX):
    with_v3(which, "-std=c99" if language(which) == "c" else "-std=c++11", "-O1" if which is CC else "-O0")

# ---- IQDB_FAST_FP: sums in any order, so scores are close to those of double precision, and no more is promised ----
FAST = "#include <math.h>\n#include <stdio.h>\n" + IMPLEMENT + """
enum { DIM = 100, ROWS = 400, QUERIES = 5 };
static float vectors[ROWS + QUERIES][DIM];
static double exact(int metric, const float *a, const float *b) {
    double sum = 0, aa = 0, bb = 0;
    for (int i = 0; i < DIM; i++) {
        const double x = (double)a[i], y = (double)b[i];
        sum += metric == IQDB_L2 ? (x - y) * (x - y) : metric == IQDB_L1 ? fabs(x - y) : x * y;
        aa += x * x;
        bb += y * y;
    }
    return metric == IQDB_L2 ? sqrt(sum) : metric == IQDB_L1 ? sum : metric == IQDB_DOT ? -sum : 1 - sum / sqrt(aa * bb);
}
int main(void) {
    uint32_t state = 1;
    iqdb *db = NULL;
    int wrong = iqdb_open_in_memory(NULL, &db) != IQDB_OK;
    for (int row = 0; row < ROWS + QUERIES; row++)
        for (int i = 0; i < DIM; i++) vectors[row][i] = (float)((state = state * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1.0f;
    for (int row = 0; row < ROWS; row++) {
        iqdb_record record = iqdb_record_default();
        record.id = (uint64_t)row;
        record.vector = vectors[row];
        record.dim = DIM;
        wrong += iqdb_upsert(db, &record) != IQDB_OK;
    }
    for (int metric = IQDB_L2; metric <= IQDB_L1; metric++) {
        static iqdb_hit hits[QUERIES * ROWS];
        size_t counts[QUERIES];
        iqdb_query query = iqdb_query_default();
        query.k = ROWS;
        query.metric = (iqdb_metric)metric;
        wrong += iqdb_search_batch(db, &query, vectors[ROWS], QUERIES, hits, counts) != IQDB_OK;
        for (int q = 0; q < QUERIES; q++) {
            wrong += counts[q] != ROWS;
            for (int i = 0; i < ROWS; i++) {
                const iqdb_hit *hit = &hits[q * ROWS + i];
                float alone = 0;
                const double score = exact(metric, vectors[ROWS + q], vectors[hit->id]);
                wrong += fabs((double)hit->score - score) > 2e-5 * (1 + fabs(score));
                wrong += i > 0 && hit->score < hit[-1].score;
                wrong += iqdb_distance((iqdb_metric)metric, vectors[ROWS + q], vectors[hit->id], DIM, &alone) != IQDB_OK;
                wrong += fabs((double)alone - score) > 2e-5 * (1 + fabs(score));
            }
        }
    }
    wrong += iqdb_close(db) != IQDB_OK;
    if (wrong) printf("%d wrong\\n", wrong);
    return wrong != 0;
}
"""
for which, flags in ((CC, ["-std=gnu99", "-O2"]), (CLANG, ["-std=gnu11", "-O1"]), (CXX, ["-std=c++11", "-O0"])):
    case("IQDB_FAST_FP (%s)" % which[0], which, [*flags, "-DIQDB_FAST_FP"], FAST)

# ---- what else is in the unit ----
MACROS = """#include <stdlib.h>
static void *hostile_malloc(size_t size) { return malloc(size); }
static void hostile_free(void *memory) { free(memory); }
#define malloc(size) hostile_malloc(size)
#define free(memory) hostile_free(memory)
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define near
#define far
#define small char
#define hyper double
#define interface struct
#define IN
#define OUT
#define ERROR 0
#define TRUE 1
#define FALSE 0
"""
AFTER = """
#if defined(IQ_FN) || defined(IQ_INLINE) || defined(IQ_ASSERT) || !defined(IQDB_H)
#error "a macro of the inside is left"
#endif
int main(void) {
    hostile_free(hostile_malloc(1));
    return iqdb_version() == IQDB_VERSION && min(1, 2) == 1 && max(1, 2) == 2 ? TRUE - 1 : 1;
}
"""
for which, flag in ((CC, "-std=gnu99"), (CXX, "-std=c++11")):
    case("after hostile macros, declared (%s)" % language(which), which, [flag], MACROS + DECLARE + AFTER, IMPLEMENT)
    case("after hostile macros, implemented (%s)" % language(which), which, [flag], MACROS + IMPLEMENT + AFTER)
    case("allocator by macro (%s)" % language(which), which, [flag],
         "#include <stdlib.h>\n#define IQDB_MALLOC(size) malloc(size)\n#define IQDB_FREE(memory) free(memory)\n"
         + IMPLEMENT + USE)

# ---- feature macros: the implementation needs more than ISO C, and asks for it before the first system header ----
case("strict C99, iqdb.h first", CC, ["-std=c99"], IMPLEMENT + "#include <stdio.h>\n" + USE)
case("<stdio.h> first, gnu99", CC, ["-std=gnu99"], "#include <stdio.h>\n" + IMPLEMENT + USE)
case("<stdio.h> first, C99 with -D_POSIX_C_SOURCE", CC, ["-std=c99", "-D_POSIX_C_SOURCE=200809L"],
     "#include <stdio.h>\n" + IMPLEMENT + USE)
case("<stdio.h> first, C99 with -D_GNU_SOURCE", CC, ["-std=c99", "-D_GNU_SOURCE"],
     "#include <stdio.h>\n" + IMPLEMENT + USE)
case("<stdio.h> first, C++11", CXX, ["-std=c++11"], "#include <stdio.h>\n" + IMPLEMENT + USE)


case("the declarations alone set no feature macro", CC, ["-std=c99"],
     DECLARE + "#ifdef _GNU_SOURCE\n#error feature macro\n#endif\n" + USE, IMPLEMENT)


def works_or_names_the_remedy(name, text):
    def test():
        with tempfile.TemporaryDirectory() as folder:
            status, output = build(folder, [text], tool(CC, "-std=c99"))
            assert status == 0 or REMEDY in output, output
    CASES.append((name + ", strict C99: works or names the remedy", test))


works_or_names_the_remedy("<stdio.h> first", "#include <stdio.h>\n" + IMPLEMENT + USE)
works_or_names_the_remedy("declare, then implement", DECLARE + IMPLEMENT + USE)


# ---- linkage ----
def exports_by_request():
    with tempfile.TemporaryDirectory() as folder:
        source, library = os.path.join(folder, "iqdb.c"), os.path.join(folder, "libiqdb.so")
        with open(source, "w") as file:
            file.write(IMPLEMENT)
        must(tool(CC, "-std=c99", "-shared", "-fPIC", "-fvisibility=hidden", "-I", ROOT,
                  '-DIQDB_API=__attribute__((visibility("default")))', source, "-pthread", "-lm", "-o", library))
        names = re.findall(r" [TDBR] (\w+)", must(["nm", "-D", "--defined-only", library]))
        assert "iqdb_version" in names and all(name.startswith("iqdb_") for name in names), names


CASES.append(("a shared library that exports iqdb_* by IQDB_API", exports_by_request))


if __name__ == "__main__":
    main("compile", CASES)
