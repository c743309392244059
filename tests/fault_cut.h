/* The second half of fault.h: what a power cut leaves of a disk. The first comment of fault.h explains it. */
#ifndef FAULT_CUT_H
#define FAULT_CUT_H

#include "fault.h"

#define FAULT_TEAR 1u
#define FAULT_ZEROS 2u
#define FAULT_GARBAGE 4u
#define FAULT_EXHAUSTIVE 12

typedef enum fault_item_kind {
    FAULT_ITEM_SECTOR,
    FAULT_ITEM_SIZE,
    FAULT_ITEM_ENTRY
} fault_item_kind;

typedef struct fault_item {
    fault_item_kind kind;
    size_t index; /* among all items: 0, 1, ... */
    const char *path, *name;
    uint64_t sector; /* of a sector: its number in the file */
    size_t versions; /* 1: only old (0) and new (1) */
    bool removes;    /* of an entry */
    bool matters;    /* a sector: whether its versions differ at all */
} fault_item;

typedef enum fault_fate_kind {
    FAULT_FATE_VERSION,
    FAULT_FATE_TORN,
    FAULT_FATE_ZEROS,
    FAULT_FATE_GARBAGE
} fault_fate_kind;

typedef struct fault_fate { /* sizes and entries know versions only */
    fault_fate_kind kind;
    size_t version;
    size_t behind, at; /* torn: `at` bytes of `version`, then those of version `behind` */
    uint64_t seed;     /* of the garbage */
} fault_fate;

typedef fault_fate (*fault_choose_fn)(const fault_item *item, void *user);
typedef bool (*fault_check_fn)(fault_files *state, const char *what, void *user);

static inline size_t fault_pending(const fault_files *disk) {
    size_t count = 0;
    for (const fault_directory *d = disk->directories; d != NULL; d = d->next) count += d->pending.count;
    for (const fault_inode *inode = disk->inodes; inode != NULL; inode = inode->next)
        if (inode->links > 0) count += inode->sector_count + (inode->size_count > 0);
    return count;
}

/* Which file an inode is, or was last known as. */
static inline void fault_whereabouts(const fault_files *disk, const fault_inode *inode, fault_item *item) {
    for (const fault_directory *d = disk->directories; d != NULL; d = d->next) {
        const fault_entries *lists[2] = {&d->durable, &d->pending};
        for (size_t i = 0; i < 2; i++) {
            for (size_t j = 0; j < lists[i]->count; j++) {
                if (lists[i]->at[j].inode != inode) continue;
                item->path = d->path;
                item->name = lists[i]->at[j].name;
            }
        }
    }
}

static inline bool fault_versions_differ(const fault_files *disk, const fault_inode *inode,
                                         const fault_sector *sector) {
    const uint64_t first = fault_page_hash(fault_version(inode, sector, 0), disk->sector_size);
    for (size_t i = 1; i <= sector->versions.count; i++)
        if (fault_page_hash(fault_version(inode, sector, i), disk->sector_size) != first) return true;
    return false;
}

/* All items in their order: entries, then of each file its size and its sectors. Returned memory is malloc's. */
static inline fault_item *fault_items(const fault_files *disk) {
    fault_item *items = fault_grow(NULL, fault_pending(disk) * sizeof *items);
    size_t n = 0;
    fault_item item;
    for (const fault_directory *d = disk->directories; d != NULL; d = d->next) {
        for (size_t i = 0; i < d->pending.count; i++) {
            memset(&item, 0, sizeof item);
            item.kind = FAULT_ITEM_ENTRY;
            item.path = d->path;
            item.name = d->pending.at[i].name;
            item.removes = d->pending.at[i].removes;
            item.versions = 1;
            item.matters = true;
            item.index = n;
            items[n++] = item;
        }
    }
    for (const fault_inode *inode = disk->inodes; inode != NULL; inode = inode->next) {
        if (inode->links == 0) continue;
        memset(&item, 0, sizeof item);
        fault_whereabouts(disk, inode, &item);
        item.kind = FAULT_ITEM_SIZE;
        item.matters = true;
        item.versions = inode->size_count;
        item.index = n;
        if (inode->size_count > 0) items[n++] = item;
        item.kind = FAULT_ITEM_SECTOR;
        for (size_t i = 0; i < inode->sector_count; i++) {
            item.sector = inode->sectors[i].index;
            item.versions = inode->sectors[i].versions.count;
            item.matters = fault_versions_differ(disk, inode, &inode->sectors[i]);
            item.index = n;
            items[n++] = item;
        }
    }
    return items;
}

