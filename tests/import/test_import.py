#!/usr/bin/env python3
"""iqdb-import: what the original crates wrote is found in the new database, value by value, and what is not is named.

golden/ was written by the crates (make_golden.sh); each .jsonl beside a case is what the crate itself reads there. Files
of other shapes, and what a damaged one still holds, come from the writer and the reader of 0.4 frames below."""
import itertools
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from cli import COMMAND, ROOT, Skip, build, compiler, f32, main, run  # noqa: E402

GOLDEN = os.path.join(ROOT, "tests", "import", "golden")
PARTS = ("tools/import/original.h",)


def has_zstd():
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/x.c", "w") as file:
            file.write("#include <zstd.h>\nint main(void) { return ZSTD_versionNumber() == 0; }\n")
        return run(compiler("CC", "cc") + [folder + "/x.c", "-o", folder + "/x", "-lzstd"])[0] == 0


ZSTD = has_zstd()
IMPORT = build("tools/import/iqdb-import.c", PARTS, *((["-DIMPORT_ZSTD"], ["-lzstd"]) if ZSTD else ()))


class Answer:
    def __init__(self, old, arguments=("--metric", "l2"), new=True, command=IMPORT):
        """Imports `old` and reads all that is found then; the old files must be as they were."""
        before = snapshot_of(old)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "new")
            done = subprocess.run([command, *arguments, old] + ([path] if new else []), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
            self.code, self.out, self.err = done.returncode, done.stdout.decode(), done.stderr.decode()
            lines = self.out.splitlines()
            self.reports = [line for line in lines if line.split(":")[0].find(" ") < 0 or ":" in line.split("  ")[0]]
            self.facts = dict(line.split(None, 1) for line in lines if line not in self.reports)
            self.made = os.path.exists(path)
            self.records = None
            if self.made:
                shown = subprocess.run([COMMAND, "export", path], stdout=subprocess.PIPE, check=True, timeout=300).stdout
                self.records = {int(line["id"]): line for line in map(json.loads, shown.decode().splitlines())}
                subprocess.run([COMMAND, "verify", path], stdout=subprocess.DEVNULL, check=True, timeout=300)
        assert self.code in (0, 1, 2, 3, 4), (self.code, self.err[-3000:])
        assert (self.code > 1) == (self.err != "") and self.err.count("\n") <= 1, (self.code, self.err)
        assert self.made == (new and self.code <= 1), (self.code, self.out, self.err)
        assert (self.code == 1) == (self.facts.get("reported", "0") != "0"), (self.code, self.out)
        assert self.code > 1 or len(self.reports) == int(self.facts["reported"]), self.out
        assert before == snapshot_of(old), "the old files were touched"


def snapshot_of(path):
    names = [path] if not os.path.isdir(path) else sorted(os.path.join(path, name) for name in os.listdir(path))
    found = []
    for name in names + [path + ".wal"]:
        if os.path.isfile(name):
            with open(name, "rb") as file:
                found.append((name, file.read(), os.stat(name).st_mtime_ns))
    return found


def exact(record):
    """A record as text that tells -0.0 from 0, and integers from floats."""
    vector = [f32(float(x)) for x in record["vector"]]
    return json.dumps([int(record["id"]), vector, record["payload"]], sort_keys=True)


def same(found, wanted):
    assert sorted(map(exact, found.values())) == sorted(map(exact, wanted)), "\n".join(
        sorted(set(map(exact, found.values())) ^ set(map(exact, wanted))))


def golden(name):
    with open(os.path.join(GOLDEN, name + ".jsonl"), encoding="utf-8") as file:
        return os.path.join(GOLDEN, name), [json.loads(line) for line in file]


def bytes_of(*path):
    with open(os.path.join(GOLDEN, *path), "rb") as file:
        return file.read()


class Old:
    """A directory of 0.4, or a file of 1.0 with its log, of these bytes."""
    def __init__(self, snapshot=None, log=None, newer=False):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "old")
        if not newer:
            os.mkdir(self.path)
        for name, data in ((("" if newer else "/snap"), snapshot), ((".wal" if newer else "/wal"), log)):
            if data is not None:
                with open(self.path + name, "wb") as file:
                    file.write(data)

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        self.folder.cleanup()


