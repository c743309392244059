#!/usr/bin/env python3
"""README.md and the manual say nothing that does not compile, and name no file that is not there.

The program at the top of the README and the one at the top of src/api.h (the two are the same) are compiled with iqdb.h
as C99 and as C++11 and run twice in an empty directory: once the database is made, once it is found. Every other block
of C in the README is compiled in both languages too: a function that a block begins with stands at file scope, the rest
of the block inside a function.
"""
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, compiler, main, must  # noqa: E402

LANGUAGES = (("C99", ("CC", "cc"), ["-std=c99"]), ("C++11", ("CXX", "c++"), ["-x", "c++", "-std=c++11"]))
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
OUTPUT = "cat 0.000\ndog 0.091\n"
UNIT = '#define IQDB_IMPLEMENTATION\n#include "iqdb.h"\n'
# What the snippets take for granted; they may declare names of their own over these.
ASSUMED = """#include "iqdb.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
extern iqdb *db;
extern const float *vector, *vectors;
extern uint64_t id;
"""
# Files of a database and files that building makes.
NOT_FILES = ("build/",)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def blocks(language):
    return re.findall(r"^```%s\n(.*?)^```$" % language, read("README.md"), re.M | re.S)


def program_of_readme():
    programs = [block for block in blocks("c") if "int main(" in block]
    assert len(programs) == 1, "README.md has %d programs" % len(programs)
    return programs[0]


def program_of_manual():
    found = re.search(r"^ \*   (#(?:define|include).*\n(?: \*.*\n)*? \*   int main.*\n(?: \*.*\n)*? \*   }\n)",
                      read("src/api.h").split("#ifndef IQDB_H")[0].split("as a program")[1], re.M)
    assert found, "the manual in src/api.h does not open with a program"
    return re.sub(r"^ \*(   )?", "", found.group(1), flags=re.M)


def standard(text, dialect):
    """Strict C asks for iqdb.h before other headers; a program in another order is for the GNU dialect."""
    late = text.index("iqdb.h") > (text + "#include <").index("#include <")
    return [flag.replace("=c99", "=gnu99") for flag in dialect] if late else dialect


def program(text, which, dialect):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "hello.c")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        must(compiler(*which) + standard(text, dialect) + WARNINGS
             + ["-I", ROOT, path, "-o", path[:-2], "-pthread"])
        for _ in ("made", "found"):
            output = must([path[:-2]], cwd=folder)
            assert output == OUTPUT, "expected:\n%s\nprinted:\n%s" % (OUTPUT, output)
        assert sorted(os.listdir(folder)) == ["hello", "hello-db", "hello.c"], os.listdir(folder)


def same_program():
    def essence(text):
        return sorted(re.findall(r"^#.*$", text, re.M)), re.sub(r"^#.*\n|^\n", "", text, flags=re.M)
    readme, manual = essence(program_of_readme()), essence(program_of_manual())
    assert readme == manual, "the programs of README.md and src/api.h differ:\n%s\n%s" % (readme[1], manual[1])


def output_is_shown():
    assert OUTPUT in blocks("text"), "README.md does not show what its program prints"


def demo_prints_what_is_shown():
    excerpt = [block for block in blocks("text") if block != OUTPUT]
    assert len(excerpt) == 1, excerpt
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "demo")
        must(compiler("CC", "cc") + ["-std=gnu99", "-O1", "-I", ROOT, os.path.join(ROOT, "examples", "demo.c"),
                                     "-o", path, "-pthread"])
        output = must([path, os.path.join(ROOT, "examples", "data"), path + "-db"]).split("\n")
    missing = [line for line in excerpt[0].split("\n") if line not in output]
    assert not missing, "README.md shows what the demo does not print:\n%s" % "\n".join(missing)


def snippets(which, dialect):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "snippets.c")
        with open(path, "w", encoding="utf-8") as file:
            file.write(ASSUMED)
            for number, block in enumerate(blocks("c")):
                if "int main(" in block or "IQDB_IMPLEMENTATION" in block:
                    continue
                at = block.index("\n}\n") + 3 if block.startswith("static ") else 0
                file.write("%s\nvoid snippet_%d(void);\nvoid snippet_%d(void) {\n%s}\n"
                           % (block[:at], number, number, block[at:]))
        must(compiler(*which) + dialect + WARNINGS + ["-Wno-unused", "-I", ROOT, "-c", path, "-o", path + ".o"])


