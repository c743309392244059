#!/usr/bin/env python3
"""Numbers as text against Python: repr and float are correctly rounded, and its integers have no end."""
import os
import random
import re
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, compiler, main, must  # noqa: E402

SOURCES = ["tests/codec/number_driver.c", "src/codec/number.c"]
ROUNDS = {"quick": 20000, "long": 5000000}.get(os.environ.get("IQDB_TEST_TIER"), 200000)
BATCH = 200000
INT, FLOAT, ABSENT = 2, 3, 255
GRAMMAR = re.compile(rb"-?(?:0|[1-9][0-9]*)(?P<point>\.[0-9]+)?(?P<exponent>[eE][+-]?[0-9]+)?")
INFINITY = 0x7FF << 52


def build(folder):
    program = os.path.join(folder, "number_driver")
    must(compiler("CC", "cc") + ["-std=c99", "-O1", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all",
                                 "-DIQDB_ASSERT(x)=((x) ? (void)0 : __builtin_trap())", "-DIQDB_MODULES", "-Isrc"] +
         SOURCES + ["-o", program], cwd=ROOT)
    return program


def ask(program, what, stream):
    return subprocess.run([program, what], input=stream, stdout=subprocess.PIPE, check=True).stdout


def as_float(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def as_bits(value):
    return struct.unpack("<Q", struct.pack("<d", value))[0]


def expected_text(value):
    """repr, with the exponent as we write it: 1e-05 is 1e-5, and 1e+16 is 1e16."""
    text = repr(value)
    if "e" not in text:
        return text
    digits, exponent = text.split("e")
    return "%se%d" % (digits, int(exponent))


def check_written(program, patterns):
    lines = ask(program, "write-float", struct.pack("<%dQ" % len(patterns), *patterns)).decode().split("\n")
    assert len(lines) == len(patterns) + 1
    for bits, line in zip(patterns, lines):
        assert line == expected_text(as_float(bits)), (hex(bits), line, repr(as_float(bits)))


def expected_read(text):
    """(type, 8 bytes, bytes read)"""
    match = GRAMMAR.match(text)
    if match is None:
        return ABSENT, b"\0" * 8, 0
    after = text[match.end():match.end() + 1]
    if match["exponent"] is None and (after in (b"e", b"E") or after == b"." and match["point"] is None):
        return ABSENT, b"\0" * 8, 0  # half a fraction or exponent: we stop at nothing, where the pattern stops before it
    number = match.group()
    if match["point"] is None and match["exponent"] is None:
        value = int(number)
        if -2 ** 63 <= value < 2 ** 63:
            return INT, struct.pack("<q", value), len(number)
        return ABSENT, b"\0" * 8, len(number)
    value = float(number)
    if as_bits(value) & ~(1 << 63) == INFINITY:
        return ABSENT, b"\0" * 8, len(number)
    return FLOAT, struct.pack("<d", value), len(number)


def check_read(program, texts):
    stream = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    answer = ask(program, "read", stream)
    assert len(answer) == 13 * len(texts)
    for i, text in enumerate(texts):
        kind, value, used = struct.unpack_from("<B8sI", answer, 13 * i)
        assert (kind, value, used) == expected_read(text), (text[:900], kind, value.hex(), used, expected_read(text))


def hard_patterns(chance):
    """Bit patterns near what is special: powers of two and ten, few bits, few digits, integers, the least numbers."""
    yield from range(0, 2000)
    for biased in range(2047):
        for fraction in (0, 1, 2, (1 << 52) - 1, (1 << 52) - 2, 1 << 51):
            yield biased << 52 | fraction
    for exponent in range(-330, 310):
        bits = as_bits(float("1e%d" % exponent))
        for near in range(-3, 4):
            yield max(0, bits + near) % INFINITY
        for digits in range(2, 100):
            yield as_bits(float("%de%d" % (digits, exponent))) % INFINITY
    for k in range(25):  # multiples of powers of five: the decimal ends exactly on an integer
        for shift in range(0, 971, 7):
            multiple = 5 ** k * (2 ** 53 // 5 ** k - chance.randrange(3))
            if multiple > 0:
                yield as_bits(float(multiple) * 2.0 ** shift)
    for i in range(53, 64):
        for near in (-1, 0, 1):
            yield as_bits(float(2 ** i + near))


def with_program(test):
    def run():
        with tempfile.TemporaryDirectory() as folder:
            test(build(folder), random.Random(7))
    run.__name__ = test.__name__
    return run


@with_program
def hard_doubles_are_written_as_python_does(program, chance):
    patterns = sorted(set(hard_patterns(chance)))
    assert len(patterns) > 70000, len(patterns)
    check_written(program, patterns + [bits | 1 << 63 for bits in patterns])


@with_program
def random_doubles_are_written_as_python_does(program, chance):
    done = 0
    while done < ROUNDS:
        count = min(BATCH, ROUNDS - done)
        patterns = [bits for bits in struct.unpack("<%dQ" % count, chance.randbytes(8 * count))
                    if bits & INFINITY != INFINITY]
        patterns += [as_bits(round(chance.uniform(-1e6, 1e6), chance.randrange(6))) for _ in range(count // 4)]
        check_written(program, patterns)
        done += count


@with_program
def integers_are_written_exactly(program, chance):
    values = [sign * (2 ** i + near) for i in range(64) for near in (-1, 0, 1) for sign in (-1, 1)]
    values += [sign * (10 ** i + near) for i in range(19) for near in (-1, 0, 1) for sign in (-1, 1)]
    values += [chance.randrange(-2 ** 63, 2 ** 63) >> chance.randrange(64) for _ in range(20000)]
    values = [value for value in values if -2 ** 63 <= value < 2 ** 63]
    lines = ask(program, "write-int", struct.pack("<%dq" % len(values), *values)).decode().split("\n")
    assert lines == [str(value) for value in values] + [""]


def texts_of(bits, chance):
    """Ways to write about the same number."""
    value = as_float(bits)
    text = repr(value)
    yield text if "." in text or "e" in text else text + ".0"
    yield "%.*e" % (chance.randrange(0, 25), value)
    yield "%d.%de%d" % (chance.randrange(10), chance.randrange(10 ** chance.randrange(1, 40)), chance.randrange(-330, 310))
    digits = str(chance.randrange(10 ** chance.randrange(1, 30)))
    yield "0.%s%se%d" % ("0" * chance.randrange(5), digits, chance.randrange(-30, 30))
    yield "%s%s%s" % (digits, "0" * chance.randrange(30), chance.choice(("", ".0", "e0", ".00e-3")))


@with_program
def random_texts_are_read_as_python_does(program, chance):
    done = 0
    while done < ROUNDS:
        count = min(BATCH, ROUNDS - done) // 5
        texts = []
        for _ in range(count):
            bits = chance.getrandbits(64)
            if bits & INFINITY != INFINITY:
                texts += [text.encode() for text in texts_of(bits, chance)]
        check_read(program, texts)
        done += count * 5


def exact_text(numerator, exponent):
    """numerator * 2^exponent in full, as digits and a power of ten."""
    if exponent >= 0:
        return str(numerator << exponent), 0
    return str(numerator * 5 ** -exponent), exponent


@with_program
def halfway_texts_are_read_as_python_does(program, chance):
    """The decimal exactly between two doubles, with all its digits, and a little above and below."""
    texts = []
    patterns = list(range(0, 40)) + [(1 << 52) - 1, 1 << 52, INFINITY - 1, INFINITY - 2]
    patterns += [chance.getrandbits(64) % INFINITY for _ in range(ROUNDS // 400)]
    patterns += [as_bits(chance.randrange(2 ** 53) * 2.0 ** chance.randrange(-60, 60)) for _ in range(ROUNDS // 400)]
    for bits in patterns:
        biased, fraction = bits >> 52, bits & ((1 << 52) - 1)
        c, q = (fraction, -1074) if biased == 0 else (fraction | 1 << 52, biased - 1075)
        digits, exponent = exact_text(2 * c + 1, q - 1)
        texts.append("%se%d" % (digits, exponent))
        texts.append("%s000000001e%d" % (digits, exponent - 9))
        texts.append("%d9e%d" % (int(digits) - 1, exponent - 1))
        texts.append("%s.%se%d" % (digits[0], digits[1:] or "0", exponent + len(digits) - 1))
        texts.append("%s%s1e%d" % (digits, "0" * 800, exponent - 801))
        texts.append("%s.%s" % (digits, "0" * 30) if exponent == 0 else "%s%se%d" % (digits, "0" * 900, exponent - 900))
        texts.append("%se%d" % (digits[:19], exponent + len(digits) - len(digits[:19])))
        texts.append("%se%d" % (digits[:20], exponent + len(digits) - len(digits[:20])))
    check_read(program, [text.encode() for text in texts])


@with_program
def edges_and_grammar(program, chance):
    texts = ["0", "-0", "0.0", "-0.0", "0e5", "-0e-5", "00", "01", "-", "", "+1", ".5", "5.", "1.e5", "1e", "1e+", "1E-", "-a",
             "1e5.5", "0x10", "1_000", "NaN", "Infinity", "-Infinity", "1 2", "1.5,", "12]", "1..2", "--1", "1e1e1",
             "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
             "18446744073709551615", "18446744073709551616", "99999999999999999999", "10000000000000000000", "1" + "0" * 100,
             "1e308", "1.7976931348623157e308", "1.7976931348623158e308", "1.7976931348623159e308", "1e309", "-1e309", "1e310",
             "1e311", "1e999999999999999999999999", "-1e-999999999999999999999999", "0e999999999999999999999999",
             "4.9e-324", "2.5e-324", "2.4e-324", "2.4703282292062327e-324", "2.4703282292062328e-324", "1e-340", "1e-345",
             "1e-400", "2.2250738585072011e-308", "2.2250738585072012e-308", "2.2250738585072014e-308", "9007199254740993.0",
             "9007199254740992.99999999999999999999", "0." + "0" * 400 + "1e400", "0." + "0" * 5000 + "1",
             "1" + "0" * 5000 + "e-5000", "0." + "9" * 5000, "9" * 309 + ".0", "9" * 308 + ".9", "1" * 400 + "e-200"]
    alphabet = "0123456789.eE+-"
    texts += ["".join(chance.choice(alphabet) for _ in range(chance.randrange(1, 12))) for _ in range(ROUNDS // 4)]
    check_read(program, [text.encode() for text in texts])


if __name__ == "__main__":
    main("codec/number", [hard_doubles_are_written_as_python_does, random_doubles_are_written_as_python_does,
                          integers_are_written_exactly, random_texts_are_read_as_python_does,
                          halfway_texts_are_read_as_python_does, edges_and_grammar])
