"""The bindings in examples/: what Python costs beside C, and SQLite with this extension beside it with another."""
import os
import shutil
import subprocess
import sys
import time

from run import ROOT, Skip, first_error


def python_package(bench):
    """examples/python, built from a copy for the interpreter that runs the bench."""
    for needed in ("numpy", "cffi", "setuptools"):
        bench.module(needed)
    folder = os.path.join(bench.build, "python")
    copy, site = os.path.join(folder, "examples", "python"), os.path.join(folder, "site")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(os.path.join(ROOT, "examples", "python"), copy)
    shutil.copy(os.path.join(ROOT, "iqdb.h"), folder)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", site, "build_py", "--build-lib", site]
    made = subprocess.run(command, cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        raise Skip("the package does not build: %s" % first_error(made.stdout.decode("utf-8", "replace")))
    sys.path.insert(0, site)
    try:
        return bench.module("iqdb")
    finally:
        sys.path.remove(site)


def python(bench):
    """search_batch of the package against the same call in C, each over a handle of its own with the same rows."""
    from measures import K, Database, Vectors, expect, make_ids, numpy_view, records_of
    iqdb = python_package(bench)
    for dim, count in ((128, bench.size(100000, 2000)), (384, bench.size(50000, 2000))):
        vectors, ids = Vectors(bench, dim, count), make_ids(bench, count, 0)
        numpy_of, plain = numpy_view(bench, dim), Database(bench)
        plain.write(records_of(vectors, ids), 0, count)
        with iqdb.open_in_memory(metric="l2") as db:
            db.upsert_batch(list(ids), numpy_of(vectors.address, count))
            queries = numpy_of(vectors.queries, 64)
            expect(db.search_batch(queries, K).ids.ravel().tolist() == plain.hits(vectors.queries, 64, dim, as_batch=1),
                   "the package finds other neighbours")

            def from_python(number):
                start = time.perf_counter()
                db.search_batch(queries, K)
                return (time.perf_counter() - start) / 64
            times = bench.race({"c": lambda number: plain.search(vectors.queries, 64, dim, as_batch=1) / 64,
                                "python": from_python}, bench.size(15, 2))
            bench.report("Python search_batch of 64, d%d, %d rows / C" % (dim, count), times["python"], times["c"],
                         bar=(">=", 0.95), note="time per query")
        plain.close()
        vectors.free()


def sqlite(bench):
    """KNN through SQL, prepared once: a table of iqdb and one of sqlite-vec, in databases in memory of their own."""
    from measures import EXACT, Vectors, expect, expect_alike, sqlite_side, sqlite_vec_side
    extension = os.path.join(bench.build, "iqdb.so")
    made = subprocess.run(bench.cc.split() + ["-shared", "-fPIC", "-O2", "-I" + ROOT, "-pthread", "-o", extension,
                                              os.path.join(ROOT, "examples", "sqlite", "iqdb_sqlite.c")],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        raise Skip("the extension does not build: %s" % first_error(made.stdout.decode("utf-8", "replace")))
    dim, count = 384, bench.size(100000, 2000)
    vectors = Vectors(bench, dim, count)
    sides = {"iqdb": sqlite_side(bench, vectors, extension,
                                 "create virtual table t using iqdb(dim=%d, metric=l2)" % dim, "vector")}
    sides["sqlite-vec"] = bench.optional("sqlite-vec", lambda: sqlite_vec_side(bench, vectors, None))
    if sides["sqlite-vec"]:
        equal = 0
        for number in range(vectors.query_count):
            query = vectors.query(number)
            ours, theirs = sides["iqdb"](query)[1], sides["sqlite-vec"](query)[1]
            expect_alike(vectors, query, ours, theirs, "sqlite-vec")
            equal += ours == theirs
        bench.note("SQL", "%d of %d queries with the same rowids in the same order, the others alike in their distances"
                   % (equal, vectors.query_count))
        expect(equal > 0, "no query has equal answers")
    times = bench.race({name: lambda number, search=search: search(vectors.query(number))[0]
                        for name, search in sides.items() if search}, bench.size(15, 2))
    with_peer = "sqlite-vec" in times
    bench.report("SQL, KNN of %d x %d, L2 / sqlite-vec" % (count, dim), times["iqdb"], times.get("sqlite-vec"),
                 bar=(">=", 5) if with_peer else None, note=EXACT["sqlite-vec"] if with_peer else "")
    for search in sides.values():
        if search:
            search.close()
    vectors.free()
