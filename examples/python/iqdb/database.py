"""The handle: a database in a directory, in memory, or over a blob."""
from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from functools import partial
from typing import (Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple,
                    Union)

import numpy as np

from ._native import ffi, lib
from .arrays import (DEPTHS, HIT, INDEXES, KEY_KINDS, METRICS, PLANS, SYNCS, choice, ids_of, matrix_of, name_of,
                     vector_of, view_of)
from .errors import Code, Detail, Error, check, detail_of, fail, need
from .filters import Filter, native_filter
from .values import Payload, Value, fields_of, key_of, python_payload

Condition = Union[None, str, Filter]
Vector = Union[np.ndarray, Sequence[float]]


class Record(NamedTuple):
    """What is stored under an id."""

    id: int
    vector: np.ndarray
    payload: Optional[Dict[str, Value]]


class Hit(NamedTuple):
    """One that was found: smaller scores are closer. `payload` is None where it was not asked for."""

    id: int
    score: float
    payload: Optional[Dict[str, Value]] = None


@dataclass(frozen=True)
class Batch:
    """What search_batch found: row i of `hits` belongs to query i, and its first counts[i] entries are hits.

    The arrays are those that the search has written to; `ids` and `scores` are views of them. Where there are fewer
    hits than k, the entries behind them have the id 2**64 - 1 and the score infinity.
    """

    hits: np.ndarray
    counts: np.ndarray
    payloads: Optional[List[List[Optional[Dict[str, Value]]]]] = None

    @property
    def ids(self) -> np.ndarray:
        """Of shape (queries, k), uint64."""
        return self.hits["id"]

    @property
    def scores(self) -> np.ndarray:
        """Of shape (queries, k), float32."""
        return self.hits["score"]

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, query: int) -> List[Hit]:
        n = int(self.counts[query])
        payloads = self.payloads[query] if self.payloads is not None else [None] * n
        return [Hit(int(h["id"]), float(h["score"]), p) for h, p in zip(self.hits[query][:n], payloads)]


class Cancel:
    """Ends the searches that were given it, from any thread. Once requested it holds until reset()."""

    def __init__(self) -> None:
        self._native = ffi.new("iqdb_cancel *")

    def request(self) -> None:
        lib.iqdb_cancel_request(self._native)

    def reset(self) -> None:
        self._native.requested = 0


@dataclass(frozen=True)
class SearchInfo:
    """What a search did: see iqdb_search_info."""

    rows_visited: int
    complete: bool
    exact: bool
    plan: str = ""
    rows_compared: int = 0


@dataclass(frozen=True)
class Stats:
    """Facts of a database: see iqdb_stats."""

    records: int
    dim: int
    metric: str
    uuid: bytes
    format_version: int
    in_memory: bool
    read_only: bool
    poisoned: bool
    recovered: bool
    last_lsn: int
    durable_lsn: int
    applied_lsn: int
    log_bytes: int
    snapshot_bytes: int
    vector_bytes: int
    payload_bytes: int
    lookup_bytes: int
    retired_rows: int
    retired_bytes: int
    oldest_pin_age: int
    model: str
    index: str
    index_wanted: str
    index_bytes: int
    index_rows: int
    index_lists: int
    key_bytes: int
    tail_rows: int
    nlist: int
    nprobe: int
    m: int
    ef_construction: int
    ef_search: int
    seed: int
    collections: int
    all_records: int


def stats_of(native: Any) -> Stats:
    plain = {field: getattr(native, field) for field in Stats.__dataclass_fields__}
    plain.update(metric=name_of(METRICS, native.metric), uuid=bytes(ffi.buffer(native.uuid)),
                 model=ffi.string(native.model).decode(), index=name_of(INDEXES, native.index),
                 index_wanted=name_of(INDEXES, native.index_wanted))
    return Stats(**plain)


class Upsert(NamedTuple):
    """An operation of Database.apply; of the handle's collection, or of another one of the same database."""

    id: int
    vector: Vector
    payload: Optional[Payload] = None
    collection: Optional["Database"] = None


class Delete(NamedTuple):
    """An operation of Database.apply; of the handle's collection, or of another one of the same database."""

    id: int
    collection: Optional["Database"] = None


class _Guard:
    """A handle, the number of calls that are under way, beside which it must not be closed, and what has to end before
    that. `with` gives the handle. Calls on a collection are calls on its database, which is `root`.

    Whoever has the lock waits for nothing, but a close that nobody is in a call beside. A thread that has it may take
    it again, for wherever memory is collected a cursor may end.
    """

    def __init__(self, handle: Any, root: Optional["_Guard"] = None) -> None:
        self.handle, self.active, self.root = handle, 0, root
        self.lock: Any = root.lock if root else threading.RLock()
        self.ends: Dict[object, Callable[[], Any]] = {}
        if root:
            root.ends[self] = self.shut

    def count(self, change: int) -> None:
        with self.lock:
            self.active += change
            if self.root:
                self.root.active += change

    def __enter__(self) -> Any:
        with self.lock:
            if self.handle is None:
                raise ValueError("this database is closed")
            self.active += 1
            if self.root:
                self.root.active += 1
            return self.handle

    def __exit__(self, *unused: Any) -> None:
        self.count(-1)

    def shut(self) -> int:
        """Closes the handle, and ends before that what lives on it; beside no call."""
        while self.ends:
            self.ends.popitem()[1]()
        code = lib.iqdb_close(self.handle)
        if code != Code.BUSY:
            self.handle = None
        return int(code)


