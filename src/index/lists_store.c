/* Lists in a section, and from there. A stored set is one that has no rows but those of the snapshot; extents lie there as
 * in memory. What is loaded has every row in the lists that its copies name, or it is refused: codes are what their
 * checksums say they are. */
#include "base/bytes.h"
#include "index/lists.h"

#define IQ_LISTS_PIECE 65536u /* bytes of centres that are stored at a time */

/* A row of a list that has a place. */
typedef struct iq_list_cursor {
    const iq_extent *extent;
    uint32_t next; /* row of it */
    uint32_t other, at;
} iq_list_cursor;

/* The place of the next row, where the cursor says; IQ_ROW_NONE behind the last one. */
static uint32_t iq_list_next(iq_list_cursor *cursor, const iq_places *places, const iq_extent **out_extent) {
    for (; cursor->extent != NULL; cursor->extent = cursor->extent->next, cursor->next = 0) {
        while (cursor->next < cursor->extent->count) {
            const uint32_t i = cursor->next++, place = iq_place_of(places, iq_extent_rows(cursor->extent)[i]);
            if (place == IQ_ROW_NONE) continue;
            *out_extent = cursor->extent;
            cursor->other = iq_extent_others(cursor->extent)[i];
            cursor->at = i;
            return place;
        }
    }
    return IQ_ROW_NONE;
}

static iq_list_cursor iq_list_begin(const iq_list_set *set, uint32_t list) {
    const iq_list_cursor cursor = {set->lists[list], 0, 0, 0};
    return cursor;
}

static uint32_t iq_list_stored(const iq_list_set *set, uint32_t list, const iq_places *places) {
    iq_list_cursor cursor = iq_list_begin(set, list);
    const iq_extent *extent;
    uint32_t count = 0;
    while (iq_list_next(&cursor, places, &extent) != IQ_ROW_NONE) count++;
    return count;
}

/* Of the next part of a list that has so many rows left. */
static uint32_t iq_list_part(uint32_t left) {
    const uint32_t part = left % IQ_LISTS_EXTENT_ROWS;
    return part != 0 || left == 0 ? part : (uint32_t)IQ_LISTS_EXTENT_ROWS;
}

static uint64_t iq_lists_stored_bytes(const iq_index *base, uint32_t count) {
    uint64_t size = 0;
    for (uint32_t part; count > 0; count -= part) {
        part = iq_list_part(count);
        size += iq_extent_bytes(base, part) - sizeof(iq_extent);
    }
    return size;
}

static uint64_t iq_lists_sizes_at(const iq_centres *centres) {
    return IQ_LISTS_HEAD + iq_centres_bytes(centres->count, centres->dim, centres->quant.dim != 0);
}
static uint64_t iq_lists_extents_at(const iq_centres *centres) {
    return iq_lists_sizes_at(centres) + iq_round_up(centres->count, IQ_CODES_ROWS) * sizeof(uint32_t);
}

IQ_FN bool iq_lists_measure(iq_index *base, iq_index_save *save) {
    const iq_list_set *set = ((const iq_lists *)(const void *)base)->set;
    if (set == NULL) return true;
    if (save->at == 0) save->size = iq_lists_extents_at(&set->centres);
    for (uint32_t rows = 0; rows < IQ_LISTS_UNIT_ROWS && save->at < set->centres.count; save->at++) {
        const uint32_t count = iq_list_stored(set, save->at, save->places);
        save->size += iq_lists_stored_bytes(base, count);
        rows += count + 16;
    }
    return save->at == set->centres.count;
}

static void iq_lists_save_head(const iq_lists *lists, const iq_index_save *save) {
    const iq_list_set *set = lists->set;
    uint8_t head[IQ_LISTS_HEAD] = {0};
    iq_put_u32(head, IQ_INDEX_TAG_LISTS);
    iq_put_u32(head + IQ_LISTS_COUNT_AT, set->centres.count);
    iq_put_u32(head + IQ_LISTS_DIM_AT, set->centres.dim);
    iq_put_u32(head + IQ_LISTS_CODED_AT, set->centres.quant.dim != 0);
    iq_put_u32(head + IQ_LISTS_WANTED_AT, set->wanted);
    iq_put_u32(head + IQ_LISTS_TRAINED_AT, set->trained);
    iq_put_u32(head + IQ_LISTS_LENGTH_AT, iq_f32_bits(set->length));
    iq_put_u32(head + IQ_LISTS_SPILL_AT, iq_f32_bits(set->spill));
    for (uint32_t i = 0; i < IQ_RECALLS; i++) iq_put_u32(head + IQ_LISTS_PROBES_AT + i * 4, lists->base.efforts[i]);
    iq_put_u32(head + IQ_LISTS_WISH_AT, iq_f32_bits(lists->base.wish));
    iq_put_u32(head + IQ_LISTS_STRETCH_AT, iq_f32_bits(lists->base.stretch));
    iq_put_u32(head + IQ_LISTS_CAME_AT, lists->came);
    (void)iq_snapshot_write(save->writer, head, sizeof head);
}

