/* A program without an operating system on qemu's `virt` (-DBARE_QEMU) or on Spike: start, text,
 * end. */
#ifndef BARE_RV64_H
#define BARE_RV64_H

#include <stddef.h>
#include <stdint.h>

int main(void);

void bare_text(const char *text);
void bare_number(uint64_t number);
void bare_hex(uint64_t number);
_Noreturn void bare_exit(int status);

/* Fills the unused stack with a pattern; how many bytes were written to since. */
void bare_paint_stack(void);
size_t bare_stack_used(void);

static inline uint64_t bare_instructions(void) {
  uint64_t count;
  __asm__ volatile("csrr %0, minstret" : "=r"(count)::"memory");
  return count;
}

static inline uint64_t bare_vector_bytes(void) {
  uint64_t bytes;
  __asm__ volatile("csrr %0, vlenb" : "=r"(bytes));
  return bytes;
}

#endif
