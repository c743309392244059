"""Writing and reading: what is read back is what was stored."""
import math
import struct

import numpy as np
import pytest

import iqdb
from iqdb._native import ffi, lib

PAYLOADS = [
    {}, {"a": None}, {"a": True, "b": False}, {"i": 2 ** 63 - 1, "j": -2 ** 63}, {"x": 0.1, "y": -0.0, "z": 5e-324},
    {"t": "", "u": "a\0b", "ü": "日本"}, {"b": b"", "c": b"\0\xff"},
    {"l": [], "m": [1, [2, ["x", None]], {"k": [b"z"]}]},
    {"o": {}, "p": {"q": {"r": 1}}}, {"inf": math.inf, "ninf": -math.inf}, {"$bytes": "00ff", "$float": "nan"},
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_payloads_come_back(payload):
    with iqdb.open_in_memory() as db:
        db.upsert(1, [1.0, 2.0], payload)
        found = db.get(1).payload
        assert found == payload
        assert [type(v) for v in found.values()] == [type(payload[k]) for k in found]


def test_absent_and_empty_payloads_differ():
    with iqdb.open_in_memory() as db:
        db.upsert(1, [1.0])
        db.upsert(2, [1.0], {})
        assert db.get(1).payload is None and db.get(2).payload == {}


def test_nan_and_numpy_scalars():
    with iqdb.open_in_memory() as db:
        db.upsert(1, [1.0], {"n": math.nan, "i": np.int32(-4), "u": np.uint8(200), "f": np.float32(0.5),
                             "b": np.bool_(True), "v": memoryview(b"ab"), "w": bytearray(b"cd"), "t": (1, 2)})
        found = db.get(1).payload
        assert math.isnan(found.pop("n"))
        assert found == {"i": -4, "u": 200, "f": 0.5, "b": True, "v": b"ab", "w": b"cd", "t": [1, 2]}


def test_vectors_come_back_bit_for_bit(rows):
    rows[0, :3] = struct.unpack("<3f", bytes.fromhex("00000080" "01000000" "ffff7f7f"))  # -0.0, subnormal, largest
    with iqdb.open_in_memory() as db:
        db.upsert_batch(np.arange(len(rows), dtype=np.uint64), rows)
        for i in (0, 1, 499):
            found = db.get(i).vector
            assert found.tobytes() == rows[i].tobytes() and not found.flags.writeable


def test_a_vector_outlives_its_database(rows):
    with iqdb.open_in_memory() as db:
        db.upsert(1, rows[0])
        vector = db[1].vector
        db.upsert(1, rows[1])
    assert np.array_equal(vector, rows[0])


def test_vectors_of_other_elements_are_refused_not_misread(tmp_path):
    """The package makes none, but the command line does."""
    options, out, record = ffi.new("iqdb_options *"), ffi.new("iqdb **"), ffi.new("iqdb_record *")
    lib.iqpy_options(options)
    options.element, raw = lib.IQDB_ELEMENT_I8, ffi.new("int8_t[4]", [1, 2, 3, 4])
    record.id, record.raw, record.dim = 1, raw, 4
    path = str(tmp_path / "db").encode()
    assert not any((lib.iqdb_open(path, options, out), lib.iqdb_upsert(out[0], record), lib.iqdb_close(out[0])))
    with iqdb.open(tmp_path / "db") as db:
        for call in (lambda: db.get(1), lambda: next(iter(db))):
            with pytest.raises(iqdb.Error, match="32-bit floats") as caught:
                call()
            assert caught.value.code == iqdb.Code.NOT_IMPLEMENTED
        assert len(db) == 1 and db.delete(1)


def test_replace_delete_and_count(db, rows):
    assert len(db) == 500 and 3 in db and 500 not in db and bool(db)
    db.upsert(3, rows[4])
    assert len(db) == 500 and db.get(3).payload is None
    assert db.delete(3) is True and db.delete(3) is False and 3 not in db
    assert db.delete_batch([3, 4, 5, 2 ** 64 - 1]) == 2
    assert db.delete_where("kind = 'odd'") == 248 and len(db) == 249
    assert db.delete_where(iqdb.every([])) == 249 and len(db) == 0
    with pytest.raises(iqdb.NotFound) as caught:
        db.get(3)
    assert caught.value.code == iqdb.Code.NOT_FOUND and isinstance(caught.value, KeyError)


def test_an_update_of_the_payload_keeps_the_vector(db, rows):
    db.update_payload(7, {"kind": "prime", "tags": iqdb.REMOVE, "new": [1]})
    record = db.get(7)
    assert record.payload == {"i": 7, "kind": "prime", "new": [1]} and np.array_equal(record.vector, rows[7])
    with pytest.raises(iqdb.NotFound):
        db.update_payload(1000, {})


def test_apply_is_one_batch(db, rows):
    db.apply([iqdb.Upsert(1000, rows[0], {"a": 1}), iqdb.Delete(0), iqdb.Upsert(1001, list(map(float, rows[1])))])
    assert len(db) == 501 and 0 not in db and db.get(1000).payload == {"a": 1}
    with pytest.raises(iqdb.InvalidInput):
        db.apply([iqdb.Delete(1), iqdb.Upsert(2, [1.0])])
    assert 1 in db
    db.apply([])


def test_iteration_sees_one_state(db, rows):
    seen = set()
    for record in db:
        seen.add(record.id)
        assert np.array_equal(record.vector, rows[record.id]) and record.payload["i"] == record.id
        db.delete(record.id)
    assert seen == set(range(500)) and len(db) == 0


def test_iteration_with_a_filter_and_a_break(db):
    assert sorted(r.id for r in db.records("i < 10")) == list(range(10))
    with db.records() as records:
        first = next(records)
    with pytest.raises(StopIteration):
        next(records)
    assert first.id in db
    db.close()  # with an iterator that nobody has ended: it is ended by close
    assert db.closed


def test_batches_with_some_payloads(rows):
    with iqdb.open_in_memory() as db:
        db.upsert_batch([5, 6, 5], rows[:3], [None, {"a": 1}, {"a": 2}])
        assert len(db) == 2 and db.get(5).payload == {"a": 2} and np.array_equal(db.get(5).vector, rows[2])
        db.upsert_batch([], rows[:0])
        db.reserve(1000)


@pytest.mark.parametrize("ids", [range(2), [0, 1], (0, 1), np.arange(2), np.array([0, 1], np.uint8)],
                         ids=lambda ids: type(ids).__name__)
def test_ids_of_any_integer_kind(ids, rows):
    with iqdb.open_in_memory() as db:
        db.upsert_batch(ids, rows[:2])
        assert 0 in db and 1 in db


def test_ids_of_64_bits(rows):
    with iqdb.open_in_memory() as db:
        db.upsert_batch([2 ** 64 - 1, 0], rows[:2])
        assert db.get(2 ** 64 - 1).id == 2 ** 64 - 1 and db.search(rows[0], 1)[0].id == 2 ** 64 - 1
