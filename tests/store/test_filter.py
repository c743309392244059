#!/usr/bin/env python3
"""Filters against an evaluator in Python over the JSON form of payloads.

Each filter goes to C twice: as text, and built by the constructors. Both must decide about each payload as the evaluator
here does, which looks into what json.loads gives and compares as Python does: integers and floats exactly, text by code
points, which is the order of UTF-8."""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../format"))
from harness import ROOT, compiler, main, must  # noqa: E402
from test_payload import BOOL, BYTES, FLOAT, INT, NULL, TEXT, encode_value  # noqa: E402

SOURCES = ["tests/store/filter_driver.c"] + ["src/%s.c" % name for name in (
    "store/filter", "store/filter_text", "codec/json", "codec/number", "codec/payload", "codec/value", "codec/utf8",
    "base/alloc", "base/report")]
PAIRS = {"quick": 40000, "long": 1200000}.get(os.environ.get("IQDB_TEST_TIER"), 200000)
SIDE = 200  # payloads and filters of a batch
OPS = ["all", "eq", "ne", "lt", "le", "gt", "ge", "between", "in", "prefix", "exists", "is_null", "contains", "and", "or", "not"]
SIGNS = {"eq": ("=", "=="), "ne": ("!=", "<>"), "lt": ("<",), "le": ("<=",), "gt": (">",), "ge": (">=",)}
NAN, INFINITY = float("nan"), float("inf")


class Missing:
    pass


# ---- the evaluator ----

def kind_of(value):
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    return {int: "number", float: "number", str: "text", bytes: "bytes"}.get(type(value))


def look_up(fields, key):
    if key in fields:
        return fields[key]
    parts = key.split(".")
    for i in range(1, len(parts)):
        inner = fields.get(".".join(parts[:i]))
        if isinstance(inner, dict):
            return look_up(inner, ".".join(parts[i:]))
    return Missing


def equal(a, b):
    return kind_of(a) is not None and kind_of(a) == kind_of(b) and a == b


