/* Records: staging, birth, burial, reclaiming.
 *
 * 1. Everything that can fail happens before a log is written: after reserve and stage, a batch only writes to memory
 *    that is there.
 * 2. Rows of one id form a chain from the newest to the oldest that somebody may see; the id table names the newest. A
 *    reader that meets a row born after its moment goes on to the one before, so beside a write it finds the old record
 *    or the new one, never none.
 * 3. A row is written whole before it is marked as filled and linked; all come before the moment of its birth is
 *    published, and by nothing else. While a sealed moment waits for that, later writes are already made for the one
 *    behind it.
 * 4. A buried row goes in two steps, oldest death first, so that it is always the last of its chain: when no pin is older
 *    than its death nobody sees it, and it is unlinked; when no pin is as old as that nobody can be looking at it, and it
 *    is given back. Codes are tended beside that. */
#include "store/records.h"

#include "kernel/distance.h"

IQ_FN void iq_common_init(iq_common *common) {
    if (!IQ_ONLY_BLOBS) memset(common, 0, sizeof *common);
    iq_epoch_init(&common->epoch);
    if (IQ_ONLY_BLOBS) return;
    common->retired_max = UINT64_MAX;
    common->charge_max = INT64_MAX;
}

IQ_FN void iq_common_free(iq_common *common, const iqdb_allocator *allocator) {
    iq_epoch_free(&common->epoch, allocator);
}

static void iq_records_clear(iq_records *records) {
    const iqdb_allocator *allocator = records->allocator;
    memset((uint8_t *)records + offsetof(iq_records, rows), 0, sizeof *records - offsetof(iq_records, rows));
    records->deleted.allocator = allocator;
    iq_rows_init(&records->rows, allocator);
    records->rows.kernel = records->kernel;
    iq_heap_init(&records->heap, allocator);
    iq_keys_init(&records->keys, allocator);
}

IQ_FN void iq_records_init(iq_records *records, iq_common *common, const iqdb_allocator *allocator,
                           const iq_kernel *kernel) {
    if (!IQ_ONLY_BLOBS) memset(records, 0, sizeof *records); /* else they are a part of zeroed memory, once */
    records->common = common;
    records->allocator = allocator;
    records->kernel = kernel;
    if (IQ_ONLY_BLOBS) {
        records->ids.allocator = records->rows.allocator = allocator;
        records->rows.kernel = kernel;
        return;
    }
    iq_ids_init(&records->ids, allocator);
    iq_records_clear(records);
}

/* What writes have left. */
static void iq_records_forget(iq_records *records) {
    iq_common *common = records->common;
    iq_records **link = &common->stale;
    if (IQ_ONLY_BLOBS) return;
    while (*link != NULL && *link != records) link = &(*link)->next_stale;
    if (*link != NULL) *link = records->next_stale;
    common->charge -= records->charge;
    common->retired_bytes -= records->retired.bytes;
    iq_free(records->allocator, records->retired.rows, records->retired.capacity * sizeof(uint32_t), 16);
    iq_blob_free(&records->deleted);
    if (!IQ_SMALL) iq_keys_free(&records->keys);
}

IQ_FN void iq_records_free(iq_records *records) {
    iq_records_forget(records);
    iq_heap_free(&records->heap);
    iq_ids_free(&records->ids);
    iq_rows_free(&records->rows);
    if (IQ_ONLY_BLOBS) return; /* the handle goes, too */
    iq_records_clear(records);
    /* No publication tells the other cell any more, and who still has a handle may ask. */
    for (size_t i = 0; i < 2; i++) IQ_ATOMIC_STORE(&records->tally.counts[i], (uint64_t)0);
}

static void iq_records_charge(iq_records *records, int64_t charge) {
    records->charge += charge;
    records->common->charge += charge;
}

static uint32_t *iq_retired_at(const iq_retired *retired, size_t i) {
    return &retired->rows[(retired->first + i) & (retired->capacity - 1)];
}

