/* npc_memory.c: what the characters of a game remember. Each memory is a vector of 384 elements, as a language model makes
 * them, with its owner, the turn, and how much it matters. A character recalls what is nearest to what it is asked, among
 * its own memories only; what is old and matters little is forgotten, and nobody keeps more than a hundred. It all lies in
 * the game's own save file, between other things.
 *
 *   cc -I. examples/npc_memory.c -o npc_memory -pthread -lm && ./npc_memory
 */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    DIM = 384,
    OWNERS = 100,
    KEPT = 100, /* memories of each */
    TURNS = 300,
    TOPICS = 40,
    K = 5,
    MEMORIES_MAX = OWNERS * KEPT + TURNS * OWNERS / 10
};

/* What the game knows by itself, to check the answers against. */
typedef struct memory {
    int owner, topic, turn, weight;
    bool kept;
} memory;

typedef struct game {
    iqdb *db;
    memory memories[MEMORIES_MAX + 1]; /* by id, from 1 on */
    uint64_t count;
    int kept[OWNERS];
    int forgotten, turn;
} game;

static void check(int right, const char *what) {
    if (right) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

static uint32_t hash(uint32_t a, uint32_t b) {
    uint32_t x = a * 2654435761u ^ b * 2246822519u;
    x ^= x >> 15;
    x *= 2246822519u;
    return x ^ x >> 13;
}

/* The topic, and a bit of what is told about it alone. */
static void embed(int topic, uint64_t saying, float vector[DIM]) {
    for (uint32_t i = 0; i < DIM; i++)
        vector[i] = (float)(hash((uint32_t)topic + 1, i) >> 8) / 8388608.0f - 1.0f +
                    0.5f * ((float)(hash((uint32_t)saying + 1000, i) >> 8) / 8388608.0f - 1.0f);
}

/* ---- Remembering and forgetting ---- */

static void forget(game *g, uint64_t id) {
    bool removed = false;
    check(iqdb_delete(g->db, id, &removed) == IQDB_OK && removed, "delete");
    g->memories[id].kept = false;
    g->kept[g->memories[id].owner]--;
    g->forgotten++;
}

/* One above the hundred: that which matters least goes, of several the oldest. */
static void make_room(game *g, int owner) {
    const iqdb_filter mine = iqdb_eq("owner", iqdb_int(owner));
    size_t count = 0;
    uint64_t least = 0;
    int64_t weight = INT64_MAX;
    if (g->kept[owner] <= KEPT) return;
    check(iqdb_count(g->db, &mine, &count) == IQDB_OK && count == KEPT + 1, "the database counts as the game does");
    iqdb_iter iter = iqdb_iter_begin(g->db, &mine);
    while (iqdb_iter_next(&iter)) { /* in any order */
        const int64_t its = iqdb_payload_int(iter.record.payload, "weight", 0);
        if (its > weight || (its == weight && iter.record.id > least)) continue;
        weight = its;
        least = iter.record.id;
    }
    check(iter.result == IQDB_OK, "iterate");
    iqdb_iter_end(&iter);
    forget(g, least);
}

static void remember(game *g, int owner, int topic, int weight) {
    const uint64_t id = ++g->count;
    memory *made = &g->memories[id];
    float vector[DIM];
    iqdb_field fields[3];
    iqdb_record record = iqdb_record_default();
    check(id <= MEMORIES_MAX, "there is room in the game");
    made->owner = owner;
    made->topic = topic;
    made->turn = g->turn;
    made->weight = weight;
    made->kept = true;
    g->kept[owner]++;
    embed(topic, id, vector);
    fields[0].key = "owner";
    fields[0].value = iqdb_int(owner);
    fields[1].key = "turn";
    fields[1].value = iqdb_int(g->turn);
    fields[2].key = "weight";
    fields[2].value = iqdb_int(weight);
    record.id = id;
    record.vector = vector;
    record.dim = DIM;
    record.fields = fields;
    record.field_count = 3;
    check(iqdb_upsert(g->db, &record) == IQDB_OK, "upsert");
    make_room(g, owner);
}

/* Everybody at once: what is older than 200 turns and hardly matters. */
static void forget_trifles(game *g) {
    const iqdb_filter parts[2] = {iqdb_lt("turn", iqdb_int(g->turn - 200)), iqdb_lt("weight", iqdb_int(2))};
    const iqdb_filter trifles = iqdb_and(parts, 2);
    size_t removed = 0, known = 0;
    check(iqdb_delete_where(g->db, &trifles, &removed) == IQDB_OK, "delete where");
    for (uint64_t id = 1; id <= g->count; id++) {
        memory *at = &g->memories[id];
        if (!at->kept || at->turn >= g->turn - 200 || at->weight >= 2) continue;
        at->kept = false;
        g->kept[at->owner]--;
        known++;
    }
    check(known == removed, "as many trifles as the game knows of");
    g->forgotten += (int)removed;
}

/* ---- Recalling ---- */

static void recall(const iqdb *db, int owner, const float vector[DIM], iqdb_hit hits[K], size_t *count) {
    const iqdb_filter mine = iqdb_eq("owner", iqdb_int(owner));
    iqdb_query query = iqdb_query_default();
    query.vector = vector;
    query.dim = DIM;
    query.k = K;
    query.filter = &mine;
    check(iqdb_search(db, &query, hits, count) == IQDB_OK, "search");
}

/* The same by hand: all of the owner's memories, the nearest first. */
static size_t recall_by_hand(const game *g, int owner, const float vector[DIM], iqdb_hit hits[K]) {
    size_t count = 0;
    for (uint64_t id = 1; id <= g->count; id++) {
        const memory *at = &g->memories[id];
        float other[DIM], score;
        size_t place = count;
        if (!at->kept || at->owner != owner) continue;
        embed(at->topic, id, other);
        check(iqdb_distance(IQDB_COSINE, vector, other, DIM, &score) == IQDB_OK, "distance");
        while (place > 0 && score < hits[place - 1].score) place--; /* equal ones stay behind smaller ids */
        if (place == K) continue;
        if (count < K) count++;
        for (size_t i = count - 1; i > place; i--) hits[i] = hits[i - 1];
        hits[place].id = id;
        hits[place].score = score;
    }
    return count;
}

static void check_recall(const game *g, const iqdb *db, int owner, int topic) {
    float vector[DIM];
    iqdb_hit hits[K], wanted[K];
    size_t count = 0;
    embed(topic, 7, vector);
    recall(db, owner, vector, hits, &count);
    check(count == recall_by_hand(g, owner, vector, wanted), "as many memories as there are");
    for (size_t i = 0; i < count; i++)
        check(hits[i].id == wanted[i].id && memcmp(&hits[i].score, &wanted[i].score, sizeof(float)) == 0,
              "the nearest of its own memories");
}

/* ---- The save file ---- */

static bool to_file(const void *bytes, size_t size, void *user) { return fwrite(bytes, 1, size, (FILE *)user) == size; }

static long save(const game *g, FILE *file) {
    static const char before[] = "level 3, door open;", after[] = "music off.";
    fwrite(before, 1, sizeof before, file);
    const long start = ftell(file);
    check(iqdb_export_blob(g->db, to_file, file) == IQDB_OK, "export");
    const long size = ftell(file) - start;
    fwrite(after, 1, sizeof after, file);
    check(fflush(file) == 0, "write the save file");
    check(fseek(file, start, SEEK_SET) == 0, "find the memories again");
    return size;
}

static iqdb *load(FILE *file, long size) {
    iqdb *db = NULL;
    void *bytes = malloc((size_t)size);
    check(bytes != NULL && fread(bytes, 1, (size_t)size, file) == (size_t)size, "read the save file");
    check(iqdb_load_blob(bytes, (size_t)size, NULL, &db) == IQDB_OK, "load");
    free(bytes);
    return db;
}

int main(void) {
    game *g = (game *)calloc(1, sizeof *g);
    iqdb_hit hits[K];
    float vector[DIM];
    size_t count = 0;
    check(g != NULL && iqdb_open_in_memory(NULL, &g->db) == IQDB_OK, "open");
    for (int i = 0; i < OWNERS * KEPT; i++) {
        const uint32_t dice = hash((uint32_t)i, 1);
        g->turn = -i / OWNERS;
        remember(g, i % OWNERS, (int)(dice % TOPICS), (int)(dice / TOPICS % 10));
    }
    printf("%lu memories of %d characters\n", (unsigned long)iqdb_len(g->db), OWNERS);

    for (g->turn = 1; g->turn <= TURNS; g->turn++) {
        for (int i = 0; i < OWNERS / 10; i++) {
            const uint32_t dice = hash((uint32_t)(g->turn * OWNERS + i), 2);
            remember(g, (int)(dice % OWNERS), (int)(dice / OWNERS % TOPICS), (int)(dice / OWNERS / TOPICS % 10));
        }
        if (g->turn % 50 == 0) forget_trifles(g);
        if (g->turn % 10 == 0) check_recall(g, g->db, (int)(hash((uint32_t)g->turn, 3) % OWNERS), g->turn % TOPICS);
    }
    printf("%d turns later: %lu remembered, %d forgotten, %lu kept\n", TURNS, (unsigned long)g->count, g->forgotten,
           (unsigned long)iqdb_len(g->db));
    check(iqdb_len(g->db) == g->count - (uint64_t)g->forgotten, "what was not forgotten is there");

    embed(7, 7, vector);
    const clock_t began = clock();
    for (int i = 0; i < OWNERS; i++) recall(g->db, i, vector, hits, &count);
    printf("a recall takes %.0f microseconds\n", (double)(clock() - began) * 1e6 / CLOCKS_PER_SEC / OWNERS);
    recall(g->db, 42, vector, hits, &count);
    printf("character 42, asked about topic 7, thinks of\n");
    for (size_t i = 0; i < count; i++)
        printf("  %.3f  topic %d\n", (double)hits[i].score, g->memories[hits[i].id].topic);

    FILE *file = tmpfile();
    check(file != NULL, "make a save file");
    const long size = save(g, file);
    iqdb *loaded = load(file, size);
    check(iqdb_len(loaded) == iqdb_len(g->db), "all memories are loaded");
    for (int i = 0; i < OWNERS; i++) check_recall(g, loaded, i, i % TOPICS);
    printf("saved and loaded, %.1f MB: the same answers\n", (double)size / 1e6);
    fclose(file);
    check(iqdb_close(loaded) == IQDB_OK && iqdb_close(g->db) == IQDB_OK, "close");
    free(g);
    return 0;
}
