"""What is measured: one function per measure, in the order of MEASURES. See run.py for how."""
import ctypes
import glob
import math
import os
import shutil
import statistics
import struct
import subprocess
import sys
import time

from bindings import python, sqlite
from run import HERE, ROOT, Records, Skip, first_error

K = 10
METRICS = (("L2", 1), ("cosine", 2), ("dot", 3))
AVX2 = 3  # iqdb_simd
BLOCKS, RECORDS = 0, 3  # iqdb_depth: what open checks anyway, every block of every file; and every record as well
FLAT_BYTES = 256_000_000


# ---- data ----------------------------------------------------------------------------------------------------------

class Vectors:
    """count rows of dim floats from bare_alloc, queries behind them; where they come from is in `source`."""

    def __init__(self, bench, dim, count, query_count=64):
        self.bare, self.data = bench.load("bare"), bench.load("data")
        self.dim, self.count, self.query_count = dim, count, query_count
        self.size = (count + query_count) * dim * 4
        self.address = self.bare.bare_alloc(self.size)
        if not self.address:
            raise Skip("no memory for %d MB of vectors" % (self.size // 1000000))
        self.queries = self.address + count * dim * 4
        self.loaded = []
        try:
            self.source = self.real(os.environ.get("IQDB_DATA", ""))
        except FileNotFoundError:
            self.source = "synthetic clusters in 24 dimensions through a random network"
            if self.data.data_clusters(self.address, count, dim, 0) or \
                    self.data.data_clusters(self.queries, query_count, dim, 1):
                raise MemoryError
        for address, size in self.loaded:
            self.bare.bare_free(address, size)
        bench.note("data, d%d" % dim, self.source)

    def free(self):
        self.bare.bare_free(self.address, self.size)

    def query(self, number, passes=1):
        """The address of `passes` queries, others for every number."""
        start = number * passes % (self.query_count - passes + 1)
        return self.queries + start * self.dim * 4

    def real(self, folder):
        """Rows and queries from real sets; FileNotFoundError where the folder has none of this width."""
        if not folder:
            raise FileNotFoundError
        if self.dim == 128:
            base, base_count, _ = self.load(os.path.join(folder, "photos-sift-128.u8bin"), self.count)
            if base_count < self.count:
                raise FileNotFoundError
            ctypes.memmove(self.address, base, base_count * 512)
            asked, _, _ = self.load(os.path.join(folder, "photos-sift-128.query.u8bin"), self.query_count)
            ctypes.memmove(self.queries, asked, self.query_count * 512)
            return "SIFT descriptors of photographs, f32"
        path = os.path.join(folder, "docs-all-minilm-384.hbin")
        base, base_count, base_dim = self.load(path, self.count)
        asked, asked_count, _ = self.load(os.path.join(folder, "docs-minilm-384.query.fbin"), 500)
        if self.dim % base_dim:
            raise FileNotFoundError
        self.data.data_tile(self.address, self.count, self.dim, base, base_count, base_dim, 0.3, 1)
        self.data.data_tile(self.queries, self.query_count, self.dim, asked, asked_count, base_dim, 0.0, 2)
        source = "MiniLM embeddings of documentation, f32"
        source += ", two passages side by side" if self.dim > base_dim else ""
        repeated = ", %d passages in turn, each later copy moved by 0.3 at random" % base_count
        return source + (repeated if base_count < self.count else "")

    def load(self, path, at_most):
        """(address of f32 rows, count, dim) of a .fbin, .u8bin or .hbin file."""
        with open(path, "rb") as file:
            count, dim = struct.unpack("<II", file.read(8))
            count = min(count, at_most)
            width = {"f": 4, "u": 1, "h": 2}[os.path.splitext(path)[1][1]]
            raw = file.read(count * dim * width)
        if len(raw) != count * dim * width:
            raise ValueError("%s is shorter than its header says" % path)
        out = self.bare.bare_alloc(count * dim * 4)
        self.loaded.append((out, count * dim * 4))
        if width == 4:
            ctypes.memmove(out, raw, len(raw))
        else:
            (self.data.data_from_u8 if width == 1 else self.data.data_from_f16)(out, raw, count * dim)
        return out, count, dim


def make_ids(bench, count, random):
    ids = (ctypes.c_uint64 * count)()
    bench.load("data").data_ids(ids, count, random)
    return ids


def records_of(vectors, ids):
    return Records(ctypes.addressof(ids), vectors.address, vectors.count, vectors.dim)


class Database:
    """A handle of ours. path None: in memory."""

    def __init__(self, bench, path=None, each=0, simd_max=0, codes=True):
        self.bench, self.ours, self.handle = bench, bench.load("ours"), ctypes.c_void_p()
        self.ours.ours_keep_codes(int(codes))
        bench.ok(self.ours.ours_open(path and path.encode(), each, simd_max, 0, ctypes.byref(self.handle)))

    def write(self, records, first, count, batch=1, payload=0):
        return self.bench.ok(self.ours.ours_write(self.handle, ctypes.byref(records), first, count, batch, payload))

    def reserve(self, count):
        """Where this version can; the bare store is sized in advance as well."""
        reserve = getattr(self.ours, "iqdb_reserve", None)
        if reserve:
            reserve.argtypes, reserve.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_int
            self.bench.ok(reserve(self.handle, count))
        return reserve is not None

    def search(self, queries, count, dim, metric=1, half=0, as_batch=0, ids=None, times=None):
        ids = ids if ids is not None else (ctypes.c_uint64 * (count * K))()
        return self.bench.ok(self.ours.ours_search(self.handle, queries, count, dim, K, metric, half, as_batch, ids,
                                               times))

    def hits(self, queries, count, dim, as_batch=0, metric=1):
        ids = (ctypes.c_uint64 * (count * K))()
        self.search(queries, count, dim, metric, 0, as_batch, ids)
        return list(ids)

    def count(self):
        return self.ours.iqdb_len(self.handle)

    def close(self):
        self.bench.ok(self.ours.iqdb_close(self.handle))


def expect(same, what):
    if not same:
        raise AssertionError(what)


def expect_alike(vectors, query, ours, theirs, who):
    """The same distances, rank by rank: equal rows may come in another order, and floats may round otherwise."""
    def distances(ids):
        row, result = ctypes.c_float * vectors.dim, []
        q = row.from_address(query)
        for i in ids:
            result.append(sum((a - b) ** 2 for a, b in zip(q, row.from_address(vectors.address + i * vectors.dim * 4))))
        return sorted(result)
    expect(len(theirs) == K and all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6) for a, b in
                                    zip(distances(ours), distances(theirs))), "%s finds other neighbours" % who)


