"""The command as the tests of this folder run it: built once, with the sanitizers where there are some."""
import fcntl
import hashlib
import json
import os
import random
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, Skip, compiler, main, must, run  # noqa: E402,F401

SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def build(source="tools/iqdb.c", parts=("tools/app.h", "tools/rows.h"), flags=(), libraries=()):
    """The path of the command that `source` with its `parts` makes."""
    folder = os.path.abspath(os.path.join(ROOT, os.environ.get("BUILD", "build"), "cli"))
    os.makedirs(folder, exist_ok=True)
    command = compiler("CC", "cc") + ["-std=gnu99", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-I", ROOT, *flags]
    text = " ".join(command).encode()
    for name in (source, *parts, "iqdb.h"):
        with open(os.path.join(ROOT, name), "rb") as file:
            text += file.read()
    path = os.path.join(folder, os.path.basename(source)[:-2] + "-" + hashlib.sha256(text).hexdigest()[:16])
    with open(os.path.join(folder, "lock"), "w") as lock:  # the programs of this folder are started together
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path):
            trial = os.path.join(folder, "trial")
            with open(trial + ".c", "w") as file:
                file.write("int main(void) { return 0; }\n")
            works = run(command + SANITIZE + [trial + ".c", "-o", trial])[0] == 0
            must(command + (SANITIZE if works else []) + [os.path.join(ROOT, source), "-o", path + ".new", "-lm",
                                                          *libraries])
            os.rename(path + ".new", path)
    return path


# $IQDB_COMMAND names another one, which is then tested in its place.
COMMAND = os.path.abspath(os.environ["IQDB_COMMAND"]) if os.environ.get("IQDB_COMMAND") else build()


class Answer:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def json(self):
        return [json.loads(line) for line in self.out.splitlines()]


def iqdb(folder, *arguments, stdin=None, code=0, stdout=subprocess.PIPE):
    """Runs the command inside of `folder`; `code` is what it has to exit with."""
    done = subprocess.run([COMMAND] + [str(argument) for argument in arguments], cwd=folder, timeout=300,
                          input=stdin, stdin=subprocess.DEVNULL if stdin is None else None, stdout=stdout,
                          stderr=subprocess.PIPE)
    answer = Answer(done.returncode, (done.stdout or b"").decode(), done.stderr.decode())
    assert answer.code == code, "iqdb %s: exit %s, not %s\n%s%s" % (
        " ".join(map(str, arguments)), answer.code, code, answer.out[-2000:], answer.err[-4000:])
    if code and not (128 < code < 160):
        assert answer.err.count("\n") == 1, "not one line of error:\n" + answer.err
    return answer


def f32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def rows_of_floats(count, dim, seed=1):
    source = random.Random(seed)
    return [[f32(source.uniform(-1, 1)) for _ in range(dim)] for _ in range(count)]


def rows_of_integers(count, dim, low, high, seed=2):
    source = random.Random(seed)
    return [[source.randint(low, high) for _ in range(dim)] for _ in range(count)]


def vecs(rows, letter):
    return b"".join(struct.pack("<i%d%s" % (len(row), letter), len(row), *row) for row in rows)


def bins(rows, letter):
    body = b"".join(struct.pack("<%d%s" % (len(row), letter), *row) for row in rows)
    return struct.pack("<II", len(rows), len(rows[0])) + body


def npy(rows, letter="f", descr="<f4", version=1, shape=None):
    text = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }" % (descr, shape or (len(rows), len(rows[0])))
    size = 10 if version == 1 else 12
    text = (text + " " * (63 - (size + len(text)) % 64) + "\n").encode()
    head = b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text))
    return head + text + b"".join(struct.pack("<%d%s" % (len(row), letter), *row) for row in rows)


def write(folder, name, data):
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())
    return name


def read(folder, name):
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


def records(folder, database):
    """{id: (vector, payload)} of a database, by way of JSON."""
    lines = iqdb(folder, "export", database).json()
    assert [line["id"] for line in lines] == sorted(line["id"] for line in lines)
    return {int(line["id"]): ([f32(x) for x in line["vector"]], line["payload"]) for line in lines}
