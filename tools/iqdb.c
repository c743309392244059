/* iqdb.c: the command `iqdb`, a database of iqdb.h in the hands of somebody who writes no C.
 *
 *   cc -std=gnu99 -O2 -I. tools/iqdb.c -o iqdb -pthread -lm      or:  make iqdb
 *
 * Read from the bottom: main looks a verb up in the table `verbs`, reads its options by the table `options`, opens the
 * database as the verb wants it, and calls its function. Files of vectors are read and written by rows.h; app.h has what
 * all verbs share: options, output, failures.
 *
 * 1. An import writes the rows of its input in order, in atomic batches, and does not write a row that is stored
 *    already, bit for bit. So one that ended early in any way is finished by running it again.
 * 2. Every failure prints one line that says what, where and what to do, and gives one of the exit codes below.
 * 3. What goes to a file goes to FILE.part first, which becomes FILE when it is whole. */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include "app.h"

#include <dirent.h>

/* ==== Import and export ============================================================================================= */

/* --format, where it was given. */
static int format_wanted(const app *a, const format **out) {
    const char *name = a->options[O_FORMAT].text;
    *out = name != NULL ? format_named(name) : NULL;
    return name == NULL || *out != NULL ? DONE : fail(a, USAGE, "--format %s: it is none of " FORMAT_NAMES, name);
}

static int open_input(const app *a, reader *r, const char *path) {
    const char *id = a->options[O_ID_FIELD].text, *vector = a->options[O_VECTOR_FIELD].text;
    memset(r, 0, sizeof *r);
    r->in.stop = &stop_signal;
    r->id_field = id != NULL ? id : "id";
    r->vector_field = vector != NULL ? vector : "vector";
    if (format_wanted(a, &r->format) != DONE) return USAGE;
    if (reader_open(r, path) != BAD) return DONE;
    return r->in.error == EINTR ? fail(a, SIGNALLED + stop_signal, "stopped before the first row of %s", r->in.name)
                                : fail(a, INPUT, "%s", r->error);
}

/* A line on the terminal about what is under way, ten times a second at most. */
typedef struct progress_line {
    double began, shown; /* 0: the first call begins */
} progress_line;

/* `part` of all, or less than 0 where nobody knows; `last` takes the line away. */
static void progress_show(const app *a, progress_line *p, uint64_t rows, double part, bool last) {
    const double time = now();
    if (p->began <= 0.0) p->began = time;
    if (a->options[O_QUIET].given || isatty(2) == 0 || (!last && time - p->shown < 0.1)) return;
    const double took = time - p->began;
    p->shown = time;
    fprintf(stderr, "\r%llu rows, %.0f rows/s", ULL(rows), took > 0.0 ? (double)rows / took : 0.0);
    if (part > 0.0) {
        const double left = took / part - took;
        fprintf(stderr, ", %3.0f%% [%-30.*s] ETA %.0f:%02.0f", part * 100.0, (int)(part * 30.0),
                "==============================", floor(left / 60.0), floor(fmod(left, 60.0)));
    }
    fputs("\033[K", stderr);
    if (last) fputs("\r\033[K", stderr);
}

typedef struct import_job {
    reader in;
    block rows;
    bool compare; /* there were records before */
    uint64_t read, written, before;
    uint64_t held, held_max; /* bytes of records that came since the database was opened; those of the option */
    progress_line progress;
    iqdb_buffer stored;
} import_job;

static bool same_record(iqdb_element type, const iqdb_record *one, const iqdb_record *two) {
    const iqdb_payload p = one->payload, q = two->payload;
    return one->dim == two->dim && memcmp(one->raw, two->raw, packed_size(type, one->dim)) == 0 &&
           (p.bytes == NULL) == (q.bytes == NULL) && p.size == q.size &&
           (p.size == 0 || memcmp(p.bytes, q.bytes, p.size) == 0);
}

/* Writes what of the block is not stored already. Ids that were only counted replace nothing, unless told to. */
static int import_write(app *a, import_job *job) {
    size_t count = 0;
    for (size_t i = 0; i < job->rows.count; i++) {
        const iqdb_record *record = &job->rows.records[i];
        iqdb_record stored;
        const iqdb_result found =
            job->compare ? iqdb_get(a->db, record->id, &job->stored, &stored) : IQDB_ERR_NOT_FOUND;
        if (found != IQDB_OK && found != IQDB_ERR_NOT_FOUND) return fail_database(a, found, a->directory);
        if (found == IQDB_OK) {
            if (same_record(job->in.into, &stored, record)) continue;
            char place[32];
            if (!job->in.has_ids && !a->options[O_REPLACE].given)
                return fail(a, INPUT,
                            "%s%s: %s has another record %llu; --first-id counts from another id, --replace replaces",
                            job->in.in.name, place_of(place, sizeof place, job->rows.lines[i], job->read + i),
                            a->directory, ULL(record->id));
        }
        job->rows.records[count++] = *record;
    }
    const iqdb_result result = iqdb_upsert_batch(a->db, job->rows.records, count);
    if (result != IQDB_OK) return fail_database(a, result, a->directory);
    for (size_t i = 0; i < count; i++)
        job->held += packed_size(job->in.into, job->rows.records[i].dim) * 3 / 2 + job->rows.records[i].payload.size + 200;
    job->read += job->rows.count;
    job->written += count;
    return DONE;
}

/* As open_database, but for as long as another program has it: for some seconds. */
static int import_reopen(app *a, const iqdb_options *options) {
    const struct timespec pause = {0, 50000000};
    const double began = now();
    iqdb_result result = iqdb_open(a->directory, options, &a->db);
    while (result == IQDB_ERR_LOCKED && stop_signal == 0 && now() - began < 20.0) {
        nanosleep(&pause, NULL);
        result = iqdb_open(a->directory, options, &a->db);
    }
    return checked(a, result);
}

/* Files take what has come, and the next rows get its memory. Where others have written meanwhile, ids are compared. */
static int import_store(app *a, import_job *job) {
    const size_t records = iqdb_len(a->db);
    iqdb_stats before, after;
    iqdb_options options = iqdb_options_default();
    options.error = &a->detail;
    options.open_mode = IQDB_OPEN_MMAP;
    int status = checked(a, iqdb_stat(a->db, &before));
    if (status == DONE) status = close_database(a, status);
    options.compact_on_close = true;
    if (status == DONE) status = import_reopen(a, &options);
    if (status == DONE) status = close_database(a, status);
    options.compact_on_close = false;
    if (status == DONE) status = import_reopen(a, &options);
    if (status == DONE) status = checked(a, iqdb_stat(a->db, &after));
    job->held = 0;
    if (status != DONE || after.last_lsn == before.last_lsn) return status;
    job->compare = true;
    job->before += iqdb_len(a->db) - records;
    return status;
}

/* A quarter of what the machine has, where nothing is said. */
static uint64_t import_memory(const app *a) {
    const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    if (a->options[O_MEMORY].given) return a->options[O_MEMORY].number << 20;
    return pages > 0 && size > 0 ? (uint64_t)pages / 4 * (uint64_t)size : UINT64_C(1) << 30;
}

static double import_part(const import_job *job) {
    const source *in = &job->in.in;
    return in->size == UNKNOWN || in->offset == 0 ? -1.0 : (double)in->offset / (double)in->size;
}

static int import_rows(app *a, import_job *job) {
    const uint64_t first = a->options[O_FIRST_ID].number;
    uint64_t limit = a->options[O_LIMIT].given ? a->options[O_LIMIT].number : UNKNOWN;
    int status = DONE, next = ROW;
    while (status == DONE && next == ROW && limit > 0 && stop_signal == 0) {
        next = reader_fill(&job->in, &job->rows, first, limit);
        if (job->in.has_ids && a->options[O_FIRST_ID].given)
            return fail(a, USAGE, "--first-id: %s has ids of its own", job->in.in.name);
        limit -= job->rows.count;
        status = import_write(a, job);
        if (status == DONE && next == ROW && stop_signal == 0 && !a->in_shell && job->held > job->held_max)
            status = import_store(a, job); /* the shell's handle is for what comes then, too */
        progress_show(a, &job->progress, job->read, import_part(job), false);
    }
    progress_show(a, &job->progress, job->read, import_part(job), true);
    if (status != DONE) return status;
    if (next == BAD) return fail(a, INPUT, "%s (the %llu rows before it are imported)", job->in.error, ULL(job->read));
    if (stop_signal == 0) return DONE;
    return fail(a, SIGNALLED + stop_signal, "stopped; %llu rows are imported, and the same command goes on",
                ULL(job->read));
}

