/* Lists (H. Jegou and others, "Product quantization for nearest neighbor search", 2011, section IV: inverted files) over
 * codes of 4 bits a dimension.
 *
 * 1. A set is the centres, a list for each, and which rows are in which. Training makes a new one aside, and swaps it in
 *    once it holds all rows that the old one has; nothing is taken into the old one meanwhile.
 * 2. A list is a chain of extents. What a reader reads of one never changes, but for the number of a row, which becomes
 *    IQ_ROW_NONE when the row is removed: by then nobody sees that row. To take in rows, the first extent is copied.
 * 3. A row is in the list of its nearest centre, and, where another one helps most, in that as well: rows far from their
 *    centre by the loss of Sun and others, "SOAR", NeurIPS 2023, section 3. Each copy names the list of the other one, so
 *    a search looks at it once: at the second copy only where it does not pass the first.
 * 4. Whatever decides about hits is rounded step by step, so a set, a vector and a number of lists to probe give the same
 *    hits on every machine. */
#include "index/lists.h"

#include "base/hash.h"
#include "kernel/strict.h"

enum {
    IQ_LISTS_PER_LIST = 36, /* rows, but no more lists than 6 times the root of the rows */
    IQ_LISTS_SAMPLE = 40,   /* rows a list to train with */
    IQ_LISTS_NEAREST = 12,
    IQ_LISTS_UNITS = 16 /* of work that a step of training is, where a row to be taken in is one */
};
#define IQ_LISTS_SPILL_PART 3u /* tenths of the rows that have a second copy */

/* ---- extents ---- */

IQ_FN iq_extent *iq_extent_make(iq_lists *lists, uint32_t count) {
    iq_extent *extent = (iq_extent *)iq_block_make(&lists->base, iq_extent_bytes(&lists->base, count));
    if (extent != NULL) extent->count = count;
    return extent;
}

static void iq_extent_put(iq_lists *lists, iq_extent *extent, uint32_t place, uint32_t row, uint32_t other) {
    const iq_rows *rows = lists->base.rows;
    const iq_spot spot = iq_rows_spot(rows, row);
    iq_extent_rows(extent)[place] = row;
    iq_extent_others(extent)[place] = other;
    extent->live++;
    if (rows->quant.dim != 0) iq_rows_put_code(rows, spot.slab, spot.index, iq_extent_blocks(extent), place);
}

/* The rows that are left in one extent go to another as well. */
static void iq_extent_copy(const iq_lists *lists, const iq_extent *from, iq_extent *to) {
    for (uint32_t i = 0; i < from->count; i++) {
        if (iq_extent_rows(from)[i] == IQ_ROW_NONE) continue;
        iq_extent_rows(to)[to->live] = iq_extent_rows(from)[i];
        iq_extent_others(to)[to->live] = iq_extent_others(from)[i];
        iq_quant_copy(&lists->base.rows->quant, iq_extent_blocks(from), i, iq_extent_blocks(to), to->live++);
    }
}

/* Takes `count` rows into the list, others[i] with row i; false without memory. */
static bool iq_list_add(iq_lists *lists, iq_list_set *set, uint32_t list, const uint32_t *rows, const uint32_t *others,
                        uint32_t count) {
    iq_extent *old = set->lists[list];
    const bool joins = old != NULL && old->live + count <= IQ_LISTS_EXTENT_ROWS;
    iq_extent *extent = iq_extent_make(lists, count + (joins ? old->live : 0));
    if (extent == NULL) return false;
    if (joins) iq_extent_copy(lists, old, extent);
    for (uint32_t i = 0; i < count; i++) iq_extent_put(lists, extent, extent->live, rows[i], others[i]);
    extent->next = joins ? old->next : old;
    IQ_ATOMIC_STORE(&set->lists[list], extent);
    if (joins) iq_block_retire(&lists->base, old);
    return true;
}

