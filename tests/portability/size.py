#!/usr/bin/env python3
"""What iqdb.h costs where memory is short: bytes of code for each set of features, and of stack for each call. Everything
is compiled with -Os. `whole` is the object of all public functions; `linked` what is left of it in a program that opens
and searches (the smaller sets), or also writes, when functions are sections of their own and the linker drops unused
ones. Neither counts the C library, nor a compiler's own functions for arithmetic that a processor has not got.

    size.py            print the tables; exit 1 where a limit at the top of this file is passed
    size.py --readme   put them into README.md, between its two marks
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
M4 = "-mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16"
# name: (prefix of its tools, flags)
MACHINES = {"x86-64": ("", "-fno-pic"), "aarch64": ("aarch64-linux-gnu-", "-fno-pic"), "Cortex-M4": ("arm-none-eabi-", M4)}
MEMORY = "-DIQDB_SMALL -DIQDB_NO_FILES -DIQDB_NO_TEXT -DIQDB_NO_THREADS"
BARE = "-DIQDB_NO_LIBC"  # where there is no system
# name: (switches, the program that uses it, is there one without a system)
SETS = {
    "everything": ("", "writer"),
    "no text": ("-DIQDB_NO_TEXT", "writer"),
    "memory and blobs": (MEMORY, "writer"),
    "memory and blobs, no filters": (MEMORY + " -DIQDB_NO_FILTERS", "writer"),
    "blobs, for reading": (MEMORY + " -DIQDB_READONLY", "reader"),
    "blobs, for reading, no filters": (MEMORY + " -DIQDB_READONLY -DIQDB_NO_FILTERS", "reader"),
}
# KiB on the Cortex-M4: the whole object, and what a program links.
LIMITS = {"memory and blobs": (41, 25.5), "memory and blobs, no filters": (37, 22), "blobs, for reading": (24, 15.5),
          "blobs, for reading, no filters": (20, 12)}
FRAME_MAX, READ_FRAME_MAX = 4096, 512
READ_CALLS = ("iqdb_search", "iqdb_search_batch", "iqdb_get", "iqdb_contains", "iqdb_count", "iqdb_iter_begin",
              "iqdb_iter_next", "iqdb_iter_end", "iqdb_cursor_open", "iqdb_cursor_step", "iqdb_payload_get")
OTHER_CALLS = ("iqdb_open_blob", "iqdb_close", "iqdb_open_in", "iqdb_upsert", "iqdb_delete", "iqdb_export_blob")
# The small build: what the frames are measured of. Nested filters keep their depth in a frame.
SMALL = BARE + " " + MEMORY + " -DIQDB_FILTER_DEPTH_MAX=16"
# Calls through pointers that are ours; those of the caller have frames of the caller's. Who, and whom.
POINTERS = ((r"iq_alloc|iq_free", r"iq_alloc_default_\w+|iq_arena_take\w*|iq_arena_give\w*|iq_arena_alloc|iq_arena_free"),
            (r"iq_flat_\w+|iq_vector_\w+|iqdb_distance", r"iq_scalar_(pair|scan)_of|iq_search_accept"),
            (r"iq_db_open", r"iq_blob_load|iq_fixed_settle"),
            (r"iq_snapshot_(flush|fetch\w*)", r"iq_export_write|iq_crc32"),
            (r"iq_snapshot_produce|iqdb_export_blob", r"iq_image_write"))

READER = """
    iqdb *db;
    if (iqdb_open_blob(bytes, size, options, &db) != IQDB_OK) return -1;
"""
WRITER = """
    iqdb *db;
    iqdb_field field;
    iqdb_record record = iqdb_record_default();
    bool removed;
    (void)iqdb_memory_required(options, 100, 1000);
    if (iqdb_open_in(bytes, size, options, &db) != IQDB_OK) return -1;
    field.key = "year";
    field.value = iqdb_int(2024);
    record.vector = vector;
    record.fields = &field;
    record.field_count = 1;
    if (iqdb_upsert(db, &record) != IQDB_OK || iqdb_delete(db, 7, &removed) != IQDB_OK) return -1;
