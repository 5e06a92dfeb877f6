/* A process on a computer: no emulator, and nothing that counts instructions. */
#include "port.h"

#include <stdlib.h>
#include <unistd.h>

#define PAINT 0xA5u
#define WINDOW (256u * 1024u)

void fptt_port_write(const char *text, size_t bytes) {
  while (bytes) {
    ssize_t done = write(1, text, bytes);
    if (done <= 0) _exit(FPTT_PORT_FAULT);
    text += done;
    bytes -= (size_t)done;
  }
}

void fptt_port_exit(int code) { _Exit(code); }

uint64_t fptt_port_instructions(void) { return 0; }

/* The window's lowest address. Its memory is below every frame after painting; the operating system
 * keeps it until something deeper overwrites it. */
static uintptr_t window;

__attribute__((noinline)) void fptt_port_paint_stack(void) {
  volatile unsigned char paint[WINDOW];
  for (size_t n = WINDOW; n-- > 0;) paint[n] = PAINT;
  window = (uintptr_t)paint;
}

size_t fptt_port_stack_used(void) {
  const volatile unsigned char *paint = (const volatile unsigned char *)window;
  size_t free = 0;
  while (free < WINDOW && paint[free] == PAINT) free++;
  return WINDOW - free;
}
