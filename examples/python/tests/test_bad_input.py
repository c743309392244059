"""Whatever is passed in: a clear exception, and everything stays as it was."""
import numpy as np
import pytest

import iqdb

GOOD = np.ones((3, 4), np.float32)


@pytest.fixture
def small():
    with iqdb.open_in_memory(dim=4) as db:
        db.upsert_batch(range(3), GOOD)
        yield db
        assert db.closed or (len(db) == 3 and db.verify() == [])


def shifted():
    """An array that begins at an odd address."""
    return np.frombuffer(bytearray(4 * 12 + 1), np.uint8)[1:].view(np.float32).reshape(3, 4)


MATRICES = [
    (GOOD.astype(np.float64), TypeError, "float32"), (GOOD.astype(np.int32), TypeError, "float32"),
    (GOOD.astype(">f4"), TypeError, "float32"), (GOOD.astype(np.float16), TypeError, "float32"),
    (GOOD.astype(object), TypeError, "float32"), (GOOD.tolist(), TypeError, "numpy"), (None, TypeError, "numpy"),
    ("text", TypeError, "numpy"), (b"bytes" * 8, TypeError, "numpy"),
    (GOOD[0], ValueError, "2 dimensions"), (GOOD[None], ValueError, "2 dimensions"),
    (np.float32(1), TypeError, "numpy"), (np.array(1, np.float32), ValueError, "2 dimensions"),
    (np.asfortranarray(GOOD), ValueError, "contiguous"),
    (np.ones((3, 8), np.float32)[:, ::2], ValueError, "contiguous"),
    (np.ones((6, 4), np.float32)[::2], ValueError, "contiguous"), (GOOD[::-1], ValueError, "contiguous"),
    (shifted(), ValueError, "contiguous"), (np.ones((3, 5), np.float32), iqdb.InvalidInput, "DIMENSION_MISMATCH"),
    (np.ones((3, 0), np.float32), ValueError, "at least one"),
    (np.ones((0, 0), np.float32), ValueError, "at least one"),
    (np.full((3, 4), np.nan, np.float32), iqdb.InvalidInput, "INVALID_VECTOR"),
    (np.full((3, 4), np.inf, np.float32), iqdb.InvalidInput, "INVALID_VECTOR"),
]


@pytest.mark.parametrize("vectors, kind, text", MATRICES, ids=range(len(MATRICES)))
def test_matrices(vectors, kind, text, small):
    with pytest.raises(kind, match=text):
        small.upsert_batch(range(3), vectors)
    with pytest.raises(kind, match=text):
        small.search_batch(vectors, 2)


VECTORS = [(GOOD, ValueError), (np.ones(4), TypeError), (np.ones(8, np.float32)[::2], ValueError), ("1,2", TypeError),
           (None, TypeError), ([1, 2, "x", 4], ValueError), ([[1, 2], [3, 4]], ValueError),
           ([1.0] * 5, iqdb.InvalidInput), ([], ValueError), (np.ones(0, np.float32), ValueError),
           ([float("nan")] * 4, iqdb.InvalidInput), ([1e300] * 4, iqdb.InvalidInput), ({}, TypeError),
           (np.ones(70000, np.float32), iqdb.InvalidInput)]


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("vector, kind", VECTORS, ids=range(len(VECTORS)))
def test_vectors(vector, kind, small):
    for call in (lambda: small.upsert(9, vector), lambda: small.search(vector, 2), lambda: small.cursor(vector, 2),
                 lambda: small.apply([iqdb.Delete(1), iqdb.Upsert(9, vector)])):
        with pytest.raises(kind):
            call()


@pytest.mark.parametrize("ids, kind", [
    ([1, 2], ValueError), ([1, 2, -1], OverflowError), ([1, 2, 2 ** 64], OverflowError), ([1.5, 2, 3], TypeError),
    (np.array([1.0, 2, 3]), TypeError), (["a", "b", "c"], TypeError), ([[1, 2, 3]], ValueError), (None, ValueError),
    (np.arange(6, dtype=np.uint64)[::2], ValueError), ([True, False, True], TypeError)], ids=str)
def test_ids_of_batches(ids, kind, small):
    with pytest.raises(kind):
        small.upsert_batch(ids, GOOD)


@pytest.mark.parametrize("id, kind", [(-1, OverflowError), (2 ** 64, OverflowError), (1.0, TypeError), ("1", TypeError),
                                      (None, TypeError), (True, TypeError)], ids=str)
def test_ids(id, kind, small):
    for call in (lambda: small.upsert(id, GOOD[0]), lambda: small.get(id), lambda: small.delete(id),
                 lambda: id in small, lambda: small.update_payload(id, {})):
        with pytest.raises(kind):
            call()


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


LOOP = []
LOOP.append(LOOP)
PAYLOADS = [([], TypeError), ("text", TypeError), ({1: 2}, TypeError), ({"a": object()}, TypeError),
            ({"a": {1: 2}}, TypeError), ({"a": {1, 2}}, TypeError), ({"a": 1j}, TypeError),
            ({"a": 2 ** 63}, OverflowError),
            ({"a": "\ud800"}, ValueError), ({"\ud800": 1}, ValueError), ({"a\0b": 1}, iqdb.InvalidInput),
            ({"a": nested(64)}, iqdb.InvalidInput), ({"a": LOOP}, iqdb.InvalidInput)]


@pytest.mark.parametrize("payload, kind", PAYLOADS, ids=range(len(PAYLOADS)))
def test_payloads(payload, kind, small):
    for call in (lambda: small.upsert(9, GOOD[0], payload), lambda: small.update_payload(1, payload),
                 lambda: small.upsert_batch(range(3), GOOD, [None, payload, None])):
        with pytest.raises(kind):
            call()


