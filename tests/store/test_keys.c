/* Indexes of payload keys: what a filter accepts is listed, whatever was listed before; what is listed is little more;
 * and neither garbage nor a failed allocation is in the way of that. */
#include "store/keys.h"

#include "store/rows.h"
#include "support.h"
#include "test.h"

#include <stdarg.h>

enum {
    ROWS = 3000,
    TEXT = 200
};

/* Rows with payloads, as a store would have them; row i has none while its bytes are NULL. */
typedef struct world {
    support_heap heap;
    iqdb_allocator allocator;
    iq_keys keys;
    iqdb_payload payloads[ROWS];
    uint32_t bits[ROWS / 32 + 2];
} world;

static world *world_make(const iqdb_index_key *set, size_t count) {
    world *w = (world *)calloc(1, sizeof *w);
    if (w == NULL) exit(2);
    w->heap = support_heap_make();
    w->allocator = support_allocator(&w->heap);
    iq_keys_init(&w->keys, &w->allocator);
    EXPECT(iq_keys_complaint(set, count) == NULL);
    EXPECT(iq_keys_declare(&w->keys, set, count) == IQDB_OK);
    return w;
}

static void world_end(world *w) {
    for (size_t i = 0; i < ROWS; i++) free((void *)(uintptr_t)w->payloads[i].bytes);
    iq_keys_free(&w->keys);
    EXPECT(support_heap_problems(&w->heap) == 0);
    free(w);
}

/* Gives row `row` another payload; no reader is in the way. */
static iqdb_result put(world *w, uint32_t row, const char *json) {
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload payload;
    EXPECT(iqdb_payload_from_json(json, strlen(json), &buffer, &payload) == IQDB_OK);
    void *bytes = malloc(payload.size);
    if (bytes == NULL) exit(2);
    payload.bytes = memcpy(bytes, payload.bytes, payload.size);
    iqdb_buffer_free(&buffer);
    const iqdb_result result = iq_keys_add(&w->keys, row, payload);
    if (result == IQDB_OK) {
        free((void *)(uintptr_t)w->payloads[row].bytes);
        w->payloads[row] = payload;
    } else {
        free(bytes);
    }
    return result;
}

static uint32_t listed_rows(const world *w) {
    uint32_t count = 0;
    for (uint32_t row = 0; row < ROWS; row++) count += w->bits[row / 32] >> row % 32 & 1;
    return count;
}

/* Whether rows listed one by one are those whose bits are set; and none is written where there is no room. */
static bool rows_are_bits(const world *w, const iq_filter *program, uint32_t end) {
    static uint32_t rows[64 * ROWS], bits[sizeof w->bits / sizeof w->bits[0]];
    iq_key_rows all = {end, NULL, rows, 0, 64 * ROWS, false};
    memset(bits, 0, sizeof bits);
    iq_keys_list(&w->keys, program, &all);
    if (all.lacks_room) return false;
    for (uint32_t i = 0; i < all.count; i++) bits[rows[i] / 32] |= UINT32_C(1) << rows[i] % 32;
    if (memcmp(bits, w->bits, sizeof bits) != 0) return false;
    if (all.count == 0) return true;
    iq_key_rows less = {end, NULL, rows, 0, all.count - 1, false};
    rows[all.count - 1] = UINT32_MAX;
    iq_keys_list(&w->keys, program, &less);
    return less.lacks_room && less.count == all.count - 1 && rows[all.count - 1] == UINT32_MAX;
}

/* Plans and lists; *out_missed: rows below `end` that the filter accepts and that are not listed; returns the plan. */
static uint32_t look(world *w, uint32_t end, const char *text, uint32_t *out_accepted, uint32_t *out_missed) {
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_filter filter;
    iq_filter_layout layout;
    iq_filter program;
    if (!EXPECT(iqdb_filter_parse(text, strlen(text), &buffer, &filter, NULL) == IQDB_OK)) printf(" %s", text);
    EXPECT(iq_filter_measure(&filter, &layout) == NULL);
    void *memory = malloc(layout.size_bytes);
    if (memory == NULL) exit(2);
    iq_filter_compile(&filter, &layout, memory, &program);
    const uint32_t plan = iq_keys_plan(&w->keys, &program, end);
    memset(w->bits, plan < end ? 0 : 0xFF, sizeof w->bits);
    iq_key_rows as_bits = {end, w->bits, NULL, 0, 0, false};
    if (plan < end) iq_keys_list(&w->keys, &program, &as_bits);
    if (plan < end) EXPECT(rows_are_bits(w, &program, end));
    *out_accepted = *out_missed = 0;
    for (uint32_t row = 0; row < end; row++) {
        const bool listed = (w->bits[row / 32] >> row % 32 & 1) != 0;
        if (w->payloads[row].bytes == NULL || !iq_filter_accepts(&program, w->payloads[row])) continue;
        ++*out_accepted;
        if (!listed) ++*out_missed;
    }
    free(memory);
    iqdb_buffer_free(&buffer);
    return plan;
}

