// hnswlib as a C++ program has it: its own headers, compiled for this very processor, one thread, one query after
// another; and its filter functor, which is asked of every record that is met.
#include "bench.h"

#include <hnswlib/hnswlib.h>

#include <memory>
#include <vector>

namespace {

struct Allowed : hnswlib::BaseFilterFunctor {
    const unsigned char *flags;
    explicit Allowed(const unsigned char *flags_) : flags(flags_) {}
    bool operator()(hnswlib::labeltype label) override { return flags[label] != 0; }
};

struct Peer {
    hnswlib::L2Space space;
    hnswlib::HierarchicalNSW<float> index;
    Peer(size_t dim, size_t count, size_t m, size_t ef)
        : space(dim), index(&space, count, m, ef, 100, true /* places of deleted ones are used again */) {}
};

}  // namespace

extern "C" {

Peer *peer_hnswlib_make(size_t dim, size_t count, size_t m, size_t ef) { return new Peer(dim, count, m, ef); }
void peer_hnswlib_free(Peer *peer) { delete peer; }
double peer_hnswlib_bytes(Peer *peer) { return (double)peer->index.indexFileSize(); }

// Rows first .. first + count - 1 under their numbers. `again`: those there are leave first, one by one.
double peer_hnswlib_write(Peer *peer, const float *rows, size_t first, size_t count, size_t dim, int again) {
    const double start = bench_now();
    for (size_t i = first; i < first + count; i++) {
        if (again) peer->index.markDelete(i);
        peer->index.addPoint(rows + i * dim, i, again != 0);
    }
    return bench_now() - start;
}

// flags: a byte for each row number, 0: it may not be found; NULL: all may. times: seconds of each query, or NULL.
double peer_hnswlib_search(Peer *peer, const float *queries, size_t count, size_t dim, size_t k, size_t ef,
                           const unsigned char *flags, uint64_t *ids, double *times) {
    Allowed allowed(flags);
    peer->index.setEf(ef);
    const double start = bench_now();
    double last = start;
    for (size_t q = 0; q < count; q++) {
        auto found = peer->index.searchKnn(queries + q * dim, k, flags ? &allowed : nullptr);
        for (size_t i = k; i-- > 0;) {
            ids[q * k + i] = i < found.size() ? found.top().second : UINT64_MAX;
            if (i < found.size()) found.pop();
        }
        if (times == nullptr) continue;
        const double now = bench_now();
        times[q] = now - last;
        last = now;
    }
    return bench_now() - start;
}
}
