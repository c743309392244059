"""Approximate search: recall against queries a second, one query after another on one thread, ours beside the peers.

Recall is by distance: a hit counts when it is not farther than the true tenth (times 1 + 1e-6), because equal distances
are real. Ratios are taken at equal recall: each side gets the smallest knob that reaches it, and the recalls reached
stand beside the ratio. Python peers are called query by query; the call itself is some 5 us of their time.
"""
import ctypes
import os
import statistics
import time

from measures import K, Database, Vectors, expect, make_ids, numpy_view, records_of
from run import Records, Skip

EXACT = 0xFFFFFFFF
LISTS, GRAPH = "iqdb lists", "iqdb graph"
KINDS = {LISTS: (3, "nprobe", 1000), GRAPH: (2, "ef", 4096)}  # iqdb_index, its knob, the largest one tried
RECALLS = (0.90, 0.95, 0.99, 0.999)
# What is asked of the faster one of our indexes, and of the graph alone, in units of hnswlib's rate, by recall.
BEST = {0.95: 4.2, 0.99: 4.5, 0.999: 3.3}
GRAPH_BARS = {"text": {0.95: 4, 0.99: 4.4}, "photos": {0.95: 3.2, 0.99: 2.7}}
CODED = "faiss IVF-PQ fastscan + refine"


class Set:
    """Rows, queries, and how far the true tenth of each query is."""

    def __init__(self, bench, name, dim, count, query_count):
        self.name, self.dim, self.count = name, dim, bench.size(count, 3000)
        self.queries_count = bench.size(query_count, 50)
        self.vectors = Vectors(bench, dim, self.count, self.queries_count)
        view = bench.optional("numpy", lambda: numpy_view(bench, dim))
        if not view:
            raise Skip("numpy is not installed; see make bench-deps")
        self.rows, self.queries = view(self.vectors.address, self.count), view(self.vectors.queries, self.queries_count)
        self.truth = None

    def ask_titles(self):
        """Short headings as queries, where there are some: of another kind than the passages that are the rows."""
        path = os.path.join(os.environ.get("IQDB_DATA", ""), "docs-minilm-384.titles.query.fbin")
        if not os.path.exists(path):
            raise Skip("IQDB_DATA has none")
        asked, asked_count, dim = self.vectors.load(path, self.queries_count)
        expect(asked_count == self.queries_count and dim == self.dim, "these are not the queries of the rows")
        ctypes.memmove(self.vectors.queries, asked, asked_count * dim * 4)
        self.vectors.bare.bare_free(asked, asked_count * dim * 4)
        self.name = "titles"

    def distances(self, query, found):
        return ((self.rows[found].astype("f8") - self.queries[query].astype("f8")) ** 2).sum(axis=1)

    def know(self, exact):
        self.truth = [self.distances(q, found).max() * (1 + 1e-6) for q, found in enumerate(exact)]

    def recall(self, found):
        good = sum(int((self.distances(q, [i for i in hits if i < self.count]) <= self.truth[q]).sum())
                   for q, hits in enumerate(found))
        return good / (K * len(found))


