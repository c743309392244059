/* What a bare Cortex-M needs to reach main(): the vector table, initialised data, and the floating-point unit. Output and
 * exit go through semihosting (librdimon). */
#include <stdint.h>
#include <stdlib.h>

extern uint32_t stack_end[], data_begin[], data_end[], data_image[], bss_begin[], bss_end[];
extern void initialise_monitor_handles(void);
extern int main(void);

static void reset(void) {
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: the unit may be used, where there is one */
    for (uint32_t *to = data_begin, *from = data_image; to < data_end; to++, from++) *to = *from;
    for (uint32_t *to = bss_begin; to < bss_end; to++) *to = 0;
    initialise_monitor_handles();
    exit(main());
}

static void fault(void) { exit(99); }

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_end,           (const void *)reset, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault};

void _init(void) {}
void _fini(void) {}