static const iqdb_index_key all_keys[] = {{"n", IQDB_KEY_ORDERED},
                                          {"n", IQDB_KEY_HASH},
                                          {"t", IQDB_KEY_ORDERED},
                                          {"u", IQDB_KEY_HASH},
                                          {"o.k", IQDB_KEY_ORDERED}};

static void format(char out[TEXT], const char *pattern, ...) {
    va_list list;
    va_start(list, pattern);
    EXPECT(vsnprintf(out, TEXT, pattern, list) < TEXT);
    va_end(list);
}

static const char *const values[] = {"0",
                                     "-0.0",
                                     "1",
                                     "1.0",
                                     "-7",
                                     "2.5",
                                     "1e300",
                                     "9007199254740993",
                                     "9007199254740992.0",
                                     "-9223372036854775808",
                                     "9223372036854775807",
                                     "null",
                                     "true",
                                     "false",
                                     "''",
                                     "'a'",
                                     "'a longer text'",
                                     "'a longer text with an end'",
                                     "'b'",
                                     "x'00ff'",
                                     "x''",
                                     "9223372036854775808.0"};
enum {
    VALUES = sizeof values / sizeof values[0]
};

/* As JSON, which has other quotes. */
static void json_value(char out[TEXT], uint64_t *random) {
    const char *text = values[support_random_below(random, VALUES)];
    const uint64_t form = support_random_below(random, 12);
    if (form == 0) {
        format(out, "{\"$float\":\"nan\"}");
    } else if (form == 1) {
        format(out, "[1,\"a\",[2],null,%d]", (int)support_random_below(random, 50));
    } else if (form < 5) {
        format(out, "%d", (int)support_random_below(random, 50));
    } else if (text[0] == 'x') {
        format(out, "{\"$bytes\":\"%.*s\"}", (int)strlen(text) - 3, text + 2);
    } else if (text[0] == '\'') {
        format(out, "\"%.*s\"", (int)strlen(text) - 2, text + 1);
    } else {
        format(out, "%s", text);
    }
}

static void random_payload(char out[8 * TEXT], uint64_t *random) {
    static const char *const keys[] = {"n", "t", "u", "x"};
    char value[TEXT];
    int size = snprintf(out, TEXT, "{\"o\":{\"k\":%d}", (int)support_random_below(random, 9));
    for (size_t i = 0; i < 4; i++) {
        if (support_random_below(random, 5) == 0) continue;
        json_value(value, random);
        size += snprintf(out + size, TEXT, ",\"%s\":%s", keys[i], value);
    }
    (void)snprintf(out + size, 2, "}");
}

static void random_test(char out[TEXT], uint64_t *random) {
    static const char *const keys[] = {"n", "t", "u", "x", "o.k"};
    static const char *const ops[] = {"=", "!=", "<", "<=", ">", ">=", "contains"};
    const char *key = keys[support_random_below(random, 5)];
    const char *a = values[support_random_below(random, VALUES)], *b = values[support_random_below(random, VALUES)];
    switch (support_random_below(random, 8)) {
    case 0:
        format(out, "%s between %s and %s", key, a, b);
        break;
    case 1:
        format(out, "%s in (%s, %s, %s)", key, a, b, values[support_random_below(random, VALUES)]);
        break;
    case 2:
        format(out, "%s prefix '%.*s'", key, (int)support_random_below(random, 16), "a longer text with");
        break;
    case 3:
        format(out, support_random_below(random, 2) ? "%s is null" : "%s exists", key);
        break;
    default:
        format(out, "%s %s %s", key, ops[support_random_below(random, 7)], a);
    }
}

static void random_filter(char *out, size_t size, uint64_t *random) {
    char test[TEXT];
    size_t at = 0;
    int open = 0;
    for (uint64_t left = 1 + support_random_below(random, 5); left > 0; left--) {
        const char *join = at == 0 ? "" : support_random_below(random, 2) ? " and " : " or ";
        const char *no = support_random_below(random, 4) == 0 ? "not " : "";
        random_test(test, random);
        const bool opens = support_random_below(random, 3) == 0;
        open += opens;
        at += (size_t)snprintf(out + at, size - at, "%s%s%s%s", join, no, opens ? "(" : "", test);
    }
    while (open-- > 0) at += (size_t)snprintf(out + at, size - at, ")");
}