/* Fixed memory that is short while snapshots keep some of it is not full. */
static iqdb_result iq_records_short(const iq_records *records, iqdb_result result) {
    if (result != IQDB_ERR_NOMEM || records->heap.arena == NULL) return result;
    return records->retired.count > 0 || iq_table_is_replacement(records->ids.slots) ? IQDB_ERR_BUSY : result;
}

/* No more ids than rows: where these are limited the table is always made for all of them, in memory of that size. */
IQ_INLINE iqdb_result iq_records_expect_ids(iq_records *records, size_t count) {
    if (records->heap.arena != NULL) count = records->rows.row_max - records->ids.live;
    return iq_records_short(records, iq_ids_reserve(&records->ids, count));
}

IQ_HOT iqdb_result iq_records_reserve(iq_records *records, size_t count) {
    iq_retired *retired = &records->retired;
    iq_common *common = records->common;
    iq_epoch_make_room(&common->epoch, records->allocator);
    if (common->retired_bytes > common->retired_max || (retired->count > 0 && records->heap.arena != NULL)) {
        (void)iq_records_maintain(records, NULL);
        if (common->retired_bytes > common->retired_max) return IQDB_ERR_BUSY;
    }
    if (retired->capacity - retired->count < count) {
        size_t capacity = IQ_RETIRED_ROWS_MIN;
        if (count > (size_t)-1 / 16 - retired->count) return IQDB_ERR_NOMEM;
        while (capacity < retired->count + count) capacity *= 2;
        uint32_t *rows = (uint32_t *)iq_alloc(records->allocator, capacity * sizeof(uint32_t), 16);
        if (rows == NULL) return IQDB_ERR_NOMEM;
        for (size_t i = 0; i < retired->count; i++) rows[i] = *iq_retired_at(retired, i);
        iq_free(records->allocator, retired->rows, retired->capacity * sizeof(uint32_t), 16);
        retired->rows = rows;
        retired->capacity = capacity;
        retired->first = 0;
    }
    if (records->keeps_deleted && iq_blob_reserve(&records->deleted, count * sizeof(iq_deleted)) != IQDB_OK)
        return IQDB_ERR_NOMEM;
    return iq_records_expect_ids(records, count);
}

/* With its code. */
static uint64_t iq_records_bytes_of(const iq_records *records, uint64_t payload_bytes) {
    return iq_record_bytes(records->rows.stride, payload_bytes) + iq_rows_code_bytes(&records->rows);
}

IQ_FN iqdb_result iq_records_expect(iq_records *records, size_t rows, size_t ids) {
    /* In fixed memory it is the number of rows that ends. */
    if (records->heap.arena == NULL && rows <= IQ_ROW_COUNT_MAX &&
        rows > (uint64_t)records->common->charge_max / iq_records_bytes_of(records, 0))
        return IQDB_ERR_NOMEM;
    const iqdb_result result = iq_rows_reserve(&records->rows, rows);
    return result == IQDB_OK ? iq_records_expect_ids(records, ids) : result;
}

/* What a row takes, its payload counted so many times. */
static uint64_t iq_records_row_bytes(const iq_records *records, iq_spot spot, unsigned times) {
    if (!IQ_SMALL && spot.row < records->rows.lent.count) return 0;
    const iq_row_head *head = iq_spot_head(spot);
    const uint64_t size = head->payload == 0 ? 0 : iq_heap_payload(&records->heap, head->payload).size;
    return iq_records_bytes_of(records, times * size);
}

/* Whether there is room for a record that counts so much, once it has taken the place of the present one of its id. */
IQ_SPREAD bool iq_records_have_room(const iq_records *records, uint64_t id, int64_t charge) {
    const int64_t charge_max = records->common->charge_max;
    charge += records->common->charge;
    if (charge <= charge_max) return true;
    const iq_spot spot = iq_records_find(records, id, IQ_MOMENT_LAST, false);
    if (spot.slab == NULL) return false;
    return charge - (int64_t)iq_records_row_bytes(records, spot, 2) <= charge_max;
}