class _Turn:
    """What a cursor or an iterator is in C: for one thread at a time, for nobody from inside its own call, and to be
    ended once. `with` says whether it is there, as it stays meanwhile."""

    def __init__(self, guard: _Guard, end: Callable[[], Any]) -> None:
        self.guard, self.lock, self.busy = guard, threading.RLock(), False
        guard.ends[self] = end

    def __enter__(self) -> bool:
        self.lock.acquire()
        if self.busy:
            self.lock.release()
            need(False, Code.BUSY, "this is a call from inside one of the same cursor or iterator")
        self.busy = True
        self.guard.count(1)
        return self in self.guard.ends

    def __exit__(self, *unused: Any) -> None:
        self.guard.count(-1)
        self.busy = False
        self.lock.release()

    def end(self) -> None:
        """Beside no other call of its own."""
        self.guard.count(1)
        end = self.guard.ends.pop(self, None)
        if end is not None:
            end()
        self.guard.count(-1)


def _keep_error(kind: Any, error: BaseException, trace: Any) -> None:
    """Of a callback, before it could catch any: a signal, or a stack that is full. The call raises it when it ends."""
    user = trace.tb_frame.f_locals["user"] if trace is not None else None
    if user is not None:
        ffi.from_handle(user).error = error


@ffi.def_extern(error=False, onerror=_keep_error)
def iqpy_predicate(record: Any, user: Any) -> bool:
    return ffi.from_handle(user).decide(record)


@ffi.def_extern(error=False, onerror=_keep_error)
def iqpy_write(data: Any, size: int, user: Any) -> bool:
    return ffi.from_handle(user).take(ffi.buffer(data, size))


@ffi.def_extern(error=False)
def iqpy_name(name: Any, user: Any) -> bool:
    ffi.from_handle(user).append(ffi.string(name).decode())
    return True


@ffi.def_extern()
def iqpy_report(finding: Any, user: Any) -> None:
    ffi.from_handle(user).append(detail_of(finding))


class _Query:
    """An iqdb_query, all that it points at, and what its callbacks leave behind."""

    def __init__(self, k: int, condition: Condition, metric: Optional[str], payload: bool,
                 max_distance: Optional[float], after: Union[None, Hit, Tuple[int, float]],
                 deadline_us: int, cancel: Optional[Cancel], predicate: Optional[Callable[..., Any]],
                 group_by: Optional[str], ids: Any, nprobe: int = 0, ef: int = 0, exact: bool = False) -> None:
        self.keep: List[Any] = []
        self.error: Optional[BaseException] = None
        self.predicate, self.cancel = predicate, cancel or Cancel()
        self.info = ffi.new("iqdb_search_info *")
        self.native = ffi.new("iqdb_query *")
        query = self.native
        query[0] = lib.iqdb_query_default()
        query.k, query.metric, query.info = k, choice(METRICS, metric, "metric"), self.info
        query.filter = native_filter(condition, self.keep)
        query.deadline_us, query.cancel = deadline_us, self.cancel._native
        query.nprobe, query.ef, query.flags = nprobe, ef, lib.IQDB_EXACT if exact else 0
        if group_by is not None:
            query.group_by = key_of(group_by, self.keep)
        if ids is not None:
            chosen = ids_of(ids)
            self.keep.append(ffi.from_buffer("uint64_t[]", chosen))
            query.ids, query.id_count = self.keep[-1], len(chosen)
        if payload:
            self.buffer = ffi.gc(ffi.new("iqdb_buffer *"), lib.iqdb_buffer_free)
            query.buffer, query.flags = self.buffer, query.flags | lib.IQDB_WITH_PAYLOAD
        if max_distance is not None:
            query.max_distance, query.flags = max_distance, query.flags | lib.IQDB_MAX_DISTANCE
        if after is not None:
            query.after.id, query.after.score, query.flags = after[0], after[1], query.flags | lib.IQDB_AFTER
        if predicate is not None:
            self.handle = ffi.new_handle(self)
            query.predicate, query.user = lib.iqpy_predicate, self.handle

    def decide(self, record: Any) -> bool:
        """Asks the caller's predicate; what that raises is raised again when the search has ended."""
        if self.error is not None:
            return False
        try:
            return bool(self.predicate(record.id, python_payload(record.payload)))  # type: ignore[misc]
        except BaseException as error:
            self.error = error
            return False

    def check(self, code: int) -> SearchInfo:
        if self.error is not None:
            raise self.error
        check(code)
        info = self.info
        return SearchInfo(info.rows_visited, bool(info.complete), bool(info.exact), name_of(PLANS, info.plan),
                          info.rows_compared)


class _Child:
    """A cursor or an iterator: one thread at a time, and closed before its database."""

    def __init__(self, database: "Database", end: Callable[[], Any]) -> None:
        self._database, self._turn = database, _Turn(database._guard, end)

    def close(self) -> None:
        """Lets go of what it sees; closing twice is fine. BUSY from inside a predicate of its own."""
        with self._turn:
            self._turn.end()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_turn"):
            self._turn.end()