static inline uint64_t fault_random(uint64_t *state) {
    *state += UINT64_C(0x9E3779B97F4A7C15);
    return iq_hash_u64(*state);
}

static inline void fault_read_version(const fault_files *disk, const fault_inode *inode, const fault_sector *sector,
                                      size_t version, uint8_t *out) {
    const fault_page *page = fault_version(inode, sector, version);
    if (page != NULL)
        memcpy(out, page->bytes, disk->sector_size);
    else
        memset(out, 0, disk->sector_size);
}

/* The page a sector has after the cut, owned by the caller. */
static inline fault_page *fault_decide(const fault_files *disk, const fault_inode *inode, const fault_sector *sector,
                                       const fault_fate *fate) {
    if (fate->kind == FAULT_FATE_VERSION) return fault_share(fault_version(inode, sector, fate->version));
    if (fate->kind == FAULT_FATE_ZEROS) return NULL;
    fault_page *page = fault_make_page(NULL, disk->sector_size, 0, NULL, 0);
    if (fate->kind == FAULT_FATE_GARBAGE) {
        uint64_t state = fate->seed;
        for (size_t i = 0; i < disk->sector_size; i += 8) {
            const uint64_t word = fault_random(&state);
            memcpy(page->bytes + i, &word, 8);
        }
        return page;
    }
    fault_read_version(disk, inode, sector, fate->version, page->bytes);
    if (fate->at >= disk->sector_size) return page;
    const fault_page *behind = fault_version(inode, sector, fate->behind);
    if (behind != NULL)
        memcpy(page->bytes + fate->at, behind->bytes + fate->at, disk->sector_size - fate->at);
    else
        memset(page->bytes + fate->at, 0, disk->sector_size - fate->at);
    return page;
}

/* The contents of a file after the cut; `fates` are those of its own items. */
static inline fault_pages fault_image(const fault_files *disk, const fault_inode *inode, const fault_fate *fates,
                                      uint64_t *out_size) {
    fault_pages image;
    uint64_t size = inode->durable_size;
    if (inode->size_count > 0 && fates->version > 0) size = inode->sizes[fates->version - 1];
    if (inode->size_count > 0) fates++;
    memset(&image, 0, sizeof image);
    fault_set_count(&image, fault_page_count(size, disk->sector_size));
    for (size_t i = 0; i < image.count && i < inode->durable.count; i++)
        image.at[i] = fault_share(inode->durable.at[i]);
    for (size_t i = 0; i < inode->sector_count; i++) {
        const uint64_t index = inode->sectors[i].index;
        if (index >= image.count) continue;
        fault_page *page = fault_decide(disk, inode, &inode->sectors[i], &fates[i]);
        fault_put_page(&image, (size_t)index, page);
        fault_drop(page);
    }
    /* Behind the end there is nothing, whoever makes the file longer later. */
    const size_t tail = (size_t)(size % disk->sector_size);
    fault_page *last = image.count > 0 ? image.at[image.count - 1] : NULL;
    if (tail > 0 && last != NULL && !fault_is_zero(last->bytes + tail, disk->sector_size - tail)) {
        fault_page *page = fault_make_page(NULL, disk->sector_size, 0, last->bytes, tail);
        fault_put_page(&image, image.count - 1, page);
        fault_drop(page);
    }
    *out_size = size;
    return image;
}

static inline size_t fault_own_items(const fault_inode *inode) {
    return inode->links == 0 ? 0 : inode->sector_count + (inode->size_count > 0);
}

