"""Filters and bits: searches among the records that a filter accepts, beside hnswlib's filter functor; what a look at a
payload costs, and a row that an index of a key tells of; and the nearest of ten million hashes of 64 bits.

Ours are two databases with the same indexed keys: one that looks at every record which the filter accepts, and so has a
recall of 1, and one with lists, built to the end. Of the lists the smallest nprobe that reaches a recall runs, and, where
that reaches it, what is calibrated. Whether lists or rows of the key are read is up to the library: where it looks at all
rows, any nprobe has a recall of 1.
"""
import ctypes
import statistics

from approximate import KINDS, LISTS, Side, mean
from measures import K, Vectors, expect, make_ids, numpy_view, records_of

FLAT, IVF = 1, 3  # iqdb_index
RECALLS = (0.95, 0.99)
BAR = 10  # of the best of ours, in units of hnswlib's rate, where a hundredth of the records is accepted
PARTS = {7: 1, 10: 10, 50: 50}  # a value of the key `part`, and the per cent of the records that have it: see ours.c
CALIBRATED = 0  # as nprobe
EF_MOST, CHUNK = 4000, 20000


def open_ours(bench, function, *arguments):
    handle = ctypes.c_void_p()
    bench.ok(function(*arguments, ctypes.byref(handle)))
    return handle


class Accepted:
    """The records of a part, and how far the true tenth of each query is, by numpy."""

    def __init__(self, bench, vectors, queries, parts, part):
        self.numpy, view = bench.module("numpy"), numpy_view(bench, vectors.dim)
        self.rows, self.queries = view(vectors.address, vectors.count), view(vectors.queries, queries).astype("f8")
        self.accepted = self.numpy.frombuffer(parts, dtype="u1", count=vectors.count) == part
        self.flags, allowed = self.accepted.astype("u1"), self.numpy.flatnonzero(self.accepted)
        expect(len(allowed) >= K, "too few records are accepted")
        near = [[] for _ in range(queries)]
        for first in range(0, len(allowed), CHUNK):  # by products, which are fast; what is near then, by differences
            some = allowed[first:first + CHUNK]
            rows = self.rows[some].astype("f8")
            far = (rows ** 2).sum(axis=1) - 2 * self.queries @ rows.T
            for q, order in enumerate(self.numpy.argpartition(far, min(2 * K, len(some)) - 1, axis=1)[:, :2 * K]):
                near[q] += some[order].tolist()
        self.truth = [self.numpy.sort(self.distances(q, found))[K - 1] * (1 + 1e-6) for q, found in enumerate(near)]

    def distances(self, query, found):
        return ((self.rows[found].astype("f8") - self.queries[query]) ** 2).sum(axis=1)

    def recall(self, found):
        good = 0
        for q, hits in enumerate(found):
            hits = [i for i in hits if i < len(self.rows)]  # others stand for none
            expect(len(set(hits)) == len(hits) and self.accepted[hits].all(), "hits that the filter does not accept")
            good += int((self.distances(q, hits) <= self.truth[q]).sum())
        return good / (K * len(found))


def searching(vectors, queries, ask):
    """search() of a Side. ask(knob, ids, times) does all queries."""
    found, times = (ctypes.c_uint64 * (queries * K))(), (ctypes.c_double * queries)()

    def search(knob):
        ask(knob, found, times)
        return list(times), [list(found[i * K:(i + 1) * K]) for i in range(queries)]
    return search


def ours_side(bench, db, vectors, queries, part, name):
    ours, (_, knob, most) = bench.load("ours"), KINDS[LISTS]

    def ask(value, ids, times):
        ours.ours_probe(value)
        seconds = ours.ours_filtered_search(db, vectors.queries, queries, vectors.dim, K, part, ids, times)
        ours.ours_probe(0)
        bench.ok(seconds)
    return Side(name, knob, most, 0, 0, searching(vectors, queries, ask))


def hnswlib_side(bench, index, vectors, queries, flags):
    def ask(ef, ids, times):
        bench.load("peer_hnswlib").peer_hnswlib_search(index, vectors.queries, queries, vectors.dim, K, ef,
                                                       flags.ctypes.data, ids, times)
    return Side("M16 efc200", "ef", EF_MOST, 0, 0, searching(vectors, queries, ask))


