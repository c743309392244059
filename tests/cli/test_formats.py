#!/usr/bin/env python3
"""Every format goes in and comes out as it was: files are made here by struct, json and csv, and by numpy where it is."""
import csv
import io
import json
import math
import random
import struct
import subprocess
import tempfile

from cli import (COMMAND, Skip, bins, f32, iqdb, main, npy, read, records, rows_of_floats, rows_of_integers, vecs,
                 write)

FLOATS = rows_of_floats(50, 7)
U8 = rows_of_integers(50, 7, 0, 255)
I8 = rows_of_integers(50, 7, -128, 127)
I32 = rows_of_integers(50, 7, 0, 1 << 24)
BINARY = {
    "fvecs": (FLOATS, vecs(FLOATS, "f")), "ivecs": (I32, vecs(I32, "i")), "bvecs": (U8, vecs(U8, "B")),
    "fbin": (FLOATS, bins(FLOATS, "f")), "ibin": (I32, bins(I32, "i")), "u8bin": (U8, bins(U8, "B")),
    "i8bin": (I8, bins(I8, "b")), "npy": (FLOATS, npy(FLOATS)),
}


def folder():
    return tempfile.TemporaryDirectory()


def binary(name):
    rows, data = BINARY[name]
    with folder() as at:
        write(at, "in." + name, data)
        [told] = iqdb(at, "import", "db", "in." + name, "--json").json()
        assert told["format"] == name and told["rows"] == told["new"] == len(rows), told
        assert records(at, "db") == {i: ([float(x) for x in row], None) for i, row in enumerate(rows)}
        iqdb(at, "export", "db", "out." + name)
        if name != "npy":
            assert read(at, "out." + name) == data
        iqdb(at, "import", "again", "out." + name)
        assert records(at, "again") == records(at, "db")
        # Through a pipe. A header alone does not tell fbin from its like there, so it has to be said.
        said = [] if name.endswith("vecs") or name == "npy" else ["--format", name]
        iqdb(at, "import", "piped", "-", *said, stdin=data)
        assert records(at, "piped") == records(at, "db")


def elements_of_other_kinds():
    """Whole numbers and bits stay what they are in the least room, halves too where they are halves; and nothing else is
    taken: the row before is in, and what is wrong is named."""
    halves = [[x / 8 for x in row] for row in I8]
    bits = [[x & 1 for x in row] for row in U8]
    for element, rows, data, bad in (("u8", U8, bins(U8, "B"), 256), ("i8", I8, bins(I8, "b"), 0.5),
                                     ("f16", halves, bins(halves, "f"), 65520), ("bf16", halves, bins(halves, "f"), 3.4e38),
                                     ("bit", bits, bins(bits, "B"), 2)):
        with folder() as at:
            name = "in." + {"u8": "u8bin", "i8": "i8bin", "bit": "u8bin"}.get(element, "fbin")
            write(at, name, data)
            [made] = iqdb(at, "create", "db", "--element", element, "--json").json()
            assert made["element"] == element and made["metric"] == ("hamming" if element == "bit" else "cosine"), made
            iqdb(at, "import", "db", name)
            assert records(at, "db") == {i: ([float(x) for x in row], None) for i, row in enumerate(rows)}
            [told] = iqdb(at, "import", "db", name, "--json").json()
            assert told["unchanged"] == len(rows), told
            iqdb(at, "export", "db", "out." + name[3:])
            assert read(at, "out." + name[3:]) == data
            [stat] = iqdb(at, "stat", "db", "--json").json()
            assert stat["element"] == element, stat
            text = " ".join(str(x) for x in rows[7])
            metric = [] if element == "bit" else ["--metric", "l2"]
            for asked in (["--id", "7"], ["--vector", text], ["--queries", name]):
                hits = iqdb(at, "query", "db", *asked, *metric, "--k", "1", "--json").json()
                found = hits[7 if asked[0] == "--queries" else 0]["hits"][0]
                assert found["score"] == 0 and rows[found["id"]] == rows[7], found
            iqdb(at, "bench", "db", "--seconds", "0.01")
            row = ",".join(str(x) for x in rows[0])
            write(at, "more.csv", (row + "\n" + row.replace(str(rows[0][0]), str(bad), 1) + "\n").encode())
            answer = iqdb(at, "import", "db", "more.csv", "--first-id", "1000", code=3)
            assert "more.csv:2: " in answer.err, answer.err
            assert "element 0 does not fit" in answer.err, answer.err
            iqdb(at, "put", "db", "1000", "--vector", row.replace(str(rows[0][0]), str(bad), 1), code=3)
    with folder() as at:
        iqdb(at, "create", "db", "--element", "i4", code=2)
        for element, metric in (("u8", "hamming"), ("f32", "hamming"), ("bit", "l2")):
            answer = iqdb(at, "create", "db", "--element", element, "--metric", metric, code=2)
            assert "--metric %s: vectors of %s" % (metric, element) in answer.err, answer.err