class Records(_Child, Iterator[Record]):
    """The records as they stood at the beginning, in no promised order; vectors are copies. The loop may write."""

    def __init__(self, database: "Database", condition: Condition) -> None:
        keep: List[Any] = []
        native = native_filter(condition, keep)
        with database._guard as handle:
            self._iter = ffi.new("iqdb_iter *", lib.iqdb_iter_begin(handle, native))
            super().__init__(database, partial(lib.iqdb_iter_end, self._iter))

    def __iter__(self) -> "Records":
        return self

    def __next__(self) -> Record:
        code = 0
        with self._turn as is_there:
            if is_there and lib.iqdb_iter_next(self._iter):
                record = self._iter.record
                return Record(record.id, view_of(record.vector, record.dim).copy(), python_payload(record.payload))
            if is_there:
                code = self._iter.result
                self._turn.end()
        check(code)
        raise StopIteration


class Cursor(_Child):
    """A search in slices: see Database.cursor."""

    def __init__(self, database: "Database", vector: Vector, query: _Query) -> None:
        self._query, self._cursor = query, ffi.new("iqdb_cursor **")
        native, query.native.dim = vector_of(vector)
        query.native.vector = native  # the cursor copies it
        with database._guard as handle:
            check(lib.iqdb_cursor_open(handle, query.native, self._cursor))
            super().__init__(database, partial(lib.iqdb_cursor_close, self._cursor[0]))

    def step(self, budget_us: int = 1000, capacity: int = 64) -> Tuple[List[Hit], bool]:
        """Works for about budget_us. (hits, done): none until the answer is final, then `capacity` at a time. From
        inside its own predicate it is BUSY."""
        hits, count, done = np.empty(capacity, HIT), ffi.new("size_t *"), ffi.new("bool *")
        native = ffi.from_buffer("iqdb_hit[]", hits, require_writable=True)
        with self._turn as is_there:
            if not is_there:
                raise ValueError("this cursor is closed")
            code = lib.iqdb_cursor_step(self._cursor[0], budget_us, native, capacity, count, done)
            self._query.check(code)
            return _hits(native, count[0], self._query), bool(done[0])

    def __iter__(self) -> Iterator[Hit]:
        """All hits, without regard for time."""
        done = False
        while not done:
            hits, done = self.step(100000, 256)
            yield from hits


def _hits(native: Any, count: int, query: _Query) -> List[Hit]:
    with_payload = query.native.flags & lib.IQDB_WITH_PAYLOAD
    return [Hit(native[i].id, native[i].score, python_payload(native[i].payload) if with_payload else None)
            for i in range(count)]


