/* A search of the lists: centres in the order of their distance, codes of their rows, and the rows that these leave open.
 * Rows are left out where the estimate of their key is z standard deviations beyond the k-th smallest of (estimate + z
 * deviations): what is found is likely, never proved. Scores are those of the rows, as everywhere.
 *
 * Where few rows are allowed it is these that are asked in which lists they are: of them far fewer are in those lists than
 * there are others, which then nobody reads. */
#include "index/lists.h"
#include "kernel/strict.h"

enum {
    IQ_LISTS_ITEMS = 2048,
    IQ_LISTS_K_MAX = 4096, /* more hits are found by a scan */
    IQ_LISTS_FIRST = 8,    /* lists that are read in the order of their distance */
    IQ_LISTS_PER_HIT = 16, /* rows that match, to be met for each hit */
    IQ_LISTS_ROW_NS = 2,   /* of a row of a list, and of 64 bytes of one that is looked at far from others: about, */
    IQ_LISTS_FAR_NS = 10,  /* so that the cheaper way is taken; and of asking an allowed row for its lists */
    IQ_LISTS_HOME_NS = 4,
    IQ_LISTS_AHEAD = 6,
    IQ_LISTS_FAR = 32,   /* allowed rows, until the lists of one are there */
    IQ_LISTS_FEW = 4096, /* of them, between two looks at the limit */
    IQ_LISTS_LOOKS = 64, /* items between two such looks; and allowed rows that are asked in a row */
    IQ_LISTS_ASKED = 8   /* of so many allowed rows one is asked at once what else there is to ask */
};

/* A row that its code has left open. */
typedef struct iq_lists_item {
    uint32_t row;
    bool accepted;
    float key, margin; /* the estimate, and z deviations of it; a loose row is before all */
} iq_lists_item;

typedef struct iq_lists_search {
    const iq_index *base;
    const iq_list_set *set;
    const iq_flat_query *flat;
    size_t which;
    uint64_t visited;
    iqdb_metric rank; /* what lists and codes are about: L2, DOT or L1 */
    const float *vector;
    double square, z; /* of the vector, 0 for DOT; deviations */
    float limit, cap; /* keys: beyond the limit nothing is wanted; the cap is from what is known from elsewhere */
    float after;
    bool stale, had;          /* the limit has changed; rows may come that are hits already */
    bool by_rows;             /* allowed rows are asked for their lists, in place of lists for their rows */
    bool accepts_all;         /* hardly any of them is not accepted */
    double read;              /* rows of the lists up to `before`, once each */
    uint32_t lists;           /* up to `now` */
    uint32_t asked, accepted; /* rows that conditions were asked about, and that they accepted */
    uint64_t met, passed;     /* rows that are allowed, and those of them that rank before what is wanted */
    float before, now;        /* keys of centres: lists up to these are read, or are being read */
    iq_quant_probe probe;
    iq_topk about; /* keys that estimates hardly exceed */
    iq_codes_hit *listed;
    iq_lists_item *items;
    float *keys;
    uint32_t *chosen;
    uint32_t item_count, item_capacity;
} iq_lists_search;

static size_t iq_lists_part(size_t count, size_t size) { return iq_round_up(count * size, IQ_CACHE_LINE); }

static size_t iq_lists_bytes(const iq_list_set *set, size_t k) {
    const iq_centres *centres = &set->centres;
    return iq_lists_part(centres->stride, sizeof(float)) + iq_centres_scratch_bytes(centres) +
           2 * iq_lists_keys_bytes(centres->count) + iq_lists_part(IQ_CODES_HITS, sizeof(iq_codes_hit)) +
           iq_lists_part(k, sizeof(iqdb_hit)) + iq_lists_part(IQ_LISTS_ITEMS + 4 * k, sizeof(iq_lists_item));
}

IQ_FN size_t iq_lists_search_bytes(const iq_index *base, size_t k) {
    const iq_list_set *set = IQ_ATOMIC_LOAD(&((const iq_lists *)(const void *)base)->set);
    return set == NULL || k > IQ_LISTS_K_MAX ? 0 : iq_lists_bytes(set, k);
}

