/* Files made by hand: every number of every structure is replaced by numbers that a reader might trust - counts,
 * lengths, ids, offsets, sizes, depths - and all checksums are made right again. What must hold: an error that names
 * the file, or a database that answers, writes, closes and opens again with the records it showed; no more heap than
 * twice the files and 256 KiB; nothing lost, nothing left open. */
#include "fuzz/forge.h"
#include "persist/sections.h"

static size_t tried, refused, opened, largest;

static bool judge(const forge *f, bool deep, const char *name, size_t at, uint64_t value, unsigned width) {
    forge_verdict verdict;
    const char *trouble = forge_judge(f, deep, &verdict);
    tried++;
    refused += verdict.result != IQDB_OK;
    opened += verdict.result == IQDB_OK;
    if (verdict.peak > largest) largest = verdict.peak;
    if (trouble == NULL) return true;
    printf("\n    %s at %zu: %u bytes 0x%llx: %s (%zu bytes of heap, files %zu; code %d, %s at %llu: %s)", name, at,
           width, (unsigned long long)value, trouble, verdict.peak, forge_total(f), (int)verdict.result,
           verdict.error.file, (unsigned long long)verdict.error.offset, verdict.error.text);
    return EXPECT(!"lies are found or harmless");
}

static void put_number(uint8_t *at, uint64_t value, unsigned width) {
    for (unsigned i = 0; i < width; i++) at[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t get_number(const uint8_t *at, unsigned width) {
    uint64_t value = 0;
    for (unsigned i = 0; i < width; i++) value |= (uint64_t)at[i] << 8 * i;
    return value;
}

/* What stands at `at` in both slots of META, or in another file, becomes another number. */
static bool lie(const forge *good, size_t which, size_t at, uint64_t value, unsigned width) {
    static forge bad;
    forge_copy(good, &bad);
    forge_file *file = &bad.files[which];
    put_number(file->bytes + at, value, width);
    if (strcmp(file->name, "META") == 0 && at < IQ_META_SLOT_SIZE)
        put_number(file->bytes + IQ_META_SLOT_SIZE + at, value, width);
    forge_seal(&bad, true);
    /* What META says shows when it is said again. */
    return judge(&bad, tried % 8 == 0 || strcmp(file->name, "META") == 0, file->name, at, value, width);
}

static bool lies_at(const forge *good, size_t which, size_t at, unsigned width) {
    const forge_file *file = &good->files[which];
    const uint64_t now = get_number(file->bytes + at, width),
                   top = width == 8 ? UINT64_MAX : (UINT64_C(1) << 8 * width) - 1;
    const uint64_t values[] = {0,
                               1,
                               now + 1,
                               now - 1,
                               now * 2,
                               now + 8,
                               top,
                               top >> 1,
                               (top >> 1) + 1,
                               file->size,
                               file->size - at,
                               file->size / 8,
                               UINT64_C(0x100000001),
                               UINT64_C(0xFFFFFFF8),
                               UINT64_C(1) << 62,
                               65536,
                               65537};
    const size_t step = support_amount(5, 1, 1);
    for (size_t i = at / 4 % step; i < sizeof values / sizeof values[0]; i += step)
        if ((values[i] & top) != now && !lie(good, which, at, values[i] & top, width)) return false;
    return true;
}

/* Every number that is not within a run of zeros, which is padding: 2, 4 and 8 bytes wide where it may stand. */
static bool lies_in(const forge *good, size_t which) {
    const forge_file *file = &good->files[which];
    const bool is_meta = strcmp(file->name, "META") == 0;
    const size_t end = is_meta ? IQ_META_SLOT_SIZE : file->size;
    const uint8_t *bytes = file->bytes;
    const size_t sparse = support_amount(13, 1, 1);
    size_t turn = 0;
    for (size_t at = 0; at + 8 <= end; at += 4) {
        const size_t from = at < 16 ? 0 : at - 16, to = at + 24 < end ? at + 24 : end;
        if (fault_is_zero(bytes + from, to - from) || turn++ % sparse != 0) continue;
        if (!lies_at(good, which, at, 4)) return false;
        if (at % 8 == 0 && !lies_at(good, which, at, 8)) return false;
        for (size_t i = 0; i < 4; i++) {
            if (!lie(good, which, at + i, 0xFF, 1)) return false;
            if (bytes[at + i] != 0 && !lie(good, which, at + i, (uint8_t)(bytes[at + i] + 1), 1)) return false;
        }
    }
    return true;
}

/* In all files, or in those of the two names only. */
static void lies_of(const char *script, unsigned flags, const char *name, const char *other) {
    static forge good;
    size_t files = 0;
    tried = refused = opened = largest = 0;
    CHECK(forge_sample_of(script, flags, &good));
    forge_seal(&good, true);
    CHECK(judge(&good, true, "nothing", 0, 0, 0) && refused == 0); /* sealing a sound one changes nothing */
    bool ok = true;
    for (size_t i = 0; i < good.count && ok; i++) {
        const char *found = good.files[i].name;
        if (name != NULL && strcmp(found, name) != 0 && strcmp(found, other) != 0) continue;
        ok = lies_in(&good, i);
        files++;
    }
    CHECK(name == NULL || files == 2);
    const size_t total = forge_total(&good);
    forge_free(&good);
    printf("\n    \"%s\": %zu lies, %zu refused, %zu harmless; at most %zu bytes of heap, files of %zu", script, tried,
           refused, opened, largest, total);
    CHECK(ok);
    CHECK(refused > tried / 10);
}

static void lies_in_a_log(void) { lies_of("oubtDuez", 0, NULL, NULL); }

static void lies_in_a_log_that_was_not_closed(void) { lies_of("oubtfuf", 0, NULL, NULL); }

static void lies_in_a_snapshot(void) { lies_of("obtekuz", 0, NULL, NULL); }

static void lies_in_several_logs(void) { lies_of("ouKuKlu", 0, NULL, NULL); }

/* With new, replaced and deleted records, over a base that is too large to be taken in. */
static void lies_in_a_delta(void) { lies_of("obLLkurdkz", 0, "snap-2", "META"); }

/* With codes and lists. */
static void lies_in_what_is_made_from_rows(void) {
    lies_of("oBwBMz", WORLD_LISTS, "snap-1", "META");
    lies_of("oBMz", WORLD_CUSTOM, "snap-1", "META");
}

/* ---- Larger lies, one by one ---- */

/* A vector as long as one may be. Memory for rows comes sixteen at a time, so here the bound of the others is passed,
 * but not by more than those. */
static void the_longest_vector(void) {
    static forge good;
    static float vector[65536];
    fault_files *disk = fault_new(NULL);
    iqdb_options options = iqdb_options_default();
    forge_verdict verdict;
    iqdb *db;
    options.files = fault_table(disk);
    CHECK_EQ_INT(iqdb_open("db", &options, &db), IQDB_OK);
    iqdb_record record = iqdb_record_default();
    record.vector = vector;
    record.dim = 65536;
    CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    forge_read(disk, &good);
    fault_free(disk);
    const char *trouble = forge_judge(&good, false, &verdict);
    printf(" [%zu bytes of heap, files of %zu]", verdict.peak, forge_total(&good));
    const size_t limit = 2 * forge_total(&good) + 262144 + 16 * sizeof vector;
    forge_free(&good);
    CHECK(trouble == NULL || strcmp(trouble, "too much memory") == 0);
    CHECK_EQ_INT(verdict.result, IQDB_OK);
    CHECK(verdict.peak <= limit);
}

/* A snapshot up to this LSN and an empty log behind it. */
static void place_at(forge *f, uint64_t lsn) {
    for (size_t i = 0; i < f->count; i++) {
        uint8_t *bytes = f->files[i].bytes;
        if (strncmp(f->files[i].name, "snap", 4) == 0) iq_put_u64(bytes + IQ_SNAPSHOT_LSN_AT, lsn);
        if (strncmp(f->files[i].name, "wal", 3) == 0) iq_put_u64(bytes + IQ_LOG_FIRST_AT, lsn + 1);
        for (size_t slot = 0; strcmp(f->files[i].name, "META") == 0 && slot < 2; slot++) {
            uint8_t *meta = bytes + slot * IQ_META_SLOT_SIZE;
            iq_put_u64(meta + IQ_META_APPLIED_AT, lsn);
            iq_put_u64(meta + IQ_META_SNAPSHOT_AT + IQ_META_SNAPSHOT_LSN_AT, lsn);
            iq_put_u64(meta + IQ_META_LOG_AT + IQ_META_LOG_FIRST_AT, lsn + 1);
            iq_put_u64(meta + IQ_META_LOG_AT + IQ_META_LOG_END_LSN_AT, lsn);
        }
    }
    forge_seal(f, true);
    /* META remembers the checksum of the header of a log in which there is no frame. */
    for (size_t i = 0; i < f->count; i++)
        for (size_t slot = 0; strncmp(f->files[i].name, "wal", 3) == 0 && slot < 2; slot++)
            iq_put_u32(f->files[0].bytes + slot * IQ_META_SLOT_SIZE + IQ_META_LOG_AT + IQ_META_LOG_END_CRC_AT,
                       iq_get_u32(f->files[i].bytes + IQ_PAGE_CRC_AT));
    forge_seal(f, true);
}

/* Where LSNs come to their end writes are refused, and what is there opens again each time. */
static void lsns_come_to_an_end(void) {
    static const uint64_t before[] = {1 << 24, 5000, 3, 2, 1, 0};
    static forge good;
    uint64_t held = 0;
    CHECK(forge_sample_of("obuz", WORLD_COMPACT, &good));
    CHECK(good.count == 3 && strcmp(good.files[0].name, "META") == 0);
    for (size_t i = 0; i <= sizeof before / sizeof before[0]; i++) {
        const bool is_beyond = i == sizeof before / sizeof before[0];
        place_at(&good, is_beyond ? IQ_LSN_MAX + 1 : IQ_LSN_MAX - before[i]);
        fault_files *disk = forge_disk(&good);
        iqdb_options options = iqdb_options_default();
        iqdb *db;
        options.files = fault_table(disk);
        for (int life = 0; life < 3 && test_now.failures == 0; life++) {
            const float vector[WORLD_DIM] = {1, 2, 3, 4};
            iqdb_record record = iqdb_record_default();
            record.id = UINT64_C(1000) + (unsigned)life;
            record.vector = vector;
            record.dim = WORLD_DIM;
            CHECK_EQ_INT(iqdb_open("db", &options, &db), is_beyond ? IQDB_ERR_CORRUPT : IQDB_OK);
            if (is_beyond) break;
            if (i == 0 && life == 0) held = iqdb_len(db);
            CHECK_EQ_U64(iqdb_len(db), i == 0 ? held + (unsigned)life : held);
            CHECK_EQ_INT(iqdb_upsert(db, &record), i == 0 ? IQDB_OK : IQDB_ERR_LIMIT);
            CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
            CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
            CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        }
        fault_free(disk);
    }
    forge_free(&good);
}

/* Tags of models that are none, in META and in a snapshot. */
static void models_that_are_none(void) {
    static forge good;
    const struct {
        const char *file, *tag;
        size_t size;
        iqdb_result code;
    } lies[] = {{"META", "minilm", 6, IQDB_OK},
                {"META", "minilm\xC3", 7, IQDB_ERR_CORRUPT},
                {"META", "minilm\0x", 8, IQDB_ERR_CORRUPT},
                {"snap-1", "mini\xC3m", 6, IQDB_ERR_CORRUPT},
                {"snap-1", "mini\0m", 6, IQDB_ERR_CORRUPT},
                {"snap-1", "other!", 6, IQDB_ERR_INVALID_CONFIG}};
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        fault_files *disk = fault_new(NULL);
        iqdb_options options = iqdb_options_default();
        size_t changed = 0;
        iqdb *db;
        options.files = fault_table(disk);
        options.model = "minilm";
        CHECK_EQ_INT(iqdb_open("db", &options, &db), IQDB_OK);
        const float vector[2] = {1, 2};
        iqdb_record record = iqdb_record_default();
        record.vector = vector;
        record.dim = 2;
        CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
        CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        forge_read(disk, &good);
        fault_free(disk);
        for (size_t k = 0; k < good.count; k++)
            for (size_t at = 0; strcmp(good.files[k].name, lies[i].file) == 0 && at + 6 <= good.files[k].size; at++)
                if (memcmp(good.files[k].bytes + at, "minilm", 6) == 0) {
                    memcpy(good.files[k].bytes + at, lies[i].tag, lies[i].size);
                    changed++;
                }
        forge_seal(&good, true);
        CHECK_EQ_U64(changed, strcmp(lies[i].file, "META") == 0 ? 2 : 1);
        disk = forge_disk(&good);
        options.files = fault_table(disk);
        CHECK_EQ_INT(iqdb_open("db", &options, &db), lies[i].code);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        forge_free(&good);
        fault_free(disk);
    }
}

/* Numbers that would keep a repair busy for ever, or take all memory there is. */
static void repair_comes_to_an_end(void) {
    static forge good, bad;
    CHECK(forge_sample_of("obtekuz", 0, &good));
    for (int which = 0; which < 6; which++) {
        static const uint64_t values[] = {UINT32_MAX,         UINT64_C(1) << 62, UINT64_C(1) << 44,
                                          UINT64_MAX - 10000, UINT32_MAX - 1,    UINT32_MAX};
        forge_verdict verdict;
        forge_copy(&good, &bad);
        for (size_t k = 0; k < bad.count; k++) {
            uint8_t *bytes = bad.files[k].bytes, *footer = bytes + bad.files[k].size - IQ_FOOTER_SIZE;
            if (strcmp(bad.files[k].name, "META") == 0 && which >= 1 && which <= 3)
                for (size_t at = IQ_META_SNAPSHOT_AT; at < bad.files[k].size; at += IQ_META_SLOT_SIZE)
                    iq_put_u64(bytes + at + IQ_META_SNAPSHOT_BYTES_AT, values[which]);
            if (strcmp(bad.files[k].name, "snap-1") != 0) continue;
            uint8_t *list = bytes + iq_get_u64(footer + IQ_FOOTER_LIST_AT);
            uint8_t *last = list + (iq_get_u32(footer + IQ_FOOTER_SECTIONS_AT) - 1) * IQ_SECTION_ENTRY_SIZE;
            uint8_t *catalog = bytes + iq_get_u64(list + IQ_SECTION_OFFSET_AT);
            if (which == 0) iq_put_u32(last + IQ_SECTION_COLLECTION_AT, (uint32_t)values[which]);
            if (which == 4) iq_put_u64(catalog + IQ_CATALOG_ROWS, values[which]);
            if (which == 5) iq_put_u32(catalog + IQ_CATALOG_DELETED, (uint32_t)values[which]);
        }
        forge_seal(&bad, true);
        const char *trouble = forge_judge(&bad, true, &verdict);
        if (trouble != NULL) printf("\n    lie %d: %s", which, trouble);
        EXPECT(trouble == NULL);
        fault_files *disk = forge_disk(&bad);
        iqdb_options options = iqdb_options_default();
        options.files = fault_table(disk);
        EXPECT(iqdb_repair("db", NULL, &options, NULL, NULL) == IQDB_ERR_CORRUPT);
        fault_free(disk);
        if (which > 0) continue;
        char folder[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
        iqdb_stats stats;
        support_directory(folder); /* files of its own are all that inspect reads */
        for (size_t k = 0; k < bad.count; k++) {
            support_join(path, folder, bad.files[k].name);
            FILE *file = fopen(path, "wb");
            CHECK(file != NULL && fwrite(bad.files[k].bytes, 1, bad.files[k].size, file) == bad.files[k].size);
            CHECK(fclose(file) == 0);
        }
        EXPECT(iqdb_inspect(folder, &stats) == IQDB_ERR_CORRUPT);
        support_remove(folder);
    }
    forge_free(&good);
    forge_free(&bad);
}

TEST_MAIN("crash/hostile", TEST(lies_in_a_log), TEST(lies_in_a_log_that_was_not_closed), TEST(lies_in_a_snapshot),
          TEST(lies_in_several_logs), TEST(lies_in_a_delta), TEST(lies_in_what_is_made_from_rows),
          TEST(the_longest_vector), TEST(lsns_come_to_an_end), TEST(models_that_are_none),
          TEST(repair_comes_to_an_end))
