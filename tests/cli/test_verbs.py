#!/usr/bin/env python3
"""What each verb prints and exits with, every error in one line that says what, where and what to do, and that help,
manual, completion and README tell the same."""
import json
import math
import os
import re
import struct
import subprocess
import tempfile

from cli import (COMMAND, ROOT, Skip, bins, build, iqdb, main, npy, read, records, rows_of_floats, rows_of_integers, run,
                 vecs, write)

POINTS = rows_of_floats(20, 2)
NOTES = "".join(json.dumps({"id": i, "vector": POINTS[i], "payload": {"n": i, "odd": i % 2 == 1}}) + "\n" for i in range(20))


class Folder:
    """With a database `db` of twenty records."""

    def __enter__(self):
        self.made = tempfile.TemporaryDirectory()
        write(self.made.name, "notes.jsonl", NOTES)
        iqdb(self.made.name, "import", "db", "notes.jsonl", "--metric", "l2")
        return self.made.name

    def __exit__(self, *_):
        self.made.cleanup()


def nearest(number, k, keep=lambda i: True):
    """By double precision; no two of the distances are close enough for floats to disagree."""
    return sorted((i for i in range(20) if keep(i)), key=lambda i: math.dist(POINTS[i], POINTS[number]))[:k]


def query():
    with Folder() as at:
        [told] = iqdb(at, "query", "db", "--id", 7, "-k", 3, "--json").json()
        assert [hit["id"] for hit in told["hits"]] == nearest(7, 3) and told["hits"][0]["score"] == 0, told
        assert told["hits"][1]["payload"] == {"n": told["hits"][1]["id"], "odd": told["hits"][1]["id"] % 2 == 1}
        text = iqdb(at, "query", "db", "--id", 7, "-k3").out.splitlines()
        assert [int(line.split()[0]) for line in text] == nearest(7, 3), text
        [told] = iqdb(at, "query", "db", "--vector", "[%r, %r]" % tuple(POINTS[7]), "--filter",
                      "odd = false", "--json").json()
        assert [hit["id"] for hit in told["hits"]] == nearest(7, 10, lambda i: i % 2 == 0), told
        [told] = iqdb(at, "query", "db", "--id", 7, "--max-distance", 0.5, "--json").json()
        assert all(hit["score"] <= 0.5 for hit in told["hits"]) and len(told["hits"]) > 1, told
        [told] = iqdb(at, "query", "db", "--id", 7, "-k", 1, "--metric=dot", "--json").json()
        products = [-sum(a * b for a, b in zip(POINTS[7], point)) for point in POINTS]
        assert told["hits"][0]["id"] == products.index(min(products)), told
        assert abs(told["hits"][0]["score"] - min(products)) < 1e-6, told
        write(at, "questions", vecs(POINTS[3:5], "f"))
        told = iqdb(at, "query", "db", "--queries", "questions", "-k", 2, "--json").json()
        assert [(line["query"], [hit["id"] for hit in line["hits"]]) for line in told] == [
            (0, nearest(3, 2)), (1, nearest(4, 2))], told
        assert iqdb(at, "query", "db", "--queries", "-", "-k", 2, "--json", stdin=read(at, "questions")).json() == told
        for wrong, code, words in (
                ([], 2, "give one of --id, --vector and --queries"), (["--id", 99], 1, "there is no record 99"),
                (["--vector", "1 2 3"], 3, "3 elements, where the database has 2"),
                (["--vector", "1 x"], 3, "element 1, x is no finite"), (["--id", 1, "--filter", "odd = = 1"], 2, "byte 7"),
                (["--id", 1, "--metric", "euclid"], 2, "none of l2, cosine, dot, l1, hamming"),
                (["--id", 1, "--metric", "hamming"], 2, "--metric hamming"),
                (["--queries", "notes.jsonl", "--vector-field", "x"], 3, "notes.jsonl:1: \"x\" is not there"),
                (["--id", -1], 2, "no whole number"), (["-k"], 2, "value is missing"), (["--id", 1, "-k", "1e3"], 2, "no whole")):
            answer = iqdb(at, "query", "db", *wrong, code=code)
            assert words in answer.err, (wrong, answer.err)
        iqdb(at, "create", "bits", "--element", "bit")
        iqdb(at, "put", "bits", 1, "--vector", "0 1")
        assert "--metric l2" in iqdb(at, "query", "bits", "--id", 1, "--metric", "l2", code=2).err
        assert "--index hnsw" in iqdb(at, "reindex", "bits", "--index", "hnsw", code=2).err
        [told] = iqdb(at, "reindex", "bits", "--index", "ivf", "--nlist", 1, "--json").json()
        assert told["index"] == "ivf" and '"id":1' in iqdb(at, "query", "bits", "--id", 1, "--json").out, told
        iqdb(at, "create", "bytes", "--element", "u8")
        assert "--index hnsw" in iqdb(at, "reindex", "bytes", "--index", "hnsw", code=2).err


