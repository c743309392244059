"""The algorithm class that ann-benchmarks runs; with it, in config.yml of that project:

    float:
      any:
      - base_args: ['@metric']
        constructor: Iqdb
        docker_tag: ann-benchmarks-iqdb
        module: iqdb.ann_benchmarks
        name: iqdb
        run_groups: {flat: {args: [[flat]]}}
"""
from __future__ import annotations

from typing import Any, List, Optional

import numpy as np

from .arrays import INDEXES, choice
from .database import Batch, Database, open_in_memory

METRICS = {"angular": "cosine", "euclidean": "l2"}


class Iqdb:
    """Fit, then query one by one or in a batch; answers are row numbers."""

    def __init__(self, metric: str, index: str = "flat") -> None:
        if metric not in METRICS:
            raise ValueError("no metric %r: there are %s" % (metric, ", ".join(map(repr, METRICS))))
        choice(INDEXES, index, "index")
        self.name = "iqdb(%s)" % index
        self._metric, self._index = METRICS[metric], index
        self._db: Optional[Database] = None
        self._batch: Optional[Batch] = None

    def fit(self, X: np.ndarray) -> None:
        X = np.ascontiguousarray(X, dtype=np.float32)
        self.done()
        self._db = open_in_memory(dim=X.shape[1], metric=self._metric, index=self._index)
        self._db.upsert_batch(range(len(X)), X)

    def set_query_arguments(self, *arguments: Any) -> None:
        """Exact search has none."""
        if arguments:
            raise ValueError("exact search takes no query arguments")

    def _database(self) -> Database:
        if self._db is None:
            raise RuntimeError("fit() comes first")
        return self._db

    def query(self, v: np.ndarray, n: int) -> List[int]:
        v = np.ascontiguousarray(v, dtype=np.float32)
        return [hit.id for hit in self._database().search(v, n)]

    def batch_query(self, X: np.ndarray, n: int) -> None:
        self._batch = self._database().search_batch(np.ascontiguousarray(X, dtype=np.float32), n)

    def get_batch_results(self) -> List[List[int]]:
        if self._batch is None:
            raise RuntimeError("batch_query() comes first")
        return [ids[:n].tolist() for ids, n in zip(self._batch.ids, self._batch.counts)]

    def get_memory_usage(self) -> float:
        """In kB."""
        stats = self._database().stats()
        return (stats.vector_bytes + stats.payload_bytes + stats.lookup_bytes) / 1024

    def done(self) -> None:
        if self._db is not None:
            self._db.close()
        self._db = self._batch = None

    def __str__(self) -> str:
        return self.name