def two_line_unit(which, dialect):
    """The unit that the README recommends, compiled by the command it shows."""
    units = [block for block in blocks("c") if "IQDB_IMPLEMENTATION" in block and "int main(" not in block]
    assert units == [UNIT], units
    with tempfile.TemporaryDirectory() as folder:
        app = program_of_readme().replace("#define IQDB_IMPLEMENTATION\n", "")
        for name, text in (("iqdb.c", UNIT), ("app.c", app)):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        assert "cc app.c iqdb.c -pthread" in read("README.md")
        must(compiler(*which) + dialect + ["-I", ROOT, "app.c", "iqdb.c", "-pthread", "-o", "app"], cwd=folder)
        assert must([os.path.join(folder, "app")], cwd=folder) == OUTPUT


# Each command that a reader is shown, and what runs it.
COMMANDS = {
    "make demo": ".ci/run",
    "make test": ".ci/run",
    "cc app.c iqdb.c -pthread": "tests/compile/test_readme.py",
    "make iqdb": "tests/compile/test_readme.py",
    "build/iqdb import vectors.db vectors.npy --metric cosine": "tests/cli/test_newcomer.py",
    "build/iqdb query vectors.db --id 0 -k 5": "tests/cli/test_newcomer.py",
    "make iqdb-import": "tests/compile/test_readme.py",
    "pip install ./examples/python": "tests/python/test_python.py",
    "cc -shared -fPIC -O2 -I. examples/sqlite/iqdb_sqlite.c -pthread -o iqdb.so": "tests/sqlite/test_sqlite.py",
    "make redis": "tests/compile/test_readme.py",
    "redis-server --loadmodule ./build/iqdb-redis.so": "tests/redis/servers.py",
}


def each_command_is_run():
    shown = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    assert sorted(shown) == sorted(COMMANDS), set(shown) ^ set(COMMANDS)
    assert all(os.path.exists(os.path.join(ROOT, path)) for path in COMMANDS.values()), COMMANDS
    targets = [line.split()[1] for line, path in COMMANDS.items() if path == "tests/compile/test_readme.py" and "make" in line]
    with tempfile.TemporaryDirectory() as folder:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        for target, made in zip(targets, ("iqdb", "iqdb-import", "iqdb-redis.so")):
            done = subprocess.run(["make", "-s", target, "CFLAGS=-O0", "BUILD=" + folder], cwd=ROOT, env=clean,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            assert done.returncode == 0 and os.path.exists(os.path.join(folder, made)), done.stdout.decode()


def named_files_exist():
    text = read("README.md")
    named = set(re.findall(r"`((?:src|tests|examples|tools|bench|build)/[\w./*-]*)`", text))
    named |= {link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link}
    missing = [name for name in sorted(named) if not name.startswith(NOT_FILES)
               and not os.path.exists(os.path.join(ROOT, name))]
    assert named and not missing, "README.md names what is not there: %s" % ", ".join(missing)


def named_functions_exist():
    known = set(re.findall(r"\b(?:iqdb|IQDB)_\w+", read("src/api.h")))
    # Switches of the implementation are read in src/, not declared in api.h; the SQL table brings functions of its own.
    for top, pattern in (("src", r"\bIQDB_\w+"), ("examples/sqlite", r"\biqdb_\w+")):
        for folder, _, names in os.walk(os.path.join(ROOT, top)):
            for name in names:
                known |= set(re.findall(pattern, read(os.path.join(folder, name))))
    unknown = sorted(name for name in set(re.findall(r"\b(?:iqdb|IQDB)_\w+", read("README.md"))) - known
                     if not name.endswith("_"))
    assert not unknown, "README.md names what does not exist: %s" % ", ".join(unknown)


def platforms_are_those_of_the_matrix():
    """make portability's own: matrix.py README.md makes it of the committed table, of all rows."""
    sys.path.insert(0, os.path.join(ROOT, "tests", "portability"))
    import matrix
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        assert "<!-- table.txt -->\n%s\n<!-- end -->" % matrix.readme_table() in file.read(), "matrix.py README.md mends it"


def tests():
    for language, which, dialect in LANGUAGES:
        yield "README's program as " + language, lambda w=which, d=dialect: program(program_of_readme(), w, d)
        yield "manual's program as " + language, lambda w=which, d=dialect: program(program_of_manual(), w, d)
        yield "README's snippets as " + language, lambda w=which, d=dialect: snippets(w, d)
        yield "README's two files as " + language, lambda w=which, d=dialect: two_line_unit(w, d)
    yield "the two programs are one", same_program
    yield "the README shows the output", output_is_shown
    yield "the demo prints what the README shows", demo_prints_what_is_shown
    yield "commands in the README", each_command_is_run
    yield "files named in the README", named_files_exist
    yield "functions named in the README", named_functions_exist
    yield "platforms in the README", platforms_are_those_of_the_matrix


if __name__ == "__main__":
    main("compile/readme", list(tests()))
