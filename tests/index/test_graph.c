/* The graph below the handle: what it finds against a look at all rows in double precision; that it hangs together after
 * whatever came and went; the same bytes from the same steps; readers beside a writer; and memory that runs out. */
#include "api.h"
#include "base/alloc.h"
#include "index/graph.h"
#include "support.h"
#include "sys/sys.h"
#include "test.h"

#include <math.h>
#include <pthread.h>

enum {
    DIM = 24,
    ROWS = 2500,
    BEAM_MAX = 256,
    K = 10
};

typedef struct world {
    iqdb_allocator memory;
    iq_rows rows;
    iq_epoch epoch;
    iq_graph graph;
} world;

typedef enum cloud {
    CLUSTERS,
    EQUAL,
    ZEROS,
    HUGE_ONES,
    TINY_ONES,
    FAR_OFF,
    TWINS
} cloud;

static void make_vector(cloud kind, uint64_t *random, uint32_t i, float *out) {
    uint64_t cluster = kind == TWINS ? i % 7 : support_random_below(random, 30);
    const float scale = kind == HUGE_ONES ? 3e38f : kind == TINY_ONES ? 1e-30f : 1.0f;
    for (int d = 0; d < DIM; d++) {
        const float centre = support_random_float(&cluster), own = support_random_float(random);
        out[d] = scale * (0.6f * centre + (kind == TWINS ? 0.0f : 0.35f * own));
        if (kind == EQUAL) out[d] = (float)d;
        if (kind == ZEROS) out[d] = 0.0f;
        if (kind == FAR_OFF) out[d] += 5e4f;
    }
}

static const float *vector_of(const world *w, uint32_t row) {
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&w->rows, row, &index);
    return slab->vectors + index * w->rows.stride;
}

static void set_row(world *w, uint32_t row, const float *vector) {
    uint32_t index;
    const iq_slab *slab = iq_rows_slab(&w->rows, row, &index);
    memcpy(slab->vectors + index * w->rows.stride, vector, DIM * sizeof(float));
    slab->norms[index] = iq_vector_norm_of(iq_kernel_scalar(), vector, DIM);
    slab->heads[index].id = row;
    slab->heads[index].birth = 1;
    slab->heads[index].death = IQ_MOMENT_NEVER;
}

static bool world_make(world *w, iqdb_allocator memory, iqdb_metric metric, const iq_links *links, cloud kind,
                       uint32_t count) {
    uint64_t random = 11;
    float vector[DIM];
    memset(w, 0, sizeof *w);
    w->memory = memory;
    iq_rows_init(&w->rows, &w->memory);
    iq_rows_set_dim(&w->rows, DIM);
    iq_epoch_init(&w->epoch);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t row, index;
        if (iq_rows_take(&w->rows, &row) != IQDB_OK || row != i) return false;
        make_vector(kind, &random, i, vector);
        set_row(w, row, vector);
        const iq_slab *slab = iq_rows_slab(&w->rows, row, &index);
        iq_rows_fill(&w->rows, slab, index);
    }
    if (links == NULL) links = iq_links_select(iq_cpu_features(), IQDB_SIMD_BEST);
    iq_index base;
    memset(&base, 0, sizeof base);
    base.allocator = &w->memory;
    base.epoch = &w->epoch;
    base.rows = &w->rows;
    base.kernel = iq_kernel_scalar();
    base.metric = metric;
    return iq_graph_init(&w->graph, &base, links);
}

static void world_free(world *w) {
    iq_graph_free(&w->graph);
    iq_rows_free(&w->rows);
    iq_epoch_free(&w->epoch, &w->memory);
}

/* Everything hangs together, links are two-sided, and all that should be is in. */
static void check_whole(const world *w, const bool *in, uint32_t count) {
    size_t unreachable = 1, nodes = 0;
    const char *wrong = iq_graph_check(&w->graph, &unreachable);
    CHECK_EQ_STR(wrong == NULL ? "whole" : wrong, "whole");
    CHECK_EQ_U64(unreachable, 0);
    for (uint32_t i = 0; i < count; i++) {
        nodes += in == NULL || in[i];
        CHECK_EQ_INT(iq_graph_has(&w->graph, i), in == NULL || in[i]);
    }
    CHECK_EQ_U64(w->graph.count, nodes);
}

