#!/usr/bin/env python3
"""The bench works: measures that are soon done run on tiny sizes, the commands among them; what README shows of a run says
of each peer which version it is; and what this machine lacks is skipped with a reason. Figures are not looked at."""
import json
import os
import shutil
import sys
import tempfile
import types

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, Skip, compiler, main, run  # noqa: E402

BENCH = os.path.join(ROOT, "bench")
sys.path.insert(0, BENCH)
GROUPS = ("commands", "imports", "filters", "crc")
BUILD = os.path.abspath(os.path.join(ROOT, os.environ.get("BUILD", "build")))


def example_names():
    return sorted(name[:-2] for name in os.listdir(os.path.join(ROOT, "examples")) if name.endswith(".c"))


def quick_run():
    """Every row that there should be is there, or among the skipped ones. What `make bench-deps` has fetched takes part."""
    compiler("CC", "cc")
    if not sys.platform.startswith("linux"):
        raise Skip("the bench is for Linux")
    fetched = os.path.join(BUILD, "bench-venv", "bin", "python")
    with tempfile.TemporaryDirectory() as folder:
        if os.path.isdir(os.path.join(BUILD, "bench-peers")):
            os.symlink(os.path.join(BUILD, "bench-peers"), os.path.join(folder, "bench-peers"))
        status, output = run([fetched if os.path.exists(fetched) else sys.executable, os.path.join(BENCH, "run.py"),
                              "--quick", "--build", folder, *GROUPS])
        assert status == 0, output
        path = os.path.join(folder, "bench.json")
        with open(path) as file:
            result = json.load(file)
        refused, said = run([sys.executable, os.path.join(BENCH, "report.py"), path, "--readme", os.devnull])
        assert refused == 1 and "nothing to show" in said, said
    rows, skipped = {row["name"]: row for row in result["measures"]}, dict(result["skipped"])
    assert result["failed"] == [] and set(row["group"] for row in rows.values()) | set(skipped) >= set(GROUPS), output
    assert [row for name, row in rows.items() if name.startswith("CLI import / bulk upsert")][0]["bar"] == ">= 0.7"
    if not shutil.which("hyperfine"):
        assert skipped["commands"] == "hyperfine is not installed"
        return
    wanted = example_names() + ["iqdb import, 500 x 128", "iqdb query, 500 x 128"]
    missing = [name for name in wanted if "command " + name not in rows and not skipped.get("command " + name)]
    assert len(wanted) > 2 and not missing, "%s in\n%s" % (missing, output)


def rows_name_versions():
    """A peer's version, parameters and recall stand in its row, whatever its name is written like."""
    import report
    versions = {"iqdb": "0.1.0 (avx2)", "sqlite": "3.40.1", "sqlite_vec": "0.1.9", "hnswlib": "0.8.0", "zlib": "1.2.13"}

    def row(name, note):
        return {"name": name, "note": note, "unit": "s", "ours": [1.0], "peer": [2.0], "ratios": [2.0], "median": 2.0,
                "min": 2.0, "max": 2.0}
    said = list(report.table({"environment": {"versions": versions}, "measures": [
        row("iqdb lists / hnswlib M16 efc200", "nprobe 3: 0.95 / ef 10: 0.96"), row("exact / hnswlib's functor", ""),
        row("KNN / sqlite-vec", "recall 1"), row("rows / SQLite", ""), row("command codec_zlib", "")]}))[2:]
    assert [line.split(" | ")[0] for line in said] == [
        "| iqdb lists / hnswlib M16 efc200 (hnswlib 0.8.0; nprobe 3: 0.95 / ef 10: 0.96)",
        "| exact / hnswlib's functor (hnswlib 0.8.0)", "| KNN / sqlite-vec (sqlite-vec 0.1.9; recall 1)",
        "| rows / SQLite (SQLite 3.40.1)", "| command codec_zlib"], said
    assert all(line.endswith("| 1 s | 2 s | 2.00 | 2.00 - 2.00 |") for line in said), said


def missing_library():
    """An example that asks for what is not installed is left out, and no failure."""
    import commands
    bench = types.SimpleNamespace(cc=" ".join(compiler("CC", "cc")), size=lambda full, quick: quick)
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "odd.c")
        with open(source, "w") as file:
            file.write("/* link: -liqdb_no_such_library */\nint main(void) { return 0; }\n")
        try:
            commands.example(bench, folder, source)
        except Exception as reason:  # run.Skip
            assert type(reason).__name__ == "Skip", reason
            assert str(reason) == "does not link with -liqdb_no_such_library", reason
        else:
            raise AssertionError("it is said to link")


if __name__ == "__main__":
    main("bench", [quick_run, rows_name_versions, missing_library])