/* So many words, which are as many or more in memory; zeros up to a multiple of 16. */
static void iq_lists_save_words(const iq_index_save *save, uint32_t *words, uint32_t count) {
    const uint32_t padded = (uint32_t)iq_round_up(count, IQ_CODES_ROWS);
    memset(words + count, 0, (padded - count) * sizeof(uint32_t));
    if (IQ_BIG_ENDIAN) iq_copy_words_le(words, words, padded);
    (void)iq_snapshot_write(save->writer, words, padded * sizeof(uint32_t));
}

/* The next `count` rows. */
static void iq_lists_save_part(const iq_index *base, const iq_index_save *save, iq_list_cursor *cursor,
                               uint32_t count) {
    const iq_quant *quant = &base->rows->quant;
    uint32_t words[IQ_LISTS_EXTENT_ROWS];
    const iq_list_cursor begin = *cursor;
    const iq_extent *extent = NULL;
    for (uint32_t i = 0; i < count; i++) words[i] = iq_list_next(cursor, save->places, &extent);
    iq_lists_save_words(save, words, count);
    *cursor = begin;
    for (uint32_t i = 0; i < count; i++) {
        (void)iq_list_next(cursor, save->places, &extent);
        words[i] = cursor->other;
    }
    iq_lists_save_words(save, words, count);
    if (quant->dim != 0) *cursor = begin;
    for (uint32_t i = 0; quant->dim != 0 && i < count; i += IQ_CODES_ROWS) {
        uint8_t *block = iq_rows_spare_block(base->rows);
        memset(block, 0, iq_quant_block_bytes(quant));
        for (uint32_t j = 0; j < IQ_CODES_ROWS && i + j < count; j++) {
            (void)iq_list_next(cursor, save->places, &extent);
            iq_quant_copy(quant, iq_extent_blocks(extent), cursor->at, block, j);
        }
        (void)iq_snapshot_write(save->writer, block, iq_quant_block_bytes(quant));
    }
}

/* A piece of the centres, in the bytes of the file. */
static void iq_lists_save_centres(const iq_centres *centres, const iq_index_save *save, size_t at, size_t size) {
    uint32_t words[IQ_LISTS_EXTENT_ROWS];
    const uint8_t *bytes = (const uint8_t *)(const void *)centres->vectors + at;
    if (!IQ_BIG_ENDIAN) {
        (void)iq_snapshot_write(save->writer, bytes, size);
        return;
    }
    for (size_t part; size > 0; size -= part, bytes += part) {
        part = size < sizeof words ? size : sizeof words; /* codes are bytes on every machine */
        const bool is_code = bytes >= centres->blocks;
        if (!is_code && part > (size_t)(centres->blocks - bytes)) part = (size_t)(centres->blocks - bytes);
        memcpy(words, bytes, part);
        if (!is_code) iq_copy_words_le(words, words, part / 4);
        (void)iq_snapshot_write(save->writer, words, part);
    }
}

/* Sizes of sixteen lists. Returns how many rows that was. */
static uint32_t iq_lists_save_sizes(const iq_list_set *set, iq_index_save *save) {
    uint32_t words[IQ_CODES_ROWS], count = 0, rows = 0;
    for (; count < IQ_CODES_ROWS && save->at < set->centres.count; save->at++) {
        words[count] = iq_list_stored(set, save->at, save->places);
        rows += words[count++];
    }
    iq_lists_save_words(save, words, count);
    return rows;
}

