/* What a firmware asks of the machine it runs on: a console, an end, an instruction counter and the
 * depth of the stack. The library itself (fptt.h, the kernels, an exported model) needs none of it;
 * an example, a test or a measurement does. On your board, replace port.c and the linker script. */
#ifndef FPTT_PORT_H
#define FPTT_PORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* With this code ends a firmware that a processor's exception stopped. A line on the console says
 * which and where. */
#define FPTT_PORT_FAULT 70

/* Writes text to the console at once; nothing is kept in a buffer, so many bytes a call are fast. */
void fptt_port_write(const char *text, size_t bytes);

#ifdef __cplusplus
#define FPTT_PORT_NORETURN [[noreturn]]
#else
#define FPTT_PORT_NORETURN _Noreturn
#endif

/* Ends the emulator, or the process, with this exit code (0 to 127). */
FPTT_PORT_NORETURN void fptt_port_exit(int code);

/* Instructions retired since the start: differences are exact and the same in every run, under the
 * emulators and options that fptt names. 0 where nothing counts (posix). */
uint64_t fptt_port_instructions(void);

/* Fills the free part of the stack with a pattern. Then fptt_port_stack_used tells how many bytes
 * the stack has held at most since, those in use when it was painted among them (posix: only what
 * came on top of these, up to 256 KiB). */
void fptt_port_paint_stack(void);
size_t fptt_port_stack_used(void);

#ifdef __cplusplus
}
#endif

#endif
