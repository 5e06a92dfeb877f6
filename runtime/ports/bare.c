/* Memory at the start, the stack's depth, and the last words after a fault. */
#include "bare.h"

#define PAINT ((uintptr_t)0xA5A5A5A5A5A5A5A5u)

/* volatile, so that the compiler does not call memcpy or memset: these may need what is not there */
void fptt_bare_memory(void) {
  const uintptr_t *from = fptt_data_source;
  for (volatile uintptr_t *to = fptt_data_start; to < fptt_data_end; to++) *to = *from++;
  for (volatile uintptr_t *to = fptt_bss_start; to < fptt_bss_end; to++) *to = 0;
}

/* Leaves 64 bytes below its stack pointer: the compiler may move it down afterwards. */
void fptt_port_paint_stack(void) {
  uintptr_t *end;
#if defined(__riscv)
  __asm__ volatile("mv %0, sp" : "=r"(end));
#else
  __asm__ volatile("mov %0, sp" : "=r"(end));
#endif
  end -= 64 / sizeof *end;
  for (volatile uintptr_t *word = fptt_stack_bottom; word < end; word++) *word = PAINT;
}

size_t fptt_port_stack_used(void) {
  const volatile uintptr_t *word = fptt_stack_bottom;
  while (word < fptt_stack_top && *word == PAINT) word++;
  return (size_t)((uintptr_t)fptt_stack_top - (uintptr_t)word);
}

void fptt_bare_fault(const char *what, const uintptr_t numbers[3]) {
  static const char digits[] = "0123456789abcdef";
  char text[3 + 2 * sizeof(uintptr_t)];
  size_t length = 0;
  while (what[length]) length++;
  fptt_port_write(what, length);
  for (size_t n = 0; n < 3; n++) {
    char *at = text;
    *at++ = ' ';
    *at++ = '0';
    *at++ = 'x';
    for (size_t shift = 8 * sizeof(uintptr_t); shift; shift -= 4)
      *at++ = digits[numbers[n] >> (shift - 4) & 15u];
    fptt_port_write(text, (size_t)(at - text));
  }
  fptt_port_write("\n", 1);
  fptt_port_exit(FPTT_PORT_FAULT);
}
