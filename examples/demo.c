/* demo.c: a thousand notes go into a durable database and answer questions asked in other words than their own.
 *
 *   make demo          or:  cc -O2 -I. examples/demo.c -o demo -pthread -lm && ./demo examples/data demo-db
 *
 * argv[1]: the folder of notes.jsonl, notes.fbin, questions.jsonl, questions.fbin and questions.gt.ibin
 * argv[2]: the directory of the database, made anew; when not given, this program's name with "-db" behind it
 *
 * It ends with 0 only when every question found its ten true neighbours, before closing and after reopening. */
#define IQDB_IMPLEMENTATION
#include "iqdb.h" /* before every other header: it asks the C library for what it needs */

#include "notes.h" /* the data of the demo, read into memory */

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SHOWN 3  /* of them, below the questions that are printed */
#define BATCH 64 /* notes that are written together */
#define WIDTH 99 /* columns of the output */

/* The questions that are printed, by id; all are answered. */
static const int64_t printed[] = {1, 5, 12, 37, 42, 53, 58, 67};
#define FILTERED 42 /* the one that is asked again with a predicate */

/* ---- What every step needs: errors with their details, and lines with their times ---- */

static iqdb_error detail;

static void check(iqdb_result result, const char *what) {
    char why[320];
    if (result == IQDB_OK) return;
    snprintf(why, sizeof why, "%s%s%s%s%s", iqdb_strerror(result), detail.text[0] != 0 ? ": " : "", detail.text,
             detail.file[0] != 0 ? ", in " : "", detail.file);
    fail(what, why);
}

static double now_ms(void) {
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) return 0.0;
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* One line of the account: a step, what it did, and the time since it began. */
static void report(double began_ms, const char *step, const char *format, ...) {
    const double took_ms = now_ms() - began_ms;
    char what[160];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    printf("%-7s %-*s %8.2f ms\n", step, WIDTH - 20, what, took_ms);
}

/* ---- Writing ---- */

static void remove_database(const char *path) {
    DIR *directory = opendir(path);
    if (directory == NULL) return; /* there is none yet */
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        const char *name = entry->d_name;
        char file[1280];
        const bool ours = strcmp(name, "LOCK") == 0 || strcmp(name, "META") == 0 || strcmp(name, "ballast") == 0 ||
                          strncmp(name, "wal-", 4) == 0 || strncmp(name, "snap-", 5) == 0;
        const int length = snprintf(file, sizeof file, "%s/%s", path, name);
        if (ours && length > 0 && (size_t)length < sizeof file && unlink(file) != 0) fail(file, "cannot be removed");
    }
    closedir(directory);
}

static iqdb *open_database(const char *path, const data *in) {
    iqdb_options options = iqdb_options_default();
    options.dim = in->dim; /* a database of another dimension would be refused */
    options.metric = IQDB_COSINE;
    options.error = &detail;
    iqdb *db = NULL;
    check(iqdb_open(path, &options, &db), "open");
    return db;
}

/* {"id": 7, ...}: the id becomes the record's, everything behind it its payload. */
static iqdb_record record_of(const data *in, size_t index) {
    const iqdb_value note = in->notes.objects[index];
    iqdb_field id;
    if (!iqdb_value_field(note, 0, &id) || strcmp(id.key, "id") != 0 || id.value.type != IQDB_TYPE_INT)
        fail("notes.jsonl", "a note does not begin with its id");
    iqdb_record record = iqdb_record_default();
    record.id = (uint64_t)id.value.as.integer;
    record.vector = &in->note_vectors[index * in->dim];
    record.dim = in->dim;
    record.fields = note.as.object.fields + 1;
    record.field_count = note.as.object.count - 1;
    return record;
}

static void import_notes(iqdb *db, const data *in) {
    const double began = now_ms();
    iqdb_record records[BATCH];
    size_t batches = 0;
    for (size_t first = 0; first < in->notes.count; first += BATCH, batches++) {
        const size_t left = in->notes.count - first, count = left < BATCH ? left : BATCH;
        for (size_t i = 0; i < count; i++) records[i] = record_of(in, first + i);
        check(iqdb_upsert_batch(db, records, count), "upsert_batch"); /* found whole or not at all */
    }
    check(iqdb_flush(db), "flush"); /* from here on all of it survives a power cut */
    report(began, "import", "%lu notes with their payloads in %lu batches, flushed", (unsigned long)iqdb_len(db),
           (unsigned long)batches);
}

