/* The arena against a map of its bytes: allocations never overlap, keep what is written, lie where they are asked to, and
 * what is freed can be had again. */
#include "base/arena.h"

#include "test.h"

#include "support.h"

enum {
    SIZE = 1 << 15,
    PIECES = 400
};

typedef struct piece {
    uint8_t *bytes;
    size_t size;
    uint8_t mark;
} piece;

static union {
    double alignment;
    uint8_t bytes[SIZE + 128];
} memory;

static uint8_t *start(iq_arena *arena, size_t size) {
    uint8_t *block = memory.bytes + 64 - ((uintptr_t)memory.bytes & 63);
    iq_arena_init(arena, block, size);
    return block;
}

static int is_whole(const piece *p) {
    for (size_t i = 0; i < p->size; i++)
        if (p->bytes[i] != p->mark) return 0;
    return 1;
}

static void any_order(void) {
    static piece pieces[PIECES];
    uint64_t state = 3;
    for (int round = 0; round < 60; round++) {
        iq_arena arena;
        uint8_t *block = start(&arena, SIZE), *limit = block + SIZE;
        size_t live = 0, used = 0, refused = 0;
        const size_t largest = round % 3 == 0 ? 30 : round % 3 == 1 ? 300 : 3000;
        memset(pieces, 0, sizeof pieces);
        for (int step = 0; step < 3000; step++) {
            piece *p = &pieces[support_random(&state) % PIECES];
            if (p->bytes != NULL) {
                CHECK(is_whole(p));
                iq_arena_free(p->bytes, p->size, 8, &arena);
                used -= (p->size + 7) / 8 * 8 + IQ_ARENA_HEAD;
                p->bytes = NULL;
                live--;
            } else if (step % 200 == 199) {
                uint8_t *cut = (uint8_t *)iq_arena_cut(100, 64, &arena);
                if (cut == NULL) continue;
                CHECK(cut == limit - 128 && (uintptr_t)cut % 64 == 0 && arena.end <= cut);
                memset(cut, 0xEE, 128); /* nobody's but ours */
                limit = cut;
            } else {
                const size_t alignment = (size_t)1 << support_random(&state) % 7;
                p->size = 1 + support_random(&state) % largest;
                p->mark = (uint8_t)step;
                p->bytes = (uint8_t *)iq_arena_alloc(p->size, alignment, &arena);
                if (p->bytes == NULL) {
                    refused++;
                    CHECK(used + p->size > (size_t)(limit - block) / 3); /* it is no waste */
                    continue;
                }
                CHECK((uintptr_t)p->bytes % alignment == 0 && p->bytes >= block && p->bytes + p->size <= limit);
                memset(p->bytes, p->mark, p->size);
                used += (p->size + 7) / 8 * 8 + IQ_ARENA_HEAD;
                live++;
            }
            CHECK_EQ_U64(arena.used, used);
        }
        for (size_t i = 0; i < PIECES; i++) {
            if (pieces[i].bytes == NULL) continue;
            CHECK(is_whole(&pieces[i]));
            iq_arena_free(pieces[i].bytes, pieces[i].size, 8, &arena);
        }
        /* All is one hole again. */
        CHECK_EQ_U64(arena.used, 0);
        CHECK(iq_arena_alloc((size_t)(limit - block) - 64, 64, &arena) != NULL);
        CHECK(largest < 3000 || refused > 0);
    }
}

static void to_the_last_byte(void) {
    iq_arena arena;
    start(&arena, 256);
    CHECK(iq_arena_alloc(249, 8, &arena) == NULL && iq_arena_alloc((size_t)-1, 8, &arena) == NULL);
    void *all = iq_arena_alloc(248, 8, &arena);
    CHECK(all != NULL && iq_arena_alloc(1, 1, &arena) == NULL && iq_arena_cut(1, 1, &arena) == NULL);
    iq_arena_free(all, 248, 8, &arena);
    CHECK(iq_arena_cut(257, 1, &arena) == NULL && iq_arena_cut(193, 1, &arena) != NULL); /* 256 of them */
    CHECK(iq_arena_alloc(1, 1, &arena) == NULL);
}

TEST_MAIN("base/arena", TEST(any_order), TEST(to_the_last_byte))