def content_not_name():
    with folder() as at:
        for name in ("fvecs", "ivecs", "bvecs", "fbin", "ibin", "npy"):
            write(at, "misnamed.csv", BINARY[name][1])
            [told] = iqdb(at, "import", "db-" + name, "misnamed.csv", "--json").json()
            assert told["format"] == name, (name, told)
        write(at, "nameless", BINARY["u8bin"][1])
        answer = iqdb(at, "import", "db", "nameless", code=3)
        assert "u8bin" in answer.err and "--format" in answer.err, answer.err
        iqdb(at, "import", "db", "nameless", "--format", "i8bin")
        signed = [[x - 256 if x > 127 else x for x in row] for row in U8]
        assert [row for row, _ in records(at, "db").values()] == signed


def npy_kinds():
    kinds = {"<f4": ("f", FLOATS), "<f8": ("d", FLOATS), "|u1": ("B", U8), "|i1": ("b", I8), "<i4": ("i", I32),
             "<f2": ("e", [[0.5, -0.25, 65504.0], [2 ** -24, -(2 ** -14), 0.0]])}
    with folder() as at:
        for descr, (letter, rows) in kinds.items():
            for version in (1, 2, 3):
                name = "db-%s-%d" % (descr[1:], version)
                write(at, "x", npy(rows, letter, descr, version))
                iqdb(at, "import", name, "x")
                assert [row for row, _ in records(at, name).values()] == [[f32(x) for x in row] for row in rows], name


def numpy_agrees():
    try:
        import numpy
    except ImportError:
        raise Skip("no numpy")
    source = numpy.random.default_rng(5)
    with folder() as at:
        for dtype in ("f4", "f8", "f2", "u1", "i1", "i4"):
            array = (source.standard_normal((33, 5)) * 100).astype(dtype)
            for version in ((1, 0), (2, 0), (3, 0)):
                with open(at + "/x.npy", "wb") as file:
                    numpy.lib.format.write_array(file, array, version=version)
                name = "db-%s-%d" % (dtype, version[0])
                iqdb(at, "import", name, "x.npy")
                iqdb(at, "export", name, "y.npy")
                got = numpy.load(at + "/y.npy")
                assert got.dtype == numpy.float32 and (got == array.astype("f4")).all(), (dtype, version)
            iqdb(at, "export", "db-%s-1" % dtype, "y.fbin")
            flat = numpy.fromfile(at + "/y.fbin", "<f4", offset=8).reshape(33, 5)
            assert (flat == array.astype("f4")).all()
            iqdb(at, "export", "db-%s-1" % dtype, "y.fvecs")
            flat = numpy.fromfile(at + "/y.fvecs", "<f4").reshape(33, 6)[:, 1:]
            assert (flat == array.astype("f4")).all()
            iqdb(at, "export", "db-%s-1" % dtype, "y.csv")
            flat = numpy.genfromtxt(at + "/y.csv", delimiter=",", skip_header=1, dtype="f4")[:, 2:]
            assert (flat == array.astype("f4")).all()