/* ---- Asking ---- */

static iqdb_query query_for(const data *in, size_t question) {
    iqdb_query query = iqdb_query_default();
    query.vector = &in->question_vectors[question * in->dim];
    query.dim = in->dim;
    query.k = K;
    return query;
}

/* As much of a text as fits in a line, cut between words; columns are counted in characters, not bytes. */
static void print_text(const char *text, int columns) {
    int used = 0, end = 0;
    for (int i = 0;; i++) {
        if (text[i] == 0) end = i;
        if (text[i] == ' ' && used + 4 <= columns) end = i;
        if (text[i] == 0 || used > columns) break;
        if (((unsigned char)text[i] & 0xC0) != 0x80) used++;
    }
    printf("%.*s%s\n", end, text, text[end] != 0 ? " ..." : "");
}

static void print_hits(const iqdb_hit *hits, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const char *text = iqdb_payload_text(hits[i].payload, "text", NULL);
        printf("    %.3f  ", (double)hits[i].score);
        print_text(text != NULL ? text : "(no text)", WIDTH - 11);
    }
}

static void print_answers(const iqdb *db, const data *in, size_t question) {
    iqdb_hit hits[SHOWN];
    size_t count = 0;
    iqdb_buffer buffer = iqdb_buffer_default(); /* payloads of the hits are copied into it */
    iqdb_query query = query_for(in, question);
    query.k = SHOWN;
    query.flags = IQDB_WITH_PAYLOAD;
    query.buffer = &buffer;
    check(iqdb_search(db, &query, hits, &count), "search");
    printf("\n  %s\n", question_text(in, question));
    print_hits(hits, count);
    iqdb_buffer_free(&buffer);
}

static size_t question_of(const data *in, int64_t wanted) {
    for (size_t i = 0; i < in->questions.count; i++) {
        const iqdb_value id = iqdb_value_get(in->questions.objects[i], "id");
        if (id.type == IQDB_TYPE_INT && id.as.integer == wanted) return i;
    }
    fail("questions.jsonl", "a question of the demo is not in it");
    return 0;
}

/* The K nearest notes of every question, one search after another. */
static void answer_each(const iqdb *db, const data *in, iqdb_hit *hits) {
    const double began = now_ms();
    for (size_t i = 0; i < in->questions.count; i++) {
        const iqdb_query query = query_for(in, i);
        size_t count = 0;
        check(iqdb_search(db, &query, &hits[i * K], &count), "search");
        if (count != K) fail("search", "found fewer notes than there are");
    }
    report(began, "search", "all %lu questions, the %d nearest notes: %.3f ms each", (unsigned long)in->questions.count,
           K, (now_ms() - began) / (double)in->questions.count);
}

/* The same in one call: all see one state of the database. */
static void answer_batch(const iqdb *db, const data *in, iqdb_hit *hits) {
    const double began = now_ms();
    size_t *counts = (size_t *)malloc(in->questions.count * sizeof(size_t));
    if (counts == NULL) fail("search_batch", "no memory");
    const iqdb_query query = query_for(in, 0);
    check(iqdb_search_batch(db, &query, in->question_vectors, in->questions.count, hits, counts), "search_batch");
    for (size_t i = 0; i < in->questions.count; i++)
        if (counts[i] != K) fail("search_batch", "found fewer notes than there are");
    free(counts);
    report(began, "search", "all questions again, as one batch: %.3f ms each",
           (now_ms() - began) / (double)in->questions.count);
}

/* ---- A search with a predicate: notes on one topic, that come from a book, not from before a year ---- */

typedef struct wish {
    const char *topic, *source;
    int64_t year;
} wish;

static bool fits(const iqdb_record *note, void *user) {
    const wish *wanted = (const wish *)user;
    const char *topic = iqdb_payload_text(note->payload, "topic", NULL);
    const char *source = iqdb_payload_text(note->payload, "source.kind", NULL); /* NULL where there is no source */
    return topic != NULL && strcmp(topic, wanted->topic) == 0 &&
           source != NULL && strcmp(source, wanted->source) == 0 &&
           iqdb_payload_int(note->payload, "year", 0) >= wanted->year;
}