/* An extent without rows leaves the chain; one that has more holes than an eighth is made anew, if there is memory. */
static void iq_list_drop(iq_lists *lists, iq_list_set *set, uint32_t list, uint32_t row) {
    iq_extent **link = &set->lists[list];
    for (iq_extent *extent = *link; extent != NULL; link = &extent->next, extent = *link) {
        uint32_t *rows = iq_extent_rows(extent);
        for (uint32_t i = 0; i < extent->count; i++) {
            if (rows[i] != row) continue;
            IQ_ATOMIC_STORE(&rows[i], IQ_ROW_NONE);
            if (--extent->live >= extent->count - extent->count / 8) return;
            iq_extent *whole = extent->live > 0 ? iq_extent_make(lists, extent->live) : NULL;
            if (extent->live > 0 && whole == NULL) return;
            if (whole != NULL) {
                iq_extent_copy(lists, extent, whole);
                whole->next = extent->next;
            }
            IQ_ATOMIC_STORE(link, whole != NULL ? whole : extent->next);
            iq_block_retire(&lists->base, extent);
            return;
        }
    }
}

/* ---- sets ---- */

IQ_FN iq_list_set *iq_list_set_make(iq_lists *lists, uint32_t count, uint32_t row_room) {
    const iq_rows *rows = lists->base.rows;
    const bool coded = rows->quant.dim != 0;
    const size_t head = iq_round_up(sizeof(iq_list_set), IQ_CACHE_LINE);
    const size_t centres = iq_centres_bytes(count, rows->dim, coded);
    uint8_t *memory = (uint8_t *)iq_block_make(&lists->base, head + centres + count * sizeof(iq_extent *));
    iq_list_set *set = (iq_list_set *)(void *)memory;
    if (set == NULL) return NULL;
    iq_centres_start(&set->centres, count, rows->dim, coded, memory + head);
    set->lists = (iq_extent **)(void *)(memory + head + centres);
    set->homes = (uint32_t *)iq_block_make(&lists->base, (size_t)row_room * sizeof(uint32_t));
    if (set->homes == NULL) {
        iq_block_free(&lists->base, set);
        return NULL;
    }
    memset(set->homes, 0xFF, (size_t)row_room * sizeof(uint32_t));
    set->row_room = row_room;
    return set;
}

/* Readers may have it still, unless it was never theirs: then it goes at once. */
static void iq_list_set_end(iq_lists *lists, iq_list_set *set) {
    if (set == NULL) return;
    for (uint32_t i = 0; i < set->centres.count; i++) {
        for (iq_extent *extent = set->lists[i]; extent != NULL;) {
            iq_extent *next = extent->next;
            iq_block_retire(&lists->base, extent);
            extent = next;
        }
    }
    iq_block_retire(&lists->base, set->homes);
    iq_block_retire(&lists->base, set);
}

static bool iq_list_set_reserve(iq_lists *lists, iq_list_set *set, uint32_t row) {
    if (row < set->row_room) return true;
    uint32_t room = row < 0x60000000u ? row + row / 2 + 1024 : IQ_ROW_COUNT_MAX;
    uint32_t *old = set->homes, *homes = (uint32_t *)iq_block_make(&lists->base, (size_t)room * sizeof(uint32_t));
    if (homes == NULL) return false;
    memcpy(homes, old, (size_t)set->row_room * sizeof(uint32_t));
    memset(homes + set->row_room, 0xFF, (size_t)(room - set->row_room) * sizeof(uint32_t));
    IQ_ATOMIC_STORE(&set->homes, homes);
    IQ_ATOMIC_STORE(&set->row_room, room);
    iq_block_retire(&lists->base, old);
    return true;
}

static void iq_list_set_remove(iq_lists *lists, iq_list_set *set, uint32_t row) {
    if (set == NULL || row >= set->row_room) return;
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t home = iq_home_of(set, row, i);
        if (home != IQ_ROW_NONE) iq_list_drop(lists, set, home, row);
        iq_home_put(set, row, i, IQ_ROW_NONE);
    }
}

IQ_FN const float *iq_lists_floats(const iq_rows *rows, const float *vector, float *room) {
    if (rows->element == IQDB_ELEMENT_F32) return vector;
    iq_row_to_f32(rows->element, vector, rows->dim, room);
    return room;
}

/* What is clustered: the row in f32, or for COSINE its quotient by the norm, in `room`. */
static const float *iq_lists_vector(const iq_index *base, iq_spot spot, float *room) {
    const float *vector = iq_lists_floats(base->rows, spot.slab->vectors + spot.index * base->rows->stride, room);
    const float norm = spot.slab->norms[spot.index];
    if (base->metric != IQDB_COSINE || !(norm > 0.0f)) return vector;
    for (size_t i = 0; i < iq_row_stride(base->rows->dim); i++) room[i] = vector[i] / norm;
    return room;
}

