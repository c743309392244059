/* Rot: what happens to a database between two openings. Every byte of every file of small databases is flipped in a
 * bit, made zero and made something else; every sector of 512 and of 4,096 bytes becomes zeros, garbage, another sector
 * or its own former contents; files are cut at every length, emptied, removed, exchanged with those of another database
 * and, where the database was closed, with what they were at an earlier moment.
 *
 * What must hold: open gives an error that names the file and a place at or right before the damage, and changes
 * nothing; or exactly the records of before. Where the database was not closed, and only there, the very last group
 * commit may be missing, which nothing attests yet. */
#include "crash/world.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#define MOMENTS 24

typedef struct rot {
    world w;
    fault_files *disk; /* sound */
    fault_files *earlier[MOMENTS];
    size_t earlier_count;
    size_t least; /* index in the history that must be reached */
    uint64_t entropy;
    bool closed, stale; /* a whole file was exchanged with an older one: then the others do not fit, and say so */
    bool recovers;      /* the life has recoveries in it */
    size_t tried, refused, same, shorter;
    const char *script, *name; /* of the file */
} rot;

static iqdb_error told;

static bool complain(const rot *r, const char *damage, uint64_t at, const char *why) {
    printf("\n    \"%s\", %s %s at %llu: %s; error %d, %s at %llu: %s", r->script, r->name, damage,
           (unsigned long long)at, why, (int)told.code, told.file, (unsigned long long)told.offset, told.text);
    return EXPECT(!"rot is reported or harmless");
}

/* Opens a damaged disk, for reading only or not. `size` bytes from `at` on are damaged; 0: who knows. */
static bool judge(rot *r, fault_files *damaged, const char *damage, uint64_t at, uint64_t size) {
    const bool read_only = r->tried++ % 2 == 0;
    const uint64_t digest = fault_digest(damaged);
    iqdb_options options = iqdb_options_default();
    iqdb *db = NULL;
    uint64_t print;
    options.index_ops = &world_index_ops;
    options.files = fault_table(damaged);
    options.entropy.fill_fn = world_entropy;
    options.entropy.user = &r->entropy;
    options.error = &told;
    options.read_only = read_only;
    memset(&told, 0, sizeof told);
    const iqdb_result result = iqdb_open("db", &options, &db);
    if (result != IQDB_OK) {
        r->refused++;
        if (result != IQDB_ERR_CORRUPT || told.code != result) return complain(r, damage, at, "another code");
        if (strcmp(told.file, r->name) != 0 && (!r->stale || told.file[0] == 0))
            return complain(r, damage, at, "another file is blamed");
        if (fault_pending(damaged) > 0 || fault_digest(damaged) != digest)
            return complain(r, damage, at, "a database was changed that does not open");
        if (size > 0 && (told.offset >= at + size || told.offset + 16384 < at))
            return complain(r, damage, at, "another place is blamed");
        return true;
    }
    const bool intact = world_look(db, &print, NULL);
    world_kill(damaged, &db);
    /* A log begun by a recovery that META knows nothing of may be what an interrupted one has left: an older META brings
     * back that moment. */
    const size_t least = r->stale && r->recovers ? 0 : r->least;
    size_t i = r->w.history_count;
    while (i > least && r->w.prints[i - 1] != print) i--;
    if (!intact || i == least) return complain(r, damage, at, "other records");
    if (least < r->least) return true;
    if (i < r->w.history_count && strncmp(r->name, "wal", 3) != 0)
        return complain(r, damage, at, "a commit is missing");
    r->same += i == r->w.history_count;
    r->shorter += i < r->w.history_count;
    return true;
}

static bool poke(rot *r, const char *damage, uint64_t at, const void *bytes, size_t size) {
    fault_files *damaged = fault_copy(r->disk);
    const bool ok = EXPECT(fault_poke(damaged, "db", r->name, at, bytes, size)) && judge(r, damaged, damage, at, size);
    fault_free(damaged);
    return ok;
}

/* bytes NULL: removed. */
static bool exchange(rot *r, const char *damage, uint64_t at, const void *bytes, size_t size) {
    fault_files *damaged = fault_copy(r->disk);
    const bool ok = EXPECT(fault_store(damaged, "db", r->name, bytes, size)) && judge(r, damaged, damage, at, 0);
    fault_free(damaged);
    return ok;
}

/* ---- Kinds of damage to one file ---- */