IQ_FN iqdb_result iq_records_count_in(iq_records *records, uint64_t id, uint64_t payload_size) {
    const int64_t charge = (int64_t)iq_records_bytes_of(records, 2 * payload_size);
    const bool has_room = iq_records_have_room(records, id, charge);
    iq_records_charge(records, charge);
    return has_room ? IQDB_OK : IQDB_ERR_NOMEM;
}

IQ_HOT iqdb_result iq_records_stage(iq_records *records, uint64_t id, const void *vector, iqdb_payload payload,
                                    uint32_t *out_row) {
    const int64_t charge = (int64_t)iq_records_bytes_of(records, 2 * (uint64_t)payload.size);
    iqdb_result result = IQDB_OK;
    uint64_t ref = 0;
    uint8_t *bytes = NULL;
    float norm = 0.0f;
    const iqdb_element element = records->rows.element;
    const uint32_t dim = records->rows.dim;
    if (element == IQDB_ELEMENT_F32 ? !iq_vector_measure(records->kernel, (const float *)vector, dim, &norm)
                                    : !iq_element_is_vector(element, vector, dim, IQ_BIG_ENDIAN))
        return IQDB_ERR_INVALID_VECTOR;
    result = iq_records_claim(records, id);
    if (result != IQDB_OK) return result;
    if (!iq_records_have_room(records, id, charge)) return IQDB_ERR_NOMEM;
    if (payload.bytes != NULL) result = iq_heap_take(&records->heap, payload.size, &ref, &bytes);
    if (ref != 0) memcpy(bytes, payload.bytes, payload.size);
    if (result == IQDB_OK) result = iq_rows_take(&records->rows, out_row);
    if (iq_records_have_keys(records) && result == IQDB_OK) {
        result = iq_keys_add(&records->keys, *out_row, payload);
        if (result != IQDB_OK) iq_rows_give_back(&records->rows, *out_row);
    }
    if (result != IQDB_OK) {
        iq_heap_give_back(&records->heap, ref);
        return iq_records_short(records, result);
    }
    iq_records_charge(records, charge);
    const iq_spot spot = iq_rows_spot(&records->rows, *out_row);
    float *row = spot.slab->vectors + spot.index * records->rows.stride;
    memcpy(row, vector, iq_element_bytes(element, dim));
    if (element != IQDB_ELEMENT_F32) norm = iq_row_norm_of(records->rows.sums, element, row, records->rows.stride);
    spot.slab->norms[spot.index] = norm;
    iq_spot_head(spot)->id = id;
    iq_spot_head(spot)->payload = ref;
    return IQDB_OK;
}

IQ_FN iqdb_result iq_records_claim(iq_records *records, uint64_t id) {
    if (IQ_SMALL || records->rows.lent.count == 0) return IQDB_OK;
    const iq_spot spot = iq_ids_find(&records->ids, &records->rows, id, false);
    if (spot.slab == NULL) return spot.row == IQ_ROW_LOST ? IQDB_ERR_CORRUPT : IQDB_OK;
    return spot.row < records->rows.lent.count ? iq_rows_own(&records->rows, spot.row) : IQDB_OK;
}

IQ_FN void iq_records_unstage(iq_records *records, uint32_t row) {
    const iq_spot spot = iq_rows_spot(&records->rows, row);
    iq_records_charge(records, -(int64_t)iq_records_row_bytes(records, spot, 2));
    iq_heap_give_back(&records->heap, iq_spot_head(spot)->payload);
    iq_rows_give_back(&records->rows, row);
}

/* The tally is told at the next publication, and at the one behind it, which would find that of the moment before. */
static void iq_records_mark(iq_records *records) {
    iq_common *common = records->common;
    if (records->stale == 0) {
        records->next_stale = common->stale;
        common->stale = records;
    }
    records->stale = 2;
}

IQ_HOT uint64_t iq_records_change(iq_records *records) {
    iq_common *common = records->common;
    iq_records_mark(records);
    return records->changed = common->changed = common->epoch.moment + (common->sealed ? 2 : 1);
}