static int verb_import(app *a) {
    import_job job;
    iqdb_stats stats;
    memset(&job, 0, sizeof job);
    job.progress.began = now();
    job.held_max = import_memory(a);
    int status = open_input(a, &job.in, a->arguments[0]);
    if (status == DONE) status = open_database(a, true, true);
    if (status == DONE) status = checked(a, iqdb_stat(a->db, &stats));
    if (status == DONE && reader_expect(&job.in, stats.dim, stats.element) == BAD) status = fail(a, INPUT, "%s", job.in.error);
    if (status == DONE) {
        job.before = stats.records;
        job.compare = stats.records > 0;
        job.held = stats.snapshot_bytes > stats.mapped_bytes ? stats.snapshot_bytes - stats.mapped_bytes : 0;
        status = import_rows(a, &job);
        const iqdb_result result = iqdb_flush(a->db);
        if (status == DONE) status = checked(a, result);
    }
    if (status == DONE) {
        const uint64_t added = iqdb_len(a->db) - job.before;
        line_begin(a);
        line_number(a, "rows", job.read);
        line_number(a, "new", added);
        line_number(a, "replaced", job.written > added ? job.written - added : 0);
        line_number(a, "unchanged", job.read - job.written);
        line_text(a, "format", job.in.format->name);
        line_real(a, "seconds", now() - job.progress.began);
        line_end(a);
    }
    reader_close(&job.in);
    block_free(&job.rows);
    iqdb_buffer_free(&job.stored);
    return status;
}

typedef struct sink {
    FILE *file;
    const char *path;
    char *part; /* what is written first; NULL for standard output */
} sink;

static int sink_open(app *a, sink *s, const char *path) {
    s->path = path;
    s->file = stdout;
    s->part = NULL;
    if (strcmp(path, "-") == 0) return DONE;
    s->part = (char *)resize(NULL, strlen(path) + 6, 1);
    sprintf(s->part, "%s.part", path);
    s->file = fopen(s->part, "wb");
    if (s->file != NULL) return DONE;
    free(s->part);
    return fail(a, OUTPUT, "%s.part: %s", path, strerror(errno));
}

static int sink_close(app *a, sink *s, int status) {
    if (s->part == NULL) return status == DONE ? end_of_output(a) : status;
    bool good = fflush(s->file) == 0 && ferror(s->file) == 0 && fsync(fileno(s->file)) == 0;
    int cause = errno;
    good = fclose(s->file) == 0 && good;
    if (status == DONE && good && rename(s->part, s->path) != 0) good = false, cause = errno;
    if (status != DONE || !good) remove(s->part);
    free(s->part);
    return status != DONE || good
               ? status
               : fail(a, OUTPUT, "%s: %s; make room and run the same command again", s->path, strerror(cause));
}

static int get_record(app *a, uint64_t id, iqdb_buffer *buffer, iqdb_record *out_record) {
    const iqdb_result result = iqdb_get(a->db, id, buffer, out_record);
    if (result != IQDB_ERR_NOT_FOUND) return checked(a, result);
    return fail(a, ABSENT, "%s: there is no record %llu", a->directory, ULL(id));
}

static int write_records(app *a, writer *w, const uint64_t *ids, size_t count, bool vectors) {
    iqdb_buffer buffer = iqdb_buffer_default();
    float *numbers = NULL;
    progress_line progress = {0.0, 0.0};
    const bool shows = w->file != stdout;
    int status = DONE;
    for (size_t i = 0; i < count && status == DONE && stop_signal == 0 && ferror(w->file) == 0; i++) {
        iqdb_record record;
        if (shows && i % 256 == 0) progress_show(a, &progress, i, (double)i / (double)count, false);
        status = get_record(a, ids[i], &buffer, &record);
        for (uint32_t at = 0; status == DONE && record.vector == NULL && at < record.dim; at++) {
            if (at == 0) numbers = (float *)resize(numbers, record.dim, sizeof *numbers);
            numbers[at] = number_at(w->from, record.raw, at);
        }
        if (status == DONE && record.vector == NULL) record.vector = numbers;
        if (status == DONE && !vectors) record.vector = NULL;
        if (status == DONE && !w->format->rules->put(w, &record))
            status = fail(a, INPUT,
                          "record %llu: an element is no whole number that fits %s; fvecs, fbin, npy, jsonl and "
                          "csv take all",
                          ULL(ids[i]), w->format->name);
    }
    if (shows) progress_show(a, &progress, count, 1.0, true);
    free(numbers);
    iqdb_buffer_free(&buffer);
    return status == DONE && stop_signal != 0 ? SIGNALLED + stop_signal : status;
}

static int verb_export(app *a) {
    const char *path = a->argument_count > 0 ? a->arguments[0] : "-";
    uint64_t *ids = NULL;
    size_t count = 0;
    sink to;
    iqdb_stats stats;
    writer w;
    memset(&w, 0, sizeof w);
    if (format_wanted(a, &w.format) != DONE) return USAGE;
    if (w.format == NULL) w.format = format_of_file(path);
    if (w.format == NULL) w.format = format_named("jsonl");
    int status = ids_of(a, &ids, &count);
    if (status == DONE) status = checked(a, iqdb_stat(a->db, &stats));
    if (status == DONE) status = sink_open(a, &to, path);
    if (status == DONE) {
        w.file = to.file;
        w.rows = count;
        w.dim = stats.dim;
        w.from = stats.element;
        if (w.format->rules->begin != NULL) w.format->rules->begin(&w);
        status = sink_close(a, &to, write_records(a, &w, ids, count, true));
    }
    if (status == DONE && to.file != stdout) {
        line_begin(a);
        line_number(a, "records", count);
        line_text(a, "format", w.format->name);
        line_end(a);
    }
    iqdb_buffer_free(&w.json);
    free(ids);
    return status;
}

/* ==== Other verbs =================================================================================================== */

static int verb_create(app *a) {
    iqdb_stats stats;
    const iqdb_result there = iqdb_inspect(a->directory, &stats);
    if (there == IQDB_OK)
        return fail(a, DATABASE, "%s: there is a database already; `iqdb stat DIR` describes it", a->directory);
    if (there != IQDB_ERR_NOT_FOUND) return fail_database(a, there, a->directory);
    int status = open_database(a, true, true);
    if (status == DONE) status = checked(a, iqdb_stat(a->db, &stats));
    if (status != DONE) return status;
    line_begin(a);
    line_text(a, "created", a->directory);
    line_number(a, "dim", stats.dim);
    line_text(a, "metric", metrics[stats.metric]);
    line_text(a, "element", element_names[stats.element]);
    if (stats.model[0] != 0) line_text(a, "model", stats.model);
    line_end(a);
    return DONE;
}

/* The ids that stand in the arguments. */
static int ids_given(app *a, uint64_t **out_ids, size_t *out_count) {
    *out_ids = (uint64_t *)resize(NULL, a->argument_count, sizeof **out_ids);
    *out_count = a->argument_count;
    for (size_t i = 0; i < a->argument_count; i++)
        if (!id_of(a->arguments[i], &(*out_ids)[i]))
            return fail(a, USAGE, "the id '%s' is no whole number from 0 to 2^64 - 1", a->arguments[i]);
    return DONE;
}

static int print_records(app *a, bool all) {
    uint64_t *ids;
    size_t count;
    writer w;
    memset(&w, 0, sizeof w);
    w.format = format_named("jsonl");
    w.file = stdout;
    iqdb_stats stats;
    int status = checked(a, iqdb_stat(a->db, &stats));
    if (status != DONE) return status;
    w.from = stats.element;
    status = all ? ids_of(a, &ids, &count) : ids_given(a, &ids, &count);
    if (status == DONE) status = write_records(a, &w, ids, count, !all);
    iqdb_buffer_free(&w.json);
    free(ids);
    return status;
}

