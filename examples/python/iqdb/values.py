"""Payloads: Python values to iqdb.h's and back. None, bool, int, float, str, bytes, lists and dicts, within another."""
from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from ._native import ffi, lib
from .errors import Code, fail

Value = Union[None, bool, int, float, str, bytes, List[Any], Tuple[Any, ...], Dict[str, Any]]
Payload = Mapping[str, Value]


class _Remove:
    def __repr__(self) -> str:
        return "iqdb.REMOVE"


REMOVE = _Remove()
"""As a value in Database.update_payload: remove this key."""


def key_of(key: Any, keep: List[Any]) -> Any:
    """A key as zero-terminated UTF-8, which lives as long as `keep`."""
    if not isinstance(key, str):
        raise TypeError("keys of a payload are str, not %s" % type(key).__name__)
    if "\0" in key:
        fail(Code.INVALID_PAYLOAD, "a key holds U+0000: %r" % key)
    made = ffi.new("char[]", key.encode())
    keep.append(made)
    return made


def value_of(value: Any, keep: List[Any], depth: int = 1) -> Any:
    """An iqdb_value. What it points at lives as long as `keep`."""
    if value is None:
        return lib.iqdb_null()
    if isinstance(value, (bool, np.bool_)):
        return lib.iqdb_bool(bool(value))
    if isinstance(value, (int, np.integer)):
        return lib.iqdb_int(int(value))  # OverflowError beyond 64 bits
    if isinstance(value, (float, np.floating)):
        return lib.iqdb_float(float(value))
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        data = value.encode() if isinstance(value, str) else value
        view = ffi.from_buffer("char[]", data)
        keep.append(view)
        return (lib.iqdb_text_n if isinstance(value, str) else lib.iqdb_bytes)(view, len(view))
    if value is REMOVE and depth == 1:
        return ffi.new("iqdb_value *", {"type": lib.IQDB_TYPE_ABSENT})[0]
    if depth >= lib.IQDB_PAYLOAD_DEPTH_MAX and isinstance(value, (list, tuple, Mapping)):
        fail(Code.INVALID_PAYLOAD, "arrays and objects more than %d deep" % lib.IQDB_PAYLOAD_DEPTH_MAX)
    if isinstance(value, (list, tuple)):
        items = values_of(value, keep, depth + 1)
        return lib.iqdb_array(items, len(value))
    if isinstance(value, Mapping):
        fields, count = fields_of(value, keep, depth + 1)
        return lib.iqdb_object(fields, count)
    raise TypeError("a payload cannot hold %s" % type(value).__name__)


def values_of(values: Sequence[Any], keep: List[Any], depth: int = 1) -> Any:
    items = ffi.new("iqdb_value[]", len(values))
    keep.append(items)
    for i, value in enumerate(values):
        items[i] = value_of(value, keep, depth)
    return items


def fields_of(payload: Any, keep: List[Any], depth: int = 1) -> Tuple[Any, int]:
    """A dict as an array of iqdb_field and its length."""
    if not isinstance(payload, Mapping):
        raise TypeError("a payload is a dict, not %s" % type(payload).__name__)
    fields = ffi.new("iqdb_field[]", len(payload))
    keep.append(fields)
    for i, (key, value) in enumerate(payload.items()):
        fields[i].key = key_of(key, keep)
        fields[i].value = value_of(value, keep, depth)
    return fields, len(payload)


def python_value(value: Any) -> Value:
    """What an iqdb_value says, copied."""
    kind, content = value.type, getattr(value, "as")
    if kind == lib.IQDB_TYPE_INT:
        return int(content.integer)
    if kind == lib.IQDB_TYPE_FLOAT:
        return float(content.real)
    if kind == lib.IQDB_TYPE_TEXT:
        return ffi.unpack(content.text.data, content.text.size).decode()
    if kind == lib.IQDB_TYPE_BOOL:
        return bool(content.boolean)
    if kind == lib.IQDB_TYPE_BYTES:
        return bytes(ffi.buffer(content.bytes.data, content.bytes.size))
    if kind == lib.IQDB_TYPE_ARRAY:
        return [python_value(lib.iqdb_value_at(value, i)) for i in range(lib.iqdb_value_count(value))]
    if kind == lib.IQDB_TYPE_OBJECT:
        field, made = ffi.new("iqdb_field *"), {}
        for i in range(lib.iqdb_value_count(value)):
            lib.iqdb_value_field(value, i, field)
            made[ffi.string(field.key).decode()] = python_value(field.value)
        return made
    return None


def python_payload(payload: Any) -> Optional[Dict[str, Value]]:
    """An iqdb_payload as a dict; None where the record has none."""
    if payload.bytes == ffi.NULL:
        return None
    field, made = ffi.new("iqdb_field *"), {}
    for i in range(lib.iqdb_payload_count(payload)):
        lib.iqdb_payload_at(payload, i, field)
        made[ffi.string(field.key).decode()] = python_value(field.value)
    return made
