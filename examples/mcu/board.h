/* board.h: what start.c has for main.c: text by semihosting, and a counter. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

void print(const char *text);
void print_number(uint32_t number, const char *behind);
uint32_t instructions(void); /* since the start, to 40: the timer ticks at 25 MHz, and qemu's -icount makes 1 of a ns */

#endif