/* Ends the life of a row with the next moment. */
IQ_SPREAD void iq_records_bury(iq_records *records, iq_spot spot) {
    iq_retired *retired = &records->retired;
    iq_row_head *head = iq_spot_head(spot);
    IQ_ATOMIC_STORE(&head->death, iq_records_change(records));
    iq_kernel_prefetch(iq_spot_links(spot), 0); /* for when it is unlinked */
    IQ_ASSERT(retired->count < retired->capacity);
    *iq_retired_at(retired, retired->count) = spot.row;
    retired->count++;
    const uint64_t bytes = iq_records_row_bytes(records, spot, 1);
    retired->bytes += bytes;
    records->common->retired_bytes += bytes;
    iq_records_charge(records, -(int64_t)iq_records_row_bytes(records, spot, 2));
    records->live_count--;
}

IQ_HOT void iq_records_upsert(iq_records *records, uint32_t row) {
    iq_spot old;
    const iq_spot spot = iq_rows_spot(&records->rows, row);
    iq_row_head *head = iq_spot_head(spot);
    uint64_t *place = iq_ids_place(&records->ids, &records->rows, head->id, &old);
    if (old.slab != NULL) iq_spot_links(spot)->previous = old.row;
    records->written_dim = records->rows.dim;
    head->birth = iq_records_change(records);
    iq_rows_fill(&records->rows, spot.slab, spot.index);
    iq_ids_put(&records->ids, place, head->id, row);
    records->live_count++;
    if (old.slab == NULL) return;
    iq_spot_links(old)->next = row;
    if (iq_spot_head(old)->death == IQ_MOMENT_NEVER) iq_records_bury(records, old);
}

IQ_HOT bool iq_records_delete(iq_records *records, uint64_t id) {
    const iq_spot spot = iq_ids_find(&records->ids, &records->rows, id, false);
    if (spot.slab == NULL || iq_spot_head(spot)->death != IQ_MOMENT_NEVER) return false;
    iq_records_bury(records, spot);
    const iq_deleted deleted = {id, records->changed};
    if (records->keeps_deleted) (void)iq_blob_append(&records->deleted, &deleted, sizeof deleted); /* there is room */
    return true;
}

/* Takes the last row of its chain out of it, and the id out of the table where the chain ends with it. */
IQ_SPREAD void iq_records_unlink(iq_records *records, iq_spot spot) {
    const uint32_t next = iq_spot_links(spot)->next;
    if (records->watch.remove_fn != NULL) records->watch.remove_fn(records->watch.user, spot.row);
    iq_rows_clear(&records->rows, spot.slab, spot.index, records->common->epoch.moment);
    /* A table that is lent stays as it is, and leads to a row that has died. */
    const bool stays = !IQ_SMALL && spot.row < records->rows.lent.count && records->rows.lent.place_count != 0;
    if (next != IQ_ROW_NONE) {
        IQ_ATOMIC_STORE(&iq_spot_links(iq_rows_spot(&records->rows, next))->previous, IQ_ROW_NONE);
    } else if (!stays) {
        iq_ids_remove(&records->ids, iq_spot_head(spot)->id, spot.row);
    }
}

IQ_SPREAD void iq_records_give_back(iq_records *records, uint32_t row) {
    const iq_spot spot = iq_rows_spot(&records->rows, row);
    const uint64_t bytes = iq_records_row_bytes(records, spot, 1);
    records->retired.bytes -= bytes;
    records->common->retired_bytes -= bytes;
    if (!IQ_SMALL && row < records->rows.lent.count) return;
    iq_heap_give_back(&records->heap, iq_spot_head(spot)->payload);
    iq_rows_give_back(&records->rows, row);
}

#define IQ_RECLAIM_ROWS 64u /* a unit of work */
#define IQ_TEND_BLOCKS 64u  /* of codes, tended beside it */

