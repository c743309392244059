#!/usr/bin/env python3
"""Directories written by C, read by read_directory.py: the same records, and nothing wrong in them; and what is damaged
is noticed, so that the reader itself is known to look."""
import os
import random
import re
import shutil
import struct
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import ROOT, Skip, compiler, main, must, run  # noqa: E402
import read_directory  # noqa: E402

LIVES = {"quick": 10, "long": 600}.get(os.environ.get("IQDB_TEST_TIER"), 80)
FLAGS = ["-std=c99", "-O1", "-pthread", "-D_GNU_SOURCE", "-DIQDB_MODULES", "-Isrc", "-Itests"]
FOLDERS = ("base", "sys", "codec", "persist")


def sources(folders=FOLDERS):
    found = ["src/%s/%s" % (folder, name) for folder in folders for name in sorted(os.listdir(
        os.path.join(ROOT, "src", folder))) if name.endswith(".c")]
    return found + ["src/kernel/" + name for name in sorted(os.listdir(os.path.join(ROOT, "src", "kernel")))
                    if name.startswith("crc32") and name.endswith(".c")]


class Writer:
    """The compiled writer, made once for all tests."""
    program = None

    def __init__(self):
        self.folder = tempfile.mkdtemp()
        self.program = os.path.join(self.folder, "writer")
        must(compiler("CC", "cc") + FLAGS + ["-include", "src/base/feature.h", "tests/format/directory_writer.c"] +
             sources() + ["-o", self.program, "-lm"], cwd=ROOT)

    def life(self, seed):
        """(path, whether it was closed, number of records)."""
        path = os.path.join(self.folder, "db-%d" % seed)
        shutil.rmtree(path, ignore_errors=True)
        how, count = must([self.program, str(seed), path]).split()
        return path, how == "closed", int(count)