def imported(snapshot=None, log=None, *arguments, newer=False, new=True):
    with Old(snapshot, log, newer) as path:
        return Answer(path, arguments or ("--metric", "l2"), new)


# ---- 0.4, written and read by its description ----

HEAD = b"IQDB\1\0\0\0"


def frame(body):
    return struct.pack("<I", len(body)) + body + struct.pack("<I", zlib.crc32(body))


def sized(data):
    return struct.pack("<I", len(data)) + data


def value(v):
    if v is None:
        return b"\0"
    if isinstance(v, bool):
        return struct.pack("<BB", 1, v)
    if isinstance(v, int):
        return struct.pack("<Bq", 2, v)
    if isinstance(v, float):
        return struct.pack("<Bd", 3, v)
    if isinstance(v, str):
        return b"\4" + sized(v.encode())
    if isinstance(v, bytes):
        return b"\5" + sized(v)
    if isinstance(v, list):
        return b"\6" + struct.pack("<I", len(v)) + b"".join(map(value, v))
    return b"\7" + fields(v.items())


def fields(pairs):
    pairs = list(pairs)
    return struct.pack("<I", len(pairs)) + b"".join(sized(k if isinstance(k, bytes) else k.encode()) + value(v)
                                                    for k, v in pairs)


def upsert(id, vector, payload=None):
    """`payload`: None, a dict, or its bytes."""
    if payload is not None and not isinstance(payload, bytes):
        payload = fields(payload.items())
    return frame(struct.pack("<BQI%dfB" % len(vector), 0, id, len(vector), *vector, payload is not None) + (payload or b""))


def delete(id):
    return frame(struct.pack("<BQ", 1, id))


def frames_of(data):
    """Where each frame of a whole log begins, its kind and its id."""
    at, found = 0, []
    while at < len(data):
        size, op, id = struct.unpack_from("<IBQ", data, at)
        found.append((at, op, id))
        at += 8 + size
    return found + [(at, None, None)]


def ids_after(frames):
    alive = set()
    for _, op, id in frames:
        alive = alive | {id} if op == 0 else alive - {id}
    return alive


# ---- what the crates wrote ----

def what_the_crates_wrote(name, metric, arguments, dim, left, unfit=()):
    """left: ids that do not fit, as iqdb-import names them."""
    def test():
        if "zstd" in name and not ZSTD:
            raise Skip("no libzstd to build with")
        path, wanted = golden(name)
        answer = Answer(path, arguments)
        assert answer.code == (1 if left else 0), (answer.out, answer.err)
        same(answer.records, [r for r in wanted if not r["id"].startswith("0x") and r["id"] not in left])
        assert len(answer.reports) == len(left), answer.out
        for id, why in zip(left, unfit):
            assert any(line.startswith("record %s: " % id) and why in line for line in answer.reports), (id, answer.out)
        assert answer.facts["metric"] == metric and answer.facts["dim"] == str(dim), answer.facts
        assert int(answer.facts["records"]) == len(wanted), answer.facts
        checked = Answer(path, tuple(arguments) + ("--check",), new=False)
        assert (checked.code, checked.reports) == (answer.code, answer.reports), checked.out
        assert checked.facts["fit"] == answer.facts["imported"]
    return "what the crates wrote: " + name, test


def written_by_the_crates():
    l2 = ("--metric", "l2")
    for name in ("v0.4-log", "v0.4-snapshot", "v0.4-both"):
        yield what_the_crates_wrote(name, "l2", l2, 2, ())
    yield what_the_crates_wrote("v0.4-empty", "dot", ("--metric", "dot"), 0, ())
    reasons = ("3 elements, not 2", "U+0000", "deeper than 64", "deeper than 64", "1 elements", "4 elements")
    yield what_the_crates_wrote("v0.4-unfit", "l2", l2, 2, ("2", "3", "5", "6", "7", "8"), reasons)
    yield what_the_crates_wrote("v1.0-flat", "cosine", (), 3, ())
    yield what_the_crates_wrote("v1.0-hnsw-zstd", "l2", (), 3, ())
    yield what_the_crates_wrote("v1.0-ivf-lz4", "l1", (), 3, ())
    yield what_the_crates_wrote("v1.0-log", "dot", (), 3, ("ab00cd",), ("its id is bytes",))
    yield what_the_crates_wrote("v1.0-hamming", "cosine", ("--metric", "cosine"), 3, ("ab00cd",), ("its id is bytes",))