/* Unlinks what nobody sees at `oldest` or later; false where the limit came first. What has not been published yet is
 * still seen. */
static bool iq_records_unlink_dead(iq_records *records, uint64_t oldest, iq_limit *limit) {
    iq_retired *retired = &records->retired;
    bool whole = true;
    while (whole && retired->unlinked < retired->count) {
        const iq_spot spot = iq_rows_spot(&records->rows, *iq_retired_at(retired, retired->unlinked));
        const uint64_t death = iq_spot_head(spot)->death;
        if (death > oldest || death > records->common->epoch.moment) break;
        iq_records_unlink(records, spot);
        whole = ++retired->unlinked % IQ_RECLAIM_ROWS != 0 || !iq_limit_reached(limit);
    }
    retired->unlinked_at = records->common->epoch.moment;
    return whole;
}

static bool iq_records_has_old_tables(const iq_records *records) {
    return iq_table_is_replacement(records->ids.slots) || iq_table_is_replacement(records->rows.slabs) ||
           iq_table_is_replacement(records->heap.pages) || (!IQ_SMALL && iq_keys_have_old_tables(&records->keys)) ||
           records->watch.waits;
}

/* Whether nothing that may go is left. */
static bool iq_records_sweep(iq_records *records, iq_limit *limit) {
    iq_retired *retired = &records->retired;
    const uint64_t now = records->common->epoch.moment;
    for (;;) {
        const uint64_t oldest = iq_epoch_oldest(&records->common->epoch);
        const size_t busy = retired->unlinked + records->rows.missed;
        iq_rows_tend(&records->rows, oldest, now, IQ_TEND_BLOCKS + 2 * busy, busy > IQ_TEND_BLOCKS);
        iq_table_trim(records->ids.allocator, records->ids.slots, oldest, now);
        iq_table_trim(records->allocator, records->rows.slabs, oldest, now);
        iq_table_trim(records->allocator, records->heap.pages, oldest, now);
        if (!IQ_SMALL) iq_keys_trim(&records->keys, oldest, now);
        if (records->watch.remove_fn != NULL)
            records->watch.waits = records->watch.collect_fn(records->watch.user, oldest);
        if (retired->unlinked > 0 && oldest <= retired->unlinked_at) return true;
        while (retired->unlinked > 0) {
            iq_records_give_back(records, retired->rows[retired->first]);
            retired->first = (retired->first + 1) & (retired->capacity - 1);
            retired->count--;
            if (--retired->unlinked % IQ_RECLAIM_ROWS == 0 && iq_limit_reached(limit)) return false;
        }
        if (!iq_records_unlink_dead(records, oldest, limit)) return false;
        if (retired->unlinked == 0) return true;
    }
}

IQ_FN bool iq_records_reclaim(iq_records *records, iq_limit *limit) {
    if (IQ_ONLY_BLOBS) return true;
    if (!IQ_HAS_FILES && !IQ_HAS_WRITES) return true;
    const bool swept = iq_records_sweep(records, limit);
    records->retired.kept = records->retired.count;
    records->retired.kept_bytes = records->retired.bytes;
    return swept;
}

/* The tallies of the next moment. */
static void iq_common_tell(iq_common *common) {
    iq_records **link = &common->stale, *records;
    while ((records = *link) != NULL) {
        iq_epoch_tell(&common->epoch, &records->tally, records->live_count);
        if (--records->stale == 0) {
            *link = records->next_stale;
        } else {
            link = &records->next_stale;
        }
    }
}

IQ_FN void iq_common_seal(iq_common *common) {
    IQ_ASSERT(!common->sealed);
    iq_common_tell(common);
    common->sealed = true;
}

IQ_HOT void iq_common_publish(iq_common *common, uint64_t lsn) {
    common->lsn = lsn;
    if (!common->sealed) iq_common_tell(common);
    for (iq_records *records = common->stale; records != NULL; records = records->next_stale)
        if (records->dim != records->written_dim) IQ_ATOMIC_STORE(&records->dim, records->written_dim);
    iq_epoch_publish(&common->epoch);
    common->sealed = false;
}