def at_recall(bench, data, what, wanted, bar, exact, lists, peer):
    """Two rows: the exact search, and the fastest of ours that reaches the recall, each beside hnswlib."""
    ef = peer.least(data, wanted)
    if ef is None:
        bench.skip("%s at %g" % (what, wanted), "hnswlib ends at %.4f (ef %d)" % (peer.recall(data, peer.most), peer.most))
        return
    ours = {"exact": (exact, 0, "exact: 1")}
    for knob in (CALIBRATED, lists.least(data, wanted)):
        if knob is not None and lists.recall(data, knob) >= wanted:
            said = lists.said(data, knob) if knob != CALIBRATED else "calibrated: %.4f" % lists.recall(data, knob)
            ours[said] = (lists, knob, "lists, " + said)
    sides = {name: lambda number, side=side, knob=knob: mean(side, knob) for name, (side, knob, _) in ours.items()}
    times = bench.race({**sides, "peer": lambda number: mean(peer, ef)}, bench.size(5, 2))
    theirs = "%s, %s" % (peer.name, peer.said(data, ef))
    bench.report("%s, recall 1 / hnswlib's functor at %g" % (what, wanted), times["exact"], times["peer"],
                 note="exact: 1 / " + theirs)
    best = min(ours, key=lambda name: statistics.median(times[name]))
    bench.report("%s, best of ours / hnswlib's functor, both at %g" % (what, wanted), times[best], times["peer"],
                 bar=bar and (">=", bar), note="%s / %s" % (ours[best][2], theirs))


def against_hnswlib(bench, vectors, queries, parts, flat, lists):
    peer = bench.load("peer_hnswlib")
    data = {part: Accepted(bench, vectors, queries, parts, part) for part in PARTS}
    index = peer.peer_hnswlib_make(vectors.dim, vectors.count, 16, 200)
    peer.peer_hnswlib_write(index, vectors.address, 0, vectors.count, vectors.dim, 0)
    for part, percent in PARTS.items():
        exact = ours_side(bench, flat, vectors, queries, part, "exact")
        expect(exact.recall(data[part], 0) == 1, "an exact search among records of a filter is none")
        mine = ours_side(bench, lists, vectors, queries, part, LISTS)
        theirs = hnswlib_side(bench, index, vectors, queries, data[part].flags)
        for wanted in RECALLS:
            at_recall(bench, data[part], "%d %% of %d x %d" % (percent, vectors.count, vectors.dim), wanted,
                      BAR if percent == 1 else None, exact, mine, theirs)
    peer.peer_hnswlib_free(index)


def filters(bench):
    ours, count, queries = bench.load("ours"), bench.size(1000000, 3000), bench.size(200, 10)
    vectors, parts = Vectors(bench, 128, count, queries), ctypes.create_string_buffer(count)
    ids, many, rounds = make_ids(bench, count, 0), ctypes.c_size_t(), bench.size(21, 2)
    records, handles = records_of(vectors, ids), {}
    for index in (FLAT, IVF):
        handles[index] = open_ours(bench, ours.ours_filtered_open, index)
        bench.ok(ours.ours_filtered_write(handles[index], ctypes.byref(records), count, parts))
        bench.ok(ours.ours_maintain(handles[index]))
    db = handles[FLAT]
    bench.optional("hnswlib's functor", lambda: against_hnswlib(bench, vectors, queries, parts, db, handles[IVF]))
    bench.ok(ours.iqdb_close(handles[IVF]))
    sides = bench.race({which: lambda number, which=which: bench.ok(ours.ours_filtered_count(
        db, which, ctypes.byref(many))) for which in (0, 1)}, rounds)
    bench.report("count, eq of an indexed key, 2 %", [1e9 * t / count for t in sides[0]], unit="ns a row", bar=("<=", 3))
    bench.report("count, a range of a key without index, 5 fields", [1e-6 * count / t for t in sides[1]],
                 unit="M payloads/s", bar=(">=", 20))
    bench.ok(ours.iqdb_close(db))
    vectors.free()
    bits = bench.size(10000000, 3000)
    db = open_ours(bench, ours.ours_bits_open, bits)
    seconds = bench.race({"ours": lambda number: bench.ok(ours.ours_bits_search(db, number * 4711 % bits, K))}, rounds)
    bench.report("Hamming, %d x 64 bits, top 10" % bits, [1e3 * t for t in seconds["ours"]], unit="ms", bar=("<=", 10))
    bench.ok(ours.iqdb_close(db))
