"""Which index there is, how widely it is searched, and what it finds, against numpy in double precision."""
import numpy as np
import pytest

import iqdb
from conftest import agree, nearest
from iqdb._native import ffi, lib
from iqdb.ann_benchmarks import Iqdb

K = 10


@pytest.fixture(scope="module")
def many():
    return np.random.default_rng(11).standard_normal((60000, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def queries():
    return np.random.default_rng(12).standard_normal((40, 8)).astype(np.float32)


def truth(rows, queries):
    return [[i for i, _ in nearest("l2", rows, query, K)] for query in queries]


def recall(found, expected):
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found, expected)]))


def maintained(db):
    while not db.maintain(1_000_000):
        pass
    return db


def filled(rows, **options):
    db = iqdb.open_in_memory(metric="l2", **options)
    db.upsert_batch(range(len(rows)), rows)
    return maintained(db)


def hits_of(db, queries, **asked):
    return db.search_batch(queries, K, **asked).ids.tolist()


@pytest.mark.parametrize("index, exact, kind", [("flat", True, "flat"), ("ivf", False, "ivf"), ("auto", False, "ivf"),
                                                (None, False, "ivf")])
def test_the_index_that_is_asked_for_is_made(index, exact, kind, many, queries):
    expected = truth(many, queries)
    with filled(many, index=index) as db:
        info = db.search_with_info(queries[0], K)[1]
        assert info.exact == exact and info.plan in (("scan", "codes") if exact else ("lists",))
        assert db.search_batch_with_info(queries, K)[1].exact == exact
        assert (db.stats().index, db.stats().index_wanted) == (kind, index or "auto")
        found = hits_of(db, queries)
        assert found == expected if exact else recall(found, expected) >= 0.9
        assert db.search_with_info(queries[0], K, exact=True)[1].exact and hits_of(db, queries, exact=True) == expected


@pytest.mark.parametrize("index, knobs, asked, plan", [
    ("ivf", {"nlist": 100}, {"nprobe": 100}, "lists"),
    ("hnsw", {"m": 8, "ef_construction": 100}, {"ef": 200}, "graph")])
def test_a_wider_search_finds_more(index, knobs, asked, plan, many, queries):
    rows, (name,) = many[:6000], asked
    expected = truth(rows, queries)
    with filled(rows, index=index, **knobs) as db:
        stats = db.stats()
        assert stats.index == index and stats.index_rows == 6000 and stats.index_bytes > 0 and stats.tail_rows == 0
        assert all(getattr(stats, knob) == value for knob, value in knobs.items())
        found = {n: recall(hits_of(db, queries, **{name: n}), expected) for n in (1, asked[name])}
        assert found[1] < found[asked[name]] and found[asked[name]] >= 0.98
        assert recall(hits_of(db, queries), expected) >= 0.9
        _, info = db.search_with_info(queries[0], K, **asked)
        assert info.plan == plan and not info.exact and 0 < info.rows_compared
        assert db.measure_recall(queries, K, **asked) == pytest.approx(found[asked[name]], abs=1e-9)
        assert db.measure_recall(k=K, count=50, **asked) > db.measure_recall(k=K, count=50, **{name: 1}) > 0
        db.tune(0.6, queries)
        low = db.measure_recall(queries, K)
        db.tune(0.99, queries)
        assert low < db.measure_recall(queries, K) and db.measure_recall(queries, K) >= 0.95
        db.tune(0.9)