static uint32_t search(const world *w, const float *vector, uint32_t beam, uint32_t keep, uint32_t *out) {
    static __thread uint8_t room[262144] __attribute__((aligned(64)));
    static __thread float padded[32] __attribute__((aligned(64)));
    iq_graph_query query;
    memset(padded, 0, sizeof padded);
    memcpy(padded, vector, DIM * sizeof(float));
    query.moment = 1;
    query.flat = NULL;
    query.self = IQ_ROW_NONE;
    query.vector = padded;
    query.norm = iq_vector_norm_of(iq_kernel_scalar(), vector, DIM);
    query.beam = beam;
    query.keep = keep;
    query.memory = room;
    if (iq_graph_search_bytes(&w->graph, beam, keep) > sizeof room) return 0;
    const uint32_t count = iq_graph_search(&w->graph, &query);
    /* An empty graph finds nothing, and has nothing to point at. */
    if (count > 0) memcpy(out, query.found, count * sizeof *out);
    return count;
}

static double distance(const world *w, iqdb_metric metric, const float *a, uint32_t row) {
    const float *b = vector_of(w, row);
    double squares = 0, dot = 0, aa = 0, bb = 0;
    for (int d = 0; d < DIM; d++) {
        squares += ((double)a[d] - b[d]) * ((double)a[d] - b[d]);
        dot += (double)a[d] * b[d];
        aa += (double)a[d] * a[d];
        bb += (double)b[d] * b[d];
    }
    if (metric == IQDB_L2) return squares;
    return metric == IQDB_DOT ? -dot : 1 - dot / sqrt(aa * bb);
}

/* The part of the true nearest K that is found, over some queries. */
static double recall(const world *w, iqdb_metric metric, const bool *in, uint32_t count, uint32_t beam) {
    static double all[ROWS];
    uint64_t random = 12345;
    size_t good = 0, wanted = 0;
    for (int q = 0; q < 60; q++) {
        float vector[DIM];
        uint32_t found[K + 6];
        make_vector(CLUSTERS, &random, 0, vector);
        for (uint32_t i = 0; i < count; i++) all[i] = in != NULL && !in[i] ? 1e300 : distance(w, metric, vector, i);
        const uint32_t got = search(w, vector, beam, K + 6, found);
        for (int k = 0; k < K; k++) {
            uint32_t best = 0;
            for (uint32_t i = 1; i < count; i++) best = all[i] < all[best] ? i : best;
            for (uint32_t j = 0; j < got; j++) good += found[j] == best;
            all[best] = 2e300;
            wanted++;
        }
    }
    return (double)good / (double)wanted;
}

static void build(world *w, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) CHECK_EQ_INT(iq_graph_insert(&w->graph, i), IQDB_OK);
}

static void the_nearest_are_found(void) {
    static const iqdb_metric metrics[] = {IQDB_L2, IQDB_COSINE, IQDB_DOT};
    static world w;
    for (size_t m = 0; m < IQ_COUNT_OF(metrics); m++) {
        CHECK(world_make(&w, iq_alloc_default(), metrics[m], NULL, CLUSTERS, ROWS));
        uint32_t found[16];
        CHECK_EQ_U64(search(&w, vector_of(&w, 0), 32, 16, found), 0);
        build(&w, ROWS);
        check_whole(&w, NULL, ROWS);
        CHECK(recall(&w, metrics[m], NULL, ROWS, 48) > 0.95);
        CHECK(recall(&w, metrics[m], NULL, ROWS, 128) > 0.99);
        size_t links = 0;
        for (uint32_t i = 0; i < ROWS; i++) links += iq_graph_node(&w.graph, i)->count;
        CHECK(links >= 29 * (size_t)ROWS);
        world_free(&w);
    }
}

static void every_row_finds_itself(void) {
    static world w;
    CHECK(world_make(&w, iq_alloc_default(), IQDB_L2, NULL, CLUSTERS, ROWS));
    build(&w, ROWS);
    for (uint32_t i = 0; i < ROWS; i++) {
        uint32_t found[4];
        CHECK(search(&w, vector_of(&w, i), 32, 4, found) == 4);
        CHECK(found[0] == i || found[1] == i || found[2] == i || found[3] == i);
        for (int a = 0; a < 4; a++)
            for (int b = 0; b < a; b++) CHECK(found[a] != found[b]);
    }
    world_free(&w);
}

