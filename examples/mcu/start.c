/* start.c: from reset to main() on an MPS2 board, and the four functions that compilers call by themselves. */
#include "board.h"

#include <stddef.h>

extern uint32_t stack_end[], data_begin[], data_end[], data_image[], bss_begin[], bss_end[];
extern int main(void);

#define REGISTER(address) (*(volatile uint32_t *)(address))

/* ---- What a C library would have ---- */

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);

/* Nobody may see what these loops do, or they would become calls to themselves. */
#define LOOP __attribute__((optimize("no-tree-loop-distribute-patterns")))

LOOP void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    unsigned char *p = to;
    const unsigned char *q = from;
    if ((((uintptr_t)p | (uintptr_t)q) & 3) == 0)
        for (; size >= 4; size -= 4, p += 4, q += 4) *(uint32_t *)(void *)p = *(const uint32_t *)(const void *)q;
    while (size-- > 0) *p++ = *q++;
    return to;
}

LOOP void *memmove(void *to, const void *from, size_t size) {
    unsigned char *p = to;
    const unsigned char *q = from;
    if ((uintptr_t)p <= (uintptr_t)q) return memcpy(to, from, size); /* which goes upwards */
    while (size-- > 0) p[size] = q[size];
    return to;
}

LOOP void *memset(void *to, int byte, size_t size) {
    unsigned char *p = to;
    if (((uintptr_t)p & 3) == 0)
        for (; size >= 4; size -= 4, p += 4) *(uint32_t *)(void *)p = (unsigned char)byte * 0x01010101u;
    while (size-- > 0) *p++ = (unsigned char)byte;
    return to;
}

int memcmp(const void *a, const void *b, size_t size) {
    const unsigned char *p = a, *q = b;
    for (; size > 0; size--, p++, q++)
        if (*p != *q) return *p - *q;
    return 0;
}

/* ---- Semihosting ---- */

static uint32_t host(uint32_t operation, const void *argument) {
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void print(const char *text) { (void)host(0x04, text); }

void print_number(uint32_t number, const char *behind) {
    char digits[11];
    char *at = digits + sizeof digits - 1;
    *at = 0;
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    print(at);
    print(behind);
}

/* ---- The timer, and the start ---- */

/* SysTick counts down 24 bits; what is timed here is shorter than that. */
static uint32_t wraps, last;

uint32_t instructions(void) {
    const uint32_t now = 0xFFFFFFu - REGISTER(0xE000E018u);
    if (now < last) wraps++;
    last = now;
    return (wraps * 0x1000000u + now) * 40;
}

void reset(void);
void reset(void) {
    REGISTER(0xE000ED88u) |= 0xFu << 20; /* CPACR: the floating-point unit may be used */
    for (uint32_t *to = data_begin, *from = data_image; to < data_end; to++, from++) *to = *from;
    for (uint32_t *to = bss_begin; to < bss_end; to++) *to = 0;
    REGISTER(0xE000E014u) = 0xFFFFFFu; /* SysTick: reload, and on, by the processor's clock */
    REGISTER(0xE000E018u) = 0;
    REGISTER(0xE000E010u) = 5;
    const uint32_t exit_code[2] = {0x20026u, (uint32_t)main()};
    (void)host(0x20, exit_code);
    for (;;) {
    }
}

static void fault(void) {
    const uint32_t exit_code[2] = {0x20026u, 99};
    (void)host(0x20, exit_code);
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_end,           (const void *)reset, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault};