/* The key of rows with this score, about. */
static float iq_lists_key(const iq_lists_search *search, float score) {
    const double s = (double)score;
    if (!(score < IQ_LISTS_BEYOND) || !(score > -IQ_LISTS_BEYOND))
        return score < 0.0f ? -IQ_LISTS_BEYOND : IQ_LISTS_BEYOND;
    double key = 2.0 * s;
    if (search->base->metric == IQDB_L2) key = iq_strict_f64(s * s) - search->square;
    if (search->base->metric == IQDB_COSINE) key = key - 1.0;
    return iq_strict_f32((float)(key + iq_strict_f64((key < 0.0 ? -key : key) * 1e-5)));
}

/* How the vector is compared with lists; false where it says nothing. */
static bool iq_lists_start(iq_lists_search *search, const iq_lists *lists, const iq_index_query *query,
                           uint8_t *memory) {
    const iq_flat_query *flat = query->flat;
    const iq_flat_probe *probe = &flat->probes[query->which];
    const iq_centres *centres = &search->set->centres;
    const iq_kernel *kernel = lists->base.kernel;
    const size_t stride = centres->stride, k = probe->topk.capacity;
    float *room = (float *)(void *)memory;
    const float *vector = iq_lists_floats(flat->rows, flat->vectors + query->which * flat->rows->stride, room);
    memory += iq_lists_part(stride, sizeof(float));
    search->base = &lists->base;
    search->flat = flat;
    search->which = query->which;
    search->rank = flat->metric == IQDB_COSINE ? IQDB_L2 : flat->metric;
    if (flat->metric == IQDB_HAMMING) search->rank = IQDB_L1; /* of zeros and ones */
    search->vector = vector;
    if (flat->metric == IQDB_COSINE) {
        if (!(probe->norm >= IQ_NORM_SURE && probe->norm < IQ_LISTS_BEYOND)) return false;
        for (size_t i = 0; i < stride; i++) room[i] = vector[i] / probe->norm;
        search->vector = room;
    }
    const float square = kernel->pair(search->vector, search->vector, stride, IQ_SUM_PRODUCTS);
    if (!(square < IQ_LISTS_BEYOND)) return false;
    search->square = (double)square;
    iq_centres_probe(centres, search->rank, search->vector, &search->probe, memory);
    memory += iq_centres_scratch_bytes(centres);
    search->keys = (float *)(void *)memory;
    search->chosen = (uint32_t *)(void *)(memory + iq_lists_keys_bytes(centres->count));
    memory += 2 * iq_lists_keys_bytes(centres->count);
    search->listed = (iq_codes_hit *)(void *)memory;
    memory += iq_lists_part(IQ_CODES_HITS, sizeof(iq_codes_hit));
    iq_topk_start(&search->about, (iqdb_hit *)(void *)memory, k);
    search->items = (iq_lists_item *)(void *)(memory + iq_lists_part(k, sizeof(iqdb_hit)));
    search->item_capacity = (uint32_t)(IQ_LISTS_ITEMS + 4 * k);
    iq_centres_rank(centres, kernel, lists->base.codes, search->rank, search->vector, &search->probe, search->keys);
    for (uint32_t i = centres->count; i % IQ_CODES_ROWS != 0; i++) search->keys[i] = iq_f32_from_bits(0x7F800000u);
    search->had = probe->topk.count > 0 || search->by_rows;
    const float kth = iq_topk_threshold(&probe->topk);
    search->limit = search->cap = iq_lists_key(search, kth < flat->max_score ? kth : flat->max_score);
    search->after = flat->after == NULL ? -IQ_LISTS_BEYOND : iq_lists_key(search, flat->after->score);
    search->stale = true;
    return true;
}

/* What is expected of the error of an estimate. The rest of a row's code is orthogonal to the row, so its product with
 * the vector has the variance |part of the vector that is orthogonal to the row|^2 |rest|^2 / dim. */
