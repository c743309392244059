/* Rows of a base that are used where they lie, in a map.
 *
 * 1. Nothing that is lent is believed before its blocks have matched their checksums, and its rows have been what a load
 *    would take: when it is touched first, a unit at a time, by whoever looks, without a lock or memory. Two threads may
 *    find the same unit sound at once.
 * 2. A damaged unit stays untouched: whoever needs it says CORRUPT, each time, and the logger hears where it is. Nothing
 *    is ever answered from the rest of the rows as if they were all.
 * 3. That ids differ, and payloads follow one another, a map cannot know without a look at all rows: iqdb_verify can.
 * 4. Without a table of ids that is stored, one is made in memory. An index is loaded when there is time for it, for all
 *    rows have to be sound then; until that rows are scanned. */
#include "base/bytes.h"
#include "codec/payload.h"
#include "db/db.h"
#include "persist/sections.h"

static const char iq_lend_damage[] = "a block does not match its checksum";

/* NULL, or what is wrong with the payload of a row, and where. */
static const char *iq_lend_payload_complaint(const iqdb *db, uint32_t row, uint64_t *bad) {
    const iq_lent *lent = &db->records.rows.lent;
    const iq_snapshot_reader *reader = db->home->lender;
    const uint64_t ref = iq_lent_u64(lent->payloads, row);
    if (ref == 0) return NULL;
    if (ref >= IQ_HEAP_FIRST_REF && ref < lent->heap_size && lent->heap_size - ref >= 8) {
        const uint8_t *block = lent->heap + (size_t)ref;
        if (iq_snapshot_touch(reader, block, 4, bad) != IQDB_OK) return iq_lend_damage;
        const uint32_t size = iq_get_u32(block);
        if (size <= lent->heap_size - ref - 4) {
            if (iq_snapshot_touch(reader, block + 4, size, bad) != IQDB_OK) return iq_lend_damage;
            if (iq_payload_validate(block + 4, size) == IQDB_OK) return NULL;
        }
    }
    *bad = iq_snapshot_offset_of(reader, lent->payloads + (size_t)row * 8);
    return "a payload is malformed or out of place";
}

static const char *iq_lend_rows_complaint(const iqdb *db, uint32_t first, uint32_t count, uint64_t *bad) {
    const iq_rows *rows = &db->records.rows;
    const iq_lent *lent = &rows->lent;
    const iq_snapshot_reader *reader = db->home->lender;
    const size_t size = rows->stride * sizeof(float), at = (size_t)first * 8;
    const uint8_t *vectors = (const uint8_t *)(const void *)lent->vectors + first * size;
    const char *why = NULL;
    if (iq_snapshot_touch(reader, lent->ids + at, (uint64_t)count * 8, bad) != IQDB_OK ||
        iq_snapshot_touch(reader, lent->payloads + at, (uint64_t)count * 8, bad) != IQDB_OK ||
        iq_snapshot_touch(reader, lent->norms + first, (uint64_t)count * 4, bad) != IQDB_OK ||
        iq_snapshot_touch(reader, vectors, (uint64_t)count * size, bad) != IQDB_OK)
        return iq_lend_damage;
    for (uint32_t i = 0; i < count && why == NULL; i++) {
        why = iq_lend_payload_complaint(db, first + i, bad);
        if (why != NULL || iq_image_is_vector(db, vectors + i * size, lent->norms[first + i])) continue;
        *bad = iq_snapshot_offset_of(reader, vectors + i * size);
        why = "a vector is not one";
    }
    return why;
}