# ---- exact search, rows far beyond the caches ----------------------------------------------------------------------

def read_loops(bench, database, vectors):
    """{"read NAME": side} for the streaming reads this processor can do, and on which pages."""
    bare, ours, room = bench.load("bare"), bench.load("ours"), 65536
    ranges = (ctypes.c_uint64 * (2 * room))()
    count, where = ours.ours_ranges(database.handle, vectors.dim, ranges, room), "the pages that are searched"
    if count == 0:  # rows are not to be seen at their place: a copy has to do
        ranges[0], ranges[1], count, where = vectors.address, vectors.count * vectors.dim * 4, 1, "a copy of the rows"
    bench.note("streaming read", "of " + where)
    total, first_sum, sides, which = ctypes.c_uint64(), [], {}, 0
    while bare.bare_read_name(which) is not None:
        name = bare.bare_read_name(which).decode()
        if name:
            bare.bare_read(which, ranges, count, ctypes.byref(total))
            first_sum = first_sum or [total.value]
            expect(total.value == first_sum[0], "the read loops do not agree")
            sides["read " + name] = lambda number, which=which: bare.bare_read(
                which, ranges, count, ctypes.byref(total))
        else:
            bench.skip("AVX-512 streaming read", "this processor has none")
        which += 1
    return sides, ranges


def faiss_side(bench, vectors, numpy_of):
    faiss = bench.module("faiss")
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatL2(vectors.dim)
    index.add(numpy_of(vectors.address, vectors.count))

    def search(query):
        one = numpy_of(query, 1)
        start = time.perf_counter()
        _, found = index.search(one, K)
        return time.perf_counter() - start, [int(i) for i in found[0]]
    return search


def usearch_side(bench, vectors, numpy_of):
    index = bench.module("usearch.index")
    rows = numpy_of(vectors.address, vectors.count)

    def search(query):
        one = numpy_of(query, 1)[0]
        start = time.perf_counter()
        found = index.search(rows, one, K, index.MetricKind.L2sq, exact=True, threads=1)
        return time.perf_counter() - start, [int(i) for i in found.keys]
    return search


def sqlite_vec_side(bench, vectors, _):
    return sqlite_side(bench, vectors, bench.module("sqlite_vec").loadable_path(),
                       "create virtual table t using vec0(v float[%d])" % vectors.dim, "v")


def sqlite_side(bench, vectors, extension, create, column):
    library = bench.load("peer_sqlite")
    peer = library.peer_vec_open(extension.encode(), create.encode(), column.encode(), vectors.address, vectors.count,
                                 vectors.dim)
    if not peer:
        raise Skip("the extension does not load into this SQLite")
    found = (ctypes.c_uint64 * K)()

    def search(query):
        return bench.ok(library.peer_vec_search(peer, query, 1, vectors.dim, K, found), "sqlite-vec"), list(found)
    search.close = lambda: library.peer_sqlite_close(peer)
    return search


def numpy_view(bench, dim):
    numpy = bench.module("numpy")
    return lambda address, count: numpy.ctypeslib.as_array(
        (ctypes.c_float * (count * dim)).from_address(address)).reshape(count, dim)


PEERS = (("faiss IndexFlatL2", faiss_side, 1.7), ("usearch exact", usearch_side, 2.0),
         ("sqlite-vec", sqlite_vec_side, None))
EXACT = {peer: said + "; both exact, recall 1" for peer, said in (
    ("faiss IndexFlatL2", "one thread"), ("usearch exact", "exact=True, one thread"),
    ("sqlite-vec", "vec0, f32, in memory"))}


