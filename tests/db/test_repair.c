/* Repair, against an account of its own of what damage must cost. The account reads the undamaged files by the tables of
 * format.h and sections.h: a row is lost where its bytes share a block with damage, a batch where it has a damaged
 * frame, and nothing by damage anywhere else. What comes out must be exactly the rest, every loss must be reported,
 * and nothing else may be. Under heavier damage, nothing that was never written may come out. */
#include "api.h"
#include "base/bytes.h"
#include "fault.h"
#include "kernel/crc32.h"
#include "persist/format.h"
#include "persist/page.h"
#include "persist/sections.h"
#include "store/heap.h"
#include "support.h"
#include "test.h"

#define DIM 20u
#define STRIDE 32u
#define IDS 400u    /* ids are 0 to IDS - 1 */
#define ROWS 320u   /* of them in the snapshot */
#define BATCHES 12u /* behind it */
#define REPORTS 128u
#define NONE 0u /* version of a record that is not there */

typedef struct write_op {
    uint64_t id;
    unsigned version; /* NONE: a delete */
} write_op;

typedef struct batch {
    write_op ops[6];
    size_t count;
    uint64_t first_at, end_at, first_lsn, last_lsn; /* in the log */
    unsigned log;
} batch;

static batch batches[BATCHES];
static unsigned versions_ever[IDS]; /* the highest one */
static fault_files *origin;
static size_t reported, lost_records;
static iqdb_error reports[REPORTS];

static void vector_of(uint64_t id, unsigned version, float *vector) {
    uint64_t state = id * 1000 + version;
    for (size_t i = 0; i < DIM; i++) vector[i] = support_random_float(&state);
}

static void record_of(uint64_t id, unsigned version, float *vector, iqdb_field *fields, char *text,
                      iqdb_record *record) {
    vector_of(id, version, vector);
    memset(text, 'a' + (int)(version % 26), 400);
    fields[0].key = "version";
    fields[0].value = iqdb_int((int64_t)version);
    fields[1].key = "words";
    fields[1].value = iqdb_text_n(text, (size_t)(id % 9 * 40));
    *record = iqdb_record_default();
    record->id = id;
    record->vector = vector;
    record->dim = DIM;
    record->fields = id % 4 == 0 ? NULL : fields;
    record->field_count = id % 4 == 0 ? 0 : 2;
}

static iqdb_result apply(iqdb *db, const write_op *ops, size_t count) {
    float vectors[6][DIM];
    iqdb_field fields[6][2];
    char texts[6][400];
    iqdb_record records[6];
    iqdb_op list[6];
    for (size_t i = 0; i < count; i++) {
        list[i] = iqdb_op_default();
        list[i].kind = ops[i].version == NONE ? IQDB_OP_DELETE : IQDB_OP_UPSERT;
        list[i].id = ops[i].id;
        if (ops[i].version == NONE) continue;
        record_of(ops[i].id, ops[i].version, vectors[i], fields[i], texts[i], &records[i]);
        list[i].record = &records[i];
        if (ops[i].version > versions_ever[ops[i].id]) versions_ever[ops[i].id] = ops[i].version;
    }
    return iqdb_apply(db, list, count);
}

/* The version that the database has of an id; NONE where it has none, UINT_MAX where it has what was never written. */
static unsigned version_in(const iqdb *db, uint64_t id) {
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_record found;
    unsigned version = NONE;
    if (iqdb_get(db, id, &buffer, &found) == IQDB_OK) {
        float vector[DIM];
        iqdb_field fields[2];
        char text[400];
        iqdb_record wanted;
        version = UINT32_MAX;
        for (unsigned v = 1; id < IDS && v <= versions_ever[id] && version == UINT32_MAX; v++) {
            record_of(id, v, vector, fields, text, &wanted);
            if (found.dim != DIM || memcmp(found.vector, vector, sizeof vector) != 0) continue;
            size_t size = 0;
            const char *words = iqdb_payload_text(found.payload, "words", &size);
            const bool same = id % 4 == 0 ? found.payload.bytes == NULL
                                          : iqdb_payload_int(found.payload, "version", 0) == (int64_t)v &&
                                                words != NULL && size == id % 9 * 40 && memcmp(words, text, size) == 0;
            if (same) version = v;
        }
    }
    iqdb_buffer_free(&buffer);
    return version;
}

/* ---- The original ---- */

static bool fill_chance(void *bytes, size_t size, void *user) {
    for (size_t i = 0; i < size; i++) ((uint8_t *)bytes)[i] = (uint8_t)support_random((uint64_t *)user);
    return true;
}

static iqdb_options options_of(fault_files *disk, uint64_t *chance) {
    iqdb_options options = iqdb_options_default();
    options.files = fault_table(disk);
    options.metric = IQDB_L2;
    options.entropy.fill_fn = fill_chance;
    options.entropy.user = chance;
    return options;
}

/* Offsets and LSNs of the batches of a log, by the table of frames. */
static size_t account_log(const char *name, unsigned log, size_t next) {
    size_t size;
    uint8_t *bytes = fault_load(origin, "db", name, &size);
    uint64_t at = iq_get_u32(bytes + IQ_LOG_SECTOR_AT), first_at = at;
    while (at + IQ_FRAME_HEADER_SIZE < size && iq_get_u32(bytes + at) != 0) {
        const uint8_t *frame = bytes + at;
        at += IQ_FRAME_HEADER_SIZE + iq_get_u32(frame);
        if ((frame[IQ_FRAME_FLAGS_AT] & IQ_FRAME_COMMIT) == 0) continue;
        if (frame[IQ_FRAME_TYPE_AT] == IQ_FRAME_RECORD && next < BATCHES) {
            batches[next].log = log;
            batches[next].first_at = first_at;
            batches[next].end_at = at;
            batches[next].first_lsn = iq_get_u64(frame + IQ_FRAME_BATCH_AT);
            batches[next++].last_lsn = iq_get_u64(frame + IQ_FRAME_LSN_AT);
        }
        first_at = at;
    }
    free(bytes);
    return next;
}

static bool exists(fault_files *disk, const char *path, const char *name) {
    size_t size;
    uint8_t *bytes = fault_load(disk, path, name, &size);
    free(bytes);
    return bytes != NULL;
}

/* A snapshot, and a log behind it. */
static void make_origin(void) {
    static uint64_t chance = 1;
    uint64_t state = 77;
    iqdb *db = NULL;
    origin = fault_new(NULL);
    memset(versions_ever, 0, sizeof versions_ever);
    iqdb_options options = options_of(origin, &chance);
    EXPECT(iqdb_open("db", &options, &db) == IQDB_OK);
    for (uint64_t id = 0; id < ROWS; id++) {
        const write_op op = {id, 1};
        EXPECT(apply(db, &op, 1) == IQDB_OK);
    }
    EXPECT(iqdb_checkpoint(db) == IQDB_OK);
    for (size_t b = 0; b < BATCHES; b++) {
        batches[b].count = 1 + b % 6;
        for (size_t i = 0; i < batches[b].count; i++) {
            write_op *op = &batches[b].ops[i];
            op->id = b % 3 == 0 ? ROWS + support_random_below(&state, IDS - ROWS) : support_random_below(&state, IDS);
            op->version = b % 4 == 3 && i % 2 == 1 ? NONE : (unsigned)(b + 2);
        }
        EXPECT(apply(db, batches[b].ops, batches[b].count) == IQDB_OK);
        if (b % 3 == 0) EXPECT(iqdb_flush(db) == IQDB_OK);
    }
    EXPECT(iqdb_close(db) == IQDB_OK);
    EXPECT(account_log("wal-2", 2, 0) == BATCHES);
}

