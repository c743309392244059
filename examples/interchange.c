/* interchange.c: vectors of halves and bytes, each in a collection of its own, and everything of them as text: payloads as
 * JSON and back without loss, filters in words, results by name. One write changes both collections, or none.
 *
 *   cc -I. examples/interchange.c -o interchange -pthread -lm && ./interchange
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

/* 1.5, -2.0, 0.25 in binary16, and in bytes what they are in eighths. */
static const uint16_t halves[3] = {0x3E00, 0xC000, 0x3400};
static const int8_t eighths[3] = {12, -16, 2};

static iqdb *collection(iqdb *db, const char *name, iqdb_element element) {
    iqdb *out = NULL;
    iqdb_options options = iqdb_options_default();
    options.element = element;
    options.metric = IQDB_L2;
    options.dim = 3;
    check(iqdb_collection(db, name, &options, &out) == IQDB_OK, name);
    return out;
}

static void print(const iqdb *db, uint64_t id) {
    iqdb_buffer memory = iqdb_buffer_default(), text = iqdb_buffer_default();
    iqdb_record record;
    const char *json = NULL;
    const iqdb_result result = iqdb_get(db, id, &memory, &record);
    if (result != IQDB_OK) {
        printf("record %lu: %s\n", (unsigned long)id, iqdb_strerror(result));
    } else {
        check(iqdb_payload_to_json(record.payload, &text, &json, NULL) == IQDB_OK, "write JSON");
        printf("record %lu: %s\n", (unsigned long)id, json);
    }
    iqdb_buffer_free(&memory);
    iqdb_buffer_free(&text);
}

static bool print_name(const char *name, void *user) {
    (void)user;
    printf("collection: %s\n", name);
    return true;
}

/* Numbers keep their kind, integers all their digits, and there are words for what JSON has none for. */
static const char *const lines[] = {
    "{\"name\": \"caf\\u00e9\", \"count\": 9007199254740993, \"part\": 0.1}",
    "{\"limit\": {\"$float\": \"infinity\"}, \"key\": {\"$bytes\": \"00ff\"}, \"whole\": 2.0}",
    "{\"tags\": [\"a\", [true, null]], \"deep\": {\"er\": -0.0}}"};

int main(void) {
    iqdb *db = NULL;
    check(iqdb_open_in_memory(NULL, &db) == IQDB_OK, "open");
    iqdb *of_halves = collection(db, "halves", IQDB_ELEMENT_F16), *of_bytes = collection(db, "bytes", IQDB_ELEMENT_I8);

    iqdb_buffer memory[3];
    iqdb_record records[4];
    iqdb_op ops[4];
    for (size_t i = 0; i < 4; i++) {
        records[i] = iqdb_record_default();
        records[i].id = i + 1;
        records[i].raw = i < 3 ? (const void *)halves : (const void *)eighths;
        records[i].dim = 3;
        ops[i] = iqdb_op_default();
        ops[i].collection = i < 3 ? of_halves : of_bytes;
        ops[i].record = &records[i];
    }
    for (size_t i = 0; i < 3; i++) {
        memory[i] = iqdb_buffer_default();
        check(iqdb_payload_from_json(lines[i], strlen(lines[i]), &memory[i], &records[i].payload) == IQDB_OK, "JSON");
    }
    check(iqdb_apply(db, ops, 4) == IQDB_OK, "one write");
    for (size_t i = 0; i < 3; i++) iqdb_buffer_free(&memory[i]);
    check(iqdb_collection_names(db, print_name, NULL) == IQDB_OK, "names");
    for (uint64_t id = 1; id <= 4; id++) print(of_halves, id);

    iqdb_hit hit;
    size_t count = 0;
    iqdb_query query = iqdb_query_default();
    iqdb_buffer vectors = iqdb_buffer_default();
    query.raw = eighths;
    query.k = 1;
    query.flags = IQDB_WITH_VECTOR;
    query.buffer = &vectors;
    check(iqdb_search(of_bytes, &query, &hit, &count) == IQDB_OK && count == 1, "search");
    check(memcmp(hit.raw, eighths, sizeof eighths) == 0, "bytes come back as they are");
    printf("nearest of the bytes: record %lu at %.1f\n", (unsigned long)hit.id, (double)hit.score);
    iqdb_buffer_free(&vectors);

    /* A filter that a program has put together, in words; the words make the same one again. */
    const iqdb_filter parts[2] = {iqdb_gt("count", iqdb_int(9007199254740992)), iqdb_exists("deep.er")};
    const iqdb_filter either = iqdb_or(parts, 2), neither = iqdb_not(&either);
    iqdb_buffer words = iqdb_buffer_default(), parsed = iqdb_buffer_default();
    iqdb_filter again;
    const char *text = NULL;
    size_t size = 0, one = 0, other = 0;
    check(iqdb_filter_to_text(&neither, &words, &text, &size) == IQDB_OK, "to text");
    check(iqdb_filter_parse(text, size, &parsed, &again, NULL) == IQDB_OK, "from text");
    check(iqdb_count(of_halves, &neither, &one) == IQDB_OK && iqdb_count(of_halves, &again, &other) == IQDB_OK, "count");
    check(one == other, "the same filter");
    printf("%lu of %lu: %s\n", (unsigned long)one, (unsigned long)iqdb_len(of_halves), text);
    iqdb_buffer_free(&words);
    iqdb_buffer_free(&parsed);

    static const char bad[] = "{\"name\": \"x\", \"name\": \"y\"}";
    iqdb_payload payload;
    iqdb_error error;
    check(iqdb_payload_parse(bad, sizeof bad - 1, &vectors, &payload, &error) != IQDB_OK, "a key twice");
    printf("byte %lu: %s\n", (unsigned long)error.offset, error.text);
    check(iqdb_close(of_bytes) == IQDB_OK && iqdb_close(of_halves) == IQDB_OK, "close");
    check(iqdb_close(db) == IQDB_OK, "close");
    return 0;
}