/* Comes and goes; after each step (of few rows) all hangs together, and in the end it finds as well as a fresh graph. */
static void churn(uint32_t count, size_t steps, bool each) {
    static world w, fresh;
    static bool in[ROWS];
    uint64_t random = count;
    float vector[DIM];
    memset(in, 0, sizeof in);
    CHECK(world_make(&w, iq_alloc_default(), IQDB_L2, NULL, CLUSTERS, count));
    for (size_t i = 0; i < steps; i++) {
        const uint32_t row = (uint32_t)support_random_below(&random, count);
        if (in[row]) {
            iq_graph_remove(&w.graph, row);
            make_vector(CLUSTERS, &random, 0, vector);
            set_row(&w, row, vector);
        } else {
            CHECK_EQ_INT(iq_graph_insert(&w.graph, row), IQDB_OK);
        }
        in[row] = !in[row];
        iq_graph_remove(&w.graph, in[(row + 1) % count] ? count : (row + 1) % count); /* none of these is in */
        if (each) check_whole(&w, in, count);
    }
    check_whole(&w, in, count);
    CHECK_EQ_U64(w.graph.sound_from, 0);
    CHECK(world_make(&fresh, iq_alloc_default(), IQDB_L2, NULL, CLUSTERS, count));
    for (uint32_t i = 0; i < count; i++) set_row(&fresh, i, vector_of(&w, i));
    for (uint32_t i = 0; i < count; i++)
        if (in[i]) CHECK_EQ_INT(iq_graph_insert(&fresh.graph, i), IQDB_OK);
    if (count == ROWS) CHECK(recall(&w, IQDB_L2, in, count, 32) > recall(&fresh, IQDB_L2, in, count, 32) - 0.02);
    world_free(&w);
    world_free(&fresh);
}

static void it_hangs_together_whatever_goes(void) {
    churn(3, 200, true);
    churn(40, support_amount(200, 2000, 20000), true);
    churn(200, support_amount(100, 3000, 20000), true);
    churn(ROWS, support_amount(3000, 30000, 300000), false);
}

static void all_may_go_and_come_again(void) {
    static world w;
    static bool in[ROWS];
    CHECK(world_make(&w, iq_alloc_default(), IQDB_L2, NULL, CLUSTERS, 300));
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 300; i++) {
            CHECK_EQ_INT(iq_graph_insert(&w.graph, i), IQDB_OK);
            in[i] = true;
        }
        /* First those that the entry knows. */
        for (uint32_t i = 0; i < 600; i++) {
            const iq_node *entry = iq_graph_block(&w.graph, w.graph.entry - 1);
            const uint32_t row = round == 0 && entry->links[0] != IQ_ROW_NONE ? entry->links[0] : i % 300;
            iq_graph_remove(&w.graph, row);
            in[row] = false;
            check_whole(&w, in, 300);
        }
        CHECK_EQ_U64(w.graph.count, 0);
    }
    CHECK(w.graph.block_count < 600); /* blocks are used again */
    world_free(&w);
}

static void no_vectors_do_harm(void) {
    static const iqdb_metric metrics[] = {IQDB_L2, IQDB_COSINE, IQDB_DOT};
    static const cloud clouds[] = {EQUAL, ZEROS, HUGE_ONES, TINY_ONES, FAR_OFF, TWINS};
    static world w;
    for (size_t m = 0; m < IQ_COUNT_OF(metrics); m++) {
        for (size_t c = 0; c < IQ_COUNT_OF(clouds); c++) {
            static uint32_t found[BEAM_MAX];
            CHECK(world_make(&w, iq_alloc_default(), metrics[m], NULL, clouds[c], 400));
            build(&w, 400);
            check_whole(&w, NULL, 400);
            /* For COSINE those without a norm are left aside. */
            const bool is_left = metrics[m] == IQDB_COSINE && (clouds[c] == ZEROS || clouds[c] == TINY_ONES);
            const uint32_t count = search(&w, vector_of(&w, 17), 64, 20, found);
            CHECK_EQ_U64(count, is_left ? 0 : 20);
            for (uint32_t i = 0; i < 390; i++) iq_graph_remove(&w.graph, i);
            size_t unreachable;
            CHECK(iq_graph_check(&w.graph, &unreachable) == NULL);
            CHECK(unreachable == 0 || w.graph.sound_from == IQ_MOMENT_NEVER);
            world_free(&w);
        }
    }
    /* Far from the origin and close together, it is as good. */
    CHECK(world_make(&w, iq_alloc_default(), IQDB_L2, NULL, FAR_OFF, 1000));
    build(&w, 1000);
    size_t good = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t found[4];
        const uint32_t got = search(&w, vector_of(&w, i), 48, 4, found);
        for (uint32_t j = 0; j < got; j++) good += found[j] == i;
    }
    CHECK(good > 980);
    world_free(&w);
}

