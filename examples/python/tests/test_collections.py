"""Collections: named parts of a database with ids, dimension and metric of their own."""
import gc
import threading

import numpy as np
import pytest

import iqdb
from conftest import agree, nearest


def test_collections_are_apart_and_found_again(tmp_path, rows):
    with iqdb.open(tmp_path / "db", metric="l2") as db:
        db.upsert_batch(range(500), rows)
        assert db.collection_names() == []
        with db.collection("nötes", metric="dot", dim=3, index_keys={"year": "ordered"}) as notes:
            notes.upsert(7, [1.0, 2.0, 3.0], {"year": 2020})
            assert notes.name == "nötes" and 8 not in notes and len(notes) == 1 and len(db) == 500
            assert notes.stats().metric == "dot" and notes.stats().all_records == 501 and db.stats().collections == 1
            assert notes.search_with_info([1.0, 0.0, 0.0], filter="year = 2020")[0][0].id == 7
            with pytest.raises(iqdb.InvalidInput):
                notes.upsert(8, rows[0])
        assert notes.closed and not db.closed
        db.collection("other").collection("third").close()
        assert db.collection_names() == ["nötes", "other", "third"]
    with iqdb.open(tmp_path / "db") as db:
        notes = db.collection("nötes")
        assert notes.get(7).payload == {"year": 2020} and notes.stats().key_bytes > 0
        with pytest.raises(iqdb.InvalidInput) as caught:
            db.collection("nötes", dim=4)
        assert caught.value.code == iqdb.Code.INVALID_CONFIG
        notes.reindex("hnsw", m=4)
        assert notes.stats().index_wanted == "hnsw" and db.stats().index_wanted == "auto"
    assert notes.closed
    with pytest.raises(ValueError, match="closed"):
        len(notes)
    with iqdb.open(tmp_path / "db", read_only=True) as db:
        assert db.collection("nötes").stats().index_wanted == "hnsw"
        with pytest.raises(iqdb.NotFound):
            db.collection("none")


def test_a_dropped_collection_is_gone(rows):
    with iqdb.open_in_memory() as db:
        notes, again = db.collection("notes"), db.collection("notes")
        notes.upsert_batch(range(500), rows)
        records = again.records()
        assert next(records).id in notes
        db.drop_collection("notes")
        assert db.collection_names() == [] and len(notes) == 0 and 3 not in again
        with pytest.raises(iqdb.NotFound):
            notes.search(rows[0])
        assert len(list(records)) == 499  # it sees what it saw
        with pytest.raises(iqdb.NotFound):
            db.drop_collection("notes")
        assert len(db.collection("notes")) == 0
        notes.close()


def test_a_batch_in_many_collections_is_one(rows):
    with iqdb.open_in_memory() as db, iqdb.open_in_memory() as stranger:
        a, b = db.collection("a"), db.collection("b", dim=2)
        db.apply([iqdb.Upsert(1, rows[0]), iqdb.Upsert(1, rows[1], {"x": 1}, a), iqdb.Upsert(2, [1.0, 2.0], None, b)])
        a.apply([iqdb.Delete(1), iqdb.Upsert(3, rows[2], collection=db), iqdb.Delete(2, b)])
        assert (len(db), len(a), len(b)) == (2, 0, 0) and 3 in db
        for wrong in (iqdb.Upsert(9, rows[0], None, b), iqdb.Delete(1, stranger)):
            with pytest.raises(iqdb.InvalidInput):
                db.apply([iqdb.Delete(1), wrong])
        with pytest.raises(TypeError):
            db.apply([iqdb.Delete(1, "a")])
        b.close()
        with pytest.raises(ValueError, match="closed"):
            db.apply([iqdb.Delete(1), iqdb.Delete(1, b)])
        assert 1 in db


@pytest.mark.parametrize("name, kind", [("", ValueError), ("a\0b", ValueError), ("x" * 256, ValueError),
                                        ("\ud800", ValueError), (b"a", TypeError), (None, TypeError), (3, TypeError)])
def test_names_that_are_none(name, kind, db):
    with pytest.raises(kind):
        db.collection(name)
    with pytest.raises((kind, iqdb.NotFound)):
        db.drop_collection(name)
    assert db.collection_names() == []


def test_a_close_ends_what_lives_on_the_collection_and_no_more(db, rows):
    notes = db.collection("notes", metric="l2")
    notes.upsert_batch(range(500), rows)
    mine, theirs, cursor = notes.records(), db.records(), notes.cursor(rows[0], 5)
    next(mine)
    notes.close()
    notes.close()
    assert list(mine) == [] and len(list(theirs)) == 500
    with pytest.raises(ValueError, match="closed"):
        cursor.step()
    again = db.collection("notes")
    agree(list(again.cursor(rows[0], 5)), nearest("l2", rows, rows[0], 5))
    left = again.records()
    db.close()
    assert again.closed and list(left) == []
    again.close()


def test_closing_beside_and_inside_calls(db, rows):
    notes, codes = db.collection("notes"), []
    notes.upsert_batch(range(500), rows)
    records, inside = notes.records(), notes.records()

    def tries(*unused):
        for handle in (db, notes):
            try:
                handle.close()
                codes.append(None)
            except iqdb.Error as error:
                codes.append(error.code)
        return True
    notes.search(rows[0], 1, predicate=tries)
    list(notes.cursor(rows[0], 1, predicate=tries))
    assert set(codes) == {iqdb.Code.BUSY} and len(list(records)) == 500
    codes.clear()
    db.export_blob(tries)  # of the database, under its lock: there C itself refuses
    assert set(codes) == {iqdb.Code.BUSY} and len(list(inside)) == 500 and len(notes) == 500
    notes.close()
    db.close()


def test_a_close_waits_for_a_writer_that_reads_beside(db, rows):
    """A callback under the lock of C asks for the lock of the handle, while a close has asked for the lock of C."""
    inside, notes, seen = threading.Event(), db.collection("notes"), []

    def piece(data):
        inside.set()
        try:
            seen.append(db.closed or len(db) >= 0)
        except iqdb.Error as error:
            seen.append(error.code)
    export = threading.Thread(target=lambda: [db.export_blob(piece) for _ in range(20)], daemon=True)
    export.start()
    assert inside.wait(60)
    closing = threading.Thread(target=notes.close, daemon=True)
    closing.start()
    for thread in (closing, export):
        thread.join(60)
        assert not thread.is_alive()
    assert notes.closed and seen and all(value is True for value in seen)


def test_collections_that_are_forgotten(tmp_path, rows):
    db = iqdb.open(tmp_path / "db")
    notes = db.collection("notes")
    notes.upsert(1, rows[0])
    notes.ring, records = [notes, db], notes.records()
    del db
    assert len(notes) == 1  # it keeps the database
    del notes, records
    gc.collect()
    with iqdb.open(tmp_path / "db") as db:
        assert len(db.collection("notes")) == 1 and np.array_equal(db.collection("notes")[1].vector, rows[0])
    with iqdb.open(tmp_path / "db") as db:
        for _ in range(3):
            db.collection("notes")  # closed at once
        assert len(db._guard.ends) == 0