/* Whether the limit was not reached. */
static bool iq_records_tend_all(iq_records *records, iq_limit *limit) {
    iq_rows *rows = &records->rows;
    /* What is opened is encoded behind another look at the pins, unless one of these holds it up. */
    for (int tries = 0; (rows->untended > 0 || iq_rows_are_plain(rows)) && tries < 2;) {
        const uint32_t before = rows->tended, narrow = rows->narrow_slabs;
        iq_rows_tend(rows, iq_epoch_oldest(&records->common->epoch), records->common->epoch.moment, IQ_TEND_BLOCKS,
                     true);
        tries = rows->tended != before || rows->narrow_slabs > narrow ? 0 : tries + 1;
        if (iq_limit_reached(limit)) return rows->untended == 0 && !iq_rows_are_plain(rows);
    }
    return true;
}

IQ_FN bool iq_records_maintain(iq_records *records, iq_limit *limit) {
    if (IQ_ONLY_BLOBS) return true;
    if (records->retired.count == 0 && !iq_records_has_old_tables(records) && records->rows.untended == 0 &&
        !iq_rows_are_plain(&records->rows))
        return true;
    /* A new moment, though nothing has changed: else short reads that follow one another could all be on one. */
    iq_common *common = records->common;
    if (common->changed <= common->epoch.moment && !common->sealed) iq_common_publish(common, common->lsn);
    return iq_records_reclaim(records, limit) && iq_records_tend_all(records, limit);
}

IQ_FN void iq_records_publish(iq_records *records, uint64_t lsn) {
    if (IQ_ONLY_BLOBS) { /* when all is loaded, and once for ever */
        records->dim = records->rows.dim;
        records->common->lsn = lsn;
        records->tally.counts[0] = records->tally.counts[1] = records->live_count;
        return;
    }
    iq_records_mark(records); /* what was loaded is no change */
    records->written_dim = records->rows.dim;
    iq_common_publish(records->common, lsn);
    iq_records_tidy(records);
}

IQ_HOT void iq_records_tidy(iq_records *records) {
    if (IQ_ONLY_BLOBS) return;
    /* A look at all pins costs as much as a write: not for a few rows, nor while records only come, nor each time while a
     * search keeps what it sees. */
    const iq_retired *retired = &records->retired;
    if (retired->count - retired->kept >= IQ_RETIRED_FEW ||
        retired->bytes - retired->kept_bytes >= IQ_RETIRED_FEW_BYTES || records->rows.missed >= IQ_RETIRED_FEW ||
        iq_records_has_old_tables(records))
        (void)iq_records_reclaim(records, NULL);
}

IQ_HOT iq_spot iq_records_find(const iq_records *records, uint64_t id, uint64_t moment, bool wants_vector) {
    iq_spot spot = iq_ids_find(&records->ids, &records->rows, id, wants_vector);
    while (spot.slab != NULL) {
        const iq_row_head *head = IQ_ONLY_BLOBS ? NULL : IQ_ATOMIC_LOAD(&spot.slab->heads);
        if (IQ_UNLIKELY(head == NULL)) break; /* a lent row that lives */
        head += spot.index;
        /* What is behind a row that was born in time was dead by then, and may be gone. */
        if (IQ_LIKELY(head->birth <= moment)) {
            if (moment >= IQ_ATOMIC_LOAD(&head->death)) spot.slab = NULL;
            break;
        }
        const uint32_t previous = IQ_ATOMIC_LOAD(&iq_spot_links(spot)->previous);
        spot.slab = NULL;
        if (previous == IQ_ROW_NONE) break;
        spot = iq_rows_spot(&records->rows, previous);
        if (iq_rows_touch(&records->rows, previous)) continue;
        spot.slab = NULL;
        spot.row = IQ_ROW_LOST;
    }
    return spot;
}