/* Blocks of all rows, and what is found, by every way to compute. */
static void the_same_steps_give_the_same_bytes(void) {
    const iq_links *ways[IQ_LINKS_WAYS];
    const size_t count = iq_links_ways(iq_cpu_features(), IQDB_SIMD_BEST, ways);
    static world a, b;
    for (size_t i = 0; i < count; i++) {
        uint64_t random = 5;
        CHECK(world_make(&a, iq_alloc_default(), IQDB_DOT, ways[0], CLUSTERS, 700));
        CHECK(world_make(&b, iq_alloc_default(), IQDB_DOT, ways[i], CLUSTERS, 700));
        build(&a, 700);
        build(&b, 700);
        for (int step = 0; step < 300; step++) {
            const uint32_t row = (uint32_t)support_random_below(&random, 700);
            iq_graph_remove(&a.graph, row);
            iq_graph_remove(&b.graph, row);
        }
        for (uint32_t row = 0; row < 700; row++) {
            uint32_t found[2][20];
            CHECK_EQ_INT(iq_graph_has(&a.graph, row), iq_graph_has(&b.graph, row));
            if (iq_graph_has(&a.graph, row))
                CHECK_MEM(iq_graph_node(&a.graph, row), iq_graph_node(&b.graph, row), a.graph.block_bytes);
            const uint32_t got = search(&a, vector_of(&a, row), 40, 20, found[0]);
            CHECK_EQ_U64(search(&b, vector_of(&b, row), 40, 20, found[1]), got);
            CHECK_MEM(found[0], found[1], got * sizeof found[0][0]);
        }
        world_free(&a);
        world_free(&b);
    }
}

static const iq_tally no_counts;

static void note_lost(uint32_t row, void *user) { ((bool *)user)[row] = false; }

/* How many units it took. */
static size_t heal(world *w, bool *in) {
    size_t units = 1;
    while (!iq_graph_heal(&w->graph, note_lost, in)) units++;
    return units;
}

static void without_memory_nothing_breaks(void) {
    static world w;
    static bool in[ROWS];
    support_heap heap = support_heap_make();
    CHECK(world_make(&w, support_allocator(&heap), IQDB_L2, NULL, CLUSTERS, 600));
    memset(in, 0, sizeof in);
    size_t refused = 0;
    for (uint32_t i = 0; i < 600; i++) {
        for (int tries = 0; !in[i] && tries < 20; tries++) {
            heap.fail_at = tries < 10 ? (size_t)tries + 1 : 0;
            const iqdb_result result = iq_graph_insert(&w.graph, i);
            heap.fail_at = 0;
            CHECK(result == IQDB_OK || result == IQDB_ERR_NOMEM);
            refused += result != IQDB_OK;
            in[i] = result == IQDB_OK;
            CHECK_EQ_INT(iq_graph_has(&w.graph, i), in[i]);
        }
    }
    CHECK(refused >= 5);
    check_whole(&w, in, 600);
    /* Rows go while memory is out and a pin keeps every block: links end, and what is cut off is told. */
    const iq_pin pin = iq_epoch_pin(&w.epoch, &no_counts, 0);
    heap.fail_at = 1;
    heap.sticky = 1;
    for (uint32_t i = 0; i < 590; i++) {
        iq_graph_remove(&w.graph, i);
        in[i] = false;
    }
    size_t unreachable;
    iq_epoch_unpin(&w.epoch, pin.slot);
    CHECK(iq_graph_heal(&w.graph, note_lost, in)); /* it cannot go on */
    heap.fail_at = 0;
    CHECK(iq_graph_check(&w.graph, &unreachable) == NULL);
    CHECK(unreachable > 0 && w.graph.sound_from == IQ_MOMENT_NEVER);
    (void)heal(&w, in);
    CHECK_EQ_U64(w.graph.sound_from, w.epoch.moment + 1);
    check_whole(&w, in, 600);
    for (uint32_t i = 0; i < 600; i++)
        if (!in[i]) CHECK_EQ_INT(iq_graph_insert(&w.graph, i), IQDB_OK);
    check_whole(&w, NULL, 600);
    world_free(&w);
    CHECK_EQ_U64(support_heap_problems(&heap), 0);
}

