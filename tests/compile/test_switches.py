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
from harness import ROOT, Skip, compiler, main, must, run  # noqa: E402

# Without a warning that is the same for all switches, seen by test_compile.py, and a third of gcc's time.
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wundef", "-Wno-misleading-indentation", "-Werror"]
SMOKE = os.path.join(ROOT, "tests", "compile", "smoke.c")
# What compilers call of their own accord, and what else is left.
OWN = {"memcpy", "memmove", "memset", "memcmp", "bcmp"}
STRINGS = {"memchr", "strlen", "strcmp", "strncmp", "strchr"}
MALLOC = {"malloc", "free"}
THREADS = {"pthread_mutex_init", "pthread_mutex_destroy", "pthread_mutex_lock", "pthread_mutex_unlock", "pthread_self",
           "pthread_cond_init", "pthread_cond_destroy", "pthread_cond_wait", "pthread_cond_broadcast", "sched_yield"}
PAGES = {"mmap", "mmap64", "munmap", "madvise"}
# What each switch leaves of these; the rest of the system is only there without IQDB_NO_OS.
LEAVES = {"IQDB_NO_OS": OWN | STRINGS | MALLOC | THREADS, "IQDB_NO_FILES": OWN | STRINGS | MALLOC | THREADS,
          "IQDB_NO_MALLOC": OWN | STRINGS | THREADS, "IQDB_NO_LIBC": OWN}
REMOVES = {"IQDB_NO_THREADS": THREADS, "IQDB_NO_MMAP": PAGES}
ALL = ["IQDB_NO_FILES", "IQDB_NO_FILTERS", "IQDB_NO_HNSW", "IQDB_NO_IVF", "IQDB_NO_LIBC", "IQDB_NO_MALLOC", "IQDB_NO_MMAP", "IQDB_NO_OS",
       "IQDB_NO_SIMD", "IQDB_NO_TEXT", "IQDB_NO_THREADS", "IQDB_READONLY", "IQDB_SMALL"]
# The public functions that a switch takes away; all others are there.
FILES = {"iqdb_open", "iqdb_backup", "iqdb_repair", "iqdb_inspect"}
AWAY = {"IQDB_NO_TEXT": {"iqdb_payload_to_json", "iqdb_payload_from_json", "iqdb_payload_parse", "iqdb_filter_parse",
                         "iqdb_filter_to_text", "iqdb_metric_name", "iqdb_element_name", "iqdb_index_name",
                         "iqdb_plan_name", "iqdb_type_name"},
        "IQDB_NO_FILES": FILES,
        "IQDB_NO_FILTERS": {"iqdb_eq", "iqdb_ne", "iqdb_lt", "iqdb_le", "iqdb_gt", "iqdb_ge", "iqdb_between", "iqdb_in",
                            "iqdb_prefix", "iqdb_exists", "iqdb_is_null", "iqdb_contains_value", "iqdb_and", "iqdb_or",
                            "iqdb_not", "iqdb_filter_default", "iqdb_filter_parse", "iqdb_filter_to_text"},
        "IQDB_SMALL": {"iqdb_collection", "iqdb_collection_drop", "iqdb_collection_names", "iqdb_reindex", "iqdb_tune",
                       "iqdb_measure_recall", "iqdb_index_alloc", "iqdb_index_free", "iqdb_index_retire", "iqdb_index_vector",
                       "iqdb_index_offer", "iqdb_index_write", "iqdb_index_place", "iqdb_index_read", "iqdb_index_restore"},
        "IQDB_READONLY": {"iqdb_open_in", "iqdb_memory_required", "iqdb_load_blob",
                          "iqdb_export_blob", "iqdb_backup", "iqdb_repair", "iqdb_upsert", "iqdb_upsert_batch", "iqdb_update_payload", "iqdb_delete",
                          "iqdb_delete_batch", "iqdb_delete_where", "iqdb_apply", "iqdb_op_default", "iqdb_reserve",
                          "iqdb_collection_drop", "iqdb_reindex"}}
SETS = [[]] + [[name] for name in ALL] + [ALL]
# What a switch leaves is a matter of the text; the second compiler shows that it is so for both languages.
COMPILERS = ((("CC", "cc"), ["-std=c99"], SETS), (("CLANGXX", "clang++-19"), ["-x", "c++", "-std=c++11"], [[], ALL]))


