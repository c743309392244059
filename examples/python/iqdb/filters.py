"""Filters, built from keys and operators or given as text.

    (iqdb.key("kind") == "doc") & (iqdb.key("year") >= 2020) & ~iqdb.key("tags").contains("draft")
    "kind = 'doc' and year >= 2020 and not tags contains 'draft'"

A test holds only for what is there and can be compared: `!=` on a missing key is false, and ~(key == value) is the
other thing.
"""
from __future__ import annotations

from typing import Any, Iterable, List, Tuple, Union

from ._native import ffi, lib
from .errors import fail
from .values import Value, key_of, value_of, values_of


class Filter:
    """A condition on payloads; made by key(), every(), any_of(), and combined by &, | and ~."""

    __slots__ = ("_name", "_arguments")

    def __init__(self, name: str, *arguments: Any) -> None:
        self._name, self._arguments = name, arguments

    def __and__(self, other: "Filter") -> "Filter":
        return Filter("and", self, _filter(other))

    def __or__(self, other: "Filter") -> "Filter":
        return Filter("or", self, _filter(other))

    def __invert__(self) -> "Filter":
        return Filter("not", self)

    def __bool__(self) -> bool:
        raise TypeError("a filter is no truth value: use & | ~ with brackets around each comparison")

    def __repr__(self) -> str:
        return "Filter(%s)" % ", ".join([self._name] + [repr(a) for a in self._arguments])


def _filter(other: Any) -> Filter:
    if not isinstance(other, Filter):
        raise TypeError("a filter can be combined with filters, not with %s" % type(other).__name__)
    return other


class Key:
    """A key of payloads; comparing it makes a Filter. "author.name" reaches into objects."""

    __slots__ = ("_key",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, key: str) -> None:
        self._key = key

    def __eq__(self, value: Value) -> Filter:  # type: ignore[override]
        return Filter("eq", self._key, value)

    def __ne__(self, value: Value) -> Filter:  # type: ignore[override]
        return Filter("ne", self._key, value)

    def __lt__(self, value: Value) -> Filter:
        return Filter("lt", self._key, value)

    def __le__(self, value: Value) -> Filter:
        return Filter("le", self._key, value)

    def __gt__(self, value: Value) -> Filter:
        return Filter("gt", self._key, value)

    def __ge__(self, value: Value) -> Filter:
        return Filter("ge", self._key, value)

    def between(self, low: Value, high: Value) -> Filter:
        """Both ends included."""
        return Filter("between", self._key, low, high)

    def is_in(self, values: Iterable[Value]) -> Filter:
        """Equal to one of them."""
        return Filter("in", self._key, list(values))

    def prefix(self, text: str) -> Filter:
        """A text that begins so."""
        return Filter("prefix", self._key, text)

    def exists(self) -> Filter:
        """There, of any type, None included."""
        return Filter("exists", self._key)

    def is_null(self) -> Filter:
        """There, and None."""
        return Filter("is_null", self._key)

    def contains(self, value: Value) -> Filter:
        """An array with an item that is equal."""
        return Filter("contains_value", self._key, value)


def key(name: str) -> Key:
    """The key of that name, to be compared: iqdb.key("year") >= 2020."""
    return Key(name)


def every(filters: Iterable[Filter]) -> Filter:
    """All of them hold; of none: true."""
    return Filter("and", *[_filter(f) for f in filters])


def any_of(filters: Iterable[Filter]) -> Filter:
    """One of them holds; of none: false."""
    return Filter("or", *[_filter(f) for f in filters])


def _fill(out: Any, made: Filter, keep: List[Any], waiting: List[Tuple[Any, Filter]]) -> None:
    """Writes one node of the tree; its children come to the list of those that are left to do."""
    name, arguments = made._name, made._arguments
    if name in ("and", "or", "not"):
        children = ffi.new("iqdb_filter[]", max(1, len(arguments)))
        keep.append(children)
        waiting.extend((children + i, child) for i, child in enumerate(arguments))
        out[0] = lib.iqdb_not(children) if name == "not" else \
            (lib.iqdb_and if name == "and" else lib.iqdb_or)(children, len(arguments))
        return
    which = key_of(arguments[0], keep)
    if name in ("exists", "is_null"):
        out[0] = getattr(lib, "iqdb_" + name)(which)
    elif name == "in":
        out[0] = lib.iqdb_in(which, values_of(arguments[1], keep), len(arguments[1]))
    elif name == "between":
        out[0] = lib.iqdb_between(which, value_of(arguments[1], keep), value_of(arguments[2], keep))
    elif name == "prefix":
        out[0] = lib.iqdb_prefix(which, key_of(arguments[1], keep))
    else:
        out[0] = getattr(lib, "iqdb_" + name)(which, value_of(arguments[1], keep))


def native_filter(condition: Union[None, str, Filter], keep: List[Any]) -> Any:
    """A pointer to an iqdb_filter that lives as long as `keep`, or NULL for None."""
    if condition is None:
        return ffi.NULL
    out = ffi.new("iqdb_filter *")
    keep.append(out)
    if isinstance(condition, str):
        text, error = condition.encode(), ffi.new("iqdb_error *")
        buffer = ffi.gc(ffi.new("iqdb_buffer *"), lib.iqdb_buffer_free)
        keep.append(buffer)
        code = lib.iqdb_filter_parse(text, len(text), buffer, out, error)
        if code:
            fail(code, "%s, at byte %d of the filter" % (ffi.string(error.text).decode(), error.offset), error)
        return out
    waiting, nodes = [(out, _filter(condition))], 0
    while waiting:
        where, made = waiting.pop()
        _fill(where, made, keep, waiting)
        nodes += 1
        if nodes > lib.IQDB_FILTER_NODES_MAX:  # f = f & f, again and again, is a small object and a huge filter
            fail(lib.IQDB_ERR_INVALID_FILTER, "more than %d tests and branches" % lib.IQDB_FILTER_NODES_MAX)
    return out