def other_dimensions_into_directories_of_their_own():
    path, wanted = golden("v0.4-unfit")
    for dim, ids in (("3", {2}), ("1", {7}), ("4", {8}), ("5", set())):
        answer = Answer(path, ("--metric", "l2", "--dim", dim))
        assert answer.code == 1 and len(answer.reports) == 8 - len(ids), answer.out
        same(answer.records, [r for r in wanted if int(r["id"]) in ids])


def frames_of_the_description():
    """Bytes that were computed from the layout by hand, not by any program here."""
    one = bytes.fromhex("16000000 00 0100000000000000 02000000 0000803f00000000 00 bfd8952a")
    seven = bytes.fromhex("3f000000 00 0700000000000000 03000000 0000003f000080be0000403f 01 02000000 04000000 6b696e64"
                          "04 03000000 646f63 04000000 79656172 02 ea07000000000000 1f7d404a")
    gone = bytes.fromhex("09000000 01 2a00000000000000 737ec499")
    header = bytes.fromhex("4951444201000000")
    assert (one, gone, header) == (upsert(1, [1, 0]), delete(42), HEAD)
    assert seven == upsert(7, [0.5, -0.25, 0.75], {"kind": "doc", "year": 2026})
    record_1 = {"id": 1, "vector": [1, 0], "payload": None}
    record_7 = {"id": 7, "vector": [0.5, -0.25, 0.75], "payload": {"kind": "doc", "year": 2026}}
    for snapshot, log, wanted in ((header + one, None, [record_1]), (None, one, [record_1]), (header, seven, [record_7]),
                                  (header + seven, b"", [record_7]), (b"", one + gone, [record_1]),
                                  (header + one, gone + delete(1), []), (header, b"", [])):
        answer = imported(snapshot, log)
        assert answer.code == 0, (answer.out, answer.err)
        same(answer.records, wanted)
    newer = bytes.fromhex("49514442 57414c00 01000000 17000000 cfa76f6b 01 00 0100000000000000 02000000 0000803f00000000 00")
    snapshot = newer_file(bytes([0]), 2, 2, [])
    answer = imported(snapshot, newer, newer=True)
    assert answer.code == 0, answer.out
    same(answer.records, [record_1])


def newer_file(index, dim, metric, rows, version=1, name=b"iqdb-core", header_rows=None, header_dim=None):
    body = b"IQDC" + struct.pack("<I", 1) + index + struct.pack("<QBQ", dim, metric, len(rows)) + b"".join(rows)
    if version == 2:
        body = struct.pack("<BQ", 0, len(body)) + body
    return (b"IQDBPRST" + struct.pack("<IQ", version, len(name)) + name +
            struct.pack("<QBQI", dim if header_dim is None else header_dim, metric,
                        len(rows) if header_rows is None else header_rows, zlib.crc32(body)) + body)