def numpy_reads_and_writes_all():
    """Files of every binary format that numpy has made go in, and come out as numpy reads them."""
    try:
        import numpy
    except ImportError:
        raise Skip("no numpy")
    source, count, dim = numpy.random.default_rng(6), 41, 6
    kinds = {"fvecs": "f4", "ivecs": "i4", "bvecs": "u1", "fbin": "f4", "ibin": "i4", "u8bin": "u1", "i8bin": "i1"}
    with folder() as at:
        for name, dtype in kinds.items():
            array = (source.standard_normal((count, dim)) * 50).astype("f4")
            if dtype != "f4":
                array = numpy.clip(numpy.round(array) + (100 if dtype == "u1" else 0), -128 if dtype == "i1" else 0,
                                   127 if dtype == "i1" else 255)
            array = array.astype("<" + dtype)
            body = array.view("u1").reshape(count, -1)
            if name.endswith("vecs"):
                head = numpy.full((count, 1), dim, "<i4").view("u1")
                numpy.hstack([head, body]).tofile(at + "/x." + name)
            else:
                numpy.concatenate([numpy.array([count, dim], "<u4").view("u1"), body.ravel()]).tofile(at + "/x." + name)
            iqdb(at, "import", "db-" + name, "x." + name)
            iqdb(at, "export", "db-" + name, "y." + name)
            got = numpy.fromfile(at + "/y." + name, "u1")
            if name.endswith("vecs"):
                rows = got.reshape(count, -1)
                assert (rows[:, :4].copy().view("<i4") == dim).all(), name
                got = rows[:, 4:].copy()
            else:
                assert got[:8].view("<u4").tolist() == [count, dim], name
                got = got[8:]
            assert (got.reshape(count, -1).copy().view("<" + dtype) == array).all(), name


def json_lines():
    lines = [
        {"id": 3, "vector": [1, 2.5, -3e-3], "payload": {"a": 1, "b": {"c": [1, "x", None, True]}, "id": 9, "vector": 1}},
        {"id": 0, "vector": [0, 0, 0], "payload": {}},
        {"id": 2 ** 63 - 1, "vector": [0.1, 0.2, 0.3], "payload": None},
        {"id": str(2 ** 64 - 1), "vector": [1e-38, -1e38, 1e-45], "payload": {"big": 2 ** 53 + 1, "text": "\u00e9\n\"\\"}},
    ]
    with folder() as at:
        write(at, "in", "\n\n".join(json.dumps(line) for line in lines))
        iqdb(at, "import", "db", "in")
        got = iqdb(at, "export", "db").json()
        wanted = sorted(lines, key=lambda line: int(line["id"]))
        assert [line["payload"] for line in got] == [line["payload"] for line in wanted], got
        assert [line["id"] for line in got] == [line["id"] for line in wanted]
        assert [[f32(x) for x in line["vector"]] for line in got] == [[f32(x) for x in line["vector"]] for line in wanted]
        # The same again, from what was written; and flat, with names of one's own.
        iqdb(at, "export", "db", "out.jsonl")
        iqdb(at, "import", "again", "out.jsonl")
        assert iqdb(at, "export", "again").out == iqdb(at, "export", "db").out
        write(at, "flat", '{"nr":5,"embedding":[1,2],"year":2024,"tag":"x"}\n{"nr":6,"embedding":[3,4]}\n')
        iqdb(at, "import", "flat-db", "flat", "--id-field", "nr", "--vector-field", "embedding")
        assert records(at, "flat-db") == {5: ([1, 2], {"year": 2024, "tag": "x"}), 6: ([3, 4], None)}
        iqdb(at, "import", "counted", "-", "--first-id", 10, stdin=b'\xef\xbb\xbf{"vector":[1]}\r\n{"vector":[2]}\r\n')
        assert records(at, "counted") == {10: ([1], None), 11: ([2], None)}


