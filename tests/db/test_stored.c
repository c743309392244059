/* Codes and lists that are stored: a database opened again has them as they were, and makes none; over deltas and logs;
 * damaged, of another kind, or saying what is not so; and what is written beside their being stored. */
#include "db/db.h"
#include "fuzz/forge.h"
#include "index/lists.h"
#include "persist/sections.h"
#include "vectors.h"

enum {
    DIM = 24,
    K = 10,
    ASKED = 40,
    IDS = 3000
};

typedef struct shelf {
    fault_files *disk;
    iqdb_options options;
    iqdb_error error;
    iqdb *db, *plain; /* plain: the same records in memory, without index or codes */
    uint64_t random, entropy;
    int kind;
} shelf;

static shelf s;
static size_t warnings;

static void warn(iqdb_level level, const iqdb_error *message, void *user) {
    (void)message;
    (void)user;
    warnings += level == IQDB_LEVEL_WARNING;
}

static void start(iqdb_metric metric, iqdb_index index, uint32_t nlist, int kind) {
    iqdb_options plain = iqdb_options_default();
    memset(&s, 0, sizeof s);
    s.disk = fault_new(NULL);
    s.kind = kind;
    s.random = s.entropy = 7 + (uint64_t)kind;
    s.options = iqdb_options_default();
    s.options.files = fault_table(s.disk);
    s.options.entropy.fill_fn = world_entropy;
    s.options.entropy.user = &s.entropy;
    s.options.error = &s.error;
    s.options.logger.log_fn = warn;
    s.options.metric = plain.metric = metric;
    s.options.index = index;
    s.options.nlist = nlist;
    s.options.m = nlist > 0 && nlist < 16 ? 2 * nlist : 16;
    plain.index = IQDB_INDEX_FLAT;
    plain.no_codes = true;
    CHECK_EQ_INT(iqdb_open("db", &s.options, &s.db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open_in_memory(&plain, &s.plain), IQDB_OK);
}

static void finish(void) {
    if (s.db != NULL) EXPECT(iqdb_close(s.db) == IQDB_OK);
    EXPECT(iqdb_close(s.plain) == IQDB_OK);
    EXPECT(s.disk->open_files + s.disk->open_dirs == 0);
    fault_free(s.disk);
}

static void put(uint64_t id, uint64_t version) {
    float vector[DIM];
    iqdb_record record = iqdb_record_default();
    vectors_row(vector, DIM, s.kind, 3, id + version * 1000000);
    record.id = id;
    record.vector = vector;
    record.dim = DIM;
    CHECK_EQ_INT(iqdb_upsert(s.db, &record), IQDB_OK);
    CHECK_EQ_INT(iqdb_upsert(s.plain, &record), IQDB_OK);
}

static void take(uint64_t id) {
    CHECK_EQ_INT(iqdb_delete(s.db, id, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_delete(s.plain, id, NULL), IQDB_OK);
}

static void change(size_t count, uint64_t ids) {
    for (size_t i = 0; i < count; i++) {
        const uint64_t id = support_random_below(&s.random, ids);
        if (support_random_below(&s.random, 4) == 0) {
            take(id);
        } else {
            put(id, 1 + support_random_below(&s.random, 4));
        }
    }
}

static void settle(void) {
    bool done = false;
    for (int i = 0; i < 100000 && !done; i++) CHECK_EQ_INT(iqdb_maintain(s.db, 1000, &done), IQDB_OK);
    CHECK(done);
}

static iqdb_stats facts(void) {
    iqdb_stats stats;
    memset(&stats, 0, sizeof stats);
    EXPECT(iqdb_stat(s.db, &stats) == IQDB_OK);
    return stats;
}

static void reopen(void) {
    if (s.db != NULL) CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    const iqdb_result result = iqdb_open("db", &s.options, &s.db);
    if (result != IQDB_OK)
        printf("\n    %s at %llu: %s", s.error.file, (unsigned long long)s.error.offset, s.error.text);
    CHECK_EQ_INT(result, IQDB_OK);
}

static void verify(void) { CHECK_EQ_INT(iqdb_verify(s.db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK); }

typedef struct answers {
    iqdb_hit hits[ASKED][K];
    iqdb_plan plan;
} answers;

/* Of a query each: hits, each of which has the score of a scan; in `exact` ones they are those of a scan. */
static void ask(bool exact, answers *out) {
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < ASKED; i++) {
        float vector[DIM];
        iqdb_hit expected[K];
        size_t count, expected_count;
        iqdb_search_info info;
        iqdb_query query = iqdb_query_default();
        vectors_row(vector, DIM, s.kind, 3, 500000 + i);
        query.vector = vector;
        query.k = K;
        CHECK_EQ_INT(iqdb_search(s.plain, &query, expected, &expected_count), IQDB_OK);
        query.info = &info;
        if (exact) query.flags |= IQDB_EXACT;
        CHECK_EQ_INT(iqdb_search(s.db, &query, out->hits[i], &count), IQDB_OK);
        CHECK_EQ_U64(count, expected_count);
        out->plan = info.plan;
        for (size_t j = 0; exact && j < count; j++) {
            CHECK_EQ_U64(out->hits[i][j].id, expected[j].id);
            CHECK_EQ_F32(out->hits[i][j].score, expected[j].score);
        }
    }
}

/* But for a few: where one list ends and another begins decides what is passed over. */
static bool same(const answers *a, const answers *b) {
    size_t others = 0;
    for (size_t i = 0; i < ASKED; i++)
        for (size_t j = 0; j < K; j++) others += a->hits[i][j].score != b->hits[i][j].score;
    if (others > ASKED * K / 50) return EXPECT(!"other hits");
    return a->plan == b->plan;
}

/* Where a section of the newest snapshot lies; size 0: it has none. */
typedef struct place {
    char name[32];
    uint64_t offset, size;
} place;

static place find(uint32_t kind) {
    place found;
    memset(&found, 0, sizeof found);
    for (unsigned i = 40; i > 0 && found.name[0] == 0; i--) {
        char name[32];
        size_t size;
        snprintf(name, sizeof name, "snap-%u", i);
        uint8_t *bytes = fault_load(s.disk, "db", name, &size);
        if (bytes == NULL) continue;
        memcpy(found.name, name, sizeof name);
        const uint8_t *footer = bytes + size - IQ_FOOTER_SIZE;
        const uint8_t *list = bytes + iq_get_u64(footer + IQ_FOOTER_LIST_AT);
        for (uint32_t j = 0; j < iq_get_u32(footer + IQ_FOOTER_SECTIONS_AT); j++, list += IQ_SECTION_ENTRY_SIZE) {
            if (iq_get_u32(list + IQ_SECTION_KIND_AT) != kind) continue;
            EXPECT(iq_get_u32(list + IQ_SECTION_IGNORABLE_AT) == (kind >= 8 ? IQ_SECTION_DERIVED : 0));
            found.offset = iq_get_u64(list + IQ_SECTION_OFFSET_AT);
            found.size = iq_get_u64(list + IQ_SECTION_BYTES_AT);
        }
        free(bytes);
    }
    return found;
}

/* Written, settled, closed and opened: all is there at once, and nothing is left to do, nor written. */
static void all_again(iqdb_metric metric, int kind, bool codes, uint32_t nlist, iqdb_index index) {
    static answers before, after;
    start(metric, index, nlist, kind);
    if (!codes) {
        CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
        s.options.no_codes = true;
        CHECK_EQ_INT(iqdb_open("db", &s.options, &s.db), IQDB_OK);
    }
    for (uint64_t id = 0; id < IDS; id++) put(id, 0);
    change(1500, IDS + 300);
    settle();
    ask(true, &before);
    ask(false, &before);
    const iqdb_stats full = facts();
    CHECK_EQ_INT(full.index, index);
    CHECK_EQ_U64(full.index_rows, full.records);
    const bool has_codes = codes && metric != IQDB_L1;
    CHECK((find(IQ_SECTION_CODES).size > 0) == has_codes);
    CHECK(find(IQ_SECTION_INDEX).size > 0);
    reopen();
    const iqdb_stats stats = facts();
    CHECK_EQ_U64(stats.index_rows, full.index_rows);
    CHECK_EQ_U64(stats.index_lists, full.index_lists);
    CHECK_EQ_U64(stats.longest_list, full.longest_list);
    ask(false, &after);
    CHECK(same(&before, &after));
    ask(true, &after);
    verify();
    const uint64_t lsn = stats.last_lsn;
    settle();
    CHECK_EQ_U64(facts().last_lsn, lsn);
    CHECK_EQ_U64(facts().snapshot_bytes, stats.snapshot_bytes);
    change(300, IDS + 300);
    settle();
    verify();
    ask(true, &after);
    finish();
}

static void everything_is_there_again(void) {
    for (int metric = IQDB_L2; metric <= IQDB_L1; metric += (int)support_amount(3, 1, 1)) {
        all_again((iqdb_metric)metric, 0, true, 40, IQDB_INDEX_IVF);
        all_again((iqdb_metric)metric, 0, false, 1, IQDB_INDEX_IVF);
        if (metric == IQDB_L1) continue;
        all_again((iqdb_metric)metric, 0, true, 40, IQDB_INDEX_HNSW);
        all_again((iqdb_metric)metric, 0, false, 3, IQDB_INDEX_HNSW);
    }
    for (int kind = 1; kind < VECTORS_KINDS; kind += (int)support_amount(VECTORS_KINDS, 1, 1)) {
        all_again(IQDB_L2, kind, true, 0, IQDB_INDEX_IVF);
        all_again(IQDB_COSINE, kind, true, 700, IQDB_INDEX_IVF);
        all_again(IQDB_L2, kind, true, 0, IQDB_INDEX_HNSW);
    }
}

/* What came behind the base is fresh, or gone. */
static void deltas_and_logs_on_top(void) {
    static answers found;
    start(IQDB_L2, IQDB_INDEX_IVF, 40, 0);
    for (uint64_t id = 0; id < IDS; id++) put(id, 0);
    settle();
    for (size_t round = 0; round < support_amount(3, 30, 60); round++) {
        const uint64_t before = facts().index_rows;
        change(100, IDS + 500);
        if (round % 2 == 0) CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
        change(100, IDS + 500);
        if (round % 3 == 0) {
            world_kill(s.disk, &s.db);
        } else if (round % 3 == 1) {
            settle();
        }
        reopen();
        const iqdb_stats stats = facts();
        CHECK(stats.index_rows > before / 2 && stats.index_rows <= stats.records);
        verify();
        ask(true, &found);
        ask(false, &found);
        CHECK_EQ_INT(found.plan, IQDB_PLAN_LISTS);
        if (round % 4 == 0) settle();
        verify();
    }
    finish();
}

/* Writes, deletes and searches between the slices of a whole checkpoint, which stores the lists. */
static void written_beside(void) {
    static answers found;
    size_t stored = 0;
    start(IQDB_L2, IQDB_INDEX_IVF, 60, 0);
    for (uint64_t id = 0; id < IDS; id++) put(id, 0);
    for (size_t round = 0; round < support_amount(2, 10, 20); round++) {
        const iqdb_clock units = {NULL, NULL};
        bool done = false;
        while (!done) CHECK_EQ_INT(iqdb_maintain(s.db, 1000, &done), IQDB_OK);
        (void)iq_db_lock(s.db);
        s.db->home->checkpoint.store = true;
        iq_db_leave(s.db);
        for (int i = 0; s.db->home->checkpoint.store || s.db->home->checkpoint.is_pinned; i++) {
            iq_limit limit = iq_limit_make(units, NULL);
            iq_limit_end_in(&limit, 1);
            (void)iq_db_lock(s.db);
            CHECK_EQ_INT(iq_checkpoint_run(s.db, false, &limit), IQDB_OK);
            stored += s.db->saves;
            iq_db_leave(s.db);
            if (s.db->saves > 0 || i % 4 == 0) change(1, IDS + 300); /* which does a unit, too */
            if (i % 5 == 0) ask(true, &found);
        }
        CHECK(find(IQ_SECTION_INDEX).size > 0);
        CHECK_EQ_U64(s.db->saves, 0);
        verify();
        if (round % 2 == 0) world_kill(s.disk, &s.db);
        reopen();
        CHECK(facts().index_rows > 0);
        verify();
        ask(true, &found);
        settle();
        verify();
    }
    CHECK(stored > 5);
    finish();
}

/* Every block of the sections, in turn: refused by file and offset, or, where that is wanted, made anew. */
static void damage_is_found_or_mended(void) {
    static answers before, after;
    start(IQDB_COSINE, IQDB_INDEX_IVF, 40, 0);
    for (uint64_t id = 0; id < IDS; id++) put(id, 0);
    settle();
    ask(true, &before);
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.db = NULL;
    for (uint32_t kind = IQ_SECTION_CODES; kind <= IQ_SECTION_INDEX; kind++) {
        const place section = find(kind);
        CHECK(section.size > 3 * 8192);
        for (uint64_t at = 0; at < section.size; at += support_amount(40960, 4096, 512)) {
            fault_files *sound = s.disk;
            const uint64_t block = (section.offset + at) / 8192 * 8192;
            if (block < section.offset || block + 8192 > section.offset + section.size)
                continue; /* others are there, too */
            const uint8_t other = (uint8_t)at ^ 0x5A;
            s.disk = fault_copy(sound);
            s.options.files = fault_table(s.disk);
            CHECK(fault_poke(s.disk, "db", section.name, section.offset + at, &other, 1));
            if (block + 3 * 8192 < section.offset + section.size)
                CHECK(fault_poke(s.disk, "db", section.name, section.offset + at + 2 * 8192, &other, 1));
            s.options.rebuild_damaged_index = false;
            const iqdb_result result = iqdb_open("db", &s.options, &s.db);
            if (result == IQDB_OK) { /* it was that byte */
                CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
            } else {
                CHECK_EQ_INT(result, IQDB_ERR_CORRUPT);
                CHECK(strcmp(s.error.file, section.name) == 0);
                CHECK(s.error.offset / 8192 * 8192 == block || s.error.offset / 8192 * 8192 == block + 2 * 8192);
                s.options.rebuild_damaged_index = true;
                warnings = 0;
                CHECK_EQ_INT(iqdb_open("db", &s.options, &s.db), IQDB_OK);
                CHECK_EQ_INT(s.error.code, IQDB_OK);
                CHECK_EQ_U64(warnings, 1);
                CHECK_EQ_U64(facts().index_rows, kind == IQ_SECTION_INDEX ? 0 : IDS);
                ask(true, &after);
                CHECK(same(&before, &after));
                CHECK_EQ_INT(iqdb_verify(s.db, IQDB_DEPTH_BLOCKS, NULL, NULL), IQDB_ERR_CORRUPT);
                settle();
                CHECK_EQ_U64(facts().index_rows, IDS);
                verify();
                CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
                s.options.rebuild_damaged_index = false;
                CHECK_EQ_INT(iqdb_open("db", &s.options, &s.db), IQDB_OK);
                CHECK_EQ_U64(facts().index_rows, IDS);
                CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
            }
            s.db = NULL;
            fault_free(s.disk);
            s.disk = sound;
        }
    }
    finish();
}

static size_t codes_found;

static void note(const iqdb_error *finding, void *user) {
    (void)user;
    codes_found += strstr(finding->text, "code") != NULL;
}

/* A number of a section becomes another, under valid checksums. */
static void lie(uint32_t kind, uint64_t at, uint32_t value) {
    forge f;
    const place section = find(kind);
    forge_read(s.disk, &f);
    for (size_t i = 0; i < f.count; i++)
        if (strcmp(f.files[i].name, section.name) == 0) iq_put_u32(f.files[i].bytes + section.offset + at, value);
    forge_seal(&f, true);
    fault_free(s.disk);
    s.disk = forge_disk(&f);
    forge_free(&f);
    s.options.files = fault_table(s.disk);
}

static void begin_lies(void) {
    start(IQDB_L2, IQDB_INDEX_IVF, 40, 0);
    for (uint64_t id = 0; id < IDS; id++) put(id, 0);
    settle();
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.db = NULL;
}

/* Codes that are stored are those that are used: one that is not its row's is found by verify, in the rows and in the
 * lists, and by an open that asks for it. */
static void codes_that_are_not_of_their_rows(void) {
    begin_lies();
    lie(IQ_SECTION_CODES, IQ_CODES_HEAD + 128 + 64, 0x12345678);
    reopen();
    codes_found = 0;
    CHECK_EQ_INT(iqdb_verify(s.db, IQDB_DEPTH_RECORDS, note, NULL), IQDB_ERR_CORRUPT);
    CHECK_EQ_U64(codes_found, 1);
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.options.verify = IQDB_DEPTH_RECORDS;
    CHECK_EQ_INT(iqdb_open("db", &s.options, &s.db), IQDB_ERR_CORRUPT);
    finish();
    begin_lies();
    lie(IQ_SECTION_INDEX, find(IQ_SECTION_INDEX).size - 64, 0x12345678);
    reopen();
    codes_found = 0;
    CHECK_EQ_INT(iqdb_verify(s.db, IQDB_DEPTH_RECORDS, note, NULL), IQDB_ERR_CORRUPT);
    CHECK_EQ_U64(codes_found, 1);
    finish();
}

/* Whatever a graph says under valid checksums, it is refused, or answers. */
static void graphs_that_make_no_sense(void) {
    static answers found;
    start(IQDB_L2, IQDB_INDEX_HNSW, 40, 0);
    for (uint64_t id = 0; id < IDS; id++) put(id, 0);
    settle();
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.db = NULL;
    size_t refused = 0, taken = 0;
    const uint64_t node = 384 + 64 * 9, frame = 64 + 64 * 12;
    const uint64_t lies = support_amount(24, 600, 4000);
    for (uint64_t i = 0; i < lies; i++) {
        fault_files *sound = s.disk;
        static const uint32_t values[] = {0,          1,          5,          IDS,        IDS - 1,
                                          0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FC00000, 0x7F800000};
        s.disk = fault_copy(sound);
        for (int many = 0; many < (i % 3 == 2 ? 5 : 1); many++) {
            const uint64_t size = find(IQ_SECTION_INDEX).size,
                           first = frame + support_random_below(&s.random, 200) * node;
            uint64_t at = 4 + i * 4 % 60;
            if (i % 2 == 1) at = first + support_random_below(&s.random, 80) * 4;
            if (i % 8 == 7) at = frame + support_random_below(&s.random, (size - frame) / 4) * 4;
            lie(IQ_SECTION_INDEX, at, values[support_random_below(&s.random, sizeof values / sizeof *values)]);
        }
        s.options.files = fault_table(s.disk);
        const iqdb_result result = iqdb_open("db", &s.options, &s.db);
        CHECK(result == IQDB_OK || result == IQDB_ERR_CORRUPT);
        refused += result != IQDB_OK;
        taken += result == IQDB_OK;
        if (result == IQDB_OK) {
            ask(false, &found);
            ask(true, &found);
            for (uint64_t id = 0; id < 150; id++) CHECK_EQ_INT(iqdb_delete(s.db, id * 7, NULL), IQDB_OK);
            for (uint64_t id = 0; id < 150; id++) {
                float vector[DIM];
                vectors_row(vector, DIM, s.kind, 3, id * 7);
                iqdb_record record = iqdb_record_default();
                record.id = id * 7;
                record.vector = vector;
                record.dim = DIM;
                CHECK_EQ_INT(iqdb_upsert(s.db, &record), IQDB_OK);
            }
            settle();
            ask(false, &found);
            verify();
            CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
        }
        s.db = NULL;
        fault_free(s.disk);
        s.disk = sound;
    }
    CHECK(refused > lies / 8 && taken > lies / 8);
    finish();
}

static uint32_t rows_that_came(void) { return ((const iq_lists *)(const void *)s.db->index)->came; }

/* How many rows have come since centres were made is known after an open too, so that they are made again when they are
 * due, however often a database is opened. */
static void replacements_are_counted_across_opens(void) {
    start(IQDB_L2, IQDB_INDEX_IVF, 40, 0);
    s.options.compact_on_close = true;
    reopen();
    for (uint64_t id = 0; id < IDS; id++) put(id, 0);
    settle();
    uint32_t came = rows_that_came();
    for (uint64_t version = 1; version < 4; version++) {
        for (uint64_t id = 0; id < 900; id++) put(id, version);
        settle();
        CHECK_EQ_U64(rows_that_came(), came + 900);
        came += 900;
        reopen();
        CHECK_EQ_U64(facts().index_rows, IDS);
        CHECK_EQ_U64(rows_that_came(), came);
    }
    finish();
}

/* With words of its section changed, under valid checksums, the graph is refused; without that, it is not. */
static void refuses(const uint64_t *offsets, size_t count, uint32_t value) {
    fault_files *sound = s.disk;
    s.disk = fault_copy(sound);
    for (size_t i = 0; i < count; i++) lie(IQ_SECTION_INDEX, offsets[i], value);
    s.options.files = fault_table(s.disk);
    iqdb_result result = iqdb_open("db", &s.options, &s.db);
    EXPECT(result == IQDB_ERR_CORRUPT);
    if (result == IQDB_OK) { /* which shows what comes of it */
        static answers found;
        ask(false, &found);
        put(IDS, 1);
        settle();
    }
    if (s.db != NULL) EXPECT(iqdb_close(s.db) == IQDB_OK);
    s.db = NULL;
    fault_free(s.disk);
    s.disk = sound;
    s.options.files = fault_table(s.disk);
}

/* As many births as there are numbers: the next one would be the first. And signs so large that what they turn is no
 * number any more. */
static void graphs_with_numbers_beyond_reason(void) {
    const uint64_t born[] = {IQ_GRAPH_BORN_AT, IQ_GRAPH_BORN_AT + 4};
    start(IQDB_L2, IQDB_INDEX_HNSW, 40, 0);
    for (uint64_t id = 0; id < 100; id++) put(id, 0);
    settle();
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.db = NULL;
    refuses(born, 2, UINT32_MAX);
    uint64_t signs[2 * 64];
    for (uint64_t i = 0; i < 128; i++) signs[i] = IQ_GRAPH_HEAD + (64 + i) * 4;
    refuses(signs, 128, 0x7F61B1E6); /* 3e38 */
    refuses(signs + 127, 1, 0x3F800001);
    reopen();
    verify();
    finish();
}

/* Of another kind: left aside, for it is marked as something that can be; and with the mark gone refused. */
static void kinds_that_nobody_knows(void) {
    static answers found;
    for (uint32_t kind = IQ_SECTION_CODES; kind <= IQ_SECTION_INDEX; kind++) {
        begin_lies();
        lie(kind, 0, 77);
        reopen();
        CHECK_EQ_U64(facts().index_rows, kind == IQ_SECTION_INDEX ? 0 : IDS);
        ask(true, &found);
        verify();
        settle();
        CHECK_EQ_U64(facts().index_rows, IDS);
        CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
        s.db = NULL;
        finish();
        begin_lies();
        /* The mark stands in the list of sections. */
        forge f;
        const place section = find(kind);
        forge_read(s.disk, &f);
        for (size_t i = 0; i < f.count; i++) {
            if (strcmp(f.files[i].name, section.name) != 0) continue;
            const uint8_t *footer = f.files[i].bytes + f.files[i].size - IQ_FOOTER_SIZE;
            uint8_t *list = f.files[i].bytes + iq_get_u64(footer + IQ_FOOTER_LIST_AT);
            while (iq_get_u32(list + IQ_SECTION_KIND_AT) != kind) list += IQ_SECTION_ENTRY_SIZE;
            iq_put_u32(list + IQ_SECTION_IGNORABLE_AT, 0);
            iq_put_u32(f.files[i].bytes + section.offset, 77);
        }
        forge_seal(&f, true);
        fault_free(s.disk);
        s.disk = forge_disk(&f);
        forge_free(&f);
        s.options.files = fault_table(s.disk);
        CHECK_EQ_INT(iqdb_open("db", &s.options, &s.db), IQDB_ERR_VERSION);
        CHECK_EQ_INT(s.error.code, IQDB_ERR_VERSION);
        CHECK(strcmp(s.error.file, section.name) == 0);
        finish();
    }
}

/* An open goes by its options: it leaves a stored index aside where they want none, or another number of lists, and where
 * there are to be no codes. */
static void other_options(void) {
    begin_lies();
    s.options.index = IQDB_INDEX_FLAT;
    reopen();
    CHECK_EQ_INT(facts().index, IQDB_INDEX_FLAT);
    CHECK_EQ_U64(facts().index_bytes, 0);
    s.options.index = IQDB_INDEX_AUTO;
    s.options.nlist = 0;
    reopen();
    CHECK_EQ_U64(facts().index_lists, 40);
    CHECK_EQ_U64(facts().index_rows, IDS);
    s.options.nlist = 30;
    reopen();
    CHECK_EQ_U64(facts().index_rows, 0);
    s.options.nlist = 40;
    s.options.no_codes = true;
    reopen();
    CHECK_EQ_U64(facts().index_rows, 0);
    s.options.no_codes = false;
    s.options.read_only = true;
    reopen();
    CHECK_EQ_U64(facts().index_rows, IDS);
    verify();
    finish();
}

typedef struct copy {
    uint8_t *bytes;
    size_t size;
} copy;

static bool copy_some(const void *bytes, size_t size, void *user) {
    copy *c = (copy *)user;
    c->bytes = (uint8_t *)fault_grow(c->bytes, c->size + size);
    memcpy(c->bytes + c->size, bytes, size);
    c->size += size;
    return true;
}

/* A blob and a backup have them too, and are the same bytes each time. */
static void copies_have_them(void) {
    static answers before, after;
    copy one = {NULL, 0}, two = {NULL, 0};
    iqdb *original, *backup;
    begin_lies();
    reopen();
    ask(false, &before);
    CHECK_EQ_INT(iqdb_export_blob(s.db, copy_some, &one), IQDB_OK);
    CHECK_EQ_INT(iqdb_export_blob(s.db, copy_some, &two), IQDB_OK);
    CHECK(one.size == two.size && memcmp(one.bytes, two.bytes, one.size) == 0);
    CHECK_EQ_INT(iqdb_backup(s.db, "copy"), IQDB_OK);
    original = s.db;
    iqdb_options options = iqdb_options_default();
    CHECK_EQ_INT(iqdb_load_blob(one.bytes, one.size, &options, &s.db), IQDB_OK);
    CHECK_EQ_U64(facts().index_rows, IDS);
    ask(false, &after);
    CHECK(same(&before, &after));
    verify();
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    CHECK_EQ_INT(iqdb_open("copy", &s.options, &backup), IQDB_OK);
    s.db = backup;
    CHECK_EQ_U64(facts().index_rows, IDS);
    ask(false, &after);
    CHECK(same(&before, &after));
    CHECK_EQ_INT(iqdb_close(backup), IQDB_OK);
    s.db = original;
    CHECK_EQ_INT(iqdb_open_blob(one.bytes, one.size, &options, &s.db), IQDB_OK);
    ask(true, &after);
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.db = original;
    free(one.bytes);
    free(two.bytes);
    finish();
}

/* A record each, with ids from `from` on. */
static void fill(iqdb *db, uint64_t from, uint64_t count) {
    for (uint64_t id = from; id < from + count; id++) {
        float vector[DIM];
        iqdb_record record = iqdb_record_default();
        vectors_row(vector, DIM, 0, 3, id);
        record.id = id;
        record.vector = vector;
        record.dim = DIM;
        CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
    }
}

/* Calls must not go on for ever, so a checkpoint is made by slices here. */
static void checkpoint_ends(void) {
    const iqdb_clock units = {NULL, NULL};
    size_t slices = 0;
    bool wants = true;
    for (; wants && slices < 2000; slices++) {
        iq_limit limit = iq_limit_make(units, NULL);
        iq_limit_end_in(&limit, 8);
        (void)iq_db_lock(s.db);
        EXPECT(iq_checkpoint_run(s.db, false, &limit) == IQDB_OK);
        wants = s.db->home->checkpoint.is_pinned || iq_home_wants_store(s.db->home, true);
        iq_db_leave(s.db);
    }
    CHECK(!wants);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    settle();
}

/* What deltas leave out of the stored index adds up, until there is a base for it. */
static void deltas_add_up(void) {
    for (int which = 0; which < 2; which++) {
        uint64_t ids = IDS;
        start(IQDB_L2, which == 0 ? IQDB_INDEX_IVF : IQDB_INDEX_HNSW, 12, 0);
        fill(s.db, 0, ids);
        settle();
        CHECK_EQ_U64(s.db->index->unstored, 0);
        for (; !(s.db->index->unstored + 500 > (ids + 500) / 3); ids += 500) {
            fill(s.db, ids, 500);
            settle();
            CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
            CHECK(s.db->home->checkpoint.count > 1);
            CHECK_EQ_U64(s.db->index->unstored, ids + 500 - IDS);
        }
        fill(s.db, ids, 500);
        settle();
        CHECK_EQ_U64(s.db->home->checkpoint.count, 1);
        CHECK_EQ_U64(s.db->index->unstored, 0);
        world_kill(s.disk, &s.db);
        reopen();
        CHECK_EQ_U64(facts().index_rows, ids + 500);
        finish();
    }
}

/* Goes on with a checkpoint until it has begun to store the index, and does not end it. */
static void begin_to_store(void) {
    const iqdb_clock units = {NULL, NULL};
    s.db->index->storing = 0;
    for (size_t slices = 0; s.db->index->storing == 0 && slices < 2000; slices++) {
        iq_limit limit = iq_limit_make(units, NULL);
        iq_limit_end_in(&limit, 1);
        CHECK_EQ_INT(iq_checkpoint_run(s.db, false, &limit), IQDB_OK);
    }
    CHECK(s.db->home->checkpoint.is_pinned && s.db->index->storing == IDS);
}

/* A base that is given up, or cannot be written, has stored nothing; one without memory to say where rows are goes
 * without the index, and is not made again and again. */
static void bases_that_do_not_come_to_be(void) {
    support_heap heap = support_heap_make();
    const iqdb_clock units = {NULL, NULL};
    iq_limit none = iq_limit_make(units, NULL);
    size_t without = 0, failed = 0;
    start(IQDB_L2, IQDB_INDEX_IVF, 12, 0);
    s.options.allocator = support_allocator(&heap);
    reopen();
    fill(s.db, 0, IDS);
    for (bool done; !s.db->home->checkpoint.store;) CHECK_EQ_INT(iqdb_maintain(s.db, 1000, &done), IQDB_OK);
    s.db->home->checkpoint.store = false;
    (void)iq_db_lock(s.db);
    begin_to_store();
    EXPECT(iq_checkpoint_abandon(s.db));
    EXPECT(iq_home_wants_store(s.db->home, true));
    begin_to_store();
    fault_fail_nth(s.disk, FAULT_WRITE, 1, IQDB_ERR_NOSPACE, true);
    EXPECT(iq_checkpoint_run(s.db, false, &none) == IQDB_ERR_NOSPACE);
    fault_fail_nth(s.disk, 0, 0, IQDB_OK, false);
    EXPECT(iq_home_wants_store(s.db->home, true));
    iq_db_leave(s.db);
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    CHECK_EQ_U64(s.db->index->unstored, 0);
    CHECK(find(IQ_SECTION_INDEX).size > 0);
    for (bool hit = true; hit;) {
        s.db->index->unstored = IDS;
        heap.failed = 0;
        heap.fail_at = ++failed;
        const iqdb_result result = iqdb_checkpoint(s.db);
        hit = heap.failed > 0;
        heap.fail_at = 0;
        CHECK(result == IQDB_OK || result == IQDB_ERR_NOMEM);
        CHECK_EQ_U64(s.db->index->unstored, result == IQDB_OK ? 0 : IDS);
        without += result == IQDB_OK && find(IQ_SECTION_INDEX).size == 0;
    }
    CHECK(failed > 2 && without > 0);
    finish();
    CHECK_EQ_INT(support_heap_problems(&heap), 0);
}

/* An index over nothing is not stored, and no checkpoint waits until it is: of an emptied collection, alone or among
 * others, and of one that was dropped and that a reader keeps. */
static void collections_that_were_emptied(void) {
    for (int which = 0; which < 6; which++) {
        iqdb *full = NULL, *other = NULL;
        start(IQDB_L2, which % 2 == 0 ? IQDB_INDEX_IVF : IQDB_INDEX_HNSW, 12, 0);
        if (which >= 2) CHECK_EQ_INT(iqdb_collection(s.db, "full", &s.options, &full), IQDB_OK);
        if (which >= 4) CHECK_EQ_INT(iqdb_collection(s.db, "other", &s.options, &other), IQDB_OK);
        fill(s.db, 0, 100);
        if (full != NULL) fill(full, 0, 300);
        if (other != NULL) fill(other, 0, 300);
        if (which < 4)
            for (uint64_t id = 0; id < 100; id++) CHECK_EQ_INT(iqdb_delete(s.db, id, NULL), IQDB_OK);
        iqdb_iter iter = iqdb_iter_begin(other != NULL ? other : s.db, NULL);
        if (other != NULL) CHECK_EQ_INT(iqdb_collection_drop(s.db, "other"), IQDB_OK);
        checkpoint_ends();
        CHECK_EQ_U64(iqdb_len(s.db), which < 4 ? 0 : 100);
        iqdb_iter_end(&iter);
        if (other != NULL) CHECK_EQ_INT(iqdb_close(other), IQDB_OK);
        if (full != NULL) CHECK_EQ_INT(iqdb_close(full), IQDB_OK);
        reopen();
        verify();
        fill(s.db, 0, 100);
        settle();
        checkpoint_ends();
        CHECK_EQ_U64(facts().index_rows, 100);
        finish();
    }
}

static void count_losses(const iqdb_error *finding, void *user) { *(uint64_t *)user += finding->records; }

/* Behind payloads that are few there is more than they are, and without the list of sections nobody says so. */
static void repair_without_a_list_of_sections(void) {
    size_t count = 0;
    uint64_t lost = 0;
    start(IQDB_L2, IQDB_INDEX_IVF, 40, 0);
    for (uint64_t id = 0; id < IDS; id++) put(id, 0);
    for (uint64_t id = 0; id < IDS; id += 50) {
        const iqdb_field field = {"n", iqdb_int((int64_t)id)};
        CHECK_EQ_INT(iqdb_update_payload(s.db, id, &field, 1), IQDB_OK);
    }
    settle();
    CHECK_EQ_INT(iqdb_checkpoint(s.db), IQDB_OK);
    s.options.compact_on_close = true;
    reopen(); /* and once more, for this */
    put(0, 1);
    CHECK_EQ_INT(iqdb_close(s.db), IQDB_OK);
    s.db = NULL;
    const place index = find(IQ_SECTION_INDEX);
    const uint8_t damage[64] = {0x55, 0xAA, 0x55};
    CHECK(index.size > 65536);
    /* The list is what follows the last section. */
    CHECK(fault_poke(s.disk, "db", index.name, (index.offset + index.size + 63) / 64 * 64 + 8, damage, sizeof damage));
    CHECK_EQ_INT(iqdb_open("db", &s.options, &s.db), IQDB_ERR_CORRUPT);
    CHECK_EQ_INT(iqdb_repair("db", "mended", &s.options, count_losses, &lost), IQDB_OK);
    CHECK_EQ_INT(iqdb_open("mended", &s.options, &s.db), IQDB_OK);
    CHECK_EQ_U64(iqdb_len(s.db), IDS);
    iqdb_iter iter = iqdb_iter_begin(s.db, NULL);
    while (iqdb_iter_next(&iter))
        if (iter.record.payload.bytes != NULL)
            count += iqdb_payload_int(iter.record.payload, "n", -1) == (int64_t)iter.record.id;
    iqdb_iter_end(&iter);
    CHECK_EQ_U64(lost, 0);
    CHECK_EQ_U64(count, IDS / 50 - 1); /* the first one has been written without */
    finish();
}

TEST_MAIN("db/stored", TEST(everything_is_there_again), TEST(deltas_and_logs_on_top), TEST(written_beside),
          TEST(damage_is_found_or_mended), TEST(codes_that_are_not_of_their_rows), TEST(graphs_that_make_no_sense),
          TEST(kinds_that_nobody_knows), TEST(other_options), TEST(copies_have_them),
          TEST(replacements_are_counted_across_opens), TEST(graphs_with_numbers_beyond_reason),
          TEST(deltas_add_up), TEST(bases_that_do_not_come_to_be), TEST(collections_that_were_emptied),
          TEST(repair_without_a_list_of_sections))