class Side:
    """Somebody's index over a set. search(knob) gives seconds of each query, and what was found."""

    def __init__(self, name, knob, most, built, bytes_each, search, close=lambda: None):
        self.name, self.knob, self.most, self.built, self.bytes_each = name, knob, most, built, bytes_each
        self.search, self.close, self.recalls = search, close, {}
        self.first = 1 if knob == "nprobe" else K  # a graph is not searched less widely

    def recall(self, data, knob):
        if knob not in self.recalls:
            self.recalls[knob] = data.recall(self.search(knob)[1])
        return self.recalls[knob]

    def said(self, data, knob):
        """A knob, and the recall that it reaches."""
        return "%s %d: %.4f" % (self.knob, knob, self.recall(data, knob))

    def least(self, data, wanted):
        """The smallest knob, to a twentieth, with which recall is enough; None where none is."""
        low, high = self.first - 1, self.first
        while self.recall(data, high) < wanted:
            if high == self.most:
                return None
            low, high = high, min(2 * high, self.most)
        while high - low > max(1, low // 20):
            middle = (low + high) // 2
            low, high = (low, middle) if self.recall(data, middle) >= wanted else (middle, high)
        return high


def ours_side(bench, data, name):
    ours, (kind, knob, most) = bench.load("ours"), KINDS[name]
    ours.ours_use_index(kind)
    db = Database(bench)
    ours.ours_use_index(1)
    ids, most_rows = make_ids(bench, data.count, 0), data.count * 9 // 10
    records = records_of(data.vectors, ids)
    built = db.write(records, 0, most_rows, batch=500) + bench.ok(ours.ours_maintain(db.handle))
    later = db.write(records, most_rows, data.count - most_rows, batch=500) + bench.ok(ours.ours_maintain(db.handle))
    found, times = (ctypes.c_uint64 * (data.queries_count * K))(), (ctypes.c_double * data.queries_count)()

    def search(value):
        ours.ours_probe(value)
        db.search(data.vectors.queries, data.queries_count, data.dim, ids=found, times=times)
        ours.ours_probe(0)
        return list(times), [list(found[i * K:(i + 1) * K]) for i in range(data.queries_count)]

    def replace(order, rows):
        new = Records(order.ctypes.data, rows.ctypes.data, data.count, data.dim)
        return db.write(new, 0, data.count, batch=500) + bench.ok(ours.ours_maintain(db.handle))
    side = Side(name, knob, most, built + later, bench.ok(ours.ours_index_bytes(db.handle)) / data.count, search,
                db.close)
    side.db, side.replace, side.insert = db, replace, later / (data.count - most_rows)
    return side


def hnswlib_side(bench, data):
    peer = bench.load("peer_hnswlib")
    index = peer.peer_hnswlib_make(data.dim, data.count, 16, 200)
    built = peer.peer_hnswlib_write(index, data.vectors.address, 0, data.count, data.dim, 0)
    found, times = (ctypes.c_uint64 * (data.queries_count * K))(), (ctypes.c_double * data.queries_count)()

    def search(ef):
        peer.peer_hnswlib_search(index, data.vectors.queries, data.queries_count, data.dim, K, max(ef, K), None, found,
                                 times)
        return list(times), [list(found[i * K:(i + 1) * K]) for i in range(data.queries_count)]
    return Side("hnswlib M16 efc200", "ef", 4000, built, peer.peer_hnswlib_bytes(index) / data.count - 4 * data.dim,
                search, lambda: peer.peer_hnswlib_free(index))


def by_one(data, ask):
    """search() of a peer that is called from Python: ask(array of one query) gives ids, nearest first."""
    def search():
        times, found = [], []
        for q in range(data.queries_count):
            one = data.queries[q:q + 1]
            start = time.perf_counter()
            ids = ask(one)
            times.append(time.perf_counter() - start)
            found.append([int(i) for i in ids])
        return times, found
    return search


def faiss_side(bench, data, name):
    faiss = bench.module("faiss")
    faiss.omp_set_num_threads(1)
    start = time.perf_counter()
    if name == CODED:
        lists = max(16, min(2048, data.count // 60 // 16 * 16))
        coded = faiss.index_factory(data.dim, "IVF%d,PQ%dx4fs" % (lists, data.dim // 2))
        coded.train(data.rows)
        index = faiss.IndexRefineFlat(coded)
        index.k_factor = 10
        knob, most, name = "nprobe", lists, "%s (IVF%d, PQ%dx4fs, k_factor 10)" % (name, lists, data.dim // 2)
    else:
        index = faiss.IndexHNSWFlat(data.dim, 32)
        index.hnsw.efConstruction = 200
        knob, most, name = "ef", 4000, "faiss HNSW32 efc200"
    index.add(data.rows)
    built = time.perf_counter() - start
    asked = by_one(data, lambda one: index.search(one, K)[1][0])

    def search(value):
        if knob == "nprobe":
            coded.nprobe = value
        else:
            index.hnsw.efSearch = value
        return asked()
    return Side(name, knob, most, built, float("nan"), search)


def usearch_side(bench, data):
    usearch, numpy = bench.module("usearch.index"), bench.module("numpy")
    index = usearch.Index(ndim=data.dim, metric="l2sq", dtype="f32", connectivity=16, expansion_add=200)
    start = time.perf_counter()
    index.add(numpy.arange(data.count, dtype="u8"), data.rows, threads=1)
    built = time.perf_counter() - start
    asked = by_one(data, lambda one: index.search(one[0], K, threads=1).keys)

    def search(value):
        index.expansion_search = value
        return asked()
    return Side("usearch M16 efc200", "ef", 4000, built, index.memory_usage / data.count - 4 * data.dim, search)


def mean(side, knob):
    return statistics.fmean(side.search(knob)[0])


def curve(bench, data, sides):
    """Where each side's knob leads, from hasty to .9999: the points of the picture."""
    for side in sides:
        knobs, knob = [], side.first
        while True:
            knobs.append(knob)
            if side.recall(data, knob) >= 0.9999 or knob >= side.most:
                break
            knob = min(side.most, max(knob + 1, int(knob * 1.5)))
        knobs = [k for k in knobs if side.recall(data, k) >= 0.6]
        times = bench.race({k: lambda number, k=k, side=side: mean(side, k) for k in knobs}, bench.size(3, 1))
        bench.curves.append({"set": data.name, "count": data.count, "dim": data.dim, "side": side.name,
                             "knob": side.knob, "built": side.built, "bytes": side.bytes_each, "points": [
                                 [k, side.recall(data, k), 1 / statistics.median(times[k])] for k in knobs]})


def at_equal_recall(bench, data, mine, peers, bars_of, recalls):
    for peer in peers:
        for recall in recalls:
            knobs = [side.least(data, recall) for side in (mine, peer)]
            if None in knobs:
                short = (mine, peer)[knobs.index(None)]
                bench.skip("%s %s / %s at %g" % (data.name, mine.name, peer.name, recall), "%s ends at %.4f (%s %d)" % (
                    short.name, short.recall(data, short.most), short.knob, short.most))
                continue
            times = bench.race({"ours": lambda number: mean(mine, knobs[0]),
                                "peer": lambda number: mean(peer, knobs[1])}, bench.size(5, 2))
            note = " / ".join(side.said(data, knob) for side, knob in zip((mine, peer), knobs))
            bar = bars_of(peer, recall)
            bench.report("%s %s, recall %g / %s" % (data.name, mine.name, recall, peer.name), times["ours"],
                         times["peer"], bar=bar and (">=", bar), note=note)


def fastest(data, sides, recall):
    able = [side for side in sides if side.least(data, recall) is not None]
    return min(able, key=lambda side: mean(side, side.least(data, recall)), default=None)


def latencies(bench, data, sides):
    """The spread of single queries at a recall of .95. A query's own work differs, so this is the work, not the noise:
    each query's smallest time of some rounds."""
    for side in sides:
        knob = side.least(data, 0.95)
        if knob is None:
            continue
        rounds = [side.search(knob)[0] for _ in range(bench.size(5, 2))]
        times = sorted(min(of_one) for of_one in zip(*rounds))
        p50, p99 = times[len(times) // 2], times[len(times) - 1 - len(times) // 100]
        bench.histograms.append({"set": data.name, "side": side.name, "recall": side.recall(data, knob), "times": times})
        bench.report("%s %s, p99 / p50 of queries at .95" % (data.name, side.name), [p99], [p50], ratios=[p99 / p50],
                     bar=("<=", 2) if side.name in KINDS else None, note=side.said(data, knob))


def turnover(bench, data, side):
    """Every record is replaced ten times in random order, by vectors of other records, the last time by its own; then
    the same search as before. Index work is part of the time."""
    random, times, total = bench.module("numpy").random.default_rng(7), [], bench.size(10, 2)
    knob = side.least(data, 0.95)
    bench.ok(bench.load("ours").ours_maintain(side.db.handle))  # the writer beside searches has left fresh records
    before, fresh = data.recall(side.search(knob)[1]), mean(side, knob)
    for turn in range(total):
        order = random.permutation(data.count).astype("u8")
        times.append(side.replace(order, data.rows[order if turn == total - 1 else random.permutation(data.count)]))
    after, worn = data.recall(side.search(knob)[1]), mean(side, knob)
    bench.report("%s %s, replacing a record, %d turnovers" % (data.name, side.name, total),
                 [seconds / data.count for seconds in times])
    bench.report("%s %s, recall after / before" % (data.name, side.name), [after], [before], ratios=[after / before],
                 unit="", bar=(">=", (before - 0.005) / before) if side.name in KINDS else None,
                 note=side.said(data, knob))
    bench.report("%s %s, rate after / before" % (data.name, side.name), [worn], [fresh],
                 bar=(">=", 0.9) if side.name in KINDS else None, note="%s %d: %.4f" % (side.knob, knob, after))


def costs(bench, data, lists, graph, hnswlib):
    """What a build takes, and with which knobs of the two it then finds .95."""
    for side, bars in ((lists, (9, 130)), (graph, (3, 1550)), (hnswlib, None)):
        if side and side is not hnswlib and hnswlib:
            bench.report("%s build, %s / %s" % (data.name, side.name, hnswlib.name), [side.built], [hnswlib.built],
                         bar=(">=", bars[0]), note=" / ".join(one.said(data, knob) for one, knob in (
                             (one, one.least(data, 0.95)) for one in (side, hnswlib)) if knob is not None))
        if side:
            bench.report("%s %s, bytes a vector beside its f32" % (data.name, side.name), [side.bytes_each], unit="B",
                         bar=("<=", bars[1]) if bars and data.dim == 128 else None)
    bench.report("%s %s, insert of the last tenth" % (data.name, lists.name), [1e6 * lists.insert], unit="us",
                 bar=("<=", 10))


def together(bench, data, side):
    """Many queries in one call; and single ones, as calibrated, beside a thread that writes without end."""
    ours, count, spread = bench.load("ours"), data.queries_count, (ctypes.c_double * 4)()
    knob = side.least(data, 0.99)

    def search(as_batch):
        ours.ours_probe(knob)
        seconds = side.db.search(data.vectors.queries, count, data.dim, as_batch=as_batch) / count
        ours.ours_probe(0)
        return seconds
    times = bench.race({"single": lambda number: search(0), "batch": lambda number: search(1)}, bench.size(7, 2))
    bench.report("%s %s, batch of %d / single, recall .99" % (data.name, side.name, count), times["batch"],
                 times["single"], bar=(">=", 1.5) if data.name == "photos" else None, note=side.said(data, knob))
    ids = make_ids(bench, data.count, 0)
    records = records_of(data.vectors, ids)
    cores, asked = os.sched_getaffinity(0), bench.size(5000, 50)

    def beside(load):
        return bench.ok(ours.ours_latencies(side.db.handle, ctypes.byref(records), data.count, load, 1,
                                            data.vectors.queries, count, asked, spread)) / asked
    os.sched_setaffinity(0, range(os.cpu_count()))
    try:
        if len(os.sched_getaffinity(0)) < 2:
            bench.skip("searches beside a writer", "one core only")
            return
        times = bench.race({"alone": lambda number: beside(0), "beside": lambda number: beside(1)}, bench.size(7, 1),
                           once=True, cores=2)
        bench.report("%s %s, searches beside a writer / alone" % (data.name, side.name), times["beside"],
                     times["alone"], bar=(">=", 0.85))
    finally:
        os.sched_setaffinity(0, cores)


def one_set(bench, data, everybody):
    """everybody: all peers and what wears an index out; else hnswlib and the codes of faiss."""
    makers = [(LISTS, lambda: ours_side(bench, data, LISTS)), (GRAPH, lambda: ours_side(bench, data, GRAPH)),
              ("hnswlib", lambda: hnswlib_side(bench, data)), (CODED, lambda: faiss_side(bench, data, CODED))]
    if everybody:
        makers += [("faiss HNSW32", lambda: faiss_side(bench, data, "HNSW32")),
                   ("usearch", lambda: usearch_side(bench, data))]
    sides = {name: side for name, side in [(name, bench.optional(name, make)) for name, make in makers] if side}
    lists, graph, hnswlib = sides[LISTS], sides[GRAPH], sides.get("hnswlib")
    data.know(lists.search(EXACT)[1])
    costs(bench, data, lists, graph, hnswlib)
    curve(bench, data, list(sides.values()))
    ours, peers = [lists, graph], [side for side in sides.values() if side not in (lists, graph)]

    def bars_of_best(peer, recall):
        if data.name == "titles":
            return None
        return BEST.get(recall) if peer is hnswlib else 1.9 if peer is sides.get(CODED) and recall >= 0.95 else None
    def against_all():
        for recall in RECALLS:
            best = fastest(data, ours, recall)
            if best:
                at_equal_recall(bench, data, best, peers, bars_of_best, (recall,))
    against_all()
    if hnswlib:
        at_equal_recall(bench, data, graph, [hnswlib], lambda peer, recall: GRAPH_BARS[data.name].get(recall),
                        GRAPH_BARS[data.name])
    latencies(bench, data, ours + [hnswlib] if hnswlib else ours)
    for side in ours:
        together(bench, data, side)
    if everybody:
        for side in ours:
            turnover(bench, data, side)
        bench.optional("titles as queries", data.ask_titles)
    if data.name == "titles":
        for side in sides.values():
            side.recalls.clear()
        data.know(lists.search(EXACT)[1])
        curve(bench, data, list(sides.values()))
        against_all()
    for side in sides.values():
        side.close()
    data.vectors.free()


def approximate(bench):
    one_set(bench, Set(bench, "text", 384, 56000, 500), True)
    one_set(bench, Set(bench, "photos", 128, 500000, 500), False)
