/* app.h: one call of the command `iqdb`: what it was asked for, how it answers, and the database that it has open.
 *
 * Part of tools/iqdb.c, which includes it once behind iqdb.h. What is printed is a line of text or a JSON object, made by
 * the same calls; every failure prints one line that says what, where and what to do, and gives one of the exit codes. */
#ifndef APP_H
#define APP_H

#include "rows.h"

#include <limits.h>
#include <sys/mman.h>
#include <time.h>

/* ==== What the command answers ====================================================================================== */

enum {
    DONE = 0,
    ABSENT = 1,     /* a record is not there, or verify or repair found damage */
    USAGE = 2,      /* the command line makes no sense */
    INPUT = 3,      /* data to import or to ask with is wrong, or does not fit the format of an export */
    DATABASE = 4,   /* the database cannot be used: absent, there already, in use, damaged, disk full */
    OUTPUT = 5,     /* what was to be written cannot be */
    SIGNALLED = 128 /* and the signal's number: 130 after Ctrl-C, 141 when a pipe was closed */
};

typedef enum option_id {
    O_DIM,
    O_METRIC,
    O_ELEMENT,
    O_MODEL,
    O_FORMAT,
    O_FIRST_ID,
    O_ID_FIELD,
    O_VECTOR_FIELD,
    O_LIMIT,
    O_REPLACE,
    O_MEMORY,
    O_FILTER,
    O_ID,
    O_VECTOR,
    O_PAYLOAD,
    O_QUERIES,
    O_K,
    O_MAX_DISTANCE,
    O_DEPTH,
    O_INDEX,
    O_NLIST,
    O_NPROBE,
    O_M,
    O_EF_CONSTRUCTION,
    O_EF_SEARCH,
    O_SEED,
    O_RECALL,
    O_SECONDS,
    O_QUIET,
    O_JSON,
    O_HELP,
    O_COUNT
} option_id;

typedef struct option_value {
    bool given;
    const char *text;
    uint64_t number;
    double real;
} option_value;

struct verb;

typedef struct app {
    const struct verb *verb;
    const char *directory;
    char **arguments; /* behind the directory */
    size_t argument_count;
    option_value options[O_COUNT];
    iqdb *db;
    iqdb_error detail; /* of the last failure inside the database */
    void *image;       /* a baked file that is open as the database */
    size_t image_size;
    size_t field_count;
    uint64_t findings;
    bool in_shell;
} app;

static const char *verb_name(const app *a); /* behind the table of verbs */

/* Set by the first Ctrl-C or SIGTERM; the second one ends the process at once. */
static volatile sig_atomic_t stop_signal;

static void on_stop(int number) {
    stop_signal = number;
}

static double now(void) { /* seconds */
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* ==== Lines of output =============================================================================================== */

static void print_json_text(FILE *to, const char *text) {
    putc('"', to);
    for (; *text != 0; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            fprintf(to, "\\%c", c);
        else if (c < 0x20)
            fprintf(to, "\\u%04x", c);
        else
            putc(c, to);
    }
    putc('"', to);
}

/* An object in JSON, `name   value` lines as text. */
static void line_begin(app *a) {
    a->field_count = 0;
    if (a->options[O_JSON].given) putchar('{');
}

static void line_end(const app *a) {
    if (a->options[O_JSON].given) fputs("}\n", stdout);
    if (a->in_shell) fflush(stdout);
}

static bool line_field(app *a, const char *name) { /* true: JSON */
    const bool is_json = a->options[O_JSON].given;
    if (!is_json) printf("%-16s ", name);
    if (is_json && a->field_count > 0) putchar(',');
    if (is_json) print_json_text(stdout, name);
    if (is_json) putchar(':');
    a->field_count++;
    return is_json;
}

static void line_text(app *a, const char *name, const char *text) {
    if (line_field(a, name))
        print_json_text(stdout, text);
    else
        puts(text);
}

static void line_number(app *a, const char *name, uint64_t number) {
    printf(line_field(a, name) ? "%llu" : "%llu\n", ULL(number));
}

static void line_real(app *a, const char *name, double number) {
    printf(line_field(a, name) ? "%.6g" : "%.6g\n", number);
}

/* ==== Failures ====================================================================================================== */

static int fail(const app *a, int code, const char *what, ...) __attribute__((format(printf, 3, 4)));
static int fail(const app *a, int code, const char *what, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, what);
    vsnprintf(text, sizeof text, what, arguments);
    va_end(arguments);
    fflush(stdout);
    if (a->options[O_JSON].given) {
        fputs("{\"error\":", stderr);
        print_json_text(stderr, text);
        fprintf(stderr, ",\"code\":%d}\n", code);
    } else {
        fprintf(stderr, "iqdb%s%s: %s\n", a->verb != NULL ? " " : "", verb_name(a), text);
    }
    return code;
}

