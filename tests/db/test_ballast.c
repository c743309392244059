/* The ballast: what has to go on when the disk is full finds its space, what has not leaves it alone; and it may be
 * missing. Lives and power cuts with it are in crash/scenarios.h. */
#include "crash/world.h"

/* The size of the file, or 0 where there is none. */
static size_t ballast(const world *w) {
    size_t size = 0;
    free(fault_load(w->disk, "db", "ballast", &size));
    return size;
}

/* Until a write finds no space: the log has none left that it has not used. */
static void fill_up(world *w) {
    CHECK(world_play(w, "F"));
    const size_t before = w->failed;
    for (int i = 0; i < 40 && w->failed == before; i++) CHECK(world_play(w, "r"));
    CHECK(w->failed > before);
    CHECK_EQ_U64(ballast(w), 1 << 20);
}

static void deletes_spend_it(void) {
    static world w;
    world_make(&w, WORLD_EACH | WORLD_BALLAST, 4096, 1);
    CHECK(world_play(&w, "oBBB"));
    CHECK_EQ_U64(ballast(&w), 1 << 20);
    fill_up(&w);
    CHECK(world_play(&w, "ragk")); /* find no space, and do not take this */
    CHECK_EQ_U64(ballast(&w), 1 << 20);
    CHECK_EQ_U64(w.error.code, (uint64_t)(int64_t)IQDB_ERR_NOSPACE);
    memset(&w.error, 0, sizeof w.error);
    CHECK(world_play(&w, "d"));
    CHECK_EQ_INT(w.error.code, IQDB_OK); /* nor is there anything to tell */
    CHECK_EQ_U64(ballast(&w), 0);
    CHECK(world_play(&w, "9dD"));
    const size_t before = w.failed;
    CHECK(world_play(&w, "kEukF")); /* the logs go; there is room for another one only where the disk is not full */
    CHECK_EQ_U64(w.failed, before);
    CHECK_EQ_U64(ballast(&w), 1 << 20);
    fill_up(&w);
    CHECK(world_play(&w, "DEc"));
    CHECK_EQ_U64(ballast(&w), 0);
    world_free(&w);
}

static void recovery_spends_it(void) {
    static world w;
    for (int has_one = 0; has_one < 2; has_one++) {
        world_make(&w, WORLD_EACH | WORLD_BALLAST, 4096, 2);
        CHECK(world_play(&w, "oBB"));
        fill_up(&w);
        if (!has_one) {
            w.flags = WORLD_EACH;
            w.disk->ballast = false;
        }
        CHECK(world_play(&w, "x"));
        CHECK(w.stuck == !has_one); /* without it, it is open for reading only */
        CHECK(has_one ? ballast(&w) == 0 && world_play(&w, "dxdcd") : world_play(&w, "d"));
        CHECK(world_play(&w, "Ecuk"));
        world_free(&w);
    }
}

/* Each write and each create of a delete, of a recovery and of a close finds no space once. */
static void wherever_space_ends(void) {
    static const char *const scripts[][2] = {
        {"oBB", "d"}, {"oBBk9r9r", "9d"}, {"oBB", "xd"}, {"okB", "cd"}, {"oBkB", "Dz"}};
    static world w;
    size_t struck = 0, spent = 0;
    for (size_t s = 0; s < sizeof scripts / sizeof scripts[0]; s++) {
        bool hit = true;
        for (size_t n = 1; hit; n++) {
            world_make(&w, WORLD_EACH | WORLD_BALLAST, 4096, n);
            CHECK(world_play(&w, scripts[s][0]));
            if (s < 2) fill_up(&w);
            if (s < 2) CHECK(world_play(&w, "E"));
            fault_fail_nth(w.disk, FAULT_WRITE | FAULT_OPEN, n, IQDB_ERR_NOSPACE, false);
            w.lax = true; /* a frame that was written into space it had is lost with it */
            CHECK(world_play(&w, scripts[s][1]));
            hit = w.disk->failed > 0;
            struck += hit;
            spent += ballast(&w) == 0;
            if (ballast(&w) == 0) CHECK_EQ_U64(w.failed, s < 2 ? 1 : 0);
            fault_fail_nth(w.disk, 0, 0, IQDB_OK, false);
            CHECK(world_play(&w, w.db == NULL ? "oc" : "xc"));
            world_free(&w);
        }
    }
    printf(" %zu times, spent %zu times", struck, spent);
    CHECK(spent > 10);
}

/* It is made whole where it is gone or short, and nobody minds what is in it. */
static void whatever_it_is(void) {
    static world w;
    uint8_t *bytes = (uint8_t *)calloc(1, 2 << 20);
    CHECK(bytes != NULL);
    for (size_t size = 0; size <= 2u << 20; size = size * 2 + 100000) {
        world_make(&w, WORLD_EACH | WORLD_BALLAST, 4096, 3);
        CHECK(world_play(&w, "oB"));
        CHECK(fault_store(w.disk, "db", "ballast", bytes, size));
        CHECK(world_play(&w, "vcxu"));
        CHECK_EQ_U64(ballast(&w), size);
        CHECK(world_play(&w, "kvc"));
        CHECK(size < 1u << 20 ? ballast(&w) >= 1u << 20 && ballast(&w) < (1u << 20) + 32768 : ballast(&w) == size);
        world_free(&w);
    }
    free(bytes);
}

TEST_MAIN("db/ballast", TEST(deletes_spend_it), TEST(recovery_spends_it), TEST(wherever_space_ends),
          TEST(whatever_it_is))
