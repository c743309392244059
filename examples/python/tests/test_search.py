"""Every kind of search against numpy in double precision."""
import itertools
import threading

import numpy as np
import pytest

import iqdb
from conftest import METRICS, agree, nearest


@pytest.mark.parametrize("metric", METRICS)
def test_search_and_batch_against_the_model(metric, rows):
    queries = np.random.default_rng(8).standard_normal((20, 24)).astype(np.float32)
    with iqdb.open_in_memory(metric=metric) as db:
        db.upsert_batch(range(500), rows)
        batch = db.search_batch(queries, 10)
        assert batch.ids.shape == batch.scores.shape == (20, 10) and batch.ids.dtype == np.uint64 and len(batch) == 20
        for i, query in enumerate(queries):
            agree(db.search(query, 10), nearest(metric, rows, query, 10))
            agree(db.search(list(map(float, query)), 3, metric="l1"), nearest("l1", rows, query, 3))
            assert db.search(query, 10) == batch[i]


def test_the_views_share_memory(db, rows):
    batch = db.search_batch(rows[:4], 5)
    assert np.shares_memory(batch.ids, batch.hits) and np.shares_memory(batch.scores, batch.hits)


def test_fewer_hits_than_k(rows):
    with iqdb.open_in_memory() as db:
        assert db.search(rows[0], 3) == [] and db.search_batch(rows[:2], 3).counts.tolist() == [0, 0]
        db.upsert_batch([7, 8], rows[:2])
        batch = db.search_batch(rows[:3], 4)
        assert batch.counts.tolist() == [2, 2, 2] and (batch.ids[:, 2:] == 2 ** 64 - 1).all()
        assert np.isinf(batch.scores[:, 2:]).all() and len(db.search(rows[0], 10 ** 9)) == 2
        assert db.search(rows[0], 0) == [] and db.search_batch(rows[:2], 0).ids.shape == (2, 0)
        assert len(db.search_batch(rows[:0], 3)) == 0


FILTERS = [
    ("kind = 'odd'", iqdb.key("kind") == "odd", lambda i: i % 2 == 1),
    ("kind != 'odd' and i < 100", (iqdb.key("kind") != "odd") & (iqdb.key("i") < 100),
     lambda i: i % 2 == 0 and i < 100),
    ("i between 50 and 59 or i >= 495", iqdb.key("i").between(50, 59) | (iqdb.key("i") >= 495),
     lambda i: 50 <= i <= 59 or i >= 495),
    ("i in (1, 2.0, 3)", iqdb.key("i").is_in([1, 2.0, 3]), lambda i: i in (1, 2, 3)),
    ("tags contains 't3' and not i > 300", iqdb.key("tags").contains("t3") & ~(iqdb.key("i") > 300),
     lambda i: i % 5 == 3 and i <= 300),
    ("kind prefix 'e' and i <= 7", iqdb.every([iqdb.key("kind").prefix("e"), iqdb.key("i") <= 7]),
     lambda i: i % 2 == 0 and i <= 7),
    ("missing exists or missing is null", iqdb.key("missing").exists() | iqdb.key("missing").is_null(),
     lambda i: False),
    ("i exists and not i is null", iqdb.any_of([iqdb.key("i").exists()]) & ~iqdb.key("i").is_null(), lambda i: True),
]


@pytest.mark.parametrize("text, built, rule", FILTERS, ids=[text for text, _, _ in FILTERS])
def test_filters_as_text_and_built(text, built, rule, db, rows):
    allowed = np.array([rule(i) for i in range(500)])
    expected = nearest("l2", rows, rows[0] * 0.9, 10, allowed)
    for condition in (text, built):
        assert db.count(condition) == allowed.sum()
        agree(db.search(rows[0] * np.float32(0.9), 10, filter=condition), expected)
        assert db.search_batch(rows[:1] * np.float32(0.9), 10, filter=condition)[0] == \
            db.search(rows[0] * np.float32(0.9), 10, filter=condition)
    assert "Filter(" in repr(built)


def test_payloads_come_along(db, rows):
    assert all(hit.payload["i"] == hit.id for hit in db.search(rows[5], 20, payload=True))
    batch = db.search_batch(rows[:3], 4, payload=True)
    assert [[p["i"] for p in query] for query in batch.payloads] == batch.ids.tolist()
    assert batch[2][0].payload["i"] == 2 and db.search(rows[5], 1)[0].payload is None


def test_predicates(db, rows):
    hits = db.search(rows[0], 5, predicate=lambda id, payload: id % 7 == 0 and payload["i"] == id)
    agree(hits, nearest("l2", rows, rows[0], 5, np.arange(500) % 7 == 0))

    def fails(id, payload):
        raise KeyError("mine")
    for call in (lambda: db.search(rows[0], 5, predicate=fails),
                 lambda: db.search_batch(rows[:2], 5, predicate=fails),
                 lambda: list(db.cursor(rows[0], 5, predicate=fails))):
        with pytest.raises(KeyError, match="mine"):
            call()


def test_what_comes_before_a_callback_can_catch_it_is_raised(db, rows, monkeypatch):
    """A signal may; or records would be left out in silence."""
    def interrupted(*unused):
        raise KeyboardInterrupt("here")
    monkeypatch.setattr(iqdb.database._Query, "decide", interrupted)
    monkeypatch.setattr(iqdb.database._Sink, "take", interrupted)
    for call in (lambda: db.search(rows[0], 5, predicate=bool), lambda: db.search_batch(rows[:2], predicate=bool),
                 lambda: list(db.cursor(rows[0], predicate=bool)), db.export_blob):
        with pytest.raises(KeyboardInterrupt, match="here"):
            call()


