/* RISC-V under QEMU (semihosting) or Spike (its host-target interface): the same file runs on both. */
#include "bare.h"
#include "semihosting.h"

extern uintptr_t fptt_guard[]; /* under the stack; from the linker script */

/* Spike looks these up by name. A system call is the address of four numbers and their answer; an
 * odd number ends the simulation. */
volatile uint64_t tohost __attribute__((aligned(8)));
volatile uint64_t fromhost __attribute__((aligned(8)));

/* 1 under semihosting, else 0; in start.S. */
int fptt_probe(void);

static int semihosting(void) {
  static int answer; /* 0: not asked yet */
  if (!answer) answer = fptt_probe() ? 1 : -1;
  return answer > 0;
}

void fptt_port_write(const char *text, size_t bytes) {
  if (semihosting()) {
    fptt_semihost_write(text, bytes);
    return;
  }
  volatile uint64_t call[8] = {64 /* write */, 1, (uintptr_t)text, bytes};
  __asm__ volatile("fence" ::: "memory");
  tohost = (uintptr_t)call;
  while (!fromhost) {
  }
  fromhost = 0;
}

void fptt_port_exit(int code) {
  if (semihosting()) fptt_semihost_exit(code);
  for (;;) tohost = (uint64_t)(uint32_t)code << 1 | 1u;
}

uint64_t fptt_port_instructions(void) {
#if __riscv_xlen == 64
  uint64_t count;
  __asm__ volatile("csrr %0, minstret" : "=r"(count));
  return count;
#else
  uint32_t high, low, again;
  do
    __asm__ volatile("csrr %0, minstreth\n csrr %1, minstret\n csrr %2, minstreth"
                     : "=&r"(high), "=&r"(low), "=&r"(again));
  while (high != again);
  return (uint64_t)high << 32 | low;
#endif
}

/* start.S jumps here when the processor refuses. */
_Noreturn void fptt_trap_report(uintptr_t cause, uintptr_t pc, uintptr_t value);
_Noreturn void fptt_trap_report(uintptr_t cause, uintptr_t pc, uintptr_t value) {
  int overflow = (uintptr_t)fptt_guard <= value && value < (uintptr_t)fptt_stack_bottom;
  fptt_bare_fault(overflow ? "fault: stack overflow; mcause, mepc, mtval"
                           : "fault: mcause, mepc, mtval",
                  (const uintptr_t[3]){cause, pc, value});
}
