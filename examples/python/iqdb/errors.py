"""What fails, as exceptions: each carries the code of iqdb.h, and where that is known which byte of which file."""
from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Dict, NoReturn, Optional, Type

from ._native import ffi, lib


class Code(enum.IntEnum):
    """The result codes of iqdb.h, by their numbers."""

    IO = -1
    INVALID_CONFIG = -2
    INVALID_VECTOR = -3
    DIMENSION_MISMATCH = -4
    CORRUPT = -5
    NOT_IMPLEMENTED = -6
    NOT_FOUND = -7
    NOMEM = -8
    NOSPACE = -9
    LOCKED = -10
    READONLY = -11
    VERSION = -12
    LIMIT = -13
    BUSY = -14
    POISONED = -15
    INVALID_FILTER = -16
    INVALID_PAYLOAD = -17
    INVALID_ARGUMENT = -18
    CANCELLED = -19


@dataclass(frozen=True)
class Detail:
    """A failure or a finding: which code, what happened, and where."""

    code: Code
    text: str
    file: str
    offset: int
    lsn: int
    lsn_last: int
    os_code: int
    records: int
    id: Optional[int]
    dim_expected: int
    dim_found: int


class Error(Exception):
    """A call of the database failed. `code` says how, `detail`, where there is one, says where."""

    def __init__(self, code: int, text: str = "", detail: Optional[Detail] = None) -> None:
        self.code = Code(code)
        self.detail = detail
        general = ffi.string(lib.iqdb_strerror(code)).decode()
        message = text or (detail.text if detail else "") or general
        if detail and detail.file:
            message += " (%s, byte %d)" % (detail.file, detail.offset)
        if detail and detail.dim_expected:
            message += " (%d expected, %d found)" % (detail.dim_expected, detail.dim_found)
        super().__init__("%s: %s" % (self.code.name, message))


class NotFound(Error, KeyError):
    """No record with this id, or no database at this path."""

    __str__ = Exception.__str__  # not KeyError's, which shows the repr of the text


class InvalidInput(Error, ValueError):
    """A vector, dimension, filter, payload or argument that makes no sense."""


class OutOfMemory(Error, MemoryError):
    """The allocator has no more, or the block is full."""


class Damaged(Error):
    """The files are damaged; `detail` names file and offset."""


class Cancelled(Error):
    """The search was ended by its Cancel."""


CLASSES: Dict[int, Type[Error]] = {
    Code.NOT_FOUND: NotFound, Code.NOMEM: OutOfMemory, Code.CORRUPT: Damaged, Code.CANCELLED: Cancelled,
    Code.INVALID_VECTOR: InvalidInput, Code.DIMENSION_MISMATCH: InvalidInput, Code.INVALID_FILTER: InvalidInput,
    Code.INVALID_PAYLOAD: InvalidInput, Code.INVALID_ARGUMENT: InvalidInput, Code.INVALID_CONFIG: InvalidInput,
}


def detail_of(error: Any) -> Detail:
    return Detail(Code(error.code), ffi.string(error.text).decode("utf-8", "replace"),
                  ffi.string(error.file).decode("utf-8", "replace"), error.offset, error.lsn, error.lsn_last,
                  error.os_code, error.records, error.id if error.has_id else None, error.dim_expected,
                  error.dim_found)


def fail(code: int, text: str = "", error: Any = None) -> NoReturn:
    """Raises the exception of a code. error: an iqdb_error of the call; else what this thread's logger kept."""
    if error is None:
        error = ffi.new("iqdb_error *")
        lib.iqpy_last_error(error)
    detail = detail_of(error) if error.code == code else None
    raise CLASSES.get(code, Error)(code, text, detail)


def check(code: int) -> None:
    if code != 0:
        fail(code)


def need(good: bool, code: Code, text: str) -> None:
    """Raises the exception of a code with this text, unless all is well."""
    if not good:
        raise CLASSES.get(code, Error)(code, text)
