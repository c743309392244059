/* iqdb-import: brings a database of the original iqdb, a directory of version 0.4 or a file of iqdb-persist 1.0, which
 * iqdb 1.0 writes, into a directory of iqdb.h.
 *
 *   cc -std=gnu99 -O2 -I. tools/import/iqdb-import.c -o iqdb-import -pthread -lm      or:  make iqdb-import
 *   With -DIMPORT_ZSTD and -lzstd it reads files packed by Zstandard as well.
 *
 * A program in C, because who has iqdb.h has a compiler, and nothing else is needed. original.h reads the old files.
 *
 * 1. The old files are only read. The new directory is made at the end and at once, or not at all.
 * 2. What is not taken over is reported, record by record, and then the exit code is not 0. */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include "original.h"

#include <errno.h>
#include <sys/stat.h>

enum {
    DONE = 0,
    LEFT = 1,     /* imported, but for what was reported */
    USAGE = 2,    /* the command line makes no sense */
    INPUT = 3,    /* the old database cannot be read; nothing was made */
    DATABASE = 4, /* the new one cannot be made */
    OUTPUT = 5    /* the report cannot be written */
};

static const char usage[] =
    "usage: iqdb-import [options] OLD NEW\n"
    "\n"
    "OLD   a directory of iqdb 0.4, with snap and wal in it; or a file of iqdb 1.0, whose log lies beside it as OLD.wal.\n"
    "      Nothing may have it open.\n"
    "NEW   the directory to make, for iqdb_open of iqdb.h\n"
    "\n"
    "  --metric M   l2, cosine, dot or l1: what searches use that name none. Version 0.4 stored none, so it is\n"
    "               needed there; 1.0 did\n"
    "  --dim N      take the records of N elements; otherwise of as many as most have\n"
    "  --salvage    take what is whole behind damage, too\n"
    "  --check      only report; without NEW\n"
    "\n"
    "Each record that iqdb.h cannot have, and all damage, is reported on a line. The exit code is 0 when all records were\n"
    "taken, 1 when some were not, 2 for wrong use, 3 where OLD cannot be read, 4 where NEW cannot be made.\n";

static int fail(int code, const char *text, ...) __attribute__((format(printf, 2, 3)));
static int fail(int code, const char *text, ...) {
    va_list arguments;
    fflush(stdout);
    fputs("iqdb-import: ", stderr);
    va_start(arguments, text);
    vfprintf(stderr, text, arguments);
    va_end(arguments);
    putc('\n', stderr);
    return code;
}

static void report(const char *text, void *user) {
    (void)user;
    puts(text);
}

static char *joined(const char *one, const char *two) {
    char *text = (char *)room_for(NULL, strlen(one) + strlen(two) + 1, 1);
    strcpy(text, one);
    strcat(text, two);
    return text;
}

/* A whole file. One that is missing is empty: *out_found tells. */
static int read_part(char *path, part *p, bool *out_found) {
    struct stat facts;
    p->name = path;
    p->bytes = NULL;
    p->size = 0;
    *out_found = stat(path, &facts) == 0;
    if (!*out_found) return errno == ENOENT ? DONE : fail(INPUT, "%s: %s", path, strerror(errno));
    if (!S_ISREG(facts.st_mode)) return fail(INPUT, "%s: it is no regular file", path);
    FILE *file = fopen(path, "rb");
    if (file == NULL) return fail(INPUT, "%s: %s", path, strerror(errno));
    size_t room = 0, got = 1;
    while (got > 0) { /* whatever its size was said to be */
        if (p->size == room) p->bytes = (unsigned char *)room_for(p->bytes, room += room / 2 + (1u << 16), 1);
        got = fread(p->bytes + p->size, 1, room - p->size, file);
        p->size += got;
    }
    const bool good = ferror(file) == 0;
    fclose(file);
    return good ? DONE : fail(INPUT, "%s: it cannot be read to its end", path);
}

static void part_free(part *p) {
    free(p->name);
    free(p->bytes);
}

static int read_parts(original *o, const char *path) {
    struct stat facts;
    bool has_snapshot = false, has_log = false;
    const bool there = stat(path, &facts) == 0, is_directory = there && S_ISDIR(facts.st_mode);
    char *meta = joined(path, "/META");
    const bool is_ours = is_directory && stat(meta, &facts) == 0;
    free(meta);
    o->newer = !is_directory;
    if (is_ours) return fail(INPUT, "%s: it is a database of iqdb.h already; iqdb_open opens it", path);
    int status = read_part(joined(path, is_directory ? "/snap" : ""), &o->snapshot, &has_snapshot);
    if (status == DONE) status = read_part(joined(path, is_directory ? "/wal" : ".wal"), &o->log, &has_log);
    if (status != DONE || has_snapshot || (is_directory && has_log)) return status;
    if (has_log) return fail(INPUT, "%s: it is missing, and %s alone does not tell what was in it", path, o->log.name);
    return fail(INPUT, "%s: %s", path, there ? "there is neither snap nor wal in it" : strerror(ENOENT));
}