/* By code, from IQDB_OK on: what helps. */
static const char *const advice[] = {NULL,
                                     "when the cause is mended, run the same command again",
                                     "name another directory, or options that agree with what is stored",
                                     NULL,
                                     NULL,
                                     "`iqdb verify DIR` lists the damage, `iqdb repair DIR NEWDIR` saves the rest",
                                     NULL,
                                     "`iqdb create DIR` makes one",
                                     "records are kept in memory, and there is not enough; an import takes less with --memory",
                                     "make room and run the same command again; nothing was lost",
                                     "another program has it open: wait until that ends",
                                     "if the disk was full, make room for recovery first",
                                     "use the newer iqdb that wrote it",
                                     NULL,
                                     NULL,
                                     "run the same command again"};

/* One line for a failed call of the library; `where` is the directory or file it was about. */
static int fail_database(app *a, iqdb_result result, const char *where) {
    const iqdb_error *detail = &a->detail;
    const size_t index = (size_t)-result;
    const bool known = detail->code == result && detail->text[0] != 0;
    const char *help = index < COUNT_OF(advice) ? advice[index] : NULL;
    char place[80] = "", cause[160] = "";
    if (known && detail->file[0] != 0) snprintf(place, sizeof place, ", in %s", detail->file);
    if (place[0] != 0 && detail->offset > 0)
        snprintf(place, sizeof place, ", in %s at byte %llu", detail->file, ULL(detail->offset));
    if (known && detail->os_code != 0) snprintf(cause, sizeof cause, " (%s)", strerror(detail->os_code));
    const int code = result == IQDB_ERR_DIMENSION_MISMATCH || result == IQDB_ERR_INVALID_PAYLOAD ? INPUT
                     : result == IQDB_ERR_INVALID_ARGUMENT                                       ? USAGE
                                                                                                 : DATABASE;
    return fail(a, code, "%s: %s%s%s%s%s", where, known ? detail->text : iqdb_strerror(result), place, cause,
                help != NULL ? "; " : "", help != NULL ? help : "");
}

/* Whoever closed the pipe has read enough: nothing is said. */
static int end_of_output(const app *a) {
    if (fflush(stdout) == 0 && ferror(stdout) == 0) return DONE;
    return errno == EPIPE ? SIGNALLED + SIGPIPE : fail(a, OUTPUT, "the output cannot be written: %s", strerror(errno));
}

/* ==== The database ================================================================================================== */

static const char *const metrics[] = {"default", "l2", "cosine", "dot", "l1", "hamming"};
static const char *const element_names[] = {"f32", "f16", "bf16", "i8", "u8", "bit"};

static int metric_of(const app *a, iqdb_metric *out) {
    const char *name = a->options[O_METRIC].text;
    for (size_t i = 1; name != NULL && i < COUNT_OF(metrics); i++)
        if (strcmp(name, metrics[i]) == 0) *out = (iqdb_metric)i;
    if (name == NULL || *out != IQDB_METRIC_DEFAULT) return DONE;
    return fail(a, USAGE, "--metric %s: it is none of l2, cosine, dot, l1, hamming", name);
}

/* Only bits have the distance of Hamming, and only that. */
static bool compares(iqdb_element type, iqdb_metric metric) {
    return metric == IQDB_METRIC_DEFAULT || (metric == IQDB_HAMMING) == (type == IQDB_ELEMENT_BIT);
}

static int element_of(const app *a, iqdb_element *out) {
    const char *name = a->options[O_ELEMENT].text;
    for (size_t i = 0; name != NULL && i < COUNT_OF(element_names); i++) {
        if (strcmp(name, element_names[i]) != 0) continue;
        *out = (iqdb_element)i;
        return DONE;
    }
    return name == NULL ? DONE : fail(a, USAGE, "--element %s: it is none of f32, f16, bf16, i8, u8, bit", name);
}

