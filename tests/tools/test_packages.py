#!/usr/bin/env python3
"""A project of somebody else finds iqdb: by pkg-config, by CMake's find_package once it is installed, and by CMake's
FetchContent from a checkout. Each way builds the two files that README shows and runs them."""
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, Skip, compiler, main, must, run  # noqa: E402

APP = """#include <iqdb.h>
int main(void) {
    iqdb *db = NULL;
    return iqdb_open_in_memory(NULL, &db) == IQDB_OK && iqdb_close(db) == IQDB_OK ? 0 : 1;
}
"""
IMPLEMENTATION = '#define IQDB_IMPLEMENTATION\n#include "iqdb.h"\n'
PROJECT = """cmake_minimum_required(VERSION 3.13)
project(app LANGUAGES C)
%s
add_executable(app app.c iqdb.c)
target_link_libraries(app PRIVATE iqdb::iqdb)
"""


def need(program):
    if shutil.which(program) is None:
        raise Skip("there is no %s here" % program)


class Project:
    """The folder of an application, and beside it a prefix to install to."""

    def __enter__(self):
        self.root = tempfile.mkdtemp(prefix="iqdb-package-")
        self.prefix = os.path.join(self.root, "prefix")
        for name, text in (("app.c", APP), ("iqdb.c", IMPLEMENTATION)):
            self.write(name, text)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.root)

    def write(self, name, text):
        with open(os.path.join(self.root, name), "w") as file:
            file.write(text)

    def install(self):
        must(["make", "-s", "-C", ROOT, "install", "CFLAGS=-O0", "PREFIX=" + self.prefix,
              "BUILD=" + os.path.join(self.root, "made")])

    def configure(self, how, *options):
        self.write("CMakeLists.txt", PROJECT % how)
        return run(["cmake", "-S", self.root, "-B", os.path.join(self.root, "out")] + list(options))

    def build_and_run(self):
        must(["cmake", "--build", os.path.join(self.root, "out")])
        must([os.path.join(self.root, "out", "app")])


def pkg_config():
    need("pkg-config")
    with Project() as project:
        project.install()
        found = os.path.join(project.prefix, "share", "pkgconfig")
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "iqdb"], stdout=subprocess.PIPE, check=True,
                               env=dict(os.environ, PKG_CONFIG_PATH=found)).stdout.decode().split()
        must(compiler("CC", "cc") + ["app.c", "iqdb.c", "-o", "app"] + flags, cwd=project.root)
        must([os.path.join(project.root, "app")])


def cmake_find_package():
    need("cmake")
    with Project() as project:
        project.install()
        where = "-DCMAKE_PREFIX_PATH=" + project.prefix
        for wanted in ("0.1", "0.1.0 EXACT", "0"):
            status, output = project.configure("find_package(iqdb %s REQUIRED)" % wanted, where)
            assert status == 0, output
        project.build_and_run()
        for refused in ("0.0", "0.2", "0.1.999", "1"):
            status, output = project.configure("find_package(iqdb %s REQUIRED)" % refused, where)
            assert status != 0 and "version" in output, "accepted %s:\n%s" % (refused, output)


def cmake_says_what_is_missing():
    need("cmake")
    with Project() as project:
        project.install()
        os.remove(os.path.join(project.prefix, "include", "iqdb.h"))
        status, output = project.configure("find_package(iqdb REQUIRED)", "-DCMAKE_PREFIX_PATH=" + project.prefix)
        assert status != 0 and "there is no iqdb.h above" in output, output


def cmake_fetch_content():
    need("cmake")
    with Project() as project:
        status, output = project.configure(
            "include(FetchContent)\n"
            "FetchContent_Declare(iqdb SOURCE_DIR %s SOURCE_SUBDIR tools/cmake)\nFetchContent_MakeAvailable(iqdb)" % ROOT)
        if status != 0 and "Unknown CMake command \"FetchContent_MakeAvailable\"" in output:
            raise Skip("this cmake is older than SOURCE_SUBDIR")
        assert status == 0, output
        project.build_and_run()


if __name__ == "__main__":
    main("tools/packages", [pkg_config, cmake_find_package, cmake_says_what_is_missing, cmake_fetch_content])