/* ---- The account ---- */

typedef struct section {
    uint64_t at, size;
} section;

static section sections[8];
static uint8_t *snapshot;
static size_t snapshot_size;
static uint64_t table_at;

static void account_snapshot(void) {
    snapshot = fault_load(origin, "db", "snap-1", &snapshot_size);
    const uint8_t *footer = snapshot + snapshot_size - IQ_FOOTER_SIZE;
    const uint8_t *list = snapshot + iq_get_u64(footer + IQ_FOOTER_LIST_AT);
    table_at = iq_get_u64(footer + IQ_FOOTER_BLOCKS_AT) * IQ_SNAPSHOT_BLOCK;
    for (uint32_t i = 0; i < iq_get_u32(footer + IQ_FOOTER_SECTIONS_AT); i++, list += IQ_SECTION_ENTRY_SIZE) {
        sections[iq_get_u32(list + IQ_SECTION_KIND_AT)].at = iq_get_u64(list + IQ_SECTION_OFFSET_AT);
        sections[iq_get_u32(list + IQ_SECTION_KIND_AT)].size = iq_get_u64(list + IQ_SECTION_BYTES_AT);
    }
}

static bool shares_block(uint64_t at, uint64_t size, uint64_t damage) {
    const uint64_t block = damage / IQ_SNAPSHOT_BLOCK;
    return damage < table_at && at / IQ_SNAPSHOT_BLOCK <= block && (at + size - 1) / IQ_SNAPSHOT_BLOCK >= block;
}

/* Whether row r of the snapshot is lost by damage at this place of it. */
static bool row_is_lost(uint64_t row, uint64_t damage) {
    const uint64_t ref = iq_get_u64(snapshot + sections[IQ_SECTION_PAYLOAD_REFS].at + row * 8);
    if (shares_block(sections[IQ_SECTION_IDS].at + row * 8, 8, damage)) return true;
    if (shares_block(sections[IQ_SECTION_PAYLOAD_REFS].at + row * 8, 8, damage)) return true;
    if (shares_block(sections[IQ_SECTION_VECTORS].at + row * STRIDE * 4, STRIDE * 4, damage)) return true;
    const uint64_t block = sections[IQ_SECTION_PAYLOADS].at + ref;
    return ref != 0 && shares_block(block, 4 + iq_get_u32(snapshot + block), damage);
}

/* ---- Repair ---- */

static void on_report(const iqdb_error *finding, void *user) {
    (void)user;
    if (reported < REPORTS) reports[reported] = *finding;
    reported++;
    lost_records += (size_t)finding->records;
}

/* Repairs "db" into "new", and opens that. */
static iqdb *repair(fault_files *disk, iqdb_result *out_result) {
    static uint64_t chance = 1000;
    iqdb_options options = options_of(disk, &chance);
    iqdb *db = NULL;
    reported = lost_records = 0;
    *out_result = iqdb_repair("db", "new", &options, on_report, NULL);
    const size_t first = reported, records = lost_records;
    if (*out_result != IQDB_OK) return NULL;
    EXPECT(iqdb_open("new", &options, &db) == IQDB_OK);
    EXPECT(db != NULL && iqdb_verify(db, IQDB_DEPTH_DEFAULT, NULL, NULL) == IQDB_OK);
    /* Only to report says the same, and makes nothing. */
    reported = lost_records = 0;
    const iqdb_result found = iqdb_repair("db", NULL, &options, on_report, NULL);
    EXPECT((found == IQDB_OK) == (reported == 0) && reported == first && lost_records == records);
    if (reported > 0) EXPECT(found == reports[0].code);
    return db;
}

static fault_files *damaged_copy(void) {
    static const char *const names[] = {"META", "snap-1", "wal-2"};
    fault_files *disk = fault_new(NULL);
    for (int i = 0; i < 3; i++) {
        size_t size;
        uint8_t *bytes = fault_load(origin, "db", names[i], &size);
        fault_store(disk, "db", names[i], bytes, size);
        free(bytes);
    }
    return disk;
}

/* A byte of a file becomes another one. */
static void plant(fault_files *disk, const char *name, uint64_t at, uint8_t mask) {
    size_t size;
    uint8_t *bytes = fault_load(disk, "db", name, &size);
    bytes[at] ^= mask;
    fault_store(disk, "db", name, bytes, size);
    free(bytes);
}

/* Puts a number at a place of a page of `size` bytes, and makes its checksum right. */
static void forge(fault_files *disk, const char *name, uint64_t page_at, size_t size, uint64_t at, unsigned bytes,
                  uint64_t value) {
    size_t all;
    uint8_t *file = fault_load(disk, "db", name, &all);
    if (page_at == UINT64_MAX) page_at = all - size;
    uint8_t *page = file + page_at;
    if (bytes == 4) iq_put_u32(page + at, (uint32_t)value);
    if (bytes == 8) iq_put_u64(page + at, value);
    iq_put_u32(page + IQ_PAGE_CRC_AT,
               iq_crc32(iq_crc32(0, page, IQ_PAGE_CRC_AT), page + IQ_PAGE_CRC_AT + 4, size - IQ_PAGE_CRC_AT - 4));
    fault_store(disk, "db", name, file, all);
    free(file);
}

/* The state without these: rows of the snapshot that share a block with `damage`, and one batch. */
static size_t expect_state(const iqdb *db, uint64_t damage, size_t lost_batch) {
    unsigned expected[IDS] = {NONE};
    size_t lost = 0, wrong = 0, count = 0;
    for (uint64_t row = 0; row < ROWS; row++) {
        const uint64_t id = iq_get_u64(snapshot + sections[IQ_SECTION_IDS].at + row * 8);
        const bool is_lost = row_is_lost(row, damage);
        expected[id] = is_lost ? NONE : 1;
        lost += is_lost;
    }
    for (size_t b = 0; b < BATCHES; b++)
        for (size_t i = 0; i < batches[b].count && b != lost_batch; i++)
            expected[batches[b].ops[i].id] = batches[b].ops[i].version;
    for (uint64_t id = 0; id < IDS; id++) {
        const unsigned version = version_in(db, id);
        if (version != expected[id] && wrong++ < 3)
            printf("\n      id %u: version %u, expected %u", (unsigned)id, version, expected[id]);
        count += expected[id] != NONE;
    }
    EXPECT(wrong == 0);
    EXPECT(iqdb_len(db) == count);
    return lost;
}

static bool covers(uint64_t first, uint64_t last, const char *name) {
    for (size_t i = 0; i < reported && i < REPORTS; i++)
        if (reports[i].lsn <= first && reports[i].lsn_last >= last && strcmp(reports[i].file, name) == 0) return true;
    return false;
}