static void iq_lists_aim(iq_lists_search *search) {
    const double n = (double)search->set->length, q = search->square, limit = (double)search->limit;
    iq_codes_probe *codes = &search->probe.codes;
    double along = search->rank == IQDB_DOT ? limit * -0.5 / n : (n - limit / n) * 0.5; /* of the vector, on the row */
    search->stale = false;
    codes->limit = search->limit;
    if (!(search->limit < IQ_LISTS_BEYOND) || along < 0.0) along = 0.0;
    double across = q - iq_strict_f64(along * along);
    if (!(across > q / 16.0)) across = q / 16.0;
    codes->error_scale = (float)(iq_sqrt_f64(across / (double)search->set->centres.dim) * 2.0 / 8192.0 * search->z);
}

static bool iq_lists_knows(const iq_lists_search *search, uint32_t row) {
    const iq_topk *topk = &search->flat->probes[search->which].topk;
    bool knows = false;
    for (size_t i = 0; i < topk->count; i++) knows = knows || topk->hits[i].payload.size == row;
    return knows;
}

/* Looks at the items that the limit leaves open, and then at those that the hits so far do: the first are the ones that
 * have set it. */
static void iq_lists_look_by_code(iq_lists_search *search) {
    const iq_flat_query *flat = search->flat;
    const iq_topk *topk = &flat->probes[search->which].topk;
    uint32_t front = 0;
    for (uint32_t i = 0; i < search->item_count; i++) {
        const iq_lists_item item = search->items[i];
        if (!(item.key + item.margin <= search->limit)) continue;
        search->items[i] = search->items[front];
        search->items[front++] = item;
    }
    for (uint32_t i = 0; i < search->item_count; i++) {
        const iq_lists_item *item = &search->items[i];
        if (i % IQ_LISTS_LOOKS == IQ_LISTS_LOOKS - 1 && iq_limit_reached(flat->limit)) break;
        if (i + IQ_LISTS_AHEAD < search->item_count &&
            item[IQ_LISTS_AHEAD].key - item[IQ_LISTS_AHEAD].margin <= search->limit)
            iq_rows_prefetch(flat->rows, iq_rows_spot(flat->rows, item[IQ_LISTS_AHEAD].row));
        if (i == front) search->cap = iq_lists_key(search, iq_topk_threshold(topk));
        if (item->key - item->margin > search->limit) continue;
        if (i >= front && item->key - item->margin > search->cap) continue;
        if (!search->had || !iq_lists_knows(search, item->row))
            iq_flat_offer_row(flat, search->which, iq_rows_spot(flat->rows, item->row), item->accepted);
    }
    search->item_count = 0;
}

/* The same with rows that have been asked for their lists. Whether one is there to be seen, and accepted, takes as long as
 * some scores: so the best of these are asked, and others where that has left room for them. */
static void iq_lists_look_by_score(iq_lists_search *search) {
    const iq_flat_query *flat = search->flat;
    const iq_rows *rows = flat->rows;
    uint32_t count = 0;
    iq_topk_start(&search->about, search->about.hits, search->about.capacity);
    for (uint32_t i = 0; i < search->item_count; i++) {
        iq_lists_item item = search->items[i];
        if (i % IQ_LISTS_LOOKS == IQ_LISTS_LOOKS - 1 && iq_limit_reached(flat->limit)) break;
        if (i + IQ_LISTS_AHEAD < search->item_count)
            iq_rows_prefetch(rows, iq_rows_spot(rows, search->items[i + IQ_LISTS_AHEAD].row));
        if (!iq_flat_measure(flat, search->which, iq_rows_spot(rows, item.row), &item.margin, &item.key)) continue;
        /* Of a row that another one takes the place of meanwhile anything may come out; it will not be there to be seen. */
        if (iq_f32_is_nan(item.key)) item.key = iq_f32_from_bits(0x7F800000u);
        search->items[count++] = item;
        if (iq_topk_admits(&search->about, item.key, item.row)) iq_topk_push(&search->about, item.key, item.row, 0);
    }
    const float best = iq_topk_threshold(&search->about);
    for (uint32_t others = 0; others < 2; others++) {
        const float kth = iq_topk_threshold(&flat->probes[search->which].topk);
        if (others != 0 && (kth <= best || flat->max_score <= best)) break;
        for (uint32_t i = 0; i < count; i++) {
            const iq_lists_item *item = &search->items[i];
            if ((item->key > best) == (others != 0) && !iq_lists_knows(search, item->row))
                iq_flat_offer_sum(flat, search->which, iq_rows_spot(rows, item->row), item->margin);
        }
    }
    search->item_count = 0;
}

