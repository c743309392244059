/* Does anything grow that should not? A directory is written, read and checkpointed without end through one handle, which
 * stays open, for a close would free what it has leaked; another directory is opened, written and closed beside it.
 * Records come and go in a moving window of ids, some are replaced on the way, payloads have all sizes. What is asked for
 * is compared with a model, and what the process and the directory take is measured.
 *
 * The first third of the time is for warming up. The most that was seen in the last third may exceed the most of the
 * second third by a sixteenth and the slack below: less than a leak of one record in a hundred writes would make in the
 * ten minutes of the long tier. Descriptors may not exceed it at all. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "api/public.h"

#include <time.h>

/* A sanitizer keeps freed memory, so the process grows with every free. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SOAK_KEEPS_FREED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SOAK_KEEPS_FREED 1
#endif
#endif
#ifndef SOAK_KEEPS_FREED
#define SOAK_KEEPS_FREED 0
#endif

enum {
    DIM = 16,
    WINDOW = 2000, /* ids at once */
    TEXT = 3000,
    ROUND = 500 /* writes between two looks */
};
#define RSS_SLACK (512u << 10)
#define FILE_SLACK (64u << 10)

static iqdb *db;
static uint64_t first, next, random_state = 77; /* ids: first .. next - 1 */
static uint32_t versions[WINDOW];               /* of id % WINDOW; 0: deleted before its time */
static char text[TEXT];

/* The most that was seen: resident bytes, bytes of files, open descriptors. */
typedef struct usage {
    uint64_t resident, files, descriptors, looks;
} usage;

static void vector_of(uint64_t id, uint32_t version, float *out) {
    uint64_t state = id * 1000003u + version;
    for (int i = 0; i < DIM; i++) out[i] = support_random_float(&state);
}

static size_t text_size(uint64_t id, uint32_t version) {
    uint64_t state = id + version;
    return (size_t)(support_random(&state) % (version % 8 == 0 ? TEXT : 60));
}

static bool put(uint64_t id, uint32_t version) {
    float vector[DIM];
    const iqdb_field fields[2] = {public_field("version", iqdb_int((int64_t)version)),
                                  public_field("text", iqdb_text_n(text, text_size(id, version)))};
    iqdb_record record = public_record(id, vector, DIM);
    vector_of(id, version, vector);
    record.fields = fields;
    record.field_count = 2;
    versions[id % WINDOW] = version;
    return EXPECT(iqdb_upsert(db, &record) == IQDB_OK);
}

static bool is_there(uint64_t id) {
    float vector[DIM];
    size_t size = 0;
    iqdb_record record;
    iqdb_buffer buffer = iqdb_buffer_default();
    const uint32_t version = versions[id % WINDOW];
    const iqdb_result result = iqdb_get(db, id, &buffer, &record);
    bool ok = EXPECT(result == (version == 0 ? IQDB_ERR_NOT_FOUND : IQDB_OK));
    if (ok && version != 0) {
        vector_of(id, version, vector);
        ok = EXPECT(memcmp(record.vector, vector, sizeof vector) == 0) &&
             EXPECT(iqdb_payload_int(record.payload, "version", -1) == (int64_t)version) &&
             EXPECT(iqdb_payload_text(record.payload, "text", &size) != NULL && size == text_size(id, version));
    }
    iqdb_buffer_free(&buffer);
    return ok;
}

/* A record is the nearest one to its own vector. */
static bool is_found(uint64_t id) {
    float vector[DIM];
    iqdb_hit hits[5];
    size_t count = 0;
    if (versions[id % WINDOW] == 0) return true;
    vector_of(id, versions[id % WINDOW], vector);
    const iqdb_query query = public_query(vector, DIM, 5, IQDB_L2);
    return EXPECT(iqdb_search(db, &query, hits, &count) == IQDB_OK && count > 0 && hits[0].id == id);
}

static bool open_one(const char *folder, iqdb **out_db) {
    iqdb_options options = iqdb_options_default();
    options.metric = IQDB_L2;
    options.files = public_quick_files(); /* it is the files that are measured, and not the disk */
    return EXPECT(iqdb_open(folder, &options, out_db) == IQDB_OK);
}

static bool visit(const char *folder) {
    iqdb *other = NULL;
    if (!open_one(folder, &other)) return false;
    const bool ok = EXPECT(public_store(other, first % 100, first) == IQDB_OK);
    return EXPECT(iqdb_close(other) == IQDB_OK) && ok;
}