/* The disk that `fates`, one for each item, leave behind. */
static inline fault_files *fault_outcome(const fault_files *disk, const fault_fate *fates) {
    fault_files *state = fault_new(NULL);
    if (state == NULL) fault_no_memory();
    state->sector_size = disk->sector_size;
    state->ballast = disk->ballast;
    size_t entry_count = 0, at = 0;
    for (const fault_directory *d = disk->directories; d != NULL; d = d->next) entry_count += d->pending.count;
    for (const fault_directory *d = disk->directories; d != NULL; d = d->next) {
        fault_entries names;
        void *dir;
        int os_code;
        memset(&names, 0, sizeof names);
        for (size_t i = 0; i < d->durable.count; i++) fault_apply(&names, &d->durable.at[i]);
        for (size_t i = 0; i < d->pending.count; i++, at++)
            if (fates[at].version > 0) fault_apply(&names, &d->pending.at[i]);
        if (state->inner.dir_open_fn(d->path, true, &dir, &os_code, state->inner.user) == IQDB_OK)
            state->inner.dir_close_fn(dir, state->inner.user);
        for (size_t i = 0; i < names.count; i++) {
            size_t first = entry_count;
            const fault_inode *inode = disk->inodes;
            for (; inode != names.at[i].inode; inode = inode->next) first += fault_own_items(inode);
            uint64_t size;
            fault_pages image = fault_image(disk, inode, fates + first, &size);
            if (!fault_place(state, d->path, names.at[i].name, &image, size)) fault_no_memory();
        }
        free(names.at);
    }
    fault_count_links(state);
    return state;
}

static inline fault_files *fault_crash(const fault_files *disk, fault_choose_fn choose, void *user) {
    const size_t count = fault_pending(disk);
    fault_item *items = fault_items(disk);
    fault_fate *fates = fault_grow(NULL, count * sizeof *fates);
    for (size_t i = 0; i < count; i++) fates[i] = choose(&items[i], user);
    fault_files *state = fault_outcome(disk, fates);
    free(fates);
    free(items);
    return state;
}

static inline fault_fate fault_make_fate(fault_fate_kind kind, size_t version) {
    fault_fate fate;
    memset(&fate, 0, sizeof fate);
    fate.kind = kind;
    fate.version = version;
    return fate;
}

static inline fault_fate fault_keep(const fault_item *item, void *user) {
    (void)user;
    return fault_make_fate(FAULT_FATE_VERSION, item->versions);
}

static inline fault_fate fault_lose(const fault_item *item, void *user) {
    (void)item;
    (void)user;
    return fault_make_fate(FAULT_FATE_VERSION, 0);
}

static inline fault_files *fault_copy(const fault_files *disk) { return fault_crash(disk, fault_keep, NULL); }

/* Any version, kept with a chance of `kept` in 8; of sectors one in four damaged in a way that `damage` names. */
static inline fault_fate fault_random_fate(const fault_item *item, unsigned damage, unsigned kept, size_t sector_size,
                                           uint64_t *state) {
    fault_fate fate = fault_make_fate(FAULT_FATE_VERSION, 0);
    if (fault_random(state) % 8 < kept) fate.version = item->versions;
    if (item->versions > 1 && fault_random(state) % 2 == 0) fate.version = fault_random(state) % (item->versions + 1);
    const unsigned kind = 1u << (unsigned)(fault_random(state) % 3);
    if (item->kind != FAULT_ITEM_SECTOR || fault_random(state) % 4 != 0 || (damage & kind) == 0) return fate;
    fate.kind = kind == FAULT_TEAR ? FAULT_FATE_TORN : kind == FAULT_ZEROS ? FAULT_FATE_ZEROS : FAULT_FATE_GARBAGE;
    fate.behind = fault_random(state) % (item->versions + 1);
    fate.at = 1 + fault_random(state) % (sector_size - 1);
    fate.seed = fault_random(state);
    return fate;
}