class Database:
    """An open database. Made by open(), open_in_memory(), open_blob() and load_blob(); a context manager.

    Any number of threads may use it at once; calls that take time let other threads of Python run. close() ends the
    iterators and cursors that are left; beside a call of another thread, or from inside one, it raises BUSY and ends
    none.
    """

    def __init__(self, handle: Any, keep: Any = None, root: Optional["Database"] = None) -> None:
        self._guard, self._keep, self._root = _Guard(handle, root._guard if root else None), keep, root
        stats = ffi.new("iqdb_stats *")
        lib.iqdb_stat(handle, stats)
        self._element = stats.element  # which never changes

    # ---- life ----

    def close(self) -> None:
        """Makes everything durable and gives the directory free. Closing twice is fine."""
        guard = self._guard
        with guard.lock:
            if guard.handle is None:
                return
            need(not guard.active, Code.BUSY, "another thread is in a call, or this is one from inside a callback")
            code = guard.shut()
            if guard.handle is None:
                self._keep = None
        check(code)

    @property
    def closed(self) -> bool:
        return self._guard.handle is None

    def __enter__(self) -> "Database":
        with self._guard:
            return self

    def __exit__(self, *unused: Any) -> None:
        self.close()

    def __del__(self) -> None:
        guard = getattr(self, "_guard", None)
        if guard is not None and guard.handle is not None:
            guard.shut()

    def flush(self) -> None:
        """Everything written so far survives a power cut."""
        with self._guard as handle:
            check(lib.iqdb_flush(handle))

    def checkpoint(self) -> None:
        """Writes one snapshot and starts an empty log."""
        with self._guard as handle:
            check(lib.iqdb_checkpoint(handle))

    def maintain(self, budget_us: int) -> bool:
        """Works for about budget_us on what writes have left to do; True when nothing is left."""
        done = ffi.new("bool *")
        with self._guard as handle:
            check(lib.iqdb_maintain(handle, budget_us, done))
        return bool(done[0])

    def tune(self, recall: float, queries: Optional[np.ndarray] = None) -> None:
        """Has searches that say neither nprobe nor ef look as widely as it takes to find that part of the nearest, by
        the index that there is; otherwise .95. queries: float32 rows, at most 10,000, where they are unlike records."""
        native, count, dim = (ffi.NULL, 0, 0) if queries is None else matrix_of(queries, "queries")
        with self._guard as handle:
            stats = ffi.new("iqdb_stats *")
            check(lib.iqdb_stat(handle, stats))
            if stats.dim == 0:  # then there is no index; and C, which is told no dim, must not read rows of another
                native, count, dim = ffi.NULL, 0, 0
            if native != ffi.NULL and dim != stats.dim:
                fail(Code.DIMENSION_MISMATCH, "queries of %d elements, records of %d" % (dim, stats.dim))
            check(lib.iqdb_tune(handle, recall, native, count))

    def reindex(self, index: Optional[str] = None, *, nlist: int = 0, nprobe: int = 0, m: int = 0,
                ef_construction: int = 0, ef_search: int = 0, seed: int = 0) -> None:
        """Chooses the index, as open() does, while the database is used. The choice is a write, and stays. Searches
        look at every record until writes and maintain() have made the new one."""
        options = ffi.new("iqdb_options *")
        lib.iqpy_options(options)
        _choose_index(options, index, nlist, nprobe, m, ef_construction, ef_search, seed)
        with self._guard as handle:
            check(lib.iqdb_reindex(handle, options))

    def verify(self, depth: Optional[str] = None) -> List[Detail]:
        """Reads the files again and checks them: the findings, none where all is well."""
        findings: List[Detail] = []
        user = ffi.new_handle(findings)
        with self._guard as handle:
            code = lib.iqdb_verify(handle, choice(DEPTHS, depth, "depth"), lib.iqpy_report, user)
        if code and not findings:
            fail(code)
        return findings

    def backup(self, path: Union[str, "os.PathLike[str]"]) -> None:
        """Writes an ordinary database into another directory, durable when the call returns."""
        with self._guard as handle:
            check(lib.iqdb_backup(handle, _path(path)))

    def export_blob(self, write: Optional[Callable[[bytes], Any]] = None) -> Optional[bytes]:
        """The whole database as one piece of memory: returned, or given to write() piece by piece."""
        sink = _Sink(write)
        user = ffi.new_handle(sink)
        with self._guard as handle:
            code = lib.iqdb_export_blob(handle, lib.iqpy_write, user)
        if sink.error is not None:
            raise sink.error
        check(code)
        return None if write else bytes(sink.data)

    def stats(self) -> Stats:
        """Facts and figures."""
        stats = ffi.new("iqdb_stats *")
        with self._guard as handle:
            check(lib.iqdb_stat(handle, stats))
        return stats_of(stats)

    @property
    def simd(self) -> str:
        """The instruction set that searches use."""
        with self._guard as handle:
            return ffi.string(lib.iqdb_simd_name(handle)).decode()

    # ---- collections ----

    def collection(self, name: str, *, dim: int = 0, metric: Optional[str] = None,
                   index_keys: Optional[Mapping[str, str]] = None) -> "Collection":
        """The collection of this name, made where there is none, with ids, dimension and metric of its own. What
        concerns files, as flush() and maintain(), is done for the whole database. Its reindex() chooses an index for
        it; index_keys count in the first handle of it."""
        options, out, keep = ffi.new("iqdb_options *"), ffi.new("iqdb **"), []  # type: ignore[var-annotated]
        lib.iqpy_options(options)
        _choose_keys(options, index_keys, keep)
        options.dim, options.metric = dim, choice(METRICS, metric, "metric")
        with self._guard as handle:
            check(lib.iqdb_collection(handle, _text(name, "name"), options, out))
            return Collection(name, out[0], self._root or self)

    def drop_collection(self, name: str) -> None:
        """Deletes the collection and all that is in it; NotFound where there is none. Iterators and cursors go on to
        see what they saw, handles of it are of no use any more."""
        with self._guard as handle:
            check(lib.iqdb_collection_drop(handle, _text(name, "name")))

    def collection_names(self) -> List[str]:
        """Of all but the one that open() gives, which has none."""
        names: List[str] = []
        user = ffi.new_handle(names)
        with self._guard as handle:
            check(lib.iqdb_collection_names(handle, lib.iqpy_name, user))
        return names

    # ---- writing ----

    def upsert(self, id: int, vector: Vector, payload: Optional[Payload] = None) -> None:
        """Inserts a record or replaces the one of that id."""
        keep: List[Any] = []
        record = self._record(id, vector, payload, keep)
        with self._guard as handle:
            check(lib.iqdb_upsert(handle, record))

    @staticmethod
    def _record(id: int, vector: Vector, payload: Optional[Payload], keep: List[Any]) -> Any:
        record = ffi.new("iqdb_record *")
        record.id = _id(id)
        native, record.dim = vector_of(vector)
        record.vector = native
        keep += [record, native]
        if payload is not None:
            record.fields, record.field_count = fields_of(payload, keep)
        return record

    def upsert_batch(self, ids: Any, vectors: np.ndarray, payloads: Optional[Sequence[Optional[Payload]]] = None,
                     ) -> None:
        """Inserts or replaces as one atomic batch. vectors: float32 of shape (count, dim), read where it lies."""
        native, count, dim = matrix_of(vectors)
        ids = ids_of(ids, count)
        if payloads is not None and len(payloads) != count:
            raise ValueError("%d payloads for %d vectors" % (len(payloads), count))
        keep: List[Any] = []
        records = ffi.new("iqdb_record[]", max(1, count))
        lib.iqpy_records(records, ffi.from_buffer("uint64_t[]", ids), native, count, dim)
        for i, payload in enumerate(payloads or ()):
            if payload is not None:
                records[i].fields, records[i].field_count = fields_of(payload, keep)
        with self._guard as handle:
            check(lib.iqdb_upsert_batch(handle, records, count))

    def apply(self, operations: Iterable[Union[Upsert, Delete]]) -> None:
        """Upserts and deletes as one atomic batch, in their order, and in as many collections as they name."""
        operations, keep = list(operations), []  # type: ignore[var-annotated]
        ops = ffi.new("iqdb_op[]", max(1, len(operations)))
        for op, operation in zip(ops, operations):
            if isinstance(operation, Upsert):
                op.kind, op.record = lib.IQDB_OP_UPSERT, self._record(*operation[:3], keep)
            elif isinstance(operation, Delete):
                op.kind, op.id = lib.IQDB_OP_DELETE, _id(operation.id)
            else:
                raise TypeError("an operation is an Upsert or a Delete, not %s" % type(operation).__name__)
            if operation.collection is not None and not isinstance(operation.collection, Database):
                raise TypeError("a collection is a handle, not %s" % type(operation.collection).__name__)
        named = [operation.collection or self for operation in operations]
        with contextlib.ExitStack() as stack:
            handles = {database: stack.enter_context(database._guard) for database in {self, *named}}
            for op, database in zip(ops, named):
                op.collection = handles[database]
            check(lib.iqdb_apply(handles[self], ops, len(operations)))

    def update_payload(self, id: int, changes: Payload) -> None:
        """Adds, replaces, and with the value REMOVE removes keys of a payload; the vector stays."""
        keep: List[Any] = []
        fields, count = fields_of(changes, keep)
        with self._guard as handle:
            check(lib.iqdb_update_payload(handle, _id(id), fields, count))

    def delete(self, id: int) -> bool:
        """Whether the record was there."""
        removed = ffi.new("bool *")
        with self._guard as handle:
            check(lib.iqdb_delete(handle, _id(id), removed))
        return bool(removed[0])

    def delete_batch(self, ids: Any) -> int:
        """How many of them were there."""
        ids, removed = ids_of(ids), ffi.new("size_t *")
        with self._guard as handle:
            check(lib.iqdb_delete_batch(handle, ffi.from_buffer("uint64_t[]", ids), len(ids), removed))
        return int(removed[0])

    def delete_where(self, filter: Union[str, Filter]) -> int:
        """Deletes what the filter accepts, in one atomic batch; how many those were."""
        keep: List[Any] = []
        if filter is None:
            raise TypeError("delete_where needs a filter; iqdb.every([]) accepts all records")
        native, removed = native_filter(filter, keep), ffi.new("size_t *")
        with self._guard as handle:
            check(lib.iqdb_delete_where(handle, native, removed))
        return int(removed[0])

    def reserve(self, records: int) -> None:
        """Memory for so many records in all, at once."""
        with self._guard as handle:
            check(lib.iqdb_reserve(handle, records))

    # ---- reading ----

    def get(self, id: int) -> Record:
        """The record of that id; NotFound, a KeyError, where there is none. The vector is not copied again."""
        record, buffer = ffi.new("iqdb_record *"), ffi.gc(ffi.new("iqdb_buffer *"), lib.iqdb_buffer_free)
        with self._guard as handle:
            check(lib.iqdb_get(handle, _id(id), buffer, record))
        vector = ffi.gc(record.vector, lambda unused, owner=buffer: None)  # the buffer lives as long as the array
        return Record(record.id, view_of(vector, record.dim), python_payload(record.payload))

    def __getitem__(self, id: int) -> Record:
        return self.get(id)

    def __contains__(self, id: int) -> bool:
        with self._guard as handle:
            return bool(lib.iqdb_contains(handle, _id(id)))

    def __len__(self) -> int:
        with self._guard as handle:
            return int(lib.iqdb_len(handle))

    def __bool__(self) -> bool:
        return True

    def count(self, filter: Condition = None) -> int:
        """The records that the filter accepts."""
        keep: List[Any] = []
        native, count = native_filter(filter, keep), ffi.new("size_t *")
        with self._guard as handle:
            check(lib.iqdb_count(handle, native, count))
        return int(count[0])

    def __iter__(self) -> Records:
        return Records(self, None)

    def records(self, filter: Condition = None) -> Records:
        """Iterates over the records that the filter accepts, as they stand now."""
        return Records(self, filter)

    # ---- search ----

    def search(self, vector: Vector, k: int = 10, *, filter: Condition = None, metric: Optional[str] = None,
               payload: bool = False, max_distance: Optional[float] = None,
               after: Union[None, Hit, Tuple[int, float]] = None, deadline_us: int = 0,
               cancel: Optional[Cancel] = None, predicate: Optional[Callable[[int, Any], Any]] = None,
               group_by: Optional[str] = None, ids: Any = None, nprobe: int = 0, ef: int = 0,
               exact: bool = False) -> List[Hit]:
        """The k nearest, ascending by score, equal scores by id.

        filter, predicate(id, payload), ids: only records that they accept.  payload: bring the payloads along.
        max_distance: none beyond.  after: only what ranks behind this hit, for pages.  deadline_us: the best that was
        found until then.  group_by: the best of each of the k best groups, whose records are equal at this key.
        nprobe: lists of an "ivf" to read, ef: how widely a "hnsw" is searched; 0 is what tune() found.  exact: the best
        of all records, whatever index there is.
        """
        return self.search_with_info(vector, k, filter=filter, metric=metric, payload=payload,
                                     max_distance=max_distance, after=after, deadline_us=deadline_us, cancel=cancel,
                                     predicate=predicate, group_by=group_by, ids=ids, nprobe=nprobe, ef=ef,
                                     exact=exact)[0]

    def search_with_info(self, vector: Vector, k: int = 10, *, filter: Condition = None,
                         metric: Optional[str] = None, payload: bool = False, max_distance: Optional[float] = None,
                         after: Union[None, Hit, Tuple[int, float]] = None, deadline_us: int = 0,
                         cancel: Optional[Cancel] = None, predicate: Optional[Callable[[int, Any], Any]] = None,
                         group_by: Optional[str] = None, ids: Any = None, nprobe: int = 0, ef: int = 0,
                         exact: bool = False) -> Tuple[List[Hit], SearchInfo]:
        """search(), and what it did."""
        query = _Query(k, filter, metric, payload, max_distance, after, deadline_us, cancel, predicate, group_by, ids,
                       nprobe, ef, exact)
        native, dim = vector_of(vector)
        query.native.vector, query.native.dim = native, dim
        count = ffi.new("size_t *")
        with self._guard as handle:
            room = min(k, max(lib.iqdb_len(handle), SPARE))  # a k of a billion asks for all that there are
            hits, query.native.k = ffi.new("iqdb_hit[]", room), room
            info = query.check(lib.iqdb_search(handle, query.native, hits, count))
        return _hits(hits, count[0], query), info

    def search_batch(self, vectors: np.ndarray, k: int = 10, *, filter: Condition = None,
                     metric: Optional[str] = None, payload: bool = False, max_distance: Optional[float] = None,
                     deadline_us: int = 0, cancel: Optional[Cancel] = None,
                     predicate: Optional[Callable[[int, Any], Any]] = None, group_by: Optional[str] = None,
                     ids: Any = None, nprobe: int = 0, ef: int = 0, exact: bool = False) -> Batch:
        """The k nearest to each row of a float32 array of shape (queries, dim); all queries see one state.

        The search reads that array where it lies and writes into the arrays of the result; other threads run meanwhile.
        """
        return self.search_batch_with_info(vectors, k, filter=filter, metric=metric, payload=payload,
                                           max_distance=max_distance, deadline_us=deadline_us, cancel=cancel,
                                           predicate=predicate, group_by=group_by, ids=ids, nprobe=nprobe, ef=ef,
                                           exact=exact)[0]

    def search_batch_with_info(self, vectors: np.ndarray, k: int = 10, *, filter: Condition = None,
                               metric: Optional[str] = None, payload: bool = False,
                               max_distance: Optional[float] = None, deadline_us: int = 0,
                               cancel: Optional[Cancel] = None,
                               predicate: Optional[Callable[[int, Any], Any]] = None, group_by: Optional[str] = None,
                               ids: Any = None, nprobe: int = 0, ef: int = 0,
                               exact: bool = False) -> Tuple[Batch, SearchInfo]:
        """search_batch(), and what it did for all queries together."""
        query = _Query(k, filter, metric, payload, max_distance, None, deadline_us, cancel, predicate, group_by, ids,
                       nprobe, ef, exact)
        native, rows, dim = matrix_of(vectors)
        query.native.dim = dim
        counts, hits = np.zeros(rows, np.uintp), np.empty((rows, k), HIT)
        out = ffi.from_buffer("iqdb_hit[]", hits, require_writable=True)
        with self._guard as handle:
            self._needs_floats()
            info = query.check(lib.iqdb_search_batch(handle, query.native, native, rows, out,
                                                     ffi.from_buffer("size_t[]", counts, require_writable=True)))
        if rows and int(counts.min()) < k:
            missing = np.arange(k) >= counts[:, None]
            hits["id"][missing], hits["score"][missing] = np.uint64(2 ** 64 - 1), np.float32(np.inf)
        payloads = None
        if payload:
            payloads = [[python_payload(out[i * k + j].payload) for j in range(int(counts[i]))] for i in range(rows)]
            hits = hits.copy()  # the bytes between id and score pointed into memory that goes away now
        return Batch(hits, counts, payloads), info

    def measure_recall(self, queries: Optional[np.ndarray] = None, k: int = 10, *, count: int = 100,
                       filter: Condition = None, metric: Optional[str] = None, max_distance: Optional[float] = None,
                       deadline_us: int = 0, cancel: Optional[Cancel] = None,
                       predicate: Optional[Callable[[int, Any], Any]] = None, group_by: Optional[str] = None,
                       ids: Any = None, nprobe: int = 0, ef: int = 0) -> float:
        """The part, from 0 to 1, of the hits of exact searches that such searches find: for float32 rows, or without
        any for `count` of the records."""
        query = _Query(k, filter, metric, False, max_distance, None, deadline_us, cancel, predicate, group_by, ids,
                       nprobe, ef)
        native, rows, dim = (ffi.NULL, count, 0) if queries is None else matrix_of(queries, "queries")
        query.native.dim, recall = dim, ffi.new("double *")
        with self._guard as handle:
            self._needs_floats()
            query.check(lib.iqdb_measure_recall(handle, query.native, native, rows, recall))
        return float(recall[0])

    def _needs_floats(self) -> None:
        """For calls that take vectors of any element: floats would be read as if they were others."""
        need(self._element == lib.IQDB_ELEMENT_F32, Code.NOT_IMPLEMENTED,
             "from Python, vectors of 32-bit floats only are searched for")

    def cursor(self, vector: Vector, k: int = 10, *, filter: Condition = None, metric: Optional[str] = None,
               payload: bool = False, max_distance: Optional[float] = None,
               after: Union[None, Hit, Tuple[int, float]] = None, deadline_us: int = 0,
               cancel: Optional[Cancel] = None, predicate: Optional[Callable[[int, Any], Any]] = None,
               group_by: Optional[str] = None, ids: Any = None) -> Cursor:
        """The same search, a little at a time: it sees the records as they are now, whatever is written meanwhile, and
        looks at every one."""
        return Cursor(self, vector, _Query(k, filter, metric, payload, max_distance, after, deadline_us, cancel,
                                           predicate, group_by, ids))