static void iq_lists_look(iq_lists_search *search) {
    if (search->by_rows) iq_lists_look_by_score(search);
    if (!search->by_rows) iq_lists_look_by_code(search);
}

/* A row that the scan has listed. */
static void iq_lists_list(iq_lists_search *search, uint32_t row, const iq_quant_row *code) {
    iq_lists_item item;
    const iq_spot spot = iq_rows_spot(search->flat->rows, row);
    const float n = code->size;
    item.row = row;
    item.accepted = false;
    item.key = -IQ_LISTS_BEYOND;
    item.margin = 0.0f;
    if (n >= 0.0f) {
        item.key = iq_strict_f32(n * (iq_strict_f32(n * search->probe.codes.square) - code->cross));
        item.margin = iq_strict_f32(n * iq_strict_f32(code->error * search->probe.codes.error_scale));
        /* The score of a zero row is 1, as if it stood at a right angle to all; its code says that it is nearer. */
        if (search->base->metric == IQDB_COSINE && !(n > 0.0f)) item.key = 1.0f;
        const float high = item.key + item.margin;
        search->passed += high <= search->after;
        if (item.key - item.margin > search->limit) return;
        if (high < search->cap && item.key - item.margin > search->after && iq_topk_admits(&search->about, high, row)) {
            search->asked++;
            if (!iq_flat_accepts(search->flat, spot)) return;
            search->accepted++;
            item.accepted = true;
            iq_topk_push(&search->about, high, row, 0);
            const float kth = iq_topk_threshold(&search->about);
            if (kth < search->limit) search->stale = true;
            if (kth < search->limit) search->limit = kth;
        }
    }
    if (search->item_count == search->item_capacity) {
        uint32_t open = 0;
        for (uint32_t i = 0; i < search->item_count; i++)
            if (!(search->items[i].key - search->items[i].margin > search->limit))
                search->items[open++] = search->items[i];
        search->item_count = open;
        if (open > search->item_capacity / 2) {
            iq_lists_look(search);
            search->had = true;
        }
    }
    search->items[search->item_count++] = item;
}

/* Row i of the extent, if it is to be looked at here: IQ_ROW_NONE where it is gone, not allowed, or met elsewhere. */
IQ_INLINE uint32_t iq_lists_row(const iq_lists_search *search, const iq_extent *extent, uint32_t i) {
    const uint32_t row = IQ_ATOMIC_LOAD(&iq_extent_rows(extent)[i]), other = iq_extent_others(extent)[i];
    /* Rows that came behind the plan are not seen, nor do the bits reach them. */
    if (row >= search->flat->row_count) return IQ_ROW_NONE;
    if (other != IQ_ROW_NONE) {
        const bool second = (other & IQ_LISTS_SECOND) != 0;
        if (search->keys[other & ~IQ_LISTS_SECOND] <= (second ? search->now : search->before)) return IQ_ROW_NONE;
    }
    if (search->flat->allow != NULL && (search->flat->allow[row / 32] >> row % 32 & 1) == 0) return IQ_ROW_NONE;
    return row;
}

/* Which rows of each block are allowed: a block without any is not read. Returns how many there are. */
static uint32_t iq_lists_mask(const iq_lists_search *search, const iq_extent *extent, uint16_t *masks) {
    const uint32_t *rows = iq_extent_rows(extent), *allow = search->flat->allow;
    uint32_t met = 0;
    for (uint32_t first = 0; first < extent->count; first += IQ_CODES_ROWS) {
        const uint32_t end = extent->count - first < IQ_CODES_ROWS ? extent->count - first : IQ_CODES_ROWS;
        uint32_t mask = 0;
        for (uint32_t i = 0; i < end; i++) {
            const uint32_t row = IQ_ATOMIC_LOAD(&rows[first + i]);
            const uint32_t known = row < search->flat->row_count ? row : 0;
            mask |= (allow[known / 32] >> known % 32 & (row == known)) << i;
        }
        masks[first / IQ_CODES_ROWS] = (uint16_t)mask;
        met += iq_count_bits(mask);
    }
    return met;
}