def put_get_delete_list():
    with Folder() as at:
        assert iqdb(at, "get", "db", 3, 4).json()[1]["payload"] == {"n": 4, "odd": False}
        assert "there is no record 99" in iqdb(at, "get", "db", 3, 99, code=1).err
        assert "'x' is no whole number" in iqdb(at, "get", "db", "x", code=2).err
        iqdb(at, "put", "db", 50, "--vector", "1,2", "--payload", '{"a":[1]}')
        assert iqdb(at, "get", "db", 50).json() == [{"id": 50, "vector": [1, 2], "payload": {"a": [1]}}]
        iqdb(at, "put", "db", 50, "--payload", '{"b":2}')
        assert iqdb(at, "get", "db", 50).json() == [{"id": 50, "vector": [1, 2], "payload": {"b": 2}}]
        assert "needs --vector" in iqdb(at, "put", "db", 51, "--payload", "{}", code=1).err
        assert "--payload, byte 2" in iqdb(at, "put", "db", 50, "--payload", "{", code=3).err
        assert "1 elements, where the database has 2" in iqdb(at, "put", "db", 50, "--vector", "1", code=3).err
        assert [line["id"] for line in iqdb(at, "list", "db", "--filter", "n < 3").json()] == [0, 1, 2]
        assert [line["id"] for line in iqdb(at, "list", "db", "--limit", 2).json()] == [0, 1]
        assert iqdb(at, "delete", "db", 50, 0, "--json").json() == [{"deleted": 2}]
        iqdb(at, "put", "db", 0, "--vector", "1 1")
        done = subprocess.run([COMMAND, "delete", "db", "50", "0", "--json"], cwd=at, stdout=subprocess.PIPE)
        assert done.returncode == 1 and json.loads(done.stdout) == {"deleted": 1}, done
        assert iqdb(at, "delete", "db", "--filter", "odd = true", "--json").json() == [{"deleted": 10}]
        assert "either ids or --filter" in iqdb(at, "delete", "db", code=2).err
        assert sorted(records(at, "db")) == [2, 4, 6, 8, 10, 12, 14, 16, 18]