"""
PROGRAM = """#include "iqdb.h"
int use(void *bytes, size_t size, const iqdb_options *options, const float *vector, iqdb_hit *hits);
int use(void *bytes, size_t size, const iqdb_options *options, const float *vector, iqdb_hit *hits) {
    size_t count = 0;
    iqdb_query query = iqdb_query_default();
%s
    query.vector = vector;
    query.k = 3;
    if (iqdb_search(db, &query, hits, &count) != IQDB_OK) return -1;
    return iqdb_close(db) == IQDB_OK ? (int)count : -1;
}
"""


def must(command, folder):
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        sys.exit("%s\n%s" % (" ".join(command), done.stdout.decode("utf-8", "replace")))
    return done.stdout.decode()


def sizes(prefix, made, folder):
    text, data, bss = must([prefix + "size", made], folder).split("\n")[1].split()[:3]
    return int(text), int(data), int(bss)


def compile_(prefix, flags, source, made, folder, more=""):
    gcc = (prefix or "") + "gcc"
    must([gcc, *("-std=c99 -Os -I%s %s -c %s -o %s %s" % (ROOT, flags, source, made, more)).split()], folder)


def measure(machine, switches, program, folder):
    """Bytes of text of the whole object and of what is linked. There must be neither data nor bss."""
    prefix, flags = MACHINES[machine]
    flags += " " + switches + (" " + BARE if prefix.startswith("arm-none") else "")
    with open(os.path.join(folder, "iqdb.c"), "w") as file:
        file.write('#define IQDB_IMPLEMENTATION\n#include "iqdb.h"\n')
    with open(os.path.join(folder, "use.c"), "w") as file:
        file.write(PROGRAM % (WRITER if program == "writer" else READER))
    sections = "-ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables"
    compile_(prefix, flags, "iqdb.c", "iqdb.o", folder, sections)
    compile_(prefix, flags, "use.c", "use.o", folder, sections)
    must([prefix + "ld", "-r", "--gc-sections", "-e", "use", "-u", "use", "iqdb.o", "use.o", "-o", "linked.o"], folder)
    whole, linked = sizes(prefix, "iqdb.o", folder), sizes(prefix, "linked.o", folder)
    if whole[1] or whole[2]:
        sys.exit("%s, %s: %d bytes of data and %d of bss, where there should be none" % (machine, switches, *whole[1:]))
    return whole[0], linked[0]


def call_graph(folder):
    """Frames by function, and whom each calls, of the small build on the Cortex-M4."""
    compile_("arm-none-eabi-", M4 + " " + SMALL, "iqdb.c", "small.o", folder, "-fcallgraph-info=su")
    frames, calls = {}, {}
    with open(os.path.join(folder, "small.ci")) as file:
        for line in file:
            node = re.match(r'node: \{ title: "(?:[^":]*:)?([^"]+)" label: "[^"]*\\n(\d+) bytes', line)
            edge = re.match(r'edge: \{ sourcename: "(?:[^":]*:)?([^"]+)" targetname: "(?:[^":]*:)?([^"]+)"', line)
            if node:
                frames[node.group(1)] = int(node.group(2))
            elif edge:
                calls.setdefault(edge.group(1), set()).add(edge.group(2))
    return frames, {name: calls.get(name, set()) for name in frames}


def bare(name):
    return name.split(".")[0]


def add_pointers(frames, calls):
    for name in frames:
        if "__indirect_call" in calls.get(name, ()):
            for caller, callee in POINTERS:
                if re.fullmatch(caller, bare(name)):
                    calls[name] |= {other for other in frames if re.fullmatch(callee, bare(other))}
        calls[name] = {other for other in calls.get(name, ()) if other in frames}


def deepest(frames, calls):
    """Bytes of stack below each function, and the first circle of calls, if there is one. Depth first, on a list."""
    below, circle, active = {}, None, set()
    for start in frames:
        path = [(start, iter(sorted(calls[start])))] if start not in below else []
        active.update(name for name, _ in path)
        while path:
            name, rest = path[-1]
            callee = next(rest, None)
            if callee is None:
                below[name] = frames[name] + max([below.get(other, 0) for other in calls[name]] or [0])
                active.discard(name)
                path.pop()
            elif callee in active:
                circle = circle or "%s calls %s, which leads to it" % (name, callee)
            elif callee not in below:
                active.add(callee)
                path.append((callee, iter(sorted(calls[callee]))))
    return below, circle


def reached(calls, starts):
    seen, waiting = set(), [name for name in calls if name in starts]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += calls[name]
    return seen


def main():
    parser = argparse.ArgumentParser(description="What iqdb.h costs in code and stack.")
    parser.add_argument("--readme", action="store_true", help="put the tables into README.md")
    arguments = parser.parse_args()
    there = [name for name in MACHINES if shutil.which(MACHINES[name][0] + "gcc")]
    for name in set(MACHINES) - set(there):
        print("skipped: %s (no %sgcc)" % (name, MACHINES[name][0]))
    bad, rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        for label, (switches, program) in SETS.items():
            cells = []
            for machine in there:
                found = measure(machine, switches, program, folder)
                cells += ["%.1f" % (size / 1024) for size in found]
                for size, limit, what in zip(found, LIMITS.get(label, (0, 0)), ("whole", "linked")):
                    if machine == "Cortex-M4" and limit and size > limit * 1024:
                        bad.append("%s, %s: %d bytes, %g KiB are allowed" % (label, what, size, limit))
            rows.append("| %s | %s |" % (label, " | ".join(cells)))
        head = ["| KiB of code | %s |" % " | ".join(n + suffix for n in there for suffix in ("", ", linked")),
                "|---%s|" % ("|---" * (2 * len(there)))]
        tables = "\n".join(head + rows)
        if "Cortex-M4" in there:
            frames, calls = call_graph(folder)
            add_pointers(frames, calls)
            below, circle = deepest(frames, calls)
            if circle:
                bad.append("recursion: " + circle)
            bad += ["%s has a frame of %d bytes" % (name, size) for name, size in frames.items() if size > FRAME_MAX]
            bad += ["%s, on the read path, has a frame of %d bytes" % (name, frames[name])
                    for name in sorted(reached(calls, READ_CALLS)) if frames[name] > READ_FRAME_MAX]
            tables += "\n\n| bytes of stack, Cortex-M4 | of the call | with all that it calls |\n|---|---|---|\n"
            tables += "\n".join("| `%s` | %d | %d |" % (name, frames[name], below[name])
                                for name in READ_CALLS + OTHER_CALLS if name in frames)
    print(tables)
    for line in bad:
        print("FAILED: " + line)
    if arguments.readme:
        path = os.path.join(ROOT, "README.md")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        with open(path, "w", encoding="utf-8") as file:
            file.write(re.sub(r"(<!-- make size -->\n).*?(\n<!-- end -->)", lambda m: m.group(1) + tables + m.group(2),
                              text, flags=re.S))
    print("size: %d passed, %d failed%s" % (1 if not bad else 0, len(bad), ", %d skipped" % (3 - len(there)) if len(there) < 3 else ""))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