/* `next`: the blocks that are read then. */
static void iq_lists_scan(iq_lists_search *search, const iq_extent *extent, const uint8_t *next) {
    const iq_quant *quant = &search->base->rows->quant;
    const size_t bytes = iq_quant_block_bytes(quant);
    const iq_codes_probe *codes = &search->probe.codes;
    const uint8_t *blocks = iq_extent_blocks(extent);
    uint16_t allow[IQ_LISTS_EXTENT_ROWS / IQ_CODES_ROWS];
    size_t count;
    const uint32_t block_count = (extent->count + IQ_CODES_ROWS - 1) / IQ_CODES_ROWS;
    memset(allow, 0xFF, sizeof allow);
    if (extent->count % IQ_CODES_ROWS != 0)
        allow[block_count - 1] = (uint16_t)((1u << extent->count % IQ_CODES_ROWS) - 1);
    const uint32_t met = search->flat->allow == NULL ? extent->count : iq_lists_mask(search, extent, allow);
    search->met += met;
    if (met == 0) return;
    if (search->stale) iq_lists_aim(search);
    search->base->codes->scan(codes, 1, blocks, block_count, next, iq_codes_groups(quant->dim), allow, search->listed,
                              &count);
    for (size_t i = 0; i < count; i++) {
        const uint32_t at = search->listed[i].row, row = iq_lists_row(search, extent, at);
        if (row == IQ_ROW_NONE) continue;
        const iq_quant_row code = iq_quant_look(&search->probe, blocks + at / IQ_CODES_ROWS * bytes, at % IQ_CODES_ROWS,
                                                search->listed[i].sum);
        iq_lists_list(search, row, &code);
    }
}

/* A list; `after` is where the one that is read next begins, or NULL. */
static void iq_lists_read(iq_lists_search *search, uint32_t list, const iq_extent *after) {
    const iq_extent *extent = IQ_ATOMIC_LOAD(&search->set->lists[list]), *next;
    const iq_quant_row unknown = {-1.0f, 0.0f, 0.0f, 0.0f};
    for (; extent != NULL; extent = next) {
        next = IQ_ATOMIC_LOAD(&extent->next);
        search->visited += extent->count;
        if (search->probe.usable) {
            const iq_extent *then = next != NULL ? next : after != NULL ? after : extent;
            iq_lists_scan(search, extent, iq_extent_blocks(then));
            continue;
        }
        for (uint32_t i = 0; i < extent->count; i++) {
            const uint32_t row = iq_lists_row(search, extent, i);
            search->met += row != IQ_ROW_NONE;
            if (row != IQ_ROW_NONE) iq_lists_list(search, row, &unknown);
        }
    }
}

/* Where the lists stand: to be read now, or read before. One more is for rows that are in none. */
enum {
    IQ_LISTS_NOW = 1,
    IQ_LISTS_BEFORE = 2
};

static const uint8_t *iq_lists_stand(iq_lists_search *search) {
    uint8_t *stands = (uint8_t *)(void *)search->chosen;
    const float *keys = search->keys, now = search->now, before = search->before;
    const uint32_t count = search->set->centres.count;
    for (size_t i = 0; i < count; i += IQ_CODES_ROWS) {
        const float *chunk = keys + i;
        uint32_t met[IQ_CODES_ROWS];
        for (int j = 0; j < (int)IQ_CODES_ROWS; j++)
            met[j] = (uint32_t)(chunk[j] <= now) + (uint32_t)(chunk[j] <= before);
        for (int j = 0; j < (int)IQ_CODES_ROWS; j++) stands[i + (size_t)j] = (uint8_t)met[j];
    }
    stands[count] = 0;
    search->lists = iq_keys_below(keys, count, now);
    return stands;
}

/* Some allowed rows are asked at once what else there is to be asked, so that it is known how many are accepted. */
static bool iq_lists_ask(iq_lists_search *search, uint32_t row) {
    search->asked++;
    const bool accepts = iq_flat_accepts(search->flat, iq_rows_spot(search->flat->rows, row));
    search->accepted += accepts;
    return accepts;
}