class Collection(Database):
    """A named part of a database: a handle like that of open(), made by Database.collection(), and closed by the close
    of that one at the latest."""

    def __init__(self, name: str, handle: Any, root: Database) -> None:
        super().__init__(handle, root=root)
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def close(self) -> None:
        """Lets go of the collection, which stays. Closing twice is fine."""
        guard: Any = self._guard
        with guard.lock:
            if guard.handle is None:
                return
            need(not guard.active, Code.BUSY, "another thread is in a call, or this is one from inside a callback")
            handle, guard.handle = guard.handle, None
            ends, guard.ends = guard.ends, {}
            guard.count(1)
        # Without the lock, for it waits for who writes, who may be in a callback that wants to read.
        code = lib.iqdb_close(handle)
        if code == Code.BUSY:  # from inside a callback that may not: all is as before
            guard.ends, guard.handle = ends, handle
        else:
            for end in ends.values():
                end()
            guard.root.ends.pop(guard, None)
        guard.count(-1)
        check(code)

    def __del__(self) -> None:
        if hasattr(self, "_name"):
            with contextlib.suppress(Error):  # the database has it still, and closes it
                self.close()


SPARE = 65536


class _Sink:
    """Where an exported blob goes."""

    def __init__(self, write: Optional[Callable[[bytes], Any]]) -> None:
        self.write, self.data, self.error = write, bytearray(), None  # type: ignore[var-annotated]

    def take(self, piece: Any) -> bool:
        try:
            if self.write is None:
                self.data += piece
            else:
                self.write(bytes(piece))
            return True
        except BaseException as error:
            self.error = error
            return False