/* No link is left between rows below `row` and others, and nothing knows it. The entry may know some of either. */
static void cut(world *w, uint32_t row, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        iq_node *node = iq_graph_node(&w->graph, i);
        for (uint32_t j = 0; node != NULL && j < IQ_LINKS; j++) {
            if (node->links[j] == IQ_ROW_NONE || (node->links[j] < row) == (i < row)) continue;
            node->links[j] = IQ_ROW_NONE;
            node->count--;
        }
    }
    w->graph.sound_from = IQ_MOMENT_NEVER;
}

/* Of two parts the larger one stays, whatever the entry knows; or of none: so many are reached, and no other is lost. */
static void parts_that_are_cut_off_come_again(void) {
    static world w;
    static bool in[ROWS];
    size_t unreachable;
    for (uint32_t row = 0; row <= 600; row += 200) {
        CHECK(world_make(&w, iq_alloc_default(), IQDB_L2, NULL, CLUSTERS, 600));
        build(&w, 600);
        memset(in, true, sizeof in);
        cut(&w, row, 600);
        CHECK(iq_graph_check(&w.graph, &unreachable) == NULL);
        CHECK(unreachable == (row % 600 == 0 ? 0 : row) || unreachable == 600 - row);
        CHECK(heal(&w, in) > 600 / 64);
        CHECK_EQ_U64(w.graph.sound_from, w.epoch.moment + 1);
        for (uint32_t i = 0; i < 600; i++) CHECK_EQ_INT(in[i], row % 600 == 0 || (i < row) == (row > 300));
        check_whole(&w, in, 600);
        for (uint32_t i = 0; i < 600; i++)
            if (!in[i]) CHECK_EQ_INT(iq_graph_insert(&w.graph, i), IQDB_OK);
        check_whole(&w, NULL, 600);
        world_free(&w);
    }
}

/* While rows are taken out between its units, those too from which it began, or would go on. */
static void healing_goes_on_beside_removals(void) {
    static world w;
    static bool in[ROWS];
    uint64_t random = 5;
    for (uint32_t seed = 0; seed < support_amount(5, 60, 600); seed++) {
        CHECK(world_make(&w, iq_alloc_default(), IQDB_L2, NULL, CLUSTERS, 600));
        build(&w, 600);
        memset(in, true, sizeof in);
        cut(&w, 100 + 20 * (seed % 20), 600);
        for (bool done = false; !done;) {
            for (uint64_t i = support_random_below(&random, 4); i > 0; i--) {
                const iq_graph_survey *survey = &w.graph.survey;
                uint32_t row = (uint32_t)support_random_below(&random, 600);
                if (i == 1 && survey->waiting > 0) row = survey->stack[survey->waiting - 1];
                if (i == 2) row = survey->chosen ? survey->best : survey->start;
                iq_graph_remove(&w.graph, row);
                in[row] = false;
            }
            done = iq_graph_heal(&w.graph, note_lost, in);
        }
        check_whole(&w, in, 600);
        for (uint32_t i = 0; i < 600; i++)
            if (!in[i]) CHECK_EQ_INT(iq_graph_insert(&w.graph, i), IQDB_OK);
        check_whole(&w, NULL, 600);
        world_free(&w);
    }
}

