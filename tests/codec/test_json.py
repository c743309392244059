#!/usr/bin/env python3
"""Payloads as JSON against Python's json module and an encoder of our own format in Python.

A document is read by both sides and must be refused by both or give the same payload, whose text must be what
json.dumps makes of it, and read as the same payload again. A model value is (type, content) as in test_payload.py."""
import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../format"))
from harness import ROOT, compiler, main, must  # noqa: E402
from test_payload import (ARRAY, BOOL, BYTES, DEPTH_MAX, FLOAT, INT, NULL, OBJECT, TEXT,  # noqa: E402
                          decode_container, encode_container)
from test_number import expected_text  # noqa: E402

SOURCES = ["tests/codec/json_driver.c"] + ["src/%s.c" % name for name in (
    "codec/json", "codec/number", "codec/payload", "codec/value", "codec/utf8", "base/alloc", "base/report")]
DOCUMENTS = {"quick": 5000, "long": 1100000}.get(os.environ.get("IQDB_TEST_TIER"), 50000)
BATCH = 5000
MARKER = re.compile(r"(\$+)(?:bytes|float)")
NAN, INFINITY = 0x7FF8 << 48, 0x7FF0 << 48


class Refused(Exception):
    pass


class Number(str):
    """A number with a point or an exponent, as it stands in the text."""


def need(condition):
    if not condition:
        raise Refused


# ---- text to model ----

def read_text(data):
    try:
        text = data.decode("utf-8")
        tree = json.loads(text, parse_float=Number, parse_constant=refuse, object_pairs_hook=tuple)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, ValueError):
        raise Refused
    need(not text.startswith("\ufeff"))
    if tree is None:
        return None
    need(isinstance(tree, tuple))
    return model_of(tree, 1)


def refuse(_):
    raise Refused


def model_of(tree, depth):
    if tree is None:
        return NULL, None
    if isinstance(tree, bool):
        return BOOL, tree
    if isinstance(tree, int):
        need(-2 ** 63 <= tree < 2 ** 63)
        return INT, tree
    if isinstance(tree, Number):
        bits = struct.pack("<d", float(tree))
        need(struct.unpack("<Q", bits)[0] & ~(1 << 63) != INFINITY)
        return FLOAT, bits
    if isinstance(tree, str):
        need(not any(0xD800 <= ord(c) <= 0xDFFF for c in tree))
        return TEXT, tree
    need(depth <= DEPTH_MAX)
    if isinstance(tree, list):
        return ARRAY, [model_of(item, depth + 1) for item in tree]
    fields = [(key, model_of(value, depth + 1)) for key, value in tree]
    need(all("\0" not in key and not any(0xD800 <= ord(c) <= 0xDFFF for c in key) for key, _ in fields))
    need(len({key for key, _ in fields}) == len(fields))
    marker = MARKER.fullmatch(fields[0][0]) if len(fields) == 1 and depth > 1 and fields[0][1][0] == TEXT else None
    if marker is None:
        return OBJECT, [(key.encode(), value) for key, value in fields]
    text = fields[0][1][1]
    if len(marker.group(1)) > 1:
        return OBJECT, [(fields[0][0][1:].encode(), fields[0][1])]
    if fields[0][0] == "$bytes":
        need(re.fullmatch("(?:[0-9a-fA-F]{2})*", text))
        return BYTES, bytes.fromhex(text)
    words = {"nan": NAN, "infinity": INFINITY, "-infinity": INFINITY | 1 << 63}
    if text in words:
        return FLOAT, struct.pack("<Q", words[text])
    need(re.fullmatch("[0-9a-fA-F]{16}", text))
    bits = int(text, 16)
    need(bits & ~(1 << 63) > INFINITY)
    return FLOAT, struct.pack("<Q", bits)


# ---- model to text ----

def text_of(value, depth=1):
    kind, content = value
    if kind == FLOAT:
        bits, = struct.unpack("<Q", content)
        if bits & INFINITY != INFINITY:
            return expected_text(struct.unpack("<d", content)[0])
        names = {NAN: "nan", INFINITY: "infinity", INFINITY | 1 << 63: "-infinity"}
        return '{"$float":"%s"}' % names.get(bits, "%016x" % bits)
    if kind == BYTES:
        return '{"$bytes":"%s"}' % content.hex()
    if kind == ARRAY:
        return "[%s]" % ",".join(text_of(item, depth + 1) for item in content)
    if kind == OBJECT:
        fields = sorted(content)
        if depth > 1 and len(fields) == 1 and fields[0][1][0] == TEXT and MARKER.fullmatch(fields[0][0].decode()):
            fields = [(b"$" + fields[0][0], fields[0][1])]
        return "{%s}" % ",".join(json.dumps(key.decode(), ensure_ascii=False) + ":" + text_of(item, depth + 1)
                                 for key, item in fields)
    return json.dumps(content, ensure_ascii=False)


