"""Real redis-server processes with the module, and a local handle to compare with. What is missing skips the tests."""
import ctypes
import fcntl
import hashlib
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, Skip, compiler, main, must, run  # noqa: E402,F401

sys.path.insert(0, os.path.join(ROOT, "examples", "redis"))
try:
    import redis
    redis.Redis
except (ImportError, AttributeError):  # without the package this folder is found under its name
    redis = None

METRICS = {"l2": 1, "cosine": 2, "dot": 3, "l1": 4}
HERE = "127.0.0.1"
NAMES = {"local": "tests/redis/local.c", "module": "examples/redis/module.c"}


def need():
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
        raise Skip("no redis-server")
    if redis is None:
        raise Skip("no redis package for %s" % sys.executable)
    version = re.search(r"v=(\d+)", run(["redis-server", "--version"])[1])
    if not version or int(version.group(1)) < 7:
        raise Skip("redis-server is older than 7.0")


def library(name):
    """Path of a shared library of NAMES, compiled once. $IQDB_REDIS_FLAGS come last."""
    folder = os.path.abspath(os.path.join(ROOT, os.environ.get("BUILD", "build"), "redis"))
    os.makedirs(folder, exist_ok=True)
    command = compiler("CC", "cc") + ["-std=gnu99", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-warning-option",
                                      "-Wno-maybe-uninitialized", "-shared", "-fPIC", "-pthread", "-I", ROOT]
    command += os.environ.get("IQDB_REDIS_FLAGS", "").split()
    text = " ".join(command).encode()
    for path in (NAMES[name], "examples/redis/redis_module.h", "iqdb.h"):
        with open(os.path.join(ROOT, path), "rb") as file:
            text += file.read()
    path = os.path.join(folder, "%s-%s.so" % (name, hashlib.sha256(text).hexdigest()[:16]))
    with open(os.path.join(folder, "lock-" + name), "w") as lock:  # tests are started together
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path):
            must(command + [os.path.join(ROOT, NAMES[name]), "-o", path + ".new"])
            os.rename(path + ".new", path)
    return path


# ---- a local handle ----

def code():
    lib = ctypes.CDLL(library("local"))
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64
    for name, result, arguments in (
            ("open", pointer, [ctypes.c_int]), ("close", ctypes.c_int, [pointer]),
            ("add", ctypes.c_int, [pointer, pointer, ctypes.c_char_p, size, ctypes.c_uint32]),
            ("delete", ctypes.c_int, [pointer, number]),
            ("search", ctypes.c_long, [pointer, ctypes.c_char_p, size, pointer, pointer]),
            ("seconds", ctypes.c_double, [pointer, ctypes.c_char_p, size, ctypes.c_uint32, size]),
            ("blob", size, [ctypes.c_int, size, ctypes.c_int, pointer, size]),
            ("clusters", None, [pointer, size, size, ctypes.c_uint32, number, ctypes.c_uint32])):
        function = getattr(lib, "local_" + name)
        function.restype, function.argtypes = result, arguments
    return lib


def clusters(count, dim, seed=1, first=0, centers=100):
    """Bytes of `count` vectors, in clusters."""
    memory = (ctypes.c_float * (count * dim))()
    code().local_clusters(memory, first, count, dim, seed, centers)
    return bytes(memory)


def blob(element, records=3, collections=0):
    """A blob as iqdb_export_blob writes it; 0 is the element that keys have."""
    memory = (ctypes.c_ubyte * (1 << 20))()
    size = code().local_blob(element, records, collections, memory, len(memory))
    assert size > 0
    return bytes(memory[:size])


class Local:
    def __init__(self, dim, metric="cosine"):
        self.code, self.dim = code(), dim
        self.db = self.code.local_open(METRICS[metric])
        assert self.db

    def add(self, ids, vectors):
        assert len(vectors) == 4 * self.dim * len(ids)
        assert self.code.local_add(self.db, (ctypes.c_uint64 * len(ids))(*ids), vectors, len(ids), self.dim) == 0

    def delete(self, id):
        assert self.code.local_delete(self.db, id) == 0

    def search(self, vector, k):
        ids, scores = (ctypes.c_uint64 * (k + 1))(), (ctypes.c_float * (k + 1))()
        count = self.code.local_search(self.db, vector, k, ids, scores)
        assert count >= 0, count
        return list(zip(ids[:count], scores[:count]))

    def close(self):
        self.code.local_close(self.db)


def hits(reply):
    """[id, score] of IQ.SEARCH as (number, the 32-bit number that is meant)."""
    return [(int(hit[0]), struct.unpack("f", struct.pack("f", float(hit[1])))[0]) for hit in reply]


# ---- servers ----

def free_ports(count):
    """Below those that the system gives to clients, so that they are still free a moment later."""
    found = []
    while len(found) < count:
        port = random.randrange(15000, 32000)
        with socket.socket() as trial:
            try:
                trial.bind((HERE, port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


class Server:
    """One process, in a directory of its own below `folder`. Started again it finds what it wrote there."""

    def __init__(self, folder, *options):
        need()
        self.folder = tempfile.mkdtemp(dir=folder)
        self.options, self.process, self.connection = list(options), None, None
        self.port, self.bus = free_ports(2)

    def start(self, *more, ready=True):
        for _ in range(5):
            command = ["redis-server", "--port", str(self.port), "--bind", HERE, "--dir", self.folder, "--save", "",
                       "--logfile", self.folder + "/log", "--enable-debug-command", "yes",
                       "--repl-diskless-sync-delay", "0", "--loadmodule", library("module")]
            if "--cluster-enabled" in self.options:
                command += ["--cluster-port", str(self.bus)]
            self.process = subprocess.Popen(command + self.options + list(more), stdin=subprocess.DEVNULL,
                                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if not ready or self.wait_ready():
                return self
            if "Address already in use" not in self.log():
                break
            self.port, self.bus = free_ports(2)
        raise AssertionError("redis-server does not start:\n" + self.log())

    def wait_ready(self):
        self.connection = redis.Redis(HERE, self.port, socket_timeout=60)
        for _ in range(1200):
            if self.process.poll() is not None:
                return False
            try:
                return self.connection.ping()
            except redis.RedisError:
                time.sleep(0.05)
        return False

    def __call__(self, *command):
        return self.connection.execute_command(*command)

    def log(self):
        try:
            with open(self.folder + "/log", encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self):
        """As an operator does: what was written to the disk stays."""
        self.process.terminate()
        self.process.wait(30)

    def __enter__(self):
        return self if self.process else self.start()

    def __exit__(self, *_):
        self.kill()


def until(what, holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "%s: not within %d s" % (what, seconds)
        time.sleep(0.02)