def create_and_stat():
    with Folder() as at:
        [told] = iqdb(at, "create", "new", "--dim", 24, "--metric", "dot", "--json").json()
        assert told == {"created": "new", "dim": 24, "metric": "dot", "element": "f32"}
        [told] = iqdb(at, "create", "tagged", "--model", "caf\u00e9 v2", "--json").json()
        assert told["model"] == iqdb(at, "stat", "tagged", "--json").json()[0]["model"] == "caf\u00e9 v2"
        assert "options.model" in iqdb(at, "import", "tagged", "notes.jsonl", "--model", "tea", code=4).err
        assert "options.model" in iqdb(at, "create", "n2", "--model", "x" * 64, code=4).err
        [told] = iqdb(at, "stat", "new", "--json").json()
        assert (told["records"], told["dim"], told["metric"]) == (0, 24, "dot"), told
        for name in ("checkpoints", "checkpoint_age_s", "longest_list", "retired_rows", "retired_bytes", "oldest_pin_age"):
            assert told[name] == 0, (name, told)
        assert told["sync"] == "flush", told
        script = b"put 1 --vector '%s'\ncompact\nstat\n" % (b"1 " * 24)
        assert iqdb(at, "shell", "new", "--json", stdin=script).json()[1]["checkpoints"] == 1
        iqdb(at, "delete", "new", 1)
        assert "there is a database already" in iqdb(at, "create", "new", code=4).err
        assert "--dim 0" in iqdb(at, "create", "n2", "--dim", 0, code=2).err
        assert "--dim 65537" in iqdb(at, "create", "n2", "--dim", 65537, code=2).err
        assert "--dim x" in iqdb(at, "create", "n2", "--dim", "x", code=2).err
        for verb in ("stat", "list", "compact", "reindex", "tune", "bench", "dump", "shell", "get", "put", "delete", "verify", "repair"):
            more = {"get": ["1"], "put": ["1", "--vector", "1"], "delete": ["1"]}.get(verb, [])
            answer = iqdb(at, verb, "nowhere", *more, code=4)
            assert answer.err.startswith("iqdb %s: nowhere: " % verb), answer.err
            assert not os.path.exists(at + "/nowhere"), verb
        assert "new: " in iqdb(at, "import", "new", "notes.jsonl", "--dim", 3, code=4).err