static uint64_t id_inside(void) { return first + support_random_below(&random_state, next - first); }

static bool work_a_round(void) {
    for (uint32_t i = 0; i < ROUND; i++) {
        const uint64_t id = id_inside();
        const uint32_t version = (uint32_t)(next + i) | 1u << 30;
        bool ok = true;
        if (next - first == WINDOW) {
            bool removed = false;
            ok = EXPECT(iqdb_delete(db, first, &removed) == IQDB_OK && removed == (versions[first % WINDOW] != 0));
            first++;
        }
        ok = ok && put(next, version);
        next += ok;
        if (id > first && i % 3 == 0) ok = ok && put(id, version + 1);
        if (id > first && i % 7 == 0) {
            versions[id % WINDOW] = 0;
            ok = ok && EXPECT(iqdb_delete(db, id, NULL) == IQDB_OK);
        }
        ok = ok && is_there(id_inside()) && (i % 8 != 0 || is_found(id_inside()));
        if (!ok) return false;
    }
    return true;
}

static bool upkeep(const char *other, uint64_t round) {
    if (round % 7 == 0) return EXPECT(iqdb_flush(db) == IQDB_OK);
    if (round % 16 == 0) return EXPECT(iqdb_checkpoint(db) == IQDB_OK);
    return round % 10 != 1 || visit(other);
}

static void look(const char *folder, usage *most) {
    unsigned long long pages = 0;
    usage now = {0, 0, 0, 0};
    FILE *file = fopen("/proc/self/statm", "r");
    if (file != NULL && fscanf(file, "%*u %llu", &pages) == 1) now.resident = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    if (file != NULL) fclose(file);
    const char *const places[2] = {folder, "/proc/self/fd"};
    for (int i = 0; i < 2; i++) {
        DIR *directory = opendir(places[i]);
        for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
            struct stat info;
            char path[SUPPORT_PATH_MAX];
            support_join(path, places[i], entry->d_name);
            if (i == 0 && stat(path, &info) == 0 && S_ISREG(info.st_mode)) now.files += (uint64_t)info.st_size;
            now.descriptors += i;
        }
        if (directory != NULL) closedir(directory);
    }
    if (now.resident > most->resident) most->resident = now.resident;
    if (now.files > most->files) most->files = now.files;
    if (now.descriptors > most->descriptors) most->descriptors = now.descriptors;
    most->looks++;
}

static void nothing_grows(void) {
    const time_t seconds = (time_t)support_amount(5, 5, 600), begin = time(NULL);
    char folder[SUPPORT_PATH_MAX], other[SUPPORT_PATH_MAX];
    usage thirds[3];
    uint64_t round = 0;
    if (access("/proc/self/statm", R_OK) != 0 || access("/proc/self/fd", R_OK) != 0) TEST_SKIP("no /proc to look into");
    memset(thirds, 0, sizeof thirds);
    memset(text, 'x', sizeof text);
    support_directory(folder);
    support_directory(other);
    CHECK(open_one(folder, &db) && put(next++, 1));
    /* By the clock, and at least as many rounds as make a third whole: flushed, checkpointed, the other one visited. */
    for (int third = 0; third < 3; third++)
        for (uint64_t rounds = 0; rounds < 80 || time(NULL) - begin < seconds * (third + 1) / 3; rounds++) {
            CHECK(work_a_round() && upkeep(other, ++round));
            look(folder, &thirds[third]);
        }
    for (int third = 0; third < 3; third++)
        printf("\n    third %d: %llu looks, at most %llu KiB resident, %llu KiB of files, %llu descriptors", third + 1,
               (unsigned long long)thirds[third].looks, (unsigned long long)thirds[third].resident >> 10,
               (unsigned long long)thirds[third].files >> 10, (unsigned long long)thirds[third].descriptors);
    printf("\n    %llu rounds, %llu ids ...", (unsigned long long)round, (unsigned long long)next);
    const usage *before = &thirds[1], *after = &thirds[2];
    if (!SOAK_KEEPS_FREED) CHECK(after->resident <= before->resident + before->resident / 16 + RSS_SLACK);
    CHECK(after->files <= before->files + before->files / 16 + FILE_SLACK);
    CHECK(after->descriptors <= before->descriptors);
    for (uint64_t id = first; id < next; id++) CHECK(is_there(id));
    CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    support_remove(folder);
    support_remove(other);
}

TEST_MAIN("crash/soak", TEST(nothing_grows))
