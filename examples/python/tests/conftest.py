"""What the tests share: reproducible vectors, and a model that is plain numpy in double precision."""
import numpy as np
import pytest

import iqdb

METRICS = ("l2", "cosine", "dot", "l1")


def scores(metric, rows, query):
    """Of every row, in double precision: the definition of each metric."""
    rows, query = rows.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        return np.sqrt(((rows - query) ** 2).sum(1))
    if metric == "l1":
        return np.abs(rows - query).sum(1)
    dots = rows @ query
    if metric == "dot":
        return -dots
    return 1 - dots / (np.linalg.norm(rows, axis=1) * np.linalg.norm(query))


def nearest(metric, rows, query, k, allowed=None):
    """[(id, score)] by the model; ids are row numbers."""
    found = scores(metric, rows, query)
    ids = np.arange(len(rows)) if allowed is None else np.flatnonzero(allowed)
    order = ids[np.argsort(found[ids], kind="stable")][:k]
    return [(int(i), float(found[i])) for i in order]


def agree(hits, expected):
    assert [hit.id for hit in hits] == [i for i, _ in expected]
    assert np.allclose([hit.score for hit in hits], [s for _, s in expected], rtol=1e-5, atol=1e-6)


@pytest.fixture
def rows():
    return np.random.default_rng(7).standard_normal((500, 24)).astype(np.float32)


@pytest.fixture
def db(rows):
    with iqdb.open_in_memory(metric="l2") as database:
        database.upsert_batch(range(len(rows)), rows,
                              [{"i": i, "kind": "even" if i % 2 == 0 else "odd", "tags": ["t%d" % (i % 5)]}
                               for i in range(len(rows))])
        yield database