static uint32_t iq_lists_save_list(const iq_index *base, const iq_list_set *set, iq_index_save *save) {
    const uint32_t rows = iq_list_stored(set, save->at, save->places);
    iq_list_cursor cursor = iq_list_begin(set, save->at++);
    for (uint32_t left = rows, part; left > 0; left -= part) {
        part = iq_list_part(left);
        iq_lists_save_part(base, save, &cursor, part);
    }
    return rows;
}

/* Head and centres, sizes, extents. Errors of the writer are sticky. */
IQ_FN iqdb_result iq_lists_save(iq_index *base, iq_index_save *save, bool *out_done) {
    const iq_lists *lists = (const iq_lists *)(const void *)base;
    const iq_list_set *set = lists->set;
    const uint64_t size = iq_lists_sizes_at(&set->centres) - IQ_LISTS_HEAD, at = (uint64_t)save->at * IQ_LISTS_PIECE;
    bool ends = false;
    if (save->phase == 0) {
        ends = size - at <= IQ_LISTS_PIECE;
        if (at == 0) iq_lists_save_head(lists, save);
        iq_lists_save_centres(&set->centres, save, (size_t)at, ends ? (size_t)(size - at) : (size_t)IQ_LISTS_PIECE);
        save->at++;
    } else {
        for (uint32_t rows = 0; rows < IQ_LISTS_UNIT_ROWS && !ends; rows += IQ_CODES_ROWS) {
            rows += save->phase == 1 ? iq_lists_save_sizes(set, save) : iq_lists_save_list(base, set, save);
            ends = save->at == set->centres.count;
        }
    }
    *out_done = ends && save->phase == 2;
    if (ends) save->phase++;
    if (ends) save->at = 0;
    return iq_snapshot_write(save->writer, NULL, 0);
}

/* What the head says; NOT_FOUND where the set is another than would be made. */
static iqdb_result iq_lists_load_head(iq_lists *lists, const iq_index_load *load, iq_list_set **out_set) {
    uint8_t head[IQ_LISTS_HEAD];
    const iq_rows *rows = lists->base.rows;
    const iqdb_result result = iq_index_read(load, 0, head, sizeof head);
    if (result != IQDB_OK) return result;
    const uint32_t count = iq_get_u32(head + IQ_LISTS_COUNT_AT), coded = iq_get_u32(head + IQ_LISTS_CODED_AT);
    const float length = iq_f32_from_bits(iq_get_u32(head + IQ_LISTS_LENGTH_AT));
    const float wish = iq_f32_from_bits(iq_get_u32(head + IQ_LISTS_WISH_AT));
    const float stretch = iq_f32_from_bits(iq_get_u32(head + IQ_LISTS_STRETCH_AT));
    if (coded != (rows->quant.dim != 0)) return IQDB_ERR_NOT_FOUND;
    if (iq_get_u32(head + IQ_LISTS_DIM_AT) != rows->dim || count == 0 || count > IQ_LISTS_MAX ||
        load->row_count >= IQ_LISTS_SECOND || !(length > 0.0f && length < IQ_LISTS_BEYOND) ||
        !iq_index_wishes_well(wish, stretch) || load->size / (iq_row_stride(rows->dim) * sizeof(float)) < count)
        return iq_index_reject(load, 0, "the lists make no sense");
    iq_list_set *set = *out_set = iq_list_set_make(lists, count, load->row_count);
    if (set == NULL) return IQDB_ERR_NOMEM;
    lists->base.knobs.nlist = set->wanted = iq_get_u32(head + IQ_LISTS_WANTED_AT);
    set->trained = iq_get_u32(head + IQ_LISTS_TRAINED_AT);
    set->length = length;
    set->spill = iq_f32_from_bits(iq_get_u32(head + IQ_LISTS_SPILL_AT));
    lists->base.wish = wish;
    lists->base.stretch = stretch;
    lists->came = iq_get_u32(head + IQ_LISTS_CAME_AT);
    for (uint32_t i = 0; i < IQ_RECALLS; i++) lists->base.efforts[i] = iq_get_u32(head + IQ_LISTS_PROBES_AT + i * 4);
    return IQDB_OK;
}