/* The scratch of the writer. */
static bool iq_lists_take_scratch(iq_lists *lists, const iq_centres *centres) {
    const size_t size =
        centres->stride * sizeof(float) + iq_lists_keys_bytes(centres->count) + iq_centres_scratch_bytes(centres);
    if (lists->scratch_bytes >= size) return true;
    void *scratch = iq_block_make(&lists->base, size);
    if (scratch == NULL) return false;
    iq_block_free(&lists->base, lists->scratch);
    lists->scratch = scratch;
    lists->scratch_bytes = size;
    return true;
}

/* The lists of a row: the nearest, and the one of those near that a second copy would be best in, with its loss relative
 * to the first. */
static float iq_lists_assign(iq_lists *lists, const iq_list_set *set, uint32_t row, uint32_t *out_homes) {
    const iq_centres *centres = &set->centres;
    const iq_kernel *kernel = lists->base.kernel;
    iq_nearest nearest[IQ_LISTS_NEAREST];
    float *room = (float *)lists->scratch, *keys = room + centres->stride, best = IQ_LISTS_BEYOND;
    void *scratch = (uint8_t *)(void *)keys + iq_lists_keys_bytes(centres->count);
    const float *vector = iq_lists_vector(&lists->base, iq_rows_spot(lists->base.rows, row), room);
    const uint32_t count =
        iq_centres_nearest(centres, kernel, lists->base.codes, vector, IQ_LISTS_NEAREST, nearest, keys, scratch);
    const float *home = centres->vectors + nearest[0].centre * centres->stride, square = nearest[0].square;
    out_homes[0] = nearest[0].centre;
    out_homes[1] = IQ_ROW_NONE;
    if (!(square > 0.0f) || !(square < IQ_LISTS_BEYOND)) return best;
    for (uint32_t i = 1; i < count; i++) {
        const float apart =
            kernel->pair(home, centres->vectors + nearest[i].centre * centres->stride, centres->stride, IQ_SUM_SQUARES);
        const float product = (square + nearest[i].square - apart) * 0.5f;
        const float slant = iq_strict_f32(product * product) / square;
        const float loss = (nearest[i].square + slant) / square;
        if (!(loss < best)) continue;
        best = loss;
        out_homes[1] = nearest[i].centre;
    }
    return best;
}

IQ_FN void iq_lists_mark(iq_lists *lists, uint32_t row) {
    const iq_spot spot = iq_rows_spot(lists->base.rows, row);
    if (iq_bits_at(spot.slab->indexed, spot.index, spot.index + 1) != 0) return;
    iq_rows_set_indexed(lists->base.rows, spot.slab, spot.index, true);
    lists->taken++;
    lists->base.unstored++;
    lists->came++;
}

/* One fresh row; false without memory. */
static bool iq_lists_take_in(iq_lists *lists, uint32_t row) {
    iq_list_set *set = lists->set;
    uint32_t homes[2];
    if (!iq_list_set_reserve(lists, set, row)) return false;
    if (iq_lists_assign(lists, set, row, homes) > set->spill) homes[1] = IQ_ROW_NONE;
    const uint32_t second = homes[0] | IQ_LISTS_SECOND;
    if (homes[1] != IQ_ROW_NONE && !iq_list_add(lists, set, homes[1], &row, &second, 1)) return false;
    iq_home_put(set, row, 1, homes[1]);
    const bool added = iq_list_add(lists, set, homes[0], &row, &homes[1], 1);
    if (!added) {
        iq_list_set_remove(lists, set, row);
        return false;
    }
    iq_home_put(set, row, 0, homes[0]);
    iq_lists_mark(lists, row);
    return true;
}

/* ---- training ---- */

static void iq_lists_end_training(iq_lists *lists) {
    if (lists->made != lists->set) iq_list_set_end(lists, lists->made);
    iq_block_free(&lists->base, lists->memory);
    iq_block_free(&lists->base, lists->ratios);
    iq_block_free(&lists->base, lists->drawn);
    iq_block_free(&lists->base, lists->order);
    lists->made = NULL;
    lists->memory = NULL;
    lists->ratios = NULL;
    lists->drawn = NULL;
    lists->order = NULL;
    lists->stage = IQ_LISTS_IDLE;
}

