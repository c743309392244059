"""Whole commands from start to end: the demo, the examples and the command `iqdb`, as hyperfine sees them; and what an
import by the command costs beside the same writes in C."""
import ctypes
import glob
import json
import os
import re
import shlex
import shutil
import struct
import statistics
import subprocess
import time

from measures import Database, Vectors, expect, make_ids, records_of
from run import ROOT, Skip, first_error

SLOW = {"custom_index", "frame_budget", "io_uring", "jobs", "npc_memory", "recall"}  # without optimisation, or by syncs
AUTO, FLAT, EXACT = 0, 1, 0xFFFFFFFF  # of ours_use_index and ours_probe
BLOCK_BYTES, BLOCK_ROWS = 1 << 20, 4096  # of a batch of the command: see tools/rows.h


def compile_with(bench, arguments):
    """By the compiler of the bench, at the level of what is measured."""
    made = subprocess.run(bench.cc.split() + ["-std=gnu99", bench.size("-O2", "-O0"), *arguments],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return None if made.returncode == 0 else first_error(made.stdout.decode("utf-8", "replace"))


def must_compile(bench, name, arguments):
    error = compile_with(bench, arguments)
    if error:
        raise RuntimeError("%s: %s" % (name, error))


def implementation(bench):
    """What a program is compiled with that shares one object of the implementation, which takes longer to compile than all
    of them: an iqdb.h that leaves it to that object, and the object, made once in a run."""
    folder = os.path.join(bench.build, "shared")
    flags = ["-I" + folder, os.path.join(folder, "iqdb.o")]
    if "shared" not in bench.made:
        os.makedirs(folder, exist_ok=True)
        for name, text in (("iqdb.c", '#define IQDB_IMPLEMENTATION\n#include "%s"\n'),
                           ("iqdb.h", '#undef IQDB_IMPLEMENTATION\n#include "%s"\n')):
            with open(os.path.join(folder, name), "w") as file:
                file.write(text % os.path.join(ROOT, "iqdb.h"))
        must_compile(bench, "iqdb.h", ["-pthread", "-c", os.path.join(folder, "iqdb.c"), "-o", flags[1]])
        bench.made.add("shared")
    return flags


def command_line(bench):
    """The path of the command `iqdb`, built as the Makefile does, once in a run; quickly, where that is all that counts."""
    path = os.path.join(bench.build, "iqdb")
    if "iqdb" not in bench.made:
        must_compile(bench, "iqdb", [*(implementation(bench) if bench.quick else []), "-pthread", "-I" + ROOT,
                                     os.path.join(ROOT, "tools", "iqdb.c"), "-o", path, "-lm"])
        bench.made.add("iqdb")
    return path


def example(bench, folder, source):
    """The program of an example. Its first line may ask for libraries, as tests do: /* link: -lz */. Skip where they
    are missing."""
    with open(source, encoding="utf-8") as file:
        text = file.read()
    program, trial = os.path.splitext(os.path.join(folder, os.path.basename(source)))[0], os.path.join(folder, "trial.c")
    asked = re.match(r"/\* link: (.*) \*/\n", text)
    libraries = asked.group(1).split() if asked else []
    with open(trial, "w") as file:
        file.write("int main(void) { return 0; }\n")
    if libraries and compile_with(bench, [trial, "-o", trial[:-2], *libraries]):
        raise Skip("does not link with %s" % " ".join(libraries))
    own = re.search(r"#define IQDB_(?!IMPLEMENTATION)", text)  # a switch, so it has to have an implementation of its own
    if own and bench.quick:
        raise Skip("has switches of its own: a quick run does not compile all of iqdb.h once more")
    must_compile(bench, os.path.basename(source), [*([] if own else implementation(bench)), "-I" + ROOT, source, "-o",
                                                   program, "-pthread", "-lm", *libraries])
    return program


def by_hyperfine(bench, folder, name, command, before=()):
    """before: a command that is run ahead of each run, and not measured."""
    result = os.path.join(folder, "result.json")
    ran = subprocess.run(
        ["hyperfine", "--shell=none", "--style=none", "--warmup=%d" % bench.size(2, 0), "--runs=%d" % bench.size(20, 1),
         "--export-json=" + result, *(["--prepare=" + shlex.join(before)] if before else []), shlex.join(command)],
        cwd=folder, env=dict(os.environ, TMPDIR=folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if ran.returncode:
        raise RuntimeError("%s: %s" % (name, first_error(ran.stderr.decode("utf-8", "replace"))))
    with open(result) as file:
        bench.report("command %s" % name, json.load(file)["results"][0]["times"])


def write_fbin(vectors, path):
    with open(path, "wb") as file:
        file.write(struct.pack("<II", vectors.count, vectors.dim))
        file.write(ctypes.string_at(vectors.address, vectors.count * vectors.dim * 4))


def of_iqdb(bench, folder):
    """`iqdb import` into a new directory, and `iqdb query` of it."""
    vectors, program = Vectors(bench, 128, bench.size(10000, 500)), command_line(bench)
    rows, new, what = os.path.join(folder, "rows.fbin"), os.path.join(folder, "new.db"), "%d x 128" % vectors.count
    try:
        write_fbin(vectors, rows)
        by_hyperfine(bench, folder, "iqdb import, " + what, [program, "import", new, rows], ["rm", "-rf", new])
        by_hyperfine(bench, folder, "iqdb query, " + what, [program, "query", new, "--id", "17", "-k", "10"])
    finally:
        vectors.free()


def commands(bench):
    if not shutil.which("hyperfine"):
        raise Skip("hyperfine is not installed")
    folder = bench.scratch()
    try:
        for source in sorted(glob.glob(os.path.join(ROOT, "examples", "*.c"))):
            name = os.path.splitext(os.path.basename(source))[0]
            program = bench.optional("command " + name, lambda: example(bench, folder, source))
            if program and bench.quick and name in SLOW:
                bench.skip("command " + name, "takes seconds: a quick run only builds it")
            elif program:
                data = [os.path.join(ROOT, "examples", "data")] if name == "demo" else []
                by_hyperfine(bench, folder, name, [program] + data)
        of_iqdb(bench, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def imports(bench):
    """By the clock, `iqdb import` of a file into a new directory, from the start of the process to its end, beside nothing
    but the upserts of the same rows from memory, in batches as large, and their flush. Both make a new database each round,
    with the same options; with 100,000 rows both have lists."""
    ours, vectors, folder = bench.load("ours"), Vectors(bench, 128, bench.size(100000, 1000)), bench.scratch()
    program, batch = command_line(bench), min(BLOCK_BYTES // (4 * vectors.dim), BLOCK_ROWS)
    rows, ids = os.path.join(folder, "rows.fbin"), make_ids(bench, vectors.count, 0)
    paths = {name: os.path.join(folder, name) for name in ("command", "bulk")}
    records = records_of(vectors, ids)

    def command(number):
        shutil.rmtree(paths["command"], ignore_errors=True)
        start = time.perf_counter()
        done = subprocess.run([program, "import", paths["command"], rows, "--metric", "l2"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE)
        seconds = time.perf_counter() - start
        expect(done.returncode == 0, "iqdb import: %s" % done.stderr.decode("utf-8", "replace"))
        return seconds

    def bulk(number):
        shutil.rmtree(paths["bulk"], ignore_errors=True)
        start = time.perf_counter()
        database = Database(bench, paths["bulk"])
        seconds = bench.ok(ours.ours_write_and_flush(database.handle, ctypes.byref(records), vectors.count, batch))
        database.close()
        return {"bulk": seconds, "whole": time.perf_counter() - start}

    def hits(path):
        database = Database(bench, path)
        expect(database.count() == vectors.count, "rows are missing in %s" % path)
        found = database.hits(vectors.queries, vectors.query_count, vectors.dim)
        database.close()
        return found
    ours.ours_use_index(AUTO)
    try:
        write_fbin(vectors, rows)
        times = bench.race({"command": command, "bulk": bulk}, bench.size(9, 2))
        ours.ours_probe(EXACT)
        expect(hits(paths["command"]) == hits(paths["bulk"]), "the command stores other records")
        bench.report("CLI import / bulk upsert, %d x %d" % (vectors.count, vectors.dim), times["command"], times["bulk"],
                     bar=(">=", 0.7), note="batches of %d; with open and close, in C: %.3g ms" % (
                         batch, 1e3 * statistics.median(times["whole"])))
    finally:
        ours.ours_probe(0)
        ours.ours_use_index(FLAT)
        shutil.rmtree(folder, ignore_errors=True)
        vectors.free()