def test_deepest_payload(small):
    small.upsert(1, GOOD[0], {"a": nested(63)})
    assert small.get(1).payload == {"a": nested(63)}


def test_payloads_of_a_batch_that_are_too_few(small):
    with pytest.raises(ValueError, match="2 payloads for 3 vectors"):
        small.upsert_batch(range(3), GOOD, [None, None])


def doubled(times):
    made = iqdb.key("a") == 1
    for _ in range(times):
        made = made & made
    return made


FILTERS = ["kind =", "and", "a = 'x", "a = 1)", "(" * 70 + "a = 1" + ")" * 70, iqdb.key("a") == [1],
           iqdb.key("a") < {"b": 1},
           iqdb.key("a").is_in(range(2000)), doubled(40),
           iqdb.key("a").prefix("x\0y"), iqdb.key("a\0b") == 1]


@pytest.mark.parametrize("condition", FILTERS, ids=range(len(FILTERS)))
def test_filters(condition, small):
    for call in (lambda: small.count(condition), lambda: small.search(GOOD[0], 1, filter=condition),
                 lambda: small.search_batch(GOOD, 1, filter=condition), lambda: small.delete_where(condition),
                 lambda: small.cursor(GOOD[0], 1, filter=condition), lambda: list(small.records(condition))):
        with pytest.raises(iqdb.InvalidInput):
            call()


@pytest.mark.parametrize("condition", [1, ["a"], b"a = 1", iqdb.key("a"), {"a": 1}], ids=str)
def test_what_is_no_filter(condition, small):
    with pytest.raises(TypeError):
        small.count(condition)


def test_filters_are_no_truth_values():
    with pytest.raises(TypeError, match="truth"):
        bool((iqdb.key("a") == 1) and (iqdb.key("b") == 2))
    with pytest.raises(TypeError):
        (iqdb.key("a") == 1) & "b = 2"


def test_numbers_out_of_range(small):
    for call in (lambda: small.search(GOOD[0], -1), lambda: small.search_batch(GOOD, -1),
                 lambda: small.cursor(GOOD[0], -1), lambda: small.search(GOOD[0], 1, deadline_us=-1),
                 lambda: small.search(GOOD[0], 1, deadline_us=2 ** 32), lambda: small.maintain(-1),
                 lambda: small.reserve(-1)):
        with pytest.raises((OverflowError, ValueError)):
            call()
    with pytest.raises(iqdb.Error):
        small.reserve(2 ** 40)
    for nan in (lambda: small.search(GOOD[0], 1, max_distance=float("nan")),
                lambda: small.search(GOOD[0], 1, after=(1, float("nan")))):
        with pytest.raises(iqdb.InvalidInput):
            nan()


@pytest.mark.parametrize("options", [{"metric": "hamming"}, {"metric": 3}, {"index": "tree"}, {"index": []}], ids=str)
def test_options_that_do_not_exist(options, tmp_path):
    with pytest.raises(ValueError, match="there are ('auto', 'flat', 'hnsw', 'ivf'|'l2', 'cosine', 'dot', 'l1')$"):
        iqdb.open_in_memory(**options)
    with pytest.raises(ValueError):
        iqdb.open(tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_a_zero_ends_no_text(small, tmp_path):
    """Not that of a path, which would be another one."""
    path = str(tmp_path / "db") + "\0x"
    for call in (lambda: iqdb.open(path), lambda: iqdb.open(path.encode()), lambda: iqdb.inspect(path),
                 lambda: iqdb.repair(path), lambda: iqdb.repair(tmp_path, path), lambda: small.backup(path),
                 lambda: iqdb.open_in_memory(model="a\0b")):
        with pytest.raises(ValueError, match="U\\+0000"):
            call()
    with pytest.raises(TypeError):
        iqdb.open_in_memory(model=3)
    assert list(tmp_path.iterdir()) == []


def test_metric_and_depth_of_calls(small):
    for call in (lambda: small.search(GOOD[0], 1, metric="x"), lambda: small.verify("x"),
                 lambda: iqdb.distance("x", [1.0], [1.0])):
        with pytest.raises(ValueError, match="there are"):
            call()
    with pytest.raises(iqdb.InvalidInput):
        iqdb.distance("l2", [1.0], [1.0, 2.0])


def test_closed_handles(tmp_path):
    db = iqdb.open(tmp_path / "db", dim=4)
    db.upsert(1, GOOD[0])
    records, cursor = db.records(), db.cursor(GOOD[0])
    db.close()
    db.close()
    assert db.closed
    calls = (db.flush, db.checkpoint, db.verify, db.stats, db.export_blob, lambda: db.maintain(1), lambda: len(db),
             lambda: db.backup(tmp_path / "b"), lambda: db.upsert(1, GOOD[0]), lambda: db.upsert_batch([1], GOOD[:1]),
             lambda: db.apply([]), lambda: db.update_payload(1, {}), lambda: db.delete(1), lambda: db.delete_batch([1]),
             lambda: db.delete_where("a = 1"), lambda: db.reserve(1), lambda: db.get(1), lambda: 1 in db, db.count,
             lambda: iter(db), lambda: db.search(GOOD[0]), lambda: db.search_batch(GOOD), lambda: db.cursor(GOOD[0]),
             db.__enter__, lambda: db.simd, cursor.step)
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()
    assert list(records) == []


def test_every_code_has_its_name_and_text():
    from iqdb._native import ffi, lib
    codes = {name[len("IQDB_ERR_"):]: getattr(lib, name) for name in dir(lib) if name.startswith("IQDB_ERR_")}
    assert codes == {code.name: code.value for code in iqdb.Code} and len(codes) == 19
    for code in iqdb.Code:
        assert ffi.string(lib.iqdb_strerror(code)).decode() in str(iqdb.Error(code))
