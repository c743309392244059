"""The algorithm class that ann-benchmarks runs; with it, in config.yml of that project:

    float:
      any:
      - base_args: ['@metric']
        constructor: Iqdb
        docker_tag: ann-benchmarks-iqdb
        module: iqdb.ann_benchmarks
        name: iqdb
        run_groups:
          flat: {args: [[flat]]}
          ivf: {args: [[ivf]], query_args: [[1, 2, 4, 8, 16, 32, 64, 128, 256]]}
          hnsw: {args: [[hnsw], [{m: 16, ef_construction: 200}]], query_args: [[10, 20, 40, 80, 160, 320, 640]]}
"""
from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

import numpy as np

from .arrays import choice
from .database import Batch, Database, open_in_memory

METRICS = {"angular": "cosine", "euclidean": "l2"}
WIDTHS = {"flat": None, "ivf": "nprobe", "hnsw": "ef"}
"""Which argument of a search a query argument is."""
KNOBS = {"flat": (), "ivf": ("nlist", "seed"), "hnsw": ("ef_construction", "m", "seed")}


class Iqdb:
    """Fit, then query one by one or in a batch; answers are row numbers."""

    def __init__(self, metric: str, index: str = "flat", knobs: Optional[Mapping[str, int]] = None) -> None:
        self._width, self._knobs = choice(WIDTHS, index, "index"), dict(knobs or {})
        self._metric, self._index = choice(METRICS, metric, "metric"), index
        for knob in self._knobs:
            if knob not in KNOBS[index]:
                raise ValueError("%r has no knob %r: there are %s" % (index, knob, ", ".join(KNOBS[index]) or "none"))
        self._db: Optional[Database] = None
        self._batch: Optional[Batch] = None
        self._asked: Dict[str, int] = {}

    @property
    def name(self) -> str:
        """With all that has been chosen, for each is a point of a plot."""
        chosen = sorted(self._knobs.items()) + list(self._asked.items())
        return "iqdb(%s)" % ", ".join([self._index] + ["%s=%d" % pair for pair in chosen])

    def fit(self, X: np.ndarray) -> None:
        """Returns when the index is complete."""
        X = np.ascontiguousarray(X, dtype=np.float32)
        self.done()
        self._db = open_in_memory(dim=X.shape[1], metric=self._metric, index=self._index, **self._knobs)
        self._db.upsert_batch(range(len(X)), X)
        while not self._db.maintain(1_000_000):
            pass

    def set_query_arguments(self, *arguments: Any) -> None:
        """How widely is searched: lists of "ivf" to read, the ef of "hnsw"; none is what the index was calibrated to.
        Exact search has none."""
        if len(arguments) > (self._width is not None):
            raise ValueError("%s search takes %s" % (self._index, "one query argument" if self._width else "none"))
        if any(not isinstance(width, (int, np.integer)) or width < 1 for width in arguments):
            raise ValueError("%s is at least 1, not %r" % (self._width, arguments[0]))
        self._asked = {str(self._width): int(width) for width in arguments}

    def _database(self) -> Database:
        if self._db is None:
            raise RuntimeError("fit() comes first")
        return self._db

    def query(self, v: np.ndarray, n: int) -> List[int]:
        v = np.ascontiguousarray(v, dtype=np.float32)
        return [hit.id for hit in self._database().search(v, n, **self._asked)]

    def batch_query(self, X: np.ndarray, n: int) -> None:
        self._batch = self._database().search_batch(np.ascontiguousarray(X, dtype=np.float32), n, **self._asked)

    def get_batch_results(self) -> List[List[int]]:
        if self._batch is None:
            raise RuntimeError("batch_query() comes first")
        return [ids[:n].tolist() for ids, n in zip(self._batch.ids, self._batch.counts)]

    def get_memory_usage(self) -> float:
        """In kB."""
        stats = self._database().stats()
        return (stats.vector_bytes + stats.payload_bytes + stats.lookup_bytes + stats.index_bytes) / 1024

    def done(self) -> None:
        if self._db is not None:
            self._db.close()
        self._db = self._batch = None

    def __str__(self) -> str:
        return self.name