def files_of_either_version():
    row = b"\0" + struct.pack("<Q2fB", 5, 1.5, -2, 1) + struct.pack("<I", 1) + sized(b"k") + b"\0" + sized(b"v")
    wanted = [{"id": 5, "vector": [1.5, -2], "payload": {"k": "v"}}]
    ivf = lambda pq: b"\2" + struct.pack("<QQQB", 4, 2, 9, 1) + pq + struct.pack("<IQ", 4, 7)  # noqa: E731
    for version in (1, 2):
        for index in (b"\0", b"\1" + bytes(40), ivf(b"\0"), ivf(b"\1" + bytes(8))):
            answer = imported(newer_file(index, 2, 3, [row], version), newer=True)
            assert answer.code == 0 and answer.facts["metric"] == "l2", (answer.out, answer.err)
            same(answer.records, wanted)
    for bad, why in ((newer_file(b"\0", 2, 2, [row], version=3), "its version is 3"),
                     (newer_file(b"\3", 2, 2, [row]), "description of its index"),
                     (newer_file(b"\0", 2, 2, [row], name=b"flat"), "the kind 'flat'"),
                     (newer_file(b"\0", 2, 2, [row], header_rows=2), "contradict"),
                     (newer_file(b"\0", 2, 2, [row], header_dim=3), "contradict"),
                     (newer_file(b"\0", 0, 2, []), "contradict"),
                     (newer_file(b"\0", 2, 2, [row + b"x"]), "bytes behind"),
                     (newer_file(b"\0", 2, 2, [row[:-1]]), "row 0: a payload is malformed"),
                     (newer_file(b"\0", 1 << 40, 2, [row]), "row 0: a vector of no, or too many"),
                     (newer_file(b"\0", 2, 2, [b"\1" + struct.pack("<I", 0) + row[9:]]), "row 0: an id is malformed"),
                     (newer_file(b"\0", 2, 2, [row])[:40], "cut short"), (b"IQDBWAL\0\1\0\0\0", "IQDBPRST")):
        answer = imported(bad, None, "--metric", "l2", newer=True)
        assert answer.code == 3 and why in answer.err, (why, answer.err)
    infinite = b"\0" + struct.pack("<Q2fB", 6, float("inf"), 0, 0)
    answer = imported(newer_file(b"\0", 2, 2, [row, infinite]), newer=True)
    assert answer.code == 1 and answer.reports[0].startswith("record 6: "), answer.out
    same(answer.records, wanted)
    without = build("tools/import/iqdb-import.c", PARTS)  # Zstandard
    answer = Answer(os.path.join(GOLDEN, "v1.0-hnsw-zstd"), (), command=without)
    assert answer.code == 3 and "-DIMPORT_ZSTD" in answer.err, answer.err
    assert imported(newer_file(b"\0", 2, 4, [row]), None, "--check", newer=True, new=False).code == 0
    answer = imported(newer_file(b"\0", 2, 4, [row]), None, "--dim", "2", newer=True)
    assert answer.code == 2 and "--metric" in answer.err, answer.err


# ---- what does not fit ----

def payloads_at_their_limits():
    deep = value(1)
    for _ in range(100000):
        deep = b"\6\1\0\0\0" + deep
    cases = [({"a": [None, True, -1, 0.25, "t", {"b": {}}]}, None), (fields([(b"k\0", 1)]), "U+0000"),
             (fields([("k", 1)])[:-8] + deep[1:], None)]
    cases[2] = (struct.pack("<I", 1) + sized(b"k") + deep, "deeper than 64")
    cases += [({"big": b"x" * (1 << 26)}, "larger than 64 MiB")]
    log = b"".join(upsert(i, [1, 2], payload) for i, (payload, _) in enumerate(cases))
    answer = imported(None, log)
    assert answer.code == 1 and len(answer.reports) == 3, (answer.out[-500:], answer.err)
    for i, (_, why) in enumerate(cases):
        line = [line for line in answer.reports if line.startswith("record %d: " % i)]
        assert len(line) == (why is not None) and (why is None or why in line[0]), (why, line)
    same(answer.records, [{"id": 0, "vector": [1, 2], "payload": {"a": [None, True, -1, 0.25, "t", {"b": {}}]}}])


def keys_that_stand_twice():
    twice = fields([("b", 1), ("a", {"x": 1}), ("b", 2), ("c", 3), ("b", 4), ("a", {"y": 2})])
    answer = imported(None, upsert(1, [1], twice) + upsert(2, [2], {"z": 1}))
    assert answer.code == 1 and answer.reports[0].startswith("record 1: 3 keys stood twice"), answer.out
    same(answer.records, [{"id": 1, "vector": [1], "payload": {"a": {"y": 2}, "b": 4, "c": 3}},
                          {"id": 2, "vector": [2], "payload": {"z": 1}}])
    answer = imported(None, upsert(1, [1], fields([("z", 1), ("m", 2), ("a", 3)])))  # in any order
    assert answer.code == 0, answer.out
    same(answer.records, [{"id": 1, "vector": [1], "payload": {"a": 3, "m": 2, "z": 1}}])