static bool rot_bytes(rot *r, const uint8_t *bytes, size_t size, size_t step, size_t tail_step) {
    size_t end = size; /* of what is not zeros */
    while (end > 0 && bytes[end - 1] == 0) end--;
    for (size_t at = 0; at < size; at += at < end + 4200 ? step : tail_step) {
        const uint8_t flipped = bytes[at] ^ (uint8_t)(1u << at % 8), other = (uint8_t)(bytes[at] + 1 + at * 7 % 254);
        const uint8_t zero = 0;
        if (!poke(r, "flipped", at, &flipped, 1) || !poke(r, "changed", at, &other, 1)) return false;
        if (bytes[at] != 0 && !poke(r, "zeroed", at, &zero, 1)) return false;
    }
    return true;
}

static bool rot_sectors(rot *r, const uint8_t *bytes, size_t size, size_t sector_size) {
    static uint8_t garbage[4096], zeros[4096];
    for (size_t at = 0; at < size; at += sector_size) {
        const size_t part = size - at < sector_size ? size - at : sector_size;
        const size_t others = (size + sector_size - 1) / sector_size;
        for (size_t i = 0; i < part; i++) garbage[i] = (uint8_t)support_random(&r->entropy);
        if (!poke(r, "garbage sector", at, garbage, part) || !poke(r, "zero sector", at, zeros, part)) return false;
        for (size_t i = 0; i < 4; i++) { /* a neighbour, and three from anywhere */
            const size_t from = (i == 0 ? at / sector_size + 1 : (size_t)support_random_below(&r->entropy, others)) %
                                others * sector_size;
            const size_t length = size - from < part ? size - from : part;
            if (!poke(r, "another sector", at, bytes + from, length)) return false;
        }
    }
    return true;
}

static bool rot_lengths(rot *r, const uint8_t *bytes, size_t size, size_t step, size_t tail_step) {
    size_t end = size;
    while (end > 0 && bytes[end - 1] == 0) end--;
    for (size_t length = 0; length < size; length += length < end + 100 ? step : tail_step)
        if (!exchange(r, "cut", length, bytes, length)) return false;
    return exchange(r, "removed", 0, NULL, 0);
}

/* What the file, or one of its sectors, was at an earlier moment. */
static bool rot_back_in_time(rot *r, const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < r->earlier_count; i++) {
        size_t old_size = 0;
        uint8_t *old = fault_load(r->earlier[i], "db", r->name, &old_size);
        if (old == NULL) continue;
        bool ok = true;
        /* A log of a database that was not closed may be as short as it once was, for all that anybody knows. */
        r->stale = r->closed && (old_size != size || memcmp(old, bytes, size) != 0);
        if (r->stale) ok = exchange(r, "as before", i, old, old_size);
        r->stale = false;
        for (size_t at = 0; at + 512 <= size && at + 512 <= old_size && ok; at += 512)
            if (memcmp(old + at, bytes + at, 512) != 0) ok = poke(r, "sector as before", at, old + at, 512);
        for (size_t at = 0; at + 4096 <= size && at + 4096 <= old_size && ok; at += 4096)
            if (memcmp(old + at, bytes + at, 4096) != 0) ok = poke(r, "page as before", at, old + at, 4096);
        free(old);
        if (!ok) return false;
    }
    return true;
}

static bool rot_foreign(rot *r, const char *script) {
    static world other;
    world_make(&other, r->w.flags, 4096, 777777);
    size_t size = 0;
    bool ok = EXPECT(world_play(&other, script));
    uint8_t *bytes = fault_load(other.disk, "db", r->name, &size);
    world_free(&other);
    /* All of another database's META does not fit; its LOCK is as good as ours. */
    if (bytes != NULL && ok && strcmp(r->name, "META") != 0) ok = exchange(r, "foreign", 0, bytes, size);
    free(bytes);
    return ok;
}

/* ---- Databases ---- */

static void remember(fault_files *disk, void *user) {
    rot *r = (rot *)user;
    static size_t calls;
    if (r->earlier_count == MOMENTS || calls++ % 3 != 0) return;
    void (*after_fn)(fault_files *, void *) = disk->after_fn;
    disk->after_fn = NULL;
    r->earlier[r->earlier_count++] = fault_copy(disk);
    disk->after_fn = after_fn;
}