static int verb_get(app *a) {
    return print_records(a, false);
}

static int verb_list(app *a) {
    return print_records(a, true);
}

/* --vector as the one row of a reader. */
static int vector_of(app *a, reader *r, uint32_t dim, iqdb_element type) {
    uint64_t at = 0;
    memset(r, 0, sizeof *r);
    r->in.name = "--vector";
    r->dim = dim;
    r->dim_of_database = dim != 0;
    char *text = (char *)resize(NULL, strlen(a->options[O_VECTOR].text) + 1, 1);
    strcpy(text, a->options[O_VECTOR].text);
    bool read = reader_numbers(r, text) != BAD && reader_dim(r, r->number_count) != BAD;
    if (read && !pack_vector(type, r->numbers, r->dim, &at))
        read = bad(r, "element %llu does not fit the elements of the database", ULL(at)) != BAD;
    free(text);
    return read ? DONE : fail(a, INPUT, "%s", r->error);
}

static int verb_put(app *a) {
    const option_value *json = &a->options[O_PAYLOAD];
    iqdb_buffer made = iqdb_buffer_default(), stored = iqdb_buffer_default();
    iqdb_record record = iqdb_record_default();
    iqdb_error error;
    iqdb_stats stats;
    reader r;
    uint64_t id = 0;
    memset(&r, 0, sizeof r);
    int status = checked(a, iqdb_stat(a->db, &stats));
    if (status == DONE && !id_of(a->arguments[0], &id))
        status = fail(a, USAGE, "the id '%s' is no whole number from 0 to 2^64 - 1", a->arguments[0]);
    if (status == DONE && a->options[O_VECTOR].given) {
        status = vector_of(a, &r, stats.dim, stats.element);
        record.raw = record.vector = r.numbers;
        record.dim = r.dim;
    } else if (status == DONE) {
        const iqdb_result found = iqdb_get(a->db, id, &stored, &record);
        if (found == IQDB_ERR_NOT_FOUND)
            status = fail(a, ABSENT, "%s: there is no record %llu; a new one needs --vector", a->directory, ULL(id));
        else
            status = checked(a, found);
    }
    record.id = id;
    if (status == DONE && json->given &&
        iqdb_payload_parse(json->text, strlen(json->text), &made, &record.payload, &error) != IQDB_OK)
        status = fail(a, INPUT, "--payload, byte %llu: %s", ULL(error.offset + 1), error.text);
    if (status == DONE) status = checked(a, iqdb_upsert(a->db, &record));
    iqdb_buffer_free(&made);
    iqdb_buffer_free(&stored);
    reader_close(&r);
    return status;
}

static int verb_delete(app *a) {
    iqdb_buffer memory = iqdb_buffer_default();
    const bool filtered = a->options[O_FILTER].given;
    iqdb_filter room;
    const iqdb_filter *filter;
    uint64_t *ids = NULL;
    size_t count = 0, removed = 0;
    if (filtered == (a->argument_count > 0)) return fail(a, USAGE, "give either ids or --filter");
    int status = filtered ? filter_of(a, &memory, &room, &filter) : ids_given(a, &ids, &count);
    if (status == DONE)
        status = checked(a, filtered ? iqdb_delete_where(a->db, filter, &removed)
                                     : iqdb_delete_batch(a->db, ids, count, &removed));
    if (status == DONE) {
        line_begin(a);
        line_number(a, "deleted", removed);
        line_end(a);
    }
    iqdb_buffer_free(&memory);
    free(ids);
    return status == DONE && !filtered && removed < count ? ABSENT : status;
}

/* ---- query and bench: both ask with --id, --vector, or the rows of a file ---- */

static int print_hits(app *a, const iqdb_hit *hits, size_t count, uint64_t number, bool many) {
    iqdb_buffer buffer = iqdb_buffer_default(), json = iqdb_buffer_default();
    const bool as_json = a->options[O_JSON].given;
    int status = DONE;
    if (as_json && many) printf("{\"query\":%llu,\"hits\":[", ULL(number));
    if (as_json && !many) fputs("{\"hits\":[", stdout);
    if (!as_json && many) printf("query %llu\n", ULL(number));
    for (size_t i = 0; i < count && status == DONE; i++) {
        const char *payload = "null";
        iqdb_record record;
        iqdb_result result = iqdb_get(a->db, hits[i].id, &buffer, &record);
        if (result == IQDB_OK) result = iqdb_payload_to_json(record.payload, &json, &payload, NULL);
        status = checked(a, result);
        if (as_json) fputs(i > 0 ? ",{\"id\":" : "{\"id\":", stdout);
        if (as_json) print_id(stdout, hits[i].id);
        if (as_json) fputs(",\"score\":", stdout);
        if (!as_json) printf("%-10llu ", ULL(hits[i].id));
        print_float(stdout, hits[i].score);
        printf(as_json ? ",\"payload\":%s}" : "  %s\n", payload);
    }
    if (as_json) fputs("]}\n", stdout);
    iqdb_buffer_free(&buffer);
    iqdb_buffer_free(&json);
    return status;
}

/* The rows of --queries as questions, a block at a time; the hits of one question are printed together. */
static int query_file(app *a, iqdb_query *query, iqdb_hit *hits, const iqdb_stats *stats) {
    reader r;
    block rows;
    int next = ROW;
    memset(&rows, 0, sizeof rows);
    int status = open_input(a, &r, a->options[O_QUERIES].text);
    if (status == DONE && reader_expect(&r, stats->dim, stats->element) == BAD) status = fail(a, INPUT, "%s", r.error);
    while (status == DONE && next == ROW && stop_signal == 0 && ferror(stdout) == 0) {
        const uint64_t first = r.row;
        next = reader_fill(&r, &rows, 0, BLOCK_ROWS);
        for (size_t i = 0; i < rows.count && status == DONE && stop_signal == 0; i++) {
            size_t count = 0;
            query->raw = query->vector = rows.records[i].vector;
            status = checked(a, iqdb_search(a->db, query, hits, &count));
            if (status == DONE) status = print_hits(a, hits, count, first + i, true);
        }
        if (next == BAD && status == DONE) status = fail(a, INPUT, "%s", r.error);
    }
    block_free(&rows);
    reader_close(&r);
    return status == DONE && stop_signal != 0 ? SIGNALLED + stop_signal : status;
}

/* The one question of --id or --vector; the vector stays in `r` or `stored`. */
static int query_one(app *a, iqdb_query *query, iqdb_hit *hits, const iqdb_stats *stats) {
    iqdb_buffer stored = iqdb_buffer_default();
    iqdb_record record = iqdb_record_default();
    reader r;
    size_t count = 0;
    int status = DONE;
    memset(&r, 0, sizeof r);
    if (a->options[O_VECTOR].given) {
        status = vector_of(a, &r, stats->dim, stats->element);
        query->raw = query->vector = r.numbers;
    } else {
        status = get_record(a, a->options[O_ID].number, &stored, &record);
        query->vector = record.vector;
        query->raw = record.raw;
    }
    if (status == DONE) status = checked(a, iqdb_search(a->db, query, hits, &count));
    if (status == DONE) status = print_hits(a, hits, count, 0, false);
    iqdb_buffer_free(&stored);
    reader_close(&r);
    return status;
}

static int verb_query(app *a) {
    const option_value *k = &a->options[O_K];
    iqdb_buffer memory = iqdb_buffer_default();
    iqdb_filter room;
    iqdb_query query = iqdb_query_default();
    iqdb_stats stats;
    if (a->options[O_ID].given + a->options[O_VECTOR].given + a->options[O_QUERIES].given != 1)
        return fail(a, USAGE, "give one of --id, --vector and --queries");
    query.k = k->given && k->number < iqdb_len(a->db) ? (size_t)k->number
              : k->given || iqdb_len(a->db) < 10      ? iqdb_len(a->db)
                                                      : 10;
    query.flags = a->options[O_MAX_DISTANCE].given ? IQDB_MAX_DISTANCE : 0;
    query.max_distance = (float)a->options[O_MAX_DISTANCE].real;
    int status = filter_of(a, &memory, &room, &query.filter);
    if (status == DONE) status = metric_of(a, &query.metric);
    if (status == DONE) status = checked(a, iqdb_stat(a->db, &stats));
    if (status == DONE && !compares(stats.element, query.metric))
        status = fail(a, USAGE, "--metric %s: the vectors of %s are of %s, which %s", a->options[O_METRIC].text,
                      a->directory, element_names[stats.element],
                      stats.element == IQDB_ELEMENT_BIT ? "only hamming compares" : "all others compare");
    if (status == DONE) {
        iqdb_hit *hits = (iqdb_hit *)resize(NULL, query.k, sizeof *hits);
        status = (a->options[O_QUERIES].given ? query_file : query_one)(a, &query, hits, &stats);
        free(hits);
    }
    iqdb_buffer_free(&memory);
    return status;
}