def dimensions():
    answer = imported(None, upsert(1, [0.5] * 65536) + upsert(2, [0.5] * 65537))
    assert answer.code == 1 and "65537 elements" in answer.reports[0] and "--dim" not in answer.reports[0], answer.out
    assert list(answer.records) == [1]
    answer = imported(None, upsert(2, [0.5] * 65537))
    assert answer.code == 1 and answer.records == {}, answer.out
    answer = imported(None, upsert(1, [1, 2]) + upsert(2, [1]) + upsert(3, [3]) + upsert(4, [4, 5]))  # as many of each
    assert sorted(answer.records) == [2, 3], answer.out
    # What was last of an id counts, though an earlier record of it would fit.
    answer = imported(None, upsert(1, [1]) + upsert(2, [2]) + upsert(1, [1, 1]) + upsert(3, [3, 3]) + delete(3))
    assert sorted(answer.records) == [2] and len(answer.reports) == 1, answer.out


# ---- damage ----

def a_log_cut_anywhere():
    log = bytes_of("v0.4-log", "wal")
    frames = frames_of(log)
    ends = {at for at, _, _ in frames}
    for cut in sorted(ends | set(range(1, len(log), 47))):
        answer = imported(None, log[:cut])
        assert answer.code == (0 if cut in ends else 1), (cut, answer.out, answer.err)
        whole = [one for one, behind in zip(frames, frames[1:]) if behind[0] <= cut]
        assert set(answer.records) == ids_after(whole), cut
        if cut not in ends:
            start = max(end for end in ends if end < cut)
            assert "byte %d: " % start in answer.reports[0] and "%d bytes are not read" % (cut - start) in answer.reports[0]
    for tail in (bytes(64), b"\xff" * 64):
        answer = imported(None, log + tail)
        assert answer.code == 1 and set(answer.records) == ids_after(frames[:-1]), answer.out
        assert len(answer.reports) == 1 and "64 bytes are not read" in answer.reports[0], answer.out


def a_log_damaged_in_the_middle():
    log = bytes_of("v0.4-log", "wal")
    frames = frames_of(log)
    source = random.Random(5)
    for hurt in range(len(frames) - 1):
        start, end = frames[hurt][0], frames[hurt + 1][0]
        for at in {start, start + 4, end - 1, source.randrange(start, end)}:
            bad = bytearray(log)
            bad[at] ^= 1 << source.randrange(8)
            answer = imported(None, bytes(bad))
            assert answer.code == 1 and set(answer.records) == ids_after(frames[:hurt]), (at, answer.out)
            named = [line for line in answer.reports if "lies behind damage" in line]
            behind = frames[hurt + 1:-1]
            assert len(named) == len(behind) == len(answer.reports) - 1, (at, answer.out)
            for line, (where, op, id) in zip(named, behind):
                assert line.startswith("record %d: its %s at byte %d of " % (id, ("upsert", "delete")[op], where)), line
            saved = imported(None, bytes(bad), "--metric", "l2", "--salvage")
            assert saved.code == 1 and len(saved.reports) == 1, saved.out
            assert set(saved.records) == ids_after(frames[:hurt] + behind), (at, saved.out)