typedef struct wish {
    const char *old_path, *new_path;
    iqdb_metric metric;
    uint32_t dim;
    bool salvage, check;
} wish;

static const char *const metrics[] = {"unknown", "l2", "cosine", "dot", "l1"};

static int read_words(int argc, char **argv, wish *w) {
    memset(w, 0, sizeof *w);
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *next = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(word, "--salvage") == 0) {
            w->salvage = true;
        } else if (strcmp(word, "--check") == 0) {
            w->check = true;
        } else if (strcmp(word, "--metric") == 0) {
            for (size_t k = 1; k < COUNT_OF(metrics); k++)
                if (strcmp(next, metrics[k]) == 0) w->metric = (iqdb_metric)k;
            if (w->metric == IQDB_METRIC_DEFAULT)
                return fail(USAGE, "--metric %s: it is none of l2, cosine, dot, l1", next);
            i++;
        } else if (strcmp(word, "--dim") == 0) {
            char *end;
            const unsigned long dim = strtoul(next, &end, 10);
            if (*next < '0' || *next > '9' || *end != 0 || dim == 0 || dim > IQDB_DIM_MAX)
                return fail(USAGE, "--dim %s: it is no number from 1 to %u", next, IQDB_DIM_MAX);
            w->dim = (uint32_t)dim;
            i++;
        } else if (word[0] == '-' && word[1] != 0) {
            return fail(USAGE, "there is no option %s; iqdb-import --help lists them", word);
        } else if (w->old_path == NULL) {
            w->old_path = word;
        } else if (w->new_path == NULL) {
            w->new_path = word;
        } else {
            return fail(USAGE, "%s: there are two paths, OLD and NEW", word);
        }
    }
    if (w->old_path == NULL || (w->new_path == NULL) != w->check)
        return fail(USAGE, "give OLD and NEW, or OLD and --check; iqdb-import --help says more");
    return DONE;
}

static void summarise(const original *o, const wish *w, size_t written) {
    printf("%-16s iqdb %s\n", "format", o->newer ? "1.0" : "0.4");
    if (o->newer) printf("%-16s %s (not taken over)\n", "index", o->index);
    printf("%-16s %s\n", "metric", metrics[w->metric]);
    printf("%-16s %lu\n", "dim", (unsigned long)w->dim);
    printf("%-16s %llu\n", "records", ULL(o->count));
    printf("%-16s %llu\n", w->check ? "fit" : "imported", ULL(written));
    printf("%-16s %llu\n", "reported", ULL(o->left));
}

/* All rows go into memory first, where iqdb.h keeps them in any case, and from there, durably, into a directory. */
static int import(original *o, wish *w) {
    iqdb_options options = iqdb_options_default();
    iqdb_error error;
    iqdb *db = NULL;
    size_t written = 0;
    if (w->metric == IQDB_METRIC_DEFAULT) w->metric = o->metric;
    const bool unknown = w->metric == IQDB_METRIC_DEFAULT && !w->check;
    if (unknown && o->newer)
        return fail(USAGE, "%s: its metric is none that iqdb.h has for floats; --metric names another", w->old_path);
    if (unknown)
        return fail(USAGE, "%s: version 0.4 stored no metric; --metric names the one that was searched by",
                    w->old_path);
    if (w->dim == 0) w->dim = original_dim(o);
    if (w->dim == 0 && o->dim <= IQDB_DIM_MAX) w->dim = (uint32_t)o->dim; /* without records */
    memset(&error, 0, sizeof error);
    options.dim = w->dim;
    options.metric = w->metric;
    options.error = &error;
    iqdb_result result = iqdb_open_in_memory(&options, &db);
    if (result == IQDB_OK) result = original_import(o, db, w->dim, &written);
    if (result == IQDB_OK && !w->check) result = iqdb_backup(db, w->new_path);
    if (result != IQDB_OK)
        fail(DATABASE, "%s: %s%s", w->check ? w->old_path : w->new_path,
             error.code == result && error.text[0] != 0 ? error.text : iqdb_strerror(result),
             result == IQDB_ERR_NOSPACE ? "; nothing was made" : "");
    iqdb_close(db);
    if (result != IQDB_OK) return DATABASE;
    summarise(o, w, written);
    if (fflush(stdout) != 0 || ferror(stdout) != 0) return fail(OUTPUT, "the report cannot be written");
    return o->left > 0 || written < o->count ? LEFT : DONE;
}

int main(int argc, char **argv) {
    original o;
    wish w;
    memset(&o, 0, sizeof o);
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) return fputs(usage, stdout) < 0;
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return printf("iqdb-import %d.%d.%d\n", IQDB_VERSION_MAJOR, IQDB_VERSION_MINOR, IQDB_VERSION_PATCH) < 0;
    int status = read_words(argc, argv, &w);
    if (status != DONE) return status;
    o.report = report;
    o.salvage = w.salvage;
    status = read_parts(&o, w.old_path);
    if (status == DONE && !original_read(&o)) status = fail(INPUT, "%s", o.error);
    if (status == DONE) status = import(&o, &w);
    original_free(&o);
    part_free(&o.snapshot);
    part_free(&o.log);
    return status;
}