def _id(id: Any) -> int:
    if isinstance(id, (bool, np.bool_)) or not isinstance(id, (int, np.integer)):
        raise TypeError("an id is an int, not %s" % type(id).__name__)
    return int(id)


def _choose_index(options: Any, index: Optional[str] = None, nlist: int = 0, nprobe: int = 0, m: int = 0,
                  ef_construction: int = 0, ef_search: int = 0, seed: int = 0) -> None:
    options.index, options.seed = choice(INDEXES, index, "index"), seed
    options.nlist, options.nprobe = nlist, nprobe
    options.m, options.ef_construction, options.ef_search = m, ef_construction, ef_search


def _choose_keys(options: Any, keys: Optional[Mapping[str, str]], keep: List[Any]) -> None:
    """What it points at lives as long as `keep`."""
    if keys is None:
        return
    if not isinstance(keys, Mapping):
        raise TypeError('index_keys is a dict, as {"year": "ordered"}, not %s' % type(keys).__name__)
    made = ffi.new("iqdb_index_key[]", max(1, len(keys)))
    keep.append(made)
    for entry, (name, kind) in zip(made, keys.items()):
        entry.key, entry.kind = key_of(name, keep), choice(KEY_KINDS, kind, "index_keys[%r]" % name)
    options.index_keys, options.index_key_count = made, len(keys)


