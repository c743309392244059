/* filters.c: what a filter says of fields that are missing, null or of another type; the same one as text; and what else
 * takes filters: counts, iterations, deletes.
 *
 *   cc -I. examples/filters.c -o filters -pthread -lm && ./filters
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

static void put(iqdb *db, uint64_t id, const char *json) {
    const float vector[2] = {(float)id, 1.0f};
    iqdb_buffer memory = iqdb_buffer_default();
    iqdb_record record = iqdb_record_default();
    record.id = id;
    record.vector = vector;
    record.dim = 2;
    if (json != NULL)
        check(iqdb_payload_from_json(json, strlen(json), &memory, &record.payload) == IQDB_OK, "read JSON");
    check(iqdb_upsert(db, &record) == IQDB_OK, "upsert");
    iqdb_buffer_free(&memory);
}

static int by_id(const void *left, const void *right) {
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static void print(iqdb *db, const char *name, const iqdb_filter *filter) {
    uint64_t ids[16];
    size_t count = 0, counted = 0;
    iqdb_iter iter = iqdb_iter_begin(db, filter);
    while (count < 16 && iqdb_iter_next(&iter)) ids[count++] = iter.record.id;
    check(iter.result == IQDB_OK, name);
    iqdb_iter_end(&iter);
    check(iqdb_count(db, filter, &counted) == IQDB_OK && counted == count, "a count finds as many");
    qsort(ids, count, sizeof ids[0], by_id);
    printf("%-44s", name);
    for (size_t i = 0; i < count; i++) printf(" %lu", (unsigned long)ids[i]);
    puts("");
}

static void print_text(iqdb *db, const char *text) {
    iqdb_buffer memory = iqdb_buffer_default();
    iqdb_filter filter;
    iqdb_error error;
    if (iqdb_filter_parse(text, strlen(text), &memory, &filter, &error) == IQDB_OK)
        print(db, text, &filter);
    else
        printf("%-44s byte %lu: %s\n", text, (unsigned long)error.offset, error.text);
    iqdb_buffer_free(&memory);
}

int main(void) {
    iqdb *db = NULL;
    check(iqdb_open_in_memory(NULL, &db) == IQDB_OK, "open");
    put(db, 1, "{\"kind\": \"doc\", \"year\": 2019, \"tags\": [\"c\", \"db\"], \"by\": {\"name\": \"Ann\"}}");
    put(db, 2, "{\"kind\": \"note\", \"year\": 2024.5, \"by\": {\"name\": \"Bob\"}}");
    put(db, 3, "{\"kind\": \"doc\", \"year\": \"2024\"}"); /* a text is no number */
    put(db, 4, "{\"kind\": null}");
    put(db, 5, "{}");
    put(db, 6, NULL);

    const iqdb_filter doc = iqdb_eq("kind", iqdb_text("doc")), since = iqdb_ge("year", iqdb_int(2020));
    const iqdb_filter parts[2] = {doc, since};
    const iqdb_filter either = iqdb_or(parts, 2), not_doc = iqdb_not(&doc);
    print(db, "built: doc, or since 2020", &either);
    print(db, "built: not doc, fields missing or not", &not_doc);

    print_text(db, "kind = 'doc' or year >= 2020");
    print_text(db, "kind != 'doc'"); /* there, a text, and another one */
    print_text(db, "not kind = 'doc'");
    print_text(db, "kind exists");
    print_text(db, "kind is null");
    print_text(db, "year between 2019 and 2025"); /* integers and floats alike */
    print_text(db, "by.name in ('Ann', 'Cy')");
    print_text(db, "by.name prefix 'B'");
    print_text(db, "tags contains 'db'");
    print_text(db, "kind = 'doc' and");

    size_t removed = 0;
    check(iqdb_delete_where(db, &not_doc, &removed) == IQDB_OK, "delete");
    printf("deleted %lu, left %lu\n", (unsigned long)removed, (unsigned long)iqdb_len(db));
    return iqdb_close(db) == IQDB_OK ? 0 : 1;
}