def add_peers(bench, vectors, database, sides):
    """The peers there are, which find what the database finds, each as a side of its own."""
    numpy_of = bench.optional("faiss and usearch", lambda: numpy_view(bench, vectors.dim))
    peers = {}
    for peer, make, _ in PEERS:
        if numpy_of or make is sqlite_vec_side:
            peers[peer] = bench.optional(peer, lambda: make(bench, vectors, numpy_of))
    for peer in [p for p in peers if peers[p]]:
        for number in range(3):
            query = vectors.query(number)
            expect_alike(vectors, query, database.hits(query, 1, vectors.dim), peers[peer](query)[1], peer)
        sides[peer] = lambda number, search=peers[peer]: search(vectors.query(number))[0]
    return peers


def close_peers(peers):
    for search in peers.values():
        if hasattr(search, "close"):
            search.close()


def flat_width(bench, dim, read_bar):
    count = bench.size(-(-FLAT_BYTES // (4000 * dim)) * 1000, 2000)
    rounds, passes = bench.size(15, 2), bench.size(2, 1)
    vectors, ids = Vectors(bench, dim, count), make_ids(bench, count, 0)
    records = records_of(vectors, ids)
    plain, loaded = Database(bench, codes=False), Database(bench, codes=False)
    plain.write(records, 0, count)
    loaded.write(records, 0, count, payload=1)
    handles = [plain, loaded]
    name = "d%d, %.0f MB, " % (dim, count * dim * 4 / 1e6)

    sides, ranges = read_loops(bench, plain, vectors)
    reads = list(sides)
    for metric, code in METRICS:
        sides["ours " + metric] = lambda number, code=code: plain.search(
            vectors.query(number, passes), passes, dim, code) / passes
    sides["payload"] = lambda number: loaded.search(vectors.query(number, passes), passes, dim) / passes
    best = bench.load("ours").iqdb_simd_name(None).decode()
    if best not in ("scalar", "sse2", "avx2", "neon"):
        narrow = Database(bench, simd_max=AVX2, codes=False)
        narrow.write(records, 0, count)
        handles.append(narrow)
        sides["avx2"] = lambda number: narrow.search(vectors.query(number, passes), passes, dim) / passes
    else:
        bench.skip("AVX2 against AVX-512", "the best of iqdb here is %s" % best)

    peers = add_peers(bench, vectors, plain, sides)
    query = vectors.query(0)
    for other in handles[1:]:
        expect(plain.hits(query, 1, dim) == other.hits(query, 1, dim), "the handles do not agree")

    times = bench.race(sides, rounds)
    fastest = min(reads, key=lambda side: statistics.median(times[side]))
    for side in reads:
        bench.report("flat %s: %s" % (name.split(",")[0], side), [count * dim * 4 / 1e9 / t for t in times[side]],
                     unit="GB/s", note="the wall" if side == fastest else "")
    for metric, _ in METRICS:
        bench.report("flat %s%s / streaming read" % (name, metric), times["ours " + metric], times[fastest],
                     bar=(">=", read_bar))
    bench.report("flat %sL2 with payloads / without" % name, times["payload"], times["ours L2"], bar=(">=", 0.97))
    if "avx2" in times:
        bench.report("flat %sL2 AVX2 / %s" % (name, best), times["avx2"], times["ours L2"], bar=(">=", 0.85))
    for peer, _, bar in PEERS:
        if peer in times:
            bench.report("flat %sL2 / %s" % (name, peer), times["ours L2"], times[peer], bar=bar and (">=", bar),
                         note=EXACT[peer])

    close_peers(peers)
    for handle in handles:
        handle.close()
    vectors.free()


def flat(bench):
    for dim, read_bar in ((384, 0.90), (768, 0.90), (128, 0.85)):
        flat_width(bench, dim, read_bar)


# ---- exact search through codes ------------------------------------------------------------------------------------

def coded_width(bench, dim, count, bars):
    count, rounds, few = bench.size(count, 3000), bench.size(7, 2), bench.size(6, 2)
    vectors, ids = Vectors(bench, dim, count), make_ids(bench, count, 0)
    records, name = records_of(vectors, ids), "coded d%d x %d, " % (dim, count)
    coded, plain, narrow = Database(bench), Database(bench, codes=False), Database(bench, simd_max=AVX2)
    piece = count // 8
    writes = bench.race({"codes": lambda number: coded.write(records, number * piece, piece, batch=500),
                         "none": lambda number: plain.write(records, number * piece, piece, batch=500)}, 8, once=True)
    narrow.write(records, 0, count, batch=500)
    coded.write(records, 0, count, batch=500)
    plain.write(records, 0, count, batch=500)
    for database in (coded, narrow):
        bench.ok(bench.load("ours").ours_maintain(database.handle))  # codes of fewer dimensions
    bench.report(name + "upsert with codes / without", writes["codes"], writes["none"], bar=(">=", 0.6))
    expect(coded.hits(vectors.queries, 64, dim) == plain.hits(vectors.queries, 64, dim), "codes change answers")
    expect(coded.hits(vectors.queries, 64, dim, as_batch=1) == plain.hits(vectors.queries, 64, dim), "and of batches")
    size = bench.size(160_000_000, 1000)
    other = bench.load("bare").bare_alloc(size)
    some = (ctypes.c_uint64 * (count // 100))(*range(0, count // 100 * 100, 100))

    def apart(database, number, bytes_between, allowed=0):
        return bench.ok(database.ours.ours_search_apart(
            database.handle, vectors.query(number, few), few, dim, K, other, bytes_between,
            allowed and ctypes.addressof(some), len(some)))
    sides, _ = read_loops(bench, plain, vectors)
    reads = list(sides)
    for side, database in (("codes", coded), ("plain", plain), ("avx2", narrow)):
        sides[side] = lambda number, database=database: apart(database, number, 0)
        sides[side + " cold"] = lambda number, database=database: apart(database, number, size)
    sides["ids"] = lambda number: apart(coded, number, 0, 1)
    sides["batch"] = lambda number: coded.search(vectors.queries, 64, dim, as_batch=1) / 64
    peers = add_peers(bench, vectors, coded, sides)
    times = bench.race(sides, rounds)
    wall = times[min(reads, key=lambda side: statistics.median(times[side]))]
    for side, what, bar in (("codes cold", "from memory", bars[0]), ("codes", "back to back", bars[1]),
                            ("avx2", "AVX2, back to back", 3.5), ("avx2 cold", "AVX2, from memory", 3.5)):
        bench.report(name + what + " / streaming read", times[side], wall, bar=bar and (">=", bar))
    bench.report(name + "back to back / plain scan", times["codes"], times["plain"])
    for peer, bar in (("faiss IndexFlatL2", 12), ("usearch exact", 18), ("sqlite-vec", 50)):
        if peer in times:
            bench.report(name + "back to back / " + peer, times["codes"], times[peer], bar=(">=", bar), note=EXACT[peer])
    close_peers(peers)
    bench.report(name + "batch of 64 / single", times["batch"], times["codes"], bar=(">=", 3))
    bench.report(name + "batch of 64 / single from memory", times["batch"], times["codes cold"])
    bench.report(name + "1 % of the ids / all", times["ids"], times["codes"], bar=(">=", 4))
    bench.load("bare").bare_free(other, size)
    for database in (coded, plain, narrow):
        database.close()
    vectors.free()


def coded(bench):
    for dim, count, bars in ((384, 56000, (7, 10)), (128, 500000, (7, 10)), (768, 56000, (6, None))):
        coded_width(bench, dim, count, bars)


# ---- durable writes ------------------------------------------------------------------------------------------------

def engines(bench, folder, in_order, expected):
    """{name: (write(records, first, count, batch), count(), close())}, ours first, each in a directory of its own."""
    database = Database(bench, os.path.join(folder, "ours"), each=1)
    found = {"ours": (database.write, database.count, database.close)}

    def wrap(library, name, peer):
        if not peer:
            raise RuntimeError("%s does not open" % name)
        function = lambda what: getattr(library, "peer_%s_%s" % (name, what))
        return (lambda records, *numbers: bench.ok(function("write")(peer, ctypes.byref(records), *numbers), name),
                lambda: function("count")(peer), lambda: function("close")(peer))
    sqlite = bench.optional("sqlite", lambda: bench.load("peer_sqlite"))
    if sqlite:
        found["SQLite"] = wrap(sqlite, "sqlite", sqlite.peer_sqlite_open(os.path.join(folder, "sqlite.db").encode()))
    lmdb = bench.optional("lmdb", lambda: bench.load("peer_lmdb"))
    if lmdb:
        os.mkdir(os.path.join(folder, "lmdb"))
        size = (1 << 28) + expected * 4096
        found["LMDB"] = wrap(lmdb, "lmdb", lmdb.peer_lmdb_open(os.path.join(folder, "lmdb").encode(), size, in_order))
    return found, database


def ingest(bench, random, batch, batches, rounds, bars, what):
    """The same records into every engine, a piece of `batches` batches each in turn, until `rounds` pieces are in."""
    piece = batch * batches
    total, folder = piece * rounds, bench.scratch()
    vectors = Vectors(bench, 128, bench.size(50000, 2000))
    ids = make_ids(bench, total, random)
    records = records_of(vectors, ids)
    found, database = engines(bench, folder, not random, total)
    try:
        times = bench.race({name: lambda number, write=write: write(records, number * piece, piece, batch) / piece
                            for name, (write, _, _) in found.items()}, rounds, once=True)
        for name, (_, count, _) in found.items():
            expect(count() == total, "%s holds %d records of %d" % (name, count(), total))
        note = ""
        if batch > 1:
            note = "our checkpoint of it all: %.2g s" % bench.ok(database.ours.ours_checkpoint(database.handle))
        for name in found:
            if name == "ours":
                continue
            settings = {"SQLite": "WAL, synchronous=FULL", "LMDB": "random keys" if random else "MDB_APPEND"}[name]
            whole = "%s; whole load %.1f x, last piece %.1f x" % (settings, sum(times[name]) / sum(times["ours"]),
                                                                 times[name][-1] / times["ours"][-1])
            bench.report("%s, %d rows / %s" % (what, total, name), times["ours"], times[name], "/s",
                         bar=bars.get(name), note=whole + ("; " + note if note else ""))
        if len(found) == 1:
            bench.report("%s, %d rows" % (what, total), times["ours"], unit="/s", note=note)
    finally:
        for _, _, close in found.values():
            close()
        shutil.rmtree(folder, ignore_errors=True)
        vectors.free()


def durable(bench):
    ingest(bench, 0, 1000, bench.size(20, 2), bench.size(20, 3), {"SQLite": (">=", 5), "LMDB": (">=", 1.5)},
           "batches of 1000 x 512 B, in order")
    ingest(bench, 1, 1000, bench.size(50, 2), bench.size(20, 3), {"SQLite": (">=", 50), "LMDB": (">=", 15)},
           "batches of 1000 x 512 B, random ids")


def single(bench):
    ingest(bench, 0, 1, bench.size(200, 10), bench.size(21, 3), {"SQLite": (">=", 1.3)},
           "single upserts of 512 B, each durable")


def group(bench):
    """Durable single upserts of many threads, which share syncs, against those of one. On all cores."""
    ours, folder, cores = bench.load("ours"), bench.scratch(), os.sched_getaffinity(0)
    each, vectors, ids = bench.size(200, 20), Vectors(bench, 128, 2000), make_ids(bench, 2000, 1)
    records, database = records_of(vectors, ids), Database(bench, os.path.join(folder, "group"), each=1)

    def run(writers):
        return bench.ok(ours.ours_threads(database.handle, ctypes.byref(records), 2000, WRITES, writers, 0,
                                          vectors.queries, vectors.query_count, each)) / (each * writers)
    try:
        database.write(records, 0, 2000, batch=1000)
        os.sched_setaffinity(0, range(os.cpu_count()))
        times = bench.race({"one": lambda number: run(1), "two": lambda number: run(2), "eight": lambda number: run(8)},
                           bench.size(15, 2), once=True)
        bench.report("durable upserts of 8 threads / one", times["eight"], times["one"], "/s", bar=(">=", 4))
        bench.report("durable upserts of 2 threads / one", times["two"], times["one"], "/s")
    finally:
        os.sched_setaffinity(0, cores)
        database.close()
        shutil.rmtree(folder, ignore_errors=True)
        vectors.free()


# ---- in memory -----------------------------------------------------------------------------------------------------

def memory(bench):
    """Against the bare store. Both start empty and sized in advance, so both pay for the first touch of their pages."""
    count, rounds, bare = bench.size(100000, 5000), bench.size(15, 2), bench.load("bare")
    ours, vectors = bench.load("ours"), Vectors(bench, 128, count)
    ids, mixed = make_ids(bench, count, 1), make_ids(bench, count, 1)
    bench.load("data").data_shuffle(mixed, count)
    records, reserved = records_of(vectors, ids), []

    def our_turn(number):
        database = Database(bench)
        reserved.append(database.reserve(count))
        times = {"ours upsert": database.write(records, 0, count), "ours overwrite": database.write(records, 0, count),
                 "ours get": bench.ok(ours.ours_get(database.handle, mixed, count))}
        expect(database.count() == count, "records are missing")
        times["ours delete"] = bench.ok(ours.ours_delete(database.handle, mixed, count))
        expect(database.count() == 0, "records are left")
        database.close()
        return {name: seconds / count for name, seconds in times.items()}

    def bare_turn(number):
        store = bare.bare_open(count, 128)
        times = {"bare upsert": bare.bare_write(store, ctypes.byref(records), 0, count),
                 "bare overwrite": bare.bare_write(store, ctypes.byref(records), 0, count),
                 "bare get": bare.bare_get(store, mixed, count)}
        expect(bare.bare_count(store) == count, "the bare store lost records")
        times["bare delete"] = bare.bare_delete(store, mixed, count)
        expect(bare.bare_count(store) == 0, "the bare store kept records")
        bare.bare_close(store)
        return {name: seconds / count for name, seconds in times.items()}

    times = bench.race({"ours": our_turn, "bare": bare_turn}, rounds)
    for what, bar in (("upsert", 0.6), ("overwrite", None), ("get", 0.6), ("delete", 0.6)):
        note = {"upsert": "new ids" + ("" if reserved[0] else "; this version cannot reserve"),
                "overwrite": "the same ids again", "get": "copies, random order", "delete": "random order"}[what]
        bench.report("in memory, %d x d128: %s / copy and hash" % (count, what), times["ours " + what],
                     times["bare " + what], bar=bar and (">=", bar), note=note)
    vectors.free()


def resident_child(bench, count, dim, payload):
    """A process of its own, so that nothing else moves its memory."""
    vectors, ids = Vectors(bench, dim, min(count, 2000)), make_ids(bench, count, 0)
    for i in range(0, ctypes.sizeof(ids), 4096):
        ids[i // 8] = i // 8  # every page is there before the first look
    print(bench.ok(bench.load("ours").ours_resident(ctypes.byref(records_of(vectors, ids)), count, payload)))
    return 0


def resident(bench):
    count = bench.size(200000, 20000)
    encoded = bench.ok(bench.load("ours").ours_payload_bytes())
    for payload, bar in ((1, ("<=", 760)), (0, None)):
        done = subprocess.run([sys.executable, os.path.join(HERE, "run.py"), "--build", os.path.dirname(bench.build),
                               "--resident", str(count), "128", str(payload)], stdout=subprocess.PIPE, check=True)
        bench.report("resident bytes per record, d128, %s" % ("8 fields" if payload else "no payload"),
                     [float(done.stdout.split()[-1])], unit="B", bar=bar,
                     note="payload encoded: %d B" % encoded if payload else "")


# ---- files and checksums -------------------------------------------------------------------------------------------

def opening(bench):
    """Every block of every file is checked against its checksum; a plain read of the same files is the peer."""
    count, folder = bench.size(500000, 5000), bench.scratch()
    path, ours, vectors = os.path.join(folder, "db"), bench.load("ours"), Vectors(bench, 128, min(count, 500000))
    ids = make_ids(bench, count, 0)
    try:
        database = Database(bench, path)
        database.write(records_of(vectors, ids), 0, count, batch=1000)
        bench.ok(ours.ours_checkpoint(database.handle))
        database.close()
        names = sorted(glob.glob(os.path.join(path, "*")))
        size = sum(os.path.getsize(name) for name in names)

        def read(number):
            start = time.perf_counter()
            kept = []
            for name in names:
                with open(name, "rb", buffering=0) as file:
                    kept.append(file.read())
            return time.perf_counter() - start
        times = bench.race({
            "open": lambda number: bench.ok(ours.ours_open_seconds(path.encode(), BLOCKS)),
            "records": lambda number: bench.ok(ours.ours_open_seconds(path.encode(), RECORDS)),
            "read": read}, bench.size(9, 2))
        rate = lambda seconds: [size / 1e9 / t for t in seconds]
        bench.report("open, all blocks verified, warm, %.0f MB" % (size / 1e6), rate(times["open"]), unit="GB/s",
                     bar=(">=", 3), note="reading the files alone: %.3g GB/s" % statistics.median(rate(times["read"])))
        bench.report("open, every record verified as well", rate(times["records"]), unit="GB/s")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        vectors.free()
    for count in (100000, 500000, 1000000):
        mapping(bench, bench.size(count, count // 50))


def mapping(bench, count):
    """A base that is used where it lies, beside one that is read; nothing is logged behind it."""
    folder, ours, vectors = bench.scratch(), bench.load("ours"), Vectors(bench, 128, min(count, 2000))
    path, ids = os.path.join(folder, "db"), make_ids(bench, count, 0)
    try:
        database = Database(bench, path)
        database.write(records_of(vectors, ids), 0, count, batch=1000)
        database.close()
        bench.ok(ours.ours_map_seconds(path.encode(), 1))
        times = bench.race({"mapped": lambda number: bench.ok(ours.ours_map_seconds(path.encode(), 0)),
                            "read": lambda number: bench.ok(ours.ours_open_seconds(path.encode(), 0))}, bench.size(9, 2))
        bench.report("open, mapped, %d x d128" % count, [t * 1e3 for t in times["mapped"]], unit="ms", bar=("<=", 1),
                     note="read into memory and checked: %.3g ms" % (statistics.median(times["read"]) * 1e3))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        vectors.free()


def slices(bench):
    """The longest call of maintain while a checkpoint is due, against its budget and 1 ms and the bare sync of as many
    bytes; and a close with nothing pending. Records are so many that their log is just due."""
    count, folder = bench.size(125000, 2000), bench.scratch()
    ours, vectors, calls, size = bench.load("ours"), Vectors(bench, 128, 2000), ctypes.c_size_t(), [0]
    ids = make_ids(bench, count, 0)
    records = records_of(vectors, ids)

    def turn(number):
        path, bare = os.path.join(folder, "db%d" % number), os.path.join(folder, "bare")
        database = Database(bench, path)
        database.write(records, 0, count, batch=100)
        longest = bench.ok(ours.ours_slices(database.handle, 1000, ctypes.byref(calls)))
        size[0] = sum(os.path.getsize(name) for name in glob.glob(os.path.join(path, "snap-*")))
        expect(bench.quick or size[0] > count * 512, "no checkpoint was due")
        start = time.perf_counter()
        database.close()
        closed = time.perf_counter() - start
        with open(bare, "wb", buffering=0) as file:
            for _ in range(size[0] // 65536):
                file.write(b"x" * 65536)
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            synced = time.perf_counter() - start
        shutil.rmtree(path)
        return {"slice": longest, "close": closed, "sync": synced}
    try:
        times = bench.race({"all": turn}, bench.size(7, 1), once=True)
        bench.report("longest of %d slices of 1 ms, a checkpoint of %.0f MB" % (calls.value, size[0] / 1e6),
                     [1e3 * t for t in times["slice"]], unit="ms", bar=("<=", 2 + 1e3 * max(times["sync"])),
                     note="bare sync of as much, at most: %.3g ms" % (1e3 * max(times["sync"])))
        bench.report("close with nothing pending", [1e3 * t for t in times["close"]], unit="ms", bar=("<=", 10))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        vectors.free()


def crc(bench):
    ours, zlib, size, count = bench.load("ours"), bench.load("peer_zlib"), 65536, bench.size(400, 4)
    vectors, ours_crc, zlib_crc = Vectors(bench, 128, size // 512), ctypes.c_uint32(), ctypes.c_uint32()
    times = bench.race({
        "ours": lambda number: ours.ours_crc32(vectors.address, size, count, ctypes.byref(ours_crc)) / count,
        "zlib": lambda number: zlib.peer_zlib_crc32(vectors.address, size, count, ctypes.byref(zlib_crc)) / count},
        bench.size(31, 3))
    expect(ours_crc.value == zlib_crc.value, "the checksums differ")
    wide = "vpclmulqdq" in bench.cpu_flags
    bar = 6 if wide else 2.3 if "pclmulqdq" in bench.cpu_flags else None
    bench.report("CRC-32 of 64 KiB / zlib", times["ours"], times["zlib"], bar=bar and (">=", bar),
                 note="crc32() of the system's library; processor has %s" % ("VPCLMULQDQ" if wide else "PCLMULQDQ" if bar else "neither PCLMULQDQ"))
    vectors.free()


# ---- readers and writers beside one another ------------------------------------------------------------------------

QUIET, WRITES, CHECKPOINTS, SEARCHES = 0, 1, 2, 3


def threads(bench):
    """Latencies of reads beside writes that are synced one by one and beside checkpoints; what sharing costs. Gets also
    on one core with all of it; the rest on all cores, where there are two."""
    ours, count, dim, folder = bench.load("ours"), bench.size(4000, 200), 128, bench.scratch()
    vectors, ids = Vectors(bench, dim, count), make_ids(bench, count, 1)
    records, spread, cores = records_of(vectors, ids), (ctypes.c_double * 4)(), os.sched_getaffinity(0)
    database = Database(bench, os.path.join(folder, "threads"), each=1)
    alone = Database(bench)
    try:
        database.write(records, 0, count, batch=count)
        alone.write(records, 0, count, batch=count)

        def latency(load, search, asked):
            bench.ok(ours.ours_latencies(database.handle, ctypes.byref(records), count, load, search, vectors.queries,
                                         vectors.query_count, asked, spread))
            return {"%d %d p50" % (load, search): spread[0], "%d %d p99" % (load, search): spread[1],
                    "%d %d worst" % (load, search): spread[3]}
        sides = {}
        for search, asked in ((0, bench.size(200000, 2000)), (1, bench.size(2000, 50))):
            for load in (QUIET, WRITES, CHECKPOINTS):
                sides["%d %d" % (load, search)] = lambda number, load=load, search=search, asked=asked: latency(
                    load, search, asked)
        shared = {name: side for name, side in sides.items() if name[-1] == "0" and name[0] != "0"}
        times = bench.race(shared, bench.size(5, 1), once=True)
        for load, beside in ((WRITES, "synced writes"), (CHECKPOINTS, "checkpoints")):
            bench.report("get p99 on one core with %s, us" % beside,
                         [1e6 * t for t in times["%d 0 p99" % load]], unit="us", bar=("<=", 10))
        os.sched_setaffinity(0, range(os.cpu_count()))
        if len(os.sched_getaffinity(0)) < 2:
            raise Skip("one core only: nothing runs beside anything")
        times = bench.race(sides, bench.size(7, 1), once=True)
        for search, what in ((0, "get"), (1, "search")):
            quiet = times["%d %d p99" % (QUIET, search)]
            bench.report("%s p99, quiet, %d x %d" % (what, count, dim), quiet)
            for load, beside in ((WRITES, "synced writes"), (CHECKPOINTS, "checkpoints")):
                loaded = times["%d %d p99" % (load, search)]
                bench.report("%s p99 beside %s / quiet" % (what, beside), loaded, quiet, bar=("<=", 1.5),
                             ratios=[a / b for a, b in zip(loaded, quiet)],
                             note="worst " + "%.3g ms" % (1e3 * max(times["%d %d worst" % (load, search)])))

        def run(load, writers, readers, asked):
            return bench.ok(ours.ours_threads(alone.handle, ctypes.byref(records), count, load, writers, readers,
                                              vectors.queries, vectors.query_count, asked)) / asked
        writes, searches = bench.size(100000, 1000), bench.size(3000, 20)
        times = bench.race({
            "writer": lambda number: run(WRITES, 1, 0, writes), "beside": lambda number: run(WRITES, 1, 1, writes),
            "one": lambda number: run(SEARCHES, 1, 0, searches), "two": lambda number: run(SEARCHES, 2, 0, searches),
            "pin": lambda number: bench.ok(ours.ours_pin(alone.handle, 1000000)) / 1000000}, bench.size(15, 1), cores=2)
        bench.report("writer alone / beside a reader", times["beside"], times["writer"], bar=(">=", 0.8))
        bench.report("two readers / one, in cache", times["two"], times["one"], bar=(">=", 1.9),
                     ratios=[2 * a / b for a, b in zip(times["one"], times["two"])])
        bench.report("pin and unpin", [1e9 * t for t in times["pin"]], unit="ns", bar=("<=", 20))
    finally:
        os.sched_setaffinity(0, cores)
        alone.close()
        database.close()
        shutil.rmtree(folder, ignore_errors=True)
        vectors.free()


# ---- the groups of the original's benches --------------------------------------------------------------------------

def groups(bench):
    """The same names, sizes and k as there, so that figures of the two can be laid side by side."""
    ours, rounds, many = bench.load("ours"), bench.size(21, 2), bench.size(100000, 500)
    sides, close, folder = {}, [], bench.scratch()
    vectors_of = {dim: Vectors(bench, dim, 10000) for dim in (32, 128, 1024)}
    rows, ids = vectors_of[128], make_ids(bench, 10000, 0)
    records = records_of(rows, ids)
    for dim, vectors in vectors_of.items():
        sides["vector_new/%d" % dim] = lambda number, v=vectors: bench.ok(
            ours.ours_vector_new(v.address, v.dim, many)) / many
    for metric, code in METRICS:
        sides["distance/%s/128" % metric] = lambda number, code=code: bench.ok(
            ours.ours_distance(rows.address, 128, code, many)) / many

    def store_upsert(number):
        database = Database(bench)
        seconds = database.write(records, 0, 1000)
        database.close()
        return seconds
    stored = Database(bench)
    stored.write(records, 0, 1000)
    sides["store/upsert 1000 x 128"] = store_upsert
    sides["store/get 1000 x 128"] = lambda number: bench.ok(ours.ours_get(stored.handle, ids, 1000))
    close.append(stored.close)

    for count in (1000, 10000):
        database = Database(bench)
        database.write(records, 0, count, payload=1)
        close.append(database.close)
        each = bench.size(64, 4)
        for what, half in (("top-10", 0), ("top-10, predicate of 50 %", 1)):
            sides["search/%s, %d x 128" % (what, count)] = lambda number, d=database, half=half: d.search(
                rows.queries, each, 128, half=half) / each
        sides["search/top-10, batch of 4, %d x 128" % count] = lambda number, d=database: d.search(
            rows.query(number, 4), 4, 128, as_batch=1)

    def file_store(number):
        path = os.path.join(folder, "fresh")
        database = Database(bench, path)
        seconds = bench.ok(ours.ours_write_and_flush(database.handle, ctypes.byref(records), 1000, 1))
        database.close()
        shutil.rmtree(path)
        return seconds
    sides["file_store/upsert and flush 1000 x 128"] = file_store
    path = os.path.join(folder, "snapshot")
    database = Database(bench, path)
    database.write(records, 0, 1000)
    bench.ok(ours.ours_checkpoint(database.handle))
    database.close()
    sides["file_store/open 1000 x 128"] = lambda number: bench.ok(ours.ours_open_seconds(path.encode(), BLOCKS))
    try:
        times = bench.race(sides, rounds)
        for name in sides:
            bench.report(name, times[name])
    finally:
        for function in close:
            function()
        shutil.rmtree(folder, ignore_errors=True)
        for vectors in vectors_of.values():
            vectors.free()


# ---- the compiler, and what has a file of its own -------------------------------------------------------------------

def compiling(bench):
    """The header with its implementation, as a user's one unit pays for it, and as every other unit does."""
    folder = bench.scratch()
    try:
        for what, text, bar in (("the implementation", "#define IQDB_IMPLEMENTATION\n#include \"iqdb.h\"\n", 5),
                                ("the face alone", "#include \"iqdb.h\"\n", None)):
            unit, times = os.path.join(folder, "unit.c"), []
            with open(unit, "w") as file:
                file.write(text)
            for _ in range(bench.size(3, 1)):
                start = time.perf_counter()
                subprocess.run(bench.cc.split() + ["-O2", "-I" + ROOT, "-c", unit, "-o", unit + ".o"], check=True)
                times.append(time.perf_counter() - start)
            bench.report("compile iqdb.h, -O2: %s" % what, times, bar=bar and ("<=", bar))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def approximate(bench):
    from approximate import approximate as measure
    measure(bench)


def filters(bench):
    from filters import filters as measure
    measure(bench)


def commands(bench):
    from commands import commands as measure
    measure(bench)


def imports(bench):
    from commands import imports as measure
    measure(bench)


MEASURES = {"flat": flat, "coded": coded, "approximate": approximate, "filters": filters, "durable": durable,
            "single": single, "group": group, "imports": imports,
            "memory": memory, "resident": resident, "open": opening, "slices": slices, "crc": crc, "threads": threads,
            "groups": groups, "commands": commands, "compile": compiling, "python": python, "sqlite": sqlite}
