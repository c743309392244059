/* Bare loops: what the machine can do, without a database around it. Every figure of ours is held against one of these
 * or against a peer, so none may be slower than it has to be: the reads keep eight independent sums in flight, and the
 * store is one memcpy and one hash probe per row. */
#define _GNU_SOURCE
#include "bench.h"

#include <sys/mman.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Fresh zeroed memory on huge pages where the system grants them: the bare side gets every help there is. */
void *bare_alloc(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    madvise(memory, size, MADV_HUGEPAGE);
    return memory;
}
void bare_free(void *memory, size_t size) {
    if (memory != NULL) munmap(memory, size);
}

/* The noise guard's yardstick: a chain of dependent integer steps, about 2 ms on a quiet machine. */
double bare_spin(void) {
    const double start = bench_now();
    uint64_t x = 1;
    for (int i = 0; i < 1500000; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x));
    }
    return bench_now() - start;
}

/* ---- Streaming reads: the sum of all 64-bit words of some ranges --------------------------------------------------
 * `ahead` is a constant at every call, so a loop without prefetch has no test in it. Sizes are multiples of 64. */

typedef struct bare_range {
    const unsigned char *bytes;
    size_t size;
} bare_range;

#define AHEAD 4096 /* bytes: about a hundred nanoseconds at full speed, which is one miss */
#define UNROLLED _Pragma("GCC unroll 8") for (int k = 0; k < 8; k++)

static inline __attribute__((always_inline)) uint64_t read_words(const unsigned char *p, size_t size, size_t ahead) {
    uint64_t sums[8] = {0}, word;
    for (size_t i = 0; i + 64 <= size; i += 64) {
        if (ahead) __builtin_prefetch(p + i + ahead);
        UNROLLED {
            memcpy(&word, p + i + 8 * k, 8);
            sums[k] += word;
        }
    }
    return sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
}
static uint64_t read_scalar(const unsigned char *p, size_t size) {
    return read_words(p, size, 0);
}
static uint64_t read_scalar_ahead(const unsigned char *p, size_t size) {
    return read_words(p, size, AHEAD);
}

#if defined(__x86_64__)
#define VECTOR_READ(name, isa, type, zero, add, load, ahead) \
    __attribute__((target(isa))) static uint64_t name(const unsigned char *p, size_t size) { \
        type sums[8]; \
        UNROLLED sums[k] = zero(); \
        size_t i = 0; \
        for (; i + 8 * sizeof(type) <= size; i += 8 * sizeof(type)) { \
            UNROLLED if ((ahead) && k * sizeof(type) % 64 == 0) \
                __builtin_prefetch(p + i + (ahead) + k * sizeof(type)); \
            UNROLLED sums[k] = add(sums[k], load((const type *)(p + i + k * sizeof(type)))); \
        } \
        uint64_t words[sizeof sums / 8], sum = read_words(p + i, size - i, 0); \
        memcpy(words, sums, sizeof sums); \
        for (size_t k = 0; k < sizeof sums / 8; k++) sum += words[k]; \
        return sum; \
    }
VECTOR_READ(read_avx2, "avx2", __m256i, _mm256_setzero_si256, _mm256_add_epi64, _mm256_loadu_si256, 0)
VECTOR_READ(read_avx2_ahead, "avx2", __m256i, _mm256_setzero_si256, _mm256_add_epi64, _mm256_loadu_si256, AHEAD)
VECTOR_READ(read_avx512, "avx512f", __m512i, _mm512_setzero_si512, _mm512_add_epi64, _mm512_loadu_si512, 0)
VECTOR_READ(read_avx512_ahead, "avx512f", __m512i, _mm512_setzero_si512, _mm512_add_epi64, _mm512_loadu_si512, AHEAD)
#define CPU_HAS(isa) (__builtin_cpu_supports(isa) != 0)
#endif

static const struct {
    const char *name;
    uint64_t (*read_fn)(const unsigned char *p, size_t size);
} reads[] = {
    {"scalar", read_scalar},  {"scalar, prefetch", read_scalar_ahead},
#if defined(__x86_64__)
    {"AVX2", read_avx2},      {"AVX2, prefetch", read_avx2_ahead},
    {"AVX-512", read_avx512}, {"AVX-512, prefetch", read_avx512_ahead},
#endif
};

