/* Cortex-M4 and M55 on the boards MPS2 (AN386) and MPS3 (AN547), as QEMU has them. */
#include "bare.h"
#include "semihosting.h"

int main(void);

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define CPACR REGISTER(0xE000ED88u)
#define CFSR REGISTER(0xE000ED28u)

/* ---- from reset to main ---- */

_Noreturn void fptt_start(void);
_Noreturn void fptt_start(void) {
  /* coprocessors 10 and 11: floating point, and Helium where it is */
  CPACR |= 0xFu << 20;
  __asm__ volatile("dsb\n isb" ::: "memory");
  fptt_bare_memory();
  fptt_port_exit(main());
}

/* Tells the exception's number, where it happened and the fault status register. */
__attribute__((used)) static void report(const uintptr_t *frame) {
  uintptr_t exception;
  __asm__ volatile("mrs %0, ipsr" : "=r"(exception));
  /* after an overflow the frame is where no memory is */
  int inside = frame >= fptt_stack_bottom && frame + 8 <= fptt_stack_top;
  fptt_bare_fault("fault: exception, pc, cfsr",
                  (const uintptr_t[3]){exception, inside ? frame[6] : 0, CFSR});
}

/* The stack may have overflowed; nobody returns from here, so it starts anew. */
__attribute__((naked)) static void fault(void) {
  __asm__ volatile(
      "mrs r0, msp\n"
      "ldr r1, =fptt_stack_top - 64\n"
      "msr msp, r1\n"
      "b report\n");
}

typedef void (*handler)(void);

__attribute__((section(".fptt_vectors"), used)) static const struct {
  uintptr_t *stack;
  handler handlers[15];
} vectors = {
    fptt_stack_top,
    {fptt_start, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault},
};

/* ---- console and end ---- */

void fptt_port_write(const char *text, size_t bytes) { fptt_semihost_write(text, bytes); }

void fptt_port_exit(int code) {
  for (;;) fptt_semihost_exit(code);
}

/* ---- instructions ---- */

/* QEMU does not model the processor's cycle counter. With -icount shift=6 an instruction takes 64 ns
 * of the machine's time, and the board has a counter of 40 ns ticks: floor(1.6 n) ticks after n
 * instructions, different for each n. It wraps every 2^32 ticks; a second counter, of 10 ms, tells
 * how often that was. Both start at reset. */
#if defined(__ARM_FEATURE_MVE)
#define FPGAIO 0x49302000u
#else
#define FPGAIO 0x40028000u
#endif
#define TICKS_IN_10_MS 250000u

uint64_t fptt_port_instructions(void) {
  uint64_t coarse = (uint64_t)REGISTER(FPGAIO + 0x14) * TICKS_IN_10_MS;
  uint64_t ticks = coarse + (uint32_t)(REGISTER(FPGAIO + 0x18) - (uint32_t)coarse);
  return (ticks * 5 + 7) / 8;
}
