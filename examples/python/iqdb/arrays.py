"""What is asked of arrays. Nothing is copied or converted in secret: what would have to be is refused."""
from __future__ import annotations

from typing import Any, Optional, Tuple

import numpy as np

from ._native import ffi, lib
from .errors import Code, need

HIT = np.dtype({"names": ["id", "score"], "formats": [np.uint64, np.float32],
                "offsets": [ffi.offsetof("iqdb_hit", "id"), ffi.offsetof("iqdb_hit", "score")],
                "itemsize": ffi.sizeof("iqdb_hit")})
"""numpy's view of an iqdb_hit: searches write into arrays of it."""


def exact(array: Any, dtype: Any, dimensions: int, what: str) -> np.ndarray:
    """The array itself, when C can read it as it lies."""
    if not isinstance(array, np.ndarray):
        raise TypeError("%s: a numpy array is needed, not %s" % (what, type(array).__name__))
    if array.dtype != dtype:
        raise TypeError("%s: dtype %s is needed, not %s; see ndarray.astype" % (what, np.dtype(dtype), array.dtype))
    if array.ndim != dimensions:
        raise ValueError("%s: %d dimension%s needed, not the shape %s"
                         % (what, dimensions, " is" if dimensions == 1 else "s are", array.shape))
    if array.size == 0 and array.shape[-1] == 0 and dtype == np.float32:
        raise ValueError("%s: a vector has at least one element" % what)  # for C a dim of 0 is the collection's
    if not array.flags.c_contiguous or not array.flags.aligned:
        raise ValueError("%s: the array has to be contiguous in memory; see numpy.ascontiguousarray" % what)
    return array


def floats(array: np.ndarray) -> Any:
    return ffi.from_buffer("float[]", array)


def vector_of(vector: Any, what: str = "vector") -> Tuple[Any, int]:
    """(float *, dim) of one vector: a float32 array as it lies, or a list or tuple of numbers, which is copied."""
    if isinstance(vector, (list, tuple)):
        vector = np.array(vector, dtype=np.float32)
    return floats(exact(vector, np.float32, 1, what)), vector.shape[0]


def matrix_of(vectors: Any, what: str = "vectors") -> Tuple[Any, int, int]:
    """(float *, count, dim) of a two-dimensional float32 array."""
    vectors = exact(vectors, np.float32, 2, what)
    return floats(vectors), vectors.shape[0], vectors.shape[1]


def ids_of(ids: Any, count: Optional[int] = None) -> np.ndarray:
    """An array of uint64, as it lies; ranges, lists and arrays of other integers are converted."""
    if isinstance(ids, np.ndarray) and ids.dtype == np.uint64:
        made = exact(ids, np.uint64, 1, "ids")
    else:
        made = np.asarray(ids)
        if made.ndim != 1:
            raise ValueError("ids: 1 dimension is needed, not the shape %s" % (made.shape,))
        if made.size and made.dtype.kind not in "iu":
            if made.dtype.kind != "O" and not (made.dtype.kind == "f" and not isinstance(ids, np.ndarray)):
                raise TypeError("ids: integers are needed, not %s" % made.dtype)
            # Large ints in a list make numpy choose objects or floats.
            if not all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in ids):
                raise TypeError("ids: integers are needed")
            if any(not 0 <= int(i) < 1 << 64 for i in ids):
                raise OverflowError("ids: from 0 to 2**64 - 1")
            made = np.array([int(i) for i in ids], dtype=np.uint64)
        elif made.size and made.dtype.kind == "i" and int(made.min()) < 0:
            raise OverflowError("ids: from 0 to 2**64 - 1")
        made = np.ascontiguousarray(made, dtype=np.uint64)
    if count is not None and made.shape[0] != count:
        raise ValueError("%d ids for %d vectors" % (made.shape[0], count))
    return made


def view_of(vector: Any, dim: int) -> np.ndarray:
    """A read-only array over the floats of a cdata that owns its memory, and lives as long as the array."""
    need(vector != ffi.NULL, Code.NOT_IMPLEMENTED, "from Python, vectors of 32-bit floats only are read")
    made = np.frombuffer(ffi.buffer(vector, dim * 4), dtype=np.float32)
    made.flags.writeable = False
    return made


METRICS = {None: lib.IQDB_METRIC_DEFAULT, "l2": lib.IQDB_L2, "cosine": lib.IQDB_COSINE, "dot": lib.IQDB_DOT,
           "l1": lib.IQDB_L1}
SYNCS = {"flush": lib.IQDB_SYNC_FLUSH, "each": lib.IQDB_SYNC_EACH}
DEPTHS = {None: lib.IQDB_DEPTH_DEFAULT, "frames": lib.IQDB_DEPTH_FRAMES, "blocks": lib.IQDB_DEPTH_BLOCKS,
          "records": lib.IQDB_DEPTH_RECORDS}
INDEXES = {None: lib.IQDB_INDEX_AUTO, "auto": lib.IQDB_INDEX_AUTO, "flat": lib.IQDB_INDEX_FLAT,
           "hnsw": lib.IQDB_INDEX_HNSW, "ivf": lib.IQDB_INDEX_IVF}
KEY_KINDS = {"hash": lib.IQDB_KEY_HASH, "ordered": lib.IQDB_KEY_ORDERED}
PLANS = {"none": lib.IQDB_PLAN_NONE, "scan": lib.IQDB_PLAN_SCAN, "codes": lib.IQDB_PLAN_CODES,
         "lists": lib.IQDB_PLAN_LISTS, "graph": lib.IQDB_PLAN_GRAPH, "keys": lib.IQDB_PLAN_KEYS,
         "custom": lib.IQDB_PLAN_CUSTOM}


def choice(table: Any, value: Any, what: str) -> Any:
    try:
        return table[value]
    except (KeyError, TypeError):
        names = ", ".join(repr(name) for name in table if name is not None)
        raise ValueError("%s=%r: there are %s" % (what, value, names)) from None


def name_of(table: Any, code: int) -> str:
    """What stands for a code; "" where nothing does."""
    return {known: name for name, known in table.items() if name}.get(code, "")