/* The few allowed rows that are in the lists beyond `before` up to `now`, each asked for its lists. */
static void iq_lists_meet_all(iq_lists_search *search) {
    const iq_quant_row unknown = {-1.0f, 0.0f, 0.0f, 0.0f};
    const iq_flat_query *flat = search->flat;
    const uint32_t *few = flat->few, room = IQ_ATOMIC_LOAD(&search->set->row_room), none = search->set->centres.count;
    const uint32_t *homes = IQ_ATOMIC_LOAD(&search->set->homes);
    const uint8_t *stands = iq_lists_stand(search);
    const bool asks = flat->accept_fn != NULL && !search->accepts_all;
    for (uint32_t first = 0; first < flat->few_count; first += IQ_LISTS_LOOKS) {
        uint32_t near_rows[IQ_LISTS_LOOKS], met = 0;
        const uint32_t end = flat->few_count - first < IQ_LISTS_LOOKS ? flat->few_count : first + IQ_LISTS_LOOKS;
        if (first % IQ_LISTS_FEW == 0 && iq_limit_reached(flat->limit)) break;
        for (uint32_t i = first; i < end; i++) { /* without a branch that chance decides */
            if (i + IQ_LISTS_FAR < flat->few_count && few[i + IQ_LISTS_FAR] < room)
                iq_kernel_prefetch(homes + few[i + IQ_LISTS_FAR], 0);
            const uint32_t both = few[i] < room ? IQ_ATOMIC_LOAD(&homes[few[i]]) : UINT32_MAX;
            const uint32_t one = both & 0xFFFFu, other = both >> 16;
            near_rows[met] = few[i];
            met += (stands[one < none ? one : none] | stands[other < none ? other : none]) == IQ_LISTS_NOW;
        }
        for (uint32_t i = 0; i < met; i++) {
            if (search->met++ % IQ_LISTS_ASKED == 0 && asks && !iq_lists_ask(search, near_rows[i])) continue;
            iq_lists_list(search, near_rows[i], &unknown);
        }
    }
    search->visited += flat->few_count;
}

/* Where the list that is read next begins, or NULL. Asks for the head of the one behind it, and for the numbers of its own
 * rows, which are read in more places than a processor foresees: where few are allowed, nothing but these. */
static const iq_extent *iq_lists_look_ahead(const iq_lists_search *search, uint32_t at, uint32_t count) {
    if (at + 2 < count) iq_kernel_prefetch(IQ_ATOMIC_LOAD(&search->set->lists[search->chosen[at + 2]]), 0);
    const iq_extent *extent = at + 1 < count ? IQ_ATOMIC_LOAD(&search->set->lists[search->chosen[at + 1]]) : NULL;
    const size_t words = extent == NULL ? 0 : search->flat->allow != NULL ? extent->count : 2 * (size_t)extent->count;
    for (size_t i = 0; i < words; i += IQ_CODES_ROWS) iq_kernel_prefetch(iq_extent_rows(extent), i * sizeof(uint32_t));
    return extent;
}

/* The nearest of the chosen lists first: the limit is low then, when the others are read. */
static void iq_lists_sort_first(iq_lists_search *search, uint32_t count) {
    uint32_t *chosen = search->chosen;
    for (uint32_t i = 0; i < IQ_LISTS_FIRST && i < count; i++) {
        uint32_t best = i;
        for (uint32_t j = i + 1; j < count; j++)
            if (search->keys[chosen[j]] < search->keys[chosen[best]]) best = j;
        const uint32_t first = chosen[best];
        chosen[best] = chosen[i];
        chosen[i] = first;
    }
}

/* The lists beyond `before` up to `now`; their number. Of most runs of keys it is none. */
static uint32_t iq_lists_choose(iq_lists_search *search) {
    const float *keys = search->keys, now = search->now, before = search->before;
    const uint32_t count = search->set->centres.count;
    uint32_t chosen = 0;
    for (uint32_t i = 0; i < count; i += IQ_CODES_ROWS) {
        const float *chunk = keys + i;
        uint32_t some = 0;
        for (int j = 0; j < (int)IQ_CODES_ROWS; j++) some |= (uint32_t)(chunk[j] <= now);
        for (uint32_t j = 0; some != 0 && j < IQ_CODES_ROWS && i + j < count; j++) {
            search->chosen[chosen] = i + j;
            chosen += chunk[j] <= now && chunk[j] > before;
        }
    }
    return chosen;
}

