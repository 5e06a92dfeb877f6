/* What the ports without an operating system share; the symbols come from the linker scripts. */
#ifndef FPTT_BARE_H
#define FPTT_BARE_H

#include "port.h"

extern uintptr_t fptt_stack_bottom[], fptt_stack_top[];
extern uintptr_t fptt_data_start[], fptt_data_end[], fptt_bss_start[], fptt_bss_end[];
extern const uintptr_t fptt_data_source[];

/* Initialises .data and .bss; before it, only the stack may be used. */
void fptt_bare_memory(void);

/* Says on the console what stopped the firmware, three numbers after it, and ends. */
FPTT_PORT_NORETURN void fptt_bare_fault(const char *what, const uintptr_t numbers[3]);

#endif