/* Rows come, go, and come back with other payloads; any filter over any of the keys finds all that it accepts. */
static void what_is_accepted_is_listed(void) {
    world *w = world_make(all_keys, 5);
    uint64_t random = 17, helped = 0;
    const size_t rounds = support_amount(40, 150, 1500);
    char text[8 * TEXT];
    for (size_t round = 0; round < rounds; round++) {
        for (size_t i = 0; i < 300; i++) {
            random_payload(text, &random);
            CHECK_EQ_INT(put(w, (uint32_t)support_random_below(&random, ROWS), text), IQDB_OK);
        }
        if (round % 4 == 0) iq_keys_trim(&w->keys, IQ_MOMENT_NEVER, round + 1); /* with no reader */
        for (size_t i = 0; i < 40; i++) {
            uint32_t accepted, missed;
            const uint32_t end = i % 2 == 0 ? ROWS : (uint32_t)support_random_below(&random, ROWS + 1);
            random_filter(text, sizeof text, &random);
            const uint32_t plan = look(w, end, text, &accepted, &missed);
            if (!EXPECT(missed == 0 && accepted <= plan)) printf("  %s", text);
            helped += plan < end;
        }
    }
    CHECK(helped > rounds); /* or nothing was tried */
    world_end(w);
}

/* Where every row was listed once, an index of distinct numbers lists what a range holds and no more. */
static void a_range_is_listed_exactly(void) {
    const iqdb_index_key set[] = {{"n", IQDB_KEY_ORDERED}, {"t", IQDB_KEY_HASH}, {"u", IQDB_KEY_ORDERED}};
    world *w = world_make(set, 3);
    char text[TEXT];
    uint32_t accepted, missed;
    for (uint32_t row = 0; row < ROWS; row++) {
        const uint32_t n = row * 1009 % ROWS; /* each once, in no order */
        format(text, "{\"n\":%u,\"t\":\"https://host/%u\",\"u\":\"2024-%04u-x\"}", n, n % 30, n);
        CHECK_EQ_INT(put(w, row, text), IQDB_OK);
    }
    CHECK_EQ_INT(look(w, ROWS, "n between 100 and 199", &accepted, &missed), 100);
    CHECK(accepted == 100 && missed == 0 && listed_rows(w) == 100);
    CHECK_EQ_INT(look(w, ROWS, "n = 7.0", &accepted, &missed), 1);
    CHECK(accepted == 1 && missed == 0 && listed_rows(w) == 1);
    CHECK_EQ_INT(look(w, ROWS, "n > 2998 or n <= 1", &accepted, &missed), 2 + 2); /* > lists the end as well */
    CHECK(accepted == 3 && missed == 0 && listed_rows(w) == 4);
    CHECK_EQ_INT(look(w, ROWS, "t = 'https://host/7'", &accepted, &missed), 100);
    CHECK(accepted == 100 && missed == 0 && listed_rows(w) == 100);
    CHECK_EQ_INT(look(w, ROWS, "t in ('https://host/7', 'https://host/8', 'x')", &accepted, &missed), 200);
    CHECK_EQ_INT(look(w, ROWS, "u prefix '2024-12'", &accepted, &missed), 100);
    CHECK(accepted == 100 && listed_rows(w) == 100);
    CHECK_EQ_INT(look(w, ROWS, "u = '2024-1234-x'", &accepted, &missed), 1);
    /* The least of what is joined, the sum of what is not; what an index cannot tell is everything. */
    CHECK_EQ_INT(look(w, ROWS, "n < 500 and t = 'https://host/7' and x = 1", &accepted, &missed), 100);
    CHECK_EQ_INT(look(w, ROWS, "(n < 50 or t = 'https://host/7') and x exists", &accepted, &missed), 51 + 100);
    CHECK_EQ_INT(look(w, ROWS, "n < 50 or x = 1", &accepted, &missed), ROWS);
    CHECK_EQ_INT(look(w, ROWS, "not n = 50", &accepted, &missed), ROWS);
    CHECK_EQ_INT(look(w, ROWS, "not (not n = 50 or t < 'b')", &accepted, &missed), 1);
    CHECK_EQ_INT(look(w, ROWS, "t prefix 'https'", &accepted, &missed), ROWS);
    CHECK_EQ_INT(look(w, ROWS, "n = 1 and n = 'a'", &accepted, &missed), 0);
    CHECK_EQ_INT(look(w, ROWS, "n > 'a' and n exists", &accepted, &missed), 0);
    /* A list of many values takes all of the log, and what it has to of the rest. */
    char list[4 * TEXT];
    int size = snprintf(list, sizeof list, "n in (0");
    for (int i = 1; i < 20; i++) size += snprintf(list + size, 16, ", %d", i);
    (void)snprintf(list + size, 2, ")");
    CHECK(look(w, ROWS, list, &accepted, &missed) <= 20 + IQ_KEY_LOG_SIZE);
    CHECK(accepted == 20 && missed == 0);
    world_end(w);
}