def numbers(directory):
    """What the diary holds: the list in the snapshot, then the records."""
    found = []
    for snapshot in directory.snapshots:
        data = snapshot.sections[0, 2]
        assert snapshot.sections[0, 1] == b"hello"
        found += struct.unpack("<%dQ" % (len(data) // 8), data)
    return found + [struct.unpack_from("<Q", record, 8)[0] for _, record in directory.records]


def reads_what_was_written():
    writer, closed_ones, logs, snapshots = Writer(), 0, 0, 0
    try:
        for seed in range(LIVES):
            path, closed, count = writer.life(seed)
            try:
                directory = read_directory.Directory(path)
            except read_directory.Wrong as wrong:
                raise AssertionError("seed %d: %s" % (seed, wrong))
            assert numbers(directory) == list(range(count)), "seed %d: other records" % seed
            assert directory.settled and directory.meta.clean == closed, "seed %d: clean mark" % seed
            assert (directory.meta.dim, directory.meta.metric, directory.meta.element) == (7, 2, 0)
            closed_ones, logs, snapshots = closed_ones + closed, logs + len(directory.logs), snapshots + len(
                directory.snapshots)
            shutil.rmtree(path)
        assert closed_ones > 0 and logs > LIVES and snapshots > 0, "the lives are too much alike"
    finally:
        shutil.rmtree(writer.folder)


def reads_backups_and_what_repair_made():
    """One snapshot with everything, a clean META, an empty log; and the very records."""
    folder = tempfile.mkdtemp()
    program = os.path.join(folder, "writer")
    every = sorted(name for name in os.listdir(os.path.join(ROOT, "src")) if os.path.isdir(os.path.join(ROOT, "src", name)))
    try:
        files = sorted(set(sources(every)))
        must(compiler("CC", "cc") + FLAGS + ["-include", "src/base/feature.h", "tests/format/backup_writer.c"] + files +
             ["-o", program, "-lm"], cwd=ROOT)
        for count in (0, 1, 100, 3000):
            paths = [os.path.join(folder, "%s-%d" % (kind, count)) for kind in ("backup", "repaired")]
            must([program, str(count)] + paths)
            found = [read_directory.Directory(path) for path in paths]
            for directory in found:
                assert directory.settled and directory.meta.clean and not directory.records
                assert len(directory.snapshots) == 1 and len(directory.logs) == 1
                assert directory.meta.applied == directory.snapshots[0].lsn > 0
                assert directory.meta.model == "caf\u00e9-2"
                assert directory.snapshots[0].sections[0, 12] == b"caf\xc3\xa9-2"
                sections = directory.snapshots[0].sections
                assert read_directory.key_set(sections[1, 13]) == [(b"id", "ordered"), (b"x.y", "hash")]
                if count == 0:
                    assert (0, 2) not in sections
                    continue
                assert ((0, 8) in sections) == (count == 3000)
                assert sorted(found[0].collections()[""]) == [3 * i for i in range(count)]
                ids = struct.unpack("<%dQ" % count, sections[0, 2])
                assert sorted(ids) == [3 * i for i in range(count)]
                for row, number in enumerate(ids):
                    vector = struct.unpack_from("<16f", sections[0, 3], row * 64)
                    assert vector == (float(number), 1.0, 7.0 if number // 3 % 2 == 0 else 0.0) + (0.0,) * 13
            assert found[0].meta.keys == [(b"id", "ordered"), (b"x.y", "hash")] == found[1].meta.keys
            assert found[0].meta.uuid != found[1].meta.uuid and found[0].meta.applied == found[1].meta.applied
    finally:
        shutil.rmtree(folder)


def puts_deltas_together():
    """The records of a base and its deltas are those that the writer says it has."""
    folder, most, lists = tempfile.mkdtemp(), 0, 0
    program = os.path.join(folder, "writer")
    every = sorted(name for name in os.listdir(os.path.join(ROOT, "src")) if os.path.isdir(os.path.join(ROOT, "src", name)))
    try:
        must(compiler("CC", "cc") + FLAGS + ["-include", "src/base/feature.h", "tests/format/delta_writer.c"] +
             sorted(set(sources(every))) + ["-o", program, "-lm"], cwd=ROOT)
        for seed in range(LIVES // 2):
            path = os.path.join(folder, "db-%d" % seed)
            said = [line.split() for line in must([program, str(seed), path]).splitlines()]
            directory = read_directory.Directory(path)
            found = directory.collections()
            assert directory.settled and directory.meta.clean and not directory.records
            assert sorted((name, number) for name in found for number in found[name]) == sorted(
                (one[0].strip("-"), int(one[1])) for one in said if one[1] != "-"), "seed %d: other ids" % seed
            assert set(found) == {one[0].strip("-") for one in said} | {""}, "seed %d: other names" % seed
            for name, number, version, size in said:
                if number == "-":
                    continue
                number, version, size = int(number), int(version), int(size)
                vector, payload = found[name.strip("-")][number]
                expected = {"b": struct.pack("<BH", number, version), "c": struct.pack("<3H", number, version, 0x3800),
                            "d": struct.pack("<BH", number, version)}.get(name, struct.pack("<3f", number, version, 0.5))
                assert vector.rstrip(b"\0") == expected.rstrip(b"\0"), "seed %d: id %d" % (seed, number)
                text = bytes([ord("a") + version % 26]) * size
                assert payload is None if size == 0 else text in payload and len(payload) < size + 40
            most = max(most, len(directory.snapshots))
            lists += (0, 9) in directory.snapshots[0].sections
        assert most >= 3 and lists > 0, "the lives are too much alike"
    finally:
        shutil.rmtree(folder)


def unpacks_payloads():
    """What examples/codec_zlib.c has packed, by Python's own zlib."""
    folder = tempfile.mkdtemp()
    program, path = os.path.join(folder, "codec"), os.path.join(folder, "db")
    try:
        status, text = run(compiler("CC", "cc") + ["-std=gnu99", "-O1", "-I.", "examples/codec_zlib.c", "-o", program,
                                                   "-lz", "-pthread", "-lm"], cwd=ROOT)
        if status != 0 and "zlib.h" in text:
            raise Skip("no zlib.h")
        assert status == 0, text
        must([program, path])
        found = read_directory.Directory(path).collections()[""]
        assert sorted(found) == list(range(2000))
        for number, (_, payload) in found.items():
            assert b"Note %d. Seen at " % number in payload and b"in the year %d," % (1900 + number % 120) in payload
    finally:
        shutil.rmtree(folder)


def notices_damage():
    writer, noticed, tried = Writer(), 0, 0
    chance = random.Random(5)
    try:
        for seed in range(LIVES // 4 + 3):
            path, closed, count = writer.life(seed)
            if not closed:
                continue
            for name in sorted(set(os.listdir(path)) - {"ballast"}):  # any bytes will do in that
                file = os.path.join(path, name)
                with open(file, "rb") as stream:
                    good = stream.read()
                places = [at for at in range(len(good)) if good[at]] if name.startswith("wal") else range(len(good))
                for at in chance.sample(list(places), min(len(places), 10)):
                    bad = bytearray(good)
                    bad[at] ^= 1 << chance.randrange(8)
                    with open(file, "wb") as stream:
                        stream.write(bad)
                    tried += 1
                    try:
                        assert numbers(read_directory.Directory(path)) == list(range(count)), \
                            "seed %d, %s at %d: silently other records" % (seed, name, at)
                    except read_directory.Wrong as wrong:
                        assert str(wrong).startswith(name), "%s at %d: %s" % (name, at, wrong)
                        noticed += 1
                with open(file, "wb") as stream:
                    stream.write(good)
        # What is left over lies behind the end of a log, where a crash may leave anything.
        assert noticed > tried * 9 // 10, "%d of %d" % (noticed, tried)
    finally:
        shutil.rmtree(writer.folder)


def has_the_tables_of_format_h():
    """The numbers that the reader has in its code are those of the header, entry by entry."""
    with open(os.path.join(ROOT, "src/persist/format.h"), encoding="utf-8") as file:
        text = file.read()
    found = {name: int(value) for name, value in re.findall(r"^ +IQ_(\w+) = (\d+)\b", text, re.M)}
    expected = {
        "PAGE_CRC_AT": 8, "PAGE_VERSION_AT": 12, "PAGE_UUID_AT": 16, "META_SEQUENCE_AT": 32, "META_REQUIRED_AT": 40,
        "META_IGNORABLE_AT": 44, "META_STATE_AT": 48, "META_SNAPSHOTS_AT": 52, "META_LOGS_AT": 56, "META_APPLIED_AT": 64,
        "META_DIM_AT": 80, "META_METRIC_AT": 84, "META_ELEMENT_AT": 88, "META_MODEL_AT": 96, "META_MODEL_SIZE": 64,
        "META_SNAPSHOT_AT": 256,
        "META_LOG_AT": 1536, "META_SNAPSHOT_SIZE": 40, "META_LOG_SIZE": 64, "META_LOG_END_LSN_AT": 24,
        "META_LOG_END_AT": 32, "META_LOG_END_CRC_AT": 40, "META_LOG_STATE_AT": 44, "META_LOG_BYTES_AT": 48,
        "LOG_NUMBER_AT": 32, "LOG_SALT_AT": 40, "LOG_FIRST_AT": 48,
        "LOG_BEFORE_AT": 56, "LOG_BEFORE_SALT_AT": 64, "LOG_SECTOR_AT": 72, "LOG_REQUIRED_AT": 76,
        "FRAME_LENGTH_AT": 0, "FRAME_CRC_AT": 4, "FRAME_LSN_AT": 8, "FRAME_DURABLE_AT": 16, "FRAME_BATCH_AT": 24,
        "FRAME_BEFORE_AT": 32, "FRAME_TYPE_AT": 36, "FRAME_FLAGS_AT": 37, "FRAME_HEADER_SIZE": 40,
        "FRAME_RECORD": 1, "FRAME_ATTEST": 2, "FRAME_SWITCH": 3, "FRAME_FIRST": 1, "FRAME_LAST": 2, "FRAME_COMMIT": 4,
        "FRAME_PIECE_MAX": 7168, "BODY_ATTEST": 128, "BODY_SWITCH": 129, "BODY_SWITCH_SIZE": 32,
        "SNAPSHOT_BLOCK": 8192, "SNAPSHOT_NUMBER_AT": 32, "SNAPSHOT_LSN_AT": 40, "SNAPSHOT_SINCE_AT": 48,
        "SECTION_OFFSET_AT": 16, "SECTION_BYTES_AT": 24, "SECTION_ENTRY_SIZE": 32, "PACK_BYTES_AT": 32, "PACK_BLOCK_AT": 40, "PACK_HEAD_SIZE": 64,
        "PACK_BLOCK": 65536, "PACK_RATIO": 64, "FOOTER_BLOCKS_AT": 40,
        "FOOTER_LIST_AT": 48, "FOOTER_SECTIONS_AT": 56, "FOOTER_ROOTS_CRC_AT": 60, "FOOTER_SIZE": 64}
    wrong = {name: (value, found.get(name)) for name, value in expected.items() if found.get(name) != value}
    assert not wrong, str(wrong)


if __name__ == "__main__":
    main("format/directory", [reads_what_was_written, reads_backups_and_what_repair_made, puts_deltas_together, unpacks_payloads, notices_damage,
                              has_the_tables_of_format_h])
