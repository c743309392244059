#!/usr/bin/env python3
"""The Makefile keeps its word, on a small copy of the house: staleness, help, install, and what it says when it
cannot do a thing."""
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, main, must  # noqa: E402

API = """#ifndef IQDB_H
#define IQDB_H
#include <stddef.h>
#define IQDB_VERSION_MAJOR 0
#define IQDB_VERSION_MINOR 1
#define IQDB_VERSION_PATCH 0
extern int iqdb_sum(int a);
#endif
"""


class Copy:
    """The Makefile and the tools around a house of one file and one test."""

    def __enter__(self):
        self.root = tempfile.mkdtemp(prefix="iqdb-make-")
        for path in ("Makefile", "UNLICENSE", "tools/amalgamate.py", "tests/run.py", "tests/test.h"):
            os.makedirs(os.path.dirname(os.path.join(self.root, path)), exist_ok=True)
            shutil.copy(os.path.join(ROOT, path), os.path.join(self.root, path))
        self.write("src/api.h", API)
        self.write("src/base/feature.h", "")
        self.write("src/db/sum.c", '#include "api.h"\nint iqdb_sum(int a) { return a + 1; }\n')
        self.write("tests/api/test_sum.c", '#include <iqdb.h>\n#include "test.h"\n'
                   "static void sum(void) { CHECK_EQ_INT(iqdb_sum(1), 2); }\nTEST_MAIN(\"api/sum\", TEST(sum))\n")
        must([sys.executable, os.path.join(self.root, "tools", "amalgamate.py")])
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.root)

    def write(self, path, text):
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w") as file:
            file.write(text)

    def make(self, *arguments, **environment):
        clean = {name: value for name, value in os.environ.items()
                 if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "BUILD", "IQDB_DATA")}
        done = subprocess.run(["make", "PYTHON=" + sys.executable] + list(arguments), cwd=self.root,
                              env=dict(clean, **environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.returncode, done.stdout.decode()


def test_passes_and_then_sees_each_change():
    with Copy() as copy:
        status, output = copy.make("test", "VARIANTS=c99 static")
        assert status == 0 and output.endswith("3 passed, 0 failed\n"), output
        # The implementation changes: first the header is stale, then the tests see it in every build.
        copy.write("src/db/sum.c", '#include "api.h"\nint iqdb_sum(int a) { return a + 2; }\n')
        status, output = copy.make("test", "VARIANTS=c99 static")
        assert status != 0 and "iqdb.h is stale" in output and "make header" in output, output
        status, output = copy.make("header")
        assert status == 0, output
        status, output = copy.make("test", "VARIANTS=c99 static")
        assert status != 0 and "\n0 passed, 3 failed\n" in output, output


def test_fails_on_an_edit_of_the_header():
    with Copy() as copy:
        with open(os.path.join(copy.root, "iqdb.h"), "a") as file:
            file.write("/* mine */\n")
        status, output = copy.make("test")
        assert status != 0 and "edited by hand" in output, output


def test_skips_a_missing_compiler_and_says_so():
    with Copy() as copy:
        status, output = copy.make("test", "VARIANTS=c99 cxx11", "CXX=no-such-compiler")
        assert status == 0 and "skipped: iqdb.h as cxx11" in output and output.endswith("2 passed, 0 failed\n"), output


def flags_are_honoured():
    with Copy() as copy:
        status, output = copy.make("test", "VARIANTS=c99", "CFLAGS=-DEXTRA=3", "LDFLAGS=-Wl,--as-needed", "V=1")
        assert status == 0, output
        compiles = [line for line in output.split("\n") if " -c src/" in line or " -c build/single" in line]
        assert len(compiles) == 2 and all("-DEXTRA=3" in line for line in compiles), output
        assert "--as-needed" in output


def help_lists_what_there_is():
    with Copy() as copy:
        status, output = copy.make("help")
        assert status == 0, output
        for target in ("help", "demo", "iqdb", "iqdb-import", "header", "test", "test-full", "check", "install", "clean"):
            assert "  make %s " % target in output, (target, output)
        assert "bench" not in output and "fuzz " not in output, "help names what is not there:\n" + output
        assert not os.path.exists(os.path.join(copy.root, "build")), "help has built something"


def a_plain_make_builds_the_command():
    with Copy() as copy:
        copy.write("tools/iqdb.c", '#include "iqdb.h"\nint main(void) { return 7; }\n')
        status, output = copy.make()
        assert status == 0, output
        assert subprocess.run([os.path.join(copy.root, "build", "iqdb")]).returncode == 7


def install_and_clean():
    with Copy() as copy:
        copy.write("build/x", "")
        for path in ("tools/iqdb.1", "tools/iqdb.bash", "tools/cmake/iqdbConfig.cmake"):
            copy.write(path, path)
        copy.write("tools/iqdb.c", '#include <stdio.h>\nint main(void) { return puts("iqdb 0.1.0") < 0; }\n')
        copy.write("tools/import/iqdb-import.c", "int main(void) { return 0; }\n")
        status, output = copy.make("install", "DESTDIR=" + copy.root + "/stage", "PREFIX=/opt")
        assert status == 0, output
        with open(copy.root + "/stage/opt/include/iqdb.h") as one, open(copy.root + "/iqdb.h") as two:
            assert one.read() == two.read()
        assert must([copy.root + "/stage/opt/bin/iqdb"]) == "iqdb 0.1.0\n"
        must([copy.root + "/stage/opt/bin/iqdb-import"])
        with open(copy.root + "/stage/opt/share/man/man1/iqdb.1") as manual:
            assert manual.read() == "tools/iqdb.1"
        assert os.path.exists(copy.root + "/stage/opt/share/bash-completion/completions/iqdb")
        assert os.path.exists(copy.root + "/stage/opt/share/cmake/iqdb/iqdbConfig.cmake")
        with open(copy.root + "/stage/opt/share/pkgconfig/iqdb.pc") as package:
            text = package.read()
        assert "Version: 0.1.0\n" in text and "Cflags: -I/opt/include -pthread\n" in text, text
        assert copy.make("clean")[0] == 0 and not os.path.exists(copy.root + "/build")


def missing_tools_are_named():
    with Copy() as copy:
        for target in ("demo", "test"):
            status, output = copy.make(target, "CC=no-such-compiler")
            assert status != 0 and "No C compiler named 'no-such-compiler'" in output, output
        status, output = copy.make("test", "PYTHON=no-such-python")
        assert status != 0 and "No 'no-such-python'" in output, output


def unreadable_data_is_an_error():
    with Copy() as copy:
        status, output = copy.make("test", "VARIANTS=c99", IQDB_DATA=copy.root + "/nowhere")
        assert status != 0 and "IQDB_DATA" in output and "nowhere" in output, output
        status, output = copy.make("test", "VARIANTS=c99", IQDB_DATA=copy.root)
        assert status == 0, output


if __name__ == "__main__":
    main("tools/make", [
        test_passes_and_then_sees_each_change, test_fails_on_an_edit_of_the_header,
        test_skips_a_missing_compiler_and_says_so, flags_are_honoured, help_lists_what_there_is,
        a_plain_make_builds_the_command, install_and_clean,
        missing_tools_are_named, unreadable_data_is_an_error])
