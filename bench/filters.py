"""Filters and bits: a search among the hundredth of the records that a filter accepts, beside hnswlib's filter functor; what
a look at a payload costs, and a row that an index of a key tells of; and the nearest of ten million hashes of 64 bits.
"""
import ctypes
import statistics

from measures import K, Vectors, expect, make_ids, numpy_view, records_of

RECALLS = {0.95: 10, 0.99: 10}  # of hnswlib, and how many times faster ours is asked to be, whose recall is 1
EF_MOST = 4000


def open_ours(bench, function, *arguments):
    handle = ctypes.c_void_p()
    bench.ok(function(*arguments, ctypes.byref(handle)))
    return handle


def truth_of(bench, vectors, queries, flags, found):
    """How far the true tenth of each query is, by numpy, which has to agree with what we have found."""
    numpy, view = bench.module("numpy"), numpy_view(bench, vectors.dim)
    allowed = numpy.flatnonzero(numpy.frombuffer(flags, dtype="u1"))
    rows, asked = view(vectors.address, vectors.count)[allowed].astype("f8"), view(vectors.queries, queries).astype("f8")
    far = []
    for q in range(queries):
        distances = ((rows - asked[q]) ** 2).sum(axis=1)
        far.append(numpy.partition(distances, K - 1)[K - 1] * (1 + 1e-6))
        mine = distances[numpy.searchsorted(allowed, found[q * K:(q + 1) * K])]
        expect((mine <= far[q]).all(), "an exact search among records of a filter is none")
    return far, dict(zip(allowed.tolist(), rows)), asked


def against_hnswlib(bench, vectors, queries, flags, truth, mine):
    peer, (far, rows, asked) = bench.load("peer_hnswlib"), truth
    index = peer.peer_hnswlib_make(vectors.dim, vectors.count, 16, 200)
    peer.peer_hnswlib_write(index, vectors.address, 0, vectors.count, vectors.dim, 0)
    found, times, recalls = (ctypes.c_uint64 * (queries * K))(), (ctypes.c_double * queries)(), {}

    def theirs(ef):
        peer.peer_hnswlib_search(index, vectors.queries, queries, vectors.dim, K, ef, flags, found, times)
        return statistics.fmean(times)

    def recall(ef):
        if ef not in recalls:
            theirs(ef)
            near = sum(found[q * K + i] in rows and ((rows[found[q * K + i]] - asked[q]) ** 2).sum() <= far[q]
                       for q in range(queries) for i in range(K))
            recalls[ef] = near / (K * queries)
        return recalls[ef]
    for wanted, bar in RECALLS.items():
        what, ef = "1 %% of %d x %d, recall 1 / hnswlib's functor at %g" % (vectors.count, vectors.dim, wanted), K
        while recall(ef) < wanted and ef < EF_MOST:
            ef = min(EF_MOST, ef * 5 // 4 + 1)
        if recall(ef) < wanted:
            bench.skip(what, "hnswlib ends at %.4f (ef %d)" % (recall(ef), ef))
            continue
        sides = bench.race({"ours": lambda number: mine(), "peer": lambda number, ef=ef: theirs(ef)}, bench.size(5, 2))
        bench.report(what, sides["ours"], sides["peer"], bar=(">=", bar), note="ef %d: %.4f" % (ef, recall(ef)))
    peer.peer_hnswlib_free(index)


def filters(bench):
    ours, count, queries = bench.load("ours"), bench.size(1000000, 3000), bench.size(200, 10)
    vectors, flags = Vectors(bench, 128, count, queries), ctypes.create_string_buffer(count)
    ids, many, rounds = make_ids(bench, count, 0), ctypes.c_size_t(), bench.size(21, 2)
    db = open_ours(bench, ours.ours_filtered_open)
    bench.ok(ours.ours_filtered_write(db, ctypes.byref(records_of(vectors, ids)), count, flags))
    found, times = (ctypes.c_uint64 * (queries * K))(), (ctypes.c_double * queries)()

    def mine():
        return bench.ok(ours.ours_filtered_search(db, vectors.queries, queries, 128, K, found, times)) / queries
    mine()
    truth = bench.optional("1 %% of %d x 128" % count, lambda: truth_of(bench, vectors, queries, flags.raw[:count], found))
    if truth:
        bench.optional("hnswlib's functor", lambda: against_hnswlib(bench, vectors, queries, flags, truth, mine))
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