static void answer_filtered(const iqdb *db, const data *in, size_t question) {
    const double began = now_ms();
    wish wanted;
    wanted.topic = "coffee";
    wanted.source = "book";
    wanted.year = 2010;
    iqdb_hit hits[SHOWN];
    size_t count = 0;
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_query query = query_for(in, question);
    query.k = SHOWN;
    query.flags = IQDB_WITH_PAYLOAD;
    query.buffer = &buffer;
    query.predicate = fits; /* decides before a note is admitted, so SHOWN are found whenever so many fit */
    query.user = &wanted;
    check(iqdb_search(db, &query, hits, &count), "search");
    report(began, "filter", "one of them, only notes on %s, from a %s, of %ld or later", wanted.topic, wanted.source,
           (long)wanted.year);
    printf("\n  %s\n", question_text(in, question));
    print_hits(hits, count);
    printf("\n");
    if (count != SHOWN) fail("filter", "found fewer notes than fit");
    for (size_t i = 0; i < count; i++) {
        iqdb_record note = iqdb_record_default();
        note.payload = hits[i].payload;
        if (!fits(&note, &wanted)) fail("filter", "let another note through");
    }
    iqdb_buffer_free(&buffer);
}

/* ---- Judging ---- */

/* How many of the true neighbours were found: 1 is all of them. */
static double recall(const data *in, const iqdb_hit *hits) {
    size_t found = 0, total = in->questions.count * K;
    for (size_t i = 0; i < total; i++)
        for (size_t j = i / K * K; j < i / K * K + K; j++) found += hits[j].id == in->truth[i];
    return (double)found / (double)total;
}

/* Ids, and the bits of the scores. */
static bool same_answers(const iqdb_hit *a, const iqdb_hit *b, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (a[i].id != b[i].id || memcmp(&a[i].score, &b[i].score, sizeof(float)) != 0) return false;
    return true;
}

int main(int argc, char **argv) {
    const char *folder = argc > 1 ? argv[1] : "examples/data";
    char path[1024];
    const int length = argc > 2 ? snprintf(path, sizeof path, "%s", argv[2])
                                : snprintf(path, sizeof path, "%s-db", argc > 0 ? argv[0] : "demo");
    if (length < 0 || (size_t)length >= sizeof path) fail("demo", "the path is too long");

    double began = now_ms();
    data in = read_data(folder);
    const size_t answers = in.questions.count * K;
    iqdb_hit *before = (iqdb_hit *)malloc(answers * sizeof(iqdb_hit));
    iqdb_hit *after = (iqdb_hit *)malloc(answers * sizeof(iqdb_hit));
    if (before == NULL || after == NULL) fail("demo", "no memory");
    report(began, "read", "%lu notes and %lu questions from %s, %lu dimensions", (unsigned long)in.notes.count,
           (unsigned long)in.questions.count, folder, (unsigned long)in.dim);

    remove_database(path);
    began = now_ms();
    iqdb *db = open_database(path, &in);
    report(began, "create", "%s, empty and durable; distances by %s", path, iqdb_simd_name(db));
    import_notes(db, &in);
    for (size_t i = 0; i < sizeof printed / sizeof printed[0]; i++)
        print_answers(db, &in, question_of(&in, printed[i]));
    printf("\n");
    answer_each(db, &in, before);
    answer_filtered(db, &in, question_of(&in, FILTERED));
    began = now_ms();
    check(iqdb_close(db), "close");
    report(began, "close", "");

    began = now_ms();
    db = open_database(path, &in);
    report(began, "reopen", "%lu records, every byte of the files checked", (unsigned long)iqdb_len(db));
    answer_batch(db, &in, after);
    check(iqdb_close(db), "close");

    const bool same = same_answers(before, after, answers);
    const double found = recall(&in, before), found_after = recall(&in, after);
    printf("\nthe answers after reopening are %s\n", same ? "the same: ids, order and score bits" : "DIFFERENT");
    printf("recall@%d over all questions, against the ground truth: %.3f\n", K, found);
    free(before);
    free(after);
    free_data(&in);
    return same && found >= 1.0 && found_after >= 1.0 ? 0 : 1;
}