def _text(text: Any, what: str) -> bytes:
    """For C, which would take a text with a zero in it for a shorter one."""
    if not isinstance(text, str):
        raise TypeError("%s is a str, not %s" % (what, type(text).__name__))
    return _zero_ended(text.encode(), what)


def _path(path: Union[str, "os.PathLike[str]"]) -> bytes:
    return _zero_ended(os.fsencode(path), "path")


def _zero_ended(text: bytes, what: str) -> bytes:
    if b"\0" in text:
        raise ValueError("%s: it holds U+0000: %r" % (what, text))
    return text


def _opened(call: Callable[..., int], *arguments: Any, keep: Any = None, dim: int = 0, metric: Optional[str] = None,
            sync: str = "flush", read_only: bool = False, compact_on_close: bool = False, verify: Optional[str] = None,
            retired_max: int = 0, model: Optional[str] = None, index_keys: Optional[Mapping[str, str]] = None,
            **knobs: Any) -> Database:
    options, out, alive = ffi.new("iqdb_options *"), ffi.new("iqdb **"), []  # type: ignore[var-annotated]
    lib.iqpy_options(options)
    _choose_index(options, **knobs)
    _choose_keys(options, index_keys, alive)
    options.dim, options.metric = dim, choice(METRICS, metric, "metric")
    options.sync, options.verify = choice(SYNCS, sync, "sync"), choice(DEPTHS, verify, "verify")
    options.read_only, options.compact_on_close, options.retired_max = read_only, compact_on_close, retired_max
    tag = ffi.NULL if model is None else ffi.new("char[]", _text(model, "model"))  # copied by the call
    options.model = tag
    check(call(*arguments, options, out))
    return Database(out[0], keep)