def copies():
    with Folder() as at:
        whole = records(at, "db")
        iqdb(at, "backup", "db", "copy")
        iqdb(at, "compact", "db")
        iqdb(at, "bake", "db", "db.image")
        iqdb(at, "repair", "db", "repaired")
        assert records(at, "copy") == records(at, "db") == records(at, "db.image") == records(at, "repaired") == whole
        assert "copy: " in iqdb(at, "backup", "db", "copy", code=4).err
        [told] = iqdb(at, "query", "db.image", "--id", 3, "-k", 1, "--json").json()
        assert told["hits"][0]["id"] == 3
        for verb in (["stat"], ["list"], ["get", 3], ["export", "x.npy"], ["bench", "--seconds", 0.01], ["backup", "unbaked"],
                     ["bake", "again.image"]):
            iqdb(at, verb[0], "db.image", *verb[1:])
        assert records(at, "unbaked") == whole and read(at, "again.image") == read(at, "db.image")
        assert iqdb(at, "verify", "db.image", "--json").json() == [{"findings": 0}]
        data = bytearray(read(at, "db.image"))
        data[len(data) // 2] ^= 1
        write(at, "rotten.image", bytes(data))
        iqdb(at, "list", "rotten.image", code=4)
        done = subprocess.run([COMMAND, "verify", "rotten.image", "--json"], cwd=at, stdout=subprocess.PIPE)
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == 1 and told[0]["damage"] and told[1] == {"findings": 1}, (done, told)
        write(at, "empty.image", b"")
        iqdb(at, "list", "empty.image", code=4)
        iqdb(at, "verify", "empty.image", code=4)
        iqdb(at, "list", "notes.jsonl", code=4)
        [told] = iqdb(at, "bench", "db", "--seconds", 0.1, "-k", 5, "--json").json()
        assert told["k"] == 5 and told["per_second"] > 0 and told["p50_us"] <= told["p99_us"], told


def damage_is_found():
    with Folder() as at:
        assert iqdb(at, "verify", "db", "--json").json() == [{"findings": 0}]
        assert "none of frames, blocks, records" in iqdb(at, "verify", "db", "--depth", "x", code=2).err
        iqdb(at, "compact", "db")
        [name] = [name for name in os.listdir(at + "/db") if name.startswith("snap-")]
        data = bytearray(read(at + "/db", name))
        data[len(data) // 2] ^= 255
        write(at + "/db", name, bytes(data))
        answer = subprocess.run([COMMAND, "verify", "db", "--json"], cwd=at, stdout=subprocess.PIPE)
        told = [json.loads(line) for line in answer.stdout.splitlines()]
        assert answer.returncode == 1 and told[0]["file"] == name and told[-1]["findings"] == len(told) - 1, told
        answer = iqdb(at, "list", "db", code=4)
        assert name in answer.err and "iqdb repair" in answer.err, answer.err
        answer = subprocess.run([COMMAND, "repair", "db", "saved"], cwd=at, stdout=subprocess.PIPE)
        assert answer.returncode == 1 and b"damage" in answer.stdout, answer.stdout
        iqdb(at, "verify", "saved")


def bad_input():
    rows = rows_of_floats(10, 4)
    cases = [
        (b"", "it is empty"), (b"\x00\x01garbage", "none of fvecs"), (b"\xff" * 100, "none of fvecs"),
        (vecs(rows, "f") + struct.pack("<i3f", 3, 1, 2, 3), "row 10: 3 elements, where the rows before have 4"),
        (vecs(rows, "f")[:-3], "row 9: the input ends after 17 of its 20 bytes"),
        (npy(rows)[:-5], "its header promises 10 rows of 4 elements, and there are 9 and 11 bytes"),
        (npy(rows) + b"x", "promises 10 rows"), (npy(rows, shape=(10 ** 15, 4)), "promises 1000000000000000 rows"),
        (npy(rows)[:40], "ends inside the header"), (npy(rows)[:9], "shorter than the header"),
        (npy(rows, shape=(40,)), "two dimensions"), (npy(rows, shape=(10, 2, 2)), "two dimensions"), (npy(rows, descr="<c8"), "none of <f4"),
        (npy(rows, descr=">f4"), "none of <f4"), (npy(rows).replace(b"False,", b"True, "), "column by column"),
        (npy(rows, shape=(10, 0)), "0 elements"), (b"\x93NUMPY\x09" + npy(rows)[7:], "npy version 9"),
        (b'{"vector":[1,2]}\n{"vector":[1,2,3]}\n', "x:2: 3 elements, where the rows before have 2"),
        (b'{"vector":[1,2]}\n{"vector":[1,', "x:2: byte 14:"), (b'{"vector":[1,"a"]}', "x:1: element 1 is no finite"),
        (b'{"vector":[1e39]}', "x:1: element 0 is no finite"), (b'{"id":1}', 'x:1: "vector" is not there'),
        (b'{"id":-1,"vector":[1]}', "no whole number"), (b'{"id":1,"vector":[1]}\n{"vector":[1]}', "x:2: \"id\" is not there"),
        (b'{"vector":[]}', "0 elements; a vector has 1 to 65536"), (b'{"vector":[1]}\n' * 400 + b"\x00", "x:401: a zero byte"),
        (b"1,2\n1,nan\n", "x:2: element 1, nan is no finite"), (b"1,NaN\n", "x:1: element 1, NaN is no finite"),
        (b"1,2\n3\n", "x:2: 1 cells, where the first line has 2"), (b"1,2\n3,0x10\n", "x:2: element 1, 0x10"),
        (b'id,vector0\n1,2\n"2,3\n4,5\n', "x:3: a quote that opens here is never closed"),
        (b'id,vector0\n"1"2,3\n', "x:2: cell 1 goes on behind its quotes"), (b"a,b\n1,2\n", "no column is named 'vector'"),
        (b"id,vector0\nx,2\n", "x:2: the id 'x'"), (b"id,id,vector\n1,2,3\n", "two columns are named 'id'"),
        (b"a,a,vector\n1,2,3\n", "x:2: the payload cannot be stored"), (b'payload,vector\n{,3\n', "x:2: byte 2"),
        (b"id,vector\n1,\n", "x:2: 0 elements"),
    ]
    with tempfile.TemporaryDirectory() as at:
        for number, (data, words) in enumerate(cases):
            write(at, "x", data)
            answer = iqdb(at, "import", "db-%d" % number, "x", code=3)
            assert words in answer.err and "x" in answer.err, (words, answer.err)
            # What is wrong with a file as a whole is seen before there is a database.
            assert os.path.exists("%s/db-%d" % (at, number)) == ("rows before it are imported" in answer.err), answer.err
        # Cut short, a file is known by its name; through a pipe only the end tells.
        cut = bins(rows, "f")[:-3]
        write(at, "cut.fbin", cut)
        answer = iqdb(at, "import", "db", "cut.fbin", code=3)
        assert "promises 10 rows of 4 elements, and there are 9 and 13 bytes; it was cut short" in answer.err, answer.err
        answer = iqdb(at, "import", "db", "-", "--format", "fbin", stdin=cut, code=3)
        assert "stdin" in answer.err and ("cut short" in answer.err), answer.err
        iqdb(at, "import", "db4", "-", "--format", "fbin", stdin=bins(rows, "f"))
        write(at, "five.fvecs", vecs(rows_of_floats(3, 5), "f"))
        answer = iqdb(at, "import", "db4", "five.fvecs", "--first-id", 100, code=3)
        assert "row 0: 5 elements, where the database has 4" in answer.err, answer.err
        assert "No such file" in iqdb(at, "import", "db4", "missing", code=3).err
        assert "directory" in iqdb(at, "import", "db4", "db4", code=3).err
        assert "none of fvecs" in iqdb(at, "import", "db4", "x", "--format", "xls", code=2).err
        answer = iqdb(at, "import", "db4", "missing", "--json", code=3)
        assert json.loads(answer.err)["code"] == 3, answer.err


def reindex_and_tune():
    """The choice is kept; the tuned number of lists is the least that finds enough, by what the command itself finds."""
    rows, questions = rows_of_floats(3000, 8, seed=5), rows_of_floats(40, 8, seed=6)
    with Folder() as at:
        iqdb(at, "import", "lists", write(at, "rows.fbin", bins(rows, "f")), "--metric", "l2")
        answer = iqdb(at, "tune", "lists", code=1)
        assert "reindex DIR --index ivf" in answer.err, answer.err
        [told] = iqdb(at, "reindex", "lists", "--index", "ivf", "--nlist", 40, "--seed", 7, "--json").json()
        assert told["index"] == "ivf" and told["index_rows"] == 3000 and 20 <= told["index_lists"] <= 40, told
        [stat] = iqdb(at, "stat", "lists", "--json").json()
        assert stat["index"] == "ivf" and stat["records"] == stat["all_records"] == 3000, stat
        write(at, "questions.fbin", bins(questions, "f"))
        asked = ["--queries", "questions.fbin", "-k", 10, "--json"]
        truth = [sorted(range(3000), key=lambda i: math.dist(rows[i], question))[:10] for question in questions]
        least = {}
        for recall in (.5, .9, 1):
            [told] = iqdb(at, "tune", "lists", "--recall", recall, *asked).json()
            found = [{hit["id"] for hit in line["hits"]} for line in iqdb(at, "query", "lists", *asked).json()]
            reached = sum(len(hits & set(best)) for hits, best in zip(found, truth)) / 400
            assert told["recall"] >= recall and 1 <= told["nprobe"] <= 40, told
            # The verb that only reads may have made no lists: then it finds all.
            assert reached >= recall - 1e-9, (recall, reached)
            least[recall] = told["nprobe"]
        assert least[.5] < least[.9] <= least[1], least
        graph = iqdb(at, "reindex", "lists", "--index", "hnsw", "-m", 4, "--ef-construction", 40, "--json").json()[0]
        assert (graph["index"], graph["index_rows"], graph["unreachable_rows"]) == ("hnsw", 3000, 0), graph
        efs = [iqdb(at, "tune", "lists", "--recall", recall, *asked).json()[0] for recall in (.6, .99)]
        assert all(told["recall"] >= recall for told, recall in zip(efs, (.6, .99))), efs
        assert 1 <= efs[0]["ef_search"] < efs[1]["ef_search"] <= 4096 and efs[1]["nprobe"] == 0, efs
        stat = iqdb(at, "stat", "lists", "--json").json()[0]
        assert stat["index"] == "hnsw" and stat["syncs"] >= stat["weak_syncs"] == 0, stat
        [told] = iqdb(at, "reindex", "lists", "--index", "flat", "--json").json()
        assert (told["index"], told["index_rows"], told["index_lists"]) == ("flat", 0, 0), told
        assert iqdb(at, "stat", "lists", "--json").json()[0]["index"] == "flat"
        for words in (["--index", "hash"], ["--index", ""], ["--nlist", 5000000000], ["--nlist", "x"], ["--recall", 1]):
            iqdb(at, "reindex", "lists", *words, code=2)
        for recall in (0, 1.5, -1, "x"):
            assert "--recall" in iqdb(at, "tune", "lists", "--recall=%s" % recall, code=2).err
        iqdb(at, "reindex", "lists", "--index", "ivf")
        # A thousand questions are asked, however wide: the 951st is looked at, the 1,001st not any more.
        wide = rows_of_floats(1001, 300, seed=8)
        iqdb(at, "import", "wide", write(at, "wide.fvecs", vecs(wide[:200], "f")))
        iqdb(at, "reindex", "wide", "--index", "ivf", "--nlist", 4)
        for bad, code in ((950, 3), (1000, 0)):
            rows = list(wide)
            rows[bad] = rows[bad][1:]
            iqdb(at, "tune", "wide", "--queries", write(at, "wide.fvecs", vecs(rows, "f")), "-k", 1, code=code)
        write(at, "wrong.fbin", bins(rows_of_floats(3, 5), "f"))
        iqdb(at, "tune", "lists", "--queries", "wrong.fbin", code=3)
        iqdb(at, "tune", "lists", "--queries", "nothing.fbin", code=3)


def tune_by_elements():
    """Questions are numbers, whatever elements the database has: the same numbers find the same."""
    rows = rows_of_integers(3000, 8, 0, 100, seed=5)
    questions = [[x + 40 if x < 50 else x for x in row] for row in rows_of_integers(40, 8, 0, 100, seed=6)]
    with tempfile.TemporaryDirectory() as at:
        write(at, "rows.fbin", bins(rows, "f"))
        write(at, "questions.fbin", bins(questions, "f"))
        told = {}
        for element in ("f32", "f16", "bf16", "i8", "u8"):
            iqdb(at, "create", element, "--element", element, "--metric", "l2")
            iqdb(at, "import", element, "rows.fbin")
            iqdb(at, "reindex", element, "--index", "ivf", "--nlist", 40, "--seed", 7)
            [told[element]] = iqdb(at, "tune", element, "--recall", .9, "--queries", "questions.fbin", "--json").json()
        assert all(one == told["f32"] for one in told.values()), told


def wrong_use():
    with Folder() as at:
        assert "there is no verb 'imprt'; `iqdb --help`" in iqdb(at, "imprt", "db", code=2).err
        assert "usage: iqdb stat DIR" in iqdb(at, "stat", code=2).err
        assert "usage: iqdb import DIR FILE" in iqdb(at, "import", "db", code=2).err
        assert "usage: iqdb list DIR" in iqdb(at, "list", "db", "x", code=2).err
        assert "there is no option --frob" in iqdb(at, "stat", "db", "--frob", code=2).err
        assert "there is no option --dim" in iqdb(at, "stat", "db", "--dim", 3, code=2).err
        assert "takes no value" in iqdb(at, "stat", "db", "--json=1", code=2).err
        done = subprocess.run([COMMAND], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.returncode == 2 and b"usage" in done.stderr and not done.stdout
        assert iqdb(at, "--version").out.startswith("iqdb 0.")
        iqdb(at, "stat", "--", "db")
        assert "notes.jsonl: " in iqdb(at, "put", "notes.jsonl", 1, "--vector", "1", code=4).err


def shell():
    with Folder() as at:
        script = b"# comment\n\nstat\nget 3\nhelp\nlist --limit 1\nquit\nget 4\n"
        out = iqdb(at, "shell", "db", stdin=script).out
        assert '{"id":3,' in out and '"id":0' in out and '{"id":4,' not in out and "usage: iqdb VERB" in out, out
        done = subprocess.run([COMMAND, "shell", "db"], cwd=at, input=b"get 99\nimport notes.jsonl --json\nshell x\n",
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.returncode == 2 and done.stderr.count(b"\n") == 2 and b'"unchanged":20' in done.stdout, done
        # A line may have any number of words, and a quote that is open is a mistake, but in a comment.
        done = subprocess.run([COMMAND, "shell", "db"], cwd=at, stdout=subprocess.PIPE, stderr=subprocess.PIPE, input=(
            "delete %s 7 --json\n# don't\nlist --filter 'n = 8 \"x\n" % " ".join(map(str, range(100, 400)))).encode())
        assert done.returncode == 2 and done.stdout == b'{"deleted":1}\n', done
        assert done.stderr.count(b"\n") == 1 and b"never closed" in done.stderr, done
        assert 7 not in records(at, "db")
        # An import of several blocks leaves the handle to what comes then.
        write(at, "two.csv", "".join("%d,%d\n" % (i, i % 7) for i in range(9000)))
        iqdb(at, "create", "plane", "--dim", 2, "--metric", "l2")
        out = iqdb(at, "shell", "plane", stdin=b"import two.csv --memory 0 --json\nget 8999\nstat --json\n").out
        assert '"new":9000' in out and '{"id":8999,' in out and '"records":9000' in out, out


def closed_pipes_and_full_devices():
    with Folder() as at:
        big = bins(rows_of_floats(3000, 32), "f")
        iqdb(at, "import", "big", "-", "--format", "fbin", stdin=big)
        for verb in ("export", "list"):
            done = subprocess.run("'%s' %s big | head -1 >/dev/null; exit ${PIPESTATUS[0]}" % (COMMAND, verb), shell=True,
                                  executable="/bin/bash", cwd=at, stderr=subprocess.PIPE)
            assert done.returncode == 141 and not done.stderr, (verb, done)
        if os.path.exists("/dev/full"):
            for verb in (["stat", "db"], ["export", "db"], ["list", "big"], ["query", "db", "--id", "1"]):
                with open("/dev/full", "w") as full:
                    answer = iqdb(at, *verb, stdout=full, code=5)
                assert "cannot be written" in answer.err, answer.err
        answer = iqdb(at, "export", "db", "no/such/place.csv", code=5)
        assert "no/such/place.csv" in answer.err, answer.err


def json_everywhere():
    with Folder() as at:
        for words in (["create", "j"], ["import", "j", "notes.jsonl"], ["export", "j", "x.csv"], ["export", "j"],
                      ["query", "j", "--id", 1], ["get", "j", 1], ["put", "j", 1, "--payload", "{}"], ["list", "j"],
                      ["delete", "j", 1], ["stat", "j"], ["verify", "j"], ["repair", "j", "r"], ["backup", "j", "b"],
                      ["compact", "j"], ["reindex", "j"], ["bench", "j", "--seconds", 0.05], ["dump", "j"], ["bake", "j", "f"]):
            answer = iqdb(at, *words, "--json")
            assert all(isinstance(line, dict) for line in answer.json()), words
        for words in (["stat", "db", "--bogus", "--json"], ["frob", "--json"], ["frob", "db", "--json"], ["stat", "--json"],
                      ["query", "db", "--k", "x", "--json"], ["query", "db", "-k", "x", "--json"], ["--json"]):
            answer = iqdb(at, *words, code=2)
            assert json.loads(answer.err)["code"] == 2 and json.loads(answer.err)["error"], answer.err
        for words in (["stat", "db", "--bogus", "--", "--json"], ["list", "db", "--filter", "--json"]):
            assert iqdb(at, *words, code=2).err.startswith("iqdb "), words
        done = subprocess.run([COMMAND, "shell", "db"], cwd=at, input=b"frob --json\nstat --bogus --json\nstat --json 'x\n",
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert [json.loads(line)["code"] for line in done.stderr.splitlines()] == [2, 2, 2], done


def usage_text():
    return run([COMMAND, "--help"])[1]


def verbs():
    return re.findall(r"^  (\w+) +[A-Z]", usage_text(), re.M)


def help_has_examples():
    assert len(verbs()) == 19, verbs()
    for verb in verbs():
        status, text = run([COMMAND, verb, "--help"])
        assert status == 0 and text.startswith("usage: iqdb %s DIR" % verb), text
        examples = text.split("Examples:\n")[1].splitlines()
        assert examples and "iqdb " + verb in examples[0] and all("iqdb " in line for line in examples), examples
        for option in re.findall(r"iqdb %s[^|>\n]*?(--?[a-z][\w-]*)" % verb, text.split("Examples:\n")[1]):
            assert "  %s " % option in text.split("Examples:")[0], (verb, option)


def options_of(verb):
    return re.findall(r"^  (--?[a-z][\w-]*)", run([COMMAND, verb, "--help"])[1].split("Examples:")[0], re.M)


def manual_tells_all():
    with open(os.path.join(ROOT, "tools", "iqdb.1")) as file:
        text = file.read().replace("\\-", "-")
    for verb in verbs():
        assert re.search(r"^\.B iqdb %s$|^\.BR? \"?%s\b|^\.SS %s\b" % (verb, verb, verb), text, re.M), verb
        for option in options_of(verb):
            assert option in text, option
    for code in (0, 1, 2, 3, 4, 5, 130, 141):
        assert re.search(r"^\.B %d$" % code, text, re.M), code
    try:
        status, output = run(["groff", "-man", "-Tascii", "-ww", "-z", os.path.join(ROOT, "tools", "iqdb.1")])
    except OSError:
        raise Skip("no groff to read it with; its words were compared")
    assert status == 0 and not output, output


def completion_tells_all():
    script = """
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        _iqdb; printf '%s\\n' "${COMPREPLY[@]}"
    """

    def complete(*words):
        status, output = run(["bash", "-c", script, "bash", os.path.join(ROOT, "tools", "iqdb.bash")] + list(words))
        assert status == 0, output
        return output.split()
    if run(["bash", "-c", "true"])[0] != 0:
        raise Skip("no bash")
    assert sorted(complete("iqdb", "")) == sorted(verbs()), complete("iqdb", "")
    assert complete("iqdb", "ver") == ["verify"]
    for verb in verbs():
        assert sorted(complete("iqdb", verb, "-")) == sorted(options_of(verb)), (verb, complete("iqdb", verb, "-"))
    assert complete("iqdb", "create", "x", "--metric", "c") == ["cosine"]


def readme_transcript():
    """What the README shows behind `$` is run, line by line, and prints what stands below it; times are left out."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        blocks = re.findall(r"^```console\n(.*?)^```$", file.read(), re.M | re.S)
    assert blocks, "README.md has no transcript"
    with tempfile.TemporaryDirectory() as at:
        for name in ("examples", "tests"):
            os.symlink(os.path.join(ROOT, name), at + "/" + name)
        os.mkdir(at + "/bin")
        os.symlink(COMMAND, at + "/bin/iqdb")
        os.symlink(build("tools/import/iqdb-import.c", ["tools/import/original.h"]), at + "/bin/iqdb-import")
        environment = dict(os.environ, PATH=at + "/bin:" + os.environ["PATH"])
        for block in blocks:
            for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
                line, _, shown = part.partition("\n")
                done = subprocess.run(["bash", "-c", line], cwd=at, env=environment, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT)
                got = re.sub(r"^(seconds +)\S+$", r"\1...", done.stdout.decode(), flags=re.M)
                assert got == shown, "$ %s\nshown:\n%s\nprinted:\n%s" % (line, shown, got)


if __name__ == "__main__":
    main("cli/verbs", [
        query, put_get_delete_list, create_and_stat, reindex_and_tune, tune_by_elements, copies, damage_is_found, bad_input, wrong_use, shell,
        closed_pipes_and_full_devices, json_everywhere, help_has_examples, manual_tells_all, completion_tells_all,
        readme_transcript])
