"""Directories, copies, damage, threads, and the adapter for ann-benchmarks."""
import gc
import mmap
import os
import threading

import numpy as np
import pytest

import iqdb
from conftest import nearest
from iqdb.ann_benchmarks import Iqdb

SIMDS = ("scalar", "sse2", "avx2", "avx512", "neon")


def fill(path, rows, **options):
    with iqdb.open(path, metric="l2", **options) as db:
        db.upsert_batch(range(len(rows)), rows, [{"i": i} for i in range(len(rows))])


def test_a_directory_is_found_again(tmp_path, rows):
    path = tmp_path / "with ü" / "db"
    fill(path, rows, sync="each", dim=24)
    with iqdb.open(path, verify="records") as db:
        assert len(db) == 500 and db.verify("records") == [] and db.get(3).payload == {"i": 3}
        db.checkpoint()
        db.delete(3)
        db.flush()
        assert db.maintain(1000) in (True, False)
        stats = db.stats()
        assert (stats.records, stats.dim, stats.metric, stats.in_memory) == (499, 24, "l2", False)
        assert len(stats.uuid) == 16 and stats.durable_lsn == stats.last_lsn and db.simd in SIMDS
    assert iqdb.inspect(path).records == 500
    with iqdb.open(str(path), read_only=True) as db:
        with pytest.raises(iqdb.Error) as caught:
            db.delete(4)
        assert caught.value.code == iqdb.Code.READONLY


def test_what_does_not_open(tmp_path, rows):
    path = tmp_path / "db"
    fill(path, rows)
    with iqdb.open(path):
        with pytest.raises(iqdb.Error) as caught:
            iqdb.open(path)
        assert caught.value.code == iqdb.Code.LOCKED
    for options in ({"dim": 25}, {"metric": "dot"}):
        with pytest.raises(iqdb.InvalidInput) as caught:
            iqdb.open(path, **options)
        assert caught.value.code == iqdb.Code.INVALID_CONFIG and caught.value.detail.text
    (tmp_path / "file").write_text("x")
    with pytest.raises(iqdb.InvalidInput):
        iqdb.open(tmp_path / "file")
    for call in (lambda: iqdb.inspect(tmp_path / "none"), lambda: iqdb.open(tmp_path / "none", read_only=True)):
        with pytest.raises(iqdb.NotFound):
            call()
    with pytest.raises(TypeError):
        iqdb.open(3)


def test_backups(tmp_path, rows):
    fill(tmp_path / "db", rows)
    with iqdb.open(tmp_path / "db") as db:
        db.backup(tmp_path / "copy")
        with pytest.raises(iqdb.InvalidInput):
            db.backup(tmp_path / "copy")
    with iqdb.open(tmp_path / "copy") as copy:
        assert len(copy) == 500 and copy.get(9).payload == {"i": 9}