def test_a_predicate_may_use_the_handle_but_not_close_it(db, rows):
    codes = []

    def reads(id, payload):
        assert db.get(id).id == id
        try:
            db.close()
        except iqdb.Error as error:
            codes.append(error.code)
        return True
    assert len(db.search(rows[0], 2, predicate=reads)) == 2 and set(codes) == {iqdb.Code.BUSY}
    assert not db.closed


def ended(work, seconds=60):
    """Does it in a thread, so that a test fails, and does not hang, where it waits for itself for ever."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive()


def test_a_predicate_of_a_cursor_may_neither_close_nor_step_it(rows):
    db = iqdb.open_in_memory(metric="l2")  # without `with`, which would wait for the thread that waits
    db.upsert_batch(range(500), rows)
    records, other, codes, found = db.records(), db.cursor(rows[0], 3), [], []

    def reads(id, payload):
        assert db.get(id).id == id
        for call in (db.close, cursor.close, cursor.step, lambda: cursor.__exit__(None, None, None)):
            try:
                call()
                codes.append(None)
            except iqdb.Error as error:
                codes.append(error.code)
        return id % 2 == 0
    cursor = db.cursor(rows[0], 5, predicate=reads)
    ended(lambda: found.extend(cursor))
    assert set(codes) == {iqdb.Code.BUSY} and not db.closed
    agree(found, nearest("l2", rows, rows[0], 5, np.arange(500) % 2 == 0))
    assert len(list(records)) == 500 and len(list(other)) == 3  # a close that was refused has ended none
    ended(cursor.close)
    with pytest.raises(ValueError, match="closed"):
        cursor.step()
    ended(db.close)


def test_a_predicate_may_end_and_use_others(db, rows):
    left = [db.cursor(rows[0], 3) for _ in range(600)]
    records = db.records()

    def ends(id, payload):
        left.pop().close()
        next(records, None)
        return True
    assert len(list(db.cursor(rows[0], 5, predicate=ends))) == 5
    db.close()


def test_close_beside_a_step_is_refused(db, rows):
    inside, leave, records, found = threading.Event(), threading.Event(), db.records(), []

    def waits(id, payload):
        inside.set()
        return leave.wait(60)
    cursor = db.cursor(rows[0], 2, predicate=waits)
    thread = threading.Thread(target=lambda: found.extend(cursor))
    thread.start()
    assert inside.wait(60)
    with pytest.raises(iqdb.Error) as caught:
        db.close()
    assert caught.value.code == iqdb.Code.BUSY and not db.closed
    leave.set()
    thread.join()
    assert len(found) == 2 and len(list(records)) == 500


def test_threads_share_an_iterator_and_a_close_waits_for_nobody(db):
    seen, records = [], db.records()
    threads = [threading.Thread(target=lambda: seen.extend(record.id for record in records)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(500))


def test_limits_and_pages(db, rows):
    expected = nearest("l2", rows, rows[0], 500)
    near = db.search(rows[0], 500, max_distance=expected[20][1] + 1e-4)
    agree(near, expected[:21])
    pages, page = [], db.search(rows[0], 64)
    while page:
        pages += page
        page = db.search(rows[0], 64, after=page[-1])
    agree(pages, expected)
    assert db.search(rows[0], 3, after=(pages[4].id, pages[4].score)) == pages[5:8]


def test_cursors(db, rows):
    expected = db.search(rows[0], 100, payload=True)
    with db.cursor(rows[0], 100, payload=True) as cursor:
        db.delete_where(iqdb.every([]))  # it sees the records of its beginning
        found, done = [], False
        while not done:
            hits, done = cursor.step(1, 7)
            found += hits
        assert found == expected
    with pytest.raises(ValueError, match="closed"):
        cursor.step()
    db.cursor(rows[0], 3)
    db.close()


def test_deadline_and_cancel(db, rows):
    hits, info = db.search_with_info(rows[0], 5, deadline_us=60_000_000)
    assert len(hits) == 5 and info.complete and info.exact and info.rows_visited >= 500
    cancel = iqdb.Cancel()
    cancel.request()
    with pytest.raises(iqdb.Cancelled):
        db.search(rows[0], 5, cancel=cancel)
    cancel.reset()
    assert len(db.search(rows[0], 5, cancel=cancel)) == 5


def test_vectors_without_a_database(rows):
    for metric, (i, j) in itertools.product(METRICS, [(0, 1), (2, 3)]):
        (_, expected), = nearest(metric, rows[i:i + 1], rows[j], 1)
        assert iqdb.distance(metric, rows[j], rows[i]) == pytest.approx(expected, rel=1e-5)
    assert iqdb.norm([3.0, 4.0]) == 5.0


def test_other_threads_run_beside_a_search(rows):
    """The lock of the interpreter is free while C works: a thread of Python gets on during one long call."""
    many = np.random.default_rng(1).standard_normal((20000, 128)).astype(np.float32)
    with iqdb.open_in_memory() as db:
        done = threading.Event()
        searcher = threading.Thread(target=lambda: (db.search_batch(many[:2000], 10), done.set()))
        for call in (lambda: db.upsert_batch(range(20000), many), searcher.start):
            call()
        steps = 0
        while not done.is_set():
            steps += 1
            if steps % 100 == 0:
                done.wait(0.0001)
        searcher.join()
        assert steps >= 100