/* A life that ends with z is closed; else the process dies, and what it wrote is there. */
static bool rot_make(rot *r, const char *script, unsigned flags, bool attested) {
    memset(r, 0, sizeof *r);
    r->script = script;
    r->entropy = 5;
    world_make(&r->w, flags, 512, 4711);
    r->w.disk->after_fn = remember;
    r->w.disk->after_user = r;
    if (!EXPECT(world_play(&r->w, script))) return false;
    r->w.disk->after_fn = NULL;
    /* Nothing attests the last commit yet. */
    r->least = attested ? r->w.history_count - 1 : r->w.durable - ((flags & WORLD_EACH) != 0);
    r->closed = r->w.db == NULL;
    r->recovers = strpbrk(script, "xpq") != NULL;
    if (r->w.db != NULL) world_kill(r->w.disk, &r->w.db);
    r->disk = fault_copy(r->w.disk);
    return EXPECT(fault_pending(r->disk) == 0) && EXPECT(attested || r->least < r->w.history_count - 1);
}

static void rot_free(rot *r) {
    for (size_t i = 0; i < r->earlier_count; i++) fault_free(r->earlier[i]);
    fault_free(r->disk);
    world_free(&r->w);
}

static bool rot_file(rot *r, const char *name, size_t step) {
    size_t size = 0;
    uint8_t *bytes = fault_load(r->disk, "db", name, &size);
    const size_t tail_step = step == 1 ? 1 : step * 61;
    if (bytes == NULL) return true;
    r->name = name;
    bool ok = rot_bytes(r, bytes, size, step, tail_step) && rot_sectors(r, bytes, size, 512) &&
              rot_sectors(r, bytes, size, 4096) && rot_lengths(r, bytes, size, step * 5, tail_step * 5);
    ok = ok && rot_back_in_time(r, bytes, size) && rot_foreign(r, r->script);
    free(bytes);
    return ok;
}

/* step: every byte, or one in so many. */
static void rot_all(const char *script, unsigned flags, bool attested, size_t step) {
    static const char *const names[] = {"META",  "wal-1",  "wal-2",  "wal-3", "wal-4",
                                        "wal-5", "snap-1", "snap-2", "snap-3"};
    static rot r;
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 1 << 26);
    mallopt(M_TRIM_THRESHOLD, 1 << 28);
#endif
    bool ok = rot_make(&r, script, flags, attested);
    for (size_t i = 0; i < sizeof names / sizeof names[0] && ok; i++) ok = rot_file(&r, names[i], step);
    printf("\n    \"%s\": %zu times damaged, %zu reported, %zu harmless, %zu without the last commit", script, r.tried,
           r.refused, r.same, r.shorter);
    rot_free(&r);
    CHECK(ok);
    CHECK(r.refused > r.tried / 100);
    if (attested)
        CHECK_EQ_U64(r.shorter, 0);
    else
        CHECK(r.shorter > 0);
}

/* One database whole; the others at steps that have no factor in common with the sizes of things. */
static void every_byte_of_a_closed_database(void) { rot_all("oubrkudbz", 0, true, support_amount(97, 1, 1)); }

static void closed_databases(void) {
    const size_t step = support_amount(997, 11, 1);
    rot_all("oubralDz", WORLD_EACH, true, step);
    rot_all("oubukKubKuz", WORLD_EACH, true, step);
    rot_all("oubxubqudz", 0, true, step);
    rot_all("oLklz", WORLD_COMPACT, true, step);
    rot_all("ouzouz", WORLD_EACH, true, step);
    rot_all("obXbkaXbkuz", WORLD_EACH | WORLD_SIDE, true, step);
    rot_all("obLLkLdkurkuz", 0, true, step); /* a base and two deltas */
    rot_all("oBwBMdukuz", WORLD_EACH | WORLD_LISTS, true, step);
    rot_all("oBMkuz", WORLD_EACH | WORLD_CUSTOM, true, step);
}

static void databases_of_the_dead(void) {
    const size_t step = support_amount(997, 11, 1);
    rot_all("oubruru", WORLD_EACH, false, step); /* the last commit has no witness */
    rot_all("oubkuKubu", WORLD_EACH, false, step);
    rot_all("oubrfubf", 0, true, step); /* a flush leaves one */
    rot_all("oubkubKubf", 0, true, step);
    rot_all("oubruxubux", WORLD_EACH, true, step); /* and so does recovery */
    rot_all("oubukubk", WORLD_EACH, true, step);   /* and a checkpoint */
}

TEST_MAIN("crash/rot", TEST(every_byte_of_a_closed_database), TEST(closed_databases), TEST(databases_of_the_dead))