/* Sample i of so many: which one of the `live` rows it is, one of the i-th part of them. */
static uint64_t iq_lists_pick(const iq_lists *lists, uint32_t i, uint32_t samples, uint64_t live) {
    const uint64_t from = live * i / samples, to = live * (i + 1) / samples;
    return from + iq_hash_u64(lists->base.knobs.seed + i) % (to > from ? to - from : 1);
}

/* Draws the samples, of rows that are there: one that stood for an empty place would count twice. */
static void iq_lists_draw(iq_lists *lists, uint32_t samples, uint64_t live) {
    const iq_rows *rows = lists->base.rows;
    const iq_slab *slabs = IQ_ATOMIC_LOAD(&rows->slabs);
    uint64_t met = 0;
    uint32_t i = 0, start, some;
    for (uint32_t row = 0; row < lists->row_count && i < samples; row += some) {
        const size_t number = iq_slab_of_row(rows, row, &start);
        const uint32_t held = iq_slab_rows(rows, number) - start, left = lists->row_count - row;
        some = held < left ? held : left;
        some = some < 32 ? some : 32;
        const uint32_t filled = iq_slab_filled(&slabs[number], start, start + some);
        const uint64_t end = met + iq_count_bits(filled);
        for (uint64_t pick; i < samples && (pick = iq_lists_pick(lists, i, samples, live)) < end; i++) {
            uint32_t bits = filled;
            for (; pick > met; pick--) bits &= bits - 1;
            lists->drawn[i] = row + iq_lowest_bit(bits) + 1;
        }
        met = end;
    }
}

/* NULL: the row has gone since. */
static const float *iq_lists_sample(void *user, uint32_t i, float *room) {
    iq_lists *lists = (iq_lists *)user;
    const uint32_t row = lists->drawn[i];
    const iq_spot spot = iq_rows_spot(lists->base.rows, row != 0 ? row - 1 : 0);
    return row != 0 && iq_row_is_filled(spot) ? iq_lists_vector(&lists->base, spot, room) : NULL;
}

/* As many as twice those that it was trained with may have taken their places, and lie elsewhere. What waits is taken
 * in before it is trained for that: one training after the other would leave no time for it. */
static bool iq_lists_are_old(const iq_lists *lists, uint32_t live) {
    const uint32_t trained = lists->set->trained;
    if (live >= (uint64_t)trained * 2 || live < trained / 4) return true;
    return lists->came / 2 >= trained && lists->base.rows->fresh <= lists->taken / 8;
}

static uint32_t iq_lists_wanted(const iq_lists *lists) {
    const iq_index *base = &lists->base;
    const uint32_t live = base->rows->fresh + lists->taken;
    uint32_t count = base->knobs.nlist;
    if (base->rows->dim == 0 || live == 0 || live < base->knobs.rows_min) return 0;
    if (lists->set != NULL && !iq_lists_are_old(lists, live)) return 0;
    if (lists->tried != 0 && live < lists->tried + lists->tried / 8 && live >= lists->tried / 2) return 0;
    if (base->rows->count >= IQ_LISTS_SECOND) return 0;
    if (count == 0) {
        const uint32_t most = (uint32_t)(6.0 * iq_sqrt_f64((double)live));
        count = live / IQ_LISTS_PER_LIST < most ? live / IQ_LISTS_PER_LIST : most;
    }
    if (count > live) count = live;
    return count < IQ_LISTS_MAX ? count : (uint32_t)IQ_LISTS_MAX;
}