static bool one_byte(const char *name, uint64_t at, uint8_t mask, size_t *out_lost) {
    fault_files *disk = damaged_copy();
    iqdb_result result;
    const bool in_snapshot = strcmp(name, "snap-1") == 0;
    size_t lost_batch = BATCHES;
    plant(disk, name, at, mask);
    const long failures = test_now.failures;
    iqdb *db = repair(disk, &result);
    EXPECT(result == IQDB_OK);
    if (strcmp(name, "wal-2") == 0)
        for (size_t b = 0; b < BATCHES; b++)
            if (at >= batches[b].first_at && at < batches[b].end_at) lost_batch = b;
    if (db != NULL) {
        const size_t lost = expect_state(db, in_snapshot ? at : UINT64_MAX, lost_batch);
        EXPECT(reported > 0 && strcmp(reports[0].file, name) == 0);
        EXPECT(lost_records == lost);
        *out_lost += lost + (lost_batch < BATCHES);
        if (lost_batch < BATCHES) EXPECT(covers(batches[lost_batch].first_lsn, batches[lost_batch].last_lsn, name));
        for (size_t i = 0; i < reported && i < REPORTS; i++)
            EXPECT(reports[i].code == IQDB_ERR_CORRUPT && reports[i].text[0] != 0);
        EXPECT(iqdb_close(db) == IQDB_OK);
    }
    EXPECT(disk->open_files == 0 && disk->open_dirs == 0);
    fault_free(disk);
    if (test_now.failures != failures) printf(" at byte %llu of %s", (unsigned long long)at, name);
    return test_now.failures == failures;
}

static void damage_to_each_byte(const char *name, uint64_t size, size_t step) {
    size_t tried = 0, lost = 0;
    make_origin();
    account_snapshot();
    for (uint64_t at = 0; at < size; at += 1 + at % step, tried++)
        if (!one_byte(name, at, (uint8_t)(1u << at % 8), &lost)) break;
    printf(" %zu bytes, %zu losses", tried, lost);
    CHECK(tried > 50);
    free(snapshot);
    fault_free(origin);
}

static void damage_to_meta_costs_nothing(void) { damage_to_each_byte("META", 8192, support_amount(200, 60, 1)); }

static void damage_to_a_snapshot_costs_the_rows_of_one_block(void) {
    make_origin();
    account_snapshot();
    const uint64_t size = snapshot_size;
    free(snapshot);
    fault_free(origin);
    damage_to_each_byte("snap-1", size, support_amount(3000, 400, 1));
}

static void damage_to_a_log_costs_one_batch(void) {
    make_origin();
    const uint64_t end = batches[BATCHES - 1].end_at;
    fault_free(origin);
    damage_to_each_byte("wal-2", end, support_amount(600, 60, 1));
}

/* What ends the file: table, roots and footer, each byte. */
static void damage_to_checksums_costs_nothing(void) {
    size_t lost = 0;
    const size_t step = support_amount(5, 1, 1);
    make_origin();
    account_snapshot();
    for (uint64_t at = table_at; at < snapshot_size; at += at + 200 < snapshot_size && at > table_at + 64 ? 97 : step)
        if (!one_byte("snap-1", at, 0x10, &lost)) break;
    CHECK_EQ_U64(lost, 0);
    free(snapshot);
    fault_free(origin);
}

