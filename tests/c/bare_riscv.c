/* Output and a count of instructions for test programs on qemu's virt machine, with picolibc and
 * -icount shift=0. */
#include <stdint.h>
#include <stdio.h>

int run(void);
void say(const char *text);
uint64_t instructions(void);

void say(const char *text) { fputs(text, stdout); }

uint64_t instructions(void) {
  unsigned long count;
  __asm__ volatile("csrr %0, minstret" : "=r"(count));
  return count;
}

int main(void) { return run(); }