IQ_FN iqdb_result iq_records_index(iq_records *records, const iqdb_index_key *set, size_t count) {
    if (IQ_SMALL) return IQDB_OK;
    iqdb_result result = iq_keys_declare(&records->keys, set, count);
    uint32_t index;
    const iq_slab *slab;
    for (uint32_t row = 0; count > 0 && result == IQDB_OK; row++) {
        slab = iq_records_next(records, &row, records->rows.count, IQ_MOMENT_LAST, NULL, &index);
        if (!IQ_SMALL && slab == NULL && row < records->rows.count) return IQDB_ERR_CORRUPT;
        if (slab == NULL) break;
        result = iq_keys_add(&records->keys, row, iq_heap_payload(&records->heap, iq_row_payload(slab, index)));
    }
    return result;
}

#define IQ_CHOICE_FAR 24u /* chosen rows ahead of the one that is looked at */
#define IQ_CHOICE_NEAR 12u

IQ_FN uint32_t iq_records_choose(const iq_records *records, const iq_filter *filter, uint32_t end, uint32_t *bits) {
    if (IQ_SMALL) return end;
    const uint32_t listed = iq_keys_plan(&records->keys, filter, end);
    if (listed >= end / 2) return end;
    memset(bits, 0, iq_choice_bytes(end));
    iq_key_rows rows = {end, bits, NULL, 0, 0, false};
    iq_keys_list(&records->keys, filter, &rows);
    return listed;
}

/* Rows that a choice lists lie far from each other, their payloads likewise: asked for one by one each would be waited
 * for. So heads are asked for ahead of payloads, and these ahead of a look at them. Lent rows have no heads, and may not
 * be looked at before they are found sound. */
static void iq_records_look_ahead(const iq_records *records, iq_choice *choice, uint32_t row, uint32_t end) {
    const bool begins = choice->payloads_to <= row;
    if (begins) choice->payloads_to = choice->heads_to = row + 1;
    for (uint32_t i = 0; i < (begins ? IQ_CHOICE_FAR : 1); i++) {
        const uint32_t next = choice->heads_to = iq_bits_seek(choice->bits, choice->heads_to, end, true);
        if (next == end) break;
        const iq_spot spot = iq_rows_spot(&records->rows, next);
        if (spot.slab->ids == NULL) iq_kernel_prefetch(iq_spot_head(spot), 0);
        choice->heads_to++;
    }
    for (uint32_t i = 0; i < (begins ? IQ_CHOICE_NEAR : 1); i++) {
        const uint32_t next = choice->payloads_to = iq_bits_seek(choice->bits, choice->payloads_to, end, true);
        if (next == end) break;
        const iq_spot spot = iq_rows_spot(&records->rows, next);
        if (spot.slab->ids == NULL && iq_bits_at(spot.slab->filled, spot.index, spot.index + 1) != 0)
            iq_heap_prefetch(&records->heap, iq_spot_head(spot)->payload);
        choice->payloads_to++;
    }
}

IQ_FN const iq_slab *iq_records_next(const iq_records *records, uint32_t *row, uint32_t end, uint64_t moment,
                                     iq_choice *choice, uint32_t *out_index) {
    const iq_filter *filter = choice != NULL ? choice->filter : NULL;
    for (; *row < end; ++*row) {
        if (!IQ_SMALL && choice != NULL && choice->bits != NULL) {
            *row = iq_bits_seek(choice->bits, *row, end, true);
            if (*row == end) break;
            iq_records_look_ahead(records, choice, *row, end);
        }
        const iq_slab *slab = iq_rows_slab(&records->rows, *row, out_index);
        if (!IQ_ONLY_BLOBS && iq_slab_filled(slab, *out_index, *out_index + 1) == 0) continue;
        if (!iq_row_visible(slab, *out_index, moment)) continue;
        if (IQ_UNLIKELY(!iq_rows_touch(&records->rows, *row))) return NULL;
        if (filter == NULL ||
            iq_filter_accepts(filter, iq_heap_payload(&records->heap, iq_row_payload(slab, *out_index))))
            return slab;
    }
    return NULL;
}