/* Those who ask read beside each other, so what goes to the caller's struct is told by those under the lock. */
IQ_FN bool iq_lend_touch(void *user, uint32_t part, uint32_t unit) {
    iqdb *db = (iqdb *)user;
    iq_home *home = db->home;
    const iq_rows *rows = &db->records.rows;
    const iq_lent *lent = &rows->lent;
    const char *why = NULL;
    uint64_t bad = 0;
    const uint64_t step = iq_lent_unit(part), first = unit * step;
    const uint64_t all = part == IQ_LENT_PLACES ? lent->place_count : lent->count;
    const uint64_t count = all - first < step ? all - first : step;
    if (part == IQ_LENT_ROWS) {
        why = iq_lend_rows_complaint(db, (uint32_t)first, (uint32_t)count, &bad);
    } else {
        const size_t size =
            part == IQ_LENT_PLACES ? 8 : iq_quant_block_bytes(iq_slab_quant(rows, rows->slabs)) / IQ_CODES_ROWS;
        const uint8_t *bytes = part == IQ_LENT_PLACES ? lent->places : lent->codes;
        const uint64_t held = part == IQ_LENT_PLACES ? count : iq_round_up((size_t)count, IQ_CODES_ROWS);
        if (iq_snapshot_touch(home->lender, bytes + (size_t)first * size, held * size, &bad) != IQDB_OK)
            why = iq_lend_damage;
    }
    if (why == NULL) {
        iq_lent_set_sound(lent, part, unit);
        return true;
    }
    if (IQ_ATOMIC_LOAD(&home->damaged) != bad + 1) {
        const iqdb_error error = iq_snapshot_damage(home->lender, bad, why);
        const iq_reporter hearer = {NULL, home->reporter.logger, NULL};
        IQ_ATOMIC_STORE(&home->damaged, bad + 1);
        (void)iq_report_error(&hearer, &error);
    }
    return false;
}

IQ_FN iqdb_result iq_lend_check(iqdb *db, iq_limit *limit) {
    const iq_lent *lent = &db->records.rows.lent;
    const uint32_t unit = IQ_LENT_CODES_UNIT;
    while (db->lent_checked < lent->count) {
        const uint64_t first = db->lent_checked;
        if (!iq_lent_touch_all(lent, IQ_LENT_CODES, first, unit) || !iq_lent_touch_all(lent, IQ_LENT_ROWS, first, unit))
            return IQDB_ERR_CORRUPT;
        db->lent_checked += (uint32_t)(lent->count - first < unit ? lent->count - first : unit);
        if (iq_limit_reached(limit)) return IQDB_ERR_BUSY;
    }
    return IQDB_OK;
}

/* The table of ids, from these. */
static iqdb_result iq_lend_ids(iqdb *db) {
    iq_records *records = &db->records;
    const iq_lent *lent = &records->rows.lent;
    uint64_t bad;
    if (iq_snapshot_touch(db->home->lender, lent->ids, (uint64_t)lent->count * 8, &bad) != IQDB_OK) {
        const iqdb_error error = iq_snapshot_damage(db->home->lender, bad, iq_lend_damage);
        return iq_report_error(&db->home->reporter, &error);
    }
    iqdb_result result = iq_ids_reserve(&records->ids, lent->count);
    for (uint32_t row = 0; row < lent->count && result == IQDB_OK; row++) {
        iq_spot twin;
        const uint64_t id = iq_lent_u64(lent->ids, row);
        uint64_t *place = iq_ids_place(&records->ids, &records->rows, id, &twin);
        if (twin.row != IQ_ROW_NONE) return IQDB_ERR_CORRUPT;
        iq_ids_put(&records->ids, place, id, row);
    }
    return result;
}

IQ_FN iqdb_result iq_lend_map(iqdb *db) {
    uint64_t size;
    db->lent_checked = 0;
    db->records.live_count = db->records.rows.lent.count;
    db->index_waits = iq_snapshot_find(db->home->lender, db->number, IQ_SECTION_INDEX, &size);
    return db->records.rows.lent.place_count == 0 ? iq_lend_ids(db) : IQDB_OK;
}

IQ_FN iqdb_result iq_lend_tell(const iq_home *home) {
    const uint64_t damaged = IQ_ATOMIC_LOAD(&home->damaged);
    const iqdb_error error =
        iq_snapshot_damage(home->lender, damaged - (damaged > 0), "a part of the snapshot is damaged");
    return iq_report_error(&home->reporter, &error);
}

IQ_FN void iq_lend_end(iq_home *home) {
    iq_snapshot_close(home->lender);
    home->lender = NULL;
    home->damaged = 0;
}