/* Reads them, the nearest first. */
static void iq_lists_read_all(iq_lists_search *search) {
    const uint32_t chosen = iq_lists_choose(search);
    iq_lists_sort_first(search, chosen);
    for (uint32_t i = 0; i < chosen; i++) {
        iq_lists_read(search, search->chosen[i], iq_lists_look_ahead(search, i, chosen));
        if (iq_limit_reached(search->flat->limit)) break;
    }
    search->lists += chosen;
    search->read = (double)search->visited;
}

/* Lists beyond `before`, about as many as make `wanted` with those up to there. Returns how many have been searched in
 * all. */
static uint32_t iq_lists_round(iq_lists_search *search, uint32_t wanted) {
    const uint32_t count = search->set->centres.count;
    search->now = iq_keys_select(search->keys, count, wanted);
    if (search->by_rows) {
        iq_lists_meet_all(search);
        search->read = (double)search->lists / (double)count * (double)search->flat->row_count;
    } else {
        iq_lists_read_all(search);
    }
    iq_lists_look(search);
    search->before = search->now;
    search->had = true;
    return search->lists;
}

static uint32_t iq_lists_effort(const iq_lists *lists, const iq_list_set *set, const iq_index_query *query) {
    const uint32_t probes = IQ_ATOMIC_LOAD(&lists->base.efforts[query->recall]);
    if (query->effort != 0) return query->effort;
    return probes != 0 ? probes : set->centres.count / 16 + 8;
}

/* Efforts are those for the nearest ten of all rows. The nearest ten of a part of them, or more than ten, lie in more lists:
 * in (rank / 10)^(5/16) times as many, of what keeps the recall of photos for parts from 50 % down to 1 %. */
static double iq_lists_breadth(double rank) {
    const double root = iq_sqrt_f64(iq_sqrt_f64(rank / 10.0));
    return rank > 10.0 ? iq_strict_f64(root * iq_sqrt_f64(iq_sqrt_f64(root))) : 1.0;
}

/* For how many hits lists are widened: what the caller has chosen is for as many as there are. */
static double iq_lists_rank(const iq_index_query *query) {
    return query->effort != 0 ? 10.0 : (double)query->flat->probes[query->which].topk.capacity;
}

static bool iq_lists_are_limited(const iq_index_query *query) {
    return query->flat->allow != NULL || query->flat->few != NULL;
}

/* The lists for so many allowed rows, and whether these are asked for theirs; 0: they are sooner looked at. */
static double iq_lists_widen(const iq_list_set *set, const iq_index_query *query, double effort, bool *out_by_rows) {
    const double all = (double)query->flat->row_count, allowed = (double)query->allowed,
                 count = (double)set->centres.count;
    const double rank = iq_lists_rank(query);
    double wide = allowed > 0.0 ? effort * iq_lists_breadth(rank * all / allowed) : count;
    if (!(wide < count)) wide = count;
    *out_by_rows = false;
    if (!iq_lists_are_limited(query)) return wide;
    if (query->allowed < query->flat->probes[query->which].topk.capacity)
        return 0.0; /* a scan would come then anyway */
    const double lines = (double)query->flat->rows->stride * sizeof(float) / 64.0 + 1.0;
    const double first = count * (double)IQ_LISTS_ROW_NS, look = allowed * lines * (double)IQ_LISTS_FAR_NS;
    /* Far fewer of them lie in these lists than others do, whose codes would be read. Which rows rank before that only
     * codes tell. */
    *out_by_rows = query->flat->few != NULL && query->flat->after == NULL;
    const double touched = *out_by_rows ? allowed * (double)IQ_LISTS_HOME_NS + iq_strict_f64(wide / count * look)
                                        : wide / count * all * (double)IQ_LISTS_ROW_NS;
    return touched + first < look ? wide : 0.0;
}

/* How many lists should have been read, by what has been met in `all` of them: of rows that match about as many as wide
 * enough a search meets where they lie like the others, and some for each hit. */