def open(path: Union[str, "os.PathLike[str]"], *, dim: int = 0, metric: Optional[str] = None,
         index: Optional[str] = None, sync: str = "flush", read_only: bool = False, compact_on_close: bool = False,
         verify: Optional[str] = None, retired_max: int = 0, model: Optional[str] = None, nlist: int = 0,
         nprobe: int = 0, m: int = 0, ef_construction: int = 0, ef_search: int = 0, seed: int = 0,
         index_keys: Optional[Mapping[str, str]] = None) -> Database:
    """Opens the database in a directory, which is made where it does not exist.

    dim, metric ("cosine", "l2", "dot", "l1"): of a new database; where they differ from what is stored the open fails.
    sync: "flush", durable after flush, checkpoint and close; "each", when each write returns.
    verify: "frames", "blocks" or "records", checked beyond what an open checks anyway.
    model: tag of what makes the vectors, which the database keeps; an open that names another one fails.
    index: "flat", a look at every record, exact; "ivf", lists of near ones; "hnsw", a graph; "auto", what reindex() has
    chosen, or else "flat" up to 50,000 records and "ivf" from there on. Writes make it, and maintain().
    nlist, nprobe, m, ef_construction, ef_search, seed: as in iqdb_options; 0 suits the records.
    index_keys: payload keys by which filters find records, as {"kind": "hash", "year": "ordered"}; a directory keeps
    them, until it is opened with others.
    """
    return _opened(lib.iqdb_open, _path(path), dim=dim, metric=metric, sync=sync, read_only=read_only,
                   compact_on_close=compact_on_close, verify=verify, retired_max=retired_max, model=model,
                   index_keys=index_keys, index=index, nlist=nlist, nprobe=nprobe, m=m,
                   ef_construction=ef_construction, ef_search=ef_search, seed=seed)


def open_in_memory(*, dim: int = 0, metric: Optional[str] = None, index: Optional[str] = None, retired_max: int = 0,
                   model: Optional[str] = None, nlist: int = 0, nprobe: int = 0, m: int = 0, ef_construction: int = 0,
                   ef_search: int = 0, seed: int = 0, index_keys: Optional[Mapping[str, str]] = None) -> Database:
    """A database without files."""
    return _opened(lib.iqdb_open_in_memory, dim=dim, metric=metric, retired_max=retired_max, model=model,
                   index_keys=index_keys, index=index, nlist=nlist, nprobe=nprobe, m=m,
                   ef_construction=ef_construction, ef_search=ef_search, seed=seed)


def open_blob(data: Any) -> Database:
    """Reads a blob where it lies, in bytes, a memoryview, an mmap; it must lie at a multiple of 8 and not change."""
    view = ffi.from_buffer("char[]", data)
    return _opened(lib.iqdb_open_blob, view, len(view), keep=view)


def load_blob(data: Any, *, retired_max: int = 0, index: Optional[str] = None, nlist: int = 0, nprobe: int = 0,
              m: int = 0, ef_construction: int = 0, ef_search: int = 0, seed: int = 0,
              index_keys: Optional[Mapping[str, str]] = None) -> Database:
    """Copies a blob into a database in memory that may be written."""
    view = ffi.from_buffer("char[]", data)
    return _opened(lib.iqdb_load_blob, view, len(view), retired_max=retired_max, index_keys=index_keys, index=index,
                   nlist=nlist, nprobe=nprobe, m=m, ef_construction=ef_construction, ef_search=ef_search, seed=seed)


def inspect(path: Union[str, "os.PathLike[str]"]) -> Stats:
    """Facts of a closed database, without loading it."""
    stats = ffi.new("iqdb_stats *")
    check(lib.iqdb_inspect(_path(path), stats))
    return stats_of(stats)


def repair(path: Union[str, "os.PathLike[str]"], to: Union[None, str, "os.PathLike[str]"] = None) -> List[Detail]:
    """Makes a new database in `to` of what can be read of a damaged one, and tells what is lost. Without `to` it only
    tells."""
    findings: List[Detail] = []
    user, error, options = ffi.new_handle(findings), ffi.new("iqdb_error *"), ffi.new("iqdb_options *")
    options.error = error
    code = lib.iqdb_repair(_path(path), ffi.NULL if to is None else _path(to), options, lib.iqpy_report, user)
    if code and (to is not None or not findings):
        fail(code, error=error)
    return findings


def distance(metric: str, a: Vector, b: Vector) -> float:
    """The score that a search returns, bit for bit."""
    (first, dim), (second, other), out = vector_of(a, "a"), vector_of(b, "b"), ffi.new("float *")
    if dim != other:
        fail(Code.DIMENSION_MISMATCH, "vectors of %d and %d elements" % (dim, other))
    check(lib.iqdb_distance(choice(METRICS, metric, "metric"), first, second, dim, out))
    return float(out[0])


def norm(vector: Vector) -> float:
    """The Euclidean norm."""
    native, dim = vector_of(vector)
    check(lib.iqdb_vector_check(native, dim))
    return float(lib.iqdb_vector_norm(native, dim))


def version() -> str:
    """Of iqdb.h."""
    number = lib.iqdb_version()
    return "%d.%d.%d" % (number // 10000, number // 100 % 100, number % 100)
