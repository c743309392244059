#!/usr/bin/env python3
"""tools/check.py sees what it is there to see: a small clean house passes, and each planted fault is named."""
import os
import re
import shutil
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, Skip, main, must, run  # noqa: E402

API = """/* The manual. */
#ifndef IQDB_H
#define IQDB_H
#include <stddef.h>
#define IQDB_VERSION_MAJOR 0
#define IQDB_VERSION_MINOR 1
#define IQDB_VERSION_PATCH 0
#ifndef IQDB_API
#if defined(IQDB_STATIC)
#define IQDB_API static __attribute__((unused))
#else
#define IQDB_API extern
#endif
#endif
#ifdef __cplusplus
extern "C" {
#endif
IQDB_API int iqdb_sum(int a);
/* more API */
#ifdef __cplusplus
}
#endif
#endif
"""
CONFIG = """#ifndef IQ_BASE_CONFIG_H
#define IQ_BASE_CONFIG_H
#include "api.h"
#if defined(IQDB_MODULES)
#define IQ_FN
#else
#define IQ_FN static __attribute__((unused))
#endif
#endif
"""
DB = """#include "base/config.h"

static const int iq_db_table[2] = {1, 2};
IQDB_API int iqdb_sum(int a) { return a + iq_db_table[a & 1]; }
/* more code */
"""


COMMAND = """\
#include "iqdb.h"

int main(void) { return 0; }
/* more command */
"""


def verdict(pick, api="", code="", head="", command=""):
    """(exit status, output) of the checks whose names contain `pick`, on a house with these lines put in."""
    with tempfile.TemporaryDirectory() as root:
        for folder in ("tools", "tests", "src/base", "src/db"):
            os.makedirs(os.path.join(root, folder))
        for path in ("tools/check.py", "tools/amalgamate.py", "tests/harness.py", "UNLICENSE", "src/base/feature.h"):
            shutil.copy(os.path.join(ROOT, path), os.path.join(root, path))
        for path, text in (("src/api.h", API.replace("/* more API */", api)), ("src/base/config.h", CONFIG),
                           ("src/db/db.c", DB.replace("\n\n", "\n" + head + "\n", 1).replace("/* more code */", code)),
                           ("tools/iqdb.c", COMMAND.replace("/* more command */", command))):
            with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                file.write(text)
        must([sys.executable, os.path.join(root, "tools", "amalgamate.py")])
        return run([sys.executable, os.path.join(root, "tools", "check.py")] + ([pick] if pick else []))


def a_clean_house_passes():
    status, output = verdict("")
    assert status == 0 and ", 0 failed" in output, output


def fault(pick, wanted, **planted):
    def test():
        status, output = verdict(pick, **planted)
        if re.search(r": 0 passed, 0 failed, \d+ skipped$", output.rstrip()):
            raise Skip("no compiler for it")
        assert status == 1 and wanted in output, output
    return "%s names %s" % (pick, wanted), test


FRAME = "IQDB_API int iqdb_big(int a) { volatile char big[5000]; big[a] = 1; return big[a]; }"
FAULTS = [
    fault("object: only", "exported: foreign", code="int foreign(void); int foreign(void) { return 1; }"),
    fault("object: IQDB_STATIC", "exported: foreign", code="int foreign(void); int foreign(void) { return 1; }"),
    fault("object: no global", "iq_db_state", code="static int iq_db_state;\nIQDB_API int iqdb_next(void) "
          "{ return iq_db_state++; }", api="IQDB_API int iqdb_next(void);"),
    fault("object: no global", "kept", code="IQDB_API int iqdb_next(void) { static int kept = 3; return kept++; }",
          api="IQDB_API int iqdb_next(void);"),
    fault("object: nothing forbidden", "called: abort", head="#include <stdlib.h>\n",
          code="IQDB_API void iqdb_stop(void) { abort(); }", api="IQDB_API void iqdb_stop(void);"),
    fault("macros", "left behind: IQ_LOUD", api="#define IQ_LOUD 1"),
    fault("warnings: CC", "frame size", code=FRAME, api="IQDB_API int iqdb_big(int a);"),
    fault("warnings: CC", "variable length array", api="IQDB_API int iqdb_vla(int a);",
          code="IQDB_API int iqdb_vla(int a) { char b[a]; b[0] = 1; return b[0]; }"),
    fault("warnings: CC", "conversion", api="IQDB_API int iqdb_narrow(long a);",
          code="IQDB_API int iqdb_narrow(long a) { return a; }"),
    fault("warnings: CC", "IQ_NOT_DEFINED", head="#if IQ_NOT_DEFINED\n#endif\n"),
    fault("warnings: CC modules", "no previous prototype", code="int iq_db_more(void) { return 1; }"),
    fault("warnings: CC tools/iqdb.c", "unused", command="static int nobody(void) { return 1; }"),
    fault("warnings: CXX", "error: ", code="IQ_FN int *iq_db_cast(void *p) { return p; }"),
    fault("-Weverything", "error: ", api="#define iqdb_twice(x) ((x) * 2)\nIQDB_API int iqdb__reserved(int);\n"
          "static int iqdb_unused(int a) { return (char)a; }"),
    fault("switches", "error: ", head="#if defined(IQDB_NO_SUM)\n#error no sum\n#endif\n"),
    fault("house: system headers", "src/db/db.c includes <unistd.h>", head="#include <unistd.h>\n"),
    fault("house: plain", "src/db/db.c:5: U+2014", code="/* a \u2014 b */"),
]

if __name__ == "__main__":
    main("tools/check", [a_clean_house_passes] + FAULTS)