static double iq_lists_further(const iq_lists_search *search, const iq_index_query *query, double effort, double all) {
    const double k = iq_lists_rank(query) + (double)search->passed;
    const double asked = (double)(search->accepted + 1) / (double)(search->asked + 1),
                 count = (double)search->set->centres.count;
    double part = asked, met = (double)search->met * asked;
    if (iq_lists_are_limited(query)) part *= (double)query->allowed / (double)query->flat->row_count;
    if (!(part < 1.0) && !(k > 10.0)) return all;
    double wide = effort * iq_lists_breadth(k / part);
    double wanted = wide * search->read / all * part * 0.75;
    if (wanted < (double)IQ_LISTS_PER_HIT * k) wanted = (double)IQ_LISTS_PER_HIT * k;
    const double more = wanted > 4.0 * met ? 4.0 : wanted / met;
    if (met < wanted && wide < all * more) wide = all * more + 1.0;
    return wide < count ? wide : count;
}

IQ_FN bool iq_lists_search_for(const iq_index *base, iq_index_query *query) {
    const iq_lists *lists = (const iq_lists *)(const void *)base;
    const iq_list_set *set = IQ_ATOMIC_LOAD(&lists->set);
    const iq_topk *topk = &query->flat->probes[query->which].topk;
    iq_lists_search search;
    if (set == NULL || query->flat->metric != base->metric || topk->capacity > IQ_LISTS_K_MAX ||
        query->size_bytes < iq_lists_bytes(set, topk->capacity))
        return false;
    memset(&search, 0, sizeof search);
    search.set = set;
    search.before = -iq_f32_from_bits(0x7F800000u);
    const uint32_t effort = iq_lists_effort(lists, set, query), best = IQ_ATOMIC_LOAD(&base->efforts[IQ_RECALL_99]);
    double wide = iq_lists_widen(set, query, (double)effort, &search.by_rows);
    if (!(wide > 0.0)) return false;
    if (!search.by_rows && query->flat->few != NULL && query->flat->allow == NULL) iq_flat_allow_few(query->flat);
    search.accepts_all = query->accepted;
    search.z = best != 0 && effort > best ? 3.0 : 2.0;
    if (!iq_lists_start(&search, lists, query, (uint8_t *)query->memory)) return false;
    for (bool enough = false; !enough;) {
        const uint32_t all = iq_lists_round(&search, (uint32_t)wide);
        if (iq_limit_reached(query->flat->limit)) break;
        wide = iq_lists_further(&search, query, (double)effort, (double)all);
        enough = (uint32_t)wide <= all + all / 8; /* lists are chosen in about such a number */
        /* So few match that a scan is as fast, and sure. */
        if (enough ? topk->count < topk->capacity : all >= set->centres.count / 4) return false;
    }
    query->visited += search.visited;
    return true;
}

/* The key of the nearer one of the row's lists; infinite where it is in none. */
static float iq_lists_key_of(const iq_lists_search *search, uint32_t homes) {
    const uint32_t first = iq_home_half(homes, 0), other = iq_home_half(homes, 1);
    if (first == IQ_ROW_NONE) return iq_f32_from_bits(0x7F800000u);
    const float key = search->keys[first];
    return other != IQ_ROW_NONE && search->keys[other] < key ? search->keys[other] : key;
}

/* A row is found by whoever reads its list: the ranks of those that it is in. */
IQ_FN uint32_t iq_lists_need(const iq_index *base, const iq_index_query *query, const iqdb_hit *hits, uint32_t count,
                             uint32_t *out_efforts) {
    const iq_lists *lists = (const iq_lists *)(const void *)base;
    const iq_list_set *set = lists->set;
    uint32_t found = 0;
    iq_lists_search search;
    memset(&search, 0, sizeof search);
    search.set = set;
    if (!iq_lists_start(&search, lists, query, (uint8_t *)query->memory)) return 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t row = (uint32_t)hits[i].payload.size;
        if (row >= set->row_room || iq_home_of(set, row, 0) == IQ_ROW_NONE) continue;
        const float key = iq_lists_key_of(&search, set->homes[row]);
        out_efforts[found++] = iq_keys_below(search.keys, set->centres.count, key);
    }
    return found;
}