static void a_sound_directory_is_copied(void) {
    make_origin();
    account_snapshot();
    fault_files *disk = damaged_copy();
    iqdb_result result;
    iqdb *db = repair(disk, &result);
    CHECK(db != NULL && result == IQDB_OK && reported == 0);
    CHECK_EQ_U64(expect_state(db, UINT64_MAX, BATCHES), 0);
    iqdb_stats stats;
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    CHECK(stats.last_lsn >= batches[BATCHES - 1].last_lsn);
    CHECK(memcmp(stats.uuid, snapshot + IQ_PAGE_UUID_AT, 16) != 0);
    const write_op op = {3, 50};
    CHECK_EQ_INT(apply(db, &op, 1), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    free(snapshot);
    fault_free(disk);
    fault_free(origin);
}

/* The dimension came after the snapshot, which has a choice and no rows. */
static void a_snapshot_of_before_the_first_record(void) {
    uint64_t chance = 6;
    fault_files *disk = fault_new(NULL);
    iqdb_options options = options_of(disk, &chance), chosen = iqdb_options_default();
    iqdb_result result;
    iqdb_stats stats;
    iqdb *db = NULL;
    const write_op op = {3, 2};
    chosen.index = IQDB_INDEX_IVF;
    chosen.metric = IQDB_L2;
    CHECK_EQ_INT(iqdb_open("db", &options, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_reindex(db, &chosen), IQDB_OK);
    CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
    CHECK_EQ_INT(apply(db, &op, 1), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    db = repair(disk, &result);
    CHECK(db != NULL && result == IQDB_OK && reported == 0);
    CHECK(iqdb_len(db) == 1 && version_in(db, 3) == 2);
    CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
    CHECK_EQ_INT(stats.index_wanted, IQDB_INDEX_IVF);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    fault_free(disk);
}

/* The names of indexed keys stand in META only. */
static void indexed_keys_stay(void) {
    const iqdb_index_key keys[] = {{"version", IQDB_KEY_ORDERED}, {"words", IQDB_KEY_HASH}};
    uint64_t chance = 6;
    fault_files *disk = fault_new(NULL);
    iqdb_options options = options_of(disk, &chance);
    iqdb_result result;
    iqdb *db = NULL;
    size_t size;
    options.index_keys = keys;
    options.index_key_count = 2;
    CHECK_EQ_INT(iqdb_open("db", &options, &db), IQDB_OK);
    for (uint64_t id = 0; id < 20; id++) {
        const write_op op = {id, 1};
        CHECK_EQ_INT(apply(db, &op, 1), IQDB_OK);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    for (int way = 0; way < 3; way++) { /* sound, without META, and with names that make no sense */
        uint8_t *before = fault_load(disk, "db", "META", &size);
        for (size_t at = IQ_META_KEYS_AT; way == 2 && at < size; at += IQ_META_SLOT_SIZE) {
            before[at] = 99;
            (void)iq_page_seal(before + at - IQ_META_KEYS_AT, IQ_META_SLOT_SIZE, IQ_META_MAGIC,
                               before + IQ_PAGE_UUID_AT);
        }
        fault_files *damaged = fault_copy(disk);
        fault_store(damaged, "db", "META", way == 1 ? NULL : before, size);
        db = repair(damaged, &result);
        CHECK(db != NULL && iqdb_len(db) == 20 && version_in(db, 7) == 1);
        CHECK((reported > 0) == (way > 0));
        CHECK(way < 2 || (reported == 1 && reports[0].offset == IQ_META_KEYS_AT));
        iqdb_stats stats;
        CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
        CHECK((stats.key_bytes > 0) == (way == 0));
        uint8_t *after = fault_load(damaged, "new", "META", &size);
        CHECK(way > 0 || memcmp(before + IQ_META_KEYS_AT, after + IQ_META_KEYS_AT, IQ_META_KEYS_SIZE) == 0);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        free(before);
        free(after);
        fault_free(damaged);
    }
    fault_free(disk);
}

/* How many records there are; each must be one of the first `count`, as it was written first. */
static size_t count_original(iqdb *db, uint64_t count) {
    size_t found = 0, wrong = 0;
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    for (; iqdb_iter_next(&iter); found++) {
        float vector[DIM];
        iqdb_field fields[2];
        char text[400];
        iqdb_record wanted;
        record_of(iter.record.id, 1, vector, fields, text, &wanted);
        size_t size = iter.record.id % 9 * 40;
        const char *words = iqdb_payload_text(iter.record.payload, "words", &size);
        wrong +=
            iter.record.id >= count || memcmp(iter.record.vector, vector, iter.record.dim * sizeof *vector) != 0 ||
            (iter.record.payload.bytes != NULL && (size != iter.record.id % 9 * 40 || memcmp(words, text, size) != 0));
    }
    iqdb_iter_end(&iter);
    EXPECT(wrong == 0);
    return found;
}

/* Without footer or list, a choice of an index that lies before the rows moves none of them; where there are too few to
 * tell whether it does, none is made up. */
static void without_a_list_a_choice_moves_nothing(void) {
    static const uint64_t counts[] = {1, 5, 6, ROWS, 9000};
    for (int way = 0; way < 30; way++) {
        const uint64_t count = counts[way % 5];
        const int kind = way / 5 % 3; /* no choice, one of lists, one of nothing, which is zeros */
        uint64_t chance = 8;
        fault_files *disk = fault_new(NULL);
        iqdb_options options = options_of(disk, &chance), chosen = iqdb_options_default();
        iqdb_result result;
        iqdb_stats stats;
        iqdb *db = NULL;
        size_t size;
        chosen.metric = IQDB_L2;
        if (kind == 1) chosen.index = IQDB_INDEX_IVF;
        chosen.nprobe = kind == 1 ? 7 : 0;
        CHECK_EQ_INT(iqdb_open("db", &options, &db), IQDB_OK);
        for (uint64_t id = 0; id < count; id++) {
            float vector[DIM];
            iqdb_field fields[2];
            char text[400];
            iqdb_record record;
            record_of(id, 1, vector, fields, text, &record);
            if (count <= 5) record.dim = 16; /* rows of 64 bytes, which are rows too where they are read 64 too early */
            if (count <= 5) record.fields = NULL;
            if (count <= 5) record.field_count = 0;
            CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
        }
        if (kind > 0) CHECK_EQ_INT(iqdb_reindex(db, &chosen), IQDB_OK);
        CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        uint8_t *bytes = fault_load(disk, "db", "snap-1", &size), *footer = bytes + size - IQ_FOOTER_SIZE;
        const bool of_list = way >= 15;
        plant(disk, "snap-1", of_list ? iq_get_u64(footer + IQ_FOOTER_LIST_AT) : size - 20, 1);
        free(bytes);
        db = repair(disk, &result);
        CHECK(db != NULL && reported > 0);
        const size_t found = count_original(db, count);
        if (kind == 0 || count > 5) {
            CHECK(found + lost_records == count || (of_list && found < count));
            CHECK(of_list ? found > 0 || count < ROWS : found == count);
            CHECK_EQ_INT(iqdb_stat(db, &stats), IQDB_OK);
            CHECK(of_list || kind != 1 || stats.index_wanted == IQDB_INDEX_IVF);
        }
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        fault_free(disk);
    }
}

/* META gone, in one way or another: the files tell the rest. */
static void without_meta_nothing_is_lost(void) {
    make_origin();
    account_snapshot();
    for (int way = 0; way < 3; way++) {
        static const uint8_t zeros[8192];
        fault_files *disk = damaged_copy();
        iqdb_result result;
        fault_store(disk, "db", "META", way == 0 ? NULL : zeros, way == 1 ? 8192 : 100);
        iqdb *db = repair(disk, &result);
        CHECK(db != NULL && reported > 0);
        CHECK_EQ_U64(expect_state(db, UINT64_MAX, BATCHES), 0);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        fault_free(disk);
    }
    free(snapshot);
    fault_free(origin);
}

static void whole_files_may_be_missing(void) {
    make_origin();
    account_snapshot();
    fault_files *disk = damaged_copy();
    iqdb_result result;
    fault_store(disk, "db", "wal-2", NULL, 0);
    iqdb *db = repair(disk, &result);
    CHECK(db != NULL && covers(batches[0].first_lsn, batches[BATCHES - 1].last_lsn, "wal-2"));
    CHECK_EQ_INT(iqdb_len(db), ROWS);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    fault_free(disk);
    disk = damaged_copy();
    fault_store(disk, "db", "snap-1", NULL, 0);
    db = repair(disk, &result);
    CHECK(db != NULL && strcmp(reports[reported - 1].file, "snap-1") == 0);
    CHECK(iqdb_len(db) > 0 && version_in(db, batches[BATCHES - 1].ops[0].id) == BATCHES + 1);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    fault_free(disk);
    free(snapshot);
    fault_free(origin);
}

/* What was torn by a crash was never acknowledged: no loss, and nothing behind it counts, nor does a log that was made
 * to go on there, and that only its name tells of. */
static void a_torn_tail_with(bool another_log) {
    make_origin();
    account_snapshot();
    uint64_t chance = 5;
    size_t size;
    iqdb *db = NULL;
    fault_files *disk = damaged_copy();
    iqdb_options options = options_of(disk, &chance);
    CHECK_EQ_INT(iqdb_open("db", &options, &db), IQDB_OK);
    write_op op = {1, 60};
    CHECK_EQ_INT(apply(db, &op, 1), IQDB_OK);
    CHECK_EQ_INT(iqdb_flush(db), IQDB_OK);
    uint8_t *before = fault_load(disk, "db", "wal-2", &size);
    for (op.id = 2; op.id < 5; op.id++) CHECK_EQ_INT(apply(db, &op, 1), IQDB_OK);
    fault_files *cut = fault_copy(disk);
    uint8_t *after = fault_load(cut, "db", "wal-2", &size);
    size_t first = 0;
    while (before[first] == after[first]) first++;
    while (before[first] == 0 && after[first] == 0) first++;
    plant(cut, "wal-2", (first & ~(size_t)7) + 60, 1); /* in or about the first of three unsynced frames */
    if (another_log) {
        fault_store(cut, "db", "META", NULL, 0);
        fault_store(cut, "db", "wal-3", after, 4096);
        forge(cut, "wal-3", 0, 4096, IQ_LOG_NUMBER_AT, 8, 3);
        forge(cut, "wal-3", 0, 4096, IQ_LOG_FIRST_AT, 8, batches[BATCHES - 1].last_lsn + 20);
    }
    iqdb_result result;
    iqdb *repaired = repair(cut, &result);
    CHECK(repaired != NULL && reported == another_log); /* that META is missing */
    CHECK(version_in(repaired, 1) == 60 && version_in(repaired, 3) != 60 && version_in(repaired, 4) != 60);
    CHECK_EQ_INT(iqdb_close(repaired), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    free(before);
    free(after);
    fault_free(cut);
    fault_free(disk);
    free(snapshot);
    fault_free(origin);
}

static void a_torn_tail_is_no_loss(void) {
    a_torn_tail_with(false);
    a_torn_tail_with(true);
}

/* Many bytes, sectors, ends and files at once. */
static void heavy_damage_invents_nothing(void) {
    static const char *const names[] = {"META", "snap-1", "wal-2"};
    uint64_t state = 4711;
    size_t survived = 0, runs = support_amount(60, 300, 20000);
    make_origin();
    account_snapshot();
    for (size_t run = 0; run < runs; run++) {
        fault_files *disk = damaged_copy();
        iqdb_result result;
        for (uint64_t n = 1 + support_random_below(&state, 5); n > 0; n--) {
            const char *name = names[support_random_below(&state, 3)];
            size_t size;
            uint8_t *bytes = fault_load(disk, "db", name, &size);
            if (bytes == NULL || size == 0) {
                free(bytes);
                continue;
            }
            const size_t at = (size_t)support_random_below(&state, size);
            const size_t room = size - at < 4096 ? size - at : 4096;
            switch (support_random_below(&state, 7)) {
            case 0:
                memset(bytes + at, 0, room);
                break;
            case 1:
                for (size_t i = 0; i < room; i++) bytes[at + i] = (uint8_t)support_random(&state);
                break;
            case 2:
                size = at;
                break;
            case 3:
                memmove(bytes, bytes + at / 512 * 512, size - at / 512 * 512);
                break;
            case 4:
                if (run % 5 == 0) size = 0;
                break;
            default:
                bytes[at] ^= 0x40;
                break;
            }
            fault_store(disk, "db", name, bytes, size);
            free(bytes);
        }
        iqdb *db = repair(disk, &result);
        if (db == NULL) EXPECT(result == IQDB_ERR_NOT_FOUND || result == IQDB_ERR_VERSION);
        size_t found = 0;
        for (uint64_t id = 0; db != NULL && id < IDS; id++) {
            const unsigned version = version_in(db, id);
            if (!EXPECT(version != UINT32_MAX)) printf(" in run %zu", run);
            found += version != NONE;
        }
        if (db != NULL) EXPECT(iqdb_len(db) == found);
        survived += found;
        EXPECT(iqdb_close(db) == IQDB_OK);
        EXPECT(disk->open_files == 0 && disk->open_dirs == 0);
        fault_free(disk);
    }
    printf(" %zu runs, %zu records saved", runs, survived);
    CHECK(survived > runs * 20);
    free(snapshot);
    fault_free(origin);
}

/* ---- Faults during repair ---- */

static bool without_meta;
static iqdb_result fault_code = IQDB_ERR_IO;

static bool repair_with(unsigned kinds, size_t n, bool sticky, size_t heap_at) {
    fault_files *disk = damaged_copy();
    support_heap heap = support_heap_make();
    uint64_t chance = 9;
    size_t size, again;
    iqdb_options options = options_of(disk, &chance);
    iqdb *db = NULL;
    options.allocator = support_allocator(&heap);
    plant(disk, "wal-2", batches[4].first_at + 20, 1);
    plant(disk, "snap-1", 9000, 1);
    uint8_t *before = fault_load(disk, "db", "snap-1", &size);
    if (without_meta) fault_store(disk, "db", "META", NULL, 0);
    if (kinds != 0) fault_fail_nth(disk, kinds, n, fault_code, sticky);
    heap.fail_at = heap_at;
    heap.sticky = sticky;
    const iqdb_result result = iqdb_repair("db", "new", &options, NULL, NULL);
    const bool failed = disk->failed > 0 || heap.failed > 0;
    fault_fail_nth(disk, 0, 0, IQDB_OK, false);
    heap.fail_at = 0;
    heap.sticky = 0;
    if (!failed) EXPECT(result == IQDB_OK);
    if (heap_at > 0 && failed) EXPECT(result == IQDB_ERR_NOMEM);
    if (result == IQDB_OK) {
        EXPECT(iqdb_open("new", &options, &db) == IQDB_OK);
        for (uint64_t id = 0; id < IDS; id++) EXPECT(version_in(db, id) != UINT32_MAX);
        EXPECT(iqdb_close(db) == IQDB_OK);
    } else {
        EXPECT(result == IQDB_ERR_IO || result == IQDB_ERR_NOMEM);
        if (!sticky && heap_at == 0) EXPECT(!exists(disk, "new", "META") && !exists(disk, "new", "snap-1"));
    }
    uint8_t *after = fault_load(disk, "db", "snap-1", &again);
    EXPECT(again == size && memcmp(before, after, size) == 0); /* never in place */
    free(before);
    free(after);
    EXPECT(disk->open_files == 0 && disk->open_dirs == 0 && support_heap_problems(&heap) == 0);
    fault_free(disk);
    return failed;
}

static void every_fault_during_repair(void) {
    const size_t step = support_amount(5, 1, 1);
    size_t count = 0;
    make_origin();
    account_snapshot();
    for (int kind = 0; kind < FAULT_KINDS; kind++)
        for (int sticky = 0; sticky < 2; sticky++)
            for (size_t n = 1; repair_with(1u << kind, n, sticky != 0, 0) && n < 500; n += step) count++;
    for (int sticky = 0; sticky < 2; sticky++)
        for (size_t n = 1; repair_with(0, 0, sticky != 0, n) && n < 500; n += step) count++;
    /* Where reading ends for want of memory, and where files alone say what there is. */
    for (int way = 0; way < 4; way++) {
        without_meta = way % 2 != 0;
        fault_code = IQDB_ERR_NOMEM;
        for (size_t n = 1; way < 2 && repair_with(FAULT_READ | FAULT_OPEN | FAULT_DIR_LIST, n, n % 2 == 0, 0); n++)
            count++;
        for (size_t n = 1; way >= 2 && without_meta && repair_with(0, 0, n % 2 == 0, n) && n < 60; n++) count++;
    }
    without_meta = false;
    fault_code = IQDB_ERR_IO;
    printf(" %zu faults", count);
    CHECK(count > 60);
    free(snapshot);
    fault_free(origin);
}

#define LARGE 300000u /* of a payload: more than is read of a log at once */

/* What faults, at each place, make of a log of which one read gets a part only. With `damaged` the large batch lost its
 * first frame, so those behind it are looked through for the next. Whatever is not there was told. */
static bool repair_large_with(const fault_files *from, bool damaged, iqdb_result code, size_t n) {
    static uint8_t text[LARGE];
    fault_files *disk = fault_copy((fault_files *)(uintptr_t)from);
    support_heap heap = support_heap_make();
    uint64_t chance = 9;
    iqdb_options options = options_of(disk, &chance);
    iqdb *db = NULL;
    memset(text, 'x', LARGE);
    options.allocator = support_allocator(&heap);
    if (code != IQDB_OK) fault_fail_nth(disk, FAULT_READ, n, code, false);
    if (code == IQDB_OK) heap.fail_at = n;
    reported = lost_records = 0;
    const iqdb_result result = iqdb_repair("db", "new", &options, on_report, NULL);
    const bool failed = disk->failed + heap.failed > 0;
    fault_fail_nth(disk, 0, 0, IQDB_OK, false);
    heap.fail_at = 0;
    EXPECT(result == IQDB_OK || (failed && result == (code == IQDB_ERR_IO ? code : IQDB_ERR_NOMEM)));
    if (result == IQDB_OK) {
        iqdb_buffer buffer = iqdb_buffer_default();
        iqdb_record record;
        EXPECT(iqdb_open("new", &options, &db) == IQDB_OK);
        const bool found = iqdb_get(db, 4, &buffer, &record) == IQDB_OK;
        if (found) {
            size_t size;
            const char *words = iqdb_payload_text(record.payload, "words", &size);
            EXPECT(words != NULL && size == LARGE && memcmp(words, text, LARGE) == 0);
        }
        size_t others = 0;
        for (uint64_t id = 1; id < 7; id++) others += id != 4 && version_in(db, id) == 1;
        EXPECT(iqdb_len(db) == others + found);
        EXPECT(!damaged || !found);
        EXPECT((found && others == 5) || reported > 0);
        if (!failed) EXPECT(others == 5 && found == !damaged && (reported > 0) == damaged);
        iqdb_buffer_free(&buffer);
        EXPECT(iqdb_close(db) == IQDB_OK);
    } else {
        EXPECT(!exists(disk, "new", "META"));
    }
    EXPECT(disk->open_files == 0 && disk->open_dirs == 0 && support_heap_problems(&heap) == 0);
    fault_free(disk);
    return failed;
}

static void every_fault_about_a_large_batch(void) {
    static const iqdb_result codes[] = {IQDB_ERR_IO, IQDB_ERR_NOMEM, IQDB_OK};
    static char text[LARGE];
    uint64_t chance = 12;
    size_t count = 0, size;
    iqdb *db = NULL;
    fault_files *disk = fault_new(NULL);
    memset(versions_ever, 0, sizeof versions_ever);
    memset(text, 'x', LARGE);
    iqdb_options options = options_of(disk, &chance);
    CHECK_EQ_INT(iqdb_open("db", &options, &db), IQDB_OK);
    for (uint64_t id = 1; id < 7; id++) {
        const write_op op = {id, 1};
        const iqdb_field field = {"words", iqdb_text_n(text, LARGE)};
        float vector[DIM] = {1};
        iqdb_record record = iqdb_record_default();
        record.id = id;
        record.vector = vector;
        record.dim = DIM;
        record.fields = &field;
        record.field_count = 1;
        CHECK_EQ_INT(id == 4 ? iqdb_upsert(db, &record) : apply(db, &op, 1), IQDB_OK);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    for (int way = 0; way < 6; way++) {
        if (way == 3) { /* a byte of the large record's first frame */
            uint8_t *log = fault_load(disk, "db", "wal-1", &size);
            size_t at = 4096;
            while (iq_get_u32(log + at) <= 4096) at += IQ_FRAME_HEADER_SIZE + iq_get_u32(log + at);
            free(log);
            plant(disk, "wal-1", at + 100, 1);
        }
        size_t n = 1;
        for (; repair_large_with(disk, way >= 3, codes[way % 3], n) && n < 500; n++) count++;
        CHECK(n > 5 && n < 500);
    }
    printf(" %zu faults", count);
    fault_free(disk);
}

/* A check of a snapshot and one that adds to it, sound or both damaged under the handle, for which there is no memory:
 * it says so, or names damage; and the next one says all that there is. */
static void no_memory_for_a_check(void) {
    for (int damaged = 0; damaged < 2; damaged++) {
        uint64_t chance = 13;
        size_t refused = 0;
        bool failed = true;
        iqdb *db = NULL;
        fault_files *disk = fault_new(NULL);
        support_heap heap = support_heap_make();
        memset(versions_ever, 0, sizeof versions_ever);
        iqdb_options options = options_of(disk, &chance);
        options.allocator = support_allocator(&heap);
        CHECK_EQ_INT(iqdb_open("db", &options, &db), IQDB_OK);
        for (uint64_t id = 0; id < 40; id++) {
            const write_op op = {id, 1};
            CHECK_EQ_INT(apply(db, &op, 1), IQDB_OK);
            if (id == 36 || id == 39) CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
        }
        CHECK(exists(disk, "db", "snap-1") && exists(disk, "db", "snap-2"));
        const uint8_t wrong = 0xEE;
        if (damaged) CHECK(fault_poke(disk, "db", "snap-1", 100, &wrong, 1));
        if (damaged) CHECK(fault_poke(disk, "db", "snap-2", 100, &wrong, 1));
        for (size_t n = 1; failed && n < 100; n++) {
            heap.failed = 0;
            heap.fail_at = n;
            const iqdb_result result = iqdb_verify(db, IQDB_DEPTH_BLOCKS, NULL, NULL);
            failed = heap.failed > 0;
            refused += result == IQDB_ERR_NOMEM;
            heap.fail_at = 0;
            CHECK(result == (failed ? IQDB_ERR_NOMEM : IQDB_OK) || (damaged && result == IQDB_ERR_CORRUPT));
            reported = 0;
            CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_BLOCKS, on_report, NULL), damaged ? IQDB_ERR_CORRUPT : IQDB_OK);
            CHECK_EQ_U64(reported, damaged ? 2u : 0u);
        }
        CHECK(!failed && refused > 0);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        CHECK_EQ_INT(support_heap_problems(&heap), 0);
        fault_free(disk);
    }
}

/* ---- What files say that do not belong together ---- */

static void forge_meta(fault_files *disk, uint64_t at, unsigned bytes, uint64_t value) {
    for (int slot = 0; slot < 2; slot++)
        forge(disk, "META", (uint64_t)slot * IQ_META_SLOT_SIZE, IQ_META_SLOT_SIZE, at, bytes, value);
}

/* META was copied before the last writes were made, and is clean: they are there, and it is told. */
static void a_meta_that_is_older_than_the_log(void) {
    for (int way = 0; way < 3; way++) { /* a sound snapshot, or a damaged one; or no write was acknowledged */
        uint64_t chance = 5;
        size_t size;
        iqdb *db = NULL;
        make_origin();
        fault_files *disk = damaged_copy();
        iqdb_options options = options_of(disk, &chance);
        uint8_t *meta = fault_load(disk, "db", "META", &size);
        CHECK_EQ_INT(iqdb_open("db", &options, &db), IQDB_OK);
        for (uint64_t id = 1; id < 4; id++) {
            const write_op op = {id, 60};
            CHECK_EQ_INT(apply(db, &op, 1), IQDB_OK);
            if (way < 2) CHECK_EQ_INT(iqdb_flush(db), IQDB_OK);
        }
        fault_files *copy = fault_copy(disk);
        CHECK(fault_store(copy, "db", "META", meta, size));
        if (way == 1) plant(copy, "snap-1", 9000, 1);
        iqdb_result result;
        iqdb *repaired = repair(copy, &result);
        CHECK(repaired != NULL);
        size_t told = 0;
        for (size_t i = 0; i < reported && i < REPORTS; i++) told += strcmp(reports[i].file, "wal-2") == 0;
        CHECK_EQ_U64(told, way < 2 ? 1u : 0u); /* once, where META ends the log */
        for (uint64_t id = 1; id < 4; id++) CHECK((version_in(repaired, id) == 60) == (way < 2));
        CHECK_EQ_INT(iqdb_close(repaired), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        free(meta);
        fault_free(copy);
        fault_free(disk);
        fault_free(origin);
    }
}

typedef enum stayed {
    DELTA_DAMAGED,
    DELTA_UNKNOWN,
    WITHOUT_BASE
} stayed;

/* Old logs could not be removed, META is gone, and the delta is damaged: it comes back from the log it was made of, and
 * from no older one. Damage to what the base holds as well is told as such, or, where nothing tells how far the delta
 * goes, as a loss. */
static void logs_that_stayed_with(stayed way) {
    static const char *const texts[] = {"snapshot holds", "are lost", "a snapshot is missing"};
    const bool without_base = way == WITHOUT_BASE;
    uint64_t chance = 11;
    iqdb *db = NULL;
    fault_files *disk = fault_new(NULL);
    memset(versions_ever, 0, sizeof versions_ever);
    iqdb_options options = options_of(disk, &chance);
    CHECK_EQ_INT(iqdb_open("db", &options, &db), IQDB_OK);
    for (uint64_t id = 0; id < ROWS; id++) {
        const write_op op = {id, 1};
        CHECK_EQ_INT(apply(db, &op, 1), IQDB_OK);
    }
    fault_fail_nth(disk, FAULT_REMOVE, 1, IQDB_ERR_IO, true);
    CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
    for (unsigned version = 2; version < 4; version++) {
        for (uint64_t id = 0; id < 6; id++) {
            const write_op op = {id * 20 + version, version};
            CHECK_EQ_INT(apply(db, &op, 1), IQDB_OK);
        }
        if (version == 2) CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    fault_fail_nth(disk, 0, 0, IQDB_OK, false);
    CHECK(exists(disk, "db", "wal-1") && exists(disk, "db", "wal-2") && exists(disk, "db", "wal-3"));
    CHECK(exists(disk, "db", "snap-1") && exists(disk, "db", "snap-2"));
    fault_store(disk, "db", "META", NULL, 0);
    if (without_base) fault_store(disk, "db", "snap-1", NULL, 0);
    if (!without_base) plant(disk, "wal-1", 3 * 4096 + 50, 1);
    if (way == DELTA_DAMAGED) plant(disk, "snap-2", 8192 + 100, 1);
    if (way == DELTA_UNKNOWN) plant(disk, "snap-2", 30, 1); /* its header: nothing tells its LSNs */
    iqdb_result result;
    iqdb *repaired = repair(disk, &result);
    CHECK(repaired != NULL);
    bool told = false;
    for (size_t i = 0; i < reported && i < REPORTS; i++)
        told = told || (strcmp(reports[i].file, without_base ? "META" : "wal-1") == 0 &&
                        strstr(reports[i].text, texts[way]) != NULL);
    CHECK(told);
    for (uint64_t id = 0; id < ROWS; id++) {
        const unsigned want = id % 20 == 2 && id < 120 ? 2 : id % 20 == 3 && id < 120 ? 3 : 1;
        CHECK_EQ_U64(version_in(repaired, id), want);
    }
    CHECK_EQ_INT(iqdb_close(repaired), IQDB_OK);
    fault_free(disk);
}

static void logs_that_stayed(void) {
    logs_that_stayed_with(DELTA_DAMAGED);
    logs_that_stayed_with(DELTA_UNKNOWN);
    logs_that_stayed_with(WITHOUT_BASE);
}

/* In the place of the log that goes on lies the one before: what it has is not had twice, what the other had is lost,
 * and both are told. */
static void a_log_in_the_place_of_the_next(void) {
    uint64_t chance = 11;
    size_t size;
    iqdb *db = NULL;
    iqdb_stats first, last;
    fault_files *disk = fault_new(NULL);
    memset(versions_ever, 0, sizeof versions_ever);
    iqdb_options options = options_of(disk, &chance);
    CHECK_EQ_INT(iqdb_open("db", &options, &db), IQDB_OK);
    for (uint64_t id = 1; id < 9; id++) {
        const write_op op = {id, 1};
        CHECK_EQ_INT(apply(db, &op, 1), IQDB_OK);
        CHECK_EQ_INT(iqdb_stat(db, id <= 5 ? &first : &last), IQDB_OK);
        if (id != 4) continue;
        CHECK_EQ_INT(iqdb_flush(db), IQDB_OK);
        fault_files *cut = fault_copy(disk); /* a crash: the log goes on in another one */
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        fault_free(disk);
        disk = cut;
        options = options_of(disk, &chance);
        CHECK_EQ_INT(iqdb_open("db", &options, &db), IQDB_OK);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    uint8_t *log = fault_load(disk, "db", "wal-1", &size);
    CHECK(log != NULL && exists(disk, "db", "wal-2"));
    fault_store(disk, "db", "wal-2", log, size);
    free(log);
    forge(disk, "wal-2", 0, 4096, IQ_LOG_NUMBER_AT, 8, 2);
    iqdb_result result;
    iqdb *repaired = repair(disk, &result);
    CHECK(repaired != NULL && reported >= 2 && strcmp(reports[0].file, "wal-2") == 0);
    CHECK(covers(first.last_lsn, last.last_lsn, "wal-2"));
    CHECK_EQ_INT(iqdb_len(repaired), 4);
    for (uint64_t id = 1; id < 9; id++) CHECK_EQ_U64(version_in(repaired, id), id < 5 ? 1 : NONE);
    CHECK_EQ_INT(iqdb_close(repaired), IQDB_OK);
    fault_free(disk);
}

/* Without META, and with more snapshots that add to one another than META can name: the last ones count, but for one
 * that no other adds to, and it is told that what they add to is missing. All have the same rows. */
static void more_snapshots_than_meta_names(void) {
    const unsigned last = IQ_META_SNAPSHOT_MAX + 8, stranger = last - 9;
    make_origin();
    account_snapshot();
    fault_files *disk = damaged_copy();
    const uint64_t lsn = iq_get_u64(snapshot + IQ_SNAPSHOT_LSN_AT);
    const uint64_t roots_at = table_at + IQ_SNAPSHOT_BLOCK, footer_at = snapshot_size - IQ_FOOTER_SIZE;
    for (unsigned number = 2; number <= last; number++) {
        char name[32];
        size_t size;
        const uint64_t own = number == stranger ? lsn - last : lsn - last + number + (number < stranger);
        snprintf(name, sizeof name, "snap-%u", number);
        fault_store(disk, "db", name, snapshot, snapshot_size);
        forge(disk, name, 0, IQ_SNAPSHOT_HEADER_SIZE, IQ_SNAPSHOT_NUMBER_AT, 8, number);
        forge(disk, name, 0, IQ_SNAPSHOT_HEADER_SIZE, IQ_SNAPSHOT_SINCE_AT, 8, own - 1);
        forge(disk, name, 0, IQ_SNAPSHOT_HEADER_SIZE, IQ_SNAPSHOT_LSN_AT, 8, own);
        uint8_t *bytes = fault_load(disk, "db", name, &size);
        iq_put_u32(bytes + table_at, iq_crc32(0, bytes, IQ_SNAPSHOT_BLOCK));
        iq_put_u32(bytes + roots_at, iq_crc32(0, bytes + table_at, IQ_SNAPSHOT_BLOCK));
        fault_store(disk, "db", name, bytes, size);
        forge(disk, name, footer_at, IQ_FOOTER_SIZE, IQ_FOOTER_ROOTS_CRC_AT, 4,
              iq_crc32(0, bytes + roots_at, (size_t)(footer_at - roots_at)));
        free(bytes);
    }
    fault_store(disk, "db", "META", NULL, 0);
    iqdb_result result;
    iqdb *db = repair(disk, &result);
    CHECK(db != NULL && reported == 2);
    CHECK_EQ_U64(expect_state(db, UINT64_MAX, BATCHES), 0);
    CHECK(strstr(reports[0].text, "is missing that") != NULL || strstr(reports[1].text, "is missing that") != NULL);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    free(snapshot);
    fault_free(disk);
    fault_free(origin);
}

/* Records of another dimension than META gives are refused one by one, and told. */
static void records_that_do_not_fit(void) {
    uint64_t chance = 11;
    iqdb *db = NULL;
    fault_files *disk = fault_new(NULL);
    memset(versions_ever, 0, sizeof versions_ever);
    iqdb_options options = options_of(disk, &chance);
    CHECK_EQ_INT(iqdb_open("db", &options, &db), IQDB_OK);
    for (uint64_t id = 1; id < 6; id++) {
        const write_op op = {id, id == 3 ? NONE : 1};
        CHECK_EQ_INT(apply(db, &op, 1), IQDB_OK);
    }
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    forge_meta(disk, IQ_META_DIM_AT, 4, DIM + 1);
    iqdb_result result;
    iqdb *repaired = repair(disk, &result);
    CHECK(repaired != NULL && reported == 4);
    CHECK_EQ_INT(iqdb_len(repaired), 0);
    CHECK_EQ_INT(iqdb_close(repaired), IQDB_OK);
    fault_free(disk);
}

/* Without META: logs of another database, logs that a later one has taken over, more logs than META can name, and a
 * snapshot that does not say how far it goes. */
static void strangers_among_the_files(void) {
    make_origin();
    account_snapshot();
    const uint64_t last = batches[BATCHES - 1].last_lsn;
    for (int way = 0; way < 4; way++) {
        fault_files *disk = damaged_copy();
        size_t size;
        uint8_t *log = fault_load(disk, "db", "wal-2", &size);
        for (unsigned number = 3; number < (way == 2 ? 14u : way == 3 ? 3u : 5u); number++) {
            char name[32];
            snprintf(name, sizeof name, "wal-%u", number);
            fault_store(disk, "db", name, log, 4096);
            forge(disk, name, 0, 4096, IQ_LOG_NUMBER_AT, 8, number);
            forge(disk, name, 0, 4096, IQ_LOG_FIRST_AT, 8, last + 100 + (way == 1 ? 20 - number : number));
            if (way == 0) forge(disk, name, 0, 4096, IQ_PAGE_UUID_AT, number == 3 ? 8 : 0, 999);
        }
        free(log);
        fault_store(disk, "db", "META", NULL, 0);
        if (way == 3) plant(disk, "snap-1", 30, 1);
        iqdb_result result;
        iqdb *db = repair(disk, &result);
        CHECK(db != NULL);
        if (way < 2) CHECK_EQ_U64(expect_state(db, UINT64_MAX, BATCHES), 0);
        for (uint64_t id = 0; id < IDS; id++) CHECK(version_in(db, id) != UINT32_MAX);
        CHECK(reported > 0 &&
              (way == 3 || iqdb_len(db) >= ROWS)); /* without META only the first block tells what rows are */
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
        fault_free(disk);
    }
    free(snapshot);
    fault_free(origin);
}

/* What a later version has written is not repaired by this one. */
static void later_versions(void) {
    make_origin();
    for (int way = 0; way < 2; way++) {
        uint64_t chance = 3;
        fault_files *disk = damaged_copy();
        iqdb_options options = options_of(disk, &chance);
        if (way == 0) forge_meta(disk, IQ_PAGE_VERSION_AT, 4, 2);
        if (way == 1) forge(disk, "snap-1", UINT64_MAX, IQ_FOOTER_SIZE, IQ_PAGE_VERSION_AT, 4, 2);
        CHECK_EQ_INT(iqdb_repair("db", "new", &options, NULL, NULL), IQDB_ERR_VERSION);
        CHECK(!exists(disk, "new", "META"));
        fault_free(disk);
    }
    fault_free(origin);
}

static void what_cannot_be_repaired(void) {
    uint64_t chance = 3;
    make_origin();
    iqdb_options options = options_of(origin, &chance);
    iqdb *db = NULL;
    CHECK_EQ_INT(iqdb_repair(NULL, "new", &options, NULL, NULL), IQDB_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(iqdb_repair("nowhere", "new", &options, NULL, NULL), IQDB_ERR_NOT_FOUND);
    CHECK_EQ_INT(iqdb_repair("db", "db", &options, NULL, NULL), IQDB_ERR_INVALID_CONFIG);
    CHECK_EQ_INT(iqdb_open("db", &options, &db), IQDB_OK);
    CHECK_EQ_INT(iqdb_repair("db", NULL, &options, NULL, NULL), IQDB_ERR_LOCKED);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    fault_store(origin, "empty", "LOCK", "", 0);
    CHECK_EQ_INT(iqdb_repair("empty", NULL, &options, NULL, NULL), IQDB_ERR_NOT_FOUND);
    fault_free(origin);
}

TEST_MAIN("db/repair", TEST(a_sound_directory_is_copied), TEST(a_snapshot_of_before_the_first_record),
          TEST(indexed_keys_stay), TEST(without_a_list_a_choice_moves_nothing), TEST(damage_to_meta_costs_nothing),
          TEST(damage_to_a_snapshot_costs_the_rows_of_one_block), TEST(damage_to_a_log_costs_one_batch),
          TEST(damage_to_checksums_costs_nothing), TEST(without_meta_nothing_is_lost), TEST(whole_files_may_be_missing),
          TEST(a_torn_tail_is_no_loss), TEST(heavy_damage_invents_nothing), TEST(every_fault_during_repair),
          TEST(every_fault_about_a_large_batch), TEST(no_memory_for_a_check), TEST(a_log_in_the_place_of_the_next),
          TEST(more_snapshots_than_meta_names), TEST(a_meta_that_is_older_than_the_log), TEST(logs_that_stayed),
          TEST(records_that_do_not_fit), TEST(strangers_among_the_files), TEST(later_versions),
          TEST(what_cannot_be_repaired))