/* The name of read loop `which`, empty where this processor lacks the instructions, NULL behind the last. */
const char *bare_read_name(size_t which) {
    if (which >= sizeof reads / sizeof reads[0]) return NULL;
#if defined(__x86_64__)
    if ((which >= 2 && !CPU_HAS("avx2")) || (which >= 4 && !CPU_HAS("avx512f"))) return "";
#endif
    return reads[which].name;
}

double bare_read(size_t which, const bare_range *ranges, size_t count, uint64_t *out_sum) {
    const double start = bench_now();
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) sum += reads[which].read_fn(ranges[i].bytes, ranges[i].size);
    *out_sum = sum;
    return bench_now() - start;
}

/* ---- Copy and hash: a store of rows by id, open addressing, sized in advance ------------------------------------ */

#define EMPTY UINT32_MAX
#define BURIED (UINT32_MAX - 1)

typedef struct bare_entry {
    uint64_t id;
    uint32_t row; /* EMPTY or BURIED: none */
} bare_entry;

typedef struct bare_store {
    bare_entry *table;
    uint32_t *entry; /* of rows: their place in the table */
    float *vectors;
    uint32_t count, dim;
    size_t capacity, mask;
    int shift;
} bare_store;

void bare_close(bare_store *s) {
    bare_free(s->table, (s->mask + 1) * sizeof *s->table);
    bare_free(s->entry, s->capacity * sizeof *s->entry);
    bare_free(s->vectors, s->capacity * s->dim * sizeof(float));
    free(s);
}

bare_store *bare_open(size_t capacity, uint32_t dim) {
    bare_store *s = (bare_store *)calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    s->capacity = capacity;
    s->dim = dim;
    s->shift = 63;
    for (s->mask = 1; s->mask + 1 < 2 * capacity; s->mask = 2 * s->mask + 1) s->shift--;
    s->table = (bare_entry *)bare_alloc((s->mask + 1) * sizeof *s->table);
    s->entry = (uint32_t *)bare_alloc(capacity * sizeof *s->entry);
    s->vectors = (float *)bare_alloc(capacity * dim * sizeof(float));
    if (s->table == NULL || s->entry == NULL || s->vectors == NULL) {
        bare_close(s);
        return NULL;
    }
    for (size_t i = 0; i <= s->mask; i++) s->table[i].row = EMPTY;
    return s;
}

/* The entry that holds the id, or the empty one where it belongs. */
static inline bare_entry *bare_probe(const bare_store *s, uint64_t id) {
    size_t e = (size_t)(id * 0x9E3779B97F4A7C15u >> s->shift);
    while (s->table[e].row != EMPTY && (s->table[e].id != id || s->table[e].row == BURIED)) e = (e + 1) & s->mask;
    return &s->table[e];
}

double bare_write(bare_store *s, const bench_records *records, size_t first, size_t count) {
    const double start = bench_now();
    for (size_t i = first; i < first + count; i++) {
        bare_entry *e = bare_probe(s, records->ids[i]);
        if (e->row == EMPTY) {
            e->id = records->ids[i];
            s->entry[s->count] = (uint32_t)(e - s->table);
            e->row = s->count++;
        }
        memcpy(s->vectors + (size_t)e->row * s->dim, bench_row(records, i), s->dim * sizeof(float));
    }
    return bench_now() - start;
}

double bare_get(const bare_store *s, const uint64_t *ids, size_t count) {
    float *copy = (float *)malloc(s->dim * sizeof(float));
    if (copy == NULL) return -1;
    const double start = bench_now();
    for (size_t i = 0; i < count; i++) {
        const bare_entry *e = bare_probe(s, ids[i]);
        if (e->row != EMPTY) memcpy(copy, s->vectors + (size_t)e->row * s->dim, s->dim * sizeof(float));
        bench_touch(copy);
    }
    const double seconds = bench_now() - start;
    free(copy);
    return seconds;
}

/* The last row moves into the gap, so that the rows stay dense. */
double bare_delete(bare_store *s, const uint64_t *ids, size_t count) {
    const double start = bench_now();
    for (size_t i = 0; i < count; i++) {
        bare_entry *e = bare_probe(s, ids[i]);
        if (e->row == EMPTY) continue;
        const uint32_t gap = e->row, last = --s->count;
        e->row = BURIED;
        if (gap == last) continue;
        memcpy(s->vectors + (size_t)gap * s->dim, s->vectors + (size_t)last * s->dim, s->dim * sizeof(float));
        s->entry[gap] = s->entry[last];
        s->table[s->entry[gap]].row = gap;
    }
    return bench_now() - start;
}
size_t bare_count(const bare_store *s) {
    return s->count;
}