/* A baked file, read where the system has it. With `report`, that is told of damage, and DONE has no database then. */
static int open_image(app *a, const iqdb_options *options, size_t size, iqdb_report_fn report) {
    const int file = open(a->directory, O_RDONLY | O_CLOEXEC);
    void *image = file < 0 || size == 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
    if (file >= 0) close(file);
    if (image == MAP_FAILED)
        return fail(a, DATABASE, "%s: %s", a->directory, size == 0 ? "it is empty" : strerror(errno));
    a->image = image;
    a->image_size = size;
    const iqdb_result result = iqdb_open_blob(image, size, options, &a->db);
    if (result != IQDB_ERR_CORRUPT) return result == IQDB_OK ? DONE : fail_database(a, result, a->directory);
    if (report != NULL) report(&a->detail, a);
    if (report != NULL) return DONE;
    return fail(a, DATABASE, "%s: it is damaged, or no file that `iqdb bake` made; bake it again (%s)", a->directory,
                a->detail.text);
}

/* Only create and import may make a database: a mistyped name is not to become one. An import leaves what is stored where
 * it lies, and has nothing in memory but what it brings. */
static int open_database(app *a, bool write, bool create) {
    struct stat facts;
    iqdb_stats stats;
    iqdb_options options = iqdb_options_default();
    if (a->db != NULL) return DONE; /* the shell's */
    options.error = &a->detail;
    options.read_only = !write;
    if (write && create) options.open_mode = IQDB_OPEN_MMAP;
    if (create) options.dim = (uint32_t)a->options[O_DIM].number;
    if (create) options.model = a->options[O_MODEL].text;
    if (create && (metric_of(a, &options.metric) != DONE || element_of(a, &options.element) != DONE)) return USAGE;
    if (create && a->options[O_ELEMENT].given && !compares(options.element, options.metric))
        return fail(a, USAGE, "--metric %s: vectors of %s are compared by %s", metrics[options.metric],
                    element_names[options.element],
                    options.element == IQDB_ELEMENT_BIT ? "hamming only" : "l2, cosine, dot or l1");
    if (!write && stat(a->directory, &facts) == 0 && S_ISREG(facts.st_mode))
        return open_image(a, &options, (size_t)facts.st_size, NULL);
    iqdb_result result = write && !create ? iqdb_inspect(a->directory, &stats) : IQDB_OK;
    if (result != IQDB_ERR_NOT_FOUND) result = iqdb_open(a->directory, &options, &a->db);
    return result == IQDB_OK ? DONE : fail_database(a, result, a->directory);
}

static int close_database(app *a, int status) {
    const iqdb_result result = iqdb_close(a->db);
    if (a->image != NULL) munmap(a->image, a->image_size);
    a->db = NULL;
    a->image = NULL;
    return result != IQDB_OK && status == DONE ? fail_database(a, result, a->directory) : status;
}

static int checked(app *a, iqdb_result result) {
    return result == IQDB_OK ? DONE : fail_database(a, result, a->directory);
}

/* --filter, as *out_filter, whose parts lie in `memory`; NULL where it was not given. */
static int filter_of(const app *a, iqdb_buffer *memory, iqdb_filter *room, const iqdb_filter **out_filter) {
    const char *text = a->options[O_FILTER].text;
    iqdb_error error;
    *out_filter = text != NULL ? room : NULL;
    if (text == NULL || iqdb_filter_parse(text, strlen(text), memory, room, &error) == IQDB_OK) return DONE;
    return fail(a, USAGE, "--filter, byte %llu: %s", ULL(error.offset + 1), error.text);
}

static int by_number(const void *left, const void *right) {
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* Ids that pass --filter, ascending, at most --limit of them. */
static int ids_of(app *a, uint64_t **out_ids, size_t *out_count) {
    iqdb_buffer memory = iqdb_buffer_default();
    iqdb_filter room;
    const iqdb_filter *filter;
    size_t capacity = 0;
    *out_ids = NULL;
    *out_count = 0;
    int status = filter_of(a, &memory, &room, &filter);
    if (status == DONE) {
        iqdb_iter iter = iqdb_iter_begin(a->db, filter);
        while (iqdb_iter_next(&iter)) {
            if (*out_count == capacity)
                *out_ids = (uint64_t *)resize(*out_ids, capacity = 2 * capacity + 1024, sizeof **out_ids);
            (*out_ids)[(*out_count)++] = iter.record.id;
        }
        status = checked(a, iter.result);
        iqdb_iter_end(&iter);
    }
    iqdb_buffer_free(&memory);
    if (*out_count > 1) qsort(*out_ids, *out_count, sizeof **out_ids, by_number);
    if (a->options[O_LIMIT].given && a->options[O_LIMIT].number < *out_count)
        *out_count = (size_t)a->options[O_LIMIT].number;
    return status;
}

#endif
