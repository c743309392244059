#!/usr/bin/env python3
"""The payload encoding, read and written a second time: from the comment in src/codec/payload.h, in another language.

Floats travel as their eight bytes, so that no NaN is touched. An object is a list of (key, value) pairs here, because
their order is part of what is tested; a value is (type, content)."""
import os
import random
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, compiler, main, must  # noqa: E402

NULL, BOOL, INT, FLOAT, TEXT, BYTES, ARRAY, OBJECT = range(8)
DEPTH_MAX, SIZE_MAX = 64, 1 << 26
SOURCES = ["src/codec/payload.c", "src/codec/value.c", "src/codec/utf8.c", "src/base/alloc.c"]
ROUNDS = {"quick": 300, "long": 20000}.get(os.environ.get("IQDB_TEST_TIER"), 2000)


class Malformed(Exception):
    pass


def need(condition):
    if not condition:
        raise Malformed


def decode_container(data, is_object, depth):
    need(depth <= DEPTH_MAX and 4 <= len(data) <= SIZE_MAX)
    count, = struct.unpack_from("<I", data)
    need(count <= (len(data) - 4) // 4)
    starts = list(struct.unpack_from("<%dI" % count, data, 4)) + [len(data)]
    need(starts[0] == 4 + 4 * count)
    items = []
    for start, end in zip(starts, starts[1:]):
        need(start < end <= len(data))
        item = data[start:end]
        if is_object:
            key, found, item = item.partition(b"\0")
            need(found)
            key.decode("utf-8")
            need(not items or items[-1][0] < key)
            items.append((key, decode_value(item, depth)))
        else:
            items.append(decode_value(item, depth))
    return items


def decode_value(data, depth):
    need(data)
    kind, body = data[0], data[1:]
    if kind == NULL:
        need(not body)
        return kind, None
    if kind == BOOL:
        need(body in (b"\0", b"\1"))
        return kind, body == b"\1"
    if kind == INT:
        need(len(body) == 8)
        return kind, struct.unpack("<q", body)[0]
    if kind == FLOAT:
        need(len(body) == 8)
        return kind, body
    if kind == TEXT:
        need(body[-1:] == b"\0")
        return kind, body[:-1].decode("utf-8")
    if kind == BYTES:
        return kind, body
    need(kind in (ARRAY, OBJECT))
    return kind, decode_container(body, kind == OBJECT, depth + 1)


def encode_container(items, is_object):
    if is_object:
        parts = [key + b"\0" + encode_value(value) for key, value in sorted(items, key=lambda item: item[0])]
    else:
        parts = [encode_value(value) for value in items]
    table, at = struct.pack("<I", len(parts)), 4 + 4 * len(parts)
    for part in parts:
        table += struct.pack("<I", at)
        at += len(part)
    return table + b"".join(parts)


def encode_value(value):
    kind, content = value
    body = {NULL: lambda: b"", BOOL: lambda: b"\1" if content else b"\0", INT: lambda: struct.pack("<q", content),
            FLOAT: lambda: content, TEXT: lambda: content.encode("utf-8") + b"\0", BYTES: lambda: content,
            ARRAY: lambda: encode_container(content, False), OBJECT: lambda: encode_container(content, True)}[kind]()
    return bytes([kind]) + body


def is_payload(data):
    try:
        decode_container(data, True, 1)
        return True
    except (Malformed, UnicodeDecodeError):
        return False


def is_utf8(data):
    try:
        data.decode("utf-8")
        return True
    except UnicodeDecodeError:
        return False


# ---- the C side ----

def build(folder):
    """payload_writer, with the warnings and the sanitizers left to the passes that are about them."""
    program = os.path.join(folder, "payload_writer")
    must(compiler("CC", "cc") + ["-std=c99", "-O1", "-DIQDB_MODULES", "-D_GNU_SOURCE", "-Isrc", "-Itests",
                                 "tests/format/payload_writer.c"] + SOURCES + ["-o", program], cwd=ROOT)
    return program


def written(program, seed, count):
    stream = subprocess.run([program, "write", str(seed), str(count)], stdout=subprocess.PIPE, check=True).stdout
    payloads, at = [], 0
    while at < len(stream):
        size, = struct.unpack_from("<I", stream, at)
        payloads.append(stream[at + 4:at + 4 + size])
        at += 4 + size
    assert len(payloads) == count and at == len(stream), len(payloads)
    return payloads


def verdicts(program, strings):
    stream = b"".join(struct.pack("<I", len(data)) + data for data in strings)
    answer = subprocess.run([program, "check"], input=stream, stdout=subprocess.PIPE, check=True).stdout.decode()
    assert len(answer) == 2 * len(strings), len(answer)
    return [(answer[i] == "1", answer[i + 1] == "1") for i in range(0, len(answer), 2)]


def compare(program, strings):
    for data, (utf8, payload) in zip(strings, verdicts(program, strings)):
        assert utf8 == is_utf8(data), "UTF-8 %s in C: %s" % (utf8, data.hex())
        assert payload == is_payload(data), "a payload %s in C: %s" % (payload, data.hex())


def with_program(test):
    def run():
        with tempfile.TemporaryDirectory() as folder:
            test(build(folder))
    run.__name__ = test.__name__
    return run


@with_program
def python_reads_and_writes_what_c_writes(program):
    kinds = set()

    def collect(value):
        kinds.add(value[0])
        for item in value[1] if value[0] in (ARRAY, OBJECT) else []:
            collect(item[1] if value[0] == OBJECT else item)

    for number, data in enumerate(written(program, 1000, ROUNDS)):
        items = decode_container(data, True, 1)
        assert encode_container(items, True) == data, "payload %d: %s" % (number, data.hex())
        collect((OBJECT, items))
    assert kinds == set(range(8)), kinds


@with_program
def c_accepts_what_python_accepts(program):
    """Damaged payloads: a byte changed, cut out, doubled, or an offset moved."""
    chance = random.Random(4)
    strings = []
    for data in written(program, 2000, ROUNDS):
        for _ in range(10):
            bytes_now = bytearray(data[:400]) if chance.random() < 0.5 else bytearray(data)
            at = chance.randrange(min(len(bytes_now), 60 if chance.random() < 0.5 else 1 << 30))
            what = chance.randrange(4)
            if what == 0:
                bytes_now[at] = chance.randrange(256)
            elif what == 1:
                del bytes_now[at:at + chance.randrange(1, 5)]
            elif what == 2:
                bytes_now[at] = (bytes_now[at] + chance.choice((-1, 1))) % 256
            else:
                bytes_now[at:at] = bytes_now[at:at + chance.randrange(1, 9)]
            strings.append(bytes(bytes_now))
    compare(program, strings)
    assert 0 < sum(is_payload(data) for data in strings) < len(strings)


@with_program
def depth(program):
    strings = []
    for inner, outer in ((ARRAY, ARRAY), (OBJECT, OBJECT), (ARRAY, OBJECT)):
        for levels in range(1, 70):
            value = inner, []
            for _ in range(levels - 1):
                value = (outer, [(b"k", value)] if outer == OBJECT else [value])
            strings.append(encode_container([(b"k", value)], True))
    compare(program, strings)
    assert not is_payload(strings[63]) and is_payload(strings[62])


@with_program
def utf8(program):
    edges = [0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
             0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xF8, 0xFF]
    strings = [bytes([a, b]) for a in range(256) for b in range(256)]
    strings += [bytes([a, b, c]) for a in range(0xC0, 256) for b in edges for c in edges]
    strings += [b"ascii, " + bytes([a, b, c, d]) for a in range(0xEF, 0xF6) for b in edges for c in edges for d in edges]
    strings += [chr(code).encode("utf-8", "surrogatepass") for code in range(0, 0x110000, 17)]
    compare(program, strings)


if __name__ == "__main__":
    main("format/payload", [python_reads_and_writes_what_c_writes, c_accepts_what_python_accepts, depth, utf8])