def a_damaged_snapshot_makes_nothing():
    snapshot = bytes_of("v0.4-snapshot", "snap")
    source = random.Random(6)
    for at in sorted({0, 3, 4, 8, len(snapshot) - 1} | {source.randrange(len(snapshot)) for _ in range(30)}):
        bad = bytearray(snapshot)
        bad[at] ^= 1 << source.randrange(8)
        answer = imported(bytes(bad), b"")
        assert answer.code == 3, (at, answer.code, answer.out)
        if at >= 8:
            saved = imported(bytes(bad), b"", "--metric", "l2", "--salvage")
            assert saved.code == 1 and len(saved.records) == 4 and len(saved.reports) == 1, (at, saved.out)
    for bad in (snapshot[:5], snapshot[:-1], HEAD + delete(4), HEAD + upsert(1, [float("nan")]), HEAD + upsert(1, []),
                HEAD + frame(b""), HEAD + frame(b"\2" + bytes(8)), HEAD + frame(b"\0" + bytes(7)),
                HEAD + frame(struct.pack("<BQIfB", 0, 1, 1, 1, 2)), HEAD + frame(struct.pack("<BQIfBB", 0, 1, 1, 1, 0, 0)),
                HEAD + upsert(1, [1], fields([(b"\xff", 1)])), HEAD + upsert(1, [1], fields([("k", 1)]) + b"x"),
                HEAD + upsert(1, [1], struct.pack("<I", 1) + sized(b"k") + b"\x08"),
                HEAD + upsert(1, [1], struct.pack("<I", 0xFFFFFFFF)), b"iqdb" + snapshot[4:]):
        answer = imported(bad, b"")
        assert answer.code == 3 and "snap" in answer.err, (bad[:60], answer.err)


def text_has_to_be_utf8():
    """As Python has it, which is what Rust has: no long forms, no surrogates, nothing beyond U+10FFFF."""
    source = random.Random(7)
    for _ in range(60):
        text = bytes(source.choice((0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xdf, 0xe0, 0xed, 0xef,
                                    0xf0, 0xf4, 0xf5)) for _ in range(source.randrange(1, 5)))
        try:
            text.decode()
            code = 0
        except UnicodeDecodeError:
            code = 3
        answer = imported(HEAD + upsert(1, [1], struct.pack("<I", 1) + sized(b"k") + b"\4" + sized(text)))
        assert answer.code == code, (text, answer.code, answer.err)


def a_file_of_1_0_damaged():
    source = random.Random(8)
    for name in ("v1.0-flat", "v1.0-ivf-lz4") + (("v1.0-hnsw-zstd",) if ZSTD else ()):
        whole = bytes_of(name)
        for at in sorted({0, 8, 12, 20, 29, 37, 38, 46, 50, len(whole) - 1} |
                         {source.randrange(len(whole)) for _ in range(12)}):
            bad = bytearray(whole)
            bad[at] ^= 1 << source.randrange(8)
            answer = imported(bytes(bad), bytes_of(name + ".wal"), "--metric", "l2", newer=True)
            assert answer.code == 3, (name, at, answer.out)
            # The same with a checksum that is right: whatever comes of it, it comes in order.
            bad[46:50] = struct.pack("<I", zlib.crc32(bytes(bad[50:])))
            imported(bytes(bad), None, "--metric", "l2", newer=True)
        for cut in (1, 30, 49, 60, len(whole) - 1):
            assert imported(whole[:cut], None, "--metric", "l2", newer=True).code == 3, (name, cut)


def a_log_of_1_0_damaged():
    whole, log = bytes_of("v1.0-log"), bytes_of("v1.0-log.wal")
    starts, at = [], 12
    while at < len(log):
        starts.append(at)
        at += 8 + struct.unpack_from("<I", log, at)[0]
    assert len(starts) == 4
    for cut in (1, 11, 12, 13, starts[1], starts[2] - 1, starts[3], len(log) - 1):
        answer = imported(whole, log[:cut], "--metric", "dot", newer=True)
        assert answer.code == (0 if cut in [12] + starts else 1), (cut, answer.out)
        assert (50 in answer.records) == (cut >= starts[1]), cut
        assert answer.records[9]["payload"] == (None if cut >= starts[2] else {"year": 2026}), cut
        assert (10 in answer.records) == (cut < starts[3]), cut
    bad = bytearray(log)
    bad[starts[1] + 4] ^= 1
    answer = imported(whole, bytes(bad), "--metric", "dot", newer=True)
    assert answer.code == 1 and len(answer.reports) == 3 and "record 10: its delete" in answer.reports[1], answer.out
    answer = imported(whole, bytes(bad), "--metric", "dot", "--salvage", newer=True)
    assert answer.code == 1 and 10 not in answer.records and 50 in answer.records, answer.out
    bad = b"X" + log[1:]
    answer = imported(whole, bad, "--metric", "dot", newer=True)
    assert answer.code == 1 and 50 not in answer.records and "does not begin" in answer.reports[0], answer.out