def payloads_come_back_as_they_were():
    """What stands for bytes or floats inside of a payload is a plain field at its root, and it may be as deep as any."""
    deep = 1
    for _ in range(63):
        deep = [deep]
    payloads = [{"$bytes": "00ff"}, {"$bytes": "no digits"}, {"$float": "nan"}, {"$$bytes": "00"}, {"$float": 1}, {"a": deep},
                {"a": {"$bytes": "00ff"}}, {"a": {"$$float": "nan"}}, {"payload": {"$bytes": "00"}}, {"a": "{[\\\"}]"}, {}]
    with folder() as at:
        iqdb(at, "create", "db", "--dim", 1)
        for number, payload in enumerate(payloads):
            iqdb(at, "put", "db", number, "--vector", number, "--payload", json.dumps(payload))
        assert [payload for _, payload in records(at, "db").values()] == payloads, records(at, "db")
        for kind in ("jsonl", "csv"):
            iqdb(at, "export", "db", "out." + kind)
            iqdb(at, "import", "by-" + kind, "out." + kind)
            assert iqdb(at, "export", "by-" + kind).out == iqdb(at, "export", "db").out, kind
        [told] = iqdb(at, "import", "db", "out.jsonl", "--json").json()
        assert told["unchanged"] == len(payloads), told
        # Beside other fields it is one of them, and its marker stands for bytes; and so where it is named otherwise.
        write(at, "in", '{"vector":[1],"payload":{"$bytes":"00"},"x":1}\n{"payload" : {"y":{}} ,"vector":[2]}\n'
                        '{"vector":[3],"p\\u0061yload":{"z":"}"}}\n')
        iqdb(at, "import", "beside", "in")
        assert [payload for _, payload in records(at, "beside").values()] == [
            {"payload": {"$bytes": "00"}, "x": 1}, {"y": {}}, {"z": "}"}], records(at, "beside")
        for line, words in (
                ('{"vector":[1],"payload":{"a":]}}', "x:1: byte 30"), ('{"vector":[1],"payload":{"a":1}', "x:1: byte 32"),
                ('{"vector":[1],"payload":{"a":"}}', "x:1: byte 30"), ('{"vector":[1],"payload":{}},"a":1}', "x:1: byte 28"),
                ('{"vector":[1],"payload":{"a":1}"id":1}', "x:1: byte 32"),
                ('{"vector":[1],"payload":{},"payload":{}}', "x:1: byte 40: a key stands twice"),
                ('{"vector":[1],"payload":{"a":[%s]}}' % ("[" * 63 + "]" * 63), "nested deeper"),
                ('{"vector":[1],"id":"1\\u00002"}', "no whole number")):
            write(at, "x", line)
            answer = iqdb(at, "import", "wrong", "x", code=3)
            assert words in answer.err, (line, answer.err)


def comma_separated():
    with folder() as at:
        # The csv module writes it: quotes, commas and newlines inside of cells.
        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_MINIMAL)
        writer.writerow(["id", "name", "vector0", "vector1", "year", "zip"])
        writer.writerow([7, 'a "quoted", name\nof two lines', 0.5, -1, 2024, "007"])
        writer.writerow([8, "", "1e-3", 2, 1.5, "true"])
        write(at, "in.csv", text.getvalue())
        iqdb(at, "import", "db", "in.csv")
        assert records(at, "db") == {
            7: ([0.5, -1], {"name": 'a "quoted", name\nof two lines', "year": 2024, "zip": "007"}),
            8: ([f32(1e-3), 2], {"year": 1.5, "zip": True})}
        for number, (data, wanted) in enumerate([
                (b"1,2,3\n4,5,6\n", {0: ([1, 2, 3], None), 1: ([4, 5, 6], None)}),
                (b"1;2\r\n3;4", {0: ([1, 2], None), 1: ([3, 4], None)}),
                (b"id\tvector\tk\n1\t[1, 2.5]\t\"5\"\n2\t3 4\t\n", {1: ([1, 2.5], {"k": "5"}), 2: ([3, 4], None)}),
                (b'vector,payload\n"1,2","{""a"":[1]}"\n"3,4",\n"5,6",{}\n',
                 {0: ([1, 2], {"a": [1]}), 1: ([3, 4], None), 2: ([5, 6], {})}),
                (b'vector_0,vector_1,payload,other\n1,2,text,""\n', {0: ([1, 2], {"payload": "text", "other": ""})})]):
            write(at, "in", data)
            iqdb(at, "import", "db-%d" % number, "in", "--format", "csv")
            assert records(at, "db-%d" % number) == wanted, (data, records(at, "db-%d" % number))
        iqdb(at, "export", "db", "out.csv")
        read_back = list(csv.reader(io.StringIO(read(at, "out.csv").decode())))
        assert read_back[0] == ["id", "payload", "vector0", "vector1"] and read_back[1][0] == "7"
        assert json.loads(read_back[1][1]) == records(at, "db")[7][1]
        iqdb(at, "import", "again", "out.csv")
        assert records(at, "again") == records(at, "db")


