"""HDF5 files: what numpy and h5py put there is stored, what is stored numpy and h5py find there, and nothing else."""
import builtins
import os
import subprocess
import sys

import numpy as np
import pytest

import iqdb

h5py = pytest.importorskip("h5py")
from iqdb import hdf5  # noqa: E402
from iqdb._native import ffi, lib  # noqa: E402

DISTANCES = [("angular", "cosine"), ("euclidean", "l2"), ("ip", "dot"), ("manhattan", "l1"), (b"euclidean", "l2"),
             (np.bytes_(b"ip"), "dot"), (None, "cosine")]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(hdf5, "ROWS", 64)


def file_of(path, distance="euclidean", **datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
        if distance is not None:
            file.attrs["distance"] = distance
    return path


def same(directory, rows, ids=None):
    """The database has these rows and no other."""
    with iqdb.open(directory, read_only=True) as db:
        assert len(db) == len(rows)
        for i, row in zip(range(len(rows)) if ids is None else ids, rows):
            record = db.get(int(i))
            assert record.vector.tobytes() == row.tobytes() and record.payload is None
    return True


@pytest.mark.parametrize("distance, metric", DISTANCES)
def test_distances_are_metrics(distance, metric, rows, tmp_path):
    file_of(tmp_path / "a.hdf5", distance, train=rows)
    assert hdf5.import_file(tmp_path / "a.hdf5", tmp_path / "db") == 500
    assert iqdb.inspect(tmp_path / "db").metric == metric and same(tmp_path / "db", rows)


def test_neighbors_of_the_file_are_found(rows, tmp_path):
    queries = np.random.default_rng(8).standard_normal((9, 24)).astype(np.float32)
    far = np.linalg.norm(rows[None].astype(np.float64) - queries[:, None], axis=2)
    path = file_of(tmp_path / "a.hdf5", train=rows, test=queries, neighbors=np.argsort(far, axis=1)[:, :10],
                   distances=np.sort(far, axis=1)[:, :10])
    hdf5.import_file(str(path), str(tmp_path / "db"))
    with iqdb.open(tmp_path / "db") as db, h5py.File(path, "r") as file:
        found = db.search_batch(file["test"][:], 10)
        assert np.array_equal(found.ids, file["neighbors"][:])
        assert np.allclose(found.scores, file["distances"][:], rtol=1e-5)
    assert hdf5.import_file(path, tmp_path / "queries", "test") == 9 and same(tmp_path / "queries", queries)


@pytest.mark.parametrize("dtype", ["f2", ">f4", "f8", "i1", "u1", ">i4", "u8"])
def test_numbers_of_any_type(dtype, tmp_path):
    rows = (np.random.default_rng(3).random((200, 5)) * 100).astype(dtype)
    hdf5.import_file(file_of(tmp_path / "a.hdf5", train=rows), tmp_path / "db")
    assert same(tmp_path / "db", rows.astype("<f4" if sys.byteorder == "little" else ">f4"))


def test_chunks_that_are_packed_and_longer_than_a_batch(rows, tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("train", data=rows, chunks=(150, 7), compression="gzip", maxshape=(None, 24))
    assert hdf5.import_file(tmp_path / "a.hdf5", tmp_path / "db") == 500 and same(tmp_path / "db", rows)


def test_an_export_is_what_h5py_reads(rows, tmp_path):
    ids = np.random.default_rng(4).permutation(500).astype(np.uint64) * 3 + np.uint64(2 ** 63)
    with iqdb.open(tmp_path / "db", metric="dot") as db:
        db.upsert_batch(ids, rows, [{"i": i} for i in range(500)])
        db.delete(int(ids[77]))
    assert hdf5.export_file(tmp_path / "db", tmp_path / "a.hdf5") == 499
    with h5py.File(tmp_path / "a.hdf5", "r") as file:
        assert sorted(file) == ["ids", "train"] and file["train"].dtype == np.float32
        assert dict(file.attrs) == {"distance": "ip", "type": "dense", "point_type": "float", "dimension": 24}
        written = dict(zip(file["ids"][:].tolist(), file["train"][:]))
    assert sorted(written) == sorted(i for i in ids.tolist() if i != ids[77])
    assert all(written[i].tobytes() == row.tobytes() for i, row in zip(ids.tolist(), rows) if i in written)
    # And back: under the same ids, twice into the same directory, over a file that is there.
    assert [hdf5.import_file(tmp_path / "a.hdf5", tmp_path / "back") for _ in range(2)] == [499, 0]
    assert same(tmp_path / "back", np.delete(rows, 77, 0), np.delete(ids, 77))
    assert hdf5.export_file(str(tmp_path / "back"), str(tmp_path / "a.hdf5")) == 499
    assert sorted(os.listdir(tmp_path)) == ["a.hdf5", "back", "db"]


@pytest.mark.parametrize("element, dim", [("I8", 4), ("BIT", 64)])
def test_vectors_of_other_elements_do_not_go_out(element, dim, tmp_path):
    options, out, record = ffi.new("iqdb_options *"), ffi.new("iqdb **"), ffi.new("iqdb_record *")
    lib.iqpy_options(options)
    options.element, raw = getattr(lib, "IQDB_ELEMENT_" + element), ffi.new("char[8]", b"12345678")
    record.id, record.raw, record.dim = 1, raw, dim
    path = str(tmp_path / "db").encode()
    assert not any((lib.iqdb_open(path, options, out), lib.iqdb_upsert(out[0], record), lib.iqdb_close(out[0])))
    with pytest.raises(iqdb.Error, match="NOT_IMPLEMENTED: .*32-bit floats"):
        hdf5.export_file(tmp_path / "db", tmp_path / "a.hdf5")
    assert os.listdir(tmp_path) == ["db"]


def test_databases_without_records(tmp_path):
    iqdb.open(tmp_path / "db").close()
    assert hdf5.export_file(tmp_path / "db", tmp_path / "none.hdf5") == 0
    iqdb.open(tmp_path / "dim", dim=3).close()
    assert hdf5.export_file(tmp_path / "dim", tmp_path / "a.hdf5") == 0
    assert hdf5.import_file(tmp_path / "a.hdf5", tmp_path / "back") == 0 and len(iqdb.open(tmp_path / "back")) == 0


def test_an_export_that_fails_leaves_the_file_that_was_there(rows, tmp_path, monkeypatch):
    hdf5.import_file(file_of(tmp_path / "a.hdf5", train=rows), tmp_path / "db")
    before = (tmp_path / "a.hdf5").read_bytes()

    def full(*unused):
        raise OSError("no space left on device")
    with monkeypatch.context() as patched:
        patched.setattr(h5py.Dataset, "__setitem__", full)
        with pytest.raises(iqdb.Error, match=r"IO: .*a\.hdf5\.part: no space left"):
            hdf5.export_file(tmp_path / "db", tmp_path / "a.hdf5")
    assert (tmp_path / "a.hdf5").read_bytes() == before and sorted(os.listdir(tmp_path)) == ["a.hdf5", "db"]
    assert hdf5.export_file(tmp_path / "db", tmp_path / "a.hdf5") == 500


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_what_the_system_refuses_behind_the_last_row(step, rows, tmp_path, monkeypatch):
    hdf5.import_file(file_of(tmp_path / "a.hdf5", train=rows), tmp_path / "db")
    before = (tmp_path / "a.hdf5").read_bytes()

    def refused(*unused):
        raise OSError("not now")
    with monkeypatch.context() as patched:
        patched.setattr(os, step, refused)
        with pytest.raises(iqdb.Error, match=r"IO: .*a\.hdf5: not now") as caught:
            hdf5.export_file(tmp_path / "db", tmp_path / "a.hdf5")
    assert caught.value.code == iqdb.Code.IO and sorted(os.listdir(tmp_path)) == ["a.hdf5", "db"]
    assert (tmp_path / "a.hdf5").read_bytes() == before


def test_an_export_is_on_the_disk_before_it_takes_its_place(rows, tmp_path, monkeypatch):
    hdf5.import_file(file_of(tmp_path / "a.hdf5", train=rows), tmp_path / "db")
    calls, sync, replace = [], os.fsync, os.replace

    def kind(handle):
        return "directory" if os.path.isdir("/dev/fd/%d" % handle) else "file"
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append(kind(handle)) or sync(handle))
    monkeypatch.setattr(os, "replace", lambda *names: calls.append("replace") or replace(*names))
    assert hdf5.export_file(tmp_path / "db", tmp_path / "b.hdf5") == 500
    assert calls == ["file", "replace"] + ["directory"] * (os.name == "posix")


def test_the_part_of_another_export_stays(rows, tmp_path):
    hdf5.import_file(file_of(tmp_path / "a.hdf5", train=rows), tmp_path / "db")
    with h5py.File(tmp_path / "b.hdf5.part", "w") as other:
        with pytest.raises(iqdb.Error, match=r"b\.hdf5\.part: "):
            hdf5.export_file(tmp_path / "db", tmp_path / "b.hdf5")
        other["kept"] = 1
    with pytest.raises(iqdb.NotFound):
        hdf5.export_file(tmp_path / "none", tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "b.hdf5.part", "r") as other:
        assert list(other) == ["kept"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(iqdb.Error, match="IO: .*folder: "):
        hdf5.export_file(tmp_path / "db", tmp_path / "folder")
    assert not (tmp_path / "folder.part").exists()


ROWS = np.ones((300, 4), np.float32)
WRONG = [
    ({"base": ROWS, "test": ROWS}, iqdb.NotFound, "dataset 'train' is not there, only base, test$"),
    ({}, iqdb.NotFound, "dataset 'train' is not there, only none$"),
    ({"train/deep": ROWS}, iqdb.NotFound, "dataset 'train' is not there, only train$"),
    ({"train": np.dtype("f4")}, iqdb.NotFound, "dataset 'train' is not there, only train$"),
    ({"train": ROWS[0]}, iqdb.InvalidInput, r"dataset 'train': rows .* not float32 \(4,\)"),
    ({"train": ROWS[None]}, iqdb.InvalidInput, r"not float32 \(1, 300, 4\)"),
    ({"train": 1.5}, iqdb.InvalidInput, r"not float64 \(\)"),
    ({"train": h5py.Empty("f4")}, iqdb.InvalidInput, "not float32 None"),
    ({"train": ROWS[:, :0]}, iqdb.InvalidInput, r"not float32 \(300, 0\)"),
    ({"train": np.zeros((1, 65537), "f4")}, iqdb.InvalidInput, r"not float32 \(1, 65537\)"),
    ({"train": ROWS.astype(bool)}, iqdb.InvalidInput, r"rows of numbers are needed, not bool \(300, 4\)"),
    ({"train": ROWS.astype(complex)}, iqdb.InvalidInput, "not complex128"),
    ({"train": ROWS.astype("S3")}, iqdb.InvalidInput, r"not \|S3"),
    ({"train": np.array([["a", "b"]], h5py.string_dtype())}, iqdb.InvalidInput, "not object"),
    ({"train": np.zeros((2, 2), [("x", "f4")])}, iqdb.InvalidInput, "not .*x"),
    ({"train": ROWS, "ids": np.arange(299, dtype="u8")}, iqdb.InvalidInput, "dataset 'ids': an unsigned integer for"),
    ({"train": ROWS, "ids": np.arange(300) - 1}, iqdb.InvalidInput, "dataset 'ids'"),
    ({"train": ROWS, "ids": np.ones(300)}, iqdb.InvalidInput, "dataset 'ids'"),
    ({"train": ROWS, "ids/x": ROWS}, iqdb.InvalidInput, "dataset 'ids'"),
    ({"train": ROWS, "distance": "hamming"}, ValueError, "distance='hamming': there are 'angular', 'euclidean', 'ip'"),
    ({"train": ROWS, "distance": ["ip", "angular"]}, ValueError, "distance=.*: there are"),
    ({"train": ROWS, "distance": 7}, ValueError, "distance='7': there are"),
]


@pytest.mark.parametrize("content, kind, text", WRONG, ids=range(len(WRONG)))
def test_files_that_are_refused(content, kind, text, tmp_path):
    path = file_of(tmp_path / "bad.hdf5", **content)
    with pytest.raises(kind, match="bad.hdf5.*" + text):
        hdf5.import_file(path, tmp_path / "db")
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize("value, dtype",
                         [(np.nan, "f4"), (np.inf, "f4"), (-np.inf, "f8"), (1e300, "f8"), (np.nan, "f2")])
@pytest.mark.parametrize("row", [0, 63, 64, 299])
def test_rows_that_are_not_finite(row, value, dtype, tmp_path):
    rows = np.arange(1200).reshape(300, 4).astype(dtype)
    rows[row, 2], rows[299, 3] = value, np.nan
    path = file_of(tmp_path / "bad.hdf5", train=rows)
    for _ in range(2):
        with pytest.raises(iqdb.InvalidInput, match="bad.hdf5, dataset 'train': row %d is not finite" % row) as caught:
            hdf5.import_file(path, tmp_path / "db")
        assert caught.value.code == iqdb.Code.INVALID_VECTOR and same(tmp_path / "db", rows[:row].astype(np.float32))
    rows[row, 2] = rows[299, 3] = 1
    assert hdf5.import_file(file_of(path, train=rows), tmp_path / "db") == 300 - row


def test_directories_that_are_refused(rows, tmp_path):
    path = file_of(tmp_path / "a.hdf5", train=rows)
    hdf5.import_file(path, tmp_path / "db")
    with pytest.raises(iqdb.InvalidInput, match="other.hdf5, dataset 'train': .* 23 elements, .*db 24$") as caught:
        hdf5.import_file(file_of(tmp_path / "other.hdf5", train=rows[:, 1:]), tmp_path / "db")
    assert caught.value.code == iqdb.Code.DIMENSION_MISMATCH
    with pytest.raises(iqdb.InvalidInput, match="metric"):
        hdf5.import_file(file_of(tmp_path / "other.hdf5", "angular", train=rows), tmp_path / "db")
    with pytest.raises(iqdb.NotFound):
        hdf5.export_file(tmp_path / "none", tmp_path / "none.hdf5")
    assert same(tmp_path / "db", rows) and sorted(os.listdir(tmp_path)) == ["a.hdf5", "db", "other.hdf5"]


def test_nothing_is_replaced(rows, tmp_path):
    path = file_of(tmp_path / "a.hdf5", train=rows)
    with iqdb.open(tmp_path / "db", metric="l2") as db:
        db.upsert(3, rows[3], {"kept": True})
        db.upsert(100, rows[0])
    with pytest.raises(iqdb.InvalidInput, match="a.hdf5, dataset 'train', row 100: .*db has another vector 100$"):
        hdf5.import_file(path, tmp_path / "db")
    with iqdb.open(tmp_path / "db") as db:
        assert len(db) == 65 and db.get(100).vector.tobytes() == rows[0].tobytes()  # one batch, no row of the next
        db.delete(100)
    assert hdf5.import_file(path, tmp_path / "db") == 500 - 64
    with iqdb.open(tmp_path / "db") as db:
        assert len(db) == 500 and db.get(3).payload == {"kept": True}
    twice = np.arange(500, dtype=np.uint64)
    twice[130] = 131
    with pytest.raises(iqdb.InvalidInput, match="dataset 'train', row 128 on: an id is twice$"):
        hdf5.import_file(file_of(path, train=rows, ids=twice), tmp_path / "twice")


@pytest.mark.parametrize("content", [b"", b"no HDF5 file at all", None])
def test_what_is_no_hdf5_file(content, tmp_path):
    if content is not None:
        (tmp_path / "bad.hdf5").write_bytes(content)
    with pytest.raises(iqdb.Error, match="IO: .*bad.hdf5: ") as caught:
        hdf5.import_file(tmp_path / "bad.hdf5", tmp_path / "db")
    assert caught.value.code == iqdb.Code.IO and not (tmp_path / "db").exists()


def test_a_file_that_was_cut(rows, tmp_path):
    path = file_of(tmp_path / "cut.hdf5", train=rows)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(iqdb.Error, match="IO: .*cut.hdf5: "):
        hdf5.import_file(path, tmp_path / "db")


def test_an_import_that_is_killed_is_finished_by_the_next(rows, tmp_path):
    path = file_of(tmp_path / "a.hdf5", train=rows)
    program = """
import os, sys
from iqdb import database, hdf5
written, calls = database.Database.upsert_batch, []
def killed(*arguments):
    calls.append(written(*arguments))
    if len(calls) == 3:
        arguments[0].flush()
        os._exit(9)
database.Database.upsert_batch, hdf5.ROWS = killed, 64
hdf5.import_file(*sys.argv[1:])
"""
    assert subprocess.run([sys.executable, "-c", program, str(path), str(tmp_path / "db")]).returncode == 9
    assert same(tmp_path / "db", rows[:192])
    assert hdf5.import_file(path, tmp_path / "db") == 500 - 192 and same(tmp_path / "db", rows)
    assert hdf5.import_file(path, tmp_path / "db") == 0


def test_memory_is_for_a_batch_not_for_the_file(tmp_path, monkeypatch):
    """No array that numpy or h5py make is longer than a batch."""
    rows = np.random.default_rng(5).standard_normal((3000, 1024)).astype(np.float32)
    monkeypatch.setattr(hdf5, "ROWS", 4096)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["train"] = rows
    read, sizes = h5py.Dataset.__getitem__, []
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda *a: sizes.append(read(*a)) or sizes[-1])
    assert hdf5.import_file(tmp_path / "a.hdf5", tmp_path / "db") == 3000
    assert [len(part) for part in sizes] == [256] * 11 + [184]
    write, lengths = h5py.Dataset.__setitem__, []
    monkeypatch.setattr(h5py.Dataset, "__setitem__", lambda d, at, v: lengths.append(len(v)) or write(d, at, v))
    assert hdf5.export_file(tmp_path / "db", tmp_path / "b.hdf5") == 3000 and max(lengths) == 256


def test_without_h5py(tmp_path, monkeypatch):
    found = builtins.__import__

    def missing(name, *arguments, **named):
        if name == "h5py":
            raise ImportError("No module named 'h5py'")
        return found(name, *arguments, **named)
    iqdb.open(tmp_path / "db").close()
    monkeypatch.setattr(builtins, "__import__", missing)
    for call in (lambda: hdf5.import_file("a.hdf5", tmp_path / "new"),
                 lambda: hdf5.export_file(tmp_path / "db", tmp_path / "a.hdf5")):
        with pytest.raises(ImportError, match=r'pip install "iqdb\[hdf5\]"'):
            call()
    assert os.listdir(tmp_path) == ["db"]
