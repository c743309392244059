#!/usr/bin/env python3
"""tools/amalgamate.py on small houses of our own: what it accepts compiles, and each rule it names it enforces."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, compiler, main, must, run  # noqa: E402

TOOL = os.path.join(ROOT, "tools", "amalgamate.py")

API = """/* The manual.
 *   #define IQDB_IMPLEMENTATION
 *   #include "iqdb.h"
 */
#ifndef IQDB_H
#define IQDB_H
#include <stddef.h>
#define IQDB_VERSION_MAJOR 3
#define IQDB_VERSION_MINOR 20
#define IQDB_VERSION_PATCH 1
#ifdef __cplusplus
extern "C" {
#endif
extern int iqdb_sum(int a);
#ifdef __cplusplus
}
#endif
#endif
"""


def header(path, text):
    guard = "IQ_" + re.sub(r"\W", "_", path).upper()
    return "#ifndef %s\n#define %s\n%s#endif\n" % (guard, guard, text)


# A house that holds: two layers, a header with two implementing files, a header that comes by name after its user.
GOOD = {
    "UNLICENSE": "Free.\n",
    "src/api.h": API,
    "src/base/config.h": header("base/config.h", '#include "api.h"\n#define IQ_FN static\n#  define IQ_TWICE(x) \\\n'
                                                 "    ((x) * 2)\n"),
    "src/base/zeta.h": header("base/zeta.h", '#include "base/config.h" /* a remark */\nIQ_FN int iq_zeta(int a);\n'),
    "src/base/zeta.c": '#include "base/zeta.h"\n\n#include <string.h>\n\n'
                       "IQ_FN int iq_zeta(int a) { return IQ_TWICE(a); }\n",
    "src/base/alpha.h": header("base/alpha.h", '#include "base/zeta.h"\nIQ_FN int iq_alpha(int a);\n'),
    "src/base/alpha.c": '/* See:\n#include "nowhere/nothing.h"\n*/\n#include "base/alpha.h"\n#define LOCAL 1\n'
                        "IQ_FN int iq_alpha(int a) { return iq_zeta(a) + LOCAL; }\n#undef LOCAL\n",
    "src/sys/sys.h": header("sys/sys.h", '#include "base/config.h"\nIQ_FN int iq_sys_one(void);\n'
                                         "IQ_FN int iq_sys_two(void);\n"),
    "src/sys/one.c": '#include "sys/sys.h"\nIQ_FN int iq_sys_one(void) { return 1; }\n',
    "src/sys/two.c": '#include "sys/sys.h"\nIQ_FN int iq_sys_two(void) { return 1 + iq_sys_one(); }\n',
    "src/db/db.c": '#include "base/alpha.h"\n#include "sys/sys.h"\n'
                   "int iqdb_sum(int a) { return iq_alpha(a) + iq_sys_two(); }\n",
}


class House:
    """A throw-away tree made of GOOD and what a test changes; None removes a file."""

    def __init__(self, **changes):
        self.root = tempfile.mkdtemp(prefix="iqdb-house-")
        for path, text in dict(GOOD, **changes.get("files", {})).items():
            if text is not None:
                self.write(path, text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.root)

    def write(self, path, text):
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())

    def read(self, path="iqdb.h"):
        with open(os.path.join(self.root, path), "rb") as file:
            return file.read().decode()

    def tool(self, *arguments, **environment):
        done = subprocess.run([sys.executable, TOOL, "--root", self.root] + list(arguments), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, env=dict(os.environ, **environment))
        return done.returncode, done.stdout.decode()

    def make(self):
        status, output = self.tool()
        assert status == 0, output
        return self.read()


def refused(files, *wanted):
    """The tool must fail, give reason and cure, and say each of `wanted`."""
    with House(files=files) as house:
        status, output = house.tool()
        assert status == 1, "accepted: %r" % files
        for text in ("error: ", "why: ", "fix: ") + wanted:
            assert text in output, "%r is missing in:\n%s" % (text, output)
        assert "Traceback" not in output, output
        assert not os.path.exists(os.path.join(house.root, "iqdb.h")), "a broken house still gave a header"


def compiles_and_runs(variable, default, *flags):
    with House() as house:
        house.make()
        house.write("main.c", '#define IQDB_IMPLEMENTATION\n#include "iqdb.h"\n#include "iqdb.h"\n'
                              "int main(void) { return iqdb_sum(4) == 11 ? 0 : 1; }\n")
        must(compiler(variable, default) + list(flags) + ["-Wall", "-Wextra", "-Werror", "main.c", "-o", "main"],
             cwd=house.root)
        must([os.path.join(house.root, "main")])


def compiles_as_c():
    compiles_and_runs("CC", "cc", "-std=c99")


def compiles_as_cxx():
    compiles_and_runs("CXX", "c++", "-x", "c++", "-std=c++11")


def chapters_come_in_order():
    with House() as house:
        text = house.make()
        files = re.findall(r"^/\* =+ \[(.*)\] =+ \*/$", text, re.M)
        assert files == ["base/config.h", "base/zeta.h", "base/zeta.c", "base/alpha.h", "base/alpha.c", "sys/sys.h",
                         "sys/one.c", "sys/two.c", "db/db.c"], files
        listed = re.findall(r"\[(\w+/[\w.]+)\]", text[text.index("Chapters"):text.index("IQDB_IMPLEMENTED\n\n")])
        assert listed == files, listed


def output_is_as_promised():
    with House() as house:
        text = house.make()
        assert text.startswith("/* iqdb.h 3.20.1, generated from src/ by tools/amalgamate.py - do not edit")
        assert GOOD["src/api.h"] in text, "api.h is not verbatim"
        assert text.rstrip().endswith("Free.\n*/"), "the licence does not stand at the end"
        code = text[text.index("declarations end here"):]
        assert '#include "' not in re.sub(r"/\*.*?\*/", "", code, flags=re.S), "a quoted include is left"
        assert "#include <string.h>" in code, "a system include is gone"
        assert "#line" not in text and house.root not in text
        assert text.isascii() and "\r" not in text
        undefined = re.findall(r"^#undef (IQ_\w+)$", text, re.M)
        assert undefined == sorted(undefined)
        assert {"IQ_FN", "IQ_TWICE"} <= set(undefined), undefined
        assert "IQ_BASE_ZETA_H" not in text, "an include guard is left"


def chapters_of_tests_stay_out():
    files = {"src/sys/memory.h": header("sys/memory.h", '#include "base/config.h"\n#define IQ_LEFT 1\n'
                                                        "IQ_FN int iq_memory_one(void);\n"),
             "src/sys/memory.c": '#include "sys/memory.h"\nIQ_FN int iq_memory_one(void) { return IQ_LEFT; }\n'}
    with House(files=files) as house:
        text = house.make()
        assert "iq_memory_one" not in text and "IQ_LEFT" not in text and "sys/memory" not in text


def comments_on_lines_of_their_own_stay_behind():
    text = header("db/note.h", '#include "base/config.h"\n/* Alone. */\n/* Alone,\n * on two lines. */\n'
                               'typedef int iq_note; /* beside,\n                            on two lines */\n'
                               '/* before */ typedef int iq_other;\n// alone\n')
    code = ('#include "db/note.h"\nIQ_FN int iq_note_make(void) {\n    const char *z = "\\"/* text */\\\n";\n\n'
            "    /* hidden */\n    return z[0];\n}\n")
    with House(files={"src/db/note.h": text, "src/db/note.c": code}) as house:
        made = house.make()
        assert "Alone" not in made and "// alone" not in made and "hidden" not in made, made
        assert "/* beside,\n                            on two lines */\n/* before */ typedef" in made, made
        assert "\n\n    return" not in made, "an empty line is left"
        assert GOOD["src/api.h"] in made, "a comment of the manual is gone"
        status, output = house.tool("--line")
        assert status == 0 and "on two lines. */" in house.read("build/line/iqdb.h"), output


def prototypes_stay_where_they_are_needed():
    text = header("db/some.h", '#include "base/config.h"\nIQ_FN int iq_plain(int a,\n    int b); /* a remark\n on it */\n'
                               "IQ_FN int iq_early(void);\nIQ_FN int iq_cut(void);\n")
    code = ('#include "db/some.h"\nIQ_FN int iq_plain(int a,\n    int b) { return iq_early() + a + b; }\n'
            "IQ_FN int iq_early(void) { return 0 ? iq_cut() : 1; }\n#if 1\nIQ_FN int iq_cut(void) { return 2; }\n#endif\n")
    with House(files={"src/db/some.h": text, "src/db/some.c": code}) as house:
        made = house.make()
        assert "a remark" not in made and "on it" not in made and made.count("iq_plain") == 1, made
        assert "IQ_FN int iq_early(void);\nIQ_FN int iq_cut(void);\n" in made, made
        status, output = house.tool("--line")
        assert status == 0 and "a remark" in house.read("build/line/iqdb.h"), output


def no_macro_leaks():
    with House() as house:
        house.make()
        house.write("leak.c", '#define IQDB_IMPLEMENTATION\n#include "iqdb.h"\n')
        macros = must(compiler("CC", "cc") + ["-E", "-dM", os.path.join(house.root, "leak.c")])
        assert "IQDB_IMPLEMENTED" in macros
        assert not re.search(r"#define (IQ_|LOCAL)", macros), re.findall(r"#define (IQ_\w*|LOCAL)", macros)


def prologue_comes_first():
    with House(files={"src/base/feature.h": "#define _GNU_SOURCE 1\n"}) as house:
        text = house.make()
        assert text.index("#define _GNU_SOURCE") < text.index("#include <stddef.h>")
        assert text.count("#define _GNU_SOURCE") == 1 and "[base/feature.h]" not in text
        gate = text.index("#if defined(IQDB_IMPLEMENTATION)")
        assert gate < text.index("#define _GNU_SOURCE"), "users of the declarations get it too"


def same_bytes_everywhere():
    with House() as one, House() as two:
        for path in sorted(GOOD, reverse=True):  # another order of creation, another time
            two.write(path, GOOD[path])
            os.utime(os.path.join(two.root, path), (1, 1))
        one.make()
        status, output = two.tool(PYTHONHASHSEED="7", LC_ALL="C", TZ="Asia/Tokyo")
        assert status == 0, output
        assert one.read() == two.read()


def an_unchanged_header_keeps_its_time():
    with House() as house:
        house.make()
        path = os.path.join(house.root, "iqdb.h")
        os.utime(path, (1, 1))
        house.make()
        assert os.path.getmtime(path) == 1


def check_tells_stale_from_fresh():
    with House() as house:
        status, output = house.tool("--check")
        assert status == 1 and "missing" in output and "make header" in output, output
        house.make()
        assert house.tool("--check") == (0, "")
        house.write("src/db/db.c", GOOD["src/db/db.c"].replace("a)", "b)").replace("iq_alpha(a", "iq_alpha(b"))
        status, output = house.tool("--check")
        assert status == 1 and "src/ has changed" in output and "make header" in output, output


def check_sees_a_change_of_the_licence_and_the_version():
    for path, old, new in (("UNLICENSE", "Free", "Freer"), ("src/api.h", "MINOR 20", "MINOR 21")):
        with House() as house:
            house.make()
            house.write(path, GOOD[path].replace(old, new))
            assert house.tool("--check")[0] == 1, path


def check_names_an_edit_by_hand():
    with House() as house:
        text = house.make()
        house.write("iqdb.h", text.replace("return 1;", "return 2;"))
        status, output = house.tool("--check")
        assert status == 1 and "edited by hand" in output and "src/" in output, output


def line_copy_leads_back_to_src():
    with House(files={"src/sys/two.c": GOOD["src/sys/two.c"] + "\n\nint broken(void) { return nonsense; }\n"}) as house:
        status, output = house.tool("--line")
        assert status == 0, output
        house.write("main.c", '#define IQDB_IMPLEMENTATION\n#include "build/line/iqdb.h"\n')
        _, output = run(compiler("CC", "cc") + ["-fsyntax-only", os.path.join(house.root, "main.c")])
        assert "src/sys/two.c:5:" in output, output
        assert not os.path.exists(os.path.join(house.root, "iqdb.h"))


def refuses_cycles():
    # Among headers.
    refused({"src/base/zeta.h": header("base/zeta.h", '#include "base/alpha.h"\nIQ_FN int iq_zeta(int a);\n')},
            "circle", "base/alpha -> base/zeta -> base/alpha", "base/zeta.h includes base/alpha.h")
    # Among chapters whose files have none: alpha.h needs zeta.h, zeta.c needs alpha.h.
    refused({"src/base/zeta.c": '#include "base/zeta.h"\n#include "base/alpha.h"\n'
                                "IQ_FN int iq_zeta(int a) { return IQ_TWICE(a); }\n"},
            "circle", "base/zeta.c includes base/alpha.h")
    refused({"src/base/zeta.h": header("base/zeta.h", '#include "base/zeta.h"\nIQ_FN int iq_zeta(int a);\n')},
            "circle", "base/zeta.h includes base/zeta.h")


def refuses_upward_and_sideways_includes():
    refused({"src/base/zeta.c": GOOD["src/base/zeta.c"] + '#include "sys/sys.h"\n'},
            "src/base/zeta.c:6", "upward include", "base/ is layer 0, sys/ is layer 1")
    for one, other in (("codec", "kernel"), ("kernel", "codec"), ("store", "persist"), ("persist", "store")):
        refused({"src/%s/x.h" % other: header(other + "/x.h", '#include "base/config.h"\n'),
                 "src/%s/y.c" % one: '#include "%s/x.h"\n' % other},
                "src/%s/y.c:1" % one, "sideways include")


def refuses_what_leads_nowhere():
    refused({"src/db/db.c": GOOD["src/db/db.c"] + '#include "base/beta.h"\n'}, "leads nowhere", "src/db/db.c:4")
    refused({"src/db/db.c": GOOD["src/db/db.c"] + '#if 0\n#include "alpha.h"\n#endif\n'}, "leads nowhere")


def refuses_files_that_nobody_reaches():
    refused({"src/base/lone.h": header("base/lone.h", '#include "base/config.h"\n')},
            "src/base/lone.h is reached by no file")


def refuses_files_out_of_place():
    refused({"src/extra.c": "int x;\n"}, "src/extra.c has no place")
    refused({"src/util/extra.c": "int x;\n"}, "src/util/extra.c has no place")
    refused({"src/base/deep/extra.c": "int x;\n"}, "src/base/deep/extra.c has no place")
    refused({"src/base/extra.inc": "int x;\n"}, "src/base/extra.inc has no place")


def refuses_an_include_of_a_c_file():
    refused({"src/db/db.c": GOOD["src/db/db.c"] + '#include "base/alpha.c"\n'}, "takes in a .c file")


def refuses_more_in_the_line_of_an_include():
    refused({"src/db/db.c": GOOD["src/db/db.c"] + '#include "base/zeta.h" /* begins\n here */\n'},
            "something follows a quoted include")


def refuses_wrong_guards():
    refused({"src/base/alpha.h": GOOD["src/base/alpha.h"].replace("IQ_BASE_ALPHA_H", "IQ_BASE_ZETA_H")},
            "does not open with its include guard IQ_BASE_ALPHA_H")
    refused({"src/base/alpha.h": '#include "base/zeta.h"\nIQ_FN int iq_alpha(int a);\n'}, "include guard")


def refuses_macros_that_would_leak():
    refused({"src/base/alpha.c": GOOD["src/base/alpha.c"].replace("#undef LOCAL\n", "")}, "the macro LOCAL would leak")


def refuses_heavy_includes_in_the_public_part():
    refused({"src/api.h": API.replace("<stddef.h>", "<stdio.h>")}, "src/api.h:7", "includes stdio.h")
    refused({"src/api.h": API.replace("<stddef.h>", '"base/config.h"')}, "src/api.h:7", "base/config.h")


def refuses_odd_bytes():
    refused({"src/base/alpha.c": GOOD["src/base/alpha.c"].replace("\n", "\r\n")}, "carriage returns")
    refused({"src/base/alpha.c": b"\xef\xbb\xbf" + GOOD["src/base/alpha.c"].encode()}, "byte order mark")
    refused({"src/base/alpha.c": GOOD["src/base/alpha.c"].encode() + b"/* \xff */\n"}, "is not UTF-8")


def refuses_a_version_it_cannot_read():
    refused({"src/api.h": API.replace("MAJOR 3", "MAJOR (3)")}, "does not tell its version")


def reports_all_errors_at_once():
    refused({"src/base/lone.h": "int x;\n", "src/db/db.c": '#include "base/none.h"\n'},
            "leads nowhere", "include guard", "reached by no file")


if __name__ == "__main__":
    main("tools/amalgamate", [
        compiles_as_c, compiles_as_cxx, chapters_come_in_order, output_is_as_promised, chapters_of_tests_stay_out,
        comments_on_lines_of_their_own_stay_behind, prototypes_stay_where_they_are_needed, no_macro_leaks, prologue_comes_first, same_bytes_everywhere,
        an_unchanged_header_keeps_its_time, check_tells_stale_from_fresh,
        check_sees_a_change_of_the_licence_and_the_version, check_names_an_edit_by_hand, line_copy_leads_back_to_src,
        refuses_cycles, refuses_upward_and_sideways_includes, refuses_what_leads_nowhere,
        refuses_files_that_nobody_reaches, refuses_files_out_of_place, refuses_an_include_of_a_c_file,
        refuses_more_in_the_line_of_an_include, refuses_wrong_guards, refuses_macros_that_would_leak,
        refuses_heavy_includes_in_the_public_part, refuses_odd_bytes, refuses_a_version_it_cannot_read,
        reports_all_errors_at_once])