static bool iq_lists_begin_training(iq_lists *lists, uint32_t count) {
    iq_kmeans *kmeans = &lists->kmeans;
    const iq_index *base = &lists->base;
    double sum = 0.0;
    uint32_t seen = 0;
    memset(kmeans, 0, sizeof *kmeans);
    lists->row_count = base->rows->count;
    lists->tried = base->rows->fresh + lists->taken;
    lists->made = iq_list_set_make(lists, count, lists->row_count);
    lists->ratios = (float *)iq_block_make(&lists->base, (size_t)lists->row_count * sizeof(float));
    const uint64_t wanted = (uint64_t)count * IQ_LISTS_SAMPLE;
    const uint32_t samples = wanted < lists->tried ? (uint32_t)wanted : lists->tried;
    lists->drawn = (uint32_t *)iq_block_make(&lists->base, (size_t)samples * sizeof(uint32_t));
    if (lists->made != NULL)
        lists->memory = iq_block_make(&lists->base, iq_kmeans_bytes(&lists->made->centres, samples));
    if (lists->memory == NULL || lists->ratios == NULL || lists->drawn == NULL ||
        !iq_lists_take_scratch(lists, &lists->made->centres)) {
        iq_lists_end_training(lists);
        return false;
    }
    kmeans->centres = &lists->made->centres;
    kmeans->kernel = base->kernel;
    kmeans->codes = base->codes;
    kmeans->vector_fn = iq_lists_sample;
    kmeans->user = lists;
    kmeans->seed = base->knobs.seed;
    kmeans->sample_count = samples;
    iq_lists_draw(lists, samples, lists->tried);
    iq_kmeans_start(kmeans, lists->memory);
    for (uint32_t i = 0; i < 256 && i < lists->row_count; i++) {
        const uint32_t place = (uint32_t)((uint64_t)lists->row_count * i / 256);
        const uint32_t row = iq_index_draw(base->rows, lists->row_count, place, i);
        const iq_spot spot = iq_rows_spot(base->rows, row != IQ_ROW_NONE ? row : 0);
        if (row == IQ_ROW_NONE || !(spot.slab->norms[spot.index] < 1e18f)) continue;
        sum = sum + (double)spot.slab->norms[spot.index];
        seen++;
    }
    lists->made->length = base->metric == IQDB_COSINE || !(sum > 0.0) ? 1.0f : (float)(sum / seen);
    lists->made->wanted = base->knobs.nlist;
    lists->made->trained = lists->tried;
    lists->stage = IQ_LISTS_CLUSTER;
    lists->at = lists->gone = 0;
    return true;
}

/* The lists of the next rows. What is not filled now stays fresh. */
static bool iq_lists_step_assign(iq_lists *lists) {
    for (uint32_t i = 0; i < IQ_KMEANS_UNIT && lists->at < lists->row_count; i++, lists->at++) {
        uint32_t homes[2];
        lists->ratios[lists->at] = IQ_LISTS_BEYOND;
        if (!iq_row_is_filled(iq_rows_spot(lists->base.rows, lists->at))) continue;
        lists->ratios[lists->at] = iq_lists_assign(lists, lists->made, lists->at, homes);
        for (uint32_t j = 0; j < 2; j++) iq_home_put(lists->made, lists->at, j, homes[j]);
    }
    return lists->at == lists->row_count;
}

/* Which rows get a second copy, and all copies by list: a row stands for its first one, and, with IQ_LISTS_SECOND, for
 * the other. False without memory. */
static bool iq_lists_sort(iq_lists *lists) {
    iq_list_set *set = lists->made;
    const uint32_t count = set->centres.count;
    size_t copies = 0;
    set->spill = 0.0f;
    if (count > 1)
        set->spill = iq_keys_select(lists->ratios, lists->row_count,
                                    (uint32_t)((uint64_t)set->trained * IQ_LISTS_SPILL_PART / 10));
    for (uint32_t row = 0; row < lists->row_count; row++) {
        if (lists->ratios[row] > set->spill || lists->ratios[row] >= IQ_LISTS_BEYOND)
            iq_home_put(set, row, 1, IQ_ROW_NONE);
        for (uint32_t i = 0; i < 2; i++) copies += iq_home_of(set, row, i) != IQ_ROW_NONE;
    }
    lists->order = (uint32_t *)iq_block_make(&lists->base, (copies + count + 1) * sizeof(uint32_t));
    if (lists->order == NULL) return false;
    uint32_t *begins = lists->order, *order = begins + count + 1, before = 0;
    for (uint32_t row = 0; row < lists->row_count; row++)
        for (uint32_t i = 0; i < 2; i++)
            if (iq_home_of(set, row, i) != IQ_ROW_NONE) begins[iq_home_of(set, row, i)]++;
    for (uint32_t i = 0; i <= count; i++) {
        const uint32_t size = begins[i];
        begins[i] = before;
        before += size;
    }
    for (uint32_t row = 0; row < lists->row_count; row++) {
        const uint32_t first = iq_home_of(set, row, 0), other = iq_home_of(set, row, 1);
        if (first != IQ_ROW_NONE) order[begins[first]++] = row;
        if (other != IQ_ROW_NONE) order[begins[other]++] = row | IQ_LISTS_SECOND;
    }
    for (uint32_t i = count; i > 0; i--) begins[i] = begins[i - 1];
    begins[0] = 0;
    return true;
}