# ---- documents at random ----

CHARACTERS = ["a", "b", "z", ".", " ", "\x01", "\x0b", "\x1f", "\x7f", "\n", "\t", '"', "\\", "/", "\x80", "\xe9", "\u07ff",
              "\u0800", "\u2028", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0001f600", "\U0010ffff", "\0"]
KEYS = ["a", "b", "c", "kind", "$bytes", "$float", "$$bytes", "$$$float", "$x", "$", "bytes", "a.b", ""]
NUMBERS = ["0", "-0", "1", "-1", "9223372036854775807", "-9223372036854775808", "0.0", "-0.0", "1e5", "1E-5", "0.1", "1e400",
           "9223372036854775808", "1e-400", "123456789012345678901234567890.0", "2.5", "5e-324", "1e16", "100.0"]


def random_text(chance):
    return "".join(chance.choice(CHARACTERS) for _ in range(chance.randrange(6)))


def write_string(chance, text, surrogates=True):
    out = '"'
    for c in text:
        how = chance.random()
        if how < 0.1 and ord(c) > 0xFFFF:
            out += "".join("\\u%04x" % unit for unit in struct.unpack("<2H", c.encode("utf-16-le")))
        elif how < 0.1 or c < " " and c not in "\b\f\n\r\t" or c < " " and how < 0.3:
            out += "\\u%04X" % ord(c) if ord(c) < 0x10000 else c
        elif c in '"\\' or c < " ":
            out += {"\n": "\\n", "\t": "\\t", "\b": "\\b", "\f": "\\f", "\r": "\\r"}.get(c, "\\" + c)
        else:
            out += "\\/" if c == "/" and how < 0.5 else c
    return out + '"'


def space(chance):
    return "" if chance.random() < 0.8 else chance.choice((" ", "\n", "\t", "\r", "  \n"))


def random_scalar(chance):
    what = chance.randrange(6)
    if what == 0:
        return chance.choice(("null", "true", "false"))
    if what == 1:
        return chance.choice(NUMBERS)
    if what == 2:
        return str(chance.getrandbits(chance.randrange(1, 66)) * chance.choice((1, -1)))
    if what == 3:
        return repr(chance.uniform(-10, 10) * 10.0 ** chance.randrange(-20, 20))
    return write_string(chance, random_text(chance))


def random_marker(chance):
    text = chance.choice(("", "00ff", "0", "xy", "nan", "infinity", "-infinity", "7ff8000000000000", "7FF0000000000001",
                          "7ff0000000000000", "fff123456789abcd", "DEADbeef", "NaN"))
    return '{%s:%s"%s"%s}' % (write_string(chance, chance.choice(KEYS[4:9])), space(chance), text, space(chance))


def random_document(chance, depth, top=False):
    """Mostly valid."""
    what = chance.random()
    if not top and (depth == 0 or what < 0.5):
        return random_scalar(chance) if chance.random() < 0.9 else random_marker(chance)
    count = chance.randrange(5)
    if not top and what < 0.7:
        return "[" + ",".join(space(chance) + random_document(chance, depth - 1) + space(chance) for _ in range(count)) + "]"
    keys = [chance.choice(KEYS) if chance.random() < 0.4 else random_text(chance).replace("\0", "0") for _ in range(count)]
    if chance.random() < 0.9:
        keys = list(dict.fromkeys(keys))
    return "{" + space(chance) + ",".join(
        space(chance) + write_string(chance, key) + space(chance) + ":" + space(chance) + random_document(chance, depth - 1) +
        space(chance) for key in keys) + "}" + space(chance)


def damaged(chance, document):
    data = bytearray(document)
    for _ in range(chance.randrange(1, 3)):
        at = chance.randrange(len(data) + 1)
        what = chance.randrange(4)
        if what == 0:
            data[at:at] = bytes([chance.choice(b'{}[]",:\\u0123456789eE+-.tfn \x00\x7f\x80\xc3\xa9\xed')])
        elif what == 1:
            del data[at:at + chance.randrange(1, 4)]
        elif at < len(data):
            data[at] = chance.choice(b'{}[]",:\\ 019-e.\x1f\xff') if what == 2 else data[at] ^ 1 << chance.randrange(8)
    return bytes(data)


# ---- both sides ----

def build(folder):
    program = os.path.join(folder, "json_driver")
    must(compiler("CC", "cc") + ["-std=c99", "-O1", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all",
                                 "-DIQDB_MODULES", "-D_GNU_SOURCE", "-Isrc"] + SOURCES + ["-o", program], cwd=ROOT)
    return program


def ask(program, what, strings):
    """For each string None, or the pair of what was made of it and of that."""
    stream = b"".join(struct.pack("<I", len(data)) + data for data in strings)
    answer = subprocess.run([program, what], input=stream, stdout=subprocess.PIPE, check=True).stdout
    pairs, at = [], 0
    for _ in strings:
        accepted, at = answer[at], at + 1
        if not accepted:
            pairs.append(None)
            continue
        pair = []
        for _ in range(2):
            size, = struct.unpack_from("<I", answer, at)
            pair.append(answer[at + 4:at + 4 + size])
            at += 4 + size
        pairs.append(tuple(pair))
    assert at == len(answer)
    return pairs


def compare(program, documents):
    """How many are payloads."""
    accepted, texts = 0, []
    for document, seen in zip(documents, ask(program, "read", documents)):
        try:
            model = read_text(document)
        except Refused:
            assert seen is None, "accepted: %r as %r" % (document, seen)
            continue
        expected = (b"", b"null") if model is None else (encode_container(model[1], True), text_of(model).encode())
        assert seen is not None, "refused: %r" % document
        assert seen == expected, "%r\n seen     %r\n expected %r" % (document, seen, expected)
        accepted += 1
        if model is not None:
            texts.append((expected[1], expected[0]))
    for (text, payload), seen in zip(texts, ask(program, "read", [text for text, _ in texts])):
        assert seen == (payload, text), "%r\n seen %r" % (text, seen)
    return accepted


def with_program(test):
    def run():
        with tempfile.TemporaryDirectory() as folder:
            test(build(folder), random.Random(9))
    run.__name__ = test.__name__
    return run


@with_program
def random_documents(program, chance):
    done = accepted = 0
    while done < DOCUMENTS:
        documents = [random_document(chance, 4, top=True).encode() for _ in range(BATCH * 2 // 3)]
        documents += [damaged(chance, chance.choice(documents)) for _ in range(BATCH - len(documents))]
        accepted += compare(program, documents)
        done += len(documents)
    assert done >= DOCUMENTS and 0.3 * done < accepted < 0.8 * done, (done, accepted)


def random_model(chance, kind, depth):
    if kind == NULL:
        return kind, None
    if kind == BOOL:
        return kind, chance.random() < 0.5
    if kind == INT:
        return kind, chance.randrange(-2 ** 63, 2 ** 63) >> chance.randrange(64)
    if kind == FLOAT:
        bits = chance.choice((NAN, INFINITY, INFINITY + 1, NAN | 1 << 63, 1 << 63, chance.getrandbits(64)))
        return kind, struct.pack("<Q", bits)
    if kind == TEXT:
        return kind, random_text(chance)
    if kind == BYTES:
        return kind, chance.randbytes(chance.randrange(6))
    items = [random_model(chance, chance.randrange(8 if depth > 0 else 6), depth - 1) for _ in range(chance.randrange(5))]
    if kind == ARRAY:
        return kind, items
    keys = [(chance.choice(KEYS) if chance.random() < 0.5 else random_text(chance)).replace("\0", "0") for _ in items]
    return kind, [(key.encode(), item) for key, item in dict(zip(keys, items)).items()]


@with_program
def every_payload_comes_back(program, chance):
    done = 0
    while done < DOCUMENTS // 2:
        models = [random_model(chance, OBJECT, 3) for _ in range(BATCH // 2)]
        payloads = [encode_container(model[1], True) for model in models]
        for model, payload, seen in zip(models, payloads, ask(program, "write", payloads)):
            expected = text_of(model).encode(), payload
            assert seen == expected, "%r\n seen     %r\n expected %r" % (model, seen, expected)
        done += len(models)
    refused = [b"", b"\0", b"\1\0\0\0", encode_container([(b"\xff", (NULL, None))], True)]
    assert ask(program, "write", refused) == [None] * len(refused)


@with_program
def cases(program, _):
    """What parsers get wrong, in the spirit of the public collections of such cases."""
    good = ['{}', ' \t\r\n{ } \n', 'null', ' null ', '{"":0}', '{"a":[]}', '{"a":{}}', '{"a":[[],{},[{}]]}', '{"a":"\\u0000"}',
            '{"\\u0061":1,"b":2}', '{"b":1,"a":2}', '{"a":"\\ud83d\\ude00"}', '{"a":"\\uD83D\\uDE00x"}', '{"a":"\x7f\u2028"}',
            '{"a":"\\"\\\\\\/\\b\\f\\n\\r\\t"}', '{"a":-0,"b":-0.0,"c":0e1,"d":0e+1,"e":1.50}', '{"a":123.456e78,"b":0.1e-7}',
            '{"a":1e-999}', '{"a":[true,false,null]}', '{"a" :\n1}', '{"$bytes":"00"}', '{"$float":"nan"}', '{"$$bytes":"00"}',
            '{"a":{"$bytes":""}}', '{"a":{"$bytes":"00FFab"}}', '{"a":{"$bytes":5}}', '{"a":{"$bytes":"0","b":1}}',
            '{"a":{"$$bytes":"zz"}}', '{"a":{"$$$bytes":5}}', '{"a":{"$float":"fff0000000000001"}}', '{"a":{"\\u0024bytes":"01"}}',
            '{"a":{"$Bytes":"zz"}}', '{"a":[{"$float":"-infinity"}]}', '{"a":"\\ufffe\\uffff\\ufeff"}', '{"a":9223372036854775807}']
    bad = ['', ' ', '[', ']', '{', '}', '[]', '1', '"a"', 'true', 'nul', 'nullx', 'null null', '{}{}', '{},', '{}x', '{}\0', '{,}',
           '{"a"}', '{"a":}', '{"a":1,}', '{,"a":1}', '{"a":1 "b":2}', '{"a":1,,"b":2}', '{"a"::1}', '{a:1}', "{'a':1}", '{1:1}',
           '{"a":[1,]}', '{"a":[,1]}', '{"a":[1 2]}', '{"a":[1}', '{"a":{"b":1]}', '{"a":[', '{"a":[1', '{"a":1', '{"a', '{"a"', '{"a":',
           '{"a":01}', '{"a":-}', '{"a":-01}', '{"a":+1}', '{"a":.5}', '{"a":5.}', '{"a":1.e1}', '{"a":1e}', '{"a":1e+}', '{"a":0x1}',
           '{"a":NaN}', '{"a":nan}', '{"a":Infinity}', '{"a":-Infinity}', '{"a":1e400}', '{"a":9223372036854775808}', '{"a":1_0}',
           '{"a":True}', '{"a":truex}', '{"a":tru}', '{"a":undefined}', '{"a":"\t"}', '{"a":"\n"}', '{"a":"\0"}', '{"a":"\\x41"}',
           '{"a":"\\a"}', '{"a":"\\u12"}', '{"a":"\\u12G4"}', '{"a":"\\U0041"}', '{"a":"\\', '{"a":"\\u', '{"a":"\\"}', '{"a":"\\0"}',
           '{"a":"\\ud800"}', '{"a":"\\udc00"}', '{"a":"\\ud800\\ud800"}', '{"a":"\\ud800x"}', '{"a":"\\ud800\\n"}', '{"a":"\\ud800\\u0041"}',
           '{"\\ud800":1}', '{"\\u0000":1}', '{"a\\u0000b":1}', '{"a":1,"a":2}', '{"a":1,"\\u0061":2}', '{"b":{"a":1,"c":2,"a":1}}',
           '\ufeff{}', '{"a":1}//', '/**/{}', '{"a":1;}', '{"a":{"$bytes":"0"}}', '{"a":{"$bytes":"0g"}}', '{"a":{"$bytes":" 00"}}',
           '{"a":{"$float":"inf"}}', '{"a":{"$float":""}}', '{"a":{"$float":"-nan"}}', '{"a":{"$float":"7ff0000000000000"}}',
           '{"a":{"$float":"3ff0000000000000"}}', '{"a":{"$float":"7ff800000000000"}}', '{\x0b}', '{\u00a0}']
    raw = [b'{"a":"\xff"}', b'{"\xff":1}', b'{"a":"\xc0\x80"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xf4\x90\x80\x80"}', b'{"a":"\xe9"}',
           b'{"a":"\xc3', b'\xef\xbb\xbf{}', b'\xff\xfe{\0}\0', b'{"a":"\xc3\\u0041"}']
    assert compare(program, [text.encode() for text in good]) == len(good)
    assert compare(program, [text.encode() for text in bad] + raw) == 0
    for opened, closed in ("[]", ("{\"k\":", "}")):
        documents = [('{"k":' + opened * n + ("" if opened == "[" else "1") + closed * n + "}").encode() for n in (61, 62, 63, 64, 65)]
        assert compare(program, documents) == 3, opened
    deep = [b"[" * 100000, b'{"a":' * 100000, b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}"]
    assert ask(program, "read", deep) == [None] * 3
    wide = b'{"a":[' + b",".join(b"%d" % i for i in range(100000)) + b"]}"
    many = b"{" + b",".join(b'"%d":%d' % (i * 7919 % 100000, i) for i in range(100000)) + b"}"
    assert compare(program, [wide, many]) == 2


if __name__ == "__main__":
    main("codec/json", [random_documents, every_payload_comes_back, cases])