static iqdb_result iq_lists_load_centres(const iq_index_load *load, iq_centres *centres) {
    const size_t size = iq_centres_bytes(centres->count, centres->dim, centres->quant.dim != 0);
    const size_t words = (size_t)(centres->blocks - (const uint8_t *)(const void *)centres->vectors) / sizeof(float);
    const iqdb_result result = iq_index_read(load, IQ_LISTS_HEAD, centres->vectors, size);
    if (result != IQDB_OK) return result;
    if (IQ_BIG_ENDIAN) iq_copy_words_le(centres->vectors, centres->vectors, words);
    iq_centres_note_loose(centres);
    return IQDB_OK;
}

/* A part of a list, in front of which others may be; every row of it learns its lists. */
static iqdb_result iq_lists_load_part(iq_lists *lists, const iq_index_load *load, iq_list_set *set, uint32_t list,
                                      uint32_t count, uint64_t *at, iq_extent **out_extent) {
    const size_t size = iq_extent_bytes(&lists->base, count) - sizeof(iq_extent);
    if (*at > load->size || size > load->size - *at) return iq_index_reject(load, *at, "a list is too long");
    iq_extent *extent = *out_extent = iq_extent_make(lists, count);
    if (extent == NULL) return IQDB_ERR_NOMEM;
    extent->live = count;
    uint32_t *rows = iq_extent_rows(extent), *others = iq_extent_others(extent);
    const iqdb_result result = iq_index_read(load, *at, rows, size);
    if (result != IQDB_OK) return result;
    if (IQ_BIG_ENDIAN) iq_copy_words_le(rows, rows, 2 * iq_round_up(count, IQ_CODES_ROWS));
    for (uint32_t i = 0; i < count; i++) {
        const bool second = others[i] != IQ_ROW_NONE && (others[i] & IQ_LISTS_SECOND) != 0;
        if (rows[i] >= load->row_count || iq_home_of(set, rows[i], second) != IQ_ROW_NONE ||
            (others[i] != IQ_ROW_NONE && (others[i] & ~IQ_LISTS_SECOND) >= set->centres.count))
            return iq_index_reject(load, *at + i * sizeof(uint32_t), "a list has a row that cannot be there");
        iq_home_put(set, rows[i], second, list);
    }
    *at += size;
    return result;
}

/* The copies of a row name the lists of each other, and lie in two lists. */
static bool iq_lists_agree(const iq_list_set *set) {
    for (uint32_t list = 0; list < set->centres.count; list++)
        for (const iq_extent *extent = set->lists[list]; extent != NULL; extent = extent->next)
            for (uint32_t i = 0; i < extent->count; i++) {
                const uint32_t row = iq_extent_rows(extent)[i], other = iq_extent_others(extent)[i];
                const uint32_t first = iq_home_of(set, row, 0), next = iq_home_of(set, row, 1);
                const bool second = other != IQ_ROW_NONE && (other & IQ_LISTS_SECOND) != 0;
                if (first == IQ_ROW_NONE || first == next || other != (second ? first | IQ_LISTS_SECOND : next))
                    return false;
            }
    return true;
}

IQ_FN iqdb_result iq_lists_load(iq_index *base, const iq_index_load *load) {
    iq_lists *lists = (iq_lists *)(void *)base;
    uint8_t size[4];
    iqdb_result result = iq_lists_load_head(lists, load, &lists->set);
    iq_list_set *set = lists->set;
    if (result == IQDB_OK) result = iq_lists_load_centres(load, &set->centres);
    if (result != IQDB_OK) return result;
    uint64_t at = iq_lists_extents_at(&set->centres);
    const uint64_t sizes_at = iq_lists_sizes_at(&set->centres);
    for (uint32_t list = 0; list < set->centres.count; list++) {
        iq_extent **link = &set->lists[list];
        result = iq_index_read(load, sizes_at + (uint64_t)list * sizeof size, size, sizeof size);
        uint32_t left = iq_get_u32(size);
        for (uint32_t part; result == IQDB_OK && left > 0; left -= part, link = &(*link)->next)
            result = iq_lists_load_part(lists, load, set, list, part = iq_list_part(left), &at, link);
        if (result != IQDB_OK) return result;
    }
    if (at != load->size || !iq_lists_agree(set)) return iq_index_reject(load, 0, "the lists do not agree");
    const uint32_t came = lists->came;
    for (uint32_t row = 0; row < load->row_count; row++)
        if (iq_home_of(set, row, 0) != IQ_ROW_NONE) iq_lists_mark(lists, row);
    base->unstored = 0;
    lists->came = came;
    return IQDB_OK;
}