/* Rows that are listed again and again leave a bounded number of entries, and so do tables that nobody reads. */
static void garbage_is_bounded(void) {
    const iqdb_index_key set[] = {{"n", IQDB_KEY_ORDERED}};
    world *w = world_make(set, 1);
    uint64_t random = 5;
    char text[TEXT];
    uint32_t accepted, missed, most = 0;
    for (uint32_t i = 0; i < 40 * ROWS; i++) {
        format(text, "{\"n\":%u}", (unsigned)support_random_below(&random, 1000));
        CHECK_EQ_INT(put(w, (uint32_t)support_random_below(&random, ROWS), text), IQDB_OK);
        CHECK(i % 64 != 0 || iq_keys_bytes(&w->keys) < 6 * ROWS * sizeof(iq_key_entry));
        iq_keys_trim(&w->keys, IQ_MOMENT_NEVER, i + 1);
        CHECK(!iq_keys_have_old_tables(&w->keys) || i % 2 == 0 ||
              w->heap.live_bytes < 20 * ROWS * sizeof(iq_key_entry));
        if (i < ROWS || i % 97 != 0) continue;
        const uint32_t plan = look(w, ROWS, "n < 10", &accepted, &missed);
        CHECK_EQ_INT(missed, 0);
        if (plan > most) most = plan;
    }
    CHECK(most < 6 * ROWS / 100);
    world_end(w);
}

/* A row with many values at a key, more than a log has room for. */
static void long_arrays_are_listed(void) {
    const iqdb_index_key set[] = {{"tags", IQDB_KEY_HASH}};
    world *w = world_make(set, 1);
    uint32_t accepted, missed;
    char *text = (char *)malloc(100000);
    CHECK(text != NULL);
    for (uint32_t row = 0; row < 20; row++) {
        const uint32_t items = row % 3 == 0 ? 3000 : row % 3;
        int size = snprintf(text, 100, "{\"tags\":[");
        for (uint32_t i = 0; i < items; i++)
            size += snprintf(text + size, 100, "%s%u", i > 0 ? "," : "", row * 5000 + i);
        (void)snprintf(text + size, 3, "]}");
        CHECK_EQ_INT(put(w, row, text), IQDB_OK);
    }
    CHECK_EQ_INT(look(w, ROWS, "tags contains 33000", &accepted, &missed), 0);
    CHECK_EQ_INT(look(w, ROWS, "tags contains 17999", &accepted, &missed), 1);
    CHECK(accepted == 1 && missed == 0);
    CHECK_EQ_INT(look(w, ROWS, "tags contains 5000 or tags contains 10001", &accepted, &missed), 2);
    CHECK(accepted == 2 && missed == 0);
    free(text);
    world_end(w);
}

/* Each allocation fails once, or from then on: the row is refused, all before it are found, and it can be listed again. */
static void a_failed_allocation_loses_nothing(void) {
    const iqdb_index_key set[] = {{"n", IQDB_KEY_ORDERED}};
    for (int sticky = 0; sticky < 2; sticky++) {
        bool failed = true;
        for (size_t nth = 1; failed; nth++) {
            world *w = world_make(set, 1);
            char text[TEXT];
            uint32_t accepted, missed;
            failed = false;
            w->heap.fail_at = nth;
            w->heap.sticky = sticky;
            for (uint32_t row = 0; row < ROWS; row++) {
                format(text, "{\"n\":%u}", row % 100);
                if (put(w, row, text) == IQDB_OK) continue;
                CHECK(!failed || !sticky);
                failed = true;
                (void)look(w, ROWS, "n = 7", &accepted, &missed);
                CHECK_EQ_INT(missed, 0);
                CHECK_EQ_INT(accepted, (row + 92) / 100);
                w->heap.fail_at = 0;
                w->heap.sticky = 0;
                CHECK_EQ_INT(put(w, row, text), IQDB_OK);
            }
            (void)look(w, ROWS, "n = 7", &accepted, &missed);
            CHECK(accepted == ROWS / 100 && missed == 0);
            failed = failed || w->heap.failed > 0; /* what is done without memory, too */
            world_end(w);
        }
    }
}