def test_blobs(tmp_path, db, rows):
    blob, pieces = db.export_blob(), []
    assert db.export_blob(pieces.append) is None and b"".join(pieces) == blob
    expected = db.search(rows[1], 5, payload=True)
    with iqdb.load_blob(blob) as copy:
        assert copy.search(rows[1], 5, payload=True) == expected
        copy.delete(1)
        assert len(copy) == 499
    with open(tmp_path / "blob", "wb") as file:
        file.write(blob)
    with open(tmp_path / "blob", "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        view = iqdb.open_blob(mapped)
        del mapped
        gc.collect()  # the handle keeps what it reads
        assert view.search(rows[1], 5, payload=True) == expected
        with pytest.raises(iqdb.Error) as caught:
            view.upsert(1, rows[0])
        assert caught.value.code == iqdb.Code.READONLY
        view.close()
    for bad in (b"", b"x" * 100, blob[:-1], blob[:5000] + b"?" + blob[5001:]):
        with pytest.raises(iqdb.Damaged):
            iqdb.load_blob(bad)
    with pytest.raises(TypeError):
        iqdb.load_blob("text")

    def full(piece):
        raise OSError("disk full")
    with pytest.raises(OSError, match="disk full"):
        db.export_blob(full)


def test_damage_is_told_and_repaired(tmp_path, rows):
    fill(tmp_path / "db", rows, compact_on_close=True)
    snapshot, = [name for name in os.listdir(tmp_path / "db") if name.startswith("snap-")]
    with open(tmp_path / "db" / snapshot, "r+b") as file:
        file.seek(20000)
        file.write(b"rot")
    with pytest.raises(iqdb.Damaged) as caught:
        iqdb.open(tmp_path / "db")
    assert caught.value.detail.file == snapshot and caught.value.detail.offset > 0
    assert snapshot in str(caught.value) and "byte" in str(caught.value)
    findings = iqdb.repair(tmp_path / "db")
    assert findings and findings == iqdb.repair(tmp_path / "db", tmp_path / "saved")
    with iqdb.open(tmp_path / "saved") as db:
        assert 0 < len(db) < 500
        for record in db:
            assert np.array_equal(record.vector, rows[record.id])
    with pytest.raises(iqdb.NotFound):
        iqdb.repair(tmp_path / "none")


def test_a_forgotten_handle_is_closed(tmp_path, rows):
    db = iqdb.open(tmp_path / "db")
    db.upsert(1, rows[0])
    iterator = iter(db)
    del db, iterator
    gc.collect()
    with iqdb.open(tmp_path / "db") as db:
        assert len(db) == 1


def test_handles_that_are_forgotten_in_a_ring_are_closed(tmp_path, rows):
    """Whichever of them the collector ends first."""
    for order in (0, 1):
        ring = type("Ring", (), {})()
        ring.db = iqdb.open(tmp_path / "db")
        ring.db.upsert(1, rows[0])
        ring.parts = [ring.db, iter(ring.db), ring.db.cursor(rows[0])][::1 - 2 * order]
        ring.ring, ring.db.ring, ring.parts[1].ring = ring, ring, ring
        del ring
        gc.collect()
    with iqdb.open(tmp_path / "db") as db:
        assert len(db) == 1


def test_threads_share_a_handle(rows):
    """Writers and readers at once: each reader sees whole batches, and nobody fails."""
    with iqdb.open_in_memory(metric="l2") as db:
        db.upsert_batch(range(500), rows, [{"round": 0}] * 500)
        stop, failures = threading.Event(), []

        def guarded(work):
            def run():
                try:
                    while not stop.is_set():
                        work()
                except BaseException as error:
                    failures.append(error)
                    stop.set()
            return threading.Thread(target=run)

        def read():
            hits = db.search(rows[0], 20, payload=True)
            assert [h.id for h in hits] == [i for i, _ in nearest("l2", rows, rows[0], 20)]
            assert len({h.payload["round"] for h in hits}) == 1

        def loop():
            assert len({r.payload["round"] for r in db.records("round exists")}) == 1

        def write():
            rounds[0] += 1
            db.upsert_batch(range(500), rows, [{"round": rounds[0]}] * 500)
            if rounds[0] == 30:
                stop.set()

        def fail():
            with pytest.raises(iqdb.InvalidInput) as caught:
                db.upsert(1, np.ones(3, np.float32))
            assert caught.value.code == iqdb.Code.DIMENSION_MISMATCH
            assert (caught.value.detail.dim_expected, caught.value.detail.dim_found) == (24, 3)
        rounds = [0]
        threads = [guarded(work) for work in (read, read, loop, write, fail)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == [] and rounds[0] == 30 and len(db) == 500


@pytest.mark.parametrize("round", range(5))
def test_a_handle_is_closed_while_threads_use_it(round, tmp_path, rows):
    """Each call gets its answer, or hears that the handle is closed; the close hears BUSY until there is a gap."""
    db, failures, done = iqdb.open(tmp_path / "db", metric="l2"), [], [0]
    db.upsert_batch(range(500), rows)
    notes = db.collection("notes", metric="l2")
    notes.upsert_batch(range(500), rows)
    rest = threading.Event()

    def run(work):
        try:
            while True:
                work()
                done[0] += 1
                rest.wait(0.002)
        except ValueError as error:
            if "closed" not in str(error):
                failures.append(error)
        except BaseException as error:
            failures.append(error)

    def shares(records=db.records()):
        next(records, None)
        if db.closed:
            raise ValueError("closed")

    def steps():
        assert len(list(notes.cursor(rows[1], 3, predicate=lambda id, payload: id in notes))) == 3
    works = [lambda: db.search(rows[0], 5), lambda: notes.upsert(7, rows[7]), lambda: db.cursor(rows[0], 5).step(),
             lambda: next(notes.records()), steps, shares, shares, lambda: db.collection("notes").close()]
    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    while done[0] < 50 * (round + 1) and not failures:
        rest.wait(0.001)
    while not db.closed:
        try:
            db.close()
        except iqdb.Error as error:
            assert error.code == iqdb.Code.BUSY
            rest.wait(0.0003)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert failures == [] and notes.closed
    with iqdb.open(tmp_path / "db") as db:
        assert len(db) == len(db.collection("notes")) == 500


def test_close_beside_a_call_is_refused(rows):
    inside, leave = threading.Event(), threading.Event()

    def waits(id, payload):
        inside.set()
        return leave.wait(60)
    with iqdb.open_in_memory() as db:
        db.upsert(1, rows[0])
        thread = threading.Thread(target=lambda: db.search(rows[0], 1, predicate=waits))
        thread.start()
        assert inside.wait(60)
        with pytest.raises(iqdb.Error) as caught:
            db.close()
        assert caught.value.code == iqdb.Code.BUSY
        leave.set()
        thread.join()


@pytest.mark.parametrize("metric, ours", [("angular", "cosine"), ("euclidean", "l2")])
def test_ann_benchmarks(metric, ours, rows):
    algorithm = Iqdb(metric)
    with pytest.raises(RuntimeError):
        algorithm.query(rows[0], 1)
    algorithm.fit(rows.astype(np.float64))
    algorithm.set_query_arguments()
    expected = [[i for i, _ in nearest(ours, rows, q, 7)] for q in rows[:5]]
    assert [algorithm.query(q, 7) for q in rows[:5]] == expected
    algorithm.batch_query(rows[:5], 7)
    assert algorithm.get_batch_results() == expected and str(algorithm) == "iqdb(flat)"
    assert algorithm.get_memory_usage() > 500 * 24 * 4 / 1024
    algorithm.done()
    for wrong in (lambda: Iqdb("hamming"), lambda: Iqdb(metric, "tree"), lambda: algorithm.set_query_arguments(5)):
        with pytest.raises(ValueError):
            wrong()