def compare(op, a, b):
    if kind_of(a) is None or kind_of(a) != kind_of(b):
        return False
    if op in ("eq", "ne"):
        return (a == b) == (op == "eq")
    if a is None:
        return op in ("le", "ge")
    return {"lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}[op]


def holds(node, fields):
    op = node[0]
    if op == "and":
        return all(holds(child, fields) for child in node[1])
    if op == "or":
        return any(holds(child, fields) for child in node[1])
    if op == "not":
        return not holds(node[1][0], fields)
    value = look_up(fields, node[1])
    if value is Missing:
        return False
    constants = node[2]
    if op == "exists":
        return True
    if op == "is_null":
        return value is None
    if op == "between":
        return compare("ge", value, constants[0]) and compare("le", value, constants[1])
    if op == "in":
        return any(equal(value, constant) for constant in constants)
    if op == "prefix":
        return isinstance(value, str) and value.startswith(constants[0])
    if op == "contains":
        return isinstance(value, list) and any(equal(item, constants[0]) for item in value)
    return compare(op, value, constants[0])


def from_json(text):
    def hook(pairs):
        fields = dict(pairs)
        if list(fields) == ["$bytes"]:
            return bytes.fromhex(fields["$bytes"])
        if list(fields) == ["$float"]:
            return {"nan": NAN, "infinity": INFINITY, "-infinity": -INFINITY}[fields["$float"]]
        return fields
    return json.loads(text, object_pairs_hook=hook)


# ---- what is compared, at random: few values, so that they meet, and those where numbers are hard ----

NUMBERS = [0, 1, -1, 2, 3, 2 ** 53, 2 ** 53 + 1, 2 ** 53 + 2, -2 ** 53 - 1, 2 ** 63 - 1, -2 ** 63, 2 ** 62, 0.0, -0.0, 1.0, 1.5, -1.0,
           2.0 ** 53, 2.0 ** 53 + 2, -2.0 ** 53, 2.0 ** 63, -2.0 ** 63, 2.0 ** 63 - 1024, 2.0 ** 64, 1e300, -1e300, 5e-324, 2.5]
TEXTS = ["", "a", "ab", "abc", "b", "B", "a\0", "a\0b", "it's", "\xe9", "\uffff", "\U00010000", "\x7f", 'say "x"']
BLOBS = [b"", b"\0", b"\0\0", b"a", b"ab", b"\xff"]
COMMON = [0, 1, 1.0, 2 ** 53 + 1, 2.0 ** 53, "a", "ab", None, True, b"a"]
KEYS = ["a", "b", "kind", "a.b", "o", "o.k", "o.k.x", "k", "x", "list", "b.c", "o.list", "."]


def random_scalar(chance, special=False):
    if chance.random() < 0.6:
        return chance.choice(COMMON)
    pool = chance.choice((NUMBERS, NUMBERS, TEXTS, TEXTS, BLOBS, (None, True, False),
                          (NAN, INFINITY, -INFINITY) if special else NUMBERS))
    return chance.choice(pool)


def random_value(chance, depth):
    what = chance.random()
    if what < 0.55 or depth == 0:
        return random_scalar(chance, True)
    if what < 0.75:
        return [random_value(chance, depth - 1) for _ in range(chance.randrange(5))]
    return random_fields(chance, depth - 1)


def random_fields(chance, depth):
    fields = {key: random_value(chance, depth) for key in chance.sample(KEYS, chance.randrange(1, len(KEYS)))}
    if "list" in fields:
        fields["list"] = [random_value(chance, 0) for _ in range(chance.randrange(8))]
    return fields


def to_json(value):
    if isinstance(value, bytes):
        return '{"$bytes":"%s"}' % value.hex()
    if isinstance(value, float) and (value != value or value in (INFINITY, -INFINITY)):
        return '{"$float":"%s"}' % ("nan" if value != value else "infinity" if value > 0 else "-infinity")
    if isinstance(value, list):
        return "[%s]" % ",".join(to_json(item) for item in value)
    if isinstance(value, dict):
        return "{%s}" % ",".join(json.dumps(key) + ":" + to_json(item) for key, item in value.items())
    return json.dumps(value)


def random_constant(chance, op, value):
    """One that makes a test of this value hold, or nearly so, where there is such a one."""
    if op == "contains" and isinstance(value, list) and value:
        value = chance.choice(value)
    if op == "prefix" and isinstance(value, str):
        value = value[:chance.randrange(len(value) + 1)]
    usable = isinstance(value, str) if op == "prefix" else value is not Missing and kind_of(value) is not None
    if usable and chance.random() < 0.7:
        return value
    return chance.choice(TEXTS[:6] + TEXTS[8:]) if op == "prefix" else random_scalar(chance, chance.random() < 0.1)


def random_filter(chance, depth, seen):
    if depth > 0 and chance.random() < 0.6:
        op = chance.choice(("and", "or", "not"))
        count = 1 if op == "not" else chance.choice((0, 1, 2, 2, 3, 4))
        return op, [random_filter(chance, depth - 1, seen) for _ in range(count)]
    op = chance.choice(OPS[1:13])
    key = chance.choice(KEYS + ["missing"])
    count = {"between": 2, "in": chance.choice((0, 1, 2, 3, 10, 40)), "exists": 0, "is_null": 0}.get(op, 1)
    constants = [random_constant(chance, op, look_up(chance.choice(seen), key)) for _ in range(count)]
    if op == "between" and chance.random() < 0.7:
        constants = sorted(chance.sample(chance.choice((NUMBERS, TEXTS, BLOBS)), 2))
    if op == "prefix":
        constants = [constants[0].replace("\0", "")]  # the constructor takes it up to a NUL
    return op, key, constants


def value_text(chance, value):
    """None where it has no text."""
    if value is None or isinstance(value, bool):
        word = {None: "null", True: "true", False: "false"}[value]
        return chance.choice((word, word.upper()))
    if isinstance(value, bytes):
        return "x'%s'" % value.hex()
    if isinstance(value, str):
        return None if "\0" in value else "'%s'" % value.replace("'", "''")
    return None if value in (INFINITY, -INFINITY) or value != value else repr(value)


def key_text(chance, key):
    return '"%s"' % key if key == "." or chance.random() < 0.2 else key


def filter_text(chance, node, outer="or"):
    """None where it has no text. Parentheses only where they are needed, and now and then where they are not."""
    op = node[0]
    if op in ("and", "or"):
        parts = [filter_text(chance, child, op) for child in node[1]]
        if len(parts) == 0 or None in parts:
            return None
        text = (" %s " % chance.choice((op, op.upper()))).join(parts)
        needed = op == "or" and outer != "or" or op == "and" and outer == "not"
        return "(%s)" % text if needed or chance.random() < 0.1 else text
    if op == "not":
        inner = filter_text(chance, node[1][0], "not")
        return None if inner is None else "not " + inner
    constants = [value_text(chance, constant) for constant in node[2]]
    if None in constants:
        return None
    key = key_text(chance, node[1])
    if op in SIGNS:
        space = chance.choice(("", " ", "\n\t"))
        return key + space + chance.choice(SIGNS[op]) + space + constants[0]
    return {"between": lambda: "%s between %s and %s" % (key, constants[0], constants[1]),
            "in": lambda: "%s in (%s)" % (key, ", ".join(constants)), "prefix": lambda: "%s prefix %s" % (key, constants[0]),
            "exists": lambda: key + " exists", "is_null": lambda: key + " is null",
            "contains": lambda: "%s contains %s" % (key, constants[0])}[op]()


def encoded_constant(value):
    kind = {"null": NULL, "bool": BOOL, "text": TEXT, "bytes": BYTES}.get(kind_of(value))
    if kind is None:
        kind = INT if isinstance(value, int) else FLOAT
    return encode_value((kind, struct.pack("<d", value) if kind == FLOAT else value))


def sized(data):
    return struct.pack("<I", len(data)) + data


def filter_bytes(node):
    head = bytes([OPS.index(node[0])])
    if node[0] in ("and", "or", "not"):
        return head + struct.pack("<I", len(node[1])) + b"".join(filter_bytes(child) for child in node[1])
    return head + sized(node[1].encode()) + struct.pack("<I", len(node[2])) + b"".join(
        sized(encoded_constant(constant)) for constant in node[2])


# ---- both sides ----

def build(folder):
    program = os.path.join(folder, "filter_driver")
    must(compiler("CC", "cc") + ["-std=c99", "-O1", "-g", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-DIQDB_MODULES",
                                 "-Isrc"] + SOURCES + ["-o", program], cwd=ROOT)
    return program


def decide(program, payloads, filters):
    stream = struct.pack("<I", len(payloads)) + b"".join(sized(text.encode()) for text in payloads)
    stream += struct.pack("<I", len(filters)) + b"".join(
        sized((text or "").encode()) + sized(filter_bytes(node)) for node, text in filters)
    answer = subprocess.run([program], input=stream, stdout=subprocess.PIPE, check=True).stdout.decode()
    return answer.split("\n")[:-1]


def random_pairs():
    chance, done, texts = random.Random(11), 0, 0
    counts = {}  # (op, outcome) of filters that are one test
    with tempfile.TemporaryDirectory() as folder:
        program = build(folder)
        while done < PAIRS:
            payloads = [to_json(random_fields(chance, 2)) for _ in range(SIDE)]
            fields = [from_json(text) for text in payloads]
            filters = []
            for _ in range(SIDE):
                node = random_filter(chance, chance.choice((0, 0, 1, 2, 4)), fields)
                filters.append((node, filter_text(chance, node)))
            texts += sum(text is not None for _, text in filters)
            lines = decide(program, payloads, filters)
            assert len(lines) == SIDE
            for (node, text), line in zip(filters, lines):
                expected = "".join("1" if holds(node, one) else "0" for one in fields)
                assert len(line) == SIDE
                if line != expected:
                    at = [i for i in range(SIDE) if line[i] != expected[i]][0]
                    raise AssertionError("%r\n %r\n %s\n seen %s" % (node, text, payloads[at], line[at]))
                for outcome in "01":
                    counts[node[0], outcome] = counts.get((node[0], outcome), 0) + expected.count(outcome)
            done += SIDE * SIDE
    assert done >= PAIRS and texts * SIDE > PAIRS / 2, (done, texts)
    for op in OPS[1:]:
        for outcome in "01":
            assert counts.get((op, outcome), 0) > done / 5000, (op, outcome, counts)


if __name__ == "__main__":
    main("store/filter", [random_pairs])