def any_change_is_noticed():
    """Bytes changed, taken out and put in: a code that is not 0, or all there is."""
    source = random.Random(9)
    files = [(name, bytes_of(name, "snap"), bytes_of(name, "wal")) for name in ("v0.4-snapshot", "v0.4-both")]
    kept = {name: golden(name)[1] for name, _, _ in files}
    for _ in range(60):
        name, snapshot, log = source.choice(files)
        parts = [bytearray(snapshot), bytearray(log)]
        part = parts[0] if not log else source.choice(parts)
        at = source.randrange(len(part))
        kind = source.randrange(3)
        if kind == 0:
            part[at] = source.randrange(256)
        elif kind == 1:
            del part[at:at + source.randrange(1, 9)]
        else:
            part[at:at] = bytes(source.randrange(256) for _ in range(source.randrange(1, 9)))
        answer = imported(bytes(parts[0]), bytes(parts[1]))
        ends = {8 + at for at, _, _ in frames_of(snapshot[8:])} | {at for at, _, _ in frames_of(log)}
        if answer.code == 0 and kind != 1:
            same(answer.records, kept[name])
        elif answer.code == 0:  # the last bytes of a file may be a whole frame: that cannot be noticed
            assert len(part) in ends, (name, at)


# ---- refusals ----

def refusals():
    path = golden("v0.4-snapshot")[0]
    for arguments, new, code, why in (((), True, 2, "stored no metric"), (("--metric", "hamming"), True, 2, "none of l2"),
                                      (("--metric",), False, 2, "none of l2"), (("--dim", "0"), True, 2, "no number from 1"),
                                      (("--dim", "65537"), True, 2, "no number from 1"),
                                      (("--frob",), True, 2, "there is no option"), (("--check",), True, 2, "OLD and NEW"),
                                      ((), False, 2, "OLD and NEW")):
        answer = Answer(path, arguments, new)
        assert answer.code == code and why in answer.err, (arguments, answer.err)
    with tempfile.TemporaryDirectory() as folder:
        old, new = os.path.join(folder, "old"), os.path.join(folder, "new")
        shutil.copytree(path, old)
        answer = Answer(old, ("--metric", "l2", os.path.join(folder, "none")), new=False)
        assert answer.code == 4 or answer.code == 3, answer.err
        os.mkdir(new)
        answer = Answer(new)
        assert answer.code == 3 and "neither snap nor wal" in answer.err, answer.err
        run([IMPORT, "--metric", "l2", old, new])
        status, output = run([IMPORT, "--metric", "l2", old, new])
        assert status == 4 and "there is a database" in output or status == 4, output
        assert Answer(new).code == 3
        # Who opens the old directory is told what to do.
        status, output = run([COMMAND, "put", old, "1", "--vector", "1 2"])
        assert status == 4, output
        status, output = run([COMMAND, "import", old, os.path.join(GOLDEN, "v0.4-log.jsonl")])
        assert status == 4 and "`iqdb-import OLD NEW`" in output, output
        shutil.copy(os.path.join(GOLDEN, "v1.0-log.wal"), os.path.join(folder, "lone.wal"))
        answer = Answer(os.path.join(folder, "lone"))
        assert answer.code == 3 and "does not tell" in answer.err, answer.err
        os.remove(old + "/wal")
        os.mkdir(old + "/wal")
        assert "no regular file" in Answer(old).err
    status, output = run([IMPORT, "--help"])
    assert status == 0 and "usage: iqdb-import" in output
    assert run([IMPORT, "--version"]) == (0, "iqdb-import 0.1.0\n")


if __name__ == "__main__":
    main("import", list(itertools.chain(written_by_the_crates(), [
        other_dimensions_into_directories_of_their_own, frames_of_the_description, files_of_either_version,
        payloads_at_their_limits, keys_that_stand_twice, dimensions, a_log_cut_anywhere, a_log_damaged_in_the_middle,
        a_damaged_snapshot_makes_nothing, text_has_to_be_utf8, a_file_of_1_0_damaged, a_log_of_1_0_damaged,
        any_change_is_noticed, refusals])))