def test_an_index_is_chosen_anew_and_the_directory_remembers(many, tmp_path):
    rows = many[:3000]
    with iqdb.open(tmp_path / "db", metric="l2", index="flat") as db:
        db.upsert_batch(range(3000), rows)
        assert maintained(db).stats().index == "flat"
        db.reindex("hnsw", m=4, ef_search=50)
        assert maintained(db).stats().index == "hnsw"
        stats = db.stats()
        assert (stats.index_wanted, stats.m, stats.ef_search) == ("hnsw", 4, 50)
    with iqdb.open(tmp_path / "db") as db:
        assert maintained(db).stats().index == "hnsw" and db.stats().m == 4
    with pytest.raises(iqdb.InvalidInput) as caught:
        iqdb.open(tmp_path / "db", index="ivf")
    assert caught.value.code == iqdb.Code.INVALID_CONFIG
    with iqdb.open(tmp_path / "db") as db:
        db.reindex("ivf", nlist=20, seed=5)
        assert maintained(db).stats().index == "ivf" and (db.stats().index_lists, db.stats().seed) == (20, 5)
        db.reindex()
        assert db.stats().index_wanted == "auto"
        blob = db.export_blob()
    with iqdb.load_blob(blob, index="hnsw", m=6) as db:
        assert maintained(db).stats().index == "hnsw" and db.stats().m == 6


@pytest.mark.parametrize("call", [
    lambda db: db.reindex("tree"), lambda db: db.reindex(nlist=-1), lambda db: db.reindex("hnsw", m="4"),
    lambda db: db.tune(0.0), lambda db: db.tune(1.0), lambda db: db.tune(float("nan")), lambda db: db.tune("x"),
    lambda db: db.tune(0.9, np.ones((2, 23), np.float32)), lambda db: db.tune(0.9, np.ones((2, 24))),
    lambda db: db.tune(0.9, np.ones(24, np.float32)), lambda db: db.tune(0.9, np.ones((10001, 24), np.float32)),
    lambda db: db.tune(0.9, np.ones((2, 48), np.float32)[:, ::2]), lambda db: db.measure_recall([[1.0] * 24]),
    lambda db: db.measure_recall(np.ones((2, 25), np.float32)), lambda db: db.measure_recall(count=-1),
    lambda db: db.measure_recall(np.full((2, 24), np.nan, np.float32)), lambda db: db.measure_recall(k=-1),
    lambda db: db.search([1.0] * 24, nprobe=-1), lambda db: db.search([1.0] * 24, ef=2 ** 32),
    lambda db: db.search([1.0] * 24, ef=1.5), lambda db: db.search([1.0] * 24, group_by=3),
    lambda db: db.search([1.0] * 24, group_by="a\0b"), lambda db: db.search([1.0] * 24, ids=[-1]),
    lambda db: db.search([1.0] * 24, ids=["x"]), lambda db: db.search([1.0] * 24, ids=3),
    lambda db: iqdb.open_in_memory(index_keys=["year"]), lambda db: iqdb.open_in_memory(index_keys={"year": "tree"}),
    lambda db: iqdb.open_in_memory(index_keys={"a\0b": "hash"}), lambda db: iqdb.open_in_memory(index_keys={3: "hash"}),
    lambda db: iqdb.open_in_memory(index_keys={"x" * 256: "hash"}), lambda db: iqdb.open_in_memory(nlist=-1),
    lambda db: iqdb.open_in_memory(index_keys={"k%d" % i: "hash" for i in range(33)})])
def test_what_makes_no_sense(call, db):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        call(db)
    assert len(db) == 500 and db.verify() == []


def test_queries_of_an_empty_collection_are_not_read():
    with iqdb.open_in_memory(index="ivf") as db:
        db.tune(0.9, np.ones((3, 2), np.float32))
        db.tune(0.9)
        assert db.measure_recall(np.ones((3, 2), np.float32)) == 1.0 and db.measure_recall() == 1.0


def test_vectors_of_other_elements_are_not_searched_by_floats(tmp_path):
    options, out, record = ffi.new("iqdb_options *"), ffi.new("iqdb **"), ffi.new("iqdb_record *")
    lib.iqpy_options(options)
    options.element, raw = lib.IQDB_ELEMENT_I8, ffi.new("int8_t[4]", [1, 2, 3, 4])
    record.id, record.raw, record.dim = 1, raw, 4
    path = str(tmp_path / "db").encode()
    assert not any((lib.iqdb_open(path, options, out), lib.iqdb_upsert(out[0], record), lib.iqdb_close(out[0])))
    queries = np.ones((2, 4), np.float32)
    with iqdb.open(tmp_path / "db") as db:
        for call in (lambda: db.search(queries[0]), lambda: db.search_batch(queries), lambda: db.cursor(queries[0]),
                     lambda: db.measure_recall(queries), lambda: db.tune(0.9, queries)):
            with pytest.raises(iqdb.Error):
                call()