static void sets_that_make_no_sense_are_refused(void) {
    char longest[IQDB_INDEX_KEY_SIZE_MAX + 2];
    iqdb_index_key many[IQDB_INDEX_KEYS_MAX + 1];
    memset(longest, 'k', sizeof longest);
    longest[sizeof longest - 1] = 0;
    iqdb_index_key set[2] = {{"a", IQDB_KEY_HASH}, {longest, IQDB_KEY_HASH}};
    CHECK(iq_keys_complaint(set, 1) == NULL && iq_keys_complaint(NULL, 0) == NULL);
    CHECK(iq_keys_complaint(set, 2) != NULL && iq_keys_complaint(NULL, 1) != NULL);
    longest[sizeof longest - 2] = 0;
    CHECK(iq_keys_complaint(set, 2) == NULL);
    set[1].key = NULL;
    CHECK(iq_keys_complaint(set, 2) != NULL);
    set[1].key = "\xFF";
    CHECK(iq_keys_complaint(set, 2) != NULL);
    set[1].key = "a";
    CHECK(iq_keys_complaint(set, 2) != NULL);
    set[1].kind = IQDB_KEY_ORDERED;
    CHECK(iq_keys_complaint(set, 2) == NULL);
    set[1].kind = (iqdb_key_kind)2;
    CHECK(iq_keys_complaint(set, 2) != NULL);
    for (size_t i = 0; i <= IQDB_INDEX_KEYS_MAX; i++) {
        many[i].key = longest + i;
        many[i].kind = IQDB_KEY_HASH;
    }
    for (size_t i = 0; i < 20; i++) many[i].key += 200;
    CHECK(iq_keys_complaint(many, IQDB_INDEX_KEYS_MAX) != NULL); /* too long together */
    for (size_t i = 0; i <= IQDB_INDEX_KEYS_MAX; i++) many[i].key = longest + 255 - IQDB_INDEX_KEYS_MAX - 20 + i;
    CHECK(iq_keys_complaint(many, IQDB_INDEX_KEYS_MAX) == NULL);
    CHECK(iq_keys_complaint(many, IQDB_INDEX_KEYS_MAX + 1) != NULL);
}

/* A set comes back from its bytes; of any other bytes, what comes back is a set. */
static void sets_are_encoded(void) {
    world *w = world_make(all_keys, 5);
    uint8_t bytes[64], damaged[64];
    iqdb_index_key set[IQDB_INDEX_KEYS_MAX];
    size_t count;
    static const uint8_t wanted[] = "\2n\0\1n\0\2t\0\1u\0\2o.k\0";
    iq_keys_encode(&w->keys, bytes, sizeof bytes);
    CHECK_MEM(bytes, wanted, sizeof wanted);
    CHECK(iq_keys_decode(bytes, sizeof bytes, set, &count) && count == 5);
    for (size_t i = 0; i < count; i++) {
        CHECK_EQ_STR(set[i].key, all_keys[i].key);
        CHECK_EQ_INT(set[i].kind, all_keys[i].kind);
    }
    for (size_t at = 0; at < sizeof bytes; at++) {
        for (unsigned value = 0; value < 256; value++) {
            memcpy(damaged, bytes, sizeof bytes);
            damaged[at] = (uint8_t)value;
            if (iq_keys_decode(damaged, sizeof damaged, set, &count)) CHECK(iq_keys_complaint(set, count) == NULL);
        }
    }
    CHECK(!iq_keys_decode(bytes, 3, set, &count) && !iq_keys_decode(bytes, 2, set, &count)); /* no end */
    CHECK(iq_keys_decode(bytes, 4, set, &count) == false);
    memset(damaged, 0, sizeof damaged);
    CHECK(iq_keys_decode(damaged, 1, set, &count) && count == 0);
    memset(damaged, 3, sizeof damaged);
    CHECK(!iq_keys_decode(damaged, sizeof damaged, set, &count));
    world_end(w);
}

TEST_MAIN("store/keys", TEST(what_is_accepted_is_listed), TEST(a_range_is_listed_exactly), TEST(garbage_is_bounded),
          TEST(long_arrays_are_listed), TEST(a_failed_allocation_loses_nothing),
          TEST(sets_that_make_no_sense_are_refused), TEST(sets_are_encoded))