typedef struct fault_tour {
    const fault_files *disk;
    fault_item *items;
    fault_fate *fates;
    size_t count, states;
    uint64_t total, limit, chance; /* of `total` states about `limit` are made, all of them where it is 0 */
    fault_check_fn check;
    void *user;
    bool goes_on;
} fault_tour;

/* Whether the next state is among those that are made. */
static inline bool fault_is_chosen(fault_tour *tour) {
    return tour->limit == 0 || tour->total <= tour->limit || fault_random(&tour->chance) % tour->total < tour->limit;
}

static inline void fault_visit(fault_tour *tour, const char *what) {
    fault_files *state = fault_outcome(tour->disk, tour->fates);
    tour->states++;
    tour->goes_on = tour->check(state, what, tour->user);
    fault_free(state);
}

/* The items first .. end - 1 are kept or lost, all others not so. */
static inline void fault_visit_range(fault_tour *tour, size_t first, size_t end, bool kept) {
    char what[96];
    if (!tour->goes_on || !fault_is_chosen(tour)) return;
    for (size_t i = 0; i < tour->count; i++) {
        const bool inside = i >= first && i < end;
        tour->fates[i] = inside == kept ? fault_keep(&tour->items[i], NULL) : fault_lose(&tour->items[i], NULL);
    }
    snprintf(what, sizeof what, "items %zu to %zu of %zu %s, others not", first, end, tour->count,
             kept ? "kept" : "lost");
    fault_visit(tour, what);
}

static inline void fault_visit_damage(fault_tour *tour, const fault_item *item, bool others, fault_fate fate) {
    static const char *const names[] = {"whole", "torn", "zeros", "garbage"};
    char what[160];
    if (!tour->goes_on || !fault_is_chosen(tour)) return;
    for (size_t i = 0; i < tour->count; i++)
        tour->fates[i] = others ? fault_keep(&tour->items[i], NULL) : fault_lose(&tour->items[i], NULL);
    /* The file has to exist and to reach so far, else nobody sees the damage. */
    for (size_t i = 0; i < tour->count; i++)
        if (tour->items[i].kind != FAULT_ITEM_SECTOR && !tour->items[i].removes && item->name != NULL &&
            strcmp(tour->items[i].name, item->name) == 0)
            tour->fates[i] = fault_keep(&tour->items[i], NULL);
    tour->fates[item->index] = fate;
    snprintf(what, sizeof what, "sector %llu of %s %s at %zu, others %s", (unsigned long long)item->sector, item->name,
             names[fate.kind], fate.at, others ? "kept" : "lost");
    fault_visit(tour, what);
}

static inline void fault_visit_damages(fault_tour *tour, unsigned damage, uint64_t seed) {
    for (size_t i = 0; i < tour->count; i++) {
        const fault_item *item = &tour->items[i];
        if (item->kind != FAULT_ITEM_SECTOR) continue;
        for (int others = 0; others < 2; others++) {
            for (size_t part = 0; part < 8 && item->matters && (damage & FAULT_TEAR) != 0; part++) {
                fault_fate fate = fault_make_fate(FAULT_FATE_TORN, item->versions);
                fate.at = part == 0 ? 1 : part == 7 ? tour->disk->sector_size - 1 : tour->disk->sector_size / 8 * part;
                fault_visit_damage(tour, item, others != 0, fate);
            }
            if (item->matters && (damage & FAULT_ZEROS) != 0)
                fault_visit_damage(tour, item, others != 0, fault_make_fate(FAULT_FATE_ZEROS, 0));
            if ((damage & FAULT_GARBAGE) != 0) {
                fault_fate fate = fault_make_fate(FAULT_FATE_GARBAGE, 0);
                fate.seed = seed + i;
                fault_visit_damage(tour, item, others != 0, fate);
            }
        }
    }
}