def implement(folder, command, switches, out="iqdb.o", more=()):
    source, made = os.path.join(folder, "iqdb.c"), os.path.join(folder, out)
    with open(source, "w") as file:
        file.write('#define IQDB_IMPLEMENTATION\n#include "iqdb.h"\n'
                   "#if defined(strlen) || defined(memmove)\n#error a name of the C library is left\n#endif\n")
    must(command + ["-O0", *WARNINGS, "-pthread", "-I", ROOT, *("-D" + name for name in switches), *more,
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
            gone = set().union(*(AWAY.get(name, set()) for name in switches))
            assert public(made) == declared() - gone, "defined: %s" % sorted(public(made) ^ (declared() - gone))
            must(command + ["-O0", *WARNINGS, "-I", ROOT, *("-D" + name for name in switches), SMOKE, "-x", "none",
                            made, "-pthread", "-o", program])
            if "IQDB_READONLY" in switches:
                make_blob(folder)
            must([program, " ".join(switches), os.path.join(folder, "blob")], cwd=folder)
    return test


def public(made):
    return {name.lstrip("_") for name in names(made, "--defined-only", "--extern-only")}


def declared():
    with open(os.path.join(ROOT, "src", "api.h")) as file:
        return set(re.findall(r"^IQDB_API [^;]*?\b(iqdb_\w+)\(", file.read(), re.M))


def make_blob(folder):
    """What a reader without write code is given."""
    command, writer = compiler("CC", "cc") + ["-std=c99"], os.path.join(folder, "writer")
    must(command + ["-O0", "-I", ROOT, SMOKE, implement(folder, command, [], "writer.o"), "-pthread", "-o", writer])
    os.mkdir(os.path.join(folder, "of-writer"))
    must([writer, "", os.path.join(folder, "blob")], cwd=os.path.join(folder, "of-writer"))


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


def a_file_of_configuration_comes_first():
    """It is read before the C library is asked for anything, by those who implement and by those who include."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "own.h"), "w") as file:
            file.write("#define IQDB_NO_FILES\n#define IQDB_NO_TEXT\n#define IQDB_FILTER_DEPTH_MAX 5\n")
        more = ["-I", folder, '-DIQDB_CONFIG_FILE="own.h"']
        made = implement(folder, compiler("CC", "cc") + ["-std=c99"], [], more=more)
        assert public(made) == declared() - FILES - AWAY["IQDB_NO_TEXT"]
        user = os.path.join(folder, "user.c")
        with open(user, "w") as file:
            file.write('#include "iqdb.h"\ntypedef char five[IQDB_FILTER_DEPTH_MAX == 5 ? 1 : -1];\n')
        must(compiler("CC", "cc") + ["-std=c99", "-I", ROOT, *more, "-c", user, "-o", os.path.join(folder, "user.o")])


def no_switch_changes_a_type():
    """So files that were compiled with other switches than the implementation's understand it."""
    with open(os.path.join(ROOT, "src", "api.h")) as file:
        types = sorted(set(re.findall(r"^\} (iqdb_\w+);|^struct (iqdb_field) \{", file.read(), re.M)))
    sizes = "".join("char size_of_%s[sizeof(%s)];\n" % (name, name) for name in map("".join, types))
    command, found = compiler("CC", "cc") + ["-std=c99", "-fno-common"], []
    with tempfile.TemporaryDirectory() as folder:
        user, made = os.path.join(folder, "user.c"), os.path.join(folder, "user.o")
        with open(user, "w") as file:
            file.write('#include "iqdb.h"\n' + sizes)
        for chosen in SETS:
            must(command + ["-I", ROOT, *("-D" + name for name in chosen), "-c", user, "-o", made])
            found.append(sorted(line.split()[1:] for line in must(compiler("NM", "nm") + ["-S", made]).split("\n") if line))
    assert len(found[0]) == len(types) > 15 and all(one == found[0] for one in found)


def who_calls_what_is_left_out_does_not_link():
    command = compiler("CC", "cc") + ["-std=c99"]
    with tempfile.TemporaryDirectory() as folder:
        made, user = implement(folder, command, ["IQDB_NO_FILES"]), os.path.join(folder, "user.c")
        with open(user, "w") as file:
            file.write('#include "iqdb.h"\nint main(void) {\n    iqdb *db;\n    return iqdb_open("x", 0, &db);\n}\n')
        status, said = run(command + ["-I", ROOT, user, made, "-pthread", "-o", os.path.join(folder, "user")])
        assert status != 0 and "iqdb_open" in said, said


def the_list_is_whole():
    """As `make check` finds the switches; IQDB_FAST_FP takes nothing away."""
    sys.path.insert(0, os.path.join(ROOT, "tools"))
    import check
    assert set(check.switches()) - {"IQDB_FAST_FP"} == set(ALL), check.switches()


def tests():
    yield the_list_is_whole
    yield a_file_of_configuration_comes_first
    yield no_switch_changes_a_type
    yield who_calls_what_is_left_out_does_not_link
    yield the_system_is_there_otherwise
    yield no_threads_is_without_atomics
    yield no_libc_needs_no_header_of_it
    for which, dialect, sets in COMPILERS:
        for chosen in sets:
            label = " ".join(chosen) if len(chosen) < 2 else "all together"
            yield "%s %s: %s" % (which[0], dialect[-1], label or "no switch"), smoke(which, dialect, chosen)


if __name__ == "__main__":
    main("compile/switches", list(tests()))