static int by_time(const void *left, const void *right) {
    const double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Searches with vectors of records from all over the database, one by one and then as batches of 64. */
static int verb_bench(app *a) {
    enum {
        SAMPLE = 64
    };
    const double seconds = a->options[O_SECONDS].given ? a->options[O_SECONDS].real : 2.0;
    const size_t n = iqdb_len(a->db), asked = a->options[O_K].given ? (size_t)a->options[O_K].number : 10,
                 k = asked < n ? asked : n;
    uint64_t *ids = NULL;
    size_t id_count = 0, count = 0, counts[SAMPLE], taken = 0, capacity = 0, batches = 0;
    double *times = NULL, spent = 0.0;
    iqdb_stats stats;
    iqdb_query query = iqdb_query_default();
    if (n == 0) return fail(a, ABSENT, "%s: there are no records to search", a->directory);
    int status = ids_of(a, &ids, &id_count);
    if (status == DONE) status = checked(a, iqdb_stat(a->db, &stats));
    if (status != DONE) return status;
    const size_t size = packed_size(stats.element, stats.dim);
    unsigned char *vectors = (unsigned char *)resize(NULL, SAMPLE, size);
    iqdb_hit *hits = (iqdb_hit *)resize(NULL, SAMPLE * k, sizeof *hits);
    iqdb_buffer buffer = iqdb_buffer_default();
    for (size_t i = 0; i < SAMPLE && status == DONE; i++) {
        iqdb_record record;
        status = checked(a, iqdb_get(a->db, ids[i * n / SAMPLE], &buffer, &record));
        if (status == DONE) memcpy(vectors + i * size, record.raw, size);
    }
    query.k = k;
    for (const double began = now();
         status == DONE && stop_signal == 0 && (taken < SAMPLE || now() - began < seconds / 2); taken++) {
        if (taken == capacity) times = (double *)resize(times, capacity = 2 * capacity + 1024, sizeof *times);
        const double start = now();
        query.raw = vectors + taken % SAMPLE * size;
        query.vector = (const float *)query.raw;
        status = checked(a, iqdb_search(a->db, &query, hits, &count));
        times[taken] = now() - start;
        spent += times[taken];
    }
    const double began = now();
    for (; status == DONE && stop_signal == 0 && (batches == 0 || now() - began < seconds / 2); batches++)
        status = checked(a, iqdb_search_batch(a->db, &query, vectors, SAMPLE, hits, counts));
    if (status == DONE && stop_signal == 0) {
        const double took = now() - began;
        qsort(times, taken, sizeof *times, by_time);
        line_begin(a);
        line_number(a, "records", n);
        line_number(a, "dim", stats.dim);
        line_text(a, "simd", iqdb_simd_name(a->db));
        line_number(a, "k", k);
        line_number(a, "searches", taken);
        line_real(a, "per_second", (double)taken / spent);
        line_real(a, "p50_us", times[taken / 2] * 1e6);
        line_real(a, "p95_us", times[taken * 95 / 100] * 1e6);
        line_real(a, "p99_us", times[taken * 99 / 100] * 1e6);
        line_real(a, "batch_per_second", (double)(batches * SAMPLE) / took);
        line_end(a);
    }
    iqdb_buffer_free(&buffer);
    free(times);
    free(vectors);
    free(hits);
    free(ids);
    return status == DONE && stop_signal != 0 ? SIGNALLED + stop_signal : status;
}

/* ---- What a database is, and whether it is whole ---- */

static void line_stats(app *a, const iqdb_stats *stats) {
    char uuid[33];
    for (size_t i = 0; i < 16; i++) snprintf(uuid + 2 * i, 3, "%02x", stats->uuid[i]);
    line_number(a, "records", stats->records);
    line_number(a, "dim", stats->dim);
    line_text(a, "metric", metrics[stats->metric]);
    line_text(a, "element", element_names[stats->element]);
    line_text(a, "model", stats->model);
    line_text(a, "uuid", uuid);
    line_number(a, "format", stats->format_version);
    line_number(a, "recovered", stats->recovered);
    line_number(a, "last_lsn", stats->last_lsn);
    line_number(a, "durable_lsn", stats->durable_lsn);
    line_number(a, "applied_lsn", stats->applied_lsn);
    line_number(a, "log_bytes", stats->log_bytes);
    line_number(a, "snapshot_bytes", stats->snapshot_bytes);
}

static bool print_collection(const char *name, void *user) {
    app *a = (app *)user;
    char field[IQDB_NAME_SIZE_MAX + 16];
    iqdb *collection = NULL;
    snprintf(field, sizeof field, "records of %s", name);
    if (iqdb_collection(a->db, name, NULL, &collection) == IQDB_OK) line_number(a, field, iqdb_len(collection));
    iqdb_close(collection);
    return true;
}

static const char *const indexes[] = {"auto", "flat", "hnsw", "ivf"};
static const char *const syncs[] = {"flush", "each", "periodic"};

static int verb_stat(app *a) {
    iqdb_stats stats;
    int status = checked(a, iqdb_stat(a->db, &stats));
    if (status != DONE) return status;
    line_begin(a);
    line_stats(a, &stats);
    line_number(a, "snapshots", stats.snapshots);
    line_number(a, "vector_bytes", stats.vector_bytes);
    line_number(a, "code_bytes", stats.code_bytes);
    line_number(a, "payload_bytes", stats.payload_bytes);
    line_number(a, "lookup_bytes", stats.lookup_bytes);
    line_number(a, "key_bytes", stats.key_bytes);
    line_number(a, "index_bytes", stats.index_bytes);
    line_number(a, "free_bytes", stats.free_bytes);
    line_number(a, "retired_rows", stats.retired_rows);
    line_number(a, "retired_bytes", stats.retired_bytes);
    line_number(a, "oldest_pin_age", stats.oldest_pin_age);
    line_number(a, "scratch_bytes", stats.scratch_bytes);
    line_number(a, "mapped_bytes", stats.mapped_bytes);
    line_number(a, "touched_bytes", stats.touched_bytes);
    line_text(a, "index", indexes[stats.index_wanted]);
    line_number(a, "index_rows", stats.index_rows);
    line_number(a, "index_lists", stats.index_lists);
    line_number(a, "longest_list", stats.longest_list);
    line_number(a, "tail_rows", stats.tail_rows);
    line_number(a, "unreachable_rows", stats.unreachable_rows);
    line_text(a, "sync", syncs[stats.sync]);
    line_number(a, "syncs", stats.sync_count);
    line_number(a, "weak_syncs", stats.weak_sync_count);
    line_real(a, "sync_ms", (double)stats.sync_us / 1000.0);
    line_number(a, "checkpoints", stats.checkpoints);
    line_real(a, "checkpoint_age_s", (double)stats.checkpoint_age_us / 1e6);
    line_text(a, "simd", iqdb_simd_name(a->db));
    line_number(a, "all_records", stats.all_records);
    status = checked(a, iqdb_collection_names(a->db, print_collection, a));
    line_end(a);
    return status;
}

/* Works at the index until there is nothing left to do. */
static int finish_index(app *a) {
    iqdb_stats stats;
    progress_line progress = {0.0, 0.0};
    bool done = false;
    int status = DONE;
    while (status == DONE && !done && stop_signal == 0) {
        status = checked(a, iqdb_maintain(a->db, 20000, &done));
        if (status == DONE) status = checked(a, iqdb_stat(a->db, &stats));
        if (status == DONE)
            progress_show(a, &progress, stats.index_rows, (double)stats.index_rows / ((double)stats.records + 1.0), done);
    }
    if (status != DONE || stop_signal == 0) return status;
    return fail(a, SIGNALLED + stop_signal, "stopped; what is missing of the index is made when it is next used");
}

static int print_index(app *a, const double *recall) {
    iqdb_stats stats;
    const int status = checked(a, iqdb_stat(a->db, &stats));
    if (status != DONE) return status;
    line_begin(a);
    line_text(a, "index", indexes[stats.index_wanted]);
    line_number(a, "index_rows", stats.index_rows);
    line_number(a, "index_lists", stats.index_lists);
    line_number(a, "unreachable_rows", stats.unreachable_rows);
    line_number(a, "nprobe", stats.nprobe);
    line_number(a, "ef_search", stats.ef_search);
    if (recall != NULL) line_real(a, "recall", *recall);
    line_end(a);
    return DONE;
}

static int verb_reindex(app *a) {
    const char *name = a->options[O_INDEX].text;
    iqdb_options wanted = iqdb_options_default();
    iqdb_stats stats;
    size_t index = 0;
    while (name != NULL && index < COUNT_OF(indexes) && strcmp(name, indexes[index]) != 0) index++;
    if (index == COUNT_OF(indexes) || (name != NULL && *name == 0))
        return fail(a, USAGE, "--index %s: it is none of auto, flat, hnsw, ivf", name);
    for (size_t i = O_NLIST; i <= O_EF_SEARCH; i++)
        if (a->options[i].number > UINT32_MAX) return fail(a, USAGE, "%s: it is too large", a->options[i].text);
    wanted.index = (iqdb_index)index;
    wanted.nlist = (uint32_t)a->options[O_NLIST].number;
    wanted.nprobe = (uint32_t)a->options[O_NPROBE].number;
    wanted.m = (uint32_t)a->options[O_M].number;
    wanted.ef_construction = (uint32_t)a->options[O_EF_CONSTRUCTION].number;
    wanted.ef_search = (uint32_t)a->options[O_EF_SEARCH].number;
    wanted.seed = a->options[O_SEED].number;
    int status = checked(a, iqdb_stat(a->db, &stats));
    if (status == DONE && wanted.index == IQDB_INDEX_HNSW && stats.element != IQDB_ELEMENT_F32)
        status = fail(a, USAGE, "--index %s: the vectors of %s are of %s, which have flat and ivf, but no graph", name,
                      a->directory, element_names[stats.element]);
    if (status == DONE) status = checked(a, iqdb_reindex(a->db, &wanted));
    if (status == DONE) status = finish_index(a);
    return status == DONE ? print_index(a, NULL) : status;
}

/* The rows of --queries, 1,000 at most, one behind the other and packed as the database has them; NULL, without any,
 * asks for records. */
static int tune_questions(app *a, const iqdb_stats *stats, unsigned char **out_rows, size_t *out_count) {
    const size_t most = 1000, size = packed_size(stats->element, stats->dim);
    reader r;
    block rows;
    int next = ROW;
    memset(&rows, 0, sizeof rows);
    *out_rows = NULL;
    *out_count = 0;
    if (!a->options[O_QUERIES].given) return DONE;
    int status = open_input(a, &r, a->options[O_QUERIES].text);
    if (status == DONE && reader_expect(&r, stats->dim, stats->element) == BAD) status = fail(a, INPUT, "%s", r.error);
    while (status == DONE && next == ROW && *out_count < most && stop_signal == 0) { /* wide rows are several blocks */
        next = reader_fill(&r, &rows, 0, most - *out_count);
        if (next == BAD) status = fail(a, INPUT, "%s", r.error);
        *out_rows = (unsigned char *)resize(*out_rows, *out_count + rows.count, size);
        for (size_t i = 0; i < rows.count; i++)
            memcpy(*out_rows + (*out_count)++ * size, rows.records[i].raw, size);
    }
    if (status == DONE && next == END && *out_count == 0 && stop_signal == 0)
        status = fail(a, INPUT, "%s: there is no row", r.in.name);
    block_free(&rows);
    reader_close(&r);
    return status;
}

/* The least number of lists, or ef of a graph, that finds as much: more never find less, so it lies between two that were
 * tried. */
static int verb_tune(app *a) {
    const double goal = a->options[O_RECALL].given ? a->options[O_RECALL].real : 0.95;
    iqdb_query query = iqdb_query_default();
    iqdb_options wanted = iqdb_options_default();
    iqdb_stats stats;
    unsigned char *questions = NULL;
    size_t count = 0;
    double recall = 0.0, best = 0.0;
    memset(&stats, 0, sizeof stats);
    if (!(goal > 0.0 && goal <= 1.0)) return fail(a, USAGE, "--recall %s: it is from 0 to 1", a->options[O_RECALL].text);
    int status = finish_index(a);
    if (status == DONE) status = checked(a, iqdb_stat(a->db, &stats));
    if (status == DONE && stats.index == IQDB_INDEX_FLAT)
        return fail(a, ABSENT, "%s: there is no index; `iqdb reindex DIR --index ivf` makes one", a->directory);
    if (status == DONE) status = tune_questions(a, &stats, &questions, &count);
    query.k = a->options[O_K].given ? (size_t)a->options[O_K].number : 10;
    if (query.k > 4096) query.k = 4096;
    const bool is_graph = stats.index == IQDB_INDEX_HNSW;
    uint32_t *knob = is_graph ? &query.ef : &query.nprobe;
    uint32_t low = 1, high = is_graph ? 4096 : (uint32_t)stats.index_lists;
    while (status == DONE && low < high && stop_signal == 0) {
        *knob = low + (high - low) / 2;
        status = checked(a, iqdb_measure_recall(a->db, &query, questions, questions != NULL ? count : 200, &recall));
        if (recall >= goal) high = *knob;
        if (recall >= goal) best = recall;
        if (recall < goal) low = *knob + 1;
    }
    *knob = low;
    if (status == DONE && best == 0.0)
        status = checked(a, iqdb_measure_recall(a->db, &query, questions, questions != NULL ? count : 200, &best));
    free(questions);
    if (status == DONE && stop_signal != 0) return fail(a, SIGNALLED + stop_signal, "stopped; nothing has changed");
    wanted.index = stats.index_wanted;
    wanted.nlist = stats.nlist;
    wanted.m = stats.m;
    wanted.ef_construction = stats.ef_construction;
    wanted.seed = stats.seed;
    wanted.nprobe = query.nprobe;
    wanted.ef_search = query.ef;
    if (status == DONE) status = checked(a, iqdb_reindex(a->db, &wanted));
    return status == DONE ? print_index(a, &best) : status;
}

/* What the files say of themselves, without opening: also beside a program that has the database open. */
static int verb_dump(app *a) {
    iqdb_stats stats;
    struct stat facts;
    const iqdb_result result = iqdb_inspect(a->directory, &stats);
    DIR *directory = result == IQDB_OK ? opendir(a->directory) : NULL;
    if (result != IQDB_OK) return fail_database(a, result, a->directory);
    if (directory == NULL) return fail(a, DATABASE, "%s: %s", a->directory, strerror(errno));
    line_begin(a);
    line_stats(a, &stats);
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
        if (entry->d_name[0] != '.' && fstatat(dirfd(directory), entry->d_name, &facts, AT_SYMLINK_NOFOLLOW) == 0)
            line_number(a, entry->d_name, (uint64_t)facts.st_size);
    line_end(a);
    closedir(directory);
    return DONE;
}

static void print_finding(const iqdb_error *finding, void *user) {
    app *a = (app *)user;
    a->findings++;
    line_begin(a);
    line_text(a, "damage", finding->text);
    if (finding->file[0] != 0) line_text(a, "file", finding->file);
    if (finding->file[0] != 0) line_number(a, "offset", finding->offset);
    if (finding->has_id) line_number(a, "id", finding->id);
    if (finding->lsn != 0) line_number(a, "lsn", finding->lsn);
    if (finding->lsn_last != 0) line_number(a, "lsn_last", finding->lsn_last);
    if (finding->records != 0) line_number(a, "records", finding->records);
    line_end(a);
    if (!a->options[O_JSON].given) putchar('\n');
}

static int print_findings(app *a) {
    line_begin(a);
    line_number(a, "findings", a->findings);
    line_end(a);
    return a->findings > 0 ? ABSENT : DONE;
}

/* What does not open for its damage is read by repair, which finds all of it and changes nothing. */
static int verb_verify(app *a) {
    const char *depth = a->options[O_DEPTH].text;
    static const char *const depths[] = {"records", "frames", "blocks", "records"};
    size_t index = 0;
    while (depth != NULL && index < COUNT_OF(depths) && strcmp(depth, depths[index]) != 0) index++;
    if (index == COUNT_OF(depths)) return fail(a, USAGE, "--depth %s: it is none of frames, blocks, records", depth);
    iqdb_options options = iqdb_options_default();
    options.read_only = true;
    options.error = &a->detail;
    a->findings = 0;
    struct stat facts;
    const bool is_image = a->db == NULL && stat(a->directory, &facts) == 0 && S_ISREG(facts.st_mode);
    const int status = is_image ? open_image(a, &options, (size_t)facts.st_size, print_finding) : DONE;
    if (status != DONE) return status;
    iqdb_result result = a->db != NULL || is_image ? IQDB_OK : iqdb_open(a->directory, &options, &a->db);
    if (result == IQDB_OK && a->db != NULL)
        result = iqdb_verify(a->db, (iqdb_depth)index, print_finding, a);
    else if (result == IQDB_ERR_CORRUPT)
        result = iqdb_repair(a->directory, NULL, NULL, print_finding, a);
    return result != IQDB_OK && a->findings == 0 ? fail_database(a, result, a->directory) : print_findings(a);
}

static int verb_repair(app *a) {
    iqdb_options options = iqdb_options_default();
    const char *to = a->argument_count > 0 ? a->arguments[0] : NULL;
    options.error = &a->detail;
    const iqdb_result result = iqdb_repair(a->directory, to, &options, print_finding, a);
    char both[512];
    snprintf(both, sizeof both, "%s%s%s", a->directory, to != NULL ? " into " : "", to != NULL ? to : "");
    if (result != IQDB_OK && (to != NULL || a->findings == 0)) return fail_database(a, result, both);
    return print_findings(a);
}

static int verb_backup(app *a) {
    const iqdb_result result = iqdb_backup(a->db, a->arguments[0]);
    if (result != IQDB_OK) return fail_database(a, result, a->arguments[0]);
    line_begin(a);
    line_text(a, "backup", a->arguments[0]);
    line_number(a, "records", iqdb_len(a->db));
    line_end(a);
    return DONE;
}

static int verb_compact(app *a) {
    iqdb_stats before, after;
    iqdb_options options = iqdb_options_default();
    int status = checked(a, iqdb_stat(a->db, &before));
    if (status == DONE && a->in_shell) { /* whose handle stays open */
        status = checked(a, iqdb_checkpoint(a->db));
        if (status == DONE) status = checked(a, iqdb_stat(a->db, &after));
    } else if (status == DONE) {
        options.error = &a->detail;
        options.compact_on_close = true;
        status = close_database(a, status);
        if (status == DONE) status = checked(a, iqdb_open(a->directory, &options, &a->db));
        status = close_database(a, status);
        if (status == DONE) status = checked(a, iqdb_inspect(a->directory, &after));
    }
    if (status != DONE) return status;
    line_begin(a);
    line_number(a, "bytes_before", before.log_bytes + before.snapshot_bytes);
    line_number(a, "bytes_after", after.log_bytes + after.snapshot_bytes);
    line_end(a);
    return DONE;
}

static bool write_image(const void *bytes, size_t size, void *user) {
    return fwrite(bytes, 1, size, (FILE *)user) == size;
}

static int verb_bake(app *a) {
    sink to;
    int status = sink_open(a, &to, a->arguments[0]);
    if (status != DONE) return status;
    const iqdb_result result = iqdb_export_blob(a->db, write_image, to.file);
    if (result != IQDB_OK && ferror(to.file) == 0) status = fail_database(a, result, a->directory);
    status = sink_close(a, &to, status);
    if (status != DONE || to.file == stdout) return status;
    line_begin(a);
    line_text(a, "baked", a->arguments[0]);
    line_number(a, "records", iqdb_len(a->db));
    line_end(a);
    return DONE;
}

/* ==== The command line ============================================================================================== */

static int verb_shell(app *a);

enum kind {
    FLAG,
    TEXT,
    NUMBER,
    REAL
};
static const struct option {
    const char *name, *value;
    enum kind kind;
    const char *help;
} options[O_COUNT] = {
    {"dim", "N", NUMBER, "elements of a vector; else the first row decides"},
    {"metric", "M", TEXT, "l2, cosine (the default of a new database), dot or l1; of bits hamming"},
    {"element", "E", TEXT, "what vectors are kept in: f32 (the default), f16, bf16, i8, u8 or bit"},
    {"model", "TAG", TEXT, "what makes the vectors: opens that name another model are refused"},
    {"format", "F", TEXT, FORMAT_NAMES},
    {"first-id", "N", NUMBER, "id of the first row, for data without ids; 0 if not given"},
    {"id-field", "NAME", TEXT, "field or column that holds ids; id if not given"},
    {"vector-field", "NAME", TEXT, "field, column, or begin of the columns of the vector; vector if not given"},
    {"limit", "N", NUMBER, "no more than N of them"},
    {"replace", NULL, FLAG, "rows without ids may replace records"},
    {"memory", "MIB", NUMBER, "hold about so much of an import in memory; a quarter of the machine's if not given"},
    {"filter", "TEXT", TEXT, "only records whose payload passes, as in \"year >= 2020 and kind = 'doc'\""},
    {"id", "N", NUMBER, "ask with the vector of this record"},
    {"vector", "TEXT", TEXT, "numbers with spaces or commas between them"},
    {"payload", "JSON", TEXT, "a JSON object"},
    {"queries", "FILE", TEXT, "ask with each row of this file, of any format; - for standard input"},
    {"k", "N", NUMBER, "how many hits; 10 if not given"},
    {"max-distance", "X", REAL, "only hits whose score is at most X"},
    {"depth", "D", TEXT, "frames, blocks or records (the deepest, and the default)"},
    {"index", "I", TEXT, "auto (flat, and lists for 50,000 records), flat, ivf (lists), or hnsw (a graph)"},
    {"nlist", "N", NUMBER, "lists of the index; 0: as many as suit"},
    {"nprobe", "N", NUMBER, "lists that a search reads; 0: as many as find .95 of what there is"},
    {"m", "N", NUMBER, "half the links of a record in the graph, 2 to 16; 0: 16"},
    {"ef-construction", "N", NUMBER, "how widely the graph looks for links; 0: 200"},
    {"ef-search", "N", NUMBER, "how widely a search of the graph looks; 0: as far as finds .95 of what there is"},
    {"seed", "N", NUMBER, "for what the index draws by lot"},
    {"recall", "X", REAL, "how much of what there is searches are to find; .95 if not given"},
    {"seconds", "X", REAL, "how long to measure; 2 if not given"},
    {"quiet", NULL, FLAG, "no progress on the terminal"},
    {"json", NULL, FLAG, "print JSON, one object a line, errors too"},
    {"help", NULL, FLAG, "print what the verb does, its options and examples"},
};

#define TAKES(id) (1ul << (O_##id))
enum mode {
    CLOSED,
    READING,
    WRITING
}; /* how main opens the database; CLOSED verbs do it themselves, or do not */
typedef struct verb {
    const char *name, *arguments;
    size_t least, most; /* arguments behind DIR */
    enum mode mode;
    unsigned long takes;
    int (*function)(app *a);
    const char *help, *examples;
} verb;

static const verb verbs[] = {
    {"create", "", 0, 0, CLOSED, TAKES(DIM) | TAKES(METRIC) | TAKES(ELEMENT) | TAKES(MODEL), verb_create,
     "Makes an empty database.",
     "iqdb create notes.db --dim 384 --metric cosine --model all-MiniLM-L6-v2\n"
     "iqdb create photos.db --metric l2 --element u8\n"},
    {"import", "FILE", 1, 1, CLOSED,
     TAKES(DIM) | TAKES(METRIC) | TAKES(ELEMENT) | TAKES(MODEL) | TAKES(FORMAT) | TAKES(FIRST_ID) | TAKES(ID_FIELD) |
         TAKES(VECTOR_FIELD) | TAKES(LIMIT) | TAKES(REPLACE) | TAKES(MEMORY) | TAKES(QUIET),
     verb_import,
     "Adds the rows of a file, or of standard input (-), and makes the database if there is none. The content tells the\n"
     "format. A row without an id gets its number, counted from --first-id. After an interruption the same command goes on.\n"
     "Of what comes about --memory MiB are held, a quarter of the machine's memory unless given; then files take it.",
     "iqdb import notes.db vectors.npy\niqdb import notes.db more.fvecs --first-id 1000000\n"
     "iqdb import notes.db notes.jsonl --vector-field embedding\nzcat notes.csv.gz | iqdb import notes.db -\n"},
    {"export", "[FILE]", 0, 1, READING, TAKES(FORMAT) | TAKES(FILTER) | TAKES(LIMIT) | TAKES(QUIET), verb_export,
     "Writes records in the order of their ids. The name tells the format, else it is jsonl. Only jsonl and csv keep ids\n"
     "and payloads.",
     "iqdb export notes.db notes.jsonl\niqdb export notes.db new.npy --filter \"year >= 2020\"\n"
     "iqdb export notes.db --format csv | head\n"},
    {"query", "", 0, 0, READING,
     TAKES(ID) | TAKES(VECTOR) | TAKES(QUERIES) | TAKES(K) | TAKES(METRIC) | TAKES(FILTER) | TAKES(MAX_DISTANCE) |
         TAKES(FORMAT) | TAKES(ID_FIELD) | TAKES(VECTOR_FIELD),
     verb_query, "Prints the nearest records, closest first: id, score and payload.",
     "iqdb query notes.db --id 17 -k 3 --json\niqdb query notes.db --vector \"0.1 0.7 0.2\" --filter \"lang = 'en'\"\n"
     "iqdb query notes.db --queries questions.fvecs -k 100 --json > hits.jsonl\n"},
    {"get", "ID...", 1, SIZE_MAX, READING, 0, verb_get, "Prints records as JSON, vector and payload.",
     "iqdb get notes.db 17\niqdb get notes.db 17 18 19\n"},
    {"put", "ID", 1, 1, WRITING, TAKES(VECTOR) | TAKES(PAYLOAD), verb_put,
     "Adds or replaces a record. Without --vector the record keeps its vector, without both it is only looked for.",
     "iqdb put notes.db 17 --vector \"0.1 0.7 0.2\" --payload '{\"kind\":\"note\"}'\n"
     "iqdb put notes.db 17 --payload '{\"kind\":\"draft\"}'\n"},
    {"delete", "[ID...]", 0, SIZE_MAX, WRITING, TAKES(FILTER), verb_delete,
     "Deletes records by their ids or by a filter, all at once.",
     "iqdb delete notes.db 17 18\niqdb delete notes.db --filter \"kind = 'draft'\"\n"},
    {"list", "", 0, 0, READING, TAKES(FILTER) | TAKES(LIMIT), verb_list,
     "Prints ids and payloads as JSON, in the order of the ids.",
     "iqdb list notes.db --limit 10\niqdb list notes.db --filter \"tags contains 'bike'\"\n"},
    {"stat", "", 0, 0, READING, 0, verb_stat, "Describes a database: records, memory, files.", "iqdb stat notes.db\n"},
    {"verify", "", 0, 0, CLOSED, TAKES(DEPTH), verb_verify,
     "Reads all files again and checks every byte and record. Prints each damage, and exits with 1 if there is any.",
     "iqdb verify notes.db\niqdb verify notes.db --depth frames\niqdb verify notes.iqdb\n"},
    {"repair", "[NEWDIR]", 0, 1, CLOSED, 0, verb_repair,
     "Makes a new database of what can be read of a damaged one, and prints what is lost. Without NEWDIR only prints it.",
     "iqdb repair notes.db\niqdb repair notes.db saved.db\n"},
    {"backup", "NEWDIR", 1, 1, READING, 0, verb_backup, "Copies a database to another directory.",
     "iqdb backup notes.db /mnt/backup/notes.db\n"},
    {"compact", "", 0, 0, WRITING, 0, verb_compact, "Turns log and snapshot into one snapshot of the living records.",
     "iqdb compact notes.db\n"},
    {"reindex", "", 0, 0, WRITING,
     TAKES(INDEX) | TAKES(NLIST) | TAKES(NPROBE) | TAKES(M) | TAKES(EF_CONSTRUCTION) | TAKES(EF_SEARCH) | TAKES(SEED) |
         TAKES(QUIET),
     verb_reindex, "Gives the database another index, and keeps the choice. Records stay as they are.",
     "iqdb reindex notes.db --index ivf --nlist 300\niqdb reindex notes.db --index hnsw -m 8\n"
     "iqdb reindex notes.db --index flat\n"},
    {"tune", "", 0, 0, WRITING,
     TAKES(RECALL) | TAKES(QUERIES) | TAKES(K) | TAKES(FORMAT) | TAKES(ID_FIELD) | TAKES(VECTOR_FIELD) | TAKES(QUIET),
     verb_tune,
     "Finds how many lists a search has to read for a recall, or how widely it has to look in a graph, by searching for\n"
     "vectors as they will be asked for, or else for records, and keeps that number.",
     "iqdb tune notes.db --recall .99 --queries questions.fvecs\niqdb tune notes.db -k 100\n"},
    {"bench", "", 0, 0, READING, TAKES(K) | TAKES(SECONDS), verb_bench,
     "Measures searches with vectors of the database itself, one by one and in batches of 64.",
     "iqdb bench notes.db -k 10 --seconds 5\n"},
    {"dump", "", 0, 0, CLOSED, 0, verb_dump,
     "Prints what the header says, and the size of each file, without opening the database: also while it is in use.",
     "iqdb dump notes.db --json\n"},
    {"bake", "FILE", 1, 1, READING, 0, verb_bake,
     "Writes a read-only image in one file. Verbs that only read, but for dump and repair, take such a file in place of\n"
     "DIR.",
     "iqdb bake notes.db notes.iqdb\niqdb query notes.iqdb --id 17\n"},
    {"shell", "", 0, 0, CLOSED, 0, verb_shell,
     "Keeps the database open and runs a verb a line, without DIR: from the terminal, or from standard input.",
     "iqdb shell notes.db\nprintf 'stat\\nget 17\\n' | iqdb shell notes.db\n"},
};

static const char *verb_name(const app *a) {
    return a->verb != NULL ? a->verb->name : "";
}

static const verb *verb_named(const char *name) {
    for (size_t i = 0; i < COUNT_OF(verbs); i++)
        if (strcmp(verbs[i].name, name) == 0) return &verbs[i];
    return NULL;
}

static void print_usage(FILE *to) {
    fputs("usage: iqdb VERB DIR ...\n\nA vector database in a directory, from the command line.\n\n", to);
    for (size_t i = 0; i < COUNT_OF(verbs); i++)
        fprintf(to, "  %-8s %.*s\n", verbs[i].name, (int)strcspn(verbs[i].help, "\n"), verbs[i].help);
    fputs(
        "\n`iqdb VERB --help` tells more. Exit codes: 0 done, 1 not found or damage found, 2 wrong use, 3 wrong data,\n"
        "4 the database cannot be used, 5 output cannot be written, 130 stopped by Ctrl-C, 141 by a closed pipe.\n",
        to);
}

static void print_help(const verb *v) {
    printf("usage: iqdb %s DIR%s%s [OPTION...]\n\n%s\n\n", v->name, *v->arguments != 0 ? " " : "", v->arguments,
           v->help);
    for (size_t i = 0; i < O_COUNT; i++) {
        char shown[32];
        if ((v->takes | TAKES(JSON) | TAKES(HELP)) >> i & 1) {
            snprintf(shown, sizeof shown, "%s%s %s", options[i].name[1] != 0 ? "--" : "-", options[i].name,
                     options[i].value != NULL ? options[i].value : "");
            printf("  %-20s %s\n", shown, options[i].help);
        }
    }
    printf("\nExamples:\n");
    for (const char *at = v->examples; *at != 0; at = strchr(at, '\n') + 1)
        printf("  %.*s\n", (int)strcspn(at, "\n"), at);
}

/* "--name", "--name=value" or "-k": its index, O_COUNT where there is none. *out_value: behind "=", or of "-k5". */
static size_t option_of(const char *text, const char **out_value) {
    const bool is_long = text[1] == '-';
    const char *name = text + 1 + is_long;
    const size_t size = is_long ? strcspn(name, "=") : 1;
    *out_value = is_long ? (name[size] == '=' ? name + size + 1 : NULL) : name[1] != 0 ? name + 1 : NULL;
    for (size_t i = 0; i < O_COUNT; i++)
        if (strlen(options[i].name) == size && strncmp(options[i].name, name, size) == 0) return i;
    return O_COUNT;
}

static int option_set(app *a, size_t index, const char *text) {
    option_value *value = &a->options[index];
    char *end;
    value->given = true;
    value->text = text;
    if (options[index].kind == NUMBER && !id_of(text, &value->number))
        return fail(a, USAGE, "--%s %s: it is no whole number from 0 on", options[index].name, text);
    if (index == O_DIM && (value->number == 0 || value->number > IQDB_DIM_MAX))
        return fail(a, USAGE, "--dim %s: a vector has 1 to %u elements", text, IQDB_DIM_MAX);
    if (options[index].kind != REAL) return DONE;
    value->real = strtod(text, &end);
    return end != text && *end == 0 && isfinite(value->real)
               ? DONE
               : fail(a, USAGE, "--%s %s: it is no number", options[index].name, text);
}

/* How to tell what is wrong with words, before they are understood. */
static bool asks_for_json(const app *a, char **words, size_t count) {
    bool asks = a->options[O_JSON].given;
    for (size_t i = 0; i < count && strcmp(words[i], "--") != 0; i++) asks = asks || strcmp(words[i], "--json") == 0;
    return asks;
}

/* Sorts words into options and arguments, which stay in `words`. */
static int read_words(app *a, char **words, size_t count) {
    bool only_arguments = false, is_json = a->options[O_JSON].given;
    size_t kept = 0;
    a->options[O_JSON].given = asks_for_json(a, words, count);
    for (size_t i = 0; i < count; i++) {
        const char *value;
        if (only_arguments || words[i][0] != '-' || words[i][1] == 0) {
            words[kept++] = words[i];
        } else if (strcmp(words[i], "--") == 0) {
            only_arguments = true;
        } else {
            const size_t index = option_of(words[i], &value);
            if (index == O_COUNT || ((a->verb->takes | TAKES(JSON) | TAKES(HELP)) >> index & 1) == 0)
                return fail(a, USAGE, "there is no option %s; `iqdb %s --help` lists them", words[i], a->verb->name);
            if (options[index].kind == FLAG && value != NULL) return fail(a, USAGE, "%s: it takes no value", words[i]);
            if (options[index].kind != FLAG && value == NULL && i + 1 == count)
                return fail(a, USAGE, "%s: the value is missing", words[i]);
            if (options[index].kind != FLAG && value == NULL) value = words[++i];
            is_json = is_json || index == O_JSON;
            const int status = option_set(a, index, value);
            if (status != DONE) return status;
        }
    }
    a->options[O_JSON].given = is_json; /* the word may have been the value of another option */
    a->arguments = words;
    a->argument_count = kept;
    return DONE;
}

static int run_verb(app *a) {
    const verb *v = a->verb;
    const size_t given = a->argument_count;
    if (a->options[O_HELP].given) {
        print_help(v);
        return DONE;
    }
    if (a->directory == NULL && given > 0) {
        a->directory = a->arguments++[0];
        a->argument_count--;
    }
    if (a->directory == NULL || a->argument_count < v->least || a->argument_count > v->most)
        return fail(a, USAGE, "usage: iqdb %s DIR%s%s [OPTION...]; `iqdb %s --help` explains it", v->name,
                    *v->arguments != 0 ? " " : "", v->arguments, v->name);
    int status = v->mode != CLOSED ? open_database(a, v->mode == WRITING, false) : DONE;
    if (status == DONE) status = v->function(a);
    if (!a->in_shell) status = close_database(a, status);
    return status == DONE ? end_of_output(a) : status;
}

typedef struct word_list {
    char **words;
    size_t count, room;
} word_list;

/* Splits a line at spaces; '...' and "..." keep theirs. False where a quote is still open at its end. */
static bool split(char *line, word_list *list) {
    char quote = 0;
    list->count = 0;
    while (line[strspn(line, " \t\r\n")] != 0) {
        char *to = line += strspn(line, " \t\r\n");
        if (list->count == list->room)
            list->words = (char **)resize(list->words, list->room = 2 * list->room + 64, sizeof *list->words);
        list->words[list->count++] = to;
        for (; *line != 0 && (quote != 0 || strchr(" \t\r\n", *line) == NULL); line++) {
            if (*line == quote)
                quote = 0;
            else if (quote == 0 && (*line == '"' || *line == '\''))
                quote = *line;
            else
                *to++ = *line;
        }
        if (*line != 0) line++;
        *to = 0;
    }
    return quote == 0;
}

static int verb_shell(app *a) {
    char *line = NULL;
    word_list list = {NULL, 0, 0};
    size_t room = 0;
    int last = open_database(a, true, false);
    const bool usable = last == DONE;
    while (usable && stop_signal == 0 && last != SIGNALLED + SIGPIPE) {
        app inner = *a;
        int status;
        if (isatty(0) != 0) fputs("iqdb> ", stdout);
        fflush(stdout);
        if (getline(&line, &room, stdin) < 0) break;
        if (line[strspn(line, " \t\r\n")] == '#') continue; /* whatever quotes are in it */
        const bool is_whole = split(line, &list);
        if (list.count == 0) continue;
        const char *first = list.words[0];
        const verb *v = verb_named(first);
        inner.options[O_JSON].given = asks_for_json(&inner, list.words, list.count);
        if (!is_whole) {
            last = fail(&inner, USAGE, "a quote that opens in this line is never closed");
            continue;
        }
        if (strcmp(first, "exit") == 0 || strcmp(first, "quit") == 0) break;
        if (strcmp(first, "help") == 0) print_usage(stdout);
        if (strcmp(first, "help") == 0) continue;
        if (v == NULL || v->function == verb_shell || v->function == verb_create || v->function == verb_repair) {
            last = fail(&inner, USAGE, "'%s' is no verb here; help lists them", first);
            continue;
        }
        inner.options[O_JSON].given = a->options[O_JSON].given;
        inner.in_shell = true;
        inner.verb = v;
        status = read_words(&inner, list.words + 1, list.count - 1);
        if (status == DONE) status = run_verb(&inner);
        if (status != DONE) last = status;
    }
    free(line);
    free(list.words);
    return last;
}

int main(int argc, char **argv) {
    app a;
    struct sigaction stop;
    memset(&a, 0, sizeof a);
    memset(&stop, 0, sizeof stop);
    stop.sa_handler = on_stop;
    stop.sa_flags = (int)SA_RESETHAND; /* the second one ends the process */
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    signal(SIGPIPE, SIG_IGN);
    const char *first = argc > 1 ? argv[1] : "";
    if (strcmp(first, "--version") == 0) {
        printf("iqdb %d.%d.%d\n", IQDB_VERSION_MAJOR, IQDB_VERSION_MINOR, IQDB_VERSION_PATCH);
        return end_of_output(&a);
    }
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0 || strcmp(first, "help") == 0) {
        print_usage(stdout);
        return end_of_output(&a);
    }
    if (argc < 2) {
        print_usage(stderr);
        return USAGE;
    }
    a.verb = verb_named(first);
    if (a.verb == NULL) {
        a.options[O_JSON].given = asks_for_json(&a, argv + 1, (size_t)argc - 1);
        return fail(&a, USAGE, "there is no verb '%s'; `iqdb --help` lists them", first);
    }
    const int status = read_words(&a, argv + 2, (size_t)argc - 2);
    return status == DONE ? run_verb(&a) : status;
}