/* How many states a whole tour has. */
static inline uint64_t fault_tour_total(const fault_tour *tour, size_t matter, unsigned damage, size_t samples) {
    const size_t ways = ((damage & FAULT_TEAR) != 0 ? 16u : 0) + ((damage & FAULT_ZEROS) != 0 ? 2u : 0);
    uint64_t total = matter <= FAULT_EXHAUSTIVE ? UINT64_C(1) << matter : 3 * (uint64_t)matter + 1 + samples;
    for (size_t i = 0; i < tour->count; i++)
        if (tour->items[i].kind == FAULT_ITEM_SECTOR)
            total += (tour->items[i].matters ? ways : 0) + ((damage & FAULT_GARBAGE) != 0 ? 2u : 0);
    return total;
}

/* The subsets of the items that matter, where they are few. */
static inline void fault_tour_sets(fault_tour *tour, size_t matter) {
    char what[96];
    for (uint32_t set = 0; set < 1u << matter && tour->goes_on; set++) {
        /* Whatever is left out, the first and the last are not: all lost, all kept. */
        if (set != 0 && set + 1 != 1u << matter && !fault_is_chosen(tour)) continue;
        for (size_t i = 0, bit = 0; i < tour->count; i++)
            tour->fates[i] = !tour->items[i].matters || (set >> bit++ & 1) != 0 ? fault_keep(&tour->items[i], NULL)
                                                                                : fault_lose(&tour->items[i], NULL);
        snprintf(what, sizeof what, "of %zu items the set 0x%lx kept", matter, (unsigned long)set);
        fault_visit(tour, what);
    }
}

/* Too many: all, none, each alone, all but each, and every run from the start, which is what a disk mostly does. */
static inline void fault_tour_runs(fault_tour *tour) {
    for (size_t i = 0; i < tour->count; i++) {
        if (!tour->items[i].matters) continue;
        fault_visit_range(tour, 0, i, true);
        fault_visit_range(tour, i, i + 1, true);
        fault_visit_range(tour, i, i + 1, false);
    }
    fault_visit_range(tour, 0, tour->count, true);
}

static inline size_t fault_crashes_some(const fault_files *disk, unsigned damage, size_t samples, size_t limit,
                                        uint64_t seed, fault_check_fn check, void *user) {
    char what[96];
    fault_tour tour;
    size_t matter = 0;
    bool versions = false;
    memset(&tour, 0, sizeof tour);
    tour.disk = disk;
    tour.count = fault_pending(disk);
    tour.items = fault_items(disk);
    tour.fates = (fault_fate *)fault_grow(NULL, tour.count * sizeof *tour.fates);
    tour.check = check;
    tour.user = user;
    tour.goes_on = true;
    for (size_t i = 0; i < tour.count; i++) versions = versions || tour.items[i].versions > 1;
    for (size_t i = 0; i < tour.count; i++) matter += tour.items[i].matters;
    const bool exhaustive = matter <= FAULT_EXHAUSTIVE;
    tour.total = fault_tour_total(&tour, matter, damage, samples);
    tour.limit = limit;
    tour.chance = seed;
    if (exhaustive)
        fault_tour_sets(&tour, matter);
    else
        fault_tour_runs(&tour);
    fault_visit_damages(&tour, damage, seed);
    for (size_t i = 0; (!exhaustive || versions) && i < samples && tour.goes_on; i++) {
        static const unsigned chances[] = {1, 4, 7};
        uint64_t state = seed + i;
        if (!fault_is_chosen(&tour)) continue;
        for (size_t j = 0; j < tour.count; j++)
            tour.fates[j] = fault_random_fate(&tour.items[j], damage, chances[i % 3], disk->sector_size, &state);
        snprintf(what, sizeof what, "sample %zu of seed 0x%llx", i, (unsigned long long)seed);
        fault_visit(&tour, what);
    }
    free(tour.fates);
    free(tour.items);
    return tour.states;
}

static inline size_t fault_crashes(const fault_files *disk, unsigned damage, size_t samples, uint64_t seed,
                                   fault_check_fn check, void *user) {
    return fault_crashes_some(disk, damage, samples, 0, seed, check, user);
}

#endif
