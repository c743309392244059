"""HDF5 files laid out as those of ann-benchmarks are, into a database and out of one, with a batch of rows in memory.
They need h5py: pip install "iqdb[hdf5]". What is wrong with a file is an Error that names file and dataset."""
from __future__ import annotations

import contextlib
import itertools
import os
from typing import Any, Iterator, Union

import numpy as np

from ._native import lib
from .arrays import choice
from .database import open
from .errors import Code, Error, need

Path = Union[str, "os.PathLike[str]"]
METRICS = {None: None, "angular": "cosine", "euclidean": "l2", "ip": "dot", "manhattan": "l1"}
ROWS, ELEMENTS = 4096, 1 << 18  # of a batch at most, as in an import of the command line


@contextlib.contextmanager
def _hdf5(path: Path, mode: str) -> Iterator[Any]:
    try:
        import h5py
        with h5py.File(path, mode, rdcc_nbytes=1 << 26, rdcc_nslots=10007) as file:  # for chunks longer than a batch
            yield file
    except ImportError as error:
        raise ImportError('iqdb.hdf5 needs h5py: pip install "iqdb[hdf5]" (%s)' % error) from error
    except (OSError, RuntimeError) as error:  # of h5py, which does not always say what it was about
        raise Error(Code.IO, "%s: %s" % (path, error)) from error


def import_file(path: Path, directory: Path, dataset: str = "train") -> int:
    """Writes the rows of a dataset, and tells how many were new. Ids are row numbers, or for `train` those in a dataset
    `ids`; a new database gets the metric that the file has as `distance`. Vectors that are stored already are not
    written again, and none is replaced: an import that ended early is finished by the same call."""
    with _hdf5(path, "r") as file:
        data, new, at = file.get(dataset), 0, "%s, dataset %r" % (path, dataset)
        ids = file.get("ids") if dataset == "train" else None
        need(hasattr(data, "shape"), Code.NOT_FOUND, "%s is not there, only %s" % (at, ", ".join(file) or "none"))
        need(len(data.shape or ()) == 2 and 0 < data.shape[1] <= lib.IQDB_DIM_MAX and data.dtype.kind in "fiu",
             Code.INVALID_VECTOR, "%s: rows of numbers are needed, not %s %s" % (at, data.dtype, data.shape))
        need(ids is None or hasattr(ids, "shape") and (ids.shape, ids.dtype.kind) == (data.shape[:1], "u"),
             Code.INVALID_ARGUMENT, "%s, dataset 'ids': an unsigned integer for each row of 'train' is needed" % path)
        distance = str(np.array(file.attrs.get("distance", ""), "U")) or None  # of text and of bytes
        step = min(ROWS, ELEMENTS // data.shape[1])
        with open(directory, metric=choice(METRICS, distance, "%s: distance" % path)) as db, np.errstate(over="ignore"):
            need(db.stats().dim in (0, data.shape[1]), Code.DIMENSION_MISMATCH,
                 "%s: its rows have %d elements, those of %s %d" % (at, data.shape[1], directory, db.stats().dim))
            for begin in range(0, len(data), step):
                rows = np.ascontiguousarray(data[begin:begin + step], np.float32)
                good = int(np.append(np.isfinite(rows).all(axis=1), False).argmin())  # rows before the first bad one
                keys = np.arange(begin, begin + good, dtype=np.uint64) if ids is None else ids[begin:begin + good]
                need(len(np.unique(keys)) == good, Code.INVALID_ARGUMENT, "%s, row %d on: an id is twice" % (at, begin))
                fresh = [i for i in range(good) if keys[i] not in db]
                for i in sorted(set(range(good)).difference(fresh)):
                    need(db[keys[i]].vector.tobytes() == rows[i].tobytes(), Code.INVALID_ARGUMENT,
                         "%s, row %d: %s has another vector %d" % (at, begin + i, directory, keys[i]))
                db.upsert_batch(keys[fresh], rows[fresh])
                new += len(fresh)
                need(good == len(rows), Code.INVALID_VECTOR, "%s: row %d is not finite as float32" % (at, begin + good))
    return new


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)  # Windows syncs what may be written only
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Any]:
    """A file to write as PATH.part, which takes the place of PATH when it is whole and on the disk. Where anything
    fails nothing is left of it; but another one's, which does not open here, stays."""
    part, is_mine = os.fspath(path) + ".part", False
    try:
        with _hdf5(part, "w") as file:
            is_mine = True
            yield file
        try:
            _sync(part)
            os.replace(part, path)
            is_mine = False
            if os.name == "posix":  # elsewhere directories are not files
                _sync(os.path.dirname(os.path.abspath(path)))
        except OSError as error:
            raise Error(Code.IO, "%s: %s" % (path, error)) from error
    finally:
        if is_mine:
            with contextlib.suppress(OSError):  # what went wrong first is what is told
                os.remove(part)


def export_file(directory: Path, path: Path) -> int:
    """Writes the vectors as the dataset `train`, in no promised order, and their ids as `ids`, but no payloads; tells
    how many those were. The file is PATH.part until it is whole and on the disk; where that fails nothing is left."""
    distances = {metric: distance for distance, metric in METRICS.items()}
    with open(directory, read_only=True) as db, _whole(path) as file:
        stats, records = db.stats(), db.records()
        distance = distances.get(stats.metric, "hamming")  # then reading the first record says that bits are not read
        file.attrs.update(distance=distance, type="dense", point_type="float", dimension=stats.dim)
        train = file.create_dataset("train", (stats.records, stats.dim), np.float32)
        ids, step = file.create_dataset("ids", (stats.records,), np.uint64), min(ROWS, ELEMENTS // (stats.dim or 1))
        for begin in range(0, stats.records, step):
            batch = list(itertools.islice(records, step))
            train[begin:begin + step], ids[begin:begin + step] = [r.vector for r in batch], [r.id for r in batch]
    return int(stats.records)