def every_float_survives_text():
    """Random bits of finite floats, subnormal ones and both zeros too, through jsonl and csv."""
    source = random.Random(9)
    bits = [0, 0x80000000, 1, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF]
    while len(bits) < 4096:
        word = source.getrandbits(32)
        if word >> 23 & 255 != 255:
            bits.append(word)
    rows = [bits[i:i + 16] for i in range(0, len(bits), 16)]
    data = struct.pack("<II", len(rows), 16) + struct.pack("<%dI" % len(bits), *bits)
    with folder() as at:
        write(at, "in.fbin", data)
        iqdb(at, "import", "db", "in.fbin", "--format", "fbin")
        for kind in ("jsonl", "csv"):
            iqdb(at, "export", "db", "out." + kind)
            iqdb(at, "import", "by-" + kind, "out." + kind)
            iqdb(at, "export", "by-" + kind, "back.fbin")
            assert read(at, "back.fbin") == data, kind
        assert all(math.isfinite(x) for row, _ in records(at, "db").values() for x in row)


def pipe_of_two_commands():
    with folder() as at:
        write(at, "in.fvecs", BINARY["fvecs"][1])
        iqdb(at, "import", "db", "in.fvecs")
        for kind in ("jsonl", "csv", "fvecs", "npy"):
            line = "'%s' export db --format %s | '%s' import by-%s -" % (COMMAND, kind, COMMAND, kind)
            assert subprocess.run(line, shell=True, cwd=at, stdout=subprocess.DEVNULL).returncode == 0, line
            assert records(at, "by-" + kind) == records(at, "db")


def export_picks_and_refuses():
    with folder() as at:
        write(at, "in.jsonl", '{"id":5,"vector":[1,2],"n":1}\n{"id":9,"vector":[0.5,3],"n":2}\n{"id":7,"vector":[300,4],"n":3}\n')
        iqdb(at, "import", "db", "in.jsonl")
        iqdb(at, "export", "db", "some.ivecs", "--filter", "n in (1, 3)")
        assert read(at, "some.ivecs") == vecs([[1, 2], [300, 4]], "i")
        iqdb(at, "export", "db", "one.fbin", "--limit", 1)
        assert read(at, "one.fbin") == bins([[1, 2]], "f")
        for kind, number in (("ivecs", 9), ("bvecs", 7), ("i8bin", 7)):
            answer = iqdb(at, "export", "db", "bad." + kind, code=3)
            assert "record %d" % number in answer.err and kind in answer.err, answer.err
        import os
        assert sorted(os.listdir(at)) == ["db", "in.jsonl", "one.fbin", "some.ivecs"], os.listdir(at)


if __name__ == "__main__":
    main("cli/formats", [("round trip of " + name, lambda name=name: binary(name)) for name in BINARY] + [
        content_not_name, elements_of_other_kinds, npy_kinds, numpy_agrees, numpy_reads_and_writes_all,
        json_lines,
        payloads_come_back_as_they_were, comma_separated, every_float_survives_text,
        pipe_of_two_commands, export_picks_and_refuses])