def test_indexed_keys_change_no_answer_and_stay(rows, tmp_path):
    payloads = [{"i": i, "kind": "even" if i % 2 == 0 else "odd"} for i in range(500)]
    with iqdb.open(tmp_path / "db", metric="l2", index_keys={"i": "ordered", "kind": "hash"}) as db:
        db.upsert_batch(range(500), rows, payloads)
        allowed = np.arange(500) < 5
        hits, info = db.search_with_info(rows[0], 3, filter="i < 5")
        agree(hits, nearest("l2", rows, rows[0], 3, allowed))
        assert info.plan == "keys" and db.count("kind = 'odd'") == 250 and db.stats().key_bytes > 0
    with iqdb.open(tmp_path / "db") as db:
        assert db.search_with_info(rows[0], 3, filter="i < 5")[1].plan == "keys"
    with iqdb.open(tmp_path / "db", index_keys={}) as db:
        assert db.search_with_info(rows[0], 3, filter="i < 5")[1].plan != "keys"


def test_groups_and_ids(db, rows):
    order = nearest("l2", rows, rows[3], 500)
    best = [next(hit for hit in order if hit[0] % 5 == t) for t in range(5)]
    for record in range(500):
        db.update_payload(record, {"group": record % 5})
    agree(db.search(rows[3], 7, group_by="group"), sorted(best, key=lambda hit: hit[1]))
    agree(list(db.cursor(rows[3], 7, group_by="group")), sorted(best, key=lambda hit: hit[1]))
    assert db.search_batch(rows[3:4], 2, group_by="kind").counts.tolist() == [2]
    ids = np.array([400, 7, 3, 9, 2 ** 64 - 1], np.uint64)
    allowed = np.isin(np.arange(500), ids.astype(np.int64))
    for asked in (ids, ids.tolist(), tuple(ids.tolist())):
        agree(db.search(rows[3], 10, ids=asked), nearest("l2", rows, rows[3], 10, allowed))
        agree(list(db.cursor(rows[3], 10, ids=asked)), nearest("l2", rows, rows[3], 10, allowed))
    assert db.search(rows[3], 10, ids=[]) == [] and db.search_batch(rows[:2], 3, ids=[]).counts.tolist() == [0, 0]


@pytest.mark.parametrize("index, knobs, wide, name", [
    ("ivf", {"nlist": 60}, 60, "iqdb(ivf, nlist=60, nprobe=60)"),
    ("hnsw", {"m": 8, "ef_construction": 100}, 300, "iqdb(hnsw, ef_construction=100, m=8, ef=300)")])
def test_ann_benchmarks_with_an_index(index, knobs, wide, name, many, queries):
    rows = many[:5000]
    expected = truth(rows, queries)
    algorithm = Iqdb("euclidean", index, knobs)
    assert str(algorithm) == name.rsplit(", ", 1)[0] + ")"
    algorithm.fit(rows)
    flat = Iqdb("euclidean", "flat")
    flat.fit(rows)
    assert algorithm.get_memory_usage() > flat.get_memory_usage()
    found = {}
    for width in (1, wide):
        algorithm.set_query_arguments(width)
        algorithm.batch_query(queries, K)
        single = [algorithm.query(query, K) for query in queries]
        assert algorithm.get_batch_results() == single
        found[width] = recall(single, expected)
    assert str(algorithm) == name and found[1] < found[wide] and found[wide] >= 0.9
    algorithm.set_query_arguments()
    assert recall([algorithm.query(query, K) for query in queries], expected) >= 0.9
    for wrong in (lambda: algorithm.set_query_arguments(1, 2), lambda: algorithm.set_query_arguments(-1),
                  lambda: Iqdb("euclidean", index, {"width": 3}), lambda: Iqdb("euclidean", "flat", {"nlist": 3})):
        with pytest.raises((TypeError, ValueError)):
            wrong()
    algorithm.done()
    flat.done()