/* Few rows take little memory, and blocks lie where no other does, in small chunks and in large ones. */
static void chunks_begin_small(void) {
    static world w;
    CHECK(world_make(&w, iq_alloc_default(), IQDB_L2, NULL, CLUSTERS, ROWS));
    CHECK_EQ_INT(iq_graph_insert(&w.graph, 0), IQDB_OK);
    CHECK(iq_graph_bytes(&w.graph) < 64 * w.graph.block_bytes + 65536);
    w.graph.chunk_shift = 6; /* so that there are some of the large ones */
    for (uint32_t i = 1; i < ROWS; i++) CHECK_EQ_INT(iq_graph_insert(&w.graph, i), IQDB_OK);
    CHECK(w.graph.chunk_count > 8);
    for (uint32_t i = 0; i < w.graph.block_count; i++) {
        const uint32_t chunk = i < 16 ? 0 : i < 48 ? 1 : 2 + (i - 48) / 64;
        const uint32_t first = chunk < 2 ? chunk * 16 : 48 + (chunk - 2) * 64;
        CHECK((uint8_t *)iq_graph_block(&w.graph, i) == w.graph.chunks[chunk] + (i - first) * w.graph.block_bytes);
    }
    check_whole(&w, NULL, ROWS);
    world_free(&w);
}

/* ---- readers beside the writer: for the thread sanitizer, too ---- */

static world shared;
static uint32_t stop;

static void *read_on(void *user) {
    uint64_t random = (uint64_t)(uintptr_t)user;
    size_t wrong = 0;
    while (__atomic_load_n(&stop, __ATOMIC_ACQUIRE) == 0) {
        float vector[DIM];
        uint32_t found[K];
        const iq_pin pin = iq_epoch_pin(&shared.epoch, &no_counts, (uintptr_t)user);
        make_vector(CLUSTERS, &random, 0, vector);
        const uint32_t count = search(&shared, vector, 32, K, found);
        wrong += count == 0;
        /* A row that is found has a vector that nobody writes while the pin stands. */
        for (uint32_t i = 0; i < count; i++) wrong += !(distance(&shared, IQDB_L2, vector, found[i]) < 1000.0);
        iq_epoch_unpin(&shared.epoch, pin.slot);
    }
    return wrong == 0 ? NULL : &stop;
}

static void readers_are_not_disturbed(void) {
    enum {
        COUNT = 500
    };
    pthread_t readers[2];
    uint64_t random = 3;
    uint64_t removed[COUNT];
    CHECK(world_make(&shared, iq_alloc_default(), IQDB_L2, NULL, CLUSTERS, COUNT));
    build(&shared, COUNT);
    memset(removed, 0, sizeof removed);
    stop = 0;
    for (uintptr_t i = 0; i < 2; i++) CHECK(pthread_create(&readers[i], NULL, read_on, (void *)(i + 1)) == 0);
    for (size_t step = 0; step < support_amount(1000, 10000, 100000); step++) {
        const uint32_t row = (uint32_t)support_random_below(&random, COUNT);
        if (removed[row] == 0) {
            iq_graph_remove(&shared.graph, row);
            removed[row] = shared.epoch.moment;
        } else if (iq_epoch_oldest(&shared.epoch) > removed[row]) {
            float vector[DIM];
            make_vector(CLUSTERS, &random, 0, vector);
            set_row(&shared, row, vector);
            CHECK_EQ_INT(iq_graph_insert(&shared.graph, row), IQDB_OK);
            removed[row] = 0;
        }
        iq_epoch_publish(&shared.epoch);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < 2; i++) {
        void *wrong = NULL;
        pthread_join(readers[i], &wrong);
        CHECK(wrong == NULL);
    }
    size_t unreachable;
    CHECK(iq_graph_check(&shared.graph, &unreachable) == NULL);
    CHECK_EQ_U64(unreachable, 0);
    world_free(&shared);
}

TEST_MAIN("index/graph", TEST(the_nearest_are_found), TEST(every_row_finds_itself),
          TEST(it_hangs_together_whatever_goes), TEST(all_may_go_and_come_again), TEST(no_vectors_do_harm),
          TEST(the_same_steps_give_the_same_bytes), TEST(without_memory_nothing_breaks),
          TEST(parts_that_are_cut_off_come_again), TEST(healing_goes_on_beside_removals), TEST(chunks_begin_small),
          TEST(readers_are_not_disturbed))