/* Fills the next list; false without memory. Rows that were removed meanwhile are in no list. */
static bool iq_lists_step_fill(iq_lists *lists) {
    iq_list_set *set = lists->made;
    const uint32_t *begins = lists->order, list = lists->at, *order = begins + set->centres.count + 1;
    uint32_t rows[IQ_LISTS_EXTENT_ROWS], others[IQ_LISTS_EXTENT_ROWS], count = 0;
    for (uint32_t i = begins[list]; i < begins[list + 1]; i++) {
        const bool second = (order[i] & IQ_LISTS_SECOND) != 0;
        const uint32_t row = order[i] & ~IQ_LISTS_SECOND;
        if (iq_home_of(set, row, second) == list) {
            rows[count] = row;
            others[count++] = second ? iq_home_of(set, row, 0) | IQ_LISTS_SECOND : iq_home_of(set, row, 1);
        }
        if (count < IQ_LISTS_EXTENT_ROWS && i + 1 < begins[list + 1]) continue;
        if (count > 0 && !iq_list_add(lists, set, list, rows, others, count)) return false;
        count = 0;
    }
    lists->at++;
    return true;
}

/* The new set takes the place of the old one, which has nothing that it has not. */
static void iq_lists_swap(iq_lists *lists) {
    iq_list_set *old = lists->set, *set = lists->made;
    IQ_ATOMIC_STORE(&lists->set, set);
    for (uint32_t i = 0; i < IQ_RECALLS; i++) IQ_ATOMIC_STORE(&lists->base.efforts[i], 0);
    for (uint32_t row = 0; row < lists->row_count; row++)
        if (iq_home_of(set, row, 0) != IQ_ROW_NONE) iq_lists_mark(lists, row);
    lists->came = lists->gone;
    iq_list_set_end(lists, old);
}

/* One unit of it; whether there is nothing left to train. */
static bool iq_lists_train(iq_lists *lists) {
    bool whole = true;
    if (lists->stage == IQ_LISTS_IDLE) {
        const uint32_t count = iq_lists_wanted(lists);
        return count == 0 || !iq_lists_begin_training(lists, count);
    }
    if (lists->stage == IQ_LISTS_CLUSTER && iq_kmeans_step(&lists->kmeans)) {
        lists->stage = IQ_LISTS_ASSIGN;
    } else if (lists->stage == IQ_LISTS_ASSIGN && iq_lists_step_assign(lists)) {
        whole = iq_lists_sort(lists);
        lists->stage = IQ_LISTS_FILL;
        lists->at = 0;
    } else if (lists->stage == IQ_LISTS_FILL) {
        whole = iq_lists_step_fill(lists);
        if (!whole || lists->at < lists->made->centres.count) return !whole && (iq_lists_end_training(lists), true);
        iq_lists_swap(lists);
        lists->stage = IQ_LISTS_CALIBRATE;
    } else if (lists->stage == IQ_LISTS_CALIBRATE) {
        if (!iq_index_calibrate(&lists->base)) return false;
        lists->tried = 0;
        lists->base.unstored = lists->taken;
        lists->base.storing = 0;
        lists->made = NULL;
        whole = false;
    }
    if (!whole) iq_lists_end_training(lists);
    return !whole;
}

/* ---- the contract ---- */

static bool iq_lists_work(iq_index *base, iq_limit *limit) {
    iq_lists *lists = (iq_lists *)(void *)base;
    for (;;) {
        if (iq_index_is_held(base)) return true;
        const bool idle = iq_lists_train(lists);
        if (idle) {
            const uint32_t row = lists->set == NULL ? IQ_ROW_NONE : iq_index_next_fresh(base);
            if (row == IQ_ROW_NONE) return true;
            if (!iq_lists_take_scratch(lists, &lists->set->centres) || !iq_lists_take_in(lists, row)) return true;
        }
        if (limit != NULL && !idle) limit->units += IQ_LISTS_UNITS - 1;
        if (iq_limit_reached(limit)) return false;
    }
}

