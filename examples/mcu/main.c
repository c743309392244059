/* main.c: faces on a Cortex-M4F, without an operating system, a C library or a heap.
 *
 * The blob lies in flash and is used where it lies; what finds records in it, and what a search works with, lie in one
 * static array. Built with -Os, the switches below, start.c and flash.ld:
 *
 *   arm-none-eabi-gcc -mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16 -Os -std=c11 -ffreestanding \
 *       -ffunction-sections -fdata-sections -Wl,--gc-sections -nostdlib -I../.. -T flash.ld main.c start.c -lgcc -o mcu.elf
 *   qemu-system-arm -M mps2-an386 -icount shift=0 -semihosting-config enable=on,target=native -nographic -kernel mcu.elf
 */
#define IQDB_NO_LIBC
#define IQDB_NO_FILES
#define IQDB_NO_FILTERS
#define IQDB_NO_THREADS
#define IQDB_NO_MALLOC
#define IQDB_NO_TEXT
#define IQDB_SMALL
#define IQDB_READONLY
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include "board.h"
#include "embed.h"
#include "faces.h" /* what bake.c has printed */

/* ---- Memory: a pile that is never taken down, for a handle that is never closed ---- */

static struct {
    _Alignas(64) unsigned char bytes[48 * 1024];
    size_t used;
} arena;

static void *arena_alloc(size_t size, size_t alignment, void *user) {
    (void)user;
    const size_t begin = (arena.used + alignment - 1) & ~(alignment - 1);
    if (begin > sizeof arena.bytes || size > sizeof arena.bytes - begin) return NULL;
    arena.used = begin + size;
    return arena.bytes + begin;
}

static void arena_free(void *memory, size_t size, size_t alignment, void *user) {
    (void)memory, (void)size, (void)alignment, (void)user;
}

/* ---- Recognising ---- */

static int failed(const char *what, iqdb_result result) {
    print(what);
    print(": ");
    print(iqdb_strerror(result));
    print("\n");
    return 1;
}

int main(void) {
    iqdb *db = NULL;
    iqdb_options options = iqdb_options_default();
    options.allocator.alloc_fn = arena_alloc;
    options.allocator.free_fn = arena_free;
    const uint32_t before_open = instructions();
    iqdb_result result = iqdb_open_blob(faces, sizeof faces, &options, &db);
    const uint32_t open_cost = instructions() - before_open;
    if (result != IQDB_OK) return failed("open_blob", result);

    unsigned right = 0, refused = 0;
    uint32_t cost = 0;
    size_t used = 0;
    for (unsigned i = 0; i < 100; i++) {
        static _Alignas(8) unsigned char room[256];
        iqdb_buffer buffer = iqdb_buffer_fixed(room, sizeof room);
        iqdb_hit hit;
        size_t count = 0;
        float vector[DIM];
        const unsigned person = i * 7 % (PEOPLE + 50); /* some of them are strangers */
        embed(person, i + 1, vector);
        iqdb_query query = iqdb_query_default();
        query.vector = vector;
        query.k = 1;
        query.flags = IQDB_MAX_DISTANCE | IQDB_WITH_PAYLOAD;
        query.max_distance = 0.3f;
        query.buffer = &buffer;
        const uint32_t before = instructions();
        result = iqdb_search(db, &query, &hit, &count);
        cost += instructions() - before;
        if (result != IQDB_OK) return failed("search", result);
        if (i == 0) used = arena.used; /* from here on nothing is taken */
        if (i == 0 && count == 1) {
            print("the first visitor is ");
            print(iqdb_payload_text(hit.payload, "name", NULL));
            print("\n");
        }
        if (person < PEOPLE && count == 1 && hit.id == person) right++;
        if (person >= PEOPLE && count == 0) refused++;
    }
    print_number(right, " were recognised\n");
    print_number(refused, " strangers were refused\n");
    print_number(arena.used - used, " bytes were taken by all searches but the first\n");
    print_number(sizeof faces, " bytes of flash for the faces\n");
    print_number((uint32_t)arena.used, " bytes of memory\n");
    print_number(open_cost, " instructions to open and check\n");
    print_number(cost / 100, " instructions for a search\n");
    return 0;
}
