#!/usr/bin/env python3
"""Every examples/x.c (or .cpp) compiles without a warning, runs, and prints what examples/expected/x.txt says.

A .c example is built as C and, where there is a compiler, as C++ too: the two share one text. Each run has an empty
directory of its own as working directory and as TMPDIR, which it must leave as empty as it was. Only the demo is given
an argument, the path of examples/data. An example without an expected text has only to succeed.
"""
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, compiler, main, must  # noqa: E402

FLAGS = ["-Wall", "-Wextra", "-Werror", "-pthread", "-I", ROOT]
EXAMPLES = os.path.join(ROOT, "examples")


def example(name, which, dialect):
    stem = os.path.splitext(name)[0]
    expected_path = os.path.join(EXAMPLES, "expected", stem + ".txt")

    def test():
        with tempfile.TemporaryDirectory() as folder:
            program, empty = os.path.join(folder, "program"), os.path.join(folder, "empty")
            os.mkdir(empty)
            must(compiler(*which) + dialect + FLAGS + [os.path.join(EXAMPLES, name), "-o", program, "-lm"])
            arguments = [os.path.join(EXAMPLES, "data")] if stem == "demo" else []
            output = must(["env", "TMPDIR=" + empty, program] + arguments, cwd=empty)
            assert not os.listdir(empty), "left behind: %s" % os.listdir(empty)
        if os.path.exists(expected_path):
            with open(expected_path, encoding="utf-8") as file:
                expected = file.read()
            assert output == expected, "expected:\n%s\nprinted:\n%s" % (expected, output)
    return "%s as %s" % (name, dialect[-1].split("=")[1]), test


def examples():
    names = sorted(os.listdir(EXAMPLES)) if os.path.isdir(EXAMPLES) else []
    for name in names:
        if name.endswith(".c"):
            yield example(name, ("CC", "cc"), ["-O1", "-std=gnu99"])
        if name.endswith((".c", ".cpp")):  # what is found while optimising was found in C
            level = "-O1" if name.endswith(".cpp") else "-O0"
            yield example(name, ("CXX", "c++"), [level, "-x", "c++", "-std=c++11"])


if __name__ == "__main__":
    main("examples", list(examples()))