static void iq_lists_remove(iq_index *base, uint32_t row) {
    iq_lists *lists = (iq_lists *)(void *)base;
    const iq_spot spot = iq_rows_spot(base->rows, row);
    if (iq_bits_at(spot.slab->indexed, spot.index, spot.index + 1) != 0) lists->taken--;
    lists->gone++;
    iq_list_set_remove(lists, lists->set, row);
    if (lists->made != lists->set) iq_list_set_remove(lists, lists->made, row);
}

static void iq_lists_free(iq_index *base) {
    iq_lists *lists = (iq_lists *)(void *)base;
    const iqdb_allocator *allocator = base->allocator;
    if (lists->made == lists->set) lists->made = NULL;
    iq_lists_end_training(lists);
    iq_index_end_calibration(base);
    iq_list_set_end(lists, lists->set);
    iq_block_free(base, lists->scratch);
    iq_index_free_garbage(base);
    iq_free(allocator, lists, sizeof *lists, IQ_CACHE_LINE);
}

static void iq_lists_describe(const iq_index *base, iq_index_facts *out_facts) {
    const iq_lists *lists = (const iq_lists *)(const void *)base;
    const iq_list_set *set = lists->set;
    memset(out_facts, 0, sizeof *out_facts);
    out_facts->rows = lists->taken;
    for (uint32_t i = 0; set != NULL && i < set->centres.count; i++) {
        uint64_t size = 0;
        for (const iq_extent *extent = set->lists[i]; extent != NULL; extent = extent->next) size += extent->live;
        if (size > out_facts->longest) out_facts->longest = size;
    }
    if (set != NULL) out_facts->lists = set->centres.count;
}

/* Whether the list has the row, naming `other`, with its code. */
static bool iq_list_has(const iq_rows *rows, const iq_list_set *set, uint32_t list, uint32_t row, uint32_t other) {
    const iq_spot spot = iq_rows_spot(rows, row);
    for (const iq_extent *extent = set->lists[list]; extent != NULL; extent = extent->next)
        for (uint32_t i = 0; i < extent->count; i++)
            if (iq_extent_rows(extent)[i] == row)
                return iq_extent_others(extent)[i] == other &&
                       (rows->quant.dim == 0 ||
                        iq_rows_code_is(rows, spot.slab, spot.index, iq_extent_blocks(extent), i));
    return false;
}

static const char *iq_lists_check(const iq_index *base) {
    const iq_lists *lists = (const iq_lists *)(const void *)base;
    const iq_list_set *set = lists->set;
    uint64_t copies = 0, held = 0;
    for (uint32_t row = 0; row < base->rows->count; row++) {
        const iq_spot spot = iq_rows_spot(base->rows, row);
        if (iq_bits_at(spot.slab->indexed, spot.index, spot.index + 1) == 0) continue;
        if (set == NULL || row >= set->row_room) return "a row is marked that no list can have";
        const uint32_t first = iq_home_of(set, row, 0), other = iq_home_of(set, row, 1);
        if (first >= set->centres.count || !iq_list_has(base->rows, set, first, row, other))
            return "a row is not in its list, or not with its code";
        if (other != IQ_ROW_NONE && !iq_list_has(base->rows, set, other, row, first | IQ_LISTS_SECOND))
            return "a row is not in its second list, or not with its code";
        copies += other != IQ_ROW_NONE ? 2u : 1u;
    }
    for (uint32_t i = 0; set != NULL && i < set->centres.count; i++)
        for (const iq_extent *extent = set->lists[i]; extent != NULL; extent = extent->next) held += extent->live;
    return copies == held ? NULL : "a list has a row that is not marked";
}

static const iq_index_ops iq_lists_ops = {
    IQDB_INDEX_IVF,    iq_lists_free,  iq_lists_work, iq_lists_remove,  iq_lists_search_bytes, iq_lists_search_for,
    iq_lists_describe, iq_lists_check, iq_lists_need, iq_lists_measure, iq_lists_save,         iq_lists_load};

IQ_FN iq_index *iq_lists_make(const iq_index *base) {
    iq_lists *lists = (iq_lists *)iq_alloc_zeroed(base->allocator, sizeof *lists, IQ_CACHE_LINE);
    if (lists == NULL) return NULL;
    lists->base = *base;
    lists->base.ops = &iq_lists_ops;
    return &lists->base;
}
